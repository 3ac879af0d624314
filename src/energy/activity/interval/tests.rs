use super::*;
use crate::energy::fixture::Machine;
use std::time::Duration;

const SECOND: Nanos = Nanos::new(1_000_000_000);

fn machine() -> Machine {
    let machine = Machine::bare();
    machine.file("sys/devices/system/cpu/online", "0-1\n");
    show(&machine, [0, 0], [0, 0]);
    machine
}

/// Idle ticks, and time and stays in one idle state, of two CPUs.
fn show(machine: &Machine, ticks: [u64; 2], stays: [u64; 2]) {
    let [one, two] = ticks;
    machine.file(
        "proc/stat",
        &format!("cpu0 0 0 0 {one} 0\ncpu1 0 0 0 {two} 0\n"),
    );
    for (cpu, stays) in stays.into_iter().enumerate() {
        let state = format!("sys/devices/system/cpu/cpu{cpu}/cpuidle/state0");
        machine
            .file(&format!("{state}/name"), "C6\n")
            .file(&format!("{state}/usage"), &format!("{stays}\n"))
            .file(&format!("{state}/time"), &format!("{}\n", stays * 1000));
    }
}

fn watch(machine: &Machine) -> Watch {
    let places = [(0, (0, 0)), (1, (0, 1))].into();
    Watch::open(&machine.sys(), &Feed::ALL.into(), places)
}

fn at(seconds: u64) -> Nanos {
    Nanos::new(seconds * SECOND.get())
}

#[test]
fn a_cpu_that_did_not_leave_idle_is_parked_and_0_busy() {
    let machine = machine();
    let mut watch = watch(&machine);
    assert_eq!(watch.look(at(1), false), None);
    show(&machine, [99, 60], [0, 3]);
    let interval = watch.look(at(2), false).unwrap();
    let [parked, awake] = [0, 1].map(|cpu| &interval.cpus[&cpu]);
    assert!(parked.parked && !awake.parked);
    assert_eq!(parked.busy, Some(0.0));
    assert!((awake.busy.unwrap() - 0.4).abs() < 1e-9);
}

#[test]
fn a_cpu_that_left_idle_ever_so_briefly_is_not_parked() {
    let machine = machine();
    let mut watch = watch(&machine);
    watch.look(at(1), false);
    show(&machine, [100, 100], [1, 0]);
    let interval = watch.look(at(2), false).unwrap();
    assert!(!interval.cpus[&0].parked && interval.cpus[&1].parked);
}

#[test]
fn an_interval_too_short_for_the_ticks_parks_nobody() {
    let machine = machine();
    let mut watch = watch(&machine);
    watch.look(at(1), false);
    let soon = Nanos::new(at(1).get() + 90_000_000);
    assert!(!watch.look(soon, false).unwrap().cpus[&0].parked);
}

#[test]
fn residency_of_a_stay_that_began_earlier_is_unknown_not_more_than_all() {
    let machine = machine();
    let mut watch = watch(&machine);
    watch.look(at(1), false);
    show(&machine, [90, 100], [1500, 0]);
    let interval = watch.look(at(2), false).unwrap();
    let state = interval.cpus[&0].states["C6"];
    assert_eq!((state.usage, state.part), (1500, None));
    // parked: no stay ended, and yet it is not 0 % in all states
    assert_eq!(interval.cpus[&1].states["C6"].part, None);
    show(&machine, [140, 200], [2000, 0]);
    let interval = watch.look(at(3), false).unwrap();
    assert_eq!(interval.cpus[&0].states["C6"].part, Some(0.5));
}

#[test]
fn counters_that_went_back_and_intervals_over_a_suspend_give_nothing() {
    let machine = machine();
    let mut watch = watch(&machine);
    show(&machine, [500, 500], [9, 9]);
    watch.look(at(1), false);
    show(&machine, [10, 10], [3, 3]);
    let interval = watch.look(at(2), false).unwrap();
    assert_eq!(interval.cpus[&0].busy, None);
    assert!(interval.cpus[&0].states.is_empty());
    assert_eq!(watch.look(at(3), true), None);
    assert!(watch.look(at(4), false).is_some());
}

#[test]
fn a_cpu_that_has_just_come_is_unknown_and_one_that_went_is_not_there() {
    let machine = machine();
    let mut watch = watch(&machine);
    watch.look(at(1), false);
    machine.file("sys/devices/system/cpu/online", "1-2\n");
    let interval = watch.look(at(2), false).unwrap();
    assert_eq!(interval.cpus.keys().collect::<Vec<_>>(), [&1, &2]);
    assert_eq!(interval.cpus[&2], CpuInterval::default());
}

fn gain(fresh: bool, counts: &[(&str, u64)]) -> Gain {
    Gain {
        counts: counts
            .iter()
            .map(|(name, count)| (name.to_string(), *count))
            .collect(),
        elapsed: at(4),
        doubt: Nanos::new(10_000),
        fresh,
    }
}

/// What one CPU's gain makes of it over an interval of 1 s.
fn with_gain(feed: Feed, gain: Gain) -> CpuInterval {
    let machine = machine();
    let mut watch = watch(&machine);
    watch.tsc_hz = Some(2e9);
    let gains = [((feed, 0), gain)].into();
    let mut cpu = CpuInterval::default();
    watch.add_gains(&mut cpu, 0, SECOND, &gains);
    cpu
}

#[test]
fn clocks_follow_from_aperf_mperf_and_tsc() {
    let counts = [("aperf", 6_000_000_000), ("mperf", 4_000_000_000)];
    let tsc = ("tsc", 8_000_000_000);
    let cpu = with_gain(Feed::Clock, gain(true, &[counts[0], counts[1], tsc]));
    assert_eq!(cpu.tsc_hz, Some(2e9));
    assert_eq!(cpu.average_hz, Some(1.5e9));
    assert_eq!((cpu.busy, cpu.busy_hz), (Some(0.5), Some(3e9)));
}

#[test]
fn what_a_parked_cpu_did_not_gain_is_not_spread_over_the_time_it_was_parked() {
    let counts = [("aperf", 1_500_000_000), ("mperf", 1_000_000_000)];
    let cpu = with_gain(Feed::Clock, gain(false, &counts));
    assert_eq!((cpu.busy, cpu.average_hz), (Some(0.5), Some(1.5e9)));
    let cpu = with_gain(Feed::CoreIdle, gain(false, &[("c6", 1)]));
    assert_eq!(cpu.core_idle, BTreeMap::new());
    let cpu = with_gain(Feed::CoreIdle, gain(true, &[("c6", 2_000_000_000)]));
    assert_eq!(cpu.core_idle["c6"], 0.25);
}

#[test]
fn a_rate_whose_time_is_badly_known_is_not_told() {
    let mut late = gain(true, &[("tsc", 8_000_000_000)]);
    late.doubt = Nanos::new(3_000_000);
    assert_eq!(with_gain(Feed::Clock, late).tsc_hz, None);
}

/// The rate that the kernel found, from its log or /proc/cpuinfo's model name, in Hz.
fn known_tsc_hz() -> Option<f64> {
    let log = std::process::Command::new("dmesg").output().ok()?;
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let detected = |line: &str| {
        let (_, rest) = line.split_once("tsc: Detected ")?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    let refined = |line: &str| {
        let (_, rest) = line.split_once("tsc: Refined TSC clocksource calibration: ")?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    let find = |read: &dyn Fn(&str) -> Option<f64>| log.lines().find_map(read);
    let mhz = find(&refined).or_else(|| find(&detected))?;
    Some(mhz * 1e6)
}

/// The time stamp counter's rate is measured by its PMU over a clock that nobody adjusts; the kernel says what it
/// found at boot. Where either is not to be had, the arithmetic above stands alone.
#[test]
fn on_this_machine_the_time_stamp_counter_runs_at_the_known_rate() {
    let sys = SysRoot::host();
    let places = [(0, (0, 0))].into();
    let mut watch = Watch::open(&sys, &[Feed::Clock].into(), places);
    if let Some(why) = watch.missing().get(&Feed::Clock) {
        eprintln!("not shown on this machine: {why}");
        return;
    }
    let Some(known) = known_tsc_hz() else {
        eprintln!("not shown on this machine: its kernel's log does not tell the rate");
        return;
    };
    watch.look(at(1), false);
    let mut rates = Vec::new();
    for second in 2..5 {
        std::thread::sleep(Duration::from_millis(300));
        let interval = watch.look(at(second), false).unwrap();
        rates.extend(interval.cpus.values().filter_map(|cpu| cpu.tsc_hz));
    }
    eprintln!("known {known:.0} Hz, measured {rates:.0?}");
    assert!(!rates.is_empty());
    for rate in rates {
        assert!((rate / known - 1.0).abs() < 0.001, "{rate} and {known}");
    }
}
