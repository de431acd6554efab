//! Published figures beside an experiment's own.

use serde::{Deserialize, Serialize};

/// What somebody published of the same experiment, to lay beside the figures here. It belongs to the plan, not to this
/// crate: an experiment on other data has none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// Short, for a column: "notebook", "Frankle & Carbin 2019".
    pub title: String,
    /// Where the figures stand: paper and figure, or address.
    pub source: String,
    /// What must be said beside them: data, hardware, number of seeds.
    pub caveats: Vec<String>,
    /// The figures.
    pub figures: Vec<ReferenceFigure>,
}

/// One published figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceFigure {
    /// The arm that it belongs to.
    pub arm: String,
    /// Its level.
    pub level: u32,
    /// The metric by its name in the records ("accuracy"), or "best_step".
    pub metric: String,
    /// The figure.
    pub value: f64,
}
