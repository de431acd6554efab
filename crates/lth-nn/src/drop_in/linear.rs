//! The linear layer.

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use lth_kernels::PatternSlot;

use super::parameters;

/// As candle-nn's `Linear`: `y = x · weightᵀ + bias`, over the last axis of `x`, which has two or more.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    pattern: PatternSlot,
}

impl Linear {
    /// The layer of `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { pattern: PatternSlot::of(&weight), weight, bias }
    }

    /// The weight, `[outputs, inputs]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, `[outputs]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let pattern = self.pattern.get();
        let linear = |x: &Tensor| lth_kernels::linear(x, &self.weight, self.bias.as_ref(), pattern.as_ref());
        let [leading @ .., inputs] = x.dims() else { return linear(x) };
        if leading.len() < 2 {
            return linear(x);
        }
        // Every position is a sample.
        let rows = lth_kernels::reshape(x, (leading.iter().product::<usize>(), *inputs))?;
        let shape = [leading, &[self.weight.dim(0)?]].concat();
        lth_kernels::reshape(&linear(&rows)?, shape)
    }
}

/// A new layer with a bias, from `weight` and `bias` of the builder.
/// # Errors
/// If the builder has tensors of these names with other shapes, or none.
pub fn linear(in_dim: usize, out_dim: usize, vb: VarBuilder<'_>) -> Result<Linear> {
    linear_b(in_dim, out_dim, true, vb)
}

/// A new layer without a bias, from `weight` of the builder.
/// # Errors
/// As [`linear()`].
pub fn linear_no_bias(in_dim: usize, out_dim: usize, vb: VarBuilder<'_>) -> Result<Linear> {
    linear_b(in_dim, out_dim, false, vb)
}

/// A new layer, with a bias or without.
/// # Errors
/// As [`linear()`].
pub fn linear_b(in_dim: usize, out_dim: usize, bias: bool, vb: VarBuilder<'_>) -> Result<Linear> {
    let (weight, bias) = parameters(&[out_dim, in_dim], in_dim, bias, &vb)?;
    Ok(Linear::new(weight, bias))
}
