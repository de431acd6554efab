//! What the cache folder holds: told, and removed on request. Nothing is taken for the cache's own but what it wrote: a
//! download that its note vouches for, the beginning of one, decoded pictures, drawn pictures by their names.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::cache;
use crate::dataset::DatasetName;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::source::Source;
use crate::toy_pets;

/// Something in the cache that can be made or fetched again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheEntry {
    /// Where it lies below the cache folder, parts joined by `/`: `downloads/sha256-52425fb6de5c4249/annotations.tar.gz`.
    pub name: String,
    /// What it is.
    pub kind: CacheKind,
    /// The data sets that it is known to be of.
    pub datasets: Vec<DatasetName>,
    /// Bytes on the disk.
    pub n_bytes: u64,
    /// When it was last read or written, as far as the file system notes that.
    pub last_used: Option<SystemTime>,
    /// Its content; the first is held while it is in use.
    files: Vec<PathBuf>,
    /// Removed where nothing else is left in them, inner ones first.
    folders: Vec<PathBuf>,
    /// Held while it is being made.
    lock: Option<PathBuf>,
}

/// What something in the cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CacheKind {
    /// A downloaded file, whole and verified.
    Download,
    /// The beginning of one; the next attempt goes on from it.
    PartialDownload,
    /// Decoded pictures.
    Pictures,
    /// What a killed process left of decoding.
    PartialPictures,
    /// Drawn pictures.
    Drawn,
}

impl std::fmt::Display for CacheKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Download => "download",
            Self::PartialDownload => "partial download",
            Self::Pictures => "decoded pictures",
            Self::PartialPictures => "partly decoded pictures",
            Self::Drawn => "drawn pictures",
        })
    }
}

/// What lies in the cache folder `folder`, by name; nothing if there is no such folder. What the cache did not write is
/// left out, and so is what lies behind a link.
///
/// # Errors
/// If a folder cannot be read.
pub fn cache_entries(folder: &Path) -> Result<Vec<CacheEntry>> {
    let mut entries = Vec::new();
    for (name, path) in children(folder)? {
        if name == "downloads" && is_itself(&path, fs::Metadata::is_dir) {
            for (check, path) in children(&path)? {
                if is_folder_of_downloads(&check) && is_itself(&path, fs::Metadata::is_dir) {
                    downloads(&format!("{name}/{check}"), &path, &mut entries)?;
                }
            }
        } else if name == "pictures" && is_itself(&path, fs::Metadata::is_dir) {
            for (file, path) in children(&path)? {
                entries.extend(pictures(&format!("{name}/{file}"), &file, path));
            }
        } else if let Some(toys) = is_itself(&path, fs::Metadata::is_dir).then(|| toy_pets::drawn_in(&path)).flatten() {
            let is_own = |file: &PathBuf| {
                file.parent().is_some_and(|folder| is_itself(folder, fs::Metadata::is_dir))
                    && is_itself(file, fs::Metadata::is_file)
            };
            let files = toys.files().into_iter().map(|file| path.join(file)).filter(is_own).collect();
            let folders = vec![path.join("images"), path.join("annotations"), path];
            entries.push(CacheEntry::new(name, CacheKind::Drawn, files, folders, None));
        }
    }
    let origins = origins(folder, &entries);
    for entry in &mut entries {
        entry.datasets = entry.known_datasets(&origins);
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

impl CacheEntry {
    fn new(
        name: String,
        kind: CacheKind,
        files: Vec<PathBuf>,
        folders: Vec<PathBuf>,
        lock: Option<PathBuf>,
    ) -> CacheEntry {
        let (mut n_bytes, mut last_used) = (0, None);
        for metadata in files.iter().filter_map(|file| fs::symlink_metadata(file).ok()) {
            n_bytes += metadata.len();
            last_used = last_used.max(metadata.accessed().ok()).max(metadata.modified().ok());
        }
        CacheEntry { name, kind, datasets: Vec::new(), n_bytes, last_used, files, folders, lock }
    }

    /// Removes it from the disk. Files beside it that the cache did not write stay, and so does the empty `.lock` file, by
    /// which processes that download or decode find each other.
    ///
    /// # Errors
    /// [`Error::CacheInUse`] if another process makes or reads it; if a file cannot be removed.
    pub fn remove(&self) -> Result<()> {
        let _locks = [self.lock.as_ref(), self.files.first()]
            .into_iter()
            .flatten()
            .map(|path| self.hold(path))
            .collect::<Result<Vec<_>>>()?;
        for file in &self.files {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", file)(error)),
                _ => {}
            }
        }
        for folder in &self.folders {
            // There may be something else in it, or it may be in use again.
            let _ = fs::remove_dir(folder);
        }
        Ok(())
    }

    /// The file, locked; `None` if it is not there.
    fn hold(&self, path: &Path) -> Result<Option<File>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(Error::CacheInUse { name: self.name.clone() }),
            // Some file systems have no locks: then nobody holds one.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
        }
    }

    fn known_datasets(&self, origins: &[(String, Vec<DatasetName>)]) -> Vec<DatasetName> {
        match self.kind {
            CacheKind::Drawn => vec![DatasetName::ToyPets],
            CacheKind::Download | CacheKind::PartialDownload => datasets_of_download(file_name(&self.name)),
            CacheKind::Pictures | CacheKind::PartialPictures => {
                let stem = file_name(&self.name).rsplit_once('.').map_or("", |(stem, _)| stem);
                let found = origins.iter().find(|(known, _)| known == stem);
                found.map(|(_, datasets)| datasets.clone()).unwrap_or_default()
            }
        }
    }
}

fn file_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The names in a folder, in order, and their paths; none if there is no folder.
fn children(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("read folder", folder))?,
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("read folder", folder))?;
        // No name that the cache gives is anything but UTF-8.
        if let Ok(name) = entry.file_name().into_string() {
            children.push((name, entry.path()));
        }
    }
    children.sort();
    Ok(children)
}

/// Whether the file or folder, and not one that it links to, is of that kind.
fn is_itself(path: &Path, kind: impl Fn(&fs::Metadata) -> bool) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| kind(&metadata))
}

/// `sha256-52425fb6de5c4249`, `md5-1mib-e4db5c768afd933b`.
fn is_folder_of_downloads(name: &str) -> bool {
    let digits = ["sha256-", "md5-1mib-", "md5-"].iter().find_map(|kind| name.strip_prefix(kind));
    digits.is_some_and(|digits| !digits.is_empty() && is_hex(digits))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn downloads(name: &str, folder: &Path, entries: &mut Vec<CacheEntry>) -> Result<()> {
    let beside = |file: &str, end: &str| folder.join(format!("{file}{end}"));
    for (file, path) in children(folder)? {
        let lock = |file: &str| Some(beside(file, ".lock"));
        let folders = vec![folder.to_path_buf()];
        if !is_itself(&path, fs::Metadata::is_file) {
            continue;
        }
        if let Some(whole) = file.strip_suffix(".part") {
            let ends = [".part", ".part.json", ".part.anew", ".part.anew.json"];
            if [".part.json", ".part.anew.json"].iter().any(|end| beside(whole, end).is_file()) {
                let files = ends.map(|end| beside(whole, end)).into_iter().filter(|file| file.is_file()).collect();
                let kind = CacheKind::PartialDownload;
                entries.push(CacheEntry::new(format!("{name}/{file}"), kind, files, folders, lock(whole)));
            }
        } else if is_noted(&path) {
            let files = vec![path, beside(&file, ".verified.json")];
            entries.push(CacheEntry::new(format!("{name}/{file}"), CacheKind::Download, files, folders, lock(&file)));
        }
    }
    Ok(())
}

/// Whether a note beside the file says that it was downloaded and verified, and it has not changed since.
fn is_noted(path: &Path) -> bool {
    #[cfg(feature = "download")]
    return crate::download::is_noted(path);
    #[cfg(not(feature = "download"))]
    {
        let _ = path;
        false
    }
}

fn pictures(name: &str, file: &str, path: PathBuf) -> Option<CacheEntry> {
    let (stem, end) = file.rsplit_once('.')?;
    let is_ours = cache::is_pictures_name(stem) && is_itself(&path, fs::Metadata::is_file);
    let kind = match end {
        "pictures" if is_ours && begins_as_cache(&path) => CacheKind::Pictures,
        "partial" if is_ours => CacheKind::PartialPictures,
        _ => return None,
    };
    let lock = Some(path.with_extension("lock"));
    Some(CacheEntry::new(name.to_owned(), kind, vec![path], Vec::new(), lock))
}

fn begins_as_cache(path: &Path) -> bool {
    let mut magic = [0; cache::MAGIC.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == cache::MAGIC
}

#[cfg(feature = "download")]
fn datasets_of_download(file: &str) -> Vec<DatasetName> {
    use crate::download::{cifar_10, cifar_100, fashion_mnist, mnist, pets};
    let file = file.strip_suffix(".part").unwrap_or(file);
    let is_of = |sets: Vec<Vec<crate::download::Resource>>| sets.concat().iter().any(|known| known.name == file);
    [
        (mnist(), &[DatasetName::Mnist][..]),
        (fashion_mnist(), &[DatasetName::FashionMnist]),
        (cifar_10(), &[DatasetName::Cifar10]),
        (cifar_100(), &[DatasetName::Cifar100]),
        (pets(), &PETS),
    ]
    .into_iter()
    .find(|(sets, _)| is_of(sets.clone()))
    .map(|(_, datasets)| datasets.to_vec())
    .unwrap_or_default()
}

#[cfg(not(feature = "download"))]
fn datasets_of_download(_: &str) -> Vec<DatasetName> {
    Vec::new()
}

/// Both are made from the same files.
#[cfg(feature = "download")]
const PETS: [DatasetName; 2] = [DatasetName::Pets, DatasetName::PetsBreeds];

/// The names of decoded pictures that were made from what lies in the cache, and of which data sets they are.
fn origins(folder: &Path, entries: &[CacheEntry]) -> Vec<(String, Vec<DatasetName>)> {
    let mut sources = Vec::new();
    for entry in entries.iter().filter(|entry| entry.kind == CacheKind::Drawn) {
        sources.push((Source::Folder(folder.join(&entry.name)), vec![DatasetName::ToyPets]));
    }
    #[cfg(feature = "download")]
    for set in crate::download::pets() {
        let of_set = |known: &crate::download::Resource| {
            let entry = entries
                .iter()
                .find(|entry| entry.kind == CacheKind::Download && file_name(&entry.name) == known.name)?;
            Some(folder.join(&entry.name))
        };
        if let Some(paths) = set.iter().map(of_set).collect::<Option<Vec<_>>>() {
            sources.push((Source::Archives(paths), PETS.to_vec()));
        }
    }
    let named = |(source, datasets): (Source, _)| {
        let place = source.place().ok()?;
        Some((cache::pictures_name(Layout::Pets.word(), &place), datasets))
    };
    sources.into_iter().filter_map(named).collect()
}
