/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What share of the CPUs a task is due.
 *
 * The weight of a cgroup (cpu.weight) divides the share of the cgroup around it
 * among what is runnable right inside that one, tasks and cgroups alike.
 * Virtual time, one queue for all, takes one number for each task instead: its
 * own weight and then, for each cgroup from its own up to below the root, times
 * that cgroup's weight over the sum of what is runnable right inside it.
 *
 * So each cgroup keeps that sum. The first task that becomes runnable in a
 * cgroup adds the cgroup's weight to the sum around it, and so on upwards; the
 * last one that goes takes it back. The root needs no sum.
 *
 * Units: weights are the kernel's for sched_ext, 1 to 10000 and 100 by default
 * for tasks and cgroups; a share is a weight with SHARE_SHIFT fractional bits.
 *
 * Concurrency: a sum changes under its cgroup's lock, one lock at a time. What
 * the outer sum has of a cgroup is noted in the cgroup, under its lock, so that
 * exactly that is taken back. Between two locks another CPU may be faster: a
 * sum may be off, even below 0, for as long as that takes. The kernel takes a
 * task off its queue before it changes its cgroup, so a task leaves the sum
 * that it entered.
 *
 * Cost: nothing while no cgroup has the cpu controller, as `nr_cgroups` tells;
 * else a step for each level of the tree where a task starts to run and at its
 * ticks, and one for each level of which it is the first or the last task.
 *
 * Limits: a share is of all CPUs that tasks compete for, not of each one. Limits
 * of bandwidth (cpu.max) and cpu.idle do nothing.
 */
#ifndef __JOULE_SHARE_BPF_H
#define __JOULE_SHARE_BPF_H

struct cgroup_ctx {
	struct bpf_spin_lock lock;
	u32 weight;
	u32 counted;	 /* weight that the sum around it has of this cgroup */
	s32 nr_runnable; /* right inside */
	s64 sum;	 /* of their weights */
};

struct {
	__uint(type, BPF_MAP_TYPE_CGRP_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct cgroup_ctx);
} cgroup_ctxs SEC(".maps");

/* Those below the root. */
static u32 nr_cgroups;

/* The record of the cgroup's ancestor `up` levels above it; 0: its own. */
static __always_inline struct cgroup_ctx *cgroup_ctx_above(struct cgroup *cgrp, u32 up)
{
	struct cgroup *above = bpf_cgroup_ancestor(cgrp, cgrp->level - up);
	struct cgroup_ctx *ctx;

	if (!above)
		return NULL;
	ctx = bpf_cgrp_storage_get(&cgroup_ctxs, above, 0, 0);
	bpf_cgroup_release(above);
	return ctx;
}

/* Changes what is runnable right inside a cgroup, and so what counts of it and those above it. */
static void change_inside(struct cgroup *cgrp, s32 nr, s64 weight)
{
	u32 up;

	bpf_for (up, 0, cgrp->level) {
		struct cgroup_ctx *ctx = cgroup_ctx_above(cgrp, up);
		u32 before, after;

		if (!ctx)
			return;
		bpf_spin_lock(&ctx->lock);
		ctx->nr_runnable += nr;
		ctx->sum += weight;
		before = ctx->counted;
		after = ctx->counted = ctx->nr_runnable > 0 ? ctx->weight : 0;
		bpf_spin_unlock(&ctx->lock);
		if (before == after)
			return;
		nr = !!after - !!before;
		weight = (s64)after - before;
	}
}

/* The task starts to count in its cgroup. */
static void enter_share(struct task_struct *p, struct task_ctx *tctx)
{
	struct cgroup *cgrp;

	if (!nr_cgroups || tctx->counted_weight)
		return;
	cgrp = scx_bpf_task_cgroup(p);
	if (!cgrp)
		return;
	tctx->counted_weight = max_u32(p->scx.weight, 1);
	change_inside(cgrp, 1, tctx->counted_weight);
	bpf_cgroup_release(cgrp);
}

/* The task ceases to. */
static void leave_share(struct task_struct *p, struct task_ctx *tctx)
{
	s64 weight = tctx->counted_weight;
	struct cgroup *cgrp;

	if (!weight)
		return;
	tctx->counted_weight = 0;
	cgrp = scx_bpf_task_cgroup(p);
	if (!cgrp)
		return;
	change_inside(cgrp, -1, -weight);
	bpf_cgroup_release(cgrp);
}

/* The share that a runnable task is due. */
static u64 share_of(struct task_struct *p)
{
	u32 weight = max_u32(p->scx.weight, 1), up;
	u64 share = (u64)weight << SHARE_SHIFT;
	struct cgroup *cgrp;

	if (!nr_cgroups)
		return share;
	cgrp = scx_bpf_task_cgroup(p);
	if (!cgrp)
		return share;
	bpf_for (up, 0, cgrp->level) {
		struct cgroup_ctx *ctx = cgroup_ctx_above(cgrp, up);

		if (!ctx)
			break;
		share = share_inside(share, weight, ctx->sum, ctx->weight);
		weight = ctx->weight;
	}
	bpf_cgroup_release(cgrp);
	return share;
}

/* A cgroup begins to be; false when there is no memory for it. */
static bool begin_cgroup(struct cgroup *cgrp, u32 weight)
{
	struct cgroup_ctx *ctx =
		bpf_cgrp_storage_get(&cgroup_ctxs, cgrp, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (!ctx)
		return false;
	ctx->weight = max_u32(weight, 1);
	if (cgrp->level)
		__sync_fetch_and_add(&nr_cgroups, 1);
	return true;
}

static void end_cgroup(struct cgroup *cgrp)
{
	if (cgrp->level)
		__sync_fetch_and_sub(&nr_cgroups, 1);
}

static void weigh_cgroup(struct cgroup *cgrp, u32 weight)
{
	struct cgroup_ctx *ctx = bpf_cgrp_storage_get(&cgroup_ctxs, cgrp, 0, 0);

	if (!ctx)
		return;
	bpf_spin_lock(&ctx->lock);
	ctx->weight = max_u32(weight, 1);
	bpf_spin_unlock(&ctx->lock);
	change_inside(cgrp, 0, 0);
}

#endif /* __JOULE_SHARE_BPF_H */
