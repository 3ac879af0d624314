//! An energy counter that is a file with one number, in µJ, such as powercap's energy_uj.

use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

/// The file.
#[derive(Debug, Clone)]
pub struct Meter {
    path: PathBuf,
}

impl Meter {
    /// Reads the file once, so that a wrong one is refused before anything runs.
    ///
    /// # Errors
    /// When the file cannot be read or holds no number.
    pub fn open(path: PathBuf) -> Result<Self> {
        let meter = Self { path };
        meter.read_uj()?;
        Ok(meter)
    }

    /// The counter now, in µJ.
    ///
    /// # Errors
    /// When the file cannot be read or holds no number.
    pub fn read_uj(&self) -> Result<u64> {
        let path = self.path.display();
        let text = fs::read_to_string(&self.path)
            .with_context(|| format!("{path}: cannot read the meter"))?;
        let number = text.trim();
        number.parse().with_context(|| {
            format!(
                "{path}:1: '{}' is not a whole number of µJ",
                number.chars().take(40).collect::<String>()
            )
        })
    }
}

/// What was counted between two readings; `None` when the counter went back in between (wrapped, or was reset).
pub fn used_uj(before_uj: u64, after_uj: u64) -> Option<u64> {
    after_uj.checked_sub(before_uj)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_went_back_measured_nothing() {
        assert_eq!(used_uj(1_000, 1_250), Some(250));
        assert_eq!(used_uj(1_250, 1_000), None);
    }

    #[test]
    fn the_counter_is_read_anew_each_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "7\n").unwrap();
        let meter = Meter::open(file.path().to_owned()).unwrap();
        fs::write(file.path(), "9\n").unwrap();
        assert_eq!(meter.read_uj().unwrap(), 9);
    }
}
