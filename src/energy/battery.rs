//! Batteries of /sys/class/power_supply (Documentation/ABI/testing/sysfs-class-power): the power
//! drawn from them while the machine lives on them alone.
//!
//! Firmware refreshes these figures every 1 to 360 s and smooths them: good for trends and reports,
//! too slow to fit a model by.

use super::clock::Moment;
use super::source::{Access, Amount, Domain, EnergySource, Provenance, Reading, Scope};
use crate::error::Result;
use crate::sysroot::{OpenFile, SysRoot};
use crate::units::{Microwatts, Nanos};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const CLASS: &str = "sys/class/power_supply";

const NS_PER_HOUR: u128 = 3_600_000_000_000;

/// Whether the machine lives on its batteries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Discharging, and no other supply is online.
    Discharging,
    /// Charging, full, or held while another supply feeds the machine.
    External,
    /// The driver does not say.
    Unknown,
}

/// How a battery's power can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// `power_now`.
    Power,
    /// `current_now` × `voltage_now`.
    CurrentVoltage,
    /// How fast `energy_now` falls.
    EnergySlope,
    /// How fast `charge_now` falls, × `voltage_now`.
    ChargeSlope,
}

/// One system battery as the machine shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Battery {
    /// Directory below /sys/class/power_supply, such as `BAT0`.
    pub name: String,
    /// Whether the machine lives on it.
    pub state: State,
    /// The best way to its power; `None` when it shows nothing of use.
    pub method: Option<Method>,
    /// Whether its figures can be read.
    pub access: Access,
}

/// All system batteries that are present; batteries of mice and the like (scope `Device`) are not ours.
///
/// # Errors
/// Only when the class directory cannot be listed: a battery that cannot be read is a fact.
pub fn batteries(sys: &SysRoot) -> Result<Vec<Battery>> {
    let mut batteries = Vec::new();
    let mut supplies = Supplies::default();
    let external = supplies.feed(sys)?;
    for (name, supply) in &mut supplies.known {
        let path = |file: &str| format!("{CLASS}/{name}/{file}");
        let is_there = || word(&mut sys.open(path("present"))).is_none_or(|word| word != "0");
        if !supply.is_system(&["Battery"]) || !is_there() {
            continue;
        }
        let methods = [
            (Method::Power, vec!["power_now"]),
            (Method::CurrentVoltage, vec!["current_now", "voltage_now"]),
            (Method::EnergySlope, vec!["energy_now"]),
            (Method::ChargeSlope, vec!["charge_now", "voltage_now"]),
        ];
        let mut method = None;
        let mut access = Access::Absent;
        for (candidate, files) in methods {
            let reads = files.iter().map(|file| number(&mut sys.open(path(file))));
            match reads.collect::<Result<Option<Vec<_>>>>() {
                Ok(None) => {}
                read @ Ok(Some(_)) => {
                    (method, access) = (Some(candidate), Access::of(&read));
                    break;
                }
                read @ Err(_) => access = Access::of(&read),
            }
        }
        batteries.push(Battery {
            state: state(external, &mut sys.open(path("status"))),
            name: name.clone(),
            method,
            access,
        });
    }
    Ok(batteries)
}

/// What the kernel shows below /sys/class/power_supply.
#[derive(Debug, Default)]
struct Supplies {
    known: BTreeMap<String, Supply>,
}

/// One of them. Some drivers change the type when something is plugged in.
#[derive(Debug)]
struct Supply {
    kind: OpenFile,
    scope: OpenFile,
    online: OpenFile,
}

impl Supplies {
    /// Whether one that is no battery feeds the machine.
    fn feed(&mut self, sys: &SysRoot) -> Result<bool> {
        let names = sys.entries(CLASS)?;
        self.known.retain(|name, _| names.contains(name));
        for name in names {
            let new = |name: &String| Supply::new(sys, name);
            self.known.entry(name).or_insert_with_key(new);
        }
        Ok(self.known.values_mut().any(Supply::feeds))
    }
}

impl Supply {
    fn new(sys: &SysRoot, name: &str) -> Self {
        let open = |file: &str| sys.open(format!("{CLASS}/{name}/{file}"));
        Self {
            kind: open("type"),
            scope: open("scope"),
            online: open("online"),
        }
    }

    fn is_system(&mut self, kinds: &[&str]) -> bool {
        word(&mut self.kind).is_some_and(|kind| kinds.contains(&kind.as_str()))
            && word(&mut self.scope).is_none_or(|scope| scope != "Device")
    }

    fn feeds(&mut self) -> bool {
        // 1 is online, 2 online at a fixed and 3 at a programmable voltage.
        self.is_system(&["Mains", "USB", "Wireless"])
            && word(&mut self.online).is_some_and(|online| online != "0")
    }
}

fn word(file: &mut OpenFile) -> Option<String> {
    file.value("a word").ok().flatten()
}

/// The figure without its sign: drivers do not agree which sign discharging has.
fn number(file: &mut OpenFile) -> Result<Option<u64>> {
    let value: Option<i64> = file.value("a whole number")?;
    Ok(value.map(i64::unsigned_abs))
}

/// By whether something else feeds the machine, and the battery's own word.
fn state(external: bool, status: &mut OpenFile) -> State {
    if external {
        return State::External;
    }
    match word(status).as_deref() {
        Some("Discharging") => State::Discharging,
        Some("Charging" | "Full" | "Not charging") => State::External,
        _ => State::Unknown,
    }
}

/// How much a slowly refreshed figure fell, and in what time.
#[derive(Clone, Copy, Debug)]
struct Fall {
    used: u64,
    elapsed: Nanos,
}

/// The rate at which a slowly refreshed figure falls, from the moments at which it was seen to change.
#[derive(Clone, Copy, Debug, Default)]
struct Slope {
    /// The value, and when it was first seen; no moment for the very first value, which may be old.
    seen: Option<(u64, Option<Nanos>)>,
    fall: Option<Fall>,
    refresh: Option<Nanos>,
}

impl Slope {
    /// The latest fall. It stands until the next change, but not for more than four times as long as
    /// the figure took to change before: then the rate has become another.
    fn observe(&mut self, value: u64, now: Nanos) -> Option<Fall> {
        let Some((before, since)) = self.seen else {
            self.seen = Some((value, None));
            return None;
        };
        let elapsed = since.and_then(|since| now.checked_sub(since));
        if value == before {
            let (fall, elapsed) = (self.fall?, elapsed?);
            let fresh = elapsed.get() / 4 <= fall.elapsed.get();
            return fresh.then_some(fall);
        }
        self.seen = Some((value, Some(now)));
        self.refresh = elapsed;
        self.fall = before
            .checked_sub(value)
            .zip(elapsed)
            .map(|(used, elapsed)| Fall { used, elapsed });
        self.fall
    }
}

/// `amount` × `factor` ÷ 10⁶ (1 µA × 1 µV = 10⁻⁶ µW), without overflow.
fn scaled(amount: u128, factor: u64) -> Option<Microwatts> {
    let uw = amount.checked_mul(u128::from(factor))? / 1_000_000;
    u64::try_from(uw).ok().map(Microwatts::new)
}

/// Reads one battery.
#[derive(Debug)]
pub struct BatteryPower {
    sys: SysRoot,
    name: String,
    method: Method,
    figure: OpenFile,
    voltage: Option<OpenFile>,
    status: OpenFile,
    supplies: Supplies,
    slope: Slope,
}

impl BatteryPower {
    /// A reader of this battery; `None` when it shows nothing to find its power by.
    pub fn open(sys: &SysRoot, battery: &Battery) -> Option<Self> {
        let method = battery.method?;
        let (figure, with_voltage) = match method {
            Method::Power => ("power_now", false),
            Method::CurrentVoltage => ("current_now", true),
            Method::EnergySlope => ("energy_now", false),
            Method::ChargeSlope => ("charge_now", true),
        };
        let open = |file: &str| sys.open(format!("{CLASS}/{}/{file}", battery.name));
        Some(Self {
            sys: sys.clone(),
            name: battery.name.clone(),
            method,
            figure: open(figure),
            voltage: with_voltage.then(|| open("voltage_now")),
            status: open("status"),
            supplies: Supplies::default(),
            slope: Slope::default(),
        })
    }

    /// Time between the last two changes of the battery's figure, as far as the samples show: how often
    /// its firmware refreshes it. `None` before two changes.
    pub fn refresh(&self) -> Option<Nanos> {
        self.slope.refresh
    }

    fn power(&mut self, now: Moment) -> Result<Option<Microwatts>> {
        let value = number(&mut self.figure)?;
        let factor = match &mut self.voltage {
            Some(voltage) => number(voltage)?,
            None => Some(1_000_000),
        };
        let external = self.supplies.feed(&self.sys)?;
        let discharging = state(external, &mut self.status) == State::Discharging;
        if !discharging || now.resumed {
            self.slope = Slope::default();
        }
        let (true, Some(value), Some(factor)) = (discharging, value, factor) else {
            return Ok(None);
        };
        let fall = self.slope.observe(value, now.at);
        let power = match self.method {
            Method::Power | Method::CurrentVoltage => scaled(u128::from(value), factor),
            Method::EnergySlope | Method::ChargeSlope => fall.and_then(|fall| {
                let per_hour = (u128::from(fall.used) * NS_PER_HOUR)
                    .checked_div(u128::from(fall.elapsed.get()))?;
                scaled(per_hour, factor)
            }),
        };
        // A machine that runs on its battery draws something: 0 is a figure not refreshed yet.
        Ok(power.filter(|power| *power > Microwatts::new(0)))
    }
}

impl EnergySource for BatteryPower {
    fn sample(&mut self, now: Moment) -> Result<Vec<Reading>> {
        Ok(vec![Reading {
            domain: Domain::Platform,
            scope: Scope::Device(self.name.clone()),
            amount: Amount::Power(self.power(now)?),
            provenance: Provenance::Measured,
        }])
    }

    fn longest_safe_period(&self) -> Option<Nanos> {
        None
    }
}

#[cfg(test)]
mod tests;
