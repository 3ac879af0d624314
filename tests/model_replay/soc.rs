//! Measured tables of real machines, and the power of a class of CPUs made from one.
//!
//! A table holds the power of one busy CPU. How much of it the cluster shares, idle powers, wake-up
//! energies and leakage are assumptions, drawn per seed from the ranges written below.

use fastrand::Rng;
use num_traits::ToPrimitive;
use std::path::{Path, PathBuf};

/// The files of measured tables in a folder: `measured-*.toml` where there are such, else `*.toml`.
pub fn tables_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let wrong = |error| format!("{}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        files.push(entry.map_err(wrong)?.path());
    }
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    let measured = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.starts_with("measured-"))
    };
    if files.iter().any(measured) {
        files.retain(measured);
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("{}: no *.toml of a machine", folder.display()));
    }
    Ok(files)
}

/// The project's own tables, smaller than those that JOULE_SHARED may hold.
pub fn own_tables() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/model")
}

/// The project's own tables and those of JOULE_SHARED, where it is set.
pub fn tables() -> Vec<PathBuf> {
    let mut files = tables_in(&own_tables()).unwrap();
    files.extend(
        shared_tables()
            .iter()
            .flat_map(|folder| tables_in(folder).unwrap()),
    );
    files
}

/// The measured tables of JOULE_SHARED, where it is set.
pub fn shared_tables() -> Option<PathBuf> {
    let shared = std::env::var_os("JOULE_SHARED")?;
    Some(Path::new(&shared).join("hardware/soc"))
}

#[derive(Clone)]
pub struct TrueClass {
    pub cpus: usize,
    pub caps: Vec<f64>,
    pub khz: Vec<u64>,
    pub microvolt: Option<Vec<u32>>,
    /// W above deepest idle, W, W, J, J: as in the cost table.
    pub busy: Vec<f64>,
    pub shared: Vec<f64>,
    pub idle: [f64; 2],
    pub wake: [f64; 2],
    pub cluster_wake: f64,
    /// Part of `busy` that is leakage at the mean temperature, W.
    pub leak: Vec<f64>,
}

/// One domain of a measured table, as it stands in the file.
pub struct Table {
    pub cpus: usize,
    pub khz: Vec<f64>,
    pub power_mw: Vec<f64>,
    pub capacity: Vec<f64>,
    pub microvolt: Option<Vec<f64>>,
}

impl Table {
    pub fn read(domain: &toml::Value) -> Result<Self, String> {
        let list = |key: &str| -> Result<Option<Vec<f64>>, String> {
            let Some(value) = domain.get(key) else {
                return Ok(None);
            };
            let number = |v: &toml::Value| v.as_float().or(v.as_integer().and_then(|i| i.to_f64()));
            let values: Option<Vec<f64>> = value
                .as_array()
                .and_then(|a| a.iter().map(number).collect());
            match values {
                Some(v) if !v.is_empty() && v.iter().all(|v| *v > 0.0 && v.is_finite()) => {
                    Ok(Some(v))
                }
                _ => Err(format!("{key} is {value}, expected numbers above 0")),
            }
        };
        let needed = |key: &str| list(key)?.ok_or_else(|| format!("no {key}"));
        // `cores = "cortex-a55 x4"` in the measured tables.
        let label = |text: &str| text.rsplit('x').next().and_then(|n| n.trim().parse().ok());
        let cpus = match (domain.get("cpus"), domain.get("cores")) {
            (Some(cpus), _) => cpus.as_integer().and_then(|n| usize::try_from(n).ok()),
            (None, Some(cores)) => cores.as_str().and_then(label),
            (None, None) => Some(4),
        };
        let table = Self {
            cpus: cpus
                .filter(|n| (1..=64).contains(n))
                .ok_or("cpus or cores tell no number of CPUs, expected 1 to 64")?,
            khz: needed("khz")?,
            power_mw: needed("power_mw")?,
            capacity: needed("capacity")?,
            microvolt: list("microvolt")?,
        };
        let lengths = [
            ("power_mw", table.power_mw.len()),
            ("capacity", table.capacity.len()),
            (
                "microvolt",
                table.microvolt.as_ref().map_or(table.khz.len(), Vec::len),
            ),
        ];
        match lengths.iter().find(|(_, len)| *len != table.khz.len()) {
            Some((key, len)) => Err(format!(
                "{key} has {len} entries, expected {}",
                table.khz.len()
            )),
            None => Ok(table),
        }
    }
}

pub fn true_class(table: &Table, rng: &mut Rng) -> TrueClass {
    let all_caps = &table.capacity;
    let rising = |i: &usize| *i == 0 || all_caps[*i] > all_caps[*i - 1];
    let keep: Vec<usize> = (0..all_caps.len()).filter(rising).collect();
    let pick = |values: &Vec<f64>| -> Vec<f64> { keep.iter().map(|&i| values[i]).collect() };
    let power: Vec<f64> = pick(&table.power_mw).iter().map(|mw| mw * 1e-3).collect();
    let khz = pick(&table.khz);
    let (low, top, fastest) = (power[0], power[power.len() - 1], khz[khz.len() - 1]);
    let part = 0.12 + 0.16 * rng.f64();
    let volts = table.microvolt.as_ref().map(pick);
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
    // Supply current that does no work: 8 to 18 % of the middle OPP's power, with V.
    let leakage = middle * (0.08 + 0.1 * rng.f64());
    let relative_volt = |i: usize| match &volts {
        Some(volts) => volts[i] / volts[volts.len() / 2],
        None => 0.8 + 0.4 * khz[i] / fastest,
    };
    let leak = |i: usize| (leakage * relative_volt(i)).min(0.5 * power[i]);
    let deepest = 0.004 * low * (0.5 + rng.f64());
    TrueClass {
        cpus: table.cpus,
        leak: (0..power.len()).map(leak).collect(),
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

pub fn ratio(a: u64, b: u64) -> f64 {
    a.to_f64().unwrap() / b.to_f64().unwrap()
}
