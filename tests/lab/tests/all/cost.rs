//! Counting what a scheduler costs, on real kernels.

use crate::common::{lab, or_fail, released_joule_load, scheduler};
use lab::catalogue;
use lab::cost::{CALLBACKS, CostMachine, Count, Section, Subject};
use lab::session::Scheduler;
use std::path::PathBuf;

fn count() -> Section {
    let subject = |name: &str, program: PathBuf| Subject {
        name: name.to_owned(),
        version: "0".to_owned(),
        scheduler: Ok(Scheduler::of_program(&program, "")),
    };
    let count = Count {
        machines: vec![CostMachine { cpus: 8, caches: 4 }],
        subjects: vec![
            subject("no-scheduler", PathBuf::from("/bin/false")),
            subject("scx_joule", scheduler().to_owned()),
        ],
        workload: or_fail(catalogue::workload("messaging")),
        load: released_joule_load().to_owned(),
        windows: 5,
    };
    let lab = lab();
    or_fail(count.run(&lab.cache, &lab.kernel))
        .machines
        .remove(0)
}

#[test]
fn the_cost_of_a_wakeup_is_counted_and_repeats() {
    let section = count();
    assert_eq!(section.groups, Some(4));
    let broken = section.rows[0].error.as_deref().unwrap();
    assert!(broken.starts_with("false did not attach"), "{broken}");
    let cost = section.rows[1].cost.as_ref().unwrap();
    for callback in CALLBACKS {
        let counted = &cost.programs[callback];
        assert!(counted.verified_insns > 0, "{callback}: {counted:?}");
        // reading the clock alone takes tens of instructions
        assert!(counted.per_run >= 10, "{callback}: {counted:?}");
    }
    // five windows of half a second are 250 bursts, each of 20 messages that may wake a thread: most find
    // theirs awake, and by how many differs between builds (970 to 1205)
    assert!(cost.wakeups >= 500, "{cost:?}");
    assert_eq!(section.rows, count().rows);
}
