//! The library that makes the emulator's threads take turns: emulator/turns.c says why.

use crate::cache::{self, Cache};
use crate::process;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/emulator/turns.c");
const COMPILE_LIMIT: Duration = Duration::from_secs(120);

/// The library, compiled now if it is not in the cache.
///
/// # Errors
/// When it does not compile.
pub fn library(cache: &Cache) -> Result<PathBuf> {
    let key = cache::hash([cache::read(Path::new(SOURCE))?.as_slice()]);
    let directory = cache.directory("turns", &key, |directory| {
        let mut compile = process::clang()?;
        compile
            .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", SOURCE, "-o"])
            .arg(directory.join("turns.so"));
        process::run(&mut compile, COMPILE_LIMIT)
            .map(drop)
            .context("the library for the emulator does not compile")
    })?;
    Ok(directory.join("turns.so"))
}
