//! Lottery-ticket experiments as data, and the runner that does them.
//!
//! A [`Plan`] is a list of fits, each with an address `{ arm, level, seed }`, what it starts from, under which mask and how
//! long it trains. [`ImpConfig`] makes the plan of iterative magnitude pruning with the [`Arm`]s that a ticket must beat;
//! [`NotebookConfig`] that of fasterai's notebook; one of your own is a list as well. [`Runner`] does a plan: it is handed a
//! network for a seed, the data of a seed ([`Examples`]) and an [`Observer`], and knows no command line, no progress bar and
//! no particular network. What has a record in the experiment's folder is not done again.
//!
//! [`Experiment`] is all of it for the networks of `lth-nn` and the data sets of `lth-data`, as one value that is read from
//! and written to TOML or JSON; [`preset`] has the papers'.
//!
//! ```
//! use lth_experiment::{Arm, Host, Silent, preset};
//! use lth_runs::Existing;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut experiment = preset("lenet-digits")?;
//! (experiment.imp.n_levels, experiment.imp.seeds) = (1, vec![1, 2, 3]);
//! experiment.imp.training.length = "2ep".parse()?;
//! experiment.imp.arms = vec![Arm::Reinitialised];
//!
//! let folder = tempfile::tempdir()?;
//! let mut dir = experiment.open_dir(folder.path().join("digits"), Existing::Refuse)?;
//! let cache = folder.path().join("cache");
//! let (summary, outcome) = experiment.run(&mut dir, Host::new(&cache, &mut |_| {}, &mut Silent))?;
//! assert_eq!((summary.fits.len(), outcome.n_trained), (9, 9)); // dense, ticket, reinitialised; three seeds
//! assert!(dir.path().join("report.html").is_file());
//!
//! // Again: all is there.
//! let (_, outcome) = experiment.run(&mut dir, Host::new(&cache, &mut |_| {}, &mut Silent))?;
//! assert_eq!(outcome.n_trained, 0);
//! # Ok(()) }
//! ```
//!
//! [`InstabilityConfig`] asks of an experiment's networks from which step on they are stable to the order of their data:
//! copies of fits ([`plan::Branch`]) and paths between them ([`plan::PathPlan`]) are parts of its plan.
//!
//! Replicates rest on nothing of each other: [`Shard`]s of a plan are run on machines of their own, each into a folder of its
//! own, and [`collect`] makes one experiment of the folders.
//!
//! Besides plans: [`Scoring`] collects what a criterion needs over batches, to prune before training; [`linear_path`] and
//! [`sensitivity`] look at trained networks; [`extras`] and [`contact_sheet`] give a report what only networks and pictures
//! tell; [`TensorBoard`] writes event files.

mod again;
mod arms;
mod branch;
mod checkpoints;
mod checks;
mod collect;
mod connectivity;
mod contact_sheet;
mod done;
mod earlier;
mod error;
mod examples;
mod experiment;
mod extras;
mod files;
mod host;
mod identity;
mod imp;
mod instability;
mod masks;
mod notebook;
mod observer;
mod paths;
pub mod plan;
mod presets;
mod recorded;
mod recorder;
mod runner;
mod scoring;
mod sensitivity;
mod shard;
mod signs;
mod states;
mod subject;
mod targets;
mod tensorboard;

pub use again::Again;
pub use arms::Arm;
pub use collect::{Collected, collect};
pub use connectivity::{PathPoint, linear_path};
pub use contact_sheet::contact_sheet;
pub use error::Error;
pub use examples::Examples;
pub use experiment::{Experiment, FixedSeeds};
pub use extras::extras;
pub use host::{CHECKPOINT_EVERY, Host, Reports, Silent, SummaryWriter};
pub use imp::{DENSE, ImpConfig, Rewinding, TICKET};
pub use instability::{InstabilityConfig, MaskSearch};
pub use notebook::NotebookConfig;
pub use observer::{Notice, Observer};
pub use plan::Plan;
pub use presets::{PRESETS, from_recipe, preset};
pub use recorded::Recorded;
pub use recorder::RECORDING;
pub use runner::{OnFit, Outcome, Runner};
pub use scoring::Scoring;
pub use sensitivity::{
    Parts, Sensitivity, kinds, layers_alone, levels_by_kind, levels_by_layer, sensitivity, suggested_sparsities,
};
pub use shard::{Shard, WorkItem};
pub use tensorboard::TensorBoard;
