//! One turn of the control loop: sample → fit → decide → publish.
//!
//! [`Control`] owns the meters and the model and is told the time; what runs when, and where the tables
//! go, is the daemon's business.

use super::machine::{model_of, prior_by, shape_of};
use super::meters::{MeterSet, Taken};
use crate::energy::Moment;
use crate::energy::record::Machine;
use crate::energy::replay::Replay;
use crate::energy::select::Source;
use crate::model::cost::ClassLoad;
use crate::model::steer::{Bursts, DEFAULT_BUDGET, probe};
use crate::model::{ClassShape, Model, Shape, Verdict};
use crate::observation::{
    Activity, Burst, ClassActivity, CostTable, GroupActivity, IdleActivity, Meters, Observation,
};
use crate::stats::{ClassStats, Stats, UNKNOWN};
use crate::sysroot::SysRoot;
use crate::topology::Topology;
use crate::units::{KHz, Nanos};
use anyhow::{Context, Result, bail};
use log::{debug, info, trace};
use num_traits::ToPrimitive;
use std::path::Path;

/// Weight of the newest sample in the shown model error.
const ERROR_WEIGHT: f64 = 0.1;

/// What should decide placements from now on.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The costs.
    pub table: CostTable,
    /// What to try, to learn what it costs.
    pub probe: Option<Burst>,
}

/// The meters and the model of one machine.
pub struct Control {
    /// Class of each group, and CPUs of each class.
    group_class: Vec<usize>,
    class_cpus: Vec<u64>,
    shape: Shape,
    model: Model,
    bursts: Bursts,
    meters: MeterSet,
    /// Where the next observation begins.
    earlier: Option<(Nanos, Activity)>,
    /// What the classes had to do in the last observation; empty before the first.
    loads: Vec<ClassLoad>,
    view: View,
}

/// How the loop sees the machine: what the statistics show.
#[derive(Clone, Debug)]
struct View {
    samples: u64,
    measured_w: f64,
    model_w: f64,
    groups_w: Vec<f64>,
    error_pct: f64,
    generation: u64,
}

impl Control {
    /// Finds the meters and starts the model of what there is to observe, `shape`, at what was saved of this machine
    /// in the directory `state`, else (`None`, or nothing fit) at what the machine says of itself.
    ///
    /// # Errors
    /// When the model cannot hold this machine's shape.
    pub fn new(
        sys: &SysRoot,
        topology: &Topology,
        shape: Shape,
        state: Option<&Path>,
    ) -> Result<Self> {
        let model = model_of(sys, topology, &shape, state).context("starting the energy model")?;
        Ok(Self::with(topology, shape, model, MeterSet::open(sys)))
    }

    /// Starts as it would have on the machine of a recording, whose meters speak in place of this machine's.
    ///
    /// # Errors
    /// When the model cannot hold that machine's shape, or its samples do not have it.
    pub fn replayed(machine: &Machine, meters: Replay) -> Result<Self> {
        let topology = machine.topology();
        let shape = shape_of(&topology).without_siblings();
        let prior = prior_by(&machine.energy_model, &topology, &shape);
        let model = Model::new(shape.clone(), &prior).context("starting the energy model")?;
        let source = machine.sources.first().copied();
        let meters = MeterSet::replayed(source.unwrap_or(Source::PerfPower), meters);
        let control = Self::with(&topology, shape, model, meters);
        match control.frequencies() == machine.opps {
            true => Ok(control),
            false => {
                bail!("the recording's samples are of other operating points than its machine")
            }
        }
    }

    fn with(topology: &Topology, shape: Shape, model: Model, meters: MeterSet) -> Self {
        Self {
            group_class: topology.groups.iter().map(|group| group.class).collect(),
            class_cpus: shape
                .classes
                .iter()
                .map(|class| u64::from(class.cpus))
                .collect(),
            shape,
            model,
            bursts: Bursts::default(),
            meters,
            earlier: None,
            loads: Vec::new(),
            view: View {
                samples: 0,
                measured_w: UNKNOWN,
                model_w: UNKNOWN,
                groups_w: Vec::new(),
                error_pct: UNKNOWN,
                generation: 0,
            },
        }
    }

    /// Whether anything measures energy; without, there is nothing to loop for.
    pub fn has_meter(&self) -> bool {
        !self.meters.is_empty()
    }

    /// What there is to observe.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The longest time between two turns at which no counter wraps unnoticed.
    pub fn longest_pause(&self) -> Option<Nanos> {
        self.meters.longest_pause()
    }

    /// Frequencies of the OPPs of each class.
    pub fn frequencies(&self) -> Vec<Vec<KHz>> {
        self.shape.frequencies()
    }

    /// The costs as they are believed now.
    pub fn costs(&mut self) -> CostTable {
        self.model.cost_table()
    }

    /// What the classes had to do in the last observation; empty before the first.
    pub fn loads(&self) -> &[ClassLoad] {
        &self.loads
    }

    /// Learns from what happened since the last reading of the meters, and decides. Where there was
    /// nothing to learn from, what is known already goes on deciding.
    pub fn turn(&mut self, activity: Activity, now: Moment) -> Decision {
        let observation = self.take(activity, now);
        let probe = observation.and_then(|observation| self.learn(&observation));
        let table = self.model.cost_table();
        self.view.generation = table.generation;
        Decision { table, probe }
    }

    /// What happened between the last sound reading and now.
    pub fn take(&mut self, activity: Activity, now: Moment) -> Option<Observation> {
        let since = self.earlier.as_ref().map(|(at, _)| *at);
        let meters = match self.meters.read(now, since) {
            Taken::Pending if since.is_some() && !now.resumed => return None,
            Taken::Sound(meters) => Some(meters),
            Taken::Pending | Taken::Lost => None,
        };
        let (_, earlier) = self.earlier.replace((now.at, activity.clone()))?;
        self.view.groups_w = self.groups_w(&earlier, &activity);
        let meters = meters.filter(|_| !now.resumed)?;
        self.observe(&earlier, &activity, meters)
    }

    /// Teaches the model; returns what to try next.
    fn learn(&mut self, observation: &Observation) -> Option<Burst> {
        trace!("{}", serde_json::to_string(observation).unwrap_or_default());
        let expected = self.model.predict(observation).ok();
        match self.model.update(observation) {
            Verdict::Rejected(reason) => {
                debug!("sample refused: {reason}");
                return None;
            }
            Verdict::Changed(change) => {
                info!("the machine's power changed: {change:?}");
                self.view.samples += 1;
            }
            Verdict::Accepted => self.view.samples += 1,
            Verdict::Held | Verdict::Foreign => {}
        }
        self.note(observation, expected.map(|expected| expected.uw / 1e6));
        self.loads = self.loads_of(observation);
        let wanted = probe(&self.model, &self.loads, DEFAULT_BUDGET);
        self.bursts.next(wanted, observation.work())
    }

    /// Adds the loop's view of the machine to the scheduler's counters.
    pub fn describe(&self, stats: &mut Stats) {
        let confidence = self.model.confidence();
        let mut power = self.model.power().classes.into_iter();
        let classes = confidence.len().max(1).to_f64().unwrap_or(1.0);
        stats.samples = self.view.samples;
        stats.meter_faults = self.meters.faults();
        stats.measured_w = self.view.measured_w;
        stats.model_w = self.view.model_w;
        stats.groups_w = self.view.groups_w.clone();
        stats.model_error_pct = self.view.error_pct;
        stats.confidence = confidence.iter().sum::<f64>() / classes;
        stats.generation = self.view.generation;
        for (class, confidence) in confidence.into_iter().enumerate() {
            let curve = self.model.curve(class);
            let sibling_watts = power.next().map_or_else(Vec::new, |class| class.sibling_w);
            let class_stats = ClassStats {
                khz: curve.iter().map(|(opp, _)| opp.khz.get()).collect(),
                watts: curve
                    .iter()
                    .map(|(_, estimate)| estimate.uw / 1e6)
                    .collect(),
                sibling_watts,
                confidence,
            };
            stats.classes.insert(class, class_stats);
        }
    }

    /// Power that the model expects of each group above deepest idle, W: what its busy CPUs, less what pairs of
    /// threads save, and its shared part cost at the OPPs they were at.
    fn groups_w(&self, from: &Activity, to: &Activity) -> Vec<f64> {
        let duration = to.at.checked_sub(from.at).and_then(|it| it.get().to_f64());
        let power = self.model.power();
        let of_group = |((from, to), class): ((&GroupActivity, &GroupActivity), &usize)| {
            let class = power.classes.get(*class)?;
            let spent = |from: &[Nanos], to: &[Nanos], watts: &[f64]| {
                let times = from.iter().zip(to).zip(watts);
                let energy = times.map(|((from, to), watts)| {
                    Some(to.checked_sub(*from)?.get().to_f64()? * watts)
                });
                energy.sum::<Option<f64>>()
            };
            let busy = spent(&from.busy, &to.busy, &class.busy_w)?;
            let shared = spent(&from.active, &to.active, &class.shared_w)?;
            // nothing where pairs are not counted
            let saved = spent(&from.paired, &to.paired, &class.sibling_w)?;
            let duration = duration.filter(|duration| *duration > 0.0)?;
            Some(((busy + shared - saved) / duration).max(0.0))
        };
        let groups = from.groups.iter().zip(&to.groups);
        groups
            .zip(&self.group_class)
            .map(|group| of_group(group).unwrap_or(UNKNOWN))
            .collect()
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
                sibling: class.smt.then(|| vec![Nanos::default(); class.opps.len()]),
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
    fn loads_of(&self, observation: &Observation) -> Vec<ClassLoad> {
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
        (Some(&mut class.active), &from.active, &to.active),
        (Some(&mut class.busy), &from.busy, &to.busy),
        (class.sibling.as_mut(), &from.paired, &to.paired),
    ];
    for (sums, from, to) in series {
        for ((sum, from), to) in sums.into_iter().flatten().zip(from).zip(to) {
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
