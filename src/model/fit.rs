//! The estimator: a Gaussian over all parameters, held as mean and square root of the covariance.
//!
//! - Learning one row costs O(n²): Potter's square-root update, which keeps the covariance positive, in
//!   4n² additions and multiplications; the state is two n × n matrices. Three clusters of 21 OPPs are
//!   n = 84: 28 000 operations and 113 kB.
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
/// Rows between refactorisations, which keep rounding bounded.
const REFACTOR_ROWS: u32 = 256;
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
    prior_mean: DVector<f64>,
    prior_variance: DVector<f64>,
    prior_root: DMatrix<f64>,
    rows: u32,
    /// How often the covariance had lost its meaning and went back to the prior's.
    resets: u32,
    /// root · the row that was projected last; kept so that learning does not allocate.
    shadow: DVector<f64>,
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
            prior_mean: mean.clone(),
            mean,
            prior_root: root.clone(),
            root,
            prior_variance,
            rows: 0,
            resets: 0,
            shadow: DVector::zeros(len),
        })
    }

    /// The same prior with another belief now; `None` when the covariance is not positive definite.
    pub fn believing(self, mean: DVector<f64>, covariance: DMatrix<f64>) -> Option<Self> {
        let finite = mean.iter().chain(covariance.iter()).all(|v| v.is_finite());
        let root = finite
            .then(|| factor(covariance, &self.prior_variance))
            .flatten()?;
        Some(Self { mean, root, ..self })
    }

    /// Covariance of the parameters.
    pub fn covariance(&self) -> DMatrix<f64> {
        self.root.tr_mul(&self.root)
    }

    /// Mean of each parameter before any measurement.
    pub fn prior_mean(&self) -> &DVector<f64> {
        &self.prior_mean
    }

    /// Covariance of the parameters before any measurement.
    pub fn prior_covariance(&self) -> DMatrix<f64> {
        self.prior_root.tr_mul(&self.prior_root)
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
        let projection = self.project(row);
        self.learn_projected(projection, value, noise);
    }

    /// [`Filter::learn`] of the row that was projected last.
    pub fn learn_projected(&mut self, projection: Projection, value: f64, noise: f64) {
        let Projection {
            value: expected,
            variance,
        } = projection;
        if !(noise > 0.0 && variance > 0.0 && value.is_finite() && noise.is_finite()) {
            return;
        }
        // Information gained along the row, less what is forgotten there: in the steady state the
        // variance of the row's value is noise / MEMORY_ROWS.
        let information = 1.0 / noise - 1.0 / (MEMORY_ROWS * variance);
        let shrink = (1.0 - (1.0 + information * variance).sqrt().recip()) / variance;
        let step = (value - expected) / (variance + noise);
        for (mut column, mean) in self.root.column_iter_mut().zip(self.mean.iter_mut()) {
            let covariance = column.dot(&self.shadow);
            *mean += step * covariance;
            column.axpy(-shrink * covariance, &self.shadow, 1.0);
        }
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
        self.prior_mean *= factor;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(entries: &[(usize, f64)]) -> Row {
        let mut row = Row::default();
        for &(parameter, coefficient) in entries {
            row.push(parameter, coefficient);
        }
        row
    }

    fn filter(len: usize, deviation: f64) -> Filter {
        let covariance = DMatrix::identity(len, len) * deviation.powi(2);
        Filter::new(DVector::from_element(len, 1.0), covariance).unwrap()
    }

    /// A random mean and a well-conditioned random root.
    fn gaussian(seed: u64, len: usize) -> (DVector<f64>, DMatrix<f64>) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mean = DVector::from_fn(len, |_, _| 4.0 * rng.f64() - 2.0);
        let noise = DMatrix::from_fn(len, len, |_, _| rng.f64() - 0.5);
        (mean, noise + DMatrix::identity(len, len))
    }

    #[test]
    fn learning_agrees_with_the_normal_equations() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut filter = filter(4, 2.0);
        let mut information = DMatrix::identity(4, 4) / 4.0;
        let mut right = DVector::from_element(4, 1.0) / 4.0;
        for _ in 0..6 {
            let x = DVector::from_fn(4, |_, _| rng.f64());
            let value = 3.0 * rng.f64();
            let entries: Vec<_> = x.iter().copied().enumerate().collect();
            let noise = 1e3;
            filter.learn(&row(&entries), value, noise);
            information += &x * x.transpose() / noise;
            right += x * value / noise;
        }
        let expected = Cholesky::new(information).unwrap().solve(&right);
        // Forgetting acts on the covariance alone and is small while little is known.
        assert!((filter.mean() - expected).norm() < 1e-3);
    }

    #[test]
    fn knowledge_of_a_measured_direction_saturates_and_others_are_untouched() {
        let mut filter = filter(3, 1.0);
        let (measured, other) = (row(&[(0, 1.0), (1, 2.0)]), row(&[(2, 1.0)]));
        for _ in 0..20_000 {
            filter.learn(&measured, 3.0, 0.5);
        }
        let floor = 0.5 / MEMORY_ROWS;
        assert!((filter.variance_of(&measured) / floor - 1.0).abs() < 0.01);
        assert!((filter.variance_of(&other) - 1.0).abs() < 1e-9);
        assert!((filter.mean_of(&other) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn values_that_are_no_numbers_change_nothing() {
        let mut filter = filter(2, 1.0);
        let before = filter.mean().clone();
        let x = row(&[(0, 1.0)]);
        for (value, noise) in [
            (f64::NAN, 1.0),
            (f64::INFINITY, 1.0),
            (2.0, f64::NAN),
            (2.0, f64::INFINITY),
            (2.0, 0.0),
            (2.0, -1.0),
        ] {
            filter.learn(&x, value, noise);
            assert_eq!(*filter.mean(), before, "{value} {noise}");
        }
    }

    #[test]
    fn a_covariance_that_is_not_positive_definite_is_refused() {
        let mean = DVector::from_element(2, 1.0);
        let spoilt = DMatrix::from_row_slice(2, 2, &[1.0, 2.0, 2.0, 1.0]);
        assert!(Filter::new(mean.clone(), spoilt).is_none());
        let nan = DMatrix::from_row_slice(2, 2, &[1.0, f64::NAN, f64::NAN, 1.0]);
        assert!(Filter::new(mean, nan).is_none());
    }

    proptest! {
        #[test]
        fn the_estimate_satisfies_the_conditions_of_the_constrained_optimum(seed in 0u64..500) {
            let (mean, root) = gaussian(seed, 7);
            let x = nearest_nonnegative(&mean, &root);
            let covariance = root.tr_mul(&root);
            // Gradient of half the squared distance: zero where x > 0, not negative where x = 0.
            let gradient = Cholesky::new(covariance).unwrap().solve(&(&x - &mean));
            for (value, slope) in x.iter().zip(gradient.iter()) {
                prop_assert!(*value >= 0.0);
                prop_assert!(*slope > -1e-6, "{slope}");
                prop_assert!(value * slope < 1e-6, "{value} {slope}");
            }
        }
    }
}
