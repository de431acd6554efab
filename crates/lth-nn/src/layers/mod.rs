//! Trainable layers under PyTorch's names.

mod batch_norm;
mod conv;
mod dropout;
mod linear;
mod pattern;

pub use batch_norm::{After, BatchNorm};
pub use conv::{Conv2d, Conv2dConfig};
pub use dropout::Dropout;
pub use linear::Linear;
pub use pattern::{Patterns, Sparse};
