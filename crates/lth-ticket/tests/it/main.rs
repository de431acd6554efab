//! Tests of pruning while training and of the ticket file, through the public interface.

mod file;
mod hooks;
mod lamp;
mod pruning;
mod schedules;
mod stream;
mod support;
