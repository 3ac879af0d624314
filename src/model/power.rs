//! The parameters of the power model as physical quantities, and what is believed of them before any
//! measurement: mean and covariance.
//!
//! Busy power of a class is a priori a curve of the family β + α·f·V² (β + α₁f + α₃f³ where V is unknown)
//! around a given mean. The family enters as directions of the prior covariance rather than as parameters,
//! next to a smooth and a small rough deviation per OPP: data may pull any OPP off the family, and an OPP
//! without data follows its neighbours.

use super::features::{ClassShape, ClassTerms, METERS, Refusal, Shape, Terms, float};
use crate::units::Microwatts;
use nalgebra::{DMatrix, DVector};

/// What is believed of the machine before any measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prior {
    /// Per class and OPP: power of one busy CPU in real watts, such as from the kernel's Energy Model.
    Watts(Vec<Vec<Microwatts>>),
    /// Per class and OPP: power of one busy CPU on a scale common to the machine but otherwise
    /// arbitrary (the kernel's Energy Model with abstract power). The scale comes from the first
    /// measurements.
    Abstract(Vec<Vec<u64>>),
    /// Capacities alone: [`default_curve`], on a scale that comes from the first measurements.
    Capacities,
}

/// Power of one class of CPUs. Powers of CPUs count from the deepest idle state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassPower {
    /// Busy CPU, per OPP, W.
    pub busy_w: Vec<f64>,
    /// Frequency domain with a busy CPU, per OPP, W.
    pub shared_w: Vec<f64>,
    /// CPU in each idle depth, W; the deepest is 0.
    pub idle_w: Vec<f64>,
    /// One exit from each idle depth, J.
    pub wake_j: Vec<f64>,
    /// Waking a whole domain, J.
    pub cluster_wake_j: f64,
    /// What two busy threads of one core draw less than two cores would, per OPP, W; empty where pairs are not
    /// counted.
    pub sibling_w: Vec<f64>,
}

/// Power of a machine: all parameters, in physical units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PowerModel {
    /// What each meter shows with every CPU in its deepest idle state, W.
    pub base_w: [f64; METERS],
    /// One entry per class.
    pub classes: Vec<ClassPower>,
}

impl PowerModel {
    /// The physical reading of a parameter vector.
    pub(super) fn from_parameters(terms: &Terms, parameters: &DVector<f64>) -> Self {
        let at = |index: usize| parameters.get(index).copied().unwrap_or(0.0);
        let mut base_w = [0.0; METERS];
        for (index, base) in base_w.iter_mut().enumerate() {
            *base = at(index);
        }
        let class = |terms: &ClassTerms| ClassPower {
            busy_w: (terms.busy..terms.busy + terms.opps).map(at).collect(),
            shared_w: (terms.drive.iter())
                .map(|drive| terms.shared.map_or(0.0, |s| at(s) + at(s + 1) * drive))
                .collect(),
            idle_w: (terms.idle.iter().map(|&index| at(index)))
                .chain(terms.wake.last().map(|_| 0.0))
                .collect(),
            wake_j: terms.wake.iter().map(|&index| at(index)).collect(),
            cluster_wake_j: terms.cluster_wake.map_or(0.0, at),
            sibling_w: (terms.sibling.iter())
                .flat_map(|&sibling| terms.saving.iter().map(move |saving| at(sibling) * saving))
                .collect(),
        };
        Self {
            base_w,
            classes: terms.classes.iter().map(class).collect(),
        }
    }
}

/// Power of one busy CPU per OPP, W, where only capacities and frequencies are known.
///
/// At the top OPP 1 W × (capacity / 1024)^1.6, below it a tenth leakage, three tenths linear and six tenths
/// cubic in frequency. On eight published clusters of phone SoCs the top is right within a factor of
/// two; the scale is only a start where a meter is present.
pub fn default_curve(class: &ClassShape) -> Vec<f64> {
    let top = class
        .opps
        .last()
        .map_or(1.0, |opp| f64::from(opp.cap.get()) / 1024.0);
    let relative = class.relative_frequencies();
    let power = |f: f64| top.powf(1.6) * (0.1 + 0.3 * f + 0.6 * f.powi(3));
    relative.into_iter().map(power).collect()
}

/// Standard deviations of a prior, each relative to the mean it scales.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// Of the whole machine's scale.
    scale: f64,
    /// Of one class against the others.
    class: f64,
    /// Of the constant (leakage), relative to the power at the top OPP.
    constant: f64,
    /// Of the parts along f·V² (or f and f³), relative to the power at the top OPP.
    drive: f64,
}

impl Doubt {
    /// The kernel's Energy Model has switching power only: C·f·V² with one C per class.
    const WATTS: Self = Self {
        scale: 0.3,
        class: 0.3,
        constant: 0.12,
        drive: 0.2,
    };
    const RATIOS: Self = Self {
        scale: 0.5,
        class: 0.4,
        constant: 0.08,
        drive: 0.3,
    };
    const CAPACITIES: Self = Self {
        scale: 0.6,
        class: 0.6,
        constant: 0.15,
        drive: 0.4,
    };
}

/// Standard deviation of the smooth and of the rough deviation of one OPP from the family of curves.
/// Published tables lie 1.6–10 % off the family, some jump by a fifth between neighbours.
const SMOOTH: f64 = 0.10;
const ROUGH: f64 = 0.06;
/// Distance in ln f over which smooth deviations lose touch.
const SMOOTH_LENGTH: f64 = 0.25;

/// Shared power, a priori, as a fraction of a CPU's busy power: its constant part at the lowest OPP,
/// its driven part at the top one. Its standard deviation is as large.
const SHARED: f64 = 0.15;
/// Power of a shallow idle state, relative to a busy CPU at the lowest OPP.
const SHALLOW_IDLE: f64 = 0.05;
/// Energy of an idle exit, as time at the power of a busy CPU of a middle OPP: cache and voltage
/// restored, seconds. Shallow, deep, whole domain.
const WAKE_S: [f64; 3] = [10e-6, 150e-6, 400e-6];
/// Relative doubt of the shares above; their orders of magnitude are known, no more.
const VAGUE: f64 = 1.0;
/// A second thread adds a quarter to a half of a core's power; this is what it saves of it.
const SIBLING_SAVING: f64 = 0.6;
/// Base power, a priori: its doubt as a multiple of the power of all CPUs busy at their top OPP.
const BASE_DOUBT: f64 = 1.0;

/// Mean and covariance of all parameters, and whether the scale still has to be measured.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub mean: DVector<f64>,
    pub covariance: DMatrix<f64>,
    pub scaled: bool,
}

impl Prior {
    /// # Errors
    /// A curve of the wrong length, a power of zero, or powers so far apart that arithmetic fails.
    pub(super) fn start(&self, terms: &Terms) -> Result<Start, Refusal> {
        let (curves, doubt, scaled) = match self {
            Self::Watts(curves) => {
                let watts = |curve: &Vec<Microwatts>| {
                    curve
                        .iter()
                        .map(|power| float(power.get()) * 1e-6)
                        .collect()
                };
                (curves.iter().map(watts).collect(), Doubt::WATTS, true)
            }
            Self::Abstract(curves) => (abstract_curves(curves), Doubt::RATIOS, false),
            Self::Capacities => {
                let curves = terms.shape.classes.iter().map(default_curve).collect();
                (curves, Doubt::CAPACITIES, false)
            }
        };
        check_curves(&terms.shape, &curves)?;
        Ok(start(terms, &curves, doubt, scaled))
    }
}

/// Curves on an arbitrary scale, brought to about 1 W at their highest.
fn abstract_curves(curves: &[Vec<u64>]) -> Vec<Vec<f64>> {
    let highest = curves
        .iter()
        .flatten()
        .max()
        .map_or(1.0, |&power| float(power));
    let scale = |curve: &Vec<u64>| curve.iter().map(|&power| float(power) / highest).collect();
    curves.iter().map(scale).collect()
}

fn check_curves(shape: &Shape, curves: &[Vec<f64>]) -> Result<(), Refusal> {
    let wrong = |what: String, value: String, expected: String| {
        Err(Refusal::Absurd {
            what,
            value,
            expected,
        })
    };
    if curves.len() != shape.classes.len() {
        let expected = format!("{} curves", shape.classes.len());
        return wrong("prior".into(), format!("{} curves", curves.len()), expected);
    }
    for (k, (class, curve)) in shape.classes.iter().zip(curves).enumerate() {
        if curve.len() != class.opps.len() {
            let expected = format!("{} OPPs", class.opps.len());
            return wrong(
                format!("prior of class {k}"),
                format!("{} OPPs", curve.len()),
                expected,
            );
        }
        if let Some(power) = curve.iter().find(|power| !(1e-9..=1e4).contains(*power)) {
            let expected = "above 0 and at most 10 kW (or within 10^9 of the highest)".into();
            return wrong(
                format!("prior power of class {k}"),
                power.to_string(),
                expected,
            );
        }
    }
    Ok(())
}

fn start(terms: &Terms, curves: &[Vec<f64>], doubt: Doubt, scaled: bool) -> Start {
    let mut mean = DVector::zeros(terms.len);
    let mut covariance = DMatrix::zeros(terms.len, terms.len);
    let mut all_busy = 0.0;
    for ((shape, class), curve) in terms.shape.classes.iter().zip(&terms.classes).zip(curves) {
        let (low, top) = ends(curve);
        let middle = curve.get(curve.len() / 2).copied().unwrap_or(top);
        all_busy += f64::from(shape.cpus) * top;
        let share = if class.shared.is_some() { SHARED } else { 0.0 };
        let mut set = |parameter: usize, value: f64| {
            mean.view_mut((parameter, 0), (1, 1)).fill(value);
            add_outer(&mut covariance, &[(parameter, value * VAGUE)]);
        };
        if let Some(shared) = class.shared {
            set(shared, share * low);
            set(shared + 1, share * top);
        }
        class
            .idle
            .iter()
            .for_each(|&idle| set(idle, SHALLOW_IDLE * low));
        let deepest = WAKE_S.len() - 1 - class.wake.len().min(2);
        for (&wake, seconds) in class.wake.iter().zip(WAKE_S.iter().skip(deepest)) {
            set(wake, seconds * middle);
        }
        if let (Some(wake), [.., seconds]) = (class.cluster_wake, WAKE_S) {
            set(wake, seconds * middle);
        }
        if let Some(sibling) = class.sibling {
            set(sibling, SIBLING_SAVING * top);
        }
        for (i, power) in curve.iter().enumerate() {
            let value = power * (1.0 - share);
            mean.view_mut((class.busy + i, 0), (1, 1)).fill(value);
        }
        busy_covariance(&mut covariance, shape, class, curve, doubt);
    }
    let scale: Vec<(usize, f64)> = mean
        .iter()
        .map(|value| value * doubt.scale)
        .enumerate()
        .collect();
    add_outer(&mut covariance, &scale);
    for base in 0..METERS {
        add_outer(&mut covariance, &[(base, BASE_DOUBT * all_busy)]);
    }
    Start {
        mean,
        covariance,
        scaled,
    }
}

fn busy_covariance(
    covariance: &mut DMatrix<f64>,
    shape: &ClassShape,
    class: &ClassTerms,
    curve: &[f64],
    doubt: Doubt,
) {
    let (_, top) = ends(curve);
    let relative = shape.relative_frequencies();
    let along = |values: Vec<f64>| -> Vec<(usize, f64)> { (class.busy..).zip(values).collect() };
    let times = |values: &[f64], factor: f64| values.iter().map(|v| v * factor).collect();
    add_outer(covariance, &along(times(curve, doubt.class)));
    add_outer(covariance, &along(vec![doubt.constant * top; class.opps]));
    if shape.has_voltages() {
        add_outer(covariance, &along(times(&class.drive, doubt.drive * top)));
    } else {
        let cubes: Vec<f64> = relative.iter().map(|f| f.powi(3)).collect();
        add_outer(
            covariance,
            &along(times(&relative, doubt.drive * top * 0.5)),
        );
        add_outer(covariance, &along(times(&cubes, doubt.drive * top)));
    }
    let points: Vec<_> = relative.iter().zip(curve).enumerate().collect();
    for &(i, (fi, mi)) in &points {
        for &(j, (fj, mj)) in &points {
            let distance = (fi / fj).ln() / SMOOTH_LENGTH;
            let rough = if i == j { ROUGH.powi(2) } else { 0.0 };
            let relative = SMOOTH.powi(2) * (-0.5 * distance.powi(2)).exp() + rough;
            if let Some(cell) = covariance.get_mut((class.busy + i, class.busy + j)) {
                *cell += relative * mi * mj;
            }
        }
    }
}

/// First and last value of a checked curve.
fn ends(curve: &[f64]) -> (f64, f64) {
    match curve {
        [low, .., top] => (*low, *top),
        [only] => (*only, *only),
        [] => (1.0, 1.0),
    }
}

/// Adds a standard deviation along a direction: `covariance += d·dᵀ`.
pub(super) fn add_outer(covariance: &mut DMatrix<f64>, direction: &[(usize, f64)]) {
    for &(i, di) in direction {
        for &(j, dj) in direction {
            if let Some(cell) = covariance.get_mut((i, j)) {
                *cell += di * dj;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::OppShape;
    use crate::units::{Capacity, KHz};
    use nalgebra::Cholesky;

    fn shape(microvolt: Option<u32>) -> Shape {
        let opp = |i: u64| OppShape {
            khz: KHz::new(i * 300_000),
            cap: Capacity::new(i * 100).unwrap(),
            microvolt,
        };
        Shape {
            classes: vec![ClassShape {
                cpus: 4,
                domains: 1,
                opps: (1..=8).map(opp).collect(),
                idle_depths: 2,
                cluster_wakes: true,
                smt: true,
            }],
        }
    }

    fn curve(uw: u64) -> Prior {
        Prior::Watts(vec![(1..=8).map(|i| Microwatts::new(i * uw)).collect()])
    }

    #[test]
    fn beliefs_are_positive_definite_over_six_orders_of_magnitude() {
        for microvolt in [None, Some(800_000)] {
            let terms = Terms::new(shape(microvolt));
            for uw in [10, 10_000, 10_000_000] {
                let belief = curve(uw).start(&terms).unwrap();
                assert!(belief.mean.iter().all(|value| *value >= 0.0));
                assert!(Cholesky::new(belief.covariance).is_some(), "{uw}");
            }
        }
    }

    #[test]
    fn the_first_busy_cpu_is_believed_to_draw_what_the_prior_says() {
        let terms = Terms::new(shape(Some(800_000)));
        let belief = curve(100_000).start(&terms).unwrap();
        let power = PowerModel::from_parameters(&terms, &belief.mean);
        let class = &power.classes[0];
        let first = class.busy_w[7] + class.shared_w[7];
        assert!((first / 0.8 - 1.0).abs() < 0.05, "{first}");
    }

    #[test]
    fn an_abstract_scale_only_says_ratios() {
        let terms = Terms::new(shape(None));
        let belief = |factor: u64| {
            let prior = Prior::Abstract(vec![(1..=8).map(|i| i * factor).collect()]);
            prior.start(&terms).unwrap()
        };
        assert_eq!(belief(1).mean, belief(1000).mean);
        assert!(!belief(1).scaled);
        assert!(curve(1).start(&terms).unwrap().scaled);
    }

    #[test]
    fn priors_that_do_not_match_the_machine_are_refused_by_name() {
        let terms = Terms::new(shape(None));
        let cases = [
            (Prior::Watts(vec![]), "prior is 0 curves"),
            (
                Prior::Watts(vec![vec![Microwatts::new(1); 7]]),
                "prior of class 0 is 7 OPPs",
            ),
            (
                Prior::Watts(vec![vec![Microwatts::new(0); 8]]),
                "prior power of class 0 is 0",
            ),
            (
                Prior::Abstract(vec![vec![0; 8]]),
                "prior power of class 0 is NaN",
            ),
        ];
        for (prior, expected) in cases {
            let error = prior.start(&terms).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error} lacks {expected}");
        }
    }

    #[test]
    fn the_default_curve_rises_with_frequency_and_capacity() {
        let mut shape = shape(None);
        let big = default_curve(&shape.classes[0]);
        assert!(big.windows(2).all(|pair| pair[0] < pair[1]));
        shape.classes[0].opps.truncate(4);
        assert!(default_curve(&shape.classes[0])[3] < big[7]);
    }
}
