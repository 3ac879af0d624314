//! Compares schedulers: the same workload, with the same seeds, in a fresh guest for each.

use crate::cache::Cache;
use crate::guest::{Guest, Outcome, Soc};
use crate::kernel::{Kernel, Kernels};
use crate::learnt::{Learnt, Statistics};
use crate::machine::{EnergyModel, Machine, Mode};
use crate::report::{LoadReport, Report, Row, Sample};
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs the workload; `$scheduler` and the like are set before it.
const SCRIPT: &str = include_str!("guest/schedule.sh");
/// CPU time of the emulator for loading a big scheduler, and for each simulated second of a workload.
const LOAD_LIMIT: Duration = Duration::from_secs(300);
const SECOND_LIMIT: Duration = Duration::from_secs(30);

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
}

/// A comparison to be made.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where.
    pub machine: Machine,
    /// The workload file.
    pub workload: PathBuf,
    /// The workload runner.
    pub load: PathBuf,
    /// Under what; the first is what the others are compared with.
    pub schedulers: Vec<Scheduler>,
    /// Seeds 1 to this many.
    pub seeds: u64,
    /// Simulated seconds counted for each seed.
    pub seconds: u32,
    /// Simulated seconds before them.
    pub warmup: u32,
}

impl Scheduler {
    /// The kernel's own schedulers that a machine has: EAS needs an Energy Model and schedutil.
    pub fn of_kernel(machine: &Machine) -> Vec<Self> {
        let eas = machine.em == EnergyModel::Watts && machine.mode == Mode::Schedutil;
        [(EEVDF_EAS, eas), (EEVDF, true)]
            .into_iter()
            .filter(|(_, there)| *there)
            .map(|(name, _)| Self {
                name: name.to_owned(),
                program: None,
                arguments: String::new(),
            })
            .collect()
    }
}

impl Scenario {
    /// Runs it on a kernel, saying on stderr how far it is.
    ///
    /// # Errors
    /// When a guest cannot be had, a scheduler does not load or does not last, or a run yields no figures.
    pub fn run(&self, cache: &Cache, kernel: &Kernel) -> Result<Report> {
        if self.seeds < 2 {
            bail!("{} seeds: an interval needs two", self.seeds);
        }
        let soc = Kernels::new(cache).soc(kernel, &self.machine)?;
        // each guest waits for a place of its own, so this starts all there is room for
        let results: Vec<Result<(Vec<Sample>, Option<Learnt>)>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .schedulers
                .iter()
                .map(|scheduler| scope.spawn(|| self.figures(cache, kernel, &soc, scheduler)))
                .collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| bail!("a thread of the lab has died"))
                })
                .collect()
        });
        let mut rows: Vec<Row> = Vec::new();
        for (scheduler, figures) in self.schedulers.iter().zip(results) {
            let (samples, learnt) = figures.with_context(|| scheduler.name.clone())?;
            let row = Row::new(&scheduler.name, samples, learnt, rows.first());
            rows.push(row.with_context(|| format!("{}: no figures", scheduler.name))?);
        }
        Ok(Report {
            machine: self.machine.name.clone(),
            kernel: kernel.release.clone(),
            workload: self
                .workload
                .file_stem()
                .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
            seconds_per_seed: f64::from(self.seconds),
            learnt: rows.iter().find_map(|row| row.learnt.clone()),
            rows,
        })
    }

    fn figures(
        &self,
        cache: &Cache,
        kernel: &Kernel,
        soc: &Soc,
        scheduler: &Scheduler,
    ) -> Result<(Vec<Sample>, Option<Learnt>)> {
        let outcome = self.guest(cache, kernel, soc, scheduler).run()?.success()?;
        eprintln!(
            "lab: {}: {} seeds of {} s done in {:.0} s",
            scheduler.name,
            self.seeds,
            self.seconds,
            outcome.wall.as_secs_f64()
        );
        let (samples, learnt) = figures(&outcome, &self.machine)?;
        let seeds: Vec<_> = samples.iter().map(|sample| sample.seed).collect();
        if seeds != (1..=self.seeds).collect::<Vec<_>>() {
            bail!(
                "reports of the seeds {seeds:?} instead of 1 to {}",
                self.seeds
            );
        }
        Ok((samples, learnt))
    }

    fn guest<'a>(
        &self,
        cache: &'a Cache,
        kernel: &'a Kernel,
        soc: &Soc,
        scheduler: &Scheduler,
    ) -> Guest<'a> {
        let seeds: Vec<_> = (1..=self.seeds).map(|seed| seed.to_string()).collect();
        let program = scheduler.program.as_deref().and_then(Path::file_name);
        let head = format!(
            "scheduler={}\narguments='{}'\nseeds='{}'\nseconds={}\nwarmup={}\n",
            program.map_or_else(|| scheduler.name.as_str().into(), OsStr::to_string_lossy),
            scheduler.arguments,
            seeds.join(" "),
            self.seconds,
            self.warmup
        );
        let simulated = self.seconds.saturating_add(self.warmup);
        let simulated = simulated.saturating_mul(u32::try_from(self.seeds).unwrap_or(u32::MAX));
        let name = format!("run-{}-{}", self.machine.name, scheduler.name).replace(' ', "");
        let guest = Guest::new(cache, kernel, &name)
            .soc(soc)
            .program(&self.load)
            .file(&self.workload, "/lab/workload.json")
            .script(&(head + SCRIPT))
            .time_limit(LOAD_LIMIT.saturating_add(SECOND_LIMIT.saturating_mul(simulated)));
        match &scheduler.program {
            Some(program) => guest.program(program),
            None => guest,
        }
    }
}

/// joule-load's reports, and what the scheduler said of itself at the end.
fn figures(outcome: &Outcome, machine: &Machine) -> Result<(Vec<Sample>, Option<Learnt>)> {
    let mut samples = Vec::new();
    let mut learnt = None;
    for line in outcome.json()? {
        if line.get("seed").is_none() {
            let said: Statistics =
                serde_json::from_value(line).context("the scheduler's statistics have changed")?;
            learnt = Some(Learnt::new(&said, machine));
            continue;
        }
        let load: LoadReport =
            serde_json::from_value(line).context("joule-load's report has changed")?;
        let sample = Sample::new(&load);
        samples.push(
            sample.with_context(|| format!("seed {} yielded no energy or no job", load.seed))?,
        );
    }
    Ok((samples, learnt))
}
