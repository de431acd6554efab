//! Tests of the trainer through its public interface.

mod check;
mod checkpoint;
mod devices;
mod early_stopping;
mod hooks;
mod hostile;
#[path = "../../../lth-files/tests/it/mutations.rs"]
mod mutations;
mod optimizer;
mod span;
mod task;
mod trainer;
mod validation;
