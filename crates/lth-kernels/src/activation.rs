//! The rectifier.

use crate::composed;
use candle_core::{Result, Tensor};

/// `max(x, 0)`, any shape. The gradient at 0 is 0 (as in PyTorch; candle's is 1); NaN stays NaN.
///
/// # Errors
/// If candle fails to allocate or run.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    composed::relu(x)
}
