//! The emulator's control channel: QMP, one JSON value a line (docs/interop/qmp-spec of QEMU).

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The emulator answers commands at once, however busy the host is.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How often a migration that is under way is asked about.
const POLL: Duration = Duration::from_millis(5);

/// A connection on which commands may be given.
#[derive(Debug)]
pub struct Qmp {
    to: UnixStream,
    from: Receiver<Value>,
}

impl Qmp {
    /// Connects to the emulator's socket once it is there; `alive` says whether waiting makes sense.
    ///
    /// # Errors
    /// When the emulator ends first, or does not speak QMP.
    pub fn connect(socket: &Path, mut alive: impl FnMut() -> bool) -> Result<Self> {
        let start = Instant::now();
        let to = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if !alive() || start.elapsed() > ANSWER_LIMIT => {
                    return Err(error).context("the emulator did not start");
                }
                Err(_) => std::thread::sleep(POLL),
            }
        };
        let lines = BufReader::new(to.try_clone().context("cannot read from the emulator")?);
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let values = lines
                .lines()
                .map_while(|line| serde_json::from_str(&line.ok()?).ok());
            for value in values {
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        let mut qmp = Self { to, from };
        // the greeting comes unasked
        qmp.next(ANSWER_LIMIT)?;
        qmp.command("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives a command and waits for its answer; events in between are dropped.
    ///
    /// # Errors
    /// When the emulator refuses it, or is gone.
    pub fn command(&mut self, name: &str, arguments: Value) -> Result<Value> {
        let line = json!({"execute": name, "arguments": arguments}).to_string() + "\n";
        self.to
            .write_all(line.as_bytes())
            .context("the emulator has gone")?;
        loop {
            let mut value = self.next(ANSWER_LIMIT)?;
            if let Some(error) = value.get("error") {
                bail!("the emulator refused {name}: {error}");
            }
            if let Some(answer) = value.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    /// Waits for an event, a short time; whether it came.
    ///
    /// # Errors
    /// When the emulator is gone.
    pub fn event_within(&mut self, name: &str, limit: Duration) -> Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.from.recv_timeout(left) {
                Ok(value) if value.get("event").and_then(Value::as_str) == Some(name) => {
                    return Ok(true);
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => bail!("the emulator has gone"),
            }
        }
    }

    /// Waits until the migration that was asked for is complete.
    ///
    /// # Errors
    /// When it fails or is not done in time.
    pub fn migrated(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < limit {
            let state = self.command("query-migrate", json!({}))?;
            match state.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    bail!("the emulator cannot keep or take up a machine's state: {state}")
                }
                _ => std::thread::sleep(POLL),
            }
        }
        bail!("the machine's state was not moved in {} s", limit.as_secs())
    }

    fn next(&mut self, limit: Duration) -> Result<Value> {
        self.from
            .recv_timeout(limit)
            .map_err(|_| anyhow::anyhow!("the emulator has gone or does not answer"))
    }
}
