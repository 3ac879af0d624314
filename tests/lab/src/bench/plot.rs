//! Energy against response times: a picture for each machine, with a panel for each workload.

use super::cell::{Cell, Verdict};
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const COLUMNS: usize = 4;
const PANEL: (u32, u32) = (330, 300);
/// Both axes: parts of the reference's. What lies beyond is drawn at the edge.
const RANGE: (f64, f64) = (0.25, 2.0);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes `lab-MACHINE.svg` for each machine.
///
/// # Errors
/// When a file cannot be written.
pub fn write(directory: &Path, cells: &[Cell<'_>]) -> Result<()> {
    for of_machine in cells.chunk_by(|one, next| one.machine == next.machine) {
        let Some(first) = of_machine.first() else {
            continue;
        };
        let path = directory.join(format!("lab-{}.svg", first.machine));
        let named = |error| anyhow!("{}: {error}", path.display());
        draw(&path, of_machine).map_err(named)?;
    }
    Ok(())
}

fn draw(path: &Path, cells: &[Cell<'_>]) -> Result<(), Box<dyn std::error::Error>> {
    let mut names: Vec<&str> = Vec::new();
    for standing in cells.iter().flat_map(|cell| &cell.standings) {
        if !names.contains(&standing.scheduler) {
            names.push(standing.scheduler);
        }
    }
    // one panel more for the legend
    let rows = (cells.len() + 1).div_ceil(COLUMNS);
    let height = PANEL.1 * u32::try_from(rows)?;
    let root =
        SVGBackend::new(path, (PANEL.0 * u32::try_from(COLUMNS)?, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((rows, COLUMNS));
    for (panel, cell) in panels.iter().zip(cells) {
        draw_cell(panel, cell, &names)?;
    }
    if let Some(panel) = panels.get(cells.len()) {
        draw_legend(panel, &names)?;
    }
    root.present()?;
    Ok(())
}

fn draw_cell(
    panel: &Area<'_>,
    cell: &Cell<'_>,
    names: &[&str],
) -> Result<(), Box<dyn std::error::Error>> {
    let range = RANGE.0..RANGE.1;
    let mut chart = ChartBuilder::on(panel)
        .margin(8)
        .caption(&cell.workload, ("sans-serif", 15))
        .x_label_area_size(30)
        .y_label_area_size(40)
        .build_cartesian_2d(range.clone(), range)?;
    chart
        .configure_mesh()
        .x_labels(5)
        .y_labels(5)
        .light_line_style(TRANSPARENT)
        .x_desc("energy")
        .y_desc("p99")
        .draw()?;
    let one = |line: [(f64, f64); 2]| LineSeries::new(line, BLACK.mix(0.4));
    chart.draw_series(one([(1.0, RANGE.0), (1.0, RANGE.1)]))?;
    chart.draw_series(one([(RANGE.0, 1.0), (RANGE.1, 1.0)]))?;
    for standing in &cell.standings {
        let at = |ratio: f64| ratio.clamp(RANGE.0, RANGE.1);
        let (Some(energy), Some(p99)) = (standing.energy, standing.p99) else {
            continue;
        };
        let colour = colour(names, standing.scheduler);
        let (x, y) = (at(energy.ratio), at(p99.ratio));
        let interval = [(at(energy.low), y), (at(energy.high), y)];
        chart.draw_series(LineSeries::new(interval, colour))?;
        // hollow: does not count
        let style = match standing.verdict {
            Verdict::Counts => colour.filled(),
            _ => colour.stroke_width(1),
        };
        chart.draw_series([Circle::new((x, y), 4, style)])?;
    }
    Ok(())
}

fn draw_legend(panel: &Area<'_>, names: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let text = ("sans-serif", 13).into_font();
    let lines = [
        "hollow: does not count",
        "axes: parts of the cross, which is",
    ];
    let lines = lines.into_iter().chain(names.iter().take(1).copied());
    let mut y = 30;
    for name in names.iter().skip(1) {
        panel.draw(&Circle::new((20, y), 4, colour(names, name).filled()))?;
        panel.draw(&Text::new((*name).to_owned(), (32, y - 6), text.clone()))?;
        y += 20;
    }
    for line in lines {
        panel.draw(&Text::new(line.to_owned(), (16, y), text.clone()))?;
        y += 18;
    }
    Ok(())
}

/// The same for a scheduler in all panels.
fn colour(names: &[&str], name: &str) -> RGBAColor {
    let index = names.iter().position(|it| *it == name).unwrap_or(0);
    Palette99::pick(index).to_rgba()
}

#[cfg(test)]
mod tests {
    use super::super::cell::tests::runs;
    use super::*;

    #[test]
    fn every_workload_and_every_scheduler_is_named() {
        let rows = [
            runs("eevdf-eas", |_| {}),
            runs("scx_joule", |it| it.energy_j = 1.0),
            runs("scx_far", |it| it.p99_ms = 1e6),
        ]
        .concat();
        let cells =
            ["light", "batch"].map(|name| Cell::new("phone", name, "eevdf-eas", rows.iter()));
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &cells).unwrap();
        let svg = std::fs::read_to_string(directory.path().join("lab-phone.svg")).unwrap();
        for word in ["light", "batch", "scx_joule", "scx_far"] {
            assert!(svg.contains(word), "{word} is not in the picture");
        }
    }
}
