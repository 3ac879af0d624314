//! A synthetic machine whose true costs are known: a measured table of busy power, with shared power, two
//! idle depths and wake-ups added, tasks of differing activity, and a wandering load beside the CPUs.
//! Knows nothing of how the model under test is built.

use fastrand::Rng;
use num_traits::ToPrimitive;
use scx_joule::model::{ClassShape, OppShape, Shape};
use scx_joule::observation::{
    ClassActivity, ClassCost, CostTable, Energy, IdleActivity, IdleCost, Meters, Observation,
    OppCost,
};
use scx_joule::units::{Capacity, KHz, Microjoules, Nanos};
use std::path::{Path, PathBuf};

/// Sample interval: 4 Hz.
pub const INTERVAL_NS: u64 = 250_000_000;
/// The governor decides anew after this long.
const SLOT_S: f64 = 0.01;
const SLOTS: usize = 25;
/// One count of the energy meter, µJ: 2^-14 J.
const METER_UJ: f64 = 1e6 / 16384.0;

/// The files of measured tables: the project's own, and those of JOULE_SHARED where it is set.
pub fn tables() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/model");
    let mut files = toml_files(&own, "");
    if let Some(shared) = std::env::var_os("JOULE_SHARED") {
        files.extend(toml_files(
            &Path::new(&shared).join("hardware/soc"),
            "measured-",
        ));
    }
    files
}

fn toml_files(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with(prefix) && name.ends_with(".toml")
        })
        .collect();
    files.sort();
    files
}

#[derive(Clone)]
pub struct TrueClass {
    pub cpus: usize,
    pub caps: Vec<f64>,
    khz: Vec<u64>,
    microvolt: Option<Vec<u32>>,
    /// W above deepest idle, W, W, J, J: as in the cost table.
    pub busy: Vec<f64>,
    pub shared: Vec<f64>,
    pub idle: [f64; 2],
    pub wake: [f64; 2],
    pub cluster_wake: f64,
}

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
    tasks: Vec<Task>,
    /// Phases of light and of full use, and how long this one lasts, s.
    light: bool,
    phase_s: f64,
    /// Frequency floor per class by a boost, and how long it lasts, s.
    boosts: Vec<(usize, f64)>,
    rng: Rng,
}

impl Machine {
    pub fn load(path: &Path, seed: u64) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let soc: toml::Table = text.parse().unwrap();
        let mut rng = Rng::with_seed(seed);
        let domains = soc["domain"].as_array().unwrap();
        let classes: Vec<_> = domains.iter().map(|d| true_class(d, &mut rng)).collect();
        let boosts = vec![(0, 0.0); classes.len()];
        Self {
            classes,
            base: 0.15 + 0.25 * rng.f64(),
            uncore: (0.05, 0.012, 0.05),
            foreign: 0.0,
            spread: 0.15,
            banned: None,
            meter_noise: 0.02,
            tasks: Vec::new(),
            light: false,
            phase_s: 0.0,
            boosts,
            rng,
        }
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
        let class = |class: &TrueClass| ClassCost {
            opps: (0..class.caps.len())
                .map(|i| OppCost {
                    cap: fixed(class.caps[i]),
                    busy_uw: fixed(class.busy[i] * 1e6),
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
            classes: self.classes.iter().map(class).collect(),
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
        let seconds = SLOT_S * 25.0;
        let (mean, deviation, now) = self.uncore;
        let rho = (-seconds / 5.0_f64).exp();
        let kick = deviation * (1.0 - rho * rho).sqrt() * gauss(&mut self.rng);
        self.uncore.2 = (mean + rho * (now - mean) + kick).max(0.0);
        let watts = joules / seconds + self.base + self.uncore.2 + self.foreign;
        let read = watts * (1.0 + self.meter_noise * gauss(&mut self.rng)) * seconds * 1e6;
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
            task.life_s -= SLOT_S * 25.0;
        }
        let light = self.light;
        self.tasks
            .retain(|task| task.life_s > 0.0 && !(light && task.util > 40.0));
        self.phase_s -= SLOT_S * 25.0;
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
            energy += (class.busy[opp] * activity + class.idle[1]) * busy * SLOT_S;
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

fn true_class(domain: &toml::Value, rng: &mut Rng) -> TrueClass {
    let floats = |key: &str| -> Option<Vec<f64>> {
        let number = |v: &toml::Value| {
            v.as_float()
                .or(v.as_integer().and_then(|i| i.to_f64()))
                .unwrap()
        };
        Some(domain.get(key)?.as_array()?.iter().map(number).collect())
    };
    let all_caps = floats("capacity").unwrap();
    let rising = |i: &usize| *i == 0 || all_caps[*i] > all_caps[*i - 1];
    let keep: Vec<usize> = (0..all_caps.len()).filter(rising).collect();
    let pick = |values: Vec<f64>| -> Vec<f64> { keep.iter().map(|&i| values[i]).collect() };
    let cpus = match (domain.get("cpus"), domain.get("cores")) {
        (Some(cpus), _) => usize::try_from(cpus.as_integer().unwrap()).unwrap(),
        (None, Some(cores)) => cores
            .as_str()
            .unwrap()
            .rsplit('x')
            .next()
            .unwrap()
            .parse()
            .unwrap(),
        (None, None) => 4,
    };
    let power: Vec<f64> = pick(floats("power_mw").unwrap())
        .iter()
        .map(|mw| mw * 1e-3)
        .collect();
    let khz = pick(floats("khz").unwrap());
    let (low, top, fastest) = (power[0], power[power.len() - 1], khz[khz.len() - 1]);
    let part = 0.12 + 0.16 * rng.f64();
    let volts = floats("microvolt").map(&pick);
    let drive = |i: usize, f: f64| match &volts {
        Some(volts) => f / fastest * (volts[i] / volts[volts.len() - 1]).powi(2),
        None => (f / fastest).powf(2.2),
    };
    let shared: Vec<f64> = (power.iter().zip(&khz).enumerate())
        .map(|(i, (p, f))| {
            let wiggle = 0.95 + 0.1 * rng.f64();
            (part * wiggle * (low + (top - low) * drive(i, *f))).min(0.4 * p)
        })
        .collect();
    let middle = power[power.len() / 2];
    let deepest = 0.004 * low * (0.5 + rng.f64());
    TrueClass {
        cpus,
        khz: khz.iter().map(|f| whole(*f)).collect(),
        microvolt: volts.map(|v| {
            v.iter()
                .map(|uv| u32::try_from(whole(*uv)).unwrap())
                .collect()
        }),
        busy: power.iter().zip(&shared).map(|(p, s)| p - s).collect(),
        shared,
        idle: [low * (0.03 + 0.06 * rng.f64()), deepest],
        // Seconds at the power of a middle OPP.
        wake: [
            middle * (4e-6 + 16e-6 * rng.f64()),
            middle * (60e-6 + 240e-6 * rng.f64()),
        ],
        cluster_wake: middle * (150e-6 + 650e-6 * rng.f64()),
        caps: pick(all_caps),
    }
}

pub fn whole(value: f64) -> u64 {
    assert!((0.0..1e18).contains(&value), "{value}");
    value.round().to_u64().unwrap()
}

pub fn gauss(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
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
        let per = 1e-9 / (SLOT_S * 25.0);
        let seconds = |time: &Nanos| time.get().to_f64().unwrap() * per;
        let mut watts = self.base + self.uncore.0 + self.foreign;
        for (class, activity) in self.classes.iter().zip(&observation.classes) {
            for (i, (busy, active)) in activity.busy.iter().zip(&activity.active).enumerate() {
                watts += (class.busy[i] + class.idle[1]) * seconds(busy);
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

pub fn ratio(a: u64, b: u64) -> f64 {
    a.to_f64().unwrap() / b.to_f64().unwrap()
}
