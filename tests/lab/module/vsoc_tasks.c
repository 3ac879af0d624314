// SPDX-License-Identifier: GPL-2.0
/*
 * Time and energy per thread.
 *
 * An open-addressed table that only grows: a thread gets a line when it first
 * runs and keeps it when it exits.  A line is claimed by cmpxchg on its pid;
 * what is in it is written only for a CPU the thread runs on, under that
 * CPU's cluster lock, and a thread has left one CPU (sched_switch) before it
 * runs on another.  When the table is full, or 64 neighbours are taken,
 * the thread's time is `unowned` on its CPU and `lost` counts the misses.
 *
 * A thread is charged the busy power of its CPU (on an SMT core with both
 * busy, half of what the core draws) and the interrupts taken on its time; not
 * the shared power, idleness, or wake-ups.
 */
#include <linux/ctype.h>
#include <linux/hash.h>
#include <linux/sched.h>
#include <linux/vmalloc.h>
#include "vsoc.h"

#define BITS	11
#define PROBES	64

static struct vsoc_task *table;
static atomic64_t lost;

int vsoc_tasks_init(void)
{
	table = vzalloc(array_size(BIT(BITS), sizeof(*table)));
	return table ? 0 : -ENOMEM;
}

struct vsoc_task *vsoc_task_find(struct task_struct *p)
{
	u32 at = hash_32(p->pid, BITS);
	int i;

	if (!p->pid)
		return NULL;
	for (i = 0; i < PROBES; i++, at = (at + 1) & (BIT(BITS) - 1)) {
		struct vsoc_task *t = &table[at];
		pid_t pid = READ_ONCE(t->pid);

		if (!pid)
			pid = cmpxchg(&t->pid, 0, p->pid);
		if (!pid || pid == p->pid) {
			/* again each time: exec and prctl change the name */
			memcpy(t->comm, p->comm, sizeof(t->comm));
			t->tgid = p->tgid;
			return t;
		}
	}
	atomic64_inc(&lost);
	return NULL;
}

/*
 * /sys/kernel/debug/vsoc/tasks, version 1:
 *   task PID TGID COMM              COMM: what is no letter or digit is '_'
 *   in CLUSTER energy_pj N KHZ NS [KHZ NS ...]      where it ran, one line each
 * Read while threads run, a line may lack the slice in progress.
 */
int vsoc_tasks_show(struct seq_file *s, void *unused)
{
	char comm[TASK_COMM_LEN];
	int i, c, o, n;

	if (!vsoc)
		return -ENODEV;
	vsoc_energy_pj(VSOC_CORES);	/* bring the running ones up to date */
	seq_printf(s, "vsoc-tasks 1\nlost %lld\n", atomic64_read(&lost));
	for (i = 0; i < BIT(BITS); i++) {
		const struct vsoc_task *t = &table[i];

		if (!READ_ONCE(t->pid))
			continue;
		memcpy(comm, t->comm, sizeof(comm));
		comm[sizeof(comm) - 1] = '\0';
		for (n = 0; comm[n]; n++)
			if (!isalnum(comm[n]) && !strchr("-.:/", comm[n]))
				comm[n] = '_';
		seq_printf(s, "task %d %d %s\n", t->pid, t->tgid, comm[0] ? comm : "_");
		for (c = 0; c < vsoc->nr_clusters; c++) {
			const struct vsoc_cluster *k = &vsoc->cluster[c];
			u64 ns = 0;

			for (o = 0; o < k->nr_opps; o++)
				ns += t->in[c].ns[o];
			if (!ns)
				continue;
			seq_printf(s, "in %s energy_pj %llu", k->name, t->in[c].energy.pj);
			for (o = 0; o < k->nr_opps; o++)
				if (t->in[c].ns[o])
					seq_printf(s, " %u %llu", k->opp[o].khz, t->in[c].ns[o]);
			seq_putc(s, '\n');
		}
	}
	seq_puts(s, "end\n");
	return 0;
}
