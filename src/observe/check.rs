//! `scx_joule check`: what this machine offers, what is missing and what to type about it.
//!
//! [`check`] gathers and judges, [`Report::text`] writes for people, serde for programs. Nothing here
//! fails on an odd machine: what cannot be read is itself a finding.

mod agreement;
mod kernel;
mod text;

use crate::energy::{self, Selection};
use crate::sysroot::SysRoot;
use crate::topology::{CapacitySource, Topology};
use serde::Serialize;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// How a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// The scheduler works with less.
    Degraded,
    /// Not there. The scheduler cannot run when the finding is a required one.
    Missing,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// What the kernel must bring.
    Kernel,
    /// What this process may do.
    Privileges,
    /// How clocks are steered.
    Frequency,
    /// How CPUs relate.
    Topology,
    /// How energy is measured.
    Energy,
}

/// One fact about the machine, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// The thing looked at.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// What was found, or why it does not serve.
    pub detail: String,
    /// What to type or do about it, where that helps.
    pub fix: Option<String>,
    /// Whether the scheduler cannot run without it.
    pub required: bool,
}

impl Finding {
    fn new(area: Area, name: &str, state: State, detail: impl Into<String>) -> Self {
        Self {
            area,
            name: name.to_owned(),
            state,
            detail: detail.into(),
            fix: None,
            required: false,
        }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }

    fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    fn blocks(&self) -> bool {
        self.required && self.state == State::Missing
    }
}

/// What a machine offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the scheduler can run here and now.
    pub able: bool,
    /// Whether it does so already, so that a second one cannot start.
    pub running: bool,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: Option<String>,
    /// Everything looked at, by area.
    pub findings: Vec<Finding>,
    /// The machine's relations; a finding says why when `None`.
    pub topology: Option<Topology>,
    /// Which meter serves which purpose, and why not the others.
    pub energy: Selection,
}

impl Report {
    /// 0 when the scheduler can run here and now, 1 when something required is missing. What is only
    /// degraded does not count.
    pub fn exit_code(&self) -> ExitCode {
        match self.able {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }

    /// Why the scheduler cannot be started here and now, one line each; empty when it can.
    pub fn obstacles(&self) -> Vec<String> {
        let second = "scx_joule is running already; end that one first, or watch it with --monitor";
        let second = self.running.then(|| second.to_owned());
        let blocking = self.findings.iter().filter(|finding| finding.blocks());
        let missing = blocking.map(|finding| {
            let fix = finding.fix.as_ref().map(|fix| format!("; {fix}"));
            format!(
                "{}: {}{}",
                finding.name,
                finding.detail,
                fix.unwrap_or_default()
            )
        });
        second.into_iter().chain(missing).collect()
    }
}

/// Looks at the machine below `sys`.
pub fn check(sys: &SysRoot) -> Report {
    let kernel = kernel::release(sys);
    let mut findings = kernel::findings(sys, kernel.as_deref());
    findings.extend(kernel::privileges(sys));
    let topology = Topology::read(sys);
    findings.push(match &topology {
        Ok(topology) => capacities(topology),
        Err(error) => {
            let relations = Finding::new(Area::Topology, "CPUs", State::Missing, error.to_string());
            relations.required()
        }
    });
    let topology = topology.ok();
    if let Some(topology) = &topology {
        findings.push(frequency(sys, topology));
    }
    let energy = energy::select(&energy::probe(sys));
    findings.push(meter(&energy));
    Report {
        able: !findings.iter().any(Finding::blocks),
        running: kernel::is_running(sys),
        kernel,
        findings,
        topology,
        energy,
    }
}

/// Checks the machine below `sys` and prints the report, as JSON on request. Takes a second longer than [`check`]
/// where there are energy counters, to see whether they agree.
///
/// # Errors
/// When standard output cannot be written; a reader that has gone away is none.
pub fn run(sys: &SysRoot, json: bool) -> anyhow::Result<ExitCode> {
    let mut report = check(sys);
    let facts = energy::probe(sys);
    let agreement = agreement::finding(sys, &facts, &report.energy);
    report.findings.extend(agreement);
    let text = match json {
        true => serde_json::to_string_pretty(&report)? + "\n",
        false => report.text(),
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(report.exit_code()),
    }
}

fn capacities(topology: &Topology) -> Finding {
    let source = topology.capacity_source;
    let (state, detail) = match source {
        CapacitySource::Assumed => (
            State::Degraded,
            "nothing tells this machine's CPUs apart: all are taken as equal".to_owned(),
        ),
        CapacitySource::MaxFrequency if topology.classes.len() > 1 => (
            State::Degraded,
            format!("from {source} alone, which does not tell work per cycle"),
        ),
        _ => (State::Ok, format!("from {source}")),
    };
    Finding::new(Area::Topology, "capacities", state, detail)
}

fn meter(selection: &Selection) -> Finding {
    let chosen = selection.chosen;
    match chosen.and_then(|chosen| chosen.package.or(chosen.cores)) {
        Some(source) => {
            let detail = format!("{source}: costs are fitted to this machine");
            Finding::new(Area::Energy, "meter", State::Ok, detail)
        }
        None => {
            let detail = "none usable: costs stay at the prior, nothing is fitted (open loop)";
            Finding::new(Area::Energy, "meter", State::Degraded, detail)
        }
    }
}

/// Who chooses the clocks, and whether the scheduler can have a say.
fn frequency(sys: &SysRoot, topology: &Topology) -> Finding {
    const POLICIES: &str = "/sys/devices/system/cpu/cpufreq/policy*";
    let clocks = Clocks::read(sys, topology);
    let drivers = words(&clocks.drivers);
    let finding = |state, detail| Finding::new(Area::Frequency, "clocks", state, detail);
    let set = |value: &str, file: &str| format!("echo {value} | sudo tee {POLICIES}/{file}");
    if clocks.drivers.is_empty() {
        let detail = "no cpufreq: clocks cannot be steered, only placement saves energy";
        return finding(State::Degraded, detail.to_owned());
    }
    if clocks.hardware_chooses {
        let governor = words(&clocks.governors);
        let detail = format!("{drivers}, governor {governor}: hardware chooses");
        return if clocks.preferences.is_empty() {
            let passive = clocks
                .status_file
                .map(|file| format!("echo passive | sudo tee /{file}"));
            Finding {
                fix: passive,
                ..finding(
                    State::Degraded,
                    format!("{detail}, and offers no preference (EPP)"),
                )
            }
        } else if clocks.governors.contains("performance") {
            let detail = format!("{detail}, and this governor pins the preference (EPP)");
            finding(State::Degraded, detail).fix(set("powersave", "scaling_governor"))
        } else {
            let preferences = words(&clocks.preferences);
            finding(
                State::Ok,
                format!("{detail}, by preference (EPP) {preferences}"),
            )
        };
    }
    let governors = words(&clocks.governors);
    if clocks
        .governors
        .iter()
        .all(|governor| governor == "schedutil")
    {
        return finding(
            State::Ok,
            format!("{drivers}, governor schedutil: the scheduler chooses"),
        );
    }
    let detail = format!("{drivers}, governor {governors}: does not ask the scheduler");
    match clocks.schedutil_everywhere {
        true => finding(State::Degraded, detail).fix(set("schedutil", "scaling_governor")),
        false => finding(
            State::Degraded,
            format!("{detail}, and schedutil is not offered"),
        )
        .fix("boot a kernel with CONFIG_CPU_FREQ_GOV_SCHEDUTIL=y"),
    }
}

/// What cpufreq says of all policies together.
#[derive(Default)]
struct Clocks {
    drivers: BTreeSet<String>,
    governors: BTreeSet<String>,
    preferences: BTreeSet<String>,
    schedutil_everywhere: bool,
    status_file: Option<&'static str>,
    hardware_chooses: bool,
}

impl Clocks {
    fn read(sys: &SysRoot, topology: &Topology) -> Self {
        // The finding is about what can be had; a file that cannot be read cannot.
        let text = |file: &str| {
            sys.text(file)
                .ok()
                .flatten()
                .filter(|text| !text.is_empty())
        };
        let mut clocks = Self {
            schedutil_everywhere: true,
            ..Self::default()
        };
        for domain in &topology.domains {
            let (Some(policy), Some(cpu)) = (&domain.policy, domain.cpus.first()) else {
                continue;
            };
            clocks.hardware_chooses |= policy.hardware_chooses();
            let of = |name: &str| text(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}"));
            clocks
                .drivers
                .insert(policy.driver.clone().unwrap_or("unnamed driver".to_owned()));
            clocks
                .governors
                .insert(of("scaling_governor").unwrap_or("none".to_owned()));
            clocks
                .preferences
                .extend(of("energy_performance_preference"));
            let offered = policy.governors.as_deref().unwrap_or_default();
            clocks.schedutil_everywhere &= offered.iter().any(|it| it == "schedutil");
        }
        for file in [
            "sys/devices/system/cpu/intel_pstate/status",
            "sys/devices/system/cpu/amd_pstate/status",
        ] {
            if let Some(status) = text(file) {
                clocks.status_file = Some(file);
                clocks.hardware_chooses |= status == "active";
            }
        }
        clocks
    }
}

fn words(set: &BTreeSet<String>) -> String {
    let words: Vec<&str> = set.iter().map(String::as_str).collect();
    words.join(", ")
}
