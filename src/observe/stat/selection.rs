//! Which columns and rows were asked for.

use super::columns::{Column, Read, Shown, columns};
use super::view::{Row, RowKind};
use crate::cli::stat::StatArgs;
use crate::error::{Error, Result};
use crate::sysroot::parse_cpu_list;
use crate::topology::Topology;
use std::collections::BTreeSet;

/// Stands for the columns of cpuidle's states, which differ from machine to machine.
const SYSFS: &str = "sysfs";
/// Stands for every column.
const ALL: &str = "all";

/// A column as it is printed: one for each idle state where it is made for each.
#[derive(Clone)]
pub struct Head {
    /// Its head.
    pub name: String,
    /// What it is.
    pub column: &'static Column,
    /// The idle state.
    pub state: Option<String>,
}

/// The heads of columns on a machine with these idle states.
pub fn heads(columns: impl Iterator<Item = &'static Column>, states: &[String]) -> Vec<Head> {
    let mut heads = Vec::new();
    for column in columns {
        match column.read {
            Read::One(_) => heads.push(Head {
                name: column.name.to_owned(),
                column,
                state: None,
            }),
            Read::EachState(_) => heads.extend(states.iter().map(|state| Head {
                name: column.name_for(state),
                column,
                state: Some(state.clone()),
            })),
        }
    }
    heads
}

/// What was asked for.
pub struct Selection {
    heads: Vec<Head>,
    /// Those asked for by name, shown whether or not they have figures.
    named: BTreeSet<String>,
    summary: bool,
    cpus: Option<String>,
}

impl Selection {
    /// Reads the arguments, for a machine with these idle states.
    ///
    /// # Errors
    /// A name that no column has.
    pub fn new(args: &StatArgs, states: &[String]) -> Result<Self> {
        let all = heads(columns(), states);
        let asked = || args.show.iter().chain(&args.enable);
        for name in asked().chain(&args.hide) {
            if name != SYSFS && name != ALL && !all.iter().any(|head| head.name == *name) {
                return Err(Error::Unknown {
                    what: "column",
                    value: name.clone(),
                    known: names(&all) + ",sysfs,all",
                });
            }
        }
        let within = |names: &[String], head: &Head| {
            let is = |name: &String| {
                name == ALL || name == SYSFS && head.state.is_some() || *name == head.name
            };
            names.iter().any(is)
        };
        let usual = |column: &Column| match column.shown {
            Shown::Always => true,
            Shown::Watts => !args.joules,
            Shown::Joules => args.joules,
            Shown::Asked => false,
        };
        let shows = |head: &Head| {
            let named = within(&args.show, head) || within(&args.enable, head);
            let wanted = named || args.show.is_empty() && usual(head.column);
            wanted && !within(&args.hide, head)
        };
        Ok(Self {
            named: asked().cloned().collect(),
            heads: all.into_iter().filter(shows).collect(),
            summary: args.summary,
            cpus: args.cpu.clone(),
        })
    }

    /// The columns to show, as far as they have figures.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// Whether the column was asked for by its name.
    pub fn names(&self, head: &Head) -> bool {
        self.named.contains(&head.name)
    }

    /// Those of a machine's rows that are wanted.
    ///
    /// # Errors
    /// A set of CPUs that is none, or has none that is online.
    pub fn rows(&self, rows: Vec<Row>, topology: &Topology) -> Result<Vec<Row>> {
        if self.summary {
            return Ok(rows.into_iter().take(1).collect());
        }
        let Some(text) = &self.cpus else {
            return Ok(rows);
        };
        let cpus = topology.cpus.iter();
        let first_of = |key: &dyn Fn(&crate::topology::Cpu) -> Option<(u32, u32)>| {
            let mut seen = BTreeSet::new();
            let firsts = cpus.clone().filter(move |cpu| seen.insert(key(cpu)));
            firsts.map(|cpu| cpu.facts.id).collect()
        };
        let wanted: BTreeSet<usize> = match text.as_str() {
            "core" => first_of(&|cpu| cpu.facts.package.zip(cpu.facts.core)),
            "package" => first_of(&|cpu| cpu.facts.package.map(|package| (package, 0))),
            list => parse_cpu_list(&list.replace("..", "-"))
                .into_iter()
                .flatten()
                .filter(|id| topology.cpu(*id).is_some())
                .collect(),
        };
        if wanted.is_empty() {
            return Err(Error::Unknown {
                what: "online CPU",
                value: text.clone(),
                known: "core, package, or lists such as 0-3,8".to_owned(),
            });
        }
        let keeps = |row: &Row| match row.kind {
            RowKind::System => true,
            RowKind::Package(_) | RowKind::Cluster(_) => false,
            RowKind::Cpu(id) => wanted.contains(&id),
        };
        Ok(rows.into_iter().filter(keeps).collect())
    }
}

/// The heads, in one line.
pub fn names(heads: &[Head]) -> String {
    let names: Vec<&str> = heads.iter().map(|head| head.name.as_str()).collect();
    names.join(",")
}

#[cfg(test)]
mod tests;
