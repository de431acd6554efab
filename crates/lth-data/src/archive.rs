//! Files out of a tar archive, plain or gzipped, without trusting it.
//!
//! Nothing is ever unpacked: entries are handed on as (path, bytes) and no path of an archive touches the disk. Whether
//! it is gzipped is decided by the first bytes, since a well-known catalogue lists PETS' `.tar.gz` as plain tar.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;
use tar::EntryType;

use crate::error::{Error, Result};
use crate::source::{Consumer, Content, MAX_FILES, SourceFile, Wanted};

/// All bytes of an archive after gunzip. Both archives of PETS together have under one.
const MAX_ARCHIVE_BYTES: u64 = 32 << 30;
/// A path's bytes. tar's own limit without extensions is 256.
const MAX_PATH_BYTES: u64 = 4_096;
/// Extended attributes of one entry.
const MAX_PAX_BYTES: u64 = 64 << 10;

/// Gives every regular file of the archive at `path` to `consume`, in the archive's order.
/// `wanted`: of a file whose bytes are read the most that it may have; of the others, and of links, devices and sparse
/// files, only the path is given.
/// `on_bytes`: told how many bytes of the archive file were read since the last call.
///
/// # Errors
/// If it is no tar archive, is cut short or damaged, holds an entry that leads out of its folder or is larger than the
/// limits; and whatever `consume` returns.
pub(crate) fn read(path: &Path, wanted: &Wanted<'_>, on_bytes: &dyn Fn(u64), consume: &mut Consumer<'_>) -> Result<()> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    // Says to whoever would remove it from the cache that it is in use.
    let _ = file.try_lock_shared();
    let mut file = BufReader::with_capacity(1 << 20, Counted { inner: file, on_bytes });
    let is_gzip = file.fill_buf().map_err(Error::io("read", path))?.starts_with(&GZIP);
    let plain: Box<dyn Read> = if is_gzip { Box::new(Members::new(file)) } else { Box::new(file) };
    let mut archive = tar::Archive::new(Watched { inner: plain, n_read: 0, n_zeros: 0 });
    let entries = archive.entries().map_err(|error| bad(path, &error))?.raw(true);
    let mut files = Files { path, wanted, entries, n_entries: 0, long_path: None, ended: false };
    consume(&mut files)?;
    let ended = files.ended;
    let mut rest = archive.into_inner();
    if !ended {
        return Ok(()); // the consumer had enough
    }
    if rest.n_zeros < 512 {
        let reason = if rest.n_read == 0 { "it is empty" } else { "cut short: no end-of-archive block" };
        return Err(Error::BadArchive { path: path.into(), reason: reason.into() });
    }
    // Only at the very end does gzip say whether what it gave was right.
    io::copy(&mut rest, &mut io::sink()).map_err(|error| bad(path, &error))?;
    Ok(())
}

pub(crate) const GZIP: [u8; 2] = [0x1F, 0x8B];

fn bad(path: &Path, error: &io::Error) -> Error {
    let text = error.to_string();
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof => "cut short".into(),
        // Then the message quotes the file's bytes, whatever they are.
        _ if text.contains(" when getting ") => "an entry has no header that could be read".into(),
        _ => text,
    };
    Error::BadArchive { path: path.into(), reason }
}

/// The regular files of an archive. Raw entries, so that sizes of names and attributes are ours to limit.
struct Files<'a, R: Read> {
    path: &'a Path,
    wanted: &'a Wanted<'a>,
    entries: tar::Entries<'a, R>,
    n_entries: usize,
    /// The next entry's path, from a GNU long name or a PAX attribute before it.
    long_path: Option<Vec<u8>>,
    ended: bool,
}

impl<R: Read> Iterator for Files<'_, R> {
    type Item = Result<SourceFile>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let Some(entry) = self.entries.next() else {
                self.ended = true;
                return None;
            };
            let file = entry.map_err(|error| bad(self.path, &error)).and_then(|entry| self.file(entry));
            match file.transpose() {
                None => {}
                Some(file) => {
                    self.ended |= file.is_err();
                    return Some(file);
                }
            }
        }
        None
    }
}

impl<R: Read> Files<'_, R> {
    /// The file that an entry holds; None for a folder and for what describes another entry.
    fn file(&mut self, mut entry: tar::Entry<'_, impl Read>) -> Result<Option<SourceFile>> {
        self.n_entries += 1;
        if self.n_entries > MAX_FILES {
            return Err(Error::BadArchive { path: self.path.into(), reason: format!("more than {MAX_FILES} entries") });
        }
        let size = entry.header().entry_size().map_err(|error| bad(self.path, &error))?;
        match entry.header().entry_type() {
            EntryType::GNULongName => {
                let mut name = self.small(&mut entry, size, MAX_PATH_BYTES, "name")?;
                name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
                self.long_path = Some(name);
                Ok(None)
            }
            EntryType::XHeader => {
                let attributes = self.small(&mut entry, size, MAX_PAX_BYTES, "attributes")?;
                self.pax(&attributes)?;
                Ok(None)
            }
            EntryType::Regular | EntryType::Continuous => self.regular(entry, size),
            // Links and devices lead elsewhere; sparse files are none of a data set's. Folders need no making.
            kind => {
                let path = self.entry_path(&entry);
                let path = self.checked_path(&path)?;
                let what = match kind {
                    EntryType::Link | EntryType::Symlink => "a link",
                    EntryType::Char | EntryType::Block | EntryType::Fifo => "a device",
                    EntryType::GNUSparse => "a sparse file",
                    _ => return Ok(None),
                };
                Ok(Some(SourceFile { path, content: Content::NoFile(what) }))
            }
        }
    }

    fn regular(&mut self, entry: tar::Entry<'_, impl Read>, size: u64) -> Result<Option<SourceFile>> {
        let raw_path = self.entry_path(&entry);
        // A tar of the seventies marks a folder by the slash at the end of a regular entry's name.
        let is_folder = raw_path.ends_with(b"/");
        let path = self.checked_path(&raw_path)?;
        if path.is_empty() || is_folder {
            return Ok(None);
        }
        let Some(limit) = (self.wanted)(&path) else {
            return Ok(Some(SourceFile { path, content: Content::NotWanted }));
        };
        let content = if size > limit {
            Content::TooLarge
        } else {
            // Not reserved at once: the header may claim more than there is.
            let mut bytes = Vec::new();
            entry.take(size).read_to_end(&mut bytes).map_err(|error| bad(self.path, &error))?;
            if (bytes.len() as u64) < size {
                return Err(Error::BadArchive { path: self.path.into(), reason: format!("cut short in `{path}`") });
            }
            Content::Bytes(bytes)
        };
        Ok(Some(SourceFile { path, content }))
    }

    fn entry_path(&mut self, entry: &tar::Entry<'_, impl Read>) -> Vec<u8> {
        self.long_path.take().unwrap_or_else(|| entry.header().path_bytes().into_owned())
    }

    /// The content of an entry that describes the next one.
    fn small(&self, entry: &mut impl Read, size: u64, limit: u64, what: &str) -> Result<Vec<u8>> {
        if size > limit {
            let reason = format!("has {what} of {size} bytes, more than the limit of {limit}");
            return Err(self.hostile(b"", reason));
        }
        let mut bytes = Vec::new();
        entry.take(size).read_to_end(&mut bytes).map_err(|error| bad(self.path, &error))?;
        Ok(bytes)
    }

    /// Takes a path from PAX attributes. A size there would have to be at least 8 GB to be of use.
    fn pax(&mut self, attributes: &[u8]) -> Result<()> {
        for attribute in tar::PaxExtensions::new(attributes) {
            let attribute = attribute.map_err(|error| bad(self.path, &error))?;
            match attribute.key_bytes() {
                b"path" => self.long_path = Some(attribute.value_bytes().to_vec()),
                b"size" => return Err(self.hostile(b"", "has a size among its attributes".into())),
                _ => {}
            }
        }
        Ok(())
    }

    /// The path with `/` between its parts and without `.`; an error if it leads out of the folder it is in.
    fn checked_path(&self, path: &[u8]) -> Result<String> {
        let text = String::from_utf8_lossy(path);
        let drive = text.as_bytes().get(1) == Some(&b':');
        if text.starts_with(['/', '\\']) || drive {
            return Err(self.hostile(path, "has an absolute path".into()));
        }
        let parts: Vec<&str> = text.split(['/', '\\']).filter(|part| !matches!(*part, "" | ".")).collect();
        if parts.contains(&"..") {
            return Err(self.hostile(path, "leads out of its folder".into()));
        }
        if text.contains('\0') {
            return Err(self.hostile(path, "has a zero byte in its path".into()));
        }
        Ok(parts.join("/"))
    }

    fn hostile(&self, entry: &[u8], reason: String) -> Error {
        let entry = String::from_utf8_lossy(entry).into_owned();
        Error::HostileArchive { path: self.path.into(), entry, reason }
    }
}

/// Says how much was read of a file.
struct Counted<'a> {
    inner: File,
    on_bytes: &'a dyn Fn(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        (self.on_bytes)(n as u64);
        Ok(n)
    }
}

/// Counts bytes, stops at the limit, and knows how many of the last were zero: an archive ends with blocks of zeros, and
/// the tar crate takes the end of the file for the end of the archive.
struct Watched<R> {
    inner: R,
    n_read: u64,
    n_zeros: u64,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.n_read += n as u64;
        if self.n_read > MAX_ARCHIVE_BYTES {
            return Err(io::Error::other(format!("unpacks to more than the limit of {MAX_ARCHIVE_BYTES} bytes")));
        }
        let tail = buffer[..n].iter().rev().take_while(|&&byte| byte == 0).count();
        self.n_zeros = if tail == n { self.n_zeros + n as u64 } else { tail as u64 };
        Ok(n)
    }
}

/// The members of a gzip file one after the other, as gzip itself reads them: what follows the last is ignored.
pub(crate) struct Members<R> {
    decoder: Option<GzDecoder<R>>,
    rest: Option<R>,
}

impl<R: BufRead> Members<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { decoder: Some(GzDecoder::new(inner)), rest: None }
    }

    /// What is left of the file, unless it could not be read.
    pub(crate) fn into_inner(self) -> Option<R> {
        self.rest.or_else(|| self.decoder.map(GzDecoder::into_inner))
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let n = decoder.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            if let Some(mut inner) = self.decoder.take().map(GzDecoder::into_inner) {
                if inner.fill_buf()?.starts_with(&GZIP) {
                    self.decoder = Some(GzDecoder::new(inner));
                } else {
                    self.rest = Some(inner);
                }
            }
        }
        Ok(0)
    }
}
