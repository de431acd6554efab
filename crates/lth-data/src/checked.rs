//! The checksums of what was read, and what they were held against.

use std::io::{self, Read};

use md5::Md5;
use sha2::{Digest, Sha256};

use crate::source::hex;

/// Length and checksums of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digests {
    pub(crate) n_bytes: u64,
    pub(crate) sha256: String,
    pub(crate) md5: String,
}

/// Passes on what it reads and computes its checksums.
pub(crate) struct Hashing<R> {
    inner: R,
    n_bytes: u64,
    sha256: Sha256,
    md5: Md5,
}

impl<R> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, n_bytes: 0, sha256: Sha256::new(), md5: Md5::new() }
    }

    /// The reader, and the checksums of what was read.
    pub(crate) fn finish(self) -> (R, Digests) {
        let md5 = self.md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        (self.inner, Digests { n_bytes: self.n_bytes, sha256: hex(self.sha256), md5 })
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.sha256.update(&buffer[..n]);
        self.md5.update(&buffer[..n]);
        self.n_bytes += n as u64;
        Ok(n)
    }
}

/// A file that was opened, and what of it was compared with published checksums.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OpenedFile {
    /// Its name, without folders.
    pub name: String,
    /// Its length.
    pub n_bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// How far it was checked.
    pub checked: Checked,
}

/// What checksums were held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checked {
    /// They differ from the makers' published ones: this is something else, or has been changed.
    Differs,
    /// Nothing: none are published for such a file.
    No,
    /// A mirror's own: the data is what the mirror meant to send.
    Mirror,
    /// Published ones that do not cover every byte.
    PublishedPart,
    /// The makers' published ones, of every byte of the file or of what is packed in it.
    Published,
    /// Made here (drawn, or embedded in the program): there is nothing to check.
    Made,
}

impl Checked {
    /// What can be said of all files together: the least of them; of no files nothing.
    #[must_use]
    pub fn weakest(files: &[OpenedFile]) -> Self {
        let rank = |checked: Self| checked as u8;
        files.iter().map(|file| file.checked).min_by_key(|&checked| rank(checked)).unwrap_or(Self::No)
    }
}
