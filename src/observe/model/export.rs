//! Saved models as the kernel's Energy Model shows itself: one power per frequency, for one busy CPU.
//!
//! The kernel has no power that CPUs share. Given here is the power of the first busy CPU of a domain with what
//! the domain shares, above idle: on lightly loaded machines, where placement matters most, CPUs of a domain are
//! seldom busy at the same time.

use super::text::{Point, points};
use crate::model::file::Saved;
use anyhow::{Context, Result};
use num_traits::ToPrimitive;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// `EM_PERF_DOMAIN_MICROWATTS` (include/linux/energy_model.h).
const MICROWATTS: u32 = 1;

/// A performance state.
struct State {
    khz: u64,
    performance: u64,
    power_uw: u64,
    /// 10 × power / performance (kernel/power/energy_model.c, `em_compute_costs`).
    cost: u64,
}

impl State {
    fn new(point: &Point) -> Option<Self> {
        let power_uw = point.fitted.uw.round().to_u64()?;
        let performance = u64::from(point.opp.cap);
        Some(Self {
            khz: point.opp.khz.get(),
            performance,
            power_uw,
            cost: power_uw.checked_mul(10)?.checked_div(performance)?,
        })
    }
}

/// Per class: its CPUs, and its states by rising frequency.
fn domains(saved: &Saved) -> Result<Vec<(&str, Vec<State>)>> {
    let model = saved.model()?;
    let cpus = saved.machine.cpus.iter().enumerate();
    cpus.map(|(class, cpus)| {
        let states = points(saved, &model, class);
        let states: Option<Vec<State>> = states.iter().map(State::new).collect();
        Ok((
            cpus.as_str(),
            states.context("a power that cannot be written")?,
        ))
    })
    .collect()
}

/// One line per state.
pub fn csv(saved: &Saved) -> Result<String> {
    let mut text = "domain,cpus,frequency_khz,performance,power_uw,cost\n".to_owned();
    for (domain, (cpus, states)) in domains(saved)?.iter().enumerate() {
        for state in states {
            writeln!(
                text,
                "{domain},\"{cpus}\",{},{},{},{}",
                state.khz, state.performance, state.power_uw, state.cost
            )?;
        }
    }
    Ok(text)
}

/// `cpuN/{cpus,flags}` and `cpuN/ps:KHZ/{frequency,performance,power,cost,inefficient}`, as in debugfs.
pub fn tree(saved: &Saved, directory: &Path) -> Result<()> {
    for (cpus, states) in domains(saved)? {
        let first = cpus.split([',', '-']).next().unwrap_or_default();
        let domain = directory.join(format!("cpu{first}"));
        put(&domain, "cpus", cpus)?;
        put(&domain, "flags", &format!("{MICROWATTS:#x}"))?;
        for (index, state) in states.iter().enumerate() {
            // A state is inefficient when a faster one costs no more.
            let faster = states.iter().skip(index + 1);
            let inefficient = faster.map(|it| it.cost).any(|cost| cost <= state.cost);
            let place = domain.join(format!("ps:{}", state.khz));
            for (name, value) in [
                ("frequency", state.khz),
                ("performance", state.performance),
                ("power", state.power_uw),
                ("cost", state.cost),
                ("inefficient", u64::from(inefficient)),
            ] {
                put(&place, name, &value.to_string())?;
            }
        }
    }
    Ok(())
}

fn put(directory: &Path, name: &str, value: &str) -> Result<()> {
    let path = directory.join(name);
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&path, format!("{value}\n")))
        .with_context(|| path.display().to_string())
}
