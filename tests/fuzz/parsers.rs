//! Every parser of the product under inputs that a machine would never show, or only a broken one.
//!
//! An input is a tree of valid files of which a few have been changed: cut, spliced, made of other machines'
//! words or of noise, removed, turned into directories. It is drawn from its number alone, so that a
//! failure can be had again. A parser fails by panicking, or by an answer that cannot be.

#[path = "telemetry.rs"]
mod telemetry;
#[path = "trees.rs"]
mod trees;

use clap::Parser as _;
use scx_joule::cli::Cli;
use scx_joule::energy::agreement::Agreement;
use scx_joule::energy::battery::{BatteryPower, batteries};
use scx_joule::energy::counter::Outcome;
use scx_joule::energy::hwmon::{Hwmon, channels};
use scx_joule::energy::powercap::{Powercap, meters, zones};
use scx_joule::energy::select::{Purpose, Source};
use scx_joule::energy::{
    Amount, EnergySource, Facts, Moment, Reading, kernel_em, open, perf, probe, select,
};
use scx_joule::observe::check::check;
use scx_joule::profile::Profile;
use scx_joule::sysroot::{SysRoot, format_cpu_list};
use scx_joule::topology::Topology;
use scx_joule::units::Nanos;
use std::fmt;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use trees::{
    ACTIVITY, BATTERY, COMMAND_LINE, CPUS, ENERGY_MODEL, HWMON, KERNEL, MACHINE, PMU, POWERCAP,
    PROFILE, RECORDING, Tree, WATCH, WORDS,
};

/// A parser with a tree that it takes.
pub struct Parser {
    pub name: &'static str,
    /// How many turns it has in each round of them, more for those that are quick.
    turns: usize,
    /// Paths and texts of the valid tree.
    files: Tree,
    run: fn(&SysRoot),
}

/// All of them. A parser that is new is entered here.
pub const PARSERS: &[Parser] = &[
    Parser {
        name: "sysroot",
        turns: 6,
        files: WORDS,
        run: sysroot,
    },
    Parser {
        name: "profile",
        turns: 5,
        files: PROFILE,
        run: profile,
    },
    Parser {
        name: "topology",
        turns: 1,
        files: CPUS,
        run: topology,
    },
    Parser {
        name: "perf",
        turns: 3,
        files: PMU,
        run: pmu,
    },
    Parser {
        name: "powercap",
        turns: 2,
        files: POWERCAP,
        run: powercap,
    },
    Parser {
        name: "hwmon",
        turns: 3,
        files: HWMON,
        run: hwmon,
    },
    Parser {
        name: "battery",
        turns: 2,
        files: BATTERY,
        run: battery,
    },
    Parser {
        name: "energy model",
        turns: 3,
        files: ENERGY_MODEL,
        run: energy_model,
    },
    Parser {
        name: "activity",
        turns: 2,
        files: ACTIVITY,
        run: telemetry::activity,
    },
    Parser {
        name: "watch",
        turns: 1,
        files: WATCH,
        run: telemetry::watch,
    },
    Parser {
        name: "recording",
        turns: 3,
        files: RECORDING,
        run: telemetry::recording,
    },
    Parser {
        name: "probe",
        turns: 1,
        files: MACHINE,
        run: machine,
    },
    Parser {
        name: "check",
        turns: 1,
        files: KERNEL,
        run: kernel,
    },
    Parser {
        name: "command line",
        turns: 1,
        files: COMMAND_LINE,
        run: command_line,
    },
];

fn sysroot(sys: &SysRoot) {
    let _ = sys.value::<u64>("value", "a number");
    let _ = sys.value::<f64>("value", "a number");
    let _ = sys.values::<i64>("values", "numbers");
    if let Ok(Some(cpus)) = sys.cpu_list("list") {
        assert!(cpus.is_sorted_by(|one, next| one < next), "{cpus:?}");
        let _ = format_cpu_list(&cpus);
    }
}

fn command_line(sys: &SysRoot) {
    let words = sys.text("words").ok().flatten().unwrap_or_default();
    let _ = Cli::try_parse_from(words.split_whitespace());
}

fn profile(sys: &SysRoot) {
    let path = sys.path("p.toml");
    if let Ok(profile) = Profile::load(&path.to_string_lossy()) {
        assert!((100..=20_000).contains(&profile.slice_us));
    }
}

fn topology(sys: &SysRoot) {
    if let Ok(topology) = Topology::read(sys) {
        let grouped = topology.groups.iter().map(|group| group.cpus.len());
        assert_eq!(grouped.sum::<usize>(), topology.cpus.len());
    }
}

fn pmu(sys: &SysRoot) {
    let _ = perf::permission(sys);
    if let Ok(Some(pmu)) = perf::pmu(sys, "power")
        && let Ok(events) = pmu.energy_events(sys)
    {
        let is_joules = |unit: Option<&str>| unit == Some("Joules");
        assert!(
            events
                .iter()
                .all(|(_, event)| is_joules(event.unit.as_deref()))
        );
    }
}

fn powercap(sys: &SysRoot) {
    let zones = zones(sys).unwrap_or_default();
    for amd in [false, true] {
        let meters = meters(&zones, amd);
        let mut places: Vec<_> = meters.iter().map(|it| (&it.domain, &it.scope)).collect();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), meters.len(), "a domain is counted twice");
        if let Ok(Some(mut source)) = Powercap::open(sys, amd) {
            sample(&mut source);
        }
    }
}

fn hwmon(sys: &SysRoot) {
    if let Ok(channels) = channels(sys) {
        sample(&mut Hwmon::open(sys, channels));
    }
}

fn battery(sys: &SysRoot) {
    for battery in batteries(sys).unwrap_or_default() {
        if let Some(mut source) = BatteryPower::open(sys, &battery) {
            sample(&mut source);
        }
    }
}

fn energy_model(sys: &SysRoot) {
    for domain in kernel_em::domains(sys).unwrap_or_default() {
        assert!(!domain.cpus.is_empty() && !domain.levels.is_empty());
    }
}

fn machine(sys: &SysRoot) {
    let facts = probe(sys);
    let selection = select(&facts);
    assert_eq!(selection.verdicts.len(), 14);
    let json = serde_json::to_string(&facts).unwrap();
    // a scale that is a whole number of no 64 bits comes back a bit off
    let _ = serde_json::from_str::<Facts>(&json).unwrap();
    let mut agreement = Agreement::default();
    for source in [Source::Powercap, Source::HwmonEnergy, Source::Battery] {
        for mut meter in open(sys, &facts, source, Purpose::Package).unwrap_or_default() {
            let readings = sample(meter.as_mut());
            agreement.add(&[(source, readings)]);
        }
    }
    let _ = agreement.comparisons();
}

fn kernel(sys: &SysRoot) {
    let report = check(sys);
    assert!(report.able || !report.obstacles().is_empty());
    assert!(!report.text().is_empty());
}

/// Two samples of files that stand still: no energy can have flowed.
fn sample(source: &mut dyn EnergySource) -> Vec<Reading> {
    let _ = source.longest_safe_period();
    let mut readings = Vec::new();
    for second in [0, 1] {
        let now = Moment {
            at: Nanos::new(second * 1_000_000_000),
            resumed: false,
        };
        let Ok(sampled) = source.sample(now) else {
            return Vec::new();
        };
        readings = sampled;
    }
    for reading in &readings {
        if let Amount::Energy(Outcome::Moved { energy, .. }) = &reading.amount {
            assert_eq!(energy.get(), 0, "energy out of nothing: {reading:?}");
        }
    }
    readings
}

/// Words that such files have somewhere, at some time, or in some bug.
const DICTIONARY: [&str; 44] = [
    "",
    "\n",
    "0",
    "1",
    "-1",
    "+5",
    "00",
    "007",
    " 12 ",
    "1\n2\n",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "340282366920938463463374607431768211456",
    "0x",
    "0xffffffffffffffff",
    "0x1g",
    "1e400",
    "NaN",
    "inf",
    "-0.0",
    "1e-320",
    "0.1",
    ",",
    "-",
    "0-",
    "-0",
    "3-0",
    "0-3,2",
    "0,,1",
    "0-255",
    "8192",
    "<unsupported>",
    "unknown",
    "\u{fffd}",
    "\u{0}",
    "mWatts",
    "package-0",
    "event=",
    "package-0-die-",
];

/// What was done to the tree, to be undone.
struct Change {
    file: &'static str,
    valid: &'static str,
}

/// Changes a file of the tree, now and then two or three.
fn change(root: &Path, parser: &Parser, rng: &mut fastrand::Rng) -> Vec<Change> {
    let mut changes = Vec::new();
    let number = [1, 1, 1, 1, 2, 3][rng.usize(..6)];
    for _ in 0..number {
        let (file, valid) = parser.files[rng.usize(..parser.files.len())];
        let path = root.join(file);
        changes.push(Change { file, valid });
        match rng.u8(..40) {
            0 => clear(&path),
            1 => {
                clear(&path);
                fs::create_dir(&path).unwrap();
            }
            _ => write(&path, &content(valid.as_bytes(), rng)),
        }
    }
    changes
}

fn restore(root: &Path, changes: &[Change]) {
    for change in changes {
        write(&root.join(change.file), change.valid.as_bytes());
    }
}

/// Writes the file, in the place of a directory too.
fn write(path: &Path, content: &[u8]) {
    if fs::write(path, content).is_err() {
        clear(path);
        fs::write(path, content).unwrap();
    }
}

fn clear(path: &Path) {
    if fs::remove_file(path).is_err() && path.is_dir() {
        fs::remove_dir(path).unwrap();
    }
}

/// A text near the valid one, or far from it.
fn content(valid: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = valid.to_vec();
    let word = |rng: &mut fastrand::Rng| DICTIONARY[rng.usize(..DICTIONARY.len())].as_bytes();
    match rng.u8(..8) {
        0 => return word(rng).to_vec(),
        1 => return (0..rng.usize(..64)).map(|_| rng.u8(..)).collect(),
        2 => return (0..rng.usize(..64)).map(|_| rng.u8(32..127)).collect(),
        // more than any such file has
        3 if rng.u8(..16) == 0 => return word(rng).repeat(rng.usize(..2000)),
        _ => {}
    }
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(..=text.len());
        match rng.u8(..6) {
            0 => text.truncate(at),
            1 => drop(text.splice(at..at, word(rng).iter().copied())),
            2 => text.insert(at, rng.u8(..)),
            3 => text.insert(at, b"0123456789-+.,:x= \n\0"[rng.usize(..20)]),
            4 if at < text.len() => drop(text.remove(at)),
            _ if at < text.len() => text[at] ^= 1 << rng.u8(..8),
            _ => {}
        }
    }
    text
}

/// An input that a parser did not survive.
pub struct Failure {
    /// Its number: `run(number, 1)` has it again.
    pub number: u64,
    parser: &'static str,
    /// The changed files as they were.
    files: Vec<(String, String)>,
    /// What the panic said.
    why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "input {} of {}: {}", self.number, self.parser, self.why)?;
        for (file, content) in &self.files {
            write!(f, "\n    {file}: {content:?}")?;
        }
        Ok(())
    }
}

/// Runs inputs `first` to `first + inputs - 1`, each through the parser whose turn it is. Silences panics: they are
/// told in the answer.
pub fn run(first: u64, inputs: u64) -> Vec<Failure> {
    let directory = directory();
    let roots: Vec<_> = PARSERS
        .iter()
        .map(|parser| {
            let root = directory.path().join(parser.name.replace(' ', "-"));
            for (file, valid) in parser.files {
                fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
                fs::write(root.join(file), valid).unwrap();
            }
            root
        })
        .collect();
    let round: Vec<_> = PARSERS
        .iter()
        .zip(&roots)
        .flat_map(|(parser, root)| std::iter::repeat_n((parser, root), parser.turns))
        .collect();
    let mut failures = Vec::new();
    for number in first..first + inputs {
        let (parser, root) = round[usize::try_from(number).unwrap() % round.len()];
        let mut rng = fastrand::Rng::with_seed(number);
        let changes = change(root, parser, &mut rng);
        let sys = SysRoot::at(root);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (parser.run)(&sys))) {
            let files = changes.iter().map(|change| {
                let content = fs::read(root.join(change.file)).unwrap_or_default();
                let content = String::from_utf8_lossy(&content).into_owned();
                (change.file.to_owned(), content)
            });
            failures.push(Failure {
                number,
                parser: parser.name,
                files: files.collect(),
                why: said(panic.as_ref()),
            });
        }
        restore(root, &changes);
    }
    failures
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_default()
}

/// In memory where there is such a place: an input is a few small files.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}
