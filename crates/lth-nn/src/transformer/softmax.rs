use candle_core::shape::Dim;
use candle_core::{D, Result, Tensor};

use super::widened;

/// The softmax of `x` along `axis`, of `x`'s shape and type. Stable at any finite values.
/// # Errors
/// If `x` has no such axis or candle fails.
pub fn softmax(x: &Tensor, axis: impl Dim) -> Result<Tensor> {
    let axis = axis.to_index(x.shape(), "softmax")?;
    let wide = widened(x)?;
    // The largest is subtracted as a constant: the result does not depend on it.
    let exponentials = wide.broadcast_sub(&wide.detach().max_keepdim(axis)?)?.exp()?;
    exponentials.broadcast_div(&exponentials.sum_keepdim(axis)?)?.to_dtype(x.dtype())
}

/// [`softmax`] along the last axis: candle-nn's `softmax_last_dim` with a backward pass.
/// # Errors
/// If `x` is a scalar or candle fails.
pub fn softmax_last_dim(x: &Tensor) -> Result<Tensor> {
    softmax(x, D::Minus1)
}
