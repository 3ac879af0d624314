//! What tasks used, worked out in floating point from the kernel's own events: PELT without the scheduler.

use lab::machine::Machine;
use std::collections::BTreeMap;

/// The average loses half its weight in 32 periods of 2^20 ns (kernel/sched/pelt.c).
const HALF_LIFE_S: f64 = 32.0 * 1.048_576e-3;
/// Fraction bits of the scheduler's utilisation.
const UTIL_SHIFT: i32 = 20;

/// The events of a run, in their order:
///
/// - `I KHZ CPU...`: the clock of CPUs at the start,
/// - `F TIME KHZ CPU`: a CPU's clock from now on (cpu_frequency),
/// - `S TIME CPU PREV NEXT`: a switch, by thread (sched_switch),
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
    util: f64,
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
        let left = (-(to_s - self.at_s) / HALF_LIFE_S).exp2();
        let capacity = self.runs_on.map_or(0.0, |cpu| capacities[cpu]);
        self.util = self.util * left + capacity * (1.0 - left);
        self.at_s = to_s;
        self.highest = self.highest.max(self.util);
    }
}

impl Recording {
    /// Follows the events; a thread is first seen when it is new, with nothing used.
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
                    if let Some(task) = tasks.get_mut(&pid(3)) {
                        task.advance(time(), &capacities);
                        task.runs_on = None;
                    }
                    let task = tasks.entry(pid(4)).or_default();
                    task.advance(time(), &capacities);
                    task.runs_on = Some(whole(2));
                    let before = task.last_cpu.replace(whole(2));
                    task.migrations += usize::from(before.is_some_and(|cpu| cpu != whole(2)));
                }
                "U" => {
                    let believed = words[3].parse::<f64>().unwrap() / 2f64.powi(UTIL_SHIFT);
                    if let Some(task) = tasks.get_mut(&pid(2)) {
                        task.advance(time(), &capacities);
                        task.errors.push((believed - task.util).abs());
                    }
                }
                other => panic!("an event of unknown kind '{other}'"),
            }
        }
        tasks.retain(|_, task| !task.errors.is_empty());
        Self { tasks }
    }
}

/// What a CPU delivers at a clock, by the machine's description.
fn capacity(machine: &Machine, cpu: usize, khz: u32) -> f64 {
    let cpu = u32::try_from(cpu).unwrap();
    let mut clusters = machine.clusters.iter();
    let cluster = clusters.find(|cluster| cluster.cpus.contains(&cpu));
    let mut opps = cluster.unwrap().opps.iter();
    f64::from(opps.find(|opp| opp.khz == khz).unwrap().capacity)
}
