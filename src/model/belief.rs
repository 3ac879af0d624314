//! What a model believes, as named numbers: for saving, for merging with what other machines learnt, and
//! for starting from.

use super::features::{METERS, Meter, Refusal, Terms};
use super::fit::Filter;
use nalgebra::{DMatrix, DVector};

/// A Gaussian over the parameters of a power model and the one it started from. Powers are in W, energies
/// in J; powers of CPUs count from the deepest idle state.
#[derive(Clone, Debug, PartialEq)]
pub struct Belief {
    /// One name per parameter, none twice: `base.package`, `class0.busy.1800000` (kHz),
    /// `class0.shared.constant`, `class0.shared.driven` (times f·V² relative to the top OPP),
    /// `class0.idle.0`, `class0.wake.0`, `class0.cluster_wake`, `class0.sibling`.
    pub names: Vec<String>,
    /// Most probable values. May be slightly negative: powers are made non-negative on reading.
    pub mean: Vec<f64>,
    /// Covariance of the values, symmetric and positive definite, row after row.
    pub covariance: Vec<f64>,
    /// Values before any measurement.
    pub prior_mean: Vec<f64>,
    /// Covariance before any measurement, row after row.
    pub prior_covariance: Vec<f64>,
}

/// The names of all parameters, in the order of the parameter vector.
pub(super) fn names(terms: &Terms) -> Vec<String> {
    let mut names = Vec::with_capacity(terms.len);
    let meters: [Meter; METERS] = [Meter::Package, Meter::Cores, Meter::System];
    names.extend(meters.map(|meter| format!("base.{}", meter.name())));
    for (k, (class, shape)) in terms.classes.iter().zip(&terms.shape.classes).enumerate() {
        let opps = shape.opps.iter();
        names.extend(opps.map(|opp| format!("class{k}.busy.{}", opp.khz.get())));
        if class.shared.is_some() {
            names.push(format!("class{k}.shared.constant"));
            names.push(format!("class{k}.shared.driven"));
        }
        names.extend((0..class.idle.len()).map(|d| format!("class{k}.idle.{d}")));
        names.extend((0..class.wake.len()).map(|d| format!("class{k}.wake.{d}")));
        names.extend(class.cluster_wake.map(|_| format!("class{k}.cluster_wake")));
        names.extend(class.sibling.map(|_| format!("class{k}.sibling")));
    }
    names
}

/// The belief that a filter holds.
pub(super) fn of(terms: &Terms, filter: &Filter) -> Belief {
    let rows = |matrix: DMatrix<f64>| matrix.transpose().as_slice().to_vec();
    Belief {
        names: names(terms),
        mean: filter.mean().as_slice().to_vec(),
        covariance: rows(filter.covariance()),
        prior_mean: filter.prior_mean().as_slice().to_vec(),
        prior_covariance: rows(filter.prior_covariance()),
    }
}

/// The filter that holds a belief.
///
/// # Errors
/// Names other than the machine's, lists of the wrong length, or a covariance that is none.
pub(super) fn filter(terms: &Terms, belief: &Belief) -> Result<Filter, Refusal> {
    let wrong = |what: String, value: String, expected: String| {
        Err(Refusal::Absurd {
            what,
            value,
            expected,
        })
    };
    let len = terms.len;
    let lengths = [
        ("names", belief.names.len(), len),
        ("means", belief.mean.len(), len),
        ("covariances", belief.covariance.len(), len * len),
        ("prior means", belief.prior_mean.len(), len),
        (
            "prior covariances",
            belief.prior_covariance.len(),
            len * len,
        ),
    ];
    for (what, found, expected) in lengths {
        if found != expected {
            let what = format!("number of {what} of the belief");
            return wrong(what, found.to_string(), expected.to_string());
        }
    }
    let named = belief.names.iter().zip(names(terms));
    for (found, expected) in named {
        if *found != expected {
            return wrong("parameter".into(), found.clone(), expected);
        }
    }
    let mean = |values: &Vec<f64>| DVector::from_column_slice(values);
    let covariance = |values: &Vec<f64>| DMatrix::from_row_slice(len, len, values);
    let prior = Filter::new(
        mean(&belief.prior_mean),
        covariance(&belief.prior_covariance),
    );
    prior
        .and_then(|prior| prior.believing(mean(&belief.mean), covariance(&belief.covariance)))
        .ok_or(Refusal::BadPrior)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClassShape, Model, OppShape, Prior, Shape};
    use crate::observation::{ClassActivity, Energy, IdleActivity, Meters, Observation};
    use crate::units::{Capacity, KHz, Microjoules, Microwatts, Nanos};

    fn shape() -> Shape {
        let opp = |khz, cap| OppShape {
            khz: KHz::new(khz),
            cap: Capacity::new(cap).unwrap(),
            microvolt: None,
        };
        Shape {
            classes: vec![ClassShape {
                cpus: 2,
                domains: 1,
                opps: vec![opp(1_000_000, 512), opp(2_000_000, 1024)],
                idle_depths: 2,
                cluster_wakes: true,
                smt: true,
            }],
        }
    }

    fn prior() -> Prior {
        Prior::Watts(vec![vec![
            Microwatts::new(100_000),
            Microwatts::new(400_000),
        ]])
    }

    fn trained() -> Model {
        let mut model = Model::new(shape(), &prior()).unwrap();
        for i in 0..40 {
            model.update(&observation(i % 5 * 40, 90_000 + i % 5 * 9_000));
        }
        model
    }

    fn observation(busy_ms: u64, uj: u64) -> Observation {
        let ms = |time: u64| Nanos::new(time * 1_000_000);
        Observation {
            duration: ms(250),
            meters: Meters {
                package: Some(Energy::measured(Microjoules::new(uj))),
                ..Meters::default()
            },
            classes: vec![ClassActivity {
                active: vec![ms(busy_ms), ms(0)],
                busy: vec![ms(busy_ms), ms(0)],
                idle: vec![
                    IdleActivity {
                        time: ms(0),
                        exits: 4,
                    },
                    IdleActivity {
                        time: ms(500 - busy_ms),
                        exits: 9,
                    },
                ],
                cluster_wakes: Some(3),
                sibling: Some(vec![ms(0); 2]),
            }],
        }
    }

    #[test]
    fn every_parameter_has_a_name_of_its_own() {
        let names = names(&Terms::new(shape()));
        let expected = [
            "base.package",
            "base.cores",
            "base.system",
            "class0.busy.1000000",
            "class0.busy.2000000",
            "class0.shared.constant",
            "class0.shared.driven",
            "class0.idle.0",
            "class0.wake.0",
            "class0.wake.1",
            "class0.cluster_wake",
            "class0.sibling",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_model_that_starts_from_a_belief_believes_it() {
        let belief = trained().belief().unwrap();
        let model = Model::with_belief(shape(), &belief).unwrap();
        let again = model.belief().unwrap();
        assert_eq!(again.names, belief.names);
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(near(&again.mean, &belief.mean));
        assert!(near(&again.covariance, &belief.covariance));
        assert!(near(&again.prior_covariance, &belief.prior_covariance));
        let (old, new) = (trained().curve(0), model.curve(0));
        assert!((old[0].1.uw / new[0].1.uw - 1.0).abs() < 1e-6);
        assert_eq!(old[0].1.identified, new[0].1.identified);
    }

    #[test]
    fn two_meters_that_see_the_same_tasks_tell_no_more_than_one() {
        let sure = |cores: bool| {
            let mut model = Model::new(shape(), &prior()).unwrap();
            for i in 0..200 {
                let mut observation = observation(i % 5 * 40, 90_000 + i % 5 * 9_000);
                let energy = observation.meters.package.unwrap().amount.get() - 5_000;
                let energy = Energy::measured(Microjoules::new(energy));
                observation.meters.cores = cores.then_some(energy);
                model.update(&observation);
            }
            model.curve(0)[0].1.sigma_uw
        };
        assert!(
            sure(true) > 0.85 * sure(false),
            "{} {}",
            sure(true),
            sure(false)
        );
    }

    #[test]
    fn there_is_no_belief_before_the_scale_is_known() {
        let model = Model::new(shape(), &Prior::Capacities).unwrap();
        assert_eq!(model.belief(), None);
    }

    #[test]
    fn a_belief_about_another_machine_or_of_no_numbers_is_refused_by_name() {
        type Spoil = fn(&mut Belief);
        let cases: [(&str, Spoil); 5] = [
            ("parameter is class0.busy.999", |b| {
                b.names[3] = "class0.busy.999".into();
            }),
            ("number of means of the belief is 11", |b| {
                b.mean.truncate(11)
            }),
            ("number of covariances", |b| b.covariance.push(0.0)),
            ("prior covariance", |b| b.covariance[0] = f64::NAN),
            ("prior covariance", |b| b.mean[4] = f64::INFINITY),
        ];
        for (expected, spoil) in cases {
            let mut belief = trained().belief().unwrap();
            spoil(&mut belief);
            let error = Model::with_belief(shape(), &belief)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(expected), "{error} lacks {expected}");
        }
    }
}
