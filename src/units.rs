//! Physical quantities as types, so that a millijoule is never added to a microwatt.
//!
//! Arithmetic that can leave the range is checked and returns `None`; nothing wraps or saturates silently.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident, $suffix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw count of this unit.
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The raw count of this unit.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Sum, or `None` on overflow.
            pub const fn checked_add(self, other: Self) -> Option<Self> {
                match self.0.checked_add(other.0) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// Difference, or `None` when `other` is the larger.
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) {
                    Some(difference) => Some(Self(difference)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{} ", $suffix), self.0)
            }
        }
    };
}

quantity!(
    /// Energy in millionths of a joule.
    Microjoules, "µJ"
);
quantity!(
    /// Power in millionths of a watt.
    Microwatts, "µW"
);
quantity!(
    /// Time in nanoseconds.
    Nanos, "ns"
);
quantity!(
    /// Clock frequency in kilohertz, as cpufreq prints it.
    KHz, "kHz"
);

/// Compute capacity on the kernel's scale: 1024 is the biggest CPU of the machine at its highest
/// frequency (`SCHED_CAPACITY_SCALE`, include/linux/sched/cpufreq.h). Range 0..=1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Capacity(u16);

impl Capacity {
    /// The biggest CPU at its highest frequency.
    pub const MAX: Self = Self(1024);

    /// `None` when `raw` is above 1024.
    pub fn new(raw: u64) -> Option<Self> {
        let raw = u16::try_from(raw).ok()?;
        (raw <= Self::MAX.0).then_some(Self(raw))
    }

    /// The capacity as a plain number, 0..=1024.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for Capacity {
    type Error = String;

    fn try_from(raw: u64) -> Result<Self, String> {
        Self::new(raw).ok_or_else(|| format!("capacity {raw} is not within 0..=1024"))
    }
}

impl std::str::FromStr for Capacity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let raw: u64 = text.parse().map_err(|_| format!("'{text}' is no number"))?;
        raw.try_into()
    }
}

impl From<Capacity> for u64 {
    fn from(capacity: Capacity) -> Self {
        Self::from(capacity.0)
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_stops_at_1024() {
        assert_eq!(Capacity::new(1024), Some(Capacity::MAX));
        assert_eq!(Capacity::new(1025), None);
        assert_eq!(Capacity::new(u64::MAX), None);
    }

    #[test]
    fn sums_and_differences_that_leave_the_range_are_none() {
        let (small, big) = (Microjoules::new(1), Microjoules::new(u64::MAX));
        assert_eq!(big.checked_add(small), None);
        assert_eq!(small.checked_sub(big), None);
        assert_eq!(big.checked_sub(small), Some(Microjoules::new(u64::MAX - 1)));
    }
}
