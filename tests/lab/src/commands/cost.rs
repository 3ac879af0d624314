//! `lab cost`: instructions per wake-up; `lab peers`: whose, besides ours.

use super::{LAB_FAILED, built, kernel};
use anyhow::{Context, Result};
use lab::cache::Cache;
use lab::catalogue;
use lab::cost::{Count, MACHINES, Subject};
use lab::peers::{PEERS, Peers};
use lab::session::Scheduler;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// See the command's help.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The workload: a name in bench/workloads, or a file in rt-app's JSON
    #[arg(long, default_value = "messaging")]
    workload: String,
    /// A series or a release
    #[arg(long)]
    kernel: Option<String>,
    /// scx_joule's program
    #[arg(long, value_name = "PATH", default_value = "target/release/scx_joule")]
    scheduler_binary: PathBuf,
    /// The workload runner's program
    #[arg(long, value_name = "PATH", default_value = "target/release/joule-load")]
    load_binary: PathBuf,
    /// Windows of 0.5 simulated seconds to count
    #[arg(long, value_name = "N", default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=100))]
    windows: u32,
    /// Leave the peers out
    #[arg(long)]
    alone: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let kernel = kernel(&cache, args.kernel.as_deref())?;
    let peers = Peers::new(&cache);
    let mut subjects = vec![Subject {
        name: "scx_joule".to_owned(),
        // the workspace has one version
        version: env!("CARGO_PKG_VERSION").to_owned(),
        scheduler: Ok(Scheduler::of_program(&built(&args.scheduler_binary)?, "")),
    }];
    let beside = if args.alone { &[][..] } else { &PEERS };
    subjects.extend(beside.iter().map(|peer| Subject {
        name: peer.name.to_owned(),
        version: peer.version.to_owned(),
        scheduler: peers.scheduler(peer),
    }));
    let count = Count {
        machines: MACHINES.to_vec(),
        subjects,
        workload: catalogue::workload(&args.workload)?,
        load: built(&args.load_binary)?,
        windows: args.windows,
    };
    let report = count.run(&cache, &kernel)?;
    let path = lab::guest::logs().join("cost.json");
    lab::cache::write(&path, serde_json::to_vec_pretty(&report)?)?;
    write!(std::io::stdout(), "{report}").context("cannot write")?;
    Ok(ExitCode::SUCCESS)
}

pub fn peers() -> Result<ExitCode> {
    let cache = Cache::open()?;
    let peers = Peers::new(&cache);
    let mut out = std::io::stdout();
    let mut code = ExitCode::SUCCESS;
    for peer in &PEERS {
        let program = peers.program(peer);
        let said = match &program {
            Ok(program) => program.display().to_string(),
            Err(error) => {
                code = ExitCode::from(LAB_FAILED);
                format!("{error:#}")
            }
        };
        writeln!(out, "{:22} {:8} {said}", peer.name, peer.version).context("cannot write")?;
    }
    Ok(code)
}
