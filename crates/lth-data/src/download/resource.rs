//! What can be downloaded: names, addresses, lengths and checksums.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use md5::Md5;
use sha2::{Digest, Sha256};

use super::error::{Cause, Error};

/// One file on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The name it gets here, and has on a mirror.
    pub name: String,
    /// Where it lies, in the order to try.
    pub urls: Vec<String>,
    /// Its length, where it is known.
    pub size: Option<u64>,
    /// More bytes than this are never accepted.
    pub most: u64,
    /// How it is recognised.
    pub check: Check,
}

/// How a file is recognised; numbers in small hexadecimal letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// SHA-256 of the whole file, or the beginning of it (at least 8 digits).
    Sha256(String),
    /// MD5 of the whole file.
    Md5(String),
    /// MD5 of the first 1 MiB: says nothing about the rest, so the length must be known too.
    Md5FirstMib(String),
}

/// What is compared: "SHA-256", "the first 8 of 64 digits of SHA-256", "MD5 of the first MiB".
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Sha256(digits) if digits.len() < 64 => {
                write!(f, "the first {} of 64 digits of SHA-256", digits.len())
            }
            Check::Sha256(_) => f.write_str("SHA-256"),
            Check::Md5(_) => f.write_str("MD5"),
            Check::Md5FirstMib(_) => f.write_str("MD5 of the first MiB"),
        }
    }
}

/// The checksums of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digests {
    pub(super) size: u64,
    pub(super) sha256: String,
    md5: String,
    md5_first_mib: String,
}

impl Digests {
    /// Reads the whole file once.
    pub(super) fn of_file(path: &Path) -> io::Result<Digests> {
        let mut file = File::open(path)?;
        let (mut sha256, mut md5, mut first) = (Sha256::new(), Md5::new(), Md5::new());
        let mut buffer = vec![0; 1 << 20];
        let mut size: u64 = 0;
        loop {
            let n = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let chunk = &buffer[..n];
            let left = (1_u64 << 20).saturating_sub(size).min(n as u64) as usize;
            first.update(&chunk[..left]);
            sha256.update(chunk);
            md5.update(chunk);
            size += n as u64;
        }
        Ok(Digests {
            size,
            sha256: hex(&sha256.finalize()),
            md5: hex(&md5.finalize()),
            md5_first_mib: hex(&first.finalize()),
        })
    }
}

/// Bytes as small hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Check {
    /// Whether `digests` are those of the file meant.
    pub(super) fn verify(&self, digests: &Digests) -> Result<(), Cause> {
        let (algorithm, got, expected) = match self {
            Check::Sha256(expected) => ("SHA-256", &digests.sha256, expected),
            Check::Md5(expected) => ("MD5", &digests.md5, expected),
            Check::Md5FirstMib(expected) => ("MD5 of the first MiB", &digests.md5_first_mib, expected),
        };
        let same = if matches!(self, Check::Sha256(_)) {
            expected.len() >= 8 && got.starts_with(expected.as_str())
        } else {
            got == expected
        };
        if same {
            return Ok(());
        }
        Err(Cause::WrongChecksum { algorithm, got: got.clone(), expected: expected.clone() })
    }

    /// Whether it vouches for every byte: SHA-256 in full, or MD5 of the whole file.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match self {
            Check::Sha256(digits) => digits.len() == 64,
            Check::Md5(_) => true,
            Check::Md5FirstMib(_) => false,
        }
    }

    /// Whether a wrong byte anywhere would be noticed.
    pub(super) fn covers_the_whole_file(&self) -> bool {
        !matches!(self, Check::Md5FirstMib(_))
    }

    /// The folder for files that are recognised so: another checksum is another file.
    pub(super) fn folder(&self) -> String {
        let (kind, digits) = match self {
            Check::Sha256(digits) => ("sha256", digits),
            Check::Md5(digits) => ("md5", digits),
            Check::Md5FirstMib(digits) => ("md5-1mib", digits),
        };
        let start: String = digits.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        format!("{kind}-{start}")
    }
}

impl Resource {
    /// Whether the file at `path` is this one, as far as its length and checksum tell.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_file(&self, path: &Path) -> Result<bool, Error> {
        let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
        if self.size.is_some_and(|size| size != length) {
            return Ok(false);
        }
        let digests = Digests::of_file(path).map_err(Error::io("read", path))?;
        Ok(self.verify(&digests).is_ok())
    }

    /// Whether a file of this length and SHA-256 may be this one, as far as the two tell.
    pub(super) fn might_be(&self, size: u64, sha256: &str) -> bool {
        let sum = |check: &Check| if let Check::Sha256(sum) = check { sha256.starts_with(sum.as_str()) } else { true };
        self.size.is_none_or(|expected| expected == size) && sum(&self.check)
    }

    /// Whether `digests` are those of this file.
    pub(super) fn verify(&self, digests: &Digests) -> Result<(), Cause> {
        match self.size {
            Some(size) if size != digests.size => {
                Err(Cause::WrongLength { got: digests.size, expected: size.to_string() })
            }
            _ => self.check.verify(digests),
        }
    }
}

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Oxford-IIIT PETS: the makers' two archives, else fastai's one.
///
/// Each inner list is a complete set; the earlier sets are to be preferred. The makers' archives come first because
/// their SHA-256 is known in full; of fastai's only the first MiB is.
pub fn pets() -> Vec<Vec<Resource>> {
    let makers = |name: &str, size, sha256: &str| Resource {
        name: name.to_owned(),
        urls: vec![
            format!("https://www.robots.ox.ac.uk/~vgg/data/pets/data/{name}"),
            format!("https://thor.robots.ox.ac.uk/~vgg/data/pets/{name}"),
        ],
        size: Some(size),
        most: 4 * GIB,
        check: Check::Sha256(sha256.to_owned()),
    };
    vec![
        vec![
            // The small one first: where it cannot be had, the large one need not be tried.
            makers(
                "annotations.tar.gz",
                19_173_078,
                "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
            ),
            makers("images.tar.gz", 791_918_971, "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d"),
        ],
        vec![Resource {
            name: "oxford-iiit-pet.tgz".to_owned(),
            urls: vec!["https://s3.amazonaws.com/fast-ai-imageclas/oxford-iiit-pet.tgz".to_owned()],
            size: Some(811_706_944),
            most: 4 * GIB,
            check: Check::Md5FirstMib("e4db5c768afd933bb91f5f594d7417a4".to_owned()),
        }],
    ]
}

/// ResNet-18's ImageNet weights, torchvision's `IMAGENET1K_V1`, as a `.pth` file. The digits in its name, all that its
/// makers published, are the beginning of its SHA-256; the rest is as everyone has it who wrote it down.
pub fn resnet18_weights() -> Resource {
    Resource {
        name: "resnet18-f37072fd.pth".to_owned(),
        urls: vec!["https://download.pytorch.org/models/resnet18-f37072fd.pth".to_owned()],
        size: Some(46_830_571),
        most: 64 * MIB,
        check: Check::Sha256("f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_file_or_of_a_digest_vouches_for_no_whole() {
        let digits = |n: usize| "0".repeat(n);
        assert!(Check::Sha256(digits(64)).is_whole() && Check::Md5(digits(32)).is_whole());
        assert!(!Check::Sha256(digits(8)).is_whole() && !Check::Md5FirstMib(digits(32)).is_whole());
    }
}
