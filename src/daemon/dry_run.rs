//! Looks on without scheduling: samples, fits and prints what would be decided, from what the kernel tells
//! anybody (`--dry-run`). Needs an energy counter, but neither sched_ext nor the scheduler's place.

use super::clock::Clock;
use super::control::Control;
use crate::config::Config;
use crate::energy::activity::KernelActivity;
use crate::model::cost::{ClassLoad, marginal_cost};
use crate::observation::CostTable;
use crate::stats::Stats;
use crate::sysroot::SysRoot;
use crate::topology::Topology;
use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, select, tick};
use std::io::Write;
use std::time::Duration;

const ONLINE: &str = "sys/devices/system/cpu/online";
/// How often a line is printed where `--stats` does not say.
const INTERVAL: Duration = Duration::from_secs(1);
/// Utilisation of the task whose placement is shown: a tenth of the biggest CPU.
const TASK_CAP: f64 = 102.4;

/// Prints until `stop` receives; starts afresh when CPUs go on- or offline.
///
/// # Errors
/// When there is no energy counter, when what the kernel tells cannot be read or understood, or when standard
/// output is gone.
pub fn run(config: &Config, sys: &SysRoot, stop: &Receiver<()>) -> Result<()> {
    while session(config, sys, stop)? {}
    Ok(())
}

/// Until told to stop (`false`) or the CPUs change (`true`).
fn session(config: &Config, sys: &SysRoot, stop: &Receiver<()>) -> Result<bool> {
    let topology = Topology::read(sys).context("reading the topology")?;
    let online = sys.cpu_list(ONLINE)?;
    let mut control = Control::new(sys, &topology, Some(&config.state))?;
    if !control.has_meter() {
        bail!("no energy counter to learn from; `scx_joule check` says what was tried");
    }
    let prior = control.costs();
    let mut activity = KernelActivity::new(sys, &topology, &control.frequencies());
    let mut clock = Clock::new();
    let ticks = tick(config.stats.unwrap_or(INTERVAL));
    loop {
        select! {
            recv(stop) -> _ => return Ok(false),
            recv(ticks) -> _ => {}
        }
        if sys.cpu_list(ONLINE)? != online {
            return Ok(true);
        }
        let now = clock.moment();
        let decision = control.turn(activity.sample(now.at)?, now);
        let mut stats = Stats::default();
        control.describe(&mut stats);
        let mut out = std::io::stdout().lock();
        if config.json {
            writeln!(out, "{}", serde_json::to_string(&stats)?)?;
            continue;
        }
        let choice = match control.loads() {
            [] => "nothing to learn from yet".to_owned(),
            loads => choice(&decision.table, loads, &prior),
        };
        writeln!(out, "{} | {choice}", stats.power())?;
    }
}

/// Where one more task would go by what has been learnt, and where by the prior.
fn choice(learnt: &CostTable, loads: &[ClassLoad], prior: &CostTable) -> String {
    let prices = |table: &CostTable| -> Vec<(usize, f64)> {
        let classes = 0..table.classes.len();
        let price = |class| Some((class, marginal_cost(table, loads, class, TASK_CAP)?));
        let mut prices: Vec<_> = classes.filter_map(price).collect();
        prices.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        prices
    };
    let learnt = prices(learnt);
    let shown: Vec<String> = (learnt.iter())
        .map(|(class, nj)| format!("class {class} ({:.3} mJ)", nj / 1e6))
        .collect();
    let first = |prices: &[(usize, f64)]| {
        let class = prices.first().map(|(class, _)| class.to_string());
        class.unwrap_or_else(|| "none".to_owned())
    };
    format!(
        "a task of 10 % would go to the first of {}; by the prior to class {}",
        shown.join(", "),
        first(&prices(prior))
    )
}
