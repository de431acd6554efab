//! Why a file could not be downloaded, with everything that was tried.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A result of this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a download failed. Complete files that were in the folder before are still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No address gave the file.
    #[error("cannot download {name}; tried {}", Tried(tried))]
    Unavailable {
        /// The file.
        name: String,
        /// Every address tried, in order, and why it gave nothing.
        tried: Vec<Attempt>,
    },
    /// The disk has too little room.
    #[error(
        "cannot download {name}: {} needs {} MiB free, has {} MiB",
        folder.display(), needed.div_ceil(1 << 20), available >> 20
    )]
    DiskFull {
        /// The file.
        name: String,
        /// Where it was to lie.
        folder: PathBuf,
        /// Bytes wanted, with some to spare.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// The mirror's address is none.
    #[error("mirror {url}: {reason}")]
    BadMirror {
        /// The address given, without user name and password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The mirror's list of checksums is none.
    #[error("mirror {url}: {reason}")]
    BadSums {
        /// The mirror's address, without user name and password.
        url: String,
        /// What is wrong with its list.
        reason: String,
    },
    /// A resource's name is not that of a file.
    #[error("resource name `{name}` is no plain file name")]
    BadName {
        /// The name.
        name: String,
    },
    /// A file or folder on this machine could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        r#source: io::Error,
    },
}

impl Error {
    /// An [`Error::Io`] for `path`, to be used with `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// Whether another source might still have what this one could not give.
    pub(super) fn is_about_the_source(&self) -> bool {
        matches!(self, Error::Unavailable { .. })
    }
}

/// One address that did not give the file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The address, without user name and password.
    pub url: String,
    /// How many times it was asked.
    pub times: u32,
    /// Why the last time failed.
    pub cause: Cause,
}

/// Why one address did not give the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// There is no connection to the server.
    #[error("no connection ({0})")]
    Unreachable(String),
    /// The server answers, but not with the file.
    #[error("status {0}")]
    Status(u16),
    /// The connection ended before the file did.
    #[error("cut off after {received} bytes ({reason})")]
    CutOff {
        /// Bytes of the file that had arrived in all.
        received: u64,
        /// What the connection said.
        reason: String,
    },
    /// The server sends nothing, or next to nothing.
    #[error("stalled after {received} bytes")]
    Stalled {
        /// Bytes of the file that had arrived in all.
        received: u64,
    },
    /// The server's file has another length than this one has.
    #[error("{got} bytes, expected {expected}")]
    WrongLength {
        /// The length announced or received.
        got: u64,
        /// The length known, or the most that is accepted.
        expected: String,
    },
    /// The file is whole but not the one expected.
    #[error("{algorithm} is {got}, expected {expected}")]
    WrongChecksum {
        /// What was computed.
        algorithm: &'static str,
        /// Of the file received.
        got: String,
        /// As known.
        expected: String,
    },
    /// The server's answer breaks the protocol.
    #[error("bad answer ({0})")]
    BadAnswer(String),
    /// `HF_HUB_OFFLINE` forbids the hub.
    #[error("not asked, since HF_HUB_OFFLINE is set")]
    Offline,
}

struct Tried<'a>(&'a [Attempt]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing: no address is known");
        }
        for (index, attempt) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", attempt.url, attempt.cause)?;
            if attempt.times > 1 {
                write!(f, ", {} times", attempt.times)?;
            }
        }
        Ok(())
    }
}
