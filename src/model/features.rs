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
    /// along `saving`.
    pub sibling: Option<usize>,
    /// What is saved at each OPP relative to the highest: a part of a CPU's busy power, along which it goes as
    /// far as that is known ([`Terms::follow`]).
    pub saving: Vec<f64>,
    /// f·V² of each OPP relative to the highest.
    pub drive: Vec<f64>,
    /// One past the class's last parameter.
    pub end: usize,
}

impl ClassTerms {
    /// Power of a domain in which so many CPUs are at work at the OPP, as a functional of the parameters.
    pub fn awake(&self, opp: usize, busy_cpus: f64) -> Row {
        let mut row = Row::default();
        row.push(self.busy + opp, busy_cpus);
        if let (Some(shared), Some(drive)) = (self.shared, self.drive.get(opp)) {
            row.push(shared, 1.0);
            row.push(shared + 1, *drive);
        }
        row
    }
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
                saving: class.drive(),
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

    /// Has what two threads save go along what is believed of busy power, where that is positive.
    ///
    /// Their product would not be linear; what is known of the curve does well, as the saving is the smaller of
    /// the two and its height is fitted.
    pub fn follow(&mut self, believed: &DVector<f64>) {
        for class in self.classes.iter_mut().filter(|it| it.sibling.is_some()) {
            let busy = believed.iter().skip(class.busy).take(class.opps);
            if let Some(&top) = busy.clone().next_back().filter(|top| **top > 0.0) {
                let relative = busy.map(|watts| (watts / top).max(0.0));
                class.saving = relative.collect();
            }
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
                let saved = times.iter().zip(&terms.saving);
                let saved = saved.map(|(time, saving)| float(time.get()) * saving);
                row.push(parameter, -saved.sum::<f64>() * per);
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
mod tests;
