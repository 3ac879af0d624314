//! From the model to the published cost table, and the reference of what a placement costs by it.

use super::features::{ClassTerms, Row, Shape};
use super::power::{ClassPower, PowerModel};
use crate::observation::{
    ClassCost, CostTable, Home, IdleCost, MAX_POWER_UW, MAX_WAKE_NJ, OppCost,
};
use num_traits::ToPrimitive;

/// Horizon over which the energy of a placement is counted, ns: one period of interactive work. A wake-up
/// is charged once, power for this long.
pub const HORIZON_NS: f64 = 16e6;
/// Room that a frequency governor leaves above the need, as schedutil does (kernel/sched/sched.h,
/// `map_util_perf`): 1.25 × the utilisation must fit.
pub const HEADROOM: f64 = 1.25;
/// A class is published again once one of its costs has moved by this part.
const HYSTERESIS: f64 = 0.03;

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
        home: None,
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
    pub fn publish(&mut self, shape: &Shape, model: &PowerModel, home: Option<Home>) -> CostTable {
        let published = self.table.take();
        let generation = published.as_ref().map_or(1, |table| table.generation);
        let mut table = table_of(shape, model, generation);
        table.home = home;
        if let Some(published) = published {
            let mut moved = table.home != published.home;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClassShape, OppShape};
    use crate::units::{Capacity, KHz};

    fn class_cost() -> ClassCost {
        let opp = |cap, busy_uw, shared_uw| OppCost {
            cap,
            busy_uw,
            shared_uw,
        };
        ClassCost {
            opps: vec![opp(256, 50_000, 10_000), opp(512, 200_000, 20_000)],
            idle: vec![
                IdleCost {
                    idle_uw: 4_000,
                    wake_nj: 1_000,
                },
                IdleCost {
                    idle_uw: 0,
                    wake_nj: 20_000,
                },
            ],
            cluster_wake_nj: 100_000,
        }
    }

    fn table() -> CostTable {
        CostTable {
            generation: 1,
            classes: vec![class_cost()],
            home: None,
        }
    }

    fn empty() -> ClassLoad {
        ClassLoad {
            cpus: 2,
            domains: 1,
            ..ClassLoad::default()
        }
    }

    fn cost(load: ClassLoad, util: f64) -> f64 {
        marginal_cost(&table(), &[load], 0, util).unwrap()
    }

    #[test]
    fn a_small_task_on_an_empty_domain_pays_busy_and_shared_power() {
        // 64 of 256 keeps one of two CPUs busy a quarter of the time; each CPU an eighth, so the domain
        // is active 1 − (7/8)². 16 ms.
        let expected = 16.0 * (50_000.0 * 0.25 + 10_000.0 * (1.0 - 0.875_f64.powi(2)));
        assert!((cost(empty(), 64.0) - expected).abs() < 1e-6);
    }

    #[test]
    fn waking_costs_what_the_table_says_and_saves_idle_power() {
        let awake = cost(empty(), 64.0);
        let shallow = ClassLoad {
            idle_depth: Some(0),
            ..empty()
        };
        assert!((cost(shallow, 64.0) - awake - 1_000.0 + 16.0 * 4_000.0 * 0.25).abs() < 1e-6);
        let asleep = ClassLoad {
            idle_depth: Some(1),
            domain_asleep: true,
            ..empty()
        };
        assert!((cost(asleep, 64.0) - awake - 120_000.0).abs() < 1e-6);
    }

    #[test]
    fn lifting_the_others_to_a_higher_opp_is_charged_to_the_newcomer() {
        let load = ClassLoad {
            util: 200.0,
            top: 100.0,
            ..empty()
        };
        let with = |util: f64, cap: f64, busy: f64, shared: f64| {
            let each: f64 = util / cap / 2.0;
            busy * 2.0 * each + shared * (1.0 - (1.0 - each).powi(2))
        };
        let before = with(200.0, 256.0, 50_000.0, 10_000.0);
        let after = with(450.0, 512.0, 200_000.0, 20_000.0);
        assert!((cost(load, 250.0) - 16.0 * (after - before)).abs() < 1e-6);
    }

    #[test]
    fn what_does_not_fit_has_no_cost() {
        assert_eq!(marginal_cost(&table(), &[empty()], 0, 410.0), None);
        assert!(marginal_cost(&table(), &[empty()], 0, 409.0).is_some());
        assert_eq!(marginal_cost(&table(), &[empty()], 1, 1.0), None);
        assert_eq!(marginal_cost(&table(), &[], 0, 1.0), None);
        let odd = ClassLoad {
            idle_depth: Some(2),
            ..empty()
        };
        assert_eq!(marginal_cost(&table(), &[odd], 0, 1.0), None);
    }

    fn shape() -> Shape {
        let opp = |khz, cap| OppShape {
            khz: KHz::new(khz),
            cap: Capacity::new(cap).unwrap(),
            microvolt: None,
        };
        Shape {
            classes: vec![ClassShape {
                cpus: 2,
                domains: 1,
                opps: vec![opp(1_000_000, 512), opp(2_000_000, 1024)],
                idle_depths: 2,
                cluster_wakes: true,
                smt: false,
            }],
        }
    }

    fn power(factor: f64) -> PowerModel {
        PowerModel {
            base_w: [0.2; 3],
            classes: vec![ClassPower {
                busy_w: vec![0.1 * factor, 0.4 * factor],
                shared_w: vec![0.02, 0.05],
                idle_w: vec![0.005, 0.0],
                wake_j: vec![1e-6, 2e-5],
                cluster_wake_j: 1e-4,
                sibling_w: Vec::new(),
            }],
        }
    }

    #[test]
    fn the_table_changes_when_costs_move_and_rests_when_they_tremble() {
        let mut publisher = Publisher::default();
        let first = publisher.publish(&shape(), &power(1.0), None);
        assert_eq!(first.check(), Ok(()));
        for factor in [1.02, 0.98, 1.025, 0.99, 1.0] {
            assert_eq!(publisher.publish(&shape(), &power(factor), None), first);
        }
        let moved = publisher.publish(&shape(), &power(1.1), None);
        assert_eq!(moved.generation, first.generation + 1);
        assert_eq!(moved.classes[0].opps[0].busy_uw, 110_000);
    }

    #[test]
    fn shared_and_busy_power_may_trade_within_what_placements_see() {
        let mut publisher = Publisher::default();
        let first = publisher.publish(&shape(), &power(1.0), None);
        let mut traded = power(1.0);
        let class = &mut traded.classes[0];
        class.busy_w[1] -= 0.002;
        class.shared_w[1] += 0.002;
        assert_eq!(publisher.publish(&shape(), &traded, None), first);
    }

    #[test]
    fn no_power_leaves_the_tables_range() {
        for value in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let mut model = power(1.0);
            model.classes[0].busy_w[0] = value;
            model.classes[0].wake_j[1] = value;
            assert_eq!(table_of(&shape(), &model, 1).check(), Ok(()), "{value}");
        }
    }
}
