// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes the emulator's two threads take turns; preloaded into it.
 *
 * Under -icount one thread executes all CPUs of the guest and the main loop
 * serves devices.  Both run the timers of the guest's clock, and when the main
 * loop does while CPUs execute, it makes them all stop: whichever thread the
 * host lets run first decides how far a CPU gets before the next one's turn,
 * and two runs of a busy guest differ.  So here the main loop, once something
 * woke it, waits until the CPUs' thread sleeps, which it does when every CPU is
 * idle.  While it executes it runs the timers by itself.  What wakes it passes
 * the turn on at once: it may need a while to be awake.
 *
 * A guest whose CPUs stay busy (or wait for the main loop, when it powers off)
 * keeps the main loop waiting for PATIENCE_S at a time.
 *
 * Concurrency: turn is 1 from the moment the CPUs' thread is woken to the
 * moment it goes to sleep.  It sleeps and is woken with the emulator's big lock
 * held, so a wake-up cannot come between turn = 0 and the sleep.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATIENCE_S 1

static atomic_int turn;
static _Atomic(pthread_cond_t *) sleeps_on;

/* What is called in place of NAME here, under the same name in the C library. */
#define ORIGINAL(name) ((__typeof__(&name))original(#name))

static void *original(const char *name)
{
	/* waiting has been changed once; both versions are still there */
	void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");

	return found ? found : dlsym(RTLD_NEXT, name);
}

/* The emulator names its threads when told debug-threads=on. */
static int executes_cpus(void)
{
	char name[16] = "";

	return !pthread_getname_np(pthread_self(), name, sizeof(name)) &&
	       !strcmp(name, "ALL CPUs/TCG");
}

int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	static __typeof__(&pthread_cond_wait) wait;
	int result;

	if (!wait)
		wait = ORIGINAL(pthread_cond_wait);
	if (!executes_cpus())
		return wait(cond, mutex);
	atomic_store(&sleeps_on, cond);
	atomic_store(&turn, 0);
	syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	result = wait(cond, mutex);
	atomic_store(&sleeps_on, NULL);
	atomic_store(&turn, 1);
	return result;
}

static void wakes(pthread_cond_t *cond)
{
	if (atomic_load(&sleeps_on) == cond)
		atomic_store(&turn, 1);
}

int pthread_cond_signal(pthread_cond_t *cond)
{
	static __typeof__(&pthread_cond_signal) signal;

	if (!signal)
		signal = ORIGINAL(pthread_cond_signal);
	wakes(cond);
	return signal(cond);
}

int pthread_cond_broadcast(pthread_cond_t *cond)
{
	static __typeof__(&pthread_cond_broadcast) broadcast;

	if (!broadcast)
		broadcast = ORIGINAL(pthread_cond_broadcast);
	wakes(cond);
	return broadcast(cond);
}

/* Where the main loop waits for something to do. */
int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	static __typeof__(&ppoll) poll;
	const struct timespec patience = {.tv_sec = PATIENCE_S};
	int ready;

	if (!poll)
		poll = ORIGINAL(ppoll);
	ready = poll(fds, count, timeout, mask);
	if (gettid() != getpid())
		return ready;
	while (atomic_load(&turn))
		if (syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, 1, &patience, NULL, 0) &&
		    errno == ETIMEDOUT)
			break;
	return ready;
}
