//! What a runner tells while it works.

use lth_runs::Address;
use lth_runs::experiment::{FitRecord, Measurement, PathRecord};

use crate::plan::FitPlan;

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice<'a> {
    /// The fit is there already.
    Skipped {
        /// Its record.
        record: &'a FitRecord,
    },
    /// The fit cannot be done: one that it rests on failed.
    LeftOut {
        /// Which one.
        fit: &'a FitPlan,
        /// The one that failed or was left out itself.
        needed: &'a Address,
    },
    /// The fit begins.
    Started {
        /// Which one.
        fit: &'a FitPlan,
        /// Its place in the plan, from 0.
        index: usize,
        /// Fits of the plan.
        n_fits: usize,
        /// Steps that it takes.
        n_steps: u64,
    },
    /// The fit goes on where an earlier process was stopped.
    Resumed {
        /// Which one.
        fit: &'a Address,
        /// The next step, counted from the start of the training.
        step: u64,
    },
    /// A fit that goes on has these figures from before.
    Remembered {
        /// Which one.
        fit: &'a Address,
        /// Its figures, in order.
        history: &'a [Measurement],
    },
    /// The fit has a checkpoint that cannot be used, and begins at its start.
    BegunAnew {
        /// Which one.
        fit: &'a Address,
        /// What is wrong with the checkpoint.
        reason: &'a str,
    },
    /// The optimiser has moved.
    Stepped {
        /// The fit.
        fit: &'a Address,
        /// Steps that it has taken.
        n_done: u64,
        /// Smoothed training loss.
        loss: Option<f64>,
    },
    /// Pruning while training: what a [`lth_ticket::Notice`] says.
    Pruned {
        /// The fit.
        fit: &'a Address,
        /// What happened.
        notice: &'a lth_ticket::Notice,
    },
    /// There are new figures.
    Measured {
        /// The fit.
        fit: &'a Address,
        /// The figures.
        at: &'a Measurement,
        /// The learning rate of the step before; absent if there was none.
        learning_rate: Option<f64>,
    },
    /// The path between two networks is measured.
    PathMeasured {
        /// Its record.
        record: &'a PathRecord,
    },
    /// The fit is done, or has failed.
    Ended {
        /// Its record.
        record: &'a FitRecord,
    },
}

/// Is told what happens: a progress bar, a log.
pub trait Observer {
    /// Called at everything worth telling.
    fn on(&mut self, notice: &Notice<'_>);
}

impl<F: FnMut(&Notice<'_>)> Observer for F {
    fn on(&mut self, notice: &Notice<'_>) {
        self(notice);
    }
}
