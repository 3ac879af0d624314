//! The energy of an interval, with how far it may be off.
//!
//! Meters are read more often than intervals end where a counter would wrap before, and differences are added
//! up. An interval's energy is told only if differences cover it; what they miss or have too much at its ends,
//! and what the counter's refresh leaves open, is in the error.

use crate::energy::counter::{Cause, Outcome};
use crate::energy::select::{Purpose, Source, State};
use crate::energy::source::Amount;
use crate::energy::{self, Domain, EnergySource, Moment, Reading, Scope};
use crate::sysroot::SysRoot;
use crate::units::Nanos;
use num_traits::ToPrimitive;
use std::collections::BTreeMap;

/// [`Domain`] without its labels, so that it can stand in a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meter {
    /// [`Domain::Package`].
    Package,
    /// [`Domain::Cores`].
    Cores,
    /// [`Domain::Gpu`].
    Gpu,
    /// [`Domain::Dram`].
    Dram,
    /// [`Domain::Platform`].
    Platform,
}

impl Meter {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Package,
        Self::Cores,
        Self::Gpu,
        Self::Dram,
        Self::Platform,
    ];

    /// The domain that is metered.
    pub const fn domain(self) -> Domain {
        match self {
            Self::Package => Domain::Package,
            Self::Cores => Domain::Cores,
            Self::Gpu => Domain::Gpu,
            Self::Dram => Domain::Dram,
            Self::Platform => Domain::Platform,
        }
    }
}

/// Energy of one scope, or the sum of several, over an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Energy, J; not a number when unknown.
    pub joules: f64,
    /// Mean power, W.
    pub watts: f64,
    /// How far `joules` may be off, J; `None` where the meter does not say how often it is refreshed.
    pub error_j: Option<f64>,
}

impl Figure {
    const UNKNOWN: Self = Self {
        joules: f64::NAN,
        watts: f64::NAN,
        error_j: None,
    };

    /// Both together; unknown when one is.
    pub fn and(self, other: Self) -> Self {
        Self {
            joules: self.joules + other.joules,
            watts: self.watts + other.watts,
            error_j: self.error_j.zip(other.error_j).map(|(one, two)| one + two),
        }
    }

    /// Whether there is a figure at all.
    pub fn is_known(&self) -> bool {
        self.joules.is_finite() && self.watts.is_finite()
    }
}

/// What has been counted of one domain and scope since the interval began.
#[derive(Clone, Debug, Default)]
struct Account {
    joules: f64,
    covered: Nanos,
    dropped: Option<Cause>,
    /// Power at the last look, of a meter that tells power.
    power: Option<(Nanos, f64)>,
}

/// Energy that RAPL's counters do not resolve: 2⁻¹⁴ J (Intel SDM vol. 3B, "RAPL interfaces"); AMD's step is a
/// quarter of it, powercap's print a microjoule.
const RESOLUTION_J: f64 = 1.0 / 16384.0;

/// The machine's best meters for each domain.
pub struct Meters {
    meters: Vec<(Source, Option<Nanos>, Box<dyn EnergySource>)>,
    /// Who tells a domain: the first meter that does.
    owners: BTreeMap<Domain, usize>,
    accounts: BTreeMap<(Domain, Scope), Account>,
    missing: Vec<String>,
}

impl Meters {
    /// Opens the meters that [`energy::select()`] recommends.
    pub fn open(sys: &SysRoot) -> Self {
        let facts = energy::probe(sys);
        let selection = energy::select(&facts);
        let mut this = Self::none();
        let mut opened = Vec::new();
        for purpose in [Purpose::Package, Purpose::Cores] {
            let verdicts = || selection.verdicts_for(purpose);
            let chosen = verdicts().find(|verdict| {
                verdict.state == State::Chosen && verdict.source != Source::KernelEm
            });
            let Some(verdict) = chosen else {
                let why = verdicts().next().map(|verdict| match &verdict.fix {
                    Some(fix) => format!("{}; {fix}", verdict.why),
                    None => verdict.why.clone(),
                });
                this.missing.extend(why);
                continue;
            };
            if opened.contains(&verdict.source) {
                continue;
            }
            opened.push(verdict.source);
            let refresh = refresh(&facts, verdict.source);
            match energy::open(sys, &facts, verdict.source, purpose) {
                Ok(found) => this.meters.extend(
                    found
                        .into_iter()
                        .map(|meter| (verdict.source, refresh, meter)),
                ),
                Err(error) => this.missing.push(error.to_string()),
            }
        }
        this
    }

    /// No meters.
    pub fn none() -> Self {
        Self {
            meters: Vec::new(),
            owners: BTreeMap::new(),
            accounts: BTreeMap::new(),
            missing: Vec::new(),
        }
    }

    /// Why there is not more.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Whether a meter has told this domain.
    pub fn tells(&self, meter: Meter) -> bool {
        self.owners.contains_key(&meter.domain())
    }

    /// The longest time between two looks at which no counter wraps unnoticed.
    pub fn longest_pause(&self) -> Option<Nanos> {
        let meters = self.meters.iter();
        meters
            .filter_map(|(.., meter)| meter.longest_safe_period())
            .min()
    }

    /// Reads all meters.
    pub fn look(&mut self, now: Moment) {
        let mut readings: Vec<(usize, Reading)> = Vec::new();
        for (index, (source, _, meter)) in self.meters.iter_mut().enumerate() {
            match meter.sample(now) {
                Ok(more) => readings.extend(more.into_iter().map(|reading| (index, reading))),
                Err(error) => {
                    let why = format!("{source}: {error}");
                    if !self.missing.contains(&why) {
                        self.missing.push(why);
                    }
                }
            }
        }
        for (index, reading) in readings {
            // Several meters of one source share its domains; another source is a second opinion.
            let source = |index: usize| self.meters.get(index).map(|(source, ..)| *source);
            let owner = *self.owners.entry(reading.domain.clone()).or_insert(index);
            if source(owner) == source(index) {
                let key = (reading.domain, reading.scope);
                self.accounts
                    .entry(key)
                    .or_default()
                    .add(&reading.amount, now);
            }
        }
    }

    /// What was counted over an interval of this length, which ended with the last look; the next begins.
    pub fn take(&mut self, elapsed: Nanos) -> BTreeMap<(Domain, Scope), Figure> {
        let mut figures = BTreeMap::new();
        for (key, account) in &mut self.accounts {
            let refresh = self
                .owners
                .get(&key.0)
                .and_then(|owner| self.meters.get(*owner)?.1);
            figures.insert(key.clone(), account.figure(elapsed, refresh));
            *account = Account {
                power: account.power,
                ..Account::default()
            };
        }
        figures
    }
}

impl Account {
    fn add(&mut self, amount: &Amount, now: Moment) {
        match amount {
            Amount::Energy(Outcome::Moved {
                energy, elapsed, ..
            }) => {
                self.joules += energy.get().to_f64().unwrap_or(f64::NAN) / 1e6;
                self.cover(*elapsed);
            }
            Amount::Energy(Outcome::Dropped(cause)) => self.dropped = Some(*cause),
            Amount::Energy(Outcome::Baseline | Outcome::Still { .. }) => {}
            Amount::Power(told) => {
                let watts = told
                    .and_then(|power| power.get().to_f64())
                    .map(|uw| uw / 1e6);
                if let (Some(watts), Some((then, before))) = (watts, self.power)
                    && let Some(elapsed) = now.at.checked_sub(then)
                    && !now.resumed
                {
                    self.joules += (watts + before) / 2.0 * seconds(elapsed);
                    self.cover(elapsed);
                }
                self.power = watts.map(|watts| (now.at, watts));
            }
        }
    }

    fn cover(&mut self, time: Nanos) {
        self.covered = Nanos::new(self.covered.get().saturating_add(time.get()));
    }

    fn figure(&self, elapsed: Nanos, refresh: Option<Nanos>) -> Figure {
        let beside = self.covered.get().abs_diff(elapsed.get());
        if self.dropped.is_some() || self.covered.get() == 0 || beside > elapsed.get() / 2 {
            return Figure::UNKNOWN;
        }
        let watts = self.joules / seconds(self.covered);
        let open = |refresh: Nanos| seconds(Nanos::new(refresh.get().saturating_add(beside)));
        Figure {
            joules: self.joules,
            watts,
            error_j: refresh.map(|refresh| watts * open(refresh) + RESOLUTION_J),
        }
    }
}

/// How old a counter's value may be, where that is known.
fn refresh(facts: &energy::Facts, source: Source) -> Option<Nanos> {
    const RAPL: Nanos = Nanos::new(1_000_000);
    const SCMI: Nanos = Nanos::new(100_000_000);
    match source {
        Source::PerfPower | Source::PerfPowerCore => Some(RAPL),
        Source::Powercap => {
            let mut zones = facts.powercap.items.iter();
            let rapl = zones.all(|zone| zone.control_type().starts_with("intel-rapl"));
            Some(if rapl { RAPL } else { SCMI })
        }
        Source::HwmonEnergy | Source::HwmonPower | Source::Battery | Source::KernelEm => None,
    }
}

fn seconds(time: Nanos) -> f64 {
    time.get().to_f64().unwrap_or(f64::NAN) / 1e9
}

#[cfg(test)]
mod tests;
