//! What the fits of an experiment are made with: its network, and its data as they are asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use candle_core::{DType, Tensor};
use lth_data::{Dataset, Loader, Normalisation, OpenOptions, Opening};
use lth_nn::{NamedNetwork, Setup};
use lth_ticket::{DatasetInfo, NetworkInfo, Preprocessing};
use lth_train::{BoxError, Classification, Network, Parameters, Pass};

use crate::{Experiment, Plan, Runner};

/// Is told of data that were opened, by the seed of their split, and may refuse them.
pub(crate) type OnOpened<'a> = dyn Fn(&Dataset, u64) -> Result<(), BoxError> + 'a;

/// An experiment's network and data.
pub(crate) struct Subject<'a> {
    pub(crate) experiment: &'a Experiment,
    pub(crate) options: OpenOptions,
    pub(crate) watch: RefCell<&'a mut dyn FnMut(Opening<'_>)>,
    pub(crate) on_opened: &'a OnOpened<'a>,
    /// The latest, with the seed of its split.
    pub(crate) opened: RefCell<Option<(u64, Dataset)>>,
}

impl Subject<'_> {
    /// The batches of a replicate. The data are opened where they are not yet.
    fn examples(&self, seed: u64) -> Result<Loader, BoxError> {
        let split_seed = self.experiment.split_seed(seed);
        let mut opened = self.opened.borrow_mut();
        if opened.as_ref().is_none_or(|(other, _)| *other != split_seed) {
            let mut watch = |opening: Opening<'_>| (self.watch.borrow_mut())(opening);
            let dataset = self.experiment.data.open(split_seed, &self.options, &mut watch)?;
            (self.on_opened)(&dataset, split_seed)?;
            *opened = Some((split_seed, dataset));
        }
        let (_, dataset) = opened.as_ref().ok_or("no data set was opened")?;
        Ok(self.experiment.loader(dataset, seed)?)
    }

    /// The network with a replicate's initial weights.
    pub(crate) fn network(&self, seed: u64, dtype: DType) -> Result<AnyInput, BoxError> {
        let setup = Setup { dtype, ..Setup::new(self.experiment.init_seed(seed)) };
        Ok(AnyInput { network: self.experiment.network.build(&setup)?, dtype })
    }

    /// Hands on what runs `plan` with this network and these data.
    pub(crate) fn with_runner<R>(
        &self,
        plan: &Plan,
        is_interrupted: &dyn Fn() -> bool,
        checkpoint_every: Duration,
        peak_memory: &dyn Fn() -> Option<u64>,
        run: impl FnOnce(&Runner<'_, AnyInput, Loader, Classification>) -> R,
    ) -> R {
        run(&Runner {
            plan,
            network: &|seed, dtype| self.network(seed, dtype),
            examples: &|seed| self.examples(seed),
            task: &Classification::default(),
            weights_sha256: None,
            network_info: self.network_info(),
            dataset_info: &|| self.dataset_info(),
            score_batches: SCORE_BATCHES,
            is_interrupted,
            checkpoint_every,
            peak_memory,
        })
    }

    fn network_info(&self) -> NetworkInfo {
        let spec = &self.experiment.network;
        let Normalisation { mean, std } = self.experiment.data.normalisation.clone();
        NetworkInfo {
            name: spec.name.to_string(),
            head: spec.head.map(|head| head.to_string()),
            n_outputs: spec.n_outputs,
            input: spec.input.clone(),
            preprocessing: Some(Preprocessing { mean, std }),
            class_names: Vec::new(),
        }
    }

    fn dataset_info(&self) -> DatasetInfo {
        let opened = self.opened.borrow();
        DatasetInfo {
            name: self.experiment.data.name.to_string(),
            sha256: opened.as_ref().map(|(_, dataset)| dataset.provenance.content_sha256.clone()),
        }
    }
}

/// A network that takes batches of another type than its own: those of the data are f32, and GraSP's network is f64.
pub(crate) struct AnyInput {
    network: Box<dyn NamedNetwork>,
    dtype: DType,
}

impl Network for AnyInput {
    fn forward(&self, x: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        self.network.forward(&x.to_dtype(self.dtype)?, pass)
    }

    fn parameters(&self) -> &Parameters {
        self.network.parameters()
    }

    fn set_masks(&mut self, masks: &BTreeMap<String, Tensor>) -> candle_core::Result<()> {
        self.network.set_masks(masks)
    }
}

/// Batches that SNIP's and GraSP's gradients are averaged over: ten examples a class of ten with batches of tens.
const SCORE_BATCHES: usize = 10;
