//! How well the model learns a machine, next to two baselines and to what could be reached at all.
//!
//! `make bench-model`, or `cargo run --release --example bench_model -- [OPTIONS] [FOLDER]`. FOLDER holds machine
//! files, tables of measured power ([`soc`] has the format); without it, those of `$JOULE_SHARED/hardware/soc`
//! or else the project's own. Prints a table and writes `target/joule/model.json`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a simulation of our own making: what is not there is a bug of the bench, and ends it"
)]

mod baselines;
#[allow(dead_code, reason = "tests/model_replay uses all of it")]
#[path = "../../tests/model_replay/design.rs"]
mod design;
mod figures;
#[allow(dead_code, reason = "tests/model_replay uses all of it")]
#[path = "../../tests/model_replay/machine.rs"]
mod machine;
#[allow(dead_code, reason = "tests/model_replay uses all of it")]
#[path = "../../tests/model_replay/score.rs"]
mod score;
#[allow(dead_code, reason = "tests/model_replay uses all of it")]
#[path = "../../tests/model_replay/soc.rs"]
mod soc;
mod trials;

use baselines::{Rls, SmartWatts};
use clap::Parser;
use design::{Design, Floor, Truth, prior_covariance};
use figures::{Figures, print};
use machine::Machine;
use score::{Exam, Subject, kernel_em};
use scx_joule::model::{Model, Prior};
use soc::{own_tables, shared_tables, tables_in};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use trials::{SECOND, Step};

/// Measures how well the energy model learns synthetic machines made from measured tables.
#[derive(Parser)]
struct Options {
    /// Folder of machine files: measured-*.toml, or *.toml where there are none.
    folder: Option<PathBuf>,
    /// Machines drawn from each file.
    #[arg(long, default_value_t = 8)]
    seeds: u64,
    /// Seed of the first.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Days without change; 0 leaves them out.
    #[arg(long, default_value_t = 7)]
    days: usize,
    /// Leave out changes and bursts, too.
    #[arg(long)]
    quick: bool,
    /// File to write the figures to.
    #[arg(long, default_value = "target/joule/model.json")]
    output: PathBuf,
}

/// Whom to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    /// The model, with a kernel Energy Model as one finds it.
    Ours,
    /// The model, from capacities alone.
    OursBlind,
    SmartWatts,
    Rls,
    /// The best that could be made of the same rows.
    Floor,
    /// The true parameters: what tasks of unknown activity and other loads leave.
    Truth,
}

const LEARNERS: [Who; 4] = [Who::Ours, Who::OursBlind, Who::SmartWatts, Who::Rls];
const ALL: [Who; 6] = [
    Who::Ours,
    Who::OursBlind,
    Who::SmartWatts,
    Who::Rls,
    Who::Floor,
    Who::Truth,
];

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursBlind => "ours_capacities",
            Self::SmartWatts => "smartwatts",
            Self::Rls => "rls",
            Self::Floor => "floor",
            Self::Truth => "irreducible",
        }
    }

    fn learner(self, machine: &Machine, seed: u64) -> Box<dyn Subject> {
        let shape = machine.shape();
        match self {
            Self::SmartWatts => Box::new(SmartWatts::new(shape)),
            Self::Rls => Box::new(Rls::new(shape)),
            Self::OursBlind => Box::new(Model::new(shape, &Prior::Capacities).unwrap()),
            _ => Box::new(Model::new(shape, &kernel_em(machine, seed)).unwrap()),
        }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench_model: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let folder = options.folder.clone().or_else(shared_tables);
    let files = tables_in(&folder.unwrap_or_else(own_tables))?;
    let mut figures = blank();
    // A thread per file: machines do not know of each other.
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (files.iter())
            .map(|file| scope.spawn(move || measure(file, options)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    for measured in all {
        for (sum, figures) in figures.iter_mut().zip(measured?) {
            sum.append(figures);
        }
    }
    let phone = trials::phone(1);
    for (who, figures) in LEARNERS.into_iter().zip(&mut figures) {
        figures.update_us = Some(trials::update_us(&mut *who.learner(&phone, 1), &phone));
    }
    if options.days > 0 {
        let machine = Machine::load(files.first().unwrap(), 1)?;
        // SmartWatts' form remembers a minute: it has no week to drift in.
        let kept = |who: &&Who| **who != Who::SmartWatts;
        let learners = LEARNERS.iter().filter(kept);
        let mut subjects: Vec<_> = learners.map(|who| who.learner(&machine, 1)).collect();
        let drift = trials::week(&mut subjects, &machine, options.days);
        let all = LEARNERS.iter().zip(&mut figures);
        for ((_, figures), drift) in all.filter(|(who, _)| kept(who)).zip(drift) {
            figures.week_drift = Some(drift);
        }
    }
    let named: Vec<_> = ALL.iter().map(|who| who.name()).zip(&figures).collect();
    print(&named);
    write(&options.output, &figures::json(&named))
}

fn blank() -> Vec<Figures> {
    ALL.iter().map(|_| Figures::default()).collect()
}

/// All machines drawn from one file.
fn measure(file: &Path, options: &Options) -> Result<Vec<Figures>, String> {
    let mut figures = blank();
    for seed in options.first_seed..options.first_seed + options.seeds {
        let machine = Machine::load(file, seed)?;
        examine(&machine, seed, &mut figures);
        if !options.quick {
            change(&machine, seed, &mut figures);
        }
        eprintln!("{}: seed {seed} done", file.display());
    }
    Ok(figures)
}

/// Which scores an exam adds to.
type Pick = fn(&mut Figures) -> &mut Vec<score::Score>;

/// Exams after a minute and after ten of mixed use.
fn examine(machine: &Machine, seed: u64, figures: &mut [Figures]) {
    let mut trained = machine.clone();
    let mut design = Design::new(machine);
    let mut subjects: Vec<_> = LEARNERS
        .iter()
        .map(|who| who.learner(machine, seed))
        .collect();
    let fresh = Model::new(machine.shape(), &kernel_em(machine, seed)).unwrap();
    let prior = prior_covariance(&fresh.belief().unwrap(), &design.columns);
    for (minutes, pick) in [(1, Figures::minute as Pick), (9, Figures::later)] {
        for _ in 0..minutes * 60 * SECOND {
            let (observation, watts) = trained.step();
            design.add(&observation, watts);
            let learners = subjects.iter_mut();
            learners.for_each(|subject| subject.learn(&observation));
        }
        let exam = Exam::new(&trained, &design, &prior, seed);
        let mut floor = Floor::new(&trained, &design, &prior, seed);
        let mut truth = Truth::new(&trained);
        let floors: [&mut dyn Subject; 2] = [&mut floor, &mut truth];
        let learners = subjects.iter_mut().map(|subject| &mut **subject);
        for (subject, figures) in learners.chain(floors).zip(&mut *figures) {
            pick(figures).push(exam.score(subject));
        }
    }
}

fn change(machine: &Machine, seed: u64, figures: &mut [Figures]) {
    for (who, figures) in LEARNERS.into_iter().zip(figures) {
        for step in [Step::Leakage, Step::Doubled] {
            let mut subject = who.learner(machine, seed);
            figures
                .recover_s
                .push(trials::recovery(&mut *subject, machine, step));
        }
        let mut subject = who.learner(machine, seed);
        figures
            .burst
            .push(trials::burst(&mut *subject, machine, seed));
    }
}

fn write(path: &Path, value: &serde_json::Value) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(wrong)?;
    }
    std::fs::write(path, format!("{value:#}\n")).map_err(wrong)?;
    println!("written to {}", path.display());
    Ok(())
}
