//! The only opener of /sys and /proc. Everything that looks at the machine goes through a [`SysRoot`],
//! so a test can hand in a directory that holds another machine's files.
//!
//! A file that is not there is `Ok(None)`, never a zero; a file that is there and cannot be read or
//! understood is an [`Error`] that names it.

mod open_file;

pub use open_file::{OpenFile, keep_many_open};

use crate::error::{Error, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A file system tree with `sys/` and `proc/` in it: the host's, or a test's.
#[derive(Clone, Debug)]
pub struct SysRoot {
    root: PathBuf,
    /// Whether files are only ever written in place, so that one that is open stays the one that is there.
    steady: bool,
}

impl SysRoot {
    /// The running machine.
    pub fn host() -> Self {
        Self::at("/").steady()
    }

    /// A tree below `root` (a dump of another machine, or a test's temporary directory).
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            steady: false,
        }
    }

    /// The same tree, whose files nobody removes or replaces by others while they are read: those of the kernel, which
    /// says so when one has gone, or of a benchmark.
    pub fn steady(self) -> Self {
        Self {
            steady: true,
            ..self
        }
    }

    /// Whether this is the running machine, so that system calls and these files speak of the same one.
    pub fn is_host(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Absolute path of `relative` (such as `sys/devices/system/cpu/online`) in this tree.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Whether the path exists and its metadata may be read.
    pub fn exists(&self, relative: impl AsRef<Path>) -> bool {
        self.path(relative).exists()
    }

    /// A file to be read again and again; whether it is there shows when it is read.
    pub fn open(&self, relative: impl AsRef<Path>) -> OpenFile {
        OpenFile::new(self.path(relative), !self.steady)
    }

    /// The file's text without surrounding white space or NULs (the CPU lists of some kernels end in
    /// one); `None` when there is no such file or its
    /// device has gone (an offline CPU's files answer ENODEV or ENXIO).
    ///
    /// # Errors
    /// [`Error::Denied`] without the privilege to read it, [`Error::Io`] for anything else.
    pub fn text(&self, relative: impl AsRef<Path>) -> Result<Option<String>> {
        let bytes = self.bytes(relative)?;
        Ok(bytes.map(|bytes| trimmed(&String::from_utf8_lossy(&bytes)).to_owned()))
    }

    /// The file's raw bytes; `None` as for [`SysRoot::text`].
    ///
    /// # Errors
    /// As [`SysRoot::text`].
    pub fn bytes(&self, relative: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        let path = self.path(relative);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(source) => absent_or(path, source).map(|()| None),
        }
    }

    /// The file's only value. An empty file counts as absent: some drivers answer a read of an
    /// unsupported attribute with nothing.
    ///
    /// # Errors
    /// As [`SysRoot::text`], and [`Error::Malformed`] when the text is not `expected`.
    pub fn value<T: FromStr>(
        &self,
        relative: impl AsRef<Path>,
        expected: &'static str,
    ) -> Result<Option<T>> {
        let relative = relative.as_ref();
        match self.text(relative)? {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| malformed(self.path(relative), &text, expected)),
        }
    }

    /// The file's values between white space, as cpufreq prints CPUs and frequencies; `None` when
    /// there is no such file or nothing in it.
    ///
    /// # Errors
    /// As [`SysRoot::value`].
    pub fn values<T: FromStr>(
        &self,
        relative: impl AsRef<Path>,
        expected: &'static str,
    ) -> Result<Option<Vec<T>>> {
        let relative = relative.as_ref();
        let Some(text) = self.text(relative)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        parse_values(&text)
            .map(Some)
            .ok_or_else(|| malformed(self.path(relative), &text, expected))
    }

    /// A kernel CPU list such as `0-3,8` as ascending CPU numbers.
    ///
    /// # Errors
    /// As [`SysRoot::value`].
    pub fn cpu_list(&self, relative: impl AsRef<Path>) -> Result<Option<Vec<usize>>> {
        let relative = relative.as_ref();
        match self.text(relative)? {
            None => Ok(None),
            Some(text) => parse_cpu_list(&text)
                .map(Some)
                .ok_or_else(|| malformed(self.path(relative), &text, "a CPU list such as 0-3,8")),
        }
    }

    /// Numbers of the online CPUs, ascending; `None` where the kernel does not say.
    ///
    /// # Errors
    /// As [`SysRoot::value`].
    pub fn online_cpus(&self) -> Result<Option<Vec<usize>>> {
        self.cpu_list("sys/devices/system/cpu/online")
    }

    /// Names of the entries of a directory in ascending order; empty when it does not exist.
    ///
    /// # Errors
    /// As [`SysRoot::text`].
    pub fn entries(&self, relative: impl AsRef<Path>) -> Result<Vec<String>> {
        let path = self.path(relative);
        let listing = match std::fs::read_dir(&path) {
            Ok(listing) => listing,
            Err(source) => return absent_or(path, source).map(|()| Vec::new()),
        };
        let mut names = Vec::new();
        for entry in listing {
            match entry {
                Ok(entry) => names.push(entry.file_name().to_string_lossy().into_owned()),
                Err(source) => return Err(Error::Io { path, source }),
            }
        }
        names.sort();
        Ok(names)
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
}

fn parse_values<T: FromStr>(text: &str) -> Option<Vec<T>> {
    let values = text.split_whitespace().map(str::parse);
    values.collect::<std::result::Result<_, _>>().ok()
}

/// The largest CPU number that a list may name: the kernel's own limit (CONFIG_NR_CPUS ≤ 8192).
const MAX_CPU: usize = 8191;

/// `0-3,8` → `[0, 1, 2, 3, 8]`; `None` for anything that is not an ascending kernel CPU list.
pub fn parse_cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus: Vec<usize> = Vec::new();
    for range in text.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        let ascending = cpus.last().is_none_or(|&previous| previous < first);
        if first > last || last > MAX_CPU || !ascending {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Ascending CPU numbers as the kernel prints them: `[0, 1, 2, 3, 8]` → `0-3,8`.
pub fn format_cpu_list(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|one, next| one + 1 == *next);
    let runs: Vec<String> = runs
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            _ => run.iter().map(usize::to_string).collect(),
        })
        .collect();
    runs.join(",")
}

fn absent_or(path: PathBuf, source: std::io::Error) -> Result<()> {
    // ENODEV 19 and ENXIO 6: the file stands, the device behind it has gone.
    match (source.kind(), source.raw_os_error()) {
        (ErrorKind::NotFound | ErrorKind::NotADirectory, _) | (_, Some(6 | 19)) => Ok(()),
        (ErrorKind::PermissionDenied, _) => Err(Error::Denied {
            path,
            hint: "run as root (sudo)",
        }),
        _ => Err(Error::Io { path, source }),
    }
}

fn malformed(path: PathBuf, text: &str, expected: &'static str) -> Error {
    Error::Malformed {
        path,
        line: 1,
        value: text.chars().take(40).collect(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn absent_is_none_and_garbage_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("max"), "fast\n").unwrap();
        let sys = SysRoot::at(dir.path());
        assert_eq!(sys.value::<u64>("min", "a number").unwrap(), None);
        let error = sys.value::<u64>("max", "a number").unwrap_err().to_string();
        assert!(error.ends_with("max:1: 'fast' is not a number"), "{error}");
    }

    #[test]
    fn an_empty_file_is_absent_not_zero() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("limit"), "").unwrap();
        let sys = SysRoot::at(dir.path());
        assert_eq!(sys.value::<u64>("limit", "a number").unwrap(), None);
    }

    #[test]
    fn a_list_that_ends_in_a_nul_is_read_and_values_stop_at_the_first_wrong_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("siblings"), "0-1\n\0").unwrap();
        std::fs::write(dir.path().join("steps"), "600 900 \n").unwrap();
        std::fs::write(dir.path().join("wrong"), "600 fast\n").unwrap();
        let sys = SysRoot::at(dir.path());
        assert_eq!(sys.cpu_list("siblings").unwrap(), Some(vec![0, 1]));
        assert_eq!(
            sys.values::<u64>("steps", "numbers").unwrap(),
            Some(vec![600, 900])
        );
        assert_eq!(sys.values::<u64>("none", "numbers").unwrap(), None);
        assert!(sys.values::<u64>("wrong", "numbers").is_err());
    }

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-3,8"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(parse_cpu_list(""), Some(vec![]));
        assert_eq!(format_cpu_list(&[0, 1, 2, 5]), "0-2,5");
        for wrong in ["3-0", "1,1", "0-99999999999", "a", "-", "0-", "0,,x"] {
            assert_eq!(parse_cpu_list(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_cpu_list_that_is_printed_reads_as_the_same_cpus(cpus in prop::collection::btree_set(0usize..200, 0..80)) {
            let cpus: Vec<usize> = cpus.into_iter().collect();
            prop_assert_eq!(parse_cpu_list(&format_cpu_list(&cpus)), Some(cpus));
        }

        #[test]
        fn no_text_breaks_the_cpu_list_parser(text in "[0-9,\\-a ]{0,24}") {
            if let Some(cpus) = parse_cpu_list(&text) {
                prop_assert!(cpus.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }
}
