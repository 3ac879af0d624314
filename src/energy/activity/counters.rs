//! Activity counters of CPUs, cores and packages, through perf.
//!
//! A read of a CPU's counter is carried out on that CPU, by an interrupt unless the reader runs there
//! (kernel/events/core.c, `perf_event_read`), and so wakes it. The caller therefore names the CPUs to leave
//! alone. Only counters of a package are read where the reader runs, if that is in the same package.
//! Opening and closing a counter interrupts its CPU too, once.

use super::feed::Feed;
use crate::energy::perf::{self, Event, Group, Pmu};
use crate::error::{Error, Result};
use crate::sysroot::SysRoot;
use crate::units::Nanos;
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet};

const DEVICES: &str = "sys/bus/event_source/devices";

/// PERF_TYPE_HARDWARE and its events (include/uapi/linux/perf_event.h).
const HARDWARE: u32 = 0;
const WORK: [(&str, u64); 2] = [("instructions", 1), ("cycles", 0)];
const CACHE: [(&str, u64); 2] = [("references", 2), ("misses", 3)];

/// What a group of counters gained since it was read before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gain {
    /// By the event's name.
    pub counts: BTreeMap<String, u64>,
    /// Time between the two reads, by a clock that nobody adjusts.
    pub elapsed: Nanos,
    /// How well the two instants are known: at most this much earlier or later, together.
    pub doubt: Nanos,
    /// Whether the read before was the caller's previous one; otherwise it was skipped in between.
    pub fresh: bool,
}

/// Gains by the feed and the CPU that was asked.
pub type Gains = BTreeMap<(Feed, usize), Gain>;

/// An instant, and the counts at it.
#[derive(Clone, Debug)]
struct Look {
    counts: Vec<u64>,
    at: Nanos,
    doubt: Nanos,
    round: u64,
}

#[derive(Debug)]
struct Unit {
    feed: Feed,
    cpu: usize,
    names: Vec<String>,
    group: Group,
    last: Look,
}

/// All counters that were asked for and are to be had.
#[derive(Debug)]
pub struct Counters {
    sys: SysRoot,
    wanted: BTreeSet<Feed>,
    online: Option<Vec<usize>>,
    units: Vec<Unit>,
    round: u64,
    /// Why a feed is not, or not wholly, there.
    missing: BTreeMap<Feed, String>,
}

impl Counters {
    /// Opens those of `wanted` that are perf's.
    pub fn open(sys: &SysRoot, wanted: &BTreeSet<Feed>) -> Self {
        let mut counters = Self {
            sys: sys.clone(),
            wanted: wanted.clone(),
            online: None,
            units: Vec::new(),
            round: 0,
            missing: BTreeMap::new(),
        };
        counters.follow();
        counters
    }

    /// Why feeds are not, or not wholly, there.
    pub fn missing(&self) -> &BTreeMap<Feed, String> {
        &self.missing
    }

    /// Whether this feed's counters of this CPU are open.
    pub fn has(&self, feed: Feed, cpu: usize) -> bool {
        let own = |unit: &Unit| unit.feed == feed && unit.cpu == cpu;
        self.units.iter().any(own)
    }

    /// Whether this event of this feed (any, where none is named) is counted somewhere.
    pub fn counts(&self, feed: Feed, event: &str) -> bool {
        let of = |unit: &Unit| {
            let mut names = unit
                .names
                .iter()
                .map(|name| name.trim_end_matches(RESIDENCY));
            unit.feed == feed && (event.is_empty() || names.any(|name| name == event))
        };
        self.units.iter().any(of)
    }

    /// What was gained, but not where `spare` wants a feed's CPU left alone. When CPUs have gone on- or offline all
    /// begin anew, and gain nothing this time.
    pub fn read(&mut self, spare: impl Fn(Feed, usize) -> bool) -> Gains {
        self.round += 1;
        if self.follow() {
            return Gains::new();
        }
        let mut gains = Gains::new();
        let mut lost = Vec::new();
        for unit in &mut self.units {
            if spare(unit.feed, unit.cpu) {
                continue;
            }
            match look(&unit.group, self.round) {
                Ok(here) => {
                    if let Some(gain) = unit.gain(&here) {
                        gains.insert((unit.feed, unit.cpu), gain);
                    }
                    unit.last = here;
                }
                Err(error) => lost.push((unit.feed, unit.cpu, error.to_string())),
            }
        }
        for (feed, cpu, why) in lost {
            self.units
                .retain(|unit| unit.feed != feed || unit.cpu != cpu);
            self.missing.entry(feed).or_insert(why);
        }
        gains
    }

    /// Opens all afresh when other CPUs are online than before; whether that was so.
    fn follow(&mut self) -> bool {
        let online = self.sys.online_cpus().ok().flatten();
        if self.online.is_some() && self.online == online {
            return false;
        }
        self.units.clear();
        self.missing.clear();
        let cpus = online.clone().unwrap_or_default();
        self.online = Some(cpus.clone());
        for feed in self
            .wanted
            .clone()
            .into_iter()
            .filter(|feed| feed.is_perf())
        {
            if let Err(why) = self.add(feed, &cpus) {
                self.missing.entry(feed).or_insert(why);
            }
        }
        true
    }

    /// Opens a feed's counters on every CPU that has them; otherwise says why they are not (all) there.
    fn add(&mut self, feed: Feed, online: &[usize]) -> std::result::Result<(), String> {
        let text = |error: Error| error.to_string();
        let described = |name: &str| match perf::pmu(&self.sys, name) {
            Ok(Some(pmu)) => Ok(pmu),
            Ok(None) => Err(format!("this machine shows no PMU '{name}'")),
            Err(error) => Err(error.to_string()),
        };
        let mut places: Vec<(usize, Pmu)> = Vec::new();
        match feed {
            Feed::Work | Feed::Cache => {
                let codes = if feed == Feed::Work { WORK } else { CACHE };
                let hybrid = hybrid(&self.sys).map_err(text)?;
                let pmu = |&cpu: &usize| (cpu, hardware(&codes, kind_of(&hybrid, cpu)));
                places.extend(online.iter().map(pmu));
            }
            Feed::Clock => {
                let is_ours = |name: &str| matches!(name, "aperf" | "mperf" | "tsc" | "smi");
                let pmu = only(described("msr")?, is_ours);
                places.extend(online.iter().map(|&cpu| (cpu, pmu.clone())));
            }
            Feed::CoreIdle | Feed::ModuleIdle | Feed::PackageIdle => {
                let name = match feed {
                    Feed::CoreIdle => "cstate_core",
                    Feed::ModuleIdle => "cstate_module",
                    _ => "cstate_pkg",
                };
                let pmu = only(described(name)?, |name| name.ends_with(RESIDENCY));
                let cpus = pmu.cpus.iter().flatten();
                places.extend(cpus.map(|&cpu| (cpu, pmu.clone())));
            }
            _ => {}
        }
        let mut trouble = None;
        for (cpu, pmu) in places {
            if let Err(why) = self.add_unit(feed, &pmu, cpu) {
                trouble = trouble.or(Some(why));
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    fn add_unit(&mut self, feed: Feed, pmu: &Pmu, cpu: usize) -> std::result::Result<(), String> {
        let events: Vec<&Event> = pmu.events.iter().collect();
        if events.is_empty() {
            return Err(format!("PMU '{}' has no such event", pmu.name));
        }
        if !self.sys.is_host() {
            return Err("only the running machine's counters can be opened".to_owned());
        }
        let opened = Group::open(&self.sys, pmu, &events, cpu).and_then(|group| {
            // The counts begin at 0, but not all at the same instant.
            Ok((look(&group, self.round)?, group))
        });
        let (last, group) = opened.map_err(|error| match error {
            // The kernel's words for an event that this processor does not have.
            Error::Gone { .. } => format!("this processor has no {feed}"),
            error => error.to_string(),
        })?;
        self.units.push(Unit {
            feed,
            cpu,
            names: events.iter().map(|event| event.name.clone()).collect(),
            group,
            last,
        });
        Ok(())
    }
}

/// How the events of the C-state PMUs are called: `c6-residency`.
const RESIDENCY: &str = "-residency";

impl Unit {
    /// `None` when a count went back, which a perf counter never does.
    fn gain(&self, here: &Look) -> Option<Gain> {
        let counts = here.counts.iter().zip(&self.last.counts);
        let counts: Option<Vec<u64>> = counts
            .map(|(now, before)| now.checked_sub(*before))
            .collect();
        let name = |name: &String| name.trim_end_matches(RESIDENCY).to_owned();
        Some(Gain {
            counts: self.names.iter().map(name).zip(counts?).collect(),
            elapsed: here.at.checked_sub(self.last.at)?,
            doubt: here.doubt.checked_add(self.last.doubt)?,
            fresh: here.round == self.last.round + 1,
        })
    }
}

/// Reads a group and stamps it with the middle of the time that took. A read that was held up, as by the
/// scheduler, is repeated: its instant would be badly known.
fn look(group: &Group, round: u64) -> Result<Look> {
    const PROMPT: Nanos = Nanos::new(25_000);
    const ATTEMPTS: usize = 4;
    let mut best = glance(group, round)?;
    for _ in 1..ATTEMPTS {
        if best.doubt <= PROMPT {
            break;
        }
        let again = glance(group, round)?;
        if again.doubt < best.doubt {
            best = again;
        }
    }
    Ok(best)
}

fn glance(group: &Group, round: u64) -> Result<Look> {
    let before = raw_clock();
    let counts = group.read()?;
    let took = raw_clock().checked_sub(before).unwrap_or_default();
    let half = Nanos::new(took.get() / 2);
    Ok(Look {
        counts,
        at: Nanos::new(before.get().saturating_add(half.get())),
        doubt: half,
        round,
    })
}

/// CLOCK_MONOTONIC_RAW: not slewed, so that rates measured against it are the hardware's.
pub(crate) fn raw_clock() -> Nanos {
    let time = clock_gettime(ClockId::MonotonicRaw);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Nanos::new(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

fn only(pmu: Pmu, keep: impl Fn(&str) -> bool) -> Pmu {
    let events = pmu.events.into_iter();
    Pmu {
        events: events.filter(|event| keep(&event.name)).collect(),
        ..pmu
    }
}

/// The core PMUs of a hybrid x86 machine: type number and CPUs. Empty elsewhere, also on Arm, whose PMUs
/// recognise their own CPUs.
fn hybrid(sys: &SysRoot) -> Result<Vec<(u32, Vec<usize>)>> {
    let mut pmus = Vec::new();
    for name in ["cpu_core", "cpu_atom"] {
        let directory = format!("{DEVICES}/{name}");
        let kind = sys.value(format!("{directory}/type"), "a PMU number")?;
        let cpus = sys.cpu_list(format!("{directory}/cpus"))?;
        pmus.extend(kind.zip(cpus));
    }
    Ok(pmus)
}

fn kind_of(hybrid: &[(u32, Vec<usize>)], cpu: usize) -> u32 {
    let own = hybrid.iter().find(|(_, cpus)| cpus.contains(&cpu));
    own.map_or(0, |(kind, _)| *kind)
}

/// Hardware events by the kernel's own names; those of a hybrid machine carry their PMU's type in the upper
/// half (PERF_PMU_TYPE_SHIFT).
fn hardware(codes: &[(&str, u64)], kind: u32) -> Pmu {
    let event = |&(name, code): &(&str, u64)| Event {
        name: name.to_owned(),
        config: u64::from(kind) << 32 | code,
        scale: None,
        unit: None,
    };
    Pmu {
        name: "cpu".to_owned(),
        kind: HARDWARE,
        cpus: None,
        events: codes.iter().map(event).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::fixture::Machine;

    #[test]
    fn hardware_events_of_a_hybrid_machine_name_the_pmu_of_their_cpu() {
        let machine = Machine::bare();
        machine
            .file("sys/bus/event_source/devices/cpu_core/type", "4\n")
            .file("sys/bus/event_source/devices/cpu_core/cpus", "0-3\n")
            .file("sys/bus/event_source/devices/cpu_atom/type", "10\n")
            .file("sys/bus/event_source/devices/cpu_atom/cpus", "4-7\n");
        let pmus = hybrid(&machine.sys()).unwrap();
        let config = |cpu| hardware(&WORK, kind_of(&pmus, cpu)).events[0].config;
        assert_eq!([config(0), config(5)], [0x4_0000_0001, 0xa_0000_0001]);
        assert_eq!(hybrid(&Machine::bare().sys()).unwrap(), []);
        assert_eq!(hardware(&CACHE, 0).events[1].config, 3);
    }

    #[test]
    fn what_is_not_there_is_named_and_opens_nothing() {
        let machine = Machine::bare();
        machine
            .file("sys/devices/system/cpu/online", "0\n")
            .file("sys/bus/event_source/devices/msr/type", "10\n")
            .file(
                "sys/bus/event_source/devices/msr/events/tsc",
                "event=0x00\n",
            );
        let wanted = [Feed::Clock, Feed::CoreIdle, Feed::Ticks].into();
        let mut counters = Counters::open(&machine.sys(), &wanted);
        assert_eq!(counters.read(|_, _| false), Gains::new());
        let missing: Vec<_> = counters.missing().values().collect();
        assert_eq!(
            missing,
            [
                "only the running machine's counters can be opened",
                "this machine shows no PMU 'cstate_core'"
            ]
        );
    }

    #[test]
    fn a_read_that_was_skipped_in_between_is_not_fresh() {
        let sys = SysRoot::host();
        let wanted = [Feed::Clock].into();
        let mut counters = Counters::open(&sys, &wanted);
        let Some(cpu) = counters.units.first().map(|unit| unit.cpu) else {
            eprintln!("not shown on this machine: {:?}", counters.missing());
            return;
        };
        let fresh = |gains: Gains| gains.get(&(Feed::Clock, cpu)).map(|gain| gain.fresh);
        assert_eq!(fresh(counters.read(|_, _| false)), Some(true));
        assert_eq!(fresh(counters.read(|_, id| id == cpu)), None);
        assert_eq!(fresh(counters.read(|_, _| false)), Some(false));
        assert_eq!(fresh(counters.read(|_, _| false)), Some(true));
    }
}
