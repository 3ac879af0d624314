//! The machine as the energy model starts with it: what there is to observe, and what is believed of its
//! power before anything is measured.

use crate::energy::kernel_em::{self, PerfDomain, Power};
use crate::model::{ClassShape, OppShape, Prior, Shape};
use crate::observation::MAX_OPPS;
use crate::sysroot::SysRoot;
use crate::topology::{Class, Topology};
use crate::units::{Capacity, KHz, Microwatts};
use log::info;

/// Frequency bins of a class whose cpufreq driver lists no frequencies.
const BINS: u64 = 16;

/// What the model is to know of the machine. OPPs are cpufreq's, or bins of the frequency range where it
/// lists none, or one where there is no cpufreq.
pub(super) fn shape_of(topology: &Topology) -> Shape {
    let class_shape = |(index, class): (usize, &Class)| {
        let domains = topology.groups.iter().filter(|group| group.class == index);
        let domains: usize = domains
            .map(|group| {
                if group.per_cpu_freq {
                    group.cpus.len()
                } else {
                    1
                }
            })
            .sum();
        let cpus = u16::try_from(class.cpus.len()).unwrap_or(u16::MAX);
        ClassShape {
            cpus,
            domains: u16::try_from(domains).unwrap_or(cpus).clamp(1, cpus.max(1)),
            opps: opps_of(topology, class),
            idle_depths: 2,
            cluster_wakes: true,
            smt: false,
        }
    };
    Shape {
        classes: topology
            .classes
            .iter()
            .enumerate()
            .map(class_shape)
            .collect(),
    }
}

fn opps_of(topology: &Topology, class: &Class) -> Vec<OppShape> {
    let full = u64::from(class.capacity.get());
    let policy = class
        .cpus
        .first()
        .and_then(|&cpu| topology.cpu(cpu)?.facts.policy.as_ref());
    let listed = policy
        .and_then(|policy| policy.opps.clone())
        .unwrap_or_default();
    let range = policy.and_then(|policy| Some((policy.min?.get(), policy.max?.get())));
    let frequencies: Vec<u64> = match (listed.as_slice(), range) {
        ([], Some((min, max))) if min < max => (0..BINS)
            .map(|bin| min + (max - min) * (bin + 1) / BINS)
            .collect(),
        ([], _) => vec![range.map_or(1, |(_, max)| max.max(1))],
        (listed, _) => listed.iter().map(|khz| khz.get()).collect(),
    };
    let fastest = frequencies.iter().copied().max().unwrap_or(1).max(1);
    let mut opps: Vec<OppShape> = Vec::new();
    for khz in frequencies {
        let Some(cap) = Capacity::new(full * khz / fastest) else {
            continue;
        };
        if opps
            .last()
            .map_or(cap.get() > 0, |previous| previous.cap < cap)
        {
            opps.push(OppShape {
                khz: KHz::new(khz),
                cap,
                microvolt: None,
            });
        }
    }
    let surplus = opps.len().saturating_sub(MAX_OPPS);
    opps.drain(..surplus);
    opps
}

/// What is believed before anything is measured: the kernel's Energy Model where it covers every class,
/// else capacities alone.
pub(super) fn prior_of(sys: &SysRoot, topology: &Topology, shape: &Shape) -> Prior {
    let domains = match kernel_em::domains(sys) {
        Ok(domains) => domains,
        Err(error) => {
            info!("the kernel's Energy Model is not used: {error}");
            Vec::new()
        }
    };
    let mut real: Option<Vec<Vec<Microwatts>>> = Some(Vec::new());
    let mut relative: Vec<Vec<u64>> = Vec::new();
    for (class, shape) in topology.classes.iter().zip(&shape.classes) {
        let Some(powers) = powers_of(&domains, class, shape) else {
            return Prior::Capacities;
        };
        let watts = powers.iter().map(|power| match power {
            Power::Real(power) => Some(*power),
            Power::Abstract(_) => None,
        });
        let watts: Option<Vec<_>> = watts.collect();
        real = real.zip(watts).map(|(mut all, watts)| {
            all.push(watts);
            all
        });
        let scale_free = powers.iter().map(|power| match power {
            Power::Real(power) => power.get(),
            Power::Abstract(power) => *power,
        });
        relative.push(scale_free.collect());
    }
    real.map_or(Prior::Abstract(relative), Prior::Watts)
}

/// The kernel's power of a class at each of its OPPs; `None` unless it has them all.
fn powers_of(domains: &[PerfDomain], class: &Class, shape: &ClassShape) -> Option<Vec<Power>> {
    let first = class.cpus.first()?;
    let domain = domains.iter().find(|domain| domain.cpus.contains(first))?;
    let level = |opp: &OppShape| {
        domain
            .levels
            .iter()
            .find(|level| level.frequency == opp.khz)
    };
    shape
        .opps
        .iter()
        .map(|opp| Some(level(opp)?.power))
        .collect()
}
