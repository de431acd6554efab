//! SHA-256 as text: 64 lower-case hexadecimal digits.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::Digest;

use crate::Error;

/// A SHA-256 that is added to piece by piece; also a [`Write`] that never fails.
#[derive(Clone, Debug, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds a field of a record: its length as eight bytes, little-endian, and then the bytes. Without lengths two
    /// different records could spell the same bytes.
    pub fn field(&mut self, bytes: &[u8]) {
        self.update(&(bytes.len() as u64).to_le_bytes());
        self.update(bytes);
    }

    /// The digest of all that was added.
    #[must_use]
    pub fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Write for Sha256 {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A [`Write`] that passes bytes on and adds what was taken to a SHA-256.
#[derive(Debug)]
pub struct Hashing<W> {
    inner: W,
    hash: Sha256,
    n_bytes: u64,
}

impl<W: Write> Hashing<W> {
    /// What is written goes to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), n_bytes: 0 }
    }

    /// The digest of what was written, and its length in bytes.
    #[must_use]
    pub fn finish(self) -> (String, u64) {
        (self.hash.finish(), self.n_bytes)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.inner.write(bytes)?;
        self.hash.update(&bytes[..taken]);
        self.n_bytes += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The SHA-256 of bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hash.finish()
}

/// The SHA-256 of a file's content, and its length in bytes. The file is not held in memory.
///
/// # Errors
/// [`Error::Io`] if it cannot be read.
pub fn sha256_file(path: &Path) -> Result<(String, u64), Error> {
    let read = || {
        let mut file = File::open(path)?;
        let (mut hash, mut length) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok((hash.finish(), length)),
                Ok(n) => {
                    hash.update(&buffer[..n]);
                    length += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    };
    read().map_err(Error::io("read", path))
}
