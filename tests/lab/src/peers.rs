//! The sched_ext schedulers that others wrote, with which scx_joule is compared: built from crates.io.
//!
//! Versions are pinned, so a comparison made again compares the same programs. One that cannot be built is an
//! error of that peer alone, and is tried anew the next time.

use crate::cache::Cache;
use crate::guest::run_directory;
use crate::process;
use crate::session::Scheduler;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A build took 16 minutes on two CPUs that were busy with much else.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// A scheduler of crates.io, and how it is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// As tables have it: the program and the arguments that matter.
    pub name: &'static str,
    /// The crate, which is also the program's name.
    pub package: &'static str,
    /// Its exact version.
    pub version: &'static str,
    /// The program's arguments, as the shell would read them.
    pub arguments: &'static str,
}

/// All peers: the ones that save energy by design, and the two that desktops are likely to run.
pub const PEERS: [Peer; 4] = [
    Peer {
        name: "scx_lavd --powersave",
        package: "scx_lavd",
        version: "1.1.4",
        arguments: "--powersave",
    },
    Peer {
        name: "scx_lavd --autopower",
        package: "scx_lavd",
        version: "1.1.4",
        arguments: "--autopower",
    },
    Peer {
        name: "scx_cosmos",
        package: "scx_cosmos",
        version: "1.1.7",
        arguments: "",
    },
    Peer {
        name: "scx_bpfland",
        package: "scx_bpfland",
        version: "1.1.4",
        arguments: "",
    },
];

/// Builds peers, each package once.
#[derive(Clone, Debug)]
pub struct Peers<'a> {
    cache: &'a Cache,
    cargo: PathBuf,
    limit: Duration,
}

impl<'a> Peers<'a> {
    /// With what is in this cache, and the cargo in `$PATH`.
    pub fn new(cache: &'a Cache) -> Self {
        Self {
            cache,
            cargo: "cargo".into(),
            limit: BUILD_LIMIT,
        }
    }

    /// The peer's program, built now unless it is in the cache.
    ///
    /// # Errors
    /// When it does not build: one line with the first error of the build and the path of its log.
    pub fn program(&self, peer: &Peer) -> Result<PathBuf> {
        let build = format!("{}-{}", peer.package, peer.version);
        let directory = self
            .cache
            .directory(&format!("peers/{build}"), "1", |root| {
                let log = run_directory("peers")?.join(format!("{build}.log"));
                self.install(peer, root, &log)
                    .with_context(|| format!("{} {}", peer.package, peer.version))
            })?;
        Ok(directory.join("bin").join(peer.package))
    }

    /// The peer, ready to run; or one line that says why there is none.
    pub fn scheduler(&self, peer: &Peer) -> Result<Scheduler, String> {
        match self.program(peer) {
            Ok(program) => Ok(Scheduler::of_program(&program, peer.arguments)),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    fn install(&self, peer: &Peer, root: &Path, log: &Path) -> Result<()> {
        let cargo = process::find(&self.cargo)?;
        let _one_at_a_time = self.cache.lock("building")?;
        eprintln!(
            "lab: building {} {} (some minutes); log in {}",
            peer.package,
            peer.version,
            log.display()
        );
        let said = File::create(log).with_context(|| log.display().to_string())?;
        let objects = root.join("build");
        let mut command = process::command(cargo);
        command
            .args(["install", "--locked", "--version", peer.version, "--root"])
            .arg(root)
            .arg(peer.package)
            // a toolchain or settings that some directory asks for are none of a peer's business
            .current_dir(root)
            .env("CARGO_TARGET_DIR", &objects)
            .env("BPF_CLANG", process::clang_name())
            .stdout(said.try_clone().context("cannot share the log")?)
            .stderr(said);
        let start = Instant::now();
        let ended = process::wait(
            &mut command.spawn().context("cannot start setpriv")?,
            self.limit,
        )?;
        // gigabytes, whether or not the build went well; a leftover would only fill the disk
        let _ = fs::remove_dir_all(&objects);
        match ended {
            Some(status) if status.success() => {}
            Some(status) => bail!("{}; see {}", cause(log, status), log.display()),
            None => bail!(
                "not built in {} s; see {}",
                self.limit.as_secs(),
                log.display()
            ),
        }
        if !root.join("bin").join(peer.package).is_file() {
            bail!("the package has no program of its name");
        }
        eprintln!(
            "lab: {} {} built in {} s",
            peer.package,
            peer.version,
            start.elapsed().as_secs()
        );
        Ok(())
    }
}

/// The first error that a build's log tells of: those after it are its consequences.
fn cause(log: &Path, status: std::process::ExitStatus) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(str::trim);
    lines
        .find(|line| line.starts_with("error"))
        .map_or_else(|| format!("cargo: {status}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn fake(cache: &Cache) -> Peers<'_> {
        Peers {
            cargo: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/cargo"),
            ..Peers::new(cache)
        }
    }

    fn peer(package: &'static str) -> Peer {
        Peer {
            name: package,
            package,
            version: "1.2.3",
            arguments: "",
        }
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        (directory, cache)
    }

    fn calls(cache: &Cache) -> String {
        fs::read_to_string(cache.path("peers/calls")).unwrap_or_default()
    }

    #[test]
    fn every_peer_has_a_name_of_its_own_that_tells_what_is_run() {
        let names: BTreeSet<_> = PEERS.iter().map(|peer| peer.name).collect();
        assert_eq!(names.len(), PEERS.len());
        for peer in PEERS {
            let run = format!("{} {}", peer.package, peer.arguments);
            assert_eq!(peer.name, run.trim_end());
        }
    }

    #[test]
    fn versions_are_exact_and_a_package_has_one() {
        for peer in PEERS {
            let numbers: Vec<_> = peer.version.split('.').map(str::parse::<u32>).collect();
            assert!(
                numbers.len() == 3 && numbers.iter().all(Result::is_ok),
                "{peer:?}"
            );
        }
        let programs: BTreeSet<_> = PEERS.iter().map(|it| (it.package, it.version)).collect();
        let packages: BTreeSet<_> = PEERS.iter().map(|it| it.package).collect();
        assert_eq!(programs.len(), packages.len());
    }

    #[test]
    fn a_program_is_built_once_and_only_the_program_is_kept() {
        let (_keep, cache) = cache();
        for _ in 0..2 {
            let program = fake(&cache).program(&peer("there")).unwrap();
            assert_eq!(program, cache.path("peers/there-1.2.3/bin/there"));
            assert!(program.is_file());
        }
        assert_eq!(calls(&cache), "there 1.2.3\n");
        assert!(!cache.path("peers/there-1.2.3/build").exists());
    }

    #[test]
    fn a_package_that_does_not_exist_is_one_line_with_the_cause_and_the_log() {
        let (_keep, cache) = cache();
        let error = fake(&cache).program(&peer("nothing")).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.starts_with("nothing 1.2.3: error: could not find `nothing` in registry"),
            "{text}"
        );
        assert!(text.ends_with("/peers/nothing-1.2.3.log"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        let log = Path::new(text.rsplit(' ').next().unwrap());
        assert!(fs::read_to_string(log).unwrap().contains("consequence"));
    }

    #[test]
    fn a_build_that_failed_is_tried_anew_and_leaves_no_objects() {
        let (_keep, cache) = cache();
        for _ in 0..2 {
            assert!(fake(&cache).program(&peer("missing")).is_err());
        }
        assert_eq!(calls(&cache).lines().count(), 2);
        assert!(!cache.path("peers/missing-1.2.3").exists());
        assert!(!cache.path("peers/missing-1.2.3.filling/build").exists());
    }

    #[test]
    fn a_build_without_a_program_is_an_error() {
        let (_keep, cache) = cache();
        let error = fake(&cache).program(&peer("empty")).unwrap_err();
        assert!(format!("{error:#}").contains("no program"), "{error:#}");
    }

    #[test]
    fn a_build_has_a_time_limit() {
        let (_keep, cache) = cache();
        let peers = Peers {
            limit: Duration::from_millis(200),
            ..fake(&cache)
        };
        let error = peers.program(&peer("slow")).unwrap_err();
        assert!(format!("{error:#}").contains("not built in"), "{error:#}");
    }

    #[test]
    fn no_cargo_is_said_so() {
        let (_keep, cache) = cache();
        let peers = Peers {
            cargo: "/nowhere/cargo".into(),
            ..fake(&cache)
        };
        let error = peers.program(&peer("there")).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/cargo"), "{error:#}");
    }
}
