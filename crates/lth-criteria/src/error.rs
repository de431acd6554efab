use crate::{Input, Normalization};

/// What can go wrong while scores are computed or their inputs collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A criterion needs a tensor that was not given.
    #[error("criterion `{criterion}` needs the {input} of `{weight}`, which was not given")]
    MissingInput {
        /// The criterion.
        criterion: String,
        /// The weight that should be scored.
        weight: String,
        /// What is missing.
        input: Input,
    },
    /// A tensor does not fit the weight it belongs to.
    #[error("{input} of `{weight}` has shape {got:?}, expected {expected}")]
    Shape {
        /// The weight.
        weight: String,
        /// Which of its tensors.
        input: Input,
        /// The shape that was given.
        got: Vec<usize>,
        /// The shape or shapes that fit.
        expected: String,
    },
    /// A tensor holds NaN or an infinite value.
    #[error("{what} of `{weight}` is {value} at flat index {index}, expected a finite number")]
    NotFinite {
        /// The weight.
        weight: String,
        /// Which tensor: an input's name, or the score of a criterion.
        what: String,
        /// Row-major index of the first such value.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A parameter that should be scored is not among the tensors given.
    #[error("{what} has no tensor named `{weight}`")]
    UnknownWeight {
        /// Where it was looked for.
        what: &'static str,
        /// The name.
        weight: String,
    },
    /// A parameter of a criterion or collector outside its range.
    #[error("{parameter} is {got}, expected {expected}")]
    Parameter {
        /// What the parameter is called.
        parameter: &'static str,
        /// The value that was given.
        got: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// Scores that cannot be normalised.
    #[error(
        "scores of `{weight}` have no scale: their {normalization:?} normalisation divides by {got}, expected a positive finite number"
    )]
    Scale {
        /// The weight.
        weight: String,
        /// What the scores should have been measured in.
        normalization: Normalization,
        /// The denominator.
        got: f64,
    },
    /// Text that spells no criterion.
    #[error("`{got}` is no criterion, expected one of {expected}")]
    Spelling {
        /// The text.
        got: String,
        /// The spellings that are accepted.
        expected: String,
    },
    /// An error of candle, from an operator or from a closure of the caller.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
