//! What a fit announces, and to whom.

use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use crate::{BoxError, EpochMetrics, Error, Network, Parameters};

/// A moment in a fit. Hooks hear of it in the order in which they were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// Before the first epoch (not after a resume).
    FitStart,
    /// Before the first batch of an epoch.
    EpochStart,
    /// Before a training batch goes through the network.
    BeforeBatch,
    /// Gradients are there ([`Fit::gradients`], [`Fit::loss`]), the optimiser has not moved yet.
    BeforeStep,
    /// The optimiser has moved and masks are applied.
    AfterStep,
    /// Before the validation pass of an epoch; [`Fit::iteration`] is already that of the next training batch.
    BeforeValidation,
    /// After validation: the epoch's figures are the last of [`Fit::history`].
    EpochEnd,
    /// After the last epoch.
    FitEnd,
}

/// A fit as a hook sees it.
pub struct Fit<'a> {
    pub(crate) network: &'a mut dyn Network,
    pub(crate) masks: &'a mut BTreeMap<String, Tensor>,
    pub(crate) gradients: Option<&'a mut GradStore>,
    pub(crate) history: &'a [EpochMetrics],
    pub(crate) loss: Option<f64>,
    pub(crate) smoothed_loss: Option<f64>,
    pub(crate) seed: u64,
    pub(crate) epoch: usize,
    pub(crate) n_epochs: usize,
    pub(crate) iteration: usize,
    pub(crate) n_batches: usize,
    pub(crate) hook_names: &'a [String],
}

impl Fit<'_> {
    /// The run's seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Epoch of this fit, from 0.
    pub fn epoch(&self) -> usize {
        self.epoch
    }

    /// Epochs of this fit.
    pub fn n_epochs(&self) -> usize {
        self.n_epochs
    }

    /// Training batches begun before this moment in this fit; at [`Event::BeforeBatch`] the batch's index, from 0.
    pub fn iteration(&self) -> usize {
        self.iteration
    }

    /// Training batches of an epoch.
    pub fn n_batches(&self) -> usize {
        self.n_batches
    }

    /// Training batches of the whole fit.
    pub fn n_iterations(&self) -> usize {
        self.n_epochs * self.n_batches
    }

    /// The names of the fit's hooks, this one's too, in their order.
    pub fn hook_names(&self) -> &[String] {
        self.hook_names
    }

    /// The figures of the epochs that have ended.
    pub fn history(&self) -> &[EpochMetrics] {
        self.history
    }

    /// Mean loss of the batch at hand, from [`Event::BeforeStep`] to [`Event::AfterStep`].
    pub fn loss(&self) -> Option<f64> {
        self.loss
    }

    /// Smoothed training loss up to here; `None` before the first batch.
    pub fn smoothed_loss(&self) -> Option<f64> {
        self.smoothed_loss
    }

    /// The gradients of the batch at hand, at [`Event::BeforeStep`] only.
    pub fn gradients(&mut self) -> Option<&mut GradStore> {
        self.gradients.as_deref_mut()
    }

    /// The network's parameters.
    pub fn parameters(&self) -> &Parameters {
        self.network.parameters()
    }

    /// The network, for passes of the hook's own.
    pub fn network(&self) -> &dyn Network {
        self.network
    }

    /// The masks in force: name → u8, 1 = keep.
    pub fn masks(&self) -> &BTreeMap<String, Tensor> {
        self.masks
    }

    /// Replaces the masks: zeroes the pruned weights at once, lets the network know, and holds them at 0 after every step
    /// from here on.
    /// # Errors  if a mask does not fit its parameter; the old masks then stay in force.
    pub fn set_masks(&mut self, masks: BTreeMap<String, Tensor>) -> Result<(), Error> {
        *self.masks = put_in_force(self.network, masks)?;
        Ok(())
    }
}

/// Masks checked in full, told to the network, and only then applied to its weights: an error leaves all as it was. They
/// come back on the devices of their parameters.
pub(crate) fn put_in_force(
    network: &mut dyn Network,
    masks: BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    network.parameters().check_masks(&masks)?;
    let there = |(name, mask): (String, Tensor)| {
        let mask = mask.to_device(network.parameters().require(&name)?.var().device())?;
        Ok::<_, Error>((name, mask))
    };
    let masks: BTreeMap<_, _> = masks.into_iter().map(there).collect::<Result<_, _>>()?;
    network.set_masks(&masks)?;
    network.parameters().apply_masks(&masks)?;
    Ok(masks)
}

/// Listens to a fit and may change it: pruning, rewinding, recording, checkpoints, progress bars.
pub trait Hook {
    /// A name for error messages and saved states; no two hooks of a fit have the same.
    fn name(&self) -> &str;

    /// Called at every [`Event`].
    /// # Errors  end the fit.
    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError>;

    /// All that the hook would need to go on after a restart.
    /// # Errors  if a tensor cannot be copied.
    fn save(&self) -> Result<HookState, BoxError> {
        Ok(HookState::default())
    }

    /// Takes up what [`Hook::save`] gave.
    /// # Errors  if the state is not this hook's.
    fn load(&mut self, _state: &HookState) -> Result<(), BoxError> {
        Ok(())
    }
}

/// A hook's state as data, so that whoever writes checkpoints need not know the hook.
#[derive(Clone, Debug, Default)]
pub struct HookState {
    /// Named tensors, deep copies.
    pub tensors: BTreeMap<String, Tensor>,
    /// Everything else.
    pub json: serde_json::Value,
}
