//! On the lab's own kernel, which has what Debian's have not: whichever meter `scx_joule stat` reads, it tells what was
//! spent; and the tracers that latencies are measured with are there.
//!
//! The kernel is built first, so this runs in `make test-full` only.

use crate::common::stat::{agree, figure, guest, system, truth};
use crate::common::{Lab, SHELL_PATH, section, succeed};
use std::sync::OnceLock;

fn lab() -> &'static Lab {
    static LAB: OnceLock<Lab> = OnceLock::new();
    LAB.get_or_init(|| Lab::on("lab"))
}

/// Each meter is withheld in its turn, so that the next one is read.
#[test]
fn energy_is_what_was_spent_by_pmu_by_powercap_and_by_hwmon() {
    let body = r#"
governor schedutil
for meter in pmu powercap hwmon; do
    scx_joule stat -q --Joules --Summary --format json --out /tmp/$meter -- sh /lab/load.sh $meter 10 ||
        fail "stat by $meter"
    say $meter cat /tmp/$meter
    scx_joule check --json > /tmp/check # ends with an error where nothing can be scheduled
    say $meter-check cat /tmp/check
    for end in before after; do say $meter-$end cat /tmp/$meter-$end; done
    control withhold $meter
done
"#;
    let script = format!(". {SHELL_PATH}\n{body}");
    let run = succeed(&guest(lab(), "own-meters").script(&script));
    for (meter, source) in [
        ("pmu", "perf-power"),
        ("powercap", "powercap"),
        ("hwmon", "hwmon-energy"),
    ] {
        let row = system(&run, meter);
        agree(
            &format!("{meter} and the module"),
            figure(&row, "Pkg_J"),
            truth(&run, meter),
        );
        let check = section(&run.results, &format!("{meter}-check"));
        let check: serde_json::Value = serde_json::from_str(check.trim()).unwrap();
        assert_eq!(check["energy"]["chosen"]["package"], source, "{meter}");
    }
}

#[test]
fn the_tracers_of_latencies_are_there() {
    let script = "grep -o 'timerlat\\|osnoise' /sys/kernel/tracing/available_tracers >> $RESULTS";
    let outcome = succeed(&lab().guest("own-tracers").script(script));
    let mut tracers: Vec<_> = outcome.results.lines().collect();
    tracers.sort_unstable();
    assert_eq!(tracers, ["osnoise", "timerlat"]);
}
