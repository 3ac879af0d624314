//! The oracle beside the kernel's energy-aware scheduling: what no placement can undercut, EAS does not either.

use crate::common::{joule_load, lab, or_fail};
use lab::catalogue;
use lab::oracle;
use lab::scenario::Scenario;
use lab::session::{EEVDF_EAS, Scheduler};
use std::time::Duration;

const SECONDS: u32 = 2;

/// 55 to 80 % of what EAS took was measured: the rest is what the oracle leaves out and what it does better.
fn eas_takes_no_less_than_the_oracle_on(machine: &str) {
    for workload in ["light-periodic", "periodic-05"] {
        let machine = catalogue::machine(machine).unwrap();
        let scenario = Scenario {
            machine,
            workload: catalogue::workload(workload).unwrap(),
            load: joule_load().to_owned(),
            schedulers: vec![Scheduler::kernels(EEVDF_EAS)],
            seeds: 2,
            seconds: SECONDS,
            warmup: Duration::from_secs(1),
        };
        let lab = lab();
        let report = or_fail(scenario.run(&lab.cache, &lab.kernel));
        for eas in &report.rows[0].samples {
            let least = |p99_ms| {
                let (machine, workload) = (&scenario.machine, &scenario.workload);
                or_fail(oracle::least(
                    machine,
                    workload,
                    eas.seed,
                    Some(SECONDS),
                    p99_ms,
                ))
            };
            let any = least(None).unwrap();
            let as_fast = least(Some(eas.p99_ms));
            eprintln!(
                "{workload} on {}, seed {}: EAS {:.3} J, p99 {:.2} ms; oracle {:.3} J, as fast {:?}",
                report.machine,
                eas.seed,
                eas.energy_j,
                eas.p99_ms,
                any.energy_j,
                as_fast.as_ref().map(|oracle| oracle.energy_j)
            );
            assert!(any.energy_j <= eas.energy_j, "{any:?}");
            assert!(any.energy_j > 0.5 * eas.energy_j, "{any:?}");
            if let Ok(as_fast) = as_fast {
                assert!(any.energy_j <= as_fast.energy_j, "{as_fast:?}");
                assert!(as_fast.energy_j <= eas.energy_j, "{as_fast:?}");
            }
        }
    }
}

#[test]
fn two_clusters_under_eas_take_no_less_than_the_oracle() {
    eas_takes_no_less_than_the_oracle_on("phone-2c-msm8998");
}

#[test]
fn three_clusters_under_eas_take_no_less_than_the_oracle() {
    eas_takes_no_less_than_the_oracle_on("phone-3c-gs101");
}
