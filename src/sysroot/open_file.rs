//! A file that is read again and again without being opened each time, which costs five times the read.

use super::{absent_or, malformed, parse_cpu_list, parse_values, trimmed};
use crate::error::Result;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Longer than any single value in sysfs.
const VALUE_BYTES: usize = 128;

/// How many files are kept open in this process, of all [`OpenFile`]s together.
static KEPT: AtomicUsize = AtomicUsize::new(0);
/// Half of what the process may have open at all; the other files are opened for each read.
static ROOM: LazyLock<usize> = LazyLock::new(|| {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 2).unwrap_or(usize::MAX)
});

/// Lets this process keep as many files open as its hard limit allows: four idle states of 256 CPUs are 2048. Not for
/// processes that start others, which might use select(2), and before the first [`OpenFile`] is read.
pub fn keep_many_open() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("the limit of open files stays: {error}");
    }
}

/// One file of a [`SysRoot`](super::SysRoot). It stays open between reads, and is opened anew when the device behind it
/// has gone and come back, or, in a tree that is not the machine's own, when another file is in its place.
#[derive(Debug)]
pub struct OpenFile {
    path: PathBuf,
    /// Whether a file may be removed while what it held can still be read: not in sysfs and procfs.
    replaceable: bool,
    kept: Option<Kept>,
    text: Vec<u8>,
}

impl OpenFile {
    pub(super) fn new(path: PathBuf, replaceable: bool) -> Self {
        Self {
            path,
            replaceable,
            kept: None,
            text: Vec::new(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`SysRoot::value`](super::SysRoot::value).
    ///
    /// # Errors
    /// As there.
    pub fn value<T: FromStr>(&mut self, expected: &'static str) -> Result<Option<T>> {
        let mut buffer = [0; VALUE_BYTES];
        // the kernel gives a whole value at once
        let Some(length) = self.read(|file| file.read_at(&mut buffer, 0))? else {
            return Ok(None);
        };
        let text = match buffer.get(..length) {
            Some(text) if length < buffer.len() => String::from_utf8_lossy(text),
            _ => match self.bytes()? {
                Some(()) => String::from_utf8_lossy(&self.text),
                None => return Ok(None),
            },
        };
        match trimmed(&text) {
            "" => Ok(None),
            text => match text.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(malformed(self.path.clone(), text, expected)),
            },
        }
    }

    /// As [`SysRoot::values`](super::SysRoot::values).
    ///
    /// # Errors
    /// As there.
    pub fn values<T: FromStr>(&mut self, expected: &'static str) -> Result<Option<Vec<T>>> {
        self.parsed(expected, |text| match text {
            "" => Some(None),
            text => parse_values(text).map(Some),
        })
        .map(Option::flatten)
    }

    /// As [`SysRoot::cpu_list`](super::SysRoot::cpu_list).
    ///
    /// # Errors
    /// As there.
    pub fn cpu_list(&mut self) -> Result<Option<Vec<usize>>> {
        self.parsed("a CPU list such as 0-3,8", parse_cpu_list)
    }

    /// What `of` makes of the whole file, with its path; `None` as for [`SysRoot::text`](super::SysRoot::text).
    ///
    /// # Errors
    /// As there, and those of `of`.
    pub fn text<T>(&mut self, of: impl FnOnce(&Path, &str) -> Result<T>) -> Result<Option<T>> {
        if self.bytes()?.is_none() {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&self.text);
        of(&self.path, trimmed(&text)).map(Some)
    }

    fn parsed<T>(
        &mut self,
        expected: &'static str,
        of: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        self.text(|path, text| of(text).ok_or_else(|| malformed(path.into(), text, expected)))
    }

    /// Reads the whole file.
    fn bytes(&mut self) -> Result<Option<()>> {
        let mut text = std::mem::take(&mut self.text);
        let read = self.read(|mut file| {
            text.clear();
            file.rewind()?;
            file.read_to_end(&mut text).map(drop)
        });
        self.text = text;
        read
    }

    /// What `read` gets from the file that is open, or from one opened anew where that has gone; `None` when there is
    /// none.
    fn read<T>(&mut self, mut read: impl FnMut(&File) -> io::Result<T>) -> Result<Option<T>> {
        if let Some(kept) = &self.kept
            && kept.is_at(&self.path)
        {
            match read(&kept.file) {
                Ok(read) => return Ok(Some(read)),
                Err(error) if is_gone(&error) => {}
                Err(source) => return self.failed(source).map(|()| None),
            }
        }
        self.kept = None;
        let opened = File::open(&self.path).and_then(|file| Ok((read(&file)?, file)));
        match opened {
            Ok((read, file)) => {
                self.kept = Kept::new(file, self.replaceable, *ROOM);
                Ok(Some(read))
            }
            Err(source) => self.failed(source).map(|()| None),
        }
    }

    fn failed(&self, source: io::Error) -> Result<()> {
        absent_or(self.path.clone(), source)
    }
}

/// What a read of an open file answers when its device has been removed: ENOENT, ENXIO, ENODEV, ESTALE.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(2 | 6 | 19 | 116))
}

/// An open file that has its place among those kept.
#[derive(Debug)]
struct Kept {
    file: File,
    /// Device and inode, where another file may take its place.
    identity: Option<(u64, u64)>,
}

impl Kept {
    /// `None` when as many as `room` are kept.
    fn new(file: File, replaceable: bool, room: usize) -> Option<Self> {
        let own = replaceable.then(|| file.metadata().ok());
        let is_room = KEPT.fetch_add(1, Relaxed) < room;
        if !is_room {
            KEPT.fetch_sub(1, Relaxed);
        }
        is_room.then(|| Self {
            file,
            identity: own.flatten().as_ref().map(identity),
        })
    }

    /// Whether this is the file that is there now.
    fn is_at(&self, path: &Path) -> bool {
        let is_own = |own| std::fs::metadata(path).is_ok_and(|there| identity(&there) == own);
        self.identity.is_none_or(is_own)
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::SysRoot;
    use super::*;
    use std::fs;

    /// A tree with one file, and that file.
    fn counter(text: &str) -> (tempfile::TempDir, OpenFile) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("count"), text).unwrap();
        let file = SysRoot::at(directory.path()).open("count");
        (directory, file)
    }

    fn value(file: &mut OpenFile) -> Result<Option<u64>> {
        file.value("a count")
    }

    #[test]
    fn each_read_gives_what_the_file_holds_now() {
        let (directory, mut file) = counter("1\n");
        assert_eq!(value(&mut file).unwrap(), Some(1));
        fs::write(directory.path().join("count"), "22\n\0").unwrap();
        assert_eq!(value(&mut file).unwrap(), Some(22));
        fs::write(directory.path().join("count"), "3 4\n").unwrap();
        assert_eq!(file.values::<u64>("counts").unwrap(), Some(vec![3, 4]));
        fs::write(directory.path().join("count"), "0-2,7\n").unwrap();
        assert_eq!(file.cpu_list().unwrap(), Some(vec![0, 1, 2, 7]));
        assert!(file.kept.is_some());
    }

    #[test]
    fn a_file_that_went_is_absent_and_one_that_came_back_is_read() {
        let (directory, mut file) = counter("1\n");
        let path = directory.path().join("count");
        assert_eq!(value(&mut file).unwrap(), Some(1));
        fs::remove_file(&path).unwrap();
        assert_eq!(value(&mut file).unwrap(), None);
        fs::write(&path, "2\n").unwrap();
        assert_eq!(value(&mut file).unwrap(), Some(2));
        let other = directory.path().join("other");
        fs::write(&other, "3\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(value(&mut file).unwrap(), Some(3));
        fs::rename(&path, &other).unwrap();
        assert_eq!(value(&mut file).unwrap(), None);
    }

    #[test]
    fn in_a_steady_tree_the_file_that_is_open_is_the_one_that_is_read() {
        let (directory, _) = counter("1\n");
        let mut file = SysRoot::at(directory.path()).steady().open("count");
        assert_eq!(value(&mut file).unwrap(), Some(1));
        fs::remove_file(directory.path().join("count")).unwrap();
        assert_eq!(value(&mut file).unwrap(), Some(1));
        assert!(SysRoot::host().steady && !SysRoot::at("/tmp").steady);
    }

    #[test]
    fn a_file_reads_as_its_tree_reads_it_whatever_is_in_it() {
        let long = format!("12{}x", " ".repeat(VALUE_BYTES));
        let digits = "1".repeat(VALUE_BYTES);
        for text in [
            "", " \n", "7", "-7", "seven", "7 7", "\u{fffd}", &long, &digits,
        ] {
            let (directory, mut file) = counter(text);
            let sys = SysRoot::at(directory.path());
            let told = |read: Result<Option<u64>>| read.map_err(|error| error.to_string());
            let expected = told(sys.value("count", "a count"));
            assert_eq!(told(value(&mut file)), expected, "{text:?}");
            let expected = sys
                .values::<u64>("count", "x")
                .map_err(|error| error.to_string());
            let values = file.values::<u64>("x").map_err(|error| error.to_string());
            assert_eq!(values, expected, "{text:?}");
        }
        let (directory, mut file) = counter("");
        fs::write(directory.path().join("count"), [0xff, b'7']).unwrap();
        assert!(value(&mut file).is_err());
        fs::remove_file(directory.path().join("count")).unwrap();
        fs::create_dir(directory.path().join("count")).unwrap();
        assert!(value(&mut file).is_err());
    }

    #[test]
    fn a_device_that_has_gone_is_looked_for_again() {
        for number in [2, 6, 19, 116] {
            assert!(is_gone(&io::Error::from_raw_os_error(number)));
        }
        assert!(!is_gone(&io::Error::from_raw_os_error(5)));
        let (_directory, mut file) = counter("1\n");
        let mut answers = [Ok(1), Err(19), Ok(2)].into_iter();
        let mut read = |_: &File| {
            answers
                .next()
                .unwrap()
                .map_err(io::Error::from_raw_os_error)
        };
        assert_eq!(file.read(&mut read).unwrap(), Some(1));
        assert_eq!(file.read(&mut read).unwrap(), Some(2));
        let failing = |_: &File| Err::<u64, _>(io::Error::from_raw_os_error(5));
        assert!(file.read(failing).is_err());
    }

    #[test]
    fn no_more_files_are_kept_than_there_is_room_for() {
        let file = || File::open("/proc/self/stat").unwrap();
        assert!(Kept::new(file(), false, 0).is_none());
        assert!(Kept::new(file(), false, usize::MAX).is_some());
    }
}
