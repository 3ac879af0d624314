//! What a comparison of schedulers found: a table for people, JSON for programs.

use crate::learnt::Learnt;
use crate::statistics::{Ratio, mean, ratio};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};

/// What one workload run achieved; the fields of joule-load's report that are used.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LoadReport {
    /// The seed that the workload's phases were drawn from.
    pub seed: u64,
    /// Energy that the machine drew meanwhile.
    pub energy_uj: Option<u64>,
    /// All tasks together.
    pub total: LoadTotal,
}

/// See [`LoadReport`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LoadTotal {
    /// Completed jobs.
    pub jobs: u64,
    /// Jobs late for their deadline.
    pub missed: Option<u64>,
    /// Activations that never became a job.
    pub skipped: u64,
    /// Work done, in µs of the biggest CPU at its highest frequency.
    pub work_us: u64,
    /// Response times.
    pub response_us: Option<LoadResponse>,
    /// Until all was done; `None` when the end of the run came first.
    pub completion_us: Option<u64>,
}

/// See [`LoadReport`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LoadResponse {
    /// Mean.
    pub mean: u64,
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
    /// Longest.
    pub max: u64,
}

/// One run, in the units of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The workload's seed.
    pub seed: u64,
    /// Energy of the machine.
    pub energy_j: f64,
    /// Mean response time.
    pub mean_ms: f64,
    /// Median response time.
    pub p50_ms: f64,
    /// 99th percentile of response times.
    pub p99_ms: f64,
    /// Longest response time.
    pub max_ms: f64,
    /// From the start until a workload that ends by itself was done.
    pub end_ms: Option<f64>,
    /// Jobs late for their deadline; null where none had one.
    pub missed: Option<u64>,
    /// Activations that found their thread still busy.
    pub skipped: u64,
    /// Completed jobs.
    pub jobs: u64,
    /// Work done, in ms of the biggest CPU at its highest frequency.
    pub work_ms: f64,
    /// Context switches of the whole machine, the warm-up's included.
    pub switches: Option<u64>,
    /// Wake-ups of CPUs and clusters from idle, the warm-up's included.
    pub idle_exits: Option<u64>,
}

/// A scheduler's runs, and their means; `missed`, `skipped` and `jobs` are sums.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Row {
    pub scheduler: String,
    pub energy_j: f64,
    pub mean_ms: f64,
    pub p99_ms: f64,
    pub missed: Option<u64>,
    pub skipped: u64,
    pub jobs: u64,
    pub work_ms: f64,
    /// Against the first row; null in the first row itself.
    pub energy_ratio: Option<Ratio>,
    pub mean_ratio: Option<Ratio>,
    pub p99_ratio: Option<Ratio>,
    pub work_ratio: Option<Ratio>,
    /// Of a scheduler with an energy model.
    #[serde(flatten)]
    pub learnt: Option<Learnt>,
    pub samples: Vec<Sample>,
}

/// A comparison; the first row is what the others are compared with.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Report {
    pub machine: String,
    pub kernel: String,
    pub workload: String,
    pub seconds_per_seed: f64,
    /// Of the first scheduler with an energy model.
    #[serde(flatten)]
    pub learnt: Option<Learnt>,
    pub rows: Vec<Row>,
}

impl Sample {
    /// `None` when the run had no energy or no completed job.
    pub fn new(load: &LoadReport, switches: Option<u64>, idle_exits: Option<u64>) -> Option<Self> {
        let response = load.total.response_us.as_ref()?;
        Some(Self {
            seed: load.seed,
            energy_j: thousands(load.energy_uj?)? / 1000.0,
            mean_ms: thousands(response.mean)?,
            p50_ms: thousands(response.p50)?,
            p99_ms: thousands(response.p99)?,
            max_ms: thousands(response.max)?,
            end_ms: load.total.completion_us.and_then(thousands),
            missed: load.total.missed,
            skipped: load.total.skipped,
            jobs: load.total.jobs,
            work_ms: thousands(load.total.work_us)?,
            switches,
            idle_exits,
        })
    }
}

impl Row {
    /// Of runs with the same seeds, in the same order, as the reference's. `None` without a run.
    pub fn new(
        scheduler: &str,
        samples: Vec<Sample>,
        learnt: Option<Learnt>,
        reference: Option<&Row>,
    ) -> Option<Self> {
        let column = |of: fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<_>>();
        let compared = |of: fn(&Sample) -> f64| {
            let reference: Vec<_> = reference?.samples.iter().map(of).collect();
            ratio(&column(of), &reference)
        };
        let missed: Vec<u64> = samples.iter().filter_map(|sample| sample.missed).collect();
        Some(Self {
            scheduler: scheduler.to_owned(),
            energy_j: mean(&column(|sample| sample.energy_j))?,
            mean_ms: mean(&column(|sample| sample.mean_ms))?,
            p99_ms: mean(&column(|sample| sample.p99_ms))?,
            missed: (missed.len() == samples.len()).then(|| missed.iter().sum()),
            skipped: samples.iter().map(|sample| sample.skipped).sum(),
            jobs: samples.iter().map(|sample| sample.jobs).sum(),
            work_ms: mean(&column(|sample| sample.work_ms))?,
            energy_ratio: compared(|sample| sample.energy_j),
            mean_ratio: compared(|sample| sample.mean_ms),
            p99_ratio: compared(|sample| sample.p99_ms),
            work_ratio: compared(|sample| sample.work_ms),
            learnt,
            samples,
        })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seeds = self.rows.first().map_or(0, |row| row.samples.len());
        let first = self.rows.first().map_or("", |row| &row.scheduler);
        writeln!(
            f,
            "{} on {}, Linux {}: means over {seeds} seeds of {} s",
            self.workload, self.machine, self.kernel, self.seconds_per_seed
        )?;
        writeln!(
            f,
            "[..]: 95 % interval of the ratio to {first} over the seeds, paired"
        )?;
        writeln!(
            f,
            "\n{:20} {:>8} {:21} {:>8} {:21} {:>8} {:21} {:>9} {:>9} {:21}",
            "scheduler", "energy J", "", "mean ms", "", "p99 ms", "", "missed", "work ms", ""
        )?;
        for row in &self.rows {
            let missed = row
                .missed
                .map_or_else(|| "-".to_owned(), |missed| format!("{missed}/{}", row.jobs));
            let line = format!(
                "{:20} {:8.3} {:21} {:8.2} {:21} {:8.2} {:21} {missed:>9} {:9.1} {:21}",
                row.scheduler,
                row.energy_j,
                shown(row.energy_ratio),
                row.mean_ms,
                shown(row.mean_ratio),
                row.p99_ms,
                shown(row.p99_ratio),
                row.work_ms,
                shown(row.work_ratio),
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        for row in &self.rows {
            if let Some(learnt) = &row.learnt {
                write!(f, "\n{}: {learnt}", row.scheduler)?;
            }
        }
        Ok(())
    }
}

fn shown(ratio: Option<Ratio>) -> String {
    ratio.map_or_else(String::new, |it| {
        format!("×{:.3} [{:.3} {:.3}]", it.ratio, it.low, it.high)
    })
}

/// µ → m. Beyond 2^32 m-units (49 days, 4 MJ) there is no figure.
fn thousands(micro: u64) -> Option<f64> {
    let whole = u32::try_from(micro / 1000).ok()?;
    let part = u32::try_from(micro % 1000).ok()?;
    Some(f64::from(whole) + f64::from(part) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seed: u64, energy_j: f64, missed: Option<u64>) -> Sample {
        Sample {
            seed,
            energy_j,
            mean_ms: 4.0,
            p50_ms: 3.0,
            p99_ms: 9.0,
            max_ms: 9.5,
            end_ms: None,
            missed,
            skipped: 0,
            jobs: 100,
            work_ms: 50.0,
            switches: None,
            idle_exits: None,
        }
    }

    fn report() -> Report {
        let first = vec![sample(1, 2.0, Some(0)), sample(2, 4.0, Some(1))];
        let reference = Row::new("eevdf-eas", first, None, None).unwrap();
        let second = vec![sample(1, 1.0, Some(2)), sample(2, 2.2, Some(1))];
        let row = Row::new("scx_joule", second, None, Some(&reference)).unwrap();
        Report {
            machine: "phone".to_owned(),
            kernel: "7.3.4".to_owned(),
            workload: "light".to_owned(),
            seconds_per_seed: 4.0,
            learnt: None,
            rows: vec![reference, row],
        }
    }

    #[test]
    fn a_ratio_is_never_shown_without_its_interval() {
        let text = report().to_string();
        assert!(text.contains("×0.524 [0."), "{text}");
        assert!(
            !text
                .lines()
                .any(|line| line.starts_with("eevdf-eas") && line.contains('×'))
        );
    }

    #[test]
    fn misses_are_summed_and_absent_where_no_job_had_a_deadline() {
        assert_eq!(report().rows[1].missed, Some(3));
        let row = Row::new("x", vec![sample(1, 1.0, None)], None, None).unwrap();
        assert_eq!(row.missed, None);
    }

    #[test]
    fn programs_find_the_agreed_names() {
        let json = serde_json::to_value(report()).unwrap();
        let row = &json["rows"][0];
        for name in [
            "scheduler",
            "energy_j",
            "mean_ms",
            "p99_ms",
            "missed",
            "work_ms",
        ] {
            assert!(!row[name].is_null(), "{name}");
        }
        assert_eq!(
            (&json["machine"], &json["kernel"]),
            (&"phone".into(), &"7.3.4".into())
        );
    }

    #[test]
    fn a_run_without_energy_is_no_sample() {
        let text = r#"{"seed":1,"energy_uj":5250000,"more":1,"total":{"jobs":3,"missed":null,"skipped":0,
            "work_us":1500,"completion_us":null,"response_us":{"mean":2500,"p50":1,"p99":9000,"max":9500}}}"#;
        let mut load: LoadReport = serde_json::from_str(text).unwrap();
        let sample = Sample::new(&load, None, None).unwrap();
        assert_eq!(
            (sample.energy_j, sample.mean_ms, sample.work_ms),
            (5.25, 2.5, 1.5)
        );
        load.energy_uj = None;
        assert_eq!(Sample::new(&load, None, None), None);
    }
}
