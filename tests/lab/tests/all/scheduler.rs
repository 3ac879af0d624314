//! The scheduler on real kernels: it loads, works and leaves, and whatever ends it, the kernel's own is back.

use crate::common::{
    Lab, both_and_any_thread_ns, joule_load, lab, number, scheduler, section, succeed, workload,
};
use lab::catalogue;
use lab::guest::Guest;
use lab::truth::Truth;
use serde_json::Value;

/// What all scripts begin with.
const HEAD: &str = r#"
. /lab/shell.sh
code() { "$@" > /tmp/log 2>&1; echo $?; cat /tmp/log; }
"#;

/// A guest that has the scheduler.
fn scheduled<'a>(lab: &'a Lab, name: &str, machine: &str) -> Guest<'a> {
    let machine = catalogue::machine(machine).unwrap();
    lab.machine(name, &machine).program(scheduler())
}

fn phone(name: &str) -> Guest<'static> {
    scheduled(lab(), name, "phone-3c-gs101")
}

fn loads_works_and_leaves(series: &str, machine: &str) {
    let lab = Lab::on(series);
    let name = format!("stress-{series}-{machine}");
    works_and_leaves(scheduled(&lab, &name, machine));
}

fn works_and_leaves(guest: Guest<'_>) {
    let guest = guest.program("stress-ng");
    let run = succeed(&guest.script(&format!(
        "{HEAD}
        start --stats 1
        stress-ng --quiet --cpu 2 --fork 1 --futex 1 --switch 1 --timeout 1 || fail stress-ng
        lasted
        stop
        say log cat /tmp/log
        say dmesg dmesg"
    )));
    let dmesg = section(&run.results, "dmesg");
    assert!(
        dmesg.contains("disabled (unregistered from user space)"),
        "{dmesg}"
    );
    let log = section(&run.results, "log");
    assert!(log.contains("placed idle"), "no statistics:\n{log}");
}

#[test]
fn it_loads_works_and_leaves_on_the_newest_kernel_where_it_sets_the_clock() {
    loads_works_and_leaves("newest", "phone-3c-gs101");
}

#[test]
fn it_loads_works_and_leaves_on_the_newest_kernel_where_hardware_sets_the_clock() {
    loads_works_and_leaves("newest", "laptop-smt");
}

#[test]
fn it_loads_works_and_leaves_on_an_older_kernel_where_it_sets_the_clock() {
    loads_works_and_leaves("7.2", "phone-3c-gs101");
}

#[test]
fn it_loads_works_and_leaves_on_an_older_kernel_where_hardware_sets_the_clock() {
    loads_works_and_leaves("7.2", "laptop-smt");
}

/// The oldest verifier loads it, too. There is no module of the virtual SoC for it: nothing sets clocks.
#[test]
fn it_loads_works_and_leaves_on_the_oldest_kernel_with_one_group_and_with_many_of_two_threads() {
    let lab = Lab::on("6.18");
    for (name, threads, caches) in [("one", 1, 1), ("many", 2, 4)] {
        let guest = lab.guest(&format!("stress-oldest-{name}"));
        works_and_leaves(guest.program(scheduler()).cpus(8, threads).sockets(caches));
    }
}

/// As small cores beside ones of two threads have none, and as cores of which one thread is offline.
#[test]
fn cores_of_one_thread_are_scheduled_beside_those_of_two() {
    let guest = scheduled(lab(), "lone-threads", "laptop-smt").program(joule_load());
    let load = catalogue::workload("messaging").unwrap();
    succeed(&guest.file(&load, "/lab/load.json").script(&format!(
        "{HEAD}
        for cpu in 3 5 7; do echo 0 > /sys/devices/system/cpu/cpu$cpu/online; done
        start
        joule-load run /lab/load.json > /tmp/load 2>&1 || fail joule-load
        lasted
        stop"
    )));
}

/// Four tasks that never sleep begin on two cores, as the other two are taken. When those are given back, each task goes
/// on with a core of its own.
#[test]
fn who_shares_a_core_for_long_goes_on_with_one_that_idles() {
    let guest = scheduled(lab(), "crowded-cores", "laptop-smt").program(joule_load());
    let results = succeed(
        &guest
            .file(workload("busy"), "/lab/busy.json")
            .script(&format!(
                r#"{HEAD}
        start
        for cpu in 0 1 4 5; do
            taskset -c $cpu joule-load run /lab/busy.json > /dev/null & taken="$taken $!"
        done
        sleep 0.2
        for task in 1 2 3 4; do joule-load run /lab/busy.json > /dev/null & done
        sleep 0.2; say shared cat $vsoc/truth
        sleep 0.2; say still-shared cat $vsoc/truth
        kill -INT $taken
        sleep 0.2; say given-back cat $vsoc/truth
        sleep 1; say end cat $vsoc/truth
        lasted"#
            )),
    )
    .results;
    let paired_pct = |from, to| {
        let truth = |name| Truth::parse(section(&results, name)).unwrap();
        let (both, any) = both_and_any_thread_ns(&truth(to).since(&truth(from)).unwrap());
        eprintln!("{from} to {to}: both threads for {both} of {any} ns");
        100 * both / any
    };
    assert!(paired_pct("shared", "still-shared") >= 90);
    assert!(paired_pct("given-back", "end") <= 5);
}

/// Whose CPU is taken by a task that may run nowhere else goes on with another CPU of those that it may use: it waits for a
/// small part of the time that it runs for.
#[test]
fn who_loses_its_cpu_to_one_that_is_pinned_there_goes_on_elsewhere() {
    let guest = scheduled(lab(), "chased", "laptop-smt").program(joule_load());
    let results = succeed(
        &guest
            .file(workload("chased"), "/lab/chased.json")
            .script(&format!(
                r#"{HEAD}
        start
        joule-load run /lab/chased.json > /dev/null &
        sleep 2.5
        for task in /proc/$!/task/*; do
            if grep -q chased $task/comm; then say chased cat $task/schedstat; fi
        done
        lasted"#
            )),
    )
    .results;
    let mut times = section(&results, "chased").split_whitespace();
    let mut next_ns = || times.next().unwrap().parse::<u64>().unwrap();
    let (ran_ns, waited_ns) = (next_ns(), next_ns());
    assert!(
        ran_ns > 0 && waited_ns * 8 <= ran_ns,
        "{waited_ns} of {ran_ns} ns"
    );
}

/// Four caches of two CPUs each, in two memory nodes. Where the CPUs of its cache are taken, a task goes to the other cache
/// of its node, whose number is the smaller one.
#[test]
fn who_finds_no_idle_cpu_under_its_cache_stays_with_its_memory() {
    let guest = lab().guest("nodes").program(scheduler());
    let guest = guest.program(joule_load()).sockets(4).nodes(2);
    let results = succeed(
        &guest
            .file(workload("strays"), "/lab/strays.json")
            .script(&format!(
                r#"{HEAD}
        say nodes cat /sys/devices/system/node/node1/cpulist
        start
        cd /sys/kernel/tracing
        echo 'next_comm ~ "stray*"' > events/sched/sched_switch/filter
        echo 1 > events/sched/sched_switch/enable
        joule-load run /lab/strays.json > /dev/null
        echo 0 > tracing_on
        say runs grep 'next_comm=stray' trace
        lasted"#
            )),
    )
    .results;
    assert_eq!(section(&results, "nodes").trim(), "4-7");
    // `third-123  [002] d..2.  1.608044: sched_switch: prev_comm=third ... next_comm=stray-0 ...`
    let cpus = section(&results, "runs")
        .split(['[', ']'])
        .skip(1)
        .step_by(2);
    let cpus: Vec<u32> = cpus.filter_map(|cpu| cpu.parse().ok()).collect();
    let count = |there: fn(&u32) -> bool| cpus.iter().filter(|it| there(it)).count();
    let (near, far) = (count(|&cpu| cpu < 2), count(|&cpu| cpu >= 4));
    assert!(
        near > 20 && near > 20 * far,
        "{near} near, {far} far: {cpus:?}"
    );
}

/// The kernel has one idle CPU take care of all CPUs' timers: a kernel thread that such a timer wakes, whatever CPU it
/// ran on, need not wake another one.
#[test]
fn who_is_waked_by_the_timers_of_an_idle_cpu_runs_there() {
    let trace = succeed(&phone("waked").script(&format!(
        r#"{HEAD}
        start
        sleep 4
        cd /sys/kernel/tracing
        echo 'comm == "kcompactd0"' > events/sched/sched_waking/filter
        echo 'next_comm == "kcompactd0"' > events/sched/sched_switch/filter
        echo 1 > events/sched/sched_waking/enable
        echo 1 > events/sched/sched_switch/enable
        sleep 12
        echo 0 > tracing_on
        say waked grep kcompactd0 trace
        lasted"#
    )))
    .results;
    // `<idle>-0  [000] d.s3.  44.608044: sched_waking: comm=kcompactd0 ...`, and then the switch to it
    let events: Vec<(&str, bool)> = section(&trace, "waked")
        .lines()
        .filter_map(|line| {
            let cpu = line.split_whitespace().find(|word| word.starts_with('['))?;
            Some((cpu, line.contains("sched_waking:")))
        })
        .collect();
    let runs = events.windows(2).filter(|pair| pair[0].1 && !pair[1].1);
    let (here, elsewhere): (Vec<_>, Vec<_>) = runs.partition(|pair| pair[0].0 == pair[1].0);
    assert!(
        here.len() > 2 * elsewhere.len(),
        "{} here, {} elsewhere:\n{trace}",
        here.len(),
        elsewhere.len()
    );
}

/// Eight tasks that together need a fifth of the middle cluster, where work is cheapest, wait for its two CPUs rather than
/// wake another cluster. By prices alone a third of what they do is done elsewhere. Nothing is tried meanwhile.
#[test]
fn light_loads_share_the_cluster_where_work_is_cheapest() {
    let light = catalogue::workload("periodic-05").unwrap();
    let guest = phone("light").program(joule_load());
    let results = succeed(&guest.file(light, "/lab/light.json").script(&format!(
        r#"{HEAD}
        start --no-steer
        joule-load run /lab/light.json --seed 1 --duration 4 > /dev/null &
        sleep 1; say begin cat $vsoc/truth
        sleep 3; say end cat $vsoc/truth
        lasted"#
    )))
    .results;
    let truth = |name| Truth::parse(section(&results, name)).unwrap();
    let busy: Vec<(String, u64)> = (truth("end").since(&truth("begin")).unwrap().clusters)
        .into_iter()
        .map(|cluster| {
            let busy = cluster.opps.iter().map(|opp| opp.busy_ns).sum();
            (cluster.name, busy)
        })
        .collect();
    let all: u64 = busy.iter().map(|(_, busy)| busy).sum();
    let home = busy.iter().find(|(name, _)| name == "mid").unwrap().1;
    assert!(home * 5 >= all * 4, "{busy:?}");
}

#[test]
fn whatever_ends_it_the_kernels_scheduler_is_back() {
    let run = succeed(&phone("endings").script(&format!(
        r#"{HEAD}
        start
        kill -STOP $pid; sleep 1; say stopped state; kill -CONT $pid; sleep 0.2; say continued state
        say second code scx_joule
        kill -KILL $pid; await disabled; wait $pid
        say killed echo $?

        start
        echo 0 > /sys/devices/system/cpu/cpu3/online; started 2
        echo 1 > /sys/devices/system/cpu/cpu3/online; started 3; say replugged cat /tmp/log
        stop

        start
        echo S > /proc/sysrq-trigger; await disabled; wait $pid
        say ejected echo $?
        say ejected-log cat /tmp/log

        (ulimit -n 24; say refused code scx_joule)
        say after-refusal state"#
    )));
    let text = |name: &str| section(&run.results, name).trim();
    assert_eq!(text("stopped"), "enabled");
    assert_eq!(text("continued"), "enabled");
    assert!(text("second").starts_with("3\n"), "{}", text("second"));
    assert!(text("second").contains("already"), "{}", text("second"));
    assert_eq!(number(&run.results, "killed"), 137);
    let replugged = text("replugged");
    assert_eq!(
        replugged.matches("starting again").count(),
        2,
        "{replugged}"
    );
    assert_eq!(
        replugged.matches("scheduling 7 CPUs").count(),
        1,
        "{replugged}"
    );
    assert_eq!(number(&run.results, "ejected"), 1);
    assert!(
        text("ejected-log").contains("sysrq"),
        "{}",
        text("ejected-log")
    );
    assert!(text("refused").starts_with("1\n"), "{}", text("refused"));
    assert!(
        text("refused").contains("Failed to load"),
        "{}",
        text("refused")
    );
    assert_eq!(text("after-refusal"), "disabled");
}

#[test]
fn what_it_cannot_do_is_said_in_a_sentence_and_changes_nothing() {
    let run = succeed(&phone("refusals").script(&format!(
        r#"{HEAD}
        say check scx_joule check --json
        say option code scx_joule --faster
        say profile code scx_joule --profile turbo
        printf 'intent = "x"\nslice_us = 5\nheadroom_pct = 125\nhysteresis_pct = 5\npatience_us = 0\nwait_us = 100\n' > /tmp/wrong.toml
        say file code scx_joule --profile /tmp/wrong.toml
        echo 'nobody:x:65534:65534::/:/bin/sh' > /etc/passwd
        say unprivileged code su nobody -c scx_joule
        mount -t tmpfs none /sys/kernel/btf
        say no-btf code scx_joule
        umount /sys/kernel/btf
        mount -t tmpfs none /sys/kernel/sched_ext
        say no-sched-ext code scx_joule
        umount /sys/kernel/sched_ext
        say state state
        say explained scx_joule --help-stats"#
    )));
    let text = |name: &str| section(&run.results, name).trim();
    let check: Value = serde_json::from_str(text("check")).unwrap();
    assert_eq!(check["able"], true, "{check}");
    assert_eq!(
        check["energy"]["chosen"]["package"], "perf-power",
        "{check}"
    );
    assert_eq!(
        check["topology"]["groups"].as_array().unwrap().len(),
        3,
        "{check}"
    );
    let refused = |name: &'static str, code: &str, words: &[&str]| {
        let said = text(name);
        assert!(said.starts_with(&format!("{code}\n")), "{name}: {said}");
        for word in words {
            assert!(
                said.contains(word),
                "{name} does not mention '{word}': {said}"
            );
        }
    };
    refused("option", "2", &["--faster"]);
    refused("profile", "2", &["'turbo'", "battery"]);
    refused(
        "file",
        "2",
        &["/tmp/wrong.toml:2:", "slice_us = 5", "100..=20000"],
    );
    refused("unprivileged", "3", &["CAP_BPF"]);
    refused("no-btf", "3", &["BTF"]);
    refused("no-sched-ext", "3", &["sched_ext"]);
    assert_eq!(text("state"), "disabled");
    assert!(text("explained").contains("placed_idle"));
}

#[test]
fn a_dry_run_measures_and_fits_and_leaves_the_kernels_scheduler_alone() {
    let workload = catalogue::workload("light-periodic").unwrap();
    let run = succeed(
        &phone("dry-run")
            .program(joule_load())
            .file(workload, "/lab/load.json")
            .script(&format!(
                r#"{HEAD}
        joule-load run /lab/load.json --seed 1 --duration 12 > /tmp/load &
        sleep 1
        scx_joule --dry-run --json > /tmp/json 2> /tmp/log & json=$!
        scx_joule --dry-run --stats 0.5 > /tmp/text 2>> /tmp/log & text=$!
        sleep 1
        uj=$(cat $energy)
        for _ in 1 2 3 4 5 6 7 8; do sleep 1; [ $(state) = disabled ] || fail 'it schedules'; done
        say uj echo $(($(cat $energy) - uj))
        kill -INT $json $text
        wait $json && wait $text || fail "ended with exit code $?"
        say json cat /tmp/json
        say text cat /tmp/text
        say log cat /tmp/log
        say attached cat /sys/kernel/sched_ext/enable_seq"#
            )),
    );
    assert_eq!(number(&run.results, "attached"), 0);
    let said: Vec<Value> = (section(&run.results, "json").lines())
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // The first of them has nothing to compare with yet, and says so.
    let mean = |figure: &str| {
        let watts: Vec<f64> = (said.iter().skip(1).rev().take(8))
            .map(|stats| stats[figure].as_f64().unwrap())
            .collect();
        assert!(watts.iter().all(|watts| *watts >= 0.0), "{watts:?}");
        watts.iter().sum::<f64>() / f64::from(u32::try_from(watts.len()).unwrap())
    };
    let (measured, modelled) = (mean("measured_w"), mean("model_w"));
    let truth = f64::from(u32::try_from(number(&run.results, "uj")).unwrap()) / 8e6;
    assert!(
        (measured / truth - 1.0).abs() < 0.1,
        "measured {measured} W, truth {truth} W"
    );
    assert!(
        (modelled / truth - 1.0).abs() < 0.25,
        "by the model {modelled} W, truth {truth} W"
    );
    let last = said.last().unwrap();
    assert!(last["samples"].as_u64().unwrap() >= 7, "{last}");
    // A running mean of what each line was off.
    let figure = |stats: &Value, name: &str| stats[name].as_f64().unwrap();
    let errors = said
        .iter()
        .skip(1)
        .map(|stats| 100.0 * (figure(stats, "model_w") / figure(stats, "measured_w") - 1.0).abs());
    let (least, most) = errors.fold((f64::MAX, 0.0_f64), |(least, most), error| {
        (least.min(error), most.max(error))
    });
    let error = figure(last, "model_error_pct");
    assert!(
        (least - 1e-6..=most + 1e-6).contains(&error),
        "{error} of {least} to {most}: {last}"
    );
    let text = section(&run.results, "text");
    assert!(text.contains("would go to the first of class"), "{text}");
}

/// Shell functions for cgroups that compete for the two big CPUs, after [`HEAD`].
const COMPETE: &str = r#"
root=/sys/fs/cgroup
echo +cpu > $root/cgroup.subtree_control
# A task in a cgroup, busy for ever on these CPUs.
spin_on() {
    taskset -c $2 joule-load run /lab/busy.json > /dev/null &
    last=$!; spinners="$spinners $last"
    echo $last > $root/$1/cgroup.procs
}
spin() { spin_on $1 6,7; }
usage() { sed -n 's/usage_usec //p' $root/$1/cpu.stat; }
# What two cgroups use in two seconds.
compare() {
    set -- $1 $2 $(usage $1) $(usage $2)
    sleep 2
    echo $(($(usage $1) - $3)) $(($(usage $2) - $4))
}
"#;

/// What [`COMPETE`] needs. Its tasks work by the lab's device: the emulator may withhold the ticks of a CPU
/// that loops for seconds.
fn competing(guest: Guest<'_>) -> Guest<'_> {
    guest
        .program(joule_load())
        .file(workload("busy"), "/lab/busy.json")
}

/// How what the first cgroup used compares to what the second did, in one of [`COMPETE`]'s.
fn ratio(results: &str, name: &str) -> f64 {
    let mut used = section(results, name).split_whitespace();
    let mut next = || used.next().unwrap().parse::<f64>().unwrap();
    let (first, second) = (next(), next());
    eprintln!("{name}: {first} and {second} us");
    assert!(
        first + second > 3.9e6,
        "{first} and {second} us of two CPUs"
    );
    first / second
}

fn cgroups_get_what_their_weights_say(series: &str) {
    let lab = Lab::on(series);
    let guest = scheduled(&lab, &format!("cgroups-{series}"), "phone-3c-gs101");
    let run = succeed(&competing(guest).script(&format!(
        r#"{HEAD}{COMPETE}
        mkdir $root/heavy; echo 300 > $root/heavy/cpu.weight
        spin heavy; spin heavy
        start
        mkdir $root/out; echo +cpu > $root/out/cgroup.subtree_control; mkdir $root/out/light
        spin out/light
        # each task finds its place first, here and below
        sleep 1; say weighted compare heavy out
        echo 100 > $root/heavy/cpu.weight
        sleep 1; say equal compare heavy out
        # one of three goes: what a cgroup is due does not depend on how many are in it
        kill $last; spin heavy; echo $last > $root/out/light/cgroup.procs
        spin out/light
        sleep 1; say moved compare heavy out
        kill $spinners; wait $spinners
        rmdir $root/heavy $root/out/light $root/out
        lasted; stop"#
    )));
    let dues = [("weighted", 3.0), ("equal", 1.0), ("moved", 1.0)];
    for (name, due, got) in dues.map(|(name, due)| (name, due, ratio(&run.results, name))) {
        // Turns alone give 2, 2 and 1; a weight that goes unnoticed 3 for 1, a move 1/3.
        assert!((got / due - 1.0).abs() < 0.1, "{name}: {got} for {due}");
    }
}

/// Tasks that ran alone for long have no debts, nor has one that was born where time had passed
/// faster: each gets its share from the start.
#[test]
fn newcomers_and_those_before_them_share_at_once() {
    let run = succeed(&competing(phone("newcomers")).script(&format!(
        r#"{HEAD}{COMPETE}
        taskset -p -c 0-3 $$
        mkdir $root/before $root/after $root/fast
        # little CPUs' virtual time passes ten times as fast
        echo 10 > $root/fast/cpu.weight; spin_on fast 1
        start
        spin before; spin before
        sleep 3
        say alone compare before after
        spin after; spin after
        say both compare after before
        kill $spinners; wait $spinners
        rmdir $root/before $root/after $root/fast
        lasted; stop"#
    )));
    assert!(ratio(&run.results, "alone").is_infinite());
    let got = ratio(&run.results, "both");
    assert!((got - 1.0).abs() < 0.1, "{got} for 1");
}

#[test]
fn cgroups_get_what_their_weights_say_on_the_newest_kernel() {
    cgroups_get_what_their_weights_say("newest");
}

#[test]
fn cgroups_get_what_their_weights_say_on_an_older_kernel() {
    cgroups_get_what_their_weights_say("7.2");
}
