//! Compares schedulers: the same workload, with the same seeds, in a fresh guest for each.

use crate::cache::Cache;
use crate::catalogue::workload_name;
use crate::guest::Soc;
use crate::kernel::{Kernel, Kernels};
use crate::learnt::Learnt;
use crate::machine::Machine;
use crate::parallel;
use crate::report::{Report, Row, Sample};
use crate::session::{Run, Scheduler, Session};
use anyhow::{Context, Error, Result, bail};
use std::path::PathBuf;
use std::time::Duration;

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
    /// Simulated time before them.
    pub warmup: Duration,
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
        let figures = |scheduler: &_| self.figures(cache, kernel, &soc, scheduler);
        let results = parallel::each(&self.schedulers, figures);
        let mut rows: Vec<Row> = Vec::new();
        for (scheduler, figures) in self.schedulers.iter().zip(results) {
            let (samples, learnt) = figures.with_context(|| scheduler.name.clone())?;
            let row = Row::new(&scheduler.name, samples, learnt, rows.first());
            rows.push(row.with_context(|| format!("{}: no figures", scheduler.name))?);
        }
        Ok(Report {
            machine: self.machine.name.clone(),
            kernel: kernel.release.clone(),
            workload: workload_name(&self.workload),
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
        let run = |seed| Run {
            workload: self.workload.clone(),
            seed,
            seconds: Some(self.seconds),
        };
        let session = Session {
            name: format!("run-{}-{}", self.machine.name, scheduler.name),
            machine: &self.machine,
            scheduler,
            load: &self.load,
            runs: (1..=self.seeds).map(run).collect(),
            warmup: self.warmup,
            settle: None,
            watch: None,
        };
        let done = session.run(cache, kernel, soc)?;
        eprintln!(
            "lab: {}: {} seeds of {} s done in {:.0} s",
            scheduler.name,
            self.seeds,
            self.seconds,
            done.wall.as_secs_f64()
        );
        if let Some(fault) = done.fault {
            bail!(fault);
        }
        let samples = done.samples.into_iter().collect::<Result<_, _>>();
        Ok((samples.map_err(Error::msg)?, done.learnt))
    }
}
