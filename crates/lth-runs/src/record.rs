//! What is written down about one training run.
//!
//! Every record is plain data with public fields. Fractions (accuracy, sparsity) are in [0, 1]; times are in
//! seconds; percent appears only where a person reads it.

use serde::{Deserialize, Serialize};

use crate::Error;

/// One epoch of one fit; also one line of `metrics.jsonl`.
///
/// | field | meaning |
/// |---|---|
/// | `epoch` | counted from 0 within the fit |
/// | `train_loss` | as the trainer prints it (fastai: exponential mean of batch losses) |
/// | `valid_loss`, `accuracy` | means over the whole validation set |
/// | `seconds` | training only |
/// | `valid_seconds` | validation only |
/// | `sparsity` | of the prunable weights, at the end of the epoch |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Counted from 0 within the fit.
    pub epoch: usize,
    /// Training loss as the trainer reports it.
    pub train_loss: f64,
    /// Mean loss over the validation set.
    pub valid_loss: f64,
    /// Fraction of the validation set answered rightly.
    pub accuracy: f64,
    /// Seconds of training, without validation.
    pub seconds: f64,
    /// Seconds of validation.
    pub valid_seconds: f64,
    /// Pruned / prunable at the end of the epoch.
    pub sparsity: f64,
}

/// How sparse one prunable layer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// The parameter's name, as in the checkpoint.
    pub name: String,
    /// How many weights it has.
    pub weights: u64,
    /// How many of them are zero.
    pub zeros: u64,
}

impl LayerRecord {
    /// Zeros / weights; 0 for a layer without weights.
    pub fn sparsity(&self) -> f64 {
        if self.weights == 0 { 0.0 } else { self.zeros as f64 / self.weights as f64 }
    }

    /// The sum over `layers`, under the name `name`.
    pub fn total(name: impl Into<String>, layers: &[LayerRecord]) -> LayerRecord {
        LayerRecord {
            name: name.into(),
            weights: layers.iter().map(|layer| layer.weights).sum(),
            zeros: layers.iter().map(|layer| layer.zeros).sum(),
        }
    }
}

/// A file that the run wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Relative to the run's folder, with `/` on every platform: "tickets/ticket-50.safetensors".
    pub path: String,
    /// SHA-256 of the whole file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of what it holds whatever its header says, as tickets have it; absent for other files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// What a run is in the comparison of a dense network A with tickets B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Dense training: network A. As a control: A trained for longer.
    Baseline,
    /// Training that looks for a mask: the sparsity rises and the weights are rewound. As a control: the mask is random.
    Search,
    /// Training of a ticket from its rewound weights: network B. As a control: with a random mask.
    Ticket,
    /// Anything else; kept in the records, left out of the comparison.
    Other,
}

/// One fit: what was trained, from what, and how it went.
///
/// Runs are told apart by (`name`, `seed`): the same fit under another seed has the same name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// "baseline", "search-50", "ticket-50", …
    pub name: String,
    /// Its part in the comparison.
    pub role: Role,
    /// Whether it is a control, and not one of the fits compared.
    pub control: bool,
    /// The data set's name.
    pub dataset: String,
    /// The seed of everything drawn at random in it.
    pub seed: u64,
    /// The sparsity it ends at (what was asked; `layers` has what was reached).
    pub sparsity: f64,
    /// The pruning criterion; absent for dense training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criterion: Option<String>,
    /// The sparsity schedule in words; absent for dense training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The name of the run (of the same seed) from whose end this one started; absent for the initial weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_from: Option<String>,
    /// One entry per epoch, in order.
    pub epochs: Vec<EpochRecord>,
    /// The prunable layers at the end of the fit, in order of their names.
    pub layers: Vec<LayerRecord>,
    /// The ticket: rewound weights, masked; what a ticket is trained from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<FileRecord>,
    /// The trained network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained: Option<FileRecord>,
    /// Seconds that training waited for data, over all epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<f64>,
    /// The process's peak resident memory at the end of the fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

impl RunRecord {
    /// "run `ticket-50` of seed 0", for messages.
    pub fn label(&self) -> String {
        format!("run `{}` of seed {}", self.name, self.seed)
    }

    /// Zeros / weights over all prunable layers, as counted; `None` without layers.
    pub fn measured_sparsity(&self) -> Option<f64> {
        (!self.layers.is_empty()).then(|| LayerRecord::total("", &self.layers).sparsity())
    }

    /// Checks that the record makes sense by itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number that is not finite or out of range, epochs out of order, more zeros than
    /// weights, a checksum that is no SHA-256, or a file outside the run's folder.
    pub fn validate(&self) -> Result<(), Error> {
        let invalid =
            |what: String, reason: String| Err(Error::Invalid { record: format!("{}{what}", self.label()), reason });
        if self.name.is_empty() {
            return invalid(String::new(), "its name is empty".into());
        }
        if let Some(reason) = not_a_fraction("sparsity", self.sparsity) {
            return invalid(String::new(), reason);
        }
        for (index, epoch) in self.epochs.iter().enumerate() {
            if epoch.epoch != index {
                let reason = format!("epoch {} stands at place {index}, expected {index}", epoch.epoch);
                return invalid(String::new(), reason);
            }
            if let Some(reason) = epoch.problem() {
                return invalid(format!(", epoch {index}"), reason);
            }
        }
        for layer in &self.layers {
            if layer.zeros > layer.weights {
                let reason = format!("{} zeros of {} weights", layer.zeros, layer.weights);
                return invalid(format!(", layer `{}`", layer.name), reason);
            }
        }
        for file in [&self.ticket, &self.trained].into_iter().flatten() {
            if let Some(reason) = file.problem() {
                return invalid(format!(", file `{}`", file.path), reason);
            }
        }
        if let Some(wait) = self.wait_seconds
            && !(wait.is_finite() && wait >= 0.0)
        {
            return invalid(String::new(), format!("wait_seconds is {wait}, expected a time"));
        }
        Ok(())
    }
}

impl EpochRecord {
    /// What is wrong with the record, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let finite = [("train_loss", self.train_loss), ("valid_loss", self.valid_loss)];
        let times = [("seconds", self.seconds), ("valid_seconds", self.valid_seconds)];
        let fractions = [("accuracy", self.accuracy), ("sparsity", self.sparsity)];
        finite
            .iter()
            .find(|(_, value)| !value.is_finite())
            .map(|(name, value)| format!("{name} is {value}, expected a finite number"))
            .or_else(|| {
                let wrong = times.iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0));
                wrong.map(|(name, value)| format!("{name} is {value}, expected a time"))
            })
            .or_else(|| fractions.iter().find_map(|(name, value)| not_a_fraction(name, *value)))
    }
}

impl FileRecord {
    /// What is wrong with the record, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        let hexadecimal = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        if self.sha256.len() != 64 || !self.sha256.bytes().all(hexadecimal) {
            return Some(format!("sha256 is `{}`, expected 64 lower-case hexadecimal digits", self.sha256));
        }
        if !crate::store::is_plain(&self.path) {
            return Some("its path leaves the run's folder".into());
        }
        None
    }
}

/// Says that `value` is no number in [0, 1], if it is none.
pub(crate) fn not_a_fraction(name: &str, value: f64) -> Option<String> {
    (!(0.0..=1.0).contains(&value)).then(|| format!("{name} is {value}, expected a number in [0, 1]"))
}
