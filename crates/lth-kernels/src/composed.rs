//! Every operator composed of candle's own: the path for GPUs and for types without a kernel
//! here, and the reference for the kernels' tests.
//!
//! Backward passes come from candle, so only operators whose gradient is right in candle are
//! used: no `max_pool2d`, no `avg_pool2d`, no `relu` (its gradient at 0 is 1), no `maximum`
//! (halves the gradient on ties), no `max` (gives all of several largest the gradient).

use crate::conv::Conv2dParams;
use crate::norm::BatchStatistics;
use crate::optim::{AdamStep, Decay, SgdStep};
use crate::real::{is_half, widened};
use candle_core::{D, Result, Tensor, Var};

/// Zeros of a shape, for arguments so empty that there is nothing to compute; every argument has a gradient of zeros.
pub(crate) fn nothing(shape: &[usize], arguments: &[&Tensor]) -> Result<Tensor> {
    // candle's sums and differences of empty tensors have no graph; a sum to a scalar and its broadcast do.
    let mut zero = Tensor::zeros((), arguments[0].dtype(), arguments[0].device())?;
    for argument in arguments {
        // Of no value: a whole argument may hold an infinity.
        zero = (zero + argument.narrow(0, 0, 0)?.sum_all()?)?;
    }
    zero.broadcast_as(shape)?.contiguous()
}

/// Every `stride`-th of `count` slices of `x` along `axis`, from `start` on.
fn strided(x: &Tensor, axis: usize, start: usize, stride: usize, count: usize) -> Result<Tensor> {
    let narrow = x.narrow(axis, start, (count - 1) * stride + 1)?;
    if stride == 1 || count == 1 {
        return Ok(narrow);
    }
    let mut dims = narrow.dims().to_vec();
    dims[axis] = count;
    dims.insert(axis + 1, stride);
    let split = narrow.pad_with_zeros(axis, 0, stride - 1)?.reshape(dims)?;
    split.narrow(axis + 1, 0, 1)?.squeeze(axis + 1)
}

/// `x` with `before` and `after` slices of `value` around it along `axis`.
fn pad(x: &Tensor, axis: usize, before: usize, after: usize, value: f64) -> Result<Tensor> {
    let slices = |n: usize| {
        let mut dims = x.dims().to_vec();
        dims[axis] = n;
        Tensor::full(value as f32, dims, x.device())?.to_dtype(x.dtype())
    };
    match (before, after) {
        (0, 0) => Ok(x.clone()),
        (0, a) => Tensor::cat(&[x, &slices(a)?], axis),
        (b, 0) => Tensor::cat(&[&slices(b)?, x], axis),
        (b, a) => Tensor::cat(&[&slices(b)?, x, &slices(a)?], axis),
    }
}

/// The values under each position of a pooling window, in row order: one `[N, C, OH, OW]` each.
fn windows(
    x: &Tensor,
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
    value: f64,
) -> Result<Vec<Tensor>> {
    let x = pad(&pad(x, 2, padding.0, padding.0, value)?, 3, padding.1, padding.1, value)?;
    let (oh, ow) = ((x.dim(2)? - kernel.0) / stride.0 + 1, (x.dim(3)? - kernel.1) / stride.1 + 1);
    let mut taps = Vec::with_capacity(kernel.0 * kernel.1);
    for i in 0..kernel.0 {
        let rows = strided(&x, 2, i, stride.0, oh)?;
        for j in 0..kernel.1 {
            taps.push(strided(&rows, 3, j, stride.1, ow)?.contiguous()?);
        }
    }
    Ok(taps)
}

/// Max pooling of an `[N, C, H, W]` input; the gradient goes to the first largest in row order.
pub(crate) fn max_pool2d(
    x: &Tensor,
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
) -> Result<Tensor> {
    let taps = windows(x, kernel, stride, padding, f64::NEG_INFINITY)?;
    let mut best = taps[0].clone();
    for tap in &taps[1..] {
        // A NaN is larger than everything; `gt` is false where `best` is one already.
        let larger = (tap.detach().gt(&best.detach())? + tap.detach().ne(&tap.detach())?)?;
        best = larger.ne(&larger.zeros_like()?)?.where_cond(tap, &best)?;
    }
    Ok(best)
}

/// Average pooling of an `[N, C, H, W]` input, padding counted as values of 0.
pub(crate) fn avg_pool2d(
    x: &Tensor,
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
) -> Result<Tensor> {
    let taps = windows(x, kernel, stride, padding, 0.0)?;
    let mut sum = taps[0].clone();
    for tap in &taps[1..] {
        sum = (sum + tap)?;
    }
    sum / (kernel.0 * kernel.1) as f64
}

/// The largest value of each channel of an `[N, C, H, W]` input: `[N, C]`.
pub(crate) fn global_max_pool(x: &Tensor) -> Result<Tensor> {
    let flat = x.flatten_from(2)?.contiguous()?;
    // A NaN is larger than everything, but `argmax` passes it over.
    let values = flat.detach();
    let is_nan = values.ne(&values)?;
    let has_nan = is_nan.max_keepdim(D::Minus1)?;
    let at = has_nan.where_cond(&is_nan.argmax_keepdim(D::Minus1)?, &values.argmax_keepdim(D::Minus1)?)?;
    flat.gather(&at, D::Minus1)?.squeeze(D::Minus1)
}

/// The mean of each channel of an `[N, C, H, W]` input: `[N, C]`.
pub(crate) fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    x.flatten_from(2)?.mean(D::Minus1)
}

/// `max(x, 0)` with gradient 0 at 0; NaN stays NaN.
pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    let zeros = x.zeros_like()?;
    x.detach().le(&zeros)?.where_cond(&zeros, x)
}

/// A per-channel vector as a tensor that broadcasts over `rank` axes, channels at `axis`.
fn per_channel(v: &Tensor, axis: usize, rank: usize) -> Result<Tensor> {
    let mut dims = vec![1; rank];
    dims[axis] = v.elem_count();
    v.reshape(dims)
}

fn finish(y: Tensor, residual: Option<&Tensor>, with_relu: bool) -> Result<Tensor> {
    let y = match residual {
        Some(residual) => (y + residual)?,
        None => y,
    };
    if with_relu { relu(&y) } else { Ok(y) }
}

/// Batch norm with the batch's own statistics, channels at `axis`.
pub(crate) fn batch_norm_train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    (axis, eps, with_relu): (usize, f64, bool),
) -> Result<(Tensor, BatchStatistics)> {
    let rank = x.rank();
    let others: Vec<usize> = (0..rank).filter(|&a| a != axis).collect();
    let values = x.elem_count() / x.dim(axis)?;
    let mean = x.mean_keepdim(others.as_slice())?;
    let centred = x.broadcast_sub(&mean)?;
    let var = centred.sqr()?.mean_keepdim(others.as_slice())?;
    let statistics = BatchStatistics {
        mean: mean.detach().flatten_all()?,
        var: (var.detach().flatten_all()? * (values as f64 / (values - 1) as f64))?,
    };
    let y = centred
        .broadcast_div(&(var + eps)?.sqrt()?)?
        .broadcast_mul(&per_channel(weight, axis, rank)?)?
        .broadcast_add(&per_channel(bias, axis, rank)?)?;
    Ok((finish(y, residual, with_relu)?, statistics))
}

/// Batch norm with given statistics, channels at `axis`.
pub(crate) fn batch_norm_eval(
    x: &Tensor,
    [weight, bias, mean, var]: [&Tensor; 4],
    residual: Option<&Tensor>,
    (axis, eps, with_relu): (usize, f64, bool),
) -> Result<Tensor> {
    let rank = x.rank();
    let scale = (weight / (var.detach() + eps)?.sqrt()?)?;
    let y = x
        .broadcast_sub(&per_channel(&mean.detach(), axis, rank)?)?
        .broadcast_mul(&per_channel(&scale, axis, rank)?)?
        .broadcast_add(&per_channel(bias, axis, rank)?)?;
    finish(y, residual, with_relu)
}

/// The mean of `-log softmax(logits)[target]`, the target's share of which `smoothing` is spread over all classes.
pub(crate) fn cross_entropy(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(1)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(1)?.log()?;
    let mut chosen = shifted.gather(&targets.contiguous()?.unsqueeze(1)?, 1)?;
    if smoothing > 0.0 {
        chosen = ((chosen * (1.0 - smoothing))? + (shifted.mean_keepdim(1)? * smoothing)?)?;
    }
    (log_sum - chosen)?.mean_all()
}

/// `x` with `before` zeros in front along `axis`, then brought to length `len`.
fn fit(x: &Tensor, axis: usize, before: usize, len: usize) -> Result<Tensor> {
    let have = before + x.dim(axis)?;
    let x = pad(x, axis, before, len.saturating_sub(have), 0.0)?;
    if have > len { x.narrow(axis, 0, len) } else { Ok(x) }
}

/// Convolution of an `[N, C, H, W]` input.
pub(crate) fn conv2d(x: &Tensor, weight: &Tensor, params: &Conv2dParams) -> Result<Tensor> {
    let Conv2dParams { stride, padding, dilation, groups, .. } = *params;
    let (_, _, h, w) = x.dims4()?;
    let (_, _, kh, kw) = weight.dims4()?;
    let extent = (dilation.0 * (kh - 1) + 1, dilation.1 * (kw - 1) + 1);
    let (rest_h, rest_w) = ((h + 2 * padding.0 - extent.0) % stride.0, (w + 2 * padding.1 - extent.1) % stride.1);
    let (oh, ow) = ((h + 2 * padding.0 - extent.0) / stride.0 + 1, (w + 2 * padding.1 - extent.1) / stride.1 + 1);
    let square = stride.0 == stride.1 && dilation.0 == dilation.1;
    // candle's backward takes one output padding for both axes: right where both have the same rest.
    if square && padding.0 == padding.1 && rest_h == rest_w {
        return x.conv2d(weight, padding.0, stride.0, dilation.0, groups);
    }
    let x = fit(x, 2, padding.0, (oh - 1) * stride.0 + extent.0)?;
    let x = fit(&x, 3, padding.1, (ow - 1) * stride.1 + extent.1)?;
    if square {
        return x.contiguous()?.conv2d(weight, 0, stride.0, dilation.0, groups);
    }
    // candle has one stride and one dilation for both axes: one 1x1 convolution for each position.
    let mut sum: Option<Tensor> = None;
    for i in 0..kh {
        let rows = strided(&x, 2, i * dilation.0, stride.0, oh)?;
        for j in 0..kw {
            let tap = strided(&rows, 3, j * dilation.1, stride.1, ow)?.contiguous()?;
            let part = weight.narrow(2, i, 1)?.narrow(3, j, 1)?.contiguous()?;
            let y = tap.conv2d(&part, 0, 1, 1, groups)?;
            sum = Some(match sum {
                Some(sum) => (sum + y)?,
                None => y,
            });
        }
    }
    sum.ok_or_else(|| crate::Error::Zero { op: "conv2d", parameter: "kernel" }.into())
}

/// `x` where `mask` is not 0, exactly 0 elsewhere.
pub(crate) fn keep(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    mask.ne(&mask.zeros_like()?)?.where_cond(x, &x.zeros_like()?)
}

fn store(var: &Var, value: &Tensor, mask: Option<&Tensor>) -> Result<()> {
    let value = value.to_dtype(var.dtype())?;
    match mask {
        Some(mask) => var.set(&keep(&value, mask)?),
        None => var.set(&value),
    }
}

/// Zeros where a mask has them.
pub(crate) fn apply_mask(p: &Var, mask: &Tensor) -> Result<()> {
    store(p, &p.as_detached_tensor(), Some(mask))
}

/// `x` without its graph, in the type that a step is computed in.
fn operand(x: &Tensor) -> Result<Tensor> {
    if is_half(x) { widened(&x.detach()) } else { Ok(x.detach()) }
}

/// One step of Adam.
pub(crate) fn adam_step(
    p: &Var,
    grad: &Tensor,
    m: &Var,
    v: &Var,
    mask: Option<&Tensor>,
    step: &AdamStep,
) -> Result<()> {
    let AdamStep { lr, beta1, beta2, eps, weight_decay, decay, step } = *step;
    let (grad, shrink) = match decay {
        Decay::Decoupled => (operand(grad)?, 1.0 - lr * weight_decay),
        Decay::Coupled => ((operand(grad)? + (operand(p)? * weight_decay)?)?, 1.0),
    };
    let grad = &grad;
    let new_m = ((operand(m)? * beta1)? + (grad * (1.0 - beta1))?)?;
    let new_v = ((operand(v)? * beta2)? + (grad.sqr()? * (1.0 - beta2))?)?;
    let correct1 = 1.0 - beta1.powf(step as f64);
    let correct2 = 1.0 - beta2.powf(step as f64);
    let denominator = ((&new_v / correct2)?.sqrt()? + eps)?;
    let update = ((&new_m * (lr / correct1))? / denominator)?;
    let new_p = ((operand(p)? * shrink)? - update)?;
    store(p, &new_p, mask)?;
    store(m, &new_m, mask)?;
    store(v, &new_v, mask)
}

/// One step of SGD.
pub(crate) fn sgd_step(p: &Var, grad: &Tensor, buf: &Var, mask: Option<&Tensor>, step: &SgdStep) -> Result<()> {
    let SgdStep { lr, momentum, weight_decay, decay, nesterov } = *step;
    let grad = operand(grad)?;
    let (p_old, grad) = match decay {
        Decay::Decoupled => ((operand(p)? * (1.0 - lr * weight_decay))?, grad),
        Decay::Coupled => (operand(&p.copy()?)?, (grad + (operand(p)? * weight_decay)?)?),
    };
    let new_buf = ((operand(buf)? * momentum)? + &grad)?;
    let direction = if nesterov { (grad + (&new_buf * momentum)?)? } else { new_buf.clone() };
    store(p, &(p_old - (direction * lr)?)?, mask)?;
    store(buf, &new_buf, mask)
}

/// `x · weightᵀ + bias`.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchNormParams, Layout, Pool2dParams};
    use candle_core::{Device, Var};

    /// Output and input gradient, in f64.
    fn run(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<[Vec<f64>; 2]> {
        let x = Var::from_tensor(x)?;
        let y = f(&x)?;
        let factor = Tensor::arange(0.0, y.elem_count() as f64, x.device())?.sin()?.reshape(y.shape())?;
        let gradients = (&y * factor)?.sum_all()?.backward()?;
        let of = |t: &Tensor| t.flatten_all()?.to_vec1();
        Ok([of(&y)?, of(gradients.get(&x).expect("tracked"))?])
    }

    #[test]
    fn candles_operators_composed_are_the_kernels() -> Result<()> {
        let shape = [3, 2, 7, 6];
        let x = (Tensor::arange(0.0, 252.0, &Device::Cpu)? * 1.7)?.sin()?.reshape(&shape)?;
        let check = |what: &str, composed: [Vec<f64>; 2], kernel: [Vec<f64>; 2]| {
            for (a, b) in composed.iter().flatten().zip(kernel.iter().flatten()) {
                assert!((a - b).abs() < 1e-10, "{what}: {a} and {b}");
            }
        };
        let (kernel, stride, padding, layout) = ((3, 2), (2, 1), (1, 1), Layout::Nchw);
        let pool = Pool2dParams { kernel, stride, padding, layout };
        let of = |f: &dyn Fn(&Tensor) -> Result<Tensor>| run(&x, f);
        check("max pool", of(&|x| max_pool2d(x, kernel, stride, padding))?, of(&|x| crate::max_pool2d(x, &pool))?);
        check("average pool", of(&|x| avg_pool2d(x, kernel, stride, padding))?, of(&|x| crate::avg_pool2d(x, &pool))?);
        check("largest", of(&global_max_pool)?, of(&|x| crate::global_max_pool(x, layout))?);
        check("mean", of(&global_avg_pool)?, of(&|x| crate::global_avg_pool(x, layout))?);
        check("relu", of(&relu)?, of(&crate::relu)?);
        let [a, b] = [Tensor::new(&[1.5, -0.5], &Device::Cpu)?, Tensor::new(&[0.25, 0.75], &Device::Cpu)?];
        let norm = BatchNormParams { relu: true, ..BatchNormParams::default() };
        check(
            "batch norm",
            of(&|x| Ok(batch_norm_train(x, &a, &b, Some(x), (1, norm.eps, true))?.0))?,
            of(&|x| Ok(crate::batch_norm_train(x, &a, &b, Some(x), &norm)?.0))?,
        );
        check(
            "batch norm in evaluation",
            of(&|x| batch_norm_eval(x, [&a, &b, &b, &b], None, (1, norm.eps, true)))?,
            of(&|x| crate::batch_norm_eval(x, &a, &b, &b, &b, None, &norm))?,
        );
        let weight = (Tensor::arange(0.0, 48.0, &Device::Cpu)? * 0.9)?.cos()?.reshape((4, 2, 3, 2))?;
        for (stride, dilation) in [((2, 2), (1, 1)), ((1, 3), (2, 1))] {
            let params = Conv2dParams { stride, dilation, padding: (1, 2), ..Conv2dParams::default() };
            check(
                "convolution",
                of(&|x| conv2d(x, &weight, &params))?,
                of(&|x| crate::conv2d(x, &weight, None, &params))?,
            );
        }
        let targets = Tensor::new(&[3u32, 0, 41], &Device::Cpu)?;
        let flat = |x: &Tensor| x.flatten_from(1);
        for smoothing in [0.0, 0.1] {
            check(
                "cross entropy",
                of(&|x| cross_entropy(&flat(x)?, &targets, smoothing))?,
                of(&|x| crate::smoothed_cross_entropy(&flat(x)?, &targets, smoothing))?,
            );
        }
        Ok(())
    }

    #[test]
    fn the_largest_is_the_first_nan_and_the_gradient_goes_there() -> Result<()> {
        let nan = f32::NAN;
        let x = Var::new(&[[[[1f32, nan, 2.0, nan]]], [[[5.0, 3.0, f32::INFINITY, 4.0]]]], &Device::Cpu)?;
        let y = global_max_pool(&x)?;
        let largest = y.to_vec2::<f32>()?;
        assert!(largest[0][0].is_nan() && largest[1][0] == f32::INFINITY, "{largest:?}");
        let gradients = y.sum_all()?.backward()?;
        let gradient = gradients.get(&x).expect("tracked").flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(gradient, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
        Ok(())
    }
}
