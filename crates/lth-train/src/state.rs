//! All that a resume needs, in one value.

use std::collections::BTreeMap;
use std::time::Duration;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Clip, Error, FitSpan, HookState, OptimizerConfig, Record, Validate};

/// The state of a [`Trainer`](crate::Trainer) between two optimiser steps or two fits. What is not in it does not influence
/// results; tensors are deep copies.
#[derive(Clone, Debug)]
pub struct State {
    /// Parameters and buffers by name.
    pub parameters: BTreeMap<String, Tensor>,
    /// Masks in force by parameter name (u8, 1 = keep).
    pub masks: BTreeMap<String, Tensor>,
    /// The optimiser's averages and counts, see [`Optimizer::tensors`](crate::Optimizer::tensors).
    pub optimizer: BTreeMap<String, Tensor>,
    /// States of the fit's hooks by hook name; empty between fits.
    pub hooks: BTreeMap<String, HookState>,
    /// Everything that is no tensor.
    pub counters: Counters,
}

/// The part of a [`State`] that is no tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// The run's seed.
    pub seed: u64,
    /// The optimiser's constants.
    pub optimizer: OptimizerConfig,
    /// Steps taken by this optimiser.
    pub optimizer_steps: u64,
    /// Where in a fit; `None` between fits.
    pub position: Option<Position>,
}

/// Where a fit stands between two optimiser steps, and which fit that is: it can only go on as the one that it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The fit's part of the training.
    pub span: FitSpan,
    /// The epoch number that the data see in the training's epoch 0.
    pub first_epoch: u64,
    /// When the fit validates.
    pub validate: Validate,
    /// The limit of its gradients.
    pub clip: Option<Clip>,
    /// Parameters that are trained, by name; all others but buffers are frozen.
    pub trainable: Vec<String>,
    /// The next batch, counted from the start of the training; an optimiser step begins with it.
    pub iteration: usize,
    /// Records so far.
    pub history: Vec<Record>,
    /// The smoothed training loss.
    pub smooth: Smooth,
    /// Steps that hooks skipped.
    pub n_skipped: u64,
    /// Wall time of training since the last record.
    pub train_time: Duration,
    /// The part of it spent waiting for batches.
    pub data_time: Duration,
}

impl Position {
    /// # Errors
    /// [`Error::State`] if `fit`, another position, is of another fit.
    pub(crate) fn check_same_fit(&self, fit: &Self) -> Result<(), Error> {
        if self.span != fit.span {
            return Err(Error::State(format!(
                "it is from inside a fit over {}, this one is over {}",
                self.span, fit.span
            )));
        }
        if self.first_epoch != fit.first_epoch {
            let (got, expected) = (self.first_epoch, fit.first_epoch);
            return Err(Error::State(format!("its fit began with epoch {got} of the data, this one with {expected}")));
        }
        if self.validate != fit.validate {
            let (got, expected) = (self.validate, fit.validate);
            return Err(Error::State(format!("its fit validated {got:?}, this one {expected:?}")));
        }
        if self.clip != fit.clip {
            let (got, expected) = (self.clip, fit.clip);
            return Err(Error::State(format!("its fit clipped gradients by {got:?}, this one by {expected:?}")));
        }
        let only_in =
            |one: &Self, other: &Self| one.trainable.iter().find(|name| !other.trainable.contains(name)).cloned();
        match (only_in(self, fit), only_in(fit, self)) {
            (Some(name), _) => Err(Error::State(format!("its fit trained `{name}`, which is frozen now"))),
            (None, Some(name)) => Err(Error::State(format!("its fit had `{name}` frozen, which is trained now"))),
            (None, None) => Ok(()),
        }
    }
}

/// Exponential mean of batch losses, bias-corrected (fastai's `AvgSmoothLoss`), over a whole fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smooth {
    value: f64,
    n: u32,
}

impl Smooth {
    /// fastai's default.
    const BETA: f64 = 0.98;

    pub(crate) fn push(&mut self, loss: f64) {
        self.value = Self::BETA * self.value + (1. - Self::BETA) * loss;
        self.n = self.n.saturating_add(1);
    }

    pub(crate) fn corrected(&self) -> Option<f64> {
        (self.n > 0).then(|| self.value / (1. - Self::BETA.powf(f64::from(self.n))))
    }
}

#[cfg(test)]
mod tests {
    use super::Smooth;

    #[test]
    fn smoothing_a_constant_gives_the_constant() {
        let mut smooth = Smooth::default();
        assert_eq!(smooth.corrected(), None);
        for _ in 0..500 {
            smooth.push(0.7);
            assert!(smooth.corrected().is_some_and(|value| (value - 0.7).abs() < 1e-12));
        }
    }

    #[test]
    fn the_second_value_weighs_the_last_loss_more() {
        // (0.98·0.02·1 + 0.02·2) / (1 − 0.98²) by hand
        let mut smooth = Smooth::default();
        smooth.push(1.);
        smooth.push(2.);
        let expected = (0.98 * 0.02 + 0.04) / (1. - 0.98 * 0.98);
        assert!(smooth.corrected().is_some_and(|value| (value - expected).abs() < 1e-12));
    }
}
