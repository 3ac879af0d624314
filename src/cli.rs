//! The command line, and nothing but the command line: no defaults that mean anything, no system.

pub mod model;
pub mod stat;

use clap::{ArgGroup, Args, Parser, Subcommand};
use std::path::PathBuf;

const EXIT_CODES: &str = "Exit codes: 0 stopped as asked or check passed; 1 the scheduler failed or was \
ejected (the kernel's default scheduler is back); 2 wrong command line, profile or file; 3 this \
machine cannot run it (see `scx_joule check`)";

/// A sched_ext scheduler that places work where it costs the fewest joules.
///
/// Without a sub-command it takes over the CPU scheduling of this machine until it is stopped
/// (Ctrl-C), which gives the kernel's default scheduler back.
#[derive(Clone, Debug, Parser)]
#[command(version, after_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Something other than scheduling.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to schedule.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What the program does other than scheduling.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Say what this machine offers, what is missing, and what to type to fix it.
    ///
    /// Exits with 0 when the scheduler can run here and now, with 1 when it cannot.
    Check {
        /// Print the findings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure this machine's power under loads pinned to its CPUs, and save it for the scheduler to start from.
    ///
    /// Takes one to two minutes on an idle machine, sets frequency limits meanwhile and puts them back. Exits with 3
    /// where there is no energy meter.
    Calibrate(model::CalibrateArgs),
    /// Show, export, compare and add up what was calibrated.
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Keep one CPU busy: what `calibrate` starts.
    #[command(hide = true)]
    Busy(model::BusyArgs),
    /// Show power, clocks, idle states, heat and what the scheduler does, as turbostat would.
    ///
    /// With a command, runs it, shows what it took on standard error and exits with its exit code.
    Stat(stat::StatArgs),
    /// Write energy and activity into a file, for `--dry-run --replay`.
    Record(stat::RecordArgs),
}

/// Options of the scheduler itself.
#[derive(Clone, Debug, Default, Args)]
#[command(group = ArgGroup::new("printing").multiple(true))]
pub struct RunArgs {
    /// battery, balanced (default), performance, or the path of a profile file.
    #[arg(short, long, value_name = "NAME|FILE")]
    pub profile: Option<String>,

    /// Time slice in microseconds, in place of the profile's.
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u64).range(100..=20_000))]
    pub slice_us: Option<u64>,

    /// Schedule by the prior alone: measure and fit, but let it change nothing.
    #[arg(long)]
    pub no_steer: bool,

    /// Schedule nothing: measure, fit and print what would be decided, every second or --stats SECS.
    #[arg(long, group = "printing", conflicts_with_all = ["monitor", "no_steer", "slice_us", "exit_dump_len"])]
    pub dry_run: bool,

    /// Take energy and activity from a recording (`scx_joule record`) instead of this machine.
    #[arg(long, value_name = "FILE", requires = "dry_run")]
    pub replay: Option<PathBuf>,

    /// Print statistics every SECS seconds while scheduling.
    #[arg(long, value_name = "SECS", value_parser = interval, group = "printing")]
    pub stats: Option<f64>,

    /// Print the statistics of the scheduler that is already running; start nothing.
    #[arg(long, value_name = "SECS", value_parser = interval, group = "printing", conflicts_with = "stats")]
    pub monitor: Option<f64>,

    /// Print statistics in full as JSON, one object a line, counters since the start.
    #[arg(long, requires = "printing")]
    pub json: bool,

    /// Explain every statistic.
    #[arg(long)]
    pub help_stats: bool,

    /// Bytes of the debug dump kept when the kernel ejects the scheduler (0: the kernel's default).
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub exit_dump_len: u32,

    /// Say more; twice: let libbpf speak too.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

fn interval(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.1..=86_400.0).contains(seconds))
        .ok_or_else(|| "an interval of 0.1 to 86400 seconds is wanted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn intervals_outside_the_range_are_refused() {
        for wrong in ["0", "-1", "NaN", "inf", "1e9", "x"] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }
}
