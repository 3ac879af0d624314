//! Shares of the CPUs in trees of weights, and the virtual time they stand for.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "weights are at most 10 000, and shares and times stay below 2^53"
)]

use policy::{SHARE_SHIFT, share_inside, virtual_ns, vtime_by};
use proptest::prelude::*;

/// That of a task of the least weight; no share is less.
const LEAST: f64 = (1u64 << SHARE_SHIFT) as f64;

/// What a task is charged for at once.
const MOST_CHARGED_NS: u64 = 20_000_000;

/// How far a task may be ahead of its queue's clock.
const MOST_AHEAD_NS: i64 = 500_000_000;

/// Weights of tasks and of cgroups, of every magnitude alike.
fn weights() -> impl Strategy<Value = u32> {
    (0.0..=4.0).prop_map(|exponent: f64| 10f64.powf(exponent) as u32)
}

/// A cgroup on the way from a task to the root: its weight, and the weights of what else is runnable inside it.
fn cgroups() -> impl Strategy<Value = Vec<(u32, Vec<u32>)>> {
    let others = prop::collection::vec(weights(), 0..40);
    prop::collection::vec((weights(), others), 0..6)
}

proptest! {
    #[test]
    fn each_cgroup_divides_its_own_share_by_weight(task in weights(), way in cgroups()) {
        let mut share = u64::from(task) << SHARE_SHIFT;
        let (mut exact, mut weight) = (f64::from(task) * LEAST, task);
        for (cgroup, others) in &way {
            let sum = u64::from(weight) + others.iter().map(|it| u64::from(*it)).sum::<u64>();
            share = share_inside(share, weight, sum as i64, *cgroup);
            exact = (exact * f64::from(*cgroup) / sum as f64).max(LEAST);
            weight = *cgroup;
        }
        // A division rounds down by less than one, of LEAST at least.
        let error = (exact - share as f64) / exact;
        prop_assert!((-1e-9..=way.len() as f64 / LEAST).contains(&error), "{share} for {exact}");
    }

    #[test]
    fn a_share_is_never_none_nor_more_than_the_cgroups(
        task in weights(), cgroup in weights(), sum in any::<i64>()
    ) {
        let share = share_inside(u64::from(task) << SHARE_SHIFT, task, sum, cgroup);
        prop_assert!(share >= 1 << SHARE_SHIFT && share <= u64::from(cgroup) << SHARE_SHIFT, "{share}");
    }

    #[test]
    fn virtual_time_passes_in_inverse_to_the_share(ran_ns in 0..=MOST_CHARGED_NS, weight in weights()) {
        let found = virtual_ns(ran_ns, u64::from(weight) << SHARE_SHIFT);
        let exact = ran_ns as f64 * 100.0 / f64::from(weight);
        prop_assert!((exact - found as f64).abs() <= 1.0 + 1e-9 * exact, "{found} for {exact}");
    }

    #[test]
    fn nobody_is_charged_for_what_no_tick_interrupted(more_ns in 0u64..1 << 60, weight in weights()) {
        let share = u64::from(weight) << SHARE_SHIFT;
        prop_assert_eq!(virtual_ns(MOST_CHARGED_NS + more_ns, share), virtual_ns(MOST_CHARGED_NS, share));
    }

    #[test]
    fn nobody_is_far_from_the_clock(clock: u64, ahead_ns in prop_oneof![-2_000_000_000i64..2_000_000_000, -(1i64 << 62)..1 << 62], behind_ns in 0u64..100_000_000) {
        let found = vtime_by(clock, clock.wrapping_add(ahead_ns as u64), behind_ns);
        let expected = ahead_ns.clamp(-(behind_ns as i64), MOST_AHEAD_NS);
        prop_assert_eq!(found.wrapping_sub(clock) as i64, expected);
    }
}
