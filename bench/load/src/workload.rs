//! A workload as plain data: what the parser hands over and the runner plays.
//!
//! Work is in [`WorkUnits`], times are in nanoseconds, CPUs are the kernel's numbers.

use crate::work::WorkUnits;

/// All that one file describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The comment the file opens with: what the workload is meant to show.
    pub intent: Option<String>,
    /// Top-level settings that were understood but have no meaning here (rt-app's logging and memory settings).
    pub ignored: Vec<&'static str>,
    /// How long to run, in ns; `None` runs until every task has ended.
    pub duration_ns: Option<u64>,
    /// The CPU to calibrate the loop on; `None` picks the biggest.
    pub calibration_cpu: Option<usize>,
    /// The cgroups of the tasks and those around them, outer ones first.
    pub taskgroups: Vec<Taskgroup>,
    /// In the order of the file.
    pub tasks: Vec<Task>,
}

impl Workload {
    /// The first task that never ends by itself, if any.
    pub fn endless(&self) -> Option<&Task> {
        self.tasks
            .iter()
            .find(|task| task.instances > 0 && task.is_endless())
    }

    /// How many threads will be created.
    pub fn threads(&self) -> usize {
        self.tasks.iter().map(Task::threads).sum()
    }
}

/// A cgroup for threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taskgroup {
    /// The way to it from the runner's own cgroup, such as `/outer/inner`.
    pub path: String,
    /// cgroup v2's `cpu.weight`, 1 to 10 000; `None` leaves it, 100 in a new group.
    pub weight: Option<u32>,
}

/// One named task: one or more threads that all do the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Name of the task and, with an index when there are several, of its threads.
    pub name: String,
    /// How many copies of it run; 0 creates none.
    pub instances: usize,
    /// Scheduling class and its one parameter; `None` leaves both as inherited.
    pub policy: Option<Policy>,
    /// The CPUs it may run on; `None` leaves the affinity as inherited.
    pub cpus: Option<Vec<usize>>,
    /// The cgroup its threads are in, by its path; `None` leaves them where the runner is.
    pub taskgroup: Option<String>,
    /// From the common start to its own start, in ns.
    pub delay_ns: u64,
    /// What its threads do.
    pub kind: Kind,
}

impl Task {
    /// Threads of all instances.
    pub fn threads(&self) -> usize {
        let each = match &self.kind {
            Kind::Script(_) => 1,
            Kind::Ring(ring) => ring.members,
        };
        self.instances * each
    }

    fn is_endless(&self) -> bool {
        match &self.kind {
            Kind::Script(script) => {
                script.loops == Loops::Forever
                    || script.phases.iter().any(|p| p.loops == Loops::Forever)
            }
            Kind::Ring(ring) => ring.loops == Loops::Forever,
        }
    }
}

/// What the threads of a task do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// rt-app's phases and events.
    Script(Script),
    /// Messages that go round a ring of threads.
    Ring(Ring),
}

/// How often something is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loops {
    /// Until the run ends.
    Forever,
    /// This many times.
    Times(u64),
}

/// Phases played in order, again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// How often the sequence of phases is played.
    pub loops: Loops,
    /// In the order of the file; never empty.
    pub phases: Vec<Phase>,
    /// How many timers the events refer to, by index.
    pub timers: usize,
}

impl Script {
    /// The period of the first timer that is reached: what start offsets are drawn from, in ns.
    pub fn first_period_ns(&self) -> Option<u64> {
        self.phases
            .iter()
            .flat_map(|phase| &phase.events)
            .find_map(|event| match event {
                Event::Timer { period_ns, .. } => Some(*period_ns),
                _ => None,
            })
    }
}

/// A sequence of events, repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// The key in the file; the task's own name where the task has no phases.
    pub name: String,
    /// How often the events are played.
    pub loops: Loops,
    /// The CPUs allowed during this phase; `None` means the task's.
    pub cpus: Option<Vec<usize>>,
    /// Each pass draws its work from ± this much of what the file says, in percent, 0 to 100.
    pub jitter_pct: u32,
    /// A job must be complete this long after it was due, in ns; `None` takes the next period.
    pub deadline_ns: Option<u64>,
    /// In the order of the file; never empty.
    pub events: Vec<Event>,
}

/// One step of a phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A fixed amount of work: takes longer on a slower CPU.
    Run(WorkUnits),
    /// A fixed wall time of computing, in ns: does less on a slower CPU.
    Runtime(u64),
    /// Sleep this long from now, in ns.
    Sleep(u64),
    /// Sleep until the timer's next expiry.
    Timer {
        /// Index of the timer in its task.
        timer: usize,
        /// Distance of its expiries, in ns, above 0.
        period_ns: u64,
        /// What happens to expiries that were missed.
        mode: TimerMode,
    },
    /// Offer the CPU to others.
    Yield,
    /// Wait for a resume.
    Suspend,
    /// Wake every thread of the task with this index.
    Resume(usize),
}

/// What a timer does about expiries that passed while its task was still at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerMode {
    /// Skip them, and count them: the next job belongs to the latest expiry.
    Relative,
    /// Make up for them: every expiry gets its job, the late ones back to back.
    Absolute,
}

/// A ring of threads connected by pipes, after the manner of hackbench.
///
/// In a burst the head sends `messages` messages; each goes once round the
/// ring and costs every member, the head last, `work`. The burst is the head's
/// job: due when it begins, complete when the last message is back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// Threads in the ring, 2 or more.
    pub members: usize,
    /// Messages of one burst, all under way at the same time.
    pub messages: usize,
    /// Work per message and member.
    pub work: WorkUnits,
    /// Distance of the bursts' due times, in ns; `None` begins the next as one ends.
    pub period_ns: Option<u64>,
    /// Bursts.
    pub loops: Loops,
}

/// Scheduling class of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `SCHED_OTHER`, `SCHED_BATCH`, `SCHED_IDLE` or `SCHED_EXT` with a nice value, −20 to 19.
    Fair(FairPolicy, i32),
    /// `SCHED_FIFO` with a priority, 1 to 99.
    Fifo(i32),
    /// `SCHED_RR` with a priority, 1 to 99.
    RoundRobin(i32),
}

/// The scheduling classes that take a nice value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FairPolicy {
    /// `SCHED_OTHER`
    Other,
    /// `SCHED_BATCH`
    Batch,
    /// `SCHED_IDLE`
    Idle,
    /// `SCHED_EXT`
    Ext,
}
