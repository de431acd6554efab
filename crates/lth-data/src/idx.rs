//! Files in the IDX format of MNIST: a magic number, the sizes, the bytes.
//!
//! `00 00 08 03`, then the numbers of pictures, rows and columns as 32-bit big-endian numbers, then a byte per pixel;
//! labels are `00 00 08 01`, their number, a byte each. Source: Y. LeCun, <http://yann.lecun.com/exdb/mnist/>, "file
//! formats for the MNIST database".

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::archive::{GZIP, Members};
use crate::checked::{Digests, Hashing};
use crate::error::{Error, Result};

/// Pictures or labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Images,
    Labels,
}

/// The content of an IDX file.
#[derive(Debug)]
pub(crate) struct Idx {
    /// Number of pictures or labels.
    pub(crate) n: usize,
    /// Rows and columns of a picture; 1 and 1 of a label.
    pub(crate) size: (usize, usize),
    /// Pixels or labels, one after the other.
    pub(crate) bytes: Vec<u8>,
    /// Of the file as it lies there.
    pub(crate) file: Digests,
    /// Of what is in it, if it is gzipped.
    pub(crate) content: Option<Digests>,
}

/// More is refused, whatever a header claims: MNIST's training pictures have 47 MB.
const MAX_BYTES: u64 = 1 << 30;

/// A byte of a deflate stream unpacks to 1,032 at most.
const MOST_PER_BYTE: u64 = 1_032;

impl Kind {
    fn magic(self) -> u32 {
        match self {
            Self::Images => 0x0803,
            Self::Labels => 0x0801,
        }
    }

    fn header_len(self) -> usize {
        match self {
            Self::Images => 16,
            Self::Labels => 8,
        }
    }
}

/// The content of the file at `path`, gzipped or not, as its first bytes say. No more memory is used than its header
/// announces, nor than the file holds.
///
/// # Errors
/// If it cannot be read, is no such IDX file, announces more than 1 GiB, or is shorter or longer than it announces.
pub(crate) fn read(path: &Path, kind: Kind) -> Result<Idx> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let n_on_disk = file.metadata().map_err(Error::io("read", path))?.len();
    let mut file = BufReader::with_capacity(1 << 16, Hashing::new(file));
    let is_gzip = file.fill_buf().map_err(Error::io("read", path))?.starts_with(&GZIP);
    if is_gzip {
        let mut content = Hashing::new(Members::new(file));
        let (n, size, bytes) = parse(path, kind, &mut content, n_on_disk, true)?;
        let (members, content) = content.finish();
        // What follows the last member is no part of the content, but of the file.
        let mut file =
            members.into_inner().ok_or_else(|| bad(path, "content", "no end", "the end of a gzip member"))?;
        io::copy(&mut file, &mut io::sink()).map_err(Error::io("read", path))?;
        Ok(Idx { n, size, bytes, file: file.into_inner().finish().1, content: Some(content) })
    } else {
        let (n, size, bytes) = parse(path, kind, &mut file, n_on_disk, false)?;
        Ok(Idx { n, size, bytes, file: file.into_inner().finish().1, content: None })
    }
}

type Parsed = (usize, (usize, usize), Vec<u8>);

/// `n_on_disk`: the length of the file as it lies there.
fn parse(path: &Path, kind: Kind, file: &mut dyn Read, n_on_disk: u64, is_gzip: bool) -> Result<Parsed> {
    let mut header = [0; 16];
    let header = &mut header[..kind.header_len()];
    let n_header = read_all(path, file, header)?;
    if n_header < header.len() {
        return Err(bad(path, "length", format!("{n_header} bytes"), format!("a header of {}", header.len())));
    }
    let number = |place: usize| u32::from_be_bytes(std::array::from_fn(|idx| header[4 * place + idx]));
    if number(0) != kind.magic() {
        let what = if kind == Kind::Images { "pictures" } else { "labels" };
        return Err(bad(
            path,
            "magic number",
            format!("{:#010x}", number(0)),
            format!("{:#010x}, that of {what}", kind.magic()),
        ));
    }
    let (rows, columns) = match kind {
        Kind::Images => (number(2), number(3)),
        Kind::Labels => (1, 1),
    };
    let n = number(1);
    // In 128 bits three 32-bit numbers do not wrap.
    let announced = u128::from(n) * u128::from(rows) * u128::from(columns);
    let in_words = format!("{n} of {rows} x {columns}");
    if announced == 0 || announced > u128::from(MAX_BYTES) {
        return Err(bad(path, "number of bytes", in_words, format!("1 to {MAX_BYTES}")));
    }
    let announced = announced as u64;
    let whole = announced + header.len() as u64;
    if !is_gzip && n_on_disk != whole {
        return Err(bad(path, "length", format!("{n_on_disk} bytes"), format!("{whole}: {in_words}")));
    }
    // No more than there can be: the header may claim anything. One byte more tells a file that is too long.
    let mut bytes = Vec::new();
    let most = if is_gzip { n_on_disk.saturating_mul(MOST_PER_BYTE) } else { n_on_disk };
    // Where there is no room, reading says so.
    let _ = bytes.try_reserve_exact(most.min(announced + 1) as usize);
    file.take(announced + 1).read_to_end(&mut bytes).map_err(|error| unreadable(path, error))?;
    if bytes.len() as u64 != announced {
        let got = if bytes.len() as u64 > announced { "more".to_owned() } else { bytes.len().to_string() };
        return Err(bad(path, "number of bytes after the header", got, format!("{announced}: {in_words}")));
    }
    bytes.shrink_to_fit();
    Ok((n as usize, (rows as usize, columns as usize), bytes))
}

/// Fills `buffer` as far as the file goes; the number of bytes.
fn read_all(path: &Path, file: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
    let mut n_read = 0;
    while n_read < buffer.len() {
        match file.read(&mut buffer[n_read..]) {
            Ok(0) => break,
            Ok(n) => n_read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(path, error)),
        }
    }
    Ok(n_read)
}

/// What a decoder says of a damaged file is about the file, not about reading it.
fn unreadable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => bad(path, "content", "cut short", "a whole gzip member"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            bad(path, "content", error.to_string(), "an undamaged gzip member")
        }
        _ => Error::io("read", path)(error),
    }
}

fn bad(path: &Path, what: &'static str, got: impl Into<String>, expected: impl Into<String>) -> Error {
    Error::BadFile { path: path.into(), what, got: got.into(), expected: expected.into() }
}
