//! scx_joule: a CPU scheduler that knows what work costs in joules.
//!
//! Data flows one way: counters → `Observation` → `PowerModel` → `CostTable` → BPF maps.
//! ARCHITECTURE.md in the repository shows the rooms and who may enter which.

mod bpf_skel;
pub mod calibrate;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod energy;
pub mod error;
pub mod intf;
pub mod knobs;
pub mod model;
pub mod observation;
pub mod observe;
pub mod profile;
pub mod sched;
pub mod stats;
pub mod store;
pub mod sysroot;
pub mod topology;
pub mod units;
