//! Small samples told honestly: means, deviations, differences and their intervals.
//!
//! One seed has a value but no deviation: what cannot be computed is `None`, never 0 or NaN.

mod distribution;

use serde::{Deserialize, Serialize};

use distribution::{normal_two_sided, student_t_tail, student_t_two_sided};

/// The confidence of the intervals in a report.
pub const CONFIDENCE: f64 = 0.95;

/// Mean and spread of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (divisor n − 1); `null` for n = 1.
    pub deviation: Option<f64>,
    /// How many values.
    pub n: usize,
}

impl Estimate {
    /// The estimate from `values`; `None` if there are none or one is not finite.
    pub fn of(values: &[f64]) -> Option<Estimate> {
        let n = values.len();
        if n == 0 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        // Deviations from the first value: equal values give exactly that value and exactly no deviation.
        let first = values[0];
        let mean = first + values.iter().map(|value| value - first).sum::<f64>() / n as f64;
        let deviation = (n > 1).then(|| {
            let (squares, sum) = values.iter().fold((0.0, 0.0), |(squares, sum), value| {
                let distance = value - mean;
                (squares + distance * distance, sum + distance)
            });
            // The second term is zero but for rounding of the mean.
            ((squares - sum * sum / n as f64) / (n - 1) as f64).max(0.0).sqrt()
        });
        Some(Estimate { mean, deviation, n })
    }

    /// Deviation / √n; `None` for n = 1.
    pub fn standard_error(&self) -> Option<f64> {
        self.deviation.map(|deviation| deviation / (self.n as f64).sqrt())
    }

    /// Student's t interval for the mean; `None` for n = 1 or a confidence outside (0, 1).
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        let half = self.standard_error()? * student_t_two_sided(confidence, (self.n - 1) as f64)?;
        Some(Interval { low: self.mean - half, high: self.mean + half, confidence })
    }
}

/// Where a true value lies with some confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The share of such intervals that hold the true value, in (0, 1).
    pub confidence: f64,
}

impl Interval {
    /// Whether `value` lies in it, ends included.
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// A difference of two means.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Second minus first.
    pub mean: f64,
    /// How many pairs, or how many values in the smaller sample.
    pub n: usize,
    /// Standard error of `mean`; `null` where it cannot be computed (n = 1).
    pub standard_error: Option<f64>,
    /// Degrees of freedom of the t distribution.
    pub degrees_of_freedom: Option<f64>,
    /// Student's t interval.
    pub interval: Option<Interval>,
    /// Two-sided p-value of "no difference".
    pub p_value: Option<f64>,
}

/// The mean of `second − first` over pairs (the same seed under two treatments).
///
/// `None` if there are no pairs, a value is not finite, or the confidence is outside (0, 1).
pub fn paired_difference(pairs: &[(f64, f64)], confidence: f64) -> Option<Difference> {
    let differences: Vec<f64> = pairs.iter().map(|(first, second)| second - first).collect();
    let estimate = Estimate::of(&differences)?;
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
        // Both variances zero: any degrees of freedom give the same interval, a point.
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
    let known = standard_error.zip(degrees_of_freedom);
    let interval = known.and_then(|(error, free)| {
        let half = error * student_t_two_sided(confidence, free)?;
        Some(Interval { low: mean - half, high: mean + half, confidence })
    });
    let p_value = known.map(|(error, free)| match (error == 0.0, mean == 0.0) {
        (true, true) => 1.0,
        (true, false) => 0.0,
        (false, _) => student_t_tail(mean / error, free),
    });
    Some(Difference { mean, n, standard_error, degrees_of_freedom, interval, p_value })
}

/// Wilson's score interval for a share of which `successes` of `trials` is the sample (Wilson 1927).
///
/// For the accuracy of one network on one validation set: it says how far the set's size alone lets the true
/// accuracy lie. `None` for no trials, more successes than trials, or a confidence outside (0, 1).
pub fn wilson_interval(successes: u64, trials: u64, confidence: f64) -> Option<Interval> {
    if trials == 0 || successes > trials {
        return None;
    }
    let z = normal_two_sided(confidence)?;
    let (n, share) = (trials as f64, successes as f64 / trials as f64);
    let centre = share + z * z / (2.0 * n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z * z / n;
    // The ends are exact where no or every trial succeeded.
    let low = if successes == 0 { 0.0 } else { (centre - half) / scale };
    let high = if successes == trials { 1.0 } else { (centre + half) / scale };
    Some(Interval { low, high, confidence })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        let tolerance = 1e-12 * expected.abs().max(1e-3);
        assert!((found - expected).abs() <= tolerance, "found {found}, expected {expected}");
    }

    #[test]
    fn one_value_has_no_deviation() {
        let one = Estimate::of(&[0.87]).unwrap();
        assert_eq!(one, Estimate { mean: 0.87, deviation: None, n: 1 });
        assert_eq!((one.standard_error(), one.interval(CONFIDENCE)), (None, None));
        let pair = paired_difference(&[(0.5, 0.75)], CONFIDENCE).unwrap();
        assert_eq!((pair.mean, pair.interval, pair.p_value), (0.25, None, None));
        let welch = welch_difference(&[0.5], &[0.75, 0.25], CONFIDENCE).unwrap();
        assert_eq!((welch.mean, welch.interval), (0.0, None));
    }

    #[test]
    fn nothing_is_made_of_nothing() {
        assert_eq!(Estimate::of(&[]), None);
        assert_eq!(Estimate::of(&[1.0, f64::NAN]), None);
        assert_eq!(paired_difference(&[], CONFIDENCE), None);
        assert_eq!(wilson_interval(0, 0, CONFIDENCE), None);
        assert_eq!(wilson_interval(2, 1, CONFIDENCE), None);
        for confidence in [0.0, 1.0, -1.0, f64::NAN] {
            assert_eq!(wilson_interval(1, 2, confidence), None);
            assert_eq!(paired_difference(&[(0.0, 1.0), (0.0, 2.0)], confidence), None);
        }
    }

    #[test]
    fn deviation_divides_by_n_minus_one() {
        let estimate = Estimate::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        close(estimate.mean, 5.0);
        close(estimate.deviation.unwrap(), (32.0_f64 / 7.0).sqrt());
    }

    #[test]
    fn equal_values_do_not_deviate() {
        let estimate = Estimate::of(&[0.1; 7]).unwrap();
        assert_eq!((estimate.mean, estimate.deviation), (0.1, Some(0.0)));
        let same = paired_difference(&[(0.3, 0.3), (0.1, 0.1)], CONFIDENCE).unwrap();
        assert_eq!(same.p_value, Some(1.0));
    }

    #[test]
    fn deviation_survives_a_large_offset() {
        let estimate = Estimate::of(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]).unwrap();
        assert_eq!((estimate.mean, estimate.deviation), (1e9 + 10.0, Some(30.0_f64.sqrt())));
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
    fn wilson_has_its_closed_form_at_the_ends() {
        let z = normal_two_sided(0.95).unwrap();
        let all = wilson_interval(10, 10, 0.95).unwrap();
        assert_eq!(all.high, 1.0);
        close(all.low, 10.0 / (10.0 + z * z));
        let none = wilson_interval(0, 10, 0.95).unwrap();
        assert_eq!(none.low, 0.0);
        close(none.high, z * z / (10.0 + z * z));
        let half = wilson_interval(50, 100, 0.95).unwrap();
        close(half.low + half.high, 1.0);
        assert!(half.contains(0.5) && !half.contains(0.3));
    }
}
