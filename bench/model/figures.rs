//! The figures of one subject over all machines, and how they are told.

use crate::score::{Point, Ranking, Score, quantile, share};
use serde_json::{Map, Value, json};

/// Points of a curve whose power the rows alone determine this well are held to [`CURVE`].
const KNOWN: f64 = 0.025;
const CURVE: f64 = 0.05;

/// What was measured of one subject.
#[derive(Default)]
pub struct Figures {
    minute: Scores,
    later: Scores,
    pub recover_s: Vec<f64>,
    pub burst: Vec<f64>,
    pub update_us: Option<f64>,
    pub week_drift: Option<f64>,
}

impl Figures {
    /// Scores after a minute of use.
    pub fn minute(&mut self) -> &mut Vec<Score> {
        &mut self.minute.0
    }

    /// Adds what was measured of the same subject on other machines.
    pub fn append(&mut self, mut other: Self) {
        self.minute.0.append(&mut other.minute.0);
        self.later.0.append(&mut other.later.0);
        self.recover_s.append(&mut other.recover_s);
        self.burst.append(&mut other.burst);
    }

    /// Scores after ten minutes.
    pub fn later(&mut self) -> &mut Vec<Score> {
        &mut self.later.0
    }
}

/// A figure's name, its target, and its value for a subject.
type Row<T> = (&'static str, &'static str, fn(&T) -> Option<f64>);

/// Told after a minute of use and, as `..._10min`, after ten. The targets are for the former.
const SCORES: [Row<Scores>; 22] = [
    ("mape_median_pct", "<= 3", |s| {
        pct(quantile(&s.each(|s| s.mape), 0.5))
    }),
    ("mape_worst_pct", "<= 6", |s| {
        pct(quantile(&s.each(|s| s.mape), 1.0))
    }),
    ("energy_10min_pct", "<= 1", |s| {
        pct(quantile(&s.each(|s| s.energy), 1.0))
    }),
    ("energy_10min_median_pct", "", |s| {
        pct(quantile(&s.each(|s| s.energy), 0.5))
    }),
    ("curve_worst_pct", "<= 5", |s| {
        pct(quantile(&s.known(), 1.0))
    }),
    ("curve_median_pct", "", |s| pct(quantile(&s.known(), 0.5))),
    ("curve_within_5_pct", "100", |s| {
        pct(share(s.known().iter().map(|e| *e <= CURVE)))
    }),
    ("curve_known_points", "", |s| count(s.known().len())),
    ("curve_other_in_interval_pct", "80..97", |s| {
        pct(share(s.others()?))
    }),
    ("curve_other_points", "", |s| {
        count(s.points().count() - s.known().len())
    }),
    ("curve_all_median_pct", "", |s| {
        pct(quantile(
            &s.points().map(|p| p.error).collect::<Vec<_>>(),
            0.5,
        ))
    }),
    ("coverage90_pct", "85..95", |s| pct(pooled(&s.power()))),
    ("coverage90_lowest_pct", ">= 80", |s| {
        pct(lowest(&s.power()))
    }),
    ("coverage90_highest_pct", "<= 97", |s| {
        pct(highest(&s.power()))
    }),
    ("width90_median_pct", "<= 8", |s| pct(width(&s.power()))),
    ("difference_coverage90_pct", "85..95", |s| {
        pct(pooled(&s.differences()))
    }),
    ("difference_coverage90_lowest_pct", ">= 80", |s| {
        pct(lowest(&s.differences()))
    }),
    ("difference_coverage90_highest_pct", "<= 97", |s| {
        pct(highest(&s.differences()))
    }),
    ("difference_width90_median_pct", "<= 8", |s| {
        pct(width(&s.differences()))
    }),
    ("rank_agree_pct", ">= 97", |s| {
        pct(mean(&s.ranked(|r| r.agreed)))
    }),
    ("regret_pct", "<= 1", |s| pct(mean(&s.ranked(|r| r.regret)))),
    ("regret_median_pct", "", |s| {
        pct(quantile(&s.ranked(|r| r.regret), 0.5))
    }),
];

const TRIALS: [Row<Figures>; 6] = [
    ("recover_s", "<= 30", |f| some(quantile(&f.recover_s, 1.0))),
    ("recover_median_s", "", |f| {
        some(quantile(&f.recover_s, 0.5))
    }),
    ("recover_in_30s_pct", "100", |f| {
        pct(share(f.recover_s.iter().map(|seconds| *seconds <= 30.0)))
    }),
    ("burst_shift_pct", "<= 3", |f| pct(quantile(&f.burst, 1.0))),
    ("update_us", "<= 20", |f| f.update_us),
    ("week_drift_pct", "<= 0.5", |f| pct(f.week_drift?)),
];

/// One subject's scores, a machine each.
#[derive(Default)]
struct Scores(Vec<Score>);

impl Scores {
    fn each(&self, pick: fn(&Score) -> f64) -> Vec<f64> {
        self.0.iter().map(pick).collect()
    }

    fn ranked(&self, pick: fn(&Ranking) -> f64) -> Vec<f64> {
        let rankings = self.0.iter().filter_map(|score| score.ranking.as_ref());
        rankings.map(pick).collect()
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.0.iter().flat_map(|score| &score.curve)
    }

    /// Errors of the points that the rows determine.
    fn known(&self) -> Vec<f64> {
        let known = self.points().filter(|point| point.design <= KNOWN);
        known.map(|point| point.error).collect()
    }

    /// Whether the intervals of the other points hold the truth.
    fn others(&self) -> Option<Vec<bool>> {
        let others = self.points().filter(|point| point.design > KNOWN);
        others.map(|point| Some(point.judged?.0)).collect()
    }

    fn power(&self) -> Vec<&[(bool, f64)]> {
        self.0.iter().map(|score| score.power.as_slice()).collect()
    }

    fn differences(&self) -> Vec<&[(bool, f64)]> {
        let differences = self.0.iter().map(|score| score.differences.as_slice());
        differences.collect()
    }
}

fn some(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

fn pct(part: f64) -> Option<f64> {
    some(part * 100.0)
}

fn count(number: usize) -> Option<f64> {
    u32::try_from(number).ok().map(f64::from)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX))
}

/// Coverage over the intervals of all machines together.
fn pooled(machines: &[&[(bool, f64)]]) -> f64 {
    share(
        machines
            .iter()
            .flat_map(|m| m.iter())
            .map(|(inside, _)| *inside),
    )
}

fn coverages(machines: &[&[(bool, f64)]]) -> Vec<f64> {
    let with_intervals = machines.iter().filter(|m| !m.is_empty());
    with_intervals
        .map(|m| share(m.iter().map(|(inside, _)| *inside)))
        .collect()
}

fn lowest(machines: &[&[(bool, f64)]]) -> f64 {
    quantile(&coverages(machines), 0.0)
}

fn highest(machines: &[&[(bool, f64)]]) -> f64 {
    quantile(&coverages(machines), 1.0)
}

fn width(machines: &[&[(bool, f64)]]) -> f64 {
    let widths = machines
        .iter()
        .flat_map(|m| m.iter())
        .map(|(_, width)| *width);
    quantile(&widths.collect::<Vec<_>>(), 0.5)
}

/// All figures by name and target, with their values per subject.
fn rows(subjects: &[(&str, &Figures)]) -> Vec<(String, &'static str, Vec<Option<f64>>)> {
    let each = |value: &dyn Fn(&Figures) -> Option<f64>| -> Vec<Option<f64>> {
        subjects.iter().map(|(_, figures)| value(figures)).collect()
    };
    let minute = SCORES
        .iter()
        .map(|(name, target, value)| (String::from(*name), *target, each(&|f| value(&f.minute))));
    let trials = TRIALS
        .iter()
        .map(|(name, target, value)| (String::from(*name), *target, each(value)));
    let later = SCORES
        .iter()
        .map(|(name, _, value)| (format!("{name}_10min"), "", each(&|f| value(&f.later))));
    minute.chain(trials).chain(later).collect()
}

pub fn print(subjects: &[(&str, &Figures)]) {
    print!("{:39} {:>7}", "figure", "target");
    subjects.iter().for_each(|(name, _)| print!(" {name:>15}"));
    println!();
    for (name, target, values) in rows(subjects) {
        print!("{name:39} {target:>7}");
        for value in values {
            match value {
                Some(value) => print!(" {value:>15.2}"),
                None => print!(" {:>15}", "-"),
            }
        }
        println!();
    }
    if let Some((_, figures)) = subjects.first() {
        let intervals: usize = figures.minute.power().iter().map(|m| m.len()).sum();
        let machines = figures.minute.0.len();
        println!(
            "{machines} machines, {intervals} intervals of power; '-': not measured or not given"
        );
    }
}

pub fn json(subjects: &[(&str, &Figures)]) -> Value {
    let mut all: Vec<Map<String, Value>> = vec![Map::new(); subjects.len()];
    for (name, _, values) in rows(subjects) {
        for (fields, value) in all.iter_mut().zip(values) {
            fields.insert(name.clone(), json!(value));
        }
    }
    let names = subjects.iter().map(|(name, _)| String::from(*name));
    Value::Object(names.zip(all.into_iter().map(Value::Object)).collect())
}
