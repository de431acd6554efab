//! The crate from outside: folders, files and reports of whole runs.

mod comparing;
#[path = "../../../lth-files/tests/it/faults.rs"]
mod faults;
mod figures;
mod fixture;
mod reporting;
mod round_trip;
mod storing;
mod verdicts;
