//! The functions of shim.c. Units and meaning: src/bpf/policy.bpf.h.
#![allow(unsafe_code)]

use crate::MAX_OPPS;

/// One column of a cost row.
type Column = [u32; MAX_OPPS];

// SAFETY: shim.c defines each function with this signature. All are total over their arguments, keep
// nothing and touch no state; behind a reference they read MAX_OPPS elements, which a column has.
// Behaviour that C leaves undefined is compiled to a trap.
unsafe extern "C" {
    #[link_name = "policy_decay"]
    pub safe fn decay(value: u64, dt_ns: u64) -> u64;
    #[link_name = "policy_util_after"]
    pub safe fn util_after(util: u64, work_ns: u64) -> u64;
    #[link_name = "policy_work_of"]
    pub safe fn work_of(delivered: u64) -> u64;
    #[link_name = "policy_util_asleep"]
    pub safe fn util_asleep(util: u64, lost_ns: u64) -> u64;
    #[link_name = "policy_share_inside"]
    pub safe fn share_inside(share: u64, weight: u32, sum: i64, group_weight: u32) -> u64;
    #[link_name = "policy_virtual_ns"]
    pub safe fn virtual_ns(ran_ns: u64, share: u64) -> u64;
    #[link_name = "policy_vtime_by"]
    pub safe fn vtime_by(clock: u64, vtime: u64, most_behind_ns: u64) -> u64;
    #[link_name = "policy_util_cap"]
    pub safe fn util_cap(util: u64) -> u32;
    #[link_name = "policy_util_est_after"]
    pub safe fn util_est_after(est_cap: u32, at_sleep_cap: u32, interval_ns: u64) -> u32;
    #[link_name = "policy_pace_after"]
    pub safe fn pace_after(pace_cap: u32, ran_ns: u64, lost_ns: u64) -> u32;
    #[link_name = "policy_interval_after"]
    pub safe fn interval_after(mean_ns: u64, last_ns: u64) -> u64;
    #[link_name = "policy_mean_after"]
    pub safe fn mean_after(mean: u64, last: u64) -> u64;
    #[link_name = "policy_left_ns"]
    pub safe fn left_ns(end: u64, now: u64) -> u64;
    #[link_name = "policy_need_bucket"]
    pub safe fn need_bucket(need_cap: u32) -> u32;
    #[link_name = "policy_bucket_cap"]
    pub safe fn bucket_cap(bucket: u32) -> u32;
    #[link_name = "policy_highest_bit"]
    pub safe fn highest_bit(bits: u32) -> u32;
    #[link_name = "policy_lowest_bit"]
    pub safe fn lowest_bit(bits: u64) -> u32;
    #[link_name = "policy_nearest_of"]
    pub safe fn nearest_of(groups: u64, same_cache: u64, same_node: u64, from: u32) -> u64;
    #[link_name = "policy_nearest_bit"]
    pub safe fn nearest_bit(bits: u64, from: u32) -> u64;
    #[link_name = "policy_with_headroom"]
    pub safe fn with_headroom(need_cap: u32, headroom_pct: u32) -> u32;
    #[link_name = "policy_delay_bucket"]
    pub safe fn delay_bucket(waited_ns: u64) -> u32;
    #[link_name = "policy_catch_up_cap"]
    pub safe fn catch_up_cap(awake_ns: u64, interval_ns: u64, capacity: u32, usual_cap: u32)
    -> u32;
    #[link_name = "policy_done_after_ns"]
    pub safe fn done_after_ns(busy_ns: u64, nr_waiting: u32, work_ns: u64, capacity: u32) -> u64;
    #[link_name = "policy_usual_cap"]
    pub safe fn usual_cap(run_ns: u64, pace_cap: u32, interval_ns: u64) -> u32;
    #[link_name = "policy_need_of"]
    pub safe fn need_of(used_cap: u32, est_cap: u32) -> u32;
    #[link_name = "policy_guard_after"]
    pub safe fn guard_after(guard: u32, late: i32, at_top: i32) -> u32;
    #[link_name = "policy_cpu_need"]
    pub safe fn cpu_need(sum_cap: u32, top_cap: u32, nr_cpus: u32) -> u32;
    #[link_name = "policy_repeated_uw"]
    pub safe fn repeated_uw(nj: u32, interval_ns: u64) -> u64;
    #[link_name = "policy_allowed_wait_ns"]
    pub safe fn allowed_wait_ns(at_once_uw: u64, waiting_uw: u64, patience_us: u32) -> u64;
    #[link_name = "policy_wakes_are_sound"]
    pub safe fn wakes_are_sound(shallow_nj: u32, deep_nj: u32, group_nj: u32) -> i32;
    #[link_name = "policy_clamped"]
    pub safe fn clamped(cap: u32, least_cap: u32, most_cap: u32) -> u32;
    #[link_name = "policy_opp_for"]
    pub safe fn opp_for(
        nr_opps: u32,
        capacity: &Column,
        busy_uw: &Column,
        shared_uw: &Column,
        wanted_cap: u32,
    ) -> u32;
    #[link_name = "policy_run_at"]
    pub safe fn run_at(
        nr_opps: u32,
        capacity: &Column,
        busy_uw: &Column,
        shared_uw: &Column,
        wanted_cap: u32,
    ) -> u32;
    #[link_name = "policy_cap_to_ask"]
    pub safe fn cap_to_ask(
        nr_opps: u32,
        capacity: &Column,
        busy_uw: &Column,
        shared_uw: &Column,
        wanted_cap: u32,
    ) -> u32;
    #[link_name = "policy_nearest_opp"]
    pub safe fn nearest_opp(
        nr_opps: u32,
        capacity: &Column,
        busy_uw: &Column,
        shared_uw: &Column,
        delivered_cap: u32,
    ) -> u32;
    #[link_name = "policy_row_is_sound"]
    pub safe fn row_is_sound(
        nr_opps: u32,
        capacity: &Column,
        busy_uw: &Column,
        shared_uw: &Column,
    ) -> i32;
    #[link_name = "policy_group_power_uw"]
    pub safe fn group_power_uw(
        nr_opps: u32,
        capacity: &Column,
        busy_uw: &Column,
        shared_uw: &Column,
        sum_cap: u32,
        top_cap: u32,
        nr_cpus: u32,
        headroom_pct: u32,
    ) -> u64;
    #[link_name = "policy_added_power_uw"]
    pub safe fn added_power_uw(
        nr_opps: u32,
        capacity: &Column,
        busy_uw: &Column,
        shared_uw: &Column,
        need_cap: u32,
        wanted_cap: u32,
        others_cap: u32,
    ) -> u64;
}
