//! Decay, utilisation, sums and estimates against PELT in floating point.

#![allow(
    clippy::cast_precision_loss,
    reason = "utilisations stay below 2^53, where f64 is exact"
)]

use policy::{
    CAPACITY_SCALE, EST_WHOLE_NS, HALF_LIFE_NS, UTIL_SHIFT, decay, interval_after, left_ns,
    mean_after, pace_after, util_after, util_asleep, util_cap, util_est_after, work_of,
};
use proptest::prelude::*;

/// One on the capacity scale, as a utilisation.
const ONE: f64 = (1u64 << UTIL_SHIFT) as f64;

/// The most that a sum may hold: a unit less than 8192 tasks that never sleep.
const LARGEST: u64 = (1 << 43) - 1;

/// What one decay may be off by, relative to its result. A chord between two neighbours of the table,
/// which are a factor 2^(1/32) apart, lies above the curve by at most (ln 2 / 32)^2 / 8 = 5.9e-5, and
/// any better interpolation by less; factors of 20 bits or more, of which the least is 1/2, are off by
/// 1.5 * 2^-20 / (1/2) = 2.9e-6.
const DECAY_ERROR: f64 = 6.3e-5;

/// What one decay may fall short by, in units of 2^-20: one for the shift, one for the product.
const DECAY_LOSS: f64 = 2.0;

/// What averages may be off by, on the capacity scale: 1/1000 of it.
const AVERAGE_ERROR: f64 = CAPACITY_SCALE as f64 / 1000.0;

/// The share that is left after `dt_ns`.
fn left_after(dt_ns: f64) -> f64 {
    (-dt_ns / HALF_LIFE_NS as f64).exp2()
}

/// Numbers below 2^bits, of every magnitude alike.
fn magnitudes(bits: u32) -> impl Strategy<Value = u64> {
    (0..=bits, any::<u64>()).prop_map(|(bits, it)| it.checked_shr(64 - bits).unwrap_or(0))
}

fn values() -> impl Strategy<Value = u64> {
    prop_oneof![magnitudes(43), 0..=LARGEST, Just(LARGEST)]
}

fn durations() -> impl Strategy<Value = u64> {
    let long = prop_oneof![magnitudes(64), Just(u64::MAX)];
    prop_oneof![0..4 * HALF_LIFE_NS, 0..64 * HALF_LIFE_NS, long]
}

fn capacities() -> impl Strategy<Value = u32> {
    0..=CAPACITY_SCALE
}

/// Full use of a CPU of full capacity.
const FULL: u64 = (CAPACITY_SCALE as u64) << UTIL_SHIFT;

/// From here on a task is taken to use all it is given (src/bpf/policy.bpf.h, UTIL_SATURATED).
const SATURATED: u64 = 1000 << UTIL_SHIFT;

/// A task's life: for so long (1 us to 134 ms) at such a capacity, or waiting (0).
fn lives(steps: usize) -> impl Strategy<Value = Vec<(u64, u32)>> {
    let step = (10..=27u32, any::<u64>()).prop_map(|(bits, it)| it >> (64 - bits));
    prop::collection::vec((step, prop_oneof![Just(0), capacities()]), steps)
}

proptest! {
    #[test]
    fn decay_halves_per_half_life(value in values(), dt_ns in durations()) {
        let exact = value as f64 * left_after(dt_ns as f64);
        let error = decay(value, dt_ns) as f64 - exact;
        prop_assert!(error <= exact * DECAY_ERROR, "high by {error} of {exact}");
        prop_assert!(error >= -exact * DECAY_ERROR - DECAY_LOSS, "low by {error} of {exact}");
    }

    #[test]
    fn decay_over_whole_half_lives_is_a_shift(value in values(), halvings in 0..50u32) {
        prop_assert_eq!(decay(value, u64::from(halvings) * HALF_LIFE_NS), value >> halvings);
    }

    #[test]
    fn decay_never_grows_with_time(
        value in values(), dt_ns in durations(), more in durations(), within in 0..1u64 << 20,
    ) {
        prop_assert!(decay(value, dt_ns.saturating_add(more)) <= decay(value, dt_ns));
        // The table's entries are 2^20 ns apart.
        for at in (1..64 * 32u64).map(|entry| entry << 20) {
            prop_assert!(decay(value, at) <= decay(value, at - 1), "at {at}");
            prop_assert!(decay(value, at + within) <= decay(value, at), "at {at}");
            prop_assert!(decay(value, at + within + 1) <= decay(value, at + within), "at {at}");
        }
    }

    #[test]
    fn decay_keeps_the_order_of_values(a in values(), b in values(), dt_ns in durations()) {
        prop_assert!(decay(a.min(b), dt_ns) <= decay(a.max(b), dt_ns));
        for power in (0..43).map(|bit| 1u64 << bit) {
            prop_assert!(decay(power - 1, dt_ns) <= decay(power, dt_ns), "{power}");
        }
    }

    #[test]
    fn decay_in_two_parts_is_decay_of_the_whole(
        value in values(), a in 0..64 * HALF_LIFE_NS, b in 0..64 * HALF_LIFE_NS,
    ) {
        let whole = decay(value, a + b) as f64;
        let difference = decay(decay(value, a), b) as f64 - whole;
        let allowed = 3.0 * (DECAY_ERROR * whole + DECAY_LOSS);
        prop_assert!(difference.abs() <= allowed, "{difference} of {whole}");
    }

    #[test]
    fn parts_decay_to_no_more_than_their_sum_and_lose_less_than_two_units_each(
        parts in prop::collection::vec(0..=u64::from(CAPACITY_SCALE) << UTIL_SHIFT, 1..200),
        dt_ns in durations(),
    ) {
        let together = decay(parts.iter().sum(), dt_ns);
        let apart: u64 = parts.iter().map(|part| decay(*part, dt_ns)).sum();
        prop_assert!(apart <= together);
        prop_assert!(together - apart < 2 * parts.len() as u64);
    }

    #[test]
    fn running_raises_utilisation_to_full_and_never_past_it(
        util in 0..=FULL,
        work_ns in durations(),
    ) {
        let after = util_after(util, work_ns);
        prop_assert!((util..=FULL).contains(&after), "{after}");
    }

    /// The same work in the same time is the same utilisation, at any capacity.
    #[test]
    fn a_task_looks_the_same_wherever_it_runs(
        util in 0..=FULL,
        work_ns in 1..2 * HALF_LIFE_NS,
        capacity in 1..=CAPACITY_SCALE,
        idle_ns in 0..2 * HALF_LIFE_NS,
    ) {
        let ran_ns = work_ns * u64::from(CAPACITY_SCALE) / u64::from(capacity);
        let done = work_of(ran_ns * u64::from(capacity));
        prop_assert!(work_ns.abs_diff(done) <= 1, "{done} of {work_ns}");
        let ran = util_after(util, done);
        prop_assume!(ran < SATURATED);
        let here = decay(util_asleep(ran, ran_ns - done), idle_ns) as f64 / ONE;
        let there = decay(util_after(util, work_ns), ran_ns - work_ns + idle_ns) as f64 / ONE;
        prop_assert!((here - there).abs() <= AVERAGE_ERROR, "{here} here, {there} there");
    }

    #[test]
    fn a_task_that_uses_all_it_is_given_lost_no_sleep(
        util in SATURATED..=FULL,
        lost_ns in durations(),
    ) {
        prop_assert_eq!(util_asleep(util, lost_ns), util);
    }

    #[test]
    fn utilisation_without_its_fraction_is_rounded_down(util in values()) {
        prop_assert_eq!(f64::from(util_cap(util)), (util as f64 / ONE).floor());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn utilisation_follows_pelt_through_ten_thousand_steps(life in lives(10_000)) {
        let (mut util, mut exact) = (0, 0.0);
        let (mut largest, mut total) = (0.0f64, 0.0);
        for &(dt_ns, capacity) in &life {
            if capacity == 0 {
                util = decay(util, dt_ns);
                exact *= left_after(dt_ns as f64);
            } else {
                util = util_after(util, work_of(dt_ns * u64::from(capacity)));
                let work_ns = dt_ns as f64 * f64::from(capacity) / f64::from(CAPACITY_SCALE);
                let full = f64::from(CAPACITY_SCALE);
                exact = full + (exact - full) * left_after(work_ns);
            }
            let error = (util as f64 / ONE - exact).abs();
            largest = largest.max(error);
            total += error;
        }
        prop_assert!(largest <= AVERAGE_ERROR, "off by {largest}");
        let mean = total / life.len() as f64;
        prop_assert!(mean <= AVERAGE_ERROR / 10.0, "off by {mean} on average");
    }

    /// The ticks and wake-ups at which a task is looked at say nothing about what it used.
    #[test]
    fn utilisation_follows_pelt_however_often_it_is_looked_at(
        step_ns in (6..=21u32, any::<u64>()).prop_map(|(bits, it)| 50 + (it >> (64 - bits))),
    ) {
        let steps = 2 * HALF_LIFE_NS / step_ns;
        let (mut rising, mut falling) = (0, FULL);
        for step in 1..=steps {
            rising = util_after(rising, step_ns);
            falling = decay(falling, step_ns);
            let left = f64::from(CAPACITY_SCALE) * left_after((step * step_ns) as f64);
            let high = falling as f64 / ONE - left;
            let low = rising as f64 / ONE - (f64::from(CAPACITY_SCALE) - left);
            prop_assert!(high.abs() <= AVERAGE_ERROR, "falling, step {step}: off by {high}");
            prop_assert!(low.abs() <= AVERAGE_ERROR, "rising, step {step}: off by {low}");
        }
    }

    /// A group's sum is advanced at every event of every task, a task only at its own (see
    /// src/bpf/account.bpf.h): what a task takes along when it leaves must be what the sum holds of it.
    #[test]
    fn a_sum_stays_the_sum_of_its_tasks_however_often_it_is_advanced(
        tasks in prop::collection::vec(capacities(), 1..=16),
        gap_ns in (8..=20u32, any::<u64>()).prop_map(|(bits, it)| 200 + (it >> (64 - bits))),
        turn in 1..=512usize,
    ) {
        let mut utils = vec![(0u64, 0u64); tasks.len()];
        let (mut sum, mut now) = (0u64, 0);
        for event in 0..(3 * HALF_LIFE_NS / gap_ns).min(200_000) as usize {
            now += gap_ns;
            sum = decay(sum, gap_ns);
            // Every task runs all the time; one is brought up to date every `turn` events.
            if event % turn == 0 {
                let index = event / turn % tasks.len();
                let (util, at) = utils[index];
                let util_now = util_after(util, work_of((now - at) * u64::from(tasks[index])));
                sum = (sum + util_now).saturating_sub(decay(util, now - at));
                utils[index] = (util_now, now);
            }
        }
        let parts: u64 = utils.iter().map(|(util, at)| decay(*util, now - at)).sum();
        let residue = (sum as f64 - parts as f64) / ONE;
        let allowed = AVERAGE_ERROR * tasks.len() as f64;
        prop_assert!(residue.abs() <= allowed, "sum {sum}, parts {parts}: {residue}");
    }
}

fn estimates() -> impl Iterator<Item = (u32, u32)> {
    (0..=CAPACITY_SCALE).flat_map(|est| (0..=CAPACITY_SCALE).map(move |used| (est, used)))
}

#[test]
fn an_estimate_rises_at_once() {
    for (est, used) in estimates().filter(|(est, used)| used >= est) {
        for interval_ns in [0, 1, EST_WHOLE_NS] {
            assert_eq!(
                util_est_after(est, used, interval_ns),
                used,
                "{est} -> {used}"
            );
        }
    }
}

#[test]
fn an_estimate_falls_by_a_quarter_of_the_difference_rounded_up_so_it_never_stalls() {
    for (est, used) in estimates().filter(|(est, used)| used < est) {
        let expected = est - (est - used).div_ceil(4);
        for interval_ns in [0, EST_WHOLE_NS, u64::MAX] {
            assert_eq!(
                util_est_after(est, used, interval_ns),
                expected,
                "{est} -> {used}"
            );
        }
        assert!((used..est).contains(&expected));
    }
}

#[test]
fn the_estimate_of_a_task_that_wakes_often_falls_in_proportion_and_never_stalls() {
    for (est, used) in estimates().filter(|(est, used)| used < est) {
        let falls = [1 << 18, 1 << 20, 1 << 21, EST_WHOLE_NS]
            .map(|interval_ns| est - util_est_after(est, used, interval_ns));
        let shares = [64, 16, 8, 4];
        assert_eq!(
            falls,
            shares.map(|share| (est - used).div_ceil(share)),
            "{est} -> {used}"
        );
        assert!(util_est_after(est, used, 1) < est);
    }
}

/// Five milliseconds of bursts, a wake-up a millisecond, between pauses: what a burst needs is still known at the next
/// one's end, and how often its tasks wake in it.
#[test]
fn what_a_burst_needs_outlasts_the_pause_after_it() {
    let mut interval_ns = 1_000_000;
    let mut est = 300;
    for last_ns in [150_000_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000] {
        interval_ns = interval_after(interval_ns, last_ns);
        est = util_est_after(est, 20, interval_ns);
    }
    assert!(interval_ns < 2_000_000, "{interval_ns}");
    assert!(est > 150, "{est}: by quarters it would be 86");
}

/// Runs at a capacity: how long, and what a CPU of full capacity would have saved.
fn run_at(ran_ns: u64, capacity: u32) -> (u64, u64) {
    (ran_ns, ran_ns - work_of(ran_ns * u64::from(capacity)))
}

proptest! {
    #[test]
    fn a_pace_starts_at_the_first_run_and_moves_by_a_quarter_of_the_difference(
        pace_cap in capacities(), capacity in 1..=CAPACITY_SCALE, ran_ns in 1 << 20..1u64 << 50,
    ) {
        let (ran_ns, lost_ns) = run_at(ran_ns, capacity);
        let expected = match pace_cap {
            0 => capacity,
            known => (3 * known + capacity + 2) / 4,
        };
        prop_assert!(pace_after(pace_cap, ran_ns, lost_ns).abs_diff(expected) <= 1);
    }

    #[test]
    fn a_mean_starts_at_the_first_and_moves_by_a_quarter_of_the_difference(
        mean in 0..1u64 << 62, last in 0..1u64 << 62,
    ) {
        let expected = match mean {
            0 => last,
            known => (3 * u128::from(known) + u128::from(last)).div_euclid(4).try_into().unwrap(),
        };
        prop_assert!(mean_after(mean, last).abs_diff(expected) <= 1);
    }

    #[test]
    fn a_pause_counts_as_four_intervals_at_most(
        mean_ns in 1..1u64 << 60, last_ns in 0..1u64 << 62,
    ) {
        let expected = mean_after(mean_ns, last_ns.min(4 * mean_ns));
        prop_assert_eq!(interval_after(mean_ns, last_ns), expected);
        prop_assert_eq!(interval_after(0, last_ns), last_ns, "the first one counts whole");
    }

    #[test]
    fn what_is_overdue_goes_on_for_as_long_again(end in 0..1u64 << 62, by_ns in 0..1u64 << 62) {
        prop_assert_eq!(left_ns(end + by_ns, end), by_ns);
        prop_assert_eq!(left_ns(end, end + by_ns), by_ns);
        prop_assert_eq!(left_ns(by_ns, by_ns.wrapping_sub(end)), end, "clocks wrap");
    }

    #[test]
    fn a_pace_is_a_capacity_whatever_comes(
        pace_cap in capacities(), ran_ns in any::<u64>(), lost_ns in any::<u64>(),
    ) {
        prop_assert!(pace_after(pace_cap, ran_ns, lost_ns) <= CAPACITY_SCALE);
        let ran_ns = ran_ns.min(lost_ns);
        prop_assert_eq!(pace_after(pace_cap, ran_ns, lost_ns), pace_cap, "no work, no pace");
    }
}
