//! What an experiment's folder has, to be looked at: nothing is written, and nobody is kept out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Address, ExperimentRecord, FitRecord, PathRecord, Summary};
use crate::Error;

pub(super) const EXPERIMENT: &str = "experiment.json";
pub(super) const SUMMARY: &str = "summary.json";
pub(super) const RECORD: &str = "record.json";
pub(super) const PATH: &str = "path.json";
/// The names of files that a fit began to write, a line each, while it has no record that lists them.
pub(super) const UNRECORDED: &str = "unrecorded.txt";
/// A fit's checkpoint, in its folder while it is not whole.
pub(super) const CHECKPOINT: &str = "checkpoint.safetensors";
/// It, the one before it, and the next one that was not put in its place.
pub(super) const CHECKPOINTS: [&str; 3] =
    [CHECKPOINT, "checkpoint.safetensors.previous", "checkpoint.safetensors.next"];

/// The records in the folder of an experiment, which another process may be writing: each is there whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExperimentReader {
    path: PathBuf,
}

impl ExperimentReader {
    /// Of the folder `path`; nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which experiment it is.
    ///
    /// # Errors
    /// [`Error::Absent`] if there is none, [`Error::Damaged`], [`Error::Io`].
    pub fn experiment(&self) -> Result<ExperimentRecord, Error> {
        match read(&self.path.join(EXPERIMENT)) {
            Err(Error::Absent { .. }) => Err(Error::Absent { what: "experiment", path: self.path.clone() }),
            read => read,
        }
    }

    /// The record of a fit; `None` if the fit has not ended.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Invalid`] if it cannot be read or is another fit's, [`Error::Io`].
    pub fn record(&self, address: &Address) -> Result<Option<FitRecord>, Error> {
        let path = self.path.join(address.folder()).join(RECORD);
        let record: FitRecord = match read(&path) {
            Err(Error::Absent { .. }) => return Ok(None),
            other => other?,
        };
        record.validate()?;
        if record.address != *address {
            let reason = format!("it is the record of {}, expected that of {address}", record.address);
            return Err(Error::Damaged { path, line: None, reason });
        }
        Ok(Some(record))
    }

    /// The addresses of the fits that have a record or a checkpoint, in order.
    pub fn addresses(&self) -> Vec<Address> {
        let address = |folder: PathBuf| {
            let below = folder.strip_prefix(self.path.join("fits")).ok()?;
            let parts: Vec<&str> = below.iter().filter_map(std::ffi::OsStr::to_str).collect();
            let [arm, level, seed] = parts.as_slice() else { return None };
            let level = level.strip_prefix("level-")?.parse().ok()?;
            let address = Address::new(*arm, level, seed.strip_prefix("seed-")?.parse().ok()?);
            // Not `level-3` or `seed-007`: no fit of ours is there.
            (folder == self.path.join(address.folder())).then_some(address)
        };
        let mut addresses: Vec<Address> = self.fit_folders().into_iter().filter_map(address).collect();
        addresses.sort();
        addresses
    }

    /// The record of the path that ends in a fit's network; `None` if none was measured.
    ///
    /// # Errors
    /// As [`ExperimentReader::record`].
    pub fn path_record(&self, last: &Address) -> Result<Option<PathRecord>, Error> {
        let record: PathRecord = match read(&self.path.join(last.folder()).join(PATH)) {
            Err(Error::Absent { .. }) => return Ok(None),
            other => other?,
        };
        record.validate()?;
        Ok(Some(record))
    }

    /// The `summary.json` in it; `None` if there is none yet.
    ///
    /// # Errors
    /// As [`Summary::read`].
    pub fn summary(&self) -> Result<Option<Summary>, Error> {
        match Summary::read(&self.path.join(SUMMARY)) {
            Err(Error::Absent { .. }) => Ok(None),
            read => read.map(Some),
        }
    }

    /// The folders of fits that have a record or a checkpoint.
    fn fit_folders(&self) -> Vec<PathBuf> {
        let has = |folder: &Path, name: &&str| folder.join(name).is_file();
        let mut folders = self.all_fit_folders();
        folders.retain(|folder| [RECORD].iter().chain(&CHECKPOINTS).any(|name| has(folder, name)));
        folders
    }

    /// The folders where fits of an experiment are, those of others too if there are such.
    pub(super) fn all_fit_folders(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.path.join("fits")];
        for _ in 0..3 {
            let below = |folder: &PathBuf| {
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                entries
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path())
                    .collect::<Vec<_>>()
            };
            folders = folders.iter().flat_map(below).collect();
        }
        folders.sort();
        folders
    }
}

pub(super) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = std::fs::read(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::Absent { what: "record", path: path.into() },
        _ => Error::Io { action: "read", path: path.into(), source },
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Damaged {
        path: path.into(),
        line: (error.line() > 0).then(|| error.line()),
        reason: error.to_string(),
    })
}
