//! What a fit announces, and to whom.

use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use lth_kernels::Gradients;

use crate::fit::FitSpan;
use crate::{BoxError, Error, Evaluation, Network, Optimizer, Parameters, Record};

/// A moment in a fit. Hooks hear of it in the order in which they were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Event {
    /// Before the first batch (not after a resume).
    FitStart,
    /// Before the first batch of an epoch; a fit that begins inside an epoch does not hear of that one's start.
    EpochStart,
    /// Before a training batch goes through the network.
    BeforeBatch,
    /// Gradients are there ([`Fit::gradients`], [`Fit::loss`]), the optimiser has not moved yet. Where a step has several
    /// batches, once after the last of them.
    BeforeStep,
    /// The optimiser has moved, unless a hook had it skip the step, and masks are applied.
    AfterStep,
    /// Before a validation pass; [`Fit::iteration`] is already that of the next training batch.
    BeforeValidation,
    /// After a validation pass: its figures are the last of [`Fit::history`] and in [`Fit::evaluation`].
    AfterValidation,
    /// After an epoch, and after its validation where there is one.
    EpochEnd,
    /// After the last batch, or after a hook has stopped the fit. Not where the fit is interrupted or out of time: it may
    /// go on.
    FitEnd,
}

/// A fit as a hook sees it.
pub struct Fit<'a> {
    pub(crate) network: &'a mut dyn Network,
    pub(crate) masks: &'a mut BTreeMap<String, Tensor>,
    pub(crate) optimizer: &'a mut Optimizer,
    pub(crate) gradients: Option<&'a mut Gradients>,
    pub(crate) history: &'a [Record],
    pub(crate) evaluation: Option<&'a Evaluation>,
    pub(crate) loss: Option<f64>,
    pub(crate) smoothed_loss: Option<f64>,
    pub(crate) seed: u64,
    pub(crate) event: Event,
    pub(crate) epoch: usize,
    pub(crate) iteration: usize,
    pub(crate) span: FitSpan,
    pub(crate) validates: bool,
    pub(crate) hook_names: &'a [String],
    /// Which of them is listening.
    pub(crate) listener: usize,
    pub(crate) requests: &'a mut Requests,
}

/// What hooks want of the loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    /// Which hook ended the fit, and why.
    pub(crate) stop: Option<(String, String)>,
    pub(crate) skips_step: bool,
    /// That of the step at hand.
    pub(crate) learning_rate: Option<f64>,
}

impl Fit<'_> {
    /// The run's seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Epoch of the training, from 0.
    pub fn epoch(&self) -> usize {
        self.epoch
    }

    /// Epochs of the whole training; one that it does not come to the end of counts.
    pub fn n_epochs(&self) -> usize {
        self.span.length.div_ceil(self.span.n_batches.max(1))
    }

    /// Training batches before this moment, counted from the start of the training; at [`Event::BeforeBatch`] the batch's
    /// index, from 0.
    pub fn iteration(&self) -> usize {
        self.iteration
    }

    /// Training batches of an epoch.
    pub fn n_batches(&self) -> usize {
        self.span.n_batches
    }

    /// Training batches of the whole training, of which this fit may be a part.
    pub fn n_iterations(&self) -> usize {
        self.span.length
    }

    /// This fit's part of the training.
    pub fn span(&self) -> FitSpan {
        self.span
    }

    /// Whether the fit validates.
    pub fn validates(&self) -> bool {
        self.validates
    }

    /// The names of the fit's hooks, this one's too, in their order.
    pub fn hook_names(&self) -> &[String] {
        self.hook_names
    }

    /// A record for each validation so far; without validation, for each epoch.
    pub fn history(&self) -> &[Record] {
        self.history
    }

    /// All that the validation just before gave, also which examples were right. `None` from the next batch on.
    pub fn evaluation(&self) -> Option<&Evaluation> {
        self.evaluation
    }

    /// Mean loss of the step's batches, from [`Event::BeforeStep`] to [`Event::AfterStep`].
    pub fn loss(&self) -> Option<f64> {
        self.loss
    }

    /// Smoothed training loss up to here; `None` before the first batch.
    pub fn smoothed_loss(&self) -> Option<f64> {
        self.smoothed_loss
    }

    /// The gradients of the step at hand, at [`Event::BeforeStep`] only: means over its batches, not yet clipped.
    /// # Errors
    /// If candle fails.
    pub fn gradients(&mut self) -> Result<Option<&mut GradStore>, Error> {
        Ok(self.gradients.as_deref_mut().map(Gradients::whole).transpose()?)
    }

    /// The learning rate of the step at hand, from its first [`Event::BeforeBatch`] to [`Event::AfterStep`].
    pub fn learning_rate(&self) -> Option<f64> {
        self.requests.learning_rate
    }

    /// Sets the learning rate of the step at hand.
    /// # Errors
    /// [`Error::NotNow`] outside [`Event::BeforeBatch`] and [`Event::BeforeStep`], [`Error::Setting`] if it is not finite.
    pub fn set_learning_rate(&mut self, learning_rate: f64) -> Result<(), Error> {
        self.expect("set the learning rate", &[Event::BeforeBatch, Event::BeforeStep])?;
        self.requests.learning_rate = Some(check_finite("learning rate", learning_rate)?);
        Ok(())
    }

    /// Lets the optimiser not move at the step at hand. Such steps are counted in
    /// [`Fitted::n_skipped`](crate::Fitted::n_skipped).
    /// # Errors
    /// [`Error::NotNow`] outside [`Event::BeforeStep`].
    pub fn skip_step(&mut self) -> Result<(), Error> {
        self.expect("skip a step", &[Event::BeforeStep])?;
        self.requests.skips_step = true;
        Ok(())
    }

    /// Ends the fit: no further batch is taken. A batch that has begun is finished with its step, as far as it has all its
    /// batches; an epoch that is over is validated. [`Event::FitEnd`] comes, and the fit gives its history with
    /// [`End::Stopped`](crate::End::Stopped). Of several reasons the first counts.
    pub fn stop(&mut self, reason: impl Into<String>) {
        let by = self.hook_names.get(self.listener).cloned().unwrap_or_default();
        self.requests.stop.get_or_insert_with(|| (by, reason.into()));
    }

    fn expect(&self, what: &'static str, events: &'static [Event]) -> Result<(), Error> {
        if events.contains(&self.event) {
            return Ok(());
        }
        Err(Error::NotNow { what, event: self.event, expected: events })
    }

    /// The optimiser.
    pub fn optimizer(&self) -> &Optimizer {
        self.optimizer
    }

    /// The optimiser, to reset it or to set its averages.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        self.optimizer
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
    /// # Errors
    /// If a mask does not fit its parameter; the old masks then stay in force.
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

pub(crate) fn check_finite(what: &'static str, value: f64) -> Result<f64, Error> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(Error::Setting { what, got: value.to_string(), expected: "a finite number".to_owned() })
}

/// Listens to a fit and may change it: pruning, rewinding, recording, checkpoints, progress bars.
pub trait Hook {
    /// A name for error messages and saved states; no two hooks of a fit have the same.
    fn name(&self) -> &str;

    /// Called at every [`Event`].
    /// # Errors
    /// What it gives ends the fit.
    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError>;

    /// Whether the gradients of this batch must be there for pruned weights, too, so that they can come back. It costs the
    /// sparse kernels' gain for that batch; values are equal up to rounding.
    fn needs_dense_gradients(&self, _iteration: usize) -> bool {
        false
    }

    /// All that the hook would need to go on after a restart; `HookState::default()` of one that needs nothing. Asked where
    /// states are written ([`FitConfig::checkpoint`](crate::FitConfig::checkpoint)).
    /// # Errors
    /// If a tensor cannot be copied. A hook that does not say what it needs is refused there.
    fn save(&self) -> Result<HookState, BoxError> {
        Err("it gives no state for checkpoints: let `Hook::save` give what it needs, or `HookState::default()`".into())
    }

    /// Takes up what [`Hook::save`] gave.
    /// # Errors
    /// If the state is not this hook's.
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
