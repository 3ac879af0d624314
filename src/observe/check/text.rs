//! The report for people.

use super::{Area, Finding, Report, State};
use crate::energy::select::{Purpose, State as Fitness};
use crate::observe::WIDEST;
use crate::sysroot::format_cpu_list;
use crate::topology::{Domain, Topology};
use crate::units::KHz;
use std::collections::{BTreeMap, BTreeSet};

const INDENT: &str = "  ";

impl Report {
    /// The report as lines of text.
    pub fn text(&self) -> String {
        let release = self.kernel.as_deref().unwrap_or("of unknown release");
        let mut text = format!("Linux {release}\n");
        self.area(&mut text, "kernel", Area::Kernel);
        self.area(&mut text, "privileges", Area::Privileges);
        self.area(&mut text, "topology", Area::Topology);
        if let Some(topology) = &self.topology {
            relations(&mut text, topology);
        }
        self.area(&mut text, "frequency", Area::Frequency);
        self.area(&mut text, "energy", Area::Energy);
        self.meters(&mut text);
        text += &self.verdict();
        text
    }

    fn area(&self, text: &mut String, title: &str, area: Area) {
        let findings: Vec<&Finding> = self.findings.iter().filter(|it| it.area == area).collect();
        if findings.is_empty() {
            return;
        }
        *text += &format!("\n{title}\n");
        let rows = findings.iter().map(|finding| Row {
            cells: vec![
                state(finding.state).to_owned(),
                finding.name.clone(),
                finding.detail.clone(),
            ],
            fix: finding.fix.clone(),
        });
        table(text, &[], rows.collect());
    }

    fn meters(&self, text: &mut String) {
        let mut told = BTreeSet::new();
        for (purpose, title) in [
            (Purpose::Package, "energy of packages, best meter first"),
            (Purpose::Cores, "energy of cores, best meter first"),
        ] {
            let rows = self.energy.verdicts_for(purpose).map(|verdict| Row {
                cells: vec![
                    fitness(verdict.state).to_owned(),
                    verdict.source.to_string(),
                    verdict.why.clone(),
                ],
                // The same cure twice is noise.
                fix: verdict
                    .fix
                    .clone()
                    .filter(|_| told.insert((verdict.source, verdict.fix.clone()))),
            });
            let rows = rows.collect();
            *text += &format!("\n{title}\n");
            table(text, &[], rows);
        }
    }

    fn verdict(&self) -> String {
        let blocking = self.findings.iter().filter(|finding| finding.blocks());
        let names: Vec<&str> = blocking.map(|finding| finding.name.as_str()).collect();
        match self.able {
            true => "\nscx_joule can run here.\n".to_owned(),
            false => format!("\nscx_joule cannot run here: {}.\n", names.join(", ")),
        }
    }
}

const fn state(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Degraded => "degraded",
        State::Missing => "missing",
    }
}

const fn fitness(state: Fitness) -> &'static str {
    match state {
        Fitness::Chosen => "ok",
        Fitness::Spare => "spare",
        Fitness::Unfit => "unfit",
        Fitness::Denied => "denied",
        Fitness::Absent => "missing",
        Fitness::Broken => "broken",
    }
}

fn relations(text: &mut String, topology: &Topology) {
    let cpus = topology.cpus.iter();
    let cores: BTreeSet<_> = cpus
        .clone()
        .filter_map(|cpu| cpu.facts.siblings.first())
        .collect();
    let packages: BTreeSet<_> = cpus.filter_map(|cpu| cpu.facts.package).collect();
    *text += &format!(
        "{INDENT}{} CPUs online of {} possible; cores: {}",
        topology.cpus.len(),
        topology.possible.len(),
        cores.len(),
    );
    if !packages.is_empty() {
        *text += &format!(", packages: {}", packages.len());
    }
    *text += "\n\n";
    let classes = topology.classes.iter().enumerate().map(|(number, class)| {
        Row::of([
            number.to_string(),
            class.capacity.to_string(),
            class
                .core_type
                .map_or("-".to_owned(), |kind| kind.to_string()),
            format_cpu_list(&class.cpus),
        ])
    });
    table(
        text,
        &["class", "capacity", "core type", "CPUs"],
        classes.collect(),
    );
    *text += "\n";
    table(
        text,
        &["clock", "frequencies", "CPUs"],
        clocks(&topology.domains),
    );
    *text += "\n";
    let groups = topology.groups.iter().enumerate().map(|(number, group)| {
        Row::of([
            number.to_string(),
            group.class.to_string(),
            if group.per_cpu_freq {
                "per CPU"
            } else {
                "shared"
            }
            .to_owned(),
            format_cpu_list(&group.cpus),
        ])
    });
    table(text, &["group", "class", "clock", "CPUs"], groups.collect());
}

/// One row for each shared clock, and one for all CPUs that have alike clocks of their own.
fn clocks(domains: &[Domain]) -> Vec<Row> {
    let mut rows: BTreeMap<(usize, &str, String), Vec<usize>> = BTreeMap::new();
    let mut first_alike: BTreeMap<String, usize> = BTreeMap::new();
    for (number, domain) in domains.iter().enumerate() {
        let frequencies = frequencies(domain);
        let alone = domain
            .policy
            .as_ref()
            .is_some_and(|policy| policy.cpus.len() == 1);
        let (key, sharing) = match alone {
            true => (
                *first_alike.entry(frequencies.clone()).or_insert(number),
                "per CPU",
            ),
            false => (number, "shared"),
        };
        rows.entry((key, sharing, frequencies))
            .or_default()
            .extend(&domain.cpus);
    }
    rows.into_iter()
        .map(|((_, sharing, frequencies), cpus)| {
            Row::of([sharing.to_owned(), frequencies, format_cpu_list(&cpus)])
        })
        .collect()
}

fn frequencies(domain: &Domain) -> String {
    let Some(policy) = &domain.policy else {
        return "not shown (sharing assumed)".to_owned();
    };
    let mhz = |khz: Option<KHz>| khz.map_or("?".to_owned(), |khz| (khz.get() / 1000).to_string());
    let steps = match &policy.opps {
        Some(opps) => format!("{} OPPs", opps.len()),
        None => "no list of OPPs".to_owned(),
    };
    format!("{}-{} MHz, {steps}", mhz(policy.min), mhz(policy.max))
}

struct Row {
    cells: Vec<String>,
    fix: Option<String>,
}

impl Row {
    fn of<const N: usize>(cells: [String; N]) -> Self {
        Self {
            cells: cells.into(),
            fix: None,
        }
    }
}

/// Rows in aligned columns; a row's fix stands below it, under its last column.
fn table(text: &mut String, header: &[&str], rows: Vec<Row>) {
    let header = header.iter().map(|cell| (*cell).to_owned()).collect();
    let header = Row {
        cells: header,
        fix: None,
    };
    let rows: Vec<Row> = std::iter::once(header)
        .chain(rows)
        .filter(|row| !row.cells.is_empty())
        .collect();
    let columns = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.cells.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max();
        widest.unwrap_or(0).min(WIDEST)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let cells = row.cells.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        *text += INDENT;
        *text += cells.join(INDENT).trim_end();
        *text += "\n";
        if let Some(fix) = &row.fix {
            let before = widths
                .iter()
                .rev()
                .skip(1)
                .map(|width| width + INDENT.len())
                .sum::<usize>();
            *text += &format!("{INDENT}{:before$}-> {fix}\n", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_of_any_length_is_shown() {
        let long = "x".repeat(100_000);
        let mut text = String::new();
        let cells = ["a".to_owned(), long.clone(), "b".to_owned()];
        table(&mut text, &["1", "2", "3"], vec![Row::of(cells)]);
        assert!(
            text.contains(&format!("{long}{INDENT}b")),
            "{} characters",
            text.len()
        );
    }
}
