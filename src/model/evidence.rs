//! What observations say of a machine's power, apart from any prior: sums over rows that add up over runs
//! and over machines of one kind.
//!
//! A row is z = (x, y): the coefficients of the parameters and the measured power. Σ z·zᵀ/σ² is all that a
//! Gaussian fit needs to know of any number of rows. [`Evidence::belief`] puts it on top of a prior:
//! information matrices are added, so that what was never excited stays at the prior.

use super::belief::{self, Belief};
use super::change::{NOISE_BOUNDS, NOISE_FLOOR};
use super::features::{Meter, Refusal, Row, Shape, Terms, absurd, float};
use super::fit::dot;
use super::power::{Prior, Start};
use crate::observation::Observation;
use nalgebra::{Cholesky, DMatrix, DVector, SymmetricEigen};

/// Noise of a row relative to its power, before any is measured.
const FIRST_NOISE: f64 = 0.02;
/// Rounds of fitting and weighing; three suffice where nothing else draws from the meter.
const ROUNDS: usize = 8;
/// Residuals beyond this many standard deviations weigh less (Huber).
const HUBER: f64 = 2.5;
/// Median of |x| of a standard normal variable, inverted.
const MAD: f64 = 1.4826;
/// Rounding that sums may carry, relative to their diagonal.
const ROUNDING: f64 = 1e-6;

/// Sums over the rows of calibrations.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Calibrations added up.
    pub runs: u64,
    /// Rows, all runs together.
    pub rows: u64,
    /// Standard deviation of a row relative to its power, 0..=1; 0 without rows.
    pub noise: f64,
    /// W per unit of a prior that has no scale of its own, else 1; above 0.
    pub scale: f64,
    /// Σ z·zᵀ/σ², lower triangle: one list per parameter, in the order of [`parameters`], and a last one
    /// for the measured power. Powers in W, energies in J.
    pub sums: Vec<Vec<f64>>,
}

/// The names of a machine's parameters, in the order of [`Evidence::sums`].
pub fn parameters(shape: &Shape) -> Vec<String> {
    belief::names(&Terms::new(shape.clone()))
}

/// One row with its measured power, W.
struct Sample {
    row: Row,
    watts: f64,
}

impl Evidence {
    /// What nobody measured.
    pub fn none(shape: &Shape) -> Self {
        let len = parameters(shape).len();
        Self {
            runs: 0,
            rows: 0,
            noise: 0.0,
            scale: 1.0,
            sums: (0..=len).map(|row| vec![0.0; row + 1]).collect(),
        }
    }

    /// The same among more parameters, of which it says nothing: `now` holds all of `before`, in their order.
    pub(super) fn among(&self, before: &[String], now: &[String]) -> Self {
        // the last row is the measured power's
        let place = |name: Option<&String>| match name {
            Some(name) => before.iter().position(|known| known == name),
            None => Some(before.len()),
        };
        let places: Vec<_> = (0..=now.len()).map(|at| place(now.get(at))).collect();
        let known =
            |row: Option<usize>, column: Option<usize>| self.sums.get(row?)?.get(column?).copied();
        let row = |(at, row): (usize, &Option<usize>)| {
            let columns = places.iter().take(at + 1);
            columns
                .map(|column| known(*row, *column).unwrap_or(0.0))
                .collect()
        };
        Self {
            sums: places.iter().enumerate().map(row).collect(),
            ..self.clone()
        }
    }

    /// What the observations of one run say, and the meter that said it: the closest to the CPUs' supply that
    /// gave at least half as many readings as there are observations. Observations that the model would refuse
    /// do not count.
    ///
    /// # Errors
    /// A shape that a cost table cannot hold, a prior that does not match it, or no meter.
    pub fn fit(
        shape: &Shape,
        prior: &Prior,
        observations: &[Observation],
    ) -> Result<(Self, Meter), Refusal> {
        shape.check()?;
        let terms = Terms::new(shape.clone());
        let mut start = prior.start(&terms)?;
        let (meter, samples) = samples(&terms, observations).ok_or(Refusal::NoMeter)?;
        let scale = match start.scaled {
            true => 1.0,
            false => scale_of(&samples, &start.mean).ok_or(Refusal::NoMeter)?,
        };
        start.rescale(scale);
        let count = float(u64::try_from(samples.len()).unwrap_or(u64::MAX));
        let mean = samples.iter().map(|sample| sample.watts).sum::<f64>() / count;
        let mut noise = FIRST_NOISE;
        let mut powers: Vec<f64> = samples.iter().map(|sample| sample.watts).collect();
        let mut weights = vec![1.0; samples.len()];
        let mut sums = DMatrix::zeros(terms.len + 1, terms.len + 1);
        for _ in 0..ROUNDS {
            let spread = |power: &f64| (power.max(0.0) + NOISE_FLOOR * mean).max(1e-9);
            sums.fill(0.0);
            for ((sample, power), weight) in samples.iter().zip(&powers).zip(&weights) {
                let variance = (noise * spread(power)).powi(2);
                add(&mut sums, sample, weight / variance);
            }
            let posterior = Posterior::new(&start, &sums).ok_or(Refusal::BadPrior)?;
            let fitted: Vec<f64> = (samples.iter())
                .map(|sample| dot(&sample.row, &posterior.mean))
                .collect();
            let residuals: Vec<f64> = (samples.iter().zip(&fitted))
                .map(|(sample, fitted)| (sample.watts - fitted) / spread(fitted))
                .collect();
            let free = (count - posterior.learnt).max(0.1 * count) / count;
            noise = (MAD * median(residuals.iter().map(|r| r.abs())) / free.sqrt())
                .clamp(NOISE_BOUNDS.0, NOISE_BOUNDS.1);
            weights = (residuals.iter())
                .map(|r| (HUBER * noise / r.abs().max(f64::MIN_POSITIVE)).min(1.0))
                .collect();
            powers = fitted;
        }
        let evidence = Self {
            runs: 1,
            rows: u64::try_from(samples.len()).unwrap_or(u64::MAX),
            noise,
            scale,
            sums: triangle(&sums),
        };
        Ok((evidence, meter))
    }

    /// What all of these say together. Evidence without rows changes nothing, and the order does not matter.
    /// `None` when they are about different parameters, or when there are none.
    pub fn merged(all: &[&Self]) -> Option<Self> {
        let first = all.first()?;
        let lengths = |evidence: &Self| evidence.sums.iter().map(Vec::len).collect::<Vec<_>>();
        if all.iter().any(|it| lengths(it) != lengths(first)) {
            return None;
        }
        let rows = all
            .iter()
            .try_fold(0u64, |sum, it| sum.checked_add(it.rows))?;
        let runs = all
            .iter()
            .try_fold(0u64, |sum, it| sum.checked_add(it.runs))?;
        // Means over rows: of the variance, and of the scale's logarithm.
        let mean = |value: &dyn Fn(&Self) -> f64| {
            let informed = all.iter().filter(|it| it.rows > 0);
            let weighed = sum(informed.map(|it| float(it.rows) * value(it)).collect());
            if rows > 0 { weighed / float(rows) } else { 0.0 }
        };
        let cell = |row: usize, column: usize| {
            let of = |it: &&Self| it.sums.get(row).and_then(|row| row.get(column)).copied();
            sum(all.iter().filter_map(of).collect())
        };
        let sums = lengths(first).into_iter().enumerate();
        Some(Self {
            runs,
            rows,
            noise: mean(&|it| it.noise.powi(2)).sqrt(),
            scale: mean(&|it| it.scale.ln()).exp(),
            sums: sums
                .map(|(row, len)| (0..len).map(|column| cell(row, column)).collect())
                .collect(),
        })
    }

    /// The prior with this evidence on top.
    ///
    /// # Errors
    /// A shape that a cost table cannot hold, a prior that does not match it, or sums that no rows of this shape
    /// can have: each names the number, its value and what would be right.
    pub fn belief(&self, shape: &Shape, prior: &Prior) -> Result<Belief, Refusal> {
        shape.check()?;
        let terms = Terms::new(shape.clone());
        let mut start = prior.start(&terms)?;
        let sums = self.check(&terms)?;
        if !start.scaled {
            start.rescale(self.scale);
        }
        let posterior = Posterior::new(&start, &sums).ok_or(Refusal::BadPrior)?;
        let rows = |matrix: &DMatrix<f64>| matrix.transpose().as_slice().to_vec();
        Ok(Belief {
            names: belief::names(&terms),
            mean: posterior.mean.as_slice().to_vec(),
            covariance: rows(&posterior.covariance),
            prior_mean: start.mean.as_slice().to_vec(),
            prior_covariance: rows(&start.covariance),
        })
    }

    /// The sums as a matrix, when they can be what they claim to be.
    fn check(&self, terms: &Terms) -> Result<DMatrix<f64>, Refusal> {
        if !(self.noise.is_finite() && (0.0..=1.0).contains(&self.noise)) {
            absurd("noise", self.noise, "0 to 1")?;
        }
        if !(self.scale.is_finite() && self.scale > 0.0) {
            absurd("scale", self.scale, "a number above 0")?;
        }
        let mut names = belief::names(terms);
        names.push("power".to_owned());
        if self.sums.len() != names.len() {
            let expected = format!("{}, one per parameter and one of power", names.len());
            absurd("number of rows of the sums", self.sums.len(), expected)?;
        }
        let mut sums = DMatrix::zeros(names.len(), names.len());
        for (i, (row, name)) in self.sums.iter().zip(&names).enumerate() {
            if row.len() != i + 1 {
                let what = format!("number of sums of {name}");
                absurd(what, row.len(), (i + 1).to_string())?;
            }
            for (j, (&value, other)) in row.iter().zip(&names).enumerate() {
                let what = || format!("sum of {name} and {other}");
                if !value.is_finite() {
                    absurd(what(), value, "a finite number")?;
                }
                if i == j && value < 0.0 {
                    absurd(what(), value, "at least 0")?;
                }
                if self.rows == 0 && value != 0.0 {
                    absurd(what(), value, "0, since there are no rows")?;
                }
                sums.view_mut((i, j), (1, 1)).fill(value);
                sums.view_mut((j, i), (1, 1)).fill(value);
            }
        }
        possible(&sums, &names)?;
        Ok(sums)
    }
}

impl Start {
    fn rescale(&mut self, scale: f64) {
        self.mean *= scale;
        self.covariance *= scale.powi(2);
    }
}

/// Whether rows can have these sums: Σ z·zᵀ has no negative eigenvalue.
fn possible(sums: &DMatrix<f64>, names: &[String]) -> Result<(), Refusal> {
    let roots = sums.diagonal().map(f64::sqrt);
    let relative = DMatrix::from_fn(sums.nrows(), sums.ncols(), |i, j| {
        let at = |k: usize| roots.get(k).copied().unwrap_or(0.0);
        let value = sums.get((i, j)).copied().unwrap_or(0.0);
        match at(i) * at(j) {
            bound if bound > 0.0 => value / bound,
            _ if value == 0.0 => 0.0,
            _ => f64::INFINITY,
        }
    });
    let beyond = |value: &f64| value.abs() > 1.0 + ROUNDING;
    if let Some(index) = relative.iter().position(beyond) {
        let (i, j) = (index % sums.nrows(), index / sums.nrows());
        let name = |k: usize| names.get(k).map_or("", String::as_str);
        let value = sums.get((i, j)).copied().unwrap_or(0.0);
        let most = roots.get(i).copied().unwrap_or(0.0) * roots.get(j).copied().unwrap_or(0.0);
        absurd(
            format!("sum of {} and {}", name(i.max(j)), name(i.min(j))),
            value,
            format!("within ±{most}, which the two's own sums allow"),
        )?;
    }
    let least = SymmetricEigen::new(relative).eigenvalues.min();
    if least.is_nan() || least < -ROUNDING {
        absurd(
            "least eigenvalue of the sums",
            least,
            "at least 0: the numbers do not belong together",
        )?;
    }
    Ok(())
}

/// A prior with evidence on top.
struct Posterior {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
    /// How many parameters' worth of the prior's doubt is gone.
    learnt: f64,
}

impl Posterior {
    /// In units of the prior's standard deviations, where prior information is the identity: the parameters
    /// span seven orders of magnitude. `None` when the prior's covariance is none or the sums are negative.
    fn new(start: &Start, sums: &DMatrix<f64>) -> Option<Self> {
        let len = start.mean.len();
        let root = Cholesky::new(start.covariance.clone())?.unpack();
        let information = sums.view((0, 0), (len, len)).into_owned();
        let vector = sums.view((0, len), (len, 1)).column(0).into_owned();
        let gained = root.tr_mul(&(&information * &root));
        let doubt = Cholesky::new(gained + DMatrix::identity(len, len))?.inverse();
        let mut covariance = &root * &doubt * root.transpose();
        covariance = (&covariance + covariance.transpose()) * 0.5;
        let mean = &start.mean + &covariance * (vector - information * &start.mean);
        let finite = mean.iter().chain(covariance.iter()).all(|v| v.is_finite());
        finite.then_some(Self {
            mean,
            covariance,
            learnt: float(u64::try_from(len).ok()?) - doubt.trace(),
        })
    }
}

/// The rows of the best meter.
fn samples(terms: &Terms, observations: &[Observation]) -> Option<(Meter, Vec<Sample>)> {
    let rows: Vec<_> = (observations.iter())
        .filter_map(|observation| terms.rows(observation).ok())
        .collect();
    let of = |meter: Meter| -> Vec<Sample> {
        let rows = rows.iter().flatten().filter(|(it, ..)| *it == meter);
        rows.map(|(_, row, watts)| Sample {
            row: row.clone(),
            watts: *watts,
        })
        .collect()
    };
    let meters = [Meter::Package, Meter::Cores, Meter::System];
    let candidates = meters.map(|meter| (meter, of(meter)));
    candidates
        .into_iter()
        .find(|(_, samples)| !samples.is_empty() && samples.len() * 2 >= rows.len())
}

/// W per unit of a prior without a scale: slope of measured power over the prior's activity power beside a
/// constant, relative errors equal. `None` where the rows do not tell.
fn scale_of(samples: &[Sample], prior: &DVector<f64>) -> Option<f64> {
    let (mut n, mut a, mut aa, mut y, mut ay) = (0.0, 0.0, 0.0, 0.0, 0.0);
    let count = float(u64::try_from(samples.len()).ok()?);
    let mean = samples.iter().map(|sample| sample.watts).sum::<f64>() / count;
    for sample in samples {
        // The prior's base power is 0: only activity counts here.
        let activity = dot(&sample.row, prior);
        let weight = (mean / (sample.watts + NOISE_FLOOR * mean)).powi(2);
        n += weight;
        a += weight * activity;
        aa += weight * activity.powi(2);
        y += weight * sample.watts;
        ay += weight * activity * sample.watts;
    }
    let slope = (n * ay - a * y) / (n * aa - a * a);
    let through_origin = ay / aa;
    let believable = |scale: &f64| scale.is_finite() && *scale > 0.0;
    [slope, through_origin].into_iter().find(believable)
}

/// Adds weight · z·zᵀ.
fn add(sums: &mut DMatrix<f64>, sample: &Sample, weight: f64) {
    let last = sums.nrows().saturating_sub(1);
    let entries = || sample.row.iter().chain([(last, sample.watts)]);
    for (i, one) in entries() {
        for (j, other) in entries() {
            if let Some(cell) = sums.get_mut((i, j)) {
                *cell += weight * one * other;
            }
        }
    }
}

fn triangle(matrix: &DMatrix<f64>) -> Vec<Vec<f64>> {
    let row = |(i, row): (usize, nalgebra::DVector<f64>)| row.iter().take(i + 1).copied().collect();
    let rows = matrix.row_iter().map(|row| row.transpose());
    rows.enumerate().map(row).collect()
}

/// The same whatever the order of the terms.
fn sum(mut terms: Vec<f64>) -> f64 {
    terms.sort_by(f64::total_cmp);
    terms.into_iter().sum()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
