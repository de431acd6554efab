//! What is in force for calls from one thread: what tests and benchmarks force upon the kernels, and that patterns are not
//! looked for.

use std::cell::Cell;

use crate::conv::{InstructionSet, Kernel};

#[derive(Clone, Copy, Default)]
pub(crate) struct Forced {
    pub(crate) set: Option<InstructionSet>,
    pub(crate) kernel: Option<Kernel>,
    /// Whether layers compute with the zeros of pruned weights.
    pub(crate) ignores_patterns: bool,
}

thread_local! {
    static FORCED: Cell<Forced> = const { Cell::new(Forced { set: None, kernel: None, ignores_patterns: false }) };
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
