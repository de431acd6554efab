//! From a source to pictures that are ready to use: decoded in parallel the first time, read from the cache after.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use rayon::prelude::*;

use crate::cache::{Entry, HEADER_LENGTH, Index, N_CHANNELS, Reader, Writer, lock, pictures_name};
use crate::decode::{Decoded, Format, decode, dimensions};
use crate::error::{Damaged, Error, Result};
use crate::layout::{Layout, Role, check_classes};
use crate::pets::{ListCheck, check_list};
use crate::pictures::{PictureInfo, Pictures};
use crate::source::{Content, FolderFile, Identity, MAX_FILE_BYTES, Source, SourceFile};

/// What to do about pictures that cannot be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DamagedPolicy {
    /// Fail, naming all of them.
    #[default]
    Fail,
    /// Leave them out; the summary names them.
    Skip,
}

/// How a data set is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Folder for the cache file, made if need be; see [`cache_dir`](crate::cache_dir). What decoded pictures may take there
    /// is [`cache_limit`](crate::cache_limit)'s to say.
    pub cache_dir: PathBuf,
    /// What to do about damaged pictures.
    pub damaged: DamagedPolicy,
}

/// How far the decoding is. A data set that is in the cache reports nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Another process decodes the same pictures; this one waits for it.
    Waiting,
    /// Nothing is decoded yet: so much will be written to the cache.
    Measured {
        /// Pictures to decode.
        n_pictures: usize,
        /// Bytes of the cache file, or a few more.
        n_bytes: u64,
    },
    /// Decoding.
    Decoding {
        /// Pictures decoded so far.
        n_pictures: usize,
        /// Bytes of the source read so far.
        n_bytes: u64,
        /// Bytes of the source.
        n_bytes_total: u64,
    },
}

/// A picture whose content is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Misnamed {
    /// The picture's name.
    pub name: String,
    /// What its content is.
    pub format: Format,
}

/// What a source turned out to hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// Pictures that can be used.
    pub n_pictures: usize,
    /// Classes in the order of the labels, with their numbers of pictures.
    pub classes: Vec<(String, usize)>,
    /// Pictures that could not be decoded and are left out.
    pub damaged: Vec<Damaged>,
    /// Pictures in another format than their name says; they are used.
    pub misnamed: Vec<Misnamed>,
    /// Files among the pictures that are none by their extension (a `.heic`), and links, devices and sparse files of an
    /// archive: these with what they are in brackets.
    pub left_out: Vec<String>,
    /// PETS: comparison with `annotations/list.txt`, if that was there.
    pub list: Option<ListCheck>,
    /// Whether the pictures were decoded before.
    pub from_cache: bool,
    /// The cache file.
    pub cache_file: PathBuf,
}

/// Opens Oxford-IIIT PETS: fastai's single archive, the makers' two archives, or an unpacked folder (that holds
/// `images/`, is it, or holds `oxford-iiit-pet/`). `progress` is called from this thread.
///
/// # Errors
/// If the source cannot be read or is damaged, holds no cats and dogs, or, under [`DamagedPolicy::Fail`], if a picture
/// is damaged; if the cache file cannot be written.
pub fn open_pets(
    source: &Source,
    options: &OpenOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<(CachedPictures, Summary)> {
    open(Layout::Pets, source, options, progress)
}

/// Opens Oxford-IIIT PETS as [`open_pets`] does, with the breeds as classes: those that are there, sorted without regard
/// to case, which of the whole set is the order of the 37 class numbers in `annotations/list.txt`. Both use one cache
/// file.
///
/// # Errors
/// As [`open_pets`], with two breeds for cats and dogs.
pub fn open_pets_breeds(
    source: &Source,
    options: &OpenOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<(CachedPictures, Summary)> {
    open(Layout::PetsBreeds, source, options, progress)
}

/// Opens a data set of one folder per class, as a folder or in an archive: folders that all pictures share are
/// ignored, the next one names the class, and classes are sorted. `progress` is called from this thread.
///
/// # Errors
/// As [`open_pets`]; and if there are fewer than two classes, or a picture is in none.
pub fn open_folder(
    source: &Source,
    options: &OpenOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<(CachedPictures, Summary)> {
    open(Layout::ClassFolders, source, options, progress)
}

fn open(
    layout: Layout,
    source: &Source,
    options: &OpenOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<(CachedPictures, Summary)> {
    let recipe = Recipe { layout, source: source.clone(), folder: options.cache_dir.join("pictures") };
    let (reader, index, path, from_cache) = recipe.open(progress)?;
    if options.damaged == DamagedPolicy::Fail && !index.damaged.is_empty() {
        return Err(Error::DamagedPictures { damaged: index.damaged });
    }
    let labels = index.pictures.iter().map(|entry| entry.label);
    check_classes(labels, &index.classes, &source.in_words())?;
    let verified = index.pictures.iter().map(|_| AtomicBool::new(false)).collect();
    let pictures = CachedPictures { recipe, path, index, reader: RwLock::new(reader), verified };
    let summary = pictures.summary(from_cache);
    Ok((pictures, summary))
}

/// What a cache file is made from and where it lies.
#[derive(Debug)]
struct Recipe {
    layout: Layout,
    source: Source,
    folder: PathBuf,
}

impl Recipe {
    /// The cache file, its index, its path, and whether it was there already.
    fn open(&self, progress: &mut dyn FnMut(Progress)) -> Result<(Reader, Index, PathBuf, bool)> {
        let files = match &self.source {
            Source::Folder(folder) => self.layout.files(folder)?,
            Source::Archives(_) => Vec::new(),
        };
        let identity = self.source.identity(&files)?;
        let name = pictures_name(self.layout.word(), &identity.place);
        let path = self.folder.join(format!("{name}.pictures"));
        if let Ok((reader, index)) = self.open_cached(&path, &identity) {
            return Ok((reader, index, path, true));
        }
        fs::create_dir_all(&self.folder).map_err(Error::io("create folder", &self.folder))?;
        // One process decodes; the others wait and find the file.
        let _lock = lock(&self.folder.join(format!("{name}.lock")), &mut || progress(Progress::Waiting))?;
        if let Ok((reader, index)) = self.open_cached(&path, &identity) {
            return Ok((reader, index, path, true));
        }
        let (n_pictures, n_bytes) = self.measure(&files)?;
        let writer = Writer::create(self.folder.join(format!("{name}.partial")), n_bytes)?;
        progress(Progress::Measured { n_pictures, n_bytes });
        self.make(&files, &identity, writer, &path, progress)?;
        let opened = self.open_cached(&path, &identity);
        let (reader, index) = opened.map_err(|reason| bad_cache(&path, "(all)", reason))?;
        Ok((reader, index, path, false))
    }

    /// The cache file, with the labels of this layout; an error is a reason in words.
    fn open_cached(&self, path: &Path, identity: &Identity) -> Result<(Reader, Index), String> {
        let opened = Reader::open(path, &identity.state).and_then(|(reader, mut index)| {
            if self.layout != self.layout.stored() {
                let names = index.pictures.iter().map(|entry| entry.name.clone()).collect();
                let labelled = self.layout.label(names, &self.source.in_words()).map_err(|error| error.to_string())?;
                index.classes = labelled.classes;
                for (entry, label) in index.pictures.iter_mut().zip(labelled.labels) {
                    entry.label = label;
                }
            }
            Ok((reader, index))
        });
        if let Err(reason) = &opened {
            tracing::debug!(path = %path.display(), reason, "cache file not used");
        }
        opened
    }

    /// How many pictures there are, and how many bytes decoding will write or a few more, from the pictures' headers alone.
    fn measure(&self, files: &[FolderFile]) -> Result<(usize, u64)> {
        // What the index has of a picture: numbers and their names, and its own, in which a character may take six bytes.
        const INDEX_BYTES: u64 = 160;
        let (mut n_pictures, mut needed) = (0, HEADER_LENGTH + INDEX_BYTES);
        let layout = self.layout.stored();
        self.source.read(files, &|path| wanted(layout, path), &|_| {}, &mut |files| {
            for file in files {
                let SourceFile { path, content } = file?;
                needed += INDEX_BYTES + 2 * path.len() as u64;
                if let (Role::Picture(_), Content::Bytes(bytes)) = (layout.role(&path), content) {
                    n_pictures += 1;
                    let (width, height) = dimensions(&bytes).unwrap_or_default();
                    needed += (width * height * N_CHANNELS) as u64;
                }
            }
            Ok(())
        })?;
        Ok((n_pictures, needed))
    }

    /// Decodes everything into a new cache file.
    fn make(
        &self,
        files: &[FolderFile],
        identity: &Identity,
        mut writer: Writer,
        path: &Path,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let n_bytes = Cell::new(0);
        let layout = self.layout.stored();
        let mut collected = Collected::default();
        let on_bytes = |n: u64| n_bytes.set(n_bytes.get() + n);
        self.source.read(files, &|path| wanted(layout, path), &on_bytes, &mut |files| {
            let mut current = next_chunk(layout, files, &mut collected)?;
            while !current.is_empty() {
                let mut next = Ok(Vec::new());
                let mut decoded = Vec::new();
                // The pool decodes while this thread reads on.
                rayon::in_place_scope(|scope| {
                    scope.spawn(|_| current.par_iter().map(Raw::decode).collect_into_vec(&mut decoded));
                    next = next_chunk(layout, files, &mut collected);
                });
                for (raw, decoded) in current.drain(..).zip(decoded) {
                    collected.add(raw.name, decoded, &mut writer)?;
                }
                progress(Progress::Decoding {
                    n_pictures: collected.entries.len() + collected.damaged.len(),
                    n_bytes: n_bytes.get().min(identity.n_bytes),
                    n_bytes_total: identity.n_bytes,
                });
                current = next?;
            }
            Ok(())
        })?;
        let index = collected.index(layout, &self.source.in_words(), identity.state.clone())?;
        writer.finish(&index, path)
    }
}

/// Of files that are read the most that they may have.
fn wanted(layout: Layout, path: &str) -> Option<u64> {
    matches!(layout.role(path), Role::Picture(_) | Role::List).then_some(MAX_FILE_BYTES)
}

/// A picture's file in memory.
struct Raw {
    name: String,
    /// Or why there are none.
    bytes: Result<Vec<u8>, String>,
}

impl Raw {
    fn decode(&self) -> Result<Decoded, String> {
        decode(self.bytes.as_ref().map_err(String::clone)?)
    }
}

/// A chunk is as many files as fit: enough to keep all threads busy, few enough to fit into memory together with the
/// pictures made of them.
const CHUNK_FILES: usize = 256;
const CHUNK_FILE_BYTES: usize = 16 << 20;
const CHUNK_DECODED_BYTES: usize = 64 << 20;

/// The next files to decode; empty at the end. Notes what is no picture in `collected`.
fn next_chunk(
    layout: Layout,
    files: &mut dyn Iterator<Item = Result<SourceFile>>,
    collected: &mut Collected,
) -> Result<Vec<Raw>> {
    let mut chunk = Vec::new();
    let (mut n_file_bytes, mut n_decoded_bytes) = (0, 0);
    while chunk.len() < CHUNK_FILES && n_file_bytes < CHUNK_FILE_BYTES && n_decoded_bytes < CHUNK_DECODED_BYTES {
        let Some(file) = files.next() else { break };
        let SourceFile { path, content } = file?;
        match layout.role(&path) {
            Role::Picture(name) => {
                let bytes = match content {
                    Content::Bytes(bytes) => Ok(bytes),
                    Content::NoFile(what) => {
                        collected.left_out.push(format!("{name} ({what})"));
                        continue;
                    }
                    Content::Missing(why) => Err(why.to_owned()),
                    Content::TooLarge | Content::NotWanted => {
                        Err(format!("larger than the limit of {MAX_FILE_BYTES} bytes"))
                    }
                };
                if let Ok(bytes) = &bytes {
                    n_file_bytes += bytes.len();
                    n_decoded_bytes += dimensions(bytes).map_or(0, |(width, height)| width * height * N_CHANNELS);
                }
                chunk.push(Raw { name, bytes });
            }
            Role::List => {
                if let Content::Bytes(bytes) = content {
                    collected.list = Some(String::from_utf8_lossy(&bytes).into_owned());
                }
            }
            Role::LeftOut(name) => collected.left_out.push(match content {
                Content::NoFile(what) | Content::Missing(what) => format!("{name} ({what})"),
                _ => name,
            }),
            Role::Other => {}
        }
    }
    Ok(chunk)
}

/// What was found so far.
#[derive(Default)]
struct Collected {
    entries: Vec<Entry>,
    damaged: Vec<Damaged>,
    misnamed: Vec<Misnamed>,
    left_out: Vec<String>,
    list: Option<String>,
}

impl Collected {
    fn add(&mut self, name: String, decoded: Result<Decoded, String>, writer: &mut Writer) -> Result<()> {
        match decoded {
            Ok(decoded) => {
                if Format::from_name(&name) != Some(decoded.format) {
                    self.misnamed.push(Misnamed { name: name.clone(), format: decoded.format });
                }
                self.entries.push(writer.add(name, decoded.width, decoded.height, &decoded.rgb)?);
            }
            Err(reason) => self.damaged.push(Damaged { name, reason }),
        }
        Ok(())
    }

    /// The index of all pictures, sorted by name and labelled.
    fn index(mut self, layout: Layout, place: &str, source_state: String) -> Result<Index> {
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        self.damaged.sort_by(|a, b| a.name.cmp(&b.name));
        self.misnamed.sort_by(|a, b| a.name.cmp(&b.name));
        self.left_out.sort();
        let names: Vec<String> = self.entries.iter().map(|entry| entry.name.clone()).collect();
        let list = self.list.map(|text| {
            let damaged = self.damaged.iter().map(|damaged| damaged.name.clone());
            check_list(&text, &names.iter().cloned().chain(damaged).collect::<Vec<_>>())
        });
        if names.is_empty() && !self.damaged.is_empty() {
            return Err(Error::DamagedPictures { damaged: self.damaged });
        }
        let labelled = layout.label(names, place)?;
        for ((entry, name), label) in self.entries.iter_mut().zip(labelled.names).zip(labelled.labels) {
            (entry.name, entry.label) = (name, label);
        }
        Ok(Index {
            source_state,
            classes: labelled.classes,
            pictures: self.entries,
            damaged: self.damaged,
            misnamed: self.misnamed,
            left_out: self.left_out,
            list,
        })
    }
}

/// Decoded RGB pictures in a cache file. Memory holds only their names and places.
///
/// Each picture's checksum is compared when it is first read. If one does not match, the file is made anew from the
/// source, once, and the reading goes on.
#[derive(Debug)]
pub struct CachedPictures {
    recipe: Recipe,
    path: PathBuf,
    index: Index,
    reader: RwLock<Reader>,
    verified: Vec<AtomicBool>,
}

impl CachedPictures {
    fn summary(&self, from_cache: bool) -> Summary {
        let counts = self.class_counts();
        Summary {
            n_pictures: self.len(),
            classes: self.index.classes.iter().cloned().zip(counts).collect(),
            damaged: self.index.damaged.clone(),
            misnamed: self.index.misnamed.clone(),
            left_out: self.index.left_out.clone(),
            list: self.index.list.clone(),
            from_cache,
            cache_file: self.path.clone(),
        }
    }

    fn read_cached(&self, idx: usize, bytes: &mut Vec<u8>) -> Result<(), String> {
        let check = !self.verified[idx].load(Ordering::Relaxed);
        // A panic while the lock was held cannot have left a half-written reader.
        let reader = self.reader.read().unwrap_or_else(PoisonError::into_inner);
        reader.read(&self.index.pictures[idx], bytes, check)?;
        self.verified[idx].store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the cache file anew and reads picture `idx` from it; `reason`: what was wrong with the old one.
    fn read_again(&self, idx: usize, bytes: &mut Vec<u8>, reason: &str) -> Result<()> {
        let mut reader = self.reader.write().unwrap_or_else(PoisonError::into_inner);
        let entry = &self.index.pictures[idx];
        // Another thread may have met the damage first.
        if reader.read(entry, bytes, true).is_ok() {
            return Ok(());
        }
        tracing::warn!(path = %self.path.display(), picture = entry.name, reason, "cache file is made anew");
        fs::remove_file(&self.path).map_err(Error::io("remove cache file", &self.path))?;
        let (made, index, ..) = self.recipe.open(&mut |_| {})?;
        if index != self.index {
            return Err(bad_cache(&self.path, &entry.name, format!("{reason}, and the source has changed since")));
        }
        *reader = made;
        reader.read(entry, bytes, true).map_err(|reason| bad_cache(&self.path, &entry.name, reason))
    }
}

fn bad_cache(path: &Path, name: &str, reason: String) -> Error {
    Error::BadCache { path: path.into(), name: name.into(), reason }
}

impl Pictures for CachedPictures {
    fn len(&self) -> usize {
        self.index.pictures.len()
    }

    fn n_channels(&self) -> usize {
        N_CHANNELS
    }

    fn classes(&self) -> &[String] {
        &self.index.classes
    }

    fn info(&self, idx: usize) -> PictureInfo<'_> {
        let Entry { name, label, width, height, .. } = &self.index.pictures[idx];
        PictureInfo { name, label: *label, width: *width, height: *height }
    }

    /// As it was when the picture was decoded.
    fn crc32(&self, idx: usize) -> Result<u32> {
        Ok(self.index.pictures[idx].crc)
    }

    fn read(&self, idx: usize, bytes: &mut Vec<u8>) -> Result<()> {
        match self.read_cached(idx, bytes) {
            Ok(()) => Ok(()),
            Err(reason) => self.read_again(idx, bytes, &reason),
        }
    }
}
