//! `lab prepare` and `lab kernels`.

use anyhow::{Context, Result, bail};
use lab::cache::Cache;
use lab::kernel::{Kernels, SERIES};
use std::io::Write;
use std::process::ExitCode;

pub fn prepare(names: &[String], update: bool) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let kernels = Kernels::new(&cache);
    let mut out = std::io::stdout();
    let mut say = |text: String| writeln!(out, "{text}").context("cannot write");
    if !names.is_empty() {
        for name in names {
            let kernel = kernels.get(name)?;
            say(format!("{name}: {}", kernel.release))?;
            if lab::kernel::series(name).is_none_or(|series| series.has_soc) {
                kernels.soc_module(&kernel)?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    for series in SERIES {
        let kernel = kernels.of_series(series, update)?;
        say(format!("{}: {}", series.name, kernel.release))?;
        if series.has_soc {
            kernels.soc_module(&kernel)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub fn list(json: bool) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let listed = Kernels::new(&cache).list()?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&listed)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for kernel in &listed {
        let verdict = match &kernel.verdict {
            None => "not tried",
            Some(verdict) => verdict.refused.as_deref().unwrap_or("works"),
        };
        let mark = if kernel.chosen { '*' } else { ' ' };
        writeln!(
            out,
            "{mark} {:8} {:32} {verdict}",
            kernel.series, kernel.release
        )?;
    }
    if listed.is_empty() {
        bail!("no kernels are known yet: run `lab prepare`");
    }
    Ok(ExitCode::SUCCESS)
}
