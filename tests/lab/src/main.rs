//! Entry point of the lab: prepare kernels, boot them, compare schedulers on them.

mod commands;

use clap::{Parser, Subcommand};
use commands::{LAB_FAILED, bench, boot, cost, kernels, lisa, run};
use std::process::ExitCode;

/// Boots real kernels with sched_ext on an emulated machine whose energy is known
///
/// Downloads and builds are kept in $JOULE_CACHE, else $XDG_CACHE_HOME/scx_joule, else
/// ~/.cache/scx_joule; logs go to $JOULE_LOGS, else target/joule.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done; 2 wrong usage; 124 the guest ran out of time; 125 the lab failed \
                  (one line says why); `lab boot` otherwise hands on the guest's exit code."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Download, build and boot everything that other commands need
    Prepare {
        /// A series or a release instead of all series; may be given several times
        #[arg(long, value_name = "KERNEL")]
        kernel: Vec<String>,
        /// Look for newer kernels
        #[arg(long)]
        update: bool,
    },
    /// List kernels and what is known of them
    Kernels {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a command in a guest, or a shell on its console
    Boot(boot::Args),
    /// Build the schedulers that others wrote, with which scx_joule is compared
    Peers,
    /// Count the instructions that schedulers execute per wake-up; writes cost.json to the logs, too
    Cost(cost::Args),
    /// Compare schedulers by energy and response times; writes run.json to the logs, too
    Run(run::Args),
    /// Compare schedulers over machines and workloads; writes lab.csv, lab.md and plots to the logs, too
    Bench(bench::Args),
    /// Judge seven behaviours of energy-aware scheduling by the Energy Model, as Arm's LISA does; writes lisa.json to the
    /// logs, too
    Lisa(lisa::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Prepare { kernel, update } => kernels::prepare(&kernel, update),
        Command::Kernels { json } => kernels::list(json),
        Command::Boot(args) => boot::run(&args),
        Command::Peers => cost::peers(),
        Command::Cost(args) => cost::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Lisa(args) => lisa::run(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::from(LAB_FAILED)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
