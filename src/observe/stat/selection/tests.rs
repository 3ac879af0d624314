use super::*;
use crate::topology::{Cluster, Topology};
use crate::units::Capacity;

fn states() -> Vec<String> {
    ["POLL", "C6"].map(str::to_owned).to_vec()
}

fn shown(change: impl FnOnce(&mut StatArgs)) -> Vec<String> {
    let mut args = StatArgs::default();
    change(&mut args);
    let selection = Selection::new(&args, &states()).unwrap();
    let heads = selection.heads().iter();
    heads.map(|head| head.name.clone()).collect()
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn power_is_shown_in_watts_or_as_energy_with_its_error() {
    let usual = shown(|_| {});
    assert!(usual.contains(&"PkgWatt".to_owned()) && !usual.contains(&"Pkg_J".to_owned()));
    let joules = shown(|args| args.joules = true);
    let of_package: Vec<_> = joules
        .iter()
        .filter(|name| name.starts_with("Pkg"))
        .collect();
    assert!(of_package.contains(&&"Pkg_J".to_owned()));
    assert!(of_package.contains(&&"Pkg_J_err".to_owned()));
    assert!(!of_package.contains(&&"PkgWatt".to_owned()));
}

#[test]
fn show_is_exactly_that_hide_takes_away_and_enable_adds() {
    assert_eq!(
        shown(|args| args.show = list(&["IRQ", "Busy%"])),
        ["Busy%", "IRQ"]
    );
    assert!(!shown(|args| args.hide = list(&["IRQ"])).contains(&"IRQ".to_owned()));
    assert!(!shown(|_| {}).contains(&"usec".to_owned()));
    let enabled = shown(|args| args.enable = list(&["usec"]));
    assert!(enabled.contains(&"usec".to_owned()) && enabled.contains(&"IRQ".to_owned()));
}

#[test]
fn idle_states_are_shown_by_their_own_names_and_together() {
    let expected = ["POLL", "C6", "POLL-", "C6-", "POLL+", "C6+", "POLL%", "C6%"];
    assert_eq!(shown(|args| args.show = list(&["sysfs"])), expected);
    assert_eq!(shown(|args| args.show = list(&["C6%"])), ["C6%"]);
    let all = shown(|args| args.show = list(&["all"]));
    assert_eq!(all.len(), heads(columns(), &states()).len());
}

#[test]
fn a_name_that_no_column_has_is_refused_with_those_that_there_are() {
    for spoil in [0, 1, 2] {
        let mut args = StatArgs::default();
        let wrong = list(&["Bussy%"]);
        match spoil {
            0 => args.show = wrong,
            1 => args.hide = wrong,
            _ => args.enable = wrong,
        }
        let refusal = Selection::new(&args, &states()).err().unwrap().to_string();
        assert!(
            refusal.contains("'Bussy%'") && refusal.contains("Busy%,"),
            "{refusal}"
        );
    }
}

fn cpus(cpu: &str) -> std::result::Result<Vec<RowKind>, String> {
    let cluster = Cluster {
        cpus: 4,
        threads: 1,
        capacity: Capacity::MAX,
        opps: None,
        llc: 0,
    };
    let topology = Topology::synthetic(&[cluster]);
    let args = StatArgs {
        cpu: Some(cpu.to_owned()),
        ..StatArgs::default()
    };
    let selection = Selection::new(&args, &[]).unwrap();
    let rows = super::super::view::rows(&topology);
    let rows = selection.rows(rows, &topology);
    let rows = rows.map_err(|error| error.to_string())?;
    Ok(rows.into_iter().map(|row| row.kind).collect())
}

#[test]
fn rows_of_some_cpus_come_with_the_systems() {
    use RowKind::{Cpu, System};
    assert_eq!(cpus("1,2..3").unwrap(), [System, Cpu(1), Cpu(2), Cpu(3)]);
    assert_eq!(cpus("3,900").unwrap(), [System, Cpu(3)]);
    for wrong in ["x", "900", "3-1", ""] {
        assert!(cpus(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_summary_is_the_systems_row_alone() {
    let topology = Topology::synthetic(&[]);
    let args = StatArgs {
        summary: true,
        ..StatArgs::default()
    };
    let selection = Selection::new(&args, &[]).unwrap();
    let rows = super::super::view::rows(&topology);
    assert_eq!(selection.rows(rows, &topology).unwrap().len(), 1);
}
