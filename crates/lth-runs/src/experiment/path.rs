//! What is written down about the straight path between two networks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Address, Part};
use crate::Error;

/// The straight path between the networks that two fits ended with, which differ in the order of their data alone.
///
/// It lies beside the second fit's record, as `path.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathRecord {
    /// SHA-256 of the plans of both fits and of how the path is measured.
    pub plan: String,
    /// The fits at place 0 and at place 1.
    pub ends: [Address; 2],
    /// The step from which their orders differ, in batches from the start of the training.
    pub branched_at: u64,
    /// Which part of the data.
    pub on: Part,
    /// From place 0 to place 1.
    pub points: Vec<PathPoint>,
    /// Seconds that measuring took.
    pub seconds: f64,
}

/// The network at one place of a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathPoint {
    /// 0 is the first network, 1 the second.
    pub place: f64,
    /// Mean loss; absent where it is not finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Means by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, f64>,
}

impl PathRecord {
    /// Place and error at every point, where the error is 1 less `metric`; `None` if a point does not have it.
    pub fn errors(&self, metric: &str) -> Option<Vec<(f64, f64)>> {
        self.points.iter().map(|point| Some((point.place, 1.0 - point.metrics.get(metric)?))).collect()
    }

    /// Checks that the record makes sense by itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the places do not rise from 0 to 1, or a number is not finite.
    pub fn validate(&self) -> Result<(), Error> {
        let [first, last] = &self.ends;
        let invalid = |reason: String| Err(Error::Invalid { record: format!("path from {first} to {last}"), reason });
        let places: Vec<f64> = self.points.iter().map(|point| point.place).collect();
        if places.first() != Some(&0.0) || places.last() != Some(&1.0) || !places.is_sorted_by(|one, next| one < next) {
            return invalid(format!("its places are {places:?}, expected rising ones from 0 to 1"));
        }
        for point in &self.points {
            let named = point.metrics.iter().map(|(name, value)| (name.as_str(), *value));
            let mut all = named.chain(point.loss.map(|loss| ("loss", loss)));
            if let Some((name, value)) = all.find(|(_, value)| !value.is_finite()) {
                return invalid(format!("{name} at place {} is {value}, expected a finite number", point.place));
            }
        }
        if !(self.seconds.is_finite() && self.seconds >= 0.0) {
            return invalid(format!("seconds is {}, expected a time", self.seconds));
        }
        Ok(())
    }
}
