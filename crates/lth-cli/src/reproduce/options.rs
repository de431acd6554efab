//! The command line of `reproduce`, and the settings it resolves to.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use lth_data::{DataSource, DatasetName, DatasetSpec, Part, SplitRule};
use lth_experiment::plan::OptimizerState;
use lth_experiment::{CHECKPOINT_EVERY, NotebookConfig};
use lth_mask::Granularity;
use lth_nn::{Freeze, Head};
use lth_schedule::LearningRate;
use lth_train::OptimizerConfig;
use serde::{Deserialize, Serialize};

use super::subject::{Data, Name, Network, Subject, full_width};
use crate::data::SourceOptions;
use crate::experiment::TensorBoardOption;
use crate::failure::{Blame, Failure, Result};
use crate::share::Share;

/// Share of the pictures that validate.
const VALID_FRACTION: f64 = 0.2;

/// How toy pets are told apart: a minute's network, and so many pictures to validate on and seeds that what is left to
/// chance is less than what is asked. Everything else is as for other pictures.
pub(super) mod toy_pets {
    use lth_data::toy_pets::ToyPets;

    /// Half of them validate: an accuracy of 90 % then has a standard error of 0.9 points instead of the 1.7 of 300
    /// pictures.
    const N_PICTURES: usize = 2_400;
    pub(super) const VALID_FRACTION: f64 = 0.5;
    pub(super) const IMAGE_SIZE: usize = 32;
    pub(super) const BATCH_SIZE: usize = 32;
    /// A quarter of ResNet-18's channels.
    pub(super) const WIDTH: usize = 16;
    pub(super) const N_SEEDS: u64 = 5;
    pub(super) const MARGIN: f64 = 0.02;
    /// Falls to 0, so that a fit does not end on the swings of its last steps.
    pub(super) const LEARNING_RATE: &str = "cosine(0.001, 0)";

    pub(in crate::reproduce) fn drawn() -> ToyPets {
        ToyPets { pictures: N_PICTURES, ..ToyPets::default() }
    }
}

/// Runs the notebook's whole comparison: a dense network A, tickets B of 50 % and 80 % sparsity, and the controls.
///
/// Five fits of a ResNet-18 on cats and dogs: the baseline; iterative pruning to 50 % with the weights reset to their
/// initial values; training that ticket; iterative pruning to 80 % with rewinding to epoch 1; training that ticket. Then
/// the controls that tell whether a ticket is the reason: A trained as long as B, and the same pruning with a random mask.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth reproduce --dataset toy-pets            no network, no download, a few minutes
  lth reproduce                               downloads Oxford-IIIT PETS and ImageNet weights
  lth reproduce --archive images.tar.gz annotations.tar.gz --weights resnet18.safetensors
  lth reproduce --dataset folder --data-dir flowers/ --weights none --seeds 3")]
pub struct Options {
    /// Which pictures
    #[arg(long, value_name = "NAME", default_value_t = DatasetName::Pets, value_parser = dataset_name)]
    pub(crate) dataset: DatasetName,
    #[command(flatten)]
    pub(crate) source: SourceOptions,
    /// Starting weights: imagenet, none, or a file [default: imagenet; none for toy-pets and folder]
    #[arg(long, value_name = "imagenet|none|FILE")]
    pub(crate) weights: Option<WeightsName>,
    /// What stays as it is: the body but its batch norms (as the notebook), or nothing [default: body with weights]
    #[arg(long, value_name = "body|none")]
    pub(crate) freeze: Option<Freeze>,
    /// fastai's head, or torchvision's average pool and `fc`, which stock software loads
    #[arg(long, value_name = "fastai|fc", default_value_t = Head::Fastai)]
    pub(crate) head: Head,
    /// Channels of ResNet-18's first stage, of which the others have twice, four and eight times as many [default: 64; 16
    /// for toy-pets]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) width: Option<u32>,
    /// First seed: of the split, the head's initial values, the order of pictures, crops, and dropout
    #[arg(long, value_name = "SEED", default_value_t = 42)]
    pub(crate) seed: u64,
    /// Repeat with this many consecutive seeds; there are verdicts from three on [default: 1; 5 for toy-pets]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: Option<u64>,
    /// How much accuracy a ticket may lose and still be called as good: 0.02 or 2% [default: none; 2% for toy-pets]
    #[arg(long, value_name = Share::VALUE_NAME)]
    pub(crate) margin: Option<Share>,
    /// Learning rate of each fit [default: constant(0.001); cosine(0.001, 0) for toy-pets]
    #[arg(long, value_name = "SCHEDULE")]
    pub(crate) learning_rate: Option<LearningRate>,
    /// Lengths of the five fits; the second and fourth at least 2 [default: 6,4,6,4,6]
    #[arg(long, value_name = "A,B,C,D,E")]
    pub(crate) epochs: Option<Epochs>,
    /// Pictures in a training batch [default: 64; 32 for toy-pets]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) batch_size: Option<u32>,
    /// Height and width of the pictures that the network sees [default: 64; 32 for toy-pets]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(32..=1024))]
    pub(crate) image_size: Option<u32>,
    #[command(flatten)]
    pub(crate) events: TensorBoardOption,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,
    /// Where to compute
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub(crate) device: String,
    /// A new optimiser for every fit (what the paper means), or one through all (what the notebook did)
    #[arg(long, value_name = "fresh|carried", default_value_t = OptimizerState::Fresh)]
    pub(crate) optimizer_state: OptimizerState,
    /// What is pruned as one: weight (as the notebook), output_block(4), filter, …
    #[arg(long, value_name = "GRANULARITY", default_value_t = Granularity::Weight)]
    pub(crate) granularity: Granularity,
    /// Run the controls (the default)
    #[arg(long, overrides_with = "no_controls")]
    pub(crate) controls: bool,
    /// The five fits only
    #[arg(long)]
    pub(crate) no_controls: bool,
    /// Seconds between two checkpoints of a fit, at least: what is behind the last one is trained again after a kill
    #[arg(long, value_name = "SECONDS", default_value_t = CHECKPOINT_EVERY.as_secs())]
    pub(crate) checkpoint_every: u64,
    /// Folder of the experiment [default: runs/DATASET-IDENTITY, the same for the same experiment]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace another experiment that --out holds
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
    /// Print summary.json to standard output, and everything else to standard error
    #[arg(long)]
    pub(crate) json: bool,
}

/// Pictures that a ResNet-18 tells into a few classes.
const DATASETS: [DatasetName; 4] =
    [DatasetName::Pets, DatasetName::PetsBreeds, DatasetName::ToyPets, DatasetName::Folder];

fn dataset_name(text: &str) -> std::result::Result<DatasetName, String> {
    let name: DatasetName = text.parse().map_err(|error: lth_data::Error| error.to_string())?;
    let known = DATASETS.map(DatasetName::as_str).join(", ");
    if DATASETS.contains(&name) { Ok(name) } else { Err(format!("expected one of {known}")) }
}

/// On record by name; a file by the path that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum WeightsName {
    Imagenet,
    None,
    File(PathBuf),
}

impl FromStr for WeightsName {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "imagenet" => Ok(Self::Imagenet),
            "none" => Ok(Self::None),
            "" => Err("expected imagenet, none, or a file".to_owned()),
            file => Ok(Self::File(file.into())),
        }
    }
}

impl TryFrom<String> for WeightsName {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<WeightsName> for String {
    fn from(name: WeightsName) -> Self {
        match name {
            WeightsName::Imagenet => "imagenet".to_owned(),
            WeightsName::None => "none".to_owned(),
            WeightsName::File(path) => path.display().to_string(),
        }
    }
}

/// Lengths of the five fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epochs(pub(crate) [u32; 5]);

impl Epochs {
    const MOST: u32 = 100_000;
}

impl FromStr for Epochs {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let lengths: Vec<u32> = text
            .split(',')
            .map(|part| part.trim().parse().map_err(|_| format!("`{part}` is no number of epochs")))
            .collect::<std::result::Result<_, _>>()?;
        let lengths: [u32; 5] =
            lengths.try_into().map_err(|got: Vec<_>| format!("{} lengths, expected five: A,B,C,D,E", got.len()))?;
        if lengths.iter().any(|n| !(1..=Self::MOST).contains(n)) {
            return Err(format!("every fit needs 1 to {} epochs", Self::MOST));
        }
        Ok(Self(lengths))
    }
}

/// The options with every default filled in.
pub(crate) struct Settings {
    pub(crate) data: DatasetSpec,
    pub(crate) subject: Subject,
    pub(crate) notebook: NotebookConfig,
}

impl Options {
    pub(crate) fn settings(&self) -> Result<Settings> {
        if self.device != "cpu" {
            // Not "with a feature": no crate of this project has one for it.
            return Err(Failure::usage(format!("cannot use --device {}, expected --device cpu", self.device)));
        }
        let toys = self.dataset == DatasetName::ToyPets;
        let mut data = DatasetSpec::new(self.dataset);
        match self.source.source() {
            Some(_) if toys => {
                return Err(Failure::usage(
                    "toy-pets are drawn on the spot: leave --data-dir, --archive and --mirror out, or choose another --dataset",
                ));
            }
            Some(source) => data.source = source,
            None if self.dataset == DatasetName::Folder => {
                return Err(Failure::usage(
                    "--dataset folder needs --data-dir DIR or --archive FILE, with one folder of pictures per class",
                ));
            }
            None => {}
        }
        if toys {
            data.source = DataSource::Drawn(toy_pets::drawn());
        }
        let of_toys = |toy: usize, other: usize| if toys { toy } else { other };
        data.image_size = self.image_size.map_or(of_toys(toy_pets::IMAGE_SIZE, 64), |n| n as usize);
        let valid = Part::Fraction(if toys { toy_pets::VALID_FRACTION } else { VALID_FRACTION });
        data.split = SplitRule { valid, test: Part::None };
        data.check().usage()?;
        let weights = match (&self.weights, self.dataset) {
            (Some(weights), _) => weights.clone(),
            (None, DatasetName::ToyPets | DatasetName::Folder) => WeightsName::None,
            (None, _) => WeightsName::Imagenet,
        };
        let freeze = self.freeze.unwrap_or(if weights == WeightsName::None { Freeze::None } else { Freeze::Body });
        let n_seeds = self.seeds.unwrap_or(if toys { toy_pets::N_SEEDS } else { 1 });
        let last_seed = self.seed.checked_add(n_seeds - 1);
        let last_seed =
            last_seed.ok_or_else(|| Failure::usage("--seed and --seeds go past the largest 64-bit number"))?;
        let notebook = NotebookConfig {
            epochs: self.epochs.map_or(NotebookConfig::EPOCHS, |epochs| epochs.0),
            optimizer: OptimizerConfig::adam(),
            learning_rate: match &self.learning_rate {
                Some(rate) => rate.clone(),
                None if toys => toy_pets::LEARNING_RATE.parse().usage()?,
                None => LearningRate::constant(1e-3),
            },
            optimizer_state: self.optimizer_state,
            granularity: self.granularity.clone(),
            controls: !self.no_controls,
            seeds: (self.seed..=last_seed).collect(),
            margin: self.margin.map(|Share(margin)| margin).or(toys.then_some(toy_pets::MARGIN)),
            // Whether the files are the published ones is known once they are read; without them there is nothing to compare.
            is_original: self.dataset == DatasetName::Pets
                && weights == WeightsName::Imagenet
                && self.granularity == Granularity::Weight
                && matches!(data.source, DataSource::Download { mirror: None }),
        };
        let batch_size = self.batch_size.map_or(of_toys(toy_pets::BATCH_SIZE, 64), |n| n as usize);
        let width = self.width.map_or(of_toys(toy_pets::WIDTH, full_width()), |n| n as usize);
        let DatasetSpec { name, split, normalisation, image_size, .. } = data.clone();
        let subject = Subject {
            network: Network { name: Name::ResNet18, head: self.head, freeze, weights, width },
            data: Data { name, split, normalisation, image_size },
            batch_size,
        };
        Ok(Settings { data, subject, notebook })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_say_what_is_wrong_with_them() {
        assert_eq!("6,4,6,4,6".parse(), Ok(Epochs(NotebookConfig::EPOCHS)));
        let check = |text: &str, expected: &str| {
            let error = text.parse::<Epochs>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("6,4,6,4", "4 lengths, expected five");
        check("6,4,x,4,6", "`x` is no number");
        check("0,4,6,4,6", "1 to 100000 epochs");
        check("-1,4,6,4,6", "`-1` is no number");
    }
}
