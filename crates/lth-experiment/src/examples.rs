//! What an experiment trains on, as its runner sees it.

use candle_core::{DType, Tensor};
use lth_data::Loader;
use lth_train::BoxError;

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

    fn ones(&self) -> Option<Result<Tensor, BoxError>> {
        let (channels, size) = (self.pictures().n_channels(), self.config().image_size);
        let ones = Tensor::ones((1, channels, size, size), DType::F32, &self.config().device);
        Some(ones.map_err(Into::into))
    }
}
