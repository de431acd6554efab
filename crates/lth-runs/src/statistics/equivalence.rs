//! "As good as": equivalence and non-inferiority within a margin that the user states.
//!
//! That a difference is not significant never shows that there is none; these tests can show it, and can fail to.

use serde::{Deserialize, Serialize};

use super::difference::paired_estimate;
use super::distribution::{student_t_above, student_t_two_sided};
use super::estimate::{Estimate, Interval};
use super::{LEAST_SEEDS, invalid};
use crate::Error;

/// Which way a measure gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// The more the better: accuracy.
    Higher,
    /// The less the better: loss, seconds, steps.
    Lower,
}

/// Two one-sided tests of "the difference is smaller than the margin, either way" (TOST).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Equivalence {
    /// Mean of second − first.
    pub mean: f64,
    /// How many pairs.
    pub n: usize,
    /// The largest difference that does not matter, as the user states it.
    pub margin: f64,
    /// Student's interval with confidence 1 − 2α: it lies inside ±margin exactly where both tests succeed. `null`
    /// where nothing varies.
    pub interval: Option<Interval>,
    /// p-value of "the difference is −margin or less".
    pub p_low: Option<f64>,
    /// p-value of "the difference is +margin or more".
    pub p_high: Option<f64>,
    /// Whether both are below α. False where nothing varies: there is no test then.
    pub is_shown: bool,
}

impl Equivalence {
    /// The larger of the two p-values: that of the whole test.
    pub fn p_value(&self) -> Option<f64> {
        Some(self.p_low?.max(self.p_high?))
    }
}

/// A one-sided test of "second is at least as good as first, but for a margin".
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NonInferiority {
    /// Mean of second − first.
    pub mean: f64,
    /// How many pairs.
    pub n: usize,
    /// The loss that does not matter, 0 or more.
    pub margin: f64,
    /// Which way the measure gets better.
    pub better: Better,
    /// The worst mean difference that α does not exclude: the one-sided end of the interval. `null` where nothing varies.
    pub bound: Option<f64>,
    /// p-value of "second is worse by the margin or more".
    pub p_value: Option<f64>,
    /// Whether it is below α. False where nothing varies: there is no test then.
    pub is_shown: bool,
}

/// Whether the mean of `second − first` over `pairs` is nearer to 0 than `margin`.
///
/// `significance`: α, the error rate of each test, in (0, ½); 0.05 gives the interval a confidence of 90 %.
///
/// # Errors
/// If there are fewer than three pairs, a value is not finite, the margin is not positive, or α is out of range.
///
/// Source: Schuirmann 1987; Lakens 2017, "Equivalence tests".
pub fn equivalence(pairs: &[(f64, f64)], margin: f64, significance: f64) -> Result<Equivalence, Error> {
    of_estimate(&checked_estimate(pairs)?, margin, significance)
}

/// Whether the mean of `second − first` over `pairs` is worse than 0 by less than `margin`.
///
/// `margin` 0 asks whether it is better. `significance`: α of the test, in (0, ½).
///
/// # Errors
/// If there are fewer than three pairs, a value is not finite, the margin is negative, or α is out of range.
pub fn non_inferiority(
    pairs: &[(f64, f64)],
    margin: f64,
    better: Better,
    significance: f64,
) -> Result<NonInferiority, Error> {
    inferiority_of_estimate(&checked_estimate(pairs)?, margin, better, significance)
}

pub(super) fn of_estimate(estimate: &Estimate, margin: f64, significance: f64) -> Result<Equivalence, Error> {
    if !(margin > 0.0 && margin.is_finite()) {
        return Err(invalid("margin", format!("is {margin}, expected a positive finite number")));
    }
    let quantile = quantile(estimate, significance)?;
    let Estimate { mean, n, .. } = *estimate;
    let tested = error_of(estimate);
    let interval = tested.map(|(error, _)| Interval {
        low: mean - quantile * error,
        high: mean + quantile * error,
        confidence: 1.0 - 2.0 * significance,
    });
    let p_low = tested.map(|(error, free)| student_t_above((mean + margin) / error, free));
    let p_high = tested.map(|(error, free)| student_t_above((margin - mean) / error, free));
    let is_shown = [p_low, p_high].iter().all(|p_value| p_value.is_some_and(|p_value| p_value < significance));
    Ok(Equivalence { mean, n, margin, interval, p_low, p_high, is_shown })
}

pub(super) fn inferiority_of_estimate(
    estimate: &Estimate,
    margin: f64,
    better: Better,
    significance: f64,
) -> Result<NonInferiority, Error> {
    if !(margin >= 0.0 && margin.is_finite()) {
        return Err(invalid("margin", format!("is {margin}, expected a finite number of at least 0")));
    }
    let quantile = quantile(estimate, significance)?;
    let Estimate { mean, n, .. } = *estimate;
    let sign = if better == Better::Higher { 1.0 } else { -1.0 };
    let tested = error_of(estimate);
    let bound = tested.map(|(error, _)| mean - sign * quantile * error);
    let p_value = tested.map(|(error, free)| student_t_above((sign * mean + margin) / error, free));
    let is_shown = p_value.is_some_and(|p_value| p_value < significance);
    Ok(NonInferiority { mean, n, margin, better, bound, p_value, is_shown })
}

fn checked_estimate(pairs: &[(f64, f64)]) -> Result<Estimate, Error> {
    for (index, (first, second)) in pairs.iter().enumerate() {
        super::finite(&format!("first value of pair {index}"), *first)?;
        super::finite(&format!("second value of pair {index}"), *second)?;
    }
    paired_estimate(pairs).ok_or_else(|| few(pairs.len()))
}

/// Standard error and degrees of freedom, where something varies.
fn error_of(estimate: &Estimate) -> Option<(f64, f64)> {
    let error = estimate.standard_error().filter(|error| *error > 0.0)?;
    Some((error, (estimate.n - 1) as f64))
}

fn quantile(estimate: &Estimate, significance: f64) -> Result<f64, Error> {
    if estimate.n < LEAST_SEEDS {
        return Err(few(estimate.n));
    }
    student_t_two_sided(1.0 - 2.0 * significance, (estimate.n - 1) as f64)
        .ok_or_else(|| invalid("significance", format!("is {significance}, expected a number in (0, 0.5)")))
}

fn few(n: usize) -> Error {
    invalid("pairs", format!("there are {n}, expected at least {LEAST_SEEDS} for a verdict"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Student's sleep data (1908): differences 1.2, 2.4, 1.3, 1.3, 0, 1, 1.8, 0.8, 4.6, 1.4.
    fn sleep() -> Vec<(f64, f64)> {
        let first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        first.into_iter().zip(second).collect()
    }

    /// R's paired interval of these data, 0.7001142 to 2.4598858, is 1.58 ± 2.262157 standard errors on 9 degrees of
    /// freedom, so that one is 0.3889587; t(0.95, 9) = 1.833113 in every table.
    #[test]
    fn both_tests_are_students() -> Result<(), Error> {
        let test = equivalence(&sleep(), 3.0, 0.05)?;
        let (mean, error) = (1.58, 0.388_958_7);
        assert!((test.mean - mean).abs() < 1e-12);
        let interval = test.interval.unwrap();
        assert!((interval.low - (mean - 1.833_113 * error)).abs() < 1e-6, "{interval:?}");
        assert!((interval.high - (mean + 1.833_113 * error)).abs() < 1e-6, "{interval:?}");
        assert!((interval.confidence - 0.9).abs() < 1e-15);
        assert!(test.is_shown && test.p_high.unwrap() > test.p_low.unwrap());
        assert!(!equivalence(&sleep(), 2.0, 0.05)?.is_shown);
        assert_eq!(test.p_value(), test.p_high);
        Ok(())
    }

    #[test]
    fn at_least_as_good_asks_one_side_only() -> Result<(), Error> {
        let far_better = [(0.90, 0.95), (0.91, 0.97), (0.89, 0.93)];
        assert!(!equivalence(&far_better, 0.01, 0.05)?.is_shown);
        assert!(non_inferiority(&far_better, 0.01, Better::Higher, 0.05)?.is_shown);
        assert!(!non_inferiority(&far_better, 0.01, Better::Lower, 0.05)?.is_shown);
        // Margin 0 is the one-sided test of "better".
        let better = non_inferiority(&far_better, 0.0, Better::Higher, 0.05)?;
        let two_sided = super::super::paired_difference(&far_better, 0.9).unwrap();
        assert!((better.p_value.unwrap() - two_sided.p_value.unwrap() / 2.0).abs() < 1e-15);
        assert!((better.bound.unwrap() - two_sided.interval.unwrap().low).abs() < 1e-12);
        Ok(())
    }

    #[test]
    fn what_cannot_be_tested_is_refused_or_not_shown() -> Result<(), Error> {
        let two = [(0.1, 0.2), (0.1, 0.3)];
        assert_eq!(
            equivalence(&two, 0.1, 0.05).unwrap_err().to_string(),
            "pairs: there are 2, expected at least 3 for a verdict"
        );
        let bad = [(0.1, 0.2), (f64::NAN, 0.3), (0.1, 0.2)];
        assert_eq!(
            non_inferiority(&bad, 0.1, Better::Higher, 0.05).unwrap_err().to_string(),
            "first value of pair 1: is NaN, expected a finite number"
        );
        for margin in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(equivalence(&sleep(), margin, 0.05).is_err());
        }
        assert!(non_inferiority(&sleep(), -0.1, Better::Higher, 0.05).is_err());
        for significance in [0.0, 0.5, f64::NAN] {
            assert!(equivalence(&sleep(), 1.0, significance).is_err());
        }
        let constant = equivalence(&[(0.5, 0.6); 4], 0.5, 0.05)?;
        assert_eq!((constant.interval, constant.p_value(), constant.is_shown), (None, None, false));
        Ok(())
    }

    proptest! {
        #[test]
        fn equivalence_is_the_interval_inside_the_margin(
            differences in prop::collection::vec(-1.0_f64..1.0, 3..10),
            margin in 0.01_f64..2.0,
            significance in 0.01_f64..0.2,
        ) {
            let pairs: Vec<_> = differences.iter().map(|difference| (0.0, *difference)).collect();
            let test = equivalence(&pairs, margin, significance).unwrap();
            let interval = test.interval.unwrap();
            let slack = (margin - interval.high).min(interval.low + margin);
            prop_assume!(slack.abs() > 1e-9); // on the margin itself rounding decides
            prop_assert_eq!(test.is_shown, slack > 0.0);
            // Equivalence is non-inferiority both ways.
            let ways = [Better::Higher, Better::Lower];
            let both = ways.iter().all(|better| {
                non_inferiority(&pairs, margin, *better, significance).unwrap().is_shown
            });
            prop_assert_eq!(test.is_shown, both);
        }
    }
}
