//! The loop.

use std::collections::BTreeMap;
use std::sync::Once;
use std::time::{Duration, Instant};

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use lth_kernels::Gradients;

use crate::double;
use crate::hook::{Requests, check_finite};
use crate::parameters::first_not_finite;
use crate::state::Position;
use crate::{
    BoxError, Classification, Data, End, Error, Evaluation, Event, Fit, FitConfig, FitSpan, Fitted, Hook, Network,
    Pass, Record, Role, Task, Trainer, Validate, evaluate,
};

/// Training takes so many times as long as the states that are written of it.
const CHECKPOINT_SHARE: u32 = 100;

impl<N: Network> Trainer<N> {
    /// Trains a classifier over `config`'s span, or, after an interruption or [`Trainer::restore`] from inside a fit, over
    /// what was left of it: [`Trainer::fit_task`] with [`Classification`], on batches `(x, target)` with class indices.
    /// # Errors
    /// As [`Trainer::fit_task`].
    pub fn fit<E, T, V, TI, VI>(
        &mut self,
        config: &FitConfig<'_>,
        data: &Data<T, V>,
        hooks: &mut [&mut dyn Hook],
    ) -> Result<Fitted, Error>
    where
        E: Into<BoxError>,
        T: Fn(u64) -> TI,
        V: Fn() -> VI,
        TI: Iterator<Item = Result<(Tensor, Tensor), E>>,
        VI: Iterator<Item = Result<(Tensor, Tensor), E>>,
    {
        self.fit_task(&Classification::default(), config, data, hooks)
    }

    /// Trains for any [`Task`] over `config`'s span, or, after an interruption or [`Trainer::restore`] from inside a fit,
    /// over what was left of it.
    ///
    /// The first batch goes through the network twice: two passes with one seed must give the same bits. After the first
    /// backward pass every trainable parameter must have a gradient: candle operators without a backward pass end the
    /// graph silently.
    /// # Errors
    /// [`Error::Setting`], [`Error::Unseeded`], [`Error::Task`], [`Error::NoGradient`], [`Error::LossNotFinite`], [`Error::NotFinite`],
    /// [`Error::NoBatches`], [`Error::BatchCount`], [`Error::HookName`], or what data, hooks and candle say.
    pub fn fit_task<B, E, T, V, TI, VI>(
        &mut self,
        task: &dyn Task<N, B>,
        config: &FitConfig<'_>,
        data: &Data<T, V>,
        hooks: &mut [&mut dyn Hook],
    ) -> Result<Fitted, Error>
    where
        E: Into<BoxError>,
        T: Fn(u64) -> TI,
        V: Fn() -> VI,
        TI: Iterator<Item = Result<B, E>>,
        VI: Iterator<Item = Result<B, E>>,
    {
        let called = Instant::now();
        let n_batches = data.n_train_batches;
        if n_batches == 0 {
            return Err(Error::NoBatches {
                what: "the training set",
                hint: "it needs at least one full batch: give it more examples or a smaller batch size",
            });
        }
        // Asked now, not after an epoch whose figures would be lost.
        if config.validate != Validate::Never && (data.valid)().next().is_none() {
            let hint = "give it at least one example, or let the fit not validate (Validate::Never)";
            return Err(Error::NoBatches { what: "the validation set", hint });
        }
        let (mut run, is_start) = self.begin(config, n_batches, hooks)?;
        if is_start {
            run.announce(self, Event::FitStart, hooks)?;
        }
        let mut batches = None;
        let (mut last_checkpoint, mut took) = (called, Duration::ZERO);
        let end = loop {
            if let Some((by, reason)) = run.requests.stop.take() {
                break End::Stopped { by, reason };
            }
            let (span, iteration) = (run.at.span, run.at.iteration);
            if iteration == span.to {
                break End::Done;
            }
            if span.begins_step(iteration) {
                if config.interrupted.is_some_and(|is_interrupted| is_interrupted()) {
                    break End::Interrupted;
                }
                if config.time_limit.is_some_and(|limit| called.elapsed() >= limit) {
                    break End::TimeLimit;
                }
            }
            // Of the validation just before, and of no other: a resumed fit would not know it.
            run.evaluation = None;
            let (epoch, within) = (span.epoch(iteration), iteration % n_batches);
            if within == 0 {
                run.announce(self, Event::EpochStart, hooks)?;
                if run.requests.stop.is_some() {
                    continue;
                }
            }
            let short = |got| Error::BatchCount { epoch, got, expected: n_batches };
            let batch = {
                let waiting = Instant::now();
                let source = match &mut batches {
                    Some(source) => source,
                    place @ None => {
                        let mut source = (data.train)(config.first_epoch + epoch as u64);
                        for n_passed in 0..within {
                            let passed = source.next().ok_or_else(|| short(n_passed))?;
                            drop(passed.map_err(|error| Error::Data(error.into()))?);
                        }
                        place.insert(source)
                    }
                };
                let batch = source.next().ok_or_else(|| short(within))?;
                run.at.data_time += waiting.elapsed();
                batch.map_err(|error| Error::Data(error.into()))?
            };
            if span.begins_step(iteration) {
                let rate = (config.learning_rate)(run.progress());
                run.requests.learning_rate = Some(check_finite("learning rate", rate)?);
            }
            run.announce(self, Event::BeforeBatch, hooks)?;
            if run.requests.stop.is_some() {
                continue;
            }
            self.train_batch(task, &batch, config, &mut run, hooks)?;
            drop(batch);
            run.at.iteration += 1;

            let iteration = run.at.iteration;
            let is_epochs_end = iteration.is_multiple_of(n_batches);
            if is_epochs_end && let Some(mut source) = batches.take() {
                let waiting = Instant::now();
                if source.next().is_some() {
                    return Err(short(n_batches + 1));
                }
                run.at.data_time += waiting.elapsed();
            }
            let validates = match config.validate {
                Validate::EachEpoch => is_epochs_end,
                Validate::Every(n) => iteration.is_multiple_of(n.get() as usize),
                Validate::Never => false,
            };
            if validates || is_epochs_end {
                run.pause();
                if validates {
                    run.validate(self, task, &data.valid, hooks)?;
                } else if config.validate == Validate::Never {
                    run.record();
                }
                if is_epochs_end {
                    run.announce(self, Event::EpochEnd, hooks)?;
                }
                run.clock = Instant::now();
            }
            let is_due = match config.checkpoint_every {
                Some(every) => {
                    run.at.span.begins_step(iteration)
                        && (every.is_zero() || last_checkpoint.elapsed() >= every.max(took * CHECKPOINT_SHARE))
                }
                None => is_epochs_end,
            };
            // A fit that a hook has stopped would not know that of a state.
            if is_due && config.checkpoint.is_some() && run.requests.stop.is_none() {
                run.pause();
                let begun = Instant::now();
                self.write_checkpoint(config, &run, hooks)?;
                last_checkpoint = Instant::now();
                took = last_checkpoint - begun;
                tracing::debug!("a checkpoint took {:.1} ms", 1e3 * took.as_secs_f64());
                run.clock = last_checkpoint;
            }
        };
        drop(batches);
        run.pause();
        let reached = run.at.span.step(run.at.iteration);
        if matches!(end, End::Interrupted | End::TimeLimit) {
            self.write_checkpoint(config, &run, hooks)?;
            // The hooks themselves may be there for the rest of the fit; those that can be saved need not.
            let states = hooks.iter().filter_map(|hook| Some((hook.name().to_owned(), hook.save().ok()?)));
            (self.position, self.hook_states) = (Some(run.at.clone()), states.collect());
        } else {
            let is_recorded = run.at.history.last().map_or(run.at.span.from, |record| record.iteration);
            if is_recorded != run.at.iteration {
                match config.validate {
                    Validate::Never => run.record(),
                    _ => run.validate(self, task, &data.valid, hooks)?,
                }
            }
            run.announce(self, Event::FitEnd, hooks)?;
        }
        Ok(Fitted { history: run.at.history, end, reached, n_skipped: run.at.n_skipped })
    }

    /// Checks everything that can be checked before the first batch; takes up the states of hooks after a resume. Whether
    /// the fit is at its start comes back, too.
    fn begin(
        &mut self,
        config: &FitConfig<'_>,
        n_batches: usize,
        hooks: &mut [&mut dyn Hook],
    ) -> Result<(Run, bool), Error> {
        let hook_names: Vec<String> = hooks.iter().map(|hook| hook.name().to_owned()).collect();
        if let Some(name) = hook_names.iter().find(|name| is_twice(&hook_names, name)) {
            return Err(Error::HookName { name: name.clone() });
        }
        if let Some(clip) = config.clip {
            clip.check()?;
        }
        let span = FitSpan::new(config, n_batches)?;
        warn_of_slow_kernels();
        let start = Position {
            span,
            iteration: span.from,
            first_epoch: config.first_epoch,
            validate: config.validate,
            clip: config.clip,
            trainable: self.network.parameters().trainable().map(|(name, _)| name.to_owned()).collect(),
            ..Position::default()
        };
        if let Some(at) = &self.position {
            at.check_same_fit(&start)?;
        }
        if config.checkpoint.is_some() {
            // What cannot be saved is found now, not with the first state.
            saved_states(hooks)?;
        }
        let states = std::mem::take(&mut self.hook_states);
        if std::mem::take(&mut self.is_restored) && self.position.is_some() {
            check_same_hooks(&states, &hook_names)?;
        }
        for hook in hooks.iter_mut() {
            if let Some(state) = states.get(hook.name()) {
                hook.load(state).map_err(|source| Error::Hook { hook: hook.name().to_owned(), source })?;
            }
        }
        let is_start = self.position.is_none();
        let at = self.position.take().unwrap_or(start);
        let run = Run {
            requests: Requests::default(),
            at,
            loss: None,
            // A resumed fit has been looked at: in the midst of training a gradient may be 0 for a batch.
            is_first_batch: is_start,
            sums: BTreeMap::new(),
            losses: 0.0,
            evaluation: None,
            hook_names,
            clock: Instant::now(),
        };
        Ok((run, is_start))
    }

    /// A batch's gradients and, after the last batch of a step, the step.
    fn train_batch<B>(
        &mut self,
        task: &dyn Task<N, B>,
        batch: &B,
        config: &FitConfig<'_>,
        run: &mut Run,
        hooks: &mut [&mut dyn Hook],
    ) -> Result<(), Error> {
        let (span, iteration) = (run.at.span, run.at.iteration);
        let dense_gradients = hooks.iter().any(|hook| hook.needs_dense_gradients(iteration));
        // Noise is keyed by the batch's place in the run, not by a count: a fit that begins later draws the same.
        let step = run.at.first_epoch.wrapping_mul(span.n_batches as u64).wrapping_add(iteration as u64);
        let pass = Pass { dense_gradients, ..Pass::train(self.seed, step) };
        let rehearsed = match run.is_first_batch && !self.may_be_unseeded {
            true => Some(self.rehearse(task, batch, &pass)?),
            false => None,
        };
        let loss = task.loss(&self.network, batch, &pass)?;
        let value = scalar(&loss)?;
        if let Some(rehearsed) = rehearsed
            && rehearsed.to_bits() != value.to_bits()
        {
            return Err(Error::Unseeded { difference: (rehearsed - value).abs() });
        }
        if !value.is_finite() {
            let parameter = first_not_finite(self.network.parameters())?;
            return Err(Error::LossNotFinite { loss: value, step: span.step(iteration), parameter });
        }
        if run.is_first_batch
            && let Some(shape) = lth_kernels::foreign_operator(&loss)
        {
            tracing::debug!(
                "the backward pass is candle's, which takes longer: an operator that is not of lth-kernels gave {shape:?}"
            );
        }
        let mut gradients = lth_kernels::backward_kept(&loss)?;
        drop(loss);
        if std::mem::take(&mut run.is_first_batch) {
            self.check_gradients_reach(gradients.whole()?)?;
        }
        let (n, is_last) = span.step_of(iteration);
        run.losses += value;
        if n > 1 {
            self.add_gradients(gradients.whole()?, &mut run.sums)?;
            if !is_last {
                return Ok(());
            }
            for (name, sum) in std::mem::take(&mut run.sums) {
                gradients.whole()?.insert(self.network.parameters().require(&name)?.var(), (sum / n as f64)?);
            }
        }
        let mean = std::mem::take(&mut run.losses) / n as f64;
        run.at.smooth.push(mean);
        run.loss = Some(mean);
        run.announce_with(self, Event::BeforeStep, Some(&mut gradients), hooks)?;
        if std::mem::take(&mut run.requests.skips_step) {
            run.at.n_skipped += 1;
        } else {
            self.step(config, run, &mut gradients)?;
        }
        drop(gradients);
        run.announce(self, Event::AfterStep, hooks)?;
        (run.loss, run.requests.learning_rate) = (None, None);
        Ok(())
    }

    fn step(&mut self, config: &FitConfig<'_>, run: &Run, gradients: &mut Gradients) -> Result<(), Error> {
        let parameters = self.network.parameters();
        if let Some(clip) = config.clip
            && let Some(parameter) = clip.apply(parameters, gradients.whole()?, &self.masks)?
        {
            return Err(Error::GradientNotFinite { parameter, step: run.at.span.step(run.at.iteration) });
        }
        let rate = run.requests.learning_rate.unwrap_or_default();
        let momentum = config.momentum.map(|momentum| momentum(run.progress()));
        if let Some(momentum) = momentum.filter(|momentum| !(0.0..1.0).contains(momentum)) {
            let (got, expected) = (momentum.to_string(), "a number in [0, 1)".to_owned());
            return Err(Error::Setting { what: "momentum", got, expected });
        }
        self.optimizer.step_kept(rate, momentum, parameters, gradients, &self.masks)
    }

    /// Adds the gradients of trainable parameters to sums by name.
    fn add_gradients(&self, gradients: &GradStore, sums: &mut BTreeMap<String, Tensor>) -> Result<(), Error> {
        for (name, parameter) in self.network.parameters().trainable() {
            let Some(gradient) = gradients.get(parameter.var()) else { continue };
            let sum = match sums.get(name) {
                Some(sum) => (sum + gradient)?,
                None => gradient.clone(),
            };
            sums.insert(name.to_owned(), sum.detach());
        }
        Ok(())
    }

    /// The loss of a pass that leaves buffers such as running statistics as they were.
    fn rehearse<B>(&self, task: &dyn Task<N, B>, batch: &B, pass: &Pass) -> Result<f64, Error> {
        let buffers = self.network.parameters().snapshot(|_, parameter| parameter.role() == Role::Buffer)?;
        let loss = scalar(&task.loss(&self.network, batch, pass)?)?;
        self.network.parameters().restore(&buffers)?;
        Ok(loss)
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

    fn write_checkpoint(&self, config: &FitConfig<'_>, run: &Run, hooks: &[&mut dyn Hook]) -> Result<(), Error> {
        let Some(checkpoint) = config.checkpoint else { return Ok(()) };
        let mut state = self.state()?;
        state.counters.position = Some(run.at.clone());
        state.hooks = saved_states(hooks)?;
        checkpoint(&state).map_err(Error::Checkpoint)
    }
}

fn saved_states(hooks: &[&mut dyn Hook]) -> Result<BTreeMap<String, crate::HookState>, Error> {
    let save = |hook: &&mut dyn Hook| {
        let name = hook.name().to_owned();
        let saved = hook.save().map_err(|source| Error::Hook { hook: name.clone(), source })?;
        Ok((name, saved))
    };
    hooks.iter().map(save).collect()
}

/// # Errors
/// [`Error::State`] if a state from a file lacks a hook of this fit, or has one that this fit lacks.
fn check_same_hooks(states: &BTreeMap<String, crate::HookState>, names: &[String]) -> Result<(), Error> {
    if let Some(name) = names.iter().find(|name| !states.contains_key(*name)) {
        return Err(Error::State(format!("its fit had no hook `{name}`, this one has")));
    }
    if let Some(name) = states.keys().find(|name| !names.contains(name)) {
        return Err(Error::State(format!("its fit had a hook `{name}`, this one has none")));
    }
    Ok(())
}

/// # Errors
/// [`Error::LossShape`] if it is none.
fn scalar(loss: &Tensor) -> Result<f64, Error> {
    if loss.rank() != 0 {
        return Err(Error::LossShape { got: loss.dims().to_vec() });
    }
    Ok(double::scalar(loss)?)
}

/// Once in a process, where it is so.
fn warn_of_slow_kernels() {
    static ONCE: Once = Once::new();
    if let Some(warning) = slow_kernels(lth_kernels::IS_OPTIMISED) {
        ONCE.call_once(|| tracing::warn!("{warning}"));
    }
}

fn slow_kernels(is_optimised: bool) -> Option<&'static str> {
    (!is_optimised).then_some(
        "the kernels were compiled without optimisation and are many times slower: put `opt-level = 3` under \
         `[profile.dev.package.\"*\"]` in Cargo.toml, or use --release",
    )
}

/// Whether any element is not 0 (NaN is not).
fn any(tensor: &Tensor) -> candle_core::Result<bool> {
    Ok(tensor.ne(0.0)?.max_all()?.to_scalar::<u8>()? != 0)
}

fn is_twice(names: &[String], name: &str) -> bool {
    names.iter().filter(|other| *other == name).count() > 1
}

/// What a running fit keeps besides the trainer.
struct Run {
    at: Position,
    /// Mean loss of the step at hand.
    loss: Option<f64>,
    is_first_batch: bool,
    /// Gradients and losses of a step's batches so far; never part of a state.
    sums: BTreeMap<String, Tensor>,
    losses: f64,
    evaluation: Option<Evaluation>,
    requests: Requests,
    hook_names: Vec<String>,
    /// When training went on after the last record or checkpoint.
    clock: Instant,
}

impl Run {
    /// Batches before the step at hand / batches of the whole training.
    fn progress(&self) -> f64 {
        let span = &self.at.span;
        let within = self.at.iteration % span.n_batches;
        let first = self.at.iteration - within % span.accumulate;
        first as f64 / span.length as f64
    }

    /// What follows is no training time.
    fn pause(&mut self) {
        self.at.train_time += self.clock.elapsed();
    }

    fn record(&mut self) {
        let valid = self.evaluation.as_ref();
        self.at.history.push(Record {
            iteration: self.at.iteration,
            epoch: self.at.span.epoch_before(self.at.iteration),
            train_loss: self.at.smooth.corrected().unwrap_or(f64::NAN),
            valid_loss: valid.map(|valid| valid.loss),
            metrics: valid.map(|valid| valid.metrics.clone()).unwrap_or_default(),
            train_time: std::mem::take(&mut self.at.train_time),
            valid_time: std::time::Duration::ZERO,
            data_time: std::mem::take(&mut self.at.data_time),
        });
    }

    fn validate<N: Network, B, E: Into<BoxError>, I: Iterator<Item = Result<B, E>>>(
        &mut self,
        trainer: &mut Trainer<N>,
        task: &dyn Task<N, B>,
        batches: &dyn Fn() -> I,
        hooks: &mut [&mut dyn Hook],
    ) -> Result<(), Error> {
        self.announce(trainer, Event::BeforeValidation, hooks)?;
        let start = Instant::now();
        let step = self.at.span.step(self.at.iteration);
        let not_finite = |what: String| Err(Error::NotFinite { what, step });
        // Before a whole pass over what a network that has diverged makes.
        if let Some(name) = first_not_finite(trainer.network.parameters())? {
            return not_finite(format!("parameter `{name}`"));
        }
        let evaluation = evaluate(&trainer.network, task, batches())?;
        if !evaluation.loss.is_finite() {
            return not_finite("the validation loss".to_owned());
        }
        if let Some((name, _)) = evaluation.metrics.iter().find(|(_, value)| !value.is_finite()) {
            return not_finite(format!("the validation's {name}"));
        }
        self.evaluation = Some(evaluation);
        self.record();
        if let Some(record) = self.at.history.last_mut() {
            record.valid_time = start.elapsed();
        }
        self.announce(trainer, Event::AfterValidation, hooks)
    }

    fn announce<N: Network>(
        &mut self,
        trainer: &mut Trainer<N>,
        event: Event,
        hooks: &mut [&mut dyn Hook],
    ) -> Result<(), Error> {
        self.announce_with(trainer, event, None, hooks)
    }

    fn announce_with<N: Network>(
        &mut self,
        trainer: &mut Trainer<N>,
        event: Event,
        gradients: Option<&mut Gradients>,
        hooks: &mut [&mut dyn Hook],
    ) -> Result<(), Error> {
        let iteration = self.at.iteration;
        let epoch = match event {
            // The iteration is already that of the next batch.
            Event::BeforeValidation | Event::AfterValidation | Event::EpochEnd | Event::FitEnd => {
                self.at.span.epoch_before(iteration)
            }
            _ => self.at.span.epoch(iteration),
        };
        let mut fit = Fit {
            network: &mut trainer.network,
            masks: &mut trainer.masks,
            optimizer: &mut trainer.optimizer,
            gradients,
            history: &self.at.history,
            evaluation: self.evaluation.as_ref(),
            loss: self.loss,
            smoothed_loss: self.at.smooth.corrected(),
            seed: trainer.seed,
            event,
            epoch,
            iteration,
            span: self.at.span,
            validates: self.at.validate != Validate::Never,
            hook_names: &self.hook_names,
            listener: 0,
            requests: &mut self.requests,
        };
        for (listener, hook) in hooks.iter_mut().enumerate() {
            fit.listener = listener;
            hook.on(event, &mut fit).map_err(|source| Error::Hook { hook: hook.name().to_owned(), source })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_without_optimisation_are_said_with_the_lines_to_copy() {
        assert_eq!(slow_kernels(true), None);
        let warning = slow_kernels(false).unwrap();
        assert!(warning.contains("[profile.dev.package.\"*\"]") && warning.contains("opt-level = 3"), "{warning}");
    }
}
