//! `lab run`: schedulers on one machine under one workload.

use super::{built, kernel};
use anyhow::{Context, Result};
use lab::cache::Cache;
use lab::catalogue;
use lab::scenario::Scenario;
use lab::session::Scheduler;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Simulated time before each measurement, for utilisation signals and models to settle.
const WARMUP: Duration = Duration::from_secs(1);

/// See the command's help.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The virtual machine: a name in tests/lab/machines, or a machine file
    #[arg(long, default_value = "phone-3c-gs101")]
    machine: String,
    /// The workload: a name in bench/workloads, or a file in rt-app's JSON
    #[arg(long, default_value = "light-burst")]
    workload: String,
    /// A series or a release
    #[arg(long)]
    kernel: Option<String>,
    /// The scheduler's program
    #[arg(long, value_name = "PATH", default_value = "target/release/scx_joule")]
    scheduler_binary: PathBuf,
    /// Arguments for it, as one word; given several times, it runs once with each
    #[arg(
        long,
        value_name = "ARGS",
        default_values = ["", "--no-steer"],
        allow_hyphen_values = true
    )]
    scheduler_args: Vec<String>,
    /// Only the kernel's own schedulers
    #[arg(long, conflicts_with_all = ["scheduler_binary", "scheduler_args"])]
    kernel_only: bool,
    /// The workload runner's program
    #[arg(long, value_name = "PATH", default_value = "target/release/joule-load")]
    load_binary: PathBuf,
    /// How many times the workload's phases are drawn anew
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=100))]
    seeds: u64,
    /// Simulated time for each seed
    #[arg(long, value_name = "SECS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let machine = catalogue::machine(&args.machine)?;
    let mut schedulers = Scheduler::of_kernel(&machine);
    if !args.kernel_only {
        let program = built(&args.scheduler_binary)?;
        let with = |arguments: &String| Scheduler::of_program(&program, arguments);
        schedulers.extend(args.scheduler_args.iter().map(with));
    }
    let scenario = Scenario {
        machine,
        workload: catalogue::workload(&args.workload)?,
        load: built(&args.load_binary)?,
        schedulers,
        seeds: args.seeds,
        seconds: args.seconds,
        warmup: WARMUP,
    };
    let cache = Cache::open()?;
    let kernel = kernel(&cache, args.kernel.as_deref())?;
    let names: Vec<_> = scenario
        .schedulers
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    eprintln!(
        "lab: {} under {} on Linux {}",
        args.workload,
        names.join(", "),
        kernel.release
    );
    let report = scenario.run(&cache, &kernel)?;
    let path = lab::guest::logs().join("run.json");
    lab::cache::write(&path, serde_json::to_vec_pretty(&report)?)?;
    write!(std::io::stdout(), "{report}").context("cannot write")?;
    Ok(ExitCode::SUCCESS)
}
