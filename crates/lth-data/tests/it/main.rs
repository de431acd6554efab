//! The crate as its users see it: from files made here to batches.

mod archives;
mod batches;
mod caching;
mod folders;
mod golden;
mod support;
