//! The hook that prunes while a network trains.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use lth_criteria::{Input, NamedInputs, score_all};
use lth_mask::{Mask, MaskSet, ThresholdRule, matches, select_within};
use lth_schedule::{Sparsity, SparsityPlan, SparsitySchedule, Step, TrainingLength};
use lth_train::{BoxError, Event, Fit, Hook, HookState, Parameters};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::collected::Collected;
use crate::identity::{self, Length};
use crate::reset::layer;
use crate::stream::silenced;
use crate::target::Target;
use crate::{Error, Extent, Notice, PruningConfig, Regrowth};

/// Prunes by a [`PruningConfig`]. It keeps its masks in force after the fit: the next fit goes on with them. The hook
/// itself starts every fit anew.
///
/// As in fasterai, the sparsity is asked for before every batch and before validation, and masks are computed anew when
/// it has changed. DIFFERENCE: fasterai of 2021 computes them at every batch; from masked weights and the same sparsity
/// the same masks come out, so that is time lost. Masks are nested while the sparsity rises, unless the configuration lets
/// weights come back ([`Regrowth`]). Where it falls, as many
/// weights come back as the exact count says, whatever the rule: pruned weights are all 0, and the quantile rule would
/// keep every one of them. Before its window a schedule asks for its starting sparsity, and that is cut before the
/// first batch.
///
/// The schedule goes over the whole training, of which a fit may be a span; a hook whose fit begins inside cuts to the
/// sparsity of that moment at once.
///
/// Several hooks may prune one network in one fit, each under a name of its own ([`Pruning::with_name`]).
pub struct Pruning<'a> {
    name: String,
    config: PruningConfig,
    notify: Option<Notify<'a>>,
    /// Between the first and the last event of a fit.
    plan: Option<SparsityPlan>,
    /// The length of the training that a loaded state is from, until it is compared.
    loaded: Option<Length>,
    /// From this batch on gradients may be for a cut after the fit's last one.
    last_cut_from: usize,
    state: State,
}

type Notify<'a> = Box<dyn FnMut(&Notice) + 'a>;

/// All that the hook remembers of a fit.
#[derive(Default)]
struct State {
    progress: Progress,
    saved: BTreeMap<String, Tensor>,
    initial: BTreeMap<String, Tensor>,
    previous: BTreeMap<String, Tensor>,
    collected: Collected,
}

/// The part of it that is no tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    has_started: bool,
    /// What the last cut was asked for.
    cut: Option<Target>,
    /// Whether a cut waits for gradients.
    cut_is_due: bool,
    saved_epoch: usize,
    reset_is_due: bool,
    /// Masks that follow from those of the weights.
    silenced: BTreeSet<String>,
    n_collected: u32,
}

/// How a state is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    config: Value,
    length: Option<Length>,
    progress: Progress,
}

const NAME: &str = "pruning";

impl<'a> Pruning<'a> {
    /// A hook that has pruned nothing yet.
    pub fn new(config: PruningConfig) -> Self {
        Self {
            name: NAME.to_owned(),
            config,
            notify: None,
            plan: None,
            loaded: None,
            last_cut_from: usize::MAX,
            state: State::default(),
        }
    }

    /// Calls `notify` at everything worth telling.
    #[must_use]
    pub fn with_notices(mut self, notify: impl FnMut(&Notice) + 'a) -> Self {
        self.notify = Some(Box::new(notify));
        self
    }

    /// The hook's name becomes "pruning." and `name`, so that another can prune in the same fit.
    #[must_use]
    pub fn with_name(mut self, name: &str) -> Self {
        self.name = format!("{NAME}.{name}");
        self
    }

    /// The sparsity asked for at the last cut; 0 before the first. What was reached is in the [`Notice`]s.
    pub fn sparsity(&self) -> Sparsity {
        self.state.progress.cut.as_ref().map_or(Sparsity::DENSE, |target| target.sparsity)
    }

    fn tell(&mut self, notice: Notice) {
        if let Some(notify) = &mut self.notify {
            notify(&notice);
        }
    }

    fn needs(&self, input: Input) -> bool {
        self.config.criterion.requires().contains(input)
    }

    fn needs_gradients(&self) -> bool {
        self.needs(Input::Gradient) || self.needs(Input::SquaredGradient)
    }

    /// Binds the schedule to the fit and checks the configuration against the network.
    fn prepare(&mut self, fit: &Fit<'_>) -> Result<(), Error> {
        if !self.state.progress.has_started {
            let reason = "there is none of this hook's, and the fit is not at its start";
            return Err(Error::State(reason.to_owned()));
        }
        if let Some(length) = self.loaded.take() {
            length.check(fit)?;
        }
        let criterion = &self.config.criterion;
        const OFFERED: [Input; 6] =
            [Input::Weight, Input::Initial, Input::Previous, Input::Gradient, Input::SquaredGradient, Input::Mask];
        if let Some(input) = criterion.requires().iter().find(|input| !OFFERED.contains(input)) {
            return Err(Error::NotCollected { criterion: criterion.name().to_owned(), input });
        }
        if self.weights(fit.parameters()).is_empty() {
            let names = fit.parameters().names().take(4).map(str::to_owned).collect();
            return Err(Error::NothingToPrune { ranks: self.config.ranks.clone(), names });
        }
        let prunable: Vec<&str> = fit.parameters().prunable(&self.config.ranks).map(|(name, _)| name).collect();
        self.config.selection.check_patterns(prunable.into_iter())?;
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let per_epoch = count(fit.n_batches());
        let length = TrainingLength::until(Step::from_iterations(fit.n_iterations() as u64, per_epoch)?, per_epoch)?;
        let plan = self.config.schedule.plan(length)?;
        self.check_layers(length)?;
        self.check_rewind(fit, &plan)?;
        self.try_selection(fit, &plan)?;
        self.plan = Some(plan);
        let (span, n_steps) = (fit.span(), self.config.gradient_batches.get() as usize);
        self.last_cut_from = span.to.saturating_sub((n_steps + 1) * span.accumulate);
        Ok(())
    }

    /// Targets of layers must be ends that the schedule can have.
    fn check_layers(&self, length: TrainingLength) -> Result<(), Error> {
        if let lth_mask::Scope::PerLayer(ends) = &self.config.selection.scope {
            for end in ends.values() {
                SparsitySchedule { end: Sparsity::new(*end)?, ..self.config.schedule.clone() }.plan(length)?;
            }
        }
        Ok(())
    }

    fn check_rewind(&self, fit: &Fit<'_>, plan: &SparsityPlan) -> Result<(), Error> {
        let Some(rewind) = self.config.rewind else { return Ok(()) };
        if rewind.epoch * fit.n_batches() < fit.span().from {
            let from = Step::from_iterations(fit.span().from as u64, plan.length().iterations_per_epoch())?;
            return Err(Error::RewindBeforeSpan { from, rewind_epoch: rewind.epoch as u64 });
        }
        let schedule = &self.config.schedule;
        let start_epoch = match schedule.start {
            Sparsity::DENSE => (plan.span().start() / fit.n_batches() as f64).floor() as u64,
            _ => 0,
        };
        if start_epoch < rewind.epoch as u64 {
            return Err(Error::RewindAfterStart { start_epoch, rewind_epoch: rewind.epoch as u64 });
        }
        if !schedule.schedule.is_stepwise() && schedule.every.is_none_or(|every| every.get() < 2) {
            return Err(Error::RewindEveryBatch { schedule: schedule.schedule.to_string() });
        }
        let is_other = |name: &&String| **name != self.name && (*name == NAME || name.starts_with("pruning."));
        match fit.hook_names().iter().find(is_other) {
            Some(other) if rewind.extent == Extent::Network => {
                Err(Error::RewindOthers { hook: self.name.clone(), other: other.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Selects by equal scores at the sparsities to come, so that what cannot be selected is found now.
    fn try_selection(&self, fit: &Fit<'_>, plan: &SparsityPlan) -> Result<(), Error> {
        const AT_MOST: usize = 16;
        let mut targets: Vec<Target> = Vec::new();
        for iteration in fit.iteration()..=fit.span().to {
            let target = Target::at(plan, &self.config.selection, iteration as u64)?;
            if !target.is_dense() && targets.last() != Some(&target) {
                targets.push(target);
            }
        }
        if targets.len() > AT_MOST {
            // A continuous schedule: its highest, and others evenly.
            let highest = targets.iter().max_by_key(|target| target.sparsity).cloned();
            let last = targets.len() - 1;
            targets = (0..AT_MOST).map(|i| targets[i * last / (AT_MOST - 1)].clone()).chain(highest).collect();
        }
        if targets.is_empty() {
            return Ok(());
        }
        let equal = self
            .weights(fit.parameters())
            .into_iter()
            .map(|(name, weight)| Ok((name.to_owned(), Tensor::ones(weight.dims(), DType::F32, &Device::Cpu)?)));
        let equal: BTreeMap<String, Tensor> = equal.collect::<candle_core::Result<_>>()?;
        let before = self.in_force(fit, &equal)?;
        for target in targets {
            let selection = target.selection(&self.config.selection);
            select_within(&equal, target.sparsity.fraction(), &selection, &before)
                .map_err(|reason| Error::Unreachable { sparsity: target.sparsity, reason: Box::new(reason) })?;
        }
        Ok(())
    }

    /// The weights that the hook prunes.
    fn weights<'p>(&'p self, parameters: &'p Parameters) -> Vec<(&'p str, &'p candle_core::Var)> {
        let is_kept_dense = |name: &str| self.config.selection.keep_dense.iter().any(|pattern| matches(pattern, name));
        let prunable = parameters.prunable(&self.config.ranks).filter(|(name, _)| !is_kept_dense(name));
        prunable.map(|(name, parameter)| (name, parameter.var())).collect()
    }

    fn copies(&self, parameters: &Parameters) -> Result<BTreeMap<String, Tensor>, Error> {
        let weights = self.weights(parameters).into_iter();
        Ok(weights
            .map(|(name, var)| Ok((name.to_owned(), var.as_detached_tensor().copy()?)))
            .collect::<candle_core::Result<_>>()?)
    }

    /// Which parameters go back when the hook rewinds.
    fn owned(&self, parameters: &Parameters) -> impl Fn(&str) -> bool + use<> {
        let layers: Option<BTreeSet<String>> = match self.config.rewind.map(|rewind| rewind.extent) {
            Some(Extent::PrunedLayers) => {
                Some(self.weights(parameters).into_iter().map(|(name, _)| layer(name).to_owned()).collect())
            }
            _ => None,
        };
        move |name| layers.as_ref().is_none_or(|layers| layers.contains(layer(name)))
    }

    fn save_weights(&mut self, fit: &Fit<'_>, epoch: usize) -> Result<(), Error> {
        if let Some(rewind) = self.config.rewind {
            self.state.saved = rewind.rule.snapshot(fit.parameters(), &self.owned(fit.parameters()))?;
            self.state.progress.saved_epoch = epoch;
        }
        Ok(())
    }

    /// The masks of the hook's weights; a weight without one is dense.
    fn in_force(&self, fit: &Fit<'_>, weights: &BTreeMap<String, Tensor>) -> Result<MaskSet, Error> {
        let mut masks = MaskSet::all_kept(weights)?;
        for (name, mask) in fit.masks().iter().filter(|(name, _)| weights.contains_key(*name)) {
            masks.insert(name, Mask::from_tensor(mask)?);
        }
        Ok(masks)
    }

    /// The sparsity of the masks in force over the hook's weights.
    fn measured(&self, fit: &Fit<'_>) -> Result<Sparsity, Error> {
        let (mut zeros, mut weights) = (0, 0);
        for (name, var) in self.weights(fit.parameters()) {
            weights += var.elem_count();
            if let Some(mask) = fit.masks().get(name) {
                zeros += Mask::from_tensor(mask)?.zeros();
            }
        }
        Ok(Sparsity::new(if weights == 0 { 0.0 } else { zeros as f64 / weights as f64 })?)
    }

    /// New masks, now or once there are gradients, if the schedule asks for another sparsity.
    fn update(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), Error> {
        let Some(plan) = &self.plan else { return Ok(()) };
        // Gradients of a step's first batches are of the weights and masks that they went through.
        if !fit.span().begins_step(fit.iteration()) {
            return Ok(());
        }
        let target = Target::at(plan, &self.config.selection, fit.iteration() as u64)?;
        let is_in_force = match &self.state.progress.cut {
            Some(cut) => *cut == target,
            None => target.is_dense(),
        };
        // Validation comes with the sparsity of the next batch, which may be before the weights to rewind to are saved.
        let is_early = self.config.rewind.is_some_and(|rewind| rewind.epoch > fit.epoch());
        if is_in_force || is_early {
            return Ok(());
        }
        if !self.needs_gradients() {
            return self.cut(fit, target, event);
        }
        if event == Event::BeforeBatch {
            if !self.state.progress.cut_is_due {
                self.state.collected.clear();
                self.state.progress.cut_is_due = true;
            }
        } else if fit.iteration() == fit.span().to && self.state.collected.n_batches > 0 {
            // No batch comes after this: by the gradients of the last ones.
            self.cut(fit, target, event)?;
        }
        Ok(())
    }

    /// Keeps a batch's gradients if a cut waits for them, and makes the cut when there are enough.
    fn collect(&mut self, fit: &mut Fit<'_>) -> Result<(), Error> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let selection = &self.config.selection;
        let wanted = self.config.gradient_batches.get();
        let (iteration, end) = (fit.iteration(), fit.span().to);
        let n_ahead = wanted as usize * fit.span().accumulate;
        let is_due = self.state.progress.cut_is_due;
        let target = Target::at(plan, selection, iteration as u64)?;
        // After the last batch a continuous schedule has one more sparsity to reach.
        let is_last = iteration + n_ahead >= end && Target::at(plan, selection, end as u64)? != target;
        if !is_due && !is_last {
            return Ok(());
        }
        if self.state.collected.n_batches >= wanted {
            self.state.collected.clear();
        }
        let weights = self.weights(fit.parameters());
        let variables: Vec<_> = weights.into_iter().map(|(name, var)| (name.to_owned(), var.clone())).collect();
        let Some(gradients) = fit.gradients()? else { return Ok(()) };
        let gradients =
            variables.into_iter().filter_map(|(name, var)| Some((name, gradients.get(&var)?.clone()))).collect();
        self.state.collected.observe(&gradients)?;
        if is_due && self.state.collected.n_batches >= wanted {
            self.state.progress.cut_is_due = false;
            self.cut(fit, target, Event::BeforeStep)?;
        }
        Ok(())
    }

    fn cut(&mut self, fit: &mut Fit<'_>, target: Target, event: Event) -> Result<(), Error> {
        let masks = self.masks(fit, &target)?;
        let mut in_force = fit.masks().clone();
        in_force.retain(|name, _| !self.state.progress.silenced.contains(name));
        in_force.extend(masks.to_tensors(&Device::Cpu)?);
        let others = MaskSet::from_tensors(&in_force)?;
        let (selection, connections) = (&self.config.selection, self.config.connections.as_ref());
        let all = if connections.is_some() { &others } else { &masks };
        let silenced = silenced(fit.parameters(), all, selection, connections)?;
        self.state.progress.silenced.clear();
        for (name, mask) in silenced.iter() {
            let mask = match others.get(name) {
                // Somebody else's: it stays when this one goes.
                Some(other) => mask.intersection(other)?,
                None => {
                    self.state.progress.silenced.insert(name.to_owned());
                    mask.clone()
                }
            };
            in_force.insert(name.to_owned(), mask.to_tensor(&Device::Cpu)?);
        }
        fit.set_masks(in_force)?;
        let sparsity = target.sparsity;
        self.state.progress.cut = Some(target);
        self.tell_measured(fit, |measured| Notice::Pruned { sparsity, measured })?;
        if let Some(rewind) = self.config.rewind {
            // A step by gradients of before the cut would move what was just set back.
            if rewind.rule.is_after_step() || event == Event::BeforeStep {
                self.state.progress.reset_is_due = true;
            } else {
                self.reset(fit)?;
            }
        }
        if self.needs(Input::Previous) {
            self.state.previous = self.copies(fit.parameters())?;
        }
        Ok(())
    }

    fn tell_measured(&mut self, fit: &Fit<'_>, notice: impl FnOnce(Sparsity) -> Notice) -> Result<(), Error> {
        if self.notify.is_some() {
            let measured = self.measured(fit)?;
            self.tell(notice(measured));
        }
        Ok(())
    }

    fn masks(&self, fit: &Fit<'_>, target: &Target) -> Result<MaskSet, Error> {
        let State { initial, previous, collected, progress, .. } = &self.state;
        let weights = self.copies(fit.parameters())?;
        let mut before = self.in_force(fit, &weights)?;
        let previous = if previous.is_empty() { initial } else { previous };
        let (gradients, squares) = (collected.mean()?, collected.mean_of_squares()?);
        let masks = if self.needs(Input::Mask) { before.to_tensors(&Device::Cpu)? } else { BTreeMap::new() };
        let scores = score_all(
            &*self.config.criterion,
            &NamedInputs {
                initial: self.needs(Input::Initial).then_some(initial),
                previous: self.needs(Input::Previous).then_some(previous),
                gradient: self.needs(Input::Gradient).then_some(&gradients),
                squared_gradient: self.needs(Input::SquaredGradient).then_some(&squares),
                mask: self.needs(Input::Mask).then_some(&masks),
                ..NamedInputs::of(&weights)
            },
        )?;
        let mut selection = target.selection(&self.config.selection);
        if self.config.regrowth == Regrowth::Free {
            for (name, weight) in &weights {
                before.insert(name, Mask::all_kept(weight.dims())?);
            }
            selection.rule = ThresholdRule::ExactCount;
        }
        // Where less is asked for than before, weights come back. They are all 0, a tie that only a count cuts through.
        if let Some(cut) = &progress.cut {
            let asked_before = cut.selection(&self.config.selection).scope;
            for (name, weight) in &weights {
                let now = selection.scope.own_sparsity(name, target.sparsity.fraction())?;
                if now < asked_before.own_sparsity(name, cut.sparsity.fraction())? {
                    before.insert(name, Mask::all_kept(weight.dims())?);
                    selection.rule = ThresholdRule::ExactCount;
                }
            }
        }
        Ok(select_within(&scores, target.sparsity.fraction(), &selection, &before)?)
    }

    fn reset(&mut self, fit: &Fit<'_>) -> Result<(), Error> {
        let Some(rewind) = self.config.rewind else { return Ok(()) };
        rewind.rule.reset(fit.parameters(), &self.owned(fit.parameters()), &self.state.saved, fit.masks())?;
        if std::mem::take(&mut self.state.progress.reset_is_due) && self.needs(Input::Previous) {
            self.state.previous = self.copies(fit.parameters())?;
        }
        self.tell(Notice::Reset { epoch: self.state.progress.saved_epoch });
        Ok(())
    }

    fn start(&mut self, fit: &Fit<'_>) -> Result<(), Error> {
        self.state = State::default();
        self.state.progress.has_started = true;
        (self.plan, self.loaded) = (None, None);
        self.prepare(fit)?;
        self.save_weights(fit, 0)?;
        if self.needs(Input::Initial) || self.needs(Input::Previous) {
            self.state.initial = self.copies(fit.parameters())?;
        }
        Ok(())
    }

    fn handle(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), Error> {
        if event == Event::FitStart {
            return self.start(fit);
        }
        if self.plan.is_none() {
            self.prepare(fit)?;
        }
        match event {
            Event::EpochStart => {
                if let Some(rewind) = self.config.rewind
                    && rewind.epoch == fit.epoch()
                {
                    self.save_weights(fit, rewind.epoch)?;
                    self.tell(Notice::Saved { epoch: rewind.epoch });
                }
            }
            Event::BeforeBatch | Event::BeforeValidation => self.update(event, fit)?,
            Event::BeforeStep if self.needs_gradients() => self.collect(fit)?,
            Event::AfterStep if self.state.progress.reset_is_due => self.reset(fit)?,
            Event::EpochEnd => {
                if !self.state.progress.cut_is_due {
                    self.state.collected.clear();
                }
                let (epoch, sparsity) = (fit.epoch(), self.sparsity());
                self.tell_measured(fit, |measured| Notice::EpochEnd { epoch, sparsity, measured })?;
            }
            Event::FitEnd => {
                if self.config.rewind.is_some_and(|rewind| rewind.reset_end) {
                    self.reset(fit)?;
                }
                let sparsity = self.sparsity();
                self.tell_measured(fit, |measured| Notice::FitEnd { sparsity, measured })?;
                self.plan = None;
                self.state.progress.has_started = false;
            }
            _ => {}
        }
        Ok(())
    }
}

const SAVED: &str = "saved";
const INITIAL: &str = "initial";
const PREVIOUS: &str = "previous";
const GRADIENT: &str = "gradient";
const SQUARES: &str = "squares";

impl State {
    fn tensors(&self) -> [(&'static str, &BTreeMap<String, Tensor>); 5] {
        let Self { saved, initial, previous, collected, .. } = self;
        [
            (SAVED, saved),
            (INITIAL, initial),
            (PREVIOUS, previous),
            (GRADIENT, &collected.gradients),
            (SQUARES, &collected.squares),
        ]
    }

    fn tensors_mut(&mut self, kind: &str) -> Option<&mut BTreeMap<String, Tensor>> {
        match kind {
            SAVED => Some(&mut self.saved),
            INITIAL => Some(&mut self.initial),
            PREVIOUS => Some(&mut self.previous),
            GRADIENT => Some(&mut self.collected.gradients),
            SQUARES => Some(&mut self.collected.squares),
            _ => None,
        }
    }
}

impl Hook for Pruning<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> Result<(), BoxError> {
        Ok(self.handle(event, fit)?)
    }

    fn needs_dense_gradients(&self, iteration: usize) -> bool {
        self.config.regrowth == Regrowth::Free
            && self.needs_gradients()
            && (self.state.progress.cut_is_due || iteration >= self.last_cut_from)
    }

    fn save(&self) -> Result<HookState, BoxError> {
        let tensors = self.state.tensors().into_iter().flat_map(|(kind, tensors)| {
            tensors.iter().map(move |(name, tensor)| Ok((format!("{kind}/{name}"), tensor.copy()?)))
        });
        let length = self.plan.as_ref().map(|plan| Length {
            n_iterations: plan.length().iterations(),
            n_batches: plan.length().iterations_per_epoch() as usize,
        });
        let n_collected = self.state.collected.n_batches;
        let progress = Progress { n_collected, ..self.state.progress.clone() };
        let saved = Saved { config: identity::of(&self.config)?, length, progress };
        Ok(HookState { tensors: tensors.collect::<candle_core::Result<_>>()?, json: serde_json::to_value(saved)? })
    }

    fn load(&mut self, state: &HookState) -> Result<(), BoxError> {
        let saved: Saved = serde_json::from_value(state.json.clone())?;
        identity::check(&saved.config, &identity::of(&self.config)?)?;
        let mut loaded = State { progress: saved.progress, ..State::default() };
        loaded.collected.n_batches = loaded.progress.n_collected;
        for (key, tensor) in &state.tensors {
            let unknown = || Error::State(format!("it has a tensor `{key}`, which no hook of this kind keeps"));
            let (kind, name) = key.split_once('/').ok_or_else(unknown)?;
            loaded.tensors_mut(kind).ok_or_else(unknown)?.insert(name.to_owned(), tensor.copy()?);
        }
        (self.state, self.loaded, self.plan) = (loaded, saved.length, None);
        Ok(())
    }
}
