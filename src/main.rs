//! Entry point: parse, set up the log, dispatch, exit code.

use anyhow::{Context, Result};
use clap::Parser;
use crossbeam_channel::{Receiver, bounded};
use scx_joule::calibrate::{self, Ending};
use scx_joule::cli::model::CalibrateArgs;
use scx_joule::cli::stat::RecordArgs;
use scx_joule::cli::{Cli, Command, RunArgs};
use scx_joule::config::{self, Config};
use scx_joule::error::Error;
use scx_joule::observe::{check, model, stat};
use scx_joule::sysroot::SysRoot;
use scx_joule::{daemon, stats};
use std::process::ExitCode;
use std::time::Duration;

/// The scheduler failed or was ejected.
const FAILED: u8 = 1;
/// The command line, a profile or a file is wrong.
const USAGE: u8 = 2;
/// This machine cannot run the scheduler.
const UNABLE: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.run.verbose {
        0 => "info",
        1 => "debug",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level))
        .format_timestamp(None)
        .init();
    let sys = SysRoot::host();
    let outcome = match cli.command {
        Some(Command::Check { json }) => check::run(&sys, json),
        Some(Command::Calibrate(args)) => calibrate(&args, &sys),
        Some(Command::Model(command)) => match model::run(&command, &config::state_directory()) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Ok(fail(USAGE, &format!("{error:#}"))),
        },
        Some(Command::Busy(args)) => calibrate::load::busy(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Stat(args)) => stat::run(&sys, &args),
        Some(Command::Record(args)) => record(&args, &sys),
        None => run(&cli.run, &sys),
    };
    outcome.unwrap_or_else(|error| fail(FAILED, &format!("{error:#}")))
}

fn fail(code: u8, message: &str) -> ExitCode {
    eprintln!("scx_joule: {message}");
    ExitCode::from(code)
}

/// Schedules, or watches or explains a scheduler that somebody else runs.
fn run(args: &RunArgs, sys: &SysRoot) -> Result<ExitCode> {
    if args.help_stats {
        stats::explain(&mut std::io::stdout())?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = match Config::new(args) {
        Ok(config) => config,
        Err(error) => return Ok(fail(USAGE, &error.to_string())),
    };
    let stop = stop_on_signal()?;
    if let Some(seconds) = args.monitor {
        stats::monitor(Duration::from_secs_f64(seconds), config.json, || {
            !stop.is_empty()
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run {
        match &args.replay {
            Some(path) => daemon::dry_run::replay(&config, path, &stop)?,
            None => daemon::dry_run::run(&config, sys, &stop)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let obstacles = check::check(sys).obstacles();
    if !obstacles.is_empty() {
        return Ok(fail(UNABLE, &obstacles.join("\nscx_joule: ")));
    }
    if let Some(interval) = config.stats {
        let json = config.json;
        std::thread::spawn(move || stats::monitor(interval, json, || false));
    }
    daemon::run(&config, sys, &stop)?;
    Ok(ExitCode::SUCCESS)
}

/// Measures the machine, and says why where it cannot.
fn calibrate(args: &CalibrateArgs, sys: &SysRoot) -> Result<ExitCode> {
    match calibrate::run(args, sys, &stop_on_signal()?) {
        Ok(Ending::Saved) => Ok(ExitCode::SUCCESS),
        Ok(Ending::Stopped) => Ok(fail(FAILED, "stopped; nothing is saved")),
        Ok(Ending::Unable(why)) => Ok(fail(UNABLE, &why)),
        Err(error) if matches!(error.downcast_ref(), Some(Error::Denied { .. })) => {
            Ok(fail(UNABLE, &format!("{error:#}")))
        }
        Err(error) => Err(error),
    }
}

/// Writes a recording.
fn record(args: &RecordArgs, sys: &SysRoot) -> Result<ExitCode> {
    let interval = args.interval.map(Duration::from_secs_f64);
    let interval = interval.unwrap_or(daemon::record::INTERVAL);
    let stop = stop_on_signal()?;
    daemon::record::run(sys, &args.file, interval, args.num_iterations, &stop)?;
    Ok(ExitCode::SUCCESS)
}

/// A channel that receives when the user or the system wants the program to stop.
fn stop_on_signal() -> Result<Receiver<()>> {
    let (stopper, stop) = bounded(1);
    ctrlc::set_handler(move || {
        let _ = stopper.try_send(());
    })
    .context("handling signals")?;
    Ok(stop)
}
