/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The home: the one group that does all there is to do while that is little.
 *
 * The price of a place (price.bpf.h) tells what one task more costs as things are, and two clusters
 * awake, each slow and with a little to do, are a state that prices do not lead out of: tasks leave
 * the cheaper cluster when it has no idle CPU for them, the other one is awake as they keep coming,
 * and neither has so much to do that its clock rises. One cluster with a higher clock would do
 * all of that sooner, for less. So while all tasks together use no more than a limit, each of them
 * that fits goes to the home; where no CPU idles there it waits, for the profile's patience at
 * most, and the clock follows what has to wait.
 *
 * Which group that is, and up to which clock it should be, comes with the table
 * (src/model/home.rs).
 *
 * Units: capacity and utilisation on the scale of 1024.
 *
 * Cost: a wake-up adds up what the groups use; at home it then has one group to ask instead of all.
 *
 * Concurrency: read from the slot that the decision uses. Utilisation may be one update old.
 *
 * Limits: who may not use every CPU, or is kept small by a user's clamp, goes by prices, and so do
 * all where the profile has no patience. What the tasks use that do not fit counts, too: beside a
 * big one the small ones go by prices.
 */
#ifndef __JOULE_HOME_BPF_H
#define __JOULE_HOME_BPF_H

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
 * others by the table in the slot; JOULE_NO_GROUP: there is none.
 */
static u32 home_for(u32 fitting_cap, u32 slot, u64 now)
{
	const struct joule_cost_table *table = bpf_map_lookup_elem(&cost_tables, &slot);
	const volatile struct joule_group *info;
	u32 group, offered_cap;
	u64 groups;

	if (!table || !settings.patience_us)
		return JOULE_NO_GROUP;
	groups = groups_of_class(table->home_class);
	if (!groups)
		return JOULE_NO_GROUP;
	group = lowest_bit(groups);
	info = group_info(group);
	offered_cap = group_offers(group);
	if (!info || fitting_cap > offered_cap)
		return JOULE_NO_GROUP;
	offered_cap = min_u32(offered_cap, table->home_cap);
	return total_cap(now) <= usable_cap(info->nr_cpus, offered_cap) ? group : JOULE_NO_GROUP;
}

#endif /* __JOULE_HOME_BPF_H */
