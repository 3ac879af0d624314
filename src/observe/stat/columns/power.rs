//! Columns of power and energy, and of the scheduler that spends it.

use super::super::energy::Meter;
use super::super::view::Value;
use super::{ALL, Column, PACKAGES, SYSTEM as SYSTEM_ROW, Shown, Source, column};

macro_rules! power {
    ($watts:literal, $joules:literal, $error:literal, $meter:ident, $rows:expr, $what:literal) => {
        [
            column(
                $watts,
                "W",
                $rows,
                Source::Meter(Meter::$meter),
                concat!("power of ", $what),
                |view, row| Value::real(view.energy(row, Meter::$meter).map(|it| it.watts), 2),
            )
            .shown(Shown::Watts),
            column(
                $joules,
                "J",
                $rows,
                Source::Meter(Meter::$meter),
                concat!("energy of ", $what),
                |view, row| Value::real(view.energy(row, Meter::$meter).map(|it| it.joules), 3),
            )
            .shown(Shown::Joules),
            column(
                $error,
                "J",
                $rows,
                Source::Meter(Meter::$meter),
                concat!(
                    "how far the energy of ",
                    $what,
                    " may be off, by the counter's refresh and resolution"
                ),
                |view, row| {
                    Value::real(view.energy(row, Meter::$meter).and_then(|it| it.error_j), 3)
                },
            )
            .shown(Shown::Joules),
        ]
    };
}

pub(super) const PACKAGE: [Column; 3] = power!(
    "PkgWatt",
    "Pkg_J",
    "Pkg_J_err",
    Package,
    PACKAGES,
    "the package"
);
pub(super) const CORES: [Column; 3] =
    power!("CorWatt", "Cor_J", "Cor_J_err", Cores, ALL, "the cores");
pub(super) const GRAPHICS: [Column; 3] = power!(
    "GFXWatt",
    "GFX_J",
    "GFX_J_err",
    Gpu,
    PACKAGES,
    "the graphics in the package"
);
pub(super) const MEMORY: [Column; 3] = power!(
    "RAMWatt",
    "RAM_J",
    "RAM_J_err",
    Dram,
    PACKAGES,
    "the memory"
);
pub(super) const SYSTEM: [Column; 3] = power!(
    "SysWatt",
    "Sys_J",
    "Sys_J_err",
    Platform,
    SYSTEM_ROW,
    "the whole platform"
);

pub(super) const SCHEDULER: &[Column] = &[
    column(
        "MdlWatt",
        "W",
        "system, cluster",
        Source::Scheduler,
        "power that the scheduler's model expects: of the system the meter's, of a cluster above its deepest idle",
        |view, row| Value::real(view.modelled_w(row), 3),
    ),
    column(
        "RqDly50_us",
        "µs",
        SYSTEM_ROW,
        Source::Scheduler,
        "longest time that half of the tasks waited to run, to a factor of two",
        |view, row| Value::real(view.delay_us(row, 0.5), 1),
    ),
    column(
        "RqDly99_us",
        "µs",
        SYSTEM_ROW,
        Source::Scheduler,
        "longest time that 99 in 100 tasks waited to run, to a factor of two",
        |view, row| Value::real(view.delay_us(row, 0.99), 1),
    ),
    column(
        "Kicks",
        "",
        SYSTEM_ROW,
        Source::Scheduler,
        "idle CPUs woken by the scheduler for queued work",
        |view, row| Value::count(view.scheduler(row, |stats| stats.kicks)),
    ),
    column(
        "KickWst",
        "",
        SYSTEM_ROW,
        Source::Scheduler,
        "kicked CPUs that found nothing to run",
        |view, row| Value::count(view.scheduler(row, |stats| stats.kicks_wasted)),
    ),
    column(
        "Queued",
        "",
        SYSTEM_ROW,
        Source::Scheduler,
        "tasks that waited in one of the scheduler's queues",
        |view, row| Value::count(view.scheduler(row, |stats| stats.queued)),
    ),
    column(
        "Steered",
        "",
        SYSTEM_ROW,
        Source::Scheduler,
        "wake-ups that the prior's costs would have sent elsewhere",
        |view, row| Value::count(view.scheduler(row, |stats| stats.placed_steered)),
    ),
];
