//! Runs a workload: creates every thread, starts them at one instant, collects their records.
//!
//! The main thread and the workers talk through channels. A round is: prepare
//! (mailboxes emptied, everyone ready), go (start and end as absolute times),
//! done (records). A warm-up is a round whose records are dropped: the threads
//! stay, and with them what the scheduler has learnt about them.

use crate::clock;
use crate::draws::Draws;
use crate::meter::{Meter, used_uj};
use crate::player::{Part, Player};
use crate::source::Source;
use crate::stats::{MAX_KEPT, Record};
use crate::taskgroup::Taskgroups;
use crate::vsoc::set_policy;
use crate::work::Limits;
use crate::workload::{Event, Kind, Task, Workload};
use crate::world::{Post, RealWorld, Seat, cpu_set, pin};
use anyhow::{Context, Error, Result, anyhow, bail};
use nix::sched::sched_getaffinity;
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

/// From the order to start to the start: every thread is asleep by then.
const LEAD_NS: u64 = 20_000_000;
/// The meter is read this long before the start.
const METER_LEAD_NS: u64 = 1_000_000;
/// While stopping, sleepers are woken this often: a signal just before a sleep begins is lost.
const NUDGE: Duration = Duration::from_millis(10);
/// What Linux keeps of a thread's name, in bytes.
const COMM_LEN: usize = 15;

/// What the user may set.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Instead of the workload's own duration, in ns.
    pub duration_ns: Option<u64>,
    /// Length of the warm-up, in ns; `None` has none.
    pub warmup_ns: Option<u64>,
    /// Selects start offsets and jitter.
    pub seed: u64,
    /// Read before and after.
    pub meter: Option<Meter>,
}

/// What one task achieved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOutcome {
    /// The task's name.
    pub name: String,
    /// How many threads it had.
    pub threads: usize,
    /// Of all its threads together.
    pub record: Record,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The tasks that have threads, in the order of the file.
    pub tasks: Vec<TaskOutcome>,
    /// The common start on `CLOCK_MONOTONIC`, in ns.
    pub start_ns: u64,
    /// From the common start to the end of the last thread, in ns.
    pub wall_ns: u64,
    /// Difference of the meter; `None` without a meter, and when its counter went back.
    pub energy_uj: Option<u64>,
    /// Whether a signal ended the run early.
    pub interrupted: bool,
}

/// Runs a workload.
///
/// # Errors
/// When it would never end, when its cgroups cannot be had or put back, when a thread cannot be created or set up
/// or cannot go on, when the meter fails, and when a signal comes before anything counted.
pub fn run(workload: &Workload, source: &Source, options: &Options) -> Result<Outcome> {
    let duration_ns = options.duration_ns.or(workload.duration_ns);
    if let (None, Some(task)) = (duration_ns, workload.endless()) {
        bail!(
            "task '{}' never ends and no duration is given: use --duration or global.duration",
            task.name
        );
    }
    raise_file_limit();
    let stop = AtomicBool::new(false);
    let (news, inbox) = channel();
    let inherited = sched_getaffinity(Pid::from_raw(0))?;
    let (workers, mailboxes, post) = workers(workload)?;
    let post = Arc::new(post);
    let signals = forward_signals(news.clone())?;
    let groups = Taskgroups::set_up(&workload.taskgroups).inspect_err(|_| signals.close())?;
    let room = MAX_KEPT / workers.len().max(1);
    let outcome = thread::scope(|scope| {
        let mut crew = Crew {
            members: Vec::with_capacity(workers.len()),
            inbox,
            stop: &stop,
        };
        for ((index, worker), mailbox) in workers.iter().enumerate().zip(mailboxes) {
            let (orders, received) = channel();
            let desk = Desk {
                index,
                worker,
                groups: &groups,
                seed: options.seed,
                room,
                stop: &stop,
                news: news.clone(),
            };
            let seat = Seat {
                work: source.work(),
                mailbox,
                post: Arc::clone(&post),
                cpus: inherited,
            };
            match thread::Builder::new()
                .name(worker.name.clone())
                .spawn_scoped(scope, move || desk.serve(seat, &received))
            {
                Ok(handle) => crew.members.push(Member {
                    orders,
                    pthread: None,
                    handle,
                }),
                Err(error) => {
                    crew.dismiss();
                    return Err(Error::new(error)
                        .context(format!("cannot create thread {index} '{}'", worker.name)));
                }
            }
        }
        let outcome = play_rounds(&mut crew, &workers, duration_ns, options);
        // The scope waits for every thread: let none go on after an error.
        crew.dismiss();
        outcome
    });
    let put_back = groups.put_back();
    signals.close();
    outcome.and_then(|outcome| put_back.map(|()| outcome))
}

fn play_rounds(
    crew: &mut Crew,
    workers: &[Worker],
    duration_ns: Option<u64>,
    options: &Options,
) -> Result<Outcome> {
    if let Some(warmup_ns) = options.warmup_ns {
        crew.prepare()?;
        crew.round(Some(warmup_ns), None)?;
        if crew.interrupted() {
            bail!("interrupted during the warm-up: nothing was counted");
        }
    }
    crew.prepare()?;
    let round = crew.round(duration_ns, options.meter.as_ref())?;
    let mut tasks: Vec<TaskOutcome> = Vec::new();
    for (worker, record) in workers.iter().zip(&round.records) {
        match tasks.last_mut() {
            Some(last) if last.name == worker.task.name => {
                last.threads += 1;
                last.record.merge(record);
            }
            _ => tasks.push(TaskOutcome {
                name: worker.task.name.clone(),
                threads: 1,
                record: record.clone(),
            }),
        }
    }
    Ok(Outcome {
        tasks,
        start_ns: round.start_ns,
        wall_ns: round.wall_ns,
        energy_uj: round.energy_uj,
        interrupted: crew.interrupted(),
    })
}

/// What a worker is told.
enum Order {
    Prepare,
    Go { start_ns: u64, end_ns: u64 },
}

/// What the main thread hears.
enum News {
    Ready(usize, Pthread),
    Done(usize, Box<Record>),
    Failed(Error),
    Gone(String),
    Signal,
}

/// One thread's part, known before it exists.
#[derive(Debug, Clone)]
struct Worker<'a> {
    task: &'a Task,
    part: Part<'a>,
    name: String,
}

/// Every thread of a workload, the reading end of each one's mailbox, and the post that connects them.
fn workers(workload: &Workload) -> Result<(Vec<Worker<'_>>, Vec<Option<File>>, Post)> {
    let mut post = Post::default();
    let mut workers = Vec::with_capacity(workload.threads());
    let mut mailboxes = Vec::with_capacity(workload.threads());
    for task in &workload.tasks {
        let first = workers.len();
        let own = post
            .add_task(task.threads(), receives(task))
            .with_context(|| {
                format!(
                    "task '{}': cannot create its pipes (see ulimit -n)",
                    task.name
                )
            })?;
        mailboxes.extend(own);
        for index in 0..task.threads() {
            let part = match &task.kind {
                Kind::Script(script) => Part::Script(script),
                Kind::Ring(ring) => {
                    let member = index % ring.members;
                    let head = first + index - member;
                    let next = head + (member + 1) % ring.members;
                    if member == 0 {
                        Part::Head(ring, next)
                    } else {
                        Part::Member(ring, next)
                    }
                }
            };
            let name = thread_name(&task.name, (task.threads() > 1).then_some(index));
            workers.push(Worker { task, part, name });
        }
    }
    Ok((workers, mailboxes, post))
}

fn receives(task: &Task) -> bool {
    match &task.kind {
        Kind::Script(script) => script
            .phases
            .iter()
            .any(|phase| phase.events.contains(&Event::Suspend)),
        Kind::Ring(_) => true,
    }
}

/// The task's name, with the thread's number where there are several, shortened in front of the number.
fn thread_name(task: &str, index: Option<usize>) -> String {
    let suffix = index.map_or(String::new(), |index| format!("-{index}"));
    let mut kept = task;
    while kept.len() + suffix.len() > COMM_LEN {
        let mut chars = kept.chars();
        chars.next_back();
        kept = chars.as_str();
    }
    format!("{kept}{suffix}")
}

/// A thread as the main thread sees it.
struct Member<'scope> {
    orders: Sender<Order>,
    pthread: Option<Pthread>,
    /// Not joined before the end, so that `pthread` stays valid.
    handle: ScopedJoinHandle<'scope, ()>,
}

/// All threads of a run.
struct Crew<'scope, 'a> {
    members: Vec<Member<'scope>>,
    inbox: Receiver<News>,
    stop: &'a AtomicBool,
}

/// What a round came to.
struct Round {
    /// By thread.
    records: Vec<Record>,
    start_ns: u64,
    wall_ns: u64,
    energy_uj: Option<u64>,
}

impl Crew<'_, '_> {
    /// Waits until every thread is set up and its mailbox empty.
    fn prepare(&mut self) -> Result<()> {
        self.order(|| Order::Prepare);
        for _ in 0..self.members.len() {
            match self.hear()? {
                News::Ready(index, pthread) => {
                    if let Some(member) = self.members.get_mut(index) {
                        member.pthread = Some(pthread);
                    }
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok(())
    }

    /// Lets every thread play once, from one common instant.
    fn round(&mut self, duration_ns: Option<u64>, meter: Option<&Meter>) -> Result<Round> {
        let start_ns = clock::now_ns()?.saturating_add(LEAD_NS);
        let end_ns =
            duration_ns.map_or(u64::MAX, |duration_ns| start_ns.saturating_add(duration_ns));
        self.order(|| Order::Go { start_ns, end_ns });
        let before_uj = match meter {
            Some(meter) => {
                clock::sleep_until(
                    start_ns - METER_LEAD_NS,
                    &Limits {
                        end_ns: u64::MAX,
                        stop: self.stop,
                    },
                )?;
                Some(meter.read_uj()?)
            }
            None => None,
        };
        let mut records = vec![Record::default(); self.members.len()];
        for _ in 0..self.members.len() {
            match self.hear()? {
                News::Done(index, record) => {
                    if let Some(slot) = records.get_mut(index) {
                        *slot = *record;
                    }
                }
                other => return Err(other.unexpected()),
            }
        }
        let after_uj = meter.map(Meter::read_uj).transpose()?;
        let wall_ns = clock::now_ns()?.saturating_sub(start_ns);
        let energy_uj = before_uj
            .zip(after_uj)
            .and_then(|(before, after)| used_uj(before, after));
        Ok(Round {
            records,
            start_ns,
            wall_ns,
            energy_uj,
        })
    }

    fn order(&self, order: impl Fn() -> Order) {
        for member in &self.members {
            // A thread that is gone has said so in the inbox.
            let _ = member.orders.send(order());
        }
    }

    /// The next news from a worker; a signal on the way stops the workers.
    fn hear(&self) -> Result<News> {
        loop {
            let news = if self.interrupted() {
                match self.inbox.recv_timeout(NUDGE) {
                    Err(RecvTimeoutError::Timeout) => {
                        self.nudge();
                        continue;
                    }
                    heard => heard.ok(),
                }
            } else {
                self.inbox.recv().ok()
            };
            match news.ok_or_else(|| anyhow!("every thread is gone"))? {
                News::Signal => {
                    self.stop.store(true, Ordering::Relaxed);
                    self.nudge();
                }
                news => return Ok(news),
            }
        }
    }

    fn interrupted(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Interrupts the sleep of every thread.
    fn nudge(&self) {
        for pthread in self.members.iter().filter_map(|member| member.pthread) {
            // One that has ended needs no waking.
            let _ = pthread_kill(pthread, Signal::SIGUSR1);
        }
    }

    /// Ends every thread, at work or not.
    fn dismiss(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let handles: Vec<_> = self
            .members
            .drain(..)
            .map(|member| (member.pthread, member.handle))
            .collect();
        while handles.iter().any(|(_, handle)| !handle.is_finished()) {
            for pthread in handles.iter().filter_map(|(pthread, _)| *pthread) {
                let _ = pthread_kill(pthread, Signal::SIGUSR1);
            }
            thread::sleep(NUDGE / 10);
        }
    }
}

impl News {
    fn unexpected(self) -> Error {
        match self {
            Self::Failed(error) => error,
            Self::Gone(name) => anyhow!("thread '{name}' ended unexpectedly"),
            Self::Ready(..) | Self::Done(..) | Self::Signal => {
                anyhow!("a thread spoke out of turn")
            }
        }
    }
}

/// Where one thread serves: what it has to do and whom it tells.
struct Desk<'a> {
    index: usize,
    worker: &'a Worker<'a>,
    groups: &'a Taskgroups,
    seed: u64,
    room: usize,
    stop: &'a AtomicBool,
    news: Sender<News>,
}

impl Desk<'_> {
    /// The life of a thread: ends with the orders, or with its first error.
    fn serve(self, mut seat: Seat, orders: &Receiver<Order>) {
        let served = self.set_up(&mut seat).and_then(|()| {
            orders
                .iter()
                .try_for_each(|order| self.obey(&order, &mut seat))
        });
        let last = match served {
            Ok(()) => News::Gone(self.worker.name.clone()),
            Err(error) => News::Failed(error.context(format!("task '{}'", self.worker.task.name))),
        };
        // Nobody listens any more when the run itself is over.
        let _ = self.news.send(last);
    }

    fn set_up(&self, seat: &mut Seat) -> Result<()> {
        let task = self.worker.task;
        if let Some(group) = &task.taskgroup {
            self.groups.join(group)?;
        }
        if let Some(cpus) = &task.cpus {
            seat.cpus = cpu_set(cpus).with_context(|| format!("cpus {cpus:?}"))?;
            pin(&seat.cpus).with_context(|| {
                format!("cannot run on cpus {cpus:?}: none of them is usable here")
            })?;
        }
        if let Some(policy) = task.policy {
            set_policy(policy).with_context(|| {
                format!(
                    "the kernel refuses {policy:?} (negative nice and real time need CAP_SYS_NICE)"
                )
            })?;
        }
        Ok(())
    }

    fn obey(&self, order: &Order, seat: &mut Seat) -> Result<()> {
        let news = match *order {
            Order::Prepare => {
                if seat.mailbox.is_some() {
                    seat.drain()?;
                }
                News::Ready(self.index, pthread_self())
            }
            Order::Go { start_ns, end_ns } => {
                News::Done(self.index, Box::new(self.play(seat, start_ns, end_ns)?))
            }
        };
        let _ = self.news.send(news);
        Ok(())
    }

    fn play(&self, seat: &mut Seat, start_ns: u64, end_ns: u64) -> io::Result<Record> {
        let before = Usage::now()?;
        let draws = Draws::new(self.seed, u64::try_from(self.index).unwrap_or(u64::MAX));
        let mut world = RealWorld::new(
            seat,
            Limits {
                end_ns,
                stop: self.stop,
            },
        );
        let player = Player::new(&mut world, draws, self.room);
        let mut record = player.play(&self.worker.part, start_ns, self.worker.task.delay_ns)?;
        let after = Usage::now()?;
        record.cpu_ns = after.cpu_ns.saturating_sub(before.cpu_ns);
        record.voluntary_switches = after.voluntary.saturating_sub(before.voluntary);
        record.involuntary_switches = after.involuntary.saturating_sub(before.involuntary);
        Ok(record)
    }
}

/// What the kernel counts for the calling thread.
struct Usage {
    cpu_ns: u64,
    voluntary: u64,
    involuntary: u64,
}

impl Usage {
    fn now() -> io::Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
        Ok(Self {
            cpu_ns: clock::cpu_time_ns()?,
            voluntary: usage.voluntary_context_switches().unsigned_abs(),
            involuntary: usage.involuntary_context_switches().unsigned_abs(),
        })
    }
}

/// Sends SIGINT and SIGTERM to the inbox, and makes SIGUSR1 a mere interruption.
fn forward_signals(news: Sender<News>) -> Result<Handle> {
    signal_hook::flag::register(SIGUSR1, Arc::new(AtomicBool::new(false)))
        .context("cannot handle SIGUSR1")?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot handle SIGINT")?;
    let handle = signals.handle();
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                if news.send(News::Signal).is_err() {
                    return;
                }
            }
        })?;
    Ok(handle)
}

/// Large rings need more pipes than the usual soft limit allows; what is refused shows when they are created.
fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
