//! The only user of the scheduler's BPF skeleton: loads it, tells it the configuration, the machine
//! and the costs, reads its counters, and learns why it ended.
//!
//! The kernel gives the machine back to its default scheduler as soon as the last reference to the
//! attached scheduler goes, however this process ends.

use crate::bpf_skel::{BpfSkel, BpfSkelBuilder, types};
use crate::config::Config;
use crate::intf;
use crate::observation::{CostTable, OppCost};
use crate::stats::Stats;
use crate::topology::Topology;
use anyhow::{Context, Result, anyhow, bail};
use libbpf_rs::{MapCore, MapFlags, OpenObject};
use scx_utils::{
    UserExitInfo, compat, scx_ops_attach, scx_ops_load, scx_ops_open, uei_exited, uei_read,
};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

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
}

impl<'a> Scheduler<'a> {
    /// Loads and attaches the scheduler.
    ///
    /// # Errors
    /// When the kernel lacks sched_ext, the verifier refuses, another scheduler is attached, or the
    /// topology exceeds the limits of intf.h. The machine is then unchanged.
    pub fn attach(
        storage: &'a mut Storage,
        config: &Config,
        topology: &Topology,
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

        let operations = skel.struct_ops.joule_ops_mut();
        operations.exit_dump_len = config.exit_dump_len;
        operations.flags = *compat::SCX_OPS_ENQ_LAST
            | *compat::SCX_OPS_ENQ_EXITING
            | *compat::SCX_OPS_ENQ_MIGRATION_DISABLED
            | *compat::SCX_OPS_KEEP_BUILTIN_IDLE;

        let mut skel = scx_ops_load!(skel, joule_ops, uei)?;
        skel.maps
            .cost_tables
            .update(&0u32.to_ne_bytes(), &cost_bytes(prior)?, MapFlags::ANY)
            .context("writing the cost table")?;
        let link = scx_ops_attach!(skel, joule_ops)?;
        Ok(Self { skel, link })
    }

    /// A file that hangs up (POLLHUP) when the kernel has detached the scheduler.
    pub fn watch(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    /// Whether the kernel has ended the scheduler.
    pub fn ended(&self) -> bool {
        uei_exited!(&self.skel, uei)
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
            queued: sum(intf::joule_counter_JOULE_QUEUED),
            kicks: sum(intf::joule_counter_JOULE_KICKS),
            stolen: sum(intf::joule_counter_JOULE_STOLEN),
            misfit_up: sum(intf::joule_counter_JOULE_MISFIT_UP),
        })
    }

    /// Detaches and says how it ended.
    ///
    /// # Errors
    /// The kernel's reason when it ejected the scheduler.
    pub fn finish(self) -> Result<Ending> {
        // Explicitly: somebody may hold a duplicate of the link's file (see `watch`). An error means
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
        headroom_pct: settings.headroom_pct,
        hysteresis_pct: settings.hysteresis_pct,
    }
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
        ..Default::default()
    };
    for (index, (group, slot)) in topology.groups.iter().zip(&mut relations.group).enumerate() {
        let class = topology.classes.get(group.class);
        let class = class.ok_or_else(|| anyhow!("group {index} has no class"))?;
        slot.capacity = u32::from(class.capacity.get());
        slot.nr_cpus = u32::try_from(group.cpus.len())?;
        slot.class = u32::try_from(group.class)?;
        slot.per_cpu_freq = u32::from(group.per_cpu_freq);
        for &cpu in &group.cpus {
            if let Some(entry) = relations.cpu_group.get_mut(cpu) {
                *entry = u8::try_from(index)?;
            }
        }
    }
    Ok(relations)
}

/// A cost table as the bytes of the BPF side's `struct joule_cost_table`, which holds nothing but u32.
fn cost_bytes(table: &CostTable) -> Result<Vec<u8>> {
    let max_opps = usize::try_from(intf::joule_limits_JOULE_MAX_OPPS)?;
    let max_classes = usize::try_from(intf::joule_limits_JOULE_MAX_CLASSES)?;
    table.check()?;
    let mut words: Vec<u32> = Vec::with_capacity(size_of::<intf::joule_cost_table>() / 4);
    for class in &table.classes {
        words.push(u32::try_from(class.opps.len())?);
        let fields: [fn(&OppCost) -> u32; 3] =
            [|opp| opp.cap, |opp| opp.busy_uw, |opp| opp.shared_uw];
        for field in fields {
            words.extend(class.opps.iter().map(field));
            words.extend(std::iter::repeat_n(0, max_opps - class.opps.len()));
        }
    }
    words.resize(max_classes * (1 + 3 * max_opps), 0);
    Ok(words.into_iter().flat_map(u32::to_ne_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::RunArgs;
    use crate::observation::ClassCost;

    #[test]
    fn every_setting_reaches_the_skeleton() {
        let mut config = Config::new(&RunArgs::default()).unwrap();
        config.slice = crate::units::Nanos::new(0x1122_3344_5566_7788);
        config.headroom_pct = 131;
        config.hysteresis_pct = 17;
        let sent = settings(&config);
        assert_eq!(size_of_val(&sent), size_of::<intf::joule_config>());
        assert_eq!(sent.slice_ns, config.slice.get());
        assert_eq!(sent.headroom_pct, config.headroom_pct);
        assert_eq!(sent.hysteresis_pct, config.hysteresis_pct);
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
        };
        let bytes = cost_bytes(&table).unwrap();
        assert_eq!(bytes.len(), size_of::<intf::joule_cost_table>());
        let word = |index: usize| u32::from_ne_bytes(*bytes[index * 4..].first_chunk().unwrap());
        let row = size_of::<intf::joule_cost_row>() / 4;
        assert_eq!([word(0), word(1), word(2), word(3)], [2, 100, 200, 0]);
        assert_eq!([word(33), word(34)], [1000, 2000]);
        assert_eq!([word(row), word(row + 1), word(row + 65)], [1, 1024, 2048]);
    }
}
