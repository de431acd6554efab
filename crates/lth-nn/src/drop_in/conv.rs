//! Convolutions, along pictures and sequences.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Conv1dConfig, Conv2dConfig, VarBuilder};
use lth_kernels::{Conv1dParams, Conv2dParams, Layout, PatternSlot};

use super::parameters;
use crate::Error;

/// As candle-nn's `Conv2d`: `x` `[N, I, H, W]`. Its `cudnn_fwd_algo` is not looked at.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv2dConfig,
    pattern: PatternSlot,
}

impl Conv2d {
    /// The layer of `weight` `[O, I / groups, H, W]` and `bias` `[O]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: Conv2dConfig) -> Self {
        Self { pattern: PatternSlot::of(&weight), weight, bias, config }
    }

    /// How the kernel moves.
    pub fn config(&self) -> &Conv2dConfig {
        &self.config
    }

    /// The weight, `[O, I / groups, H, W]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, `[O]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for Conv2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Conv2dConfig { padding, stride, dilation, groups, .. } = self.config;
        let params = Conv2dParams {
            stride: (stride, stride),
            padding: (padding, padding),
            dilation: (dilation, dilation),
            groups,
            layout: Layout::Nchw,
        };
        let y = lth_kernels::conv2d(x, &self.weight, self.pattern.get().as_ref(), &params)?;
        match &self.bias {
            Some(bias) => lth_kernels::add_bias(&y, bias, 1),
            None => Ok(y),
        }
    }
}

/// Channels that an output sees.
fn per_group(in_channels: usize, groups: usize) -> Result<usize> {
    let none = || Error::Config { what: "number of groups", got: "0".to_owned(), expected: "at least 1" };
    Ok(in_channels.checked_div(groups).ok_or_else(none)?)
}

/// A new layer with a bias, from `weight` and `bias` of the builder.
/// # Errors
/// If there are no groups, or the builder has tensors of these names with other shapes, or none.
pub fn conv2d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv2dConfig,
    vb: VarBuilder<'_>,
) -> Result<Conv2d> {
    let shape = [out_channels, per_group(in_channels, cfg.groups)?, kernel_size, kernel_size];
    let (weight, bias) = parameters(&shape, in_channels, true, &vb)?;
    Ok(Conv2d::new(weight, bias, cfg))
}

/// A new layer without a bias, from `weight` of the builder.
/// # Errors
/// As [`conv2d`].
pub fn conv2d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv2dConfig,
    vb: VarBuilder<'_>,
) -> Result<Conv2d> {
    let shape = [out_channels, per_group(in_channels, cfg.groups)?, kernel_size, kernel_size];
    let (weight, _) = parameters(&shape, in_channels, false, &vb)?;
    Ok(Conv2d::new(weight, None, cfg))
}

/// As candle-nn's `Conv1d`: `x` `[N, I, L]`. Its `cudnn_fwd_algo` is not looked at.
#[derive(Clone, Debug)]
pub struct Conv1d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv1dConfig,
    pattern: PatternSlot,
}

impl Conv1d {
    /// The layer of `weight` `[O, I / groups, K]` and `bias` `[O]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, config: Conv1dConfig) -> Self {
        Self { pattern: PatternSlot::of(&weight), weight, bias, config }
    }

    /// How the kernel moves.
    pub fn config(&self) -> &Conv1dConfig {
        &self.config
    }

    /// The weight, `[O, I / groups, K]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias, `[O]`.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }
}

impl Module for Conv1d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Conv1dConfig { padding, stride, dilation, groups, .. } = self.config;
        let params = Conv1dParams { stride, padding, dilation, groups };
        let y = lth_kernels::conv1d(x, &self.weight, self.pattern.get().as_ref(), &params)?;
        match &self.bias {
            Some(bias) => lth_kernels::add_bias(&y, bias, 1),
            None => Ok(y),
        }
    }
}

/// A new layer with a bias, from `weight` and `bias` of the builder.
/// # Errors
/// As [`conv2d`].
pub fn conv1d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv1dConfig,
    vb: VarBuilder<'_>,
) -> Result<Conv1d> {
    let (weight, bias) =
        parameters(&[out_channels, per_group(in_channels, cfg.groups)?, kernel_size], in_channels, true, &vb)?;
    Ok(Conv1d::new(weight, bias, cfg))
}

/// A new layer without a bias, from `weight` of the builder.
/// # Errors
/// As [`conv2d`].
pub fn conv1d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv1dConfig,
    vb: VarBuilder<'_>,
) -> Result<Conv1d> {
    let (weight, _) =
        parameters(&[out_channels, per_group(in_channels, cfg.groups)?, kernel_size], in_channels, false, &vb)?;
    Ok(Conv1d::new(weight, None, cfg))
}
