//! The library's one error type: what could not be read or understood, where, and what would have been right.

use std::path::PathBuf;

/// Why a reading, a file or a setting was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file exists but this process may not read it.
    #[error("{}: permission denied; {hint}", path.display())]
    Denied {
        /// The file that was opened.
        path: PathBuf,
        /// What the user can do about it.
        hint: &'static str,
    },
    /// The device is not there any more: describe the machine afresh and open what is there now.
    #[error("{}: the device has gone", path.display())]
    Gone {
        /// The device or file that was read.
        path: PathBuf,
    },
    /// The operating system refused the read or write for another reason.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file that was opened.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The text is not what it should be.
    #[error("{}:{line}: '{value}' is not {expected}", path.display())]
    Malformed {
        /// The file that was read.
        path: PathBuf,
        /// Line of the offending value, from 1.
        line: usize,
        /// The value as found (shortened).
        value: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A setting in a file of the user's is wrong.
    #[error("{}:{line}: '{value}': {reason}", path.display())]
    Setting {
        /// The file that was read.
        path: PathBuf,
        /// Line of the offending setting, from 1.
        line: usize,
        /// The setting as found.
        value: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A file of ours holds something that cannot be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file that was read.
        path: PathBuf,
        /// The field, its value, and what would be right.
        reason: String,
    },
    /// A name that nothing here has.
    #[error("no {what} is called '{value}'; there are {known}")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// The name given.
        value: String,
        /// The names that would be right.
        known: String,
    },
}

/// Shorthand for results of this library.
pub type Result<T> = std::result::Result<T, Error>;
