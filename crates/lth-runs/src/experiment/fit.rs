//! What is written down about one fit.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Address;
use crate::Error;
use crate::record::{FileRecord, LayerRecord, not_a_fraction};
use crate::statistics::Hits;

/// The figures at one moment of a fit: after an epoch, or after a validation in between. Also one line of `metrics.jsonl`.
///
/// Metrics have names of their own (`accuracy`, a fraction in [0, 1], is one of a classification); times are in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// Batches from the start of the training, those before the fit's own first one too.
    pub step: u64,
    /// The same in epochs.
    pub epoch: f64,
    /// Training loss as the trainer reports it (fastai: exponential mean of batch losses).
    pub train_loss: f64,
    /// Mean loss over the validation set; absent if there was no validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_loss: Option<f64>,
    /// Means over the validation set by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// Seconds of training since the measurement before, without validation.
    pub seconds: f64,
    /// Seconds of validation.
    pub valid_seconds: f64,
    /// Pruned / prunable at this moment.
    pub sparsity: f64,
}

/// Figures of a network on a part of the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluated {
    /// Which part.
    pub on: Part,
    /// Mean loss.
    pub loss: f64,
    /// Means by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
    /// Number of examples.
    pub n_examples: u64,
    /// Which examples were right, in the order of the data; absent where the task knows no right and wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<Hits>,
}

/// A part of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// It may have chosen something: a step, a setting.
    Validation,
    /// It chose nothing.
    Test,
}

/// How a fit ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how", deny_unknown_fields)]
pub enum Ending {
    /// It took all its steps.
    Done,
    /// A hook ended it.
    Stopped {
        /// Why.
        reason: String,
    },
    /// It could not go on: this arm of this seed ends here.
    Failed {
        /// What went wrong, with the step and the layer where they are known.
        reason: String,
    },
}

/// One fit: what was trained from what, and how it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitRecord {
    /// Which fit it is.
    pub address: Address,
    /// SHA-256 of the fit's plan and of all that it rests on: a record with another one is of another experiment.
    pub plan: String,
    /// The fit whose weights it started from; absent for initial weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_from: Option<Address>,
    /// The fits besides whose work its mask needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask_from: Vec<Address>,
    /// What it starts from and prunes, in words.
    pub description: String,
    /// The sparsity that its level asks for; `layers` has what was reached.
    pub sparsity: f64,
    /// The step that its training began at, and the one that it should end at.
    pub span: (u64, u64),
    /// How it ended.
    pub ending: Ending,
    /// In order of time.
    pub history: Vec<Measurement>,
    /// At the end of the training: on the test set, or on the validation set where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_end: Option<Evaluated>,
    /// On the test set, with the weights of the step of least validation loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_best: Option<Evaluated>,
    /// The prunable layers at the end, in the order of their names.
    pub layers: Vec<LayerRecord>,
    /// What it left, by what it is: "ticket", "trained".
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, FileRecord>,
    /// Seconds that went into what is no training: pruning, rewinding, saving, testing.
    pub overhead_seconds: f64,
    /// Of these the seconds of testing: of `at_end` and `at_best`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_seconds: Option<f64>,
    /// Seconds that training waited for data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
    /// The process's peak resident memory at the end of the fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

impl FitRecord {
    /// Zeros / weights over all prunable layers, as counted; `None` without layers.
    pub fn measured_sparsity(&self) -> Option<f64> {
        (!self.layers.is_empty()).then(|| LayerRecord::total("", &self.layers).sparsity())
    }

    /// Seconds of training, without validation.
    pub fn seconds(&self) -> f64 {
        self.history.iter().map(|at| at.seconds).sum()
    }

    /// Seconds of all that its network needed of this fit: training, pruning, rewinding and saving. Validation and testing,
    /// which measure, are left out.
    pub fn working_seconds(&self) -> f64 {
        self.seconds() + (self.overhead_seconds - self.test_seconds.unwrap_or(0.0)).max(0.0)
    }

    /// Steps that it took.
    pub fn n_steps(&self) -> u64 {
        self.history.last().map_or(0, |last| last.step.saturating_sub(self.span.0))
    }

    /// The measurement of least validation loss, the earliest of equal ones: the paper's early-stopping step.
    ///
    /// Source: Frankle & Carbin 2019, §2.
    pub fn best(&self) -> Option<&Measurement> {
        let mut best: Option<(&Measurement, f64)> = None;
        for at in &self.history {
            if let Some(loss) = at.valid_loss
                && best.is_none_or(|(_, least)| loss < least)
            {
                best = Some((at, loss));
            }
        }
        best.map(|(at, _)| at)
    }

    /// The named metric at the end: on the test set if there is one, or else on the validation set.
    pub fn metric(&self, name: &str) -> Option<f64> {
        match &self.at_end {
            Some(evaluated) => evaluated.metrics.get(name).copied(),
            None => self.history.iter().rev().find(|at| at.valid_loss.is_some())?.metrics.get(name).copied(),
        }
    }

    /// The named metric at the step of least validation loss: on the test set if that was measured.
    pub fn metric_at_best(&self, name: &str) -> Option<f64> {
        match &self.at_best {
            Some(evaluated) => evaluated.metrics.get(name).copied(),
            None => self.best()?.metrics.get(name).copied(),
        }
    }

    /// Whether it went to its end, or to where a hook stopped it.
    pub fn is_whole(&self) -> bool {
        !matches!(self.ending, Ending::Failed { .. })
    }

    /// Checks that the record makes sense by itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number that is not finite or out of range, measurements out of order, more zeros than
    /// weights, a checksum that is no SHA-256, or a file outside the experiment's folder.
    pub fn validate(&self) -> Result<(), Error> {
        let invalid = |what: String, reason: String| {
            Err(Error::Invalid { record: format!("fit {}{what}", self.address), reason })
        };
        if let Some(reason) = not_a_fraction("sparsity", self.sparsity) {
            return invalid(String::new(), reason);
        }
        if self.span.0 > self.span.1 {
            return invalid(
                String::new(),
                format!("its span is {} to {}, expected a rising one", self.span.0, self.span.1),
            );
        }
        let mut before = self.span.0;
        for at in &self.history {
            if at.step < before || at.step > self.span.1 {
                let reason =
                    format!("step {} comes after step {before}, expected {before} to {}", at.step, self.span.1);
                return invalid(String::new(), reason);
            }
            before = at.step;
            if let Some(reason) = at.problem() {
                return invalid(format!(", step {}", at.step), reason);
            }
        }
        for layer in &self.layers {
            if layer.zeros > layer.weights {
                let reason = format!("{} zeros of {} weights", layer.zeros, layer.weights);
                return invalid(format!(", layer `{}`", layer.name), reason);
            }
        }
        for file in self.files.values() {
            if let Some(reason) = file.problem() {
                return invalid(format!(", file `{}`", file.path), reason);
            }
        }
        let times = [
            ("wait_seconds", self.wait_seconds.unwrap_or(0.0)),
            ("overhead_seconds", self.overhead_seconds),
            ("test_seconds", self.test_seconds.unwrap_or(0.0)),
        ];
        if let Some((name, time)) = times.iter().find(|(_, time)| !(time.is_finite() && *time >= 0.0)) {
            return invalid(String::new(), format!("{name} is {time}, expected a time"));
        }
        Ok(())
    }
}

impl Measurement {
    /// What is wrong with it, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let loss =
            [("train_loss", Some(self.train_loss)), ("valid_loss", self.valid_loss), ("epoch", Some(self.epoch))];
        let named = self.metrics.iter().map(|(name, value)| (name.as_str(), Some(*value)));
        let mut finite = loss.into_iter().chain(named).filter_map(|(name, value)| Some((name, value?)));
        let times = [("seconds", self.seconds), ("valid_seconds", self.valid_seconds)];
        finite
            .find(|(_, value)| !value.is_finite())
            .map(|(name, value)| format!("{name} is {value}, expected a finite number"))
            .or_else(|| {
                let wrong = times.iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0));
                wrong.map(|(name, value)| format!("{name} is {value}, expected a time"))
            })
            .or_else(|| not_a_fraction("sparsity", self.sparsity))
    }
}
