//! scx_joule: a CPU scheduler that knows what work costs in joules.
//!
//! Data flows one way: counters → `Observation` → `PowerModel` → `CostTable` → BPF maps.
//! ARCHITECTURE.md in the repository shows the rooms and who may enter which.

pub mod error;
pub mod sysroot;
pub mod topology;
pub mod units;
