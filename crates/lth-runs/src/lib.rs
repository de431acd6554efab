//! What a training run leaves on disk, and what is made of it.
//!
//! A run of hours is worth what its records are worth. This crate holds the records ([`RunRecord`], [`Summary`]),
//! the folder they live in ([`RunDir`]: files appear whole or not at all, and nothing foreign is ever deleted), the
//! statistics that small numbers of seeds allow ([`statistics`]), tables for a terminal and for Markdown
//! ([`table::Table`]), and a report that is rebuilt from `summary.json` alone ([`report()`]). It knows nothing of
//! tensors, networks or pictures.
//!
//! # The folder of a run
//! ```text
//! runs/toy-pets-seed0/
//!   metrics.jsonl             one line per epoch, written as it ends: a MetricRecord
//!   tickets/*.safetensors     written by whoever knows tensors
//!   summary.json              at the end: a Summary
//!   report.md                 at the end, from summary.json
//! ```
//!
//! # A run from its first epoch to its report
//! ```
//! use lth_runs::{Checked, DatasetRecord, EpochRecord, Existing, LayerRecord, MetricRecord, OptimizerState, Role};
//! use lth_runs::{RunDir, RunRecord, SCHEMA, Summary, lines, report};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let parent = tempfile::tempdir()?;
//! let mut dir = RunDir::create(parent.path().join("digits-seed0"), Existing::Refuse)?;
//!
//! let epoch = EpochRecord {
//!     epoch: 0, train_loss: 0.71, valid_loss: 0.52, accuracy: 0.84, seconds: 9.4, valid_seconds: 0.8, sparsity: 0.5,
//! };
//! dir.append(&MetricRecord { run: "ticket-50".into(), seed: 0, epoch })?;
//! assert_eq!(lines::epoch_line(&epoch), "0         0.710000    0.520000    0.840000  00:10");
//!
//! let run = RunRecord {
//!     name: "ticket-50".into(), role: Role::Ticket, control: false, dataset: "digits".into(), seed: 0, sparsity: 0.5,
//!     criterion: Some("large_final".into()), schedule: Some("one_shot".into()), starts_from: None,
//!     epochs: vec![epoch],
//!     layers: vec![LayerRecord { name: "conv1.weight".into(), weights: 9408, zeros: 4704 }],
//!     ticket: None, trained: None, wait_seconds: None, peak_memory_bytes: None,
//! };
//! let dataset = DatasetRecord {
//!     name: "digits".into(), source: "embedded".into(), checked: Checked::Made, files: vec![], mirror: None,
//!     checksum: None, n_train: 1437, n_valid: 360, n_test: 0, skipped: vec![], odd: vec![], left_out: vec![],
//!     contradicted: vec![], classes: vec![],
//! };
//! let summary = dir.finish(&Summary {
//!     schema: SCHEMA, software: "mine 1.0".into(), command: vec!["mine".into()], config: serde_json::json!({}),
//!     dataset, weights: None, optimizer_state: OptimizerState::Fresh, machine: None, started: None,
//!     wall_seconds: None, peak_memory_bytes: None, runs: vec![run], comparison: None,
//! })?;
//!
//! // Later, from the file alone:
//! let read = Summary::read(&dir.path().join("summary.json"))?;
//! assert_eq!(read, summary);
//! assert_eq!(report(&read), std::fs::read_to_string(dir.path().join("report.md"))?);
//! println!("{}", report::fits_table(&read).plain());
//! # Ok(())
//! # }
//! ```

mod comparison;
mod error;
mod metrics;
mod number;
mod record;
mod store;
mod summary;

pub mod experiment;
pub mod figure;
pub mod lines;
pub mod page;
pub mod published;
pub mod report;
pub mod statistics;
pub mod table;

pub use comparison::{Comparison, Control, Figures, TicketComparison, epochs_in_all, figures_by_name};
pub use error::Error;
pub use experiment::Address;
pub use metrics::{MetricRecord, Metrics, read_metrics};
pub use record::{EpochRecord, FileRecord, LayerRecord, Role, RunRecord};
pub use report::report;
pub use store::{Existing, RunDir, next_free};
pub use summary::{
    Checked, ClassRecord, DatasetRecord, MachineRecord, MirrorRecord, OptimizerState, SCHEMA, SourceFile, Summary,
    WeightsRecord,
};
