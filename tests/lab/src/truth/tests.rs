use super::*;
use std::path::Path;

const MACHINE: &str = r#"
name = "small"
title = "A machine for tests"
mode = "hardware-managed"
em = "none"
floor_mw = 10
source = "none"
assumptions = "all"

[[cluster]]
name = "cores"
cpus = [0, 1]
capacity = 1024
smt = { power = 0.25, speed = 0.6 }
shallow = { mw = 5, wake_uj = 10 }
deep = { mw = 1, after_us = 2000, wake_uj = 20 }
sleep = { mw = 2, after_us = 3000, wake_uj = 100 }
opps = [
  { khz = 500000, busy_mw = 100, shared_mw = 20 },
  { khz = 1000000, busy_mw = 300, shared_mw = 40 },
]
"#;

/// One second: 0.2 s and 0.1 s busy, 0.3 s shallow, 0.4 s deep, 0.25 s of which the cluster sleeps.
const TRUTH: &str = "\
vsoc-truth 1
machine small
mode hardware-managed
elapsed_ns 1000000000
rescaled 0
floor_pj 10000000000
total_pj 81730000000
cluster cores cpus 0-1
now khz 500000 switches 2 awake 0
opp 500000 busy_ns 200000000 dual_ns 80000000 shared_ns 650000000
opp 1000000 busy_ns 100000000 dual_ns 0 shared_ns 100000000
depth 0 ns 300000000 exits 7
depth 1 ns 400000000 exits 3
sleep ns 250000000 wakes 2
energy_pj busy 50000000000 dual 2000000000 idle 1900000000 wake 130000000 shared 17000000000 sleep 500000000 cluster_wake 200000000
core 0 cpu 0 khz 500000 busy_ns 300000000
cpu 0 busy_ns 300000000 unowned_ns 0
end
";

/// Of `TRUTH`, in pJ: floor, busy, dual, idle, wake, shared, sleep, cluster wake.
const PARTS: [u64; 8] = [
    10_000_000_000,
    20_000_000_000 + 30_000_000_000,
    2_000_000_000,
    1_500_000_000 + 400_000_000,
    70_000_000 + 60_000_000,
    13_000_000_000 + 4_000_000_000,
    500_000_000,
    200_000_000,
];

fn machine() -> Machine {
    Machine::parse(Path::new("m.toml"), MACHINE).unwrap()
}

fn truth() -> Truth {
    Truth::parse(TRUTH).unwrap()
}

#[test]
fn energy_is_residency_times_power_plus_wake_ups() {
    let recomputed = truth().recompute(&machine()).unwrap();
    let [floor, busy, dual, idle, wake, ..] = PARTS;
    let sum: u64 = PARTS.iter().sum();
    assert_eq!(recomputed.total_pj, u128::from(sum));
    assert_eq!(recomputed.cores_pj, u128::from(busy + dual + idle + wake));
    assert_eq!(recomputed.clusters_pj, [u128::from(sum - floor)]);
    assert_eq!(truth().parts_pj(), u128::from(sum));
    assert_eq!(truth().error_ppm(&machine()), Ok(0));
}

#[test]
fn a_counter_that_is_off_by_a_thousandth_is_off_by_a_thousand_ppm() {
    let mut truth = truth();
    truth.total_pj += truth.total_pj / 1000;
    assert_eq!(truth.error_ppm(&machine()), Ok(1000));
}

#[test]
fn time_that_is_missing_or_counted_twice_shows() {
    assert_eq!(truth().time_error_ns(&machine()), Ok(0));
    let mut cores = truth();
    cores.clusters[0].idle[0].ns -= 5;
    assert_eq!(cores.time_error_ns(&machine()), Ok(5));
    let mut shared = truth();
    shared.clusters[0].sleep.ns += 7;
    assert_eq!(shared.time_error_ns(&machine()), Ok(7));
}

#[test]
fn sums_beyond_64_bits_of_femtojoules_are_exact() {
    let mut truth = truth();
    truth.clusters[0].opps[1].busy_ns = u64::MAX;
    let recomputed = truth.recompute(&machine()).unwrap();
    assert!(recomputed.total_pj > u128::from(u64::MAX) * 300);
}

#[test]
fn the_difference_of_two_readings_is_what_happened_between_them() {
    let earlier = truth();
    let mut later = truth();
    later.elapsed_ns += 50;
    later.total_pj += 9;
    later.clusters[0].opps[0].busy_ns += 40;
    later.clusters[0].idle[1].exits += 1;
    let between = later.since(&earlier).unwrap();
    assert_eq!((between.elapsed_ns, between.total_pj), (50, 9));
    assert_eq!(between.clusters[0].opps[0].busy_ns, 40);
    assert_eq!(between.clusters[0].idle[1], IdleTruth { ns: 0, exits: 1 });
    assert_eq!(
        between.clusters[0].opps[1],
        OppTruth {
            khz: 1_000_000,
            ..OppTruth::default()
        }
    );
    assert!(
        matches!(earlier.since(&later), Err(TruthError::Unlike(_))),
        "time went back"
    );
    let mut other = earlier.clone();
    other.clusters[0].name = "others".into();
    assert!(matches!(later.since(&other), Err(TruthError::Unlike(_))));
}

#[test]
fn another_machine_or_a_rescaled_one_is_not_recomputed() {
    for (from, to) in [
        ("small", "large"),
        ("\"cores\"", "\"c\""),
        ("500000,", "400000,"),
    ] {
        let text = MACHINE.replacen(from, to, 1);
        let other = Machine::parse(Path::new("m.toml"), &text).unwrap();
        assert!(
            matches!(truth().recompute(&other), Err(TruthError::Unlike(_))),
            "{to}"
        );
    }
    let mut rescaled = truth();
    rescaled.rescaled = true;
    assert_eq!(rescaled.recompute(&machine()), Err(TruthError::Rescaled));
}

#[test]
fn a_text_the_module_would_not_print_is_refused_with_its_line() {
    let cases: &[(&str, &str, usize)] = &[
        ("vsoc-truth 1", "vsoc-truth 2", 1),
        ("elapsed_ns 1000000000", "elapsed_ns soon", 4),
        ("elapsed_ns 1000000000", "elapsed_ns", 4),
        ("elapsed_ns 1000000000", "elapsed_ns 1 2", 4),
        ("total_pj 81730000000", "total_pj -1", 7),
        ("cluster cores cpus 0-1", "", 10),
        ("cluster cores cpus 0-1", "cluster", 8),
        ("dual_ns 80000000", "dual_ns", 10),
        ("dual_ns 80000000", "twin_ns 80000000", 10),
        ("depth 1", "depth 2", 13),
        ("wakes 2", "wakes 99999999999999999999", 14),
        ("cluster_wake 200000000", "", 15),
    ];
    for (from, to, line) in cases {
        match Truth::parse(&TRUTH.replacen(from, to, 1)) {
            Err(TruthError::Malformed { line: found, .. }) => assert_eq!(found, *line, "'{to}'"),
            other => panic!("'{to}' gave {other:?}"),
        }
    }
    assert_eq!(
        Truth::parse(TRUTH.trim_end_matches("end\n")),
        Err(TruthError::Cut)
    );
    assert!(matches!(
        Truth::parse(""),
        Err(TruthError::Malformed { line: 1, .. })
    ));
}

/// Two readings taken in a guest, each after some seconds of light and heavy load.
#[test]
fn the_energy_a_guest_counted_is_what_its_residencies_cost() {
    let captured = [
        (
            "phone-2c-msm8998",
            include_str!("captured-phone-2c-msm8998.txt"),
        ),
        ("laptop-smt", include_str!("captured-laptop-smt.txt")),
    ];
    for (name, text) in captured {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("machines/{name}.toml"));
        let machine = Machine::load(&file).unwrap();
        let truth = Truth::parse(text).unwrap();
        let ppm = truth.error_ppm(&machine).unwrap();
        assert!(ppm <= 10, "{name}: {ppm} ppm");
        let ns = truth.time_error_ns(&machine).unwrap();
        assert!(ns <= 100_000, "{name}: {ns} ns");
        assert_eq!(truth.parts_pj(), u128::from(truth.total_pj), "{name}");
    }
}
