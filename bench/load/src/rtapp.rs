//! Reads rt-app's JSON, the subset that describes load, and additions of our own.
//!
//! As in rt-app: `tasks` and `global`; a task has `phases` or is itself its one
//! phase; events are played in the order of the file, and a key may carry a
//! suffix or be repeated (`run`, `run1`, `run_late`, `run`). Durations are in µs,
//! `global.duration` in seconds. Comments (`/* */`, `//`) are allowed.
//!
//! Different from rt-app:
//! - A timer belongs to its thread, whatever its `ref`; a relative timer stays on
//!   its grid and counts what it skipped, where rt-app starts a new grid.
//! - A resume that finds its target at work is kept for the next suspend.
//! - A `taskgroup` is a cgroup of version 2 below the runner's own, and belongs to
//!   the task, not to a phase.
//! - Additions: `load_pct` (work as percent of the phase's timer period on the
//!   biggest CPU), `jitter_pct`, `deadline`, `nice`, the task type `ring`, and
//!   `global.taskgroups`: the weights of cgroups (`{"/name": {"weight": 300}}`,
//!   `cpu.weight` of cgroup v2, 1 to 10 000; a group without an entry has 100).
//! - What is not understood is an error: nothing is skipped without a word.

mod body;
mod lower;
mod number;

use crate::workload::Workload;
use body::Body;
use number::Int;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Longest duration in µs: a day.
const MAX_US: i64 = 86_400_000_000;

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that was opened.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The text is not a workload.
    #[error("{}:{line}: {field}{reason}", path.display())]
    Malformed {
        /// The file that was read.
        path: PathBuf,
        /// Line where it was noticed, from 1.
        line: usize,
        /// The way to the field, and a colon; empty outside of any.
        field: String,
        /// What was found and what would be right.
        reason: String,
    },
}

/// Reads a workload.
///
/// # Errors
/// When the file cannot be read or does not describe a workload.
pub fn read(path: &Path) -> Result<Workload, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

/// Reads a workload from text; the path is for messages only.
///
/// # Errors
/// When the text does not describe a workload.
pub fn parse(path: &Path, text: &str) -> Result<Workload, Error> {
    let malformed = |line, field, reason| Error::Malformed {
        path: path.to_owned(),
        line,
        field,
        reason,
    };
    let (json, intent) = blank_comments(text).map_err(|line| {
        malformed(
            line,
            String::new(),
            "a comment begins here and does not end".to_owned(),
        )
    })?;
    let mut reader = serde_json::Deserializer::from_str(&json);
    let file: File = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = match error.path().to_string().as_str() {
            "." => String::new(),
            path => format!("{path}: "),
        };
        malformed(error.inner().line(), field, without_position(error.inner()))
    })?;
    reader
        .end()
        .map_err(|error| malformed(error.line(), String::new(), without_position(&error)))?;
    lower::workload(file, intent).map_err(|fault| {
        malformed(
            fault.line_in(&json),
            format!("{}: ", fault.field),
            fault.reason,
        )
    })
}

/// The message of a JSON error without its " at line 3 column 4".
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

/// Replaces comments by blanks, so that lines and columns stay; also returns the comment the
/// text opens with. The error is the line of a comment that does not end.
fn blank_comments(text: &str) -> Result<(String, Option<String>), usize> {
    let mut json = String::with_capacity(text.len());
    let mut intent = None;
    let mut rest = text;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        let comment = match in_string {
            false if rest.starts_with("/*") => {
                let line = 1 + json.matches('\n').count();
                let inner = rest
                    .get(2..)
                    .and_then(|inner| inner.find("*/"))
                    .ok_or(line)?;
                Some(inner + 4)
            }
            false if rest.starts_with("//") => Some(rest.find('\n').unwrap_or(rest.len())),
            _ => None,
        };
        if let Some((comment, after)) = comment.and_then(|length| rest.split_at_checked(length)) {
            if intent.is_none() && json.trim().is_empty() {
                let words = comment
                    .trim_start_matches(['/', '*'])
                    .trim_end_matches(['*', '/']);
                intent = Some(words.split_whitespace().collect::<Vec<_>>().join(" "));
            }
            json.extend(comment.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = after;
            continue;
        }
        // The character after a backslash cannot end the string.
        let taken = if in_string && next == '\\' {
            rest.chars().take(2).map(char::len_utf8).sum()
        } else {
            next.len_utf8()
        };
        in_string ^= next == '"';
        let Some((plain, after)) = rest.split_at_checked(taken) else {
            break;
        };
        json.push_str(plain);
        rest = after;
    }
    Ok((json, intent))
}

/// A file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tasks: Named<Body>,
    #[serde(default)]
    global: Global,
    resources: Option<IgnoredAny>,
}

/// `global` as it is written; what is about rt-app's logs, memory and I/O is accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Global {
    duration: Option<Int<-1, 86_400>>,
    calibration: Option<number::CalibrationField>,
    default_policy: Option<body::PolicyName>,
    #[serde(default)]
    taskgroups: Named<body::GroupBody>,
    logdir: Option<IgnoredAny>,
    log_basename: Option<IgnoredAny>,
    log_size: Option<IgnoredAny>,
    ftrace: Option<IgnoredAny>,
    gnuplot: Option<IgnoredAny>,
    lock_pages: Option<IgnoredAny>,
    frag: Option<IgnoredAny>,
    pi_enabled: Option<IgnoredAny>,
    cumulative_slack: Option<IgnoredAny>,
    io_device: Option<IgnoredAny>,
    mem_buffer_size: Option<IgnoredAny>,
}

/// An object whose keys are names: in the order of the file, each once.
#[derive(Debug)]
struct Named<T>(Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of named objects")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Self::Value, A::Error> {
                let mut entries: Vec<(String, T)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name.is_empty() || name.chars().any(char::is_control) {
                        return Err(serde::de::Error::custom(
                            "a name must be printable and not empty",
                        ));
                    }
                    if entries.iter().any(|(earlier, _)| *earlier == name) {
                        return Err(serde::de::Error::custom(format!(
                            "the name '{name}' is taken, give each its own"
                        )));
                    }
                    entries.push((name, map.next_value()?));
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(Visitor(std::marker::PhantomData))
    }
}
