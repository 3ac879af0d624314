//! Any number of inputs through every parser: `cargo run --release --example fuzz [INPUTS [FIRST]]`.
//!
//! Prints how many inputs there were, how long they took and which failed; exit code 1 when one did. `INPUTS` 1 and
//! `FIRST` a failure's number has that failure again, with its backtrace.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a check fails by panicking"
)]

mod parsers;

use std::process::ExitCode;
use std::time::Instant;

/// What a thread takes at a time.
const BATCH: u64 = 10_000;
/// Failures that are told in full.
const TOLD: usize = 10;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let (inputs, first) = match (numbers.next(), numbers.next()) {
        (None, _) => (1_000_000, 0),
        (Some(Ok(inputs)), None) => (inputs, 0),
        (Some(Ok(inputs)), Some(Ok(first))) => (inputs, first),
        _ => {
            eprintln!("fuzz: give the number of inputs, and the first one's if it is not 0");
            return ExitCode::from(2);
        }
    };
    if inputs > 1 {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let start = Instant::now();
    let failures = in_threads(first, inputs);
    println!(
        "{inputs} inputs through {} parsers in {:.0} s: {} failed",
        parsers::PARSERS.len(),
        start.elapsed().as_secs_f64(),
        failures.len()
    );
    for failure in failures.iter().take(TOLD) {
        println!("{failure}");
    }
    match failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn in_threads(first: u64, inputs: u64) -> Vec<parsers::Failure> {
    let next = std::sync::atomic::AtomicU64::new(first);
    let end = first + inputs;
    let work = || {
        let mut failures = Vec::new();
        loop {
            let start = next.fetch_add(BATCH, std::sync::atomic::Ordering::Relaxed);
            if start >= end {
                return failures;
            }
            failures.extend(parsers::run(start, BATCH.min(end - start)));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut failures = Vec::new();
        for thread in threads {
            failures.extend(thread.join().unwrap());
        }
        failures.sort_by_key(|failure| failure.number);
        failures
    })
}
