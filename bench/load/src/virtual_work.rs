//! Work on the lab's emulated machine, where a CPU's speed is a number and not a fact.
//!
//! Progress is thread CPU time × speed of the CPU it was spent on. Between two
//! looks at the clock the CPU halts in the thread's own context: the guest sees
//! a running task, the host's CPU is free. Exactness:
//! - A slice that saw one speed is charged exactly, in integers.
//! - A slice during which the speed changed is charged the mean of before and
//!   after: wrong by at most half the change times one slice (250 µs).
//! - A slice that was preempted is charged the speed before: a halt ends with
//!   the interrupt that preempts, so its CPU time lies before the wait.
//! - The last slice is shortened by what a halt was lately seen to overrun and
//!   finished by looking at the clock; what is still overrun shortens the next run.

use crate::work::{Done, Limits, SLICE_NS, Work, WorkUnits};
use std::io;

/// Speed of the biggest CPU at its highest frequency.
pub const FULL_SPEED: u64 = 1024;

/// Progress is kept in fractions of a unit that a mean of two speeds cannot round.
const PARTS_PER_UNIT: u64 = 2 * FULL_SPEED;

/// A halt shorter than this costs more than it saves.
const MIN_HALT_NS: u64 = 5_000;

/// First guess, and bounds, of how far a halt overruns.
const FIRST_OVERRUN_NS: u64 = 5_000;
const MAX_OVERRUN_NS: u64 = 50_000;

/// Wall time beyond CPU time in one slice from which the thread must have been off the CPU.
const OFF_CPU_NS: u64 = 20_000;

/// What virtual work needs from the machine; the lab's is [`crate::vsoc::VirtualSoc`].
pub trait Machine: Send {
    /// `CLOCK_MONOTONIC`.
    ///
    /// # Errors
    /// When the clock cannot be read.
    fn now_ns(&self) -> io::Result<u64>;
    /// CPU time of the calling thread.
    ///
    /// # Errors
    /// When the clock cannot be read.
    fn cpu_time_ns(&self) -> io::Result<u64>;
    /// The CPU the calling thread is on.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn cpu(&self) -> io::Result<usize>;
    /// A CPU's speed now, 0 to [`FULL_SPEED`].
    ///
    /// # Errors
    /// When the machine has no such CPU.
    fn speed(&self, cpu: usize) -> io::Result<u64>;
    /// Spends about this much CPU time of the calling thread; an interrupt ends it early.
    ///
    /// # Errors
    /// When the machine refuses.
    fn halt(&self, ns: u64) -> io::Result<()>;
}

/// Work whose progress is computed from the speed of the CPUs.
#[derive(Debug)]
pub struct VirtualWork<M> {
    machine: M,
    /// Done beyond what was asked for, in parts; the next run has it for free.
    ahead_parts: u64,
    /// How far a halt was lately seen to overrun.
    overrun_ns: u64,
}

/// The thread at one moment.
struct Moment {
    now_ns: u64,
    cpu_time_ns: u64,
    cpu: usize,
    speed: u64,
}

impl<M: Machine> VirtualWork<M> {
    /// Works on the given machine.
    pub fn new(machine: M) -> Self {
        Self { machine, ahead_parts: 0, overrun_ns: FIRST_OVERRUN_NS }
    }

    fn look(&self) -> io::Result<Moment> {
        let cpu = self.machine.cpu()?;
        Ok(Moment {
            now_ns: self.machine.now_ns()?,
            cpu_time_ns: self.machine.cpu_time_ns()?,
            cpu,
            speed: self.machine.speed(cpu)?,
        })
    }

    /// Halts for one slice, or returns at once when too little is left to halt for; tells for how long.
    fn spend(&self, from: &Moment, left_parts: u64, limits: &Limits) -> io::Result<Option<u64>> {
        let needed_ns = left_parts.div_ceil(2 * from.speed.max(1));
        let slice_ns = needed_ns.min(limits.end_ns.saturating_sub(from.now_ns));
        let halt_ns = slice_ns.saturating_sub(self.overrun_ns).min(SLICE_NS);
        if halt_ns < MIN_HALT_NS {
            return Ok(None);
        }
        self.machine.halt(halt_ns)?;
        Ok(Some(halt_ns))
    }

    /// Learns by how much a halt overran; one cut short says nothing about that.
    fn learn(&mut self, halted_ns: u64, from: &Moment, to: &Moment) {
        let spent_ns = to.cpu_time_ns.saturating_sub(from.cpu_time_ns);
        if let Some(overrun_ns) = spent_ns.checked_sub(halted_ns) {
            self.overrun_ns = (7 * self.overrun_ns + overrun_ns.min(MAX_OVERRUN_NS)) / 8;
        }
    }

    /// Progress between two moments, in parts.
    fn progress(from: &Moment, to: &Moment) -> u64 {
        let cpu_ns = to.cpu_time_ns.saturating_sub(from.cpu_time_ns);
        let wall_ns = to.now_ns.saturating_sub(from.now_ns);
        let preempted = to.cpu != from.cpu || wall_ns > cpu_ns.saturating_add(OFF_CPU_NS);
        let speed_after = if preempted { from.speed } else { to.speed };
        cpu_ns.saturating_mul(from.speed + speed_after)
    }
}

impl<M: Machine> Work for VirtualWork<M> {
    fn run(&mut self, work: WorkUnits, limits: &Limits) -> io::Result<Done> {
        let asked_parts = work.0.saturating_mul(PARTS_PER_UNIT);
        let mut done_parts = self.ahead_parts;
        let mut migrations = 0;
        let mut from = self.look()?;
        while done_parts < asked_parts && !limits.over(from.now_ns) {
            let halted = self.spend(&from, asked_parts - done_parts, limits)?;
            let to = self.look()?;
            if let Some(halted_ns) = halted {
                self.learn(halted_ns, &from, &to);
            }
            done_parts = done_parts.saturating_add(Self::progress(&from, &to));
            migrations += u64::from(to.cpu != from.cpu);
            from = to;
        }
        self.ahead_parts = done_parts.saturating_sub(asked_parts);
        let done_parts = done_parts.min(asked_parts);
        Ok(Done { work: WorkUnits(done_parts / PARTS_PER_UNIT), migrations })
    }
}
