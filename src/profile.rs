//! Profiles: what a user is willing to trade for joules, as a small TOML file.
//!
//! Profiles are named by intent, never by CPU model: the model of the machine is learned, the intent
//! is the user's. Three come with the program; `--profile PATH` takes any other file.

use crate::error::{Error, Result};
use crate::units::Nanos;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Profiles that come with the program, by name.
const BUILT_IN: [(&str, &str); 3] = [
    ("battery", include_str!("../profiles/battery.toml")),
    ("balanced", include_str!("../profiles/balanced.toml")),
    ("performance", include_str!("../profiles/performance.toml")),
];

/// What the user asks for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// One line for people: what this profile is for.
    pub intent: String,
    /// Run time a task is given before others in its queue get their turn. 100..=20000 µs.
    pub slice_us: u64,
    /// Capacity asked for per capacity needed, in percent: 125 leaves a quarter of the CPU free for
    /// what the past did not show. More headroom means higher clocks and fewer late jobs. 100..=300.
    pub headroom_pct: u32,
    /// Saving, in percent of the price of staying, that a task must promise before it leaves the
    /// group it last ran in, whose caches are warm. 0..=50.
    pub hysteresis_pct: u32,
    /// How long a task may be kept waiting for a busy CPU rather than wake an idle one, if that saved all of
    /// its energy; for a part of it, that part of the time. While little is to be done, also rather than wake another
    /// cluster than the one that does it all. 0..=20000 µs; 0: never.
    pub patience_us: u32,
    /// One wake-up in twenty may wait longer than this for a CPU; where more do, clocks rise and nothing waits by
    /// choice to save a part of its energy. 100..=100000 µs.
    pub wait_us: u64,
}

impl Profile {
    /// The profile's slice.
    pub fn slice(&self) -> Nanos {
        Nanos::new(self.slice_us * 1000)
    }

    /// The longest wait of nineteen wake-ups in twenty.
    pub fn wait(&self) -> Nanos {
        Nanos::new(self.wait_us * 1000)
    }

    /// Loads a built-in profile by name, or a file when `name` has a slash or ends in `.toml`.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name that is not built in; [`Error::Io`] and [`Error::Setting`]
    /// for files, naming the line and what would be right.
    pub fn load(name: &str) -> Result<Self> {
        if name.contains('/') || name.ends_with(".toml") {
            let path = PathBuf::from(name);
            let text = std::fs::read_to_string(&path).map_err(|source| Error::Io {
                path: path.clone(),
                source,
            })?;
            return Self::parse(&path, &text);
        }
        BUILT_IN
            .iter()
            .find(|(built_in, _)| *built_in == name)
            .map(|(_, text)| Self::parse(Path::new(name), text))
            .unwrap_or_else(|| {
                Err(Error::Unknown {
                    what: "profile",
                    value: name.to_owned(),
                    known: "battery, balanced, performance, or the path of a .toml file".to_owned(),
                })
            })
    }

    fn parse(path: &Path, text: &str) -> Result<Self> {
        let wrong = |line: usize, value: String, reason: String| Error::Setting {
            path: path.to_owned(),
            line,
            value,
            reason,
        };
        let profile: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line_start = text
                .get(..start)
                .map_or(0, |head| head.matches('\n').count());
            let value = text.lines().nth(line_start).unwrap_or_default().trim();
            wrong(line_start + 1, value.to_owned(), error.message().to_owned())
        })?;
        let ranges = [
            ("slice_us", profile.slice_us, 100, 20_000),
            ("headroom_pct", u64::from(profile.headroom_pct), 100, 300),
            ("hysteresis_pct", u64::from(profile.hysteresis_pct), 0, 50),
            ("patience_us", u64::from(profile.patience_us), 0, 20_000),
            ("wait_us", profile.wait_us, 100, 100_000),
        ];
        for (field, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                let line = text
                    .lines()
                    .position(|line| line.trim_start().starts_with(field));
                return Err(wrong(
                    line.map_or(1, |index| index + 1),
                    format!("{field} = {value}"),
                    format!("must be within {least}..={most}"),
                ));
            }
        }
        Ok(profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> std::result::Result<Profile, String> {
        Profile::parse(Path::new("p.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn every_built_in_profile_is_valid() {
        for (name, _) in BUILT_IN {
            Profile::load(name).unwrap();
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = Profile::load("turbo").unwrap_err().to_string();
        assert!(
            error.contains("'turbo'") && error.contains("battery, balanced"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_value_names_file_line_value_and_range() {
        let text = "intent = 'x'\nslice_us = 5\nheadroom_pct = 125\nhysteresis_pct = 5\npatience_us = 0\nwait_us = 100\n";
        assert_eq!(
            parse(text).unwrap_err(),
            "p.toml:2: 'slice_us = 5': must be within 100..=20000"
        );
    }

    #[test]
    fn an_unknown_field_names_the_known_ones() {
        let error = parse("intent = 'x'\nslice = 5\n").unwrap_err();
        assert!(error.starts_with("p.toml:2: 'slice = 5'"), "{error}");
        assert!(error.contains("slice_us"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }
    }
}
