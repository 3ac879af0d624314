//! Archives for the guest's root: bit-identical whenever their contents are.
//!
//! The format is cpio's newc (`Documentation/driver-api/early-userspace/buffer-format.rst`). Entries are sorted, times
//! are zero, everything belongs to root, inodes are counted: rebuilding an archive changes no bit, and so
//! no instruction that the guest executes.

use crate::{cache, process};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Mode bits of `stat`: a directory, a file, a symbolic link.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

/// What the guest finds at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    data: Vec<u8>,
}

/// A tree of files for the guest; paths are the guest's, with or without the leading slash.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file (and the directories above it), or replaces it.
    ///
    /// # Errors
    /// A path that is empty or climbs with `..`.
    pub fn file(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) -> Result<()> {
        self.insert(path, FILE | (mode & 0o7777), data.into())
    }

    /// Adds an empty directory (and those above it).
    ///
    /// # Errors
    /// As [`Archive::file`].
    pub fn directory(&mut self, path: &str) -> Result<()> {
        self.insert(path, DIRECTORY | 0o755, Vec::new())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Archive::file`].
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.insert(path, SYMLINK | 0o777, target.into())
    }

    /// Adds a copy of a file of the host, with its permissions.
    ///
    /// # Errors
    /// When it cannot be read, and as [`Archive::file`].
    pub fn host_file(&mut self, path: &str, host: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let metadata = std::fs::metadata(host).with_context(|| host.display().to_string())?;
        self.file(path, metadata.permissions().mode(), cache::read(host)?)
    }

    /// Adds a program of the host as `/bin/NAME`, and at their own paths the libraries that its loader needs.
    ///
    /// # Errors
    /// When the program is not there, or one of its libraries is not.
    pub fn program(&mut self, host: &Path) -> Result<()> {
        let Some(name) = host.file_name().and_then(|name| name.to_str()) else {
            bail!("{}: not a program", host.display());
        };
        self.host_file(&format!("bin/{name}"), host)?;
        for library in libraries(host)? {
            // a loader finds itself and its libraries by these very paths
            self.host_file(&library.to_string_lossy(), &library)?;
        }
        Ok(())
    }

    /// The archive's bytes; a multiple of 512.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let end = Entry {
            mode: 0,
            data: Vec::new(),
        };
        let entries = self
            .entries
            .iter()
            .map(|(path, entry)| (path.as_str(), entry));
        for (inode, (path, entry)) in entries.chain([("TRAILER!!!", &end)]).enumerate() {
            append(&mut bytes, inode + 1, path, entry);
        }
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn insert(&mut self, path: &str, mode: u32, data: Vec<u8>) -> Result<()> {
        let path = path.trim_matches('/');
        let mut parts = path.split('/');
        if parts.any(|part| part.is_empty() || part == "." || part == "..") {
            bail!("'{path}' is not a path in the guest such as /etc/file");
        }
        for (at, _) in path.match_indices('/') {
            let above = path.get(..at).unwrap_or_default();
            self.entries.entry(above.to_owned()).or_insert(Entry {
                mode: DIRECTORY | 0o755,
                data: Vec::new(),
            });
        }
        self.entries.insert(path.to_owned(), Entry { mode, data });
        Ok(())
    }
}

fn append(bytes: &mut Vec<u8>, inode: usize, path: &str, entry: &Entry) {
    let mode = usize::try_from(entry.mode).unwrap_or_default();
    // magic; then inode, mode, uid, gid, links, mtime, size, device and rdevice (major, minor), length of name, check
    let fields = [
        inode,
        mode,
        0,
        0,
        1,
        0,
        entry.data.len(),
        0,
        0,
        0,
        0,
        path.len() + 1,
        0,
    ];
    bytes.extend_from_slice(b"070701");
    for field in fields {
        bytes.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend_from_slice(&entry.data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// The loader and the libraries of a program; none for a static one or a script.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let magic = cache::read(program)?.starts_with(b"\x7fELF");
    if !magic {
        return Ok(Vec::new());
    }
    let text = match process::run(
        process::command("ldd").arg(program),
        Duration::from_secs(30),
    ) {
        Ok(text) => text,
        Err(error) if format!("{error:#}").contains("not a dynamic executable") => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    parse_ldd(&text).with_context(|| program.display().to_string())
}

/// Lines are `name => path (address)`, `path (address)`, `name (address)` for the vDSO, or `name => not found`.
fn parse_ldd(text: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in text.lines() {
        if line.contains("not found") {
            bail!("its library is missing on this host: {}", line.trim());
        }
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        libraries.extend(path.map(PathBuf::from));
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_adding_changes_no_bit() {
        let mut one = Archive::new();
        one.file("/etc/a", 0o644, "1").unwrap();
        one.symlink("bin/sh", "busybox").unwrap();
        let mut other = Archive::new();
        other.symlink("bin/sh", "busybox").unwrap();
        other.file("etc/a", 0o644, "1").unwrap();
        assert_eq!(one.to_bytes(), other.to_bytes());
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut archive = Archive::new();
        archive.file("a/b/c", 0o600, "").unwrap();
        let paths: Vec<_> = archive.entries.keys().collect();
        assert_eq!(paths, ["a", "a/b", "a/b/c"]);
    }

    #[test]
    fn cpio_reads_what_was_written() {
        let mut archive = Archive::new();
        archive.file("etc/odd", 0o755, "12345").unwrap();
        archive.file("etc/zero", 0o644, "").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.cpio");
        cache::write(&file, archive.to_bytes()).unwrap();
        let mut cpio = process::command("busybox");
        cpio.args(["cpio", "-idmF"]).arg(&file);
        cpio.current_dir(directory.path());
        process::run(&mut cpio, Duration::from_secs(10)).unwrap();
        let odd = std::fs::read_to_string(directory.path().join("etc/odd")).unwrap();
        assert_eq!(odd, "12345");
        assert!(directory.path().join("etc/zero").exists());
    }

    #[test]
    fn paths_that_leave_the_guest_are_refused() {
        for wrong in ["", "/", "../a", "a//b", "a/./b"] {
            assert!(Archive::new().file(wrong, 0o644, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_form_of_an_ldd_line_is_known() {
        let text =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        let paths = parse_ldd(text).unwrap();
        assert_eq!(
            paths,
            [Path::new("/lib/libc.so.6"), Path::new("/lib64/ld.so")]
        );
        assert!(parse_ldd("\tlibelf.so.1 => not found\n").is_err());
    }
}
