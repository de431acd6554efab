//! The command line of `reproduce`, and the settings it resolves to.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use lth_nn::Head;
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Runs the notebook's whole comparison: a dense network A, tickets B of 50 % and 80 % sparsity, and the controls.
///
/// Five fits of a ResNet-18 on cats and dogs: the baseline; iterative pruning to 50 % with the weights reset to their
/// initial values; training that ticket; iterative pruning to 80 % with rewinding to epoch 1; training that ticket. Then
/// the controls that tell whether a ticket is the reason: A trained as long as B, and the same pruning with a random mask.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo xtask reproduce --dataset toy-pets            no network, no download, a few minutes
  cargo xtask reproduce                               downloads Oxford-IIIT PETS and ImageNet weights
  cargo xtask reproduce --archive images.tar.gz annotations.tar.gz --weights resnet18.safetensors
  cargo xtask reproduce --dataset folder --data-dir flowers/ --weights none --seeds 3")]
pub(crate) struct Options {
    /// Which pictures
    #[arg(long, value_enum, default_value_t = DatasetName::Pets)]
    pub(crate) dataset: DatasetName,
    /// Read the pictures from these archives instead of downloading them
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["data_dir", "mirror"])]
    pub(crate) archive: Vec<PathBuf>,
    /// Read the pictures from this unpacked folder
    #[arg(long, value_name = "DIR", conflicts_with = "mirror")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Download from URL/FILE; URL/SHA256SUMS, if there, replaces the built-in checksums
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// Starting weights: imagenet, none, or a file [default: imagenet; none for toy-pets and folder]
    #[arg(long, value_name = "imagenet|none|FILE")]
    pub(crate) weights: Option<WeightsName>,
    /// What stays as it is: the body but its batch norms (as the notebook), or nothing [default: body with weights]
    #[arg(long, value_enum)]
    pub(crate) freeze: Option<FreezeName>,
    /// fastai's head, or torchvision's average pool and `fc`, which stock software loads
    #[arg(long, value_enum, default_value_t = HeadName::Fastai)]
    pub(crate) head: HeadName,
    /// First seed: of the split, the head's initial values, the order of pictures, crops, and dropout
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Repeat with this many consecutive seeds and give mean ± deviation
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: u64,
    /// Lengths of the five fits; the second and fourth at least 2 [default: 6,4,6,4,6]
    #[arg(long, value_name = "A,B,C,D,E")]
    pub(crate) epochs: Option<Epochs>,
    /// Pictures in a training batch [default: 64; 32 for toy-pets]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) batch_size: Option<u32>,
    /// Height and width of the pictures that the network sees [default: 64; 32 for toy-pets]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(32..=1024))]
    pub(crate) image_size: Option<u32>,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,
    /// Where to compute
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu)]
    pub(crate) device: DeviceName,
    /// A new optimiser for every fit (what the paper means), or one through all (what the notebook did)
    #[arg(long, value_enum, default_value_t = OptimizerStateName::Fresh)]
    pub(crate) optimizer_state: OptimizerStateName,
    /// Run the controls (the default)
    #[arg(long, overrides_with = "no_controls")]
    pub(crate) controls: bool,
    /// The five fits only
    #[arg(long)]
    pub(crate) no_controls: bool,
    /// Leave damaged pictures out instead of ending with exit code 3
    #[arg(long)]
    pub(crate) skip_damaged: bool,
    /// Folder for the run [default: the next free runs/DATASET-seedN]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace the run that --out holds
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
    /// Print summary.json to standard output, and everything else to standard error
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DatasetName {
    /// Oxford-IIIT PETS, cat or dog
    Pets,
    /// Drawn cats and dogs, made on the spot
    ToyPets,
    /// A folder (--data-dir) or archive (--archive) with one folder of pictures per class
    Folder,
}

impl DatasetName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pets => "pets",
            Self::ToyPets => "toy-pets",
            Self::Folder => "folder",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FreezeName {
    /// Train the head and all batch norms
    Body,
    /// Train everything
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HeadName {
    Fastai,
    Fc,
}

impl From<HeadName> for Head {
    fn from(name: HeadName) -> Self {
        match name {
            HeadName::Fastai => Self::Fastai,
            HeadName::Fc => Self::Fc,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DeviceName {
    Cpu,
    Cuda,
    Metal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OptimizerStateName {
    Fresh,
    Carried,
}

/// Lengths of the five fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Epochs(pub(crate) [usize; 5]);

impl Epochs {
    pub(crate) const NOTEBOOK: Self = Self([6, 4, 6, 4, 6]);
    const MOST: usize = 100_000;
}

impl FromStr for Epochs {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let lengths: Vec<usize> = text
            .split(',')
            .map(|part| part.trim().parse().map_err(|_| format!("`{part}` is no number of epochs")))
            .collect::<std::result::Result<_, _>>()?;
        let lengths: [usize; 5] =
            lengths.try_into().map_err(|got: Vec<_>| format!("{} lengths, expected five: A,B,C,D,E", got.len()))?;
        if lengths.iter().any(|n| !(1..=Self::MOST).contains(n)) {
            return Err(format!("every fit needs 1 to {} epochs", Self::MOST));
        }
        if lengths[1] < 2 || lengths[3] < 2 {
            return Err("the second and the fourth fit prune from epoch 1 on: they need at least 2 epochs".to_owned());
        }
        Ok(Self(lengths))
    }
}

/// The options with every default filled in; what `summary.json` records.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) dataset: DatasetName,
    pub(crate) weights: WeightsName,
    pub(crate) freeze: FreezeName,
    pub(crate) head: HeadName,
    pub(crate) seeds: Vec<u64>,
    pub(crate) epochs: Epochs,
    pub(crate) batch_size: usize,
    pub(crate) image_size: usize,
    pub(crate) device: DeviceName,
    pub(crate) optimizer_state: OptimizerStateName,
    pub(crate) controls: bool,
    pub(crate) skip_damaged: bool,
    pub(crate) learning_rate: f64,
    pub(crate) optimizer: lth_train::OptimizerConfig,
}

impl Options {
    pub(crate) fn settings(&self) -> Result<Settings> {
        let toys = self.dataset == DatasetName::ToyPets;
        let given = [("--archive", !self.archive.is_empty()), ("--data-dir", self.data_dir.is_some())];
        if let Some((option, _)) = given.iter().find(|(_, given)| toys && *given) {
            return Err(Failure::usage(format!(
                "toy-pets are drawn on the spot: leave {option} out, or choose another --dataset"
            )));
        }
        if self.dataset == DatasetName::Folder && given.iter().all(|(_, given)| !given) {
            return Err(Failure::usage(
                "--dataset folder needs --data-dir DIR or --archive FILE, with one folder of pictures per class",
            ));
        }
        let weights = match (&self.weights, self.dataset) {
            (Some(weights), _) => weights.clone(),
            (None, DatasetName::Pets) => WeightsName::Imagenet,
            (None, DatasetName::ToyPets | DatasetName::Folder) => WeightsName::None,
        };
        let freeze =
            self.freeze.unwrap_or(if weights == WeightsName::None { FreezeName::None } else { FreezeName::Body });
        let last_seed = self.seed.checked_add(self.seeds - 1);
        let last_seed =
            last_seed.ok_or_else(|| Failure::usage("--seed and --seeds go past the largest 64-bit number"))?;
        Ok(Settings {
            dataset: self.dataset,
            weights,
            freeze,
            head: self.head,
            seeds: (self.seed..=last_seed).collect(),
            epochs: self.epochs.unwrap_or(Epochs::NOTEBOOK),
            batch_size: self.batch_size.map_or(if toys { 32 } else { 64 }, |n| n as usize),
            image_size: self.image_size.map_or(if toys { 32 } else { 64 }, |n| n as usize),
            device: self.device,
            optimizer_state: self.optimizer_state,
            controls: !self.no_controls,
            skip_damaged: self.skip_damaged,
            learning_rate: 1e-3,
            optimizer: lth_train::OptimizerConfig::adam(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_say_what_is_wrong_with_them() {
        assert_eq!("6,4,6,4,6".parse(), Ok(Epochs::NOTEBOOK));
        let check = |text: &str, expected: &str| {
            let error = text.parse::<Epochs>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("6,4,6,4", "4 lengths, expected five");
        check("6,4,x,4,6", "`x` is no number");
        check("6,1,6,4,6", "at least 2 epochs");
        check("6,4,6,1,6", "at least 2 epochs");
        check("0,4,6,4,6", "1 to 100000 epochs");
        check("-1,4,6,4,6", "`-1` is no number");
    }
}
