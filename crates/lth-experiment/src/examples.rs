//! What an experiment trains on, as its runner sees it.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use lth_data::{Loader, LoaderConfig};
use lth_train::BoxError;

use crate::identity;

/// Batches of one seed's data. For pictures a [`Loader`] is one.
pub trait Examples {
    /// A batch, as the task takes it.
    type Batch;

    /// The training batches of an epoch. The same for the same epoch, always.
    fn train(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Self::Batch, BoxError>> + '_>;

    /// Training batches of an epoch.
    fn n_train_batches(&self) -> usize;

    /// The validation batches: what chooses.
    fn valid(&self) -> Box<dyn Iterator<Item = Result<Self::Batch, BoxError>> + '_>;

    /// The test batches: what is reported and chooses nothing; `None` if there are none.
    fn test(&self) -> Option<Box<dyn Iterator<Item = Result<Self::Batch, BoxError>> + '_>>;

    /// The same data, whose training batches come in another order and with other augmentation: the same for the same
    /// `number`, and others for every other one. `None` if there is but one order.
    fn branch(&self, number: u32) -> Option<Result<Self, BoxError>>
    where
        Self: Sized,
    {
        let _ = number;
        None
    }

    /// One input of ones, which SynFlow sends through the network; `None` if the network has no such input.
    fn ones(&self) -> Option<Result<Tensor, BoxError>> {
        None
    }
}

impl Examples for Loader {
    type Batch = (Tensor, Tensor);

    fn train(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Self::Batch, BoxError>> + '_> {
        let epoch = usize::try_from(epoch).unwrap_or(usize::MAX);
        Box::new(self.train_epoch(epoch).map(|batch| batch.map_err(Into::into)))
    }

    fn n_train_batches(&self) -> usize {
        Self::n_train_batches(self)
    }

    fn valid(&self) -> Box<dyn Iterator<Item = Result<Self::Batch, BoxError>> + '_> {
        Box::new(Self::valid(self).map(|batch| batch.map_err(Into::into)))
    }

    fn test(&self) -> Option<Box<dyn Iterator<Item = Result<Self::Batch, BoxError>> + '_>> {
        let batches = Self::test(self);
        (self.n_test_batches() > 0).then(|| Box::new(batches.map(|batch| batch.map_err(Into::into))) as _)
    }

    fn branch(&self, number: u32) -> Option<Result<Self, BoxError>> {
        let config = self.config();
        // Seeds of their own, as weights that are drawn anew have.
        let seed = |what: &str, own: Option<u64>| {
            Some(identity::seed(&format!("branch {number} of {what} {}", own.unwrap_or(config.seed))))
        };
        let config = LoaderConfig {
            order_seed: seed("order", config.order_seed),
            augmentation_seed: seed("augmentation", config.augmentation_seed),
            ..config.clone()
        };
        Some(Self::new(Arc::clone(self.pictures()), self.split().clone(), config).map_err(Into::into))
    }

    fn ones(&self) -> Option<Result<Tensor, BoxError>> {
        let (channels, size) = (self.pictures().n_channels(), self.config().image_size);
        let ones = Tensor::ones((1, channels, size, size), DType::F32, &self.config().device);
        Some(ones.map_err(Into::into))
    }
}
