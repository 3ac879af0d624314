//! Machine files: what a virtual SoC consists of and what it draws.
//!
//! A machine file is TOML (`tests/lab/machines/*.toml`); [`Machine::load`] checks it and
//! [`Machine::to_description`] renders it to the text that the kernel module takes
//! (`tests/lab/module/vsoc_desc.c` has that format). The physics that the numbers feed is
//! described in `tests/lab/module/vsoc.h`. Powers are milliwatts in the file and whole microwatts
//! here, energies microjoules and nanojoules: the module and [`crate::truth`] work with the same integers.

mod file;

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

/// Most CPUs of a machine (`VSOC_MAX_CPUS`).
pub const MAX_CPUS: usize = 64;
/// Most clusters of a machine (`VSOC_MAX_CLUSTERS`).
pub const MAX_CLUSTERS: usize = 8;
/// Most OPPs of a cluster (`VSOC_MAX_OPPS`).
pub const MAX_OPPS: usize = 32;

/// Why a machine file was refused: one line that says where, what, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {message}", path.display(), Colon(*line))]
pub struct MachineError {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1, where the fault has one.
    pub line: Option<usize>,
    /// Field, value, and what would be right.
    pub message: String,
}

struct Colon(Option<usize>);

impl fmt::Display for Colon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// Who chooses the frequency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The kernel: one clock and cpufreq policy per cluster.
    Schedutil,
    /// The machine: one clock per core, the kernel's wishes ignored but for its limits.
    HardwareManaged,
}

/// What Energy Model the kernel gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnergyModel {
    /// `busy` of each OPP, in microwatts.
    Watts,
    /// None.
    None,
}

/// A virtual SoC, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// One word; the file's name without `.toml`.
    pub name: String,
    /// For people.
    pub title: String,
    /// Who chooses the frequency.
    pub mode: Mode,
    /// What Energy Model the kernel gets.
    pub em: EnergyModel,
    /// Drawn always.
    pub floor_uw: u32,
    /// Where the measured numbers come from.
    pub source: String,
    /// Which numbers nobody measured.
    pub assumptions: String,
    /// In the order of the file.
    pub clusters: Vec<Cluster>,
}

/// CPUs that share power and, unless hardware-managed, a clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// One word, unlike the others'.
    pub name: String,
    /// Kernel numbers; with SMT, siblings are neighbours.
    pub cpus: Vec<u32>,
    /// `None`: one thread a core.
    pub smt: Option<Smt>,
    /// What the Energy Model says, permille of the truth.
    pub em_permille: u32,
    /// From the moment of going idle.
    pub shallow: Idle,
    /// After `after_us` in shallow.
    pub deep: Idle,
    /// Of the cluster: once the last core has been deep for `after_us`.
    pub sleep: Idle,
    /// By rising frequency; never empty.
    pub opps: Vec<Opp>,
}

/// Two threads on one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smt {
    /// Power that a second busy thread adds, permille of the first's.
    pub power_permille: u32,
    /// Speed of each of two busy threads, permille of one alone.
    pub speed_permille: u32,
}

/// An idle state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Drawn while in it.
    pub uw: u32,
    /// Time until it is reached; 0 for shallow.
    pub after_us: u32,
    /// Energy of leaving it.
    pub wake_nj: u32,
}

/// An operating performance point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opp {
    /// Frequency.
    pub khz: u32,
    /// 1..=1024.
    pub capacity: u32,
    /// One busy CPU, without the shared part.
    pub busy_uw: u32,
    /// The cluster, unless it sleeps.
    pub shared_uw: u32,
}

impl Mode {
    /// As in machine files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Schedutil => "schedutil",
            Self::HardwareManaged => "hardware-managed",
        }
    }
}

impl Machine {
    /// Reads and checks a machine file.
    ///
    /// # Errors
    /// [`MachineError`] for a file that cannot be read or is not right.
    pub fn load(path: &Path) -> Result<Self, MachineError> {
        let text = std::fs::read_to_string(path).map_err(|source| MachineError {
            path: path.to_owned(),
            line: None,
            message: source.to_string(),
        })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a machine file; `path` is named in errors.
    ///
    /// # Errors
    /// [`MachineError`] for the first thing that is not right.
    pub fn parse(path: &Path, text: &str) -> Result<Self, MachineError> {
        file::parse(text).map_err(|fault| MachineError {
            path: path.to_owned(),
            line: fault.offset.map(|offset| line_of(text, offset)),
            message: fault.message,
        })
    }

    /// CPUs of all clusters.
    pub fn nr_cpus(&self) -> usize {
        self.clusters.iter().map(|cluster| cluster.cpus.len()).sum()
    }

    /// Threads per core that the emulator must be started with: 2 where any cluster has SMT.
    pub fn threads_per_core(&self) -> usize {
        self.clusters
            .iter()
            .map(Cluster::threads)
            .max()
            .unwrap_or(1)
    }

    /// The text to write to the module's `machine` file.
    pub fn to_description(&self) -> String {
        let mut text = String::new();
        // writing to a String cannot fail
        let _ = self.render(&mut text);
        text
    }

    fn render(&self, to: &mut String) -> fmt::Result {
        let mode = self.mode.name();
        let em = match self.em {
            EnergyModel::Watts => "watts",
            EnergyModel::None => "none",
        };
        writeln!(to, "vsoc 1\nname {}\nmode {mode}\nem {em}", self.name)?;
        writeln!(to, "floor_uw {}", self.floor_uw)?;
        self.clusters
            .iter()
            .try_for_each(|cluster| cluster.render(to))?;
        writeln!(to, "end")
    }
}

impl Cluster {
    /// Threads of each core.
    pub fn threads(&self) -> usize {
        if self.smt.is_some() { 2 } else { 1 }
    }

    /// Cores, of one or two threads.
    pub fn nr_cores(&self) -> usize {
        self.cpus.len() / self.threads()
    }

    /// Capacity at the highest OPP.
    pub fn capacity(&self) -> u32 {
        self.opps.last().map_or(0, |opp| opp.capacity)
    }

    /// Power that the first busy CPU adds to the sleeping cluster, at one of its OPPs.
    pub fn first_busy_uw(&self, opp: &Opp) -> f64 {
        let busy = f64::from(opp.busy_uw) + f64::from(opp.shared_uw);
        busy - f64::from(self.deep.uw) - f64::from(self.sleep.uw)
    }

    fn render(&self, to: &mut String) -> fmt::Result {
        write!(to, "cluster {}\ncpus", self.name)?;
        self.cpus.iter().try_for_each(|cpu| write!(to, " {cpu}"))?;
        match self.smt {
            None => writeln!(to, "\nthreads 1")?,
            Some(smt) => writeln!(
                to,
                "\nthreads 2 {} {}",
                smt.power_permille, smt.speed_permille
            )?,
        }
        if self.em_permille != 1000 {
            writeln!(to, "em_permille {}", self.em_permille)?;
        }
        writeln!(to, "shallow {} {}", self.shallow.uw, self.shallow.wake_nj)?;
        for (name, state) in [("deep", self.deep), ("sleep", self.sleep)] {
            writeln!(
                to,
                "{name} {} {} {}",
                state.uw, state.after_us, state.wake_nj
            )?;
        }
        self.opps.iter().try_for_each(|opp| {
            writeln!(
                to,
                "opp {} {} {} {}",
                opp.khz, opp.capacity, opp.busy_uw, opp.shared_uw
            )
        })
    }
}

/// Line, from 1, of a byte offset.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|&byte| byte == b'\n')
        .count()
        + 1
}

#[cfg(test)]
mod tests;
