//! `scx_joule stat` and `record` as users run them, and the documentation of their columns.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use scx_joule::energy::counter::Outcome;
use scx_joule::energy::record::{Frame, Machine, Sample, Writer};
use scx_joule::energy::select::Source as Found;
use scx_joule::energy::{Amount, Domain, Provenance, Reading, Scope};
use scx_joule::observation::{Activity, GroupActivity};
use scx_joule::observe::stat::columns::{Column, Read, Source, columns};
use scx_joule::topology::{Cluster, Topology};
use scx_joule::units::{Capacity, KHz, Microjoules, Nanos};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn scx_joule(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scx_joule"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    scx_joule(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_commands_exit_code_is_passed_on_and_its_output_is_not_mixed_with_ours() {
    let output = run(&["stat", "-q", "--", "sh", "-c", "echo theirs; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(out(&output), "theirs\n");
    assert!(err(&output).contains("Busy%"), "{}", err(&output));
}

#[test]
fn a_command_that_a_signal_ended_or_that_is_not_there_exits_as_in_a_shell() {
    let killed = run(&["stat", "-q", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(killed.status.code(), Some(137));
    let absent = run(&["stat", "-q", "/no/such/command"]);
    assert_eq!(absent.status.code(), Some(127));
    assert!(err(&absent).contains("/no/such/command"));
    let denied = run(&["stat", "-q", "/proc/version"]);
    assert_eq!(denied.status.code(), Some(126));
}

#[test]
fn a_request_to_end_reaches_the_command_and_its_figures_are_still_told() {
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = scx_joule(&["stat", "-q", "--", "sh", "-c", script]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let pid = child.id().to_string();
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -TERM {pid}")])
        .status();
    assert!(sent.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(9));
    assert!(err(&output).contains("Busy%"));
}

#[test]
fn json_and_csv_tell_the_same_columns_and_rows_as_text() {
    let arguments = |format| {
        [
            "stat",
            "-q",
            "-n",
            "1",
            "-i",
            "0.2",
            "--show",
            "CPU,Busy%,PkgTmp",
            "--format",
            format,
        ]
    };
    let text = out(&run(&arguments("text")));
    let heads: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heads, ["CPU", "Busy%", "PkgTmp"]);
    let csv = out(&run(&arguments("csv")));
    assert!(
        csv.starts_with("Time_Of_Day_Seconds,Seconds,Row,CPU,Busy%,PkgTmp\n"),
        "{csv}"
    );
    let json: Value = serde_json::from_str(&out(&run(&arguments("json")))).unwrap();
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len() + 1, text.lines().count());
    assert_eq!(rows.len() + 1, csv.lines().count());
    let busy = rows[0]["Busy%"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&busy), "{busy}");
    assert!(json["Seconds"].as_f64().unwrap() >= 0.2);
}

#[test]
fn what_is_missing_is_told_once_and_not_shown_and_quiet_keeps_silent() {
    let arguments = ["stat", "-n", "2", "-i", "0.2"];
    let output = run(&arguments);
    let told = err(&output);
    let lines: Vec<&str> = told.lines().collect();
    let once: BTreeSet<&str> = lines.iter().copied().collect();
    assert_eq!(lines.len(), once.len(), "{told}");
    let text = out(&output);
    let heads: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    for line in lines {
        let Some((columns, _)) = line
            .strip_prefix("scx_joule stat: no ")
            .and_then(|it| it.split_once(": "))
        else {
            panic!("{line}");
        };
        assert!(
            columns.split(", ").all(|column| !heads.contains(&column)),
            "{line}"
        );
    }
    assert_eq!(err(&run(&["stat", "-q", "-n", "1", "-i", "0.1"])), "");
}

#[test]
fn an_unknown_column_and_cpu_are_refused_with_what_would_be_right() {
    for arguments in [["stat", "--show", "Bussy%"], ["stat", "--cpu", "x"]] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2));
        assert!(err(&output).contains("; there are "), "{}", err(&output));
        assert_eq!(out(&output), "");
    }
}

#[test]
fn list_names_what_show_takes() {
    let list = out(&run(&["stat", "--list"]));
    let names: BTreeSet<&str> = list.trim().split(',').collect();
    for column in columns() {
        if let Read::One(_) = column.read {
            assert!(names.contains(column.name), "{}", column.name);
        }
    }
    assert!(
        run(&["stat", "-q", "-n", "1", "-i", "0.1", "--show", list.trim()])
            .status
            .success()
    );
}

/// A recording of a package that draws 2 W while one of four CPUs works at its higher clock.
fn recording(path: &Path) {
    let opps = vec![KHz::new(500_000), KHz::new(1_000_000)];
    let topology = Topology::synthetic(&[Cluster {
        cpus: 4,
        threads: 1,
        capacity: Capacity::MAX,
        opps: Some(opps.clone()),
        llc: 0,
    }]);
    let mut machine = Machine::new(&topology, vec![opps]);
    machine.sources = vec![Found::PerfPower];
    let mut writer = Writer::open(path).unwrap();
    writer.append(&Frame::Machine(machine)).unwrap();
    for second in 0..5 {
        let at = Nanos::new(second * 1_000_000_000);
        let outcome = match second {
            0 => Outcome::Baseline,
            _ => Outcome::Moved {
                energy: Microjoules::new(2_000_000),
                elapsed: Nanos::new(1_000_000_000),
                wrapped: false,
            },
        };
        let group = GroupActivity {
            active: vec![Nanos::new(0), at],
            busy: vec![Nanos::new(0), at],
            ..GroupActivity::default()
        };
        let sample = Sample {
            at,
            resumed: false,
            readings: vec![Reading {
                domain: Domain::Package,
                scope: Scope::Package {
                    package: 0,
                    die: None,
                },
                amount: Amount::Energy(outcome),
                provenance: Provenance::Measured,
            }],
            activity: Activity {
                at,
                groups: vec![group],
            },
        };
        writer.append(&Frame::Sample(sample)).unwrap();
    }
    writer.finish().unwrap();
}

fn replay(path: &Path) -> (Vec<Value>, Output) {
    let output = run(&["--dry-run", "--json", "--replay", path.to_str().unwrap()]);
    let lines = out(&output);
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    (lines.collect(), output)
}

#[test]
fn a_dry_run_on_a_recording_measures_what_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.joule");
    recording(&path);
    let (lines, output) = replay(&path);
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(lines.len(), 5);
    let measured: Vec<f64> = lines
        .iter()
        .map(|line| line["measured_w"].as_f64().unwrap())
        .collect();
    assert_eq!(measured, [-1.0, 2.0, 2.0, 2.0, 2.0]);
    assert_eq!(lines[4]["meter_faults"], 0);
    let modelled = lines[4]["groups_w"][0].as_f64().unwrap();
    assert!(modelled > 0.0 && modelled < 3.0, "{modelled}");
}

#[test]
fn a_recording_that_was_cut_off_is_replayed_as_far_as_it_goes_and_a_damaged_one_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.joule");
    recording(&path);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let (lines, output) = replay(&path);
    assert!(output.status.success());
    assert_eq!(lines.len(), 4);
    assert!(
        err(&output).contains("bytes are cut off"),
        "{}",
        err(&output)
    );

    let mut damaged = whole.clone();
    let last = damaged.len() - 3;
    damaged[last] ^= 0x10;
    std::fs::write(&path, &damaged).unwrap();
    let (lines, output) = replay(&path);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(lines.len(), 4);
    assert!(err(&output).contains("checksum"), "{}", err(&output));

    std::fs::write(&path, "no recording\n").unwrap();
    let (lines, output) = replay(&path);
    assert_eq!((lines.len(), output.status.code()), (0, Some(1)));
}

#[test]
fn what_record_writes_here_can_be_gone_on_with_and_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("here.joule");
    let record = ["record", path.to_str().unwrap(), "-i", "0.1", "-n", "3"];
    for lines in [3, 6] {
        let output = run(&record);
        assert!(output.status.success(), "{}", err(&output));
        assert_eq!(replay(&path).0.len(), lines);
    }
    std::fs::write(&path, "something else\n").unwrap();
    let output = run(&record);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read(&path).unwrap(), b"something else\n");
}

const DOCUMENT: &str = include_str!("../docs/telemetry.md");

/// The cells of the table under a heading, without its two head lines.
fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, rest) = DOCUMENT.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = rest
        .split_once("\n## ")
        .map_or(rest, |(section, _)| section);
    let lines = section.lines().filter(|line| line.starts_with('|'));
    let cells = |line: &'static str| {
        let cells = line.trim_matches('|').split('|');
        cells.map(str::trim).collect()
    };
    lines.skip(2).map(cells).collect()
}

/// The words in backquotes.
fn names(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn source(column: &Column) -> String {
    match column.source {
        Source::Place => "topology".to_owned(),
        Source::Time => "clock".to_owned(),
        Source::Activity(feed, "") => feed.to_string(),
        Source::Activity(feed, event) if feed.to_string().contains(event) => feed.to_string(),
        Source::Activity(feed, event) => format!("{feed}: {event}"),
        Source::Meter(meter) => format!("meter of {}", meter.domain()),
        Source::Scheduler => "scheduler".to_owned(),
    }
}

#[test]
fn the_documented_columns_are_the_columns() {
    let documented: Vec<String> = table("Columns")
        .iter()
        .map(|cells| cells.join(" | "))
        .collect();
    let there: Vec<String> = columns()
        .map(|column| {
            let unit = if column.unit.is_empty() {
                "count"
            } else {
                column.unit
            };
            let source = source(column);
            format!(
                "`{}` | {unit} | {} | {source} | {}",
                column.name, column.rows, column.meaning
            )
        })
        .collect();
    let right: Vec<String> = there.iter().map(|line| format!("| {line} |")).collect();
    assert_eq!(
        documented,
        there,
        "the table should be:\n{}",
        right.join("\n")
    );
}

#[test]
fn every_column_of_turbostats_has_ours_or_a_reason() {
    let rows = table("Beside turbostat");
    let ours: BTreeSet<&str> = columns().map(|column| column.name).collect();
    let mut theirs = BTreeSet::new();
    for row in &rows {
        let [turbostats, counterpart, remark] = row.as_slice() else {
            panic!("{row:?}");
        };
        theirs.extend(names(turbostats));
        let named = names(counterpart);
        for name in &named {
            assert!(ours.contains(name), "{name} is none of our columns");
        }
        assert!(!named.is_empty() || remark.len() > 20, "no reason: {row:?}");
    }
    for name in TURBOSTAT {
        assert!(
            theirs.contains(name),
            "{name} of turbostat's is not documented"
        );
    }
}

/// Columns of turbostat as of Linux 6.12 to 7.3.
const TURBOSTAT: [&str; 74] = [
    "usec",
    "Time_Of_Day_Seconds",
    "Package",
    "Die",
    "Node",
    "L3",
    "Core",
    "CPU",
    "APIC",
    "X2APIC",
    "Avg_MHz",
    "Busy%",
    "Bzy_MHz",
    "TSC_MHz",
    "IPC",
    "LLCkRPS",
    "LLCMRPS",
    "LLC%hit",
    "L2kRPS",
    "L2MRPS",
    "L2%hit",
    "IRQ",
    "NMI",
    "SMI",
    "C1",
    "C1+",
    "C1-",
    "C1%",
    "CPU%c1",
    "CPU%c3",
    "CPU%c6",
    "CPU%c7",
    "ThreadC",
    "Mod%c6",
    "Die%c6",
    "CoreTmp",
    "CoreThr",
    "CoreCnt",
    "PkgCnt",
    "PkgTmp",
    "GFX%rc6",
    "GFXMHz",
    "GFXAMHz",
    "SAM%mc6",
    "SAMMHz",
    "SAMAMHz",
    "Totl%C0",
    "Any%C0",
    "GFX%C0",
    "CPUGFX%",
    "Pkg%pc2",
    "Pkg%pc3",
    "Pkg%pc6",
    "Pkg%pc7",
    "Pkg%pc8",
    "Pkg%pc9",
    "Pk%pc10",
    "CPU%LPI",
    "SYS%LPI",
    "PkgWatt",
    "CorWatt",
    "GFXWatt",
    "RAMWatt",
    "SysWatt",
    "Pkg_J",
    "Cor_J",
    "GFX_J",
    "RAM_J",
    "Sys_J",
    "PKG_%",
    "RAM_%",
    "UncMHz",
    "UMHz0.0",
    "pct_idle",
];
