//! Valid trees, one for each parser, which inputs are made from.

/// Paths and texts.
pub type Tree = &'static [(&'static str, &'static str)];

pub const CPUS: Tree = &[
    ("sys/devices/system/cpu/possible", "0-2\n"),
    ("sys/devices/system/cpu/online", "0-2\n"),
    ("sys/devices/system/cpu/cpu0/cpu_capacity", "280\n"),
    ("sys/devices/system/cpu/cpu1/cpu_capacity", "1024\n"),
    ("sys/devices/system/cpu/cpu1/online", "1\n"),
    ("sys/devices/system/cpu/cpu0/acpi_cppc/highest_perf", "64\n"),
    (
        "sys/devices/system/cpu/cpu0/topology/physical_package_id",
        "0\n",
    ),
    ("sys/devices/system/cpu/cpu0/topology/die_id", "-1\n"),
    ("sys/devices/system/cpu/cpu0/topology/core_id", "0\n"),
    (
        "sys/devices/system/cpu/cpu0/topology/thread_siblings_list",
        "0\n\0",
    ),
    (
        "sys/devices/system/cpu/cpu0/regs/identification/midr_el1",
        "0x00000000411fd461\n",
    ),
    ("sys/devices/system/cpu/cpu0/cpufreq/related_cpus", "0 1\n"),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
        "2016000\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_min_freq",
        "307200\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_available_frequencies",
        "307200 2016000 \n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver",
        "qcom-cpufreq-hw\n",
    ),
    ("sys/devices/system/cpu/cpu0/cache/index3/level", "3\n"),
    ("sys/devices/system/cpu/cpu0/cache/index3/type", "Unified\n"),
    (
        "sys/devices/system/cpu/cpu0/cache/index3/shared_cpu_list",
        "0-2\n",
    ),
];
pub const PMU: Tree = &[
    ("proc/sys/kernel/perf_event_paranoid", "2\n"),
    ("proc/self/status", "Name:\tx\nCapEff:\t0000004000000000\n"),
    ("sys/bus/event_source/devices/power/type", "9\n"),
    ("sys/bus/event_source/devices/power/cpumask", "0,28\n"),
    (
        "sys/bus/event_source/devices/power/events/energy-pkg",
        "event=0x02\n",
    ),
    (
        "sys/bus/event_source/devices/power/events/energy-pkg.unit",
        "Joules\n",
    ),
    (
        "sys/bus/event_source/devices/power/events/energy-pkg.scale",
        "2.3283064365386962890625e-10\n",
    ),
];
pub const POWERCAP: Tree = &[
    ("sys/class/powercap/intel-rapl:0/name", "package-0\n"),
    (
        "sys/class/powercap/intel-rapl:0/energy_uj",
        "240422366267\n",
    ),
    (
        "sys/class/powercap/intel-rapl:0/max_energy_range_uj",
        "262143328850\n",
    ),
    ("sys/class/powercap/intel-rapl:0:0/name", "core\n"),
    (
        "sys/class/powercap/intel-rapl:0:0/energy_uj",
        "118821284256\n",
    ),
    (
        "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj",
        "262143328850\n",
    ),
    ("sys/class/powercap/intel-rapl:1/name", "package-0-die-1\n"),
    ("sys/class/powercap/intel-rapl:1/energy_uj", "65712999613\n"),
];
pub const HWMON: Tree = &[
    ("sys/class/hwmon/hwmon0/name", "scmi_sensors\n"),
    (
        "sys/class/hwmon/hwmon0/energy1_input",
        "18446744073709551615\n",
    ),
    ("sys/class/hwmon/hwmon0/energy1_label", "socket\n"),
    ("sys/class/hwmon/hwmon1/name", "ina3221\n"),
    ("sys/class/hwmon/hwmon1/power1_input", "4830000\n"),
    ("sys/class/hwmon/hwmon1/power1_label", "VDD_CPU\n"),
    ("sys/class/hwmon/hwmon1/in2_input", "19000\n"),
    ("sys/class/hwmon/hwmon1/curr2_input", "250\n"),
];
pub const BATTERY: Tree = &[
    ("sys/class/power_supply/AC/type", "Mains\n"),
    ("sys/class/power_supply/AC/online", "0\n"),
    ("sys/class/power_supply/BAT0/type", "Battery\n"),
    ("sys/class/power_supply/BAT0/status", "Discharging\n"),
    ("sys/class/power_supply/BAT0/energy_now", "49450000\n"),
    ("sys/class/power_supply/BAT0/current_now", "-400000\n"),
    ("sys/class/power_supply/BAT0/voltage_now", "12229000\n"),
    ("sys/class/power_supply/BAT1/type", "Battery\n"),
    ("sys/class/power_supply/BAT1/status", "Discharging\n"),
    ("sys/class/power_supply/BAT1/charge_now", "4000000\n"),
];
pub const ENERGY_MODEL: Tree = &[
    ("sys/kernel/debug/energy_model/cpu0/cpus", "0-3,8\n"),
    ("sys/kernel/debug/energy_model/cpu0/flags", "0x1\n"),
    (
        "sys/kernel/debug/energy_model/cpu0/ps:500000/frequency",
        "500000\n",
    ),
    (
        "sys/kernel/debug/energy_model/cpu0/ps:500000/power",
        "20000\n",
    ),
    ("sys/kernel/debug/energy_model/cpu0/ps:500000/cost", "400\n"),
    (
        "sys/kernel/debug/energy_model/cpu0/ps:500000/performance",
        "200\n",
    ),
    (
        "sys/kernel/debug/energy_model/cpu0/ps:500000/inefficient",
        "1\n",
    ),
];
pub const MACHINE: Tree = &[
    (
        "proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor\n",
    ),
    ("sys/bus/event_source/devices/power/type", "9\n"),
    ("sys/bus/event_source/devices/power/cpumask", "0\n"),
    (
        "sys/bus/event_source/devices/power/events/energy-pkg",
        "event=0x02\n",
    ),
    ("sys/class/powercap/intel-rapl:0/name", "package-0\n"),
    (
        "sys/class/powercap/intel-rapl:0/energy_uj",
        "240422366267\n",
    ),
    ("sys/class/hwmon/hwmon0/name", "vsoc\n"),
    ("sys/class/hwmon/hwmon0/energy1_input", "5\n"),
    ("sys/class/hwmon/hwmon0/energy1_label", "package\n"),
    ("sys/class/power_supply/BAT0/type", "Battery\n"),
    ("sys/class/power_supply/BAT0/power_now", "4830000\n"),
    ("sys/kernel/debug/energy_model/cpu0/cpus", "0\n"),
    ("sys/kernel/debug/energy_model/cpu0/ps:5/power", "2\n"),
];
pub const KERNEL: Tree = &[
    ("proc/sys/kernel/osrelease", "7.3.4-cloud\n"),
    (
        "boot/config-7.3.4-cloud",
        "CONFIG_SCHED_CLASS_EXT=y\nCONFIG_HZ=250\n",
    ),
    ("proc/self/status", "Name:\tx\nCapEff:\t000001ffffffffff\n"),
    ("sys/kernel/sched_ext/state", "enabled\n"),
    ("sys/kernel/sched_ext/root/ops", "joule\n"),
    ("proc/sys/net/core/bpf_jit_enable", "1\n"),
    ("sys/devices/system/cpu/online", "0\n"),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "schedutil\n",
    ),
    ("sys/devices/system/cpu/intel_pstate/status", "active\n"),
];
pub const PROFILE: Tree = &[(
    "p.toml",
    "intent = 'long life'\nslice_us = 5000\nheadroom_pct = 125\nhysteresis_pct = 5\n",
)];
pub const WORDS: Tree = &[
    ("value", "262143328850\n"),
    ("values", "307200 2016000 \n"),
    ("list", "0-3,8\n\0"),
];
pub const COMMAND_LINE: Tree = &[(
    "words",
    "scx_joule --stats 5 --profile battery check --json\n",
)];
pub const ACTIVITY: Tree = &[
    (
        "proc/stat",
        "cpu  30 0 30 700 20 0 0 0 0 0\ncpu0 10 0 10 300 5 0 0 0 0 0\ncpu1 10 0 10 200 5 0 0 0 0 0\ncpu2 10 0 10 200 10 0 0 0 0 0\nintr 5 6\n",
    ),
    ("sys/devices/system/cpu/online", "0-2\n"),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/stats/time_in_state",
        "500000 300\n1000000 40\n",
    ),
    (
        "sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq",
        "2000000\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpuidle/state0/time",
        "905000\n",
    ),
    ("sys/devices/system/cpu/cpu0/cpuidle/state0/usage", "12\n"),
    (
        "sys/devices/system/cpu/cpu0/cpuidle/state1/time",
        "905000\n",
    ),
    ("sys/devices/system/cpu/cpu0/cpuidle/state1/usage", "12\n"),
    (
        "sys/devices/system/cpu/cpu1/cpuidle/state0/time",
        "905000\n",
    ),
    ("sys/devices/system/cpu/cpu1/cpuidle/state0/usage", "12\n"),
    (
        "sys/devices/system/cpu/cpu1/cpuidle/state1/time",
        "905000\n",
    ),
    ("sys/devices/system/cpu/cpu1/cpuidle/state1/usage", "12\n"),
];
pub const WATCH: Tree = &[
    (
        "proc/stat",
        "cpu  20 0 20 500 20 0 0 0 0 0\ncpu0 10 0 10 300 5 0 0 0 0 0\ncpu1 10 0 10 200 5 0 0 0 0 0\n",
    ),
    (
        "proc/interrupts",
        "           CPU0       CPU1\n  0:  9  0  IO-APIC  2-edge  timer\nNMI:  3  4  Non-maskable interrupts\nERR:  0\n",
    ),
    (
        "proc/schedstat",
        "version 17\ntimestamp 5\ncpu0 0 0 0 0 0 0 900 800 70\ncpu1 0 0 0 0 0 0 900 800 70\n",
    ),
    ("sys/devices/system/cpu/online", "0-1\n"),
    ("sys/devices/system/cpu/cpu0/cpuidle/state0/name", "POLL\n"),
    ("sys/devices/system/cpu/cpu0/cpuidle/state0/time", "500\n"),
    ("sys/devices/system/cpu/cpu0/cpuidle/state0/usage", "4\n"),
    ("sys/devices/system/cpu/cpu0/cpuidle/state0/above", "1\n"),
    (
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
        "2\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
        "800000\n",
    ),
    (
        "sys/devices/system/cpu/cpuidle/low_power_idle_cpu_residency_us",
        "77\n",
    ),
    (
        "sys/devices/system/cpu/intel_uncore_frequency/package_00_die_00/current_freq_khz",
        "1800000\n",
    ),
    (
        "sys/devices/system/cpu/intel_uncore_frequency/uncore01/package_id",
        "1\n",
    ),
    (
        "sys/devices/system/cpu/intel_uncore_frequency/uncore01/current_freq_khz",
        "2000000\n",
    ),
    ("sys/class/hwmon/hwmon0/name", "coretemp\n"),
    ("sys/class/hwmon/hwmon0/temp1_label", "Package id 0\n"),
    ("sys/class/hwmon/hwmon0/temp1_input", "51000\n"),
    ("sys/class/hwmon/hwmon0/temp2_label", "Core 0\n"),
    ("sys/class/hwmon/hwmon0/temp2_input", "-4000\n"),
    ("sys/class/drm/card0/power/rc6_residency_ms", "800\n"),
    ("sys/class/drm/card0/gt_cur_freq_mhz", "300\n"),
    (
        "sys/class/drm/card0/device/tile0/gt1/freq0/act_freq",
        "600\n",
    ),
];
/// Not a file of any machine: see `telemetry::recording`.
pub const RECORDING: Tree = &[("edits", "\u{1}\u{2}\u{3}\u{1}\u{40}\u{7}")];
