//! What every meter has in common: the domain and the scope it covers, and the reading it gives.

use super::clock::Moment;
use super::counter::Outcome;
use crate::error::{Error, Result};
use crate::units::{Microjoules, Microwatts, Nanos};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The part of the machine a meter covers. [`Domain::Platform`] contains [`Domain::Package`], which
/// contains [`Domain::Cores`] and [`Domain::Gpu`]; [`Domain::Dram`] stands apart (Intel SDM vol. 3B,
/// "RAPL interfaces"). Readings of different domains are therefore never added up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Domain {
    /// The whole machine or board.
    Platform,
    /// A processor package or system on chip.
    Package,
    /// The CPU cores only.
    Cores,
    /// The integrated graphics (RAPL calls it uncore).
    Gpu,
    /// The memory.
    Dram,
    /// A rail known only by its label.
    Other(String),
}

impl Domain {
    /// Guesses the domain from the label that firmware or a board file gave a rail. A rail that feeds
    /// more than one consumer, or whose label says nothing, stays [`Domain::Other`]. So does a rail
    /// called SoC: on most boards it feeds what is left of the chip without its CPUs.
    pub fn from_label(label: &str) -> Self {
        const WORDS: [(&[&str], Option<Domain>); 6] = [
            (
                &[
                    "cpu", "cpus", "core", "cores", "ecore", "cluster", "big", "little",
                ],
                Some(Domain::Cores),
            ),
            (
                &["package", "pkg", "socket", "esocket"],
                Some(Domain::Package),
            ),
            (&["total", "system", "in"], Some(Domain::Platform)),
            (&["gpu"], Some(Domain::Gpu)),
            (&["dram", "ddr", "mem", "memory"], Some(Domain::Dram)),
            (&["soc", "cv", "npu", "fan", "disp", "display"], None),
        ];
        let lower = label.to_lowercase();
        let is_named = |names: &[&str]| {
            let mut words = lower.split(|letter: char| !letter.is_alphabetic());
            words.any(|word| names.contains(&word))
        };
        let mut named = WORDS.iter().filter(|(names, _)| is_named(names));
        match (named.next(), named.next()) {
            (Some((_, Some(domain))), None) => domain.clone(),
            _ => Self::Other(label.to_owned()),
        }
    }

    /// The most power that this domain of one scope can draw: above it a reading is a fault of the
    /// counter, not a load. Twice the largest sockets sold (about 1 kW peak), a full server for the
    /// platform.
    pub const fn max_power(&self) -> Microwatts {
        match self {
            Self::Platform => Microwatts::new(10_000_000_000),
            _ => Microwatts::new(2_000_000_000),
        }
    }

    /// How long the counter may stand still before it must be broken; `None` where the hardware can
    /// be switched off, so that no movement is a true zero.
    pub const fn frozen_after(&self) -> Option<Nanos> {
        match self {
            Self::Gpu | Self::Other(_) => None,
            _ => Some(Nanos::new(10_000_000_000)),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Platform => "platform",
            Self::Package => "package",
            Self::Cores => "cores",
            Self::Gpu => "gpu",
            Self::Dram => "dram",
            Self::Other(label) => label,
        })
    }
}

/// Which instance of a domain a meter covers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// All of it.
    Machine,
    /// One package, or one die of it where every die has its own counter.
    Package {
        /// `physical_package_id`.
        package: u32,
        /// `die_id` within the package.
        die: Option<u32>,
    },
    /// The core that this CPU is a thread of.
    Core {
        /// The CPU that is asked.
        cpu: usize,
    },
    /// A device by its name, such as a battery or a hwmon channel.
    Device(String),
}

/// How far a figure can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provenance {
    /// A meter's own figure.
    Measured,
    /// Worked out from a model in real units.
    Modelled,
    /// On an arbitrary scale: only the order means something.
    Abstract,
}

/// Whether something can be read, as a fact about the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read just now.
    Readable,
    /// It is there, but this process may not read it.
    Denied {
        /// The operating system's or our own reason.
        why: String,
    },
    /// It is not there.
    Absent,
    /// It is there and reads as nonsense or fails.
    Broken {
        /// What was found.
        why: String,
    },
}

impl Access {
    /// The fact behind the result of a read.
    pub fn of<T>(read: &Result<Option<T>>) -> Self {
        match read {
            Ok(Some(_)) => Self::Readable,
            Ok(None) => Self::Absent,
            Err(error @ Error::Denied { .. }) => Self::Denied {
                why: error.to_string(),
            },
            Err(error) => Self::Broken {
                why: error.to_string(),
            },
        }
    }
}

/// What a meter said at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Amount {
    /// Energy since the previous sample, from a counter.
    Energy(Outcome),
    /// Mean power over the meter's own window; `None` while the meter cannot tell.
    Power(Option<Microwatts>),
}

/// One meter's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// What is covered.
    pub domain: Domain,
    /// Which instance of it.
    pub scope: Scope,
    /// The figure.
    pub amount: Amount,
    /// How far to trust it.
    pub provenance: Provenance,
}

impl Reading {
    /// The energy since the previous sample, when the counter gave a sound difference.
    pub fn energy(&self) -> Option<Microjoules> {
        match &self.amount {
            Amount::Energy(Outcome::Moved { energy, .. }) => Some(*energy),
            _ => None,
        }
    }
}

/// The energy of one domain over all its scopes; `None` unless every scope gave a sound difference,
/// because the sum of some packages is not the energy of the machine.
pub fn total(readings: &[Reading], domain: &Domain) -> Option<Microjoules> {
    let mut energies = readings
        .iter()
        .filter(|reading| reading.domain == *domain)
        .map(Reading::energy);
    let first = energies.next()??;
    energies.try_fold(first, |sum, energy| sum.checked_add(energy?))
}

/// A meter that can be asked again and again.
pub trait EnergySource {
    /// One reading per domain and scope. A counter that has gone or cannot be trusted is a reading
    /// that says so; it does not hide the others.
    ///
    /// # Errors
    /// Denied, malformed or failed reads. After an error nothing has changed: the next difference
    /// covers the longer interval.
    fn sample(&mut self, now: Moment) -> Result<Vec<Reading>>;

    /// The longest time between two samples at which no counter can wrap unnoticed; `None` when no
    /// counter has a known range.
    fn longest_safe_period(&self) -> Option<Nanos>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::counter::Cause;

    fn package(package: u32, outcome: Outcome) -> Reading {
        Reading {
            domain: Domain::Package,
            scope: Scope::Package { package, die: None },
            amount: Amount::Energy(outcome),
            provenance: Provenance::Measured,
        }
    }

    fn moved(energy: u64) -> Outcome {
        Outcome::Moved {
            energy: Microjoules::new(energy),
            elapsed: Nanos::new(1),
            wrapped: false,
        }
    }

    #[test]
    fn a_total_needs_every_scope() {
        let both = [package(0, moved(3)), package(1, moved(4))];
        assert_eq!(total(&both, &Domain::Package), Some(Microjoules::new(7)));
        assert_eq!(total(&both, &Domain::Cores), None);
        let one = [
            package(0, moved(3)),
            package(1, Outcome::Dropped(Cause::Vanished)),
        ];
        assert_eq!(total(&one, &Domain::Package), None);
        let overflow = [package(0, moved(u64::MAX)), package(1, moved(1))];
        assert_eq!(total(&overflow, &Domain::Package), None);
    }

    #[test]
    fn labels_of_known_boards() {
        for (label, domain) in [
            ("Esocket0", Domain::Package),
            ("Ecore007", Domain::Cores),
            ("VDD_IN", Domain::Platform),
            ("Package", Domain::Package),
            ("Total System Power", Domain::Platform),
            ("VDD_SOC", Domain::Other("VDD_SOC".to_owned())),
            ("VDD_CPU_CV", Domain::Other("VDD_CPU_CV".to_owned())),
            // One rail for both: neither the cores' energy nor the graphics'.
            ("VDD_CPU_GPU_CV", Domain::Other("VDD_CPU_GPU_CV".to_owned())),
            ("score", Domain::Other("score".to_owned())),
            ("rail 7", Domain::Other("rail 7".to_owned())),
            ("", Domain::Other(String::new())),
        ] {
            assert_eq!(Domain::from_label(label), domain, "{label}");
        }
    }
}
