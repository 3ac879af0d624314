//! Lines of words, as the module prints them.

use super::TruthError;
use std::collections::HashMap;

pub(super) fn malformed(line: usize, message: impl Into<String>) -> TruthError {
    TruthError::Malformed {
        line,
        message: message.into(),
    }
}

/// A line: its first word, and the others.
pub(super) struct Line<'a> {
    pub number: usize,
    pub key: &'a str,
    pub rest: Vec<&'a str>,
}

impl<'a> Line<'a> {
    pub fn new(number: usize, text: &'a str) -> Self {
        let mut words = text.split_ascii_whitespace();
        Self {
            number,
            key: words.next().unwrap_or(""),
            rest: words.collect(),
        }
    }

    pub fn wrong(&self, message: &str) -> TruthError {
        malformed(
            self.number,
            format!("'{} {}' {message}", self.key, self.rest.join(" ")),
        )
    }

    pub fn word(&self) -> Result<&'a str, TruthError> {
        self.rest
            .first()
            .copied()
            .ok_or_else(|| self.wrong("has no value"))
    }

    /// The value of a line that has only one.
    pub fn number(&self) -> Result<u64, TruthError> {
        match self.rest.as_slice() {
            [_] => self.first_number(),
            _ => Err(self.wrong("does not have one value")),
        }
    }

    pub fn first_number(&self) -> Result<u64, TruthError> {
        self.parsed(self.word()?)
    }

    pub fn parsed(&self, word: &str) -> Result<u64, TruthError> {
        word.parse()
            .map_err(|_| self.wrong("has a word where a number is right"))
    }

    /// `name value` pairs after the first `skip` words.
    pub fn fields(&self, skip: usize) -> Result<HashMap<&'a str, u64>, TruthError> {
        let words = self.rest.get(skip..).unwrap_or_default();
        words
            .chunks(2)
            .map(|pair| match pair {
                [name, value] => value.parse().ok().map(|value| (*name, value)),
                _ => None,
            })
            .collect::<Option<_>>()
            .ok_or_else(|| self.wrong("is not made of names and numbers"))
    }

    pub fn get(&self, fields: &HashMap<&str, u64>, name: &str) -> Result<u64, TruthError> {
        fields
            .get(name)
            .copied()
            .ok_or_else(|| self.wrong(&format!("has no {name}")))
    }
}
