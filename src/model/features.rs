//! From an observation to a regression row: which terms the power of a machine has, where each sits in
//! the parameter vector, and which are left out because no data could tell them from another term.
//!
//! Left out, because the counters themselves are bound by an identity:
//! - the power of the deepest idle state: busy and idle times of a class sum to CPUs × duration, so it is
//!   part of the base power, and every other power of the class counts from it;
//! - shared power and domain wake-ups where each CPU is its own frequency domain: the domain is active
//!   exactly while its CPU is busy, so both are part of the CPU's own terms.

use crate::observation::{
    ClassActivity, Energy, MAX_CLASSES, MAX_IDLE_DEPTHS, MAX_OPPS, Meters, Observation, Provenance,
};
use crate::units::{Capacity, KHz, Nanos};
use nalgebra::DVector;
use num_traits::ToPrimitive;

/// One operating point (or frequency bin) of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OppShape {
    /// Clock frequency.
    pub khz: KHz,
    /// Capacity of one CPU at this frequency, 1..=1024.
    pub cap: Capacity,
    /// Supply voltage in µV, where known.
    pub microvolt: Option<u32>,
}

/// What there is to observe of one class of CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassShape {
    /// CPUs in the class, at least 1.
    pub cpus: u16,
    /// Frequency domains among them, 1..=`cpus`.
    pub domains: u16,
    /// Ascending in frequency and capacity.
    pub opps: Vec<OppShape>,
    /// Idle depths told apart, 0 where idle states are not observed.
    pub idle_depths: usize,
    /// Whether wake-ups of a whole domain are counted.
    pub cluster_wakes: bool,
    /// Whether the time is counted in which both hardware threads of a core are busy.
    pub smt: bool,
}

/// What there is to observe of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// One entry per class, in the topology's order, 1..=[`MAX_CLASSES`].
    pub classes: Vec<ClassShape>,
}

/// Why an input was refused. Nothing was changed by it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A number is not what it can be.
    #[error("{what} is {value}, expected {expected}")]
    Absurd {
        /// Which input.
        what: String,
        /// Its value.
        value: String,
        /// What would have been right.
        expected: String,
    },
    /// No meter gave a reading.
    #[error("no measured energy: expected a package, cores or system reading")]
    NoMeter,
    /// The prior's curves do not fit together numerically.
    #[error("prior covariance is not positive definite, expected finite values")]
    BadPrior,
}

pub(super) fn absurd(
    what: impl Into<String>,
    value: impl ToString,
    expected: impl Into<String>,
) -> Result<(), Refusal> {
    Err(Refusal::Absurd {
        what: what.into(),
        value: value.to_string(),
        expected: expected.into(),
    })
}

impl Shape {
    /// Frequencies of the OPPs of each class.
    pub fn frequencies(&self) -> Vec<Vec<KHz>> {
        let of = |class: &ClassShape| class.opps.iter().map(|opp| opp.khz).collect();
        self.classes.iter().map(of).collect()
    }

    /// What is left of it to whom does not count when both threads of a core are busy, as the kernel's own statistics
    /// do not.
    pub fn without_siblings(mut self) -> Self {
        for class in &mut self.classes {
            class.smt = false;
        }
        self
    }

    /// Whether the shape is one that a table can hold.
    ///
    /// # Errors
    /// The first number found wrong.
    pub fn check(&self) -> Result<(), Refusal> {
        if !(1..=MAX_CLASSES).contains(&self.classes.len()) {
            absurd("classes", self.classes.len(), format!("1..={MAX_CLASSES}"))?;
        }
        for (k, class) in self.classes.iter().enumerate() {
            class.check(k)?;
        }
        Ok(())
    }
}

impl ClassShape {
    fn check(&self, k: usize) -> Result<(), Refusal> {
        if self.cpus == 0 {
            absurd(format!("class {k} cpus"), 0, "at least 1")?;
        }
        if !(1..=self.cpus).contains(&self.domains) {
            let expected = format!("1..={}", self.cpus);
            absurd(format!("class {k} domains"), self.domains, expected)?;
        }
        if !(1..=MAX_OPPS).contains(&self.opps.len()) {
            let expected = format!("1..={MAX_OPPS}");
            absurd(format!("class {k} opps"), self.opps.len(), expected)?;
        }
        if self.idle_depths > MAX_IDLE_DEPTHS {
            let expected = format!("0..={MAX_IDLE_DEPTHS}");
            absurd(format!("class {k} idle depths"), self.idle_depths, expected)?;
        }
        let (mut khz, mut cap) = (0, 0);
        for (i, opp) in self.opps.iter().enumerate() {
            if opp.khz.get() <= khz {
                let expected = format!("more than {khz}");
                absurd(format!("class {k} opp {i} kHz"), opp.khz.get(), expected)?;
            }
            if opp.cap.get() <= cap {
                let expected = format!("more than {cap}");
                absurd(format!("class {k} opp {i} capacity"), opp.cap, expected)?;
            }
            if opp.microvolt == Some(0) {
                absurd(
                    format!("class {k} opp {i} voltage"),
                    0,
                    "µV above 0, or none",
                )?;
            }
            (khz, cap) = (opp.khz.get(), opp.cap.get());
        }
        Ok(())
    }

    /// Whether each CPU is a frequency domain of its own.
    pub(super) fn private_clocks(&self) -> bool {
        self.cpus == self.domains
    }

    /// Frequencies relative to the highest, in (0, 1].
    pub(super) fn relative_frequencies(&self) -> Vec<f64> {
        let top = self.opps.last().map_or(1.0, |opp| float(opp.khz.get()));
        let relative = |opp: &OppShape| float(opp.khz.get()) / top;
        self.opps.iter().map(relative).collect()
    }

    /// Whether every OPP's voltage is known.
    pub(super) fn has_voltages(&self) -> bool {
        self.opps.iter().all(|opp| opp.microvolt.is_some())
    }

    /// f·V² of each OPP relative to the highest, in (0, 1]: the shape of switching power.
    ///
    /// Where voltages are unknown V/Vmax = 0.6 + 0.4·f/fmax stands in, the middle of published tables
    /// of phone SoCs (0.58..0.71 at the lowest OPP).
    pub(super) fn drive(&self) -> Vec<f64> {
        let relative = self.relative_frequencies();
        let known = self.has_voltages();
        let volt = |opp: &OppShape, f: f64| match opp.microvolt {
            Some(microvolt) if known => f64::from(microvolt),
            _ => 0.6 + 0.4 * f,
        };
        let raw: Vec<f64> = (self.opps.iter().zip(&relative))
            .map(|(opp, &f)| f * volt(opp, f).powi(2))
            .collect();
        let top = raw.last().copied().unwrap_or(1.0);
        raw.iter().map(|value| value / top).collect()
    }
}

/// A meter that the model can be fitted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// The package less its graphics unit, where that has a meter of its own.
    Package,
    /// The CPU cores.
    Cores,
    /// The whole device.
    System,
}

/// How many meters there are: each has a base power of its own.
pub(super) const METERS: usize = 3;

impl Meter {
    /// The meter's number, which is also the index of its base power among the parameters.
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Package => 0,
            Self::Cores => 1,
            Self::System => 2,
        }
    }

    /// A word for names of parameters.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Package => "package",
            Self::Cores => "cores",
            Self::System => "system",
        }
    }
}

/// A sparse linear functional of the parameters: (parameter, coefficient), ascending, none twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row(Vec<(usize, f64)>);

impl Row {
    pub(super) fn push(&mut self, parameter: usize, coefficient: f64) {
        if coefficient != 0.0 {
            self.0.push((parameter, coefficient));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, f64)> {
        self.0.iter().copied()
    }

    /// Brings the entries into ascending order and adds up those of one parameter.
    pub(super) fn normalised(mut self) -> Self {
        self.0.sort_by_key(|&(parameter, _)| parameter);
        let mut merged = Self::default();
        for (parameter, coefficient) in self.0 {
            match merged.0.last_mut() {
                Some((last, sum)) if *last == parameter => *sum += coefficient,
                _ => merged.0.push((parameter, coefficient)),
            }
        }
        merged
    }

    /// `self − factor · other`.
    pub(super) fn minus(&self, factor: f64, other: &Self) -> Self {
        let scaled = other.iter().map(|(p, c)| (p, -factor * c));
        Self(self.iter().chain(scaled).collect()).normalised()
    }

    /// `self − other`.
    pub(super) fn minus_dense(&self, other: &DVector<f64>) -> Self {
        let mut entries = self.0.iter().peekable();
        let difference = other.iter().enumerate().map(|(parameter, value)| {
            let own = entries
                .next_if(|(own, _)| *own == parameter)
                .map_or(0.0, |e| e.1);
            (parameter, own - value)
        });
        Self(
            difference
                .filter(|(_, coefficient)| *coefficient != 0.0)
                .collect(),
        )
    }

    /// The same row of another meter.
    fn with_base(&self, meter: Meter) -> Self {
        let mut row = self.clone();
        row.push(meter.index(), 1.0);
        row.normalised()
    }
}

/// Where the parameters of one class sit.
#[derive(Clone, Debug)]
pub(super) struct ClassTerms {
    /// Busy power of the lowest OPP; the others follow.
    pub busy: usize,
    /// Number of OPPs.
    pub opps: usize,
    /// Constant part of the shared power; the part along `drive` follows.
    pub shared: Option<usize>,
    /// Power of each idle depth but the deepest.
    pub idle: Vec<usize>,
    /// Energy of an exit from each idle depth.
    pub wake: Vec<usize>,
    /// Energy of waking a whole domain.
    pub cluster_wake: Option<usize>,
    /// What two busy threads of one core draw less than two cores would, at the top OPP; at others it goes
    /// along `drive`.
    pub sibling: Option<usize>,
    /// f·V² of each OPP relative to the highest.
    pub drive: Vec<f64>,
    /// One past the class's last parameter.
    pub end: usize,
}

/// Where each parameter of a machine sits in the parameter vector. Powers are in W, energies in J.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub shape: Shape,
    pub classes: Vec<ClassTerms>,
    pub len: usize,
}

impl Terms {
    pub fn new(shape: Shape) -> Self {
        let mut next = METERS;
        let mut take = |count: usize| {
            let first = next;
            next += count;
            first
        };
        let mut classes = Vec::with_capacity(shape.classes.len());
        for class in &shape.classes {
            let domain_terms = !class.private_clocks();
            classes.push(ClassTerms {
                busy: take(class.opps.len()),
                opps: class.opps.len(),
                shared: domain_terms.then(|| take(2)),
                idle: (1..class.idle_depths).map(|_| take(1)).collect(),
                wake: (0..class.idle_depths).map(|_| take(1)).collect(),
                cluster_wake: (domain_terms && class.cluster_wakes).then(|| take(1)),
                sibling: class.smt.then(|| take(1)),
                drive: class.drive(),
                end: take(0),
            });
        }
        Self {
            classes,
            shape,
            len: next,
        }
    }

    /// The row of a checked observation without any base power.
    fn activity_row(&self, observation: &Observation) -> Row {
        let per = 1.0 / float(observation.duration.get());
        let per_second = 1e9 * per;
        let mut row = Row::default();
        for (terms, activity) in self.classes.iter().zip(&observation.classes) {
            for (i, busy) in activity.busy.iter().enumerate() {
                row.push(terms.busy + i, float(busy.get()) * per);
            }
            if let Some(shared) = terms.shared {
                let fractions = activity.active.iter().map(|time| float(time.get()) * per);
                row.push(shared, fractions.clone().sum());
                let driven = fractions.zip(&terms.drive).map(|(a, drive)| a * drive);
                row.push(shared + 1, driven.sum());
            }
            for (&parameter, idle) in terms.idle.iter().zip(&activity.idle) {
                row.push(parameter, float(idle.time.get()) * per);
            }
            for (&parameter, idle) in terms.wake.iter().zip(&activity.idle) {
                row.push(parameter, float(idle.exits) * per_second);
            }
            if let (Some(parameter), Some(wakes)) = (terms.cluster_wake, activity.cluster_wakes) {
                row.push(parameter, float(wakes) * per_second);
            }
            if let (Some(parameter), Some(times)) = (terms.sibling, &activity.sibling) {
                let driven = times.iter().zip(&terms.drive);
                let driven = driven.map(|(time, drive)| float(time.get()) * drive);
                row.push(parameter, -driven.sum::<f64>() * per);
            }
        }
        row
    }

    /// One row and its measured power in W per meter worth fitting to. The system meter counts only
    /// where there is no closer one: it is slow and sees the display.
    pub fn rows(&self, observation: &Observation) -> Result<Vec<(Meter, Row, f64)>, Refusal> {
        self.check(observation)?;
        let activity = self.activity_row(observation);
        let rows: Vec<_> = readings(&observation.meters)
            .into_iter()
            .map(|(meter, microjoules)| {
                let watts = microjoules * 1e3 / float(observation.duration.get());
                (meter, activity.with_base(meter), watts)
            })
            .collect();
        match rows.iter().find(|(_, _, watts)| *watts > MAX_WATTS) {
            Some((meter, _, watts)) => {
                let expected = format!("at most {MAX_WATTS} W");
                absurd(format!("{meter:?} power"), format!("{watts} W"), expected)?;
            }
            None if rows.is_empty() => return Err(Refusal::NoMeter),
            None => {}
        }
        Ok(rows)
    }

    /// The row of `meter`, whether or not it gave a reading.
    pub fn row(&self, observation: &Observation, meter: Meter) -> Result<Row, Refusal> {
        self.check(observation)?;
        Ok(self.activity_row(observation).with_base(meter))
    }

    fn check(&self, observation: &Observation) -> Result<(), Refusal> {
        let duration = observation.duration;
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&duration) {
            let expected = format!("{MIN_INTERVAL} to {MAX_INTERVAL}");
            absurd("duration", duration, expected)?;
        }
        let (found, expected) = (observation.classes.len(), self.classes.len());
        if found != expected {
            absurd("classes observed", found, expected.to_string())?;
        }
        let pairs = self.shape.classes.iter().zip(&observation.classes);
        for (k, (class, activity)) in pairs.enumerate() {
            check_activity(k, class, activity, duration)?;
        }
        Ok(())
    }
}

/// Shortest interval worth a row: meters update about once a millisecond.
const MIN_INTERVAL: Nanos = Nanos::new(5_000_000);
/// Longest interval that still describes one behaviour of the machine.
const MAX_INTERVAL: Nanos = Nanos::new(120_000_000_000);
/// More than any machine that this scheduler runs on draws.
const MAX_WATTS: f64 = 10_000.0;
/// Most wake-ups per second of one CPU that are believed.
const MAX_WAKES_HZ: f64 = 1e6;
/// Counters of different CPUs are not read at one instant: sums may exceed the interval by this much.
const CLOCK_SLACK: f64 = 1.05;

fn check_activity(
    k: usize,
    class: &ClassShape,
    activity: &ClassActivity,
    duration: Nanos,
) -> Result<(), Refusal> {
    let lengths = [
        ("busy OPPs", activity.busy.len(), class.opps.len()),
        ("active OPPs", activity.active.len(), class.opps.len()),
        ("idle depths", activity.idle.len(), class.idle_depths),
        (
            "cluster wake-up counts",
            activity.cluster_wakes.iter().count(),
            usize::from(class.cluster_wakes),
        ),
        (
            "sibling times",
            activity.sibling.as_ref().map_or(0, Vec::len),
            if class.smt { class.opps.len() } else { 0 },
        ),
    ];
    for (what, found, expected) in lengths {
        if found != expected {
            absurd(format!("class {k} {what}"), found, expected.to_string())?;
        }
    }
    let sum = |times: &[Nanos]| times.iter().map(|time| float(time.get())).sum::<f64>();
    let length = float(duration.get());
    let cpu_time = length * f64::from(class.cpus);
    let idle: f64 = activity
        .idle
        .iter()
        .map(|idle| float(idle.time.get()))
        .sum();
    let exits: f64 = activity.idle.iter().map(|idle| float(idle.exits)).sum();
    let sibling = activity.sibling.as_ref().map_or(0.0, |times| sum(times));
    let wakes = activity.cluster_wakes.map_or(0.0, float);
    let most_wakes = MAX_WAKES_HZ * 1e-9 * cpu_time;
    let limits = [
        ("busy + idle ns", sum(&activity.busy) + idle, cpu_time),
        (
            "active ns",
            sum(&activity.active),
            length * f64::from(class.domains),
        ),
        ("sibling ns", sibling, cpu_time / 2.0),
        ("idle exits", exits, most_wakes),
        ("cluster wake-ups", wakes, most_wakes),
    ];
    for (what, value, most) in limits {
        if value > most * CLOCK_SLACK {
            absurd(
                format!("class {k} {what}"),
                value,
                format!("at most {most}"),
            )?;
        }
    }
    Ok(())
}

/// Energies in µJ to fit to, the closest to the CPUs' supply first.
fn readings(meters: &Meters) -> Vec<(Meter, f64)> {
    let measured = |energy: Option<Energy>| {
        energy
            .filter(|energy| energy.provenance == Provenance::Measured)
            .map(|energy| float(energy.amount.get()))
    };
    let gpu = measured(meters.gpu).unwrap_or(0.0);
    let package = measured(meters.package).map(|energy| (energy - gpu).max(0.0));
    let mut readings = Vec::with_capacity(METERS);
    readings.extend(package.map(|energy| (Meter::Package, energy)));
    readings.extend(measured(meters.cores).map(|energy| (Meter::Cores, energy)));
    if readings.is_empty() {
        readings.extend(measured(meters.system).map(|energy| (Meter::System, energy)));
    }
    readings
}

/// The nearest float. Counters above 2^53 lose their last bits, far below any meter's noise.
pub(super) fn float(count: u64) -> f64 {
    count.to_f64().unwrap_or(f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::IdleActivity;
    use crate::units::Microjoules;

    fn class(cpus: u16, domains: u16, idle_depths: usize) -> ClassShape {
        let opp = |khz, cap| OppShape {
            khz: KHz::new(khz),
            cap: Capacity::new(cap).unwrap(),
            microvolt: None,
        };
        ClassShape {
            cpus,
            domains,
            opps: vec![opp(1_000_000, 512), opp(2_000_000, 1024)],
            idle_depths,
            cluster_wakes: true,
            smt: false,
        }
    }

    fn terms(class: ClassShape) -> Terms {
        Terms::new(Shape {
            classes: vec![class],
        })
    }

    fn ms(time: u64) -> Nanos {
        Nanos::new(time * 1_000_000)
    }

    /// A quarter of a second on a class of two CPUs.
    fn observation() -> Observation {
        Observation {
            duration: ms(250),
            meters: Meters {
                package: Some(Energy::measured(Microjoules::new(100_000))),
                ..Meters::default()
            },
            classes: vec![ClassActivity {
                active: vec![ms(50), ms(100)],
                busy: vec![ms(75), ms(125)],
                idle: vec![
                    IdleActivity {
                        time: ms(100),
                        exits: 25,
                    },
                    IdleActivity {
                        time: ms(200),
                        exits: 5,
                    },
                ],
                cluster_wakes: Some(2),
                sibling: None,
            }],
        }
    }

    #[test]
    fn a_row_holds_fractions_of_time_and_rates_of_events() {
        let terms = terms(class(2, 1, 2));
        let rows = terms.rows(&observation()).unwrap();
        let (meter, row, watts) = &rows[0];
        assert_eq!((rows.len(), *meter, *watts), (1, Meter::Package, 0.4));
        let k = &terms.classes[0];
        let find = |parameter| row.iter().find(|(p, _)| *p == parameter).map(|(_, c)| c);
        let near = |parameter, value: f64| {
            let found = find(parameter).unwrap();
            assert!(
                (found - value).abs() < 1e-12,
                "{parameter}: {found} {value}"
            );
        };
        near(Meter::Package.index(), 1.0);
        near(k.busy, 0.3);
        near(k.busy + 1, 0.5);
        near(k.shared.unwrap(), 0.6);
        near(k.shared.unwrap() + 1, 0.2 * k.drive[0] + 0.4);
        near(k.idle[0], 0.4);
        near(k.wake[0], 100.0);
        near(k.wake[1], 20.0);
        near(k.cluster_wake.unwrap(), 8.0);
        assert_eq!(k.idle.len(), 1, "deepest idle is part of the base");
    }

    #[test]
    fn two_busy_threads_of_a_core_save_in_proportion_to_the_opps_power() {
        let terms = terms(ClassShape {
            smt: true,
            ..class(2, 1, 2)
        });
        let mut observation = observation();
        assert!(terms.rows(&observation).is_err(), "siblings not told");
        observation.classes[0].sibling = Some(vec![ms(25), ms(50)]);
        let (_, row, _) = terms.rows(&observation).unwrap().remove(0);
        let k = &terms.classes[0];
        let (_, found) = row.iter().find(|(p, _)| Some(*p) == k.sibling).unwrap();
        assert!((found + 0.1 * k.drive[0] + 0.2).abs() < 1e-12, "{found}");
        observation.classes[0].sibling = Some(vec![ms(100), ms(200)]);
        assert!(
            terms.rows(&observation).is_err(),
            "more than there are pairs"
        );
    }

    #[test]
    fn a_cpu_with_a_clock_of_its_own_has_no_shared_terms() {
        let terms = terms(class(2, 2, 2));
        assert_eq!(terms.classes[0].shared, None);
        assert_eq!(terms.classes[0].cluster_wake, None);
    }

    #[test]
    fn the_package_counts_without_its_graphics_and_next_to_the_cores() {
        let mut observation = observation();
        let energy = |uj| Some(Energy::measured(Microjoules::new(uj)));
        observation.meters.gpu = energy(25_000);
        observation.meters.cores = energy(50_000);
        observation.meters.system = energy(900_000);
        let rows = terms(class(2, 1, 2)).rows(&observation).unwrap();
        let seen: Vec<_> = rows
            .iter()
            .map(|(meter, _, watts)| (*meter, *watts))
            .collect();
        assert_eq!(seen, [(Meter::Package, 0.3), (Meter::Cores, 0.2)]);
    }

    #[test]
    fn the_system_meter_stands_in_where_there_is_no_closer_one() {
        let mut observation = observation();
        observation.meters.system = observation.meters.package.take();
        let rows = terms(class(2, 1, 2)).rows(&observation).unwrap();
        assert_eq!(rows[0].0, Meter::System);
    }

    #[test]
    fn energy_that_no_meter_read_is_not_fitted_to() {
        let mut observation = observation();
        observation.meters.package = observation.meters.package.map(|energy| Energy {
            provenance: Provenance::Abstract,
            ..energy
        });
        let error = terms(class(2, 1, 2)).rows(&observation).unwrap_err();
        assert_eq!(error, Refusal::NoMeter);
    }

    #[test]
    fn absurd_observations_are_refused_by_name() {
        type Spoil = fn(&mut Observation);
        let cases: [(&str, Spoil); 11] = [
            ("duration is 0 ns", |o| o.duration = Nanos::new(0)),
            ("duration is", |o| o.duration = Nanos::new(u64::MAX)),
            ("classes observed is 0", |o| o.classes.clear()),
            ("class 0 busy OPPs is 1", |o| o.classes[0].busy.truncate(1)),
            ("class 0 active OPPs is 3", |o| {
                o.classes[0].active.push(ms(0))
            }),
            ("class 0 idle depths is 0", |o| o.classes[0].idle.clear()),
            ("class 0 cluster wake-up counts is 0", |o| {
                o.classes[0].cluster_wakes = None;
            }),
            ("class 0 busy + idle ns", |o| o.classes[0].busy[0] = ms(300)),
            ("class 0 active ns", |o| {
                o.classes[0].active[0] = Nanos::new(u64::MAX)
            }),
            ("class 0 idle exits", |o| {
                o.classes[0].idle[0].exits = u64::MAX
            }),
            ("Package power", |o| {
                o.meters.package = Some(Energy::measured(Microjoules::new(u64::MAX)));
            }),
        ];
        let terms = terms(class(2, 1, 2));
        for (expected, spoil) in cases {
            let mut observation = observation();
            spoil(&mut observation);
            let error = terms.rows(&observation).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error} lacks {expected}");
            assert!(error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn shapes_that_no_table_could_hold_are_refused_by_name() {
        type Spoil = fn(&mut ClassShape);
        let cases: [(&str, Spoil); 7] = [
            ("class 0 cpus is 0", |c| c.cpus = 0),
            ("class 0 domains is 3", |c| c.domains = 3),
            ("class 0 opps is 0", |c| c.opps.clear()),
            ("class 0 idle depths is 3", |c| c.idle_depths = 3),
            ("class 0 opp 1 kHz", |c| c.opps[1].khz = KHz::new(5)),
            ("class 0 opp 1 capacity", |c| c.opps[1].cap = c.opps[0].cap),
            ("class 0 opp 0 voltage", |c| c.opps[0].microvolt = Some(0)),
        ];
        for (expected, spoil) in cases {
            let mut shape = Shape {
                classes: vec![class(2, 1, 2)],
            };
            assert_eq!(shape.check(), Ok(()));
            spoil(&mut shape.classes[0]);
            let error = shape.check().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error} lacks {expected}");
        }
    }

    #[test]
    fn rows_subtract_term_by_term() {
        let row = |entries: &[(usize, f64)]| Row(entries.to_vec());
        let left = row(&[(0, 1.0), (3, 2.0)]);
        assert_eq!(
            left.minus(0.5, &row(&[(0, 4.0), (2, 1.0)])),
            row(&[(0, -1.0), (2, -0.5), (3, 2.0)])
        );
        let dense = DVector::from_vec(vec![1.0, 5.0, 0.0, 0.5]);
        assert_eq!(left.minus_dense(&dense), row(&[(1, -5.0), (3, 1.5)]));
    }
}
