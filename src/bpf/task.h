/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is kept of each task. A file of its own, so that tests can look at it
 * from BPF programs of theirs.
 */
#ifndef __JOULE_TASK_H
#define __JOULE_TASK_H

struct task_ctx {
	u64 util; /* UTIL_SHIFT fixed point, as of util_at */
	u64 util_at;
	u64 vtime;	   /* run time by share, on the clock of its group's queue */
	u64 exec_at;	   /* p->se.sum_exec_runtime already charged to vtime */
	u64 delivered_at;  /* its CPU's capacity integral as of util_at */
	u64 share;	   /* of the CPUs that it is due, when it was last asked for */
	u64 ran_ns;	   /* since it woke */
	u64 run_ns;	   /* from waking to sleeping, on average; 0: not known */
	u64 lost_ns;	   /* of ran_ns, what a CPU of full capacity would have saved */
	u64 waiting_since; /* 0: not waiting */
	u64 woke_at;
	u64 interval_ns;   /* from wake-up to wake-up, on average; 0: not known */
	u64 patient_until; /* waits by choice, at most until then; 0: does not */
	u32 est_cap;	   /* util_est */
	u32 catch_up_cap;  /* asked for until it sleeps; 0: it is not behind */
	u32 pace_cap;	   /* capacity of the CPU while it ran, on average; 0: not known */
	u32 usual_cap;	   /* of a CPU, from wake-up to wake-up, when it last slept; 0: not known */
	u32 least_cap;	   /* uclamp: it is taken to need this much */
	u32 most_cap;	   /* uclamp: and no more than this */
	u32 counted_cap;   /* need counted in the group while runnable */
	u32 group;	   /* whose sums hold this task; JOULE_NO_GROUP for none */
	u32 queue;	   /* group in whose queue it is; JOULE_NO_GROUP for none */
	u32 runnable;
	u32 running;
	u32 waked_by;	    /* the CPU, and 1, whose interrupts wake it wherever it runs; 0: none */
	u32 seat;	    /* the CPU, and 1, that it sat down at (seat.bpf.h); 0: none */
	u32 takes_cpu;	    /* the CPU, and 1, whose task gives way to it; 0: none */
	u32 counted_weight; /* in its cgroup's sum; 0: not counted */
};

#endif /* __JOULE_TASK_H */
