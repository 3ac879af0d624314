//! From the model to the published cost table, and the reference of what a placement costs by it.

use super::features::{ClassTerms, Row, Shape};
use super::power::{ClassPower, PowerModel};
use crate::observation::{ClassCost, CostTable, IdleCost, MAX_POWER_UW, MAX_WAKE_NJ, OppCost};
use num_traits::ToPrimitive;

/// Horizon over which the energy of a placement is counted, ns: one period of interactive work. A wake-up
/// is charged once, power for this long.
pub const HORIZON_NS: f64 = 16e6;
/// Room that a frequency governor leaves above the need, as schedutil does (kernel/sched/sched.h,
/// `map_util_perf`): 1.25 × the utilisation must fit.
pub const HEADROOM: f64 = 1.25;
/// A class is published again once one of its costs has moved by this part.
const HYSTERESIS: f64 = 0.02;

/// What runs on a class when one more task is to be placed there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClassLoad {
    /// CPUs online, at least 1.
    pub cpus: u16,
    /// Frequency domains, 1..=`cpus`.
    pub domains: u16,
    /// Sum of the tasks' utilisation, capacity units, 0..=1024 × `cpus`.
    pub util: f64,
    /// Largest need of one task, capacity units, 0..=1024.
    pub top: f64,
    /// Idle depth of the CPU that would be woken; `None` when it is busy already.
    pub idle_depth: Option<usize>,
    /// Whether its whole frequency domain sleeps.
    pub domain_asleep: bool,
}

/// How the state of a class differs with one more task: everything that the energy is linear in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Placement {
    /// (OPP, CPUs busy, domains active) without and with the task.
    before: (usize, f64, f64),
    after: (usize, f64, f64),
    idle_depth: Option<usize>,
    domain_asleep: bool,
}

/// The placement of a task of utilisation `util` on a class with these capacities; `None` when it does
/// not fit.
pub(super) fn placement(
    caps: impl Iterator<Item = f64> + Clone,
    load: &ClassLoad,
    util: f64,
) -> Option<Placement> {
    let cpus = f64::from(load.cpus.max(1));
    let domains = f64::from(load.domains.max(1));
    let state = |sum: f64, top: f64| {
        let need = HEADROOM * top.max(sum / cpus);
        let (opp, cap) = caps.clone().enumerate().find(|(_, cap)| *cap >= need)?;
        let busy = (sum / cap).min(cpus);
        // CPUs of a domain busy at independent times.
        let active = domains * (1.0 - (1.0 - busy / cpus).powf(cpus / domains));
        Some((opp, busy, active))
    };
    let after = state(load.util + util, load.top.max(util))?;
    let before = state(load.util, load.top)
        .filter(|_| load.util > 0.0)
        .unwrap_or((after.0, 0.0, 0.0));
    Some(Placement {
        before,
        after,
        idle_depth: load.idle_depth,
        domain_asleep: load.domain_asleep,
    })
}

impl Placement {
    fn wake(&self) -> f64 {
        if self.idle_depth.is_some() { 1.0 } else { 0.0 }
    }

    fn domain_wake(&self) -> f64 {
        if self.domain_asleep { 1.0 } else { 0.0 }
    }

    /// CPU time by which idle shrinks, in CPUs.
    fn idle_lost(&self) -> f64 {
        self.after.1 - self.before.1
    }

    /// Energy over the horizon as a functional of the parameters, J.
    pub fn row(&self, class: &ClassTerms) -> Row {
        let seconds = HORIZON_NS * 1e-9;
        let mut row = Row::default();
        for (sign, (opp, busy, active)) in [(-seconds, self.before), (seconds, self.after)] {
            row.push(class.busy + opp, sign * busy);
            if let Some(shared) = class.shared {
                row.push(shared, sign * active);
                let drive = class.drive.get(opp).copied().unwrap_or(0.0);
                row.push(shared + 1, sign * active * drive);
            }
        }
        if let Some(depth) = self.idle_depth {
            if let Some(&idle) = class.idle.get(depth) {
                row.push(idle, -seconds * self.idle_lost());
            }
            if let Some(&wake) = class.wake.get(depth) {
                row.push(wake, 1.0);
            }
        }
        if let Some(wake) = class.cluster_wake {
            row.push(wake, self.domain_wake());
        }
        row.normalised()
    }

    /// Energy over the horizon by a cost table's class, nJ.
    fn cost(&self, class: &ClassCost) -> Option<f64> {
        // 1 µW for 1 ms is 1 nJ.
        let milliseconds = HORIZON_NS * 1e-6;
        let power = |(opp, busy, active): (usize, f64, f64)| {
            let opp = class.opps.get(opp)?;
            Some(f64::from(opp.busy_uw) * busy + f64::from(opp.shared_uw) * active)
        };
        let idle = match self.idle_depth {
            Some(depth) if !class.idle.is_empty() => *class.idle.get(depth)?,
            _ => IdleCost::default(),
        };
        let saved = f64::from(idle.idle_uw) * self.idle_lost();
        Some(
            (power(self.after)? - power(self.before)? - saved) * milliseconds
                + self.wake() * f64::from(idle.wake_nj)
                + self.domain_wake() * f64::from(class.cluster_wake_nj),
        )
    }
}

/// ΔE in nJ over [`HORIZON_NS`] of placing a task of utilisation `util` (capacity units, 0..=1024) on
/// `class`: active power at the OPP then needed, shared power of the added active time, the lift of what
/// runs there already to a higher OPP, idle power saved, wake-ups. `None` when the task does not fit or
/// the table or loads have no such class or idle depth.
pub fn marginal_cost(
    table: &CostTable,
    loads: &[ClassLoad],
    class: usize,
    util: f64,
) -> Option<f64> {
    let cost = table.classes.get(class)?;
    let caps = cost.opps.iter().map(|opp| f64::from(opp.cap));
    placement(caps, loads.get(class)?, util)?.cost(cost)
}

/// The table as the model has it now.
fn table_of(shape: &Shape, model: &PowerModel, generation: u64) -> CostTable {
    let classes = shape.classes.iter().zip(&model.classes);
    let classes = classes
        .map(|(shape, power)| ClassCost {
            opps: (shape.opps.iter().zip(&power.busy_w).zip(&power.shared_w))
                .map(|((opp, &busy), &shared)| OppCost {
                    cap: u32::from(opp.cap.get()),
                    busy_uw: fixed(busy * 1e6, MAX_POWER_UW),
                    shared_uw: fixed(shared * 1e6, MAX_POWER_UW),
                })
                .collect(),
            idle: idle_costs(power),
            cluster_wake_nj: fixed(power.cluster_wake_j * 1e9, MAX_WAKE_NJ),
        })
        .collect();
    CostTable {
        generation,
        classes,
    }
}

fn idle_costs(power: &ClassPower) -> Vec<IdleCost> {
    (power.idle_w.iter().zip(&power.wake_j))
        .map(|(&idle, &wake)| IdleCost {
            idle_uw: fixed(idle * 1e6, MAX_POWER_UW),
            wake_nj: fixed(wake * 1e9, MAX_WAKE_NJ),
        })
        .collect()
}

/// The nearest integer in 0..=`most`; a value that is no number is 0.
fn fixed(value: f64, most: u32) -> u32 {
    let bounded = value.clamp(0.0, f64::from(most)).round();
    bounded.to_u32().unwrap_or(0)
}

/// Keeps the published table steady: a class changes only when a cost that placements see has moved by
/// more than [`HYSTERESIS`]. Single fields may drift against each other (shared against busy power)
/// without any placement seeing it.
#[derive(Clone, Debug, Default)]
pub(super) struct Publisher {
    table: Option<CostTable>,
}

impl Publisher {
    pub fn publish(&mut self, shape: &Shape, model: &PowerModel) -> CostTable {
        let published = self.table.take();
        let generation = published.as_ref().map_or(1, |table| table.generation);
        let mut table = table_of(shape, model, generation);
        if let Some(published) = published {
            let mut moved = false;
            for (new, old) in table.classes.iter_mut().zip(published.classes) {
                if differs(new, &old) {
                    moved = true;
                } else {
                    *new = old;
                }
            }
            table.generation += u64::from(moved);
        }
        self.table = Some(table.clone());
        table
    }
}

fn differs(new: &ClassCost, old: &ClassCost) -> bool {
    // Energies of 1 ms in nJ: a first and a second busy CPU per OPP, and each kind of wake-up, the latter
    // against the cheapest work that could follow it.
    let lowest = old
        .opps
        .first()
        .map_or(0, |opp| opp.busy_uw + opp.shared_uw);
    let scale = f64::from(lowest);
    let opps = new.opps.iter().zip(&old.opps).flat_map(|(new, old)| {
        let (nb, ob) = (f64::from(new.busy_uw), f64::from(old.busy_uw));
        let (ns, os) = (f64::from(new.shared_uw), f64::from(old.shared_uw));
        [(nb + ns, ob + os, 0.0), (nb, ob, 0.2 * (ob + os))]
    });
    let idle = new.idle.iter().zip(&old.idle).flat_map(|(new, old)| {
        [
            (f64::from(new.idle_uw), f64::from(old.idle_uw), scale),
            (f64::from(new.wake_nj), f64::from(old.wake_nj), scale),
        ]
    });
    let (nc, oc) = (
        f64::from(new.cluster_wake_nj),
        f64::from(old.cluster_wake_nj),
    );
    opps.chain(idle)
        .chain([(nc, oc, scale)])
        .any(|(new, old, floor)| (new - old).abs() > HYSTERESIS * old.max(floor))
}
