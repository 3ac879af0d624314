//! Energy zones of /sys/class/powercap (drivers/powercap): RAPL on x86, SCMI on Arm.
//!
//! Zones overlap: `intel-rapl-mmio` shows `intel-rapl`'s package again, and AMD's dies each show the
//! whole package. [`meters`] keeps one zone for each domain and scope, so nothing is counted twice.

use super::clock::Moment;
use super::counter::{Counter, Limits};
use super::source::{Access, Amount, Domain, EnergySource, Provenance, Reading, Scope};
use crate::error::Result;
use crate::sysroot::{OpenFile, SysRoot};
use crate::units::{Microjoules, Nanos};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const CLASS: &str = "sys/class/powercap";

/// RAPL refreshes its counters about every millisecond; SCMI firmware may take a hundred times longer.
pub(super) const REFRESH: Nanos = Nanos::new(100_000_000);

/// One zone as the machine shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Directory below /sys/class/powercap, such as `intel-rapl:0:1`.
    pub id: String,
    /// Path of that directory below the root of the tree.
    pub path: String,
    /// The zone's own name, such as `package-0` or `core`.
    pub name: String,
    /// The counter's largest value; `None` when missing or unreadable, and then differences across a
    /// wrap are given up rather than guessed.
    pub range: Option<Microjoules>,
    /// Whether `energy_uj` can be read.
    pub energy: Access,
}

impl Zone {
    /// The driver: `intel-rapl`, `intel-rapl-mmio`, `arm-scmi`.
    pub fn control_type(&self) -> &str {
        self.id.split(':').next().unwrap_or(&self.id)
    }

    fn parent_id(&self) -> Option<&str> {
        let (parent, _) = self.id.rsplit_once(':')?;
        parent.contains(':').then_some(parent)
    }
}

/// All zones, in order of their ids.
///
/// # Errors
/// Only when the class directory itself cannot be listed: a zone that cannot be read is a fact.
pub fn zones(sys: &SysRoot) -> Result<Vec<Zone>> {
    let mut found = BTreeMap::new();
    descend(sys, CLASS, &mut found)?;
    Ok(found.into_values().collect())
}

/// The class directory lists zones of every depth; a tree without those links has them nested.
fn descend(sys: &SysRoot, directory: &str, found: &mut BTreeMap<String, Zone>) -> Result<()> {
    for id in sys.entries(directory)? {
        let path = format!("{directory}/{id}");
        let is_zone = id.contains(':') && !found.contains_key(&id);
        if !is_zone || !sys.exists(format!("{path}/name")) {
            continue;
        }
        let name = match sys.text(format!("{path}/name")) {
            Ok(Some(name)) => name,
            Ok(None) | Err(_) => String::new(),
        };
        let zone = Zone {
            name,
            range: sys
                .value(format!("{path}/max_energy_range_uj"), "an energy in µJ")
                .ok()
                .flatten()
                .filter(|range| *range > 0)
                .map(Microjoules::new),
            energy: Access::of(&energy(&mut sys.open(energy_file(&path)))),
            path: path.clone(),
            id: id.clone(),
        };
        found.insert(id, zone);
        descend(sys, &path, found)?;
    }
    Ok(())
}

fn energy_file(zone: &str) -> String {
    format!("{zone}/energy_uj")
}

fn energy(file: &mut OpenFile) -> Result<Option<Microjoules>> {
    let value = file.value("an energy in µJ")?;
    Ok(value.map(Microjoules::new))
}

/// A zone with the domain and scope it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter<'a> {
    /// The zone.
    pub zone: &'a Zone,
    /// What it covers.
    pub domain: Domain,
    /// Which instance.
    pub scope: Scope,
}

/// The zones to count, at most one for each domain and scope: readable before unreadable, then
/// `intel-rapl` before its copy `intel-rapl-mmio`.
///
/// `amd` says that the CPUs are AMD's or Hygon's: there every die shows the counter of the package,
/// and the zone `core` is the counter of one single core (MSR 0xC001029A is per core, and
/// drivers/powercap/intel_rapl_msr.c reads it on the package's lead CPU only), so it is left out.
pub fn meters(zones: &[Zone], amd: bool) -> Vec<Meter<'_>> {
    let mut chosen: BTreeMap<(Domain, Scope), &Zone> = BTreeMap::new();
    let rank = |zone: &Zone| {
        (
            zone.energy != Access::Readable,
            zone.control_type() != "intel-rapl",
        )
    };
    for zone in zones {
        let Some((domain, scope)) = place(zone, zones, amd) else {
            continue;
        };
        chosen
            .entry((domain, scope))
            .and_modify(|held| {
                if rank(zone) < rank(held) {
                    *held = zone;
                }
            })
            .or_insert(zone);
    }
    chosen
        .into_iter()
        .map(|((domain, scope), zone)| Meter {
            zone,
            domain,
            scope,
        })
        .collect()
}

fn place(zone: &Zone, zones: &[Zone], amd: bool) -> Option<(Domain, Scope)> {
    if !zone.control_type().starts_with("intel-rapl") {
        // dtpm's zones are sums of the kernel's own Energy Model (drivers/powercap/dtpm_cpu.c).
        let measured = zone.control_type() != "dtpm" && !zone.name.is_empty();
        let device = Scope::Device(zone.id.clone());
        return measured.then(|| (Domain::from_label(&zone.name), device));
    }
    if let Some(scope) = package_scope(&zone.name, amd) {
        return Some((Domain::Package, scope));
    }
    let domain = match zone.name.as_str() {
        // A second socket's platform zone (psys-1) may or may not be part of the first's: left out.
        "psys" => return Some((Domain::Platform, Scope::Machine)),
        "core" if amd => return None,
        "core" => Domain::Cores,
        "uncore" => Domain::Gpu,
        "dram" => Domain::Dram,
        _ => return None,
    };
    let parent_id = zone.parent_id()?;
    let parent = zones.iter().find(|parent| parent.id == parent_id)?;
    Some((domain, package_scope(&parent.name, amd)?))
}

/// `package-1` and `package-1-die-0` (drivers/powercap/intel_rapl_common.c).
fn package_scope(name: &str, amd: bool) -> Option<Scope> {
    let rest = name.strip_prefix("package-")?;
    let (package, die) = match rest.split_once("-die-") {
        Some((package, die)) => (package, Some(die.parse().ok()?)),
        None => (rest, None),
    };
    Some(Scope::Package {
        package: package.parse().ok()?,
        die: if amd { None } else { die },
    })
}

/// Reads the zones that [`meters`] keeps.
#[derive(Debug)]
pub struct Powercap {
    meters: Vec<(OpenFile, Domain, Scope, Counter)>,
}

impl Powercap {
    /// The zones to count of every domain that can be read in full; `None` when there is no such domain.
    ///
    /// # Errors
    /// As [`zones`].
    pub fn open(sys: &SysRoot, amd: bool) -> Result<Option<Self>> {
        let zones = zones(sys)?;
        let meters = meters(&zones, amd);
        // A domain of which some zone cannot be read would be counted short.
        let hidden: BTreeSet<_> = meters
            .iter()
            .filter(|meter| meter.zone.energy != Access::Readable)
            .map(|meter| meter.domain.clone())
            .collect();
        let meters: Vec<_> = meters
            .into_iter()
            .filter(|meter| !hidden.contains(&meter.domain))
            .map(|meter| {
                let counter = Counter::new(Limits {
                    range: meter.zone.range,
                    max_power: meter.domain.max_power(),
                    refresh: REFRESH,
                    frozen_after: meter.domain.frozen_after(),
                });
                let file = sys.open(energy_file(&meter.zone.path));
                (file, meter.domain, meter.scope, counter)
            })
            .collect();
        Ok((!meters.is_empty()).then_some(Self { meters }))
    }
}

impl EnergySource for Powercap {
    fn sample(&mut self, now: Moment) -> Result<Vec<Reading>> {
        let values: Vec<_> = self
            .meters
            .iter_mut()
            .map(|(file, ..)| energy(file))
            .collect::<Result<_>>()?;
        let readings = self.meters.iter_mut().zip(values);
        Ok(readings
            .map(|((_, domain, scope, counter), value)| Reading {
                domain: domain.clone(),
                scope: scope.clone(),
                amount: Amount::Energy(counter.observe(value, now)),
                provenance: Provenance::Measured,
            })
            .collect())
    }

    fn longest_safe_period(&self) -> Option<Nanos> {
        self.meters
            .iter()
            .filter_map(|(.., counter)| counter.limits().longest_safe_period())
            .min()
    }
}

#[cfg(test)]
mod tests;
