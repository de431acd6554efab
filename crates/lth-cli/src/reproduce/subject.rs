//! The comparison's network and data, as they are on record and as its fits get them.

use std::cell::{Ref, RefCell};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use candle_core::DType;
use lth_data::{DataSource, Dataset, DatasetName, DatasetSpec, Loader, Normalisation, SplitRule};
use lth_experiment::{Plan, Runner};
use lth_nn::{Freeze, Head, Part, ResNet, ResNetConfig, Setup, Weights};
use lth_runs::WeightsRecord;
use lth_ticket::{DatasetInfo, NetworkInfo};
use lth_train::{BoxError, Classification, Network as _};
use serde::{Deserialize, Serialize};

use super::options::{WeightsName, toy_pets};
use crate::console::Console;
use crate::experiment::interrupted;
use crate::failure::{Failure, Kind, Result};
use crate::{data, system};

/// What every fit's result depends on besides the plan. Where the data lie is no part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    pub(super) network: Network,
    pub(super) data: Data,
    pub(super) batch_size: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) name: Name,
    pub(super) head: Head,
    pub(super) freeze: Freeze,
    pub(super) weights: WeightsName,
    #[serde(default = "full_width", skip_serializing_if = "is_full_width")]
    pub(super) width: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Name {
    #[serde(rename = "resnet-18")]
    ResNet18,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Data {
    pub(super) name: DatasetName,
    pub(super) split: SplitRule,
    pub(super) normalisation: Normalisation,
    pub(super) image_size: usize,
}

/// Channels of the first stage of the ResNet-18 that everybody means.
pub(super) fn full_width() -> usize {
    ResNetConfig::resnet18(1, Head::Fc).width
}

fn is_full_width(width: &usize) -> bool {
    *width == full_width()
}

impl Subject {
    /// The data from where they come if nobody says otherwise.
    pub(super) fn dataset(&self) -> DatasetSpec {
        let Data { name, split, normalisation, image_size } = self.data.clone();
        let mut spec = DatasetSpec { split, normalisation, image_size, ..DatasetSpec::new(name) };
        if name == DatasetName::ToyPets {
            spec.source = DataSource::Drawn(toy_pets::drawn());
        }
        spec
    }
}

/// Is told of data that were opened, by the seed of their split, and may refuse them.
pub(crate) type OnOpened<'a> = dyn Fn(&Dataset, u64) -> Result + 'a;

/// A subject with its data and starting weights at hand.
pub(super) struct Opened<'a> {
    subject: &'a Subject,
    data: &'a DatasetSpec,
    skip_damaged: bool,
    on_opened: &'a OnOpened<'a>,
    console: &'a Console,
    pub(super) weights: Option<(Weights, WeightsRecord)>,
    /// The latest, with the seed of its split.
    dataset: RefCell<Option<(u64, Dataset)>>,
}

impl<'a> Opened<'a> {
    /// Nothing is opened yet, and the weights are random ones.
    pub(super) fn new(
        subject: &'a Subject,
        (data, skip_damaged): (&'a DatasetSpec, bool),
        on_opened: &'a OnOpened<'a>,
        console: &'a Console,
    ) -> Self {
        Self { subject, data, skip_damaged, on_opened, console, weights: None, dataset: RefCell::default() }
    }

    /// The data with a replicate's split.
    pub(super) fn open(&self, seed: u64) -> Result {
        if self.seed() == Some(seed) {
            return Ok(());
        }
        let dataset = data::open(self.data, seed, self.skip_damaged, self.console)?;
        if dataset.split.valid.is_empty() {
            let n = dataset.pictures.len();
            return Err(Failure::new(Kind::Data, anyhow!("{n} pictures are too few: a share of them must validate")));
        }
        (self.on_opened)(&dataset, seed)?;
        self.dataset.replace(Some((seed, dataset)));
        Ok(())
    }

    /// The replicate whose split was opened last.
    pub(super) fn seed(&self) -> Option<u64> {
        self.dataset.borrow().as_ref().map(|(seed, _)| *seed)
    }

    pub(super) fn examples(&self, seed: u64) -> std::result::Result<Loader, BoxError> {
        self.open(seed)?;
        let dataset = self.opened().ok_or("no data set was opened")?;
        let config = self.data.loader_config(self.subject.batch_size, seed);
        Ok(Loader::new(Arc::clone(&dataset.pictures), dataset.split.clone(), config)?)
    }

    pub(super) fn network(&self, seed: u64, dtype: DType) -> std::result::Result<ResNet, BoxError> {
        let Network { head, freeze, width, .. } = self.subject.network;
        let setup = Setup { dtype, ..Setup::new(seed) };
        let config = ResNetConfig { width, ..ResNetConfig::resnet18(self.classes().len(), head) };
        let network = ResNet::new(&config, &setup)?;
        if let Some((weights, _)) = &self.weights
            && let Some(prefix) = weights.load_into(network.parameters(), Part::Body)?.stripped
        {
            self.console.note(format!("`{prefix}` before every name of the starting weights is taken off"));
        }
        network.freeze(freeze);
        Ok(network)
    }

    /// Hands on what runs `plan` with this network and these data.
    pub(super) fn with_runner<R>(
        &self,
        plan: &Plan,
        checkpoint_every: Duration,
        run: impl FnOnce(&Runner<'_, ResNet, Loader, Classification>) -> R,
    ) -> R {
        let Network { head, .. } = self.subject.network;
        let side = self.data.image_size;
        run(&Runner {
            plan,
            network: &|seed, dtype| self.network(seed, dtype),
            examples: &|seed| self.examples(seed),
            task: &Classification::default(),
            weights_sha256: self.weights.as_ref().and_then(|(_, record)| record.sha256.clone()),
            network_info: NetworkInfo {
                name: "resnet-18".to_owned(),
                head: Some(head.name().to_owned()),
                n_outputs: self.classes().len(),
                input: vec![3, side, side],
                preprocessing: Some(data::preprocessing(&self.data.normalisation)),
                class_names: self.classes(),
            },
            dataset_info: &|| DatasetInfo {
                name: self.data.name.to_string(),
                sha256: self.opened().map(|dataset| dataset.provenance.content_sha256.clone()),
            },
            score_batches: 1,
            is_interrupted: &interrupted,
            checkpoint_every,
            peak_memory: &system::peak_memory,
        })
    }

    fn opened(&self) -> Option<Ref<'_, Dataset>> {
        Ref::filter_map(self.dataset.borrow(), |opened| opened.as_ref().map(|(_, dataset)| dataset)).ok()
    }

    fn classes(&self) -> Vec<String> {
        self.opened().map_or_else(Vec::new, |dataset| dataset.pictures.classes().to_vec())
    }
}
