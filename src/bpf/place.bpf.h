/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Where a waking task goes.
 *
 * Of the groups that the task may use and fits into, the one with the least price (price.bpf.h)
 * takes it, on an idle CPU (idle.bpf.h). The group that the task last ran in keeps it unless the
 * saving exceeds the profile's hysteresis. If the task fits nowhere, the group with the most
 * capacity takes it. Where no group that it fits has an idle CPU, all of them draw what they can
 * whoever runs: the one that will have done the task's work first takes it. But if smaller CPUs
 * idle, it takes the place of a task that needs less, on a CPU that it fits, and that one goes to
 * an idle CPU.
 *
 * Where hardware sets each CPU's clock, a CPU that has just been taken starts slowly. So a task
 * goes back to its previous CPU there, the saving by which it leaves its group must be larger, and
 * it needs less room to stay than to come (fitting_cap). Who uses more than a little has a CPU of
 * its own, as far as there are enough (seat.bpf.h).
 *
 * A task may also wait for a busy group, when that is so much cheaper than any
 * idle CPU that the saving is worth the wait: the profile says how long a task
 * may be kept from running to save all of its energy, and a wait must be
 * shorter than that times the part saved. How long it will be is told by what
 * runs there and for how long that does so on average. This is what keeps threads that pass
 * messages on one CPU, whose waker is about to sleep, and light work off
 * clusters that are asleep or wasteful. A task that waits by choice is not
 * fetched by other groups and wakes nobody until its time is over; then the
 * next tick of its group sees to it (queue.bpf.h).
 * While there is little to do, one group does it all, and tasks wait for that one
 * (home.bpf.h).
 * Where CPUs start slowly nobody waits: who has waited is fetched by whichever CPU
 * is free, to begin anew there.
 *
 * Cost: one pass over the groups (not the CPUs), or over a few of each class
 * where that has many; idle CPUs come from the kernel's idle mask.
 *
 * Concurrency: loads are read without a lock and may be one update old. A task waits by
 * choice only beside a CPU that is seen busy under its run queue's lock, which
 * is held until the kernel has put the task into the queue and again when that
 * CPU looks there, before it idles.
 */
#ifndef __JOULE_PLACE_BPF_H
#define __JOULE_PLACE_BPF_H

/* The best group in each of two respects; JOULE_NO_GROUP where none qualifies. */
struct choice {
	u32 cheapest; /* among those that the task fits */
	u32 biggest;  /* among those that it does not fit, but may use */
	u64 price;
};

#define NO_CHOICE (struct choice){JOULE_NO_GROUP, JOULE_NO_GROUP, ~0ULL}

static __always_inline void consider(struct choice *choice, u32 group, bool fitting, u64 price)
{
	if (!fitting) {
		/* Of two alike the last one, as groups ascend by capacity. */
		if (group_offers(group) >= group_offers(choice->biggest))
			choice->biggest = group;
	} else if (price < choice->price) {
		choice->price = price;
		choice->cheapest = group;
	}
}

static __always_inline u32 decision(const struct choice *choice)
{
	return choice->cheapest != JOULE_NO_GROUP ? choice->cheapest : choice->biggest;
}

/* What the published table decides, what the prior would have, and who could be asked instead. */
struct survey {
	struct choice idle; /* groups with an idle CPU */
	struct choice idle_by_prior;
	struct choice waiting; /* all groups, for a task that waits for a busy CPU there */
	u64 asked;	       /* groups, which may not all be big enough */
	u64 beside_waker;      /* price of waiting for the waker to sleep; ~0 when it does not */
	u64 generation;	       /* of the table in use */
	struct demand demand;
	u32 waker_group; /* JOULE_NO_GROUP when the waker does not sleep */
	u32 home;	 /* the group for all of a light load; JOULE_NO_GROUP: none */
	u32 probe;	 /* a group of the class to be tried, with an idle CPU and big enough */
	u32 slot;	 /* table in use */
	bool waker_room; /* whether a CPU of the waker's group idles */
	bool lent;	 /* whether the task may be taken elsewhere than where it is cheapest */
	bool compare;	 /* with the prior, which doubles the cost; it is taken to agree else */
};

/* For how long the group, of which this CPU is at work, is likely to have no CPU free. */
static __always_inline u64 busy_for_ns(u32 group, s32 cpu, u64 now)
{
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	return cctx ? left_ns(cctx->free_at, now) / max_u32(group_busy_cpus(group), 1) : 0;
}

/* Whether the task fits CPUs of the group. */
static __always_inline bool fits(const struct demand *demand, u32 group)
{
	u32 least_cap = group == demand->group ? demand->staying_cap : demand->fitting_cap;

	return least_cap <= group_offers(group);
}

/* When the task, which has to wait in the group, will have done what it does on average, ns from
 * now. */
static __noinline u64 done_in_ns(const struct demand *demand, u32 group)
{
	u64 busy_ns = busy_for_ns(group, last_busy_cpu(group), demand->now);

	return done_after_ns(busy_ns, group_waiting(group), demand->work_ns, group_offers(group));
}

/*
 * Of the groups asked, the one that will have done first what the task does, as no CPU is idle. A
 * global function, verified once.
 */
__weak u32 soonest_group(struct task_struct *p __arg_trusted, const struct survey *survey)
{
	struct choice choice = NO_CHOICE;
	u64 groups;

	if (!survey)
		return JOULE_NO_GROUP;
	for (groups = survey->asked; groups && can_loop; groups &= groups - 1) {
		u32 group = lowest_bit(groups);

		if (may_use(p, group))
			consider(&choice, group, fits(&survey->demand, group),
				 done_in_ns(&survey->demand, group));
	}
	return decision(&choice);
}

/*
 * A task is lent to learning where it needs at most this part of what a CPU offers: who needs
 * more would be late before the clock has risen, and the small ones tell as much.
 */
#define PROBE_ROOM 2

/*
 * Prices a group for the task, with an idle CPU or without. A global function:
 * verified once, where the loop around it would be with every order of prices,
 * which is too much for Linux 6.18.
 */
__weak int survey_group(struct task_struct *p __arg_trusted,
			const struct cpumask *idle_cpus __arg_trusted, u32 group,
			struct survey *survey)
{
	const struct cpumask *cpus = cpus_of_group(group);
	u64 running = 0, by_prior = 0, waking = 0;
	bool stays, fitting, priced;

	if (!survey || !cpus || !may_use(p, group))
		return 0;
	stays = group == survey->demand.group;
	fitting = fits(&survey->demand, group);
	/* One that is asked alone needs no price where nobody waits by choice. */
	priced = fitting && (survey->asked & (survey->asked - 1) || !starts_slowly(group));
	if (priced)
		running = running_uw(group, survey->slot, &survey->demand);
	if (priced && survey->compare)
		by_prior = running_uw(group, JOULE_STATIC_SLOT, &survey->demand);
	if (stays) {
		u32 hysteresis_pct = settings.hysteresis_pct;

		if (starts_slowly(group))
			hysteresis_pct += COLD_START_PCT;
		running -= running * hysteresis_pct / 100;
		by_prior -= by_prior * hysteresis_pct / 100;
	}
	consider(&survey->waiting, group, fitting, running);
	if (fitting && group == survey->waker_group)
		survey->beside_waker = running;
	if (!bpf_cpumask_intersects(cpus, idle_cpus))
		return 0;
	if (group == survey->waker_group)
		survey->waker_room = true;
	if (priced)
		waking = waking_uw(group, survey->slot, &survey->demand);
	consider(&survey->idle, group, fitting, running + waking);
	if (survey->compare)
		consider(&survey->idle_by_prior, group, fitting, by_prior + waking);
	if (fitting && survey->lent && group_class(group) == probe_class &&
	    time_before(survey->demand.now, probe_until) && survey->slot != JOULE_STATIC_SLOT &&
	    survey->demand.need_cap <= group_offers(group) / PROBE_ROOM)
		survey->probe = group;
	return 0;
}

/*
 * Who wakes after less than twice the profile's patience does not wait at home: one that sleeps for
 * a fixed time and runs again would do so much less work.
 */
#define SLEEPS_OF_PATIENCE 2

/* The home (home.bpf.h) of this task, if it has one now; else JOULE_NO_GROUP. */
static u32 home_of(const struct task_struct *p, const struct demand *demand, u32 slot,
		   const struct cpumask *idle_cpus)
{
	u64 often_ns = SLEEPS_OF_PATIENCE * 1000ULL * settings.patience_us;
	const struct cpumask *cpus;
	u32 home;

	if (!may_use_all(p))
		return JOULE_NO_GROUP;
	home = home_for(demand->fitting_cap, slot, demand->now);
	cpus = cpus_of_group(home);
	if (cpus && demand->interval_ns < often_ns && !bpf_cpumask_intersects(cpus, idle_cpus))
		return JOULE_NO_GROUP;
	return home;
}

/* Those of the class that the control loop wants tried now. */
static __always_inline u64 probed_groups(u64 now)
{
	return time_before(now, probe_until) ? groups_of_class(probe_class) : 0;
}

/*
 * The groups to ask. If there is a home: that one, one of which an interrupt has
 * waked a CPU for the task, and those to be tried. Where a class has many groups,
 * which are alike: the task's own, the one in which the waker is about to sleep,
 * and of each class the nearest one that is awake and the nearest that is asleep,
 * or, when it has no idle CPU, any. Where its memory is, an idle CPU is found first.
 * Not inlined: what it keeps would be on the stack beneath survey_group(), which has none to spare.
 */
static __noinline u64 groups_to_ask(const struct survey *survey)
{
	u32 own_group = survey->demand.group, waker_group = survey->waker_group;
	u64 asked = 0, full, awake, near;
	u32 class;

	if (survey->home < JOULE_MAX_GROUPS) {
		if (survey->demand.awake_group < JOULE_MAX_GROUPS)
			asked = group_bit(survey->demand.awake_group);
		return asked | group_bit(survey->home) | probed_groups(survey->demand.now);
	}
	if (!choosy)
		return all_groups();
	full = READ_ONCE(full_groups);
	awake = READ_ONCE(awake_groups);
	near = groups_of_node(own_group);
	if (own_group < JOULE_MAX_GROUPS)
		asked |= group_bit(own_group);
	if (waker_group < JOULE_MAX_GROUPS)
		asked |= group_bit(waker_group);
	/* Not bpf_for, whose steps are calls. */
	for (class = 0; class < JOULE_MAX_CLASSES && can_loop; class += 1) {
		u64 groups = groups_of_class(class), open;

		if (!groups)
			break;
		open = groups & ~full;
		open = open & near ? open & near : open;
		asked |= nearest_group(open & awake, own_group) |
			 nearest_group(open & ~awake, own_group);
		if (!open)
			asked |= nearest_bit(groups, bpf_get_prandom_u32());
	}
	return asked;
}

/* One placement in so many is held against the prior's. */
#define COMPARED_OF 16

static __always_inline bool comparison_is_due(void)
{
	struct cpu_ctx *cctx = cpu_ctx_of(bpf_get_smp_processor_id());

	return cctx && cctx->decisions++ % COMPARED_OF == 0;
}

/*
 * Prices groups for the task, which is up to date and wakes up or is queued. The survey says, of
 * groups or JOULE_NO_GROUP: whose the waker is, if about to sleep, and whose CPU has been waked.
 */
static void survey_groups(struct task_struct *p, const struct task_ctx *tctx, bool wakes, u64 now,
			  struct survey *survey)
{
	const struct cpumask *idle_cpus = scx_bpf_get_idle_cpumask();
	u32 need_cap = own_need(tctx);
	u64 groups;

	survey->demand = (struct demand){
		.need_cap = clamped(need_cap, tctx->least_cap, tctx->most_cap),
		.fitting_cap = fitting_cap(tctx, need_cap, false),
		.staying_cap = fitting_cap(tctx, need_cap, true),
		.pace_cap = tctx->pace_cap,
		.group = tctx->group,
		.awake_group = survey->demand.awake_group,
		.util = tctx->util,
		.interval_ns = tctx->interval_ns,
		.work_ns = work_of(tctx->run_ns * tctx->pace_cap),
		.now = now,
	};
	survey->idle = survey->idle_by_prior = survey->waiting = NO_CHOICE;
	survey->probe = JOULE_NO_GROUP;
	survey->beside_waker = ~0ULL;
	survey->waker_room = false;
	survey->slot = current_slot(now);
	survey->generation = table_generation(survey->slot);
	survey->compare = survey->slot != JOULE_STATIC_SLOT && comparison_is_due();
	survey->home = JOULE_NO_GROUP;
	/*
	 * Whom a user's clamp keeps small goes by prices: it may use more than it is taken for,
	 * never sleep again, and stay where it is.
	 */
	survey->lent = tctx->most_cap >= CAPACITY_SCALE;
	if (wakes && survey->lent)
		survey->home = home_of(p, &survey->demand, survey->slot, idle_cpus);
	survey->asked = groups_to_ask(survey);
	for (groups = survey->asked; groups && can_loop; groups &= groups - 1)
		survey_group(p, idle_cpus, lowest_bit(groups), survey);
	/* What looked asleep may have been claimed by others, and not be awake yet. */
	if (choosy && survey->home == JOULE_NO_GROUP && decision(&survey->idle) == JOULE_NO_GROUP) {
		u32 group = group_of_cpu(bpf_cpumask_any_and_distribute(idle_cpus, p->cpus_ptr));

		if (group < JOULE_MAX_GROUPS)
			survey_group(p, idle_cpus, group, survey);
	}
	if (survey->compare && survey->home < JOULE_MAX_GROUPS) {
		u32 home = home_for(survey->demand.fitting_cap, JOULE_STATIC_SLOT, now);

		if (home < JOULE_MAX_GROUPS)
			survey->idle_by_prior.cheapest = home;
	}
	scx_bpf_put_idle_cpumask(idle_cpus);
	if (table_generation(survey->slot) != survey->generation)
		count(JOULE_TABLES_MIXED);
}

/* A waker that says it is about to sleep takes this long to do so. */
#define SYNC_WAIT_NS 100000

/*
 * A task waits for this part of the time between two of its wake-ups at most,
 * as one that sleeps for a fixed time and runs again would do so much less work;
 * and for so many times as long as it runs for.
 */
#define MOST_OF_INTERVAL 8
#define MOST_OF_RUN 4

/*
 * How long a task should at most wait in the group's queue at the price
 * `waiting_uw` rather than take an idle CPU at `at_once_uw`, when a CPU is likely
 * to be free after `busy_ns`; never for more than `most_ns`. 0: not at all. A
 * global function, verified once: inside its caller it multiplied the verifier's
 * states.
 */
__weak u64 worth_waiting_ns(u32 group, u64 at_once_uw, u64 waiting_uw, u64 busy_ns, u64 most_ns)
{
	u32 patience_us = settings.patience_us;
	u64 allowed;

	if (waiting_uw >= at_once_uw || starts_slowly(group))
		return 0;
	patience_us -= (u64)patience_us * group_guard(group) / GUARD_MOST;
	allowed = allowed_wait_ns(at_once_uw, waiting_uw, patience_us);
	allowed = min_u64(allowed, most_ns);
	return busy_ns <= allowed ? allowed : 0;
}

/* A CPU of the group that a task can wait for, as it is at work; negative when none is known. */
static __always_inline s32 busy_cpu_in(u32 group, s32 prev_cpu)
{
	s32 cpu = bpf_get_smp_processor_id();

	if (is_busy_in(group, cpu))
		return cpu;
	if (is_busy_in(group, prev_cpu))
		return prev_cpu;
	cpu = last_busy_cpu(group);
	return is_busy_in(group, cpu) ? cpu : -ENOENT;
}

/*
 * The CPU, at work, in whose group's queue the task should wait rather than take
 * an idle CPU, and for how long at most; negative when it should not. At home it
 * waits where no CPU idles, though others do elsewhere. Beside a
 * waker that goes to sleep it may wait behind others, if a CPU of that group idles behind one for
 * each that does not; else it would have to be the first. Only a task that any CPU of the group may
 * run can rely on being fetched.
 */
static __always_inline s32 wait_where(const struct task_struct *p, const struct task_ctx *tctx,
				      const struct survey *survey, s32 prev_cpu, u64 now,
				      u64 *patience_ns)
{
	u32 waker_group = survey->waker_group, group = survey->waiting.cheapest;
	u64 at_once = survey->idle.price, most_ns;
	s32 cpu = bpf_get_smp_processor_id();

	if (!may_use_all(p))
		return -ENOENT;
	if (survey->idle.cheapest == JOULE_NO_GROUP) {
		*patience_ns = settings.patience_us * 1000ULL;
		return survey->home < JOULE_MAX_GROUPS ? busy_cpu_in(survey->home, prev_cpu)
						       : -ENOENT;
	}
	if (is_busy_in(waker_group, cpu) &&
	    !(survey->waker_room && group_waiting(waker_group) >= group_busy_cpus(waker_group))) {
		u64 busy_ns = SYNC_WAIT_NS * (group_waiting(waker_group) + 1);

		*patience_ns = worth_waiting_ns(waker_group, at_once, survey->beside_waker, busy_ns,
						~0ULL);
		if (*patience_ns)
			return cpu;
	}
	most_ns = min_u64(tctx->interval_ns / MOST_OF_INTERVAL, MOST_OF_RUN * tctx->run_ns);
	if (survey->waiting.price >= at_once || group_waiting(group))
		return -ENOENT;
	cpu = busy_cpu_in(group, prev_cpu);
	if (cpu < 0)
		return -ENOENT;
	*patience_ns = worth_waiting_ns(group, at_once, survey->waiting.price,
					busy_for_ns(group, cpu, now), most_ns);
	return *patience_ns ? cpu : -ENOENT;
}

static __always_inline s32 any_cpu_in(struct task_struct *p, u32 group, s32 prev_cpu)
{
	const struct cpumask *cpus = cpus_of_group(group);
	s32 cpu;

	if (!cpus || group_of_cpu(prev_cpu) == group)
		return prev_cpu;
	cpu = bpf_cpumask_any_and_distribute(cpus, p->cpus_ptr);
	return cpu < topology.nr_cpus ? cpu : prev_cpu;
}

/* Whether the CPU of the group is busy with a task that needs less, and may go elsewhere. */
static __always_inline bool runs_less(s32 cpu, u32 group, u32 need_cap)
{
	const struct cpu_ctx *cctx = cpu_ctx_of(cpu);

	return cctx && is_busy_in(group, cpu) && cctx->run_need < need_cap;
}

/*
 * A CPU of a group that the task fits, on which one runs that needs less than three quarters of
 * what it needs and may go elsewhere; negative when two looks at each group find none. Who hardly
 * ever sleeps does not take places: it would send away all that do. Nobody is sent away where CPUs
 * start slowly. A global function, verified once.
 */
__weak int cpu_of_lesser(struct task_struct *p __arg_trusted, const struct task_ctx *tctx)
{
	u32 less_cap, least_cap, group;
	s32 cpu;

	if (!tctx || !may_use_all(p) || 8 * tctx->run_ns >= 7 * tctx->interval_ns)
		return -ENOENT;
	less_cap = task_need(tctx) * 3 / 4;
	least_cap = fitting_cap(tctx, own_need(tctx), false);
	bpf_for (group, 0, topology.nr_groups) {
		const struct cpumask *cpus = cpus_of_group(group);

		if (!cpus || starts_slowly(group) || least_cap > group_offers(group))
			continue;
		cpu = last_busy_cpu(group);
		if (runs_less(cpu, group, less_cap))
			return cpu;
		cpu = bpf_cpumask_any_and_distribute(cpus, p->cpus_ptr);
		if (runs_less(cpu, group, less_cap))
			return cpu;
	}
	return -ENOENT;
}

/*
 * The group of this CPU, if its interrupts wake the task wherever that runs; else JOULE_NO_GROUP,
 * as where CPUs start slowly: what the task ran on keeps its clock up for it.
 */
static __always_inline u32 waked_in_group(const struct task_struct *p, struct task_ctx *tctx,
					  s32 prev_cpu)
{
	s32 cpu = bpf_get_smp_processor_id();
	u32 group = group_of_cpu(cpu);

	if (!is_idle(cpu) || starts_slowly(group) || !may_use_all(p))
		tctx->waked_by = 0;
	else if (tctx->waked_by != cpu + 1)
		tctx->waked_by = cpu == prev_cpu ? 0 : cpu + 1;
	return tctx->waked_by ? group : JOULE_NO_GROUP;
}

/* Claims this CPU, which an interrupt has waked, if the group is its; negative if it is not. */
static __always_inline s32 claim_awake(const struct survey *survey, u32 group)
{
	s32 cpu = bpf_get_smp_processor_id();

	return group == survey->demand.awake_group && core_is_idle(cpu) &&
			       scx_bpf_test_and_clear_cpu_idle(cpu)
		       ? cpu
		       : -ENOENT;
}

struct place {
	s32 cpu; /* claimed when idle, else any allowed CPU of the group */
	bool idle;
};

/* Chooses and, if it can, claims a CPU for a waking task. */
static struct place place_task(struct task_struct *p, struct task_ctx *tctx, s32 prev_cpu,
			       u64 wake_flags, u64 now)
{
	struct place place = {.cpu = prev_cpu};
	struct survey survey;
	u64 patience_ns;
	bool probing;
	u32 group;
	s32 cpu;

	util_rest(tctx, now);
	survey.waker_group = JOULE_NO_GROUP;
	if (wake_flags & SCX_WAKE_SYNC)
		survey.waker_group = group_of_cpu(bpf_get_smp_processor_id());
	survey.demand.awake_group = waked_in_group(p, tctx, prev_cpu);
	survey_groups(p, tctx, true, now, &survey);

	group = decision(&survey.idle);
	probing = survey.probe != JOULE_NO_GROUP && survey.probe != group;
	if (probing)
		group = survey.probe;
	cpu = probing ? -ENOENT : wait_where(p, tctx, &survey, prev_cpu, now, &patience_ns);
	if (cpu >= 0) {
		tctx->patient_until = now + patience_ns;
		count(JOULE_PLACED_WAITING);
		place.cpu = cpu;
		return place;
	}
	/* Only CPUs that are too small for it idle; those that it fits are busy. */
	if (survey.idle.cheapest == JOULE_NO_GROUP && group < JOULE_MAX_GROUPS &&
	    survey.waiting.cheapest != JOULE_NO_GROUP) {
		cpu = cpu_of_lesser(p, tctx);
		if (cpu >= 0) {
			tctx->takes_cpu = cpu + 1;
			place.cpu = cpu;
			return place;
		}
	}
	if (group < JOULE_MAX_GROUPS) {
		cpu = claim_awake(&survey, group);
		if (cpu < 0 && !probing)
			cpu = claim_seat(p, tctx, group, now);
		if (cpu < 0)
			cpu = claim_idle(p, tctx, group, prev_cpu, survey.demand.need_cap, now);
		if (cpu >= 0) {
			if (probing)
				count(JOULE_PROBES);
			else if (survey.compare && group != decision(&survey.idle_by_prior))
				count_several(JOULE_PLACED_STEERED, COMPARED_OF);
			count(JOULE_PLACED_IDLE);
			place.cpu = cpu;
			place.idle = true;
			return place;
		}
	}
	/* No idle CPU, or another waker was faster. */
	count(JOULE_PLACED_BUSY);
	group = soonest_group(p, &survey);
	if (group < JOULE_MAX_GROUPS)
		place.cpu = any_cpu_in(p, group, prev_cpu);
	return place;
}

/*
 * Wakes an idle CPU for queued work, where that work is cheapest; false when there is
 * none. It need not be of the queue's group: its dispatch fetches from other queues too.
 */
static bool kick_for(struct task_struct *p, struct task_ctx *tctx, u64 now)
{
	struct survey survey;
	u32 group;
	s32 cpu;

	if (!some_cpu_is_idle())
		return false;
	util_rest(tctx, now);
	survey.waker_group = JOULE_NO_GROUP;
	survey.demand.awake_group = JOULE_NO_GROUP;
	survey_groups(p, tctx, false, now, &survey);
	group = decision(&survey.idle);
	if (group >= JOULE_MAX_GROUPS)
		return false;
	cpu = claim_idle(p, tctx, group, scx_bpf_task_cpu(p), survey.demand.need_cap, now);
	if (cpu < 0)
		return false;
	kick(cpu);
	if (survey.compare && group != decision(&survey.idle_by_prior))
		count_several(JOULE_KICKS_STEERED, COMPARED_OF);
	return true;
}

#endif /* __JOULE_PLACE_BPF_H */
