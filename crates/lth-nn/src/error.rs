use std::path::{Path, PathBuf};

use candle_core::DType;
use lth_files::on_one_line;

use crate::NetworkName;

/// What can go wrong while a network is built or its weights are read or written.
///
/// Inside a forward pass, and in `set_masks`, it arrives as [`candle_core::Error::Wrapped`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// candle could not do an operation.
    #[error(transparent)]
    Candle(candle_core::Error),

    /// A network's parameters could not be set.
    #[error(transparent)]
    Parameters(#[from] lth_train::Error),

    /// Two layers were given one name.
    #[error("there are two parameters called `{name}`")]
    Duplicate {
        /// The name.
        name: String,
    },

    /// A network cannot be built as configured.
    #[error("{what} is {got}, expected {expected}")]
    Config {
        /// The setting.
        what: &'static str,
        /// Its value.
        got: String,
        /// What it may be.
        expected: &'static str,
    },

    /// No network has such a name.
    #[error("network: name is `{got}`, expected one of {expected}")]
    UnknownNetwork {
        /// The name.
        got: String,
        /// The names that there are.
        expected: String,
    },

    /// A network is asked for that cannot be.
    #[error("network `{name}`: {field} is {got}, expected {expected}")]
    NetworkSpec {
        /// The network.
        name: NetworkName,
        /// The field.
        field: &'static str,
        /// Its value.
        got: String,
        /// What it may be.
        expected: String,
    },

    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] lth_files::Error),

    /// A file's content is not what it should be.
    #[error("{}", on_one_line(&format!("{}: {reason}", path.display())))]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A tensor is asked for that no file holds.
    #[error("there is no tensor `{}`", on_one_line(name))]
    UnknownTensor {
        /// Its name.
        name: String,
    },

    /// Weights do not have the network's names.
    #[error("weights do not fit the network: {}", names(.missing, .unexpected))]
    Names {
        /// Parameters without a tensor, sorted.
        missing: Vec<String>,
        /// Tensors without a parameter, sorted.
        unexpected: Vec<String>,
    },

    /// A tensor has another shape than its parameter.
    #[error("{what} for `{}` has shape {got:?}, expected {expected:?}", on_one_line(name))]
    Shape {
        /// What kind of tensor ("weights", "mask").
        what: &'static str,
        /// The parameter's name.
        name: String,
        /// The shape found.
        got: Vec<usize>,
        /// The parameter's shape.
        expected: Vec<usize>,
    },

    /// A tensor has an element type that cannot be used.
    #[error("{what} for `{}` has type {got:?}, expected {expected}", on_one_line(name))]
    DType {
        /// What kind of tensor ("weights", "mask").
        what: &'static str,
        /// The parameter's name.
        name: String,
        /// The type found.
        got: DType,
        /// The types wanted.
        expected: &'static str,
    },

    /// A tensor holds NaN or an infinity.
    #[error("weights for `{}` hold values that are not finite", on_one_line(name))]
    NotFinite {
        /// The parameter's name.
        name: String,
    },

    /// A mask is given for something that is no parameter of the network.
    #[error("mask for `{}`: the network has no parameter of that name", on_one_line(name))]
    UnknownMask {
        /// The mask's name.
        name: String,
    },
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(lth_train::without_backtrace(error))
    }
}

impl Error {
    pub(crate) fn format(path: &Path, reason: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), reason: reason.into() }
    }
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            other => Self::wrap(other),
        }
    }
}

fn names(missing: &[String], unexpected: &[String]) -> String {
    let part = |what: &str, names: &[String]| {
        const SHOWN: usize = 3;
        (!names.is_empty()).then(|| {
            let rest = if names.len() > SHOWN { ", …" } else { "" };
            format!("{} {what} ({}{rest})", names.len(), on_one_line(&names[..names.len().min(SHOWN)].join(", ")))
        })
    };
    [part("missing", missing), part("unexpected", unexpected)].into_iter().flatten().collect::<Vec<_>>().join(", ")
}
