use super::*;
use crate::energy::fixture::{Machine, at_ms, collection};
use crate::error::Error;
use proptest::prelude::*;

/// A discharging battery with these figures.
fn battery(figures: &[(&str, &str)]) -> Machine {
    let machine = Machine::bare();
    machine.battery("BAT0", "Discharging");
    for (file, text) in figures {
        set(&machine, file, text);
    }
    machine
}

fn set(machine: &Machine, file: &str, text: &str) {
    machine.file(&format!("{CLASS}/BAT0/{file}"), &format!("{text}\n"));
}

fn open(machine: &Machine) -> BatteryPower {
    let sys = machine.sys();
    BatteryPower::open(&sys, &batteries(&sys).unwrap()[0]).unwrap()
}

fn power_at(source: &mut BatteryPower, ms: u64) -> Option<u64> {
    match source.sample(at_ms(ms)).unwrap().remove(0).amount {
        Amount::Power(power) => power.map(Microwatts::get),
        Amount::Energy(outcome) => panic!("{outcome:?}"),
    }
}

#[test]
fn power_now_comes_first() {
    let machine = battery(&[
        ("power_now", "4830000"),
        ("current_now", "1"),
        ("voltage_now", "12229000"),
        ("energy_now", "49450000"),
    ]);
    let source = &mut open(&machine);
    assert_eq!(source.method, Method::Power);
    assert_eq!(power_at(source, 0), Some(4_830_000));
}

#[test]
fn the_refresh_period_is_what_the_samples_show() {
    let machine = battery(&[("power_now", "4830000")]);
    let source = &mut open(&machine);
    for (ms, power) in [(0, "4830000"), (7_000, "4900000"), (20_000, "4900000")] {
        set(&machine, "power_now", power);
        power_at(source, ms);
        assert_eq!(source.refresh(), None);
    }
    set(&machine, "power_now", "4700000");
    assert_eq!(power_at(source, 37_000), Some(4_700_000));
    assert_eq!(source.refresh(), Some(Nanos::new(30_000_000_000)));
}

#[test]
fn else_current_times_voltage_whatever_the_sign() {
    for current in ["400000", "-400000"] {
        let machine = battery(&[("current_now", current), ("voltage_now", "12000000")]);
        let source = &mut open(&machine);
        assert_eq!(source.method, Method::CurrentVoltage);
        assert_eq!(power_at(source, 0), Some(4_800_000));
    }
}

#[test]
fn else_the_slope_of_energy_between_the_moments_it_was_seen_to_change() {
    let machine = battery(&[("energy_now", "50000000")]);
    let source = &mut open(&machine);
    assert_eq!(source.method, Method::EnergySlope);
    assert_eq!(power_at(source, 0), None);
    assert_eq!(power_at(source, 10_000), None);
    // The first change has no known beginning.
    set(&machine, "energy_now", "49990000");
    assert_eq!(power_at(source, 15_000), None);
    assert_eq!(source.refresh(), None);
    assert_eq!(power_at(source, 25_000), None);
    // 10 mWh in 30 s: 1.2 W, which holds until the next change or four times 30 s.
    set(&machine, "energy_now", "49980000");
    assert_eq!(power_at(source, 45_000), Some(1_200_000));
    assert_eq!(source.refresh(), Some(Nanos::new(30_000_000_000)));
    assert_eq!(power_at(source, 165_000), Some(1_200_000));
    assert_eq!(power_at(source, 165_001), None);
}

#[test]
fn else_the_slope_of_charge_times_voltage() {
    let machine = battery(&[("charge_now", "4000000"), ("voltage_now", "10000000")]);
    let source = &mut open(&machine);
    assert_eq!(source.method, Method::ChargeSlope);
    power_at(source, 0);
    set(&machine, "charge_now", "3999000");
    power_at(source, 30_000);
    // 1 mAh at 10 V in 30 s.
    set(&machine, "charge_now", "3998000");
    assert_eq!(power_at(source, 60_000), Some(1_200_000));
}

#[test]
fn a_change_of_voltage_alone_is_no_slope() {
    let machine = battery(&[("charge_now", "4000000"), ("voltage_now", "10000000")]);
    let source = &mut open(&machine);
    power_at(source, 0);
    set(&machine, "charge_now", "3999000");
    power_at(source, 30_000);
    set(&machine, "voltage_now", "9000000");
    assert_eq!(power_at(source, 40_000), None);
    set(&machine, "charge_now", "3998000");
    assert_eq!(power_at(source, 60_000), Some(1_080_000));
}

#[test]
fn a_slope_that_rises_is_none() {
    let machine = battery(&[("energy_now", "50000000")]);
    let source = &mut open(&machine);
    for (ms, energy) in [(0, "49990000"), (30_000, "49980000"), (60_000, "49985000")] {
        set(&machine, "energy_now", energy);
        assert_eq!(power_at(source, ms), None, "{energy}");
    }
}

#[test]
fn the_slope_starts_afresh_after_suspend_and_after_charging() {
    let slope = || {
        let machine = battery(&[("energy_now", "50000000")]);
        let mut source = open(&machine);
        for (ms, energy) in [(0, "50000000"), (30_000, "49990000"), (60_000, "49980000")] {
            set(&machine, "energy_now", energy);
            power_at(&mut source, ms);
        }
        assert_eq!(power_at(&mut source, 61_000), Some(1_200_000));
        (machine, source)
    };
    let (_machine, mut source) = slope();
    let resumed = Moment {
        resumed: true,
        ..at_ms(90_000)
    };
    let readings = source.sample(resumed).unwrap();
    assert_eq!(readings[0].amount, Amount::Power(None));

    let (machine, mut source) = slope();
    set(&machine, "status", "Charging");
    assert_eq!(power_at(&mut source, 90_000), None);
    set(&machine, "status", "Discharging");
    assert_eq!(power_at(&mut source, 120_000), None);
}

#[test]
fn only_a_machine_that_lives_on_its_battery_has_a_battery_power() {
    for (status, state) in [
        ("Discharging", State::Discharging),
        ("Charging", State::External),
        ("Full", State::External),
        ("Not charging", State::External),
        ("Unknown", State::Unknown),
        ("", State::Unknown),
    ] {
        let machine = battery(&[("power_now", "4830000"), ("status", status)]);
        assert_eq!(batteries(&machine.sys()).unwrap()[0].state, state);
        let power = (state == State::Discharging).then_some(4_830_000);
        assert_eq!(power_at(&mut open(&machine), 0), power, "{status}");
    }
}

#[test]
fn a_charger_that_feeds_along_hides_part_of_the_power() {
    for (kind, online, state) in [
        ("Mains", "1", State::External),
        ("USB", "3", State::External),
        ("Mains", "0", State::Discharging),
    ] {
        let machine = battery(&[("power_now", "4830000")]);
        machine
            .file(&format!("{CLASS}/AC/type"), kind)
            .file(&format!("{CLASS}/AC/online"), online);
        assert_eq!(batteries(&machine.sys()).unwrap()[0].state, state);
    }
}

#[test]
fn no_power_while_discharging_is_a_figure_not_refreshed_yet() {
    let machine = battery(&[("power_now", "0")]);
    assert_eq!(power_at(&mut open(&machine), 0), None);
}

#[test]
fn the_batteries_of_mice_and_absent_ones_are_not_ours() {
    let machine = battery(&[("power_now", "1"), ("present", "0")]);
    machine
        .battery("hidpp_battery_0", "Discharging")
        .file(&format!("{CLASS}/hidpp_battery_0/scope"), "Device\n");
    assert_eq!(batteries(&machine.sys()).unwrap(), []);
}

#[test]
fn a_battery_without_figures_is_shown_but_not_read() {
    let machine = battery(&[]);
    let batteries = batteries(&machine.sys()).unwrap();
    assert_eq!(batteries[0].access, Access::Absent);
    assert!(BatteryPower::open(&machine.sys(), &batteries[0]).is_none());
}

#[test]
fn a_broken_figure_falls_back_to_the_next_and_a_denied_one_is_told() {
    let machine = battery(&[("power_now", "much"), ("energy_now", "50000000")]);
    let found = &batteries(&machine.sys()).unwrap()[0];
    assert_eq!(found.method, Some(Method::EnergySlope));
    let machine = battery(&[]);
    machine.deny(&format!("{CLASS}/BAT0/power_now"));
    let found = &batteries(&machine.sys()).unwrap()[0];
    assert!(matches!(found.access, Access::Denied { .. }));
}

#[test]
fn a_battery_taken_out_gives_nothing_and_garbage_an_error() {
    let machine = battery(&[("power_now", "4830000")]);
    let mut source = open(&machine);
    set(&machine, "power_now", "4.83");
    let garbage = source.sample(at_ms(0));
    assert!(matches!(garbage, Err(Error::Malformed { .. })));
    machine.remove(&format!("{CLASS}/BAT0"));
    assert_eq!(power_at(&mut source, 1_000), None);
}

#[test]
fn the_collection_s_values_are_read_exactly() {
    let Some(collection) = collection() else {
        return; // the first test has the same values
    };
    const FIRMWARE: &str =
        "procfs/fixtures/sys/devices/LNXSYSTM:00/LNXSYBUS:00/PNP0A08:00/device:00/PNP0C09:00";
    let firmware = |device: &str| format!("{FIRMWARE}/{device}/power_supply");
    let class = |tree: &str| format!("{tree}/sys/class/power_supply");
    for (mains, battery, figures) in [
        (
            class("node_exporter"),
            class("node_exporter"),
            [5_002_000, 36_580_000, 11_660_000],
        ),
        (
            firmware("ACPI0003:00"),
            firmware("PNP0C0A:00"),
            [4_830_000, 49_450_000, 12_229_000],
        ),
    ] {
        // the collection has the devices but not always the class's links to them
        let machine = Machine::bare();
        for (directory, name) in [(mains, "AC"), (battery, "BAT0")] {
            machine.link(
                &format!("{CLASS}/{name}"),
                &collection.join(directory).join(name),
            );
        }
        let sys = machine.sys();
        let batteries = batteries(&sys).unwrap();
        assert_eq!(batteries.len(), 1);
        assert_eq!(batteries[0].name, "BAT0");
        assert_eq!(batteries[0].state, State::Discharging);
        let file = |file: &str| sys.open(format!("{CLASS}/BAT0/{file}"));
        for (name, figure) in ["power_now", "energy_now", "voltage_now"]
            .iter()
            .zip(figures)
        {
            assert_eq!(number(&mut file(name)).unwrap(), Some(figure), "{name}");
        }
        assert_eq!(power_at(&mut open(&machine), 0), Some(figures[0]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_figures_panic(
        file in "(power|current|energy|charge)_now",
        values in prop::collection::vec(("-?[0-9]{0,20}", any::<u64>()), 1..6),
        voltage in "-?[0-9]{0,20}",
        status in "[ -~]{0,12}",
    ) {
        let machine = battery(&[(&file, "1"), ("voltage_now", "1")]);
        let mut source = open(&machine);
        set(&machine, "voltage_now", &voltage);
        set(&machine, "status", &status);
        for (value, at) in values {
            set(&machine, &file, &value);
            set(&machine, "status", "Discharging");
            let _ = source.sample(Moment { at: Nanos::new(at), resumed: false });
        }
    }
}
