//! `scx_joule model`: what was calibrated, for people and for other tools. Works on files alone: a model of
//! another machine is shown as well as this one's.

mod export;
mod plot;
mod text;

use crate::cli::model::ModelCommand;
use crate::model::evidence::Evidence;
use crate::model::file::Saved;
use crate::store;
use anyhow::{Context, Result, anyhow, bail};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Runs a sub-command; `state` is the directory that this machine's model is looked for in.
///
/// # Errors
/// A file that is missing, is not right or cannot be written, and models that do not belong together.
pub fn run(command: &ModelCommand, state: &Path) -> Result<()> {
    let or_own = |file: &Option<PathBuf>| file.clone().unwrap_or_else(|| state.join(store::MODEL));
    match command {
        ModelCommand::Show { file, svg } => {
            let path = or_own(file);
            let saved = read(&path)?;
            if let Some(svg) = svg {
                plot::write(svg, &saved).with_context(|| svg.display().to_string())?;
            }
            print(&text::show(&saved)?)
        }
        ModelCommand::Export { file, tree } => {
            let saved = read(&or_own(file))?;
            match tree {
                Some(directory) => export::tree(&saved, directory),
                None => print(&export::csv(&saved)?),
            }
        }
        ModelCommand::Compare { one, other } => {
            let path = or_own(other);
            let (one, other) = (read(one)?, read(&path)?);
            other
                .fits_saved(&one)
                .map_err(|refusal| anyhow!("{}: {refusal}", path.display()))?;
            print(&text::compare(&one, &other)?)
        }
        ModelCommand::Merge { files, output } => {
            let sum = merge(files)?;
            store::write(output, &sum)?;
            let Evidence { runs, rows, .. } = sum.evidence;
            let plural = if runs == 1 { "" } else { "s" };
            let path = output.display();
            print(&format!(
                "{path}: {rows} measurements of {runs} calibration{plural}\n"
            ))
        }
    }
}

fn read(path: &Path) -> Result<Saved> {
    let missing = || {
        anyhow!(
            "{}: no such file; `scx_joule calibrate` makes one",
            path.display()
        )
    };
    store::read(path)?.ok_or_else(missing)
}

/// All that the files' machines measured.
fn merge(files: &[PathBuf]) -> Result<Saved> {
    let all: Vec<Saved> = files.iter().map(|path| read(path)).collect::<Result<_>>()?;
    let Some(first) = all.first() else {
        bail!("nothing to add up");
    };
    for (saved, path) in all.iter().zip(files) {
        saved
            .fits_saved(first)
            .map_err(|refusal| anyhow!("{}: {refusal}", path.display()))?;
    }
    let evidence: Vec<&Evidence> = all.iter().map(|saved| &saved.evidence).collect();
    let sum = Saved {
        evidence: Evidence::merged(&evidence).context("more measurements than can be counted")?,
        ..first.clone()
    };
    sum.belief().context("the sum of these files")?;
    Ok(sum)
}

/// A reader that has gone away is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
