//! What `scx_joule stat` says of a machine whose energy is known.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // of tests and their helpers

mod common;

use common::{SHELL_PATH, joule_load, lab, number, scheduler, section, succeed};
use lab::catalogue;
use lab::guest::{Guest, Outcome};
use serde_json::Value;
use std::time::Duration;

fn guest(name: &str) -> Guest<'static> {
    let machine = catalogue::machine("phone-3c-gs101").unwrap();
    let load = catalogue::workload("light-periodic").unwrap();
    let guest = lab().machine(name, &machine);
    guest
        .program(scheduler())
        .program(joule_load())
        .file(load, "/lab/load.json")
        .time_limit(Duration::from_secs(600))
}

/// The row of the system in a section of JSON.
fn system(run: &Outcome, name: &str) -> Value {
    let object: Value = serde_json::from_str(section(&run.results, name).trim()).unwrap();
    object["rows"][0].clone()
}

fn joules(row: &Value, column: &str) -> f64 {
    row[column]
        .as_f64()
        .unwrap_or_else(|| panic!("no {column} in {row}"))
}

/// Energy between two readings of the module's own account, J.
fn truth(run: &Outcome, name: &str) -> f64 {
    let value = |end| number(&run.results, &format!("{name}-{end}"));
    let spent = value("after") - value("before");
    f64::from(u32::try_from(spent).unwrap()) / 1e6
}

fn agree(what: &str, one: f64, other: f64) {
    let apart = (one / other - 1.0).abs();
    eprintln!(
        "{what}: {one:.4} and {other:.4} J, {:.3} % apart",
        100.0 * apart
    );
    assert!(apart <= 0.005, "{what}: {one} and {other} J");
}

/// perf runs within stat, both over one load that is long beside what it takes to start either; where the machine
/// shows no PMU, stat alone.
#[test]
fn energy_is_what_perf_counts_and_what_was_spent_by_pmu_and_by_powercap() {
    let body = r#"
governor schedutil
cat > /tmp/load.sh <<'EOF'
cat /sys/kernel/debug/vsoc/energy_uj > /tmp/$1-before
joule-load run /lab/load.json --seed 1 --duration $2 > /dev/null
code=$?
cat /sys/kernel/debug/vsoc/energy_uj > /tmp/$1-after
exit $code
EOF
events=/sys/bus/event_source/devices/power/events
# by their codes, so that perf prints counts, and not joules with two decimals
perf="perf stat -a -x, -o /tmp/perf -e power/$(cat $events/energy-pkg)/,power/$(cat $events/energy-cores)/"
stat="scx_joule stat -q --Joules --Summary --format json"
say scale cat $events/energy-pkg.scale
$stat --out /tmp/pmu -- $perf -- sh /tmp/load.sh inner 40 || fail "stat over perf"
say perf grep power /tmp/perf
say pmu cat /tmp/pmu
$stat --out /tmp/tight -- sh /tmp/load.sh tight 5 || fail stat
say tight cat /tmp/tight
control withhold pmu
$stat --out /tmp/powercap -- sh /tmp/load.sh powercap 10 || fail "stat by powercap"
say powercap cat /tmp/powercap
control withhold powercap
scx_joule stat --Joules --Summary --show Pkg_J -i 0.5 -n 1 > /tmp/none 2> /tmp/why || fail "stat without a meter"
say none cat /tmp/none
say why cat /tmp/why
for load in inner tight powercap; do
    for end in before after; do say $load-$end cat /tmp/$load-$end; done
done
"#;
    let script = format!(". {SHELL_PATH}\n{body}");
    let run = succeed(&guest("stat-energy").program("perf").script(&script));
    let scale: f64 = section(&run.results, "scale").trim().parse().unwrap();
    let counts = section(&run.results, "perf").lines().map(|line| {
        let count = line.split(',').next().unwrap();
        count.trim().parse::<f64>().unwrap() * scale
    });
    let perf: Vec<f64> = counts.collect();
    let pmu = system(&run, "pmu");
    agree("stat and perf, package", joules(&pmu, "Pkg_J"), perf[0]);
    agree("stat and perf, cores", joules(&pmu, "Cor_J"), perf[1]);
    let inner = truth(&run, "inner");
    agree("perf and the module", perf[0], inner);
    agree("stat and the module", joules(&pmu, "Pkg_J"), inner);
    for name in ["tight", "powercap"] {
        let told = joules(&system(&run, name), "Pkg_J");
        agree(&format!("{name} and the module"), told, truth(&run, name));
    }
    for name in ["pmu", "tight", "powercap"] {
        let row = system(&run, name);
        let error = joules(&row, "Pkg_J_err");
        assert!(error > 0.0 && error < 0.01 * joules(&row, "Pkg_J"), "{row}");
    }
    let none = section(&run.results, "none");
    let none: Vec<&str> = none.split_whitespace().collect();
    assert_eq!(none, ["Pkg_J", "-"]);
    let why = section(&run.results, "why");
    assert!(
        why.contains("no Pkg_J: this virtual machine shows no"),
        "{why}"
    );
}
