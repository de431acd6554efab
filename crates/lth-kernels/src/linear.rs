//! The linear layer.

use crate::composed;
use crate::error::{expect_rank, expect_shape};
use crate::pattern::Pattern;
use candle_core::{Result, Tensor};

/// `x · weightᵀ + bias`: [N, O] from `x` [N, I], `weight` [O, I], `bias` [O]. Where `pattern` has
/// zeros the weight counts as 0 and its gradient is 0.
///
/// # Errors
/// If a shape does not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, pattern: Option<&Pattern>) -> Result<Tensor> {
    let op = "linear";
    expect_rank(op, "x", x, 2)?;
    expect_rank(op, "weight", weight, 2)?;
    let (n, inputs) = x.dims2()?;
    let (outputs, weight_inputs) = weight.dims2()?;
    expect_shape(op, "x", x, &[n, weight_inputs])?;
    debug_assert_eq!(inputs, weight_inputs);
    if let Some(bias) = bias {
        expect_shape(op, "bias", bias, &[outputs])?;
    }
    match pattern {
        Some(pattern) => composed::linear(x, &pattern.apply(op, weight)?, bias),
        None => composed::linear(x, weight, bias),
    }
}
