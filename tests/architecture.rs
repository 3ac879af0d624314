//! What ARCHITECTURE.md says of the source tree, as rules that fail when the tree says otherwise.
//!
//! Every rule is a function from source files to complaints. It is applied to the tree, and to a small
//! file that breaks it, so that no rule can be satisfied by being blind. Rules see tokens, not text:
//! comments, and what is compiled for tests only, are not there.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

#[path = "common/source.rs"]
mod source;

use source::Source;
use std::path::Path;

/// The rooms from the entrance down. An arrow leads from a room to any room of a lower storey.
const STOREYS: [&[&str]; 5] = [
    &["main"],
    &["daemon", "calibrate", "bench", "observe"],
    &["sched", "energy", "model", "knobs", "store"],
    &[
        "cli",
        "intf",
        "observation",
        "topology",
        "config",
        "profile",
        "stats",
    ],
    &["sysroot", "units", "error"],
];

/// Doors within a storey: who may enter which neighbour.
const DOORS: [(&str, &str); 6] = [
    ("calibrate", "daemon"),
    ("config", "cli"),
    ("config", "intf"),
    ("config", "profile"),
    ("store", "model"),
    ("sysroot", "error"),
];

/// All that the model may know: plain data.
const PLAIN_DATA: [&str; 4] = ["observation", "topology", "units", "error"];

/// What a room without input, output and clock does not name.
const IMPURE: [&str; 12] = [
    "fs",
    "io",
    "net",
    "process",
    "thread",
    "env",
    "Instant",
    "SystemTime",
    "SysRoot",
    "libbpf_rs",
    "scx_utils",
    "scx_stats",
];

/// Files that may hold unsafe code, or let it in; a directory ends in a slash.
const UNSAFE: [&str; 5] = [
    "src/bpf_skel.rs",
    "src/intf.rs",
    "src/energy/perf.rs",
    "bench/load/src/vsoc.rs",
    "tests/policy/src/",
];

/// Names of the lab's devices and tools, unknown to the product.
const LAB: [&str; 4] = ["vsoc", "joule-load", "/dev/vsoc", "qemu"];

/// Lines of a file: where it is reported, and where it fails.
const RUST_LINES: (usize, usize) = (500, 750);
const BPF_LINES: (usize, usize) = (800, 1000);

fn storey(room: &str) -> Option<usize> {
    STOREYS.iter().position(|rooms| rooms.contains(&room))
}

fn rooms_are_known(source: &Source) -> Vec<String> {
    let unknown = source.room().filter(|room| storey(room).is_none());
    unknown
        .map(|room| format!("room '{room}' is on no storey"))
        .into_iter()
        .collect()
}

fn arrows_point_down(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else {
        return Vec::new();
    };
    // What names no room is an item of the crate's root, of which there is none worth a rule.
    let entered = source
        .imports()
        .into_iter()
        .filter(|it| storey(it).is_some());
    let forbidden = entered
        .filter(|it| *it != room && storey(it) <= storey(room) && !DOORS.contains(&(room, it)));
    forbidden
        .map(|it| format!("{room} may not enter {it}"))
        .collect()
}

fn model_knows_plain_data_only(source: &Source) -> Vec<String> {
    if source.room() != Some("model") {
        return Vec::new();
    }
    let imports = source.imports().into_iter().filter(|it| *it != "model");
    let rooms = imports
        .filter(|it| !PLAIN_DATA.contains(it))
        .map(|it| format!("model enters {it}"));
    let impure = IMPURE
        .iter()
        .filter(|it| source.names(it))
        .map(|it| format!("model names {it}"));
    rooms.chain(impure).collect()
}

/// A file may print where the kernel keeps something; only [`OPENERS`] also open files there.
fn one_opener_of_the_machine(source: &Source) -> Vec<String> {
    const OPENERS: [&str; 2] = ["sysroot", "knobs"];
    const PLACES: [&str; 4] = ["/sys", "/proc", "sys/", "proc/"];
    if source.room().is_none_or(|room| OPENERS.contains(&room)) {
        return Vec::new();
    }
    let by_itself = source
        .names("procfs")
        .then(|| "reads /proc through procfs".to_owned());
    // A `File` made of a descriptor opens nothing by name.
    let opens = source
        .members(&["fs"], false)
        .iter()
        .any(|it| !["File", "self"].contains(it))
        || source
            .members(&["File"], false)
            .iter()
            .any(|it| *it != "from")
        || source.names("OpenOptions");
    let places = source
        .strings()
        .filter(|text| PLACES.iter().any(|it| text.starts_with(it)));
    let named = places
        .filter(|_| opens)
        .map(|it| format!("opens files and names \"{it}"));
    named.chain(by_itself).collect()
}

fn only_sched_names_the_skeleton(source: &Source) -> Vec<String> {
    let declares = source.path == "src/lib.rs";
    let skeleton = ["bpf_skel", "BpfSkel", "BpfSkelBuilder", "OpenBpfSkel"];
    let named = skeleton.iter().filter(|it| source.names(it));
    match source.room() == Some("sched") || declares {
        true => Vec::new(),
        false => named.map(|it| format!("names {it}")).collect(),
    }
}

fn unsafe_code_has_its_places(source: &Source) -> Vec<String> {
    let allowed = UNSAFE.iter().any(|place| {
        source.path == *place || place.ends_with('/') && source.path.starts_with(place)
    });
    let words = ["unsafe", "unsafe_code"]
        .iter()
        .filter(|it| source.names(it));
    words
        .filter(|_| !allowed)
        .map(|it| format!("has {it}"))
        .collect()
}

fn the_entrance_is_small(source: &Source) -> Vec<String> {
    let large = source.path == "src/main.rs" && source.lines >= 150;
    large
        .then(|| format!("{} lines, 150 or more", source.lines))
        .into_iter()
        .collect()
}

fn files_fit_their_sentence(source: &Source) -> Vec<String> {
    let large = source.lines > RUST_LINES.1;
    large
        .then(|| format!("{} lines: two files", source.lines))
        .into_iter()
        .collect()
}

type Rule = fn(&Source) -> Vec<String>;

/// Each rule with a file that breaks it: path, content, complaint.
const RULES: [(Rule, &str, &str, &str); 16] = [
    (
        rooms_are_known,
        "src/attic.rs",
        "",
        "room 'attic' is on no storey",
    ),
    (
        arrows_point_down,
        "src/units.rs",
        "use crate::topology::Topology;",
        "units may not enter topology",
    ),
    (
        arrows_point_down,
        "src/energy/perf.rs",
        "fn f() { scx_joule::daemon::run() }",
        "energy may not enter daemon",
    ),
    (
        arrows_point_down,
        "src/energy/mod.rs",
        "use crate::{error::{Error}, sched};",
        "energy may not enter sched",
    ),
    (
        arrows_point_down,
        "src/observe/check/text.rs",
        "use super::super::super::bench::Run;",
        "observe may not enter bench",
    ),
    (
        arrows_point_down,
        "src/stats.rs",
        "type T = super::sched::Exit;",
        "stats may not enter sched",
    ),
    (
        model_knows_plain_data_only,
        "src/model/fit.rs",
        "use crate::config::Config;",
        "model enters config",
    ),
    (
        model_knows_plain_data_only,
        "src/model/fit.rs",
        "use std::time::Instant;",
        "model names Instant",
    ),
    (
        one_opener_of_the_machine,
        "src/stats.rs",
        "fn f() { std::fs::read(\"/proc/stat\"); }",
        "opens files and names \"/proc/stat\"",
    ),
    (
        one_opener_of_the_machine,
        "src/energy/perf.rs",
        "use std::fs::File; fn f() { File::open(\"proc/stat\"); }",
        "opens files and names \"proc/stat\"",
    ),
    (
        one_opener_of_the_machine,
        "src/energy/hwmon.rs",
        "use procfs::Meminfo;",
        "reads /proc through procfs",
    ),
    (
        only_sched_names_the_skeleton,
        "src/daemon.rs",
        "use crate::bpf_skel::*;",
        "names bpf_skel",
    ),
    (
        unsafe_code_has_its_places,
        "src/units.rs",
        "fn f() { unsafe { g() } }",
        "has unsafe",
    ),
    (
        unsafe_code_has_its_places,
        "bench/load/src/run.rs",
        "#![allow(unsafe_code)]",
        "has unsafe_code",
    ),
    (
        the_entrance_is_small,
        "src/main.rs",
        LONG,
        "150 lines, 150 or more",
    ),
    (
        files_fit_their_sentence,
        "src/units.rs",
        TOO_LONG,
        "751 lines: two files",
    ),
];

const LONG: &str = match std::str::from_utf8(&[b'\n'; 150]) {
    Ok(text) => text,
    Err(_) => "",
};
const TOO_LONG: &str = match std::str::from_utf8(&[b'\n'; 751]) {
    Ok(text) => text,
    Err(_) => "",
};

/// The files below `dir` whose names end in one of `endings`, ascending, relative to the repository.
fn files(dir: &str, endings: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(entries) = std::fs::read_dir(root.join(dir)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = format!("{dir}/{}", entry.unwrap().file_name().to_string_lossy());
        if root.join(&path).is_dir() {
            found.extend(files(&path, endings));
        } else if endings.iter().any(|ending| path.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The project's Rust files, without those that are compiled for tests only.
fn tree() -> Vec<Source> {
    let places = ["src", "bench/load/src", "tests/lab/src", "tests/policy/src"];
    let paths = places.iter().flat_map(|place| files(place, &[".rs"]));
    let sources: Vec<Source> = paths.map(|path| Source::new(&path, &read(&path))).collect();
    let test_files: Vec<String> = sources
        .iter()
        .flat_map(|source| {
            let beside = source.path.rsplit_once('/').map_or("", |(dir, _)| dir);
            let is_root = ["/mod.rs", "/lib.rs", "/main.rs"]
                .iter()
                .any(|it| source.path.ends_with(it));
            let dir = match is_root {
                true => beside,
                false => source.path.trim_end_matches(".rs"),
            };
            source
                .test_modules
                .iter()
                .map(move |name| format!("{dir}/{name}"))
        })
        .collect();
    let for_tests = |source: &Source| {
        let module = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        test_files
            .iter()
            .any(|it| module == it || module.starts_with(&format!("{it}/")))
    };
    sources
        .into_iter()
        .filter(|source| !for_tests(source))
        .collect()
}

#[test]
fn every_rule_sees_a_file_that_breaks_it() {
    for (rule, path, text, complaint) in RULES {
        assert_eq!(
            rule(&Source::new(path, text)),
            [complaint],
            "{path}: {text:.40}"
        );
    }
}

#[test]
fn a_file_made_of_a_descriptor_opens_nothing() {
    let text = "use std::fs::File; fn f() { g(\"sys/bus\"); File::from(descriptor) }";
    let source = Source::new("src/energy/perf.rs", text);
    assert_eq!(one_opener_of_the_machine(&source), [""; 0]);
}

#[test]
fn rules_do_not_see_comments_and_tests() {
    let text = "
        //! unsafe crate::daemon
        /// crate::daemon
        fn ours() {}
        #[cfg(test)]
        #[allow(unsafe_code)]
        mod tests { use crate::daemon; fn f() { unsafe { std::fs::read(\"/sys/x\") } } }
        #[cfg(test)]
        mod fixture;
        #[cfg(test)]
        use crate::daemon;
    ";
    let source = Source::new("src/units.rs", text);
    assert_eq!(source.imports(), [""; 0]);
    assert!(source.names("ours") && !source.names("unsafe") && !source.names("fs"));
    assert_eq!(source.strings().count(), 0);
    assert_eq!(source.test_modules, ["fixture"]);
}

#[test]
fn the_source_tree_obeys_every_rule() {
    let sources = tree();
    assert!(
        sources
            .iter()
            .any(|source| source.path == "src/topology/read.rs")
    );
    assert!(
        sources
            .iter()
            .all(|source| source.path != "src/energy/fixture.rs")
    );
    for source in &sources {
        report_above(RUST_LINES.0, &source.path, source.lines);
    }
    let mut complaints = Vec::new();
    let mut rules: Vec<Rule> = RULES.iter().map(|(rule, ..)| *rule).collect();
    rules.dedup_by(|one, other| std::ptr::fn_addr_eq(*one, *other));
    for rule in rules {
        for source in &sources {
            complaints.extend(
                rule(source)
                    .into_iter()
                    .map(|it| format!("{}: {it}", source.path)),
            );
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn bpf_files_fit_their_sentence() {
    for path in files("src/bpf", &[".c", ".h"]) {
        let lines = read(&path).lines().count();
        report_above(BPF_LINES.0, &path, lines);
        assert!(lines <= BPF_LINES.1, "{path}: {lines} lines: two files");
    }
}

/// Shown when a test fails or with `--nocapture`: the soft limit is advice.
fn report_above(soft: usize, path: &str, lines: usize) {
    if lines > soft {
        println!("{path}: {lines} lines, {soft} are meant to do");
    }
}

#[test]
fn the_program_does_not_know_the_lab() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_scx_joule")).unwrap();
    let holds = |name: &str| program.windows(name.len()).any(|it| it == name.as_bytes());
    // A name that any Rust program holds: the search itself works.
    assert!(holds("main"));
    for name in LAB {
        assert!(!holds(name), "'{name}' is in the program");
    }
}
