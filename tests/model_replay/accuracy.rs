//! How close the model comes after a minute of mixed use.

use crate::design::{Design, Truth, prior_covariance};
use crate::machine::Machine;
use crate::score::{Exam, Score, kernel_em, quantile, share, train};
use crate::soc::tables;
use scx_joule::model::{Model, Prior};

/// 4 Hz.
const MINUTE: usize = 240;
/// More in release: `make test-full`.
const SEEDS: u64 = if cfg!(debug_assertions) { 1 } else { 6 };

/// A subject's score and that of the true parameters.
fn examined(model: &mut Model, machine: &mut Machine, seed: u64) -> (Score, Score) {
    let mut design = Design::new(machine);
    for _ in 0..MINUTE {
        let (observation, watts) = machine.step();
        model.update(&observation);
        design.add(&observation, watts);
    }
    let prior = prior_covariance(&model.belief().unwrap(), &design.columns);
    let exam = Exam::new(machine, &design, &prior, seed);
    (exam.score(model), exam.score(&mut Truth::new(machine)))
}

fn scores(prior: impl Fn(&Machine, u64) -> Prior) -> Vec<(Score, Score)> {
    let mut scores = Vec::new();
    for path in tables() {
        for seed in 0..SEEDS {
            let mut machine = Machine::load(&path, seed).unwrap();
            let mut model = Model::new(machine.shape(), &prior(&machine, seed)).unwrap();
            scores.push(examined(&mut model, &mut machine, seed));
        }
    }
    scores
}

#[test]
fn after_a_minute_of_mixed_use_the_model_knows_the_machine() {
    for (name, scores) in [
        ("kernel EM", scores(kernel_em)),
        ("capacities", scores(|_, _| Prior::Capacities)),
    ] {
        let mapes: Vec<f64> = scores.iter().map(|(ours, _)| ours.mape).collect();
        let excess = |(ours, truth): &(Score, Score)| ours.mape - truth.mape;
        let excess: Vec<f64> = scores.iter().map(excess).collect();
        println!("{name}: {mapes:.3?}, above the irreducible {excess:.3?}");
        assert!(quantile(&mapes, 0.5) <= 0.035, "{name}: {mapes:?}");
        assert!(quantile(&excess, 1.0) <= 0.03, "{name}: {excess:?}");
        // A minute hardly determines any single OPP: what an estimator that knew the noise would make of
        // the same rows is 5 % off in the median.
        let points = scores.iter().flat_map(|(ours, _)| &ours.curve);
        let errors: Vec<f64> = points.map(|point| point.error).collect();
        assert!(quantile(&errors, 0.5) <= 0.1, "{name}: {errors:?}");
        let intervals = scores.iter().flat_map(|(ours, _)| &ours.power);
        let covered = share(intervals.map(|(inside, _)| *inside));
        assert!((0.80..=0.97).contains(&covered), "{name}: {covered}");
        let points = scores.iter().flat_map(|(ours, _)| &ours.curve);
        let covered = share(points.filter_map(|point| Some(point.judged?.0)));
        assert!((0.80..=0.99).contains(&covered), "{name}: {covered}");
    }
}

#[test]
fn a_class_that_never_runs_stays_at_the_prior_and_says_so() {
    let mut machine = Machine::load(&tables()[1], 1).unwrap();
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
        let mut machine = Machine::load(&tables()[0], 3).unwrap();
        let mut model = Model::new(machine.shape(), &Prior::Capacities).unwrap();
        train(&mut model, &mut machine, MINUTE);
        (model.power(), model.cost_table())
    };
    assert_eq!(run(), run());
}

#[test]
fn twenty_minutes_of_use_does_not_wear_the_numbers_out() {
    let mut machine = Machine::load(&tables()[1], 5).unwrap();
    let mut model = Model::new(machine.shape(), &kernel_em(&machine, 5)).unwrap();
    train(&mut model, &mut machine, 20 * MINUTE);
    let (ours, truth) = examined(&mut model, &mut machine, 5);
    assert_eq!(model.numerical_resets(), 0);
    assert!(
        ours.mape < truth.mape + 0.02,
        "{} {}",
        ours.mape,
        truth.mape
    );
}
