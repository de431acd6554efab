//! What can go wrong with a run's files and records.

use std::path::PathBuf;

use lth_files::on_one_line;

/// An error of this crate. Messages name the file or the record, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "read", "write", "create".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        r#source: std::io::Error,
    },
    /// There is no such file.
    #[error("no {what} at {}", path.display())]
    Absent {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The output folder holds something already.
    #[error("folder {} already holds {}: name another folder, or allow it to be replaced", path.display(), on_one_line(holds))]
    Occupied {
        /// The output folder.
        path: PathBuf,
        /// "a run", or the name of the first thing found.
        holds: String,
    },
    /// The output folder's path names something that is no folder.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// Another process is writing a run into the same folder.
    #[error("another process is writing a run into {}", path.display())]
    Busy {
        /// The output folder.
        path: PathBuf,
    },
    /// A file is not what it should be: cut, edited by hand, or something else altogether.
    #[error("{} is damaged{}: {}", path.display(), at_line(*line), on_one_line(reason))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where it is known.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A file was written by a version of this crate that this one cannot read.
    #[error("{} has schema version {found}, expected {expected}", path.display())]
    SchemaVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u64,
        /// The version that this crate reads.
        expected: u32,
    },
    /// Anything else about a file or folder.
    #[error(transparent)]
    Files(lth_files::Error),
    /// A record contradicts itself or another.
    #[error("{}: {}", on_one_line(record), on_one_line(reason))]
    Invalid {
        /// The record: "run `ticket-50` of seed 0, epoch 3".
        record: String,
        /// What is wrong: "accuracy is 1.2, expected a number in [0, 1]".
        reason: String,
    },
    /// A name cannot be used as a file name in a run's folder.
    #[error("`{}` cannot name a file: {reason}", on_one_line(name))]
    FileName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl From<lth_files::Error> for Error {
    fn from(error: lth_files::Error) -> Self {
        match error {
            lth_files::Error::Io { action, path, source } => Self::Io { action, path, source },
            lth_files::Error::Busy { path } => Self::Busy { path },
            other => Self::Files(other),
        }
    }
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }
}

fn at_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(" at line {line}"))
}
