//! Holm's correction: of all the comparisons of a report, how many are significant by chance alone.

use serde::{Deserialize, Serialize};

use super::invalid;
use crate::Error;

/// One of several p-values, corrected for the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adjusted {
    /// What was compared.
    pub name: String,
    /// The p-value by itself.
    pub p_value: f64,
    /// The least error rate over all comparisons at which this one is significant; never below `p_value`.
    pub adjusted: f64,
}

/// Holm's step-down correction of named p-values, in the order given.
///
/// Rejecting what is adjusted below α keeps the chance of any false rejection below α, however the comparisons
/// depend on each other. Equal p-values are adjusted equally.
///
/// # Errors
/// If a p-value is not in [0, 1].
///
/// Source: Holm 1979, "A simple sequentially rejective multiple test procedure"; R's `p.adjust(p, "holm")`.
pub fn holm<S: AsRef<str>>(p_values: &[(S, f64)]) -> Result<Vec<Adjusted>, Error> {
    if let Some((name, p_value)) = p_values.iter().find(|(_, p_value)| !(0.0..=1.0).contains(p_value)) {
        let reason = format!("is {p_value}, expected a number in [0, 1]");
        return Err(invalid(format!("p-value of `{}`", name.as_ref()), reason));
    }
    let mut adjusted: Vec<Adjusted> = p_values
        .iter()
        .map(|(name, p_value)| Adjusted { name: name.as_ref().into(), p_value: *p_value, adjusted: *p_value })
        .collect();
    let mut rising: Vec<usize> = (0..p_values.len()).collect();
    rising.sort_by(|a, b| p_values[*a].1.total_cmp(&p_values[*b].1));
    let mut least: f64 = 0.0;
    for (rank, index) in rising.into_iter().enumerate() {
        let n_left = (p_values.len() - rank) as f64;
        least = least.max((n_left * p_values[index].1).min(1.0));
        adjusted[index].adjusted = least;
    }
    Ok(adjusted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn adjusted(p_values: &[f64]) -> Vec<f64> {
        let named: Vec<_> = p_values.iter().map(|p_value| ("arm", *p_value)).collect();
        holm(&named).unwrap().into_iter().map(|adjusted| adjusted.adjusted).collect()
    }

    /// R 4.3: `p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")` is `0.03 0.06 0.06 0.02`.
    #[test]
    fn holm_is_rs_p_adjust() {
        for (found, expected) in adjusted(&[0.01, 0.04, 0.03, 0.005]).into_iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-15, "{found} and {expected}");
        }
        assert_eq!(adjusted(&[0.5, 0.6]), [1.0, 1.0]);
        assert!(adjusted(&[]).is_empty());
    }

    #[test]
    fn what_is_no_probability_is_refused_by_name() {
        for bad in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
            let error = holm(&[("dense", 0.5), ("random", bad)]).unwrap_err().to_string();
            assert!(error.starts_with("p-value of `random`: is "), "{error}");
        }
    }

    proptest! {
        #[test]
        fn adjustment_keeps_order_and_lies_between_itself_and_bonferroni(
            p_values in prop::collection::vec(0.0_f64..=1.0, 1..12)
        ) {
            let n = p_values.len() as f64;
            let adjusted = adjusted(&p_values);
            for (i, p) in p_values.iter().enumerate() {
                prop_assert!(*p <= adjusted[i] && adjusted[i] <= (n * p).min(1.0));
                for (j, q) in p_values.iter().enumerate() {
                    prop_assert!(p > q || adjusted[i] <= adjusted[j]);
                }
            }
        }

        /// The definition: step down from the smallest, stop at the first that fails.
        #[test]
        fn rejecting_below_alpha_is_holms_procedure(
            p_values in prop::collection::vec(0.0_f64..0.2, 1..10), alpha in 0.001_f64..0.2
        ) {
            let mut sorted = p_values.clone();
            sorted.sort_by(f64::total_cmp);
            let n_rejected = sorted.iter().enumerate().take_while(|(rank, p)| {
                (sorted.len() - rank) as f64 * **p <= alpha
            }).count();
            let found = adjusted(&p_values).into_iter().filter(|adjusted| *adjusted <= alpha).count();
            prop_assert_eq!(found, n_rejected);
        }
    }
}
