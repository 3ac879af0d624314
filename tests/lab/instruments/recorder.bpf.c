// SPDX-License-Identifier: GPL-2.0
/*
 * Prints what the scheduler believes each task uses, at every switch from or
 * to it, into the kernel's trace: beside the events from which a test works
 * out the truth. Only tasks whose name starts with "u-".
 *
 * The map is the scheduler's: whoever loads this object puts it in place of
 * the declaration here. Kernel types are declared by the members named, as in
 * ../probe/trivial.bpf.c.
 */
#define SEC(name) __attribute__((section(name), used))

typedef unsigned long long u64;
typedef unsigned int u32;
typedef int s32;

#include "../../../src/bpf/task.h"

struct task_struct {
	s32 pid;
	char comm[16];
} __attribute__((preserve_access_index));

/* Of include/uapi/linux/bpf.h. */
#define BPF_MAP_TYPE_TASK_STORAGE 29
#define BPF_F_NO_PREALLOC 1
static long (*const bpf_trace_printk)(const char *format, u32 size, ...) = (void *)6;
static void *(*const bpf_task_storage_get)(void *map, struct task_struct *task, void *value,
					   u64 flags) = (void *)156;

struct {
	int (*type)[BPF_MAP_TYPE_TASK_STORAGE];
	int (*map_flags)[BPF_F_NO_PREALLOC];
	int *key;
	struct task_ctx *value;
} task_ctxs SEC(".maps");

char terms[] SEC("license") = "GPL";

static inline __attribute__((always_inline)) void tell(struct task_struct *p)
{
	static const char format[] = "%d %llu";
	struct task_ctx *tctx;

	if (p->comm[0] != 'u' || p->comm[1] != '-')
		return;
	tctx = bpf_task_storage_get(&task_ctxs, p, 0, 0);
	if (tctx)
		bpf_trace_printk(format, sizeof(format), p->pid, tctx->util);
}

/* Arguments: preempt, prev, next, prev_state. */
SEC("tp_btf/sched_switch")
int record_switch(u64 *ctx)
{
	tell((struct task_struct *)ctx[1]);
	tell((struct task_struct *)ctx[2]);
	return 0;
}
