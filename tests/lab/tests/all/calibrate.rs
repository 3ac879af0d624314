//! `scx_joule calibrate` on a machine whose power is known: it finds it, and leaves the machine as it was however
//! it ends.

use crate::common::{joule_load, lab, number, scheduler, section, succeed};
use lab::catalogue;
use lab::guest::{Guest, Outcome};
use lab::machine::{EnergyModel, Machine};
use std::time::Duration;

/// A task that never ends.
const LOAD: &str = r#"{
    "global": { "duration": 86400 },
    "tasks": { "busy": { "loop": -1, "run": 100000 } }
}"#;

/// `limits`: what cpufreq's limits are; `same NAME`: 1 when they are as at first.
const HEAD: &str = r#"
. /lab/shell.sh
governor schedutil
limits() { grep . /sys/devices/system/cpu/cpufreq/policy*/scaling_m[ai][nx]_freq; }
limits > /tmp/first
same() { limits | cmp -s - /tmp/first && echo 1 || echo 0; }
loads() { pidof joule-load | wc -w; }
load="joule-load run /lab/load.json"
# Until a limit is set, 20 s at most.
until_set() {
    for _ in $(seq 400); do
        [ $(same) = 0 ] && return
        sleep 0.05
    done
    fail "calibrate set no limit"
}
"#;

/// A phone with every third operating point, since a calibration takes as long as there are points. Its kernel has
/// no Energy Model, so nothing but the meter tells what CPUs draw.
fn phone() -> Machine {
    let mut machine = catalogue::machine("phone-3c-gs101").unwrap();
    machine.em = EnergyModel::None;
    for cluster in &mut machine.clusters {
        let last = cluster.opps.len() - 1;
        let mut index = 0..;
        cluster
            .opps
            .retain(|_| index.next().unwrap() % 3 == last % 3);
    }
    machine
}

fn guest(name: &str, script: &str) -> Guest<'static> {
    lab()
        .machine(&format!("calibrate-{name}"), &phone())
        .program(scheduler())
        .program(joule_load())
        .text("/lab/load.json", LOAD)
        .time_limit(Duration::from_secs(900))
        .script(&format!("{HEAD}{script}"))
}

/// What the power of an operating point may be off by, relative to it. The machine's own work, which differs from
/// visit to visit by up to 1.5 mW, makes the smallest powers look up to 2.6 % smaller or 2.2 % greater.
const PART: f64 = 0.04;

/// Power of each operating point in uW above idle: the exported one and the machine's own.
fn powers(run: &Outcome, name: &str) -> Vec<(f64, f64)> {
    let machine = phone();
    let mut clusters: Vec<_> = machine.clusters.iter().collect();
    clusters.sort_by_key(|cluster| cluster.capacity());
    let lines = section(&run.results, name).lines().skip(1);
    lines
        .map(|line| {
            // domain,"cpus",khz,performance,uw,cost; a CPU list of one range has no comma
            let words: Vec<_> = line.split(',').collect();
            let cluster = clusters[words[0].parse::<usize>().unwrap()];
            let khz: u32 = words[2].parse().unwrap();
            let mut opps = cluster.opps.iter();
            let truth = cluster.first_busy_uw(opps.find(|opp| opp.khz == khz).unwrap());
            let found: f64 = words[4].parse().unwrap();
            eprintln!("{:6} {khz:8} kHz: {:.4}", cluster.name, found / truth);
            (found, truth)
        })
        .collect()
}

#[test]
fn calibrating_finds_the_power_of_every_operating_point_and_scheduling_starts_from_it() {
    let run = succeed(&guest(
        "truth",
        r#"
        say calibrate scx_joule calibrate --load "$load"
        say same same; say loads loads
        say shown scx_joule model show
        say exported scx_joule model export
        start; stop; say log cat /tmp/log
        sed -i 's/^rows = .*/rows = few/' /var/lib/scx_joule/model.toml
        start; stop; say spoilt cat /tmp/log"#,
    ));
    eprintln!("{}", section(&run.results, "calibrate"));
    eprintln!("{}", section(&run.results, "shown"));
    let powers = powers(&run, "exported");
    let points: usize = phone().clusters.iter().map(|it| it.opps.len()).sum();
    assert_eq!(powers.len(), points);
    for (found, truth) in powers {
        assert!((found / truth - 1.0).abs() < PART, "{found} for {truth} uW");
    }
    assert_eq!(number(&run.results, "same"), 1);
    assert_eq!(number(&run.results, "loads"), 0);
    let log = section(&run.results, "log");
    assert!(log.contains("the energy model starts from"), "{log}");
    let spoilt = section(&run.results, "spoilt");
    assert!(
        spoilt.contains("model.toml:") && spoilt.contains("'rows = few'"),
        "{spoilt}"
    );
}

#[test]
fn frequency_limits_are_as_before_after_an_interrupt_a_kill_and_without_a_meter() {
    let run = succeed(&guest(
        "limits",
        r#"
        scx_joule calibrate --seconds 16 --load "$load" > /tmp/said 2>&1 & pid=$!
        until_set; kill -INT $pid; wait $pid; code=$?
        say interrupted cat /tmp/said; say code echo $code; say same same; say loads loads

        scx_joule calibrate --seconds 16 --load "$load" > /tmp/said 2>&1 & pid=$!
        until_set; kill -KILL $pid; wait $pid; sleep 0.2
        say left same; say left-loads loads
        start; say restored same; stop; say log cat /tmp/log

        control withhold pmu; control withhold powercap
        [ ! -e /sys/class/hwmon/hwmon0 ] || control withhold hwmon
        scx_joule calibrate > /tmp/said 2>&1; code=$?
        say meterless cat /tmp/said; say meterless-code echo $code; say meterless-same same
        ls /var/lib/scx_joule > /tmp/files; say files cat /tmp/files"#,
    ));
    let value = |name| number(&run.results, name);
    let said = section(&run.results, "interrupted");
    assert!(said.contains("stopped; nothing is saved"), "{said}");
    assert_eq!([value("code"), value("same"), value("loads")], [1, 1, 0]);
    // The kill leaves the limits and no load; the next start knows.
    assert_eq!([value("left"), value("left-loads")], [0, 0]);
    assert_eq!(value("restored"), 1);
    let log = section(&run.results, "log");
    assert!(log.contains("by a run that was killed"), "{log}");
    let said = section(&run.results, "meterless");
    assert!(said.contains("no energy meter to calibrate with"), "{said}");
    assert_eq!([value("meterless-code"), value("meterless-same")], [3, 1]);
    assert_eq!(section(&run.results, "files").trim(), "knobs.journal");
}
