//! What the kernel's files say of CPUs and packages at one instant.
//!
//! A file that is not there leaves its figure unknown; one that cannot be read or understood does, too, and
//! is named once.

use super::feed::Feed;
use crate::error::{Error, Result};
use crate::sysroot::{OpenFile, SysRoot};
use crate::units::{KHz, Nanos};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const CPUS: &str = "sys/devices/system/cpu";
/// What /proc/stat counts in: USER_HZ, 100 on every architecture that sched_ext runs on.
const TICK_NS: u64 = 10_000_000;

/// Running sums of one idle state of one CPU (Documentation/admin-guide/pm/cpuidle.rst). A stay is booked
/// when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSums {
    /// Times entered.
    pub usage: u64,
    /// Time in it, µs.
    pub time_us: u64,
    /// Stays that were too short for it, and long enough for a deeper one, where the kernel counts them.
    pub above: Option<u64>,
    /// See `above`.
    pub below: Option<u64>,
}

/// Running sums and present values of one CPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuFiles {
    /// Time idle, the present stay included.
    pub idle: Option<Nanos>,
    /// By the state's name.
    pub states: BTreeMap<String, StateSums>,
    /// Interrupts of all kinds.
    pub interrupts: Option<u64>,
    /// Those that cannot be masked.
    pub nmis: Option<u64>,
    /// Time that tasks waited to run, and how many did.
    pub run_delay: Option<(Nanos, u64)>,
    /// How often the core was throttled for heat.
    pub throttles: Option<u64>,
    /// cpufreq's present frequency.
    pub frequency: Option<KHz>,
    /// Temperature of the core, °C.
    pub celsius: Option<f64>,
}

/// Running sums and present values of one package.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackageFiles {
    /// Temperature, °C.
    pub celsius: Option<f64>,
    /// Frequency of what is not cores, kHz.
    pub uncore: Option<KHz>,
}

/// Running sums and present values of the machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MachineFiles {
    /// Graphics: time in render standby, ms; frequency asked for and had, MHz.
    pub graphics: Graphics,
    /// The same of the media unit where it has a clock of its own.
    pub media: Graphics,
    /// Time in low power idle, µs: of the CPUs and of the system.
    pub low_power_us: [Option<u64>; 2],
}

/// One unit of the graphics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Graphics {
    /// Time asleep, ms.
    pub asleep_ms: Option<u64>,
    /// Frequency asked for, MHz.
    pub wanted_mhz: Option<u64>,
    /// Frequency had, MHz.
    pub actual_mhz: Option<u64>,
}

/// All at one instant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// By CPU number; online ones only.
    pub cpus: BTreeMap<usize, CpuFiles>,
    /// By `physical_package_id`.
    pub packages: BTreeMap<u32, PackageFiles>,
    /// What is there once.
    pub machine: MachineFiles,
}

/// Reads those files that were asked for.
#[derive(Debug)]
pub struct Files {
    sys: SysRoot,
    notes: Notes,
    online: OpenFile,
    ticks: OpenFile,
    interrupts: OpenFile,
    run_delays: OpenFile,
    /// Of the online CPUs.
    cpus: BTreeMap<usize, CpuInputs>,
}

/// What was asked for, and why it is not, or not wholly, there.
#[derive(Debug)]
struct Notes {
    wanted: BTreeSet<Feed>,
    missing: BTreeMap<Feed, String>,
}

/// One CPU's files.
#[derive(Debug)]
struct CpuInputs {
    /// None without a driver; they do not change while the CPU is online.
    states: Vec<StateInputs>,
    throttles: OpenFile,
    frequency: OpenFile,
}

/// The files of an idle state.
#[derive(Debug)]
struct StateInputs {
    name: String,
    usage: OpenFile,
    time: OpenFile,
    above: OpenFile,
    below: OpenFile,
}

impl Files {
    /// Reads nothing yet.
    pub fn new(sys: &SysRoot, wanted: &BTreeSet<Feed>) -> Self {
        Self {
            sys: sys.clone(),
            notes: Notes {
                wanted: wanted.clone(),
                missing: BTreeMap::new(),
            },
            online: sys.open(format!("{CPUS}/online")),
            ticks: sys.open("proc/stat"),
            interrupts: sys.open("proc/interrupts"),
            run_delays: sys.open("proc/schedstat"),
            cpus: BTreeMap::new(),
        }
    }

    /// Why feeds are not, or not wholly, there.
    pub fn missing(&self) -> &BTreeMap<Feed, String> {
        &self.notes.missing
    }

    /// Everything but temperatures, for which a CPU must be asked.
    pub fn read(&mut self) -> Snapshot {
        let Self { sys, notes, .. } = self;
        let mut snapshot = Snapshot::default();
        let online = notes.take(Feed::Ticks, || self.online.cpu_list());
        for cpu in online.unwrap_or_default() {
            snapshot.cpus.insert(cpu, CpuFiles::default());
        }
        if let Some(idle) = notes.take(Feed::Ticks, || ticks(&mut self.ticks)) {
            each(&mut snapshot, idle, |cpu, idle| cpu.idle = Some(idle));
        }
        if let Some(sums) = notes.take(Feed::Interrupts, || self.interrupts.text(interrupts)) {
            each(&mut snapshot, sums, |cpu, (all, nmis)| {
                cpu.interrupts = Some(all);
                cpu.nmis = nmis;
            });
        }
        if let Some(delays) = notes.take(Feed::RunDelay, || run_delays(&mut self.run_delays)) {
            each(&mut snapshot, delays, |cpu, delay| {
                cpu.run_delay = Some(delay)
            });
        }
        self.cpus.retain(|cpu, _| snapshot.cpus.contains_key(cpu));
        for (&id, cpu) in &mut snapshot.cpus {
            let inputs = self.cpus.entry(id);
            let inputs = inputs.or_insert_with(|| CpuInputs::new(sys, id));
            inputs.read(sys, id, notes, cpu);
        }
        if let Some(uncore) = notes.take(Feed::Uncore, || uncore(sys)) {
            for (package, frequency) in uncore {
                let package = snapshot.packages.entry(package).or_default();
                package.uncore = package.uncore.max(Some(frequency));
            }
        }
        if let Some([graphics, media]) = notes.take(Feed::Graphics, || graphics(sys)) {
            snapshot.machine.graphics = graphics;
            snapshot.machine.media = media;
        }
        if let Some(times) = notes.take(Feed::LowPower, || low_power(sys)) {
            snapshot.machine.low_power_us = times;
        }
        snapshot
    }

    /// Adds temperatures where `wake` lets the core (`Some`) or any CPU of the package (`None`) be asked.
    pub fn read_temperatures(
        &mut self,
        snapshot: &mut Snapshot,
        places: &BTreeMap<usize, (u32, u32)>,
        may_ask: impl Fn(u32, Option<u32>) -> bool,
    ) {
        let read = || temperatures(&self.sys, &may_ask);
        let Some(sensors) = self.notes.take(Feed::Temperature, read) else {
            return;
        };
        for ((package, core), celsius) in sensors {
            let Some(core) = core else {
                snapshot.packages.entry(package).or_default().celsius = Some(celsius);
                continue;
            };
            for (cpu, place) in places {
                if *place == (package, core)
                    && let Some(cpu) = snapshot.cpus.get_mut(cpu)
                {
                    cpu.celsius = Some(celsius);
                }
            }
        }
    }
}

impl Notes {
    /// What `read` gives, if it is wanted; remembers why not.
    fn take<T>(&mut self, feed: Feed, read: impl FnOnce() -> Result<Option<T>>) -> Option<T> {
        if !self.wanted.contains(&feed) {
            return None;
        }
        let why = match read() {
            Ok(Some(found)) => return Some(found),
            Ok(None) => format!("this machine shows no {feed}"),
            Err(error) => error.to_string(),
        };
        self.missing.entry(feed).or_insert(why);
        None
    }
}

impl CpuInputs {
    fn new(sys: &SysRoot, cpu: usize) -> Self {
        let open = |file: &str| sys.open(format!("{CPUS}/cpu{cpu}/{file}"));
        Self {
            states: Vec::new(),
            throttles: open("thermal_throttle/core_throttle_count"),
            frequency: open("cpufreq/scaling_cur_freq"),
        }
    }

    fn read(&mut self, sys: &SysRoot, cpu: usize, notes: &mut Notes, into: &mut CpuFiles) {
        let states = notes.take(Feed::IdleStates, || {
            if self.states.is_empty() {
                self.states = state_inputs(sys, cpu)?;
            }
            let sums = states(&mut self.states)?;
            if sums.is_none() {
                self.states.clear(); // its driver has gone
            }
            Ok(sums)
        });
        into.states = states.unwrap_or_default();
        into.throttles = notes.take(Feed::Throttle, || self.throttles.value("a count"));
        into.frequency = notes.take(Feed::Frequency, || {
            let khz = self.frequency.value("a frequency in kHz")?;
            Ok(khz.filter(|khz| *khz > 0).map(KHz::new))
        });
    }
}

fn each<T>(
    snapshot: &mut Snapshot,
    values: BTreeMap<usize, T>,
    mut set: impl FnMut(&mut CpuFiles, T),
) {
    for (cpu, value) in values {
        if let Some(cpu) = snapshot.cpus.get_mut(&cpu) {
            set(cpu, value);
        }
    }
}

fn malformed(path: &Path, line: usize, text: &str, expected: &'static str) -> Error {
    Error::Malformed {
        path: path.to_owned(),
        line: line + 1,
        value: text.chars().take(60).collect(),
        expected,
    }
}

/// What `of` makes of the first ten numbers in each line of a file that begins with a CPU's name (cpu0, cpu1); other
/// lines, as the sum over all CPUs, are left out.
fn of_cpus<T>(
    file: &mut OpenFile,
    expected: &'static str,
    of: impl Fn(&[u64]) -> Option<T>,
) -> Result<Option<BTreeMap<usize, T>>> {
    file.text(|path, text| {
        let mut cpus = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace();
            let cpu = words.next().and_then(|name| name.strip_prefix("cpu"));
            let Some(cpu) = cpu.and_then(|cpu| cpu.parse().ok()) else {
                continue;
            };
            let mut numbers = [0; 10];
            let found = words.map_while(|word| word.parse().ok());
            let count = numbers.iter_mut().zip(found);
            let count = count.map(|(number, found)| *number = found).count();
            let value = of(numbers.get(..count).unwrap_or_default());
            let value = value.ok_or_else(|| malformed(path, index, line, expected))?;
            cpus.insert(cpu, value);
        }
        Ok(cpus)
    })
}

/// Idle time of every online CPU by /proc/stat: the fields idle and iowait (proc_stat(5)), the stay that
/// has not ended included.
pub(super) fn ticks(stat: &mut OpenFile) -> Result<Option<BTreeMap<usize, Nanos>>> {
    let expected = "at least five numbers after the CPU's name";
    of_cpus(stat, expected, |ticks| match ticks {
        [_, _, _, idle, iowait, ..] => {
            let idle = idle.saturating_add(*iowait).saturating_mul(TICK_NS);
            Some(Nanos::new(idle))
        }
        _ => None,
    })
}

/// All interrupts, and the unmaskable among them.
type Interrupts = (u64, Option<u64>);

/// Interrupts of every CPU, and the unmaskable among them where the machine counts those. Lines without a
/// number for each CPU (ERR, MIS) belong to none.
fn interrupts(path: &Path, text: &str) -> Result<BTreeMap<usize, Interrupts>> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let cpus = head.split_whitespace();
    let cpus: Option<Vec<usize>> = cpus
        .map(|name| name.strip_prefix("CPU")?.parse().ok())
        .collect();
    let Some(cpus) = cpus.filter(|cpus| !cpus.is_empty()) else {
        let expected = "a line of CPUs such as CPU0 CPU1";
        return Err(malformed(path, 0, head, expected));
    };
    let mut sums = vec![(0_u64, None); cpus.len()];
    let mut counts: Vec<u64> = Vec::with_capacity(cpus.len());
    for line in lines {
        let Some((name, rest)) = line.split_once(':') else {
            continue;
        };
        let words = rest.split_whitespace().take(cpus.len());
        counts.clear();
        counts.extend(words.map_while(|word| word.parse::<u64>().ok()));
        if counts.len() < cpus.len() {
            continue;
        }
        let unmaskable = name.trim() == "NMI";
        for ((all, nmis), &count) in sums.iter_mut().zip(&counts) {
            *all = all.saturating_add(count);
            if unmaskable {
                *nmis = Some(count);
            }
        }
    }
    Ok(cpus.into_iter().zip(sums).collect())
}

/// Per CPU: time that tasks waited in its queue and how many of them ran: fields 8 and 9 of a CPU's line
/// (Documentation/scheduler/sched-stats.rst).
fn run_delays(schedstat: &mut OpenFile) -> Result<Option<BTreeMap<usize, (Nanos, u64)>>> {
    let expected = "nine numbers after the CPU's name";
    of_cpus(schedstat, expected, |fields| match fields {
        [_, _, _, _, _, _, _, delay, ran, ..] => Some((Nanos::new(*delay), *ran)),
        _ => None,
    })
}

/// Names of the idle states of the online CPUs, in the order of their depth; what cannot be read has none.
pub fn idle_states(sys: &SysRoot) -> Vec<String> {
    let online = sys.online_cpus().ok().flatten();
    let mut names: Vec<String> = Vec::new();
    for cpu in online.unwrap_or_default() {
        for state in state_inputs(sys, cpu).unwrap_or_default() {
            if !names.contains(&state.name) {
                names.push(state.name);
            }
        }
    }
    names
}

/// None where the CPU has no cpuidle driver.
fn state_inputs(sys: &SysRoot, cpu: usize) -> Result<Vec<StateInputs>> {
    let mut states = Vec::new();
    loop {
        let directory = format!("{CPUS}/cpu{cpu}/cpuidle/state{}", states.len());
        let Some(name) = sys.text(format!("{directory}/name"))? else {
            return Ok(states);
        };
        let open = |file: &str| sys.open(format!("{directory}/{file}"));
        states.push(StateInputs {
            name,
            usage: open("usage"),
            time: open("time"),
            above: open("above"),
            below: open("below"),
        });
    }
}

/// By the states' names; `None` where there are none, or none any more.
fn states(inputs: &mut [StateInputs]) -> Result<Option<BTreeMap<String, StateSums>>> {
    const COUNT: &str = "a count";
    let mut states: BTreeMap<String, StateSums> = BTreeMap::new();
    for state in inputs {
        let usage = state.usage.value(COUNT)?;
        let Some((usage, time_us)) = usage.zip(state.time.value(COUNT)?) else {
            return Ok(None);
        };
        let sums = StateSums {
            usage,
            time_us,
            above: state.above.value(COUNT)?,
            below: state.below.value(COUNT)?,
        };
        states.insert(state.name.clone(), sums);
    }
    Ok((!states.is_empty()).then_some(states))
}

/// A sensor's package, and core unless it is the package's.
type Sensor = (u32, Option<u32>);

/// Every sensor that may be asked: coretemp labels cores and packages, k10temp knows one package.
fn temperatures(
    sys: &SysRoot,
    may_ask: &impl Fn(u32, Option<u32>) -> bool,
) -> Result<Option<BTreeMap<Sensor, f64>>> {
    const HWMON: &str = "sys/class/hwmon";
    let mut found = BTreeMap::new();
    let mut sensors = 0;
    for device in sys.entries(HWMON)? {
        let directory = format!("{HWMON}/{device}");
        let chip = sys.text(format!("{directory}/name"))?.unwrap_or_default();
        if chip != "coretemp" && chip != "k10temp" {
            continue;
        }
        let mut labels = BTreeMap::new();
        for file in sys.entries(&directory)? {
            if let Some(channel) = file.strip_suffix("_label")
                && let Some(label) = sys.text(format!("{directory}/{file}"))?
            {
                labels.insert(channel.to_owned(), label);
            }
        }
        let number = |label: &str, prefix: &str| label.strip_prefix(prefix)?.trim().parse().ok();
        let package = labels
            .values()
            .find_map(|label| number(label, "Package id "))
            .unwrap_or(0);
        for (channel, label) in labels {
            let core = match label.as_str() {
                "Tctl" => None,
                label if label.starts_with("Package id ") => None,
                label => match number(label, "Core ") {
                    Some(core) => Some(core),
                    None => continue,
                },
            };
            sensors += 1;
            if !may_ask(package, core) {
                continue;
            }
            let path = format!("{directory}/{channel}_input");
            if let Some(millis) = sys.value::<i32>(path, "thousandths of a degree")? {
                found.insert((package, core), f64::from(millis) / 1000.0);
            }
        }
    }
    Ok((sensors > 0).then_some(found))
}

/// The fastest uncore domain of each package: `package_PP_die_DD/current_freq_khz`, or `uncoreNN` with the
/// package in `package_id` (Documentation/admin-guide/pm/intel_uncore_frequency_scaling.rst).
fn uncore(sys: &SysRoot) -> Result<Option<Vec<(u32, KHz)>>> {
    let directory = format!("{CPUS}/intel_uncore_frequency");
    let mut found = Vec::new();
    for name in sys.entries(&directory)? {
        let named = name
            .strip_prefix("package_")
            .and_then(|rest| rest.split('_').next()?.parse().ok());
        let package = match named {
            Some(package) => Some(package),
            None => sys.value(format!("{directory}/{name}/package_id"), "a number")?,
        };
        let file = format!("{directory}/{name}/current_freq_khz");
        let frequency = sys.value(file, "a frequency in kHz")?;
        found.extend(package.zip(frequency.map(KHz::new)));
    }
    Ok((!found.is_empty()).then_some(found))
}

/// Render and media units of the first card that shows a clock: i915's files, else xe's.
fn graphics(sys: &SysRoot) -> Result<Option<[Graphics; 2]>> {
    const DRM: &str = "sys/class/drm";
    let read = |file: String| sys.value::<u64>(file, "a number");
    for card in sys.entries(DRM)? {
        let is_card = card
            .strip_prefix("card")
            .is_some_and(|number| number.parse::<u32>().is_ok());
        if !is_card {
            continue;
        }
        let card = format!("{DRM}/{card}");
        let i915 = Graphics {
            asleep_ms: read(format!("{card}/power/rc6_residency_ms"))?,
            wanted_mhz: read(format!("{card}/gt_cur_freq_mhz"))?,
            actual_mhz: read(format!("{card}/gt_act_freq_mhz"))?,
        };
        let unit = |number: u32| -> Result<Graphics> {
            let xe = format!("{card}/device/tile0/gt{number}");
            let gt = format!("{card}/gt/gt{number}");
            Ok(Graphics {
                asleep_ms: read(format!("{xe}/gtidle/idle_residency_ms"))?
                    .or(read(format!("{gt}/rc6_residency_ms"))?),
                wanted_mhz: read(format!("{xe}/freq0/cur_freq"))?
                    .or(read(format!("{gt}/rps_cur_freq_mhz"))?),
                actual_mhz: read(format!("{xe}/freq0/act_freq"))?
                    .or(read(format!("{gt}/rps_act_freq_mhz"))?),
            })
        };
        let mut render = unit(0)?;
        if render == Graphics::default() {
            render = i915;
        }
        if render != Graphics::default() {
            return Ok(Some([render, unit(1)?]));
        }
    }
    Ok(None)
}

fn low_power(sys: &SysRoot) -> Result<Option<[Option<u64>; 2]>> {
    let read = |what: &str| {
        let file = format!("{CPUS}/cpuidle/low_power_idle_{what}_residency_us");
        sys.value::<u64>(file, "microseconds")
    };
    let times = [read("cpu")?, read("system")?];
    Ok(times.iter().any(Option::is_some).then_some(times))
}

#[cfg(test)]
mod tests;
