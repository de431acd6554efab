//! What is in force for calls from one thread: what tests and benchmarks force upon the kernels, that patterns are not
//! looked for, and that gradients of kept weights are enough.

use std::cell::Cell;

use crate::conv::{InstructionSet, Kernel};

#[derive(Clone, Copy, Default)]
pub(crate) struct Forced {
    pub(crate) set: Option<InstructionSet>,
    pub(crate) kernel: Option<Kernel>,
    /// Whether layers compute with the zeros of pruned weights.
    pub(crate) ignores_patterns: bool,
    /// Whether gradients of masked weights may be those of the kept ones alone.
    pub(crate) keeps_gradients: bool,
}

thread_local! {
    static FORCED: Cell<Forced> = const {
        Cell::new(Forced { set: None, kernel: None, ignores_patterns: false, keeps_gradients: false })
    };
}

impl Forced {
    /// What is in force on this thread.
    pub(crate) fn get() -> Self {
        FORCED.get()
    }

    /// Runs `work` with this in force, and then what was before.
    pub(crate) fn run<R>(self, work: impl FnOnce() -> R) -> R {
        struct Restore(Forced);
        impl Drop for Restore {
            fn drop(&mut self) {
                FORCED.set(self.0);
            }
        }
        let _restore = Restore(FORCED.replace(self));
        work()
    }
}
