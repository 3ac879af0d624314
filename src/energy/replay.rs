//! A recording's meters, as a source of energy readings.

use super::clock::Moment;
use super::counter::{Cause, Outcome};
use super::record::Sample;
use super::source::{Amount, Domain, EnergySource, Provenance, Reading, Scope};
use crate::error::{Error, Result};
use crate::units::Nanos;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

/// Gives what was recorded, at the moments at which it was: asked at one of them it answers as the meters did;
/// asked less often, with all that they said since. After the last moment the meters have gone.
#[derive(Debug, Default)]
pub struct Replay {
    path: PathBuf,
    ahead: VecDeque<(Nanos, Vec<Reading>)>,
}

impl Replay {
    /// Of one session's samples, ascending by time; `path` is for messages.
    pub fn new(path: impl Into<PathBuf>, samples: impl IntoIterator<Item = Sample>) -> Self {
        let samples = samples.into_iter();
        Self {
            path: path.into(),
            ahead: samples.map(|it| (it.at, it.readings)).collect(),
        }
    }

    /// Adds a sample to be given later than those before.
    pub fn push(&mut self, sample: &Sample) {
        self.ahead.push_back((sample.at, sample.readings.clone()));
    }
}

impl EnergySource for Replay {
    fn sample(&mut self, now: Moment) -> Result<Vec<Reading>> {
        if self.ahead.is_empty() {
            return Err(Error::Gone {
                path: self.path.clone(),
            });
        }
        let mut told: BTreeMap<(Domain, Scope), (Amount, Provenance)> = BTreeMap::new();
        let due = self.ahead.partition_point(|(at, _)| *at <= now.at);
        for (_, readings) in self.ahead.drain(..due) {
            for reading in readings {
                let key = (reading.domain, reading.scope);
                let amount = match told.remove(&key) {
                    Some((earlier, _)) => both(earlier, reading.amount),
                    None => reading.amount,
                };
                told.insert(key, (amount, reading.provenance));
            }
        }
        let reading = |((domain, scope), (amount, provenance))| Reading {
            domain,
            scope,
            amount,
            provenance,
        };
        Ok(told.into_iter().map(reading).collect())
    }

    /// What was recorded is past wrapping.
    fn longest_safe_period(&self) -> Option<Nanos> {
        None
    }
}

/// What a meter said twice in a row, as if it had been asked once.
fn both(earlier: Amount, later: Amount) -> Amount {
    let (Amount::Energy(earlier), Amount::Energy(later)) = (&earlier, &later) else {
        return later; // the power of now
    };
    Amount::Energy(match (earlier, later) {
        (Outcome::Dropped(cause), _) | (_, Outcome::Dropped(cause)) => Outcome::Dropped(*cause),
        (
            Outcome::Moved {
                energy,
                elapsed,
                wrapped,
            },
            Outcome::Moved {
                energy: more,
                elapsed: longer,
                wrapped: again,
            },
        ) => match energy.checked_add(*more).zip(elapsed.checked_add(*longer)) {
            Some((energy, elapsed)) => Outcome::Moved {
                energy,
                elapsed,
                wrapped: *wrapped || *again,
            },
            None => Outcome::Dropped(Cause::OutOfRange),
        },
        (Outcome::Moved { .. }, Outcome::Baseline) => Outcome::Dropped(Cause::Vanished),
        (moved @ Outcome::Moved { .. }, Outcome::Still { .. }) => *moved,
        (Outcome::Baseline | Outcome::Still { .. }, later) => *later,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Microjoules;

    fn reading(outcome: Outcome) -> Reading {
        Reading {
            domain: Domain::Package,
            scope: Scope::Machine,
            amount: Amount::Energy(outcome),
            provenance: Provenance::Measured,
        }
    }

    fn moved(energy: u64, elapsed: u64) -> Outcome {
        Outcome::Moved {
            energy: Microjoules::new(energy),
            elapsed: Nanos::new(elapsed),
            wrapped: false,
        }
    }

    /// Samples at 10, 20, ... ns.
    fn replay(outcomes: &[Outcome]) -> Replay {
        let samples = outcomes.iter().zip(1..).map(|(outcome, tens)| Sample {
            at: Nanos::new(10 * tens),
            readings: vec![reading(*outcome)],
            ..Sample::default()
        });
        Replay::new("test", samples)
    }

    fn at(nanos: u64) -> Moment {
        Moment {
            at: Nanos::new(nanos),
            resumed: false,
        }
    }

    #[test]
    fn at_the_recorded_moments_it_says_what_was_recorded_and_then_has_gone() {
        let outcomes = [Outcome::Baseline, moved(5, 10), moved(7, 10)];
        let mut replay = replay(&outcomes);
        for (outcome, tens) in outcomes.into_iter().zip(1..) {
            assert_eq!(replay.sample(at(10 * tens)).unwrap(), [reading(outcome)]);
        }
        assert!(matches!(replay.sample(at(40)), Err(Error::Gone { .. })));
    }

    #[test]
    fn asked_less_often_it_adds_up_and_loses_nothing() {
        let mut replay = replay(&[
            Outcome::Baseline,
            moved(5, 10),
            moved(7, 10),
            Outcome::Still {
                elapsed: Nanos::new(10),
            },
            moved(9, 20),
        ]);
        replay.sample(at(15)).unwrap();
        assert_eq!(replay.sample(at(35)).unwrap(), [reading(moved(12, 20))]);
        assert_eq!(replay.sample(at(36)).unwrap(), []);
        assert_eq!(replay.sample(at(99)).unwrap(), [reading(moved(9, 20))]);
    }

    #[test]
    fn a_difference_that_was_dropped_spoils_the_longer_interval() {
        let reset = Outcome::Dropped(Cause::Reset);
        for outcomes in [
            [moved(5, 10), reset],
            [reset, moved(5, 10)],
            [moved(5, 10), moved(u64::MAX, 1)],
            [moved(5, 10), Outcome::Baseline],
        ] {
            let told = replay(&outcomes).sample(at(20)).unwrap();
            let [reading] = told.as_slice() else {
                panic!("{told:?}")
            };
            assert_eq!(reading.energy(), None, "{outcomes:?}");
        }
    }
}
