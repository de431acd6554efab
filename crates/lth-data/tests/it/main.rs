//! The crate as its users see it: from files made here to batches.

mod archives;
mod batches;
mod cache_entries;
mod caching;
mod cifar;
mod datasets;
#[cfg(feature = "digits")]
mod digits;
#[cfg(feature = "download")]
mod download;
#[cfg(feature = "download")]
#[path = "../../../lth-files/tests/it/faults.rs"]
mod faults;
mod folders;
mod golden;
mod hostile;
#[cfg(feature = "download")]
mod http;
mod mnist;
#[path = "../../../lth-files/tests/it/mutations.rs"]
mod mutations;
mod support;
mod toy_pets;
mod training;
