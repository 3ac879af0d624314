//! The machine's own meters, read and never written: what there is ([`probe()`]), which one to trust
//! for what ([`select()`]), and one reader per kind of meter behind [`EnergySource`] ([`open()`]).

pub mod activity;
pub mod agreement;
pub mod battery;
pub mod clock;
pub mod counter;
#[cfg(test)]
mod fixture;
pub mod hwmon;
pub mod kernel_em;
pub mod open;
pub mod perf;
pub mod powercap;
pub mod probe;
pub mod record;
pub mod replay;
pub mod select;
pub mod source;

pub use agreement::Agreement;
pub use clock::{Clock, Moment};
pub use open::open;
pub use probe::{Facts, probe};
pub use select::{Selection, select};
pub use source::{Amount, Domain, EnergySource, Provenance, Reading, Scope};
