//! Cgroups for the threads of a workload: set up before a run, put back as they were after it.
//!
//! They lie below the cgroup of this process and are threaded, so that the threads of one process
//! can be spread over them (the kernel's Documentation/admin-guide/cgroup-v2.rst, "Threads").
//! Groups that are there already are used as they are, and stay. One run at a time can
//! have a cgroup to itself: two in the same one would undo each other's settings.

use crate::workload::Taskgroup;
use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::gettid;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Where the mounts are told, and the cgroup of this process.
const MOUNTS: &str = "/proc/self/mountinfo";
const CGROUP: &str = "/proc/self/cgroup";
/// What would be right where this process may not divide its cgroup.
const REMEDY: &str = "run as root, or in a cgroup of your own (systemd-run --scope -p Delegate=yes joule-load ...; --user too without root)";
/// A thread that has ended stays in its group for a moment; this is many of them.
const PATIENCE: Duration = Duration::from_secs(1);

/// The groups of a run. Dropping them puts everything back and says nothing of failures.
#[derive(Debug, Default)]
pub struct Taskgroups {
    /// The cgroup of this process.
    own: PathBuf,
    /// What was changed, in order.
    changes: Vec<Change>,
}

/// What has to be undone.
#[derive(Debug)]
enum Change {
    /// This group was created.
    Created(PathBuf),
    /// This file said something else: what it takes to have that again.
    Written(PathBuf, String),
}

impl Taskgroups {
    /// Sets up groups in the cgroup of this process, outer ones before those inside of them.
    /// No groups need no cgroups: nothing is looked at.
    ///
    /// # Errors
    /// When no cgroup2 file system is mounted, it has no cpu controller here, this process may
    /// not create groups, or a group is there already and takes no threads. Nothing is left changed.
    pub fn set_up(groups: &[Taskgroup]) -> Result<Self> {
        if groups.is_empty() {
            return Ok(Self::default());
        }
        Self::set_up_in(own_cgroup(&read(MOUNTS)?, &read(CGROUP)?)?, groups)
    }

    fn set_up_in(own: PathBuf, groups: &[Taskgroup]) -> Result<Self> {
        let controllers = own.join("cgroup.controllers");
        let offered = read(&controllers)?;
        if !offered.split_whitespace().any(|name| name == "cpu") {
            bail!(
                "{}: has no cpu controller, only '{}': start in a group that is given it (systemd-run --scope -p Delegate=yes joule-load ...), and unmount cgroup v1's",
                controllers.display(),
                offered.trim()
            );
        }
        let mut set_up = Self {
            own,
            changes: Vec::new(),
        };
        for group in groups {
            set_up.add(group)?;
        }
        Ok(set_up)
    }

    fn add(&mut self, group: &Taskgroup) -> Result<()> {
        let path = self.directory(&group.path);
        if let Some(parent) = path.parent() {
            self.offer_cpu_below(parent)?;
        }
        let created = match fs::create_dir(&path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("{}: cannot be created, {REMEDY}", path.display()));
            }
        };
        let kind = path.join("cgroup.type");
        if created {
            self.changes.push(Change::Created(path.clone()));
            write(&kind, "threaded")?;
        } else {
            let found = read(&kind)?;
            if found.trim() != "threaded" {
                bail!(
                    "{}: is '{}', must be 'threaded' to take single threads: remove the group or choose another name",
                    kind.display(),
                    found.trim()
                );
            }
        }
        if let Some(weight) = group.weight {
            let file = path.join("cpu.weight");
            if !created {
                let before = read(&file)?.trim().to_owned();
                self.changes.push(Change::Written(file.clone(), before));
            }
            write(&file, &weight.to_string())?;
        }
        Ok(())
    }

    /// Groups have weights where the group around them hands the cpu controller down.
    fn offer_cpu_below(&mut self, parent: &Path) -> Result<()> {
        let file = parent.join("cgroup.subtree_control");
        if !read(&file)?.split_whitespace().any(|name| name == "cpu") {
            write(&file, "+cpu")?;
            self.changes.push(Change::Written(file, "-cpu".to_owned()));
        }
        Ok(())
    }

    /// Moves the calling thread into a group.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn join(&self, group: &str) -> Result<()> {
        let file = self.directory(group).join("cgroup.threads");
        write(&file, &gettid().to_string())
    }

    /// Puts everything back as it was; no thread may be in the groups any more.
    ///
    /// # Errors
    /// The first failure; the rest is put back all the same.
    pub fn put_back(mut self) -> Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> Result<()> {
        let mut undone = Ok(());
        while let Some(change) = self.changes.pop() {
            undone = undone.and(match change {
                Change::Created(path) => remove(&path),
                Change::Written(file, before) => write(&file, &before),
            });
        }
        undone
    }

    fn directory(&self, group: &str) -> PathBuf {
        self.own.join(group.trim_start_matches('/'))
    }
}

impl Drop for Taskgroups {
    fn drop(&mut self) {
        // Only what went wrong before comes to this, and that is what will be reported.
        let _ = self.undo();
    }
}

fn read(file: impl AsRef<Path>) -> Result<String> {
    let file = file.as_ref();
    fs::read_to_string(file).with_context(|| format!("{}: cannot be read", file.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)
        .with_context(|| format!("{}: does not take '{text}', {REMEDY}", file.display()))
}

fn remove(group: &Path) -> Result<()> {
    let begun = Instant::now();
    loop {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && begun.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(1));
            }
            done => {
                return done.with_context(|| {
                    format!(
                        "{}: cannot be removed, do it with rmdir once nothing is in it",
                        group.display()
                    )
                });
            }
        }
    }
}

/// The directory of this process's cgroup.
///
/// `mounts` is /proc/self/mountinfo (proc_pid_mountinfo(5)), `cgroup` is /proc/self/cgroup
/// (cgroups(7)), where version 2 is hierarchy 0.
fn own_cgroup(mounts: &str, cgroup: &str) -> Result<PathBuf> {
    let mounted: Vec<_> = mounts.lines().filter_map(cgroup2_mount).collect();
    if mounted.is_empty() {
        bail!("{MOUNTS}: no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup");
    }
    let own = cgroup
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .ok_or_else(|| anyhow!("{CGROUP}: has no line '0::', this process is in no cgroup2"))?;
    mounted
        .iter()
        .find_map(|(root, point)| Some(point.join(Path::new(own).strip_prefix(root).ok()?)))
        .ok_or_else(|| {
            anyhow!(
                "{CGROUP}: '{own}' is outside of every cgroup2 mount of {MOUNTS}: mount -t cgroup2 none /sys/fs/cgroup"
            )
        })
}

/// The group at the top of a mount and the mount point, if a line of mountinfo is about cgroup2.
fn cgroup2_mount(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (mount, file_system) = line.split_once(" - ")?;
    if file_system.split(' ').next()? != "cgroup2" {
        return None;
    }
    let mut words = mount.split(' ').skip(3).map(unescaped);
    Some((words.next()?, words.next()?))
}

/// A path as mountinfo writes it, where a backslash and three octal digits stand for a blank and its like.
fn unescaped(word: &str) -> PathBuf {
    let mut parts = word.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escape = part
            .split_at_checked(3)
            .and_then(|(digits, rest)| Some((u8::from_str_radix(digits, 8).ok()?, rest)));
        match escape {
            Some((byte, rest)) => {
                path.push(char::from(byte));
                path.push_str(rest);
            }
            None => {
                path.push('\\');
                path.push_str(part);
            }
        }
    }
    PathBuf::from(path)
}

#[cfg(test)]
mod tests;
