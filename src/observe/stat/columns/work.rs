//! Columns of places, clocks and events.

use super::super::view::{Row, RowKind, Value, View};
use super::{
    ALL, CPUS, Column, MHZ, PACKAGES, PERCENT, SYSTEM, Shown, Source, column, files, mhz, percent,
    perf,
};
use crate::energy::activity::{CpuInterval, Feed};
use num_traits::ToPrimitive;

pub(super) const PLACES: &[Column] = &[
    column(
        "usec",
        "µs",
        SYSTEM,
        Source::Time,
        "time that collecting the interval's figures took",
        |view, row| match row.kind {
            RowKind::System => Value::Count(view.interval.looking.get() / 1000),
            _ => Value::Unknown,
        },
    )
    .shown(Shown::Asked),
    column(
        "Time_Of_Day_Seconds",
        "s",
        ALL,
        Source::Time,
        "seconds since 1970 at the interval's end; always in csv and json",
        |view, _| Value::real(Some(view.time_of_day), 6),
    )
    .shown(Shown::Asked),
    column(
        "Package",
        "",
        "package, cluster, CPU",
        Source::Place,
        "number of the package",
        |view, row| Value::index(view.common(row, |cpu| cpu.package)),
    ),
    column(
        "Die",
        "",
        "package, cluster, CPU",
        Source::Place,
        "number of the die in its package",
        |view, row| Value::index(view.common(row, |cpu| cpu.die)),
    )
    .shown(Shown::Asked),
    column(
        "Node",
        "",
        "package, cluster, CPU",
        Source::Place,
        "number of the memory node",
        |view, row| Value::index(view.common(row, |cpu| cpu.node)),
    )
    .shown(Shown::Asked),
    column(
        "L3",
        "",
        "package, cluster, CPU",
        Source::Place,
        "number of the level 3 cache",
        |view, row| Value::index(view.common(row, |cpu| cpu.l3)),
    )
    .shown(Shown::Asked),
    column(
        "Cluster",
        "",
        "cluster, CPU",
        Source::Place,
        "number of the group that the scheduler places by: CPUs of one class under one cache",
        |view, row| Value::index(view.common(row, |cpu| cpu.cluster)),
    ),
    column(
        "Core",
        "",
        CPUS,
        Source::Place,
        "number of the core in its package",
        |view, row| match row.kind {
            RowKind::Cpu(_) => Value::index(view.common(row, |cpu| cpu.core)),
            _ => Value::Unknown,
        },
    ),
    column(
        "CPU",
        "",
        CPUS,
        Source::Place,
        "the kernel's number of the CPU",
        |_, row| match row.kind {
            RowKind::Cpu(cpu) => Value::index(cpu.to_u32()),
            _ => Value::Unknown,
        },
    ),
    column(
        "APIC",
        "",
        CPUS,
        Source::Place,
        "the interrupt controller's number of the CPU (x86)",
        |view, row| match row.kind {
            RowKind::Cpu(_) => Value::index(view.common(row, |cpu| cpu.apic)),
            _ => Value::Unknown,
        },
    )
    .shown(Shown::Asked),
];

pub(super) const CLOCKS: &[Column] = &[
    column(
        "Avg_MHz",
        MHZ,
        ALL,
        perf(Feed::Clock, "aperf"),
        "cycles run per time, idle time included",
        |view, row| mhz(view.mean(row, |cpu| cpu.average_hz)),
    ),
    column(
        "Busy%",
        PERCENT,
        ALL,
        files(Feed::Ticks),
        "time not idle: by mperf where there is one, else by /proc/stat",
        |view, row| percent(view.mean(row, |cpu| cpu.busy)),
    ),
    column(
        "Bzy_MHz",
        MHZ,
        ALL,
        perf(Feed::Clock, "aperf"),
        "clock while not idle",
        |view, row| {
            // Of a group: its cycles over its busy time.
            let average = view.mean(row, |cpu| cpu.average_hz);
            let busy = view.mean(row, |cpu| cpu.busy).filter(|busy| *busy > 0.0);
            let one = match row.kind {
                RowKind::Cpu(_) => view.mean(row, |cpu| cpu.busy_hz),
                _ => average.zip(busy).map(|(average, busy)| average / busy),
            };
            mhz(one)
        },
    ),
    column(
        "TSC_MHz",
        MHZ,
        ALL,
        perf(Feed::Clock, "tsc"),
        "rate of the time stamp counter; of a group the mean over the CPUs that were read",
        |view, row| mhz(view.mean_of_known(row, |cpu| cpu.tsc_hz)),
    ),
    column(
        "Clk_MHz",
        MHZ,
        ALL,
        files(Feed::Frequency),
        "cpufreq's clock at the interval's end; of a group the mean",
        |view, row| mhz(view.mean(row, |cpu| Some(cpu.frequency?.get().to_f64()? * 1000.0))),
    ),
    column(
        "UncMHz",
        MHZ,
        PACKAGES,
        files(Feed::Uncore),
        "clock of the package's fastest uncore domain at the interval's end",
        |view, row| {
            mhz(view.over_packages(row, |package| {
                Some(package.uncore?.get().to_f64()? * 1000.0)
            }))
        },
    ),
];

pub(super) const EVENTS: &[Column] = &[
    column(
        "IPC",
        "instructions per cycle",
        ALL,
        perf(Feed::Work, "instructions"),
        "instructions retired per cycle; of a group over all CPUs that ran",
        |view, row| Value::real(ratio(view, row, |cpu| cpu.instructions.zip(cpu.cycles)), 2),
    ),
    column(
        "LLCkRPS",
        "thousands per second",
        ALL,
        perf(Feed::Cache, "references"),
        "references to the last-level cache",
        |view, row| {
            let sum = view.sum(row, |cpu| match (cpu.cache, cpu.parked) {
                (Some((references, _)), _) => Some(references),
                (None, parked) => parked.then_some(0),
            });
            let rate = sum
                .and_then(|sum| sum.to_f64())
                .map(|sum| sum / view.seconds() / 1e3);
            Value::real(rate, 0)
        },
    ),
    column(
        "LLC%hit",
        PERCENT,
        ALL,
        perf(Feed::Cache, "misses"),
        "references to the last-level cache that were no miss",
        |view, row| {
            let misses = ratio(view, row, |cpu| {
                cpu.cache.map(|(all, misses)| (misses, all))
            });
            percent(misses.map(|misses| (1.0 - misses).clamp(0.0, 1.0)))
        },
    ),
    column(
        "IRQ",
        "",
        ALL,
        files(Feed::Interrupts),
        "interrupts",
        |view, row| Value::count(view.sum(row, |cpu| cpu.interrupts)),
    ),
    column(
        "NMI",
        "",
        ALL,
        files(Feed::Interrupts),
        "interrupts that cannot be masked (x86)",
        |view, row| Value::count(view.sum(row, |cpu| cpu.nmis)),
    ),
    column(
        "SMI",
        "",
        ALL,
        perf(Feed::Clock, "smi"),
        "system management interrupts, told when the CPU is next read; of a group of CPUs the most",
        |view, row| Value::count(view.most(row, |cpu| cpu.smis)),
    ),
    column(
        "RqDly_us",
        "µs",
        ALL,
        files(Feed::RunDelay),
        "mean time that a task waited to run, under any scheduler",
        |view, row| {
            let mean = ratio(view, row, |cpu| {
                cpu.run_delay.map(|(delay, ran)| (delay.get(), ran))
            });
            Value::real(mean.map(|ns| ns / 1e3), 1)
        },
    ),
];

/// Sum of the ones over sum of the others, over those CPUs that tell both.
fn ratio(view: &View, row: &Row, of: impl Fn(&CpuInterval) -> Option<(u64, u64)>) -> Option<f64> {
    let known = view.cpus(row).filter_map(|(_, cpu)| of(cpu?));
    let (one, other) = known.fold((0_u64, 0_u64), |sum, pair| {
        (sum.0.saturating_add(pair.0), sum.1.saturating_add(pair.1))
    });
    (other > 0).then_some(one.to_f64()? / other.to_f64()?)
}
