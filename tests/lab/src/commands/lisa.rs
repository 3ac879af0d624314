//! `lab lisa`: seven behaviours of energy-aware scheduling.

use super::{SETTLE, built, kernel};
use anyhow::{Context, Result};
use lab::behaviour::Behaviours;
use lab::cache::Cache;
use lab::catalogue;
use lab::session::{EEVDF_EAS, Scheduler};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// See the command's help.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A virtual machine with an Energy Model, as for `run`; its variant whose Energy Model is the truth is added
    #[arg(long, default_value = "phone-3c-gs101")]
    machine: String,
    /// The scheduler's program
    #[arg(long, value_name = "PATH", default_value = "target/release/scx_joule")]
    scheduler_binary: PathBuf,
    /// Only the kernel's EAS
    #[arg(long, conflicts_with = "scheduler_binary")]
    kernel_only: bool,
    /// The workload runner's program
    #[arg(long, value_name = "PATH", default_value = "target/release/joule-load")]
    load_binary: PathBuf,
    /// Simulated time for which a scheduler that is a program learns before it is judged
    #[arg(long, value_name = "SECS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    settle: u32,
    /// A series or a release
    #[arg(long)]
    kernel: Option<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let machine = catalogue::machine(&args.machine)?;
    let mut schedulers = Scheduler::of_kernel(&machine);
    schedulers.retain(|scheduler| scheduler.name == EEVDF_EAS);
    if !args.kernel_only {
        schedulers.push(Scheduler::of_program(&built(&args.scheduler_binary)?, ""));
    }
    let behaviours = Behaviours {
        machine,
        schedulers,
        settle: (catalogue::workload(SETTLE)?, args.settle),
        load: built(&args.load_binary)?,
    };
    let cache = Cache::open()?;
    let kernel = kernel(&cache, args.kernel.as_deref())?;
    let verdicts = behaviours.run(&cache, &kernel)?;
    let path = lab::guest::logs().join("lisa.json");
    lab::cache::write(&path, serde_json::to_vec_pretty(&verdicts)?)?;
    write!(std::io::stdout(), "{verdicts}").context("cannot write")?;
    Ok(ExitCode::SUCCESS)
}
