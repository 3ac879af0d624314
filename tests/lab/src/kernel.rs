//! Which Debian kernels the lab uses.
//!
//! The archive drops old kernels and ships broken ones, so kernels are chosen by rule: for each
//! [`Series`], in order, the newest package that matches and passes a probe boot. Verdicts are kept by the
//! kernel's hash, packages are kept for ever, and a choice stands until it is asked for anew.

use crate::cache::{self, Cache};
use crate::debian::{self, Apt};
use crate::guest::Soc;
use crate::probe;
use crate::soc_module;
use crate::source_kernel;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Flavour of all kernels: the smallest that Debian has for virtual machines.
const FLAVOUR: &str = "-cloud-amd64";

/// A rule for choosing a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// What users call it.
    pub name: &'static str,
    first: (u32, u32),
    last: (u32, u32),
    /// Whether the virtual SoC module can be built for it (Debian keeps its headers).
    pub has_soc: bool,
}

/// The series in the order of preference.
pub const SERIES: [Series; 3] = [
    Series {
        name: "newest",
        first: (7, 3),
        last: (u32::MAX, 0),
        has_soc: true,
    },
    Series {
        name: "7.2",
        first: (7, 2),
        last: (7, 2),
        has_soc: true,
    },
    // no headers are left of it: for tests of loading
    Series {
        name: "6.18",
        first: (6, 18),
        last: (6, 18),
        has_soc: false,
    },
];

/// A kernel that was unpacked.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    /// The boot image.
    pub vmlinuz: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// Hash of the boot image.
    pub id: String,
}

/// What is known of a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The series it belongs to.
    pub series: &'static str,
    /// The release.
    pub release: String,
    /// Whether it is the one in use for its series.
    pub chosen: bool,
    /// `None`: never tried.
    pub verdict: Option<Verdict>,
}

/// The outcome of a probe boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Why it was refused; `None` when it was accepted.
    pub refused: Option<String>,
}

/// Finds, fetches and judges kernels.
#[derive(Clone, Copy, Debug)]
pub struct Kernels<'a> {
    cache: &'a Cache,
}

impl<'a> Kernels<'a> {
    /// With what is in this cache.
    pub fn new(cache: &'a Cache) -> Self {
        Self { cache }
    }

    /// The kernel of the first series that has one.
    ///
    /// # Errors
    /// When no series has: with the reason of each.
    pub fn default(&self) -> Result<Kernel> {
        let mut reasons = Vec::new();
        for series in SERIES {
            match self.of_series(series, false) {
                Ok(kernel) => return Ok(kernel),
                Err(error) => reasons.push(format!("{}: {error:#}", series.name)),
            }
        }
        bail!("no kernel with a working sched_ext: {}", reasons.join("; "))
    }

    /// The kernel of a series (`newest`, `7.2`, `6.18`), the lab's own (`lab`), or of a release such as
    /// `7.2.11+deb13-cloud-amd64`.
    ///
    /// # Errors
    /// When there is none, or it fails its probe.
    pub fn get(&self, name: &str) -> Result<Kernel> {
        if let Some(series) = series(name) {
            return self.of_series(series, false);
        }
        let own = name == source_kernel::NAME;
        if !own && version(name).is_none() {
            let names = SERIES.map(|series| series.name).join(", ");
            bail!(
                "'{name}' is not a kernel: give {names}, {}, or a release that `lab kernels` lists",
                source_kernel::NAME
            );
        }
        let kernel = match own {
            true => source_kernel::kernel(self.cache)?,
            false => self.unpacked(name)?,
        };
        match self.judged(&kernel)?.refused {
            None => Ok(kernel),
            Some(reason) => bail!("{name} is not fit for use: {reason}"),
        }
    }

    /// The kernel in use for a series; chosen anew, from a fresh package index, when `anew`.
    ///
    /// # Errors
    /// When no candidate can be had or passes its probe.
    pub fn of_series(&self, series: Series, anew: bool) -> Result<Kernel> {
        if !anew && let Some(release) = self.chosen(series) {
            return self.unpacked(&release);
        }
        let apt = Apt::new(self.cache)?;
        if anew {
            apt.update()?;
        } else {
            apt.ensure_index()?;
        }
        let mut refused = Vec::new();
        for release in self.candidates(series)? {
            let kernel = self.unpacked(&release)?;
            match self.judged(&kernel)?.refused {
                None => {
                    let choice = self.choice(series);
                    fs::create_dir_all(choice.parent().unwrap_or(Path::new("/")))?;
                    cache::write(&choice, &release)?;
                    return Ok(kernel);
                }
                Some(reason) => {
                    eprintln!("lab: {release} is not fit for use: {reason}");
                    refused.push(release);
                }
            }
        }
        match refused.as_slice() {
            [] => bail!(
                "Debian has no kernel of the series {} any more",
                series.name
            ),
            _ => bail!("none of {} is fit for use", refused.join(", ")),
        }
    }

    /// All candidates of all series, in order, with what is known of them. Fetches nothing.
    ///
    /// # Errors
    /// When apt cannot read its index.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for series in SERIES {
            let chosen = self.chosen(series);
            for release in self.candidates(series)? {
                let verdict = self
                    .unpacked_before(&release)
                    .and_then(|kernel| self.verdict(&kernel).ok().flatten());
                listed.push(Listed {
                    series: series.name,
                    chosen: chosen.as_ref() == Some(&release),
                    release,
                    verdict,
                });
            }
        }
        Ok(listed)
    }

    /// The virtual SoC's module for a kernel.
    ///
    /// # Errors
    /// When the headers cannot be had or the module does not build.
    pub fn soc_module(&self, kernel: &Kernel) -> Result<PathBuf> {
        let apt = Apt::new(self.cache)?;
        let headers = match source_kernel::headers(kernel) {
            Some(headers) => headers,
            None => soc_module::headers(self.cache, &apt, &kernel.release)?,
        };
        soc_module::build(self.cache, &apt, &kernel.release, &headers)
    }

    /// A machine file's virtual SoC on a kernel, for [`crate::guest::Guest::soc`].
    ///
    /// # Errors
    /// As [`Kernels::soc_module`].
    pub fn soc(&self, kernel: &Kernel, machine: &crate::machine::Machine) -> Result<Soc> {
        Ok(Soc {
            module: self.soc_module(kernel)?,
            description: machine.to_description(),
            cpus: machine.nr_cpus(),
            threads: machine.threads_per_core(),
        })
    }

    /// Releases of a series that apt offers or whose packages are kept, newest first.
    fn candidates(&self, series: Series) -> Result<Vec<String>> {
        let apt = Apt::new(self.cache)?;
        let mut names = self.kept_packages();
        if apt.has_index() {
            names.extend(apt.names("^linux-(binary-unsigned|image)-[0-9].*-cloud-amd64$")?);
        }
        Ok(newest_first(
            series,
            names.iter().filter_map(|name| release(name)),
        ))
    }

    fn kept_packages(&self) -> Vec<String> {
        let Ok(listing) = fs::read_dir(self.cache.path("debs")) else {
            return Vec::new();
        };
        listing
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                name.split('_').next().map(str::to_owned)
            })
            .collect()
    }

    fn choice(&self, series: Series) -> PathBuf {
        self.cache.path("chosen").join(series.name)
    }

    fn chosen(&self, series: Series) -> Option<String> {
        let release = fs::read_to_string(self.choice(series)).ok()?;
        let kernel = self.unpacked_before(&release)?;
        // a new probe asks anew
        let verdict = self.verdict(&kernel).ok().flatten()?;
        verdict.refused.is_none().then_some(release)
    }

    fn unpacked_before(&self, release: &str) -> Option<Kernel> {
        let name = kernel_directory(release);
        self.cache
            .has_directory(&name, "1")
            .then(|| load(&self.cache.path(name), release).ok())
            .flatten()
    }

    fn unpacked(&self, release: &str) -> Result<Kernel> {
        let directory = self
            .cache
            .directory(&kernel_directory(release), "1", |to| {
                eprintln!("lab: fetching {release}");
                let apt = Apt::new(self.cache)?;
                // newer packaging has the image apart from its signature, and the configuration apart from both
                let names = ["linux-binary-unsigned", "linux-image"]
                    .map(|kind| format!("{kind}-{release}"));
                let image = names.iter().find(|name| apt.kept(name).is_some());
                let image = match image {
                    Some(name) => apt.package(name)?,
                    None => apt.package(&names[0]).or_else(|_| apt.package(&names[1]))?,
                };
                let tree = to.join("tree");
                debian::unpack(&image, &tree)?;
                let modules = tree.join("usr/lib/modules").join(release);
                let found = |names: [PathBuf; 2]| names.into_iter().find(|path| path.is_file());
                let configs = [
                    modules.join("config"),
                    tree.join(format!("boot/config-{release}")),
                ];
                if found(configs.clone()).is_none() {
                    debian::unpack(&apt.package(&format!("linux-base-{release}"))?, &tree)?;
                }
                let images = [
                    modules.join("vmlinuz.unsigned"),
                    tree.join(format!("boot/vmlinuz-{release}")),
                ];
                for (paths, name) in [(images, "vmlinuz"), (configs, "config")] {
                    let path = found(paths)
                        .with_context(|| format!("{}: holds no {name}", image.display()))?;
                    fs::rename(&path, to.join(name)).with_context(|| path.display().to_string())?;
                }
                let id = cache::hash([cache::read(&to.join("vmlinuz"))?.as_slice()]);
                cache::write(&to.join("id"), id)?;
                fs::remove_dir_all(&tree).with_context(|| tree.display().to_string())
            })?;
        load(&directory, release)
    }

    fn verdict(&self, kernel: &Kernel) -> Result<Option<Verdict>> {
        let path = self.verdict_path(kernel)?;
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("{}: delete it", path.display())),
            Err(_) => Ok(None),
        }
    }

    fn verdict_path(&self, kernel: &Kernel) -> Result<PathBuf> {
        let key = cache::hash([kernel.id.as_bytes(), probe::key()?.as_bytes()]);
        Ok(self.cache.path("verdicts").join(format!("{key}.json")))
    }

    fn judged(&self, kernel: &Kernel) -> Result<Verdict> {
        if let Some(verdict) = self.verdict(kernel)? {
            return Ok(verdict);
        }
        let refused = probe::verdict(self.cache, kernel)?;
        let verdict = Verdict { refused };
        let path = self.verdict_path(kernel)?;
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        cache::write(&path, serde_json::to_vec(&verdict)?)?;
        Ok(verdict)
    }
}

/// The series of this name.
pub fn series(name: &str) -> Option<Series> {
    SERIES.into_iter().find(|series| series.name == name)
}

fn kernel_directory(release: &str) -> String {
    format!("kernels/{release}")
}

fn load(directory: &Path, release: &str) -> Result<Kernel> {
    let id = cache::read(&directory.join("id"))?;
    Ok(Kernel {
        release: release.to_owned(),
        vmlinuz: directory.join("vmlinuz"),
        config: directory.join("config"),
        id: String::from_utf8_lossy(&id).into_owned(),
    })
}

/// `linux-image-6.18.15+deb13-cloud-amd64` → `6.18.15+deb13-cloud-amd64`.
fn release(package: &str) -> Option<String> {
    let release = ["linux-binary-unsigned-", "linux-image-"]
        .iter()
        .find_map(|prefix| package.strip_prefix(prefix))?;
    version(release).map(|_| release.to_owned())
}

/// `7.2.13+deb14-cloud-amd64` → `[7, 2, 13]`; `None` for other flavours and for release candidates.
fn version(release: &str) -> Option<Vec<u32>> {
    let (numbers, build) = release.strip_suffix(FLAVOUR)?.split_once('+')?;
    build.strip_prefix("deb")?.parse::<u32>().ok()?;
    let version: Vec<u32> = numbers
        .split('.')
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    (version.len() >= 2).then_some(version)
}

fn newest_first(series: Series, releases: impl Iterator<Item = String>) -> Vec<String> {
    let mut candidates: Vec<(Vec<u32>, String)> = releases
        .filter_map(|release| {
            let version = version(&release)?;
            let of = (*version.first()?, *version.get(1)?);
            (series.first <= of && of <= series.last).then_some((version, release))
        })
        .collect();
    candidates.sort();
    candidates.dedup();
    candidates.reverse();
    candidates.into_iter().map(|(_, release)| release).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(name: &str, packages: &[&str]) -> Vec<String> {
        let series = series(name).unwrap();
        newest_first(series, packages.iter().filter_map(|name| release(name)))
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        let packages = [
            "linux-image-7.2.9+deb13-cloud-amd64",
            "linux-binary-unsigned-7.2.11+deb13-cloud-amd64",
            "linux-image-7.2.11+deb13-cloud-amd64",
        ];
        let expected = ["7.2.11+deb13-cloud-amd64", "7.2.9+deb13-cloud-amd64"];
        assert_eq!(choose("7.2", &packages), expected);
    }

    #[test]
    fn the_newest_series_has_no_end() {
        let packages = [
            "linux-image-7.10.1+deb14-cloud-amd64",
            "linux-image-7.2.9+deb13-cloud-amd64",
            "linux-image-8.0.1+deb14-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
        ];
        let chosen = choose("newest", &packages);
        assert_eq!(chosen[0], "8.0.1+deb14-cloud-amd64");
        assert_eq!(chosen.len(), 3);
    }

    #[test]
    fn other_flavours_and_other_packages_are_no_candidates() {
        for package in [
            "linux-image-7.3.4+deb13-amd64",
            "linux-headers-7.3.4+deb13-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64-dbg",
            "linux-image-7.3-rc4+deb13-cloud-amd64",
            "linux-image-cloud-amd64",
        ] {
            assert_eq!(release(package), None, "{package}");
        }
    }
}
