//! Tests of pruning while training and of the ticket file, through the public interface.

mod dynamic;
mod early_bird;
#[path = "../../../lth-files/tests/it/faults.rs"]
mod faults;
mod file;
mod forms;
mod hooks;
mod lamp;
mod old;
mod pruning;
mod schedules;
mod stream;
mod support;
