//! What tasks used, worked out in floating point from the kernel's own events: PELT without the scheduler. As in
//! kernel/sched/pelt.h the time that a task runs counts as on a CPU of full capacity, and what it ran longer than that
//! is taken from its sleep.

use lab::machine::Machine;
use std::collections::BTreeMap;

/// The average loses half its weight in 32 periods of 2^20 ns (kernel/sched/pelt.c).
const HALF_LIFE_S: f64 = 32.0 * 1.048_576e-3;
/// The scale's end, and where a task is taken to use all it is given (update_idle_rq_clock_pelt).
const FULL: f64 = 1024.0;
const SATURATED: f64 = 1000.0;
/// Fraction bits of the scheduler's utilisation.
const UTIL_SHIFT: i32 = 20;

/// The events of a run, in their order:
///
/// - `I KHZ CPU...`: the clock of CPUs at the start,
/// - `F TIME KHZ CPU`: a CPU's clock from now on (cpu_frequency),
/// - `S TIME CPU PREV STATE NEXT`: a switch, by thread, from one that goes to sleep unless its state is R (sched_switch),
/// - `U TIME PID UTIL`: what the scheduler believes of a thread,
#[derive(Debug, Default)]
pub struct Recording {
    pub tasks: BTreeMap<u32, Task>,
}

/// What a run says of one thread.
#[derive(Debug, Default)]
pub struct Task {
    /// Absolute differences between belief and truth, on the capacity scale.
    pub errors: Vec<f64>,
    /// The highest utilisation it truly had.
    pub highest: f64,
    /// Times it went on on another CPU.
    pub migrations: usize,
    /// Changes of the clock under it while it ran.
    pub clock_changes: usize,
    looked_at: bool,
    util: f64,
    /// Time run since it woke, beyond what a CPU of full capacity would have taken.
    lost_s: f64,
    at_s: f64,
    last_cpu: Option<usize>,
    runs_on: Option<usize>,
}

impl Task {
    pub fn mean(&self) -> f64 {
        let count = u32::try_from(self.errors.len()).unwrap();
        self.errors.iter().sum::<f64>() / f64::from(count)
    }

    pub fn worst(&self) -> f64 {
        self.errors.iter().copied().fold(0.0, f64::max)
    }

    fn advance(&mut self, to_s: f64, capacities: &[f64]) {
        let passed_s = to_s - self.at_s;
        if let Some(cpu) = self.runs_on {
            let work_s = passed_s * capacities[cpu] / FULL;
            self.util = FULL + (self.util - FULL) * left_after(work_s);
            self.lost_s += passed_s - work_s;
        } else {
            self.util *= left_after(passed_s);
        }
        self.at_s = to_s;
        self.highest = self.highest.max(self.util);
    }

    fn look(&mut self, at_s: f64, believed: f64, capacities: &[f64]) {
        if self.looked_at {
            self.advance(at_s, capacities);
            self.errors.push((believed - self.util).abs());
        } else {
            (self.looked_at, self.util, self.at_s) = (true, believed, at_s);
        }
    }

    fn sleep(&mut self) {
        if self.util < SATURATED {
            self.util *= left_after(self.lost_s);
        }
        self.lost_s = 0.0;
    }
}

impl Recording {
    /// Follows the events. What a thread did before it had its name is not among them: it is followed from the first
    /// sleep that is, beginning with what the scheduler believes of it then.
    pub fn new(machine: &Machine, events: &str) -> Self {
        let mut tasks: BTreeMap<u32, Task> = BTreeMap::new();
        let mut capacities = vec![f64::NAN; machine.nr_cpus()];
        for line in events.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let whole = |index: usize| words[index].parse::<usize>().unwrap();
            let pid = |index: usize| words[index].parse::<u32>().unwrap();
            let time = || words[1].parse::<f64>().unwrap();
            match words[0] {
                "I" => {
                    for index in 2..words.len() {
                        capacities[whole(index)] = capacity(machine, whole(index), pid(1));
                    }
                }
                "F" => {
                    let running = |task: &&mut Task| task.runs_on == Some(whole(3));
                    for task in tasks.values_mut().filter(running) {
                        task.advance(time(), &capacities);
                        task.clock_changes += 1;
                    }
                    capacities[whole(3)] = capacity(machine, whole(3), pid(2));
                }
                "S" => {
                    let sleeps = !words[4].starts_with('R');
                    if let Some(task) = tasks.get_mut(&pid(3)) {
                        task.advance(time(), &capacities);
                        task.runs_on = None;
                        if sleeps {
                            task.sleep();
                        }
                    } else if sleeps {
                        tasks.insert(pid(3), Task::default());
                    }
                    if let Some(task) = tasks.get_mut(&pid(5)) {
                        task.advance(time(), &capacities);
                        task.runs_on = Some(whole(2));
                        let before = task.last_cpu.replace(whole(2));
                        task.migrations += usize::from(before.is_some_and(|cpu| cpu != whole(2)));
                    }
                }
                "U" => {
                    let believed = words[3].parse::<f64>().unwrap() / 2f64.powi(UTIL_SHIFT);
                    if let Some(task) = tasks.get_mut(&pid(2)) {
                        task.look(time(), believed, &capacities);
                    }
                }
                other => panic!("an event of unknown kind '{other}'"),
            }
        }
        tasks.retain(|_, task| !task.errors.is_empty());
        Self { tasks }
    }
}

fn left_after(time_s: f64) -> f64 {
    (-time_s / HALF_LIFE_S).exp2()
}

/// What a CPU delivers at a clock, by the machine's description.
fn capacity(machine: &Machine, cpu: usize, khz: u32) -> f64 {
    let cpu = u32::try_from(cpu).unwrap();
    let mut clusters = machine.clusters.iter();
    let cluster = clusters.find(|cluster| cluster.cpus.contains(&cpu));
    let mut opps = cluster.unwrap().opps.iter();
    f64::from(opps.find(|opp| opp.khz == khz).unwrap().capacity)
}
