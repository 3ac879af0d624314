//! The library that makes the emulator's threads take turns: emulator/turns.c says why.

use crate::cache::{self, Cache};
use crate::process;
use anyhow::Result;
use std::path::{Path, PathBuf};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/emulator/turns.c");

/// The library, compiled now if it is not in the cache.
///
/// # Errors
/// When it does not compile.
pub fn library(cache: &Cache) -> Result<PathBuf> {
    let key = cache::hash([cache::read(Path::new(SOURCE))?.as_slice()]);
    let directory = cache.directory("turns", &key, |directory| {
        let options = ["-shared", "-fPIC"];
        process::compile(Path::new(SOURCE), &options, &directory.join("turns.so"))
    })?;
    Ok(directory.join("turns.so"))
}
