//! A machine made of files: what the tests hand in instead of `/sys` and `/proc`.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of this module"
)]

use scx_joule::sysroot::SysRoot;
use scx_joule::topology::{MAX_GROUP, Topology};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// A temporary directory that holds some `sys/` and `proc/` files; gone when dropped.
pub struct FakeSys {
    dir: tempfile::TempDir,
}

impl FakeSys {
    /// A machine that shows nothing.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    /// The machine that `tests/fixtures/<name>.machine` describes.
    pub fn fixture(name: &str) -> Self {
        Self::empty().and(name)
    }

    /// Adds what `tests/fixtures/<name>.machine` describes.
    pub fn and(self, name: &str) -> Self {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.machine"));
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.with(&text)
    }

    /// Adds what the lines of `text` say; see tests/fixtures/README.md for the notation.
    pub fn with(self, text: &str) -> Self {
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (path, content, link) = match (line.split_once(" = "), line.split_once(" -> ")) {
                (Some((path, value)), _) => (path, value, false),
                (None, Some((path, target))) => (path, target, true),
                (None, None) => (line.trim_end_matches(" ="), "", false),
            };
            for (path, content) in expand(path.trim(), content.trim()) {
                match link {
                    true => self.link(&path, &content),
                    false => self.write(&path, &format!("{content}\n")),
                }
            }
        }
        self
    }

    /// One file; replaces what was there.
    pub fn set(self, path: &str, value: impl Display) -> Self {
        self.write(path, &format!("{value}\n"));
        self
    }

    /// One file of raw bytes.
    pub fn bytes(self, path: &str, content: &[u8]) -> Self {
        std::fs::write(self.place(path), content).unwrap();
        self
    }

    /// Takes away a file or a directory.
    pub fn without(self, path: &str) -> Self {
        let path = self.dir.path().join(path);
        match path.is_dir() {
            true => std::fs::remove_dir_all(path).unwrap(),
            false => std::fs::remove_file(path).unwrap(),
        }
        self
    }

    /// Where to read it.
    pub fn root(&self) -> SysRoot {
        SysRoot::at(self.dir.path())
    }

    fn place(&self, path: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, path: &str, content: &str) {
        std::fs::write(self.place(path), content).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.place(path)).unwrap();
    }
}

/// `cpu[0-2]/x` with content `{}` → `cpu0/x` with `0`, `cpu1/x` with `1`, `cpu2/x` with `2`.
fn expand(path: &str, content: &str) -> Vec<(String, String)> {
    let Some((before, rest)) = path.split_once('[') else {
        return vec![(path.to_owned(), content.to_owned())];
    };
    let (range, after) = rest.split_once(']').unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    (first..=last)
        .map(|n| {
            (
                format!("{before}{n}{after}"),
                content.replace("{}", &n.to_string()),
            )
        })
        .collect()
}

/// The shared collection of dumps of real machines, where this run has one (`JOULE_SHARED`).
pub fn shared_fixtures() -> Option<PathBuf> {
    let shared = std::env::var_os("JOULE_SHARED")?;
    Some(PathBuf::from(shared).join("hardware/fixtures"))
}

/// Unpacks `archive` and returns the directory and the machine below it.
pub fn unpack(archive: &Path) -> (tempfile::TempDir, SysRoot) {
    let dir = tempfile::tempdir().unwrap();
    let done = std::process::Command::new("tar")
        .args([
            Path::new("--no-same-owner"),
            Path::new("-C"),
            dir.path(),
            Path::new("-xf"),
            archive,
        ])
        .status()
        .unwrap();
    assert!(done.success(), "tar cannot unpack {}", archive.display());
    let top = std::fs::read_dir(dir.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    (dir, SysRoot::at(top))
}

/// What holds on every machine: each online CPU is in exactly one set of each relation, and its maps
/// lead there.
pub fn assert_consistent(topology: &Topology) {
    let online: Vec<usize> = topology.cpus.iter().map(|cpu| cpu.facts.id).collect();
    let covers = |sets: Vec<&Vec<usize>>| {
        let mut all: Vec<usize> = sets.into_iter().flatten().copied().collect();
        all.sort_unstable();
        all == online
    };
    assert!(covers(
        topology.classes.iter().map(|class| &class.cpus).collect()
    ));
    assert!(covers(
        topology.domains.iter().map(|domain| &domain.cpus).collect()
    ));
    assert!(covers(
        topology.groups.iter().map(|group| &group.cpus).collect()
    ));
    for cpu in &topology.cpus {
        let id = cpu.facts.id;
        assert!(topology.classes[cpu.class].cpus.contains(&id));
        assert!(topology.domains[cpu.domain].cpus.contains(&id));
        assert!(topology.groups[cpu.group].cpus.contains(&id));
        assert_eq!(topology.groups[cpu.group].class, cpu.class);
        assert!(cpu.facts.siblings.contains(&id) && cpu.facts.llc.contains(&id));
        assert!(topology.possible.contains(&id));
    }
    assert!(
        topology
            .groups
            .iter()
            .all(|group| group.cpus.len() <= MAX_GROUP)
    );
}
