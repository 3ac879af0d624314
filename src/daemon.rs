//! Runs the scheduler and the control loop until told to stop, ejected, or the machine changes under it.
//!
//! Nothing here polls. The loop sleeps until the scheduler has gathered busy time worth a sample, until
//! somebody asks for statistics, a signal arrives, or the kernel detaches the scheduler (its link hangs
//! up); on an idle machine with a meter it wakes every 10 s to keep counters from wrapping
//! and costs from expiring, and without a meter never.

pub(crate) mod control;
pub mod dry_run;
pub(crate) mod machine;
mod meters;
pub mod record;

use crate::config::Config;
use crate::energy::Clock;
use crate::knobs;
use crate::sched::{Ending, Scheduler, Storage};
use crate::stats::{self, Stats};
use crate::sysroot::SysRoot;
use crate::topology::Topology;
use crate::units::Nanos;
use anyhow::{Context, Result, anyhow};
use control::Control;
use crossbeam_channel::{Receiver, Sender, after, never, select};
use log::{info, warn};
use machine::shape_of;
use std::time::{Duration, Instant};

/// Busy time, summed over CPUs, that is worth a sample.
const WORTH_A_SAMPLE: Nanos = Nanos::new(100_000_000);
/// Least time between two samples.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// Most time between two samples while there is a meter.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Published costs live at least this long without renewal, and at least four pauses.
const SHORTEST_TTL: Duration = Duration::from_secs(10);

/// Schedules until `stop` receives or the kernel ends it; restarts after hotplug.
///
/// # Errors
/// Why the scheduler could not be started, or the kernel's reason for ejecting it.
pub fn run(config: &Config, sys: &SysRoot, stop: &Receiver<()>) -> Result<()> {
    scx_utils::try_set_rlimit_infinity();
    if let Err(error) = knobs::recover(sys, &config.state) {
        warn!("{error}; settings that an earlier run changed may stand");
    }
    let server = stats::serve()
        .inspect_err(|error| warn!("no statistics for --monitor: {error:#}"))
        .ok();
    while session(
        config,
        sys,
        stop,
        server.as_ref().map(|server| server.channels()),
    )? == Ending::Restart
    {
        info!("CPUs went on- or offline: starting again");
    }
    Ok(())
}

type Requests = (Sender<Stats>, Receiver<()>);

/// From one attach to its end.
fn session(
    config: &Config,
    sys: &SysRoot,
    stop: &Receiver<()>,
    requests: Option<Requests>,
) -> Result<Ending> {
    let topology = Topology::read(sys).context("reading the topology")?;
    let offers = topology.offers(sys).context("reading the clocks' limits")?;
    let mut control = Control::new(sys, &topology, shape_of(&topology), Some(&config.state))?;
    let mut storage = Storage::uninit();
    let mut scheduler =
        Scheduler::attach(&mut storage, config, &topology, &offers, &control.costs())?;
    info!(
        "scheduling {} CPUs in {} groups of {} classes{}",
        topology.cpus.len(),
        topology.groups.len(),
        topology.classes.len(),
        if control.has_meter() {
            ""
        } else {
            "; no energy meter: costs stay as assumed"
        }
    );
    let events = scheduler.events()?;
    let mut clock = Clock::new();
    let mut pace = Pace::new(&control);
    if control.has_meter() {
        scheduler.wake_after(WORTH_A_SAMPLE);
    }
    let (replies, asked) = match requests {
        Some((replies, asked)) => (Some(replies), asked),
        None => (None, never()),
    };
    while !scheduler.ended() {
        let due = pace.due.map_or_else(never, |due| {
            after(due.saturating_duration_since(Instant::now()))
        });
        select! {
            recv(stop) -> _ => break,
            recv(events) -> event => match event {
                Ok(()) if control.has_meter() => pace.hasten(),
                Ok(()) => {}
                Err(_) => break,
            },
            // one turn of the loop: sample → fit → decide → publish
            recv(due) -> _ => {
                let activity = scheduler.sample()?;
                let decision = control.turn(activity, clock.moment());
                let ttl = pace.next(&control);
                if let Err(error) = scheduler.publish(&decision.table, decision.probe, ttl) {
                    warn!("{error:#}");
                }
            }
            recv(asked) -> request => {
                let reply = request.ok().zip(replies.as_ref());
                let (_, replies) = reply.ok_or_else(|| anyhow!("the statistics server has gone"))?;
                let mut stats = scheduler.stats()?;
                control.describe(&mut stats);
                replies.send(stats)?;
            }
        }
    }
    scheduler.finish()
}

/// When the next turn is due.
struct Pace {
    last: Instant,
    /// `None` without a meter.
    due: Option<Instant>,
}

impl Pace {
    /// The first turn, where learning begins, waits a pause: clusters that rest are at the clock where the
    /// scheduler before left them, and draw more until they have been used than ever after.
    fn new(control: &Control) -> Self {
        let now = Instant::now();
        Self {
            last: now,
            due: control.has_meter().then_some(now + SHORTEST_PAUSE),
        }
    }

    /// The scheduler has gathered enough for a sample.
    fn hasten(&mut self) {
        self.due = self.due.map(|due| due.min(self.last + SHORTEST_PAUSE));
    }

    /// Plans the next turn; returns how long what is published now shall live.
    fn next(&mut self, control: &Control) -> Nanos {
        let longest = control.longest_pause().map_or(LONGEST_PAUSE, |safe| {
            (Duration::from_nanos(safe.get()) / 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
        });
        self.last = Instant::now();
        self.due = self.due.map(|_| self.last + longest);
        let ttl = SHORTEST_TTL.max(4 * longest);
        Nanos::new(u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX))
    }
}
