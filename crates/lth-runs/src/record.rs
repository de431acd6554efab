//! Layers and files, as records name them.

use serde::{Deserialize, Serialize};

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
    /// Relative to the run's folder, with `/` on every platform: "fits/ticket/level-01/seed-42/ticket.safetensors".
    pub path: String,
    /// SHA-256 of the whole file, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of what it holds whatever its header says, as tickets have it; absent for other files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
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
