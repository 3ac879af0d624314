//! The scheduler's integer mathematics (src/bpf/policy.bpf.h), compiled for this machine, so that the
//! tests of this crate can hold it against floating point.

mod ffi;

/// The capacity of the biggest CPU at its highest frequency.
pub const CAPACITY_SCALE: u32 = 1024;
/// Fractional bits of a utilisation.
pub const UTIL_SHIFT: u32 = 20;
/// Fractional bits of a share of the CPUs.
pub const SHARE_SHIFT: u32 = 10;
/// The time in which a utilisation decays to a half, ns.
pub const HALF_LIFE_NS: u64 = 1 << 25;
/// An estimate falls by a quarter of the difference where a task wakes this seldom or less often.
pub const EST_WHOLE_NS: u64 = 1 << 22;
/// Length of a cost row.
pub const MAX_OPPS: usize = 32;
/// The largest power in a sound row, uW.
pub const MAX_UW: u32 = 1_000_000_000;
/// The largest energy of a wake-up in a sound row, nJ.
pub const MAX_NJ: u32 = 1_000_000_000;
/// Number of need buckets.
pub const NEED_BUCKETS: u32 = 32;

/// What is left of `value` after `dt_ns`.
#[must_use]
pub fn decay(value: u64, dt_ns: u64) -> u64 {
    ffi::decay(value, dt_ns)
}

/// The utilisation after work that takes a CPU of full capacity `work_ns`.
#[must_use]
pub fn util_after(util: u64, work_ns: u64) -> u64 {
    ffi::util_after(util, work_ns)
}

/// What a CPU of full capacity would have needed, ns, for what a CPU delivered: its capacity times ns.
#[must_use]
pub fn work_of(delivered: u64) -> u64 {
    ffi::work_of(delivered)
}

/// The utilisation of a task that goes to sleep `lost_ns` after a CPU of full capacity would have let it.
#[must_use]
pub fn util_asleep(util: u64, lost_ns: u64) -> u64 {
    ffi::util_asleep(util, lost_ns)
}

/// The share, seen from outside of a cgroup, of what has `share` and `weight` inside, where all have `sum`.
#[must_use]
pub fn share_inside(share: u64, weight: u32, sum: i64, group_weight: u32) -> u64 {
    ffi::share_inside(share, weight, sum, group_weight)
}

/// What running for `ran_ns` costs a task of this share in virtual time, ns.
#[must_use]
pub fn virtual_ns(ran_ns: u64, share: u64) -> u64 {
    ffi::virtual_ns(ran_ns, share)
}

/// Where a task of this virtual time, ns, has its place in a queue that runs by `clock`, behind which it may be by
/// so much.
#[must_use]
pub fn vtime_by(clock: u64, vtime: u64, most_behind_ns: u64) -> u64 {
    ffi::vtime_by(clock, vtime, most_behind_ns)
}

/// A utilisation as a whole number on the capacity scale.
#[must_use]
pub fn util_cap(util: u64) -> u32 {
    ffi::util_cap(util)
}

/// The estimate after an activation that ended at `at_sleep_cap`, of a task that wakes every `interval_ns`; 0 is not
/// known.
#[must_use]
pub fn util_est_after(est_cap: u32, at_sleep_cap: u32, interval_ns: u64) -> u32 {
    ffi::util_est_after(est_cap, at_sleep_cap, interval_ns)
}

/// The mean capacity of the CPUs that a task ran on, after an activation of `ran_ns`, of which one of full
/// capacity would have saved `lost_ns`.
#[must_use]
pub fn pace_after(pace_cap: u32, ran_ns: u64, lost_ns: u64) -> u32 {
    ffi::pace_after(pace_cap, ran_ns, lost_ns)
}

/// The mean over activations, after one of `last`; 0 is not known.
#[must_use]
pub fn mean_after(mean: u64, last: u64) -> u64 {
    ffi::mean_after(mean, last)
}

/// The mean time between two wake-ups, after one of `last_ns`; 0 is not known.
#[must_use]
pub fn interval_after(mean_ns: u64, last_ns: u64) -> u64 {
    ffi::interval_after(mean_ns, last_ns)
}

/// How long something that should end at `end` is likely to go on at `now`.
#[must_use]
pub fn left_ns(end: u64, now: u64) -> u64 {
    ffi::left_ns(end, now)
}

/// The bucket that counts a need.
#[must_use]
pub fn need_bucket(need_cap: u32) -> u32 {
    ffi::need_bucket(need_cap)
}

/// The most that a task counted in `bucket` can need.
#[must_use]
pub fn bucket_cap(bucket: u32) -> u32 {
    ffi::bucket_cap(bucket)
}

/// Index of the highest set bit, 0 when none is.
#[must_use]
pub fn highest_bit(bits: u32) -> u32 {
    ffi::highest_bit(bits)
}

/// Index of the lowest set bit of a word that has one.
#[must_use]
pub fn lowest_bit(bits: u64) -> u32 {
    ffi::lowest_bit(bits)
}

/// The lowest bit alone that is set from bit `from` on, cyclically; 0 where none is.
#[must_use]
pub fn nearest_bit(bits: u64, from: u32) -> u64 {
    ffi::nearest_bit(bits, from)
}

/// Of some groups the nearest one to group `from`, given those under its cache and those in its memory node.
#[must_use]
pub fn nearest_of(groups: u64, same_cache: u64, same_node: u64, from: u32) -> u64 {
    ffi::nearest_of(groups, same_cache, same_node, from)
}

/// The capacity to ask for where `need_cap` is needed.
#[must_use]
pub fn with_headroom(need_cap: u32, headroom_pct: u32) -> u32 {
    ffi::with_headroom(need_cap, headroom_pct)
}

/// The bucket that counts a waiting time.
#[must_use]
pub fn delay_bucket(waited_ns: u64) -> u32 {
    ffi::delay_bucket(waited_ns)
}

/// When work of a CPU of full capacity will have been done by one of `capacity`, behind so many that wait.
#[must_use]
pub fn done_after_ns(busy_ns: u64, nr_waiting: u32, work_ns: u64, capacity: u32) -> u64 {
    ffi::done_after_ns(busy_ns, nr_waiting, work_ns, capacity)
}

/// What a task takes on average that runs for `run_ns` at `pace_cap` between two wake-ups; 0 is not known.
#[must_use]
pub fn usual_cap(run_ns: u64, pace_cap: u32, interval_ns: u64) -> u32 {
    ffi::usual_cap(run_ns, pace_cap, interval_ns)
}

/// What a task asks for to catch up, awake for so long; 0: it is not behind.
#[must_use]
pub fn catch_up_cap(awake_ns: u64, interval_ns: u64, capacity: u32, usual_cap: u32) -> u32 {
    ffi::catch_up_cap(awake_ns, interval_ns, capacity, usual_cap)
}

/// What a task needs that uses `used_cap` and used `est_cap` before.
#[must_use]
pub fn need_of(used_cap: u32, est_cap: u32) -> u32 {
    ffi::need_of(used_cap, est_cap)
}

/// The headroom that a group adds, in 1/1024 %, after one more wake-up, served by a CPU whose clock was at its top.
#[must_use]
pub fn guard_after(guard: u32, late: bool, at_top: bool) -> u32 {
    ffi::guard_after(guard, i32::from(late), i32::from(at_top))
}

/// What one of `nr_cpus` CPUs must offer under a load of `sum_cap`, `top_cap` of which is one task's.
#[must_use]
pub fn cpu_need(sum_cap: u32, top_cap: u32, nr_cpus: u32) -> u32 {
    ffi::cpu_need(sum_cap, top_cap, nr_cpus)
}

/// The power of an energy that is spent again and again.
#[must_use]
pub fn repeated_uw(nj: u32, interval_ns: u64) -> u64 {
    ffi::repeated_uw(nj, interval_ns)
}

/// How long a task may wait for a cheaper place.
#[must_use]
pub fn allowed_wait_ns(at_once_uw: u64, waiting_uw: u64, patience_us: u32) -> u64 {
    ffi::allowed_wait_ns(at_once_uw, waiting_uw, patience_us)
}

/// Whether a row with these energies of wake-ups may be used.
#[must_use]
pub fn wakes_are_sound(shallow_nj: u32, deep_nj: u32, group_nj: u32) -> bool {
    ffi::wakes_are_sound(shallow_nj, deep_nj, group_nj) != 0
}

/// A capacity within what users let a task count for.
#[must_use]
pub fn clamped(cap: u32, least_cap: u32, most_cap: u32) -> u32 {
    ffi::clamped(cap, least_cap, most_cap)
}

/// What work costs on one class of CPUs (`struct joule_cost_row`), valid or not.
#[derive(Clone, Debug)]
pub struct Row {
    /// How many entries of each column count.
    pub nr_opps: u32,
    /// Capacity of one CPU at the OPP.
    pub capacity: [u32; MAX_OPPS],
    /// Power of one busy CPU more, uW.
    pub busy_uw: [u32; MAX_OPPS],
    /// Power while any CPU is busy, uW.
    pub shared_uw: [u32; MAX_OPPS],
}

/// What a group of CPUs has to do (`struct load`), and under which rule it is clocked.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Utilisation of all tasks.
    pub sum_cap: u32,
    /// Need of the neediest task.
    pub top_cap: u32,
    /// CPUs of the group.
    pub nr_cpus: u32,
    /// Capacity asked for per capacity needed.
    pub headroom_pct: u32,
}

impl Row {
    /// The OPP chosen for `wanted_cap`.
    #[must_use]
    pub fn opp_for(&self, wanted_cap: u32) -> u32 {
        ffi::opp_for(
            self.nr_opps,
            &self.capacity,
            &self.busy_uw,
            &self.shared_uw,
            wanted_cap,
        )
    }

    /// The OPP at which a group runs for `wanted_cap`: the slowest that suffices, or a faster one where work is cheaper
    /// by a seventh.
    #[must_use]
    pub fn run_at(&self, wanted_cap: u32) -> u32 {
        ffi::run_at(
            self.nr_opps,
            &self.capacity,
            &self.busy_uw,
            &self.shared_uw,
            wanted_cap,
        )
    }

    /// The capacity to ask a governor for that takes the slowest OPP which offers it.
    #[must_use]
    pub fn cap_to_ask(&self, wanted_cap: u32) -> u32 {
        ffi::cap_to_ask(
            self.nr_opps,
            &self.capacity,
            &self.busy_uw,
            &self.shared_uw,
            wanted_cap,
        )
    }

    /// The OPP that a CPU which delivers `delivered_cap` is taken to be at.
    #[must_use]
    pub fn nearest_opp(&self, delivered_cap: u32) -> u32 {
        ffi::nearest_opp(
            self.nr_opps,
            &self.capacity,
            &self.busy_uw,
            &self.shared_uw,
            delivered_cap,
        )
    }

    /// Whether the row may be used.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        ffi::row_is_sound(self.nr_opps, &self.capacity, &self.busy_uw, &self.shared_uw) != 0
    }

    /// Power of a group of this class under a load, uW.
    #[must_use]
    pub fn group_power_uw(&self, load: &Load) -> u64 {
        ffi::group_power_uw(
            self.nr_opps,
            &self.capacity,
            &self.busy_uw,
            &self.shared_uw,
            load.sum_cap,
            load.top_cap,
            load.nr_cpus,
            load.headroom_pct,
        )
    }

    /// What a task adds to a group of this class whose CPUs have a clock each, uW.
    #[must_use]
    pub fn added_power_uw(&self, need_cap: u32, wanted_cap: u32, others_cap: u32) -> u64 {
        ffi::added_power_uw(
            self.nr_opps,
            &self.capacity,
            &self.busy_uw,
            &self.shared_uw,
            need_cap,
            wanted_cap,
            others_cap,
        )
    }
}
