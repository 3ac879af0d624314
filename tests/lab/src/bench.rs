//! Every scheduler, every workload, every machine: the table by which placement is judged.
//!
//! One fresh guest for each machine and scheduler runs all workloads with all seeds, in an order that is drawn
//! from a seed and is the same for all schedulers. What a run yielded is kept in the cache under a hash of
//! everything it depends on, so that an interrupted table goes on where it was, and only what has changed
//! is run again.

pub mod cell;
mod plot;
mod store;
mod table;

use crate::cache::Cache;
use crate::catalogue::workload_name;
use crate::guest::Soc;
use crate::kernel::{Kernel, Kernels};
use crate::machine::Machine;
use crate::oracle;
use crate::parallel;
use crate::report::Sample;
use crate::session::{Run, Scheduler, Session, reference};
use anyhow::{Context, Result};
use cell::Cell;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::{Key, Store};

/// A scheduler that takes part, or why it cannot.
#[derive(Clone, Debug)]
pub struct Entrant {
    /// As in the tables.
    pub name: String,
    /// The scheduler; or what kept it from being built.
    pub scheduler: Result<Scheduler, String>,
    /// What the order of its runs in a guest is drawn from. One that is there twice, in two orders, tells which
    /// differences mean nothing.
    pub order: u64,
}

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Bench {
    /// Where.
    pub machines: Vec<Machine>,
    /// The workload files.
    pub workloads: Vec<PathBuf>,
    /// Under what. The kernel's own are the reference: EAS where a machine has it, else EEVDF.
    pub entrants: Vec<Entrant>,
    /// Workload seeds 1 to this many.
    pub seeds: u64,
    /// Simulated seconds that count of each run; `None`: as long as the workload says.
    pub seconds: Option<u32>,
    /// Simulated time before each run.
    pub warmup: Duration,
    /// What schedulers that are programs first learn from, and for how many simulated seconds.
    pub settle: (PathBuf, u32),
    /// The workload runner.
    pub load: PathBuf,
    /// Whether results in the cache are not to be used.
    pub fresh: bool,
}

/// One run's figures, a line of `lab.csv`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)] // the names of `Sample`, and of what was run
pub struct Row {
    pub machine: String,
    pub mode: &'static str,
    pub workload: String,
    pub wseed: u64,
    pub scheduler: String,
    pub profile: String,
    pub energy_j: Option<f64>,
    pub work_ms: Option<f64>,
    pub mean_ms: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub max_ms: Option<f64>,
    pub missed: Option<u64>,
    pub switches: Option<u64>,
    pub idle_exits: Option<u64>,
    /// `ok`, or `void: ` and the reason.
    pub run: String,
    /// All figures.
    #[serde(skip)]
    pub sample: Option<Sample>,
}

/// One guest's worth of runs.
struct Job<'a> {
    machine: &'a Machine,
    soc: &'a Soc,
    entrant: &'a Entrant,
}

impl Bench {
    /// Measures what the cache does not know yet, saying on stderr how far it is.
    ///
    /// # Errors
    /// When a machine's virtual SoC cannot be built, or the cache fails. What goes wrong in a guest is a row's.
    pub fn run(&self, cache: &Cache, kernel: &Kernel) -> Result<Vec<Row>> {
        let kernels = Kernels::new(cache);
        let socs: Vec<Soc> = (self.machines.iter())
            .map(|machine| kernels.soc(kernel, machine))
            .collect::<Result<_>>()?;
        let jobs: Vec<Job<'_>> = (self.machines.iter().zip(&socs))
            .flat_map(|(machine, soc)| {
                let of_kernel = Scheduler::of_kernel(machine);
                let there = move |entrant: &&Entrant| match &entrant.scheduler {
                    Ok(kernels) if kernels.program.is_none() => of_kernel.contains(kernels),
                    _ => true,
                };
                let entrants = self.entrants.iter().filter(there);
                entrants.map(move |entrant| Job {
                    machine,
                    soc,
                    entrant,
                })
            })
            .collect();
        let done = AtomicUsize::new(0);
        let tell = |what: &str| {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            eprintln!("lab: {done}/{}: {what}", jobs.len());
        };
        let rows = parallel::each(&jobs, |job| self.rows(cache, kernel, job, &tell));
        let rows = rows.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// The cells of the table, in the order of machines and workloads, with what the oracle knows of them.
    ///
    /// # Errors
    /// When a workload file cannot be read.
    pub fn cells<'r>(&self, rows: &'r [Row]) -> Result<Vec<Cell<'r>>> {
        let mut cells = Vec::new();
        for machine in &self.machines {
            for workload in &self.workloads {
                let name = workload_name(workload);
                let rows = rows.iter();
                let rows = rows.filter(|row| row.machine == machine.name && row.workload == name);
                let mut cell = Cell::new(&machine.name, &name, reference(machine), rows);
                cell.ask(|seed, p99_ms| self.least(machine, workload, seed, p99_ms))?;
                cells.push(cell);
            }
        }
        Ok(cells)
    }

    /// The least energy, J, of any placement for a run; `None` where it is not known.
    fn least(
        &self,
        machine: &Machine,
        workload: &Path,
        seed: u64,
        p99_ms: Option<f64>,
    ) -> Result<Option<f64>> {
        let oracle = oracle::least(machine, workload, seed, self.seconds, p99_ms)?;
        Ok(oracle.ok().map(|oracle| oracle.energy_j))
    }

    /// What is known of a guest's runs, and the rest measured.
    fn rows(
        &self,
        cache: &Cache,
        kernel: &Kernel,
        job: &Job<'_>,
        tell: &dyn Fn(&str),
    ) -> Result<Vec<Row>> {
        let runs = self.runs(&job.machine.name, job.entrant.order);
        let scheduler = match &job.entrant.scheduler {
            Ok(scheduler) => scheduler,
            Err(reason) => {
                let void = || Err(reason.clone());
                return Ok(runs.iter().map(|run| row(job, run, void())).collect());
            }
        };
        let mut session = Session {
            name: format!("bench-{}-{}", job.machine.name, job.entrant.name),
            machine: job.machine,
            scheduler,
            load: &self.load,
            runs: Vec::new(),
            warmup: self.warmup,
            settle: scheduler.program.is_some().then(|| self.settle.clone()),
            watch: None,
        };
        let key = Key::of(kernel, job.soc, &session, &job.entrant.name)?;
        let store = Store::new(cache, key);
        let known = |run: &Run| {
            if self.fresh {
                Ok(None)
            } else {
                store.read(run)
            }
        };
        let mut results = runs.iter().map(known).collect::<Result<Vec<_>>>()?;
        let missing = runs.iter().zip(&results);
        let missing = missing.filter(|(_, result)| result.is_none());
        session.runs = missing.map(|(run, _)| run.clone()).collect();
        let mut seconds = 0.0;
        let mut failure = None;
        if !session.runs.is_empty() {
            match session.run(cache, kernel, job.soc) {
                Ok(sessioned) => {
                    seconds = sessioned.wall.as_secs_f64();
                    let places = results.iter_mut().filter(|result| result.is_none());
                    let measured = session.runs.iter().zip(sessioned.samples);
                    for (place, (run, sample)) in places.zip(measured) {
                        store.write(run, &sample)?;
                        *place = Some(sample);
                    }
                }
                Err(error) => failure = format!("{error:#}").lines().next().map(str::to_owned),
            }
        }
        let failure = failure.unwrap_or_else(|| "it was not run".to_owned());
        let results = results.into_iter();
        let results = results.map(|result| result.unwrap_or_else(|| Err(failure.clone())));
        let rows: Vec<Row> = (runs.iter().zip(results))
            .map(|(run, result)| row(job, run, result))
            .collect();
        let void = rows.iter().filter(|row| row.sample.is_none());
        let first = void.clone().next();
        tell(&format!(
            "{} on {}: {} runs, {} of them known, {} void{}; {seconds:.0} s",
            job.entrant.name,
            job.machine.name,
            rows.len(),
            rows.len() - session.runs.len(),
            void.count(),
            first.map_or_else(String::new, |row| format!(", the first {}", row.run))
        ));
        Ok(rows)
    }

    /// All runs on a machine, in the order drawn for it.
    fn runs(&self, machine: &str, order: u64) -> Vec<Run> {
        let mut runs: Vec<Run> = (self.workloads.iter())
            .flat_map(|workload| {
                (1..=self.seeds).map(|seed| Run {
                    workload: workload.clone(),
                    seed,
                    seconds: self.seconds,
                })
            })
            .collect();
        runs.sort_by_cached_key(|run| {
            let drawn = format!("{order} {machine} {} {}", run.name(), run.seed);
            crate::cache::hash([drawn.as_bytes()])
        });
        runs
    }
}

/// Writes `lab.csv`, `lab.md` and a plot for each machine into a directory.
///
/// # Errors
/// When one cannot be written.
pub fn write(directory: &Path, head: &str, rows: &[Row], cells: &[Cell<'_>]) -> Result<String> {
    let path = directory.join("lab.csv");
    let mut csv = csv::Writer::from_path(&path).with_context(|| path.display().to_string())?;
    for row in rows {
        csv.serialize(row)?;
    }
    csv.flush().with_context(|| path.display().to_string())?;
    let text = format!("{head}\n{}", table::markdown(cells));
    crate::cache::write(&directory.join("lab.md"), &text)?;
    plot::write(directory, cells)?;
    Ok(text)
}

fn row(job: &Job<'_>, run: &Run, result: Result<Sample, String>) -> Row {
    let (sample, verdict) = match result {
        Ok(sample) => (Some(sample), "ok".to_owned()),
        Err(reason) => (None, format!("void: {reason}")),
    };
    let of = |value: fn(&Sample) -> f64| sample.as_ref().map(value);
    let count = |value: fn(&Sample) -> Option<u64>| sample.as_ref().and_then(value);
    Row {
        machine: job.machine.name.clone(),
        mode: job.machine.mode.name(),
        workload: run.name(),
        wseed: run.seed,
        scheduler: job.entrant.name.clone(),
        profile: job.entrant.profile(),
        energy_j: of(|it| it.energy_j),
        work_ms: of(|it| it.work_ms),
        mean_ms: of(|it| it.mean_ms),
        p50_ms: of(|it| it.p50_ms),
        p99_ms: of(|it| it.p99_ms),
        max_ms: of(|it| it.max_ms),
        missed: count(|it| it.missed),
        switches: count(|it| it.switches),
        idle_exits: count(|it| it.idle_exits),
        run: verdict,
        sample,
    }
}

impl Entrant {
    /// A scheduler that is there.
    pub fn ready(scheduler: Scheduler) -> Self {
        Self {
            name: scheduler.name.clone(),
            scheduler: Ok(scheduler),
            order: 1,
        }
    }

    /// The same once more, in another order.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            name: format!("{} again", self.name),
            scheduler: self.scheduler.clone(),
            order: self.order + 1,
        }
    }

    /// The profile named in the arguments; `-` without.
    fn profile(&self) -> String {
        let words = self.name.split_whitespace();
        let profile = words.skip_while(|word| *word != "--profile").nth(1);
        profile.unwrap_or("-").to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    fn bench() -> Bench {
        let workload = |name: &str| catalogue::workload(name).unwrap();
        Bench {
            machines: vec![catalogue::machine("phone-2c-msm8998").unwrap()],
            workloads: ["batch", "messaging", "ramp-up"].map(workload).to_vec(),
            entrants: Vec::new(),
            seeds: 5,
            seconds: None,
            warmup: Duration::ZERO,
            settle: (workload("mixed-interactive"), 1),
            load: PathBuf::new(),
            fresh: false,
        }
    }

    #[test]
    fn the_order_is_drawn_from_its_seed_and_leaves_nothing_out() {
        let names = |order| {
            let runs = bench().runs("phone", order);
            runs.iter()
                .map(|run| format!("{}{}", run.name(), run.seed))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(1), names(1));
        assert_ne!(names(1), names(2));
        let mut sorted = names(1);
        assert!(!sorted.is_sorted());
        sorted.sort();
        sorted.dedup();
        assert_eq!(sorted.len(), 15);
    }

    #[test]
    fn a_profile_is_what_the_arguments_say() {
        let profile = |name: &str| {
            let scheduler = Err(String::new());
            Entrant {
                name: name.to_owned(),
                scheduler,
                order: 1,
            }
            .profile()
        };
        assert_eq!(profile("scx_joule --profile battery -v"), "battery");
        assert_eq!(profile("eevdf"), "-");
    }
}
