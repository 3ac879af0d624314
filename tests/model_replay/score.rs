//! How far a model is from the machine that it was fitted to.

use crate::machine::{Machine, TrueClass, ratio, read_uw, whole};
use num_traits::ToPrimitive;
use scx_joule::model::cost::{ClassLoad, marginal_cost};
use scx_joule::model::{ClassShape, Model, Prior, Verdict};
use scx_joule::observation::CostTable;
use scx_joule::units::Microwatts;

/// Standard deviations of a 90 % interval.
const NINETY: f64 = 1.645;
/// Two placements whose costs differ by less are equally cheap.
const EQUAL: f64 = 0.02;

/// A kernel Energy Model as one finds it: switching power only, each class off by up to a quarter.
pub fn kernel_em(machine: &Machine, seed: u64) -> Prior {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xE5);
    let shape = machine.shape();
    let curve = |(class, shape): (&TrueClass, &ClassShape)| {
        let top = class.busy.last().unwrap() + class.shared.last().unwrap();
        let off = 0.75 + 0.5 * rng.f64();
        let fastest = shape.opps.last().unwrap().khz.get();
        let power = |khz: u64| {
            let f = ratio(khz, fastest);
            Microwatts::new(whole(top * off * f * (0.6 + 0.4 * f).powi(2) * 1e6))
        };
        shape.opps.iter().map(|opp| power(opp.khz.get())).collect()
    };
    Prior::Watts(
        machine
            .classes
            .iter()
            .zip(&shape.classes)
            .map(curve)
            .collect(),
    )
}

pub fn train(model: &mut Model, machine: &mut Machine, rows: usize) -> Vec<Verdict> {
    (0..rows).map(|_| model.update(&machine.step().0)).collect()
}

/// Errors and coverage of one model on one machine.
#[derive(Default, Debug)]
pub struct Score {
    /// Mean error of predicted power against true power over half a minute not seen before.
    pub mape: f64,
    /// The same of the true parameters: activity of tasks and load beside the CPUs that no model sees.
    pub floor: f64,
    /// Part of those readings within the 90 % interval.
    pub covered: f64,
    /// Errors of the power of the first busy CPU, per OPP whose error bar is within 5 %.
    pub marginal: Vec<f64>,
    /// Whether the truth is within the 90 % interval, for every identified OPP.
    pub marginal_covered: Vec<bool>,
    /// None with a single class.
    pub ranking: Option<Ranking>,
}

/// How well the cheapest class is known.
#[derive(Clone, Copy, Debug)]
pub struct Ranking {
    /// Part of task sizes for which the cheapest class of an empty machine is named rightly.
    pub empty: f64,
    /// The same under random loads, and the energy lost where it is not.
    pub loaded: f64,
    pub regret: f64,
}

pub fn score(model: &mut Model, machine: &Machine, seed: u64) -> Score {
    let mut score = Score::default();
    predictions(&mut score, model, machine);
    for (k, class) in machine.classes.iter().enumerate() {
        for (i, (_, estimate)) in model.curve(k).iter().enumerate() {
            let truth = (class.busy[i] + class.shared[i]) * 1e6;
            if estimate.identified {
                let inside = (estimate.uw - truth).abs() < NINETY * estimate.sigma_uw;
                score.marginal_covered.push(inside);
            }
            if estimate.sigma_uw < 0.05 * estimate.uw {
                score.marginal.push((estimate.uw / truth - 1.0).abs());
            }
        }
    }
    score.ranking = (machine.classes.len() > 1).then(|| ranking(model, machine, seed));
    score
}

fn ranking(model: &mut Model, machine: &Machine, seed: u64) -> Ranking {
    let (truth, ours) = (machine.table(), model.cost_table());
    ours.check().unwrap();
    let empty = |step: u32| {
        let loads = machine
            .classes
            .iter()
            .map(|class| load(class, 0.0, 0.0))
            .collect();
        (loads, 8.0 * 64.0_f64.powf(f64::from(step) / 60.0))
    };
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xACE);
    let loaded = |_| {
        let loads = machine
            .classes
            .iter()
            .map(|class| random_load(class, &mut rng))
            .collect();
        (loads, 8.0 * 64.0_f64.powf(rng.f64()))
    };
    let (empty, _) = agreement(&truth, &ours, (0..60).map(empty));
    let (loaded, regret) = agreement(&truth, &ours, (0..1000).map(loaded));
    Ranking {
        empty,
        loaded,
        regret,
    }
}

fn predictions(score: &mut Score, model: &Model, machine: &Machine) {
    let mut ahead = machine.clone();
    let rows = 120;
    for _ in 0..rows {
        let (observation, watts) = ahead.step();
        let prediction = model.predict(&observation).unwrap();
        let off = (read_uw(&observation) - prediction.uw).abs();
        score.mape += (prediction.uw / (watts * 1e6) - 1.0).abs() / f64::from(rows);
        score.floor += (machine.expected(&observation) / watts - 1.0).abs() / f64::from(rows);
        score.covered += count(off < NINETY * prediction.sigma_uw) / f64::from(rows);
    }
}

/// Part of the cases in which the class that `ours` finds cheapest costs no more, truly, than the one that
/// `truth` finds, and the mean energy lost.
fn agreement(
    truth: &CostTable,
    ours: &CostTable,
    cases: impl Iterator<Item = (Vec<ClassLoad>, f64)>,
) -> (f64, f64) {
    let (mut agreed, mut lost, mut all) = (0.0, 0.0, 0.0);
    for (loads, util) in cases {
        let best = |table| {
            (0..loads.len())
                .filter_map(|k| Some((k, marginal_cost(table, &loads, k, util)?)))
                .min_by(|a, b| a.1.total_cmp(&b.1))
        };
        let (Some((_, least)), Some((chosen, _))) = (best(truth), best(ours)) else {
            continue;
        };
        let paid = marginal_cost(truth, &loads, chosen, util).unwrap();
        agreed += count(paid <= least + EQUAL * least.abs());
        lost += (paid - least) / least.abs().max(1.0);
        all += 1.0;
    }
    (agreed / all, lost / all)
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

pub fn share(flags: &[bool]) -> f64 {
    let yes: f64 = flags.iter().map(|flag| count(*flag)).sum();
    yes / flags.len().to_f64().unwrap()
}
