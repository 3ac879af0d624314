//! `scx_joule record`: writes what the meters and the kernel's counts of activity say, as `--dry-run` would see it.

use super::machine::shape_of;
use crate::energy::Clock;
use crate::energy::activity::KernelActivity;
use crate::energy::record::{Frame, Machine, Sample, Writer};
use crate::energy::select::Purpose;
use crate::energy::{self, EnergySource, kernel_em};
use crate::sysroot::{SysRoot, keep_many_open};
use crate::topology::Topology;
use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, select, tick};
use log::{info, warn};
use std::path::Path;
use std::time::Duration;

const RELEASE: &str = "proc/sys/kernel/osrelease";
/// Time between two samples where none is given.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// The meters' own limits never ask for more.
const SHORTEST: Duration = Duration::from_millis(50);

/// Records into `path` until `stop` receives or as many samples as wanted are written; begins a new session when
/// CPUs go on- or offline.
///
/// # Errors
/// When the file cannot be written or gone on with, or what the kernel tells cannot be read or understood.
pub fn run(
    sys: &SysRoot,
    path: &Path,
    interval: Duration,
    mut samples: Option<u64>,
    stop: &Receiver<()>,
) -> Result<()> {
    keep_many_open();
    let mut writer = Writer::open(path)?;
    while session(sys, &mut writer, interval, &mut samples, stop)? {}
    Ok(writer.finish()?)
}

/// Until told to stop (`false`) or the CPUs change (`true`).
fn session(
    sys: &SysRoot,
    writer: &mut Writer,
    interval: Duration,
    left: &mut Option<u64>,
    stop: &Receiver<()>,
) -> Result<bool> {
    let topology = Topology::read(sys).context("reading the topology")?;
    let online = sys.online_cpus()?;
    let opps = shape_of(&topology).frequencies();
    let mut machine = Machine::new(&topology, opps.clone());
    machine.release = sys.text(RELEASE)?;
    machine.energy_model = kernel_em::domains(sys).unwrap_or_default();
    let mut meters = open_meters(sys, &mut machine);
    let safe = meters
        .iter()
        .filter_map(|meter| meter.longest_safe_period());
    let pause = safe.min().map(|safe| Duration::from_nanos(safe.get()) / 2);
    let pause = pause.map_or(interval, |safe| interval.min(safe).max(SHORTEST));
    if pause < interval {
        info!("sampling every {pause:?}: a meter would wrap unnoticed otherwise");
    }
    writer.append(&Frame::Machine(machine))?;
    let mut activity = KernelActivity::new(sys, &topology, &opps);
    let mut clock = Clock::new();
    let ticks = tick(pause);
    loop {
        if *left == Some(0) {
            return Ok(false);
        }
        let now = clock.moment();
        let mut sample = Sample {
            at: now.at,
            resumed: now.resumed,
            activity: activity.sample(now.at)?,
            ..Sample::default()
        };
        for meter in &mut meters {
            match meter.sample(now) {
                Ok(readings) => sample.readings.extend(readings),
                Err(error) => warn!("{error}"),
            }
        }
        writer.append(&Frame::Sample(sample))?;
        *left = left.map(|left| left - 1);
        select! {
            recv(stop) -> _ => return Ok(false),
            recv(ticks) -> _ => {}
        }
        if sys.online_cpus()? != online {
            return Ok(true);
        }
    }
}

/// The best meters there are, named in `machine`; none is no error.
fn open_meters(sys: &SysRoot, machine: &mut Machine) -> Vec<Box<dyn EnergySource>> {
    let facts = energy::probe(sys);
    let chosen = energy::select(&facts).chosen;
    let wanted = chosen.map(|chosen| {
        [
            (Purpose::Package, chosen.package),
            (Purpose::Cores, chosen.cores),
        ]
    });
    let mut meters = Vec::new();
    for (purpose, source) in wanted.into_iter().flatten() {
        let Some(source) = source.filter(|source| !machine.sources.contains(source)) else {
            continue;
        };
        match energy::open(sys, &facts, source, purpose) {
            Ok(opened) => meters.extend(opened),
            Err(error) => warn!("{source} cannot be used: {error}"),
        }
        machine.sources.push(source);
    }
    if meters.is_empty() {
        warn!(
            "no energy counter: only activity is recorded; `scx_joule check` says what was tried"
        );
    }
    meters
}
