//! What one thread or task achieved: counts, sums, and response times with exact quantiles.

use crate::work::WorkUnits;

/// Response times kept by all threads together; 8 bytes each.
pub const MAX_KEPT: usize = 8 << 20;

/// Response times of jobs, in ns.
///
/// Count, mean and maximum cover every job. Quantiles are exact over the
/// responses kept, which are all of them until the room is full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Responses {
    kept_ns: Vec<u64>,
    room: usize,
    count: u64,
    sum_ns: u128,
    max_ns: u64,
}

/// The figures of a set of response times, in ns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Arithmetic mean, rounded down.
    pub mean_ns: u64,
    /// Half of the jobs took at most this.
    pub p50_ns: u64,
    /// 95 % took at most this.
    pub p95_ns: u64,
    /// 99 % took at most this.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Responses {
    /// Keeps at most `room` of them.
    pub fn with_room(room: usize) -> Self {
        // Enough to keep the allocator out of the first minutes of most tasks.
        Self {
            kept_ns: Vec::with_capacity(room.min(16_384)),
            room,
            ..Self::default()
        }
    }

    /// Adds one.
    pub fn push(&mut self, response_ns: u64) {
        if self.kept_ns.len() < self.room {
            self.kept_ns.push(response_ns);
        }
        self.count += 1;
        self.sum_ns += u128::from(response_ns);
        self.max_ns = self.max_ns.max(response_ns);
    }

    /// Adds all of another set, what it kept included.
    pub fn merge(&mut self, other: &Self) {
        self.kept_ns.extend_from_slice(&other.kept_ns);
        self.room = self.room.saturating_add(other.room);
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many the quantiles are over.
    pub fn kept(&self) -> usize {
        self.kept_ns.len()
    }

    /// The figures; `None` when there was no job.
    pub fn summary(&self) -> Option<Summary> {
        let mut sorted_ns = self.kept_ns.clone();
        sorted_ns.sort_unstable();
        Some(Summary {
            mean_ns: u64::try_from(self.sum_ns.checked_div(u128::from(self.count))?).ok()?,
            p50_ns: quantile(&sorted_ns, 50)?,
            p95_ns: quantile(&sorted_ns, 95)?,
            p99_ns: quantile(&sorted_ns, 99)?,
            max_ns: self.max_ns,
        })
    }
}

/// The smallest value that at least `percent` % of the values do not exceed (nearest rank).
fn quantile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = sorted.len().checked_mul(percent)?.div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// What was done between start and end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// From due to complete.
    pub responses: Responses,
    /// Jobs that had a deadline.
    pub with_deadline: u64,
    /// Of these, the jobs that were complete only after it.
    pub missed: u64,
    /// Activations that never became a job: expiries a timer passed over, resumes a full queue lost.
    pub skipped: u64,
    /// Jobs the end of the run cut short.
    pub unfinished: u64,
    /// Work done, by cut jobs too.
    pub work: WorkUnits,
    /// CPU time used, in ns.
    pub cpu_ns: u64,
    /// Changes of CPU seen at the ends of slices of work: two within one slice go unseen.
    pub migrations: u64,
    /// Context switches by going to sleep.
    pub voluntary_switches: u64,
    /// Context switches by preemption.
    pub involuntary_switches: u64,
    /// From the common start until the task had done all it had to do, in ns; `None` if it never did.
    pub completion_ns: Option<u64>,
}

impl Record {
    /// Adds what another thread did. The completion becomes the later one, and none as soon as one is missing.
    pub fn merge(&mut self, other: &Self) {
        self.responses.merge(&other.responses);
        self.with_deadline += other.with_deadline;
        self.missed += other.missed;
        self.skipped += other.skipped;
        self.unfinished += other.unfinished;
        self.work = WorkUnits(self.work.0 + other.work.0);
        self.cpu_ns += other.cpu_ns;
        self.migrations += other.migrations;
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
        self.completion_ns = self
            .completion_ns
            .zip(other.completion_ns)
            .map(|(a, b)| a.max(b));
    }

    /// All of these together; `None` of nothing.
    pub fn total<'a>(records: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        let mut records = records.into_iter();
        let mut total = records.next()?.clone();
        for record in records {
            total.merge(record);
        }
        Some(total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn responses(values: &[u64], room: usize) -> Responses {
        let mut responses = Responses::with_room(room);
        values.iter().for_each(|&value| responses.push(value));
        responses
    }

    #[test]
    fn quantiles_are_the_nearest_rank() {
        let values: Vec<u64> = (1..=100).rev().collect();
        let summary = responses(&values, 1000).summary().unwrap();
        assert_eq!(
            (
                summary.p50_ns,
                summary.p95_ns,
                summary.p99_ns,
                summary.max_ns
            ),
            (50, 95, 99, 100)
        );
        assert_eq!(summary.mean_ns, 50);
    }

    #[test]
    fn one_response_is_every_quantile() {
        let summary = responses(&[7], 10).summary().unwrap();
        assert_eq!(
            (
                summary.p50_ns,
                summary.p99_ns,
                summary.max_ns,
                summary.mean_ns
            ),
            (7, 7, 7, 7)
        );
    }

    #[test]
    fn no_response_has_no_summary() {
        assert_eq!(responses(&[], 10).summary(), None);
    }

    #[test]
    fn beyond_the_room_mean_and_maximum_still_count_every_job() {
        let responses = responses(&[1, 2, 3, 94], 2);
        let summary = responses.summary().unwrap();
        assert_eq!((responses.count(), responses.kept()), (4, 2));
        assert_eq!(
            (summary.mean_ns, summary.max_ns, summary.p99_ns),
            (25, 94, 2)
        );
    }

    #[test]
    fn a_task_is_complete_with_its_last_thread_and_not_without_all_of_them() {
        let done = |at| Record {
            completion_ns: at,
            ..Record::default()
        };
        assert_eq!(
            Record::total([&done(Some(3)), &done(Some(5))])
                .unwrap()
                .completion_ns,
            Some(5)
        );
        assert_eq!(
            Record::total([&done(Some(3)), &done(None)])
                .unwrap()
                .completion_ns,
            None
        );
    }

    proptest! {
        #[test]
        fn a_quantile_bounds_its_share_from_both_sides(mut values in prop::collection::vec(0_u64..50, 1..300), percent in 1_usize..=100) {
            values.sort_unstable();
            let found = quantile(&values, percent).unwrap();
            let at_most = values.iter().filter(|&&v| v <= found).count();
            let below = values.iter().filter(|&&v| v < found).count();
            prop_assert!(at_most * 100 >= percent * values.len());
            prop_assert!(below * 100 < percent * values.len());
        }

        #[test]
        fn merging_is_the_same_as_pushing_into_one(a in prop::collection::vec(0_u64..1_000_000, 1..50), b in prop::collection::vec(0_u64..1_000_000, 1..50)) {
            let mut merged = responses(&a, 100);
            merged.merge(&responses(&b, 100));
            prop_assert_eq!(merged.summary(), responses(&[a, b].concat(), 100).summary());
        }
    }
}
