//! The command line. Touches no system.

use crate::source::Kind;
use clap::{Args, Parser, Subcommand};
use std::num::NonZeroU64;
use std::path::PathBuf;

/// Runs workloads written in rt-app's JSON and reports how each job fared
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a workload; exits with 130 after a report when interrupted
    #[command(after_long_help = GRAMMAR)]
    Run(RunArgs),
    /// Do a fixed amount of work on one CPU and tell how long it took
    Fixed(FixedArgs),
    /// Read workloads without running them
    Check {
        /// Workload files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// The part of the manual that rt-app's does not have.
const GRAMMAR: &str = "\
Workload files are rt-app's JSON: tasks with instance, loop, delay, policy, priority, cpus, taskgroup, phases; \
the events run, runtime, sleep, timer, yield, suspend, resume, in the order of the file and with any \
suffix (run1, run_late); global with duration (s), calibration (\"CPU3\"), default_policy. Times are in \
µs; run is µs of work on the biggest CPU at its highest frequency. Comments are allowed.

Beyond rt-app:
  load_pct 6.5      an event: work for 6.5 % of the phase's timer period on the biggest CPU
  jitter_pct 20     of a task or phase: each pass draws its work within ± 20 %
  deadline 10000    of a task or phase: a job is missed when complete later than this after it was due
  nice 10           of a task: its nice value (priority means the same where there is no real time)
  ring {members, messages, work, period}
                    instead of phases: a burst of messages goes round a ring of threads connected
                    by pipes; every message costs every member work µs; bursts are due every period
                    µs (without: one after the other), loop counts them. The burst is the job.
  taskgroups {\"/name\": {\"weight\": 300}}
                    of global: cpu.weight of the cgroup that tasks name as their taskgroup, 1 to
                    10000; one without an entry has 100. Groups are created below the runner's own
                    cgroup and removed after the run; those that exist are used and left.

A job is the work between two waits. It is due when its wait was to end and complete at the next wait. \
A relative timer that was missed skips to the latest expiry and counts what it skipped; an absolute one \
makes up for every expiry. Every thread's start is delayed by an offset drawn within its timer's period.";

/// Options of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Workload file
    pub file: PathBuf,
    /// Run this long instead of the file's global.duration
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub duration: Option<u64>,
    /// Run the same load this long first, without counting it
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub warmup: Option<u64>,
    /// Draw start offsets within the period, and jitter, from this seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// How work is done and reported.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `fixed`.
#[derive(Debug, Args)]
pub struct FixedArgs {
    /// The CPU to do it on
    #[arg(long, value_name = "N")]
    pub cpu: usize,
    /// How much, in ms of the biggest CPU at its highest frequency
    #[arg(long, value_name = "M")]
    pub work_ms: u32,
    /// How work is done and reported.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What `run` and `fixed` share.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// How work is done
    #[arg(long, value_enum, default_value_t = Kind::Auto)]
    pub work: Kind,
    /// Cost of one loop on the biggest CPU at its highest frequency, in ns, instead of measuring it
    #[arg(long, value_name = "NS", value_parser = picoseconds)]
    pub calibration: Option<NonZeroU64>,
    /// A file with one number in µJ, read before and after, such as powercap's energy_uj
    #[arg(long, value_name = "PATH")]
    pub meter: Option<PathBuf>,
    /// Report as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Seconds as ns.
fn seconds(text: &str) -> Result<u64, String> {
    let ns = decimal(text, 9).filter(|ns| (1..=86_400_000_000_000).contains(ns));
    ns.ok_or_else(|| "give seconds above 0, at most 86400, such as 15 or 0.5".to_owned())
}

/// Nanoseconds as ps.
fn picoseconds(text: &str) -> Result<NonZeroU64, String> {
    let ps = decimal(text, 3)
        .filter(|ps| *ps <= 1_000_000_000)
        .and_then(NonZeroU64::new);
    ps.ok_or_else(|| "give ns above 0, at most 1000000, such as 12.345".to_owned())
}

/// A decimal number times 10^digits, without rounding; `None` when it is not one or has more digits.
fn decimal(text: &str, digits: usize) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > digits || !(whole.bytes().chain(part.bytes())).all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    format!("{whole}{part:0<digits$}").parse().ok()
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
    fn seconds_may_have_a_fraction_and_nothing_else() {
        assert_eq!(seconds("15"), Ok(15_000_000_000));
        assert_eq!(seconds("0.5"), Ok(500_000_000));
        for wrong in [
            "",
            "0",
            "-1",
            "1e3",
            "1.0000000001",
            "86401",
            "0x1",
            "1.2.3",
            "99999999999999999999",
        ] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_calibration_keeps_its_picoseconds() {
        assert_eq!(picoseconds("12.345").map(NonZeroU64::get), Ok(12_345));
        assert!(picoseconds("0").is_err());
    }
}
