//! The crate from outside: folders, files and reports of whole runs.

mod comparing;
mod figures;
mod fixture;
mod reporting;
mod round_trip;
mod storing;
mod verdicts;
