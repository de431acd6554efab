//! The loop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Once;
use std::time::{Duration, Instant};

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::evaluate::check_classes;
use crate::hook::put_in_force;
use crate::state::{Counters, Position};
use crate::{BoxError, Error, Event, Fit, Hook, HookState, Network, Optimizer, Pass, Role, State, evaluate};

/// Where a fit's batches come from. A batch is `(x, target)` with class indices `[N]`.
#[derive(Clone, Copy, Debug)]
pub struct Data<T, V> {
    /// Epoch of the run ([`FitConfig::first_epoch`] on) → its training batches.
    pub train: T,
    /// Training batches of every epoch; schedules over a fit need it beforehand.
    pub n_train_batches: usize,
    /// The validation batches.
    pub valid: V,
}

/// Takes a [`State`] to write it down.
pub type WriteState<'a> = dyn Fn(&State) -> Result<(), BoxError> + 'a;

/// How long and how fast.
#[derive(Clone, Copy)]
pub struct FitConfig<'a> {
    /// Epochs.
    pub n_epochs: usize,
    /// The epoch number that the data see in the fit's first epoch: fits that follow one another count on, so that they
    /// do not repeat an order of pictures; fits to be compared start with the same number.
    pub first_epoch: u64,
    /// Learning rate as a function of progress in [0, 1): steps taken / steps of the fit.
    pub learning_rate: &'a dyn Fn(f64) -> f64,
    /// Given the whole state after every epoch, to be written down by whoever wants to resume.
    pub checkpoint: Option<&'a WriteState<'a>>,
}

impl FitConfig<'_> {
    /// fastai's `fit(n)`: constant learning rate 1e-3.
    pub fn new(n_epochs: usize) -> Self {
        Self { n_epochs, first_epoch: 0, learning_rate: &|_| 1e-3, checkpoint: None }
    }
}

/// What an epoch gave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochMetrics {
    /// Epoch of the fit, from 0.
    pub epoch: usize,
    /// Smoothed training loss at its end (exponential mean over the fit, beta 0.98, bias-corrected).
    pub train_loss: f64,
    /// Mean validation loss.
    pub valid_loss: f64,
    /// Validation accuracy in [0, 1].
    pub accuracy: f64,
    /// Wall time of training, hooks included, validation not.
    pub train_time: Duration,
    /// Wall time of validation.
    pub valid_time: Duration,
    /// The part of `train_time` spent waiting for training batches.
    pub data_time: Duration,
}

/// A network, its optimiser and the masks in force, through one or several fits.
#[derive(Debug)]
pub struct Trainer<N> {
    network: N,
    optimizer: Optimizer,
    masks: BTreeMap<String, Tensor>,
    seed: u64,
    step: u64,
    position: Option<Position>,
    hook_states: BTreeMap<String, HookState>,
    may_lack_gradient: BTreeSet<String>,
    may_be_unseeded: bool,
}

impl<N: Network> Trainer<N> {
    /// A trainer that has taken no step.
    pub fn new(network: N, optimizer: Optimizer, seed: u64) -> Self {
        Self {
            network,
            optimizer,
            masks: BTreeMap::new(),
            seed,
            step: 0,
            position: None,
            hook_states: BTreeMap::new(),
            may_lack_gradient: BTreeSet::new(),
            may_be_unseeded: false,
        }
    }

    /// Names trainable parameters that may have no gradient, or one of zeros, in a fit's first step. All others must have
    /// one: without it they would never move, and nobody would be told.
    pub fn allow_no_gradient(&mut self, names: impl IntoIterator<Item = impl Into<String>>) {
        self.may_lack_gradient = names.into_iter().map(Into::into).collect();
    }

    /// Accepts a network whose passes draw noise of their own, such as candle's dropout. Nothing of such a fit comes out
    /// the same again: not its result for a seed, and not what a resumed fit ends with.
    pub fn allow_unseeded(&mut self) {
        self.may_be_unseeded = true;
    }

    /// The network.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// Gives the network back.
    pub fn into_network(self) -> N {
        self.network
    }

    /// The optimiser.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The optimiser, to reset it between fits.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// The masks in force.
    pub fn masks(&self) -> &BTreeMap<String, Tensor> {
        &self.masks
    }

    /// Optimiser steps taken so far in the run; dropout noise is keyed by it.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Sets the step that the next noise is keyed by: runs to be compared start alike.
    pub fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    /// Replaces the masks and zeroes the pruned weights; an empty map makes the network dense (zeros stay zeros until
    /// they are trained).
    /// # Errors  if a mask does not fit its parameter; the old masks then stay in force.
    pub fn set_masks(&mut self, masks: BTreeMap<String, Tensor>) -> Result<(), Error> {
        self.masks = put_in_force(&mut self.network, masks)?;
        Ok(())
    }

    /// Trains for `config.n_epochs` epochs, or, after [`Trainer::restore`] from inside a fit, for those that were left.
    /// Returns the figures of all epochs of the fit.
    ///
    /// The first batch goes through the network twice: two passes with one seed must give the same bits. After the first
    /// backward pass every trainable parameter must have a gradient: candle operators without a backward pass end the
    /// graph silently.
    /// # Errors
    /// [`Error::Unseeded`], [`Error::Task`], [`Error::NoGradient`], [`Error::LossNotFinite`], [`Error::NoBatches`],
    /// [`Error::BatchCount`], [`Error::HookName`], or what data, hooks and candle say.
    pub fn fit<E, T, V, TI, VI>(
        &mut self,
        config: &FitConfig<'_>,
        data: &Data<T, V>,
        hooks: &mut [&mut dyn Hook],
    ) -> Result<Vec<EpochMetrics>, Error>
    where
        E: Into<BoxError>,
        T: Fn(u64) -> TI,
        V: Fn() -> VI,
        TI: Iterator<Item = Result<(Tensor, Tensor), E>>,
        VI: Iterator<Item = Result<(Tensor, Tensor), E>>,
    {
        let n_batches = data.n_train_batches;
        if n_batches == 0 {
            return Err(Error::NoBatches {
                what: "the training set",
                hint: "it needs at least one full batch: give it more examples or a smaller batch size",
            });
        }
        // Asked now, not after an epoch whose figures would be lost.
        if (data.valid)().next().is_none() {
            return Err(Error::NoBatches { what: "the validation set", hint: "give it at least one example" });
        }
        let hook_names: Vec<String> = hooks.iter().map(|hook| hook.name().to_owned()).collect();
        if let Some(name) = hook_names.iter().find(|name| is_twice(&hook_names, name)) {
            return Err(Error::HookName { name: name.clone() });
        }
        warn_of_slow_kernels();
        let start = Position {
            n_epochs: config.n_epochs,
            n_batches,
            first_epoch: config.first_epoch,
            trainable: self.network.parameters().trainable().map(|(name, _)| name.to_owned()).collect(),
            ..Position::default()
        };
        if let Some(at) = &self.position {
            at.check_same_fit(&start)?;
        }
        let states = std::mem::take(&mut self.hook_states);
        for hook in hooks.iter_mut() {
            if let Some(state) = states.get(hook.name()) {
                hook.load(state).map_err(|source| Error::Hook { hook: hook.name().to_owned(), source })?;
            }
        }
        let is_start = self.position.is_none();
        let at = self.position.take().unwrap_or(start);
        let mut run = Run { at, loss: None, is_first_step: true, hook_names };
        if is_start {
            run.announce(self, Event::FitStart, 0, hooks)?;
        }
        for epoch in run.at.history.len()..config.n_epochs {
            let start = Instant::now();
            let mut data_time = Duration::ZERO;
            run.announce(self, Event::EpochStart, epoch * n_batches, hooks)?;
            let mut batches = (data.train)(config.first_epoch + epoch as u64);
            let mut n_done = 0;
            loop {
                let waiting = Instant::now();
                let batch = batches.next();
                data_time += waiting.elapsed();
                let Some(batch) = batch else { break };
                let batch = batch.map_err(|error| Error::Data(error.into()))?;
                if n_done == n_batches {
                    return Err(Error::BatchCount { epoch, got: n_done + 1, expected: n_batches });
                }
                self.train_batch(&batch, epoch * n_batches + n_done, config, &mut run, hooks)?;
                n_done += 1;
            }
            drop(batches);
            if n_done != n_batches {
                return Err(Error::BatchCount { epoch, got: n_done, expected: n_batches });
            }
            let train_time = start.elapsed();
            let start = Instant::now();
            run.announce(self, Event::BeforeValidation, (epoch + 1) * n_batches, hooks)?;
            let evaluation = evaluate(&self.network, (data.valid)())?;
            run.at.history.push(EpochMetrics {
                epoch,
                train_loss: run.at.smooth.corrected().unwrap_or(f64::NAN),
                valid_loss: evaluation.loss,
                accuracy: evaluation.accuracy,
                train_time,
                valid_time: start.elapsed(),
                data_time,
            });
            run.announce(self, Event::EpochEnd, (epoch + 1) * n_batches, hooks)?;
            if let Some(checkpoint) = config.checkpoint {
                checkpoint(&self.checkpoint(&run, hooks)?).map_err(Error::Checkpoint)?;
            }
        }
        run.announce(self, Event::FitEnd, config.n_epochs * n_batches, hooks)?;
        Ok(run.at.history)
    }

    fn train_batch(
        &mut self,
        (x, target): &(Tensor, Tensor),
        iteration: usize,
        config: &FitConfig<'_>,
        run: &mut Run,
        hooks: &mut [&mut dyn Hook],
    ) -> Result<(), Error> {
        run.announce(self, Event::BeforeBatch, iteration, hooks)?;
        let pass = Pass::train(self.seed, self.step);
        let rehearsed = (run.is_first_step && !self.may_be_unseeded).then(|| self.rehearse(x, &pass)).transpose()?;
        let logits = self.network.forward(x, &pass)?;
        if let Some(rehearsed) = rehearsed {
            check_same(&rehearsed, &logits)?;
        }
        check_classes(&logits, target)?;
        let loss = lth_kernels::cross_entropy(&logits, target)?;
        let value = loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        if !value.is_finite() {
            let (epoch, batch) = (iteration / run.at.n_batches, iteration % run.at.n_batches);
            return Err(Error::LossNotFinite { loss: value, epoch, batch });
        }
        run.at.smooth.push(value);
        run.loss = Some(value);
        let mut gradients = lth_kernels::backward(&loss)?;
        drop((logits, loss));
        if std::mem::take(&mut run.is_first_step) {
            self.check_gradients_reach(&gradients)?;
        }
        run.announce_with(self, Event::BeforeStep, iteration, Some(&mut gradients), hooks)?;
        let progress = iteration as f64 / (run.at.n_epochs * run.at.n_batches) as f64;
        self.optimizer.step((config.learning_rate)(progress), self.network.parameters(), &gradients, &self.masks)?;
        drop(gradients);
        self.step += 1;
        run.announce(self, Event::AfterStep, iteration, hooks)?;
        run.loss = None;
        Ok(())
    }

    /// The output of a pass that leaves buffers such as running statistics as they were.
    fn rehearse(&self, x: &Tensor, pass: &Pass) -> Result<Tensor, Error> {
        let buffers = self.network.parameters().snapshot(|_, parameter| parameter.role() == Role::Buffer)?;
        let y = self.network.forward(x, pass)?.detach();
        self.network.parameters().restore(&buffers)?;
        Ok(y)
    }

    /// # Errors
    /// [`Error::NoGradient`] if a trainable parameter with anything left to train has no gradient, or one of zeros.
    fn check_gradients_reach(&self, gradients: &GradStore) -> Result<(), Error> {
        let parameters = self.network.parameters();
        let mut names = Vec::new();
        for (name, parameter) in parameters.trainable() {
            let is_pruned_whole = match self.masks.get(name) {
                Some(mask) => !any(mask)?,
                None => false,
            };
            if is_pruned_whole || self.may_lack_gradient.contains(name) || parameter.var().elem_count() == 0 {
                continue;
            }
            match gradients.get(parameter.var()) {
                Some(gradient) if any(gradient)? => {}
                _ => names.push(name.to_owned()),
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        Err(Error::NoGradient { names, n_trainable: parameters.trainable().count() })
    }

    /// All that a later run needs to go on from here, between two fits. For states inside a fit see
    /// [`FitConfig::checkpoint`].
    /// # Errors  if a tensor cannot be copied.
    pub fn state(&self) -> Result<State, Error> {
        let masks = self.masks.iter().map(|(name, mask)| Ok((name.clone(), mask.copy()?)));
        Ok(State {
            parameters: self.network.parameters().snapshot(|_, _| true)?,
            masks: masks.collect::<Result<_, candle_core::Error>>()?,
            optimizer: self.optimizer.tensors()?,
            hooks: self.hook_states.clone(),
            counters: Counters {
                seed: self.seed,
                step: self.step,
                optimizer: self.optimizer.config(),
                optimizer_steps: self.optimizer.n_steps(),
                position: self.position.clone(),
            },
        })
    }

    /// Takes up a [`State`]. If it is from inside a fit, the next [`Trainer::fit`] goes on with the epoch that was next
    /// (give it the same configuration, data and hooks) and ends with the same bits as if it had not been interrupted. A
    /// fit of another length or with other frozen parameters is refused there.
    /// # Errors  if parameters or averages do not fit this network and optimiser.
    pub fn restore(&mut self, state: &State) -> Result<(), Error> {
        let counters = &state.counters;
        if counters.optimizer != self.optimizer.config() {
            let (got, expected) = (counters.optimizer, self.optimizer.config());
            return Err(Error::State(format!("its optimiser is {got:?}, this trainer's is {expected:?}")));
        }
        if let Some(name) = self.network.parameters().names().find(|name| !state.parameters.contains_key(*name)) {
            return Err(Error::State(format!("it lacks parameter `{name}`")));
        }
        self.network.parameters().restore(&state.parameters)?;
        self.optimizer.restore(counters.optimizer_steps, &state.optimizer, self.network.parameters())?;
        self.set_masks(state.masks.clone())?;
        (self.seed, self.step) = (counters.seed, counters.step);
        self.position.clone_from(&counters.position);
        self.hook_states.clone_from(&state.hooks);
        Ok(())
    }

    fn checkpoint(&self, run: &Run, hooks: &[&mut dyn Hook]) -> Result<State, Error> {
        let mut state = self.state()?;
        state.counters.position = Some(run.at.clone());
        for hook in hooks {
            let saved = hook.save().map_err(|source| Error::Hook { hook: hook.name().to_owned(), source })?;
            state.hooks.insert(hook.name().to_owned(), saved);
        }
        Ok(state)
    }
}

/// Once in a process, where it is so.
fn warn_of_slow_kernels() {
    static ONCE: Once = Once::new();
    if !lth_kernels::IS_OPTIMISED {
        ONCE.call_once(|| {
            tracing::warn!(
                "the kernels were compiled without optimisation and are many times slower: put `opt-level = 3` under \
                 `[profile.dev.package.\"*\"]` in Cargo.toml, or use --release"
            );
        });
    }
}

/// # Errors
/// [`Error::Unseeded`] if the two have other bits.
fn check_same(first: &Tensor, second: &Tensor) -> Result<(), Error> {
    let values = |y: &Tensor| y.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1::<f64>();
    let (first, second) = (values(first)?, values(second)?);
    let pairs = || first.iter().zip(&second);
    if first.len() == second.len() && pairs().all(|(first, second)| first.to_bits() == second.to_bits()) {
        return Ok(());
    }
    Err(Error::Unseeded { difference: pairs().map(|(first, second)| (first - second).abs()).fold(0.0, f64::max) })
}

/// Whether any element is not 0 (NaN is not).
fn any(tensor: &Tensor) -> candle_core::Result<bool> {
    Ok(tensor.ne(0.0)?.max_all()?.to_scalar::<u8>()? != 0)
}

/// What a running fit keeps besides the trainer.
struct Run {
    at: Position,
    loss: Option<f64>,
    is_first_step: bool,
    hook_names: Vec<String>,
}

fn is_twice(names: &[String], name: &str) -> bool {
    names.iter().filter(|other| *other == name).count() > 1
}

impl Run {
    fn announce<N: Network>(
        &self,
        trainer: &mut Trainer<N>,
        event: Event,
        iteration: usize,
        hooks: &mut [&mut dyn Hook],
    ) -> Result<(), Error> {
        self.announce_with(trainer, event, iteration, None, hooks)
    }

    fn announce_with<N: Network>(
        &self,
        trainer: &mut Trainer<N>,
        event: Event,
        iteration: usize,
        gradients: Option<&mut GradStore>,
        hooks: &mut [&mut dyn Hook],
    ) -> Result<(), Error> {
        let epoch = match event {
            // The iteration is already the next epoch's.
            Event::BeforeValidation | Event::EpochEnd | Event::FitEnd => {
                (iteration / self.at.n_batches).saturating_sub(1)
            }
            _ => iteration / self.at.n_batches,
        };
        let mut fit = Fit {
            network: &mut trainer.network,
            masks: &mut trainer.masks,
            gradients,
            history: &self.at.history,
            loss: self.loss,
            smoothed_loss: self.at.smooth.corrected(),
            seed: trainer.seed,
            epoch,
            n_epochs: self.at.n_epochs,
            iteration,
            n_batches: self.at.n_batches,
            hook_names: &self.hook_names,
        };
        for hook in hooks.iter_mut() {
            hook.on(event, &mut fit).map_err(|source| Error::Hook { hook: hook.name().to_owned(), source })?;
        }
        Ok(())
    }
}
