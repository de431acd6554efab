//! One fit done again, to be held against what is there.

use std::cell::RefCell;

use lth_runs::Address;
use lth_runs::experiment::{ExperimentDir, ExperimentReader, FileRecord, FitRecord};
use lth_train::{Network, Task};

use crate::observer::Observer;
use crate::plan::{FitPlan, MaskFrom, Plan, Start};
use crate::states::{Kept, carries_optimizer};
use crate::subject::{OnOpened, Subject};
use crate::{Error, Examples, Experiment, Host, Runner, identity};

/// A fit that was done again.
#[derive(Clone, Debug, PartialEq)]
pub struct Again {
    /// Its record now.
    pub record: FitRecord,
    /// The files that it began with, by the fits that left them; none if it began with initial weights alone.
    pub from: Vec<(Address, FileRecord)>,
}

impl<N: Network, E: Examples, T: Task<N, E::Batch>> Runner<'_, N, E, T> {
    /// Does one fit of the plan again from what those that it rests on left in `from`, and leaves its files in `dir`, the
    /// folder of nothing else. `None` if it was interrupted.
    ///
    /// # Errors
    /// [`Error::NotKept`] if what it rests on is not there any more; as [`Runner::run`].
    pub fn again(
        &self,
        address: &Address,
        from: &ExperimentReader,
        dir: &mut ExperimentDir,
        observer: &mut dyn Observer,
    ) -> Result<Option<Again>, Error> {
        let fit = self.plan.fit(address).ok_or_else(|| Error::Plan {
            field: "fit".into(),
            got: address.to_string(),
            expected: "one of the plan".into(),
        })?;
        let missing =
            |needed: &Address, reason: String| Error::NotKept { fit: address.clone(), needed: needed.clone(), reason };
        let mut records: Vec<FitRecord> = Vec::new();
        for needed in fit.rests_on() {
            let record = from.record(needed)?.ok_or_else(|| missing(needed, "it has no record".into()))?;
            let expected = self.plan.fit_identity(needed)?;
            if expected.as_ref() != Some(&record.plan) {
                return Err(missing(needed, "its record is of another plan".into()));
            }
            records.push(record);
        }
        let mut files = Vec::new();
        for (needed, kept) in needed(self.plan, fit) {
            let name = self.plan.fit(needed).map(|fit| kept.name(fit)).unwrap_or_default();
            let record = records.iter().find(|record| record.address == *needed);
            let file = record.and_then(|record| record.files.get(&name));
            match file {
                Some(file) if from.path().join(&file.path).is_file() => files.push((needed.clone(), file.clone())),
                _ => return Err(missing(needed, format!("its file `{name}.safetensors` was not kept"))),
            }
        }
        let examples = (self.examples)(address.seed);
        let examples = examples.map_err(|source| Error::Subject { what: "the data", seed: address.seed, source })?;
        let identity = identity::of_fit(self.plan, fit)?;
        let fitted = self.fit(dir, from.path(), fit, &identity, &examples, &records, observer);
        let record = fitted.map_err(Error::of(address))?;
        Ok(record.map(|record| Again { record, from: files }))
    }
}

/// The networks that a fit begins with, and its optimiser's averages.
fn needed<'a>(plan: &Plan, fit: &'a FitPlan) -> Vec<(&'a Address, Kept)> {
    let of_start = |start: &'a Start| match start.source() {
        Start::Rewound { fit, step } => Some((fit, Kept::At(*step))),
        Start::End(fit) => Some((fit, Kept::End)),
        Start::Initial | Start::Reinitialised(_) | Start::SignTransfer { .. } => None,
    };
    let mut needed: Vec<(&Address, Kept)> = of_start(&fit.start).into_iter().collect();
    match &fit.mask {
        MaskFrom::Dense => {}
        MaskFrom::Same(other) | MaskFrom::Random(other) | MaskFrom::Shuffled(other) => needed.push((other, Kept::End)),
        MaskFrom::Cut(cut) => {
            needed.extend(of_start(&cut.scored));
            needed.extend(cut.within.as_ref().map(|within| (within, Kept::End)));
        }
    }
    needed.extend(carries_optimizer(plan, fit).map(|other| (other, Kept::Optimizer)));
    let mut each: Vec<(&Address, Kept)> = Vec::new();
    for one in needed {
        if !each.contains(&one) {
            each.push(one);
        }
    }
    each
}

impl Plan {
    /// SHA-256 of all that the result of the fit at that address depends on, as its record has it; `None` if there is no such
    /// fit.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn fit_identity(&self, address: &Address) -> Result<Option<String>, Error> {
        self.fit(address).map(|fit| identity::of_fit(self, fit)).transpose()
    }
}

impl Experiment {
    /// Does one fit of `plan`, which is one of this experiment's, again: see [`Runner::again`]. `on_opened` is told of the data
    /// and the seed of their split, and may refuse them.
    ///
    /// # Errors
    /// As [`Runner::again`].
    pub fn again(
        &self,
        plan: &Plan,
        address: &Address,
        from: &ExperimentReader,
        dir: &mut ExperimentDir,
        host: Host<'_>,
        on_opened: &OnOpened<'_>,
    ) -> Result<Option<Again>, Error> {
        let Host { open: options, watch, observer, is_interrupted, checkpoint_every, peak_memory, .. } = host;
        let subject =
            Subject { experiment: self, options, watch: RefCell::new(watch), on_opened, opened: RefCell::default() };
        subject.with_runner(plan, is_interrupted, checkpoint_every, peak_memory, |runner| {
            runner.again(address, from, dir, observer)
        })
    }
}
