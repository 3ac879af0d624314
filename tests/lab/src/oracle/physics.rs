//! Energy of a core and of what a cluster shares, by the physics of `tests/lab/module/vsoc.h`, over one run.
//!
//! A CPU takes the jobs of its threads in the order in which they are due. When it is busy depends
//! on that order in nothing, as long as it never rests with a job at hand; so the energy is that of every
//! such scheduler, and only responses are those of this one.

use super::jobs::{FULL_CAPACITY, Job, Jobs, Mask};
use crate::machine::{Cluster, Idle, Opp};

/// Femtojoules (µW × ns).
pub(super) type Fj = u128;

/// Times awake and asleep of a core or a cluster that sinks by itself into a deeper state some time after
/// it went idle. At the start it is in the deeper state, as after a long time without work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Naps {
    /// Idle time until the deeper state is reached.
    after_ns: u64,
    /// A gap between two activities shorter than this counts as light to its end; [`Naps::exact`] has
    /// `after_ns` here.
    worth_ns: u64,
    /// End of the activity so far.
    until_ns: u64,
    awoken: bool,
    awake_ns: u64,
    light_ns: u64,
    deep_ns: u64,
    light_exits: u64,
    deep_exits: u64,
}

impl Naps {
    fn exact(after_ns: u64) -> Self {
        Self::counting(after_ns, after_ns)
    }

    fn counting(after_ns: u64, worth_ns: u64) -> Self {
        Self {
            after_ns,
            worth_ns,
            until_ns: 0,
            awoken: false,
            awake_ns: 0,
            light_ns: 0,
            deep_ns: 0,
            light_exits: 0,
            deep_exits: 0,
        }
    }

    /// Activity, told in the order of its beginnings.
    fn awake(&mut self, from_ns: u64, to_ns: u64) {
        let gap_ns = from_ns.saturating_sub(self.until_ns);
        if !self.awoken {
            self.deep_ns += gap_ns;
            self.deep_exits += 1;
            self.awoken = true;
        } else if gap_ns >= self.worth_ns {
            self.light_ns += self.after_ns;
            self.deep_ns += gap_ns - self.after_ns;
            self.deep_exits += 1;
        } else if gap_ns > 0 {
            self.light_ns += gap_ns;
            self.light_exits += 1;
        }
        self.awake_ns += to_ns.saturating_sub(from_ns.max(self.until_ns));
        self.until_ns = self.until_ns.max(to_ns);
    }

    /// Nothing more comes before the end.
    fn rest_until(&mut self, end_ns: u64) {
        let gap_ns = end_ns.saturating_sub(self.until_ns);
        let light_ns = if self.awoken {
            gap_ns.min(self.after_ns)
        } else {
            0
        };
        self.light_ns += light_ns;
        self.deep_ns += gap_ns - light_ns;
    }

    fn core_fj(&self, cluster: &Cluster, opp: &Opp) -> Fj {
        energy(opp.busy_uw, self.awake_ns)
            + energy(cluster.shallow.uw, self.light_ns)
            + energy(cluster.deep.uw, self.deep_ns)
            + lumps(cluster.shallow, self.light_exits)
            + lumps(cluster.deep, self.deep_exits)
    }

    fn shared_fj(&self, on_uw: u32, sleep_uw: u32, sleep: Idle) -> Fj {
        energy(on_uw, self.awake_ns + self.light_ns)
            + energy(sleep_uw, self.deep_ns)
            + lumps(sleep, self.deep_exits)
    }
}

fn energy(uw: u32, ns: u64) -> Fj {
    u128::from(uw) * u128::from(ns)
}

/// A wake-up's nanojoules are 10⁶ femtojoules each.
fn lumps(state: Idle, exits: u64) -> Fj {
    u128::from(state.wake_nj) * u128::from(exits) * 1_000_000
}

fn us(us: u32) -> u64 {
    u64::from(us) * 1000
}

/// Of a core nobody uses.
pub(super) fn unused_fj(cluster: &Cluster, end_ns: u64) -> Fj {
    energy(cluster.deep.uw, end_ns)
}

/// A CPU at work on its threads' jobs.
struct Queue {
    free_ns: u64,
    capacity: u64,
}

impl Queue {
    fn new(opp: &Opp) -> Self {
        Self {
            free_ns: 0,
            capacity: u64::from(opp.capacity.max(1)),
        }
    }

    /// When it is done with a job.
    fn take(&mut self, job: &Job) -> u64 {
        let takes_ns = job
            .work_ns
            .saturating_mul(FULL_CAPACITY)
            .div_ceil(self.capacity);
        self.free_ns = self.free_ns.max(job.due_ns).saturating_add(takes_ns);
        self.free_ns
    }
}

/// One CPU with some threads at one OPP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Of the core.
    pub core_fj: Fj,
    /// No set of busy CPUs that this one belongs to has its cluster share less: see [`Block::new`].
    pub shared_bound_fj: Fj,
    /// Responses above the limit, or at the end already waited for longer.
    pub late: usize,
}

impl Block {
    /// Carries out the run on one CPU.
    ///
    /// `shared_bound_fj` is what the cluster would share with this CPU alone, but for a gap between two of its
    /// activities, which counts as `h(g) = min(P g, c(g))`: P is the power while on, S ≤ P while asleep, W the
    /// wake-up, T the time until it sleeps, and `c(g) = P T + S (g − T) + W` for g ≥ T, else `P g`.
    /// Let other CPUs be busy within the gap. Either no part of it that they leave is as long as T: then the
    /// cluster is on throughout, which costs `P g ≥ h(g)`. Or one part g' ≥ T costs `c(g')`, and all the rest of the
    /// gap at least S: together `P T + W + S (g − T) = c(g) ≥ h(g)` or more. Before the first activity the
    /// cluster is asleep and woken once, whoever does it; after the last the same holds without W. So activity that
    /// is added never lowers the bound's left side below it. (S is the lower of both powers, whatever the file.)
    pub fn new(
        jobs: &Jobs,
        mask: Mask,
        cluster: &Cluster,
        opp: &Opp,
        shared_uw: u32,
        limit_ns: Option<u64>,
    ) -> Self {
        let asleep_uw = cluster.sleep.uw.min(shared_uw);
        let mut core = Naps::exact(us(cluster.deep.after_us));
        let mut shared = Naps::counting(
            sleeps_after_ns(cluster),
            worth_ns(cluster, shared_uw, asleep_uw),
        );
        let mut queue = Queue::new(opp);
        let mut late = 0;
        for job in of(jobs, mask) {
            let done_ns = queue.take(job);
            let to_ns = done_ns.min(jobs.end_ns);
            core.awake(job.due_ns, to_ns);
            shared.awake(job.due_ns, to_ns);
            late += usize::from(limit_ns.is_some_and(|limit_ns| to_ns - job.due_ns > limit_ns));
        }
        core.rest_until(jobs.end_ns);
        shared.rest_until(jobs.end_ns);
        Self {
            core_fj: core.core_fj(cluster, opp),
            shared_bound_fj: shared.shared_fj(shared_uw, asleep_uw, cluster.sleep),
            late,
        }
    }
}

/// Gaps as long as this cost no more asleep than on.
fn worth_ns(cluster: &Cluster, shared_uw: u32, asleep_uw: u32) -> u64 {
    let after_ns = sleeps_after_ns(cluster);
    match lumps(cluster.sleep, 1) {
        0 => after_ns,
        wake_fj => wake_fj
            .div_ceil(u128::from(shared_uw - asleep_uw).max(1))
            .try_into()
            .map_or(u64::MAX, |pays_ns: u64| after_ns.saturating_add(pays_ns)),
    }
}

fn sleeps_after_ns(cluster: &Cluster) -> u64 {
    us(cluster.deep.after_us) + us(cluster.sleep.after_us)
}

fn of(jobs: &Jobs, mask: Mask) -> impl Iterator<Item = &Job> {
    jobs.jobs
        .iter()
        .filter(move |job| mask >> job.thread & 1 == 1)
}

/// What a cluster shares while its CPUs, each at its OPP, run their threads.
///
/// A CPU that begins a job later than it is due is busy in between, so the cluster is awake from then
/// to the job's end; jobs come in the order in which they are due.
pub(super) fn shared_fj(
    jobs: &Jobs,
    cpus: &[(Mask, &Opp)],
    cluster: &Cluster,
    shared_uw: u32,
) -> Fj {
    let mut naps = Naps::exact(sleeps_after_ns(cluster));
    run(jobs, cpus, |job, done_ns| {
        naps.awake(job.due_ns, done_ns.min(jobs.end_ns));
    });
    naps.rest_until(jobs.end_ns);
    naps.shared_fj(shared_uw, cluster.sleep.uw, cluster.sleep)
}

/// Responses of all jobs that are done before the end.
pub(super) fn responses_ns(jobs: &Jobs, cpus: &[(Mask, &Opp)]) -> Vec<u64> {
    let mut responses = Vec::new();
    run(jobs, cpus, |job, done_ns| {
        if done_ns <= jobs.end_ns {
            responses.push(done_ns - job.due_ns);
        }
    });
    responses
}

fn run(jobs: &Jobs, cpus: &[(Mask, &Opp)], mut done: impl FnMut(&Job, u64)) {
    let mut queues: Vec<Queue> = cpus.iter().map(|(_, opp)| Queue::new(opp)).collect();
    let mut queue_of = vec![usize::MAX; jobs.threads.len()];
    for (index, (mask, _)) in cpus.iter().enumerate() {
        for (thread, queue) in queue_of.iter_mut().enumerate() {
            if mask >> thread & 1 == 1 {
                *queue = index;
            }
        }
    }
    for job in &jobs.jobs {
        let queue = queue_of.get(job.thread).copied();
        if let Some(queue) = queue.and_then(|queue| queues.get_mut(queue)) {
            done(job, queue.take(job));
        }
    }
}
