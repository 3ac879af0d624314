//! Numbers as the grammar has them: whole and within stated bounds.

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use std::fmt;

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int<const MIN: i64, const MAX: i64>(pub i64);

impl<const MIN: i64, const MAX: i64> Int<MIN, MAX> {
    /// Its size without a sign; only for bounds from 0.
    pub fn size(self) -> u64 {
        self.0.unsigned_abs()
    }

    /// Its size as a count or index; only for bounds from 0.
    pub fn count(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Int<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded<const MIN: i64, const MAX: i64>;
        impl<const MIN: i64, const MAX: i64> Visitor<'_> for Bounded<MIN, MAX> {
            type Value = Int<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
                if (MIN..=MAX).contains(&value) {
                    Ok(Int(value))
                } else {
                    Err(E::invalid_value(Unexpected::Signed(value), &self))
                }
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
                match i64::try_from(value) {
                    Ok(value) => self.visit_i64(value),
                    Err(_) => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
                }
            }
        }
        deserializer.deserialize_i64(Bounded::<MIN, MAX>)
    }
}

/// A share of the biggest CPU: above 0 and at most 100 percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadPct(f64);

impl LoadPct {
    /// This share of a period.
    pub fn of_ns(self, period_ns: u64) -> u64 {
        let part = std::time::Duration::from_nanos(period_ns).mul_f64(self.0 / 100.0);
        u64::try_from(part.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl<'de> Deserialize<'de> for LoadPct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        if value > 0.0 && value <= 100.0 {
            Ok(Self(value))
        } else {
            Err(D::Error::invalid_value(
                Unexpected::Float(value),
                &"a percentage above 0, at most 100",
            ))
        }
    }
}

/// `global.calibration`: a CPU by name, or rt-app's ns per loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalibrationField {
    /// `"CPU3"`: calibrate on this CPU.
    Cpu(usize),
    /// A number: the cost of rt-app's loop, which says nothing about ours.
    ForRtApp,
}

impl<'de> Deserialize<'de> for CalibrationField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        const RIGHT: &str = "a CPU such as \"CPU0\", or rt-app's ns per loop";
        impl Visitor<'_> for Either {
            type Value = CalibrationField;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(RIGHT)
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
                Ok(CalibrationField::ForRtApp)
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
                let number = value
                    .strip_prefix("CPU")
                    .and_then(|digits| digits.parse().ok());
                number
                    .map(CalibrationField::Cpu)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(value), &self))
            }
        }
        deserializer.deserialize_any(Either)
    }
}
