//! Which meter serves which purpose, by rules over [`Facts`] alone: for each purpose a ladder of
//! sources, of which the first fit one is chosen. Every other gets its reason, and what to type where
//! that would help.

use super::hwmon::{Channel, Kind};
use super::powercap;
use super::probe::{Facts, PmuFacts};
use super::source::{Access, Domain, Provenance};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A kind of meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// perf PMU `power`: 64-bit counts in 2⁻³² J, read together, no wrap in a lifetime.
    PerfPower,
    /// perf PMU `power_core`: the same for each core of AMD.
    PerfPowerCore,
    /// powercap zones: µJ, wrap within minutes to hours.
    Powercap,
    /// hwmon `energyN_input`.
    HwmonEnergy,
    /// hwmon `powerN_input`: power at the moment of reading, so energy needs interpolation.
    HwmonPower,
    /// The battery's own gauge.
    Battery,
    /// The kernel's Energy Model.
    KernelEm,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerfPower => "perf power",
            Self::PerfPowerCore => "perf power_core",
            Self::Powercap => "powercap",
            Self::HwmonEnergy => "hwmon energy",
            Self::HwmonPower => "hwmon power",
            Self::Battery => "battery",
            Self::KernelEm => "kernel energy model",
        })
    }
}

/// What a meter is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Energy of the processor packages: what the model is fitted to.
    Package,
    /// Energy of the cores alone: tells cores from the rest.
    Cores,
}

impl Purpose {
    /// Best first.
    const fn ladder(self) -> [Source; 7] {
        use Source::*;
        match self {
            Self::Package => [
                PerfPower,
                Powercap,
                HwmonEnergy,
                HwmonPower,
                PerfPowerCore,
                Battery,
                KernelEm,
            ],
            Self::Cores => [
                PerfPowerCore,
                PerfPower,
                Powercap,
                HwmonEnergy,
                HwmonPower,
                Battery,
                KernelEm,
            ],
        }
    }

    const fn domain(self) -> Domain {
        match self {
            Self::Package => Domain::Package,
            Self::Cores => Domain::Cores,
        }
    }
}

/// Where a source stands for a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The one to use.
    Chosen,
    /// Would do as well, but a better one is chosen.
    Spare,
    /// Readable, but not what this purpose needs.
    Unfit,
    /// This process may not read it.
    Denied,
    /// Not there.
    Absent,
    /// There, but it fails or shows nonsense.
    Broken,
}

/// What the rules say about one source for one purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// For what.
    pub purpose: Purpose,
    /// Which source.
    pub source: Source,
    /// The verdict.
    pub state: State,
    /// The reason, for people.
    pub why: String,
    /// A command that would change the verdict, where there is one.
    pub fix: Option<String>,
}

/// The chosen sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    /// For [`Purpose::Package`].
    pub package: Option<Source>,
    /// For [`Purpose::Cores`].
    pub cores: Option<Source>,
}

/// The outcome: what to use, and a verdict for every source and purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// `None` when this machine shows no meter to this process: the model then runs on its prior.
    pub chosen: Option<Chosen>,
    /// By purpose, best source first.
    pub verdicts: Vec<Verdict>,
}

impl Selection {
    /// The verdicts for one purpose, best source first.
    pub fn verdicts_for(&self, purpose: Purpose) -> impl Iterator<Item = &Verdict> {
        self.verdicts
            .iter()
            .filter(move |verdict| verdict.purpose == purpose)
    }
}

/// Applies the rules. Pure: the same facts always give the same selection.
pub fn select(facts: &Facts) -> Selection {
    let mut verdicts = Vec::new();
    let mut choose = |purpose: Purpose| {
        let mut chosen = None;
        for source in purpose.ladder() {
            let finding = judge(facts, source, purpose);
            let (state, why) = match (finding.state, chosen) {
                (State::Chosen, Some(better)) => {
                    (State::Spare, format!("{}; {better} is better", finding.why))
                }
                (state, _) => (state, finding.why),
            };
            if state == State::Chosen {
                chosen = Some(source);
            }
            verdicts.push(Verdict {
                purpose,
                source,
                state,
                why,
                fix: finding.fix,
            });
        }
        chosen
    };
    let chosen = Chosen {
        package: choose(Purpose::Package),
        cores: choose(Purpose::Cores),
    };
    let any = chosen.package.is_some() || chosen.cores.is_some();
    Selection {
        chosen: any.then_some(chosen),
        verdicts,
    }
}

/// A verdict before the ladder is known: `Chosen` here means fit.
struct Finding {
    state: State,
    why: String,
    fix: Option<String>,
}

fn finding(state: State, why: impl Into<String>) -> Finding {
    Finding {
        state,
        why: why.into(),
        fix: None,
    }
}

impl Finding {
    fn fix(self, fix: Option<&str>) -> Self {
        Self {
            fix: fix.map(str::to_owned),
            ..self
        }
    }
}

fn judge(facts: &Facts, source: Source, purpose: Purpose) -> Finding {
    match source {
        Source::PerfPower => pmu(facts, &facts.power, "power", purpose),
        Source::PerfPowerCore if purpose == Purpose::Package => {
            finding(State::Unfit, "counts cores, not packages")
        }
        Source::PerfPowerCore => pmu(facts, &facts.power_core, "power_core", purpose),
        Source::Powercap => powercap(facts, purpose),
        Source::HwmonEnergy => hwmon(facts, Kind::Energy, purpose),
        Source::HwmonPower => hwmon(facts, Kind::Power, purpose),
        Source::Battery => battery(facts),
        Source::KernelEm => kernel_em(facts),
    }
}

/// What is common to everything that is not there.
fn absent(facts: &Facts, what: impl fmt::Display, fix: Option<&str>) -> Finding {
    if facts.virtual_machine {
        // Loading a driver does not give a guest its host's counters.
        return finding(
            State::Absent,
            format!("this virtual machine shows no {what}"),
        );
    }
    finding(State::Absent, format!("this machine shows no {what}")).fix(fix)
}

fn pmu(facts: &Facts, found: &PmuFacts, name: &str, purpose: Purpose) -> Finding {
    let x86 = facts.cpu_vendor.is_some();
    match &found.access {
        Access::Absent if found.pmu.is_some() => {
            absent(facts, format_args!("energy event in PMU '{name}'"), None)
        }
        Access::Absent => absent(
            facts,
            format_args!("PMU '{name}'"),
            x86.then_some("sudo modprobe rapl"),
        ),
        Access::Denied { why } => {
            finding(State::Denied, why).fix(Some("sudo sysctl kernel.perf_event_paranoid=0"))
        }
        Access::Broken { why } => finding(State::Broken, why),
        Access::Readable if found.domains.contains(&purpose.domain()) => finding(
            State::Chosen,
            format!("PMU '{name}' counts {} energy", purpose.domain()),
        ),
        Access::Readable => finding(
            State::Unfit,
            format!("PMU '{name}' has no event for {} energy", purpose.domain()),
        ),
    }
}

fn powercap(facts: &Facts, purpose: Purpose) -> Finding {
    match &facts.powercap.access {
        Access::Denied { why } => return finding(State::Denied, why).fix(Some(AS_ROOT)),
        Access::Broken { why } => return finding(State::Broken, why),
        Access::Absent | Access::Readable => {}
    }
    let zones = &facts.powercap.items;
    let meters: Vec<_> = powercap::meters(zones, facts.amd())
        .into_iter()
        .filter(|meter| meter.domain == purpose.domain())
        .collect();
    if meters.is_empty() {
        let single_core = facts.amd() && zones.iter().any(|zone| zone.name == "core");
        if single_core && purpose == Purpose::Cores {
            return finding(
                State::Unfit,
                "the zone 'core' of AMD's driver counts one core only",
            );
        }
        let driver = (zones.is_empty() && facts.cpu_vendor.is_some())
            .then_some("sudo modprobe intel_rapl_msr");
        let what = format_args!("powercap zone for {} energy", purpose.domain());
        return absent(facts, what, driver);
    }
    for meter in &meters {
        match &meter.zone.energy {
            Access::Readable => {}
            Access::Denied { why } => return finding(State::Denied, why).fix(Some(AS_ROOT)),
            Access::Broken { why } => return finding(State::Broken, why),
            Access::Absent => {
                let why = format!("zone {} has no energy_uj", meter.zone.id);
                return finding(State::Absent, why);
            }
        }
    }
    let names: Vec<_> = meters
        .iter()
        .map(|meter| format!("{} ({})", meter.zone.id, meter.zone.name))
        .collect();
    let blind = meters.iter().any(|meter| meter.zone.range.is_none());
    let note = match blind {
        true => "; range unknown, so intervals with a wrap are lost",
        false => "",
    };
    finding(State::Chosen, format!("zones {}{note}", names.join(", ")))
}

/// energy_uj is mode 0400 since CVE-2020-8694.
const AS_ROOT: &str = "run as root (sudo)";

fn hwmon(facts: &Facts, kind: Kind, purpose: Purpose) -> Finding {
    let what = match kind {
        Kind::Energy => "energy",
        Kind::Power => "power",
    };
    match &facts.hwmon.access {
        Access::Denied { why } => return finding(State::Denied, why).fix(Some(AS_ROOT)),
        Access::Broken { why } => return finding(State::Broken, why),
        Access::Absent | Access::Readable => {}
    }
    let channels = channels(facts, kind, purpose);
    if channels.is_empty() {
        let what = format_args!(
            "hwmon {what} channel labelled as {}{}",
            purpose.domain(),
            others(facts, kind),
        );
        return absent(facts, what, None);
    }
    for channel in &channels {
        match &channel.access {
            Access::Readable => {}
            Access::Denied { why } => return finding(State::Denied, why).fix(Some(AS_ROOT)),
            Access::Broken { why } => return finding(State::Broken, why),
            Access::Absent => {
                let why = format!("{} shows no value", channel.name());
                return finding(State::Absent, why);
            }
        }
    }
    let note = match channels
        .iter()
        .all(|channel| channel.domain == purpose.domain())
    {
        true => "",
        false => "; the whole machine, not the package alone",
    };
    let names: Vec<_> = channels.iter().map(|channel| channel.name()).collect();
    finding(
        State::Chosen,
        format!("channels {}{note}", names.join(", ")),
    )
}

/// The channels that serve a purpose: those labelled as its domain, and for want of any for the package
/// those of the whole machine.
pub(super) fn channels(facts: &Facts, kind: Kind, purpose: Purpose) -> Vec<&Channel> {
    let labelled = |domain: &Domain| -> Vec<_> {
        let channels = facts.hwmon.items.iter();
        channels
            .filter(|channel| channel.kind == kind && channel.domain == *domain)
            .collect()
    };
    match (labelled(&purpose.domain()), purpose) {
        (none, Purpose::Package) if none.is_empty() => labelled(&Domain::Platform),
        (channels, _) => channels,
    }
}

/// The channels of a kind, for a user who knows what the labels mean.
fn others(facts: &Facts, kind: Kind) -> String {
    let channels = facts.hwmon.items.iter();
    let names: Vec<_> = channels
        .filter(|channel| channel.kind == kind)
        .map(Channel::name)
        .collect();
    match names.is_empty() {
        true => String::new(),
        false => format!(", only {}", names.join(", ")),
    }
}

fn battery(facts: &Facts) -> Finding {
    match &facts.batteries.access {
        Access::Denied { why } => finding(State::Denied, why),
        Access::Broken { why } => finding(State::Broken, why),
        Access::Absent => absent(facts, "battery", None),
        Access::Readable => finding(
            State::Unfit,
            "refreshed every 1 to 360 s and smoothed: for reports, too slow to fit a model by",
        ),
    }
}

fn kernel_em(facts: &Facts) -> Finding {
    let domains = &facts.kernel_em.items;
    match &facts.kernel_em.access {
        Access::Denied { why } => finding(State::Denied, why).fix(Some(AS_ROOT)),
        Access::Broken { why } => finding(State::Broken, why),
        Access::Absent if facts.debugfs => {
            finding(State::Absent, "the kernel has no Energy Model of the CPUs")
        }
        Access::Absent => finding(State::Absent, "debugfs is not mounted")
            .fix(Some("sudo mount -t debugfs none /sys/kernel/debug")),
        Access::Readable => {
            let scale = match domains
                .iter()
                .all(|domain| domain.provenance == Provenance::Modelled)
            {
                true => "in real watts",
                false => "on an abstract scale",
            };
            finding(
                State::Unfit,
                format!("a model {scale}, not a meter: used as the prior"),
            )
        }
    }
}

#[cfg(test)]
mod tests;
