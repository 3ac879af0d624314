//! Entry point: parse, set up the log, dispatch, exit code.

use anyhow::{Context, Result};
use clap::Parser;
use crossbeam_channel::{Receiver, bounded};
use scx_joule::cli::{Cli, RunArgs};
use scx_joule::config::Config;
use scx_joule::sysroot::SysRoot;
use scx_joule::{daemon, stats};
use std::process::ExitCode;
use std::time::Duration;

/// The scheduler failed or was ejected.
const FAILED: u8 = 1;
/// The command line, a profile or a file is wrong.
const USAGE: u8 = 2;

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
    let outcome = match Config::new(&cli.run) {
        _ if cli.run.help_stats => stats::explain(&mut std::io::stdout()),
        Ok(config) => schedule(&cli.run, &config),
        Err(error) => return fail(USAGE, &error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &error),
    }
}

fn fail(code: u8, error: &anyhow::Error) -> ExitCode {
    eprintln!("scx_joule: {error:#}");
    ExitCode::from(code)
}

/// Runs the scheduler, or the monitor of one that runs.
fn schedule(args: &RunArgs, config: &Config) -> Result<()> {
    let stop = stop_on_signal()?;
    if let Some(seconds) = args.monitor {
        return stats::monitor(Duration::from_secs_f64(seconds), || !stop.is_empty());
    }
    if let Some(interval) = config.stats {
        std::thread::spawn(move || stats::monitor(interval, || false));
    }
    daemon::run(config, &SysRoot::host(), &stop)
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
