//! `summary.json`: everything an experiment leaves on record, in one file.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Address, ArmRecord, ArmRole, FitRecord, PathRecord, Reference};
use crate::Error;
use crate::number::settle_all;
use crate::provenance::{BuildRecord, DatasetRecord, MachineRecord, OptimizerState, WeightsRecord};

/// The schema that this version writes. It reads 1 as well.
pub const SCHEMA: u32 = 2;

/// The contents of `summary.json`.
///
/// ```json
/// {
///   "schema": 2,
///   "software": "lth 0.1.0",
///   "experiment": { "name": "imp", "identity": "5f0c…", "config": { "…": "every option as it was resolved" } },
///   "arms": [ { "name": "ticket", "…": "see ArmRecord" } ],
///   "fits": [ { "address": "ticket/3/42", "…": "see FitRecord" } ],
///   "…": "see the fields below"
/// }
/// ```
///
/// A reader ignores fields of the summary itself that it does not know; a field that changes its meaning, or goes, raises
/// `schema`. Numbers are exact: what [`Summary::read`] returns is what [`Summary::settled`] had in memory, bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The software that wrote it, with its version.
    pub software: String,
    /// The programs that trained its fits, from the first to the last, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<BuildRecord>,
    /// The command line; empty where a program of one's own called the library.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Which experiment.
    pub experiment: ExperimentRecord,
    /// Its arms, in the order in which they are shown.
    pub arms: Vec<ArmRecord>,
    /// The metric that arms are compared by; higher is better.
    pub metric: String,
    /// How much of it a ticket may lose and still be called as good, in the metric's own unit; absent if nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Whether all arms race against dense: each is asked to be as good in less time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_race: bool,
    /// Where the examples came from.
    pub dataset: DatasetRecord,
    /// Where the starting weights came from; absent if they were drawn at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsRecord>,
    /// What must be known to read the figures rightly.
    pub conditions: Conditions,
    /// What it ran on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineRecord>,
    /// When it began, in seconds since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// Seconds that its commands ran, over all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_seconds: Option<f64>,
    /// The largest resident memory of its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// The fits, in the order in which the plan has them.
    pub fits: Vec<FitRecord>,
    /// Whether the command that wrote this had more to do: an experiment at work, interrupted or killed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unfinished: bool,
    /// Those of them that earlier commands trained and the last one did not ask for. They are fits of this experiment like
    /// all others, and count in every figure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Address>,
    /// Straight paths between networks that fits ended with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathRecord>,
    /// Published figures to lay beside; absent if there are none for this experiment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
}

/// Which experiment a summary is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExperimentRecord {
    /// Its kind: "imp", "notebook".
    pub name: String,
    /// SHA-256 of its configuration without what can be added to later (seeds, arms, levels).
    pub identity: String,
    /// Every option as it was resolved.
    pub config: Value,
}

/// What must be known to read the figures rightly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// Whether no pruned weight was ever trained (a frozen body): the mask is then that of the starting weights.
    pub pruned_weights_are_frozen: bool,
    /// Whether the optimiser's averages outlive a fit.
    pub optimizer_state: OptimizerState,
}

impl Summary {
    /// The seeds of its fits, each once, in order.
    #[must_use]
    pub fn seeds(&self) -> Vec<u64> {
        self.fits.iter().map(|fit| fit.address.seed).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The levels of its fits, each once, in order.
    #[must_use]
    pub fn levels(&self) -> Vec<u32> {
        self.fits.iter().map(|fit| fit.address.level).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The fit at that address.
    pub fn fit(&self, address: &Address) -> Option<&FitRecord> {
        self.fits.iter().find(|fit| fit.address == *address)
    }

    /// The arm of that name.
    pub fn arm(&self, name: &str) -> Option<&ArmRecord> {
        self.arms.iter().find(|arm| arm.name == name)
    }

    /// The first arm of that role.
    pub fn arm_of(&self, role: ArmRole) -> Option<&ArmRecord> {
        self.arms.iter().find(|arm| arm.role == role)
    }

    /// Everything that the fit needed, itself last, each fit once: whose weights it started from, whose work found its
    /// mask, and theirs in turn. What the search for a ticket cost is what these took.
    #[must_use]
    pub fn needed_by<'a>(&'a self, fit: &'a FitRecord) -> Vec<&'a FitRecord> {
        let mut needed: Vec<&FitRecord> = Vec::new();
        let mut open = vec![fit];
        while let Some(next) = open.pop() {
            if needed.iter().any(|other| other.address == next.address) {
                continue;
            }
            needed.push(next);
            open.extend(next.starts_from.iter().chain(&next.mask_from).filter_map(|address| self.fit(address)));
        }
        needed.reverse();
        needed
    }

    /// Checks every record, and the records against each other.
    ///
    /// # Errors
    /// [`Error::Invalid`] as [`FitRecord::validate`]; also for two fits of one address, a fit of no arm of the summary's,
    /// or one that rests on a fit that is not there before it;
    /// for a path between fits that are not there.
    pub fn validate(&self) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        for fit in &self.fits {
            fit.validate()?;
            let invalid = |reason: String| Err(Error::Invalid { record: format!("fit {}", fit.address), reason });
            if self.arm(&fit.address.arm).is_none() {
                return invalid("there is no arm of that name".into());
            }
            if let Some(before) = fit.starts_from.iter().chain(&fit.mask_from).find(|before| !seen.contains(before)) {
                return invalid(format!("it rests on {before}, which is not among the fits before it"));
            }
            if !seen.insert(&fit.address) {
                return invalid("there are two of them".into());
            }
        }
        if let Some(absent) = self.earlier.iter().find(|address| !seen.contains(address)) {
            let reason = "it is among the earlier fits, and not among the fits".into();
            return Err(Error::Invalid { record: format!("fit {absent}"), reason });
        }
        for path in &self.paths {
            path.validate()?;
            let [first, last] = &path.ends;
            if let Some(end) = path.ends.iter().find(|end| !seen.contains(end)) {
                let reason = format!("{end} is not among the fits");
                return Err(Error::Invalid { record: format!("path from {first} to {last}"), reason });
            }
        }
        for (name, number) in [("wall_seconds", self.wall_seconds), ("margin", self.margin)] {
            if let Some(number) = number
                && !(number.is_finite() && number >= 0.0)
            {
                let reason = format!("{name} is {number}, expected a number of at least 0");
                return Err(Error::Invalid { record: "summary".into(), reason });
            }
        }
        Ok(())
    }

    /// The summary as it will be read back: the same but for the last digit of some numbers.
    ///
    /// # Errors
    /// As [`Summary::validate`].
    pub fn settled(&self) -> Result<Self, Error> {
        self.validate()?;
        let mut tree = serde_json::to_value(self).map_err(|error| unrepresentable(&error))?;
        settle_all(&mut tree);
        serde_json::from_value(tree).map_err(|error| unrepresentable(&error))
    }

    /// The text of `summary.json`.
    ///
    /// # Errors
    /// As [`Summary::validate`].
    pub fn to_json(&self) -> Result<String, Error> {
        let settled = self.settled()?;
        let mut text = serde_json::to_string_pretty(&settled).map_err(|error| unrepresentable(&error))?;
        text.push('\n');
        Ok(text)
    }

    /// Writes `summary.json` so that no reader ever sees a part of it.
    ///
    /// # Errors
    /// As [`Summary::validate`]; [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let text = self.to_json()?;
        Ok(lth_files::write_atomic(path, |file| file.write_all(text.as_bytes()))?)
    }

    /// Reads a `summary.json` of schema 1 or 2.
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::Io`], [`Error::Damaged`] (not JSON, cut, or not a summary),
    /// [`Error::SchemaVersion`], and [`Error::Invalid`] as [`Summary::validate`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::Absent { what: "summary", path: path.into() },
            _ => Error::Io { action: "read", path: path.into(), source },
        })?;
        let damaged = |error: serde_json::Error| Error::Damaged {
            path: path.into(),
            line: (error.line() > 0).then(|| error.line()),
            reason: error.to_string(),
        };
        // The version alone first: another schema is told apart from a damaged file.
        let tree: Value = serde_json::from_slice(&bytes).map_err(damaged)?;
        let summary: Self = match tree.get("schema").and_then(Value::as_u64) {
            Some(2) => serde_json::from_slice(&bytes).map_err(damaged)?,
            Some(1) => {
                let old: super::schema_1::OldSummary = serde_json::from_slice(&bytes).map_err(damaged)?;
                super::schema_1::converted(old)?
            }
            Some(found) => return Err(Error::SchemaVersion { path: path.into(), found, expected: SCHEMA }),
            None => {
                let reason = "it has no schema version: not an experiment's summary".into();
                return Err(Error::Damaged { path: path.into(), line: None, reason });
            }
        };
        summary.validate()?;
        Ok(summary)
    }
}

fn unrepresentable(error: &serde_json::Error) -> Error {
    Error::Invalid { record: "summary".into(), reason: error.to_string() }
}
