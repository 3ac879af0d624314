// SPDX-License-Identifier: GPL-2.0
/*
 * Who is busy, who is how deep asleep, and what that costs.  The physics and
 * the locking are described in vsoc.h.
 *
 * Everything between two events is integrated at the second one:
 * vsoc_integrate_core() for a core's own power, integrate_shared() for its
 * cluster's.  Each event integrates with the state as it was, then changes it.
 */
#define pr_fmt(fmt) "vsoc: " fmt
#include <linux/cpuhotplug.h>
#include <linux/math64.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/tracepoint.h>
#include <linux/vmalloc.h>
#include <trace/events/power.h>
#include <trace/events/sched.h>
#include "vsoc.h"

#define NEVER U64_MAX

/* ---- the hardware's governor (hardware-managed) ---- */

/*
 * Once per window of at least 10 ms in which the core was awake at some
 * event: the demand, in capacity, is the busy fraction of the window times
 * the capacity it ran at, or half as much again where it was above 7/8 (what
 * more it wanted cannot be seen).  It rises at once and decays by a quarter
 * per window; the OPP is the lowest with 1.25 times the demand, within the
 * limits the kernel set (the higher of the two siblings').
 */
#define WINDOW_NS	10000000ULL
#define MAX_DECAY	24

static void set_core_opp(struct vsoc_core *core, unsigned int opp);

static void hardware_governor(struct vsoc_core *core, u64 now)
{
	struct vsoc_cluster *k = core->cluster;
	u64 ns = now - core->window_start;
	unsigned int lowest = 0, highest = 0, i, n;
	u32 busy, demand;

	if (!vsoc->hardware_managed || now <= core->window_start || ns < WINDOW_NS)
		return;
	busy = min_t(u64, div64_u64(core->window_busy * 1024, ns), 1024);
	demand = busy * k->opp[core->opp].cap / 1024;
	if (busy > 896)
		demand += demand / 2;
	for (n = min_t(u64, div64_u64(ns, WINDOW_NS), MAX_DECAY); n; n--)
		core->demand_cap -= (core->demand_cap + 3) / 4;
	core->demand_cap = max(core->demand_cap, demand);
	core->window_start = now;
	core->window_busy = 0;
	for (i = 0; i < core->nr_cpus; i++) {
		lowest = max(lowest, READ_ONCE(core->cpu[i]->min_opp));
		highest = max(highest, READ_ONCE(core->cpu[i]->max_opp));
	}
	for (i = lowest; i < highest && k->opp[i].cap * 4 < core->demand_cap * 5; i++)
		;
	set_core_opp(core, i);
}

/* ---- integration; caller holds the cluster's lock ---- */

void vsoc_integrate_core(struct vsoc_core *core, u64 now)
{
	struct vsoc_cluster *k = core->cluster;
	const struct vsoc_opp *opp = &k->opp[core->opp];
	u64 ns, shallow, deep_at;
	u32 uw, extra = 0;
	int i;

	if (now <= core->last)
		return;
	ns = now - core->last;

	if (!core->nr_busy) {
		deep_at = core->idle_since + k->idle[1].after_us * 1000ULL;
		shallow = deep_at > core->last ? min(deep_at - core->last, ns) : 0;
		core->idle_ns[0] += shallow;
		core->idle_ns[1] += ns - shallow;
		vsoc_charge(&core->idle, vsoc_scaled(k, k->idle[0].uw), shallow);
		vsoc_charge(&core->idle, vsoc_scaled(k, k->idle[1].uw), ns - shallow);
		core->last = now;
		return;
	}

	uw = vsoc_scaled(k, opp->busy_uw);
	core->busy_ns[core->opp] += ns;
	core->window_busy += ns;
	vsoc_charge(&core->busy, uw, ns);
	if (core->nr_busy == 2) {
		extra = (u64)uw * k->sibling_power_pm / 1000;
		core->dual_ns[core->opp] += ns;
		vsoc_charge(&core->dual, extra, ns);
	}
	for (i = 0; i < core->nr_cpus; i++) {
		struct vsoc_cpu *cpu = core->cpu[i];

		if (!cpu->busy)
			continue;
		cpu->busy_ns += ns;
		if (cpu->task) {
			cpu->task->in[k - vsoc->cluster].ns[core->opp] += ns;
			vsoc_charge(&cpu->task->in[k - vsoc->cluster].energy,
				    (uw + extra) / core->nr_busy, ns);
		} else {
			cpu->unowned_ns += ns;
		}
	}
	core->last = now;
}

/* When the cluster went, or will go, to sleep if nothing wakes. */
static u64 sleeps_at(const struct vsoc_cluster *k)
{
	if (k->nr_awake)
		return NEVER;
	return k->idle_since + (k->idle[1].after_us + k->sleep.after_us) * 1000ULL;
}

static void integrate_shared(struct vsoc_cluster *k, u64 now)
{
	u64 ns, on, at = sleeps_at(k);

	if (now <= k->last)
		return;
	ns = now - k->last;
	on = at > k->last ? min(at - k->last, ns) : 0;
	k->shared_ns[k->shared_opp] += on;
	k->sleep_ns += ns - on;
	vsoc_charge(&k->shared, vsoc_scaled(k, k->opp[k->shared_opp].shared_uw), on);
	vsoc_charge(&k->asleep, vsoc_scaled(k, k->sleep.uw), ns - on);
	k->last = now;
}

u64 vsoc_integrate(struct vsoc_cluster *k)
{
	u64 now = vsoc_now();
	int i;

	for (i = 0; i < k->nr_cores; i++)
		vsoc_integrate_core(&k->core[i], now);
	integrate_shared(k, now);
	return now;
}

/* ---- changes of state; but for set_*, the caller holds the lock and has integrated ---- */

static void count_awake(struct vsoc_cluster *k, unsigned int opp, int by)
{
	k->awake_at[opp] += by;
	if (k->awake_at[opp])
		k->awake_opps |= BIT(opp);
	else
		k->awake_opps &= ~BIT(opp);
	if (k->awake_opps)
		k->shared_opp = fls(k->awake_opps) - 1;
}

/* integrates what changes: the core and the shared part */
static void set_core_opp(struct vsoc_core *core, unsigned int opp)
{
	struct vsoc_cluster *k = core->cluster;
	u64 now;

	if (core->opp == opp)
		return;
	now = vsoc_now();
	vsoc_integrate_core(core, now);
	integrate_shared(k, now);
	if (core->nr_busy) {
		count_awake(k, core->opp, -1);
		count_awake(k, opp, 1);
	}
	core->opp = opp;
	k->switches++;
	vsoc_publish_speed(core);
}

static void core_wakes(struct vsoc_core *core, u64 now)
{
	struct vsoc_cluster *k = core->cluster;
	int depth = now >= core->idle_since + k->idle[1].after_us * 1000ULL;

	core->exits[depth]++;
	core->wake_pj += vsoc_scaled(k, k->idle[depth].wake_nj) * 1000ULL;
	if (now >= sleeps_at(k)) {
		k->sleeps++;
		k->wake_pj += vsoc_scaled(k, k->sleep.wake_nj) * 1000ULL;
	}
	k->nr_awake++;
	count_awake(k, core->opp, 1);
}

static void core_rests(struct vsoc_core *core, u64 now)
{
	struct vsoc_cluster *k = core->cluster;

	core->idle_since = now;
	count_awake(k, core->opp, -1);
	if (!--k->nr_awake)
		k->idle_since = now;
}

/* On @cpu with interrupts off, or for it while it is offline: nobody else writes its flag. */
static void set_busy(struct vsoc_cpu *cpu, bool busy)
{
	struct vsoc_core *core = cpu->core;
	struct vsoc_cluster *k = core->cluster;
	unsigned long flags;
	u64 now;

	if (cpu->busy == busy)
		return;
	raw_spin_lock_irqsave(&k->lock, flags);
	/* never before what a reader has integrated already */
	now = max3(vsoc_now(), core->last, k->last);
	vsoc_integrate_core(core, now);
	integrate_shared(k, now);
	if (busy && !core->nr_busy++)
		core_wakes(core, now);
	if (!busy && !--core->nr_busy)
		core_rests(core, now);
	cpu->busy = busy;
	if (core->nr_cpus > 1)
		vsoc_publish_speed(core);
	if (core->nr_busy)
		hardware_governor(core, now);
	raw_spin_unlock_irqrestore(&k->lock, flags);
}

void vsoc_set_cluster_opp(struct vsoc_cluster *k, unsigned int opp)
{
	unsigned long flags;
	int i;

	raw_spin_lock_irqsave(&k->lock, flags);
	if (k->core[0].opp != opp) {
		vsoc_integrate(k);
		for (i = 0; i < k->nr_cores; i++) {
			struct vsoc_core *core = &k->core[i];

			if (core->nr_busy) {
				count_awake(k, core->opp, -1);
				count_awake(k, opp, 1);
			}
			core->opp = opp;
			vsoc_publish_speed(core);
		}
		k->shared_opp = opp;
		k->switches++;
	}
	raw_spin_unlock_irqrestore(&k->lock, flags);
}

void vsoc_set_scale(struct vsoc_cluster *k, u32 pm)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&k->lock, flags);
	vsoc_integrate(k);
	k->scale_pm = pm;
	if (pm != 1000)
		vsoc->rescaled = true;
	raw_spin_unlock_irqrestore(&k->lock, flags);
}

/* ---- events ---- */

static void on_cpu_idle(void *data, unsigned int state, unsigned int cpu)
{
	set_busy(&vsoc->cpu[cpu], state == (unsigned int)PWR_EVENT_EXIT);
}

static void governor_tick(struct vsoc_core *core)
{
	unsigned long flags;
	u64 now;

	raw_spin_lock_irqsave(&core->cluster->lock, flags);
	now = vsoc_now();
	vsoc_integrate_core(core, now);
	hardware_governor(core, now);
	raw_spin_unlock_irqrestore(&core->cluster->lock, flags);
}

/* Interrupt entry, interrupts off. */
static void on_interrupt(void)
{
	struct vsoc_cpu *cpu = &vsoc->cpu[smp_processor_id()];

	if (!cpu->busy)
		set_busy(cpu, true);
	else if (vsoc->hardware_managed &&
		 vsoc_now() - READ_ONCE(cpu->core->window_start) >= WINDOW_NS)
		governor_tick(cpu->core);
}

static void on_vector(void *data, int vector)
{
	on_interrupt();
}

static void on_irq_handler(void *data, int irq, struct irqaction *action)
{
	on_interrupt();
}

static void on_sched_switch(void *data, bool preempt, struct task_struct *prev,
			    struct task_struct *next, unsigned int prev_state)
{
	struct vsoc_cpu *cpu = &vsoc->cpu[smp_processor_id()];
	struct vsoc_cluster *k = cpu->core->cluster;
	struct vsoc_task *task = vsoc_task_find(next);
	unsigned long flags;

	raw_spin_lock_irqsave(&k->lock, flags);
	vsoc_integrate_core(cpu->core, vsoc_now());
	cpu->task = task;
	raw_spin_unlock_irqrestore(&k->lock, flags);
}

/* On the CPU that controls the hotplug, while @cpu is offline. */
static int on_cpu_comes(unsigned int cpu)
{
	set_busy(&vsoc->cpu[cpu], true);
	return 0;
}

static int on_cpu_dead(unsigned int cpu)
{
	set_busy(&vsoc->cpu[cpu], false);
	return 0;
}

/* Tracepoints that are not exported are found by name. */
static struct hook {
	const char *name;
	void *probe;
	bool needed;
	struct tracepoint *tp;
} hooks[] = {
	{ "cpu_idle", on_cpu_idle, true },
	{ "sched_switch", on_sched_switch, true },
	{ "irq_handler_entry", on_irq_handler, true },
#ifdef CONFIG_X86
	{ "local_timer_entry", on_vector, true },
	{ "reschedule_entry", on_vector, true },
	{ "call_function_entry", on_vector, true },
	{ "call_function_single_entry", on_vector, true },
	{ "irq_work_entry", on_vector, true },
	{ "x86_platform_ipi_entry", on_vector, false },
	{ "spurious_apic_entry", on_vector, false },
	{ "error_apic_entry", on_vector, false },
#endif
};

static void match_hook(struct tracepoint *tp, void *unused)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(hooks); i++)
		if (!strcmp(tp->name, hooks[i].name))
			hooks[i].tp = tp;
}

static int attach_hooks(void)
{
	int i, r;

	for_each_kernel_tracepoint(match_hook, NULL);
	for (i = 0; i < ARRAY_SIZE(hooks); i++)
		if (!hooks[i].tp && hooks[i].needed) {
			pr_err("this kernel has no tracepoint %s\n", hooks[i].name);
			return -ENOENT;
		}
	for (i = 0; i < ARRAY_SIZE(hooks); i++) {
		if (!hooks[i].tp)
			continue;
		r = tracepoint_probe_register(hooks[i].tp, hooks[i].probe, NULL);
		if (r) {
			pr_err("tracepoint %s: %d\n", hooks[i].name, r);
			while (i--)
				if (hooks[i].tp)
					tracepoint_probe_unregister(hooks[i].tp, hooks[i].probe,
								    NULL);
			tracepoint_synchronize_unregister();
			return r;
		}
	}
	return 0;
}

static void kick(void *unused)
{
}

/* Forget what was charged, keep what is: states, clocks, the governor. */
static void zero_cluster(struct vsoc_cluster *k)
{
	unsigned long flags;
	int i, c;

	raw_spin_lock_irqsave(&k->lock, flags);
	vsoc_integrate(k);
	for (i = 0; i < k->nr_cores; i++) {
		struct vsoc_core *core = &k->core[i];

		memset(core->busy_ns, 0, sizeof(core->busy_ns));
		memset(core->dual_ns, 0, sizeof(core->dual_ns));
		memset(core->idle_ns, 0, sizeof(core->idle_ns));
		memset(core->exits, 0, sizeof(core->exits));
		core->busy = core->dual = core->idle = (struct vsoc_energy){};
		core->wake_pj = 0;
		for (c = 0; c < core->nr_cpus; c++)
			core->cpu[c]->busy_ns = core->cpu[c]->unowned_ns = 0;
	}
	memset(k->shared_ns, 0, sizeof(k->shared_ns));
	k->sleep_ns = k->sleeps = k->wake_pj = 0;
	k->shared = k->asleep = (struct vsoc_energy){};
	raw_spin_unlock_irqrestore(&k->lock, flags);
}

/*
 * Every CPU is taken for busy until an interrupt to each makes the idle ones
 * pass through the idle loop, from where their state is known.  Attaching takes
 * up to some 100 ms; the account begins after it.
 */
int vsoc_phys_start(struct vsoc_machine *m)
{
	int i, c, r;

	m->start = vsoc_now();
	for (i = 0; i < m->nr_clusters; i++) {
		struct vsoc_cluster *k = &m->cluster[i];

		raw_spin_lock_init(&k->lock);
		k->last = m->start;
		k->nr_awake = k->nr_cores;
		count_awake(k, 0, k->nr_cores);
		for (c = 0; c < k->nr_cores; c++) {
			struct vsoc_core *core = &k->core[c];

			core->last = m->start;
			core->window_start = m->start;
			core->nr_busy = core->nr_cpus;
			core->cpu[0]->busy = true;
			if (core->nr_cpus > 1)
				core->cpu[1]->busy = true;
			vsoc_publish_speed(core);
		}
	}
	r = attach_hooks();
	if (r)
		return r;
	r = cpuhp_setup_state_nocalls(CPUHP_BP_PREPARE_DYN, "vsoc:prepare", on_cpu_comes,
				      on_cpu_dead);
	if (r < 0)
		pr_err("cpuhp: %d: offline CPUs will count as busy\n", r);
	on_each_cpu(kick, NULL, 1);
	WRITE_ONCE(m->start, vsoc_now());
	for (i = 0; i < m->nr_clusters; i++)
		zero_cluster(&m->cluster[i]);
	return 0;
}

/* ---- sums ---- */

/* Parts of a cluster's energy, pJ. */
struct parts {
	u64 busy, dual, idle, wake, shared, asleep, cluster_wake;
};

static struct parts parts_of(const struct vsoc_cluster *k)
{
	struct parts p = { .shared = k->shared.pj, .asleep = k->asleep.pj,
			   .cluster_wake = k->wake_pj };
	int i;

	for (i = 0; i < k->nr_cores; i++) {
		p.busy += k->core[i].busy.pj;
		p.dual += k->core[i].dual.pj;
		p.idle += k->core[i].idle.pj;
		p.wake += k->core[i].wake_pj;
	}
	return p;
}

static u64 cores_pj(struct parts p)
{
	return p.busy + p.dual + p.idle + p.wake;
}

static u64 all_pj(struct parts p)
{
	return cores_pj(p) + p.shared + p.asleep + p.cluster_wake;
}

static u64 floor_pj(u64 now)
{
	struct vsoc_energy e = {};

	vsoc_charge(&e, vsoc->floor_uw, now - vsoc->start);
	return e.pj;
}

u64 vsoc_energy_pj(unsigned int domain)
{
	u64 pj = domain == VSOC_PACKAGE ? floor_pj(vsoc_now()) : 0;
	unsigned long flags;
	struct parts p;
	int i;

	for (i = 0; i < vsoc->nr_clusters; i++) {
		struct vsoc_cluster *k = &vsoc->cluster[i];

		if (domain >= VSOC_CLUSTER0 && domain - VSOC_CLUSTER0 != i)
			continue;
		raw_spin_lock_irqsave(&k->lock, flags);
		vsoc_integrate(k);
		p = parts_of(k);
		raw_spin_unlock_irqrestore(&k->lock, flags);
		pj += domain == VSOC_CORES ? cores_pj(p) : all_pj(p);
	}
	return pj;
}

/*
 * /sys/kernel/debug/vsoc/truth, version 1.  Lines of "word value ..."; what
 * follows a "cluster" line is of that cluster.  busy_ns and dual_ns are core
 * time summed over the cluster's cores, idle time and exits as well; every
 * core line repeats its own part.  Sums of the parts are the total:
 * total_pj = floor_pj + all the parts of all energy_pj lines.
 */
static void show_cluster(struct seq_file *s, const struct vsoc_cluster *k)
{
	struct parts p = parts_of(k);
	u64 busy, dual, idle_ns[2] = {}, exits[2] = {};
	int i, c;

	seq_printf(s, "cluster %s cpus %*pbl\n", k->name, cpumask_pr_args(&k->mask));
	seq_printf(s, "now khz %u switches %llu awake %u\n", k->opp[k->shared_opp].khz,
		   k->switches, k->nr_awake);
	for (i = 0; i < k->nr_opps; i++) {
		for (busy = dual = 0, c = 0; c < k->nr_cores; c++) {
			busy += k->core[c].busy_ns[i];
			dual += k->core[c].dual_ns[i];
		}
		seq_printf(s, "opp %u busy_ns %llu dual_ns %llu shared_ns %llu\n", k->opp[i].khz,
			   busy, dual, k->shared_ns[i]);
	}
	for (c = 0; c < k->nr_cores; c++) {
		const struct vsoc_core *core = &k->core[c];

		for (i = 0; i < 2; i++) {
			idle_ns[i] += core->idle_ns[i];
			exits[i] += core->exits[i];
		}
	}
	for (i = 0; i < 2; i++)
		seq_printf(s, "depth %d ns %llu exits %llu\n", i, idle_ns[i], exits[i]);
	seq_printf(s, "sleep ns %llu wakes %llu\n", k->sleep_ns, k->sleeps);
	seq_printf(s, "energy_pj busy %llu dual %llu idle %llu wake %llu shared %llu sleep %llu cluster_wake %llu\n",
		   p.busy, p.dual, p.idle, p.wake, p.shared, p.asleep, p.cluster_wake);
	for (c = 0; c < k->nr_cores; c++) {
		const struct vsoc_core *core = &k->core[c];

		for (busy = dual = 0, i = 0; i < k->nr_opps; i++) {
			busy += core->busy_ns[i];
			dual += core->dual_ns[i];
		}
		seq_printf(s, "core %d cpu %u khz %u busy_ns %llu dual_ns %llu shallow_ns %llu deep_ns %llu shallow_exits %llu deep_exits %llu energy_pj %llu\n",
			   c, core->cpu[0]->id, k->opp[core->opp].khz, busy, dual,
			   core->idle_ns[0], core->idle_ns[1], core->exits[0], core->exits[1],
			   core->busy.pj + core->dual.pj + core->idle.pj + core->wake_pj);
	}
	for (i = 0; i < k->nr_cpus; i++) {
		const struct vsoc_cpu *cpu = &vsoc->cpu[k->cpu[i]];

		seq_printf(s, "cpu %u busy_ns %llu unowned_ns %llu capacity %lu freq_scale %lu\n",
			   cpu->id, cpu->busy_ns, cpu->unowned_ns, arch_scale_cpu_capacity(cpu->id),
			   arch_scale_freq_capacity(cpu->id));
	}
}

int vsoc_truth_show(struct seq_file *s, void *unused)
{
	struct vsoc_cluster *copy;
	unsigned long flags;
	u64 now, total;
	int i;

	if (!vsoc)
		return -ENODEV;
	/* taken whole under the lock, printed without it */
	copy = vmalloc(array_size(vsoc->nr_clusters, sizeof(*copy)));
	if (!copy)
		return -ENOMEM;
	now = vsoc_now();
	total = floor_pj(now);
	for (i = 0; i < vsoc->nr_clusters; i++) {
		struct vsoc_cluster *k = &vsoc->cluster[i];

		raw_spin_lock_irqsave(&k->lock, flags);
		vsoc_integrate(k);
		copy[i] = *k;
		raw_spin_unlock_irqrestore(&k->lock, flags);
		total += all_pj(parts_of(&copy[i]));
	}
	seq_printf(s, "vsoc-truth 1\nmachine %s\nmode %s\nelapsed_ns %llu\nrescaled %d\n",
		   vsoc->name, vsoc->hardware_managed ? "hardware-managed" : "schedutil",
		   now - vsoc->start, vsoc->rescaled);
	seq_printf(s, "floor_pj %llu\ntotal_pj %llu\n", floor_pj(now), total);
	for (i = 0; i < vsoc->nr_clusters; i++)
		show_cluster(s, &copy[i]);
	seq_puts(s, "end\n");
	vfree(copy);
	return 0;
}
