//! Batch norm, with the residual addition and the rectifier that follow it.

mod kernel;
mod op;

use crate::composed;
use crate::error::{Error, expect_dtype, expect_shape};
use crate::layout::Layout;
use crate::pool::{Pool2dParams, max_pool2d};
use crate::real::{has_kernels, is_half, widened};
use candle_core::{DType, Result, Tensor};

/// How batch norm runs. `eps` 1e-5 is PyTorch's default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormParams {
    /// Added to the variance.
    pub eps: f64,
    /// The order of the axes; a rank-2 input `[N, C]` goes with [`Layout::Nchw`].
    pub layout: Layout,
    /// Whether `max(·, 0)` follows.
    pub relu: bool,
}

impl Default for BatchNormParams {
    fn default() -> Self {
        BatchNormParams { eps: 1e-5, layout: Layout::Nchw, relu: false }
    }
}

/// What a batch says about each channel; detached.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    /// `[C]`.
    pub mean: Tensor,
    /// `[C]`, unbiased: the sum of squares is divided by one less than the number of values.
    pub var: Tensor,
}

/// The channel axis of `x`, after checking every argument's shape.
fn check(
    op: &'static str,
    x: &Tensor,
    vectors: &[(&'static str, &Tensor)],
    residual: Option<&Tensor>,
    layout: Layout,
) -> std::result::Result<usize, Error> {
    let axis = match (x.rank(), layout) {
        (2, Layout::Nchw) => 1,
        (4, _) => layout.channel_axis(),
        _ => {
            let got = x.dims().to_vec();
            return Err(Error::Rank { op, tensor: "x", expected: 4, got });
        }
    };
    let channels = x.dims()[axis];
    for (name, v) in vectors {
        expect_shape(op, name, v, &[channels])?;
        expect_dtype(op, name, v, x.dtype())?;
    }
    if let Some(residual) = residual {
        expect_shape(op, "residual", residual, x.dims())?;
        expect_dtype(op, "residual", residual, x.dtype())?;
    }
    Ok(axis)
}

/// `y = bn(x) (+ residual)`, rectified if asked, with the batch's own statistics, which are
/// returned too. `x`: `[N, C, H, W]`, `[C, H, W, N]` or `[N, C]`; `weight`, `bias`: `[C]`; `residual`: as
/// `x`. Backward gives the gradients of `x`, `weight`, `bias` and `residual` that are asked for.
///
/// # Errors
/// If a shape does not fit, or if a channel has fewer than two values.
pub fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    params: &BatchNormParams,
) -> Result<(Tensor, BatchStatistics)> {
    let axis = check_train("batch_norm_train", x, weight, bias, residual, params)?;
    if has_kernels(x) {
        return op::train(x, weight, bias, residual, axis, params, None);
    }
    if is_half(x) {
        let residual = residual.map(widened).transpose()?;
        let (weight, bias) = (widened(weight)?, widened(bias)?);
        let found = batch_norm_train(&widened(x)?, &weight, &bias, residual.as_ref(), params)?;
        return narrowed(found, x.dtype());
    }
    composed::batch_norm_train(x, weight, bias, residual, (axis, params.eps, params.relu))
}

/// What f32 gave, in the type of the input.
fn narrowed((y, found): (Tensor, BatchStatistics), dtype: DType) -> Result<(Tensor, BatchStatistics)> {
    Ok((y.to_dtype(dtype)?, BatchStatistics { mean: found.mean.to_dtype(dtype)?, var: found.var.to_dtype(dtype)? }))
}

/// [`max_pool2d`] of [`batch_norm_train`] without a residual, the same numbers: one channel at a time, so that what lies
/// between the two stays in the cache, forward and backward. The pool's layout is that of `params`.
///
/// # Errors
/// As both.
pub fn batch_norm_train_max_pool(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    params: &BatchNormParams,
    pool: &Pool2dParams,
) -> Result<(Tensor, BatchStatistics)> {
    let op = "batch_norm_train_max_pool";
    let axis = check_train(op, x, weight, bias, None, params)?;
    let pool = Pool2dParams { layout: params.layout, ..*pool };
    let windows = pool.check(op, x)?;
    if has_kernels(x) {
        return op::train(x, weight, bias, None, axis, params, Some(windows));
    }
    if is_half(x) {
        let (weight, bias) = (widened(weight)?, widened(bias)?);
        let found = batch_norm_train_max_pool(&widened(x)?, &weight, &bias, params, &pool)?;
        return narrowed(found, x.dtype());
    }
    let (y, statistics) = composed::batch_norm_train(x, weight, bias, None, (axis, params.eps, params.relu))?;
    Ok((max_pool2d(&y, &pool)?, statistics))
}

/// [`check`], and that a channel has enough values.
fn check_train(
    op: &'static str,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    params: &BatchNormParams,
) -> std::result::Result<usize, Error> {
    let axis = check(op, x, &[("weight", weight), ("bias", bias)], residual, params.layout)?;
    let values = x.elem_count().checked_div(x.dims()[axis]).unwrap_or(0);
    if values < 2 {
        return Err(Error::TooFewValues { op, values, got: x.dims().to_vec() });
    }
    Ok(axis)
}

/// `y = bn(x) (+ residual)`, rectified if asked, with the statistics given: `running_mean` and
/// `running_var` of shape `[C]`, taken as constants. Backward gives the gradients of `x`, `weight`,
/// `bias` and `residual` that are asked for.
///
/// # Errors
/// If a shape does not fit.
pub fn batch_norm_eval(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    running_mean: &Tensor,
    running_var: &Tensor,
    residual: Option<&Tensor>,
    params: &BatchNormParams,
) -> Result<Tensor> {
    let vectors = [("weight", weight), ("bias", bias), ("running_mean", running_mean), ("running_var", running_var)];
    let axis = check("batch_norm_eval", x, &vectors, residual, params.layout)?;
    if has_kernels(x) {
        let statistics = (running_mean, running_var);
        return op::eval(x, weight, bias, statistics, residual, axis, params);
    }
    if is_half(x) {
        let [weight, bias, mean, var] = [weight, bias, running_mean, running_var].map(widened);
        let residual = residual.map(widened).transpose()?;
        return batch_norm_eval(&widened(x)?, &weight?, &bias?, &mean?, &var?, residual.as_ref(), params)?
            .to_dtype(x.dtype());
    }
    let vectors = [weight, bias, running_mean, running_var];
    composed::batch_norm_eval(x, vectors, residual, (axis, params.eps, params.relu))
}
