//! What `scx_joule check` says of a machine, and by which exit code.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use common::{FakeSys, shared_fixtures, unpack};
use scx_joule::observe::check::{Finding, Report, State, check};
use std::io::Write;

const STATE: &str = "sys/kernel/sched_ext/state";
const OPS: &str = "sys/kernel/sched_ext/root/ops";
const STATUS: &str = "proc/self/status";
const CONFIG: &str = "boot/config-7.3.4-cloud";

/// A phone that lacks nothing.
fn able() -> FakeSys {
    FakeSys::fixture("phone").and("guest")
}

fn report(sys: &FakeSys) -> Report {
    check(&sys.root())
}

fn finding<'a>(report: &'a Report, name: &str) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.name == name);
    found.unwrap_or_else(|| panic!("no finding '{name}' in {:#?}", report.findings))
}

/// The names of what keeps the scheduler from running.
fn blocking(report: &Report) -> Vec<&str> {
    let blocks = |it: &&Finding| it.required && it.state == State::Missing;
    let names = report
        .findings
        .iter()
        .filter(blocks)
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(report.able, report.findings.iter().all(|it| !blocks(&it)));
    names
}

fn assert_finding(sys: &FakeSys, name: &str, state: State, detail: &str, fix: Option<&str>) {
    let report = report(sys);
    let found = finding(&report, name);
    assert_eq!(found.state, state, "{found:?}");
    assert!(found.detail.contains(detail), "{found:?}");
    assert_eq!(found.fix.as_deref(), fix);
}

#[test]
fn a_machine_that_lacks_nothing_can_run_the_scheduler() {
    let report = report(&able());
    assert_eq!(blocking(&report), [""; 0]);
    assert!(report.able);
    assert_eq!(report.kernel.as_deref(), Some("7.3.4-cloud"));
    assert!(report.text().ends_with("\nscx_joule can run here.\n"));
}

#[test]
fn the_exit_code_is_0_when_the_scheduler_can_run_and_1_otherwise() {
    let code = |report: Report| format!("{:?}", report.exit_code());
    assert_eq!(
        code(report(&able())),
        format!("{:?}", std::process::ExitCode::SUCCESS)
    );
    let bare = FakeSys::empty();
    assert_eq!(
        code(report(&bare)),
        format!("{:?}", std::process::ExitCode::FAILURE)
    );
}

#[test]
fn a_machine_that_shows_nothing_gets_a_whole_report() {
    let report = report(&FakeSys::empty());
    assert_eq!(
        blocking(&report),
        ["sched_ext", "BTF", "configuration", "capabilities", "CPUs"]
    );
    assert!(report.topology.is_none() && report.energy.chosen.is_none());
    let text = report.text();
    assert!(text.starts_with("Linux of unknown release\n"), "{text}");
    assert!(
        text.ends_with("cannot run here: sched_ext, BTF, configuration, capabilities, CPUs.\n")
    );
}

#[test]
fn without_sched_ext_the_reason_is_the_configuration_the_age_or_unknown() {
    let without = || able().without("sys/kernel/sched_ext");
    let fix = Some("boot a kernel from 6.12 on with CONFIG_SCHED_CLASS_EXT=y");
    let says = |sys: &FakeSys, why: &str| {
        assert_finding(sys, "sched_ext", State::Missing, why, fix);
        assert_eq!(blocking(&report(sys)), ["sched_ext"]);
    };
    let unset = without().set(CONFIG, "# CONFIG_SCHED_CLASS_EXT is not set");
    says(&unset, "built without it (CONFIG_SCHED_CLASS_EXT)");
    let longer = without().set(CONFIG, "CONFIG_SCHED_CLASS_EXTRA=y");
    says(&longer, "built without it");
    says(&without(), "shows no /sys/kernel/sched_ext");
    let old = without()
        .set("proc/sys/kernel/osrelease", "6.11.9-old")
        .set("boot/config-6.11.9-old", "CONFIG_SCHED_CLASS_EXT=y");
    says(&old, "older than 6.12");
}

#[test]
fn another_scheduler_blocks_and_is_named_and_our_own_does_not() {
    let held = |ops: &str| able().set(STATE, "enabled").set(OPS, ops);
    let fix = "sudo systemctl stop scx.service scx_loader.service, or end that scheduler";
    for other in ["lavd", "cosmos_1.0.2_x86_64", "jouleless", "scx_jouler"] {
        let detail = format!("enabled: {other} holds it");
        assert_finding(
            &held(other),
            "sched_ext",
            State::Missing,
            &detail,
            Some(fix),
        );
        assert_eq!(blocking(&report(&held(other))), ["sched_ext"]);
    }
    for ours in ["joule", "scx_joule", "joule_0.1.0_x86_64"] {
        let detail = format!("enabled: {ours} is running");
        assert_finding(&held(ours), "sched_ext", State::Ok, &detail, None);
    }
    let nameless = able().set(STATE, "enabling");
    assert_finding(
        &nameless,
        "sched_ext",
        State::Missing,
        "without a name",
        Some(fix),
    );
}

#[test]
fn without_btf_the_scheduler_cannot_run() {
    let sys = able().without("sys/kernel/btf");
    let fix = Some("boot a kernel with CONFIG_DEBUG_INFO_BTF=y");
    assert_finding(
        &sys,
        "BTF",
        State::Missing,
        "no /sys/kernel/btf/vmlinux",
        fix,
    );
    assert_eq!(blocking(&report(&sys)), ["BTF"]);
}

#[test]
fn without_machine_code_for_bpf_the_scheduler_cannot_run() {
    let switch = "proc/sys/net/core/bpf_jit_enable";
    let sys = able().set(switch, 0);
    let fix = Some("sudo sysctl net.core.bpf_jit_enable=1");
    assert_finding(&sys, "BPF JIT", State::Missing, "switched off", fix);
    let unknown = report(&able().without(switch));
    assert!(unknown.able && unknown.findings.iter().all(|it| it.name != "BPF JIT"));
}

#[test]
fn the_configuration_is_read_from_boot_or_unpacked_from_proc() {
    assert_finding(
        &able(),
        "configuration",
        State::Ok,
        "/boot/config-7.3.4-cloud",
        None,
    );
    let absent = able().without("boot");
    let fix = "sudo modprobe configs, or put the kernel's .config at /boot/config-7.3.4-cloud";
    assert_finding(
        &absent,
        "configuration",
        State::Missing,
        "neither",
        Some(fix),
    );
    assert_eq!(blocking(&report(&absent)), ["configuration"]);

    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed
        .write_all(b"# CONFIG_SCHED_CLASS_EXT is not set\n")
        .unwrap();
    let proc = absent.bytes("proc/config.gz", &packed.finish().unwrap());
    assert_finding(&proc, "configuration", State::Ok, "/proc/config.gz", None);
    let blind = proc.without("sys/kernel/sched_ext");
    assert!(
        finding(&report(&blind), "sched_ext")
            .detail
            .contains("built without")
    );
    let garbage = blind.bytes("proc/config.gz", b"not packed");
    assert_finding(
        &garbage,
        "configuration",
        State::Missing,
        "/proc/config.gz: ",
        Some(fix),
    );
}

#[test]
fn a_user_without_capabilities_is_told_what_each_is_for() {
    let user = able().set(STATUS, "CapEff:\t0000000000000000");
    let root = Some("run as root (sudo)");
    let report = report(&user);
    assert_eq!(blocking(&report), ["CAP_BPF", "CAP_PERFMON"]);
    assert_finding(
        &user,
        "CAP_BPF",
        State::Missing,
        "needed to load the scheduler",
        root,
    );
    assert_finding(&user, "CAP_SYS_NICE", State::Degraded, "not held", root);
    let fix = Some("sudo sysctl kernel.perf_event_paranoid=0");
    assert_finding(&user, "perf_event_paranoid", State::Degraded, "2: ", fix);
    let open = user.set("proc/sys/kernel/perf_event_paranoid", 0);
    assert_finding(&open, "perf_event_paranoid", State::Ok, "0", None);
}

#[test]
fn the_administrators_capability_stands_for_those_that_load_programs() {
    let admin = able().set(STATUS, format!("CapEff:\t{:016x}", 1_u64 << 21));
    assert_finding(&admin, "CAP_BPF", State::Ok, "load", None);
    assert_finding(&admin, "CAP_PERFMON", State::Ok, "load", None);
    assert_finding(
        &admin,
        "CAP_DAC_OVERRIDE",
        State::Degraded,
        "not held",
        Some("run as root (sudo)"),
    );
    assert!(report(&admin).able);
    let two = able().set(
        STATUS,
        format!("CapEff:\t{:016x}", (1_u64 << 38) | (1 << 39)),
    );
    assert!(report(&two).able);
    let one = able().set(STATUS, format!("CapEff:\t{:016x}", 1_u64 << 39));
    assert_eq!(blocking(&report(&one)), ["CAP_PERFMON"]);
}

#[test]
fn capabilities_that_cannot_be_read_are_a_finding() {
    let garbage = able().set(STATUS, "CapEff:\tmany");
    assert_finding(
        &garbage,
        "capabilities",
        State::Missing,
        "'many' is not a hexadecimal mask",
        None,
    );
    let silent = able().set(STATUS, "Name:\tcheck");
    assert_finding(
        &silent,
        "capabilities",
        State::Missing,
        "no line CapEff",
        None,
    );
}

#[test]
fn a_machine_whose_cpus_cannot_be_understood_names_the_file() {
    let broken = able().set("sys/devices/system/cpu/online", "all");
    assert_finding(
        &broken,
        "CPUs",
        State::Missing,
        "cpu/online:1: 'all' is not a CPU list",
        None,
    );
    assert_eq!(blocking(&report(&broken)), ["CPUs"]);
}

#[test]
fn capacities_from_nowhere_or_from_the_clock_alone_are_degraded() {
    let name = "capacities";
    assert_finding(&able(), name, State::Ok, "from cpu_capacity", None);
    let laptop = FakeSys::fixture("laptop");
    assert_finding(
        &laptop,
        name,
        State::Ok,
        "from acpi_cppc/highest_perf",
        None,
    );
    let by_clock = (0..12).fold(laptop, |sys, cpu| {
        sys.without(&format!("sys/devices/system/cpu/cpu{cpu}/acpi_cppc"))
    });
    assert_finding(
        &by_clock,
        name,
        State::Degraded,
        "cpuinfo_max_freq alone",
        None,
    );
    assert_finding(
        &FakeSys::fixture("offline"),
        name,
        State::Degraded,
        "taken as equal",
        None,
    );
}

#[test]
fn the_scheduler_has_a_say_in_clocks_through_schedutil() {
    const GOVERNOR: &str = "sys/devices/system/cpu/cpufreq/policy3/scaling_governor";
    const OFFERED: &str = "sys/devices/system/cpu/cpufreq/policy3/scaling_available_governors";
    assert_finding(
        &able(),
        "clocks",
        State::Ok,
        "governor schedutil: the scheduler chooses",
        None,
    );
    let other = able().set(GOVERNOR, "powersave");
    let fix = "echo schedutil | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor";
    assert_finding(
        &other,
        "clocks",
        State::Degraded,
        "powersave, schedutil",
        Some(fix),
    );
    let lacking = other.set(OFFERED, "powersave performance");
    let fix = "boot a kernel with CONFIG_CPU_FREQ_GOV_SCHEDUTIL=y";
    assert_finding(
        &lacking,
        "clocks",
        State::Degraded,
        "schedutil is not offered",
        Some(fix),
    );
}

#[test]
fn clocks_that_hardware_chooses_are_steered_by_preference() {
    const POLICY: &str = "sys/devices/system/cpu/cpufreq/policy";
    let laptop = || FakeSys::fixture("laptop");
    assert_finding(
        &laptop(),
        "clocks",
        State::Ok,
        "by preference (EPP) balance_performance",
        None,
    );
    let pinned = (0..12).fold(laptop(), |sys, cpu| {
        sys.set(&format!("{POLICY}{cpu}/scaling_governor"), "performance")
    });
    let fix = "echo powersave | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor";
    assert_finding(
        &pinned,
        "clocks",
        State::Degraded,
        "pins the preference",
        Some(fix),
    );
    let deaf = (0..12).fold(laptop(), |sys, cpu| {
        sys.without(&format!("{POLICY}{cpu}/energy_performance_preference"))
    });
    let fix = "echo passive | sudo tee /sys/devices/system/cpu/intel_pstate/status";
    assert_finding(
        &deaf,
        "clocks",
        State::Degraded,
        "offers no preference",
        Some(fix),
    );
}

#[test]
fn without_cpufreq_only_placement_saves() {
    let board = FakeSys::fixture("board");
    assert_finding(&board, "clocks", State::Degraded, "no cpufreq", None);
}

#[test]
fn without_a_meter_costs_stay_at_the_prior_and_with_one_it_is_named() {
    assert_finding(&able(), "meter", State::Degraded, "open loop", None);
    let metered = able().with(
        "sys/class/powercap/intel-rapl:0/name = package-0
         sys/class/powercap/intel-rapl:0/energy_uj = 240422366267
         sys/class/powercap/intel-rapl:0/max_energy_range_uj = 262143328850",
    );
    assert_finding(&metered, "meter", State::Ok, "powercap: ", None);
    assert!(report(&able()).able, "a meter is not required");
}

#[test]
fn the_text_shows_each_relation_in_aligned_columns_and_fixes_under_their_row() {
    let text = report(&able().without("sys/kernel/btf")).text();
    let expected = "
  class  capacity  core type   CPUs
  0      280       arm 41:d46  0-2
  1      855       arm 41:d4d  3-4
  2      855       arm 41:d47  5-6
  3      1024      arm 41:d4e  7

  clock    frequencies           CPUs
  shared   307-2016 MHz, 3 OPPs  0-2
  shared   499-2803 MHz, 3 OPPs  3-6
  per CPU  595-3187 MHz, 3 OPPs  7

  group  class  clock    CPUs
  0      0      shared   0-2
  1      1      shared   3-4
  2      2      shared   5-6
  3      3      per CPU  7
";
    assert!(text.contains(expected), "{text}");
    let fix = "
  missing  BTF            no /sys/kernel/btf/vmlinux: BPF programs cannot be fitted to this kernel
                          -> boot a kernel with CONFIG_DEBUG_INFO_BTF=y
";
    assert!(text.contains(fix), "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
}

#[test]
fn packages_are_counted_only_where_the_machine_shows_them() {
    let summary = |sys: &FakeSys| {
        let text = report(sys).text();
        let line = text.lines().find(|line| line.contains("CPUs online"));
        line.unwrap().trim().to_owned()
    };
    let board = FakeSys::fixture("board");
    assert_eq!(
        summary(&board),
        "4 CPUs online of 4 possible; cores: 4, packages: 1"
    );
    let silent = FakeSys::empty().set("sys/devices/system/cpu/online", "0-1");
    assert_eq!(summary(&silent), "2 CPUs online of 2 possible; cores: 2");
    let laptop = FakeSys::fixture("laptop");
    assert_eq!(
        summary(&laptop),
        "12 CPUs online of 12 possible; cores: 8, packages: 1"
    );
}

#[test]
fn alike_clocks_of_single_cpus_share_a_row() {
    let text = report(&FakeSys::fixture("laptop")).text();
    let expected = "
  clock    frequencies                    CPUs
  per CPU  400-5000 MHz, no list of OPPs  0-3,6-7
  per CPU  400-5200 MHz, no list of OPPs  4-5
  per CPU  400-3900 MHz, no list of OPPs  8-11
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn the_json_says_the_same_as_the_report() {
    let report = report(&able().without("sys/kernel/btf"));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["able"], false);
    assert_eq!(json["kernel"], "7.3.4-cloud");
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), report.findings.len());
    let btf = findings.iter().find(|it| it["name"] == "BTF").unwrap();
    assert_eq!(btf["state"], "missing");
    assert_eq!(btf["area"], "kernel");
    assert_eq!(btf["required"], true);
    assert_eq!(json["topology"]["groups"].as_array().unwrap().len(), 4);
    assert_eq!(json["energy"]["chosen"], serde_json::Value::Null);
}

#[test]
fn every_real_machine_gets_a_report_with_its_cpus() {
    let Some(fixtures) = shared_fixtures() else {
        return;
    };
    for entry in std::fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().contains(".tar.") {
            continue;
        }
        let (_dir, sys) = unpack(&path);
        let report = check(&sys);
        assert!(
            !report.able && report.topology.is_some(),
            "{}",
            path.display()
        );
        assert!(
            report.text().contains("cannot run here: sched_ext"),
            "{}",
            report.text()
        );
    }
}
