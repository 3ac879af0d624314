//! Means, and ratios with the interval in which they would lie had other seeds been drawn.

use serde::Serialize;

/// Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom.
const T_95: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// A ratio and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Geometric mean of the pairs' ratios.
    pub ratio: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    let count = count(values.len())?;
    (count > 0.0).then(|| values.iter().sum::<f64>() / count)
}

/// How `values` compare to `references`, pair by pair.
///
/// Both of a pair saw the same seed, so what the seed does to both cancels out. The logarithms of the ratios
/// are taken as normally distributed. `None` with fewer than two pairs, lists of unlike lengths, or a
/// value that is not above zero.
pub fn ratio(values: &[f64], references: &[f64]) -> Option<Ratio> {
    if values.len() != references.len() {
        return None;
    }
    let logarithms: Vec<f64> = values
        .iter()
        .zip(references)
        .map(|(value, reference)| {
            (*value > 0.0 && *reference > 0.0).then(|| (value / reference).ln())
        })
        .collect::<Option<_>>()?;
    let freedom = logarithms
        .len()
        .checked_sub(1)
        .filter(|freedom| *freedom > 0)?;
    let centre = mean(&logarithms)?;
    let squares: f64 = logarithms.iter().map(|it| (it - centre).powi(2)).sum();
    let variance = squares / count(freedom)?;
    let half = quantile(freedom)? * (variance / count(logarithms.len())?).sqrt();
    Some(Ratio {
        ratio: centre.exp(),
        low: (centre - half).exp(),
        high: (centre + half).exp(),
    })
}

fn quantile(freedom: usize) -> Option<f64> {
    let index = freedom.checked_sub(1)?;
    // beyond the table the last entry is a little too wide, which errs on the safe side
    T_95.get(index).or(T_95.last()).copied()
}

fn count(length: usize) -> Option<f64> {
    u32::try_from(length).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pairs_have_ratio_one_and_no_width() {
        let ratio = ratio(&[1.0, 5.0, 9.0], &[1.0, 5.0, 9.0]).unwrap();
        assert_eq!((ratio.ratio, ratio.low, ratio.high), (1.0, 1.0, 1.0));
    }

    #[test]
    fn what_a_seed_does_to_both_cancels_out() {
        let ratio = ratio(&[0.9, 9.0, 90.0], &[1.0, 10.0, 100.0]).unwrap();
        assert!((ratio.ratio - 0.9).abs() < 1e-12 && ratio.high - ratio.low < 1e-12);
    }

    #[test]
    fn the_interval_is_students() {
        // logarithms 0 and 0.2: mean 0.1, standard error 0.1, t(1) = 12.706
        let ratio = ratio(&[1.0, 0.2_f64.exp()], &[1.0, 1.0]).unwrap();
        assert!((ratio.low.ln() - (0.1 - 1.2706)).abs() < 1e-9, "{ratio:?}");
        assert!((ratio.high.ln() - (0.1 + 1.2706)).abs() < 1e-9, "{ratio:?}");
    }

    #[test]
    fn no_interval_without_a_spread_to_judge_by() {
        assert_eq!(ratio(&[1.0], &[2.0]), None);
        assert_eq!(ratio(&[1.0, 0.0], &[2.0, 2.0]), None);
        assert_eq!(ratio(&[1.0, 2.0], &[2.0]), None);
        assert_eq!(mean(&[]), None);
    }
}
