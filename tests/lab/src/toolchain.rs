//! Trees of Debian's packages in which kernels and their modules are built.
//!
//! They are unpacked and entered by `unshare` and `chroot`; no root is needed where the host allows user namespaces.

use crate::cache::Cache;
use crate::debian::{Apt, Suite};
use crate::process::{command, run};
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// The tree of these packages and of the compiler's, all of one suite; `ending` tells trees with the same compiler
/// apart.
///
/// # Errors
/// When packages cannot be had.
pub fn tree(
    cache: &Cache,
    apt: &Apt<'_>,
    suite: Suite,
    tools: &[&str],
    compiler: &str,
    ending: &str,
) -> Result<PathBuf> {
    let packages = [tools, &[compiler]].concat();
    let name = format!("toolchains/{}-{compiler}{ending}", suite.name());
    cache.directory(&name, &packages.join(" "), |root| {
        eprintln!("lab: fetching {compiler} of {}", suite.name());
        apt.unpack_closure(suite, &packages, root)?;
        // what maintainer scripts would have done
        for (link, target) in [("awk", "mawk"), ("sh", "dash")] {
            let path = root.join("usr/bin").join(link);
            if fs::symlink_metadata(&path).is_err() {
                std::os::unix::fs::symlink(target, &path)
                    .with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    })
}

/// Runs a shell script that may mount and enter a tree, with these arguments from $1 on; one at a time.
///
/// # Errors
/// When it fails or takes longer than `limit`: with the end of what it said.
pub fn enter(cache: &Cache, script: &str, arguments: &[&OsStr], limit: Duration) -> Result<()> {
    let _one_at_a_time = cache.lock("building")?;
    let mut shell = command("unshare");
    if !rustix::process::geteuid().is_root() {
        shell.arg("--map-root-user");
    }
    shell.args(["--mount", "sh", "-c", script, "sh"]);
    run(shell.args(arguments), limit).map(drop)
}

/// How many jobs `make` may run.
pub fn jobs() -> String {
    std::thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string()
}
