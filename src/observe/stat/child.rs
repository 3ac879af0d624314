//! The command that is measured: started, waited for, its exit code passed on.

use crossbeam_channel::{Receiver, bounded};
use rustix::process::{Pid, Signal, kill_process};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

/// As shells tell it: not found, and found but not to be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// A running command.
pub struct Child {
    pid: Pid,
    ended: Receiver<std::io::Result<ExitStatus>>,
}

impl Child {
    /// Starts it with the caller's own input and output.
    ///
    /// # Errors
    /// Why it could not be started, and the exit code that says so.
    pub fn start(command: &[String]) -> Result<Self, (u8, String)> {
        let (program, arguments) = command
            .split_first()
            .ok_or((NOT_FOUND, "no command is given".to_owned()))?;
        let spawned = Command::new(program).args(arguments).spawn();
        let mut child = spawned.map_err(|error| {
            let code = match error.kind() {
                ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_RUN,
            };
            (code, format!("{program}: {error}"))
        })?;
        let pid = Pid::from_child(&child);
        let (sender, ended) = bounded(1);
        std::thread::spawn(move || {
            let _ = sender.send(child.wait());
        });
        Ok(Self { pid, ended })
    }

    /// Receives once, when it has ended.
    pub fn ended(&self) -> &Receiver<std::io::Result<ExitStatus>> {
        &self.ended
    }

    /// Passes a signal on. What the terminal sends to all of its foreground (Ctrl-C) has reached the command
    /// already.
    pub fn signal(&self, number: i32) {
        if let Some(signal) = Signal::from_named_raw(number)
            && signal != Signal::INT
            && signal != Signal::QUIT
        {
            // A command that has just ended needs no signal any more.
            let _ = kill_process(self.pid, signal);
        }
    }
}

/// The exit code to pass on: the command's own, or 128 and the number of the signal that ended it.
pub fn code(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => 128 + signal.unwrap_or(0),
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}
