//! How long a fit is, how fast it goes, and what it gives.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use lth_schedule::Step;
use serde::{Deserialize, Serialize};

use crate::task::ACCURACY;
use crate::{BoxError, Clip, Error, State};

/// Where a fit's batches come from. A batch is whatever the fit's task takes; for [`Trainer::fit`](crate::Trainer::fit) it is
/// `(x, target)` with class indices `[N]`.
#[derive(Clone, Copy, Debug)]
pub struct Data<T, V> {
    /// Epoch of the data ([`FitConfig::first_epoch`] on) → its training batches.
    pub train: T,
    /// Training batches of every epoch; schedules over a training need it beforehand.
    pub n_train_batches: usize,
    /// The validation batches.
    pub valid: V,
}

/// Takes a [`State`] to write it down.
pub type WriteState<'a> = dyn Fn(&State) -> Result<(), BoxError> + 'a;

/// When a fit validates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validate {
    /// After every epoch, and at the end of a fit that ends inside one.
    #[default]
    EachEpoch,
    /// After every so many training batches, counted from the start of the training, and at the end of the fit.
    Every(NonZeroU32),
    /// Not at all; the history then has a record for each epoch without figures of a validation.
    Never,
}

/// Which part of a training a fit is, how fast it goes, and what may end it.
///
/// A fit is the span of a training from one [`Step`] to another. Everything in it is counted from the training's start: the
/// data's epochs and order, the learning rate, noise, validations, and what hooks see. Two fits over `0..k` and `k..T`
/// therefore end with the bits of one over `0..T`, wherever `k` lies.
///
/// ```
/// use lth_schedule::{LearningRate, Step, TrainingLength};
/// use lth_train::FitConfig;
///
/// // The first 500 batches of a training of 30 epochs with 92 batches each, by fastai's one-cycle schedule.
/// let plan = "one_cycle(0.01)".parse::<LearningRate>()?.plan(TrainingLength::new(30, 92)?)?;
/// let config = FitConfig {
///     length: Some(Step::epoch(30)),
///     learning_rate: &|progress| plan.rate(progress),
///     momentum: plan.momentum_curve(),
///     ..FitConfig::span(Step::START, "500it".parse()?)
/// };
/// # assert!(config.momentum.is_some());
/// # Ok::<(), lth_schedule::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct FitConfig<'a> {
    /// Where the fit begins. Inside an epoch the batches before it are taken from the data and left out.
    pub from: Step,
    /// Where it ends.
    pub to: Step,
    /// The end of the whole training, over which progress is measured; `None`: `to`.
    pub length: Option<Step>,
    /// The epoch number that the data and the noise see in the training's epoch 0: trainings that follow one another count
    /// on, so that they do not repeat an order of pictures; trainings to be compared start with the same number.
    pub first_epoch: u64,
    /// Learning rate as a function of progress in [0, 1): batches before the step / batches of the whole training.
    pub learning_rate: &'a dyn Fn(f64) -> f64,
    /// Momentum likewise (Adam's beta1, SGD's momentum), as one-cycle schedules have it; `None`: the optimiser's own.
    pub momentum: Option<&'a dyn Fn(f64) -> f64>,
    /// When to validate.
    pub validate: Validate,
    /// Limits gradients before each step.
    pub clip: Option<Clip>,
    /// Batches of a step: the optimiser moves by the mean of their gradients. Steps are counted within each epoch, whose last
    /// one has as many batches as are left. A fit cannot begin or end inside a step.
    pub accumulate: NonZeroU32,
    /// The fit ends with [`End::TimeLimit`] before the first step that begins this long after the call. The only setting by
    /// which a clock decides where a fit ends.
    pub time_limit: Option<Duration>,
    /// Asked before every batch that begins a step; where it says yes the fit ends with [`End::Interrupted`].
    pub interrupted: Option<&'a dyn Fn() -> bool>,
    /// Given the whole state now and then, and where the fit is interrupted or out of time, to be written down by whoever
    /// wants to resume (see [`Checkpoint`](crate::Checkpoint)). Every hook of such a fit must give its state
    /// ([`Hook::save`](crate::Hook::save)).
    pub checkpoint: Option<&'a WriteState<'a>>,
    /// Time between two states, at least, and so long that writing takes no more than a hundredth of the time; zero: every step,
    /// whatever it takes. `None`: the end of every epoch. It decides when states are written, and nothing else.
    pub checkpoint_every: Option<Duration>,
}

impl FitConfig<'_> {
    /// fastai's `fit(n)`: a whole training of `n_epochs` at a constant learning rate of 1e-3.
    pub fn new(n_epochs: usize) -> Self {
        Self::span(Step::START, Step::epoch(u32::try_from(n_epochs).unwrap_or(u32::MAX)))
    }

    /// The part of a training between two steps, for the rest as [`FitConfig::new`]. Where the training goes on behind `to`
    /// and its learning rate changes, set `length`, too.
    pub fn span(from: Step, to: Step) -> Self {
        Self {
            from,
            to,
            length: None,
            first_epoch: 0,
            learning_rate: &|_| 1e-3,
            momentum: None,
            validate: Validate::EachEpoch,
            clip: None,
            accumulate: NonZeroU32::MIN,
            time_limit: None,
            interrupted: None,
            checkpoint: None,
            checkpoint_every: None,
        }
    }
}

/// A fit's span in batches, checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitSpan {
    /// The first batch, counted from the start of the training.
    pub from: usize,
    /// The one after the last.
    pub to: usize,
    /// Batches of the whole training.
    pub length: usize,
    /// Batches of an epoch.
    pub n_batches: usize,
    /// Batches of an optimiser step.
    pub accumulate: usize,
}

impl FitSpan {
    /// # Errors
    /// [`Error::Setting`] if the steps are out of order, too many, or cut an optimiser step.
    pub(crate) fn new(config: &FitConfig<'_>, n_batches: usize) -> Result<Self, Error> {
        let per_epoch = u32::try_from(n_batches).map_err(|_| Error::Setting {
            what: "number of training batches of an epoch",
            got: n_batches.to_string(),
            expected: format!("at most {}", u32::MAX),
        })?;
        let count = |step: Step| usize::try_from(step.iterations(per_epoch)).unwrap_or(usize::MAX);
        let length_step = config.length.unwrap_or(config.to);
        let (from, to, length) = (count(config.from), count(config.to), count(length_step));
        let wrong = |what, got: Step, expected| Err(Error::Setting { what, got: got.to_string(), expected });
        if from > to {
            return wrong("start of the fit", config.from, format!("at most its end, {}", config.to));
        }
        if to > length {
            return wrong("end of the fit", config.to, format!("at most the length of the training, {length_step}"));
        }
        let accumulate = config.accumulate.get() as usize;
        for (what, step, at) in [("start of the fit", config.from, from), ("end of the fit", config.to, to)] {
            if !(at % n_batches).is_multiple_of(accumulate) {
                let expected = format!("a whole number of optimiser steps of {accumulate} batches into its epoch");
                return wrong(what, step, expected);
            }
        }
        Ok(Self { from, to, length, n_batches, accumulate })
    }

    /// The epoch that a batch is of.
    pub(crate) fn epoch(&self, iteration: usize) -> usize {
        iteration / self.n_batches.max(1)
    }

    /// The epoch that ends with, or is cut after, so many batches.
    pub(crate) fn epoch_before(&self, iteration: usize) -> usize {
        self.epoch(iteration.saturating_sub(1))
    }

    /// Whether an optimiser step begins with this batch.
    pub fn begins_step(&self, iteration: usize) -> bool {
        (iteration % self.n_batches.max(1)).is_multiple_of(self.accumulate)
    }

    /// How many batches the step has that this batch is of, and whether it is the last.
    pub(crate) fn step_of(&self, iteration: usize) -> (usize, bool) {
        let within = iteration % self.n_batches;
        let first = within - within % self.accumulate;
        let n = self.accumulate.min(self.n_batches - first);
        (n, within + 1 == first + n)
    }

    /// A number of batches as a step.
    pub(crate) fn step(&self, iteration: usize) -> Step {
        let per_epoch = self.n_batches.max(1);
        let fits = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Step { epoch: fits(iteration / per_epoch), iteration: fits(iteration % per_epoch) }
    }
}

impl fmt::Display for FitSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, length, n_batches, accumulate } = *self;
        write!(
            f,
            "{}..{} of {} with epochs of {n_batches} batches",
            self.step(from),
            self.step(to),
            self.step(length)
        )?;
        if accumulate > 1 { write!(f, ", {accumulate} a step") } else { Ok(()) }
    }
}

/// What a validation gave; without validation, what an epoch gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Training batches since the start of the training.
    pub iteration: usize,
    /// The epoch of the training, from 0, that the last of them is of.
    pub epoch: usize,
    /// Smoothed training loss (exponential mean over the fit's steps, beta 0.98, bias-corrected).
    pub train_loss: f64,
    /// Mean validation loss; `None` without validation.
    pub valid_loss: Option<f64>,
    /// The task's metrics on the validation data, by name; empty without validation.
    pub metrics: BTreeMap<String, f64>,
    /// Wall time of training since the last record, hooks included, validation not.
    pub train_time: Duration,
    /// Wall time of the validation.
    pub valid_time: Duration,
    /// The part of `train_time` spent waiting for training batches.
    pub data_time: Duration,
}

impl Record {
    /// Validation accuracy in [0, 1]; `None` without validation or if the task has no such metric.
    pub fn accuracy(&self) -> Option<f64> {
        self.metrics.get(ACCURACY).copied()
    }
}

/// Why a fit ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It came to its end.
    Done,
    /// A hook ended it.
    Stopped {
        /// The hook's name.
        by: String,
        /// What it said.
        reason: String,
    },
    /// Its time was over. Nothing is lost: the next fit of the same configuration goes on from here.
    TimeLimit,
    /// [`FitConfig::interrupted`] said yes. Nothing is lost, as with `TimeLimit`.
    Interrupted,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Stopped { by, reason } => write!(f, "stopped by {by}: {reason}"),
            Self::TimeLimit => f.write_str("out of time"),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// What a fit gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// A record for each validation (without validation, for each epoch), those of before a resume included. Unless the fit
    /// was interrupted or out of time, the last is of its end.
    pub history: Vec<Record>,
    /// Why it ended.
    pub end: End,
    /// Where it ended.
    pub reached: Step,
    /// Optimiser steps that hooks skipped.
    pub n_skipped: u64,
}

impl Fitted {
    /// The record of least validation loss, the first of equal ones: the early-stop step of Frankle & Carbin 2019, §2.
    pub fn best(&self) -> Option<&Record> {
        let with_loss = self.history.iter().filter_map(|record| Some((record, record.valid_loss?)));
        with_loss
            .filter(|(_, loss)| !loss.is_nan())
            .reduce(|best, next| if next.1 < best.1 { next } else { best })
            .map(|(record, _)| record)
    }

    /// The last record.
    pub fn last(&self) -> Option<&Record> {
        self.history.last()
    }
}
