use super::physics::{Block, shared_fj, unused_fj};
use super::*;
use crate::machine::{EnergyModel, Idle, Mode, Opp};

mod stepped;

fn idle(uw: u32, after_us: u32, wake_nj: u32) -> Idle {
    Idle {
        uw,
        after_us,
        wake_nj,
    }
}

fn opp(khz: u32, capacity: u32, busy_uw: u32, shared_uw: u32) -> Opp {
    Opp {
        khz,
        capacity,
        busy_uw,
        shared_uw,
    }
}

fn cluster(name: &str, cpus: std::ops::Range<u32>, sleep: Idle, opps: &[Opp]) -> Cluster {
    Cluster {
        name: name.to_owned(),
        cpus: cpus.collect(),
        smt: None,
        em_permille: 1000,
        shallow: idle(6_000, 0, 10_000),
        deep: idle(1_000, 2000, 20_000),
        sleep,
        opps: opps.to_vec(),
    }
}

/// Two clusters of two CPUs and three OPPs each.
fn machine(mode: Mode) -> Machine {
    Machine {
        name: "small".to_owned(),
        title: "A machine small enough to try everything".to_owned(),
        mode,
        em: EnergyModel::None,
        floor_uw: 20_000,
        source: "none".to_owned(),
        assumptions: "all".to_owned(),
        clusters: vec![
            cluster(
                "little",
                0..2,
                idle(2_000, 3000, 100_000),
                &[
                    opp(300_000, 120, 40_000, 10_000),
                    opp(600_000, 240, 75_000, 14_000),
                    opp(900_000, 360, 190_000, 30_000),
                ],
            ),
            cluster(
                "big",
                2..4,
                idle(4_000, 4000, 300_000),
                &[
                    opp(500_000, 256, 90_000, 12_000),
                    opp(1_000_000, 512, 200_000, 25_000),
                    opp(2_000_000, 1024, 900_000, 80_000),
                ],
            ),
        ],
    }
}

fn jobs(tasks: &[(u32, u32)], seed: u64, seconds: u32) -> Jobs {
    let task = |(index, (load, period)): (usize, &(u32, u32))| {
        format!(
            r#""t{index}": {{ "jitter_pct": 20, "load_pct": {load}, "timer": {{ "ref": "x", "period": {period} }} }}"#
        )
    };
    let tasks: Vec<_> = tasks.iter().enumerate().map(task).collect();
    of(
        &format!(r#"{{ "tasks": {{ {} }} }}"#, tasks.join(", ")),
        seed,
        seconds,
    )
    .unwrap()
}

fn of(json: &str, seed: u64, seconds: u32) -> Result<Jobs, Inapplicable> {
    let workload = rtapp::parse(Path::new("test.json"), json).unwrap();
    Jobs::new(&workload, seed, u64::from(seconds) * SECOND_NS)
}

/// The least over every placement and every OPP, without any bound; `limit_ns` as in [`least`].
fn exhaustively(machine: &Machine, jobs: &Jobs, limit_ns: Option<u64>) -> Option<Fj> {
    let cpus: Vec<usize> = machine
        .clusters
        .iter()
        .enumerate()
        .flat_map(|(index, cluster)| cluster.cpus.iter().map(move |_| index))
        .collect();
    let count = jobs.jobs.len();
    let most_late = count - (count * 99).div_ceil(100);
    let threads = jobs.threads.len();
    let mut least = None;
    for number in 0..cpus.len().pow(u32::try_from(threads).unwrap()) {
        let mut masks = vec![0 as Mask; cpus.len()];
        let mut rest = number;
        for thread in 0..threads {
            masks[rest % cpus.len()] |= 1 << thread;
            rest /= cpus.len();
        }
        for opps in every_opp(machine, cpus.len()) {
            let Some((energy_fj, late)) = taken(machine, jobs, &cpus, &masks, &opps, limit_ns)
            else {
                continue;
            };
            if late <= most_late && least.is_none_or(|least| energy_fj < least) {
                least = Some(energy_fj);
            }
        }
    }
    least
}

/// An OPP for each CPU; with one clock per cluster those of its CPUs are equal.
fn every_opp(machine: &Machine, cpus: usize) -> Vec<Vec<usize>> {
    let all = (0..3_usize.pow(u32::try_from(cpus).unwrap())).map(|number| {
        (0..cpus)
            .map(|cpu| number / 3_usize.pow(u32::try_from(cpu).unwrap()) % 3)
            .collect()
    });
    all.filter(|opps: &Vec<usize>| {
        machine.mode == Mode::HardwareManaged || (opps[0] == opps[1] && opps[2] == opps[3])
    })
    .collect()
}

fn taken(
    machine: &Machine,
    jobs: &Jobs,
    cpus: &[usize],
    masks: &[Mask],
    opps: &[usize],
    limit_ns: Option<u64>,
) -> Option<(Fj, usize)> {
    let (mut energy_fj, mut late) = (0, 0);
    for (index, cluster) in machine.clusters.iter().enumerate() {
        let mut used = Vec::new();
        let mut shared_uw = 0;
        for cpu in (0..cpus.len()).filter(|&cpu| cpus[cpu] == index) {
            let opp = &cluster.opps[opps[cpu]];
            if masks[cpu] == 0 {
                energy_fj += unused_fj(cluster, jobs.end_ns);
                continue;
            }
            let threads = (0..jobs.threads.len()).filter(|thread| masks[cpu] >> thread & 1 == 1);
            let need: u64 = threads.map(|thread| jobs.threads[thread].need_ucap).sum();
            if need > u64::from(opp.capacity) * 800_000 {
                return None;
            }
            let block = Block::new(jobs, masks[cpu], cluster, opp, opp.shared_uw, limit_ns);
            energy_fj += block.core_fj;
            late += block.late;
            used.push((masks[cpu], opp));
            shared_uw = match machine.mode {
                Mode::Schedutil => opp.shared_uw,
                Mode::HardwareManaged => cluster.opps[0].shared_uw,
            };
        }
        energy_fj += shared_fj(jobs, &used, cluster, shared_uw);
    }
    Some((energy_fj, late))
}

const FIVE: [(u32, u32); 5] = [
    (2, 16_000),
    (4, 20_000),
    (9, 25_000),
    (14, 33_000),
    (30, 50_000),
];

#[test]
fn the_search_finds_what_trying_everything_finds() {
    for mode in [Mode::Schedutil, Mode::HardwareManaged] {
        let machine = machine(mode);
        let seeds = if mode == Mode::Schedutil { 1..4 } else { 1..2 };
        for seed in seeds {
            let jobs = jobs(&FIVE, seed, 1);
            let floor_fj = Fj::from(machine.floor_uw) * Fj::from(jobs.end_ns);
            for limit_ms in [None, Some(60), Some(35), Some(25), Some(1)] {
                let limit_ns = limit_ms.map(|ms| ms * 1_000_000);
                let found = Division::new(&machine, &jobs, limit_ns).least();
                let expected = exhaustively(&machine, &jobs, limit_ns);
                let expected = expected.map(|fj| joules(fj + floor_fj).unwrap());
                assert_eq!(
                    found.ok().map(|oracle| oracle.energy_j),
                    expected,
                    "{mode:?}, seed {seed}, limit {limit_ms:?} ms"
                );
            }
        }
    }
}

#[test]
fn what_is_shared_is_never_less_than_the_bound_of_any_cpu_or_any_thread_that_takes_part() {
    let machine = machine(Mode::Schedutil);
    for seed in 1..20 {
        let jobs = jobs(&FIVE, seed, 1);
        for cluster in &machine.clusters {
            for opp in &cluster.opps {
                let bound = |mask| {
                    Block::new(&jobs, mask, cluster, opp, opp.shared_uw, None).shared_bound_fj
                };
                for (one, other) in [(0b00001, 0b11110), (0b00101, 0b01010), (0b11111, 0)] {
                    let shared =
                        shared_fj(&jobs, &[(one, opp), (other, opp)], cluster, opp.shared_uw);
                    let threads = (0..5).map(|thread| bound(1 << thread & (one | other)));
                    let highest = threads.chain([bound(one), bound(other)]).max().unwrap();
                    assert!(highest <= shared, "{one:b} {other:b}: {highest} > {shared}");
                }
            }
        }
    }
}

#[test]
fn a_thread_alone_costs_what_is_worked_out_by_hand() {
    let mut machine = machine(Mode::Schedutil);
    machine.clusters.truncate(1);
    machine.clusters[0].opps.truncate(1);
    let json =
        r#"{ "tasks": { "t": { "run": 1000, "timer": { "ref": "x", "period": 100000 } } } }"#;
    let jobs = of(json, 1, 1).unwrap();
    let oracle = Division::new(&machine, &jobs, None).least().unwrap();
    assert_eq!(jobs.jobs.len(), 10);
    // 10 jobs of 1 ms × 1024 / 120; each is followed by 2 ms shallow, the cluster sleeps 5 ms after it
    let busy_s = 10.0 * 0.001 * 1024.0 / 120.0;
    let (shallow_s, on_s) = (10.0 * 0.002, busy_s + 10.0 * 0.005);
    let core =
        0.040 * busy_s + 0.006 * shallow_s + 0.001 * (1.0 - busy_s - shallow_s) + 10.0 * 20e-6;
    let shared = 0.010 * on_s + 0.002 * (1.0 - on_s) + 10.0 * 100e-6;
    let other_core = 0.001;
    let floor = 0.020;
    let by_hand = core + shared + other_core + floor;
    assert!(
        (oracle.energy_j - by_hand).abs() < 2e-6,
        "{} {by_hand}",
        oracle.energy_j
    );
    assert_eq!(oracle.p99_ms, Some(8.533));
}

#[test]
fn jobs_are_due_and_long_as_the_workload_runner_draws_them() {
    use joule_load::draws::Draws;
    use joule_load::work::WorkUnits;
    let jobs = jobs(&[(10, 10_000), (5, 20_000)], 7, 1);
    let mut draws = Draws::new(7, 1);
    let offset_ns = draws.offset_ns(20_000_000);
    let second: Vec<_> = jobs.jobs.iter().filter(|job| job.thread == 1).collect();
    assert_eq!(second.len(), 50);
    for (number, job) in (0..).zip(&second) {
        assert_eq!(job.due_ns, offset_ns + number * 20_000_000);
        assert_eq!(job.work_ns, draws.jitter(20).apply(WorkUnits(1_000_000)).0);
    }
    assert_eq!(jobs.threads[1].need_ucap, 51_200_000);
}

#[test]
fn workloads_that_are_not_simply_periodic_have_no_oracle_and_say_why() {
    let timer = r#""timer": { "ref": "x", "period": 16000 }"#;
    for (task, why) in [
        (
            r#""ring": { "members": 6, "messages": 6, "work": 20, "period": 500000 }"#.to_owned(),
            "ring",
        ),
        (r#""run": 100, "sleep": 100"#.to_owned(), "timer"),
        (format!(r#""run": 100, "loop": 3, {timer}"#), "ends"),
        (format!(r#""run": 100, "cpus": [1], {timer}"#), "CPU"),
        (
            format!(
                r#""phases": {{ "a": {{ "run": 1, {timer} }}, "b": {{ "run": 2, {timer} }} }}"#
            ),
            "phases",
        ),
        (
            format!(r#""instance": 13, "run": 100, {timer}"#),
            "13 threads",
        ),
    ] {
        let json = format!(r#"{{ "tasks": {{ "t": {{ {task} }} }} }}"#);
        let refused = of(&json, 1, 1).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn a_machine_whose_threads_share_cores_has_no_oracle() {
    let machine = crate::catalogue::machine("laptop-smt").unwrap();
    let workload = crate::catalogue::workload("light-periodic").unwrap();
    let refused = least(&machine, &workload, 1, Some(1), None)
        .unwrap()
        .unwrap_err();
    assert!(refused.to_string().contains("share a core"), "{refused}");
}

#[test]
fn a_limit_that_is_no_time_is_an_error() {
    let machine = crate::catalogue::machine("phone-3c-gs101").unwrap();
    let workload = crate::catalogue::workload("light-periodic").unwrap();
    for limit_ms in [f64::NAN, -1.0, 1e300] {
        assert!(
            least(&machine, &workload, 1, Some(1), Some(limit_ms)).is_err(),
            "{limit_ms}"
        );
    }
}

#[test]
fn a_faster_answer_never_takes_less_energy() {
    let machine = crate::catalogue::machine("phone-3c-gs101").unwrap();
    let workload = crate::catalogue::workload("light-periodic").unwrap();
    let energy = |limit_ms| {
        least(&machine, &workload, 1, Some(2), limit_ms)
            .unwrap()
            .unwrap()
            .energy_j
    };
    let energies = [None, Some(8.0), Some(6.0), Some(4.0)].map(energy);
    assert!(
        energies.is_sorted() && energies[3] > 1.1 * energies[0],
        "{energies:?}"
    );
}

#[test]
fn a_run_is_as_long_as_the_workload_says_where_nothing_else_is_said() {
    let machine = crate::catalogue::machine("phone-2c-msm8998").unwrap();
    let workload = crate::catalogue::workload("light-periodic").unwrap();
    let seconds = rtapp::read(&workload).unwrap().duration_ns.unwrap() / SECOND_NS;
    let of = |seconds| {
        least(&machine, &workload, 1, seconds, None)
            .unwrap()
            .unwrap()
    };
    assert_eq!(of(None), of(Some(u32::try_from(seconds).unwrap())));
    assert!(least(&machine, &workload, 1, Some(0), None).is_err());
    let endless = tempfile::NamedTempFile::new().unwrap();
    let json = r#"{ "tasks": { "t": { "run": 1, "timer": { "ref": "x", "period": 16000 } } } }"#;
    std::fs::write(&endless, json).unwrap();
    let refused = least(&machine, endless.path(), 1, None, None)
        .unwrap()
        .unwrap_err();
    assert!(refused.to_string().contains("duration"), "{refused}");
}
