//! The rules by which a machine falls into classes, frequency domains and groups.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use common::{FakeSys, assert_consistent};
use proptest::prelude::*;
use scx_joule::sysroot::{SysRoot, format_cpu_list as list};
use scx_joule::topology::{CapacitySource, Cluster, Topology};
use scx_joule::units::{Capacity, KHz};

fn read(sys: &SysRoot) -> Topology {
    Topology::read(sys).unwrap()
}

#[test]
fn opps_include_the_boost_that_is_on_and_are_none_where_cpufreq_lists_none() {
    let phone = FakeSys::fixture("phone");
    let opps = |sys: &FakeSys, domain: usize| {
        let topology = read(&sys.root());
        let policy = topology.domains[domain].policy.clone();
        policy
            .and_then(|policy| policy.opps)
            .map(|opps| opps.into_iter().map(KHz::get).collect())
    };
    assert_eq!(opps(&phone, 2), Some(vec![595_200, 2_956_800, 3_187_200]));
    let max = "sys/devices/system/cpu/cpufreq/policy7/cpuinfo_max_freq";
    assert_eq!(
        opps(&phone.set(max, 2_956_800), 2),
        Some(vec![595_200, 2_956_800])
    );
    assert_eq!(opps(&FakeSys::fixture("laptop"), 0), None::<Vec<u64>>);
    assert_eq!(opps(&FakeSys::fixture("board"), 0), None::<Vec<u64>>);
}

#[test]
fn hardware_chooses_the_clock_where_the_driver_has_no_governors() {
    const OFFERED: &str = "sys/devices/system/cpu/cpufreq/policy0/scaling_available_governors";
    let chooses = |sys: FakeSys| {
        let policy = read(&sys.root()).domains[0].policy.clone();
        policy.unwrap().hardware_chooses()
    };
    assert!(chooses(FakeSys::fixture("laptop")));
    assert!(chooses(FakeSys::fixture("laptop").without(OFFERED)));
    let passive = "conservative ondemand userspace powersave performance schedutil";
    assert!(!chooses(FakeSys::fixture("laptop").set(OFFERED, passive)));
    let phone = || FakeSys::fixture("phone");
    assert!(!chooses(phone()));
    assert!(chooses(phone().set(OFFERED, "performance powersave")));
    assert!(!chooses(phone().set(OFFERED, "powersave performance")));
    assert!(!chooses(phone().without(OFFERED)));
}

#[test]
fn the_highest_frequency_is_the_hardwares_and_not_the_users_limit() {
    let policy = read(&FakeSys::fixture("phone").root()).domains[0]
        .policy
        .clone()
        .unwrap();
    assert_eq!(policy.max, Some(KHz::new(2_016_000)));
    assert_eq!(policy.min, Some(KHz::new(307_200)));
}

#[test]
fn a_limit_on_a_clock_leaves_its_part_of_the_capacity() {
    let offers = |sys: &FakeSys| read(&sys.root()).offers(&sys.root());
    let phone = FakeSys::fixture("phone");
    let offered = offers(&phone).unwrap();
    assert_eq!(offered[0], 280 * 10_176 / 20_160);
    assert_eq!(offered.last(), Some(&1024), "no limit is shown");
    let limit = "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq";
    let phone = phone.set(limit, 9_999_999);
    assert_eq!(offers(&phone).unwrap()[0], 280, "above what there is");
    let refusal = offers(&phone.set(limit, "often")).unwrap_err().to_string();
    assert!(
        refusal.contains("scaling_max_freq") && refusal.contains("often"),
        "{refusal}"
    );
}

#[test]
fn a_capacity_source_that_calls_all_equal_is_believed_only_when_no_other_disagrees() {
    let laptop = FakeSys::fixture("laptop");
    assert_eq!(read(&laptop.root()).capacity_source, CapacitySource::Cppc);
    let laptop = (0..12).fold(laptop, |sys, cpu| {
        sys.without(&format!("sys/devices/system/cpu/cpu{cpu}/acpi_cppc"))
    });
    let by_clock = read(&laptop.root());
    assert_eq!(by_clock.capacity_source, CapacitySource::MaxFrequency);
    assert_eq!(by_clock.classes[0].capacity, Capacity::new(768).unwrap());
    let board = read(&FakeSys::fixture("board").root());
    assert_eq!(board.capacity_source, CapacitySource::Kernel);
    let offline = read(&FakeSys::fixture("offline").root());
    assert_eq!(offline.capacity_source, CapacitySource::Assumed);
}

#[test]
fn a_figure_of_zero_or_one_that_some_cpus_lack_is_no_capacity() {
    let zero = "sys/devices/system/cpu/cpu3/acpi_cppc/highest_perf";
    let laptop = FakeSys::fixture("laptop").set(zero, 0);
    let topology = read(&laptop.root());
    assert_eq!(topology.cpu(3).unwrap().facts.cppc_highest_perf, None);
    assert_eq!(topology.capacity_source, CapacitySource::MaxFrequency);
}

#[test]
fn favoured_cores_in_small_steps_stay_one_class_and_a_gap_makes_two() {
    let ranked = |ranks: &[u64]| {
        let base = "sys/devices/system/cpu";
        let start = FakeSys::empty().set(
            "sys/devices/system/cpu/online",
            format!("0-{}", ranks.len() - 1),
        );
        let sys = ranks.iter().enumerate().fold(start, |sys, (cpu, rank)| {
            sys.set(&format!("{base}/cpu{cpu}/acpi_cppc/highest_perf"), rank)
        });
        read(&sys.root()).classes.len()
    };
    assert_eq!(ranked(&[166, 236, 231, 226, 216, 206, 196, 186, 176]), 1);
    assert_eq!(ranked(&[100, 90]), 1);
    assert_eq!(ranked(&[100, 89]), 2);
}

#[test]
fn clusters_with_other_opps_are_other_classes_though_equally_big() {
    let phone = FakeSys::fixture("phone")
        .set("sys/devices/system/cpu/cpu7/cpu_capacity", 855)
        .without("sys/devices/system/cpu/cpu6/regs")
        .without("sys/devices/system/cpu/cpu7/regs");
    let topology = read(&phone.root());
    assert_ne!(
        topology.cpu(7).unwrap().class,
        topology.cpu(6).unwrap().class
    );
}

#[test]
fn a_clock_wider_than_the_policy_is_one_domain() {
    let laptop = FakeSys::fixture("laptop")
        .with("sys/devices/system/cpu/cpufreq/policy[8-11]/freqdomain_cpus = 8 9 10 11");
    let topology = read(&laptop.root());
    assert_eq!(topology.domains.last().unwrap().cpus, [8, 9, 10, 11]);
    assert!(!topology.groups[0].per_cpu_freq);
}

#[test]
fn a_clock_shared_with_an_offline_cpu_is_still_shared() {
    let phone = FakeSys::fixture("phone")
        .set("sys/devices/system/cpu/online", "0,3-7")
        .without("sys/devices/system/cpu/cpu1")
        .without("sys/devices/system/cpu/cpu2");
    let topology = read(&phone.root());
    assert_eq!(topology.groups[0].cpus, [0]);
    assert!(!topology.groups[0].per_cpu_freq);
    assert_eq!(topology.cpu(1), None);
    assert_eq!(topology.nr_cpu_ids(), 8);
}

#[test]
fn cpu_0_may_be_offline_and_the_mask_sparse() {
    let board = FakeSys::fixture("board")
        .set("sys/devices/system/cpu/online", "1,3")
        .set("sys/devices/system/cpu/possible", "0-3,64");
    let topology = read(&board.root());
    assert_consistent(&topology);
    assert_eq!(topology.groups[0].cpus, [1, 3]);
    assert_eq!(topology.cpu(0), None);
    assert_eq!(topology.capacity(0), None);
    assert_eq!(topology.capacity(3), Some(Capacity::MAX));
    assert_eq!(topology.nr_cpu_ids(), 65);
}

#[test]
fn private_caches_are_no_last_level_and_the_package_stands_in() {
    let list = "sys/devices/system/cpu/cpu[0-3]/cache/index2/shared_cpu_list = {}";
    let topology = read(&FakeSys::fixture("board").with(list).root());
    assert_eq!(topology.groups.len(), 1);
}

#[test]
fn instruction_caches_are_not_where_data_is_shared() {
    let board = FakeSys::fixture("board").with(
        "sys/devices/system/cpu/cpu[0-3]/cache/index3/level = 3
         sys/devices/system/cpu/cpu[0-3]/cache/index3/type = Instruction
         sys/devices/system/cpu/cpu[0-1]/cache/index3/shared_cpu_list = 0-1
         sys/devices/system/cpu/cpu[2-3]/cache/index3/shared_cpu_list = 2-3",
    );
    assert_eq!(read(&board.root()).groups.len(), 1);
}

#[test]
fn a_server_of_128_equal_cpus_has_groups_of_16_that_keep_threads_together() {
    // Threads n and n+64, four caches of 16 cores each.
    let mut text = String::from("sys/devices/system/cpu/online = 0-127\n");
    for cpu in 0..128 {
        let (core, cpu_dir) = (cpu % 64, format!("sys/devices/system/cpu/cpu{cpu}"));
        let cache = core / 16 * 16;
        text += &format!(
            "{cpu_dir}/topology/thread_siblings_list = {core},{}
             {cpu_dir}/cache/index3/level = 3
             {cpu_dir}/cache/index3/type = Unified
             {cpu_dir}/cache/index3/shared_cpu_list = {}-{},{}-{}\n",
            core + 64,
            cache,
            cache + 15,
            cache + 64,
            cache + 79,
        );
    }
    let topology = read(&FakeSys::empty().with(&text).root());
    assert_consistent(&topology);
    assert_eq!(topology.classes.len(), 1);
    assert_eq!(topology.groups.len(), 8);
    assert_eq!(list(&topology.groups[0].cpus), "0-7,64-71");
    assert_eq!(list(&topology.groups[7].cpus), "56-63,120-127");
    assert_eq!(topology.under_one_cache(1), [0, 1]);
    assert_eq!(topology.in_one_node(1), [0, 1, 2, 3, 4, 5, 6, 7]);

    text += "sys/devices/system/node/node0/cpulist = 0-31,64-95
             sys/devices/system/node/node8/cpulist = 32-63,96-127
             sys/devices/system/node/has_cpu = 0,8\n";
    let topology = read(&FakeSys::empty().with(&text).root());
    assert_eq!(topology.cpu(96).unwrap().facts.node, Some(8));
    assert_eq!(topology.under_one_cache(6), [6, 7]);
    assert_eq!(topology.in_one_node(1), [0, 1, 2, 3]);
    assert_eq!(topology.in_one_node(6), [4, 5, 6, 7]);
    assert!(topology.in_one_node(8).is_empty());
}

#[test]
fn a_list_of_a_nodes_cpus_that_is_none_is_an_error_that_names_it() {
    let machine = FakeSys::fixture("board").set("sys/devices/system/node/node0/cpulist", "0-x");
    let error = Topology::read(&machine.root()).unwrap_err().to_string();
    assert!(error.contains("node/node0/cpulist"), "{error}");
}

#[test]
fn a_machine_of_1024_cpus_is_read() {
    let machine = FakeSys::empty().with(
        "sys/devices/system/cpu/online = 0-1023
         sys/devices/system/cpu/cpu[0-1023]/cpu_capacity = 1024
         sys/devices/system/cpu/cpu[0-1023]/topology/physical_package_id = 0",
    );
    let topology = read(&machine.root());
    assert_consistent(&topology);
    assert_eq!((topology.groups.len(), topology.nr_cpu_ids()), (64, 1024));
}

#[test]
fn cpus_that_a_machine_does_not_show_are_an_error_that_names_the_place() {
    let error = Topology::read(&FakeSys::empty().root())
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("sys/devices/system/cpu: shows no online CPU"),
        "{error}"
    );
}

#[test]
fn a_value_that_cannot_be_is_an_error_that_names_it() {
    for (path, value, complaint) in [
        (
            "sys/devices/system/cpu/online",
            "0-",
            "'0-' is not a CPU list such as 0-3,8",
        ),
        (
            "sys/devices/system/cpu/cpu2/cpu_capacity",
            "1025",
            "'1025' is not a capacity 0..=1024",
        ),
        (
            "sys/devices/system/cpu/cpu0/cpufreq/related_cpus",
            "0 a",
            "'0 a' is not CPU numbers",
        ),
    ] {
        let phone = FakeSys::fixture("phone").set(path, value);
        let error = Topology::read(&phone.root()).unwrap_err().to_string();
        assert!(
            error.ends_with(&format!("{path}:1: {complaint}")),
            "{error}"
        );
    }
}

#[test]
fn a_synthetic_machine_has_the_relations_of_its_clusters() {
    let cluster = |cpus, threads, capacity, opps: Option<&[u64]>| Cluster {
        cpus,
        threads,
        capacity: Capacity::new(capacity).unwrap(),
        opps: opps.map(|opps| opps.iter().copied().map(KHz::new).collect()),
        llc: 0,
    };
    let topology = Topology::synthetic(&[
        cluster(4, 1, 400, Some(&[500_000, 1_800_000])),
        cluster(6, 2, 1024, None),
    ]);
    assert_consistent(&topology);
    let classes = topology.classes.iter();
    let classes: Vec<_> = classes
        .map(|class| (class.capacity.get(), list(&class.cpus)))
        .collect();
    assert_eq!(classes, [(400, "0-3".into()), (1024, "4-9".into())]);
    assert_eq!(topology.domains.len(), 7);
    let groups = topology.groups.iter();
    let groups: Vec<_> = groups
        .map(|group| (list(&group.cpus), group.per_cpu_freq))
        .collect();
    assert_eq!(groups, [("0-3".into(), false), ("4-9".into(), true)]);
    assert_eq!(topology.cpu(7).unwrap().facts.siblings, [6, 7]);
}

proptest! {
    #[test]
    fn any_clusters_make_consistent_relations(
        clusters in prop::collection::vec((1usize..70, 1usize..5, 1u64..=1024, any::<bool>(), 0usize..3), 1..6)
    ) {
        let clusters: Vec<Cluster> = clusters
            .into_iter()
            .map(|(cpus, threads, capacity, shared, llc)| Cluster {
                cpus,
                threads,
                capacity: Capacity::new(capacity).unwrap(),
                opps: shared.then(|| vec![KHz::new(capacity * 1000)]),
                llc,
            })
            .collect();
        let topology = Topology::synthetic(&clusters);
        assert_consistent(&topology);
        prop_assert_eq!(topology.clone(), Topology::synthetic(&clusters));
    }
}
