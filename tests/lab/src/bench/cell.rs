//! One workload on one machine: who did the work, who did it in time, and with how much energy.

use super::Row;
use crate::report::Sample;
use crate::statistics::{Ratio, mean, ratio};
use std::fmt::{self, Display, Formatter};

/// Least work, against the reference's.
const LEAST_WORK: f64 = 0.99;
/// Most missed deadlines above the reference's, as a part of the jobs.
const MORE_MISSES: f64 = 0.01;
/// Longest 99th percentile of response times, or end of a batch, against the reference's.
const SLOWEST: f64 = 1.25;

/// Whether a scheduler's figures count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They do.
    Counts,
    /// It did less than 99 % of the reference's work.
    WorkLost,
    /// It missed more deadlines, by more than one in a hundred.
    Late,
    /// Its 99th percentile or the end of the batch is more than a quarter later.
    Slow,
    /// A run has no figures: the reason.
    Void(String),
    /// The reference itself has none.
    NoReference,
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counts => "",
            Self::WorkLost => "WORK LOST",
            Self::Late => "LATE",
            Self::Slow => "SLOW",
            Self::Void(_) => "VOID",
            Self::NoReference => "NO REFERENCE",
        })
    }
}

/// What one scheduler made of a cell.
#[derive(Clone, Debug)]
pub struct Standing<'r> {
    /// Its name.
    pub scheduler: &'r str,
    /// Its runs, by seed; empty if one is void.
    pub samples: Vec<&'r Sample>,
    /// Whether they count.
    pub verdict: Verdict,
    /// Mean energy of its runs, where they have figures.
    pub energy_j: Option<f64>,
    /// Energy and 99th percentile against the reference's; `None` for the reference itself.
    pub energy: Option<Ratio>,
    /// See `energy`.
    pub p99: Option<Ratio>,
}

/// One workload on one machine.
#[derive(Clone, Debug)]
pub struct Cell<'r> {
    /// The machine's name.
    pub machine: String,
    /// The workload's name.
    pub workload: String,
    /// The scheduler that others are held against.
    pub reference: &'static str,
    /// In the order of the rows.
    pub standings: Vec<Standing<'r>>,
    /// What could have been reached; filled in by who knows the machine.
    pub oracle: Oracle,
}

/// The least energy of any placement against the reference's ([`crate::oracle`]); `None` where it is not known
/// for every seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Oracle {
    /// Of any placement that does the work.
    pub least: Option<Ratio>,
    /// Of those whose 99th percentile of response times is about the reference's.
    pub as_fast: Option<Ratio>,
}

impl<'r> Cell<'r> {
    /// Of the rows of this machine and workload.
    pub fn new(
        machine: &str,
        workload: &str,
        reference: &'static str,
        rows: impl Iterator<Item = &'r Row>,
    ) -> Self {
        let mut by_scheduler: Vec<(&str, Vec<&Row>)> = Vec::new();
        for row in rows {
            match by_scheduler
                .iter_mut()
                .find(|(name, _)| *name == row.scheduler)
            {
                Some((_, rows)) => rows.push(row),
                None => by_scheduler.push((&row.scheduler, vec![row])),
            }
        }
        let samples: Vec<_> = by_scheduler.iter().map(|(_, rows)| samples(rows)).collect();
        let of_reference = by_scheduler.iter().position(|(name, _)| *name == reference);
        let of_reference = of_reference.and_then(|index| samples.get(index)?.as_ref().ok());
        let standings = by_scheduler
            .iter()
            .zip(&samples)
            .map(|((scheduler, _), samples)| {
                let reference = (*scheduler != reference).then_some(of_reference).flatten();
                let found = samples.as_deref().unwrap_or_default();
                let against =
                    |of: fn(&Sample) -> f64| ratio(&column(found, of), &column(reference?, of));
                Standing {
                    scheduler,
                    verdict: match (samples, of_reference) {
                        (Err(reason), _) => Verdict::Void(reason.clone()),
                        (Ok(_), None) => Verdict::NoReference,
                        (Ok(samples), Some(reference)) => verdict(samples, reference),
                    },
                    energy_j: mean(&column(found, |it| it.energy_j)),
                    energy: against(|it| it.energy_j),
                    p99: against(|it| it.p99_ms),
                    samples: found.to_vec(),
                }
            });
        Self {
            machine: machine.to_owned(),
            workload: workload.to_owned(),
            reference,
            standings: standings.collect(),
            oracle: Oracle::default(),
        }
    }

    /// Asks an oracle for the least energy, J, of each run of the reference; its second argument is the longest
    /// 99th percentile, ms.
    ///
    /// # Errors
    /// The oracle's.
    pub fn ask(
        &mut self,
        oracle: impl Fn(u64, Option<f64>) -> anyhow::Result<Option<f64>>,
    ) -> anyhow::Result<()> {
        let Some(reference) = self.standing(self.reference) else {
            return Ok(());
        };
        let energy = column(&reference.samples, |it| it.energy_j);
        let least = |limit: fn(&Sample) -> Option<f64>| -> anyhow::Result<Option<Ratio>> {
            let samples = reference.samples.iter();
            let least: Option<Vec<f64>> = samples
                .map(|sample| oracle(sample.seed, limit(sample)))
                .collect::<anyhow::Result<_>>()?;
            Ok(least.and_then(|least| ratio(&least, &energy)))
        };
        self.oracle = Oracle {
            least: least(|_| None)?,
            as_fast: least(|sample| Some(sample.p99_ms))?,
        };
        Ok(())
    }

    /// What a scheduler made of it.
    pub fn standing(&self, scheduler: &str) -> Option<&Standing<'r>> {
        self.standings.iter().find(|it| it.scheduler == scheduler)
    }

    /// The one of these that took the least energy of those that count.
    pub fn best<'s>(&self, of: impl Fn(&str) -> bool + 's) -> Option<&Standing<'r>> {
        let counting = self.standings.iter();
        let counting = counting.filter(|it| of(it.scheduler) && it.verdict == Verdict::Counts);
        let known = counting.filter_map(|it| Some((it, it.energy_j?)));
        known
            .min_by(|(_, one), (_, other)| one.total_cmp(other))
            .map(|(it, _)| it)
    }
}

impl Standing<'_> {
    /// Its energy against another's, pair by pair.
    pub fn energy_against(&self, other: &Standing<'_>) -> Option<Ratio> {
        let energy = |it: &Standing<'_>| column(&it.samples, |sample| sample.energy_j);
        ratio(&energy(self), &energy(other))
    }
}

/// The figures of all runs by seed, or the first reason why there are none.
fn samples<'r>(rows: &[&'r Row]) -> Result<Vec<&'r Sample>, String> {
    let mut samples = rows
        .iter()
        .map(|row| row.sample.as_ref().ok_or_else(|| row.run.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    samples.sort_by_key(|sample| sample.seed);
    Ok(samples)
}

fn column(samples: &[&Sample], of: fn(&Sample) -> f64) -> Vec<f64> {
    samples.iter().map(|sample| of(sample)).collect()
}

/// Whether runs count beside the reference's.
pub fn verdict(samples: &[&Sample], reference: &[&Sample]) -> Verdict {
    let sum = |samples: &[&Sample], of| column(samples, of).iter().sum::<f64>();
    let against = |of: fn(&Sample) -> f64| sum(samples, of) / sum(reference, of);
    if against(|it| it.work_ms) < LEAST_WORK {
        return Verdict::WorkLost;
    }
    let misses = |samples: &[&Sample]| {
        sum(samples, |it| count(it.missed)) / sum(samples, |it| count(Some(it.jobs)))
    };
    if misses(samples) > misses(reference) + MORE_MISSES {
        return Verdict::Late;
    }
    // a batch that did not end in one run has an end in neither's column
    let end = |it: &Sample| it.end_ms.unwrap_or(f64::NAN);
    if against(|it| it.p99_ms) > SLOWEST || against(end) > SLOWEST {
        return Verdict::Slow;
    }
    Verdict::Counts
}

/// 0 where none had a deadline. Beyond 2^32 it makes no difference.
fn count(count: Option<u64>) -> f64 {
    u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX).into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn sample(seed: u64) -> Sample {
        Sample {
            seed,
            energy_j: 2.0,
            mean_ms: 4.0,
            p50_ms: 3.0,
            p99_ms: 10.0,
            max_ms: 12.0,
            end_ms: Some(900.0),
            missed: Some(1),
            skipped: 0,
            jobs: 100,
            work_ms: 500.0,
            switches: None,
            idle_exits: None,
        }
    }

    fn row(scheduler: &str, seed: u64, change: impl Fn(&mut Sample)) -> Row {
        let mut sample = sample(seed);
        change(&mut sample);
        Row {
            machine: "phone".to_owned(),
            mode: "schedutil",
            workload: "light".to_owned(),
            wseed: seed,
            scheduler: scheduler.to_owned(),
            profile: "-".to_owned(),
            energy_j: Some(sample.energy_j),
            work_ms: None,
            mean_ms: None,
            p50_ms: None,
            p99_ms: None,
            max_ms: None,
            missed: None,
            switches: None,
            idle_exits: None,
            run: "ok".to_owned(),
            sample: Some(sample),
        }
    }

    pub fn runs(scheduler: &str, change: impl Fn(&mut Sample)) -> Vec<Row> {
        (1..=3).map(|seed| row(scheduler, seed, &change)).collect()
    }

    /// What becomes of a scheduler whose runs differ from the reference's by `change`.
    fn judged(change: impl Fn(&mut Sample)) -> Verdict {
        let rows = [runs("eas", |_| {}), runs("other", change)].concat();
        let cell = Cell::new("phone", "light", "eas", rows.iter());
        cell.standing("other").unwrap().verdict.clone()
    }

    #[test]
    fn work_lost_counts_as_lost_however_little_energy_it_took() {
        assert_eq!(judged(|it| it.energy_j = 0.1), Verdict::Counts);
        assert_eq!(judged(|it| it.work_ms = 496.0), Verdict::Counts);
        assert_eq!(judged(|it| it.work_ms = 494.0), Verdict::WorkLost);
    }

    #[test]
    fn one_in_a_hundred_more_deadlines_may_be_missed() {
        assert_eq!(judged(|it| it.missed = Some(2)), Verdict::Counts);
        assert_eq!(judged(|it| it.missed = Some(3)), Verdict::Late);
        assert_eq!(judged(|it| it.missed = None), Verdict::Counts);
    }

    #[test]
    fn slow_is_who_answers_or_ends_a_quarter_later() {
        assert_eq!(judged(|it| it.p99_ms = 12.4), Verdict::Counts);
        assert_eq!(judged(|it| it.p99_ms = 12.6), Verdict::Slow);
        assert_eq!(judged(|it| it.end_ms = Some(1200.0)), Verdict::Slow);
        // what was cut off by the end of the run has lost work, which tells
        assert_eq!(judged(|it| it.end_ms = None), Verdict::Counts);
    }

    #[test]
    fn one_void_run_voids_the_scheduler_and_is_explained() {
        let mut rows = [runs("eas", |_| {}), runs("other", |_| {})].concat();
        rows[4].sample = None;
        rows[4].run = "void: ejected".to_owned();
        let cell = Cell::new("phone", "light", "eas", rows.iter());
        let other = cell.standing("other").unwrap();
        assert_eq!(other.verdict, Verdict::Void("void: ejected".to_owned()));
        assert!(other.energy.is_none() && other.samples.is_empty());
    }

    #[test]
    fn the_best_is_the_least_energy_among_those_that_count() {
        let rows = [
            runs("eas", |_| {}),
            runs("loses", |it| (it.energy_j, it.work_ms) = (0.5, 100.0)),
            runs("good", |it| it.energy_j = 1.5),
            runs("fair", |it| it.energy_j = 1.8),
        ]
        .concat();
        let cell = Cell::new("phone", "light", "eas", rows.iter());
        assert_eq!(cell.best(|name| name != "eas").unwrap().scheduler, "good");
        assert!(cell.best(|name| name == "loses").is_none());
        let (good, fair) = (
            cell.standing("good").unwrap(),
            cell.standing("fair").unwrap(),
        );
        assert!((good.energy_against(fair).unwrap().ratio - 1.5 / 1.8).abs() < 1e-9);
    }

    #[test]
    fn runs_are_paired_by_seed_whatever_their_order() {
        let energy = |it: &mut Sample| it.energy_j = count(Some(it.seed));
        let mut other = runs("other", energy);
        other.reverse();
        let rows = [runs("eas", energy), other].concat();
        let cell = Cell::new("phone", "light", "eas", rows.iter());
        let found = cell.standing("other").unwrap().energy.unwrap();
        assert!((found.high - found.low).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn the_oracle_is_asked_for_each_run_of_the_reference() {
        let rows = runs("eas", |it| it.energy_j = count(Some(it.seed)));
        let mut cell = Cell::new("phone", "light", "eas", rows.iter());
        cell.ask(|seed, limit| Ok(limit.is_none().then(|| 0.5 * count(Some(seed)))))
            .unwrap();
        assert!((cell.oracle.least.unwrap().high - 0.5).abs() < 1e-9);
        assert!(cell.oracle.as_fast.is_none(), "it was not known");
    }

    #[test]
    fn without_a_reference_nothing_counts() {
        let mut rows = [runs("eas", |_| {}), runs("other", |_| {})].concat();
        rows[0].sample = None;
        let cell = Cell::new("phone", "light", "eas", rows.iter());
        assert_eq!(
            cell.standing("other").unwrap().verdict,
            Verdict::NoReference
        );
    }
}
