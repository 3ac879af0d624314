//! What a scheduler costs: the instructions that its callbacks execute for each wake-up, and the
//! instructions that the verifier looked at when it was loaded.
//!
//! The kernel times every run of every BPF program when `kernel.bpf_stats_enabled` is 1, and in the lab an
//! instruction lasts 1 ns, so `run_time_ns` counts instructions: those of the program, of the kernel functions
//! that it calls, and of reading the clock a second time. At a timer the emulator turns to another CPU, and what
//! that one executes, up to milliseconds, is added to the run that was cut short. This only ever adds, so a load
//! is counted in windows of different phases, and a program's run costs the lower quartile of them. Instructions are not time: there are no
//! caches, no contended cache lines and no mispredicted branches here.

use crate::cache::Cache;
use crate::catalogue::workload_name;
use crate::guest::{Guest, Outcome};
use crate::kernel::Kernel;
use crate::parallel;
use crate::process;
use crate::session::Scheduler;
use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs the load and takes the counters; `$scheduler` and the like are set before it.
const SCRIPT: &str = concat!(
    include_str!("guest/attach.sh"),
    include_str!("guest/cost.sh")
);
/// CPU time of the emulator: scx_lavd on 64 CPUs took 217 s of the clock.
const TIME_LIMIT: Duration = Duration::from_secs(1200);
const QUERY_LIMIT: Duration = Duration::from_secs(60);

/// The callbacks that every wake-up goes through, whose sum is its cost. All else that a scheduler
/// executes is shown apart: whether it happens depends on more than wake-ups.
pub const CALLBACKS: [&str; 5] = ["select_cpu", "enqueue", "dispatch", "running", "stopping"];

/// A machine to count on, without a virtual SoC: all CPUs are alike, so a group of scx_joule is the CPUs of a
/// last-level cache, at most 16 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CostMachine {
    /// CPUs.
    pub cpus: usize,
    /// Last-level caches that share them out evenly.
    pub caches: usize,
}

/// The machines: more and more groups, and many CPUs in few. No CPU is in two groups, so 16 of them take 16
/// CPUs; and 64 CPUs are 4 groups at least, which is as many as 8 CPUs are under 4 caches.
pub const MACHINES: [CostMachine; 4] = [
    CostMachine { cpus: 8, caches: 1 },
    CostMachine { cpus: 8, caches: 4 },
    CostMachine {
        cpus: 16,
        caches: 16,
    },
    CostMachine {
        cpus: 64,
        caches: 2,
    },
];

/// A scheduler whose cost is asked for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// As tables have it.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The scheduler, or one line that says why there is none.
    pub scheduler: Result<Scheduler, String>,
}

/// A count to be made.
#[derive(Clone, Debug)]
pub struct Count {
    /// Where.
    pub machines: Vec<CostMachine>,
    /// Under what.
    pub subjects: Vec<Subject>,
    /// The workload file.
    pub workload: PathBuf,
    /// The workload runner.
    pub load: PathBuf,
    /// Windows of 0.5 simulated seconds counted, each with phases of its own.
    pub windows: u32,
}

/// What one program executed while it was counted, and what the verifier made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Callback {
    /// How often it ran.
    pub runs: u64,
    /// Instructions of a run: of the windows in which it ran, the lower quartile of their means.
    pub per_run: u64,
    /// Instructions that the verifier looked at, over all paths.
    pub verified_insns: u64,
}

/// The cost of a scheduler on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Runs of `select_cpu`. The kernel asks it for every task that wakes up or is new and may choose.
    pub wakeups: u64,
    /// Instructions of [`CALLBACKS`] per wake-up, rounded.
    pub per_wakeup: u64,
    /// Instructions of everything else that the scheduler executed in BPF, per wake-up, rounded.
    pub apart_per_wakeup: u64,
    /// Of all its programs.
    pub verified_insns: u64,
    /// [`CALLBACKS`] and the others by name; two programs of one name are one line.
    pub programs: BTreeMap<String, Callback>,
}

/// A scheduler on a machine; exactly one of `cost` and `error` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Row {
    pub scheduler: String,
    pub version: String,
    pub cost: Option<Cost>,
    /// Why there is no cost, in one line.
    pub error: Option<String>,
}

/// All schedulers on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct Section {
    #[serde(flatten)]
    pub machine: CostMachine,
    /// As scx_joule sees them; null where it did not run.
    pub groups: Option<usize>,
    pub rows: Vec<Row>,
}

/// What was counted, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct CostReport {
    pub kernel: String,
    /// The compiler of the schedulers' BPF programs.
    pub clang: String,
    pub workload: String,
    pub windows: u32,
    pub machines: Vec<Section>,
}

impl Count {
    /// Counts on every machine, saying on stderr how far it is. A scheduler that does not run is a row
    /// that says so.
    ///
    /// # Errors
    /// When the compiler cannot be asked for its version.
    pub fn run(&self, cache: &Cache, kernel: &Kernel) -> Result<CostReport> {
        let clang = process::run(process::clang()?.arg("--version"), QUERY_LIMIT)?;
        let jobs: Vec<_> = (self.machines.iter())
            .flat_map(|machine| self.subjects.iter().map(move |subject| (*machine, subject)))
            .collect();
        let counted = parallel::each(&jobs, |(machine, subject)| {
            self.cost(cache, kernel, *machine, subject)
        });
        let mut counted = counted.into_iter();
        let machines = (self.machines.iter())
            .map(|machine| Section::new(*machine, self.subjects.iter().zip(counted.by_ref())))
            .collect();
        Ok(CostReport {
            kernel: kernel.release.clone(),
            clang: clang.lines().next().unwrap_or_default().to_owned(),
            workload: workload_name(&self.workload),
            windows: self.windows,
            machines,
        })
    }

    fn cost(
        &self,
        cache: &Cache,
        kernel: &Kernel,
        machine: CostMachine,
        subject: &Subject,
    ) -> Result<(Cost, Option<usize>)> {
        let scheduler = subject.scheduler.as_ref();
        let scheduler = scheduler.map_err(|why| anyhow!("{why}"))?;
        let program = scheduler.program.as_ref();
        let program = program.context("the kernel's schedulers have no callbacks in BPF")?;
        let name = Path::new(program.file_name().unwrap_or_default());
        let head = format!(
            "scheduler={}\narguments='{}'\ncaches={}\nwindows={}\n",
            name.display(),
            scheduler.arguments,
            machine.caches,
            self.windows
        );
        let directory = format!("cost-{}x{}-{}", machine.cpus, machine.caches, subject.name);
        let outcome = Guest::new(cache, kernel, &directory.replace(' ', ""))
            .cpus(machine.cpus, 1)
            .sockets(machine.caches)
            .program(program)
            .program(&self.load)
            .program("bpftool")
            .file(&self.workload, "/lab/workload.json")
            .script(&(head + SCRIPT))
            .time_limit(TIME_LIMIT)
            .run()?;
        eprintln!(
            "lab: {machine}, {}: done in {:.0} s",
            subject.name,
            outcome.wall.as_secs_f64()
        );
        counted(outcome)
    }
}

impl Section {
    fn new<'a>(
        machine: CostMachine,
        counted: impl Iterator<Item = (&'a Subject, Result<(Cost, Option<usize>)>)>,
    ) -> Self {
        let mut section = Self {
            machine,
            groups: None,
            rows: Vec::new(),
        };
        for (subject, counted) in counted {
            let (cost, error) = match counted {
                Ok((cost, groups)) => {
                    section.groups = section.groups.or(groups);
                    (Some(cost), None)
                }
                Err(error) => (None, Some(first_line(&format!("{error:#}")))),
            };
            section.rows.push(Row {
                scheduler: subject.name.clone(),
                version: subject.version.clone(),
                cost,
                error,
            });
        }
        section
    }
}

/// A result of the guest's script.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// What `scx_joule check` says.
    Check(Check),
    /// Of bpftool, before and after.
    Snapshot(Vec<Program>),
    /// By id, of the programs that the scheduler holds.
    Verified(BTreeMap<u32, u64>),
}

#[derive(Debug, Deserialize)]
struct Check {
    topology: Option<Topology>,
}

#[derive(Debug, Deserialize)]
struct Topology {
    groups: Vec<serde::de::IgnoredAny>,
}

/// The fields of bpftool's that are used.
#[derive(Clone, Debug, Deserialize)]
struct Program {
    id: u32,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    // bpftool leaves these out of a program that never ran
    #[serde(default)]
    run_time_ns: u64,
    #[serde(default)]
    run_cnt: u64,
}

impl Program {
    /// The callback that it is, or its own name.
    fn callback(&self) -> &str {
        let is_suffix = |callback: &&str| {
            let prefix = self.name.strip_suffix(callback);
            prefix.is_some_and(|prefix| prefix.ends_with('_'))
        };
        CALLBACKS
            .into_iter()
            .find(|callback| self.kind == "struct_ops" && is_suffix(callback))
            .unwrap_or(&self.name)
    }
}

fn counted(outcome: Outcome) -> Result<(Cost, Option<usize>)> {
    let told = outcome
        .console
        .lines()
        .find_map(|line| line.strip_prefix("cost: "))
        .map(str::to_owned);
    let path = outcome.console_path.clone();
    let outcome = match (outcome.success(), told) {
        (Ok(outcome), _) => outcome,
        (Err(_), Some(why)) => bail!("{why} (see {})", path.display()),
        (Err(error), None) => return Err(error),
    };
    let lines = outcome
        .json()?
        .into_iter()
        .map(serde_json::from_value)
        .collect::<Result<Vec<Line>, _>>()
        .context("bpftool's output has changed")?;
    let groups = lines.iter().find_map(|line| match line {
        Line::Check(check) => Some(check.topology.as_ref()?.groups.len()),
        _ => None,
    });
    let (mut snapshots, mut verified) = (Vec::new(), None);
    for line in lines {
        match line {
            Line::Snapshot(programs) => snapshots.push(programs),
            Line::Verified(by_id) => verified = Some(by_id),
            Line::Check(_) => {}
        }
    }
    let verified = verified.context("the guest's results are not whole")?;
    Ok((Cost::new(&snapshots, &verified)?, groups))
}

impl Cost {
    /// From snapshots of bpftool's, two for each window, and what was verified of the scheduler's programs.
    fn new(snapshots: &[Vec<Program>], verified: &BTreeMap<u32, u64>) -> Result<Self> {
        let mut programs: BTreeMap<String, Callback> = BTreeMap::new();
        for (&id, &verified_insns) in verified {
            let history = snapshots
                .iter()
                .map(|snapshot| snapshot.iter().find(|program| program.id == id))
                .collect::<Option<Vec<_>>>()
                .with_context(|| format!("program {id} came or went meanwhile"))?;
            let Some(program) = history.first() else {
                bail!("no window was counted");
            };
            let windows = windows(&history)?;
            let counted = Callback {
                runs: windows.iter().map(|(runs, _)| runs).sum(),
                per_run: lower_quartile(&windows).unwrap_or(0),
                verified_insns,
            };
            programs
                .entry(program.callback().to_owned())
                .and_modify(|sum| sum.add(&counted))
                .or_insert(counted);
        }
        let wakeups = programs.get("select_cpu").map_or(0, |it| it.runs);
        let (on_path, apart) = programs
            .iter()
            .partition::<Vec<_>, _>(|(name, _)| CALLBACKS.contains(&name.as_str()));
        let sum = |of: &[(&String, &Callback)]| of.iter().map(|(_, it)| it.instructions()).sum();
        Ok(Self {
            wakeups,
            per_wakeup: per(sum(&on_path), wakeups).context("no wake-up was counted")?,
            apart_per_wakeup: per(sum(&apart), wakeups).context("no wake-up was counted")?,
            verified_insns: verified.values().sum(),
            programs,
        })
    }
}

impl Callback {
    /// Of all runs.
    fn instructions(&self) -> u64 {
        self.runs.saturating_mul(self.per_run)
    }

    fn add(&mut self, other: &Self) {
        let instructions = self.instructions().saturating_add(other.instructions());
        self.runs = self.runs.saturating_add(other.runs);
        self.per_run = per(instructions, self.runs).unwrap_or(0);
        self.verified_insns = self.verified_insns.saturating_add(other.verified_insns);
    }
}

/// Runs and instructions of a program in each window.
fn windows(history: &[&Program]) -> Result<Vec<(u64, u64)>> {
    let (pairs, odd) = history.as_chunks();
    if !odd.is_empty() {
        bail!("the last window has no end");
    }
    let since = |[before, after]: &[&Program; 2]| {
        let runs = after.run_cnt.checked_sub(before.run_cnt)?;
        Some((runs, after.run_time_ns.checked_sub(before.run_time_ns)?))
    };
    pairs
        .iter()
        .map(|pair| {
            since(pair).with_context(|| format!("{}: its counters went backwards", pair[0].name))
        })
        .collect()
}

/// The lower quartile of the windows' means; `None` when it ran in none.
fn lower_quartile(windows: &[(u64, u64)]) -> Option<u64> {
    let means = windows
        .iter()
        .map(|&(runs, instructions)| per(instructions, runs));
    let mut means: Vec<_> = means.flatten().collect();
    means.sort_unstable();
    means.get(means.len() / 4).copied()
}

/// Rounded to the nearest; `None` for a count of 0.
fn per(instructions: u64, count: u64) -> Option<u64> {
    instructions.saturating_add(count / 2).checked_div(count)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

impl Display for CostMachine {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let plural = if self.caches == 1 { "" } else { "s" };
        write!(to, "{} CPUs under {} cache{plural}", self.cpus, self.caches)
    }
}

impl Display for CostReport {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            to,
            "instructions per wake-up: {}, {} windows of 0.5 s, Linux {}, {}",
            self.workload, self.windows, self.kernel, self.clang
        )?;
        for section in &self.machines {
            let groups = section
                .groups
                .map_or_else(String::new, |groups| format!(", in groups: {groups}"));
            writeln!(to, "\n{}{groups}", section.machine)?;
            write!(
                to,
                "{:22} {:8} {:>8} {:>8}",
                "scheduler", "version", "wake-ups", "sum"
            )?;
            CALLBACKS
                .iter()
                .try_for_each(|callback| write!(to, " {callback:>10}"))?;
            writeln!(to, " {:>8} {:>9}", "apart", "verified")?;
            section
                .rows
                .iter()
                .try_for_each(|row| writeln!(to, "{row}"))?;
        }
        Ok(())
    }
}

impl Display for Row {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        write!(to, "{:22} {:8} ", self.scheduler, self.version)?;
        let Some(cost) = &self.cost else {
            return write!(to, "not counted: {}", self.error.as_deref().unwrap_or("?"));
        };
        write!(to, "{:>8} {:>8}", cost.wakeups, cost.per_wakeup)?;
        for callback in CALLBACKS {
            let instructions = cost.programs.get(callback).map(Callback::instructions);
            match instructions.and_then(|it| per(it, cost.wakeups)) {
                Some(instructions) => write!(to, " {instructions:>10}")?,
                None => write!(to, " {:>10}", "-")?,
            }
        }
        write!(
            to,
            " {:>8} {:>9}",
            cost.apart_per_wakeup, cost.verified_insns
        )
    }
}

#[cfg(test)]
mod tests;
