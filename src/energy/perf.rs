//! perf PMUs that count energy (arch/x86/events/rapl.c: `power`, and `power_core` for AMD's cores),
//! described by sysfs and read through perf_event_open(2).
//!
//! One group of counters for each CPU of the PMU's `cpumask`, so that all domains of a package or die
//! are read at the same moment by one system call. This is the crate's only unsafe code.
#![allow(unsafe_code)]

use super::clock::Moment;
use super::counter::{Counter, Limits};
use super::source::{Amount, Domain, EnergySource, Provenance, Reading, Scope};
use crate::error::{Error, Result};
use crate::sysroot::SysRoot;
use crate::units::{Microjoules, Nanos};
use perf_event_open_sys::bindings::{PERF_FLAG_FD_CLOEXEC, PERF_FORMAT_GROUP, perf_event_attr};
use perf_event_open_sys::perf_event_open;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

const DEVICES: &str = "sys/bus/event_source/devices";

/// One event of a PMU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its name, such as `energy-pkg`.
    pub name: String,
    /// Its code, for `perf_event_attr.config`.
    pub config: u64,
    /// What one count stands for, in [`Event::unit`]; `None` where counts are plain numbers.
    pub scale: Option<f64>,
    /// Unit of count × scale, such as `Joules`.
    pub unit: Option<String>,
}

/// One PMU as the machine shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pmu {
    /// Its name, such as `power`.
    pub name: String,
    /// The number for `perf_event_attr.type`.
    pub kind: u32,
    /// One CPU for each counter; `None` when any CPU may be asked.
    pub cpus: Option<Vec<usize>>,
    /// Its events by name; virtual machines show PMUs that have none.
    pub events: Vec<Event>,
}

/// The PMU of this name; `None` when it is not registered.
///
/// # Errors
/// Denied, failed or malformed reads.
pub fn pmu(sys: &SysRoot, name: &str) -> Result<Option<Pmu>> {
    let directory = format!("{DEVICES}/{name}");
    let Some(kind) = sys.value(format!("{directory}/type"), "a PMU number")? else {
        return Ok(None);
    };
    let mut events = Vec::new();
    for file in sys.entries(format!("{directory}/events"))? {
        // energy-pkg.scale, energy-pkg.unit, ... describe the event before the dot.
        if !file.contains('.')
            && let Some(event) = event(sys, &directory, file)?
        {
            events.push(event);
        }
    }
    Ok(Some(Pmu {
        name: name.to_owned(),
        kind,
        cpus: sys.cpu_list(format!("{directory}/cpumask"))?,
        events,
    }))
}

fn event(sys: &SysRoot, directory: &str, name: String) -> Result<Option<Event>> {
    let path = format!("{directory}/events/{name}");
    let Some(text) = sys.text(&path)? else {
        return Ok(None);
    };
    let config = parse_config(&text).ok_or_else(|| Error::Malformed {
        path: sys.path(&path),
        line: 1,
        value: text.chars().take(40).collect(),
        expected: "an event code such as event=0x02",
    })?;
    let scale = sys.value::<f64>(format!("{path}.scale"), "a number above 0")?;
    if let Some(wrong) = scale.filter(|scale| !(scale.is_finite() && *scale > 0.0)) {
        return Err(Error::Malformed {
            path: sys.path(format!("{path}.scale")),
            line: 1,
            value: wrong.to_string(),
            expected: "a number above 0",
        });
    }
    Ok(Some(Event {
        config,
        scale,
        unit: sys.text(format!("{path}.unit"))?,
        name,
    }))
}

/// `event=0x02` → 2. The PMUs read here put `event` at bit 0 of `config` and have no other term.
fn parse_config(text: &str) -> Option<u64> {
    let code = text.strip_prefix("event=")?;
    match code.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok(),
        None => code.parse().ok(),
    }
}

impl Pmu {
    /// The events that count energy, with the domain of each.
    ///
    /// # Errors
    /// An energy event in another unit than joules: AMD family 15h also calls its PMU `power`, and
    /// its `power-pkg` is an average in mWatts (arch/x86/events/amd/power.c).
    pub fn energy_events(&self, sys: &SysRoot) -> Result<Vec<(Domain, &Event)>> {
        let mut energies = Vec::new();
        for event in &self.events {
            let domain = match event.name.as_str() {
                "energy-cores" | "energy-core" => Domain::Cores,
                "energy-pkg" => Domain::Package,
                "energy-ram" => Domain::Dram,
                "energy-gpu" => Domain::Gpu,
                "energy-psys" => Domain::Platform,
                "power-pkg" => Domain::Package,
                _ => continue,
            };
            if event.unit.as_deref() != Some("Joules") || event.scale.is_none() {
                let path = format!("{DEVICES}/{}/events/{}.unit", self.name, event.name);
                return Err(Error::Malformed {
                    path: sys.path(path),
                    line: 1,
                    value: event.unit.clone().unwrap_or_default(),
                    expected: "Joules with a scale: not an energy counter",
                });
            }
            energies.push((domain, event));
        }
        Ok(energies)
    }
}

/// `CAP_SYS_ADMIN` and `CAP_PERFMON` of include/uapi/linux/capability.h, either of which will do.
const CAPABILITIES: u64 = 1 << 21 | 1 << 38;

/// What a refusal names.
const HINT: &str =
    "set kernel.perf_event_paranoid to 0, or grant CAP_PERFMON, or run as root (sudo)";

/// Whether this process may open counters of a whole CPU: with the capability, or where
/// `perf_event_paranoid` is at most 0 (kernel/events/core.c, perf_allow_cpu).
///
/// # Errors
/// [`Error::Denied`] when it may not, other errors when that cannot be told.
pub fn permission(sys: &SysRoot) -> Result<()> {
    const PARANOID: &str = "proc/sys/kernel/perf_event_paranoid";
    let paranoid = sys.value::<i64>(PARANOID, "a whole number")?;
    let status = sys.text("proc/self/status")?.unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let capable = effective.is_some_and(|mask| mask & CAPABILITIES != 0);
    match paranoid.is_some_and(|level| level <= 0) || capable {
        true => Ok(()),
        false => Err(Error::Denied {
            path: sys.path(PARANOID),
            hint: HINT,
        }),
    }
}

/// Events of one PMU on one CPU, counted together.
#[derive(Debug)]
pub struct Group {
    /// The leader first; a read of the leader gives the counts of all.
    events: Vec<File>,
    path: PathBuf,
}

impl Group {
    /// Opens `events` of `pmu` on `cpu`, for all tasks and without sampling. They count from now on.
    /// `pmu` must describe the running machine; `sys` only names the files in errors.
    ///
    /// # Errors
    /// [`Error::Denied`] without the privilege, [`Error::Gone`] when the PMU is not registered any more
    /// or the CPU is offline, [`Error::Io`] otherwise.
    pub fn open(sys: &SysRoot, pmu: &Pmu, events: &[&Event], cpu: usize) -> Result<Self> {
        let mut group = Self {
            events: Vec::with_capacity(events.len()),
            path: sys.path(format!("{DEVICES}/{}", pmu.name)),
        };
        for event in events {
            let opened = open_event(pmu.kind, event.config, cpu, group.events.first());
            group
                .events
                .push(opened.map_err(|source| group.error(source))?);
        }
        Ok(group)
    }

    /// The counts since opening, in the order of the events.
    ///
    /// # Errors
    /// [`Error::Gone`] when the kernel has let go of the counters, [`Error::Io`] otherwise.
    pub fn read(&self) -> Result<Vec<u64>> {
        let Some(mut leader) = self.events.first() else {
            return Ok(Vec::new());
        };
        let mut buffer = vec![0; size_of::<u64>() * (1 + self.events.len())];
        let length = leader
            .read(&mut buffer)
            .map_err(|source| self.error(source))?;
        if length == 0 {
            // End of file: the event is in error state, its PMU or CPU is no more.
            return Err(Error::Gone {
                path: self.path.clone(),
            });
        }
        buffer.truncate(length);
        let left = buffer.first_chunk().map(|word| u64::from_ne_bytes(*word));
        if left.is_some_and(|left| usize::try_from(left).is_ok_and(|left| left < self.events.len()))
        {
            // Members were let go of, as when the PMU is unregistered: the leader counts for itself.
            return Err(Error::Gone {
                path: self.path.clone(),
            });
        }
        counts(&buffer, self.events.len()).ok_or_else(|| Error::Malformed {
            path: self.path.clone(),
            line: 1,
            value: format!("{length} bytes"),
            expected: "one count for each event of the group",
        })
    }

    fn error(&self, source: std::io::Error) -> Error {
        let path = self.path.clone();
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => Error::Denied { path, hint: HINT },
            Some(libc::ENODEV | libc::ENXIO | libc::ENOENT) => Error::Gone { path },
            _ => Error::Io { path, source },
        }
    }
}

fn open_event(kind: u32, config: u64, cpu: usize, leader: Option<&File>) -> std::io::Result<File> {
    let invalid = |_| std::io::Error::from(std::io::ErrorKind::InvalidInput);
    let mut attributes = perf_event_attr {
        type_: kind,
        size: u32::try_from(size_of::<perf_event_attr>()).map_err(invalid)?,
        config,
        read_format: PERF_FORMAT_GROUP.into(),
        ..perf_event_attr::default()
    };
    let cpu = libc::c_int::try_from(cpu).map_err(invalid)?;
    let group = leader.map_or(-1, AsRawFd::as_raw_fd);
    // SAFETY: `attributes` is an initialised perf_event_attr whose `size` is its own, and it outlives
    // the call; the kernel keeps no pointer to it. The other arguments are plain numbers.
    let fd = unsafe {
        perf_event_open(
            &raw mut attributes,
            -1,
            cpu,
            group,
            PERF_FLAG_FD_CLOEXEC.into(),
        )
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the call above succeeded, so `fd` is an open descriptor that nothing else owns.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// What a read with PERF_FORMAT_GROUP gives: the number of events, then a count for each.
fn counts(buffer: &[u8], events: usize) -> Option<Vec<u64>> {
    let (words, []) = buffer.as_chunks::<8>() else {
        return None;
    };
    let mut words = words.iter().map(|word| u64::from_ne_bytes(*word));
    let number = usize::try_from(words.next()?).ok()?;
    let counts: Vec<u64> = words.collect();
    (number == events && counts.len() == events).then_some(counts)
}

/// `count` × `scale` joules in whole microjoules, rounded down; `None` when that leaves 64 bits.
///
/// Integers throughout: with RAPL's 2⁻³² J the result is exact, and for any other scale the error is
/// one constant factor within 2⁻⁴³ of 1, so differences of a running count never drift.
fn microjoules(count: u64, scale: f64) -> Option<Microjoules> {
    if !(scale.is_normal() && scale > 0.0) {
        return None;
    }
    // scale = mantissa × 2^exponent (IEEE 754 binary64). 64 bits of count, 44 of mantissa and 20 of
    // the million fill 128, so the mantissa's last 9 of 53 bits go; those of RAPL's scale are 0.
    let bits = scale.to_bits();
    let mantissa = ((bits & ((1 << 52) - 1)) | (1 << 52)) >> 9;
    let exponent = i64::try_from(bits >> 52).ok()? - 1075 + 9;
    let product = u128::from(count) * u128::from(mantissa) * 1_000_000;
    let energy_uj = match u32::try_from(exponent) {
        Ok(left) => {
            let kept = product.checked_shl(left)?;
            (kept >> left == product).then_some(kept)?
        }
        Err(_) => u32::try_from(-exponent)
            .ok()
            .and_then(|right| product.checked_shr(right))
            .unwrap_or(0),
    };
    u64::try_from(energy_uj).ok().map(Microjoules::new)
}

/// One counter of a group, with what it stands for.
#[derive(Debug)]
struct Meter {
    domain: Domain,
    scale: f64,
    counter: Counter,
}

/// Reads all energy events of one PMU in all its scopes.
#[derive(Debug)]
pub struct PerfEnergy {
    groups: Vec<(Scope, Group, Vec<Meter>)>,
}

/// The counters are refreshed about every millisecond (Intel SDM vol. 3B, "RAPL interfaces").
pub(super) const REFRESH: Nanos = Nanos::new(1_000_000);

impl PerfEnergy {
    /// Opens the energy events of `pmu` on every CPU of its `cpumask`; `None` when it has no energy
    /// event or no CPU. `amd` as for [`super::powercap::meters`]: one counter for each package, whatever the
    /// `cpumask` says.
    ///
    /// # Errors
    /// As [`Pmu::energy_events`] and [`Group::open`].
    pub fn open(sys: &SysRoot, pmu: &Pmu, amd: bool) -> Result<Option<Self>> {
        let energies = pmu.energy_events(sys)?;
        if energies.is_empty() {
            return Ok(None);
        }
        let events: Vec<&Event> = energies.iter().map(|(_, event)| *event).collect();
        let mut groups = Vec::new();
        for (cpu, scope) in scopes(sys, pmu, amd)? {
            let meters = energies.iter().filter_map(|(domain, event)| {
                let scale = event.scale?;
                let limits = Limits {
                    range: microjoules(u64::MAX, scale),
                    max_power: domain.max_power(),
                    refresh: REFRESH,
                    frozen_after: domain.frozen_after(),
                };
                Some(Meter {
                    domain: domain.clone(),
                    scale,
                    counter: Counter::new(limits),
                })
            });
            let meters = meters.collect();
            groups.push((scope, Group::open(sys, pmu, &events, cpu)?, meters));
        }
        Ok((!groups.is_empty()).then_some(Self { groups }))
    }
}

impl EnergySource for PerfEnergy {
    fn sample(&mut self, now: Moment) -> Result<Vec<Reading>> {
        let counts: Vec<_> = self
            .groups
            .iter()
            .map(|(_, group, _)| group.read())
            .collect::<Result<_>>()?;
        let mut readings = Vec::new();
        for ((scope, _, meters), counts) in self.groups.iter_mut().zip(counts) {
            for (meter, count) in meters.iter_mut().zip(counts) {
                let energy = microjoules(count, meter.scale);
                readings.push(Reading {
                    domain: meter.domain.clone(),
                    scope: scope.clone(),
                    amount: Amount::Energy(meter.counter.observe(energy, now)),
                    provenance: Provenance::Measured,
                });
            }
        }
        Ok(readings)
    }

    fn longest_safe_period(&self) -> Option<Nanos> {
        let meters = self.groups.iter().flat_map(|(.., meters)| meters);
        meters
            .filter_map(|meter| meter.counter.limits().longest_safe_period())
            .min()
    }
}

/// Each CPU to ask, with the scope it answers for.
fn scopes(sys: &SysRoot, pmu: &Pmu, amd: bool) -> Result<Vec<(usize, Scope)>> {
    let cpus = pmu.cpus.clone().unwrap_or_default();
    if pmu.name == "power_core" {
        let cores = cpus.into_iter().map(|cpu| (cpu, Scope::Core { cpu }));
        return Ok(cores.collect());
    }
    let mut places = Vec::with_capacity(cpus.len());
    for cpu in cpus {
        let package = topology(sys, cpu, "physical_package_id")?.ok_or_else(|| Error::Gone {
            path: sys.path(format!("sys/devices/system/cpu/cpu{cpu}")),
        })?;
        places.push((cpu, package));
    }
    let packages: BTreeSet<u32> = places.iter().map(|(_, package)| *package).collect();
    let one_each = packages.len() == places.len();
    let mut seen = BTreeSet::new();
    let mut scopes = Vec::with_capacity(places.len());
    for (cpu, package) in places {
        let die = match one_each || amd {
            true => None,
            false => topology(sys, cpu, "die_id")?,
        };
        // A second counter of the same place is a mirror of the first.
        if seen.insert((package, die)) {
            scopes.push((cpu, Scope::Package { package, die }));
        }
    }
    Ok(scopes)
}

fn topology(sys: &SysRoot, cpu: usize, file: &str) -> Result<Option<u32>> {
    let path = format!("sys/devices/system/cpu/cpu{cpu}/topology/{file}");
    sys.value(path, "a number, 0 or more")
}

#[cfg(test)]
mod tests;
