//! What can go wrong with an experiment.

use std::path::PathBuf;

use lth_runs::Address;
use lth_runs::experiment::Discrepancy;
use lth_train::BoxError;

/// An error of this crate. Messages name the field, the fit or the file, what was got and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A plan or configuration cannot be run. Nothing was trained.
    #[error("{field} is {got}, expected {expected}")]
    Plan {
        /// The field.
        field: String,
        /// What it is.
        got: String,
        /// What it may be.
        expected: String,
    },
    /// The caller's network or data could not be made.
    #[error("{what} for seed {seed}: {source}")]
    Subject {
        /// "the network", "the data".
        what: &'static str,
        /// The seed that it was wanted for.
        seed: u64,
        /// What the factory said.
        r#source: BoxError,
    },
    /// A fit ended in an error that the experiment cannot go on after.
    #[error("fit {address}: {source}")]
    Fit {
        /// Which one.
        address: Address,
        /// What went wrong.
        r#source: Box<Self>,
    },
    /// A file of the experiment is not what its record says.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Data or starting weights of the same name are not those that fits of the experiment had.
    #[error("the {what} have SHA-256 {got}, those of the fits that are there {expected}: name another folder")]
    OtherData {
        /// "data" or "starting weights".
        what: &'static str,
        /// Now.
        got: String,
        /// Then.
        expected: String,
    },
    /// A folder is of another experiment than the one that it is to go together with.
    #[error("{} is not of the experiment of {}: {differences}", path.display(), expected.display())]
    OtherExperiment {
        /// The folder.
        path: PathBuf,
        /// The one that it was held against.
        expected: PathBuf,
        /// In what they differ.
        differences: String,
    },
    /// Two folders of one experiment hold different results under one address.
    #[error("{} contradicts {}: {}", path.display(), other.display(), listed(found))]
    Contradiction {
        /// The folder.
        path: PathBuf,
        /// The other one.
        other: PathBuf,
        /// What differs.
        found: Vec<Discrepancy>,
    },
    /// A fit cannot be done again: what it rests on is not there.
    #[error("{fit} rests on {needed}: {reason}; the experiment's command trains what is missing")]
    NotKept {
        /// The fit.
        fit: Address,
        /// The one that it rests on.
        needed: Address,
        /// What is missing.
        reason: String,
    },
    /// An input that a criterion needs cannot be had here.
    #[error("criterion `{criterion}` needs {needs}, {hint}")]
    Scores {
        /// The criterion.
        criterion: String,
        /// The input.
        needs: String,
        /// What to do.
        hint: &'static str,
    },
    /// Training.
    #[error(transparent)]
    Train(#[from] lth_train::Error),
    /// Tickets and pruning.
    #[error(transparent)]
    Ticket(#[from] lth_ticket::Error),
    /// Scores.
    #[error(transparent)]
    Criteria(#[from] lth_criteria::Error),
    /// Masks.
    #[error(transparent)]
    Mask(#[from] lth_mask::Error),
    /// Schedules.
    #[error(transparent)]
    Schedule(#[from] lth_schedule::Error),
    /// Records.
    #[error(transparent)]
    Runs(#[from] lth_runs::Error),
    /// Files.
    #[error(transparent)]
    Files(#[from] lth_files::Error),
    /// The network's spec.
    #[error(transparent)]
    Network(#[from] lth_nn::Error),
    /// The data set.
    #[error(transparent)]
    Dataset(#[from] lth_data::Error),
    /// Batches.
    #[error("reading a batch failed: {0}")]
    Data(BoxError),
    /// candle.
    #[error(transparent)]
    Candle(candle_core::Error),
    /// A configuration that cannot be written as JSON.
    #[error("the plan cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(lth_train::without_backtrace(error))
    }
}

impl Error {
    pub(crate) fn of(address: &Address) -> impl FnOnce(Self) -> Self {
        let address = address.clone();
        |error| match error {
            Self::Fit { .. } => error,
            other => Self::Fit { address, source: Box::new(other) },
        }
    }
}

/// The first of them, and how many there are.
fn listed(found: &[Discrepancy]) -> String {
    match found {
        [] => "nothing".into(),
        [only] => only.to_string(),
        [first, more @ ..] => format!("{first}; and {} more", more.len()),
    }
}
