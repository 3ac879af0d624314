//! The clocks and sleeps of the calling thread, in nanoseconds.

use crate::work::Limits;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use std::io;

/// One second in ns.
pub const SECOND_NS: u64 = 1_000_000_000;

/// `CLOCK_MONOTONIC`.
///
/// # Errors
/// When the kernel refuses the clock.
pub fn now_ns() -> io::Result<u64> {
    read(ClockId::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread.
///
/// # Errors
/// When the kernel refuses the clock.
pub fn cpu_time_ns() -> io::Result<u64> {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn read(clock: ClockId) -> io::Result<u64> {
    let time = clock_gettime(clock)?;
    let (Ok(secs), Ok(ns)) = (u64::try_from(time.tv_sec()), u64::try_from(time.tv_nsec())) else {
        return Err(io::Error::other(format!("clock {clock} is negative")));
    };
    Ok(secs.saturating_mul(SECOND_NS).saturating_add(ns))
}

/// A time span or point as the kernel wants it.
pub fn timespec(ns: u64) -> TimeSpec {
    let secs = i64::try_from(ns / SECOND_NS).unwrap_or(i64::MAX);
    let rest = i64::try_from(ns % SECOND_NS).unwrap_or(0);
    TimeSpec::new(secs, rest)
}

/// Sleeps until the given time on `CLOCK_MONOTONIC`; returns false when a limit came first.
///
/// # Errors
/// When the kernel refuses to sleep.
pub fn sleep_until(due_ns: u64, limits: &Limits) -> io::Result<bool> {
    let wake_ns = due_ns.min(limits.end_ns);
    loop {
        let now = now_ns()?;
        if limits.over(now) {
            return Ok(false);
        }
        if now >= wake_ns {
            return Ok(true);
        }
        match clock_nanosleep(
            ClockId::CLOCK_MONOTONIC,
            ClockNanosleepFlags::TIMER_ABSTIME,
            &timespec(wake_ns),
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
