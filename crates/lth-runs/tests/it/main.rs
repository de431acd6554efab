//! The crate from outside: folders, files and reports of whole experiments.

mod analysing;
mod connectivity;
mod events;
#[path = "../../../lth-files/tests/it/faults.rs"]
mod faults;
mod figures;
mod fixture;
mod hostile;
#[path = "../../../lth-files/tests/it/mutations.rs"]
mod mutations;
mod reporting;
mod round_trip;
mod schema_1;
mod storing;
mod verdicts;
mod verifying;
#[path = "../../../lth-files/tests/it/writers.rs"]
mod writers;
