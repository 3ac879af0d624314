//! Time of one model update and of one table, for a phone with three clusters of 21 OPPs.
//!
//! `cargo run --release --example model_update`. Prints ns; nothing is asserted.

use scx_joule::model::{ClassShape, Model, OppShape, Prior, Shape};
use scx_joule::observation::{ClassActivity, Energy, IdleActivity, Meters, Observation};
use scx_joule::units::{Capacity, KHz, Microjoules, Nanos};
use std::hint::black_box;
use std::time::Instant;

const OPPS: u64 = 21;
const ROWS: u64 = 4000;

fn main() {
    let Some(shape) = shape() else { return };
    let mut model = match Model::new(shape, &Prior::Capacities) {
        Ok(model) => model,
        Err(error) => {
            eprintln!("model_update: {error}");
            return;
        }
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let rows: Vec<Observation> = (0..ROWS).map(|_| observation(&mut rng)).collect();
    let mut times: Vec<u128> = Vec::new();
    for row in &rows {
        let start = Instant::now();
        black_box(model.update(row));
        times.push(start.elapsed().as_nanos());
    }
    print("update", &mut times);
    let mut times: Vec<u128> = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        black_box(model.cost_table());
        times.push(start.elapsed().as_nanos());
    }
    print("cost_table", &mut times);
}

fn print(what: &str, times: &mut [u128]) {
    times.sort_unstable();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or(0);
    let count = times.len().max(1);
    let mean = times
        .iter()
        .map(|&time| usize::try_from(time).unwrap_or(usize::MAX))
        .sum::<usize>()
        / count;
    println!(
        "{what}: mean {mean} ns, median {} ns, p99 {} ns",
        at(50),
        at(99)
    );
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
