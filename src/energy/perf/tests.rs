use super::*;
use crate::energy::fixture::{Machine, at_ms};
use proptest::prelude::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// RAPL's scale; the kernel prints it as 2.3283064365386962890625e-10.
const SCALE_2_32: f64 = 1.0 / 4_294_967_296.0;

const POWER: &str = "sys/bus/event_source/devices/power";

#[test]
fn a_pmu_is_described_by_its_files() {
    let machine = Machine::bare();
    machine.energy_pmu("power", "0,28", &["energy-pkg=0x02", "energy-ram=0x03"]);
    let pmu = pmu(&machine.sys(), "power").unwrap().unwrap();
    assert_eq!(pmu.kind, 9);
    assert_eq!(pmu.cpus, Some(vec![0, 28]));
    let package = &pmu.events[0];
    assert_eq!((package.name.as_str(), package.config), ("energy-pkg", 2));
    assert_eq!(package.scale, Some(SCALE_2_32));
    assert_eq!(package.unit.as_deref(), Some("Joules"));
    let energies = pmu.energy_events(&machine.sys()).unwrap();
    let domains: Vec<_> = energies.into_iter().map(|(domain, _)| domain).collect();
    assert_eq!(domains, [Domain::Package, Domain::Dram]);
}

#[test]
fn a_pmu_that_is_not_registered_is_none() {
    assert_eq!(pmu(&Machine::bare().sys(), "power").unwrap(), None);
}

#[test]
fn anything_but_joules_with_a_scale_is_refused_and_named() {
    for (file, text) in [("unit", "mWatts\n"), ("unit", "\n"), ("scale", "")] {
        let machine = Machine::bare();
        let file = format!("{POWER}/events/energy-pkg.{file}");
        machine
            .energy_pmu("power", "0", &["energy-pkg=0x02"])
            .file(&file, text);
        let sys = machine.sys();
        let pmu = pmu(&sys, "power").unwrap().unwrap();
        let error = pmu.energy_events(&sys).unwrap_err().to_string();
        assert!(error.contains("energy-pkg.unit:1"), "{error}");
        assert!(error.contains("is not Joules with a scale"), "{error}");
    }
}

#[test]
fn garbage_in_a_description_names_the_file() {
    for (file, text) in [
        ("type", "ten\n"),
        ("cpumask", "0-\n"),
        ("events/energy-pkg", "event=0xzz\n"),
        ("events/energy-pkg", "umask=0x02\n"),
        ("events/energy-pkg.scale", "-1\n"),
        ("events/energy-pkg.scale", "NaN\n"),
        ("events/energy-pkg.scale", "inf\n"),
    ] {
        let machine = Machine::bare();
        machine
            .energy_pmu("power", "0", &["energy-pkg=0x02"])
            .file(&format!("{POWER}/{file}"), text);
        let error = pmu(&machine.sys(), "power").unwrap_err().to_string();
        assert!(error.contains(&format!("{file}:1:")), "{file}: {error}");
    }
}

#[test]
fn permission_follows_the_kernel_s_rule() {
    let allowed = |paranoid: &str, capabilities: &str| {
        let machine = Machine::bare();
        machine
            .file("proc/sys/kernel/perf_event_paranoid", paranoid)
            .file("proc/self/status", &format!("CapEff:\t{capabilities}\n"));
        permission(&machine.sys()).is_ok()
    };
    const NONE: &str = "0000000000000000";
    assert!(allowed("0\n", NONE) && allowed("-1\n", NONE));
    assert!(!allowed("1\n", NONE) && !allowed("4\n", NONE));
    assert!(allowed("4\n", "0000004000000000"), "CAP_PERFMON");
    assert!(allowed("4\n", "0000000000200000"), "CAP_SYS_ADMIN");
    assert!(!allowed("4\n", "0000000000000080"), "CAP_SETUID");
    assert!(permission(&Machine::bare().sys()).is_err());
}

fn places(machine: &Machine, name: &str, cpumask: &str, amd: bool) -> Vec<(usize, Scope)> {
    machine.energy_pmu(name, cpumask, &[]);
    let sys = machine.sys();
    scopes(&sys, &pmu(&sys, name).unwrap().unwrap(), amd).unwrap()
}

fn package(package: u32, die: Option<u32>) -> Scope {
    Scope::Package { package, die }
}

#[test]
fn a_counter_belongs_to_the_package_of_the_cpu_in_the_mask() {
    let machine = Machine::bare();
    machine.cpu(1, 0, 0).cpu(28, 1, 0);
    // CPU 0 is offline and CPU 1 answers for package 0.
    assert_eq!(
        places(&machine, "power", "1,28", false),
        [(1, package(0, None)), (28, package(1, None))]
    );
}

#[test]
fn dies_are_counted_apart_on_intel_and_once_per_package_on_amd() {
    let machine = Machine::bare();
    machine
        .cpu(0, 0, 0)
        .cpu(24, 0, 1)
        .cpu(48, 1, 0)
        .cpu(72, 1, 1);
    assert_eq!(
        places(&machine, "power", "0,24,48,72", false),
        [
            (0, package(0, Some(0))),
            (24, package(0, Some(1))),
            (48, package(1, Some(0))),
            (72, package(1, Some(1))),
        ]
    );
    assert_eq!(
        places(&machine, "power", "0,24,48,72", true),
        [(0, package(0, None)), (48, package(1, None))]
    );
}

#[test]
fn power_core_has_one_scope_for_each_core() {
    let core = |cpu| (cpu, Scope::Core { cpu });
    assert_eq!(
        places(&Machine::bare(), "power_core", "0-1,4", true),
        [core(0), core(1), core(4)]
    );
}

#[test]
fn a_pmu_without_a_cpu_to_ask_is_no_source() {
    for cpumask in ["", "\n"] {
        let machine = Machine::bare();
        machine.energy_pmu("power", cpumask, &["energy-pkg=0x02"]);
        let sys = machine.sys();
        let pmu = pmu(&sys, "power").unwrap().unwrap();
        assert!(PerfEnergy::open(&sys, &pmu, false).unwrap().is_none());
    }
}

#[test]
fn a_cpu_of_the_mask_that_went_offline_is_gone() {
    let machine = Machine::bare();
    machine.energy_pmu("power", "5", &[]);
    let sys = machine.sys();
    let pmu = pmu(&sys, "power").unwrap().unwrap();
    assert!(matches!(scopes(&sys, &pmu, false), Err(Error::Gone { .. })));
}

#[test]
fn microjoules_of_rapl_s_scale_are_exact() {
    let uj = |count| microjoules(count, SCALE_2_32).unwrap().get();
    assert_eq!(uj(0), 0);
    assert_eq!(uj(1 << 32), 1_000_000);
    assert_eq!(uj((1 << 32) - 1), 999_999);
    assert_eq!(uj(4_295), 1);
    assert_eq!(uj(u64::MAX), 4_294_967_295_999_999);
}

#[test]
fn microjoules_of_other_scales() {
    let uj = |count, scale| microjoules(count, scale).map(Microjoules::get);
    assert_eq!(uj(7, 1.0), Some(7_000_000));
    assert_eq!(uj(3, 0.5), Some(1_500_000));
    assert_eq!(uj(1_000_000_000, 1e-6), Some(999_999_999)); // 1e-6 rounds down in binary
    assert_eq!(uj(u64::MAX, 1.0), None);
    assert_eq!(uj(1, 1e300), None);
    assert_eq!(uj(u64::MAX, 1e-300), Some(0));
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE / 2.0] {
        assert_eq!(uj(1, scale), None, "{scale}");
    }
}

#[test]
fn a_group_read_must_have_a_count_for_each_event() {
    let words = |words: &[u64]| -> Vec<u8> {
        let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
        bytes.collect()
    };
    assert_eq!(counts(&words(&[2, 10, 20]), 2), Some(vec![10, 20]));
    assert_eq!(counts(&words(&[1, 10]), 2), None);
    assert_eq!(counts(&words(&[3, 10, 20]), 2), None);
    assert_eq!(counts(&words(&[2, 10]), 2), None);
    assert_eq!(counts(&words(&[2, 10, 20])[..23], 2), None);
    assert_eq!(counts(&[], 0), None);
}

proptest! {
    #[test]
    fn conversion_neither_drifts_nor_runs_backwards(
        a in 0u64..1 << 62, b in 0u64..1 << 62, scale in 1e-12f64..1e-7,
    ) {
        let uj = |count| microjoules(count, scale).unwrap().get();
        let excess = uj(a + b) - uj(a) - uj(b);
        prop_assert!(excess <= 1, "{excess}");
    }

    #[test]
    fn rapl_s_scale_is_the_integer_formula(count in any::<u64>()) {
        let exact = (u128::from(count) * 1_000_000) >> 32;
        prop_assert_eq!(u128::from(microjoules(count, SCALE_2_32).unwrap().get()), exact);
    }

    #[test]
    fn no_scale_panics(count in any::<u64>(), scale in any::<f64>()) {
        let _ = microjoules(count, scale);
    }

    #[test]
    fn no_read_panics(buffer in prop::collection::vec(any::<u8>(), 0..64), events in 0usize..9) {
        if let Some(counts) = counts(&buffer, events) {
            prop_assert_eq!(counts.len(), events);
        }
    }

    #[test]
    fn no_event_code_panics(text in "(event=)?(0x)?[0-9a-fxz,=]{0,20}") {
        let _ = parse_config(&text);
    }
}

/// The time stamp counter through the same path as energy, on the machine that runs the test. The
/// events of PMU `msr` are the only ones of their kind that virtual machines offer too.
#[test]
fn on_this_machine_a_group_counts_upwards_or_says_why_not() {
    let sys = SysRoot::host();
    let Some(msr) = pmu(&sys, "msr").unwrap() else {
        return; // not x86: nothing of the kind to open
    };
    let events: Vec<_> = msr.events.iter().collect();
    let cpu = sys
        .cpu_list("sys/devices/system/cpu/online")
        .unwrap()
        .and_then(|cpus| cpus.first().copied())
        .unwrap();
    let opened = Group::open(&sys, &msr, &events, cpu);
    // What the kernel's rule predicts is what opening does.
    match permission(&sys) {
        Ok(()) => {
            let group = opened.unwrap();
            let tsc = events.iter().position(|event| event.name == "tsc").unwrap();
            let (before, after) = (group.read().unwrap(), group.read().unwrap());
            assert_eq!(before.len(), events.len());
            assert!(before[tsc] < after[tsc], "{before:?} {after:?}");
        }
        Err(_) => {
            let error = opened.unwrap_err();
            assert!(matches!(error, Error::Denied { .. }), "{error}");
            let message = error.to_string();
            assert!(message.contains("perf_event_paranoid"), "{message}");
            assert!(message.contains("CAP_PERFMON"), "{message}");
        }
    }
}

/// The time stamp counter in the guise of an energy counter takes the whole way to a reading.
#[test]
fn on_this_machine_a_counter_becomes_energy() {
    let sys = SysRoot::host();
    let Some(mut guise) = pmu(&sys, "msr").unwrap() else {
        return; // not x86
    };
    if permission(&sys).is_err() {
        return; // the test before shows the refusal
    }
    guise.cpus = sys
        .cpu_list("sys/devices/system/cpu/online")
        .unwrap()
        .map(|cpus| cpus[..1].to_vec());
    guise.events.retain(|event| event.name == "tsc");
    for event in &mut guise.events {
        event.name = "energy-pkg".to_owned();
        event.scale = Some(SCALE_2_32);
        event.unit = Some("Joules".to_owned());
    }
    let mut source = PerfEnergy::open(&sys, &guise, false).unwrap().unwrap();
    assert!(source.longest_safe_period().unwrap() > Nanos::new(1_000_000_000_000));
    source.sample(at_ms(0)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2));
    let readings = source.sample(at_ms(100)).unwrap();
    assert_eq!(readings.len(), 1);
    assert_eq!(readings[0].domain, Domain::Package);
    assert!(
        readings[0].energy() > Some(Microjoules::new(0)),
        "{readings:?}"
    );
}

/// The first of these tests once more by the user `nobody`, who lacks the privilege on most machines.
#[test]
fn on_this_machine_without_privilege_too() {
    let directory = tempfile::tempdir().unwrap();
    let everyone = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everyone).unwrap();
    // A copy, because nobody may not enter the build directory.
    let copy = directory.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let name = "energy::perf::tests::on_this_machine_a_group_counts_upwards_or_says_why_not";
    let mut command = Command::new(&copy);
    command.args(["--exact", name]).current_dir("/");
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    assert!(report.contains("1 passed"), "{report}");
}

#[test]
fn on_this_machine_a_pmu_that_was_unregistered_is_gone() {
    let sys = SysRoot::host();
    let event = Event {
        name: "energy-pkg".to_owned(),
        config: 2,
        scale: Some(SCALE_2_32),
        unit: Some("Joules".to_owned()),
    };
    let unregistered = Pmu {
        name: "power".to_owned(),
        kind: u32::MAX >> 1,
        cpus: Some(vec![0]),
        events: Vec::new(),
    };
    let error = Group::open(&sys, &unregistered, &[&event], 0).unwrap_err();
    match permission(&sys) {
        Ok(()) => assert!(matches!(error, Error::Gone { .. }), "{error}"),
        Err(_) => assert!(matches!(error, Error::Denied { .. }), "{error}"),
    }
}
