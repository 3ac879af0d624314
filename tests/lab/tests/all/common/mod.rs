//! What the tests in virtual machines share. They fail, not skip, where the lab cannot be had.

pub mod stat;

use lab::cache::Cache;
use lab::guest::{Guest, Outcome};
use lab::kernel::{Kernel, Kernels};
use lab::machine::Machine;
use lab::process;
use lab::truth::Truth;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Shell functions of the guests' scripts, at [`SHELL_PATH`] in each guest.
pub const SHELL: &str = include_str!("shell.sh");
/// For `. PATH` at a script's beginning. With `JOULE_PHASE` set, a guest stands still there for so many seconds:
/// clocks, meters and tasks then meet at other moments, and a guest, which else repeats itself to the
/// instruction, takes another course. What a test asks for holds on every course.
pub const SHELL_PATH: &str = "/lab/shell.sh";

/// A kernel in the cache.
pub struct Lab {
    pub cache: Cache,
    pub kernel: Kernel,
}

impl Lab {
    fn new(choose: impl FnOnce(&Kernels<'_>) -> anyhow::Result<Kernel>) -> Self {
        let cache = or_fail(Cache::open());
        let kernel = or_fail(choose(&Kernels::new(&cache)));
        Self { cache, kernel }
    }

    /// With the kernel of this name, instead of the one that most tests run on.
    pub fn on(name: &str) -> Self {
        Self::new(|kernels| kernels.get(name))
    }

    pub fn guest(&self, name: &str) -> Guest<'_> {
        let phase = std::env::var("JOULE_PHASE").unwrap_or_else(|_| "0".into());
        let shell = format!("{SHELL}sleep {phase}\n");
        Guest::new(&self.cache, &self.kernel, &format!("test-{name}")).text(SHELL_PATH, &shell)
    }

    /// A guest with the machine's virtual SoC.
    pub fn machine(&self, name: &str, machine: &Machine) -> Guest<'_> {
        let soc = Kernels::new(&self.cache).soc(&self.kernel, machine);
        self.guest(name).soc(&or_fail(soc))
    }
}

pub fn lab() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| Lab::new(|kernels| kernels.default()))
}

/// The workload runner, built if need be.
pub fn joule_load() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("joule-load", &[], "debug"))
}

/// The workload runner as users run it: its loops take the time that is given for them.
pub fn released_joule_load() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("joule-load", &["--release"], "release"))
}

/// A workload of the tests.
pub fn workload(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("workloads/{name}.json"))
}

/// The scheduler as users run it, built if need be.
pub fn scheduler() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| built("scx_joule", &["--release"], "release"))
}

fn built(package: &str, options: &[&str], profile: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--offline", "--package", package]);
    build.args(options);
    build.args([
        "--manifest-path",
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
    ]);
    or_fail(process::run(&mut build, Duration::from_secs(1800)));
    let tests = or_fail(std::env::current_exe().map_err(Into::into));
    // target/debug/deps/this → target/PROFILE/PACKAGE
    let Some(target) = tests.ancestors().nth(3) else {
        panic!("{}: not below target", tests.display());
    };
    target.join(profile).join(package)
}

/// One of tests/lab/instruments, compiled.
pub fn instrument(source: &str, name: &str, options: &[&str]) -> PathBuf {
    let program = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("instruments")
        .join(source);
    or_fail(process::compile(&source, options, &program));
    program
}

/// Does by hand what the control loop does, and what it must never do.
pub fn hand() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| instrument("hand.c", "joule-hand", &[]))
}

pub fn run(guest: &Guest<'_>) -> Outcome {
    or_fail(guest.run())
}

/// Runs what is to succeed.
pub fn succeed(guest: &Guest<'_>) -> Outcome {
    or_fail(run(guest).success())
}

pub fn or_fail<T>(result: anyhow::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:#}"))
}

/// For how long, summed over cores, both threads were busy; and any.
pub fn both_and_any_thread_ns(truth: &Truth) -> (u64, u64) {
    let opps = truth.clusters.iter().flat_map(|cluster| &cluster.opps);
    opps.fold((0, 0), |(both, any), opp| {
        (both + opp.dual_ns, any + opp.busy_ns)
    })
}

/// The part of a results text between the lines `== name` and the next `==`.
pub fn section<'a>(results: &'a str, name: &str) -> &'a str {
    let head = format!("== {name}\n");
    let Some((_, rest)) = results.split_once(&head) else {
        panic!("the guest wrote no section '{name}':\n{results}");
    };
    rest.split_once("== ").map_or(rest, |(part, _)| part)
}

/// A number that is the whole section.
pub fn number(results: &str, name: &str) -> u64 {
    let text = section(results, name).trim();
    text.parse()
        .unwrap_or_else(|_| panic!("'{text}' of '{name}' is not a number"))
}

/// A section of lines `NAME VALUE`.
pub fn values<'a>(results: &'a str, name: &str) -> BTreeMap<&'a str, &'a str> {
    let lines = section(results, name).lines();
    lines.filter_map(|line| line.split_once(' ')).collect()
}

/// How much a counter rose from one section to another.
pub fn rise(results: &str, counter: &str, from: &str, to: &str) -> u64 {
    let value = |name| values(results, name)[counter].parse::<u64>().unwrap();
    value(to) - value(from)
}
