//! The folder of one run.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use lth_files::{FolderLock, remove_partial_files, sync_folder, write_atomic};

use crate::Error;
use crate::metrics::{MetricRecord, Metrics, read_metrics};
use crate::report::report;
use crate::summary::Summary;

const SUMMARY: &str = "summary.json";
const METRICS: &str = "metrics.jsonl";
const REPORT: &str = "report.md";
const OURS: [&str; 3] = [SUMMARY, METRICS, REPORT];

/// What to do with a folder that holds something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Existing {
    /// Refuse it.
    #[default]
    Refuse,
    /// Replace the run in it, file by file; what is not the run's is left alone.
    Replace,
}

/// The folder that a run writes into. While it is held, no other process can write a run there (on Unix).
///
/// Files appear whole or not at all, but for `metrics.jsonl`, which grows by whole lines. Folders that were made
/// for the run and never written to go away with this value.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Folders made by us, the inmost first, while nothing is written.
    made: Vec<PathBuf>,
    /// The run before ours, whose files go when our first one comes.
    replaces: bool,
    metrics: Option<(File, u64)>,
    /// Given back with the value.
    _lock: FolderLock,
}

impl RunDir {
    /// The folder `path`, made with its parents if it is not there.
    ///
    /// With [`Existing::Replace`], the files of a run that is there go when the new run writes its first, so that
    /// a run that fails before it begins loses nothing. Only what a run writes goes: `summary.json`,
    /// `metrics.jsonl`, `report.md`, and the files that the old `summary.json` lists.
    ///
    /// # Errors
    /// [`Error::Occupied`] for a folder with anything in it, [`Error::NotAFolder`], [`Error::Busy`],
    /// [`Error::Io`].
    pub fn create(path: impl Into<PathBuf>, existing: Existing) -> Result<RunDir, Error> {
        let path = path.into();
        let made = absent(&path);
        if !made.is_empty() {
            std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        RunDir::occupy(path, made, existing)
    }

    /// The first folder `parent/<dataset>-seed<seed>`, `…-2`, `…-3` that is not there yet.
    ///
    /// Two processes that ask at once get two folders.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create_next(parent: &Path, dataset: &str, seed: u64) -> Result<RunDir, Error> {
        let mut made = absent(parent);
        std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        loop {
            let path = next_free(parent, dataset, seed);
            match std::fs::create_dir(&path) {
                Ok(()) => {
                    made.insert(0, path.clone());
                    return RunDir::occupy(path, made, Existing::Refuse);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("create", path)(error)),
            }
        }
    }

    /// A folder that holds a run, to go on with it. A last line of `metrics.jsonl` that was cut is removed.
    ///
    /// # Errors
    /// [`Error::Absent`] if there is no run, [`Error::Damaged`] if its metrics cannot be read, [`Error::Busy`],
    /// [`Error::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<RunDir, Error> {
        let path = path.into();
        if !path.is_dir() {
            return Err(Error::Absent { what: "run", path });
        }
        let lock = FolderLock::acquire(&path)?;
        if !OURS.iter().any(|name| path.join(name).exists()) {
            return Err(Error::Absent { what: "run", path });
        }
        let run = RunDir { path, made: Vec::new(), replaces: false, metrics: None, _lock: lock };
        run.remove_partial_files()?;
        let metrics = run.metrics()?;
        if metrics.cut {
            let path = run.path.join(METRICS);
            OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(metrics.whole_bytes))
                .map_err(Error::io("write", path))?;
        }
        Ok(run)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds one line to `metrics.jsonl` and flushes it to the disk.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a figure is not finite or out of range, [`Error::Io`]; the file then ends with its
    /// last whole line.
    pub fn append(&mut self, record: &MetricRecord) -> Result<(), Error> {
        let line = record.to_line()?;
        self.begin()?;
        let path = self.path.join(METRICS);
        let (file, length) = match &mut self.metrics {
            Some(open) => open,
            None => {
                let opened = OpenOptions::new().create(true).append(true).open(&path);
                let file = opened.map_err(Error::io("write", &path))?;
                let length = file.metadata().map_err(Error::io("read", &path))?.len();
                self.metrics.insert((file, length))
            }
        };
        let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
        match written {
            Ok(()) => {
                *length += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A full disk: take back the half that was written, so that a later line is not glued to it.
                let _ = file.set_len(*length);
                Err(Error::io("write", path)(error))
            }
        }
    }

    /// What `metrics.jsonl` holds; nothing if it is not there.
    ///
    /// # Errors
    /// As [`read_metrics`].
    pub fn metrics(&self) -> Result<Metrics, Error> {
        match read_metrics(&self.path.join(METRICS)) {
            Err(Error::Absent { .. }) => Ok(Metrics::default()),
            read => read,
        }
    }

    /// The path of the run's file `name` ("tickets/ticket-50.safetensors"), its folder made: for a writer that
    /// needs a path. [`RunDir::write_file`] is for one that needs only a stream.
    ///
    /// # Errors
    /// [`Error::FileName`] for a name that leaves the folder or belongs to the run's own records; [`Error::Io`].
    pub fn prepare_file(&mut self, name: &str) -> Result<PathBuf, Error> {
        let refuse = |reason| Err(Error::FileName { name: name.into(), reason });
        if !is_plain(name) {
            return refuse("expected parts joined by `/`, none empty, beginning with a dot, or with `\\` or `:`");
        }
        if OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
            return refuse("the run's own records have it");
        }
        self.begin()?;
        let path = self.path.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        Ok(path)
    }

    /// Writes the run's file `name`, whole or not at all, and returns its path.
    ///
    /// # Errors
    /// As [`RunDir::prepare_file`]; [`Error::Io`] also for an error that `write` returns.
    pub fn write_file(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<PathBuf, Error> {
        let path = self.prepare_file(name)?;
        write_atomic(&path, write)?;
        Ok(path)
    }

    /// Writes `summary.json` and the `report.md` made from it, and returns the summary as a reader will find it.
    ///
    /// # Errors
    /// As [`Summary::write`] and [`Summary::read`].
    pub fn finish(&mut self, summary: &Summary) -> Result<Summary, Error> {
        let text = summary.to_json()?;
        self.begin()?;
        let path = self.path.join(SUMMARY);
        write_atomic(&path, |file| file.write_all(text.as_bytes()))?;
        let read = Summary::read(&path)?;
        let text = report(&read);
        write_atomic(&self.path.join(REPORT), |file| file.write_all(text.as_bytes()))?;
        Ok(read)
    }

    /// The `summary.json` in it.
    ///
    /// # Errors
    /// As [`Summary::read`].
    pub fn summary(&self) -> Result<Summary, Error> {
        Summary::read(&self.path.join(SUMMARY))
    }

    fn occupy(path: PathBuf, made: Vec<PathBuf>, existing: Existing) -> Result<RunDir, Error> {
        if !path.is_dir() {
            return Err(Error::NotAFolder { path });
        }
        let lock = FolderLock::acquire(&path)?;
        let holds = contents(&path)?;
        match holds {
            Some(holds) if existing == Existing::Refuse => return Err(Error::Occupied { path, holds }),
            _ => {}
        }
        let replaces = holds.is_some();
        Ok(RunDir { path, made, replaces, metrics: None, _lock: lock })
    }

    /// Before the first write: the old run's files go, the manifest last, so that a removal that was cut short can
    /// be done again.
    fn begin(&mut self) -> Result<(), Error> {
        self.made.clear();
        if !self.replaces {
            return Ok(());
        }
        self.remove_partial_files()?;
        for name in self.listed_files() {
            remove(&self.path.join(name))?;
        }
        for name in [REPORT, METRICS, SUMMARY] {
            remove(&self.path.join(name))?;
        }
        sync_folder(&self.path);
        self.replaces = false;
        Ok(())
    }

    /// The files that the summary there says the old run wrote. A summary that cannot be read lists none: better
    /// a stale file than a lost one.
    fn listed_files(&self) -> BTreeSet<String> {
        let Ok(summary) = self.summary() else { return BTreeSet::new() };
        let runs = summary.runs.into_iter();
        let files = runs.flat_map(|run| [run.ticket, run.trained]).flatten().map(|file| file.path);
        let inside = |name: &String| {
            // Through a link in between, the file would lie in another folder.
            let folder = self.path.join(name).parent().map(Path::to_path_buf);
            let real = folder.and_then(|folder| folder.canonicalize().ok());
            real.zip(self.path.canonicalize().ok()).is_some_and(|(real, root)| real.starts_with(root))
        };
        files.filter(|name| is_plain(name)).filter(inside).collect()
    }

    /// Removes what a killed process left behind of files that it was writing.
    fn remove_partial_files(&self) -> Result<(), Error> {
        remove_partial_files(&self.path)?;
        Ok(remove_partial_files(&self.path.join("tickets"))?)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Each succeeds only if it is empty.
        self.made.iter().all(|folder| std::fs::remove_dir(folder).is_ok());
    }
}

/// The folders of `path` that are not there, the inmost first.
pub(crate) fn absent(path: &Path) -> Vec<PathBuf> {
    let folders = path.ancestors().filter(|folder| !folder.as_os_str().is_empty());
    folders.take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect()
}

/// The first of `parent/<dataset>-seed<seed>`, `…-2`, `…-3` that is not there.
///
/// Characters that do not belong into a file name become `-`. To have it, use [`RunDir::create_next`]: between
/// this answer and the folder's making, another process may take it.
pub fn next_free(parent: &Path, dataset: &str, seed: u64) -> PathBuf {
    let plain = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => character,
        _ => '-',
    };
    let stem: String = dataset.chars().map(plain).collect();
    let stem = if stem.is_empty() { "run" } else { &stem };
    let taken = |path: &Path| path.symlink_metadata().is_ok();
    let mut path = parent.join(format!("{stem}-seed{seed}"));
    let mut count = 2_u64;
    while taken(&path) {
        path = parent.join(format!("{stem}-seed{seed}-{count}"));
        count += 1;
    }
    path
}

/// Whether `name` stays inside the folder it is joined to, on every platform.
pub(crate) fn is_plain(name: &str) -> bool {
    name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', ':', '\0']))
}

/// What a folder holds: "a run", or the name of the first thing in it.
fn contents(path: &Path) -> Result<Option<String>, Error> {
    let entries = std::fs::read_dir(path).map_err(Error::io("read", path))?;
    let names: BTreeSet<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if OURS.iter().any(|name| names.contains(*name)) {
        return Ok(Some("a run".into()));
    }
    Ok(names.first().map(|name| format!("`{name}`")))
}

pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}
