//! What can go wrong between a picture file and a batch.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;

use crate::text::on_one_line;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why pictures could not be read, cached, split or batched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} `{}`: {source}", on_one_line(&path.display().to_string()))]
    Io {
        /// What was tried, as a verb: "read", "write", "create", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        r#source: io::Error,
    },
    /// The archive is no tar archive, is cut short or fails its own checksums.
    #[error("archive `{}` is damaged or no tar archive: {}", on_one_line(&path.display().to_string()), on_one_line(reason))]
    BadArchive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The archive holds an entry that no honest data set holds, so nothing of it is used.
    #[error("archive `{}` is refused: entry `{}` {reason}", on_one_line(&path.display().to_string()), on_one_line(entry))]
    HostileArchive {
        /// The archive.
        path: PathBuf,
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of a published set is not what it must be.
    #[error("`{}`: {what} is {}, expected {expected}", on_one_line(&path.display().to_string()), on_one_line(got))]
    BadFile {
        /// The file, or the archive or folder and the file in it.
        path: PathBuf,
        /// The quantity that is wrong.
        what: &'static str,
        /// Its value.
        got: String,
        /// What it should be.
        expected: String,
    },
    /// The source holds no pictures of the expected layout.
    #[error("no pictures in {place}: expected {expected}")]
    NoPictures {
        /// The folder or archives that were searched.
        place: String,
        /// The layout that was looked for.
        expected: &'static str,
    },
    /// All pictures belong to one class, so there is nothing to learn.
    #[error(
        "all {n_pictures} pictures in {place} are of class `{}`, expected at least two classes",
        on_one_line(class)
    )]
    OneClass {
        /// The folder or archives that were searched.
        place: String,
        /// The only class.
        class: String,
        /// Number of pictures.
        n_pictures: usize,
    },
    /// Two pictures of the source have the same name.
    #[error(
        "picture `{}` is there twice in {place}: give one archive or folder of the same pictures",
        on_one_line(name)
    )]
    DuplicatePicture {
        /// The name.
        name: String,
        /// The folder or archives that were searched.
        place: String,
    },
    /// Pictures that cannot be decoded, under [`DamagedPolicy::Fail`](crate::DamagedPolicy::Fail).
    #[error("{} damaged picture{}: {}", damaged.len(), if damaged.len() == 1 { "" } else { "s" }, List(damaged))]
    DamagedPictures {
        /// All of them, sorted by name.
        damaged: Vec<Damaged>,
    },
    /// A picture of the cache file changed while it was in use, and it could not be made again.
    #[error("picture `{}` in cache file `{}` is damaged: {}", on_one_line(name), on_one_line(&path.display().to_string()), on_one_line(reason))]
    BadCache {
        /// The cache file.
        path: PathBuf,
        /// The picture.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Decoded pictures would take more room in the cache than they may.
    #[error(
        "decoded pictures need {needed} in `{}`, where {there} are taken, but LTH_CACHE_LIMIT is {limit}: raise it, or \
         remove what is there",
        folder.display()
    )]
    CacheLimit {
        /// Where decoded pictures lie.
        folder: PathBuf,
        /// Bytes of those that are to be made.
        needed: ByteSize,
        /// Bytes of those that are there.
        there: ByteSize,
        /// The most that all may have, see [`cache_limit`](crate::cache_limit).
        limit: ByteSize,
    },
    /// Something in the cache is being made or read, so that it is not removed.
    #[error("`{}` is in use by another process", on_one_line(name))]
    CacheInUse {
        /// Its name in the cache.
        name: String,
    },
    /// A picture given in memory does not fit its data set.
    #[error("picture `{}`: {what} is {got}, expected {expected}", on_one_line(name))]
    BadPicture {
        /// The picture's name.
        name: String,
        /// The quantity that does not fit.
        what: &'static str,
        /// Its value.
        got: String,
        /// What it should be.
        expected: String,
    },
    /// A setting is outside its range.
    #[error("{what} is {got}, expected {expected}")]
    BadSetting {
        /// The setting.
        what: &'static str,
        /// Its value.
        got: String,
        /// The range.
        expected: String,
    },
    /// Toy pets could not be drawn.
    #[error(transparent)]
    ToyPets(#[from] crate::toy_pets::Error),
    /// The digits that are part of the program are damaged.
    #[cfg(feature = "digits")]
    #[error(transparent)]
    Digits(#[from] crate::digits::Error),
    /// A file could not be downloaded.
    #[cfg(feature = "download")]
    #[error(transparent)]
    Download(#[from] crate::download::Error),
    /// The system names no cache folder and `LTH_CACHE` is not set.
    #[error("no cache folder: set LTH_CACHE to a folder for decoded pictures and downloads")]
    NoCacheFolder,
    /// The thread that prepares batches ended without saying why.
    #[error("the thread that prepares batches stopped: {reason}")]
    LoaderStopped {
        /// Its panic message, or that it could not be started.
        reason: String,
    },
    /// candle could not make the batch's tensors.
    #[error("batch tensors: {0}")]
    Candle(candle_core::Error),
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(without_backtrace(error))
    }
}

/// candle's error without the backtrace that `RUST_BACKTRACE=1` makes part of its message: twenty lines where one is read.
pub(crate) fn without_backtrace(error: candle_core::Error) -> candle_core::Error {
    use candle_core::Error as Candle;
    match error {
        Candle::WithBacktrace { inner, .. } => without_backtrace(*inner),
        Candle::Context { inner, context } => Candle::Context { inner: Box::new(without_backtrace(*inner)), context },
        Candle::WithPath { inner, path } => Candle::WithPath { inner: Box::new(without_backtrace(*inner)), path },
        error => error,
    }
}

impl Error {
    /// An [`Error::Io`] for `path`, to be used with `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }
}

/// A picture that could not be decoded, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Damaged {
    /// The picture's name in its data set.
    pub name: String,
    /// What is wrong with it, in lower case.
    pub reason: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", on_one_line(&self.name), on_one_line(&self.reason))
    }
}

/// At most eight of the damaged pictures, then how many more there are: an error is one line that a person reads.
struct List<'a>(&'a [Damaged]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        for (idx, damaged) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{damaged}", if idx == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
