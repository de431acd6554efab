//! The records of an experiment: fits by address, their arms, and the summary that holds all.

mod address;
mod analysis;
mod arm;
mod fit;
mod path;
mod questions;
mod race;
mod reader;
mod reference;
mod schema_1;
mod stability;
mod store;
mod summary;
mod verify;

pub use crate::record::{FileRecord, LayerRecord};
pub use address::Address;
pub(crate) use analysis::whole as whole_fits;
pub use analysis::{Analysis, ArmFigures, Beside, Compared, Comparison, LeftOut, SingleSeed};
pub use arm::{ArmRecord, ArmRole};
pub use fit::{Ending, Evaluated, FitRecord, Measurement, Part};
pub use path::{PathPoint, PathRecord};
pub use race::Racer;
pub use reader::ExperimentReader;
pub use reference::{Reference, ReferenceFigure};
pub use stability::Stability;
pub use store::{ExperimentDir, MetricLine};
pub use summary::{Conditions, ExperimentRecord, SCHEMA, Summary};
pub use verify::{Discrepancy, config_differences, damaged_files, differences, fit_differences, path_differences};
