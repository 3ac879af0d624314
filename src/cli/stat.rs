//! Sub-commands that look on: `stat` and `record`.

use super::interval;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Options of `stat`, named as turbostat's.
#[derive(Clone, Debug, Default, Args)]
pub struct StatArgs {
    /// Print every SECS seconds (default 5).
    #[arg(short, long, value_name = "SECS", value_parser = interval, conflicts_with = "command")]
    pub interval: Option<f64>,

    /// Print N times, then exit.
    #[arg(
        short,
        long,
        visible_alias = "num_iterations",
        value_name = "N",
        conflicts_with = "command"
    )]
    pub num_iterations: Option<u64>,

    /// Show energy in joules, with how far it may be off, in place of power in watts.
    #[arg(short = 'J', long = "Joules")]
    pub joules: bool,

    /// Show these columns only; `sysfs` stands for those of idle states, `all` for every column.
    #[arg(short, long, value_name = "COLUMNS", value_delimiter = ',')]
    pub show: Vec<String>,

    /// Do not show these columns.
    #[arg(short = 'H', long, value_name = "COLUMNS", value_delimiter = ',')]
    pub hide: Vec<String>,

    /// Show these columns as well.
    #[arg(short, long, value_name = "COLUMNS", value_delimiter = ',')]
    pub enable: Vec<String>,

    /// Print the columns' names.
    #[arg(short, long)]
    pub list: bool,

    /// Rows of these CPUs and of the system only: a list such as 0-3,8, `core` or `package` for the first of each.
    #[arg(short, long, value_name = "CPUS")]
    pub cpu: Option<String>,

    /// The row of the system only.
    #[arg(short = 'S', long = "Summary")]
    pub summary: bool,

    /// How to print (default text).
    #[arg(short, long, value_enum)]
    pub format: Option<Format>,

    /// Print into this file, which is emptied first.
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Do not tell what is missing and why.
    #[arg(short, long)]
    pub quiet: bool,

    /// What to run and measure.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<String>,
}

/// Formats of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned, for people.
    Text,
    /// Comma separated values.
    Csv,
    /// One JSON object for each interval.
    Json,
}

/// Options of `record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// The recording; one that is there already is gone on with.
    pub file: PathBuf,

    /// Write a sample every SECS seconds (default 1).
    #[arg(short, long, value_name = "SECS", value_parser = interval)]
    pub interval: Option<f64>,

    /// Write N samples, then exit.
    #[arg(short, long, visible_alias = "num_iterations", value_name = "N")]
    pub num_iterations: Option<u64>,
}
