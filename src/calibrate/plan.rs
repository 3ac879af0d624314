//! What to do in which order, so that the fit has full rank: every operating point with one busy CPU and with
//! all, so that what a CPU draws and what its cluster shares come apart. Each point with one CPU is visited
//! twice, at different times: what drifts shows as noise.
//!
//! What is drawn always is told by two classes, at work together and each alone: the sum of the two less both.
//! An idle machine would not tell it: its own work, which wakes idle CPUs there, goes to a busy CPU where there is
//! one, and costs next to nothing (in the lab 3 mW less, a tenth of what a phone's least operating point draws).
//! Only where there is one class, or where a clock cannot be set, idle visits have to do.

use crate::model::Shape;
use crate::topology::{Class, Topology};
use crate::units::KHz;

/// Visits of an idle machine before the first class.
pub const IDLE_FIRST: usize = 4;
/// Visits for what is drawn always, after each class.
const ALWAYS: usize = 2;
/// Visits of one number of CPUs where the machine chooses the frequency.
const WITHOUT_CLOCK: usize = 4;

/// One visit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What is at work, a class once at most; nothing on an idle machine.
    pub loads: Vec<Load>,
    /// Whether the energy model learns from it.
    pub counts: bool,
}

/// CPUs at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Whose CPUs.
    pub class: usize,
    /// CPUs to keep busy.
    pub cpus: Vec<usize>,
    /// The clock to set; `None` leaves it to the machine.
    pub khz: Option<KHz>,
}

/// All visits. `ceilings`: the highest frequency that may be set for each class, `None` where none can be set.
pub fn plan(topology: &Topology, shape: &Shape, ceilings: &[Option<KHz>]) -> Vec<Step> {
    let classes = topology.classes.iter().zip(&shape.classes).zip(ceilings);
    let loads = classes
        .enumerate()
        .map(|(index, ((class, shape), ceiling))| {
            let allowed = |khz: &KHz| ceiling.is_some_and(|ceiling| *khz <= ceiling);
            let opps = shape.opps.iter().map(|opp| opp.khz).filter(allowed);
            let mut clocks: Vec<Option<KHz>> = opps.map(Some).collect();
            if clocks.is_empty() {
                clocks = vec![None; WITHOUT_CLOCK];
            }
            let all = cores(topology, class);
            let loads = |cpus: usize| {
                let cpus: Vec<usize> = all.iter().take(cpus).copied().collect();
                let at = |khz: &Option<KHz>| Load {
                    class: index,
                    cpus: cpus.clone(),
                    khz: *khz,
                };
                clocks.iter().map(at).collect::<Vec<_>>()
            };
            [loads(1), loads(all.len())]
        });
    let loads: Vec<[Vec<Load>; 2]> = loads.collect();
    // Of all clocks the least hides least of the other class's power.
    let least = loads
        .iter()
        .map(|[one, _]| one.first().filter(|load| load.khz.is_some()));
    let least: Option<Vec<&Load>> = least.collect();
    let least = least.filter(|least| least.len() > 1);
    let step = |loads: &[&Load]| Step {
        loads: loads.iter().map(|load| (*load).clone()).collect(),
        counts: true,
    };
    let idle = Step {
        loads: Vec::new(),
        counts: least.is_none(),
    };
    let mut steps = vec![idle.clone(); IDLE_FIRST];
    for (class, [one, all]) in loads.iter().enumerate() {
        steps.extend(one.iter().map(|load| step(&[load])));
        steps.extend(all.iter().rev().map(|load| step(&[load])));
        if one != all {
            steps.extend(one.iter().map(|load| step(&[load])));
        }
        let other = usize::from(class == 0);
        let pair = least
            .as_ref()
            .and_then(|least| Some([*least.get(class)?, *least.get(other)?]));
        let always = pair.map_or_else(|| idle.clone(), |pair| step(&pair));
        steps.extend(vec![always; ALWAYS]);
    }
    steps
}

/// One hardware thread of each core: two busy ones of a core draw less than two cores.
fn cores(topology: &Topology, class: &Class) -> Vec<usize> {
    let is_first = |cpu: &&usize| {
        let siblings = topology.cpu(**cpu).map(|cpu| &cpu.facts.siblings);
        siblings.is_none_or(|siblings| siblings.first().is_none_or(|first| first == *cpu))
    };
    class.cpus.iter().filter(is_first).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::machine::shape_of;
    use crate::topology::Cluster;
    use crate::units::Capacity;

    fn cluster(cpus: usize, capacity: u64, khz: &[u64], threads: usize) -> Cluster {
        Cluster {
            cpus,
            threads,
            capacity: Capacity::new(capacity).unwrap(),
            opps: Some(khz.iter().copied().map(KHz::new).collect()),
            llc: 0,
        }
    }

    fn machine(threads: usize) -> (Topology, Shape) {
        let topology = Topology::synthetic(&[
            cluster(4, 400, &[1000, 2000], threads),
            cluster(1, 1024, &[1000, 2000, 3000], 1),
        ]);
        let shape = shape_of(&topology);
        (topology, shape)
    }

    fn load(class: usize, cpus: &[usize], khz: Option<u64>) -> Load {
        Load {
            class,
            cpus: cpus.to_vec(),
            khz: khz.map(KHz::new),
        }
    }

    fn visits(steps: &[Step], loads: &[Load]) -> usize {
        steps.iter().filter(|step| step.loads == loads).count()
    }

    /// Of each idle visit: whether it counts.
    fn idle(steps: &[Step]) -> Vec<bool> {
        let idle = steps.iter().filter(|step| step.loads.is_empty());
        idle.map(|step| step.counts).collect()
    }

    #[test]
    fn every_point_is_visited_twice_with_one_cpu_and_once_with_all() {
        let (topology, shape) = machine(1);
        let top = Some(KHz::new(3000));
        let steps = plan(&topology, &shape, &[top, top]);
        for khz in [1000, 2000] {
            assert_eq!(visits(&steps, &[load(0, &[0], Some(khz))]), 2);
            assert_eq!(visits(&steps, &[load(0, &[0, 1, 2, 3], Some(khz))]), 1);
        }
        for khz in [1000, 2000, 3000] {
            assert_eq!(visits(&steps, &[load(1, &[4], Some(khz))]), 2);
        }
        assert_eq!(steps.len(), 6 + 6 + IDLE_FIRST + 2 * ALWAYS);
    }

    #[test]
    fn two_classes_together_tell_what_is_drawn_always() {
        let (topology, shape) = machine(1);
        let top = Some(KHz::new(3000));
        let steps = plan(&topology, &shape, &[top, top]);
        let [one, other] = [load(0, &[0], Some(1000)), load(1, &[4], Some(1000))];
        assert_eq!(visits(&steps, &[one.clone(), other.clone()]), ALWAYS);
        assert_eq!(visits(&steps, &[other, one]), ALWAYS);
        assert_eq!(idle(&steps), [false; IDLE_FIRST]);
    }

    #[test]
    fn one_class_and_a_clock_that_cannot_be_set_leave_that_to_the_idle_machine() {
        let (topology, shape) = machine(1);
        let steps = plan(&topology, &shape, &[Some(KHz::new(1500)), None]);
        assert_eq!(idle(&steps), [true; IDLE_FIRST + 2 * ALWAYS]);
        let topology = Topology::synthetic(&[cluster(4, 1024, &[1000], 1)]);
        let steps = plan(&topology, &shape_of(&topology), &[Some(KHz::new(1500))]);
        assert_eq!(idle(&steps), [true; IDLE_FIRST + ALWAYS]);
    }

    #[test]
    fn the_users_own_limit_is_not_exceeded() {
        let (topology, shape) = machine(1);
        let steps = plan(&topology, &shape, &[Some(KHz::new(1500)), None]);
        assert_eq!(visits(&steps, &[load(0, &[0], Some(1000))]), 2);
        assert_eq!(visits(&steps, &[load(0, &[0], Some(2000))]), 0);
    }

    #[test]
    fn without_limits_the_machine_chooses_the_clock() {
        let (topology, shape) = machine(1);
        let steps = plan(&topology, &shape, &[None, None]);
        let mut loads = steps.iter().flat_map(|step| &step.loads);
        assert!(loads.all(|load| load.khz.is_none()));
        assert_eq!(visits(&steps, &[load(0, &[0], None)]), 2 * WITHOUT_CLOCK);
        let all = load(0, &[0, 1, 2, 3], None);
        assert_eq!(visits(&steps, &[all]), WITHOUT_CLOCK);
    }

    #[test]
    fn only_one_thread_of_a_core_is_kept_busy() {
        let (topology, shape) = machine(2);
        let steps = plan(&topology, &shape, &[None, None]);
        assert_eq!(visits(&steps, &[load(0, &[0, 2], None)]), WITHOUT_CLOCK);
    }
}
