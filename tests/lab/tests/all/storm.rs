//! The scheduler in a storm: tasks that fork, start threads, wait for futexes, yield, switch, and change their
//! affinity by the thousand, while every CPU in its turn goes away and comes back.
//!
//! Once, in `make test`; for `JOULE_SOAK_S` seconds of the host's clock, each time with other seeds, in
//! `make soak`. The guest has the host's clock, as it is orders of events that count here, and many of them.

use crate::common::{hand, lab, number, scheduler, section, succeed, values};
use lab::machine::Machine;
use std::path::Path;
use std::time::{Duration, Instant};

/// The emulator's CPU time that one storm may take.
const LIMIT: Duration = Duration::from_secs(1800);
/// What the kernel says of a scheduler that was not at fault: stopped by a signal, or by a CPU that came or went.
const ENDINGS: [&str; 2] = [
    "unregistered from user space",
    "unregistered from the main kernel",
];
/// Seconds of storm before, between and after six changes: two minutes in all.
const BREATH_S: u32 = 18;

/// The scheduler starts anew when a CPU goes or comes, and says so in its log. That takes seconds, most of them for
/// the verifier, and the storm holds its breath for so long: it is to meet this scheduler, not the kernel's. Nobody
/// changes policies: of deadline tasks on a CPU that goes, Linux 7.3 warns by itself (dl_task_timer).
const SCRIPT: &str = r#"
. /lab/shell.sh
storm=/sys/fs/cgroup/storm
mkdir $storm
governor schedutil
start --stats 10
stressors='--fork 1 --futex 1 --switch 1 --yield 1 --affinity 1 --pthread 1'
(echo 0 > $storm/cgroup.procs; exec stress-ng --quiet --seed $SEED $stressors) & stress=$!
starts=1
turn() {
    echo "cpu $1: $2"
    echo $2 > /sys/devices/system/cpu/cpu$1/online || fail "CPU $1 does not turn $2"
    echo 1 > $storm/cgroup.freeze
    starts=$((starts + 1))
    started $starts
    echo 0 > $storm/cgroup.freeze
    sleep $BREATH
    lasted
}
# the sums: who happens to be awake is in them by right, what the storm left would stay
calm() {
    for _ in $(seq 10); do
        joule-hand residue 1000 > /tmp/residue
        grep -qv ' 0$' /tmp/residue || break
    done
    cat /tmp/residue
}
sleep $BREATH
lasted
for cpu in /sys/devices/system/cpu/cpu[1-9]*; do
    turn ${cpu##*cpu} 0
    turn ${cpu##*cpu} 1
done
kill -0 $stress || fail 'the storm is over'
# at once: asked to end, each stressor would finish its round first
echo 1 > $storm/cgroup.kill; wait $stress
say starts echo $starts
say calm calm
lasted
stop
say log cat /tmp/log
say dmesg dmesg
"#;

fn weather_a_storm(seed: u64) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/storm/four-cpus.toml");
    let machine = Machine::load(&file).unwrap();
    let script = format!("SEED={seed} BREATH={BREATH_S}.{seed:03}\n{SCRIPT}");
    let guest = lab()
        .machine("storm", &machine)
        .program(scheduler())
        .program(hand())
        .program("stress-ng")
        .host_clock()
        .time_limit(LIMIT);
    let results = succeed(&guest.script(&script)).results;
    assert_eq!(number(&results, "starts"), 7);
    for value in ["nr_counted", "est_cap", "sum_cap", "nr_waiting"] {
        assert_eq!(values(&results, "calm")[value], "0", "{value}");
    }
    let dmesg = section(&results, "dmesg");
    let mut endings = 0;
    for line in dmesg.lines() {
        let ending = line.split_once(r#"sched_ext: BPF scheduler "joule"#);
        if let Some((_, reason)) = ending.and_then(|(_, rest)| rest.split_once("disabled (")) {
            assert!(ENDINGS.iter().any(|it| reason.starts_with(it)), "{line}");
            endings += 1;
        }
    }
    assert_eq!(endings, 7, "{dmesg}");
}

#[test]
fn it_weathers_a_storm_in_which_each_cpu_goes_and_comes_back() {
    let wanted = std::env::var("JOULE_SOAK_S").map_or(0, |text| text.parse().unwrap());
    let started = Instant::now();
    for seed in 1.. {
        weather_a_storm(seed);
        eprintln!("storm {seed} weathered after {:?}", started.elapsed());
        if started.elapsed() >= Duration::from_secs(wanted) {
            break;
        }
    }
}
