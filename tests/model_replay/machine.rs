//! A synthetic machine whose true costs are known: a measured table of busy power, with shared power, two
//! idle depths and wake-ups added, tasks of differing activity, leakage that grows with temperature, and a
//! wandering load beside the CPUs; read by a meter with noise, coarse counts and a jittery refresh.
//! Knows nothing of how the model under test is built.

use crate::soc::{Table, TrueClass, true_class, whole};
use fastrand::Rng;
use num_traits::ToPrimitive;
use scx_joule::model::{ClassShape, OppShape, Shape};
use scx_joule::observation::{
    ClassActivity, ClassCost, CostTable, Energy, IdleActivity, IdleCost, Meters, Observation,
    OppCost,
};
use scx_joule::units::{Capacity, KHz, Microjoules, Nanos};
use std::path::Path;

/// Sample interval: 4 Hz.
pub const INTERVAL_NS: u64 = 250_000_000;
/// The governor decides anew after this long.
const SLOT_S: f64 = 0.01;
const SLOTS: usize = 25;
const SLOTS_S: f64 = 0.25;
/// One count of the energy meter, µJ: 2^-14 J.
const METER_UJ: f64 = 1e6 / 16384.0;
/// The meter's count is up to this old, s: RAPL refreshes about every millisecond.
const REFRESH_S: f64 = 1e-3;
/// Time constants of the load beside the CPUs and of the temperature, s.
const UNCORE_S: f64 = 5.0;
const THERMAL_S: f64 = 20.0;
/// Rise over ambient at the machine's mean power, K, and leakage's growth per K: it doubles in 28 K.
const RISE_K: f64 = 15.0;
const LEAK_PER_K: f64 = 0.025;

#[derive(Clone)]
struct Task {
    util: f64,
    period_s: f64,
    activity: f64,
    class: usize,
    cpu: usize,
    life_s: f64,
}

/// The machine and what runs on it.
#[derive(Clone)]
pub struct Machine {
    pub classes: Vec<TrueClass>,
    pub base: f64,
    /// Mean, deviation and value now of the load beside the CPUs, W.
    pub uncore: (f64, f64, f64),
    /// Half the range of task activities around 1.
    pub spread: f64,
    /// A class that gets no task.
    pub banned: Option<usize>,
    /// Another consumer on the rail, W.
    pub foreign: f64,
    /// Relative deviation of a reading.
    pub meter_noise: f64,
    /// Temperature above that of the mean power, in units of [`RISE_K`]; the mean power, W.
    pub warmth: f64,
    mean_power: f64,
    /// Energy that the meter's last count had not seen, J.
    unread: f64,
    tasks: Vec<Task>,
    /// Phases of light and of full use, and how long this one lasts, s.
    light: bool,
    phase_s: f64,
    /// Frequency floor per class by a boost, and how long it lasts, s.
    boosts: Vec<(usize, f64)>,
    rng: Rng,
}

impl Machine {
    /// The machine of a measured table.
    pub fn load(path: &Path, seed: u64) -> Result<Self, String> {
        let wrong = |error: String| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let soc: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| wrong(error.message().to_owned()))?;
        let domains = soc.get("domain").and_then(|d| d.as_array());
        let domains = domains.ok_or_else(|| wrong("no [[domain]]".to_owned()))?;
        let table =
            |(k, domain)| Table::read(domain).map_err(|e| wrong(format!("domain {k}: {e}")));
        let tables: Result<Vec<_>, _> = domains.iter().enumerate().map(table).collect();
        Ok(Self::of(&tables?, seed))
    }

    /// The machine of these tables.
    pub fn of(tables: &[Table], seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let classes: Vec<_> = tables.iter().map(|t| true_class(t, &mut rng)).collect();
        let mut machine = Self {
            boosts: vec![(0, 0.0); classes.len()],
            classes,
            base: 0.15 + 0.25 * rng.f64(),
            uncore: (0.05, 0.0, 0.05),
            foreign: 0.0,
            spread: 0.15,
            banned: None,
            meter_noise: 0.02,
            warmth: 0.0,
            mean_power: f64::INFINITY,
            unread: 0.0,
            tasks: Vec::new(),
            light: false,
            phase_s: 0.0,
            rng,
        };
        // Without temperature and wandering load, to tell how large both are.
        let mut trial = machine.clone();
        let rows = 2400;
        machine.mean_power = (0..rows).map(|_| trial.step().1).sum::<f64>() / f64::from(rows);
        machine.uncore.1 = 0.02 * machine.mean_power;
        machine
    }

    /// Takes away what changes with time: wandering load, activities of tasks and temperature.
    pub fn hold_constant(&mut self) {
        (self.spread, self.uncore.1, self.mean_power) = (0.0, 0.0, f64::INFINITY);
    }

    /// What leakage is now, relative to that at mean temperature, less 1.
    fn more_leakage(&self) -> f64 {
        (LEAK_PER_K * RISE_K * self.warmth).exp() - 1.0
    }

    /// Power of a busy CPU of class `k` at OPP `i` at the temperature of now, W.
    pub fn busy_now(&self, k: usize, i: usize) -> f64 {
        let class = &self.classes[k];
        class.busy[i] + class.leak[i] * self.more_leakage()
    }

    /// Ends light phases: full use from now on.
    pub fn stay_in_full_use(&mut self) {
        (self.light, self.phase_s) = (false, f64::INFINITY);
    }

    pub fn shape(&self) -> Shape {
        let class = |class: &TrueClass| ClassShape {
            cpus: u16::try_from(class.cpus).unwrap(),
            domains: 1,
            opps: (0..class.caps.len())
                .map(|i| OppShape {
                    khz: KHz::new(class.khz[i]),
                    cap: Capacity::new(whole(class.caps[i])).unwrap(),
                    microvolt: class.microvolt.as_ref().map(|v| v[i]),
                })
                .collect(),
            idle_depths: 2,
            cluster_wakes: true,
            smt: false,
        };
        Shape {
            classes: self.classes.iter().map(class).collect(),
        }
    }

    /// The table that a perfect model would publish.
    pub fn table(&self) -> CostTable {
        let fixed = |value: f64| u32::try_from(whole(value)).unwrap();
        let class = |(k, class): (usize, &TrueClass)| ClassCost {
            opps: (0..class.caps.len())
                .map(|i| OppCost {
                    cap: fixed(class.caps[i]),
                    busy_uw: fixed(self.busy_now(k, i) * 1e6),
                    shared_uw: fixed(class.shared[i] * 1e6),
                })
                .collect(),
            idle: (0..2)
                .map(|d| IdleCost {
                    idle_uw: fixed((class.idle[d] - class.idle[1]) * 1e6),
                    wake_nj: fixed(class.wake[d] * 1e9),
                })
                .collect(),
            cluster_wake_nj: fixed(class.cluster_wake * 1e9),
        };
        CostTable {
            generation: 0,
            classes: self.classes.iter().enumerate().map(class).collect(),
            home: None,
        }
    }

    /// One interval: what the counters saw, and the true mean power in W.
    pub fn step(&mut self) -> (Observation, f64) {
        self.turn_over_tasks();
        let mut joules = 0.0;
        let mut activity: Vec<_> = self.classes.iter().map(Counters::new).collect();
        for _ in 0..SLOTS {
            for (k, counters) in activity.iter_mut().enumerate() {
                joules += self.run_slot(k, counters);
            }
        }
        let (mean, deviation, now) = self.uncore;
        let rho = (-SLOTS_S / UNCORE_S).exp();
        let kick = deviation * (1.0 - rho * rho).sqrt() * gauss(&mut self.rng);
        self.uncore.2 = (mean + rho * (now - mean) + kick).max(0.0);
        let watts = joules / SLOTS_S + self.base + self.uncore.2 + self.foreign;
        // The GPU has a heat spreader of its own: only the CPUs' power warms them.
        let warm = (watts - self.foreign) / self.mean_power - 1.0;
        if self.mean_power.is_finite() {
            self.warmth += (warm - self.warmth) * (1.0 - (-SLOTS_S / THERMAL_S).exp());
        }
        let unread = watts * REFRESH_S * self.rng.f64();
        let seen = watts * SLOTS_S + self.unread - unread;
        self.unread = unread;
        let read = seen * (1.0 + self.meter_noise * gauss(&mut self.rng)) * 1e6;
        let counted = Microjoules::new(whole((read / METER_UJ).floor().max(0.0) * METER_UJ));
        let observation = Observation {
            duration: Nanos::new(INTERVAL_NS),
            meters: Meters {
                package: Some(Energy::measured(counted)),
                ..Meters::default()
            },
            classes: activity.into_iter().map(Counters::activity).collect(),
        };
        (observation, watts)
    }

    fn turn_over_tasks(&mut self) {
        for task in &mut self.tasks {
            task.life_s -= SLOTS_S;
        }
        let light = self.light;
        self.tasks
            .retain(|task| task.life_s > 0.0 && !(light && task.util > 40.0));
        self.phase_s -= SLOTS_S;
        if self.phase_s <= 0.0 {
            self.light = self.rng.f64() < 0.4;
            self.phase_s = 3.0 + 7.0 * self.rng.f64();
        }
        let wanted = if self.light {
            2
        } else {
            3 + self.rng.usize(..6)
        };
        while self.tasks.len() < wanted {
            let most: f64 = if self.light { 40.0 } else { 400.0 };
            let util = 8.0 * (most / 8.0).powf(self.rng.f64());
            let life_s = -4.0 * (1.0 - self.rng.f64()).ln() + 0.5;
            let fits: Vec<usize> = (0..self.classes.len())
                .filter(|&k| self.banned != Some(k))
                .filter(|&k| self.classes[k].caps.last().unwrap() >= &(1.25 * util))
                .collect();
            let class = fits[self.rng.usize(..fits.len())];
            self.tasks.push(Task {
                util,
                period_s: 0.006 * 20.0_f64.powf(self.rng.f64()),
                activity: 1.0 + self.spread * (2.0 * self.rng.f64() - 1.0),
                class,
                cpu: self.rng.usize(..self.classes[class].cpus),
                life_s,
            });
        }
    }

    /// Runs one class for one governor period; returns its energy, J.
    fn run_slot(&mut self, k: usize, counters: &mut Counters) -> f64 {
        let more_leakage = self.more_leakage();
        let class = &self.classes[k];
        let rng = &mut self.rng;
        let mut cpus = vec![(0.0, 0.0, 0.0); class.cpus]; // (util, util·activity, wake-ups per second)
        for task in self.tasks.iter().filter(|task| task.class == k) {
            let util = task.util * (0.4 + 1.2 * rng.f64());
            let cpu = &mut cpus[task.cpu];
            cpu.0 += util;
            cpu.1 += util * task.activity;
            cpu.2 += 1.0 / task.period_s;
        }
        let boost = &mut self.boosts[k];
        boost.1 -= SLOT_S;
        if boost.1 <= 0.0 {
            let floor = if self.light || rng.f64() < 0.5 {
                0
            } else {
                rng.usize(..class.caps.len())
            };
            *boost = (floor, 0.1 + 0.6 * rng.f64());
        }
        let need = cpus
            .iter()
            .fold(0.0_f64, |most, cpu| most.max(1.25 * cpu.0));
        let opps = class.caps.len();
        let fitting = class
            .caps
            .iter()
            .position(|cap| *cap >= need)
            .unwrap_or(opps - 1);
        let opp = fitting.max(boost.0);
        let cap = class.caps[opp];
        let mut energy = 0.0;
        let mut all_idle = 1.0;
        let mut wakes = 0.0;
        for (util, weighed, hz) in cpus {
            let busy = (util / cap).min(1.0);
            let activity = if util > 0.0 { weighed / util } else { 1.0 };
            let power = class.busy[opp] * activity + class.leak[opp] * more_leakage;
            energy += (power + class.idle[1]) * busy * SLOT_S;
            counters.busy[opp] += busy * SLOT_S;
            all_idle *= 1.0 - busy;
            // Frequent wake-ups leave no time for deep idle.
            let deep = 1.0 / (1.0 + hz * 0.012);
            for (d, share) in [(0, 1.0 - deep), (1, deep)] {
                let idle = (1.0 - busy) * share * SLOT_S;
                let exits = hz * share * SLOT_S * (0.7 + 0.6 * rng.f64());
                counters.idle[d] += idle;
                counters.exits[d] += exits;
                energy += (class.idle[d] * idle) + class.wake[d] * exits;
                if d == 1 {
                    wakes += exits;
                }
            }
        }
        let active = 1.0 - all_idle;
        counters.active[opp] += active * SLOT_S;
        energy += class.shared[opp] * active * SLOT_S;
        let cluster = wakes * all_idle;
        counters.cluster += cluster;
        energy + class.cluster_wake * cluster
    }
}

/// Sums of one class over an interval, s and counts.
struct Counters {
    active: Vec<f64>,
    busy: Vec<f64>,
    idle: [f64; 2],
    exits: [f64; 2],
    cluster: f64,
}

impl Counters {
    fn new(class: &TrueClass) -> Self {
        Self {
            active: vec![0.0; class.caps.len()],
            busy: vec![0.0; class.caps.len()],
            idle: [0.0; 2],
            exits: [0.0; 2],
            cluster: 0.0,
        }
    }

    fn activity(self) -> ClassActivity {
        let nanos = |seconds: &f64| Nanos::new(whole(seconds * 1e9));
        ClassActivity {
            active: self.active.iter().map(nanos).collect(),
            busy: self.busy.iter().map(nanos).collect(),
            idle: (0..2)
                .map(|d| IdleActivity {
                    time: nanos(&self.idle[d]),
                    exits: whole(self.exits[d]),
                })
                .collect(),
            cluster_wakes: Some(whole(self.cluster)),
            sibling: None,
        }
    }
}

pub fn gauss(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

/// Intervals in one: what a sampler of longer intervals would have seen.
pub fn merged(parts: &[Observation]) -> Observation {
    let mut sum = parts[0].clone();
    let add = |a: &mut Nanos, b: Nanos| *a = Nanos::new(a.get() + b.get());
    for part in &parts[1..] {
        add(&mut sum.duration, part.duration);
        if let (Some(energy), Some(more)) = (sum.meters.package.as_mut(), part.meters.package) {
            energy.amount = Microjoules::new(energy.amount.get() + more.amount.get());
        }
        for (a, b) in sum.classes.iter_mut().zip(&part.classes) {
            a.active
                .iter_mut()
                .zip(&b.active)
                .for_each(|(a, b)| add(a, *b));
            a.busy.iter_mut().zip(&b.busy).for_each(|(a, b)| add(a, *b));
            for (a, b) in a.idle.iter_mut().zip(&b.idle) {
                add(&mut a.time, b.time);
                a.exits += b.exits;
            }
            a.cluster_wakes = a.cluster_wakes.zip(b.cluster_wakes).map(|(a, b)| a + b);
        }
    }
    sum
}

/// The package's power by its meter, µW.
pub fn read_uw(observation: &Observation) -> f64 {
    let energy = observation
        .meters
        .package
        .unwrap()
        .amount
        .get()
        .to_f64()
        .unwrap();
    energy * 1e9 / observation.duration.get().to_f64().unwrap()
}

impl Machine {
    /// The power that the true parameters give for an observation, with every task of mean activity and
    /// the load beside the CPUs at its mean, W: what no model can be expected to beat.
    pub fn expected(&self, observation: &Observation) -> f64 {
        let per = 1.0 / observation.duration.get().to_f64().unwrap();
        let seconds = |time: &Nanos| time.get().to_f64().unwrap() * per;
        let mut watts = self.base + self.uncore.0 + self.foreign;
        for (k, (class, activity)) in self.classes.iter().zip(&observation.classes).enumerate() {
            for (i, (busy, active)) in activity.busy.iter().zip(&activity.active).enumerate() {
                watts += (self.busy_now(k, i) + class.idle[1]) * seconds(busy);
                watts += class.shared[i] * seconds(active);
            }
            for (d, idle) in activity.idle.iter().enumerate() {
                let hz = idle.exits.to_f64().unwrap() * per * 1e9;
                watts += class.idle[d] * seconds(&idle.time) + class.wake[d] * hz;
            }
            let hz = activity.cluster_wakes.unwrap().to_f64().unwrap() * per * 1e9;
            watts += class.cluster_wake * hz;
        }
        watts
    }
}
