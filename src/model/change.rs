//! What stands between one meter and the filter: noise that is measured, neighbouring rows made
//! independent, outliers held back, and the question whether the machine has changed or something else is
//! drawing from the rail.
//!
//! Slow foreign load (uncore, display, tasks of unusual activity) correlates neighbouring residuals. It is
//! taken for a first-order autoregression below white meter noise; each row is learnt as what is new in it
//! against the rows before, by the steady Kalman filter of that disturbance applied to row and reading
//! alike. Rows are then independent, and error bars mean what they say.
//!
//! Each simple event has a signature, a direction in which the rows' residuals line up: one class drawing
//! a multiple (clock or voltage changed), one class leaking more (temperature), the base shifting (another
//! consumer). A likelihood ratio per signature tells them apart; the filter then doubts that direction
//! again, and only that one.

use super::features::{ClassTerms, Meter, Row, Terms, float};
use super::fit::{Filter, dot};
use crate::units::Nanos;
use nalgebra::DVector;
use num_traits::ToPrimitive;
use std::collections::VecDeque;

/// What changed in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Power that does not depend on the CPUs' activity.
    Base,
    /// The power of one class, by its number.
    Class(usize),
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    Learnt,
    /// An outlier: kept aside until it is clear what it means.
    Held,
    /// Held, and found to come from something other than the CPUs.
    Foreign,
    Changed(Change),
}

/// Residuals beyond this many standard deviations are held back, beyond the second weigh less.
const OUTLIER: f64 = 5.0;
const HUBER: f64 = 2.5;
/// Held rows that make a verdict possible, and how often it is reconsidered: 3 s and 2 s at 4 Hz.
const ENOUGH: usize = 8;
const RECONSIDER: usize = 4;
/// Rows kept for a verdict.
const WINDOW: usize = 64;
/// Normal rows in a row that end a suspicion: the suspected class may merely have been idle.
const CALM: usize = 40;
/// Foreign rows after which the new base is accepted: 2 min at 4 Hz.
const SETTLED: usize = 480;
/// A class explains held rows only if it leaves less than this of what a shifted base would leave.
const BETTER: f64 = 0.6;
/// ... and if it leaves no more than this many times what noise would, and if no power is thought to have
/// grown by more than this factor: what draws three times the package is not a CPU.
const EXPLAINED: f64 = 12.0;
const CREDIBLE: f64 = 2.5;
/// Drift is looked for over two lengths of memory, in rows: a long one finds small drifts, a short one is not
/// diluted by the time before.
const DRIFT_ROWS: [f64; 2] = [16.0, 64.0];
/// The χ²₁ values that raise a suspicion (3 and 2.8 σ): the filter doubts that direction, and what follows
/// decides. Where nothing changes but the tasks this happens 20 to 26 times an hour; at 4 σ a leakage step is
/// not followed in 30 s.
const SUSPICIOUS: [f64; 2] = [9.0, 8.0];
/// The values that count as a change (5 and 4.5 σ): none in eight hours in which only the tasks change.
const CHANGED: [f64; 2] = [25.0, 20.0];
/// By how much a class has to explain more than the base does, or the other way round: until then it is
/// worth waiting.
const DECISIVE: f64 = 2.0;
/// How much of the apparent drift is doubted.
const DOUBTED: f64 = 0.5;
/// Rows after a change before the next is looked for.
const COOL_DOWN: usize = 12;
/// Relative noise before any is measured, and its bounds.
const FIRST_NOISE: f64 = 0.05;
pub(super) const NOISE_BOUNDS: (f64, f64) = (0.003, 0.5);
/// Memory of the noise and correlation estimates in rows.
const NOISE_ROWS: f64 = 80.0;
/// Part of the mean power that carries noise even when the power itself is low.
pub(super) const NOISE_FLOOR: f64 = 0.3;
/// Time constant of the disturbance, s: tasks come and go, screens change.
const DISTURBANCE_S: f64 = 4.0;
/// Part of the noise that is taken for disturbance before any is measured. Where tasks' activities differ by
/// 15 % and other loads by 2 %, a meter of 2 % noise leaves 0.75 to 0.85; taking it for white noise makes
/// the first minute's error bars too small, as the fit then follows the disturbance and hides it.
const FIRST_SHARE: f64 = 0.8;
/// Most of the noise that is believed to be disturbance rather than white.
const MAX_SHARE: f64 = 0.95;

/// A row ready for the filter, with the variance of its noise.
#[derive(Clone, Debug)]
struct Sample {
    row: Row,
    watts: f64,
    noise: f64,
    held: bool,
}

/// What the rows so far let expect of the next one beyond its own terms.
#[derive(Clone, Debug)]
struct Carried {
    row: DVector<f64>,
    watts: f64,
    /// Variance of the disturbance given the rows so far, relative to the whole noise's.
    variance: f64,
    /// Noise of the last row, W.
    noise: Option<f64>,
    /// Residual of the last row, in standard deviations of the whole noise.
    residual: Option<f64>,
}

impl Carried {
    fn nothing(len: usize) -> Self {
        Self {
            row: DVector::zeros(len),
            watts: 0.0,
            variance: 1.0,
            noise: None,
            residual: None,
        }
    }

    /// Time passes: the disturbance decays by `persistence` toward its mean, its variance grows toward
    /// `share`. Where power, and so its `noise`, fell, what caused the disturbance may have gone with it.
    fn age(&mut self, persistence: f64, share: f64, noise: f64) {
        let before = self.noise.replace(noise).unwrap_or(noise);
        let kept = persistence * (noise / before).min(1.0);
        self.row *= kept;
        self.watts *= kept;
        let fading = persistence.powi(2);
        self.variance = fading * self.variance.min(share) + (1.0 - fading) * share;
    }

    /// A row's innovation tells of the disturbance.
    fn absorb(&mut self, innovation: &Sample, share: f64) {
        let gain = self.variance / (self.variance + 1.0 - share);
        for (parameter, coefficient) in innovation.row.iter() {
            if let Some(cell) = self.row.get_mut(parameter) {
                *cell += gain * coefficient;
            }
        }
        self.watts += gain * innovation.watts;
        self.variance *= 1.0 - gain;
    }
}

/// Sums of a likelihood ratio along one signature h: Σ h·e/r and Σ h²/r.
#[derive(Clone, Copy, Debug, Default)]
struct Ratio {
    along: f64,
    weight: f64,
}

impl Ratio {
    fn add(&mut self, signature: f64, residual: f64, noise: f64) {
        self.along += signature * residual / noise;
        self.weight += signature * signature / noise;
    }

    fn fade(&mut self, factor: f64) {
        self.along *= factor;
        self.weight *= factor;
    }

    /// How much of Σ e²/r the signature explains.
    fn explained(self) -> f64 {
        if self.weight > 0.0 {
            self.along.powi(2) / self.weight
        } else {
            0.0
        }
    }

    /// How much of the signature there is.
    fn amount(self) -> f64 {
        if self.weight > 0.0 {
            self.along / self.weight
        } else {
            0.0
        }
    }
}

/// One likelihood ratio per signature.
#[derive(Clone, Debug)]
struct Signatures {
    base: Ratio,
    /// Per class: all its power times a factor; busy power plus a constant.
    classes: Vec<(Ratio, Ratio)>,
}

impl Signatures {
    fn new(terms: &Terms) -> Self {
        Self {
            base: Ratio::default(),
            classes: vec![<(Ratio, Ratio)>::default(); terms.classes.len()],
        }
    }

    fn add(&mut self, terms: &Terms, mean: &DVector<f64>, sample: &Sample, residual: f64) {
        let mut entries = sample.row.iter().peekable();
        let mut base = 0.0;
        let first = terms.classes.first().map_or(0, |class| class.busy);
        while let Some((_, coefficient)) = entries.next_if(|(p, _)| *p < first) {
            base += coefficient;
        }
        self.base.add(base, residual, sample.noise);
        for (class, (scale, leak)) in terms.classes.iter().zip(&mut self.classes) {
            let (mut power, mut busy) = (0.0, 0.0);
            while let Some((p, coefficient)) = entries.next_if(|(p, _)| *p < class.end) {
                power += coefficient * mean.get(p).copied().unwrap_or(0.0);
                if p < class.busy + class.opps {
                    busy += coefficient;
                }
            }
            scale.add(power, residual, sample.noise);
            leak.add(busy, residual, sample.noise);
        }
    }

    fn fade(&mut self, factor: f64) {
        self.base.fade(factor);
        for (scale, leak) in &mut self.classes {
            scale.fade(factor);
            leak.fade(factor);
        }
    }

    /// The event that explains at least `least` and clearly more than the other kind of event does.
    fn decisive(&self, least: f64) -> Option<(Event, Ratio)> {
        let by_base = self.base.explained();
        let class = self.best_class()?;
        let by_class = class.1.explained();
        let (best, other, event) = if by_class > by_base {
            (by_class, by_base, class)
        } else {
            (by_base, by_class, (Event::Base, self.base))
        };
        (best > least && best > other + DECISIVE).then_some(event)
    }

    /// The class event that explains most, how much it explains, and how much of it there is.
    fn best_class(&self) -> Option<(Event, Ratio)> {
        (self.classes.iter().enumerate())
            .flat_map(|(k, (scale, leak))| [(Event::Scale(k), *scale), (Event::Leak(k), *leak)])
            .max_by(|a, b| a.1.explained().total_cmp(&b.1.explained()))
    }
}

/// A simple event, each with a signature.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Base,
    /// All power of a class times a factor.
    Scale(usize),
    /// Busy power of a class plus a constant.
    Leak(usize),
}

impl Event {
    fn change(self) -> Change {
        match self {
            Self::Base => Change::Base,
            Self::Scale(k) | Self::Leak(k) => Change::Class(k),
        }
    }

    /// The event as a direction of the parameters, `amount` long.
    fn direction(
        self,
        amount: f64,
        terms: &Terms,
        mean: &DVector<f64>,
        meter: Meter,
    ) -> Vec<(usize, f64)> {
        match self {
            Self::Base => vec![(meter.index(), amount)],
            Self::Scale(k) => {
                (terms.classes.get(k)).map_or_else(Vec::new, |class| scaled(class, mean, amount))
            }
            Self::Leak(k) => (terms.classes.get(k).into_iter())
                .flat_map(busy_range)
                .map(|p| (p, amount))
                .collect(),
        }
    }

    /// Whether an amount is one that a machine can change by.
    fn credible(self, amount: f64, terms: &Terms, mean: &DVector<f64>) -> bool {
        let largest = match self {
            Self::Base | Self::Scale(_) => 1.0,
            Self::Leak(k) => (terms.classes.get(k).into_iter())
                .flat_map(busy_range)
                .filter_map(|p| mean.get(p).copied())
                .fold(0.0, f64::max),
        };
        (-largest..CREDIBLE * largest).contains(&amount)
    }
}

/// All power of a class times `amount`, as a direction of the parameters.
pub(super) fn scaled(class: &ClassTerms, mean: &DVector<f64>, amount: f64) -> Vec<(usize, f64)> {
    let at = |p: usize| mean.get(p).copied().unwrap_or(0.0).max(0.0);
    (class.busy..class.end)
        .map(|p| (p, amount * at(p)))
        .collect()
}

fn busy_range(class: &ClassTerms) -> std::ops::Range<usize> {
    class.busy..class.busy + class.opps
}

/// One meter's way to the filter.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    meter: Meter,
    /// Standard deviation of a row's independent noise, relative to power.
    noise: f64,
    mean_watts: Option<f64>,
    /// Decayed Σ z², Σ z·z₋₁ of residuals in standard deviations.
    spread: f64,
    lagged: f64,
    carried: Carried,
    window: VecDeque<Sample>,
    held: usize,
    calm: usize,
    foreign: bool,
    drift: [Signatures; 2],
    cool_down: usize,
    /// Meters that were read over the same interval.
    alike: f64,
}

impl Channel {
    pub fn new(meter: Meter, terms: &Terms) -> Self {
        Self {
            meter,
            noise: FIRST_NOISE,
            mean_watts: None,
            spread: NOISE_ROWS,
            lagged: FIRST_SHARE * NOISE_ROWS,
            carried: Carried::nothing(terms.len),
            window: VecDeque::with_capacity(WINDOW),
            held: 0,
            calm: 0,
            foreign: false,
            drift: DRIFT_ROWS.map(|_| Signatures::new(terms)),
            cool_down: COOL_DOWN,
            alike: 1.0,
        }
    }

    /// From now on, `meters` (at least 1) read the same intervals. What disturbs them is mostly the same,
    /// tasks of unusual activity, so that together they tell little more than one: each counts that much
    /// less.
    pub fn share_evidence(&mut self, meters: f64) {
        self.alike = meters.max(1.0);
    }

    /// Whether this meter has given any row.
    pub fn used(&self) -> bool {
        self.mean_watts.is_some()
    }

    /// Standard deviation of a row's whole noise at a power, W.
    pub fn noise_at(&self, watts: f64) -> f64 {
        let floor = NOISE_FLOOR * self.mean_watts.unwrap_or(watts);
        (self.noise * (watts.max(0.0) + floor)).max(1e-9)
    }

    /// How much of the noise's variance is disturbance rather than white.
    pub fn disturbance(&self) -> f64 {
        (self.lagged / self.spread).clamp(0.0, MAX_SHARE)
    }

    /// Learns a row, or holds it back and says why.
    pub fn step(
        &mut self,
        filter: &mut Filter,
        terms: &Terms,
        row: &Row,
        watts: f64,
        duration: Nanos,
    ) -> Outcome {
        let mean_watts = self.mean_watts.get_or_insert(watts);
        *mean_watts += (watts - *mean_watts).clamp(-*mean_watts, *mean_watts) / NOISE_ROWS;
        let expected = filter.mean_of(row);
        let noise = self.noise_at(expected);
        let persistence = (-float(duration.get()) * 1e-9 / DISTURBANCE_S).exp();
        self.carried.age(persistence, self.disturbance(), noise);
        let sample = self.innovation(row, watts, noise);
        let projection = filter.project(&sample.row);
        let error = sample.watts - projection.value;
        let variance = projection.variance + sample.noise;
        let z = error / variance.sqrt();
        if z.abs() > OUTLIER {
            // What was carried may belong to another machine than this row.
            self.carried = Carried::nothing(terms.len);
            let sample = self.innovation(row, watts, noise);
            let clipped = HUBER * sample.noise.sqrt() * z.signum();
            self.add_drift(terms, filter, &sample, clipped);
            return self.hold(filter, terms, sample);
        }
        let huber = (z.abs() / HUBER).max(1.0);
        filter.learn_projected(projection, sample.watts, sample.noise * huber * self.alike);
        self.carried.absorb(&sample, self.disturbance());
        let own = sample.noise / variance;
        self.track_noise(z, (watts - expected) / noise, own, persistence);
        let sample = Sample {
            noise: variance,
            ..sample
        };
        self.add_drift(terms, filter, &sample, error / huber);
        if self.held > 0 {
            self.remember(sample);
            self.calm += 1;
            if self.calm >= CALM {
                if self.foreign {
                    self.restart_drift(terms);
                }
                self.settle();
            }
        }
        self.watch_drift(filter, terms)
    }

    /// What is new in a row against what is carried, with the noise of that.
    fn innovation(&self, row: &Row, watts: f64, noise: f64) -> Sample {
        let white = 1.0 - self.disturbance();
        Sample {
            row: row.minus_dense(&self.carried.row),
            watts: watts - self.carried.watts,
            noise: noise.powi(2) * (self.carried.variance + white),
            held: false,
        }
    }

    /// Learns how large the noise is and how much of it persists from a row's error in standard
    /// deviations, in so far as the error is the noise's `own` rather than doubt about the parameters.
    fn track_noise(&mut self, z: f64, residual: f64, own: f64, persistence: f64) {
        let surprise = z.powi(2).min(9.0) - 0.97;
        let (least, most) = NOISE_BOUNDS;
        self.noise *= (0.5 * own * surprise / NOISE_ROWS).exp();
        self.noise = self.noise.clamp(least, most);
        let residual = residual.clamp(-4.0, 4.0);
        if let Some(before) = self.carried.residual.replace(residual) {
            let keep = 1.0 - own / (2.0 * NOISE_ROWS);
            self.spread = self.spread * keep + own * residual.powi(2);
            self.lagged = self.lagged * keep + own * residual * before / persistence.max(0.1);
        }
    }

    fn watch_drift(&mut self, filter: &mut Filter, terms: &Terms) -> Outcome {
        if self.foreign {
            return Outcome::Learnt;
        }
        if self.cool_down > 0 {
            self.cool_down -= 1;
            return Outcome::Learnt;
        }
        let changed = self.drifted(CHANGED, filter, terms);
        let Some((event, ratio)) = changed.or_else(|| self.drifted(SUSPICIOUS, filter, terms))
        else {
            return Outcome::Learnt;
        };
        let along = |part| {
            let amount = part * ratio.amount();
            event.direction(amount, terms, filter.mean(), self.meter)
        };
        let (all, doubted) = (along(1.0), along(DOUBTED));
        if changed.is_some() {
            filter.shift(&all);
        }
        filter.open(&[doubted]);
        self.restart_drift(terms);
        match changed {
            Some(_) => Outcome::Changed(event.change()),
            None => Outcome::Learnt,
        }
    }

    /// The event that explains at least `least` of the residuals over either length of memory.
    fn drifted(&self, least: [f64; 2], filter: &Filter, terms: &Terms) -> Option<(Event, Ratio)> {
        let drifts = self.drift.iter().zip(least);
        drifts
            .filter_map(|(drift, least)| drift.decisive(least))
            .find(|(event, ratio)| event.credible(ratio.amount(), terms, filter.mean()))
    }

    fn add_drift(&mut self, terms: &Terms, filter: &Filter, sample: &Sample, error: f64) {
        for (drift, rows) in self.drift.iter_mut().zip(DRIFT_ROWS) {
            drift.fade(1.0 - 1.0 / rows);
            drift.add(terms, filter.mean(), sample, error);
        }
    }

    fn restart_drift(&mut self, terms: &Terms) {
        self.drift = DRIFT_ROWS.map(|_| Signatures::new(terms));
        self.cool_down = COOL_DOWN;
    }

    fn remember(&mut self, sample: Sample) {
        if self.window.len() >= WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(sample);
    }

    fn settle(&mut self) {
        self.window.clear();
        self.held = 0;
        self.calm = 0;
        self.foreign = false;
    }

    fn hold(&mut self, filter: &mut Filter, terms: &Terms, sample: Sample) -> Outcome {
        self.remember(Sample {
            held: true,
            ..sample
        });
        self.held += 1;
        self.calm = 0;
        let due = self.held >= ENOUGH && (self.held - ENOUGH).is_multiple_of(RECONSIDER);
        match due.then(|| self.diagnose(filter, terms)).flatten() {
            Some((change, doubts)) => {
                filter.open(&doubts);
                for sample in self.window.iter().filter(|sample| sample.held) {
                    filter.learn(&sample.row, sample.watts, sample.noise);
                }
                self.settle();
                self.restart_drift(terms);
                Outcome::Changed(change)
            }
            None if self.foreign => Outcome::Foreign,
            None => Outcome::Held,
        }
    }

    /// What the held rows mean and what to doubt, if that is something to learn.
    fn diagnose(&mut self, filter: &Filter, terms: &Terms) -> Option<(Change, Doubts)> {
        let mean = filter.mean();
        let mut evidence = Signatures::new(terms);
        let mut total = 0.0;
        for sample in &self.window {
            let error = sample.watts - dot(&sample.row, mean);
            total += error.powi(2) / sample.noise;
            evidence.add(terms, mean, sample, error);
        }
        let along = |event: Event, amount| event.direction(amount, terms, mean, self.meter);
        let left_by_base = total - evidence.base.explained();
        if let Some((event, ratio)) = evidence.best_class()
            && let Change::Class(k) = event.change()
            && let Some((scale, leak)) = evidence.classes.get(k)
        {
            let left = total - ratio.explained();
            let rows = self.window.len().to_f64().unwrap_or(f64::MAX);
            if left < BETTER * left_by_base
                && left < EXPLAINED * rows
                && event.credible(ratio.amount(), terms, mean)
            {
                let doubts = vec![
                    along(Event::Scale(k), scale.amount()),
                    along(Event::Leak(k), leak.amount()),
                ];
                return Some((Change::Class(k), doubts));
            }
        }
        self.foreign = true;
        // Power that went away was a consumer that ended: nothing to wait for.
        let amount = evidence.base.amount();
        let settled = amount < 0.0 || self.held >= SETTLED;
        settled.then(|| (Change::Base, vec![along(Event::Base, amount)]))
    }
}

/// Directions to doubt, each a standard deviation long.
type Doubts = Vec<Vec<(usize, f64)>>;
