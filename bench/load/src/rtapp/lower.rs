//! From a file as it is written to a workload that makes sense.

use super::body::{
    Body, GROUP_PATH, GroupBody, LoopCount, PolicyName, RawEvent, RawMode, RingBody, is_group_path,
};
use super::number::{CalibrationField, Int};
use super::{File, Global, Named};
use crate::clock::SECOND_NS;
use crate::work::WorkUnits;
use crate::workload::{
    Event, FairPolicy, Kind, Loops, Phase, Policy, Ring, Script, Task, Taskgroup, TimerMode,
    Workload,
};
use std::collections::BTreeMap;

/// Threads of one workload.
const MAX_THREADS: usize = 4096;

/// What makes no sense, and where.
#[derive(Debug)]
pub struct Fault {
    /// The way to the field.
    pub field: String,
    /// What was found and what would be right.
    pub reason: String,
    /// The quoted words on the way to it, to find the line.
    way: Vec<String>,
}

impl Fault {
    fn new(way: &[&str], reason: impl Into<String>) -> Self {
        Self {
            field: way.join("."),
            reason: reason.into(),
            way: way.iter().map(|&word| word.to_owned()).collect(),
        }
    }

    /// The line on which the last of its keys begins: each is looked for after the one before.
    pub fn line_in(&self, json: &str) -> usize {
        let mut at = 0;
        for word in &self.way {
            let quoted = format!("\"{word}\"");
            let Some(found) = json.get(at..).and_then(|rest| rest.find(&quoted)) else {
                break;
            };
            at += found;
        }
        1 + json
            .get(..at)
            .map_or(0, |before| before.matches('\n').count())
    }
}

/// Checks what the grammar alone cannot and resolves names.
pub fn workload(file: File, intent: Option<String>) -> Result<Workload, Fault> {
    let names: Vec<String> = file.tasks.0.iter().map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        return Err(Fault::new(&["tasks"], "there is no task, name one or more"));
    }
    let mut ignored = ignored(&file.global);
    if file.resources.is_some() {
        ignored.push("resources");
    }
    let default_policy = file.global.default_policy;
    let tasks = file
        .tasks
        .0
        .into_iter()
        .map(|(name, body)| task(&name, body, default_policy, &names))
        .collect::<Result<Vec<_>, _>>()?;
    check_resumes(&tasks)?;
    let taskgroups = taskgroups(&tasks, &file.global.taskgroups)?;
    let workload = Workload {
        intent,
        ignored,
        duration_ns: file
            .global
            .duration
            .filter(|secs| secs.0 > 0)
            .map(|secs| secs.size() * SECOND_NS),
        calibration_cpu: match file.global.calibration {
            Some(CalibrationField::Cpu(cpu)) => Some(cpu),
            Some(CalibrationField::ForRtApp) | None => None,
        },
        taskgroups,
        tasks,
    };
    match workload.threads() {
        0 => Err(Fault::new(
            &["tasks"],
            "every task has 0 instances, give one of them 1 or more",
        )),
        1..=MAX_THREADS => Ok(workload),
        many => Err(Fault::new(
            &["tasks"],
            format!("{many} threads are too many, at most {MAX_THREADS}"),
        )),
    }
}

fn ignored(global: &Global) -> Vec<&'static str> {
    let mut ignored: Vec<&'static str> = [
        ("logdir", &global.logdir),
        ("log_basename", &global.log_basename),
        ("log_size", &global.log_size),
        ("ftrace", &global.ftrace),
        ("gnuplot", &global.gnuplot),
        ("lock_pages", &global.lock_pages),
        ("frag", &global.frag),
        ("pi_enabled", &global.pi_enabled),
        ("cumulative_slack", &global.cumulative_slack),
        ("io_device", &global.io_device),
        ("mem_buffer_size", &global.mem_buffer_size),
    ]
    .into_iter()
    .filter_map(|(name, value)| value.is_some().then_some(name))
    .collect();
    if global.calibration == Some(CalibrationField::ForRtApp) {
        ignored.push("calibration (it is for rt-app's own loop)");
    }
    ignored
}

/// Every group on the way to a task's, with its weight; sorted, so that outer ones come first.
fn taskgroups(tasks: &[Task], weights: &Named<GroupBody>) -> Result<Vec<Taskgroup>, Fault> {
    let mut groups = BTreeMap::new();
    for path in tasks.iter().filter_map(|task| task.taskgroup.as_deref()) {
        let outer = path.match_indices('/').skip(1);
        groups.extend(outer.filter_map(|(at, _)| Some((path.get(..at)?, None))));
        groups.insert(path, None);
    }
    for (path, body) in &weights.0 {
        let fault = |reason| Fault::new(&["global", "taskgroups", path], reason);
        if !is_group_path(path) {
            return Err(fault(format!("is no cgroup, expected {GROUP_PATH}")));
        }
        let weight = groups
            .get_mut(path.as_str())
            .ok_or_else(|| fault("no task is in it, give one this taskgroup".to_owned()))?;
        *weight = u32::try_from(body.weight.0).ok();
    }
    let groups = groups.into_iter().map(|(path, weight)| Taskgroup {
        path: path.to_owned(),
        weight,
    });
    Ok(groups.collect())
}

/// A resume nobody can receive would never be noticed.
fn check_resumes(tasks: &[Task]) -> Result<(), Fault> {
    let events = |task: &Task| -> Vec<Event> {
        match &task.kind {
            Kind::Script(script) => script
                .phases
                .iter()
                .flat_map(|phase| phase.events.clone())
                .collect(),
            Kind::Ring(_) => Vec::new(),
        }
    };
    for task in tasks {
        for event in events(task) {
            let Event::Resume(target) = event else {
                continue;
            };
            let Some(target) = tasks.get(target) else {
                continue;
            };
            if !events(target).contains(&Event::Suspend) {
                let reason = format!("'{}' never suspends, give it a suspend event", target.name);
                return Err(Fault::new(&["tasks", &task.name, "resume"], reason));
            }
        }
    }
    Ok(())
}

fn task(
    name: &str,
    mut body: Body,
    default: Option<PolicyName>,
    names: &[String],
) -> Result<Task, Fault> {
    let way = ["tasks", name];
    let policy = policy(&way, &body, default)?;
    let common = (
        body.instance.map_or(1, Int::count),
        micros(body.delay),
        cpus(&way, body.cpus.as_deref())?,
        body.taskgroup
            .take()
            .map(|group| group.0)
            .filter(|path| !path.is_empty()),
    );
    let kind = if let Some(ring) = body.ring.take() {
        if body.phases.is_some()
            || !body.events.is_empty()
            || body.deadline.is_some()
            || body.jitter_pct.is_some()
        {
            return Err(Fault::new(
                &["tasks", name, "ring"],
                "a ring has no phases, events, deadline or jitter of its own",
            ));
        }
        Kind::Ring(self::ring(&ring, loops(body.loops, Loops::Forever)))
    } else {
        Kind::Script(script(name, body, names)?)
    };
    let (instances, delay_ns, cpus, taskgroup) = common;
    Ok(Task {
        name: name.to_owned(),
        instances,
        policy,
        cpus,
        taskgroup,
        delay_ns,
        kind,
    })
}

fn ring(body: &RingBody, loops: Loops) -> Ring {
    Ring {
        members: body.members.count(),
        messages: body.messages.count(),
        work: WorkUnits::from_us(body.work.size()),
        period_ns: body.period.map(|period| period.size() * 1_000),
        loops,
    }
}

fn policy(way: &[&str], body: &Body, default: Option<PolicyName>) -> Result<Option<Policy>, Fault> {
    let fault = |key: &str, reason: &str| Err(Fault::new(&[way, &[key]].concat(), reason));
    let name = match body.policy.or(default) {
        Some(name) => name,
        None if body.priority.is_none() && body.nice.is_none() => return Ok(None),
        None => PolicyName::Other,
    };
    let fair = match name {
        PolicyName::Other => FairPolicy::Other,
        PolicyName::Batch => FairPolicy::Batch,
        PolicyName::Idle => FairPolicy::Idle,
        PolicyName::Ext => FairPolicy::Ext,
        PolicyName::Fifo | PolicyName::RoundRobin => {
            if body.nice.is_some() {
                return fault(
                    "nice",
                    "a real-time policy has no nice value, give a priority from 1 to 99",
                );
            }
            // rt-app's default.
            let priority = body.priority.map_or(10, |priority| priority.0);
            return match (i32::try_from(priority), name) {
                (Ok(priority @ 1..=99), PolicyName::Fifo) => Ok(Some(Policy::Fifo(priority))),
                (Ok(priority @ 1..=99), _) => Ok(Some(Policy::RoundRobin(priority))),
                _ => fault("priority", "a real-time policy has priorities from 1 to 99"),
            };
        }
    };
    let nice = match (body.priority, body.nice) {
        (Some(_), Some(_)) => {
            return fault(
                "nice",
                "priority is given too and here means the same, give one",
            );
        }
        (Some(priority), None) => priority.0,
        (None, nice) => nice.map_or(0, |nice| nice.0),
    };
    match i32::try_from(nice) {
        Ok(nice @ -20..=19) => Ok(Some(Policy::Fair(fair, nice))),
        _ => fault(
            "priority",
            "under this policy it is a nice value, from -20 to 19",
        ),
    }
}

fn cpus(way: &[&str], list: Option<&[Int<0, 1023>]>) -> Result<Option<Vec<usize>>, Fault> {
    match list {
        Some([]) => Err(Fault::new(
            &[way, &["cpus"]].concat(),
            "the list is empty, name one CPU or more",
        )),
        list => Ok(list.map(|list| list.iter().map(|cpu| cpu.count()).collect())),
    }
}

fn loops(count: Option<LoopCount>, default: Loops) -> Loops {
    match count {
        None => default,
        Some(count) if count.0 < 0 => Loops::Forever,
        Some(count) => Loops::Times(count.size()),
    }
}

fn micros<const MIN: i64, const MAX: i64>(value: Option<Int<MIN, MAX>>) -> u64 {
    value.map_or(0, |value| value.size() * 1_000)
}

/// What a phase takes from its task where it does not say it itself.
struct Inherited {
    jitter_pct: u32,
    deadline_ns: Option<u64>,
}

fn script(name: &str, mut body: Body, names: &[String]) -> Result<Script, Fault> {
    let task_loops = loops(body.loops, Loops::Forever);
    let mut timers = Vec::new();
    let mut context = Context {
        names,
        timers: &mut timers,
    };
    let phases = match body.phases.take() {
        None => {
            let inherited = Inherited {
                jitter_pct: 0,
                deadline_ns: None,
            };
            // The task's own count says how often, and its CPUs are the task's.
            body.loops = None;
            body.cpus = None;
            vec![context.phase(&["tasks", name], name, body, &inherited)?]
        }
        Some(_) if !body.events.is_empty() => {
            return Err(Fault::new(
                &["tasks", name],
                "has phases and events of its own, put the events into a phase",
            ));
        }
        Some(phases) if phases.0.is_empty() => {
            return Err(Fault::new(
                &["tasks", name, "phases"],
                "there is no phase, name one or more",
            ));
        }
        Some(phases) => {
            let inherited = Inherited {
                jitter_pct: jitter(body.jitter_pct).unwrap_or(0),
                deadline_ns: body.deadline.map(|deadline| deadline.size() * 1_000),
            };
            let mut lowered = Vec::with_capacity(phases.0.len());
            for (phase_name, phase) in phases.0 {
                let way = ["tasks", name, "phases", &phase_name];
                only_for_tasks(&way, &phase)?;
                lowered.push(context.phase(&way, &phase_name, phase, &inherited)?);
            }
            lowered
        }
    };
    Ok(Script {
        loops: task_loops,
        phases,
        timers: timers.len(),
    })
}

fn only_for_tasks(way: &[&str], phase: &Body) -> Result<(), Fault> {
    let misplaced = [
        ("instance", phase.instance.is_some()),
        ("delay", phase.delay.is_some()),
        ("policy", phase.policy.is_some()),
        ("priority", phase.priority.is_some()),
        ("nice", phase.nice.is_some()),
        ("phases", phase.phases.is_some()),
        ("ring", phase.ring.is_some()),
        ("taskgroup", phase.taskgroup.is_some()),
    ];
    match misplaced.into_iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(Fault::new(
            &[way, &[key]].concat(),
            "belongs to the task, not to one of its phases",
        )),
        None => Ok(()),
    }
}

fn jitter(value: Option<Int<0, 100>>) -> Option<u32> {
    value.and_then(|pct| u32::try_from(pct.0).ok())
}

/// What the events of a task refer to.
struct Context<'a> {
    names: &'a [String],
    /// Timers of the task by order of appearance.
    timers: &'a mut Vec<String>,
}

impl Context<'_> {
    fn phase(
        &mut self,
        way: &[&str],
        name: &str,
        body: Body,
        inherited: &Inherited,
    ) -> Result<Phase, Fault> {
        if body.events.is_empty() {
            return Err(Fault::new(
                way,
                "nothing happens in it, add an event such as run, sleep or timer",
            ));
        }
        let period_ns = body.events.iter().find_map(|event| match event {
            RawEvent::Timer(timer) => Some(timer.period.size() * 1_000),
            _ => None,
        });
        let cpus = cpus(way, body.cpus.as_deref())?;
        let events = body
            .events
            .into_iter()
            .map(|event| self.event(way, event, period_ns))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Phase {
            name: name.to_owned(),
            loops: loops(body.loops, Loops::Times(1)),
            cpus,
            jitter_pct: jitter(body.jitter_pct).unwrap_or(inherited.jitter_pct),
            deadline_ns: body
                .deadline
                .map(|deadline| deadline.size() * 1_000)
                .or(inherited.deadline_ns),
            events,
        })
    }

    fn event(
        &mut self,
        way: &[&str],
        event: RawEvent,
        period_ns: Option<u64>,
    ) -> Result<Event, Fault> {
        let fault = |key: &str, reason: String| Fault::new(&[way, &[key]].concat(), reason);
        Ok(match event {
            RawEvent::Run(us) => Event::Run(WorkUnits::from_us(us.size())),
            RawEvent::LoadPct(share) => {
                let period_ns = period_ns.ok_or_else(|| {
                    fault(
                        "load_pct",
                        "is a share of a period, and no timer event gives one".to_owned(),
                    )
                })?;
                Event::Run(WorkUnits(share.of_ns(period_ns)))
            }
            RawEvent::Runtime(us) => Event::Runtime(us.size() * 1_000),
            RawEvent::Sleep(us) => Event::Sleep(us.size() * 1_000),
            RawEvent::Timer(raw) => Event::Timer {
                timer: self.timer(raw.name),
                period_ns: raw.period.size() * 1_000,
                mode: match raw.mode {
                    RawMode::Relative => TimerMode::Relative,
                    RawMode::Absolute => TimerMode::Absolute,
                },
            },
            RawEvent::Yield => Event::Yield,
            RawEvent::Suspend => Event::Suspend,
            RawEvent::Resume(target) => {
                let index = self
                    .names
                    .iter()
                    .position(|name| *name == target)
                    .ok_or_else(|| {
                        fault(
                            "resume",
                            format!(
                                "'{target}' is no task of this file; there are {}",
                                self.names.join(", ")
                            ),
                        )
                    })?;
                Event::Resume(index)
            }
        })
    }

    fn timer(&mut self, name: String) -> usize {
        self.timers
            .iter()
            .position(|known| *known == name)
            .unwrap_or_else(|| {
                self.timers.push(name);
                self.timers.len() - 1
            })
    }
}
