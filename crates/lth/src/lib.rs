//! Sparse winning tickets in Rust, on candle: find them, test them against controls, keep them as files, and train and run
//! them with kernels that skip the zeros.
//!
//! This crate is the others under short names. Each can be used alone.
//!
//! | module | for |
//! |---|---|
//! | [`schedule`] | how sparse when, and how fast: sparsity, levels, learning rates, steps; no tensors |
//! | [`criteria`] | saliency scores of weights |
//! | [`mask`] | scores to masks: granularities, scopes, exact counts; files; compaction |
//! | [`kernels`] | CPU operators with backward, dense and sparse |
//! | [`train`] | a trainer over any span of a training, with hooks; optimisers that keep pruned weights at 0 |
//! | [`nn`] | the papers' networks by name, trainable layers, packed inference |
//! | [`data`] | data sets by name, splits, batches |
//! | [`ticket`] | pruning while training, rewinding, ticket files |
//! | [`experiment`] | iterative magnitude pruning and its controls as plans, and their runner |
//! | [`runs`] | records, statistics, verdicts, figures, reports |
//! | [`files`] | files that are written whole or not at all |
//!
//! # Iterative magnitude pruning
//! Train, prune, rewind, level by level, over public pieces:
//!
//! ```
//! use candle_core::Device;
//! use lth::criteria::{LargeFinal, NamedInputs, score_all};
//! use lth::data::{DamagedPolicy, DatasetName, DatasetSpec, Loader, OpenOptions};
//! use lth::mask::{MaskSet, Selection, select_within};
//! use lth::nn::{NetworkName, NetworkSpec, Setup};
//! use lth::schedule::PruningRate;
//! use lth::train::{Data, FitConfig, Network, Optimizer, OptimizerConfig, Role, Trainer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let spec = DatasetSpec::new(DatasetName::Digits);
//! let options = OpenOptions { cache_dir: "unused".into(), damaged: DamagedPolicy::Fail };
//! let digits = spec.open(42, &options, &mut |_| {})?;
//! let loader = Loader::new(digits.pictures, digits.split, spec.loader_config(32, 42))?;
//! let network = NetworkSpec::new(NetworkName::LeNet300100, 10, [1, 8, 8]).build(&Setup::new(42))?;
//! let initial = network.parameters().snapshot(|_, _| true)?;
//! let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::torch_adam()), 42);
//! let data = Data {
//!     train: |epoch| loader.train_epoch(epoch as usize),
//!     n_train_batches: loader.n_train_batches(),
//!     valid: || loader.valid(),
//! };
//!
//! let (rate, mut masks) = (PruningRate::new(0.2)?, None);
//! for level in 0..3 {
//!     let fitted = trainer.fit(&FitConfig::new(2), &data, &mut [])?;
//!     println!("level {level}: {:?}", fitted.best().and_then(|best| best.accuracy()));
//!     let weights = trainer.network().parameters().snapshot(|_, p| p.role() == Role::Weight)?;
//!     let scores = score_all(&LargeFinal, &NamedInputs::of(&weights))?;
//!     let within = masks.map_or_else(|| MaskSet::all_kept(&weights), Ok)?;
//!     let next = select_within(&scores, rate.sparsity(level + 1).fraction(), &Selection::default(), &within)?;
//!     trainer.network().parameters().restore(&initial)?;
//!     trainer.set_masks(next.to_tensors(&Device::Cpu)?)?;
//!     trainer.optimizer_mut().reset();
//!     masks = Some(next);
//! }
//! # Ok(()) }
//! ```
//!
//! [`experiment`] does the same with controls, seeds, records and a report, and goes on where it was cut.
//!
//! # Building
//! In cargo's `dev` profile dependencies are not optimised, and training is many times slower. Put
//! ```toml
//! [profile.dev.package."*"]
//! opt-level = 3
//! debug-assertions = false
//! overflow-checks = false
//! ```
//! into the program's `Cargo.toml`.

pub use lth_criteria as criteria;
pub use lth_data as data;
pub use lth_experiment as experiment;
pub use lth_files as files;
pub use lth_kernels as kernels;
pub use lth_mask as mask;
pub use lth_nn as nn;
pub use lth_runs as runs;
pub use lth_schedule as schedule;
pub use lth_ticket as ticket;
pub use lth_train as train;

/// README's snippets, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
