//! Saved models as files: read and checked, written whole or not at all.

use crate::error::{Error, Result};
use crate::model::file::{Fault, Saved};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The model of this machine, in the program's state directory.
pub const MODEL: &str = "model.toml";
/// No saved model is longer: 300 parameters take 1 MB.
const LONGEST: u64 = 16 << 20;

/// Reads and checks a saved model; `None` when there is no such file.
///
/// # Errors
/// [`Error::Denied`], [`Error::Io`], or, naming line or field, value and what would be right, [`Error::Setting`] and
/// [`Error::File`].
pub fn read(path: &Path) -> Result<Option<Saved>> {
    let io = |source: std::io::Error| failed(path, source);
    let length = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(io)?.len(),
    };
    if length > LONGEST {
        let reason = format!("{length} bytes long, expected at most {LONGEST}");
        return Err(wrong(path, reason));
    }
    let bytes = fs::read(path).map_err(io)?;
    let text = String::from_utf8(bytes)
        .map_err(|error| wrong(path, format!("{error}; expected the text of a saved model")))?;
    Saved::parse(&text).map(Some).map_err(|fault| match fault {
        Fault::Text {
            line,
            value,
            reason,
        } => Error::Setting {
            path: path.to_owned(),
            line,
            value,
            reason,
        },
        Fault::Value(refusal) => wrong(path, refusal.to_string()),
    })
}

/// Writes a saved model: whoever reads sees the old file or the new one, also after a crash. Makes the
/// directory where it is missing.
///
/// # Errors
/// [`Error::Denied`] and [`Error::Io`]; the old file is then untouched.
pub fn write(path: &Path, saved: &Saved) -> Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let draft: PathBuf = directory.join(name);
    let written = File::create(&draft).and_then(|mut file| {
        file.write_all(saved.to_text().as_bytes())?;
        file.sync_all()
    });
    let placed = written.and_then(|()| fs::rename(&draft, path));
    if let Err(error) = placed {
        // Best effort: what matters is the reason above.
        let _ = fs::remove_file(&draft);
        return Err(failed(path, error));
    }
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| failed(directory, error))
}

fn wrong(path: &Path, reason: String) -> Error {
    Error::File {
        path: path.to_owned(),
        reason,
    }
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    let path = path.to_owned();
    match source.kind() {
        ErrorKind::PermissionDenied => Error::Denied {
            path,
            hint: "run as root (sudo), or name another file",
        },
        _ => Error::Io { path, source },
    }
}
