//! The kernel's EAS at home: on a machine whose Energy Model is the truth it shows all seven behaviours.

use crate::common::{joule_load, lab, or_fail};
use lab::behaviour::Behaviours;
use lab::catalogue;
use lab::session::{EEVDF_EAS, Scheduler};

fn eas_shows_all_behaviours_on(machine: &str) {
    let machine = catalogue::machine(machine).unwrap();
    let behaviours = Behaviours {
        machine,
        schedulers: vec![Scheduler::kernels(EEVDF_EAS)],
        settle: (or_fail(catalogue::workload("mixed-interactive")), 30),
        load: joule_load().to_owned(),
    };
    let lab = lab();
    let verdicts = or_fail(behaviours.run(&lab.cache, &lab.kernel));
    let counting: Vec<_> = verdicts.verdicts.iter().filter(|it| it.counts).collect();
    assert_eq!(counting.len(), 7, "{verdicts}");
    for verdict in counting {
        assert_eq!(verdict.pass, Some(true), "{verdicts}");
    }
}

#[test]
fn eas_shows_all_behaviours_on_two_clusters() {
    eas_shows_all_behaviours_on("phone-2c-msm8998");
}

#[test]
fn eas_shows_all_behaviours_on_three_clusters() {
    eas_shows_all_behaviours_on("phone-3c-gs101");
}
