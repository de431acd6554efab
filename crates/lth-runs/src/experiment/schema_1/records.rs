//! The records of schema 1, read and never written.

use serde::Deserialize;
use serde_json::Value;

use crate::provenance::{DatasetRecord, MachineRecord, OptimizerState, WeightsRecord};
use crate::record::{FileRecord, LayerRecord};

/// The contents of a `summary.json` of schema 1. What was computed from its runs (`comparison`) is passed over.
#[derive(Deserialize)]
pub(in crate::experiment) struct OldSummary {
    pub(in crate::experiment) software: String,
    pub(in crate::experiment) command: Vec<String>,
    pub(in crate::experiment) config: Value,
    pub(in crate::experiment) dataset: DatasetRecord,
    #[serde(default)]
    pub(in crate::experiment) weights: Option<WeightsRecord>,
    pub(in crate::experiment) optimizer_state: OptimizerState,
    #[serde(default)]
    pub(in crate::experiment) machine: Option<MachineRecord>,
    #[serde(default)]
    pub(in crate::experiment) started: Option<u64>,
    #[serde(default)]
    pub(in crate::experiment) wall_seconds: Option<f64>,
    #[serde(default)]
    pub(in crate::experiment) peak_memory_bytes: Option<u64>,
    pub(in crate::experiment) runs: Vec<OldRun>,
}

/// One fit.
#[derive(Deserialize)]
pub(in crate::experiment) struct OldRun {
    pub(in crate::experiment) name: String,
    pub(in crate::experiment) role: Role,
    pub(in crate::experiment) control: bool,
    pub(in crate::experiment) seed: u64,
    pub(in crate::experiment) sparsity: f64,
    #[serde(default)]
    pub(in crate::experiment) criterion: Option<String>,
    #[serde(default)]
    pub(in crate::experiment) schedule: Option<String>,
    /// The name of another run of the same seed.
    #[serde(default)]
    pub(in crate::experiment) starts_from: Option<String>,
    pub(in crate::experiment) epochs: Vec<OldEpoch>,
    pub(in crate::experiment) layers: Vec<LayerRecord>,
    #[serde(default)]
    pub(in crate::experiment) ticket: Option<FileRecord>,
    #[serde(default)]
    pub(in crate::experiment) trained: Option<FileRecord>,
    #[serde(default)]
    pub(in crate::experiment) wait_seconds: Option<f64>,
    #[serde(default)]
    pub(in crate::experiment) peak_memory_bytes: Option<u64>,
}

/// A run's part in the comparison.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::experiment) enum Role {
    Baseline,
    Search,
    Ticket,
    Other,
}

/// One epoch, counted from 0 within the fit.
#[derive(Deserialize)]
pub(in crate::experiment) struct OldEpoch {
    pub(in crate::experiment) epoch: usize,
    pub(in crate::experiment) train_loss: f64,
    pub(in crate::experiment) valid_loss: f64,
    pub(in crate::experiment) accuracy: f64,
    pub(in crate::experiment) seconds: f64,
    pub(in crate::experiment) valid_seconds: f64,
    pub(in crate::experiment) sparsity: f64,
}
