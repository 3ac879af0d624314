//! The lab's commands, one file each.

pub mod bench;
pub mod boot;
pub mod cost;
pub mod kernels;
pub mod lisa;
pub mod run;

use anyhow::{Result, bail};
use lab::cache::Cache;
use lab::kernel::{Kernel, Kernels};
use std::path::{Path, PathBuf};

/// What the lab itself answers when it could not do what was asked, as `timeout` and `env` do.
pub const LAB_FAILED: u8 = 125;

/// What a scheduler that is a program learns from before it is measured: the workload of that name.
const SETTLE: &str = "mixed-interactive";

/// The kernel of this name, or the default one.
fn kernel(cache: &Cache, name: Option<&str>) -> Result<Kernel> {
    let kernels = Kernels::new(cache);
    name.map_or_else(|| kernels.default(), |name| kernels.get(name))
}

/// A program that should have been built.
fn built(program: &Path) -> Result<PathBuf> {
    if program.is_file() {
        return Ok(program.to_owned());
    }
    bail!(
        "{}: not there; build it (cargo build --release), or say where it is",
        program.display()
    )
}
