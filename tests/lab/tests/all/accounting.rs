//! The scheduler's books: what each task uses, what the groups' sums hold, whose costs decide, and what an
//! idle machine pays for being scheduled.

mod truth;

use crate::common::{
    both_and_any_thread_ns, hand, instrument, joule_load, lab, number, rise, scheduler, section,
    succeed, values, workload,
};
use lab::catalogue;
use lab::guest::{Guest, Outcome};
use lab::machine::Machine;
use lab::truth::{Tasks, Truth};
use serde::Deserialize;
use serde_json::Value;
use std::sync::OnceLock;
use std::time::Duration;
use truth::Recording;

/// What all scripts begin with; `counters NAME` makes a section of the scheduler's counters.
const HEAD: &str = r#"
. /lab/shell.sh
counters() { say $1 joule-hand counters; }
governor schedutil
"#;

fn machine() -> Machine {
    catalogue::machine("phone-3c-gs101").unwrap()
}

fn phone(name: &str) -> Guest<'static> {
    lab()
        .machine(name, &machine())
        .program(scheduler())
        .program(joule_load())
        .program(hand())
}

/// A run whose results several tests look at, or why there are none.
type Shared = OnceLock<Result<Outcome, String>>;

/// Carries the run out if none of the tests has yet; one that failed is not repeated.
fn once(shared: &'static Shared, guest: impl FnOnce() -> Guest<'static>) -> &'static Outcome {
    let run = shared.get_or_init(|| {
        let outcome = guest().run().and_then(Outcome::success);
        outcome.map_err(|error| format!("{error:#}"))
    });
    run.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

/// Tasks of every shape under the scheduler, recorded; then tasks that come, move and go by the dozen.
fn tasks() -> &'static Outcome {
    static RUN: Shared = Shared::new();
    once(&RUN, || {
        let include = ["-target", "bpf", "-c"];
        let recorder = instrument("recorder.bpf.c", "recorder.bpf.o", &include);
        let script = format!(
            r#"{HEAD}
            start
            bpftool prog loadall /lab/recorder.o /sys/fs/bpf/recorder \
                map name task_ctxs id $(joule-hand map task_ctxs) || fail recorder
            cd /sys/kernel/tracing
            echo 8192 > buffer_size_kb
            echo 'prev_comm ~ "u-*" || next_comm ~ "u-*"' > events/sched/sched_switch/filter
            echo 1 > events/sched/sched_switch/enable
            echo 1 > events/power/cpu_frequency/enable
            # last: what it prints then follows the event of the same switch
            joule-hand attach /sys/fs/bpf/recorder/record_switch || fail recorder
            clocks() {{
                for policy in /sys/devices/system/cpu/cpufreq/policy*; do
                    echo I $(cat $policy/scaling_cur_freq $policy/related_cpus)
                done
            }}
            say clocks clocks
            joule-load run /lab/workload.json --duration 2 > /tmp/log 2>&1 || fail joule-load
            echo 0 > tracing_on
            say lost awk '/overrun|dropped/ {{ lost += $NF }} END {{ print lost }}' per_cpu/cpu*/stats
            say events sed -n '
                s/^.*\[0*\([0-9][0-9]*\)\] [^ ]* *\([0-9.]*\): sched_switch: .*prev_pid=\([0-9]*\) .*prev_state=\([^ ]*\) .*next_pid=\([0-9]*\) .*/S \2 \1 \3 \4 \5/p
                s/^.* \([0-9.]*\): cpu_frequency: state=\([0-9]*\) cpu_id=/F \1 \2 /p
                s/^.* \([0-9.]*\): bpf_trace_printk: /U \1 /p' trace
            rm -r /sys/fs/bpf/recorder

            say forks-from awk '/^processes/ {{ print $2 }}' /proc/stat
            stress-ng --quiet --fork 4 --timeout 1 & storm=$!
            joule-load run /lab/workload.json --duration 60 > /tmp/load 2>&1 & load=$!
            for round in 1 2 3 4 5; do
                for cpus in 01 30 c0 2 ff; do
                    for task in /proc/$load/task/*; do taskset -p $cpus ${{task##*/}}; done > /tmp/moves 2>&1
                done
            done
            say moved grep -c 'new affinity' /tmp/moves
            say storming joule-hand residue 0
            kill -KILL $load
            wait $storm || fail stress-ng
            say forks-to awk '/^processes/ {{ print $2 }}' /proc/stat
            say calm joule-hand residue 2000
            lasted"#
        );
        let guest = phone("accounting-tasks")
            .program("bpftool")
            .program("stress-ng")
            .file(recorder, "/lab/recorder.o")
            .file(workload("every-shape"), "/lab/workload.json");
        guest.script(&script)
    })
}

/// Cost tables published by hand while the control loop is stopped, under load: sound ones at the highest
/// allowed rate, unsound ones, and sound ones faster than allowed. Without patience every wake-up takes an idle CPU,
/// so that it is the table that steers.
fn tables() -> &'static Outcome {
    static RUN: Shared = Shared::new();
    once(&RUN, || {
        let script = format!(
            r#"{HEAD}
            start --profile performance
            sleep 1
            kill -STOP $pid
            joule-load run /lab/messaging.json --duration 60 > /tmp/load 2>&1 & load=$!
            sleep 0.2
            counters start
            joule-hand publish {PUBLICATIONS} 50000 || fail 'publishing'
            counters published
            say verdicts joule-hand refuse
            counters refused
            sleep 0.2
            counters after-refusals
            joule-hand publish {RUSH} 0 || fail 'publishing in a rush'
            counters rushed
            kill -INT $load; wait $load
            {STEERING}
            lasted
            kill -CONT $pid
            stop"#
        );
        let guest = phone("accounting-tables")
            .file(
                catalogue::workload("messaging").unwrap(),
                "/lab/messaging.json",
            )
            .file(workload("released"), "/lab/released.json");
        guest.script(&script).time_limit(Duration::from_secs(300))
    })
}

/// Tables that disagree with the prior, published under a load of wake-ups and of tasks let go from a little CPU.
const STEERING: &str = r#"
    joule-load run /lab/released.json --duration 60 > /tmp/load 2>&1 & load=$!
    counters unsteered
    joule-hand publish 20 50000 || fail 'publishing'
    counters steered
    kill -INT $load; wait $load
"#;

/// How many tables are published at the highest allowed rate, and how many in a rush.
const PUBLICATIONS: u64 = 100;
const RUSH: u64 = 20_000;

#[test]
fn utilisation_follows_each_task_across_cpus_and_clocks() {
    let results = &tasks().results;
    assert_eq!(number(results, "lost"), 0, "the recording has holes");
    let events = section(results, "clocks").to_owned() + section(results, "events");
    let recording = Recording::new(&machine(), &events);
    assert_eq!(recording.tasks.len(), 8);
    for (pid, task) in &recording.tasks {
        let (mean, worst) = (task.mean(), task.worst());
        eprintln!(
            "thread {pid}: {} looks, up to {:.0}, {} migrations, {} changes of clock: mean error {mean:.2}, \
             worst {worst:.2} of 1024",
            task.errors.len(),
            task.highest,
            task.migrations,
            task.clock_changes
        );
        assert!(task.errors.len() > 30 && task.migrations > 5 && task.clock_changes > 20);
        assert!(mean <= MEAN_LIMIT, "thread {pid}: mean error {mean}");
        assert!(worst <= WORST_LIMIT, "thread {pid}: worst error {worst}");
    }
}

/// Of the capacity scale: a quarter of the 2 % and a fifth of the 5 % that a utilisation signal is
/// commonly allowed.
const MEAN_LIMIT: f64 = 0.005 * 1024.0;
const WORST_LIMIT: f64 = 0.01 * 1024.0;

#[test]
fn nothing_is_left_in_the_sums_of_tasks_that_have_left() {
    let results = &tasks().results;
    let forks = number(results, "forks-to") - number(results, "forks-from");
    eprintln!("{forks} forks");
    assert!(forks > 500, "{forks} forks are no storm");
    assert!(number(results, "moved") >= 8, "the tasks were not moved");
    let residue = |name, value| values(results, name)[value].parse::<u64>().unwrap();
    // the one who asks is a real-time task, which is in no sum, and nobody else is awake
    assert!(residue("storming", "nr_counted") > 0);
    assert!(residue("storming", "sum_cap") > 100);
    for value in ["nr_counted", "est_cap", "sum_cap", "nr_waiting"] {
        assert_eq!(residue("calm", value), 0, "{value}");
    }
}

/// Big tasks are asleep while the scheduler starts. What is not known of them would start them on little CPUs, where
/// they have no business.
#[test]
fn tasks_are_known_from_before_the_scheduler_started() {
    let script = format!(
        "{HEAD}
        joule-load run /lab/seldom.json --duration 8 > /tmp/load 2>&1 & load=$!
        sleep 1
        start
        say asleep cat $vsoc/tasks
        wait $load
        say woken cat $vsoc/tasks
        lasted"
    );
    let guest = phone("accounting-seeds").file(workload("seldom"), "/lab/seldom.json");
    let results = succeed(&guest.script(&script)).results;
    let ran_ns = |on_little: bool| {
        let there = |cluster: &str| (cluster == "little") == on_little;
        let so_far = |name| time_of_tasks_ns(section(&results, name), "big", there);
        so_far("woken") - so_far("asleep")
    };
    let (little_ns, elsewhere_ns) = (ran_ns(true), ran_ns(false));
    eprintln!("{little_ns} ns on little CPUs, {elsewhere_ns} ns on larger ones");
    assert!(elsewhere_ns > 60_000_000, "they did not wake up");
    assert_eq!(little_ns, 0);
}

/// A limit on a clock, as thermal drivers set it, makes CPUs smaller: one that is there from the beginning, until it
/// is lifted. So do real-time tasks. And users may ask the kernel to take a task for a bigger or a smaller one
/// (uclamp): it is placed as such.
#[test]
fn a_task_is_placed_within_its_clamps_and_what_is_left_of_cpus() {
    let script = format!(
        r#"{HEAD}
        limit=/sys/devices/system/cpu/cpu6/cpufreq/scaling_max_freq
        full=$(cat $limit)
        echo 851000 > $limit
        start
        run() {{
            name=$1; tasks=$2; shift 2
            "$@" joule-load run /lab/$tasks.json --duration 3 > /tmp/load 2>&1 || fail joule-load
            say $name cat $vsoc/tasks
        }}
        run limited clamps env
        echo $full > $limit
        run free clamps env
        run low clamps uclampset -m 0 -M 60
        run high clamps uclampset -m 700 -M 1024
        run pressed pressed env
        run relieved clamps env
        lasted"#
    );
    let guest = phone("accounting-clamps").program("uclampset");
    let guest = guest.file(workload("clamps"), "/lab/clamps.json");
    let guest = guest.file(workload("pressed"), "/lab/pressed.json");
    let results = succeed(&guest.script(&script)).results;
    // the share of its time that a task ran at such places, in the last of these runs, %
    let pct_at = |runs: &[&str], task: &str, place: &dyn Fn(&str, u64) -> bool| {
        let ns = |there: &dyn Fn(&str, u64) -> bool| {
            let until = |run: &&str| time_at_opps_ns(section(&results, run), task, there);
            let mut runs = runs.iter().rev().map(until);
            runs.next().unwrap() - runs.next().unwrap_or(0)
        };
        100 * ns(place) / ns(&|_, _| true)
    };
    let pct = |runs: &[&str], task: &str, cluster: &str| {
        let pct = pct_at(runs, task, &|it, _| it == cluster);
        eprintln!("{task}, {runs:?}: {pct} % in {cluster}");
        pct
    };
    let limited = [
        pct(&["limited"], "heavy", "mid"),
        pct(&["limited", "free"], "heavy", "big"),
    ];
    // Whoever is taken for a small task goes where that is cheapest, be it a big CPU at its lowest clock.
    let machine = machine();
    let little_cap = machine.clusters[0].opps.last().unwrap().capacity;
    let is_small = |cluster: &str, khz: u64| {
        let cluster = machine.clusters.iter().find(|it| it.name == cluster);
        let mut opps = cluster.into_iter().flat_map(|it| &it.opps);
        opps.any(|opp| u64::from(opp.khz) == khz && opp.capacity <= little_cap)
    };
    let small_pct = pct_at(&["free", "low"], "heavy", &is_small);
    let free_pct = pct_at(&["limited", "free"], "heavy", &is_small);
    eprintln!(
        "heavy: {small_pct} % with what a little CPU has at most, {free_pct} % without a clamp"
    );
    assert!(free_pct < 20);
    let clamped = [small_pct, pct(&["low", "high"], "light", "big")];
    let pressed = [
        pct(&["high", "pressed"], "heavy", "mid"),
        pct(&["pressed", "relieved"], "heavy", "big"),
    ];
    assert!(pct(&["limited", "free"], "light", "big") < 20);
    assert!(pressed.iter().all(|pct| *pct > 80));
    assert!(limited.iter().all(|pct| *pct > 80));
    assert!(clamped.iter().all(|pct| *pct > 95));
}

/// Tasks come to all CPUs that a heavy one fits, which need less, for that is what they are taken for: it takes the place
/// of one of them rather than go to a CPU that is too small for it.
#[test]
fn who_needs_more_takes_the_place_of_who_needs_less() {
    let script = format!(
        "{HEAD}
        start
        joule-load run /lab/clamps.json --duration 5 > /tmp/load 2>&1 & load=$!
        sleep 1
        for task in 1 2 3 4; do
            uclampset -m 0 -M 300 joule-load run /lab/busy.json > /dev/null 2>&1 & lesser=\"$lesser $!\"
        done
        sleep 1; say crowded cat $vsoc/tasks
        wait $load; say end cat $vsoc/tasks
        kill -INT $lesser
        lasted"
    );
    let guest = phone("accounting-places").program("uclampset");
    let guest = guest.file(workload("clamps"), "/lab/clamps.json");
    let guest = guest.file(workload("busy"), "/lab/busy.json");
    let results = succeed(&guest.script(&script)).results;
    let ran_ns = |there: fn(&str) -> bool| {
        let so_far = |name| time_of_tasks_ns(section(&results, name), "heavy", there);
        so_far("end") - so_far("crowded")
    };
    let big_pct = 100 * ran_ns(|cluster| cluster == "big") / ran_ns(|_| true);
    assert!(big_pct > 80, "{big_pct} %");
}

/// How long threads of that name ran in such clusters.
fn time_of_tasks_ns(text: &str, name: &str, there: impl Fn(&str) -> bool) -> u64 {
    time_at_opps_ns(text, name, |cluster, _| there(cluster))
}

/// How long threads of that name ran in such clusters at such frequencies, kHz.
fn time_at_opps_ns(text: &str, name: &str, there: impl Fn(&str, u64) -> bool) -> u64 {
    let tasks = Tasks::parse(text).unwrap().tasks;
    let named = tasks.iter().filter(|task| task.comm.starts_with(name));
    let runs = named.flat_map(|task| &task.runs);
    let opps = runs.flat_map(|run| run.opps.iter().map(move |opp| (&run.cluster, opp)));
    let there = opps.filter(|(cluster, (khz, _))| there(cluster, *khz));
    there.map(|(_, (_, ns))| ns).sum()
}

#[test]
fn no_decision_mixes_two_tables_at_the_highest_rate_of_publishing() {
    let results = &tables().results;
    let decisions = rise(results, "placed_idle", "start", "published");
    let steered = rise(results, "placed_steered", "start", "published");
    let mixed = rise(results, "tables_mixed", "start", "published");
    eprintln!("{PUBLICATIONS} publications, {decisions} placements, {steered} steered");
    assert!(decisions > 20 * PUBLICATIONS, "{decisions}");
    assert!(steered > PUBLICATIONS, "tables took no effect: {steered}");
    assert_eq!(rise(results, "tables_refused", "start", "published"), 0);
    assert_eq!(mixed, 0);
}

#[test]
fn a_table_overwritten_while_in_use_is_noticed() {
    let mixed = rise(
        &tables().results,
        "tables_mixed",
        "after-refusals",
        "rushed",
    );
    eprintln!("{RUSH} publications in a rush: {mixed} decisions mixed");
    assert!(mixed > 0);
}

#[test]
fn an_unsound_table_is_refused_and_counted_and_the_last_good_one_stays() {
    let results = &tables().results;
    let verdicts = values(results, "verdicts");
    assert_eq!(verdicts.len(), 14, "{verdicts:?}");
    for (fault, verdict) in &verdicts {
        assert_eq!(*verdict, "refused", "{fault}");
    }
    let refused = rise(results, "tables_refused", "published", "refused");
    assert_eq!(refused, 14);
    // the good one prices the groups in reverse: it steers as long as it is in force
    assert!(rise(results, "placed_steered", "refused", "after-refusals") > 0);
}

#[test]
fn published_costs_steer_placements_and_kicks() {
    let results = &tables().results;
    for counter in ["placed_steered", "kicks_steered"] {
        let steered = rise(results, counter, "unsteered", "steered");
        eprintln!("{counter}: {steered}");
        assert!(steered > 0, "{counter}");
    }
}

/// On a machine with a cache for each CPU, of which a wake-up looks at the nearest: those that have just been claimed for
/// others are not awake yet, and no reason to wait while others idle.
#[test]
fn of_many_who_wake_at_once_each_finds_an_idle_cpu_whatever_caches_there_are() {
    let guest = lab().guest("accounting-called").program(scheduler());
    let guest = guest.program(joule_load()).program(hand()).cpus(8, 1);
    let guest = guest.file(workload("called"), "/lab/called.json");
    let results = succeed(&guest.sockets(8).script(
        ". /lab/shell.sh
        start
        say start joule-hand counters
        joule-load run /lab/called.json > /dev/null || fail joule-load
        say end joule-hand counters
        lasted",
    ))
    .results;
    let idle = rise(&results, "placed_idle", "start", "end");
    let busy = rise(&results, "placed_busy", "start", "end");
    assert!(idle > 800 && busy * 20 < idle, "{idle} idle, {busy} busy");
}

#[test]
fn told_not_to_steer_it_places_and_kicks_by_the_prior_alone() {
    let script = format!(
        "{HEAD}
        start --no-steer
        sleep 1
        kill -STOP $pid
        {STEERING}
        lasted"
    );
    let guest = phone("accounting-no-steer").file(workload("released"), "/lab/released.json");
    let results = succeed(&guest.script(&script)).results;
    for counter in ["placed_idle", "kicks"] {
        assert!(rise(&results, counter, "unsteered", "steered") > 0);
    }
    for counter in ["placed_steered", "kicks_steered", "tables_refused"] {
        assert_eq!(values(&results, "steered")[counter], "0", "{counter}");
    }
}

#[test]
fn time_with_both_threads_of_a_core_busy_is_that_of_the_cores() {
    let script = format!(
        r#"{HEAD}
        start
        look() {{ say $1-truth cat $vsoc/truth; say $1 joule-hand activity; }}
        look from
        joule-load run /lab/threads.json --seed 1 --duration 10 > /tmp/load 2>&1 || fail joule-load
        look to
        lasted"#
    );
    let laptop = catalogue::machine("laptop-smt").unwrap();
    let guest = (lab().machine("accounting-threads", &laptop))
        .program(scheduler())
        .program(joule_load())
        .program(hand())
        .file(workload("threads"), "/lab/threads.json");
    let results = succeed(&guest.script(&script)).results;
    let truth = |name| Truth::parse(section(&results, name)).unwrap();
    let truth = truth("to-truth").since(&truth("from-truth")).unwrap();
    let (both, any) = both_and_any_thread_ns(&truth);
    for (name, right) in [("paired_ns", both), ("busy_ns", any + both)] {
        let counted = rise(&results, name, "from", "to");
        let seconds = |ns: u64| Duration::from_nanos(ns).as_secs_f64();
        let (counted, right) = (seconds(counted), seconds(right));
        eprintln!("{name}: {counted:.3} s for {right:.3} s");
        assert!(right > 5.0, "{name}: {right} s are no load");
        assert!(
            (counted / right - 1.0).abs() < 0.01,
            "{name}: {counted} s for {right} s"
        );
    }
}

#[test]
fn an_idle_machine_stays_idle() {
    let script = format!(
        r#"{HEAD}
        now() {{
            echo energy_uj $(cat $energy)
            awk '$1 == "ctxt" {{ print "switches", $2 }}' /proc/stat
            awk '$1 ~ /depth|sleep/ {{ exits += $NF }} END {{ print "exits", exits }}' $vsoc/truth
            [ -z "$pid" ] || awk '/^voluntary/ {{ woken += $2 }} END {{ print "woken", woken }}' /proc/$pid/task/*/status
        }}
        minute() {{ sleep 10; say $1-from now; sleep 60; say $1-to now; }}
        minute before
        start
        minute joule
        lasted
        stop
        pid=
        minute after"#
    );
    let results = succeed(&phone("accounting-idle").script(&script)).results;
    let rise = |scheduler: &str, value| {
        let (from, to) = (format!("{scheduler}-from"), format!("{scheduler}-to"));
        rise(&results, value, &from, &to)
    };
    for value in ["energy_uj", "switches", "exits"] {
        let [before, joule, after] = ["before", "joule", "after"].map(|name| rise(name, value));
        eprintln!(
            "{value} in 60 s: {joule}; under the kernel's scheduler {before} before, {after} after"
        );
    }
    let woken = rise("joule", "woken");
    eprintln!("control loop: woken {woken} times");
    // a machine that booted long ago has less to do: the kernel's better minute counts
    let kernel = rise("before", "energy_uj").min(rise("after", "energy_uj"));
    assert!(100 * rise("joule", "energy_uj") <= 103 * kernel);
    assert!(woken <= 6, "{woken}");
}

/// Forty-eight tasks that never sleep on eight CPUs, and three that are awake for a moment in every hundredth of a
/// second, one of them on one CPU only: those wait for nobody's slice to end, which ticks tell, 4 ms apart.
#[test]
fn no_task_waits_long_under_a_load_that_never_ends_and_who_wakes_for_a_moment_hardly_at_all() {
    let script = format!(
        "{HEAD}
        start
        joule-load run /lab/workload.json --json > /tmp/load 2> /tmp/log || fail joule-load
        say load cat /tmp/load
        counters after
        lasted"
    );
    let guest = phone("accounting-crowd").file(workload("crowd"), "/lab/workload.json");
    let results = succeed(&guest.script(&script)).results;
    let longest_us: u64 = (values(&results, "after")["longest_wait_us"].parse()).unwrap();
    // At worst they are all in a queue of two CPUs, and each runs until the second tick at most: 23 of
    // 4 ms each, or a few that have taken two.
    eprintln!("longest wait: below {longest_us} us");
    assert!(longest_us > 0 && longest_us <= 131_072, "{longest_us}");
    let load: Value = serde_json::from_str(section(&results, "load")).unwrap();
    for task in &load["tasks"].as_array().unwrap()[1..] {
        let response = &task["response_us"];
        eprintln!("response times of {}: {response}", task["name"]);
        assert!(response["p95"].as_u64().unwrap() <= 1_000, "{task}");
    }
}

/// What became of a workload's jobs on the laptop whose CPUs have a clock each.
#[derive(Debug, Deserialize)]
struct Course {
    jobs: u64,
    /// On another CPU than the one before.
    #[serde(rename = "migrations")]
    moves: u64,
    missed: u64,
}

/// The course of the workload of this name.
fn course_of(name: &str) -> Course {
    let script = format!(
        "{HEAD}
        start
        joule-load run /lab/{name}.json --seed 1 --warmup 4 --json > /tmp/load 2> /tmp/log || fail joule-load
        say load cat /tmp/load
        lasted"
    );
    let laptop = catalogue::machine("laptop-hybrid").unwrap();
    let guest = (lab().machine(&format!("accounting-{name}"), &laptop))
        .program(scheduler())
        .program(joule_load())
        .file(workload(name), &format!("/lab/{name}.json"));
    let results = succeed(&guest.script(&script)).results;
    let mut load: Value = serde_json::from_str(section(&results, "load")).unwrap();
    let course: Course = serde_json::from_value(load["total"].take()).unwrap();
    eprintln!("{name}: {course:?}");
    course
}

/// Where each CPU has a clock of its own, who uses it more than a little has it for itself, and comes back to it.
#[test]
fn each_has_a_seat_where_there_are_as_many_cpus_as_tasks() {
    let Course { jobs, moves, .. } = course_of("seats");
    assert!(jobs > 2_000);
    assert!(moves * 20 < jobs, "{moves} moves in {jobs} jobs");
}

/// There, neither a little less of a price elsewhere nor a need that goes up and down takes it away.
#[test]
fn who_has_room_on_its_cpu_stays_there() {
    let Course {
        jobs,
        moves,
        missed,
    } = course_of("stays");
    assert!(jobs > 900);
    assert!(moves * 50 < jobs, "{moves} moves in {jobs} jobs");
    assert!(missed * 100 < jobs, "{missed} of {jobs} jobs missed");
}
