//! A guest in which workloads run one after the other under one scheduler.

use crate::cache::Cache;
use crate::catalogue::workload_name;
use crate::console::is_alarm;
use crate::guest::{Guest, Soc};
use crate::kernel::Kernel;
use crate::learnt::{Learnt, Statistics};
use crate::machine::{EnergyModel, Machine, Mode};
use crate::report::{LoadReport, Sample};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How runs are carried out in the guest.
pub const SCRIPT: &str = concat!(
    include_str!("guest/attach.sh"),
    include_str!("guest/session.sh")
);
/// CPU time of the emulator for loading a big scheduler, and for each simulated second of a workload, with its
/// part of the warm-up.
const LOAD_LIMIT: Duration = Duration::from_secs(300);
const SECOND_LIMIT: Duration = Duration::from_secs(30);
/// Simulated seconds of a workload that ends by itself are not known beforehand; this is a limit.
const UNTOLD_SECONDS: u32 = 60;

/// The kernel's own scheduler with energy-aware scheduling, and without.
pub const EEVDF_EAS: &str = "eevdf-eas";
/// See [`EEVDF_EAS`].
pub const EEVDF: &str = "eevdf";

/// A scheduler to run under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// [`EEVDF_EAS`], [`EEVDF`], or a program's name, with arguments if they matter.
    pub name: String,
    /// The program; `None` for the kernel's own.
    pub program: Option<PathBuf>,
    /// Its arguments, as the shell would read them.
    pub arguments: String,
    /// Other programs that it runs.
    pub helpers: Vec<PathBuf>,
}

/// One workload, once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The workload file; its name without the ending is the workload's.
    pub workload: PathBuf,
    /// What its phases are drawn from.
    pub seed: u64,
    /// Simulated seconds that count; `None`: as long as the workload says.
    pub seconds: Option<u32>,
}

/// What is to be done in one guest.
#[derive(Clone, Debug)]
pub struct Session<'a> {
    /// Name of the guest's logs; spaces are left out.
    pub name: String,
    /// Where.
    pub machine: &'a Machine,
    /// Under what.
    pub scheduler: &'a Scheduler,
    /// The workload runner.
    pub load: &'a Path,
    /// In this order. Workloads of the same name are the same.
    pub runs: Vec<Run>,
    /// Simulated time before each run's measurement, for utilisation signals to settle.
    pub warmup: Duration,
    /// A workload to run before all others, for a scheduler that learns, and for how many simulated seconds.
    pub settle: Option<(PathBuf, u32)>,
    /// Threads of which each run tells where they ran, by a pattern of their names as trace filters have it: in
    /// lines `ran SECONDS CPU THREAD` (`CLOCK_MONOTONIC`), one each time such a thread is switched to.
    pub watch: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Sessioned {
    /// In the order of the runs: figures, or why there are none.
    pub samples: Vec<Result<Sample, String>>,
    /// In the order of the runs: all that the guest wrote.
    pub told: Vec<String>,
    /// What went wrong when all was done: the scheduler did not leave as it should.
    pub fault: Option<String>,
    /// What the scheduler said of itself at the end, where it has an energy model.
    pub learnt: Option<Learnt>,
    /// How long it took.
    pub wall: Duration,
}

/// What others are held against on a machine: the kernel's EAS where it starts, else EEVDF.
pub fn reference(machine: &Machine) -> &'static str {
    if machine.em == EnergyModel::Watts && machine.mode == Mode::Schedutil {
        EEVDF_EAS
    } else {
        EEVDF
    }
}

impl Scheduler {
    /// The kernel's own schedulers that a machine has: EAS needs an Energy Model and schedutil.
    pub fn of_kernel(machine: &Machine) -> Vec<Self> {
        let eas = (reference(machine) == EEVDF_EAS).then_some(EEVDF_EAS);
        let names = eas.into_iter().chain([EEVDF]);
        names.map(Self::kernels).collect()
    }

    /// One of the kernel's own.
    pub fn kernels(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            program: None,
            arguments: String::new(),
            helpers: Vec::new(),
        }
    }

    /// A program with arguments.
    pub fn of_program(program: &Path, arguments: &str) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        Self {
            name: format!("{name} {arguments}").trim_end().to_owned(),
            program: Some(program.to_owned()),
            arguments: arguments.to_owned(),
            helpers: Vec::new(),
        }
    }
}

impl Run {
    /// The workload's name.
    pub fn name(&self) -> String {
        workload_name(&self.workload)
    }
}

impl Session<'_> {
    /// Runs it.
    ///
    /// # Errors
    /// When the guest cannot be had or did not come to the end.
    pub fn run(&self, cache: &Cache, kernel: &Kernel, soc: &Soc) -> Result<Sessioned> {
        let outcome = self.guest(cache, kernel, soc).run()?.finished()?;
        let sections = sections(&outcome.results);
        let section = |run: &Run| {
            let name = format!("{} {}", run.name(), run.seed);
            sections.get(name.as_str()).copied()
        };
        let samples = self.runs.iter().map(|run| {
            let section = section(run);
            sample(section.ok_or("the guest did not come to it")?)
        });
        let told = self.runs.iter().map(|run| section(run).unwrap_or_default());
        let end = sections.get("end").copied().unwrap_or_default();
        Ok(Sessioned {
            samples: samples.collect(),
            told: told.map(str::to_owned).collect(),
            fault: end.lines().find_map(fault),
            learnt: self.learnt(end)?,
            wall: outcome.wall,
        })
    }

    fn guest<'c>(&self, cache: &'c Cache, kernel: &'c Kernel, soc: &Soc) -> Guest<'c> {
        let program = self.scheduler.program.as_deref();
        let command = program.and_then(Path::file_name);
        let runs = self.runs.iter().map(|run| {
            let seconds = run.seconds.map_or_else(String::new, |it| it.to_string());
            format!("{}:{}:{seconds}", run.name(), run.seed)
        });
        let settle = self.settle.as_ref().map_or(0, |(_, seconds)| *seconds);
        let head = format!(
            "scheduler={}\narguments='{}'\nruns='{}'\nwarmup={}\nsettle={settle}\nwatch='{}'\n",
            command.map_or_else(
                || self.scheduler.name.as_str().into(),
                OsStr::to_string_lossy
            ),
            self.scheduler.arguments,
            runs.collect::<Vec<_>>().join(" "),
            self.warmup.as_secs_f64(),
            self.watch.as_deref().unwrap_or_default(),
        );
        let lengths = self.runs.iter();
        let lengths = lengths.map(|run| run.seconds.unwrap_or(UNTOLD_SECONDS));
        let seconds = lengths.fold(settle, u32::saturating_add);
        let workloads: BTreeMap<_, _> =
            (self.runs.iter().map(|run| (run.name(), &run.workload))).collect();
        let mut guest = Guest::new(cache, kernel, &self.name.replace(' ', ""))
            .soc(soc)
            .program(self.load)
            .script(&(head + SCRIPT))
            .time_limit(LOAD_LIMIT.saturating_add(SECOND_LIMIT.saturating_mul(seconds)));
        for (name, path) in workloads {
            guest = guest.file(path, &format!("/lab/{name}.json"));
        }
        if let Some((path, _)) = &self.settle {
            guest = guest.file(path, "/lab/settle.json");
        }
        for program in program
            .into_iter()
            .chain(self.scheduler.helpers.iter().map(PathBuf::as_path))
        {
            guest = guest.program(program);
        }
        guest
    }

    fn learnt(&self, section: &str) -> Result<Option<Learnt>> {
        let said = section.lines().find(|line| line.starts_with('{'));
        // other schedulers' statistics have other names
        let of_joule = said.filter(|line| line.contains("\"placed_steered\""));
        of_joule
            .map(|line| {
                let said: Statistics = serde_json::from_str(line)
                    .context("the scheduler's statistics have changed")?;
                Ok(Learnt::new(&said, self.machine))
            })
            .transpose()
    }
}

/// The parts of the results, by what follows `== `.
fn sections(results: &str) -> BTreeMap<&str, &str> {
    let parts = results.split("== ").skip(1);
    parts.filter_map(|part| part.split_once('\n')).collect()
}

/// What a line says against the run that it belongs to.
fn fault(line: &str) -> Option<String> {
    let (word, rest) = line.split_once(' ')?;
    match word {
        "void" => Some(rest.trim().to_owned()),
        "kernel" if is_alarm(rest) => Some(format!("the kernel complains: {rest}")),
        _ => None,
    }
}

/// What one section says.
fn sample(section: &str) -> Result<Sample, String> {
    let mut report = None;
    let mut counts = BTreeMap::new();
    for line in section.lines() {
        if let Some(reason) = fault(line) {
            return Err(reason);
        }
        if line.starts_with('{') {
            report = Some(line);
        } else if let Some((name, count)) = line.split_once(' ') {
            counts.insert(name, count.parse::<u64>().ok());
        }
    }
    let report = report.ok_or("joule-load reported nothing")?;
    let load: LoadReport = serde_json::from_str(report)
        .map_err(|error| format!("joule-load's report has changed: {error}"))?;
    let rise = |before, after| {
        let count = |name| counts.get(name).copied().flatten();
        count(after)?.checked_sub(count(before)?)
    };
    let switches = rise("before_switches", "after_switches");
    let idle_exits = rise("before_idle_exits", "after_idle_exits");
    Sample::new(&load, switches, idle_exits)
        .ok_or_else(|| "it yielded no energy or no job".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{"seed":3,"energy_uj":5250000,"total":{"jobs":3,"missed":null,"skipped":0,
        "work_us":1500,"completion_us":null,"response_us":{"mean":2500,"p50":1,"p99":9000,"max":9500}}}"#;

    fn section(report: &str, rest: &str) -> String {
        format!(
            "before_switches 10\nbefore_idle_exits 4\n{report}\nafter_switches 25\nafter_idle_exits 7\n{rest}"
        )
    }

    #[test]
    fn a_run_that_went_well_has_figures() {
        let one_line = REPORT.replace('\n', "");
        let said = section(&one_line, "kernel [    1.0] vsoc: all is well\n");
        let sample = sample(&said).unwrap();
        assert_eq!((sample.seed, sample.energy_j), (3, 5.25));
        assert_eq!((sample.switches, sample.idle_exits), (Some(15), Some(3)));
    }

    #[test]
    fn a_run_that_the_kernel_or_the_scheduler_spoilt_has_a_reason() {
        let one_line = REPORT.replace('\n', "");
        for (rest, reason) in [
            (
                "kernel [    1.0] WARNING: kernel/sched/ext.c:12 at foo, CPU#1",
                "WARNING",
            ),
            (
                "kernel [    1.0] sched_ext: peer disabled (runtime error)",
                "disabled",
            ),
            (
                "void peer did not last: stalled",
                "peer did not last: stalled",
            ),
        ] {
            let why = sample(&section(&one_line, rest)).unwrap_err();
            assert!(why.contains(reason), "{why}");
        }
        assert!(sample(&section("", "")).unwrap_err().contains("nothing"));
    }

    #[test]
    fn results_fall_into_sections() {
        let results = "== light 1\na 1\n== light 2\nb 2\n== end\n{}\n";
        let sections = sections(results);
        assert_eq!(sections["light 2"], "b 2\n");
        assert_eq!(sections["end"], "{}\n");
    }
}
