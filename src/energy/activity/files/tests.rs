use super::*;
use crate::energy::fixture::Machine;

const ONLINE: &str = "sys/devices/system/cpu/online";

fn all() -> BTreeSet<Feed> {
    Feed::ALL.into()
}

/// CPUs 1 and 3 of a machine whose CPU 0 is offline.
fn sparse() -> Machine {
    let machine = Machine::bare();
    machine
        .file(ONLINE, "1,3\n")
        .file(
            "proc/stat",
            "cpu  9 9 9 9 9\ncpu1 1 0 1 200 50 0\ncpu3 1 0 1 300 0 0\nintr 7\n",
        )
        .file(
            "proc/interrupts",
            "           CPU1       CPU3\n  1:  10  20  IO-APIC 1-edge keyboard\nNMI:  3  4  Non-maskable\nERR:  7\n",
        )
        .file(
            "proc/schedstat",
            "version 17\ntimestamp 1\ncpu1 0 0 0 0 0 0 11 5000 4\ndomain0 a 1 2\ncpu3 0 0 0 0 0 0 11 7000 6\n",
        );
    for (index, name) in ["POLL", "C6"].iter().enumerate() {
        let state = format!("sys/devices/system/cpu/cpu3/cpuidle/state{index}");
        machine
            .file(&format!("{state}/name"), &format!("{name}\n"))
            .file(&format!("{state}/usage"), "12\n")
            .file(&format!("{state}/time"), "3400\n");
    }
    machine
}

#[test]
fn figures_belong_to_the_cpu_that_the_file_names_not_to_its_position() {
    let machine = sparse();
    let mut files = Files::new(&machine.sys(), &all());
    let snapshot = files.read();
    assert_eq!(snapshot.cpus.keys().collect::<Vec<_>>(), [&1, &3]);
    let cpu = &snapshot.cpus[&3];
    assert_eq!(cpu.idle, Some(Nanos::new(3_000_000_000)));
    assert_eq!((cpu.interrupts, cpu.nmis), (Some(24), Some(4)));
    assert_eq!(cpu.run_delay, Some((Nanos::new(7000), 6)));
    let c6 = cpu.states["C6"];
    assert_eq!((c6.usage, c6.time_us, c6.above), (12, 3400, None));
    assert_eq!(snapshot.cpus[&1].idle, Some(Nanos::new(2_500_000_000)));
    assert!(snapshot.cpus[&1].states.is_empty());
}

#[test]
fn what_is_absent_is_unknown_and_named_and_what_is_garbage_is_named_with_its_line() {
    let machine = sparse();
    machine
        .file("proc/interrupts", "no CPUs here\n")
        .file("proc/schedstat", "cpu1 1 2 three\n");
    let mut files = Files::new(&machine.sys(), &all());
    let snapshot = files.read();
    let cpu = &snapshot.cpus[&1];
    assert_eq!(
        (cpu.interrupts, cpu.run_delay, cpu.frequency),
        (None, None, None)
    );
    let why = |feed| files.missing()[&feed].as_str();
    assert_eq!(why(Feed::Frequency), "this machine shows no cpufreq");
    assert!(why(Feed::Interrupts).contains("proc/interrupts:1: 'no CPUs here'"));
    assert!(why(Feed::RunDelay).contains("proc/schedstat:1:"));
    assert!(!files.missing().contains_key(&Feed::Ticks));
}

#[test]
fn files_that_vanish_leave_no_figure_behind() {
    let machine = sparse();
    let mut files = Files::new(&machine.sys(), &all());
    assert!(!files.read().cpus[&3].states.is_empty());
    machine.remove("sys/devices/system/cpu/cpu3/cpuidle");
    machine.remove("proc/stat");
    let snapshot = files.read();
    assert!(snapshot.cpus[&3].states.is_empty());
    assert_eq!(snapshot.cpus[&3].idle, None);
}

#[test]
fn a_machine_of_1024_cpus_is_read_whole() {
    let machine = Machine::bare();
    let lines: Vec<String> = (0..1024)
        .map(|cpu| format!("cpu{cpu} 0 0 0 {cpu} 0\n"))
        .collect();
    let names: Vec<String> = (0..1024).map(|cpu| format!("CPU{cpu}")).collect();
    machine
        .file(ONLINE, "0-1023\n")
        .file("proc/stat", &lines.concat())
        .file(
            "proc/interrupts",
            &format!("{}\nLOC: {}\n", names.join(" "), "7 ".repeat(1024)),
        );
    let snapshot = Files::new(&machine.sys(), &all()).read();
    assert_eq!(snapshot.cpus.len(), 1024);
    let last = &snapshot.cpus[&1023];
    assert_eq!(last.idle, Some(Nanos::new(10_230_000_000)));
    assert_eq!(last.interrupts, Some(7));
}

#[test]
fn temperatures_go_to_their_core_and_package_and_only_those_allowed_are_asked() {
    let machine = sparse();
    machine
        .channel("hwmon2", "coretemp", "temp1", "Package id 1", "61000")
        .channel("hwmon2", "coretemp", "temp2", "Core 8", "55000")
        .channel("hwmon2", "coretemp", "temp3", "Core 9", "44000")
        .channel("hwmon3", "nvme", "temp1", "Composite", "40000");
    let places = [(1, (1, 8)), (3, (1, 9))].into();
    let mut files = Files::new(&machine.sys(), &all());
    let mut snapshot = files.read();
    files.read_temperatures(&mut snapshot, &places, |_, core| core != Some(9));
    assert_eq!(snapshot.packages[&1].celsius, Some(61.0));
    assert_eq!(snapshot.cpus[&1].celsius, Some(55.0));
    assert_eq!(snapshot.cpus[&3].celsius, None);
}

#[test]
fn graphics_of_either_driver_uncore_and_low_power_idle_are_read() {
    let machine = sparse();
    machine
        .file("sys/class/drm/card1-eDP-1/status", "connected\n")
        .file("sys/class/drm/card1/power/rc6_residency_ms", "900\n")
        .file("sys/class/drm/card1/gt_cur_freq_mhz", "350\n")
        .file(
            "sys/devices/system/cpu/intel_uncore_frequency/package_01_die_00/current_freq_khz",
            "2400000\n",
        )
        .file(
            "sys/devices/system/cpu/intel_uncore_frequency/uncore02/package_id",
            "1\n",
        )
        .file(
            "sys/devices/system/cpu/intel_uncore_frequency/uncore02/current_freq_khz",
            "800000\n",
        )
        .file(
            "sys/devices/system/cpu/cpuidle/low_power_idle_system_residency_us",
            "77\n",
        );
    let snapshot = Files::new(&machine.sys(), &all()).read();
    let graphics = snapshot.machine.graphics;
    assert_eq!(
        (graphics.asleep_ms, graphics.wanted_mhz),
        (Some(900), Some(350))
    );
    assert_eq!(snapshot.packages[&1].uncore, Some(KHz::new(2_400_000)));
    assert_eq!(snapshot.machine.low_power_us, [None, Some(77)]);
    machine
        .remove("sys/class/drm/card1")
        .file("sys/class/drm/card0/device/tile0/gt1/freq0/act_freq", "5\n")
        .file("sys/class/drm/card0/device/tile0/gt0/freq0/act_freq", "9\n");
    let machine = Files::new(&machine.sys(), &all()).read().machine;
    assert_eq!(machine.graphics.actual_mhz, Some(9));
    assert_eq!(machine.media.actual_mhz, Some(5));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
    #[test]
    fn no_text_breaks_a_reader(
        stat in "(cpu[0-9]{1,3}( [0-9a-z]{0,20}){0,9}\n){0,4}",
        interrupts in "( CPU[0-9x]{1,3}){0,3}\n([A-Z0-9]{1,3}:( [0-9]{1,20}){0,4}\n){0,3}",
        state in "[ -~\n]{0,20}",
    ) {
        let machine = sparse();
        machine
            .file("proc/stat", &stat)
            .file("proc/schedstat", &stat)
            .file("proc/interrupts", &interrupts)
            .file("sys/devices/system/cpu/cpu3/cpuidle/state1/time", &state)
            .file("sys/class/hwmon/hwmon0/name", "coretemp\n")
            .file("sys/class/hwmon/hwmon0/temp1_label", &state)
            .file("sys/class/hwmon/hwmon0/temp1_input", &state);
        let mut files = Files::new(&machine.sys(), &all());
        let mut snapshot = files.read();
        files.read_temperatures(&mut snapshot, &[(1, (0, 0))].into(), |_, _| true);
        proptest::prop_assert_eq!(snapshot.cpus.len(), 2);
    }
}
