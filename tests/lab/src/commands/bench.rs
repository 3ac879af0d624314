//! `lab bench`: the table of schedulers, machines and workloads.

use super::{SETTLE, built, kernel};
use anyhow::{Context, Result};
use lab::bench::{Bench, Entrant};
use lab::cache::Cache;
use lab::catalogue;
use lab::peers::{PEERS, Peers};
use lab::session::{EEVDF, EEVDF_EAS, Scheduler};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Simulated time before each measurement, for utilisation signals to settle; models have settled before.
const BENCH_WARMUP: Duration = Duration::from_millis(500);

/// See the command's help.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A virtual machine, as for `run`; may be given several times [default: all]
    #[arg(long)]
    machine: Vec<String>,
    /// A workload, as for `run`; may be given several times [default: all]
    #[arg(long)]
    workload: Vec<String>,
    /// eevdf-eas, eevdf, a peer as `lab peers` has it, or a program with arguments as one word; may be given
    /// several times [default: target/release/scx_joule and all others]
    #[arg(long)]
    scheduler: Vec<String>,
    /// The workload runner's program
    #[arg(long, value_name = "PATH", default_value = "target/release/joule-load")]
    load_binary: PathBuf,
    /// A series or a release
    #[arg(long)]
    kernel: Option<String>,
    /// How many times each workload's phases are drawn anew
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=100))]
    seeds: u64,
    /// Run the kernel's schedulers a second time, in another order: what differs then means nothing
    #[arg(long)]
    again: bool,
    /// Simulated time for each run instead of what its workload says
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,
    /// Simulated time for which a scheduler that is a program learns before all runs
    #[arg(long, value_name = "SECS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    settle: u32,
    /// Measure again what the cache knows
    #[arg(long)]
    fresh: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let or_all = |given: &[String], all: fn() -> Result<Vec<String>>| match given {
        [] => all(),
        given => Ok(given.to_vec()),
    };
    let machines = or_all(&args.machine, catalogue::machines)?;
    let workloads = or_all(&args.workload, catalogue::workloads)?;
    let default = || {
        let ours = [EEVDF_EAS, EEVDF, "target/release/scx_joule"].into_iter();
        let all = ours.chain(PEERS.iter().map(|peer| peer.name));
        Ok(all.map(str::to_owned).collect())
    };
    let schedulers = or_all(&args.scheduler, default)?;
    let all = |names: &[String], one: fn(&str) -> Result<PathBuf>| -> Result<Vec<_>> {
        names.iter().map(|name| one(name)).collect()
    };
    let mut entrants: Vec<Entrant> = schedulers
        .iter()
        .map(|words| entrant(&cache, words))
        .collect::<Result<_>>()?;
    if args.again {
        let of_kernel = |it: &&Entrant| it.scheduler.as_ref().is_ok_and(|it| it.program.is_none());
        let again: Vec<_> = entrants
            .iter()
            .filter(of_kernel)
            .map(Entrant::again)
            .collect();
        entrants.extend(again);
    }
    tell_apart(&mut entrants);
    let bench = Bench {
        machines: machines
            .iter()
            .map(|name| catalogue::machine(name))
            .collect::<Result<_>>()?,
        workloads: all(&workloads, catalogue::workload)?,
        entrants,
        seeds: args.seeds,
        seconds: args.seconds,
        warmup: BENCH_WARMUP,
        settle: (catalogue::workload(SETTLE)?, args.settle),
        load: built(&args.load_binary)?,
        fresh: args.fresh,
    };
    let kernel = kernel(&cache, args.kernel.as_deref())?;
    let rows = bench.run(&cache, &kernel)?;
    let cells = bench.cells(&rows)?;
    let head = format!(
        "# Energy in the lab\n\nLinux {}; {} seeds; ratios to the reference of the machine, with their 95 % \
         interval over the seeds, paired.\n",
        kernel.release, args.seeds
    );
    let text = lab::bench::write(&lab::guest::logs(), &head, &rows, &cells)?;
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write")?;
    Ok(ExitCode::SUCCESS)
}

/// Numbers those of the same name, as two versions of a program have it: they are different schedulers in the table, and
/// may run at the same time.
fn tell_apart(entrants: &mut [Entrant]) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for entrant in entrants {
        let count = seen.entry(entrant.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            entrant.name = format!("{} ({count})", entrant.name);
        }
    }
}

/// The kernel's own schedulers and peers by name, others by program and arguments.
fn entrant(cache: &Cache, words: &str) -> Result<Entrant> {
    if [EEVDF_EAS, EEVDF].contains(&words) {
        return Ok(Entrant::ready(Scheduler::kernels(words)));
    }
    if let Some(peer) = PEERS.iter().find(|peer| peer.name == words) {
        return Ok(Entrant {
            name: peer.name.to_owned(),
            scheduler: Peers::new(cache).scheduler(peer),
            order: 1,
        });
    }
    let (program, arguments) = words.split_once(' ').unwrap_or((words, ""));
    let program = built(Path::new(program))?;
    Ok(Entrant::ready(Scheduler::of_program(&program, arguments)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedulers_of_the_same_name_are_told_apart() {
        let names = ["eevdf", "ours", "ours", "peer", "ours"];
        let mut entrants = names.map(|name| Entrant::ready(Scheduler::kernels(name)));
        tell_apart(&mut entrants);
        let names = entrants.map(|entrant| entrant.name);
        assert_eq!(names, ["eevdf", "ours", "ours (2)", "peer", "ours (3)"]);
    }
}
