//! What is done to subjects besides a training and an exam: changes of the machine, a burst of the GPU, a
//! week without change, and the clock.

use crate::machine::Machine;
use crate::score::{Subject, quantile, second};
use crate::soc::Table;
use num_traits::ToPrimitive;
use scx_joule::observation::Observation;
use std::time::Instant;

/// 4 Hz.
pub const SECOND: usize = 4;
/// Seconds of mixed use before a change.
const BEFORE_S: usize = 120;
/// Seconds that a subject is given to follow a change, and over which its error is then judged.
const PATIENCE_S: usize = 60;
const JUDGED_S: usize = 20;
/// An error below this counts as recovered.
const RECOVERED: f64 = 0.05;

pub fn learn(subject: &mut dyn Subject, machine: &mut Machine, rows: usize) {
    for _ in 0..rows {
        subject.learn(&machine.step().0);
    }
}

/// How a machine changes in use.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A class leaks more: a quarter of the power at its third OPP in ten, at every OPP.
    Leakage,
    /// A class draws double.
    Doubled,
}

impl Step {
    fn apply(self, machine: &mut Machine, k: usize) {
        let class = &mut machine.classes[k];
        match self {
            Self::Leakage => {
                let leak = 0.25 * class.busy[class.busy.len() / 3];
                class.busy.iter_mut().for_each(|power| *power += leak);
            }
            Self::Doubled => {
                let powers = class.busy.iter_mut().chain(&mut class.shared);
                powers.for_each(|power| *power *= 2.0);
            }
        }
    }
}

/// Seconds from a change of the class that draws most until power is predicted within 5 % on average over
/// the 20 s that follow, by what was learnt until then. [`PATIENCE_S`] when that is never.
pub fn recovery(subject: &mut dyn Subject, machine: &Machine, step: Step) -> f64 {
    let mut machine = machine.clone();
    let mut drawn = vec![0.0; machine.classes.len()];
    for _ in 0..BEFORE_S * SECOND {
        let (observation, _) = machine.step();
        for (k, activity) in observation.classes.iter().enumerate() {
            for (i, busy) in activity.busy.iter().enumerate() {
                drawn[k] += busy.get().to_f64().unwrap() * machine.classes[k].busy[i];
            }
        }
        subject.learn(&observation);
    }
    let most = |a: &usize, b: &usize| drawn[*a].total_cmp(&drawn[*b]);
    let k = (0..drawn.len()).max_by(most).unwrap();
    step.apply(&mut machine, k);
    machine.stay_in_full_use();
    for waited in 0..PATIENCE_S {
        let mut ahead = machine.clone();
        let mut error = 0.0;
        for _ in 0..JUDGED_S {
            let (observation, watts) = second(&mut ahead);
            error += (subject.power(&observation).value / watts - 1.0).abs();
        }
        if error < RECOVERED * JUDGED_S.to_f64().unwrap() {
            return waited.to_f64().unwrap();
        }
        learn(subject, &mut machine, SECOND);
    }
    PATIENCE_S.to_f64().unwrap()
}

/// Largest relative change of the power of any class's first busy CPU by 15 s in which a GPU without a
/// meter draws three times what the package did.
pub fn burst(subject: &mut dyn Subject, machine: &Machine, seed: u64) -> f64 {
    let mut machine = machine.clone();
    learn(subject, &mut machine, BEFORE_S * SECOND);
    let curves = |subject: &dyn Subject| -> Vec<f64> {
        let classes = 0..machine.classes.len();
        classes
            .flat_map(|k| subject.curve(k))
            .map(|guess| guess.value)
            .collect()
    };
    let before = curves(subject);
    let mut after = machine.clone();
    let package = after.clone().step().1;
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x6B);
    for _ in 0..15 * SECOND {
        after.foreign = 3.0 * package * (0.8 + 0.4 * rng.f64());
        learn(subject, &mut after, 1);
    }
    let moved = before.iter().zip(curves(subject)).map(|(old, new)| {
        if *old == 0.0 && new == 0.0 {
            0.0
        } else {
            (new / old - 1.0).abs()
        }
    });
    moved.fold(0.0, f64::max)
}

/// Seconds between two looks at what a subject believes.
const LOOK_S: usize = 6 * 3600;

/// Largest relative error of the energy predicted for one and the same 10 min, looked at every six hours
/// from the first day's end on, on a machine that does not change.
pub fn week(subjects: &mut [Box<dyn Subject>], machine: &Machine, days: usize) -> Vec<f64> {
    let mut machine = machine.clone();
    machine.hold_constant();
    let mut ahead = machine.clone();
    let held_out: Vec<(Observation, f64)> = (0..600).map(|_| second(&mut ahead)).collect();
    let truth: f64 = held_out.iter().map(|(_, watts)| watts).sum();
    let mut worst = vec![0.0_f64; subjects.len()];
    let looks = days * 86_400 / LOOK_S;
    for look in 1..=looks {
        for _ in 0..LOOK_S * SECOND {
            let (observation, _) = machine.step();
            subjects
                .iter_mut()
                .for_each(|subject| subject.learn(&observation));
        }
        for (subject, worst) in subjects.iter().zip(&mut worst) {
            let energy: f64 = held_out.iter().map(|(o, _)| subject.power(o).value).sum();
            if look * LOOK_S >= 86_400 || look == looks {
                *worst = worst.max((energy / truth - 1.0).abs());
            }
        }
        eprintln!(
            "week: {} of {} hours",
            look * LOOK_S / 3600,
            looks * LOOK_S / 3600
        );
    }
    worst
}

/// A phone with three clusters of 21 OPPs.
pub fn phone(seed: u64) -> Machine {
    let table = |cpus: usize, top: f64| {
        let f = |i: i32| f64::from(i) / 21.0;
        Table {
            cpus,
            khz: (1..=21).map(|i| 1e5 * f64::from(i)).collect(),
            power_mw: (1..=21)
                .map(|i| 1500.0 * top * top * (0.1 + 0.3 * f(i) + 0.6 * f(i).powi(3)))
                .collect(),
            capacity: (1..=21).map(|i| (1024.0 * top * f(i)).floor()).collect(),
            microvolt: None,
        }
    };
    Machine::of(&[table(4, 0.3), table(3, 0.7), table(1, 1.0)], seed)
}

/// Median time of learning one row, µs.
pub fn update_us(subject: &mut dyn Subject, machine: &Machine) -> f64 {
    let mut machine = machine.clone();
    let rows: Vec<Observation> = (0..4000).map(|_| machine.step().0).collect();
    let time = |row: &Observation| {
        let start = Instant::now();
        subject.learn(row);
        start.elapsed().as_secs_f64() * 1e6
    };
    let times: Vec<f64> = rows.iter().map(time).collect();
    quantile(&times, 0.5)
}
