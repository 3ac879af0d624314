/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How the machine's CPUs relate, and which of them a task may use, as plain look-ups: constants set
 * before loading, and masks made by init.
 */
#ifndef __JOULE_RELATIONS_BPF_H
#define __JOULE_RELATIONS_BPF_H

/* The group of a CPU; JOULE_NO_GROUP for a number that is no CPU. */
static __always_inline u32 group_of_cpu(s32 cpu)
{
	const volatile u8 *group = MEMBER_VPTR(topology.cpu_group, [cpu]);

	return group ? *group : JOULE_NO_GROUP;
}

/* The other thread of the CPU's core, in its group too; JOULE_NO_CPU where there is none. */
static __always_inline u32 sibling_of(s32 cpu)
{
	const volatile u16 *sibling = NULL;

	if (smt_enabled)
		sibling = MEMBER_VPTR(topology.cpu_sibling, [cpu]);
	return sibling ? *sibling : JOULE_NO_CPU;
}

/* The group's constants; NULL for a number that is no group. */
static __always_inline const volatile struct joule_group *group_info(u32 group)
{
	return MEMBER_VPTR(topology.group, [group]);
}

/* The group alone, as a set of groups. */
static __always_inline u64 group_bit(u32 group)
{
	return 1ULL << (group % JOULE_MAX_GROUPS);
}

/* Whether the group belongs to the set from now on. */
static __always_inline void set_member(u64 *groups, u32 group, bool member)
{
	u64 bit = group_bit(group);

	if (!(READ_ONCE(*groups) & bit) == !member)
		return;
	if (member)
		__sync_fetch_and_or(groups, bit);
	else
		__sync_fetch_and_and(groups, ~bit);
}

static __always_inline u32 group_capacity(u32 group)
{
	const volatile struct joule_group *info = group_info(group);

	return info ? info->capacity : 0;
}

/* Whether each CPU of the group has a clock of its own. */
static __always_inline bool has_own_clock(u32 group)
{
	const volatile struct joule_group *info = group_info(group);

	return info && info->per_cpu_freq;
}

/*
 * Whether hardware sets that clock, by what the CPU has done lately: it falls while the CPU has
 * nothing to do, so that whoever comes to another CPU than before begins there slowly.
 */
static __always_inline bool starts_slowly(u32 group)
{
	const volatile struct joule_group *info = group_info(group);

	return info && info->starts_slowly;
}

/* All groups, as a set. */
static __always_inline u64 all_groups(void)
{
	return ~0ULL >> (JOULE_MAX_GROUPS - topology.nr_groups) % JOULE_MAX_GROUPS;
}

/* Of some groups the nearest one to `from`, as a set; 0 of none. */
static __always_inline u64 nearest_group(u64 groups, u32 from)
{
	const volatile struct joule_group *info = groups ? group_info(from) : NULL;

	return info ? nearest_of(groups, info->same_cache, info->same_node, from)
		    : nearest_bit(groups, from);
}

/* The groups of the same memory node, as a set; all for a number that is no group. */
static __always_inline u64 groups_of_node(u32 group)
{
	const volatile struct joule_group *info = group_info(group);

	return info ? info->same_node : ~0ULL;
}

static __always_inline u32 group_class(u32 group)
{
	const volatile struct joule_group *info = group_info(group);

	return info ? info->class : JOULE_NO_CLASS;
}

/* The groups of the class, as a set; empty for a number that is no class. */
static __always_inline u64 groups_of_class(u32 class)
{
	const volatile u64 *groups = MEMBER_VPTR(topology.class_groups, [class]);

	return groups ? *groups : 0;
}

struct group_mask {
	struct bpf_cpumask __kptr *cpus;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, JOULE_MAX_GROUPS);
	__type(key, u32);
	__type(value, struct group_mask);
} group_masks SEC(".maps");

/* The CPUs of a group as the kernel's mask; NULL before init has run. */
static __always_inline const struct cpumask *cpus_of_group(u32 group)
{
	struct group_mask *mask = bpf_map_lookup_elem(&group_masks, &group);

	return mask ? (const struct cpumask *)mask->cpus : NULL;
}

static __always_inline bool is_pinned(const struct task_struct *p)
{
	return p->nr_cpus_allowed == 1 || is_migration_disabled(p);
}

/* Whether the task's affinity leaves it every CPU. */
static __always_inline bool may_use_all(const struct task_struct *p)
{
	return p->nr_cpus_allowed >= topology.nr_cpus;
}

/* Whether the task may run on some CPU of the group. */
static __always_inline bool may_use(const struct task_struct *p, u32 group)
{
	const struct cpumask *cpus;

	if (may_use_all(p))
		return true;
	cpus = cpus_of_group(group);
	return cpus && bpf_cpumask_intersects(cpus, p->cpus_ptr);
}

/* Time since a stamp; 0 when the stamp is ahead (clocks of two CPUs differ a little). */
static __always_inline u64 elapsed_ns(u64 now, u64 since)
{
	return time_before(now, since) ? 0 : now - since;
}

#endif /* __JOULE_RELATIONS_BPF_H */
