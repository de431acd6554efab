use std::borrow::Cow;
use std::path::PathBuf;

use candle_core::DType;

use crate::text::on_one_line;

/// What can be wrong with scores, masks, a selection or a mask file.
///
/// An error about one tensor arrives as [`Error::Named`]: the tensor's name around what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What is wrong with the tensor of this name.
    #[error("`{}`: {source}", on_one_line(name))]
    Named {
        /// The parameter's name.
        name: String,
        /// What is wrong with it; part of the message, so that a chain of causes does not say it again.
        r#source: Box<Error>,
    },
    /// A mask meets a tensor or a mask of another shape.
    #[error("mask has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The mask's shape.
        got: Vec<usize>,
        /// The shape of what it should fit.
        expected: Vec<usize>,
    },
    /// A shape with more elements than this machine can address.
    #[error("shape {0:?} has too many elements")]
    TooManyElements(Vec<usize>),
    /// Packed bits do not fit their shape.
    #[error("packed mask has {got} bytes, expected {expected}")]
    PackedLength {
        /// Bytes given.
        got: usize,
        /// Bytes that the shape needs.
        expected: usize,
    },
    /// Unused bits after the last weight are set.
    #[error("packed mask has bits set after its last weight")]
    PaddingBits,
    /// A mask tensor holds something other than 0 and 1.
    #[error("mask value at flat index {index} is {value}, expected 0 or 1")]
    MaskValue {
        /// Flat index, row-major.
        index: usize,
        /// The value there.
        value: f64,
    },
    /// A dtype that is not taken here.
    #[error("dtype is {got:?}, expected {expected}")]
    Dtype {
        /// The tensor's dtype.
        got: DType,
        /// What is taken.
        expected: &'static str,
    },
    /// NaN or infinity where a score is needed.
    #[error("score at flat index {index} is {value}, expected a finite number")]
    NotFinite {
        /// Flat index, row-major, in the tensor of scores (of groups, where scores were grouped).
        index: usize,
        /// The value there.
        value: f32,
    },
    /// Scores in f64 that f32 cannot tell apart.
    #[error(
        "score of largest magnitude is {value:e}, at flat index {index}, which is out of f32's range: expected scores times one factor that brings it near 1"
    )]
    Range {
        /// Flat index, row-major.
        index: usize,
        /// The value there.
        value: f64,
    },
    /// LAMP squares magnitudes: a negative score has none.
    #[error("score at flat index {index} is {value}, expected a magnitude of at least 0 for LAMP")]
    NegativeScore {
        /// Flat index of the group.
        index: usize,
        /// The value there.
        value: f32,
    },
    /// Squares turn the order of negative scores round, so that a norm of them keeps the wrong groups.
    #[error(
        "score at flat index {index} is {value}, but a group's L2 norm needs scores of at least 0: reduce by mean, sum or max"
    )]
    NegativeNorm {
        /// Flat index of the score.
        index: usize,
        /// The value there.
        value: f32,
    },
    /// A sparsity outside [0, 1], or NaN.
    #[error("sparsity is {0}, expected a fraction in [0, 1]")]
    Sparsity(f64),
    /// A granularity that a tensor of this shape cannot have.
    #[error("granularity {granularity} does not fit shape {shape:?}: {reason}")]
    Granularity {
        /// The granularity, as text.
        granularity: String,
        /// The tensor's shape.
        shape: Vec<usize>,
        /// Why not.
        reason: Cow<'static, str>,
    },
    /// The spelling of a granularity of one's own, of which text has only the name.
    #[error(
        "`{granularity}` is a granularity of one's own, which cannot be read from text or a file, expected it from code by Granularity::own"
    )]
    Own {
        /// The text, `own(name)`.
        granularity: String,
    },
    /// An N:M pattern cannot be that sparse.
    #[error("{n}:{m} prunes at most {most} of {weights} weights, asked for {asked}")]
    PatternTooSparse {
        /// Weights kept of each block.
        n: usize,
        /// Weights of a block.
        m: usize,
        /// The most that can be pruned.
        most: usize,
        /// Weights in all.
        weights: usize,
        /// What was asked for.
        asked: usize,
    },
    /// A pattern of names that fits none of the tensors.
    #[error("{setting} has `{pattern}`, which fits no tensor of {}{}", Listed(names), Meant(close))]
    Pattern {
        /// The setting: `keep_dense`, `transposed`, …
        setting: &'static str,
        /// The pattern, or name.
        pattern: String,
        /// Names that may be meant, nearest first.
        close: Vec<String>,
        /// The names that were given.
        names: Vec<String>,
    },
    /// What was to give a tensor's scores failed.
    #[error("its scores cannot be had: {0}")]
    Scores(Box<dyn std::error::Error + Send + Sync>),
    /// Scores that are looked at several times were not the same each time.
    #[error("scores changed while they were selected, expected the same each time they are asked for")]
    Changed,
    /// Settings that exclude each other.
    #[error("{0}")]
    Selection(String),
    /// A tensor is not 0 where its mask prunes.
    #[error("weight at flat index {index} is pruned but not 0, expected a masked tensor")]
    NotMasked {
        /// Flat index, row-major.
        index: usize,
    },
    /// A name that does not exist where it is needed.
    #[error("no {what} of this name, expected one")]
    Missing {
        /// What is missing: a tensor, a mask, a score.
        what: &'static str,
    },
    /// A name that is not allowed, or is there twice.
    #[error("name is {0}")]
    Name(&'static str),
    /// A file of masks that is damaged, or none.
    #[error("mask file: {}", on_one_line(.0))]
    File(String),
    /// A file of masks that is larger than any that is read.
    #[error("mask file has {got} bytes, expected at most {most}")]
    FileTooLarge {
        /// The file's size.
        got: u64,
        /// The most that is read.
        most: u64,
    },
    /// The content is not what its checksum says.
    #[error("mask file has checksum {got}, expected {expected}")]
    Checksum {
        /// SHA-256 of the content.
        got: String,
        /// SHA-256 in the header.
        expected: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        r#source: std::io::Error,
    },
    /// A tensor operation failed.
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

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says which tensor an error is about.
pub(crate) trait Named<T> {
    fn named(self, name: &str) -> Result<T>;
}

impl<T, E: Into<Error>> Named<T> for Result<T, E> {
    fn named(self, name: &str) -> Result<T> {
        self.map_err(|source| match source.into() {
            named @ Error::Named { .. } => named,
            source => Error::Named { name: name.to_owned(), source: Box::new(source) },
        })
    }
}

/// The first names of a list.
struct Listed<'a>(&'a [String]);

impl std::fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 12;
        let Self(names) = self;
        if names.is_empty() {
            return f.write_str("none at all");
        }
        for (i, name) in names.iter().take(SHOWN).enumerate() {
            write!(f, "{}`{name}`", if i == 0 { "" } else { ", " })?;
        }
        match names.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

/// What may have been meant, if anything is near.
struct Meant<'a>(&'a [String]);

impl std::fmt::Display for Meant<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(names) = self;
        if names.is_empty() { Ok(()) } else { write!(f, "; near it: {}", Listed(names)) }
    }
}
