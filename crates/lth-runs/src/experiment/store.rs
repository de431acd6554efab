//! The folder of an experiment.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use lth_files::{FolderLock, remove_partial_files, write_atomic};
use serde::{Deserialize, Serialize};

use super::reader::{CHECKPOINT, CHECKPOINTS, EXPERIMENT, ExperimentReader, PATH, RECORD, SUMMARY, UNRECORDED, read};
use super::{Address, ExperimentRecord, FitRecord, Measurement, PathRecord, Summary};
use crate::Error;
use crate::contact_sheet::{self, ContactSheet};
use crate::store::{Existing, absent, is_plain, remove};
use crate::tensorboard::EventFile;

const METRICS: &str = "metrics.jsonl";
/// What is written at the folder's top, the manifest last: a removal that is cut short can be done again.
const OURS: [&str; 6] = [SUMMARY, METRICS, "report.md", "report.html", contact_sheet::NAME, EXPERIMENT];

/// The folder that an experiment writes into, and goes on in: what is there is not done again. While it is held, no other
/// process can write there (on Unix).
///
/// ```text
/// runs/imp-5f0c1a2b/
///   experiment.json                        which experiment: its kind, identity and configuration
///   metrics.jsonl                          one line for each measurement, as it is made
///   fits/ticket/level-03/seed-42/          a fit, by its address
///     record.json                          last of its files: a fit with a record is whole
///     ticket.safetensors, …                what it left
///     checkpoint.safetensors, ….previous   while it is not whole: where it goes on
///     unrecorded.txt                       while it has no record: the files that it began to write
///     events.out.tfevents.…                its figures for TensorBoard, where they were asked for
///     path.json                            the path that ends in its network, if one was measured
///   summary.json, report.md, report.html   brought up to date after every fit
///   pictures.json                          a few examples, with what networks said of them
/// ```
/// Files appear whole or not at all, but for `metrics.jsonl`, which grows by whole lines. Folders that were made and never
/// written to go away with this value.
#[derive(Debug)]
pub struct ExperimentDir {
    path: PathBuf,
    /// Folders made by us, the inmost first, while nothing is written.
    made: Vec<PathBuf>,
    experiment: ExperimentRecord,
    /// What the first write begins with.
    begins: Begin,
    /// Files that fits without a record began to write, as their folders tell of them.
    unrecorded: BTreeSet<PathBuf>,
    /// Fits of which earlier processes left lines, once somebody has asked.
    have_lines: Option<BTreeSet<Address>>,
    _lock: FolderLock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// The manifest is there already.
    Goes,
    /// It is written.
    Writes,
    /// What another experiment left goes, then it is written.
    Replaces,
}

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricLine {
    /// The fit.
    pub fit: Address,
    /// Its figures.
    #[serde(flatten)]
    pub at: Measurement,
}

impl ExperimentDir {
    /// The folder `path` for `experiment`, made with its parents if it is not there. One that holds the same experiment is
    /// gone on with; its configuration may have come to have more seeds, levels and arms.
    ///
    /// With [`Existing::Replace`], what another experiment wrote goes when this one writes its first file, by the other's
    /// own lists: a file that no experiment wrote stays.
    ///
    /// # Errors
    /// [`Error::Occupied`] if it holds another experiment or anything else, [`Error::NotAFolder`], [`Error::Busy`],
    /// [`Error::Damaged`] if its manifest cannot be read, [`Error::Io`].
    pub fn open(path: impl Into<PathBuf>, experiment: ExperimentRecord, existing: Existing) -> Result<Self, Error> {
        let path = path.into();
        let made = absent(&path);
        if !made.is_empty() {
            std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        }
        if !path.is_dir() {
            return Err(Error::NotAFolder { path });
        }
        let lock = FolderLock::acquire(&path)?;
        // A process that was killed while it wrote the manifest left nothing else.
        remove_partial_files(&path)?;
        let there = match ExperimentReader::new(&path).experiment() {
            Ok(there) => Some(there),
            Err(Error::Absent { .. }) => None,
            // An unreadable manifest may be replaced.
            Err(_) if existing == Existing::Replace => None,
            Err(error) => return Err(error),
        };
        let is_same = there.as_ref().is_some_and(|there: &ExperimentRecord| there.identity == experiment.identity);
        let begins = match there {
            Some(there) if is_same && there == experiment => Begin::Goes,
            Some(_) if is_same => Begin::Writes,
            other => match (existing, holds(&path, other.as_ref())?) {
                (_, None) => Begin::Writes,
                (Existing::Refuse, Some(holds)) => return Err(Error::Occupied { path, holds }),
                (Existing::Replace, Some(_)) => Begin::Replaces,
            },
        };
        let unrecorded = BTreeSet::new();
        let dir = Self { path, made, experiment, begins, unrecorded, have_lines: None, _lock: lock };
        if dir.begins != Begin::Replaces {
            dir.cut_half_lines()?;
        }
        Ok(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The record of a fit; `None` if the fit has not ended.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Invalid`] if it cannot be read or is another fit's, [`Error::Io`].
    pub fn record(&self, address: &Address) -> Result<Option<FitRecord>, Error> {
        if self.begins == Begin::Replaces {
            return Ok(None);
        }
        self.reader().record(address)
    }

    /// The path of the fit's file `name` ("ticket.safetensors"), its folder made, and the name relative to the
    /// experiment's folder.
    ///
    /// # Errors
    /// [`Error::FileName`] for a name that leaves the fit's folder or is a record's; [`Error::Io`].
    pub fn prepare_file(&mut self, address: &Address, name: &str) -> Result<(PathBuf, String), Error> {
        if !is_plain(name) || name.contains('/') || [RECORD, PATH, UNRECORDED].contains(&name) {
            let reason =
                "expected a file name that is not a record's, without `/`, `\\` and `:`, not beginning with a dot";
            return Err(Error::FileName { name: name.into(), reason });
        }
        self.begin()?;
        let folder = self.path.join(address.folder());
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let path = folder.join(name);
        if !CHECKPOINTS.contains(&name) {
            self.note_unrecorded(&path)?;
        }
        Ok((path, format!("{}/{name}", address.folder())))
    }

    /// Notes in the fit's folder that `file` is one of ours, which no record says yet. It need outlive this process only.
    fn note_unrecorded(&mut self, file: &Path) -> Result<(), Error> {
        if let Some(name) = file.file_name().and_then(OsStr::to_str)
            && !self.unrecorded.contains(file)
        {
            let list = file.with_file_name(UNRECORDED);
            let appended = OpenOptions::new().create(true).append(true).open(&list);
            let appended = appended.and_then(|mut list| list.write_all(format!("{name}\n").as_bytes()));
            appended.map_err(Error::io("write", &list))?;
            self.unrecorded.insert(file.to_path_buf());
        }
        Ok(())
    }

    /// Writes a fit's record, by which the fit is whole.
    ///
    /// # Errors
    /// As [`FitRecord::validate`]; [`Error::Io`].
    pub fn write_record(&mut self, record: &FitRecord) -> Result<(), Error> {
        record.validate()?;
        self.begin()?;
        let folder = self.path.join(record.address.folder());
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        write(&folder.join(RECORD), record)?;
        self.unrecorded.retain(|file| file.parent() != Some(&folder));
        remove(&folder.join(UNRECORDED))
    }

    /// The addresses of the fits that have a record, in order.
    pub fn addresses(&self) -> Vec<Address> {
        if self.begins == Begin::Replaces {
            return Vec::new();
        }
        self.reader().addresses()
    }

    /// The record of the path that ends in a fit's network; `None` if none was measured.
    ///
    /// # Errors
    /// As [`ExperimentDir::record`].
    pub fn path_record(&self, last: &Address) -> Result<Option<PathRecord>, Error> {
        if self.begins == Begin::Replaces {
            return Ok(None);
        }
        self.reader().path_record(last)
    }

    /// Writes the record of a path beside that of the fit that it ends in.
    ///
    /// # Errors
    /// As [`PathRecord::validate`]; [`Error::Io`].
    pub fn write_path(&mut self, record: &PathRecord) -> Result<(), Error> {
        record.validate()?;
        self.begin()?;
        let [_, last] = &record.ends;
        let folder = self.path.join(last.folder());
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        write(&folder.join(PATH), record)
    }

    /// Removes a fit's record, so that it is done again; its other files are overwritten then.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forget(&mut self, address: &Address) -> Result<(), Error> {
        let folder = self.path.join(address.folder());
        for file in recorded_files(&self.path, &folder) {
            self.note_unrecorded(&file)?;
        }
        remove(&folder.join(RECORD))
    }

    /// The path of a fit's checkpoint, its folder made, without what a process was writing there when it was killed.
    ///
    /// # Errors
    /// As [`ExperimentDir::prepare_file`].
    pub fn prepare_checkpoint(&mut self, address: &Address) -> Result<PathBuf, Error> {
        let (path, _) = self.prepare_file(address, CHECKPOINT)?;
        remove_partial_files(&self.path.join(address.folder()))?;
        Ok(path)
    }

    /// Removes the checkpoint of a fit that is whole, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_checkpoint(&mut self, address: &Address) -> Result<(), Error> {
        let folder = self.path.join(address.folder());
        CHECKPOINTS.iter().try_for_each(|name| remove(&folder.join(name)))
    }

    /// Takes the lines of a fit that lie behind `step` out of `metrics.jsonl`: those that a process wrote after the state
    /// from which the fit goes on. They will be written again.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a line cannot be read, [`Error::Io`].
    pub fn drop_lines_after(&mut self, address: &Address, step: u64) -> Result<(), Error> {
        if self.have_lines.as_ref().is_some_and(|have| !have.contains(address)) {
            return Ok(());
        }
        let lines = if self.begins == Begin::Replaces { Vec::new() } else { self.lines()? };
        let have: BTreeSet<Address> = lines.iter().map(|(_, line)| line.fit.clone()).collect();
        self.have_lines = Some(have);
        let is_kept = |line: &MetricLine| line.fit != *address || line.at.step <= step;
        if lines.iter().all(|(_, line)| is_kept(line)) {
            return Ok(());
        }
        let kept: String =
            lines.iter().filter(|(_, line)| is_kept(line)).map(|(text, _)| format!("{text}\n")).collect();
        let path = self.path.join(METRICS);
        Ok(write_atomic(&path, |file| file.write_all(kept.as_bytes()))?)
    }

    /// The lines of `metrics.jsonl`, as they are and as they read.
    fn lines(&self) -> Result<Vec<(String, MetricLine)>, Error> {
        let path = self.path.join(METRICS);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::io("read", &path))?,
        };
        let read = |(at, line): (usize, &str)| match serde_json::from_str(line) {
            Ok(read) => Ok((line.to_owned(), read)),
            Err(error) => Err(Error::Damaged { path: path.clone(), line: Some(at + 1), reason: error.to_string() }),
        };
        text.lines().enumerate().map(read).collect()
    }

    /// Adds one line to `metrics.jsonl`. It outlives the process, but not always a power cut: the fit's record, which has
    /// the same figures, does.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a figure is not finite or out of range, [`Error::Io`]; the file then ends with its last whole
    /// line.
    pub fn append(&mut self, line: &MetricLine) -> Result<(), Error> {
        let invalid =
            |reason: String| Error::Invalid { record: format!("fit {}, step {}", line.fit, line.at.step), reason };
        if let Some(reason) = line.at.problem() {
            return Err(invalid(reason));
        }
        let text = serde_json::to_string(line).map_err(|error| invalid(error.to_string()))? + "\n";
        self.begin()?;
        let path = self.path.join(METRICS);
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io("write", &path))?;
        let length = file.metadata().map_err(Error::io("read", &path))?.len();
        file.write_all(text.as_bytes()).map_err(|error| {
            // A full disk: take back the half that was written, so that a later line is not glued to it.
            let _ = file.set_len(length);
            Error::io("write", &path)(error)
        })
    }

    /// Writes `summary.json`, and each of `reports` (a name and its text) made from it; returns the summary as a reader
    /// will find it.
    ///
    /// # Errors
    /// As [`Summary::write`] and [`Summary::read`].
    pub fn finish(
        &mut self,
        summary: &Summary,
        reports: impl FnOnce(&Summary) -> Vec<(&'static str, String)>,
    ) -> Result<Summary, Error> {
        let text = summary.to_json()?;
        self.begin()?;
        let path = self.path.join(SUMMARY);
        write_atomic(&path, |file| file.write_all(text.as_bytes()))?;
        let read = Summary::read(&path)?;
        for (name, text) in reports(&read) {
            write_atomic(&self.path.join(name), |file| file.write_all(text.as_bytes()))?;
        }
        Ok(read)
    }

    /// Writes `pictures.json`, which reports show.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write_contact_sheet(&mut self, sheet: &ContactSheet) -> Result<(), Error> {
        self.begin()?;
        write(&self.path.join(contact_sheet::NAME), sheet)
    }

    /// The `summary.json` in it; `None` if there is none yet.
    ///
    /// # Errors
    /// As [`Summary::read`].
    pub fn summary(&self) -> Result<Option<Summary>, Error> {
        if self.begins == Begin::Replaces {
            return Ok(None);
        }
        self.reader().summary()
    }

    fn reader(&self) -> ExperimentReader {
        ExperimentReader::new(&self.path)
    }

    /// Before the first write.
    fn begin(&mut self) -> Result<(), Error> {
        self.made.clear();
        if self.begins == Begin::Replaces {
            self.clear()?;
        }
        if self.begins != Begin::Goes {
            write(&self.path.join(EXPERIMENT), &self.experiment)?;
            self.begins = Begin::Goes;
        }
        Ok(())
    }

    /// Removes what an experiment wrote here, by its records and lists; folders go if they are empty then.
    fn clear(&self) -> Result<(), Error> {
        for folder in self.reader().all_fit_folders() {
            for file in recorded_files(&self.path, &folder).iter().chain(&unrecorded_files(&folder)) {
                remove(file)?;
            }
            remove_partial_files(&folder)?;
            CHECKPOINTS.iter().try_for_each(|name| remove(&folder.join(name)))?;
            EventFile::remove_from(&folder)?;
            remove(&folder.join(PATH))?;
            remove(&folder.join(RECORD))?;
            remove(&folder.join(UNRECORDED))?;
            for emptied in folder.ancestors().take_while(|above| *above != self.path) {
                if std::fs::remove_dir(emptied).is_err() {
                    break;
                }
            }
        }
        OURS.iter().try_for_each(|name| remove(&self.path.join(name)))
    }

    /// Takes away a last line of `metrics.jsonl` that a killed process left without an end.
    fn cut_half_lines(&self) -> Result<(), Error> {
        let path = self.path.join(METRICS);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io("read", &path))?,
        };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole == bytes.len() {
            return Ok(());
        }
        let opened = OpenOptions::new().write(true).open(&path);
        opened.and_then(|file| file.set_len(whole as u64)).map_err(Error::io("write", &path))
    }
}

/// The files in a fit's folder that its record lists.
fn recorded_files(experiment: &Path, folder: &Path) -> Vec<PathBuf> {
    let Ok(record) = read::<FitRecord>(&folder.join(RECORD)) else { return Vec::new() };
    let files = record.files.values().filter(|file| is_plain(&file.path)).map(|file| experiment.join(&file.path));
    // Through a link in between, a file would lie in another folder.
    files.filter(|file| file.parent() == Some(folder) && !folder.is_symlink()).collect()
}

/// Those that its list of files without a record has.
fn unrecorded_files(folder: &Path) -> Vec<PathBuf> {
    let list = std::fs::read_to_string(folder.join(UNRECORDED)).unwrap_or_default();
    let names = list.lines().filter(|name| is_plain(name) && !name.contains('/'));
    names.filter(|_| !folder.is_symlink()).map(|name| folder.join(name)).collect()
}

impl Drop for ExperimentDir {
    fn drop(&mut self) {
        // Each succeeds only if it is empty.
        self.made.iter().all(|folder| std::fs::remove_dir(folder).is_ok());
    }
}

/// What a folder holds that is not this experiment.
fn holds(path: &Path, experiment: Option<&ExperimentRecord>) -> Result<Option<String>, Error> {
    if let Some(other) = experiment {
        return Ok(Some(format!(
            "another experiment (`{}`, {})",
            other.name,
            &other.identity[..other.identity.len().min(8)]
        )));
    }
    let entries = std::fs::read_dir(path).map_err(Error::io("read", path))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names.first().map(|name| format!("`{name}`")))
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::Invalid { record: path.display().to_string(), reason: error.to_string() })?;
    text.push('\n');
    Ok(write_atomic(path, |file| file.write_all(text.as_bytes()))?)
}
