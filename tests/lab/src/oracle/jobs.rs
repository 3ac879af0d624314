//! What a periodic workload asks for: every activation of every thread, as joule-load would draw it.

use super::Inapplicable;
use joule_load::draws::Draws;
use joule_load::work::WorkUnits;
use joule_load::workload::{Event, Kind, Loops, Script, Task, Workload};

/// Threads as bits.
pub(super) type Mask = u32;

/// More threads have more placements than can be looked at.
pub(super) const MAX_THREADS: usize = 12;

/// Speed of the biggest CPU at its highest OPP, in which work is measured.
pub(super) const FULL_CAPACITY: u64 = 1024;

/// A thread that does the same work each period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Thread {
    /// The task's name, with a number where it has several threads.
    pub name: String,
    /// Mean capacity it needs, in millionths of a unit of capacity.
    pub need_ucap: u64,
}

/// One activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// From the start.
    pub due_ns: u64,
    /// Time it takes on a CPU of capacity 1024.
    pub work_ns: u64,
    /// Whose.
    pub thread: usize,
}

/// All activations of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Jobs {
    /// In the order of the file, [`MAX_THREADS`] at most.
    pub threads: Vec<Thread>,
    /// By the time they are due.
    pub jobs: Vec<Job>,
    /// Length of the run.
    pub end_ns: u64,
}

impl Jobs {
    /// The activations that joule-load plays with this seed.
    ///
    /// # Errors
    /// What about the workload is not simply periodic.
    pub fn new(workload: &Workload, seed: u64, end_ns: u64) -> Result<Self, Inapplicable> {
        let mut jobs = Self {
            end_ns,
            ..Self::default()
        };
        for task in &workload.tasks {
            let (periodic, script) = periodic(task)?;
            for instance in 0..task.threads() {
                jobs.add(task, instance, periodic, script, seed);
            }
        }
        if jobs.threads.len() > MAX_THREADS {
            return Err(Inapplicable(format!(
                "{} threads have too many placements; {MAX_THREADS} at most",
                jobs.threads.len()
            )));
        }
        jobs.jobs.sort_by_key(|job| (job.due_ns, job.thread));
        Ok(jobs)
    }

    fn add(
        &mut self,
        task: &Task,
        instance: usize,
        periodic: Periodic,
        script: &Script,
        seed: u64,
    ) {
        let thread = self.threads.len();
        let mut draws = Draws::new(seed, u64::try_from(thread).unwrap_or(u64::MAX));
        let offset_ns = script
            .first_period_ns()
            .map_or(0, |period_ns| draws.offset_ns(period_ns));
        let mut due_ns = task.delay_ns.saturating_add(offset_ns);
        while due_ns < self.end_ns {
            let jitter = draws.jitter(periodic.jitter_pct);
            self.jobs.push(Job {
                due_ns,
                work_ns: jitter.apply(periodic.work).0,
                thread,
            });
            due_ns = due_ns.saturating_add(periodic.period_ns);
        }
        let need = u128::from(periodic.work.0) * u128::from(FULL_CAPACITY) * 1_000_000;
        self.threads.push(Thread {
            name: if task.threads() > 1 {
                format!("{}-{instance}", task.name)
            } else {
                task.name.clone()
            },
            need_ucap: need
                .checked_div(u128::from(periodic.period_ns))
                .and_then(|need| u64::try_from(need).ok())
                .unwrap_or(u64::MAX),
        });
    }
}

/// What each pass of a thread does.
#[derive(Clone, Copy)]
struct Periodic {
    work: WorkUnits,
    period_ns: u64,
    jitter_pct: u32,
}

/// A task that does nothing but run and wait for its timer, for ever and wherever it likes.
fn periodic(task: &Task) -> Result<(Periodic, &Script), Inapplicable> {
    let no = |reason: &str| Err(Inapplicable(format!("task '{}' {reason}", task.name)));
    let Kind::Script(script) = &task.kind else {
        return no("is a ring");
    };
    let [phase] = script.phases.as_slice() else {
        return no("has several phases");
    };
    let [Event::Run(work), Event::Timer { period_ns, .. }] = phase.events.as_slice() else {
        return no("does more than run and wait for a timer");
    };
    if script.loops != Loops::Forever && phase.loops != Loops::Forever {
        return no("ends by itself");
    }
    if task.cpus.is_some() || phase.cpus.is_some() {
        return no("may not run on every CPU");
    }
    Ok((
        Periodic {
            work: *work,
            period_ns: *period_ns,
            jitter_pct: phase.jitter_pct,
        },
        script,
    ))
}
