//! Tests of pruning while training and of the ticket file, through the public interface.

mod devices;
mod dynamic;
mod early_bird;
#[path = "../../../lth-files/tests/it/faults.rs"]
mod faults;
mod file;
mod forms;
mod hooks;
mod hostile;
mod lamp;
#[path = "../../../lth-files/tests/it/mutations.rs"]
mod mutations;
mod old;
mod pruning;
mod schedules;
mod stream;
mod support;
#[path = "../../../lth-files/tests/it/writers.rs"]
mod writers;
