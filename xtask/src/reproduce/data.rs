//! Where pictures and starting weights come from.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use indicatif::ProgressBar;
use lth_data::download::{self, Downloader, Event, Fetched, Hub, pets, resnet18_weights};
use lth_data::toy_pets::ToyPets;
use lth_data::{DamagedPolicy, OpenOptions, Pictures, Progress, Source, cache_dir, open_folder, open_pets};
use lth_nn::Weights;
use lth_runs::{Checked, DatasetRecord, MirrorRecord, SourceFile, WeightsRecord};

use super::checked::{Compared, checksum, weakest};
use super::options::{DatasetName, Options, Settings, WeightsName};
use crate::console::Console;
use crate::failure::{Blame, Failure, Kind, Result};
use crate::inspect;

/// Names that a note shows; all are on record.
const SHOWN: usize = 5;

/// Pictures and what is on record about them.
pub(crate) struct Dataset {
    pub(crate) pictures: Arc<dyn Pictures>,
    pub(crate) record: DatasetRecord,
}

pub(crate) fn open(options: &Options, settings: &Settings, console: &Console) -> Result<Dataset> {
    let cache = cache_dir().data()?;
    let mut record = record(settings);
    let source = if !options.archive.is_empty() {
        record.source = format!("archive {}", names(&options.archive));
        record.files = options.archive.iter().map(|path| source_file(path)).collect::<Result<_>>()?;
        if settings.dataset == DatasetName::Pets {
            let known = options.archive.iter().map(|path| Compared::recognise(&pets().concat(), path));
            let known = known.collect::<Result<Vec<Compared>>>()?;
            record.checked = weakest(&known);
            for (file, compared) in record.files.iter_mut().zip(known) {
                file.checked = compared.what;
            }
        }
        Source::Archives(options.archive.clone())
    } else if let Some(folder) = &options.data_dir {
        record.source = format!("folder {}", folder.display());
        Source::Folder(folder.clone())
    } else if settings.dataset == DatasetName::ToyPets {
        record.checked = Checked::Made;
        let toys = ToyPets::default();
        record.source = format!("{} pictures drawn, seed {}", toys.pictures, toys.seed);
        Source::Folder(draw(&toys, &cache, console)?)
    } else {
        let downloader = downloader(options, &cache)?;
        let fetched = download(console, |notify| downloader.fetch_any(&pets(), notify))
            .context("the pictures could not be downloaded")
            .map_err(|error| offline_hint(&error, "give them with --archive FILE… or --data-dir DIR"))?;
        record.source = came_from(&fetched);
        let compared: Vec<Compared> = fetched.iter().map(|file| Compared::of(file, downloader.mirror())).collect();
        record.checked = weakest(&compared);
        if let Some(mirror) = downloader.mirror() {
            let sha256sums = mirror.sums.as_ref().map(|sums| sums.entries.clone());
            record.mirror = Some(MirrorRecord { url: mirror.url.clone(), sha256sums });
        }
        record.files = fetched
            .iter()
            .zip(compared)
            .map(|(file, compared)| SourceFile {
                name: file.name.clone(),
                bytes: file.size,
                sha256: Some(file.sha256.clone()),
                checked: compared.what,
            })
            .collect();
        Source::Archives(fetched.into_iter().map(|file| file.path).collect())
    };
    record.checksum = checksum(&record.files);
    let open_options = OpenOptions {
        cache_dir: cache,
        damaged: if settings.skip_damaged { DamagedPolicy::Skip } else { DamagedPolicy::Fail },
    };
    let opener = if settings.dataset == DatasetName::Folder { open_folder } else { open_pets };
    let mut bar = None;
    let opened = opener(&source, &open_options, &mut |progress| match progress {
        Progress::Waiting => console.note("another process is decoding the same pictures: waiting for it"),
        Progress::Decoding { n_bytes, n_bytes_total, .. } => {
            bar.get_or_insert_with(|| console.bytes("decoding pictures", n_bytes_total)).set_position(n_bytes);
        }
        _ => {}
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let (pictures, summary) = opened.data()?;
    if !summary.damaged.is_empty() {
        console.note(format!("{} damaged pictures are left out:", summary.damaged.len()));
        summary.damaged.iter().for_each(|damaged| console.note(format!("  {damaged}")));
    }
    console.note(format!(
        "{} pictures{}: {}",
        summary.n_pictures,
        if summary.from_cache { " (decoded before)" } else { "" },
        summary.classes.iter().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
    ));
    record.left_out = summary.left_out;
    record.contradicted = summary.list.map(|list| list.contradicted).unwrap_or_default();
    let (left_out, contradicted) = (&record.left_out, &record.contradicted);
    for (names, what) in [
        (left_out, "files among the pictures are not looked at"),
        (contradicted, "pictures have another class in annotations/list.txt than by their names, which count"),
    ] {
        if !names.is_empty() {
            let (n, more) = (names.len(), if names.len() > SHOWN { ", …" } else { "" });
            console.note(format!("{n} {what}: {}{more}", names[..n.min(SHOWN)].join(", ")));
        }
    }
    record.skipped = summary.damaged.iter().map(|damaged| damaged.name.clone()).collect();
    record.odd = summary.misnamed.iter().map(|misnamed| misnamed.name.clone()).collect();
    Ok(Dataset { pictures: Arc::new(pictures), record })
}

/// The starting weights that the settings ask for; `None` for random ones.
pub(crate) fn weights(
    options: &Options,
    settings: &Settings,
    console: &Console,
) -> Result<Option<(Weights, WeightsRecord)>> {
    let (path, mut record) = match &settings.weights {
        WeightsName::None => return Ok(None),
        WeightsName::Imagenet => {
            let downloader = downloader(options, &cache_dir().data()?)?;
            let fetched = download(console, |notify| downloader.fetch_resnet18(&Hub::from_env(), notify))
                .context("the ImageNet weights could not be downloaded")
                .map_err(|error| {
                    offline_hint(&error, "give them with --weights FILE, or start from random ones with --weights none")
                })?;
            let compared = Compared::of(&fetched, downloader.mirror());
            let source = came_from(std::slice::from_ref(&fetched));
            let checked = compared.checked;
            (fetched.path, WeightsRecord { name: "imagenet".to_owned(), source, sha256: None, checked })
        }
        WeightsName::File(path) => {
            let name =
                path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
            let source = format!("file {}", path.display());
            let checked = Compared::recognise(&[resnet18_weights()], path)?.checked;
            (path.clone(), WeightsRecord { name, source, sha256: None, checked })
        }
    };
    let weights = Weights::read(&path).data()?;
    inspect::remarks(&weights.folded, None, &[]).into_iter().for_each(|remark| console.note(remark));
    record.sha256 = Some(lth_files::sha256_file(&path).data()?.0);
    Ok(Some((weights, record)))
}

fn downloader(options: &Options, cache: &Path) -> Result<Downloader> {
    let folder = cache.join("downloads");
    match &options.mirror {
        None => Ok(Downloader::new(folder, download::Options::default())),
        Some(url) => Downloader::with_mirror(folder, url, download::Options::default()).map_err(|error| match error {
            download::Error::BadMirror { .. } => Failure::new(Kind::Usage, error),
            _ => Failure::new(Kind::Data, error),
        }),
    }
}

/// Runs a download and shows how far it is.
fn download<T>(
    console: &Console,
    fetch: impl FnOnce(&dyn Fn(Event<'_>)) -> download::Result<T>,
) -> download::Result<T> {
    let bar: RefCell<Option<ProgressBar>> = RefCell::new(None);
    let clear = || {
        if let Some(bar) = bar.take() {
            bar.finish_and_clear();
        }
    };
    let fetched = fetch(&|event| match event {
        Event::Waiting { name } => console.note(format!("another process downloads {name}: waiting for it")),
        Event::Started { name, url, offset, total } => {
            let from = if offset > 0 { format!(" from byte {offset} on") } else { String::new() };
            console.note(format!("downloading {url}{from}"));
            clear();
            let new = console.bytes(name, total.unwrap_or(0));
            new.set_position(offset);
            bar.replace(Some(new));
        }
        Event::Received { received, .. } => {
            if let Some(bar) = &*bar.borrow() {
                bar.set_position(received);
            }
        }
        Event::Retrying { url, cause, pause, .. } => {
            console.note(format!("{url}: {cause}; again in {:.0} s", pause.as_secs_f64()));
        }
        Event::Verifying { name } => {
            clear();
            console.note(format!("checking {name}"));
        }
        Event::SetAside { path } => {
            console.note(format!("the file there was another one: set aside as {}", path.display()));
        }
        _ => {}
    });
    clear();
    fetched
}

/// Draws the toy pets into the cache folder, unless they are there.
fn draw(toys: &ToyPets, cache: &Path, console: &Console) -> Result<PathBuf> {
    let folder = cache.join(format!("toy-pets-{}-seed{}", toys.pictures, toys.seed));
    let bar = console.bar("drawing toy pets", toys.pictures as u64);
    let written = toys.write_to(&folder, &|done, _| bar.set_position(done as u64));
    bar.finish_and_clear();
    written.data()?;
    Ok(folder)
}

fn came_from(files: &[Fetched]) -> String {
    let from = files.iter().map(|file| file.url.clone().unwrap_or_else(|| file.path.display().to_string()));
    format!("downloaded from {}", from.collect::<Vec<_>>().join(" and "))
}

/// Says what works without a network.
fn offline_hint(error: &anyhow::Error, alternative: &str) -> Failure {
    let said = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    Failure::new(
        Kind::Data,
        anyhow::anyhow!("{said}. Without a network: `cargo xtask reproduce --dataset toy-pets`, or {alternative}"),
    )
}

fn record(settings: &Settings) -> DatasetRecord {
    DatasetRecord {
        name: settings.dataset.name().to_owned(),
        source: String::new(),
        checked: Checked::No,
        files: Vec::new(),
        mirror: None,
        checksum: None,
        n_train: 0,
        n_valid: 0,
        n_test: 0,
        skipped: Vec::new(),
        odd: Vec::new(),
        left_out: Vec::new(),
        contradicted: Vec::new(),
        classes: Vec::new(),
    }
}

fn source_file(path: &Path) -> Result<SourceFile> {
    let (sha256, bytes) = lth_files::sha256_file(path).data()?;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(SourceFile { name, bytes, sha256: Some(sha256), checked: None })
}

fn names(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
}
