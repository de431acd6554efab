//! What a report may say: a question, its test, and a verdict with the numbers it rests on.

use serde::{Deserialize, Serialize};

use super::difference::{log_estimate, paired_estimate};
use super::distribution::{student_t_tail, student_t_two_sided};
use super::equivalence::{Better, inferiority_of_estimate, of_estimate};
use super::estimate::{Estimate, Interval};
use super::{LEAST_SEEDS, finite, holm, invalid};
use crate::Error;

/// How two values of a measure are set against each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Fractions in [0, 1]; their difference is told in percentage points.
    Points,
    /// A difference in this unit, which may be empty: "steps", "nats".
    Unit(String),
    /// Positive quantities; their ratio. A margin of 1.05 reaches from 1 / 1.05 to 1.05.
    Ratio,
}

/// What is compared, and the words for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// "test accuracy", "seconds per epoch"
    pub name: String,
    /// Difference or ratio.
    pub scale: Scale,
    /// Which way it gets better.
    pub better: Better,
    /// The word for more: "higher", "slower", "later".
    pub higher: String,
    /// The word for less: "lower", "faster", "sooner".
    pub lower: String,
}

impl Measure {
    /// A fraction that is better when it is higher: accuracy.
    pub fn accuracy(name: impl Into<String>) -> Self {
        Self::new(name, Scale::Points, Better::Higher, ["higher", "lower"])
    }

    /// A time, compared by its ratio: "slower" and "faster".
    pub fn time(name: impl Into<String>) -> Self {
        Self::new(name, Scale::Ratio, Better::Lower, ["slower", "faster"])
    }

    /// A number of steps, compared by its ratio: "later" and "sooner".
    pub fn steps(name: impl Into<String>) -> Self {
        Self::new(name, Scale::Ratio, Better::Lower, ["later", "sooner"])
    }

    /// A loss, which is better when it is lower.
    pub fn loss(name: impl Into<String>) -> Self {
        Self::new(name, Scale::Unit(String::new()), Better::Lower, ["higher", "lower"])
    }

    fn new(name: impl Into<String>, scale: Scale, better: Better, [higher, lower]: [&str; 2]) -> Self {
        Self { name: name.into(), scale, better, higher: higher.into(), lower: lower.into() }
    }
}

/// What is asked of two arms. A margin is in the measure's own unit (0.005 for half a point), or a ratio above 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// That they differ: two-sided.
    Differs,
    /// That they differ by less than the margin: two one-sided tests.
    Equivalent {
        /// The largest difference that does not matter.
        margin: f64,
    },
    /// That the subject is worse by less than the margin, or better: one-sided.
    AtLeastAsGood {
        /// The loss that does not matter.
        margin: f64,
    },
}

/// One comparison of a report: a subject against a reference over the same seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Under what circumstances: "at 13.5 % of weights". May be empty.
    pub setting: String,
    /// Whose value is the second of each pair: "ticket".
    pub subject: String,
    /// Whose value is the first of each pair: "dense".
    pub reference: String,
    /// What is compared.
    pub measure: Measure,
    /// What is asked.
    pub claim: Claim,
    /// (reference, subject), a pair a seed.
    pub pairs: Vec<(f64, f64)>,
}

/// What the numbers say of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// The subject's value is higher.
    Higher,
    /// The subject's value is lower.
    Lower,
    /// They differ by less than the margin.
    Equivalent,
    /// The subject is worse by less than the margin, or better.
    AtLeastAsGood,
    /// Every seed has the same value under both.
    Identical,
    /// What was claimed is not shown; that it is false is not shown either.
    NotSupported,
    /// Fewer than three seeds.
    TooFewSeeds,
}

/// A sentence (its `Display`) with the numbers that it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What it comes to.
    pub kind: VerdictKind,
    /// Under what circumstances; may be empty.
    pub setting: String,
    /// Who was compared.
    pub subject: String,
    /// With whom.
    pub reference: String,
    /// In what.
    pub measure: Measure,
    /// What was asked.
    pub claim: Claim,
    /// How many seeds.
    pub n_seeds: usize,
    /// Mean of subject − reference, or for [`Scale::Ratio`] the geometric mean of subject / reference.
    pub mean: f64,
    /// Its interval: of 1 − α for [`Claim::Differs`], of 1 − 2α for a margin, of which [`Claim::AtLeastAsGood`] looks
    /// at one end only. `null` where n = 1 or nothing varies.
    pub interval: Option<Interval>,
    /// p-value of the claim's test by itself; for equivalence the larger of two.
    pub p_value: Option<f64>,
    /// `p_value` after Holm's correction over all questions that were asked together.
    pub adjusted: Option<f64>,
    /// Over how many questions with a p-value that was.
    pub n_comparisons: usize,
}

/// Answers all questions of a report together, so that Holm's correction covers them all.
///
/// `significance`: α, in (0, ½): the chance of any unfounded claim among the verdicts. Questions with fewer than
/// three seeds, and those where nothing varies, have no test and do not count in the correction.
///
/// # Errors
/// If a question has no pairs, a value that is not finite (for a ratio, positive), or a margin out of range; if α is
/// out of range. The message names the question.
pub fn verdicts(questions: &[Question], significance: f64) -> Result<Vec<Verdict>, Error> {
    if !(significance > 0.0 && significance < 0.5) {
        return Err(invalid("significance", format!("is {significance}, expected a number in (0, 0.5)")));
    }
    let tests: Vec<Test> =
        questions.iter().map(|question| test(question, significance)).collect::<Result<_, Error>>()?;
    let named: Vec<(String, f64)> = questions
        .iter()
        .zip(&tests)
        .filter_map(|(question, test)| Some((question.name(), test.p_value.filter(|_| test.is_enough())?)))
        .collect();
    let mut adjusted = holm(&named)?.into_iter().map(|adjusted| adjusted.adjusted);
    let answers = questions.iter().zip(tests).map(|(question, test)| {
        let adjusted = if test.is_enough() && test.p_value.is_some() { adjusted.next() } else { None };
        test.verdict(question, adjusted, named.len(), significance)
    });
    Ok(answers.collect())
}

impl Question {
    /// "test accuracy of ticket against dense at 13.5 % of weights"
    pub fn name(&self) -> String {
        let setting = if self.setting.is_empty() { String::new() } else { format!(" {}", self.setting) };
        format!("{} of {} against {}{setting}", self.measure.name, self.subject, self.reference)
    }
}

/// A question's test before correction; on the logarithm for a ratio.
struct Test {
    estimate: Estimate,
    interval: Option<Interval>,
    p_value: Option<f64>,
}

fn test(question: &Question, significance: f64) -> Result<Test, Error> {
    let named = |error: Error| match error {
        Error::Invalid { record, reason } => invalid(format!("{}: {record}", question.name()), reason),
        other => other,
    };
    let is_ratio = question.measure.scale == Scale::Ratio;
    let estimate = if is_ratio {
        log_estimate(&question.pairs).map_err(named)?
    } else {
        for (index, (first, second)) in question.pairs.iter().enumerate() {
            finite(&format!("pair {index}"), *first).map_err(named)?;
            finite(&format!("pair {index}"), *second).map_err(named)?;
        }
        paired_estimate(&question.pairs)
            .ok_or_else(|| invalid(question.name(), "has no pairs, expected one for each seed"))?
    };
    let margin = |margin: f64| {
        if is_ratio && !(margin >= 1.0 && margin.is_finite()) {
            let reason = format!("is {margin}, expected a ratio above 1");
            return Err(named(invalid("margin", reason)));
        }
        Ok(if is_ratio { margin.ln() } else { margin })
    };
    // Margins are checked for few seeds too: more seeds may come, and a bad margin should not wait for them.
    let enough = Estimate { n: estimate.n.max(LEAST_SEEDS), ..estimate };
    let p_value = match question.claim {
        Claim::Differs => {
            let error = estimate.standard_error().filter(|error| *error > 0.0);
            error.map(|error| student_t_tail(estimate.mean / error, (estimate.n - 1) as f64))
        }
        Claim::Equivalent { margin: m } => of_estimate(&enough, margin(m)?, significance).map_err(named)?.p_value(),
        Claim::AtLeastAsGood { margin: m } => {
            inferiority_of_estimate(&enough, margin(m)?, question.measure.better, significance).map_err(named)?.p_value
        }
    };
    let confidence = match question.claim {
        Claim::Differs => 1.0 - significance,
        _ => 1.0 - 2.0 * significance,
    };
    let back = |value: f64| if is_ratio { value.exp() } else { value };
    let interval = estimate.standard_error().filter(|error| *error > 0.0).and_then(|error| {
        let half = error * student_t_two_sided(confidence, (estimate.n - 1) as f64)?;
        Some(Interval { low: back(estimate.mean - half), high: back(estimate.mean + half), confidence })
    });
    Ok(Test { estimate, interval, p_value })
}

impl Test {
    fn is_enough(&self) -> bool {
        self.estimate.n >= LEAST_SEEDS
    }

    fn verdict(self, question: &Question, adjusted: Option<f64>, n_comparisons: usize, significance: f64) -> Verdict {
        let Estimate { mean, n, .. } = self.estimate;
        let is_shown = adjusted.is_some_and(|adjusted| adjusted < significance);
        let kind = match question.claim {
            _ if !self.is_enough() => VerdictKind::TooFewSeeds,
            _ if self.estimate.is_constant() && mean == 0.0 => VerdictKind::Identical,
            _ if !is_shown => VerdictKind::NotSupported,
            Claim::Differs if mean > 0.0 => VerdictKind::Higher,
            Claim::Differs => VerdictKind::Lower,
            Claim::Equivalent { .. } => VerdictKind::Equivalent,
            Claim::AtLeastAsGood { .. } => VerdictKind::AtLeastAsGood,
        };
        Verdict {
            kind,
            setting: question.setting.clone(),
            subject: question.subject.clone(),
            reference: question.reference.clone(),
            measure: question.measure.clone(),
            claim: question.claim,
            n_seeds: n,
            mean: if question.measure.scale == Scale::Ratio { mean.exp() } else { mean },
            interval: self.interval,
            p_value: self.p_value.filter(|_| n >= LEAST_SEEDS),
            adjusted,
            n_comparisons,
        }
    }
}
