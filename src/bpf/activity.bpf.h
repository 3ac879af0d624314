/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the CPUs do, for the energy model: busy and idle time per OPP, exits
 * from idle, and the capacity that each CPU has delivered.
 *
 * A group's record is advanced at every event that changes it: a CPU goes
 * idle or busy, the clock changes. Between two events the number of busy CPUs
 * and the OPP are constant, so the integrals are exact where the group shares
 * a clock. Where each CPU has its own, its busy time is counted at its own
 * transitions and ticks, for the clock that the kernel has seen until then, and
 * when a sample is taken. The group's active time goes to the OPP of the last
 * event.
 *
 * Two busy threads of a core draw less than two cores: the time in which both
 * are busy is counted once per core, like busy time. Where CPUs have clocks of
 * their own, the two threads share one: their time goes to the OPP that
 * whichever of them had the last event saw then. Only a core of which no thread
 * is busy is idle, for as long as the last one has been.
 *
 * The capacity integral of a CPU (capacity times ns) makes utilisation
 * invariant: a task's mean capacity over a stretch is the integral's
 * difference over the time's, exact across changes of clock in between. The
 * clock is learnt from the cpu_frequency tracepoint where software sets it,
 * and where hardware does when a CPU wakes or rests, when a task starts to run
 * and at ticks (arch_scale_freq_capacity is refreshed by the kernel's tick). A
 * machine whose clocks nobody is known to set is looked at at ticks.
 *
 * The control loop is woken through a ring buffer when enough busy time has
 * gathered to be worth a sample: nothing wakes it on an idle machine.
 *
 * Concurrency: each record has a spin lock; a group's is taken by its at most
 * 16 CPUs at idle transitions and clock changes, a CPU's by itself and by
 * whoever changes its clock. A CPU's state is written, and its sibling's read,
 * under the group's lock: of two siblings that wake at once, the second finds
 * the first busy.
 *
 * Limits: a CPU counts from its first transition on; the depth of idle is told
 * by its length, as hardware that promotes to deeper states does. Cores of more
 * than two threads count as so many cores.
 */
#ifndef __JOULE_ACTIVITY_BPF_H
#define __JOULE_ACTIVITY_BPF_H

enum cpu_state { CPU_STATE_UNKNOWN, CPU_STATE_BUSY, CPU_STATE_IDLE };

struct cpu_ctx {
	struct bpf_spin_lock lock; /* of the next three */
	u32 capacity;		   /* delivered now */
	u64 delivered;		   /* capacity * ns up to `at` */
	u64 at;
	u64 idle_since;
	u64 free_at;	   /* when what runs here is likely to sleep: run_left_ns() */
	u64 counted_until; /* its busy time, where it has a clock of its own */
	u64 gathered_ns;   /* busy time not yet in gathered_ns of all */
	u32 state;	   /* written under the group's lock */
	u32 kicked;	   /* a kick is under way and has found no work yet */
	u32 pinned;	   /* something may wait in its own queue */
	u32 decisions;	   /* placements made here */
	u32 asked_cap;	   /* need of the task for which it asked for its clock */
	u32 opp;	   /* of the capacity delivered, by the prior */
	u64 run_vtime;	   /* virtual time of the task that runs here, as of run_vtime_at, */
	u64 run_vtime_at;
	u64 run_share;	/* and its share */
	u32 run_need;	/* what it needs, where CPUs share a clock; CAPACITY_SCALE: it may not go */
	u32 gives_way;	/* it goes elsewhere for one that needs more */
	u32 seat_cap;	/* what the task takes as a rule that has its seat here; 0: none has */
	u32 seat_pid;	/* which task that is */
	u64 seat_until; /* when it has given that up, unless it comes back */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, JOULE_MAX_CPUS);
	__type(key, u32);
	__type(value, struct cpu_ctx);
} cpu_ctxs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, JOULE_MAX_GROUPS);
	__type(key, u32);
	__type(value, struct joule_activity);
} activities SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} wakeups SEC(".maps");

/* Busy time since the control loop last looked, and how much wakes it (0: none does). */
u64 gathered_ns;
u64 wake_after_ns;

/* Bit g: some CPU of group g is at work; all of them are. */
static u64 awake_groups, full_groups;

static __always_inline struct cpu_ctx *cpu_ctx_of(s32 cpu)
{
	return bpf_map_lookup_elem(&cpu_ctxs, &cpu);
}

/* The record of the other thread of the CPU's core; NULL where there is none. */
static __always_inline struct cpu_ctx *sibling_ctx(s32 cpu)
{
	u32 sibling = sibling_of(cpu);

	return sibling == JOULE_NO_CPU ? NULL : cpu_ctx_of(sibling);
}

/* CPUs of the group that are at work; may be one transition old. */
static __always_inline u32 group_busy_cpus(u32 group)
{
	struct joule_activity *activity = bpf_map_lookup_elem(&activities, &group);

	return activity ? activity->busy_cpus : 0;
}

/* The CPU of the group that went to work last; it may be idle again. */
static __always_inline s32 last_busy_cpu(u32 group)
{
	struct joule_activity *activity = bpf_map_lookup_elem(&activities, &group);

	return activity ? activity->busy_cpu : -ENOENT;
}

/*
 * Capacity that the CPU delivers now, as the kernel sees its clock. Rounded:
 * the kernel has rounded down before, and a slow OPP of a little CPU would lose
 * one in forty.
 */
static __always_inline u32 capacity_now(s32 cpu)
{
	u32 full = group_capacity(group_of_cpu(cpu));

	return (full * scx_bpf_cpuperf_cur(cpu) + SCX_CPUPERF_ONE / 2) / SCX_CPUPERF_ONE;
}

/* The CPU's own capacity integral at `now`. Where software sets no clocks, nobody else writes it.
 */
static __always_inline u64 delivered_until(struct cpu_ctx *cctx, u64 now)
{
	u64 delivered;

	if (!software_clocks)
		return cctx->delivered + elapsed_ns(now, cctx->at) * cctx->capacity;
	bpf_spin_lock(&cctx->lock);
	delivered = cctx->delivered + elapsed_ns(now, cctx->at) * cctx->capacity;
	bpf_spin_unlock(&cctx->lock);
	return delivered;
}

/* Notes the CPU's present clock, and the prior's OPP of it. */
static __always_inline void note_clock(struct cpu_ctx *cctx, s32 cpu, u64 now)
{
	u32 capacity = capacity_now(cpu);
	const struct joule_cost_row *row;

	if (cctx->capacity == capacity)
		return;
	row = costs_of_group(group_of_cpu(cpu), JOULE_STATIC_SLOT);
	if (row)
		cctx->opp = nearest_opp(row, capacity);
	bpf_spin_lock(&cctx->lock);
	cctx->delivered += elapsed_ns(now, cctx->at) * cctx->capacity;
	cctx->at = time_before(cctx->at, now) ? now : cctx->at;
	cctx->capacity = capacity;
	bpf_spin_unlock(&cctx->lock);
}

/* Inside the record's lock: counts the group's time since the last event. */
static __always_inline void activity_advance(struct joule_activity *activity, u32 group, u64 now)
{
	u64 dt = elapsed_ns(now, activity->since_ns);
	u32 opp = activity->opp & (JOULE_MAX_OPPS - 1);

	if (activity->busy_cpus) {
		activity->active_ns[opp] += dt;
		if (!has_own_clock(group)) {
			activity->busy_ns[opp] += dt * activity->busy_cpus;
			activity->paired_ns[opp] += dt * activity->busy_pairs;
		}
	}
	if (time_before(activity->since_ns, now))
		activity->since_ns = now;
}

/*
 * Inside the record's lock: counts a CPU's busy time until now, where it has a
 * clock of its own; what it had its sibling's company for, since the last event
 * of either.
 */
static __always_inline void count_own_time(struct joule_activity *activity, struct cpu_ctx *cctx,
					   const struct cpu_ctx *sibling, u32 group, u32 opp,
					   u64 now)
{
	u64 dt = elapsed_ns(now, cctx->counted_until);

	if (!has_own_clock(group))
		return;
	opp &= JOULE_MAX_OPPS - 1;
	if (cctx->state == CPU_STATE_BUSY) {
		activity->busy_ns[opp] += dt;
		if (sibling && sibling->state == CPU_STATE_BUSY)
			activity->paired_ns[opp] +=
				min_u64(dt, elapsed_ns(now, sibling->counted_until));
	}
	cctx->counted_until = now;
}

/* A CPU became busy (exit from idle) or idle. */
static void count_transition(s32 cpu, bool idle, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu), *sibling = sibling_ctx(cpu);
	u32 before, after = idle ? CPU_STATE_IDLE : CPU_STATE_BUSY;
	u32 group = group_of_cpu(cpu), opp;
	struct joule_activity *activity = bpf_map_lookup_elem(&activities, &group);
	const volatile struct joule_group *info = group_info(group);
	u64 slept, shallow;

	if (!cctx || !activity || !info || cctx->state == after)
		return;
	if (hardware_clocks)
		note_clock(cctx, cpu, now);
	opp = cctx->opp;
	before = cctx->state;
	if (idle)
		cctx->idle_since = now;

	bpf_spin_lock(&activity->lock);
	if (!idle && !activity->busy_cpus &&
	    elapsed_ns(now, activity->since_ns) >= settings.deep_idle_ns)
		activity->group_wakes++;
	activity_advance(activity, group, now);
	count_own_time(activity, cctx, sibling, group, opp, now);
	cctx->state = after;
	activity->opp = opp;
	if (idle) {
		activity->idle_cpu = cpu;
		if (before == CPU_STATE_BUSY && activity->busy_cpus)
			activity->busy_cpus--;
	} else {
		activity->busy_cpu = cpu;
		activity->busy_cpus++;
	}
	if (sibling && sibling->state == CPU_STATE_BUSY) {
		if (!idle)
			activity->busy_pairs++;
		else if (before == CPU_STATE_BUSY && activity->busy_pairs)
			activity->busy_pairs--;
	}
	if (before == CPU_STATE_IDLE && !(sibling && sibling->state == CPU_STATE_BUSY)) {
		slept = elapsed_ns(now, cctx->idle_since);
		if (sibling && sibling->state == CPU_STATE_IDLE)
			slept = min_u64(slept, elapsed_ns(now, sibling->idle_since));
		shallow = min_u64(slept, settings.deep_idle_ns);
		activity->shallow_ns += shallow;
		if (slept < settings.deep_idle_ns)
			activity->shallow_exits++;
		else
			activity->deep_exits++;
	}
	set_member(&awake_groups, group, activity->busy_cpus);
	set_member(&full_groups, group, activity->busy_cpus >= info->nr_cpus);
	bpf_spin_unlock(&activity->lock);
}

/* Whether the CPU is of the group and at work: for good, where its run queue's lock is held. */
static __always_inline bool is_busy_in(u32 group, s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	return cctx && cctx->state == CPU_STATE_BUSY && group_of_cpu(cpu) == group;
}

/* Whether the CPU has nothing to do but interrupts. */
static __always_inline bool is_idle(s32 cpu)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	return cctx && cctx->state == CPU_STATE_IDLE;
}

/* Whether the CPU has idled for too short to be in a deep state. */
static __always_inline bool is_shallow(s32 cpu, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	return cctx && cctx->state == CPU_STATE_IDLE &&
	       elapsed_ns(now, cctx->idle_since) < settings.deep_idle_ns;
}

/* The clock of a CPU changed. */
static void count_clock(s32 cpu, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu), *sibling = sibling_ctx(cpu);
	u32 group = group_of_cpu(cpu), opp;
	struct joule_activity *activity = bpf_map_lookup_elem(&activities, &group);

	if (!activity || !cctx)
		return;
	note_clock(cctx, cpu, now);
	opp = cctx->opp;
	if (activity->opp == opp && !has_own_clock(group))
		return;
	bpf_spin_lock(&activity->lock);
	activity_advance(activity, group, now);
	count_own_time(activity, cctx, sibling, group, opp, now);
	activity->opp = opp;
	bpf_spin_unlock(&activity->lock);
}

/* Closes a CPU's open interval, where it has a clock of its own, at the clock noted last. */
static void count_open_time(s32 cpu, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu), *sibling = sibling_ctx(cpu);
	u32 group = group_of_cpu(cpu), opp;
	struct joule_activity *activity = bpf_map_lookup_elem(&activities, &group);

	if (!activity || !cctx || !has_own_clock(group))
		return;
	opp = cctx->opp;
	bpf_spin_lock(&activity->lock);
	if (time_before(cctx->counted_until, now))
		count_own_time(activity, cctx, sibling, group, opp, now);
	bpf_spin_unlock(&activity->lock);
}

/* Adds run time to what may wake the control loop; an eighth at a time, to keep the sum cool. */
static void gather(struct cpu_ctx *cctx, u64 ran_ns)
{
	u64 wake_after = wake_after_ns, before;

	if (!wake_after)
		return;
	cctx->gathered_ns += ran_ns;
	if (cctx->gathered_ns < wake_after / 8)
		return;
	before = __sync_fetch_and_add(&gathered_ns, cctx->gathered_ns);
	if (before < wake_after && before + cctx->gathered_ns >= wake_after) {
		u64 token = 0;

		bpf_ringbuf_output(&wakeups, &token, sizeof(token), BPF_RB_FORCE_WAKEUP);
	}
	cctx->gathered_ns = 0;
}

#endif /* __JOULE_ACTIVITY_BPF_H */
