//! `metrics.jsonl`: one line per epoch, written as the epoch ends.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::number::settle_all;
use crate::record::EpochRecord;

/// One line of `metrics.jsonl`: an [`EpochRecord`] with the run it belongs to, in one flat object.
///
/// ```json
/// {"run":"baseline","seed":0,"epoch":0,"train_loss":0.87,"valid_loss":0.64,"accuracy":0.67,"seconds":8.9,"valid_seconds":0.7,"sparsity":0.0}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricRecord {
    /// The run's name.
    pub run: String,
    /// Its seed.
    pub seed: u64,
    /// The epoch's figures.
    #[serde(flatten)]
    pub epoch: EpochRecord,
}

impl MetricRecord {
    /// The line, with its newline.
    pub(crate) fn to_line(&self) -> Result<String, Error> {
        let record = || format!("run `{}` of seed {}, epoch {}", self.run, self.seed, self.epoch.epoch);
        if let Some(reason) = self.epoch.problem() {
            return Err(Error::Invalid { record: record(), reason });
        }
        let invalid = |error: serde_json::Error| Error::Invalid { record: record(), reason: error.to_string() };
        let mut tree = serde_json::to_value(self).map_err(invalid)?;
        settle_all(&mut tree);
        // Through the type again: its order of fields reads better than the alphabet's.
        let settled: MetricRecord = serde_json::from_value(tree).map_err(invalid)?;
        Ok(serde_json::to_string(&settled).map_err(invalid)? + "\n")
    }
}

/// What a `metrics.jsonl` holds.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Metrics {
    /// Its lines, in order.
    pub lines: Vec<MetricRecord>,
    /// Whether the last line was cut (a run that was killed while writing); it is not among `lines`.
    pub cut: bool,
    /// The length in bytes up to the end of the last whole line.
    pub(crate) whole_bytes: u64,
}

/// Reads a `metrics.jsonl`, also that of a run that is still going or was killed.
///
/// # Errors
/// [`Error::Absent`], [`Error::Io`], and [`Error::Damaged`] for a line that is no record, unless it is the last
/// one and has no newline.
pub fn read_metrics(path: &Path) -> Result<Metrics, Error> {
    let bytes = std::fs::read(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => Error::Absent { what: "metrics", path: path.into() },
        _ => Error::Io { action: "read", path: path.into(), source },
    })?;
    let mut metrics = Metrics::default();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let whole = line.ends_with(b"\n");
        if !whole {
            // Even if it parses: only the newline says that all of it was written.
            metrics.cut = true;
            break;
        }
        if !line.trim_ascii().is_empty() {
            let record = serde_json::from_slice(line).map_err(|error| Error::Damaged {
                path: path.into(),
                line: Some(index + 1),
                reason: error.to_string(),
            })?;
            metrics.lines.push(record);
        }
        metrics.whole_bytes += line.len() as u64;
    }
    Ok(metrics)
}
