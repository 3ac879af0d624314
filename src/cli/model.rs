//! Sub-commands around the energy model of a machine.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Options of `calibrate`.
#[derive(Clone, Debug, Args)]
pub struct CalibrateArgs {
    /// How long it shall take, all steps together.
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub seconds: Option<u64>,

    /// What keeps a CPU busy, instead of a built-in loop: one command, started once for each busy CPU, pinned
    /// there, and killed.
    #[arg(long, value_name = "CMD")]
    pub load: Option<String>,

    /// Where to save the model, instead of where the scheduler looks for it.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What to do with saved models. Without FILE: this machine's.
#[derive(Clone, Debug, Subcommand)]
pub enum ModelCommand {
    /// Print what is believed of each operating point, with error bars, beside the kernel's Energy Model.
    Show {
        /// A saved model.
        file: Option<PathBuf>,
        /// Draw it, too.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Print it as the kernel's Energy Model would: CSV of performance domains and states.
    ///
    /// Columns: domain, cpus (a kernel CPU list), frequency (kHz), performance (capacity, 0 to 1024), power (µW of
    /// the first busy CPU with what its domain shares, above idle), cost (10 × power / performance, as
    /// kernel/power/energy_model.c computes it).
    Export {
        /// A saved model.
        file: Option<PathBuf>,
        /// Write it as a directory tree like /sys/kernel/debug/energy_model instead, for tools that read that.
        #[arg(long, value_name = "DIR")]
        tree: Option<PathBuf>,
    },
    /// Print where two models of one kind of machine differ by more than their error bars.
    Compare {
        /// A saved model.
        one: PathBuf,
        /// Another one.
        other: Option<PathBuf>,
    },
    /// Add up what was measured on machines of one kind.
    Merge {
        /// Saved models.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where to save the sum.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// Options of `busy`.
#[derive(Clone, Debug, Args)]
pub struct BusyArgs {
    /// The CPU to keep busy.
    #[arg(long)]
    pub cpu: usize,
    /// The process to die with.
    #[arg(long)]
    pub parent: u32,
    /// What keeps it busy, instead of the built-in loop.
    #[arg(long)]
    pub load: Option<String>,
}
