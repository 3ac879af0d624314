//! Time of one turn of the model, and of one table, for a phone with three clusters of 21 OPPs.
//!
//! `cargo bench --bench model_update`. Four turns a second are wanted.

#![allow(missing_docs, reason = "a benchmark has no callers")]

use criterion::Criterion;
use scx_joule::model::{ClassShape, Model, OppShape, Prior, Shape};
use scx_joule::observation::{ClassActivity, Energy, IdleActivity, Meters, Observation};
use scx_joule::units::{Capacity, KHz, Microjoules, Nanos};
use std::hint::black_box;

const OPPS: u64 = 21;
/// Rows before the first that is timed: the noise is known by then, and nothing is held back.
const WARM_UP: usize = 1000;

fn main() {
    let model = shape().and_then(|shape| Model::new(shape, &Prior::Capacities).ok());
    let Some(mut model) = model else {
        eprintln!("model_update: the phone's shape is refused");
        return;
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let rows: Vec<Observation> = (0..4 * WARM_UP).map(|_| observation(&mut rng)).collect();
    let mut rows = rows.iter().cycle();
    for row in rows.by_ref().take(WARM_UP) {
        model.update(row);
    }
    let mut criterion = Criterion::default().configure_from_args();
    criterion.bench_function("update", |bench| {
        bench.iter(|| rows.next().map(|row| black_box(model.update(row))));
    });
    criterion.bench_function("cost_table", |bench| {
        bench.iter(|| black_box(model.cost_table()));
    });
    criterion.final_summary();
}

fn shape() -> Option<Shape> {
    let class = |cpus: u16, top: u64| -> Option<ClassShape> {
        let opps = (1..=OPPS).map(|i| {
            Some(OppShape {
                khz: KHz::new(i * 100_000),
                cap: Capacity::new(top * i / OPPS)?,
                microvolt: None,
            })
        });
        Some(ClassShape {
            cpus,
            domains: 1,
            opps: opps.collect::<Option<Vec<_>>>()?,
            idle_depths: 2,
            cluster_wakes: true,
            smt: false,
        })
    };
    Some(Shape {
        classes: vec![class(4, 300)?, class(3, 700)?, class(2, 1024)?],
    })
}

/// A quarter of a second in which each class used three OPPs.
fn observation(rng: &mut fastrand::Rng) -> Observation {
    let duration = 250_000_000;
    let mut energy = 50_000;
    let class = |cpus: u64, rng: &mut fastrand::Rng, energy: &mut u64| {
        let mut activity = ClassActivity {
            active: vec![Nanos::new(0); 21],
            busy: vec![Nanos::new(0); 21],
            idle: vec![IdleActivity::default(); 2],
            cluster_wakes: Some(rng.u64(..40)),
            sibling: None,
        };
        for _ in 0..3 {
            let busy = rng.u64(..duration / 3);
            let at = rng.usize(..21);
            if let (Some(b), Some(a)) = (activity.busy.get_mut(at), activity.active.get_mut(at)) {
                (*b, *a) = (Nanos::new(busy), Nanos::new(busy));
            }
            *energy += busy / 1_000_000 * (200 + rng.u64(..40)) * cpus;
        }
        for idle in &mut activity.idle {
            *idle = IdleActivity {
                time: Nanos::new(rng.u64(..duration / 2)),
                exits: rng.u64(..100),
            };
        }
        activity
    };
    let classes = vec![
        class(4, rng, &mut energy),
        class(3, rng, &mut energy),
        class(2, rng, &mut energy),
    ];
    Observation {
        duration: Nanos::new(duration),
        meters: Meters {
            package: Some(Energy::measured(Microjoules::new(energy))),
            ..Meters::default()
        },
        classes,
    }
}
