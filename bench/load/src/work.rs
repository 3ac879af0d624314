//! What work is, and the trait of those who can do it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// No single slice of work is longer than this, in ns of CPU time: stops, migrations and
/// frequency changes are seen at the end of a slice.
pub const SLICE_NS: u64 = 250_000;

/// An amount of work. One unit is what the biggest CPU does in one nanosecond at its highest frequency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkUnits(pub u64);

impl WorkUnits {
    /// From µs of the biggest CPU at its highest frequency, rt-app's unit of `run`.
    pub fn from_us(us: u64) -> Self {
        Self(us.saturating_mul(1_000))
    }

    /// The whole µs of the biggest CPU at its highest frequency that this makes.
    pub fn as_us(self) -> u64 {
        self.0 / 1_000
    }
}

/// When to leave off, done or not.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// The end of the run on `CLOCK_MONOTONIC`, in ns; `u64::MAX` means none.
    pub end_ns: u64,
    /// Set when the user wants to stop now.
    pub stop: &'a AtomicBool,
}

impl Limits<'_> {
    /// Whether the run is over at this time.
    pub fn over(&self, now_ns: u64) -> bool {
        now_ns >= self.end_ns || self.stop.load(Ordering::Relaxed)
    }
}

/// What a call to [`Work::run`] achieved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// At most what was asked for; less only when a limit was met.
    pub work: WorkUnits,
    /// How often a slice ended on another CPU than it began on.
    pub migrations: u64,
}

/// Does work in the calling thread. Each thread owns one.
pub trait Work: Send {
    /// Works until `work` is done or a limit is met.
    ///
    /// # Errors
    /// When the clock, the CPU's number or its speed cannot be read.
    fn run(&mut self, work: WorkUnits, limits: &Limits) -> io::Result<Done>;
}
