//! Builds the virtual SoC's kernel module for a Debian kernel.
//!
//! A kernel's headers bring programs (fixdep, modpost, objtool) that need the C library of the
//! release they were built in, so the build runs in a tree of that release's packages (toolchain.rs).

use crate::cache::{self, Cache};
use crate::debian::{self, Apt, Suite};
use crate::toolchain;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The module's name.
pub const NAME: &str = "vsoc";
/// Where its sources are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/module");
/// A build takes seconds; one that recurses never ends.
const BUILD_LIMIT: Duration = Duration::from_secs(300);
/// What kbuild runs besides the compiler; pahole brings the libraries of objtool.
const TOOLS: [&str; 10] = [
    "base-files",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "grep",
    "make",
    "mawk",
    "pahole",
    "sed",
];
/// Runs with the tree, the headers and the work directory as $1, $2, $3 and the release and job count as $4, $5.
const BUILD: &str = r#"set -e
mkdir -p "$1/dev" "$1/proc" "$1/tmp" "$1/work"
mount --rbind /dev "$1/dev"
mount --rbind /proc "$1/proc"
for directory in src lib; do
    mkdir -p "$1/usr/$directory"
    for source in "$2/usr/$directory"/*; do
        target="$1/usr/$directory/${source##*/}"
        mkdir -p "$target"
        mount --bind "$source" "$target"
    done
done
mount --bind "$3" "$1/work"
exec chroot "$1" /usr/bin/env -i PATH=/usr/bin LC_ALL=C \
    make -C "/usr/src/linux-headers-$4" M=/work -j "$5" modules"#;

/// The module for this release; built unless one of the same sources for the same kernel is cached.
///
/// # Errors
/// When packages cannot be had, or the module does not build: with the compiler's messages.
pub fn build(cache: &Cache, apt: &Apt<'_>, release: &str, headers: &Headers) -> Result<PathBuf> {
    let sources = sources(Path::new(SOURCES))?;
    let mut parts: Vec<&[u8]> = vec![release.as_bytes(), BUILD.as_bytes()];
    for (name, text) in &sources {
        parts.extend([name.as_bytes(), text.as_slice()]);
    }
    let key = cache::hash(parts);
    let directory = cache.directory(&format!("modules/{release}"), &key, |work| {
        eprintln!("lab: building the virtual SoC module for {release}");
        let root = toolchain::tree(cache, apt, headers.suite, &TOOLS, &headers.compiler, "")?;
        for (name, text) in &sources {
            cache::write(&work.join(name), text)?;
        }
        let jobs = toolchain::jobs();
        let paths = [&root, &headers.path, work].map(|path: &Path| path.as_os_str());
        let words = [release, &jobs].map(OsStr::new);
        toolchain::enter(cache, BUILD, &[&paths[..], &words].concat(), BUILD_LIMIT)
            .with_context(|| format!("the virtual SoC module does not build for {release}"))
    })?;
    let module = directory.join(format!("{NAME}.ko"));
    if !module.exists() {
        bail!("{}: the build left no module", module.display());
    }
    Ok(module)
}

/// A kernel's unpacked headers, and what they want to be used with.
#[derive(Clone, Debug)]
pub struct Headers {
    /// Holds `usr/src` and `usr/lib`.
    pub path: PathBuf,
    /// Where the tools come from.
    pub suite: Suite,
    /// The compiler's package, such as `gcc-14`.
    pub compiler: String,
}

/// Downloads and unpacks the headers of a release such as `7.3.4+deb13-cloud-amd64`.
///
/// # Errors
/// When the packages cannot be had.
pub fn headers(cache: &Cache, apt: &Apt<'_>, release: &str) -> Result<Headers> {
    let version = release.strip_suffix("-cloud-amd64").unwrap_or(release);
    let suite = if version.ends_with("+deb13") {
        Suite::Trixie
    } else {
        Suite::Sid
    };
    let names = [
        format!("linux-headers-{release}"),
        format!("linux-headers-{version}-common"),
        format!("linux-kbuild-{version}"),
    ];
    let path = cache.directory(&format!("headers/{release}"), "1", |path| {
        for name in &names {
            debian::unpack(&apt.package(name)?, path)?;
        }
        // documentation, and on Debian a link into the system's own modules: nothing to build with
        for unneeded in ["usr/share", "usr/lib/modules"] {
            let unneeded = path.join(unneeded);
            if unneeded.exists() {
                fs::remove_dir_all(&unneeded).with_context(|| unneeded.display().to_string())?;
            }
        }
        Ok(())
    })?;
    let depends = debian::field(
        &apt.package(&format!("linux-headers-{release}"))?,
        "Depends",
    )?;
    let compiler = compiler(&depends)
        .with_context(|| format!("linux-headers-{release} names no compiler: {depends}"))?;
    Ok(Headers {
        path,
        suite,
        compiler,
    })
}

/// `gcc-14-for-host, linux-kbuild-...` → `gcc-14`.
fn compiler(depends: &str) -> Option<String> {
    depends
        .split([',', '|', ' '])
        .map(str::trim)
        .find_map(|word| {
            let digits: String = word
                .strip_prefix("gcc-")?
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            (!digits.is_empty()).then(|| format!("gcc-{digits}"))
        })
}

/// Names and texts of the sources, sorted by name.
fn sources(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut sources = Vec::new();
    let listing = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in listing {
        let entry = entry.with_context(|| directory.display().to_string())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "Kbuild" || name.ends_with(".c") || name.ends_with(".h") {
            sources.push((name, cache::read(&entry.path())?));
        }
    }
    sources.sort();
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_is_the_one_the_headers_depend_on() {
        let depends =
            "linux-headers-7-common (= 7), linux-image (= 7) | x, gcc-14-for-host, pahole";
        assert_eq!(compiler(depends).as_deref(), Some("gcc-14"));
        assert_eq!(compiler("gcc-x86, make"), None);
    }
}
