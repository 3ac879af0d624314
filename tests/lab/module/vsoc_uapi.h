/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * What /dev/vsoc offers to user space.
 *
 * Open /dev/vsoc (mode 0666; it exists once a machine has been described, so
 * ENOENT means "no virtual SoC here"), mmap sizeof(struct vsoc_page) bytes at
 * offset 0, PROT_READ and MAP_SHARED, and check magic and version.
 *
 * Virtual work.  A task's progress is thread CPU time x speed of the CPU it
 * is on.  speed[] is on the kernel's capacity scale: 1024 is the fastest CPU
 * of the machine alone on its core at its highest OPP, so 1 s of CPU time at
 * speed 512 does half the work of 1 s at 1024.  SMT and the current OPP are in
 * it already.  The kernel writes a CPU's words whenever its OPP or, on an SMT
 * core, its sibling's idle state changes; there is no notice, so read often
 * (each halt of at most 1 ms bounds the error by one change per millisecond)
 * and charge each slice with the speed before it, or with the mean of before
 * and after.  Words are aligned and written whole; two of them are not
 * consistent with each other.  seq[cpu] counts the changes of speed[cpu]: a
 * slice whose seq did not move ran at one speed from end to end.
 *
 * Halting.  ioctl(fd, VSOC_HALT, ns) halts the CPU in the *task's* context
 * for at most ns (1 .. VSOC_HALT_MAX_NS): to the guest kernel and to the
 * energy account the task runs and the CPU is busy, while the host's CPU is
 * free and virtual time may jump.  It returns 0 after the first interrupt
 * that reaches the CPU, the timer's or another: it may return early, never
 * late by more than the wake-up itself.  It does not halt, and returns 0 at
 * once, when a reschedule or a signal is pending.  So: loop on it and measure
 * with CLOCK_THREAD_CPUTIME_ID, which counts the halted time as CPU time.
 * EINVAL: ns is 0 or too large.
 */
#ifndef VSOC_UAPI_H
#define VSOC_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define VSOC_MAGIC		0x56534f43	/* "VSOC" */
#define VSOC_VERSION		1
#define VSOC_MAX_CPUS		64
#define VSOC_HALT_MAX_NS	10000000UL

struct vsoc_page {
	__u32 magic;			/* VSOC_MAGIC */
	__u32 version;			/* VSOC_VERSION */
	__u32 nr_cpus;			/* CPUs described; the arrays hold 64 */
	__u32 reserved;			/* 0 */
	__u32 speed[VSOC_MAX_CPUS];	/* 0 .. 1024 */
	__u32 khz[VSOC_MAX_CPUS];	/* the OPP's frequency */
	__u32 seq[VSOC_MAX_CPUS];	/* changes of speed[], wraps */
};

#define VSOC_HALT	_IO('V', 1)	/* argument: ns, by value */

#endif /* VSOC_UAPI_H */
