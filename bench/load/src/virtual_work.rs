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
        Self {
            machine,
            ahead_parts: 0,
            overrun_ns: FIRST_OVERRUN_NS,
        }
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
        Ok(Done {
            work: WorkUnits(done_parts / PARTS_PER_UNIT),
            migrations,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    const MS: u64 = 1_000_000;
    /// What a look at a clock costs on the simulated machine.
    const LOOK_NS: u64 = 300;
    /// By how much its halts overrun.
    const OVERRUN_NS: u64 = 7_000;

    /// From this time on, this CPU has this speed.
    #[derive(Debug, Clone, Copy)]
    struct Change {
        at_ns: u64,
        cpu: usize,
        speed: u64,
    }

    /// At this time the thread loses its CPU, and goes on this much later on another.
    #[derive(Debug, Clone, Copy)]
    struct Preemption {
        at_ns: u64,
        away_ns: u64,
        cpu: usize,
    }

    /// A machine that knows exactly how much was done.
    #[derive(Debug, Default)]
    struct State {
        now_ns: u64,
        cpu_time_ns: u64,
        cpu: usize,
        truth_parts: u64,
        halts_ns: Vec<u64>,
        changes: Vec<Change>,
        preemptions: Vec<Preemption>,
    }

    impl State {
        fn speed(&self, cpu: usize) -> u64 {
            let mut latest_first = self.changes.iter().rev();
            let past = latest_first.find(|change| change.cpu == cpu && change.at_ns <= self.now_ns);
            past.map_or(FULL_SPEED, |change| change.speed)
        }

        /// Computes for this long, through every change and preemption on the way; tells whether it was preempted.
        fn compute(&mut self, ns: u64) -> bool {
            let end_ns = self.now_ns + ns;
            while self.now_ns < end_ns {
                let preemption = self.preemptions.first().copied();
                let change = self
                    .changes
                    .iter()
                    .map(|change| change.at_ns)
                    .find(|at| *at > self.now_ns);
                let step_end = [change, preemption.map(|p| p.at_ns.max(self.now_ns))]
                    .into_iter()
                    .flatten()
                    .fold(end_ns, u64::min);
                let step_ns = step_end - self.now_ns;
                self.truth_parts += 2 * self.speed(self.cpu) * step_ns;
                self.cpu_time_ns += step_ns;
                self.now_ns = step_end;
                if let Some(preemption) = preemption.filter(|p| p.at_ns <= self.now_ns) {
                    self.preemptions.remove(0);
                    self.now_ns += preemption.away_ns;
                    self.cpu = preemption.cpu;
                    return true;
                }
            }
            false
        }
    }

    #[derive(Debug, Default)]
    struct Simulated(Mutex<State>);

    impl Machine for &Simulated {
        fn now_ns(&self) -> io::Result<u64> {
            let mut state = self.0.lock().unwrap();
            state.compute(LOOK_NS);
            Ok(state.now_ns)
        }
        fn cpu_time_ns(&self) -> io::Result<u64> {
            let mut state = self.0.lock().unwrap();
            state.compute(LOOK_NS);
            Ok(state.cpu_time_ns)
        }
        fn cpu(&self) -> io::Result<usize> {
            Ok(self.0.lock().unwrap().cpu)
        }
        fn speed(&self, cpu: usize) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().speed(cpu))
        }
        fn halt(&self, ns: u64) -> io::Result<()> {
            let mut state = self.0.lock().unwrap();
            state.halts_ns.push(ns);
            // An interrupt that preempts ends the halt and its overrun.
            if !state.compute(ns) {
                state.compute(OVERRUN_NS);
            }
            Ok(())
        }
    }

    fn machine(changes: &[Change], preemptions: &[Preemption]) -> Simulated {
        Simulated(Mutex::new(State {
            changes: changes.to_vec(),
            preemptions: preemptions.to_vec(),
            ..State::default()
        }))
    }

    fn run(machine: &Simulated, work: u64, end_ns: u64) -> (Done, u64) {
        let stop = AtomicBool::new(false);
        let mut worker = VirtualWork::new(machine);
        let done = worker
            .run(
                WorkUnits(work),
                &Limits {
                    end_ns,
                    stop: &stop,
                },
            )
            .unwrap();
        (done, worker.ahead_parts)
    }

    #[test]
    fn a_slow_cpu_takes_the_inverse_of_its_speed() {
        let machine = machine(
            &[Change {
                at_ns: 0,
                cpu: 0,
                speed: 462,
            }],
            &[],
        );
        let (done, _) = run(&machine, 500 * MS, u64::MAX);
        assert_eq!(
            done,
            Done {
                work: WorkUnits(500 * MS),
                migrations: 0
            }
        );
        let took_ns = machine.0.lock().unwrap().cpu_time_ns;
        assert!(took_ns.abs_diff(500 * MS * 1024 / 462) < 3_000, "{took_ns}");
    }

    #[test]
    fn what_is_overrun_is_taken_off_the_next_run() {
        let machine = machine(&[], &[]);
        let stop = AtomicBool::new(false);
        let limits = Limits {
            end_ns: u64::MAX,
            stop: &stop,
        };
        let mut worker = VirtualWork::new(&machine);
        for _ in 0..1_000 {
            worker.run(WorkUnits(37_123), &limits).unwrap();
        }
        let between_runs = 1_000 * 2 * LOOK_NS;
        let done = machine.0.lock().unwrap().truth_parts / PARTS_PER_UNIT;
        assert!(
            done.abs_diff(1_000 * 37_123) < between_runs + 3_000,
            "{done}"
        );
    }

    #[test]
    fn a_run_ends_within_a_few_looks_of_its_work_once_the_overrun_is_known() {
        let machine = machine(&[], &[]);
        let stop = AtomicBool::new(false);
        let limits = Limits {
            end_ns: u64::MAX,
            stop: &stop,
        };
        let mut worker = VirtualWork::new(&machine);
        worker.run(WorkUnits(20 * MS), &limits).unwrap();
        for work in [1_000, 10_000, 100_000, 249_000, 251_000, 3 * MS] {
            worker.run(WorkUnits(work), &limits).unwrap();
            assert!(
                worker.ahead_parts <= 4 * LOOK_NS * PARTS_PER_UNIT,
                "{work}: {}",
                worker.ahead_parts
            );
        }
    }

    #[test]
    fn no_halt_is_longer_than_a_slice_and_long_work_halts_whole_slices() {
        let machine = machine(
            &[Change {
                at_ns: 0,
                cpu: 0,
                speed: 200,
            }],
            &[],
        );
        run(&machine, 20 * MS, u64::MAX);
        let state = machine.0.lock().unwrap();
        assert_eq!(state.halts_ns.iter().max(), Some(&SLICE_NS));
        let whole = state.halts_ns.iter().filter(|&&ns| ns == SLICE_NS).count();
        assert!(whole > 380, "{whole}");
    }

    #[test]
    fn a_change_of_speed_within_a_slice_is_wrong_by_less_than_half_the_change_of_one_slice() {
        for at_us in (0..300).step_by(17) {
            let changes = [
                Change {
                    at_ns: 0,
                    cpu: 0,
                    speed: 300,
                },
                Change {
                    at_ns: 5 * MS + at_us * 1_000,
                    cpu: 0,
                    speed: 1000,
                },
            ];
            let machine = machine(&changes, &[]);
            let (_, ahead_parts) = run(&machine, 10 * MS, u64::MAX);
            let truth = machine.0.lock().unwrap().truth_parts;
            let counted = 10 * MS * PARTS_PER_UNIT + ahead_parts;
            let half_a_slice = (SLICE_NS + OVERRUN_NS + 4 * LOOK_NS) * (1000 - 300);
            assert!(
                truth.abs_diff(counted) <= half_a_slice + 4 * LOOK_NS * 2000,
                "{at_us}: {truth} {counted}"
            );
        }
    }

    #[test]
    fn a_slice_cut_by_a_migration_is_charged_at_the_old_cpus_speed() {
        let changes = [
            Change {
                at_ns: 0,
                cpu: 0,
                speed: 200,
            },
            Change {
                at_ns: 0,
                cpu: 1,
                speed: 1024,
            },
        ];
        let machine = machine(
            &changes,
            &[Preemption {
                at_ns: 2 * MS + 100_000,
                away_ns: 3 * MS,
                cpu: 1,
            }],
        );
        let (done, ahead_parts) = run(&machine, 10 * MS, u64::MAX);
        assert_eq!(done.migrations, 1);
        let truth = machine.0.lock().unwrap().truth_parts;
        let counted = 10 * MS * PARTS_PER_UNIT + ahead_parts;
        assert!(
            truth.abs_diff(counted) <= 4 * LOOK_NS * 2 * 1024,
            "{truth} {counted}"
        );
    }

    #[test]
    fn a_speed_that_changed_while_the_thread_waited_does_not_touch_the_slice_before() {
        let changes = [
            Change {
                at_ns: 0,
                cpu: 0,
                speed: 1024,
            },
            Change {
                at_ns: 3 * MS,
                cpu: 0,
                speed: 100,
            },
        ];
        let machine = machine(
            &changes,
            &[Preemption {
                at_ns: 2 * MS + 200_000,
                away_ns: 2 * MS,
                cpu: 0,
            }],
        );
        let (_, ahead_parts) = run(&machine, 5 * MS, u64::MAX);
        let truth = machine.0.lock().unwrap().truth_parts;
        let counted = 5 * MS * PARTS_PER_UNIT + ahead_parts;
        assert!(
            truth.abs_diff(counted) <= 4 * LOOK_NS * 2 * 1024,
            "{truth} {counted}"
        );
    }

    #[test]
    fn the_end_of_the_run_cuts_work_within_a_few_looks() {
        let machine = machine(&[], &[]);
        let (done, _) = run(&machine, 100 * MS, 10 * MS + 123_456);
        let now_ns = machine.0.lock().unwrap().now_ns;
        assert!(now_ns - (10 * MS + 123_456) < 2_000, "{now_ns}");
        assert!(done.work.0.abs_diff(10 * MS + 123_456) < 3_000, "{done:?}");
    }

    #[test]
    fn a_cpu_that_stands_still_does_nothing_until_the_end() {
        let machine = machine(
            &[Change {
                at_ns: 0,
                cpu: 0,
                speed: 0,
            }],
            &[],
        );
        let (done, _) = run(&machine, MS, 5 * MS);
        assert_eq!(done.work, WorkUnits(0));
    }

    fn change() -> impl Strategy<Value = Change> {
        (0..40 * MS, 0..3_usize, 50..=FULL_SPEED).prop_map(|(at_ns, cpu, speed)| Change {
            at_ns,
            cpu,
            speed,
        })
    }

    fn preemption() -> impl Strategy<Value = Preemption> {
        (0..40 * MS, 30_000..MS, 0..3_usize).prop_map(|(at_ns, away_ns, cpu)| Preemption {
            at_ns,
            away_ns,
            cpu,
        })
    }

    proptest! {
        #[test]
        fn whatever_happens_each_event_costs_at_most_one_slice_of_exactness(
            mut changes in prop::collection::vec(change(), 0..8),
            mut preemptions in prop::collection::vec(preemption(), 0..8),
            work in 1_u64..30 * MS,
        ) {
            changes.sort_by_key(|change| change.at_ns);
            preemptions.sort_by_key(|preemption| preemption.at_ns);
            let events = u64::try_from(changes.len() + preemptions.len()).unwrap();
            let machine = machine(&changes, &preemptions);
            let (done, ahead_parts) = run(&machine, work, u64::MAX);
            prop_assert_eq!(done.work, WorkUnits(work));
            let truth = machine.0.lock().unwrap().truth_parts;
            let counted = work * PARTS_PER_UNIT + ahead_parts;
            let slice = (SLICE_NS + MAX_OVERRUN_NS) * 2 * FULL_SPEED;
            prop_assert!(truth.abs_diff(counted) <= events * slice + 3 * LOOK_NS * 2 * FULL_SPEED);
        }
    }
}
