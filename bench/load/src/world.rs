//! The world of one real thread: its clock, its work, its mailbox.
//!
//! A mailbox is a pipe of 8-byte messages; only threads that receive have one.

use crate::clock;
use crate::player::World;
use crate::work::{Done, Limits, Work, WorkUnits};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, pipe2};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

/// How threads reach one another.
#[derive(Debug, Default)]
pub struct Post {
    /// By thread: where to write; `None` for those that never receive.
    writers: Vec<Option<File>>,
    /// By task: its threads.
    tasks: Vec<Range<usize>>,
}

impl Post {
    /// Adds a task with this many threads and returns their mailboxes' reading ends.
    ///
    /// # Errors
    /// When the system has no more pipes or file descriptors to give.
    pub fn add_task(&mut self, threads: usize, receives: bool) -> io::Result<Vec<Option<File>>> {
        let first = self.writers.len();
        let mut readers = Vec::with_capacity(threads);
        for _ in 0..threads {
            let (reader, writer) = if receives {
                let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
                (Some(File::from(reader)), Some(File::from(writer)))
            } else {
                (None, None)
            };
            self.writers.push(writer);
            readers.push(reader);
        }
        self.tasks.push(first..self.writers.len());
        Ok(readers)
    }
}

/// A thread's own half of the world, kept from round to round.
pub struct Seat {
    /// Does the thread's work.
    pub work: Box<dyn Work>,
    /// Reading end of its mailbox.
    pub mailbox: Option<File>,
    /// The other threads.
    pub post: Arc<Post>,
    /// The CPUs of its task.
    pub cpus: CpuSet,
}

impl Seat {
    /// Throws away what an earlier round left in the mailbox.
    ///
    /// # Errors
    /// When the mailbox cannot be read.
    pub fn drain(&mut self) -> io::Result<()> {
        while try_receive(&mut self.mailbox)?.is_some() {}
        Ok(())
    }
}

/// The world while a round lasts.
pub struct RealWorld<'a> {
    seat: &'a mut Seat,
    limits: Limits<'a>,
    /// The CPU of the last work, to see migrations between two runs.
    last_cpu: Option<usize>,
    /// Whether a phase has narrowed the affinity.
    narrowed: bool,
}

impl<'a> RealWorld<'a> {
    /// Until the limits.
    pub fn new(seat: &'a mut Seat, limits: Limits<'a>) -> Self {
        Self {
            seat,
            limits,
            last_cpu: None,
            narrowed: false,
        }
    }
}

impl World for RealWorld<'_> {
    fn now_ns(&mut self) -> io::Result<u64> {
        clock::now_ns()
    }

    fn end_ns(&self) -> u64 {
        self.limits.end_ns
    }

    fn sleep_until(&mut self, due_ns: u64) -> io::Result<bool> {
        clock::sleep_until(due_ns, &self.limits)
    }

    fn work(&mut self, work: WorkUnits, until_ns: u64) -> io::Result<Done> {
        let limits = Limits {
            end_ns: self.limits.end_ns.min(until_ns),
            ..self.limits
        };
        let begun_on = nix::sched::sched_getcpu()?;
        let mut done = self.seat.work.run(work, &limits)?;
        done.migrations += u64::from(self.last_cpu.is_some_and(|last| last != begun_on));
        self.last_cpu = Some(nix::sched::sched_getcpu()?);
        Ok(done)
    }

    fn yield_now(&mut self) {
        std::thread::yield_now();
    }

    fn receive(&mut self) -> io::Result<Option<u64>> {
        loop {
            if let Some(message) = try_receive(&mut self.seat.mailbox)? {
                return Ok(Some(message));
            }
            let now_ns = clock::now_ns()?;
            if self.limits.over(now_ns) {
                return Ok(None);
            }
            let timeout = (self.limits.end_ns != u64::MAX)
                .then(|| clock::timespec(self.limits.end_ns - now_ns));
            let Some(mailbox) = &self.seat.mailbox else {
                continue;
            };
            match ppoll(
                &mut [PollFd::new(mailbox.as_fd(), PollFlags::POLLIN)],
                timeout,
                None,
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn send(&mut self, thread: usize, message: u64) -> io::Result<bool> {
        let Some(Some(mut writer)) = self.seat.post.writers.get(thread).map(Option::as_ref) else {
            return Err(io::Error::other(format!("thread {thread} has no mailbox")));
        };
        // 8 bytes are written whole or not at all: pipe(7), PIPE_BUF.
        match writer.write(&message.to_le_bytes()) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn threads_of(&self, task: usize) -> Range<usize> {
        self.seat.post.tasks.get(task).cloned().unwrap_or(0..0)
    }

    fn set_cpus(&mut self, cpus: Option<&[usize]>) -> io::Result<()> {
        match cpus {
            Some(cpus) => {
                self.narrowed = true;
                pin(&cpu_set(cpus)?)
            }
            None if self.narrowed => {
                self.narrowed = false;
                pin(&self.seat.cpus)
            }
            None => Ok(()),
        }
    }
}

impl Drop for RealWorld<'_> {
    fn drop(&mut self) {
        // The next round begins with the task's CPUs again; failing that, its first phase says so.
        let _ = self.set_cpus(None);
    }
}

/// The message at hand, if any.
fn try_receive(mailbox: &mut Option<File>) -> io::Result<Option<u64>> {
    let mailbox = mailbox
        .as_mut()
        .ok_or_else(|| io::Error::other("this thread has no mailbox"))?;
    let mut message = [0; 8];
    loop {
        return match mailbox.read(&mut message) {
            Ok(8) => Ok(Some(u64::from_le_bytes(message))),
            Ok(length) => Err(io::Error::other(format!("a message of {length} bytes"))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

/// The CPUs as the kernel wants them.
///
/// # Errors
/// When a number is beyond what the kernel's mask holds.
pub fn cpu_set(cpus: &[usize]) -> io::Result<CpuSet> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)?;
    }
    Ok(set)
}

/// Restricts the calling thread to these CPUs.
///
/// # Errors
/// When none of them is usable.
pub fn pin(cpus: &CpuSet) -> io::Result<()> {
    Ok(sched_setaffinity(Pid::from_raw(0), cpus)?)
}
