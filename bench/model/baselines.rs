//! Two published ways to learn a machine's power, fitted to the same rows as the model.

use crate::design::Columns;
use crate::score::{Guess, Subject};
use nalgebra::{DMatrix, DVector};
use num_traits::ToPrimitive;
use scx_joule::model::Shape;
use scx_joule::observation::{CostTable, Observation};
use std::collections::VecDeque;

/// Standard deviations of a 90 % interval.
const NINETY: f64 = 1.645;

fn measured(observation: &Observation) -> Option<f64> {
    let energy = observation.meters.package?.amount.get().to_f64()?;
    Some(energy * 1e3 / observation.duration.get().to_f64()?)
}

/// Plain recursive least squares over the model's columns: no prior but zero with a large variance, no
/// bounds, exponential forgetting of everything alike.
pub struct Rls {
    columns: Columns,
    values: DVector<f64>,
    covariance: DMatrix<f64>,
    /// Decayed mean of squared errors, W².
    noise: f64,
    rows: f64,
}

/// 125 s at 4 Hz, about what SmartWatts' window holds.
const FORGETTING: f64 = 0.998;
/// (10 W)²: no parameter of these machines is as large.
const VAGUE: f64 = 100.0;

impl Rls {
    pub fn new(shape: Shape) -> Self {
        let columns = Columns::new(shape);
        Self {
            values: DVector::zeros(columns.len),
            covariance: DMatrix::identity(columns.len, columns.len) * VAGUE,
            columns,
            noise: 0.0,
            rows: 0.0,
        }
    }

    fn interval(&self, row: &DVector<f64>, own: f64) -> Guess {
        let value = row.dot(&self.values);
        let doubt = (&self.covariance * row).dot(row).max(0.0);
        let reach = NINETY * (self.noise * (own + doubt)).sqrt();
        Guess {
            value,
            interval: Some((value - reach, value + reach)),
        }
    }
}

impl Subject for Rls {
    fn learn(&mut self, observation: &Observation) {
        let Some(watts) = measured(observation) else {
            return;
        };
        let row = self.columns.row(observation);
        let along = &self.covariance * &row;
        let scale = FORGETTING + along.dot(&row);
        let error = watts - row.dot(&self.values);
        self.values.axpy(error / scale, &along, 1.0);
        self.covariance.ger(-1.0 / scale, &along, &along, 1.0);
        self.covariance /= FORGETTING;
        self.rows += 1.0;
        let weight = (1.0 - FORGETTING).max(1.0 / self.rows);
        self.noise += weight * (error * error * FORGETTING / scale - self.noise);
    }

    fn power(&self, observation: &Observation) -> Guess {
        self.interval(&self.columns.row(observation), 1.0)
    }

    fn curve(&self, class: usize) -> Vec<Guess> {
        let power = |i| self.interval(&self.columns.first_busy(class, i), 0.0);
        (0..self.columns.opps(class)).map(power).collect()
    }

    fn table(&mut self) -> CostTable {
        self.columns
            .table(&self.values.map(|value| value.clamp(0.0, 900.0)))
    }
}

/// SmartWatts' form (Fieni, Rouvoy, Seinturier, CCGRID 2020): a base and one non-negative coefficient per
/// frequency and kind of core, ElasticNet over a window of samples, learnt again whenever the error exceeds
/// a threshold. Its counters are busy CPU times here. It knows no shared, idle or wake-up power.
pub struct SmartWatts {
    columns: Columns,
    window: VecDeque<Sample>,
    base: f64,
    /// One per busy column; `None` for a frequency not in the window learnt from.
    coefficients: Vec<Option<f64>>,
    learnt: bool,
}

/// Samples in the window (a minute), and samples before the first fit.
const WINDOW: usize = 240;
const FIRST: usize = 10;
/// SmartWatts learns again at 2 W on machines of 40 W and more; on smaller ones at the same part of power.
const THRESHOLD_W: f64 = 2.0;
const THRESHOLD_PART: f64 = 0.05;
/// Penalties tried, relative to the variance of the power; the one that does best on the last quarter of
/// the window is taken.
const PENALTIES: [f64; 4] = [1e-5, 1e-4, 1e-3, 1e-2];
/// How much of the penalty is on the sum rather than on the squares.
const L1_PART: f64 = 0.5;

impl SmartWatts {
    pub fn new(shape: Shape) -> Self {
        let columns = Columns::new(shape);
        Self {
            window: VecDeque::new(),
            base: 0.0,
            coefficients: vec![None; columns.len],
            columns,
            learnt: false,
        }
    }

    fn is_busy(&self, column: usize) -> bool {
        self.columns.busy().any(|range| range.contains(&column))
    }

    fn fit(&mut self) {
        let columns: Vec<usize> = (0..self.columns.len)
            .filter(|&j| self.is_busy(j) && self.window.iter().any(|(row, _)| row[j] > 0.0))
            .collect();
        let rows: Vec<_> = self.window.iter().collect();
        let (past, recent) = rows.split_at(rows.len() * 3 / 4);
        let error = |penalty: &f64| {
            let (base, values) = elastic_net(past, &columns, *penalty);
            let off = |(row, watts): &&Sample| {
                let terms = columns.iter().zip(&values).map(|(&j, v)| row[j] * v);
                (base + terms.sum::<f64>() - watts).powi(2)
            };
            recent.iter().map(off).sum::<f64>()
        };
        let best = PENALTIES
            .into_iter()
            .min_by(|a, b| error(a).total_cmp(&error(b)));
        let (base, values) = elastic_net(&rows, &columns, best.unwrap_or(1e-3));
        self.base = base;
        self.coefficients = vec![None; self.columns.len];
        for (j, value) in columns.into_iter().zip(values) {
            self.coefficients[j] = Some(value);
        }
        self.learnt = true;
    }

    /// A busy coefficient; between and beyond the frequencies learnt, the nearest known, in proportion to
    /// the distance between two.
    fn coefficient(&self, class: usize, opp: usize) -> f64 {
        let range = self.columns.busy().nth(class).unwrap_or(0..0);
        let known = |j: &usize| self.coefficients[*j].is_some();
        let at = |j: usize| self.coefficients[j].unwrap_or(0.0);
        let here = range.start + opp;
        let below = (range.start..=here).rev().find(known);
        let above = (here..range.end).find(known);
        match (below, above) {
            (Some(a), Some(b)) if a < b => {
                let part = (here - a).to_f64().unwrap() / (b - a).to_f64().unwrap();
                at(a) + (at(b) - at(a)) * part
            }
            (Some(j), _) | (None, Some(j)) => at(j),
            (None, None) => 0.0,
        }
    }
}

/// Columns and measured power, W.
type Sample = (DVector<f64>, f64);

/// Base and coefficients that minimise mean squared error / 2 + penalty, none of the latter negative, by
/// coordinate descent.
fn elastic_net(rows: &[&Sample], columns: &[usize], penalty: f64) -> (f64, Vec<f64>) {
    let n = rows.len().to_f64().unwrap();
    let mean = |pick: &dyn Fn(&Sample) -> f64| rows.iter().map(|row| pick(row)).sum::<f64>() / n;
    let watts = mean(&|(_, y)| *y);
    let centres: Vec<f64> = columns.iter().map(|&j| mean(&|(x, _)| x[j])).collect();
    let variance = mean(&|(_, y)| (y - watts).powi(2));
    let x = DMatrix::from_fn(rows.len(), columns.len(), |i, j| {
        rows[i].0[columns[j]] - centres[j]
    });
    let y = DVector::from_fn(rows.len(), |i, _| rows[i].1 - watts);
    let gram = x.tr_mul(&x) / n;
    let right = x.tr_mul(&y) / n;
    let (l1, l2) = (
        penalty * L1_PART * variance,
        penalty * (1.0 - L1_PART) * variance,
    );
    let mut values = DVector::zeros(columns.len());
    for _ in 0..200 {
        let mut moved = 0.0_f64;
        for j in 0..columns.len() {
            let others = gram.column(j).dot(&values) - gram[(j, j)] * values[j];
            let new = ((right[j] - others - l1) / (gram[(j, j)] + l2)).max(0.0);
            moved = moved.max((new - values[j]).abs());
            values[j] = new;
        }
        if moved < 1e-6 {
            break;
        }
    }
    let base = watts
        - centres
            .iter()
            .zip(values.iter())
            .map(|(c, v)| c * v)
            .sum::<f64>();
    (base.max(0.0), values.as_slice().to_vec())
}

impl Subject for SmartWatts {
    fn learn(&mut self, observation: &Observation) {
        let Some(watts) = measured(observation) else {
            return;
        };
        let error = (self.power(observation).value - watts).abs();
        self.window
            .push_back((self.columns.row(observation), watts));
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
        let mean =
            self.window.iter().map(|(_, w)| w).sum::<f64>() / self.window.len().to_f64().unwrap();
        let due = !self.learnt || error > THRESHOLD_W.min(THRESHOLD_PART * mean);
        if self.window.len() >= FIRST && due {
            self.fit();
        }
    }

    fn power(&self, observation: &Observation) -> Guess {
        let row = self.columns.row(observation);
        let mut watts = self.base;
        for (class, range) in self.columns.busy().enumerate() {
            for (opp, j) in range.enumerate().filter(|(_, j)| row[*j] > 0.0) {
                watts += row[j] * self.coefficient(class, opp);
            }
        }
        Guess::bare(watts)
    }

    fn curve(&self, class: usize) -> Vec<Guess> {
        let power = |i| Guess::bare(self.coefficient(class, i));
        (0..self.columns.opps(class)).map(power).collect()
    }

    fn table(&mut self) -> CostTable {
        let mut values = DVector::zeros(self.columns.len);
        for (class, range) in self.columns.busy().enumerate() {
            for (opp, j) in range.enumerate() {
                values[j] = self.coefficient(class, opp).min(900.0);
            }
        }
        self.columns.table(&values)
    }
}
