//! Facts about the machine's meters: what there is, and whether it can be read or why not.
//! No judgement here; that is [`select`](super::select())'s.

use super::battery::{self, Battery};
use super::hwmon::{self, Channel};
use super::kernel_em::{self, PerfDomain};
use super::perf::{self, Pmu};
use super::powercap::{self, Zone};
use super::source::{Access, Domain};
use crate::error::Result;
use crate::sysroot::SysRoot;
use serde::{Deserialize, Serialize};

/// Everything known about the meters of one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The CPUs' `vendor_id`, which only x86 shows.
    pub cpu_vendor: Option<String>,
    /// Whether the CPUs say that a hypervisor runs them (x86 only).
    pub virtual_machine: bool,
    /// perf PMU `power`.
    pub power: PmuFacts,
    /// perf PMU `power_core`: AMD, one counter for each core (Linux ≥ 6.14).
    pub power_core: PmuFacts,
    /// powercap zones.
    pub powercap: Listing<Zone>,
    /// hwmon energy and power channels.
    pub hwmon: Listing<Channel>,
    /// System batteries.
    pub batteries: Listing<Battery>,
    /// Whether debugfs is mounted; also true when it may not be listed.
    pub debugfs: bool,
    /// Performance domains of the kernel's Energy Model, which are in debugfs.
    pub kernel_em: Listing<PerfDomain>,
}

impl Facts {
    /// Whether AMD's rules hold: one counter for all dies of a package, one for each core. Hygon's
    /// CPUs follow them too.
    pub fn amd(&self) -> bool {
        matches!(
            self.cpu_vendor.as_deref(),
            Some("AuthenticAMD" | "HygonGenuine")
        )
    }
}

/// One perf PMU that counts energy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PmuFacts {
    /// The PMU as described by sysfs.
    pub pmu: Option<Pmu>,
    /// What its energy events cover.
    pub domains: Vec<Domain>,
    /// Whether they can be opened.
    pub access: Access,
}

/// The things of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing<T> {
    /// Whether they can be listed; [`Access::Absent`] when there is none.
    pub access: Access,
    /// Each with its own facts.
    pub items: Vec<T>,
}

impl<T> Listing<T> {
    fn of(listed: Result<Vec<T>>) -> Self {
        let listed = listed.map(|items| (!items.is_empty()).then_some(items));
        Self {
            access: Access::of(&listed),
            items: listed.ok().flatten().unwrap_or_default(),
        }
    }
}

/// Looks at every kind of meter. What cannot be read becomes a fact, so this never fails.
pub fn probe(sys: &SysRoot) -> Facts {
    let cpuinfo = sys.text("proc/cpuinfo").ok().flatten().unwrap_or_default();
    let virtual_machine = cpuinfo_field(&cpuinfo, "flags")
        .is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
    Facts {
        cpu_vendor: cpuinfo_field(&cpuinfo, "vendor_id").map(str::to_owned),
        virtual_machine,
        power: pmu_facts(sys, "power"),
        power_core: pmu_facts(sys, "power_core"),
        powercap: Listing::of(powercap::zones(sys)),
        hwmon: Listing::of(hwmon::channels(sys)),
        batteries: Listing::of(battery::batteries(sys)),
        // A mounted debugfs is never empty.
        debugfs: sys
            .entries("sys/kernel/debug")
            .map_or(true, |entries| !entries.is_empty()),
        kernel_em: Listing::of(kernel_em::domains(sys)),
    }
}

/// The first CPU's value of a field of /proc/cpuinfo.
fn cpuinfo_field<'a>(cpuinfo: &'a str, field: &str) -> Option<&'a str> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == field)
        .map(|(_, value)| value.trim())
}

fn pmu_facts(sys: &SysRoot, name: &str) -> PmuFacts {
    let (pmu, domains) = match describe(sys, name) {
        Ok(Some((pmu, domains))) => (pmu, domains),
        other => {
            return PmuFacts {
                access: Access::of(&other),
                pmu: None,
                domains: Vec::new(),
            };
        }
    };
    let cpu = pmu.cpus.iter().flatten().next();
    let access = match cpu.filter(|_| !domains.is_empty()) {
        None => Access::Absent,
        Some(cpu) => Access::of(&openable(sys, &pmu, *cpu).map(Some)),
    };
    PmuFacts {
        pmu: Some(pmu),
        domains,
        access,
    }
}

/// Whether the energy events of this PMU can be opened: on the running machine by doing so, since a
/// container may refuse what the capabilities allow; elsewhere by the kernel's rule.
fn openable(sys: &SysRoot, pmu: &Pmu, cpu: usize) -> Result<()> {
    if !sys.is_host() {
        return perf::permission(sys);
    }
    let energies = pmu.energy_events(sys)?;
    let events: Vec<_> = energies.into_iter().map(|(_, event)| event).collect();
    perf::Group::open(sys, pmu, &events, cpu)?.read().map(drop)
}

fn describe(sys: &SysRoot, name: &str) -> Result<Option<(Pmu, Vec<Domain>)>> {
    let Some(pmu) = perf::pmu(sys, name)? else {
        return Ok(None);
    };
    let energies = pmu.energy_events(sys)?;
    let domains = energies.into_iter().map(|(domain, _)| domain).collect();
    Ok(Some((pmu, domains)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::fixture::Machine;
    use crate::energy::select;
    use proptest::prelude::*;

    #[test]
    fn a_machine_that_shows_nothing_is_a_set_of_absences() {
        let facts = probe(&Machine::bare().sys());
        assert_eq!(facts.cpu_vendor, None);
        assert!(!facts.virtual_machine && !facts.amd());
        assert_eq!(facts.power.access, Access::Absent);
        assert_eq!(facts.power_core.access, Access::Absent);
        assert_eq!(facts.powercap.access, Access::Absent);
        assert_eq!(facts.hwmon.access, Access::Absent);
        assert_eq!(facts.batteries.access, Access::Absent);
        assert_eq!(facts.kernel_em.access, Access::Absent);
    }

    #[test]
    fn a_laptop_shows_all_its_meters_and_the_facts_survive_json() {
        let facts = probe(&Machine::laptop().sys());
        assert_eq!(facts.power.access, Access::Readable);
        assert_eq!(
            facts.power.domains,
            [Domain::Cores, Domain::Package, Domain::Platform]
        );
        assert_eq!(facts.powercap.items.len(), 5);
        assert_eq!(facts.batteries.items.len(), 1);
        let json = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts);
    }

    #[test]
    fn what_may_not_be_read_is_denied_and_names_the_file() {
        let machine = Machine::laptop();
        machine
            .privileged(false)
            .deny("sys/class/powercap/intel-rapl:0/energy_uj");
        let facts = probe(&machine.sys());
        let Access::Denied { why } = &facts.power.access else {
            panic!("{:?}", facts.power.access);
        };
        assert!(why.contains("perf_event_paranoid") && why.contains("CAP_PERFMON"));
        let zones = facts.powercap.items;
        let zone = zones.iter().find(|zone| zone.id == "intel-rapl:0").unwrap();
        let Access::Denied { why } = &zone.energy else {
            panic!("{:?}", zone.energy);
        };
        assert!(
            why.contains("intel-rapl:0/energy_uj: permission denied"),
            "{why}"
        );
    }

    #[test]
    fn a_pmu_without_events_or_cpus_is_described_but_counts_nothing() {
        for (cpumask, events) in [("0", &[][..]), ("", &["energy-pkg=0x02"])] {
            let machine = Machine::bare();
            machine
                .privileged(true)
                .energy_pmu("power", cpumask, events);
            let facts = probe(&machine.sys());
            assert_eq!(facts.power.access, Access::Absent, "{cpumask}");
            assert!(facts.power.pmu.is_some());
        }
    }

    #[test]
    fn on_this_machine_the_probe_opens_what_it_calls_readable() {
        let sys = SysRoot::host();
        let facts = probe(&sys);
        for found in [&facts.power, &facts.power_core] {
            if found.access == Access::Readable {
                let pmu = found.pmu.as_ref().unwrap();
                let opened = perf::PerfEnergy::open(&sys, pmu, facts.amd());
                assert!(opened.unwrap().is_some());
            }
        }
        let json = serde_json::to_string(&facts).unwrap();
        assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts);
    }

    #[test]
    fn garbage_is_broken_and_hides_nothing_else() {
        let machine = Machine::laptop();
        machine
            .file("sys/bus/event_source/devices/power/type", "nine\n")
            .file(
                "sys/class/powercap/intel-rapl:0/energy_uj",
                "24042\u{fffd}\n",
            );
        let facts = probe(&machine.sys());
        assert!(matches!(facts.power.access, Access::Broken { .. }));
        let zones = facts.powercap.items;
        let broken = zones
            .iter()
            .filter(|zone| matches!(zone.energy, Access::Broken { .. }));
        assert_eq!(broken.count(), 1);
        assert_eq!(zones.len(), 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_text_in_any_file_breaks_the_probe_or_the_rules(
            files in prop::collection::vec((0usize..17, "[ -~\n]{0,30}"), 1..6),
        ) {
            const FILES: [&str; 17] = [
                "proc/cpuinfo",
                "proc/self/status",
                "proc/sys/kernel/perf_event_paranoid",
                "sys/bus/event_source/devices/power/type",
                "sys/bus/event_source/devices/power/cpumask",
                "sys/bus/event_source/devices/power/events/energy-pkg",
                "sys/bus/event_source/devices/power/events/energy-pkg.scale",
                "sys/bus/event_source/devices/power/events/energy-pkg.unit",
                "sys/class/powercap/intel-rapl:0/name",
                "sys/class/powercap/intel-rapl:0/energy_uj",
                "sys/class/powercap/intel-rapl:0/max_energy_range_uj",
                "sys/class/hwmon/hwmon0/name",
                "sys/class/hwmon/hwmon0/energy1_label",
                "sys/class/power_supply/BAT0/type",
                "sys/class/power_supply/BAT0/status",
                "sys/kernel/debug/energy_model/cpu0/cpus",
                "sys/kernel/debug/energy_model/cpu0/flags",
            ];
            let machine = Machine::laptop();
            for (file, text) in files {
                machine.file(FILES[file], &text);
            }
            let selection = select(&probe(&machine.sys()));
            prop_assert_eq!(selection.verdicts.len(), 14);
        }
    }
}
