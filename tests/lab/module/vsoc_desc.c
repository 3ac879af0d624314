// SPDX-License-Identifier: GPL-2.0
/*
 * The machine description, version 1.
 *
 * Lines of words; '#' starts a comment, blank lines are skipped, the last line
 * is "end".  Numbers are decimal.  The lab's machine files are rendered to it.
 *
 *   vsoc 1                          first line: the version
 *   name WORD
 *   mode schedutil                  one clock and cpufreq policy per cluster, EAS possible
 *   mode hardware-managed           one clock and policy per core or CPU, the kernel's wishes ignored
 *   em watts | none                 the kernel's Energy Model: BUSY_UW of each OPP, or none at all
 *                                   (always none if hardware-managed)
 *   floor_uw UW                     drawn always
 *   cluster NAME                    what follows, up to the next cluster, is of this one
 *   cpus N N ...                    with two threads a core, siblings are neighbours in the list
 *   threads 1
 *   threads 2 POWER SPEED           permille: power a second busy thread adds; speed of each of two
 *   em_permille N                   optional: a wrong EM from the start
 *   shallow UW WAKE_NJ
 *   deep UW AFTER_US WAKE_NJ        after this long idle; no dearer than shallow
 *   sleep UW AFTER_US WAKE_NJ       after the last core has been deep this long
 *   opp KHZ CAP BUSY_UW SHARED_UW   rising KHZ, CAP not falling; up to 32
 *   end
 *
 * Every possible CPU of the kernel is in exactly one cluster, and the largest
 * CAP of the machine is 1024.
 */
#define pr_fmt(fmt) "vsoc: " fmt
#include <linux/cpu.h>
#include <linux/ctype.h>
#include <linux/string.h>
#include <linux/topology.h>
#include "vsoc.h"

#define MAX_WORDS (VSOC_MAX_CPUS + 1)

struct parse {
	struct vsoc_machine *m;
	struct vsoc_cluster *k;		/* NULL before the first cluster */
	int line;
	int nr;				/* words */
	char *word[MAX_WORDS];
	unsigned int seen;		/* of the machine */
	unsigned int seen_k;		/* of the cluster */
	struct cpumask cpus;
	bool end;
};

#define refuse(p, fmt, ...) \
	({ pr_err("machine:%d: " fmt "\n", (p)->line, ##__VA_ARGS__); -EINVAL; })

static int number(struct parse *p, int i, u32 min, u32 max, u32 *value)
{
	if (kstrtou32(p->word[i], 10, value) || *value < min || *value > max)
		return refuse(p, "%s: '%s' is not a number from %u to %u",
			      p->word[0], p->word[i], min, max);
	return 0;
}

static int words(struct parse *p, int nr, const char *what)
{
	if (p->nr - 1 != nr)
		return refuse(p, "%s wants %s, not %d word(s)", p->word[0], what, p->nr - 1);
	return 0;
}

static int name(struct parse *p, char *to)
{
	const char *c;
	int r = words(p, 1, "a name");

	if (r)
		return r;
	for (c = p->word[1]; *c; c++)
		if (!isalnum(*c) && *c != '-' && *c != '_' && *c != '.')
			return refuse(p, "%s: '%s' has more than letters, digits, '-', '_', '.'",
				      p->word[0], p->word[1]);
	if (strscpy(to, p->word[1], VSOC_NAME_LEN) < 0)
		return refuse(p, "%s: '%s' is longer than %d", p->word[0], p->word[1],
			      VSOC_NAME_LEN - 1);
	return 0;
}

static int one_of(struct parse *p, const char *no, const char *yes, bool *value)
{
	if (p->nr == 2 && (!strcmp(p->word[1], no) || !strcmp(p->word[1], yes))) {
		*value = !strcmp(p->word[1], yes);
		return 0;
	}
	return refuse(p, "%s: '%s' is not %s or %s", p->word[0],
		      p->nr > 1 ? p->word[1] : "", no, yes);
}

static int do_version(struct parse *p)
{
	u32 v;

	return words(p, 1, "a version") ?: number(p, 1, 1, 1, &v);
}

static int do_name(struct parse *p)
{
	return name(p, p->m->name);
}

static int do_mode(struct parse *p)
{
	return one_of(p, "schedutil", "hardware-managed", &p->m->hardware_managed);
}

static int do_em(struct parse *p)
{
	return one_of(p, "none", "watts", &p->m->em);
}

static int do_floor(struct parse *p)
{
	return words(p, 1, "UW") ?: number(p, 1, 0, VSOC_MAX_UW, &p->m->floor_uw);
}

static int finish_cluster(struct parse *p);

static int do_cluster(struct parse *p)
{
	struct vsoc_machine *m = p->m;
	int i, r = finish_cluster(p);

	if (r)
		return r;
	if (m->nr_clusters == VSOC_MAX_CLUSTERS)
		return refuse(p, "more than %d clusters", VSOC_MAX_CLUSTERS);
	p->k = &m->cluster[m->nr_clusters];
	r = name(p, p->k->name);
	if (r)
		return r;
	for (i = 0; i < m->nr_clusters; i++)
		if (!strcmp(m->cluster[i].name, p->k->name))
			return refuse(p, "a second cluster %s", p->k->name);
	m->nr_clusters++;
	p->k->em_pm = 1000;
	p->k->scale_pm = 1000;
	p->seen_k = 0;
	return 0;
}

static int do_cpus(struct parse *p)
{
	u32 cpu;
	int i, r;

	if (p->nr < 2)
		return refuse(p, "cpus wants numbers");
	for (i = 1; i < p->nr; i++) {
		r = number(p, i, 0, VSOC_MAX_CPUS - 1, &cpu);
		if (r)
			return r;
		if (!cpu_possible(cpu))
			return refuse(p, "cpu %u is none of this kernel's %u", cpu,
				      num_possible_cpus());
		if (cpumask_test_and_set_cpu(cpu, &p->cpus))
			return refuse(p, "cpu %u is in two places", cpu);
		cpumask_set_cpu(cpu, &p->k->mask);
		p->k->cpu[p->k->nr_cpus++] = cpu;
	}
	return 0;
}

static int do_threads(struct parse *p)
{
	struct vsoc_cluster *k = p->k;
	int r;

	if (p->nr < 2)
		return refuse(p, "threads wants 1, or 2 POWER SPEED");
	r = number(p, 1, 1, 2, &k->threads);
	if (r)
		return r;
	if (k->threads == 1)
		return words(p, 1, "1 alone, or 2 POWER SPEED");
	return words(p, 3, "2 POWER SPEED") ?:
	       number(p, 2, 0, 1000, &k->sibling_power_pm) ?:
	       number(p, 3, 1, 1000, &k->sibling_speed_pm);
}

static int do_em_permille(struct parse *p)
{
	return words(p, 1, "permille") ?: number(p, 1, 1, 100000, &p->k->em_pm);
}

static int do_shallow(struct parse *p)
{
	struct vsoc_idle *s = &p->k->idle[0];

	return words(p, 2, "UW WAKE_NJ") ?:
	       number(p, 1, 0, VSOC_MAX_UW, &s->uw) ?:
	       number(p, 2, 0, VSOC_MAX_NJ, &s->wake_nj);
}

static int idle(struct parse *p, struct vsoc_idle *s)
{
	return words(p, 3, "UW AFTER_US WAKE_NJ") ?:
	       number(p, 1, 0, VSOC_MAX_UW, &s->uw) ?:
	       number(p, 2, 1, VSOC_MAX_US, &s->after_us) ?:
	       number(p, 3, 0, VSOC_MAX_NJ, &s->wake_nj);
}

static int do_deep(struct parse *p)
{
	return idle(p, &p->k->idle[1]);
}

static int do_sleep(struct parse *p)
{
	return idle(p, &p->k->sleep);
}

static int do_opp(struct parse *p)
{
	struct vsoc_cluster *k = p->k;
	struct vsoc_opp *o = &k->opp[k->nr_opps];
	int r;

	if (k->nr_opps == VSOC_MAX_OPPS)
		return refuse(p, "more than %d OPPs in %s", VSOC_MAX_OPPS, k->name);
	r = words(p, 4, "KHZ CAP BUSY_UW SHARED_UW") ?:
	    number(p, 1, 1, 100000000, &o->khz) ?:
	    number(p, 2, 1, 1024, &o->cap) ?:
	    number(p, 3, 1, VSOC_MAX_UW, &o->busy_uw) ?:
	    number(p, 4, 0, VSOC_MAX_UW, &o->shared_uw);
	if (r)
		return r;
	if (k->nr_opps && o->khz <= o[-1].khz)
		return refuse(p, "opp: %u kHz after %u kHz: must rise", o->khz, o[-1].khz);
	if (k->nr_opps && o->cap < o[-1].cap)
		return refuse(p, "opp: capacity %u after %u: must not fall", o->cap, o[-1].cap);
	k->nr_opps++;
	return 0;
}

static int finish_machine(struct parse *p);

static int do_end(struct parse *p)
{
	p->end = true;
	return words(p, 0, "nothing more") ?: finish_cluster(p) ?: finish_machine(p);
}

enum scope { MACHINE, CLUSTER, ANY };
static const struct keyword {
	const char *name;
	enum scope scope;
	bool needed, again;		/* again: may come more than once */
	int (*parse)(struct parse *p);
} keywords[] = {
	{ "vsoc",	MACHINE, true,  false, do_version },
	{ "name",	MACHINE, true,  false, do_name },
	{ "mode",	MACHINE, true,  false, do_mode },
	{ "em",		MACHINE, true,  false, do_em },
	{ "floor_uw",	MACHINE, true,  false, do_floor },
	{ "cpus",	CLUSTER, true,  false, do_cpus },
	{ "threads",	CLUSTER, true,  false, do_threads },
	{ "em_permille", CLUSTER, false, false, do_em_permille },
	{ "shallow",	CLUSTER, true,  false, do_shallow },
	{ "deep",	CLUSTER, true,  false, do_deep },
	{ "sleep",	CLUSTER, true,  false, do_sleep },
	{ "opp",	CLUSTER, true,  true,  do_opp },
	{ "cluster",	ANY,     false, true,  do_cluster },
	{ "end",	ANY,     false, false, do_end },
};

static int check_seen(struct parse *p, enum scope scope, unsigned int seen, const char *of)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(keywords); i++)
		if (keywords[i].scope == scope && keywords[i].needed && !(seen & BIT(i)))
			return refuse(p, "%s has no '%s' line before this", of, keywords[i].name);
	return 0;
}

/* Group the CPUs into cores; the kernel must agree on who are siblings. */
static int make_cores(struct parse *p)
{
	struct vsoc_cluster *k = p->k;
	int i, t;

	if (k->nr_cpus % k->threads)
		return refuse(p, "%s: %u cpus do not make cores of %u", k->name, k->nr_cpus,
			      k->threads);
	for (i = 0; i < k->nr_cpus; i++) {
		struct vsoc_core *core = &k->core[i / k->threads];
		struct vsoc_cpu *cpu = &p->m->cpu[k->cpu[i]];

		t = i % k->threads;
		cpu->id = k->cpu[i];
		cpu->core = core;
		core->cluster = k;
		core->cpu[t] = cpu;
		core->nr_cpus = t + 1;
		cpu->max_opp = k->nr_opps - 1;
		if (cpumask_weight(topology_sibling_cpumask(cpu->id)) != k->threads ||
		    !cpumask_test_cpu(core->cpu[0]->id, topology_sibling_cpumask(cpu->id)))
			return refuse(p, "%s: the kernel says the siblings of cpu %u are %*pbl, not as described (qemu: -smp ...,threads=%u)",
				      k->name, cpu->id,
				      cpumask_pr_args(topology_sibling_cpumask(cpu->id)),
				      k->threads);
	}
	k->nr_cores = k->nr_cpus / k->threads;
	return 0;
}

static int finish_cluster(struct parse *p)
{
	struct vsoc_cluster *k = p->k;
	int r;

	if (!k)
		return 0;
	r = check_seen(p, CLUSTER, p->seen_k, k->name);
	if (r)
		return r;
	if (k->idle[1].uw > k->idle[0].uw)
		return refuse(p, "%s: deep idle draws more than shallow", k->name);
	return make_cores(p);
}

static int finish_machine(struct parse *p)
{
	struct vsoc_machine *m = p->m;
	u32 cap = 0;
	int i, r = check_seen(p, MACHINE, p->seen, "the machine");

	if (r)
		return r;
	if (m->hardware_managed && m->em)
		return refuse(p, "hardware-managed wants 'em none': its policies are per CPU");
	if (!cpumask_equal(&p->cpus, cpu_possible_mask))
		return refuse(p, "cpus %*pbl described, the kernel has %*pbl (qemu: -smp %u)",
			      cpumask_pr_args(&p->cpus), cpumask_pr_args(cpu_possible_mask),
			      cpumask_weight(&p->cpus));
	if (num_online_cpus() != num_possible_cpus())
		return refuse(p, "not every CPU is online");
	m->nr_cpus = cpumask_weight(&p->cpus);
	for (i = 0; i < m->nr_clusters; i++)
		cap = max(cap, m->cluster[i].opp[m->cluster[i].nr_opps - 1].cap);
	if (cap != 1024)
		return refuse(p, "the largest capacity is %u, not 1024", cap);
	return 0;
}

static int parse_line(struct parse *p, char *text)
{
	const struct keyword *w;
	char *comment = strchr(text, '#'), *word;
	unsigned int *seen;

	if (comment)
		*comment = '\0';
	p->nr = 0;
	while ((word = strsep(&text, " \t\r"))) {
		if (!*word)
			continue;
		if (p->nr == MAX_WORDS)
			return refuse(p, "more than %d words", MAX_WORDS);
		p->word[p->nr++] = word;
	}
	if (!p->nr)
		return 0;
	if (p->end)
		return refuse(p, "'%s' after end", p->word[0]);
	for (w = keywords; w < keywords + ARRAY_SIZE(keywords); w++)
		if (!strcmp(w->name, p->word[0]))
			break;
	if (w == keywords + ARRAY_SIZE(keywords))
		return refuse(p, "'%s' is no keyword of a machine description", p->word[0]);
	if (!p->seen && w != keywords)
		return refuse(p, "starts with '%s', not 'vsoc 1'", p->word[0]);
	if (w->scope == CLUSTER && !p->k)
		return refuse(p, "'%s' before the first cluster", w->name);
	if (w->scope == MACHINE && p->k)
		return refuse(p, "'%s' after the first cluster", w->name);
	seen = w->scope == CLUSTER ? &p->seen_k : &p->seen;
	if (!w->again && (*seen & BIT(w - keywords)))
		return refuse(p, "a second '%s'", w->name);
	*seen |= BIT(w - keywords);
	return w->parse(p);
}

int vsoc_parse(char *text, struct vsoc_machine *m)
{
	struct parse *p = kzalloc(sizeof(*p), GFP_KERNEL);
	char *line;
	int r = 0;

	if (!p)
		return -ENOMEM;
	p->m = m;
	while (!r && (line = strsep(&text, "\n"))) {
		p->line++;
		r = parse_line(p, line);
	}
	if (!r && !p->end)
		r = refuse(p, "no 'end'");
	kfree(p);
	return r;
}

struct vsoc_cluster *vsoc_find_cluster(const char *name)
{
	int i;

	for (i = 0; i < vsoc->nr_clusters; i++)
		if (!strcmp(vsoc->cluster[i].name, name))
			return &vsoc->cluster[i];
	return NULL;
}
