//! Columns of idle states, of what sleeps beside the CPUs, and of heat.

use super::super::view::{Row, RowKind, Value, View};
use super::{
    ALL, CELSIUS, Column, MHZ, PACKAGES, PERCENT, SYSTEM, column, each_state, files, percent, perf,
};
use crate::energy::activity::{CpuInterval, Feed};

macro_rules! core_idle {
    ($name:literal, $state:literal) => {
        column(
            $name,
            PERCENT,
            ALL,
            perf(Feed::CoreIdle, $state),
            concat!("time of the core in hardware state ", $state),
            |view, row| core_part(view, row, |cpu| cpu.core_idle.get($state).copied()),
        )
    };
}

macro_rules! package_idle {
    ($name:literal, $state:literal) => {
        column(
            $name,
            PERCENT,
            PACKAGES,
            perf(Feed::PackageIdle, $state),
            concat!("time of the package in hardware state p", $state),
            |view, row| {
                percent(view.over_packages(row, |package| package.idle.get($state).copied()))
            },
        )
    };
}

pub(super) const IDLE: &[Column] = &[
    each_state(
        "<state>",
        "",
        "times that the idle state was entered",
        |view, row, state| Value::count(view.sum(row, |cpu| Some(cpu.states.get(state)?.usage))),
    ),
    each_state(
        "<state>-",
        "",
        "stays that were too short for the idle state",
        |view, row, state| Value::count(view.sum(row, |cpu| cpu.states.get(state)?.above)),
    ),
    each_state(
        "<state>+",
        "",
        "stays that were long enough for a deeper idle state",
        |view, row, state| Value::count(view.sum(row, |cpu| cpu.states.get(state)?.below)),
    ),
    each_state(
        "<state>%",
        PERCENT,
        "time in the idle state by stays that ended; unknown where one began before the interval",
        |view, row, state| percent(view.mean(row, |cpu| cpu.states.get(state)?.part)),
    ),
    column(
        "CPU%c1",
        PERCENT,
        ALL,
        perf(Feed::CoreIdle, ""),
        "time in hardware state c1: counted where the core counts it, else what busy time and deeper states leave",
        |view, row| percent(view.mean_by(row, |id, cpu| view.c1(id, cpu))),
    ),
    core_idle!("CPU%c3", "c3"),
    core_idle!("CPU%c6", "c6"),
    core_idle!("CPU%c7", "c7"),
    column(
        "Mod%c6",
        PERCENT,
        ALL,
        perf(Feed::ModuleIdle, "c6"),
        "time of the module of cores in hardware state c6, on the CPU that answers for it",
        |view, row| percent(view.mean_of_known(row, |cpu| cpu.module_idle.get("c6").copied())),
    ),
    package_idle!("Pkg%pc2", "c2"),
    package_idle!("Pkg%pc3", "c3"),
    package_idle!("Pkg%pc6", "c6"),
    package_idle!("Pkg%pc7", "c7"),
    package_idle!("Pkg%pc8", "c8"),
    package_idle!("Pkg%pc9", "c9"),
    package_idle!("Pk%pc10", "c10"),
    column(
        "CPU%LPI",
        PERCENT,
        SYSTEM,
        files(Feed::LowPower),
        "time of the CPUs in the platform's low power idle",
        |view, row| percent(view.of_system(row, |interval| interval.low_power[0])),
    ),
    column(
        "SYS%LPI",
        PERCENT,
        SYSTEM,
        files(Feed::LowPower),
        "time of the system in low power idle",
        |view, row| percent(view.of_system(row, |interval| interval.low_power[1])),
    ),
    column(
        "GFX%rc6",
        PERCENT,
        SYSTEM,
        files(Feed::Graphics),
        "time of the graphics' render unit in standby",
        |view, row| percent(view.of_system(row, |interval| interval.graphics_asleep[0])),
    ),
    column(
        "GFXMHz",
        MHZ,
        SYSTEM,
        files(Feed::Graphics),
        "clock that the render unit is asked for, at the interval's end",
        |view, row| Value::count(view.of_system(row, |it| it.graphics[0].wanted_mhz)),
    ),
    column(
        "GFXAMHz",
        MHZ,
        SYSTEM,
        files(Feed::Graphics),
        "clock of the render unit at the interval's end",
        |view, row| Value::count(view.of_system(row, |it| it.graphics[0].actual_mhz)),
    ),
    column(
        "SAM%mc6",
        PERCENT,
        SYSTEM,
        files(Feed::Graphics),
        "time of the media unit in standby",
        |view, row| percent(view.of_system(row, |interval| interval.graphics_asleep[1])),
    ),
    column(
        "SAMMHz",
        MHZ,
        SYSTEM,
        files(Feed::Graphics),
        "clock that the media unit is asked for, at the interval's end",
        |view, row| Value::count(view.of_system(row, |it| it.graphics[1].wanted_mhz)),
    ),
    column(
        "SAMAMHz",
        MHZ,
        SYSTEM,
        files(Feed::Graphics),
        "clock of the media unit at the interval's end",
        |view, row| Value::count(view.of_system(row, |it| it.graphics[1].actual_mhz)),
    ),
];

pub(super) const THERMAL: &[Column] = &[
    column(
        "CoreTmp",
        CELSIUS,
        ALL,
        files(Feed::Temperature),
        "temperature of the core at the interval's end; of a group the highest that was read",
        |view, row| Value::real(view.highest(row, |cpu| cpu.celsius), 0),
    ),
    column(
        "CoreThr",
        "",
        ALL,
        files(Feed::Throttle),
        "times that the core was throttled for heat; of a group the most",
        |view, row| Value::count(view.most(row, |cpu| cpu.throttles)),
    ),
    column(
        "PkgTmp",
        CELSIUS,
        PACKAGES,
        files(Feed::Temperature),
        "temperature of the package at the interval's end; of the system the highest",
        |view, row| Value::real(view.hottest_package(row), 0),
    ),
];

/// A core's figure stands on the CPU that answers for the core; a group's is the mean over its cores, unknown
/// unless all are known.
fn core_part(view: &View, row: &Row, of: impl Fn(&CpuInterval) -> Option<f64>) -> Value {
    percent(match row.kind {
        RowKind::Cpu(_) => view.mean(row, of),
        _ => view.mean_over_cores(row, of),
    })
}
