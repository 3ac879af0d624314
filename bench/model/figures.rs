//! The figures of one subject over all machines, and how they are told.

use crate::score::{Point, Ranking, Score, quantile, share};
use serde_json::{Map, Value, json};

/// Points of a curve whose power the rows alone determine this well are held to [`CURVE`].
const KNOWN: f64 = 0.025;
const CURVE: f64 = 0.05;

/// What was measured of one subject.
#[derive(Default)]
pub struct Figures {
    scores: Vec<Score>,
    pub recover_s: Vec<f64>,
    pub burst: Vec<f64>,
    pub update_us: Option<f64>,
    pub week_drift: Option<f64>,
}

/// A figure's name, its target, and its value for a subject.
type Row = (&'static str, &'static str, fn(&Figures) -> Option<f64>);

const ROWS: [Row; 25] = [
    ("mape_median_pct", "<= 3", |f| {
        pct(quantile(&f.each(|s| s.mape), 0.5))
    }),
    ("mape_worst_pct", "<= 6", |f| {
        pct(quantile(&f.each(|s| s.mape), 1.0))
    }),
    ("energy_10min_pct", "<= 1", |f| {
        pct(quantile(&f.each(|s| s.energy), 1.0))
    }),
    ("energy_10min_median_pct", "", |f| {
        pct(quantile(&f.each(|s| s.energy), 0.5))
    }),
    ("curve_worst_pct", "<= 5", |f| {
        pct(quantile(&f.known(), 1.0))
    }),
    ("curve_median_pct", "", |f| pct(quantile(&f.known(), 0.5))),
    ("curve_within_5_pct", "100", |f| {
        pct(share(f.known().iter().map(|e| *e <= CURVE)))
    }),
    ("curve_known_points", "", |f| count(f.known().len())),
    ("curve_other_in_interval_pct", "80..97", |f| {
        pct(share(f.others()?))
    }),
    ("curve_other_points", "", |f| {
        count(f.points().count() - f.known().len())
    }),
    ("curve_all_median_pct", "", |f| {
        pct(quantile(
            &f.points().map(|p| p.error).collect::<Vec<_>>(),
            0.5,
        ))
    }),
    ("coverage90_pct", "85..95", |f| pct(pooled(&f.power()))),
    ("coverage90_lowest_pct", ">= 80", |f| {
        pct(lowest(&f.power()))
    }),
    ("coverage90_highest_pct", "<= 97", |f| {
        pct(highest(&f.power()))
    }),
    ("width90_median_pct", "<= 8", |f| pct(width(&f.power()))),
    ("difference_coverage90_pct", "85..95", |f| {
        pct(pooled(&f.differences()))
    }),
    ("difference_coverage90_lowest_pct", ">= 80", |f| {
        pct(lowest(&f.differences()))
    }),
    ("difference_coverage90_highest_pct", "<= 97", |f| {
        pct(highest(&f.differences()))
    }),
    ("difference_width90_median_pct", "<= 8", |f| {
        pct(width(&f.differences()))
    }),
    ("recover_s", "<= 30", |f| some(quantile(&f.recover_s, 1.0))),
    ("recover_in_30s_pct", "100", |f| {
        pct(share(f.recover_s.iter().map(|seconds| *seconds <= 30.0)))
    }),
    ("burst_shift_pct", "<= 3", |f| pct(quantile(&f.burst, 1.0))),
    ("rank_agree_pct", ">= 97", |f| {
        pct(mean(&f.ranked(|r| r.agreed)))
    }),
    ("regret_pct", "<= 1", |f| pct(mean(&f.ranked(|r| r.regret)))),
    ("week_drift_pct", "<= 0.5", |f| pct(f.week_drift?)),
];

impl Figures {
    pub fn add(&mut self, score: Score) {
        self.scores.push(score);
    }

    fn each(&self, pick: fn(&Score) -> f64) -> Vec<f64> {
        self.scores.iter().map(pick).collect()
    }

    fn ranked(&self, pick: fn(&Ranking) -> f64) -> Vec<f64> {
        let rankings = self
            .scores
            .iter()
            .filter_map(|score| score.ranking.as_ref());
        rankings.map(pick).collect()
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.scores.iter().flat_map(|score| &score.curve)
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
        self.scores
            .iter()
            .map(|score| score.power.as_slice())
            .collect()
    }

    fn differences(&self) -> Vec<&[(bool, f64)]> {
        self.scores
            .iter()
            .map(|score| score.differences.as_slice())
            .collect()
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
    values.iter().sum::<f64>() / f64::from(u32::try_from(values.len()).unwrap())
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

pub fn print(subjects: &[(&str, &Figures)]) {
    print!("{:34} {:>8}", "figure", "target");
    subjects.iter().for_each(|(name, _)| print!(" {name:>15}"));
    println!();
    let update: Row = ("update_us", "<= 20", |f| f.update_us);
    for (name, target, value) in ROWS.iter().chain([&update]) {
        print!("{name:34} {target:>8}");
        for (_, figures) in subjects {
            match value(figures) {
                Some(value) => print!(" {value:>15.2}"),
                None => print!(" {:>15}", "-"),
            }
        }
        println!();
    }
    let machines = subjects
        .first()
        .map_or(0, |(_, figures)| figures.scores.len());
    let intervals: usize = subjects
        .first()
        .map_or(0, |(_, f)| f.power().iter().map(|m| m.len()).sum());
    println!("{machines} machines, {intervals} intervals of power; - is not known or not given");
}

pub fn json(subjects: &[(&str, &Figures)]) -> Value {
    let mut all = Map::new();
    for (subject, figures) in subjects {
        let mut fields = Map::new();
        for (name, _, value) in ROWS {
            fields.insert(name.to_owned(), json!(value(figures)));
        }
        fields.insert("update_us".to_owned(), json!(figures.update_us));
        all.insert((*subject).to_owned(), Value::Object(fields));
    }
    Value::Object(all)
}
