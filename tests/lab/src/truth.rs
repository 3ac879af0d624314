//! The module's ground truth: residencies and energies, and the energy computed anew from the
//! residencies and the machine file.
//!
//! [`Truth::parse`] reads `/sys/kernel/debug/vsoc/truth`; [`Truth::since`] is what happened between two
//! readings; [`Truth::recompute`] multiplies residencies by the powers of the machine file without
//! knowing what the module added up, and [`Truth::error_ppm`] says how far the two are apart.

mod line;
mod tasks;

use crate::machine::{Cluster, Machine};
use line::{Line, malformed};

pub use tasks::{Run, Task, Tasks};

/// Why a truth was refused or does not belong to a machine.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TruthError {
    /// The text is not what the module prints.
    #[error("truth:{line}: {message}")]
    Malformed {
        /// From 1.
        line: usize,
        /// What was found and what would have been right.
        message: String,
    },
    /// The text ends before its last line, `end`.
    #[error("truth: no 'end'; the text was cut")]
    Cut,
    /// Two texts, or a text and a machine file, of different machines.
    #[error("truth: {0}")]
    Unlike(String),
    /// A power was rescaled, so residencies no longer say what was drawn.
    #[error("truth: a cluster's power was rescaled at run time; boot afresh to recompute")]
    Rescaled,
}

/// One reading of the ground truth, or the difference of two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// The machine's name.
    pub machine: String,
    /// Since the description.
    pub elapsed_ns: u64,
    /// Whether some power was ever rescaled.
    pub rescaled: bool,
    /// Energy of the floor.
    pub floor_pj: u64,
    /// All energy.
    pub total_pj: u64,
    /// In the order of the machine file.
    pub clusters: Vec<ClusterTruth>,
}

/// What one cluster did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterTruth {
    /// As in the machine file.
    pub name: String,
    /// In the order of the machine file.
    pub opps: Vec<OppTruth>,
    /// Core time in shallow and deep idle.
    pub idle: [IdleTruth; 2],
    /// The cluster asleep; `exits` are wake-ups of the whole cluster.
    pub sleep: IdleTruth,
    /// Energy by part.
    pub energy: Parts,
}

/// Time at one OPP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OppTruth {
    /// Frequency.
    pub khz: u64,
    /// Core time with at least one thread busy.
    pub busy_ns: u64,
    /// Core time with both threads busy.
    pub dual_ns: u64,
    /// Time the cluster was on at this OPP.
    pub shared_ns: u64,
}

/// Time in an idle state, and how often it was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleTruth {
    /// Time.
    pub ns: u64,
    /// Wake-ups paid for.
    pub exits: u64,
}

/// A cluster's energy by part, picojoules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Cores with at least one busy thread.
    pub busy: u64,
    /// What second threads added.
    pub dual: u64,
    /// Idle cores.
    pub idle: u64,
    /// Wake-ups of cores.
    pub wake: u64,
    /// Shared power while on.
    pub shared: u64,
    /// Shared power while asleep.
    pub sleep: u64,
    /// Wake-ups of the cluster.
    pub cluster_wake: u64,
}

impl Parts {
    /// All parts.
    pub fn sum(&self) -> u128 {
        [
            self.busy,
            self.dual,
            self.idle,
            self.wake,
            self.shared,
            self.sleep,
            self.cluster_wake,
        ]
        .into_iter()
        .map(u128::from)
        .sum()
    }
}

/// Energy computed from residencies, picojoules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recomputed {
    /// The floor and all clusters: RAPL's `energy-pkg`.
    pub total_pj: u128,
    /// Without the floor and what clusters share: RAPL's `energy-cores`.
    pub cores_pj: u128,
    /// Each cluster with its shared part, in the order of the machine file.
    pub clusters_pj: Vec<u128>,
}

impl Truth {
    /// Reads what the module printed. Words that later modules add to a line, and whole lines, are skipped.
    ///
    /// # Errors
    /// [`TruthError::Malformed`] and [`TruthError::Cut`].
    pub fn parse(text: &str) -> Result<Self, TruthError> {
        let mut truth = Self::default();
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| Line::new(index + 1, line));
        match lines.next() {
            Some(line) if line.key == "vsoc-truth" && line.rest == ["1"] => {}
            _ => return Err(malformed(1, "does not start with 'vsoc-truth 1'")),
        }
        for line in lines {
            if line.key == "end" {
                return Ok(truth);
            }
            truth.take(&line)?;
        }
        Err(TruthError::Cut)
    }

    fn take(&mut self, line: &Line<'_>) -> Result<(), TruthError> {
        match line.key {
            "machine" => self.machine = line.word()?.to_owned(),
            "elapsed_ns" => self.elapsed_ns = line.number()?,
            "rescaled" => self.rescaled = line.number()? != 0,
            "floor_pj" => self.floor_pj = line.number()?,
            "total_pj" => self.total_pj = line.number()?,
            "cluster" => {
                let name = line.word()?.to_owned();
                self.clusters.push(ClusterTruth {
                    name,
                    ..ClusterTruth::default()
                });
            }
            "opp" | "depth" | "sleep" | "energy_pj" => {
                let Some(cluster) = self.clusters.last_mut() else {
                    return Err(line.wrong("comes before the first cluster"));
                };
                cluster.take(line)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// What happened after `earlier`.
    ///
    /// # Errors
    /// [`TruthError::Unlike`] when the two are not of one boot of one machine, in this order.
    pub fn since(&self, earlier: &Self) -> Result<Self, TruthError> {
        let same = self.machine == earlier.machine
            && self.clusters.len() == earlier.clusters.len()
            && self
                .clusters
                .iter()
                .zip(&earlier.clusters)
                .all(|(now, then)| now.is_like(then));
        if !same {
            return Err(TruthError::Unlike(format!(
                "'{}' and '{}' are not readings of one machine",
                self.machine, earlier.machine
            )));
        }
        let clusters = self.clusters.iter().zip(&earlier.clusters);
        Ok(Self {
            machine: self.machine.clone(),
            elapsed_ns: minus(self.elapsed_ns, earlier.elapsed_ns)?,
            rescaled: self.rescaled,
            floor_pj: minus(self.floor_pj, earlier.floor_pj)?,
            total_pj: minus(self.total_pj, earlier.total_pj)?,
            clusters: clusters
                .map(|(now, then)| now.since(then))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The energy that the residencies and exits cost by the machine file.
    ///
    /// # Errors
    /// [`TruthError::Unlike`] when `machine` is another one, [`TruthError::Rescaled`].
    pub fn recompute(&self, machine: &Machine) -> Result<Recomputed, TruthError> {
        if self.rescaled {
            return Err(TruthError::Rescaled);
        }
        let described = machine.clusters.iter();
        if self.machine != machine.name
            || self.clusters.len() != machine.clusters.len()
            || !self
                .clusters
                .iter()
                .zip(described)
                .all(|(truth, file)| truth.is_of(file))
        {
            return Err(TruthError::Unlike(format!(
                "a reading of '{}' is not one of '{}' as its file describes it",
                self.machine, machine.name
            )));
        }
        let pairs = self.clusters.iter().zip(&machine.clusters);
        let costs: Vec<_> = pairs.map(|(truth, file)| truth.cost_fj(file)).collect();
        let floor = u128::from(self.elapsed_ns) * u128::from(machine.floor_uw);
        let cores: u128 = costs.iter().map(|(cores, _)| cores).sum();
        let shared: u128 = costs.iter().map(|(_, shared)| shared).sum();
        Ok(Recomputed {
            total_pj: (floor + cores + shared) / 1000,
            cores_pj: cores / 1000,
            clusters_pj: costs
                .iter()
                .map(|(cores, shared)| (cores + shared) / 1000)
                .collect(),
        })
    }

    /// How far the module's total is from the recomputed one, in millionths of the latter.
    ///
    /// # Errors
    /// As [`Truth::recompute`].
    pub fn error_ppm(&self, machine: &Machine) -> Result<u128, TruthError> {
        let recomputed = self.recompute(machine)?.total_pj;
        let error = u128::from(self.total_pj).abs_diff(recomputed);
        Ok(error
            .saturating_mul(1_000_000)
            .checked_div(recomputed)
            .unwrap_or(error))
    }

    /// The largest amount of time that is missing or counted twice: every core is busy or idle, and
    /// every cluster on or asleep, all the time. The clusters are read one after the other, so some
    /// microseconds are right.
    ///
    /// # Errors
    /// As [`Truth::recompute`].
    pub fn time_error_ns(&self, machine: &Machine) -> Result<u64, TruthError> {
        self.recompute(machine)?;
        let pairs = self.clusters.iter().zip(&machine.clusters);
        Ok(pairs
            .map(|(truth, file)| truth.time_error_ns(file, self.elapsed_ns))
            .max()
            .unwrap_or(0))
    }

    /// Sum of the parts that the module printed, floor included.
    pub fn parts_pj(&self) -> u128 {
        let clusters: u128 = self
            .clusters
            .iter()
            .map(|cluster| cluster.energy.sum())
            .sum();
        clusters + u128::from(self.floor_pj)
    }
}

impl ClusterTruth {
    fn take(&mut self, line: &Line<'_>) -> Result<(), TruthError> {
        match line.key {
            "opp" => {
                let fields = line.fields(1)?;
                self.opps.push(OppTruth {
                    khz: line.first_number()?,
                    busy_ns: line.get(&fields, "busy_ns")?,
                    dual_ns: line.get(&fields, "dual_ns")?,
                    shared_ns: line.get(&fields, "shared_ns")?,
                });
            }
            "depth" => {
                let fields = line.fields(1)?;
                let depth = usize::try_from(line.first_number()?).ok();
                let Some(idle) = depth.and_then(|depth| self.idle.get_mut(depth)) else {
                    return Err(line.wrong("is not depth 0 or 1"));
                };
                idle.ns = line.get(&fields, "ns")?;
                idle.exits = line.get(&fields, "exits")?;
            }
            "sleep" => {
                let fields = line.fields(0)?;
                self.sleep.ns = line.get(&fields, "ns")?;
                self.sleep.exits = line.get(&fields, "wakes")?;
            }
            _ => {
                let fields = line.fields(0)?;
                self.energy = Parts {
                    busy: line.get(&fields, "busy")?,
                    dual: line.get(&fields, "dual")?,
                    idle: line.get(&fields, "idle")?,
                    wake: line.get(&fields, "wake")?,
                    shared: line.get(&fields, "shared")?,
                    sleep: line.get(&fields, "sleep")?,
                    cluster_wake: line.get(&fields, "cluster_wake")?,
                };
            }
        }
        Ok(())
    }

    fn is_like(&self, other: &Self) -> bool {
        let khz = |cluster: &Self| cluster.opps.iter().map(|opp| opp.khz).collect::<Vec<_>>();
        self.name == other.name && khz(self) == khz(other)
    }

    fn is_of(&self, file: &Cluster) -> bool {
        self.name == file.name
            && self
                .opps
                .iter()
                .map(|opp| opp.khz)
                .eq(file.opps.iter().map(|opp| u64::from(opp.khz)))
    }

    fn since(&self, earlier: &Self) -> Result<Self, TruthError> {
        let opps = self.opps.iter().zip(&earlier.opps).map(|(now, then)| {
            Ok(OppTruth {
                khz: now.khz,
                busy_ns: minus(now.busy_ns, then.busy_ns)?,
                dual_ns: minus(now.dual_ns, then.dual_ns)?,
                shared_ns: minus(now.shared_ns, then.shared_ns)?,
            })
        });
        let idle = |now: IdleTruth, then: IdleTruth| -> Result<_, TruthError> {
            Ok(IdleTruth {
                ns: minus(now.ns, then.ns)?,
                exits: minus(now.exits, then.exits)?,
            })
        };
        let ([shallow, deep], [shallow_then, deep_then]) = (self.idle, earlier.idle);
        let (now, then) = (self.energy, earlier.energy);
        Ok(Self {
            name: self.name.clone(),
            opps: opps.collect::<Result<_, TruthError>>()?,
            idle: [idle(shallow, shallow_then)?, idle(deep, deep_then)?],
            sleep: idle(self.sleep, earlier.sleep)?,
            energy: Parts {
                busy: minus(now.busy, then.busy)?,
                dual: minus(now.dual, then.dual)?,
                idle: minus(now.idle, then.idle)?,
                wake: minus(now.wake, then.wake)?,
                shared: minus(now.shared, then.shared)?,
                sleep: minus(now.sleep, then.sleep)?,
                cluster_wake: minus(now.cluster_wake, then.cluster_wake)?,
            },
        })
    }

    /// Femtojoules (µW × ns) of the cores and of what the cluster shares.
    fn cost_fj(&self, file: &Cluster) -> (u128, u128) {
        let product = |left: u64, right: u32| u128::from(left) * u128::from(right);
        // a wake-up's nanojoules are 10⁶ femtojoules each
        let lumps = |exits: u64, wake_nj: u32| product(exits, wake_nj) * 1_000_000;
        let sibling = file.smt.map_or(0, |smt| smt.power_permille);
        let opps = || self.opps.iter().zip(&file.opps);

        let busy: u128 = opps()
            .map(|(truth, opp)| {
                product(truth.busy_ns, opp.busy_uw)
                    + product(truth.dual_ns, opp.busy_uw) * u128::from(sibling) / 1000
            })
            .sum();
        let idle: u128 = self
            .idle
            .iter()
            .zip([file.shallow, file.deep])
            .map(|(truth, state)| product(truth.ns, state.uw) + lumps(truth.exits, state.wake_nj))
            .sum();
        let shared: u128 = opps()
            .map(|(truth, opp)| product(truth.shared_ns, opp.shared_uw))
            .sum();
        let sleep =
            product(self.sleep.ns, file.sleep.uw) + lumps(self.sleep.exits, file.sleep.wake_nj);
        (busy + idle, shared + sleep)
    }

    fn time_error_ns(&self, file: &Cluster, elapsed_ns: u64) -> u64 {
        let busy: u64 = self.opps.iter().map(|opp| opp.busy_ns).sum();
        let idle: u64 = self.idle.iter().map(|idle| idle.ns).sum();
        let on: u64 = self.opps.iter().map(|opp| opp.shared_ns).sum();
        let cores = u64::try_from(file.nr_cores().max(1)).unwrap_or(1);
        let of_cores = (busy + idle).abs_diff(elapsed_ns.saturating_mul(cores)) / cores;
        of_cores.max((on + self.sleep.ns).abs_diff(elapsed_ns))
    }
}

fn minus(now: u64, then: u64) -> Result<u64, TruthError> {
    now.checked_sub(then)
        .ok_or_else(|| TruthError::Unlike(format!("a counter fell from {then} to {now}")))
}

#[cfg(test)]
mod tests;
