//! What the running scheduler tells about itself: one struct for `--stats`, `--monitor`,
//! `--help-stats` and whoever reads the scx_stats socket.

use anyhow::Result;
use num_traits::ToPrimitive;
use scx_stats::prelude::*;
use scx_stats_derive::Stats;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

/// The fitted power of one class of CPUs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Stats)]
#[stat(
    desc = "fitted power of one class of CPUs",
    _om_prefix = "c_",
    _om_label = "class"
)]
pub struct ClassStats {
    /// See the description.
    #[stat(desc = "frequencies of the OPPs, kHz", _om_skip)]
    pub khz: Vec<u64>,
    /// See the description.
    #[stat(desc = "power of the first busy CPU at each OPP, W", _om_skip)]
    pub watts: Vec<f64>,
    /// See the description.
    #[stat(
        desc = "what two busy threads of one core draw less than two cores would at each OPP, W; empty without SMT",
        _om_skip
    )]
    pub sibling_watts: Vec<f64>,
    /// See the description.
    #[stat(desc = "how much of the prior's doubt is gone, 0 to 1")]
    pub confidence: f64,
}

/// How a number that is not known is told.
pub const UNKNOWN: f64 = -1.0;

/// Counters since the scheduler started, and how the control loop sees the machine now.
///
/// scx_stats carries plain numbers only: what is unknown is -1, never 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Stats)]
#[stat(top)]
pub struct Stats {
    /// See the description.
    #[stat(desc = "wake-ups that went straight to an idle CPU")]
    pub placed_idle: u64,
    /// See the description.
    #[stat(desc = "wake-ups for which no idle CPU was to be had")]
    pub placed_busy: u64,
    /// See the description.
    #[stat(desc = "wake-ups for which waiting was cheaper than an idle CPU")]
    pub placed_waiting: u64,
    /// See the description.
    #[stat(
        desc = "wake-ups that the prior's costs would have sent elsewhere, by one in 16 of them"
    )]
    pub placed_steered: u64,
    /// See the description.
    #[stat(desc = "wake-ups sent where more is to be learnt")]
    pub probes: u64,
    /// See the description.
    #[stat(desc = "tasks that waited in a queue")]
    pub queued: u64,
    /// See the description.
    #[stat(desc = "idle CPUs woken for queued work")]
    pub kicks: u64,
    /// See the description.
    #[stat(desc = "kicks to CPUs that the prior's costs would not have chosen")]
    pub kicks_steered: u64,
    /// See the description.
    #[stat(desc = "kicked CPUs that found nothing to run")]
    pub kicks_wasted: u64,
    /// See the description.
    #[stat(desc = "running tasks that made room for one that woke")]
    pub preempted: u64,
    /// See the description.
    #[stat(desc = "tasks taken from another group's queue")]
    pub stolen: u64,
    /// See the description.
    #[stat(desc = "running tasks sent on to a bigger CPU, or to a core of their own")]
    pub misfit_up: u64,
    /// See the description.
    #[stat(
        desc = "tasks by how long they waited from runnable to running: below 2 us, below 4, 8, 16 and so on",
        _om_skip
    )]
    pub delays: Vec<u64>,
    /// See the description.
    #[stat(desc = "cost tables that the scheduler refused as out of range")]
    pub tables_refused: u64,
    /// See the description.
    #[stat(desc = "decisions whose cost table was overwritten meanwhile: must stay 0")]
    pub tables_mixed: u64,
    /// See the description.
    #[stat(desc = "samples learnt from by the energy model")]
    pub samples: u64,
    /// See the description.
    #[stat(desc = "readings of the energy meters that could not be trusted")]
    pub meter_faults: u64,
    /// See the description.
    #[stat(desc = "power measured over the last sample, W; below 0: unknown")]
    pub measured_w: f64,
    /// See the description.
    #[stat(desc = "power that the model expected for it, W; below 0: unknown")]
    pub model_w: f64,
    /// See the description.
    #[stat(
        desc = "power that the model expected of each group of CPUs for it, above deepest idle, W",
        _om_skip
    )]
    pub groups_w: Vec<f64>,
    /// See the description.
    #[stat(desc = "mean error of the model over recent samples, %; below 0: unknown")]
    pub model_error_pct: f64,
    /// See the description.
    #[stat(desc = "how much of the prior's doubt is gone, 0 to 1, mean over classes")]
    pub confidence: f64,
    /// See the description.
    #[stat(desc = "what the model says of each class of CPUs")]
    pub classes: BTreeMap<usize, ClassStats>,
    /// See the description.
    #[stat(desc = "generation of the published cost table; 0: the prior decides")]
    pub generation: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            placed_idle: 0,
            placed_busy: 0,
            placed_waiting: 0,
            placed_steered: 0,
            probes: 0,
            queued: 0,
            kicks: 0,
            kicks_steered: 0,
            kicks_wasted: 0,
            preempted: 0,
            stolen: 0,
            misfit_up: 0,
            delays: Vec::new(),
            tables_refused: 0,
            tables_mixed: 0,
            samples: 0,
            meter_faults: 0,
            measured_w: UNKNOWN,
            model_w: UNKNOWN,
            groups_w: Vec::new(),
            model_error_pct: UNKNOWN,
            confidence: 0.0,
            classes: BTreeMap::new(),
            generation: 0,
        }
    }
}

impl Stats {
    /// What happened between two readings: counters as differences, the rest as it is now. A counter
    /// that went back (the scheduler restarted in between) counts from its new start.
    pub fn since(&self, earlier: &Self) -> Self {
        let delta = |now: u64, then: u64| now.checked_sub(then).unwrap_or(now);
        Self {
            placed_idle: delta(self.placed_idle, earlier.placed_idle),
            placed_busy: delta(self.placed_busy, earlier.placed_busy),
            placed_waiting: delta(self.placed_waiting, earlier.placed_waiting),
            placed_steered: delta(self.placed_steered, earlier.placed_steered),
            probes: delta(self.probes, earlier.probes),
            queued: delta(self.queued, earlier.queued),
            kicks: delta(self.kicks, earlier.kicks),
            kicks_steered: delta(self.kicks_steered, earlier.kicks_steered),
            kicks_wasted: delta(self.kicks_wasted, earlier.kicks_wasted),
            preempted: delta(self.preempted, earlier.preempted),
            stolen: delta(self.stolen, earlier.stolen),
            misfit_up: delta(self.misfit_up, earlier.misfit_up),
            delays: (self.delays.iter().enumerate())
                .map(|(bucket, &now)| delta(now, earlier.delays.get(bucket).copied().unwrap_or(0)))
                .collect(),
            tables_refused: delta(self.tables_refused, earlier.tables_refused),
            tables_mixed: delta(self.tables_mixed, earlier.tables_mixed),
            samples: delta(self.samples, earlier.samples),
            meter_faults: delta(self.meter_faults, earlier.meter_faults),
            ..self.clone()
        }
    }

    /// How long this part of the tasks (0 to 1) waited at most, µs; `None` when none ran. Known to a factor of two:
    /// within a bucket the waits are taken as spread evenly.
    pub fn delay_us(&self, part: f64) -> Option<f64> {
        let total: u64 = self.delays.iter().fold(0, |sum, n| sum.saturating_add(*n));
        let wanted = part * total.to_f64()?;
        let (mut below, mut from, mut to) = (0.0, 0.0, 2.0);
        for count in &self.delays {
            let count = count.to_f64()?;
            if count > 0.0 && below + count >= wanted {
                return Some(from + (to - from) * (wanted - below) / count);
            }
            below += count;
            (from, to) = (to, 2.0 * to);
        }
        None
    }

    /// Measured and modelled power, for people.
    pub fn power(&self) -> String {
        let known = |value: f64, unit: &str| match value < 0.0 {
            true => format!("-{unit}"),
            false => format!("{value:.3}{unit}"),
        };
        format!(
            "{} model {} error {} confidence {:.2}",
            known(self.measured_w, " W"),
            known(self.model_w, " W"),
            known(self.model_error_pct, " %"),
            self.confidence
        )
    }

    /// One line for people.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn print(&self, out: &mut impl Write) -> Result<()> {
        writeln!(
            out,
            "{} | placed idle {} busy {} waiting {} steered {} probes {} | \
             queued {} kicks {} steered {} wasted {} | preempted {} stolen {} misfit up {}",
            self.power(),
            self.placed_idle,
            self.placed_busy,
            self.placed_waiting,
            self.placed_steered,
            self.probes,
            self.queued,
            self.kicks,
            self.kicks_steered,
            self.kicks_wasted,
            self.preempted,
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
        .add_meta(ClassStats::meta())
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
        .add_meta(ClassStats::meta())
        .describe_meta(out, None)
}

/// Prints the running scheduler's statistics at each interval until `stop` says so: a line for people of what
/// happened since the line before, or as `json` all there is, with counters since the scheduler started.
///
/// # Errors
/// When standard output is gone.
pub fn monitor(interval: Duration, json: bool, stop: impl FnMut() -> bool) -> Result<()> {
    let mut earlier: Option<Stats> = None;
    scx_utils::monitor_stats::<Stats>(&[], interval, stop, |now| {
        let mut out = std::io::stdout().lock();
        if json {
            return Ok(writeln!(out, "{}", serde_json::to_string(&now)?)?);
        }
        let shown = earlier
            .as_ref()
            .map_or_else(|| now.clone(), |then| now.since(then));
        earlier = Some(now);
        shown.print(&mut out)
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

    #[test]
    fn percentiles_of_waits_lie_in_the_bucket_that_holds_them() {
        let stats = |delays: &[u64]| Stats {
            delays: delays.to_vec(),
            ..Stats::default()
        };
        // half below 2 us, the others from 4 to 8
        let waits = stats(&[50, 0, 50, 0]);
        assert_eq!(waits.delay_us(0.5), Some(2.0));
        assert_eq!(waits.delay_us(0.75), Some(6.0));
        assert_eq!(waits.delay_us(1.0), Some(8.0));
        let later = stats(&[50, 0, 50, 10]);
        assert_eq!(later.since(&waits).delay_us(0.5), Some(12.0));
        for none in [&[][..], &[0, 0]] {
            assert_eq!(stats(none).delay_us(0.5), None);
        }
        assert_eq!(stats(&[0, u64::MAX, u64::MAX]).delay_us(0.0), Some(2.0));
    }
}
