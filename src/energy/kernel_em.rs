//! The kernel's Energy Model as debugfs shows it (kernel/power/energy_model.c): for each performance
//! domain its CPUs and, for each frequency, a power that is either real or on an abstract scale.
//!
//! Intel hybrid and CPPC machines register artificial power, of which only the order of `cost` means
//! something: [`Power`] keeps the two scales apart, so an abstract figure cannot be shown as watts.

use super::source::Provenance;
use crate::error::{Error, Result};
use crate::sysroot::SysRoot;
use crate::units::{KHz, Microwatts};
use serde::{Deserialize, Serialize};

const DIRECTORY: &str = "sys/kernel/debug/energy_model";

/// `EM_PERF_DOMAIN_MICROWATTS` of include/linux/energy_model.h.
const FLAG_MICROWATTS: u64 = 1 << 0;
/// `EM_PERF_DOMAIN_ARTIFICIAL`: power made up by the driver.
const FLAG_ARTIFICIAL: u64 = 1 << 2;

/// Power at one level, on the scale the driver registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// One CPU fully busy at this frequency.
    Real(Microwatts),
    /// An arbitrary scale.
    Abstract(u64),
}

/// One frequency of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// The frequency.
    pub frequency: KHz,
    /// Power of one CPU.
    pub power: Power,
    /// The kernel's cost of one unit of utilisation, on a scale of its own.
    pub cost: u64,
    /// Capacity of a CPU at this frequency, 0..=1024; not shown before Linux 6.9.
    pub performance: Option<u64>,
    /// Whether a higher frequency costs less; not shown before Linux 5.16.
    pub inefficient: Option<bool>,
}

/// One performance domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerfDomain {
    /// Directory name, such as `cpu0`.
    pub name: String,
    /// Its CPUs, ascending.
    pub cpus: Vec<usize>,
    /// Its levels by ascending frequency, at least one.
    pub levels: Vec<Level>,
    /// [`Provenance::Modelled`] in real units, else [`Provenance::Abstract`].
    pub provenance: Provenance,
}

/// The Energy Model of all CPU domains, by name; empty when the kernel has none or debugfs is not
/// mounted. Domains of other devices (no `cpus` file) are passed over.
///
/// Linux ≥ 6.19 also offers it over generic netlink; debugfs needs root but shows the same figures.
///
/// # Errors
/// Denied, failed or malformed reads; a half-understood model is worse than none.
pub fn domains(sys: &SysRoot) -> Result<Vec<PerfDomain>> {
    let mut domains = Vec::new();
    for name in sys.entries(DIRECTORY)? {
        let directory = format!("{DIRECTORY}/{name}");
        let Some(cpus) = sys.cpu_list(format!("{directory}/cpus"))? else {
            continue;
        };
        if cpus.is_empty() {
            continue;
        }
        let flags = flags(sys, &format!("{directory}/flags"))?;
        let real = flags & (FLAG_MICROWATTS | FLAG_ARTIFICIAL) == FLAG_MICROWATTS;
        let mut levels = Vec::new();
        for entry in sys.entries(&directory)? {
            if entry.starts_with("ps:") {
                levels.push(level(sys, &format!("{directory}/{entry}"), real)?);
            }
        }
        levels.sort_by_key(|level| level.frequency);
        if levels.is_empty() {
            continue;
        }
        domains.push(PerfDomain {
            name,
            cpus,
            levels,
            provenance: match real {
                true => Provenance::Modelled,
                false => Provenance::Abstract,
            },
        });
    }
    Ok(domains)
}

fn level(sys: &SysRoot, directory: &str, real: bool) -> Result<Level> {
    let optional = |file: &str| sys.value::<u64>(format!("{directory}/{file}"), "a whole number");
    let required = |file: &str| {
        optional(file)?.ok_or_else(|| Error::Malformed {
            path: sys.path(format!("{directory}/{file}")),
            line: 1,
            value: String::new(),
            expected: "a whole number (the file is missing or empty)",
        })
    };
    let power = required("power")?;
    Ok(Level {
        frequency: KHz::new(required("frequency")?),
        power: match real {
            true => Power::Real(Microwatts::new(power)),
            false => Power::Abstract(power),
        },
        cost: required("cost")?,
        performance: optional("performance")?,
        inefficient: optional("inefficient")?.map(|flag| flag != 0),
    })
}

/// `0x3`. Without the file nothing says that the scale is real, so it counts as abstract.
fn flags(sys: &SysRoot, path: &str) -> Result<u64> {
    let Some(text) = sys.text(path)? else {
        return Ok(0);
    };
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    u64::from_str_radix(digits, 16).map_err(|_| Error::Malformed {
        path: sys.path(path),
        line: 1,
        value: text.chars().take(40).collect(),
        expected: "flags in hexadecimal such as 0x1",
    })
}
