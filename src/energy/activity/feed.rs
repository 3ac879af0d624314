//! Where figures of activity come from, and what each costs a CPU that sleeps.

use serde::Serialize;
use std::fmt;

/// One kind of figures, read together from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feed {
    /// Idle time by /proc/stat.
    Ticks,
    /// cpuidle's counts and times.
    IdleStates,
    /// /proc/interrupts.
    Interrupts,
    /// /proc/schedstat.
    RunDelay,
    /// thermal_throttle's counts.
    Throttle,
    /// cpufreq's present frequency.
    Frequency,
    /// hwmon's sensors in the processor.
    Temperature,
    /// The graphics driver's files.
    Graphics,
    /// Low power idle of the platform.
    LowPower,
    /// intel_uncore_frequency.
    Uncore,
    /// perf PMU `msr`: aperf, mperf, tsc, smi.
    Clock,
    /// perf hardware events: instructions and cycles.
    Work,
    /// perf hardware events: references to the last-level cache and misses.
    Cache,
    /// perf PMU `cstate_core`.
    CoreIdle,
    /// perf PMU `cstate_module`.
    ModuleIdle,
    /// perf PMU `cstate_pkg`.
    PackageIdle,
}

impl Feed {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Ticks,
        Self::IdleStates,
        Self::Interrupts,
        Self::RunDelay,
        Self::Throttle,
        Self::Frequency,
        Self::Temperature,
        Self::Graphics,
        Self::LowPower,
        Self::Uncore,
        Self::Clock,
        Self::Work,
        Self::Cache,
        Self::CoreIdle,
        Self::ModuleIdle,
        Self::PackageIdle,
    ];

    /// Whether it is read through perf, which needs a privilege.
    pub const fn is_perf(self) -> bool {
        matches!(
            self,
            Self::Clock
                | Self::Work
                | Self::Cache
                | Self::CoreIdle
                | Self::ModuleIdle
                | Self::PackageIdle
        )
    }

    /// How it is kept that a sleeping CPU is not woken by being looked at.
    pub const fn peace(self) -> &'static str {
        match self {
            Self::Ticks
            | Self::IdleStates
            | Self::Interrupts
            | Self::RunDelay
            | Self::Throttle
            | Self::Frequency
            | Self::Uncore
            | Self::LowPower => "a variable in memory is read: no CPU is asked",
            Self::Graphics => "the graphics unit is asked, no CPU",
            Self::Temperature => {
                "the driver asks the sensor's CPU by interrupt: skipped while the core (for the package: every CPU of it) is parked"
            }
            Self::Clock | Self::Work | Self::Cache => {
                "perf asks the CPU by interrupt: skipped while it is parked, when its counters stand still"
            }
            Self::CoreIdle | Self::ModuleIdle => {
                "perf asks the counter's CPU by interrupt: skipped while it is parked, and unknown until two reads in a row"
            }
            Self::PackageIdle => {
                "perf reads on the asking CPU in its own package and asks one CPU of each other package: skipped while that one is parked"
            }
        }
    }
}

impl fmt::Display for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ticks => "/proc/stat",
            Self::IdleStates => "cpuidle",
            Self::Interrupts => "/proc/interrupts",
            Self::RunDelay => "/proc/schedstat",
            Self::Throttle => "thermal_throttle",
            Self::Frequency => "cpufreq",
            Self::Temperature => "hwmon coretemp, k10temp",
            Self::Graphics => "drm (i915, xe)",
            Self::LowPower => "cpuidle low_power_idle",
            Self::Uncore => "intel_uncore_frequency",
            Self::Clock => "perf PMU msr",
            Self::Work => "perf instructions, cycles",
            Self::Cache => "perf cache-references, cache-misses",
            Self::CoreIdle => "perf PMU cstate_core",
            Self::ModuleIdle => "perf PMU cstate_module",
            Self::PackageIdle => "perf PMU cstate_pkg",
        })
    }
}
