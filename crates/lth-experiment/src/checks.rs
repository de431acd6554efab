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
