// SPDX-License-Identifier: GPL-2.0
/*
 * Switches at run time: /sys/kernel/debug/vsoc/control.
 *
 * One command per line, all of one write checked before the first is done.
 * METER is pmu, powercap or hwmon; CLUSTER a name from the description.
 *
 *   scale CLUSTER PERMILLE     true power and wake-up energies become PERMILLE of the described
 *   em CLUSTER PERMILLE        the kernel's Energy Model becomes PERMILLE of the described
 *   withhold METER             unregistered: its files go, open perf events stand still for good
 *   offer METER                registered again
 *   fail METER 0|1             reads fail (hwmon EIO, powercap's core makes it EINVAL; not pmu:
 *                              a perf counter cannot say so)
 *   freeze METER 0|1           stands still; then jumps to where it would be
 *   wrap METER UJ              range; 0: its own (powercap says so in max_energy_range_uj)
 *   step METER UJ              jumps ahead once
 *   back METER UJ              jumps back once, not below 0
 *   noise METER PERMILLE SEED  each increment times 1 +- up to PERMILLE (<= 1000), redrawn per read
 *
 * Reading shows what is in force.  `em none` can only be described: the kernel
 * has no way back from an Energy Model in use.
 */
#define pr_fmt(fmt) "vsoc: " fmt
#include <linux/slab.h>
#include <linux/string.h>
#include "vsoc.h"

#define MAX_COMMANDS	64
#define MAX_UJ		1000000000000ULL	/* 1 MJ */

struct command {
	const struct verb *verb;
	int line;
	struct vsoc_cluster *k;
	enum vsoc_meter_id id;
	u64 n[2];
};

static const struct verb {
	const char *name;
	bool of_cluster;
	int nr;				/* numbers that follow */
	u64 min, max;			/* of the first; the second is any */
	int (*run)(const struct command *c);
} verbs[];

static int run_scale(const struct command *c)
{
	vsoc_set_scale(c->k, c->n[0]);
	return 0;
}

static int run_em(const struct command *c)
{
	return vsoc_set_em(c->k, c->n[0]);
}

static int run_withhold(const struct command *c)
{
	return vsoc_meter_offer(c->id, false);
}

static int run_offer(const struct command *c)
{
	return vsoc_meter_offer(c->id, true);
}

static int run_fail(const struct command *c)
{
	if (c->id == VSOC_PMU)
		return -EOPNOTSUPP;
	vsoc_meter_fail(c->id, c->n[0]);
	return 0;
}

static int run_freeze(const struct command *c)
{
	vsoc_meter_freeze(c->id, c->n[0]);
	return 0;
}

static int run_wrap(const struct command *c)
{
	vsoc_meter_wrap(c->id, c->n[0]);
	return 0;
}

static int run_step(const struct command *c)
{
	vsoc_meter_step(c->id, c->n[0], false);
	return 0;
}

static int run_back(const struct command *c)
{
	vsoc_meter_step(c->id, c->n[0], true);
	return 0;
}

static int run_noise(const struct command *c)
{
	vsoc_meter_noise(c->id, c->n[0], c->n[1]);
	return 0;
}

static const struct verb verbs[] = {
	{ "scale",    true,  1, 1, 100000, run_scale },
	{ "em",       true,  1, 1, 100000, run_em },
	{ "withhold", false, 0, 0, 0, run_withhold },
	{ "offer",    false, 0, 0, 0, run_offer },
	{ "fail",     false, 1, 0, 1, run_fail },
	{ "freeze",   false, 1, 0, 1, run_freeze },
	{ "wrap",     false, 1, 0, MAX_UJ, run_wrap },
	{ "step",     false, 1, 0, MAX_UJ, run_step },
	{ "back",     false, 1, 0, MAX_UJ, run_back },
	{ "noise",    false, 2, 0, 1000, run_noise },
};

#define refuse(line, fmt, ...) \
	({ pr_err("control:%d: " fmt "\n", line, ##__VA_ARGS__); -EINVAL; })

static int parse_object(const char *word, struct command *c)
{
	int id;

	if (c->verb->of_cluster) {
		c->k = vsoc_find_cluster(word);
		return c->k ? 0 : refuse(c->line, "'%s' is no cluster of %s", word, vsoc->name);
	}
	id = match_string(vsoc_meter_name, VSOC_NR_METERS, word);
	if (id < 0)
		return refuse(c->line, "'%s' is not pmu, powercap or hwmon", word);
	if (!vsoc_meter_built(id))
		return refuse(c->line, "this kernel has no %s", word);
	c->id = id;
	return 0;
}

/* Returns 1 for a command, 0 for a line without one. */
static int parse_command(char *text, struct command *c)
{
	char *word, *words[4];
	int i, r, nr = 0;

	while ((word = strsep(&text, " \t\r"))) {
		if (!*word)
			continue;
		if (nr == ARRAY_SIZE(words))
			return refuse(c->line, "more than %d words", nr);
		words[nr++] = word;
	}
	if (!nr)
		return 0;
	for (c->verb = verbs; c->verb < verbs + ARRAY_SIZE(verbs); c->verb++)
		if (!strcmp(c->verb->name, words[0]))
			break;
	if (c->verb == verbs + ARRAY_SIZE(verbs))
		return refuse(c->line, "'%s' is no command", words[0]);
	if (nr != 2 + c->verb->nr)
		return refuse(c->line, "%s wants a %s and %d number(s)", words[0],
			      c->verb->of_cluster ? "cluster" : "meter", c->verb->nr);
	r = parse_object(words[1], c);
	if (r)
		return r;
	for (i = 0; i < c->verb->nr; i++)
		if (kstrtou64(words[2 + i], 10, &c->n[i]) ||
		    (!i && (c->n[0] < c->verb->min || c->n[0] > c->verb->max)))
			return refuse(c->line, "%s: '%s' is not a number from %llu to %llu",
				      words[0], words[2 + i], i ? 0 : c->verb->min,
				      i ? U64_MAX : c->verb->max);
	return 1;
}

int vsoc_control(char *text)
{
	struct command *commands = kcalloc(MAX_COMMANDS, sizeof(*commands), GFP_KERNEL);
	int i, r = 0, nr = 0, line = 0;
	char *s;

	if (!commands)
		return -ENOMEM;
	while (r >= 0 && (s = strsep(&text, "\n"))) {
		line++;
		if (nr == MAX_COMMANDS) {
			r = refuse(line, "more than %d commands", MAX_COMMANDS);
			break;
		}
		commands[nr].line = line;
		r = parse_command(s, &commands[nr]);
		if (r > 0)
			nr++;
	}
	for (i = 0; r >= 0 && i < nr; i++) {
		r = commands[i].verb->run(&commands[i]);
		if (r)
			pr_err("control:%d: %s: %d\n", commands[i].line, commands[i].verb->name, r);
	}
	kfree(commands);
	return min(r, 0);
}

int vsoc_control_show(struct seq_file *s, void *unused)
{
	int i;

	if (!vsoc)
		return -ENODEV;
	for (i = 0; i < vsoc->nr_clusters; i++)
		seq_printf(s, "cluster %s scale %u em %u\n", vsoc->cluster[i].name,
			   vsoc->cluster[i].scale_pm, vsoc->em ? vsoc->cluster[i].em_pm : 0);
	vsoc_meters_show(s);
	return 0;
}
