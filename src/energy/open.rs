//! Opens what [`select`](super::select()) chose: the very zones, channels and events of its verdict.

use super::battery::BatteryPower;
use super::hwmon::{Hwmon, Kind};
use super::perf::PerfEnergy;
use super::powercap::Powercap;
use super::probe::{Facts, PmuFacts};
use super::select::{Purpose, Source, channels};
use super::source::EnergySource;
use crate::error::Result;
use crate::sysroot::SysRoot;

/// A reader for each device of `source` that serves `purpose`; empty when there is none, and for
/// [`Source::KernelEm`], which is no meter. `facts` must be of `sys` and fresh: after
/// [`Error::Gone`](crate::error::Error::Gone) probe again.
///
/// A reader may give more domains than the purpose needs, since they come at the same price.
///
/// # Errors
/// As each reader's `open`.
pub fn open(
    sys: &SysRoot,
    facts: &Facts,
    source: Source,
    purpose: Purpose,
) -> Result<Vec<Box<dyn EnergySource>>> {
    let perf = |found: &PmuFacts| match &found.pmu {
        Some(pmu) => PerfEnergy::open(sys, pmu, facts.amd()).map(boxed),
        None => Ok(Vec::new()),
    };
    match source {
        Source::PerfPower => perf(&facts.power),
        Source::PerfPowerCore => perf(&facts.power_core),
        Source::Powercap => Powercap::open(sys, facts.amd()).map(boxed),
        Source::HwmonEnergy => Ok(hwmon(sys, facts, Kind::Energy, purpose)),
        Source::HwmonPower => Ok(hwmon(sys, facts, Kind::Power, purpose)),
        Source::Battery => {
            let batteries = facts.batteries.items.iter();
            Ok(batteries
                .flat_map(|battery| boxed(BatteryPower::open(sys, battery)))
                .collect())
        }
        Source::KernelEm => Ok(Vec::new()),
    }
}

fn boxed(source: Option<impl EnergySource + 'static>) -> Vec<Box<dyn EnergySource>> {
    source
        .map(|source| Box::new(source) as Box<dyn EnergySource>)
        .into_iter()
        .collect()
}

fn hwmon(sys: &SysRoot, facts: &Facts, kind: Kind, purpose: Purpose) -> Vec<Box<dyn EnergySource>> {
    let channels = channels(facts, kind, purpose);
    let some = !channels.is_empty();
    boxed(some.then(|| Hwmon::open(sys, channels.into_iter().cloned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::fixture::{Machine, at_ms};
    use crate::energy::{Domain, probe, select};

    /// The domains that the first sample of an opened source speaks of.
    fn domains(machine: &Machine, source: Source, purpose: Purpose) -> Vec<Domain> {
        let sys = machine.sys();
        let opened = open(&sys, &probe(&sys), source, purpose).unwrap();
        let samples = opened
            .into_iter()
            .flat_map(|mut source| source.sample(at_ms(0)).unwrap());
        samples.map(|reading| reading.domain).collect()
    }

    #[test]
    fn the_chosen_source_gives_the_domain_it_was_chosen_for() {
        let machine = Machine::laptop();
        machine.privileged(false);
        let chosen = select(&probe(&machine.sys())).chosen.unwrap();
        for (source, purpose, domain) in [
            (chosen.package.unwrap(), Purpose::Package, Domain::Package),
            (chosen.cores.unwrap(), Purpose::Cores, Domain::Cores),
        ] {
            assert!(domains(&machine, source, purpose).contains(&domain));
        }
    }

    #[test]
    fn only_the_channels_of_the_purpose_are_read() {
        let machine = Machine::bare();
        machine
            .channel("hwmon0", "x", "power1", "VDD_IN", "9")
            .channel("hwmon0", "x", "power2", "VDD_CPU", "5")
            .channel("hwmon0", "x", "energy1", "VDD_CPU", "5");
        let read = |purpose| domains(&machine, Source::HwmonPower, purpose);
        assert_eq!(read(Purpose::Cores), [Domain::Cores]);
        assert_eq!(read(Purpose::Package), [Domain::Platform]);
    }

    #[test]
    fn every_battery_is_read() {
        let machine = Machine::laptop();
        machine
            .battery("BAT1", "Discharging")
            .file("sys/class/power_supply/BAT1/power_now", "1\n");
        let both = domains(&machine, Source::Battery, Purpose::Package);
        assert_eq!(both, [Domain::Platform, Domain::Platform]);
    }

    #[test]
    fn what_is_not_there_opens_nothing() {
        use Source::*;
        for source in [
            PerfPower,
            PerfPowerCore,
            Powercap,
            HwmonEnergy,
            HwmonPower,
            Battery,
            KernelEm,
        ] {
            let opened = domains(&Machine::bare(), source, Purpose::Package);
            assert_eq!(opened, [], "{source}");
        }
    }
}
