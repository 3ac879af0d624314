//! The only writer of /sys. What is set is put back: by dropping [`Knobs`], however the program ends as long as
//! it can, and else, after SIGKILL, by the next start, from a journal.
//!
//! **The journal** is a file of JSON lines in the program's state directory. A line with the value before is in
//! it before a knob is first turned; the line with what the knob then shows (drivers round) follows. It is not
//! synced to the disk, because what loses it loses the settings, too: it names the boot that it belongs to. Its
//! owner holds a lock on it, so that a second program neither applies nor spoils the journal of one that lives.
//!
//! **Others may turn knobs meanwhile.** A knob that does not show what it showed after it was last set was either
//! set by somebody, whose value must stay, or is overruled by something else: a thermal limit shows in
//! `scaling_max_freq`, too, and what was asked for still stands behind it. To tell the two apart the knob is set
//! once more to what was asked for. If it then shows that, somebody's value had taken its place: that value
//! is written again, and the knob left alone. If it goes on showing the same, the request is still ours, and is
//! taken back like any other.

use crate::error::{Error, Result};
use crate::sysroot::SysRoot;
use log::{info, warn};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

const JOURNAL: &str = "knobs.journal";
/// How long a knob may take to show what was asked for. cpufreq's limits are applied by a kernel thread
/// (`schedule_work` in drivers/cpufreq/cpufreq.c) and show what was before until that has run.
const SETTLING: Duration = Duration::from_millis(20);
const BOOT: &str = "proc/sys/kernel/random/boot_id";

/// Knobs turned, to be put back in the reverse order in which each was first turned.
#[derive(Debug)]
pub struct Knobs {
    sys: SysRoot,
    journal: Journal,
    held: Vec<Held>,
}

/// A knob that was turned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    /// Relative to the root, such as `sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq`.
    knob: String,
    before: String,
    asked: String,
    /// What it showed after it was last set; `None` when the program was killed before it could look.
    shown: Option<String>,
}

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Entry {
    Boot(String),
    Set {
        knob: String,
        before: String,
        asked: String,
    },
    Shown {
        knob: String,
        value: String,
    },
}

/// What to do about a knob.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// It is as it was.
    Restored,
    /// It is as it was set, or still asks for that behind a limit of somebody else's.
    Ours,
    /// Somebody else has set it to what it shows.
    Theirs,
}

/// Puts back what a killed program left turned; `directory` is the program's state directory. Does nothing where
/// there is no journal, or where its owner lives. Says what it did in the log.
///
/// # Errors
/// When there is a journal that cannot be opened.
pub fn recover(sys: &SysRoot, directory: &Path) -> Result<()> {
    let path = directory.join(JOURNAL);
    if fs::metadata(&path).is_ok_and(|journal| journal.len() > 0) {
        match Knobs::open(sys, directory) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::WouldBlock => {}
            opened => drop(opened?),
        }
    }
    Ok(())
}

impl Knobs {
    /// Takes the journal in `directory`, which is made where it is missing, and puts back what it says.
    ///
    /// # Errors
    /// [`Error::Io`] of kind `WouldBlock` when another program holds the journal; when it cannot be opened.
    pub fn open(sys: &SysRoot, directory: &Path) -> Result<Self> {
        let mut journal = Journal::open(directory)?;
        let boot = sys.text(BOOT)?.unwrap_or_default();
        let left = journal.left(&boot);
        for held in left.iter().rev() {
            info!(
                "{} was left at '{}' by a run that was killed",
                held.knob, held.asked
            );
            put_back(sys, held);
        }
        journal.begin(boot)?;
        Ok(Self {
            sys: sys.clone(),
            journal,
            held: Vec::new(),
        })
    }

    /// Sets a knob below `sys/`.
    ///
    /// # Errors
    /// When it cannot be read or written (what was set before stays set until dropped), or when somebody else
    /// has set it since this program did.
    pub fn set(&mut self, knob: &str, value: &str) -> Result<()> {
        check(&self.sys, knob)?;
        let now = read(&self.sys, knob)?;
        let place = self.held.iter().position(|held| held.knob == knob);
        if let Some(held) = place.and_then(|place| self.held.get(place))
            && judge(held, &now, || reassert(&self.sys, held)) == Judgement::Theirs
        {
            write(&self.sys, knob, &now)?;
            self.held.retain(|held| held.knob != knob);
            let changed = format!("changed to '{now}' by something else; left at that");
            return Err(io(self.sys.path(knob), io::Error::other(changed)));
        }
        let before = place
            .and_then(|place| self.held.get(place))
            .map_or(now, |held| held.before.clone());
        self.journal.add(&Entry::Set {
            knob: knob.to_owned(),
            before: before.clone(),
            asked: value.to_owned(),
        })?;
        let held = Held {
            knob: knob.to_owned(),
            before,
            asked: value.to_owned(),
            shown: None,
        };
        match place.and_then(|place| self.held.get_mut(place)) {
            Some(known) => *known = held,
            None => self.held.push(held),
        }
        let shown = turn(&self.sys, knob, value)?;
        if let Some(held) = self.held.iter_mut().find(|held| held.knob == knob) {
            held.shown = Some(shown.clone());
        }
        self.journal.add(&Entry::Shown {
            knob: knob.to_owned(),
            value: shown,
        })
    }

    /// Puts everything back.
    pub fn restore(&mut self) {
        while let Some(held) = self.held.pop() {
            put_back(&self.sys, &held);
        }
        let boot = self.sys.text(BOOT).ok().flatten();
        if let Err(error) = self.journal.begin(boot.unwrap_or_default()) {
            warn!("{error}");
        }
    }
}

impl Drop for Knobs {
    fn drop(&mut self) {
        self.restore();
        if let Err(error) = self.journal.clear() {
            warn!("{error}");
        }
    }
}

/// The file, locked.
#[derive(Debug)]
struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    fn open(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).map_err(|error| io(directory.to_owned(), error))?;
        let path = directory.join(JOURNAL);
        let mut options = OpenOptions::new();
        // Never truncated here: what it holds is to be put back first.
        options.read(true).write(true).create(true).truncate(false);
        let file = options
            .open(&path)
            .map_err(|error| io(path.clone(), error))?;
        let busy = || io::Error::new(ErrorKind::WouldBlock, "another scx_joule is at work");
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io(path.clone(), busy()),
            TryLockError::Error(error) => io(path.clone(), error),
        })?;
        Ok(Self { path, file })
    }

    /// What the journal says is still turned, in the order in which it was first turned; nothing when it is of
    /// another boot. Lines that make no sense are told and passed over.
    fn left(&mut self, boot: &str) -> Vec<Held> {
        let mut text = Vec::new();
        if let Err(error) = self.file.read_to_end(&mut text) {
            warn!("{}: {error}", self.path.display());
        }
        let mut held: Vec<Held> = Vec::new();
        for (index, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(Entry::Boot(other)) if other != boot => return Vec::new(),
                Ok(Entry::Boot(_)) => {}
                Ok(Entry::Set {
                    knob,
                    before,
                    asked,
                }) => match held.iter_mut().find(|held| held.knob == knob) {
                    Some(held) => (held.asked, held.shown) = (asked, None),
                    None => held.push(Held {
                        knob,
                        before,
                        asked,
                        shown: None,
                    }),
                },
                Ok(Entry::Shown { knob, value }) => {
                    if let Some(held) = held.iter_mut().find(|held| held.knob == knob) {
                        held.shown = Some(value);
                    }
                }
                Err(error) => {
                    let path = self.path.display();
                    warn!(
                        "{path}:{}: {error}; expected a knob that was set",
                        index + 1
                    );
                }
            }
        }
        held
    }

    /// Starts anew.
    fn begin(&mut self, boot: String) -> Result<()> {
        self.clear()?;
        self.add(&Entry::Boot(boot))
    }

    fn clear(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|error| io(self.path.clone(), error))
    }

    /// One write for each line, so that a kill leaves whole lines.
    fn add(&mut self, entry: &Entry) -> Result<()> {
        let line = serde_json::to_string(entry).map_err(io::Error::other);
        let written = line.and_then(|line| self.file.write_all((line + "\n").as_bytes()));
        written.map_err(|error| io(self.path.clone(), error))
    }
}

/// Whose value a knob shows. `reassert` sets it once more to what was asked for and tells what it shows then.
fn judge(held: &Held, now: &str, reassert: impl FnOnce() -> Option<String>) -> Judgement {
    match &held.shown {
        Some(shown) if now == shown => Judgement::Ours,
        _ if now == held.before => Judgement::Restored,
        // Killed between setting and looking: what it shows is what became of the request.
        None => Judgement::Ours,
        Some(_) if reassert().as_deref() == Some(now) => Judgement::Ours,
        Some(_) => Judgement::Theirs,
    }
}

fn reassert(sys: &SysRoot, held: &Held) -> Option<String> {
    turn(sys, &held.knob, &held.asked).ok()
}

/// Puts one knob back and says what is remarkable about it.
fn put_back(sys: &SysRoot, held: &Held) {
    let outcome = check(sys, &held.knob)
        .and_then(|()| read(sys, &held.knob))
        .and_then(|now| match judge(held, &now, || reassert(sys, held)) {
            Judgement::Restored => Ok(()),
            Judgement::Ours => turn(sys, &held.knob, &held.before).map(drop),
            Judgement::Theirs => {
                let (knob, before) = (&held.knob, &held.before);
                warn!("{knob} was changed to '{now}' by something else and stays so; it was '{before}' before");
                write(sys, knob, &now)
            }
        });
    if let Err(error) = outcome {
        warn!(
            "{error}; it was '{}' and could not be put back",
            held.before
        );
    }
}

/// A journal may have been tampered with: only files of /sys are written.
fn check(sys: &SysRoot, knob: &str) -> Result<()> {
    let plain = Path::new(knob)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    match plain && knob.starts_with("sys/") {
        true => Ok(()),
        false => Err(io(
            sys.path(knob),
            io::Error::new(
                ErrorKind::InvalidInput,
                "no knob: expected a file below /sys",
            ),
        )),
    }
}

/// Sets a knob and tells what it shows then: what was asked for, or, after [`SETTLING`], anything else.
fn turn(sys: &SysRoot, knob: &str, value: &str) -> Result<String> {
    write(sys, knob, value)?;
    let begun = Instant::now();
    loop {
        let shown = read(sys, knob)?;
        if shown == value || begun.elapsed() >= SETTLING {
            return Ok(shown);
        }
        thread::sleep(SETTLING / 20);
    }
}

fn read(sys: &SysRoot, knob: &str) -> Result<String> {
    let gone = || Error::Gone {
        path: sys.path(knob),
    };
    sys.text(knob)?.ok_or_else(gone)
}

fn write(sys: &SysRoot, knob: &str, value: &str) -> Result<()> {
    let path = sys.path(knob);
    let written = (OpenOptions::new().write(true).truncate(true).open(&path))
        .and_then(|mut file| file.write_all(format!("{value}\n").as_bytes()));
    written.map_err(|error| io(path, error))
}

fn io(path: PathBuf, source: io::Error) -> Error {
    match source.kind() {
        ErrorKind::PermissionDenied => Error::Denied {
            path,
            hint: "run as root (sudo)",
        },
        _ => Error::Io { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: &str = "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq";
    const MIN: &str = "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq";

    /// A machine with the two limits of one clock, and a state directory beside it.
    struct Machine {
        directory: tempfile::TempDir,
    }

    impl Machine {
        fn new() -> Self {
            let machine = Self {
                directory: tempfile::tempdir().unwrap(),
            };
            machine.put(BOOT, "first");
            machine.put(MIN, "300");
            machine.put(MAX, "2400");
            machine
        }

        fn put(&self, file: &str, text: &str) {
            let path = self.directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }

        fn shows(&self, file: &str) -> String {
            read(&self.sys(), file).unwrap()
        }

        fn sys(&self) -> SysRoot {
            SysRoot::at(self.directory.path())
        }

        fn state(&self) -> PathBuf {
            self.directory.path().join("state")
        }

        fn journal(&self) -> PathBuf {
            self.state().join(JOURNAL)
        }

        fn open(&self) -> Knobs {
            Knobs::open(&self.sys(), &self.state()).unwrap()
        }

        /// Turns both limits and ends as by SIGKILL: nothing is put back, the lock is gone.
        fn killed(&self) {
            let mut knobs = self.open();
            knobs.set(MIN, "600").unwrap();
            knobs.set(MAX, "600").unwrap();
            let text = fs::read(self.journal()).unwrap();
            drop(knobs);
            fs::write(self.journal(), text).unwrap();
            self.put(MIN, "600");
            self.put(MAX, "600");
        }
    }

    #[test]
    fn what_was_set_is_put_back_when_dropped() {
        let machine = Machine::new();
        let mut knobs = machine.open();
        for value in ["600", "900", "1200"] {
            knobs.set(MIN, value).unwrap();
            knobs.set(MAX, value).unwrap();
            assert_eq!([machine.shows(MIN), machine.shows(MAX)], [value, value]);
        }
        drop(knobs);
        assert_eq!([machine.shows(MIN), machine.shows(MAX)], ["300", "2400"]);
        assert_eq!(fs::metadata(machine.journal()).unwrap().len(), 0);
    }

    #[test]
    fn a_knob_that_cannot_be_turned_is_an_error_and_the_others_are_put_back() {
        let machine = Machine::new();
        let mut knobs = machine.open();
        knobs.set(MAX, "600").unwrap();
        let error = knobs.set("sys/no/such", "1").unwrap_err().to_string();
        assert!(
            error.ends_with("sys/no/such: the device has gone"),
            "{error}"
        );
        drop(knobs);
        assert_eq!(machine.shows(MAX), "2400");
    }

    #[test]
    fn nothing_but_sys_is_ever_written() {
        let machine = Machine::new();
        machine.put("etc/passwd", "root");
        let mut knobs = machine.open();
        for wrong in ["etc/passwd", "sys/../etc/passwd", "/etc/passwd", "sys", ""] {
            assert!(knobs.set(wrong, "x").is_err(), "{wrong}");
        }
        drop(knobs);
        let tampered = r#"{"set":{"knob":"sys/../etc/passwd","before":"x","asked":"root"}}"#;
        fs::write(machine.journal(), tampered).unwrap();
        recover(&machine.sys(), &machine.state()).unwrap();
        assert_eq!(machine.shows("etc/passwd"), "root");
    }

    #[test]
    fn the_next_start_puts_back_what_a_killed_run_left() {
        let machine = Machine::new();
        machine.killed();
        recover(&machine.sys(), &machine.state()).unwrap();
        assert_eq!([machine.shows(MIN), machine.shows(MAX)], ["300", "2400"]);
        machine.put(MAX, "600");
        recover(&machine.sys(), &machine.state()).unwrap();
        assert_eq!(machine.shows(MAX), "600", "a journal is applied once");
    }

    #[test]
    fn a_kill_before_the_knob_was_looked_at_is_undone_too() {
        let machine = Machine::new();
        machine.killed();
        let text = fs::read_to_string(machine.journal()).unwrap();
        let without_last: Vec<&str> = text.lines().take(4).collect();
        assert!(without_last[3].contains("set"), "{text}");
        fs::write(machine.journal(), without_last.join("\n")).unwrap();
        // The driver rounded.
        machine.put(MAX, "599");
        recover(&machine.sys(), &machine.state()).unwrap();
        assert_eq!(machine.shows(MAX), "2400");
    }

    #[test]
    fn the_journal_of_another_boot_says_nothing_of_this_one() {
        let machine = Machine::new();
        machine.killed();
        machine.put(BOOT, "second");
        recover(&machine.sys(), &machine.state()).unwrap();
        assert_eq!(machine.shows(MAX), "600");
    }

    #[test]
    fn a_journal_whose_owner_lives_is_left_to_it() {
        let machine = Machine::new();
        let mut knobs = machine.open();
        knobs.set(MAX, "600").unwrap();
        recover(&machine.sys(), &machine.state()).unwrap();
        assert_eq!(machine.shows(MAX), "600");
        let error = Knobs::open(&machine.sys(), &machine.state()).unwrap_err();
        assert!(error.to_string().ends_with("another scx_joule is at work"));
        drop(knobs);
        assert_eq!(machine.shows(MAX), "2400");
    }

    #[test]
    fn a_journal_that_makes_no_sense_is_passed_over() {
        let machine = Machine::new();
        machine.killed();
        let text = fs::read_to_string(machine.journal()).unwrap();
        fs::write(machine.journal(), format!("{{\n\0{text}{{\"set\":")).unwrap();
        recover(&machine.sys(), &machine.state()).unwrap();
        assert_eq!(machine.shows(MIN), "300");
    }

    #[test]
    fn what_somebody_else_set_meanwhile_stays() {
        let machine = Machine::new();
        let mut knobs = machine.open();
        knobs.set(MIN, "600").unwrap();
        knobs.set(MAX, "600").unwrap();
        machine.put(MAX, "1800");
        let error = knobs.set(MAX, "900").unwrap_err().to_string();
        assert!(error.contains("changed to '1800'"), "{error}");
        drop(knobs);
        assert_eq!([machine.shows(MIN), machine.shows(MAX)], ["300", "1800"]);
        machine.killed();
        machine.put(MIN, "450");
        recover(&machine.sys(), &machine.state()).unwrap();
        assert_eq!([machine.shows(MIN), machine.shows(MAX)], ["450", "1800"]);
    }

    #[test]
    fn a_limit_that_overrules_ours_does_not_make_it_theirs() {
        let held = Held {
            knob: MAX.to_owned(),
            before: "2400".to_owned(),
            asked: "1200".to_owned(),
            shown: Some("1200".to_owned()),
        };
        let capped = || Some("800".to_owned());
        let taken = || Some("1200".to_owned());
        assert_eq!(judge(&held, "800", capped), Judgement::Ours);
        assert_eq!(judge(&held, "800", taken), Judgement::Theirs);
        assert_eq!(judge(&held, "800", || None), Judgement::Theirs);
        assert_eq!(judge(&held, "1200", || None), Judgement::Ours);
        assert_eq!(judge(&held, "2400", || None), Judgement::Restored);
    }
}
