//! The program itself, on this machine, with the loop.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // of tests and their helpers

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A loop this dear makes little of the machine's time; its true cost does not matter here.
const LOOP: [&str; 4] = ["--work", "loop", "--calibration", "100"];

fn joule_load() -> Command {
    Command::new(env!("CARGO_BIN_EXE_joule-load"))
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn run(text: &str, options: &[&str]) -> Output {
    joule_load()
        .arg("run")
        .arg(file(text).path())
        .args(LOOP)
        .args(options)
        .output()
        .unwrap()
}

fn report(text: &str, options: &[&str]) -> serde_json::Value {
    let output = run(text, &[options, &["--json"]].concat());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1);
    serde_json::from_str(&text).unwrap()
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

/// CPU time of a thread by its name; `None` while there is none.
fn cpu_ns(pid: u32, name: &str) -> Option<u64> {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .ok()?
        .flatten()
        .find_map(|task| {
            let read = |file| std::fs::read_to_string(task.path().join(file)).ok();
            let named = read("comm")?.trim_end() == name;
            named
                .then(|| read("schedstat")?.split(' ').next()?.parse().ok())
                .flatten()
        })
}

#[test]
fn a_periodic_workload_reports_every_job() {
    let found = report(
        r#"{"tasks": {"a": {"instance": 2, "run": 200, "timer": {"ref": "x", "period": 20000}}, "b": {"loop": 5, "run": 100, "sleep": 3000}}}"#,
        &["--duration", "0.5", "--seed", "7"],
    );
    assert_eq!(
        (&found["work"], &found["seed"], &found["interrupted"]),
        (&"loop".into(), &7.into(), &false.into())
    );
    assert_eq!(found["calibration"]["ps_per_loop"], 100_000);
    assert!(found["calibration"]["measured_on_cpu"].is_null() && found["energy_uj"].is_null());
    let [a, b] = [&found["tasks"][0], &found["tasks"][1]];
    assert_eq!((&a["name"], &a["threads"]), (&"a".into(), &2.into()));
    // 25 periods each, of which a loaded machine may skip some, but none is lost.
    let due = a["jobs"].as_u64().unwrap()
        + a["skipped"].as_u64().unwrap()
        + a["unfinished"].as_u64().unwrap();
    assert_eq!(due, 50, "{a}");
    assert!(a["completion_us"].is_null() && a["missed"].is_u64());
    assert!(b["completion_us"].as_u64().unwrap() >= 15_000 && b["missed"].is_null());
    assert_eq!((&b["jobs"], &b["work_us"]), (&5.into(), &500.into()));
    assert!(found["wall_us"].as_u64().unwrap() >= 500_000);
    assert!(a["response_us"]["max"].as_u64() >= a["response_us"]["p50"].as_u64());
}

#[test]
fn a_finite_workload_needs_no_duration_and_a_warm_up_does_not_count() {
    let found = report(
        r#"{"tasks": {"maker": {"loop": 4, "run": 50, "sleep": 2000, "resume": "user"}, "user": {"loop": 4, "suspend": "", "run": 50}}}"#,
        &["--warmup", "0.05"],
    );
    for task in found["tasks"].as_array().unwrap() {
        assert_eq!(
            (&task["jobs"], &task["work_us"]),
            (&4.into(), &200.into()),
            "{task}"
        );
    }
}

#[test]
fn a_ring_passes_every_message_to_every_member() {
    let found = report(
        r#"{"tasks": {"r": {"instance": 2, "loop": 3, "ring": {"members": 5, "messages": 7, "work": 10}}}}"#,
        &[],
    );
    let ring = &found["tasks"][0];
    assert_eq!((&ring["threads"], &ring["jobs"]), (&10.into(), &6.into()));
    assert_eq!(ring["work_us"], 2 * 3 * 5 * 7 * 10);
    assert!(ring["completion_us"].is_u64());
}

#[test]
fn a_meter_is_read_before_and_after() {
    let mut meter = tempfile::NamedTempFile::new().unwrap();
    meter.write_all(b"1234\n").unwrap();
    let path = meter.path().to_str().unwrap();
    let found = report(
        r#"{"tasks": {"t": {"loop": 1, "run": 10}}}"#,
        &["--meter", path],
    );
    assert_eq!(found["energy_uj"], 0);
}

#[test]
fn a_meter_that_cannot_be_read_is_refused_before_anything_runs() {
    let text = r#"{"tasks": {"t": {"loop": 1, "run": 10}}}"#;
    assert!(
        refusal(&run(text, &["--meter", "/nonexistent/energy_uj"]))
            .contains("/nonexistent/energy_uj")
    );
    let wrong = file("12 J");
    let said = refusal(&run(text, &["--meter", wrong.path().to_str().unwrap()]));
    assert!(
        said.contains("'12 J' is not a whole number of µJ"),
        "{said}"
    );
}

#[test]
fn a_workload_that_never_ends_needs_a_duration() {
    let said = refusal(&run(r#"{"tasks": {"spin": {"run": 10}}}"#, &[]));
    assert!(
        said.contains("task 'spin' never ends") && said.contains("--duration"),
        "{said}"
    );
}

#[test]
fn a_cpu_that_does_not_exist_is_named_with_its_task() {
    let said = refusal(&run(
        r#"{"tasks": {"ok": {"loop": -1, "sleep": 9000000}, "far": {"cpus": [1023], "run": 10}}}"#,
        &["--duration", "60"],
    ));
    assert!(
        said.contains("task 'far'") && said.contains("[1023]"),
        "{said}"
    );
}

#[test]
fn virtual_work_and_a_calibration_exclude_each_other() {
    let text = file(r#"{"tasks": {"t": {"loop": 1, "run": 10}}}"#);
    let output = joule_load()
        .arg("run")
        .arg(text.path())
        .args(["--work", "virtual", "--calibration", "1"])
        .output()
        .unwrap();
    assert!(refusal(&output).contains("--calibration"));
}

#[test]
fn an_interrupt_ends_sleepers_and_workers_early_and_still_reports() {
    let text = file(
        r#"{"tasks": {"sleeper": {"run": 10, "sleep": 3600000000}, "worker": {"run": 3600000000}, "ring": {"ring": {"members": 3, "messages": 1, "work": 0, "period": 3600000000}},
            "waiter": {"suspend": "", "run": 1}}}"#,
    );
    let child = joule_load()
        .arg("run")
        .arg(text.path())
        .args(LOOP)
        .args(["--duration", "3600", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while cpu_ns(child.id(), "worker").is_none_or(|ns| ns < 5_000_000) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["interrupted"], true);
    assert_eq!(
        (&found["tasks"][0]["jobs"], &found["tasks"][1]["unfinished"]),
        (&1.into(), &1.into())
    );
    assert!(found["wall_us"].as_u64().unwrap() < 60_000_000);
}

#[test]
fn fixed_work_tells_how_long_it_took() {
    let output = joule_load()
        .args(["fixed", "--cpu", "0", "--work-ms", "5", "--json"])
        .args(LOOP)
        .output()
        .unwrap();
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&found["cpu"], &found["work_us"]),
        (&0.into(), &5_000.into())
    );
    assert!(found["cpu_us"].as_u64() > Some(0) && found["wall_us"].as_u64() > Some(0));
    let output = joule_load()
        .args(["fixed", "--cpu", "1023", "--work-ms", "5"])
        .args(LOOP)
        .output()
        .unwrap();
    assert!(refusal(&output).contains("--cpu 1023"));
}

#[test]
fn check_reads_without_running_and_names_the_first_mistake() {
    let good = file(r#"/* Shows something. */ {"tasks": {"t": {"instance": 3, "run": 10}}}"#);
    let output = joule_load().arg("check").arg(good.path()).output().unwrap();
    assert!(output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .contains("1 tasks, 3 threads, no duration of its own: Shows something.")
    );
    let said = refusal(
        &joule_load()
            .arg("check")
            .arg("/nonexistent.json")
            .output()
            .unwrap(),
    );
    assert!(said.contains("/nonexistent.json"));
}
