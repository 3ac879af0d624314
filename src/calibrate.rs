//! `scx_joule calibrate`: measures this machine's power under pinned loads, over classes, numbers of busy CPUs and
//! frequencies, and saves what it saw as the model that the scheduler starts from.
//!
//! Works under any scheduler: what the CPUs do is the kernel's account ([`KernelActivity`]). Frequency limits are
//! set through [`Knobs`] and loads are children that die with this process, so that the machine is as before
//! however this ends.

pub mod load;
mod plan;
mod progress;

use crate::cli::model::CalibrateArgs;
use crate::config;
use crate::daemon::control::Control;
use crate::daemon::machine::{identity_of, prior_of, shape_of};
use crate::energy::Clock;
use crate::energy::activity::KernelActivity;
use crate::knobs::Knobs;
use crate::model::evidence::Evidence;
use crate::model::file::{NINETY_PCT, Saved};
use crate::observation::Observation;
use crate::store;
use crate::sysroot::SysRoot;
use crate::topology::Topology;
use crate::units::{KHz, Nanos};
use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use load::Loads;
use log::debug;
use num_traits::ToPrimitive;
use plan::{Load, Step, plan};
use progress::Progress;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::io::Write;
use std::time::Duration;

/// A visit shorter than this tells more of the meter's rhythm than of the machine.
const SHORTEST_VISIT: Duration = Duration::from_millis(100);
/// Part of a visit that passes before it counts: clocks settle, idle CPUs go deep.
const SETTLING: f64 = 0.2;
/// Time that a load gets to start.
const STARTING: Duration = Duration::from_millis(200);
/// A meter that has not moved yet is asked again after this part of the visit, this often.
const AGAIN: (f64, usize) = (0.25, 3);
/// Part of the visits that must give a sound reading.
const ENOUGH: f64 = 0.6;
/// An idle machine is busier than this: something else is at work.
const DISTURBED: f64 = 0.05;

/// How a calibration ended, apart from errors.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// The model is saved.
    Saved,
    /// Stopped by the user: nothing is saved.
    Stopped,
    /// This machine cannot be calibrated, for this reason.
    Unable(String),
}

/// Calibrates until done or until `stop` receives. The machine is as before when this returns.
///
/// # Errors
/// What cannot be read, set, started or saved; a load that ends by itself; a meter that gives nothing sound.
pub fn run(args: &CalibrateArgs, sys: &SysRoot, stop: &Receiver<()>) -> Result<Ending> {
    let state = config::state_directory();
    let topology = Topology::read(sys).context("reading the topology")?;
    let mut eye = Eye::open(sys, &topology)?;
    if !eye.control.has_meter() {
        let nothing = "no energy meter to calibrate with; `scx_joule check` says what was tried";
        return Ok(Ending::Unable(nothing.to_owned()));
    }
    // The knobs outlive the loads: nothing runs at frequencies that were not meant for it.
    let mut clocks = Clocks::open(sys, &topology, Knobs::open(sys, &state)?)?;
    let shape = eye.control.shape().clone();
    let steps = plan(&topology, &shape, &clocks.ceilings);
    let total = args
        .seconds
        .map_or(config::CALIBRATION, Duration::from_secs);
    let visit = total.div_f64(steps.len().to_f64().unwrap_or(f64::INFINITY));
    if visit < SHORTEST_VISIT {
        let least = (SHORTEST_VISIT * u32::try_from(steps.len())?).as_secs() + 1;
        let seconds = total.as_secs();
        bail!(
            "--seconds {seconds}: this machine's {} steps need at least {least}",
            steps.len()
        );
    }
    stay_aside(&topology);
    let mut progress = Progress::new(&steps, visit);
    let mut loads = Loads::new(args.load.clone());
    let mut sound = 0;
    let mut observations = Vec::new();
    for step in &steps {
        progress.show(step);
        clocks.set(step)?;
        let cpus = step.loads.iter().flat_map(|load| &load.cpus);
        let started = loads.only(&cpus.copied().collect::<Vec<_>>())?;
        let settling = visit.mul_f64(SETTLING);
        if wait(
            stop,
            if started {
                settling + STARTING
            } else {
                settling
            },
        ) {
            return Ok(Ending::Stopped);
        }
        eye.begin()?;
        let mut rest = visit - settling;
        let mut seen = None;
        for _ in 0..=AGAIN.1 {
            if wait(stop, rest) {
                return Ok(Ending::Stopped);
            }
            seen = eye.end()?;
            rest = visit.mul_f64(AGAIN.0);
            if seen.is_some() {
                break;
            }
        }
        loads.check()?;
        let Some(observation) = seen else { continue };
        sound += 1;
        if step.loads.is_empty() {
            progress.idle(&observation);
        }
        if step.counts {
            observations.push(observation);
        }
    }
    drop(loads);
    drop(clocks);
    progress.finish();
    let wanted = steps.len();
    if f64::from(sound) < ENOUGH * wanted.to_f64().unwrap_or(f64::INFINITY) {
        bail!(
            "the energy meter gave a sound reading in only {sound} of {wanted} steps; nothing is saved"
        );
    }
    let prior = prior_of(sys, &topology, &shape);
    let (evidence, meter) =
        Evidence::fit(&shape, &prior, &observations).context("fitting what was measured")?;
    let saved = Saved {
        machine: identity_of(sys, &topology),
        shape,
        prior,
        meter,
        evidence,
    };
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| state.join(store::MODEL));
    let summary = summary(&saved, &observations)?;
    store::write(&path, &saved)?;
    let mut out = std::io::stdout().lock();
    // A reader that has gone away does not undo what is saved.
    let _ = writeln!(
        out,
        "{summary}saved in {}; `scx_joule model show` tells more",
        path.display()
    );
    Ok(Ending::Saved)
}

/// Keeps this process's own work on one CPU, of the least class and the last to be loaded there: it then costs the
/// same in every visit, and counts as drawn always. Where it cannot be pinned, it costs a little accuracy.
fn stay_aside(topology: &Topology) {
    let last = topology.classes.first().and_then(|class| class.cpus.last());
    if let Some(&cpu) = last.filter(|cpu| **cpu < CpuSet::MAX_CPU) {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        if let Err(error) = sched_setaffinity(None, &cpus) {
            debug!("not pinned to CPU {cpu}: {error}");
        }
    }
}

/// Waits; whether the user wants to stop.
fn wait(stop: &Receiver<()>, duration: Duration) -> bool {
    stop.recv_timeout(duration) != Err(RecvTimeoutError::Timeout)
}

/// A line for each class: how much of it was measured, and how well. A frequency that the machine did not take
/// though it was asked to is not measured, even if its neighbours say much about it.
fn summary(saved: &Saved, observations: &[Observation]) -> Result<String> {
    let model = saved.model().context("fitting what was measured")?;
    let mut text = String::new();
    for class in 0..saved.shape.classes.len() {
        let taken = |opp: usize| {
            let times = observations.iter().filter_map(|it| {
                let busy = it.classes.get(class)?.busy.get(opp)?;
                Some(busy.get() > it.duration.get() / 2)
            });
            times.filter(|taken| *taken).count() > 0
        };
        let curve = model.curve(class);
        let measured: Vec<_> = (curve.iter().enumerate())
            .filter(|(opp, _)| taken(*opp))
            .map(|(_, (_, estimate))| estimate)
            .collect();
        let bars = measured
            .iter()
            .map(|it| 100.0 * NINETY_PCT * it.sigma_uw / it.uw);
        let worst = bars.fold(0.0, f64::max);
        let (count, all) = (measured.len(), curve.len());
        let powers = measured.iter().map(|it| it.uw / 1e3);
        let least = powers.clone().reduce(f64::min);
        text += &match least.zip(powers.reduce(f64::max)) {
            None => format!("class {class}: nothing measured\n"),
            Some((least, most)) => format!(
                "class {class}: {count} of {all} frequencies measured, {least:.1} to {most:.1} mW a CPU, within \
                 {worst:.1} %\n"
            ),
        };
    }
    Ok(text)
}

/// Meters and activity over one visit.
struct Eye {
    sys: SysRoot,
    online: Option<Vec<usize>>,
    control: Control,
    activity: KernelActivity,
    clock: Clock,
    begun: Nanos,
}

impl Eye {
    fn open(sys: &SysRoot, topology: &Topology) -> Result<Self> {
        let shape = shape_of(topology).without_siblings();
        let control = Control::new(sys, topology, shape, None)?;
        Ok(Self {
            sys: sys.clone(),
            online: sys.online_cpus()?,
            activity: KernelActivity::new(sys, topology, &control.frequencies()),
            control,
            clock: Clock::new(),
            begun: Nanos::default(),
        })
    }

    fn look(&mut self) -> Result<(Nanos, Option<Observation>)> {
        if self.sys.online_cpus()? != self.online {
            bail!("CPUs went on- or offline; nothing is saved");
        }
        let now = self.clock.moment();
        let activity = self.activity.sample(now.at)?;
        Ok((now.at, self.control.take(activity, now)))
    }

    fn begin(&mut self) -> Result<()> {
        self.begun = self.look()?.0;
        Ok(())
    }

    /// What happened since [`Eye::begin`]; `None` when the meter has not moved, or cannot be trusted.
    fn end(&mut self) -> Result<Option<Observation>> {
        let (now, observation) = self.look()?;
        let whole = now.checked_sub(self.begun).unwrap_or_default();
        // A meter that stood still at the beginning tells of the time before, too.
        Ok(observation.filter(|observation| observation.duration <= whole))
    }
}

/// The clocks of the classes.
struct Clocks {
    knobs: Knobs,
    /// Per class: the directories of its cpufreq policies.
    policies: Vec<Vec<String>>,
    /// Per class: the highest frequency that the user allows; `None` where limits cannot be set.
    ceilings: Vec<Option<KHz>>,
    /// The classes that are held at a frequency.
    held: Vec<(usize, KHz)>,
}

impl Clocks {
    fn open(sys: &SysRoot, topology: &Topology, knobs: Knobs) -> Result<Self> {
        let mut policies = Vec::new();
        let mut ceilings = Vec::new();
        for class in &topology.classes {
            let mut directories = Vec::new();
            let mut ceiling: Option<KHz> = None;
            let mut covered: Vec<usize> = Vec::new();
            for &cpu in class.cpus.iter() {
                if covered.contains(&cpu) {
                    continue;
                }
                let policy = topology.cpu(cpu).and_then(|cpu| cpu.facts.policy.as_ref());
                covered.extend(policy.iter().flat_map(|policy| &policy.cpus));
                let directory = format!("sys/devices/system/cpu/cpu{cpu}/cpufreq");
                let limit = sys.value(
                    format!("{directory}/scaling_max_freq"),
                    "a frequency in kHz",
                )?;
                if let Some(limit) = limit.map(KHz::new) {
                    ceiling = Some(ceiling.map_or(limit, |known| known.min(limit)));
                    directories.push(directory);
                }
            }
            policies.push(directories);
            ceilings.push(ceiling);
        }
        Ok(Self {
            knobs,
            policies,
            ceilings,
            held: Vec::new(),
        })
    }

    /// Holds the step's classes at the step's frequencies, and all others at what they were.
    fn set(&mut self, step: &Step) -> Result<()> {
        let clock = |load: &Load| Some((load.class, load.khz?));
        let wanted: Vec<_> = step.loads.iter().filter_map(clock).collect();
        let is_wanted = |held: usize| wanted.iter().any(|(class, _)| *class == held);
        if !self.held.iter().all(|(class, _)| is_wanted(*class)) {
            self.knobs.restore();
            self.held.clear();
        }
        for &(class, khz) in &wanted {
            let held = self.held.iter().find(|(held, _)| *held == class);
            self.hold(class, khz, held.map(|(_, khz)| *khz))?;
        }
        self.held = wanted;
        Ok(())
    }

    /// Holds a class at a frequency; it was held at another one, or not at all.
    fn hold(&mut self, class: usize, khz: KHz, before: Option<KHz>) -> Result<()> {
        if before == Some(khz) {
            return Ok(());
        }
        // The lower limit must never be above the upper one. It is set first at the beginning, so that it is
        // put back last.
        let limits = match before.is_some_and(|before| khz > before) {
            true => ["scaling_max_freq", "scaling_min_freq"],
            false => ["scaling_min_freq", "scaling_max_freq"],
        };
        for directory in self.policies.get(class).into_iter().flatten() {
            for limit in limits {
                self.knobs
                    .set(&format!("{directory}/{limit}"), &khz.get().to_string())?;
            }
        }
        Ok(())
    }
}
