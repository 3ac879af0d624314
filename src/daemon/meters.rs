//! The machine's energy meters while they work and while they do not.
//!
//! A difference counts only when it covers the very interval that the caller asks for. A meter that gives
//! nothing sound for [`PATIENCE`] makes room for the next best; where there is none it stays, since it may
//! recover; where none is left at all they are looked for again.

use crate::energy::counter::{Cause, Outcome};
use crate::energy::replay::Replay;
use crate::energy::select::{Purpose, Selection, Source, State};
use crate::energy::source::{Amount, total};
use crate::energy::{self, Domain, EnergySource, Moment, Reading};
use crate::error::Error;
use crate::observation::{Energy, Meters};
use crate::sysroot::SysRoot;
use crate::units::Nanos;
use log::{info, warn};
use std::collections::BTreeMap;

/// How long a meter may give nothing sound before another is tried, and time between two searches.
const PATIENCE: Nanos = Nanos::new(10_000_000_000);
/// Least time between two complaints of one kind: a flickering meter must not fill the log.
const QUIET: Nanos = Nanos::new(60_000_000_000);

/// What the meters say of an interval.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Taken {
    /// Energy of exactly that interval.
    Sound(Meters),
    /// Nothing yet, but the next difference will cover the interval too.
    Pending,
    /// Nothing: measuring starts anew here.
    Lost,
}

/// The best meters of a machine.
pub(super) struct MeterSet {
    sys: SysRoot,
    meters: Vec<(Source, Box<dyn EnergySource>)>,
    /// Sources given up while they were still there.
    shunned: Vec<Source>,
    /// Since when nothing sound has been read.
    silent_since: Option<Nanos>,
    /// Whether a complaint stands.
    complained: bool,
    /// Whether these meters stay, as those of a recording do.
    fixed: bool,
    /// When each kind of complaint was made last.
    told: BTreeMap<String, Nanos>,
    faults: u64,
}

impl MeterSet {
    /// The best meters that there are; none is no error.
    pub fn open(sys: &SysRoot) -> Self {
        let mut set = Self {
            sys: sys.clone(),
            meters: Vec::new(),
            shunned: Vec::new(),
            silent_since: None,
            complained: false,
            fixed: false,
            told: BTreeMap::new(),
            faults: 0,
        };
        set.choose(&[], "the best that there is");
        set
    }

    /// The meters of a recording, in place of the machine's.
    pub fn replayed(source: Source, meters: Replay) -> Self {
        Self {
            sys: SysRoot::host(),
            meters: vec![(source, Box::new(meters))],
            shunned: Vec::new(),
            silent_since: None,
            complained: false,
            fixed: true,
            told: BTreeMap::new(),
            faults: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.meters.is_empty()
    }

    /// Readings that could not be trusted.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// The longest time between two readings at which no counter wraps unnoticed.
    pub fn longest_pause(&self) -> Option<Nanos> {
        self.meters
            .iter()
            .filter_map(|(_, meter)| meter.longest_safe_period())
            .min()
    }

    /// Energy from `since` (the moment of an earlier reading) until now.
    pub fn read(&mut self, now: Moment, since: Option<Nanos>) -> Taken {
        let mut readings = Vec::new();
        let (mut trouble, mut gone, mut pending) = (None, false, false);
        for (source, meter) in &mut self.meters {
            match meter.sample(now) {
                Ok(more) => readings.extend(more.into_iter().map(|reading| (*source, reading))),
                Err(error) => {
                    gone |= matches!(error, Error::Gone { .. });
                    pending = true;
                    trouble = Some(format!("{source}: {error}"));
                }
            }
        }
        for (source, reading) in &readings {
            match &reading.amount {
                Amount::Energy(Outcome::Still { .. }) => pending = true,
                Amount::Energy(Outcome::Dropped(cause)) if is_used(&reading.domain) => {
                    gone |= *cause == Cause::Vanished;
                    let tale = tale(cause);
                    trouble =
                        trouble.or(Some(format!("{source}: {} energy {tale}", reading.domain)));
                }
                _ => {}
            }
        }
        let elapsed = since.and_then(|since| now.at.checked_sub(since));
        let readings = readings.into_iter().map(|(_, reading)| reading);
        let meters = meters_over(elapsed, &readings.collect::<Vec<_>>());
        self.judge(now.at, meters.is_some(), trouble, gone);
        match meters {
            Some(meters) => Taken::Sound(meters),
            None if pending => Taken::Pending,
            None => Taken::Lost,
        }
    }

    /// Tells of trouble and of its end; looks for other meters when it is time.
    fn judge(&mut self, at: Nanos, sound: bool, trouble: Option<String>, gone: bool) {
        match &trouble {
            Some(trouble) => {
                self.faults += 1;
                self.complain(at, trouble);
            }
            None if sound && self.complained => {
                info!("the energy meter can be trusted again");
                self.complained = false;
            }
            None => {}
        }
        if sound {
            self.silent_since = None;
            return;
        }
        if self.fixed {
            return;
        }
        let since = *self.silent_since.get_or_insert(at);
        if gone
            || at
                .checked_sub(since)
                .is_some_and(|silent| silent >= PATIENCE)
        {
            let before: Vec<_> = self.sources().collect();
            if !gone {
                self.shunned.extend(&before);
            }
            self.silent_since = None;
            let nothing = if before.is_empty() {
                "it is there again"
            } else {
                "nothing sound was read"
            };
            let why = trouble.unwrap_or_else(|| nothing.into());
            self.choose(&before, &why);
        }
    }

    /// Says what is wrong, once a minute for each kind: the same words, whatever the numbers.
    fn complain(&mut self, at: Nanos, trouble: &str) {
        let kind: String = trouble.chars().filter(|c| !c.is_ascii_digit()).collect();
        let told = self.told.get(&kind).copied();
        let recent = told
            .and_then(|told| at.checked_sub(told))
            .is_some_and(|ago| ago < QUIET);
        if !recent {
            warn!("{trouble}; nothing is learnt from it, costs stay as they are");
            self.complained = true;
            self.told.insert(kind, at);
        }
    }

    fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.meters.iter().map(|(source, _)| *source)
    }

    /// Opens the best sources of now. Readers of the sources in use stay: what they know of their counters
    /// is worth keeping.
    fn choose(&mut self, before: &[Source], why: &str) {
        let facts = energy::probe(&self.sys);
        let chosen = self.candidates(&energy::select(&facts));
        let same = chosen
            .iter()
            .map(|(source, _)| *source)
            .eq(before.iter().copied());
        if !same || chosen.is_empty() {
            self.meters = open(&self.sys, &facts, &chosen);
            self.announce(before, why);
        }
    }

    fn announce(&self, before: &[Source], why: &str) {
        let mut names: Vec<_> = self.sources().map(|source| source.to_string()).collect();
        names.dedup();
        match names.as_slice() {
            [] if before.is_empty() => {}
            [] => warn!("no energy meter is left ({why}): costs stay as they are"),
            names => info!("measuring energy with {} ({why})", names.join(" and ")),
        }
    }

    /// The source to use for each purpose, each source once. Shunned ones count again where there is no other.
    fn candidates(&mut self, selection: &Selection) -> Vec<(Source, Purpose)> {
        let mut wanted = self.fit(selection);
        if wanted.is_empty() && !self.shunned.is_empty() {
            self.shunned.clear();
            wanted = self.fit(selection);
        }
        wanted.dedup_by_key(|(source, _)| *source);
        wanted
    }

    fn fit(&self, selection: &Selection) -> Vec<(Source, Purpose)> {
        let best = |purpose| {
            let fit = selection.verdicts_for(purpose).find(|verdict| {
                matches!(verdict.state, State::Chosen | State::Spare)
                    && verdict.source != Source::KernelEm
                    && !self.shunned.contains(&verdict.source)
            });
            fit.map(|verdict| (verdict.source, purpose))
        };
        [Purpose::Package, Purpose::Cores]
            .into_iter()
            .filter_map(best)
            .collect()
    }
}

fn open(
    sys: &SysRoot,
    facts: &energy::Facts,
    chosen: &[(Source, Purpose)],
) -> Vec<(Source, Box<dyn EnergySource>)> {
    let mut meters = Vec::new();
    for &(source, purpose) in chosen {
        match energy::open(sys, facts, source, purpose) {
            Ok(opened) => meters.extend(opened.into_iter().map(|meter| (source, meter))),
            Err(error) => warn!("{source} cannot be used: {error}"),
        }
    }
    meters
}

/// The sound differences that cover exactly `elapsed`; `None` when there is none that a model can learn from.
fn meters_over(elapsed: Option<Nanos>, readings: &[Reading]) -> Option<Meters> {
    let wanted = elapsed?;
    let covering = |reading: &Reading| match &reading.amount {
        Amount::Energy(Outcome::Moved { elapsed, .. }) => *elapsed == wanted,
        _ => false,
    };
    let energy = |domain: Domain| {
        let mut of_domain = readings.iter().filter(|reading| reading.domain == domain);
        let sound = of_domain.all(covering);
        sound
            .then(|| total(readings, &domain).map(Energy::measured))
            .flatten()
    };
    let meters = Meters {
        package: energy(Domain::Package),
        cores: energy(Domain::Cores),
        gpu: energy(Domain::Gpu),
        system: energy(Domain::Platform),
    };
    let any = meters.package.or(meters.cores).or(meters.system);
    any.map(|_| meters)
}

fn is_used(domain: &Domain) -> bool {
    matches!(
        domain,
        Domain::Package | Domain::Cores | Domain::Gpu | Domain::Platform
    )
}

/// What befell a counter, for people.
fn tale(cause: &Cause) -> String {
    let seconds = |elapsed: &Nanos| elapsed.get() / 1_000_000_000;
    match cause {
        Cause::Suspended => "spans a suspend".into(),
        Cause::Vanished => "is not there any more".into(),
        Cause::Reset => "started again from 0".into(),
        Cause::Backwards { by } => format!("went back by {by}"),
        Cause::RangeUnknown => "fell, and its range is not known".into(),
        Cause::Unsettled => "has not settled after a fault".into(),
        Cause::Jump { claimed } => format!("jumped by {claimed}"),
        Cause::TooLate { elapsed } => format!("may have wrapped more than once in {elapsed}"),
        Cause::OutOfRange => "is above its own range".into(),
        Cause::Frozen { elapsed } => format!("has stood still for {} s", seconds(elapsed)),
        Cause::ClockBackwards => "was read on a clock that went back".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Microjoules;
    use std::fs;
    use std::path::Path;

    const SECOND: u64 = 1_000_000_000;

    /// A tree with one readable powercap package.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let zone = root.path().join("sys/class/powercap/intel-rapl:0");
        fs::create_dir_all(&zone).unwrap();
        for (file, text) in [
            ("name", "package-0\n"),
            ("max_energy_range_uj", "262143328850\n"),
        ] {
            fs::write(zone.join(file), text).unwrap();
        }
        show(root.path(), "0");
        root
    }

    fn show(root: &Path, energy: &str) {
        let file = root.join("sys/class/powercap/intel-rapl:0/energy_uj");
        fs::write(file, format!("{energy}\n")).unwrap();
    }

    fn at(seconds: u64) -> Moment {
        Moment {
            at: Nanos::new(seconds * SECOND),
            resumed: false,
        }
    }

    fn sound(taken: &Taken) -> Option<u64> {
        match taken {
            Taken::Sound(meters) => meters.package.map(|energy| energy.amount.get()),
            Taken::Pending | Taken::Lost => None,
        }
    }

    #[test]
    fn energy_counts_only_over_the_interval_that_was_asked_for() {
        let root = tree();
        let mut set = MeterSet::open(&SysRoot::at(root.path()));
        assert_eq!(set.read(at(0), None), Taken::Lost);
        show(root.path(), "1000");
        assert_eq!(sound(&set.read(at(1), Some(at(0).at))), Some(1000));
        show(root.path(), "3000");
        assert_eq!(set.read(at(2), Some(at(0).at)), Taken::Lost);
    }

    #[test]
    fn after_a_failed_read_the_difference_covers_the_longer_interval() {
        let root = tree();
        let mut set = MeterSet::open(&SysRoot::at(root.path()));
        set.read(at(0), None);
        show(root.path(), "nonsense");
        assert_eq!(set.read(at(1), Some(at(0).at)), Taken::Pending);
        assert_eq!(set.faults(), 1);
        show(root.path(), "5000");
        assert_eq!(sound(&set.read(at(2), Some(at(0).at))), Some(5000));
    }

    #[test]
    fn a_counter_that_jumped_is_compared_anew() {
        let root = tree();
        let mut set = MeterSet::open(&SysRoot::at(root.path()));
        set.read(at(0), None);
        show(root.path(), "5000000000000");
        assert_eq!(set.read(at(1), Some(at(0).at)), Taken::Lost);
        show(root.path(), "100000000000");
        set.read(at(2), Some(at(1).at));
        show(root.path(), "100000001000");
        assert_eq!(sound(&set.read(at(3), Some(at(2).at))), Some(1000));
    }

    #[test]
    fn a_meter_that_went_away_is_found_again() {
        let root = tree();
        let mut set = MeterSet::open(&SysRoot::at(root.path()));
        set.read(at(0), None);
        let (zone, aside) = (
            root.path().join("sys/class/powercap/intel-rapl:0"),
            root.path().join("aside"),
        );
        fs::rename(&zone, &aside).unwrap();
        assert_eq!(sound(&set.read(at(1), Some(at(0).at))), None);
        assert!(set.is_empty());
        fs::rename(&aside, &zone).unwrap();
        for second in 2..13 {
            set.read(at(second), Some(at(second - 1).at));
        }
        assert!(!set.is_empty());
        set.read(at(13), None);
        show(root.path(), "7000");
        assert_eq!(sound(&set.read(at(14), Some(at(13).at))), Some(7000));
    }

    #[test]
    fn every_tale_is_a_clause() {
        let elapsed = Nanos::new(12 * SECOND);
        for (cause, words) in [
            (Cause::Frozen { elapsed }, "has stood still for 12 s"),
            (
                Cause::Backwards {
                    by: Microjoules::new(5),
                },
                "went back by 5 µJ",
            ),
        ] {
            assert_eq!(tale(&cause), words);
        }
    }
}
