//! The kernels that the project promises to run on can be had, and their sched_ext works.

use crate::common::{lab, or_fail, succeed};
use lab::guest::Guest;
use lab::kernel::{Kernels, SERIES};

#[test]
fn every_series_has_a_kernel_that_a_scheduler_attaches_to() {
    let cache = &lab().cache;
    for series in SERIES {
        let kernel = or_fail(Kernels::new(cache).of_series(series, false));
        let name = format!("test-series-{}", series.name);
        let script = "uname -r >> $RESULTS; [ $(cat /sys/kernel/sched_ext/state) = disabled ]";
        let outcome = succeed(&Guest::new(cache, &kernel, &name).script(script));
        assert_eq!(outcome.results.trim(), kernel.release);
    }
}

#[test]
fn what_is_no_kernel_is_refused_with_the_names_that_are() {
    let error = Kernels::new(&lab().cache)
        .get("7.2.x")
        .unwrap_err()
        .to_string();
    assert!(error.contains("newest, 7.2, 6.18"), "{error}");
}
