//! Results that are known already.

use crate::cache::{self, Cache};
use crate::guest::Soc;
use crate::kernel::Kernel;
use crate::report::Sample;
use crate::session::{self, Run, Session};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;

/// Hash of what all runs of a session depend on.
pub struct Key(String);

impl Key {
    /// The kernel, the module, the machine, the scheduler's name and arguments, the programs, and how runs are
    /// carried out. `name` keeps apart what is to be run anew although all else is the same.
    pub fn of(kernel: &Kernel, soc: &Soc, session: &Session<'_>, name: &str) -> Result<Self> {
        let module = cache::read(&soc.module)?;
        let load = cache::read(session.load)?;
        let program = session.scheduler.program.as_deref().map(cache::read);
        let program = program.transpose()?.unwrap_or_default();
        let settle = session.settle.as_ref();
        let settled = settle.map(|(path, _)| cache::read(path)).transpose()?;
        let numbers = format!(
            "{:?} {:?}",
            session.warmup,
            settle.map(|(_, seconds)| seconds)
        );
        Ok(Self(cache::hash([
            kernel.release.as_bytes(),
            &module,
            soc.description.as_bytes(),
            name.as_bytes(),
            session.scheduler.arguments.as_bytes(),
            &program,
            &load,
            &settled.unwrap_or_default(),
            numbers.as_bytes(),
            session::SCRIPT.as_bytes(),
        ])))
    }
}

/// The results of one session's runs, a file each.
pub struct Store<'a> {
    cache: &'a Cache,
    key: Key,
}

impl<'a> Store<'a> {
    /// Of the session of this key.
    pub fn new(cache: &'a Cache, key: Key) -> Self {
        Self { cache, key }
    }

    /// What is known of a run: figures, or why there are none. `None` where it is not known.
    pub fn read(&self, run: &Run) -> Result<Option<Result<Sample, String>>> {
        let Ok(text) = fs::read(self.path(run)?) else {
            return Ok(None);
        };
        // what cannot be read, from an older version perhaps, is measured again
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Keeps a result.
    pub fn write(&self, run: &Run, result: &Result<Sample, String>) -> Result<()> {
        let path = self.path(run)?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        let temporary = path.with_extension("new");
        cache::write(&temporary, serde_json::to_vec(result)?)?;
        fs::rename(&temporary, &path).with_context(|| path.display().to_string())
    }

    fn path(&self, run: &Run) -> Result<PathBuf> {
        let workload = cache::read(&run.workload)?;
        let numbers = format!("{} {:?}", run.seed, run.seconds);
        let key = cache::hash([self.key.0.as_bytes(), &workload, numbers.as_bytes()]);
        Ok(self.cache.path(format!("rows/{key}.json")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    fn run(name: &str, seed: u64) -> Run {
        Run {
            workload: catalogue::workload(name).unwrap(),
            seed,
            seconds: None,
        }
    }

    #[test]
    fn a_result_is_found_again_and_only_for_its_run_and_key() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        let store = |key: &str| Store::new(&cache, Key(key.to_owned()));
        let void: Result<Sample, String> = Err("ejected".to_owned());
        store("one").write(&run("batch", 1), &void).unwrap();
        let known = |key, name, seed| store(key).read(&run(name, seed)).unwrap();
        assert_eq!(known("one", "batch", 1), Some(void));
        assert_eq!(known("one", "batch", 2), None);
        assert_eq!(known("one", "messaging", 1), None);
        assert_eq!(known("two", "batch", 1), None);
    }
}
