//! When to prune how much: sparsity and learning-rate schedules, without tensors.
//!
//! Pruning while training needs an answer to "how sparse should the network be now?". [`SparsitySchedule`] is that
//! answer as a value that can be stored, compared and spelled: a shape ([`Schedule`], or a [`Curve`] of one's own), a
//! start and an end ([`Sparsity`]), and a [`Window`] of the training. Bound to a [`TrainingLength`] it gives the
//! sparsity at every iteration.
//!
//! ```
//! use lth_schedule::{Schedule, Sparsity, SparsitySchedule, TrainingLength};
//!
//! let schedule = SparsitySchedule {
//!     schedule: Schedule::Agp,
//!     start: Sparsity::DENSE,
//!     end: "80%".parse()?,
//!     window: "1ep..3ep".parse()?,
//!     every: None,
//! };
//! let plan = schedule.plan(TrainingLength::new(4, 100)?)?;
//! assert_eq!(plan.sparsity(0), Sparsity::DENSE);
//! assert_eq!(plan.sparsity(200).to_string(), "70.00 %");
//! assert_eq!(plan.sparsity(399), "80%".parse()?);
//! # Ok::<(), lth_schedule::Error>(())
//! ```
//!
//! Iterative pruning in rounds asks by level instead of by iteration: [`PruningRate`] and, by layer type,
//! [`PruningRates`]. Learning rates are plain functions in [`learning_rate`], and [`LearningRate`] is one that is written
//! down.

mod error;
mod levels;
mod own;
mod points;
mod rate;
mod schedule;
mod sparsity;
mod sparsity_schedule;
mod spelling;
mod step;
mod window;

pub mod fasterai_2021;
pub mod learning_rate;

pub use error::Error;
pub use levels::{LayerType, PruningRate, PruningRates};
pub use own::{Curve, OwnCurve};
pub use points::Points;
pub use rate::{LearningRate, RatePlan, RateShape};
pub use schedule::{Exponent, Logistic, Schedule};
pub use sparsity::Sparsity;
pub use sparsity_schedule::{SparsityPlan, SparsitySchedule, update_interval};
pub use step::{Step, TrainingLength};
pub use window::{Moment, Span, Window};
