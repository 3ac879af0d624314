//! `lab boot`: a command, or a shell, in a guest.

use super::kernel;
use anyhow::{Context, Result, bail};
use lab::cache::Cache;
use lab::catalogue;
use lab::guest::Guest;
use lab::kernel::Kernels;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What `lab boot` answers for a guest that ran out of time.
const TIMED_OUT: u8 = 124;

/// See the command's help.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A series or a release
    #[arg(long)]
    kernel: Option<String>,
    /// The virtual machine: a name in tests/lab/machines, or a machine file
    #[arg(long)]
    machine: Option<String>,
    /// A program to put into the guest, with its libraries; may be given several times
    #[arg(long, value_name = "PATH")]
    program: Vec<PathBuf>,
    /// A file to put into the guest; may be given several times
    #[arg(long, value_name = "HOST:GUEST", value_parser = pair)]
    file: Vec<(PathBuf, String)>,
    /// CPUs, where no machine says how many
    #[arg(long, default_value_t = 8)]
    cpus: usize,
    /// Last-level caches that share the CPUs out evenly, where no machine says how many
    #[arg(long, default_value_t = 1)]
    caches: usize,
    /// Memory
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: u64,
    /// Limit of the emulator's CPU time
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    time_limit: u64,
    /// What to run, by the shell; nothing: an interactive shell
    #[arg(trailing_var_arg = true)]
    words: Vec<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let kernels = Kernels::new(&cache);
    let kernel = kernel(&cache, args.kernel.as_deref())?;
    let mut guest = Guest::new(&cache, &kernel, "boot")
        .cpus(args.cpus, 1)
        .sockets(args.caches)
        .memory_mib(args.memory)
        .time_limit(Duration::from_secs(args.time_limit))
        .script(&args.words.join(" "));
    if let Some(name) = &args.machine {
        let machine = catalogue::machine(name)?;
        guest = guest.soc(&kernels.soc(&kernel, &machine)?);
    }
    for program in &args.program {
        guest = guest.program(program);
    }
    for (host, path) in &args.file {
        guest = guest.file(host, path);
    }
    if args.words.is_empty() {
        guest = guest.interactive();
    }
    let outcome = guest.run()?;
    let mut out = std::io::stdout();
    let said = lab::console::without_kernel(&outcome.console) + &outcome.results;
    out.write_all(said.as_bytes()).context("cannot write")?;
    for alarm in &outcome.alarms {
        eprintln!("lab: the guest's kernel complains: {alarm}");
    }
    if outcome.timed_out {
        return Ok(ExitCode::from(TIMED_OUT));
    }
    match outcome.exit_code {
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))),
        None => bail!(
            "the guest died without an exit code; see {}",
            outcome.console_path.display()
        ),
    }
}

/// `HOST:GUEST`.
fn pair(text: &str) -> Result<(PathBuf, String), String> {
    match text.split_once(':') {
        Some((host, guest)) if !host.is_empty() && !guest.is_empty() => {
            Ok((host.into(), guest.to_owned()))
        }
        _ => Err("give HOST:GUEST, such as load.json:/load.json".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_both_paths() {
        assert!(pair("a:/b").is_ok());
        assert!(pair("a").is_err() && pair(":/b").is_err() && pair("a:").is_err());
    }
}
