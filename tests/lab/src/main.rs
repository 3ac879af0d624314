//! Entry point of the lab: prepare kernels, boot them, compare schedulers on them.

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use lab::behaviour::Behaviours;
use lab::bench::{Bench, Entrant};
use lab::cache::Cache;
use lab::catalogue;
use lab::cost::{Count, MACHINES, Subject};
use lab::guest::Guest;
use lab::kernel::{Kernel, Kernels, SERIES};
use lab::peers::{PEERS, Peers};
use lab::scenario::Scenario;
use lab::session::{EEVDF, EEVDF_EAS, Scheduler};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What the lab itself answers when it could not do what was asked, as `timeout` and `env` do.
const LAB_FAILED: u8 = 125;
/// What `lab boot` answers for a guest that ran out of time.
const TIMED_OUT: u8 = 124;

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
    Boot(BootArgs),
    /// Build the schedulers that others wrote, with which scx_joule is compared
    Peers,
    /// Count the instructions that schedulers execute per wake-up; writes cost.json to the logs, too
    Cost(CostArgs),
    /// Compare schedulers by energy and response times; writes run.json to the logs, too
    Run(RunArgs),
    /// Compare schedulers over machines and workloads; writes lab.csv, lab.md and plots to the logs, too
    Bench(BenchArgs),
    /// Judge seven behaviours of energy-aware scheduling by the Energy Model, as Arm's LISA does; writes lisa.json to the
    /// logs, too
    Lisa(LisaArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
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

#[derive(Debug, Args)]
struct BenchArgs {
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

#[derive(Debug, Args)]
struct LisaArgs {
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
    /// A series or a release
    #[arg(long)]
    kernel: Option<String>,
}

/// What a scheduler learns from before the runs of `lab bench`.
const SETTLE: &str = "mixed-interactive";

/// Simulated time before each measurement, for utilisation signals and models to settle.
const WARMUP: Duration = Duration::from_secs(1);
/// The same where a table of many runs is measured, after a longer time for models to settle.
const BENCH_WARMUP: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
struct CostArgs {
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
}

#[derive(Debug, Args)]
struct BootArgs {
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

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Prepare { kernel, update } => prepare(&kernel, update),
        Command::Kernels { json } => kernels(json),
        Command::Boot(args) => boot(&args),
        Command::Peers => peers(),
        Command::Cost(args) => cost(&args),
        Command::Run(args) => compare(&args),
        Command::Bench(args) => bench(&args),
        Command::Lisa(args) => lisa(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("lab: {error:#}");
        ExitCode::from(LAB_FAILED)
    })
}

fn prepare(names: &[String], update: bool) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let kernels = Kernels::new(&cache);
    let mut out = std::io::stdout();
    let mut say = |text: String| writeln!(out, "{text}").context("cannot write");
    if !names.is_empty() {
        for name in names {
            let kernel = kernels.get(name)?;
            say(format!("{name}: {}", kernel.release))?;
            if lab::kernel::series(name).is_none_or(|series| series.has_soc) {
                kernels.soc_module(&kernel)?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    for series in SERIES {
        let kernel = kernels.of_series(series, update)?;
        say(format!("{}: {}", series.name, kernel.release))?;
        if series.has_soc {
            kernels.soc_module(&kernel)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn kernels(json: bool) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let listed = Kernels::new(&cache).list()?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&listed)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for kernel in &listed {
        let verdict = match &kernel.verdict {
            None => "not tried",
            Some(verdict) => verdict.refused.as_deref().unwrap_or("works"),
        };
        let mark = if kernel.chosen { '*' } else { ' ' };
        writeln!(
            out,
            "{mark} {:8} {:32} {verdict}",
            kernel.series, kernel.release
        )?;
    }
    if listed.is_empty() {
        bail!("no kernels are known yet: run `lab prepare`");
    }
    Ok(ExitCode::SUCCESS)
}

fn boot(args: &BootArgs) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let kernels = Kernels::new(&cache);
    let kernel = kernel(&cache, args.kernel.as_deref())?;
    let mut guest = Guest::new(&cache, &kernel, "boot")
        .cpus(args.cpus, 1)
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

fn compare(args: &RunArgs) -> Result<ExitCode> {
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

fn bench(args: &BenchArgs) -> Result<ExitCode> {
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

/// The kernel's own schedulers and peers by name, others by program and arguments.
fn entrant(cache: &Cache, words: &str) -> Result<Entrant> {
    if [EEVDF_EAS, EEVDF].contains(&words) {
        return Ok(Entrant::ready(Scheduler {
            name: words.to_owned(),
            program: None,
            arguments: String::new(),
            helpers: Vec::new(),
        }));
    }
    if let Some(peer) = PEERS.iter().find(|peer| peer.name == words) {
        let program = Peers::new(cache).program(peer);
        let scheduler = program.map(|program| Scheduler::of_program(&program, peer.arguments));
        return Ok(Entrant {
            name: peer.name.to_owned(),
            scheduler: scheduler.map_err(|error| format!("{error:#}")),
            order: 1,
        });
    }
    let (program, arguments) = words.split_once(' ').unwrap_or((words, ""));
    let program = built(Path::new(program))?;
    Ok(Entrant::ready(Scheduler::of_program(&program, arguments)))
}

fn peers() -> Result<ExitCode> {
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

fn cost(args: &CostArgs) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let kernel = kernel(&cache, args.kernel.as_deref())?;
    let peers = Peers::new(&cache);
    let mut subjects = vec![Subject {
        name: "scx_joule".to_owned(),
        // the workspace has one version
        version: env!("CARGO_PKG_VERSION").to_owned(),
        program: Ok(built(&args.scheduler_binary)?),
        arguments: String::new(),
    }];
    subjects.extend(PEERS.iter().map(|peer| Subject {
        name: peer.name.to_owned(),
        version: peer.version.to_owned(),
        program: peers.program(peer).map_err(|error| format!("{error:#}")),
        arguments: peer.arguments.to_owned(),
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

fn lisa(args: &LisaArgs) -> Result<ExitCode> {
    let machine = catalogue::machine(&args.machine)?;
    let mut schedulers = Scheduler::of_kernel(&machine);
    schedulers.retain(|scheduler| scheduler.name == EEVDF_EAS);
    if !args.kernel_only {
        schedulers.push(Scheduler::of_program(&built(&args.scheduler_binary)?, ""));
    }
    let behaviours = Behaviours {
        machine,
        schedulers,
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

fn kernel(cache: &Cache, name: Option<&str>) -> Result<Kernel> {
    let kernels = Kernels::new(cache);
    name.map_or_else(|| kernels.default(), |name| kernels.get(name))
}

fn built(program: &Path) -> Result<PathBuf> {
    if program.is_file() {
        return Ok(program.to_owned());
    }
    bail!(
        "{}: not there; build it (cargo build --release), or say where it is",
        program.display()
    )
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
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_needs_both_paths() {
        assert!(pair("a:/b").is_ok());
        assert!(pair("a").is_err() && pair(":/b").is_err() && pair("a:").is_err());
    }
}
