//! An energy model of the machine, fitted while it runs. Pure: observations in, costs out; no I/O, no
//! clock.
//!
//! `features` turns an observation into a regression row, `power` holds the physical parameters and the
//! prior, `belief` all that is known as named numbers, `evidence` what was measured, apart from any prior, `file` that
//! as text, `fit` the estimator, `change` what protects it (noise, outliers, changes of the machine), `cost`
//! the published table, `home` who does what little there is to do, `steer` the exploration.

mod belief;
mod change;
pub mod cost;
mod estimate;
pub mod evidence;
mod features;
pub mod file;
mod fit;
mod home;
mod power;
pub mod steer;
#[cfg(test)]
mod testing;

pub use belief::Belief;
pub use change::Change;
pub use estimate::{Difference, Estimate, Prediction};
pub use features::{ClassShape, Meter, OppShape, Refusal, Shape};
pub use power::{ClassPower, PowerModel, Prior, default_curve};

use crate::observation::{CostTable, Observation};
use crate::units::Nanos;
use change::{Channel, Outcome};
use cost::{ClassLoad, Publisher, placement};
use features::{Row, Terms};
use fit::Filter;

/// What became of an observation.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Learnt.
    Accepted,
    /// Too far from what is known: kept aside until it is clear what it means.
    Held,
    /// Kept aside, and most likely drawn by something other than the CPUs.
    Foreign,
    /// The machine is not what it was; the model now doubts that part and follows fast.
    Changed(Change),
    /// Refused; nothing was changed.
    Rejected(Refusal),
}

/// The fitted model of one machine.
#[derive(Clone, Debug)]
pub struct Model {
    terms: Terms,
    filter: Filter,
    channels: [Channel; features::METERS],
    calibration: Option<Calibration>,
    publisher: Publisher,
    /// Per class: how long it has been out of use, or since it was last doubted for that, s.
    unused_s: Vec<f64>,
}

/// A class is in use when it is busy for this part of the time.
const IN_USE: f64 = 0.05;
/// What is known of a class that is out of use becomes doubtful: its power may have changed by this much
/// (one standard deviation, relative) within [`AGEING_S`], and by √n times as much within n times that:
/// two fifths in a minute. Temperature and firmware do that. The probes that follow are bounded by their
/// budget, not by this.
const AGEING: f64 = 0.16;
/// Steps of ageing, s.
const AGEING_S: f64 = 10.0;

impl Model {
    /// A model that knows no more than `prior`.
    ///
    /// # Errors
    /// A shape that a cost table cannot hold, or a prior that does not match it.
    pub fn new(shape: Shape, prior: &Prior) -> Result<Self, Refusal> {
        shape.check()?;
        let terms = Terms::new(shape);
        let start = prior.start(&terms)?;
        let filter = Filter::new(start.mean, start.covariance).ok_or(Refusal::BadPrior)?;
        let calibration = (!start.scaled).then(Calibration::default);
        Ok(Self::with_filter(terms, filter, calibration))
    }

    /// A model that believes what another one learnt.
    ///
    /// # Errors
    /// A shape that a cost table cannot hold, or a belief about another shape.
    pub fn with_belief(shape: Shape, belief: &Belief) -> Result<Self, Refusal> {
        shape.check()?;
        let terms = Terms::new(shape);
        let filter = belief::filter(&terms, belief)?;
        Ok(Self::with_filter(terms, filter, None))
    }

    fn with_filter(terms: Terms, filter: Filter, calibration: Option<Calibration>) -> Self {
        let channel = |meter| Channel::new(meter, &terms);
        Self {
            channels: [Meter::Package, Meter::Cores, Meter::System].map(channel),
            filter,
            unused_s: vec![0.0; terms.classes.len()],
            terms,
            calibration,
            publisher: Publisher::default(),
        }
    }

    /// All that is believed of the parameters; `None` while the prior's scale is not known yet.
    pub fn belief(&self) -> Option<Belief> {
        (self.calibration.is_none()).then(|| belief::of(&self.terms, &self.filter))
    }

    /// Learns one observation.
    pub fn update(&mut self, observation: &Observation) -> Verdict {
        self.terms.follow(self.filter.mean());
        let rows = match self.terms.rows(observation) {
            Ok(rows) => rows,
            Err(reason) => return Verdict::Rejected(reason),
        };
        let mut verdict = Verdict::Accepted;
        let alike = features::float(u64::try_from(rows.len()).unwrap_or(1));
        for channel in &mut self.channels {
            channel.share_evidence(alike);
        }
        for (meter, row, watts) in rows {
            let outcome = self.learn(meter, row, watts, observation.duration);
            verdict = match (outcome, verdict) {
                (Outcome::Changed(change), _) => Verdict::Changed(change),
                (Outcome::Foreign, Verdict::Accepted | Verdict::Held) => Verdict::Foreign,
                (Outcome::Held, Verdict::Accepted) => Verdict::Held,
                (_, verdict) => verdict,
            };
        }
        self.age(observation);
        verdict
    }

    /// Doubts the power of classes out of use, up to the prior's doubt.
    fn age(&mut self, observation: &Observation) {
        let elapsed = features::float(observation.duration.get());
        let mut directions = Vec::new();
        let classes = self.terms.classes.iter().zip(&observation.classes);
        for ((terms, activity), unused_s) in classes.zip(&mut self.unused_s) {
            let busy: f64 = activity.busy.iter().map(|b| features::float(b.get())).sum();
            if busy >= IN_USE * elapsed {
                *unused_s = 0.0;
                continue;
            }
            *unused_s += elapsed * 1e-9;
            if *unused_s < AGEING_S {
                continue;
            }
            let mut middle = Row::default();
            middle.push(terms.busy + terms.opps / 2, 1.0);
            if self.filter.variance_of(&middle) < self.filter.prior_variance_of(&middle) {
                let amount = AGEING * (*unused_s / AGEING_S).sqrt();
                directions.push(change::scaled(terms, self.filter.mean(), amount));
            }
            *unused_s = 0.0;
        }
        if !directions.is_empty() {
            self.filter.open(&directions);
        }
    }

    fn learn(&mut self, meter: Meter, row: Row, watts: f64, duration: Nanos) -> Outcome {
        let Some(channel) = self.channels.get_mut(meter.index()) else {
            return Outcome::Held;
        };
        let Some(calibration) = &mut self.calibration else {
            return channel.step(&mut self.filter, &self.terms, &row, watts, duration);
        };
        calibration.add(meter, row, watts, duration, &self.filter);
        let Some(scale) = calibration.scale() else {
            return Outcome::Held;
        };
        self.filter.rescale(scale);
        let collected = self.calibration.take().unwrap_or_default();
        let mut outcome = Outcome::Learnt;
        for early in collected.rows {
            if let Some(channel) = self.channels.get_mut(early.meter.index()) {
                let Early {
                    row,
                    watts,
                    duration,
                    ..
                } = early;
                outcome = channel.step(&mut self.filter, &self.terms, &row, watts, duration);
            }
        }
        outcome
    }

    /// The meter that the model is fitted to, the closest to the CPUs' supply; `None` before the first
    /// reading.
    pub fn meter(&self) -> Option<Meter> {
        [Meter::Package, Meter::Cores, Meter::System]
            .into_iter()
            .find(|meter| self.channels.get(meter.index()).is_some_and(Channel::used))
    }

    /// The power that [`Model::meter`] (the package's before any reading) should have shown.
    ///
    /// # Errors
    /// An observation that does not match the machine's shape.
    pub fn predict(&self, observation: &Observation) -> Result<Prediction, Refusal> {
        let meter = self.meter().unwrap_or(Meter::Package);
        let row = self.terms.row(observation, meter)?;
        let watts = fit::dot(&row, &self.filter.estimate()).max(0.0);
        let channel = self.channels.get(meter.index());
        let noise = channel.map_or(0.0, |c| c.noise_at(watts)).powi(2);
        let disturbance = channel.map_or(0.0, Channel::disturbance) * noise;
        let doubt = self.filter.variance_of(&row);
        Ok(Prediction {
            uw: watts * 1e6,
            sigma_uw: (doubt + noise).sqrt() * 1e6,
            power_sigma_uw: (doubt + disturbance).sqrt() * 1e6,
        })
    }

    /// By how much a task of utilisation `util` (capacity units) costs more on class `a` than on class `b`
    /// over [`cost::HORIZON_NS`]; `None` where it does not fit or there is no such class.
    pub fn cost_difference(
        &self,
        loads: &[ClassLoad],
        util: f64,
        a: usize,
        b: usize,
    ) -> Option<Difference> {
        let row = |k: usize| {
            let shape = self.terms.shape.classes.get(k)?;
            let caps = shape.opps.iter().map(|opp| f64::from(opp.cap.get()));
            Some(placement(caps, loads.get(k)?, util)?.row(self.terms.classes.get(k)?))
        };
        let row = row(a)?.minus(1.0, &row(b)?);
        Some(Difference {
            nj: fit::dot(&row, &self.filter.estimate()) * 1e9,
            sigma_nj: self.filter.variance_of(&row).sqrt() * 1e9,
        })
    }

    /// The physical parameters as they are believed now.
    pub fn power(&self) -> PowerModel {
        PowerModel::from_parameters(&self.terms, &self.filter.estimate())
    }

    /// The table to publish. It changes, and its generation grows, only when a cost that a placement can
    /// see has moved by more than 3 %, or the home has.
    pub fn cost_table(&mut self) -> CostTable {
        let parameters = self.filter.estimate();
        let power = PowerModel::from_parameters(&self.terms, &parameters);
        let home = home::choose(&self.terms, &self.filter, &parameters);
        self.publisher.publish(&self.terms.shape, &power, home)
    }

    /// Per OPP of a class: power of its first busy CPU, shared power included, above deepest idle. Empty
    /// for a class that does not exist.
    pub fn curve(&self, class: usize) -> Vec<(OppShape, Estimate)> {
        let (Some(terms), Some(shape)) = (
            self.terms.classes.get(class),
            self.terms.shape.classes.get(class),
        ) else {
            return Vec::new();
        };
        let parameters = self.filter.estimate();
        let estimate = |(opp, shape): (usize, &OppShape)| {
            let row = terms.awake(opp, 1.0);
            let variance = self.filter.variance_of(&row);
            let watts = fit::dot(&row, &parameters);
            let (low, high) = estimate::interval(watts, variance.sqrt());
            let estimate = Estimate {
                uw: watts * 1e6,
                sigma_uw: variance.sqrt() * 1e6,
                low_uw: low * 1e6,
                high_uw: high * 1e6,
                identified: variance < 0.5 * self.filter.prior_variance_of(&row),
            };
            (*shape, estimate)
        };
        shape.opps.iter().enumerate().map(estimate).collect()
    }

    /// Per class: how much of the prior's doubt about its busy power is gone, 0 (none) to 1, averaged over
    /// the OPPs.
    pub fn confidence(&self) -> Vec<f64> {
        let of_class = |terms: &features::ClassTerms| {
            let gone: f64 = (terms.busy..terms.busy + terms.opps)
                .map(|parameter| {
                    let mut row = Row::default();
                    row.push(parameter, 1.0);
                    let left = self.filter.variance_of(&row) / self.filter.prior_variance_of(&row);
                    (1.0 - left.sqrt()).clamp(0.0, 1.0)
                })
                .sum();
            gone / features::float(u64::try_from(terms.opps).unwrap_or(1).max(1))
        };
        self.terms.classes.iter().map(of_class).collect()
    }

    /// How often rounding had spoilt the covariance so far that it was taken back to the prior's.
    pub fn numerical_resets(&self) -> u32 {
        self.filter.resets()
    }
}

/// Rows collected until they tell the scale of a prior that has none.
#[derive(Clone, Debug, Default)]
struct Calibration {
    rows: Vec<Early>,
}

/// A row from before the scale was known.
#[derive(Clone, Debug)]
struct Early {
    meter: Meter,
    row: Row,
    watts: f64,
    duration: Nanos,
    /// The prior's activity power, on the prior's scale.
    activity: f64,
}

/// Rows that calibrate: 4 s at 4 Hz. Older ones give way to newer ones while the machine idles.
const CALIBRATION_ROWS: usize = 16;

impl Calibration {
    fn add(&mut self, meter: Meter, row: Row, watts: f64, duration: Nanos, prior: &Filter) {
        if self.rows.len() >= CALIBRATION_ROWS {
            self.rows.remove(0);
        }
        let activity = prior.mean_of(&row);
        self.rows.push(Early {
            meter,
            row,
            watts,
            duration,
            activity,
        });
    }

    /// W per unit of the prior: slope of measured power over the prior's, relative errors equal, with a
    /// weak belief that a third of the mean is base power. `None` until there are rows enough.
    fn scale(&self) -> Option<f64> {
        if self.rows.len() < CALIBRATION_ROWS {
            return None;
        }
        let count = features::float(u64::try_from(self.rows.len()).ok()?);
        let mean = self.rows.iter().map(|row| row.watts).sum::<f64>() / count;
        if mean <= 0.0 {
            return None;
        }
        // Normal equations of (base, scale); the belief counts as one row.
        let (mut n, mut a, mut aa, mut y, mut ay) = (1.0, 0.0, 0.0, mean / 3.0, 0.0);
        for row in &self.rows {
            let weight = (mean / (row.watts + 0.1 * mean)).powi(2);
            n += weight;
            a += weight * row.activity;
            aa += weight * row.activity.powi(2);
            y += weight * row.watts;
            ay += weight * row.activity * row.watts;
        }
        let determinant = n * aa - a * a;
        let scale = (n * ay - a * y) / determinant;
        let through_origin = ay / aa;
        // A negative slope or base: the rows do not tell base and activity apart.
        let scale = if scale > 0.0 && scale < through_origin {
            scale
        } else {
            through_origin
        };
        (scale.is_finite() && scale > 0.0).then_some(scale)
    }
}
