//! What the rows of a training could tell at best: the linear columns of a machine's power, the noise on
//! them as it really is, and the covariance that an estimator who knew that noise would reach.

use crate::machine::{Machine, gauss, read_uw};
use crate::score::{Guess, Subject, quantile, second};
use crate::soc::{TrueClass, whole};
use fastrand::Rng;
use nalgebra::{Cholesky, DMatrix, DVector};
use num_traits::ToPrimitive;
use scx_joule::model::cost::{ClassLoad, marginal_cost};
use scx_joule::model::{Belief, Shape};
use scx_joule::observation::{ClassCost, CostTable, IdleCost, Observation, OppCost};

/// The columns of power of a machine with two idle depths, counted domain wake-ups and no SMT: three bases, then per class busy power per OPP, constant and driven shared
/// power, shallow idle power, two wake-ups, domain wake-ups.
#[derive(Clone)]
pub struct Columns {
    shape: Shape,
    /// Per class: first column, drive per OPP.
    classes: Vec<(usize, Vec<f64>)>,
    pub len: usize,
}

const BASES: usize = 3;
const AFTER_OPPS: usize = 6;

impl Columns {
    pub fn new(shape: Shape) -> Self {
        let mut len = BASES;
        let mut classes = Vec::new();
        for class in &shape.classes {
            let top = class.opps.last().unwrap();
            let drive = |opp: &scx_joule::model::OppShape| {
                let f = opp.khz.get().to_f64().unwrap() / top.khz.get().to_f64().unwrap();
                match (opp.microvolt, top.microvolt) {
                    (Some(v), Some(most)) => f * (f64::from(v) / f64::from(most)).powi(2),
                    _ => f * (0.6 + 0.4 * f).powi(2),
                }
            };
            classes.push((len, class.opps.iter().map(drive).collect()));
            len += class.opps.len() + AFTER_OPPS;
        }
        Self {
            shape,
            classes,
            len,
        }
    }

    /// As a [`Belief`] names them.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = ["base.package", "base.cores", "base.system"]
            .map(String::from)
            .into();
        for (k, class) in self.shape.classes.iter().enumerate() {
            names.extend(
                class
                    .opps
                    .iter()
                    .map(|opp| format!("class{k}.busy.{}", opp.khz.get())),
            );
            let after = [
                "shared.constant",
                "shared.driven",
                "idle.0",
                "wake.0",
                "wake.1",
                "cluster_wake",
            ];
            names.extend(after.map(|name| format!("class{k}.{name}")));
        }
        names
    }

    pub fn row(&self, observation: &Observation) -> DVector<f64> {
        let mut row = DVector::zeros(self.len);
        let duration = observation.duration.get().to_f64().unwrap();
        let part = |time: u64| time.to_f64().unwrap() / duration;
        row[0] = 1.0;
        for ((first, drive), activity) in self.classes.iter().zip(&observation.classes) {
            let after = first + drive.len();
            for (i, (busy, active)) in activity.busy.iter().zip(&activity.active).enumerate() {
                row[first + i] = part(busy.get());
                row[after] += part(active.get());
                row[after + 1] += part(active.get()) * drive[i];
            }
            row[after + 2] = part(activity.idle[0].time.get());
            row[after + 3] = part(activity.idle[0].exits) * 1e9;
            row[after + 4] = part(activity.idle[1].exits) * 1e9;
            row[after + 5] = part(activity.cluster_wakes.unwrap()) * 1e9;
        }
        row
    }

    /// The columns of the power of a class's first busy CPU.
    pub fn first_busy(&self, class: usize, opp: usize) -> DVector<f64> {
        let mut row = DVector::zeros(self.len);
        let (first, drive) = &self.classes[class];
        row[first + opp] = 1.0;
        row[first + drive.len()] = 1.0;
        row[first + drive.len() + 1] = drive[opp];
        row
    }

    /// Per class, the columns of busy power.
    pub fn busy(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        let range = |(first, drive): &(usize, Vec<f64>)| *first..first + drive.len();
        self.classes.iter().map(range)
    }

    pub fn opps(&self, class: usize) -> usize {
        self.classes[class].1.len()
    }

    /// The machine's parameters as far as the columns can hold them.
    pub fn truth(&self, machine: &Machine) -> DVector<f64> {
        let mut values = DVector::zeros(self.len);
        let deepest: f64 = (machine.classes.iter())
            .map(|class| class.idle[1] * class.cpus.to_f64().unwrap())
            .sum();
        values[0] = machine.base + machine.uncore.0 + deepest;
        for (k, class) in machine.classes.iter().enumerate() {
            let (first, drive) = &self.classes[k];
            let after = first + drive.len();
            let (constant, driven) = line(drive, &class.shared);
            (values[after], values[after + 1]) = (constant, driven);
            for i in 0..drive.len() {
                let shared = constant + driven * drive[i];
                values[first + i] = machine.busy_now(k, i) + class.shared[i] - shared;
            }
            values[after + 2] = class.idle[0] - class.idle[1];
            (values[after + 3], values[after + 4]) = (class.wake[0], class.wake[1]);
            values[after + 5] = class.cluster_wake;
        }
        values
    }

    /// The cost table of parameters; negative ones count as 0.
    pub fn table(&self, values: &DVector<f64>) -> CostTable {
        let fixed = |value: f64| u32::try_from(whole(value.max(0.0))).unwrap();
        let class =
            |((first, drive), shape): (&(usize, Vec<f64>), &scx_joule::model::ClassShape)| {
                let after = first + drive.len();
                let shared = |i: usize| values[after] + values[after + 1] * drive[i];
                ClassCost {
                    opps: (0..drive.len())
                        .map(|i| OppCost {
                            cap: u32::from(shape.opps[i].cap.get()),
                            busy_uw: fixed(values[first + i] * 1e6),
                            shared_uw: fixed(shared(i) * 1e6),
                        })
                        .collect(),
                    idle: [
                        (values[after + 2], values[after + 3]),
                        (0.0, values[after + 4]),
                    ]
                    .map(|(idle, wake)| IdleCost {
                        idle_uw: fixed(idle * 1e6),
                        wake_nj: fixed(wake * 1e9),
                    })
                    .to_vec(),
                    cluster_wake_nj: fixed(values[after + 5] * 1e9),
                }
            };
        let classes = self.classes.iter().zip(&self.shape.classes);
        CostTable {
            generation: 0,
            classes: classes.map(class).collect(),
            home: None,
        }
    }
}

/// Least squares of `values` over 1 and `drive`, neither below 0.
fn line(drive: &[f64], values: &[f64]) -> (f64, f64) {
    let n = drive.len().to_f64().unwrap();
    let (sx, sy) = (drive.iter().sum::<f64>(), values.iter().sum::<f64>());
    let sxx: f64 = drive.iter().map(|x| x * x).sum();
    let sxy: f64 = drive.iter().zip(values).map(|(x, y)| x * y).sum();
    let slope = ((n * sxy - sx * sy) / (n * sxx - sx * sx).max(1e-12)).max(0.0);
    (((sy - slope * sx) / n).max(0.0), slope)
}

/// The rows of a training and the noise on them.
pub struct Design {
    pub columns: Columns,
    rows: Vec<DVector<f64>>,
    watts: Vec<f64>,
    noise: Noise,
}

/// Rows whose noise is whitened together.
const BLOCK: usize = 240;

/// Relative to the power: variance of white noise, of a wandering one, and its correlation from row to row.
struct Noise {
    white: f64,
    slow: f64,
    rho: f64,
}

impl Noise {
    /// As a long run of the machine shows it.
    fn of(machine: &Machine) -> Self {
        let mut machine = machine.clone();
        let residuals: Vec<f64> = (0..4000)
            .map(|_| {
                let (observation, watts) = machine.step();
                (read_uw(&observation) * 1e-6 - machine.expected(&observation)) / watts
            })
            .collect();
        let at = |lag: usize| {
            let pairs = residuals.iter().zip(&residuals[lag..]);
            pairs.map(|(a, b)| a * b).sum::<f64>() / residuals.len().to_f64().unwrap()
        };
        let (whole, one, eight) = (at(0), at(1), at(9));
        let rho = (eight / one).clamp(0.01, 0.999).powf(1.0 / 8.0);
        let slow = (one / rho).clamp(0.0, 0.95 * whole);
        Self {
            white: whole - slow,
            slow,
            rho,
        }
    }
}

impl Design {
    pub fn new(machine: &Machine) -> Self {
        Self {
            columns: Columns::new(machine.shape()),
            rows: Vec::new(),
            watts: Vec::new(),
            noise: Noise::of(machine),
        }
    }

    pub fn add(&mut self, observation: &Observation, watts: f64) {
        self.rows.push(self.columns.row(observation));
        self.watts.push(watts);
    }

    /// Σ x·xᵀ, weighed by the inverse of the noise's covariance; rows a minute apart count as independent.
    fn information(&self) -> DMatrix<f64> {
        let mut information = DMatrix::zeros(self.columns.len, self.columns.len);
        for (rows, watts) in self.rows.chunks(BLOCK).zip(self.watts.chunks(BLOCK)) {
            let noise = DMatrix::from_fn(rows.len(), rows.len(), |i, j| {
                let lag = i.abs_diff(j);
                let white = if lag == 0 { self.noise.white } else { 0.0 };
                let slow = self.noise.slow * self.noise.rho.powi(i32::try_from(lag).unwrap());
                (white + slow) * watts[i] * watts[j]
            });
            let x = DMatrix::from_fn(rows.len(), self.columns.len, |i, j| rows[i][j]);
            let root = Cholesky::new(noise).unwrap().unpack();
            let whitened = root.solve_lower_triangular(&x).unwrap();
            information += whitened.tr_mul(&whitened);
        }
        information
    }

    /// Covariance that the rows leave of what a prior believed.
    pub fn posterior(&self, prior: &DMatrix<f64>) -> DMatrix<f64> {
        let prior = Cholesky::new(prior.clone()).unwrap().inverse();
        Cholesky::new(self.information() + prior).unwrap().inverse()
    }

    /// Per class and OPP: standard deviation, W, to which the rows alone determine the power of the first
    /// busy CPU. 'Alone': a tenfold prior deviation without any relation between parameters.
    pub fn sigmas(&self, prior: &DMatrix<f64>) -> Vec<Vec<f64>> {
        let vague = DMatrix::from_diagonal(&(prior.diagonal() * 100.0));
        let posterior = self.posterior(&vague);
        let of_class = |k: usize| {
            let sigma = |i| {
                let row = self.columns.first_busy(k, i);
                (&posterior * &row).dot(&row).sqrt()
            };
            (0..self.columns.opps(k)).map(sigma).collect()
        };
        (0..self.columns.classes.len()).map(of_class).collect()
    }
}

/// The prior's covariance in a belief, for these columns. A column that the belief does not tell apart from
/// others is held fast.
pub fn prior_covariance(belief: &Belief, columns: &Columns) -> DMatrix<f64> {
    let names = columns.names();
    let place = |name: &String| belief.names.iter().position(|known| known == name);
    let places: Vec<Option<usize>> = names.iter().map(place).collect();
    DMatrix::from_fn(names.len(), names.len(), |i, j| {
        match (places[i], places[j]) {
            (Some(i), Some(j)) => belief.prior_covariance[i * belief.names.len() + j],
            _ if i == j => HELD,
            _ => 0.0,
        }
    })
}

/// Variance of a column that is held fast.
const HELD: f64 = 1e-18;

/// Who knows the noise and starts from the right prior distribution errs like this on average: the true
/// parameters and draws from what the rows leave unknown.
pub struct Floor {
    columns: Columns,
    values: DVector<f64>,
    /// Of the values: what the rows and the prior leave unknown.
    posterior: DMatrix<f64>,
    /// Of the power where the values are right: nine in ten of its errors are smaller, relative to it.
    reach: f64,
    tables: Vec<CostTable>,
}

/// Draws that tell how wide an interval has to be.
const DRAWS: usize = 32;
/// Standard deviations of a 90 % interval.
const NINETY: f64 = 1.645;

impl Floor {
    pub fn new(machine: &Machine, design: &Design, prior: &DMatrix<f64>, seed: u64) -> Self {
        let columns = design.columns.clone();
        let posterior = design.posterior(prior);
        let root = Cholesky::new(posterior.clone()).unwrap().l();
        let truth = columns.truth(machine);
        let mut rng = Rng::with_seed(seed ^ 0xF100);
        let mut draw = || {
            let draw = DVector::from_fn(columns.len, |_, _| gauss(&mut rng));
            (&truth + &root * draw).map(|value| value.max(0.0))
        };
        let values = draw();
        let tables = (0..DRAWS).map(|_| columns.table(&draw())).collect();
        Self {
            columns,
            values,
            posterior,
            reach: reach(machine),
            tables,
        }
    }
}

impl Subject for Floor {
    fn learn(&mut self, _: &Observation) {}

    fn power(&self, observation: &Observation) -> Guess {
        let row = self.columns.row(observation);
        let value = row.dot(&self.values);
        let doubt = NINETY * (&self.posterior * &row).dot(&row).max(0.0).sqrt();
        let reach = doubt.hypot(self.reach * value);
        Guess {
            value,
            interval: Some((value - reach, value + reach)),
        }
    }

    fn curve(&self, class: usize) -> Vec<Guess> {
        let power = |i| Guess::bare(self.columns.first_busy(class, i).dot(&self.values));
        (0..self.columns.opps(class)).map(power).collect()
    }

    fn table(&mut self) -> CostTable {
        self.columns.table(&self.values)
    }

    fn difference(&self, loads: &[ClassLoad], util: f64, a: usize, b: usize) -> Option<Guess> {
        let of = |table: &CostTable| {
            Some(marginal_cost(table, loads, a, util)? - marginal_cost(table, loads, b, util)?)
        };
        let values: Option<Vec<f64>> = self.tables.iter().map(of).collect();
        let values = values?;
        let n = DRAWS.to_f64().unwrap();
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let value = of(&self.columns.table(&self.values))?;
        let reach = NINETY * variance.sqrt();
        Some(Guess {
            value,
            interval: Some((value - reach, value + reach)),
        })
    }
}

/// Nine in ten relative errors of a second's power are smaller, where the parameters are right.
fn reach(machine: &Machine) -> f64 {
    let mut ahead = machine.clone();
    let error = |_| {
        let (observation, watts) = second(&mut ahead);
        (ahead.expected(&observation) / watts - 1.0).abs()
    };
    let errors: Vec<f64> = (0..600).map(error).collect();
    quantile(&errors, 0.9)
}

/// The machine itself, asked for averages over the activities of tasks and the load beside the CPUs.
pub struct Truth {
    machine: Machine,
    reach: f64,
}

impl Truth {
    pub fn new(machine: &Machine) -> Self {
        Self {
            machine: machine.clone(),
            reach: reach(machine),
        }
    }
}

impl Subject for Truth {
    fn learn(&mut self, _: &Observation) {}

    fn power(&self, observation: &Observation) -> Guess {
        let value = self.machine.expected(observation);
        Guess {
            value,
            interval: Some((value * (1.0 - self.reach), value * (1.0 + self.reach))),
        }
    }

    fn curve(&self, class: usize) -> Vec<Guess> {
        let TrueClass { shared, .. } = &self.machine.classes[class];
        let power = |i: usize| Guess::bare(self.machine.busy_now(class, i) + shared[i]);
        (0..shared.len()).map(power).collect()
    }

    fn table(&mut self) -> CostTable {
        self.machine.table()
    }
}
