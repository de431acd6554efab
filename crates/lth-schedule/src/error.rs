use crate::{Moment, TrainingLength};

/// What can be wrong with a sparsity, a schedule or a window.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A sparsity outside [0, 1], or not a number.
    #[error("sparsity is {got}, expected a fraction in [0, 1]")]
    Sparsity {
        /// The value that was given, as a fraction.
        got: f64,
    },
    /// A parameter of a schedule, a window or a rate outside its range.
    #[error("{parameter} is {got}, expected {expected}")]
    Parameter {
        /// What the parameter is called, with its schedule.
        parameter: &'static str,
        /// The value that was given.
        got: String,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// Text that spells no value of the type asked for.
    #[error("`{got}` is no {what}, expected {expected}")]
    Spelling {
        /// What the text should have been.
        what: &'static str,
        /// The text.
        got: String,
        /// The spellings that are accepted.
        expected: &'static str,
    },
    /// The spelling of a curve of one's own, of which text has only the name.
    #[error(
        "`{schedule}` is a curve of one's own, which cannot be read from text or a file, expected it from code by Schedule::own"
    )]
    Own {
        /// The text, `own(name)`.
        schedule: String,
    },
    /// A curve of one's own that is not a number somewhere.
    #[error("progress of {schedule} at position {position} is NaN, expected a number in [0, 1]")]
    CurveNan {
        /// The schedule, `own(name)`.
        schedule: String,
        /// Where, in [0, 1].
        position: f64,
    },
    /// A window that ends before it starts, or has no length.
    #[error("window from {start} to {end} is empty, expected an end after the start")]
    EmptyWindow {
        /// Where the window should start.
        start: Moment,
        /// Where it should end.
        end: Moment,
    },
    /// A moment after the end of the training.
    #[error("moment {moment} lies after the end of {length}")]
    AfterEnd {
        /// The moment.
        moment: Moment,
        /// Length of the training.
        length: TrainingLength,
    },
}
