//! What a fit with a moving mask, or one that looks for a mask, may be.

use lth_mask::Granularity;

use crate::Error;
use crate::plan::{FitPlan, MaskFrom, Plan};

impl Plan {
    /// # Errors
    /// [`Error::Plan`] for dynamic sparse training that has nothing to move, that would break up what is pruned as one, or
    /// whose updates do not fit into `n_iterations` batches.
    pub(crate) fn check_dynamic(&self, fit: &FitPlan, n_iterations: u64) -> Result<(), Error> {
        let Some(dynamic) = &fit.dynamic else { return Ok(()) };
        let refuse = |field: &str, got: String, expected: &str| {
            Err(Error::Plan { field: format!("{field} of fit {}", fit.address), got, expected: expected.into() })
        };
        let selection = match &fit.mask {
            MaskFrom::Dense => {
                return refuse("mask", "none".into(), "one, which dynamic sparse training moves");
            }
            MaskFrom::Cut(cut) => cut.selection.as_ref().unwrap_or(&self.pruning.selection),
            _ => &self.pruning.selection,
        };
        if fit.gradual.is_some() {
            let expected = "none beside dynamic sparse training, which keeps as many weights throughout";
            return refuse("pruning while training", "there".into(), expected);
        }
        let mut granularities = std::iter::once(&selection.granularity).chain(selection.granularities.values());
        if let Some(other) = granularities.find(|granularity| **granularity != Granularity::Weight) {
            let expected = "`weight`: dynamic sparse training moves single weights";
            return refuse("granularity", format!("`{other}`"), expected);
        }
        match dynamic.check(n_iterations) {
            Err(lth_ticket::Error::Setting { what, got, expected }) => refuse(what, got, &expected),
            other => Ok(other?),
        }
    }

    /// # Errors
    /// [`Error::Plan`] for a path whose ends are no two fits of the plan, fewer than 2 points, or two paths to one fit.
    pub(crate) fn check_paths(&self) -> Result<(), Error> {
        for (index, path) in self.paths.iter().enumerate() {
            let [first, last] = &path.ends;
            let refuse = |field: &str, got: String, expected: &str| {
                let field = format!("{field} of the path from {first} to {last}");
                Err(Error::Plan { field, got, expected: expected.into() })
            };
            if let Some(end) = path.ends.iter().find(|end| self.fit(end).is_none()) {
                return refuse("end", end.to_string(), "a fit of the plan");
            }
            if first == last {
                return refuse("second end", last.to_string(), "another fit than the first");
            }
            if path.n_points < 2 {
                return refuse("number of points", path.n_points.to_string(), "at least 2");
            }
            if self.paths[..index].iter().any(|other| other.ends[1] == *last) {
                return refuse("second end", "that of a path before it".into(), "a fit that no other path ends in");
            }
        }
        Ok(())
    }

    /// # Errors
    /// [`Error::Plan`] for a search by whole weights in a fit that is pruned, or a distance that is none.
    pub(crate) fn check_early_bird(&self, fit: &FitPlan) -> Result<(), Error> {
        let Some(search) = &fit.early_bird else { return Ok(()) };
        let refuse = |field: &str, got: String, expected: &str| {
            Err(Error::Plan { field: format!("{field} of fit {}", fit.address), got, expected: expected.into() })
        };
        if fit.mask != MaskFrom::Dense || fit.gradual.is_some() {
            return refuse("pruning", "there".into(), "none beside the search for an early bird, which trains dense");
        }
        match search.settled.check() {
            Err(lth_ticket::Error::Setting { what, got, expected }) => refuse(what, got, &expected),
            other => Ok(other?),
        }
    }
}
