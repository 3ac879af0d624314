//! A small part of what `make fuzz` runs: no input breaks a parser.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

#[path = "fuzz/parsers.rs"]
mod parsers;

#[test]
fn no_input_breaks_a_parser() {
    let failures = parsers::run(0, 20_000);
    let told: Vec<_> = failures.iter().take(5).map(ToString::to_string).collect();
    assert!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        told.join("\n")
    );
}
