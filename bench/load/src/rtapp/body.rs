//! A task or phase as it is written: settings in any order, events in theirs.

use super::number::{Int, LoadPct};
use super::{MAX_US, Named};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Unexpected, Visitor};
use std::fmt;

/// A duration in µs.
pub type Micros = Int<0, MAX_US>;
/// A repetition count; −1 is for ever.
pub type LoopCount = Int<-1, 1_000_000_000_000>;

/// What a task or phase may hold. Whether it may hold it there is checked later.
#[derive(Debug, Default)]
pub struct Body {
    pub instance: Option<Int<0, 4096>>,
    pub delay: Option<Micros>,
    pub policy: Option<PolicyName>,
    pub priority: Option<Int<-20, 99>>,
    pub nice: Option<Int<-20, 19>>,
    pub phases: Option<Named<Body>>,
    pub ring: Option<RingBody>,
    pub loops: Option<LoopCount>,
    pub cpus: Option<Vec<Int<0, 1023>>>,
    pub taskgroup: Option<GroupPath>,
    pub jitter_pct: Option<Int<0, 100>>,
    pub deadline: Option<Int<1, MAX_US>>,
    pub events: Vec<RawEvent>,
}

/// The keys of settings, for messages.
const SETTINGS: &[&str] = &[
    "instance",
    "delay",
    "policy",
    "priority",
    "nice",
    "phases",
    "ring",
    "loop",
    "cpus",
    "taskgroup",
    "jitter_pct",
    "deadline",
    "run",
    "load_pct",
    "runtime",
    "sleep",
    "timer",
    "yield",
    "suspend",
    "resume",
];

/// An event as it is written.
#[derive(Debug)]
pub enum RawEvent {
    Run(Micros),
    LoadPct(LoadPct),
    Runtime(Micros),
    Sleep(Micros),
    Timer(RawTimer),
    Yield,
    Suspend,
    Resume(String),
}

/// A timer event as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTimer {
    #[serde(rename = "ref")]
    pub name: String,
    pub period: Int<1, MAX_US>,
    #[serde(default)]
    pub mode: RawMode,
}

/// A timer's mode as it is written.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawMode {
    #[default]
    Relative,
    Absolute,
}

/// `ring` as it is written. 512 messages of 8 bytes fit the smallest pipe.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RingBody {
    pub members: Int<2, 1024>,
    pub messages: Int<1, 512>,
    pub work: Micros,
    pub period: Option<Int<1, MAX_US>>,
}

/// A scheduling class by rt-app's name.
#[derive(Debug, Clone, Copy, Deserialize)]
pub enum PolicyName {
    #[serde(rename = "SCHED_OTHER")]
    Other,
    #[serde(rename = "SCHED_BATCH")]
    Batch,
    #[serde(rename = "SCHED_IDLE")]
    Idle,
    #[serde(rename = "SCHED_EXT")]
    Ext,
    #[serde(rename = "SCHED_FIFO")]
    Fifo,
    #[serde(rename = "SCHED_RR")]
    RoundRobin,
}

/// A cgroup as `taskgroup` names it; empty, as in rt-app, for none.
#[derive(Debug)]
pub struct GroupPath(pub String);

/// What a cgroup's name must be.
pub const GROUP_PATH: &str = "a path such as \"/name\" or \"/outer/name\"";
/// Longest name of a file, from the kernel's uapi/linux/limits.h.
const NAME_MAX: usize = 255;

/// Whether this names a cgroup below another.
pub fn is_group_path(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|path| {
        path.split('/').all(|name| {
            (1..=NAME_MAX).contains(&name.len())
                && ![".", ".."].contains(&name)
                && !name.contains(char::is_control)
        })
    })
}

impl<'de> Deserialize<'de> for GroupPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Path;
        impl Visitor<'_> for Path {
            type Value = GroupPath;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(GROUP_PATH)
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<GroupPath, E> {
                if path.is_empty() || is_group_path(path) {
                    Ok(GroupPath(path.to_owned()))
                } else {
                    Err(E::invalid_value(Unexpected::Str(path), &self))
                }
            }
        }
        deserializer.deserialize_str(Path)
    }
}

/// `taskgroups` of a cgroup as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupBody {
    pub weight: Int<1, 10_000>,
}

/// What an event's key stands for once its suffix is gone.
fn event_of(key: &str) -> Option<&'static str> {
    // Longer names first: "runtime" is no "run" with a suffix.
    const EVENTS: [&str; 8] = [
        "runtime", "run", "load_pct", "sleep", "timer", "yield", "suspend", "resume",
    ];
    EVENTS.into_iter().find(|event| {
        // A suffix begins with a digit or a sign, so that misspelt words stay errors.
        key.strip_prefix(event)
            .is_some_and(|suffix| !suffix.starts_with(|c: char| c.is_alphabetic()))
    })
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of settings and events")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut body = Body::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "instance" => set(&mut body.instance, "instance", &mut map)?,
                "delay" => set(&mut body.delay, "delay", &mut map)?,
                "policy" => set(&mut body.policy, "policy", &mut map)?,
                "priority" => set(&mut body.priority, "priority", &mut map)?,
                "nice" => set(&mut body.nice, "nice", &mut map)?,
                "phases" => set(&mut body.phases, "phases", &mut map)?,
                "ring" => set(&mut body.ring, "ring", &mut map)?,
                "loop" => set(&mut body.loops, "loop", &mut map)?,
                "cpus" => set(&mut body.cpus, "cpus", &mut map)?,
                "taskgroup" => set(&mut body.taskgroup, "taskgroup", &mut map)?,
                "jitter_pct" => set(&mut body.jitter_pct, "jitter_pct", &mut map)?,
                "deadline" => set(&mut body.deadline, "deadline", &mut map)?,
                _ => body.events.push(event(&key, &mut map)?),
            }
        }
        Ok(body)
    }
}

fn set<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    name: &'static str,
    map: &mut A,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *slot = Some(map.next_value()?);
    Ok(())
}

fn event<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<RawEvent, A::Error> {
    Ok(match event_of(key) {
        Some("run") => RawEvent::Run(map.next_value()?),
        Some("load_pct") => RawEvent::LoadPct(map.next_value()?),
        Some("runtime") => RawEvent::Runtime(map.next_value()?),
        Some("sleep") => RawEvent::Sleep(map.next_value()?),
        Some("timer") => RawEvent::Timer(map.next_value()?),
        Some("resume") => RawEvent::Resume(map.next_value()?),
        Some("yield") => {
            map.next_value::<IgnoredAny>()?;
            RawEvent::Yield
        }
        Some("suspend") => {
            map.next_value::<IgnoredAny>()?;
            RawEvent::Suspend
        }
        _ => return Err(A::Error::unknown_field(key, SETTINGS)),
    })
}
