//! Where an experiment's examples and weights came from, and what it ran on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// SHA-256 of each split that was made, by its seed: which examples train, validate and test.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub splits: BTreeMap<u64, String>,
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
    /// The vector instructions that the kernels ran on: results differ in their last bits between those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction_set: Option<String>,
}

/// What a program was built from, and with what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// The software, with its version: "lth 0.1.0".
    pub software: String,
    /// The commit of the working tree that it was built from; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether the tree had changes that are in no commit.
    #[serde(default)]
    pub is_modified: bool,
    /// The compiler: "rustc 1.95.0 (…)".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiler: Option<String>,
    /// Version of candle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candle: Option<String>,
}

impl BuildRecord {
    /// A program of which nothing but its name and version is known.
    pub fn of(software: impl Into<String>) -> Self {
        Self { software: software.into(), ..Self::default() }
    }
}
