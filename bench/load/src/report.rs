//! What the user gets to read: text, or one line of JSON.

use crate::run::{Outcome, TaskOutcome};
use crate::source::Source;
use crate::stats::Record;
use crate::workload::Workload;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// The report of a run. Field names are those of the JSON; `_us` is microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The workload file's name without its ending.
    pub workload: String,
    /// The seed of offsets and jitter.
    pub seed: u64,
    /// How work was done.
    #[serde(flatten)]
    pub means: Means,
    /// The common start on `CLOCK_MONOTONIC`.
    pub start_us: u64,
    /// From the common start to the end of the last thread.
    pub wall_us: u64,
    /// Difference of the meter; null without one, and when its counter went back.
    pub energy_uj: Option<u64>,
    /// Whether a signal ended the run early.
    pub interrupted: bool,
    /// All tasks together.
    pub total: Figures,
    /// Each task, in the order of the file.
    pub tasks: Vec<TaskReport>,
}

/// How work was done.
#[derive(Debug, Clone, Serialize)]
pub struct Means {
    /// `virtual` or `loop`.
    pub work: &'static str,
    /// The loop's cost on the biggest CPU at its highest frequency; null for virtual work.
    pub calibration: Option<CalibrationReport>,
}

/// What the loop costs and how that is known.
#[derive(Debug, Clone, Serialize)]
pub struct CalibrationReport {
    /// Cost of one loop, in ps.
    pub ps_per_loop: u64,
    /// The CPU it was measured on; null when `--calibration` gave it.
    pub measured_on_cpu: Option<usize>,
}

/// The report of one task.
#[derive(Debug, Clone, Serialize)]
pub struct TaskReport {
    /// Its name.
    pub name: String,
    /// How many threads it had.
    pub threads: usize,
    /// What they achieved together.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What one task, or all, achieved.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Completed jobs.
    pub jobs: u64,
    /// Jobs late for their deadline; null when no job had one.
    pub missed: Option<u64>,
    /// Activations that never became a job.
    pub skipped: u64,
    /// Jobs the end of the run cut short.
    pub unfinished: u64,
    /// How many responses the quantiles are over: all jobs, until memory for them is full.
    pub responses: usize,
    /// From due to complete; null when no job was completed.
    pub response_us: Option<ResponseReport>,
    /// Work done, in µs of the biggest CPU at its highest frequency.
    pub work_us: u64,
    /// CPU time used.
    pub cpu_us: u64,
    /// Changes of CPU as seen at the ends of slices of work.
    pub migrations: u64,
    /// Context switches by going to sleep.
    pub voluntary_switches: u64,
    /// Context switches by preemption.
    pub involuntary_switches: u64,
    /// From the common start until all was done; null when the end of the run came first.
    pub completion_us: Option<u64>,
}

/// Figures of response times.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs)]
pub struct ResponseReport {
    pub mean: u64,
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
    pub max: u64,
}

impl Report {
    /// Of a run of the named workload.
    pub fn new(name: &str, seed: u64, source: &Source, outcome: &Outcome) -> Self {
        let total =
            Record::total(outcome.tasks.iter().map(|task| &task.record)).unwrap_or_default();
        Self {
            workload: name.to_owned(),
            seed,
            means: Means::of(source),
            start_us: outcome.start_ns / 1_000,
            wall_us: outcome.wall_ns / 1_000,
            energy_uj: outcome.energy_uj,
            interrupted: outcome.interrupted,
            total: Figures::of(&total),
            tasks: outcome.tasks.iter().map(TaskReport::of).collect(),
        }
    }
}

impl Means {
    /// Of this kind of work.
    pub fn of(source: &Source) -> Self {
        match source {
            Source::Virtual(_) => Self {
                work: "virtual",
                calibration: None,
            },
            Source::Loop(calibration) => Self {
                work: "loop",
                calibration: Some(CalibrationReport {
                    ps_per_loop: calibration.ps_per_loop.get(),
                    measured_on_cpu: calibration.measured_on,
                }),
            },
        }
    }
}

impl TaskReport {
    fn of(task: &TaskOutcome) -> Self {
        Self {
            name: task.name.clone(),
            threads: task.threads,
            figures: Figures::of(&task.record),
        }
    }
}

impl Figures {
    fn of(record: &Record) -> Self {
        Self {
            jobs: record.responses.count(),
            missed: (record.with_deadline > 0).then_some(record.missed),
            skipped: record.skipped,
            unfinished: record.unfinished,
            responses: record.responses.kept(),
            response_us: record.responses.summary().map(|summary| ResponseReport {
                mean: summary.mean_ns / 1_000,
                p50: summary.p50_ns / 1_000,
                p95: summary.p95_ns / 1_000,
                p99: summary.p99_ns / 1_000,
                max: summary.max_ns / 1_000,
            }),
            work_us: record.work.as_us(),
            cpu_us: record.cpu_ns / 1_000,
            migrations: record.migrations,
            voluntary_switches: record.voluntary_switches,
            involuntary_switches: record.involuntary_switches,
            completion_us: record.completion_ns.map(|ns| ns / 1_000),
        }
    }
}

/// µs shown as ms.
struct Ms(u64);

impl Display for Ms {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.pad(&format!("{}.{:02}", self.0 / 1_000, self.0 % 1_000 / 10))
    }
}

/// A value, or a dash.
struct Maybe<T>(Option<T>);

impl<T: Display> Display for Maybe<T> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.pad("-"),
        }
    }
}

impl Display for Means {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        match &self.calibration {
            None => write!(f, "{} work", self.work),
            Some(loops) => {
                write!(
                    f,
                    "{} work, {}.{:03} ns per loop ",
                    self.work,
                    loops.ps_per_loop / 1_000,
                    loops.ps_per_loop % 1_000
                )?;
                match loops.measured_on_cpu {
                    Some(cpu) => write!(f, "measured on cpu {cpu}"),
                    None => write!(f, "as given"),
                }
            }
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(
            f,
            "{}: {} ms, seed {}, {}",
            self.workload,
            Ms(self.wall_us),
            self.seed,
            self.means
        )?;
        if let Some(energy_uj) = self.energy_uj {
            write!(f, ", {energy_uj} µJ")?;
        }
        writeln!(
            f,
            "{}",
            if self.interrupted {
                ", interrupted"
            } else {
                ""
            }
        )?;
        writeln!(
            f,
            "{:<16} {:>7} {:>7} {:>7} {:>7} | {:>8} {:>8} {:>8} {:>8} {:>8} | {:>9} {:>9} {:>7} {:>8} {:>10}",
            "",
            "jobs",
            "missed",
            "skipped",
            "cut",
            "mean ms",
            "p50",
            "p95",
            "p99",
            "max",
            "work ms",
            "cpu ms",
            "migr",
            "switches",
            "done at ms"
        )?;
        for task in &self.tasks {
            row(f, &task.name, &task.figures)?;
        }
        row(f, "total", &self.total)
    }
}

fn row(f: &mut Formatter, name: &str, figures: &Figures) -> fmt::Result {
    let response =
        |pick: fn(&ResponseReport) -> u64| Maybe(figures.response_us.as_ref().map(|r| Ms(pick(r))));
    writeln!(
        f,
        "{:<16} {:>7} {:>7} {:>7} {:>7} | {:>8} {:>8} {:>8} {:>8} {:>8} | {:>9} {:>9} {:>7} {:>8} {:>10}",
        name,
        figures.jobs,
        Maybe(figures.missed),
        figures.skipped,
        figures.unfinished,
        response(|r| r.mean),
        response(|r| r.p50),
        response(|r| r.p95),
        response(|r| r.p99),
        response(|r| r.max),
        Ms(figures.work_us),
        Ms(figures.cpu_us),
        figures.migrations,
        figures.voluntary_switches + figures.involuntary_switches,
        Maybe(figures.completion_us.map(Ms)),
    )
}

/// The report of a fixed piece of work on one CPU.
#[derive(Debug, Clone, Serialize)]
pub struct FixedReport {
    /// The CPU.
    pub cpu: usize,
    /// How work was done.
    #[serde(flatten)]
    pub means: Means,
    /// Work done, in µs of the biggest CPU at its highest frequency.
    pub work_us: u64,
    /// Time it took.
    pub wall_us: u64,
    /// CPU time it took.
    pub cpu_us: u64,
    /// Difference of the meter; null without one, and when its counter went back.
    pub energy_uj: Option<u64>,
}

impl Display for FixedReport {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(
            f,
            "cpu {}: {} ms of work, wall {} ms, cpu {} ms, {}",
            self.cpu,
            Ms(self.work_us),
            Ms(self.wall_us),
            Ms(self.cpu_us),
            self.means
        )?;
        match self.energy_uj {
            Some(energy_uj) => writeln!(f, ", {energy_uj} µJ"),
            None => writeln!(f),
        }
    }
}

/// What `check` says of a workload.
pub fn describe(workload: &Workload) -> String {
    let duration = match workload.duration_ns {
        Some(ns) => format!("{} s", ns / crate::clock::SECOND_NS),
        None => "no duration of its own".to_owned(),
    };
    let intent = workload.intent.as_deref().unwrap_or("no intent stated");
    format!(
        "{} tasks, {} threads, {duration}: {intent}",
        workload.tasks.len(),
        workload.threads()
    )
}
