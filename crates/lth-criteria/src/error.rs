use std::fmt;

use candle_core::DType;

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
    /// Weights to which a backward pass gave no gradient.
    #[error(
        "the loss gives no gradient to {weights}, expected one for every variable: leave frozen ones out of the \
         variables, and see whether an operator without a backward pass lies between the others and the loss"
    )]
    NoGradient {
        /// The weights.
        weights: Names,
    },
    /// What a difference of gradients is taken of is not in double precision.
    #[error(
        "{what} is {}, expected f64: build the network (`VarBuilder` with `DType::F64`) and its batches in f64, since a \
         difference of two gradients is all rounding in less",
        got.as_str()
    )]
    NotDouble {
        /// The loss, or a weight or gradient by name.
        what: String,
        /// Its type.
        got: DType,
    },
    /// A product with the Hessian that two lengths of the step do not agree on.
    #[error(
        "Hessian products by two step lengths differ by {got:.1e} of their norm, expected at most {expected:.0e}: the \
         loss bends within the step, draws random numbers (dropout), or is partly computed in less than f64"
    )]
    HessianStep {
        /// Norm of the difference over the norm of the product.
        got: f64,
        /// What is accepted.
        expected: f64,
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
    Candle(candle_core::Error),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(without_backtrace(error))
    }
}

/// candle's error without the backtrace that `RUST_BACKTRACE=1` makes part of its message: twenty lines where one is read.
fn without_backtrace(error: candle_core::Error) -> candle_core::Error {
    use candle_core::Error as Candle;
    match error {
        Candle::WithBacktrace { inner, .. } => without_backtrace(*inner),
        Candle::Context { inner, context } => Candle::Context { inner: Box::new(without_backtrace(*inner)), context },
        Candle::WithPath { inner, path } => Candle::WithPath { inner: Box::new(without_backtrace(*inner)), path },
        error => error,
    }
}

/// Names of weights, as an error lists them: at most eight, and how many more there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let shown: Vec<String> = self.0.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
        f.write_str(&shown.join(", "))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
