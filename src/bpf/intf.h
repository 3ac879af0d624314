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
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;
#endif

enum joule_limits {
	JOULE_MAX_CPUS = 1024,
	JOULE_MAX_CLASSES = 8,
	JOULE_MAX_GROUPS = 64, /* 1024 CPUs in groups of 16 */
	JOULE_MAX_OPPS = 32,
	JOULE_NO_GROUP = 255,  /* joule_topology.cpu_group of a CPU that is not there */
	JOULE_NO_CPU = 65535,  /* joule_topology.cpu_sibling of a CPU without one */
	JOULE_NO_CLASS = 255,  /* joule_publish.probe_class: no probes */
	JOULE_STATIC_SLOT = 2, /* cost table of the prior; slots 0 and 1 are published */
	JOULE_NR_SLOTS = 3,
	JOULE_DELAY_BUCKETS = 32, /* bucket b: waited 2^b to 2^(b+1) us; bucket 0 also less */
	JOULE_SHALLOW = 0, /* depths of idle, by length: joule_config.deep_idle_ns divides them */
	JOULE_DEEP = 1,
	JOULE_NR_DEPTHS = 2,
	JOULE_MAX_CAP = 1024, /* capacity of the biggest CPU */
};

/* Everything the command line and the profile decide (src/config.rs). */
struct joule_config {
	u64 slice_ns;
	u64 deep_idle_ns;   /* idle this long counts as deep */
	u64 wait_ns;	    /* one wake-up in twenty may wait longer for a CPU */
	u32 headroom_pct;   /* capacity asked for per capacity needed, 125 = a quarter more */
	u32 hysteresis_pct; /* saving that a task must promise to leave its group */
	u32 steer;	    /* 0: never use a published table */
	u32 patience_us;    /* a task may wait this long to save all its energy, or at home */
};

_Static_assert(sizeof(struct joule_config) == 40, "joule_config is 40 bytes");

struct joule_group {
	u64 same_cache; /* bit g: group g is under the same last-level cache; its own is set */
	u64 same_node;	/* the same memory node */
	u32 capacity;	/* of one CPU at its highest frequency */
	u32 nr_cpus;
	u32 class;	   /* row of the cost table */
	u32 per_cpu_freq;  /* 1 when each CPU has a clock of its own */
	u32 starts_slowly; /* 1 when that is hardware's to set */
};

_Static_assert(sizeof(struct joule_group) == 40, "joule_group is 40 bytes");

/* The machine's relations (src/topology.rs). Groups ascend by capacity. */
struct joule_topology {
	u32 nr_cpus; /* highest possible CPU number + 1 */
	u32 nr_groups;
	u64 class_groups[JOULE_MAX_CLASSES]; /* bit g: group g is of the class */
	struct joule_group group[JOULE_MAX_GROUPS];
	u8 cpu_group[JOULE_MAX_CPUS];
	u16 cpu_sibling[JOULE_MAX_CPUS]; /* the other thread of its core, in the same group */
};

_Static_assert(sizeof(struct joule_topology) == 8 + 8 * 8 + 64 * 40 + 3 * 1024,
	       "joule_topology is packed");

/*
 * What work costs on one class of CPUs. OPPs ascend strictly by capacity;
 * only the first nr_opps entries count. The BPF side fills in opp_at and
 * run_at.
 */
struct joule_cost_row {
	u32 nr_opps;
	u32 capacity[JOULE_MAX_OPPS];  /* of one CPU at this OPP */
	u32 busy_uw[JOULE_MAX_OPPS];   /* one busy CPU more */
	u32 shared_uw[JOULE_MAX_OPPS]; /* once while any CPU of the group is busy */
	u32 wake_nj[JOULE_NR_DEPTHS];  /* one CPU out of this depth of idle */
	u32 group_wake_nj;	       /* besides, when the whole group has slept */
	u8 opp_at[JOULE_MAX_CAP];      /* the slowest OPP that offers more than the index */
	u8 run_at[JOULE_MAX_OPPS];     /* the OPP, or a faster one where work is cheaper */
};

_Static_assert(sizeof(struct joule_cost_row) == 4 + 3 * 4 * 32 + 12 + 1024 + 32,
	       "joule_cost_row is packed");

/* Largest power that publish() accepts, 1 kW: keeps every product below 2^64. */
#define JOULE_MAX_UW 1000000000U
/* Largest energy of a wake-up that publish() accepts, 1 J. */
#define JOULE_MAX_NJ 1000000000U

/* home.bpf.h says what a home is. */
struct joule_cost_table {
	u64 generation;
	u32 home_class; /* whose first group is the home; JOULE_NO_CLASS: there is none */
	u32 home_cap;	/* of one of its CPUs, at the fastest clock that it should take */
	struct joule_cost_row row[JOULE_MAX_CLASSES];
};

_Static_assert(sizeof(struct joule_cost_table) == 16 + 8 * 1456, "joule_cost_table is packed");

/* Argument of the program publish(): make a filled slot the current table. */
struct joule_publish {
	u64 generation;	 /* of the table in the slot; must match it */
	u64 ttl_ns;	 /* after this long without another one, back to the prior */
	u64 probe_ns;	 /* for how long to try probe_class, at most until the next one */
	u32 slot;	 /* 0 or 1 */
	u32 probe_class; /* class to try, to learn what it costs; JOULE_NO_CLASS for none */
};

_Static_assert(sizeof(struct joule_publish) == 32, "joule_publish is 32 bytes");

/*
 * What a group did since the scheduler started. Busy and idle are counted at
 * the CPUs' idle transitions, so interrupts and real-time tasks are in them.
 * The open interval counts up to since_ns; shallow_ns is what idle periods
 * spent before they became deep, the rest of idle time is deep. A core with
 * two threads is idle when both are.
 */
struct joule_activity {
#ifdef __VMLINUX_H__
	struct bpf_spin_lock lock;
#else
	u32 lock;
#endif
	u32 busy_cpus; /* now */
	u32 opp;       /* now */
	u32 idle_cpu;  /* that went idle last */
	u64 since_ns;
	u32 busy_pairs;		       /* cores with both threads busy now */
	u32 busy_cpu;		       /* that went to work last */
	u64 active_ns[JOULE_MAX_OPPS]; /* some CPU busy */
	u64 busy_ns[JOULE_MAX_OPPS];   /* summed over CPUs */
	u64 paired_ns[JOULE_MAX_OPPS]; /* both threads of a core busy, summed over cores */
	u64 shallow_ns;
	u64 shallow_exits;
	u64 deep_exits;
	u64 group_wakes; /* first CPU busy after all had been idle for deep_idle_ns */
};

_Static_assert(sizeof(struct joule_activity) == 32 + 3 * 8 * 32 + 32, "joule_activity is packed");

/* Counters, one value per CPU; the reader sums. */
enum joule_counter {
	JOULE_PLACED_IDLE,    /* wake-ups that went straight to an idle CPU */
	JOULE_PLACED_BUSY,    /* wake-ups for which no idle CPU was to be had */
	JOULE_PLACED_WAITING, /* wake-ups for which waiting was cheaper than an idle CPU */
	JOULE_PLACED_STEERED, /* wake-ups that the prior's table would have sent elsewhere: an
				 estimate, by one in 16 of them */
	JOULE_PROBES,	      /* wake-ups sent where more is to be learnt */
	JOULE_QUEUED,	      /* tasks that waited in a queue */
	JOULE_KICKS,	      /* idle CPUs woken for queued work */
	JOULE_KICKS_STEERED,  /* kicks to a group that the prior's table would not have chosen */
	JOULE_KICKS_WASTED,   /* kicked CPUs that found nothing to run */
	JOULE_PREEMPTED,      /* running tasks that made room for one that woke */
	JOULE_STOLEN,	      /* dispatches from another group's queue */
	JOULE_MISFIT_UP,      /* running tasks sent on to a bigger CPU, or a core of their own */
	JOULE_TABLES_REFUSED, /* publications whose table was out of range */
	JOULE_TABLES_MIXED,   /* decisions whose table was overwritten meanwhile */
	JOULE_NR_COUNTERS,
};

struct joule_counters {
	u64 value[JOULE_NR_COUNTERS];
	u64 delay[JOULE_DELAY_BUCKETS]; /* time from runnable to running */
};

/* Sums that must be zero when no task is left (self_check). */
struct joule_residue {
	u64 sum_cap;	/* utilisation of all groups */
	u64 est_cap;	/* needs of the runnable tasks */
	u64 nr_counted; /* tasks in need buckets */
	u64 nr_waiting; /* tasks in the groups' queues */
};

#endif /* __JOULE_INTF_H */
