//! The time that samples are stamped with.

use crate::units::Nanos;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// A suspend is longer than this; less is the time between two clocks' readings.
const SHORTEST_SLEEP: Duration = Duration::from_millis(100);

/// When a sample was taken, by the caller's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// A monotonic clock, in nanoseconds. One clock for all samples of a source.
    pub at: Nanos,
    /// Whether the machine slept (suspend, hibernation) since the previous sample.
    pub resumed: bool,
}

/// One clock for all samples of a session. It stands still while the machine is suspended, and notices that.
pub struct Clock {
    started: Instant,
    asleep: Duration,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// A clock that starts at 0 now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            asleep: asleep(),
        }
    }

    /// Now, and whether the machine slept since this was last asked.
    pub fn moment(&mut self) -> Moment {
        let asleep = asleep();
        let resumed = asleep > self.asleep + SHORTEST_SLEEP;
        self.asleep = asleep;
        let at = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Moment {
            at: Nanos::new(at),
            resumed,
        }
    }
}

/// How long the machine has been suspended since it booted.
fn asleep() -> Duration {
    let read = |clock| {
        let time = clock_gettime(clock);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    };
    read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic))
}
