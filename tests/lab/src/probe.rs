//! Whether a kernel's sched_ext works: a boot in which a trivial scheduler attaches and leaves.

use crate::cache::{self, Cache};
use crate::console;
use crate::guest::Guest;
use crate::kernel::Kernel;
use crate::process;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/probe/trivial.bpf.c");
const SCRIPT: &str = include_str!("../probe/probe.sh");

/// What the verdict on a kernel depends on besides the kernel.
pub fn key() -> Result<String> {
    let source = cache::read(Path::new(SOURCE))?;
    Ok(cache::hash([source.as_slice(), SCRIPT.as_bytes()]))
}

/// `None` when the kernel is fit for use, else why not.
///
/// # Errors
/// When the probe could not be carried through, which says nothing about the kernel.
pub fn verdict(cache: &Cache, kernel: &Kernel) -> Result<Option<String>> {
    let outcome = Guest::new(cache, kernel, &format!("probe-{}", kernel.release))
        .program("bpftool")
        .file(object(cache)?, "/lab/trivial.bpf.o")
        .script(SCRIPT)
        .run()?;
    if outcome.timed_out {
        bail!(
            "the probe of {} was not done in time; see {}",
            kernel.release,
            outcome.console_path.display()
        );
    }
    Ok(match (outcome.exit_code, outcome.alarms.first()) {
        (Some(0), None) => None,
        (_, Some(alarm)) => Some(alarm.clone()),
        (Some(_), None) => Some(process::tail(&console::without_kernel(&outcome.console), 1)),
        (None, None) => Some("the guest died".to_owned()),
    })
}

fn object(cache: &Cache) -> Result<PathBuf> {
    let directory = cache.directory("probe", &key()?, |directory| {
        let options = ["-target", "bpf", "-c"];
        process::compile(
            Path::new(SOURCE),
            &options,
            &directory.join("trivial.bpf.o"),
        )
    })?;
    Ok(directory.join("trivial.bpf.o"))
}
