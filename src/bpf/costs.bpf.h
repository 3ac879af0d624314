/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What work costs: the prior's table and the published ones.
 *
 * Three slots. The prior's is written before attaching and never again. The
 * control loop fills whichever of the other two is not in use and runs
 * publish(), which checks every value, stamps the table with this side's clock
 * and makes it current by storing one word. A reader loads that word once per
 * decision and stays with the slot.
 *
 * A table that nobody renews expires, so a control loop that has stopped
 * leaves the machine on the prior, not on costs of long ago.
 *
 * Concurrency: one publisher. It never publishes twice within 50 ms, so a slot
 * is overwritten at the earliest 50 ms after readers have left it for the
 * other one; a decision takes microseconds. Readers check all the same, by the
 * table's generation, and count what must not happen (TABLES_MIXED).
 */
#ifndef __JOULE_COSTS_BPF_H
#define __JOULE_COSTS_BPF_H

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, JOULE_NR_SLOTS);
	__type(key, u32);
	__type(value, struct joule_cost_table);
} cost_tables SEC(".maps");

static u32 published_slot = JOULE_STATIC_SLOT;
static u64 expires_at[2];

/* What the control loop wants tried, and until when, unless it says otherwise before. */
static u32 probe_class = JOULE_NO_CLASS;
static u64 probe_until;

static __always_inline u32 current_slot(u64 now)
{
	u32 slot = READ_ONCE(published_slot);

	if (slot >= JOULE_STATIC_SLOT || !settings.steer || time_before(expires_at[slot & 1], now))
		return JOULE_STATIC_SLOT;
	return slot;
}

static __always_inline const struct joule_cost_row *costs_of_group(u32 group, u32 slot)
{
	struct joule_cost_table *table = bpf_map_lookup_elem(&cost_tables, &slot);
	const volatile struct joule_group *info = group_info(group);

	return table && info ? MEMBER_VPTR(table->row, [info->class]) : NULL;
}

static __always_inline u64 table_generation(u32 slot)
{
	struct joule_cost_table *table = bpf_map_lookup_elem(&cost_tables, &slot);

	return table ? READ_ONCE(table->generation) : 0;
}

/* Checks the table in a slot that nobody reads, and completes it for use: 0, or -EINVAL. */
static int prepare_table(u32 slot, u64 generation)
{
	struct joule_cost_table *table = bpf_map_lookup_elem(&cost_tables, &slot);
	u32 class, group;

	if (!table || table->generation != generation)
		return -EINVAL;
	bpf_for (class, 0, JOULE_MAX_CLASSES) {
		struct joule_cost_row *row = MEMBER_VPTR(table->row, [class]);

		if (!row || !row_is_sound(row))
			return -EINVAL;
		if (!row->nr_opps)
			continue;
		index_opps(row);
		rank_opps(row);
	}
	/* Without an OPP in its row a class would never be chosen. */
	bpf_for (group, 0, topology.nr_groups) {
		const struct joule_cost_row *row = costs_of_group(group, slot);

		if (!row || !row->nr_opps)
			return -EINVAL;
	}
	return 0;
}

/* Makes a filled slot current: 0, or -EINVAL and everything stays as it was. */
static int publish_table(const struct joule_publish *request, u64 now)
{
	u32 slot = request->slot;
	int err;

	if (slot >= JOULE_STATIC_SLOT || slot == READ_ONCE(published_slot))
		return -EINVAL;
	err = prepare_table(slot, request->generation);
	if (err)
		return err;
	expires_at[slot & 1] = now + request->ttl_ns;
	probe_class = request->probe_class;
	probe_until = now + request->probe_ns;
	/* An atomic exchange orders the table's contents before the word that points to it. */
	__sync_lock_test_and_set(&published_slot, slot);
	return 0;
}

#endif /* __JOULE_COSTS_BPF_H */
