//! The home: the class of which one group should do all there is to do while that is little.
//!
//! What one task more costs as things are (see `cost`) does not tell what all of them would cost in one
//! group with a higher clock and the others asleep. For a group, alone, the OPP is best at which its CPUs,
//! all of them busy, draw least beside what their work would cost elsewhere, where it is cheapest there: in
//! another class, or in another group of its own. The home is the group that saves most at its best OPP, and
//! what that OPP can take is the limit.
//!
//! What is learnt in a load's first seconds of a class that is little used may be off by half, and little more
//! is learnt of a class that nobody uses; the prior in turn may be wrong from the start. So there is a home
//! only where both say the same; else each task goes by its own price, as where there is more to do.

use super::features::{ClassShape, ClassTerms, Row, Terms};
use super::fit;
use crate::observation::Home;
use nalgebra::DVector;
use num_traits::ToPrimitive;

/// A group that has little to do draws half as much again as for its work, to be waked and awake.
const LITTLE_WORK: f64 = 1.5;
/// What tasks may use of CPUs, of what these offer, if they are to have no others: they wake together, and
/// each CPU must offer half as much again as its share.
const USABLE: f64 = 2.0 / 3.0;

/// A group that does all there is to do.
#[derive(Clone, Copy, Debug)]
struct Choice {
    class: usize,
    most_cap: f64,
    /// What is saved, W.
    saved_w: f64,
}

/// The home where the parameters that are believed before anything is measured, and those that are now, agree.
pub(super) fn choose(terms: &Terms, prior: &DVector<f64>, now: &DVector<f64>) -> Option<Home> {
    let (before, now) = (best(terms, prior)?, best(terms, now)?);
    let agreed = (before.class == now.class).then_some(now)?;
    Some(Home {
        class: agreed.class,
        most_cap: agreed.most_cap.to_u32()?.max(1),
    })
}

/// What saves most; `None` where nothing does.
fn best(terms: &Terms, parameters: &DVector<f64>) -> Option<Choice> {
    (0..terms.classes.len())
        .filter_map(|class| alone(terms, parameters, class))
        .max_by(|a, b| a.saved_w.total_cmp(&b.saved_w))
        .filter(|best| best.saved_w > 0.0)
}

/// A group of the class that does all there is to do, at its best OPP. `None` where that cannot save anything:
/// it is one CPU or has several clocks, or there is no other group.
fn alone(terms: &Terms, parameters: &DVector<f64>, class: usize) -> Option<Choice> {
    let (shape, class_terms) = (terms.shape.classes.get(class)?, terms.classes.get(class)?);
    let cpus = f64::from(shape.cpus / shape.domains);
    if cpus <= 1.0 {
        return None;
    }
    let classes = terms.shape.classes.iter().zip(&terms.classes).enumerate();
    let elsewhere_w = classes
        .filter(|(other, (shape, _))| *other != class || shape.domains > 1)
        .flat_map(|(_, (shape, terms))| works(shape, terms))
        .map(|work| fit::dot(&work, parameters))
        .min_by(f64::total_cmp)?;
    let at_opp = |(opp, cap): (usize, f64)| {
        let spent_w = fit::dot(&spent(class_terms, opp, cpus, 1.0), parameters);
        Choice {
            class,
            most_cap: USABLE * cpus * cap,
            saved_w: LITTLE_WORK * cpus * cap * elsewhere_w - spent_w,
        }
    };
    caps(shape)
        .map(at_opp)
        .max_by(|a, b| a.saved_w.total_cmp(&b.saved_w))
}

fn caps(shape: &ClassShape) -> impl Iterator<Item = (usize, f64)> {
    let caps = shape.opps.iter().map(|opp| f64::from(opp.cap.get()));
    caps.enumerate()
}

/// What work costs at each OPP, by a CPU that is awake alone: W for one capacity unit.
fn works(shape: &ClassShape, terms: &ClassTerms) -> impl Iterator<Item = Row> {
    caps(shape).map(|(opp, cap)| spent(terms, opp, 1.0 / cap, 1.0 / cap))
}

/// Power of so many busy CPUs, and so many times what they share.
fn spent(terms: &ClassTerms, opp: usize, cpus: f64, shared: f64) -> Row {
    let mut row = Row::default();
    row.push(terms.busy + opp, cpus);
    if let Some(parameter) = terms.shared {
        row.push(parameter, shared);
        let drive = terms.drive.get(opp).copied().unwrap_or(0.0);
        row.push(parameter + 1, shared * drive);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, OppShape, Prior, Shape};
    use crate::observation::{ClassActivity, Energy, Meters, Observation};
    use crate::units::{Capacity, KHz, Microjoules, Microwatts, Nanos};

    /// A class with a clock for each group, and these capacities.
    fn class(cpus: u16, groups: u16, caps: &[u64]) -> ClassShape {
        let opp = |cap: &u64| OppShape {
            khz: KHz::new(cap * 1000),
            cap: Capacity::new(*cap).unwrap(),
            microvolt: None,
        };
        ClassShape {
            cpus,
            domains: groups,
            opps: caps.iter().map(opp).collect(),
            idle_depths: 0,
            cluster_wakes: false,
            smt: false,
        }
    }

    fn model(classes: &[(ClassShape, &[u64])]) -> Model {
        let watts = |(_, mw): &(ClassShape, &[u64])| {
            let of_opp = |mw: &u64| Microwatts::new(mw * 1000);
            mw.iter().map(of_opp).collect()
        };
        let shape = Shape {
            classes: classes.iter().map(|(class, _)| class.clone()).collect(),
        };
        Model::new(shape, &Prior::Watts(classes.iter().map(watts).collect())).unwrap()
    }

    fn home(model: &mut Model) -> Option<(usize, u32)> {
        let home = model.cost_table().home;
        home.map(|home| (home.class, home.most_cap))
    }

    #[test]
    fn the_group_that_saves_most_is_home_up_to_what_its_best_opp_takes() {
        // Work costs 100 mW for 200 in the first at its best, twice that in the second. There the first saves
        // at 200: 3 × 100 mW × 1.5 × 2 − 300 mW, less at 100 and, as its work is dear there, at 400.
        let little = class(3, 1, &[100, 200, 400]);
        let big = class(2, 1, &[800]);
        let mut phone = model(&[(little, &[60, 100, 500]), (big, &[800])]);
        assert_eq!(home(&mut phone), Some((0, 400)));
    }

    #[test]
    fn a_group_of_one_cpu_and_one_without_another_are_no_home() {
        let mut each_its_clock =
            model(&[(class(2, 2, &[400]), &[100]), (class(1, 1, &[800]), &[400])]);
        assert_eq!(home(&mut each_its_clock), None);
        assert_eq!(home(&mut model(&[(class(4, 1, &[800]), &[400])])), None);
        let mut two_alike = model(&[(class(8, 2, &[900]), &[400])]);
        assert_eq!(home(&mut two_alike), Some((0, 2400)));
    }

    /// A second in which a CPU of each class was busy for so many tenths, which cost so much each, over 50 mW.
    fn observe(model: &mut Model, tenths: [u64; 2], tenth_uj: [u64; 2]) {
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

    /// Two classes alike, of which the prior says that the second draws a little more.
    fn two_alike() -> Model {
        let mut model = model(&[(class(2, 1, &[500]), &[200]), (class(2, 1, &[501]), &[210])]);
        assert_eq!(home(&mut model).unwrap().0, 0);
        model
    }

    #[test]
    fn a_class_is_home_as_long_as_prior_and_measurements_agree() {
        let mut model = two_alike();
        for row in 0..40 {
            observe(&mut model, [row % 7, (row / 2) % 5], [20_000, 26_000]);
        }
        assert_eq!(home(&mut model).unwrap().0, 0);
    }

    #[test]
    fn there_is_no_home_once_measurements_speak_against_the_priors() {
        let mut model = two_alike();
        for row in 0..40 {
            observe(&mut model, [row % 7, (row / 2) % 5], [26_000, 18_000]);
        }
        assert_eq!(home(&mut model), None);
    }
}
