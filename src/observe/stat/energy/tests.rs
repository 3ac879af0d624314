use super::*;
use crate::energy::Provenance;
use crate::energy::record::Sample;
use crate::energy::replay::Replay;
use crate::units::{Microjoules, Microwatts};

const MS: u64 = 1_000_000;

fn moved(joules: u64, ms: u64) -> Amount {
    Amount::Energy(Outcome::Moved {
        energy: Microjoules::new(1_000_000 * joules),
        elapsed: Nanos::new(ms * MS),
        wrapped: false,
    })
}

fn reading(domain: Domain, amount: Amount) -> Reading {
    Reading {
        domain,
        scope: Scope::Package {
            package: 0,
            die: None,
        },
        amount,
        provenance: Provenance::Measured,
    }
}

/// A meter that says this of the package at 1, 2, ... s.
fn meter(source: Source, says: &[Amount]) -> (Source, Option<Nanos>, Box<dyn EnergySource>) {
    let samples = says.iter().zip(1..).map(|(amount, second)| Sample {
        at: Nanos::new(second * 1000 * MS),
        readings: vec![reading(Domain::Package, amount.clone())],
        ..Sample::default()
    });
    let meter = Replay::new("test", samples);
    (source, Some(Nanos::new(MS)), Box::new(meter))
}

fn meters(meters: Vec<(Source, Option<Nanos>, Box<dyn EnergySource>)>) -> Meters {
    Meters {
        meters,
        ..Meters::none()
    }
}

/// The package's figure over an interval that begins at 1 s and ends at the last of the amounts.
fn over(says: &[Amount]) -> Figure {
    let mut meters = meters(vec![meter(Source::PerfPower, says)]);
    for second in 1..=says.len() {
        look(&mut meters, second);
    }
    let seconds = u64::try_from(says.len()).unwrap() - 1;
    let figures = meters.take(Nanos::new(seconds * 1000 * MS));
    *figures.values().next().unwrap()
}

fn look(meters: &mut Meters, second: usize) {
    meters.look(Moment {
        at: Nanos::new(u64::try_from(second).unwrap() * 1000 * MS),
        resumed: false,
    });
}

const BASELINE: Amount = Amount::Energy(Outcome::Baseline);

#[test]
fn differences_within_an_interval_add_up_and_the_error_is_that_of_its_ends() {
    let figure = over(&[BASELINE, moved(3, 1000), moved(5, 1000)]);
    assert_eq!((figure.joules, figure.watts), (8.0, 4.0));
    let error = figure.error_j.unwrap();
    assert!(
        (error - (4.0 * 0.001 + RESOLUTION_J)).abs() < 1e-12,
        "{error}"
    );
}

#[test]
fn one_difference_that_cannot_be_trusted_leaves_the_interval_unknown() {
    let reset = Amount::Energy(Outcome::Dropped(Cause::Reset));
    let figure = over(&[BASELINE, moved(3, 1000), reset]);
    assert!(!figure.is_known());
    assert!(!over(&[BASELINE]).is_known());
}

#[test]
fn what_a_slow_counter_has_not_told_yet_widens_the_error() {
    let still = Amount::Energy(Outcome::Still {
        elapsed: Nanos::new(100 * MS),
    });
    let figure = over(&[BASELINE, moved(4, 900), still]);
    assert!(!figure.is_known(), "less than half is covered: {figure:?}");
    let figure = over(&[BASELINE, moved(9, 900)]);
    assert_eq!(figure.watts, 10.0);
    assert!((figure.error_j.unwrap() - (10.0 * 0.101 + RESOLUTION_J)).abs() < 1e-9);
}

#[test]
fn power_is_integrated_between_looks() {
    let watts = |watts: u64| Amount::Power(Some(Microwatts::new(1_000_000 * watts)));
    let figure = over(&[watts(2), watts(4), watts(6)]);
    assert_eq!((figure.joules, figure.watts), (8.0, 4.0));
    assert!(!over(&[watts(2), Amount::Power(None)]).is_known());
}

#[test]
fn a_second_source_of_a_domain_is_not_added_to_the_first() {
    let says = [BASELINE, moved(3, 1000)];
    let mut meters = meters(vec![
        meter(Source::PerfPower, &says),
        meter(Source::Powercap, &says),
    ]);
    look(&mut meters, 1);
    look(&mut meters, 2);
    let figures = meters.take(Nanos::new(1000 * MS));
    let joules: Vec<f64> = figures.values().map(|figure| figure.joules).collect();
    assert_eq!(joules, [3.0]);
    assert!(meters.tells(Meter::Package) && !meters.tells(Meter::Dram));
}

#[test]
fn a_meter_that_has_gone_is_named_once_and_its_figure_is_unknown() {
    let mut meters = meters(vec![meter(Source::PerfPower, &[BASELINE])]);
    for second in 1..4 {
        look(&mut meters, second);
    }
    assert_eq!(meters.missing().len(), 1, "{:?}", meters.missing());
    let figures = meters.take(Nanos::new(1000 * MS));
    assert!(figures.values().all(|figure| !figure.is_known()));
}
