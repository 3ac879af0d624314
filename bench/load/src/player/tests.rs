//! The player in a world without a scheduler, where every time can be told beforehand.

use super::*;
use crate::rtapp;
use crate::workload::{Kind, Workload};
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;

const MS: u64 = 1_000_000;
const START: u64 = 1_000 * MS;

/// One thread alone in a world without a scheduler: everything takes the time it is told to.
struct Simulated {
    now_ns: u64,
    end_ns: u64,
    /// When the thread is not let run.
    starved_ns: Range<u64>,
    /// Time of one unit of work.
    ns_per_unit: u64,
    /// Messages to come, by the time they arrive.
    arrivals_ns: VecDeque<u64>,
    sent: Vec<(usize, u64)>,
    runs: Vec<u64>,
    cpus: Vec<Option<Vec<usize>>>,
}

impl World for Simulated {
    fn now_ns(&mut self) -> io::Result<u64> {
        if self.starved_ns.contains(&self.now_ns) {
            self.now_ns = self.starved_ns.end;
        }
        Ok(self.now_ns)
    }
    fn end_ns(&self) -> u64 {
        self.end_ns
    }
    fn sleep_until(&mut self, due_ns: u64) -> io::Result<bool> {
        self.now_ns = self.now_ns.max(due_ns.min(self.end_ns));
        Ok(self.now_ns()? < self.end_ns)
    }
    fn work(&mut self, work: WorkUnits, until_ns: u64) -> io::Result<Done> {
        let most = until_ns.min(self.end_ns).saturating_sub(self.now_ns) / self.ns_per_unit;
        let done = work.0.min(most);
        self.now_ns += done * self.ns_per_unit;
        self.runs.push(done);
        Ok(Done {
            work: WorkUnits(done),
            migrations: 0,
        })
    }
    fn yield_now(&mut self) {}
    fn receive(&mut self) -> io::Result<Option<u64>> {
        let message = self.arrivals_ns.pop_front();
        self.now_ns = self.now_ns.max(message.unwrap_or(self.end_ns));
        Ok(message)
    }
    fn send(&mut self, thread: usize, message: u64) -> io::Result<bool> {
        self.sent.push((thread, message));
        Ok(true)
    }
    fn threads_of(&self, task: usize) -> std::ops::Range<usize> {
        10 * task..10 * task + 2
    }
    fn set_cpus(&mut self, cpus: Option<&[usize]>) -> io::Result<()> {
        self.cpus.push(cpus.map(<[usize]>::to_vec));
        Ok(())
    }
}

fn world(run_ms: u64, ns_per_unit: u64) -> Simulated {
    Simulated {
        now_ns: START,
        end_ns: START + run_ms * MS,
        starved_ns: 0..0,
        ns_per_unit,
        arrivals_ns: VecDeque::new(),
        sent: Vec::new(),
        runs: Vec::new(),
        cpus: Vec::new(),
    }
}

fn workload(task: &str) -> Workload {
    let other = r#""other": {"suspend": "", "run": 1}"#;
    rtapp::parse(
        Path::new("test.json"),
        &format!(r#"{{"tasks": {{"one": {{{task}}}, {other}}}}}"#),
    )
    .unwrap()
}

fn play(world: &mut Simulated, task: &str) -> Record {
    let workload = workload(task);
    let one = &workload.tasks[0];
    let part = match &one.kind {
        Kind::Script(script) => Part::Script(script),
        Kind::Ring(ring) => Part::Head(ring, 1),
    };
    Player::new(world, Draws::new(0, 0), 1000)
        .play(&part, START, one.delay_ns)
        .unwrap()
}

/// Where the drawn offset has to be known: seed 0, thread 0.
fn offset(period_ns: u64) -> u64 {
    Draws::new(0, 0).offset_ns(period_ns)
}

#[test]
fn a_periodic_job_responds_in_the_time_of_its_work() {
    let record = play(
        &mut world(160, 1),
        r#""run": 4000, "timer": {"ref": "a", "period": 16000}"#,
    );
    let summary = record.responses.summary().unwrap();
    assert_eq!((summary.mean_ns, summary.max_ns), (4 * MS, 4 * MS));
    assert_eq!(
        (record.missed, record.with_deadline),
        (0, record.responses.count())
    );
    assert!((9..=10).contains(&record.responses.count()));
    assert_eq!(record.completion_ns, None);
}

#[test]
fn a_relative_timer_counts_the_periods_it_skips_and_stays_on_its_grid() {
    // 4 ms of work take 40 ms: due at 0, late at 16, 32 passed over, next due 32.
    let mut slow = world(1_000, 10);
    let record = play(
        &mut slow,
        r#""run": 4000, "timer": {"ref": "a", "period": 16000}"#,
    );
    let offset_ns = offset(16 * MS);
    let jobs = record.responses.count();
    assert_eq!(record.missed, jobs + u64::from(record.missed > jobs));
    let periods = (1_000 * MS - offset_ns) / (16 * MS);
    let begun = jobs + record.unfinished;
    assert!(
        (begun + record.skipped).abs_diff(periods) <= 1,
        "{record:?} of {periods}"
    );
    assert!(record.responses.summary().unwrap().max_ns < 56 * MS);
}

#[test]
fn an_absolute_timer_makes_up_for_every_period() {
    let mut slow = world(200, 5);
    let record = play(
        &mut slow,
        r#""loop": 5, "run": 4000, "timer": {"ref": "a", "period": 16000, "mode": "absolute"}"#,
    );
    // 20 ms each, due every 16 ms: 4 ms later every time.
    let summary = record.responses.summary().unwrap();
    assert_eq!(
        (record.skipped, record.missed, record.responses.count()),
        (0, 5, 5)
    );
    assert_eq!((summary.p50_ns, summary.max_ns), (28 * MS, 36 * MS));
    assert!(record.completion_ns.is_some());
}

#[test]
fn an_explicit_deadline_replaces_the_next_period() {
    let record = play(
        &mut world(160, 1),
        r#""run": 4000, "deadline": 3000, "timer": {"ref": "a", "period": 16000}"#,
    );
    assert_eq!(record.missed, record.responses.count());
    assert!(record.missed > 0);
}

#[test]
fn a_sleeping_task_is_due_when_its_sleep_ends_and_has_no_deadline() {
    let record = play(
        &mut world(1_000, 1),
        r#""loop": 3, "run": 2000, "sleep": 5000"#,
    );
    let summary = record.responses.summary().unwrap();
    assert_eq!(
        (
            record.responses.count(),
            summary.max_ns,
            record.with_deadline
        ),
        (3, 2 * MS, 0)
    );
    assert_eq!(record.completion_ns, Some(21 * MS));
}

#[test]
fn a_batch_task_is_one_job_from_its_start_to_its_end() {
    let record = play(
        &mut world(1_000, 2),
        r#""loop": 10, "delay": 7000, "run": 1000"#,
    );
    assert_eq!(
        (record.responses.count(), record.work),
        (1, WorkUnits(10 * MS))
    );
    assert_eq!(record.responses.summary().unwrap().max_ns, 20 * MS);
    assert_eq!(record.completion_ns, Some(27 * MS));
}

#[test]
fn a_resumed_task_is_due_at_the_instant_of_the_resume() {
    let mut world = world(100, 1);
    world.arrivals_ns = [START + 5 * MS, START + 6 * MS].into();
    let record = play(&mut world, r#""suspend": "", "run": 3000"#);
    // The second resume came while the first job was at work: 1 + 3 + 3 - 2.
    let summary = record.responses.summary().unwrap();
    assert_eq!(
        (record.responses.count(), summary.p50_ns, summary.max_ns),
        (2, 3 * MS, 5 * MS)
    );
}

#[test]
fn a_resume_reaches_every_thread_of_its_task() {
    let mut world = world(100, 1);
    play(&mut world, r#""loop": 1, "run": 1000, "resume": "other""#);
    assert_eq!(world.sent, [(10, START + MS), (11, START + MS)]);
}

#[test]
fn runtime_is_time_and_not_work() {
    let mut slow = world(100, 10);
    let record = play(&mut slow, r#""loop": 1, "runtime": 5000"#);
    assert_eq!(
        (slow.now_ns, record.work),
        (START + 5 * MS, WorkUnits(MS / 2))
    );
}

#[test]
fn the_end_cuts_the_job_under_way_and_keeps_its_work() {
    let record = play(&mut world(10, 1), r#""run": 40000, "sleep": 1"#);
    assert_eq!(
        (record.responses.count(), record.unfinished, record.work),
        (0, 1, WorkUnits(10 * MS))
    );
    assert_eq!(record.responses.summary(), None);
}

#[test]
fn a_job_cut_after_its_period_is_a_miss() {
    let record = play(
        &mut world(100, 1),
        r#""run": 900000, "timer": {"ref": "a", "period": 16000}, "run2": 1"#,
    );
    assert_eq!((record.unfinished, record.responses.count()), (1, 0));
    let record = play(
        &mut world(200, 20),
        r#""timer": {"ref": "a", "period": 16000}, "run": 90000"#,
    );
    assert_eq!(
        (record.unfinished, record.missed, record.with_deadline),
        (1, 1, 1)
    );
    assert!(record.skipped >= 9, "{record:?}");
}

#[test]
fn loops_that_never_wait_still_end() {
    for task in [
        r#""run": 0"#,
        r#""yield": """#,
        r#""resume": "other""#,
        r#""runtime": 0"#,
        r#""sleep": 0"#,
    ] {
        let mut world = world(0, 1);
        assert_eq!(play(&mut world, task).work, WorkUnits(0), "{task}");
    }
}

#[test]
fn events_phases_and_cpus_follow_the_order_of_the_file() {
    let mut world = world(1_000, 1);
    play(
        &mut world,
        r#""loop": 2, "phases": {"b": {"run1": 1, "run0": 2, "run0": 3, "cpus": [1]}, "a": {"loop": 2, "run": 4}}"#,
    );
    assert_eq!(
        world.runs,
        [1, 2, 3, 4, 4, 1, 2, 3, 4, 4].map(|us| us * 1_000)
    );
    assert_eq!(world.cpus, [Some(vec![1]), None, Some(vec![1]), None]);
}

#[test]
fn equal_seeds_play_equal_jittered_loads_within_their_bounds() {
    let task = r#""jitter_pct": 50, "run": 1000, "timer": {"ref": "a", "period": 16000}"#;
    let (mut first, mut second) = (world(1_000, 1), world(1_000, 1));
    assert_eq!(play(&mut first, task), play(&mut second, task));
    assert_eq!(first.runs, second.runs);
    assert!(
        first
            .runs
            .iter()
            .all(|run| (MS / 2..=3 * MS / 2).contains(run))
    );
    assert!(first.runs.iter().any(|run| *run != first.runs[0]));
}

#[test]
fn a_burst_is_complete_when_its_last_message_is_back() {
    let mut world = world(1_000, 1);
    let due_ns = START + offset(20 * MS);
    world.arrivals_ns = [due_ns + MS, due_ns + 4 * MS].into();
    let record = play(
        &mut world,
        r#""loop": 1, "ring": {"members": 2, "messages": 2, "work": 500, "period": 20000}"#,
    );
    assert_eq!(record.responses.summary().unwrap().max_ns, 4 * MS + MS / 2);
    assert_eq!(world.sent, [(1, due_ns), (1, due_ns), (1, DISSOLVE)]);
    assert_eq!(record.work, WorkUnits(MS));
}

#[test]
fn whenever_a_thread_is_not_let_run_every_activation_before_the_end_counts_once() {
    const RUN_MS: u64 = 100;
    const PERIOD_MS: u64 = 16;
    for task in [
        r#""run": 5000, "timer": {"ref": "a", "period": 16000}"#,
        r#""ring": {"members": 2, "messages": 1, "work": 5000, "period": 16000}"#,
    ] {
        let due = (RUN_MS * MS - offset(PERIOD_MS * MS)).div_ceil(PERIOD_MS * MS);
        let spans = (0..=RUN_MS).flat_map(|from| [1, 7, 40, 200].map(|long| from..from + long));
        for span in spans {
            let mut world = world(RUN_MS, 1);
            world.arrivals_ns = vec![START; 100].into();
            world.starved_ns = START + span.start * MS..START + span.end * MS;
            let record = play(&mut world, task);
            let counted = record.responses.count() + record.unfinished + record.skipped;
            assert_eq!(counted, due, "{span:?}: {record:?}");
        }
    }
}

#[test]
fn who_is_never_let_run_skips_every_activation() {
    for (starved_from_ns, jobs) in [(START, 0), (START + 45 * MS, 3)] {
        let mut world = world(100, 1);
        world.starved_ns = starved_from_ns..START + 150 * MS;
        let record = play(
            &mut world,
            r#""run": 1000, "timer": {"ref": "a", "period": 16000}"#,
        );
        let due = (100 * MS - offset(16 * MS)).div_ceil(16 * MS);
        assert_eq!(record.responses.count(), jobs, "{record:?}");
        assert_eq!(record.skipped, due - jobs, "{record:?}");
    }
}
