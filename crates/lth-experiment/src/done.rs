//! What of a plan is there already.

use lth_runs::experiment::{ExperimentDir, FitRecord};

use crate::plan::{FitPlan, Plan};
use crate::states::{Kept, wanted};
use crate::{Error, identity};

/// The record of a fit that need not be done: it is of this plan, and the files that others need are there.
///
/// # Errors
/// If the record cannot be read.
pub(crate) fn done(
    plan: &Plan,
    dir: &ExperimentDir,
    fit: &FitPlan,
    identity: &str,
) -> Result<Option<FitRecord>, Error> {
    let Some(record) = dir.record(&fit.address)? else { return Ok(None) };
    if record.plan != identity {
        return Ok(None);
    }
    let is_there = |kept: &Kept| {
        let file = record.files.get(&kept.name(fit));
        file.is_some_and(|file| dir.path().join(&file.path).is_file())
    };
    Ok((!record.is_whole() || wanted(plan, fit).iter().all(is_there)).then_some(record))
}

impl Plan {
    /// Whether `dir` has all of its fits, so that a runner would train nothing.
    ///
    /// # Errors
    /// If a record cannot be read.
    pub fn is_done(&self, dir: &ExperimentDir) -> Result<bool, Error> {
        for fit in &self.fits {
            if done(self, dir, fit, &identity::of_fit(self, fit)?)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
