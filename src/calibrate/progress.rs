//! How far a calibration is: one line that is rewritten on a terminal, else a line for each class.

use super::DISTURBED;
use super::plan::{IDLE_FIRST, Load, Step};
use crate::observation::Observation;
use num_traits::ToPrimitive;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Length of the bar in characters.
const BAR: usize = 24;

/// Where a calibration stands.
pub struct Progress {
    steps: usize,
    done: usize,
    visit: Duration,
    terminal: bool,
    class: Option<usize>,
    /// Idle visits so far, busy time and length of them, ns.
    idle: (usize, f64, f64),
}

impl Progress {
    pub fn new(steps: &[Step], visit: Duration) -> Self {
        let progress = Self {
            steps: steps.len(),
            done: 0,
            visit,
            terminal: std::io::stderr().is_terminal(),
            class: None,
            idle: (0, 0.0, 0.0),
        };
        let seconds = progress.left();
        eprintln!(
            "calibrating for about {seconds} s; leave the machine alone. Ctrl-C stops, and saves nothing"
        );
        progress
    }

    fn left(&self) -> u64 {
        let steps = u32::try_from(self.steps.saturating_sub(self.done)).unwrap_or(u32::MAX);
        self.visit.saturating_mul(steps).as_secs()
    }

    pub fn show(&mut self, step: &Step) {
        let what = match step.loads.as_slice() {
            [] => "idle".to_owned(),
            loads => loads.iter().map(name).collect::<Vec<_>>().join(" and "),
        };
        if self.terminal {
            let full = BAR * self.done / self.steps.max(1);
            let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full.min(BAR)));
            eprint!("\r[{bar}] {:3} s left: {what:60}", self.left());
            // Progress that cannot be shown is no reason to stop.
            let _ = std::io::stderr().flush();
        } else if let Some(load) = step.loads.first()
            && self.class != Some(load.class)
        {
            eprintln!("{what} ...; {} s left", self.left());
            self.class = Some(load.class);
        }
        self.done += 1;
    }

    /// Warns, once, when the machine was not idle over the first visits for which nothing was started.
    pub fn idle(&mut self, observation: &Observation) {
        let busy = observation.classes.iter().flat_map(|class| &class.busy);
        let busy: u64 = busy.map(|time| time.get()).sum();
        let (visits, sum, length) = &mut self.idle;
        *visits += 1;
        *sum += busy.to_f64().unwrap_or(0.0);
        *length += observation.duration.get().to_f64().unwrap_or(0.0);
        let share = *sum / *length;
        if *visits == IDLE_FIRST && share > DISTURBED {
            self.line();
            eprintln!(
                "something else keeps {share:.2} CPUs busy; what is measured will be less sure"
            );
        }
    }

    fn line(&self) {
        if self.terminal {
            eprintln!();
        }
    }

    pub fn finish(&self) {
        self.line();
    }
}

fn name(load: &Load) -> String {
    let cpus = load.cpus.len();
    let plural = if cpus == 1 { "" } else { "s" };
    let clock = load.khz.map(|khz| format!(" at {} MHz", khz.get() / 1000));
    let clock = clock.unwrap_or_default();
    format!("class {}, {cpus} CPU{plural}{clock}", load.class)
}
