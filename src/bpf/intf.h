/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the BPF side and the Rust side both see, declared once: bindgen turns
 * this file into src/intf.rs's types. Every field has a fixed width and every
 * layout is asserted, so a compiler that disagrees fails the build.
 *
 * Units: capacity and utilisation 0..1024 (1024 = the biggest CPU at its
 * highest frequency), time in ns, power in uW, energy in nJ.
 */
#ifndef __JOULE_INTF_H
#define __JOULE_INTF_H

#ifndef __VMLINUX_H__
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
#endif

enum joule_limits {
	JOULE_MAX_CPUS = 1024,
	JOULE_MAX_CLASSES = 8,
	JOULE_MAX_GROUPS = 64, /* 1024 CPUs in groups of 16 */
	JOULE_MAX_OPPS = 32,
	JOULE_NO_GROUP = 255, /* joule_topology.cpu_group of a CPU that is not there */
};

/* Everything the command line and the profile decide (src/settings.rs). */
struct joule_config {
	u64 slice_ns;
	u32 headroom_pct;   /* capacity asked for per capacity needed, 125 = a quarter more */
	u32 hysteresis_pct; /* saving that a task must promise to leave its group */
};

_Static_assert(sizeof(struct joule_config) == 16, "joule_config is 16 bytes");

struct joule_group {
	u32 capacity; /* of one CPU at its highest frequency */
	u32 nr_cpus;
	u32 class;	  /* row of the cost table */
	u32 per_cpu_freq; /* 1 when each CPU has a clock of its own */
};

_Static_assert(sizeof(struct joule_group) == 16, "joule_group is 16 bytes");

/* The machine's relations (src/topology.rs). Groups ascend by capacity. */
struct joule_topology {
	u32 nr_cpus; /* highest possible CPU number + 1 */
	u32 nr_groups;
	struct joule_group group[JOULE_MAX_GROUPS];
	u8 cpu_group[JOULE_MAX_CPUS];
};

_Static_assert(sizeof(struct joule_topology) == 8 + 64 * 16 + 1024, "joule_topology is packed");

/*
 * What work costs on one class of CPUs. OPPs ascend strictly by capacity;
 * only the first nr_opps entries count.
 */
struct joule_cost_row {
	u32 nr_opps;
	u32 capacity[JOULE_MAX_OPPS];  /* of one CPU at this OPP */
	u32 busy_uw[JOULE_MAX_OPPS];   /* one busy CPU more */
	u32 shared_uw[JOULE_MAX_OPPS]; /* once while any CPU of the group is busy */
};

_Static_assert(sizeof(struct joule_cost_row) == 4 + 3 * 4 * 32, "joule_cost_row is packed");

struct joule_cost_table {
	struct joule_cost_row row[JOULE_MAX_CLASSES];
};

/* Counters, one value per CPU; the reader sums. */
enum joule_counter {
	JOULE_PLACED_IDLE, /* wake-ups that went straight to an idle CPU */
	JOULE_PLACED_BUSY, /* wake-ups for which no idle CPU was to be had */
	JOULE_QUEUED,	   /* tasks that waited in a queue */
	JOULE_KICKS,	   /* idle CPUs woken for queued work */
	JOULE_STOLEN,	   /* dispatches from another group's queue */
	JOULE_MISFIT_UP,   /* running tasks sent on to a bigger CPU */
	JOULE_NR_COUNTERS,
};

struct joule_counters {
	u64 value[JOULE_NR_COUNTERS];
};

#endif /* __JOULE_INTF_H */
