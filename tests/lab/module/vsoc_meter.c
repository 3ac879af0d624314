// SPDX-License-Identifier: GPL-2.0
/*
 * The energy meters a kernel could have: perf PMU "power" and powercap
 * "intel-rapl", as RAPL shows itself, and hwmon; and their faults.
 *
 *   PMU power        energy-pkg (event 2), energy-cores (1), 2^-32 J, CPU 0
 *   intel-rapl:0     package-0; intel-rapl:0:0 core; uJ
 *   hwmon vsoc       energy1 package; energy2.. one per cluster, shared part in; uJ
 *
 * package: all.  cores: without the clusters' shared, sleep and wake-up
 * energy and without the floor.
 *
 * A meter shows, per domain, the sum of the truth's increments between its
 * reads, with its faults applied to each increment: the faults never
 * reach the truth, and a meter without faults equals the truth to the
 * picojoule.  Real meters also update only every millisecond or so; these
 * are always fresh.
 */
#define pr_fmt(fmt) "vsoc: " fmt
#include <linux/hwmon.h>
#include <linux/math64.h>
#include <linux/perf_event.h>
#include <linux/platform_device.h>
#include <linux/powercap.h>
#include <linux/slab.h>
#include "vsoc.h"

#define PJ_PER_UJ	1000000ULL
#define MAX_DOMAINS	(VSOC_CLUSTER0 + VSOC_MAX_CLUSTERS)
/* what most Intel machines say; also a wrap no run of ours reaches */
#define RAPL_RANGE_UJ	262143328850ULL

const char * const vsoc_meter_name[VSOC_NR_METERS] = { "pmu", "powercap", "hwmon" };

static struct meter {
	raw_spinlock_t lock;
	bool offered, frozen, fail;
	u32 noise_pm;
	u64 random;			/* xorshift64 state */
	u64 wrap_uj;			/* 0: the meter's own range */
	u64 seen_pj[MAX_DOMAINS];	/* truth at the last read */
	u64 shown_pj[MAX_DOMAINS];
} meters[VSOC_NR_METERS] = {
	[0 ... VSOC_NR_METERS - 1] = {
		.lock = __RAW_SPIN_LOCK_UNLOCKED(meters.lock), .random = 1 },
};

static u64 xorshift(u64 *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* Take the truth in up to now; while frozen it waits, and comes all at once. */
static void meter_catch_up(struct meter *m, unsigned int domain, u64 truth)
{
	u64 pj;

	/* another reader may have been later in the truth and earlier here */
	if (m->frozen || truth <= m->seen_pj[domain])
		return;
	pj = truth - m->seen_pj[domain];
	m->seen_pj[domain] = truth;
	if (m->noise_pm) {
		u64 pm = 1000 - m->noise_pm + xorshift(&m->random) % (2 * m->noise_pm + 1);

		pj = mul_u64_u64_div_u64(pj, pm, 1000);
	}
	m->shown_pj[domain] += pj;
}

static u64 meter_pj(enum vsoc_meter_id id, unsigned int domain)
{
	struct meter *m = &meters[id];
	u64 pj, truth = vsoc_energy_pj(domain);
	unsigned long flags;

	raw_spin_lock_irqsave(&m->lock, flags);
	meter_catch_up(m, domain, truth);
	pj = m->shown_pj[domain];
	if (m->wrap_uj)
		div64_u64_rem(pj, m->wrap_uj * PJ_PER_UJ, &pj);
	raw_spin_unlock_irqrestore(&m->lock, flags);
	return pj;
}

/* ---- perf PMU ---- */

static u64 pmu_raw(u64 config)
{
	u64 pj = meter_pj(VSOC_PMU, config == 2 ? VSOC_PACKAGE : VSOC_CORES);

	return mul_u64_u64_div_u64(pj, 1ULL << 32, 1000000000000ULL);
}

static void pmu_update(struct perf_event *e)
{
	u64 now = pmu_raw(e->attr.config);
	u64 before = local64_xchg(&e->hw.prev_count, now);

	local64_add(now - before, &e->count);
}

static void pmu_start(struct perf_event *e, int flags)
{
	local64_set(&e->hw.prev_count, pmu_raw(e->attr.config));
}

static void pmu_stop(struct perf_event *e, int flags)
{
	pmu_update(e);
}

static int pmu_add(struct perf_event *e, int flags)
{
	if (flags & PERF_EF_START)
		pmu_start(e, flags);
	return 0;
}

static void pmu_del(struct perf_event *e, int flags)
{
	pmu_stop(e, flags);
}

static int pmu_event_init(struct perf_event *e)
{
	if (e->attr.type != e->pmu->type)
		return -ENOENT;
	if (e->cpu < 0 || e->attr.sample_period || (e->attr.config != 1 && e->attr.config != 2))
		return -EINVAL;
	e->cpu = 0;
	return 0;
}

static ssize_t event_show(struct device *dev, struct device_attribute *attr, char *to)
{
	return sysfs_emit(to, "%s\n",
			  container_of(attr, struct perf_pmu_events_attr, attr)->event_str);
}

#define EVENT(var, file, text)					\
	static struct perf_pmu_events_attr var = {		\
		.attr = __ATTR(file, 0444, event_show, NULL),	\
		.event_str = text,				\
	}
EVENT(pkg, energy-pkg, "event=0x02");
EVENT(pkg_scale, energy-pkg.scale, "2.3283064365386962890625e-10");
EVENT(pkg_unit, energy-pkg.unit, "Joules");
EVENT(cores, energy-cores, "event=0x01");
EVENT(cores_scale, energy-cores.scale, "2.3283064365386962890625e-10");
EVENT(cores_unit, energy-cores.unit, "Joules");
EVENT(format, event, "config:0-7");
EVENT(mask, cpumask, "0");

static struct attribute *event_attrs[] = {
	&pkg.attr.attr, &pkg_scale.attr.attr, &pkg_unit.attr.attr,
	&cores.attr.attr, &cores_scale.attr.attr, &cores_unit.attr.attr, NULL
};
static struct attribute *format_attrs[] = { &format.attr.attr, NULL };
static struct attribute *mask_attrs[] = { &mask.attr.attr, NULL };
static const struct attribute_group event_group = { .name = "events", .attrs = event_attrs };
static const struct attribute_group format_group = { .name = "format", .attrs = format_attrs };
static const struct attribute_group mask_group = { .attrs = mask_attrs };
static const struct attribute_group *pmu_groups[] = {
	&event_group, &format_group, &mask_group, NULL
};

static struct pmu *power_pmu;

/*
 * A new object for each registration, never freed: events that outlive the
 * unregistration still point to the old one.
 */
static int pmu_offer(bool offer)
{
	int r;

	if (!offer) {
		perf_pmu_unregister(power_pmu);
		power_pmu = NULL;
		return 0;
	}
	power_pmu = kzalloc(sizeof(*power_pmu), GFP_KERNEL);
	if (!power_pmu)
		return -ENOMEM;
	*power_pmu = (struct pmu) {
		.module = THIS_MODULE,
		.attr_groups = pmu_groups,
		.task_ctx_nr = perf_invalid_context,
		.capabilities = PERF_PMU_CAP_NO_INTERRUPT | PERF_PMU_CAP_NO_EXCLUDE,
		.event_init = pmu_event_init,
		.add = pmu_add,
		.del = pmu_del,
		.start = pmu_start,
		.stop = pmu_stop,
		.read = pmu_update,
	};
	r = perf_pmu_register(power_pmu, "power", -1);
	if (r == -EEXIST)
		pr_err("a PMU power exists (PERF_EVENTS_INTEL_RAPL?)\n");
	return r;
}

/* ---- powercap ---- */

#if IS_REACHABLE(CONFIG_POWERCAP)
static struct powercap_control_type *rapl;
static struct powercap_zone *package_zone, *core_zone;

static int zone_range(struct powercap_zone *z, u64 *uj)
{
	*uj = meters[VSOC_POWERCAP].wrap_uj ?: RAPL_RANGE_UJ;
	return 0;
}

static int zone_energy(struct powercap_zone *z, u64 *uj)
{
	if (meters[VSOC_POWERCAP].fail)
		return -EIO;
	*uj = div64_u64(meter_pj(VSOC_POWERCAP, (uintptr_t)powercap_get_zone_data(z)),
			PJ_PER_UJ) % RAPL_RANGE_UJ;
	return 0;
}

static int zone_release(struct powercap_zone *z)
{
	return 0;
}

/* the core calls through these even where a zone has no constraint */
static int constraint_set(struct powercap_zone *z, int i, u64 v)
{
	return -EOPNOTSUPP;
}

static int constraint_get(struct powercap_zone *z, int i, u64 *v)
{
	return -EOPNOTSUPP;
}

static const char *constraint_name(struct powercap_zone *z, int i)
{
	return NULL;
}

static const struct powercap_zone_constraint_ops constraint_ops = {
	.set_power_limit_uw = constraint_set,
	.get_power_limit_uw = constraint_get,
	.set_time_window_us = constraint_set,
	.get_time_window_us = constraint_get,
	.get_name = constraint_name,
};

static const struct powercap_zone_ops zone_ops = {
	.get_max_energy_range_uj = zone_range,
	.get_energy_uj = zone_energy,
	.release = zone_release,
};

static struct powercap_zone *add_zone(const char *name, struct powercap_zone *parent,
				      uintptr_t domain)
{
	struct powercap_zone *z = powercap_register_zone(NULL, rapl, name, parent, &zone_ops, 0,
							 &constraint_ops);

	if (!IS_ERR(z))
		powercap_set_zone_data(z, (void *)domain);
	return z;
}

static int powercap_offer(bool offer)
{
	if (!offer) {
		powercap_unregister_zone(rapl, core_zone);
		powercap_unregister_zone(rapl, package_zone);
		return 0;
	}
	if (!rapl) {
		struct powercap_control_type *t =
			powercap_register_control_type(NULL, "intel-rapl", NULL);

		if (IS_ERR(t))
			return PTR_ERR(t);
		rapl = t;
	}
	package_zone = add_zone("package-0", NULL, VSOC_PACKAGE);
	if (IS_ERR(package_zone))
		return PTR_ERR(package_zone);
	core_zone = add_zone("core", package_zone, VSOC_CORES);
	if (IS_ERR(core_zone)) {
		powercap_unregister_zone(rapl, package_zone);
		return PTR_ERR(core_zone);
	}
	return 0;
}
#else
static int powercap_offer(bool offer) { return -ENODEV; }
#endif

/* ---- hwmon ---- */

#if IS_REACHABLE(CONFIG_HWMON)
static struct platform_device *platform;
static struct device *hwmon;
static u32 hwmon_config[VSOC_MAX_CLUSTERS + 2];
static const struct hwmon_channel_info energy_channels = {
	.type = hwmon_energy, .config = hwmon_config
};
static const struct hwmon_channel_info * const hwmon_channels[] = { &energy_channels, NULL };

static umode_t hwmon_visible(const void *data, enum hwmon_sensor_types type, u32 attr, int channel)
{
	return 0444;
}

static unsigned int hwmon_domain(int channel)
{
	return channel ? VSOC_CLUSTER0 + channel - 1 : VSOC_PACKAGE;
}

static int hwmon_read(struct device *dev, enum hwmon_sensor_types type, u32 attr, int channel,
		      long *uj)
{
	if (meters[VSOC_HWMON].fail)
		return -EIO;
	*uj = div64_u64(meter_pj(VSOC_HWMON, hwmon_domain(channel)), PJ_PER_UJ);
	return 0;
}

static int hwmon_label(struct device *dev, enum hwmon_sensor_types type, u32 attr, int channel,
		       const char **label)
{
	*label = channel ? vsoc->cluster[channel - 1].name : "package";
	return 0;
}

static const struct hwmon_ops vsoc_hwmon_ops = {
	.is_visible = hwmon_visible, .read = hwmon_read, .read_string = hwmon_label
};
static const struct hwmon_chip_info vsoc_chip = {
	.ops = &vsoc_hwmon_ops, .info = hwmon_channels
};

static int hwmon_offer(bool offer)
{
	int i;

	if (!offer) {
		hwmon_device_unregister(hwmon);
		return 0;
	}
	if (!platform) {
		struct platform_device *p =
			platform_device_register_simple("vsoc", PLATFORM_DEVID_NONE, NULL, 0);

		if (IS_ERR(p))
			return PTR_ERR(p);
		platform = p;
	}
	for (i = 0; i <= vsoc->nr_clusters; i++)
		hwmon_config[i] = HWMON_E_INPUT | HWMON_E_LABEL;
	hwmon = hwmon_device_register_with_info(&platform->dev, "vsoc", NULL, &vsoc_chip, NULL);
	return PTR_ERR_OR_ZERO(hwmon);
}
#else
static int hwmon_offer(bool offer) { return -ENODEV; }
#endif

/* ---- all three; callers hold vsoc_setup_lock ---- */

static int (* const offers[VSOC_NR_METERS])(bool) = { pmu_offer, powercap_offer, hwmon_offer };

bool vsoc_meter_built(enum vsoc_meter_id id)
{
	return id == VSOC_PMU ||
	       (id == VSOC_POWERCAP && IS_REACHABLE(CONFIG_POWERCAP)) ||
	       (id == VSOC_HWMON && IS_REACHABLE(CONFIG_HWMON));
}

int vsoc_meter_offer(enum vsoc_meter_id id, bool offer)
{
	int r;

	if (meters[id].offered == offer)
		return 0;
	r = offers[id](offer);
	if (r)
		pr_err("meter %s: %d\n", vsoc_meter_name[id], r);
	else
		meters[id].offered = offer;
	return r;
}

int vsoc_meters_register(void)
{
	int id, r;

	for (id = 0; id < VSOC_NR_METERS; id++) {
		if (!vsoc_meter_built(id))
			continue;
		r = vsoc_meter_offer(id, true);
		if (r)
			return r;
	}
	return 0;
}

static unsigned int nr_domains(void)
{
	return VSOC_CLUSTER0 + vsoc->nr_clusters;
}

/* A fault begins or ends at the time of the call, not at the next read. */
static void meter_settle(enum vsoc_meter_id id)
{
	unsigned int d;

	for (d = 0; d < nr_domains(); d++)
		meter_pj(id, d);
}

void vsoc_meter_freeze(enum vsoc_meter_id id, bool on)
{
	meter_settle(id);
	WRITE_ONCE(meters[id].frozen, on);
}

void vsoc_meter_fail(enum vsoc_meter_id id, bool on)
{
	WRITE_ONCE(meters[id].fail, on);
}

void vsoc_meter_wrap(enum vsoc_meter_id id, u64 uj)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&meters[id].lock, flags);
	meters[id].wrap_uj = uj;
	raw_spin_unlock_irqrestore(&meters[id].lock, flags);
}

void vsoc_meter_step(enum vsoc_meter_id id, u64 uj, bool back)
{
	struct meter *m = &meters[id];
	unsigned long flags;
	unsigned int d;

	meter_settle(id);
	raw_spin_lock_irqsave(&m->lock, flags);
	for (d = 0; d < nr_domains(); d++) {
		if (back)
			m->shown_pj[d] -= min(m->shown_pj[d], uj * PJ_PER_UJ);
		else
			m->shown_pj[d] += uj * PJ_PER_UJ;
	}
	raw_spin_unlock_irqrestore(&m->lock, flags);
}

void vsoc_meter_noise(enum vsoc_meter_id id, u32 pm, u64 seed)
{
	struct meter *m = &meters[id];
	unsigned long flags;

	meter_settle(id);
	raw_spin_lock_irqsave(&m->lock, flags);
	m->noise_pm = pm;
	m->random = seed ?: 1;		/* xorshift's 0 stays 0 */
	raw_spin_unlock_irqrestore(&m->lock, flags);
}

void vsoc_meters_show(struct seq_file *s)
{
	int id;

	for (id = 0; id < VSOC_NR_METERS; id++) {
		const struct meter *m = &meters[id];

		if (vsoc_meter_built(id))
			seq_printf(s, "meter %s offered %d frozen %d fail %d noise %u wrap %llu\n",
				   vsoc_meter_name[id], m->offered, m->frozen, m->fail,
				   m->noise_pm, m->wrap_uj);
	}
}
