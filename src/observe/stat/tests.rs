use super::view::Value;
use super::*;
use std::fs;
use std::path::Path;
use std::thread::sleep;

fn show(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// CPUs 1 to 3 of one package, with a meter of it.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let zone = "sys/class/powercap/intel-rapl:0";
    for (file, text) in [
        ("sys/devices/system/cpu/possible", "0-3\n"),
        ("sys/devices/system/cpu/online", "1-3\n"),
        (
            "proc/stat",
            "cpu1 0 0 0 0 0\ncpu2 0 0 0 0 0\ncpu3 0 0 0 0 0\n",
        ),
        (&format!("{zone}/name"), "package-0\n"),
        (&format!("{zone}/max_energy_range_uj"), "262143328850\n"),
        (&format!("{zone}/energy_uj"), "1000\n"),
    ] {
        show(root.path(), file, text);
    }
    for cpu in 1..4 {
        let topology = format!("sys/devices/system/cpu/cpu{cpu}/topology");
        show(
            root.path(),
            &format!("{topology}/physical_package_id"),
            "0\n",
        );
        show(
            root.path(),
            &format!("{topology}/core_id"),
            &format!("{cpu}\n"),
        );
    }
    root
}

fn observer(root: &Path, columns: &[&str]) -> Observer {
    let sys = SysRoot::at(root);
    let args = StatArgs {
        show: columns.iter().map(|name| (*name).to_owned()).collect(),
        ..StatArgs::default()
    };
    let selection = Selection::new(&args, &[]).unwrap();
    let topology = Topology::read(&sys).unwrap();
    let rows = selection.rows(view::rows(&topology), &topology).unwrap();
    let mut observer = Observer::new(&sys, &topology, selection, rows, true);
    observer.look();
    observer.begin();
    observer
}

/// The next table, after long enough for the clocks to tell.
fn next(observer: &mut Observer) -> Table {
    sleep(Duration::from_millis(30));
    observer.table().unwrap()
}

fn kinds(table: &Table) -> Vec<&'static str> {
    table.rows.iter().map(|(kind, _)| *kind).collect()
}

#[test]
fn energy_between_two_looks_is_that_of_the_meter_and_has_an_error() {
    let root = machine();
    let mut observer = observer(root.path(), &["Pkg_J", "Pkg_J_err"]);
    show(
        root.path(),
        "sys/class/powercap/intel-rapl:0/energy_uj",
        "501000\n",
    );
    let table = next(&mut observer);
    let (_, cells) = &table.rows[0];
    assert_eq!(cells[0], Value::Real(0.5, 3));
    let Value::Real(error, _) = cells[1] else {
        panic!("{cells:?}")
    };
    assert!(error > 0.0 && error < 0.1, "{error}");
}

#[test]
fn an_energy_that_cannot_be_is_unknown_and_the_next_is_told() {
    let root = machine();
    let energy = "sys/class/powercap/intel-rapl:0/energy_uj";
    let mut observer = observer(root.path(), &["Pkg_J"]);
    // a jump, a file that cannot be read, and a difference over two intervals
    for value in ["200000000000\n", "nonsense\n", "200000300000\n"] {
        show(root.path(), energy, value);
        assert_eq!(next(&mut observer).rows[0].1[0], Value::Unknown, "{value}");
    }
    show(root.path(), energy, "200000700000\n");
    assert_eq!(next(&mut observer).rows[0].1[0], Value::Real(0.4, 3));
}

#[test]
fn rows_follow_cpus_that_go_and_come() {
    let root = machine();
    let mut observer = observer(root.path(), &["CPU", "Busy%"]);
    let all = ["system", "package", "cluster", "cpu", "cpu", "cpu"];
    assert_eq!(kinds(&next(&mut observer)), all);
    show(root.path(), "sys/devices/system/cpu/online", "1,3\n");
    let table = next(&mut observer);
    assert_eq!(
        kinds(&table),
        ["system", "package", "cluster", "cpu", "cpu"]
    );
    assert_ne!(
        table.rows[0].1[1],
        Value::Unknown,
        "the system is whole again"
    );
    show(root.path(), "sys/devices/system/cpu/online", "1-3\n");
    assert_eq!(kinds(&next(&mut observer)), all);
}

#[test]
fn a_column_without_figures_is_left_out_unless_it_was_named() {
    let root = machine();
    let args = StatArgs::default();
    let sys = SysRoot::at(root.path());
    let selection = Selection::new(&args, &[]).unwrap();
    let topology = Topology::read(&sys).unwrap();
    let rows = selection.rows(view::rows(&topology), &topology).unwrap();
    let mut observer = Observer::new(&sys, &topology, selection, rows, true);
    observer.begin();
    let heads = next(&mut observer).heads;
    assert!(heads.contains(&"Busy%".to_owned()) && !heads.contains(&"CoreTmp".to_owned()));
    let mut observer = self::observer(root.path(), &["CoreTmp", "CPU%c6"]);
    let table = next(&mut observer);
    assert_eq!(table.heads, ["CPU%c6", "CoreTmp"]);
    let unknown = |cells: &Vec<Value>| cells.iter().all(|cell| *cell == Value::Unknown);
    assert!(table.rows.iter().all(|(_, cells)| unknown(cells)));
}
