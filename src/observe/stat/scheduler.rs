//! The running scheduler's statistics, where it runs.

use crate::stats::Stats;
use scx_stats::prelude::StatsClient;

/// Longer than a control loop takes to answer; a table must not wait for a scheduler that hangs.
const PATIENCE_MS: u64 = 500;

/// A connection to the scheduler, made anew when it was lost.
#[derive(Default)]
pub struct Scheduler {
    client: Option<StatsClient>,
    earlier: Option<Stats>,
    seen: bool,
}

impl Scheduler {
    /// Its statistics now, and what happened since the last look; `None` while it does not run, or has just
    /// begun to.
    pub fn look(&mut self) -> Option<(Stats, Stats)> {
        let client = self.client.take();
        let mut client = client.or_else(|| StatsClient::new().connect(Some(PATIENCE_MS)).ok())?;
        let Ok(now) = client.request::<Stats>("stats", Vec::new()) else {
            self.earlier = None; // it ended, or another scheduler answered
            return None;
        };
        self.client = Some(client);
        self.seen = true;
        let earlier = self.earlier.replace(now.clone())?;
        let since = now.since(&earlier);
        Some((now, since))
    }

    /// Whether it has answered.
    pub fn seen(&self) -> bool {
        self.seen
    }
}
