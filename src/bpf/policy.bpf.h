/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The scheduler's integer mathematics: decay, utilisation, need, cost. No
 * kfunc, no helper and no map: the same text is compiled for the BPF target
 * and natively by the tests, which hold it against a floating-point reference.
 *
 * Utilisation is the kernel's PELT in closed form (kernel/sched/pelt.c): a
 * geometric average with a half-life of 32 periods of 2^20 ns, that is 2^25 ns
 * (33.6 ms), of running. Time that a task runs counts as on a CPU of full
 * capacity (clock_pelt, kernel/sched/pelt.h): dt at capacity c is work of
 * w = dt * c / 1024 and moves the average from u to
 *   u * y(w) + 1024 * (1 - y(w)),  y(t) = 2^(-t / 2^25 ns).
 * The time by which it ran longer than that is lost sleep, and decays the
 * average once it sleeps. So a task looks the same wherever it runs, and one
 * that its CPU is too slow for grows beyond what that CPU can give.
 *
 * One half-life for everything makes sums of averages decay as one, which is
 * what lets a group keep one number for all its tasks.
 *
 * Fixed point: utilisation carries 20 fractional bits, so a task is at most
 * 2^30; factors carry 32, one bit of which is 11 ps of decay. Averages err by
 * less than 1/1000 of the scale, however often they are brought up to date.
 */
#ifndef __JOULE_POLICY_BPF_H
#define __JOULE_POLICY_BPF_H

#include "intf.h"

#define UTIL_SHIFT 20
#define FACTOR_SHIFT 32
#define HALF_LIFE_SHIFT 25
#define CAPACITY_SCALE JOULE_MAX_CAP
#define NEED_BUCKETS 32
#define NEED_BUCKET_SHIFT 5 /* 1024 / 32 */

/* 2^(-i/32) in FACTOR_SHIFT fixed point, i = 0..32. */
static const u64 decay_factor[33] = {
	4294967296, 4202935003, 4112874773, 4024744348, 3938502376, 3854108391, 3771522796,
	3690706840, 3611622603, 3534232978, 3458501653, 3384393094, 3311872529, 3240905930,
	3171459999, 3103502151, 3037000500, 2971923842, 2908241642, 2845924021, 2784941738,
	2725266179, 2666869345, 2609723834, 2553802834, 2499080105, 2445529972, 2393127307,
	2341847524, 2291666561, 2242560872, 2194507417, 2147483648,
};

/*
 * value * y(dt_ns), for any value. Between two entries of the table the factor
 * follows the parabola through them: the chord lies above the curve, which
 * makes many short steps decay 1 % slower than one long one. The bow between
 * the two is (ln 2 / 32)^2 / 2 = 246 / 2^20 of the factor, times x * (1 - x).
 */
static inline __attribute__((always_inline)) u64 decay(u64 value, u64 dt_ns)
{
	u64 halvings = dt_ns >> HALF_LIFE_SHIFT;
	u64 rest = dt_ns & ((1ULL << HALF_LIFE_SHIFT) - 1);
	u32 step = (rest >> 20) & 31;
	u64 within = rest & ((1ULL << 20) - 1);
	u64 upper = decay_factor[step];
	u64 lower = decay_factor[step + 1];
	u64 bow = ((upper >> 20) * 246 * ((1ULL << 20) - within)) >> 20;
	u64 factor = upper - (((upper - lower + bow) * within) >> 20);

	if (halvings >= 64)
		return 0;
	value >>= halvings;
	/* In halves: the product has up to 96 bits. */
	return (value >> 32) * factor + (((value & 0xffffffff) * factor) >> FACTOR_SHIFT);
}

/* The average after running for as long as `work_ns` takes a CPU of full capacity. */
static inline __attribute__((always_inline)) u64 util_after(u64 util, u64 work_ns)
{
	u64 full = (u64)CAPACITY_SCALE << UTIL_SHIFT;

	return full - decay(full - util, work_ns);
}

/* The work in what a CPU delivers, which is its capacity times ns: what it would take a CPU of full
 * capacity, ns. */
static inline __attribute__((always_inline)) u64 work_of(u64 delivered)
{
	return delivered / CAPACITY_SCALE;
}

/*
 * Above this a task is taken to use all it is given: on a faster CPU it would do more and sleep no
 * longer (kernel/sched/pelt.h, update_idle_rq_clock_pelt).
 */
#define UTIL_SATURATED 1000

/* The average of a task that sleeps: a CPU of full capacity would have let it `lost_ns` earlier. */
static inline __attribute__((always_inline)) u64 util_asleep(u64 util, u64 lost_ns)
{
	return util >> UTIL_SHIFT < UTIL_SATURATED ? decay(util, lost_ns) : util;
}

/* The average as a whole number on the capacity scale. */
static inline __attribute__((always_inline)) u32 util_cap(u64 util)
{
	return util >> UTIL_SHIFT;
}

#define EST_WHOLE_SHIFT 22 /* 4.2 ms */

/*
 * util_est: what the task was worth when it last went to sleep. Rises at once,
 * falls by a quarter of the difference per activation (kernel/sched/fair.c,
 * UTIL_EST_WEIGHT_SHIFT 2); of a task that wakes every 2^EST_WHOLE_SHIFT ns
 * or more often by less, in proportion. It would fall to nothing else in the first wake-ups of a
 * burst, whose few milliseconds utilisation does not show yet.
 */
static inline __attribute__((always_inline)) u32 util_est_after(u32 est_cap, u32 at_sleep_cap,
								u64 interval_ns)
{
	u64 whole = 1ULL << EST_WHOLE_SHIFT;
	u64 part = interval_ns && interval_ns < whole ? interval_ns : whole;

	if (at_sleep_cap >= est_cap)
		return at_sleep_cap;
	return est_cap -
	       (u32)(((est_cap - at_sleep_cap) * part + 4 * whole - 1) >> (EST_WHOLE_SHIFT + 2));
}

/*
 * Capacity of the CPU while the task ran, averaged over activations, a quarter for the last one, in
 * which it ran for `ran_ns` and did work that a CPU of full capacity does in `lost_ns` less. 0: not
 * known.
 */
static inline __attribute__((always_inline)) u32 pace_after(u32 pace_cap, u64 ran_ns, u64 lost_ns)
{
	u32 last_cap;

	if (!ran_ns || lost_ns >= ran_ns)
		return pace_cap;
	last_cap = (ran_ns - lost_ns) * CAPACITY_SCALE / ran_ns;
	return pace_cap ? (3 * pace_cap + last_cap + 2) / 4 : last_cap;
}

/* An average over activations, a quarter for the last one; 0: not known. */
static inline __attribute__((always_inline)) u64 mean_after(u64 mean, u64 last)
{
	return mean ? mean - mean / 4 + last / 4 : last;
}

/*
 * The time between two wake-ups, likewise; a pause counts as four times the mean at most, or a
 * task that wakes in bursts would be taken for one that hardly ever does.
 */
static inline __attribute__((always_inline)) u64 interval_after(u64 mean_ns, u64 last_ns)
{
	return mean_after(mean_ns, mean_ns && last_ns > 4 * mean_ns ? 4 * mean_ns : last_ns);
}

/*
 * How long something that should end at `end` is likely to go on: until then, or, when that has
 * passed, for as long again as it is overdue.
 */
static inline __attribute__((always_inline)) u64 left_ns(u64 end, u64 now)
{
	s64 left = end - now;

	return left < 0 ? -left : left;
}

static inline __attribute__((always_inline)) u32 max_u32(u32 a, u32 b)
{
	return a > b ? a : b;
}

static inline __attribute__((always_inline)) u32 min_u32(u32 a, u32 b)
{
	return a < b ? a : b;
}

static inline __attribute__((always_inline)) u64 min_u64(u64 a, u64 b)
{
	return a < b ? a : b;
}

static inline __attribute__((always_inline)) u64 max_u64(u64 a, u64 b)
{
	return a > b ? a : b;
}

/* What users of the kernel let a task count for (uclamp): `least` of it at least, and `most` at
 * most. */
static inline __attribute__((always_inline)) u32 clamped(u32 cap, u32 least_cap, u32 most_cap)
{
	return min_u32(max_u32(cap, least_cap), most_cap);
}

/* Bucket of a need for the top-need bitmap: 0..31. */
static inline __attribute__((always_inline)) u32 need_bucket(u32 need_cap)
{
	return min_u32(need_cap >> NEED_BUCKET_SHIFT, NEED_BUCKETS - 1);
}

/* Upper edge of a bucket: the most that a task counted in it can need. */
static inline __attribute__((always_inline)) u32 bucket_cap(u32 bucket)
{
	return (bucket + 1) << NEED_BUCKET_SHIFT;
}

/* Index of the highest set bit; 0 for an empty bitmap. No branches: each would double the
 * verifier's work. */
static inline __attribute__((always_inline)) u32 highest_bit(u32 bits)
{
	u32 index = (bits > 0xffff) << 4, step;

	bits >>= index;
	step = (bits > 0xff) << 3;
	bits >>= step;
	index |= step;
	step = (bits > 0xf) << 2;
	bits >>= step;
	index |= step;
	step = (bits > 0x3) << 1;
	bits >>= step;
	return index | step | (bits >> 1);
}

/*
 * Index of the lowest set bit, of a word that has one: multiplied by a De Bruijn sequence, the bit
 * alone shifts a different six bits to the top from each place.
 */
static const u8 place_of_bit[64] = {
	0,  1,	2,  53, 3,  7,	54, 27, 4,  38, 41, 8,	34, 55, 48, 28, 62, 5,	39, 46, 44, 42,
	22, 9,	24, 35, 59, 56, 49, 18, 29, 11, 63, 52, 6,  26, 37, 40, 33, 47, 61, 45, 43, 21,
	23, 58, 17, 10, 51, 25, 36, 32, 60, 20, 57, 16, 50, 31, 19, 15, 30, 14, 13, 12,
};

static inline __attribute__((always_inline)) u32 lowest_bit(u64 bits)
{
	return place_of_bit[((bits & -bits) * 0x022fdd63cc95386dULL) >> 58];
}

/* The lowest bit that is set from bit `from` on, cyclically; 0 of 0. */
static inline __attribute__((always_inline)) u64 nearest_bit(u64 bits, u32 from)
{
	u64 behind = bits & (~0ULL << (from & 63));

	bits = behind ? behind : bits;
	return bits & -bits;
}

/* Of some groups the nearest one to group `from`: under its cache, in its memory node, or any. */
static inline __attribute__((always_inline)) u64 nearest_of(u64 groups, u64 same_cache,
							    u64 same_node, u32 from)
{
	u64 near = groups & same_cache;

	near = near ? near : groups & same_node;
	return nearest_bit(near ? near : groups, from);
}

/*
 * What a task needs: what it uses, or used to use when that was more. What uses
 * more than it ever did is growing, and is taken to go on by as much again:
 * utilisation follows growth only with its half-life.
 */
static inline __attribute__((always_inline)) u32 need_of(u32 used_cap, u32 est_cap)
{
	u32 growing = used_cap > est_cap ? used_cap - est_cap : 0;

	return min_u32(max_u32(used_cap + growing, est_cap), CAPACITY_SCALE);
}

/*
 * What a task takes that runs for `run_ns` at `pace_cap` from one of its wake-ups to the next: the
 * mean of its utilisation, known as soon as it wakes, however long it has slept. 0: not known.
 */
static inline __attribute__((always_inline)) u32 usual_cap(u64 run_ns, u32 pace_cap,
							   u64 interval_ns)
{
	return interval_ns ? min_u64(run_ns * pace_cap / interval_ns, CAPACITY_SCALE) : 0;
}

/*
 * A task that has been awake for longer than it takes from one of its wake-ups
 * to the next is behind: what it has to do piles up before its utilisation
 * shows any of that. It asks for an eighth more than its CPU delivers, again at
 * each tick until it sleeps, but for 7/4 of its usual at most: what has piled up
 * is worked off by that, and more would be paid for dearly. 0: not behind.
 */
static inline __attribute__((always_inline)) u32 catch_up_cap(u64 awake_ns, u64 interval_ns,
							      u32 capacity, u32 usual_cap)
{
	if (!interval_ns || awake_ns <= interval_ns)
		return 0;
	return min_u32(min_u32(capacity + capacity / 8, 7 * usual_cap / 4), CAPACITY_SCALE);
}

/* Capacity to ask for so that `need_cap` leaves the profile's headroom. */
static inline __attribute__((always_inline)) u32 with_headroom(u32 need_cap, u32 headroom_pct)
{
	return need_cap * headroom_pct / 100;
}

/*
 * Headroom that a group adds to the profile's while wake-ups wait too long there, in 1/1024 %.
 * Integral control with a leak: none where one wake-up in twenty waits longer than the target, 14 %
 * where one in ten does, 47 % where one in five does, and all of it is forgotten in 300 wake-ups
 * that do not. Without the leak that took a thousand, and a load paid for long for its beginning,
 * when nobody knows what its tasks need.
 * One that was late though the clock was at its top says nothing: no headroom would have helped
 * it, and what a crowd wound up would be spent after the crowd has left.
 */
#define GUARD_SHIFT 10
#define GUARD_MOST (100U << GUARD_SHIFT)
#define GUARD_STEP 100
#define GUARD_LEAK 128

static inline __attribute__((always_inline)) u32 guard_after(u32 guard, int late, int at_top)
{
	if (late)
		return at_top ? guard : min_u32(guard + 19 * GUARD_STEP, GUARD_MOST);
	guard -= guard / GUARD_LEAK;
	return guard > GUARD_STEP ? guard - GUARD_STEP : 0;
}

/*
 * An index that the verifier can see to be within an OPP table. The empty
 * assembly keeps the compiler from proving the mask superfluous and dropping it.
 */
static inline __attribute__((always_inline)) u32 opp_index(u32 index)
{
	index &= JOULE_MAX_OPPS - 1;
	asm volatile("" : "+r"(index));
	return index;
}

/*
 * 1 where a < b, both below 2^63, without a branch, which the compiler would make of it if it
 * could.
 */
static inline __attribute__((always_inline)) u32 is_less(u64 a, u64 b)
{
	u64 difference = a - b;

	asm volatile("" : "+r"(difference));
	return difference >> 63;
}

/* Fills in opp_at. Without branches, as the verifier would follow both sides of each. */
static inline __attribute__((always_inline)) void index_opps(struct joule_cost_row *row)
{
	u32 cap, opp = 0, last = min_u32(row->nr_opps, JOULE_MAX_OPPS);

	last -= !!last;
	for (cap = 0; cap < CAPACITY_SCALE; cap++) {
		/* Capacities ascend: from one number to the next, one OPP at most falls short. */
		opp += is_less(opp, last) & is_less(row->capacity[opp_index(opp)], cap + 1);
		row->opp_at[cap] = opp;
	}
}

/* The slowest OPP that offers `wanted_cap`; the fastest when none does. */
static inline __attribute__((always_inline)) u32 opp_for(const struct joule_cost_row *row,
							 u32 wanted_cap)
{
	u32 below = wanted_cap - !!wanted_cap;

	return opp_index(row->opp_at[min_u32(below, CAPACITY_SCALE - 1)]);
}

/*
 * Fills in run_at. A CPU that is awake alone draws its own power and the shared one, at a faster
 * OPP for less time: on many SoCs the slowest OPPs are not those where work is cheapest, and some
 * OPPs are worth less than the next. The slower one of two that are equal. One that is left for a
 * faster one is not measured any more, so the faster one has to be cheaper by a seventh: single
 * OPPs are known no better, and measured tables that have such OPPs leap by more.
 */
static inline __attribute__((always_inline)) void rank_opps(struct joule_cost_row *row)
{
	u32 last = min_u32(row->nr_opps, JOULE_MAX_OPPS), i, best;

	last -= !!last;
	best = last;
	for (i = 0; i < JOULE_MAX_OPPS; i++) {
		u32 opp = opp_index(last - i), other = opp_index(best), leave;
		u64 here = ((u64)row->busy_uw[opp] + row->shared_uw[opp]) * row->capacity[other];
		u64 there = ((u64)row->busy_uw[other] + row->shared_uw[other]) * row->capacity[opp];

		leave = is_less(7 * there, 6 * here);
		row->run_at[opp] = opp + ((best - opp) & -leave);
		/* Past the slowest OPP, `opp` begins anew at the end of the array. */
		best += (opp - best) & -(is_less(i, last + 1) & !is_less(there, here));
	}
}

/* The OPP that a group runs at where `wanted_cap` is asked for. */
static inline __attribute__((always_inline)) u32 run_at(const struct joule_cost_row *row,
							u32 wanted_cap)
{
	return opp_index(row->run_at[opp_for(row, wanted_cap)]);
}

/*
 * What tasks may use of CPUs that offer so much each, if they are to have no others: they wake
 * together, and each CPU must offer half as much again as its share.
 */
static inline __attribute__((always_inline)) u32 usable_cap(u32 nr_cpus, u32 capacity)
{
	return nr_cpus * capacity * 2 / 3;
}

/*
 * What to ask a governor for that takes the slowest OPP which offers it, so that it takes the one
 * where work is cheapest: halfway between that and the next slower one, as what it knows of
 * capacities and what we do differ by rounding.
 */
static inline __attribute__((always_inline)) u32 cap_to_ask(const struct joule_cost_row *row,
							    u32 wanted_cap)
{
	u32 slowest = opp_for(row, wanted_cap), opp = opp_index(row->run_at[slowest]);

	if (opp <= slowest)
		return wanted_cap;
	return (row->capacity[opp_index(opp - 1)] + row->capacity[opp] + 1) / 2;
}

/* The OPP whose capacity is nearest to what a CPU delivers. */
static inline __attribute__((always_inline)) u32 nearest_opp(const struct joule_cost_row *row,
							     u32 delivered_cap)
{
	u32 above = opp_for(row, delivered_cap), below = above ? above - 1 : 0;
	u32 above_cap = row->capacity[opp_index(above)];
	u32 below_cap = row->capacity[opp_index(below)];

	/* More than the fastest OPP offers: `above` is the fastest. */
	if (above_cap <= delivered_cap)
		return above;
	/* Less than the slowest: the difference is huge as an unsigned number. */
	return delivered_cap - below_cap < above_cap - delivered_cap ? below : above;
}

/*
 * Whether a row may be used: OPPs ascend in capacity, powers and energies are
 * bounded. Without branches, as index_opps() is.
 */
static inline __attribute__((always_inline)) int row_is_sound(const struct joule_cost_row *row)
{
	u32 i, previous = 0, faults = is_less(JOULE_MAX_OPPS, row->nr_opps);

	for (i = 0; i < JOULE_MAX_OPPS; i++) {
		u32 faults_here = !is_less(previous, row->capacity[i]);

		faults_here |= is_less(CAPACITY_SCALE, row->capacity[i]);
		faults_here |= is_less(JOULE_MAX_UW, row->busy_uw[i]);
		faults_here |= is_less(JOULE_MAX_UW, row->shared_uw[i]);
		faults |= faults_here & is_less(i, row->nr_opps);
		previous = row->capacity[i];
	}
	faults |= is_less(JOULE_MAX_NJ, row->wake_nj[JOULE_SHALLOW]);
	faults |= is_less(JOULE_MAX_NJ, row->wake_nj[JOULE_DEEP]);
	faults |= is_less(JOULE_MAX_NJ, row->group_wake_nj);
	return !faults;
}

/* Bucket of a waiting time. */
static inline __attribute__((always_inline)) u32 delay_bucket(u64 waited_ns)
{
	u64 us = waited_ns / 1000;

	return highest_bit(us > 0xffffffffU ? 0xffffffffU : us);
}

/* Fractional bits of a share of the CPUs, which is a weight otherwise. */
#define SHARE_SHIFT 10
#define LEAST_SHARE (1ULL << SHARE_SHIFT)

/*
 * The share of something of this weight among what is runnable right inside a cgroup, seen from
 * outside of that; `share` is what it has there. `sum` is of all their weights, and may be of a
 * moment in which this one was not in it. Never below that of a task of the least weight: what
 * waits would not be fetched in time.
 */
static inline __attribute__((always_inline)) u64 share_inside(u64 share, u32 weight, s64 sum,
							      u32 group_weight)
{
	u64 all = sum > (s64)weight ? sum : weight;

	share = share * group_weight / (all ? all : 1);
	return share > LEAST_SHARE ? share : LEAST_SHARE;
}

/* Twice as long as the ticks of the slowest kernel (100 Hz) are apart. */
#define MOST_CHARGED_NS 20000000ULL

/*
 * Virtual time that a task of this share is charged for running so long since it was charged last,
 * at a tick at most: a weight of 100 is charged that. What lasted for longer was not its doing, but
 * that of interrupts, or of a virtual machine that stood still; charged with all of it, it would
 * wait for as many times as long as there are others.
 */
static inline __attribute__((always_inline)) u64 virtual_ns(u64 ran_ns, u64 share)
{
	ran_ns = min_u64(ran_ns, MOST_CHARGED_NS);
	return ran_ns * (100ULL << SHARE_SHIFT) / (share ? share : 1);
}

/*
 * Virtual time by which a task may be ahead of its queue's clock: what a task of the least weight
 * is charged in a tick of the usual length, and a little more. The others have to run for so long,
 * each, before it runs again; what is worth less than anything else may hold a lock all the same,
 * or be what the kernel waits for (RCU).
 */
#define MOST_AHEAD_NS 500000000ULL

/* A task's virtual time on a clock: so much behind it at most, and not too far ahead. */
static inline __attribute__((always_inline)) u64 vtime_by(u64 clock, u64 vtime, u64 most_behind_ns)
{
	s64 ahead = vtime - clock;

	if (ahead < -(s64)most_behind_ns)
		return clock - most_behind_ns;
	return ahead > (s64)MOST_AHEAD_NS ? clock + MOST_AHEAD_NS : vtime;
}

/* A group's load as placement sees it. */
struct load {
	u32 sum_cap; /* utilisation of all its tasks */
	u32 top_cap; /* need of its neediest runnable task */
};

/*
 * What one CPU of the group must offer: its share of all tasks, or the neediest
 * of them and three quarters of its share of the others. The kernel's governor,
 * whose tasks stay with their CPU, counts them in full; here they spread, and
 * meet less often.
 */
static inline __attribute__((always_inline)) u32 cpu_need(const struct load *load, u32 nr_cpus)
{
	u32 others = load->sum_cap > load->top_cap ? load->sum_cap - load->top_cap : 0;
	u32 nr = max_u32(nr_cpus, 1);

	return max_u32(load->top_cap + others * 3 / 4 / nr, load->sum_cap / nr);
}

/*
 * When work that takes a CPU of full capacity so long will have been done, ns from now, by CPUs of
 * this capacity of which one is free in `busy_ns`, behind others that wait for it.
 */
static inline __attribute__((always_inline)) u64 done_after_ns(u64 busy_ns, u32 nr_waiting,
							       u64 work_ns, u32 capacity)
{
	return busy_ns * (nr_waiting + 1) + work_ns * CAPACITY_SCALE / max_u32(capacity, 1);
}

/* An energy paid once in every interval, as power, uW. */
static inline __attribute__((always_inline)) u64 repeated_uw(u32 nj, u64 interval_ns)
{
	/* nJ per ns are W. */
	return interval_ns ? nj * 1000000ULL / interval_ns : 0;
}

/* How long a task may wait to pay `waiting` instead of `at_once`: its patience times the saving. */
static inline __attribute__((always_inline)) u64 allowed_wait_ns(u64 at_once_uw, u64 waiting_uw,
								 u32 patience_us)
{
	if (waiting_uw >= at_once_uw)
		return 0;
	/* us times thousandths are ns */
	return patience_us * ((at_once_uw - waiting_uw) / (at_once_uw / 1000 + 1));
}

/*
 * Power of a group under a load, uW. At the OPP for what cpu_need() asks for, the CPUs are busy
 * for sum / capacity CPU-seconds per second; the shared part is paid while any
 * of them is, taken as min(1, sum / capacity): exact for one task and for a
 * full group, high by less than the overlap in between.
 */
static inline __attribute__((always_inline)) u64 group_power_uw(const struct joule_cost_row *row,
								const struct load *load,
								u32 nr_cpus, u32 headroom_pct)
{
	u32 wanted = with_headroom(cpu_need(load, nr_cpus), headroom_pct);
	u32 opp = run_at(row, wanted);
	u32 capacity = max_u32(row->capacity[opp], 1);
	u64 busy = (u64)load->sum_cap * row->busy_uw[opp];
	u64 active_cap = min_u32(load->sum_cap, capacity);

	return (busy + active_cap * row->shared_uw[opp]) / capacity;
}

/*
 * Power that a task adds to a group whose CPUs have a clock each, uW: its CPU runs at the OPP that
 * offers `wanted_cap`, whatever runs on the others. Of the shared part it pays for the time in
 * which the others would not keep the group awake, were they to run one after the other.
 */
static inline __attribute__((always_inline)) u64 added_power_uw(const struct joule_cost_row *row,
								u32 need_cap, u32 wanted_cap,
								u32 others_cap)
{
	u32 opp = opp_index(opp_for(row, wanted_cap));
	u32 capacity = max_u32(row->capacity[opp], 1);
	u32 alone_cap = capacity > others_cap ? capacity - others_cap : 0;
	u64 shared = (u64)row->shared_uw[opp] * alone_cap / capacity;

	return need_cap * (row->busy_uw[opp] + shared) / capacity;
}

#endif /* __JOULE_POLICY_BPF_H */
