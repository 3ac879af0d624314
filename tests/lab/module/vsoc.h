/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vsoc: a virtual system-on-chip for tests of CPU schedulers.
 *
 * The module gives a virtual machine what an emulator has not: clusters of
 * unlike CPUs with OPPs, an Energy Model, idle depths, energy, and the meters
 * that show it.  It loads inert; one description (vsoc_desc.c has the format)
 * written to /sys/kernel/debug/vsoc/machine registers everything, or is
 * refused with a message that names the line, and then nothing is registered.
 * It cannot be unloaded, and a machine cannot be described twice: boot afresh.
 *
 * Physics (vsoc_phys.c)
 * ---------------------
 * A CPU is busy or idle.  A core is one CPU, or two that share it (SMT).  A
 * cluster is cores that share power.  The power of a machine is
 *
 *   floor
 *   + for each cluster: shared(opp) unless it sleeps; sleep power if it does
 *   + for each core:    busy(opp), if any of its CPUs is busy
 *                       busy(opp) x sibling_power more, if both are
 *                       shallow or deep idle power, if none is
 *
 * and on top come lumps of energy: one at each end of a core's idleness, by
 * the depth it had reached, and one when a core wakes a sleeping cluster.
 * Idle states promote themselves: a core is shallow from the moment its last
 * CPU goes idle, deep `after` later, and a cluster sleeps when its last core
 * has been deep for the cluster's own `after`.  So what an idle core or
 * cluster draws is a function of the time since entry alone, and is integrated
 * exactly at the next event: there is no timer, and none of this wakes a CPU.
 * shared(opp) is that of the cluster's clock, and where each core has a clock
 * of its own (hardware-managed) that of the fastest core awake; with none
 * awake, the last one's stays until the cluster sleeps.
 *
 * A CPU leaves idle at the entry of the first interrupt, as hardware does, so
 * the wake-ups that interrupt handlers do are paid for, and enters it at the
 * cpu_idle tracepoint.  VSOC_HALT halts a CPU without leaving `busy`.
 *
 * Units: uW x ns = fJ.  Energies are kept in pJ with the fJ carried over, so
 * nothing is rounded away; 64 bits of pJ last 21 days at 10 W.
 *
 * Concurrency
 * -----------
 * One raw spinlock per cluster (vsoc_cluster.lock) protects the cluster, its
 * cores, its CPUs, and what its CPUs add to the task table.  It is taken with
 * interrupts off, never two at a time, and inside rq locks (sched_switch,
 * fast_switch), so nothing is called under it.  Time is read after the lock
 * is taken and so never runs backwards inside a cluster.  A CPU's idle
 * flag is written only by that CPU (or for it once it is offline), hence it
 * may test its own without the lock.  Meters have a lock each, taken after
 * the clusters' are dropped.  A total is a sum over clusters, each exact at
 * the moment it was locked: totals never decrease, but two clusters in one
 * sum may differ by the nanoseconds between the two locks.
 * vsoc_setup_lock (a mutex) serialises the description and the controls.
 *
 * Limits
 * ------
 * No temperature, no throttling, no difference between kinds of work, no time
 * to leave an idle state (waiting would have to spin, which under -icount
 * holds up the other CPUs), no residency prediction, and no power for memory
 * or devices other than the floor.  NMIs do not leave idle.  A CPU that polls
 * in the idle loop counts as shallow until the first interrupt.  A pid that
 * is used again adds to the same line of the task table.
 */
#ifndef VSOC_H
#define VSOC_H

#include <linux/cpumask.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/spinlock.h>
#include <linux/timekeeping.h>
#include <linux/types.h>
#include "vsoc_uapi.h"

#define VSOC_MAX_CLUSTERS	8
#define VSOC_MAX_OPPS		32
#define VSOC_NAME_LEN		32
#define VSOC_MAX_UW		100000000U	/* 100 W: any one power */
#define VSOC_MAX_NJ		1000000000U	/* 1 J: any one wake-up */
#define VSOC_MAX_US		10000000U	/* 10 s: any residency */

/* Energy with the part below a picojoule carried. */
struct vsoc_energy {
	u64 pj;
	u32 fj;				/* 0 .. 999 */
};

static inline void vsoc_charge(struct vsoc_energy *e, u32 uw, u64 ns)
{
	u64 us = ns / 1000;
	u64 fj = (u64)uw * (ns - us * 1000) + e->fj;

	e->pj += (u64)uw * us + fj / 1000;	/* uW x us = pJ */
	e->fj = fj % 1000;
}

struct vsoc_opp {
	u32 khz;
	u32 cap;			/* 1 .. 1024 */
	u32 busy_uw;			/* one busy CPU, without the shared part */
	u32 shared_uw;
};

/* Shallow has after_us == 0. */
struct vsoc_idle {
	u32 uw;
	u32 after_us;
	u32 wake_nj;
};

/* A thread's time by cluster and OPP; written under the lock of that cluster. */
struct vsoc_task {
	pid_t pid;			/* 0: free; set once by cmpxchg */
	pid_t tgid;
	char comm[TASK_COMM_LEN];
	struct {
		struct vsoc_energy energy;
		u64 ns[VSOC_MAX_OPPS];
	} in[VSOC_MAX_CLUSTERS];
};

struct vsoc_core;

struct vsoc_cpu {
	struct vsoc_core *core;
	unsigned int id;
	bool busy;
	struct vsoc_task *task;		/* running now; NULL: idle task or table full */
	u64 busy_ns;
	u64 unowned_ns;			/* part of busy_ns with task == NULL */
	u32 min_opp, max_opp;		/* hardware-managed: the kernel's limits, read without lock */
};

struct vsoc_core {
	struct vsoc_cluster *cluster;
	unsigned int nr_cpus;		/* 1 or 2 */
	struct vsoc_cpu *cpu[2];
	unsigned int nr_busy;
	unsigned int opp;
	u64 last;			/* accounted up to here, ns */
	u64 idle_since;			/* valid while nr_busy == 0 */
	u64 busy_ns[VSOC_MAX_OPPS];	/* at least one CPU busy */
	u64 dual_ns[VSOC_MAX_OPPS];	/* both busy */
	u64 idle_ns[2];
	u64 exits[2];
	struct vsoc_energy busy, dual, idle;
	u64 wake_pj;
	/* the hardware's governor, mode hardware-managed only */
	u64 window_start;
	u64 window_busy;
	u32 demand_cap;
};

struct vsoc_cluster {
	raw_spinlock_t lock;
	/* description */
	char name[VSOC_NAME_LEN];
	struct cpumask mask;
	unsigned int nr_cpus, nr_opps, nr_cores, threads;
	u32 sibling_power_pm, sibling_speed_pm;	/* permille */
	u32 em_pm;			/* what the EM is told, permille of busy_uw */
	struct vsoc_opp opp[VSOC_MAX_OPPS];
	struct vsoc_idle idle[2], sleep;
	unsigned int cpu[VSOC_MAX_CPUS];
	struct vsoc_core core[VSOC_MAX_CPUS];
	/* state */
	u32 scale_pm;			/* of every power and wake-up energy */
	unsigned int nr_awake;		/* cores */
	unsigned int awake_at[VSOC_MAX_OPPS];
	u32 awake_opps;			/* bit i: awake_at[i] != 0 */
	unsigned int shared_opp;
	u64 last, idle_since;
	u64 shared_ns[VSOC_MAX_OPPS];
	u64 sleep_ns, sleeps, switches;
	struct vsoc_energy shared, asleep;
	u64 wake_pj;
};

struct vsoc_machine {
	char name[VSOC_NAME_LEN];
	bool hardware_managed;
	bool em;
	u32 floor_uw;
	unsigned int nr_clusters;
	unsigned int nr_cpus;
	struct vsoc_cluster cluster[VSOC_MAX_CLUSTERS];
	struct vsoc_cpu cpu[VSOC_MAX_CPUS];
	u64 start;			/* ns */
	bool rescaled;			/* some scale_pm was ever other than 1000 */
};

extern struct vsoc_machine *vsoc;	/* NULL until described */
extern struct vsoc_page *vsoc_page;
extern struct mutex vsoc_setup_lock;

static inline u64 vsoc_now(void)
{
	return ktime_get_mono_fast_ns();
}

static inline u32 vsoc_scaled(const struct vsoc_cluster *k, u32 value)
{
	return (u64)value * k->scale_pm / 1000;
}

/* desc.c: parse @text (changed in place) into @m; says what is wrong. */
int vsoc_parse(char *text, struct vsoc_machine *m);
struct vsoc_cluster *vsoc_find_cluster(const char *name);

/* phys.c */
int vsoc_phys_start(struct vsoc_machine *m);
void vsoc_set_cluster_opp(struct vsoc_cluster *k, unsigned int opp);
void vsoc_set_scale(struct vsoc_cluster *k, u32 pm);
/* Bring @k up to now; caller holds k->lock. */
u64 vsoc_integrate(struct vsoc_cluster *k);
/* Account @core up to @now, or charge its running task; caller holds the lock. */
void vsoc_integrate_core(struct vsoc_core *core, u64 now);

enum vsoc_domain { VSOC_PACKAGE, VSOC_CORES, VSOC_CLUSTER0 };
/* pJ since the start; VSOC_CLUSTER0 + i: cluster i with its shared part. */
u64 vsoc_energy_pj(unsigned int domain);
int vsoc_truth_show(struct seq_file *s, void *unused);

/* tasks.c */
int vsoc_tasks_init(void);
struct vsoc_task *vsoc_task_find(struct task_struct *p);
int vsoc_tasks_show(struct seq_file *s, void *unused);

/* freq.c */
int vsoc_freq_prepare(struct vsoc_machine *m);
int vsoc_freq_register(struct vsoc_machine *m);
void vsoc_publish_speed(struct vsoc_core *core);
int vsoc_set_em(struct vsoc_cluster *k, u32 pm);

/* meter.c */
enum vsoc_meter_id { VSOC_PMU, VSOC_POWERCAP, VSOC_HWMON, VSOC_NR_METERS };
extern const char * const vsoc_meter_name[VSOC_NR_METERS];
int vsoc_meters_register(void);
bool vsoc_meter_built(enum vsoc_meter_id id);
int vsoc_meter_offer(enum vsoc_meter_id id, bool offer);
void vsoc_meter_freeze(enum vsoc_meter_id id, bool on);
void vsoc_meter_fail(enum vsoc_meter_id id, bool on);
void vsoc_meter_wrap(enum vsoc_meter_id id, u64 uj);
void vsoc_meter_step(enum vsoc_meter_id id, u64 uj, bool back);
void vsoc_meter_noise(enum vsoc_meter_id id, u32 pm, u64 seed);
void vsoc_meters_show(struct seq_file *s);

/* control.c */
int vsoc_control(char *text);
int vsoc_control_show(struct seq_file *s, void *unused);

#endif /* VSOC_H */
