//! Where pictures come from: archives or a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use crate::archive;
use crate::error::{Error, Result};

/// A file of a data set is not larger; the largest picture of PETS has half a megabyte.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;
/// Files of a data set.
pub(crate) const MAX_FILES: usize = 4_000_000;

/// Where pictures come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Tar archives, plain or gzipped, that hold one data set together. They are read, never unpacked.
    Archives(Vec<PathBuf>),
    /// An unpacked data set.
    Folder(PathBuf),
}

/// A file of a source.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Its parts joined by `/`, relative to the archive or folder.
    pub(crate) path: String,
    /// Its content.
    pub(crate) content: Content,
}

/// What a file of a source holds.
#[derive(Debug)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    /// It was not asked for.
    NotWanted,
    /// Larger than it may be.
    TooLarge,
    /// There is nothing to read; why.
    Missing(&'static str),
    /// It is no file but, for example, "a link".
    NoFile(&'static str),
}

/// Of a file whose bytes are to be read the most that it may have; of others `None`.
pub(crate) type Wanted<'a> = dyn Fn(&str) -> Option<u64> + 'a;

/// Takes the files of an archive or a folder one after the other.
pub(crate) type Consumer<'a> = dyn FnMut(&mut dyn Iterator<Item = Result<SourceFile>>) -> Result<()> + 'a;

/// What tells one state of a source from another, without reading it all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Of where the source lies: the same for all its states.
    pub(crate) place: String,
    /// Of its present content: sizes, times of change, and of an archive the first and last bytes (gzip's own checksum
    /// of the whole is among the last).
    pub(crate) state: String,
    /// Bytes to read.
    pub(crate) n_bytes: u64,
}

impl Source {
    /// The source in words, for messages.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Source::Archives(paths) => {
                let paths: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
                paths.join(" and ")
            }
            Source::Folder(path) => format!("`{}`", path.display()),
        }
    }

    /// Of where it lies: the same for all its states.
    ///
    /// # Errors
    /// If a file or folder is missing.
    pub(crate) fn place(&self) -> Result<String> {
        let mut place = Sha256::new();
        let paths = match self {
            Source::Archives(paths) => &paths[..],
            Source::Folder(path) => std::slice::from_ref(path),
        };
        for path in paths {
            add_text(&mut place, &canonical(path)?.to_string_lossy());
        }
        Ok(hex(place))
    }

    /// # Errors
    /// If a file or folder is missing or cannot be read.
    pub(crate) fn identity(&self, files: &[FolderFile]) -> Result<Identity> {
        let mut state = Sha256::new();
        let mut n_bytes = 0;
        match self {
            Source::Archives(paths) => {
                for path in paths {
                    let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
                    add_text(&mut state, &stamp(&metadata));
                    state.update(ends(path, metadata.len())?);
                    n_bytes += metadata.len();
                }
            }
            Source::Folder(_) => {
                for file in files {
                    add_text(&mut state, &file.path);
                    add_text(&mut state, &file.stamp);
                    n_bytes += file.n_bytes;
                }
            }
        }
        Ok(Identity { place: self.place()?, state: hex(state), n_bytes })
    }

    /// Gives every file to `consume`: archives one after the other, a folder's files by name.
    /// `files`: the files of a folder. `wanted`: which files' bytes are read, and the most that they may have.
    /// `on_bytes`: told how many bytes were read since the last call.
    pub(crate) fn read(
        &self,
        files: &[FolderFile],
        wanted: &Wanted<'_>,
        on_bytes: &dyn Fn(u64),
        consume: &mut Consumer<'_>,
    ) -> Result<()> {
        match self {
            Source::Archives(paths) => paths.iter().try_for_each(|path| archive::read(path, wanted, on_bytes, consume)),
            Source::Folder(_) => consume(&mut files.iter().map(|file| {
                on_bytes(file.n_bytes);
                let content = match (file.missing, wanted(&file.path)) {
                    (Some(why), _) => Content::Missing(why),
                    (None, None) => Content::NotWanted,
                    (None, Some(limit)) if file.n_bytes > limit => Content::TooLarge,
                    (None, Some(_)) => {
                        Content::Bytes(fs::read(&file.on_disk).map_err(Error::io("read", &file.on_disk))?)
                    }
                };
                Ok(SourceFile { path: file.path.clone(), content })
            })),
        }
    }
}

/// A file below a source folder.
#[derive(Clone, Debug)]
pub(crate) struct FolderFile {
    /// Its parts joined by `/`, relative to the folder (or what stands for it, see `pets::files`).
    pub(crate) path: String,
    on_disk: PathBuf,
    pub(crate) n_bytes: u64,
    stamp: String,
    /// Why there is nothing to read.
    missing: Option<&'static str>,
}

/// The files below `folder`, sorted by path, hidden ones left out. Links are followed: the folder is the user's own.
/// `prefix`: put before each path. `max_depth`: 1 for the folder's own files.
pub(crate) fn walk(folder: &Path, prefix: &str, max_depth: usize) -> Result<Vec<FolderFile>> {
    let mut files = Vec::new();
    walk_into(folder, prefix, max_depth, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk_into(folder: &Path, prefix: &str, max_depth: usize, files: &mut Vec<FolderFile>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("read folder", folder))? {
        let entry = entry.map_err(Error::io("read folder", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let on_disk = entry.path();
        let path = format!("{prefix}{name}");
        let metadata = match fs::metadata(&on_disk) {
            Ok(metadata) => metadata,
            // One picture's affair, and not the whole folder's.
            Err(_) if fs::symlink_metadata(&on_disk).is_ok_and(|itself| itself.is_symlink()) => {
                let (stamp, missing) = ("link".to_owned(), Some("a link that leads nowhere"));
                files.push(FolderFile { path, on_disk, n_bytes: 0, stamp, missing });
                continue;
            }
            Err(error) => return Err(Error::io("read", &on_disk)(error)),
        };
        if metadata.is_dir() {
            if max_depth > 1 {
                walk_into(&on_disk, &format!("{path}/"), max_depth - 1, files)?;
            }
        } else if metadata.is_file() {
            if files.len() >= MAX_FILES {
                let (got, expected) = (format!("more than {MAX_FILES}"), format!("at most {MAX_FILES}"));
                return Err(Error::BadSetting { what: "number of files in the folder", got, expected });
            }
            let (n_bytes, stamp) = (metadata.len(), stamp(&metadata));
            files.push(FolderFile { path, on_disk, n_bytes, stamp, missing: None });
        }
    }
    Ok(())
}

fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).map_err(Error::io("find", path))
}

/// Size and time of the last change.
fn stamp(metadata: &fs::Metadata) -> String {
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!("{} {}", metadata.len(), changed.map_or(0, |time| time.as_nanos()))
}

/// The first and the last 64 kB of a file.
fn ends(path: &Path, n_bytes: u64) -> Result<Vec<u8>> {
    use std::io::{Read, Seek, SeekFrom};
    const LENGTH: u64 = 64 << 10;
    let mut file = fs::File::open(path).map_err(Error::io("open", path))?;
    let mut bytes = Vec::new();
    (&mut file).take(LENGTH).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    file.seek(SeekFrom::Start(n_bytes.saturating_sub(LENGTH))).map_err(Error::io("read", path))?;
    file.take(LENGTH).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(bytes)
}

/// Adds a text and its end, so that "a", "bc" and "ab", "c" differ.
pub(crate) fn add_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
