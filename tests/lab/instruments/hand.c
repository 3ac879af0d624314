// SPDX-License-Identifier: GPL-2.0
/*
 * Does by hand what the control loop does, and what it must never do: publishes
 * cost tables, sound and unsound, and reads the scheduler's counters and sums.
 *
 *   joule-hand publish COUNT PAUSE_US  COUNT tables, in turn like the prior's and
 *                                      with the prices of the groups reversed
 *   joule-hand refuse                  a table with each fault: what became of it
 *   joule-hand counters                "NAME VALUE", summed over CPUs, and the longest wait
 *   joule-hand activity                busy time and that of pairs of threads, over all groups
 *   joule-hand residue SETTLE_MS       the sums, as a real-time task that is not in them
 *   joule-hand map NAME                the number of a map of the scheduler
 *   joule-hand attach PIN              attaches a pinned program to the tracepoint it was
 *                                      written for, for as long as PIN-link is there
 *
 * There may be one publisher only: the scheduler's own must be stopped.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../../src/bpf/intf.h"

#define MAX_CPUS 64
/* Published costs outlive every test. */
#define TTL_NS 3600000000000ULL

static void die(const char *what)
{
	fprintf(stderr, "joule-hand: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* The kernel keeps 15 characters of a name. */
static bool is_called(const char *kept, const char *name)
{
	return !strncmp(kept, name, BPF_OBJ_NAME_LEN - 1);
}

/* Opens the map, or the program, of this name; its number is left in *id. */
static int open_object(bool map, const char *name, u32 *id)
{
	union bpf_attr attr = {0};

	while (!bpf(map ? BPF_MAP_GET_NEXT_ID : BPF_PROG_GET_NEXT_ID, &attr)) {
		union bpf_attr by_id = {.map_id = attr.next_id}, query = {0};
		struct bpf_prog_info prog = {0};
		struct bpf_map_info info = {0};
		int fd = bpf(map ? BPF_MAP_GET_FD_BY_ID : BPF_PROG_GET_FD_BY_ID, &by_id);

		if (fd < 0)
			die("opening a BPF object");
		query.info.bpf_fd = fd;
		query.info.info = (u64)(map ? (void *)&info : (void *)&prog);
		query.info.info_len = map ? sizeof(info) : sizeof(prog);
		if (bpf(BPF_OBJ_GET_INFO_BY_FD, &query))
			die("asking for a name");
		*id = attr.next_id;
		if (is_called(map ? info.name : prog.name, name))
			return fd;
		close(fd);
		attr.start_id = *id;
	}
	die(name);
	return -1;
}

static int open_map(const char *name)
{
	u32 id;

	return open_object(true, name, &id);
}

static int open_program(const char *name)
{
	u32 id;

	return open_object(false, name, &id);
}

/* Runs a program on its context, which it may change; returns what the program returns. */
static int run(int program, void *context, u32 size)
{
	union bpf_attr attr = {0};

	attr.test.prog_fd = program;
	attr.test.ctx_in = (u64)context;
	attr.test.ctx_size_in = size;
	if (bpf(BPF_PROG_TEST_RUN, &attr))
		die("running a program");
	return attr.test.retval;
}

static void look_up(int map, u32 key, void *value)
{
	union bpf_attr attr = {.map_fd = map, .key = (u64)&key, .value = (u64)value};

	if (bpf(BPF_MAP_LOOKUP_ELEM, &attr))
		die("reading a map");
}

/* --- publishing --- */

static struct {
	int tables;
	int publish;
	struct joule_cost_table prior;
	u64 generation; /* the highest used */
	u32 in_use;	/* slot */
} hand;

/* Finds the scheduler; the table published last has the highest generation. */
static void take_over(void)
{
	struct joule_cost_table table[2];

	hand.tables = open_map("cost_tables");
	hand.publish = open_program("joule_publish");
	look_up(hand.tables, JOULE_STATIC_SLOT, &hand.prior);
	look_up(hand.tables, 0, &table[0]);
	look_up(hand.tables, 1, &table[1]);
	hand.in_use = table[1].generation >= table[0].generation;
	hand.generation = table[hand.in_use].generation;
}

static void fill(u32 slot, struct joule_cost_table *table)
{
	union bpf_attr update = {.map_fd = hand.tables, .key = (u64)&slot, .value = (u64)table};

	if (bpf(BPF_MAP_UPDATE_ELEM, &update))
		die("filling a slot");
}

/* Fills a free slot and asks for it, maybe by another generation: whether it was accepted. */
static bool ask(u32 slot, struct joule_cost_table *table, u64 generation)
{
	struct joule_publish request = {
		.generation = generation,
		.ttl_ns = TTL_NS,
		.slot = slot,
		.probe_class = JOULE_NO_CLASS,
	};

	if (slot == 1 - hand.in_use)
		fill(slot, table);
	return run(hand.publish, &request, sizeof(request)) == 0;
}

static u32 nr_classes(void)
{
	u32 known = 0;

	while (known < JOULE_MAX_CLASSES && hand.prior.row[known].nr_opps)
		known++;
	return known;
}

/*
 * The prior's table, or with the smaller classes the dearer: by so much that
 * what it costs to wake a CPU, which is the same in both, decides nothing.
 */
static struct joule_cost_table fresh_table(bool reversed)
{
	struct joule_cost_table table = hand.prior;
	u32 last = nr_classes() - 1, class, opp;

	table.generation = ++hand.generation;
	for (class = 0; reversed && class < last; class ++)
		for (opp = 0; opp < table.row[class].nr_opps; opp++) {
			table.row[class].busy_uw[opp] <<= 4 * (last - class);
			table.row[class].shared_uw[opp] <<= 4 * (last - class);
		}
	return table;
}

static void publish(u32 count, u32 pause_us)
{
	u32 i;

	for (i = 0; i < count; i++) {
		struct joule_cost_table table = fresh_table(i % 2 == 0);

		if (!ask(1 - hand.in_use, &table, table.generation)) {
			errno = EINVAL;
			die("publishing a sound table");
		}
		hand.in_use = 1 - hand.in_use;
		if (pause_us)
			usleep(pause_us);
	}
}

/* Asks for a table with a fault, in the slot that is free. */
#define REFUSE(name, fault)                                                                        \
	do {                                                                                       \
		struct joule_cost_table table = fresh_table(false);                                \
		u64 generation = table.generation;                                                 \
		u32 slot = 1 - hand.in_use;                                                        \
                                                                                                   \
		fault;                                                                             \
		printf("%s %s\n", name, ask(slot, &table, generation) ? "accepted" : "refused");   \
	} while (0)

static void refuse(void)
{
	struct joule_cost_table none = {0};
	u32 last = nr_classes() - 1, beyond = nr_classes();

	publish(1, 0);
	REFUSE("no-opps", table.row[last].nr_opps = 0);
	REFUSE("too-many-opps", table.row[0].nr_opps = JOULE_MAX_OPPS + 1);
	REFUSE("capacity-zero", table.row[0].capacity[0] = 0);
	REFUSE("capacities-equal", table.row[0].capacity[1] = table.row[0].capacity[0]);
	REFUSE("capacities-descend", table.row[0].capacity[2] = table.row[0].capacity[1] - 1);
	REFUSE("capacity-beyond-scale",
	       table.row[last].capacity[table.row[last].nr_opps - 1] = 1025);
	REFUSE("busy-power", table.row[last].busy_uw[0] = JOULE_MAX_UW + 1);
	REFUSE("shared-power", table.row[0].shared_uw[1] = JOULE_MAX_UW + 1);
	REFUSE("wake-energy", table.row[0].wake_nj[JOULE_DEEP] = JOULE_MAX_NJ + 1);
	if (beyond < JOULE_MAX_CLASSES)
		REFUSE("unsound-beyond-classes", table.row[beyond].nr_opps = 1);
	REFUSE("generation", generation++);
	REFUSE("slot-of-prior", slot = JOULE_STATIC_SLOT; generation = hand.prior.generation);
	REFUSE("slot-beyond", slot = 77);
	/* Last: that it is still refused shows that the good table is still in use. */
	REFUSE("slot-in-use", slot = hand.in_use; look_up(hand.tables, slot, &table);
	       generation = table.generation);
	fill(1 - hand.in_use, &none);
}

/* --- reading --- */

static void counters(void)
{
	static const struct {
		const char *name;
		enum joule_counter which;
	} told[] = {
		{"placed_idle", JOULE_PLACED_IDLE},
		{"placed_busy", JOULE_PLACED_BUSY},
		{"placed_waiting", JOULE_PLACED_WAITING},
		{"placed_steered", JOULE_PLACED_STEERED},
		{"kicks", JOULE_KICKS},
		{"kicks_steered", JOULE_KICKS_STEERED},
		{"tables_refused", JOULE_TABLES_REFUSED},
		{"tables_mixed", JOULE_TABLES_MIXED},
		{"misfit_up", JOULE_MISFIT_UP},
		{"preempted", JOULE_PREEMPTED},
	};
	static struct joule_counters of_cpu[MAX_CPUS];
	u32 i, cpu, longest = 0;

	if (sysconf(_SC_NPROCESSORS_CONF) > MAX_CPUS) {
		errno = E2BIG;
		die("counting CPUs");
	}
	look_up(open_map("counters"), 0, of_cpu);
	for (i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
		u64 sum = 0;

		for (cpu = 0; cpu < MAX_CPUS; cpu++)
			sum += of_cpu[cpu].value[told[i].which];
		printf("%s %llu\n", told[i].name, sum);
	}
	for (cpu = 0; cpu < MAX_CPUS; cpu++)
		for (i = longest; i < JOULE_DELAY_BUCKETS; i++)
			if (of_cpu[cpu].delay[i])
				longest = i + 1;
	/* Where its bucket ends. */
	printf("longest_wait_us %llu\n", longest ? 1ULL << longest : 0);
}

static void activity(void)
{
	struct joule_activity of_group;
	u64 now, busy = 0, paired = 0;
	int map = open_map("activities");
	u32 group, opp;

	run(open_program("joule_sample"), &now, sizeof(now));
	for (group = 0; group < JOULE_MAX_GROUPS; group++) {
		look_up(map, group, &of_group);
		for (opp = 0; opp < JOULE_MAX_OPPS; opp++) {
			busy += of_group.busy_ns[opp];
			paired += of_group.paired_ns[opp];
		}
	}
	printf("busy_ns %llu\npaired_ns %llu\n", busy, paired);
}

static void residue(u32 settle_ms)
{
	struct sched_param lowest = {.sched_priority = 1};
	int program = open_program("joule_self_check");
	struct joule_residue residue = {0};

	if (sched_setscheduler(0, SCHED_FIFO, &lowest))
		die("becoming a real-time task");
	usleep(settle_ms * 1000);
	run(program, &residue, sizeof(residue));
	printf("sum_cap %llu\nest_cap %llu\nnr_counted %llu\nnr_waiting %llu\n", residue.sum_cap,
	       residue.est_cap, residue.nr_counted, residue.nr_waiting);
}

static void attach(const char *pin)
{
	union bpf_attr get = {.pathname = (u64)pin}, open = {0}, keep = {0};
	char link[256];

	snprintf(link, sizeof(link), "%s-link", pin);
	open.raw_tracepoint.prog_fd = bpf(BPF_OBJ_GET, &get);
	keep.pathname = (u64)link;
	keep.bpf_fd = bpf(BPF_RAW_TRACEPOINT_OPEN, &open);
	if (bpf(BPF_OBJ_PIN, &keep))
		die("attaching a program");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	u32 first = argc > 2 ? atoi(argv[2]) : 0, second = argc > 3 ? atoi(argv[3]) : 0, id;

	if (!strcmp(what, "publish")) {
		take_over();
		publish(first, second);
	} else if (!strcmp(what, "refuse")) {
		take_over();
		refuse();
	} else if (!strcmp(what, "counters")) {
		counters();
	} else if (!strcmp(what, "activity")) {
		activity();
	} else if (!strcmp(what, "residue")) {
		residue(first);
	} else if (!strcmp(what, "map")) {
		open_object(true, argc > 2 ? argv[2] : "", &id);
		printf("%u\n", id);
	} else if (!strcmp(what, "attach")) {
		attach(argc > 2 ? argv[2] : "");
	} else {
		errno = EINVAL;
		die(what);
	}
	return 0;
}
