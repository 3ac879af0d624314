//! A saved model as a picture: a panel for each class, fitted power with error bars beside the kernel's.

use super::text::{Point, class_name, points};
use crate::model::Prior;
use crate::model::file::{NINETY_PCT, Saved};
use anyhow::{Result, anyhow};
use num_traits::ToPrimitive;
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const PANEL: (u32, u32) = (420, 320);
/// Colours that the colour-blind tell apart, too (Okabe and Ito).
const FITTED: RGBColor = RGBColor(0, 114, 178);
const PRIOR: RGBColor = RGBColor(213, 94, 0);

type Failure = Box<dyn std::error::Error>;

/// Writes an SVG.
///
/// # Errors
/// When the model cannot be evaluated or the file cannot be written.
pub fn write(path: &Path, saved: &Saved) -> Result<()> {
    draw(path, saved).map_err(|error| anyhow!("{error}"))
}

fn draw(path: &Path, saved: &Saved) -> Result<(), Failure> {
    let model = saved.model()?;
    let classes = saved.shape.classes.len();
    let width = PANEL.0 * u32::try_from(classes)?;
    let root = SVGBackend::new(path, (width, PANEL.1)).into_drawing_area();
    root.fill(&WHITE)?;
    for (class, panel) in root.split_evenly((1, classes)).iter().enumerate() {
        let comparable = matches!(saved.prior, Prior::Watts(_));
        let points = points(saved, &model, class);
        draw_class(panel, &class_name(saved, class), &points, comparable)?;
    }
    root.present()?;
    Ok(())
}

fn draw_class(
    panel: &DrawingArea<SVGBackend<'_>, Shift>,
    name: &str,
    points: &[Point],
    comparable: bool,
) -> Result<(), Failure> {
    let mhz = |point: &Point| point.opp.khz.get().to_f64().unwrap_or(f64::NAN) / 1e3;
    let high = |point: &Point| (point.fitted.uw + NINETY_PCT * point.fitted.sigma_uw) / 1e3;
    let low =
        |point: &Point| ((point.fitted.uw - NINETY_PCT * point.fitted.sigma_uw) / 1e3).max(0.0);
    let prior = |point: &Point| point.prior_uw.filter(|_| comparable).map(|uw| uw / 1e3);
    let right = points.iter().map(mhz).fold(1.0, f64::max);
    let tops = points
        .iter()
        .flat_map(|point| [Some(high(point)), prior(point)]);
    let top = tops.flatten().fold(1e-3, f64::max);
    let mut chart = ChartBuilder::on(panel)
        .margin(10)
        .caption(name, ("sans-serif", 15))
        .x_label_area_size(32)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..1.05 * right, 0.0..1.05 * top)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .x_desc("MHz")
        .y_desc("first busy CPU, mW")
        .draw()?;
    let kernel = points
        .iter()
        .filter_map(|point| Some((mhz(point), prior(point)?)));
    if comparable {
        chart
            .draw_series(LineSeries::new(kernel, PRIOR))?
            .label("kernel's Energy Model")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], PRIOR));
    }
    let fitted = points
        .iter()
        .map(|point| (mhz(point), point.fitted.uw / 1e3));
    chart
        .draw_series(LineSeries::new(fitted, FITTED))?
        .label("fitted, 90 %")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], FITTED));
    for point in points {
        let x = mhz(point);
        let bar = [(x, low(point)), (x, high(point))];
        chart.draw_series(LineSeries::new(bar, FITTED))?;
        let style = match point.fitted.identified {
            true => FITTED.filled(),
            // hollow: assumed
            false => FITTED.stroke_width(1),
        };
        chart.draw_series([Circle::new((x, point.fitted.uw / 1e3), 3, style)])?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}
