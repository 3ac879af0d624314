//! How close the model comes after a minute of mixed use.

use crate::machine::{Machine, tables};
use crate::score::{Score, kernel_em, quantile, score, share, train};
use scx_joule::model::{Model, Prior};

/// 4 Hz.
const MINUTE: usize = 240;
const SEEDS: u64 = 8;

fn scores(prior: impl Fn(&Machine, u64) -> Prior) -> Vec<Score> {
    let mut scores = Vec::new();
    for path in tables() {
        for seed in 0..SEEDS {
            let mut machine = Machine::load(&path, seed);
            let mut model = Model::new(machine.shape(), &prior(&machine, seed)).unwrap();
            train(&mut model, &mut machine, MINUTE);
            scores.push(score(&mut model, &machine, seed));
        }
    }
    scores
}

fn report(name: &str, scores: &[Score]) {
    let each = |pick: fn(&Score) -> f64| scores.iter().map(pick).collect::<Vec<f64>>();
    let line = |what: &str, values: &[f64]| {
        println!(
            "{name:10} {what:42} n {:4} p10 {:6.3} median {:6.3} p90 {:6.3} worst {:6.3}/{:6.3}",
            values.len(),
            quantile(values, 0.1),
            quantile(values, 0.5),
            quantile(values, 0.9),
            quantile(values, 0.0),
            quantile(values, 1.0)
        );
    };
    line("held-out power, relative error", &each(|s| s.mape));
    line("  of the true parameters", &each(|s| s.floor));
    line("readings within the 90 % interval", &each(|s| s.covered));
    let marginal: Vec<f64> = scores.iter().flat_map(|s| s.marginal.clone()).collect();
    line("marginal power, relative error", &marginal);
    let covered: Vec<bool> = scores
        .iter()
        .flat_map(|s| s.marginal_covered.clone())
        .collect();
    println!(
        "{name:10} marginal power within its 90 % interval: {:.3}",
        share(&covered)
    );
    let ranked =
        |pick: fn(&Score) -> Option<f64>| scores.iter().filter_map(pick).collect::<Vec<_>>();
    line(
        "cheapest class agrees, empty machine",
        &ranked(|s| Some(s.ranking?.empty)),
    );
    line(
        "cheapest class agrees, random loads",
        &ranked(|s| Some(s.ranking?.loaded)),
    );
    line(
        "energy lost by the ranking",
        &ranked(|s| Some(s.ranking?.regret)),
    );
}

#[test]
fn after_a_minute_of_mixed_use_the_model_knows_the_machine() {
    for (name, scores) in [
        ("kernel EM", scores(kernel_em)),
        ("capacities", scores(|_, _| Prior::Capacities)),
    ] {
        report(name, &scores);
        let each = |pick: fn(&Score) -> f64| scores.iter().map(pick).collect::<Vec<f64>>();
        let excess: Vec<f64> = scores.iter().map(|s| s.mape - s.floor).collect();
        assert!(quantile(&each(|s| s.mape), 0.5) <= 0.03);
        assert!(quantile(&excess, 1.0) <= 0.03, "{excess:?}");
        let marginal: Vec<f64> = scores.iter().flat_map(|s| s.marginal.clone()).collect();
        assert!(marginal.len() > 50 && quantile(&marginal, 0.5) <= 0.05);
        let covered: Vec<bool> = scores
            .iter()
            .flat_map(|s| s.marginal_covered.clone())
            .collect();
        assert!(
            (0.80..=0.97).contains(&share(&covered)),
            "{}",
            share(&covered)
        );
        let readings = quantile(&each(|s| s.covered), 0.5);
        assert!((0.80..=0.97).contains(&readings), "{readings}");
    }
}

#[test]
fn a_class_that_never_runs_stays_at_the_prior_and_says_so() {
    let mut machine = Machine::load(&tables()[1], 1);
    machine.banned = Some(2);
    let mut model = Model::new(machine.shape(), &kernel_em(&machine, 1)).unwrap();
    let before = model.curve(2);
    train(&mut model, &mut machine, MINUTE);
    for ((_, before), (_, after)) in before.iter().zip(model.curve(2)) {
        assert!(!after.identified);
        assert!(
            (after.uw / before.uw - 1.0).abs() < 0.3,
            "{before:?} {after:?}"
        );
    }
    let confidence = model.confidence();
    assert!(confidence[2] < 0.3 && confidence[1] > 0.4, "{confidence:?}");
}

#[test]
fn equal_observations_give_equal_models() {
    let run = || {
        let mut machine = Machine::load(&tables()[0], 3);
        let mut model = Model::new(machine.shape(), &Prior::Capacities).unwrap();
        train(&mut model, &mut machine, MINUTE);
        (model.power(), model.cost_table())
    };
    assert_eq!(run(), run());
}

#[test]
fn twenty_minutes_of_use_does_not_wear_the_numbers_out() {
    let mut machine = Machine::load(&tables()[1], 5);
    let mut model = Model::new(machine.shape(), &kernel_em(&machine, 5)).unwrap();
    train(&mut model, &mut machine, 20 * MINUTE);
    let score = score(&mut model, &machine, 5);
    assert_eq!(model.numerical_resets(), 0);
    assert!(score.mape < score.floor + 0.02, "{score:?}");
    let errors = quantile(&score.marginal, 0.9);
    println!("after 20 min: {score:?}");
    assert!(errors < 0.08, "{errors}");
}
