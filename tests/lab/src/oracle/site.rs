//! One cluster as a place for threads: which plans it has for a set of them, and which are worth having.

use super::Inapplicable;
use super::jobs::{Jobs, Mask};
use super::physics::{Block, Fj, shared_fj, unused_fj};
use crate::machine::{Cluster, Machine, Mode, Opp};
use std::ops::Range;

/// A CPU is loaded up to this share of its capacity: above it responses grow without bound, and the kernel's
/// governor asks for a quarter more than is used.
const LOAD_PERMILLE: u64 = 800;

/// Plans looked at in full in one search, some microseconds each; a search that needs more is given up.
const MOST_PLANS: usize = 200_000;

/// Where a set of threads runs within a cluster, and what that takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Threads and index of the OPP of each CPU that is used.
    pub cpus: Vec<(Mask, usize)>,
    /// Of the cores and the cluster.
    pub energy_fj: Fj,
    /// Responses above the limit.
    pub late: usize,
}

/// A cluster, with what each set of threads would take on one of its CPUs.
pub(super) struct Site<'a> {
    jobs: &'a Jobs,
    cluster: &'a Cluster,
    /// Whether each core has a clock of its own.
    own_clocks: bool,
    /// By OPP and set of threads; `None` where the load is too high.
    blocks: Vec<Vec<Option<Block>>>,
    /// By OPP and set: no division of the set among CPUs at this OPP draws less in cores.
    cores_fj: Vec<Vec<Option<Fj>>>,
    /// Late responses that can be borne.
    pub most_late: usize,
    /// Least energy that any plan for a set could take; `None` where there is no plan.
    bounds: Vec<Option<Fj>>,
}

impl<'a> Site<'a> {
    /// Looks at every set of threads on one CPU, at every OPP.
    pub fn new(
        machine: &Machine,
        cluster: &'a Cluster,
        jobs: &'a Jobs,
        limit_ns: Option<u64>,
        most_late: usize,
    ) -> Self {
        let mut site = Self {
            jobs,
            cluster,
            own_clocks: machine.mode == Mode::HardwareManaged,
            blocks: Vec::new(),
            cores_fj: Vec::new(),
            most_late,
            bounds: Vec::new(),
        };
        for opp in &cluster.opps {
            let shared_uw = site.shared_uw(opp);
            let limit_ucap = u64::from(opp.capacity) * LOAD_PERMILLE * 1000;
            let block = |mask| {
                let fits = mask != 0 && need_ucap(jobs, mask) <= limit_ucap;
                let block = fits.then(|| Block::new(jobs, mask, cluster, opp, shared_uw, limit_ns));
                block.filter(|block| block.late <= most_late)
            };
            site.blocks.push(sets(jobs).map(block).collect());
        }
        site.cores_fj = site.least_cores_fj();
        site.bounds = sets(jobs).map(|mask| site.least_bound_fj(mask)).collect();
        site
    }

    /// The least that a plan for this set of threads could take.
    pub fn bound_fj(&self, mask: Mask) -> Option<Fj> {
        *self.bounds.get(index(mask))?
    }

    /// The plans for a set of threads below this energy, of which no other takes less with no more late responses;
    /// `looked` counts the plans looked at.
    ///
    /// # Errors
    /// When too many would have to be looked at.
    pub fn plans(
        &self,
        mask: Mask,
        below_fj: Fj,
        looked: &mut usize,
    ) -> Result<Vec<Plan>, Inapplicable> {
        let mut front: Vec<Plan> = Vec::new();
        // a good plan to begin with makes most others not worth a look
        let mut first: Option<(Fj, Vec<(Mask, usize)>)> = None;
        let mut search = Search::new(self);
        search.each(mask, &mut |partial, bound_fj, complete| {
            let better = bound_fj < first.as_ref().map_or(below_fj, |(best, _)| *best);
            if better && complete {
                first = Some((bound_fj, partial.cpus.clone()));
            }
            better
        });
        if let Some((_, cpus)) = first {
            front.push(self.plan(&cpus));
        }
        search.each(mask, &mut |partial, bound_fj, complete| {
            let beaten = |plan: &Plan| plan.energy_fj <= bound_fj && plan.late <= partial.late;
            if *looked > MOST_PLANS || bound_fj >= below_fj || front.iter().any(beaten) {
                return false;
            }
            if complete {
                *looked += 1;
                let plan = self.plan(&partial.cpus);
                let beats = |it: &Plan, other: &Plan| {
                    it.energy_fj <= other.energy_fj && it.late <= other.late
                };
                if !front.iter().any(|it| beats(it, &plan)) {
                    front.retain(|it| !beats(&plan, it));
                    front.push(plan);
                }
            }
            true
        });
        if *looked > MOST_PLANS {
            return Err(Inapplicable(format!(
                "more than {MOST_PLANS} placements would have to be looked at"
            )));
        }
        front.sort_by_key(|plan| plan.energy_fj);
        Ok(front)
    }

    fn plan(&self, cpus: &[(Mask, usize)]) -> Plan {
        let blocks = || cpus.iter().filter_map(|&(mask, opp)| self.block(mask, opp));
        let unused =
            u128::try_from(self.cluster.cpus.len().saturating_sub(cpus.len())).unwrap_or(0);
        let opps: Vec<(Mask, &Opp)> = cpus
            .iter()
            .filter_map(|&(mask, opp)| Some((mask, self.cluster.opps.get(opp)?)))
            .collect();
        let on_uw = opps.iter().map(|(_, opp)| self.shared_uw(opp)).max();
        let shared = shared_fj(self.jobs, &opps, self.cluster, on_uw.unwrap_or(0));
        let cores: Fj = blocks().map(|block| block.core_fj).sum();
        Plan {
            cpus: cpus.to_vec(),
            energy_fj: cores + shared + unused * unused_fj(self.cluster, self.jobs.end_ns),
            late: blocks().map(|block| block.late).sum(),
        }
    }

    /// Shared power while on. Where each core has a clock of its own it changes with who is awake: the least
    /// there is counts, which no governor can undercut.
    fn shared_uw(&self, opp: &Opp) -> u32 {
        if self.own_clocks {
            let opps = self.cluster.opps.iter();
            opps.map(|opp| opp.shared_uw).min().unwrap_or(0)
        } else {
            opp.shared_uw
        }
    }

    fn block(&self, mask: Mask, opp: usize) -> Option<&Block> {
        self.blocks.get(opp)?.get(index(mask))?.as_ref()
    }

    /// Best division of each set into any number of CPUs, by the CPU that has the set's first thread.
    fn least_cores_fj(&self) -> Vec<Vec<Option<Fj>>> {
        let one_clock = |opp: usize| -> Vec<Option<Fj>> {
            self.divided(|mask| Some(self.block(mask, opp)?.core_fj))
        };
        let any_clock = || {
            let opps = 0..self.cluster.opps.len();
            self.divided(|mask| {
                let blocks = opps.clone().filter_map(|opp| self.block(mask, opp));
                blocks.map(|block| block.core_fj).min()
            })
        };
        if self.own_clocks {
            vec![any_clock()]
        } else {
            (0..self.cluster.opps.len()).map(one_clock).collect()
        }
    }

    fn divided(&self, one_cpu: impl Fn(Mask) -> Option<Fj>) -> Vec<Option<Fj>> {
        let single: Vec<Option<Fj>> = sets(self.jobs).map(one_cpu).collect();
        let mut least: Vec<Option<Fj>> = vec![Some(0)];
        for mask in sets(self.jobs).skip(1) {
            let divisions = with_first(mask).filter_map(|block| {
                let here = (*single.get(index(block))?)?;
                Some(here + (*least.get(index(mask ^ block))?)?)
            });
            least.push(divisions.min());
        }
        least
    }

    /// The least for cores on however many CPUs, and of what is shared the most that one of the threads alone causes:
    /// with others on its CPU that one is busy whenever it would be alone, and longer.
    fn least_bound_fj(&self, mask: Mask) -> Option<Fj> {
        if mask == 0 {
            return Some(self.plan(&[]).energy_fj);
        }
        let shared_fj = |thread: Mask, opps: Range<usize>| {
            let alone = opps.filter_map(|opp| Some(self.block(thread, opp)?.shared_bound_fj));
            alone.min()
        };
        let clocks = self.cores_fj.iter().enumerate();
        let bounds = clocks.filter_map(|(opp, cores_fj)| {
            let opps = if self.own_clocks {
                0..self.cluster.opps.len()
            } else {
                opp..opp + 1
            };
            let threads = each(mask).map(|thread| shared_fj(thread, opps.clone()).unwrap_or(0));
            Some((*cores_fj.get(index(mask))?)? + threads.max()?)
        });
        bounds.min()
    }
}

/// A division of threads among CPUs, begun.
#[derive(Clone, Debug, Default)]
struct Partial {
    cpus: Vec<(Mask, usize)>,
    cores_fj: Fj,
    shared_bound_fj: Fj,
    late: usize,
}

/// Goes through the divisions of a set among a cluster's CPUs, which are all alike: the next CPU always takes the
/// first of the threads that are left, so none comes twice.
struct Search<'a> {
    site: &'a Site<'a>,
    partial: Partial,
}

/// Told a division, what it takes at least with all that may follow, and whether all threads have a CPU; answers
/// whether to go on from there.
type Visit<'v> = dyn FnMut(&Partial, Fj, bool) -> bool + 'v;

impl<'a> Search<'a> {
    fn new(site: &'a Site<'a>) -> Self {
        Self {
            site,
            partial: Partial::default(),
        }
    }

    fn each(&mut self, mask: Mask, visit: &mut Visit<'_>) {
        if mask == 0 {
            let site = self.site;
            let empty = site.plan(&[]).energy_fj;
            visit(&self.partial, empty, true);
            return;
        }
        self.extend(mask, visit);
    }

    fn extend(&mut self, rest: Mask, visit: &mut Visit<'_>) {
        let site = self.site;
        if self.partial.cpus.len() >= site.cluster.cpus.len() {
            return;
        }
        let opps = match self.partial.cpus.first() {
            Some((_, opp)) if !site.own_clocks => *opp..opp + 1,
            _ => 0..site.cluster.opps.len(),
        };
        for opp in opps {
            for block in with_first(rest) {
                self.with(block, opp, rest ^ block, visit);
            }
        }
    }

    fn with(&mut self, mask: Mask, opp: usize, rest: Mask, visit: &mut Visit<'_>) {
        let site = self.site;
        let Some(block) = site.block(mask, opp) else {
            return;
        };
        let clock = if site.own_clocks { 0 } else { opp };
        let cores_fj = site
            .cores_fj
            .get(clock)
            .and_then(|of| *of.get(index(rest))?);
        let Some(rest_fj) = cores_fj else {
            return;
        };
        let before = (
            self.partial.cores_fj,
            self.partial.shared_bound_fj,
            self.partial.late,
        );
        self.partial.cpus.push((mask, opp));
        self.partial.cores_fj += block.core_fj;
        self.partial.shared_bound_fj = before.1.max(block.shared_bound_fj);
        self.partial.late += block.late;
        if self.partial.late <= site.most_late {
            let unused_fj = if rest == 0 {
                let unused = site.cluster.cpus.len() - self.partial.cpus.len();
                u128::try_from(unused).unwrap_or(0) * unused_fj(site.cluster, site.jobs.end_ns)
            } else {
                0
            };
            let bound_fj =
                self.partial.cores_fj + rest_fj + self.partial.shared_bound_fj + unused_fj;
            if visit(&self.partial, bound_fj, rest == 0) && rest != 0 {
                self.extend(rest, visit);
            }
        }
        self.partial.cpus.pop();
        (
            self.partial.cores_fj,
            self.partial.shared_bound_fj,
            self.partial.late,
        ) = before;
    }
}

/// Every set of threads, ascending.
pub(super) fn sets(jobs: &Jobs) -> std::ops::Range<Mask> {
    0..1 << jobs.threads.len()
}

/// Every part of a set, the whole and nothing included.
pub(super) fn parts(mask: Mask) -> impl Iterator<Item = Mask> {
    let mut next = Some(mask);
    std::iter::from_fn(move || {
        let part = next?;
        next = part.checked_sub(1).map(|lower| lower & mask);
        Some(part)
    })
}

/// Every thread of a set.
fn each(mask: Mask) -> impl Iterator<Item = Mask> {
    let threads = (0..Mask::BITS).map(|thread| 1 << thread);
    threads.filter(move |thread| mask & thread != 0)
}

/// Every part of a set that has its first thread.
fn with_first(mask: Mask) -> impl Iterator<Item = Mask> {
    let first = mask & mask.wrapping_neg();
    parts(mask ^ first).map(move |part| part | first)
}

/// A set as an index.
pub(super) fn index(mask: Mask) -> usize {
    usize::try_from(mask).unwrap_or(usize::MAX)
}

fn need_ucap(jobs: &Jobs, mask: Mask) -> u64 {
    let of = jobs.threads.iter().enumerate();
    of.filter(|(thread, _)| mask >> thread & 1 == 1)
        .fold(0, |sum, (_, it)| sum.saturating_add(it.need_ucap))
}
