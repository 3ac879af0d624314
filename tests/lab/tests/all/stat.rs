//! What `scx_joule stat` says of a machine whose energy is known.

use crate::common::stat::{agree, figure, guest, rows, system, truth};
use crate::common::{SHELL_PATH, lab, section, succeed};

/// perf runs within stat, both over one load that is long beside what it takes to start either; where the machine
/// shows no PMU, stat alone.
#[test]
fn energy_is_what_perf_counts_and_what_was_spent_by_pmu_and_by_powercap() {
    let body = r#"
governor schedutil
events=/sys/bus/event_source/devices/power/events
# by their codes, so that perf prints counts, and not joules with two decimals; its own start is within stat's
# interval, and on a big CPU it takes half a percent of the load's joules
perf="taskset 1 perf stat -a -x, -o /tmp/perf -e power/$(cat $events/energy-pkg)/,power/$(cat $events/energy-cores)/"
stat="scx_joule stat -q --Joules --Summary --format json"
say scale cat $events/energy-pkg.scale
$stat --out /tmp/pmu -- $perf -- taskset ff sh /lab/load.sh inner 100 || fail "stat over perf"
say perf grep power /tmp/perf
say pmu cat /tmp/pmu
$stat --out /tmp/tight -- sh /lab/load.sh tight 5 || fail stat
say tight cat /tmp/tight
control withhold pmu
$stat --out /tmp/powercap -- sh /lab/load.sh powercap 10 || fail "stat by powercap"
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
    let run = succeed(&guest(lab(), "stat-energy").program("perf").script(&script));
    let scale: f64 = section(&run.results, "scale").trim().parse().unwrap();
    let counts = section(&run.results, "perf").lines().map(|line| {
        let count = line.split(',').next().unwrap();
        count.trim().parse::<f64>().unwrap() * scale
    });
    let perf: Vec<f64> = counts.collect();
    let pmu = system(&run, "pmu");
    agree("stat and perf, package", figure(&pmu, "Pkg_J"), perf[0]);
    agree("stat and perf, cores", figure(&pmu, "Cor_J"), perf[1]);
    let inner = truth(&run, "inner");
    agree("perf and the module", perf[0], inner);
    agree("stat and the module", figure(&pmu, "Pkg_J"), inner);
    for name in ["tight", "powercap"] {
        let told = figure(&system(&run, name), "Pkg_J");
        agree(&format!("{name} and the module"), told, truth(&run, name));
    }
    for name in ["pmu", "tight", "powercap"] {
        let row = system(&run, name);
        let error = figure(&row, "Pkg_J_err");
        assert!(error > 0.0 && error < 0.01 * figure(&row, "Pkg_J"), "{row}");
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

/// Over a load that has run for longer than the scheduler takes to learn from it.
#[test]
fn while_the_scheduler_runs_its_waits_kicks_and_modelled_watts_are_told() {
    let body = r#"
governor schedutil
stat="scx_joule stat -q --format json -i 4 -n 1"
say without $stat
start
joule-load run /lab/load.json --seed 1 --duration 60 > /dev/null & load=$!
sleep 15
say with $stat
kill -INT $load; wait $load
lasted
stop
"#;
    let script = format!(". {SHELL_PATH}\n{body}");
    let run = succeed(&guest(lab(), "stat-scheduler").script(&script));
    let (without, with) = (system(&run, "without"), system(&run, "with"));
    for column in ["Kicks", "MdlWatt", "RqDly50_us"] {
        assert!(without.get(column).is_none(), "{column} in {without}");
    }
    assert!(with["Kicks"].is_u64() && with["Queued"].is_u64(), "{with}");
    let waits = ["RqDly50_us", "RqDly99_us"].map(|column| figure(&with, column));
    eprintln!(
        "half of the tasks wait {:.1} us, 99 % {:.1} us at most",
        waits[0], waits[1]
    );
    assert!(
        waits[0] > 0.0 && waits[0] <= waits[1] && waits[1] < 1e6,
        "{with}"
    );
    let (measured, modelled) = (figure(&with, "PkgWatt"), figure(&with, "MdlWatt"));
    eprintln!("{measured:.3} W measured, {modelled:.3} W modelled");
    let apart = (modelled / measured - 1.0).abs();
    assert!(apart < 0.3, "{measured} and {modelled} W");
    let rows = rows(&run, "with");
    let clusters = rows.iter().filter(|row| row["Row"] == "cluster");
    let watts: Vec<f64> = clusters.map(|row| figure(row, "MdlWatt")).collect();
    eprintln!("clusters: {watts:.3?} W");
    assert_eq!(watts.len(), 3);
    let sum: f64 = watts.iter().sum();
    assert!(
        sum > 0.0 && sum < 1.3 * measured,
        "{watts:?} of {measured} W"
    );
}
