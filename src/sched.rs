//! The only user of the scheduler's BPF skeleton: loads it, tells it the configuration, the machine
//! and the costs, reads its counters, and learns why it ended.
//!
//! The kernel gives the machine back to its default scheduler as soon as the last reference to the
//! attached scheduler goes, however this process ends.

mod events;

use crate::bpf_skel::{BpfSkel, BpfSkelBuilder, types};
use crate::config::Config;
use crate::intf;
use crate::observation::{
    Activity, Burst, CostTable, GroupActivity, IdleActivity, IdleCost, OppCost,
};
use crate::stats::Stats;
use crate::topology::Topology;
use crate::units::Nanos;
use anyhow::{Context, Result, anyhow, bail};
use crossbeam_channel::Receiver;
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject};
use scx_utils::{
    UserExitInfo, compat, scx_ops_attach, scx_ops_load, scx_ops_open, uei_exited, uei_read,
};
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::AsFd;

/// Slot of the prior's cost table.
const STATIC_SLOT: u32 = intf::joule_limits_JOULE_STATIC_SLOT;

/// Groups of a class up to which a wake-up asks all of them; of more, a few (`groups_to_ask` in place.bpf.h).
const ALL_OF_A_CLASS: u32 = 2;

/// How the scheduler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Stopped as asked, or unloaded by the kernel without fault.
    Stopped,
    /// The machine changed under it (hotplug): start again.
    Restart,
}

/// Memory that the BPF object lives in; it must outlive the [`Scheduler`].
pub type Storage = MaybeUninit<OpenObject>;

/// The attached scheduler.
pub struct Scheduler<'a> {
    skel: BpfSkel<'a>,
    link: libbpf_rs::Link,
    nr_groups: u32,
    /// The slot of the table published last.
    slot: u32,
}

impl<'a> Scheduler<'a> {
    /// Loads and attaches the scheduler, to costs and to what each group of the topology offers
    /// ([`Topology::offers`]) at first.
    ///
    /// # Errors
    /// When the kernel lacks sched_ext, the verifier refuses, another scheduler is attached, or the
    /// topology exceeds the limits of intf.h. The machine is then unchanged.
    pub fn attach(
        storage: &'a mut Storage,
        config: &Config,
        topology: &Topology,
        offers: &[u32],
        prior: &CostTable,
    ) -> Result<Self> {
        let mut builder = BpfSkelBuilder::default();
        builder.obj_builder.debug(config.verbose_bpf);
        let options: Option<libbpf_rs::libbpf_sys::bpf_object_open_opts> = None;
        let mut skel = scx_ops_open!(builder, storage, joule_ops, options)?;

        let rodata = skel.maps.rodata_data.as_mut();
        let rodata = rodata.ok_or_else(|| anyhow!("the BPF object has no constants"))?;
        rodata.settings = settings(config);
        rodata.topology = relations(topology)?;
        rodata.smt_enabled = topology.cpus.iter().any(|cpu| cpu.facts.siblings.len() > 1);
        let policies = topology.domains.iter().filter_map(|it| it.policy.as_ref());
        let by_hardware = policies.map(|it| it.hardware_chooses());
        rodata.software_clocks = by_hardware.clone().any(|it| !it);
        rodata.hardware_clocks = by_hardware.clone().any(|it| it);
        let mut classes = rodata.topology.class_groups.iter();
        rodata.choosy = classes.any(|groups| groups.count_ones() > ALL_OF_A_CLASS);

        let bss = skel.maps.bss_data.as_mut();
        let bss = bss.ok_or_else(|| anyhow!("the BPF object has no variables"))?;
        for (slot, offered) in bss.limited_cap.iter_mut().zip(offers) {
            *slot = *offered;
        }

        let operations = skel.struct_ops.joule_ops_mut();
        operations.exit_dump_len = config.exit_dump_len;
        operations.flags = *compat::SCX_OPS_ENQ_LAST
            | *compat::SCX_OPS_ENQ_EXITING
            | *compat::SCX_OPS_ENQ_MIGRATION_DISABLED
            | *compat::SCX_OPS_KEEP_BUILTIN_IDLE;

        // a kernel without cgroups of the cpu controller; its tasks have their own weights only
        if !compat::struct_has_field("sched_ext_ops", "cgroup_set_weight")? {
            operations.cgroup_init = std::ptr::null_mut();
            operations.cgroup_exit = std::ptr::null_mut();
            operations.cgroup_set_weight = std::ptr::null_mut();
        }

        let mut skel = scx_ops_load!(skel, joule_ops, uei)?;
        skel.maps
            .cost_tables
            .update(
                &STATIC_SLOT.to_ne_bytes(),
                &cost_bytes(prior)?,
                MapFlags::ANY,
            )
            .context("writing the cost table")?;
        let link = scx_ops_attach!(skel, joule_ops)?;
        Ok(Self {
            skel,
            link,
            nr_groups: u32::try_from(topology.groups.len())?,
            slot: 0,
        })
    }

    /// A channel that receives when enough busy time has gathered to be worth a sample (see
    /// [`Scheduler::wake_after`]), and closes when the kernel has detached the scheduler.
    ///
    /// # Errors
    /// When no more files can be opened.
    pub fn events(&self) -> Result<Receiver<()>> {
        let link = self.link.as_fd().try_clone_to_owned()?;
        Ok(events::watch(
            link,
            MapHandle::try_from(&self.skel.maps.wakeups)?,
        ))
    }

    /// Whether the kernel has ended the scheduler.
    pub fn ended(&self) -> bool {
        uei_exited!(&self.skel, uei)
    }

    /// What the groups did so far, all at one instant.
    ///
    /// # Errors
    /// When the kernel refuses, which is a fault of this program.
    pub fn sample(&mut self) -> Result<Activity> {
        let mut at = [0; 8];
        run(&mut self.skel.progs.joule_sample, &mut at)?;
        let groups = (0..self.nr_groups).map(|group| {
            let record = self
                .skel
                .maps
                .activities
                .lookup(&group.to_ne_bytes(), MapFlags::LOCK)?;
            Ok(group_activity(
                &record.ok_or_else(|| anyhow!("group {group} has no record"))?,
            ))
        });
        Ok(Activity {
            at: Nanos::new(u64::from_ne_bytes(at)),
            groups: groups.collect::<Result<_>>()?,
        })
    }

    /// Lets the costs of `table` decide from now on, for `ttl` unless renewed. At most once per 50 ms:
    /// see costs.bpf.h.
    ///
    /// # Errors
    /// When the table is out of range: the costs before it stay.
    pub fn publish(&mut self, table: &CostTable, probe: Option<Burst>, ttl: Nanos) -> Result<()> {
        let slot = 1 - self.slot;
        let tables = &self.skel.maps.cost_tables;
        tables.update(&slot.to_ne_bytes(), &cost_bytes(table)?, MapFlags::ANY)?;
        let (probed, probe_for) = match probe {
            Some(burst) => (u32::try_from(burst.class)?, burst.longest),
            None => (intf::joule_limits_JOULE_NO_CLASS, Nanos::default()),
        };
        let mut request = Vec::with_capacity(size_of::<intf::joule_publish>());
        let head = [table.generation, ttl.get(), probe_for.get()];
        request.extend(head.into_iter().flat_map(u64::to_ne_bytes));
        request.extend([slot, probed].into_iter().flat_map(u32::to_ne_bytes));
        run(&mut self.skel.progs.joule_publish, &mut request)
            .with_context(|| format!("publishing cost table {}", table.generation))?;
        self.slot = slot;
        Ok(())
    }

    /// Asks to be woken through [`Scheduler::events`] when this much busy time has gathered since the
    /// last sample.
    pub fn wake_after(&mut self, busy: Nanos) {
        if let Some(bss) = self.skel.maps.bss_data.as_mut() {
            bss.wake_after_ns = busy.get();
        }
    }

    /// The counters, summed over CPUs.
    ///
    /// # Errors
    /// When the map cannot be read, which is a fault of this program.
    pub fn stats(&self) -> Result<Stats> {
        let per_cpu = self
            .skel
            .maps
            .counters
            .lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY)
            .context("reading the counters")?
            .ok_or_else(|| anyhow!("the counters are missing"))?;
        // joule_counters: the counters, then the buckets of waiting times
        let sum = |counter: u32| {
            let start = usize::try_from(counter)
                .unwrap_or(usize::MAX)
                .saturating_mul(8);
            per_cpu
                .iter()
                .filter_map(|bytes| bytes.get(start..)?.first_chunk::<8>())
                .map(|bytes| u64::from_ne_bytes(*bytes))
                .fold(0, u64::wrapping_add)
        };
        Ok(Stats {
            placed_idle: sum(intf::joule_counter_JOULE_PLACED_IDLE),
            placed_busy: sum(intf::joule_counter_JOULE_PLACED_BUSY),
            placed_waiting: sum(intf::joule_counter_JOULE_PLACED_WAITING),
            placed_steered: sum(intf::joule_counter_JOULE_PLACED_STEERED),
            probes: sum(intf::joule_counter_JOULE_PROBES),
            queued: sum(intf::joule_counter_JOULE_QUEUED),
            kicks: sum(intf::joule_counter_JOULE_KICKS),
            kicks_steered: sum(intf::joule_counter_JOULE_KICKS_STEERED),
            kicks_wasted: sum(intf::joule_counter_JOULE_KICKS_WASTED),
            preempted: sum(intf::joule_counter_JOULE_PREEMPTED),
            stolen: sum(intf::joule_counter_JOULE_STOLEN),
            misfit_up: sum(intf::joule_counter_JOULE_MISFIT_UP),
            delays: (0..intf::joule_limits_JOULE_DELAY_BUCKETS)
                .map(|bucket| sum(intf::joule_counter_JOULE_NR_COUNTERS + bucket))
                .collect(),
            tables_refused: sum(intf::joule_counter_JOULE_TABLES_REFUSED),
            tables_mixed: sum(intf::joule_counter_JOULE_TABLES_MIXED),
            ..Stats::default()
        })
    }

    /// Detaches and says how it ended.
    ///
    /// # Errors
    /// The kernel's reason when it ejected the scheduler.
    pub fn finish(self) -> Result<Ending> {
        // Explicitly: somebody may hold a duplicate of the link's file (see `events`). An error means
        // that the kernel was faster, which its exit information then tells.
        let detached = self.link.detach();
        drop(self.link);
        let ended = uei_exited!(&self.skel, uei);
        let info: UserExitInfo = uei_read!(&self.skel, uei);
        info.report()?;
        if !ended {
            detached.context("detaching the scheduler")?;
        }
        Ok(if info.should_restart() {
            Ending::Restart
        } else {
            Ending::Stopped
        })
    }
}

/// The configuration in the skeleton's types.
fn settings(config: &Config) -> types::joule_config {
    let settings = config.settings();
    types::joule_config {
        slice_ns: settings.slice_ns,
        deep_idle_ns: settings.deep_idle_ns,
        wait_ns: settings.wait_ns,
        headroom_pct: settings.headroom_pct,
        hysteresis_pct: settings.hysteresis_pct,
        steer: settings.steer,
        patience_us: settings.patience_us,
    }
}

/// A set of groups, a bit for each index; at most 64 of them.
fn bits(groups: &[usize]) -> u64 {
    groups.iter().fold(0, |set, group| set | 1 << group)
}

/// The machine's relations in the skeleton's types.
fn relations(topology: &Topology) -> Result<types::joule_topology> {
    let (max_cpus, max_groups, max_classes) = (
        intf::joule_limits_JOULE_MAX_CPUS,
        intf::joule_limits_JOULE_MAX_GROUPS,
        intf::joule_limits_JOULE_MAX_CLASSES,
    );
    let nr_cpus = u32::try_from(topology.nr_cpu_ids())?;
    let nr_groups = u32::try_from(topology.groups.len())?;
    let nr_classes = u32::try_from(topology.classes.len())?;
    if nr_cpus > max_cpus || nr_groups > max_groups || nr_classes > max_classes {
        bail!(
            "this machine has {nr_cpus} CPUs in {nr_groups} groups of {nr_classes} classes; \
             at most {max_cpus}, {max_groups} and {max_classes} are supported"
        );
    }
    let mut relations = types::joule_topology {
        nr_cpus,
        nr_groups,
        cpu_group: [u8::try_from(intf::joule_limits_JOULE_NO_GROUP)?; 1024],
        cpu_sibling: [u16::try_from(intf::joule_limits_JOULE_NO_CPU)?; 1024],
        ..Default::default()
    };
    for (index, (group, slot)) in topology.groups.iter().zip(&mut relations.group).enumerate() {
        let class = topology.classes.get(group.class);
        let class = class.ok_or_else(|| anyhow!("group {index} has no class"))?;
        slot.capacity = u32::from(class.capacity.get());
        slot.same_cache = bits(&topology.under_one_cache(index));
        slot.same_node = bits(&topology.in_one_node(index));
        slot.nr_cpus = u32::try_from(group.cpus.len())?;
        slot.class = u32::try_from(group.class)?;
        slot.per_cpu_freq = u32::from(group.per_cpu_freq);
        slot.starts_slowly = u32::from(topology.starts_slowly(group));
        if let Some(groups) = relations.class_groups.get_mut(group.class) {
            *groups |= 1 << index;
        }
        for &cpu in &group.cpus {
            if let Some(entry) = relations.cpu_group.get_mut(cpu) {
                *entry = u8::try_from(index)?;
            }
            if let (Some(entry), Some(sibling)) =
                (relations.cpu_sibling.get_mut(cpu), topology.sibling(cpu))
            {
                *entry = u16::try_from(sibling)?;
            }
        }
    }
    Ok(relations)
}

/// Runs a program of the object once, with `argument` in and out.
fn run(program: &mut libbpf_rs::ProgramMut, argument: &mut [u8]) -> Result<()> {
    let input = libbpf_rs::ProgramInput {
        context_in: Some(argument),
        ..Default::default()
    };
    match program.test_run(input)?.return_value {
        0 => Ok(()),
        refused => bail!("refused with {refused:#x}"),
    }
}

/// One group's record from the bytes of `struct joule_activity`.
fn group_activity(bytes: &[u8]) -> GroupActivity {
    let word = |offset: usize| {
        let bytes = bytes.get(offset..).and_then(<[u8]>::first_chunk);
        bytes.copied().map_or(0, u64::from_ne_bytes)
    };
    let (active, busy) = (
        offset_of!(intf::joule_activity, active_ns),
        offset_of!(intf::joule_activity, busy_ns),
    );
    let opps = 0..(busy - active) / 8;
    let series = |offset: usize| -> Vec<Nanos> {
        let times = opps.clone();
        times
            .map(|opp| Nanos::new(word(offset + 8 * opp)))
            .collect()
    };
    GroupActivity {
        active: series(active),
        busy: series(busy),
        paired: series(offset_of!(intf::joule_activity, paired_ns)),
        shallow: IdleActivity {
            time: Nanos::new(word(offset_of!(intf::joule_activity, shallow_ns))),
            exits: word(offset_of!(intf::joule_activity, shallow_exits)),
        },
        deep_exits: word(offset_of!(intf::joule_activity, deep_exits)),
        wakes: word(offset_of!(intf::joule_activity, group_wakes)),
    }
}

/// A cost table as the bytes of the BPF side's `struct joule_cost_table`, which holds no padding.
fn cost_bytes(table: &CostTable) -> Result<Vec<u8>> {
    let max_opps = usize::try_from(intf::joule_limits_JOULE_MAX_OPPS)?;
    let max_classes = usize::try_from(intf::joule_limits_JOULE_MAX_CLASSES)?;
    let row_words = size_of::<intf::joule_cost_row>() / 4;
    table.check()?;
    let mut words: Vec<u32> = Vec::with_capacity(max_classes * row_words);
    for class in &table.classes {
        words.push(u32::try_from(class.opps.len())?);
        let fields: [fn(&OppCost) -> u32; 3] =
            [|opp| opp.cap, |opp| opp.busy_uw, |opp| opp.shared_uw];
        for field in fields {
            words.extend(class.opps.iter().map(field));
            words.extend(std::iter::repeat_n(0, max_opps - class.opps.len()));
        }
        // a class without a deep state is as dear to wake as from its only one
        let wake = |depth: Option<&IdleCost>| depth.map_or(0, |depth| depth.wake_nj);
        let (shallow, deep) = (wake(class.idle.first()), wake(class.idle.last()));
        words.extend([shallow, deep, class.cluster_wake_nj]);
        // opp_at, which the BPF side fills in
        words.resize(words.len().next_multiple_of(row_words), 0);
    }
    words.resize(max_classes * row_words, 0);
    let home = match table.home {
        Some(home) => [u32::try_from(home.class)?, home.opp_cap],
        None => [intf::joule_limits_JOULE_NO_CLASS, 0],
    };
    let rest = home.into_iter().chain(words).flat_map(u32::to_ne_bytes);
    let generation = table.generation.to_ne_bytes();
    Ok(generation.into_iter().chain(rest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::RunArgs;
    use crate::observation::{ClassCost, Home};
    use crate::topology::Cluster;
    use crate::units::Capacity;

    #[test]
    fn every_setting_reaches_the_skeleton() {
        let mut config = Config::new(&RunArgs::default()).unwrap();
        config.slice = crate::units::Nanos::new(0x1122_3344_5566_7788);
        config.wait = crate::units::Nanos::new(0x0022_3344_5566_7788);
        config.headroom_pct = 131;
        config.hysteresis_pct = 17;
        config.patience_us = 19;
        let sent = settings(&config);
        assert_eq!(size_of_val(&sent), size_of::<intf::joule_config>());
        assert_eq!(sent.slice_ns, config.slice.get());
        assert_eq!(sent.wait_ns, config.wait.get());
        assert_eq!(sent.headroom_pct, config.headroom_pct);
        assert_eq!(sent.hysteresis_pct, config.hysteresis_pct);
        assert_eq!(sent.patience_us, config.patience_us);
    }

    #[test]
    fn siblings_of_one_group_are_told_and_the_times_of_their_company_read() {
        let cluster = |cpus, threads, capacity| Cluster {
            cpus,
            threads,
            capacity: Capacity::new(capacity).unwrap(),
            opps: None,
            llc: 0,
        };
        let topology = Topology::synthetic(&[cluster(4, 2, 1024), cluster(4, 4, 512)]);
        let none = u16::try_from(intf::joule_limits_JOULE_NO_CPU).unwrap();
        let told = relations(&topology).unwrap().cpu_sibling;
        assert_eq!(told[..5], [1, 0, 3, 2, none], "cores of four threads");
        assert!(told[5..].iter().all(|sibling| *sibling == none));

        let mut words = vec![0u64; size_of::<intf::joule_activity>() / 8];
        words[offset_of!(intf::joule_activity, paired_ns) / 8 + 3] = 7;
        let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
        let paired = group_activity(&bytes).paired;
        assert_eq!((paired.len(), paired[3]), (32, Nanos::new(7)));
    }

    #[test]
    fn a_cost_table_fills_the_shared_layout() {
        let opp = |cap| OppCost {
            cap,
            busy_uw: cap * 10,
            shared_uw: cap * 2,
        };
        let class = |caps: &[u32]| ClassCost {
            opps: caps.iter().copied().map(opp).collect(),
            ..ClassCost::default()
        };
        let table = CostTable {
            generation: 1,
            classes: vec![class(&[100, 200]), class(&[1024])],
            home: Some(Home {
                class: 1,
                opp_cap: 300,
            }),
        };
        let bytes = cost_bytes(&table).unwrap();
        assert_eq!(bytes.len(), size_of::<intf::joule_cost_table>());
        let word = |index: usize| u32::from_ne_bytes(*bytes[index * 4..].first_chunk().unwrap());
        let row = size_of::<intf::joule_cost_row>() / 4;
        assert_eq!(bytes[..8], 1u64.to_ne_bytes());
        assert_eq!([word(2), word(3)], [1, 300]);
        assert_eq!([word(4), word(5), word(6), word(7)], [2, 100, 200, 0]);
        assert_eq!([word(37), word(38)], [1000, 2000]);
        assert_eq!(
            [word(row + 4), word(row + 5), word(row + 69)],
            [1, 1024, 2048]
        );
    }
}
