//! One turn of the control loop: sample → fit → decide → publish.
//!
//! [`Control`] owns the meters and the model and is told the time; what runs when, and where the tables
//! go, is the daemon's business.

use super::machine::{prior_of, shape_of};
use crate::energy::select::Purpose;
use crate::energy::source::total;
use crate::energy::{self, Domain, EnergySource, Moment, Reading};
use crate::error::Error;
use crate::model::cost::ClassLoad;
use crate::model::steer::{DEFAULT_BUDGET, probe};
use crate::model::{ClassShape, Model, Shape, Verdict};
use crate::observation::{
    Activity, ClassActivity, CostTable, Energy, GroupActivity, IdleActivity, Meters, Observation,
    Probe,
};
use crate::stats::{ClassStats, Stats, UNKNOWN};
use crate::sysroot::SysRoot;
use crate::topology::Topology;
use crate::units::{KHz, Nanos};
use anyhow::{Context, Result};
use log::{debug, info, warn};
use num_traits::ToPrimitive;

/// Weight of the newest sample in the shown model error.
const ERROR_WEIGHT: f64 = 0.1;

/// What should decide placements from now on.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The costs.
    pub table: CostTable,
    /// What to spend on learning.
    pub probe: Option<Probe>,
    /// What the classes had to do.
    pub loads: Vec<ClassLoad>,
}

/// The meters and the model of one machine.
pub struct Control {
    sys: SysRoot,
    /// Class of each group, and CPUs of each class.
    group_class: Vec<usize>,
    class_cpus: Vec<u64>,
    shape: Shape,
    model: Model,
    meters: Vec<Box<dyn EnergySource>>,
    earlier: Option<Activity>,
    view: View,
}

/// How the loop sees the machine: what the statistics show.
#[derive(Clone, Debug)]
struct View {
    samples: u64,
    measured_w: f64,
    model_w: f64,
    error_pct: f64,
    generation: u64,
}

impl Control {
    /// Finds the meters and starts the model at what the machine says of itself.
    ///
    /// # Errors
    /// When the model cannot hold this machine's shape.
    pub fn new(sys: &SysRoot, topology: &Topology) -> Result<Self> {
        let shape = shape_of(topology);
        let prior = prior_of(sys, topology, &shape);
        let model = Model::new(shape.clone(), &prior).context("starting the energy model")?;
        Ok(Self {
            sys: sys.clone(),
            group_class: topology.groups.iter().map(|group| group.class).collect(),
            class_cpus: shape
                .classes
                .iter()
                .map(|class| u64::from(class.cpus))
                .collect(),
            shape,
            model,
            meters: open_meters(sys),
            earlier: None,
            view: View {
                samples: 0,
                measured_w: UNKNOWN,
                model_w: UNKNOWN,
                error_pct: UNKNOWN,
                generation: 0,
            },
        })
    }

    /// Whether anything measures energy; without, there is nothing to loop for.
    pub fn has_meter(&self) -> bool {
        !self.meters.is_empty()
    }

    /// The longest time between two turns at which no counter wraps unnoticed.
    pub fn longest_pause(&self) -> Option<Nanos> {
        self.meters
            .iter()
            .filter_map(|meter| meter.longest_safe_period())
            .min()
    }

    /// Frequencies of the OPPs of each class.
    pub fn frequencies(&self) -> Vec<Vec<KHz>> {
        let frequencies = |class: &ClassShape| class.opps.iter().map(|opp| opp.khz).collect();
        self.shape.classes.iter().map(frequencies).collect()
    }

    /// The costs as they are believed now.
    pub fn costs(&mut self) -> CostTable {
        self.model.cost_table()
    }

    /// Learns from what happened since the turn before; `None` when nothing was learnt.
    pub fn turn(&mut self, activity: Activity, now: Moment) -> Option<Decision> {
        let meters = self.read_meters(now);
        let earlier = self.earlier.replace(activity.clone())?;
        if now.resumed {
            return None;
        }
        let observation = self.observe(&earlier, &activity, meters?)?;
        let expected = self.model.predict(&observation).ok();
        let verdict = self.model.update(&observation);
        match &verdict {
            Verdict::Rejected(reason) => {
                debug!("sample refused: {reason}");
                return None;
            }
            Verdict::Changed(change) => info!("the machine's power changed: {change:?}"),
            _ => {}
        }
        self.note(&observation, expected.map(|expected| expected.uw / 1e6));
        let table = self.model.cost_table();
        self.view.generation = table.generation;
        let loads = self.loads(&observation);
        let probe = probe(&self.model, &loads, DEFAULT_BUDGET);
        Some(Decision {
            table,
            probe,
            loads,
        })
    }

    /// Adds the loop's view of the machine to the scheduler's counters.
    pub fn describe(&self, stats: &mut Stats) {
        let confidence = self.model.confidence();
        let classes = confidence.len().max(1).to_f64().unwrap_or(1.0);
        stats.samples = self.view.samples;
        stats.measured_w = self.view.measured_w;
        stats.model_w = self.view.model_w;
        stats.model_error_pct = self.view.error_pct;
        stats.confidence = confidence.iter().sum::<f64>() / classes;
        stats.generation = self.view.generation;
        for (class, confidence) in confidence.into_iter().enumerate() {
            let curve = self.model.curve(class);
            let class_stats = ClassStats {
                khz: curve.iter().map(|(opp, _)| opp.khz.get()).collect(),
                watts: curve
                    .iter()
                    .map(|(_, estimate)| estimate.uw / 1e6)
                    .collect(),
                confidence,
            };
            stats.classes.insert(class, class_stats);
        }
    }

    /// Energy since the turn before; `None` when no meter gave a sound difference.
    fn read_meters(&mut self, now: Moment) -> Option<Meters> {
        let mut readings: Vec<Reading> = Vec::new();
        for meter in &mut self.meters {
            match meter.sample(now) {
                Ok(more) => readings.extend(more),
                Err(Error::Gone { .. }) => {
                    info!("an energy counter has gone: looking again");
                    self.meters = open_meters(&self.sys);
                    return None;
                }
                Err(error) => debug!("no reading: {error}"),
            }
        }
        let energy = |domain| total(&readings, &domain).map(Energy::measured);
        let meters = Meters {
            package: energy(Domain::Package),
            cores: energy(Domain::Cores),
            gpu: energy(Domain::Gpu),
            system: energy(Domain::Platform),
        };
        let any = meters.package.or(meters.cores).or(meters.system).is_some();
        any.then_some(meters)
    }

    /// What happened between two readings of the groups.
    fn observe(&self, from: &Activity, to: &Activity, meters: Meters) -> Option<Observation> {
        let duration = to
            .at
            .checked_sub(from.at)
            .filter(|duration| duration.get() > 0)?;
        let mut classes: Vec<ClassActivity> = (self.shape.classes.iter())
            .map(|class| ClassActivity {
                active: vec![Nanos::default(); class.opps.len()],
                busy: vec![Nanos::default(); class.opps.len()],
                idle: vec![IdleActivity::default(); 2],
                cluster_wakes: Some(0),
                sibling: None,
            })
            .collect();
        for ((from, to), &class) in from.groups.iter().zip(&to.groups).zip(&self.group_class) {
            add_group(classes.get_mut(class)?, from, to)?;
        }
        for (class, cpus) in classes.iter_mut().zip(&self.class_cpus) {
            let busy: u64 = class.busy.iter().map(|busy| busy.get()).sum();
            if let [shallow, deep] = class.idle.as_mut_slice() {
                let idle = (duration.get() * cpus).saturating_sub(busy);
                deep.time = Nanos::new(idle.saturating_sub(shallow.time.get()));
            }
        }
        Some(Observation {
            duration,
            meters,
            classes,
        })
    }

    /// Keeps the figures that the statistics show.
    fn note(&mut self, observation: &Observation, expected_w: Option<f64>) {
        let measured = observation.meters.package.or(observation.meters.cores);
        let seconds = observation.duration.get().to_f64().unwrap_or(f64::NAN) / 1e9;
        let joules = measured.and_then(|energy| energy.amount.get().to_f64());
        let view = &mut self.view;
        view.samples += 1;
        view.measured_w = joules.map_or(UNKNOWN, |uj| uj / 1e6 / seconds);
        view.model_w = expected_w.unwrap_or(UNKNOWN);
        if view.measured_w > 0.0 && view.model_w >= 0.0 {
            let error = 100.0 * (view.model_w / view.measured_w - 1.0).abs();
            view.error_pct = match view.error_pct < 0.0 {
                true => error,
                false => view.error_pct + ERROR_WEIGHT * (error - view.error_pct),
            };
        }
    }

    /// The classes' loads over an observation.
    fn loads(&self, observation: &Observation) -> Vec<ClassLoad> {
        let duration = observation.duration.get().to_f64().unwrap_or(f64::NAN);
        let load = |(activity, shape): (&ClassActivity, &ClassShape)| ClassLoad {
            cpus: shape.cpus,
            domains: shape.domains,
            util: (activity.busy.iter().zip(&shape.opps))
                .filter_map(|(busy, opp)| Some(busy.get().to_f64()? * f64::from(opp.cap.get())))
                .sum::<f64>()
                / duration,
            top: 0.0,
            idle_depth: Some(1),
            domain_asleep: false,
        };
        observation
            .classes
            .iter()
            .zip(&self.shape.classes)
            .map(load)
            .collect()
    }
}

/// Adds what one group did between two readings; `None` when its counters went back.
fn add_group(class: &mut ClassActivity, from: &GroupActivity, to: &GroupActivity) -> Option<()> {
    let series = [
        (&mut class.active, &from.active, &to.active),
        (&mut class.busy, &from.busy, &to.busy),
    ];
    for (sums, from, to) in series {
        for ((sum, from), to) in sums.iter_mut().zip(from).zip(to) {
            *sum = sum.checked_add(to.checked_sub(*from)?)?;
        }
    }
    if let [shallow, deep] = class.idle.as_mut_slice() {
        let time = to.shallow.time.checked_sub(from.shallow.time)?;
        shallow.time = shallow.time.checked_add(time)?;
        shallow.exits += to.shallow.exits.checked_sub(from.shallow.exits)?;
        deep.exits += to.deep_exits.checked_sub(from.deep_exits)?;
    }
    let wakes = to.wakes.checked_sub(from.wakes)?;
    class.cluster_wakes = class.cluster_wakes.map(|sum| sum + wakes);
    Some(())
}

/// Readers of the best meters; empty when the machine has none.
fn open_meters(sys: &SysRoot) -> Vec<Box<dyn EnergySource>> {
    let facts = energy::probe(sys);
    let Some(chosen) = energy::select(&facts).chosen else {
        return Vec::new();
    };
    let wanted = [
        (chosen.package, Purpose::Package),
        (
            chosen.cores.filter(|&cores| Some(cores) != chosen.package),
            Purpose::Cores,
        ),
    ];
    let mut meters = Vec::new();
    for (source, purpose) in wanted {
        let Some(source) = source else { continue };
        match energy::open(sys, &facts, source, purpose) {
            Ok(opened) => meters.extend(opened),
            Err(error) => warn!("{source} cannot be used: {error}"),
        }
    }
    meters
}
