//! The least energy that a placement could have reached: what a scheduler that knew everything would do.
//!
//! Threads that run and wait for a timer, over and over, are placed on CPUs once for the whole run, and each clock
//! stays at one OPP. [`least`] finds the placement and OPPs of least energy by the machine file's physics
//! (`tests/lab/module/vsoc.h`): power of each OPP, what clusters share, two idle depths, sleep, wake-ups, floor.
//! It looks at all of them but for those that a proven bound rules out, so nothing is better within
//! its [terms](TERMS).
//!
//! Clusters do not influence each other once it is known which threads each has. So for each cluster and set of
//! threads the best plans are found (`site`), from the physics of their CPUs (`physics`), and then the best way
//! to divide all threads among the clusters.

mod jobs;
mod physics;
mod site;
#[cfg(test)]
mod tests;

use crate::machine::{Cluster, Machine};
use anyhow::{Context, Result, bail};
use jobs::{Jobs, Mask};
use joule_load::clock::SECOND_NS;
use joule_load::rtapp;
use physics::Fj;
use serde::Serialize;
use site::{Plan, Site, index, parts, sets};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// What the figure is, and what it leaves out.
pub const TERMS: &str = "one placement and one OPP per clock for the whole run, at most 80 % of each CPU used; \
    the seed's offsets and jitter; every activation done, first due, first served. Left out: the scheduler, \
    ticks and other interrupts, switches between threads and OPPs, migrations, whatever else runs. \
    Where cores have clocks of their own, what clusters share counts at its least.";

/// A placement may be this much slower than the scheduler it is held against.
const SLOWER: f64 = 1.05;

/// The placement of least energy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Oracle {
    /// Energy of the machine over the run, floor included.
    pub energy_j: f64,
    /// 99th percentile of its responses; null where no job is done.
    pub p99_ms: Option<f64>,
    /// Every CPU that is used.
    pub placement: Vec<Placed>,
    /// [`TERMS`].
    pub ignores: &'static str,
}

/// A CPU and what runs there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placed {
    /// The cluster's name; its CPUs are all alike.
    pub cluster: String,
    /// Clock.
    pub khz: u32,
    /// Threads by the names of their tasks.
    pub threads: Vec<String>,
}

/// Why there is no oracle for a cell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Inapplicable(pub String);

/// The least energy for a workload file on a machine over so many seconds, else as long as the file says; the
/// responses' 99th percentile at most 1.05 of `p99_limit_ms`, where that is given.
///
/// # Errors
/// The outer one for a file that is no workload, a limit that is no time, and a run of no length; the inner one
/// where no answer is known: the workload is not simply periodic or of no known length, the machine has SMT, no
/// placement is good enough, or there are too many of them.
pub fn least(
    machine: &Machine,
    workload: &Path,
    seed: u64,
    seconds: Option<u32>,
    p99_limit_ms: Option<f64>,
) -> Result<Result<Oracle, Inapplicable>> {
    if seconds == Some(0) {
        bail!("0 seconds: there is nothing to run");
    }
    let workload = rtapp::read(workload)?;
    let given_ns = seconds.map(|seconds| u64::from(seconds) * SECOND_NS);
    let Some(end_ns) = given_ns.or(workload.duration_ns) else {
        return Ok(Err(Inapplicable("it says no duration".to_owned())));
    };
    let limit_ns = p99_limit_ms.map(limit_ns).transpose()?;
    if machine.clusters.iter().any(|cluster| cluster.smt.is_some()) {
        return Ok(Err(Inapplicable(
            "threads that share a core are not modelled".to_owned(),
        )));
    }
    Ok(Jobs::new(&workload, seed, end_ns)
        .and_then(|jobs| Division::new(machine, &jobs, limit_ns).least()))
}

fn limit_ns(p99_ms: f64) -> Result<u64> {
    let limit = Duration::try_from_secs_f64(p99_ms * SLOWER / 1000.0);
    let limit_ns = limit.map(|limit| u64::try_from(limit.as_nanos()));
    limit_ns
        .with_context(|| format!("a p99 of {p99_ms} ms is no response time"))?
        .with_context(|| format!("a p99 of {p99_ms} ms is too long"))
}

/// All plans below an energy that may be part of the best, and perhaps some above.
type Known = (Fj, Rc<Vec<Plan>>);

/// The search for the best way to divide threads among clusters.
struct Division<'a> {
    machine: &'a Machine,
    jobs: &'a Jobs,
    sites: Vec<Site<'a>>,
    most_late: usize,
    /// By cluster and set: what this cluster and all later ones take at least for the set.
    bounds: Vec<Vec<Option<Fj>>>,
    /// By cluster and set.
    plans: HashMap<(usize, Mask), Known>,
    looked: usize,
    best: Option<(Fj, Vec<Plan>)>,
}

impl<'a> Division<'a> {
    fn new(machine: &'a Machine, jobs: &'a Jobs, limit_ns: Option<u64>) -> Self {
        // the 99th percentile is the smallest value that 99 % of the responses do not exceed
        let count = jobs.jobs.len();
        let most_late = count - count.saturating_mul(99).div_ceil(100);
        let clusters = machine.clusters.iter();
        let sites: Vec<_> = clusters
            .map(|cluster| Site::new(machine, cluster, jobs, limit_ns, most_late))
            .collect();
        let mut bounds = vec![Self::nothing_left(jobs)];
        for site in sites.iter().rev() {
            let later = bounds.last().map_or(&[][..], Vec::as_slice);
            let least = |mask| {
                let shares = parts(mask).filter_map(|part| {
                    Some(site.bound_fj(part)? + (*later.get(index(mask ^ part))?)?)
                });
                shares.min()
            };
            let of_all = sets(jobs).map(least).collect();
            bounds.push(of_all);
        }
        bounds.reverse();
        Self {
            machine,
            jobs,
            sites,
            most_late,
            bounds,
            plans: HashMap::new(),
            looked: 0,
            best: None,
        }
    }

    fn nothing_left(jobs: &Jobs) -> Vec<Option<Fj>> {
        let energy = |mask| (mask == 0).then_some(0);
        sets(jobs).map(energy).collect()
    }

    fn least(mut self) -> Result<Oracle, Inapplicable> {
        let all = sets(self.jobs).end - 1;
        self.divide(0, all, 0, 0, &mut Vec::new())?;
        match self.best.take() {
            Some((energy_fj, plans)) => self.oracle(energy_fj, &plans),
            None => Err(Inapplicable(
                "no placement keeps within the load and the response time".to_owned(),
            )),
        }
    }

    fn divide(
        &mut self,
        cluster: usize,
        rest: Mask,
        taken_fj: Fj,
        late: usize,
        chosen: &mut Vec<Plan>,
    ) -> Result<(), Inapplicable> {
        if cluster == self.sites.len() {
            if rest == 0 && self.improves(taken_fj) {
                self.best = Some((taken_fj, chosen.clone()));
            }
            return Ok(());
        }
        let mut shares: Vec<(Fj, Mask)> = parts(rest)
            .filter_map(|part| {
                let here = self.sites.get(cluster)?.bound_fj(part)?;
                let later = self.bound_fj(cluster + 1, rest ^ part)?;
                Some((taken_fj + here + later, part))
            })
            .collect();
        shares.sort_unstable();
        for (bound_fj, part) in shares {
            if !self.improves(bound_fj) {
                break;
            }
            let later_fj = self.bound_fj(cluster + 1, rest ^ part).unwrap_or(0);
            let room_fj = self.best_fj().saturating_sub(taken_fj + later_fj);
            for plan in self.plans(cluster, part, room_fj)?.iter() {
                let taken_fj = taken_fj + plan.energy_fj;
                let late = late + plan.late;
                if late > self.most_late || !self.improves(taken_fj + later_fj) {
                    continue;
                }
                chosen.push(plan.clone());
                self.divide(cluster + 1, rest ^ part, taken_fj, late, chosen)?;
                chosen.pop();
            }
        }
        Ok(())
    }

    fn improves(&self, energy_fj: Fj) -> bool {
        energy_fj < self.best_fj()
    }

    fn best_fj(&self) -> Fj {
        self.best.as_ref().map_or(Fj::MAX, |(best, _)| *best)
    }

    fn bound_fj(&self, cluster: usize, mask: Mask) -> Option<Fj> {
        *self.bounds.get(cluster)?.get(index(mask))?
    }

    /// See [`Known`].
    fn plans(
        &mut self,
        cluster: usize,
        mask: Mask,
        below_fj: Fj,
    ) -> Result<Rc<Vec<Plan>>, Inapplicable> {
        if let Some((known_fj, plans)) = self.plans.get(&(cluster, mask))
            && *known_fj >= below_fj
        {
            return Ok(Rc::clone(plans));
        }
        let plans = match self.sites.get(cluster) {
            Some(site) => Rc::new(site.plans(mask, below_fj, &mut self.looked)?),
            None => Rc::default(),
        };
        let known = (below_fj, Rc::clone(&plans));
        self.plans.insert((cluster, mask), known);
        Ok(plans)
    }

    fn oracle(&self, energy_fj: Fj, plans: &[Plan]) -> Result<Oracle, Inapplicable> {
        let floor_fj = Fj::from(self.machine.floor_uw) * Fj::from(self.jobs.end_ns);
        let energy_j = joules(energy_fj + floor_fj)
            .ok_or_else(|| Inapplicable("more energy than can be told".to_owned()))?;
        let clusters = self.machine.clusters.iter().zip(plans);
        let placed = clusters.flat_map(|(cluster, plan)| {
            let cpus = plan.cpus.iter();
            cpus.filter_map(move |&(mask, opp)| Some((cluster, mask, cluster.opps.get(opp)?)))
        });
        let placed: Vec<_> = placed.collect();
        let cpus: Vec<_> = placed.iter().map(|&(_, mask, opp)| (mask, opp)).collect();
        let placement = placed
            .iter()
            .map(|&(cluster, mask, opp)| self.placed(cluster, mask, opp.khz))
            .collect();
        Ok(Oracle {
            energy_j,
            p99_ms: p99_ms(physics::responses_ns(self.jobs, &cpus)),
            placement,
            ignores: TERMS,
        })
    }

    fn placed(&self, cluster: &Cluster, mask: Mask, khz: u32) -> Placed {
        let threads = self.jobs.threads.iter().enumerate();
        Placed {
            cluster: cluster.name.clone(),
            khz,
            threads: threads
                .filter(|(thread, _)| mask >> thread & 1 == 1)
                .map(|(_, it)| it.name.clone())
                .collect(),
        }
    }
}

/// Nearest rank and whole microseconds, as joule-load has it.
fn p99_ms(mut responses_ns: Vec<u64>) -> Option<f64> {
    responses_ns.sort_unstable();
    let rank = responses_ns.len().checked_mul(99)?.div_ceil(100);
    let ns = *responses_ns.get(rank.checked_sub(1)?)?;
    Some(f64::from(u32::try_from(ns / 1000).ok()?) / 1000.0)
}

/// Femtojoules as joules, to the microjoule; `None` from 4 GJ.
fn joules(fj: Fj) -> Option<f64> {
    let uj = fj / 1_000_000_000;
    let whole = u32::try_from(uj / 1_000_000).ok()?;
    let part = u32::try_from(uj % 1_000_000).ok()?;
    Some((f64::from(whole) * 1e6 + f64::from(part)) / 1e6)
}
