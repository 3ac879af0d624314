//! A saved model as text: what was measured, on what kind of machine, and from which prior. TOML that people
//! can read; what has been concluded stands in comments, so that nothing in a file can contradict itself.
//!
//! Version 1. Every number is checked on reading; text that is not right in any part is refused as a whole.

use super::evidence::{Evidence, parameters};
use super::features::{ClassShape, Meter, OppShape, Refusal, Shape, absurd};
use super::{Belief, Model, Prior};
use crate::units::{Capacity, KHz, Microwatts};
use serde::Deserialize;
use std::fmt::Write;

/// The version that is written; older ones would be read, newer ones are refused.
const VERSION: u64 = 1;
/// Standard deviations within which 90 % of a normal variable lie.
pub const NINETY_PCT: f64 = 1.645;

/// What tells one kind of machine from another, besides the shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// What the firmware calls the machine: maker and product, or the devicetree's `compatible`; empty where
    /// it does not say.
    pub board: Vec<String>,
    /// The CPUs' names, each once, in their order; empty where the kernel does not tell.
    pub processor: Vec<String>,
    /// Per class: its CPUs as a kernel CPU list, such as `0-3`.
    pub cpus: Vec<String>,
    /// Per class: the kind of core, `-` where the machine does not say.
    pub cores: Vec<String>,
}

/// A saved model.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// Where it was measured.
    pub machine: Machine,
    /// What there was to observe.
    pub shape: Shape,
    /// What was believed before.
    pub prior: Prior,
    /// What measured.
    pub meter: Meter,
    /// What was measured.
    pub evidence: Evidence,
}

/// Why a text is no saved model of this machine.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// Not the text of a saved model.
    #[error("line {line}: '{value}': {reason}")]
    Text {
        /// From 1.
        line: usize,
        /// The line (shortened).
        value: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A value that cannot be.
    #[error(transparent)]
    Value(#[from] Refusal),
}

#[derive(Deserialize)]
struct Head {
    version: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(rename = "version")]
    _version: u64,
    machine: Machine,
    prior: PriorText,
    class: Vec<ClassText>,
    evidence: EvidenceText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriorText {
    kind: Kind,
    scale: f64,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Watts,
    Abstract,
    Capacities,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassText {
    count: u16,
    domains: u16,
    idle_depths: usize,
    cluster_wakes: bool,
    smt: bool,
    opps: Vec<OppText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OppText {
    khz: u64,
    capacity: u64,
    microvolt: Option<u32>,
    prior: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceText {
    meter: String,
    runs: u64,
    rows: u64,
    noise: f64,
    sums: Vec<Vec<f64>>,
}

impl Saved {
    /// Reads a text.
    ///
    /// # Errors
    /// The first thing that is not right: its line or field, its value, and what would be right.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let head: Head = toml::from_str(text).map_err(|error| located(text, &error))?;
        match head.version {
            Some(VERSION) => {}
            Some(newer @ 2..) => absurd(
                "version",
                newer,
                format!("at most {VERSION}: a newer scx_joule wrote this"),
            )?,
            Some(version) => absurd("version", version, VERSION.to_string())?,
            None => absurd("version", "missing", format!("version = {VERSION}"))?,
        }
        let text: Text = toml::from_str(text).map_err(|error| located(text, &error))?;
        let shape = Shape {
            classes: (text.class.iter().enumerate())
                .map(|(k, class)| class.shape(k))
                .collect::<Result<_, _>>()?,
        };
        let saved = Self {
            prior: prior(text.prior.kind, &text.class)?,
            meter: meter(&text.evidence.meter)?,
            evidence: Evidence {
                runs: text.evidence.runs,
                rows: text.evidence.rows,
                noise: text.evidence.noise,
                scale: text.prior.scale,
                sums: text.evidence.sums,
            },
            machine: text.machine,
            shape,
        };
        if matches!(saved.prior, Prior::Watts(_)) && saved.evidence.scale != 1.0 {
            absurd(
                "prior.scale",
                saved.evidence.scale,
                "1, since the prior is in watts",
            )?;
        }
        for (what, found) in [
            ("machine.cpus", saved.machine.cpus.len()),
            ("machine.cores", saved.machine.cores.len()),
        ] {
            let expected = saved.shape.classes.len();
            if found != expected {
                let expected = format!("one per class, {expected}");
                absurd(format!("number of {what}"), found, expected)?;
            }
        }
        saved.model()?;
        Ok(saved)
    }

    /// What is believed with what was measured.
    ///
    /// # Errors
    /// Those of [`Evidence::belief`].
    pub fn belief(&self) -> Result<Belief, Refusal> {
        self.evidence.belief(&self.shape, &self.prior)
    }

    /// A model that starts from it.
    ///
    /// # Errors
    /// Those of [`Evidence::belief`].
    pub fn model(&self) -> Result<Model, Refusal> {
        Model::with_belief(self.shape.clone(), &self.belief()?)
    }

    /// The same for where pairs of busy threads are counted as in `shape`, though here they were not: calibration
    /// keeps one thread of a core busy, so that what it measured says nothing of them.
    pub fn beside_siblings(mut self, shape: &Shape) -> Self {
        let before = parameters(&self.shape);
        for (class, other) in self.shape.classes.iter_mut().zip(&shape.classes) {
            class.smt |= other.smt;
        }
        self.evidence = self.evidence.among(&before, &parameters(&self.shape));
        self
    }

    /// Whether it is of a machine like this one.
    ///
    /// # Errors
    /// The first difference.
    pub fn fits(&self, machine: &Machine, shape: &Shape) -> Result<(), Refusal> {
        let quoted = |texts: &[String]| format!("'{}'", texts.join(", "));
        let texts = [
            ("machine.board", &self.machine.board, &machine.board),
            (
                "machine.processor",
                &self.machine.processor,
                &machine.processor,
            ),
            ("machine.cpus", &self.machine.cpus, &machine.cpus),
            ("machine.cores", &self.machine.cores, &machine.cores),
        ];
        for (what, found, expected) in texts {
            if found != expected {
                let expected = format!("{} as on this machine", quoted(expected));
                absurd(what, quoted(found), expected)?;
            }
        }
        let (found, expected) = (self.shape.classes.len(), shape.classes.len());
        if found != expected {
            absurd("number of classes", found, of_this(expected))?;
        }
        for (k, (found, expected)) in self.shape.classes.iter().zip(&shape.classes).enumerate() {
            class_fits(k, found, expected)?;
        }
        Ok(())
    }

    /// Whether what another one measured can be added: the same kind of machine, prior and meter.
    ///
    /// # Errors
    /// The first difference.
    pub fn fits_saved(&self, other: &Self) -> Result<(), Refusal> {
        let expected = |refusal| match refusal {
            Refusal::Absurd {
                what,
                value,
                expected,
            } => Refusal::Absurd {
                what,
                value,
                expected: expected.replace("on this machine", "in the first file"),
            },
            other => other,
        };
        self.fits(&other.machine, &other.shape).map_err(expected)?;
        if self.meter != other.meter {
            let first = format!("'{}' as in the first file", other.meter.name());
            absurd("evidence.meter", format!("'{}'", self.meter.name()), first)?;
        }
        if self.prior != other.prior {
            absurd("prior", "another one", "the first file's")?;
        }
        Ok(())
    }

    /// The text.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, to: &mut String) -> std::fmt::Result {
        let quoted = |texts: &[String]| {
            let texts = texts.iter().cloned().map(toml::Value::String).collect();
            toml::Value::Array(texts).to_string()
        };
        let (kind, scale) = match self.prior {
            Prior::Watts(_) => ("watts", "exactly 1, since this prior is in watts"),
            Prior::Abstract(_) => ("abstract", "W per unit of the powers below"),
            Prior::Capacities => ("capacities", "W per W of the curve that capacities suggest"),
        };
        let model = self.model().ok();
        write!(
            to,
            "# What was measured of this kind of machine's power. Written by `scx_joule calibrate`, shown by\n\
             # `scx_joule model show`, read when the scheduler starts. Comments are conclusions and are not read.\n\
             version = {VERSION}\n\n[machine]\nboard = {}\nprocessor = {}\ncpus = {}\ncores = {}\n\n\
             [prior]\nkind = \"{kind}\"\nscale = {:e} # {scale}\n",
            quoted(&self.machine.board),
            quoted(&self.machine.processor),
            quoted(&self.machine.cpus),
            quoted(&self.machine.cores),
            self.evidence.scale,
        )?;
        for (k, class) in self.shape.classes.iter().enumerate() {
            let curve = model.as_ref().map(|model| model.curve(k));
            self.write_class(to, k, class, curve.unwrap_or_default())?;
        }
        let evidence = &self.evidence;
        write!(
            to,
            "\n[evidence]\nmeter = \"{}\"\nruns = {}\nrows = {}\nnoise = {:e} # of one row, relative\n\
             # Sums over rows of z·zᵀ/σ², lower triangle; z: the parameters' coefficients (W, J), then the\n\
             # measured power (W). They add up over runs and machines.\nsums = [\n",
            self.meter.name(),
            evidence.runs,
            evidence.rows,
            evidence.noise,
        )?;
        let names = parameters(&self.shape);
        let names = names.iter().map(String::as_str).chain(["measured power"]);
        for (row, name) in evidence.sums.iter().zip(names) {
            let cells: Vec<String> = row.iter().map(|value| short(*value)).collect();
            writeln!(to, "  [{}], # {name}", cells.join(", "))?;
        }
        writeln!(to, "]")
    }

    fn write_class(
        &self,
        to: &mut String,
        k: usize,
        class: &ClassShape,
        curve: Vec<(OppShape, super::Estimate)>,
    ) -> std::fmt::Result {
        write!(
            to,
            "\n[[class]]\ncount = {}\ndomains = {}\nidle_depths = {}\ncluster_wakes = {}\nsmt = {}\n\
             # mW of the first busy CPU, with what its cluster shares, above idle; 90 % of truths are within ±\n\
             opps = [\n",
            class.cpus, class.domains, class.idle_depths, class.cluster_wakes, class.smt
        )?;
        let mut fitted = curve.into_iter();
        for (i, opp) in class.opps.iter().enumerate() {
            let (khz, capacity) = (opp.khz.get(), opp.cap);
            write!(to, "  {{ khz = {khz}, capacity = {capacity}")?;
            if let Some(microvolt) = opp.microvolt {
                write!(to, ", microvolt = {microvolt}")?;
            }
            if let Some(prior) = prior_of(&self.prior, k, i) {
                write!(to, ", prior = {prior}")?;
            }
            to.push_str(" },");
            if let Some((_, estimate)) = fitted.next() {
                let (mw, bar) = (estimate.uw / 1e3, NINETY_PCT * estimate.sigma_uw / 1e3);
                let source = if estimate.identified {
                    "measured"
                } else {
                    "assumed"
                };
                write!(to, " # {mw:.1} ± {bar:.1} mW, {source}")?;
            }
            to.push('\n');
        }
        writeln!(to, "]")
    }
}

/// The prior's number for one OPP, in its own unit; `None` for a prior without numbers.
pub fn prior_of(prior: &Prior, class: usize, opp: usize) -> Option<u64> {
    match prior {
        Prior::Watts(curves) => Some(curves.get(class)?.get(opp)?.get()),
        Prior::Abstract(curves) => curves.get(class)?.get(opp).copied(),
        Prior::Capacities => None,
    }
}

/// The shortest text that reads as the same number.
fn short(value: f64) -> String {
    match value == 0.0 {
        true => "0".to_owned(),
        false => format!("{value:e}"),
    }
}

fn located(text: &str, error: &toml::de::Error) -> Fault {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let index = before.matches('\n').count();
    let value = text.lines().nth(index).unwrap_or_default().trim();
    Fault::Text {
        line: index + 1,
        value: value.chars().take(60).collect(),
        reason: error.message().replace('\n', "; "),
    }
}

fn meter(name: &str) -> Result<Meter, Refusal> {
    let meters = [Meter::Package, Meter::Cores, Meter::System];
    let found = meters.into_iter().find(|meter| meter.name() == name);
    found.ok_or_else(|| Refusal::Absurd {
        what: "evidence.meter".to_owned(),
        value: format!("'{name}'"),
        expected: "package, cores or system".to_owned(),
    })
}

fn prior(kind: Kind, classes: &[ClassText]) -> Result<Prior, Refusal> {
    let number = |(k, class): (usize, &ClassText)| -> Result<Vec<u64>, Refusal> {
        let opps = class.opps.iter().enumerate();
        opps.map(|(i, opp)| {
            opp.prior.ok_or_else(|| Refusal::Absurd {
                what: format!("class {k} opp {i} prior"),
                value: "missing".to_owned(),
                expected: "a power, since the prior's kind says so".to_owned(),
            })
        })
        .collect()
    };
    let numbers = || classes.iter().enumerate().map(number);
    Ok(match kind {
        Kind::Watts => {
            let watts = |curve: Vec<u64>| curve.into_iter().map(Microwatts::new).collect();
            Prior::Watts(
                numbers()
                    .map(|it| it.map(watts))
                    .collect::<Result<_, _>>()?,
            )
        }
        Kind::Abstract => Prior::Abstract(numbers().collect::<Result<_, _>>()?),
        Kind::Capacities => {
            for (k, class) in classes.iter().enumerate() {
                if let Some(i) = class.opps.iter().position(|opp| opp.prior.is_some()) {
                    let expected = "nothing, since the prior's kind is capacities";
                    absurd(format!("class {k} opp {i} prior"), "given", expected)?;
                }
            }
            Prior::Capacities
        }
    })
}

impl ClassText {
    fn shape(&self, k: usize) -> Result<ClassShape, Refusal> {
        let opp = |(i, opp): (usize, &OppText)| {
            let cap = Capacity::new(opp.capacity).ok_or_else(|| Refusal::Absurd {
                what: format!("class {k} opp {i} capacity"),
                value: opp.capacity.to_string(),
                expected: "1 to 1024".to_owned(),
            })?;
            Ok(OppShape {
                khz: KHz::new(opp.khz),
                cap,
                microvolt: opp.microvolt,
            })
        };
        Ok(ClassShape {
            cpus: self.count,
            domains: self.domains,
            opps: self
                .opps
                .iter()
                .enumerate()
                .map(opp)
                .collect::<Result<_, _>>()?,
            idle_depths: self.idle_depths,
            cluster_wakes: self.cluster_wakes,
            smt: self.smt,
        })
    }
}

fn of_this(expected: impl std::fmt::Display) -> String {
    format!("{expected} as on this machine")
}

fn class_fits(k: usize, found: &ClassShape, expected: &ClassShape) -> Result<(), Refusal> {
    let numbers = |class: &ClassShape| {
        [
            ("number of CPUs", class.cpus.to_string()),
            ("domains", class.domains.to_string()),
            ("number of OPPs", class.opps.len().to_string()),
            ("idle depths", class.idle_depths.to_string()),
            ("cluster wakes", class.cluster_wakes.to_string()),
            ("smt", class.smt.to_string()),
        ]
    };
    for ((what, found), (_, expected)) in numbers(found).into_iter().zip(numbers(expected)) {
        if found != expected {
            absurd(format!("class {k} {what}"), found, of_this(expected))?;
        }
    }
    for (i, (found, expected)) in found.opps.iter().zip(&expected.opps).enumerate() {
        let text = |opp: &OppShape| {
            let volt = opp.microvolt.map(|uv| format!(", {uv} µV"));
            format!(
                "{}, capacity {}{}",
                opp.khz,
                opp.cap,
                volt.unwrap_or_default()
            )
        };
        if found != expected {
            absurd(
                format!("class {k} opp {i}"),
                text(found),
                of_this(text(expected)),
            )?;
        }
    }
    Ok(())
}
