//! What the model does when the machine, or something else on the rail, changes.

use crate::machine::Machine;
use crate::score::{count, kernel_em, quantile, train};
use crate::soc::{TrueClass, tables};
use scx_joule::model::{Model, Verdict};
use scx_joule::observation::{ClassCost, CostTable, Observation};
use scx_joule::units::Microjoules;

/// 4 Hz.
const SECOND: usize = 4;
/// More in release: `make test-full`.
const SEEDS: u64 = if cfg!(debug_assertions) { 2 } else { 6 };

struct Run {
    machine: Machine,
    model: Model,
    name: String,
}

/// Each table's machine under several seeds, its model trained for two minutes.
fn runs() -> Vec<Run> {
    let mut runs = Vec::new();
    for path in tables() {
        for seed in 0..SEEDS {
            let mut machine = Machine::load(&path, seed).unwrap();
            let mut model = Model::new(machine.shape(), &kernel_em(&machine, seed)).unwrap();
            train(&mut model, &mut machine, 120 * SECOND);
            let name = format!("{}/{seed}", path.file_stem().unwrap().to_string_lossy());
            runs.push(Run {
                machine,
                model,
                name,
            });
        }
    }
    runs
}

/// Median error of the power of the first busy CPU over the class's OPPs known within 8 %.
fn error(run: &Run, k: usize, known: &[usize]) -> f64 {
    let class = &run.machine.classes[k];
    let curve = run.model.curve(k);
    let errors: Vec<f64> = (known.iter())
        .map(|&i| {
            (curve[i].1.uw * 1e-6 / (run.machine.busy_now(k, i) + class.shared[i]) - 1.0).abs()
        })
        .collect();
    quantile(&errors, 0.5)
}

fn known(run: &Run, k: usize) -> Vec<usize> {
    let curve = run.model.curve(k);
    let near = |i: &usize| curve[*i].1.sigma_uw < 0.08 * curve[*i].1.uw;
    (0..curve.len()).filter(near).collect()
}

/// Whether a class ran for more than 2 % of one CPU's time: otherwise nothing can be learnt about it.
fn in_use(observation: &Observation, k: usize) -> bool {
    let busy: u64 = observation.classes[k]
        .busy
        .iter()
        .map(|time| time.get())
        .sum();
    busy > observation.duration.get() / 50
}

/// Applies a change to the class known best and returns, per machine, the seconds of that class's use until
/// its error is back under 5 %, and the error after 30 s of use.
fn recovery(what: &str, change: impl Fn(&mut TrueClass)) -> (Vec<f64>, Vec<f64>) {
    let (mut seconds, mut errors) = (Vec::new(), Vec::new());
    for mut run in runs() {
        let classes = 0..run.machine.classes.len();
        let k = classes.max_by_key(|&k| known(&run, k).len()).unwrap();
        let opps = known(&run, k);
        if opps.len() < 4 || error(&run, k, &opps) > 0.04 {
            continue;
        }
        change(&mut run.machine.classes[k]);
        run.machine.stay_in_full_use();
        let at_once = error(&run, k, &opps);
        let (mut used, mut rows, mut under) = (0.0, 0, f64::INFINITY);
        while used < 30.0 && rows < 600 * SECOND {
            let observation = run.machine.step().0;
            run.model.update(&observation);
            used += count(in_use(&observation, k)) / 4.0;
            rows += 1;
            if error(&run, k, &opps) < 0.05 {
                under = used.min(under);
            }
        }
        let after = error(&run, k, &opps);
        println!(
            "changes: {what:16} {:14} class {k} error {at_once:.3}, under 5 % after {under} s, after 30 s {after:.3}",
            run.name
        );
        seconds.push(under);
        errors.push(after);
    }
    println!(
        "changes: {what:16} n {} under 5 % after: median {} p80 {} s; error after 30 s: median {:.3} p80 {:.3}",
        seconds.len(),
        quantile(&seconds, 0.5),
        quantile(&seconds, 0.8),
        quantile(&errors, 0.5),
        quantile(&errors, 0.8)
    );
    (seconds, errors)
}

#[test]
fn a_cluster_that_draws_double_is_found_within_half_a_minute() {
    let (seconds, errors) = recovery("doubled cluster", |class| {
        class.busy.iter_mut().for_each(|power| *power *= 2.0);
        class.shared.iter_mut().for_each(|power| *power *= 2.0);
    });
    assert!(quantile(&seconds, 0.8) <= 30.0, "{seconds:?}");
    assert!(quantile(&errors, 0.5) <= 0.05, "{errors:?}");
}

#[test]
fn more_leakage_is_found_within_half_a_minute() {
    let (seconds, errors) = recovery("leakage", |class| {
        let leak = 0.25 * class.busy[class.busy.len() / 3];
        class.busy.iter_mut().for_each(|power| *power += leak);
    });
    assert!(quantile(&seconds, 0.8) <= 30.0, "{seconds:?}");
    assert!(quantile(&errors, 0.5) <= 0.05, "{errors:?}");
}

#[test]
fn a_graphics_burst_of_three_times_the_package_does_not_move_the_cpus_costs() {
    let mut moves = Vec::new();
    for mut run in runs() {
        let before: Vec<_> = (0..run.machine.classes.len())
            .map(|k| run.model.curve(k))
            .collect();
        let package = run.model.predict(&run.machine.clone().step().0).unwrap().uw * 1e-6;
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..15 * SECOND {
            run.machine.foreign = 3.0 * package * (0.8 + 0.4 * rng.f64());
            train(&mut run.model, &mut run.machine, 1);
        }
        run.machine.foreign = 0.0;
        let mut moved = Vec::new();
        for (k, before) in before.iter().enumerate() {
            for ((_, old), (_, new)) in before.iter().zip(run.model.curve(k)) {
                moved.push((new.uw / old.uw - 1.0).abs());
            }
        }
        println!(
            "changes: graphics burst {:14} costs moved by: median {:.4} worst {:.4}",
            run.name,
            quantile(&moved, 0.5),
            quantile(&moved, 1.0)
        );
        moves.push(quantile(&moved, 1.0));
    }
    assert!(quantile(&moves, 1.0) <= 0.03, "{moves:?}");
}

#[test]
fn tasks_that_come_and_go_are_not_taken_for_a_change_of_the_machine() {
    for mut run in runs() {
        let verdicts = train(&mut run.model, &mut run.machine, 180 * SECOND);
        let changes: Vec<_> = (verdicts.iter())
            .filter(|verdict| matches!(verdict, Verdict::Changed(_)))
            .collect();
        assert!(changes.is_empty(), "{}: {changes:?}", run.name);
    }
}

#[test]
fn one_wild_reading_teaches_nothing() {
    for mut run in runs() {
        let before = run.model.power();
        let mut observation = run.machine.step().0;
        let energy = observation.meters.package.as_mut().unwrap();
        energy.amount = Microjoules::new(energy.amount.get() * 50);
        assert_eq!(
            run.model.update(&observation),
            Verdict::Held,
            "{}",
            run.name
        );
        assert_eq!(run.model.power(), before, "{}", run.name);
    }
}

#[test]
fn under_noise_the_published_table_rests() {
    for mut run in runs() {
        let first = run.model.cost_table();
        let mut turns = 0;
        let mut last = Vec::new();
        let mut generation = first.generation;
        for _ in 0..120 {
            train(&mut run.model, &mut run.machine, SECOND);
            let table = run.model.cost_table();
            table.check().unwrap();
            generation = table.generation;
            let costs = mid_costs(&table);
            turns += reversals(&mut last, &costs);
        }
        let published = generation - first.generation;
        println!(
            "changes: {:14} published {published} times in 120 s, {turns} reversals",
            run.name
        );
        // Costs that move do so to where they belong, rather than to and fro.
        assert!(
            turns <= 15 * run.machine.classes.len(),
            "{}: {turns}",
            run.name
        );
    }
}

/// The published power of a first busy CPU in the middle of each class's OPPs, µW.
fn mid_costs(table: &CostTable) -> Vec<f64> {
    let middle = |class: &ClassCost| {
        let opp = class.opps[class.opps.len() / 2];
        f64::from(opp.busy_uw + opp.shared_uw)
    };
    table.classes.iter().map(middle).collect()
}

/// How many costs moved by more than 1 % against the direction of their last such move.
fn reversals(last: &mut Vec<(f64, f64)>, costs: &[f64]) -> usize {
    last.resize(costs.len(), (0.0, 0.0));
    let mut turns = 0;
    for ((value, direction), cost) in last.iter_mut().zip(costs) {
        let step = cost - *value;
        if *value > 0.0 && step.abs() > 0.01 * *value {
            turns += usize::from(step * *direction < 0.0);
            *direction = step;
        }
        *value = *cost;
    }
    turns
}
