/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Seats: to whom a CPU belongs that starts slowly.
 *
 * Its clock, which hardware sets, follows what runs there: it suits one task, and is too high or
 * too low for another. Where there are more tasks than CPUs of the cheapest kind, whoever finds its
 * CPU taken takes that of the next one, and so on: all clocks are up, and now and then somebody has
 * to begin on a big CPU whose clock is low, which takes longer than most deadlines allow.
 *
 * So each task that uses a CPU for more than a little has a seat: the CPU that it goes back to. A
 * task without one, or whose seat is taken at the moment, looks at a few idle CPUs of the group
 * that is cheapest for it. It sits down where nobody has a seat, or has not come back for long,
 * or takes the seat of a task that uses far more than itself. Where it finds none of these it
 * goes back to its own, in whichever group that is, or, without one, looks in the other groups of
 * the same size, and in bigger ones. So in the end the neediest are on the biggest CPUs, and
 * everybody on one that has the right clock. Who finds no seat is a guest on any idle CPU
 * (claim_idle).
 *
 * Units: capacity on the scale of 1024.
 *
 * Concurrency: a seat is written by whoever has just claimed its CPU, idle until then, or by its
 * owner, who leaves it; and read from anywhere without a lock. Of two that write at once one
 * becomes a guest of the other.
 *
 * Cost: who finds its seat idle asks nobody else. Whoever does not looks at three CPUs in each
 * group, or, where there are many groups, in one.
 *
 * Limits: not where two threads share a core, and so a clock. Owners are told by their thread ids:
 * an id that is used again within a few intervals gets the seat, too.
 */
#ifndef __JOULE_SEAT_BPF_H
#define __JOULE_SEAT_BPF_H

/* Who uses less than this as a rule has no seat: a clock hardly follows it. */
#define SEATED_CAP (CAPACITY_SCALE / 16)

/* Who has not come back for so many of its intervals has given up its seat. */
#define SEAT_INTERVALS 4

/* So many idle CPUs of a group are looked at. */
#define SEATS_TRIED 3

/* Whether such a task has, or may have, a seat in such a group. */
static __always_inline bool may_sit(const struct task_struct *p, const struct task_ctx *tctx,
				    u32 group)
{
	return !smt_enabled && starts_slowly(group) && tctx->usual_cap >= SEATED_CAP &&
	       may_use_all(p);
}

static __always_inline bool is_owner(const struct cpu_ctx *cctx, const struct task_struct *p)
{
	return cctx->seat_cap && cctx->seat_pid == p->pid;
}

/* The CPU on which the task has its seat; negative if it has none. */
static __always_inline s32 seat_of(const struct task_struct *p, const struct task_ctx *tctx)
{
	s32 cpu = (s32)tctx->seat - 1;
	const struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	return cctx && is_owner(cctx, p) ? cpu : -ENOENT;
}

/* The task, which has claimed the CPU, has its seat there from now on. */
static __always_inline void sit_down(const struct task_struct *p, struct task_ctx *tctx, s32 cpu,
				     u64 now)
{
	struct cpu_ctx *before = cpu_ctx_of(seat_of(p, tctx)), *cctx = cpu_ctx_of(cpu);

	if (!cctx)
		return;
	if (before)
		before->seat_cap = 0;
	tctx->seat = cpu + 1;
	cctx->seat_pid = p->pid;
	cctx->seat_cap = tctx->usual_cap;
	cctx->seat_until = now + SEAT_INTERVALS * tctx->interval_ns;
}

/*
 * An idle CPU of the group on which nobody has a seat, or, of those looked at, the one whose owner
 * uses most, if that is half as much again as what the task does; negative where there is none. The
 * one that it ran on comes first.
 */
static __always_inline s32 find_seat(const struct task_struct *p, const struct task_ctx *tctx,
				     u32 group, const struct cpumask *idle_cpus, u64 now)
{
	const struct cpumask *cpus = cpus_of_group(group);
	u32 most_cap = tctx->usual_cap * 3 / 2, i;
	s32 cpu = scx_bpf_task_cpu(p), found = -ENOENT;

	if (!cpus)
		return -ENOENT;
	if (group_of_cpu(cpu) != group || !bpf_cpumask_test_cpu(cpu, idle_cpus))
		cpu = bpf_cpumask_any_and_distribute(cpus, idle_cpus);
	for (i = 0; i < SEATS_TRIED && can_loop; i++) {
		const struct cpu_ctx *cctx = cpu_ctx_of(cpu);

		if (cpu >= topology.nr_cpus || !cctx)
			break;
		if (!cctx->seat_cap || is_owner(cctx, p) || !time_before(now, cctx->seat_until))
			return cpu;
		if (cctx->seat_cap > most_cap) {
			most_cap = cctx->seat_cap;
			found = cpu;
		}
		cpu = bpf_cpumask_any_and_distribute(cpus, idle_cpus);
	}
	return found;
}

/* Claims the CPU as the task's seat; negative where it does not idle. */
static __noinline s32 claim_seat_at(const struct task_struct *p, struct task_ctx *tctx, s32 cpu,
				    u64 now)
{
	if (cpu < 0 || !scx_bpf_test_and_clear_cpu_idle(cpu))
		return -ENOENT;
	sit_down(p, tctx, cpu, now);
	return cpu;
}

/* Claims a seat in the group; negative where there is none. */
static __noinline s32 claim_seat_in(struct task_struct *p, struct task_ctx *tctx, u32 group,
				    u64 now)
{
	const struct cpumask *idle_cpus = scx_bpf_get_idle_cpumask();
	s32 cpu = find_seat(p, tctx, group, idle_cpus, now);

	scx_bpf_put_idle_cpumask(idle_cpus);
	return claim_seat_at(p, tctx, cpu, now);
}

/*
 * Claims the idle CPU on which a task that wakes up should have its seat, where the group is the
 * cheapest for it; negative where it can only be a guest. Bigger CPUs than it needs are for who
 * takes a quarter of one or more.
 */
static __noinline s32 claim_seat(struct task_struct *p, struct task_ctx *tctx, u32 group, u64 now)
{
	s32 own, cpu = -ENOENT;
	u32 least_cap, most_cap, other;

	if (!may_sit(p, tctx, group))
		return -ENOENT;
	own = seat_of(p, tctx);
	if (group_of_cpu(own) != group || !is_idle(own))
		cpu = claim_seat_in(p, tctx, group, now);
	if (cpu >= 0)
		return cpu;
	if (own >= 0)
		return claim_seat_at(p, tctx, own, now);
	least_cap = group_offers(group);
	most_cap = tctx->usual_cap < BUSY_CAP ? least_cap : ~0U;
	bpf_for (other, 0, choosy ? 0 : topology.nr_groups) {
		u32 offered_cap = group_offers(other);

		if (cpu >= 0)
			break;
		if (other != group && offered_cap >= least_cap && offered_cap <= most_cap)
			cpu = claim_seat_in(p, tctx, other, now);
	}
	return cpu;
}

#endif /* __JOULE_SEAT_BPF_H */
