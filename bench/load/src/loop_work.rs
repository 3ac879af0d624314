//! Work on a real machine: a loop of known cost.
//!
//! rt-app's convention: one unit of work is what the biggest CPU does in one
//! nanosecond at its highest frequency, so the loop is timed there, once.

use crate::clock;
use crate::work::{Done, Limits, SLICE_NS, Work, WorkUnits};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;
use std::hint::black_box;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;

/// Dependent multiplications per loop: enough that the loop's own counting does not show.
const CHAIN: u32 = 16;

/// Time for the frequency governor to reach the top before anything is measured.
const RAMP_NS: u64 = 100_000_000;
/// Loops of one measurement, about a millisecond, and how many of them; the fastest counts.
const SAMPLE_LOOPS: u64 = 50_000;
const SAMPLES: usize = 40;

/// What one loop costs and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calibration {
    /// Cost of one loop on the biggest CPU at its highest frequency, in ps.
    pub ps_per_loop: NonZeroU64,
    /// The CPU it was measured on; `None` when the user gave the number.
    pub measured_on: Option<usize>,
}

/// Work by a loop of known cost.
#[derive(Debug)]
pub struct LoopWork {
    ps_per_loop: NonZeroU64,
    /// Done beyond what was asked for; the next run has it for free.
    ahead_ps: u64,
}

impl LoopWork {
    /// With the loop's cost as calibrated.
    pub fn new(calibration: Calibration) -> Self {
        Self {
            ps_per_loop: calibration.ps_per_loop,
            ahead_ps: 0,
        }
    }
}

impl Work for LoopWork {
    fn run(&mut self, work: WorkUnits, limits: &Limits) -> io::Result<Done> {
        let asked_ps = work.0.saturating_mul(1_000);
        let mut done_ps = self.ahead_ps;
        let mut migrations = 0;
        let mut cpu = nix::sched::sched_getcpu()?;
        loop {
            let now = clock::now_ns()?;
            if done_ps >= asked_ps || limits.over(now) {
                break;
            }
            let slice_ns = SLICE_NS.min(limits.end_ns.saturating_sub(now));
            let slice_ps = slice_ns.saturating_mul(1_000).min(asked_ps - done_ps);
            let loops = slice_ps.div_ceil(self.ps_per_loop.get());
            burn(loops);
            done_ps = done_ps.saturating_add(loops.saturating_mul(self.ps_per_loop.get()));
            let now_on = nix::sched::sched_getcpu()?;
            migrations += u64::from(now_on != cpu);
            cpu = now_on;
        }
        self.ahead_ps = done_ps.saturating_sub(asked_ps);
        Ok(Done {
            work: WorkUnits(done_ps.min(asked_ps) / 1_000),
            migrations,
        })
    }
}

/// A chain of multiplications, each waiting for the last: its time depends on the clock rate only.
fn burn(loops: u64) {
    let mut value = black_box(1_u64);
    for _ in 0..loops {
        for _ in 0..CHAIN {
            value = value
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
        }
        value = black_box(value);
    }
    black_box(value);
}

/// Times the loop on the given CPU, or on the biggest that this process may use.
///
/// # Errors
/// When the CPU does not exist or may not be used, or the clocks cannot be read.
pub fn calibrate(cpu: Option<usize>) -> io::Result<Calibration> {
    let cpu = match cpu {
        Some(cpu) => cpu,
        None => biggest_cpu(Path::new("/sys/devices/system/cpu"), &allowed_cpus()?)
            .ok_or_else(|| io::Error::other("this process may use no CPU"))?,
    };
    // A thread of its own, so that the pinning ends with it.
    let timing = std::thread::Builder::new()
        .name("calibrate".to_owned())
        .spawn(move || time_loop(cpu))?;
    let ps_per_loop = timing
        .join()
        .map_err(|_| io::Error::other("the calibration thread died"))??;
    Ok(Calibration {
        ps_per_loop,
        measured_on: Some(cpu),
    })
}

fn time_loop(cpu: usize) -> io::Result<NonZeroU64> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    let ramped = clock::now_ns()?.saturating_add(RAMP_NS);
    while clock::now_ns()? < ramped {
        burn(SAMPLE_LOOPS / 10);
    }
    let mut fastest_ns = u64::MAX;
    for _ in 0..SAMPLES {
        let before = clock::cpu_time_ns()?;
        burn(SAMPLE_LOOPS);
        fastest_ns = fastest_ns.min(clock::cpu_time_ns()?.saturating_sub(before));
    }
    NonZeroU64::new(fastest_ns.saturating_mul(1_000) / SAMPLE_LOOPS)
        .ok_or_else(|| io::Error::other("the thread's CPU clock does not advance"))
}

/// The CPUs this process may use, in rising order.
///
/// # Errors
/// When the kernel does not tell.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect())
}

/// The first among the CPUs with the greatest capacity, by highest frequency where no capacity is shown.
fn biggest_cpu(sysfs: &Path, cpus: &[usize]) -> Option<usize> {
    let number = |cpu: usize, file: &str| -> Option<u64> {
        fs::read_to_string(sysfs.join(format!("cpu{cpu}/{file}")))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let size = |cpu: usize| {
        (
            number(cpu, "cpu_capacity"),
            number(cpu, "cpufreq/cpuinfo_max_freq"),
        )
    };
    // max_by_key takes the last of equals: go from the highest number down.
    cpus.iter().rev().copied().max_by_key(|&cpu| size(cpu))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn the_biggest_cpu_is_the_first_with_the_greatest_capacity() {
        let sysfs = tempfile::tempdir().unwrap();
        for (cpu, capacity) in [(0, "462"), (1, "1024"), (2, "1024"), (3, "700")] {
            let dir = sysfs.path().join(format!("cpu{cpu}"));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("cpu_capacity"), capacity).unwrap();
        }
        assert_eq!(biggest_cpu(sysfs.path(), &[0, 1, 2, 3]), Some(1));
        assert_eq!(biggest_cpu(sysfs.path(), &[0, 3]), Some(3));
        assert_eq!(biggest_cpu(sysfs.path(), &[]), None);
    }

    #[test]
    fn where_no_capacity_is_shown_the_highest_frequency_decides() {
        let sysfs = tempfile::tempdir().unwrap();
        for (cpu, khz) in [(0, "1844000"), (1, "2362000")] {
            let dir = sysfs.path().join(format!("cpu{cpu}/cpufreq"));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("cpuinfo_max_freq"), khz).unwrap();
        }
        assert_eq!(biggest_cpu(sysfs.path(), &[0, 1]), Some(1));
    }

    #[test]
    fn what_rounding_to_whole_loops_adds_is_taken_off_the_next_run() {
        let stop = AtomicBool::new(false);
        let limits = Limits {
            end_ns: u64::MAX,
            stop: &stop,
        };
        let mut work = LoopWork {
            ps_per_loop: NonZeroU64::new(7_000).unwrap(),
            ahead_ps: 0,
        };
        assert_eq!(
            work.run(WorkUnits(10), &limits).unwrap().work,
            WorkUnits(10)
        );
        assert_eq!(work.ahead_ps, 4_000);
        assert_eq!(work.run(WorkUnits(3), &limits).unwrap().work, WorkUnits(3));
        assert_eq!(work.ahead_ps, 1_000);
    }

    #[test]
    fn work_leaves_off_when_told_to_stop() {
        let stop = AtomicBool::new(true);
        let limits = Limits {
            end_ns: u64::MAX,
            stop: &stop,
        };
        let mut work = LoopWork {
            ps_per_loop: NonZeroU64::new(7_000).unwrap(),
            ahead_ps: 0,
        };
        assert_eq!(
            work.run(WorkUnits(u64::MAX), &limits).unwrap().work,
            WorkUnits(0)
        );
    }
}
