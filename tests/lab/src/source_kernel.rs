//! A kernel of the lab's own, from Debian's sources: with what Debian's kernels leave out (hwmon, the timerlat and
//! osnoise tracers), and little else.
//!
//! It is built once for its sources, configuration and compiler, in a tree of Debian's packages as the modules are
//! ([`crate::soc_module`]).

use crate::cache::{self, Cache};
use crate::debian::{self, Apt, Suite};
use crate::kernel::Kernel;
use crate::soc_module::Headers;
use crate::toolchain;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What users call it, where series have names.
pub const NAME: &str = "lab";

/// The package of the sources, and the compiler of the suite that they are a backport for.
const SOURCES: &str = "linux-source-7.3";
const COMPILER: &str = "gcc-14";
/// What a kernel is built with besides the compiler.
const TOOLS: [&str; 21] = [
    "base-files",
    "bc",
    "bison",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "flex",
    "grep",
    "gzip",
    "libc6-dev",
    "libelf-dev",
    "make",
    "mawk",
    "pahole",
    "perl-base",
    "python3-minimal",
    "sed",
    "tar",
    "xz-utils",
    "zlib1g-dev",
];
const CONFIG: &str = include_str!("../kernel/lab.config");
const BUILD: &str = include_str!("../kernel/build.sh");
/// Runs with the tree and the work directory as $1 and $2; the rest is the build script's.
const ENTER: &str = r#"set -e
mkdir -p "$1/dev" "$1/proc" "$1/tmp" "$1/work"
mount --rbind /dev "$1/dev"
mount --rbind /proc "$1/proc"
mount --bind "$2" "$1/work"
root=$1
shift 2
exec chroot "$root" /usr/bin/env -i -C /work PATH=/usr/bin LC_ALL=C nice sh build.sh "$@""#;
/// A build took 8 minutes on two quiet CPUs.
const BUILD_LIMIT: Duration = Duration::from_secs(3 * 3600);

/// The kernel; built unless it is in the cache.
///
/// # Errors
/// When packages cannot be had, or it does not build: with the end of what the build said.
pub fn kernel(cache: &Cache) -> Result<Kernel> {
    let apt = Apt::new(cache)?;
    let sources = apt.package(SOURCES)?;
    let version = debian::field(&sources, "Version")?;
    let version = version.trim();
    let parts = [version, CONFIG, BUILD, ENTER, COMPILER];
    let key = cache::hash(parts.map(str::as_bytes));
    let short = key.get(..8).unwrap_or(&key);
    // of another configuration is another kernel, with modules of its own
    let directory = cache.directory(&format!("kernels/{NAME}-{short}"), &key, |work| {
        let root = toolchain::tree(cache, &apt, Suite::Trixie, &TOOLS, COMPILER, "-kernel")?;
        eprintln!(
            "lab: building the lab's kernel of {SOURCES} {version} (8 minutes on a quiet machine)"
        );
        build(cache, &root, &sources, work, &format!("-{NAME}-{short}"))?;
        let id = cache::hash([cache::read(&work.join("vmlinuz"))?.as_slice()]);
        cache::write(&work.join("id"), id)
    })?;
    let text = |name: &str| -> Result<String> {
        let bytes = cache::read(&directory.join(name))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    Ok(Kernel {
        release: text("release")?,
        id: text("id")?,
        vmlinuz: directory.join("vmlinuz"),
        config: directory.join("config"),
    })
}

/// What modules for this kernel are built with; `None` when it is Debian's.
pub fn headers(kernel: &Kernel) -> Option<Headers> {
    let path = kernel.vmlinuz.with_file_name("headers");
    path.is_dir().then(|| Headers {
        path,
        suite: Suite::Trixie,
        compiler: COMPILER.to_owned(),
    })
}

fn build(cache: &Cache, root: &Path, sources: &Path, work: &Path, ending: &str) -> Result<()> {
    let unpacked = work.join("package");
    debian::unpack(sources, &unpacked)?;
    let archive = format!("{SOURCES}.tar.xz");
    let from = unpacked.join("usr/src").join(&archive);
    fs::rename(&from, work.join(&archive)).with_context(|| from.display().to_string())?;
    fs::remove_dir_all(&unpacked).context("cannot remove what was unpacked")?;
    cache::write(&work.join("lab.config"), CONFIG)?;
    cache::write(&work.join("build.sh"), BUILD)?;
    let jobs = toolchain::jobs();
    let paths = [root, work].map(Path::as_os_str);
    let words = [COMPILER, ending, &jobs].map(OsStr::new);
    toolchain::enter(cache, ENTER, &[&paths[..], &words].concat(), BUILD_LIMIT)
        .with_context(|| format!("the lab's kernel does not build from {SOURCES}"))?;
    for left in ["vmlinuz", "config", "release", "headers"] {
        if !work.join(left).exists() {
            bail!("the build of the lab's kernel left no {left}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_what_debian_s_kernels_leave_out_and_no_meter_of_the_cpu_model() {
        for option in ["HWMON", "TIMERLAT_TRACER", "OSNOISE_TRACER", "POWERCAP"] {
            let line = format!("CONFIG_{option}=y");
            assert!(CONFIG.lines().any(|text| text == line), "{option}");
        }
        let line = "# CONFIG_PERF_EVENTS_INTEL_RAPL is not set";
        assert!(CONFIG.lines().any(|text| text == line));
    }

    #[test]
    fn a_kernel_of_debian_has_no_headers_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let kernel = Kernel {
            release: "7.3.4-lab-0".to_owned(),
            vmlinuz: directory.path().join("vmlinuz"),
            config: directory.path().join("config"),
            id: String::new(),
        };
        assert!(headers(&kernel).is_none());
        fs::create_dir(directory.path().join("headers")).unwrap();
        assert_eq!(headers(&kernel).unwrap().compiler, COMPILER);
    }
}
