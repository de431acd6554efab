//! The hook that prunes while a network trains.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use lth_criteria::{Criterion, Input, LargeFinal, NamedInputs, score_all};
use lth_mask::{MaskSet, Selection, select, select_within};
use lth_schedule::{Sparsity, SparsityPlan, SparsitySchedule, TrainingLength};
use lth_train::{BoxError, Event, Fit, Hook, HookState, Parameters};
use serde::{Deserialize, Serialize};

use crate::{Error, Notice, Rewind};

/// What to prune, by which score, when, and what becomes of the rest.
pub struct PruningConfig {
    /// Saliency score. The loop can offer weights, their values at the start of the fit and at the last pruning, masks,
    /// and the last batch's gradient.
    pub criterion: Box<dyn Criterion>,
    /// How scores become masks.
    pub selection: Selection,
    /// How much to prune when.
    pub schedule: SparsitySchedule,
    /// Set the kept weights back after each change of sparsity; `None` fine-tunes instead.
    pub rewind: Option<Rewind>,
    /// Ranks of the weights to prune: 4 for convolutions, 2 for linear layers.
    pub ranks: Vec<usize>,
}

impl PruningConfig {
    /// The notebook's choices for the rest: every convolution's weights, single and layer by layer, by magnitude under the
    /// quantile rule, without rewinding.
    pub fn new(schedule: SparsitySchedule) -> Self {
        Self {
            criterion: Box::new(LargeFinal),
            selection: Selection::fasterai_2021(),
            schedule,
            rewind: None,
            ranks: vec![4],
        }
    }
}

/// Prunes by a [`PruningConfig`]. It keeps its masks in force after the fit: the next fit goes on with them.
///
/// As in fasterai, the sparsity is asked for before every batch and before validation, and masks are computed anew when
/// it has changed. DIFFERENCE: fasterai of 2021 computes them at every batch; from masked weights and the same sparsity
/// the same masks come out, so that is time lost. Masks are nested while the sparsity rises.
pub struct Pruning<'a> {
    config: PruningConfig,
    notify: Option<Notify<'a>>,
    plan: Option<SparsityPlan>,
    progress: Progress,
    saved: BTreeMap<String, Tensor>,
    initial: BTreeMap<String, Tensor>,
    previous: BTreeMap<String, Tensor>,
    gradients: BTreeMap<String, Tensor>,
}

type Notify<'a> = Box<dyn FnMut(&Notice) + 'a>;

/// What the hook remembers besides tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    sparsity: Sparsity,
    saved_epoch: usize,
    reset_is_due: bool,
}

impl<'a> Pruning<'a> {
    /// A hook that has pruned nothing yet.
    pub fn new(config: PruningConfig) -> Self {
        Self {
            config,
            notify: None,
            plan: None,
            progress: Progress::default(),
            saved: BTreeMap::new(),
            initial: BTreeMap::new(),
            previous: BTreeMap::new(),
            gradients: BTreeMap::new(),
        }
    }

    /// Calls `notify` at everything worth telling.
    #[must_use]
    pub fn with_notices(mut self, notify: impl FnMut(&Notice) + 'a) -> Self {
        self.notify = Some(Box::new(notify));
        self
    }

    /// The sparsity asked for last.
    pub fn sparsity(&self) -> Sparsity {
        self.progress.sparsity
    }

    fn tell(&mut self, notice: Notice) {
        if let Some(notify) = &mut self.notify {
            notify(&notice);
        }
    }

    fn needs(&self, input: Input) -> bool {
        self.config.criterion.requires().contains(input)
    }

    /// Binds the schedule to the fit and checks the configuration against the network.
    fn prepare(&mut self, fit: &Fit<'_>) -> Result<(), Error> {
        let criterion = &self.config.criterion;
        const OFFERED: [Input; 5] = [Input::Weight, Input::Initial, Input::Previous, Input::Gradient, Input::Mask];
        if let Some(input) = criterion.requires().iter().find(|input| !OFFERED.contains(input)) {
            return Err(Error::NotCollected { criterion: criterion.name().to_owned(), input });
        }
        if fit.parameters().prunable(&self.config.ranks).next().is_none() {
            let names = fit.parameters().names().take(4).map(str::to_owned).collect();
            return Err(Error::NothingToPrune { ranks: self.config.ranks.clone(), names });
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let plan = self.config.schedule.plan(TrainingLength::new(count(fit.n_epochs()), count(fit.n_batches()))?)?;
        if let Some(rewind) = self.config.rewind {
            let start_epoch = (plan.span().start() / fit.n_batches() as f64).floor() as u64;
            if start_epoch < rewind.epoch as u64 {
                return Err(Error::RewindAfterStart { start_epoch, rewind_epoch: rewind.epoch as u64 });
            }
        }
        self.plan = Some(plan);
        Ok(())
    }

    fn prunable(&self, parameters: &Parameters) -> Result<BTreeMap<String, Tensor>, Error> {
        let weights = parameters.prunable(&self.config.ranks);
        Ok(weights
            .map(|(name, parameter)| Ok((name.to_owned(), parameter.var().as_detached_tensor().copy()?)))
            .collect::<candle_core::Result<_>>()?)
    }

    fn save_weights(&mut self, fit: &Fit<'_>, epoch: usize) -> Result<(), Error> {
        if let Some(rewind) = self.config.rewind {
            self.saved = rewind.rule.snapshot(fit.parameters())?;
            self.progress.saved_epoch = epoch;
        }
        Ok(())
    }

    /// New masks if the schedule asks for another sparsity now.
    fn update(&mut self, fit: &mut Fit<'_>) -> Result<(), Error> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let iteration = fit.iteration() as u64;
        if !plan.has_begun(iteration) {
            return Ok(());
        }
        let sparsity = plan.sparsity(iteration);
        if sparsity == self.progress.sparsity {
            return Ok(());
        }
        let masks = self.masks(fit, sparsity)?;
        let mut in_force = fit.masks().clone();
        in_force.extend(masks.to_tensors(&Device::Cpu)?);
        fit.set_masks(in_force)?;
        self.progress.sparsity = sparsity;
        self.tell(Notice::Pruned { sparsity });
        if let Some(rewind) = self.config.rewind {
            if rewind.rule.is_after_step() {
                self.progress.reset_is_due = true;
            } else {
                self.reset(fit)?;
            }
        }
        if self.needs(Input::Previous) {
            self.previous = self.prunable(fit.parameters())?;
        }
        Ok(())
    }

    fn masks(&self, fit: &Fit<'_>, sparsity: Sparsity) -> Result<MaskSet, Error> {
        let weights = self.prunable(fit.parameters())?;
        let in_force: BTreeMap<_, _> = fit
            .masks()
            .iter()
            .filter(|(name, _)| weights.contains_key(*name))
            .map(|(n, m)| (n.clone(), m.clone()))
            .collect();
        let previous = if self.previous.is_empty() { &self.initial } else { &self.previous };
        let scores = score_all(
            &*self.config.criterion,
            &NamedInputs {
                initial: self.needs(Input::Initial).then_some(&self.initial),
                previous: self.needs(Input::Previous).then_some(previous),
                gradient: self.needs(Input::Gradient).then_some(&self.gradients),
                mask: self.needs(Input::Mask).then_some(&in_force),
                ..NamedInputs::of(&weights)
            },
        )?;
        if sparsity < self.progress.sparsity || in_force.is_empty() {
            return Ok(select(&scores, sparsity.fraction(), &self.config.selection)?);
        }
        // A layer without a mask so far was dense.
        let mut before = MaskSet::all_kept(&weights)?;
        for (name, mask) in MaskSet::from_tensors(&in_force)?.iter() {
            before.insert(name, mask.clone());
        }
        Ok(select_within(&scores, sparsity.fraction(), &self.config.selection, &before)?)
    }

    fn reset(&mut self, fit: &Fit<'_>) -> Result<(), Error> {
        let Some(rewind) = self.config.rewind else { return Ok(()) };
        rewind.rule.reset(fit.parameters(), &self.saved, fit.masks())?;
        self.progress.reset_is_due = false;
        self.tell(Notice::Reset { epoch: self.progress.saved_epoch });
        Ok(())
    }

    fn keep_gradients(&mut self, fit: &mut Fit<'_>) -> Result<(), Error> {
        let variables: Vec<_> = fit
            .parameters()
            .prunable(&self.config.ranks)
            .map(|(name, parameter)| (name.to_owned(), parameter.var().clone()))
            .collect();
        let Some(gradients) = fit.gradients() else { return Ok(()) };
        self.gradients =
            variables.into_iter().filter_map(|(name, var)| Some((name, gradients.get(&var)?.clone()))).collect();
        Ok(())
    }

    fn handle(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), Error> {
        if self.plan.is_none() {
            self.prepare(fit)?;
        }
        match event {
            Event::FitStart => {
                self.progress = Progress { sparsity: self.config.schedule.start, ..Progress::default() };
                self.save_weights(fit, 0)?;
                if self.needs(Input::Initial) || self.needs(Input::Previous) {
                    self.initial = self.prunable(fit.parameters())?;
                }
            }
            Event::EpochStart => {
                if let Some(rewind) = self.config.rewind
                    && rewind.epoch == fit.epoch()
                {
                    self.save_weights(fit, rewind.epoch)?;
                    self.tell(Notice::Saved { epoch: rewind.epoch });
                }
            }
            Event::BeforeBatch | Event::BeforeValidation => self.update(fit)?,
            Event::BeforeStep if self.needs(Input::Gradient) => self.keep_gradients(fit)?,
            Event::AfterStep if self.progress.reset_is_due => self.reset(fit)?,
            Event::EpochEnd => {
                self.tell(Notice::EpochEnd { epoch: fit.epoch(), sparsity: self.progress.sparsity });
            }
            Event::FitEnd => {
                if self.config.rewind.is_some_and(|rewind| rewind.reset_end) {
                    self.reset(fit)?;
                }
                self.tell(Notice::FitEnd { sparsity: self.progress.sparsity });
                self.plan = None;
            }
            _ => {}
        }
        Ok(())
    }
}

const SAVED: &str = "saved";
const INITIAL: &str = "initial";
const PREVIOUS: &str = "previous";

impl Hook for Pruning<'_> {
    fn name(&self) -> &str {
        "pruning"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        Ok(self.handle(event, fit)?)
    }

    fn save(&self) -> Result<HookState, BoxError> {
        let kinds = [(SAVED, &self.saved), (INITIAL, &self.initial), (PREVIOUS, &self.previous)];
        let tensors = kinds.iter().flat_map(|(kind, tensors)| {
            tensors.iter().map(move |(name, tensor)| Ok((format!("{kind}/{name}"), tensor.copy()?)))
        });
        Ok(HookState {
            tensors: tensors.collect::<candle_core::Result<_>>()?,
            json: serde_json::to_value(self.progress)?,
        })
    }

    fn load(&mut self, state: &HookState) -> Result<(), BoxError> {
        let mut kinds =
            BTreeMap::from([(SAVED, BTreeMap::new()), (INITIAL, BTreeMap::new()), (PREVIOUS, BTreeMap::new())]);
        for (key, tensor) in &state.tensors {
            let unknown = || Error::State(format!("it has no tensor `{key}`"));
            let (kind, name) = key.split_once('/').ok_or_else(unknown)?;
            kinds.get_mut(kind).ok_or_else(unknown)?.insert(name.to_owned(), tensor.copy()?);
        }
        self.progress = serde_json::from_value(state.json.clone())?;
        let mut take = |kind| kinds.remove(kind).unwrap_or_default();
        (self.saved, self.initial, self.previous) = (take(SAVED), take(INITIAL), take(PREVIOUS));
        Ok(())
    }
}
