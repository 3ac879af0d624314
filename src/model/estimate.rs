//! Values with their doubt, as the model hands them out.

/// Standard deviations of a 90 % interval, two-sided and one-sided.
const NINETY: f64 = 1.645;

/// A power with its doubt, µW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Most probable value, at least 0.
    pub uw: f64,
    /// Standard deviation.
    pub sigma_uw: f64,
    /// The 90 % interval, at least 0. Where the data would have the power negative it is one-sided: it
    /// begins at 0.
    pub low_uw: f64,
    /// The interval's upper end.
    pub high_uw: f64,
    /// Whether measurements, rather than the prior, decide the value: they took away at least half of the
    /// prior's variance.
    pub identified: bool,
}

/// The power that a meter should show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Expected power, µW.
    pub uw: f64,
    /// Standard deviation of the meter's reading around it, µW.
    pub sigma_uw: f64,
    /// Standard deviation of the power itself around it, µW: the reading's without the meter's own noise.
    pub power_sigma_uw: f64,
}

impl Prediction {
    /// The 90 % interval of the power itself, µW, at least 0.
    pub fn interval_uw(&self) -> (f64, f64) {
        let reach = NINETY * self.power_sigma_uw;
        ((self.uw - reach).max(0.0), self.uw + reach)
    }
}

/// By how much a placement costs more than another, nJ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Most probable value; negative where it is the cheaper one.
    pub nj: f64,
    /// Standard deviation.
    pub sigma_nj: f64,
}

impl Difference {
    /// The 90 % interval, nJ.
    pub fn interval_nj(&self) -> (f64, f64) {
        let reach = NINETY * self.sigma_nj;
        (self.nj - reach, self.nj + reach)
    }
}

/// The 90 % interval of a value known to be at least 0, about which data and prior say `value` ± `sigma`:
/// what is left of the two-sided one, or a one-sided one where nothing below `value` is possible.
pub(super) fn interval(value: f64, sigma: f64) -> (f64, f64) {
    let value = value.max(0.0);
    ((value - NINETY * sigma).max(0.0), value + NINETY * sigma)
}
