//! Integration tests of lth-nn.

mod files;
mod golden;
mod inference;
mod named;
mod networks;
mod papers;
mod randomness;
mod sparse;
mod transformer;
mod weights;
