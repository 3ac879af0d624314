//! Entry point of the workload runner: parse, run, print, exit code.

use anyhow::{Context, Result};
use clap::Parser;
use joule_load::cli::{Cli, Command, FixedArgs, RunArgs};
use joule_load::meter::{Meter, used_uj};
use joule_load::report::{FixedReport, Means, Report, describe};
use joule_load::run::{Options, run};
use joule_load::source::Source;
use joule_load::work::{Limits, WorkUnits};
use joule_load::world::{cpu_set, pin};
use joule_load::{clock, rtapp};
use serde::Serialize;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

/// What shells report for a command that SIGINT ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run_workload(&args),
        Command::Fixed(args) => run_fixed(&args).map(|()| ExitCode::SUCCESS),
        Command::Check { files } => files
            .iter()
            .try_for_each(|file| {
                let workload = rtapp::read(file)?;
                writeln!(
                    std::io::stdout(),
                    "{}: {}",
                    file.display(),
                    describe(&workload)
                )
                .context("cannot write")
            })
            .map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("joule-load: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_workload(args: &RunArgs) -> Result<ExitCode> {
    let workload = rtapp::read(&args.file)?;
    if !workload.ignored.is_empty() {
        eprintln!(
            "joule-load: {}: ignored: {}",
            args.file.display(),
            workload.ignored.join(", ")
        );
    }
    let options = Options {
        duration_ns: args.duration,
        warmup_ns: args.warmup,
        seed: args.seed,
        meter: args.common.meter.clone().map(Meter::open).transpose()?,
    };
    let source = Source::choose(
        args.common.work,
        args.common.calibration,
        workload.calibration_cpu,
    )?;
    let outcome = run(&workload, &source, &options)?;
    let name = args
        .file
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    print(
        &Report::new(&name, args.seed, &source, &outcome),
        args.common.json,
    )?;
    Ok(if outcome.interrupted {
        ExitCode::from(INTERRUPTED)
    } else {
        ExitCode::SUCCESS
    })
}

fn run_fixed(args: &FixedArgs) -> Result<()> {
    let meter = args.common.meter.clone().map(Meter::open).transpose()?;
    let source = Source::choose(args.common.work, args.common.calibration, None)?;
    pin(&cpu_set(&[args.cpu])?)
        .with_context(|| format!("--cpu {}: no such CPU, or not usable here", args.cpu))?;
    let mut work = source.work();
    let never = AtomicBool::new(false);
    let limits = Limits {
        end_ns: u64::MAX,
        stop: &never,
    };
    let before_uj = meter.as_ref().map(Meter::read_uj).transpose()?;
    let (start_ns, start_cpu_ns) = (clock::now_ns()?, clock::cpu_time_ns()?);
    let done = work.run(WorkUnits::from_us(u64::from(args.work_ms) * 1_000), &limits)?;
    let (end_ns, end_cpu_ns) = (clock::now_ns()?, clock::cpu_time_ns()?);
    let after_uj = meter.as_ref().map(Meter::read_uj).transpose()?;
    let report = FixedReport {
        cpu: args.cpu,
        means: Means::of(&source),
        work_us: done.work.as_us(),
        wall_us: end_ns.saturating_sub(start_ns) / 1_000,
        cpu_us: end_cpu_ns.saturating_sub(start_cpu_ns) / 1_000,
        energy_uj: before_uj
            .zip(after_uj)
            .and_then(|(before, after)| used_uj(before, after)),
    };
    print(&report, args.common.json)
}

fn print<R: Serialize + Display>(report: &R, json: bool) -> Result<()> {
    let text = if json {
        serde_json::to_string(report)? + "\n"
    } else {
        report.to_string()
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write the report")
}
