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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::fixture::Machine;
    use proptest::prelude::*;

    const CPU0: &str = "sys/kernel/debug/energy_model/cpu0";

    fn one_domain(flags: &str) -> Machine {
        let machine = Machine::bare();
        machine.perf_domain(
            "cpu0",
            "0-3,8",
            flags,
            // Directory names sort 1000000 before 500000.
            &[[500_000, 20_000, 400], [1_000_000, 60_000, 600]],
        );
        machine
    }

    #[test]
    fn a_domain_has_its_cpus_and_levels_by_ascending_frequency() {
        let machine = one_domain("0x1");
        machine
            .file(&format!("{CPU0}/ps:500000/performance"), "200\n")
            .file(&format!("{CPU0}/ps:500000/inefficient"), "1\n");
        let domains = domains(&machine.sys()).unwrap();
        assert_eq!(domains.len(), 1);
        assert_eq!(domains[0].cpus, [0, 1, 2, 3, 8]);
        assert_eq!(
            domains[0].levels,
            [
                Level {
                    frequency: KHz::new(500_000),
                    power: Power::Real(Microwatts::new(20_000)),
                    cost: 400,
                    performance: Some(200),
                    inefficient: Some(true),
                },
                Level {
                    frequency: KHz::new(1_000_000),
                    power: Power::Real(Microwatts::new(60_000)),
                    cost: 600,
                    performance: None,
                    inefficient: None,
                },
            ]
        );
    }

    #[test]
    fn only_the_microwatts_flag_alone_makes_watts() {
        for (flags, provenance) in [
            ("0x1", Provenance::Modelled),
            ("0x3", Provenance::Modelled),
            ("0x0", Provenance::Abstract),
            ("0", Provenance::Abstract),
            ("0x2", Provenance::Abstract),
            ("0x4", Provenance::Abstract),
            ("0x5", Provenance::Abstract),
        ] {
            let domain = domains(&one_domain(flags).sys()).unwrap().remove(0);
            assert_eq!(domain.provenance, provenance, "{flags}");
            let power = match provenance {
                Provenance::Abstract => Power::Abstract(20_000),
                _ => Power::Real(Microwatts::new(20_000)),
            };
            assert_eq!(domain.levels[0].power, power, "{flags}");
        }
        let machine = one_domain("0x1");
        machine.remove(&format!("{CPU0}/flags"));
        let domain = domains(&machine.sys()).unwrap().remove(0);
        assert_eq!(domain.provenance, Provenance::Abstract);
    }

    #[test]
    fn devices_and_empty_domains_are_passed_over() {
        let machine = one_domain("0x1");
        machine
            .perf_domain("gpu", "0", "0x1", &[[1, 1, 1]])
            .remove("sys/kernel/debug/energy_model/gpu/cpus")
            .perf_domain("cpu4", "4", "0x1", &[])
            .perf_domain("cpu5", "", "0x1", &[[1, 1, 1]]);
        let domains = domains(&machine.sys()).unwrap();
        let names: Vec<_> = domains.iter().map(|domain| &domain.name).collect();
        assert_eq!(names, ["cpu0"]);
    }

    #[test]
    fn without_debugfs_there_is_no_model() {
        assert_eq!(domains(&Machine::bare().sys()).unwrap(), []);
    }

    #[test]
    fn half_a_model_is_refused_and_the_file_named() {
        for (file, text) in [
            ("cpus", "0-x\n"),
            ("flags", "0xzz\n"),
            ("ps:500000/power", "many\n"),
            ("ps:500000/power", ""),
            ("ps:500000/cost", "-1\n"),
            ("ps:500000/performance", "x\n"),
        ] {
            let machine = one_domain("0x1");
            machine.file(&format!("{CPU0}/{file}"), text);
            let error = domains(&machine.sys()).unwrap_err().to_string();
            assert!(
                error.contains(&format!("cpu0/{file}:1:")),
                "{file}: {error}"
            );
        }
        let machine = one_domain("0x1");
        machine.remove(&format!("{CPU0}/ps:500000/frequency"));
        assert!(domains(&machine.sys()).is_err());
        machine.deny(&format!("{CPU0}/ps:500000/frequency"));
        let denied = domains(&machine.sys());
        assert!(matches!(denied, Err(Error::Denied { .. })), "{denied:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_content_panics(
            cpus in "[0-9,-]{0,8}", flags in "(0x)?[0-9a-g]{0,20}", power in "[0-9x]{0,22}",
        ) {
            let machine = one_domain(&flags);
            machine
                .file(&format!("{CPU0}/cpus"), &cpus)
                .file(&format!("{CPU0}/ps:500000/power"), &power);
            let _ = domains(&machine.sys());
        }
    }
}
