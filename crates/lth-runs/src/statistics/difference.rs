//! Differences of two means, paired over seeds or not, and ratios of paired times.

use serde::{Deserialize, Serialize};

use super::distribution::{normal_two_sided, student_t_tail, student_t_two_sided};
use super::estimate::{Estimate, Interval};
use super::invalid;
use crate::Error;

/// A difference of two means.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Second minus first.
    pub mean: f64,
    /// How many pairs, or how many values in the smaller sample.
    pub n: usize,
    /// Standard error of `mean`; `null` where it cannot be computed (n = 1), 0 where nothing varies.
    pub standard_error: Option<f64>,
    /// Degrees of freedom of the t distribution.
    pub degrees_of_freedom: Option<f64>,
    /// Student's t interval; `null` where n = 1 or nothing varies.
    pub interval: Option<Interval>,
    /// Two-sided p-value of "no difference"; `null` where n = 1 or nothing varies.
    pub p_value: Option<f64>,
}

impl Difference {
    /// Whether the difference is the same in every one of several pairs, so that there is nothing to test it against.
    pub fn is_constant(&self) -> bool {
        self.standard_error == Some(0.0)
    }
}

/// The mean of `second − first` over pairs (the same seed under two treatments).
///
/// `None` if there are no pairs, a value is not finite, or the confidence is outside (0, 1).
pub fn paired_difference(pairs: &[(f64, f64)], confidence: f64) -> Option<Difference> {
    of_estimate(&paired_estimate(pairs)?, confidence)
}

/// The differences' mean and deviation; the deviation is exactly 0 where all that varies is the subtraction's rounding.
pub(super) fn paired_estimate(pairs: &[(f64, f64)]) -> Option<Estimate> {
    let largest = pairs.iter().fold(0.0, |largest: f64, (first, second)| largest.max(first.abs()).max(second.abs()));
    let differences: Vec<f64> = pairs.iter().map(|(first, second)| second - first).collect();
    estimate_beyond(&differences, 4.0 * f64::EPSILON * largest)
}

fn estimate_beyond(values: &[f64], rounding: f64) -> Option<Estimate> {
    let mut estimate = Estimate::of(values)?;
    if values.iter().all(|value| (value - estimate.mean).abs() <= rounding) {
        estimate.deviation = estimate.deviation.map(|_| 0.0);
        if estimate.mean.abs() <= rounding {
            estimate.mean = 0.0;
        }
    }
    Some(estimate)
}

fn of_estimate(estimate: &Estimate, confidence: f64) -> Option<Difference> {
    let degrees_of_freedom = (estimate.n > 1).then(|| (estimate.n - 1) as f64);
    difference(estimate.mean, estimate.n, estimate.standard_error(), degrees_of_freedom, confidence)
}

/// `mean(second) − mean(first)` of two samples that are not paired and may spread differently (Welch 1947).
///
/// `None` if a sample is empty, a value is not finite, or the confidence is outside (0, 1). With fewer than two
/// values in a sample there is a mean but no interval.
pub fn welch_difference(first: &[f64], second: &[f64], confidence: f64) -> Option<Difference> {
    let (first, second) = (Estimate::of(first)?, Estimate::of(second)?);
    let variances = first.standard_error().zip(second.standard_error()).map(|(a, b)| (a * a, b * b));
    let standard_error = variances.map(|(a, b)| (a + b).sqrt());
    let degrees_of_freedom = variances.map(|(a, b)| {
        let (a_free, b_free) = ((first.n - 1) as f64, (second.n - 1) as f64);
        // Both variances zero: there is no interval that the degrees of freedom could change.
        if a + b == 0.0 {
            a_free + b_free
        } else {
            // In shares of the sum, so that tiny variances do not underflow when squared.
            let (a, b) = (a / (a + b), b / (a + b));
            1.0 / (a * a / a_free + b * b / b_free)
        }
    });
    let n = first.n.min(second.n);
    difference(second.mean - first.mean, n, standard_error, degrees_of_freedom, confidence)
}

fn difference(
    mean: f64,
    n: usize,
    standard_error: Option<f64>,
    degrees_of_freedom: Option<f64>,
    confidence: f64,
) -> Option<Difference> {
    normal_two_sided(confidence)?; // a confidence outside (0, 1) is refused for n = 1 too
    let known = standard_error.filter(|error| *error > 0.0).zip(degrees_of_freedom);
    let interval = known.and_then(|(error, free)| {
        let half = error * student_t_two_sided(confidence, free)?;
        Some(Interval { low: mean - half, high: mean + half, confidence })
    });
    let p_value = known.map(|(error, free)| student_t_tail(mean / error, free));
    Some(Difference { mean, n, standard_error, degrees_of_freedom, interval, p_value })
}

/// How many times as large one positive quantity is as another, over pairs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The geometric mean of second / first.
    pub mean: f64,
    /// How many pairs.
    pub n: usize,
    /// Student's t interval of the mean logarithm, taken back to ratios; `null` where n = 1 or nothing varies.
    pub interval: Option<Interval>,
    /// Two-sided p-value of "the ratio is 1"; `null` where n = 1 or nothing varies.
    pub p_value: Option<f64>,
}

impl Ratio {
    /// Whether the interval lies below 1: for times, whether "faster" may be said. False where there is no interval.
    pub fn is_below_one(&self) -> bool {
        self.interval.is_some_and(|interval| interval.high < 1.0)
    }

    /// Whether the interval lies above 1: for times, whether "slower" may be said. False where there is no interval.
    pub fn is_above_one(&self) -> bool {
        self.interval.is_some_and(|interval| interval.low > 1.0)
    }
}

/// The ratio `second / first` over pairs, by the differences of their logarithms.
///
/// `confidence`: of the interval, in (0, 1).
///
/// # Errors
/// If there are no pairs, a value is not positive and finite, or the confidence is outside (0, 1).
pub fn paired_ratio(pairs: &[(f64, f64)], confidence: f64) -> Result<Ratio, Error> {
    let estimate = log_estimate(pairs)?;
    let logarithm = of_estimate(&estimate, confidence)
        .ok_or_else(|| invalid("confidence", format!("is {confidence}, expected a number in (0, 1)")))?;
    let interval = logarithm.interval.map(|interval| Interval {
        low: interval.low.exp(),
        high: interval.high.exp(),
        confidence: interval.confidence,
    });
    Ok(Ratio { mean: logarithm.mean.exp(), n: logarithm.n, interval, p_value: logarithm.p_value })
}

/// Mean and deviation of ln(second / first).
pub(super) fn log_estimate(pairs: &[(f64, f64)]) -> Result<Estimate, Error> {
    let positive = |index: usize, value: f64| {
        if value.is_finite() && value > 0.0 {
            return Ok(value.ln());
        }
        Err(invalid(format!("pair {index} of a ratio"), format!("is {value}, expected a positive finite number")))
    };
    let mut logarithms = Vec::with_capacity(pairs.len());
    let mut largest: f64 = 1.0; // a logarithm's own rounding is of the size of ε even near ln 1
    for (index, (first, second)) in pairs.iter().enumerate() {
        let (first, second) = (positive(index, *first)?, positive(index, *second)?);
        largest = largest.max(first.abs()).max(second.abs());
        logarithms.push(second - first);
    }
    estimate_beyond(&logarithms, 4.0 * f64::EPSILON * largest)
        .ok_or_else(|| invalid("pairs of a ratio", "there are none, expected at least one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pair_has_a_mean_and_no_interval() {
        let pair = paired_difference(&[(0.5, 0.75)], 0.95).unwrap();
        assert_eq!((pair.mean, pair.interval, pair.p_value), (0.25, None, None));
        let welch = welch_difference(&[0.5], &[0.75, 0.25], 0.95).unwrap();
        assert_eq!((welch.mean, welch.interval), (0.0, None));
        let ratio = paired_ratio(&[(2.0, 1.0)], 0.95).unwrap();
        assert_eq!((ratio.mean, ratio.interval, ratio.is_below_one()), (0.5, None, false));
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        assert_eq!(paired_difference(&[], 0.95), None);
        assert_eq!(paired_difference(&[(0.0, f64::NAN)], 0.95), None);
        for confidence in [0.0, 1.0, -1.0, f64::NAN] {
            assert_eq!(paired_difference(&[(0.0, 1.0), (0.0, 2.0)], confidence), None);
            assert!(paired_ratio(&[(1.0, 1.0), (1.0, 2.0)], confidence).is_err());
        }
    }

    #[test]
    fn a_constant_difference_has_no_interval_even_where_it_is_rounded() {
        // 0.89 − 0.87 and 0.90 − 0.88 are not the same double.
        let pairs = [(0.87, 0.89), (0.88, 0.90), (0.61, 0.63)];
        let constant = paired_difference(&pairs, 0.95).unwrap();
        assert!(constant.is_constant());
        assert_eq!((constant.interval, constant.p_value), (None, None));
        assert!((constant.mean - 0.02).abs() < 1e-15);
        let same = paired_difference(&[(0.3, 0.3), (0.1, 0.1)], 0.95).unwrap();
        assert_eq!((same.mean, same.is_constant(), same.p_value), (0.0, true, None));
        let ratio = paired_ratio(&[(0.1, 0.3), (0.7, 2.1), (1.1, 3.3)], 0.95).unwrap();
        assert_eq!(ratio.interval, None);
    }

    #[test]
    fn small_but_real_differences_are_kept() {
        let pairs = [(1e-20, 2e-20), (1e-20, 3e-20), (1e-20, 4e-20)];
        assert!(paired_difference(&pairs, 0.95).unwrap().interval.is_some());
    }

    /// Student's sleep data (1908), as R's `t.test(extra ~ group, data = sleep, paired = TRUE)` prints it.
    #[test]
    fn paired_difference_is_students_own() {
        let first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        let pairs: Vec<_> = first.into_iter().zip(second).collect();
        let paired = paired_difference(&pairs, 0.95).unwrap();
        let interval = paired.interval.unwrap();
        assert!((paired.p_value.unwrap() - 0.002833).abs() < 5e-7);
        assert!((interval.low - 0.7001142).abs() < 5e-8 && (interval.high - 2.4598858).abs() < 5e-8);
        // … and `t.test(extra ~ group, data = sleep)`: t = -1.8608, df = 17.776, p-value = 0.07939.
        let welch = welch_difference(&first, &second, 0.95).unwrap();
        assert!((welch.degrees_of_freedom.unwrap() - 17.776).abs() < 5e-4);
        assert!((welch.p_value.unwrap() - 0.07939).abs() < 5e-6);
        assert!((welch.interval.unwrap().high - 3.3654832).abs() < 5e-8);
    }

    #[test]
    fn a_ratio_is_faster_only_where_its_interval_excludes_one() -> Result<(), Error> {
        let noise = paired_ratio(&[(10.0, 9.0), (10.0, 11.0), (10.0, 9.97)], 0.95)?;
        assert!(noise.mean < 1.0 && !noise.is_below_one() && !noise.is_above_one());
        let half = paired_ratio(&[(10.0, 5.0), (10.0, 5.1), (10.0, 4.9)], 0.95)?;
        assert!(half.is_below_one() && half.p_value.is_some_and(|p_value| p_value < 0.001));
        // Turned round, the ratio is the reciprocal, and so is its interval.
        let twice = paired_ratio(&[(5.0, 10.0), (5.1, 10.0), (4.9, 10.0)], 0.95)?;
        assert!((half.mean * twice.mean - 1.0).abs() < 1e-14 && twice.is_above_one());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = paired_ratio(&[(1.0, 1.0), (bad, 1.0)], 0.95).unwrap_err().to_string();
            assert!(error.starts_with("pair 1 of a ratio: is "), "{error}");
        }
        assert!(paired_ratio(&[], 0.95).is_err());
        Ok(())
    }
}
