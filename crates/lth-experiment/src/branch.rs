//! A fit that leaves its order of the data for another.

use lth_train::BoxError;

use crate::plan::FitPlan;
use crate::{Error, Examples};

/// The other order, and where it begins.
pub(crate) struct Branched<E> {
    other: E,
    /// The epoch of the training in which it begins, and how many of its batches are the first order's.
    at: (u64, usize),
}

/// What a fit's branch needs; `None` if it has none.
///
/// # Errors
/// If the other order cannot be had.
pub(crate) fn branched<E: Examples>(fit: &FitPlan, examples: &E, n_batches: u32) -> Result<Option<Branched<E>>, Error> {
    let Some(branch) = &fit.branch else { return Ok(None) };
    let other = examples.branch(branch.number).ok_or_else(|| Error::Plan {
        field: format!("branch of fit {}", fit.address),
        got: "another data order".into(),
        expected: "none: these data have but one".into(),
    })?;
    let other = other.map_err(Error::Data)?;
    let iterations = branch.at.iterations(n_batches);
    let n_batches = u64::from(n_batches.max(1));
    let within = usize::try_from(iterations % n_batches).unwrap_or(usize::MAX);
    Ok(Some(Branched { other, at: (iterations / n_batches, within) }))
}

impl<E: Examples> Branched<E> {
    /// The batches of an epoch. `since_start`: the epoch as the fit's steps count it; `epoch`: as the data do.
    ///
    /// As in open_lth, what is left of the epoch under way are the other order's last batches: some examples of it are
    /// seen twice, and some not.
    pub(crate) fn train<'a>(
        &'a self,
        examples: &'a E,
        since_start: u64,
        epoch: u64,
    ) -> Box<dyn Iterator<Item = Result<E::Batch, BoxError>> + 'a> {
        let (first, within) = self.at;
        match since_start.cmp(&first) {
            std::cmp::Ordering::Less => examples.train(epoch),
            std::cmp::Ordering::Equal if within > 0 => {
                Box::new(examples.train(epoch).take(within).chain(self.other.train(epoch).skip(within)))
            }
            _ => self.other.train(epoch),
        }
    }
}
