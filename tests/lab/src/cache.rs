//! The lab's cache: kernels, toolchains, booted templates. Nothing in it is precious, all of it is slow to make.
//!
//! A directory of the cache is filled under a temporary name and renamed when complete, so it is
//! either whole or absent, and a lock file keeps two processes from filling the same one.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Name of the file in a complete directory that holds the key it was filled for.
const STAMP: &str = ".complete";

/// How often a waiting process looks whether a guest's place has become free.
const PLACE_POLL: Duration = Duration::from_millis(100);

/// A directory whose parts can be made again.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$JOULE_CACHE`, else `$XDG_CACHE_HOME/scx_joule`, else `~/.cache/scx_joule`.
    ///
    /// # Errors
    /// When none of the three variables is set, or the directory cannot be made.
    pub fn open() -> Result<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = if let Some(root) = variable("JOULE_CACHE") {
            PathBuf::from(root)
        } else if let Some(caches) = variable("XDG_CACHE_HOME") {
            PathBuf::from(caches).join("scx_joule")
        } else if let Some(home) = variable("HOME") {
            PathBuf::from(home).join(".cache/scx_joule")
        } else {
            bail!("no place for the cache: set JOULE_CACHE to a directory with 5 GB free");
        };
        Self::at(root)
    }

    /// A cache in this directory, which is made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root).with_context(|| {
            format!(
                "{}: cannot make the cache; set JOULE_CACHE to a directory with 5 GB free",
                root.display()
            )
        })?;
        let root = root
            .canonicalize()
            .with_context(|| root.display().to_string())?;
        Ok(Self { root })
    }

    /// Absolute path of something in the cache.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// A directory that `fill` has filled for `key`; filled anew when it was for another key.
    ///
    /// # Errors
    /// Those of `fill`, and of the file system.
    pub fn directory(
        &self,
        name: &str,
        key: &str,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.path(name);
        if is_complete(&path, key) {
            mark_used(&path);
            return Ok(path);
        }
        let _lock = self.lock(name)?;
        if is_complete(&path, key) {
            return Ok(path);
        }
        // the lock is ours, so whatever bears the temporary name was left by a process that died
        let temporary = self.path(format!("{name}.filling"));
        remove(&temporary)?;
        fs::create_dir_all(&temporary).with_context(|| temporary.display().to_string())?;
        fill(&temporary)?;
        write(&temporary.join(STAMP), key)?;
        remove(&path)?;
        fs::rename(&temporary, &path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Whether [`Cache::directory`] would answer at once.
    pub fn has_directory(&self, name: &str, key: &str) -> bool {
        is_complete(&self.path(name), key)
    }

    /// Removes the directories below `name` that [`Cache::directory`] has not answered with for so long.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn forget_unused(&self, name: &str, age: Duration) -> Result<()> {
        let Ok(listing) = fs::read_dir(self.path(name)) else {
            return Ok(());
        };
        for entry in listing.flatten() {
            let stamp = entry.path().join(STAMP);
            let used = stamp.metadata().and_then(|metadata| metadata.modified());
            if used.is_ok_and(|used| used.elapsed().is_ok_and(|unused| unused >= age)) {
                let _lock =
                    self.lock(&format!("{name}/{}", entry.file_name().to_string_lossy()))?;
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Waits for the lock of this name; it is free again when the answer is dropped.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn lock(&self, name: &str) -> Result<File> {
        let file = self.lock_file(name)?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                eprintln!("lab: another process is preparing {name}; waiting for it");
            }
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock"),
        }
        file.lock().with_context(|| format!("cannot lock {name}"))?;
        Ok(file)
    }

    /// Waits until fewer guests run, over all processes that use this cache, than the host has CPUs:
    /// an emulated machine keeps one busy. The place is free again when the answer is dropped.
    ///
    /// # Errors
    /// When a lock file cannot be made.
    pub fn guest_place(&self) -> Result<File> {
        let places = std::thread::available_parallelism().map_or(1, usize::from);
        let files = (0..places)
            .map(|place| self.lock_file(&format!("guest-{place}")))
            .collect::<Result<Vec<_>>>()?;
        loop {
            for file in &files {
                match file.try_lock() {
                    Ok(()) => return file.try_clone().context("cannot keep a guest's place"),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error).context("cannot lock"),
                }
            }
            std::thread::sleep(PLACE_POLL);
        }
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self
            .path("locks")
            .join(format!("{}.lock", name.replace('/', "_")));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| path.display().to_string())
    }
}

/// SHA-256 of some parts, as hexadecimal; where one part ends and the next begins matters.
pub fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Reads a whole file; the error names it.
///
/// # Errors
/// Those of the file system.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

/// Writes a whole file; the error names it.
///
/// # Errors
/// Those of the file system.
pub fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, contents).with_context(|| path.display().to_string())
}

fn is_complete(path: &Path, key: &str) -> bool {
    fs::read_to_string(path.join(STAMP)).is_ok_and(|stamp| stamp == key)
}

/// Sets the time that [`Cache::forget_unused`] looks at; in a cache that may only be read, it stays.
fn mark_used(path: &Path) {
    if let Ok(stamp) = File::options().append(true).open(path.join(STAMP)) {
        let _ = stamp.set_modified(SystemTime::now());
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        (directory, cache)
    }

    #[test]
    fn a_directory_is_filled_once_per_key() {
        let (_keep, cache) = cache();
        let fill = |text: &'static str| {
            move |path: &Path| {
                assert!(!path.join("new").exists(), "leftovers of the older key");
                write(&path.join("new"), text)
            }
        };
        for (key, filler, expected) in [("1", "a", "a"), ("1", "b", "a"), ("2", "c", "c")] {
            let path = cache.directory("d", key, fill(filler)).unwrap();
            assert_eq!(fs::read_to_string(path.join("new")).unwrap(), expected);
        }
    }

    #[test]
    fn what_failed_half_way_is_not_there() {
        let (_keep, cache) = cache();
        let failed = cache.directory("d", "1", |path| {
            write(&path.join("half"), "")?;
            bail!("no network")
        });
        assert!(failed.is_err());
        assert!(!cache.has_directory("d", "1"));
        let path = cache.directory("d", "1", |_| Ok(())).unwrap();
        assert!(!path.join("half").exists());
    }

    #[test]
    fn what_nobody_used_is_forgotten_and_the_rest_is_kept() {
        let (_keep, cache) = cache();
        let (old, new) = ("d/old", "d/new");
        for name in [old, new] {
            cache.directory(name, "1", |_| Ok(())).unwrap();
        }
        let long_ago = SystemTime::now() - Duration::from_secs(1000);
        let stamp = File::options()
            .append(true)
            .open(cache.path(old).join(STAMP))
            .unwrap();
        stamp.set_modified(long_ago).unwrap();
        cache.forget_unused("d", Duration::from_secs(500)).unwrap();
        assert!(!cache.has_directory(old, "1") && cache.has_directory(new, "1"));
        stamp_is_renewed_by_use(&cache, new, long_ago);
    }

    fn stamp_is_renewed_by_use(cache: &Cache, name: &str, long_ago: SystemTime) {
        let path = cache.path(name).join(STAMP);
        File::options()
            .append(true)
            .open(path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        cache.directory(name, "1", |_| Ok(())).unwrap();
        cache.forget_unused("d", Duration::from_secs(500)).unwrap();
        assert!(cache.has_directory(name, "1"));
    }

    #[test]
    fn two_threads_fill_a_directory_once() {
        let (_keep, cache) = cache();
        let fills = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    cache.directory("d", "1", |_| {
                        fills.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(50));
                        Ok(())
                    })
                });
            }
        });
        assert_eq!(fills.into_inner(), 1);
    }

    #[test]
    fn the_hash_knows_where_parts_end() {
        let parts = |parts: [&str; 2]| hash(parts.map(str::as_bytes));
        assert_ne!(parts(["ab", "c"]), parts(["a", "bc"]));
    }
}
