//! Whether meters that cover the same thing agree: a counter of the wrong unit, counted twice or stuck is seen
//! where another looks at the same energy, or at a part of it.
//!
//! Counters only: power channels and batteries average over windows of their own, and two averages of
//! different times need not agree. Nor need two counters to the microjoule: each is refreshed in its own time,
//! so what is allowed shrinks as the compared time grows.

use super::counter::Outcome;
use super::select::Source;
use super::source::{Amount, Domain, Reading, total};
use super::{hwmon, perf, powercap};
use crate::units::{Microjoules, Nanos};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What is allowed besides the counters' refresh: sense resistors and their amplifiers are good to 1 %.
const TOLERANCE_PPM: u128 = 10_000;
/// While more than this is allowed, agreement means nothing.
const WORTHLESS_PPM: u128 = 200_000;
const PPM: u128 = 1_000_000;

/// A source's counters of one domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Meter {
    /// Who counts.
    pub source: Source,
    /// What is counted.
    pub domain: Domain,
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.domain, self.source)
    }
}

/// How two meters compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As they should.
    Agree,
    /// One of them is wrong.
    Differ,
    /// They were compared too briefly to tell, or nothing was counted.
    Unclear,
}

/// Two meters over the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The one that covers as much or more.
    pub whole: Meter,
    /// The one that covers as much or less.
    pub part: Meter,
    /// Energy by the first.
    pub whole_uj: Microjoules,
    /// Energy by the other.
    pub part_uj: Microjoules,
    /// The time compared, by the moments of the readings.
    pub elapsed: Nanos,
    /// What is allowed, in millionths of the first.
    pub allowed_ppm: u64,
    /// What it comes to.
    pub verdict: Verdict,
}

impl Comparison {
    /// How much more the second says than the first, in millionths of the first; negative when it says less, `None`
    /// when the first says nothing.
    pub fn excess_ppm(&self) -> Option<i64> {
        let (whole, part) = (
            i128::from(self.whole_uj.get()),
            i128::from(self.part_uj.get()),
        );
        let excess = ((part - whole) * 1_000_000).checked_div(whole)?;
        i64::try_from(excess).ok()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millijoules = |energy: Microjoules| energy.get() / 1000;
        write!(
            f,
            "{} {} mJ, {} {} mJ",
            self.whole,
            millijoules(self.whole_uj),
            self.part,
            millijoules(self.part_uj)
        )
    }
}

/// What two meters counted in the same intervals.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    whole_uj: u128,
    part_uj: u128,
    elapsed_ns: u128,
}

/// Compares meters over time.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    pairs: BTreeMap<(Meter, Meter), Sums>,
}

impl Agreement {
    /// Takes in one round: each source's readings, all of the same moment. A source that gave nothing sound, or whose
    /// difference covers another time than the other's, takes no part in this round.
    pub fn add(&mut self, round: &[(Source, Vec<Reading>)]) {
        let mut sound = Vec::new();
        for (source, readings) in round {
            for domain in domains(readings) {
                let energy = total(readings, domain).zip(elapsed(readings, domain));
                if let Some((energy, elapsed)) = energy {
                    let meter = Meter {
                        source: *source,
                        domain: domain.clone(),
                    };
                    sound.push((meter, energy, elapsed));
                }
            }
        }
        for (whole, whole_uj, elapsed) in &sound {
            for (part, part_uj, other) in &sound {
                if elapsed == other && is_pair(whole, part) {
                    let pair = (whole.clone(), part.clone());
                    let sums = self.pairs.entry(pair).or_default();
                    sums.whole_uj += u128::from(whole_uj.get());
                    sums.part_uj += u128::from(part_uj.get());
                    sums.elapsed_ns += u128::from(elapsed.get());
                }
            }
        }
    }

    /// Every pair of meters that should agree, and whether they do so far.
    pub fn comparisons(&self) -> Vec<Comparison> {
        self.pairs
            .iter()
            .filter_map(|((whole, part), sums)| compare(whole, part, sums))
            .collect()
    }
}

/// The energy domains of these readings, each once.
fn domains(readings: &[Reading]) -> Vec<&Domain> {
    let counters = readings
        .iter()
        .filter(|reading| matches!(reading.amount, Amount::Energy(_)));
    let mut domains: Vec<_> = counters.map(|reading| &reading.domain).collect();
    domains.sort();
    domains.dedup();
    domains
}

/// The time that a domain's differences cover; `None` when its scopes do not cover the same.
fn elapsed(readings: &[Reading], domain: &Domain) -> Option<Nanos> {
    let mut times = readings
        .iter()
        .filter(|reading| reading.domain == *domain)
        .map(|reading| match &reading.amount {
            Amount::Energy(Outcome::Moved { elapsed, .. }) => Some(*elapsed),
            _ => None,
        });
    let first = times.next()??;
    times.all(|time| time == Some(first)).then_some(first)
}

/// Whether the second covers the same as the first or a part of it. Of two that cover the same, each pair comes once.
fn is_pair(whole: &Meter, part: &Meter) -> bool {
    if whole.domain == part.domain {
        return whole.source < part.source;
    }
    matches!(
        (&whole.domain, &part.domain),
        (
            Domain::Platform,
            Domain::Package | Domain::Cores | Domain::Gpu
        ) | (Domain::Package, Domain::Cores | Domain::Gpu)
    )
}

fn compare(whole: &Meter, part: &Meter, sums: &Sums) -> Option<Comparison> {
    let (one, other) = (sums.whole_uj, sums.part_uj);
    let refresh_ns = refresh(whole.source) + refresh(part.source);
    let allowed_ppm = TOLERANCE_PPM + (refresh_ns * PPM).checked_div(sums.elapsed_ns)?;
    let most = one * (PPM + allowed_ppm) / PPM;
    let least = match whole.domain == part.domain {
        true => one * PPM.saturating_sub(allowed_ppm) / PPM,
        false => 0,
    };
    let verdict = match other {
        _ if allowed_ppm > WORTHLESS_PPM || (one, other) == (0, 0) => Verdict::Unclear,
        other if (least..=most).contains(&other) => Verdict::Agree,
        _ => Verdict::Differ,
    };
    Some(Comparison {
        whole: whole.clone(),
        part: part.clone(),
        whole_uj: Microjoules::new(u64::try_from(one).ok()?),
        part_uj: Microjoules::new(u64::try_from(other).ok()?),
        elapsed: Nanos::new(u64::try_from(sums.elapsed_ns).ok()?),
        allowed_ppm: u64::try_from(allowed_ppm).ok()?,
        verdict,
    })
}

/// How old a counter's value may be, in ns.
fn refresh(source: Source) -> u128 {
    let refresh = match source {
        Source::PerfPower | Source::PerfPowerCore => perf::REFRESH,
        Source::Powercap => powercap::REFRESH,
        _ => hwmon::REFRESH,
    };
    u128::from(refresh.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::counter::Cause;
    use crate::energy::source::{Provenance, Scope};
    use crate::units::Microwatts;

    const SECOND: u64 = 1_000_000_000;

    fn reading(domain: Domain, package: u32, amount: Amount) -> Reading {
        Reading {
            domain,
            scope: Scope::Package { package, die: None },
            amount,
            provenance: Provenance::Measured,
        }
    }

    fn moved(energy_uj: u64, seconds: u64) -> Amount {
        Amount::Energy(Outcome::Moved {
            energy: Microjoules::new(energy_uj),
            elapsed: Nanos::new(seconds * SECOND),
            wrapped: false,
        })
    }

    /// One round of `seconds`, each source with one reading for each domain.
    fn round(seconds: u64, energies: &[(Source, Domain, u64)]) -> Vec<(Source, Vec<Reading>)> {
        let readings = energies.iter().map(|(source, domain, energy_uj)| {
            let amount = moved(*energy_uj, seconds);
            (*source, vec![reading(domain.clone(), 0, amount)])
        });
        readings.collect()
    }

    fn verdicts(rounds: &[Vec<(Source, Vec<Reading>)>]) -> Vec<Verdict> {
        let mut agreement = Agreement::default();
        for round in rounds {
            agreement.add(round);
        }
        let comparisons = agreement.comparisons();
        comparisons.iter().map(|pair| pair.verdict).collect()
    }

    #[test]
    fn two_counters_of_one_thing_agree_within_one_percent_and_their_refresh() {
        use Domain::Package;
        let of = |seconds, other| {
            let energies = [
                (Source::PerfPower, Package, 10_000_000),
                (Source::Powercap, Package, other),
            ];
            verdicts(&[round(seconds, &energies)])
        };
        // 1 % and 101 ms in 10 s: 2.01 %
        for (other, verdict) in [
            (10_000_000, Verdict::Agree),
            (10_201_000, Verdict::Agree),
            (10_202_000, Verdict::Differ),
            (9_799_000, Verdict::Agree),
            (9_798_000, Verdict::Differ),
            (0, Verdict::Differ),
        ] {
            assert_eq!(of(10, other), [verdict], "{other}");
        }
        // the same excess is no difference in one second
        assert_eq!(of(1, 10_202_000), [Verdict::Agree]);
        assert_eq!(of(1, 20_000_000), [Verdict::Differ]);
    }

    #[test]
    fn what_is_allowed_shrinks_as_rounds_add_up() {
        let energies = [
            (Source::PerfPower, Domain::Package, 1_000_000),
            (Source::HwmonEnergy, Domain::Package, 1_050_000),
        ];
        let rounds = |n| vec![round(1, &energies); n];
        // a sensor may be a second late
        assert_eq!(verdicts(&rounds(1)), [Verdict::Unclear]);
        assert_eq!(verdicts(&rounds(20)), [Verdict::Agree]);
        assert_eq!(verdicts(&rounds(30)), [Verdict::Differ]);
    }

    #[test]
    fn a_part_may_be_less_than_the_whole_but_never_more() {
        use Domain::{Cores, Gpu, Package, Platform};
        let of = |energies: &[(Source, Domain, u64)]| verdicts(&[round(100, energies)]);
        let perf = Source::PerfPower;
        for (whole, part) in [(Package, Cores), (Package, Gpu), (Platform, Package)] {
            let of = |part_uj| of(&[(perf, whole.clone(), 1000), (perf, part.clone(), part_uj)]);
            assert_eq!(of(1), [Verdict::Agree]);
            assert_eq!(of(1000), [Verdict::Agree]);
            assert_eq!(of(1100), [Verdict::Differ]);
        }
        // of memory nothing is known: it may be inside or outside
        assert_eq!(of(&[(perf, Package, 1), (perf, Domain::Dram, 5)]), []);
    }

    #[test]
    fn only_sound_differences_over_the_same_time_are_compared() {
        let package = |amount| vec![reading(Domain::Package, 0, amount)];
        for other in [
            moved(1000, 2),
            Amount::Energy(Outcome::Baseline),
            Amount::Energy(Outcome::Dropped(Cause::Suspended)),
            Amount::Power(Some(Microwatts::new(5))),
        ] {
            let round = [
                (Source::PerfPower, package(moved(1000, 1))),
                (Source::Powercap, package(other)),
            ];
            assert_eq!(verdicts(&[round.to_vec()]), []);
        }
    }

    #[test]
    fn packages_are_compared_as_their_sum() {
        let both = |first, second| {
            vec![
                reading(Domain::Package, 0, moved(first, 10)),
                reading(Domain::Package, 1, moved(second, 10)),
            ]
        };
        // the same zone read twice instead of two zones
        let round = vec![
            (Source::PerfPower, both(4_000_000, 2_000_000)),
            (Source::Powercap, both(4_000_000, 4_000_000)),
        ];
        let mut agreement = Agreement::default();
        agreement.add(&round);
        let comparison = agreement.comparisons().remove(0);
        assert_eq!(comparison.verdict, Verdict::Differ);
        assert_eq!(comparison.excess_ppm(), Some(333_333));
        assert_eq!(
            comparison.to_string(),
            "package of perf power 6000 mJ, package of powercap 8000 mJ"
        );
    }

    #[test]
    fn nothing_counted_or_too_much_to_count_is_no_verdict() {
        let energies = |energy_uj| {
            [
                (Source::PerfPower, Domain::Package, energy_uj),
                (Source::Powercap, Domain::Package, energy_uj),
            ]
        };
        assert_eq!(verdicts(&[round(10, &energies(0))]), [Verdict::Unclear]);
        let endless = vec![round(10, &energies(u64::MAX)); 2];
        assert_eq!(verdicts(&endless), []);
    }
}
