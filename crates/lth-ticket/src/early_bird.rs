//! The hook that ends a training once the mask that it would leave has settled.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;

use candle_core::{Device, Tensor};
use lth_criteria::{LargeFinal, NamedInputs, score_all};
use lth_mask::{MaskSet, Selection, select};
use lth_schedule::Sparsity;
use lth_train::{BoxError, Event, Fit, Hook, HookState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Error;
use crate::identity::{self, Length};

/// When a mask has settled.
///
/// Source: You et al. 2020, "Drawing Early-Bird Tickets: Towards More Efficient Training of Deep Networks", §3.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settled {
    /// The largest normalised Hamming distance, in (0, 1), that is still no change.
    pub below: f64,
    /// The number of epochs before whose masks the present one is compared with.
    pub n_epochs: NonZeroU32,
}

impl Default for Settled {
    /// The paper's: below 0.1 to the masks of five epochs.
    fn default() -> Self {
        Self { below: 0.1, n_epochs: NonZeroU32::MIN.saturating_add(4) }
    }
}

impl Settled {
    /// Whether the distance is one.
    ///
    /// # Errors
    /// [`Error::Setting`] if it is not in (0, 1).
    pub fn check(&self) -> Result<(), Error> {
        if self.below > 0.0 && self.below < 1.0 {
            return Ok(());
        }
        let (what, got) = ("distance of masks that have settled", self.below.to_string());
        Err(Error::Setting { what, got, expected: "more than 0, below 1".to_owned() })
    }
}

/// Cuts a mask by magnitude after every epoch, puts none in force, and stops the fit when the mask is as far from each of
/// those of the epochs before as [`Settled`] allows. Without that the fit goes to its end.
///
/// DIFFERENCE: the paper prunes channels by the scales of BatchNorm; here it is what the selection says.
pub struct EarlyBird {
    settled: Settled,
    sparsity: Sparsity,
    selection: Selection,
    ranks: Vec<usize>,
    /// Of a fit that has started; until it is compared that of a loaded state.
    length: Option<Length>,
    masks: VecDeque<MaskSet>,
    /// Why the fit was stopped, for one that is resumed from just then.
    reason: Option<String>,
}

/// How a state is written, besides its masks.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    config: Value,
    length: Option<Length>,
    n_masks: usize,
    reason: Option<String>,
}

impl EarlyBird {
    /// A hook that looks for a mask of that sparsity. `ranks`: of the weights to prune, 4 for convolutions, 2 for linear
    /// layers.
    pub fn new(settled: Settled, sparsity: Sparsity, selection: Selection, ranks: Vec<usize>) -> Self {
        Self { settled, sparsity, selection, ranks, length: None, masks: VecDeque::new(), reason: None }
    }

    /// The mask that the present weights would leave.
    fn cut(&self, fit: &Fit<'_>) -> Result<MaskSet, Error> {
        let weights: BTreeMap<String, Tensor> = fit
            .parameters()
            .prunable(&self.ranks)
            .map(|(name, parameter)| (name.to_owned(), parameter.var().as_detached_tensor()))
            .collect();
        let scores = score_all(&LargeFinal, &NamedInputs::of(&weights))?;
        Ok(select(&scores, self.sparsity.fraction(), &self.selection)?)
    }

    fn start(&mut self, fit: &Fit<'_>) -> Result<(), Error> {
        self.settled.check()?;
        self.masks.clear();
        self.reason = None;
        // What cannot be selected is found now.
        self.cut(fit)?;
        self.length = Some(Length::of(fit));
        Ok(())
    }

    fn look(&mut self, fit: &mut Fit<'_>) -> Result<(), Error> {
        let length = self
            .length
            .ok_or_else(|| Error::State("there is none of this hook's, and the fit is not at its start".to_owned()))?;
        length.check(fit)?;
        let mask = self.cut(fit)?;
        let n_epochs = self.settled.n_epochs.get() as usize;
        let mut farthest: f64 = 0.0;
        for before in &self.masks {
            farthest = farthest.max(mask.overlap(before)?.overall().hamming());
        }
        let is_last = fit.iteration() == fit.span().to;
        if self.masks.len() == n_epochs && farthest < self.settled.below && !is_last {
            let reason = format!(
                "the mask at {} has settled: its distance to those of the {n_epochs} epochs before is at most {farthest:.3}",
                self.sparsity
            );
            fit.stop(reason.clone());
            self.reason = Some(reason);
        }
        self.masks.push_back(mask);
        if self.masks.len() > n_epochs {
            self.masks.pop_front();
        }
        Ok(())
    }

    fn config(&self) -> Result<Value, serde_json::Error> {
        let Self { settled, sparsity, selection, ranks, .. } = self;
        Ok(json!({ "settled": settled, "sparsity": sparsity, "selection": selection, "ranks": ranks }))
    }
}

impl Hook for EarlyBird {
    fn name(&self) -> &str {
        "early bird"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        match event {
            Event::FitStart => self.start(fit)?,
            Event::EpochStart => self.reason.iter().for_each(|reason| fit.stop(reason)),
            Event::EpochEnd => self.look(fit)?,
            Event::FitEnd => self.length = None,
            _ => {}
        }
        Ok(())
    }

    fn save(&self) -> Result<HookState, BoxError> {
        let mut tensors = BTreeMap::new();
        for (place, masks) in self.masks.iter().enumerate() {
            let masks = masks.to_tensors(&Device::Cpu)?;
            tensors.extend(masks.into_iter().map(|(name, mask)| (format!("{place}/{name}"), mask)));
        }
        let (n_masks, reason) = (self.masks.len(), self.reason.clone());
        let saved = Saved { config: self.config()?, length: self.length, n_masks, reason };
        Ok(HookState { tensors, json: serde_json::to_value(saved)? })
    }

    fn load(&mut self, state: &HookState) -> Result<(), BoxError> {
        let saved: Saved = serde_json::from_value(state.json.clone())?;
        identity::check(&saved.config, &self.config()?)?;
        let mut all = vec![BTreeMap::new(); saved.n_masks];
        for (key, tensor) in &state.tensors {
            let unknown = || Error::State(format!("it has a tensor `{key}`, which no hook of this kind keeps"));
            let (place, name) = key.split_once('/').ok_or_else(unknown)?;
            let masks = place.parse().ok().and_then(|place: usize| all.get_mut(place)).ok_or_else(unknown)?;
            masks.insert(name.to_owned(), tensor.clone());
        }
        self.masks = all.iter().map(MaskSet::from_tensors).collect::<Result<_, _>>()?;
        (self.length, self.reason) = (saved.length, saved.reason);
        Ok(())
    }
}
