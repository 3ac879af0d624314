//! Small machines for tests: directory trees with the few files that the readers look at.

use super::clock::Moment;
use crate::sysroot::SysRoot;
use crate::units::Nanos;
use std::path::PathBuf;

/// A machine in a temporary directory.
pub struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    /// A machine that shows nothing.
    pub fn bare() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    /// An Intel laptop as root sees it, with every meter that such a machine has. The powercap
    /// values are those of a real machine (the prometheus/procfs project's test data).
    pub fn laptop() -> Self {
        let machine = Self::bare();
        machine
            .cpuinfo("GenuineIntel", "fpu tsc msr")
            .privileged(true)
            .energy_pmu(
                "power",
                "0",
                &["energy-cores=0x01", "energy-pkg=0x02", "energy-psys=0x05"],
            )
            .zone(
                "intel-rapl:0",
                "package-0",
                240_422_366_267,
                Some(262_143_328_850),
            )
            .zone(
                "intel-rapl:0:0",
                "core",
                118_821_284_256,
                Some(262_143_328_850),
            )
            .zone("intel-rapl:0:1", "uncore", 3_000, Some(262_143_328_850))
            .zone("intel-rapl:1", "psys", 7_000, Some(262_143_328_850))
            .zone(
                "intel-rapl-mmio:0",
                "package-0",
                240_422_366_300,
                Some(262_143_328_850),
            )
            .battery("BAT0", "Discharging")
            .file("sys/class/power_supply/BAT0/power_now", "4830000\n");
        machine
    }

    /// Writes one file, making its directories.
    pub fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A link to an unreadable file of the host must be replaced, not followed.
        let _ = std::fs::remove_file(&path);
        std::fs::write(path, text).unwrap();
        self
    }

    /// Removes a file or a directory with all in it.
    pub fn remove(&self, path: &str) -> &Self {
        let path = self.directory.path().join(path);
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
        self
    }

    /// Shows a file or directory of the host.
    pub fn link(&self, path: &str, target: &std::path::Path) -> &Self {
        let path = self.directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
        self
    }

    /// Makes a file that cannot be read. Permission bits do not stop root, but sysfs refuses a read
    /// of a write-only attribute to everybody, so the file becomes a link to one.
    pub fn deny(&self, path: &str) -> &Self {
        let path = self.directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink("/sys/bus/cpu/drivers_probe", path).unwrap();
        self
    }

    pub fn cpuinfo(&self, vendor: &str, flags: &str) -> &Self {
        let text = format!("processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n");
        self.file("proc/cpuinfo", &text)
    }

    /// Whether the process has CAP_PERFMON; `perf_event_paranoid` stays at the usual 2.
    pub fn privileged(&self, privileged: bool) -> &Self {
        let mask = match privileged {
            true => "0000004000000000",
            false => "0000000000000000",
        };
        self.file(
            "proc/self/status",
            &format!("Name:\ttest\nCapEff:\t{mask}\n"),
        )
        .file("proc/sys/kernel/perf_event_paranoid", "2\n")
    }

    /// A PMU of joules in 2⁻³²; events as `name=code`.
    pub fn energy_pmu(&self, name: &str, cpumask: &str, events: &[&str]) -> &Self {
        let directory = format!("sys/bus/event_source/devices/{name}");
        self.file(&format!("{directory}/type"), "9\n")
            .file(&format!("{directory}/cpumask"), &format!("{cpumask}\n"));
        for event in events {
            let (event, code) = event.split_once('=').unwrap();
            let path = format!("{directory}/events/{event}");
            self.file(&path, &format!("event={code}\n"))
                .file(&format!("{path}.unit"), "Joules\n")
                .file(&format!("{path}.scale"), "2.3283064365386962890625e-10\n");
        }
        self
    }

    /// A CPU's place.
    pub fn cpu(&self, cpu: usize, package: u32, die: u32) -> &Self {
        let directory = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        self.file(
            &format!("{directory}/physical_package_id"),
            &format!("{package}\n"),
        )
        .file(&format!("{directory}/die_id"), &format!("{die}\n"))
    }

    pub fn zone(&self, id: &str, name: &str, energy_uj: u64, range_uj: Option<u64>) -> &Self {
        let directory = format!("sys/class/powercap/{id}");
        self.file(&format!("{directory}/name"), &format!("{name}\n"))
            .file(&format!("{directory}/energy_uj"), &format!("{energy_uj}\n"));
        if let Some(range_uj) = range_uj {
            let path = format!("{directory}/max_energy_range_uj");
            self.file(&path, &format!("{range_uj}\n"));
        }
        self
    }

    pub fn battery(&self, name: &str, status: &str) -> &Self {
        let directory = format!("sys/class/power_supply/{name}");
        self.file(&format!("{directory}/type"), "Battery\n")
            .file(&format!("{directory}/present"), "1\n")
            .file(&format!("{directory}/status"), &format!("{status}\n"))
    }

    /// A hwmon channel such as `energy1`.
    pub fn channel(
        &self,
        device: &str,
        chip: &str,
        channel: &str,
        label: &str,
        value: &str,
    ) -> &Self {
        let directory = format!("sys/class/hwmon/{device}");
        self.file(&format!("{directory}/name"), &format!("{chip}\n"))
            .file(
                &format!("{directory}/{channel}_label"),
                &format!("{label}\n"),
            )
            .file(
                &format!("{directory}/{channel}_input"),
                &format!("{value}\n"),
            )
    }

    /// A performance domain; levels as kHz, power, cost.
    pub fn perf_domain(&self, name: &str, cpus: &str, flags: &str, levels: &[[u64; 3]]) -> &Self {
        let directory = format!("sys/kernel/debug/energy_model/{name}");
        self.file(&format!("{directory}/cpus"), &format!("{cpus}\n"))
            .file(&format!("{directory}/flags"), &format!("{flags}\n"));
        for [khz, power, cost] in levels {
            let level = format!("{directory}/ps:{khz}");
            self.file(&format!("{level}/frequency"), &format!("{khz}\n"))
                .file(&format!("{level}/power"), &format!("{power}\n"))
                .file(&format!("{level}/cost"), &format!("{cost}\n"));
        }
        self
    }

    pub fn sys(&self) -> SysRoot {
        SysRoot::at(self.directory.path())
    }
}

/// The sample taken this many milliseconds after the clock's start.
pub fn at_ms(ms: u64) -> Moment {
    Moment {
        at: Nanos::new(ms * 1_000_000),
        resumed: false,
    }
}

/// The shared collection of real machines' files, where there is one.
pub fn collection() -> Option<PathBuf> {
    let shared = std::env::var_os("JOULE_SHARED")?;
    Some(PathBuf::from(shared).join("hardware/fixtures/prometheus"))
}
