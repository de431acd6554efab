//! `summary.json`: everything a run leaves on record, in one file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::comparison::Comparison;
use crate::number::settle_all;
use crate::record::RunRecord;

/// The schema that this version of the crate writes and reads.
pub const SCHEMA: u32 = 1;

/// The contents of `summary.json`.
///
/// ```json
/// {
///   "schema": 1,
///   "software": "lth 0.1.0",
///   "command": ["cargo", "xtask", "reproduce", "--dataset", "toy-pets"],
///   "config": { "batch_size": 64, "…": "every option as it was resolved" },
///   "dataset": { "name": "toy-pets", "source": "drawn, seed 0", "…": "see DatasetRecord" },
///   "runs": [ { "name": "baseline", "…": "see RunRecord" } ],
///   "comparison": { "tickets": [ { "sparsity": 0.5, "a_A": [], "…": "see Comparison" } ] }
/// }
/// ```
///
/// A reader ignores fields that it does not know; a field that changes its meaning, or goes, raises `schema`.
/// Numbers are exact: what [`Summary::read`] returns is what [`Summary::settled`] had in memory, bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The software that wrote it, with its version.
    pub software: String,
    /// The command line.
    pub command: Vec<String>,
    /// Every option as it was resolved.
    pub config: Value,
    /// Where the pictures came from.
    pub dataset: DatasetRecord,
    /// Where the starting weights came from; absent if they were drawn at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsRecord>,
    /// Whether the optimiser's moments outlived a fit.
    pub optimizer_state: OptimizerState,
    /// What it ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineRecord>,
    /// When it began, in seconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// Seconds from the first step of the command to the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_seconds: Option<f64>,
    /// The process's peak resident memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The fits, in the order in which they ran.
    pub runs: Vec<RunRecord>,
    /// A beside B, from `runs`; absent if they hold no baseline with a ticket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

/// Where the pictures came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetRecord {
    /// "pets", "toy-pets", "folder", …
    pub name: String,
    /// In words: "archive oxford-iiit-pet.tgz", "downloaded from …", "drawn, seed 0".
    pub source: String,
    /// What the files' checksums were held against.
    pub checked: Checked,
    /// The files the data came in.
    #[serde(default)]
    pub files: Vec<SourceFile>,
    /// The mirror used instead of the usual addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorRecord>,
    /// Of all files together: the only file's SHA-256, or that of the text of their `SHA256SUMS`, in order of names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Training pictures.
    pub n_train: u64,
    /// Validation pictures.
    pub n_valid: u64,
    /// Test pictures.
    #[serde(default)]
    pub n_test: u64,
    /// Damaged pictures that were left out, by name.
    #[serde(default)]
    pub skipped: Vec<String>,
    /// Pictures that loaded but are not what their names say (a GIF named .jpg), by name.
    #[serde(default)]
    pub odd: Vec<String>,
    /// Files among the pictures that were not looked at: none by their names (a `.heic`), links, sparse files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Pictures whose class in the data set's own list is not that of their names, which counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contradicted: Vec<String>,
    /// The classes, in the order of the network's outputs.
    #[serde(default)]
    pub classes: Vec<ClassRecord>,
}

impl DatasetRecord {
    /// The accuracy of always answering the commonest class of the validation set; `None` if `classes` is empty.
    pub fn majority(&self) -> Option<f64> {
        let total: u64 = self.classes.iter().map(|class| class.n_valid).sum();
        let most = self.classes.iter().map(|class| class.n_valid).max()?;
        (total > 0).then(|| most as f64 / total as f64)
    }
}

/// One class and how many pictures it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassRecord {
    /// "cat"
    pub name: String,
    /// Training pictures.
    pub n_train: u64,
    /// Validation pictures.
    pub n_valid: u64,
}

/// A file that came from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its name, without folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of the whole file, if it was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What of it was compared with a known checksum: "SHA-256", "MD5 of the first MiB"; absent if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<String>,
}

/// A mirror that was used, with the checksums that it brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRecord {
    /// Its address.
    pub url: String,
    /// Its `SHA256SUMS`, if there was one: file name to checksum. It replaces the built-in checksums.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256sums: Option<BTreeMap<String, String>>,
}

/// What checksums were held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checked {
    /// The makers' published checksums, of every byte: the data is what its name says.
    Published,
    /// Published checksums that do not cover every byte of every file: of the first MiB, or a few digits of a checksum.
    PublishedPart,
    /// A mirror's own checksums: the data is what the mirror meant to send.
    Mirror,
    /// Made here (drawn, or embedded in the program): there is nothing to check.
    Made,
    /// Nothing.
    No,
}

impl Checked {
    /// Whether it was the makers' checksums, of all bytes or of a part.
    pub fn is_published(self) -> bool {
        matches!(self, Self::Published | Self::PublishedPart)
    }
}

/// Where the starting weights came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsRecord {
    /// "imagenet", or the file's name.
    pub name: String,
    /// In words.
    pub source: String,
    /// SHA-256 of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the checksum was held against.
    pub checked: Checked,
}

/// Whether the optimiser's moments outlive a fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerState {
    /// Every fit starts with a new optimiser: what the paper means.
    Fresh,
    /// One optimiser lives through all fits: what the notebook did.
    Carried,
}

/// What a run ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// "cpu", "cuda", "metal"
    pub device: String,
    /// The processor's or accelerator's name, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Operating system and architecture: "linux x86_64".
    pub platform: String,
    /// Worker threads.
    pub n_threads: usize,
}

impl Summary {
    /// The seeds of its runs, each once, in order.
    pub fn seeds(&self) -> Vec<u64> {
        let seeds: std::collections::BTreeSet<u64> = self.runs.iter().map(|run| run.seed).collect();
        seeds.into_iter().collect()
    }

    /// The run of that name and seed.
    pub fn run(&self, name: &str, seed: u64) -> Option<&RunRecord> {
        self.runs.iter().find(|run| run.name == name && run.seed == seed)
    }

    /// Whether data and weights are the notebook's own, so that its accuracies may be compared with this run's.
    pub fn is_notebook_setting(&self) -> bool {
        let weights = self.weights.as_ref();
        self.dataset.name == "pets"
            && self.dataset.checked.is_published()
            && weights.is_some_and(|weights| weights.name == "imagenet" && weights.checked.is_published())
    }

    /// Checks every record, and the records against each other.
    ///
    /// # Errors
    /// [`Error::Invalid`] as [`RunRecord::validate`]; also for two runs of one name and seed, or a run that starts
    /// from one that is not there before it.
    pub fn validate(&self) -> Result<(), Error> {
        let mut seen = std::collections::BTreeSet::new();
        for run in &self.runs {
            run.validate()?;
            let invalid = |reason: String| Err(Error::Invalid { record: run.label(), reason });
            if let Some(before) = &run.starts_from
                && !seen.contains(&(before.as_str(), run.seed))
            {
                return invalid(format!("it starts from `{before}`, which is not among the runs before it"));
            }
            if !seen.insert((run.name.as_str(), run.seed)) {
                return invalid("there are two of them".into());
            }
        }
        if let Some(seconds) = self.wall_seconds
            && !(seconds.is_finite() && seconds >= 0.0)
        {
            let reason = format!("wall_seconds is {seconds}, expected a time");
            return Err(Error::Invalid { record: "summary".into(), reason });
        }
        Ok(())
    }

    /// The summary as it will be read back: the same but for the last digit of some numbers, and `comparison`
    /// computed from `runs`.
    ///
    /// # Errors
    /// As [`Summary::validate`].
    pub fn settled(&self) -> Result<Summary, Error> {
        self.validate()?;
        // Runs first: the comparison is computed from what a reader of the file will see.
        let mut summary = Summary { comparison: None, ..self.clone() };
        summary = summary.through_json()?;
        summary.comparison = Comparison::of(&summary.runs);
        summary.through_json()
    }

    /// The text of `summary.json`.
    ///
    /// # Errors
    /// As [`Summary::validate`].
    pub fn to_json(&self) -> Result<String, Error> {
        let settled = self.settled()?;
        let mut text = serde_json::to_string_pretty(&settled).map_err(|error| unrepresentable(&error))?;
        text.push('\n');
        Ok(text)
    }

    /// Writes `summary.json` so that no reader ever sees a part of it.
    ///
    /// # Errors
    /// As [`Summary::validate`]; [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = self.to_json()?;
        Ok(lth_files::write_atomic(path, |file| file.write_all(text.as_bytes()))?)
    }

    /// Reads a `summary.json`.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Io`], [`Error::Damaged`] (not JSON, cut, or not a summary),
    /// [`Error::SchemaVersion`], and [`Error::Invalid`] as [`Summary::validate`].
    pub fn read(path: &Path) -> Result<Summary, Error> {
        let bytes = std::fs::read(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::Absent { what: "summary", path: path.into() },
            _ => Error::Io { action: "read", path: path.into(), source },
        })?;
        let damaged = |error: serde_json::Error| Error::Damaged {
            path: path.into(),
            line: (error.line() > 0).then(|| error.line()),
            reason: error.to_string(),
        };
        // The version alone first: another schema is told apart from a damaged file.
        let tree: Value = serde_json::from_slice(&bytes).map_err(damaged)?;
        match tree.get("schema").and_then(Value::as_u64) {
            Some(found) if found == u64::from(SCHEMA) => {}
            Some(found) => {
                return Err(Error::SchemaVersion { path: path.into(), found, expected: SCHEMA });
            }
            None => {
                let reason = "it has no schema version: not a run's summary".into();
                return Err(Error::Damaged { path: path.into(), line: None, reason });
            }
        }
        let summary: Summary = serde_json::from_slice(&bytes).map_err(damaged)?;
        summary.validate()?;
        Ok(summary)
    }

    fn through_json(&self) -> Result<Summary, Error> {
        let mut tree = serde_json::to_value(self).map_err(|error| unrepresentable(&error))?;
        settle_all(&mut tree);
        serde_json::from_value(tree).map_err(|error| unrepresentable(&error))
    }
}

fn unrepresentable(error: &serde_json::Error) -> Error {
    Error::Invalid { record: "summary".into(), reason: error.to_string() }
}
