//! What can go wrong with a file or folder.

use std::path::{Path, PathBuf};

use crate::on_one_line;

/// An error of this crate. Messages name what was tried and the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", on_one_line(&path.display().to_string()))]
    Io {
        /// What was tried, as a verb: "read", "write", "remove".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        r#source: std::io::Error,
    },
    /// A file's content is not what it should be.
    #[error("{}", on_one_line(&format!("{}: not a readable safetensors file ({reason})", path.display())))]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process holds the folder.
    #[error("another process is writing into {}", on_one_line(&path.display().to_string()))]
    Busy {
        /// The folder.
        path: PathBuf,
    },
}

impl Error {
    /// To be given to `map_err`: an operating system's error with what was tried and on which file.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
