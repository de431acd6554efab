//! The mask that a fit starts under.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use lth_criteria::{Input, NamedInputs, by_name, score_all};
use lth_mask::{MaskSet, Scope, Selection, select, shuffle_within};
use lth_train::{Network, Task};

use crate::plan::{Cut, FitPlan, MaskFrom, Start};
use crate::scoring::Scoring;
use crate::states::States;
use crate::{Error, Examples, Runner, identity};

type Tensors = BTreeMap<String, Tensor>;

impl<N: Network, E: Examples, T: Task<N, E::Batch>> Runner<'_, N, E, T> {
    /// The masks that a fit starts under. `network` has the initial weights of its start, and has them again afterwards.
    ///
    /// # Errors
    /// What states, scores and selection say.
    pub(crate) fn masks(
        &self,
        fit: &FitPlan,
        network: &N,
        examples: &E,
        states: &States<'_>,
    ) -> Result<MaskSet, Error> {
        let rule = &self.plan.pruning;
        let seed = mask_seed(fit);
        match &fit.mask {
            MaskFrom::Dense => Ok(MaskSet::new()),
            MaskFrom::Same(other) => states.masks(other),
            MaskFrom::Shuffled(other) => Ok(shuffle_within(&states.masks(other)?, &rule.selection, seed)?),
            MaskFrom::Random(other) => {
                let like = states.masks(other)?;
                let weights: Tensors = like
                    .iter()
                    .map(|(name, mask)| Ok((name.to_owned(), Tensor::ones(mask.shape(), DType::F32, &Device::Cpu)?)))
                    .collect::<candle_core::Result<_>>()?;
                let criterion = by_name("random", seed)?;
                let scores = score_all(&criterion, &NamedInputs::of(&weights))?;
                let selection = Selection { scope: Scope::Global, ..rule.selection.clone() };
                Ok(select(&scores, like.sparsity(), &selection)?)
            }
            MaskFrom::Cut(cut) => self.cut(cut, fit, network, examples, states),
        }
    }

    fn cut(&self, cut: &Cut, fit: &FitPlan, network: &N, examples: &E, states: &States<'_>) -> Result<MaskSet, Error> {
        let rule = &self.plan.pruning;
        let seed = fit.address.seed;
        let criterion = by_name(cut.criterion.as_deref().unwrap_or(&rule.criterion), mask_seed(fit))?;
        // What is scored is often drawn as what is trained: then it need not be drawn again.
        let other = match initial_seed(&cut.scored, seed) {
            drawn if drawn == initial_seed(&fit.start, seed) => None,
            drawn => Some(self.network(drawn, DType::F32)?),
        };
        let network = other.as_ref().unwrap_or(network);
        let initial = network.parameters().snapshot(|_, _| true)?;
        self.begin(network, &cut.scored, seed, DType::F32, states)?;
        let requires = criterion.requires();
        let is_double = [Input::HessianGradient, Input::FlowGradient];
        let double = || {
            let network = self.network(initial_seed(&cut.scored, seed), DType::F64)?;
            self.begin(&network, &cut.scored, seed, DType::F64, states)?;
            Ok::<_, Error>(network)
        };
        let double = is_double.iter().any(|input| requires.contains(*input)).then(double).transpose()?;
        let (target, selection) =
            rule.target(cut.target, cut.selection.as_ref().unwrap_or(&rule.selection), network.parameters())?;
        let within = cut.within.as_ref().map(|other| states.masks(other)).transpose()?;
        let scoring = Scoring {
            network,
            double: double.as_ref(),
            initial: &initial,
            examples,
            task: self.task,
            ranks: &rule.ranks,
            n_batches: self.score_batches,
            seed,
        };
        let masks = scoring.masks(&*criterion, target.fraction(), &selection, within.as_ref())?;
        network.parameters().restore(&initial)?;
        Ok(masks)
    }
}

/// The seed that the initial weights of a start are drawn with.
pub(crate) fn initial_seed(start: &Start, seed: u64) -> u64 {
    match start {
        Start::Reinitialised(draw) | Start::SignTransfer { draw, .. } => {
            identity::seed(&format!("reinitialised {draw} of {seed}"))
        }
        _ => seed,
    }
}

/// The seed of a mask that is drawn at random: another for every address.
fn mask_seed(fit: &FitPlan) -> u64 {
    match &fit.gradual {
        Some(_) => fit.address.seed,
        None => identity::seed(&format!("mask of {}", fit.address)),
    }
}
