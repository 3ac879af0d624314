//! What the machine says of its CPUs, before anything is concluded from it.

use super::{CoreType, CpuFacts, Policy};
use crate::error::{Error, Result};
use crate::sysroot::SysRoot;
use crate::units::{Capacity, KHz};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

const CPU_DIR: &str = "sys/devices/system/cpu";
const NODE_DIR: &str = "sys/devices/system/node";

/// Possible CPU numbers, and the facts of the online ones, both ascending.
pub(super) fn facts(sys: &SysRoot) -> Result<(Vec<usize>, Vec<CpuFacts>)> {
    let listed = cpu_directories(sys)?;
    let online = match sys.cpu_list(format!("{CPU_DIR}/online"))? {
        Some(online) => online,
        None => switched_on(sys, &listed)?,
    };
    if online.is_empty() {
        return Err(Error::Io {
            path: sys.path(CPU_DIR),
            source: std::io::Error::new(ErrorKind::NotFound, "shows no online CPU"),
        });
    }
    let possible = match sys.cpu_list(format!("{CPU_DIR}/possible"))? {
        Some(possible) => possible,
        None => listed,
    };
    let possible: BTreeSet<usize> = possible.into_iter().chain(online.iter().copied()).collect();

    let kinds = [
        (
            CoreType::IntelCore,
            sys.cpu_list("sys/devices/cpu_core/cpus")?,
        ),
        (
            CoreType::IntelAtom,
            sys.cpu_list("sys/devices/cpu_atom/cpus")?,
        ),
    ];
    let nodes = nodes(sys)?;
    let mut policies: Vec<Policy> = Vec::new();
    let mut cpus: Vec<CpuFacts> = Vec::with_capacity(online.len());
    let mut threads: Vec<Option<Vec<usize>>> = Vec::with_capacity(online.len());
    for &id in &online {
        let dir = format!("{CPU_DIR}/cpu{id}");
        let policy = match policies.iter().find(|policy| policy.cpus.contains(&id)) {
            Some(policy) => Some(policy.clone()),
            None => policy(sys, &format!("{dir}/cpufreq"), id)?,
        };
        policies.extend(policy.clone().filter(|policy| policy.cpus.len() > 1));
        let core_type = match midr(sys, &dir)? {
            Some(arm) => Some(arm),
            None => kinds.iter().find_map(|(kind, cpus)| {
                let listed = cpus.as_ref()?.contains(&id);
                listed.then_some(*kind)
            }),
        };
        threads.push(sys.cpu_list(format!("{dir}/topology/thread_siblings_list"))?);
        cpus.push(CpuFacts {
            id,
            kernel_capacity: sys
                .value::<Capacity>(format!("{dir}/cpu_capacity"), "a capacity 0..=1024")?
                .filter(|capacity| capacity.get() > 0),
            cppc_highest_perf: firmware_value(sys, &format!("{dir}/acpi_cppc/highest_perf")),
            amd_highest_perf: firmware_value(
                sys,
                &format!("{dir}/cpufreq/amd_pstate_highest_perf"),
            ),
            core_type,
            package: id_number(sys, &format!("{dir}/topology/physical_package_id"))?,
            die: id_number(sys, &format!("{dir}/topology/die_id"))?,
            core: id_number(sys, &format!("{dir}/topology/core_id"))?,
            node: nodes.get(&id).copied(),
            policy,
            ..CpuFacts::default()
        });
    }

    let siblings: Vec<Vec<usize>> = cpus
        .iter()
        .zip(threads)
        .map(|(cpu, listed)| within(&cpus, cpu, listed, same_core))
        .collect();
    for (cpu, siblings) in cpus.iter_mut().zip(siblings) {
        cpu.siblings = siblings;
    }
    let mut llcs = Vec::with_capacity(cpus.len());
    for cpu in &cpus {
        let listed = last_level_cache(sys, cpu)?;
        llcs.push(within(&cpus, cpu, listed, same_package));
    }
    for (cpu, llc) in cpus.iter_mut().zip(llcs) {
        cpu.llc = llc;
    }
    Ok((possible.into_iter().collect(), cpus))
}

/// The numbers of the directories `cpu0`, `cpu1`, ..., ascending.
fn cpu_directories(sys: &SysRoot) -> Result<Vec<usize>> {
    let number = |name: String| name.strip_prefix("cpu")?.parse().ok();
    let entries = sys.entries(CPU_DIR)?;
    let mut cpus: Vec<usize> = entries.into_iter().filter_map(number).collect();
    cpus.sort_unstable();
    Ok(cpus)
}

/// The memory node of each CPU that one lists.
fn nodes(sys: &SysRoot) -> Result<BTreeMap<usize, u32>> {
    let mut nodes = BTreeMap::new();
    for entry in sys.entries(NODE_DIR)? {
        let Some(number) = entry.strip_prefix("node").and_then(|it| it.parse().ok()) else {
            continue;
        };
        let cpus = sys.cpu_list(format!("{NODE_DIR}/{entry}/cpulist"))?;
        nodes.extend(cpus.into_iter().flatten().map(|cpu| (cpu, number)));
    }
    Ok(nodes)
}

/// Those whose switch is not off; a CPU that cannot be unplugged (often CPU 0) has no switch.
fn switched_on(sys: &SysRoot, cpus: &[usize]) -> Result<Vec<usize>> {
    let mut on = Vec::new();
    for &cpu in cpus {
        let switch: Option<u8> = sys.value(format!("{CPU_DIR}/cpu{cpu}/online"), "0 or 1")?;
        if switch != Some(0) {
            on.push(cpu);
        }
    }
    Ok(on)
}

/// The online CPUs of a list that the kernel printed, `cpu` always among them; without a list, those
/// that are `alike`.
fn within(
    online: &[CpuFacts],
    cpu: &CpuFacts,
    listed: Option<Vec<usize>>,
    alike: fn(&CpuFacts, &CpuFacts) -> bool,
) -> Vec<usize> {
    let belongs = |other: &&CpuFacts| match &listed {
        Some(listed) => other.id == cpu.id || listed.binary_search(&other.id).is_ok(),
        None => other.id == cpu.id || alike(cpu, other),
    };
    online
        .iter()
        .filter(belongs)
        .map(|other| other.id)
        .collect()
}

fn same_core(one: &CpuFacts, other: &CpuFacts) -> bool {
    one.core.is_some() && (one.package, one.die, one.core) == (other.package, other.die, other.core)
}

fn same_package(one: &CpuFacts, other: &CpuFacts) -> bool {
    one.package == other.package
}

/// The CPUs under the highest-level cache that reaches beyond the core; `None` when none does.
fn last_level_cache(sys: &SysRoot, cpu: &CpuFacts) -> Result<Option<Vec<usize>>> {
    let dir = format!("{CPU_DIR}/cpu{}/cache", cpu.id);
    let mut last: Option<(u8, Vec<usize>)> = None;
    for index in sys.entries(&dir)? {
        if !index.starts_with("index")
            || sys.text(format!("{dir}/{index}/type"))?.as_deref() == Some("Instruction")
        {
            continue;
        }
        let level: Option<u8> = sys.value(format!("{dir}/{index}/level"), "a cache level")?;
        let shared = sys.cpu_list(format!("{dir}/{index}/shared_cpu_list"))?;
        let (Some(level), Some(shared)) = (level, shared) else {
            continue;
        };
        let beyond_core = shared.iter().any(|cpu_id| !cpu.siblings.contains(cpu_id));
        if beyond_core && last.as_ref().is_none_or(|(highest, _)| level > *highest) {
            last = Some((level, shared));
        }
    }
    Ok(last.map(|(_, shared)| shared))
}

/// The policy of CPU `id`; `None` where cpufreq shows none.
fn policy(sys: &SysRoot, dir: &str, id: usize) -> Result<Option<Policy>> {
    let cpus = |name: &str| sys.values::<usize>(format!("{dir}/{name}"), "CPU numbers");
    let shared = match cpus("freqdomain_cpus")? {
        Some(cpus) => Some(cpus),
        None => cpus("related_cpus")?,
    };
    let Some(shared) = shared else {
        return Ok(None);
    };
    let khz = |name: &str| -> Result<Option<KHz>> {
        let raw: Option<u64> = sys.value(format!("{dir}/{name}"), "a frequency in kHz")?;
        Ok(raw.filter(|&khz| khz > 0).map(KHz::new))
    };
    let max = khz("cpuinfo_max_freq")?;
    Ok(Some(Policy {
        cpus: shared
            .into_iter()
            .chain([id])
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        driver: sys.text(format!("{dir}/scaling_driver"))?,
        governors: sys.values(format!("{dir}/scaling_available_governors"), "names")?,
        min: khz("cpuinfo_min_freq")?,
        max,
        opps: opps(sys, dir, max)?,
    }))
}

/// The listed frequencies, and of the boost ones those that the policy may reach now: they count into
/// `cpuinfo_max_freq` only while boost is on.
fn opps(sys: &SysRoot, dir: &str, max: Option<KHz>) -> Result<Option<Vec<KHz>>> {
    let list = |name: &str| {
        sys.values::<u64>(
            format!("{dir}/scaling_{name}_frequencies"),
            "frequencies in kHz",
        )
    };
    let Some(listed) = list("available")? else {
        return Ok(None);
    };
    let boost = list("boost")?.unwrap_or_default().into_iter().map(KHz::new);
    let boost = boost.filter(|&khz| max.is_some_and(|max| khz <= max));
    let opps: BTreeSet<KHz> = listed.into_iter().map(KHz::new).chain(boost).collect();
    Ok(Some(opps.into_iter().collect()))
}

/// A performance figure that firmware answers for: zero, silence and refusal all mean that it does not
/// say, and the next capacity source is asked.
fn firmware_value(sys: &SysRoot, file: &str) -> Option<u64> {
    match sys.value::<u64>(file, "a number") {
        Ok(value) => value.filter(|&value| value > 0),
        Err(error) => {
            log::debug!("capacity: {error}");
            None
        }
    }
}

/// An id of the kernel's; it prints -1 for "unknown".
fn id_number(sys: &SysRoot, file: &str) -> Result<Option<u32>> {
    let id: Option<i64> = sys.value(file, "a number")?;
    Ok(id.and_then(|id| u32::try_from(id).ok()))
}

fn midr(sys: &SysRoot, cpu_dir: &str) -> Result<Option<CoreType>> {
    let file = format!("{cpu_dir}/regs/identification/midr_el1");
    let Some(Hex(midr)) = sys.value(file, "a register value such as 0x411fd461")? else {
        return Ok(None);
    };
    let field = |shift: u32, mask: u64| (midr >> shift) & mask;
    let (implementer, part) = (
        u8::try_from(field(24, 0xff)),
        u16::try_from(field(4, 0xfff)),
    );
    Ok(match (implementer, part) {
        (Ok(implementer), Ok(part)) => Some(CoreType::Arm { implementer, part }),
        _ => None,
    })
}

struct Hex(u64);

impl std::str::FromStr for Hex {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        u64::from_str_radix(text.trim_start_matches("0x"), 16).map(Hex)
    }
}
