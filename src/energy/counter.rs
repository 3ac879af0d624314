//! Counter arithmetic: what two values of an energy counter say about the energy in between.
//!
//! The rule throughout: a difference is given only when exactly one explanation of the two values is
//! physically possible. Everything else is dropped under its own name and counted, so that a fault
//! shows up as missing data and never as a negative, absurd or silently zero energy.

use super::clock::Moment;
use crate::units::{Microjoules, Microwatts, Nanos};
use serde::{Deserialize, Serialize};

/// What is physically possible for one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest value shown before the counter starts again at 0 (powercap's
    /// `max_energy_range_uj`); `None` when unknown, and then no wrap is ever bridged.
    pub range: Option<Microjoules>,
    /// More power than this is a fault of the counter.
    pub max_power: Microwatts,
    /// The longest time between two updates of the counter by its hardware or firmware.
    pub refresh: Nanos,
    /// How long the counter may stand still before it counts as frozen; `None` where standing still
    /// is a true zero.
    pub frozen_after: Option<Nanos>,
}

impl Limits {
    /// The most energy that can flow within `elapsed`, in µJ, rounded up. Includes one refresh period,
    /// since the earlier value may have been that old.
    fn most_within(&self, elapsed: Nanos) -> u128 {
        let time_ns = u128::from(elapsed.get()) + u128::from(self.refresh.get());
        (u128::from(self.max_power.get()) * time_ns).div_ceil(NS_PER_S)
    }

    /// Number of values the counter can show, in µJ.
    fn modulus(&self) -> Option<u128> {
        self.range.map(|range| u128::from(range.get()) + 1)
    }

    /// The longest time between two samples at which a difference has only one explanation at any
    /// power up to [`Limits::max_power`]. `None` when the range is unknown or nothing can flow.
    pub fn longest_safe_period(&self) -> Option<Nanos> {
        let most = self.modulus()? - 1;
        let time_ns = (most * NS_PER_S).checked_div(u128::from(self.max_power.get()))?;
        let period_ns = time_ns.saturating_sub(u128::from(self.refresh.get()));
        Some(Nanos::new(u64::try_from(period_ns).unwrap_or(u64::MAX)))
    }
}

const NS_PER_S: u128 = 1_000_000_000;

/// What one more value of a counter tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The first value, or the first after the counter was gone: nothing to compare with.
    Baseline,
    /// A sound difference.
    Moved {
        /// Energy since the value it is compared with.
        energy: Microjoules,
        /// Time since then.
        elapsed: Nanos,
        /// Whether the counter started again at 0 in between.
        wrapped: bool,
    },
    /// No movement yet, too early to judge. The next difference covers this time too.
    Still {
        /// Time since the value last moved.
        elapsed: Nanos,
    },
    /// The difference cannot be trusted. The next one starts from this value.
    Dropped(Cause),
}

/// Why a difference was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The machine slept in between.
    Suspended,
    /// The counter is not there.
    Vanished,
    /// It started again from 0, and not by a wrap.
    Reset,
    /// It stepped back by an amount that is neither a wrap nor a reset.
    Backwards {
        /// Size of the step back.
        by: Microjoules,
    },
    /// It fell, and without a known range nobody can say whether that was a wrap.
    RangeUnknown,
    /// The first difference after a step back or a freeze, where the fault's repair cannot be told
    /// from energy.
    Unsettled,
    /// More energy than can flow in that time.
    Jump {
        /// The energy it claimed.
        claimed: Microjoules,
    },
    /// Sampled so late that the counter may have wrapped more often than seen.
    TooLate {
        /// Time since the previous value.
        elapsed: Nanos,
    },
    /// A value above the counter's own range.
    OutOfRange,
    /// No movement over a time in which power must have flowed.
    Frozen {
        /// Time without movement.
        elapsed: Nanos,
    },
    /// The caller's clock went backwards.
    ClockBackwards,
}

/// How often each thing happened to a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Sound differences.
    pub moved: u64,
    /// Those of them with a wrap.
    pub wrapped: u64,
    /// [`Cause::Suspended`].
    pub suspended: u64,
    /// [`Cause::Vanished`].
    pub vanished: u64,
    /// [`Cause::Reset`].
    pub reset: u64,
    /// [`Cause::Backwards`].
    pub backwards: u64,
    /// [`Cause::RangeUnknown`].
    pub range_unknown: u64,
    /// [`Cause::Unsettled`].
    pub unsettled: u64,
    /// [`Cause::Jump`].
    pub jump: u64,
    /// [`Cause::TooLate`].
    pub too_late: u64,
    /// [`Cause::OutOfRange`].
    pub out_of_range: u64,
    /// [`Cause::Frozen`].
    pub frozen: u64,
    /// [`Cause::ClockBackwards`].
    pub clock_backwards: u64,
}

impl Tally {
    fn count(&mut self, outcome: &Outcome) {
        let count = match outcome {
            Outcome::Baseline | Outcome::Still { .. } => return,
            Outcome::Moved { wrapped, .. } => {
                self.wrapped += u64::from(*wrapped);
                &mut self.moved
            }
            Outcome::Dropped(cause) => match cause {
                Cause::Suspended => &mut self.suspended,
                Cause::Vanished => &mut self.vanished,
                Cause::Reset => &mut self.reset,
                Cause::Backwards { .. } => &mut self.backwards,
                Cause::RangeUnknown => &mut self.range_unknown,
                Cause::Unsettled => &mut self.unsettled,
                Cause::Jump { .. } => &mut self.jump,
                Cause::TooLate { .. } => &mut self.too_late,
                Cause::OutOfRange => &mut self.out_of_range,
                Cause::Frozen { .. } => &mut self.frozen,
                Cause::ClockBackwards => &mut self.clock_backwards,
            },
        };
        *count += 1;
    }
}

/// Why the next difference is not believed at once.
#[derive(Clone, Copy, Debug)]
enum Doubt {
    /// The counter fell from this value; climbing past it may be the end of a glitch.
    FellFrom(u64),
    /// The counter stood still for too long.
    Frozen,
}

/// The value that the next one is compared with.
#[derive(Clone, Copy, Debug)]
struct Mark {
    value_uj: u64,
    at: Nanos,
    doubt: Option<Doubt>,
}

/// One energy counter over time.
#[derive(Clone, Debug)]
pub struct Counter {
    limits: Limits,
    mark: Option<Mark>,
    tally: Tally,
}

impl Counter {
    /// A counter that has not been read yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            mark: None,
            tally: Tally::default(),
        }
    }

    /// What is possible for this counter.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How often each thing has happened.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Takes the counter's next value (`None`: it is not there) and says what it tells.
    pub fn observe(&mut self, value: Option<Microjoules>, now: Moment) -> Outcome {
        let outcome = self.judge(value, now);
        self.tally.count(&outcome);
        outcome
    }

    fn judge(&mut self, value: Option<Microjoules>, now: Moment) -> Outcome {
        let before = self.mark.take();
        let Some(value) = value else {
            return Outcome::Dropped(Cause::Vanished);
        };
        if self.limits.range.is_some_and(|range| value > range) {
            return Outcome::Dropped(Cause::OutOfRange);
        }
        let here = Mark {
            value_uj: value.get(),
            at: now.at,
            doubt: None,
        };
        self.mark = Some(here);
        let Some(before) = before else {
            return Outcome::Baseline;
        };
        if now.resumed {
            return Outcome::Dropped(Cause::Suspended);
        }
        let Some(elapsed) = now.at.checked_sub(before.at) else {
            return Outcome::Dropped(Cause::ClockBackwards);
        };
        if elapsed == Nanos::new(0) {
            self.mark = Some(before);
            return Outcome::Still { elapsed };
        }
        if here.value_uj == before.value_uj {
            return self.stand_still(before, here, elapsed);
        }
        let outcome = self.difference(before.value_uj, here.value_uj, elapsed);
        match (outcome, before.doubt) {
            (
                Outcome::Dropped(Cause::Reset | Cause::Backwards { .. } | Cause::RangeUnknown),
                doubt,
            ) => {
                let peak_uj = match doubt {
                    Some(Doubt::FellFrom(peak_uj)) => peak_uj.max(before.value_uj),
                    _ => before.value_uj,
                };
                self.mark = Some(Mark {
                    doubt: Some(Doubt::FellFrom(peak_uj)),
                    ..here
                });
                outcome
            }
            (Outcome::Moved { .. }, Some(Doubt::Frozen)) => Outcome::Dropped(Cause::Unsettled),
            (Outcome::Moved { .. }, Some(Doubt::FellFrom(peak_uj))) if here.value_uj >= peak_uj => {
                Outcome::Dropped(Cause::Unsettled)
            }
            _ => outcome,
        }
    }

    fn stand_still(&mut self, before: Mark, here: Mark, elapsed: Nanos) -> Outcome {
        let most = self.limits.most_within(elapsed);
        match self.limits.frozen_after {
            // A whole turn looks like standing still.
            None if self.limits.modulus().is_some_and(|turn| turn <= most) => {
                Outcome::Dropped(Cause::TooLate { elapsed })
            }
            None => {
                self.mark = Some(here);
                Outcome::Moved {
                    energy: Microjoules::new(0),
                    elapsed,
                    wrapped: false,
                }
            }
            Some(limit) if elapsed < limit => {
                self.mark = Some(before);
                Outcome::Still { elapsed }
            }
            Some(_) => {
                self.mark = Some(Mark {
                    doubt: before.doubt.or(Some(Doubt::Frozen)),
                    ..before
                });
                Outcome::Dropped(Cause::Frozen { elapsed })
            }
        }
    }

    /// Explains the step between two different values.
    fn difference(&self, before_uj: u64, here_uj: u64, elapsed: Nanos) -> Outcome {
        let most = self.limits.most_within(elapsed);
        let fell_by = before_uj.checked_sub(here_uj);
        let step = match (fell_by, self.limits.modulus()) {
            (None, _) => u128::from(here_uj) - u128::from(before_uj),
            (Some(fell_by), Some(modulus)) => modulus - u128::from(fell_by),
            (Some(_), None) => return Outcome::Dropped(Cause::RangeUnknown),
        };
        let one_more_turn = self.limits.modulus().map(|modulus| step + modulus);
        let energy = Microjoules::new(u64::try_from(step).unwrap_or(u64::MAX));
        match fell_by {
            _ if one_more_turn.is_some_and(|energy| energy <= most) => {
                Outcome::Dropped(Cause::TooLate { elapsed })
            }
            _ if step <= most => Outcome::Moved {
                energy,
                elapsed,
                wrapped: fell_by.is_some(),
            },
            None => Outcome::Dropped(Cause::Jump { claimed: energy }),
            Some(_) if u128::from(here_uj) <= most => Outcome::Dropped(Cause::Reset),
            Some(by) => Outcome::Dropped(Cause::Backwards {
                by: Microjoules::new(by),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
