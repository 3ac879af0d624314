use super::*;

const SMALL: &str = r#"
name = "small"
title = "A machine for tests"
mode = "schedutil"
em = "watts"
floor_mw = 12.5
source = "none"
assumptions = "all"

[[cluster]]
name = "little"
cpus = [0, 1]
capacity = 400
shallow = { mw = 5, wake_uj = 10 }
deep = { mw = 0.5, after_us = 2000, wake_uj = 20.25 }
sleep = { mw = 1, after_us = 3000, wake_uj = 100 }
opps = [
  { khz = 500000, busy_mw = 20.125, shared_mw = 3 },
  { khz = 1000000, busy_mw = 60, shared_mw = 9 },
]

[[cluster]]
name = "big"
cpus = [2, 3]
capacity = 1024
smt = { power = 0.25, speed = 0.62 }
em_factor = 1.5
shallow = { mw = 9, wake_uj = 15 }
deep = { mw = 2, after_us = 2500, wake_uj = 30 }
sleep = { mw = 4, after_us = 4000, wake_uj = 300 }
opps = [
  { khz = 700000, busy_mw = 120, shared_mw = 10, capacity = 300 },
  { khz = 2000000, busy_mw = 900, shared_mw = 60, capacity = 1024 },
]
"#;

fn parse(text: &str) -> Result<Machine, MachineError> {
    Machine::parse(Path::new("m.toml"), text)
}

/// Every machine file of the project.
fn machines() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("machines");
    let mut files: Vec<_> = directory
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

#[test]
fn a_machine_is_described_in_whole_microwatts_nanojoules_and_microseconds() {
    let machine = parse(SMALL).unwrap();
    assert_eq!(
        machine.to_description(),
        "vsoc 1\nname small\nmode schedutil\nem watts\nfloor_uw 12500\n\
         cluster little\ncpus 0 1\nthreads 1\nshallow 5000 10000\ndeep 500 2000 20250\n\
         sleep 1000 3000 100000\nopp 500000 200 20125 3000\nopp 1000000 400 60000 9000\n\
         cluster big\ncpus 2 3\nthreads 2 250 620\nem_permille 1500\nshallow 9000 15000\n\
         deep 2000 2500 30000\nsleep 4000 4000 300000\nopp 700000 300 120000 10000\n\
         opp 2000000 1024 900000 60000\nend\n"
    );
    assert_eq!((machine.nr_cpus(), machine.threads_per_core()), (4, 2));
    assert_eq!(machine.clusters[1].nr_cores(), 1);
}

#[test]
fn capacity_is_linear_in_frequency_where_none_was_measured() {
    let machine = parse(&SMALL.replace("500000,", "333333,")).unwrap();
    assert_eq!(machine.clusters[0].opps[0].capacity, 133);
    let machine = parse(&SMALL.replace("500000,", "1000,")).unwrap();
    assert_eq!(machine.clusters[0].opps[0].capacity, 1, "never 0");
}

#[test]
fn what_is_wrong_is_refused_with_line_value_and_what_is_right() {
    // (what is replaced, by what, line, part of the message)
    let cases: &[(&str, &str, usize, &str)] = &[
        ("floor_mw = 12.5", "floor_mw = -1", 6, "0 to 100000"),
        (
            "floor_mw = 12.5",
            "floor_mw = 1.0005",
            6,
            "at most three decimals",
        ),
        ("floor_mw = 12.5", "floor_mw = nan", 6, "0 to 100000"),
        ("floor_mw = 12.5", "floor_mw = inf", 6, "0 to 100000"),
        ("floor_mw = 12.5", "floor_mw = 1e300", 6, "0 to 100000"),
        ("floor_mw = 12.5", "floor_mw = \"9\"", 6, "0 to 100000"),
        (
            "floor_mw = 12.5",
            "floor_uw = 1",
            6,
            "unknown field `floor_uw`",
        ),
        ("floor_mw = 12.5", "", 1, "missing field `floor_mw`"),
        ("\"schedutil\"", "\"manual\"", 4, "unknown variant `manual`"),
        (
            "\"schedutil\"",
            "\"hardware-managed\"",
            5,
            "em is \"watts\"",
        ),
        ("source = \"none\"", "source = \" \"", 7, "source is empty"),
        (
            "name = \"small\"",
            "name = \"a b\"",
            2,
            "name 'a b' is not 1 to 31",
        ),
        (
            "name = \"little\"",
            "name = \"big\"",
            23,
            "a second cluster 'big'",
        ),
        (
            "cpus = [2, 3]",
            "cpus = [1, 2]",
            24,
            "cpus: 1 is in two places",
        ),
        (
            "cpus = [2, 3]",
            "cpus = [2, 4]",
            24,
            "cpus: 4, but the 4 CPUs",
        ),
        ("cpus = [2, 3]", "cpus = [2]", 24, "do not make pairs"),
        ("cpus = [2, 3]", "cpus = []", 24, "cpus is empty"),
        ("speed = 0.62", "speed = 0", 26, "speed is 0"),
        ("speed = 0.62", "speed = 1.1", 26, "0 to 1 "),
        ("em_factor = 1.5", "em_factor = 0", 27, "em_factor is 0"),
        ("mw = 0.5, after", "mw = 6, after", 15, "more than shallow"),
        (
            "after_us = 3000",
            "after_us = 0",
            16,
            "sleep: after_us is 0",
        ),
        (
            "after_us = 3000",
            "after_us = 10000001",
            16,
            "sleep: after_us is 10000001",
        ),
        (
            "khz = 500000",
            "khz = 1000000",
            19,
            "khz 1000000 after 1000000; must rise",
        ),
        ("khz = 500000", "khz = 0", 18, "khz is 0"),
        ("busy_mw = 60", "busy_mw = 0", 19, "busy_mw is 0"),
        (
            "capacity = 300",
            "capacity = 0",
            32,
            "capacity 0 is not 1 to 1024",
        ),
        (
            "capacity = 300",
            "capacity = 1025",
            32,
            "capacity 1025 is not 1 to 1024",
        ),
        (", capacity = 300", "", 32, "capacity is given for some"),
        (
            "capacity = 1024 }",
            "capacity = 1000 }",
            25,
            "the highest OPP has 1000",
        ),
        (
            "capacity = 1024\n",
            "capacity = 1025\n",
            25,
            "capacity is 1025",
        ),
        ("capacity = 400", "capacity = 0", 13, "capacity is 0"),
    ];
    for (from, to, line, message) in cases {
        assert!(SMALL.contains(from), "the case for '{to}' replaces nothing");
        let error = parse(&SMALL.replacen(from, to, 1)).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("m.toml:{line}: ")),
            "'{to}' is in line {line}: {error}"
        );
        assert!(
            error.message.contains(message),
            "'{to}' should say '{message}': {error}"
        );
        assert!(!error.to_string().contains('\n'), "one line: {error}");
    }
}

#[test]
fn the_largest_capacity_is_1024() {
    let error = parse(&SMALL.replace("1024", "1000")).unwrap_err();
    assert!(error.message.contains("the largest is 1000"), "{error}");
}

#[test]
fn limits_of_the_module_are_limits_of_the_file() {
    let opps: String = (1..=33)
        .map(|mhz| format!("{{ khz = {mhz}000, busy_mw = 1, shared_mw = 1 }},"))
        .collect();
    let little = SMALL.find("opps = [").unwrap()..SMALL.find("]\n\n[[cluster]]").unwrap();
    let mut text = SMALL.to_owned();
    text.replace_range(little, &format!("opps = [{opps}"));
    assert!(
        parse(&text)
            .unwrap_err()
            .message
            .contains("33 opps; 1 to 32")
    );

    let cpus: Vec<String> = (2..65).map(|cpu| cpu.to_string()).collect();
    let text = SMALL
        .replace("[2, 3]", &format!("[{}]", cpus.join(", ")))
        .replace("smt = ", "# ");
    assert!(
        parse(&text)
            .unwrap_err()
            .message
            .contains("65 cpus; at most 64")
    );
}

#[test]
fn a_file_that_is_not_there_or_not_toml_is_named() {
    let error = Machine::load(Path::new("/nowhere/x.toml")).unwrap_err();
    assert!(
        error.to_string().starts_with("/nowhere/x.toml: "),
        "{error}"
    );
    assert!(
        parse("name = \n")
            .unwrap_err()
            .to_string()
            .starts_with("m.toml:1: ")
    );
    assert!(parse("").unwrap_err().message.contains("missing field"));
}

#[test]
fn every_machine_file_is_right_named_as_its_machine_and_states_its_assumptions() {
    let files = machines();
    assert!(files.len() >= 5, "only {} machine files", files.len());
    for file in files {
        let machine = Machine::load(&file).unwrap();
        assert_eq!(file.file_stem().unwrap().to_str().unwrap(), machine.name);
        assert!(machine.assumptions.len() > 80, "{}", machine.name);
        for cluster in &machine.clusters {
            let lowest = cluster.opps.first().unwrap().shared_uw;
            assert!(
                cluster.capacity() > 0 && lowest > 0,
                "{} {}",
                machine.name,
                cluster.name
            );
        }
    }
}

/// Of the phones, `JOULE_SHARED` has the measured tables: `hardware/soc/measured-<soc>.toml`.
#[test]
fn busy_and_shared_power_of_a_phone_make_up_what_was_measured() {
    #[derive(serde::Deserialize)]
    struct Measured {
        domain: Vec<Domain>,
    }
    #[derive(serde::Deserialize)]
    struct Domain {
        khz: Vec<u32>,
        power_mw: Vec<f64>,
        capacity: Vec<u32>,
    }
    let Ok(shared) = std::env::var("JOULE_SHARED") else {
        return;
    };
    let phones: Vec<_> = machines()
        .into_iter()
        .filter(|file| {
            file.file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("phone-")
        })
        .collect();
    assert!(phones.len() >= 2);
    for file in phones {
        let machine = Machine::load(&file).unwrap();
        let soc = machine.name.rsplit('-').next().unwrap();
        let table = Path::new(&shared).join(format!("hardware/soc/measured-{soc}.toml"));
        let measured: Measured = toml::from_str(&std::fs::read_to_string(&table).unwrap()).unwrap();
        assert_eq!(measured.domain.len(), machine.clusters.len());
        for (domain, cluster) in measured.domain.iter().zip(&machine.clusters) {
            assert_eq!(domain.khz.len(), cluster.opps.len());
            for (index, opp) in cluster.opps.iter().enumerate() {
                let total = f64::from(opp.busy_uw + opp.shared_uw) / 1000.0;
                let what = format!("{} {} {} kHz", machine.name, cluster.name, opp.khz);
                assert_eq!(opp.khz, domain.khz[index], "{what}");
                assert_eq!(opp.capacity, domain.capacity[index], "{what}");
                assert!(
                    (total - domain.power_mw[index]).abs() < 1e-6,
                    "{what}: {total} mW"
                );
            }
        }
    }
}
