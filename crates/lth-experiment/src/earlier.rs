//! Fits of an experiment that earlier commands trained and this one does not ask for: seeds, levels and arms can be added
//! to an experiment, so that what is there stays a part of it.

use std::collections::BTreeSet;

use lth_runs::Address;
use lth_runs::experiment::{ArmRecord, ExperimentDir, FitRecord, Summary};

use crate::{Error, Plan, identity};

/// What is there besides a plan's own fits.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// The records, each of a fit that the wider plan has as it was done.
    records: Vec<FitRecord>,
    /// The order of all fits.
    order: Vec<Address>,
    /// The arms of all fits.
    pub(crate) arms: Vec<ArmRecord>,
}

impl Earlier {
    /// The records in `dir` that `wider` knows and `plan` does not. `wider` is the plan of the same experiment with all
    /// seeds, levels and arms that have a record there. A record of another definition of its fit is none. Fits that neither
    /// plan knows by their addresses are taken as the summary `before` has them.
    ///
    /// # Errors
    /// If a record cannot be read.
    pub(crate) fn of(dir: &ExperimentDir, plan: &Plan, wider: &Plan, before: Option<&Summary>) -> Result<Self, Error> {
        let mut records = Vec::new();
        for fit in wider.fits.iter().filter(|fit| plan.fit(&fit.address).is_none()) {
            if let Some(record) = dir.record(&fit.address)?
                && record.plan == identity::of_fit(wider, fit)?
            {
                records.push(record);
            }
        }
        let mut order: Vec<Address> = wider.fits.iter().map(|fit| fit.address.clone()).collect();
        for fit in before.iter().flat_map(|summary| &summary.fits) {
            let is_known = plan.fit(&fit.address).is_some() || wider.fit(&fit.address).is_some();
            if !is_known && let Some(record) = dir.record(&fit.address)? {
                order.push(fit.address.clone());
                records.push(record);
            }
        }
        let mut arms = plan.arms.clone();
        for arm in wider.arms.iter().chain(before.iter().flat_map(|summary| &summary.arms)) {
            if arms.iter().all(|own| own.name != arm.name) {
                arms.push(arm.clone());
            }
        }
        Ok(Self { records, order, arms })
    }

    /// The plan's `records` and the earlier ones that rest on nothing that is not there, in one order; and which of them are
    /// earlier ones.
    pub(crate) fn with(&self, records: &[FitRecord]) -> (Vec<FitRecord>, Vec<Address>) {
        if self.records.is_empty() {
            return (records.to_vec(), Vec::new());
        }
        let (mut fits, mut earlier, mut there) = (Vec::new(), Vec::new(), BTreeSet::new());
        for address in &self.order {
            let of = |records: &[FitRecord]| records.iter().find(|record| record.address == *address).cloned();
            let own = of(records);
            let is_own = own.is_some();
            let Some(record) = own.or_else(|| of(&self.records)) else { continue };
            let mut rests_on = record.starts_from.iter().chain(&record.mask_from);
            if !is_own && rests_on.any(|needed| !there.contains(needed)) {
                continue;
            }
            if !is_own {
                earlier.push(address.clone());
            }
            there.insert(address.clone());
            fits.push(record);
        }
        // A plan of one's own may be no part of the wider one.
        fits.extend(records.iter().filter(|record| !there.contains(&record.address)).cloned());
        (fits, earlier)
    }
}
