//! The one list of columns: name, unit, where it comes from, what it means and how a row's cell is had.
//! `--list`, the table's head, every format and the documentation's test follow from it.

mod idle;
mod power;
mod work;

use super::energy::Meter;
use super::view::{Row, Value, View};
use crate::energy::activity::Feed;

/// Where a column's figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The machine's description.
    Place,
    /// The clock on the wall, and the program itself.
    Time,
    /// Activity; of perf's feeds the event that must be there.
    Activity(Feed, &'static str),
    /// An energy meter of this domain.
    Meter(Meter),
    /// The running scheduler's statistics.
    Scheduler,
}

/// When a column is shown without being named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Always.
    Always,
    /// Unless `--Joules` is given.
    Watts,
    /// When `--Joules` is given.
    Joules,
    /// Only by `--show` or `--enable`.
    Asked,
}

/// How the cell of a row is had.
#[derive(Clone, Copy)]
pub enum Read {
    /// One column.
    One(fn(&View, &Row) -> Value),
    /// One column for each idle state that cpuidle names; `<state>` in the name stands for it.
    EachState(fn(&View, &Row, &str) -> Value),
}

/// One column, or one for each idle state.
pub struct Column {
    /// Its head.
    pub name: &'static str,
    /// Unit of its figures; empty for numbers of things.
    pub unit: &'static str,
    /// The rows that can have a figure.
    pub rows: &'static str,
    /// Where it comes from.
    pub source: Source,
    /// When it is shown.
    pub shown: Shown,
    /// What it tells.
    pub meaning: &'static str,
    /// How.
    pub read: Read,
}

const ALL: &str = "all";
const PACKAGES: &str = "system, package";
const CPUS: &str = "CPU";
const SYSTEM: &str = "system";

const fn column(
    name: &'static str,
    unit: &'static str,
    rows: &'static str,
    source: Source,
    meaning: &'static str,
    read: fn(&View, &Row) -> Value,
) -> Column {
    Column {
        name,
        unit,
        rows,
        source,
        shown: Shown::Always,
        meaning,
        read: Read::One(read),
    }
}

impl Column {
    const fn shown(mut self, shown: Shown) -> Self {
        self.shown = shown;
        self
    }

    /// The head of the column for one idle state.
    pub fn name_for(&self, state: &str) -> String {
        self.name.replace("<state>", state)
    }
}

const fn perf(feed: Feed, event: &'static str) -> Source {
    Source::Activity(feed, event)
}

const fn files(feed: Feed) -> Source {
    Source::Activity(feed, "")
}

const fn each_state(
    name: &'static str,
    unit: &'static str,
    meaning: &'static str,
    read: fn(&View, &Row, &str) -> Value,
) -> Column {
    Column {
        name,
        unit,
        rows: ALL,
        source: files(Feed::IdleStates),
        shown: Shown::Always,
        meaning,
        read: Read::EachState(read),
    }
}

const MHZ: &str = "MHz";
const PERCENT: &str = "%";
const CELSIUS: &str = "°C";

/// All columns, in the order in which they are printed.
pub const COLUMNS: &[&[Column]] = &[
    work::PLACES,
    work::CLOCKS,
    work::EVENTS,
    idle::IDLE,
    idle::THERMAL,
    &power::PACKAGE,
    &power::CORES,
    &power::GRAPHICS,
    &power::MEMORY,
    &power::SYSTEM,
    power::SCHEDULER,
];

/// All columns, in the order in which they are printed.
pub fn columns() -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().flat_map(|group| group.iter())
}

fn mhz(hz: Option<f64>) -> Value {
    Value::real(hz.map(|hz| hz / 1e6), 0)
}

fn percent(part: Option<f64>) -> Value {
    Value::real(part.map(|part| 100.0 * part), 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_column_has_a_name_of_its_own_that_fits_a_shell_word_and_csv() {
        let names: BTreeSet<&str> = columns().map(|column| column.name).collect();
        assert_eq!(names.len(), columns().count());
        let fits = |c: char| c.is_ascii_graphic() && !",\"'$&;|*?".contains(c);
        assert!(names.iter().all(|name| name.chars().all(fits)));
    }

    #[test]
    fn columns_of_power_and_energy_come_in_pairs() {
        let of = |shown| {
            columns()
                .filter(move |column| column.shown == shown)
                .count()
        };
        assert_eq!(2 * of(Shown::Watts), of(Shown::Joules));
    }
}
