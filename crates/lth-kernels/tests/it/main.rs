//! The operators against golden values, naive implementations and finite differences.

mod common;
mod conv;
mod epilogue;
mod extremes;
mod layers;
mod linear;
mod memory;
mod optim;
mod optimised;
mod pool;
mod random_shapes;
mod second;
mod threads;
mod types;
