//! Needs, OPPs, cost rows and the power of a group, against what they are defined as.

#![allow(
    clippy::cast_precision_loss,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too; powers carry a tolerance for f64"
)]

use policy::{
    CAPACITY_SCALE, Load, MAX_NJ, MAX_OPPS, MAX_UW, NEED_BUCKETS, Row, allowed_wait_ns, bucket_cap,
    catch_up_cap, clamped, cpu_need, delay_bucket, done_after_ns, guard_after, highest_bit,
    lowest_bit, nearest_bit, nearest_of, need_bucket, need_of, repeated_uw, usual_cap,
    wakes_are_sound, with_headroom,
};
use proptest::prelude::*;
use std::ops::RangeInclusive;

/// What profiles may ask for.
const HEADROOMS_PCT: RangeInclusive<u32> = 100..=300;

/// A task that never sleeps, thousands of times on each of 16 CPUs.
const TASKS_PER_CPU: u32 = 4096;

fn columns() -> impl Strategy<Value = [u32; MAX_OPPS]> {
    prop::array::uniform32(prop_oneof![0..=MAX_UW, Just(MAX_UW)])
}

/// Sound rows. What follows their OPPs is rubbish, which nobody may read.
fn rows(nr_opps: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = (Vec<u32>, Row)> {
    let opps = prop::collection::btree_set(1..=CAPACITY_SCALE, nr_opps);
    let rubbish = prop::array::uniform32(any::<u32>());
    (opps, rubbish, columns(), columns(), rubbish).prop_map(
        |(opps, mut capacity, mut busy_uw, mut shared_uw, rubbish)| {
            let opps: Vec<u32> = opps.into_iter().collect();
            capacity[..opps.len()].copy_from_slice(&opps);
            busy_uw[opps.len()..].copy_from_slice(&rubbish[opps.len()..]);
            shared_uw[opps.len()..].copy_from_slice(&rubbish[opps.len()..]);
            let nr_opps = u32::try_from(opps.len()).unwrap();
            let row = Row {
                nr_opps,
                capacity,
                busy_uw,
                shared_uw,
            };
            (opps, row)
        },
    )
}

/// Every capacity, and some that no CPU has.
fn wanted() -> RangeInclusive<u32> {
    0..=CAPACITY_SCALE + 100
}

fn loads() -> impl Strategy<Value = Load> {
    (0..=16u32, HEADROOMS_PCT).prop_flat_map(|(nr_cpus, headroom_pct)| {
        let full = nr_cpus.max(1) * CAPACITY_SCALE;
        let sums = prop_oneof![
            0..=full,
            0..=full * TASKS_PER_CPU,
            Just(full * TASKS_PER_CPU)
        ];
        (sums, 0..=CAPACITY_SCALE).prop_map(move |(sum_cap, top_cap)| Load {
            sum_cap,
            top_cap,
            nr_cpus,
            headroom_pct,
        })
    })
}

/// Where `wanted` is found among `opps`: the slowest that offers it, else the fastest.
fn slowest_sufficient(opps: &[u32], wanted: f64) -> usize {
    let found = opps.iter().position(|it| f64::from(*it) >= wanted);
    found.unwrap_or(opps.len() - 1)
}

/// The OPP, of the faster ones, at which a CPU awake alone needs the least energy for its work, the slower of two; this
/// OPP where that does not save a seventh.
fn cheapest_from(row: &Row, opp: usize) -> usize {
    // energy at `one` for the work that is done at `other` in the same time
    let energy = |one: usize, other: usize| {
        (u128::from(row.busy_uw[one]) + u128::from(row.shared_uw[one]))
            * u128::from(row.capacity[other])
    };
    let mut best = opp;
    for faster in opp..row.nr_opps as usize {
        if energy(faster, best) < energy(best, faster) {
            best = faster;
        }
    }
    if 7 * energy(best, opp) < 6 * energy(opp, best) {
        best
    } else {
        opp
    }
}

fn power_at(row: &Row, opp: usize, sum_cap: u32) -> f64 {
    let busy = f64::from(sum_cap) / f64::from(row.capacity[opp]);
    busy * f64::from(row.busy_uw[opp]) + busy.min(1.0) * f64::from(row.shared_uw[opp])
}

#[test]
fn a_need_is_counted_in_the_bucket_that_holds_it_and_large_ones_in_the_last() {
    for bucket in 0..NEED_BUCKETS {
        assert_eq!(bucket_cap(bucket), (bucket + 1) * 32);
        for need_cap in bucket * 32..bucket_cap(bucket) {
            assert_eq!(need_bucket(need_cap), bucket, "need {need_cap}");
        }
    }
    assert_eq!(need_bucket(CAPACITY_SCALE), NEED_BUCKETS - 1);
    assert_eq!(bucket_cap(NEED_BUCKETS - 1), CAPACITY_SCALE);
    assert_eq!(need_bucket(u32::MAX), NEED_BUCKETS - 1);
}

#[test]
fn the_highest_bit_is_found_whatever_lies_below_it() {
    assert_eq!(highest_bit(0), 0);
    for bit in 0..32 {
        let lowest = 1u32 << bit;
        assert_eq!(highest_bit(lowest), bit);
        assert_eq!(highest_bit(lowest | (lowest - 1)), bit);
        for other in 0..bit {
            assert_eq!(highest_bit(lowest | 1 << other), bit, "{bit} and {other}");
        }
    }
    for bits in 1..=0xffff {
        assert_eq!(highest_bit(bits), bits.ilog2(), "{bits:#x}");
        assert_eq!(highest_bit(bits << 16), bits.ilog2() + 16, "{bits:#x}0000");
    }
}

#[test]
fn headroom_is_a_percentage_rounded_down() {
    for pct in HEADROOMS_PCT {
        for need_cap in 0..=CAPACITY_SCALE {
            let exact = f64::from(need_cap) * f64::from(pct) / 100.0;
            assert_eq!(
                f64::from(with_headroom(need_cap, pct)),
                exact.floor(),
                "{need_cap} {pct}"
            );
        }
    }
}

#[test]
fn a_need_fits_until_its_headroom_is_a_whole_unit_too_large() {
    for pct in HEADROOMS_PCT.step_by(5) {
        for need_cap in 0..=CAPACITY_SCALE {
            let asked = f64::from(need_cap) * f64::from(pct) / 100.0;
            for capacity in (0..=CAPACITY_SCALE)
                .step_by(7)
                .chain([need_cap, need_cap * pct / 100])
            {
                let fitting = asked < f64::from(capacity) + 1.0;
                assert_eq!(
                    with_headroom(need_cap, pct) <= capacity,
                    fitting,
                    "{need_cap} {capacity} {pct}"
                );
            }
        }
    }
}

#[test]
fn what_a_task_counts_for_stays_within_its_clamps_of_which_the_upper_one_wins() {
    assert_eq!(clamped(300, 0, CAPACITY_SCALE), 300);
    assert_eq!(clamped(300, 500, CAPACITY_SCALE), 500);
    assert_eq!(clamped(300, 0, 200), 200);
    assert_eq!(clamped(300, 500, 200), 200, "as for the kernel");
}

#[test]
fn a_delay_is_counted_by_the_power_of_two_of_its_microseconds() {
    assert_eq!(delay_bucket(0), 0);
    assert_eq!(delay_bucket(1_999), 0);
    for bucket in 1..32u32 {
        let from_ns = 1000u64 << bucket;
        assert_eq!(delay_bucket(from_ns - 1), bucket - 1);
        assert_eq!(delay_bucket(from_ns), bucket);
    }
    assert_eq!(delay_bucket(1000 << 32), 31, "71 minutes");
    assert_eq!(delay_bucket(1000 << 33), 31);
    assert_eq!(delay_bucket(u64::MAX), 31);
}

#[test]
fn a_task_that_uses_less_than_before_needs_what_it_used() {
    assert_eq!(need_of(50, 300), 300);
    assert_eq!(need_of(300, 300), 300);
    assert_eq!(need_of(0, 0), 0);
}

#[test]
fn a_task_that_grows_is_taken_to_grow_on() {
    assert_eq!(need_of(110, 100), 120);
    assert_eq!(need_of(100, 0), 200, "a new one grows from nothing");
    assert_eq!(need_of(800, 100), CAPACITY_SCALE);
}

#[test]
fn a_task_awake_for_longer_than_between_its_wakeups_asks_for_more_than_it_gets() {
    const MS: u64 = 1_000_000;
    assert_eq!(catch_up_cap(16 * MS, 16 * MS, 400, 900), 0);
    assert_eq!(catch_up_cap(16 * MS + 1, 16 * MS, 400, 900), 450);
    assert_eq!(catch_up_cap(100 * MS, 16 * MS, 400, 900), 450);
    assert_eq!(
        catch_up_cap(100 * MS, 0, 400, 900),
        0,
        "it never woke before: nothing is known"
    );
    // tick after tick it asks for the next eighth, up to three quarters more than it takes as a rule
    for (usual, most) in [(900, CAPACITY_SCALE), (300, 525), (0, 0)] {
        let mut asked = 80;
        for _ in 0..30 {
            let next = catch_up_cap(20 * MS, 16 * MS, asked, usual);
            assert!(next > asked || next == most);
            asked = next;
        }
        assert_eq!(asked, most);
    }
}

#[test]
fn work_is_done_after_what_runs_and_what_waits_and_at_the_speed_of_the_cpu() {
    const MS: u64 = 1_000_000;
    assert_eq!(done_after_ns(2 * MS, 0, 4 * MS, 1024), 6 * MS);
    assert_eq!(done_after_ns(2 * MS, 3, 4 * MS, 512), 16 * MS);
    assert_eq!(
        done_after_ns(2 * MS, 0, 0, 0),
        2 * MS,
        "a CPU of which nothing is left"
    );
    // a faster CPU is worth waiting for, up to a point
    let slow = done_after_ns(MS, 0, 4 * MS, 490);
    assert!(done_after_ns(MS, 3, 4 * MS, 1024) < slow);
    assert!(done_after_ns(MS, 6, 4 * MS, 1024) > slow);
}

#[test]
fn what_a_task_takes_as_a_rule_is_its_work_in_the_time_between_wakeups() {
    const MS: u64 = 1_000_000;
    assert_eq!(usual_cap(5 * MS, 1024, 20 * MS), 256);
    assert_eq!(usual_cap(5 * MS, 256, 20 * MS), 64);
    assert_eq!(usual_cap(30 * MS, 1024, 20 * MS), CAPACITY_SCALE);
    assert_eq!(usual_cap(0, 0, 20 * MS), 0, "it has not slept yet");
    assert_eq!(usual_cap(5 * MS, 1024, 0), 0, "it has not woken again yet");
}

#[test]
fn beside_the_neediest_task_a_cpu_has_most_of_its_share_of_the_others() {
    assert_eq!(cpu_need(600, 300, 2), 412);
    assert_eq!(cpu_need(1000, 100, 4), 268);
    assert_eq!(cpu_need(1000, 10, 2), 500, "the share of all is more");
    assert_eq!(cpu_need(300, 300, 2), 300, "alone");
    assert_eq!(cpu_need(100, 300, 2), 300, "it has slept");
    assert_eq!(cpu_need(600, 0, 4), 150);
    assert_eq!(cpu_need(600, 100, 0), 600, "no CPU counts as one");
}

/// One wake-up of so many is late, in another place of every round.
fn guard_where_late(one_in: usize) -> u32 {
    let late = (0..100_000).map(|wakeup| wakeup % one_in == wakeup / one_in % one_in);
    late.fold(0, |guard, late| guard_after(guard, late, false))
}

#[test]
fn a_group_adds_headroom_while_more_than_one_wakeup_in_twenty_is_late() {
    let percent = |pct: u32| pct << 10;
    assert!(guard_where_late(25) < percent(3));
    assert!((percent(10)..percent(18)).contains(&guard_where_late(10)));
    assert!((percent(40)..percent(54)).contains(&guard_where_late(5)));
    let whole = percent(100);
    assert_eq!(guard_where_late(1), whole, "and no more");
    let after = |timely: u32| (0..timely).fold(whole, |guard, _| guard_after(guard, false, false));
    assert!((1..whole / 2).contains(&after(150)), "{}", after(150));
    assert_eq!(after(300), 0, "it forgets");
}

#[test]
fn a_group_adds_no_headroom_for_wakeups_that_none_could_help() {
    assert_eq!(
        (0..1000).fold(0, |guard, _| guard_after(guard, true, true)),
        0
    );
    let some = 10 << 10;
    assert_eq!(guard_after(some, true, true), some, "nor gives any back");
    assert!(guard_after(some, true, false) > some);
    assert!(guard_after(some, false, true) < some);
}

#[test]
fn an_energy_spent_in_every_interval_is_a_power() {
    assert_eq!(
        repeated_uw(20_000, 1_000_000),
        20_000,
        "20 uJ each ms are 20 mW"
    );
    assert_eq!(repeated_uw(MAX_NJ, 1), u64::from(MAX_NJ) * 1_000_000);
    assert_eq!(repeated_uw(20_000, 0), 0, "not known");
}

#[test]
fn a_wait_is_as_long_as_the_part_that_it_saves() {
    let tenth = |it: u64| (it + 5_000) / 10_000 * 10_000;
    assert_eq!(tenth(allowed_wait_ns(100_000, 50_000, 4000)), 1_980_000);
    assert_eq!(allowed_wait_ns(100_000, 100_000, 4000), 0);
    assert_eq!(allowed_wait_ns(100_000, u64::MAX, 4000), 0);
    assert_eq!(allowed_wait_ns(0, 0, 4000), 0);
    assert_eq!(allowed_wait_ns(100_000, 0, 0), 0);
}

#[test]
fn energies_of_wakeups_are_bounded() {
    assert!(wakes_are_sound(MAX_NJ, MAX_NJ, MAX_NJ));
    assert!(!wakes_are_sound(MAX_NJ + 1, 0, 0));
    assert!(!wakes_are_sound(0, MAX_NJ + 1, 0));
    assert!(!wakes_are_sound(0, 0, u32::MAX));
}

proptest! {
    #[test]
    fn a_wait_never_exceeds_patience(
        at_once in any::<u64>(), waiting in any::<u64>(), patience_us in 0..=20_000u32,
    ) {
        prop_assert!(allowed_wait_ns(at_once, waiting, patience_us) <= u64::from(patience_us) * 1000);
    }

    #[test]
    fn any_need_has_its_bucket(need_cap in any::<u32>()) {
        prop_assert_eq!(need_bucket(need_cap), (need_cap / 32).min(31));
    }

    #[test]
    fn any_bitmap_has_its_highest_bit(bits in 1..=u32::MAX) {
        prop_assert_eq!(highest_bit(bits), bits.ilog2());
    }

    #[test]
    fn any_set_has_its_lowest_bit(bits in any::<u64>(), shift in 0..64u32) {
        let bits = (bits | 1 << 63) >> shift;
        prop_assert_eq!(lowest_bit(bits), bits.trailing_zeros());
        prop_assert_eq!(lowest_bit(1 << shift), shift);
    }

    #[test]
    fn the_nearest_bit_is_the_next_one_round_the_word(bits in any::<u64>(), shift in 0..64u32, from in 0..64u32) {
        let bits = bits >> shift & bits;
        let round = (from..64).chain(0..from).find(|bit| bits >> bit & 1 == 1);
        prop_assert_eq!(nearest_bit(bits, from), round.map_or(0, |bit| 1 << bit));
    }

    #[test]
    fn the_nearest_group_is_under_the_same_cache_else_in_the_same_node(
        groups in any::<u64>(), caches in any::<[u64; 2]>(), node in any::<u64>(), from in 0..64u32,
    ) {
        // few are alike, and those under one cache are in one node
        let groups = groups & caches[0].rotate_left(7);
        let node = node | 1 << from;
        let cache = caches[0] & caches[1] & node | 1 << from;
        let found = nearest_of(groups, cache, node, from);
        let near = [groups & cache, groups & node, groups].into_iter().find(|near| *near != 0);
        prop_assert_eq!(found, nearest_bit(near.unwrap_or(0), from));
    }

    #[test]
    fn any_delay_has_its_bucket(waited_ns in any::<u64>(), shift in 0..64u32) {
        let waited_ns = waited_ns >> shift;
        let expected = (waited_ns / 1000).max(1).ilog2().min(31);
        prop_assert_eq!(delay_bucket(waited_ns), expected);
    }

    #[test]
    fn the_slowest_opp_that_suffices_is_chosen_else_the_fastest((opps, row) in rows(1..=32)) {
        for wanted_cap in wanted().chain([u32::MAX]) {
            let expected = slowest_sufficient(&opps, f64::from(wanted_cap));
            prop_assert_eq!(row.opp_for(wanted_cap) as usize, expected, "{} wanted", wanted_cap);
        }
    }

    #[test]
    fn of_the_opps_that_suffice_the_one_is_used_where_work_is_cheapest(
        (opps, row) in rows(1..=32), wanted_cap in wanted(),
    ) {
        let slowest = slowest_sufficient(&opps, f64::from(wanted_cap));
        let expected = cheapest_from(&row, slowest);
        prop_assert_eq!(row.run_at(wanted_cap) as usize, expected, "{} wanted", wanted_cap);
        let asked_cap = row.cap_to_ask(wanted_cap);
        let granted = slowest_sufficient(&opps, f64::from(asked_cap));
        prop_assert_eq!(granted, expected, "{} asked for", asked_cap);
    }

    #[test]
    fn the_nearest_opp_is_nearest_and_of_two_the_faster((opps, row) in rows(1..=32)) {
        for delivered_cap in wanted() {
            let chosen = row.nearest_opp(delivered_cap) as usize;
            prop_assert!(chosen < opps.len());
            let nearest = opps.iter().enumerate().rev();
            let nearest = nearest.min_by_key(|(_, it)| it.abs_diff(delivered_cap));
            prop_assert_eq!(Some((chosen, &opps[chosen])), nearest, "{} delivered", delivered_cap);
        }
    }

    #[test]
    fn a_row_without_opps_is_not_indexed_out_of_range(
        (_, row) in rows(0..=0), cap in any::<u32>(), load in loads(),
    ) {
        prop_assert_eq!(row.opp_for(cap), 0);
        prop_assert_eq!(row.run_at(cap), 0);
        prop_assert_eq!(row.nearest_opp(cap), 0);
        let idle = Load { sum_cap: 0, ..load };
        prop_assert_eq!(row.group_power_uw(&idle), 0);
    }

    #[test]
    fn a_row_that_claims_too_many_opps_is_not_indexed_out_of_range(
        (_, row) in rows(32..=32), nr_opps in 33..=u32::MAX, cap in any::<u32>(),
    ) {
        let row = Row { nr_opps, ..row };
        prop_assert!((row.opp_for(cap) as usize) < MAX_OPPS);
        prop_assert!((row.run_at(cap) as usize) < MAX_OPPS);
        prop_assert!((row.nearest_opp(cap) as usize) < MAX_OPPS);
    }

    #[test]
    fn ascending_opps_with_bounded_powers_are_sound((_, row) in rows(0..=32)) {
        prop_assert!(row.is_sound());
    }

    #[test]
    fn one_bad_entry_makes_a_row_unsound(
        (opps, row) in rows(1..=32),
        index in any::<prop::sample::Index>(),
        too_fast in CAPACITY_SCALE + 1..,
        too_much_uw in MAX_UW + 1..,
        too_many in 33u32..,
    ) {
        let at = index.index(opps.len());
        let previous = at.checked_sub(1).map_or(0, |it| opps[it]);
        let mut rows = vec![row; 6];
        rows[0].capacity[at] = previous;
        rows[1].capacity[at] = previous.saturating_sub(1);
        rows[2].capacity[at] = too_fast;
        rows[3].busy_uw[at] = too_much_uw;
        rows[4].shared_uw[at] = too_much_uw;
        rows[5].nr_opps = too_many;
        for (fault, row) in rows.iter().enumerate() {
            prop_assert!(!row.is_sound(), "fault {} at OPP {}", fault, at);
        }
    }

    /// Rounding the wanted capacity down may choose an OPP that is short by that rounding; the power
    /// itself is rounded down twice.
    #[test]
    fn a_group_draws_its_busy_time_and_the_shared_power_at_the_cheapest_opp_it_may_use(
        (opps, row) in rows(1..=32), load in loads(),
    ) {
        let headroom = f64::from(load.headroom_pct) / 100.0;
        let (top, cpus) = (f64::from(load.top_cap), f64::from(load.nr_cpus.max(1)));
        let sum = f64::from(load.sum_cap);
        let asked = (top + (sum - top).max(0.0) * 0.75 / cpus).max(sum / cpus) * headroom;
        let slowest = slowest_sufficient(&opps, asked - 2.0 * headroom - 1.0);
        let fastest = slowest_sufficient(&opps, asked);

        let power = row.group_power_uw(&load) as f64;
        let explained = (slowest..=fastest).any(|opp| {
            let exact = power_at(&row, cheapest_from(&row, opp), load.sum_cap);
            (-1e-12 * exact..2.0 + 1e-12 * exact).contains(&(exact - power))
        });
        prop_assert!(explained, "{} uW, OPP {} to {}", power, slowest, fastest);
    }

    /// Rounded down twice: the shared part, and the whole.
    #[test]
    fn with_a_clock_of_its_own_a_task_pays_for_its_cpu_and_for_what_the_others_do_not_share(
        (opps, row) in rows(1..=32),
        need_cap in 0..=CAPACITY_SCALE,
        wanted_cap in wanted(),
        others_cap in prop_oneof![Just(0), 0..=CAPACITY_SCALE, any::<u32>()],
    ) {
        let opp = slowest_sufficient(&opps, f64::from(wanted_cap));
        let capacity = f64::from(opps[opp]);
        let alone = (1.0 - f64::from(others_cap) / capacity).max(0.0);
        let busy = f64::from(need_cap) / capacity;
        let exact = busy * (f64::from(row.busy_uw[opp]) + alone * f64::from(row.shared_uw[opp]));
        let power = row.added_power_uw(need_cap, wanted_cap, others_cap) as f64;
        let error = exact - power;
        prop_assert!((-1e-12 * exact..1.0 + busy + 1e-12 * exact).contains(&error), "{power} for {exact}");
    }
}

#[test]
fn the_largest_power_under_the_largest_load_does_not_overflow() {
    let opps = Row {
        nr_opps: 1,
        capacity: [1; MAX_OPPS],
        busy_uw: [MAX_UW; MAX_OPPS],
        shared_uw: [MAX_UW; MAX_OPPS],
    };
    let load = Load {
        sum_cap: 16 * TASKS_PER_CPU * CAPACITY_SCALE,
        top_cap: CAPACITY_SCALE,
        nr_cpus: 16,
        headroom_pct: *HEADROOMS_PCT.end(),
    };
    let busy_uw = u64::from(load.sum_cap) * u64::from(MAX_UW);
    assert_eq!(opps.group_power_uw(&load), busy_uw + u64::from(MAX_UW));

    let most = Load {
        sum_cap: u32::MAX,
        nr_cpus: 0,
        ..load
    };
    let busy_uw = u64::from(u32::MAX) * u64::from(MAX_UW);
    assert_eq!(
        opps.group_power_uw(&most),
        busy_uw + u64::from(MAX_UW),
        "any sum at all"
    );
}
