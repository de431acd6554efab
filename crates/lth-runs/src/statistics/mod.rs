//! Small samples told honestly: means, differences, their intervals, and the verdicts that they allow.
//!
//! One seed has a value but no deviation, and equal values have no interval: what cannot be computed is `None`,
//! never 0 or NaN. A verdict needs three seeds ([`LEAST_SEEDS`]).
//!
//! | question | answer |
//! |---|---|
//! | how good is an arm | [`Estimate::of`] over seeds, [`Estimate::interval`] |
//! | does the ticket differ from an arm | [`paired_difference`] over seeds |
//! | … and how many times as long does it take | [`paired_ratio`] |
//! | is it as good | [`equivalence`], [`non_inferiority`], with a margin that the user states |
//! | all comparisons of a report at once | [`verdicts`], corrected by [`holm`] |
//! | two networks on the same pictures, one seed | [`mcnemar`] on their [`Hits`] |
//! | when would it have been stopped | [`early_stop`] |
//! | do two runs end in one linearly connected minimum | [`instability`] |

mod curve;
mod difference;
mod distribution;
mod equivalence;
mod estimate;
mod hits;
mod holm;
mod share;
mod verdict;
mod verdict_text;

pub use curve::{EarlyStop, Instability, STABLE, early_stop, instability};
pub use difference::{Difference, Ratio, paired_difference, paired_ratio, welch_difference};
pub use equivalence::{Better, Equivalence, NonInferiority, equivalence, non_inferiority};
pub use estimate::{Estimate, Interval};
pub use hits::Hits;
pub use holm::{Adjusted, holm};
pub use share::{McNemar, mcnemar, wilson_interval};
pub use verdict::{Claim, Measure, Question, Scale, Verdict, VerdictKind, verdicts};
pub(crate) use verdict_text::{p_value as p_value_text, plain};

/// The confidence of the intervals in a report.
pub const CONFIDENCE: f64 = 0.95;

/// The error rate that a report's verdicts keep.
pub const SIGNIFICANCE: f64 = 0.05;

/// Fewer seeds than these give no verdict.
pub const LEAST_SEEDS: usize = 3;

/// `value`, refused if it is not finite. `record` is what it belongs to, as an error names it.
fn finite(record: &str, value: f64) -> Result<f64, crate::Error> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(invalid(record, format!("is {value}, expected a finite number")))
}

fn invalid(record: impl Into<String>, reason: impl Into<String>) -> crate::Error {
    crate::Error::Invalid { record: record.into(), reason: reason.into() }
}
