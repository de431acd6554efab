//! The linear layer.

use crate::composed;
use crate::conv;
use crate::elementwise::add_bias;
use crate::error::{expect_dtype, expect_rank, expect_shape};
use crate::pattern::Pattern;
use crate::real::{has_kernels, is_half_on_cpu, widened};
use candle_core::{Result, Tensor};

/// `x · weightᵀ + bias`: `[N, O]` from `x` `[N, I]`, `weight` `[O, I]`, `bias` `[O]`. Where `pattern` has
/// zeros the weight counts as 0 and its gradient is 0.
///
/// # Errors
/// If a shape does not fit or types differ.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, pattern: Option<&Pattern>) -> Result<Tensor> {
    let op = "linear";
    expect_rank(op, "x", x, 2)?;
    expect_rank(op, "weight", weight, 2)?;
    let (n, inputs) = x.dims2()?;
    let (outputs, weight_inputs) = weight.dims2()?;
    expect_shape(op, "x", x, &[n, weight_inputs])?;
    expect_dtype(op, "weight", weight, x.dtype())?;
    if let Some(bias) = bias {
        expect_shape(op, "bias", bias, &[outputs])?;
        expect_dtype(op, "bias", bias, x.dtype())?;
    }
    if let Some(pattern) = pattern {
        pattern.expect_fits(op, weight)?;
    }
    if is_half_on_cpu(x) {
        let bias = bias.map(widened).transpose()?;
        return linear(&widened(x)?, &widened(weight)?, bias.as_ref(), pattern)?.to_dtype(x.dtype());
    }
    if !has_kernels(x) || n * inputs * outputs == 0 {
        let masked = pattern.map(|pattern| pattern.apply(op, weight)).transpose()?;
        return composed::linear(x, masked.as_ref().unwrap_or(weight), bias);
    }
    let y = conv::op::product(&x.contiguous()?, &weight.contiguous()?, pattern)?;
    match bias {
        Some(bias) => add_bias(&y, bias, 1),
        None => Ok(y),
    }
}
