//! A data set as plain data: its name, where it comes from, how it is split, and what a network is shown of it.

mod name;
mod open;
mod provenance;

use std::path::PathBuf;

pub use name::DatasetName;
pub use open::{Dataset, Opening};
pub use provenance::Provenance;

use crate::error::{Error, Result};
use crate::normalise::Normalisation;
use crate::split::{Part, SplitRule};
use crate::toy_pets::ToyPets;

/// All that says which pictures an experiment sees. What is left out in JSON or TOML is the data set's own: `{"name":
/// "mnist"}` is [`DatasetSpec::new`]`(DatasetName::Mnist)`.
///
/// ```
/// # #[cfg(feature = "digits")]
/// # fn main() -> Result<(), lth_data::Error> {
/// use lth_data::{DamagedPolicy, DatasetName, DatasetSpec, Loader, LoaderConfig, OpenOptions};
///
/// let spec = DatasetSpec::new(DatasetName::Digits);
/// let options = OpenOptions { cache_dir: "unused".into(), damaged: DamagedPolicy::Fail };
/// let digits = spec.open(42, &options, &mut |_| {})?;
/// assert_eq!((digits.provenance.n_train, digits.provenance.n_valid, digits.provenance.n_test), (1_079, 359, 359));
/// let loader = Loader::new(digits.pictures, digits.split, spec.loader_config(32, 42))?;
/// assert_eq!(loader.train_epoch(0).count(), 33);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "digits"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "Written")]
pub struct DatasetSpec {
    /// Which data set.
    pub name: DatasetName,
    /// Where it comes from.
    pub source: DataSource,
    /// How it is split.
    pub split: SplitRule,
    /// Mean and deviation per channel.
    pub normalisation: Normalisation,
    /// Side of the square pictures that the network sees.
    pub image_size: usize,
}

/// Where a data set comes from.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DataSource {
    /// Part of the program: digits.
    Embedded,
    /// Drawn into the cache folder: toy pets.
    Drawn(ToyPets),
    /// What lies on this machine: a folder, or archives; of MNIST and Fashion-MNIST a folder or the four files.
    Local {
        /// The data set, or its training part.
        paths: Vec<PathBuf>,
        /// Class folders only: another folder, or other archives, that are the published test part. May be empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        test: Vec<PathBuf>,
    },
    /// The network, with the feature `download`. What was fetched before is not fetched again.
    Download {
        /// A folder's address that stands for all others; see [`Downloader`](crate::download::Downloader).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mirror: Option<String>,
    },
}

impl DataSource {
    /// A folder, archives or files on this machine.
    #[must_use]
    pub fn local(paths: Vec<PathBuf>) -> Self {
        Self::Local { paths, test: Vec::new() }
    }

    /// In one word, for messages.
    fn word(&self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Drawn(_) => "drawn",
            Self::Local { .. } => "local",
            Self::Download { .. } => "download",
        }
    }
}

impl From<DatasetName> for DatasetSpec {
    fn from(name: DatasetName) -> Self {
        Self::new(name)
    }
}

impl DatasetSpec {
    /// The data set with its own split, normalisation and size: embedded or drawn where it can be, else from the network;
    /// of class folders the paths are still to be given.
    #[must_use]
    pub fn new(name: DatasetName) -> Self {
        let source = match name {
            DatasetName::Digits => DataSource::Embedded,
            DatasetName::ToyPets => DataSource::Drawn(ToyPets::default()),
            DatasetName::Folder => DataSource::local(Vec::new()),
            _ => DataSource::Download { mirror: None },
        };
        Self { name, source, split: name.split(), normalisation: name.normalisation(), image_size: name.image_size() }
    }

    /// Class folders from a folder or archives, `test` being those of a published test part, or empty. A fifth of what is
    /// for training validates.
    #[must_use]
    pub fn folder(paths: Vec<PathBuf>, test: Vec<PathBuf>) -> Self {
        let mut spec = Self::new(DatasetName::Folder);
        if !test.is_empty() {
            spec.split.test = Part::Published;
        }
        spec.source = DataSource::Local { paths, test };
        spec
    }

    /// Channels of the pictures.
    #[must_use]
    pub fn n_channels(&self) -> usize {
        self.name.n_channels()
    }

    /// Whether it can be opened, as far as that can be said without looking at a file.
    ///
    /// # Errors
    /// If the data set does not come from that source, was not compiled in, has no published test part that the split
    /// asks for, or its test part is given and not used; if the split, the normalisation or the size are out of range.
    pub fn check(&self) -> Result<()> {
        use DatasetName as Name;
        let bad = |what, got: String, expected: &str| Err(Error::BadSetting { what, got, expected: expected.into() });
        let name = self.name;
        let expected = match (name, &self.source) {
            (Name::Digits, DataSource::Embedded) | (Name::ToyPets, DataSource::Drawn(_)) => None,
            (Name::Digits, _) => Some("embedded"),
            (Name::ToyPets, _) => Some("drawn"),
            (_, DataSource::Local { .. }) => None,
            (Name::Folder, _) => Some("local"),
            (_, DataSource::Download { .. }) => None,
            _ => Some("local or download"),
        };
        if let Some(expected) = expected {
            return bad("source", format!("{} for {name}", self.source.word()), expected);
        }
        let mut has_published = name.has_published_test();
        if let DataSource::Local { paths, test } = &self.source {
            if paths.is_empty() {
                return bad("paths of the source", "none".into(), "a folder, or archives or files");
            }
            if !test.is_empty() && name != Name::Folder {
                return bad(
                    "test paths of the source",
                    format!("given for {name}"),
                    "none: only class folders have them",
                );
            }
            if !test.is_empty() && !self.split.asks_for_published() {
                return bad("split", self.split.to_string(), "the published part, since test paths are given");
            }
            has_published |= !test.is_empty();
        }
        #[cfg(not(feature = "digits"))]
        if name == Name::Digits {
            return bad("data set", name.to_string(), "one that was compiled in: the feature `digits` is off");
        }
        #[cfg(not(feature = "download"))]
        if matches!(self.source, DataSource::Download { .. }) {
            return bad("source", "download".into(), "local: the feature `download` is off");
        }
        self.split.check()?;
        if self.split.asks_for_published() && !has_published {
            return bad("split", self.split.to_string(), "no published part: the data set has none");
        }
        if self.image_size == 0 {
            return bad("image size", "0".into(), "at least 1");
        }
        self.normalisation.check(self.n_channels())
    }

    /// Batches of `batch_size` pictures as this data set is shown to a network, seeded by `seed`.
    #[must_use]
    pub fn loader_config(&self, batch_size: usize, seed: u64) -> crate::LoaderConfig {
        crate::LoaderConfig {
            normalisation: self.normalisation.clone(),
            ..crate::LoaderConfig::new(self.image_size, batch_size, seed)
        }
    }
}

/// As a person writes it: all but the name may be left out.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: DatasetName,
    source: Option<DataSource>,
    split: Option<SplitRule>,
    normalisation: Option<Normalisation>,
    image_size: Option<usize>,
}

impl TryFrom<Written> for DatasetSpec {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self> {
        let mut spec = Self::new(written.name);
        if let Some(source) = written.source {
            if matches!(&source, DataSource::Local { test, .. } if !test.is_empty()) {
                spec.split.test = Part::Published;
            }
            spec.source = source;
        }
        spec.split = written.split.unwrap_or(spec.split);
        spec.normalisation = written.normalisation.unwrap_or(spec.normalisation);
        spec.image_size = written.image_size.unwrap_or(spec.image_size);
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_enough_and_what_is_written_is_read_again() {
        for name in DatasetName::ALL {
            let spec: DatasetSpec = serde_json::from_str(&format!("{{\"name\": \"{name}\"}}")).unwrap();
            assert_eq!(spec, DatasetSpec::new(name));
            let text = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<DatasetSpec>(&text).unwrap(), spec, "{text}");
        }
        let text = r#"{"name": "folder", "source": {"local": {"paths": ["a"], "test": ["b"]}}, "image_size": 32}"#;
        let spec: DatasetSpec = serde_json::from_str(text).unwrap();
        assert_eq!(spec, DatasetSpec { image_size: 32, ..DatasetSpec::folder(vec!["a".into()], vec!["b".into()]) });
        let typo = serde_json::from_str::<DatasetSpec>(r#"{"name": "mnist", "splitt": {}}"#).unwrap_err();
        assert!(typo.to_string().contains("splitt"), "{typo}");
    }

    #[test]
    fn combinations_that_cannot_be_are_refused_with_field_got_and_expected() {
        let message = |spec: DatasetSpec| spec.check().unwrap_err().to_string();
        let mnist = DatasetSpec::new(DatasetName::Mnist);
        let pets = DatasetSpec::new(DatasetName::Pets);
        let local = |paths: &[&str]| DataSource::local(paths.iter().map(PathBuf::from).collect());
        let published = SplitRule { valid: Part::Count(10), test: Part::Published };
        for (spec, expected) in [
            (
                DatasetSpec { source: DataSource::Embedded, ..mnist.clone() },
                "source is embedded for mnist, expected local or download",
            ),
            (
                DatasetSpec { source: local(&["a"]), ..DatasetSpec::new(DatasetName::ToyPets) },
                "source is local for toy-pets, expected drawn",
            ),
            (
                DatasetSpec { source: DataSource::Download { mirror: None }, ..DatasetSpec::folder(vec![], vec![]) },
                "source is download for folder, expected local",
            ),
            (
                DatasetSpec::new(DatasetName::Folder),
                "paths of the source is none, expected a folder, or archives or files",
            ),
            (
                DatasetSpec { split: published, source: local(&["a"]), ..pets.clone() },
                "split is valid 10, test published, expected no published part: the data set has none",
            ),
            (
                DatasetSpec {
                    split: DatasetName::Pets.split(),
                    ..DatasetSpec::folder(vec!["a".into()], vec!["b".into()])
                },
                "split is valid 0.2, test none, expected the published part, since test paths are given",
            ),
            (
                DatasetSpec { source: DataSource::Local { paths: vec!["a".into()], test: vec!["b".into()] }, ..pets },
                "test paths of the source is given for pets, expected none: only class folders have them",
            ),
            (
                DatasetSpec { normalisation: Normalisation::imagenet(), source: local(&["a"]), ..mnist.clone() },
                "normalisation mean is [0.485, 0.456, 0.406], expected 1 finite numbers",
            ),
            (DatasetSpec { image_size: 0, source: local(&["a"]), ..mnist }, "image size is 0, expected at least 1"),
        ] {
            assert_eq!(message(spec), expected);
        }
    }
}
