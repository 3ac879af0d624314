//! What one full sample costs: all energy meters and the CPUs' activity, on machines made of files.
//!
//! `cargo bench --bench energy_sample`. Besides the time it counts system calls, by running itself under `perf stat`
//! with few and with many samples. Files in memory cost about what sysfs costs to read, without the driver behind it (an
//! MSR read on another CPU takes an interrupt of that CPU, some 2 µs more).
//!
//! Last it holds `scx_joule stat` against `perf stat -I` and turbostat, where they run, on this machine.

#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "a benchmark has no callers, and stops where it cannot go on"
)]

use criterion::Criterion;
use scx_joule::energy::activity::KernelActivity;
use scx_joule::energy::battery::{BatteryPower, batteries};
use scx_joule::energy::hwmon::{Hwmon, channels};
use scx_joule::energy::powercap::Powercap;
use scx_joule::energy::{EnergySource, Moment};
use scx_joule::sysroot::{SysRoot, keep_many_open};
use scx_joule::topology::Topology;
use scx_joule::units::{KHz, Nanos};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// CPUs, packages.
const MACHINES: [(usize, usize); 2] = [(16, 1), (256, 2)];
/// How many samples tell one sample's system calls and CPU time.
const FEW: u64 = 10;
const MANY: u64 = 110;
/// How often CPU time is measured; the least counts, as nothing makes a sample cheaper than it is.
const TRIES: usize = 3;
/// A loop that looks four times a second.
const SAMPLES_PER_S: f64 = 4.0;

/// Everything that is read at each turn of the loop.
struct Reader {
    meters: Vec<Box<dyn EnergySource>>,
    activity: KernelActivity,
    at: Nanos,
}

impl Reader {
    fn new(sys: &SysRoot) -> Self {
        let mut meters: Vec<Box<dyn EnergySource>> = Vec::new();
        let powercap = Powercap::open(sys, false).expect("zones");
        meters.push(Box::new(powercap.expect("a zone")));
        meters.push(Box::new(Hwmon::open(sys, channels(sys).expect("channels"))));
        for battery in batteries(sys).expect("batteries") {
            meters.push(Box::new(BatteryPower::open(sys, &battery).expect("power")));
        }
        let topology = Topology::read(sys).expect("a topology");
        let opps = vec![OPPS.map(KHz::new).to_vec(); topology.classes.len()];
        Self {
            activity: KernelActivity::new(sys, &topology, &opps),
            meters,
            at: Nanos::new(0),
        }
    }

    fn meters(&mut self) {
        self.at = Nanos::new(self.at.get() + 250_000_000);
        let now = Moment {
            at: self.at,
            resumed: false,
        };
        for meter in &mut self.meters {
            std::hint::black_box(meter.sample(now).expect("a sample"));
        }
    }

    fn full(&mut self) {
        self.meters();
        std::hint::black_box(self.activity.sample(self.at).expect("activity"));
    }

    /// CPU time of a full sample, µs.
    fn full_us(&mut self) -> f64 {
        let tries = (0..TRIES).map(|_| {
            let start = cpu_time();
            for _ in 0..MANY {
                self.full();
            }
            (cpu_time() - start) * 1e6 / 110.0
        });
        tries.fold(f64::INFINITY, f64::min)
    }
}

const OPPS: [u64; 4] = [800_000, 1_600_000, 2_400_000, 3_200_000];

/// Writes a machine's files: three zones a package, psys, two hwmon channels, a battery; for each CPU four idle
/// states, for each package a clock.
fn machine(root: &Path, cpus: usize, packages: usize) {
    let write = |file: String, text: String| {
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, text + "\n").expect("a file");
    };
    let range = "262143328850";
    let zone = |id: &str, name: &str| {
        let zone = format!("sys/class/powercap/{id}");
        write(format!("{zone}/name"), name.to_owned());
        write(format!("{zone}/energy_uj"), "240422366267".to_owned());
        write(format!("{zone}/max_energy_range_uj"), range.to_owned());
    };
    for package in 0..packages {
        zone(
            &format!("intel-rapl:{package}"),
            &format!("package-{package}"),
        );
        zone(&format!("intel-rapl:{package}:0"), "core");
        zone(&format!("intel-rapl:{package}:1"), "dram");
    }
    zone(&format!("intel-rapl:{packages}"), "psys");
    let hwmon = "sys/class/hwmon/hwmon0";
    for (file, text) in [
        ("name", "ina3221"),
        ("energy1_input", "77"),
        ("energy1_label", "VDD_IN"),
        ("power1_input", "4830000"),
        ("power1_label", "VDD_CPU"),
    ] {
        write(format!("{hwmon}/{file}"), text.to_owned());
    }
    let battery = "sys/class/power_supply/BAT0";
    for (file, text) in [
        ("type", "Battery"),
        ("status", "Discharging"),
        ("power_now", "4830000"),
    ] {
        write(format!("{battery}/{file}"), text.to_owned());
    }
    let cpu_dir = "sys/devices/system/cpu";
    write(format!("{cpu_dir}/online"), format!("0-{}", cpus - 1));
    write(format!("{cpu_dir}/possible"), format!("0-{}", cpus - 1));
    let mut stat = "cpu  100 0 100 1000 0 0 0 0 0 0\n".to_owned();
    for cpu in 0..cpus {
        stat += &format!("cpu{cpu} 100 0 100 1000 0 0 0 0 0 0\n");
        let dir = format!("{cpu_dir}/cpu{cpu}");
        let package = cpu * packages / cpus;
        let (first, last) = (
            package * cpus / packages,
            (package + 1) * cpus / packages - 1,
        );
        write(
            format!("{dir}/topology/physical_package_id"),
            package.to_string(),
        );
        write(format!("{dir}/topology/core_id"), cpu.to_string());
        for state in 0..4 {
            let dir = format!("{dir}/cpuidle/state{state}");
            write(format!("{dir}/name"), format!("C{state}"));
            write(format!("{dir}/time"), "123456789".to_owned());
            write(format!("{dir}/usage"), "98765".to_owned());
            write(format!("{dir}/above"), "0".to_owned());
            write(format!("{dir}/below"), "0".to_owned());
        }
        let related: Vec<_> = (first..=last).map(|cpu| cpu.to_string()).collect();
        write(format!("{dir}/cpufreq/related_cpus"), related.join(" "));
        write(
            format!("{dir}/cpufreq/cpuinfo_max_freq"),
            "3200000".to_owned(),
        );
        write(
            format!("{dir}/cpufreq/scaling_cur_freq"),
            "1600000".to_owned(),
        );
        let times = OPPS.map(|khz| format!("{khz} 1000"));
        write(
            format!("{dir}/cpufreq/stats/time_in_state"),
            times.join("\n"),
        );
    }
    write("proc/stat".to_owned(), stat);
}

/// In memory where there is such a place.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory")
}

/// What a command takes as perf counts it: ms of `task-clock`, or a number of events; `None` where it cannot be had.
fn counted(event: &str, command: &[&str]) -> Option<f64> {
    let output = Command::new("perf")
        .args(["stat", "-x,", "-o", "/dev/fd/1", "-e", event, "--"])
        .args(command)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said
        .lines()
        .find(|line| line.contains(&format!(",{event},")))?;
    (output.status.success()).then(|| line.split(',').next()?.parse().ok())?
}

/// What one sample takes, by a command that is given how many to take: [`FEW`], and a hundred more.
fn of_a_sample(event: &str, command: impl Fn(u64) -> Vec<String>) -> Option<f64> {
    let of = |samples| {
        let words = command(samples);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        counted(event, &words)
    };
    // what both have in common, starting up above all, goes out
    Some((of(MANY)? - of(FEW)?) / 100.0)
}

/// CPU time of a sample, ms: the least of several tries.
fn ms_of_a_sample(command: impl Fn(u64) -> Vec<String>) -> Option<f64> {
    let tries = (0..TRIES).map(|_| of_a_sample("task-clock", &command));
    tries.flatten().reduce(f64::min)
}

/// The TSC and the interrupts by SMM of each CPU, ten times a second, on this machine.
fn beside_others() {
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
    let ours = env!("CARGO_BIN_EXE_scx_joule");
    let stat = |n| {
        words(format!(
            "{ours} stat -q -o /dev/null --show TSC_MHz,SMI -i 0.1 -n {n}"
        ))
    };
    let Some(stat) = ms_of_a_sample(stat) else {
        return println!("this machine: nothing to compare with (perf)");
    };
    println!("this machine: scx_joule stat takes {stat:.3} ms of CPU time a sample");
    let perf = |n| {
        let seconds = 0.1 * f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        words(format!(
            "perf stat -a -A -x, -I 100 -e msr/tsc/,msr/smi/ -o /dev/null -- sleep {seconds}"
        ))
    };
    let turbostat = |n| {
        words(format!(
            "turbostat -q --show TSC_MHz,SMI -i 0.1 -n {n} -o /dev/null"
        ))
    };
    let others = [
        ("perf stat -I", ms_of_a_sample(perf)),
        ("turbostat", ms_of_a_sample(turbostat)),
    ];
    for (name, ms) in others {
        match ms {
            Some(ms) => println!("    {name}: {ms:.3} ms; ours is x{:.2} of it", stat / ms),
            None => println!("    {name} does not run here"),
        }
    }
}

fn take(samples: u64, cpus: usize, packages: usize) {
    let directory = directory();
    machine(directory.path(), cpus, packages);
    let mut reader = Reader::new(&SysRoot::at(directory.path()).steady());
    for _ in 0..samples {
        reader.full();
    }
}

fn main() {
    keep_many_open();
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let [word, samples, cpus, packages] = words.as_slice()
        && word == "samples"
    {
        let number = |text: &String| text.parse().expect("a number");
        let packages = packages.parse().expect("a number");
        return take(number(samples), cpus.parse().expect("a number"), packages);
    }
    let mut criterion = Criterion::default().configure_from_args();
    for (cpus, packages) in MACHINES {
        let directory = directory();
        machine(directory.path(), cpus, packages);
        let mut reader = Reader::new(&SysRoot::at(directory.path()).steady());
        criterion.bench_function(&format!("meters/{cpus}"), |bench| {
            bench.iter(|| reader.meters());
        });
        criterion.bench_function(&format!("full/{cpus}"), |bench| {
            bench.iter(|| reader.full());
        });
        let us = reader.full_us();
        println!(
            "{cpus} CPUs: {us:.0} µs of CPU time a sample; {SAMPLES_PER_S} a second take {:.3} % of one CPU",
            us * SAMPLES_PER_S / 1e4
        );
        let this = std::env::current_exe().expect("a path");
        let samples = |n: u64| {
            let word = |number: usize| number.to_string();
            vec![
                this.display().to_string(),
                "samples".to_owned(),
                n.to_string(),
                word(cpus),
                word(packages),
            ]
        };
        match of_a_sample("raw_syscalls:sys_enter", samples) {
            Some(calls) => println!("{cpus} CPUs: {calls:.0} system calls a sample"),
            None => println!("{cpus} CPUs: system calls cannot be counted (perf, raw_syscalls)"),
        }
    }
    beside_others();
    criterion.final_summary();
}

/// CPU time of this process so far, s.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let nanoseconds = u32::try_from(time.tv_nsec).expect("less than a second");
    let seconds = u32::try_from(time.tv_sec).expect("less than a century");
    f64::from(seconds) + f64::from(nanoseconds) / 1e9
}
