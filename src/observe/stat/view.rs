//! One interval as the columns see it: rows, and figures of the CPUs, packages and meters of a row.
//!
//! A figure of several CPUs is known only where each of them is, unless the column says otherwise: the sum of
//! some is not the sum.

use super::energy::{Figure, Meter};
use crate::energy::activity::{CpuInterval, Interval, PackageInterval};
use crate::energy::{Domain, Scope};
use crate::stats::Stats;
use crate::sysroot::SysRoot;
use crate::topology::Topology;
use num_traits::ToPrimitive;
use std::collections::{BTreeMap, BTreeSet};

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Not known: never shown as a number.
    Unknown,
    /// A whole number.
    Count(u64),
    /// A number with so many decimals.
    Real(f64, usize),
}

impl Value {
    /// `None` and what is no number are unknown.
    pub fn real(value: Option<f64>, decimals: usize) -> Self {
        let value = value.filter(|value| value.is_finite());
        value.map_or(Self::Unknown, |value| Self::Real(value, decimals))
    }

    /// `None` is unknown.
    pub fn count(value: Option<u64>) -> Self {
        value.map_or(Self::Unknown, Self::Count)
    }

    /// `None` is unknown.
    pub fn index(value: Option<u32>) -> Self {
        Self::count(value.map(u64::from))
    }
}

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// The machine.
    System,
    /// The package with this `physical_package_id`.
    Package(u32),
    /// The group with this index.
    Cluster(usize),
    /// The CPU with this number.
    Cpu(usize),
}

/// One row and its CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is about.
    pub kind: RowKind,
    /// Its online CPUs, ascending.
    pub cpus: Vec<usize>,
}

/// Where a CPU is, by the machine's own numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// See the columns of these names.
    pub package: Option<u32>,
    /// See the columns of these names.
    pub die: Option<u32>,
    /// See the columns of these names.
    pub node: Option<u32>,
    /// See the columns of these names.
    pub l3: Option<u32>,
    /// See the columns of these names.
    pub cluster: Option<u32>,
    /// See the columns of these names.
    pub core: Option<u32>,
    /// See the columns of these names.
    pub apic: Option<u32>,
}

/// Where the online CPUs are; what the machine does not tell stays unknown.
pub fn places(sys: &SysRoot, topology: &Topology) -> BTreeMap<usize, Place> {
    let cpuinfo = sys.text("proc/cpuinfo").ok().flatten().unwrap_or_default();
    let mut apics = BTreeMap::new();
    let mut cpu = None;
    for line in cpuinfo.lines() {
        match line
            .split_once(':')
            .map(|(name, value)| (name.trim(), value.trim()))
        {
            Some(("processor", number)) => cpu = number.parse::<usize>().ok(),
            Some(("apicid", number)) => apics.extend(cpu.zip(number.parse::<u32>().ok())),
            _ => {}
        }
    }
    let place = |cpu: &crate::topology::Cpu| {
        let id = cpu.facts.id;
        let directory = format!("sys/devices/system/cpu/cpu{id}");
        let place = Place {
            package: cpu.facts.package,
            die: cpu.facts.die,
            node: cpu.facts.node,
            l3: sys
                .value(format!("{directory}/cache/index3/id"), "a number")
                .ok()
                .flatten(),
            cluster: cpu.group.to_u32(),
            core: cpu.facts.core,
            apic: apics.get(&id).copied(),
        };
        (id, place)
    };
    topology.cpus.iter().map(place).collect()
}

/// The system, each package, each cluster and each CPU, from the whole to its parts.
pub fn rows(topology: &Topology) -> Vec<Row> {
    let all = |kind, cpus: Vec<usize>| Row { kind, cpus };
    let ids = topology.cpus.iter().map(|cpu| cpu.facts.id);
    let mut rows = vec![all(RowKind::System, ids.collect())];
    let packages: BTreeSet<Option<u32>> =
        topology.cpus.iter().map(|cpu| cpu.facts.package).collect();
    for package in packages {
        let own = topology
            .cpus
            .iter()
            .filter(|cpu| cpu.facts.package == package);
        if let Some(package) = package {
            let ids = own.clone().map(|cpu| cpu.facts.id);
            rows.push(all(RowKind::Package(package), ids.collect()));
        }
        let clusters: BTreeSet<usize> = own.clone().map(|cpu| cpu.group).collect();
        for cluster in clusters {
            let ids = own.clone().filter(|cpu| cpu.group == cluster);
            let ids: Vec<usize> = ids.map(|cpu| cpu.facts.id).collect();
            rows.push(all(RowKind::Cluster(cluster), ids.clone()));
            rows.extend(ids.into_iter().map(|id| all(RowKind::Cpu(id), vec![id])));
        }
    }
    rows
}

/// One interval with all that is known of it.
pub struct View<'a> {
    /// What CPUs and packages did.
    pub interval: &'a Interval,
    /// What was metered.
    pub energy: &'a BTreeMap<(Domain, Scope), Figure>,
    /// The scheduler's statistics now, and what happened since the interval before.
    pub scheduler: Option<&'a (Stats, Stats)>,
    /// Where the CPUs are.
    pub places: &'a BTreeMap<usize, Place>,
    /// Seconds since 1970.
    pub time_of_day: f64,
}

impl View<'_> {
    /// Length of the interval, s.
    pub fn seconds(&self) -> f64 {
        self.interval.elapsed.get().to_f64().unwrap_or(f64::NAN) / 1e9
    }

    /// The row's CPUs with what they did; `None` for one that has gone.
    pub fn cpus<'a>(
        &'a self,
        row: &'a Row,
    ) -> impl Iterator<Item = (usize, Option<&'a CpuInterval>)> + 'a {
        let of = |id: &usize| (*id, self.interval.cpus.get(id));
        row.cpus.iter().map(of)
    }

    /// What all CPUs of the row have in common; not of the system.
    pub fn common(&self, row: &Row, of: impl Fn(&Place) -> Option<u32>) -> Option<u32> {
        if row.kind == RowKind::System {
            return None;
        }
        let mut values = row.cpus.iter().map(|cpu| of(self.places.get(cpu)?));
        let first = values.next()??;
        values.all(|value| value == Some(first)).then_some(first)
    }

    /// Mean over the row's CPUs.
    pub fn mean(&self, row: &Row, of: impl Fn(&CpuInterval) -> Option<f64>) -> Option<f64> {
        self.mean_by(row, |_, cpu| of(cpu))
    }

    /// Mean over the row's CPUs.
    pub fn mean_by(
        &self,
        row: &Row,
        of: impl Fn(usize, &CpuInterval) -> Option<f64>,
    ) -> Option<f64> {
        let values = self.cpus(row).map(|(id, cpu)| of(id, cpu?));
        mean(values.collect::<Option<Vec<f64>>>()?)
    }

    /// Mean over those of the row's CPUs that tell.
    pub fn mean_of_known(
        &self,
        row: &Row,
        of: impl Fn(&CpuInterval) -> Option<f64>,
    ) -> Option<f64> {
        mean(self.cpus(row).filter_map(|(_, cpu)| of(cpu?)).collect())
    }

    /// Mean over the row's cores, each told by one of its CPUs.
    pub fn mean_over_cores(
        &self,
        row: &Row,
        of: impl Fn(&CpuInterval) -> Option<f64>,
    ) -> Option<f64> {
        let mut cores: BTreeMap<(u32, u32), Option<f64>> = BTreeMap::new();
        for (id, cpu) in self.cpus(row) {
            let place = self.places.get(&id)?;
            let told = cores.entry((place.package?, place.core?)).or_default();
            *told = told.or(cpu.and_then(&of));
        }
        mean(cores.into_values().collect::<Option<Vec<f64>>>()?)
    }

    /// Sum over the row's CPUs.
    pub fn sum(&self, row: &Row, of: impl Fn(&CpuInterval) -> Option<u64>) -> Option<u64> {
        let values = self.cpus(row).map(|(_, cpu)| of(cpu?));
        let values: Vec<u64> = values.collect::<Option<_>>()?;
        values
            .iter()
            .try_fold(0_u64, |sum, value| sum.checked_add(*value))
    }

    /// The most of those of the row's CPUs that tell.
    pub fn most(&self, row: &Row, of: impl Fn(&CpuInterval) -> Option<u64>) -> Option<u64> {
        self.cpus(row).filter_map(|(_, cpu)| of(cpu?)).max()
    }

    /// The highest of those of the row's CPUs that tell.
    pub fn highest(&self, row: &Row, of: impl Fn(&CpuInterval) -> Option<f64>) -> Option<f64> {
        let values = self.cpus(row).filter_map(|(_, cpu)| of(cpu?));
        values.max_by(f64::total_cmp)
    }

    /// Of a package its own, of the system the mean over its packages.
    pub fn over_packages(
        &self,
        row: &Row,
        of: impl Fn(&PackageInterval) -> Option<f64>,
    ) -> Option<f64> {
        let packages = self.packages(row).map(|package| of(package?));
        mean(packages.collect::<Option<Vec<f64>>>()?)
    }

    /// Of a package its own, of the system the highest that was read.
    pub fn hottest_package(&self, row: &Row) -> Option<f64> {
        let told = self.packages(row).filter_map(|package| package?.celsius);
        told.max_by(f64::total_cmp)
    }

    fn packages<'a>(
        &'a self,
        row: &'a Row,
    ) -> impl Iterator<Item = Option<&'a PackageInterval>> + 'a {
        let all = match row.kind {
            RowKind::System => self.interval.packages.keys().copied().collect(),
            RowKind::Package(package) => vec![package],
            RowKind::Cluster(_) | RowKind::Cpu(_) => Vec::new(),
        };
        all.into_iter()
            .map(|package| self.interval.packages.get(&package))
    }

    /// A figure of the whole machine.
    pub fn of_system<T>(&self, row: &Row, of: impl Fn(&Interval) -> Option<T>) -> Option<T> {
        (row.kind == RowKind::System).then(|| of(self.interval))?
    }

    /// Part of the time that a CPU was in c1: counted, or what busy time and its core's deeper states leave.
    pub fn c1(&self, id: usize, cpu: &CpuInterval) -> Option<f64> {
        if let Some(counted) = cpu.core_idle.get("c1") {
            return Some(*counted);
        }
        let place = self.places.get(&id)?;
        let answers = |(other, cpu): (&usize, &CpuInterval)| {
            let there = self.places.get(other)?;
            let same = there.package == place.package && there.core == place.core;
            let deeper: f64 = cpu.core_idle.values().sum();
            (same && !cpu.core_idle.is_empty()).then_some(deeper)
        };
        let deeper = self.interval.cpus.iter().find_map(answers)?;
        let counted = cpu.average_hz.and(cpu.busy)?;
        Some((1.0 - counted - deeper).clamp(0.0, 1.0))
    }

    /// Energy of a row: the sum over the meters' scopes in it, which must cover it.
    pub fn energy(&self, row: &Row, meter: Meter) -> Option<Figure> {
        let domain = meter.domain();
        let own = self.energy.iter().filter(|((of, _), _)| *of == domain);
        let own = own.map(|((_, scope), figure)| (scope, *figure));
        let of_cores = |cpus: &[usize]| -> Option<Figure> {
            let mut sum: Option<Figure> = None;
            let mut covered = BTreeSet::new();
            for (scope, figure) in own.clone() {
                let Scope::Core { cpu } = scope else { continue };
                if cpus.contains(cpu) {
                    sum = Some(sum.map_or(figure, |sum| sum.and(figure)));
                    covered.insert(self.core(*cpu)?);
                }
            }
            let cores: Option<BTreeSet<_>> = cpus.iter().map(|cpu| self.core(*cpu)).collect();
            sum.filter(|_| cores.as_ref() == Some(&covered))
        };
        let figure = match row.kind {
            RowKind::System => {
                let mut all = own.clone().map(|(_, figure)| figure);
                let first = all.next()?;
                Some(all.fold(first, Figure::and))
            }
            RowKind::Package(package) => {
                let is_own = |scope: &Scope| matches!(scope, Scope::Package { package: of, .. } if *of == package);
                let mut dies = own.clone().filter(|(scope, _)| is_own(scope));
                match dies.next() {
                    Some((_, first)) => Some(dies.fold(first, |sum, (_, die)| sum.and(die))),
                    None => of_cores(&row.cpus),
                }
            }
            RowKind::Cluster(_) => of_cores(&row.cpus),
            // The core's energy stands on the CPU that answers for it.
            RowKind::Cpu(id) => own
                .clone()
                .find_map(|(scope, figure)| (*scope == Scope::Core { cpu: id }).then_some(figure)),
        };
        figure.filter(Figure::is_known)
    }

    fn core(&self, cpu: usize) -> Option<(u32, u32)> {
        let place = self.places.get(&cpu)?;
        place.package.zip(place.core)
    }

    /// What happened in the scheduler.
    pub fn scheduler(&self, row: &Row, of: impl Fn(&Stats) -> u64) -> Option<u64> {
        let (_, since) = self.scheduler.filter(|_| row.kind == RowKind::System)?;
        Some(of(since))
    }

    /// How long this part of the tasks waited to run at most, µs.
    pub fn delay_us(&self, row: &Row, part: f64) -> Option<f64> {
        let (_, since) = self.scheduler.filter(|_| row.kind == RowKind::System)?;
        since.delay_us(part)
    }

    /// What the scheduler's model expects, W.
    pub fn modelled_w(&self, row: &Row) -> Option<f64> {
        let (now, _) = self.scheduler?;
        let told = match row.kind {
            RowKind::System => Some(now.model_w),
            RowKind::Cluster(cluster) => now.groups_w.get(cluster).copied(),
            RowKind::Package(_) | RowKind::Cpu(_) => None,
        };
        told.filter(|watts| *watts >= 0.0)
    }
}

fn mean(values: Vec<f64>) -> Option<f64> {
    let number = values.len().to_f64().filter(|number| *number > 0.0)?;
    Some(values.iter().sum::<f64>() / number)
}

#[cfg(test)]
mod tests;
