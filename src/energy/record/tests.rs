use super::*;
use crate::energy::counter::Outcome;
use crate::energy::source::{Amount, Domain, Provenance, Scope};
use crate::observation::GroupActivity;
use crate::topology::Cluster;
use crate::units::{Capacity, Microjoules};
use proptest::prelude::*;

fn topology() -> Topology {
    let cluster = |cpus, capacity, opps| Cluster {
        cpus,
        threads: 1,
        capacity: Capacity::new(capacity).unwrap(),
        opps,
        llc: 0,
    };
    let opps = vec![KHz::new(500_000), KHz::new(900_000)];
    Topology::synthetic(&[cluster(4, 300, Some(opps)), cluster(2, 1024, None)])
}

fn sample(tick: u64) -> Sample {
    let package = Reading {
        domain: Domain::Package,
        scope: Scope::Package {
            package: 0,
            die: None,
        },
        amount: Amount::Energy(Outcome::Moved {
            energy: Microjoules::new(1000 + tick),
            elapsed: Nanos::new(1_000_000_000),
            wrapped: tick == 3,
        }),
        provenance: Provenance::Measured,
    };
    let rail = Reading {
        domain: Domain::Other("VDD".to_owned()),
        scope: Scope::Device("hwmon1".to_owned()),
        amount: Amount::Power(None),
        provenance: Provenance::Modelled,
    };
    let group = GroupActivity {
        busy: vec![Nanos::new(tick), Nanos::new(2 * tick)],
        active: vec![Nanos::new(tick)],
        deep_exits: tick,
        ..GroupActivity::default()
    };
    Sample {
        at: Nanos::new(tick * 1_000_000_000),
        resumed: tick == 2,
        readings: vec![package, rail],
        activity: Activity {
            at: Nanos::new(tick),
            groups: vec![group],
        },
    }
}

/// A machine and samples.
fn frames() -> Vec<Frame> {
    let machine = Machine::new(&topology(), vec![vec![KHz::new(500_000)]]);
    let samples = (0..6).map(|tick| Frame::Sample(sample(tick)));
    std::iter::once(Frame::Machine(machine))
        .chain(samples)
        .collect()
}

fn bytes() -> Vec<u8> {
    let frames = frames();
    let encoded = frames.iter().flat_map(|frame| encode(frame).unwrap());
    header().into_iter().chain(encoded).collect()
}

/// The frames that can be read, and how that ended.
fn read(bytes: &[u8]) -> (Vec<Frame>, Result<Option<usize>>) {
    let mut reader = match Reader::new(bytes, Path::new("test")) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Err(error)),
    };
    let mut frames = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, Ok(reader.rest())),
            Err(error) => return (frames, Err(error)),
        }
    }
}

fn is_prefix(found: &[Frame]) -> bool {
    frames().starts_with(found)
}

#[test]
fn what_was_written_is_read() {
    let (found, ending) = read(&bytes());
    assert_eq!(found, frames());
    assert_eq!(ending.unwrap(), None);
}

#[test]
fn the_recorded_machine_has_the_relations_of_the_machine() {
    let topology = topology();
    assert_eq!(Machine::new(&topology, Vec::new()).topology(), topology);
}

#[test]
fn a_sample_of_a_small_machine_takes_less_than_a_hundred_bytes() {
    let length = encode(&Frame::Sample(sample(5))).unwrap().len();
    assert!(length < 100, "{length}");
}

#[test]
fn every_truncation_leaves_an_intact_prefix() {
    let bytes = bytes();
    for length in HEADER..bytes.len() {
        let (found, ending) = read(&bytes[..length]);
        assert!(is_prefix(&found) && found.len() < 7, "{length}");
        let rest = ending.unwrap();
        assert!(rest.is_some() || found.len() < 7, "{length}");
    }
    for length in 0..HEADER {
        assert!(read(&bytes[..length]).1.is_err(), "{length}");
    }
}

#[test]
fn every_flipped_bit_is_an_error_or_a_cut_after_an_intact_prefix() {
    let whole = bytes();
    for bit in 0..8 * whole.len() {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (found, ending) = read(&bytes);
        assert!(is_prefix(&found), "bit {bit}");
        // A length that points past the end looks like a cut.
        assert!(found.len() < 7, "bit {bit} went unnoticed");
        if let Ok(rest) = ending {
            assert!(rest.is_some(), "bit {bit}");
        }
    }
}

#[test]
fn another_version_and_another_file_are_refused_by_name() {
    let mut newer = bytes();
    newer[MAGIC.len()] = 2;
    let error = read(&newer).1.unwrap_err().to_string();
    assert!(error.contains("'version 2': is not version 1"), "{error}");
    let error = read(b"#!/bin/sh\necho no recording\n").1.unwrap_err();
    assert!(error.to_string().contains("recording of scx_joule"));
}

#[test]
fn a_recording_is_gone_on_with_and_a_damaged_one_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.joule");
    let all = frames();
    for part in [&all[..3], &all[3..]] {
        let mut writer = Writer::open(&path).unwrap();
        for frame in part {
            writer.append(frame).unwrap();
        }
        writer.finish().unwrap();
    }
    assert_eq!(std::fs::read(&path).unwrap(), bytes());
    let cut = &bytes()[..bytes().len() - 1];
    std::fs::write(&path, cut).unwrap();
    let error = Writer::open(&path).unwrap_err().to_string();
    assert!(error.contains("record into another file"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), cut);
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(tail in prop::collection::vec(any::<u8>(), 0..200), keep in 0usize..300) {
        let mut bytes = bytes();
        bytes.truncate(HEADER + keep);
        let kept = read(&bytes).0.len();
        bytes.extend(tail);
        let (found, _) = read(&bytes);
        prop_assert!(found.len() >= kept);
        prop_assert_eq!(&found[..kept], &frames()[..kept]);
    }

    #[test]
    fn no_payload_with_a_right_checksum_breaks_the_reader(payload in prop::collection::vec(any::<u8>(), 0..120)) {
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let sum = checksum(&length, &payload).to_le_bytes();
        let bytes = [&header()[..], &length, &sum, &payload].concat();
        let (found, _) = read(&bytes);
        if let [Frame::Machine(machine)] = found.as_slice() {
            machine.topology();
        }
    }
}
