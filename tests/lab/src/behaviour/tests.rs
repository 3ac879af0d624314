use super::workload::{Phase, Task};
use super::*;
use crate::catalogue;

fn machine() -> Machine {
    catalogue::machine("phone-3c-gs101").unwrap()
}

fn behaviour(name: &str) -> Behaviour {
    let all = workload::all(&machine()).unwrap();
    all.into_iter().find(|it| it.name == name).unwrap()
}

/// Every task switched to at the start of each activation, on the CPU that `cpu_of` says for its index and phase.
fn placed(behaviour: &Behaviour, start_s: f64, cpu_of: impl Fn(usize, usize) -> usize) -> Vec<Ran> {
    let mut events = Vec::new();
    let period_s = 0.016;
    let timeline = behaviour.timeline_s(SEED);
    for (task, (spec, times)) in behaviour.tasks.iter().zip(timeline).enumerate() {
        for (phase, (spec, begin_s)) in spec.phases.iter().zip(times).enumerate() {
            events.extend((0..spec.activations).map(|number| Ran {
                at_s: start_s + begin_s + f64::from(number) * period_s,
                cpu: cpu_of(task, phase),
                task,
            }));
        }
    }
    events
}

fn above_pct(behaviour: &Behaviour, cpu_of: impl Fn(usize, usize) -> usize) -> f64 {
    let start_s = 77.25;
    let events = placed(behaviour, start_s, cpu_of);
    let energy = score::energy(&machine(), behaviour, start_s, SEED, &events);
    energy.unwrap().above_pct()
}

/// Of the machine: little 0 to 3, mid 4 and 5, big 6 and 7.
fn power_of_one(cpu: usize, util: f64) -> f64 {
    let mut used = vec![0.0; 8];
    used[cpu] = util;
    score::power(&machine(), &used)
}

#[test]
fn the_best_placement_scores_nothing_above_itself() {
    let one = behaviour("one-small-task");
    let best = (0..8)
        .map(|cpu| above_pct(&one, |_, _| cpu))
        .fold(f64::INFINITY, f64::min);
    assert!(best.abs() < 1e-6, "{best}");
    let two = behaviour("two-big-tasks");
    assert!(above_pct(&two, |task, _| 6 + task).abs() < 1e-6);
}

#[test]
fn a_small_task_on_a_big_cpu_fails() {
    let one = behaviour("one-small-task");
    assert!(above_pct(&one, |_, _| 6) > one.threshold_pct);
}

#[test]
fn half_the_time_on_the_wrong_cpu_costs_half_of_what_all_of_it_costs() {
    let one = Behaviour {
        tasks: vec![Task {
            phases: vec![one_phase(0.0, 1), one_phase(0.05, 50), one_phase(0.05, 50)],
            ..behaviour("one-small-task").tasks[0].clone()
        }],
        ..behaviour("one-small-task")
    };
    let wrong = above_pct(&one, |_, _| 6);
    let half = above_pct(&one, |_, phase| if phase == 2 { 6 } else { best_cpu(0.05) });
    assert!(
        wrong > 1.0 && (half - wrong / 2.0).abs() < 0.001 * wrong,
        "{half} {wrong}"
    );
}

fn one_phase(duty: f64, activations: u32) -> Phase {
    Phase { duty, activations }
}

fn best_cpu(duty: f64) -> usize {
    let power = |cpu: &usize| power_of_one(*cpu, one_phase(duty, 1).util());
    let least = [0, 4, 6]
        .into_iter()
        .min_by(|left, right| power(left).total_cmp(&power(right)));
    least.unwrap()
}

#[test]
fn power_is_that_of_the_lowest_opp_with_margin_times_the_busy_share() {
    // 100 with its margin is 125: the OPP of 133 draws 95 mW
    assert!((power_of_one(0, 100.0) - 95.0 * 100.0 / 133.0).abs() < 1e-9);
    // the whole cluster takes the OPP of its most used CPU
    let mut used = vec![0.0; 8];
    (used[0], used[1]) = (100.0, 10.0);
    let power = score::power(&machine(), &used);
    assert!((power - 95.0 * 110.0 / 133.0).abs() < 1e-9);
    // beyond the highest OPP a CPU is busy all the time and no more
    assert!((power_of_one(0, 1000.0) - 196.9).abs() < 1e-9);
}

#[test]
fn tasks_are_as_big_as_lisa_has_them() {
    for name in ["phone-3c-gs101", "phone-2c-msm8998"] {
        let machine = catalogue::machine(name).unwrap();
        let all = workload::all(&machine).unwrap();
        let capacity = |cluster: usize| f64::from(machine.clusters[cluster].capacity());
        let (little, biggest) = (capacity(0), capacity(machine.clusters.len() - 1));
        let small = all[0].tasks[0].phases[1].util() * workload::MARGIN;
        assert!(
            small > 0.4 * little && small < 0.6 * little,
            "{name}: {small}"
        );
        let opps = machine.clusters[0].opps.iter();
        let nearest = opps
            .map(|opp| (f64::from(opp.capacity) - small).abs())
            .fold(f64::INFINITY, f64::min);
        assert!(nearest > 5.0, "{name}: the wish is {nearest} from an OPP");
        let big = all[2].tasks[0].phases[1].util() * workload::MARGIN;
        let second = capacity(machine.clusters.len() - 2);
        assert!(big > second && big < biggest, "{name}: {big}");
        let ramp = &all[5].tasks[0].phases[1..];
        assert!((ramp[0].duty - 0.1 * little / 1024.0).abs() < 1e-9);
        let last = ramp[ramp.len() - 1].duty;
        assert!(
            ramp.windows(2)
                .all(|pair| pair[1].duty > pair[0].duty && pair[1].duty - pair[0].duty < 0.0501)
        );
        assert_eq!(all[2].tasks[0].phases[1].duty, last);
        let falling: Vec<_> = all[6].tasks[0].phases[1..].iter().rev().copied().collect();
        assert_eq!(falling, ramp);
        let turns = &all[4].tasks;
        assert_eq!(
            turns.len(),
            machine.clusters[machine.clusters.len() - 1].cpus.len()
        );
    }
}

#[test]
fn the_workloads_are_ones_that_the_runner_understands() {
    for behaviour in workload::all(&machine()).unwrap() {
        let path = std::path::Path::new(behaviour.name);
        let workload = joule_load::rtapp::parse(path, &behaviour.to_json()).unwrap();
        assert_eq!(workload.tasks.len(), behaviour.tasks.len());
        assert_eq!(workload.endless(), None);
    }
}

#[test]
fn a_machine_without_an_energy_model_has_none_of_the_behaviours() {
    let machine = catalogue::machine("laptop-hybrid").unwrap();
    assert!(
        workload::all(&machine)
            .unwrap_err()
            .contains("Energy Model")
    );
}

#[test]
fn tasks_that_fit_nowhere_are_not_judged() {
    let two = behaviour("two-big-tasks");
    let mut machine = machine();
    machine.clusters[2].cpus.truncate(1);
    let events = placed(&two, 0.0, |_, _| 6);
    let refused = score::energy(&machine, &two, 0.0, SEED, &events).unwrap_err();
    assert!(refused.contains("no placement"), "{refused}");
}

#[test]
fn a_task_that_was_never_seen_is_not_judged() {
    let two = behaviour("two-big-tasks");
    let mut events = placed(&two, 0.0, |task, _| 6 + task);
    events.retain(|event| event.task == 0);
    let refused = score::energy(&machine(), &two, 0.0, SEED, &events).unwrap_err();
    assert!(refused.contains("eas-big1"), "{refused}");
}

#[test]
fn what_a_guest_tells_is_judged_and_late_activations_count_for_the_worst_task() {
    let two = behaviour("two-big-tasks");
    let told = |missed: u64, skipped: u64| {
        let report = format!(
            r#"{{"start_us":5000000,"tasks":[{{"jobs":69,"missed":null,"skipped":0}},{{"jobs":68,"missed":{missed},"skipped":{skipped}}}]}}"#
        );
        let events = placed(&two, 5.0, |task, _| 6 + task);
        let lines = events
            .iter()
            .map(|it| format!("ran {} {} eas-big{}\n", it.at_s, it.cpu, it.task));
        format!("before_switches 1\n{report}\n{}", lines.collect::<String>())
    };
    let verdict = |told: &str| Verdict::new("m", "s", &two, true, judged(&machine(), &two, told));
    let good = verdict(&told(6, 4));
    assert_eq!(good.pass, Some(true), "{good:?}");
    let slack = good.negative_slack_pct.unwrap();
    assert!((slack - 1000.0 / 72.0).abs() < 1e-9, "{slack}");
    assert_eq!(verdict(&told(7, 4)).pass, Some(false));
    let strange = told(0, 0) + "ran 5.0 seven eas-big0\n";
    let strange = verdict(&strange);
    assert_eq!(strange.pass, None);
    assert!(strange.reason.unwrap().contains("seven"));
}

#[test]
fn on_the_variant_energy_is_what_the_energy_model_says() {
    let machine = em_true(&machine());
    assert_eq!(machine.name, "phone-3c-gs101-em-true");
    for cluster in &machine.clusters {
        assert!(
            [cluster.shallow, cluster.deep, cluster.sleep]
                .iter()
                .all(|it| it.uw == 0 && it.wake_nj == 0)
        );
        assert!(cluster.opps.iter().all(|opp| opp.shared_uw == 0));
    }
}
