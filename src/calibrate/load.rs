//! Keeping CPUs busy, one child for each. A child pins itself, dies with this process however that ends, and
//! then becomes the load that was asked for.

use crate::cli::model::BusyArgs;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::BTreeMap;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Child, Command, Stdio};

/// The children, by CPU. Dropping kills them.
#[derive(Debug)]
pub struct Loads {
    command: Option<String>,
    children: BTreeMap<usize, Child>,
}

impl Loads {
    /// None yet; `command` is what will keep a CPU busy instead of the built-in loop.
    pub fn new(command: Option<String>) -> Self {
        Self {
            command,
            children: BTreeMap::new(),
        }
    }

    /// Keeps exactly these CPUs busy. Tells whether a load was started.
    ///
    /// # Errors
    /// When a load cannot be started.
    pub fn only(&mut self, cpus: &[usize]) -> Result<bool> {
        self.children.retain(|cpu, child| {
            let kept = cpus.contains(cpu);
            if !kept {
                end(child);
            }
            kept
        });
        let mut started = false;
        for &cpu in cpus {
            if !self.children.contains_key(&cpu) {
                self.children.insert(cpu, self.start(cpu)?);
                started = true;
            }
        }
        Ok(started)
    }

    fn start(&self, cpu: usize) -> Result<Child> {
        let mut child = Command::new("/proc/self/exe");
        child.args(["busy", "--cpu", &cpu.to_string()]);
        child.args(["--parent", &std::process::id().to_string()]);
        child.args(self.command.iter().flat_map(|command| ["--load", command]));
        // A group of its own: Ctrl-C is for us, and what the load starts goes with it.
        child
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0);
        child
            .spawn()
            .with_context(|| format!("starting a load on CPU {cpu}"))
    }

    /// Whether all still run.
    ///
    /// # Errors
    /// When a load has ended by itself.
    pub fn check(&mut self) -> Result<()> {
        for (cpu, child) in &mut self.children {
            if let Some(status) = child.try_wait()? {
                let load = self.command.as_deref().unwrap_or("built-in");
                bail!(
                    "the load '{load}' on CPU {cpu} ended by itself ({status}); one that goes on until it is killed is wanted"
                );
            }
        }
        Ok(())
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        self.children.values_mut().for_each(end);
    }
}

/// Kills a load with all that it started, and waits for it. Neither can fail but where it is gone already.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    let _ = child.kill();
    let _ = child.wait();
}

/// The child's part. Does not return unless it fails.
///
/// # Errors
/// When the CPU does not exist or the load cannot be started.
pub fn busy(args: &BusyArgs) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("asking to end with the parent")?;
    if parent_id() != args.parent {
        return Ok(()); // it ended before it could be asked for
    }
    if args.cpu >= CpuSet::MAX_CPU {
        bail!(
            "CPU {}: only the first {} can be pinned to",
            args.cpu,
            CpuSet::MAX_CPU
        );
    }
    let mut cpus = CpuSet::new();
    cpus.set(args.cpu);
    sched_setaffinity(None, &cpus).with_context(|| format!("pinning to CPU {}", args.cpu))?;
    match &args.load {
        // exec: the shell must not stand between the kill and the load.
        Some(load) => {
            let error = Command::new("sh")
                .args(["-c", &format!("exec {load}")])
                .exec();
            Err(error).context("starting sh")
        }
        None => spin(),
    }
}

/// Arithmetic and loads from the nearest cache, about as ordinary programs mix them.
fn spin() -> ! {
    let mut table = [0u64; 1024];
    let mut x = 88_172_645_463_325_252u64;
    loop {
        for cell in &mut table {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            *cell = cell.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(x);
        }
        std::hint::black_box(&mut table);
    }
}
