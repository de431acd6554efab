//! Folders and names that an experiment may write to.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::Error;

/// What to do with a folder that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Existing {
    /// Refuse it.
    #[default]
    Refuse,
    /// Replace the experiment in it, file by file; what is not the experiment's is left alone.
    Replace,
}

/// The folders of `path` that are not there, the inmost first.
pub(crate) fn absent(path: &Path) -> Vec<PathBuf> {
    let folders = path.ancestors().filter(|folder| !folder.as_os_str().is_empty());
    folders.take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect()
}

/// Whether `name` stays inside the folder it is joined to, on every platform.
pub(crate) fn is_plain(name: &str) -> bool {
    name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', ':', '\0']))
}

pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
