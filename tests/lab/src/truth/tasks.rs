//! Time and energy per thread: `/sys/kernel/debug/vsoc/tasks`.

use super::TruthError;
use super::line::{Line, malformed};

/// What the threads of a machine did since its description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// Times a thread found no room in the module's table; its time is then no thread's.
    pub lost: u64,
    /// In no order.
    pub tasks: Vec<Task>,
}

/// One thread, alive or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Thread id.
    pub pid: u64,
    /// Process id.
    pub tgid: u64,
    /// Name; what is no letter, digit or one of `-.:/` is `_`.
    pub comm: String,
    /// One for each cluster it ran on.
    pub runs: Vec<Run>,
}

/// What a thread did on one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Name of the cluster.
    pub cluster: String,
    /// Busy energy of its CPUs while it ran; without shared power, idleness and wake-ups.
    pub energy_pj: u64,
    /// Frequency in kHz and time in ns, where not 0.
    pub opps: Vec<(u64, u64)>,
}

impl Tasks {
    /// Reads what the module printed.
    ///
    /// # Errors
    /// [`TruthError::Malformed`] and [`TruthError::Cut`].
    pub fn parse(text: &str) -> Result<Self, TruthError> {
        let mut tasks = Self::default();
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| Line::new(index + 1, line));
        match lines.next() {
            Some(line) if line.key == "vsoc-tasks" && line.rest == ["1"] => {}
            _ => return Err(malformed(1, "does not start with 'vsoc-tasks 1'")),
        }
        for line in lines {
            match (line.key, line.rest.as_slice(), tasks.tasks.last_mut()) {
                ("end", [], _) => return Ok(tasks),
                ("lost", [_], _) => tasks.lost = line.number()?,
                ("task", [pid, tgid, comm], _) => tasks.tasks.push(Task {
                    pid: line.parsed(pid)?,
                    tgid: line.parsed(tgid)?,
                    comm: (*comm).to_owned(),
                    runs: Vec::new(),
                }),
                ("in", [cluster, "energy_pj", energy, opps @ ..], Some(task)) => {
                    task.runs.push(Run {
                        cluster: (*cluster).to_owned(),
                        energy_pj: line.parsed(energy)?,
                        opps: pairs(&line, opps)?,
                    });
                }
                _ => return Err(line.wrong("is no line of a task table")),
            }
        }
        Err(TruthError::Cut)
    }
}

impl Task {
    /// Energy on all clusters.
    pub fn energy_pj(&self) -> u128 {
        self.runs.iter().map(|run| u128::from(run.energy_pj)).sum()
    }

    /// Time on all clusters.
    pub fn busy_ns(&self) -> u128 {
        self.runs
            .iter()
            .flat_map(|run| &run.opps)
            .map(|&(_, ns)| u128::from(ns))
            .sum()
    }
}

fn pairs(line: &Line<'_>, words: &[&str]) -> Result<Vec<(u64, u64)>, TruthError> {
    words
        .chunks(2)
        .map(|pair| match pair {
            [khz, ns] => Ok((line.parsed(khz)?, line.parsed(ns)?)),
            _ => Err(line.wrong("has a frequency without a time")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASKS: &str = "vsoc-tasks 1\nlost 3\ntask 7 7 a_b\ntask 9 8 w\n\
        in little energy_pj 500 300000 20 400000 30\nin big energy_pj 70 1000000 1\nend\n";

    #[test]
    fn threads_come_with_time_and_energy_by_cluster_and_frequency() {
        let tasks = Tasks::parse(TASKS).unwrap();
        assert_eq!((tasks.lost, tasks.tasks.len()), (3, 2));
        assert_eq!((tasks.tasks[0].pid, tasks.tasks[0].runs.len()), (7, 0));
        let task = &tasks.tasks[1];
        assert_eq!((task.pid, task.tgid, task.comm.as_str()), (9, 8, "w"));
        assert_eq!(task.runs[0].opps, [(300_000, 20), (400_000, 30)]);
        assert_eq!((task.energy_pj(), task.busy_ns()), (570, 51));
    }

    #[test]
    fn a_table_the_module_would_not_print_is_refused_with_its_line() {
        let cases = [
            ("vsoc-tasks 1", "vsoc-truth 1", 1),
            ("lost 3", "lost some", 2),
            ("task 7 7 a_b", "task 7 7 a b", 3),
            ("task 7 7 a_b", "task x 7 a_b", 3),
            ("400000 30", "400000", 5),
            ("energy_pj 500", "energy_uj 500", 5),
            ("task 7 7 a_b\ntask 9 8 w\n", "", 3),
        ];
        for (from, to, line) in cases {
            match Tasks::parse(&TASKS.replacen(from, to, 1)) {
                Err(TruthError::Malformed { line: found, .. }) => assert_eq!(found, line, "'{to}'"),
                other => panic!("'{to}' gave {other:?}"),
            }
        }
        assert_eq!(Tasks::parse("vsoc-tasks 1\nlost 0\n"), Err(TruthError::Cut));
    }
}
