use super::*;
use crate::observation::IdleActivity;
use crate::units::Microjoules;

fn class(cpus: u16, domains: u16, idle_depths: usize) -> ClassShape {
    let opp = |khz, cap| OppShape {
        khz: KHz::new(khz),
        cap: Capacity::new(cap).unwrap(),
        microvolt: None,
    };
    ClassShape {
        cpus,
        domains,
        opps: vec![opp(1_000_000, 512), opp(2_000_000, 1024)],
        idle_depths,
        cluster_wakes: true,
        smt: false,
    }
}

fn terms(class: ClassShape) -> Terms {
    Terms::new(Shape {
        classes: vec![class],
    })
}

fn ms(time: u64) -> Nanos {
    Nanos::new(time * 1_000_000)
}

/// A quarter of a second on a class of two CPUs.
fn observation() -> Observation {
    Observation {
        duration: ms(250),
        meters: Meters {
            package: Some(Energy::measured(Microjoules::new(100_000))),
            ..Meters::default()
        },
        classes: vec![ClassActivity {
            active: vec![ms(50), ms(100)],
            busy: vec![ms(75), ms(125)],
            idle: vec![
                IdleActivity {
                    time: ms(100),
                    exits: 25,
                },
                IdleActivity {
                    time: ms(200),
                    exits: 5,
                },
            ],
            cluster_wakes: Some(2),
            sibling: None,
        }],
    }
}

#[test]
fn a_row_holds_fractions_of_time_and_rates_of_events() {
    let terms = terms(class(2, 1, 2));
    let rows = terms.rows(&observation()).unwrap();
    let (meter, row, watts) = &rows[0];
    assert_eq!((rows.len(), *meter, *watts), (1, Meter::Package, 0.4));
    let k = &terms.classes[0];
    let find = |parameter| row.iter().find(|(p, _)| *p == parameter).map(|(_, c)| c);
    let near = |parameter, value: f64| {
        let found = find(parameter).unwrap();
        assert!(
            (found - value).abs() < 1e-12,
            "{parameter}: {found} {value}"
        );
    };
    near(Meter::Package.index(), 1.0);
    near(k.busy, 0.3);
    near(k.busy + 1, 0.5);
    near(k.shared.unwrap(), 0.6);
    near(k.shared.unwrap() + 1, 0.2 * k.drive[0] + 0.4);
    near(k.idle[0], 0.4);
    near(k.wake[0], 100.0);
    near(k.wake[1], 20.0);
    near(k.cluster_wake.unwrap(), 8.0);
    assert_eq!(k.idle.len(), 1, "deepest idle is part of the base");
}

#[test]
fn two_busy_threads_of_a_core_save_in_proportion_to_the_opps_power() {
    let mut terms = terms(ClassShape {
        smt: true,
        ..class(2, 1, 2)
    });
    let mut observation = observation();
    assert!(terms.rows(&observation).is_err(), "siblings not told");
    observation.classes[0].sibling = Some(vec![ms(25), ms(50)]);
    let near = |terms: &Terms, low: f64| {
        let (_, row, _) = terms.rows(&observation).unwrap().remove(0);
        let sibling = terms.classes[0].sibling;
        let (_, found) = row.iter().find(|(p, _)| Some(*p) == sibling).unwrap();
        assert!((found + 0.1 * low + 0.2).abs() < 1e-12, "{found}");
    };
    near(&terms, terms.classes[0].drive[0]);
    let mut believed = DVector::zeros(terms.len);
    terms.follow(&believed);
    near(&terms, terms.classes[0].drive[0]);
    let busy = terms.classes[0].busy;
    (believed[busy], believed[busy + 1]) = (0.3, 1.5);
    terms.follow(&believed);
    near(&terms, 0.2);
    believed[busy] = -0.1;
    terms.follow(&believed);
    near(&terms, 0.0);
    observation.classes[0].sibling = Some(vec![ms(100), ms(200)]);
    assert!(
        terms.rows(&observation).is_err(),
        "more than there are pairs"
    );
}

#[test]
fn a_cpu_with_a_clock_of_its_own_has_no_shared_terms() {
    let terms = terms(class(2, 2, 2));
    assert_eq!(terms.classes[0].shared, None);
    assert_eq!(terms.classes[0].cluster_wake, None);
}

#[test]
fn the_package_counts_without_its_graphics_and_next_to_the_cores() {
    let mut observation = observation();
    let energy = |uj| Some(Energy::measured(Microjoules::new(uj)));
    observation.meters.gpu = energy(25_000);
    observation.meters.cores = energy(50_000);
    observation.meters.system = energy(900_000);
    let rows = terms(class(2, 1, 2)).rows(&observation).unwrap();
    let seen: Vec<_> = rows
        .iter()
        .map(|(meter, _, watts)| (*meter, *watts))
        .collect();
    assert_eq!(seen, [(Meter::Package, 0.3), (Meter::Cores, 0.2)]);
}

#[test]
fn the_system_meter_stands_in_where_there_is_no_closer_one() {
    let mut observation = observation();
    observation.meters.system = observation.meters.package.take();
    let rows = terms(class(2, 1, 2)).rows(&observation).unwrap();
    assert_eq!(rows[0].0, Meter::System);
}

#[test]
fn energy_that_no_meter_read_is_not_fitted_to() {
    let mut observation = observation();
    observation.meters.package = observation.meters.package.map(|energy| Energy {
        provenance: Provenance::Abstract,
        ..energy
    });
    let error = terms(class(2, 1, 2)).rows(&observation).unwrap_err();
    assert_eq!(error, Refusal::NoMeter);
}

#[test]
fn absurd_observations_are_refused_by_name() {
    type Spoil = fn(&mut Observation);
    let cases: [(&str, Spoil); 11] = [
        ("duration is 0 ns", |o| o.duration = Nanos::new(0)),
        ("duration is", |o| o.duration = Nanos::new(u64::MAX)),
        ("classes observed is 0", |o| o.classes.clear()),
        ("class 0 busy OPPs is 1", |o| o.classes[0].busy.truncate(1)),
        ("class 0 active OPPs is 3", |o| {
            o.classes[0].active.push(ms(0))
        }),
        ("class 0 idle depths is 0", |o| o.classes[0].idle.clear()),
        ("class 0 cluster wake-up counts is 0", |o| {
            o.classes[0].cluster_wakes = None;
        }),
        ("class 0 busy + idle ns", |o| o.classes[0].busy[0] = ms(300)),
        ("class 0 active ns", |o| {
            o.classes[0].active[0] = Nanos::new(u64::MAX)
        }),
        ("class 0 idle exits", |o| {
            o.classes[0].idle[0].exits = u64::MAX
        }),
        ("Package power", |o| {
            o.meters.package = Some(Energy::measured(Microjoules::new(u64::MAX)));
        }),
    ];
    let terms = terms(class(2, 1, 2));
    for (expected, spoil) in cases {
        let mut observation = observation();
        spoil(&mut observation);
        let error = terms.rows(&observation).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error} lacks {expected}");
        assert!(error.contains("expected"), "{error}");
    }
}

#[test]
fn shapes_that_no_table_could_hold_are_refused_by_name() {
    type Spoil = fn(&mut ClassShape);
    let cases: [(&str, Spoil); 7] = [
        ("class 0 cpus is 0", |c| c.cpus = 0),
        ("class 0 domains is 3", |c| c.domains = 3),
        ("class 0 opps is 0", |c| c.opps.clear()),
        ("class 0 idle depths is 3", |c| c.idle_depths = 3),
        ("class 0 opp 1 kHz", |c| c.opps[1].khz = KHz::new(5)),
        ("class 0 opp 1 capacity", |c| c.opps[1].cap = c.opps[0].cap),
        ("class 0 opp 0 voltage", |c| c.opps[0].microvolt = Some(0)),
    ];
    for (expected, spoil) in cases {
        let mut shape = Shape {
            classes: vec![class(2, 1, 2)],
        };
        assert_eq!(shape.check(), Ok(()));
        spoil(&mut shape.classes[0]);
        let error = shape.check().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error} lacks {expected}");
    }
}

#[test]
fn rows_subtract_term_by_term() {
    let row = |entries: &[(usize, f64)]| Row(entries.to_vec());
    let left = row(&[(0, 1.0), (3, 2.0)]);
    assert_eq!(
        left.minus(0.5, &row(&[(0, 4.0), (2, 1.0)])),
        row(&[(0, -1.0), (2, -0.5), (3, 2.0)])
    );
    let dense = DVector::from_vec(vec![1.0, 5.0, 0.0, 0.5]);
    assert_eq!(left.minus_dense(&dense), row(&[(1, -5.0), (3, 1.5)]));
}
