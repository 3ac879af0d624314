//! Exploration: whether trying a class that seems dear could show that it is not, and how often to try.
//!
//! A class that is never used keeps its prior, so a wrong prior would confirm itself; one that is used no
//! more may have changed since.
//!
//! Probes come in bursts. What a row tells of a class grows with the square of the part of the work done
//! there, what it costs only linearly: for a share of 1 %, all work of two rows in two hundred tells a
//! hundred times more than every hundredth placement. It also shows the machine without the class in use,
//! which tells that class's power from the base under a load that never rests.

use super::cost::{ClassLoad, placement};
use super::{Model, fit};
use crate::observation::Burst;
use crate::units::Nanos;

/// Part of the energy that probes may cost, by default.
pub const DEFAULT_BUDGET: f64 = 0.003;
/// Most of the work that probes may take.
pub const MAX_SHARE: f64 = 0.05;
/// Length of a burst, rows.
const BURST_ROWS: u32 = 2;
/// A row of less work than this, CPU time, comes from a machine that idles: there would be little to learn from the
/// next.
const LEAST_WORK: Nanos = Nanos::new(50_000_000);
/// Rows take long once there is little to do; a burst ends before they do.
const LONGEST_BURST: Nanos = Nanos::new(1_000_000_000);
/// A ranking stands when the other class is dearer by this many standard deviations (90 %, one-sided).
const SURE: f64 = 1.28;
/// Gains below this part of a placement's energy are not worth a probe.
const WORTH: f64 = 0.03;
/// Least relative price of a probe: what looks as cheap as the best still costs migrations.
const CHEAPEST: f64 = 0.1;
/// Task sizes whose ranking matters, capacity units.
const SIZES: [f64; 6] = [16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// A class that seems dearer than another, and is worth trying.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// Its index.
    pub class: usize,
    /// Part of all work to spend there, above 0 and at most 1.
    pub share: f64,
}

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
                // What is expected, not feared: the first burst shows whether it is worse.
                price: ((cost - best) / scale).max(CHEAPEST),
            }
        })
        .filter(|doubt| doubt.gain > WORTH && doubt.price.is_finite() && doubt.price > 0.0)
        .max_by(|a, b| a.gain.total_cmp(&b.gain))
}

/// Gathers what the budget allows for probes and spends it in bursts.
///
/// It is counted in rows, whatever was done in them: what is saved while there is much to do and spent once
/// there is little would have a burst begin whenever a load grows light.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bursts {
    /// Rows that may be probed; negative while more were. `None`: no burst was yet, and the first is granted,
    /// as nothing is known.
    saved: Option<f64>,
    /// Rows to come of the burst that is on.
    left: u32,
}

impl Bursts {
    /// What to try from now on, after a row in which CPUs were busy for `work`, when `wanted` is worth it on
    /// average.
    pub fn next(&mut self, wanted: Option<Probe>, work: Nanos) -> Option<Burst> {
        if work < LEAST_WORK {
            // What little was tried meanwhile is forgotten.
            self.left = 0;
            return None;
        }
        let whole = f64::from(BURST_ROWS);
        let saved = self.saved.get_or_insert(whole);
        if self.left > 0 {
            *saved -= 1.0;
            self.left -= 1;
        } else if let Some(probe) = wanted {
            *saved += probe.share;
        }
        self.left = match (wanted, self.left) {
            (None, _) => 0,
            (Some(_), 0) if *saved >= whole => BURST_ROWS,
            (Some(_), left) => left,
        };
        wanted.filter(|_| self.left > 0).map(|probe| Burst {
            class: probe.class,
            longest: LONGEST_BURST,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::observe;
    use crate::model::{ClassShape, OppShape, Prior, Shape};
    use crate::units::{Capacity, KHz, Microwatts};

    /// A little and a big class of one CPU each, the big one believed to be dearer by `factor`.
    fn model(factor: u64) -> Model {
        let class = |top: u64| ClassShape {
            cpus: 1,
            domains: 1,
            opps: vec![OppShape {
                khz: KHz::new(1_000_000),
                cap: Capacity::new(top).unwrap(),
                microvolt: None,
            }],
            idle_depths: 0,
            cluster_wakes: false,
            smt: false,
        };
        let shape = Shape {
            classes: vec![class(1024), class(1023)],
        };
        let watts = |uw| vec![Microwatts::new(uw)];
        let prior = Prior::Watts(vec![watts(100_000), watts(100_000 * factor)]);
        Model::new(shape, &prior).unwrap()
    }

    fn loads() -> [ClassLoad; 2] {
        [ClassLoad {
            cpus: 1,
            domains: 1,
            ..ClassLoad::default()
        }; 2]
    }

    /// A tenth of a second of each class, µJ: 100 and 300 mW; and of the same with a big class that draws half.
    const TENTH_UJ: [u64; 2] = [10_000, 30_000];
    const CHEAPER_UJ: [u64; 2] = [10_000, 15_000];

    #[test]
    fn a_doubtful_ranking_is_probed_within_the_budget() {
        let probe = probe(&model(2), &loads(), DEFAULT_BUDGET).unwrap();
        assert_eq!(probe.class, 1);
        // The big class costs twice as much: no larger a share of placements than of energy.
        assert!(
            probe.share > 0.0 && probe.share <= DEFAULT_BUDGET,
            "{probe:?}"
        );
    }

    #[test]
    fn a_class_dearer_beyond_doubt_is_left_alone() {
        assert_eq!(probe(&model(100), &loads(), DEFAULT_BUDGET), None);
    }

    #[test]
    fn probing_stops_once_the_ranking_is_known() {
        let mut model = model(2);
        for row in 0..200 {
            observe(&mut model, [row % 7, (row / 2) % 5], TENTH_UJ);
        }
        assert_eq!(probe(&model, &loads(), DEFAULT_BUDGET), None);
    }

    #[test]
    fn use_of_one_class_alone_does_not_settle_the_other() {
        let mut model = model(2);
        for row in 0..200 {
            observe(&mut model, [row % 7, 0], TENTH_UJ);
        }
        assert_eq!(probe(&model, &loads(), DEFAULT_BUDGET).unwrap().class, 1);
    }

    #[test]
    fn no_budget_no_probe() {
        for budget in [0.0, -1.0, f64::NAN, 2.0] {
            assert_eq!(probe(&model(2), &loads(), budget), None);
        }
    }

    #[test]
    fn no_probe_goes_where_a_task_does_not_fit() {
        let mut loads = loads();
        loads[1].util = 1000.0;
        loads[1].top = 1000.0;
        let probe = probe(&model(2), &loads, DEFAULT_BUDGET);
        assert!(probe.is_none_or(|probe| probe.class == 0), "{probe:?}");
    }

    #[test]
    fn a_class_out_of_use_is_doubted_again_and_probed_again() {
        let mut model = model(2);
        for row in 0..200 {
            observe(&mut model, [row % 7, (row / 2) % 5], CHEAPER_UJ);
        }
        assert_eq!(probe(&model, &loads(), DEFAULT_BUDGET), None);
        let curve = |model: &Model| model.curve(1)[0].1;
        let known = curve(&model);
        let rows = (0..1200).find(|row| {
            observe(&mut model, [row % 7, 0], CHEAPER_UJ);
            probe(&model, &loads(), DEFAULT_BUDGET).is_some()
        });
        assert!(rows.is_some_and(|rows| rows > 10), "{rows:?}");
        assert!(curve(&model).sigma_uw > 2.0 * known.sigma_uw);
        assert!((curve(&model).uw / known.uw - 1.0).abs() < 0.1);
    }

    /// After which rows, each of so many ms of work, the next one is probed when 1 % may be.
    fn probed(works_ms: impl Iterator<Item = u64>) -> Vec<bool> {
        let wanted = Some(Probe {
            class: 1,
            share: 0.01,
        });
        let mut bursts = Bursts::default();
        works_ms
            .map(|work| bursts.next(wanted, Nanos::new(work * 1_000_000)))
            .map(|burst| burst.is_some())
            .collect()
    }

    #[test]
    fn bursts_take_all_placements_and_on_average_what_was_allowed() {
        let probed = probed(std::iter::repeat_n(300, 4000));
        assert!(probed[0] && probed[1] && !probed[2], "the first at once");
        let part = probed.iter().filter(|probed| **probed).count();
        assert!((38..=44).contains(&part), "{part} of 4000");
        assert_eq!(Bursts::default().next(None, LEAST_WORK), None);
    }

    #[test]
    fn bursts_keep_to_what_was_allowed_of_all_work_where_rows_differ() {
        let works: Vec<u64> = (0..20_000)
            .map(|row| if row / 90 % 2 == 0 { 100 } else { 4000 })
            .collect();
        let probed = probed(works.iter().copied());
        // What is decided after a row goes for the next one.
        let tried: u64 = (works.iter().skip(1).zip(&probed))
            .filter_map(|(work, probed)| probed.then_some(work))
            .sum();
        let permille = 1000 * tried / works.iter().sum::<u64>();
        assert!((8..=12).contains(&permille), "{permille} of 1000");
    }

    #[test]
    fn a_load_that_grows_light_is_not_probed_for_what_was_saved_before() {
        let heavy = std::iter::repeat_n(4000, 102);
        let probed = probed(heavy.chain(std::iter::repeat_n(100, 90)));
        assert_eq!(probed.iter().filter(|probed| **probed).count(), 2);
    }

    #[test]
    fn a_machine_that_idles_is_not_probed() {
        assert!(!probed(std::iter::repeat_n(30, 4000)).contains(&true));
        let falls_idle = probed([300, 30, 3].into_iter());
        assert_eq!(falls_idle, [true, false, false]);
    }
}
