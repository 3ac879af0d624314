//! The machine file as serde sees it, and the rules beyond its shape.

use super::{
    Cluster, EnergyModel, Idle, MAX_CLUSTERS, MAX_CPUS, MAX_OPPS, Machine, Mode, Opp, Smt,
};
use serde::{Deserialize, Deserializer, de};
use std::fmt;
use toml::Spanned;

/// What is wrong, and at which byte of the file.
pub(super) struct Fault {
    pub offset: Option<usize>,
    pub message: String,
}

fn fault(offset: usize, message: impl Into<String>) -> Fault {
    Fault {
        offset: Some(offset),
        message: message.into(),
    }
}

/// A number 0..=`MAX` with up to three decimals, in thousandths.
#[derive(Clone, Copy)]
struct Milli<const MAX: u32>(u32);

/// Up to 100 W in mW, as the module takes.
type Power = Milli<100_000>;
/// Up to 1 J in µJ, as the module takes.
type Energy = Milli<1_000_000>;
/// A part of one.
type Fraction = Milli<1>;

impl<'de, const MAX: u32> Deserialize<'de> for Milli<MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number<const MAX: u32>;

        impl<const MAX: u32> de::Visitor<'_> for Number<MAX> {
            type Value = Milli<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number from 0 to {MAX} with at most three decimals")
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                let thousandths = value * 1000.0;
                // through text: the only conversion that cannot wrap or saturate unseen
                let rounded = format!("{:.0}", thousandths).parse::<u32>().ok();
                rounded
                    .filter(|&rounded| rounded <= MAX.saturating_mul(1000))
                    .filter(|&rounded| (f64::from(rounded) - thousandths).abs() < 1e-4)
                    .map(Milli)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Float(value), &self))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                u32::try_from(value)
                    .ok()
                    .filter(|&value| value <= MAX)
                    .and_then(|value| value.checked_mul(1000))
                    .map(Milli)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(value), &self))
            }
        }

        from.deserialize_any(Number)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMachine {
    name: Spanned<String>,
    title: Spanned<String>,
    mode: Mode,
    em: Spanned<EnergyModel>,
    floor_mw: Power,
    source: Spanned<String>,
    assumptions: Spanned<String>,
    cluster: Vec<Spanned<RawCluster>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    name: Spanned<String>,
    cpus: Spanned<Vec<u32>>,
    capacity: Spanned<u32>,
    smt: Option<Spanned<RawSmt>>,
    em_factor: Option<Spanned<Milli<100>>>,
    shallow: RawShallow,
    deep: Spanned<RawIdle>,
    sleep: Spanned<RawIdle>,
    opps: Spanned<Vec<Spanned<RawOpp>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSmt {
    power: Fraction,
    speed: Fraction,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShallow {
    mw: Power,
    wake_uj: Energy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIdle {
    mw: Power,
    after_us: u32,
    wake_uj: Energy,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOpp {
    khz: u32,
    busy_mw: Power,
    shared_mw: Power,
    capacity: Option<u32>,
}

pub(super) fn parse(text: &str) -> Result<Machine, Fault> {
    let raw: RawMachine = toml::from_str(text).map_err(|error| Fault {
        offset: error.span().map(|span| span.start),
        message: error.message().replace('\n', " "),
    })?;
    machine(raw)
}

fn machine(raw: RawMachine) -> Result<Machine, Fault> {
    for (field, value) in [
        ("title", &raw.title),
        ("source", &raw.source),
        ("assumptions", &raw.assumptions),
    ] {
        if value.get_ref().trim().is_empty() {
            return Err(fault(
                value.span().start,
                format!("{field} is empty; say it in words"),
            ));
        }
    }
    let clusters = raw
        .cluster
        .iter()
        .map(|raw| cluster(raw.get_ref()))
        .collect::<Result<_, _>>()?;
    let machine = Machine {
        name: word("name", &raw.name)?,
        title: raw.title.get_ref().clone(),
        mode: raw.mode,
        em: *raw.em.get_ref(),
        floor_uw: raw.floor_mw.0,
        source: raw.source.get_ref().trim().to_owned(),
        assumptions: raw.assumptions.get_ref().trim().to_owned(),
        clusters,
    };
    if machine.mode == Mode::HardwareManaged && machine.em != EnergyModel::None {
        return Err(fault(
            raw.em.span().start,
            "em is \"watts\"; with mode \"hardware-managed\" it is \"none\"",
        ));
    }
    check_clusters(&raw.cluster)?;
    Ok(machine)
}

/// What concerns clusters together: number, names, CPUs, the largest capacity.
fn check_clusters(raw: &[Spanned<RawCluster>]) -> Result<(), Fault> {
    let start = raw.first().map_or(0, |first| first.span().start);
    if raw.is_empty() || raw.len() > MAX_CLUSTERS {
        return Err(fault(
            start,
            format!("{} clusters; 1 to {MAX_CLUSTERS} are right", raw.len()),
        ));
    }
    let mut names: Vec<&str> = Vec::new();
    let mut seen: Vec<u32> = Vec::new();
    for cluster in raw.iter().map(Spanned::get_ref) {
        let name = cluster.name.get_ref().as_str();
        if names.contains(&name) {
            return Err(fault(
                cluster.name.span().start,
                format!("a second cluster '{name}'"),
            ));
        }
        names.push(name);
        for &cpu in cluster.cpus.get_ref() {
            if seen.contains(&cpu) {
                return Err(fault(
                    cluster.cpus.span().start,
                    format!("cpus: {cpu} is in two places; each CPU is in one cluster, once"),
                ));
            }
            seen.push(cpu);
        }
    }
    let cpus = seen.len();
    let fits = |cpu: &u32| usize::try_from(*cpu).is_ok_and(|cpu| cpu < cpus);
    if cpus > MAX_CPUS {
        return Err(fault(
            start,
            format!("{cpus} cpus; at most {MAX_CPUS} are right"),
        ));
    }
    for cluster in raw.iter().map(Spanned::get_ref) {
        if let Some(cpu) = cluster.cpus.get_ref().iter().find(|&cpu| !fits(cpu)) {
            return Err(fault(
                cluster.cpus.span().start,
                format!("cpus: {cpu}, but the {cpus} CPUs are numbered from 0 without gaps"),
            ));
        }
    }
    match raw
        .iter()
        .map(|cluster| *cluster.get_ref().capacity.get_ref())
        .max()
    {
        Some(1024) => Ok(()),
        largest => Err(fault(
            start,
            format!(
                "capacity: the largest is {}; the biggest CPU has 1024",
                largest.unwrap_or(0)
            ),
        )),
    }
}

/// A name the module takes.
fn word(field: &str, name: &Spanned<String>) -> Result<String, Fault> {
    let text = name.get_ref();
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if text.is_empty() || text.len() > 31 || !text.bytes().all(right) {
        return Err(fault(
            name.span().start,
            format!("{field} '{text}' is not 1 to 31 letters, digits, '-', '_' or '.'"),
        ));
    }
    Ok(text.clone())
}

fn cluster(raw: &RawCluster) -> Result<Cluster, Fault> {
    let name = word("name", &raw.name)?;
    let cpus = raw.cpus.get_ref().clone();
    let smt = raw.smt.as_ref().map(smt).transpose()?;
    let at = |span: std::ops::Range<usize>, message| Err(fault(span.start, message));
    if cpus.is_empty() {
        return at(
            raw.cpus.span(),
            "cpus is empty; a cluster has at least one".to_owned(),
        );
    }
    if smt.is_some() && !cpus.len().is_multiple_of(2) {
        return at(
            raw.cpus.span(),
            format!("cpus: {} do not make pairs of siblings", cpus.len()),
        );
    }
    let em_permille = match &raw.em_factor {
        None => 1000,
        Some(factor) if factor.get_ref().0 > 0 => factor.get_ref().0,
        Some(factor) => {
            return at(
                factor.span(),
                "em_factor is 0; it is 0.001 to 100".to_owned(),
            );
        }
    };
    let shallow = Idle {
        uw: raw.shallow.mw.0,
        after_us: 0,
        wake_nj: raw.shallow.wake_uj.0,
    };
    let deep = idle("deep", &raw.deep)?;
    if deep.uw > shallow.uw {
        return at(
            raw.deep.span(),
            format!("deep draws {} µW, more than shallow", deep.uw),
        );
    }
    Ok(Cluster {
        name,
        cpus,
        smt,
        em_permille,
        shallow,
        deep,
        sleep: idle("sleep", &raw.sleep)?,
        opps: opps(raw)?,
    })
}

fn smt(raw: &Spanned<RawSmt>) -> Result<Smt, Fault> {
    let smt = Smt {
        power_permille: raw.get_ref().power.0,
        speed_permille: raw.get_ref().speed.0,
    };
    if smt.speed_permille == 0 {
        return Err(fault(
            raw.span().start,
            "smt: speed is 0; it is above 0, up to 1",
        ));
    }
    Ok(smt)
}

fn idle(field: &str, raw: &Spanned<RawIdle>) -> Result<Idle, Fault> {
    const LONGEST_US: u32 = 10_000_000;
    let RawIdle {
        mw,
        after_us,
        wake_uj,
    } = raw.get_ref();
    if *after_us == 0 || *after_us > LONGEST_US {
        return Err(fault(
            raw.span().start,
            format!("{field}: after_us is {after_us}; 1 to {LONGEST_US} are right"),
        ));
    }
    Ok(Idle {
        uw: mw.0,
        after_us: *after_us,
        wake_nj: wake_uj.0,
    })
}

fn opps(raw: &RawCluster) -> Result<Vec<Opp>, Fault> {
    let list = raw.opps.get_ref();
    let capacity = *raw.capacity.get_ref();
    let Some(highest) = list
        .last()
        .map(Spanned::get_ref)
        .filter(|_| list.len() <= MAX_OPPS)
    else {
        return Err(fault(
            raw.opps.span().start,
            format!("{} opps; 1 to {MAX_OPPS} are right", list.len()),
        ));
    };
    if capacity == 0 || capacity > 1024 {
        let start = raw.capacity.span().start;
        return Err(fault(
            start,
            format!("capacity is {capacity}; 1 to 1024 are right"),
        ));
    }
    let measured = highest.capacity.is_some();
    let mut opps: Vec<Opp> = Vec::with_capacity(list.len());
    for entry in list {
        let wrong = |message: String| Err(fault(entry.span().start, message));
        let raw = entry.get_ref();
        if raw.capacity.is_some() != measured {
            return wrong(
                "opp: capacity is given for some OPPs of the cluster, not for all".into(),
            );
        }
        if raw.khz == 0 || raw.khz > 100_000_000 {
            return wrong(format!("opp: khz is {}; 1 to 100000000 are right", raw.khz));
        }
        let opp = Opp {
            khz: raw.khz,
            capacity: raw
                .capacity
                .unwrap_or_else(|| linear(capacity, raw.khz, highest.khz)),
            busy_uw: raw.busy_mw.0,
            shared_uw: raw.shared_mw.0,
        };
        if opp.busy_uw == 0 {
            return wrong("opp: busy_mw is 0; a busy CPU draws something".into());
        }
        if opp.capacity == 0 || opp.capacity > capacity {
            return wrong(format!(
                "opp: capacity {} is not 1 to {capacity}",
                opp.capacity
            ));
        }
        if let Some(before) = opps.last() {
            if opp.khz <= before.khz {
                return wrong(format!(
                    "opp: khz {} after {}; must rise",
                    opp.khz, before.khz
                ));
            }
            if opp.capacity < before.capacity {
                let (now, then) = (opp.capacity, before.capacity);
                return wrong(format!("opp: capacity {now} after {then}; must not fall"));
            }
        }
        opps.push(opp);
    }
    match opps.last() {
        Some(top) if top.capacity != capacity => Err(fault(
            raw.capacity.span().start,
            format!(
                "capacity is {capacity}, but the highest OPP has {}",
                top.capacity
            ),
        )),
        _ => Ok(opps),
    }
}

/// `capacity` × `khz` / `highest`, rounded, at least 1; 0 when `highest` is, which its own check refuses.
fn linear(capacity: u32, khz: u32, highest: u32) -> u32 {
    let (capacity, khz, highest) = (u64::from(capacity), u64::from(khz), u64::from(highest));
    (capacity * khz + highest / 2)
        .checked_div(highest)
        .and_then(|rounded| u32::try_from(rounded.max(1)).ok())
        .unwrap_or(0)
}
