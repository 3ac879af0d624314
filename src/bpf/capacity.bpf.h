/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is left of the groups' CPUs for the tasks that are scheduled here.
 *
 * Two things make CPUs smaller than they are. Their clocks have limits, which
 * thermal drivers, power savers and users set. And some things run before any
 * of these tasks: interrupts, real-time and deadline tasks. Of those the kernel
 * keeps averages for each CPU, with the half-life of all utilisation and on the
 * scale of capacity (avg_rt, avg_dl and avg_irq, kernel/sched/pelt.c). They are
 * looked at when the CPU goes idle or to work and at its ticks, and make its
 * group smaller by their mean: tasks go to whichever CPU of a group is free.
 *
 * Units: as in policy.bpf.h, whose fixed point and decay the sums have.
 *
 * Concurrency: what a CPU notes of itself, nobody else writes. A group's sum has
 * a lock, taken only while something presses or did until now.
 *
 * Limits: where CPUs have a clock each, the limit that was set last counts for
 * all: it is one for all as a rule. A task that is interrupted by a real-time
 * task stays with its CPU.
 */
#ifndef __JOULE_CAPACITY_BPF_H
#define __JOULE_CAPACITY_BPF_H

/* What the limits of their clocks leave of each group's CPUs; user space says so at first. */
u32 limited_cap[JOULE_MAX_GROUPS];

struct pressure {
	struct bpf_spin_lock lock;
	u64 sum; /* over the group's CPUs, UTIL_SHIFT fixed point, as of `at` */
	u64 at;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, JOULE_MAX_GROUPS);
	__type(key, u32);
	__type(value, struct pressure);
} pressures SEC(".maps");

/* What the groups' sums have of each CPU, as of when. */
static u64 pressure_of_cpu[JOULE_MAX_CPUS], pressure_at[JOULE_MAX_CPUS];

/* Bit g: group g was under pressure when one of its CPUs was last looked at. */
static u64 pressed_groups;

/* Less than this is what any CPU spends on its interrupts. */
#define LEAST_PRESSURE_CAP 64

extern struct rq runqueues __ksym;

/* Kernels with CONFIG_HAVE_SCHED_AVG_IRQ (kernel/sched/sched.h). */
struct rq___irq {
	struct sched_avg avg_irq;
} __attribute__((preserve_access_index));

static __always_inline void note_limit(u32 group, u32 khz, u32 top_khz)
{
	u32 *cap = MEMBER_VPTR(limited_cap, [group]), full = group_capacity(group);

	if (cap && top_khz)
		WRITE_ONCE(*cap, khz < top_khz ? (u64)full * khz / top_khz : full);
}

/* An average of the kernel's, brought up to date: on a CPU that idles it does not do so itself. */
static __always_inline u64 average_at(const struct sched_avg *avg, u64 now)
{
	u64 util = min_u64(avg->util_avg, CAPACITY_SCALE) << UTIL_SHIFT;

	return decay(util, elapsed_ns(now, avg->last_update_time));
}

/* What runs on the CPU before any of these tasks, as utilisation; 0 when that is little. */
static __always_inline u64 pressure_on(s32 cpu)
{
	const struct rq *rq = bpf_per_cpu_ptr(&runqueues, cpu);
	const struct rq___irq *with_irq = (const void *)rq;
	u64 now, sum;

	if (!rq)
		return 0;
	sum = rq->avg_rt.util_avg + rq->avg_dl.util_avg;
	if (bpf_core_field_exists(with_irq->avg_irq))
		sum += with_irq->avg_irq.util_avg;
	if (sum < LEAST_PRESSURE_CAP)
		return 0;
	/* rq_clock_pelt(), kernel/sched/pelt.h; interrupts are averaged on the run queue's clock */
	now = rq->clock_pelt - rq->lost_idle_time;
	sum = average_at(&rq->avg_rt, now) + average_at(&rq->avg_dl, now);
	if (bpf_core_field_exists(with_irq->avg_irq))
		sum += average_at(&with_irq->avg_irq, rq->clock);
	return util_cap(sum) < LEAST_PRESSURE_CAP ? 0 : sum;
}

/* Looks at what presses on the CPU. */
static void note_pressure(s32 cpu, u64 now)
{
	u64 *mine = MEMBER_VPTR(pressure_of_cpu, [cpu]), *at = MEMBER_VPTR(pressure_at, [cpu]);
	u64 new = pressure_on(cpu), old, sum;
	struct pressure *pressure;
	u32 group;

	if (!mine || !at || !(*mine | new))
		return;
	group = group_of_cpu(cpu);
	pressure = bpf_map_lookup_elem(&pressures, &group);
	if (!pressure)
		return;
	old = decay(*mine, elapsed_ns(now, *at));
	*mine = new;
	*at = now;
	bpf_spin_lock(&pressure->lock);
	sum = decay(pressure->sum, elapsed_ns(now, pressure->at)) + new;
	sum -= min_u64(old, sum);
	pressure->sum = sum;
	pressure->at = now;
	bpf_spin_unlock(&pressure->lock);
	set_member(&pressed_groups, group, util_cap(sum));
}

/* By how much the group's CPUs are smaller for what presses on them, on average. */
static __noinline u32 group_pressure(u32 group)
{
	const volatile struct joule_group *info = group_info(group);
	struct pressure *pressure = bpf_map_lookup_elem(&pressures, &group);

	if (!info || !pressure)
		return 0;
	return util_cap(decay(pressure->sum, elapsed_ns(scx_bpf_now(), pressure->at))) /
	       max_u32(info->nr_cpus, 1);
}

/* The most that a CPU of the group delivers, at the limit of its clock. */
static __always_inline u32 group_limit(u32 group)
{
	u32 *cap = MEMBER_VPTR(limited_cap, [group]);

	return cap ? READ_ONCE(*cap) : 0;
}

/* What a CPU of the group offers to a task. */
static __always_inline u32 group_offers(u32 group)
{
	u32 cap = group_limit(group);

	if (READ_ONCE(pressed_groups) & group_bit(group))
		cap -= min_u32(group_pressure(group), cap);
	return cap;
}

#endif /* __JOULE_CAPACITY_BPF_H */
