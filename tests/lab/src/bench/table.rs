//! The cells as Markdown, for people.

use super::cell::{Cell, Oracle, Standing, Verdict};
use crate::statistics::Ratio;
use std::collections::BTreeSet;
use std::fmt::Write;

/// The scheduler that this project makes; the others with a program are its peers.
const OURS: &str = "scx_joule";
const PEERS: &str = "scx_";

/// A table for each machine, then sums over all cells.
pub fn markdown(cells: &[Cell<'_>]) -> String {
    let mut text = String::new();
    for of_machine in cells.chunk_by(|one, next| one.machine == next.machine) {
        text += &machine(of_machine);
    }
    text += &sums(cells);
    text += &against_peers(cells);
    text
}

fn machine(cells: &[Cell<'_>]) -> String {
    let Some(first) = cells.first() else {
        return String::new();
    };
    let others = others(cells);
    let mut text = format!(
        "## {}\n\n| workload | {} | oracle |",
        first.machine, first.reference
    );
    for name in &others {
        text += &format!(" {name} |");
    }
    text += &format!("\n|---|---:|---|{}\n", "---|".repeat(others.len()));
    for cell in cells {
        let reference = cell.standing(cell.reference);
        let energy_j = reference.and_then(|it| it.energy_j);
        let energy_j = energy_j.map_or_else(|| "-".to_owned(), |it| format!("{it:.3} J"));
        text += &format!(
            "| {} | {energy_j} | {} |",
            cell.workload,
            oracle(cell.oracle)
        );
        for name in &others {
            let shown = cell.standing(name).map_or_else(String::new, standing);
            text += &format!(" {shown} |");
        }
        text += "\n";
    }
    text += "\n";
    let void = cells.iter().flat_map(|cell| {
        let standings = cell.standings.iter();
        standings.filter_map(|it| match &it.verdict {
            Verdict::Void(reason) => Some(format!("- {}: {reason}", it.scheduler)),
            _ => None,
        })
    });
    for reason in void.collect::<BTreeSet<_>>() {
        text += &format!("{reason}\n");
    }
    text + "\n"
}

/// The least energy of any placement, and of those that are as fast as the reference.
fn oracle(Oracle { least, as_fast }: Oracle) -> String {
    let shown = |ratio: Option<Ratio>| ratio.map(|it| format!("{:.3}", it.ratio));
    let shown = [
        shown(least),
        shown(as_fast).map(|it| format!("as fast {it}")),
    ];
    shown.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Energy against the reference, bold where the interval leaves 1 out, and the mark of what does not count.
fn standing(standing: &Standing<'_>) -> String {
    let verdict = standing.verdict.to_string();
    let Some(Ratio { ratio, low, high }) = standing.energy else {
        return verdict;
    };
    let mark = if low > 1.0 || high < 1.0 { "**" } else { "" };
    let shown = format!("{mark}{ratio:.3}{mark} [{low:.3} {high:.3}] {verdict}");
    shown.trim_end().to_owned()
}

/// Over all cells, for each scheduler.
fn sums(cells: &[Cell<'_>]) -> String {
    let mut text = "## All cells\n\nEnergy: geometric mean over the cells that count, against the reference of \
        each machine. Less, more: cells whose interval leaves out 1.\n\n\
        | scheduler | energy | cells that count | less | more | work lost | late | slow | void |\n\
        |---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for name in others(cells) {
        let standings: Vec<_> = cells
            .iter()
            .filter_map(|cell| cell.standing(name))
            .collect();
        let of = |verdict: fn(&Verdict) -> bool| {
            standings.iter().filter(|it| verdict(&it.verdict)).count()
        };
        let counting = standings.iter().filter(|it| it.verdict == Verdict::Counts);
        let ratios: Vec<Ratio> = counting.filter_map(|it| it.energy).collect();
        let _ = writeln!(
            text,
            "| {name} | {} | {} of {} | {} | {} | {} | {} | {} | {} |",
            geometric_mean(&ratios),
            ratios.len(),
            standings.len(),
            ratios.iter().filter(|it| it.high < 1.0).count(),
            ratios.iter().filter(|it| it.low > 1.0).count(),
            of(|it| *it == Verdict::WorkLost),
            of(|it| *it == Verdict::Late),
            of(|it| *it == Verdict::Slow),
            of(|it| matches!(it, Verdict::Void(_) | Verdict::NoReference)),
        );
    }
    text + "\n"
}

/// Ours against the best peer of each cell.
fn against_peers(cells: &[Cell<'_>]) -> String {
    let peer = |name: &str| name.starts_with(PEERS) && !ours(name);
    if !others(cells).into_iter().any(peer) {
        return String::new();
    }
    let mut text = String::new();
    for name in others(cells).into_iter().filter(|name| ours(name)) {
        let ratios: Vec<Ratio> = (cells.iter())
            .filter_map(|cell| {
                let standing = cell.standing(name)?;
                let counts = standing.verdict == Verdict::Counts;
                standing.energy_against(cell.best(peer).filter(|_| counts)?)
            })
            .collect();
        let _ = writeln!(
            text,
            "{name} against the best peer of each cell: {} over {} cells, {} of them less, {} more; {} cells \
             are left out because it or every peer does not count there.\n",
            geometric_mean(&ratios),
            ratios.len(),
            ratios.iter().filter(|it| it.high < 1.0).count(),
            ratios.iter().filter(|it| it.low > 1.0).count(),
            cells.len() - ratios.len()
        );
    }
    text
}

fn ours(name: &str) -> bool {
    name.split_whitespace().next() == Some(OURS)
}

/// All schedulers but the machines' references, in the order of their first cell.
fn others<'c>(cells: &'c [Cell<'_>]) -> Vec<&'c str> {
    let mut names = Vec::new();
    for cell in cells {
        for standing in &cell.standings {
            if standing.scheduler != cell.reference && !names.contains(&standing.scheduler) {
                names.push(standing.scheduler);
            }
        }
    }
    names
}

fn geometric_mean(ratios: &[Ratio]) -> String {
    let logarithms: Vec<f64> = ratios.iter().map(|it| it.ratio.ln()).collect();
    let mean = crate::statistics::mean(&logarithms);
    mean.map_or_else(|| "-".to_owned(), |mean| format!("×{:.3}", mean.exp()))
}

#[cfg(test)]
mod tests {
    use super::super::cell::tests::runs;
    use super::*;

    #[test]
    fn what_does_not_count_is_marked_and_not_summed() {
        let mut rows = [
            runs("eevdf-eas", |_| {}),
            runs("scx_joule", |it| it.energy_j = 1.0),
            runs("scx_thief", |it| (it.energy_j, it.work_ms) = (0.2, 100.0)),
            runs("scx_fair", |it| it.energy_j = 1.6),
            runs("scx_gone", |_| {}),
        ]
        .concat();
        for row in rows.iter_mut().filter(|row| row.scheduler == "scx_gone") {
            row.sample = None;
            row.run = "void: it did not attach".to_owned();
        }
        let mut cells = [Cell::new("phone", "light", "eevdf-eas", rows.iter())];
        cells[0]
            .ask(|_, limit| Ok(Some(if limit.is_none() { 0.5 } else { 0.6 })))
            .unwrap();
        let text = markdown(&cells);
        for line in [
            "| light | 2.000 J | 0.250, as fast 0.300 | **0.500** [0.500 0.500] | **0.100** [0.100 0.100] WORK LOST | \
             **0.800** [0.800 0.800] | VOID |",
            "- scx_gone: void: it did not attach",
            "| scx_thief | - | 0 of 1 | 0 | 0 | 1 | 0 | 0 | 0 |",
            "| scx_fair | ×0.800 | 1 of 1 | 1 | 0 | 0 | 0 | 0 | 0 |",
            "| scx_gone | - | 0 of 1 | 0 | 0 | 0 | 0 | 0 | 1 |",
            "scx_joule against the best peer of each cell: ×0.625 over 1 cells, 1 of them less, 0 more; 0 cells",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn a_difference_is_bold_only_where_the_interval_leaves_one_out() {
        let rows = [
            runs("eevdf-eas", |_| {}),
            runs("other", |it| {
                it.energy_j = if it.seed == 2 { 2.4 } else { 1.9 }
            }),
        ]
        .concat();
        let cells = [Cell::new("phone", "light", "eevdf-eas", rows.iter())];
        assert!(!markdown(&cells).contains("**"));
    }
}
