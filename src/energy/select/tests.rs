use super::*;
use crate::energy::fixture::Machine;
use crate::energy::probe;
use Source::*;

const RANGE: Option<u64> = Some(65_712_999_613);

fn verdict(selection: &Selection, purpose: Purpose, source: Source) -> Verdict {
    let mut verdicts = selection.verdicts_for(purpose);
    verdicts
        .find(|verdict| verdict.source == source)
        .unwrap()
        .clone()
}

/// One row: what is different from a laptop with every meter, and what is then chosen.
type Row = (
    &'static str,
    fn() -> Machine,
    Option<Source>,
    Option<Source>,
);

fn changed(change: impl Fn(&Machine)) -> Machine {
    let machine = Machine::laptop();
    change(&machine);
    machine
}

#[test]
fn the_ladder_as_a_table() {
    let rows: &[Row] = &[
        (
            "every meter",
            Machine::laptop,
            Some(PerfPower),
            Some(PerfPower),
        ),
        ("nothing at all", Machine::bare, None, None),
        (
            "perf refused, powercap readable",
            || {
                changed(|machine| {
                    machine.privileged(false);
                })
            },
            Some(Powercap),
            Some(Powercap),
        ),
        (
            "no privilege, but perf open to all",
            || {
                changed(|machine| {
                    machine
                        .privileged(false)
                        .deny("sys/class/powercap/intel-rapl:0/energy_uj")
                        .file("proc/sys/kernel/perf_event_paranoid", "-1\n");
                })
            },
            Some(PerfPower),
            Some(PerfPower),
        ),
        (
            "no privilege at all",
            || {
                changed(|machine| {
                    machine.privileged(false);
                    for zone in ["intel-rapl:0", "intel-rapl:0:0", "intel-rapl-mmio:0"] {
                        machine.deny(&format!("sys/class/powercap/{zone}/energy_uj"));
                    }
                })
            },
            None,
            None,
        ),
        (
            "only the copy of the package readable",
            || {
                changed(|machine| {
                    machine
                        .privileged(false)
                        .deny("sys/class/powercap/intel-rapl:0/energy_uj");
                })
            },
            Some(Powercap),
            Some(Powercap),
        ),
        (
            "a server whose PMU has no cores event",
            || {
                changed(|machine| {
                    machine
                        .remove("sys/bus/event_source/devices/power/events/energy-cores")
                        .remove("sys/class/powercap/intel-rapl:0:0");
                })
            },
            Some(PerfPower),
            None,
        ),
        (
            "AMD family 15h: mWatts in a PMU called power",
            || {
                let machine = Machine::bare();
                machine
                    .cpuinfo("AuthenticAMD", "fpu")
                    .privileged(true)
                    .energy_pmu("power", "0", &["power-pkg=0x01"])
                    .file(
                        "sys/bus/event_source/devices/power/events/power-pkg.unit",
                        "mWatts\n",
                    );
                machine
            },
            None,
            None,
        ),
        (
            "AMD with a counter for each core",
            || {
                let machine = Machine::bare();
                machine
                    .cpuinfo("AuthenticAMD", "fpu")
                    .privileged(true)
                    .energy_pmu("power", "0", &["energy-pkg=0x02"])
                    .energy_pmu("power_core", "0-3", &["energy-core=0x01"]);
                machine
            },
            Some(PerfPower),
            Some(PerfPowerCore),
        ),
        (
            "AMD powercap: its core zone is one core",
            || {
                let machine = Machine::bare();
                machine
                    .cpuinfo("AuthenticAMD", "fpu")
                    .zone("intel-rapl:0", "package-0", 1, RANGE)
                    .zone("intel-rapl:0:0", "core", 1, RANGE);
                machine
            },
            Some(Powercap),
            None,
        ),
        (
            "an Arm board with sensors for package and cores",
            || {
                let machine = Machine::bare();
                machine
                    .channel("hwmon0", "scmi_sensors", "energy1", "Esocket0", "77")
                    .channel("hwmon1", "ina3221", "power1", "VDD_CPU", "88");
                machine
            },
            Some(HwmonEnergy),
            Some(HwmonPower),
        ),
        (
            "only the whole board's power",
            || {
                let machine = Machine::bare();
                machine.channel("hwmon0", "ina3221", "power1", "VDD_IN", "88");
                machine
            },
            Some(HwmonPower),
            None,
        ),
        (
            "a battery and an Energy Model are no meters to fit by",
            || {
                let machine = Machine::bare();
                machine
                    .battery("BAT0", "Discharging")
                    .file("sys/class/power_supply/BAT0/power_now", "4830000\n")
                    .perf_domain("cpu0", "0-3", "0x1", &[[500_000, 20_000, 40]]);
                machine
            },
            None,
            None,
        ),
    ];
    for (what, machine, package, cores) in rows {
        let selection = select(&probe(&machine().sys()));
        let chosen = (package.is_some() || cores.is_some()).then_some(Chosen {
            package: *package,
            cores: *cores,
        });
        assert_eq!(selection.chosen, chosen, "{what}: {selection:#?}");
        assert_eq!(selection.verdicts.len(), 14, "{what}");
        for verdict in &selection.verdicts {
            assert!(
                !verdict.why.is_empty() && !verdict.why.contains('\n'),
                "{what}"
            );
        }
    }
}

#[test]
fn every_refusal_that_a_command_can_lift_names_the_command() {
    let machine = Machine::laptop();
    machine
        .privileged(false)
        .deny("sys/class/powercap/intel-rapl:0/energy_uj")
        .remove("sys/class/powercap/intel-rapl-mmio:0");
    let selection = select(&probe(&machine.sys()));
    let fix = |source| {
        let verdict = verdict(&selection, Purpose::Package, source);
        (verdict.state, verdict.fix)
    };
    let perf = "sudo sysctl kernel.perf_event_paranoid=0".to_owned();
    assert_eq!(fix(PerfPower), (State::Denied, Some(perf)));
    let root = "run as root (sudo)".to_owned();
    assert_eq!(fix(Powercap), (State::Denied, Some(root)));
    let mount = "sudo mount -t debugfs none /sys/kernel/debug".to_owned();
    assert_eq!(fix(KernelEm), (State::Absent, Some(mount)));
}

#[test]
fn a_mount_is_proposed_only_where_there_is_none() {
    let machine = Machine::bare();
    machine.file("sys/kernel/debug/sched/features", "");
    let selection = select(&probe(&machine.sys()));
    let verdict = verdict(&selection, Purpose::Package, KernelEm);
    assert_eq!((verdict.state, verdict.fix), (State::Absent, None));
}

#[test]
fn missing_drivers_are_worth_loading_on_hardware_but_not_in_a_guest() {
    for (flags, perf, powercap) in [
        (
            "fpu",
            Some("sudo modprobe rapl"),
            Some("sudo modprobe intel_rapl_msr"),
        ),
        ("fpu hypervisor", None, None),
    ] {
        let machine = Machine::bare();
        machine.cpuinfo("GenuineIntel", flags);
        let selection = select(&probe(&machine.sys()));
        let fix = |source| verdict(&selection, Purpose::Package, source).fix;
        assert_eq!(fix(PerfPower).as_deref(), perf, "{flags}");
        assert_eq!(fix(Powercap).as_deref(), powercap, "{flags}");
    }
}

#[test]
fn a_spare_says_what_is_better() {
    let selection = select(&probe(&Machine::laptop().sys()));
    let spare = verdict(&selection, Purpose::Package, Powercap);
    assert_eq!(spare.state, State::Spare);
    assert_eq!(
        spare.why,
        "zones intel-rapl:0 (package-0); perf power is better"
    );
}

#[test]
fn unfit_meters_say_what_they_miss() {
    let machine = Machine::bare();
    machine
        .cpuinfo("AuthenticAMD", "fpu")
        .privileged(true)
        .energy_pmu("power", "0", &["energy-pkg=0x02"])
        .zone("intel-rapl:0", "package-0", 1, RANGE)
        .zone("intel-rapl:0:0", "core", 1, RANGE)
        .battery("BAT0", "Discharging")
        .file("sys/class/power_supply/BAT0/power_now", "4830000\n")
        .channel("hwmon0", "ina3221", "power1", "VDD_IN", "88");
    let selection = select(&probe(&machine.sys()));
    for (purpose, source, state, words) in [
        (
            Purpose::Cores,
            PerfPower,
            State::Unfit,
            "no event for cores",
        ),
        (Purpose::Cores, Powercap, State::Unfit, "one core only"),
        (Purpose::Cores, Battery, State::Unfit, "too slow"),
        (
            Purpose::Cores,
            HwmonPower,
            State::Absent,
            ", only ina3221/VDD_IN",
        ),
        (
            Purpose::Package,
            PerfPowerCore,
            State::Unfit,
            "counts cores",
        ),
        (Purpose::Package, HwmonPower, State::Spare, "whole machine"),
    ] {
        let verdict = verdict(&selection, purpose, source);
        assert_eq!(verdict.state, state, "{}", verdict.why);
        assert!(verdict.why.contains(words), "{}", verdict.why);
    }
}

#[test]
fn an_abstract_model_is_never_called_watts() {
    for (flags, words) in [("0x4", "on an abstract scale"), ("0x1", "in real watts")] {
        let machine = Machine::bare();
        machine.perf_domain("cpu0", "0-3", flags, &[[500_000, 20_000, 40]]);
        let selection = select(&probe(&machine.sys()));
        let verdict = verdict(&selection, Purpose::Package, KernelEm);
        assert_eq!(verdict.state, State::Unfit);
        assert!(verdict.why.contains(words), "{}", verdict.why);
    }
}

#[test]
fn a_selection_survives_json() {
    let selection = select(&probe(&Machine::laptop().sys()));
    let json = serde_json::to_string(&selection).unwrap();
    assert_eq!(serde_json::from_str::<Selection>(&json).unwrap(), selection);
}
