//! The time that samples are stamped with.

pub use crate::energy::Clock;
