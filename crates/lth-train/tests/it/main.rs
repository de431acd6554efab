//! Tests of the trainer through its public interface.

mod optimizer;
mod trainer;
