//! Energy and power channels of /sys/class/hwmon (Documentation/hwmon/sysfs-interface.rst):
//! `energyN_input` in µJ, `powerN_input` in µW, with the label that the driver or board file gave.

use super::counter::{Counter, Limits};
use super::source::{Access, Amount, Domain, EnergySource, Moment, Provenance, Reading, Scope};
use crate::error::Result;
use crate::sysroot::SysRoot;
use crate::units::{Microjoules, Microwatts, Nanos};
use serde::{Deserialize, Serialize};

const CLASS: &str = "sys/class/hwmon";

/// Sensor chips average over up to about a second (INA226: 1024 conversions).
const REFRESH: Nanos = Nanos::new(1_000_000_000);

/// What a channel shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A running sum in µJ.
    Energy,
    /// Power in µW.
    Power,
}

/// One energy or power channel as the machine shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// The chip's driver name, such as `scmi_sensors`, `ina3221` or `macsmc_hwmon`.
    pub chip: String,
    /// The file below the root of the tree.
    pub path: String,
    /// Energy or power.
    pub kind: Kind,
    /// The channel's label, if it has one.
    pub label: Option<String>,
    /// The domain that the label points to.
    pub domain: Domain,
    /// Whether the file can be read.
    pub access: Access,
}

impl Channel {
    /// Name for people: chip, then label or channel.
    pub fn name(&self) -> String {
        let file = self.path.rsplit('/').next().unwrap_or(&self.path);
        let channel = file.strip_suffix("_input").unwrap_or(file);
        format!("{}/{}", self.chip, self.label.as_deref().unwrap_or(channel))
    }
}

/// All energy and power channels, energy before power within a chip.
///
/// # Errors
/// Only when the class directory cannot be listed: a channel that cannot be read is a fact.
pub fn channels(sys: &SysRoot) -> Result<Vec<Channel>> {
    let mut channels = Vec::new();
    for device in sys.entries(CLASS)? {
        let directory = format!("{CLASS}/{device}");
        let chip = text(sys, &format!("{directory}/name")).unwrap_or(device);
        let files = sys.entries(&directory).unwrap_or_default();
        for (file, kind) in files.iter().filter_map(|file| Some((file, kind(file)?))) {
            let path = format!("{directory}/{file}");
            let label = path
                .strip_suffix("_input")
                .and_then(|channel| text(sys, &format!("{channel}_label")));
            channels.push(Channel {
                chip: chip.clone(),
                kind,
                domain: Domain::from_label(label.as_deref().unwrap_or_default()),
                label,
                access: Access::of(&value(sys, &path)),
                path,
            });
        }
    }
    Ok(channels)
}

fn text(sys: &SysRoot, path: &str) -> Option<String> {
    let text = sys.text(path).ok().flatten()?;
    (!text.is_empty()).then_some(text)
}

/// `energy12_input` → energy.
fn kind(file: &str) -> Option<Kind> {
    let channel = file.strip_suffix("_input")?;
    let (kind, number) = match channel.strip_prefix("energy") {
        Some(number) => (Kind::Energy, number),
        None => (Kind::Power, channel.strip_prefix("power")?),
    };
    let numbered = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    numbered.then_some(kind)
}

fn value(sys: &SysRoot, path: &str) -> Result<Option<u64>> {
    sys.value(path, "an energy in µJ or a power in µW, 0 or more")
}

/// Reads channels of the caller's choice.
#[derive(Debug)]
pub struct Hwmon {
    sys: SysRoot,
    channels: Vec<(Channel, Option<Counter>)>,
}

impl Hwmon {
    /// A reader of these channels.
    pub fn open(sys: &SysRoot, channels: impl IntoIterator<Item = Channel>) -> Self {
        let channels = channels.into_iter().map(|channel| {
            let counter = (channel.kind == Kind::Energy).then(|| {
                Counter::new(Limits {
                    // The interface does not say where a counter starts again.
                    range: None,
                    max_power: channel.domain.max_power(),
                    refresh: REFRESH,
                    frozen_after: channel.domain.frozen_after(),
                })
            });
            (channel, counter)
        });
        Self {
            sys: sys.clone(),
            channels: channels.collect(),
        }
    }
}

impl EnergySource for Hwmon {
    fn sample(&mut self, now: Moment) -> Result<Vec<Reading>> {
        let values: Vec<_> = self
            .channels
            .iter()
            .map(|(channel, _)| value(&self.sys, &channel.path))
            .collect::<Result<_>>()?;
        let readings = self.channels.iter_mut().zip(values);
        Ok(readings
            .map(|((channel, counter), value)| Reading {
                domain: channel.domain.clone(),
                scope: Scope::Device(channel.name()),
                amount: match counter {
                    Some(counter) => {
                        Amount::Energy(counter.observe(value.map(Microjoules::new), now))
                    }
                    None => Amount::Power(value.map(Microwatts::new)),
                },
                provenance: Provenance::Measured,
            })
            .collect())
    }

    fn longest_safe_period(&self) -> Option<Nanos> {
        None
    }
}
