//! The project's machines and workloads, by name.

use crate::machine::Machine;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Relative to this crate.
const MACHINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/machines");
const WORKLOADS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/workloads");

/// The machine of this name, or of a machine file.
///
/// # Errors
/// When there is no such machine (the others are named), or its file is not right.
pub fn machine(name: &str) -> Result<Machine> {
    Ok(Machine::load(&file(
        name,
        Path::new(MACHINES),
        "toml",
        "machine",
    )?)?)
}

/// The file of the workload of this name, or of this path.
///
/// # Errors
/// When there is no such workload: the others are named.
pub fn workload(name: &str) -> Result<PathBuf> {
    file(name, Path::new(WORKLOADS), "json", "workload")
}

/// The workload that a file holds: the file's name without the ending.
pub fn workload_name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// Names of all machines, in ascending order.
///
/// # Errors
/// When they cannot be listed.
pub fn machines() -> Result<Vec<String>> {
    names(Path::new(MACHINES), "toml")
}

/// Names of all workloads, in ascending order.
///
/// # Errors
/// When they cannot be listed.
pub fn workloads() -> Result<Vec<String>> {
    names(Path::new(WORKLOADS), "json")
}

fn file(name: &str, directory: &Path, ending: &str, kind: &str) -> Result<PathBuf> {
    let given = Path::new(name);
    if given.components().count() > 1 || given.extension().is_some_and(|it| it == ending) {
        if given.is_file() {
            return Ok(given.to_owned());
        }
        bail!("{name}: no such file");
    }
    let path = directory.join(format!("{name}.{ending}"));
    if path.is_file() {
        return Ok(path);
    }
    bail!(
        "no {kind} is called '{name}': there are {}",
        names(directory, ending)?.join(", ")
    )
}

fn names(directory: &Path, ending: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry
            .with_context(|| directory.display().to_string())?
            .path();
        if path.extension().is_some_and(|it| it == ending) {
            names.extend(
                path.file_stem()
                    .map(|stem| stem.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_machines_of_the_project_can_be_loaded() {
        let names = machines().unwrap();
        assert!(!names.is_empty());
        for name in names {
            assert_eq!(machine(&name).unwrap().name, name);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = machine("toaster").unwrap_err().to_string();
        assert!(
            error.contains("'toaster'") && error.contains("phone-"),
            "{error}"
        );
    }
}
