//! How far an estimate of a machine's power is from the machine that it was fitted to.

use crate::design::Design;
use crate::machine::{Machine, merged};
use crate::soc::{TrueClass, ratio, whole};
use nalgebra::DMatrix;
use num_traits::ToPrimitive;
use scx_joule::model::cost::{ClassLoad, marginal_cost};
use scx_joule::model::{ClassShape, Model, Prior, Verdict};
use scx_joule::observation::{CostTable, Observation};
use scx_joule::units::Microwatts;

/// Two placements whose costs differ by less are equally cheap.
const EQUAL: f64 = 0.01;
/// Steps of the machine in one interval of a score: 1 s.
const INTERVAL_STEPS: usize = 4;
/// Intervals not seen before over which power is scored: 10 min.
const INTERVALS: usize = 600;
/// Random placements per machine.
const PLACEMENTS: usize = 1000;

/// A value and, where the subject gives one, its 90 % interval.
#[derive(Clone, Copy, Debug)]
pub struct Guess {
    pub value: f64,
    pub interval: Option<(f64, f64)>,
}

impl Guess {
    pub fn bare(value: f64) -> Self {
        Self {
            value,
            interval: None,
        }
    }

    /// Whether the interval holds the truth, and how wide it is against `scale`.
    fn judged(&self, truth: f64, scale: f64) -> Option<(bool, f64)> {
        let (low, high) = self.interval?;
        Some(((low..=high).contains(&truth), (high - low) / scale))
    }
}

/// What can be scored: the model, or another way to estimate the same. Powers in W, energies in nJ.
pub trait Subject {
    fn learn(&mut self, observation: &Observation);
    /// Power over an interval, without the meter's noise.
    fn power(&self, observation: &Observation) -> Guess;
    /// Power of a class's first busy CPU, per OPP.
    fn curve(&self, class: usize) -> Vec<Guess>;
    fn table(&mut self) -> CostTable;
    /// By how much a task costs more in class `a` than in class `b`.
    fn difference(&self, _loads: &[ClassLoad], _util: f64, _a: usize, _b: usize) -> Option<Guess> {
        None
    }
}

impl Subject for Model {
    fn learn(&mut self, observation: &Observation) {
        self.update(observation);
    }

    fn power(&self, observation: &Observation) -> Guess {
        let prediction = self.predict(observation).unwrap();
        let (low, high) = prediction.interval_uw();
        Guess {
            value: prediction.uw * 1e-6,
            interval: Some((low * 1e-6, high * 1e-6)),
        }
    }

    fn curve(&self, class: usize) -> Vec<Guess> {
        let guess = |(_, estimate): (_, scx_joule::model::Estimate)| Guess {
            value: estimate.uw * 1e-6,
            interval: Some((estimate.low_uw * 1e-6, estimate.high_uw * 1e-6)),
        };
        Model::curve(self, class).into_iter().map(guess).collect()
    }

    fn table(&mut self) -> CostTable {
        self.cost_table()
    }

    fn difference(&self, loads: &[ClassLoad], util: f64, a: usize, b: usize) -> Option<Guess> {
        let difference = self.cost_difference(loads, util, a, b)?;
        Some(Guess {
            value: difference.nj,
            interval: Some(difference.interval_nj()),
        })
    }
}

/// A kernel Energy Model as one finds it: switching power only, each class off by up to a quarter.
pub fn kernel_em(machine: &Machine, seed: u64) -> Prior {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xE5);
    let shape = machine.shape();
    let curve = |(class, shape): (&TrueClass, &ClassShape)| {
        let top = class.busy.last().unwrap() + class.shared.last().unwrap();
        let off = 0.75 + 0.5 * rng.f64();
        let fastest = shape.opps.last().unwrap().khz.get();
        let power = |khz: u64| {
            let f: f64 = ratio(khz, fastest);
            Microwatts::new(whole(top * off * f * (0.6 + 0.4 * f).powi(2) * 1e6))
        };
        shape.opps.iter().map(|opp| power(opp.khz.get())).collect()
    };
    let classes = machine.classes.iter().zip(&shape.classes);
    Prior::Watts(classes.map(curve).collect())
}

pub fn train(model: &mut Model, machine: &mut Machine, rows: usize) -> Vec<Verdict> {
    (0..rows).map(|_| model.update(&machine.step().0)).collect()
}

/// One second ahead: what was seen, and the true mean power, W.
pub fn second(machine: &mut Machine) -> (Observation, f64) {
    let steps: Vec<_> = (0..INTERVAL_STEPS).map(|_| machine.step()).collect();
    let (parts, watts): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
    let mean = watts.iter().sum::<f64>() / INTERVAL_STEPS.to_f64().unwrap();
    (merged(&parts), mean)
}

/// The power of the first busy CPU at one OPP.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub error: f64,
    /// Relative standard deviation to which the training's rows alone determine it.
    pub design: f64,
    /// Whether the 90 % interval holds the truth, and its relative width.
    pub judged: Option<(bool, f64)>,
}

/// How well the cheapest class is known.
#[derive(Clone, Copy, Debug)]
pub struct Ranking {
    /// Part of random placements whose cheapest class is named rightly.
    pub agreed: f64,
    /// Energy lost where it is not, relative to all.
    pub regret: f64,
}

/// Errors and coverage of one subject on one machine.
#[derive(Default, Debug)]
pub struct Score {
    /// Mean relative error of power over intervals of 1 s not seen before.
    pub mape: f64,
    /// Relative error of the energy of all of them, 10 min.
    pub energy: f64,
    /// Per interval, whether the 90 % interval holds the truth, and its relative width.
    pub power: Vec<(bool, f64)>,
    pub curve: Vec<Point>,
    /// The same of differences between the costs of two classes; widths relative to their mean cost.
    pub differences: Vec<(bool, f64)>,
    /// None with a single class.
    pub ranking: Option<Ranking>,
}

/// A machine after its training, and what is needed to judge subjects that were trained on it.
pub struct Exam {
    pub machine: Machine,
    /// Per class and OPP, W.
    sigmas: Vec<Vec<f64>>,
    held_out: Vec<(Observation, f64)>,
    placements: Vec<(Vec<ClassLoad>, f64)>,
}

impl Exam {
    pub fn new(machine: &Machine, design: &Design, prior: &DMatrix<f64>, seed: u64) -> Self {
        let mut ahead = machine.clone();
        let mut rng = fastrand::Rng::with_seed(seed ^ 0xACE);
        let placement = |_| {
            let classes = machine.classes.iter();
            let loads = classes.map(|class| random_load(class, &mut rng)).collect();
            (loads, 8.0 * 64.0_f64.powf(rng.f64()))
        };
        Self {
            sigmas: design.sigmas(prior),
            held_out: (0..INTERVALS).map(|_| second(&mut ahead)).collect(),
            placements: (0..PLACEMENTS).map(placement).collect(),
            machine: machine.clone(),
        }
    }

    pub fn score(&self, subject: &mut dyn Subject) -> Score {
        let mut score = Score::default();
        let (mut guessed, mut spent) = (0.0, 0.0);
        for (observation, watts) in &self.held_out {
            let guess = subject.power(observation);
            score.mape += (guess.value / watts - 1.0).abs() / INTERVALS.to_f64().unwrap();
            score.power.extend(guess.judged(*watts, *watts));
            guessed += guess.value;
            spent += watts;
        }
        score.energy = (guessed / spent - 1.0).abs();
        for (k, sigmas) in self.sigmas.iter().enumerate() {
            let shared = &self.machine.classes[k].shared;
            for (i, (guess, sigma)) in subject.curve(k).iter().zip(sigmas).enumerate() {
                let truth = self.machine.busy_now(k, i) + shared[i];
                score.curve.push(Point {
                    error: (guess.value / truth - 1.0).abs(),
                    design: sigma / truth,
                    judged: guess.judged(truth, truth),
                });
            }
        }
        if self.machine.classes.len() > 1 {
            score.ranking = Some(self.ranking(subject));
            score.differences = self.differences(subject);
        }
        score
    }

    fn ranking(&self, subject: &mut dyn Subject) -> Ranking {
        let (truth, ours) = (self.machine.table(), subject.table());
        ours.check().unwrap();
        let (mut agreed, mut paid, mut least) = (0.0, 0.0, 0.0);
        for (loads, util) in &self.placements {
            let cost = |table, k| marginal_cost(table, loads, k, *util);
            let best = |table| {
                (0..loads.len())
                    .filter_map(|k| Some((k, cost(table, k)?)))
                    .min_by(|a, b| a.1.total_cmp(&b.1))
            };
            let (Some((_, cheapest)), Some((chosen, _))) = (best(&truth), best(&ours)) else {
                continue;
            };
            let spent = cost(&truth, chosen).unwrap();
            agreed += count(spent <= cheapest + EQUAL * cheapest.abs());
            paid += spent;
            least += cheapest;
        }
        let all = self.placements.iter().filter(|(loads, util)| {
            let truth = &truth;
            (0..loads.len()).any(|k| marginal_cost(truth, loads, k, *util).is_some())
        });
        Ranking {
            agreed: agreed / all.count().to_f64().unwrap(),
            regret: paid / least - 1.0,
        }
    }

    fn differences(&self, subject: &dyn Subject) -> Vec<(bool, f64)> {
        let truth = self.machine.table();
        let mut judged = Vec::new();
        for (n, (loads, util)) in self.placements.iter().enumerate() {
            let (a, b) = (n % loads.len(), (n + 1) % loads.len());
            let cost = |k| marginal_cost(&truth, loads, k, *util);
            let (Some(dear), Some(cheap)) = (cost(a), cost(b)) else {
                continue;
            };
            let scale = 0.5 * (dear.abs() + cheap.abs());
            let guess = subject.difference(loads, *util, a, b);
            judged.extend(guess.and_then(|guess| guess.judged(dear - cheap, scale)));
        }
        judged
    }
}

pub fn load(class: &TrueClass, util: f64, top: f64) -> ClassLoad {
    ClassLoad {
        cpus: u16::try_from(class.cpus).unwrap(),
        domains: 1,
        util,
        top,
        idle_depth: None,
        domain_asleep: false,
    }
}

fn random_load(class: &TrueClass, rng: &mut fastrand::Rng) -> ClassLoad {
    let top = class.caps.last().unwrap() * 0.7;
    let most = top * class.cpus.to_f64().unwrap();
    let util = if rng.f64() < 0.3 {
        0.0
    } else {
        most * rng.f64().powi(2)
    };
    let deepest = if util > 0.0 { rng.usize(..3) } else { 2 };
    let idle_depth = [None, Some(0), Some(1)][deepest];
    ClassLoad {
        idle_depth,
        domain_asleep: (util == 0.0 || class.cpus == 1) && idle_depth == Some(1),
        ..load(class, util, util.min(top) * rng.f64())
    }
}

pub fn count(flag: bool) -> f64 {
    f64::from(u8::from(flag))
}

/// The value that `part` (0 to 1) of the values do not exceed.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = (last.to_f64().unwrap() * part).round().to_usize().unwrap();
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

pub fn share(flags: impl IntoIterator<Item = bool>) -> f64 {
    let (mut yes, mut all) = (0.0, 0.0);
    for flag in flags {
        yes += count(flag);
        all += 1.0;
    }
    yes / all
}
