//! What placements cost by the Energy Model, against the least that any could have cost.
//!
//! Only where tasks were is taken from what happened: what they use is known from the workload, and clocks
//! are as they should have been.

use super::workload::{Behaviour, MARGIN};
use crate::machine::{Cluster, Machine};
use std::collections::HashMap;

/// A task was switched to.
#[derive(Clone, Debug, PartialEq)]
pub struct Ran {
    /// On the clock of the common start.
    pub at_s: f64,
    /// Where.
    pub cpu: usize,
    /// Who, by index.
    pub task: usize,
}

/// Energy by the model over the time that is judged, in its own unit times seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Energy {
    /// Of the placements that were.
    pub estimated: f64,
    /// Of the best ones.
    pub least: f64,
}

impl Energy {
    /// By how much what was is above the best, %.
    pub fn above_pct(&self) -> f64 {
        100.0 * (self.estimated / self.least - 1.0)
    }
}

/// Judges the placements of a behaviour from when all tasks are past their first phase until one is done.
///
/// # Errors
/// When a task never ran before, or no placement at all fits the tasks.
pub fn energy(
    machine: &Machine,
    behaviour: &Behaviour,
    start_s: f64,
    seed: u64,
    events: &[Ran],
) -> Result<Energy, String> {
    let timeline: Vec<Vec<f64>> = behaviour
        .timeline_s(seed)
        .into_iter()
        .map(|times| times.into_iter().map(|at_s| start_s + at_s).collect())
        .collect();
    let begins = timeline.iter().filter_map(|times| times.get(1));
    let begin_s = begins.copied().fold(f64::NEG_INFINITY, f64::max);
    let ends = timeline.iter().filter_map(|times| times.last());
    let end_s = ends.copied().fold(f64::INFINITY, f64::min);

    let mut moments: Vec<f64> = timeline.iter().flatten().copied().collect();
    moments.extend(events.iter().map(|event| event.at_s));
    moments.extend([begin_s, end_s]);
    moments.retain(|at_s| (begin_s..=end_s).contains(at_s));
    moments.sort_by(f64::total_cmp);
    let mut sorted: Vec<&Ran> = events.iter().collect();
    sorted.sort_by(|left, right| left.at_s.total_cmp(&right.at_s));

    let mut sum = Energy {
        estimated: 0.0,
        least: 0.0,
    };
    let mut known: HashMap<Vec<usize>, f64> = HashMap::new();
    let mut cpu_of: Vec<Option<usize>> = vec![None; behaviour.tasks.len()];
    let mut coming = sorted.into_iter().peekable();
    for pair in moments.windows(2) {
        let &[from_s, to_s] = pair else { continue };
        while let Some(event) = coming.next_if(|event| event.at_s <= from_s) {
            if let Some(cpu) = cpu_of.get_mut(event.task) {
                *cpu = Some(event.cpu);
            }
        }
        if to_s <= from_s {
            continue;
        }
        let phases: Vec<usize> = timeline
            .iter()
            .map(|times| {
                times
                    .iter()
                    .filter(|&&at_s| at_s <= from_s)
                    .count()
                    .saturating_sub(1)
            })
            .collect();
        let utils: Vec<f64> = (behaviour.tasks.iter().zip(&phases))
            .filter_map(|(task, &phase)| Some(task.phases.get(phase)?.util()))
            .collect();
        let mut cpus = vec![0.0; machine.nr_cpus()];
        for ((task, util), cpu) in behaviour.tasks.iter().zip(&utils).zip(&cpu_of) {
            let cpu = cpu.ok_or_else(|| format!("{} ran nowhere at first", task.name))?;
            let used = cpus
                .get_mut(cpu)
                .ok_or_else(|| format!("{cpu} is no CPU"))?;
            *used += *util;
        }
        let least = match known.get(&phases) {
            Some(least) => *least,
            None => {
                let least = least_power(machine, &utils)
                    .ok_or("no placement keeps every CPU below 80 % of its capacity")?;
                known.insert(phases, least);
                least
            }
        };
        sum.estimated += power(machine, &cpus) * (to_s - from_s);
        sum.least += least * (to_s - from_s);
    }
    if sum.least > 0.0 {
        Ok(sum)
    } else {
        Err("there was nothing to judge".to_owned())
    }
}

/// By the Energy Model, of CPUs that are used so much: each cluster at the lowest OPP that holds what its most used
/// CPU uses, with the margin.
pub fn power(machine: &Machine, used: &[f64]) -> f64 {
    machine
        .clusters
        .iter()
        .map(|cluster| cluster_power(cluster, used))
        .sum()
}

fn cluster_power(cluster: &Cluster, used: &[f64]) -> f64 {
    let cpus = cluster.cpus.iter();
    let cpus = cpus.filter_map(|&cpu| used.get(usize::try_from(cpu).ok()?).copied());
    let highest = cpus.clone().fold(0.0, f64::max);
    let mut opps = cluster.opps.iter();
    let fitting = opps.find(|opp| f64::from(opp.capacity) >= highest * MARGIN);
    let Some(opp) = fitting.or(cluster.opps.last()) else {
        return 0.0;
    };
    let mw = f64::from(opp.busy_uw) * f64::from(cluster.em_permille) / 1e6;
    let busy: f64 = cpus
        .map(|used| (used / f64::from(opp.capacity)).min(1.0))
        .sum();
    mw * busy
}

/// The least power of all placements that keep every CPU below its capacity with the margin.
fn least_power(machine: &Machine, utils: &[f64]) -> Option<f64> {
    let mut used = vec![0.0; machine.nr_cpus()];
    let mut least = None;
    place(machine, utils, &mut used, &mut least);
    least
}

/// Tries every CPU for the first of the tasks left; of a cluster's unused CPUs, which are alike, one.
fn place(machine: &Machine, utils: &[f64], used: &mut Vec<f64>, least: &mut Option<f64>) {
    let Some((util, rest)) = utils.split_first() else {
        let power = power(machine, used);
        *least = Some(least.map_or(power, |least: f64| least.min(power)));
        return;
    };
    for cluster in &machine.clusters {
        let most = f64::from(cluster.capacity()) / MARGIN;
        let mut unused_tried = false;
        for cpu in cluster
            .cpus
            .iter()
            .filter_map(|&cpu| usize::try_from(cpu).ok())
        {
            let Some(before) = used.get(cpu).copied() else {
                continue;
            };
            if before + util > most || (before == 0.0 && unused_tried) {
                continue;
            }
            unused_tried |= before == 0.0;
            if let Some(slot) = used.get_mut(cpu) {
                *slot = before + util;
            }
            place(machine, rest, used, least);
            if let Some(slot) = used.get_mut(cpu) {
                *slot = before;
            }
        }
    }
}
