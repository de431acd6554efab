//! The records of an experiment: fits by address, their arms, and the summary that holds all.

mod address;
mod arm;
mod fit;
mod reference;
mod schema_1;
mod store;
mod summary;

pub use crate::record::{FileRecord, LayerRecord};
pub use address::Address;
pub use arm::{ArmRecord, ArmRole};
pub use fit::{Ending, Evaluated, FitRecord, Measurement, Part};
pub use reference::{Reference, ReferenceFigure};
pub use store::{ExperimentDir, MetricLine};
pub use summary::{Conditions, ExperimentRecord, SCHEMA, Summary};
