//! The estimator: a Gaussian over all parameters, held as mean and square root of the covariance.
//!
//! - Learning one row costs O(n²): Potter's square-root update, which keeps the covariance positive.
//! - Old data are forgotten by evidence (Kulhavý's directional forgetting): a row takes away old
//!   knowledge only about the very combination that it measures. What is not excited stays as it was,
//!   in the end at the prior.
//! - Powers and energies are not negative. The constraint is applied on reading, exactly: the point of
//!   the non-negative orthant nearest in the metric of the posterior, by an active set on the dual. It
//!   is the non-negative solution of the regularised normal equations.

use super::features::Row;
use nalgebra::{Cholesky, DMatrix, DVector};

/// Rows after which one combination's knowledge saturates: at 4 Hz four minutes of using it.
const MEMORY_ROWS: f64 = 1000.0;
/// Rows between refactorisations; keeps rounding and the base's drift bounded.
const REFACTOR_ROWS: u32 = 64;
/// Smallest standard deviation kept, relative to the prior's: a condition number of 10^12 at most.
const FLOOR: f64 = 1e-6;

/// What the filter says of a row before it is learnt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Projection {
    /// Expected value.
    pub value: f64,
    /// Variance from the doubt about the parameters.
    pub variance: f64,
}

/// A Gaussian over the parameters.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    mean: DVector<f64>,
    /// covariance = rootᵀ · root
    root: DMatrix<f64>,
    prior_variance: DVector<f64>,
    prior_root: DMatrix<f64>,
    rows: u32,
    /// How often the covariance had lost its meaning and went back to the prior's.
    resets: u32,
    /// Scratch, so that learning does not allocate.
    shadow: DVector<f64>,
    gain: DVector<f64>,
}

impl Filter {
    /// `None` when the covariance is not positive definite.
    pub fn new(mean: DVector<f64>, covariance: DMatrix<f64>) -> Option<Self> {
        let finite = mean.iter().chain(covariance.iter()).all(|v| v.is_finite());
        let prior_variance = covariance.diagonal();
        let root = finite
            .then(|| factor(covariance, &prior_variance))
            .flatten()?;
        let len = mean.len();
        Some(Self {
            mean,
            prior_root: root.clone(),
            root,
            prior_variance,
            rows: 0,
            resets: 0,
            shadow: DVector::zeros(len),
            gain: DVector::zeros(len),
        })
    }

    /// How often the covariance had to be taken back to the prior's.
    pub fn resets(&self) -> u32 {
        self.resets
    }

    /// Unconstrained mean of a linear functional.
    pub fn mean_of(&self, row: &Row) -> f64 {
        dot(row, &self.mean)
    }

    /// The mean of each parameter, unconstrained.
    pub fn mean(&self) -> &DVector<f64> {
        &self.mean
    }

    /// Variance of a linear functional.
    pub fn variance_of(&self, row: &Row) -> f64 {
        shadow(&self.root, row).norm_squared()
    }

    /// Prior variance of a linear functional.
    pub fn prior_variance_of(&self, row: &Row) -> f64 {
        shadow(&self.prior_root, row).norm_squared()
    }

    /// Expected value and variance of a row.
    pub fn project(&mut self, row: &Row) -> Projection {
        self.shadow.fill(0.0);
        for (parameter, coefficient) in row.iter().filter(|(p, _)| *p < self.root.ncols()) {
            self.shadow
                .axpy(coefficient, &self.root.column(parameter), 1.0);
        }
        Projection {
            value: self.mean_of(row),
            variance: self.shadow.norm_squared(),
        }
    }

    /// Learns that `row` was `value`, with a noise of variance `noise` (> 0).
    pub fn learn(&mut self, row: &Row, value: f64, noise: f64) {
        let Projection {
            value: expected,
            variance,
        } = self.project(row);
        if !(noise > 0.0 && variance > 0.0 && value.is_finite() && noise.is_finite()) {
            return;
        }
        self.gain.gemv_tr(1.0, &self.root, &self.shadow, 0.0);
        self.mean
            .axpy((value - expected) / (variance + noise), &self.gain, 1.0);
        // Information gained along the row, less what is forgotten there: in the steady state the
        // variance of the row's value is noise / MEMORY_ROWS.
        let information = 1.0 / noise - 1.0 / (MEMORY_ROWS * variance);
        let shrink = (1.0 - (1.0 + information * variance).sqrt().recip()) / variance;
        self.root.ger(-shrink, &self.shadow, &self.gain, 1.0);
        self.rows += 1;
        if self.rows >= REFACTOR_ROWS {
            self.refactor(&[]);
        }
    }

    /// Adds doubt: a variance of 1 along each direction.
    pub fn open(&mut self, directions: &[Vec<(usize, f64)>]) {
        self.refactor(directions);
    }

    /// Moves the mean.
    pub fn shift(&mut self, direction: &[(usize, f64)]) {
        for &(parameter, amount) in direction {
            if let Some(mean) = self.mean.get_mut(parameter) {
                *mean += amount;
            }
        }
    }

    /// Multiplies mean and doubt of everything by `factor` (finite, > 0).
    pub fn rescale(&mut self, factor: f64) {
        self.mean *= factor;
        self.root *= factor;
        self.prior_root *= factor;
        self.prior_variance *= factor.powi(2);
    }

    fn refactor(&mut self, directions: &[Vec<(usize, f64)>]) {
        self.rows = 0;
        let mut covariance = self.root.tr_mul(&self.root);
        for direction in directions {
            super::power::add_outer(&mut covariance, direction);
        }
        match factor(covariance, &self.prior_variance) {
            Some(root) => self.root = root,
            None => {
                self.root.copy_from(&self.prior_root);
                self.resets = self.resets.saturating_add(1);
            }
        }
    }

    /// The most probable parameters that are not negative.
    pub fn estimate(&self) -> DVector<f64> {
        nearest_nonnegative(&self.mean, &self.root)
    }
}

/// Square root of a covariance, each variance held above [`FLOOR`]² of the prior's.
fn factor(mut covariance: DMatrix<f64>, prior_variance: &DVector<f64>) -> Option<DMatrix<f64>> {
    for (index, prior) in prior_variance.iter().enumerate() {
        if let Some(cell) = covariance.get_mut((index, index)) {
            *cell += prior * FLOOR * FLOOR;
        }
    }
    let root = Cholesky::new(covariance)?.unpack().transpose();
    root.iter().all(|value| value.is_finite()).then_some(root)
}

/// root · row
fn shadow(root: &DMatrix<f64>, row: &Row) -> DVector<f64> {
    let mut shadow = DVector::zeros(root.nrows());
    for (parameter, coefficient) in row.iter().filter(|(p, _)| *p < root.ncols()) {
        shadow.axpy(coefficient, &root.column(parameter), 1.0);
    }
    shadow
}

/// row · vector
pub(super) fn dot(row: &Row, vector: &DVector<f64>) -> f64 {
    row.iter()
        .map(|(parameter, coefficient)| coefficient * vector.get(parameter).copied().unwrap_or(0.0))
        .sum()
}

/// The x ≥ 0 that minimises (x − mean)ᵀ · covariance⁻¹ · (x − mean), covariance = rootᵀ·root.
///
/// x = mean + covariance·λ with a multiplier λ ≥ 0 for each parameter held at zero. Lawson and Hanson's
/// active set on λ: take in the parameter that is most negative in units of its standard deviation, solve
/// for the multipliers, drop those that turn negative. Needs one column of the covariance per active
/// parameter, and there are few.
fn nearest_nonnegative(mean: &DVector<f64>, root: &DMatrix<f64>) -> DVector<f64> {
    let mut x = mean.clone();
    let mut active = Active::default();
    for _ in 0..3 * mean.len() {
        let worst = (x.iter().enumerate())
            .filter(|(parameter, _)| !active.parameters.contains(parameter))
            .map(|(parameter, value)| {
                let deviation = root.column(parameter).norm().max(f64::MIN_POSITIVE);
                (parameter, value / deviation)
            })
            .filter(|(_, deviations)| *deviations < -1e-9)
            .min_by(|a, b| a.1.total_cmp(&b.1));
        let Some((parameter, _)) = worst else { break };
        active.take_in(parameter, root);
        if !active.solve(mean) {
            break;
        }
        x.copy_from(mean);
        for (column, lambda) in active.columns.iter().zip(&active.lambdas) {
            x.axpy(*lambda, column, 1.0);
        }
    }
    x.apply(|value| *value = value.max(0.0));
    x
}

/// Parameters held at zero with their multipliers and covariance columns.
#[derive(Default)]
struct Active {
    parameters: Vec<usize>,
    lambdas: Vec<f64>,
    columns: Vec<DVector<f64>>,
}

impl Active {
    fn take_in(&mut self, parameter: usize, root: &DMatrix<f64>) {
        self.parameters.push(parameter);
        self.lambdas.push(0.0);
        self.columns.push(root.tr_mul(&root.column(parameter)));
    }

    /// Multipliers that hold every active parameter at zero, none of them negative. False when the
    /// system cannot be solved.
    fn solve(&mut self, mean: &DVector<f64>) -> bool {
        loop {
            let len = self.parameters.len();
            let entry = |i: usize, j: usize| {
                let row = self.parameters.get(i).copied().unwrap_or(0);
                self.columns
                    .get(j)
                    .and_then(|column| column.get(row))
                    .copied()
                    .unwrap_or(0.0)
            };
            let held = |i: usize| {
                let row = self.parameters.get(i).copied().unwrap_or(0);
                -mean.get(row).copied().unwrap_or(0.0)
            };
            let system = DMatrix::from_fn(len, len, entry);
            let right = DVector::from_fn(len, |i, _| held(i));
            let Some(trial) = Cholesky::new(system).map(|system| system.solve(&right)) else {
                return false;
            };
            // How far the old multipliers may move toward the trial before one becomes negative.
            let first = (self.lambdas.iter().zip(trial.iter()).enumerate())
                .filter(|(_, (_, new))| **new < 0.0)
                .map(|(i, (old, new))| (i, (old / (old - new)).clamp(0.0, 1.0)))
                .min_by(|a, b| a.1.total_cmp(&b.1));
            let Some((blocking, step)) = first else {
                self.lambdas = trial.iter().copied().collect();
                return true;
            };
            for (old, new) in self.lambdas.iter_mut().zip(trial.iter()) {
                *old += step * (new - *old);
            }
            self.parameters.remove(blocking);
            self.lambdas.remove(blocking);
            self.columns.remove(blocking);
        }
    }
}
