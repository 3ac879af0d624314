//! Each value that is on record for a machine is read as it stands there: a list says what a machine's files
//! say, and a key of the list that nobody reads fails the test as a wrong value does.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, its helpers too"
)]

mod common;

use common::{FakeSys, shared_fixtures, unpack};
use scx_joule::sysroot::{SysRoot, format_cpu_list as list};
use scx_joule::topology::{CoreType, Cpu, Topology};
use scx_joule::units::KHz;
use serde_json::{Map, Value, json};

/// What is read of one CPU, by the key under which it is on record.
const OF_A_CPU: [&str; 18] = [
    "base_frequency",
    "cluster_id",
    "core_id",
    "cppc_highest",
    "cppc_lowest",
    "cppc_nominal",
    "cpu_capacity",
    "cpuinfo_max_freq",
    "cpuinfo_min_freq",
    "die",
    "energy_performance_preference",
    "l2",
    "midr",
    "online",
    "pkg",
    "scaling_available_frequencies",
    "scaling_driver",
    "siblings",
];
/// What is read of the whole machine.
const OF_THE_MACHINE: [&str; 6] = ["cpus", "dmi", "kernel", "online", "possible", "root"];

const CPU_DIR: &str = "sys/devices/system/cpu";

/// A machine and what is read of it.
struct Machine {
    sys: SysRoot,
    topology: Topology,
}

impl Machine {
    fn new(sys: SysRoot) -> Self {
        let topology = Topology::read(&sys).unwrap();
        Self { sys, topology }
    }

    /// A file's text as the one opener of such files gives it.
    fn text(&self, file: &str) -> Option<String> {
        let text = self.sys.text(file).unwrap();
        text.filter(|text| !text.is_empty())
    }

    fn of_the_machine(&self, key: &str, wanted: Option<&str>) -> Option<String> {
        let topology = &self.topology;
        let online = topology.cpus.iter().map(|cpu| cpu.facts.id);
        match key {
            "online" => wanted.map(|_| list(&online.collect::<Vec<_>>())),
            "possible" => wanted.map(|_| list(&topology.possible)),
            "dmi" => self.text("sys/class/dmi/id/product_name"),
            // its beginning is on record
            "kernel" => {
                let length = wanted.map_or(0, |wanted| wanted.chars().count());
                let version = self.text("proc/version").unwrap_or_default();
                Some(version.chars().take(length).collect())
            }
            // the tree's own name
            "root" => {
                let path = self.sys.path("sys");
                let mut parts = path.iter().rev().take(2).map(|part| part.to_str().unwrap());
                let (sys, top) = (parts.next()?, parts.next()?);
                Some(format!("{top}/{sys}"))
            }
            other => panic!("nobody reads {other}"),
        }
    }

    /// What the product reads; through the topology where that keeps it.
    fn of_a_cpu(&self, id: usize, key: &str, wanted: Option<&str>) -> Option<String> {
        let dir = format!("{CPU_DIR}/cpu{id}");
        let number = |file: &str| -> Option<String> {
            let path = format!("{dir}/{file}");
            let value: Option<i64> = self.sys.value(path, "a number").unwrap();
            value.map(|value| value.to_string())
        };
        match key {
            "base_frequency" => return number("cpufreq/base_frequency"),
            "cluster_id" => return number("topology/cluster_id"),
            "cppc_lowest" => return number("acpi_cppc/lowest_perf"),
            "cppc_nominal" => return number("acpi_cppc/nominal_perf"),
            "energy_performance_preference" => return self.text(&format!("{dir}/cpufreq/{key}")),
            // so on record, whatever level the kernel's third cache is of
            "l2" => return self.text(&format!("{dir}/cache/index2/size")),
            // a CPU without a switch is on
            "online" => {
                let on = self.topology.cpu(id).is_some();
                return wanted.map(|_| if on { "1" } else { "0" }.to_owned());
            }
            _ => {}
        }
        let Some(cpu) = self.topology.cpu(id) else {
            // of an offline CPU the topology keeps nothing; its files answer all the same
            return match key {
                "core_id" => number("topology/core_id"),
                "pkg" => number("topology/physical_package_id"),
                _ => None,
            };
        };
        self.of_an_online_cpu(cpu, key, wanted)
    }

    fn of_an_online_cpu(&self, cpu: &Cpu, key: &str, wanted: Option<&str>) -> Option<String> {
        let facts = &cpu.facts;
        // A policy's values are on record with its first CPU or with every CPU, its absence with every CPU.
        let policy = self.topology.domains[cpu.domain].policy.as_ref();
        let policy = policy.filter(|policy| wanted.is_some() || policy.cpus[0] == facts.id);
        let khz = |khz: Option<KHz>| khz.map(|khz| khz.get().to_string());
        // an id that the kernel does not know is -1 on record and no id in the topology
        let id = |id: Option<u32>| {
            let unknown = || wanted.map(|_| "-1".to_owned());
            id.map(|id| id.to_string()).or_else(unknown)
        };
        match key {
            "core_id" => id(facts.core),
            "pkg" => id(facts.package),
            "die" => id(facts.die),
            "cpu_capacity" => facts.kernel_capacity.map(|value| value.to_string()),
            "cppc_highest" => facts.cppc_highest_perf.map(|value| value.to_string()),
            "cpuinfo_max_freq" => policy.and_then(|policy| khz(policy.max)),
            "cpuinfo_min_freq" => policy.and_then(|policy| khz(policy.min)),
            "scaling_driver" => policy.and_then(|policy| policy.driver.clone()),
            "scaling_available_frequencies" => {
                let steps = policy.and_then(|policy| policy.opps.as_ref());
                let steps = steps.filter(|_| wanted.is_some())?.iter();
                let steps: Vec<_> = steps.map(|step| step.get().to_string()).collect();
                Some(steps.join(" "))
            }
            "siblings" => wanted.map(|_| list(&facts.siblings)),
            // implementer and part are kept; variant, architecture and revision are as on record
            "midr" => facts.core_type.map(|kind| match kind {
                CoreType::Arm { implementer, part } => {
                    let rest = wanted.map_or(0, |wanted| hexadecimal(wanted) & 0x00ff_000f);
                    let midr = u64::from(implementer) << 24 | u64::from(part) << 4 | rest;
                    format!("0x{midr:016x}")
                }
                other => panic!("cpu{}: {other}", facts.id),
            }),
            other => panic!("nobody reads {other}"),
        }
    }
}

fn hexadecimal(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap()
}

/// Holds every key of one machine's record, and every key that could be in it, against what is read: the
/// number of values that are on record, or what does not agree.
fn compare(name: &str, record: &Value, sys: SysRoot) -> Result<usize, String> {
    let machine = Machine::new(sys);
    let mut values = 0;
    let mut hold = |what: String, known: &[&str], record: &Map<String, Value>, read: &Read<'_>| {
        if let Some(key) = record.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("{what}: nobody reads '{key}'"));
        }
        for key in known.iter().filter(|key| **key != "cpus") {
            let wanted = record.get(*key).and_then(Value::as_str);
            let wanted = wanted.map(|text| text.trim_matches(['\n', '\0']));
            let read = read(key, wanted);
            if read.as_deref() != wanted {
                return Err(format!("{what}: {key} is {wanted:?} and reads as {read:?}"));
            }
            values += usize::from(wanted.is_some());
        }
        Ok(())
    };
    let record = record.as_object().unwrap();
    hold(name.to_owned(), &OF_THE_MACHINE, record, &|key, wanted| {
        machine.of_the_machine(key, wanted)
    })?;
    for (id, record) in record["cpus"].as_object().unwrap() {
        let cpu = id.parse().unwrap();
        let record = record.as_object().unwrap();
        hold(
            format!("{name} cpu{id}"),
            &OF_A_CPU,
            record,
            &|key, wanted| machine.of_a_cpu(cpu, key, wanted),
        )?;
    }
    Ok(values)
}

/// Reads the value of a key that is on record as the second argument says.
type Read<'a> = dyn Fn(&str, Option<&str>) -> Option<String> + 'a;

/// Two machines with every key between them, and their record.
fn own() -> [(FakeSys, Value); 2] {
    let phone = FakeSys::empty().with(
        "sys/devices/system/cpu/possible = 0-1
         sys/devices/system/cpu/online = 0-1
         sys/devices/system/cpu/cpu[0-1]/online = 1
         sys/devices/system/cpu/cpu0/cpu_capacity = 280
         sys/devices/system/cpu/cpu1/cpu_capacity = 1024
         sys/devices/system/cpu/cpu[0-1]/topology/physical_package_id = 0
         sys/devices/system/cpu/cpu[0-1]/topology/die_id = -1
         sys/devices/system/cpu/cpu[0-1]/topology/core_id = {}
         sys/devices/system/cpu/cpu[0-1]/topology/thread_siblings_list = {}
         sys/devices/system/cpu/cpu[0-1]/regs/identification/midr_el1 = 0x00000000411fd461
         sys/devices/system/cpu/cpu0/cpufreq/related_cpus = 0 1
         sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq = 2016000
         sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_min_freq = 307200
         sys/devices/system/cpu/cpu0/cpufreq/scaling_available_frequencies = 307200 2016000
         sys/devices/system/cpu/cpu0/cpufreq/scaling_driver = qcom-cpufreq-hw",
    );
    let little = json!({
        "core_id": "0", "cpu_capacity": "280", "cpuinfo_max_freq": "2016000",
        "cpuinfo_min_freq": "307200", "die": "-1", "midr": "0x00000000411fd461", "online": "1",
        "pkg": "0", "scaling_available_frequencies": "307200 2016000",
        "scaling_driver": "qcom-cpufreq-hw", "siblings": "0",
    });
    let big = json!({
        "core_id": "1", "cpu_capacity": "1024", "die": "-1", "midr": "0x00000000411fd461",
        "online": "1", "pkg": "0", "siblings": "1\n\u{0}",
    });
    let laptop = FakeSys::empty().with(
        "proc/version = Linux version 6.1.0-13-amd64 (debian-kernel@lists.debian.org)
         sys/class/dmi/id/product_name = HP EliteBook 840
         sys/devices/system/cpu/cpu0/topology/physical_package_id = 0
         sys/devices/system/cpu/cpu0/topology/core_id = 4
         sys/devices/system/cpu/cpu0/topology/cluster_id = 8
         sys/devices/system/cpu/cpu0/acpi_cppc/highest_perf = 64
         sys/devices/system/cpu/cpu0/acpi_cppc/nominal_perf = 24
         sys/devices/system/cpu/cpu0/acpi_cppc/lowest_perf = 1
         sys/devices/system/cpu/cpu0/cpufreq/related_cpus = 0
         sys/devices/system/cpu/cpu0/cpufreq/base_frequency = 1900000
         sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference = balance_power
         sys/devices/system/cpu/cpu0/cache/index2/size = 1280K
         sys/devices/system/cpu/cpu1/online = 0",
    );
    let first = json!({
        "base_frequency": "1900000", "cluster_id": "8", "core_id": "4", "cppc_highest": "64",
        "cppc_lowest": "1", "cppc_nominal": "24", "l2": "1280K", "pkg": "0",
        "energy_performance_preference": "balance_power",
    });
    let machine = |fake: &FakeSys, mut record: Value| {
        let top = fake.root().path("");
        let top = top.file_name().unwrap().to_str().unwrap();
        record["root"] = json!(format!("{top}/sys"));
        record
    };
    let of_the_phone = json!({
        "possible": "0-1", "online": "0-1", "kernel": "", "dmi": null,
        "cpus": { "0": little, "1": big },
    });
    let of_the_laptop = json!({
        "possible": null, "online": null, "kernel": "Linux version 6.1.0-13-amd64",
        "dmi": "HP EliteBook 840", "cpus": { "0": first, "1": { "online": "0" } },
    });
    let records = [
        machine(&phone, of_the_phone),
        machine(&laptop, of_the_laptop),
    ];
    let [of_the_phone, of_the_laptop] = records;
    [(phone, of_the_phone), (laptop, of_the_laptop)]
}

#[test]
fn every_value_of_our_own_records_is_read_as_it_stands() {
    let read = own().map(|(machine, record)| compare("own", &record, machine.root()));
    assert_eq!(read, [Ok(22), Ok(13)]);
}

#[test]
fn every_key_that_can_be_read_is_in_our_own_records() {
    let records = own().map(|(_, record)| record);
    let is_on_record = |key: &&str| {
        let of_a_cpu = |record: &Value| {
            let mut cpus = record["cpus"].as_object().unwrap().values();
            cpus.any(|cpu| cpu.get(*key).is_some())
        };
        let mut records = records.iter();
        records.any(|record| record.get(*key).is_some() || of_a_cpu(record))
    };
    let mut keys = OF_A_CPU.iter().chain(&OF_THE_MACHINE);
    assert_eq!(keys.find(|key| !is_on_record(key)), None);
}

#[test]
fn a_key_that_nobody_reads_a_wrong_value_and_a_missing_one_are_told() {
    let told = |change: fn(&mut Value)| {
        let [(machine, mut record), _] = own();
        change(&mut record);
        compare("own", &record, machine.root()).unwrap_err()
    };
    let unread = told(|record| record["cpus"]["1"]["colour"] = json!("red"));
    assert_eq!(unread, "own cpu1: nobody reads 'colour'");
    let unread = told(|record| record["bios"] = json!("1.2"));
    assert_eq!(unread, "own: nobody reads 'bios'");
    let wrong = told(|record| record["cpus"]["0"]["cpu_capacity"] = json!("281"));
    assert!(
        wrong.contains("Some(\"281\") and reads as Some(\"280\")"),
        "{wrong}"
    );
    let missing = told(|record| {
        drop(
            record["cpus"]["1"]
                .as_object_mut()
                .unwrap()
                .remove("cpu_capacity"),
        )
    });
    assert!(
        missing.contains("None and reads as Some(\"1024\")"),
        "{missing}"
    );
}

#[test]
fn every_value_on_record_for_real_machines_is_read_as_it_stands() {
    let Some(fixtures) = shared_fixtures() else {
        return; // our own records have every key
    };
    let text = std::fs::read_to_string(fixtures.join("expected.json")).unwrap();
    let record: Value = serde_json::from_str(&text).unwrap();
    let mut values = 0;
    for (archive, record) in record.as_object().unwrap() {
        let (_directory, sys) = unpack(&fixtures.join(archive));
        values += compare(archive, record, sys).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    let on_record = leaves(&record);
    assert_eq!(values, on_record, "values on record that were not compared");
}

/// How many texts a JSON value holds.
fn leaves(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(leaves).sum(),
        Value::Array(list) => list.iter().map(leaves).sum(),
        Value::String(_) => 1,
        _ => 0,
    }
}
