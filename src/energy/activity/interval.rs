//! What CPUs and packages did between two looks, without waking those that slept.
//!
//! A CPU is *parked* when it did not leave idle between the looks: /proc/stat saw it idle all the time (to two
//! of its ticks, the resolution of two readings), and cpuidle, where there is a driver, counted no new stay. Its
//! counters are not read then. That loses nothing: aperf, mperf, instructions and cycles stand still while a CPU
//! is idle (Intel SDM vol. 3B, "IA32_MPERF"), so a parked CPU ran 0 cycles, and what is read later was gained
//! since it woke. Residency counters go on, so they are unknown until two reads in a row.

use super::counters::{Counters, Gain, Gains};
use super::feed::Feed;
use super::files::{CpuFiles, Files, Graphics, Snapshot, StateSums};
use crate::sysroot::SysRoot;
use crate::units::{KHz, Nanos};
use num_traits::ToPrimitive;
use rustix::thread::sched_getcpu;
use std::collections::{BTreeMap, BTreeSet};

/// Package and core of each online CPU.
pub type Places = BTreeMap<usize, (u32, u32)>;

/// What one CPU did. Unknown is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuInterval {
    /// Whether it did not leave idle.
    pub parked: bool,
    /// Part of the time that it was not idle, 0 to 1.
    pub busy: Option<f64>,
    /// Cycles run per second.
    pub average_hz: Option<f64>,
    /// Cycles per second while not idle.
    pub busy_hz: Option<f64>,
    /// Rate of the time stamp counter.
    pub tsc_hz: Option<f64>,
    /// System management interrupts.
    pub smis: Option<u64>,
    /// Instructions retired and cycles they took, while both were counted.
    pub instructions: Option<u64>,
    /// See `instructions`.
    pub cycles: Option<u64>,
    /// References to the last-level cache, and misses.
    pub cache: Option<(u64, u64)>,
    /// Hardware residency of the core by state (`c6`), 0 to 1, on the CPU that answers for the core.
    pub core_idle: BTreeMap<String, f64>,
    /// The same of a module of cores.
    pub module_idle: BTreeMap<String, f64>,
    /// By the idle state's name.
    pub states: BTreeMap<String, StateInterval>,
    /// Interrupts.
    pub interrupts: Option<u64>,
    /// Those that cannot be masked.
    pub nmis: Option<u64>,
    /// Throttlings for heat.
    pub throttles: Option<u64>,
    /// cpufreq's present frequency.
    pub frequency: Option<KHz>,
    /// Time that tasks waited to run, and how many ran.
    pub run_delay: Option<(Nanos, u64)>,
    /// Temperature of the core now, °C.
    pub celsius: Option<f64>,
}

/// What cpuidle told of one idle state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StateInterval {
    /// Times entered.
    pub usage: u64,
    /// Part of the time, 0 to 1; unknown when a stay that ended began before the interval, or none ended.
    pub part: Option<f64>,
    /// Stays too short for it.
    pub above: Option<u64>,
    /// Stays long enough for a deeper one.
    pub below: Option<u64>,
}

/// What one package did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackageInterval {
    /// Hardware residency by state (`c2`), 0 to 1.
    pub idle: BTreeMap<String, f64>,
    /// Temperature now, °C.
    pub celsius: Option<f64>,
    /// Frequency now of what is not cores.
    pub uncore: Option<KHz>,
}

/// What happened between two looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interval {
    /// How long.
    pub elapsed: Nanos,
    /// How long the looking took.
    pub looking: Nanos,
    /// By number; CPUs online now.
    pub cpus: BTreeMap<usize, CpuInterval>,
    /// By `physical_package_id`.
    pub packages: BTreeMap<u32, PackageInterval>,
    /// Part of the time that graphics and media unit were asleep, 0 to 1.
    pub graphics_asleep: [Option<f64>; 2],
    /// Their frequencies now.
    pub graphics: [Graphics; 2],
    /// Part of the time in low power idle: CPUs, system, 0 to 1.
    pub low_power: [Option<f64>; 2],
}

/// Looks at a machine again and again.
#[derive(Debug)]
pub struct Watch {
    files: Files,
    counters: Counters,
    places: Places,
    earlier: Option<(Nanos, Snapshot)>,
    /// As measured last.
    tsc_hz: Option<f64>,
}

/// Two ticks of /proc/stat.
const TICKS: Nanos = Nanos::new(20_000_000);
/// A rate is told when its time is known to this part.
const DOUBT: u64 = 2000;

impl Watch {
    /// Opens what is wanted and can be had; `places` are the online CPUs'.
    pub fn open(sys: &SysRoot, wanted: &BTreeSet<Feed>, places: Places) -> Self {
        let mut wanted = wanted.clone();
        let asks = |feed: &Feed| feed.is_perf() || *feed == Feed::Temperature;
        if wanted.iter().any(asks) {
            wanted.insert(Feed::IdleStates); // tells who is parked
        }
        wanted.insert(Feed::Ticks);
        Self {
            files: Files::new(sys, &wanted),
            counters: Counters::open(sys, &wanted),
            places,
            earlier: None,
            tsc_hz: None,
        }
    }

    /// Takes note of where the CPUs are that are online now.
    pub fn move_to(&mut self, places: Places) {
        self.places = places;
    }

    /// Why feeds are not, or not wholly, there.
    pub fn missing(&self) -> BTreeMap<Feed, String> {
        let (files, counters) = (self.files.missing(), self.counters.missing());
        let all = files.iter().chain(counters);
        all.map(|(feed, why)| (*feed, why.clone())).collect()
    }

    /// Whether perf counts this event of this feed (any, where none is named) on some CPU.
    pub fn counts(&self, feed: Feed, event: &str) -> bool {
        self.counters.counts(feed, event)
    }

    /// What happened since the look before; `None` the first time. `now` is of a clock that stands still while the
    /// machine is suspended, `over` whether what happened before must be left out, as after a suspend.
    pub fn look(&mut self, now: Nanos, over: bool) -> Option<Interval> {
        let began = super::counters::raw_clock();
        let mut here = self.files.read();
        let earlier = self.earlier.take().filter(|_| !over);
        let elapsed = earlier
            .as_ref()
            .and_then(|(then, _)| now.checked_sub(*then))
            .filter(|elapsed| elapsed.get() > 0);
        let parked = match (&earlier, elapsed) {
            (Some((_, before)), Some(elapsed)) => all_parked(before, &here, elapsed),
            _ => BTreeSet::new(),
        };
        let near = self.places.get(&sched_getcpu()).map(|place| place.0);
        let gains = self.counters.read(|feed, cpu| {
            let here = self.places.get(&cpu).map(|place| place.0) == near;
            parked.contains(&cpu) && !(feed == Feed::PackageIdle && here)
        });
        let asleep = |package: u32, core: Option<u32>| {
            let mut own = self
                .places
                .iter()
                .filter(|(_, place)| place.0 == package && core.is_none_or(|core| place.1 == core));
            own.all(|(cpu, _)| parked.contains(cpu))
        };
        let may_ask = |package, core| !asleep(package, core);
        if elapsed.is_some() {
            self.files
                .read_temperatures(&mut here, &self.places, may_ask);
        }
        if let Some(rate) = tsc_rate(&gains) {
            self.tsc_hz = Some(rate);
        }
        let interval = elapsed.zip(earlier.as_ref()).map(|(elapsed, (_, before))| {
            let took = super::counters::raw_clock().checked_sub(began);
            let mut interval = self.compare(before, &here, elapsed, &parked, &gains);
            interval.looking = took.unwrap_or_default();
            interval
        });
        self.earlier = Some((now, here));
        interval
    }

    fn compare(
        &self,
        before: &Snapshot,
        here: &Snapshot,
        elapsed: Nanos,
        parked: &BTreeSet<usize>,
        gains: &Gains,
    ) -> Interval {
        let mut interval = Interval {
            elapsed,
            ..Interval::default()
        };
        for (&id, now) in &here.cpus {
            let parked = parked.contains(&id);
            let mut cpu = match before.cpus.get(&id) {
                Some(before) => by_files(before, now, elapsed, parked),
                None => CpuInterval::default(), // it has just come
            };
            cpu.frequency = now.frequency;
            cpu.celsius = now.celsius;
            self.add_gains(&mut cpu, id, elapsed, gains);
            interval.cpus.insert(id, cpu);
        }
        let packages = self.places.values().map(|(package, _)| *package);
        for package in packages.collect::<BTreeSet<u32>>() {
            let files = here.packages.get(&package).cloned().unwrap_or_default();
            let own = gains.iter().find(|((feed, cpu), _)| {
                let at = self.places.get(cpu).map(|place| place.0);
                *feed == Feed::PackageIdle && at == Some(package)
            });
            let figures = PackageInterval {
                idle: own.map_or_else(BTreeMap::new, |(_, gain)| self.residencies(gain)),
                celsius: files.celsius,
                uncore: files.uncore,
            };
            interval.packages.insert(package, figures);
        }
        let (then, now) = (&before.machine, &here.machine);
        interval.graphics = [now.graphics, now.media];
        interval.graphics_asleep = [
            (then.graphics.asleep_ms, now.graphics.asleep_ms),
            (then.media.asleep_ms, now.media.asleep_ms),
        ]
        .map(|(then, now)| part(gained(then, now)?.saturating_mul(1_000_000), elapsed));
        let low_power = |index: usize| {
            let of = |times: &[Option<u64>; 2]| times.get(index).copied().flatten();
            let gained = gained(of(&then.low_power_us), of(&now.low_power_us))?;
            part(gained.saturating_mul(1000), elapsed)
        };
        interval.low_power = [low_power(0), low_power(1)];
        interval
    }

    /// What perf counted on a CPU.
    fn add_gains(&self, cpu: &mut CpuInterval, id: usize, elapsed: Nanos, gains: &Gains) {
        if let Some(gain) = gains.get(&(Feed::Clock, id)) {
            // Counts that stood still while the read was skipped were gained in this interval.
            let span = if gain.fresh { gain.elapsed } else { elapsed };
            let seconds = seconds(span);
            let count = |name: &str| gain.counts.get(name)?.to_f64();
            cpu.tsc_hz = rate(gain, "tsc");
            cpu.smis = gain.counts.get("smi").copied();
            cpu.average_hz = count("aperf").map(|cycles| cycles / seconds);
            if let Some(rate) = self.tsc_hz
                && let Some(mperf) = count("mperf")
            {
                cpu.busy = whole(mperf / seconds / rate);
                let clock = count("aperf").filter(|_| mperf > 0.0);
                cpu.busy_hz = clock.map(|aperf| rate * aperf / mperf);
            }
        } else if cpu.parked && self.counters.has(Feed::Clock, id) {
            cpu.average_hz = Some(0.0);
        }
        if let Some(gain) = gains.get(&(Feed::Work, id)) {
            cpu.instructions = gain.counts.get("instructions").copied();
            cpu.cycles = gain.counts.get("cycles").copied();
        }
        if let Some(gain) = gains.get(&(Feed::Cache, id)) {
            let count = |name: &str| gain.counts.get(name).copied();
            cpu.cache = count("references").zip(count("misses"));
        }
        let residencies = |feed| {
            let gain = gains.get(&(feed, id));
            gain.map_or_else(BTreeMap::new, |gain| self.residencies(gain))
        };
        cpu.core_idle = residencies(Feed::CoreIdle);
        cpu.module_idle = residencies(Feed::ModuleIdle);
    }

    /// Residency counters count at the rate of the time stamp counter (arch/x86/events/intel/cstate.c).
    fn residencies(&self, gain: &Gain) -> BTreeMap<String, f64> {
        let Some(rate) = self.tsc_hz.filter(|_| gain.fresh) else {
            return BTreeMap::new();
        };
        let ticks = rate * seconds(gain.elapsed);
        let part = |(name, count): (&String, &u64)| {
            let part = whole(count.to_f64()? / ticks)?;
            Some((name.clone(), part))
        };
        gain.counts.iter().filter_map(part).collect()
    }
}

/// What two snapshots of a CPU's files say.
fn by_files(before: &CpuFiles, now: &CpuFiles, elapsed: Nanos, parked: bool) -> CpuInterval {
    let idle = before.idle.zip(now.idle);
    let idle = idle.and_then(|(before, now)| now.checked_sub(before));
    let busy = idle.map(|idle| (1.0 - seconds(idle) / seconds(elapsed)).clamp(0.0, 1.0));
    let state = |(name, now): (&String, &StateSums)| {
        let before = before.states.get(name)?;
        let time_us = now.time_us.checked_sub(before.time_us)?;
        let part = part(time_us.saturating_mul(1000), elapsed);
        let state = StateInterval {
            usage: now.usage.checked_sub(before.usage)?,
            part: part.filter(|_| !parked),
            above: gained(before.above, now.above),
            below: gained(before.below, now.below),
        };
        Some((name.clone(), state))
    };
    let delay = before.run_delay.zip(now.run_delay);
    let delay = delay.and_then(|((delay, ran), (now_delay, now_ran))| {
        now_delay.checked_sub(delay).zip(now_ran.checked_sub(ran))
    });
    CpuInterval {
        parked,
        busy: if parked { Some(0.0) } else { busy },
        states: now.states.iter().filter_map(state).collect(),
        interrupts: gained(before.interrupts, now.interrupts),
        nmis: gained(before.nmis, now.nmis),
        throttles: gained(before.throttles, now.throttles),
        run_delay: delay,
        ..CpuInterval::default()
    }
}

fn all_parked(before: &Snapshot, now: &Snapshot, elapsed: Nanos) -> BTreeSet<usize> {
    let parked = |(id, now): (&usize, &CpuFiles)| {
        let before = before.cpus.get(id)?;
        is_parked(before, now, elapsed).then_some(*id)
    };
    now.cpus.iter().filter_map(parked).collect()
}

/// Whether a CPU did not leave idle. Never true of an interval too short for /proc/stat to tell.
fn is_parked(before: &CpuFiles, now: &CpuFiles, elapsed: Nanos) -> bool {
    let Some((before_idle, now_idle)) = before.idle.zip(now.idle) else {
        return false;
    };
    let idle = now_idle.checked_sub(before_idle).unwrap_or_default();
    let long = elapsed.get() >= 5 * TICKS.get();
    let stays = |cpu: &CpuFiles| cpu.states.values().map(|state| state.usage).sum::<u64>();
    long && idle.get().saturating_add(TICKS.get()) >= elapsed.get() && stays(before) == stays(now)
}

/// The rate of the time stamp counter, by the CPU whose reads were stamped best.
fn tsc_rate(gains: &Gains) -> Option<f64> {
    let rates = gains.iter().filter(|((feed, _), _)| *feed == Feed::Clock);
    let rates = rates.filter_map(|(_, gain)| Some((gain.doubt, rate(gain, "tsc")?)));
    rates.min_by_key(|(doubt, _)| *doubt).map(|(_, rate)| rate)
}

/// Events per second; `None` where the time between the reads is too badly known.
fn rate(gain: &Gain, name: &str) -> Option<f64> {
    let sharp = gain.doubt.get().saturating_mul(DOUBT) <= gain.elapsed.get();
    let count = gain.counts.get(name)?.to_f64()?;
    (sharp && count > 0.0).then(|| count / seconds(gain.elapsed))
}

fn seconds(time: Nanos) -> f64 {
    time.get().to_f64().unwrap_or(f64::NAN) / 1e9
}

fn gained(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    now?.checked_sub(before?)
}

fn part(time_ns: u64, elapsed: Nanos) -> Option<f64> {
    whole(time_ns.to_f64()? / 1e9 / seconds(elapsed))
}

/// A part of a whole that may be a little too large by the clocks' rounding; more is no part of it.
fn whole(part: f64) -> Option<f64> {
    (0.0..1.02).contains(&part).then(|| part.min(1.0))
}

#[cfg(test)]
mod tests;
