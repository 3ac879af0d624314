/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a place costs a task.
 *
 * The power that a group would draw with the task, less what it draws without it. CPUs that share a
 * clock run at what the neediest of them asks for, so a task may make everybody's work dearer.
 * Where each CPU has a clock of its own, a task pays for its own CPU, at the pace that it has been
 * running at. Waking a CPU adds its energy, as power: paid once in the time between two wake-ups of
 * the task.
 *
 * A CPU that an interrupt has waked costs nothing to wake. As a rule the timer that wakes
 * a task goes off where the task ran last, so that this tells of the past only. But some wake
 * it from elsewhere, wherever it runs: timers of which the kernel has one idle CPU take care
 * for the others, and devices. Such a task is cheapest on the CPU that they have waked.
 *
 * Units: uW, and nJ of waking; capacity on the scale of 1024.
 *
 * Cost: O(1) for a group, whatever it holds.
 *
 * Concurrency: loads are read without a lock and may be one update old.
 *
 * Limits: the power that an idle CPU draws does not count.
 */
#ifndef __JOULE_PRICE_BPF_H
#define __JOULE_PRICE_BPF_H

/* What a task asks of groups. Small, as three frames below it share 512 bytes of stack. */
struct demand {
	u16 need_cap;	 /* that it will use, and that the clock must offer */
	u16 fitting_cap; /* least capacity of a CPU that it fits */
	u16 staying_cap; /* the same, of one of the group below */
	u16 pace_cap;	 /* of the CPUs that it ran on */
	u16 group;	 /* in whose sum it is already, with */
	u16 awake_group; /* of the CPU that has been waked for it; JOULE_NO_GROUP: none */
	u64 util;
	u64 interval_ns; /* between two of its wake-ups; 0: not known */
	u64 work_ns;	 /* from waking to sleeping, of a CPU of full capacity; 0: not known */
	u64 now;
};

/* The clock that hardware chooses by itself leaves a quarter, as a rule. */
#define HARDWARE_HEADROOM_PCT 125

/* Energy of waking a CPU of the group, nJ. */
static __always_inline u32 wake_nj(u32 group, const struct joule_cost_row *row, u64 now)
{
	struct joule_activity *activity = bpf_map_lookup_elem(&activities, &group);

	if (!activity)
		return 0;
	if (is_shallow(activity->idle_cpu, now))
		return row->wake_nj[JOULE_SHALLOW];
	if (activity->busy_cpus)
		return row->wake_nj[JOULE_DEEP];
	return row->wake_nj[JOULE_DEEP] + row->group_wake_nj;
}

/* What waking a CPU of the group for the task adds, by the table in `slot`, uW. */
static __always_inline u64 waking_uw(u32 group, u32 slot, const struct demand *demand)
{
	const struct joule_cost_row *row = costs_of_group(group, slot);

	if (!row || group == demand->awake_group)
		return 0;
	return repeated_uw(wake_nj(group, row, demand->now), demand->interval_ns);
}

/*
 * What the task adds to the group while it runs there, by the table in `slot`, uW. A global
 * function: verified once, and not for each place that it is called from.
 */
__weak u64 running_uw(u32 group, u32 slot, const struct demand *demand)
{
	const struct joule_cost_row *row = costs_of_group(group, slot);
	const volatile struct joule_group *info = group_info(group);
	const struct group_ctx *gctx = group_ctx_of(group);
	u32 nr_cpus, headroom_pct, wanted;
	struct load load;
	u64 before, after;

	if (!demand || !row || !info || !gctx)
		return 0;
	load.sum_cap = group_sum_cap(gctx, demand->group == group ? demand->util : 0, demand->now);
	if (info->per_cpu_freq) {
		wanted = with_headroom(demand->need_cap, HARDWARE_HEADROOM_PCT);
		wanted = max_u32(wanted, demand->pace_cap);
		return added_power_uw(row, demand->need_cap, wanted, load.sum_cap);
	}
	nr_cpus = info->nr_cpus;
	headroom_pct = group_headroom_pct(gctx);
	load.top_cap = group_top_cap(gctx);
	before = load.sum_cap ? group_power_uw(row, &load, nr_cpus, headroom_pct) : 0;
	load.sum_cap += demand->need_cap;
	load.top_cap = max_u32(load.top_cap, demand->need_cap);
	after = group_power_uw(row, &load, nr_cpus, headroom_pct);
	return after > before ? after - before : 0;
}

#endif /* __JOULE_PRICE_BPF_H */
