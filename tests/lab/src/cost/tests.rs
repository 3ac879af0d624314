use super::*;
use serde_json::json;

/// As bpftool prints programs, with the fields that are not used thinned out.
const BEFORE: &str = r#"[
    {"id":8,"type":"tracing","name":"probe","tag":"2e513880f9b67fde","run_time_ns":115,"run_cnt":1,"jited":true},
    {"id":10,"type":"struct_ops","name":"joule_select_cpu","gpl_compatible":true,"run_time_ns":1000,"run_cnt":1},
    {"id":11,"type":"struct_ops","name":"joule_enqueue","bytes_xlated":13024,"map_ids":[6,13]},
    {"id":12,"type":"struct_ops","name":"joule_tick","run_time_ns":50,"run_cnt":2},
    {"id":13,"type":"syscall","name":"joule_publish"},
    {"id":99,"type":"struct_ops","name":"other_select_cpu","run_time_ns":7,"run_cnt":7}
]"#;
const AFTER: &str = r#"[
    {"id":8,"type":"tracing","name":"probe","run_time_ns":115,"run_cnt":1},
    {"id":10,"type":"struct_ops","name":"joule_select_cpu","run_time_ns":5000,"run_cnt":5},
    {"id":11,"type":"struct_ops","name":"joule_enqueue","run_time_ns":2200,"run_cnt":3},
    {"id":12,"type":"struct_ops","name":"joule_tick","run_time_ns":92,"run_cnt":3},
    {"id":13,"type":"syscall","name":"joule_publish"},
    {"id":99,"type":"struct_ops","name":"other_select_cpu","run_time_ns":9999,"run_cnt":99}
]"#;

fn programs(text: &str) -> Vec<Program> {
    serde_json::from_str(text).unwrap()
}

fn verified() -> BTreeMap<u32, u64> {
    [(8, 23), (10, 59_956), (11, 51_044), (12, 300), (13, 77)].into()
}

fn cost() -> Cost {
    of(&[BEFORE, AFTER]).unwrap()
}

fn of(snapshots: &[&str]) -> Result<Cost> {
    let snapshots: Vec<_> = snapshots.iter().map(|text| programs(text)).collect();
    Cost::new(&snapshots, &verified())
}

fn outcome(results: &str, console: &str, exit_code: i32) -> Outcome {
    Outcome {
        exit_code: Some(exit_code),
        timed_out: false,
        results: results.to_owned(),
        console: console.to_owned(),
        console_path: "console.log".into(),
        alarms: Vec::new(),
        wall: Duration::ZERO,
    }
}

fn results() -> String {
    let snapshot =
        |text: &str| json!({"snapshot": serde_json::from_str::<serde_json::Value>(text).unwrap()});
    [
        json!({"check": {"version": "0.1.0", "topology": {"cpus": [], "groups": [{"class": 0}, {"class": 0}]}}}),
        snapshot(BEFORE),
        snapshot(AFTER),
        json!({"verified": {"8": 23, "10": 59_956, "11": 51_044, "12": 300, "13": 77}}),
    ]
    .map(|line| line.to_string())
    .join("\n")
}

#[test]
fn a_wakeup_costs_the_difference_of_the_counters_of_its_callbacks() {
    let cost = cost();
    assert_eq!(cost.wakeups, 4);
    assert_eq!(cost.programs["select_cpu"].per_run, 1000);
    let enqueue = &cost.programs["enqueue"];
    assert_eq!((enqueue.runs, enqueue.per_run), (3, 733));
    // four runs of 1000 and three of 733
    assert_eq!(cost.per_wakeup, 1550);
}

#[test]
fn what_is_not_of_every_wakeup_is_apart_and_rounded() {
    // 42 instructions of the tick in 4 wake-ups
    assert_eq!(cost().apart_per_wakeup, 11);
}

#[test]
fn programs_of_others_do_not_count() {
    assert!(!cost().programs.contains_key("other_select_cpu"));
    assert_eq!(cost().verified_insns, 23 + 59_956 + 51_044 + 300 + 77);
}

#[test]
fn only_a_struct_ops_program_of_that_ending_is_a_callback() {
    let named = |kind: &str, name: &str| Program {
        id: 1,
        kind: kind.to_owned(),
        name: name.to_owned(),
        run_time_ns: 0,
        run_cnt: 0,
    };
    for (kind, name, callback) in [
        ("struct_ops", "lavd_running", "running"),
        ("struct_ops", "bpfland_select_cpu", "select_cpu"),
        ("struct_ops", "cosmos_prerunning", "cosmos_prerunning"),
        ("struct_ops", "lavd_quiescent", "lavd_quiescent"),
        ("tracing", "futex_enqueue", "futex_enqueue"),
    ] {
        assert_eq!(named(kind, name).callback(), callback);
    }
}

#[test]
fn two_programs_of_one_callback_are_added() {
    let text = AFTER.replace("other_select_cpu", "joule_select_cpu");
    let mut verified = verified();
    verified.insert(99, 1000);
    let cost = Cost::new(&[programs(BEFORE), programs(&text)], &verified).unwrap();
    assert_eq!(cost.wakeups, 4 + 92);
    // 4000 and 92 runs of 109, rounded twice
    assert_eq!(cost.programs["select_cpu"].per_run, 146);
    assert_eq!(cost.programs["select_cpu"].verified_insns, 60_956);
}

#[test]
fn a_window_in_which_the_emulator_was_elsewhere_changes_nothing() {
    let window = |runs: u64, instructions: u64| {
        let now = format!("\"run_time_ns\":{instructions},\"run_cnt\":{runs}");
        BEFORE.replace("\"run_time_ns\":1000,\"run_cnt\":1", &now)
    };
    // 10 runs in each window, but none in the second: 5000 a run, then 104, 102, 100; more between windows
    let texts = [
        (1, 1000),
        (11, 51_000),
        (22, 59_000),
        (22, 59_000),
        (30, 60_000),
        (40, 61_040),
        (40, 61_040),
        (50, 62_060),
        (60, 70_000),
        (70, 71_000),
    ]
    .map(|(runs, instructions)| window(runs, instructions));
    let cost = of(&texts.each_ref().map(String::as_str)).unwrap();
    assert_eq!(
        (cost.wakeups, cost.programs["select_cpu"].per_run),
        (40, 102)
    );
}

#[test]
fn without_a_wakeup_there_is_no_cost() {
    let error = of(&[AFTER, AFTER]).unwrap_err();
    assert!(error.to_string().contains("no wake-up"), "{error}");
}

#[test]
fn counters_that_do_not_fit_together_are_an_error() {
    let backwards = of(&[AFTER, BEFORE]).unwrap_err();
    assert!(backwards.to_string().contains("backwards"), "{backwards}");
    let gone = of(&[BEFORE, &AFTER.replace("\"id\":8,", "\"id\":7,")]).unwrap_err();
    let endless = of(&[BEFORE, AFTER, AFTER]).unwrap_err();
    assert!(endless.to_string().contains("no end"), "{endless}");
    assert!(gone.to_string().contains("program 8 "), "{gone}");
}

#[test]
fn a_guest_hands_over_cost_and_groups() {
    let (counted, groups) = counted(outcome(&results(), "", 0)).unwrap();
    assert_eq!((counted, groups), (cost(), Some(2)));
}

#[test]
fn results_that_are_not_whole_are_an_error() {
    let results = results();
    for line in results.lines().skip(1) {
        let fewer = results.replace(line, "");
        assert!(counted(outcome(&fewer, "", 0)).is_err(), "without {line}");
    }
}

#[test]
fn a_scheduler_that_does_not_load_is_a_marked_row_and_the_rest_goes_on() {
    let console = "[    9.1] kernel\ncost: scx_x did not attach: Error: no such kfunc\nstack\n";
    let subject = |name: &str| Subject {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        scheduler: Ok(Scheduler::of_program(Path::new(name), "")),
    };
    let subjects = [subject("scx_x"), subject("scx_joule")];
    let counted = [
        counted(outcome("", console, 1)),
        counted(outcome(&results(), "", 0)),
    ];
    let section = Section::new(MACHINES[0], subjects.iter().zip(counted));
    assert_eq!(section.groups, Some(2));
    assert_eq!(
        section.rows[0].error.as_deref(),
        Some("scx_x did not attach: Error: no such kfunc (see console.log)")
    );
    assert!(section.rows[0].cost.is_none() && section.rows[1].error.is_none());
    let lines = section.rows.iter().map(Row::to_string).collect::<Vec<_>>();
    assert!(
        lines[0].contains("1.0.0    not counted: scx_x did not attach"),
        "{}",
        lines[0]
    );
    let words: Vec<_> = lines[1].split_whitespace().collect();
    let expected = [
        "scx_joule",
        "1.0.0",
        "4",
        "1550",
        "1000",
        "550",
        "-",
        "-",
        "-",
        "11",
        "111400",
    ];
    assert_eq!(words, expected);
}

#[test]
fn machines_share_their_cpus_out_evenly() {
    for machine in MACHINES {
        assert_eq!(machine.cpus % machine.caches, 0, "{machine}");
    }
}
