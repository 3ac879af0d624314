//! The lab's device, and the two scheduling calls no safe wrapper offers: all the unsafe code there is.
//!
//! The device's contract is in tests/lab/module/vsoc_uapi.h; the layout below repeats it.
#![allow(unsafe_code)]

use crate::clock;
use crate::virtual_work::Machine;
use crate::workload::{FairPolicy, Policy};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the device is, on the machines that have it.
pub const DEVICE: &str = "/dev/vsoc";

const MAGIC: u32 = 0x5653_4f43;
const VERSION: u32 = 1;
const MAX_CPUS: usize = 64;

/// `struct vsoc_page`. Only for its layout: the words are read one by one.
#[repr(C)]
#[allow(dead_code)]
struct Page {
    magic: u32,
    version: u32,
    nr_cpus: u32,
    reserved: u32,
    speed: [u32; MAX_CPUS],
    khz: [u32; MAX_CPUS],
    seq: [u32; MAX_CPUS],
}

const _: () = assert!(size_of::<Page>() == 4 * (4 + 3 * MAX_CPUS));

mod request {
    #![allow(missing_docs)]
    nix::ioctl_write_int_bad!(vsoc_halt, nix::request_code_none!(b'V', 1));
}

/// The virtual machine as its device shows it; clones share the mapping.
#[derive(Debug, Clone)]
pub struct VirtualSoc {
    shared: Arc<Shared>,
    cpus: usize,
}

#[derive(Debug)]
struct Shared {
    device: File,
    page: MmapRaw,
}

impl VirtualSoc {
    /// Opens the device.
    ///
    /// # Errors
    /// When it is not there, may not be used, or is not the device this program knows.
    pub fn open(path: &Path) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open(path)?;
        let page = MmapOptions::new()
            .len(size_of::<Page>())
            .map_raw_read_only(&device)?;
        let shared = Arc::new(Shared { device, page });
        let soc = Self { shared, cpus: 0 };
        let known = (
            soc.word(offset_of!(Page, magic)),
            soc.word(offset_of!(Page, version)),
        );
        if known != (Some(MAGIC), Some(VERSION)) {
            return Err(io::Error::other(format!(
                "its page does not begin with magic {MAGIC:#x}, version {VERSION}: build module and runner from one tree"
            )));
        }
        let cpus = soc
            .word(offset_of!(Page, nr_cpus))
            .and_then(|n| usize::try_from(n).ok());
        match cpus {
            Some(cpus @ 1..=MAX_CPUS) => Ok(Self { cpus, ..soc }),
            _ => Err(io::Error::other(format!(
                "its page does not describe 1 to {MAX_CPUS} CPUs"
            ))),
        }
    }

    /// The aligned word at this offset of the page.
    fn word(&self, offset: usize) -> Option<u32> {
        let page = &self.shared.page;
        if !offset.is_multiple_of(size_of::<u32>())
            || offset.checked_add(size_of::<u32>())? > page.len()
        {
            return None;
        }
        // SAFETY: The word lies inside the mapping (checked above), which lives as long as
        // `page`; the mapping begins on a page, so the word is aligned. The kernel writes it
        // at any time, whole, which is what an atomic load allows for; nobody here writes.
        let word = unsafe { AtomicU32::from_ptr(page.as_mut_ptr().add(offset).cast::<u32>()) };
        Some(word.load(Ordering::Relaxed))
    }
}

impl Machine for VirtualSoc {
    fn now_ns(&self) -> io::Result<u64> {
        clock::now_ns()
    }

    fn cpu_time_ns(&self) -> io::Result<u64> {
        clock::cpu_time_ns()
    }

    fn cpu(&self) -> io::Result<usize> {
        Ok(nix::sched::sched_getcpu()?)
    }

    fn speed(&self, cpu: usize) -> io::Result<u64> {
        let word = if cpu < self.cpus {
            self.word(offset_of!(Page, speed) + cpu * size_of::<u32>())
        } else {
            None
        };
        word.map(u64::from).ok_or_else(|| {
            io::Error::other(format!(
                "{DEVICE}: cpu {cpu} is not one of the {} described",
                self.cpus
            ))
        })
    }

    fn halt(&self, ns: u64) -> io::Result<()> {
        let ns = libc::c_int::try_from(ns).map_err(io::Error::other)?;
        // SAFETY: The file descriptor is open as long as `self`; the request takes a plain
        // number and touches no memory of this process.
        unsafe { request::vsoc_halt(self.shared.device.as_raw_fd(), ns) }?;
        Ok(())
    }
}

/// Gives the calling thread its scheduling class, and its nice value where the class has one.
///
/// # Errors
/// When the kernel refuses: no such class, or no permission.
pub fn set_policy(policy: Policy) -> io::Result<()> {
    let (class, priority, nice) = match policy {
        Policy::Fair(FairPolicy::Other, nice) => (libc::SCHED_OTHER, 0, Some(nice)),
        Policy::Fair(FairPolicy::Batch, nice) => (libc::SCHED_BATCH, 0, Some(nice)),
        Policy::Fair(FairPolicy::Idle, nice) => (libc::SCHED_IDLE, 0, Some(nice)),
        Policy::Fair(FairPolicy::Ext, nice) => (SCHED_EXT, 0, Some(nice)),
        Policy::Fifo(priority) => (libc::SCHED_FIFO, priority, None),
        Policy::RoundRobin(priority) => (libc::SCHED_RR, priority, None),
    };
    let param = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: `param` is a valid sched_param for the length of the call; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, class, &raw const param) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if let Some(nice) = nice {
        // SAFETY: Plain numbers; on Linux PRIO_PROCESS with 0 is the calling thread alone.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// From the kernel's uapi/linux/sched.h; the C library has no name for it yet.
const SCHED_EXT: libc::c_int = 7;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A file with the page's layout; enough for everything but halting.
    fn device(magic: u32, version: u32, cpus: u32) -> tempfile::NamedTempFile {
        let mut words = vec![0_u32; size_of::<Page>() / 4];
        words[..4].copy_from_slice(&[magic, version, cpus, 0]);
        words[4] = 462;
        words[5] = 1024;
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn speeds_are_read_from_the_page_for_the_cpus_it_describes() {
        let file = device(MAGIC, VERSION, 2);
        let soc = VirtualSoc::open(file.path()).unwrap();
        assert_eq!((soc.speed(0).unwrap(), soc.speed(1).unwrap()), (462, 1024));
        let refused = soc.speed(2).unwrap_err().to_string();
        assert!(
            refused.contains("cpu 2 is not one of the 2 described"),
            "{refused}"
        );
    }

    #[test]
    fn a_change_of_speed_shows_at_once() {
        use std::os::unix::fs::FileExt;
        let file = device(MAGIC, VERSION, 2);
        let soc = VirtualSoc::open(file.path()).unwrap();
        let writer = OpenOptions::new().write(true).open(file.path()).unwrap();
        writer.write_all_at(&133_u32.to_ne_bytes(), 16).unwrap();
        assert_eq!(soc.speed(0).unwrap(), 133);
    }

    #[test]
    fn a_page_of_another_kind_or_version_is_refused() {
        let wrong = [
            (0, VERSION, 2),
            (MAGIC, VERSION + 1, 2),
            (MAGIC, VERSION, 0),
            (MAGIC, VERSION, 65),
        ];
        for (magic, version, cpus) in wrong {
            assert!(
                VirtualSoc::open(device(magic, version, cpus).path()).is_err(),
                "{magic} {version} {cpus}"
            );
        }
        assert!(VirtualSoc::open(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn a_machine_that_cannot_halt_says_so() {
        let file = device(MAGIC, VERSION, 2);
        let soc = VirtualSoc::open(file.path()).unwrap();
        assert_eq!(
            soc.halt(1_000).unwrap_err().raw_os_error(),
            Some(libc::ENOTTY)
        );
    }

    #[test]
    fn a_nice_value_is_for_the_calling_thread_alone() {
        let nice = || {
            let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
            stat.rsplit(") ")
                .next()
                .unwrap()
                .split(' ')
                .nth(16)
                .unwrap()
                .to_owned()
        };
        let before = nice();
        let other = std::thread::spawn(move || {
            set_policy(Policy::Fair(FairPolicy::Batch, 19)).unwrap();
            nice()
        });
        assert_eq!(other.join().unwrap(), "19");
        assert_eq!(nice(), before);
    }
}
