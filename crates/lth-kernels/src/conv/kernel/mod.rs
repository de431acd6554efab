//! The inner loops of convolutions and linear layers, for every instruction set.

pub(crate) mod simd;
pub(crate) mod table;
pub(crate) mod tile;
pub(crate) mod winograd;
