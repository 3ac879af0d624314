use super::*;
use crate::energy::counter::{Cause, Outcome};
use crate::energy::fixture::{Machine, at_ms, collection};
use crate::energy::source::total;
use crate::error::Error;
use proptest::prelude::*;

const RANGE: u64 = 262_143_328_850;
const ENERGY: &str = "sys/class/powercap/intel-rapl:0/energy_uj";

fn package(package: u32) -> Scope {
    Scope::Package { package, die: None }
}

fn die(package: u32, die: u32) -> Scope {
    let die = Some(die);
    Scope::Package { package, die }
}

/// Which zone counts for what.
fn counted(machine: &Machine, amd: bool) -> Vec<(String, Domain, Scope)> {
    let zones = zones(&machine.sys()).unwrap();
    let mut counted: Vec<_> = meters(&zones, amd)
        .into_iter()
        .map(|meter| (meter.zone.id.clone(), meter.domain, meter.scope))
        .collect();
    counted.sort();
    counted
}

fn row(id: &str, domain: Domain, scope: Scope) -> (String, Domain, Scope) {
    (id.to_owned(), domain, scope)
}

/// The sample's only reading.
fn only(source: &mut Powercap, ms: u64) -> Outcome {
    let readings = source.sample(at_ms(ms)).unwrap();
    assert_eq!(readings.len(), 1);
    match readings[0].amount {
        Amount::Energy(outcome) => outcome,
        Amount::Power(_) => panic!("{readings:?}"),
    }
}

fn one_package(range: Option<u64>, energy_uj: u64) -> (Machine, Powercap) {
    let machine = Machine::bare();
    machine.zone("intel-rapl:0", "package-0", energy_uj, range);
    let source = Powercap::open(&machine.sys(), false).unwrap().unwrap();
    (machine, source)
}

#[test]
fn every_zone_of_a_laptop_counts_once() {
    assert_eq!(
        counted(&Machine::laptop(), false),
        [
            row("intel-rapl:0", Domain::Package, package(0)),
            row("intel-rapl:0:0", Domain::Cores, package(0)),
            row("intel-rapl:0:1", Domain::Gpu, package(0)),
            row("intel-rapl:1", Domain::Platform, Scope::Machine),
        ]
    );
}

#[test]
fn the_copy_stands_in_when_the_original_cannot_be_read() {
    let machine = Machine::laptop();
    machine.deny(ENERGY);
    let counted = counted(&machine, false);
    let packages: Vec<_> = counted
        .iter()
        .filter(|(_, domain, _)| *domain == Domain::Package)
        .collect();
    assert_eq!(packages.len(), 1);
    assert_eq!(packages[0].0, "intel-rapl-mmio:0");
}

#[test]
fn dies_are_counted_apart_on_intel_and_once_per_package_on_amd() {
    let machine = Machine::bare();
    machine
        .zone("intel-rapl:0", "package-0-die-0", 5, Some(RANGE))
        .zone("intel-rapl:0:0", "core", 1, Some(RANGE))
        .zone("intel-rapl:1", "package-0-die-1", 5, Some(RANGE));
    assert_eq!(
        counted(&machine, false),
        [
            row("intel-rapl:0", Domain::Package, die(0, 0)),
            row("intel-rapl:0:0", Domain::Cores, die(0, 0)),
            row("intel-rapl:1", Domain::Package, die(0, 1)),
        ]
    );
    assert_eq!(
        counted(&machine, true),
        [row("intel-rapl:0", Domain::Package, package(0))]
    );
}

#[test]
fn nested_zones_are_found_without_the_class_s_flat_links() {
    let machine = Machine::bare();
    machine
        .zone("intel-rapl:0", "package-0", 5, Some(RANGE))
        .zone("intel-rapl:0/intel-rapl:0:0", "core", 1, Some(RANGE));
    assert_eq!(
        counted(&machine, false),
        [
            row("intel-rapl:0", Domain::Package, package(0)),
            row("intel-rapl:0:0", Domain::Cores, package(0)),
        ]
    );
}

#[test]
fn modelled_zones_and_unknown_names_do_not_count_but_scmi_does() {
    let machine = Machine::bare();
    machine
        .zone("dtpm:0", "package", 5, None)
        .zone("intel-rapl:0", "package-x", 5, Some(RANGE))
        .zone("intel-rapl:1", "psys-1", 5, Some(RANGE))
        .zone("intel-rapl:7:0", "core", 5, Some(RANGE))
        .zone("arm-scmi:0", "socket", 5, Some(RANGE));
    let scope = Scope::Device("arm-scmi:0".to_owned());
    assert_eq!(
        counted(&machine, false),
        [row("arm-scmi:0", Domain::Package, scope)]
    );
}

#[test]
fn packages_add_up_to_the_machine() {
    let machine = Machine::bare();
    machine
        .zone("intel-rapl:0", "package-0", 100, Some(RANGE))
        .zone("intel-rapl:1", "package-1", RANGE, Some(RANGE));
    let mut source = Powercap::open(&machine.sys(), false).unwrap().unwrap();
    source.sample(at_ms(0)).unwrap();
    machine
        .file(ENERGY, "350\n")
        .file("sys/class/powercap/intel-rapl:1/energy_uj", "9\n");
    let readings = source.sample(at_ms(1_000)).unwrap();
    let sum = total(&readings, &Domain::Package);
    assert_eq!(sum, Some(Microjoules::new(250 + 10)));
}

#[test]
fn a_domain_that_is_partly_unreadable_is_not_counted_short() {
    let machine = Machine::bare();
    machine
        .zone("intel-rapl:0", "package-0", 100, Some(RANGE))
        .zone("intel-rapl:0:0", "core", 100, Some(RANGE))
        .zone("intel-rapl:1", "package-1", 100, Some(RANGE))
        .deny("sys/class/powercap/intel-rapl:1/energy_uj");
    let mut source = Powercap::open(&machine.sys(), false).unwrap().unwrap();
    let readings = source.sample(at_ms(0)).unwrap();
    assert_eq!(readings.len(), 1);
    assert_eq!(readings[0].domain, Domain::Cores);
}

#[test]
fn the_zone_s_own_range_tells_where_it_wraps() {
    for range in [RANGE, 65_712_999_613] {
        let (machine, mut source) = one_package(Some(range), range - 4);
        assert_eq!(only(&mut source, 0), Outcome::Baseline);
        machine.file(ENERGY, "5\n");
        let wrapped = Outcome::Moved {
            energy: Microjoules::new(10),
            elapsed: Nanos::new(1_000_000_000),
            wrapped: true,
        };
        assert_eq!(only(&mut source, 1_000), wrapped);
    }
}

#[test]
fn without_a_readable_range_a_wrap_is_not_guessed() {
    let range = "sys/class/powercap/intel-rapl:0/max_energy_range_uj";
    let absent = |machine: &Machine| drop(machine.remove(range).sys());
    let empty = |machine: &Machine| drop(machine.file(range, "").sys());
    let garbage = |machine: &Machine| drop(machine.file(range, "-1\n").sys());
    let zero = |machine: &Machine| drop(machine.file(range, "0\n").sys());
    let denied = |machine: &Machine| drop(machine.deny(range).sys());
    let ways: [&dyn Fn(&Machine); 5] = [&absent, &empty, &garbage, &zero, &denied];
    for way in ways {
        let machine = Machine::bare();
        machine.zone("intel-rapl:0", "package-0", RANGE - 4, Some(RANGE));
        way(&machine);
        let mut source = Powercap::open(&machine.sys(), false).unwrap().unwrap();
        assert_eq!(source.longest_safe_period(), None);
        only(&mut source, 0);
        machine.file(ENERGY, "5\n");
        let unknown = Outcome::Dropped(Cause::RangeUnknown);
        assert_eq!(only(&mut source, 1_000), unknown);
    }
}

#[test]
fn the_safe_period_is_that_of_the_shortest_range() {
    let machine = Machine::bare();
    machine
        .zone("intel-rapl:0", "package-0", 1, Some(RANGE))
        .zone("intel-rapl:1", "package-1", 1, Some(65_712_999_613));
    let source = Powercap::open(&machine.sys(), false).unwrap().unwrap();
    let period = source.longest_safe_period().unwrap();
    // 65.7 kJ at 2 kW, less the refresh.
    assert_eq!(period.get() / 1_000_000, 32_756);
}

#[test]
fn a_zone_that_vanishes_and_returns_starts_afresh() {
    let (machine, mut source) = one_package(Some(RANGE), 100);
    only(&mut source, 0);
    machine.remove(ENERGY);
    let vanished = Outcome::Dropped(Cause::Vanished);
    assert_eq!(only(&mut source, 1_000), vanished);
    machine.file(ENERGY, "5000\n");
    assert_eq!(only(&mut source, 2_000), Outcome::Baseline);
}

#[test]
fn an_error_changes_nothing_and_the_next_difference_spans_it() {
    let (machine, mut source) = one_package(Some(RANGE), 100);
    only(&mut source, 0);
    machine.file(ENERGY, "1x\n");
    let error = source.sample(at_ms(1_000)).unwrap_err().to_string();
    assert!(
        error.ends_with("energy_uj:1: '1x' is not an energy in µJ"),
        "{error}"
    );
    machine.deny(ENERGY);
    let denied = source.sample(at_ms(2_000));
    assert!(matches!(denied, Err(Error::Denied { .. })), "{denied:?}");
    machine.file(ENERGY, "150\n");
    let spanned = Outcome::Moved {
        energy: Microjoules::new(50),
        elapsed: Nanos::new(3_000_000_000),
        wrapped: false,
    };
    assert_eq!(only(&mut source, 3_000), spanned);
}

#[test]
fn a_machine_without_readable_zones_has_no_source() {
    let machine = Machine::bare();
    assert!(Powercap::open(&machine.sys(), false).unwrap().is_none());
    machine
        .zone("intel-rapl:0", "package-0", 1, Some(RANGE))
        .deny(ENERGY);
    assert!(Powercap::open(&machine.sys(), false).unwrap().is_none());
}

#[test]
fn the_collection_s_values_are_read_exactly() {
    let Some(collection) = collection() else {
        return; // the same values stand in Machine::laptop
    };
    for (tree, zone_count) in [("procfs/fixtures", 3), ("node_exporter", 2)] {
        let sys = SysRoot::at(collection.join(tree));
        let zones = zones(&sys).unwrap();
        let file = |id| sys.open(energy_file(&format!("{CLASS}/{id}")));
        let energy = |id| energy(&mut file(id)).unwrap().unwrap();
        assert_eq!(zones.len(), zone_count, "{tree}");
        assert!(
            zones
                .iter()
                .all(|zone| zone.range == Some(Microjoules::new(RANGE)))
        );
        assert_eq!(energy("intel-rapl:0").get(), 240_422_366_267);
        assert_eq!(energy("intel-rapl:0:0").get(), 118_821_284_256);
        for zone in &zones {
            let shown = |file: &str| {
                let path = collection.join(tree).join(CLASS).join(&zone.id);
                let text = std::fs::read_to_string(path.join(file)).unwrap();
                text.trim().to_owned()
            };
            assert_eq!(zone.name, shown("name"));
            assert_eq!(energy(&zone.id).get().to_string(), shown("energy_uj"));
        }
        let meters = meters(&zones, false);
        assert_eq!(meters.len(), zone_count, "{tree}");
        assert!(meters.iter().any(|meter| meter.domain == Domain::Cores));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_zone_panics_or_counts_twice(
        zones in prop::collection::vec(
            ("(intel-rapl|intel-rapl-mmio|x)(:[0-9a]){0,3}", "(package-[0-9](-die-[0-9x])?|core|psys|dram|[ -~]{0,9})", "[ -~]{0,20}"),
            0..6,
        ),
        amd in any::<bool>(),
    ) {
        let machine = Machine::bare();
        for (id, name, energy) in &zones {
            let directory = format!("{CLASS}/{id}");
            machine
                .file(&format!("{directory}/name"), name)
                .file(&format!("{directory}/energy_uj"), energy);
        }
        let rows = counted(&machine, amd);
        let places: BTreeSet<_> = rows.iter().map(|(_, domain, scope)| (domain, scope)).collect();
        prop_assert_eq!(places.len(), rows.len());
        if let Some(mut source) = Powercap::open(&machine.sys(), amd).unwrap() {
            source.sample(at_ms(0)).unwrap();
        }
    }
}
