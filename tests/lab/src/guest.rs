//! Runs a script on a kernel in an emulated machine.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let cache = lab::cache::Cache::open()?;
//! let kernel = lab::kernel::Kernels::new(&cache).default()?;
//! let outcome = lab::guest::Guest::new(&cache, &kernel, "uname")
//!     .script("uname -r >> $RESULTS")
//!     .run()?;
//! assert_eq!(outcome.exit_code, Some(0));
//! # Ok(()) }
//! ```

use crate::cache::{self, Cache};
use crate::console;
use crate::emulator::{Port, Shape};
use crate::initramfs::Archive;
use crate::kernel::Kernel;
use crate::process;
use crate::template::Template;
use anyhow::{Context, Error, Result, anyhow};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Exit code of a guest whose machine description was refused, or whose module did not load.
pub const MACHINE_REFUSED: i32 = 125;
/// Default limit, in CPU time of the emulator. A guest that loads the scheduler six times takes half of it, most of
/// that for the verifier.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// How many lines of a console an error shows.
const SHOWN_LINES: usize = 15;

/// A virtual SoC for a guest: the module that makes it, and the text that describes it.
#[derive(Clone, Debug)]
pub struct Soc {
    /// The kernel module, built for the guest's kernel.
    pub module: PathBuf,
    /// What is written to the module's `machine` file.
    pub description: String,
    /// CPUs that the description speaks of.
    pub cpus: usize,
    /// Threads per core that it speaks of.
    pub threads: usize,
}

/// A run to be started.
#[derive(Clone, Debug)]
pub struct Guest<'a> {
    cache: &'a Cache,
    kernel: &'a Kernel,
    name: String,
    shape: Shape,
    soc: Option<Soc>,
    programs: Vec<PathBuf>,
    files: Vec<(PathBuf, String)>,
    texts: Vec<(String, String)>,
    script: String,
    time_limit: Duration,
    interactive: bool,
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The script's exit code; `None` when the guest died or ran out of time.
    pub exit_code: Option<i32>,
    /// Whether the time limit ended it.
    pub timed_out: bool,
    /// What the script wrote to `$RESULTS`.
    pub results: String,
    /// What the script printed, among the kernel's messages.
    pub console: String,
    /// The file that holds the console; others of the run are beside it.
    pub console_path: PathBuf,
    /// Lines of the console that mean trouble in the kernel.
    pub alarms: Vec<String>,
    /// From the start of the emulator to its end.
    pub wall: Duration,
}

impl<'a> Guest<'a> {
    /// A guest of 8 CPUs and 1 GiB without a virtual SoC. The name is that of its directory below
    /// `target/joule/`; a later run of the same name replaces it.
    pub fn new(cache: &'a Cache, kernel: &'a Kernel, name: &str) -> Self {
        Self {
            cache,
            kernel,
            name: name.to_owned(),
            shape: Shape {
                cpus: 8,
                sockets: 1,
                nodes: 1,
                threads: 1,
                memory_mib: 1024,
                seed: 1,
                host_clock: false,
                cmdline: Vec::new(),
            },
            soc: None,
            programs: Vec::new(),
            files: Vec::new(),
            texts: Vec::new(),
            script: String::new(),
            time_limit: TIME_LIMIT,
            interactive: false,
        }
    }

    /// Shell text to run; its exit code becomes the guest's. `$RESULTS` is a file to
    /// append results to; it is handed over when the script has ended.
    #[must_use]
    pub fn script(mut self, script: &str) -> Self {
        script.clone_into(&mut self.script);
        self
    }

    /// A virtual SoC; it decides about CPUs and threads.
    #[must_use]
    pub fn soc(mut self, soc: &Soc) -> Self {
        self.shape.cpus = soc.cpus;
        self.shape.threads = soc.threads;
        self.soc = Some(soc.clone());
        self
    }

    /// A program of the host (a path, or a name to look for) with its libraries, as `/bin/NAME`.
    #[must_use]
    pub fn program(mut self, program: impl AsRef<Path>) -> Self {
        self.programs.push(program.as_ref().to_owned());
        self
    }

    /// A file of the host at a path of the guest.
    #[must_use]
    pub fn file(mut self, host: impl AsRef<Path>, guest: &str) -> Self {
        self.files
            .push((host.as_ref().to_owned(), guest.to_owned()));
        self
    }

    /// A file with this text at a path of the guest.
    #[must_use]
    pub fn text(mut self, guest: &str, text: &str) -> Self {
        self.texts.push((guest.to_owned(), text.to_owned()));
        self
    }

    /// Seed of the machine's random numbers. Each seed costs a boot of its own (once): to vary a
    /// workload, give the seed to the workload.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.shape.seed = seed;
        self
    }

    /// CPUs, and threads per core.
    #[must_use]
    pub fn cpus(mut self, cpus: usize, threads: usize) -> Self {
        self.shape.cpus = cpus;
        self.shape.threads = threads;
        self
    }

    /// Sockets to share out the cores to, each with a last-level cache of its own.
    #[must_use]
    pub fn sockets(mut self, sockets: usize) -> Self {
        self.shape.sockets = sockets;
        self
    }

    /// Memory nodes to share out the sockets to.
    #[must_use]
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.shape.nodes = nodes;
        self
    }

    /// Memory, MiB.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u64) -> Self {
        self.shape.memory_mib = memory_mib;
        self
    }

    /// A limit of the emulator's own CPU time, so that a busy host changes nothing.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// A word for the kernel's command line. Each set of words costs a boot of its own (once).
    #[must_use]
    pub fn cmdline(mut self, word: &str) -> Self {
        self.shape.cmdline.push(word.to_owned());
        self
    }

    /// Gives the guest the host's clock. Not repeatable: for what shall go on for so long, however little comes of it
    /// in the emulator, and meet as many orders of events as there are.
    #[must_use]
    pub fn host_clock(mut self) -> Self {
        self.shape.host_clock = true;
        self
    }

    /// Connects the guest's console to this terminal, lets its idle time pass at the speed of the
    /// host's clock, and sets no time limit. Not repeatable: for people.
    #[must_use]
    pub fn interactive(mut self) -> Self {
        self.interactive = true;
        self
    }

    /// Runs it to its end. Runs of one name write the same files: one comes after the other, but for
    /// interactive ones.
    ///
    /// # Errors
    /// When it cannot be started. What goes wrong inside is the [`Outcome`]'s.
    pub fn run(&self) -> Result<Outcome> {
        self.shape.check()?;
        let archive = self.archive()?;
        let template = Template::get(self.cache, self.kernel, &self.shape)?;
        let directory = run_directory(&self.name)?;
        let path = |name: &str| directory.join(name);
        let _lock = if self.interactive {
            None
        } else {
            Some(locked(&path("lock"))?)
        };
        let (exit, results) = (path("exit"), path("results"));
        let console_path = path("console.log");
        for file in [&exit, &results, &console_path] {
            cache::write(file, "")?;
        }
        let console = if self.interactive {
            Port::Terminal
        } else {
            Port::File(console_path.clone())
        };
        let ports = [
            console,
            Port::File(exit.clone()),
            Port::File(results.clone()),
        ];
        let _place = self.cache.guest_place()?;
        let start = Instant::now();
        let mut emulator = template.resume(
            &self.shape,
            &archive,
            &ports,
            &path("emulator.log"),
            self.interactive,
        )?;
        let limit = if self.interactive {
            Duration::from_secs(86_400)
        } else {
            self.time_limit
        };
        let ended = emulator.wait(limit)?;
        let wall = start.elapsed();
        let console = text(&console_path)?;
        Ok(Outcome {
            exit_code: text(&exit)?.trim().parse().ok(),
            timed_out: !ended,
            results: text(&results)?,
            alarms: console::alarms(&console),
            console,
            console_path,
            wall,
        })
    }

    /// The files of this run.
    fn archive(&self) -> Result<Archive> {
        let mut archive = Archive::new();
        for program in &self.programs {
            archive.program(&process::find(program)?)?;
        }
        for (host, guest) in &self.files {
            archive.host_file(guest, host)?;
        }
        for (guest, text) in &self.texts {
            archive.file(guest, 0o644, text.as_bytes())?;
        }
        if let Some(soc) = &self.soc {
            archive.host_file("lab/vsoc.ko", &soc.module)?;
            archive.file("lab/machine", 0o644, soc.description.as_bytes())?;
        }
        let shell = if self.interactive {
            "setsid -c sh -l"
        } else {
            "sh /lab/script"
        };
        let run = include_str!("guest/run.sh")
            .replace("@REFUSED@", &MACHINE_REFUSED.to_string())
            .replace("@SHELL@", shell);
        archive.file("lab/script", 0o755, self.script.as_bytes())?;
        archive.file("lab/run", 0o755, run)?;
        Ok(archive)
    }
}

impl Outcome {
    /// The results' lines as JSON.
    ///
    /// # Errors
    /// A line that is not JSON: it is quoted.
    pub fn json(&self) -> Result<Vec<serde_json::Value>> {
        self.results
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| serde_json::from_str(line).with_context(|| format!("'{line}' is not JSON")))
            .collect()
    }

    /// Hands itself on if the script succeeded and the kernel had nothing to complain about.
    ///
    /// # Errors
    /// What went wrong, the end of the console, and where the rest of it is.
    pub fn success(self) -> Result<Self> {
        if let Some(alarm) = self.alarms.first() {
            return Err(self.problem(&format!("the guest's kernel complains: {alarm}")));
        }
        self.finished()
    }

    /// Hands itself on if the script came to its end and says that it succeeded, whatever the kernel said.
    ///
    /// # Errors
    /// As [`Outcome::success`].
    pub fn finished(self) -> Result<Self> {
        let problem = match self.exit_code {
            _ if self.timed_out => "the guest ran out of time".to_owned(),
            Some(0) => return Ok(self),
            Some(MACHINE_REFUSED) => "the guest's virtual SoC was refused".to_owned(),
            Some(code) => format!("the guest's script failed with exit code {code}"),
            None => "the guest died without an exit code".to_owned(),
        };
        Err(self.problem(&problem))
    }

    fn problem(&self, what: &str) -> Error {
        anyhow!(
            "{what}; the end of {}:\n{}",
            self.console_path.display(),
            process::tail(&self.console, SHOWN_LINES)
        )
    }
}

/// Where the logs of a run go: `$JOULE_LOGS`, else `target/joule`, and in it the run's name.
pub(crate) fn run_directory(name: &str) -> Result<PathBuf> {
    let directory = logs().join(name);
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    directory
        .canonicalize()
        .with_context(|| directory.display().to_string())
}

/// The file, once nobody else has it locked; made if need be.
fn locked(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    file.lock()
        .with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Where logs and results go: `$JOULE_LOGS`, else `target/joule` of the workspace.
pub fn logs() -> PathBuf {
    std::env::var_os("JOULE_LOGS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/joule"),
        PathBuf::from,
    )
}

/// A file's text with the line ends that a serial port may have changed put right.
fn text(path: &Path) -> Result<String> {
    let bytes = cache::read(path)?;
    Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
}
