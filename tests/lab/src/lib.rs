//! The lab: boots real Debian kernels with sched_ext on an emulated machine whose energy is known.
//!
//! [`guest::Guest`] runs a script on a kernel and hands back its exit code, its results and its console;
//! [`kernel::Kernels`] finds and accepts the kernels, [`machine`] describes the virtual SoC they
//! run on, and [`scenario`] compares schedulers. Everything downloaded or built is kept in a [`cache::Cache`].

pub mod behaviour;
pub mod bench;
pub mod cache;
pub mod catalogue;
pub mod console;
pub mod cost;
pub mod debian;
mod emulator;
pub mod guest;
pub mod initramfs;
pub mod kernel;
pub mod learnt;
pub mod machine;
pub mod oracle;
mod parallel;
pub mod peers;
mod probe;
pub mod process;
mod qmp;
pub mod report;
pub mod scenario;
pub mod session;
pub mod soc_module;
pub mod source_kernel;
pub mod statistics;
mod template;
mod toolchain;
pub mod truth;
mod turns;
