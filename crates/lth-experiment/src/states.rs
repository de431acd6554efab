//! The networks that fits leave as files, for other fits and for people: weights, masks, the optimiser's averages.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use lth_files::open_safetensors;
use lth_mask::MaskSet;
use lth_runs::Address;
use lth_runs::experiment::FitRecord;
use lth_schedule::Step;
use lth_ticket::Ticket;
use lth_train::{Network, Trainer, save_safetensors};

use crate::Error;
use crate::plan::{FitPlan, MaskFrom, OptimizerState, Plan, Start};

/// A moment of a fit whose network is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// What its training starts from, of a fit that has a mask then.
    Start,
    /// What it ends with.
    End,
    /// What a search had learnt before it rewound for the last time.
    Learnt,
    /// Its state at a step.
    At(Step),
    /// The optimiser's averages at its end.
    Optimizer,
}

impl Kept {
    /// The name in the fit's record; with ".safetensors" that of the file.
    pub(crate) fn name(self, fit: &FitPlan) -> String {
        match self {
            Self::Start => "ticket".into(),
            // A search ends with the ticket.
            Self::End if rewinds_at_end(fit) => "ticket".into(),
            Self::End | Self::Learnt => "trained".into(),
            Self::At(step) => format!("at-{step}"),
            Self::Optimizer => "optimizer".into(),
        }
    }
}

/// Whether a fit leaves a ticket and not a trained network.
pub(crate) fn rewinds_at_end(fit: &FitPlan) -> bool {
    fit.gradual.as_ref().and_then(|gradual| gradual.rewind).is_some_and(|rewind| rewind.reset_end)
}

/// The moments of a fit that are written: what others rest on, and what its plan wants.
pub(crate) fn wanted(plan: &Plan, fit: &FitPlan) -> Vec<Kept> {
    let mut wanted: Vec<Kept> = fit.keep.iter().map(|step| Kept::At(*step)).collect();
    if fit.keeps_files {
        match (rewinds_at_end(fit), &fit.mask) {
            (true, _) => wanted.push(Kept::Learnt),
            (false, MaskFrom::Dense) => {}
            (false, _) => wanted.push(Kept::Start),
        }
    }
    let rests_on_end = |other: &FitPlan| {
        let by_weights = |start: &Start| matches!(start.source(), Start::End(needed) if *needed == fit.address);
        let by_mask = match &other.mask {
            MaskFrom::Dense => false,
            MaskFrom::Same(needed) | MaskFrom::Random(needed) | MaskFrom::Shuffled(needed) => *needed == fit.address,
            MaskFrom::Cut(cut) => by_weights(&cut.scored) || cut.within.as_ref() == Some(&fit.address),
        };
        by_mask || by_weights(&other.start)
    };
    let is_end = plan.paths.iter().any(|path| path.ends.contains(&fit.address));
    if fit.keeps_files || is_end || plan.fits.iter().any(rests_on_end) {
        wanted.push(Kept::End);
    }
    if plan.fits.iter().any(|other| carries_optimizer(plan, other) == Some(&fit.address)) {
        wanted.push(Kept::Optimizer);
    }
    wanted
}

/// The fit whose optimiser this one goes on with.
pub(crate) fn carries_optimizer<'a>(plan: &Plan, fit: &'a FitPlan) -> Option<&'a Address> {
    let state = fit.optimizer_state.unwrap_or(plan.optimizer_state);
    fit.after.as_ref().filter(|_| state == OptimizerState::Carried)
}

/// The files of fits that are done.
pub(crate) struct States<'a> {
    plan: &'a Plan,
    root: &'a Path,
    records: &'a [FitRecord],
    /// What was read last: a mask that is cut from a network lies within that network's own.
    last: RefCell<Option<(PathBuf, Ticket)>>,
}

impl<'a> States<'a> {
    /// Those of `records`, under `root`.
    pub(crate) fn new(plan: &'a Plan, root: &'a Path, records: &'a [FitRecord]) -> Self {
        Self { plan, root, records, last: RefCell::new(None) }
    }

    /// The network of a fit at that moment.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the file is not there or not what the record says; what its reader says.
    pub(crate) fn load(&self, address: &Address, kept: Kept) -> Result<Ticket, Error> {
        let path = self.path(address, kept)?;
        if let Some((last, ticket)) = &*self.last.borrow()
            && *last == path
        {
            return Ok(ticket.clone());
        }
        let ticket = Ticket::read(&path, &Device::Cpu)?;
        *self.last.borrow_mut() = Some((path, ticket.clone()));
        Ok(ticket)
    }

    /// The masks that a fit ended with.
    ///
    /// # Errors
    /// As [`States::load`].
    pub(crate) fn masks(&self, address: &Address) -> Result<MaskSet, Error> {
        Ok(self.load(address, Kept::End)?.masks)
    }

    /// The parameters and buffers that a start reads; `None` for initial ones.
    ///
    /// # Errors
    /// As [`States::load`].
    pub(crate) fn weights(&self, start: &Start) -> Result<Option<BTreeMap<String, Tensor>>, Error> {
        match start.source() {
            Start::Initial | Start::Reinitialised(_) | Start::SignTransfer { .. } => Ok(None),
            Start::Rewound { fit, step } => Ok(Some(self.load(fit, Kept::At(*step))?.tensors)),
            Start::End(fit) => Ok(Some(self.load(fit, Kept::End)?.tensors)),
        }
    }

    /// Lets the trainer's optimiser go on where a fit's ended.
    ///
    /// # Errors
    /// As [`States::load`].
    pub(crate) fn load_optimizer<N: Network>(&self, address: &Address, trainer: &mut Trainer<N>) -> Result<(), Error> {
        let path = self.path(address, Kept::Optimizer)?;
        let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
        let bytes = std::fs::read(&path).map_err(|error| damaged(error.to_string()))?;
        let (metadata, _) = open_safetensors(&bytes).map_err(|error| damaged(error.to_string()))?;
        let n_steps = metadata.get(STEPS).and_then(|text| text.parse().ok());
        let n_steps = n_steps.ok_or_else(|| damaged(format!("its header has no `{STEPS}`")))?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?.into_iter().collect();
        let mut state = trainer.state()?;
        (state.optimizer, state.counters.optimizer_steps) = (tensors, n_steps);
        Ok(trainer.restore(&state)?)
    }

    fn path(&self, address: &Address, kept: Kept) -> Result<PathBuf, Error> {
        let missing =
            |reason: &str| Error::Damaged { path: self.root.join(address.folder()), reason: reason.to_owned() };
        let fit = self.plan.fit(address).ok_or_else(|| missing("it is no fit of the plan"))?;
        let record = self.records.iter().find(|record| record.address == *address);
        let name = kept.name(fit);
        let file = record.and_then(|record| record.files.get(&name));
        let file = file.ok_or_else(|| missing(&format!("its record has no file `{name}`")))?;
        let path = self.root.join(&file.path);
        let (sha256, _) = lth_files::sha256_file(&path)?;
        if sha256 != file.sha256 {
            let reason =
                format!("its SHA-256 is {sha256}, its record has {}: remove it, to train it again", file.sha256);
            return Err(Error::Damaged { path, reason });
        }
        Ok(path)
    }
}

const STEPS: &str = "n_steps";

/// Writes the averages of a trainer's optimiser.
///
/// # Errors
/// If a tensor cannot be copied or the file not be written.
pub(crate) fn save_optimizer<N: Network>(path: &Path, trainer: &Trainer<N>) -> Result<(), Error> {
    let optimizer = trainer.optimizer();
    let metadata = BTreeMap::from([(STEPS.to_owned(), optimizer.n_steps().to_string())]);
    Ok(save_safetensors(path, &optimizer.tensors()?, &metadata)?)
}
