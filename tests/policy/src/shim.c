/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The functions of policy.bpf.h, which are inline, as functions that can be
 * linked. Structures come as their parts, so that Rust has no copy of a layout;
 * the constants that Rust does repeat are asserted here.
 */
#include <string.h>

#include "policy.bpf.h"

_Static_assert(UTIL_SHIFT == 20, "UTIL_SHIFT in lib.rs");
_Static_assert(CAPACITY_SCALE == 1024, "CAPACITY_SCALE in lib.rs");
_Static_assert(HALF_LIFE_SHIFT == 25, "HALF_LIFE_NS in lib.rs");
_Static_assert(JOULE_MAX_OPPS == 32, "MAX_OPPS in lib.rs");
_Static_assert(JOULE_MAX_UW == 1000000000U, "MAX_UW in lib.rs");
_Static_assert(JOULE_MAX_NJ == 1000000000U, "MAX_NJ in lib.rs");
_Static_assert(SHARE_SHIFT == 10, "SHARE_SHIFT in lib.rs");
_Static_assert(NEED_BUCKETS == 32, "NEED_BUCKETS in lib.rs");
_Static_assert(JOULE_DELAY_BUCKETS == 32, "highest_bit() reaches each delay bucket and no further");

static struct joule_cost_row row_of(u32 nr_opps, const u32 *capacity, const u32 *busy_uw,
				    const u32 *shared_uw)
{
	struct joule_cost_row row = {.nr_opps = nr_opps};

	memcpy(row.capacity, capacity, sizeof(row.capacity));
	memcpy(row.busy_uw, busy_uw, sizeof(row.busy_uw));
	memcpy(row.shared_uw, shared_uw, sizeof(row.shared_uw));
	index_opps(&row);
	rank_opps(&row);
	return row;
}

u64 policy_decay(u64 value, u64 dt_ns)
{
	return decay(value, dt_ns);
}

u64 policy_util_after(u64 util, u64 work_ns)
{
	return util_after(util, work_ns);
}

u64 policy_work_of(u64 delivered)
{
	return work_of(delivered);
}

u64 policy_util_asleep(u64 util, u64 lost_ns)
{
	return util_asleep(util, lost_ns);
}

u64 policy_share_inside(u64 share, u32 weight, s64 sum, u32 group_weight)
{
	return share_inside(share, weight, sum, group_weight);
}

u64 policy_virtual_ns(u64 ran_ns, u64 share)
{
	return virtual_ns(ran_ns, share);
}

u64 policy_vtime_by(u64 clock, u64 vtime, u64 most_behind_ns)
{
	return vtime_by(clock, vtime, most_behind_ns);
}

u32 policy_util_cap(u64 util)
{
	return util_cap(util);
}

u32 policy_util_est_after(u32 est_cap, u32 at_sleep_cap, u64 interval_ns)
{
	return util_est_after(est_cap, at_sleep_cap, interval_ns);
}

u32 policy_pace_after(u32 pace_cap, u64 ran_ns, u64 lost_ns)
{
	return pace_after(pace_cap, ran_ns, lost_ns);
}

u64 policy_interval_after(u64 mean_ns, u64 last_ns)
{
	return interval_after(mean_ns, last_ns);
}

u64 policy_mean_after(u64 mean, u64 last)
{
	return mean_after(mean, last);
}

u64 policy_left_ns(u64 end, u64 now)
{
	return left_ns(end, now);
}

u32 policy_need_bucket(u32 need_cap)
{
	return need_bucket(need_cap);
}

u32 policy_bucket_cap(u32 bucket)
{
	return bucket_cap(bucket);
}

u32 policy_highest_bit(u32 bits)
{
	return highest_bit(bits);
}

u32 policy_with_headroom(u32 need_cap, u32 headroom_pct)
{
	return with_headroom(need_cap, headroom_pct);
}

u32 policy_delay_bucket(u64 waited_ns)
{
	return delay_bucket(waited_ns);
}

u32 policy_catch_up_cap(u64 awake_ns, u64 interval_ns, u32 capacity, u32 usual_cap)
{
	return catch_up_cap(awake_ns, interval_ns, capacity, usual_cap);
}

u64 policy_done_after_ns(u64 busy_ns, u32 nr_waiting, u64 work_ns, u32 capacity)
{
	return done_after_ns(busy_ns, nr_waiting, work_ns, capacity);
}

u32 policy_usual_cap(u64 run_ns, u32 pace_cap, u64 interval_ns)
{
	return usual_cap(run_ns, pace_cap, interval_ns);
}

u32 policy_need_of(u32 used_cap, u32 est_cap)
{
	return need_of(used_cap, est_cap);
}

u32 policy_guard_after(u32 guard, int late, int at_top)
{
	return guard_after(guard, late, at_top);
}

u32 policy_lowest_bit(u64 bits)
{
	return lowest_bit(bits);
}

u64 policy_nearest_bit(u64 bits, u32 from)
{
	return nearest_bit(bits, from);
}

u64 policy_nearest_of(u64 groups, u64 same_cache, u64 same_node, u32 from)
{
	return nearest_of(groups, same_cache, same_node, from);
}

u32 policy_cpu_need(u32 sum_cap, u32 top_cap, u32 nr_cpus)
{
	struct load load = {.sum_cap = sum_cap, .top_cap = top_cap};

	return cpu_need(&load, nr_cpus);
}

u64 policy_repeated_uw(u32 nj, u64 interval_ns)
{
	return repeated_uw(nj, interval_ns);
}

u64 policy_allowed_wait_ns(u64 at_once_uw, u64 waiting_uw, u32 patience_us)
{
	return allowed_wait_ns(at_once_uw, waiting_uw, patience_us);
}

/* Of a row whose OPPs are sound. */
int policy_wakes_are_sound(u32 shallow_nj, u32 deep_nj, u32 group_nj)
{
	struct joule_cost_row row = {
		.nr_opps = 1,
		.capacity = {1},
		.wake_nj = {shallow_nj, deep_nj},
		.group_wake_nj = group_nj,
	};

	return row_is_sound(&row);
}

u32 policy_clamped(u32 cap, u32 least_cap, u32 most_cap)
{
	return clamped(cap, least_cap, most_cap);
}

u32 policy_opp_for(u32 nr_opps, const u32 *capacity, const u32 *busy_uw, const u32 *shared_uw,
		   u32 wanted_cap)
{
	struct joule_cost_row row = row_of(nr_opps, capacity, busy_uw, shared_uw);

	return opp_for(&row, wanted_cap);
}

u32 policy_run_at(u32 nr_opps, const u32 *capacity, const u32 *busy_uw, const u32 *shared_uw,
		  u32 wanted_cap)
{
	struct joule_cost_row row = row_of(nr_opps, capacity, busy_uw, shared_uw);

	return run_at(&row, wanted_cap);
}

u32 policy_cap_to_ask(u32 nr_opps, const u32 *capacity, const u32 *busy_uw, const u32 *shared_uw,
		      u32 wanted_cap)
{
	struct joule_cost_row row = row_of(nr_opps, capacity, busy_uw, shared_uw);

	return cap_to_ask(&row, wanted_cap);
}

u32 policy_nearest_opp(u32 nr_opps, const u32 *capacity, const u32 *busy_uw, const u32 *shared_uw,
		       u32 delivered_cap)
{
	struct joule_cost_row row = row_of(nr_opps, capacity, busy_uw, shared_uw);

	return nearest_opp(&row, delivered_cap);
}

int policy_row_is_sound(u32 nr_opps, const u32 *capacity, const u32 *busy_uw, const u32 *shared_uw)
{
	struct joule_cost_row row = row_of(nr_opps, capacity, busy_uw, shared_uw);

	return row_is_sound(&row);
}

u64 policy_group_power_uw(u32 nr_opps, const u32 *capacity, const u32 *busy_uw,
			  const u32 *shared_uw, u32 sum_cap, u32 top_cap, u32 nr_cpus,
			  u32 headroom_pct)
{
	struct joule_cost_row row = row_of(nr_opps, capacity, busy_uw, shared_uw);
	struct load load = {.sum_cap = sum_cap, .top_cap = top_cap};

	return group_power_uw(&row, &load, nr_cpus, headroom_pct);
}

u64 policy_added_power_uw(u32 nr_opps, const u32 *capacity, const u32 *busy_uw,
			  const u32 *shared_uw, u32 need_cap, u32 wanted_cap, u32 others_cap)
{
	struct joule_cost_row row = row_of(nr_opps, capacity, busy_uw, shared_uw);

	return added_power_uw(&row, need_cap, wanted_cap, others_cap);
}
