//! Everything that runs in virtual machines. One program, so that no virtual CPU is idle while another program's last
//! guest ends.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // of tests and their helpers

mod accounting;
mod behaviours;
mod calibrate;
mod common;
mod comparison;
mod control_loop;
mod cost;
mod guest;
mod kernels;
mod machine;
mod oracle;
#[cfg(feature = "own-kernel")]
mod own_kernel;
mod scheduler;
mod stat;
mod storm;
