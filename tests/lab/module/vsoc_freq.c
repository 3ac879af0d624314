// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel sees of the clusters: capacities, cpufreq, Energy Model.
 *
 * schedutil: one policy per cluster; the driver does what it is told.
 * hardware-managed: one policy per CPU of the setpolicy kind, whose limits
 * reach the governor in vsoc_phys.c; scaling_governor offers only powersave
 * (the hardware chooses within the limits) and performance (the upper limit).
 *
 * Capacities on x86 come from functions that intel_pstate uses on hybrid CPUs
 * and that are not exported; they are found through kallsyms, whose own
 * lookup is found by a kprobe.  As there, capacities differ only where no core
 * has two threads.  freq_scale, which x86 hardware finds with APERF and MPERF,
 * is written directly: cap(opp) / cap(highest opp), so that work measured as
 * not linear in frequency is invariant all the same.
 */
#define pr_fmt(fmt) "vsoc: " fmt
#include <linux/cpu.h>
#include <linux/cpufreq.h>
#include <linux/energy_model.h>
#include <linux/kprobes.h>
#include <linux/sched/topology.h>
#include "vsoc.h"

/* Time to change OPP as told to cpufreq; schedutil's rate limit follows from it. */
#define TRANSITION_NS	500000

/* Not exported; found by find_lookup(). */
static unsigned long (*lookup)(const char *name);
static struct em_perf_table *(*table_alloc)(struct em_perf_domain *pd);
static void (*table_free)(struct em_perf_table *table);
static int (*compute_costs)(struct device *dev, struct em_perf_state *table, int nr);

static struct cpufreq_frequency_table table[VSOC_MAX_CLUSTERS][VSOC_MAX_OPPS + 1];

static struct vsoc_cluster *cluster_of(unsigned int cpu)
{
	return vsoc->cpu[cpu].core->cluster;
}

static void publish(unsigned int cpu, u32 speed, u32 khz)
{
	WRITE_ONCE(vsoc_page->khz[cpu], khz);
	if (vsoc_page->speed[cpu] != speed) {
		WRITE_ONCE(vsoc_page->speed[cpu], speed);
		WRITE_ONCE(vsoc_page->seq[cpu], vsoc_page->seq[cpu] + 1);
	}
}

/* Caller holds the cluster's lock. */
void vsoc_publish_speed(struct vsoc_core *core)
{
	struct vsoc_cluster *k = core->cluster;
	const struct vsoc_opp *opp = &k->opp[core->opp];
	u32 speed = opp->cap;
	int i;

	if (core->nr_busy == 2)
		speed = speed * k->sibling_speed_pm / 1000;
	for (i = 0; i < core->nr_cpus; i++) {
		publish(core->cpu[i]->id, speed, opp->khz);
#ifdef CONFIG_X86
		WRITE_ONCE(per_cpu(arch_freq_scale, core->cpu[i]->id),
			   opp->cap * SCHED_CAPACITY_SCALE / k->opp[k->nr_opps - 1].cap);
#endif
	}
}

/* ---- Energy Model ---- */

static u32 em_uw(const struct vsoc_cluster *k, unsigned int opp)
{
	return clamp_t(u64, (u64)k->opp[opp].busy_uw * k->em_pm / 1000, 1, 64000000);
}

static int em_power(struct device *dev, unsigned long *uw, unsigned long *khz)
{
	struct vsoc_cluster *k = cluster_of(dev->id);
	int i;

	for (i = 0; i < k->nr_opps; i++)
		if (k->opp[i].khz >= *khz) {
			*khz = k->opp[i].khz;
			*uw = em_uw(k, i);
			return 0;
		}
	return -EINVAL;
}

static void register_em(struct cpufreq_policy *p)
{
	struct em_data_callback cb = EM_DATA_CB(em_power);
	struct vsoc_cluster *k = cluster_of(p->cpu);
	int r;

	if (!vsoc->em)
		return;
	r = em_dev_register_perf_domain(get_cpu_device(p->cpu), k->nr_opps, &cb,
					p->related_cpus, true);
	if (r)
		pr_err("%s: no Energy Model: %d\n", k->name, r);
}

int vsoc_set_em(struct vsoc_cluster *k, u32 pm)
{
	struct device *dev = get_cpu_device(k->cpu[0]);
	struct em_perf_domain *pd = em_cpu_get(k->cpu[0]);
	struct em_perf_state *state;
	struct em_perf_table *t;
	u32 before = k->em_pm;
	int i, r;

	if (!vsoc->em || !pd || pd->nr_perf_states != k->nr_opps ||
	    !table_alloc || !table_free || !compute_costs)
		return -EOPNOTSUPP;
	t = table_alloc(pd);
	if (!t)
		return -ENOMEM;
	k->em_pm = pm;
	rcu_read_lock();
	state = em_perf_state_from_pd(pd);
	for (i = 0; i < k->nr_opps; i++) {
		t->state[i] = state[i];
		t->state[i].power = em_uw(k, i);
	}
	rcu_read_unlock();
	r = compute_costs(dev, t->state, k->nr_opps);
	if (!r)
		r = em_dev_update_perf_domain(dev, t);
	if (r)
		k->em_pm = before;
	table_free(t);	/* our reference; the domain has its own */
	return r;
}

/* ---- cpufreq, mode schedutil ---- */

static int soc_init(struct cpufreq_policy *p)
{
	struct vsoc_cluster *k = cluster_of(p->cpu);

	cpumask_copy(p->cpus, &k->mask);
	p->freq_table = table[k - vsoc->cluster];
	p->driver_data = k;
	p->cpuinfo.transition_latency = TRANSITION_NS;
	p->fast_switch_possible = true;
	p->dvfs_possible_from_any_cpu = true;
	return 0;
}

static void soc_exit(struct cpufreq_policy *p)
{
}

static int soc_target(struct cpufreq_policy *p, unsigned int index)
{
	vsoc_set_cluster_opp(p->driver_data, index);
	return 0;
}

static unsigned int soc_fast_switch(struct cpufreq_policy *p, unsigned int khz)
{
	struct vsoc_cluster *k = p->driver_data;
	int i = cpufreq_table_find_index_l(p, khz, true);

	vsoc_set_cluster_opp(k, i);
	return k->opp[i].khz;
}

static unsigned int soc_get(unsigned int cpu)
{
	return READ_ONCE(vsoc_page->khz[cpu]);
}

static struct cpufreq_driver soc_driver = {
	.name = "vsoc",
	.flags = CPUFREQ_HAVE_GOVERNOR_PER_POLICY | CPUFREQ_CONST_LOOPS,
	.init = soc_init,
	.exit = soc_exit,
	.verify = cpufreq_generic_frequency_table_verify,
	.target_index = soc_target,
	.fast_switch = soc_fast_switch,
	.get = soc_get,
	.register_em = register_em,
};

/* ---- cpufreq, mode hardware-managed ---- */

static int hw_init(struct cpufreq_policy *p)
{
	struct vsoc_cluster *k = cluster_of(p->cpu);

	p->cpuinfo.min_freq = k->opp[0].khz;
	p->cpuinfo.max_freq = k->opp[k->nr_opps - 1].khz;
	p->min = p->cpuinfo.min_freq;
	p->max = p->cpuinfo.max_freq;
	p->policy = CPUFREQ_POLICY_POWERSAVE;
	return 0;
}

static int hw_verify(struct cpufreq_policy_data *p)
{
	cpufreq_verify_within_cpu_limits(p);
	return 0;
}

static int hw_setpolicy(struct cpufreq_policy *p)
{
	struct vsoc_cpu *cpu = &vsoc->cpu[p->cpu];
	struct vsoc_cluster *k = cpu->core->cluster;
	u32 min = 0, max = k->nr_opps - 1;

	while (max && k->opp[max].khz > p->max)
		max--;
	while (min < max && k->opp[min].khz < p->min)
		min++;
	if (p->policy == CPUFREQ_POLICY_PERFORMANCE)
		min = max;
	WRITE_ONCE(cpu->min_opp, min);
	WRITE_ONCE(cpu->max_opp, max);
	return 0;
}

static struct cpufreq_driver hw_driver = {
	.name = "vsoc",
	.init = hw_init,
	.exit = soc_exit,
	.verify = hw_verify,
	.setpolicy = hw_setpolicy,
	.get = soc_get,
};

/* ---- capacities ---- */

static int find_lookup(void)
{
	struct kprobe kp = { .symbol_name = "kallsyms_lookup_name" };
	int r = register_kprobe(&kp);

	if (r) {
		pr_err("no kallsyms_lookup_name: %d (CONFIG_KPROBES, CONFIG_KALLSYMS?)\n", r);
		return r;
	}
	lookup = (void *)kp.addr;
	unregister_kprobe(&kp);
	table_alloc = (void *)lookup("em_table_alloc");
	table_free = (void *)lookup("em_table_free");
	compute_costs = (void *)lookup("em_dev_compute_costs");
	return 0;
}

#ifdef CONFIG_X86
static bool (*enable_hybrid)(void);
static void (*set_capacity)(int cpu, unsigned long cap, unsigned long max_cap,
			    unsigned long cap_freq, unsigned long base_freq);
static void (*set_cpu_scale)(unsigned int cpu, unsigned long cap);
static void (*rebuild)(void);
static bool *topology_update;
static struct static_key *freq_key;

static int find_symbols(void)
{
	enable_hybrid = (void *)lookup("arch_enable_hybrid_capacity_scale");
	set_capacity = (void *)lookup("arch_set_cpu_capacity");
	freq_key = (void *)lookup("arch_scale_freq_key");
	rebuild = (void *)lookup("arch_rebuild_sched_domains");
	topology_update = (void *)lookup("x86_topology_update");
	if (!rebuild)
		rebuild = (void *)lookup("rebuild_sched_domains");
	/* only sysfs cpu_capacity; not every kernel has it on x86 */
	set_cpu_scale = (void *)lookup("topology_set_cpu_scale");
	if (!enable_hybrid || !set_capacity || !freq_key || !rebuild) {
		pr_err("this kernel lacks %s\n",
		       !enable_hybrid ? "arch_enable_hybrid_capacity_scale" :
		       !set_capacity ? "arch_set_cpu_capacity" :
		       !freq_key ? "arch_scale_freq_key" : "rebuild_sched_domains");
		return -ENOENT;
	}
	return 0;
}

static bool capacities_differ(const struct vsoc_machine *m)
{
	bool differ = false;
	int i;

	for (i = 0; i < m->nr_clusters; i++) {
		const struct vsoc_cluster *k = &m->cluster[i];

		if (k->threads > 1)
			return false;
		differ |= k->opp[k->nr_opps - 1].cap != 1024;
	}
	return differ;
}

static int set_capacities(void)
{
	unsigned int cpu;

	if (capacities_differ(vsoc)) {
		if (!enable_hybrid()) {
			pr_err("the kernel refuses unlike capacities\n");
			return -EOPNOTSUPP;
		}
		for (cpu = 0; cpu < vsoc->nr_cpus; cpu++) {
			struct vsoc_cluster *k = cluster_of(cpu);
			const struct vsoc_opp *top = &k->opp[k->nr_opps - 1];

			set_capacity(cpu, top->cap, 1024, top->khz, top->khz);
			if (set_cpu_scale)
				set_cpu_scale(cpu, top->cap);
		}
	}
	static_key_enable(freq_key);
	return 0;
}

static void rebuild_domains(void)
{
	if (topology_update)
		*topology_update = true;
	rebuild();
}
#else
/* elsewhere the device tree gives capacities, and freq_scale is the arch's */
static int find_symbols(void) { return 0; }
static int set_capacities(void) { return 0; }
static void rebuild_domains(void) { }
#endif

/* What can fail before anything has been changed. */
int vsoc_freq_prepare(struct vsoc_machine *m)
{
	int i, o;

	for (i = 0; i < m->nr_clusters; i++) {
		const struct vsoc_cluster *k = &m->cluster[i];

		for (o = 0; o < k->nr_opps; o++)
			table[i][o].frequency = k->opp[o].khz;
		table[i][o].frequency = CPUFREQ_TABLE_END;
	}
	if (cpufreq_get_current_driver()) {
		pr_err("cpufreq has the driver %s already\n", cpufreq_get_current_driver());
		return -EBUSY;
	}
	return find_lookup() ?: find_symbols();
}

int vsoc_freq_register(struct vsoc_machine *m)
{
	int r = set_capacities();

	if (r)
		return r;
	r = cpufreq_register_driver(m->hardware_managed ? &hw_driver : &soc_driver);
	if (r) {
		pr_err("cpufreq driver: %d\n", r);
		return r;
	}
	rebuild_domains();
	return 0;
}
