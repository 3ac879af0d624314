/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The home: the one group that does all there is to do while that is little.
 *
 * The price of a place (place.bpf.h) tells what one task more costs as things are, and two clusters
 * awake, each slow and with a little to do, are a state that prices do not lead out of: tasks leave
 * the cheaper cluster when it has no idle CPU for them, the other one is awake as they keep coming,
 * and neither has so much to do that its clock rises. One cluster with a higher clock would do
 * all of that sooner, for less. So while all tasks together use no more than a limit, each of them
 * that fits goes to the home; where no CPU idles there it waits, for the profile's patience at
 * most, and the clock follows what has to wait.
 *
 * Choice, with each table: for a group, alone, the OPP is best at which its CPUs draw least beside
 * what their work would cost elsewhere, where it is cheapest there: in another class, or in another
 * group of its own. The home is the group that saves most at its best OPP, and the limit is what
 * that OPP can take. So single OPPs that nobody knows well decide little. It stays where it is
 * unless another one saves twice as much: to move all there is to do gains nothing for some time.
 *
 * Units: capacity and utilisation on the scale of 1024, power in uW.
 *
 * Cost: a choice looks at each OPP of each class, four times a second at most. A wake-up adds up
 * what the groups use; at home it then has one group to ask instead of all.
 *
 * Concurrency: a slot's home is written before its table is made current, and read by who reads the
 * table. Utilisation may be one update old.
 *
 * Limits: no group is a home whose CPUs have clocks of their own (nobody waits there), or that has
 * one CPU; who may not use every CPU, or is kept small by a user's clamp, goes by prices, and so do
 * all where the profile has no patience. What the tasks use that do not fit counts, too: beside a
 * big one the small ones go by prices.
 */
#ifndef __JOULE_HOME_BPF_H
#define __JOULE_HOME_BPF_H

struct home {
	u32 group;
	u32 most_cap; /* that all tasks may use; 0: there is no home */
};

/* By the table in each slot. */
static struct home homes[JOULE_NR_SLOTS];

/* What work costs in the group where it is cheapest. A global function: verified once. */
__weak u64 group_work_uw(u32 group, u32 slot)
{
	const struct joule_cost_row *row = costs_of_group(group, slot);

	return row ? cheapest_work_uw(row) : UNKNOWN_UW;
}

/* What the group is worth alone, where the same work costs so much elsewhere. Likewise. */
__weak int group_alone(u32 group, u32 slot, u64 elsewhere_uw, struct alone *alone)
{
	const struct joule_cost_row *row = costs_of_group(group, slot);
	const volatile struct joule_group *info = group_info(group);

	if (alone && row && info && info->nr_cpus > 1 && !info->per_cpu_freq)
		*alone = used_alone(row, info->nr_cpus, elsewhere_uw);
	return 0;
}

/* The two least costs of work in different groups. */
struct cheapest {
	u64 first_uw, second_uw;
	u32 class; /* of the first */
};

static __always_inline void find_cheapest(u32 slot, struct cheapest *cheapest)
{
	u32 class;

	*cheapest = (struct cheapest){UNKNOWN_UW, UNKNOWN_UW, JOULE_NO_CLASS};
	bpf_for (class, 0, JOULE_MAX_CLASSES) {
		u64 groups = groups_of_class(class), cost;

		if (!groups)
			break;
		cost = group_work_uw(lowest_bit(groups), slot);
		if (cost < cheapest->first_uw) {
			cheapest->second_uw = has_several(groups) ? cost : cheapest->first_uw;
			cheapest->first_uw = cost;
			cheapest->class = class;
		} else if (cost < cheapest->second_uw) {
			cheapest->second_uw = cost;
		}
	}
}

static void choose_home(u32 slot)
{
	struct home *home = MEMBER_VPTR(homes, [slot]);
	u32 class, used = READ_ONCE(published_slot);
	const struct home *before = MEMBER_VPTR(homes, [used]);
	struct cheapest cheapest;
	u64 most_uw = 0;

	if (!home || !before)
		return;
	home->most_cap = 0;
	find_cheapest(slot, &cheapest);
	if (cheapest.second_uw == UNKNOWN_UW)
		return;
	bpf_for (class, 0, JOULE_MAX_CLASSES) {
		u64 groups = groups_of_class(class), elsewhere_uw = cheapest.first_uw;
		struct alone alone = {};
		u32 group;

		if (!groups)
			break;
		group = lowest_bit(groups);
		if (class == cheapest.class)
			elsewhere_uw = cheapest.second_uw;
		group_alone(group, slot, elsewhere_uw, &alone);
		if (before->most_cap && group == before->group)
			alone.saved_uw *= 2;
		if (alone.saved_uw > most_uw) {
			most_uw = alone.saved_uw;
			home->group = group;
			home->most_cap = alone.most_cap;
		}
	}
}

/* What all tasks use. */
static u32 total_cap(u64 now)
{
	u32 group, sum = 0;

	for (group = 0; group < topology.nr_groups && can_loop; group++) {
		const struct group_ctx *gctx = group_ctx_of(group);

		if (gctx)
			sum += group_sum_cap(gctx, 0, now);
	}
	return sum;
}

/*
 * The group that a task which fits CPUs of this capacity, and may use all, should share with all
 * others; JOULE_NO_GROUP: there is none.
 */
static u32 home_for(u32 fitting_cap, u32 slot, u64 now)
{
	const struct home *home = MEMBER_VPTR(homes, [slot]);
	const volatile struct joule_group *info;
	u32 most_cap, offers;

	if (!home || !home->most_cap || !settings.patience_us)
		return JOULE_NO_GROUP;
	info = group_info(home->group);
	offers = group_offers(home->group);
	if (!info || fitting_cap > offers)
		return JOULE_NO_GROUP;
	most_cap = min_u32(home->most_cap, usable_cap(info->nr_cpus, offers));
	return total_cap(now) <= most_cap ? home->group : JOULE_NO_GROUP;
}

#endif /* __JOULE_HOME_BPF_H */
