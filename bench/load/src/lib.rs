//! Runs workloads written in rt-app's JSON and reports how each job fared.
//!
//! `rtapp` reads a file into a `workload`; `run` creates its threads, each of
//! which a `player` leads through its events; work itself is done by whatever
//! implements [`work::Work`]: a calibrated loop on a real machine, virtual work
//! in the lab; `taskgroup` sets up the cgroups they run in. `stats` and `report` tell what came of it.

pub mod cli;
pub mod clock;
pub mod draws;
pub mod loop_work;
pub mod meter;
pub mod player;
pub mod report;
pub mod rtapp;
pub mod run;
pub mod source;
pub mod stats;
pub mod taskgroup;
pub mod virtual_work;
pub mod vsoc;
pub mod work;
pub mod workload;
pub mod world;
