//! Recordings of a machine's energy and activity: a file that only grows and survives being cut off.
//!
//! Layout, version 1; numbers little-endian:
//! ```text
//! file    magic "scx_joule record"   version u32   frame*
//! frame   length u32   checksum u32   payload
//! ```
//! `length` counts the payload's bytes, at most [`MAX_FRAME`]; `checksum` is the CRC-32 (IEEE 802.3) of the
//! length's four bytes and the payload; the payload is one [`Frame`] in postcard's encoding
//! (<https://postcard.jamesmunns.com/wire-format>): variable-length integers, no names. A change of [`Frame`] or
//! of anything in it is a new version.
//!
//! The first frame is a [`Machine`]; each further one begins a new session with a clock and counters of its own, as
//! when CPUs went on- or offline or the file was appended to. A frame is written by one system call; after a crash
//! all but the last are whole.

use super::clock::Moment;
use super::kernel_em::PerfDomain;
use super::select::Source;
use super::source::Reading;
use crate::error::{Error, Result};
use crate::observation::Activity;
use crate::topology::{CpuFacts, Policy, Topology};
use crate::units::{KHz, Nanos};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 16] = b"scx_joule record";
const VERSION: u32 = 1;
const HEADER: usize = MAGIC.len() + size_of::<u32>();
const FRAME_HEADER: usize = 2 * size_of::<u32>();

/// The longest payload: more than a machine of 8192 CPUs needs.
pub const MAX_FRAME: u32 = 1 << 24;

/// One entry of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// A session begins.
    Machine(Machine),
    /// What was read at one moment.
    Sample(Sample),
}

/// What a session was recorded on: enough to start the same model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's release.
    pub release: Option<String>,
    /// Every CPU number that may ever come online, ascending.
    pub possible: Vec<usize>,
    /// Online CPUs without their caches and clocks.
    pub cpus: Vec<CpuFacts>,
    /// CPUs of each last-level cache.
    pub caches: Vec<Vec<usize>>,
    /// Every clock, with its CPUs.
    pub policies: Vec<Policy>,
    /// Frequencies of each class's OPPs, in the order of every sample's times.
    pub opps: Vec<Vec<KHz>>,
    /// The kernel's Energy Model.
    pub energy_model: Vec<PerfDomain>,
    /// The meters that were read.
    pub sources: Vec<Source>,
}

/// What was read at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When, on the session's clock.
    pub at: Nanos,
    /// Whether the machine slept since the sample before.
    pub resumed: bool,
    /// What the meters said.
    pub readings: Vec<Reading>,
    /// What the groups of CPUs had done, in the topology's order.
    pub activity: Activity,
}

impl Sample {
    /// The moment it was taken at.
    pub fn moment(&self) -> Moment {
        Moment {
            at: self.at,
            resumed: self.resumed,
        }
    }
}

impl Machine {
    /// Describes a machine.
    pub fn new(topology: &Topology, opps: Vec<Vec<KHz>>) -> Self {
        let mut machine = Self {
            possible: topology.possible.clone(),
            opps,
            ..Self::default()
        };
        for cpu in &topology.cpus {
            let facts = &cpu.facts;
            if !machine.caches.contains(&facts.llc) {
                machine.caches.push(facts.llc.clone());
            }
            if let Some(policy) = &facts.policy
                && !machine.policies.contains(policy)
            {
                machine.policies.push(policy.clone());
            }
            machine.cpus.push(CpuFacts {
                llc: Vec::new(),
                policy: None,
                ..facts.clone()
            });
        }
        machine
    }

    /// The machine's relations.
    pub fn topology(&self) -> Topology {
        let with_all = |facts: &CpuFacts| {
            let own = |cpus: &[usize]| cpus.contains(&facts.id);
            let cache = self.caches.iter().find(|cpus| own(cpus));
            let policy = self.policies.iter().find(|policy| own(&policy.cpus));
            CpuFacts {
                llc: cache.cloned().unwrap_or_else(|| vec![facts.id]),
                policy: policy.cloned(),
                ..facts.clone()
            }
        };
        let facts = self.cpus.iter().map(with_all).collect();
        Topology::of(self.possible.clone(), facts)
    }
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
}

impl Writer {
    /// Begins a recording, or goes on with one that is whole.
    ///
    /// # Errors
    /// When the file cannot be opened or written, is no recording, is of another version, or is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        let mut options = File::options();
        let mut file = options
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            file.write_all(&header()).map_err(io)?;
        } else {
            let mut reader = Reader::new(&file, path)?;
            while reader.next()?.is_some() {}
            if let Some(rest) = reader.rest() {
                let what = "a whole recording, to be appended to; record into another file";
                return Err(reader.damaged(&format!("{rest} bytes of a frame"), what));
            }
        }
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// When it cannot be written, or is longer than [`MAX_FRAME`].
    pub fn append(&mut self, frame: &Frame) -> Result<()> {
        let io = |source| Error::Io {
            path: self.path.clone(),
            source,
        };
        let bytes =
            encode(frame).map_err(|why| io(std::io::Error::new(ErrorKind::InvalidData, why)))?;
        self.file.write_all(&bytes).map_err(io)
    }

    /// Waits until all is on the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(self) -> Result<()> {
        let path = self.path;
        self.file
            .sync_all()
            .map_err(|source| Error::Io { path, source })
    }
}

fn header() -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes()].concat()
}

/// A frame with its length and checksum.
fn encode(frame: &Frame) -> std::result::Result<Vec<u8>, String> {
    let payload = postcard::to_stdvec(frame).map_err(|error| error.to_string())?;
    let length = u32::try_from(payload.len()).ok();
    let length = length
        .filter(|length| *length <= MAX_FRAME)
        .ok_or_else(|| format!("a frame of {} bytes is too long", payload.len()))?;
    let length = length.to_le_bytes();
    let checksum = checksum(&length, &payload).to_le_bytes();
    Ok([&length[..], &checksum, &payload].concat())
}

fn checksum(length: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(payload);
    hasher.finalize()
}

/// Reads a recording frame by frame.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    path: PathBuf,
    /// Whole frames read so far, and the byte at which the next begins.
    frames: usize,
    at: usize,
    /// Bytes of a frame that was cut off.
    rest: Option<usize>,
}

impl Reader<BufReader<File>> {
    /// Opens a recording.
    ///
    /// # Errors
    /// When it cannot be read, is no recording or is of another version.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::Io {
            path: path.to_owned(),
            source,
        })?;
        Self::new(BufReader::new(file), path)
    }
}

impl<R: Read> Reader<R> {
    /// Reads a recording from `from`; `path` is for messages.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn new(from: R, path: &Path) -> Result<Self> {
        let mut reader = Self {
            from,
            path: path.to_owned(),
            frames: 0,
            at: 0,
            rest: None,
        };
        let head = reader.take(HEADER)?;
        let Some((magic, version)) = head
            .split_first_chunk::<16>()
            .filter(|(it, _)| *it == MAGIC)
        else {
            return Err(reader.damaged("its beginning", "that of a recording of scx_joule"));
        };
        debug_assert_eq!(magic, MAGIC);
        let version = version.first_chunk().map(|it| u32::from_le_bytes(*it));
        match version {
            Some(VERSION) => {}
            Some(other) => {
                return Err(reader.damaged(&format!("version {other}"), "version 1"));
            }
            None => return Err(reader.damaged("its beginning", "whole")),
        }
        reader.at = HEADER;
        Ok(reader)
    }

    /// The next frame; `None` at the end, also where a frame was cut off (see [`Reader::rest`]).
    ///
    /// # Errors
    /// When the file cannot be read, or from here on is not what was written.
    #[expect(
        clippy::should_implement_trait,
        reason = "a damaged frame ends the recording"
    )]
    pub fn next(&mut self) -> Result<Option<Frame>> {
        let head = self.take(FRAME_HEADER)?;
        let Some((length, expected)) = head.split_first_chunk::<4>() else {
            return Ok(self.cut_off(head.len()));
        };
        let Some(expected) = expected.first_chunk().map(|it| u32::from_le_bytes(*it)) else {
            return Ok(self.cut_off(head.len()));
        };
        let size = u32::from_le_bytes(*length);
        let wanted = usize::try_from(size).unwrap_or(usize::MAX);
        if size > MAX_FRAME {
            return Err(self.damaged(&format!("length {size}"), "a frame's length"));
        }
        let payload = self.take(wanted)?;
        if payload.len() < wanted {
            return Ok(self.cut_off(FRAME_HEADER + payload.len()));
        }
        if checksum(length, &payload) != expected {
            return Err(self.damaged("a frame", "what was written: its checksum is another"));
        }
        let frame = match postcard::take_from_bytes::<Frame>(&payload) {
            Ok((frame, [])) => frame,
            Ok(_) => return Err(self.damaged("a frame", "as long as its content")),
            Err(error) => return Err(self.damaged(&error.to_string(), "a frame of version 1")),
        };
        self.frames += 1;
        self.at += FRAME_HEADER + payload.len();
        Ok(Some(frame))
    }

    /// Bytes of a last frame that was cut off, as by a crash; `None` when there is none, or the end has not
    /// been reached.
    pub fn rest(&self) -> Option<usize> {
        self.rest
    }

    fn cut_off(&mut self, bytes: usize) -> Option<Frame> {
        self.rest = (bytes > 0).then_some(bytes);
        None
    }

    /// Up to `wanted` bytes; fewer at the end.
    fn take(&mut self, wanted: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = u64::try_from(wanted).unwrap_or(u64::MAX);
        let read = self.from.by_ref().take(limit).read_to_end(&mut bytes);
        read.map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })?;
        Ok(bytes)
    }

    fn damaged(&self, found: &str, expected: &str) -> Error {
        Error::Setting {
            path: self.path.clone(),
            line: self.frames,
            value: found.to_owned(),
            reason: format!("is not {expected} (byte {})", self.at),
        }
    }
}

#[cfg(test)]
mod tests;
