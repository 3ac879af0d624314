//! Parsers of activity and of recordings.

use scx_joule::energy::activity::{Feed, KernelActivity, Watch};
use scx_joule::energy::record::{Frame, Machine, Reader, Sample};
use scx_joule::energy::replay::Replay;
use scx_joule::energy::{Amount, Reading, counter::Outcome};
use scx_joule::energy::{Domain, EnergySource, Provenance, Scope};
use scx_joule::observation::Activity;
use scx_joule::sysroot::SysRoot;
use scx_joule::topology::{Cluster, Topology};
use scx_joule::units::{Capacity, KHz, Microjoules, Nanos};
use std::io::Cursor;
use std::path::Path;
use std::sync::LazyLock;

const SECOND: u64 = 1_000_000_000;

fn topology() -> Topology {
    let cluster = |cpus, capacity| Cluster {
        cpus,
        threads: 1,
        capacity: Capacity::new(capacity).unwrap(),
        opps: None,
        llc: 0,
    };
    Topology::synthetic(&[cluster(2, 512), cluster(1, 1024)])
}

fn opps() -> Vec<Vec<KHz>> {
    vec![
        vec![KHz::new(500_000), KHz::new(1_000_000)],
        vec![KHz::new(2_000_000)],
    ]
}

/// Two samples a second apart: no CPU was busy for longer.
pub fn activity(sys: &SysRoot) {
    let topology = topology();
    let mut activity = KernelActivity::new(sys, &topology, &opps());
    for second in 0..2 {
        let Ok(sample) = activity.sample(Nanos::new(second * SECOND)) else {
            return;
        };
        for (group, sums) in topology.groups.iter().zip(&sample.groups) {
            let busy: u64 = sums.busy.iter().map(|time| time.get()).sum();
            let most = u64::try_from(group.cpus.len()).unwrap() * SECOND;
            // each OPP's part is rounded
            assert!(busy <= most + 2, "{busy} ns busy in {most}");
        }
    }
}

/// Two looks at everything that is not perf's.
pub fn watch(sys: &SysRoot) {
    let feeds = Feed::ALL.into_iter().filter(|feed| !feed.is_perf());
    let places = [(0, (0, 0)), (1, (0, 1))].into();
    let mut watch = Watch::open(sys, &feeds.collect(), places);
    assert!(watch.look(Nanos::new(0), false).is_none());
    if let Some(interval) = watch.look(Nanos::new(SECOND), false) {
        assert_eq!(interval.elapsed.get(), SECOND);
        let parts = interval.cpus.values().flat_map(|cpu| &cpu.states);
        let mut parts = parts.filter_map(|(_, state)| state.part);
        assert!(parts.all(|part| (0.0..=1.0).contains(&part)));
    }
    let _ = watch.missing();
}

/// A machine and two samples, as payloads of frames.
static FRAMES: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let sample = |second: u64| {
        let moved = Outcome::Moved {
            energy: Microjoules::new(3_000_000),
            elapsed: Nanos::new(SECOND),
            wrapped: false,
        };
        Frame::Sample(Sample {
            at: Nanos::new(second * SECOND),
            readings: vec![Reading {
                domain: Domain::Package,
                scope: Scope::Machine,
                amount: Amount::Energy(moved),
                provenance: Provenance::Measured,
            }],
            activity: Activity::default(),
            ..Sample::default()
        })
    };
    let machine = Frame::Machine(Machine::new(&topology(), opps()));
    [machine, sample(1), sample(2)].map(|frame| postcard::to_stdvec(&frame).unwrap())
});

/// The file's bytes are edits of a recording's payloads, three bytes each: where (two), and what is changed there.
/// Lengths and checksums are made right, so that what lies behind them is reached; now and then they are not.
pub fn recording(sys: &SysRoot) {
    let Ok(Some(edits)) = sys.bytes("edits") else {
        return;
    };
    let mut payloads = FRAMES.clone();
    let (edits, left) = edits.as_chunks::<3>();
    for &[high, low, bits] in edits {
        let payload = &mut payloads[usize::from(low) % 3];
        let at = (usize::from(high) * 256 + usize::from(low)) / 3 % (payload.len() + 1);
        match bits % 4 {
            0 => payload.truncate(at),
            1 => payload.insert(at, bits),
            _ if at < payload.len() => payload[at] ^= bits,
            _ => {}
        }
    }
    let mut file = b"scx_joule record\x01\0\0\0".to_vec();
    for payload in payloads {
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let checksum = crc32fast::hash(&[&length[..], &payload].concat()).to_le_bytes();
        file.extend([&length[..], &checksum, &payload].concat());
    }
    match left {
        [bits] => {
            let at = usize::from(*bits) % file.len();
            file[at] ^= 1;
        }
        [high, low] => file.truncate((usize::from(*high) * 256 + usize::from(*low)) % file.len()),
        _ => {}
    }
    read(&file);
}

fn read(file: &[u8]) {
    let path = Path::new("recording");
    let Ok(mut reader) = Reader::new(Cursor::new(file), path) else {
        return;
    };
    let mut samples = Vec::new();
    while let Ok(Some(frame)) = reader.next() {
        match frame {
            Frame::Machine(machine) => drop(machine.topology()),
            Frame::Sample(sample) => samples.push(sample),
        }
    }
    assert!(reader.rest().is_none_or(|rest| rest < file.len()));
    let Some(last) = samples.last().map(Sample::moment) else {
        return;
    };
    let _ = Replay::new(path, samples).sample(last);
}
