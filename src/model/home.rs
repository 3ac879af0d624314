//! The home: the class of which one group should do all there is to do while that is little.
//!
//! What one task more costs as things are (see `cost`) does not tell what all of them would cost in one
//! group with a higher clock and the others asleep. For a group, alone, the OPP is best at which its CPUs,
//! all of them busy, draw least beside what their work would cost elsewhere, where it is cheapest there: in
//! another class, or in another group of its own. The home is the group that saves most at its best OPP, and
//! what the fastest OPP can take that saves nearly as much is the limit.
//!
//! What is learnt in a load's first seconds of a class that is little used may be off by half, and little more
//! is learnt of a class that nobody uses; the prior in turn may be wrong from the start. So there is a home where
//! both say the same, or where what is learnt has said the same for [`LASTING`] observations, in which the classes
//! were used as their prices have it. Else each task goes by its own price, as where there is more to do.

use super::features::{ClassShape, Shape};
use super::power::{ClassPower, PowerModel};
use crate::observation::Home;
use num_traits::ToPrimitive;

/// A group that has little to do draws half as much again as for its work, to be waked and awake.
const LITTLE_WORK: f64 = 1.5;
/// Observations over which what is learnt has to say the same to be taken against the prior: a minute's, at work.
const LASTING: u64 = 240;
/// From OPP to OPP what is saved changes little about where it is most: the fastest OPP at which this part of that is
/// saved is the home's limit, which errors of single OPPs then move less. With nine tenths one cluster took so much
/// of a load that what it draws by being awake could not be told from what is drawn always.
const NEARLY: f64 = 0.95;
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

/// Chooses the home, again and again.
#[derive(Clone, Debug, Default)]
pub(super) struct Chooser {
    /// The class that is best by what is learnt, and since which observation it has been.
    class: Option<usize>,
    since: u64,
}

impl Chooser {
    /// The home by the power that was believed before any observation and the one that is after so many.
    pub fn choose(
        &mut self,
        shape: &Shape,
        prior: &PowerModel,
        now: &PowerModel,
        observations: u64,
    ) -> Option<Home> {
        let home = best(shape, now);
        let class = home.map(|home| home.class);
        if class != self.class {
            (self.class, self.since) = (class, observations);
        }
        let lasts = observations - self.since >= LASTING;
        let agreed = || best(shape, prior).map(|home| home.class) == class;
        let home = home.filter(|_| lasts || agreed())?;
        Some(Home {
            class: home.class,
            most_cap: home.most_cap.to_u32()?.max(1),
        })
    }
}

/// What saves most; `None` where nothing does.
fn best(shape: &Shape, power: &PowerModel) -> Option<Choice> {
    (0..shape.classes.len())
        .filter_map(|class| alone(shape, power, class))
        .max_by(|a, b| a.saved_w.total_cmp(&b.saved_w))
}

/// A group of the class that does all there is to do, at its best OPP. `None` where that saves nothing: it
/// costs more than work elsewhere, it is one CPU or has several clocks, or there is no other group.
fn alone(shape: &Shape, power: &PowerModel, class: usize) -> Option<Choice> {
    let (own_shape, own_power) = (shape.classes.get(class)?, power.classes.get(class)?);
    let cpus = f64::from(own_shape.cpus / own_shape.domains);
    if cpus <= 1.0 {
        return None;
    }
    let classes = shape.classes.iter().zip(&power.classes).enumerate();
    // by a CPU that is awake alone, for one capacity unit
    let elsewhere_w = classes
        .filter(|(other, (shape, _))| *other != class || shape.domains > 1)
        .flat_map(|(_, (shape, power))| opps(shape, power))
        .map(|(cap, busy_w, shared_w)| (busy_w + shared_w) / cap)
        .min_by(f64::total_cmp)?;
    let at_opp = |(cap, busy_w, shared_w): (f64, f64, f64)| Choice {
        class,
        most_cap: USABLE * cpus * cap,
        saved_w: LITTLE_WORK * cpus * cap * elsewhere_w - (cpus * busy_w + shared_w),
    };
    let choices: Vec<Choice> = opps(own_shape, own_power).map(at_opp).collect();
    let saved_w = choices.iter().map(|it| it.saved_w).max_by(f64::total_cmp);
    let saved_w = saved_w.filter(|saved_w| *saved_w > 0.0)?;
    let nearly = |choice: &&Choice| choice.saved_w >= NEARLY * saved_w;
    let limit = choices.iter().rev().find(nearly)?;
    Some(Choice { saved_w, ..*limit })
}

/// Of each OPP: what a CPU offers, what a busy one draws and what its group shares.
fn opps(shape: &ClassShape, power: &ClassPower) -> impl Iterator<Item = (f64, f64, f64)> {
    let caps = shape.opps.iter().map(|opp| f64::from(opp.cap.get()));
    let powers = power.busy_w.iter().zip(&power.shared_w);
    caps.zip(powers)
        .map(|(cap, (busy_w, shared_w))| (cap, *busy_w, *shared_w))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::observe;
    use crate::model::{Model, OppShape, Prior};
    use crate::units::{Capacity, KHz, Microwatts};

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
    fn the_group_that_saves_most_is_home_up_to_where_it_saves_much_less() {
        // Work costs 100 mW for 200 in the first at its best, twice that in the second, where it is awake alone.
        let home_of = |most: u64| {
            let little = class(3, 1, &[100, 200, 400]);
            let big = class(2, 1, &[800]);
            home(&mut model(&[(little, &[60, 100, most]), (big, &[800])]))
        };
        assert_eq!(home_of(700), Some((0, 400)));
        assert_eq!(home_of(500), Some((0, 800)));
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
    fn measurements_that_speak_against_the_prior_have_to_last() {
        let mut model = two_alike();
        let homes: Vec<_> = (0..400)
            .map(|row| {
                observe(&mut model, [row % 7, (row / 2) % 5], [26_000, 18_000]);
                home(&mut model).map(|(class, _)| class)
            })
            .collect();
        let none = homes.iter().position(Option::is_none).unwrap();
        let other = homes.iter().position(|home| *home == Some(1)).unwrap();
        assert!(homes[..none].iter().all(|home| *home == Some(0)));
        assert!(homes[none..other].iter().all(Option::is_none));
        assert!(homes[other..].iter().all(|home| *home == Some(1)));
        assert_eq!(other - none, usize::try_from(LASTING).unwrap());
    }
}
