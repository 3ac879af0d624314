/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which idle CPU of its group a task takes.
 *
 * The one that it ran on comes first: its caches are warm, and so is its clock where it has one of
 * its own. Then one that is not in a deep state yet, then any. Where CPUs share a clock and all of
 * them idle, the target of the one that idled last still stands, until that CPU asks for another:
 * it comes first where the task needs less than that, or ran in another group.
 *
 * Where two threads share a core, a task stays with its core, whose clock is up, while what runs on
 * the other thread is short beside its own run; next it takes a core that is wholly idle, and then
 * the other thread of the waker's: who wakes others is about to sleep, as likely as not.
 *
 * Units: ns; capacity on the scale of 1024.
 *
 * Cost: a few looks at the kernel's idle masks, no loop.
 *
 * Concurrency: a CPU is claimed by the kernel's test-and-clear, so two wakers never get the same
 * one. A claimed CPU is always either used or kicked.
 *
 * Limits: how deep a CPU idles is known of the group's last one only. Cores of more than two
 * threads are taken for cores of one.
 */
#ifndef __JOULE_IDLE_BPF_H
#define __JOULE_IDLE_BPF_H

/*
 * A core is shared for so short a time, or for so small a part of what the task runs for, rather
 * than another one woken, whose clock is low.
 */
#define SHORT_COMPANY_NS 200000
#define COMPANY_OF_RUN 2

/* Who shares its core for so long rather goes on with one of its own, though that starts slowly. */
#define LONG_COMPANY_NS 2000000

/* Whether the CPU is idle, and with it all of its core. */
static __always_inline bool core_is_idle(s32 cpu)
{
	const struct cpumask *cores;
	bool idle;

	if (!smt_enabled)
		return true;
	cores = scx_bpf_get_idle_smtmask();
	idle = bpf_cpumask_test_cpu(cpu, cores);
	scx_bpf_put_idle_cpumask(cores);
	return idle;
}

/* For how long the task is likely to share the CPU's core with what runs on the other thread. */
static __noinline u64 company_ns(const struct task_ctx *tctx, s32 cpu, u64 now)
{
	const struct cpu_ctx *sibling = sibling_ctx(cpu);
	u64 left = run_left_ns(tctx);

	if (!sibling)
		return 0;
	if (sibling->state == CPU_STATE_BUSY)
		return min_u64(left, left_ns(sibling->free_at, now));
	/* One that is about to wake up has been claimed, but has not begun. */
	return core_is_idle(cpu) ? 0 : left;
}

/*
 * Whether the CPU, the last of its group to idle, has left the group a clock that
 * is higher than a task which needs `need_cap` would ask for.
 */
static __always_inline bool keeps_clock_up(s32 cpu, u32 need_cap)
{
	struct cpu_ctx *cctx = software_clocks ? cpu_ctx_of(cpu) : NULL;

	return cctx && need_cap + need_cap / 4 < cctx->asked_cap;
}

/* Claims the CPU if it is one of the group, idle, and its core shared for less than so long. */
static __always_inline bool claim_beside(const struct task_ctx *tctx, u32 group, s32 cpu,
					 u64 company_below_ns, u64 now)
{
	/* A core of one thread has no sibling; the kernel ejects who asks for such a CPU. */
	return group_of_cpu(cpu) == group && !is_busy_in(group, cpu) &&
	       company_ns(tctx, cpu, now) < company_below_ns &&
	       scx_bpf_test_and_clear_cpu_idle(cpu);
}

/*
 * On SMT: claims an idle CPU of the group for the task on a core that it has, or will soon have, to
 * itself; negative when there is none. It stays with its core, whose clock is up, if what runs
 * there is short beside its own run; a wholly idle one comes next, and then the waker's: who wakes
 * others is about to sleep, as likely as not.
 */
static __noinline s32 claim_core(const struct task_ctx *tctx, u32 group, const struct cpumask *cpus,
				 s32 prev_cpu, u64 now)
{
	u64 company = max_u64(run_left_ns(tctx) / COMPANY_OF_RUN, SHORT_COMPANY_NS);
	s32 cpu;

	if (claim_beside(tctx, group, prev_cpu, company, now))
		return prev_cpu;
	cpu = sibling_of(prev_cpu);
	if (claim_beside(tctx, group, cpu, company, now))
		return cpu;
	cpu = scx_bpf_pick_idle_cpu(cpus, SCX_PICK_IDLE_CORE);
	if (cpu >= 0)
		return cpu;
	company = group_of_cpu(prev_cpu) == group ? company_ns(tctx, prev_cpu, now) : ~0ULL;
	cpu = sibling_of(bpf_get_smp_processor_id());
	return claim_beside(tctx, group, cpu, company, now) ? cpu : -ENOENT;
}

/* Claims an idle CPU of the group for the task, in that order; negative when there is none. */
static __always_inline s32 claim_idle(struct task_struct *p, const struct task_ctx *tctx, u32 group,
				      s32 prev_cpu, u32 need_cap, u64 now)
{
	struct joule_activity *activity = bpf_map_lookup_elem(&activities, &group);
	bool prev_is_here = group_of_cpu(prev_cpu) == group;
	const struct cpumask *cpus = cpus_of_group(group);
	s32 last, cpu;

	if (!activity || !cpus)
		return -ENOENT;
	if (!may_use_all(p))
		return scx_bpf_select_cpu_and(p, prev_cpu, 0, cpus, 0);
	last = activity->idle_cpu;
	if (!activity->busy_cpus && !has_own_clock(group) && group_of_cpu(last) == group &&
	    (!prev_is_here || keeps_clock_up(last, need_cap)) &&
	    scx_bpf_test_and_clear_cpu_idle(last))
		return last;
	if (smt_enabled) {
		cpu = claim_core(tctx, group, cpus, prev_cpu, now);
		if (cpu >= 0)
			return cpu;
	}
	if (prev_is_here && scx_bpf_test_and_clear_cpu_idle(prev_cpu))
		return prev_cpu;
	if (is_shallow(last, now) && group_of_cpu(last) == group &&
	    scx_bpf_test_and_clear_cpu_idle(last))
		return last;
	return scx_bpf_pick_idle_cpu(cpus, 0);
}

/* Wakes an idle CPU that has been claimed. */
static __always_inline void kick(s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (cctx)
		cctx->kicked = 1;
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	count(JOULE_KICKS);
}

static __always_inline bool some_cpu_is_idle(void)
{
	const struct cpumask *idle_cpus = scx_bpf_get_idle_cpumask();
	bool some = !bpf_cpumask_empty(idle_cpus);

	scx_bpf_put_idle_cpumask(idle_cpus);
	return some;
}

#endif /* __JOULE_IDLE_BPF_H */
