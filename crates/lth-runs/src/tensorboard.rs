//! Event files that TensorBoard opens: numbers by name, step and time.
//!
//! A file is a series of records, each a protocol buffer with its length and two checksums around it:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | length of the event, little-endian |
//! | 4 | masked CRC-32C of these eight bytes, little-endian |
//! | length | an `Event` |
//! | 4 | masked CRC-32C of the event |
//!
//! Of an `Event` (tensorflow/core/util/event.proto) three fields are written: `wall_time` (1, double), `step` (2, int64),
//! and `file_version` (3, string) in the first record or `summary` (5) in the others. A `Summary` has a `Value` (1) for each
//! number, with `tag` (1, string) and `simple_value` (2, float).
//!
//! Written here and not by a crate: the only one that writes them (tensorboard-rs) brings an old protobuf runtime, an image
//! decoder and a random generator for what is a hundred lines.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::Error;

/// How the files' names begin, by which TensorBoard finds them.
const BEGINS: &str = "events.out.tfevents.";
/// How ours end.
const ENDS: &str = ".lth";

/// A file of events that grows by whole records.
///
/// ```
/// use lth_runs::tensorboard::EventFile;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let now = 1_795_359_845.25; // seconds since 1970
/// let mut events = EventFile::create(folder.path(), now)?;
/// events.add(now, 100, &[("loss/train", 0.5), ("accuracy/validation", 0.9)])?;
/// assert!(EventFile::is_in(folder.path()));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file in `folder`, which must be there; one that was written here before goes. `wall_time`: seconds since 1970.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(folder: &Path, wall_time: f64) -> Result<Self, Error> {
        Self::remove_from(folder)?;
        let path = folder.join(format!("{BEGINS}{:010}{ENDS}", wall_time.max(0.0) as u64));
        let opened = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        let mut events = Self { file: opened.map_err(Error::io("create", &path))?, path };
        events.write(&event(wall_time, 0, &Payload::Version("brain.Event:2")))?;
        Ok(events)
    }

    /// Adds the numbers of a step, by name: in one record, in one write. What is not finite is shown as a gap.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, wall_time: f64, step: u64, scalars: &[(&str, f64)]) -> Result<(), Error> {
        self.write(&event(wall_time, step, &Payload::Scalars(scalars)))
    }

    /// Whether `folder` has a file of ours.
    pub fn is_in(folder: &Path) -> bool {
        files_in(folder).next().is_some()
    }

    /// Removes the files of ours from `folder`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_from(folder: &Path) -> Result<(), Error> {
        files_in(folder).try_for_each(|path| crate::store::remove(&path))
    }

    fn write(&mut self, event: &[u8]) -> Result<(), Error> {
        self.file.write_all(&record(event)).map_err(Error::io("write", &self.path))
    }
}

fn files_in(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_ours = |name: &str| name.starts_with(BEGINS) && name.ends_with(ENDS);
    entries.filter(move |entry| is_ours(&entry.file_name().to_string_lossy())).map(|entry| entry.path())
}

/// What an event says.
enum Payload<'a> {
    Version(&'a str),
    Scalars(&'a [(&'a str, f64)]),
}

fn event(wall_time: f64, step: u64, payload: &Payload<'_>) -> Vec<u8> {
    const FIXED_64: u8 = 1;
    const FIXED_32: u8 = 5;
    let mut event = vec![1 << 3 | FIXED_64];
    event.extend(wall_time.to_le_bytes());
    if step > 0 {
        event.push(2 << 3);
        push_varint(&mut event, step);
    }
    match payload {
        Payload::Version(version) => push_field(&mut event, 3, version.as_bytes()),
        Payload::Scalars(scalars) => {
            let mut summary = Vec::new();
            for (tag, number) in *scalars {
                let mut value = Vec::new();
                push_field(&mut value, 1, tag.as_bytes());
                value.push(2 << 3 | FIXED_32);
                value.extend((*number as f32).to_le_bytes());
                push_field(&mut summary, 1, &value);
            }
            push_field(&mut event, 5, &summary);
        }
    }
    event
}

/// A field of bytes: text, or a message.
fn push_field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    const LENGTH_DELIMITED: u8 = 2;
    message.push(number << 3 | LENGTH_DELIMITED);
    push_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

/// Seven bits to a byte, lowest first; the highest bit says that more follow.
fn push_varint(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

fn record(event: &[u8]) -> Vec<u8> {
    let length = (event.len() as u64).to_le_bytes();
    [&length[..], &masked(crc32c(&length)), event, &masked(crc32c(event))].concat()
}

/// A checksum of bytes that hold checksums is a weak one, so that it is turned and moved (tensorflow/core/lib/hash/crc32c.h).
fn masked(crc: u32) -> [u8; 4] {
    crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// CRC-32C (Castagnoli): RFC 3720, §12.1.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[usize::from(crc as u8 ^ byte)])
}

const TABLE: [u32; 256] = {
    const REFLECTED: u32 = 0x82f6_3b78;
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ REFLECTED } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
    #[test]
    fn checksums_are_those_of_the_standard() {
        let rising: Vec<u8> = (0..32).collect();
        let falling: Vec<u8> = (0..32).rev().collect();
        let cases: [(&[u8], u32); 5] = [
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&rising, 0x46dd_794e),
            (&falling, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
        ];
        for (bytes, expected) in cases {
            assert_eq!(crc32c(bytes), expected, "{bytes:?}");
        }
    }

    /// Numbers of more than seven bits, as the encoding's documentation writes 150 and 300.
    #[test]
    fn long_numbers_take_more_bytes() {
        let encoded = |number| {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, number);
            bytes
        };
        assert_eq!(
            [encoded(0), encoded(1), encoded(150), encoded(300)],
            [vec![0], vec![1], vec![0x96, 0x01], vec![0xac, 0x02]]
        );
        assert_eq!(encoded(u64::MAX).len(), 10);
    }
}
