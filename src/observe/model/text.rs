//! Saved models as tables.

use crate::model::file::{NINETY_PCT, Saved, prior_of};
use crate::model::{Belief, Estimate, Model, OppShape, PowerModel, Prior};
use anyhow::{Context, Result};
use std::fmt::Write;

/// Measurements decide a parameter when they took away at least this part of the prior's variance.
const DECIDED: f64 = 0.5;

/// One operating point with what is believed of it and what was before.
pub struct Point {
    pub opp: OppShape,
    pub fitted: Estimate,
    /// The prior's power of one busy CPU, µW, on its own scale where that is not watts.
    pub prior_uw: Option<f64>,
}

/// The curve of one class.
pub fn points(saved: &Saved, model: &Model, class: usize) -> Vec<Point> {
    let curve = model.curve(class).into_iter().enumerate();
    curve
        .map(|(index, (opp, fitted))| Point {
            opp,
            fitted,
            prior_uw: prior_of(&saved.prior, class, index).and_then(num_traits::cast),
        })
        .collect()
}

/// What the numbers before measuring were.
pub fn prior_name(prior: &Prior) -> &'static str {
    match prior {
        Prior::Watts(_) => "kernel's EM mW",
        Prior::Abstract(_) => "kernel's EM (no unit)",
        Prior::Capacities => "",
    }
}

/// One class in words: its CPUs and their kind.
pub fn class_name(saved: &Saved, class: usize) -> String {
    let of = |texts: &[String]| texts.get(class).cloned().unwrap_or_default();
    let (cpus, core) = (of(&saved.machine.cpus), of(&saved.machine.cores));
    match core.as_str() {
        "-" => format!("class {class}, CPUs {cpus}"),
        core => format!("class {class}, CPUs {cpus} ({core})"),
    }
}

fn machine_name(saved: &Saved) -> String {
    let names = [&saved.machine.board, &saved.machine.processor];
    let names: Vec<&str> = names.into_iter().flatten().map(String::as_str).collect();
    match names.is_empty() {
        true => "a machine without a name".to_owned(),
        false => names.join(", "),
    }
}

/// The whole model.
pub fn show(saved: &Saved) -> Result<String> {
    let belief = saved.belief()?;
    let model = Model::with_belief(saved.shape.clone(), &belief)?;
    let power = model.power();
    let evidence = &saved.evidence;
    let plural = if evidence.runs == 1 { "" } else { "s" };
    let mut text = format!(
        "{}\n{} measurements of {} calibration{plural}, noise {:.1} %\n",
        machine_name(saved),
        evidence.rows,
        evidence.runs,
        100.0 * evidence.noise
    );
    for class in 0..saved.shape.classes.len() {
        table(&mut text, saved, &model, &power, class)?;
    }
    writeln!(text, "\n{}", assumed(&belief))?;
    Ok(text)
}

fn table(
    text: &mut String,
    saved: &Saved,
    model: &Model,
    power: &PowerModel,
    class: usize,
) -> Result<()> {
    let known = power.classes.get(class).context("a class without power")?;
    writeln!(text, "\n{}", class_name(saved, class))?;
    writeln!(
        text,
        "{:>8}{:>10}{:>14}{:>9}{:>14}  {:12}{}",
        "MHz",
        "capacity",
        "first CPU mW",
        "± 90 %",
        "one more mW",
        "",
        prior_name(&saved.prior)
    )?;
    for (point, busy) in points(saved, model, class).iter().zip(&known.busy_w) {
        let prior = match (&saved.prior, point.prior_uw) {
            (Prior::Watts(_), Some(uw)) => format!("{:.1}", uw / 1e3),
            (_, Some(unit)) => unit.to_string(),
            (_, None) => String::new(),
        };
        let source = if point.fitted.identified {
            "measured"
        } else {
            "assumed"
        };
        let line = format!(
            "{:>8}{:>10}{:>14.1}{:>9.1}{:>14.1}  {source:12}{prior}",
            point.opp.khz.get() / 1000,
            point.opp.cap.get(),
            point.fitted.uw / 1e3,
            NINETY_PCT * point.fitted.sigma_uw / 1e3,
            1e3 * busy,
        );
        writeln!(text, "{}", line.trim_end())?;
    }
    for (depth, (idle, wake)) in known.idle_w.iter().zip(&known.wake_j).enumerate() {
        let (mw, uj) = (1e3 * idle, 1e6 * wake);
        writeln!(
            text,
            "  idle depth {depth}: {mw:.2} mW above the deepest, waking {uj:.1} µJ"
        )?;
    }
    if known.cluster_wake_j > 0.0 {
        writeln!(
            text,
            "  waking the cluster: {:.1} µJ",
            1e6 * known.cluster_wake_j
        )?;
    }
    Ok(())
}

/// What nothing was measured of.
fn assumed(belief: &Belief) -> String {
    let len = belief.names.len();
    let variance = |values: &[f64], index: usize| values.get(index * (len + 1)).copied();
    let undecided = |(index, _): &(usize, &String)| {
        let now = variance(&belief.covariance, *index);
        let before = variance(&belief.prior_covariance, *index);
        now.zip(before)
            .is_none_or(|(now, before)| now > DECIDED * before)
    };
    let names: Vec<&str> = (belief.names.iter().enumerate())
        .filter(undecided)
        .map(|(_, name)| name.as_str())
        .collect();
    match names.is_empty() {
        true => "every parameter is measured".to_owned(),
        false => format!("assumed, not measured: {}", names.join(", ")),
    }
}

/// Where two models differ.
pub fn compare(one: &Saved, other: &Saved) -> Result<String> {
    let (first, second) = (one.model()?, other.model()?);
    let mut text = String::new();
    let (mut differing, mut all) = (0, 0);
    for class in 0..one.shape.classes.len() {
        writeln!(text, "{}", class_name(one, class))?;
        writeln!(
            text,
            "{:>8}{:>14}{:>9}{:>14}{:>9}{:>9}",
            "MHz", "first mW", "± 90 %", "second mW", "± 90 %", "change"
        )?;
        for ((opp, a), (_, b)) in first.curve(class).iter().zip(second.curve(class)) {
            let bar = NINETY_PCT * a.sigma_uw.hypot(b.sigma_uw);
            let beyond = (b.uw - a.uw).abs() > bar;
            all += 1;
            differing += usize::from(beyond);
            writeln!(
                text,
                "{:>8}{:>14.1}{:>9.1}{:>14.1}{:>9.1}{:>+8.1}%{}",
                opp.khz.get() / 1000,
                a.uw / 1e3,
                NINETY_PCT * a.sigma_uw / 1e3,
                b.uw / 1e3,
                NINETY_PCT * b.sigma_uw / 1e3,
                100.0 * (b.uw / a.uw - 1.0),
                if beyond { "  differs" } else { "" }
            )?;
        }
        text.push('\n');
    }
    writeln!(
        text,
        "{differing} of {all} frequencies differ by more than their error bars; 1 in 10 would by chance"
    )?;
    Ok(text)
}
