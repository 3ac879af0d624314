use super::*;
use crate::topology::Cluster;
use crate::units::{Capacity, Nanos};

/// Two little cores and one big core of two threads.
fn topology() -> Topology {
    let cluster = |cpus, threads, capacity| Cluster {
        cpus,
        threads,
        capacity: Capacity::new(capacity).unwrap(),
        opps: None,
        llc: 0,
    };
    Topology::synthetic(&[cluster(2, 1, 512), cluster(2, 2, 1024)])
}

fn places() -> BTreeMap<usize, Place> {
    let place = |(cpu, core)| {
        let place = Place {
            package: Some(0),
            core: Some(core),
            ..Place::default()
        };
        (cpu, place)
    };
    [(0, 0), (1, 1), (2, 2), (3, 2)].map(place).into()
}

fn interval(cpus: [CpuInterval; 4]) -> Interval {
    Interval {
        elapsed: Nanos::new(2_000_000_000),
        cpus: cpus.into_iter().enumerate().collect(),
        packages: [(0, PackageInterval::default())].into(),
        ..Interval::default()
    }
}

fn figure(joules: f64) -> Figure {
    Figure {
        joules,
        watts: joules / 2.0,
        error_j: Some(0.5),
    }
}

struct World {
    interval: Interval,
    energy: BTreeMap<(Domain, Scope), Figure>,
    places: BTreeMap<usize, Place>,
}

impl World {
    fn new(cpus: [CpuInterval; 4]) -> Self {
        Self {
            interval: interval(cpus),
            energy: BTreeMap::new(),
            places: places(),
        }
    }

    fn view(&self) -> View<'_> {
        View {
            interval: &self.interval,
            energy: &self.energy,
            scheduler: None,
            places: &self.places,
            time_of_day: 0.0,
        }
    }
}

fn busy(part: Option<f64>) -> CpuInterval {
    CpuInterval {
        busy: part,
        ..CpuInterval::default()
    }
}

fn system() -> Row {
    rows(&topology()).remove(0)
}

#[test]
fn rows_go_from_the_whole_to_its_parts() {
    let kinds: Vec<RowKind> = rows(&topology()).iter().map(|row| row.kind).collect();
    use RowKind::{Cluster, Cpu, System};
    let expected = [
        System,
        Cluster(0),
        Cpu(0),
        Cpu(1),
        Cluster(1),
        Cpu(2),
        Cpu(3),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn the_mean_and_the_sum_of_some_cpus_are_not_those_of_all() {
    let world = World::new([0.1, 0.2, 0.3, 0.4].map(|part| busy(Some(part))));
    assert_eq!(world.view().mean(&system(), |cpu| cpu.busy), Some(0.25));
    let mut world = World::new([Some(0.1), None, Some(0.3), Some(0.4)].map(busy));
    assert_eq!(world.view().mean(&system(), |cpu| cpu.busy), None);
    let known = world.view().mean_of_known(&system(), |cpu| cpu.busy);
    assert!((known.unwrap() - 0.8 / 3.0).abs() < 1e-12);
    assert_eq!(world.view().sum(&system(), |cpu| cpu.interrupts), None);
    world.interval.cpus.remove(&3);
    assert_eq!(world.view().mean(&system(), |_| Some(1.0)), None);
}

#[test]
fn a_core_is_told_by_the_cpu_that_answers_for_it_and_c1_is_what_is_left() {
    let with = |c6: Option<f64>, part| CpuInterval {
        core_idle: c6.map(|c6| ("c6".to_owned(), c6)).into_iter().collect(),
        average_hz: Some(1e9),
        ..busy(Some(part))
    };
    let world = World::new([
        with(Some(0.5), 0.25),
        with(Some(0.75), 0.25),
        with(Some(0.25), 0.5),
        with(None, 0.75),
    ]);
    let view = world.view();
    let c6 = |cpu: &CpuInterval| cpu.core_idle.get("c6").copied();
    assert_eq!(view.mean_over_cores(&system(), c6), Some(0.5));
    let c1 = |id: usize| view.c1(id, &view.interval.cpus[&id]);
    assert_eq!([c1(0), c1(2), c1(3)], [Some(0.25), Some(0.25), Some(0.0)]);
}

#[test]
fn energy_of_a_row_is_that_of_the_scopes_which_cover_it() {
    let mut world = World::new(Default::default());
    let core = |cpu, joules| ((Domain::Cores, Scope::Core { cpu }), figure(joules));
    world.energy = [core(0, 1.0), core(1, 2.0), core(2, 4.0)].into();
    let view = world.view();
    let rows = rows(&topology());
    let joules = |row: &Row| view.energy(row, Meter::Cores).map(|it| it.joules);
    let told: Vec<_> = rows.iter().map(joules).collect();
    let expected = [7.0, 3.0, 1.0, 2.0, 4.0, 4.0].map(Some);
    assert_eq!(told[..6], expected);
    assert_eq!(told[6], None, "the second thread does not answer");
    assert_eq!(view.energy(&rows[0], Meter::Package), None);
    let error = view.energy(&rows[0], Meter::Cores).unwrap().error_j;
    assert_eq!(error, Some(1.5));
}

#[test]
fn energy_that_misses_a_core_or_a_die_is_unknown() {
    let mut world = World::new(Default::default());
    world.energy = [((Domain::Cores, Scope::Core { cpu: 0 }), figure(1.0))].into();
    let clusters = &rows(&topology())[1];
    assert_eq!(world.view().energy(clusters, Meter::Cores), None);
    let die = |die| Scope::Package {
        package: 0,
        die: Some(die),
    };
    let unknown = figure(f64::NAN);
    let dies = [(die(0), figure(1.0)), (die(1), unknown)];
    world.energy = dies
        .map(|(scope, it)| ((Domain::Package, scope), it))
        .into();
    assert_eq!(world.view().energy(&system(), Meter::Package), None);
}

#[test]
fn what_is_no_number_is_unknown() {
    assert_eq!(Value::real(Some(f64::NAN), 1), Value::Unknown);
    assert_eq!(Value::real(Some(f64::INFINITY), 1), Value::Unknown);
    assert_eq!(Value::real(None, 1), Value::Unknown);
}

#[test]
fn places_come_from_the_machines_own_files() {
    let root = tempfile::tempdir().unwrap();
    for (file, text) in [
        (
            "proc/cpuinfo",
            "processor\t: 1\napicid\t\t: 6\n\nprocessor : x\napicid : 9\n",
        ),
        ("sys/devices/system/cpu/cpu1/cache/index3/id", "2\n"),
    ] {
        let path = root.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut topology = topology();
    topology.cpus[1].facts.node = Some(3);
    let places = super::places(&SysRoot::at(root.path()), &topology);
    let place = &places[&1];
    assert_eq!(
        (place.apic, place.node, place.l3, place.cluster),
        (Some(6), Some(3), Some(2), Some(0))
    );
    assert_eq!((places[&0].apic, places[&0].node), (None, None));
}
