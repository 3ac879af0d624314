//! Guests in which `scx_joule stat` looks on, and what it said there.

use super::{Lab, joule_load, number, scheduler, section};
use lab::catalogue;
use lab::guest::{Guest, Outcome};
use serde_json::Value;
use std::time::Duration;

/// `load.sh NAME SECONDS` runs the load, with the module's own account of energy before it and after it in
/// `/tmp/NAME-before` and `/tmp/NAME-after`.
const LOAD: &str = "
cat /sys/kernel/debug/vsoc/energy_uj > /tmp/$1-before
joule-load run /lab/load.json --seed 1 --duration $2 > /dev/null
code=$?
cat /sys/kernel/debug/vsoc/energy_uj > /tmp/$1-after
exit $code
";

/// A phone with scx_joule, and a load at /lab/load.sh.
pub fn guest<'a>(lab: &'a Lab, name: &str) -> Guest<'a> {
    let machine = catalogue::machine("phone-3c-gs101").unwrap();
    let load = catalogue::workload("light-periodic").unwrap();
    lab.machine(name, &machine)
        .program(scheduler())
        .program(joule_load())
        .file(load, "/lab/load.json")
        .text("/lab/load.sh", LOAD)
        .time_limit(Duration::from_secs(600))
}

/// All rows of a section of JSON.
pub fn rows(run: &Outcome, name: &str) -> Vec<Value> {
    let object: Value = serde_json::from_str(section(&run.results, name).trim()).unwrap();
    object["rows"].as_array().unwrap().clone()
}

/// The row of the system.
pub fn system(run: &Outcome, name: &str) -> Value {
    rows(run, name).swap_remove(0)
}

pub fn figure(row: &Value, column: &str) -> f64 {
    row[column]
        .as_f64()
        .unwrap_or_else(|| panic!("no {column} in {row}"))
}

/// Energy between two readings of the module's own account, J.
pub fn truth(run: &Outcome, name: &str) -> f64 {
    let value = |end| number(&run.results, &format!("{name}-{end}"));
    let spent = value("after") - value("before");
    f64::from(u32::try_from(spent).unwrap()) / 1e6
}

pub fn agree(what: &str, one: f64, other: f64) {
    let apart = (one / other - 1.0).abs();
    eprintln!(
        "{what}: {one:.4} and {other:.4} J, {:.3} % apart",
        100.0 * apart
    );
    assert!(apart <= 0.005, "{what}: {one} and {other} J");
}
