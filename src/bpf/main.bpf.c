/* SPDX-License-Identifier: GPL-2.0 */
/*
 * scx_joule: place work where it costs the fewest joules.
 *
 * A waking task goes to the group of CPUs where running it adds the least
 * power and where it fits (place.bpf.h); it waits, if it must, in that group's
 * queue in order of virtual time (queue.bpf.h), which passes by the share that
 * it is due (share.bpf.h); what it uses is tracked per task and per group
 * (account.bpf.h) with the mathematics of policy.bpf.h.
 * This file ties those to the kernel's callbacks.
 *
 *   wake-up:  select_cpu -> [runnable] -> enqueue -> dispatch -> running
 *   sleep:    stopping -> quiescent
 *
 * select_cpu places and, when the CPU is idle, inserts straight into its local
 * queue; enqueue sees the rest: no idle CPU, end of slice, pinned tasks (which
 * the kernel does not send through select_cpu).
 *
 * Frequency: where the kernel's governor listens (schedutil), the target of
 * the local CPU is set when a task starts and at each tick, on the system-wide
 * capacity scale that schedutil takes it on, and lowered when the CPU idles
 * while others of its clock are at work, whose clock it would hold up. The last
 * one leaves its target: schedutil ignores a change that follows the one before
 * too soon (sugov_should_update_freq), so that a task which sleeps for less
 * than that would find the clock lowered and stay with it until the next tick.
 * schedutil adds its own quarter, which is taken off first. Where no governor
 * listens, as hardware chooses its clocks, nothing is set.
 *
 * Units and fixed point: intf.h, policy.bpf.h. Nothing here runs on a timer:
 * an idle machine stays idle, and its control loop sleeps (activity.bpf.h).
 * What work costs comes from the control loop (costs.bpf.h). Hotplug restarts the scheduler (the
 * kernel's default for a scheduler without cpu_online/cpu_offline).
 */
#include <scx/common.bpf.h>
#include "policy.bpf.h"

char _license[] SEC("license") = "GPL";

UEI_DEFINE(uei);

/* Set before loading, constant afterwards. */
const volatile struct joule_config settings;
const volatile struct joule_topology topology;
const volatile bool smt_enabled;
const volatile bool software_clocks; /* schedutil sets some */
const volatile bool hardware_clocks; /* hardware sets some */
const volatile bool choosy;	     /* some class has many groups: not all are asked */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct joule_counters);
} counters SEC(".maps");

static __always_inline void count_several(enum joule_counter which, u32 nr)
{
	struct joule_counters *mine = bpf_map_lookup_elem(&counters, &(u32){0});

	if (mine)
		mine->value[which] += nr;
}

static __always_inline void count(enum joule_counter which)
{
	count_several(which, 1);
}

static __always_inline void count_delay(u64 waited_ns)
{
	struct joule_counters *mine = bpf_map_lookup_elem(&counters, &(u32){0});
	u64 *bucket = mine ? MEMBER_VPTR(mine->delay, [delay_bucket(waited_ns)]) : NULL;

	if (bucket)
		(*bucket)++;
}

#include "relations.bpf.h"
#include "capacity.bpf.h"
#include "costs.bpf.h"
#include "account.bpf.h"
#include "activity.bpf.h"
#include "home.bpf.h"
#include "share.bpf.h"
#include "idle.bpf.h"
#include "seat.bpf.h"
#include "price.bpf.h"
#include "place.bpf.h"
#include "queue.bpf.h"

/*
 * Asks schedutil for the clock that this CPU's work needs: the running task's
 * need, what may come to it of the group's tasks that are asleep, and its share
 * of all that is at work or had to wait. Tasks that wake find the idle CPUs
 * first, but several may wake at once: half of the idle CPUs' part counts. Of the
 * clocks that suffice, the one at which work is cheapest.
 * `x * 4 / 5` undoes schedutil's own headroom of a quarter (map_util_perf,
 * kernel/sched/cpufreq_schedutil.c).
 */
static void set_frequency(struct task_ctx *tctx, s32 cpu, u64 now)
{
	u32 group = group_of_cpu(cpu), need, nr_cpus, awake, all, asleep, waited, wanted;
	const volatile struct joule_group *info = group_info(group);
	const struct joule_cost_row *row;
	const struct group_ctx *gctx;
	struct cpu_ctx *cctx;
	struct load load;

	row = costs_of_group(group, current_slot(now));
	gctx = group_ctx_of(group);
	cctx = cpu_ctx_of(cpu);
	if (!info || !row || !gctx || !cctx)
		return;
	need = task_need(tctx);
	nr_cpus = max_u32(info->nr_cpus, 1);
	awake = max_u32(gctx->est_cap, need);
	all = need + group_sum_cap(gctx, own_share(tctx, group), now);
	asleep = all > awake ? all - awake : 0;
	waited = group_waited_cap(gctx, now);
	load.top_cap = need;
	load.sum_cap = need + waited + asleep * (nr_cpus + group_busy_cpus(group)) / (2 * nr_cpus);
	wanted = max_u32(cpu_need(&load, nr_cpus), max_u32(all + waited, awake) / nr_cpus);
	wanted = with_headroom(wanted, group_headroom_pct(gctx));
	wanted = cap_to_ask(row, wanted);
	cctx->asked_cap = need;
	scx_bpf_cpuperf_set(cpu, min_u32(wanted * 4 / 5, SCX_CPUPERF_ONE));
}

s32 BPF_STRUCT_OPS(joule_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);
	struct place place;
	u64 now = scx_bpf_now();
	u32 group;

	if (!tctx)
		return prev_cpu;
	place = place_task(p, tctx, prev_cpu, wake_flags, now);
	group = group_of_cpu(place.cpu);
	if (group < JOULE_MAX_GROUPS)
		group_move(tctx, group, now);
	if (place.idle)
		insert_local(p, tctx, group, 0);
	return place.cpu;
}

void BPF_STRUCT_OPS(joule_enqueue, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 cpu = scx_bpf_task_cpu(p);
	u32 group = group_of_cpu(cpu), bigger = JOULE_NO_GROUP;
	u64 now = scx_bpf_now();
	bool stays;

	if (!tctx || group >= JOULE_MAX_GROUPS) {
		scx_bpf_dsq_insert(p, SCX_DSQ_GLOBAL, settings.slice_ns, enq_flags);
		return;
	}
	leave_queue(tctx);
	/* The kernel may have moved it, for its affinity say. */
	group_move(tctx, group, now);
	if (is_pinned(p)) {
		if (p->flags & PF_KTHREAD)
			insert_local(p, tctx, group, enq_flags);
		else
			queue_on_cpu(p, tctx, cpu, group, enq_flags);
		if (enq_flags & SCX_ENQ_WAKEUP && is_busy_in(group, cpu))
			preempt_on(cpu, tctx, running_vtime(cpu, group, tctx->vtime, now));
		else if (!(p->flags & PF_KTHREAD) && scx_bpf_test_and_clear_cpu_idle(cpu))
			kick(cpu);
		return;
	}
	if (tctx->takes_cpu && take_place(p, tctx, enq_flags, now))
		return;
	/* Who wakes has just been placed. */
	if (!(enq_flags & SCX_ENQ_WAKEUP))
		bigger = upgrade_for(p, tctx, now);
	if (bigger < JOULE_MAX_GROUPS) {
		group_move(tctx, bigger, now);
		group = bigger;
		count(JOULE_MISFIT_UP);
	}
	queue_in_group(p, tctx, group, enq_flags);
	if (tctx->patient_until && is_busy_in(group, cpu)) {
		wait_by_choice(group, tctx->patient_until, now);
		return;
	}
	/* A task that has run until now stays with its CPU, unless it should go on elsewhere. */
	stays = bigger == JOULE_NO_GROUP && scx_bpf_task_running(p) && !gives_way(cpu);
	if (stays)
		wait_for_tick(group, now);
	else if (kick_for(p, tctx, now))
		return;
	/* Which has looked for others already, and found nothing. */
	if (enq_flags & SCX_ENQ_LAST)
		scx_bpf_kick_cpu(cpu, 0);
	else if (enq_flags & SCX_ENQ_WAKEUP)
		preempt_for(p, tctx, cpu, group, now);
}

void BPF_STRUCT_OPS(joule_runnable, struct task_struct *p, u64 enq_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);
	u64 now = scx_bpf_now();

	if (!tctx)
		return;
	note_clamps(p, tctx);
	if (enq_flags & SCX_ENQ_WAKEUP)
		note_wakeup(tctx, now);
	need_enter(tctx);
	enter_share(p, tctx);
	tctx->waiting_since = now;
}

void BPF_STRUCT_OPS(joule_running, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 cpu = scx_bpf_task_cpu(p);
	u32 group = group_of_cpu(cpu);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 now = scx_bpf_now(), waited;

	if (!tctx || !cctx || group >= JOULE_MAX_GROUPS)
		return;
	if (hardware_clocks)
		note_clock(cctx, cpu, now);
	if (tctx->waiting_since) {
		waited = elapsed_ns(now, tctx->waiting_since);
		count_delay(waited);
		note_wait(group, waited, cctx->capacity, now);
		if (tctx->waiting_since == tctx->woke_at)
			guard_latency(group, waited, cctx->capacity);
		tctx->waiting_since = 0;
	}
	if (cctx->state == CPU_STATE_UNKNOWN)
		count_transition(cpu, false, now);
	util_rest(tctx, now);
	group_move(tctx, group, now);
	leave_queue(tctx);
	tctx->running = 1;
	cctx->free_at = now + run_left_ns(tctx);
	tctx->patient_until = 0;
	tctx->exec_at = p->se.sum_exec_runtime;
	tctx->delivered_at = delivered_until(cctx, now);
	tctx->share = share_of(p);
	note_run(cctx, tctx, now);
	cctx->gives_way = 0;
	advance_vtime(group, tctx->vtime);
	check_misfit(p, tctx, cctx, cpu, group);
	if (software_clocks)
		set_frequency(tctx, cpu, now);
}

/*
 * Charges the run time since the last charge to virtual time, and returns the
 * task's utilisation with it, which is not noted yet.
 */
static __always_inline u64 charge_run(const struct task_struct *p, struct task_ctx *tctx, u64 now)
{
	u64 ran_ns = p->se.sum_exec_runtime - tctx->exec_at, delivered, before;
	struct cpu_ctx *cctx = cpu_ctx_of(scx_bpf_task_cpu(p));

	if (!cctx)
		return tctx->util;
	/* Not from p->scx.slice, which preemption zeroes. */
	tctx->exec_at = p->se.sum_exec_runtime;
	tctx->vtime += virtual_ns(ran_ns, tctx->share);
	before = tctx->delivered_at;
	delivered = tctx->delivered_at = delivered_until(cctx, now);
	note_run(cctx, tctx, now);
	gather(cctx, ran_ns);
	return util_run(tctx, delivered - before, now);
}

/* Charges a task that stays runnable. */
static void charge(const struct task_struct *p, struct task_ctx *tctx, u64 now)
{
	recount(tctx, charge_run(p, tctx, now), true, now);
}

void BPF_STRUCT_OPS(joule_dispatch, s32 cpu, struct task_struct *prev)
{
	u32 group = group_of_cpu(cpu);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u32 kicked = cctx ? cctx->kicked : 0;
	bool runnable = prev && prev->scx.flags & SCX_TASK_QUEUED, may_stay = false;
	struct task_ctx *tctx = NULL;

	if (group >= JOULE_MAX_GROUPS)
		return;
	if (kicked)
		cctx->kicked = 0;
	if (runnable) {
		u64 now = scx_bpf_now();

		tctx = task_ctx_of(prev);
		may_stay =
			tctx && !tctx->takes_cpu && upgrade_for(prev, tctx, now) == JOULE_NO_GROUP;
		if (may_stay)
			charge(prev, tctx, now);
	}
	if (may_stay && goes_first(tctx, cpu, group)) {
		go_on(prev, tctx, group, tctx->vtime);
		return;
	}
	if (take_own(cpu, group) || take_other(group))
		return;
	/* Nobody waits. What it did not get in time was of no use to it: no debts. */
	if (may_stay)
		go_on(prev, tctx, group, fair_vtime(tctx, group));
	else if (kicked && !runnable)
		count(JOULE_KICKS_WASTED);
	if (!runnable)
		fetch_misfit(group);
}

void BPF_STRUCT_OPS(joule_tick, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 cpu = scx_bpf_task_cpu(p);
	u32 group = group_of_cpu(cpu);
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 now = scx_bpf_now();

	if (!tctx || !cctx)
		return;
	/* Hardware raises the clock by itself; on another CPU it would start slowly again. */
	if (!starts_slowly(group))
		tctx->catch_up_cap = catch_up_cap(elapsed_ns(now, tctx->woke_at), tctx->interval_ns,
						  capacity_now(cpu), tctx->usual_cap);
	charge(p, tctx, now);
	tctx->share = share_of(p);
	count_clock(cpu, now);
	note_pressure(cpu, now);
	if (software_clocks)
		set_frequency(tctx, cpu, now);
	end_patience(group, now);
	/* Who should go on elsewhere need not wait for its slice's end. */
	check_misfit(p, tctx, cctx, cpu, group);
	if (should_move(p, tctx, group, now))
		scx_bpf_task_set_slice(p, 0);
}

void BPF_STRUCT_OPS(joule_stopping, struct task_struct *p, bool runnable)
{
	struct task_ctx *tctx;
	u64 now;

	/* Of one that goes, joule_quiescent() takes leave at once. */
	if (!runnable)
		return;
	tctx = task_ctx_of(p);
	if (!tctx)
		return;
	now = scx_bpf_now();
	charge(p, tctx, now);
	tctx->running = 0;
	tctx->waiting_since = now;
}

void BPF_STRUCT_OPS(joule_quiescent, struct task_struct *p, u64 deq_flags)
{
	struct task_ctx *tctx = task_ctx_of(p);
	u64 now = scx_bpf_now(), util;

	if (!tctx)
		return;
	if (tctx->running) {
		util = charge_run(p, tctx, now);
		tctx->running = 0;
	} else {
		util_rest(tctx, now);
		util = tctx->util;
	}
	if (deq_flags & SCX_DEQ_SLEEP)
		util = util_sleep(tctx, util);
	recount(tctx, util, false, now);
	leave_queue(tctx);
	leave_share(p, tctx);
	tctx->takes_cpu = 0;
}

void BPF_STRUCT_OPS(joule_update_idle, s32 cpu, bool idle)
{
	u32 group = group_of_cpu(cpu);
	u64 now = scx_bpf_now();

	count_transition(cpu, idle, now);
	note_pressure(cpu, now);
	if (!idle)
		return;
	forget_misfit(cpu, group);
	if (software_clocks && !has_own_clock(group) && group_busy_cpus(group))
		scx_bpf_cpuperf_set(cpu, 0);
}

/* The clock of a CPU has changed: also when another CPU of its domain asked for it. */
SEC("tp_btf/cpu_frequency")
int BPF_PROG(joule_cpu_frequency, unsigned int khz, unsigned int cpu)
{
	count_clock(cpu, scx_bpf_now());
	return 0;
}

/* The limits of a clock have changed. */
SEC("tp_btf/cpu_frequency_limits")
int BPF_PROG(joule_frequency_limits, struct cpufreq_policy *policy)
{
	note_limit(group_of_cpu(policy->cpu), policy->max, policy->cpuinfo.max_freq);
	return 0;
}

/*
 * A task that may not go back to where it last ran is no load there any more,
 * but wherever it may go. (Its weight needs no such care: it is read where run
 * time is charged.)
 */
void BPF_STRUCT_OPS(joule_set_cpumask, struct task_struct *p, const struct cpumask *allowed)
{
	u32 group = group_of_cpu(bpf_cpumask_first(allowed));
	struct task_ctx *tctx = task_ctx_of(p);
	const struct cpumask *cpus;

	if (!tctx || tctx->group >= JOULE_MAX_GROUPS || group >= JOULE_MAX_GROUPS)
		return;
	cpus = cpus_of_group(tctx->group);
	if (cpus && !bpf_cpumask_intersects(cpus, allowed))
		group_move(tctx, group, scx_bpf_now());
}

void BPF_STRUCT_OPS(joule_enable, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);

	if (!tctx)
		return;
	note_clamps(p, tctx);
	if (!tctx->util_at)
		util_seed(p, tctx, scx_bpf_now());
}

void BPF_STRUCT_OPS(joule_disable, struct task_struct *p)
{
	struct task_ctx *tctx = task_ctx_of(p);
	u64 now = scx_bpf_now();

	if (!tctx)
		return;
	util_rest(tctx, now);
	group_leave(tctx, now);
	leave_queue(tctx);
	tctx->runnable = 0;
}

s32 BPF_STRUCT_OPS(joule_init_task, struct task_struct *p, struct scx_init_task_args *args)
{
	struct task_ctx *tctx =
		bpf_task_storage_get(&task_ctxs, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!tctx)
		return -ENOMEM;
	tctx->group = JOULE_NO_GROUP;
	tctx->queue = JOULE_NO_GROUP;
	tctx->most_cap = CAPACITY_SCALE;
	tctx->share = LEAST_SHARE * 100;
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(joule_cgroup_init, struct cgroup *cgrp,
			     struct scx_cgroup_init_args *args)
{
	return begin_cgroup(cgrp, args->weight) ? 0 : -ENOMEM;
}

void BPF_STRUCT_OPS(joule_cgroup_exit, struct cgroup *cgrp)
{
	end_cgroup(cgrp);
}

void BPF_STRUCT_OPS(joule_cgroup_set_weight, struct cgroup *cgrp, u32 weight)
{
	weigh_cgroup(cgrp, weight);
}

static s32 create_group_mask(u32 group)
{
	struct group_mask *slot = bpf_map_lookup_elem(&group_masks, &group);
	struct bpf_cpumask *mask;
	u32 cpu;

	if (!slot)
		return -ENOENT;
	mask = bpf_cpumask_create();
	if (!mask)
		return -ENOMEM;
	bpf_for (cpu, 0, topology.nr_cpus) {
		if (group_of_cpu(cpu) == group)
			bpf_cpumask_set_cpu(cpu, mask);
	}
	mask = bpf_kptr_xchg(&slot->cpus, mask);
	if (mask)
		bpf_cpumask_release(mask);
	return 0;
}

s32 BPF_STRUCT_OPS_SLEEPABLE(joule_init)
{
	struct cpu_ctx *cctx;
	s32 err;
	u32 i;

	err = prepare_table(JOULE_STATIC_SLOT, table_generation(JOULE_STATIC_SLOT));
	if (err)
		return err;
	bpf_for (i, 0, topology.nr_groups) {
		err = create_group_mask(i);
		if (!err)
			err = scx_bpf_create_dsq(i, -1);
		if (err)
			return err;
	}
	bpf_for (i, 0, topology.nr_cpus) {
		if (group_of_cpu(i) == JOULE_NO_GROUP)
			continue;
		err = scx_bpf_create_dsq(dsq_of_cpu(i), -1);
		if (err)
			return err;
		cctx = cpu_ctx_of(i);
		if (cctx)
			note_clock(cctx, i, scx_bpf_now());
	}
	return 0;
}

/* Run by the control loop: makes the table in a slot current. */
SEC("syscall")
int joule_publish(struct joule_publish *request)
{
	int err = publish_table(request, scx_bpf_now());

	if (err)
		count(JOULE_TABLES_REFUSED);
	return err;
}

/* Run by the control loop before it reads: closes the open intervals at one instant, which it
 * returns. */
SEC("syscall")
int joule_sample(u64 *now_ns)
{
	u64 now = scx_bpf_now();
	u32 group;
	s32 cpu;

	bpf_for (group, 0, topology.nr_groups) {
		struct joule_activity *activity = bpf_map_lookup_elem(&activities, &group);

		if (!activity)
			break;
		bpf_spin_lock(&activity->lock);
		activity_advance(activity, group, now);
		bpf_spin_unlock(&activity->lock);
	}
	bpf_for (cpu, 0, topology.nr_cpus)
		count_open_time(cpu, now);
	gathered_ns = 0;
	*now_ns = now;
	return 0;
}

/* Run by tests: what is left in the sums. */
SEC("syscall")
int joule_self_check(struct joule_residue *residue)
{
	residue_of_all(residue, scx_bpf_now());
	return 0;
}

void BPF_STRUCT_OPS(joule_exit, struct scx_exit_info *ei)
{
	UEI_RECORD(uei, ei);
}

SCX_OPS_DEFINE(joule_ops, .select_cpu = (void *)joule_select_cpu, .enqueue = (void *)joule_enqueue,
	       .dispatch = (void *)joule_dispatch, .runnable = (void *)joule_runnable,
	       .running = (void *)joule_running, .tick = (void *)joule_tick,
	       .stopping = (void *)joule_stopping, .quiescent = (void *)joule_quiescent,
	       .update_idle = (void *)joule_update_idle, .set_cpumask = (void *)joule_set_cpumask,
	       .enable = (void *)joule_enable, .disable = (void *)joule_disable,
	       .init_task = (void *)joule_init_task, .cgroup_init = (void *)joule_cgroup_init,
	       .cgroup_exit = (void *)joule_cgroup_exit,
	       .cgroup_set_weight = (void *)joule_cgroup_set_weight, .init = (void *)joule_init,
	       .exit = (void *)joule_exit, .timeout_ms = 20000, .name = "joule");
