//! Plays what one thread has to do, and keeps the record.
//!
//! A *job* is the work between two waits. It is due at the moment its wait was
//! meant to end (a timer's expiry, the planned end of a sleep, the instant of
//! the resume) and complete when the thread reaches its next wait, so that its
//! response includes every delay the scheduler caused. Its deadline is what the
//! phase says, or the next expiry when a timer follows.

use crate::draws::{Draws, Jitter};
use crate::stats::{Record, Responses};
use crate::work::{Done, WorkUnits};
use crate::workload::{Event, Loops, Phase, Ring, Script, TimerMode};
use std::io;

/// What a player acts upon: the clock, the CPU and the other threads.
pub trait World {
    /// `CLOCK_MONOTONIC`, in ns.
    ///
    /// # Errors
    /// When the clock cannot be read.
    fn now_ns(&mut self) -> io::Result<u64>;
    /// When the run ends, on the same clock.
    fn end_ns(&self) -> u64;
    /// Sleeps; false when the run ended first.
    ///
    /// # Errors
    /// When the kernel refuses to sleep.
    fn sleep_until(&mut self, due_ns: u64) -> io::Result<bool>;
    /// Works until done, until that time, or until the run ends.
    ///
    /// # Errors
    /// When work is impossible here.
    fn work(&mut self, work: WorkUnits, until_ns: u64) -> io::Result<Done>;
    /// Offers the CPU to others.
    fn yield_now(&mut self);
    /// Waits for a message to this thread; `None` when the run ended first.
    ///
    /// # Errors
    /// When this thread cannot receive.
    fn receive(&mut self) -> io::Result<Option<u64>>;
    /// Sends a message to a thread; false when its queue is full.
    ///
    /// # Errors
    /// When that thread cannot receive.
    fn send(&mut self, thread: usize, message: u64) -> io::Result<bool>;
    /// The threads of a task.
    fn threads_of(&self, task: usize) -> std::ops::Range<usize>;
    /// Restricts the thread to these CPUs; `None` means the task's own.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn set_cpus(&mut self, cpus: Option<&[usize]>) -> io::Result<()>;
}

/// One thread's share of a task.
#[derive(Debug, Clone)]
pub enum Part<'a> {
    /// All of a script.
    Script(&'a Script),
    /// The head of a ring, who sends to this thread.
    Head(&'a Ring, usize),
    /// Another member of a ring, who passes on to this thread.
    Member(&'a Ring, usize),
}

/// The message that dissolves a ring: no burst is due at the clock's zero.
const DISSOLVE: u64 = 0;

/// Why playing stopped.
enum Stop {
    /// The run is over.
    Over,
    /// The thread cannot go on.
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

type Step<T = ()> = Result<T, Stop>;

/// A job under way.
#[derive(Debug, Clone, Copy)]
struct Job {
    deadline_ns: Option<u64>,
}

/// Plays one thread's part.
pub struct Player<'a, W> {
    world: &'a mut W,
    draws: Draws,
    record: Record,
    /// When the job under way or to come was or is due.
    due_ns: u64,
    job: Option<Job>,
    /// The next expiry of each timer; `None` before its first use.
    timers_ns: Vec<Option<u64>>,
    /// The period of the timer that last let the thread go.
    period_ns: Option<u64>,
}

impl<'a, W: World> Player<'a, W> {
    /// A player with room for this many response times.
    pub fn new(world: &'a mut W, draws: Draws, room: usize) -> Self {
        let record = Record {
            responses: Responses::with_room(room),
            ..Record::default()
        };
        Self {
            world,
            draws,
            record,
            due_ns: 0,
            job: None,
            timers_ns: Vec::new(),
            period_ns: None,
        }
    }

    /// Plays from the common start, after the task's delay, until all is done or the run ends.
    ///
    /// # Errors
    /// When the world fails.
    pub fn play(mut self, part: &Part, start_ns: u64, delay_ns: u64) -> io::Result<Record> {
        let played = match part {
            Part::Script(script) => self.script(script, start_ns.saturating_add(delay_ns)),
            Part::Head(ring, next) => self.head(ring, *next, start_ns.saturating_add(delay_ns)),
            Part::Member(ring, next) => self.member(ring, *next),
        };
        match played {
            Ok(()) => {
                self.complete(None)?;
                self.record.completion_ns = Some(self.world.now_ns()?.saturating_sub(start_ns));
            }
            Err(Stop::Over) => self.cut()?,
            Err(Stop::Failed(error)) => return Err(error),
        }
        Ok(self.record)
    }

    fn script(&mut self, script: &Script, begin_ns: u64) -> Step {
        self.timers_ns = vec![None; script.timers];
        self.period_ns = script.first_period_ns();
        let offset_ns = self
            .period_ns
            .map_or(0, |period_ns| self.draws.offset_ns(period_ns));
        self.wait_until(begin_ns.saturating_add(offset_ns))?;
        repeat(script.loops, || {
            script.phases.iter().try_for_each(|phase| self.phase(phase))
        })
    }

    fn phase(&mut self, phase: &Phase) -> Step {
        self.world.set_cpus(phase.cpus.as_deref())?;
        repeat(phase.loops, || {
            let jitter = self.draws.jitter(phase.jitter_pct);
            phase
                .events
                .iter()
                .try_for_each(|event| self.event(event, phase, jitter))
        })
    }

    fn event(&mut self, event: &Event, phase: &Phase, jitter: Jitter) -> Step {
        match *event {
            Event::Run(work) => self.work(jitter.apply(work), phase.deadline_ns),
            Event::Runtime(ns) => self.compute(ns, phase.deadline_ns),
            Event::Sleep(ns) => {
                let now_ns = self.complete(None)?;
                self.period_ns = None;
                self.wait_until(now_ns.saturating_add(ns))
            }
            Event::Timer {
                timer,
                period_ns,
                mode,
            } => self.timer(timer, period_ns, mode),
            Event::Yield => {
                self.world.yield_now();
                self.not_over()
            }
            Event::Suspend => {
                self.complete(None)?;
                self.period_ns = None;
                self.due_ns = self.world.receive()?.ok_or(Stop::Over)?;
                Ok(())
            }
            Event::Resume(task) => {
                let now_ns = self.world.now_ns()?;
                for thread in self.world.threads_of(task) {
                    let woken = self.world.send(thread, now_ns)?;
                    self.record.skipped += u64::from(!woken);
                }
                self.not_over()
            }
        }
    }

    /// Ends what could otherwise repeat without ever waiting.
    fn not_over(&mut self) -> Step {
        let now_ns = self.world.now_ns()?;
        if self.world.sleep_until(now_ns)? {
            Ok(())
        } else {
            Err(Stop::Over)
        }
    }

    fn work(&mut self, work: WorkUnits, deadline_ns: Option<u64>) -> Step {
        self.begin(deadline_ns);
        let done = self.world.work(work, u64::MAX)?;
        self.count(done);
        if done.work < work {
            Err(Stop::Over)
        } else {
            self.over_if_nothing(work)
        }
    }

    /// A run of no work takes no time, and so would never see the end.
    fn over_if_nothing(&mut self, work: WorkUnits) -> Step {
        if work == WorkUnits(0) {
            self.not_over()
        } else {
            Ok(())
        }
    }

    fn compute(&mut self, ns: u64, deadline_ns: Option<u64>) -> Step {
        self.begin(deadline_ns);
        let until_ns = self.world.now_ns()?.saturating_add(ns);
        let done = self.world.work(WorkUnits(u64::MAX), until_ns)?;
        self.count(done);
        self.not_over()
    }

    fn count(&mut self, done: Done) {
        self.record.work = WorkUnits(self.record.work.0.saturating_add(done.work.0));
        self.record.migrations += done.migrations;
    }

    fn timer(&mut self, timer: usize, period_ns: u64, mode: TimerMode) -> Step {
        let from_ns = self
            .timers_ns
            .get(timer)
            .copied()
            .flatten()
            .unwrap_or(self.due_ns);
        let mut expiry_ns = from_ns.saturating_add(period_ns);
        let now_ns = self.complete(Some(expiry_ns))?;
        if mode == TimerMode::Relative {
            let passed = now_ns
                .min(self.world.end_ns())
                .saturating_sub(expiry_ns)
                .checked_div(period_ns)
                .unwrap_or(0);
            expiry_ns = expiry_ns.saturating_add(passed.saturating_mul(period_ns));
            self.record.skipped += passed;
        }
        if let Some(next_ns) = self.timers_ns.get_mut(timer) {
            *next_ns = Some(expiry_ns);
        }
        self.period_ns = Some(period_ns);
        self.wait_until(expiry_ns)
    }

    fn wait_until(&mut self, due_ns: u64) -> Step {
        self.due_ns = due_ns;
        if self.world.sleep_until(due_ns)? {
            Ok(())
        } else {
            Err(Stop::Over)
        }
    }

    fn begin(&mut self, deadline_ns: Option<u64>) {
        let due_ns = self.due_ns;
        self.job.get_or_insert(Job {
            deadline_ns: deadline_ns.map(|after_ns| due_ns.saturating_add(after_ns)),
        });
    }

    /// Ends the job under way, if there is one; returns the time.
    fn complete(&mut self, next_expiry_ns: Option<u64>) -> io::Result<u64> {
        let now_ns = self.world.now_ns()?;
        if let Some(job) = self.job.take() {
            self.record
                .responses
                .push(now_ns.saturating_sub(self.due_ns));
            if let Some(deadline_ns) = job.deadline_ns.or(next_expiry_ns) {
                self.record.with_deadline += 1;
                self.record.missed += u64::from(now_ns > deadline_ns);
            }
        }
        Ok(now_ns)
    }

    /// Accounts for a job that the end of the run cut short, and for the expiries that passed before the end, be it
    /// that the thread, which should have run, was not let run.
    fn cut(&mut self) -> io::Result<()> {
        let now_ns = self.world.now_ns()?.min(self.world.end_ns());
        let late_ns = now_ns.saturating_sub(self.due_ns);
        let passed = self
            .period_ns
            .map_or(0, |period_ns| late_ns.div_ceil(period_ns));
        let Some(job) = self.job.take() else {
            self.record.skipped += passed;
            return Ok(());
        };
        self.record.unfinished += 1;
        self.record.skipped += passed.saturating_sub(1);
        let deadline_ns = job.deadline_ns.or(self
            .period_ns
            .map(|period_ns| self.due_ns.saturating_add(period_ns)));
        if deadline_ns.is_some_and(|deadline_ns| now_ns > deadline_ns) {
            self.record.with_deadline += 1;
            self.record.missed += 1;
        }
        Ok(())
    }

    fn head(&mut self, ring: &Ring, next: usize, begin_ns: u64) -> Step {
        let offset_ns = ring
            .period_ns
            .map_or(0, |period_ns| self.draws.offset_ns(period_ns));
        self.timers_ns = vec![None];
        self.period_ns = ring.period_ns;
        self.wait_until(begin_ns.saturating_add(offset_ns))?;
        repeat(ring.loops, || {
            self.begin(None);
            for _ in 0..ring.messages {
                self.pass(next, self.due_ns)?;
            }
            for _ in 0..ring.messages {
                self.world.receive()?.ok_or(Stop::Over)?;
                self.work(ring.work, None)?;
            }
            match ring.period_ns {
                Some(period_ns) => self.timer(0, period_ns, TimerMode::Relative),
                None => {
                    self.due_ns = self.complete(None)?;
                    self.not_over()
                }
            }
        })?;
        self.pass(next, DISSOLVE)
    }

    fn member(&mut self, ring: &Ring, next: usize) -> Step {
        loop {
            let message = self.world.receive()?.ok_or(Stop::Over)?;
            if message == DISSOLVE {
                return self.pass(next, DISSOLVE);
            }
            let done = self.world.work(ring.work, u64::MAX)?;
            self.count(done);
            self.pass(next, message)?;
        }
    }

    /// A pipe holds more than a burst, so it cannot be full.
    fn pass(&mut self, next: usize, message: u64) -> Step {
        if self.world.send(next, message)? {
            Ok(())
        } else {
            Err(io::Error::other("the ring's pipe is full").into())
        }
    }
}

fn repeat(loops: Loops, mut once: impl FnMut() -> Step) -> Step {
    match loops {
        Loops::Forever => loop {
            once()?;
        },
        Loops::Times(times) => (0..times).try_for_each(|_| once()),
    }
}

#[cfg(test)]
mod tests;
