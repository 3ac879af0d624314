//! How close the model comes after a minute of mixed use.

use crate::machine::{self, Machine, gauss, tables};
use scx_joule::model::cost::{ClassLoad, marginal_cost};
use scx_joule::model::{Model, Prior, Verdict};
use scx_joule::units::Microwatts;

const MINUTE: usize = 240;
const SEEDS: u64 = 6;

/// A kernel Energy Model as one finds it: switching power only, each class off by up to a quarter.
fn kernel_em(machine: &Machine, seed: u64) -> Prior {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xE5);
    let shape = machine.shape();
    let curve = |(class, shape): (&machine::TrueClass, &scx_joule::model::ClassShape)| {
        let top = class.busy.last().unwrap() + class.shared.last().unwrap();
        let off = 0.75 + 0.5 * rng.f64();
        let fastest = shape.opps.last().unwrap().khz.get();
        (shape.opps.iter())
            .map(|opp| {
                let f = ratio(opp.khz.get(), fastest);
                let power = top * off * f * (0.6 + 0.4 * f).powi(2);
                Microwatts::new(machine::whole(power * 1e6))
            })
            .collect()
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

fn ratio(a: u64, b: u64) -> f64 {
    f64::from(u32::try_from(a).unwrap()) / f64::from(u32::try_from(b).unwrap())
}

fn train(model: &mut Model, machine: &mut Machine, rows: usize) -> Vec<Verdict> {
    (0..rows).map(|_| model.update(&machine.step().0)).collect()
}

/// Errors and coverage of one model on one machine.
#[derive(Default, Debug)]
struct Score {
    mape: f64,
    covered: f64,
    marginal: Vec<f64>,
    marginal_covered: Vec<bool>,
    agreement: f64,
    regret: f64,
}

fn score(model: &mut Model, machine: &Machine, seed: u64) -> Score {
    let mut score = Score::default();
    let mut ahead = machine.clone();
    let held_out = 120;
    for _ in 0..held_out {
        let (observation, watts) = ahead.step();
        let prediction = model.predict(&observation).unwrap();
        let read = machine::read_uw(&observation);
        score.mape += (prediction.uw / (watts * 1e6) - 1.0).abs() / f64::from(held_out);
        let inside = (read - prediction.uw).abs() < 1.645 * prediction.sigma_uw;
        score.covered += f64::from(u8::from(inside)) / f64::from(held_out);
    }
    for (k, class) in machine.classes.iter().enumerate() {
        for (i, (_, estimate)) in model.curve(k).iter().enumerate() {
            if estimate.identified && estimate.sigma_uw < 0.1 * estimate.uw {
                let truth = (class.busy[i] + class.shared[i]) * 1e6;
                score.marginal.push((estimate.uw / truth - 1.0).abs());
                let inside = (estimate.uw - truth).abs() < 1.645 * estimate.sigma_uw;
                score.marginal_covered.push(inside);
            }
        }
    }
    let (agreement, regret) = ranking(model, machine, seed);
    Score {
        agreement,
        regret,
        ..score
    }
}

/// Part of placements for which the model names the truly cheapest class (or one within 2 % of it), and
/// the mean energy lost.
fn ranking(model: &mut Model, machine: &Machine, seed: u64) -> (f64, f64) {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xACE);
    let (truth, ours) = (machine.table(), model.cost_table());
    ours.check().unwrap();
    let (mut agreed, mut lost, mut count) = (0.0, 0.0, 0.0);
    for _ in 0..1000 {
        let loads: Vec<ClassLoad> = machine
            .classes
            .iter()
            .map(|class| random_load(class, &mut rng))
            .collect();
        let util = 8.0 * 64.0_f64.powf(rng.f64());
        let best = |table| {
            (0..loads.len())
                .filter_map(|k| Some((k, marginal_cost(table, &loads, k, util)?)))
                .min_by(|a, b| a.1.total_cmp(&b.1))
        };
        let (Some((_, least)), Some((chosen, _))) = (best(&truth), best(&ours)) else {
            continue;
        };
        let paid = marginal_cost(&truth, &loads, chosen, util).unwrap();
        agreed += f64::from(u8::from(paid <= least + 0.02 * least.abs()));
        lost += (paid - least) / least.abs().max(1.0);
        count += 1.0;
    }
    (agreed / count, lost / count)
}

fn random_load(class: &machine::TrueClass, rng: &mut fastrand::Rng) -> ClassLoad {
    let top = class.caps.last().unwrap();
    let cpus = u16::try_from(class.cpus).unwrap();
    let util = if rng.f64() < 0.3 {
        0.0
    } else {
        0.7 * top * f64::from(cpus) * rng.f64().powi(2)
    };
    let idle_depth = Some(rng.usize(..2));
    ClassLoad {
        cpus,
        domains: 1,
        util,
        top: util.min(top * 0.7) * rng.f64(),
        idle_depth,
        domain_asleep: util == 0.0 && idle_depth == Some(1),
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn quantile(values: &mut [f64], at: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * at / 100).min(values.len() - 1)]
}

fn share(flags: &[bool]) -> f64 {
    let yes = u32::try_from(flags.iter().filter(|flag| **flag).count()).unwrap();
    f64::from(yes) / f64::from(u32::try_from(flags.len().max(1)).unwrap())
}

#[test]
fn after_a_minute_of_mixed_use_the_model_knows_the_machine() {
    for (name, from_em) in [("kernel EM", true), ("capacities", false)] {
        let (mut mapes, mut covers, mut marginals) = (Vec::new(), Vec::new(), Vec::new());
        let (mut inside, mut agreements, mut regrets) = (Vec::new(), Vec::new(), Vec::new());
        for path in tables() {
            for seed in 0..SEEDS {
                let mut machine = Machine::load(&path, seed);
                let prior = if from_em {
                    kernel_em(&machine, seed)
                } else {
                    Prior::Capacities
                };
                let mut model = Model::new(machine.shape(), &prior).unwrap();
                train(&mut model, &mut machine, MINUTE);
                let mut score = score(&mut model, &machine, seed);
                let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
                println!(
                    "{name:10} {stem:20} {seed}: MAPE {:.1}% cover {:.2} | marginal n {} med {:.1}% p90 {:.1}% cover {:.2} | rank {:.3} regret {:.2}%",
                    100.0 * score.mape,
                    score.covered,
                    score.marginal.len(),
                    100.0 * median(&mut score.marginal),
                    100.0 * quantile(&mut score.marginal, 90),
                    share(&score.marginal_covered),
                    score.agreement,
                    100.0 * score.regret
                );
                mapes.push(score.mape);
                covers.push(score.covered);
                marginals.extend(score.marginal);
                inside.extend(score.marginal_covered);
                if machine.classes.len() > 1 {
                    agreements.push(score.agreement);
                    regrets.push(score.regret);
                }
            }
        }
        println!(
            "{name}: MAPE median {:.2}% worst {:.2}%; cover median {:.2}; marginal median {:.1}% p90 {:.1}% cover {:.2}; rank median {:.3} worst {:.3}; regret median {:.2}%",
            100.0 * median(&mut mapes),
            100.0 * quantile(&mut mapes, 100),
            median(&mut covers),
            100.0 * median(&mut marginals),
            100.0 * quantile(&mut marginals, 90),
            share(&inside),
            median(&mut agreements),
            quantile(&mut agreements, 0),
            100.0 * median(&mut regrets)
        );
    }
    let _ = gauss(&mut fastrand::Rng::with_seed(0));
}
