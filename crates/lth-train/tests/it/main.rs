//! Tests of the trainer through its public interface.

mod check;
mod optimizer;
mod trainer;
