//! The home: the class of which one group should do all there is to do while that is little.
//!
//! What one task more costs as things are (see `cost`) does not tell what all of them would cost in one
//! group with a higher clock and the others asleep. For a group, alone, the OPP is best at which its CPUs,
//! all of them busy, draw least beside what their work would cost elsewhere, where it is cheapest there: in
//! another class, or in another group of its own. The home is the group that saves most at its best OPP, and
//! what that OPP can take is the limit.
//!
//! At first that is decided by the prior. What is learnt in a load's first seconds of a class that is little
//! used may be off by half, and little more is learnt of a class that nobody uses. So the home stays what it
//! is until another choice is better by more than what is not known ([`SURE`]).

use super::features::{ClassShape, ClassTerms, Row, Terms};
use super::fit::{self, Filter};
use crate::observation::Home;
use nalgebra::DVector;
use num_traits::ToPrimitive;

/// Another choice is taken when what it saves more is so many standard deviations above zero (84 %, one-sided):
/// to stay wrongly costs as much as to move wrongly, but to move often helps nobody. In the lab, clusters that
/// only seemed better were up to 0.65 above, those that were better 0.9 to 1.9.
const SURE: f64 = 1.0;
/// A group that has little to do draws half as much again as for its work, to be waked and awake.
const LITTLE_WORK: f64 = 1.5;
/// What tasks may use of CPUs, of what these offer, if they are to have no others: they wake together, and
/// each CPU must offer half as much again as its share.
const USABLE: f64 = 2.0 / 3.0;

/// A group that does all there is to do, or (class `None`) no such group.
#[derive(Clone, Debug, Default)]
struct Choice {
    class: Option<usize>,
    most_cap: f64,
    /// What is saved, as a functional of the parameters, W; and what that is believed to be.
    saved: Row,
    saved_w: f64,
}

/// The home by these parameters, which are the filter's; it was `before` (`None`: nothing was chosen yet).
pub(super) fn choose(
    terms: &Terms,
    filter: &Filter,
    parameters: &DVector<f64>,
    before: Option<Option<Home>>,
) -> Option<Home> {
    let mut choices = vec![Choice::default()];
    choices.extend((0..terms.classes.len()).filter_map(|class| alone(terms, parameters, class)));
    let best = choices
        .iter()
        .max_by(|a, b| a.saved_w.total_cmp(&b.saved_w))?;
    let kept = before.and_then(|home| {
        let class = home.map(|home| home.class);
        choices.iter().find(|choice| choice.class == class)
    });
    let chosen = match kept {
        Some(kept) if !is_sure(filter, best, kept) => kept,
        _ => best,
    };
    Some(Home {
        class: chosen.class?,
        most_cap: chosen.most_cap.to_u32()?.max(1),
    })
}

/// Whether the one choice saves more than the other by more than what is not known.
fn is_sure(filter: &Filter, one: &Choice, other: &Choice) -> bool {
    let sigma = filter
        .variance_of(&one.saved.minus(1.0, &other.saved))
        .sqrt();
    one.saved_w - other.saved_w > SURE * sigma
}

/// A group of the class that does all there is to do, at its best OPP. `None` where nothing is saved by that:
/// it is one CPU or has several clocks, or there is no other group.
fn alone(terms: &Terms, parameters: &DVector<f64>, class: usize) -> Option<Choice> {
    let (shape, class_terms) = (terms.shape.classes.get(class)?, terms.classes.get(class)?);
    let cpus = f64::from(shape.cpus / shape.domains);
    if cpus <= 1.0 {
        return None;
    }
    let classes = terms.shape.classes.iter().zip(&terms.classes).enumerate();
    let elsewhere = classes
        .filter(|(other, (shape, _))| *other != class || shape.domains > 1)
        .flat_map(|(_, (shape, terms))| works(shape, terms))
        .min_by(|a, b| fit::dot(a, parameters).total_cmp(&fit::dot(b, parameters)))?;
    let at_opp = |(opp, cap): (usize, f64)| {
        let spent = spent(class_terms, opp, cpus, 1.0);
        let saved = scaled(&elsewhere, LITTLE_WORK * cpus * cap).minus(1.0, &spent);
        Choice {
            class: Some(class),
            most_cap: USABLE * cpus * cap,
            saved_w: fit::dot(&saved, parameters),
            saved,
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

fn scaled(row: &Row, factor: f64) -> Row {
    Row::default().minus(-factor, row)
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
    fn the_home_stays_while_another_is_better_only_by_what_is_assumed_of_it() {
        let mut model = two_alike();
        for row in 0..40 {
            observe(&mut model, [row % 7, 0], [26_000, 0]);
        }
        let busy_w = |class: usize| model.curve(class)[0].1.uw / 1e6;
        assert!(busy_w(0) > busy_w(1), "{} {}", busy_w(0), busy_w(1));
        assert_eq!(home(&mut model).unwrap().0, 0);
    }

    #[test]
    fn the_home_moves_to_the_class_that_is_known_to_be_better() {
        let mut model = two_alike();
        for row in 0..40 {
            observe(&mut model, [row % 7, (row / 2) % 5], [26_000, 18_000]);
        }
        assert_eq!(home(&mut model).unwrap().0, 1);
    }
}
