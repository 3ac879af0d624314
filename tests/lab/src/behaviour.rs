//! Seven behaviours that energy-aware scheduling should show, judged as Arm's LISA judges EAS.
//!
//! Small tasks belong on little CPUs, big ones on big CPUs, and a task that grows or shrinks should move in time.
//! The energy of the placements that a trace shows is estimated by the Energy Model and held against the best
//! placements' (`score`); and no more than 15 % of the activations of any task may end after the next was due.
//! Thresholds, tasks (`workload`) and the estimate are LISA's, but for the OPP: there the lowest that holds a
//! CPU's utilisation, here with the margin of the kernel's governor, which is what the kernel's own estimate has.
//!
//! A scheduler can do well by the model only where the model tells all. So these verdicts count on the
//! [variant](em_true) of a machine where it does; on the machine itself they are told and count nothing.

mod score;
#[cfg(test)]
mod tests;
mod workload;

use crate::cache::{self, Cache};
use crate::guest::{Soc, logs};
use crate::kernel::{Kernel, Kernels};
use crate::machine::{Idle, Machine};
use crate::parallel;
use crate::session::{Run, Scheduler, Session};
use anyhow::{Context, Result};
use score::Ran;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::time::Duration;
use workload::{Behaviour, PREFIX};

/// Share of a task's activations that may end after the next was due, %.
const NEGATIVE_SLACK_PCT: f64 = 15.0;
/// Selects the tasks' offsets.
const SEED: u64 = 1;

/// Behaviours to be shown.
#[derive(Clone, Debug)]
pub struct Behaviours {
    /// Where; [`em_true`] is added.
    pub machine: Machine,
    /// Under what.
    pub schedulers: Vec<Scheduler>,
    /// What schedulers that are programs first learn from, and for how many simulated seconds.
    pub settle: (PathBuf, u32),
    /// The workload runner.
    pub load: PathBuf,
}

/// How one behaviour went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The machine.
    pub machine: String,
    /// The scheduler.
    pub scheduler: String,
    /// The behaviour.
    pub behaviour: &'static str,
    /// Estimated energy above the least, %; null where there is none.
    pub energy_above_pct: Option<f64>,
    /// What is borne.
    pub threshold_pct: f64,
    /// Activations of the worst task that ended after the next was due, %.
    pub negative_slack_pct: Option<f64>,
    /// Whether both are borne; null where it could not be judged.
    pub pass: Option<bool>,
    /// Whether that counts: the Energy Model is the truth of this machine.
    pub counts: bool,
    /// Why it could not be judged.
    pub reason: Option<String>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdicts {
    /// The kernel's release.
    pub kernel: String,
    /// By machine, scheduler and behaviour.
    pub verdicts: Vec<Verdict>,
}

/// The machine on which power is what the Energy Model says and nothing else: nothing is shared, idle CPUs draw nothing
/// in any state, and waking them costs nothing.
#[must_use]
pub fn em_true(machine: &Machine) -> Machine {
    let free = |idle: Idle| Idle {
        uw: 0,
        wake_nj: 0,
        ..idle
    };
    let mut machine = machine.clone();
    machine.name += "-em-true";
    for cluster in &mut machine.clusters {
        cluster.em_permille = 1000;
        cluster.shallow = free(cluster.shallow);
        cluster.deep = free(cluster.deep);
        cluster.sleep = free(cluster.sleep);
        for opp in &mut cluster.opps {
            opp.shared_uw = 0;
        }
    }
    machine
}

impl Behaviours {
    /// Has all behaviours shown under all schedulers, each scheduler on each variant in a guest of its own.
    ///
    /// # Errors
    /// When the machine has no such behaviours, or a guest cannot be had or does not come to its end.
    pub fn run(&self, cache: &Cache, kernel: &Kernel) -> Result<Verdicts> {
        let machines = [em_true(&self.machine), self.machine.clone()];
        let mut jobs = Vec::new();
        for machine in &machines {
            let behaviours = workload::all(machine).map_err(anyhow::Error::msg)?;
            let soc = Kernels::new(cache).soc(kernel, machine)?;
            for scheduler in &self.schedulers {
                jobs.push((machine, behaviours.clone(), soc.clone(), scheduler));
            }
        }
        let results = parallel::each(&jobs, |(machine, behaviours, soc, scheduler)| {
            self.judge(cache, kernel, machine, soc, behaviours, scheduler)
        });
        let verdicts = results.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(Verdicts {
            kernel: kernel.release.clone(),
            verdicts: verdicts.into_iter().flatten().collect(),
        })
    }

    fn judge(
        &self,
        cache: &Cache,
        kernel: &Kernel,
        machine: &Machine,
        soc: &Soc,
        behaviours: &[Behaviour],
        scheduler: &Scheduler,
    ) -> Result<Vec<Verdict>> {
        let name = format!("lisa-{}-{}", machine.name, scheduler.name).replace(' ', "");
        let mut runs = Vec::new();
        for behaviour in behaviours {
            let workload = logs().join(format!("{name}-workloads/{}.json", behaviour.name));
            let directory = workload.parent().context("a file without a directory")?;
            std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
            cache::write(&workload, behaviour.to_json())?;
            runs.push(Run {
                workload,
                seed: SEED,
                seconds: None,
            });
        }
        let session = Session {
            name,
            machine,
            scheduler,
            load: &self.load,
            runs,
            warmup: Duration::ZERO,
            settle: scheduler.program.is_some().then(|| self.settle.clone()),
            watch: Some(format!("{PREFIX}*")),
        };
        let done = session
            .run(cache, kernel, soc)
            .with_context(|| scheduler.name.clone())?;
        eprintln!(
            "lab: {} on {}: {} behaviours in {:.0} s",
            scheduler.name,
            machine.name,
            behaviours.len(),
            done.wall.as_secs_f64()
        );
        let told = behaviours.iter().zip(done.samples.iter().zip(&done.told));
        Ok(told
            .map(|(behaviour, (sample, told))| {
                let judged = match sample {
                    Ok(_) => judged(machine, behaviour, told),
                    Err(reason) => Err(reason.clone()),
                };
                Verdict::new(
                    &machine.name,
                    &scheduler.name,
                    behaviour,
                    machine != &self.machine,
                    judged,
                )
            })
            .collect())
    }
}

/// What joule-load's report says that is of interest here.
#[derive(Deserialize)]
struct Report {
    start_us: u64,
    tasks: Vec<TaskReport>,
}

#[derive(Deserialize)]
struct TaskReport {
    jobs: u64,
    missed: Option<u64>,
    skipped: u64,
}

impl TaskReport {
    /// Activations that ended after the next was due, or never began for that reason, %.
    fn negative_slack_pct(&self) -> Option<f64> {
        let exact = |count: u64| u32::try_from(count).ok().map(f64::from);
        let late = exact(self.missed.unwrap_or(0).checked_add(self.skipped)?)?;
        let all = exact(self.jobs.checked_add(self.skipped)?)?;
        (all > 0.0).then(|| 100.0 * late / all)
    }
}

/// Energy above the least and negative slack, %, by what a guest told.
fn judged(machine: &Machine, behaviour: &Behaviour, told: &str) -> Result<(f64, f64), String> {
    let report = told.lines().find(|line| line.starts_with('{'));
    let report: Report = serde_json::from_str(report.ok_or("joule-load reported nothing")?)
        .map_err(|error| format!("joule-load's report has changed: {error}"))?;
    let events = told
        .lines()
        .filter_map(|line| line.strip_prefix("ran "))
        .map(|line| ran(behaviour, line).ok_or_else(|| format!("'{line}' is no placement")))
        .collect::<Result<Vec<Ran>, String>>()?;
    let start = std::time::Duration::from_micros(report.start_us).as_secs_f64();
    let energy = score::energy(machine, behaviour, start, SEED, &events)?;
    let slacks = report.tasks.iter().map(TaskReport::negative_slack_pct);
    let slacks = slacks.collect::<Option<Vec<_>>>();
    let worst = slacks
        .ok_or("a task did nothing")?
        .into_iter()
        .fold(0.0, f64::max);
    Ok((energy.above_pct(), worst))
}

/// `SECONDS CPU THREAD`.
fn ran(behaviour: &Behaviour, line: &str) -> Option<Ran> {
    let mut words = line.split(' ');
    let (at_s, cpu, name) = (words.next()?, words.next()?, words.next()?);
    Some(Ran {
        at_s: at_s.parse().ok()?,
        cpu: cpu.parse().ok()?,
        task: behaviour.tasks.iter().position(|task| task.name == name)?,
    })
}

impl Verdict {
    fn new(
        machine: &str,
        scheduler: &str,
        behaviour: &Behaviour,
        counts: bool,
        judged: Result<(f64, f64), String>,
    ) -> Self {
        let (figures, reason) = match judged {
            Ok(figures) => (Some(figures), None),
            Err(reason) => (None, Some(reason)),
        };
        Self {
            machine: machine.to_owned(),
            scheduler: scheduler.to_owned(),
            behaviour: behaviour.name,
            energy_above_pct: figures.map(|(energy, _)| energy),
            threshold_pct: behaviour.threshold_pct,
            negative_slack_pct: figures.map(|(_, slack)| slack),
            pass: figures.map(|(energy, slack)| {
                energy <= behaviour.threshold_pct && slack <= NEGATIVE_SLACK_PCT
            }),
            counts,
            reason,
        }
    }
}

impl Display for Verdicts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Energy of placements by the Energy Model above the best, Linux {}; at most {NEGATIVE_SLACK_PCT} % of \
             activations late.",
            self.kernel
        )?;
        let mut last = None;
        for verdict in &self.verdicts {
            let here = (&verdict.machine, &verdict.scheduler);
            if last != Some(here) {
                let counts = if verdict.counts {
                    ""
                } else {
                    " (does not count)"
                };
                writeln!(f, "\n{} on {}{counts}", verdict.scheduler, verdict.machine)?;
                writeln!(
                    f,
                    "{:20} {:>9} {:>6} {:>7}",
                    "", "energy %", "limit", "late %"
                )?;
                last = Some(here);
            }
            write!(f, "{:20} ", verdict.behaviour)?;
            match (
                verdict.energy_above_pct,
                verdict.negative_slack_pct,
                verdict.pass,
            ) {
                (Some(energy), Some(slack), Some(pass)) => writeln!(
                    f,
                    "{energy:>9.1} {:>6} {slack:>7.1} {}",
                    verdict.threshold_pct,
                    if pass { "pass" } else { "FAIL" }
                )?,
                _ => writeln!(f, "- {}", verdict.reason.as_deref().unwrap_or("not judged"))?,
            }
        }
        Ok(())
    }
}
