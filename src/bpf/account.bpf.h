/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who uses how much: utilisation per task, sums per group.
 *
 * A task's utilisation is brought up to date when it stops, at each tick while
 * it runs and when it is looked at; between those it only decays, which can be
 * done at any later time. A group's sum holds every task that last ran or was
 * placed there, sleepers included, and decays as one number (see
 * policy.bpf.h): a task leaves with exactly what it would have had left.
 *
 * Concurrency: a task's own record is written by callbacks that the kernel
 * serialises per task (pi_lock or its run queue's lock). A group's record is
 * written under its spin lock, by at most the 16 CPUs of the group and the
 * wakers of its tasks; it is read without the lock, field by field, and a
 * reader may see a sum one update old. scx_bpf_now() is the run queue's clock
 * and may step back by a little between CPUs: a negative interval counts as 0.
 *
 * Limits: rounding leaves a sum low by less than one unit for each task that
 * always runs; it decays like everything else.
 */
#ifndef __JOULE_ACCOUNT_BPF_H
#define __JOULE_ACCOUNT_BPF_H

#include "task.h"

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} task_ctxs SEC(".maps");

struct group_ctx {
	struct bpf_spin_lock lock;
	u32 need_bitmap; /* bit b: some runnable task counts in bucket b */
	u64 sum;	 /* UTIL_SHIFT fixed point, as of sum_at */
	u64 sum_at;
	u64 waited; /* as sum, as of waited_at: what tasks that waited would have used */
	u64 waited_at;
	u64 est_cap;	   /* needs of the runnable tasks */
	u64 patient_until; /* what is in its queue waits by choice, until then; 0: it does not */
	u32 guard;	   /* guard_after() of the wake-ups; 1/1024 % */
	u32 need_count[NEED_BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, JOULE_MAX_GROUPS);
	__type(key, u32);
	__type(value, struct group_ctx);
} group_ctxs SEC(".maps");

/* Less than this is the time that waking takes. */
#define SHORTEST_WAIT_NS 50000

static u64 vtimes[JOULE_MAX_GROUPS];

static __always_inline struct task_ctx *task_ctx_of(struct task_struct *p)
{
	return bpf_task_storage_get(&task_ctxs, p, 0, 0);
}

static __always_inline struct group_ctx *group_ctx_of(u32 group)
{
	return bpf_map_lookup_elem(&group_ctxs, &group);
}

/* Virtual time of the group's queue: that of the furthest task that ran. */
static __always_inline u64 group_vtime(u32 group)
{
	u64 *vtime = MEMBER_VPTR(vtimes, [group]);

	return vtime ? *vtime : 0;
}

static __always_inline void advance_vtime(u32 group, u64 to)
{
	u64 *vtime = MEMBER_VPTR(vtimes, [group]);

	if (vtime && time_before(*vtime, to))
		*vtime = to;
}

/* What the task needs of a CPU by itself. */
static __always_inline u32 own_need(const struct task_ctx *tctx)
{
	return max_u32(need_of(util_cap(tctx->util), tctx->est_cap), tctx->catch_up_cap);
}

/* That, within what the kernel's users ask for it. */
static __always_inline u32 task_need(const struct task_ctx *tctx)
{
	return clamped(own_need(tctx), tctx->least_cap, tctx->most_cap);
}

/*
 * Room that a task leaves at least on a CPU that it fits, as a CPU's top clock has no reserve: the
 * kernel's (fits_capacity, kernel/sched/fair.c). Less where CPUs start slowly and it takes
 * a quarter of a CPU of full capacity or more: on a bigger one hardware would soon raise the clock
 * far above what it needs, at twice the energy for the same work. Who sleeps for most of the time
 * begins at a low clock, which a bigger CPU makes up for.
 */
#define ROOM_PCT 125
#define ROOM_OF_BUSY_PCT 112
#define BUSY_CAP (CAPACITY_SCALE / 4)

/*
 * Who leaves a CPU that starts slowly begins at a low clock on the other one, is late, and what
 * piles up meanwhile would send it back. So a busy task needs less room to stay than to come, and
 * so much more of its price must be saved by any that leaves.
 */
#define LESS_TO_STAY_PCT 10
#define COLD_START_PCT 15

/*
 * Least capacity of a CPU that the task fits, which needs so much by itself, to come there or to
 * stay; what users ask for is meant as it is said.
 */
static __always_inline u32 fitting_cap(const struct task_ctx *tctx, u32 need_cap, bool stays)
{
	bool busy = starts_slowly(tctx->group) && tctx->usual_cap >= BUSY_CAP;
	u32 room_pct = max_u32(settings.headroom_pct, busy ? ROOM_OF_BUSY_PCT : ROOM_PCT);

	if (busy && stays)
		room_pct -= LESS_TO_STAY_PCT;
	return clamped(with_headroom(need_cap, room_pct), tctx->least_cap, tctx->most_cap);
}

/* Kernels with CONFIG_UCLAMP_TASK (kernel/sched/sched.h). */
enum { CLAMP_MIN, CLAMP_MAX, NR_CLAMPS };

struct uclamp_se___clamped {
	unsigned int value : 11;
	unsigned int active : 1;
} __attribute__((preserve_access_index));

struct task_struct___clamped {
	struct uclamp_se___clamped uclamp[NR_CLAMPS];
} __attribute__((preserve_access_index));

/*
 * Notes a task's clamps, its own and its cgroup's (sched_setattr(2), cpu.uclamp.min and .max),
 * which the kernel brings up to date whenever the task becomes runnable. The clock is clamped by
 * schedutil.
 */
static __always_inline void note_clamps(const struct task_struct *p, struct task_ctx *tctx)
{
	const struct task_struct___clamped *clamped = (const void *)p;
	const struct uclamp_se___clamped *least, *most;

	tctx->least_cap = 0;
	tctx->most_cap = CAPACITY_SCALE;
	if (!bpf_core_field_exists(clamped->uclamp))
		return;
	least = &clamped->uclamp[CLAMP_MIN];
	most = &clamped->uclamp[CLAMP_MAX];
	/* It is not active while nobody on this machine has clamped anything. */
	if (!BPF_CORE_READ_BITFIELD(most, active))
		return;
	tctx->least_cap = BPF_CORE_READ_BITFIELD(least, value);
	tctx->most_cap = BPF_CORE_READ_BITFIELD(most, value);
}

/* --- inside a group's lock --- */

static __always_inline void sum_advance(struct group_ctx *gctx, u64 now)
{
	u64 dt = elapsed_ns(now, gctx->sum_at);

	gctx->sum = decay(gctx->sum, dt);
	if (time_before(gctx->sum_at, now))
		gctx->sum_at = now;
}

static __always_inline void sum_replace(struct group_ctx *gctx, u64 old, u64 new)
{
	gctx->sum += new;
	gctx->sum -= old < gctx->sum ? old : gctx->sum;
}

static __always_inline void need_add(struct group_ctx *gctx, u32 need_cap)
{
	u32 bucket = need_bucket(need_cap) & (NEED_BUCKETS - 1);

	gctx->est_cap += need_cap;
	if (gctx->need_count[bucket]++ == 0)
		gctx->need_bitmap |= 1U << bucket;
}

static __always_inline void need_drop(struct group_ctx *gctx, u32 need_cap)
{
	u32 bucket = need_bucket(need_cap) & (NEED_BUCKETS - 1);

	gctx->est_cap -= need_cap;
	if (--gctx->need_count[bucket] == 0)
		gctx->need_bitmap &= ~(1U << bucket);
}

/* --- whole operations --- */

/* Brings the utilisation of a task that has not run to `now`; its group's sum decays by itself. */
static void util_rest(struct task_ctx *tctx, u64 now)
{
	u64 dt = elapsed_ns(now, tctx->util_at);

	if (!dt)
		return;
	tctx->util = decay(tctx->util, dt);
	tctx->util_at = now;
}

/* The utilisation of a task that has run, with what its CPU has delivered since it was brought up
 * to date: capacity times ns. */
static __always_inline u64 util_run(struct task_ctx *tctx, u64 delivered, u64 now)
{
	u64 dt = elapsed_ns(now, tctx->util_at);
	u64 work = min_u64(work_of(delivered), dt);

	tctx->ran_ns += dt;
	tctx->lost_ns += dt - work;
	return util_after(tctx->util, work);
}

/* That of one that goes to sleep with `util`; what it used is what the next activation will. */
static __always_inline u64 util_sleep(struct task_ctx *tctx, u64 util)
{
	tctx->est_cap = util_est_after(tctx->est_cap, util_cap(util), tctx->interval_ns);
	tctx->pace_cap = pace_after(tctx->pace_cap, tctx->ran_ns, tctx->lost_ns);
	tctx->run_ns = mean_after(tctx->run_ns, tctx->ran_ns);
	tctx->usual_cap = usual_cap(tctx->run_ns, tctx->pace_cap, tctx->interval_ns);
	util = util_asleep(util, tctx->lost_ns);
	tctx->ran_ns = tctx->lost_ns = 0;
	tctx->catch_up_cap = 0;
	return util;
}

/* How kernels before 6.8 keep util_est (kernel/sched/fair.c). */
struct sched_avg___pair {
	struct {
		u32 enqueued;
		u32 ewma;
	} util_est;
} __attribute__((preserve_access_index));

/* Set in util_est while the task has not run (UTIL_AVG_UNCHANGED, kernel/sched/pelt.h). */
#define UTIL_AVG_UNCHANGED 0x80000000U

/*
 * A task that comes from the kernel's scheduler is known to it: on the same
 * scale, and on a clock that differs from ours by what interrupts took.
 */
static void util_seed(struct task_struct *p, struct task_ctx *tctx, u64 now)
{
	struct sched_avg___pair *pair = (void *)&p->se.avg;
	u32 est = bpf_core_field_exists(pair->util_est.ewma)
			  ? max_u32(BPF_CORE_READ(pair, util_est.enqueued),
				    BPF_CORE_READ(pair, util_est.ewma))
			  : p->se.avg.util_est;
	u64 util = min_u64(p->se.avg.util_avg, CAPACITY_SCALE) << UTIL_SHIFT;

	tctx->util = decay(util, elapsed_ns(now, p->se.avg.last_update_time));
	tctx->util_at = now;
	tctx->est_cap = min_u32(est & ~UTIL_AVG_UNCHANGED, CAPACITY_SCALE);
}

/* Takes the task, which is up to date, out of its group's sums. */
static void group_leave(struct task_ctx *tctx, u64 now)
{
	struct group_ctx *gctx = group_ctx_of(tctx->group);

	tctx->group = JOULE_NO_GROUP;
	if (!gctx)
		return;
	bpf_spin_lock(&gctx->lock);
	sum_advance(gctx, now);
	sum_replace(gctx, tctx->util, 0);
	if (tctx->runnable)
		need_drop(gctx, tctx->counted_cap);
	bpf_spin_unlock(&gctx->lock);
}

/* Puts the task, which is up to date, into a group's sums. */
static void group_join(struct task_ctx *tctx, u32 group, u64 now)
{
	struct group_ctx *gctx = group_ctx_of(group);

	if (!gctx)
		return;
	tctx->group = group;
	tctx->counted_cap = task_need(tctx);
	bpf_spin_lock(&gctx->lock);
	sum_advance(gctx, now);
	sum_replace(gctx, 0, tctx->util);
	if (tctx->runnable)
		need_add(gctx, tctx->counted_cap);
	bpf_spin_unlock(&gctx->lock);
}

/*
 * Moves the task's sums and its place in virtual time to another group. One that
 * comes from nowhere has its place where the group's clock is.
 */
static __noinline void change_group(struct task_ctx *tctx, u32 group, u64 now)
{
	u64 ahead = 0;

	if (tctx->group < JOULE_MAX_GROUPS)
		ahead = tctx->vtime - group_vtime(tctx->group);
	tctx->vtime = group_vtime(group) + ahead;
	util_rest(tctx, now);
	group_leave(tctx, now);
	group_join(tctx, group, now);
}

/* The task belongs to this group from now on, as it does in most cases already. */
static __always_inline void group_move(struct task_ctx *tctx, u32 group, u64 now)
{
	if (tctx->group != group)
		change_group(tctx, group, now);
}

/* The task's need starts to count, as it is runnable. */
static void need_enter(struct task_ctx *tctx)
{
	struct group_ctx *gctx = group_ctx_of(tctx->group);

	if (tctx->runnable)
		return;
	tctx->runnable = 1;
	if (!gctx)
		return;
	tctx->counted_cap = task_need(tctx);
	bpf_spin_lock(&gctx->lock);
	need_add(gctx, tctx->counted_cap);
	bpf_spin_unlock(&gctx->lock);
}

/*
 * Notes in the group's sums that the task's utilisation is `util`, and with it
 * what it needs; or that it needs nothing, as it is no longer runnable.
 */
static void recount(struct task_ctx *tctx, u64 util, bool runnable, u64 now)
{
	struct group_ctx *gctx = group_ctx_of(tctx->group);
	u32 counted_cap = tctx->counted_cap, need_cap;
	bool was_counted = tctx->runnable, changed;
	u64 left;

	util_rest(tctx, now);
	left = tctx->util;
	tctx->util = util;
	need_cap = task_need(tctx);
	changed = was_counted && (!runnable || need_bucket(need_cap) != need_bucket(counted_cap));
	if (changed && runnable)
		tctx->counted_cap = need_cap;
	if (!runnable)
		tctx->runnable = 0;
	if (!gctx)
		return;
	bpf_spin_lock(&gctx->lock);
	sum_advance(gctx, now);
	sum_replace(gctx, left, util);
	if (changed) {
		need_drop(gctx, counted_cap);
		if (runnable)
			need_add(gctx, need_cap);
	}
	bpf_spin_unlock(&gctx->lock);
}

/* What a task that is up to date has in this group's sum: nothing when it is elsewhere. */
static __always_inline u64 own_share(const struct task_ctx *tctx, u32 group)
{
	return tctx->group == group ? tctx->util : 0;
}

/* A group's load without `own` (UTIL_SHIFT fixed point). */
static __always_inline u32 group_sum_cap(const struct group_ctx *gctx, u64 own, u64 now)
{
	u64 sum = gctx->sum;

	/* Most groups have nothing to do at any time. */
	if (!util_cap(sum))
		return 0;
	sum = decay(sum, elapsed_ns(now, gctx->sum_at));
	return util_cap(own < sum ? sum - own : 0);
}

/*
 * A task that has waited counts as if it had run meanwhile: what could not run
 * in time is work that the utilisation does not show (the kernel's runnable
 * average, kernel/sched/fair.c). Written without the lock: a lost update is one
 * wait not counted.
 */
static void note_wait(u32 group, u64 waited_ns, u32 capacity, u64 now)
{
	struct group_ctx *gctx;

	if (waited_ns < SHORTEST_WAIT_NS)
		return;
	gctx = group_ctx_of(group);
	if (!gctx)
		return;
	gctx->waited = decay(gctx->waited, elapsed_ns(now, gctx->waited_at)) +
		       util_after(0, work_of(waited_ns * capacity));
	gctx->waited_at = now;
}

/* What waited in the group lately, as utilisation. */
static __always_inline u32 group_waited_cap(const struct group_ctx *gctx, u64 now)
{
	return util_cap(decay(gctx->waited, elapsed_ns(now, gctx->waited_at)));
}

/*
 * A wake-up was served after so long, by a CPU that delivers `capacity` now. Where
 * hardware sets the clock, what its group winds up is no headroom, but less
 * patience. Written without the lock: a lost update is one wake-up not
 * counted.
 */
static __always_inline void guard_latency(u32 group, u64 waited_ns, u32 capacity)
{
	struct group_ctx *gctx = group_ctx_of(group);
	bool late = waited_ns > settings.wait_ns, at_top;

	if (!gctx || !(gctx->guard || late))
		return;
	at_top = capacity >= group_limit(group) && !starts_slowly(group);
	gctx->guard = guard_after(gctx->guard, late, at_top);
}

static __always_inline u32 group_guard(u32 group)
{
	struct group_ctx *gctx = group_ctx_of(group);

	return gctx ? min_u32(gctx->guard, GUARD_MOST) : 0;
}

/* The profile's headroom, and what the group's wake-ups need beyond it. */
static __always_inline u32 group_headroom_pct(const struct group_ctx *gctx)
{
	return settings.headroom_pct + (min_u32(gctx->guard, GUARD_MOST) >> GUARD_SHIFT);
}

/* The task wakes up: how often does it? */
static __always_inline void note_wakeup(struct task_ctx *tctx, u64 now)
{
	if (tctx->woke_at)
		tctx->interval_ns =
			interval_after(tctx->interval_ns, elapsed_ns(now, tctx->woke_at));
	tctx->woke_at = now;
}

/* How long the task, which starts to run, is likely to: as on average, or a slice. */
static __always_inline u64 run_left_ns(const struct task_ctx *tctx)
{
	return tctx->run_ns > tctx->ran_ns ? tctx->run_ns - tctx->ran_ns : settings.slice_ns;
}

/* Need of the neediest of the group's runnable tasks. */
static __always_inline u32 group_top_cap(const struct group_ctx *gctx)
{
	u32 bitmap = gctx->need_bitmap;

	return bitmap ? bucket_cap(highest_bit(bitmap)) : 0;
}

/*
 * How many tasks are, or are about to be, in the queue of each group; and, by
 * bits, of which groups that is not 0. A task counts from before the kernel
 * inserts it, when the callback has returned, until it runs or is taken out.
 */
static u32 nr_waiting[JOULE_MAX_GROUPS];
static u64 waiting_groups;

static __always_inline u32 group_waiting(u32 group)
{
	u32 *nr = MEMBER_VPTR(nr_waiting, [group]);

	return nr ? READ_ONCE(*nr) : 0;
}

/* The task is no longer in a group's queue. */
static __always_inline void leave_queue(struct task_ctx *tctx)
{
	u32 group = tctx->queue, *nr = MEMBER_VPTR(nr_waiting, [group]);

	tctx->queue = JOULE_NO_GROUP;
	if (!nr || __sync_fetch_and_sub(nr, 1) != 1)
		return;
	__sync_fetch_and_and(&waiting_groups, ~group_bit(group));
	/* Who came meanwhile may have found the bit still set. */
	if (__sync_fetch_and_add(nr, 0))
		__sync_fetch_and_or(&waiting_groups, group_bit(group));
}

/* It will be in this group's. */
static __always_inline void enter_queue(struct task_ctx *tctx, u32 group)
{
	u32 *nr = MEMBER_VPTR(nr_waiting, [group]), before;

	if (!nr)
		return;
	tctx->queue = group;
	before = __sync_fetch_and_add(nr, 1);
	/* Only an atomic whose result is used is a barrier. */
	asm volatile("" : : "r"(before));
	if (!(READ_ONCE(waiting_groups) & group_bit(group)))
		__sync_fetch_and_or(&waiting_groups, group_bit(group));
}

/* Adds up what must be zero when every task has left (self check, by BPF_PROG_RUN). */
static void residue_of_all(struct joule_residue *residue, u64 now)
{
	u32 group, bucket;

	bpf_for (group, 0, topology.nr_groups) {
		struct group_ctx *gctx = group_ctx_of(group);

		if (!gctx)
			break;
		residue->sum_cap += util_cap(decay(gctx->sum, elapsed_ns(now, gctx->sum_at)));
		residue->est_cap += gctx->est_cap;
		residue->nr_waiting += group_waiting(group);
		bpf_for (bucket, 0, NEED_BUCKETS) {
			residue->nr_counted += gctx->need_count[bucket & (NEED_BUCKETS - 1)];
		}
	}
}

#endif /* __JOULE_ACCOUNT_BPF_H */
