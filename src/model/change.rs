//! What stands between one meter and the filter: noise that is measured, neighbouring rows made
//! independent, outliers held back, and the question whether the machine has changed or something else is
//! drawing from the rail.
//!
//! Slow foreign load (uncore, display, tasks of unusual activity) correlates neighbouring residuals. A row
//! is therefore learnt as its difference from ρ × the row before (Cochrane and Orcutt 1949), ρ being the
//! residuals' own correlation: error bars then mean what they say.
//!
//! Each simple event has a signature, a direction in which the rows' residuals line up: one class drawing
//! a multiple (clock or voltage changed), one class leaking more (temperature), the base shifting (another
//! consumer). A likelihood ratio per signature tells them apart; the filter then doubts that direction
//! again, and only that one.

use super::features::{ClassTerms, Meter, Row, Terms};
use super::fit::{Filter, dot};
use crate::units::Nanos;
use nalgebra::DVector;
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
const ENOUGH: usize = 12;
const RECONSIDER: usize = 8;
/// Rows kept for a verdict.
const WINDOW: usize = 48;
/// Normal rows in a row that end a suspicion.
const CALM: usize = 8;
/// Foreign rows after which the new base is accepted: 2 min at 4 Hz.
const SETTLED: usize = 480;
/// A class explains held rows only if it leaves less than this of what a shifted base would leave.
const BETTER: f64 = 0.6;
/// Memory of the drift statistics in rows, and the χ²₁ value that counts as a change (about 5 σ).
const DRIFT_ROWS: f64 = 32.0;
const DRIFT: f64 = 25.0;
/// Rows after a change before the next is looked for.
const COOL_DOWN: usize = 24;
/// Relative noise before any is measured, and its bounds.
const FIRST_NOISE: f64 = 0.05;
const NOISE_BOUNDS: (f64, f64) = (0.003, 0.5);
/// Memory of the noise and correlation estimates in rows.
const NOISE_ROWS: f64 = 60.0;
/// Part of the mean power that carries noise even when the power itself is low.
const NOISE_FLOOR: f64 = 0.1;
/// Most correlation that is believed.
const MAX_CORRELATION: f64 = 0.95;

/// A row ready for the filter, with the variance of its noise.
#[derive(Clone, Debug)]
struct Sample {
    row: Row,
    watts: f64,
    noise: f64,
    held: bool,
}

/// The row before, for differencing.
#[derive(Clone, Debug)]
struct Previous {
    row: Row,
    watts: f64,
    duration: Nanos,
    /// Residual in standard deviations.
    residual: f64,
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

    /// The class that explains most, and how much.
    fn best_class(&self) -> Option<(usize, f64)> {
        (self.classes.iter().enumerate())
            .map(|(k, (scale, leak))| (k, scale.explained().max(leak.explained())))
            .max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The directions to doubt when `change` is believed, as long as the change seems to be.
    fn directions(
        &self,
        change: Change,
        terms: &Terms,
        mean: &DVector<f64>,
        meter: Meter,
    ) -> Vec<Vec<(usize, f64)>> {
        let Change::Class(k) = change else {
            return vec![vec![(meter.index(), self.base.amount())]];
        };
        let (Some(class), Some((scale, leak))) = (terms.classes.get(k), self.classes.get(k)) else {
            return Vec::new();
        };
        let factor = scale.amount().clamp(-1.0, 4.0);
        let at = |p: usize| mean.get(p).copied().unwrap_or(0.0).max(0.0);
        vec![
            (class.busy..class.end)
                .map(|p| (p, factor * at(p)))
                .collect(),
            busy_range(class).map(|p| (p, leak.amount())).collect(),
        ]
    }
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
    previous: Option<Previous>,
    window: VecDeque<Sample>,
    held: usize,
    calm: usize,
    foreign: bool,
    drift: Signatures,
    cool_down: usize,
}

impl Channel {
    pub fn new(meter: Meter, terms: &Terms) -> Self {
        Self {
            meter,
            noise: FIRST_NOISE,
            mean_watts: None,
            spread: NOISE_ROWS,
            lagged: 0.0,
            previous: None,
            window: VecDeque::with_capacity(WINDOW),
            held: 0,
            calm: 0,
            foreign: false,
            drift: Signatures::new(terms),
            cool_down: COOL_DOWN,
        }
    }

    /// Whether this meter has given any row.
    pub fn used(&self) -> bool {
        self.mean_watts.is_some()
    }

    fn correlation(&self) -> f64 {
        (self.lagged / self.spread).clamp(0.0, MAX_CORRELATION)
    }

    /// Standard deviation of a row's whole noise at a power, W.
    pub fn noise_at(&self, watts: f64) -> f64 {
        self.independent_noise(watts) / (1.0 - self.correlation().powi(2)).sqrt()
    }

    fn independent_noise(&self, watts: f64) -> f64 {
        let floor = NOISE_FLOOR * self.mean_watts.unwrap_or(watts);
        (self.noise * (watts.max(0.0) + floor)).max(1e-9)
    }

    /// Learns a row, or holds it back and says why.
    pub fn step(
        &mut self,
        filter: &mut Filter,
        terms: &Terms,
        row: Row,
        watts: f64,
        duration: Nanos,
    ) -> Outcome {
        let mean_watts = self.mean_watts.get_or_insert(watts);
        *mean_watts += (watts - *mean_watts).clamp(-*mean_watts, *mean_watts) / NOISE_ROWS;
        let expected = filter.mean_of(&row);
        let residual = (watts - expected) / self.noise_at(expected);
        let previous = self
            .previous
            .take()
            .filter(|p| comparable(p.duration, duration));
        let sample = self.whitened(&row, watts, expected, previous.as_ref());
        let projection = filter.project(&sample.row);
        let error = sample.watts - projection.value;
        let z = error / (projection.variance + sample.noise).sqrt();
        if z.abs() > OUTLIER {
            return self.hold(filter, terms, sample);
        }
        let huber = (z.abs() / HUBER).max(1.0);
        filter.learn(&sample.row, sample.watts, sample.noise * huber);
        self.track_noise(z, residual, previous.map(|p| p.residual));
        self.previous = Some(Previous {
            row,
            watts,
            duration,
            residual,
        });
        self.drift.fade(1.0 - 1.0 / DRIFT_ROWS);
        let clipped = error / huber;
        let variance = projection.variance + sample.noise;
        let weighed = Sample {
            noise: variance,
            ..sample
        };
        self.drift.add(terms, filter.mean(), &weighed, clipped);
        if self.held > 0 {
            self.remember(weighed);
            self.calm += 1;
            if self.calm >= CALM {
                self.settle();
            }
        }
        self.watch_drift(filter, terms)
    }

    /// The row's difference from what the row before lets expect, and its independent noise.
    fn whitened(
        &self,
        row: &Row,
        watts: f64,
        expected: f64,
        previous: Option<&Previous>,
    ) -> Sample {
        let rho = self.correlation();
        match previous {
            Some(previous) if rho > 0.0 => Sample {
                row: row.minus(rho, &previous.row),
                watts: watts - rho * previous.watts,
                noise: self.independent_noise(expected).powi(2),
                held: false,
            },
            _ => Sample {
                row: row.clone(),
                watts,
                noise: self.noise_at(expected).powi(2),
                held: false,
            },
        }
    }

    fn track_noise(&mut self, z: f64, residual: f64, before: Option<f64>) {
        let surprise = z.powi(2).min(9.0) - 0.97;
        let (least, most) = NOISE_BOUNDS;
        self.noise *= (0.5 * surprise / NOISE_ROWS).exp();
        self.noise = self.noise.clamp(least, most);
        if let Some(before) = before {
            let clip = |value: f64| value.clamp(-4.0, 4.0);
            let keep = 1.0 - 1.0 / (2.0 * NOISE_ROWS);
            self.spread = self.spread * keep + clip(residual).powi(2);
            self.lagged = self.lagged * keep + clip(residual) * clip(before);
        }
    }

    fn watch_drift(&mut self, filter: &mut Filter, terms: &Terms) -> Outcome {
        if self.cool_down > 0 {
            self.cool_down -= 1;
            return Outcome::Learnt;
        }
        let base = self.drift.base.explained();
        let change = match self.drift.best_class() {
            Some((k, explained)) if explained > base.max(DRIFT) => Change::Class(k),
            _ if base > DRIFT => Change::Base,
            _ => return Outcome::Learnt,
        };
        filter.open(
            &self
                .drift
                .directions(change, terms, filter.mean(), self.meter),
        );
        self.restart_drift(terms);
        Outcome::Changed(change)
    }

    fn restart_drift(&mut self, terms: &Terms) {
        self.drift = Signatures::new(terms);
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
            Some((change, evidence)) => {
                filter.open(&evidence.directions(change, terms, filter.mean(), self.meter));
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

    /// What the held rows mean, if that is something to learn.
    fn diagnose(&mut self, filter: &Filter, terms: &Terms) -> Option<(Change, Signatures)> {
        let mut evidence = Signatures::new(terms);
        let mut total = 0.0;
        for sample in &self.window {
            let error = sample.watts - dot(&sample.row, filter.mean());
            total += error.powi(2) / sample.noise;
            evidence.add(terms, filter.mean(), sample, error);
        }
        let left_by_base = total - evidence.base.explained();
        if let Some((k, explained)) = evidence.best_class()
            && total - explained < BETTER * left_by_base
        {
            return Some((Change::Class(k), evidence));
        }
        self.foreign = true;
        // Power that went away was a consumer that ended: nothing to wait for.
        let ended = evidence.base.amount() < 0.0;
        (ended || self.held >= SETTLED).then_some((Change::Base, evidence))
    }
}

/// Intervals so different in length average foreign load differently.
fn comparable(before: Nanos, now: Nanos) -> bool {
    let (before, now) = (before.get(), now.get());
    before <= now.saturating_mul(2) && now <= before.saturating_mul(2)
}
