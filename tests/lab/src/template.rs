//! Machines that have booted already.
//!
//! Booting under `-icount` costs the host half a minute, nearly all of it in one loop of 100 ms in which
//! the kernel measures its local APIC timer and says PAUSE, where the emulator looks at every CPU in turn. So
//! a kernel boots once per [`Shape`]: the guest's init rings a doorbell when the system is up, the emulator
//! stops at that instruction, and memory and device state are kept. Every run continues from the same state:
//! what happened before it is identical by construction.

use crate::cache::{self, Cache};
use crate::emulator::{
    DOORBELL_SLOT, Emulator, PAYLOAD_AT, PAYLOAD_MIB, PROGRAM, Port, Shape, Start,
};
use crate::initramfs::Archive;
use crate::kernel::Kernel;
use crate::process;
use crate::turns;
use anyhow::{Context, Result, bail};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::Errno;
use serde_json::json;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// CPU time of the emulator for a boot: 35 s were measured.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// Writing or reading some 150 MB.
const MOVE_LIMIT: Duration = Duration::from_secs(300);
/// A template of 140 MB that no run has used for so long is removed.
const UNUSED: Duration = Duration::from_secs(30 * 86_400);
/// Page size of the guest, in which its init counts.
const PAGE: u64 = 4096;

/// A booted machine, kept.
#[derive(Clone, Debug)]
pub struct Template {
    directory: PathBuf,
    vmlinuz: PathBuf,
    turns: PathBuf,
}

impl Template {
    /// The template of this kernel on this machine; booted now if it is not in the cache.
    ///
    /// # Errors
    /// When the kernel does not come up: with the end of its console.
    pub fn get(cache: &Cache, kernel: &Kernel, shape: &Shape) -> Result<Self> {
        let initramfs = initramfs(kernel)?;
        let turns = turns::library(cache)?;
        let version = process::run(
            process::command(process::find(Path::new(PROGRAM))?).arg("--version"),
            Duration::from_secs(60),
        )?;
        let options = shape.options().join("\n") + &shape.command_line();
        let key = cache::hash([
            version.as_bytes(),
            options.as_bytes(),
            kernel.id.as_bytes(),
            &initramfs,
        ]);
        // the key is the name: templates of several shapes live side by side
        let name = format!("templates/{}", key.get(..32).unwrap_or(&key));
        let directory = cache.directory(&name, &key, |directory| {
            eprintln!(
                "lab: booting {} with {} CPUs once (about a minute)",
                kernel.release, shape.cpus
            );
            cache.forget_unused("templates", UNUSED)?;
            let _place = cache.guest_place()?;
            boot(directory, kernel, shape, &initramfs, &turns)
        })?;
        Ok(Self {
            directory,
            vmlinuz: kernel.vmlinuz.clone(),
            turns,
        })
    }

    /// Continues from the template, with these files for the guest.
    ///
    /// # Errors
    /// When the files do not fit, or the emulator cannot take up the state.
    pub fn resume(
        &self,
        shape: &Shape,
        archive: &Archive,
        ports: &[Port],
        log: &Path,
        real_sleep: bool,
    ) -> Result<Emulator> {
        let memory = self.memory(&archive.to_bytes())?;
        let path = PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            memory.as_raw_fd()
        ));
        let mut emulator = Emulator::start(
            shape,
            &Start {
                turns: &self.turns,
                vmlinuz: &self.vmlinuz,
                initramfs: &self.directory.join("initramfs"),
                memory: &path,
                incoming: true,
                real_sleep,
                ports,
                log,
            },
        )?;
        keep_memory_out(&mut emulator)?;
        let state = shell_quoted(&self.directory.join("state"))?;
        let qmp = &mut emulator.qmp;
        // announcing the machine to a network it has not got would set timers of the host's clock, and the
        // emulator ends what a CPU executes at the next timer of any clock
        qmp.command("migrate-set-parameters", json!({"announce-rounds": 0}))?;
        qmp.command(
            "migrate-incoming",
            json!({"uri": format!("exec:cat {state}")}),
        )?;
        qmp.migrated(MOVE_LIMIT)?;
        qmp.command("cont", json!({}))?;
        Ok(emulator)
    }

    /// A copy of the template's memory with the payload in it. It lies in memory itself, so it leaves no
    /// file behind and never goes to a disk.
    fn memory(&self, payload: &[u8]) -> Result<File> {
        let room = (PAYLOAD_MIB << 20) - PAGE;
        let size = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        if size > room {
            bail!("the guest's files have {size} bytes; at most {room} fit");
        }
        let template = self.directory.join("memory");
        let mut from = File::open(&template).with_context(|| template.display().to_string())?;
        let length = from.metadata().context("cannot size the template")?.len();
        let mut to = File::from(
            memfd_create("lab-memory", MemfdFlags::CLOEXEC).context("cannot make memory")?,
        );
        to.set_len(length).context("cannot make memory")?;
        copy_data(&mut from, &mut to).context("cannot copy the template")?;
        to.seek(std::io::SeekFrom::Start(PAYLOAD_AT))?;
        let mut first = format!("{}\n", size.div_ceil(PAGE)).into_bytes();
        first.resize(usize::try_from(PAGE).unwrap_or(0), 0);
        to.write_all(&first)?;
        to.write_all(payload)?;
        Ok(to)
    }
}

/// Copies what a sparse file has, leaving its holes.
fn copy_data(from: &mut File, to: &mut File) -> Result<()> {
    let mut at = 0;
    loop {
        let start = match seek(&*from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = seek(&*from, SeekFrom::Hole(start))?;
        from.seek(std::io::SeekFrom::Start(start))?;
        to.seek(std::io::SeekFrom::Start(start))?;
        std::io::copy(&mut from.take(end - start), to)?;
        at = end;
    }
}

/// The archive that the kernel itself unpacks.
fn initramfs(kernel: &Kernel) -> Result<Vec<u8>> {
    let init = include_str!("guest/init.sh")
        .replace("@SLOT@", &format!("{DOORBELL_SLOT:02x}"))
        .replace("@PAGE@", &(PAYLOAD_AT / PAGE).to_string());
    let mut archive = Archive::new();
    archive.host_file("bin/busybox", &process::find(Path::new("busybox"))?)?;
    archive.file("config", 0o644, cache::read(&kernel.config)?)?;
    archive.file("init", 0o755, init)?;
    // the kernel opens its console for init before init can mount anything
    archive.directory("dev")?;
    Ok(archive.to_bytes())
}

fn boot(
    directory: &Path,
    kernel: &Kernel,
    shape: &Shape,
    initramfs: &[u8],
    turns: &Path,
) -> Result<()> {
    let path = |name: &str| directory.join(name);
    cache::write(&path("initramfs"), initramfs)?;
    File::create(path("memory"))
        .and_then(|file| file.set_len(shape.total_mib() << 20))
        .context("cannot make the template's memory")?;
    let ports = ["console", "port1", "port2"].map(|name| Port::File(path(name)));
    let mut emulator = Emulator::start(
        shape,
        &Start {
            turns,
            vmlinuz: &kernel.vmlinuz,
            initramfs: &path("initramfs"),
            memory: &path("memory"),
            incoming: false,
            real_sleep: false,
            ports: &ports,
            log: &path("emulator.log"),
        },
    )?;
    let console = |problem: String| {
        let text = std::fs::read(path("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        anyhow::anyhow!(
            "{} {problem}; the end of its console:\n{}",
            kernel.release,
            process::tail(&text, 12)
        )
    };
    loop {
        match emulator.qmp.event_within("STOP", Duration::from_secs(1)) {
            Ok(true) => break,
            Ok(false) if emulator.is_over(BOOT_LIMIT) => {
                return Err(console(format!(
                    "did not boot in {} s of CPU time",
                    BOOT_LIMIT.as_secs()
                )));
            }
            Ok(false) => {}
            Err(_) => return Err(console("does not boot".to_owned())),
        }
    }
    keep_memory_out(&mut emulator)?;
    let state = shell_quoted(&path("state"))?;
    emulator
        .qmp
        .command("migrate", json!({"uri": format!("exec:cat > {state}")}))?;
    emulator.qmp.migrated(MOVE_LIMIT)
}

/// Memory is in a file already; only the devices' state goes through the migration.
fn keep_memory_out(emulator: &mut Emulator) -> Result<()> {
    let capability = json!({"capability": "x-ignore-shared", "state": true});
    emulator
        .qmp
        .command(
            "migrate-set-capabilities",
            json!({"capabilities": [capability]}),
        )
        .map(drop)
}

/// A path as one word for the shell that the emulator starts.
fn shell_quoted(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{}: not UTF-8", path.display()))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_stay_holes_and_data_is_copied() {
        let mut from = tempfile::tempfile().unwrap();
        from.set_len(64 << 20).unwrap();
        from.seek(std::io::SeekFrom::Start(33 << 20)).unwrap();
        from.write_all(b"data").unwrap();
        let mut to = tempfile::tempfile().unwrap();
        to.set_len(64 << 20).unwrap();
        copy_data(&mut from, &mut to).unwrap();
        let mut text = [0; 4];
        to.seek(std::io::SeekFrom::Start(33 << 20)).unwrap();
        to.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"data");
        use std::os::unix::fs::MetadataExt;
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn a_quote_in_a_path_stays_in_the_word() {
        assert_eq!(shell_quoted(Path::new("/it's")).unwrap(), r"'/it'\''s'");
    }
}
