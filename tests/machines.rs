//! What the three relations of each known machine must be.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use common::{FakeSys, assert_consistent, shared_fixtures, unpack};
use scx_joule::sysroot::{SysRoot, format_cpu_list as list};
use scx_joule::topology::Topology;

/// The relations as text, one set of CPUs each: `capacity: cpus` for classes, `cpus` for domains, and
/// for groups `class/cpus` with `*` where each CPU has its own clock, and `~` where hardware sets it.
struct Relations {
    machine: &'static str,
    classes: &'static [&'static str],
    domains: &'static [&'static str],
    groups: &'static [&'static str],
}

const OWN: &[Relations] = &[
    Relations {
        machine: "phone",
        classes: &["280: 0-2", "855: 3-4", "855: 5-6", "1024: 7"],
        domains: &["0-2", "3-6", "7"],
        groups: &["0/0-2", "1/3-4", "2/5-6", "3/7*"],
    },
    Relations {
        machine: "laptop",
        classes: &["596: 8-11", "1024: 0-7"],
        domains: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"],
        groups: &["0/8-11~", "1/0-7~"],
    },
    Relations {
        machine: "offline",
        classes: &["1024: 0-1,3-4,6-12,15"],
        domains: &["0,4,8,12", "1,9", "3,7,11,15", "6,10"],
        groups: &["0/0,4,8,12", "0/1,9", "0/3,7,11,15", "0/6,10"],
    },
    Relations {
        machine: "board",
        classes: &["1024: 0-3"],
        domains: &["0-3"],
        groups: &["0/0-3"],
    },
];

const SHARED: &[Relations] = &[
    Relations {
        machine: "arm-A510-A710-A715-X3.tar.gz",
        classes: &["280: 0-2", "855: 3-4", "855: 5-6", "1024: 7"],
        domains: &["0-2", "3-6", "7"],
        groups: &["0/0-2", "1/3-4", "2/5-6", "3/7*"],
    },
    Relations {
        machine: "20em64t-hybrid-1p6c2t+2ca4co1t.tar.bz2",
        classes: &["596: 12-19", "1024: 0-11"],
        domains: &[
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
            "16", "17", "18", "19",
        ],
        groups: &["0/12-19~", "1/0-11~"],
    },
    Relations {
        machine: "128arm-2pa2n8cluster4co.tar.bz2",
        classes: &["1024: 0-127"],
        domains: &["0-31", "32-63", "64-95", "96-127"],
        groups: &[
            "0/0-15",
            "0/16-31",
            "0/32-47",
            "0/48-63",
            "0/64-79",
            "0/80-95",
            "0/96-111",
            "0/112-127",
        ],
    },
    Relations {
        machine: "16em64t-4s2c2t-offlines.tar.bz2",
        classes: &["1024: 0-1,3-4,6-12,15"],
        domains: &["0,4,8,12", "1,9", "3,7,11,15", "6,10"],
        groups: &["0/0,4,8,12", "0/1,9", "0/3,7,11,15", "0/6,10"],
    },
    Relations {
        machine: "rv64-visionfive2.tar.gz",
        classes: &["1024: 0-3"],
        domains: &["0-3"],
        groups: &["0/0-3"],
    },
    Relations {
        machine: "x86_64-dell_e4310.tar.gz",
        classes: &["1024: 0-3"],
        domains: &["0-3"],
        groups: &["0/0-3"],
    },
];

fn assert_relations(topology: &Topology, expected: &Relations) {
    let machine = expected.machine;
    let classes = topology.classes.iter();
    let classes: Vec<String> = classes
        .map(|class| format!("{}: {}", class.capacity, list(&class.cpus)))
        .collect();
    let domains: Vec<String> = topology
        .domains
        .iter()
        .map(|domain| list(&domain.cpus))
        .collect();
    let groups = topology.groups.iter().map(|group| {
        let clock = match (group.per_cpu_freq, topology.starts_slowly(group)) {
            (_, true) => "~",
            (true, false) => "*",
            (false, false) => "",
        };
        format!("{}/{}{clock}", group.class, list(&group.cpus))
    });
    assert_eq!(classes, expected.classes, "classes of {machine}");
    assert_eq!(domains, expected.domains, "domains of {machine}");
    assert_eq!(
        groups.collect::<Vec<_>>(),
        expected.groups,
        "groups of {machine}"
    );
    assert_consistent(topology);
}

fn read(sys: &SysRoot) -> Topology {
    Topology::read(sys).unwrap()
}

#[test]
fn own_fixtures_have_the_expected_relations() {
    for expected in OWN {
        let machine = FakeSys::fixture(expected.machine);
        assert_relations(&read(&machine.root()), expected);
    }
}

#[test]
fn real_machines_have_the_expected_relations() {
    let Some(fixtures) = shared_fixtures() else {
        return;
    };
    for expected in SHARED {
        let (_dir, sys) = unpack(&fixtures.join(expected.machine));
        assert_relations(&read(&sys), expected);
    }
    let archives = std::fs::read_dir(fixtures).unwrap();
    let archives = archives.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().contains(".tar.")
    });
    assert_eq!(
        archives.count(),
        SHARED.len(),
        "an archive without expected relations"
    );
}
