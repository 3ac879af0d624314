// SPDX-License-Identifier: GPL-2.0
/*
 * Loads miser.bpf.o, which the compiler puts in here from OBJECT, keeps it until SIGINT, and
 * unloads it. Leaves the loading to bpftool.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PATH "/tmp/miser.bpf.o"

static const unsigned char object[] = {
#embed OBJECT
};

static void ended(int signal)
{
	(void)signal;
}

static int run(const char *command)
{
	if (!system(command))
		return 0;
	fprintf(stderr, "miser: %s failed\n", command);
	return 1;
}

int main(void)
{
	struct sigaction action = {.sa_handler = ended};
	sigset_t interrupt;
	FILE *file = fopen(PATH, "w");

	sigemptyset(&interrupt);
	sigaddset(&interrupt, SIGINT);
	sigprocmask(SIG_BLOCK, &interrupt, NULL);
	sigaction(SIGINT, &action, NULL);
	if (!file || fwrite(object, sizeof(object), 1, file) != 1 || fclose(file)) {
		perror("miser: " PATH);
		return 1;
	}
	if (run("bpftool struct_ops register " PATH " 2>&1"))
		return 1;
	sigwaitinfo(&interrupt, NULL);
	return run("bpftool struct_ops unregister name miser 2>&1");
}
