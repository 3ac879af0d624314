//! What the workload grammar accepts, and how it says what it does not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // of tests and their helpers

use joule_load::rtapp::parse;
use joule_load::work::WorkUnits;
use joule_load::workload::{Event, FairPolicy, Kind, Loops, Phase, Policy, TimerMode, Workload};
use proptest::prelude::*;
use std::path::Path;

fn read(text: &str) -> Result<Workload, String> {
    parse(Path::new("w.json"), text).map_err(|error| error.to_string())
}

fn task(body: &str) -> Result<Workload, String> {
    read(&format!("{{\"tasks\": {{\n\"t\": {{\n{body}\n}}\n}}}}"))
}

fn phases(workload: &Workload) -> &[Phase] {
    match &workload.tasks[0].kind {
        Kind::Script(script) => &script.phases,
        Kind::Ring(_) => panic!("a ring"),
    }
}

fn events(body: &str) -> Vec<Event> {
    phases(&task(body).unwrap())[0].events.clone()
}

#[test]
fn a_task_without_phases_is_its_own_phase_and_loops_for_ever() {
    let workload = task(r#""run": 20, "sleep": 80"#).unwrap();
    let Kind::Script(script) = &workload.tasks[0].kind else {
        panic!()
    };
    assert_eq!(script.loops, Loops::Forever);
    assert_eq!(script.phases[0].loops, Loops::Times(1));
    assert_eq!(
        script.phases[0].events,
        [Event::Run(WorkUnits(20_000)), Event::Sleep(80_000)]
    );
}

#[test]
fn the_loop_of_a_task_without_phases_is_the_tasks_alone() {
    let workload = task(r#""loop": 3, "run": 20"#).unwrap();
    let Kind::Script(script) = &workload.tasks[0].kind else {
        panic!()
    };
    assert_eq!(
        (script.loops, script.phases[0].loops),
        (Loops::Times(3), Loops::Times(1))
    );
}

#[test]
fn events_keep_the_order_of_the_file_with_suffixes_and_repeated_keys() {
    let found = events(
        r#""sleep2": 1, "run": 2, "run": 3, "runtime": 4, "run_late": 5, "yield": "", "sleep": 6"#,
    );
    let expected = [
        Event::Sleep(1_000),
        Event::Run(WorkUnits(2_000)),
        Event::Run(WorkUnits(3_000)),
        Event::Runtime(4_000),
        Event::Run(WorkUnits(5_000)),
        Event::Yield,
        Event::Sleep(6_000),
    ];
    assert_eq!(found, expected);
}

#[test]
fn timers_of_one_name_are_one_timer() {
    let found = events(
        r#""timer": {"ref": "a", "period": 10}, "timer1": {"ref": "b", "period": 20, "mode": "absolute"},
           "timer2": {"ref": "a", "period": 30, "mode": "relative"}"#,
    );
    let timer = |timer, us: u64, mode| Event::Timer {
        timer,
        period_ns: us * 1_000,
        mode,
    };
    assert_eq!(
        found,
        [
            timer(0, 10, TimerMode::Relative),
            timer(1, 20, TimerMode::Absolute),
            timer(0, 30, TimerMode::Relative)
        ]
    );
}

#[test]
fn a_load_in_percent_is_work_for_that_share_of_the_period() {
    let found = events(r#""load_pct": 6.25, "timer": {"ref": "a", "period": 16000}"#);
    assert_eq!(found[0], Event::Run(WorkUnits(1_000_000)));
}

#[test]
fn phases_take_jitter_and_deadline_from_their_task_unless_they_say_otherwise() {
    let workload =
        task(r#""jitter_pct": 20, "deadline": 7, "phases": {"a": {"run": 1}, "b": {"run": 1, "jitter_pct": 0, "deadline": 9}}"#)
            .unwrap();
    let found: Vec<_> = phases(&workload)
        .iter()
        .map(|phase| (phase.jitter_pct, phase.deadline_ns))
        .collect();
    assert_eq!(found, [(20, Some(7_000)), (0, Some(9_000))]);
}

#[test]
fn the_priority_of_an_ordinary_task_is_its_nice_value() {
    let policy =
        |body: &str| task(&format!(r#"{body} "run": 1"#)).map(|workload| workload.tasks[0].policy);
    assert_eq!(policy(""), Ok(None));
    assert_eq!(
        policy(r#""priority": -5,"#),
        Ok(Some(Policy::Fair(FairPolicy::Other, -5)))
    );
    assert_eq!(
        policy(r#""policy": "SCHED_BATCH", "nice": 19,"#),
        Ok(Some(Policy::Fair(FairPolicy::Batch, 19)))
    );
    assert_eq!(
        policy(r#""policy": "SCHED_FIFO","#),
        Ok(Some(Policy::Fifo(10)))
    );
    assert_eq!(
        policy(r#""policy": "SCHED_RR", "priority": 99,"#),
        Ok(Some(Policy::RoundRobin(99)))
    );
}

#[test]
fn global_settings_are_read_and_those_about_logs_are_named_as_ignored() {
    let workload = read(
        r#"{"global": {"duration": 5, "calibration": "CPU3", "default_policy": "SCHED_RR", "logdir": "/tmp", "gnuplot": true},
            "tasks": {"t": {"run": 1}}}"#,
    )
    .unwrap();
    assert_eq!(workload.duration_ns, Some(5_000_000_000));
    assert_eq!(workload.calibration_cpu, Some(3));
    assert_eq!(workload.tasks[0].policy, Some(Policy::RoundRobin(10)));
    assert_eq!(workload.ignored, ["logdir", "gnuplot"]);
}

#[test]
fn a_duration_of_minus_one_is_none() {
    let workload = read(r#"{"global": {"duration": -1}, "tasks": {"t": {"run": 1}}}"#).unwrap();
    assert_eq!(workload.duration_ns, None);
}

#[test]
fn a_ring_has_its_own_threads() {
    let workload =
        task(r#""instance": 3, "ring": {"members": 4, "messages": 5, "work": 6, "period": 7}"#)
            .unwrap();
    let Kind::Ring(ring) = &workload.tasks[0].kind else {
        panic!()
    };
    assert_eq!(
        (ring.members, ring.messages, ring.work, ring.period_ns),
        (4, 5, WorkUnits(6_000), Some(7_000))
    );
    assert_eq!(workload.threads(), 12);
}

#[test]
fn the_groups_of_tasks_have_their_weights_and_outer_ones_come_first() {
    let workload = read(
        r#"{"global": {"taskgroups": {"/out/in": {"weight": 10000}, "/alone": {"weight": 1}}},
            "tasks": {"a": {"run": 1, "taskgroup": "/out/in"}, "b": {"run": 1, "taskgroup": "/alone"},
                      "c": {"taskgroup": "/out-of", "ring": {"members": 2, "messages": 1, "work": 1}},
                      "d": {"taskgroup": "", "run": 1}, "e": {"run": 1}}}"#,
    )
    .unwrap();
    let of_tasks: Vec<_> = workload
        .tasks
        .iter()
        .map(|task| task.taskgroup.as_deref())
        .collect();
    assert_eq!(
        of_tasks,
        [Some("/out/in"), Some("/alone"), Some("/out-of"), None, None]
    );
    let groups: Vec<_> = workload
        .taskgroups
        .iter()
        .map(|group| (group.path.as_str(), group.weight))
        .collect();
    assert_eq!(
        groups,
        [
            ("/alone", Some(1)),
            ("/out", None),
            ("/out-of", None),
            ("/out/in", Some(10_000))
        ]
    );
}

#[test]
fn comments_are_blanks_except_in_strings_and_the_first_is_the_intent() {
    let text = "/* To show\n that it works */ // more\n{\"tasks\": {\"a/*b*/\\\"//c\": {\"run\": /**/ 1}}} // end";
    let workload = read(text).unwrap();
    assert_eq!(workload.intent.as_deref(), Some("To show that it works"));
    assert_eq!(workload.tasks[0].name, "a/*b*/\"//c");
    assert_eq!(
        read("{\"tasks\": {\"t\": {/* no intent */ \"run\": 1}}}")
            .unwrap()
            .intent,
        None
    );
}

#[test]
fn mistakes_are_named_with_line_field_value_and_what_would_be_right() {
    let cases = [
        (
            r#""run": 1, "ruin": 2"#,
            3,
            "tasks.t",
            "unknown field `ruin`, expected one of `instance`",
        ),
        (r#""runn": 1"#, 3, "tasks.t", "unknown field `runn`"),
        (
            r#""run": -5"#,
            3,
            "tasks.t.run",
            "invalid value: integer `-5`, expected a whole number from 0 to 86400000000",
        ),
        (
            r#""run": 1.5"#,
            3,
            "tasks.t.run",
            "floating point `1.5`, expected a whole number",
        ),
        (
            r#""run": "1""#,
            3,
            "tasks.t.run",
            "string \"1\", expected a whole number",
        ),
        (
            r#""run": 18446744073709551615"#,
            3,
            "tasks.t.run",
            "`18446744073709551615`",
        ),
        (r#""lock": "m""#, 3, "tasks.t", "unknown field `lock`"),
        (
            r#""loop": 1, "loop": 2, "run": 1"#,
            3,
            "tasks.t",
            "duplicate field `loop`",
        ),
        (
            "\"run\": 1,\n\"timer\": {\"ref\": \"a\"}",
            4,
            "tasks.t.timer",
            "missing field `period`",
        ),
        (
            r#""timer": {"ref": "a", "period": 0}"#,
            3,
            "tasks.t.timer.period",
            "expected a whole number from 1",
        ),
        (
            r#""timer": {"ref": "a", "period": 1, "mode": "x"}"#,
            3,
            "tasks.t.timer.mode",
            "expected `relative` or `absolute`",
        ),
        (
            r#""policy": "FIFO", "run": 1"#,
            3,
            "tasks.t.policy",
            "unknown variant `FIFO`, expected one of `SCHED_OTHER`",
        ),
        (
            r#""load_pct": 5"#,
            3,
            "tasks.t.load_pct",
            "no timer event gives one",
        ),
        (
            r#""load_pct": 101, "timer": {"ref": "a", "period": 1}"#,
            3,
            "tasks.t.load_pct",
            "at most 100",
        ),
        (
            "\"run\": 1,\n\"resume\": \"nobody\"",
            4,
            "tasks.t.resume",
            "'nobody' is no task of this file; there are t",
        ),
        (
            r#""run": 1, "resume": "t""#,
            3,
            "tasks.t.resume",
            "'t' never suspends",
        ),
        (
            r#""cpus": [], "run": 1"#,
            3,
            "tasks.t.cpus",
            "the list is empty",
        ),
        (
            r#""priority": 50, "run": 1"#,
            3,
            "tasks.t.priority",
            "from -20 to 19",
        ),
        (
            r#""policy": "SCHED_FIFO", "priority": 0, "run": 1"#,
            3,
            "tasks.t.priority",
            "from 1 to 99",
        ),
        (
            r#""policy": "SCHED_FIFO", "nice": 0, "run": 1"#,
            3,
            "tasks.t.nice",
            "no nice value",
        ),
        (
            r#""nice": 0, "priority": 0, "run": 1"#,
            3,
            "tasks.t.nice",
            "give one",
        ),
        (
            r#""ring": {"members": 1, "messages": 1, "work": 1}"#,
            3,
            "tasks.t.ring.members",
            "from 2 to 1024",
        ),
        (
            r#""ring": {"members": 2, "messages": 1, "work": 1}, "run": 1"#,
            3,
            "tasks.t.ring",
            "a ring has no phases",
        ),
        (
            r#""run": 1, "phases": {"p": {"run": 1}}"#,
            2,
            "tasks.t",
            "put the events into a phase",
        ),
        (r#""phases": {}"#, 3, "tasks.t.phases", "there is no phase"),
        (
            "\"phases\": {\n\"p\": {}}",
            4,
            "tasks.t.phases.p",
            "nothing happens in it",
        ),
        (
            "\"phases\": {\n\"p\": {\"run\": 1,\n\"delay\": 1}}",
            5,
            "tasks.t.phases.p.delay",
            "belongs to the task",
        ),
        (
            r#""phases": {"p": {"run": 1}, "p": {"run": 1}}"#,
            3,
            "tasks.t.phases",
            "the name 'p' is taken",
        ),
        (
            r#""run": 1, "taskgroup": "heavy""#,
            3,
            "tasks.t.taskgroup",
            "invalid value: string \"heavy\", expected a path such as \"/name\"",
        ),
        (
            r#""run": 1, "taskgroup": "/a/../b""#,
            3,
            "tasks.t.taskgroup",
            "expected a path such as \"/name\" or \"/outer/name\"",
        ),
        (
            "\"phases\": {\n\"p\": {\"run\": 1,\n\"taskgroup\": \"/g\"}}",
            5,
            "tasks.t.phases.p.taskgroup",
            "belongs to the task",
        ),
        (
            r#""instance": 4097, "run": 1"#,
            3,
            "tasks.t.instance",
            "from 0 to 4096",
        ),
    ];
    for (body, line, field, reason) in cases {
        let error = task(body).unwrap_err();
        assert!(
            error.starts_with(&format!("w.json:{line}: {field}: ")),
            "{body}\n{error}"
        );
        assert!(error.contains(reason), "{body}\n{error}");
        assert!(
            !error.contains('\n') && !error.contains(" column "),
            "{error}"
        );
    }
}

#[test]
fn mistakes_outside_of_tasks_are_named_too() {
    let cases = [
        ("", "w.json:1: EOF while parsing"),
        ("{}", "w.json:1: missing field `tasks`"),
        ("{\"tasks\": {}}", "w.json:1: tasks: there is no task"),
        (
            "{\"tasks\": {\"t\": {\"run\": 1}}}\n x",
            "w.json:2: trailing characters",
        ),
        (
            "{\"tasks\": {\"t\": {\"run\": 1}}}\n\n/* x",
            "w.json:3: a comment begins here",
        ),
        ("/*/", "w.json:1: a comment begins here"),
        (
            "{\"task\": {}}",
            "w.json:1: task: unknown field `task`, expected one of `tasks`, `global`",
        ),
        (
            "{\n\"global\": {\"durration\": 1}}",
            "w.json:2: global.durration: unknown field `durration`, expected one of `duration`",
        ),
        (
            "{\"global\": {\"calibration\": \"3\"}}",
            "w.json:1: global.calibration: invalid value: string \"3\", expected a CPU such",
        ),
        (
            "{\"tasks\": {\"\": {\"run\": 1}}}",
            "w.json:1: tasks: a name must be printable",
        ),
        (
            "{\"tasks\": {\"t\": {\"instance\": 0, \"run\": 1}}}",
            "w.json:1: tasks: every task has 0 instances",
        ),
        (
            "{\"tasks\": {\"t\": {\"instance\": 4096, \"ring\": {\"members\": 2, \"messages\": 1, \"work\": 1}}}}",
            "8192 threads are too many",
        ),
        (
            "{\"global\": {\"taskgroups\": {\n\"/g\": {\"weight\": 0}}}, \"tasks\": {\"t\": {\"run\": 1}}}",
            "w.json:2: global.taskgroups./g.weight: invalid value: integer `0`, expected a whole number from 1 to 10000",
        ),
        (
            "{\"global\": {\"taskgroups\": {\"/g\": {}}}, \"tasks\": {\"t\": {\"run\": 1}}}",
            "w.json:1: global.taskgroups./g: missing field `weight`",
        ),
        (
            "{\"global\": {\"taskgroups\": {\"/g\": {\"wait\": 1}}}, \"tasks\": {\"t\": {\"run\": 1}}}",
            "global.taskgroups./g.wait: unknown field `wait`, expected `weight`",
        ),
        (
            "{\"tasks\": {\"t\": {\"run\": 1, \"taskgroup\": \"/g\"}},\n\"global\": {\"taskgroups\": {\n\"/h\": {\"weight\": 1}}}}",
            "w.json:3: global.taskgroups./h: no task is in it, give one this taskgroup",
        ),
        (
            "{\"global\": {\"taskgroups\": {\"g\": {\"weight\": 1}}}, \"tasks\": {\"t\": {\"run\": 1}}}",
            "w.json:1: global.taskgroups.g: is no cgroup, expected a path such as \"/name\"",
        ),
    ];
    for (text, expected) in cases {
        let error = read(text).unwrap_err();
        assert!(error.contains(expected), "{text}\n{error}");
    }
}

#[test]
fn every_workload_of_the_project_is_valid_and_opens_with_its_intent() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workloads");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let workload = joule_load::rtapp::read(&path).unwrap();
        assert!(
            workload.intent.is_some_and(|intent| intent.len() > 20),
            "{}",
            path.display()
        );
        assert!(
            std::fs::read_to_string(&path).unwrap().starts_with("/* "),
            "{}",
            path.display()
        );
        seen += 1;
    }
    assert!(seen >= 13, "{seen}");
}

/// Bits of workloads, glued together at random: closer to valid than random characters.
fn almost_json() -> impl Strategy<Value = String> {
    let bits = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "/*",
        "*/",
        "//",
        "\n",
        "-",
        "1",
        "1e999",
        "99999999999999999999",
        "\"tasks\":{",
        "\"t\":{",
        "\"run\":",
        "\"phases\":{",
        "\"timer\":{\"ref\":\"a\",\"period\":",
        "\"ring\":{",
        "\"loop\":-1",
        "\"cpus\":[",
        "\"global\":{",
        "\"resume\":\"t\"",
        "\"taskgroup\":\"/",
        "\"taskgroups\":{",
        "\"suspend\":\"\"",
        "null",
        "true",
        "\"é\"",
        "\u{0}",
    ];
    prop::collection::vec(prop::sample::select(bits.to_vec()), 0..40).prop_map(|bits| bits.concat())
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = read(&text);
    }

    #[test]
    fn no_broken_workload_makes_the_parser_panic(text in almost_json()) {
        if let Err(error) = read(&text) {
            prop_assert!(error.starts_with("w.json:"));
        }
    }

    #[test]
    fn a_truncated_workload_is_refused(length in 1_usize..100) {
        let text = r#"{"tasks": {"t": {"loop": 3, "run": 1, "timer": {"ref": "a", "period": 16000}, "cpus": [0, 1]}}}"#;
        let cut = text.get(..length.min(text.len() - 1)).unwrap();
        prop_assert!(read(cut).is_err());
    }
}
