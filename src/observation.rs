//! Plain data that crosses rooms: what one sample interval held ([`Observation`]) and what a placement
//! costs ([`CostTable`]). No behaviour but range checks.

use crate::units::{Capacity, Microjoules, Nanos};
use serde::{Deserialize, Serialize};

/// Most classes of CPUs that a machine may have.
pub const MAX_CLASSES: usize = 8;
/// Most operating points (or frequency bins) of a class.
pub const MAX_OPPS: usize = 32;
/// Most idle depths of a class that are told apart: shallow first, deepest last.
pub const MAX_IDLE_DEPTHS: usize = 2;
/// Largest power in a [`CostTable`]: 1 kW in µW.
pub const MAX_POWER_UW: u32 = 1_000_000_000;
/// Largest wake-up energy in a [`CostTable`]: 1 J in nJ.
pub const MAX_WAKE_NJ: u32 = 1_000_000_000;

/// Where an energy came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// A meter read it.
    Measured,
    /// A model in real watts computed it.
    Modelled,
    /// A model on an arbitrary scale computed it: only ratios mean something.
    Abstract,
}

/// An amount of energy and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Energy {
    /// Energy spent during the interval.
    pub amount: Microjoules,
    /// How the amount is known.
    pub provenance: Provenance,
}

impl Energy {
    /// An amount that a meter read.
    pub const fn measured(amount: Microjoules) -> Self {
        Self {
            amount,
            provenance: Provenance::Measured,
        }
    }
}

/// Energy of one interval, per meter; `None` where the machine has no such meter or it gave no reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meters {
    /// The whole processor package (or SoC), all packages summed. Includes `cores` and `gpu`.
    pub package: Option<Energy>,
    /// The CPU cores alone.
    pub cores: Option<Energy>,
    /// A graphics unit inside the package.
    pub gpu: Option<Energy>,
    /// The whole device: battery, psys or a board sensor.
    pub system: Option<Energy>,
}

/// Time and exits of one idle depth, summed over the cores of a class: a core with two threads is idle when both are.
/// Where the kernel's account has to do, it is that of each thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleActivity {
    /// Core time spent in this depth; of the deepest, the CPU time that is left.
    pub time: Nanos,
    /// How often a core left it.
    pub exits: u64,
}

/// What the CPUs of one class did during an interval. Index 0 of `active` and `busy` is the lowest OPP.
///
/// Busy and idle are counted at idle transitions, so interrupts and real-time tasks are in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassActivity {
    /// Per OPP: time during which a frequency domain of the class had at least one busy CPU at this OPP,
    /// summed over the class's domains. At most `duration` × domains in all.
    pub active: Vec<Nanos>,
    /// Per OPP: busy CPU time, summed over the CPUs. At most `duration` × CPUs in all.
    pub busy: Vec<Nanos>,
    /// Per idle depth, shallow first; empty where idle states are not observed.
    pub idle: Vec<IdleActivity>,
    /// How often the last sleeping domain of the class was woken; `None` where this is not observed.
    pub cluster_wakes: Option<u64>,
    /// Per OPP: time during which both hardware threads of a core were busy, each pair counted once;
    /// `None` without SMT and where this is not observed. At most `duration` × CPUs / 2 in all.
    pub sibling: Option<Vec<Nanos>>,
}

/// One sample interval of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Length of the interval.
    pub duration: Nanos,
    /// What the meters counted during it.
    pub meters: Meters,
    /// One entry per class, in the topology's order.
    pub classes: Vec<ClassActivity>,
}

impl Observation {
    /// Busy CPU time, summed over CPUs.
    pub fn work(&self) -> Nanos {
        let busy = self.classes.iter().flat_map(|class| &class.busy);
        Nanos::new(busy.map(|busy| busy.get()).sum())
    }
}

/// What one group of CPUs did since the scheduler started. Index 0 of `active` and `busy` is the lowest
/// OPP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupActivity {
    /// Time with at least one busy CPU, per OPP.
    pub active: Vec<Nanos>,
    /// Busy CPU time, per OPP.
    pub busy: Vec<Nanos>,
    /// Time with both threads of a core busy, each pair counted once, per OPP; empty where this is not
    /// observed. Recordings are of such sources and have no place for it.
    #[serde(skip)]
    pub paired: Vec<Nanos>,
    /// Idle time of cores before it became deep, and the exits from idle periods that ended before that.
    pub shallow: IdleActivity,
    /// Exits from idle periods that had become deep.
    pub deep_exits: u64,
    /// How often the first CPU became busy after all had been idle for long.
    pub wakes: u64,
}

/// A reading of all groups at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// The instant, by the scheduler's clock.
    pub at: Nanos,
    /// In the topology's order.
    pub groups: Vec<GroupActivity>,
}

/// Cost of one operating point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OppCost {
    /// Capacity of one CPU at this OPP, 1..=1024.
    pub cap: u32,
    /// Power of one busy CPU above its deepest idle state, µW, 0..=[`MAX_POWER_UW`].
    pub busy_uw: u32,
    /// Power of a frequency domain with at least one busy CPU, µW, 0..=[`MAX_POWER_UW`].
    pub shared_uw: u32,
}

/// Cost of one idle depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleCost {
    /// Power of one CPU in this depth above the deepest one (which is 0), µW, 0..=[`MAX_POWER_UW`].
    pub idle_uw: u32,
    /// Energy of entering and leaving it once, nJ, 0..=[`MAX_WAKE_NJ`].
    pub wake_nj: u32,
}

/// Costs of one class of CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCost {
    /// Ascending capacity, 1..=[`MAX_OPPS`] entries.
    pub opps: Vec<OppCost>,
    /// Shallow first, 0..=[`MAX_IDLE_DEPTHS`] entries.
    pub idle: Vec<IdleCost>,
    /// Energy of waking a whole sleeping domain, on top of the CPU's own wake-up, nJ,
    /// 0..=[`MAX_WAKE_NJ`].
    pub cluster_wake_nj: u32,
}

/// Where all work goes while it is little, rather than to wherever each task is cheapest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// Index of the class, in the topology's order; its first group is meant.
    pub class: usize,
    /// What a CPU there offers at the fastest clock that it should take for that, capacity units, 1..=1024.
    pub opp_cap: u32,
}

/// What is published to BPF: the cost of work on each class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostTable {
    /// Grows by one whenever any cost or the home changes; equal generations hold equal costs.
    pub generation: u64,
    /// One entry per class, in the topology's order.
    pub classes: Vec<ClassCost>,
    /// `None`: each task always goes where it is cheapest.
    pub home: Option<Home>,
}

/// A class to try, to learn what it costs: all placements go there that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// Its index, in the topology's order.
    pub class: usize,
    /// For how long at most.
    pub longest: Nanos,
}

/// Why a [`CostTable`] must not be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A list is empty or too long.
    #[error("cost table: {what} has {count} entries, expected {expected}")]
    Count {
        /// Which list.
        what: String,
        /// Its length.
        count: usize,
        /// The lengths allowed.
        expected: String,
    },
    /// A number is out of its range.
    #[error("cost table: {what} is {value}, expected {expected}")]
    Range {
        /// Which field.
        what: String,
        /// Its value.
        value: u32,
        /// The values allowed.
        expected: String,
    },
}

impl CostTable {
    /// Whether every field is in its documented range and capacities ascend strictly.
    ///
    /// # Errors
    /// The first field found wrong.
    pub fn check(&self) -> Result<(), TableError> {
        count("classes", self.classes.len(), 1, MAX_CLASSES)?;
        for (class, cost) in self.classes.iter().enumerate() {
            cost.check(class)?;
        }
        if let Some(home) = self.home {
            let class = u32::try_from(home.class).unwrap_or(u32::MAX);
            let classes = u32::try_from(self.classes.len()).unwrap_or(u32::MAX);
            range("the home's class".into(), class, 0, classes - 1)?;
            range(
                "the home's limit".into(),
                home.opp_cap,
                1,
                Capacity::MAX.get().into(),
            )?;
        }
        Ok(())
    }
}

impl ClassCost {
    fn check(&self, class: usize) -> Result<(), TableError> {
        count(&format!("class {class} opps"), self.opps.len(), 1, MAX_OPPS)?;
        count(
            &format!("class {class} idle"),
            self.idle.len(),
            0,
            MAX_IDLE_DEPTHS,
        )?;
        let mut lowest = 1;
        for (opp, cost) in self.opps.iter().enumerate() {
            let at = |field: &str| format!("class {class} opp {opp} {field}");
            range(at("cap"), cost.cap, lowest, Capacity::MAX.get().into())?;
            range(at("busy_uw"), cost.busy_uw, 0, MAX_POWER_UW)?;
            range(at("shared_uw"), cost.shared_uw, 0, MAX_POWER_UW)?;
            lowest = cost.cap + 1;
        }
        for (depth, cost) in self.idle.iter().enumerate() {
            let at = |field: &str| format!("class {class} idle {depth} {field}");
            range(at("idle_uw"), cost.idle_uw, 0, MAX_POWER_UW)?;
            range(at("wake_nj"), cost.wake_nj, 0, MAX_WAKE_NJ)?;
        }
        range(
            format!("class {class} cluster_wake_nj"),
            self.cluster_wake_nj,
            0,
            MAX_WAKE_NJ,
        )
    }
}

fn count(what: &str, count: usize, least: usize, most: usize) -> Result<(), TableError> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    Err(TableError::Count {
        what: what.to_owned(),
        count,
        expected: format!("{least}..={most}"),
    })
}

fn range(what: String, value: u32, least: u32, most: u32) -> Result<(), TableError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(TableError::Range {
        what,
        value,
        expected: format!("{least}..={most}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> CostTable {
        let opp = |cap, busy_uw| OppCost {
            cap,
            busy_uw,
            shared_uw: 10_000,
        };
        CostTable {
            generation: 1,
            classes: vec![ClassCost {
                opps: vec![opp(512, 100_000), opp(1024, 400_000)],
                idle: vec![IdleCost::default(); MAX_IDLE_DEPTHS],
                cluster_wake_nj: 0,
            }],
            home: Some(Home {
                class: 0,
                opp_cap: 500,
            }),
        }
    }

    #[test]
    fn a_table_within_its_ranges_passes() {
        assert_eq!(table().check(), Ok(()));
    }

    #[test]
    fn each_field_out_of_range_is_refused_by_name() {
        type Spoil = fn(&mut ClassCost);
        let cases: [(&str, Spoil); 9] = [
            ("class 0 opp 1 cap is 512", |c| c.opps[1].cap = 512),
            ("class 0 opp 0 cap is 0", |c| c.opps[0].cap = 0),
            ("class 0 opp 1 cap is 1025", |c| c.opps[1].cap = 1025),
            ("opp 0 busy_uw", |c| c.opps[0].busy_uw = MAX_POWER_UW + 1),
            ("opp 0 shared_uw", |c| c.opps[0].shared_uw = u32::MAX),
            ("idle 1 idle_uw", |c| c.idle[1].idle_uw = u32::MAX),
            ("idle 0 wake_nj", |c| c.idle[0].wake_nj = MAX_WAKE_NJ + 1),
            ("cluster_wake_nj", |c| c.cluster_wake_nj = u32::MAX),
            ("class 0 opps has 0 entries", |c| c.opps.clear()),
        ];
        for (expected, spoil) in cases {
            let mut table = table();
            spoil(&mut table.classes[0]);
            let error = table.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error} lacks {expected}");
        }
    }

    #[test]
    fn too_many_or_no_classes_are_refused() {
        let mut wrong = table();
        wrong.classes.clear();
        assert!(wrong.check().is_err());
        wrong.classes = vec![table().classes[0].clone(); MAX_CLASSES + 1];
        assert!(wrong.check().is_err());
    }
}
