//! Debian packages without touching the system: a private apt, and unpacking with `dpkg-deb -x`.
//!
//! Signatures and checksums are apt's business; it is told to trust Debian's archive keyring and
//! nothing else. Downloaded packages are kept, because backports drop their old versions.

use crate::cache::{self, Cache};
use crate::process::{command, run};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Debian's own keys, from the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where packages come from unless `$JOULE_DEBIAN_MIRROR` says otherwise.
const MIRROR: &str = "http://deb.debian.org/debian";
/// Time limits: the network may be slow, a package is at most 100 MB.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(1200);
const QUERY_LIMIT: Duration = Duration::from_secs(120);
const UNPACK_LIMIT: Duration = Duration::from_secs(300);

/// A Debian release from which packages are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Stable, Debian 13; its backports hold newer kernels built with its tools.
    Trixie,
    /// Unstable.
    Sid,
}

impl Suite {
    /// As apt and the archive call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Sid => "sid",
        }
    }
}

/// A private apt with the indices of trixie, trixie-backports and sid.
#[derive(Debug)]
pub struct Apt<'a> {
    cache: &'a Cache,
}

impl<'a> Apt<'a> {
    /// Writes the configuration; the indices are those of the last [`Apt::update`], if any.
    ///
    /// # Errors
    /// When this host lacks apt or Debian's keys, or the cache cannot be written.
    pub fn new(cache: &'a Cache) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: run packaging/debian-deps.sh lab");
        }
        let apt = Self { cache };
        for directory in ["lists/partial", "archives/partial", "etc/none"] {
            let path = apt.path(directory);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        let mirror = std::env::var("JOULE_DEBIAN_MIRROR").unwrap_or_else(|_| MIRROR.to_owned());
        let sources: String = ["trixie", "trixie-backports", "sid"]
            .iter()
            .map(|suite| format!("deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n"))
            .collect();
        cache::write(&apt.path("etc/sources.list"), sources)?;
        // no package is installed as far as this apt knows
        cache::write(&apt.path("status"), "")?;
        cache::write(&apt.path("apt.conf"), apt.configuration())?;
        Ok(apt)
    }

    /// Fetches the indices.
    ///
    /// # Errors
    /// When an index cannot be had.
    pub fn update(&self) -> Result<()> {
        let _lock = self.cache.lock("apt")?;
        eprintln!("lab: fetching Debian's package index");
        let mut update = self.tool("apt-get");
        run(update.args(["update", "--error-on=any"]), DOWNLOAD_LIMIT)
            .map(drop)
            .context("Debian's package index cannot be had: is the network up?")
    }

    /// Fetches the indices unless some are there, of whatever age.
    ///
    /// # Errors
    /// As [`Apt::update`].
    pub fn ensure_index(&self) -> Result<()> {
        if self.has_index() {
            return Ok(());
        }
        self.update()
    }

    /// Whether [`Apt::update`] ever succeeded.
    pub fn has_index(&self) -> bool {
        fs::read_dir(self.path("lists")).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_file()))
        })
    }

    /// Names of the packages that match a regular expression.
    ///
    /// # Errors
    /// When apt cannot read its index.
    pub fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let mut search = self.tool("apt-cache");
        let text = run(
            search.args(["search", "--names-only", pattern]),
            QUERY_LIMIT,
        )?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect())
    }

    /// The package's file: one that was downloaded before, of whatever version, else the newest in the index.
    ///
    /// # Errors
    /// When it is neither kept nor to be had.
    pub fn package(&self, name: &str) -> Result<PathBuf> {
        if let Some(path) = self.kept(name) {
            return Ok(path);
        }
        let had_index = self.has_index();
        self.ensure_index()?;
        let first = self.download(name);
        if first.is_ok() || !had_index {
            return first;
        }
        // an old index names versions that the archive has dropped since
        self.update()?;
        self.download(name)
    }

    fn download(&self, name: &str) -> Result<PathBuf> {
        let _lock = self.cache.lock("debs")?;
        let kept = self.cache.path("debs");
        // apt writes in place, so a download that is cut short must not look like a package
        let arriving = kept.join("arriving");
        fs::create_dir_all(&arriving).with_context(|| arriving.display().to_string())?;
        let mut download = self.tool("apt-get");
        download.args(["download", name]).current_dir(&arriving);
        run(&mut download, DOWNLOAD_LIMIT)
            .with_context(|| format!("the package {name} cannot be had"))?;
        let arrived = find(&arriving, name)
            .with_context(|| format!("apt-get download {name} left no file"))?;
        let path = kept.join(arrived.file_name().unwrap_or_default());
        fs::rename(&arrived, &path).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// A package's file if it was downloaded before.
    pub fn kept(&self, name: &str) -> Option<PathBuf> {
        find(&self.cache.path("debs"), name)
    }

    /// Unpacks packages and everything they depend on, from one suite, into `root`. No maintainer
    /// script is run: the result is a place to run programs in, not a system.
    ///
    /// # Errors
    /// When a package cannot be had or unpacked.
    pub fn unpack_closure(&self, suite: Suite, names: &[&str], root: &Path) -> Result<()> {
        self.ensure_index()?;
        let archives = root.join("archives");
        fs::create_dir_all(archives.join("partial")).context("cannot make a directory")?;
        let mut install = self.tool("apt-get");
        install
            .args([
                "install",
                "--download-only",
                "--no-install-recommends",
                "-y",
            ])
            .args(["-t", suite.name(), "-o"])
            .arg(format!("Dir::Cache::archives={}", archives.display()))
            .args(names);
        run(&mut install, DOWNLOAD_LIMIT)
            .with_context(|| format!("{} of {} cannot be had", names.join(", "), suite.name()))?;
        // root's layout (/bin is /usr/bin ...) must stand before files are put into it
        let mut debs = packages_in(&archives)?;
        debs.sort_by_key(|deb| !is_package(deb, "base-files"));
        for deb in debs {
            unpack(&deb, root)?;
        }
        fs::remove_dir_all(&archives).context("cannot remove what was unpacked")
    }

    fn configuration(&self) -> String {
        let directory = self.path("");
        let directory = directory.display();
        format!(
            r#"Dir "{directory}";
Dir::State "{directory}";
Dir::State::status "{directory}status";
Dir::State::lists "lists";
Dir::Cache "{directory}";
Dir::Cache::archives "archives";
Dir::Etc "{directory}etc";
Dir::Etc::sourcelist "sources.list";
Dir::Etc::sourceparts "none";
Dir::Etc::parts "none";
Dir::Etc::preferencesparts "none";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
// root's apt would become _apt, who may not write here
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
// a mirror frozen at some date serves a sid whose Release has expired; it is signed all the same
Acquire::Check-Valid-Until "false";
"#
        )
    }

    fn tool(&self, name: &str) -> Command {
        let mut tool = command(name);
        // APT_CONFIG is read after the system's own files and so overrides them
        tool.env("APT_CONFIG", self.path("apt.conf"))
            .env("DEBIAN_FRONTEND", "noninteractive");
        tool
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.cache.path("apt").join(relative)
    }
}

/// Unpacks a package's files below `root`.
///
/// # Errors
/// When the package is damaged or the disk full.
pub fn unpack(deb: &Path, root: &Path) -> Result<()> {
    let mut dpkg = command("dpkg-deb");
    run(dpkg.arg("-x").arg(deb).arg(root), UNPACK_LIMIT)
        .map(drop)
        .with_context(|| format!("{}: delete it and try again", deb.display()))
}

/// A field of a package's control file, such as `Depends`.
///
/// # Errors
/// When the package is damaged.
pub fn field(deb: &Path, name: &str) -> Result<String> {
    let mut dpkg = command("dpkg-deb");
    run(dpkg.arg("-f").arg(deb).arg(name), QUERY_LIMIT)
}

fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut debs = Vec::new();
    let listing = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in listing {
        let path = entry.context("cannot list packages")?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            debs.push(path);
        }
    }
    debs.sort();
    Ok(debs)
}

fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    let debs = packages_in(directory).ok()?;
    debs.into_iter().rev().find(|deb| is_package(deb, name))
}

/// Package files are `name_version_architecture.deb`.
fn is_package(deb: &Path, name: &str) -> bool {
    deb.file_name()
        .and_then(|file| file.to_str())
        .and_then(|file| file.split('_').next())
        == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_known_by_its_whole_name() {
        let deb = Path::new("/d/linux-base-7.3.4+deb13_7.3.4-1_amd64.deb");
        assert!(is_package(deb, "linux-base-7.3.4+deb13"));
        assert!(!is_package(deb, "linux-base"));
    }

    #[test]
    fn of_several_kept_versions_one_is_found_and_no_other_package() {
        let directory = tempfile::tempdir().unwrap();
        for name in [
            "a_1_all.deb",
            "a_2_all.deb",
            "ab_3_all.deb",
            "a_9_all.deb.part",
        ] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        let found = find(directory.path(), "a").unwrap();
        assert_eq!(found, directory.path().join("a_2_all.deb"));
        assert_eq!(find(directory.path(), "b"), None);
    }
}
