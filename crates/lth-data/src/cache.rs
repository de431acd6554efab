//! Decoded pictures in one file, so that they are decoded once.
//!
//! Layout, numbers little-endian: a header of 64 bytes (magic, version, place and length of the index, CRC-32 of the
//! index, CRC-32 of the header so far), the pictures' bytes, the index as JSON. The file gets its name only when it is
//! complete and on the disk, so an interrupted run leaves no half of one under it. Header and index are checked when it
//! is opened, each picture when it is first read.
//!
//! It is read with plain reads at an offset. Mapped into memory, a file that someone cuts short kills the process.

use std::env::VarError;
use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::error::{Damaged, Error, Result};
use crate::file::sync_folder;
use crate::layout::Layout;
use crate::open::Misnamed;
use crate::pets::ListCheck;
use crate::text::on_one_line;

pub(crate) const MAGIC: [u8; 8] = *b"LTHPICS\n";
/// Change it when the layout or anything about decoding changes: files of other versions are made anew.
const VERSION: u32 = 2;
pub(crate) const HEADER_LENGTH: u64 = 64;
/// Channels of the pictures in it.
pub(crate) const N_CHANNELS: usize = 3;

/// All that the file says beside the pictures' bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    /// State of the source that it was made from.
    pub(crate) source_state: String,
    pub(crate) classes: Vec<String>,
    /// Sorted by name.
    pub(crate) pictures: Vec<Entry>,
    pub(crate) damaged: Vec<Damaged>,
    pub(crate) misnamed: Vec<Misnamed>,
    pub(crate) left_out: Vec<String>,
    pub(crate) list: Option<ListCheck>,
}

/// A picture of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) label: u32,
    pub(crate) width: usize,
    pub(crate) height: usize,
    offset: u64,
    pub(crate) crc: u32,
}

impl Entry {
    /// Number of bytes; None if it overflows.
    fn length(&self) -> Option<usize> {
        self.width.checked_mul(self.height)?.checked_mul(N_CHANNELS)
    }
}

/// A cache file being written.
///
/// From the beginning it is as long as it will be, so that other processes count it as it will be. It is gone with this
/// value unless it was completed.
pub(crate) struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    end: u64,
    /// Bytes of the cache that are this file's.
    reserved: u64,
    is_complete: bool,
}

impl Writer {
    /// A new file at `path`, replacing what an interrupted run left there, for `n_bytes` bytes.
    ///
    /// # Errors
    /// [`Error::CacheLimit`] if that is more than the limit leaves; if it cannot be written.
    pub(crate) fn create(path: PathBuf, n_bytes: u64) -> Result<Writer> {
        let _one_at_a_time = lock_room(&path);
        // Nobody's any more, whether there is room for a new one or not.
        let _ = fs::remove_file(&path);
        remove_abandoned(&path);
        check_limit(&path, n_bytes)?;
        let file = File::create(&path).map_err(Error::io("create cache file", &path))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let mut writer = Writer { file, path, end: 0, reserved: n_bytes, is_complete: false };
        writer.reserve()?;
        writer.write(&[0; HEADER_LENGTH as usize])?;
        Ok(writer)
    }

    /// Makes the file as long as what it has reserved.
    fn reserve(&mut self) -> Result<()> {
        self.file.get_mut().set_len(self.reserved).map_err(Error::io("write cache file", &self.path))
    }

    /// Adds a picture; its label comes later.
    pub(crate) fn add(&mut self, name: String, width: usize, height: usize, bytes: &[u8]) -> Result<Entry> {
        let entry = Entry { name, label: 0, width, height, offset: self.end, crc: crc32fast::hash(bytes) };
        self.write(bytes)?;
        Ok(entry)
    }

    /// Completes the file and gives it the name `path`, replacing a file of that name.
    pub(crate) fn finish(mut self, index: &Index, path: &Path) -> Result<()> {
        let index_offset = self.end;
        let index = serde_json::to_vec(index).map_err(|error| {
            Error::io("write cache file", &self.path)(io::Error::new(io::ErrorKind::InvalidData, error))
        })?;
        self.write(&index)?;
        let header = header(index_offset, index.len() as u64, crc32fast::hash(&index));
        let write_failed = || Error::io("write cache file", &self.path);
        self.file.flush().map_err(write_failed())?;
        let file = self.file.get_mut();
        file.seek(SeekFrom::Start(0)).map_err(write_failed())?;
        file.write_all(&header).map_err(write_failed())?;
        file.set_len(self.end).map_err(write_failed())?;
        file.sync_all().map_err(write_failed())?;
        fs::rename(&self.path, path).map_err(Error::io("complete cache file", path))?;
        self.is_complete = true;
        sync_folder(path);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.end + bytes.len() as u64;
        if end > self.reserved {
            // The source has changed since it was measured.
            let _one_at_a_time = lock_room(&self.path);
            check_limit(&self.path, end)?;
            self.reserved = end;
            self.reserve()?;
        }
        self.file.write_all(bytes).map_err(Error::io("write cache file", &self.path))?;
        self.end = end;
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_complete {
            // Of no use to anyone; that it cannot be removed either is not the news.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn header(index_offset: u64, index_length: u64, index_crc: u32) -> [u8; HEADER_LENGTH as usize] {
    let mut header = [0; HEADER_LENGTH as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&index_crc.to_le_bytes());
    header[16..24].copy_from_slice(&index_offset.to_le_bytes());
    header[24..32].copy_from_slice(&index_length.to_le_bytes());
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// An open cache file.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
}

impl Reader {
    /// The file at `path` and its index, if it was made from a source in `source_state`.
    /// Else the reason why it cannot be used, in words.
    pub(crate) fn open(path: &Path, source_state: &str) -> Result<(Reader, Index), String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let length = file.metadata().map_err(|error| error.to_string())?.len();
        // Says to whoever would remove it that it is in use. Where there are no locks it is read all the same.
        let _ = file.try_lock_shared();
        let reader = Reader { file };
        let mut bytes = vec![0; HEADER_LENGTH as usize];
        reader.read_at(&mut bytes, 0).map_err(|_| "no header")?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|idx| bytes[at + idx]));
        let (index_crc, index_offset, index_length) = ((number(8) >> 32) as u32, number(16), number(24));
        if bytes != header(index_offset, index_length, index_crc) {
            return Err("a damaged header, or another version's".into());
        }
        if index_offset.checked_add(index_length) != Some(length) {
            return Err(format!("{length} bytes, expected {index_offset} + {index_length}"));
        }
        let mut bytes = vec![0; usize::try_from(index_length).map_err(|error| error.to_string())?];
        reader.read_at(&mut bytes, index_offset).map_err(|error| error.to_string())?;
        if crc32fast::hash(&bytes) != index_crc {
            return Err("a damaged index".into());
        }
        let index: Index = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        if index.source_state != source_state {
            return Err("made from another state of the pictures".into());
        }
        let fits = |entry: &Entry| {
            let length = entry.length()? as u64;
            (length > 0
                && entry.offset >= HEADER_LENGTH
                && entry.offset.checked_add(length)? <= index_offset
                && (entry.label as usize) < index.classes.len())
            .then_some(())
        };
        match index.pictures.iter().find(|entry| fits(entry).is_none()) {
            Some(entry) => Err(format!("`{}` lies outside the file", entry.name)),
            None => Ok((reader, index)),
        }
    }

    /// Writes the bytes of a picture to `bytes`, replacing its content. `check`: compare them with their checksum.
    /// An error is a reason in words.
    pub(crate) fn read(&self, entry: &Entry, bytes: &mut Vec<u8>, check: bool) -> Result<(), String> {
        bytes.resize(entry.length().unwrap_or(0), 0);
        self.read_at(bytes, entry.offset).map_err(|error| error.to_string())?;
        if check && crc32fast::hash(bytes) != entry.crc {
            return Err("its bytes do not have their checksum".into());
        }
        Ok(())
    }

    #[cfg(unix)]
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, bytes, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&self.file, bytes, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => (bytes, offset) = (&mut bytes[n..], offset + n as u64),
            }
        }
        Ok(())
    }
}

/// The folder for what can be made or fetched again: `LTH_CACHE`, or `lth` in the platform's cache folder. It need not
/// exist.
///
/// # Errors
/// If `LTH_CACHE` is not set and the system names no such folder.
pub fn cache_dir() -> Result<PathBuf> {
    match std::env::var_os("LTH_CACHE").filter(|folder| !folder.is_empty()) {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => directories::ProjectDirs::from("", "", "lth")
            .map(|folders| folders.cache_dir().to_path_buf())
            .ok_or(Error::NoCacheFolder),
    }
}

/// The most that decoded pictures may take in the cache, all together: `LTH_CACHE_LIMIT`, such as `5GB`. `None` if it is
/// not set.
///
/// # Errors
/// If it is no number of bytes.
pub fn cache_limit() -> Result<Option<ByteSize>> {
    match std::env::var("LTH_CACHE_LIMIT") {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => text.parse().map(Some).map_err(|_| no_size(&text)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(text)) => Err(no_size(&text.display().to_string())),
    }
}

fn no_size(text: &str) -> Error {
    Error::BadSetting {
        what: "LTH_CACHE_LIMIT",
        got: format!("`{}`", on_one_line(text)),
        expected: "a number with a unit, such as 500MB, 5GB or 4GiB".into(),
    }
}

/// What decoded pictures are called in the cache; `place`: where their source lies, as [`Source`](crate::Source) tells it.
pub(crate) fn pictures_name(layout: &str, place: &str) -> String {
    format!("{layout}-{}", place.get(..16).unwrap_or(place))
}

/// Whether [`pictures_name`] makes such a name.
pub(crate) fn is_pictures_name(name: &str) -> bool {
    let is_place = |place: &str| place.len() == 16 && place.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.rsplit_once('-').is_some_and(|(word, place)| {
        [Layout::Pets, Layout::ClassFolders].iter().any(|layout| layout.word() == word) && is_place(place)
    })
}

/// Refuses `n_bytes` for the file at `path` if that is more than the limit leaves.
fn check_limit(path: &Path, n_bytes: u64) -> Result<()> {
    let Some(limit) = cache_limit()? else { return Ok(()) };
    let others = files_beside(path, &["pictures", "partial"]).filter(|other| other != path);
    let there = others.filter_map(|other| fs::metadata(other).ok()).map(|metadata| metadata.len()).sum();
    if n_bytes.saturating_add(there) > limit.0 {
        let folder = path.parent().unwrap_or(path).to_path_buf();
        return Err(Error::CacheLimit { folder, needed: ByteSize(n_bytes), there: ByteSize(there), limit });
    }
    Ok(())
}

/// Removes files that nobody completes any more: their writers, which would hold a lock, were killed.
fn remove_abandoned(path: &Path) {
    let is_ours = |file: &Path| file.file_stem().and_then(OsStr::to_str).is_some_and(is_pictures_name);
    for partial in files_beside(path, &["partial"]).filter(|partial| is_ours(partial)) {
        let lock = File::open(partial.with_extension("lock"));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            // If it cannot be removed it counts, and that is all.
            let _ = fs::remove_file(&partial);
        }
    }
}

/// The files in the folder of `path` that have one of these extensions.
fn files_beside<'a>(path: &Path, extensions: &'a [&'a str]) -> impl Iterator<Item = PathBuf> + 'a {
    let files = path.parent().map(fs::read_dir).into_iter().flatten().flatten().flatten();
    let files = files.map(|file| file.path());
    files.filter(move |file| file.extension().is_some_and(|end| extensions.iter().any(|one| end == *one)))
}

/// The folder of `path`, locked until dropped: held while room in it is counted and taken. Where a folder cannot be locked,
/// nothing is.
fn lock_room(path: &Path) -> Option<File> {
    let folder = File::open(path.parent()?).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

/// Holds the file at `path` locked until dropped; `waiting` is called if somebody else has it. Where the file system has no
/// locks, nothing is locked.
pub(crate) fn lock(path: &Path, waiting: &mut dyn FnMut()) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(Error::io("create lock file", path))?;
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        waiting();
        file.lock().map_err(Error::io("lock", path))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writers::check_writer;

    #[test]
    fn a_failed_write_leaves_the_old_cache_and_nothing_else() {
        let write = |path: &Path| {
            let mut partial = path.to_path_buf().into_os_string();
            partial.push(".partial");
            let mut writer = Writer::create(partial.into(), 4096)?;
            let entry = writer.add("a".into(), 1, 1, &[1, 2, 3])?;
            let index = Index {
                source_state: String::new(),
                classes: vec!["cat".into()],
                pictures: vec![entry],
                damaged: Vec::new(),
                misnamed: Vec::new(),
                left_out: Vec::new(),
                list: None,
            };
            writer.finish(&index, path)
        };
        check_writer("a.pictures", |path| write(path).map_err(|error| error.to_string()));
    }
}
