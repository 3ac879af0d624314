//! The scheduler beside the kernel's own, on machines of two and of three clusters: fewer joules, no work lost.

use crate::common::{instrument, joule_load, lab, or_fail, scheduler};
use lab::bench::cell::{Verdict, verdict};
use lab::bench::{Bench, Entrant};
use lab::catalogue;
use lab::report::{Report, Row, Sample};
use lab::scenario::Scenario;
use lab::session::{EEVDF, EEVDF_EAS, Scheduler};
use std::path::PathBuf;
use std::time::Duration;

/// The scheduler beside one of the kernel's.
fn beside(reference: &str, machine: &str, workload: &str, seconds: u32) -> Report {
    let scenario = Scenario {
        machine: catalogue::machine(machine).unwrap(),
        workload: catalogue::workload(workload).unwrap(),
        load: joule_load().to_owned(),
        schedulers: vec![
            Scheduler::kernels(reference),
            Scheduler::of_program(scheduler(), ""),
        ],
        seeds: 2,
        seconds,
        warmup: Duration::from_secs(1),
    };
    let lab = lab();
    or_fail(scenario.run(&lab.cache, &lab.kernel))
}

/// The yardstick's verdict. Over two seeds the 99th percentile moves by a fifth with any change: it does not count.
fn does_the_work_in_time(row: &Row, reference: &Row) -> bool {
    let verdict = verdict(&runs(row), &runs(reference));
    matches!(verdict, Verdict::Counts | Verdict::Slow)
}

fn runs(row: &Row) -> Vec<&Sample> {
    row.samples.iter().collect()
}

/// ×0.58 and ×0.61 of EEVDF without EAS were measured over five seeds.
fn less_energy_than_eevdf_on(machine: &str) {
    let report = beside(EEVDF, machine, "light-burst", 3);
    let [eevdf, joule] = report.rows.as_slice() else {
        panic!("{report}");
    };
    assert!(joule.energy_j < 0.8 * eevdf.energy_j, "{report}");
    assert!(does_the_work_in_time(joule, eevdf), "{report}");
    // and it says what it learnt and did
    assert_eq!(eevdf.learnt, None);
    let learnt = joule.learnt.as_ref().unwrap();
    assert!(
        learnt.model_mape_pct.unwrap() > 0.0 && learnt.kicks_sent > 0,
        "{report}"
    );
}

#[test]
fn two_clusters_take_less_energy_than_under_eevdf_with_the_work_done() {
    less_energy_than_eevdf_on("phone-2c-msm8998");
}

#[test]
fn three_clusters_take_less_energy_than_under_eevdf_with_the_work_done() {
    less_energy_than_eevdf_on("phone-3c-gs101");
}

/// ×0.85 of EAS's was measured over two seeds; with an idle CPU for every message it was ×1.93.
#[test]
fn messages_take_no_more_energy_than_under_eas() {
    let report = beside(EEVDF_EAS, "phone-3c-gs101", "messaging", 2);
    let [eas, joule] = report.rows.as_slice() else {
        panic!("{report}");
    };
    assert!(joule.energy_j < 1.02 * eas.energy_j, "{report}");
    assert!(does_the_work_in_time(joule, eas), "{report}");
}

/// A scheduler that keeps everything on the little CPUs.
fn miser() -> Scheduler {
    let object = instrument("miser.bpf.c", "miser.bpf.o", &["-target", "bpf", "-c"]);
    let object = format!("-DOBJECT=\"{}\"", object.display());
    let program = instrument("miser.c", "miser", &["-std=gnu23", &object]);
    let mut miser = Scheduler::of_program(&program, "");
    miser.helpers.push(PathBuf::from("bpftool"));
    miser
}

#[test]
fn a_scheduler_that_saves_energy_by_not_doing_the_work_is_marked() {
    let machine = catalogue::machine("phone-3c-gs101").unwrap();
    let schedulers = [Scheduler::kernels(EEVDF_EAS), miser()];
    let bench = Bench {
        machines: vec![machine],
        workloads: vec![catalogue::workload("one-big-many-small").unwrap()],
        entrants: schedulers.into_iter().map(Entrant::ready).collect(),
        seeds: 2,
        seconds: Some(1),
        warmup: Duration::from_millis(200),
        settle: (catalogue::workload("light-periodic").unwrap(), 1),
        load: joule_load().to_owned(),
        fresh: true,
    };
    let lab = lab();
    let rows = or_fail(bench.run(&lab.cache, &lab.kernel));
    let cells = or_fail(bench.cells(&rows));
    let miser = cells[0].standing("miser").unwrap();
    assert_eq!(miser.verdict, Verdict::WorkLost, "{rows:#?}");
    assert!(
        miser.energy.unwrap().ratio < 0.9,
        "it is not even a saving: {rows:#?}"
    );
    let eas = cells[0].standing(EEVDF_EAS).unwrap();
    assert_eq!(eas.verdict, Verdict::Counts, "{rows:#?}");
}
