//! What an experiment leaves on disk, and what is made of it.
//!
//! An experiment of hours is worth what its records are worth. This crate holds the records ([`FitRecord`] by [`Address`],
//! [`Summary`]), the folder they live in ([`ExperimentDir`]: files appear whole or not at all, and nothing foreign is ever
//! deleted), the statistics that small numbers of seeds allow ([`statistics`]), what they say of an experiment
//! ([`Analysis`]), tables ([`table::Table`]), figures ([`figure`]), a report that is rebuilt from the folder alone
//! ([`report`]), and event files for TensorBoard ([`tensorboard`]). It knows no particular experiment, and nothing of tensors, networks or pictures.
//!
//! # From a fit's record to the report
//! ```
//! use std::collections::BTreeMap;
//!
//! use lth_runs::{Address, ArmRecord, ArmRole, Checked, Conditions, DatasetRecord, Ending, Existing, ExperimentDir};
//! use lth_runs::{ExperimentRecord, FitRecord, Measurement, MetricLine, OptimizerState, SCHEMA, Summary, lines, report};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let parent = tempfile::tempdir()?;
//! let experiment =
//!     ExperimentRecord { name: "imp".into(), identity: "5f0c1a2b".into(), config: serde_json::json!({ "levels": 0 }) };
//! let mut dir = ExperimentDir::open(parent.path().join("imp-5f0c1a2b"), experiment.clone(), Existing::Refuse)?;
//!
//! let address = Address::new("dense", 0, 42);
//! let at = Measurement {
//!     step: 25, epoch: 1.0, train_loss: 0.71, valid_loss: Some(0.52), metrics: [("accuracy".to_owned(), 0.84)].into(),
//!     seconds: 9.4, valid_seconds: 0.8, sparsity: 0.0,
//! };
//! dir.append(&MetricLine { fit: address.clone(), at: at.clone() })?;
//! println!("{}\n{}", lines::measurement_header(), lines::measurement_line(&at));
//!
//! let dense = FitRecord {
//!     address, plan: "0".repeat(64), starts_from: None, mask_from: vec![], description: "dense".into(), sparsity: 0.0,
//!     span: (0, 25), ending: Ending::Done, history: vec![at], at_end: None, at_best: None, layers: vec![],
//!     files: BTreeMap::new(), overhead_seconds: 0.1, test_seconds: None, wait_seconds: None, peak_memory_bytes: None,
//! };
//! let dataset = DatasetRecord {
//!     name: "digits".into(), source: "embedded".into(), checked: Checked::Made, files: vec![], mirror: None,
//!     checksum: None, n_train: 1437, n_valid: 360, n_test: 0, skipped: vec![], odd: vec![], left_out: vec![],
//!     contradicted: vec![], classes: vec![], splits: BTreeMap::new(),
//! };
//! let arm = ArmRecord { name: "dense".into(), role: ArmRole::Dense, title: "dense".into(), meaning: String::new() };
//! let conditions = Conditions { pruned_weights_are_frozen: false, optimizer_state: OptimizerState::Fresh };
//! let summary = Summary {
//!     schema: SCHEMA, software: "mine 1.0".into(), builds: vec![], command: vec![], experiment, arms: vec![arm],
//!     metric: "accuracy".into(), margin: None, is_race: false, dataset, weights: None, conditions, machine: None, started: None,
//!     wall_seconds: None, peak_memory_bytes: None, fits: vec![dense], is_unfinished: false,
//!     earlier: vec![], paths: vec![], reference: None,
//! }.settled()?;
//!
//! for (name, text) in report::files(&summary) {
//!     std::fs::write(dir.path().join(name), text)?;
//! }
//! println!("{}", report::overview(&summary));
//! # Ok(())
//! # }
//! ```

mod contact_sheet;
mod error;
mod number;
mod provenance;
mod record;
mod store;

pub mod experiment;
pub mod figure;
pub mod lines;
pub mod page;
pub mod report;
pub mod sensitivity;
pub mod statistics;
pub mod table;
pub mod tensorboard;

pub use contact_sheet::{ContactSheet, Shown};
pub use error::Error;
pub use experiment::{
    Address, Analysis, ArmFigures, ArmRecord, ArmRole, Beside, Compared, Comparison, Conditions, Ending, Evaluated,
    ExperimentDir, ExperimentReader, ExperimentRecord, FitRecord, LeftOut, Measurement, MetricLine, Part, PathPoint,
    PathRecord, Reference, ReferenceFigure, SCHEMA, SingleSeed, Stability, Summary,
};
pub use provenance::{
    BuildRecord, Checked, ClassRecord, DatasetRecord, MachineRecord, MirrorRecord, OptimizerState, SourceFile,
    WeightsRecord,
};
pub use record::{FileRecord, LayerRecord};
pub use store::Existing;
