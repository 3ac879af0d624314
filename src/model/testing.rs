//! What tests of several parts of the model share.

use super::Model;
use crate::observation::{ClassActivity, Energy, Meters, Observation};
use crate::units::{Microjoules, Nanos};

/// A second in which a CPU of each of two classes was busy for so many tenths, which cost so much each, over 50 mW.
pub(super) fn observe(model: &mut Model, tenths: [u64; 2], tenth_uj: [u64; 2]) {
    let class = |tenths: u64| {
        let time = Nanos::new(tenths * 100_000_000);
        ClassActivity {
            active: vec![time],
            busy: vec![time],
            ..ClassActivity::default()
        }
    };
    let energy = 50_000 + tenths[0] * tenth_uj[0] + tenths[1] * tenth_uj[1];
    model.update(&Observation {
        duration: Nanos::new(1_000_000_000),
        meters: Meters {
            package: Some(Energy::measured(Microjoules::new(energy))),
            ..Meters::default()
        },
        classes: tenths.map(class).to_vec(),
    });
}
