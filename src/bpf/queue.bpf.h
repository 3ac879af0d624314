/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who runs next.
 *
 * One queue per group, ordered by virtual time: the run time charged so far, divided by the share
 * that the task is due (share.bpf.h). A task that slept comes back at most a slice, or a tick if
 * that is longer, behind the queue's clock, so sleep earns a head start but no debt; nobody is
 * more than half a second ahead of it, so that what has hardly any weight is not kept waiting for
 * ever. What was preempted inside of an RCU read-side section is as far behind as can be: of a
 * nice kernel thread in the middle of a huge page the whole machine would wait, and after 20 s the
 * kernel takes the scheduler away.
 *
 * Tasks that may use one CPU only (pinned, or migration disabled) wait in a queue of that CPU: in
 * the group's queue every other CPU would have to step over them. A CPU takes the earlier of the
 * two heads, and when both are empty it takes work from another group's queue: no CPU idles while
 * work waits that it may run, with two exceptions. Work may wait by choice (place.bpf.h), beside a
 * CPU that is busy: that holds for all that is in a group's queue, and ends when its time is over,
 * with the next tick on a busy CPU of the group, which wakes an idle CPU for the queue. And who
 * loses its CPU to somebody else waits for that tick, too: it may be for a moment only.
 *
 * At its slice's end a task goes on where its virtual time is still before that of whoever waits:
 * turns alone would make all shares equal. Who wakes does not wait for that end, which only ticks
 * tell: where no CPU is idle, it takes the place of a task that is a slice of virtual time ahead
 * of it. Tasks of short runs come back behind the clock, so they never wait for those that always
 * run; two alike do not take each other's place.
 *
 * Per-CPU kernel threads go straight to their CPU: they are short, and the
 * kernel waits for them. They and others that may use one CPU take its place
 * likewise.
 *
 * A task that outgrew its CPU is put back at its slice's end (SCX_OPS_ENQ_LAST
 * brings even a lone one here), at a tick, or as soon as a bigger CPU has
 * nothing to do, and waits in the queue of the cheapest bigger group that has an
 * idle CPU, which is kicked. Where no such CPU exists, it takes the place of a
 * task that needs less, on a CPU that it fits, or is left alone. Of two tasks that share
 * a core for long while another core of their group has nothing to do, one is put
 * back likewise: they have come together when none had.
 *
 * Limits: tasks that never sleep stay with the group they began in while its
 * queue and that of others last, so those of a crowded group get less than
 * those of another.
 *
 * Concurrency: queues are the kernel's and take their own locks. A group's
 * virtual clock is written without one; a lost update delays it by one slice.
 * What a CPU's task has reached in virtual time is read from elsewhere, in parts: at
 * worst, the wrong task goes to the end of the queue.
 * A look into a queue costs a search for it, so what waits is known beforehand: in
 * a CPU's own queue by a mark, under that CPU's run queue's lock, and in a group's
 * by a count (enter_queue), in which a task is for longer than it waits, never for
 * less: no work is missed.
 */
#ifndef __JOULE_QUEUE_BPF_H
#define __JOULE_QUEUE_BPF_H

#define CPU_DSQ_BASE 0x10000ULL

static __always_inline u64 dsq_of_cpu(s32 cpu)
{
	return CPU_DSQ_BASE + cpu;
}

/* Slices end at ticks, which are that far apart on most kernels (250 Hz). */
#define TICK_NS 4000000

/*
 * How far behind the clock a task may come back: as far as those are apart that always run, or it
 * would wait for one of them now and then.
 */
static __always_inline u32 most_behind_ns(void)
{
	return max_u32(settings.slice_ns, TICK_NS);
}

static __always_inline u64 fair_vtime(const struct task_ctx *tctx, u32 group)
{
	return vtime_by(group_vtime(group), tctx->vtime, most_behind_ns());
}

/*
 * Whether the task was preempted where it holds up RCU, and with it all that waits for a grace
 * period (rcu_note_context_switch, kernel/rcu/tree_plugin.h). Not how deep it is in read-side
 * sections: of who runs here, this program is one.
 */
static __always_inline bool holds_up_rcu(const struct task_struct *p)
{
	return bpf_core_field_exists(p->rcu_read_unlock_special) &&
	       p->rcu_read_unlock_special.b.blocked;
}

/* Inserts by virtual time into a queue that runs on the group's clock. */
static __always_inline void insert_fair(struct task_struct *p, struct task_ctx *tctx, u64 dsq,
					u32 group, u64 enq_flags)
{
	if (holds_up_rcu(p))
		tctx->vtime = group_vtime(group) - most_behind_ns();
	else
		tctx->vtime = fair_vtime(tctx, group);
	scx_bpf_dsq_insert_vtime(p, dsq, settings.slice_ns, tctx->vtime, enq_flags);
	count(JOULE_QUEUED);
}

/* Queues a task for any CPU of its group. */
static void queue_in_group(struct task_struct *p, struct task_ctx *tctx, u32 group, u64 enq_flags)
{
	enter_queue(tctx, group);
	insert_fair(p, tctx, group, group, enq_flags);
}

/* Queues a task that may only run on this CPU, which is of the group. */
static void queue_on_cpu(struct task_struct *p, struct task_ctx *tctx, s32 cpu, u32 group,
			 u64 enq_flags)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (cctx)
		cctx->pinned = 1;
	insert_fair(p, tctx, dsq_of_cpu(cpu), group, enq_flags);
}

/* Whether something waits that only this CPU may run. */
static bool has_pinned(s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (!cctx || !cctx->pinned)
		return false;
	cctx->pinned = scx_bpf_dsq_nr_queued(dsq_of_cpu(cpu)) > 0;
	return cctx->pinned;
}

/* Inserts to run at once on its CPU, which is of the group. */
static __always_inline void insert_local(struct task_struct *p, struct task_ctx *tctx, u32 group,
					 u64 enq_flags)
{
	tctx->vtime = fair_vtime(tctx, group);
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL, settings.slice_ns, enq_flags);
}

/*
 * A task whose slice is over gets another one: the group's clock sees it as if
 * it had come anew. Else one that runs alone would be far ahead of the clock,
 * and wait for all of that as soon as others come.
 */
static void go_on(struct task_struct *p, struct task_ctx *tctx, u32 group, u64 vtime)
{
	tctx->vtime = vtime;
	advance_vtime(group, vtime);
	scx_bpf_task_set_slice(p, settings.slice_ns);
}

/* The task, whose virtual time is up to date, runs on this CPU. */
static __always_inline void note_run(struct cpu_ctx *cctx, const struct task_ctx *tctx, u64 now)
{
	cctx->run_vtime_at = now;
	cctx->run_vtime = tctx->vtime;
	cctx->run_share = tctx->share;
}

/* Virtual time of what runs on the CPU; `otherwise` where that is of another group. */
static __always_inline u64 running_vtime(s32 cpu, u32 group, u64 otherwise, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	if (!cctx || group_of_cpu(cpu) != group)
		return otherwise;
	return cctx->run_vtime + virtual_ns(elapsed_ns(now, cctx->run_vtime_at), cctx->run_share);
}

/* A waking task takes the place of what runs on this CPU if that is a slice ahead of it. */
static __always_inline void preempt_on(s32 cpu, const struct task_ctx *tctx, u64 running_vtime)
{
	if (!time_before(tctx->vtime + settings.slice_ns, running_vtime))
		return;
	scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
	count(JOULE_PREEMPTED);
}

/*
 * No CPU is idle for a waking task, which is in the queue of the group: it takes the place of what
 * runs on its CPU or on another one of the group, whichever is further on in virtual time.
 */
static void preempt_for(const struct task_struct *p, const struct task_ctx *tctx, s32 cpu,
			u32 group, u64 now)
{
	const struct cpumask *cpus = cpus_of_group(group);
	s32 other = cpus ? bpf_cpumask_any_and_distribute(cpus, p->cpus_ptr) : cpu;
	u64 here = running_vtime(cpu, group, tctx->vtime, now);
	u64 there = running_vtime(other, group, tctx->vtime, now);

	if (time_before(here, there)) {
		cpu = other;
		here = there;
	}
	preempt_on(cpu, tctx, here);
}

/* A group that is bigger than the task's and has an idle CPU for it. */
static u32 bigger_group_with_idle(struct task_struct *p, const struct task_ctx *tctx)
{
	const struct cpumask *idle_cpus = scx_bpf_get_idle_cpumask();
	u32 found = JOULE_NO_GROUP, group;

	bpf_for (group, 0, topology.nr_groups) {
		const struct cpumask *cpus = cpus_of_group(group);

		if (found != JOULE_NO_GROUP || !cpus)
			break;
		if (group_offers(group) > group_offers(tctx->group) && may_use(p, group) &&
		    bpf_cpumask_intersects(cpus, idle_cpus))
			found = group;
	}
	scx_bpf_put_idle_cpumask(idle_cpus);
	return found;
}

/*
 * Whether the task, which runs, needs more than a CPU of the group has, and may go elsewhere. Where
 * a bigger CPU begins with a low clock, what it may yet grow by is no reason to go there.
 */
static __always_inline bool is_misfit(const struct task_struct *p, const struct task_ctx *tctx,
				      u32 group)
{
	u32 offered_cap = group_offers(group), need_cap;

	/* Nobody is taken to need more than the biggest CPU has. */
	if (offered_cap >= CAPACITY_SCALE)
		return false;
	need_cap = starts_slowly(group) ? max_u32(util_cap(tctx->util), tctx->est_cap)
					: own_need(tctx);
	return fitting_cap(tctx, need_cap, true) > offered_cap && !is_pinned(p);
}

/* Whether the task runs, and will share its core for long while another core of its group idles. */
static bool is_crowded(const struct task_struct *p, const struct task_ctx *tctx, u64 now)
{
	const struct cpumask *cpus = cpus_of_group(tctx->group), *cores;
	s32 cpu = scx_bpf_task_cpu(p);
	const struct cpu_ctx *here = cpu_ctx_of(cpu), *there = sibling_ctx(cpu);
	bool crowded;

	if (!here || !there || there->state != CPU_STATE_BUSY || !cpus || !may_use_all(p) ||
	    !scx_bpf_task_running(p) || left_ns(here->free_at, now) < LONG_COMPANY_NS ||
	    left_ns(there->free_at, now) < LONG_COMPANY_NS)
		return false;
	cores = scx_bpf_get_idle_smtmask();
	crowded = bpf_cpumask_intersects(cpus, cores);
	scx_bpf_put_idle_cpumask(cores);
	return crowded;
}

/* In which group a running task should go on, on another CPU: JOULE_NO_GROUP to stay. */
static u32 upgrade_for(struct task_struct *p, const struct task_ctx *tctx, u64 now)
{
	u32 bigger =
		is_misfit(p, tctx, tctx->group) ? bigger_group_with_idle(p, tctx) : JOULE_NO_GROUP;

	return bigger == JOULE_NO_GROUP && is_crowded(p, tctx, now) ? tctx->group : bigger;
}

/* Whether the task that ran on this CPU until now has given way to one that needs more. */
static __always_inline bool gives_way(s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	return cctx && cctx->gives_way;
}

/*
 * Where a task runs that has outgrown its CPU: bit g says that one does in group
 * g, and the array on which of its CPUs. Only of tasks that may use any CPU, so
 * that whoever idles can fetch them. Of two in a group the last one counts, and
 * each comes back at its next tick; one too many costs its task a look at who
 * else waits.
 */
static u64 misfit_groups;
static s32 misfit_cpus[JOULE_MAX_GROUPS];

static __always_inline void note_misfit(s32 cpu, u32 group)
{
	s32 *at = MEMBER_VPTR(misfit_cpus, [group]);

	if (!at)
		return;
	*at = cpu;
	set_member(&misfit_groups, group, true);
}

static __always_inline void forget_misfit(s32 cpu, u32 group)
{
	s32 *at = MEMBER_VPTR(misfit_cpus, [group]);

	if (at && *at == cpu)
		set_member(&misfit_groups, group, false);
}

/* Notes what the task, which runs on this CPU of the group, needs, and whether it is a misfit. */
static void check_misfit(const struct task_struct *p, const struct task_ctx *tctx,
			 struct cpu_ctx *cctx, s32 cpu, u32 group)
{
	bool anywhere = may_use_all(p);

	if (anywhere && is_misfit(p, tctx, group))
		note_misfit(cpu, group);
	else
		forget_misfit(cpu, group);
	if (!starts_slowly(group))
		cctx->run_need = anywhere ? task_need(tctx) : CAPACITY_SCALE;
}

/*
 * Whether the task, which runs, should go on elsewhere now: in another group's queue, or, as its
 * CPU is too small and no bigger one idles, in the place of a task that needs less; not one that
 * has ceased to sleep.
 */
static bool should_move(struct task_struct *p, struct task_ctx *tctx, u32 group, u64 now)
{
	s32 cpu;

	if (upgrade_for(p, tctx, now) < JOULE_MAX_GROUPS)
		return true;
	if (!is_misfit(p, tctx, group) || elapsed_ns(now, tctx->woke_at) > 2 * tctx->interval_ns)
		return false;
	cpu = cpu_of_lesser(p, tctx);
	if (cpu < 0)
		return false;
	tctx->takes_cpu = cpu + 1;
	return true;
}

/*
 * The task takes the place of one that needs less, on the CPU that was chosen for that; false if
 * that has nothing to do any more.
 */
static bool take_place(struct task_struct *p, struct task_ctx *tctx, u64 enq_flags, u64 now)
{
	s32 cpu = tctx->takes_cpu - 1;
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u32 group = group_of_cpu(cpu);

	tctx->takes_cpu = 0;
	if (!cctx || !is_busy_in(group, cpu) || !may_use_all(p))
		return false;
	cctx->gives_way = 1;
	group_move(tctx, group, now);
	tctx->vtime = fair_vtime(tctx, group);
	scx_bpf_dsq_insert(p, SCX_DSQ_LOCAL_ON | cpu, settings.slice_ns,
			   enq_flags | SCX_ENQ_PREEMPT);
	count(JOULE_PREEMPTED);
	return true;
}

/*
 * A CPU of the group is about to idle: a task that has outgrown a CPU of a
 * smaller group is put back, and finds it.
 */
static void fetch_misfit(u32 group)
{
	u32 smaller;

	if (!READ_ONCE(misfit_groups))
		return;
	bpf_for (smaller, 0, topology.nr_groups) {
		s32 *at = MEMBER_VPTR(misfit_cpus, [smaller]), cpu;

		if (!at || !(READ_ONCE(misfit_groups) & group_bit(smaller)) ||
		    group_offers(smaller) >= group_offers(group))
			continue;
		cpu = *at;
		forget_misfit(cpu, smaller);
		scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
		return;
	}
}

/* Whether what is in the group's queue waits by choice. */
static __always_inline bool is_patient(u32 group, u64 now)
{
	struct group_ctx *gctx = group_ctx_of(group);

	return gctx && gctx->patient_until && time_before(now, gctx->patient_until);
}

/* What is put into the group's queue now waits by choice, until then at most. */
static void wait_by_choice(u32 group, u64 until, u64 now)
{
	struct group_ctx *gctx = group_ctx_of(group);

	if (gctx && (!is_patient(group, now) || time_before(until, gctx->patient_until)))
		gctx->patient_until = until;
}

/*
 * Who is put into the group's queue now has lost its CPU to somebody else, for a moment maybe: it
 * waits for that CPU's next look at the queue or tick, though another one idles.
 */
static void wait_for_tick(u32 group, u64 now)
{
	struct group_ctx *gctx = group_ctx_of(group);

	if (gctx && !gctx->patient_until && some_cpu_is_idle())
		gctx->patient_until = now;
}

/* Claims an idle CPU for who is first in the group's queue, in this group or the nearest one. */
static s32 claim_for_head(u32 group)
{
	struct task_struct *head;
	u64 groups = 0, next;
	s32 cpu = -ENOENT;

	bpf_rcu_read_lock();
	head = __COMPAT_scx_bpf_dsq_peek(group);
	if (head) {
		if (may_use_all(head))
			groups = all_groups();
		else
			cpu = scx_bpf_pick_idle_cpu(head->cpus_ptr, 0);
	}
	bpf_rcu_read_unlock();
	for (; groups && cpu < 0 && can_loop; groups &= ~next) {
		const struct cpumask *cpus;

		next = nearest_group(groups, group);
		cpus = cpus_of_group(lowest_bit(next));
		cpu = cpus ? scx_bpf_pick_idle_cpu(cpus, 0) : -ENOENT;
	}
	return cpu;
}

/* The wait is over: an idle CPU is woken for the queue. */
static void end_patience(u32 group, u64 now)
{
	struct group_ctx *gctx = group_ctx_of(group);
	s32 cpu;

	if (!gctx || !gctx->patient_until || time_before(now, gctx->patient_until))
		return;
	gctx->patient_until = 0;
	if (!group_waiting(group))
		return;
	cpu = claim_for_head(group);
	if (cpu >= 0)
		kick(cpu);
}

/* Whether something waits in the queue; with the virtual time of the first one. */
static bool head_of(u64 dsq, u64 *vtime)
{
	struct task_struct *head;

	bpf_rcu_read_lock();
	head = __COMPAT_scx_bpf_dsq_peek(dsq);
	if (head)
		*vtime = head->scx.dsq_vtime;
	bpf_rcu_read_unlock();
	return head;
}

/* Takes the earlier of the heads of this CPU's and its group's queue. */
static bool take_own(s32 cpu, u32 group)
{
	u64 own = dsq_of_cpu(cpu), pinned = 0, shared = 0;

	if (!has_pinned(cpu))
		return group_waiting(group) && scx_bpf_dsq_move_to_local(group, 0);
	if (head_of(own, &pinned) && head_of(group, &shared) && time_before(shared, pinned))
		return scx_bpf_dsq_move_to_local(group, 0) || scx_bpf_dsq_move_to_local(own, 0);
	return scx_bpf_dsq_move_to_local(own, 0) || scx_bpf_dsq_move_to_local(group, 0);
}

/*
 * Whether a task that could go on comes before what waits for its CPU, and something does. The
 * kernel asks for others before it puts the task back into a queue.
 */
static bool goes_first(const struct task_ctx *tctx, s32 cpu, u32 group)
{
	u64 vtime = tctx->vtime, pinned = 0, shared = 0;
	bool some_pinned = has_pinned(cpu) && head_of(dsq_of_cpu(cpu), &pinned);
	bool some_shared = group_waiting(group) && head_of(group, &shared);

	if (some_pinned && !time_before(vtime, pinned))
		return false;
	if (some_shared && !time_before(vtime, shared))
		return false;
	return some_pinned || some_shared;
}

/* Takes work from the queue of another group, the nearest one first, of those alike the next
 * bigger. */
static bool take_other(u32 group)
{
	u64 waiting = READ_ONCE(waiting_groups) & ~group_bit(group), next;
	u32 other;

	for (; waiting && can_loop; waiting &= ~next) {
		next = nearest_group(waiting, group);
		other = lowest_bit(next);
		if (!is_patient(other, scx_bpf_now()) && scx_bpf_dsq_move_to_local(other, 0)) {
			count(JOULE_STOLEN);
			return true;
		}
	}
	return false;
}

#endif /* __JOULE_QUEUE_BPF_H */
