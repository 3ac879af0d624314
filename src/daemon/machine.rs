//! The machine as the energy model starts with it: what there is to observe, and what is believed of its
//! power before anything is measured.

use crate::energy::kernel_em::{self, PerfDomain, Power};
use crate::error::Error;
use crate::model::file::Machine;
use crate::model::{ClassShape, Model, OppShape, Prior, Refusal, Shape};
use crate::observation::MAX_OPPS;
use crate::store;
use crate::sysroot::{SysRoot, format_cpu_list};
use crate::topology::{Class, Topology};
use crate::units::{Capacity, KHz, Microwatts};
use log::{info, trace, warn};
use std::path::Path;

/// What the firmware of a PC calls the machine (drivers/firmware/dmi-id.c): maker and product.
const DMI_NAMES: [&str; 2] = ["sys_vendor", "product_name"];
/// Frequency bins of a class whose cpufreq driver lists no frequencies.
const BINS: u64 = 16;

/// What the scheduler's accounting can show the model of the machine. OPPs are cpufreq's, or bins of the
/// frequency range where it lists none, or one where there is no cpufreq.
pub fn shape_of(topology: &Topology) -> Shape {
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
            smt: class
                .cpus
                .iter()
                .any(|&cpu| topology.sibling(cpu).is_some()),
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
pub fn prior_of(sys: &SysRoot, topology: &Topology, shape: &Shape) -> Prior {
    let domains = match kernel_em::domains(sys) {
        Ok(domains) => domains,
        Err(error) => {
            info!("the kernel's Energy Model is not used: {error}");
            Vec::new()
        }
    };
    prior_by(&domains, topology, shape)
}

/// The same by an Energy Model that is known already.
pub(super) fn prior_by(domains: &[PerfDomain], topology: &Topology, shape: &Shape) -> Prior {
    let mut real: Option<Vec<Vec<Microwatts>>> = Some(Vec::new());
    let mut relative: Vec<Vec<u64>> = Vec::new();
    for (class, shape) in topology.classes.iter().zip(&shape.classes) {
        let Some(powers) = powers_of(domains, class, shape) else {
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

/// What tells this kind of machine from another.
pub fn identity_of(sys: &SysRoot, topology: &Topology) -> Machine {
    let text = |path: &str| {
        sys.text(path)
            .ok()
            .flatten()
            .filter(|text| !text.is_empty())
    };
    let compatible = || {
        let text = text("sys/firmware/devicetree/base/compatible")?;
        Some(text.split('\0').map(str::to_owned).collect())
    };
    let maker = || {
        let names = DMI_NAMES.map(|name| text(&format!("sys/class/dmi/id/{name}")));
        Some(names.into_iter().flatten().collect())
    };
    let mut processor: Vec<String> = Vec::new();
    for line in text("proc/cpuinfo").unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.trim() == "model name"
            && !processor.iter().any(|known| known == value.trim())
        {
            processor.push(value.trim().to_owned());
        }
    }
    let core = |class: &Class| {
        let core = class.core_type.map(|core| core.to_string());
        core.unwrap_or_else(|| "-".to_owned())
    };
    Machine {
        board: compatible().or_else(maker).unwrap_or_default(),
        processor,
        cpus: (topology.classes.iter())
            .map(|class| format_cpu_list(&class.cpus))
            .collect(),
        cores: topology.classes.iter().map(core).collect(),
    }
}

/// The model that scheduling starts with: what was saved of this machine in the directory `state`, else the
/// prior. Says in the log which, and why.
///
/// # Errors
/// When the model cannot hold this machine's shape.
pub(super) fn model_of(
    sys: &SysRoot,
    topology: &Topology,
    shape: &Shape,
    state: Option<&Path>,
) -> Result<Model, Refusal> {
    let path = state.map(|state| state.join(store::MODEL));
    let machine = || identity_of(sys, topology);
    match path.map_or(Ok(None), |path| saved_model(&path, &machine(), shape)) {
        Ok(Some(model)) => return Ok(model),
        Ok(None) => {}
        Err(error) => {
            warn!("{error}; the energy model starts from what the machine says of itself")
        }
    }
    let prior = prior_of(sys, topology, shape);
    trace!("{shape:?} {prior:?}");
    Model::new(shape.clone(), &prior)
}

/// The model that a file holds; `None` without a file.
fn saved_model(path: &Path, machine: &Machine, shape: &Shape) -> Result<Option<Model>, Error> {
    let Some(saved) = store::read(path)? else {
        return Ok(None);
    };
    let saved = saved.beside_siblings(shape);
    let model = saved.fits(machine, shape).and_then(|()| saved.model());
    let model = model.map_err(|refusal| Error::File {
        path: path.to_owned(),
        reason: refusal.to_string(),
    })?;
    let rows = saved.evidence.rows;
    info!(
        "the energy model starts from {rows} measurements in {}",
        path.display()
    );
    Ok(Some(model))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Meter;
    use crate::model::evidence::Evidence;
    use crate::model::file::Saved;
    use crate::topology::Cluster;

    fn topology(capacity: u64) -> Topology {
        with_threads(1, capacity)
    }

    fn with_threads(threads: usize, capacity: u64) -> Topology {
        let cluster = Cluster {
            cpus: 2,
            threads,
            capacity: Capacity::new(capacity).unwrap(),
            opps: Some(vec![KHz::new(1000), KHz::new(2000)]),
            llc: 0,
        };
        Topology::synthetic(&[cluster])
    }

    /// A state directory with a model of the machine, and the machine.
    fn state(topology: &Topology) -> (tempfile::TempDir, SysRoot) {
        let directory = tempfile::tempdir().unwrap();
        let board = directory.path().join("sys/class/dmi/id");
        std::fs::create_dir_all(&board).unwrap();
        std::fs::write(board.join("product_name"), "Board 7\n").unwrap();
        let sys = SysRoot::at(directory.path());
        let shape = shape_of(topology).without_siblings();
        let saved = Saved {
            machine: identity_of(&sys, topology),
            prior: prior_of(&sys, topology, &shape),
            meter: Meter::Package,
            evidence: Evidence {
                scale: 3.0,
                ..Evidence::none(&shape)
            },
            shape,
        };
        store::write(&directory.path().join(store::MODEL), &saved).unwrap();
        (directory, sys)
    }

    /// Whether the model starts from what was saved: only that knows its scale.
    fn is_saved(sys: &SysRoot, topology: &Topology, state: &Path) -> bool {
        let shape = shape_of(topology);
        let model = model_of(sys, topology, &shape, Some(state)).unwrap();
        model.belief().is_some()
    }

    #[test]
    fn scheduling_starts_from_what_was_saved_of_this_machine() {
        let topology = topology(1024);
        let (directory, sys) = state(&topology);
        assert!(is_saved(&sys, &topology, directory.path()));
        let none = tempfile::tempdir().unwrap();
        assert!(!is_saved(&sys, &topology, none.path()));
    }

    #[test]
    fn what_calibration_saved_without_counting_siblings_is_started_from_beside_them() {
        let topology = with_threads(2, 1024);
        let (directory, sys) = state(&topology);
        let model = model_of(
            &sys,
            &topology,
            &shape_of(&topology),
            Some(directory.path()),
        )
        .unwrap();
        let names = model.belief().unwrap().names;
        assert_eq!(names.last().unwrap(), "class0.sibling");
    }

    #[test]
    fn what_was_saved_of_another_machine_or_is_spoilt_is_left_and_the_prior_decides() {
        let (directory, sys) = state(&topology(1024));
        assert!(!is_saved(&sys, &topology(512), directory.path()));
        let other = directory.path().join("sys/class/dmi/id/product_name");
        std::fs::write(other, "Board 8\n").unwrap();
        assert!(!is_saved(&sys, &topology(1024), directory.path()));
        let path = directory.path().join(store::MODEL);
        let error = saved_model(
            &path,
            &identity_of(&sys, &topology(1024)),
            &shape_of(&topology(1024)),
        );
        let error = error.unwrap_err().to_string();
        assert!(
            error.ends_with("machine.board is 'Board 7', expected 'Board 8' as on this machine"),
            "{error}"
        );
        std::fs::write(&path, "version = 1\n[mach").unwrap();
        assert!(!is_saved(&sys, &topology(1024), directory.path()));
    }

    #[test]
    fn a_machine_is_known_by_its_devicetree_before_its_bios_and_by_its_processors() {
        let directory = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("sys/class/dmi/id/sys_vendor", "Maker\n");
        put("sys/class/dmi/id/product_name", "Board\n");
        let cpuinfo = "processor: 0\nmodel name\t: Fast 1\nprocessor: 1\nmodel name\t: Fast 1\n";
        put("proc/cpuinfo", cpuinfo);
        let sys = SysRoot::at(directory.path());
        let machine = identity_of(&sys, &topology(1024));
        assert_eq!(machine.board, ["Maker", "Board"]);
        assert_eq!(machine.processor, ["Fast 1"]);
        assert_eq!(
            (machine.cpus, machine.cores),
            (vec!["0-1".to_owned()], vec!["-".to_owned()])
        );
        put(
            "sys/firmware/devicetree/base/compatible",
            "maker,phone\0maker,soc\0",
        );
        assert_eq!(
            identity_of(&sys, &topology(1024)).board,
            ["maker,phone", "maker,soc"]
        );
    }
}
