/* SPDX-License-Identifier: GPL-2.0 */
/* How the machine's CPUs relate, as plain look-ups: constants set before loading. */
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

/* Whether each CPU of the group has a clock of its own, which is hardware's to set as a rule. */
static __always_inline bool has_own_clock(u32 group)
{
	const volatile struct joule_group *info = group_info(group);

	return info && info->per_cpu_freq;
}

static __always_inline u32 group_class(u32 group)
{
	const volatile struct joule_group *info = group_info(group);

	return info ? info->class : JOULE_NO_CLASS;
}

/* Time since a stamp; 0 when the stamp is ahead (clocks of two CPUs differ a little). */
static __always_inline u64 elapsed_ns(u64 now, u64 since)
{
	return time_before(now, since) ? 0 : now - since;
}

#endif /* __JOULE_RELATIONS_BPF_H */
