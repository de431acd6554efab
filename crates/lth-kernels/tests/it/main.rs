//! The operators against golden values, naive implementations and finite differences.

mod common;
mod layers;
mod optim;
mod pool;
mod random_shapes;
mod threads;
