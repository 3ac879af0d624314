//! Runs the scheduler until it is told to stop, ejected, or the machine changes under it.
//!
//! Nothing here polls: the loop sleeps until somebody asks for statistics, the kernel detaches the
//! scheduler (its link hangs up), or a signal arrives.

use crate::config::Config;
use crate::observation::{ClassCost, CostTable, OppCost};
use crate::sched::{Ending, Scheduler, Storage};
use crate::stats::{self, Stats};
use crate::sysroot::SysRoot;
use crate::topology::Topology;
use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, Sender, bounded, never, select};
use log::{info, warn};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::OwnedFd;
use std::thread;

/// Schedules until `stop` receives or the kernel ends it; restarts after hotplug.
///
/// # Errors
/// Why the scheduler could not be started, or the kernel's reason for ejecting it.
pub fn run(config: &Config, sys: &SysRoot, stop: &Receiver<()>) -> Result<()> {
    scx_utils::try_set_rlimit_infinity();
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
    let mut storage = Storage::uninit();
    let scheduler = Scheduler::attach(&mut storage, config, &topology, &static_costs(&topology))?;
    info!(
        "scheduling {} CPUs in {} groups of {} classes",
        topology.cpus.len(),
        topology.groups.len(),
        topology.classes.len()
    );
    let detached = watch(scheduler.watch().try_clone_to_owned()?);
    let (replies, asked) = match requests {
        Some((replies, asked)) => (Some(replies), asked),
        None => (None, never()),
    };
    while !scheduler.ended() {
        select! {
            recv(stop) -> _ => break,
            recv(detached) -> _ => break,
            recv(asked) -> request => {
                let reply = request.ok().zip(replies.as_ref());
                let (_, replies) = reply.ok_or_else(|| anyhow!("the statistics server has gone"))?;
                replies.send(scheduler.stats()?)?;
            }
        }
    }
    scheduler.finish()
}

/// A channel that closes when the kernel has detached the scheduler behind `link`.
fn watch(link: OwnedFd) -> Receiver<()> {
    let (alive, detached) = bounded(0);
    thread::spawn(move || {
        let _alive: Sender<()> = alive;
        let mut hang_up = [PollFd::new(&link, PollFlags::empty())];
        while poll(&mut hang_up, None).is_err() {}
    });
    detached
}

/// Costs assumed before anything is known but capacities: power per capacity grows with the square
/// of the OPP's place between lowest and highest frequency, and a bigger core pays more at the same
/// place. The shape is that of measured phones; only the order of classes matters here.
fn static_costs(topology: &Topology) -> CostTable {
    let classes = topology
        .classes
        .iter()
        .map(|class| {
            let opps = class
                .cpus
                .first()
                .and_then(|&cpu| topology.cpu(cpu)?.facts.policy.clone());
            let opps = opps.and_then(|policy| policy.opps).unwrap_or_default();
            let full = u64::from(class.capacity.get());
            let fastest = opps.last().map_or(1, |khz| khz.get()).max(1);
            let mut caps: Vec<u64> = opps.iter().map(|khz| full * khz.get() / fastest).collect();
            caps.retain(|&cap| cap > 0);
            caps.dedup();
            if caps.is_empty() {
                caps.push(full);
            }
            let skip = caps.len().saturating_sub(crate::observation::MAX_OPPS);
            let cost = |&cap: &u64| {
                let place = 1024 * cap / full.max(1);
                let per_cap = 300 + 700 * place / 1024 * place / 1024;
                let per_cap = per_cap * (256 + 768 * full / 1024) / 1024;
                OppCost {
                    cap: u32::try_from(cap).unwrap_or(1024),
                    busy_uw: u32::try_from(cap * per_cap).unwrap_or(u32::MAX),
                    shared_uw: 0,
                }
            };
            ClassCost {
                opps: caps.iter().skip(skip).map(cost).collect(),
                ..ClassCost::default()
            }
        })
        .collect();
    CostTable {
        generation: 0,
        classes,
    }
}
