//! The seven behaviours: which tasks, how big, and when how they change.

use crate::machine::{Cluster, EnergyModel, Machine, Mode};
use joule_load::clock::SECOND_NS;
use joule_load::draws::Draws;

/// Of all tasks.
pub const PERIOD_NS: u64 = 16_000_000;
const PERIOD_MS: f64 = 16.0;
/// Largest share of a CPU's capacity that may be used: 1 / 1.25, the margin of the kernel's governor.
pub const MARGIN: f64 = 1.25;
/// Time constant of the kernel's utilisation average: it loses half in 32 periods of 1.024 ms.
const PELT_TAU_MS: f64 = 32.0 * 1.024 / std::f64::consts::LN_2;
/// At the start tasks do next to nothing, for what the kernel believes of new tasks to be forgotten.
const BUFFER: Phase = Phase {
    duty: 1e-4,
    activations: 7,
};
/// The activations of half a second, one, and two.
const HALF_A_SECOND: u32 = 31;
const ONE_SECOND: u32 = 62;
const TWO_SECONDS: u32 = 125;
/// By how much a ramp changes each half second, of the biggest CPU.
const RAMP_STEP: f64 = 0.05;

/// What a scheduler should do well.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// In lower case.
    pub name: &'static str,
    /// Energy above the least that is borne, %.
    pub threshold_pct: f64,
    /// At most ten.
    pub tasks: Vec<Task>,
}

/// A thread.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its name: begins with [`PREFIX`].
    pub name: String,
    /// One after the other; the first is not judged.
    pub phases: Vec<Phase>,
}

/// Begins the names of all tasks.
pub const PREFIX: &str = "eas-";

/// A stretch of equal activations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Phase {
    /// Work of each, as a share of its period on the biggest CPU.
    pub duty: f64,
    /// How many.
    pub activations: u32,
}

impl Phase {
    /// Highest utilisation the kernel sees while it lasts, 0 to 1024.
    pub fn util(&self) -> f64 {
        1024.0 * (self.duty + swing(self.duty))
    }
}

/// How far the kernel's utilisation average rises above its mean during an activation, as a share: the
/// steady state of a first-order filter that is fed with a rectangle.
fn swing(duty: f64) -> f64 {
    let rise = |share: f64| 1.0 - (-share * PERIOD_MS / PELT_TAU_MS).exp();
    rise(duty) / rise(1.0) - duty
}

/// The behaviours as they are on a machine.
///
/// # Errors
/// Why the machine has none: they ask for an Energy Model, schedutil, and CPUs of two sizes.
pub fn all(machine: &Machine) -> Result<Vec<Behaviour>, String> {
    if machine.em != EnergyModel::Watts || machine.mode != Mode::Schedutil {
        return Err(format!("{} has no Energy Model", machine.name));
    }
    let mut clusters: Vec<&Cluster> = machine.clusters.iter().collect();
    clusters.sort_by_key(|cluster| cluster.capacity());
    let (Some(little), Some(biggest)) = (clusters.first(), clusters.last()) else {
        return Err(format!("{} has no CPU", machine.name));
    };
    let smaller = clusters.iter().rev();
    let mut smaller = smaller.filter(|cluster| cluster.capacity() < biggest.capacity());
    let Some(second) = smaller.next() else {
        return Err(format!("{}: its CPUs are all alike", machine.name));
    };
    let bigs: usize = clusters
        .iter()
        .filter(|cluster| cluster.capacity() == biggest.capacity())
        .map(|cluster| cluster.cpus.len())
        .sum();
    let (small, big) = (small_duty(little), big_duty(second));
    let task = |name: String, phases: Vec<Phase>| Task {
        name: format!("{PREFIX}{name}"),
        phases: [vec![BUFFER], phases].concat(),
    };
    let steady = |kind: &str, duty, count: usize| -> Vec<Task> {
        let phase = Phase {
            duty,
            activations: ONE_SECOND,
        };
        (0..count)
            .map(|number| task(format!("{kind}{number}"), vec![phase]))
            .collect()
    };
    let alternating = || {
        let phase = |duty| Phase {
            duty,
            activations: TWO_SECONDS,
        };
        let low = 0.2 * share(little);
        [phase(low), phase(big)].repeat(2)
    };
    let ramp = ramp(0.1 * share(little), big);
    let falling: Vec<_> = ramp.iter().rev().copied().collect();
    let behaviour = |name, threshold_pct, tasks| Behaviour {
        name,
        threshold_pct,
        tasks,
    };
    Ok(vec![
        behaviour("one-small-task", 5.0, steady("small", small, 1)),
        behaviour("three-small-tasks", 20.0, steady("small", small, 3)),
        behaviour("two-big-tasks", 5.0, steady("big", big, 2)),
        behaviour(
            "two-big-three-small",
            5.0,
            [steady("small", small, 3), steady("big", big, 2)].concat(),
        ),
        behaviour(
            "wake-migration",
            5.0,
            (0..bigs)
                .map(|number| task(format!("turn{number}"), alternating()))
                .collect(),
        ),
        behaviour("ramp-up", 15.0, vec![task("up".to_owned(), ramp)]),
        behaviour("ramp-down", 18.0, vec![task("down".to_owned(), falling)]),
    ])
}

fn share(cluster: &Cluster) -> f64 {
    f64::from(cluster.capacity()) / 1024.0
}

/// Half of a little CPU, so that the governor's wish lies in the middle between two OPPs.
fn small_duty(little: &Cluster) -> f64 {
    let half = share(little) / 2.0;
    let capacity = |index: usize| {
        little
            .opps
            .get(index)
            .map(|opp| f64::from(opp.capacity) / 1024.0)
    };
    let above = little
        .opps
        .iter()
        .position(|opp| f64::from(opp.capacity) / 1024.0 > half);
    let between =
        above.and_then(|above| Some((capacity(above.checked_sub(1)?)?, capacity(above)?)));
    let wish = between.map_or(half, |(below, above)| (below + above) / 2.0);
    with_swing(wish / MARGIN)
}

/// Too big for all but the biggest CPUs, and not too big for those.
fn big_duty(second: &Cluster) -> f64 {
    let full = share(second);
    let most = 1.0 / MARGIN;
    if full + swing(full) < most {
        full
    } else {
        with_swing(0.95 * most)
    }
}

/// The duty whose utilisation rises to this share.
fn with_swing(peak: f64) -> f64 {
    // the swing changes little with the duty
    (0..20).fold(peak, |duty, _| peak - swing(duty))
}

fn ramp(from: f64, to: f64) -> Vec<Phase> {
    let phase = |duty| Phase {
        duty,
        activations: HALF_A_SECOND,
    };
    let steps = (0..20_u32).map(|step| from + RAMP_STEP * f64::from(step));
    let mut phases: Vec<_> = steps.take_while(|duty| *duty < to).map(phase).collect();
    phases.push(phase(to));
    phases
}

impl Behaviour {
    /// In rt-app's JSON.
    pub fn to_json(&self) -> String {
        let tasks: Vec<String> = self.tasks.iter().map(Task::to_json).collect();
        format!("{{ \"tasks\": {{\n{}\n}} }}\n", tasks.join(",\n"))
    }

    /// When each task begins its phases and is done with the last, in seconds from the common start; with the
    /// offsets that joule-load draws from this seed.
    pub fn timeline_s(&self, seed: u64) -> Vec<Vec<f64>> {
        let tasks = (0..).zip(&self.tasks);
        let of_task = |(thread, task): (u64, &Task)| {
            let offset_ns = Draws::new(seed, thread).offset_ns(PERIOD_NS);
            let mut at_s = seconds(offset_ns);
            let mut times = vec![at_s];
            for phase in &task.phases {
                at_s += f64::from(phase.activations) * seconds(PERIOD_NS);
                times.push(at_s);
            }
            times
        };
        tasks.map(of_task).collect()
    }
}

fn seconds(ns: u64) -> f64 {
    let (whole, part) = (ns / SECOND_NS, ns % SECOND_NS);
    let exact = |value: u64| u32::try_from(value).map_or(f64::INFINITY, f64::from);
    exact(whole) + exact(part) / 1e9
}

impl Task {
    fn to_json(&self) -> String {
        let phase = |(number, phase): (usize, &Phase)| {
            format!(
                "\"p{number}\": {{ \"loop\": {}, \"run\": {:.0}, \"timer\": {{ \"ref\": \"frame\", \"period\": {} }} }}",
                phase.activations,
                phase.duty * PERIOD_MS * 1000.0,
                PERIOD_NS / 1000
            )
        };
        let phases: Vec<_> = self.phases.iter().enumerate().map(phase).collect();
        format!(
            "\"{}\": {{ \"loop\": 1, \"phases\": {{\n\t{}\n}} }}",
            self.name,
            phases.join(",\n\t")
        )
    }
}
