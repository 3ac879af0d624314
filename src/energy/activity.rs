//! What the CPUs do, as the kernel tells anybody: /proc/stat, cpuidle and cpufreq's statistics. For looking on
//! where our scheduler, whose own accounting is exact, does not run. What people look at, hardware counters
//! included, is [`Watch`]'s.
//!
//! Busy time is what is not idle: by cpuidle (µs) where there is a driver, else by /proc/stat (ticks of 10 ms).
//! It is spread over OPPs as the clock's time was (cpufreq's `time_in_state`), or booked on the present
//! clock where that is not kept. How busy CPUs overlapped is not told; they are taken as independent. Reading
//! files wakes no parked CPU.

mod counters;
mod feed;
mod files;
mod interval;

pub use feed::Feed;
pub use files::{Graphics, idle_states};
pub use interval::{CpuInterval, Interval, PackageInterval, Places, StateInterval, Watch};

use crate::error::Result;
use crate::observation::{Activity, GroupActivity};
use crate::sysroot::{OpenFile, SysRoot};
use crate::topology::{Group, Topology};
use crate::units::{KHz, Nanos};
use num_traits::ToPrimitive;
use std::collections::BTreeMap;

/// What cpufreq's statistics count in: USER_HZ, as /proc/stat.
const TICK_NS: u64 = 10_000_000;
const USEC_NS: u64 = 1000;

/// A group's CPUs, the frequencies of its OPPs, ascending, and the clock of its first CPU.
struct Watched {
    cpus: Vec<usize>,
    opps: Vec<KHz>,
    clock: Clock,
}

/// What cpufreq tells of a clock.
struct Clock {
    times: OpenFile,
    now: OpenFile,
}

/// A CPU's files of cpuidle: `time` and `usage` of each state, by depth.
struct IdleStates {
    cpu: usize,
    states: Vec<[OpenFile; 2]>,
}

/// Reads and adds up what each group did since it was made.
pub struct KernelActivity {
    sys: SysRoot,
    online: OpenFile,
    ticks: OpenFile,
    idle: Vec<IdleStates>,
    groups: Vec<Watched>,
    sums: Vec<GroupActivity>,
    earlier: Option<Snapshot>,
    /// By CPU: idle time that was told beyond the time that passed, ns: what ticks were too coarse for.
    surplus: BTreeMap<usize, f64>,
}

/// All counters at one instant, by CPU number.
struct Snapshot {
    at: Nanos,
    idle: BTreeMap<usize, Idle>,
    /// Of the clock of a group's first CPU, in the order of the groups; empty where it is not kept.
    clocks: Vec<BTreeMap<KHz, Nanos>>,
}

/// How long a CPU has been idle.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Idle {
    time: Nanos,
    /// By cpuidle: in all states but the deepest, and exits from those and from the deepest.
    shallow: Nanos,
    shallow_exits: u64,
    deep_exits: u64,
}

impl KernelActivity {
    /// Of the machine's groups; `opps` are the frequencies of each class, ascending.
    pub fn new(sys: &SysRoot, topology: &Topology, opps: &[Vec<KHz>]) -> Self {
        let watched = |group: &Group| Watched {
            cpus: group.cpus.clone(),
            opps: opps.get(group.class).cloned().unwrap_or_default(),
            clock: Clock::new(sys, group.cpus.first().copied().unwrap_or_default()),
        };
        let groups: Vec<Watched> = topology.groups.iter().map(watched).collect();
        let sums = groups.iter().map(|group| GroupActivity {
            active: vec![Nanos::default(); group.opps.len()],
            busy: vec![Nanos::default(); group.opps.len()],
            ..GroupActivity::default()
        });
        let cpus = groups.iter().flat_map(|group| &group.cpus);
        let idle = cpus.map(|&cpu| IdleStates {
            cpu,
            states: Vec::new(),
        });
        Self {
            sys: sys.clone(),
            online: sys.open("sys/devices/system/cpu/online"),
            ticks: sys.open("proc/stat"),
            idle: idle.collect(),
            sums: sums.collect(),
            groups,
            earlier: None,
            surplus: BTreeMap::new(),
        }
    }

    /// What the groups did so far; `now` is any clock that does not stop while the machine runs.
    ///
    /// # Errors
    /// When /proc/stat or a file of cpuidle or cpufreq cannot be read or understood.
    pub fn sample(&mut self, now: Nanos) -> Result<Activity> {
        let snapshot = self.snapshot(now)?;
        if let Some(earlier) = self.earlier.take()
            && let Some(duration) = now.checked_sub(earlier.at)
        {
            let groups = self.groups.iter().zip(&mut self.sums);
            let clocks = earlier.clocks.iter().zip(&snapshot.clocks);
            for ((group, sums), (before, clock)) in groups.zip(clocks) {
                let shares = shares(&group.opps, before, clock);
                add(
                    sums,
                    group,
                    duration,
                    &shares,
                    &earlier.idle,
                    &snapshot.idle,
                    &mut self.surplus,
                );
            }
        }
        self.earlier = Some(snapshot);
        Ok(Activity {
            at: now,
            groups: self.sums.clone(),
        })
    }

    fn snapshot(&mut self, at: Nanos) -> Result<Snapshot> {
        let idle = self.idle()?;
        let clocks = self.groups.iter_mut().map(|group| group.clock.read());
        Ok(Snapshot {
            at,
            idle,
            clocks: clocks.collect::<Result<_>>()?,
        })
    }

    /// Of every online CPU: by cpuidle, and by /proc/stat, which costs more, where one has no driver.
    fn idle(&mut self) -> Result<BTreeMap<usize, Idle>> {
        let online = self.online.cpu_list()?;
        let is_online = |cpu| {
            let online = online.as_deref();
            online.is_none_or(|online| online.binary_search(&cpu).is_ok())
        };
        let mut idle = BTreeMap::new();
        for states in &mut self.idle {
            if is_online(states.cpu)
                && let Some(exact) = states.read(&self.sys)?
            {
                idle.insert(states.cpu, exact);
            }
        }
        if online.is_some_and(|online| online.iter().all(|cpu| idle.contains_key(cpu))) {
            return Ok(idle);
        }
        let ticks = files::ticks(&mut self.ticks)?.unwrap_or_default();
        idle.retain(|cpu, _| ticks.contains_key(cpu));
        for (cpu, time) in ticks {
            let coarse = Idle {
                time,
                ..Idle::default()
            };
            idle.entry(cpu).or_insert(coarse);
        }
        Ok(idle)
    }
}

impl IdleStates {
    /// By cpuidle's `time` and `usage` (Documentation/admin-guide/pm/cpuidle.rst); `None` without a driver.
    fn read(&mut self, sys: &SysRoot) -> Result<Option<Idle>> {
        let mut sums = Vec::with_capacity(self.states.len());
        for files in &mut self.states {
            sums.extend(state(files)?);
        }
        if sums.is_empty() || sums.len() < self.states.len() {
            sums = self.find(sys)?;
        }
        let Some((deepest, others)) = sums.split_last() else {
            return Ok(None);
        };
        let add = |one: u64, other: &u64| one.saturating_add(*other);
        let shallow = others.iter().map(|(time, _)| time).fold(0, add);
        Ok(Some(Idle {
            time: Nanos::new(shallow.saturating_add(deepest.0).saturating_mul(USEC_NS)),
            shallow: Nanos::new(shallow.saturating_mul(USEC_NS)),
            shallow_exits: others.iter().map(|(_, usage)| usage).fold(0, add),
            deep_exits: deepest.1,
        }))
    }

    /// Opens what there is now, and reads it.
    fn find(&mut self, sys: &SysRoot) -> Result<Vec<(u64, u64)>> {
        self.states.clear();
        let mut sums = Vec::new();
        loop {
            let directory = format!(
                "sys/devices/system/cpu/cpu{}/cpuidle/state{}",
                self.cpu,
                sums.len()
            );
            let mut files = ["time", "usage"].map(|file| sys.open(format!("{directory}/{file}")));
            let Some(found) = state(&mut files)? else {
                return Ok(sums);
            };
            sums.push(found);
            self.states.push(files);
        }
    }
}

/// Time in a state, µs, and how often it was entered; `None` when it has gone.
fn state([time, usage]: &mut [OpenFile; 2]) -> Result<Option<(u64, u64)>> {
    let time = time.value("microseconds")?;
    Ok(time.zip(usage.value("a count")?))
}

impl Clock {
    fn new(sys: &SysRoot, cpu: usize) -> Self {
        let directory = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq");
        Self {
            times: sys.open(format!("{directory}/stats/time_in_state")),
            now: sys.open(format!("{directory}/scaling_cur_freq")),
        }
    }

    /// How long the clock has run at each frequency; where that is not kept, its present frequency with no time.
    fn read(&mut self) -> Result<BTreeMap<KHz, Nanos>> {
        let times: Option<Vec<u64>> = self.times.values("pairs of kHz and ticks")?;
        // A table that has never counted was made before the clock's frequency was known and never will.
        let counted = times.filter(|times| times.iter().skip(1).step_by(2).any(|&ticks| ticks > 0));
        if let Some(times) = counted {
            let pairs = times.as_chunks::<2>().0.iter();
            let pair = |&[khz, ticks]: &[u64; 2]| {
                (KHz::new(khz), Nanos::new(ticks.saturating_mul(TICK_NS)))
            };
            return Ok(pairs.map(pair).collect());
        }
        let now: Option<u64> = self.now.value("a frequency in kHz")?;
        Ok(now
            .map(|khz| (KHz::new(khz), Nanos::default()))
            .into_iter()
            .collect())
    }
}

/// The part of the time that the clock spent nearest to each OPP.
fn shares(opps: &[KHz], before: &BTreeMap<KHz, Nanos>, after: &BTreeMap<KHz, Nanos>) -> Vec<f64> {
    let mut shares = vec![0.0; opps.len()];
    let spent = |khz: &KHz, time: &Nanos| {
        let before = before.get(khz).copied();
        let spent = time
            .checked_sub(before.unwrap_or_default())
            .unwrap_or_default();
        spent.get().to_f64().unwrap_or(0.0)
    };
    let total: f64 = after.iter().map(|(khz, time)| spent(khz, time)).sum();
    for (khz, time) in after {
        let part = match total > 0.0 {
            true => spent(khz, time) / total,
            false => 1.0 / after.len().to_f64().unwrap_or(1.0),
        };
        let nearest = opps.iter().enumerate();
        let nearest = nearest.min_by_key(|(_, opp)| opp.get().abs_diff(khz.get()));
        if let Some(share) = nearest.and_then(|(index, _)| shares.get_mut(index)) {
            *share += part;
        }
    }
    if after.is_empty()
        && let Some(fastest) = shares.last_mut()
    {
        *fastest = 1.0; // no clock is told: that of the capacity
    }
    shares
}

/// Adds what a group's CPUs did over `duration`. A CPU that is not in both readings counts as idle. Idle time
/// beyond `duration`, up to a tick, counts for the next: an idle CPU is not busy now and then because ticks are
/// whole.
fn add(
    sums: &mut GroupActivity,
    group: &Watched,
    duration: Nanos,
    shares: &[f64],
    before: &BTreeMap<usize, Idle>,
    after: &BTreeMap<usize, Idle>,
    surplus: &mut BTreeMap<usize, f64>,
) {
    let length = duration.get().to_f64().unwrap_or(0.0);
    let (mut busy, mut all_idle) = (0.0, 1.0);
    for cpu in &group.cpus {
        let Some((before, after)) = before.get(cpu).zip(after.get(cpu)) else {
            continue;
        };
        let since = |now: Nanos, then: Nanos| now.checked_sub(then).unwrap_or_default();
        let surplus = surplus.entry(*cpu).or_default();
        let told = since(after.time, before.time).get().to_f64().unwrap_or(0.0);
        let idle = told + *surplus;
        *surplus = (idle - length).clamp(0.0, TICK_NS.to_f64().unwrap_or(0.0));
        let part = if length > 0.0 {
            (1.0 - idle / length).clamp(0.0, 1.0)
        } else {
            0.0
        };
        busy += part;
        all_idle *= 1.0 - part;
        let shallow = since(after.shallow, before.shallow)
            .get()
            .min(duration.get());
        sums.shallow.time = Nanos::new(sums.shallow.time.get() + shallow);
        sums.shallow.exits += after.shallow_exits.saturating_sub(before.shallow_exits);
        sums.deep_exits += after.deep_exits.saturating_sub(before.deep_exits);
    }
    let series = [(&mut sums.busy, busy), (&mut sums.active, 1.0 - all_idle)];
    for (times, part) in series {
        for (time, share) in times.iter_mut().zip(shares) {
            let more = (length * part * share).round().to_u64().unwrap_or(0);
            *time = Nanos::new(time.get() + more);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Machine;
    use super::*;
    use crate::topology::Cluster;
    use crate::units::Capacity;

    const SECOND: u64 = 1_000_000_000;

    /// Two little CPUs with two OPPs, one big CPU with one.
    fn reader(sys: &SysRoot) -> KernelActivity {
        let cluster = |cpus, capacity| Cluster {
            cpus,
            threads: 1,
            capacity: Capacity::new(capacity).unwrap(),
            opps: None,
            llc: 0,
        };
        let topology = Topology::synthetic(&[cluster(2, 512), cluster(1, 1024)]);
        let opps = [vec![KHz::new(1000), KHz::new(2000)], vec![KHz::new(3000)]];
        KernelActivity::new(sys, &topology, &opps)
    }

    /// Idle ticks of three CPUs, a third of them waiting for input or output.
    fn stat(machine: &Machine, idle: [u64; 3]) {
        let lines: Vec<String> = (idle.iter().enumerate())
            .map(|(cpu, idle)| {
                format!(
                    "cpu{cpu} 5 0 5 {} {} 0 0 0 0 0\n",
                    idle - idle / 3,
                    idle / 3
                )
            })
            .collect();
        machine.file(
            "proc/stat",
            &format!("cpu  1 2 3 4 5 6 7\n{}intr 1 2\n", lines.concat()),
        );
    }

    fn ms(time: Nanos) -> u64 {
        time.get() / 1_000_000
    }

    #[test]
    fn busy_is_what_is_not_idle_spread_as_the_clock_was() {
        let machine = Machine::bare();
        let clock = "sys/devices/system/cpu/cpu0/cpufreq/stats/time_in_state";
        let mut reader = reader(&machine.sys());
        stat(&machine, [300, 300, 300]);
        machine.file(clock, "1000 100\n2000 100\n");
        let first = reader.sample(Nanos::new(SECOND)).unwrap();
        assert!(
            first
                .groups
                .iter()
                .all(|group| group.busy.iter().all(|busy| busy.get() == 0))
        );
        // 50 and 0 % busy, a quarter of the time at the higher OPP
        stat(&machine, [350, 400, 400]);
        machine.file(clock, "1000 175\n2000 125\n");
        let second = reader.sample(Nanos::new(2 * SECOND)).unwrap();
        let little = &second.groups[0];
        assert_eq!([ms(little.busy[0]), ms(little.busy[1])], [375, 125]);
        assert_eq!([ms(little.active[0]), ms(little.active[1])], [375, 125]);
        // both half busy: some CPU is for three quarters of the time
        stat(&machine, [400, 450, 400]);
        machine.file(clock, "1000 275\n2000 125\n");
        let third = reader.sample(Nanos::new(3 * SECOND)).unwrap();
        assert_eq!(
            [ms(third.groups[0].busy[0]), ms(third.groups[0].active[0])],
            [1375, 1125]
        );
        assert_eq!(ms(third.groups[1].busy[0]), 1000);
    }

    #[test]
    fn cpuidle_is_finer_than_ticks_and_knows_depths() {
        let machine = Machine::bare();
        let mut reader = reader(&machine.sys());
        let state = |state: usize, time: u64, usage: u64| {
            let directory = format!("sys/devices/system/cpu/cpu2/cpuidle/state{state}");
            machine.file(&format!("{directory}/time"), &time.to_string());
            machine.file(&format!("{directory}/usage"), &usage.to_string());
        };
        stat(&machine, [100, 100, 100]);
        state(0, 1000, 1);
        state(1, 5000, 2);
        reader.sample(Nanos::new(SECOND)).unwrap();
        state(0, 1400, 4);
        state(1, 905_000, 12);
        let big = reader
            .sample(Nanos::new(2 * SECOND))
            .unwrap()
            .groups
            .remove(1);
        assert_eq!(big.busy[0], Nanos::new(SECOND - 900_400_000));
        assert_eq!(
            (big.shallow.time, big.shallow.exits),
            (Nanos::new(400_000), 3)
        );
        assert_eq!(big.deep_exits, 10);
    }

    #[test]
    fn a_clock_that_keeps_no_statistics_counts_as_it_stands() {
        let machine = Machine::bare();
        let mut reader = reader(&machine.sys());
        machine.file(
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
            "1900\n",
        );
        stat(&machine, [0, 0, 0]);
        reader.sample(Nanos::new(SECOND)).unwrap();
        let little = reader
            .sample(Nanos::new(2 * SECOND))
            .unwrap()
            .groups
            .remove(0);
        assert_eq!([ms(little.busy[0]), ms(little.busy[1])], [0, 2000]);
    }

    #[test]
    fn a_table_of_times_that_never_counts_gives_way_to_the_present_clock() {
        let machine = Machine::bare();
        let clock = "sys/devices/system/cpu/cpu0/cpufreq";
        let mut reader = reader(&machine.sys());
        machine.file(&format!("{clock}/stats/time_in_state"), "1000 0\n2000 0\n");
        machine.file(&format!("{clock}/scaling_cur_freq"), "1000\n");
        stat(&machine, [0, 0, 0]);
        reader.sample(Nanos::new(SECOND)).unwrap();
        let little = &reader.sample(Nanos::new(2 * SECOND)).unwrap().groups[0];
        assert_eq!([ms(little.busy[0]), ms(little.busy[1])], [2000, 0]);
    }

    #[test]
    fn an_idle_cpu_is_not_busy_now_and_then_because_ticks_are_whole() {
        let machine = Machine::bare();
        let mut reader = reader(&machine.sys());
        // Samples each 165 ms: 16 or 17 ticks.
        let mut busy = Vec::new();
        for sample in 0..40u64 {
            let ticks = sample * 165 / 10;
            stat(&machine, [ticks, ticks, ticks]);
            let now = Nanos::new(sample * 165_000_000);
            busy.push(ms(reader.sample(now).unwrap().groups[1].busy[0]));
        }
        // The first tick cannot be known to have been cut.
        assert!(busy.iter().all(|&busy| busy <= 10), "{busy:?}");
        // A CPU that is busy is so at once, but for what had been told too much.
        stat(&machine, [643, 643, 643]);
        let last = reader.sample(Nanos::new(40 * 165_000_000)).unwrap();
        let added = ms(last.groups[1].busy[0]) - busy[39];
        assert!((155..=165).contains(&added), "{added}");
    }

    #[test]
    fn a_cpu_that_came_or_went_counts_as_idle_and_counters_that_went_back_as_nothing() {
        let machine = Machine::bare();
        let mut reader = reader(&machine.sys());
        machine.file("proc/stat", "cpu0 0 0 0 100 0 0\n");
        reader.sample(Nanos::new(SECOND)).unwrap();
        stat(&machine, [90, 0, 0]);
        let activity = reader.sample(Nanos::new(2 * SECOND)).unwrap();
        assert_eq!(ms(activity.groups[0].busy[1]), 1000);
        assert_eq!(ms(activity.groups[1].busy[0]), 0);
    }

    #[test]
    fn a_line_that_is_no_statistic_is_named() {
        let machine = Machine::bare();
        machine.file("proc/stat", "cpu  1 2 3 4 5\ncpu0 1 2 three\n");
        let error = reader(&machine.sys())
            .sample(Nanos::new(1))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("proc/stat:2") && error.contains("three"),
            "{error}"
        );
    }
}
