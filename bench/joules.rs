//! What every energy counter of this machine says a command took: `cargo run --example joules -- make -j8`.
//!
//! One line for each source and domain, `SOURCE<tab>DOMAIN<tab>µJ`, or the reason instead of the number; power
//! channels and batteries are left out. The command's exit code is handed on.

use anyhow::{Context, Result, bail};
use scx_joule::energy::select::{Purpose, Source, State};
use scx_joule::energy::source::total;
use scx_joule::energy::{self, Amount, EnergySource, Moment, Reading};
use scx_joule::sysroot::SysRoot;
use scx_joule::units::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// How often counters are read while the command runs: no sooner than they wrap, and not when they had stood still for
/// so long that they count as broken.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

type Sums = BTreeMap<(Source, energy::Domain), Result<u64, String>>;

fn main() -> Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let Some(program) = words.next() else {
        bail!("give a command to run");
    };
    let mut meters = meters();
    if meters.is_empty() {
        bail!("no energy counter can be read; `scx_joule check` says why");
    }
    let start = Instant::now();
    let mut sums = Sums::new();
    sample(&mut meters, start, &mut sums);
    sums.clear();
    let mut child = Command::new(&program)
        .args(words)
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let mut last = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if last.elapsed() >= LONGEST_PAUSE {
            sample(&mut meters, start, &mut sums);
            last = Instant::now();
        }
        std::thread::sleep(POLL);
    };
    sample(&mut meters, start, &mut sums);
    for ((source, domain), sum) in sums {
        let sum = sum.map_or_else(|why| why, |energy_uj| energy_uj.to_string());
        println!("{source}\t{domain}\t{sum}");
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The counters of every source that can be read.
fn meters() -> Vec<(Source, Box<dyn EnergySource>)> {
    let sys = SysRoot::host();
    let facts = energy::probe(&sys);
    let selection = energy::select(&facts);
    let mut seen = BTreeSet::new();
    let mut meters = Vec::new();
    for purpose in [Purpose::Package, Purpose::Cores] {
        for verdict in selection.verdicts_for(purpose) {
            let readable = matches!(verdict.state, State::Chosen | State::Spare);
            if readable && seen.insert(verdict.source) {
                match energy::open(&sys, &facts, verdict.source, purpose) {
                    Ok(opened) => meters.extend(opened.into_iter().map(|it| (verdict.source, it))),
                    Err(error) => eprintln!("{}: {error}", verdict.source),
                }
            }
        }
    }
    meters
}

/// Adds what was counted since the last time; what is not sound once stays so.
fn sample(meters: &mut [(Source, Box<dyn EnergySource>)], start: Instant, sums: &mut Sums) {
    for (source, meter) in meters {
        let now = Moment {
            at: Nanos::new(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            resumed: false,
        };
        let readings = match meter.sample(now) {
            Ok(readings) => readings,
            Err(error) => {
                eprintln!("{source}: {error}");
                continue;
            }
        };
        let counted = readings
            .iter()
            .filter(|reading| matches!(reading.amount, Amount::Energy(_)));
        let domains: BTreeSet<_> = counted.map(|reading| reading.domain.clone()).collect();
        for domain in domains {
            let energy = match total(&readings, &domain) {
                Some(energy) => Ok(energy.get()),
                None => Err(doubts(&readings, &domain)),
            };
            let sum = sums.entry((*source, domain)).or_insert(Ok(0));
            *sum = match (sum.clone(), energy) {
                (Ok(sum), Ok(energy)) => Ok(sum.saturating_add(energy)),
                (Err(why), _) | (_, Err(why)) => Err(why),
            };
        }
    }
}

fn doubts(readings: &[Reading], domain: &energy::Domain) -> String {
    let unsound = readings
        .iter()
        .filter(|reading| reading.domain == *domain && reading.energy().is_none());
    let amounts: Vec<_> = unsound
        .map(|reading| format!("{:?}", reading.amount))
        .collect();
    amounts.join(", ")
}
