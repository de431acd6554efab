//! A folder that one process holds.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::Error;

/// The hold on a folder: while the value lives, no other process gets one on it (on Unix).
///
/// The folder itself is locked, so that nothing is left behind by a lock, and the system lets go when the process ends,
/// however it ends.
#[derive(Debug)]
pub struct FolderLock(Option<File>);

impl FolderLock {
    /// Takes hold of `folder` at once or not at all. A file system that cannot lock (some network folders), and a system
    /// other than Unix, goes without: see [`FolderLock::is_effective`].
    ///
    /// # Errors
    /// [`Error::Busy`] if another process holds it.
    pub fn acquire(folder: &Path) -> Result<Self, Error> {
        if !cfg!(unix) {
            return Ok(Self(None));
        }
        let Ok(file) = File::open(folder) else { return Ok(Self(None)) };
        match file.try_lock() {
            Ok(()) => Ok(Self(Some(file))),
            Err(TryLockError::WouldBlock) => Err(Error::Busy { path: folder.into() }),
            Err(TryLockError::Error(_)) => Ok(Self(None)),
        }
    }

    /// Whether it keeps others out; not where the file system cannot lock.
    #[must_use]
    pub fn is_effective(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // Closing alone would leave it locked for as long as a process being started holds a copy of the handle.
            let _ = file.unlock();
        }
    }
}
