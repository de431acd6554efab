//! Integration tests of lth-nn.

mod golden;
mod named;
mod networks;
mod randomness;
mod sparse;
mod weights;
