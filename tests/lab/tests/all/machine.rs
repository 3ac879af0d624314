//! The virtual SoC in a guest: its speeds, its energy, its meters, its switches, and that all of it repeats.

use crate::common::{SHELL_PATH, joule_load, lab, number, section, succeed};
use lab::catalogue;
use lab::guest::{Guest, Outcome};
use lab::machine::Machine;
use lab::truth::Truth;
use serde_json::Value;

fn phone() -> Machine {
    catalogue::machine("phone-3c-gs101").unwrap()
}

fn guest(name: &str) -> Guest<'static> {
    lab().machine(name, &phone()).program(joule_load())
}

fn with_load(guest: Guest<'static>, workload: &str) -> Guest<'static> {
    guest.file(catalogue::workload(workload).unwrap(), "/lab/load.json")
}

fn script(body: &str) -> String {
    format!(". {SHELL_PATH}\n{body}")
}

fn report(outcome: &Outcome, name: &str) -> Value {
    serde_json::from_str(section(&outcome.results, name).trim()).unwrap()
}

fn energy_uj(outcome: &Outcome, name: &str) -> u64 {
    report(outcome, name)["energy_uj"].as_u64().unwrap()
}

/// How far `value` is from `right`, in millionths of it.
fn error_ppm(value: u64, right: u64) -> u64 {
    value.abs_diff(right) * 1_000_000 / right
}

fn measured(name: &str) -> Outcome {
    let guest = with_load(guest(name), "light-periodic").program("perf");
    succeed(&guest.script(&script(
        r#"cat > /tmp/measured <<'EOF'
cat /sys/kernel/debug/vsoc/energy_uj > /tmp/before
joule-load run /lab/load.json --seed 1 --duration 3 --meter /sys/kernel/debug/vsoc/energy_uj --json > /tmp/load
code=$?
cat /sys/kernel/debug/vsoc/energy_uj > /tmp/after
exit $code
EOF
governor schedutil
say truth-before cat $vsoc/truth
# by its code, so that perf prints the count, and not joules with two decimals
package=/sys/bus/event_source/devices/power/events/energy-pkg
perf stat -a -x, -o /tmp/perf -e power/$(cat $package)/ -- sh /tmp/measured || exit 1
say truth-after cat $vsoc/truth
for file in before load after; do say $file cat /tmp/$file; done
say scale cat $package.scale
say perf grep power /tmp/perf"#,
    )))
}

#[test]
fn energy_is_what_the_residencies_cost_and_what_perf_reads_and_it_repeats() {
    let run = measured("energy-1");
    let truth = |name| Truth::parse(section(&run.results, name)).unwrap();
    let spent = truth("truth-after").since(&truth("truth-before")).unwrap();
    let error = spent.error_ppm(&phone()).unwrap();
    assert!(error <= 1_000, "the module is {error} ppm off: {spent:?}");

    // perf counts the start and the end of the shell around the two readings, too
    let between = number(&run.results, "after") - number(&run.results, "before");
    let text = section(&run.results, "perf");
    let count: f64 = text.split(',').next().unwrap().trim().parse().unwrap();
    let scale: f64 = section(&run.results, "scale").trim().parse().unwrap();
    let joules = count * scale;
    let module = f64::from(u32::try_from(between).unwrap()) / 1e6;
    assert!(
        (joules / module - 1.0).abs() <= 0.005,
        "perf says {joules} J, the module {module} J"
    );

    let (one, other) = (
        energy_uj(&run, "load"),
        energy_uj(&measured("energy-2"), "load"),
    );
    assert!(error_ppm(other, one) <= 1_000, "{one} and {other} uJ");
}

#[test]
fn a_mixed_interactive_load_repeats() {
    let energy = |name| {
        let guest = with_load(guest(name), "mixed-interactive");
        let run = succeed(&guest.script(&script(
            "governor schedutil
             say load joule-load run /lab/load.json --seed 1 --duration 3 --meter $energy --json",
        )));
        energy_uj(&run, "load")
    };
    let (one, other) = (energy("mixed-1"), energy("mixed-2"));
    assert!(error_ppm(other, one) <= 5_000, "{one} and {other} uJ");
}

/// 12 to 39 % were measured over five seeds.
#[test]
fn eas_starts_and_a_light_load_costs_more_without_it() {
    let run = succeed(&with_load(guest("eas"), "light-periodic").script(&script(
        "governor schedutil
         aware=/proc/sys/kernel/sched_energy_aware
         load() { joule-load run /lab/load.json --seed 1 --warmup 1 --duration 3 --meter $energy --json; }
         say on cat $aware
         say with load
         echo 0 > $aware
         say off cat $aware
         say without load",
    )));
    assert_eq!(number(&run.results, "on"), 1);
    assert_eq!(number(&run.results, "off"), 0);
    let (with, without) = (energy_uj(&run, "with"), energy_uj(&run, "without"));
    assert!(
        without * 100 > with * 105,
        "{with} uJ with EAS, {without} without"
    );
    let work = |name| report(&run, name)["total"]["work_us"].as_u64().unwrap();
    assert!(
        error_ppm(work("without"), work("with")) < 10_000,
        "unequal work"
    );
}

#[test]
fn work_takes_time_by_capacity_and_frequency() {
    let machine = phone();
    let cpus: Vec<u32> = machine
        .clusters
        .iter()
        .map(|cluster| cluster.cpus[0])
        .collect();
    let fixed: String = cpus
        .iter()
        .map(|cpu| format!("say cpu{cpu} joule-load fixed --cpu {cpu} --work-ms 100 --json\n"))
        .collect();
    let slow = machine.clusters[0].opps[0];
    let limit = format!(
        "echo {} > /sys/devices/system/cpu/cpu{}/cpufreq/scaling_max_freq\n",
        slow.khz, cpus[0]
    );
    let at_lowest = format!(
        "say slow joule-load fixed --cpu {} --work-ms 20 --json\n",
        cpus[0]
    );
    let body = format!("governor performance\n{fixed}{limit}{at_lowest}");
    let run = succeed(&guest("work").script(&script(&body)));
    let right = |name: &str, capacity: u32| {
        let report = report(&run, name);
        let (work, cpu) = (
            report["work_us"].as_u64().unwrap(),
            report["cpu_us"].as_u64().unwrap(),
        );
        let expected = work * 1024 / u64::from(capacity);
        assert!(
            error_ppm(cpu, expected) <= 10_000,
            "{name}: {cpu} us instead of {expected}"
        );
    };
    for (cpu, cluster) in cpus.iter().zip(&machine.clusters) {
        right(&format!("cpu{cpu}"), cluster.capacity());
    }
    right("slow", slow.capacity);
}

#[test]
fn every_switch_does_what_it_says() {
    let machine = phone();
    let big = machine.clusters.last().unwrap();
    let cpu = big.cpus[0];
    let name = &big.name;
    let body = format!(
        r#"
rapl=/sys/class/powercap/intel-rapl:0
package=$rapl/energy_uj
governor performance
work() {{ joule-load fixed --cpu {cpu} --work-ms 100 --meter $energy --json; }}
em() {{ cat /sys/kernel/debug/energy_model/cpu{cpu}/ps:*/power | awk '{{ sum += $1 }} END {{ print sum }}'; }}
there() {{ [ -e $1 ] && echo 1 || echo 0; }}
readable() {{ cat $1 > /dev/null 2>&1 && echo 1 || echo 0; }}

say plain work
control scale {name} 2000; say doubled work
control scale {name} 1000; say undoubled work

say em-plain em
control em {name} 500; say em-halved em

control withhold powercap; say withheld there $rapl
control withhold pmu; say withheld-pmu there /sys/bus/event_source/devices/power
control offer powercap; say offered there $rapl
control offer pmu; say offered-pmu there /sys/bus/event_source/devices/power

control fail powercap 1; say failing readable $package
control fail powercap 0; say healed readable $package

say before-freeze cat $package
control freeze powercap 1
say frozen-1 cat $package; sleep 2; say frozen-2 cat $package
control freeze powercap 0; say thawed cat $package

say before-step cat $package
control step powercap 5000000; say stepped cat $package
control back powercap 4000000; say back cat $package

control wrap powercap 70000
say range cat $rapl/max_energy_range_uj
sleep 3; say wrapped cat $package
control wrap powercap 0; say unwrapped cat $rapl/max_energy_range_uj

control noise powercap 500 7
say noisy-before cat $package; say true-before cat $energy
sleep 5
say noisy-after cat $package; say true-after cat $energy
"#
    );
    let run = succeed(&guest("switches").script(&script(&body)));
    let value = |name| number(&run.results, name);

    let (plain, doubled) = (energy_uj(&run, "plain"), energy_uj(&run, "doubled"));
    let ratio = doubled * 1000 / plain;
    assert!(
        (1_700..=2_000).contains(&ratio),
        "scale: {plain} uJ became {doubled}"
    );
    let undone = error_ppm(energy_uj(&run, "undoubled"), plain);
    assert!(undone < 50_000, "scale undone is {undone} ppm off");
    let halved = error_ppm(value("em-halved") * 2, value("em-plain"));
    assert!(halved < 10_000, "em: {halved} ppm off");

    for (name, there) in [
        ("withheld", 0),
        ("withheld-pmu", 0),
        ("offered", 1),
        ("offered-pmu", 1),
    ] {
        assert_eq!(value(name), there, "{name}");
    }
    assert_eq!((value("failing"), value("healed")), (0, 1));
    assert_eq!(value("frozen-1"), value("frozen-2"));
    assert!(value("thawed") > value("frozen-2") && value("frozen-1") >= value("before-freeze"));
    assert!(value("stepped") - value("before-step") >= 5_000_000);
    assert!(value("back") < value("stepped"));
    assert_eq!(value("range"), 70_000);
    assert!(value("wrapped") < 70_000);
    assert!(value("unwrapped") > 70_000);
    let (noisy, right) = (
        value("noisy-after") - value("noisy-before"),
        value("true-after") - value("true-before"),
    );
    assert!(
        error_ppm(noisy, right) > 10_000,
        "noise: {noisy} and {right} uJ"
    );
}

#[test]
fn groups_share_a_cpu_by_their_weights_and_leave_no_trace() {
    let cpu = phone().clusters.last().unwrap().cpus[0];
    let spin = |name: &str, group: &str| {
        format!(r#""{name}": {{"taskgroup": "{group}", "cpus": [{cpu}], "run": 1000000000}}"#)
    };
    let spins = format!(
        r#"{{"global": {{"taskgroups": {{"/heavy": {{"weight": 300}}, "/out/light": {{"weight": 100}}}}}},
            "tasks": {{{}, {}}}}}"#,
        spin("heavy", "/heavy"),
        spin("light", "/out/light")
    );
    let guest = guest("groups").text("/lab/spins.json", &spins);
    let run = succeed(&guest.script(&script(
        r#"root=/sys/fs/cgroup
traces() { find $root -mindepth 1 -type d; cat $root/cgroup.subtree_control; }
run() { joule-load run /lab/spins.json "$@"; }
say before traces
say plain run --seed 1 --duration 4 --json
say after traces

say interrupted eval 'joule-load run /lab/spins.json --duration 60 > /dev/null & sleep 1; traces; kill -INT $!; wait $!; echo $?'
say after-interrupt traces

mkdir $root/heavy
echo threaded > $root/heavy/cgroup.type
echo +cpu > $root/cgroup.subtree_control
echo 42 > $root/heavy/cpu.weight
say used run --duration 1
say kept eval 'traces; cat $root/heavy/cpu.weight'

mkdir $root/out
say refused eval 'run --duration 1 2>&1; echo $?'
umount $root
say unmounted eval 'run --duration 1 2>&1; echo $?'"#,
    )));
    let text = |name| section(&run.results, name);

    let cpu_us = |task: usize| {
        report(&run, "plain")["tasks"][task]["cpu_us"]
            .as_u64()
            .unwrap()
    };
    let (heavy, light) = (cpu_us(0), cpu_us(1));
    let error = error_ppm(heavy, 3 * light);
    assert!(error <= 100_000, "{heavy} and {light} us, {error} ppm off");
    assert!(heavy + light > 3_900_000, "{heavy} and {light} us");

    assert!(!text("before").contains("cpu") && !text("before").contains("/heavy"));
    assert_eq!(text("after"), text("before"));
    for trace in ["/heavy", "/out/light", "cpu", "\n130\n"] {
        let found = text("interrupted");
        assert!(found.contains(trace), "no {trace} in {found}");
    }
    assert_eq!(text("after-interrupt"), text("before"));
    assert_eq!(text("kept"), "/sys/fs/cgroup/heavy\ncpu\n42\n");
    let refused = "joule-load: /sys/fs/cgroup/out/cgroup.type: is 'domain', must be 'threaded'";
    assert!(text("refused").starts_with(refused) && text("refused").ends_with("\n1\n"));
    assert!(text("unmounted").contains("no cgroup2 is mounted: mount -t cgroup2"));
}
