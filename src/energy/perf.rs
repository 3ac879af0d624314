//! perf PMUs that count energy (arch/x86/events/rapl.c: `power`, and `power_core` for AMD's cores),
//! described by sysfs and read through perf_event_open(2).

use super::source::Domain;
use crate::error::{Error, Result};
use crate::sysroot::SysRoot;
use serde::{Deserialize, Serialize};

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
