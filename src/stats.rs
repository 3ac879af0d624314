//! What the running scheduler tells about itself: one struct for `--stats`, `--monitor`,
//! `--help-stats` and whoever reads the scx_stats socket.

use anyhow::Result;
use scx_stats::prelude::*;
use scx_stats_derive::Stats;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::Duration;

/// Counters since the scheduler started. scx_stats sends them as they are; intervals are the
/// reader's business.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Stats)]
#[stat(top)]
pub struct Stats {
    /// See the description.
    #[stat(desc = "wake-ups that went straight to an idle CPU")]
    pub placed_idle: u64,
    /// See the description.
    #[stat(desc = "wake-ups for which no idle CPU was to be had")]
    pub placed_busy: u64,
    /// See the description.
    #[stat(desc = "tasks that waited in a queue")]
    pub queued: u64,
    /// See the description.
    #[stat(desc = "idle CPUs woken for queued work")]
    pub kicks: u64,
    /// See the description.
    #[stat(desc = "tasks taken from another group's queue")]
    pub stolen: u64,
    /// See the description.
    #[stat(desc = "running tasks sent on to a bigger CPU")]
    pub misfit_up: u64,
}

impl Stats {
    /// What happened between two readings. A counter that went back (the scheduler restarted in
    /// between) counts from its new start.
    pub fn since(&self, earlier: &Self) -> Self {
        let delta = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now);
        Self {
            placed_idle: delta(self.placed_idle, earlier.placed_idle),
            placed_busy: delta(self.placed_busy, earlier.placed_busy),
            queued: delta(self.queued, earlier.queued),
            kicks: delta(self.kicks, earlier.kicks),
            stolen: delta(self.stolen, earlier.stolen),
            misfit_up: delta(self.misfit_up, earlier.misfit_up),
        }
    }

    /// One line for people.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn print(&self, out: &mut impl Write) -> Result<()> {
        writeln!(
            out,
            "placed idle {:>7} busy {:>7} | queued {:>7} kicks {:>7} stolen {:>6} | misfit up {:>5}",
            self.placed_idle,
            self.placed_busy,
            self.queued,
            self.kicks,
            self.stolen,
            self.misfit_up
        )?;
        Ok(())
    }
}

/// The scx_stats server of the running scheduler: each request on its channel is answered with a
/// reading of the counters.
///
/// # Errors
/// When the socket cannot be created.
pub fn serve() -> Result<StatsServer<(), Stats>> {
    let data = StatsServerData::<(), Stats>::new()
        .add_meta(Stats::meta())
        .add_stats(
            "top",
            Box::new(|_arguments, (request, reply)| {
                request.send(())?;
                reply.recv()?.to_json()
            }),
        );
    StatsServer::new(data).launch()
}

/// Prints what each statistic means.
///
/// # Errors
/// When `out` cannot be written.
pub fn explain(out: &mut impl Write) -> Result<()> {
    StatsServerData::<(), Stats>::new()
        .add_meta(Stats::meta())
        .describe_meta(out, None)
}

/// Prints the running scheduler's statistics at each interval until `stop` says so.
///
/// # Errors
/// When standard output is gone.
pub fn monitor(interval: Duration, stop: impl FnMut() -> bool) -> Result<()> {
    let mut earlier: Option<Stats> = None;
    scx_utils::monitor_stats::<Stats>(&[], interval, stop, |now| {
        let shown = earlier
            .as_ref()
            .map_or_else(|| now.clone(), |then| now.since(then));
        earlier = Some(now);
        shown.print(&mut std::io::stdout().lock())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statistic_is_explained() {
        let mut text = Vec::new();
        explain(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let fields = serde_json::to_value(Stats::default()).unwrap();
        for field in fields.as_object().unwrap().keys() {
            assert!(
                text.contains(field.as_str()),
                "{field} is missing in:\n{text}"
            );
        }
    }

    #[test]
    fn a_counter_that_went_back_counts_from_its_new_start() {
        let before = Stats {
            kicks: 10,
            ..Stats::default()
        };
        let after = Stats {
            kicks: 3,
            ..Stats::default()
        };
        assert_eq!(after.since(&before).kicks, 3);
        assert_eq!(before.since(&after).kicks, 7);
    }
}
