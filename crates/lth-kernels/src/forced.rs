//! What tests and benchmarks force upon the kernels, for calls from one thread.

use std::cell::Cell;

use crate::conv::{InstructionSet, Kernel};

#[derive(Clone, Copy, Default)]
pub(crate) struct Forced {
    pub(crate) set: Option<InstructionSet>,
    pub(crate) kernel: Option<Kernel>,
}

thread_local! {
    static FORCED: Cell<Forced> = const { Cell::new(Forced { set: None, kernel: None }) };
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
