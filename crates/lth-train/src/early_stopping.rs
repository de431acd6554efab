//! Ending a fit that no longer gets better.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{BoxError, Event, Fit, Hook, HookState};

/// A hook that stops a fit when the validation loss has not improved for a number of validations.
///
/// The step of least validation loss is [`Fitted::best`](crate::Fitted::best). Give it after hooks that change weights at
/// the end of a fit, such as those that rewind: where it keeps the best weights, they are what the fit leaves.
/// Source: Prechelt 1998, "Early Stopping — But When?", criterion UP in the form of Keras's `EarlyStopping`.
#[derive(Clone, Debug)]
pub struct EarlyStopping {
    patience: NonZeroU32,
    min_delta: f64,
    keeps_best: bool,
    progress: Progress,
    best: BTreeMap<String, Tensor>,
    masks: BTreeMap<String, Tensor>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// The least validation loss, and the iteration at which it was.
    best: Option<(f64, usize)>,
    /// Validations since.
    n_without: u32,
}

const BEST: &str = "best/";
const MASK: &str = "mask/";

impl EarlyStopping {
    /// Stops after `patience` validations in a row of which none was better than the best before.
    pub fn new(patience: NonZeroU32) -> Self {
        Self {
            patience,
            min_delta: 0.0,
            keeps_best: false,
            progress: Progress::default(),
            best: BTreeMap::new(),
            masks: BTreeMap::new(),
        }
    }

    /// Better is then only what is less than the best loss by more than this.
    #[must_use]
    pub fn with_min_delta(mut self, min_delta: f64) -> Self {
        self.min_delta = min_delta;
        self
    }

    /// The fit then leaves the parameters, buffers and masks of its best validation, however it ends. The optimiser's
    /// averages stay those of its end.
    #[must_use]
    pub fn keeping_best(mut self) -> Self {
        self.keeps_best = true;
        self
    }

    /// The least validation loss so far and its iteration.
    pub fn best(&self) -> Option<(f64, usize)> {
        self.progress.best
    }

    fn look(&mut self, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        let Some(record) = fit.history().last() else { return Ok(()) };
        let (Some(loss), iteration) = (record.valid_loss, record.iteration) else { return Ok(()) };
        // A loss that is NaN is better than nothing, and no improvement.
        if self.progress.best.is_none_or(|(best, _)| loss < best - self.min_delta || (best.is_nan() && !loss.is_nan()))
        {
            self.progress = Progress { best: Some((loss, iteration)), n_without: 0 };
            if self.keeps_best {
                self.best = fit.parameters().snapshot(|_, _| true)?;
                self.masks.clone_from(fit.masks());
            }
            return Ok(());
        }
        self.progress.n_without += 1;
        if self.progress.n_without >= self.patience.get()
            && let Some((best, at)) = self.progress.best
        {
            let n = self.progress.n_without;
            let times = if n == 1 { "1 validation".to_owned() } else { format!("{n} validations") };
            fit.stop(format!("no validation loss below {best:.6}, that of iteration {at}, in {times}"));
        }
        Ok(())
    }
}

impl Hook for EarlyStopping {
    fn name(&self) -> &str {
        "early stopping"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        match event {
            Event::FitStart => {
                if !fit.validates() {
                    return Err(
                        "it goes by the validation loss, expected a fit that validates, got Validate::Never".into()
                    );
                }
                if !(self.min_delta >= 0.0 && self.min_delta.is_finite()) {
                    let got = self.min_delta;
                    return Err(format!("least improvement is {got}, expected a finite number, at least 0").into());
                }
                self.progress = Progress::default();
                self.best.clear();
                self.masks.clear();
            }
            Event::AfterValidation => self.look(fit)?,
            Event::FitEnd if !self.best.is_empty() => {
                fit.parameters().restore(&self.best)?;
                fit.set_masks(std::mem::take(&mut self.masks))?;
                self.best.clear();
            }
            _ => {}
        }
        Ok(())
    }

    fn save(&self) -> Result<HookState, BoxError> {
        let under = |prefix: &'static str, tensors: &BTreeMap<String, Tensor>| {
            let named = tensors.iter().map(|(name, tensor)| Ok((format!("{prefix}{name}"), tensor.copy()?)));
            named.collect::<Result<Vec<_>, candle_core::Error>>()
        };
        let tensors = under(BEST, &self.best)?.into_iter().chain(under(MASK, &self.masks)?).collect();
        Ok(HookState { tensors, json: serde_json::to_value(&self.progress)? })
    }

    fn load(&mut self, state: &HookState) -> Result<(), BoxError> {
        let progress = serde_json::from_value(state.json.clone())?;
        let (mut best, mut masks) = (BTreeMap::new(), BTreeMap::new());
        for (key, tensor) in &state.tensors {
            let (into, name) = match (key.strip_prefix(BEST), key.strip_prefix(MASK)) {
                (Some(name), _) => (&mut best, name),
                (_, Some(name)) => (&mut masks, name),
                _ => return Err(format!("`{key}` is no tensor of this hook").into()),
            };
            into.insert(name.to_owned(), tensor.copy()?);
        }
        (self.progress, self.best, self.masks) = (progress, best, masks);
        Ok(())
    }
}
