//! The table in its formats. All are made of the same cells: text for people, csv and json for programs, with
//! the time of each interval.

use super::view::Value;
use crate::cli::stat::Format;
use crate::observe::WIDEST;
use anyhow::Result;
use serde_json::{Map, Number, Value as Json, json};
use std::io::Write;

/// One interval, ready to be printed.
pub struct Table {
    /// Heads of the columns.
    pub heads: Vec<String>,
    /// What each row is about, and its cells in the order of the heads.
    pub rows: Vec<(&'static str, Vec<Value>)>,
    /// Length of the interval, s.
    pub seconds: f64,
    /// Its end, in seconds since 1970.
    pub time_of_day: f64,
}

/// Prints tables one after another.
pub struct Printer<W: Write> {
    out: W,
    format: Format,
    /// The heads that were printed last.
    heads: Option<Vec<String>>,
}

impl<W: Write> Printer<W> {
    /// Prints to `out`.
    pub fn new(out: W, format: Format) -> Self {
        Self {
            out,
            format,
            heads: None,
        }
    }

    /// Prints one interval.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn print(&mut self, table: &Table) -> Result<()> {
        match self.format {
            Format::Text => self.text(table)?,
            Format::Csv => self.csv(table)?,
            Format::Json => {
                serde_json::to_writer(&mut self.out, &json(table))?;
                writeln!(self.out)?;
            }
        }
        Ok(self.out.flush()?)
    }

    fn text(&mut self, table: &Table) -> std::io::Result<()> {
        let cells: Vec<Vec<String>> = table
            .rows
            .iter()
            .map(|(_, cells)| cells.iter().map(text).collect())
            .collect();
        let width = |index: usize, head: &String| {
            let column = cells.iter().filter_map(|row| row.get(index));
            let widest = column.map(|cell| cell.chars().count()).max();
            let widest = widest.unwrap_or(0).max(head.chars().count());
            widest.min(WIDEST)
        };
        let widths: Vec<usize> = table
            .heads
            .iter()
            .enumerate()
            .map(|(index, head)| width(index, head))
            .collect();
        for row in std::iter::once(&table.heads).chain(&cells) {
            let padded = row.iter().zip(&widths);
            let line: Vec<String> = padded
                .map(|(cell, &width)| format!("{cell:>width$}"))
                .collect();
            writeln!(self.out, "{}", line.join(" "))?;
        }
        Ok(())
    }

    fn csv(&mut self, table: &Table) -> Result<()> {
        let mut writer = csv::Writer::from_writer(&mut self.out);
        if self.heads.as_ref() != Some(&table.heads) {
            let first = [TIME, SECONDS, "Row"].map(str::to_owned);
            writer.write_record(first.iter().chain(&table.heads))?;
            self.heads = Some(table.heads.clone());
        }
        for (kind, cells) in &table.rows {
            let time = [
                format!("{:.6}", table.time_of_day),
                format!("{:.6}", table.seconds),
                (*kind).to_owned(),
            ];
            writer.write_record(time.into_iter().chain(cells.iter().map(text)))?;
        }
        Ok(writer.flush()?)
    }
}

const TIME: &str = "Time_Of_Day_Seconds";
const SECONDS: &str = "Seconds";

/// A cell for people: what is unknown is `-`.
fn text(value: &Value) -> String {
    match value {
        Value::Unknown => "-".to_owned(),
        Value::Count(count) => count.to_string(),
        Value::Real(value, decimals) => format!("{value:.decimals$}"),
    }
}

/// One object; what is unknown is null.
fn json(table: &Table) -> Json {
    let cell = |value: &Value| match value {
        Value::Unknown => Json::Null,
        Value::Count(count) => json!(count),
        Value::Real(value, _) => Number::from_f64(*value).map_or(Json::Null, Json::Number),
    };
    let rows = table.rows.iter().map(|(kind, cells)| {
        let cells = table.heads.iter().cloned().zip(cells.iter().map(cell));
        let row = [("Row".to_owned(), json!(kind))];
        Json::Object(row.into_iter().chain(cells).collect::<Map<_, _>>())
    });
    json!({
        TIME: table.time_of_day,
        SECONDS: table.seconds,
        "rows": rows.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
