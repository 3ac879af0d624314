//! The oracle a second time, as simply as can be: every placement at every OPP, in steps of time.

use super::*;
use crate::oracle::jobs::Job;

const STEP_NS: u64 = 40_000;
const END_NS: u64 = 400_000_000;

struct Cpu {
    cluster: usize,
    queue: Vec<Job>,
    /// Work left of the first in the queue, in 1/1024 ns.
    left: u64,
    idle_ns: u64,
}

/// Energy in joules and the responses, ns, of one placement, given as the CPU of each thread.
fn stepped(machine: &Machine, jobs: &Jobs, cpu_of: &[usize], opps: &[usize]) -> (f64, Vec<u64>) {
    let long_ago = u64::MAX / 2;
    let mut cpus: Vec<Cpu> = Vec::new();
    for (cluster, described) in machine.clusters.iter().enumerate() {
        cpus.extend(described.cpus.iter().map(|_| Cpu {
            cluster,
            queue: Vec::new(),
            left: 0,
            idle_ns: long_ago,
        }));
    }
    let mut cluster_idle_ns = vec![long_ago; machine.clusters.len()];
    let mut nanojoules = 0.0;
    let mut responses = Vec::new();
    let mut coming = jobs.jobs.iter().peekable();
    let step_s = 1e-9 * f64::from(u32::try_from(STEP_NS).unwrap());
    let nw = |uw: u32| f64::from(uw) * 1000.0 * step_s;
    for step in 0..jobs.end_ns / STEP_NS {
        let now_ns = step * STEP_NS;
        while let Some(job) = coming.next_if(|job| job.due_ns < now_ns + STEP_NS) {
            let cpu = &mut cpus[cpu_of[job.thread]];
            if cpu.queue.is_empty() {
                cpu.left = job.work_ns * 1024;
            }
            cpu.queue.push(*job);
        }
        let mut awake = vec![false; machine.clusters.len()];
        for cpu in &mut cpus {
            let cluster = &machine.clusters[cpu.cluster];
            let opp = &cluster.opps[opps[cpu.cluster]];
            let deep = cpu.idle_ns >= u64::from(cluster.deep.after_us) * 1000;
            let state = if deep { cluster.deep } else { cluster.shallow };
            if cpu.queue.is_empty() {
                nanojoules += nw(state.uw);
                cpu.idle_ns += STEP_NS;
                continue;
            }
            if cpu.idle_ns > 0 {
                nanojoules += f64::from(state.wake_nj);
                cpu.idle_ns = 0;
            }
            awake[cpu.cluster] = true;
            nanojoules += nw(opp.busy_uw);
            cpu.left = cpu.left.saturating_sub(STEP_NS * u64::from(opp.capacity));
            if cpu.left == 0 {
                let done = cpu.queue.remove(0);
                responses.push(now_ns + STEP_NS - done.due_ns);
                cpu.left = cpu.queue.first().map_or(0, |job| job.work_ns * 1024);
            }
        }
        for (index, cluster) in machine.clusters.iter().enumerate() {
            let sleep_after_us = cluster.deep.after_us + cluster.sleep.after_us;
            let asleep = cluster_idle_ns[index] >= u64::from(sleep_after_us) * 1000;
            if awake[index] {
                if asleep {
                    nanojoules += f64::from(cluster.sleep.wake_nj);
                }
                cluster_idle_ns[index] = 0;
                nanojoules += nw(cluster.opps[opps[index]].shared_uw);
            } else {
                cluster_idle_ns[index] += STEP_NS;
                nanojoules += nw(if asleep {
                    cluster.sleep.uw
                } else {
                    cluster.opps[opps[index]].shared_uw
                });
            }
        }
        nanojoules += nw(machine.floor_uw);
    }
    (nanojoules * 1e-9, responses)
}

/// Of all placements within the load and the limit, the least energy and the clusters of the threads.
fn least_stepped(machine: &Machine, jobs: &Jobs, limit_ms: Option<f64>) -> (f64, Vec<usize>) {
    let mut best = (f64::INFINITY, Vec::new());
    for number in 0..4_usize.pow(3) {
        let cpu_of = [number % 4, number / 4 % 4, number / 16];
        for opps in (0..9).map(|number| [number % 3, number / 3]) {
            let overloaded = (0..4).any(|cpu| {
                let threads = (0..3).filter(|&thread| cpu_of[thread] == cpu);
                let need: u64 = threads.map(|thread| jobs.threads[thread].need_ucap).sum();
                let cluster = cpu / 2;
                need * 10
                    > u64::from(machine.clusters[cluster].opps[opps[cluster]].capacity) * 8_000_000
            });
            if overloaded {
                continue;
            }
            let (energy_j, responses) = stepped(machine, jobs, &cpu_of, &opps);
            let in_time = limit_ms.is_none_or(|limit| p99_ms(responses).unwrap() <= limit);
            if in_time && energy_j < best.0 {
                best = (energy_j, cpu_of.map(|cpu| cpu / 2).to_vec());
            }
        }
    }
    best
}

#[test]
fn an_independent_search_in_steps_of_time_finds_the_same_placements_and_energies() {
    let machine = machine(Mode::Schedutil);
    for (seed, tasks, limit_ms) in [
        (1, [(3, 16_000), (6, 20_000), (12, 40_000)], Some(15.0)),
        (2, [(3, 16_000), (6, 20_000), (40, 40_000)], Some(25.0)),
        (3, [(10, 8_000), (15, 20_000), (20, 30_000)], Some(8.0)),
    ] {
        let mut jobs = jobs(&tasks, seed, 1);
        // steps tell no more than this of when something is due
        for job in &mut jobs.jobs {
            job.due_ns -= job.due_ns % STEP_NS;
        }
        jobs.jobs.retain(|job| job.due_ns < END_NS);
        jobs.end_ns = END_NS;
        for limit_ms in [None, limit_ms] {
            let limit_ns = limit_ms.map(|ms: f64| limit_ns(ms / SLOWER).unwrap());
            let oracle = Division::new(&machine, &jobs, limit_ns).least().unwrap();
            let (energy_j, cluster_of) = least_stepped(&machine, &jobs, limit_ms);
            let error = (oracle.energy_j / energy_j - 1.0).abs();
            assert!(
                error < 0.01,
                "{tasks:?} {limit_ms:?}: {energy_j} J, {oracle:?}"
            );
            for (thread, &cluster) in cluster_of.iter().enumerate() {
                let name = format!("t{thread}");
                let mut placed = oracle.placement.iter();
                let placed = placed.find(|it| it.threads.contains(&name)).unwrap();
                assert_eq!(
                    placed.cluster, machine.clusters[cluster].name,
                    "{tasks:?} {limit_ms:?} {oracle:?}"
                );
            }
        }
    }
}
