//! What was calibrated, from the fit to the file and the sub-commands: it finds the truth, adds up, and is refused
//! when it is not right.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

use fastrand::Rng;
use num_traits::ToPrimitive;
use proptest::prelude::*;
use scx_joule::energy::kernel_em::{self, Power};
use scx_joule::model::evidence::{Evidence, parameters};
use scx_joule::model::file::{Machine, Saved};
use scx_joule::model::{ClassShape, Meter, Model, OppShape, Prior, Shape};
use scx_joule::observation::{ClassActivity, Energy, IdleActivity, Meters, Observation};
use scx_joule::sysroot::SysRoot;
use scx_joule::units::{Capacity, KHz, Microjoules, Microwatts, Nanos};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;

/// Busy power of one CPU and power shared by its cluster at each OPP, mW: not of the model's own form.
const TRUTH: [&[(f64, f64)]; 2] = [
    &[
        (22.0, 3.0),
        (14.0, 4.0),
        (35.0, 9.0),
        (51.0, 14.0),
        (128.0, 30.0),
    ],
    &[
        (33.0, 10.0),
        (67.0, 12.0),
        (128.0, 17.0),
        (280.0, 36.0),
        (740.0, 70.0),
    ],
];
const CPUS: [u16; 2] = [4, 2];
const BASE_MW: f64 = 20.0;
const STEP_MS: u32 = 400;

fn shape() -> Shape {
    let class = |k: usize, top: u64| ClassShape {
        cpus: CPUS[k],
        domains: 1,
        opps: (1..=5)
            .map(|i| OppShape {
                khz: KHz::new(i * 400_000),
                cap: Capacity::new(i * top / 5).unwrap(),
                microvolt: None,
            })
            .collect(),
        idle_depths: 2,
        cluster_wakes: true,
        smt: false,
    };
    Shape {
        classes: vec![class(0, 500), class(1, 1000)],
    }
}

/// What a kernel might say: 30 % off at one end, 40 % at the other.
fn prior() -> Prior {
    let class = |k: usize| {
        let errors = [0.7, 0.87, 1.04, 1.21, 1.38];
        let power =
            |((busy, _), error): (&(f64, f64), f64)| Microwatts::new(whole(busy * 1e3 * error));
        TRUTH[k].iter().zip(errors).map(power).collect()
    };
    Prior::Watts(vec![class(0), class(1)])
}

fn whole(value: f64) -> u64 {
    value.round().to_u64().unwrap()
}

/// One visit: so many CPUs of a class busy at an OPP.
fn visit(class: usize, opp: usize, busy: u16, noise: f64, rng: &mut Rng) -> Observation {
    let ms = |time: u32| Nanos::new(u64::from(time) * 1_000_000);
    let (cpu, shared) = TRUTH[class][opp];
    let active = u16::from(busy > 0);
    let mw = BASE_MW + cpu * f64::from(busy) + shared * f64::from(active);
    // The sum of twelve uniform numbers is nearly normal.
    let normal: f64 = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
    let uj = mw * f64::from(STEP_MS) * (1.0 + noise * normal);
    let activity = |k: usize| {
        let here = |count: u16| -> Vec<Nanos> {
            let at = |i| match k == class && i == opp {
                true => ms(u32::from(count) * STEP_MS),
                false => ms(0),
            };
            (0..5).map(at).collect()
        };
        let busy = if k == class { busy } else { 0 };
        ClassActivity {
            active: here(active),
            busy: here(busy),
            idle: vec![
                IdleActivity::default(),
                IdleActivity {
                    time: ms(u32::from(CPUS[k] - busy) * STEP_MS),
                    exits: 0,
                },
            ],
            cluster_wakes: Some(0),
            sibling: None,
        }
    };
    Observation {
        duration: ms(STEP_MS),
        meters: Meters {
            package: Some(Energy::measured(Microjoules::new(whole(uj)))),
            ..Meters::default()
        },
        classes: vec![activity(0), activity(1)],
    }
}

/// A calibration: idle, each OPP with one CPU twice, with all once.
fn calibration(seed: u64) -> Vec<Observation> {
    let mut rng = Rng::with_seed(seed);
    let mut all: Vec<Observation> = (0..6).map(|_| visit(0, 0, 0, 0.01, &mut rng)).collect();
    for (class, cpus) in CPUS.into_iter().enumerate() {
        for busy in [1, cpus, 1] {
            all.extend((0..5).map(|opp| visit(class, opp, busy, 0.01, &mut rng)));
        }
    }
    all
}

fn evidence(observations: &[Observation]) -> Evidence {
    let (evidence, meter) = Evidence::fit(&shape(), &prior(), observations).unwrap();
    assert_eq!(meter, Meter::Package);
    evidence
}

fn model(evidence: &Evidence, prior: &Prior) -> Model {
    let belief = evidence.belief(&shape(), prior).unwrap();
    Model::with_belief(shape(), &belief).unwrap()
}

/// Power of the first busy CPU at each OPP of each class, with its standard deviation, over the truth.
fn against_truth(model: &Model) -> Vec<(f64, f64)> {
    let of_class = |class: usize| {
        let truth = TRUTH[class].iter().map(|(busy, shared)| busy + shared);
        let curve = model.curve(class).into_iter();
        curve
            .zip(truth)
            .map(|((_, fitted), mw)| (fitted.uw / 1e3 / mw, fitted.sigma_uw / 1e3 / mw))
    };
    of_class(0).chain(of_class(1)).collect()
}

fn saved() -> Saved {
    static SAVED: LazyLock<Saved> = LazyLock::new(|| Saved {
        machine: Machine {
            board: vec!["Maker of \"boards\"".into(), "Board 7".into()],
            processor: vec![],
            cpus: vec!["0-3".into(), "4-5".into()],
            cores: vec!["arm 41:d05".into(), "-".into()],
        },
        shape: shape(),
        prior: prior(),
        meter: Meter::Package,
        evidence: evidence(&calibration(1)),
    });
    SAVED.clone()
}

#[test]
fn each_opp_is_found_and_the_truth_lies_in_the_error_bars() {
    let mut inside = 0;
    for seed in 0..10 {
        let evidence = evidence(&calibration(seed));
        assert!(
            (0.003..0.03).contains(&evidence.noise),
            "{}",
            evidence.noise
        );
        let points = against_truth(&model(&evidence, &prior()));
        for (ratio, sigma) in points {
            assert!((ratio - 1.0).abs() < 0.08, "{ratio} ± {sigma}");
            inside += usize::from((ratio - 1.0).abs() < 1.645 * sigma);
        }
    }
    // 100 truths in 90 % intervals.
    assert!((80..=100).contains(&inside), "{inside}");
}

#[test]
fn a_prior_without_a_scale_gets_it_from_the_measurements() {
    let unitless = |curve: &Vec<Microwatts>| curve.iter().map(|power| power.get() / 77).collect();
    let Prior::Watts(curves) = prior() else {
        panic!("not in watts");
    };
    let unitless = Prior::Abstract(curves.iter().map(unitless).collect());
    for prior in [unitless, Prior::Capacities] {
        let (evidence, _) = Evidence::fit(&shape(), &prior, &calibration(3)).unwrap();
        for (ratio, sigma) in against_truth(&model(&evidence, &prior)) {
            assert!((ratio - 1.0).abs() < 0.1, "{prior:?}: {ratio} ± {sigma}");
        }
    }
}

#[test]
fn what_was_never_excited_stays_at_the_prior() {
    let belief = evidence(&calibration(1))
        .belief(&shape(), &prior())
        .unwrap();
    let len = belief.names.len();
    let mut untouched = 0;
    for (i, name) in belief.names.iter().enumerate() {
        let cell = i * (len + 1);
        let left = belief.covariance[cell] / belief.prior_covariance[cell];
        if name.contains("wake") || ["base.cores", "base.system"].contains(&name.as_str()) {
            untouched += 1;
            // Costs scale together: knowing the machine's scale takes a little doubt away.
            assert!(left > 0.8, "{name}: {left}");
        }
        if name.contains("busy") {
            assert!(left < 0.1, "{name}: {left}");
        }
    }
    assert_eq!(untouched, 8);
}

#[test]
fn rows_that_something_else_disturbed_hardly_count() {
    let mut observations = calibration(4);
    for index in [9, 23] {
        let energy = observations[index].meters.package.as_mut().unwrap();
        energy.amount = Microjoules::new(energy.amount.get() * 4);
    }
    for (ratio, _) in against_truth(&model(&evidence(&observations), &prior())) {
        assert!((ratio - 1.0).abs() < 0.15, "{ratio}");
    }
}

#[test]
fn without_a_meter_nothing_is_fitted() {
    let mut observations = calibration(1);
    for observation in &mut observations {
        observation.meters = Meters::default();
    }
    assert!(Evidence::fit(&shape(), &prior(), &observations).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn adding_up_does_not_depend_on_the_order(seed in 0u64..1000, cut in 1usize..3) {
        let runs: Vec<Evidence> = (0..3).map(|i| evidence(&calibration(seed + i))).collect();
        let all: Vec<&Evidence> = runs.iter().collect();
        let mut turned = all.clone();
        turned.rotate_left(cut);
        let mut swapped = all.clone();
        swapped.swap(0, cut);
        let sum = Evidence::merged(&all);
        prop_assert_eq!(&sum, &Evidence::merged(&turned));
        prop_assert_eq!(&sum, &Evidence::merged(&swapped));
    }

    #[test]
    fn adding_what_nobody_measured_changes_nothing(seed in 0u64..1000) {
        let one = evidence(&calibration(seed));
        let sum = Evidence::merged(&[&Evidence::none(&shape()), &one]).unwrap();
        prop_assert_eq!((&sum.sums, sum.rows, sum.runs), (&one.sums, one.rows, one.runs));
        prop_assert!((sum.noise - one.noise).abs() < 1e-12 && (sum.scale - one.scale).abs() < 1e-12);
    }

    #[test]
    fn two_halves_added_up_say_about_what_all_of_it_says(seed in 0u64..1000) {
        let observations = [calibration(seed), calibration(seed + 5000)].concat();
        let (even, odd): (Vec<_>, Vec<_>) = observations.iter().cloned().enumerate()
            .partition(|(index, _)| index % 2 == 0);
        let half = |half: Vec<(usize, Observation)>| {
            evidence(&half.into_iter().map(|(_, observation)| observation).collect::<Vec<_>>())
        };
        let sum = Evidence::merged(&[&half(even), &half(odd)]).unwrap();
        let (sum, all) = (model(&sum, &prior()), model(&evidence(&observations), &prior()));
        for ((sum, _), (all, sigma)) in against_truth(&sum).into_iter().zip(against_truth(&all)) {
            // over all of these seeds 1.84 at most
            prop_assert!((sum - all).abs() < 2.0 * sigma.max(0.01), "{sum} {all} {sigma}");
        }
    }

    #[test]
    fn no_edit_of_a_file_yields_a_model_of_no_numbers(
        place in 0usize..1_000_000, edit in "[0-9a-z=\\[\\]{}., \"#\n-]{0,6}", length in 0usize..12,
    ) {
        let mut text = saved().to_text();
        let floor = |text: &str, mut at: usize| {
            while !text.is_char_boundary(at) { at -= 1; }
            at
        };
        let from = floor(&text, place % text.len());
        let to = floor(&text, (from + length).min(text.len())).max(from);
        text.replace_range(from..to, &edit);
        if let Ok(saved) = Saved::parse(&text) {
            let belief = saved.belief().unwrap();
            prop_assert!(belief.mean.iter().chain(&belief.covariance).all(|value| value.is_finite()));
        }
    }
}

#[test]
fn what_is_written_is_read_again() {
    let saved = saved();
    let text = saved.to_text();
    assert_eq!(Saved::parse(&text).unwrap(), saved);
    assert_eq!(Saved::parse(&text).unwrap().to_text(), text);
    let nothing = Saved {
        evidence: Evidence::none(&shape()),
        prior: Prior::Capacities,
        ..saved
    };
    assert_eq!(Saved::parse(&nothing.to_text()).unwrap(), nothing);
}

#[test]
fn no_beginning_of_a_file_is_taken_for_the_whole() {
    let text = saved().to_text();
    let whole = text.trim_end().len();
    for end in (0..whole).step_by(13).chain(whole - 40..whole) {
        if let Some(part) = text.get(..end) {
            assert!(
                Saved::parse(part).is_err(),
                "the first {end} of {whole} bytes"
            );
        }
    }
}

/// `scx_joule` with arguments; a state directory with nothing in it.
fn run(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scx_joule"))
        .args(arguments)
        .current_dir(directory)
        .env("STATE_DIRECTORY", directory)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line that a refusal consists of.
fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn a_file_that_is_not_right_is_refused_with_one_line_that_says_what_would_be() {
    let good = saved().to_text();
    let swap = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    let row = good
        .lines()
        .find(|line| line.ends_with("# class0.busy.800000"))
        .unwrap();
    let last = row
        .rsplit([',', '['])
        .nth(1)
        .unwrap()
        .trim()
        .trim_end_matches(']');
    let cell = |value: &str| swap(row, &row.replace(last, value));
    let cases = [
        (
            swap("version = 1", "version = 2"),
            "version is 2, expected at most 1: a newer scx_joule",
        ),
        (
            swap("version = 1\n", ""),
            "version is missing, expected version = 1",
        ),
        (good[..good.len() / 2].to_owned(), "model.toml:"),
        (String::new(), "version is missing"),
        ("\u{0}\u{1}".to_owned(), "model.toml:1:"),
        (
            swap("domains = 1", "domains = 9"),
            "class 0 domains is 9, expected 1..=4",
        ),
        (swap("domains = 1", "domains = one"), "'domains = one'"),
        (swap("count = 4", "count = 70000"), "'count = 70000'"),
        (
            swap("capacity = 100", "capacity = 1025"),
            "class 0 opp 0 capacity is 1025, expected 1 to 1024",
        ),
        (
            swap("khz = 800000", "khz = 300000"),
            "class 0 opp 1 kHz is 300000, expected more than 400000",
        ),
        (
            swap("smt = false", "smt = false\nspeed = 3"),
            "unknown field `speed`",
        ),
        (
            swap("prior = 15400", "prior = 0"),
            "prior power of class 0 is 0, expected above 0",
        ),
        (
            swap(", prior = 15400", ""),
            "class 0 opp 0 prior is missing",
        ),
        (
            swap("scale = 1e0", "scale = 3e0"),
            "prior.scale is 3, expected 1",
        ),
        (
            swap("\"package\"", "\"sun\""),
            "evidence.meter is 'sun', expected package, cores or system",
        ),
        (
            swap("noise = ", "noise = 9 #"),
            "noise is 9, expected 0 to 1",
        ),
        (
            swap("cores = [\"arm 41:d05\", ", "cores = ["),
            "number of machine.cores is 1, expected one per class, 2",
        ),
        (
            cell("nan"),
            "sum of class0.busy.800000 and class0.busy.800000 is NaN, expected a finite number",
        ),
        (cell("inf"), "is inf, expected a finite number"),
        (cell("-3"), "is -3, expected at least 0"),
        (cell("0.5"), "which the two's own sums allow"),
        (swap(row, ""), "number of rows of the sums is"),
        (
            swap(row, &row.replace("[", "[0, ")),
            "number of sums of class0.busy.800000 is",
        ),
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.toml");
    for (text, expected) in cases {
        fs::write(&path, &text).unwrap();
        let said = refusal(&run(directory.path(), &["model", "show"]));
        assert!(
            said.contains("/model.toml") && said.contains(expected),
            "{said} lacks '{expected}'"
        );
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text,
            "the file is left as it is"
        );
    }
    fs::write(&path, [0xff, 0xfe]).unwrap();
    let said = refusal(&run(directory.path(), &["model", "show"]));
    assert!(
        said.contains("expected the text of a saved model"),
        "{said}"
    );
    let said = refusal(&run(directory.path(), &["model", "show", "none.toml"]));
    assert!(said.contains("none.toml: no such file"), "{said}");
}

#[test]
fn a_model_is_shown_with_error_bars_beside_the_kernels_and_drawn() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("model.toml"), saved().to_text()).unwrap();
    let text = stdout(&run(
        directory.path(),
        &["model", "show", "--svg", "out.svg"],
    ));
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with("800 "))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let [mw, bar]: [f64; 2] = [2, 3].map(|index| words[index].parse().unwrap());
    // 14 + 4 mW in truth; the kernel said 0.87 × 14.
    assert!(
        (mw / 18.0 - 1.0).abs() < 0.1 && (0.0..2.0).contains(&bar),
        "{line}"
    );
    assert_eq!(words[5..], ["measured", "12.2"], "{line}");
    assert!(
        text.contains("assumed, not measured: base.cores, base.system"),
        "{text}"
    );
    let svg = fs::read_to_string(directory.path().join("out.svg")).unwrap();
    for word in [
        "<svg",
        "class 0, CPUs 0-3 (arm 41:d05)",
        "class 1, CPUs 4-5",
        "kernel",
        "fitted",
    ] {
        assert!(svg.contains(word), "no '{word}' in the picture");
    }
}

#[test]
fn an_export_reads_as_the_kernels_energy_model() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("model.toml"), saved().to_text()).unwrap();
    let csv = stdout(&run(directory.path(), &["model", "export"]));
    let mut lines = csv.lines();
    assert_eq!(
        lines.next().unwrap(),
        "domain,cpus,frequency_khz,performance,power_uw,cost"
    );
    let first: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(first[..4], ["0", "\"0-3\"", "400000", "100"]);
    let [power, cost]: [u64; 2] = [4, 5].map(|index| first[index].parse().unwrap());
    assert_eq!(cost, power * 10 / 100);
    assert_eq!(lines.count(), 9);
    let tree = "root/sys/kernel/debug/energy_model";
    stdout(&run(directory.path(), &["model", "export", "--tree", tree]));
    let domains = kernel_em::domains(&SysRoot::at(directory.path().join("root"))).unwrap();
    let cpus: Vec<_> = domains.iter().map(|domain| domain.cpus.clone()).collect();
    assert_eq!(cpus, [vec![0, 1, 2, 3], vec![4, 5]]);
    let level = &domains[0].levels[0];
    assert_eq!(
        (level.power, level.cost),
        (Power::Real(Microwatts::new(power)), cost)
    );
    assert_eq!(level.inefficient, Some(true), "800 MHz costs less");
}

#[test]
fn models_of_one_kind_add_up_and_others_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, saved: &Saved| {
        fs::write(directory.path().join(name), saved.to_text()).unwrap();
    };
    write("one.toml", &saved());
    let other = Saved {
        evidence: evidence(&calibration(2)),
        ..saved()
    };
    write("two.toml", &other);
    let merge = |files: [&str; 2]| {
        run(
            directory.path(),
            &["model", "merge", files[0], files[1], "--output", "sum.toml"],
        )
    };
    let said = stdout(&merge(["one.toml", "two.toml"]));
    assert_eq!(said, "sum.toml: 72 measurements of 2 calibrations\n");
    let sum = fs::read_to_string(directory.path().join("sum.toml")).unwrap();
    let bar = |text: &str| {
        Saved::parse(text).unwrap().model().unwrap().curve(0)[0]
            .1
            .sigma_uw
    };
    assert!(bar(&sum) < 0.85 * bar(&saved().to_text()));
    stdout(&merge(["two.toml", "one.toml"]));
    assert_eq!(
        fs::read_to_string(directory.path().join("sum.toml")).unwrap(),
        sum
    );

    let text = stdout(&run(
        directory.path(),
        &["model", "compare", "one.toml", "one.toml"],
    ));
    assert!(text.contains("0 of 10 frequencies differ"), "{text}");
    let mut dearer = saved();
    let doubled = calibration(1).into_iter().map(|mut observation| {
        let energy = observation.meters.package.as_mut().unwrap();
        energy.amount = Microjoules::new(energy.amount.get() * 2);
        observation
    });
    dearer.evidence = evidence(&doubled.collect::<Vec<_>>());
    write("dearer.toml", &dearer);
    let text = stdout(&run(
        directory.path(),
        &["model", "compare", "one.toml", "dearer.toml"],
    ));
    assert!(text.contains("10 of 10 frequencies differ"), "{text}");

    let mut alien = saved();
    alien.machine.board = vec!["Another".into()];
    write("alien.toml", &alien);
    let mut platform = saved();
    platform.meter = Meter::System;
    write("system.toml", &platform);
    for (file, expected) in [
        (
            "alien.toml",
            "machine.board is 'Another', expected 'Maker of \"boards\", Board 7' as in the first file",
        ),
        (
            "system.toml",
            "evidence.meter is 'system', expected 'package' as in the first file",
        ),
    ] {
        let said = refusal(&merge(["one.toml", file]));
        assert!(said.contains(file) && said.contains(expected), "{said}");
        assert_eq!(
            fs::read_to_string(directory.path().join("sum.toml")).unwrap(),
            sum
        );
    }
}

#[test]
fn where_siblings_are_counted_what_was_measured_without_them_stays_and_says_nothing_of_them() {
    let saved = saved();
    let mut shape = saved.shape.clone();
    shape.classes[0].smt = true;
    assert!(saved.fits(&saved.machine, &shape).is_err());
    let beside = saved.clone().beside_siblings(&shape);
    assert_eq!(beside.fits(&saved.machine, &shape), Ok(()));
    let (before, after) = (saved.model().unwrap(), beside.model().unwrap());
    for class in 0..2 {
        for ((_, before), (_, after)) in before.curve(class).iter().zip(after.curve(class)) {
            assert!((after.uw / before.uw - 1.0).abs() < 1e-6);
        }
    }
    let belief = after.belief().unwrap();
    let names = &belief.names;
    let sibling = names.iter().position(|name| name == "class0.sibling");
    let sibling = sibling.unwrap();
    let variance = |covariance: &[f64]| covariance[sibling * (names.len() + 1)];
    let left = variance(&belief.covariance) / variance(&belief.prior_covariance);
    assert!((0.5..=1.001).contains(&left), "{left}");
    assert_eq!(saved.clone().beside_siblings(&saved.shape), saved);
}

#[test]
fn a_model_belongs_to_machines_like_the_one_it_was_measured_on() {
    let saved = saved();
    assert_eq!(saved.fits(&saved.machine, &saved.shape), Ok(()));
    let refused =
        |machine: &Machine, shape: &Shape| saved.fits(machine, shape).unwrap_err().to_string();
    let mut machine = saved.machine.clone();
    machine.cores[1] = "atom".into();
    let said = refused(&machine, &saved.shape);
    assert!(
        said.ends_with("expected 'arm 41:d05, atom' as on this machine"),
        "{said}"
    );
    let mut shape = saved.shape.clone();
    shape.classes[1].opps[2].khz = KHz::new(1_200_001);
    let said = refused(&saved.machine, &shape);
    assert!(
        said.starts_with("class 1 opp 2 is 1200000 kHz, capacity"),
        "{said}"
    );
    shape.classes.pop();
    assert!(refused(&saved.machine, &shape).starts_with("number of classes is 2, expected 1"));
    assert_eq!(
        parameters(&saved.shape).len() + 1,
        saved.evidence.sums.len()
    );
}
