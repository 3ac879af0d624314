//! Energy and power channels of /sys/class/hwmon (Documentation/hwmon/sysfs-interface.rst):
//! `energyN_input` in µJ, `powerN_input` in µW, with the label that the driver or board file gave. The INA3221 of
//! many boards shows neither: its power is `inN_input` in mV × `currN_input` in mA (drivers/hwmon/ina3221.c).

use super::clock::Moment;
use super::counter::{Counter, Limits};
use super::source::{Access, Amount, Domain, EnergySource, Provenance, Reading, Scope};
use crate::error::Result;
use crate::sysroot::{OpenFile, SysRoot};
use crate::units::{Microjoules, Microwatts, Nanos};
use serde::{Deserialize, Serialize};

const CLASS: &str = "sys/class/hwmon";

/// Sensor chips average over up to about a second (INA226: 1024 conversions).
pub(super) const REFRESH: Nanos = Nanos::new(1_000_000_000);

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
    /// The file of the voltage in mV, where `path` is a current in mA.
    pub voltage: Option<String>,
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
            channels.push(channel(
                sys,
                &chip,
                format!("{directory}/{file}"),
                None,
                kind,
            ));
        }
        if chip == RAILS_CHIP {
            for number in RAILS {
                let current = format!("{directory}/curr{number}_input");
                let voltage = format!("{directory}/in{number}_input");
                if sys.exists(&current) && sys.exists(&voltage) {
                    channels.push(channel(sys, &chip, current, Some(voltage), Kind::Power));
                }
            }
        }
    }
    Ok(channels)
}

/// The chip that measures rails by current and voltage, and its rails; other such files belong to sums of them.
const RAILS_CHIP: &str = "ina3221";
const RAILS: [u8; 3] = [1, 2, 3];

fn channel(
    sys: &SysRoot,
    chip: &str,
    path: String,
    voltage: Option<String>,
    kind: Kind,
) -> Channel {
    let named = voltage.as_deref().unwrap_or(&path);
    let label = named
        .strip_suffix("_input")
        .and_then(|channel| text(sys, &format!("{channel}_label")));
    let mut channel = Channel {
        chip: chip.to_owned(),
        kind,
        domain: Domain::from_label(label.as_deref().unwrap_or_default()),
        label,
        access: Access::Absent,
        path,
        voltage,
    };
    channel.access = Access::of(&Input::new(sys, &channel).value());
    channel
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

/// A channel's files.
#[derive(Debug)]
struct Input {
    figure: OpenFile,
    voltage: Option<OpenFile>,
}

impl Input {
    fn new(sys: &SysRoot, channel: &Channel) -> Self {
        Self {
            figure: sys.open(&channel.path),
            voltage: channel.voltage.as_ref().map(|path| sys.open(path)),
        }
    }

    /// The channel's figure, µJ or µW; `None` when it is not there, or when current flows back into a rail.
    fn value(&mut self) -> Result<Option<u64>> {
        let Some(voltage) = &mut self.voltage else {
            let expected = "an energy in µJ or a power in µW, 0 or more";
            return self.figure.value(expected);
        };
        let current_ma: Option<i64> = self.figure.value("a current in mA")?;
        let voltage_mv: Option<i64> = voltage.value("a voltage in mV")?;
        let power_uw = current_ma
            .zip(voltage_mv)
            .and_then(|(current_ma, voltage_mv)| current_ma.checked_mul(voltage_mv));
        Ok(power_uw.and_then(|power_uw| u64::try_from(power_uw).ok()))
    }
}

/// Reads channels of the caller's choice.
#[derive(Debug)]
pub struct Hwmon {
    channels: Vec<(Channel, Input, Option<Counter>)>,
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
            let input = Input::new(sys, &channel);
            (channel, input, counter)
        });
        Self {
            channels: channels.collect(),
        }
    }
}

impl EnergySource for Hwmon {
    fn sample(&mut self, now: Moment) -> Result<Vec<Reading>> {
        let values: Vec<_> = self
            .channels
            .iter_mut()
            .map(|(_, input, _)| input.value())
            .collect::<Result<_>>()?;
        let readings = self.channels.iter_mut().zip(values);
        Ok(readings
            .map(|((channel, _, counter), value)| Reading {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy::counter::{Cause, Outcome};
    use crate::energy::fixture::{Machine, at_ms, collection};
    use crate::error::Error;
    use proptest::prelude::*;

    const ENERGY: &str = "sys/class/hwmon/hwmon0/energy1_input";

    fn all(machine: &Machine) -> Hwmon {
        let sys = machine.sys();
        Hwmon::open(&sys, channels(&sys).unwrap())
    }

    #[test]
    fn energy_and_power_channels_are_found_with_chip_label_and_domain() {
        let machine = Machine::bare();
        machine
            .channel("hwmon0", "scmi_sensors", "energy1", "big", "1000")
            .channel("hwmon0", "scmi_sensors", "power12", "gpu", "2000")
            .channel("hwmon1", "ina226", "power1", "", "3000")
            .channel("hwmon2", "coretemp", "temp1", "Package id 0", "40000")
            .file("sys/class/hwmon/hwmon0/power12_cap", "1\n")
            .file("sys/class/hwmon/hwmon0/powerx_input", "1\n")
            .file("sys/class/hwmon/hwmon0/energy_input", "1\n");
        let channels = channels(&machine.sys()).unwrap();
        let seen: Vec<_> = channels
            .iter()
            .map(|channel| (channel.name(), channel.kind, channel.domain.clone()))
            .collect();
        let other = Domain::Other(String::new());
        assert_eq!(
            seen,
            [
                ("scmi_sensors/big".to_owned(), Kind::Energy, Domain::Cores),
                ("scmi_sensors/gpu".to_owned(), Kind::Power, Domain::Gpu),
                ("ina226/power1".to_owned(), Kind::Power, other),
            ]
        );
    }

    #[test]
    fn energy_is_a_difference_and_power_is_as_shown() {
        let machine = Machine::bare();
        machine
            .channel("hwmon0", "scmi_sensors", "energy1", "socket", "1000")
            .channel("hwmon0", "scmi_sensors", "power1", "socket", "2500000");
        let mut source = all(&machine);
        source.sample(at_ms(0)).unwrap();
        machine.file(ENERGY, "1400\n");
        let readings = source.sample(at_ms(1_000)).unwrap();
        assert_eq!(readings[0].energy(), Some(Microjoules::new(400)));
        let power = Amount::Power(Some(Microwatts::new(2_500_000)));
        assert_eq!(readings[1].amount, power);
    }

    #[test]
    fn a_chip_without_power_channels_is_read_by_current_and_voltage() {
        let machine = Machine::bare();
        let chip = "sys/class/hwmon/hwmon0";
        machine.file(&format!("{chip}/name"), "ina3221\n");
        for (number, label) in [(1, "VDD_IN"), (2, "VDD_CPU_CV"), (3, "VDD_CPU")] {
            machine
                .file(&format!("{chip}/in{number}_label"), &format!("{label}\n"))
                .file(&format!("{chip}/in{number}_input"), "19000\n")
                .file(&format!("{chip}/curr{number}_input"), "250\n");
        }
        // the sum of the shunts is no rail
        machine
            .file(&format!("{chip}/in4_input"), "1\n")
            .file(&format!("{chip}/curr4_input"), "1\n");
        let channels = channels(&machine.sys()).unwrap();
        let seen: Vec<_> = channels
            .iter()
            .map(|channel| (channel.name(), channel.kind, channel.domain.clone()))
            .collect();
        let other = Domain::Other("VDD_CPU_CV".to_owned());
        assert_eq!(
            seen,
            [
                ("ina3221/VDD_IN".to_owned(), Kind::Power, Domain::Platform),
                ("ina3221/VDD_CPU_CV".to_owned(), Kind::Power, other),
                ("ina3221/VDD_CPU".to_owned(), Kind::Power, Domain::Cores),
            ]
        );
        machine.file(&format!("{chip}/curr2_input"), "-3\n");
        let readings = all(&machine).sample(at_ms(0)).unwrap();
        let powers: Vec<_> = readings.into_iter().map(|reading| reading.amount).collect();
        let power = Amount::Power(Some(Microwatts::new(4_750_000)));
        assert_eq!(powers, [power.clone(), Amount::Power(None), power]);
    }

    #[test]
    fn current_and_voltage_of_other_chips_are_not_paired() {
        let machine = Machine::bare();
        machine
            .file("sys/class/hwmon/hwmon0/name", "nct6775\n")
            .file("sys/class/hwmon/hwmon0/in1_input", "792\n")
            .file("sys/class/hwmon/hwmon0/curr1_input", "5\n");
        assert_eq!(channels(&machine.sys()).unwrap(), []);
    }

    #[test]
    fn a_counter_that_falls_is_not_guessed_at() {
        let machine = Machine::bare();
        machine.channel("hwmon0", "scmi_sensors", "energy1", "socket", "1000");
        let mut source = all(&machine);
        source.sample(at_ms(0)).unwrap();
        machine.file(ENERGY, "10\n");
        let readings = source.sample(at_ms(1_000)).unwrap();
        let unknown = Amount::Energy(Outcome::Dropped(Cause::RangeUnknown));
        assert_eq!(readings[0].amount, unknown);
    }

    #[test]
    fn a_channel_that_vanishes_is_missing_and_not_zero() {
        let machine = Machine::bare();
        machine.channel("hwmon0", "ina226", "power1", "socket", "5");
        let mut source = all(&machine);
        machine.remove("sys/class/hwmon/hwmon0/power1_input");
        let readings = source.sample(at_ms(0)).unwrap();
        assert_eq!(readings[0].amount, Amount::Power(None));
    }

    #[test]
    fn garbage_and_refusals_are_facts_when_probed_and_errors_when_sampled() {
        for (text, broken) in [("-5\n", true), ("0x10\n", true), ("12", false)] {
            let machine = Machine::bare();
            machine.channel("hwmon0", "scmi_sensors", "energy1", "socket", "1000");
            let mut source = all(&machine);
            machine.file(ENERGY, text);
            let access = channels(&machine.sys()).unwrap()[0].access.clone();
            assert_eq!(matches!(access, Access::Broken { .. }), broken, "{text}");
            assert_eq!(source.sample(at_ms(0)).is_err(), broken, "{text}");
        }
        let machine = Machine::bare();
        machine.channel("hwmon0", "scmi_sensors", "energy1", "socket", "1000");
        let mut source = all(&machine);
        machine.deny(ENERGY);
        let access = channels(&machine.sys()).unwrap()[0].access.clone();
        assert!(matches!(access, Access::Denied { .. }));
        let refused = source.sample(at_ms(0));
        assert!(matches!(refused, Err(Error::Denied { .. })));
    }

    /// Every hwmon directory below this one.
    fn chips(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let number = name.strip_prefix("hwmon");
                if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
                    found.push(path.clone());
                }
                found.extend(chips(&path));
            }
        }
        found
    }

    #[test]
    fn the_collection_s_sensors_have_no_energy_channel() {
        let Some(collection) = collection() else {
            return; // the first test has such chips too
        };
        let machine = Machine::bare();
        let chips = chips(&collection);
        assert_eq!(chips.len(), 13);
        for (number, chip) in chips.iter().enumerate() {
            machine.link(&format!("{CLASS}/hwmon{number}"), chip);
        }
        assert_eq!(channels(&machine.sys()).unwrap(), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_file_name_or_content_panics(
            files in prop::collection::vec(
                ("(energy|power|temp)?[0-9]{0,3}(_input|_label|_cap)?x?", "[ -~]{0,20}"), 0..6,
            ),
        ) {
            let machine = Machine::bare();
            for (file, text) in files.iter().filter(|(file, _)| !file.is_empty()) {
                machine.file(&format!("{CLASS}/hwmon0/{file}"), text);
            }
            let _ = all(&machine).sample(at_ms(0));
        }
    }
}
