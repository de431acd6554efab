//! From a specification to pictures.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

use sha2::{Digest, Sha256};

use super::{DataSource, DatasetName, DatasetSpec, Provenance};
use crate::checked::{Checked, OpenedFile};
use crate::cifar::{CifarSet, open_cifar, opened_file};
#[cfg(feature = "download")]
use crate::download::{Downloader, Event, Fetched, Mirror, Options, Resource, cifar_10, cifar_100, fashion_mnist};
use crate::error::{Error, Result};
use crate::mnist::{IdxFiles, IdxSet, open_idx};
use crate::normalise::Normalisation;
use crate::open::{OpenOptions, Progress, Summary, open_folder, open_pets, open_pets_breeds};
use crate::parted::open_parted_folders;
use crate::pictures::Pictures;
use crate::source::{Source, hex};
use crate::split::Split;
use crate::toy_pets::{self, ToyPets};

/// A data set that is ready for a [`Loader`](crate::Loader).
pub struct Dataset {
    /// The pictures, with their class names.
    pub pictures: Arc<dyn Pictures>,
    /// Which of them train, validate and test.
    pub split: Split,
    /// Mean and deviation per channel.
    pub normalisation: Normalisation,
    /// What was opened, for records.
    pub provenance: Provenance,
}

/// How far the opening is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Opening<'a> {
    /// Pictures are drawn.
    Drawing {
        /// Where they will lie.
        folder: &'a Path,
        /// So many so far.
        n_pictures: usize,
        /// Of so many.
        n_total: usize,
    },
    /// Pictures are decoded, or read into memory.
    Decoding(Progress),
    /// Files are downloaded.
    #[cfg(feature = "download")]
    Downloading(Event<'a>),
}

type Watch<'a> = dyn FnMut(Opening<'_>) + 'a;

/// What was found of a data set, before it is split.
struct Found {
    pictures: Arc<dyn Pictures>,
    published_test: Vec<usize>,
    source: String,
    files: Vec<OpenedFile>,
    checked: Checked,
    mirror: Option<(String, Option<String>)>,
    summaries: Vec<Summary>,
}

/// Files on this machine, and what is known of them.
struct Located {
    source: Source,
    words: String,
    files: Vec<OpenedFile>,
    mirror: Option<(String, Option<String>)>,
}

impl DatasetSpec {
    /// The data set: fetched, drawn, decoded or read, whatever is still to be done, and split by `split_seed`. `watch` is
    /// called from this thread.
    ///
    /// # Errors
    /// As [`check`](Self::check); if a file cannot be had or read, or is damaged; if the split leaves nothing to train on.
    pub fn open(&self, split_seed: u64, options: &OpenOptions, watch: &mut Watch<'_>) -> Result<Dataset> {
        self.check()?;
        let found = self.find(options, watch)?;
        let Found { pictures, published_test, source, mut files, checked, mirror, summaries } = found;
        let split = Split::by_rule(&self.split, pictures.len(), &published_test, split_seed)?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let mut provenance = Provenance {
            name: self.name,
            source,
            files,
            checked,
            mirror,
            content_sha256: pictures.content_sha256()?,
            n_pictures: pictures.len(),
            n_channels: pictures.n_channels(),
            classes: pictures.classes().iter().cloned().zip(pictures.class_counts()).collect(),
            split_sha256: split.sha256(),
            n_train: split.train.len(),
            n_valid: split.valid.len(),
            n_test: split.test.len(),
            damaged: Vec::new(),
            misnamed: Vec::new(),
            left_out: Vec::new(),
            list: None,
            from_cache: !summaries.is_empty() && summaries.iter().all(|summary| summary.from_cache),
        };
        for summary in summaries {
            provenance.damaged.extend(summary.damaged);
            provenance.misnamed.extend(summary.misnamed);
            provenance.left_out.extend(summary.left_out);
            provenance.list = provenance.list.or(summary.list);
        }
        Ok(Dataset { pictures, split, normalisation: self.normalisation.clone(), provenance })
    }

    fn find(&self, options: &OpenOptions, watch: &mut Watch<'_>) -> Result<Found> {
        match (&self.source, self.name) {
            (DataSource::Embedded, _) => digits(),
            (DataSource::Drawn(toys), _) => {
                let folder = draw(toys, options, watch)?;
                let words = format!("{} pictures drawn, seed {}", toys.pictures, toys.seed);
                let source = Source::Folder(folder);
                let located = Located { source, words, files: Vec::new(), mirror: None };
                Ok(Found { checked: Checked::Made, ..self.read(located, options, watch)? })
            }
            (DataSource::Local { paths, test }, DatasetName::Folder) if !test.is_empty() => {
                let (train, test) = (local(paths)?, local(test)?);
                let words = format!("{} and, for the test, {}", train.words, test.words);
                let (pictures, summaries) =
                    open_parted_folders(&train.source, &test.source, options, &mut |progress| {
                        watch(Opening::Decoding(progress));
                    })?;
                let files = [train.files, test.files].concat();
                let published_test = pictures.published_test();
                let located = Located { source: train.source, words, files, mirror: None };
                Ok(located.found(Arc::new(pictures), published_test, summaries.into()))
            }
            (DataSource::Local { paths, .. }, DatasetName::Mnist | DatasetName::FashionMnist) => {
                // The four files are hashed while they are read.
                let source = source(paths)?;
                let words = in_words(&source);
                self.read(Located { source, words, files: Vec::new(), mirror: None }, options, watch)
            }
            (DataSource::Local { paths, .. }, _) => self.read(self.recognised(local(paths)?)?, options, watch),
            #[cfg(feature = "download")]
            (DataSource::Download { mirror }, _) => {
                let located = self.download(mirror.as_deref(), options, watch)?;
                self.read(located, options, watch)
            }
            // `check` has refused it.
            #[cfg(not(feature = "download"))]
            (DataSource::Download { .. }, _) => Err(Error::BadSetting {
                what: "source",
                got: "download".into(),
                expected: "local: the feature `download` is off".into(),
            }),
        }
    }

    /// Opens what lies on this machine.
    fn read(&self, located: Located, options: &OpenOptions, watch: &mut Watch<'_>) -> Result<Found> {
        let progress = &mut |progress| watch(Opening::Decoding(progress));
        let source = &located.source;
        match self.name {
            DatasetName::Mnist => located.idx(IdxSet::Mnist),
            DatasetName::FashionMnist => located.idx(IdxSet::FashionMnist),
            DatasetName::Cifar10 | DatasetName::Cifar100 => {
                let set = if self.name == DatasetName::Cifar10 { CifarSet::Cifar10 } else { CifarSet::Cifar100 };
                let (pictures, files) = open_cifar(set, source, progress)?;
                let published_test = pictures.published_test();
                let files = located.merged(files);
                Ok(Located { files, ..located }.found(Arc::new(pictures), published_test, Vec::new()))
            }
            name => {
                let open = match name {
                    DatasetName::PetsBreeds => open_pets_breeds,
                    DatasetName::Folder => open_folder,
                    _ => open_pets,
                };
                let (pictures, summary) = open(source, options, progress)?;
                Ok(located.found(Arc::new(pictures), Vec::new(), vec![summary]))
            }
        }
    }

    /// Compares archives of PETS with the published ones.
    #[cfg(feature = "download")]
    fn recognised(&self, mut located: Located) -> Result<Located> {
        if let (DatasetName::Pets | DatasetName::PetsBreeds, Source::Archives(paths)) = (self.name, &located.source) {
            let known = crate::download::pets().concat();
            for (path, file) in paths.iter().zip(&mut located.files) {
                for resource in &known {
                    if resource.is_file(path)? {
                        file.checked = covered(resource.check.is_whole());
                    }
                }
            }
        }
        Ok(located)
    }

    #[cfg(not(feature = "download"))]
    fn recognised(&self, located: Located) -> Result<Located> {
        Ok(located)
    }

    #[cfg(feature = "download")]
    fn download(&self, mirror: Option<&str>, options: &OpenOptions, watch: &mut Watch<'_>) -> Result<Located> {
        let folder = options.cache_dir.join("downloads");
        let downloader = match mirror {
            None => Downloader::new(folder, Options::default()),
            Some(url) => Downloader::with_mirror(folder, url, Options::default())?,
        };
        let sets: Vec<Vec<Resource>> = match self.name {
            DatasetName::Mnist => crate::download::mnist(),
            DatasetName::FashionMnist => fashion_mnist(),
            DatasetName::Cifar10 => cifar_10(),
            DatasetName::Cifar100 => cifar_100(),
            _ => crate::download::pets(),
        };
        let watch = std::cell::RefCell::new(watch);
        let fetched = downloader.fetch_any(&sets, &|event| (watch.borrow_mut())(Opening::Downloading(event)))?;
        let from = |file: &Fetched| file.url.clone().unwrap_or_else(|| file.path.display().to_string());
        let words = format!("downloaded from {}", fetched.iter().map(from).collect::<Vec<_>>().join(" and "));
        let files = fetched.iter().map(|file| OpenedFile {
            name: file.name.clone(),
            n_bytes: file.size,
            sha256: file.sha256.clone(),
            checked: compared(file, downloader.mirror()),
        });
        let files = files.collect();
        let sums = |mirror: &Mirror| mirror.sums.as_ref().map(|sums| sums.sha256.clone());
        let mirror = downloader.mirror().map(|mirror| (mirror.url.clone(), sums(mirror)));
        let source = Source::Archives(fetched.into_iter().map(|file| file.path).collect());
        Ok(Located { source, words, files, mirror })
    }
}

/// Against what a downloaded file was held.
#[cfg(feature = "download")]
fn compared(file: &Fetched, mirror: Option<&Mirror>) -> Checked {
    let sums = mirror.and_then(|mirror| mirror.sums.as_ref());
    match &file.check {
        None => Checked::No,
        Some(_) if sums.is_some_and(|sums| sums.entries.contains_key(&file.name)) => Checked::Mirror,
        Some(check) => covered(check.is_whole()),
    }
}

#[cfg(feature = "download")]
fn covered(whole: bool) -> Checked {
    if whole { Checked::Published } else { Checked::PublishedPart }
}

impl Located {
    fn found(self, pictures: Arc<dyn Pictures>, published_test: Vec<usize>, summaries: Vec<Summary>) -> Found {
        let Self { words, files, mirror, .. } = self;
        let checked = Checked::weakest(&files);
        Found { pictures, published_test, source: words, files, checked, mirror, summaries }
    }

    fn idx(self, set: IdxSet) -> Result<Found> {
        let paths = match &self.source {
            Source::Folder(folder) => IdxFiles::in_folder(folder)?,
            Source::Archives(files) => IdxFiles::of(files)?,
        };
        let (pictures, files) = open_idx(set, &paths)?;
        let published_test = pictures.published_test();
        let files = self.merged(files);
        Ok(Self { files, ..self }.found(Arc::new(pictures), published_test, Vec::new()))
    }

    /// The records of `read`, and where the content is not the published one, but a mirror's or a download's own
    /// checksum vouches for the file, that.
    fn merged(&self, mut read: Vec<OpenedFile>) -> Vec<OpenedFile> {
        for file in &mut read {
            let before = self.files.iter().find(|before| before.name == file.name);
            if let Some(before) = before.filter(|before| {
                file.checked != Checked::Published && !matches!(before.checked, Checked::No | Checked::Differs)
            }) {
                file.checked = before.checked;
            }
        }
        read
    }
}

#[cfg(feature = "digits")]
fn digits() -> Result<Found> {
    let pictures = crate::digits::Digits::load()?.pictures()?;
    let located = Located {
        source: Source::Archives(Vec::new()),
        words: "part of the program".into(),
        files: Vec::new(),
        mirror: None,
    };
    Ok(Found { checked: Checked::Made, ..located.found(Arc::new(pictures), Vec::new(), Vec::new()) })
}

/// `check` has refused it.
#[cfg(not(feature = "digits"))]
fn digits() -> Result<Found> {
    let (got, expected) = ("digits".into(), "one that was compiled in: the feature `digits` is off".into());
    Err(Error::BadSetting { what: "data set", got, expected })
}

/// The folder of the toy pets, which are drawn unless they are there.
fn draw(toys: &ToyPets, options: &OpenOptions, watch: &mut Watch<'_>) -> Result<PathBuf> {
    let mut name = format!("toy-pets-{}-seed{}", toys.pictures, toys.seed);
    let plain = ToyPets { pictures: toys.pictures, seed: toys.seed, ..ToyPets::default() };
    if *toys != plain {
        // Others of the same seed have a folder of their own.
        let settings = format!("{} {:?}", toys.side, toys.difficulty);
        name += &format!("-{}", &hex(Sha256::new_with_prefix(settings))[..8]);
    }
    let folder = options.cache_dir.join(name);
    // They are drawn by several threads, and watched from this one.
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        let drawing = scope.spawn(|| {
            let sender = sender;
            // The other end listens until this one is gone.
            toys.write_to(&folder, &|n_pictures, n_total| {
                let _ = sender.send((n_pictures, n_total));
            })
        });
        for (n_pictures, n_total) in receiver {
            watch(Opening::Drawing { folder: &folder, n_pictures, n_total });
        }
        match drawing.join() {
            Ok(written) => written.map(drop).map_err(Error::from),
            Err(panic) => Err(Error::ToyPets(toy_pets::Error::Parameter {
                name: "drawing",
                got: crate::decode::panic_message(&*panic),
                expected: "pictures".into(),
            })),
        }
    })?;
    Ok(folder)
}

/// One folder, or files.
fn source(paths: &[PathBuf]) -> Result<Source> {
    let mut folders = Vec::new();
    for path in paths {
        if fs::metadata(path).map_err(Error::io("find", path))?.is_dir() {
            folders.push(path);
        }
    }
    match (&folders[..], paths) {
        ([folder], [_]) => Ok(Source::Folder((*folder).clone())),
        ([], _) => Ok(Source::Archives(paths.to_vec())),
        ([folder, ..], _) => Err(Error::BadSetting {
            what: "paths of the source",
            got: format!("{} with the folder `{}` among them", paths.len(), folder.display()),
            expected: "one folder, or files".into(),
        }),
    }
}

fn in_words(source: &Source) -> String {
    match source {
        Source::Folder(folder) => format!("folder {}", folder.display()),
        Source::Archives(paths) => {
            let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            format!("files {}", paths.join(" and "))
        }
    }
}

/// What lies at `paths`, archives with their checksums.
fn local(paths: &[PathBuf]) -> Result<Located> {
    let source = source(paths)?;
    let files = match &source {
        Source::Folder(_) => Vec::new(),
        Source::Archives(paths) => paths.iter().map(|path| opened_file(path, Checked::No)).collect::<Result<_>>()?,
    };
    Ok(Located { words: in_words(&source), source, files, mirror: None })
}
