// SPDX-License-Identifier: GPL-2.0
/*
 * A scheduler that saves energy by not doing the work: it keeps every task that may run anywhere on
 * CPUs 0 to 3, the little ones of the machines it is meant for, however big the task. What compares
 * schedulers must not be taken in by it.
 *
 * Kernel types are declared by the members named, as in ../probe/trivial.bpf.c.
 */
#define SEC(name) __attribute__((section(name), used))
#define KFUNC extern __attribute__((section(".ksyms")))

typedef unsigned long long u64;
typedef unsigned int u32;
typedef int s32;

struct task_struct {
	s32 pid;
	s32 nr_cpus_allowed;
} __attribute__((preserve_access_index));

/* Of enum scx_dsq_id_flags, include/linux/sched/ext.h. */
#define SCX_DSQ_LOCAL 0x8000000000000002ULL
#define SCX_DSQ_LOCAL_ON 0xC000000000000000ULL
#define LITTLES 4
#define SLICE_NS 5000000

KFUNC void scx_bpf_dsq_insert(struct task_struct *p, u64 dsq_id, u64 slice, u64 enq_flags);

struct sched_ext_ops {
	s32 (*select_cpu)(struct task_struct *p, s32 prev_cpu, u64 wake_flags);
	void (*enqueue)(struct task_struct *p, u64 enq_flags);
	char name[128];
};

char terms[] SEC("license") = "GPL";

/* The kernel's own would give the task to an idle CPU of any size at once. */
SEC("struct_ops/miser_select_cpu")
s32 miser_select_cpu(u64 *ctx)
{
	return (s32)ctx[1];
}

SEC("struct_ops/miser_enqueue")
int miser_enqueue(u64 *ctx)
{
	struct task_struct *p = (struct task_struct *)ctx[0];
	u64 dsq = SCX_DSQ_LOCAL;

	if (p->nr_cpus_allowed > LITTLES)
		dsq = SCX_DSQ_LOCAL_ON | ((u32)p->pid % LITTLES);
	scx_bpf_dsq_insert(p, dsq, SLICE_NS, ctx[1]);
	return 0;
}

SEC(".struct_ops")
struct sched_ext_ops miser = {
	.select_cpu = (void *)miser_select_cpu,
	.enqueue = (void *)miser_enqueue,
	.name = "miser",
};
