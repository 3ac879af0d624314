//! Exploration: whether trying a class that seems dear could show that it is not, and how often to try.
//!
//! A class that is never used keeps its prior, so a wrong prior would confirm itself.

use super::cost::{ClassLoad, placement};
use super::{Model, fit};
use crate::observation::Probe;

/// Part of the energy that probes may cost, by default.
pub const DEFAULT_BUDGET: f64 = 0.005;
/// Most of the placements that probes may take.
pub const MAX_SHARE: f64 = 0.05;
/// A ranking stands when the other class is dearer by this many standard deviations (90 %, one-sided).
const SURE: f64 = 1.28;
/// Gains below this part of a placement's energy are not worth a probe.
const WORTH: f64 = 0.03;
/// Task sizes whose ranking matters, capacity units.
const SIZES: [f64; 6] = [16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// The probe that could correct the costliest mistake in the ranking 'cheapest class for a task of size
/// u', at loads as they are now; `None` when no probe could change it by a gain worth having.
///
/// `budget` is the part of all energy that probes may cost: 0 (never) to 1, see [`DEFAULT_BUDGET`].
pub fn probe(model: &Model, loads: &[ClassLoad], budget: f64) -> Option<Probe> {
    if !(budget > 0.0 && budget <= 1.0) {
        return None;
    }
    SIZES
        .iter()
        .filter_map(|&util| worst_doubt(model, loads, util))
        .max_by(|a, b| a.gain.total_cmp(&b.gain))
        .map(|doubt| Probe {
            class: doubt.class,
            share: (budget / doubt.price).min(MAX_SHARE),
        })
}

/// A class that might be cheaper than the one that seems cheapest; both relative to the cheapest's cost.
struct Doubt {
    class: usize,
    /// What would be saved if it were as cheap as it could be.
    gain: f64,
    /// What a placement there may cost more.
    price: f64,
}

fn worst_doubt(model: &Model, loads: &[ClassLoad], util: f64) -> Option<Doubt> {
    let parameters = model.filter.estimate();
    let classes = model.terms.classes.iter().zip(&model.terms.shape.classes);
    let options: Vec<_> = (classes.zip(loads).enumerate())
        .filter_map(|(k, ((terms, shape), load))| {
            let caps = shape.opps.iter().map(|opp| f64::from(opp.cap.get()));
            let row = placement(caps, load, util)?.row(terms);
            let cost = fit::dot(&row, &parameters);
            Some((k, row, cost))
        })
        .collect();
    let (cheapest, best_row, best) = options.iter().min_by(|a, b| a.2.total_cmp(&b.2))?;
    let scale = best.max(f64::MIN_POSITIVE);
    (options.iter())
        .filter(|(k, ..)| k != cheapest)
        .map(|(class, row, cost)| {
            let sigma = model.filter.variance_of(&row.minus(1.0, best_row)).sqrt();
            Doubt {
                class: *class,
                gain: (SURE * sigma - (cost - best)) / scale,
                price: (cost - best + sigma) / scale,
            }
        })
        .filter(|doubt| doubt.gain > WORTH && doubt.price.is_finite() && doubt.price > 0.0)
        .max_by(|a, b| a.gain.total_cmp(&b.gain))
}
