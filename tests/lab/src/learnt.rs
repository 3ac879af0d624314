//! What a scheduler with an energy model says it has learnt and done, held against the machine's true power.

use crate::machine::{Cluster, Machine};
use crate::statistics::mean;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// OPPs shown on one line.
const POINTS_A_LINE: usize = 6;

/// The scheduler's own statistics, as one line of JSON; the fields that are used.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Statistics {
    placed_steered: u64,
    probes: u64,
    kicks: u64,
    kicks_steered: u64,
    kicks_wasted: u64,
    /// By class, ascending in capacity.
    classes: BTreeMap<usize, ClassStatistics>,
}

/// See [`Statistics`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ClassStatistics {
    /// Ascending.
    khz: Vec<u64>,
    /// Of the first busy CPU at each, above idle.
    watts: Vec<f64>,
}

/// What was learnt and done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Learnt {
    /// Placements that the prior's costs would have made elsewhere.
    pub placements_steered: u64,
    /// Placements made to learn.
    pub probes: u64,
    /// Idle CPUs woken for queued work.
    pub kicks_sent: u64,
    /// Those of them that the prior's costs would not have chosen.
    pub kicks_steered: u64,
    /// Those of them that found nothing to run.
    pub kicks_wasted: u64,
    /// Mean error of the fitted power over all OPPs of the machine, %; null where the scheduler's frequencies are
    /// not the machine's.
    pub model_mape_pct: Option<f64>,
    /// Power of the first busy CPU of each cluster, fitted beside true.
    pub curve: Vec<Point>,
}

/// One OPP of the fitted curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The cluster's name.
    pub cluster: String,
    /// Frequency.
    pub khz: u32,
    /// As the scheduler has it.
    pub fitted_mw: f64,
    /// As the machine file has it.
    pub true_mw: f64,
}

impl Learnt {
    /// The scheduler's statistics beside the truth.
    pub fn new(said: &Statistics, machine: &Machine) -> Self {
        let curve = curve(said, machine).unwrap_or_default();
        let errors: Vec<f64> = (curve.iter())
            .map(|point| 100.0 * (point.fitted_mw / point.true_mw - 1.0).abs())
            .collect();
        Self {
            placements_steered: said.placed_steered,
            probes: said.probes,
            kicks_sent: said.kicks,
            kicks_steered: said.kicks_steered,
            kicks_wasted: said.kicks_wasted,
            model_mape_pct: mean(&errors),
            curve,
        }
    }
}

/// `None` where the scheduler's classes and frequencies are not the machine's clusters and OPPs.
fn curve(said: &Statistics, machine: &Machine) -> Option<Vec<Point>> {
    let mut clusters: Vec<&Cluster> = machine.clusters.iter().collect();
    clusters.sort_by_key(|cluster| cluster.capacity());
    if clusters.len() != said.classes.len() {
        return None;
    }
    let mut points = Vec::new();
    for (cluster, class) in clusters.into_iter().zip(said.classes.values()) {
        for (&khz, watts) in class.khz.iter().zip(&class.watts) {
            let mut opps = cluster.opps.iter();
            let opp = opps.find(|opp| u64::from(opp.khz) == khz)?;
            points.push(Point {
                cluster: cluster.name.clone(),
                khz: opp.khz,
                fitted_mw: 1e3 * watts,
                true_mw: cluster.first_busy_uw(opp) / 1e3,
            });
        }
    }
    Some(points)
}

impl Display for Learnt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "placements steered {}, probes {}; kicks sent {}, of them steered {}, wasted {}",
            self.placements_steered,
            self.probes,
            self.kicks_sent,
            self.kicks_steered,
            self.kicks_wasted
        )?;
        let Some(error) = self.model_mape_pct else {
            return Ok(());
        };
        writeln!(
            f,
            "power of a cluster's first busy CPU at each MHz, mW: fitted (true); mean error {error:.1} %"
        )?;
        for cluster in self.curve.chunk_by(|one, next| one.cluster == next.cluster) {
            for (index, points) in cluster.chunks(POINTS_A_LINE).enumerate() {
                let name = match (index, points.first()) {
                    (0, Some(point)) => &point.cluster,
                    _ => "",
                };
                let points: Vec<String> = points.iter().map(Point::to_string).collect();
                writeln!(f, "  {name:8}{}", points.join("").trim_end())?;
            }
        }
        Ok(())
    }
}

impl Display for Point {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (fitted, right) = (self.fitted_mw, self.true_mw);
        write!(
            f,
            "{:5}: {:13}",
            self.khz / 1000,
            format!("{fitted:.0} ({right:.0})")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use serde_json::json;

    /// Statistics of the phone with two clusters, every power `factor` times the truth.
    fn said(machine: &Machine, factor: f64) -> Statistics {
        let mut clusters: Vec<&Cluster> = machine.clusters.iter().collect();
        clusters.sort_by_key(|cluster| cluster.capacity());
        let classes: serde_json::Map<_, _> = (clusters.iter().enumerate())
            .map(|(class, cluster)| {
                let khz: Vec<_> = cluster.opps.iter().map(|opp| opp.khz).collect();
                let watts =
                    (cluster.opps.iter()).map(|opp| factor * cluster.first_busy_uw(opp) / 1e6);
                let watts: Vec<_> = watts.collect();
                (
                    class.to_string(),
                    json!({"khz": khz, "watts": watts, "confidence": 0.5}),
                )
            })
            .collect();
        let said = json!({"placed_steered": 3, "probes": 1, "kicks": 9, "kicks_steered": 2, "kicks_wasted": 4,
            "samples": 7, "classes": classes});
        serde_json::from_value(said).unwrap()
    }

    #[test]
    fn the_error_is_that_of_the_fitted_curve() {
        let machine = catalogue::machine("phone-2c-msm8998").unwrap();
        let learnt = Learnt::new(&said(&machine, 1.1), &machine);
        assert!((learnt.model_mape_pct.unwrap() - 10.0).abs() < 1e-6);
        let text = learnt.to_string();
        assert!(
            text.contains("mean error 10.0 %") && text.contains("wasted 4"),
            "{text}"
        );
    }

    #[test]
    fn frequencies_that_the_machine_has_not_leave_the_error_unknown() {
        let machine = catalogue::machine("phone-2c-msm8998").unwrap();
        let mut said = said(&machine, 1.0);
        said.classes.get_mut(&0).unwrap().khz[0] += 1;
        let learnt = Learnt::new(&said, &machine);
        assert_eq!((learnt.model_mape_pct, learnt.curve.len()), (None, 0));
        assert_eq!(learnt.kicks_sent, 9);
    }
}
