//! The home: the class of which one group should do all there is to do while that is little.
//!
//! What one task more costs as things are (see `cost`) does not tell what all of them would cost in one
//! group with a higher clock and the others asleep. For a group, alone, the OPP is best at which its CPUs,
//! all of them busy, draw least beside what their work would cost elsewhere, where it is cheapest there: in
//! another class, or in another group of its own. The home is the group that saves most at its best OPP, and
//! what the fastest OPP can take that saves nearly as much is the limit.
//!
//! What is learnt in a load's first seconds of a class that is little used may be off by half; the prior in turn may
//! be wrong from the start. So there is a home where both say the same, or where what is learnt says so by more than
//! it is doubted. Else each task goes by its own price, as where there is more to do.

use super::features::{ClassShape, Row, Terms};
use super::fit::{Filter, dot};
use crate::observation::Home;
use crate::units::Capacity;
use nalgebra::DVector;

/// A group that has little to do draws half as much again as for its work, to be waked and awake.
const LITTLE_WORK: f64 = 1.5;
/// What is learnt stands against the prior where the home saves more than any other would by so many standard
/// deviations of that difference.
const SURE: f64 = 1.0;
/// From OPP to OPP what is saved changes little about where it is most: the fastest OPP at which this part of that is
/// saved is the home's limit, which errors of single OPPs then move less. With nine tenths one cluster took so much
/// of a load that what it draws by being awake could not be told from what is drawn always.
const NEARLY: f64 = 0.95;

/// A group of a class that does all there is to do.
#[derive(Clone, Debug)]
struct Choice {
    class: usize,
    /// What a CPU offers at the fastest OPP up to which it should be the home.
    opp_cap: Capacity,
    /// What it draws beyond what its work would cost elsewhere, W: below 0 where it saves.
    extra_w: f64,
    /// That as a functional of the parameters.
    extra: Row,
}

/// The home by what was believed before any measurement and by `parameters`, which are believed now.
pub(super) fn choose(terms: &Terms, filter: &Filter, parameters: &DVector<f64>) -> Option<Home> {
    let (before, now) = (
        candidates(terms, filter.prior_mean()),
        candidates(terms, parameters),
    );
    let home = best(&now)?;
    let agreed = best(&before).is_some_and(|before| before.class == home.class);
    if !agreed && !is_sure(home, &now, filter) {
        return None;
    }
    Some(Home {
        class: home.class,
        opp_cap: home.opp_cap.get().into(),
    })
}

/// The choice that saves most; `None` where none does.
fn best(candidates: &[Choice]) -> Option<&Choice> {
    let saving = candidates.iter().filter(|choice| choice.extra_w < 0.0);
    saving.min_by(|a, b| a.extra_w.total_cmp(&b.extra_w))
}

/// Whether the home saves more than each other one, and than none, by more than that is doubted.
fn is_sure(home: &Choice, candidates: &[Choice], filter: &Filter) -> bool {
    let others = candidates.iter().filter(|other| other.class != home.class);
    let none = (0.0, &Row::default());
    let mut others = others
        .map(|other| (other.extra_w, &other.extra))
        .chain([none]);
    others.all(|(extra_w, extra)| {
        let doubt_w = filter.variance_of(&home.extra.minus(1.0, extra)).sqrt();
        extra_w - home.extra_w >= SURE * doubt_w
    })
}

/// Each class that can be the home, at its best OPP.
fn candidates(terms: &Terms, parameters: &DVector<f64>) -> Vec<Choice> {
    let classes = 0..terms.classes.len();
    let lone: Vec<Lone> = (classes.clone())
        .filter_map(|class| cheapest_lone(terms, parameters, class))
        .collect();
    classes
        .filter_map(|class| alone(terms, parameters, class, &lone))
        .collect()
}

/// A CPU of the class that is awake alone.
struct Lone {
    class: usize,
    cap: f64,
    per_cap_w: f64,
    /// What it draws, as a functional of the parameters.
    drawn: Row,
}

/// Such a CPU, at the OPP at which its work is cheapest.
fn cheapest_lone(terms: &Terms, parameters: &DVector<f64>, class: usize) -> Option<Lone> {
    let (shape, own) = (terms.shape.classes.get(class)?, terms.classes.get(class)?);
    let at_opp = |(opp, cap)| {
        let (drawn, cap) = (own.awake(opp, 1.0), float(cap));
        Lone {
            class,
            cap,
            per_cap_w: dot(&drawn, parameters) / cap,
            drawn,
        }
    };
    let lone = opps(shape).map(at_opp);
    lone.min_by(|a, b| a.per_cap_w.total_cmp(&b.per_cap_w))
}

/// A group of the class that does all there is to do, at its best OPP. `None` where it cannot: it is one CPU or
/// has several clocks, or there is no other group.
fn alone(terms: &Terms, parameters: &DVector<f64>, class: usize, lone: &[Lone]) -> Option<Choice> {
    let (shape, own) = (terms.shape.classes.get(class)?, terms.classes.get(class)?);
    let cpus = f64::from(shape.cpus / shape.domains);
    if cpus <= 1.0 {
        return None;
    }
    let others = lone
        .iter()
        .filter(|it| it.class != class || shape.domains > 1);
    let elsewhere = others.min_by(|a, b| a.per_cap_w.total_cmp(&b.per_cap_w))?;
    let at_opp = |(opp, cap): (usize, Capacity)| {
        let work_elsewhere = LITTLE_WORK * cpus * float(cap) / elsewhere.cap;
        let extra = own.awake(opp, cpus).minus(work_elsewhere, &elsewhere.drawn);
        Choice {
            class,
            opp_cap: cap,
            extra_w: dot(&extra, parameters),
            extra,
        }
    };
    let choices: Vec<Choice> = opps(shape).map(at_opp).collect();
    let best = choices
        .iter()
        .min_by(|a, b| a.extra_w.total_cmp(&b.extra_w))?;
    let nearly = |choice: &&Choice| choice.extra_w <= NEARLY * best.extra_w;
    let limit = choices.iter().rev().find(nearly).unwrap_or(best);
    Some(Choice {
        opp_cap: limit.opp_cap,
        ..best.clone()
    })
}

/// Of each OPP: its index, and what a CPU offers.
fn opps(shape: &ClassShape) -> impl Iterator<Item = (usize, Capacity)> {
    shape.opps.iter().map(|opp| opp.cap).enumerate()
}

fn float(cap: Capacity) -> f64 {
    f64::from(cap.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::observe;
    use crate::model::{Model, OppShape, Prior, Shape};
    use crate::units::{KHz, Microwatts};

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
        home.map(|home| (home.class, home.opp_cap))
    }

    #[test]
    fn the_group_that_saves_most_is_home_up_to_where_it_saves_much_less() {
        // Work costs 100 mW for 200 in the first at its best, twice that in the second, where it is awake alone.
        let home_of = |most: u64| {
            let little = class(3, 1, &[100, 200, 400]);
            let big = class(2, 1, &[800]);
            home(&mut model(&[(little, &[60, 100, most]), (big, &[800])]))
        };
        assert_eq!(home_of(700), Some((0, 200)));
        assert_eq!(home_of(500), Some((0, 400)));
    }

    #[test]
    fn a_group_of_one_cpu_and_one_without_another_are_no_home() {
        let mut each_its_clock =
            model(&[(class(2, 2, &[400]), &[100]), (class(1, 1, &[800]), &[400])]);
        assert_eq!(home(&mut each_its_clock), None);
        assert_eq!(home(&mut model(&[(class(4, 1, &[800]), &[400])])), None);
        let mut two_alike = model(&[(class(8, 2, &[900]), &[400])]);
        assert_eq!(home(&mut two_alike), Some((0, 900)));
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
    fn measurements_that_speak_against_the_prior_have_to_be_beyond_doubt() {
        let homes_if = |second_uj: u64| -> Vec<_> {
            let mut model = two_alike();
            let learnt = (0..400).map(|row| {
                observe(&mut model, [row % 7, (row / 2) % 5], [20_000, second_uj]);
                home(&mut model).map(|(class, _)| class)
            });
            learnt.collect()
        };
        let cheap = homes_if(16_000);
        let none = cheap.iter().position(Option::is_none).unwrap();
        let other = cheap.iter().position(|home| *home == Some(1)).unwrap();
        assert!(cheap[..none].iter().all(|home| *home == Some(0)));
        assert!(cheap[none..other].iter().all(Option::is_none));
        assert!(cheap[other..].iter().all(|home| *home == Some(1)));
        // A hundredth is less than what four hundred rows leave open.
        assert_eq!(homes_if(19_800).last().unwrap(), &None);
    }
}
