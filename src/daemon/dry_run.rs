//! Looks on without scheduling: samples, fits and prints what would be decided, from what the kernel tells
//! anybody (`--dry-run`). Needs an energy counter, but neither sched_ext nor the scheduler's place.

use super::control::{Control, Decision};
use super::machine::shape_of;
use crate::config::Config;
use crate::energy::Clock;
use crate::energy::activity::KernelActivity;
use crate::energy::record::{Frame, Machine, Reader, Sample};
use crate::energy::replay::Replay;
use crate::model::cost::{ClassLoad, marginal_cost};
use crate::observation::CostTable;
use crate::stats::Stats;
use crate::sysroot::{SysRoot, keep_many_open};
use crate::topology::Topology;
use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, select, tick};
use log::warn;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

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
    keep_many_open();
    while session(config, sys, stop)? {}
    Ok(())
}

/// Until told to stop (`false`) or the CPUs change (`true`).
fn session(config: &Config, sys: &SysRoot, stop: &Receiver<()>) -> Result<bool> {
    let topology = Topology::read(sys).context("reading the topology")?;
    let online = sys.online_cpus()?;
    let shape = shape_of(&topology).without_siblings();
    let mut control = Control::new(sys, &topology, shape, Some(&config.state))?;
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
        if sys.online_cpus()? != online {
            return Ok(true);
        }
        let now = clock.moment();
        let decision = control.turn(activity.sample(now.at)?, now);
        show(config, &control, &decision, &prior)?;
    }
}

/// Does with a recording what was or would have been done on its machine: no clock, no meters of this one.
///
/// # Errors
/// When the file is no recording or is damaged, once what is whole of it has been replayed; when standard output is
/// gone.
pub fn replay(config: &Config, path: &Path, stop: &Receiver<()>) -> Result<()> {
    let mut reader = Reader::open(path)?;
    let mut session: Option<(Machine, Vec<Sample>)> = None;
    loop {
        // What is whole is replayed before the damage behind it is told.
        let frame = reader.next();
        match frame {
            Ok(Some(Frame::Sample(sample))) => match &mut session {
                Some((_, samples)) => samples.push(sample),
                None => bail!("{}: a sample comes before its machine", path.display()),
            },
            Ok(Some(Frame::Machine(machine))) => {
                if let Some((machine, samples)) = session.replace((machine, Vec::new())) {
                    replay_session(config, path, &machine, &samples, stop)?;
                }
            }
            Ok(None) | Err(_) => {
                if let Some((machine, samples)) = session.take() {
                    replay_session(config, path, &machine, &samples, stop)?;
                }
                if let Some(bytes) = reader.rest() {
                    warn!("{}: the last {bytes} bytes are cut off", path.display());
                }
                return frame.map(drop).map_err(Into::into);
            }
        }
    }
}

fn replay_session(
    config: &Config,
    path: &Path,
    machine: &Machine,
    samples: &[Sample],
    stop: &Receiver<()>,
) -> Result<()> {
    let meters = Replay::new(path, samples.iter().cloned());
    let mut control = Control::replayed(machine, meters)?;
    let prior = control.costs();
    for sample in samples {
        if !stop.is_empty() {
            return Ok(());
        }
        let decision = control.turn(sample.activity.clone(), sample.moment());
        show(config, &control, &decision, &prior)?;
    }
    Ok(())
}

/// Prints a line of what is known and would be decided.
fn show(config: &Config, control: &Control, decision: &Decision, prior: &CostTable) -> Result<()> {
    let mut stats = Stats::default();
    control.describe(&mut stats);
    let mut out = std::io::stdout().lock();
    if config.json {
        return Ok(writeln!(out, "{}", serde_json::to_string(&stats)?)?);
    }
    let choice = match control.loads() {
        [] => "nothing to learn from yet".to_owned(),
        loads => choice(&decision.table, loads, prior),
    };
    Ok(writeln!(out, "{} | {choice}", stats.power())?)
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
