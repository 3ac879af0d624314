//! Whether the meters that cover the same energy agree: two looks at all of them, a while apart.

use super::{Area, Finding, State};
use crate::energy::agreement::{Comparison, Verdict};
use crate::energy::select::{Purpose, Source, State as Fitness};
use crate::energy::{self, Agreement, EnergySource, Facts, Moment, Selection};
use crate::sysroot::SysRoot;
use crate::units::Nanos;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Time between the looks: long enough to tell a factor of two, short enough to wait for.
const APART: Duration = Duration::from_secs(1);

/// What came of looking at this machine's meters twice; `None` when no two of them cover the same energy.
pub(super) fn finding(sys: &SysRoot, facts: &Facts, selection: &Selection) -> Option<Finding> {
    let start = Instant::now();
    let mut looks = 0;
    let comparisons = compare(sys, facts, selection, || {
        if looks > 0 {
            std::thread::sleep(APART);
        }
        looks += 1;
        Nanos::new(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    });
    judge(&comparisons)
}

/// Looks twice; `moment` tells when the next look begins, and may wait for it.
fn compare(
    sys: &SysRoot,
    facts: &Facts,
    selection: &Selection,
    mut moment: impl FnMut() -> Nanos,
) -> Vec<Comparison> {
    let mut meters = meters(sys, facts, selection);
    let mut agreement = Agreement::default();
    for _ in 0..if meters.is_empty() { 0 } else { 2 } {
        let now = Moment {
            at: moment(),
            resumed: false,
        };
        let looks = meters.iter_mut().filter_map(|(source, meters)| {
            let samples = meters.iter_mut().map(|meter| meter.sample(now));
            let samples: Vec<_> = samples.collect::<Result<_, _>>().ok()?;
            Some((*source, samples.into_iter().flatten().collect()))
        });
        agreement.add(&looks.collect::<Vec<_>>());
    }
    agreement.comparisons()
}

/// The counters that can be read, of every source once.
fn meters(
    sys: &SysRoot,
    facts: &Facts,
    selection: &Selection,
) -> BTreeMap<Source, Vec<Box<dyn EnergySource>>> {
    let mut meters = BTreeMap::new();
    for purpose in [Purpose::Package, Purpose::Cores] {
        for verdict in selection.verdicts_for(purpose) {
            let counts = matches!(
                verdict.source,
                Source::PerfPower | Source::PerfPowerCore | Source::Powercap | Source::HwmonEnergy
            );
            let readable = matches!(verdict.state, Fitness::Chosen | Fitness::Spare);
            if counts && readable && !meters.contains_key(&verdict.source) {
                // what cannot be opened has its verdict already
                let opened = energy::open(sys, facts, verdict.source, purpose);
                meters.insert(verdict.source, opened.unwrap_or_default());
            }
        }
    }
    meters
}

fn judge(comparisons: &[Comparison]) -> Option<Finding> {
    let told = |verdict| {
        let alike = comparisons.iter().filter(|it| it.verdict == verdict);
        let alike: Vec<_> = alike.map(Comparison::to_string).collect();
        (!alike.is_empty()).then(|| alike.join("; "))
    };
    let finding = |state, detail| Finding::new(Area::Energy, "agreement", state, detail);
    if let Some(differ) = told(Verdict::Differ) {
        let detail = format!("in {} s {differ}: one of them is wrong", APART.as_secs());
        return Some(finding(State::Degraded, detail));
    }
    let agree = told(Verdict::Agree)?;
    Some(finding(
        State::Ok,
        format!("in {} s {agree}", APART.as_secs()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const PACKAGE: &str = "sys/class/powercap/intel-rapl:0";
    const SENSOR: &str = "sys/class/hwmon/hwmon0";

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    /// A machine with a zone and a sensor for the package, that count so much in a minute.
    fn found(zone_uj: u64, sensor_uj: u64) -> Option<Finding> {
        let root = tempfile::tempdir().unwrap();
        let sys = SysRoot::at(root.path());
        let show = |zone_uj: u64, sensor_uj: u64| {
            write(
                root.path(),
                &format!("{PACKAGE}/energy_uj"),
                &zone_uj.to_string(),
            );
            write(
                root.path(),
                &format!("{SENSOR}/energy1_input"),
                &sensor_uj.to_string(),
            );
        };
        write(root.path(), &format!("{PACKAGE}/name"), "package-0");
        write(root.path(), &format!("{SENSOR}/energy1_label"), "package");
        show(5, 7);
        let facts = energy::probe(&sys);
        let mut minutes = 0;
        let comparisons = compare(&sys, &facts, &energy::select(&facts), || {
            minutes += 1;
            if minutes == 2 {
                show(5 + zone_uj, 7 + sensor_uj);
            }
            Nanos::new(minutes * 60_000_000_000)
        });
        judge(&comparisons)
    }

    #[test]
    fn meters_that_agree_are_a_finding_and_meters_that_do_not_a_complaint() {
        let agree = found(60_000_000, 60_100_000).unwrap();
        assert_eq!(agree.state, State::Ok);
        assert_eq!(
            agree.detail,
            "in 1 s package of powercap 60000 mJ, package of hwmon energy 60100 mJ"
        );
        let differ = found(60_000_000, 120_000_000).unwrap();
        assert_eq!(differ.state, State::Degraded);
        assert!(
            differ.detail.ends_with("120000 mJ: one of them is wrong"),
            "{}",
            differ.detail
        );
    }

    #[test]
    fn meters_that_do_not_move_say_nothing() {
        assert_eq!(found(0, 0), None);
    }

    #[test]
    fn a_machine_without_counters_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let sys = SysRoot::at(root.path());
        let facts = energy::probe(&sys);
        let unasked = || panic!("there is nothing to look at");
        assert!(compare(&sys, &facts, &energy::select(&facts), unasked).is_empty());
    }
}
