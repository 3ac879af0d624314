//! What the attached scheduler has to say without being asked: that a sample is worth taking, and that it
//! is no more.

use anyhow::Result;
use crossbeam_channel::{Receiver, Sender, bounded};
use libbpf_rs::{MapHandle, RingBufferBuilder};
use log::warn;
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

/// A channel that receives when the scheduler wakes the loop, and closes when the kernel has detached the
/// scheduler behind `link`.
pub(super) fn watch(link: OwnedFd, wakeups: MapHandle) -> Receiver<()> {
    let (events, received) = bounded(1);
    thread::spawn(move || {
        if let Err(error) = forward(&link, &wakeups, &events) {
            warn!("the control loop is not woken any more: {error:#}");
            let _ = poll(&mut [PollFd::new(&link, PollFlags::empty())], None);
        }
    });
    received
}

/// Forwards wake-ups until the link hangs up.
fn forward(link: &OwnedFd, wakeups: &MapHandle, events: &Sender<()>) -> Result<()> {
    let mut builder = RingBufferBuilder::new();
    builder.add(wakeups, |_| {
        // A full channel means that the loop is to be woken already.
        let _ = events.try_send(());
        0
    })?;
    let ring = builder.build()?;
    loop {
        let mut ends = [
            PollFd::new(link, PollFlags::empty()),
            PollFd::from_borrowed_fd(wakeups.as_fd(), PollFlags::IN),
        ];
        match poll(&mut ends, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) if ends[0].revents().contains(PollFlags::HUP) => return Ok(()),
            Ok(_) => ring.consume()?,
        }
    }
}
