//! What to do in which order, so that the fit has full rank: every operating point with one busy CPU and with
//! all, so that what a CPU draws and what its cluster shares come apart, and idle in between, for what is
//! drawn always. Each point with one CPU is visited twice, at different times: what drifts shows as noise.

use crate::model::Shape;
use crate::topology::{Class, Topology};
use crate::units::KHz;

/// Visits of an idle machine before the first class, and after each.
pub const IDLE_FIRST: usize = 4;
const IDLE_AFTER: usize = 2;
/// Visits of one number of CPUs where the machine chooses the frequency.
const WITHOUT_CLOCK: usize = 4;

/// One visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The class that is at work; `None` where all are idle.
    pub class: Option<usize>,
    /// CPUs to keep busy.
    pub cpus: Vec<usize>,
    /// The clock to set; `None` leaves it to the machine.
    pub khz: Option<KHz>,
}

/// All visits. `ceilings`: the highest frequency that may be set for each class, `None` where none can be set.
pub fn plan(topology: &Topology, shape: &Shape, ceilings: &[Option<KHz>]) -> Vec<Step> {
    let idle = Step {
        class: None,
        cpus: Vec::new(),
        khz: None,
    };
    let mut steps = vec![idle.clone(); IDLE_FIRST];
    let classes = topology.classes.iter().zip(&shape.classes).zip(ceilings);
    for (index, ((class, shape), ceiling)) in classes.enumerate() {
        let allowed = |khz: &KHz| ceiling.is_some_and(|ceiling| *khz <= ceiling);
        let opps = shape.opps.iter().map(|opp| opp.khz).filter(allowed);
        let mut clocks: Vec<Option<KHz>> = opps.map(Some).collect();
        if clocks.is_empty() {
            clocks = vec![None; WITHOUT_CLOCK];
        }
        let all = cores(topology, class);
        let one: Vec<usize> = all.iter().take(1).copied().collect();
        let step = |cpus: &Vec<usize>, khz: &Option<KHz>| Step {
            class: Some(index),
            cpus: cpus.clone(),
            khz: *khz,
        };
        steps.extend(clocks.iter().map(|khz| step(&one, khz)));
        if all.len() > 1 {
            steps.extend(clocks.iter().rev().map(|khz| step(&all, khz)));
            steps.extend(clocks.iter().map(|khz| step(&one, khz)));
        } else {
            steps.extend(clocks.iter().rev().map(|khz| step(&one, khz)));
        }
        steps.extend(vec![idle.clone(); IDLE_AFTER]);
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

    fn machine(threads: usize) -> (Topology, Shape) {
        let cluster = |cpus, capacity, khz: &[u64], threads| Cluster {
            cpus,
            threads,
            capacity: Capacity::new(capacity).unwrap(),
            opps: Some(khz.iter().copied().map(KHz::new).collect()),
            llc: 0,
        };
        let topology = Topology::synthetic(&[
            cluster(4, 400, &[1000, 2000], threads),
            cluster(1, 1024, &[1000, 2000, 3000], 1),
        ]);
        let shape = shape_of(&topology);
        (topology, shape)
    }

    fn visits(steps: &[Step], class: usize, cpus: &[usize], khz: Option<u64>) -> usize {
        let wanted = Step {
            class: Some(class),
            cpus: cpus.to_vec(),
            khz: khz.map(KHz::new),
        };
        steps.iter().filter(|step| **step == wanted).count()
    }

    #[test]
    fn every_point_is_visited_twice_with_one_cpu_and_once_with_all() {
        let (topology, shape) = machine(1);
        let top = Some(KHz::new(3000));
        let steps = plan(&topology, &shape, &[top, top]);
        for khz in [1000, 2000] {
            assert_eq!(visits(&steps, 0, &[0], Some(khz)), 2);
            assert_eq!(visits(&steps, 0, &[0, 1, 2, 3], Some(khz)), 1);
        }
        for khz in [1000, 2000, 3000] {
            assert_eq!(visits(&steps, 1, &[4], Some(khz)), 2);
        }
        let idle = |step: &&Step| step.class.is_none() && step.cpus.is_empty();
        assert_eq!(
            steps.iter().filter(idle).count(),
            IDLE_FIRST + 2 * IDLE_AFTER
        );
        assert_eq!(steps.len(), 6 + 6 + IDLE_FIRST + 2 * IDLE_AFTER);
    }

    #[test]
    fn the_users_own_limit_is_not_exceeded() {
        let (topology, shape) = machine(1);
        let steps = plan(&topology, &shape, &[Some(KHz::new(1500)), None]);
        assert_eq!(visits(&steps, 0, &[0], Some(1000)), 2);
        assert_eq!(visits(&steps, 0, &[0], Some(2000)), 0);
    }

    #[test]
    fn without_limits_the_machine_chooses_the_clock() {
        let (topology, shape) = machine(1);
        let steps = plan(&topology, &shape, &[None, None]);
        assert!(steps.iter().all(|step| step.khz.is_none()));
        assert_eq!(visits(&steps, 0, &[0], None), 2 * WITHOUT_CLOCK);
        assert_eq!(visits(&steps, 0, &[0, 1, 2, 3], None), WITHOUT_CLOCK);
    }

    #[test]
    fn only_one_thread_of_a_core_is_kept_busy() {
        let (topology, shape) = machine(2);
        let steps = plan(&topology, &shape, &[None, None]);
        assert_eq!(visits(&steps, 0, &[0, 2], None), WITHOUT_CLOCK);
    }
}
