//! Starting and ending the emulator, and the one place that knows its options.
//!
//! `-icount shift=0` makes an instruction last 1 ns of guest time and `sleep=off` skips the time in which
//! every CPU is idle, so what a guest sees does not depend on how busy the host is. The model number is
//! the newest for which current kernels trust the TSC of a virtual machine (CONSTANT_TSC up to Ivy Bridge).
//!
//! The emulator's two threads would still race for the guest's timers, so they are made to take turns
//! ([`crate::turns`]), and nothing sets timers of the host's clock, at which the emulator would end what a CPU
//! executes. Limit: a guest all of whose CPUs stay busy for a second of the host's time need not repeat.
//! A machine that has the host's clock has none of this, and is not meant to repeat. Its CPUs take turns all the
//! same: in parallel (`thread=multi`), one may still execute the breakpoint of a patch of the kernel's code that
//! another has finished, and the kernel dies of it (QEMU 7.2).

use crate::process;
use crate::qmp::Qmp;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// Physical address and size of the guest memory that carries the archive of a run: reserved in the
/// kernel's eyes, and below every hole that the machine has in its memory.
pub const PAYLOAD_AT: u64 = 256 << 20;
/// Room for that archive.
pub const PAYLOAD_MIB: u64 = 160;
/// Slot of the device that a guest pokes when it is ready to be kept as a template.
pub const DOORBELL_SLOT: u32 = 16;
/// How often a running emulator is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Wall time allowed for each second of the emulator's own time: the host may be busy, but not for ever.
const PATIENCE: u32 = 20;

/// The machine that a kernel boots on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// CPUs (hardware threads), a multiple of `threads` times `sockets`.
    pub cpus: usize,
    /// Sockets, each with a last-level cache of its own.
    pub sockets: usize,
    /// Memory nodes that share out the sockets evenly; all memory is in the first.
    pub nodes: usize,
    /// Threads per core.
    pub threads: usize,
    /// Memory for the guest, MiB.
    pub memory_mib: u64,
    /// Seed of the emulator's random numbers.
    pub seed: u64,
    /// Whether the guest's clock is the host's instead of a count of instructions: time passes however slow the
    /// CPUs are, and nothing repeats.
    pub host_clock: bool,
    /// Words for the kernel's command line besides the lab's own.
    pub cmdline: Vec<String>,
}

impl Shape {
    /// Whether the emulator can build it.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn check(&self) -> Result<()> {
        let unit = self.threads.saturating_mul(self.sockets);
        if unit == 0 || self.cpus == 0 || !self.cpus.is_multiple_of(unit) {
            bail!(
                "{} CPUs with {} threads a core in {} sockets: give a multiple",
                self.cpus,
                self.threads,
                self.sockets
            );
        }
        if self.nodes == 0 || !self.sockets.is_multiple_of(self.nodes) {
            bail!(
                "{} sockets in {} memory nodes: give a multiple",
                self.sockets,
                self.nodes
            );
        }
        if self.cpus > 255 {
            bail!("{} CPUs: at most 255", self.cpus);
        }
        if !(512..=65536).contains(&self.memory_mib) {
            bail!("{} MiB of memory: give 512 to 65536", self.memory_mib);
        }
        Ok(())
    }

    /// The whole memory, MiB.
    pub fn total_mib(&self) -> u64 {
        self.memory_mib + PAYLOAD_MIB
    }

    /// The kernel's command line.
    pub fn command_line(&self) -> String {
        // loglevel 5 shows warnings, which are what WARN prints; skew_tick keeps the CPUs' ticks apart, which
        // would otherwise all wait for the one thread that executes them
        let mut line = format!(
            "console=ttyS0 panic=-1 loglevel=5 nokaslr random.trust_cpu=off skew_tick=1 memmap={PAYLOAD_MIB}M${PAYLOAD_AT:#x}"
        );
        if self.host_clock {
            // a busy host makes the kernel doubt it
            line.push_str(" tsc=reliable");
        }
        for word in &self.cmdline {
            line.push(' ');
            line.push_str(word);
        }
        line
    }

    /// The emulator's options for this machine, without those of one run.
    pub fn options(&self) -> Vec<String> {
        let cores = self.cpus / self.threads.max(1) / self.sockets.max(1);
        let smp = format!(
            "{},sockets={},cores={cores},threads={}",
            self.cpus, self.sockets, self.threads
        );
        let seed = self.seed.to_string();
        let memory = format!("{}M", self.total_mib());
        let doorbell = format!("pvpanic-pci,addr={DOORBELL_SLOT:#x}");
        let machine = if self.nodes > 1 {
            "q35"
        } else {
            "q35,memory-backend=ram"
        };
        let mut options = [
            "-machine",
            machine,
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "max,vendor=GenuineIntel,family=6,model=58,stepping=9",
            "-smp",
            &smp,
            "-m",
            &memory,
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-seed",
            &seed,
            "-rtc",
            "base=2026-01-01T00:00:00,clock=vm",
            "-device",
            &doorbell,
            "-action",
            "panic=pause",
        ]
        .map(str::to_owned)
        .to_vec();
        if self.nodes > 1 {
            options.extend((0..self.nodes).flat_map(|node| ["-numa".to_owned(), self.node(node)]));
        }
        options
    }

    /// One memory node of several, as the emulator wants it.
    fn node(&self, node: usize) -> String {
        let cpus = self.cpus / self.nodes;
        let (first, last) = (node * cpus, (node + 1) * cpus - 1);
        let memory = if node == 0 { ",memdev=ram" } else { "" };
        format!("node,nodeid={node},cpus={first}-{last}{memory}")
    }
}

/// Where a serial port of the guest goes.
#[derive(Clone, Debug)]
pub enum Port {
    /// To a file.
    File(PathBuf),
    /// To this process's terminal.
    Terminal,
}

/// What one start of the emulator is given besides the [`Shape`].
#[derive(Debug)]
pub struct Start<'a> {
    /// The library that makes the emulator's threads take turns.
    pub turns: &'a Path,
    /// The kernel image.
    pub vmlinuz: &'a Path,
    /// The initial archive.
    pub initramfs: &'a Path,
    /// The file that is the guest's memory.
    pub memory: &'a Path,
    /// Whether to wait for a machine's state instead of booting.
    pub incoming: bool,
    /// Whether idle guest time takes as long as it says (for people) or none.
    pub real_sleep: bool,
    /// The serial ports.
    pub ports: &'a [Port],
    /// What the emulator itself says.
    pub log: &'a Path,
}

/// A running emulator; it is killed when this is dropped.
#[derive(Debug)]
pub struct Emulator {
    child: Child,
    log: PathBuf,
    started: Instant,
    /// The control channel.
    pub qmp: Qmp,
    /// Holds the control channel's socket.
    _directory: tempfile::TempDir,
}

impl Emulator {
    /// Starts the emulator and connects to it.
    ///
    /// # Errors
    /// When the emulator is not installed or does not start.
    pub fn start(shape: &Shape, start: &Start<'_>) -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
        let socket = directory.path().join("qmp");
        let log = File::create(start.log).with_context(|| start.log.display().to_string())?;
        let mut command = process::command(PROGRAM);
        command.args(shape.options());
        let sleep = if start.real_sleep { "on" } else { "off" };
        // the library knows the threads by their names; a person is not to wait for busy CPUs
        command.args(["-name", "lab,debug-threads=on"]);
        if !start.real_sleep && !shape.host_clock {
            command.env("LD_PRELOAD", start.turns);
        }
        if !shape.host_clock {
            command.args(["-icount", &format!("shift=0,sleep={sleep}")]);
        }
        command.arg("-object").arg(format!(
            "memory-backend-file,id=ram,share=on,size={}M,mem-path={}",
            shape.total_mib(),
            option_path(start.memory)?
        ));
        command.arg("-kernel").arg(start.vmlinuz);
        command.arg("-initrd").arg(start.initramfs);
        command.args(["-append", &shape.command_line()]);
        for (index, port) in start.ports.iter().enumerate() {
            let device = match port {
                Port::File(path) => format!("file,id=port{index},path={}", option_path(path)?),
                Port::Terminal => format!("stdio,id=port{index},signal=off"),
            };
            command.args([
                "-chardev",
                &device,
                "-serial",
                &format!("chardev:port{index}"),
            ]);
        }
        if start.incoming {
            command.args(["-incoming", "defer"]);
        }
        command
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", option_path(&socket)?));
        if start
            .ports
            .iter()
            .any(|port| matches!(port, Port::Terminal))
        {
            command.stdin(Stdio::inherit());
        } else {
            command.stdout(log.try_clone().context("cannot share the log")?);
        }
        command.stderr(log);
        let mut child = command.spawn().context("cannot start setpriv")?;
        let connected = Qmp::connect(&socket, || matches!(child.try_wait(), Ok(None)));
        let qmp = match connected {
            Ok(qmp) => qmp,
            Err(error) => {
                // whether or not it still runs, it is ours
                let _ = child.kill();
                let _ = child.wait();
                let said = std::fs::read_to_string(start.log).unwrap_or_default();
                return Err(error.context(format!(
                    "{PROGRAM}: {} (packaging/debian-deps.sh lab installs it)",
                    process::tail(&said, 3)
                )));
            }
        };
        Ok(Self {
            child,
            log: start.log.to_owned(),
            started: Instant::now(),
            qmp,
            _directory: directory,
        })
    }

    /// Waits for the emulator to end by itself. The limit is of the emulator's own CPU time, which does
    /// not depend on what else the host does; one that stands still is given up after [`PATIENCE`] times as
    /// long. `false` when the time was up; it is killed then.
    ///
    /// # Errors
    /// When it ended with an error of its own.
    pub fn wait(&mut self, limit: Duration) -> Result<bool> {
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait")? {
                if status.success() {
                    return Ok(true);
                }
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                bail!("{PROGRAM} ended with {status}: {}", process::tail(&said, 3));
            }
            if self.is_over(limit) {
                self.kill();
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Whether the limit, in the sense of [`Emulator::wait`], has passed.
    pub fn is_over(&self, limit: Duration) -> bool {
        process::cpu_time(self.child.id()).is_some_and(|used| used >= limit)
            || self.started.elapsed() >= limit * PATIENCE
    }

    fn kill(&mut self) {
        // an error means that it has ended already
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A path as a value in the emulator's option lists, where a comma is doubled.
fn option_path(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{}: not UTF-8", path.display()))?;
    Ok(text.replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape {
            cpus: 8,
            sockets: 1,
            nodes: 1,
            threads: 2,
            memory_mib: 1024,
            seed: 1,
            host_clock: false,
            cmdline: vec!["quiet".to_owned()],
        }
    }

    #[test]
    fn threads_share_cores() {
        assert!(
            shape()
                .options()
                .contains(&"8,sockets=1,cores=4,threads=2".to_owned())
        );
    }

    #[test]
    fn sockets_share_out_the_cores() {
        let shape = Shape {
            sockets: 2,
            ..shape()
        };
        assert!(
            shape
                .options()
                .contains(&"8,sockets=2,cores=2,threads=2".to_owned())
        );
    }

    #[test]
    fn nodes_share_out_the_sockets() {
        let shape = Shape {
            sockets: 4,
            threads: 1,
            nodes: 2,
            ..shape()
        };
        assert!(shape.check().is_ok());
        let options = shape.options();
        let nodes: Vec<_> = (options.windows(2))
            .filter(|it| it[0] == "-numa")
            .map(|it| it[1].as_str())
            .collect();
        let expected = [
            "node,nodeid=0,cpus=0-3,memdev=ram",
            "node,nodeid=1,cpus=4-7",
        ];
        assert_eq!(nodes, expected);
        assert!(options.contains(&"q35".to_owned()));
    }

    #[test]
    fn a_shape_that_cannot_be_built_is_refused() {
        let wrong = [
            Shape {
                nodes: 0,
                ..shape()
            },
            Shape {
                nodes: 2,
                ..shape()
            },
            Shape { cpus: 0, ..shape() },
            Shape { cpus: 7, ..shape() },
            Shape {
                threads: 0,
                ..shape()
            },
            Shape {
                sockets: 0,
                ..shape()
            },
            Shape {
                sockets: 3,
                ..shape()
            },
            Shape {
                cpus: 256,
                ..shape()
            },
            Shape {
                memory_mib: 100,
                ..shape()
            },
        ];
        for shape in wrong {
            assert!(shape.check().is_err(), "{shape:?}");
        }
        assert!(shape().check().is_ok());
    }

    #[test]
    fn words_for_the_kernel_come_last() {
        assert!(shape().command_line().ends_with(" quiet"));
    }

    #[test]
    fn a_comma_in_a_path_is_not_the_end_of_it() {
        assert_eq!(option_path(Path::new("/a,b")).unwrap(), "/a,,b");
    }
}
