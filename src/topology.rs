//! The machine in three relations: *classes* (CPUs with one cost row), *frequency domains* (CPUs that
//! share a clock) and *groups* (class ∩ last-level cache, at most [`MAX_GROUP`] CPUs: the unit of
//! dispatch queues and of aggregates).
//!
//! Read through [`SysRoot`] and not through `scx_utils::Topology`, for four reasons: a dump of any
//! machine can be handed in by a test (its sysfs prefix belongs to the whole process), an absent file
//! stays absent (there it reads as 0), the highest frequency is the hardware's (there it is
//! `scaling_max_freq`, which moves with policy), and there may be more than two kinds of core.
//!
//! **Capacity** comes from the first source that every online CPU has and that tells any two of them
//! apart: the kernel's `cpu_capacity`, CPPC's `highest_perf`, amd_pstate's, `cpuinfo_max_freq`. A
//! source that calls all CPUs equal is believed only when no later one disagrees, because x86 kernels
//! print 1024 for every CPU of a hybrid machine with SMT on. All but the kernel's are scaled so that
//! the biggest CPU has 1024.
//!
//! **Class.** Two CPUs are of one class when they are of the same core type (where the machine says:
//! arm64 MIDR implementer and part, x86 `cpu_core`/`cpu_atom`), have the same OPP list, and no gap of
//! more than [`CLASS_GAP_PERCENT`] lies between their capacities with those of their kind ranked.
//! - Core types split even at equal capacity and clock (the A715 and A710 of the SM8550 share one
//!   policy and the figure 855): they differ in what work costs, which is what a class is for.
//! - OPP lists split because a cost row has one entry per OPP.
//! - Gaps, not distances, decide on the rest: firmware ranks its favoured cores a little higher
//!   (64 and 67 on an i7-1370P, steps of 5 from 166 to 236 on some Ryzens) though they are the same
//!   silicon, while different cores lie far apart (39 against 64).
//!
//! A class has the capacity of its biggest CPU.
//!
//! **Frequency domain.** `freqdomain_cpus` where the driver knows of a clock wider than its policy,
//! else the policy's `related_cpus`; with HWP and amd_pstate that is each CPU alone. Without cpufreq
//! nobody says: the CPUs of a class under one cache are then taken as one domain without a policy.
//!
//! **Last-level cache.** The highest-level data cache that more than one core shares; a CPU with none
//! such (or no cache information) falls back to its package, and without one to the whole machine.
//! Virtual machines often show private caches only, which would make each CPU a group.
//!
//! Only online CPUs are in relations: the scheduler restarts when one comes or goes.

mod read;

use crate::error::Result;
use crate::sysroot::SysRoot;
use crate::units::{Capacity, KHz};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The most CPUs of one group.
pub const MAX_GROUP: usize = 16;

/// The relative capacity gap, in percent of the bigger one, that separates classes of one core type.
pub const CLASS_GAP_PERCENT: u64 = 10;

/// The machine's online CPUs and how they relate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Every CPU number that may ever come online, ascending.
    pub possible: Vec<usize>,
    /// Online CPUs, ascending by number.
    pub cpus: Vec<Cpu>,
    /// By capacity, then by first CPU, ascending.
    pub classes: Vec<Class>,
    /// By first CPU, ascending.
    pub domains: Vec<Domain>,
    /// By capacity, then by first CPU, ascending.
    pub groups: Vec<Group>,
    /// Where the classes' capacities come from.
    pub capacity_source: CapacitySource,
}

/// One online CPU: its place in the relations and what the machine says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// Index into [`Topology::classes`].
    pub class: usize,
    /// Index into [`Topology::domains`].
    pub domain: usize,
    /// Index into [`Topology::groups`].
    pub group: usize,
    /// What was read.
    pub facts: CpuFacts,
}

/// What the machine says of one online CPU. `None` is "does not say".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuFacts {
    /// The kernel's number of it.
    pub id: usize,
    /// `cpu_capacity`.
    pub kernel_capacity: Option<Capacity>,
    /// `acpi_cppc/highest_perf`, an abstract scale of the firmware.
    pub cppc_highest_perf: Option<u64>,
    /// `cpufreq/amd_pstate_highest_perf`, the same scale as the driver sees it.
    pub amd_highest_perf: Option<u64>,
    /// The kind of core.
    pub core_type: Option<CoreType>,
    /// `topology/physical_package_id`.
    pub package: Option<u32>,
    /// `topology/die_id`.
    pub die: Option<u32>,
    /// `topology/core_id`, unique within a package at most.
    pub core: Option<u32>,
    /// The memory node that lists it (`/sys/devices/system/node/node*/cpulist`); `None` without NUMA.
    pub node: Option<u32>,
    /// Online hardware threads of this core, ascending, this CPU among them.
    pub siblings: Vec<usize>,
    /// Online CPUs under the same last-level cache (or its stand-in), ascending, this CPU among them.
    #[serde(skip)]
    pub llc: Vec<usize>,
    /// Its clock, where cpufreq shows one.
    #[serde(skip)]
    pub policy: Option<Policy>,
}

/// The kind of a core, where the machine tells kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoreType {
    /// arm64: fields of MIDR_EL1 (Arm ARM D19.2). Variant and revision are left out: a stepping is
    /// not another core.
    Arm {
        /// Bits 31:24.
        implementer: u8,
        /// Bits 15:4.
        part: u16,
    },
    /// x86 hybrid, listed in `/sys/devices/cpu_core/cpus`.
    IntelCore,
    /// x86 hybrid, listed in `/sys/devices/cpu_atom/cpus`.
    IntelAtom,
}

impl fmt::Display for CoreType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arm { implementer, part } => write!(f, "arm {implementer:02x}:{part:03x}"),
            Self::IntelCore => write!(f, "core"),
            Self::IntelAtom => write!(f, "atom"),
        }
    }
}

/// A cpufreq policy: CPUs behind one clock and the frequencies it can take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// CPUs behind the clock, offline ones too, ascending.
    pub cpus: Vec<usize>,
    /// `scaling_driver`.
    pub driver: Option<String>,
    /// `scaling_available_governors`, in the kernel's order.
    pub governors: Option<Vec<String>>,
    /// `cpuinfo_min_freq`.
    pub min: Option<KHz>,
    /// `cpuinfo_max_freq`, which does not move with policy.
    pub max: Option<KHz>,
    /// Every frequency it can be set to, boost included, ascending; `None` where the driver shows no
    /// list (HWP, amd_pstate), and the model then uses frequency bins.
    pub opps: Option<Vec<KHz>>,
}

impl Policy {
    /// Whether the driver leaves the clock to the hardware and ignores the scheduler's wishes. Drivers that
    /// have no governors are said to offer two, in this order (show_scaling_available_governors,
    /// drivers/cpufreq/cpufreq.c); where nothing is said, these are known to do so in their active modes
    /// (Documentation/admin-guide/pm/{intel_pstate,amd-pstate}.rst).
    pub fn hardware_chooses(&self) -> bool {
        match &self.governors {
            Some(offered) => offered == &["performance", "powersave"],
            None => matches!(
                self.driver.as_deref(),
                Some("intel_pstate" | "amd-pstate-epp")
            ),
        }
    }
}

/// CPUs with the same capacity and cost row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Class {
    /// Capacity of its biggest CPU.
    pub capacity: Capacity,
    /// The kind of core, where the machine says.
    pub core_type: Option<CoreType>,
    /// Online CPUs, ascending.
    pub cpus: Vec<usize>,
}

/// CPUs that share a clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Domain {
    /// Online CPUs, ascending.
    pub cpus: Vec<usize>,
    /// Its clock; `None` where cpufreq shows none and sharing is an assumption.
    pub policy: Option<Policy>,
}

/// CPUs of one class under one last-level cache, at most [`MAX_GROUP`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Index into [`Topology::classes`].
    pub class: usize,
    /// Online CPUs, ascending.
    pub cpus: Vec<usize>,
    /// Whether a CPU's clock follows that CPU's need: false when one clock, shared by several CPUs,
    /// drives the whole group.
    pub per_cpu_freq: bool,
}

/// Where capacities come from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CapacitySource {
    /// `cpu_capacity`: on the kernel's own scale.
    Kernel,
    /// `acpi_cppc/highest_perf`.
    Cppc,
    /// `cpufreq/amd_pstate_highest_perf`.
    AmdPstate,
    /// `cpufreq/cpuinfo_max_freq`: blind to work per cycle.
    MaxFrequency,
    /// Nothing says; all CPUs are taken as equal.
    Assumed,
}

impl CapacitySource {
    const MEASURED: [Self; 4] = [
        Self::Kernel,
        Self::Cppc,
        Self::AmdPstate,
        Self::MaxFrequency,
    ];

    fn of(self, cpu: &CpuFacts) -> Option<u64> {
        match self {
            Self::Kernel => cpu.kernel_capacity.map(u64::from),
            Self::Cppc => cpu.cppc_highest_perf,
            Self::AmdPstate => cpu.amd_highest_perf,
            Self::MaxFrequency => cpu.policy.as_ref()?.max.map(KHz::get),
            Self::Assumed => Some(Capacity::MAX.into()),
        }
    }
}

impl fmt::Display for CapacitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "cpu_capacity",
            Self::Cppc => "acpi_cppc/highest_perf",
            Self::AmdPstate => "amd_pstate_highest_perf",
            Self::MaxFrequency => "cpuinfo_max_freq",
            Self::Assumed => "assumed equal",
        })
    }
}

/// CPUs alike, to describe a machine that is not there (see [`Topology::synthetic`]).
#[derive(Clone, Debug)]
pub struct Cluster {
    /// How many CPUs; they are numbered after those of the clusters before.
    pub cpus: usize,
    /// Hardware threads per core, at least 1.
    pub threads: usize,
    /// Capacity of each.
    pub capacity: Capacity,
    /// OPPs, ascending; `None` for a clock per CPU without a list, as with HWP.
    pub opps: Option<Vec<KHz>>,
    /// Clusters with the same number share a last-level cache.
    pub llc: usize,
}

impl Topology {
    /// Reads the machine.
    ///
    /// # Errors
    /// [`crate::error::Error`] naming the file that could not be read or understood, or the CPU
    /// directory when it shows no online CPU at all.
    pub fn read(sys: &SysRoot) -> Result<Self> {
        let (possible, cpus) = read::facts(sys)?;
        Ok(Self::relate(possible, cpus))
    }

    /// What the limits of the clocks leave of the capacity of each group's CPUs at this moment: thermal drivers,
    /// power savers and users set `scaling_max_freq`. All of it where cpufreq does not say.
    ///
    /// # Errors
    /// [`crate::error::Error`] naming the file that could not be read or understood.
    pub fn offers(&self, sys: &SysRoot) -> Result<Vec<u32>> {
        let offered = |group: &Group| {
            let capacity = self
                .classes
                .get(group.class)
                .map_or(0, |it| u64::from(it.capacity.get()));
            let of_group = self
                .cpus
                .iter()
                .find(|cpu| group.cpus.first() == Some(&cpu.facts.id));
            let clock =
                of_group.and_then(|cpu| cpu.facts.policy.as_ref()?.max.map(|max| (cpu, max)));
            let Some((cpu, max)) = clock else {
                return Ok(capacity);
            };
            let (id, top) = (cpu.facts.id, max.get());
            let file = format!("sys/devices/system/cpu/cpu{id}/cpufreq/scaling_max_freq");
            let limit: Option<u64> = sys.value(file, "a frequency in kHz")?;
            Ok(limit.map_or(capacity, |khz| capacity * khz.min(top) / top))
        };
        let offered = self.groups.iter().map(offered);
        offered
            .map(|cap| Ok(u32::try_from(cap?).unwrap_or(u32::MAX)))
            .collect()
    }

    /// The relations of CPUs that are known already, as from a recording; `facts` in any order.
    pub fn of(possible: Vec<usize>, mut facts: Vec<CpuFacts>) -> Self {
        facts.sort_by_key(|cpu| cpu.id);
        facts.dedup_by_key(|cpu| cpu.id);
        Self::relate(possible, facts)
    }

    /// A machine made of clusters, for tests and for replaying recordings. A cluster with OPPs is one
    /// frequency domain.
    pub fn synthetic(clusters: &[Cluster]) -> Self {
        let mut first = 0;
        let mut cpus: Vec<CpuFacts> = Vec::new();
        let mut llcs: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut llc_of = Vec::new();
        for cluster in clusters {
            let end = first + cluster.cpus;
            llcs.entry(cluster.llc).or_default().extend(first..end);
            for id in first..end {
                let core = first + (id - first) / cluster.threads.max(1) * cluster.threads.max(1);
                let shared = cluster.opps.is_some();
                llc_of.push(cluster.llc);
                cpus.push(CpuFacts {
                    id,
                    kernel_capacity: Some(cluster.capacity),
                    siblings: (core..(core + cluster.threads.max(1)).min(end)).collect(),
                    policy: Some(Policy {
                        cpus: if shared {
                            (first..end).collect()
                        } else {
                            vec![id]
                        },
                        min: cluster.opps.as_ref().and_then(|opps| opps.first().copied()),
                        max: cluster.opps.as_ref().and_then(|opps| opps.last().copied()),
                        opps: cluster.opps.clone(),
                        ..Policy::default()
                    }),
                    ..CpuFacts::default()
                });
            }
            first = end;
        }
        for (cpu, llc) in cpus.iter_mut().zip(llc_of) {
            cpu.llc = llcs.get(&llc).cloned().unwrap_or_default();
        }
        Self::relate((0..first).collect(), cpus)
    }

    /// The online CPU with this number.
    pub fn cpu(&self, id: usize) -> Option<&Cpu> {
        let position = self.cpus.binary_search_by_key(&id, |cpu| cpu.facts.id);
        self.cpus.get(position.ok()?)
    }

    /// The other hardware thread of this CPU's core; `None` unless there are just two, both in one group.
    pub fn sibling(&self, id: usize) -> Option<usize> {
        let cpu = self.cpu(id)?;
        let &[one, other] = cpu.facts.siblings.as_slice() else {
            return None;
        };
        let sibling = if one == id { other } else { one };
        (self.cpu(sibling)?.group == cpu.group).then_some(sibling)
    }

    /// The capacity of this CPU's class; `None` when it is not online.
    pub fn capacity(&self, id: usize) -> Option<Capacity> {
        Some(self.classes.get(self.cpu(id)?.class)?.capacity)
    }

    /// Groups that have this in common with the one of this index, which is among them, ascending; by their first
    /// CPUs, as a group is under one cache and so in one memory node.
    fn alike<T: PartialEq>(&self, group: usize, of: impl Fn(&CpuFacts) -> T) -> Vec<usize> {
        let of = |group: &Group| Some(of(&self.cpu(*group.cpus.first()?)?.facts));
        let own = self.groups.get(group).and_then(of);
        let groups = self.groups.iter().enumerate();
        groups
            .filter_map(|(index, it)| (own.is_some() && of(it) == own).then_some(index))
            .collect()
    }

    /// Groups under the same last-level cache as the one of this index, which is among them, ascending.
    pub fn under_one_cache(&self, group: usize) -> Vec<usize> {
        self.alike(group, |cpu| cpu.llc.first().copied())
    }

    /// Groups of the same memory node as the one of this index, which is among them, ascending; all where there is
    /// no telling.
    pub fn in_one_node(&self, group: usize) -> Vec<usize> {
        self.alike(group, |cpu| cpu.node)
    }

    /// Whether hardware sets the clock of each CPU of the group by what that CPU has done lately: whoever comes to
    /// another CPU than before begins there slowly.
    pub fn starts_slowly(&self, group: &Group) -> bool {
        let policy = |&id: &usize| self.cpu(id)?.facts.policy.as_ref();
        let mut policies = group.cpus.iter().filter_map(policy);
        group.per_cpu_freq && policies.any(Policy::hardware_chooses)
    }

    /// One more than the highest possible CPU number (the kernel's `nr_cpu_ids`).
    pub fn nr_cpu_ids(&self) -> usize {
        self.possible.last().map_or(0, |last| last + 1)
    }

    /// Builds the relations; `facts` must be ascending by CPU number.
    fn relate(possible: Vec<usize>, facts: Vec<CpuFacts>) -> Self {
        let (capacity_source, capacities) = capacities(&facts);
        let classes = classes(&facts, &capacities);
        let class_of = index(classes.iter().map(|class| &class.cpus));
        let domains = domains(&facts, &class_of);
        let domain_of = index(domains.iter().map(|domain| &domain.cpus));
        let groups = groups(&facts, &class_of, &domain_of, &domains);
        let group_of = index(groups.iter().map(|group| &group.cpus));
        let place = |map: &BTreeMap<usize, usize>, id| map.get(&id).copied().unwrap_or_default();
        let cpus = facts
            .into_iter()
            .map(|facts| Cpu {
                class: place(&class_of, facts.id),
                domain: place(&domain_of, facts.id),
                group: place(&group_of, facts.id),
                facts,
            })
            .collect();
        Self {
            possible,
            cpus,
            classes,
            domains,
            groups,
            capacity_source,
        }
    }
}

/// CPU → position of the set that holds it.
fn index<'a>(sets: impl Iterator<Item = &'a Vec<usize>>) -> BTreeMap<usize, usize> {
    sets.enumerate()
        .flat_map(|(position, cpus)| cpus.iter().map(move |&cpu| (cpu, position)))
        .collect()
}

/// Each CPU's capacity, in the order of `facts`.
fn capacities(facts: &[CpuFacts]) -> (CapacitySource, Vec<Capacity>) {
    let complete = |source: CapacitySource| {
        let raw: Option<Vec<u64>> = facts.iter().map(|cpu| source.of(cpu)).collect();
        raw.map(|raw| (source, raw))
    };
    let tells_apart =
        |(_, raw): &(_, Vec<u64>)| raw.windows(2).any(|pair| pair.first() != pair.last());
    let known: Vec<_> = CapacitySource::MEASURED
        .into_iter()
        .filter_map(complete)
        .collect();
    let chosen = known.iter().find(|known| tells_apart(known));
    let Some((source, raw)) = chosen.or(known.first()) else {
        return (CapacitySource::Assumed, vec![Capacity::MAX; facts.len()]);
    };
    let full = match source {
        CapacitySource::Kernel => Capacity::MAX.into(),
        _ => raw.iter().copied().max().unwrap_or(1).max(1),
    };
    let scaled = |raw: &u64| {
        let capacity = (u128::from(*raw) * 1024 + u128::from(full) / 2) / u128::from(full);
        let capacity = u64::try_from(capacity).ok().and_then(Capacity::new);
        capacity.unwrap_or(Capacity::MAX)
    };
    (*source, raw.iter().map(scaled).collect())
}

fn classes(facts: &[CpuFacts], capacities: &[Capacity]) -> Vec<Class> {
    let mut kinds: BTreeMap<_, Vec<(Capacity, usize)>> = BTreeMap::new();
    for (cpu, &capacity) in facts.iter().zip(capacities) {
        let opps = cpu.policy.as_ref().and_then(|policy| policy.opps.as_ref());
        let kind = kinds.entry((cpu.core_type, opps)).or_default();
        kind.push((capacity, cpu.id));
    }
    let mut classes: Vec<Class> = Vec::new();
    for ((core_type, _), mut members) in kinds {
        members.sort_by_key(|&(capacity, id)| (std::cmp::Reverse(capacity), id));
        let one_class = |bigger: &(Capacity, usize), smaller: &(Capacity, usize)| {
            let (bigger, smaller) = (u64::from(bigger.0), u64::from(smaller.0));
            smaller * 100 >= bigger * (100 - CLASS_GAP_PERCENT)
        };
        for members in members.chunk_by(one_class) {
            let mut cpus: Vec<usize> = members.iter().map(|&(_, id)| id).collect();
            cpus.sort_unstable();
            let capacity = members
                .first()
                .map_or(Capacity::MAX, |&(capacity, _)| capacity);
            classes.push(Class {
                capacity,
                core_type,
                cpus,
            });
        }
    }
    classes.sort_by_key(|class| (class.capacity, class.cpus.first().copied()));
    classes
}

fn domains(facts: &[CpuFacts], class_of: &BTreeMap<usize, usize>) -> Vec<Domain> {
    // Keyed by what makes two CPUs share: the policy's CPUs, or class and cache where there is none.
    let mut shares: BTreeMap<_, Domain> = BTreeMap::new();
    for cpu in facts {
        let key = match &cpu.policy {
            Some(policy) => (&policy.cpus, None),
            None => (&cpu.llc, Some(class_of.get(&cpu.id))),
        };
        let domain = shares.entry(key).or_insert_with(|| Domain {
            cpus: Vec::new(),
            policy: cpu.policy.clone(),
        });
        domain.cpus.push(cpu.id);
    }
    let mut domains: Vec<Domain> = shares.into_values().collect();
    domains.sort_by_key(|domain| domain.cpus.first().copied());
    domains
}

fn groups(
    facts: &[CpuFacts],
    class_of: &BTreeMap<usize, usize>,
    domain_of: &BTreeMap<usize, usize>,
    domains: &[Domain],
) -> Vec<Group> {
    // class and cache → cores, each a list of its threads.
    let mut whole: BTreeMap<_, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
    for cpu in facts {
        let class = class_of.get(&cpu.id).copied().unwrap_or_default();
        let core = cpu.siblings.first().copied().unwrap_or(cpu.id);
        let cores = whole.entry((class, &cpu.llc)).or_default();
        cores.entry(core).or_default().push(cpu.id);
    }
    let shares_a_clock = |cpus: &[usize]| {
        let mut of: Vec<_> = cpus.iter().map(|cpu| domain_of.get(cpu)).collect();
        of.dedup();
        let &[Some(&domain)] = of.as_slice() else {
            return false;
        };
        domains.get(domain).is_some_and(|domain| {
            let behind = domain
                .policy
                .as_ref()
                .map_or(&domain.cpus, |policy| &policy.cpus);
            behind.len() > 1
        })
    };
    let mut groups = Vec::new();
    for ((class, _), cores) in whole {
        for cpus in split(cores.into_values().collect()) {
            groups.push(Group {
                class,
                per_cpu_freq: !shares_a_clock(&cpus),
                cpus,
            });
        }
    }
    // Classes are in order of capacity.
    groups.sort_by_key(|group| (group.class, group.cpus.first().copied()));
    groups
}

/// Splits cores into the fewest even parts of at most [`MAX_GROUP`] CPUs; threads of a core stay
/// together.
fn split(cores: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let cores: Vec<&[usize]> = cores
        .iter()
        .flat_map(|core| core.chunks(MAX_GROUP))
        .collect();
    let cpus: usize = cores.iter().map(|core| core.len()).sum();
    let mut parts = cpus.div_ceil(MAX_GROUP).max(1);
    loop {
        let (small, larger) = (cores.len() / parts, cores.len() % parts);
        let mut rest = cores.as_slice();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for part in 0..parts {
            let (head, tail) = rest.split_at(small + usize::from(part < larger));
            let mut cpus = head.concat();
            cpus.sort_unstable();
            groups.push(cpus);
            rest = tail;
        }
        if parts >= cores.len() || groups.iter().all(|cpus| cpus.len() <= MAX_GROUP) {
            return groups;
        }
        parts += 1;
    }
}
