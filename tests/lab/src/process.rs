//! Running helper programs: with a time limit, their own output kept for the error message, and never outliving us.

use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a running child is looked at.
const POLL: Duration = Duration::from_millis(10);
/// For the compiler with one small file, on a busy machine.
const COMPILE_LIMIT: Duration = Duration::from_secs(120);

/// A command whose process is killed by the kernel when the thread that started it ends, by Ctrl-C too
/// (setpriv is part of util-linux, which no Debian system lacks).
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.stdin(Stdio::null());
    command
}

/// Waits for a child, at most so long; `None` when the time was up and it has been killed.
///
/// # Errors
/// When the child cannot be waited for.
pub fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            child.kill().context("cannot kill a child")?;
            child.wait().context("cannot wait for a child")?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// CPU time that a running process has used, all its threads together; `None` when it has gone.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name in parentheses may hold anything; user and system time are fields 14 and 15 (proc_pid_stat(5))
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    let ticks_per_s = rustix::param::clock_ticks_per_second();
    (user + system)
        .saturating_mul(1000)
        .checked_div(ticks_per_s)
        .map(Duration::from_millis)
}

/// Where a program is: the path given, or the first of its name in `$PATH` and root's directories.
///
/// # Errors
/// When there is none.
pub fn find(program: &Path) -> Result<PathBuf> {
    if program.components().count() > 1 {
        if program.is_file() {
            return Ok(program.to_owned());
        }
        bail!("{}: no such program", program.display());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
        .with_context(|| {
            format!(
                "{} is not installed: run packaging/debian-deps.sh",
                program.display()
            )
        })
}

/// The C compiler that [`clang_name`] names.
///
/// # Errors
/// When it is not installed.
pub fn clang() -> Result<Command> {
    Ok(command(find(Path::new(&clang_name()))?))
}

/// What `$BPF_CLANG` calls the C compiler, else clang-19.
pub fn clang_name() -> OsString {
    std::env::var_os("BPF_CLANG").unwrap_or_else(|| "clang-19".into())
}

/// Compiles one C file; warnings are errors.
///
/// # Errors
/// When the compiler is missing or does not like it.
pub fn compile(source: &Path, options: &[&str], output: &Path) -> Result<()> {
    let mut compile = clang()?;
    compile
        .args(["-O2", "-g", "-Wall", "-Werror"])
        .args(options);
    compile.arg("-o").args([output, source]);
    run(&mut compile, COMPILE_LIMIT)
        .map(drop)
        .with_context(|| format!("{} does not compile", source.display()))
}

/// Runs a command to its end and hands back what it printed.
///
/// # Errors
/// When it cannot be started, fails, or is not done in time: with its name and the end of what it printed.
pub fn run(command: &mut Command, limit: Duration) -> Result<String> {
    let what = describe(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {what}"))?;
    let output = child.stdout.take().map(reader);
    let errors = child.stderr.take().map(reader);
    let status = wait(&mut child, limit)?;
    let text = |thread: Option<std::thread::JoinHandle<Vec<u8>>>| {
        let bytes = thread.and_then(|thread| thread.join().ok());
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    };
    let (output, errors) = (text(output), text(errors));
    match status {
        Some(status) if status.success() => Ok(output),
        Some(status) => bail!("{what}: {status}\n{}", tail(&(output + &errors), 15)),
        None => bail!(
            "{what}: not done in {} s\n{}",
            limit.as_secs(),
            tail(&(output + &errors), 15)
        ),
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all.get(from..).unwrap_or_default().join("\n")
}

/// The program and its first words, without the wrapping of [`command`].
fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .filter(|word| !["setpriv", "--pdeathsig", "KILL", "--"].contains(&word.as_ref()))
        .take(4)
        .collect::<Vec<_>>()
        .join(" ")
}

fn reader(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // what could be read before an error is all there is to show
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_command_and_what_it_said() {
        let mut shell = command("sh");
        shell.args(["-c", "echo no space >&2; exit 3"]);
        let error = run(&mut shell, Duration::from_secs(5))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("sh -c"), "{error}");
        assert!(
            error.contains("3") && error.ends_with("no space"),
            "{error}"
        );
    }

    #[test]
    fn a_time_limit_is_kept() {
        let start = Instant::now();
        let error = run(command("sleep").arg("30"), Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().contains("not done in"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
