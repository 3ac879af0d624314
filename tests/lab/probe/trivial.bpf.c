// SPDX-License-Identifier: GPL-2.0
/*
 * The least scheduler that shows whether a kernel's sched_ext works: it loads,
 * calls kernel functions, and leaves every task to the kernel's own queue.
 *
 * It includes nothing and declares only the members it names; the loader
 * finds them in the kernel's own type information, so one object serves every
 * kernel, and a kernel whose type information is damaged refuses it.
 */
#define SEC(name) __attribute__((section(name), used))
#define KFUNC extern __attribute__((section(".ksyms")))

typedef unsigned long long u64;
typedef unsigned int u32;
typedef int s32;

/* A definition, however short: a mere declaration does not match the kernel's. */
struct task_struct {
	s32 pid;
} __attribute__((preserve_access_index));

/* Their types have been the same since sched_ext entered the kernel. */
KFUNC u32 scx_bpf_cpuperf_cap(s32 cpu);
KFUNC s32 scx_bpf_select_cpu_dfl(struct task_struct *p, s32 prev_cpu, u64 wake_flags,
				 _Bool *is_idle);

struct sched_ext_ops {
	s32 (*select_cpu)(struct task_struct *p, s32 prev_cpu, u64 wake_flags);
	char name[128];
};

char terms[] SEC("license") = "GPL";

SEC("struct_ops/trivial_select_cpu")
s32 trivial_select_cpu(u64 *ctx)
{
	_Bool is_idle = 0;

	if (!scx_bpf_cpuperf_cap((s32)ctx[1]))
		return (s32)ctx[1];
	return scx_bpf_select_cpu_dfl((struct task_struct *)ctx[0], (s32)ctx[1], ctx[2], &is_idle);
}

SEC(".struct_ops")
struct sched_ext_ops trivial = {
	.select_cpu = (void *)trivial_select_cpu,
	.name = "trivial",
};
