//! The one validated configuration: command line and profile become a [`Config`], and a [`Config`]
//! becomes the BPF side's settings through one function. Defaults live here and nowhere else.

use crate::cli::RunArgs;
use crate::error::Result;
use crate::intf;
use crate::profile::Profile;
use crate::units::Nanos;
use std::path::PathBuf;
use std::time::Duration;

/// Profile used when none is named.
pub const DEFAULT_PROFILE: &str = "balanced";

/// Idle this long is taken as deep: the residency that cluster sleep states of phones and package
/// states of laptops ask for.
const DEEP_IDLE: Nanos = Nanos::new(2_000_000);

/// How long a calibration takes.
pub const CALIBRATION: Duration = Duration::from_secs(90);

/// Where the program keeps what outlives it, unless systemd says.
const STATE_DIRECTORY: &str = "/var/lib/scx_joule";

/// Where the program keeps what outlives it: the first of systemd's `$STATE_DIRECTORY`, else
/// `/var/lib/scx_joule`.
pub fn state_directory() -> PathBuf {
    let told = std::env::var_os("STATE_DIRECTORY").unwrap_or_default();
    let first = std::env::split_paths(&told).find(|path| path.is_absolute());
    first.unwrap_or_else(|| PathBuf::from(STATE_DIRECTORY))
}

/// Everything the scheduler is told, checked and with units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Run time a task is given before others in its queue get their turn.
    pub slice: Nanos,
    /// Capacity asked for per capacity needed, in percent.
    pub headroom_pct: u32,
    /// Saving that a task must promise to leave its group, in percent.
    pub hysteresis_pct: u32,
    /// How long a task may wait to save all of its energy, µs.
    pub patience_us: u32,
    /// One wake-up in twenty may wait longer than this for a CPU.
    pub wait: Nanos,
    /// An idle period this long counts as deep.
    pub deep_idle: Nanos,
    /// Let published costs decide; otherwise the prior does.
    pub steer: bool,
    /// Bytes of the debug dump that the kernel keeps when it ejects the scheduler; 0: its default.
    pub exit_dump_len: u32,
    /// Print statistics this often while running.
    pub stats: Option<Duration>,
    /// Print them as JSON.
    pub json: bool,
    /// Where what outlives the program is kept.
    pub state: PathBuf,
    /// Let libbpf speak (`-vv`).
    pub verbose_bpf: bool,
}

impl Config {
    /// Command line over profile.
    ///
    /// # Errors
    /// Those of [`Profile::load`].
    pub fn new(args: &RunArgs) -> Result<Self> {
        let profile = Profile::load(args.profile.as_deref().unwrap_or(DEFAULT_PROFILE))?;
        Ok(Self {
            slice: args
                .slice_us
                .map_or(profile.slice(), |us| Nanos::new(us * 1000)),
            headroom_pct: profile.headroom_pct,
            hysteresis_pct: profile.hysteresis_pct,
            patience_us: profile.patience_us,
            wait: profile.wait(),
            deep_idle: DEEP_IDLE,
            steer: !args.no_steer,
            exit_dump_len: args.exit_dump_len,
            stats: args.stats.map(Duration::from_secs_f64),
            json: args.json,
            state: state_directory(),
            verbose_bpf: args.verbose >= 2,
        })
    }

    /// What the BPF side is told.
    pub fn settings(&self) -> intf::joule_config {
        intf::joule_config {
            slice_ns: self.slice.get(),
            deep_idle_ns: self.deep_idle.get(),
            wait_ns: self.wait.get(),
            headroom_pct: self.headroom_pct,
            hysteresis_pct: self.hysteresis_pct,
            steer: u32::from(self.steer),
            patience_us: self.patience_us,
        }
    }
}
