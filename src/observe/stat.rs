//! `scx_joule stat`: power, clocks, idle states, interrupts, heat and what the scheduler does, per system,
//! package, cluster and CPU, at intervals or over a command.
//!
//! What the machine or this process's privileges do not give is `-` in a cell, a column that can have no figure
//! is left out, and the reason is told once.

mod child;
pub mod columns;
mod energy;
mod print;
mod scheduler;
mod selection;
mod view;

use crate::cli::stat::{Format, StatArgs};
use crate::energy::activity::{self, Feed, Interval, Places, Watch};
use crate::energy::{Clock, Moment};
use crate::error::Error;
use crate::sysroot::SysRoot;
use crate::topology::Topology;
use crate::units::Nanos;
use anyhow::{Context, Result};
use child::Child;
use columns::{Read, Source, columns};
use crossbeam_channel::{Receiver, never, select, tick, unbounded};
use energy::{Meter, Meters};
use num_traits::ToPrimitive;
use print::{Printer, Table};
use scheduler::Scheduler;
use selection::{Head, Selection};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use view::{Place, Row, RowKind, View};

/// Time between two tables where none is given: turbostat's.
const INTERVAL: Duration = Duration::from_secs(5);
/// Meters are read at least this often, so that one that stands still is told from one at rest.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Shows what the arguments ask for.
///
/// # Errors
/// When the machine's topology cannot be read or the output cannot be written.
pub fn run(sys: &SysRoot, args: &StatArgs) -> Result<ExitCode> {
    let states = activity::idle_states(sys);
    if args.list {
        return list(&states);
    }
    let selection = match Selection::new(args, &states) {
        Ok(selection) => selection,
        Err(error) => return Ok(refused(&error)),
    };
    let topology = Topology::read(sys).context("reading the topology")?;
    let rows = match selection.rows(view::rows(&topology), &topology) {
        Ok(rows) => rows,
        Err(error) => return Ok(refused(&error)),
    };
    raise_file_limit();
    let out: Box<dyn Write> = match &args.out {
        Some(path) => {
            let file = std::fs::File::create(path);
            Box::new(file.with_context(|| path.display().to_string())?)
        }
        // The command's own output must not be mixed with ours.
        None if !args.command.is_empty() => Box::new(std::io::stderr()),
        None => Box::new(std::io::stdout()),
    };
    let observer = Observer::new(sys, &topology, selection, rows, args.quiet);
    let printer = Printer::new(out, args.format.unwrap_or(Format::Text));
    let outcome = match args.command.as_slice() {
        [] => at_intervals(observer, printer, args).map(|()| ExitCode::SUCCESS),
        command => over(command, observer, printer),
    };
    match outcome {
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        outcome => outcome,
    }
}

/// What main says of a wrong command line.
fn refused(error: &Error) -> ExitCode {
    eprintln!("scx_joule: {error}");
    ExitCode::from(2)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

/// Every counter of every CPU is an open file.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where that is refused, opening names the file that was one too many.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Prints the names that `--show` and `--hide` take.
fn list(states: &[String]) -> Result<ExitCode> {
    let names = selection::names(&selection::heads(columns(), states));
    match writeln!(std::io::stdout(), "{names}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// A table at every interval until a signal comes or as many as wanted were printed.
fn at_intervals(
    mut observer: Observer,
    mut printer: Printer<Box<dyn Write>>,
    args: &StatArgs,
) -> Result<()> {
    let interval = args.interval.map_or(INTERVAL, Duration::from_secs_f64);
    let signals = signals()?;
    let ticks = tick(interval);
    let looks = observer.looks(interval);
    let mut left = args.num_iterations;
    observer.look();
    observer.begin();
    while left != Some(0) {
        select! {
            recv(signals) -> _ => return Ok(()),
            recv(looks) -> _ => observer.look(),
            recv(ticks) -> _ => {
                if let Some(table) = observer.table() {
                    printer.print(&table)?;
                    left = left.map(|left| left - 1);
                }
            }
        }
    }
    Ok(())
}

/// One table over a command.
fn over(
    command: &[String],
    mut observer: Observer,
    mut printer: Printer<Box<dyn Write>>,
) -> Result<ExitCode> {
    let signals = signals()?;
    let looks = observer.looks(LONGEST_PAUSE * 2);
    observer.look();
    observer.begin();
    let child = match Child::start(command) {
        Ok(child) => child,
        Err((code, why)) => {
            eprintln!("scx_joule: {why}");
            return Ok(ExitCode::from(code));
        }
    };
    let status = loop {
        select! {
            recv(child.ended()) -> ended => break ended.context("waiting for the command")??,
            recv(signals) -> signal => child.signal(signal.unwrap_or(SIGTERM)),
            recv(looks) -> _ => observer.look(),
        }
    };
    if let Some(table) = observer.table() {
        printer.print(&table)?;
    }
    Ok(ExitCode::from(child::code(status)))
}

fn signals() -> Result<Receiver<i32>> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP])
        .context("handling signals")?;
    let (sender, receiver) = unbounded();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if sender.send(signal).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Everything that is looked at.
struct Observer {
    sys: SysRoot,
    selection: Selection,
    rows: Vec<Row>,
    places: BTreeMap<usize, Place>,
    watch: Watch,
    meters: Meters,
    scheduler: Option<Scheduler>,
    clock: Clock,
    /// When the interval began, and whether the machine slept since.
    began: Nanos,
    slept: bool,
    /// The columns to print; chosen when the first interval shows what there is.
    heads: Option<Vec<Head>>,
    quiet: bool,
}

impl Observer {
    fn new(
        sys: &SysRoot,
        topology: &Topology,
        selection: Selection,
        rows: Vec<Row>,
        quiet: bool,
    ) -> Self {
        let sources: Vec<Source> = selection
            .heads()
            .iter()
            .map(|head| head.column.source)
            .collect();
        let feeds = sources.iter().filter_map(|source| match source {
            Source::Activity(feed, _) => Some(*feed),
            _ => None,
        });
        let mut feeds: BTreeSet<Feed> = feeds.collect();
        if feeds.contains(&Feed::CoreIdle) || feeds.contains(&Feed::PackageIdle) {
            feeds.insert(Feed::Clock); // residencies count in its ticks
        }
        let places = view::places(sys, topology);
        let metered = sources.iter().any(|it| matches!(it, Source::Meter(_)));
        let scheduled = sources.contains(&Source::Scheduler) && sys.is_host();
        Self {
            sys: sys.clone(),
            watch: Watch::open(sys, &feeds, cores(&places)),
            meters: if metered {
                Meters::open(sys)
            } else {
                Meters::none()
            },
            scheduler: scheduled.then(Scheduler::default),
            selection,
            rows,
            places,
            clock: Clock::new(),
            began: Nanos::new(0),
            slept: false,
            heads: None,
            quiet,
        }
    }

    /// Ticks at which meters must be read although no interval ends.
    fn looks(&self, interval: Duration) -> Receiver<std::time::Instant> {
        let safe = self.meters.longest_pause();
        let safe = safe.map_or(LONGEST_PAUSE, |safe| Duration::from_nanos(safe.get()) / 2);
        let pause = safe.clamp(Duration::from_millis(50), LONGEST_PAUSE);
        if interval > pause {
            tick(pause)
        } else {
            never()
        }
    }

    /// Reads the meters.
    fn look(&mut self) {
        self.now();
    }

    fn now(&mut self) -> Moment {
        let now = self.clock.moment();
        self.slept |= now.resumed;
        self.meters.look(now);
        now
    }

    /// Begins an interval.
    fn begin(&mut self) {
        self.began = self.now().at;
        self.meters.take(Nanos::new(0));
        self.watch.look(self.began, true);
        if let Some(scheduler) = &mut self.scheduler {
            scheduler.look();
        }
        self.slept = false;
    }

    /// Ends the interval and begins the next; `None` when it has no length, or the machine slept in it.
    fn table(&mut self) -> Option<Table> {
        let now = self.now();
        let elapsed = now.at.checked_sub(self.began)?;
        let energy = self.meters.take(elapsed);
        let interval = self.watch.look(now.at, self.slept);
        let scheduler = self.scheduler.as_mut().and_then(Scheduler::look);
        self.began = now.at;
        if std::mem::take(&mut self.slept) {
            self.tell("the machine slept: this interval is left out");
        }
        let interval = interval?;
        self.follow(&interval);
        let time_of_day = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let view = View {
            interval: &interval,
            energy: &energy,
            scheduler: scheduler.as_ref(),
            places: &self.places,
            time_of_day: time_of_day.as_secs_f64(),
        };
        let heads = match self.heads.take() {
            Some(heads) => heads,
            None => self.choose(&view),
        };
        let kind = |row: &Row| match row.kind {
            RowKind::System => "system",
            RowKind::Package(_) => "package",
            RowKind::Cluster(_) => "cluster",
            RowKind::Cpu(_) => "cpu",
        };
        let cells = |row: &Row| heads.iter().map(|head| head.cell(&view, row)).collect();
        let table = Table {
            heads: heads.iter().map(|head| head.name.clone()).collect(),
            rows: self
                .rows
                .iter()
                .map(|row| (kind(row), cells(row)))
                .collect(),
            seconds: elapsed.get().to_f64().unwrap_or(f64::NAN) / 1e9,
            time_of_day: view.time_of_day,
        };
        self.heads = Some(heads);
        Some(table)
    }

    /// Describes the machine afresh when other CPUs are online than the rows are about. Where that fails, the rows of
    /// CPUs that have gone stay, and have no figures.
    fn follow(&mut self, interval: &Interval) {
        let known = self.rows.first().map(|row| row.cpus.iter());
        if known.is_some_and(|known| known.eq(interval.cpus.keys())) {
            return;
        }
        let Ok(topology) = Topology::read(&self.sys) else {
            return;
        };
        if let Ok(rows) = self.selection.rows(view::rows(&topology), &topology) {
            self.rows = rows;
            self.places = view::places(&self.sys, &topology);
            self.watch.move_to(cores(&self.places));
        }
    }

    /// The columns that can have figures, or were asked for by name; the others are told, each reason once.
    fn choose(&self, view: &View) -> Vec<Head> {
        let missing = self.watch.missing();
        let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut heads = Vec::new();
        for head in self.selection.heads().iter().cloned() {
            let known = |row: &Row| head.cell(view, row) != view::Value::Unknown;
            let absent = match head.column.source {
                Source::Place | Source::Time => None,
                Source::Activity(feed, event) if feed.is_perf() => {
                    let lacks = !self.watch.counts(feed, event);
                    lacks.then(|| match missing.get(&feed) {
                        Some(why) => why.clone(),
                        None => format!("{feed} has no event '{event}' here"),
                    })
                }
                _ if self.rows.iter().any(known) => None,
                Source::Activity(feed, _) => Some(match missing.get(&feed) {
                    Some(why) => why.clone(),
                    None => format!("{feed} does not tell it"),
                }),
                Source::Meter(meter) => Some(self.no_meter(meter)),
                Source::Scheduler => Some(match &self.scheduler {
                    Some(scheduler) if scheduler.seen() => {
                        "the scheduler has not told it yet".to_owned()
                    }
                    _ => "scx_joule does not run, or its statistics may not be read".to_owned(),
                }),
            };
            let named = self.selection.names(&head);
            if let Some(why) = &absent {
                let columns = reasons.entry(why.clone()).or_default();
                columns.push(head.name.clone());
            }
            if absent.is_none() || named {
                heads.push(head);
            }
        }
        for (why, columns) in reasons {
            self.tell(&format!("no {}: {why}", columns.join(", ")));
        }
        heads
    }

    fn no_meter(&self, meter: Meter) -> String {
        match (self.meters.tells(meter), self.meters.missing().first()) {
            (true, _) => "its meter gave no sound reading in the first interval".to_owned(),
            (false, Some(why)) => why.clone(),
            (false, None) => "no meter of this machine tells it".to_owned(),
        }
    }

    fn tell(&self, what: &str) {
        if !self.quiet {
            eprintln!("scx_joule stat: {what}");
        }
    }
}

/// Package and core of each CPU that has both.
fn cores(places: &BTreeMap<usize, Place>) -> Places {
    let place = |(cpu, place): (&usize, &Place)| Some((*cpu, place.package.zip(place.core)?));
    places.iter().filter_map(place).collect()
}

impl Head {
    fn cell(&self, view: &View, row: &Row) -> view::Value {
        match self.column.read {
            Read::One(read) => read(view, row),
            Read::EachState(read) => read(view, row, self.state.as_deref().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests;
