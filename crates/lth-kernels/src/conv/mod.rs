//! Convolution, dense and sparse, with the gradients that are asked for.
//!
//! - `geometry`: which source positions a target position needs, forward and backward alike
//! - `kernel`: the inner loops for every instruction set
//! - `dense`, `dense_weight`: the dense drivers; `winograd`: those of 3×3 convolutions by tiles; `whole`: the cheaper of both
//! - `lattice`, `tiling`, `program`, `sparse`: a mask made into lists, and the drivers that walk them
//! - `product`: linear layers of few samples
//! - `flat`, `unfold`: small batches in `[N, C, H, W]`; `dots`: few positions in all, along the reduction
//! - `compact`: filters and channels that are pruned whole
//! - `mend`: sums that are not finite, from kept weights inside the picture alone
//! - `epilogue`: what follows, in the same pass where it can be
//! - `cost`: which of these runs a layer
//! - `pass`: a pass over slices, on whichever of these runs it; `op`: candle's operators
//! - `packed`: inference, where the weight no longer changes

pub(crate) mod compact;
pub(crate) mod cost;
mod dense;
mod dense_weight;
mod dots;
mod epilogue;
pub(crate) mod flat;
mod geometry;
pub(crate) mod kernel;
mod lattice;
mod mend;
pub(crate) mod op;
mod packed;
mod pass;
mod product;
pub(crate) mod program;
mod scratch;
pub(crate) mod single;
mod sparse;
mod tiling;
mod unfold;
mod whole;
mod winograd;

pub use self::cost::Kernel;
pub(crate) use self::geometry::{Direction, Geometry};
pub(crate) use self::kernel::simd::Float;
pub use self::kernel::table::InstructionSet;
pub(crate) use self::kernel::table::Number;
pub use self::packed::{PackedConv2d, PackedLinear};
use crate::composed;
use crate::elementwise::{add_bias_relu, reshape};
use crate::error::{Error, expect_dtype, expect_lengths, expect_rank, expect_shape, padded};
use crate::layout::{Layout, to_layout};
use crate::pattern::Pattern;
use crate::real::{has_kernels, is_half_on_cpu, widened};
use candle_core::{Result, Tensor};

/// Below this batch, an input in [`Layout::Nchw`] stays in it.
const SMALL_BATCH: usize = 16;

/// Values of the largest output that is tried: four terabytes of f32.
const MAX_LEN: usize = 1 << 40;

/// How a kernel moves over a feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dParams {
    /// Steps down and right.
    pub stride: (usize, usize),
    /// Rows of zeros above and below, columns left and right.
    pub padding: (usize, usize),
    /// Distance of the kernel's rows and columns in the input.
    pub dilation: (usize, usize),
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// The order of the axes of input and output.
    pub layout: Layout,
}

impl Default for Conv2dParams {
    fn default() -> Self {
        Conv2dParams { stride: (1, 1), padding: (0, 0), dilation: (1, 1), groups: 1, layout: Layout::Nchw }
    }
}

/// The convolution of `x` ([N, I, H, W] or [I, H, W, N]) with `weight` [O, I / groups, KH, KW], in
/// `x`'s layout. Where `pattern` has zeros the weight counts as 0 and its gradient is 0.
///
/// # Errors
/// If a shape does not fit, types differ, a parameter is 0 or so large that sizes overflow, or the kernel is larger than
/// the padded input.
pub fn conv2d(x: &Tensor, weight: &Tensor, pattern: Option<&Pattern>, params: &Conv2dParams) -> Result<Tensor> {
    let op = "conv2d";
    expect_rank(op, "x", x, 4)?;
    expect_rank(op, "weight", weight, 4)?;
    if let Some(pattern) = pattern {
        pattern.expect_fits(op, weight)?;
    }
    convolved(op, x, weight, pattern, params)
}

/// [`add_bias_relu`](crate::add_bias_relu) of [`conv2d`] and `bias` `[O]`, to the same bits: in the convolution's own pass
/// where its kernel can (Winograd's), and in place where it cannot.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use lth_kernels::{Conv2dParams, conv2d_bias_relu};
///
/// # fn main() -> candle_core::Result<()> {
/// let x = Tensor::ones((1, 3, 4, 4), DType::F32, &Device::Cpu)?;
/// let weight = Tensor::ones((2, 3, 3, 3), DType::F32, &Device::Cpu)?;
/// let bias = Tensor::new(&[-20f32, -30.], &Device::Cpu)?;
/// let y = conv2d_bias_relu(&x, &weight, &bias, None, &Conv2dParams::default())?;
/// assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [7., 7., 7., 7., 0., 0., 0., 0.]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// As both.
pub fn conv2d_bias_relu(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    pattern: Option<&Pattern>,
    params: &Conv2dParams,
) -> Result<Tensor> {
    let op = "conv2d_bias_relu";
    expect_rank(op, "x", x, 4)?;
    expect_rank(op, "weight", weight, 4)?;
    if let Some(pattern) = pattern {
        pattern.expect_fits(op, weight)?;
    }
    expect_dtype(op, "weight", weight, x.dtype())?;
    let (geometry, layout) = (geometry(op, x.dims(), weight.dims(), params)?, params.layout);
    expect_shape(op, "bias", bias, &[geometry.out_channels])?;
    expect_dtype(op, "bias", bias, x.dtype())?;
    let is_empty = geometry.batch * geometry.in_channels * geometry.out_channels == 0;
    if is_empty || !has_kernels(x) || native_layout(geometry.batch, layout) == Layout::Nchw {
        return add_bias_relu(&convolved(op, x, weight, pattern, params)?, bias, layout.channel_axis());
    }
    let x = to_layout(x, layout, Layout::Chwn)?.contiguous()?;
    let y = op::convolve_rectified(&x, &weight.contiguous()?, &bias.contiguous()?, geometry, pattern)?;
    to_layout(&y, Layout::Chwn, layout)
}

/// How a kernel moves along a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv1dParams {
    /// Steps along it.
    pub stride: usize,
    /// Zeros before and behind it.
    pub padding: usize,
    /// Distance of the kernel's places in the input.
    pub dilation: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Conv1dParams {
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// The convolution of `x` [N, I, L] with `weight` [O, I / groups, K] along the last axis: [N, O, L']. Where `pattern` has
/// zeros the weight counts as 0 and its gradient is 0.
///
/// # Errors
/// As [`conv2d`], of a picture of one row.
pub fn conv1d(x: &Tensor, weight: &Tensor, pattern: Option<&Pattern>, params: &Conv1dParams) -> Result<Tensor> {
    let op = "conv1d";
    expect_rank(op, "x", x, 3)?;
    expect_rank(op, "weight", weight, 3)?;
    let (mut weight, mut pattern) = (weight.clone(), pattern);
    if let Some(own) = pattern {
        own.expect_fits(op, &weight)?;
        // Elsewhere a mask is multiplied, which wants the mask's own shape.
        if !has_kernels(x) && !is_half_on_cpu(x) {
            (weight, pattern) = (own.apply(op, &weight)?, None);
        }
    }
    let Conv1dParams { stride, padding, dilation, groups } = *params;
    let ([n, channels, len], [_, per_group, _]) = (dims3(x), dims3(&weight));
    if groups > 0 && per_group.checked_mul(groups) != Some(channels) {
        let expected = vec![n, per_group.saturating_mul(groups), len];
        return Err(Error::Shape { op, tensor: "x", expected, got: x.dims().to_vec() }.into());
    }
    let params = Conv2dParams {
        stride: (1, stride),
        padding: (0, padding),
        dilation: (1, dilation),
        groups,
        layout: Layout::Nchw,
    };
    let row = |tensor: &Tensor| {
        let [first, second, len] = dims3(tensor);
        reshape(tensor, (first, second, 1, len))
    };
    let y = convolved(op, &row(x)?, &row(&weight)?, pattern, &params)?;
    let (n, channels, _, len) = y.dims4()?;
    reshape(&y, (n, channels, len))
}

/// Of a tensor whose rank is known to be 3.
fn dims3(x: &Tensor) -> [usize; 3] {
    std::array::from_fn(|axis| x.dims()[axis])
}

/// [`conv2d`] with a pattern that is known to fit.
fn convolved(
    op: &'static str,
    x: &Tensor,
    weight: &Tensor,
    pattern: Option<&Pattern>,
    params: &Conv2dParams,
) -> Result<Tensor> {
    expect_dtype(op, "weight", weight, x.dtype())?;
    let geometry = geometry(op, x.dims(), weight.dims(), params)?;
    let layout = params.layout;
    let Geometry { batch, in_channels, out_channels, output, stride, .. } = geometry;
    if batch * in_channels * out_channels == 0 {
        return composed::nothing(&layout.shape(batch, out_channels, output[0], output[1]), &[x, weight]);
    }
    if is_half_on_cpu(x) {
        return convolved(op, &widened(x)?, &widened(weight)?, pattern, params)?.to_dtype(x.dtype());
    }
    if has_kernels(x) {
        let inner = native_layout(batch, layout);
        let x = to_layout(x, layout, inner)?.contiguous()?;
        let y = op::convolve(&x, &weight.contiguous()?, geometry, pattern, inner)?;
        return to_layout(&y, inner, layout);
    }
    let masked = pattern.map(|pattern| pattern.apply(op, weight)).transpose()?;
    let x = to_layout(x, layout, Layout::Nchw)?;
    let params = Conv2dParams { stride: stride.into(), ..*params };
    let y = composed::conv2d(&x, masked.as_ref().unwrap_or(weight), &params)?;
    to_layout(&y, Layout::Nchw, layout)
}

/// What computes the three passes of a masked convolution in f32 on this machine's CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2dKernels {
    /// The forward pass.
    pub forward: Kernel,
    /// The gradient with respect to the input.
    pub input_gradient: Kernel,
    /// The gradient with respect to the weight.
    pub weight_gradient: Kernel,
    /// Multiplications that a dense forward pass makes, taps outside the picture left out.
    pub dense_multiplications: u64,
}

/// Which kernels [`conv2d`] picks for an input of shape `x` (in `params.layout`) and a weight of shape `weight` of
/// which the fraction `density` is kept, spread irregularly: a pure function of these and of the instruction set.
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_kernels(x: &[usize], weight: &[usize], density: f64, params: &Conv2dParams) -> Result<Conv2dKernels> {
    let op = "conv2d_kernels";
    for (tensor, dims) in [("x", x), ("weight", weight)] {
        if dims.len() != 4 {
            return Err(Error::Rank { op, tensor, expected: 4, got: dims.to_vec() }.into());
        }
    }
    let geometry = geometry(op, x, weight, params)?;
    let map = cost::Pass::Map(Direction::Forward);
    let (forward, pass) = match native_layout(geometry.batch, params.layout) {
        Layout::Nchw => (unfold::unfolded(&geometry), dots::pass(&geometry, f32::kernels().lanes).unwrap_or(map)),
        Layout::Chwn => (geometry, map),
    };
    let set = InstructionSet::active();
    let kept = cost::Kept::irregular(density);
    let choose = |geometry: &Geometry, pass| cost::choose(geometry, &kept, pass, set);
    Ok(Conv2dKernels {
        forward: choose(&forward, pass),
        input_gradient: choose(&geometry, cost::Pass::Map(Direction::InputGradient)),
        weight_gradient: choose(&geometry, cost::Pass::WeightGradient),
        dense_multiplications: cost::multiplications(&geometry),
    })
}

/// The layout in which an input is computed: a small batch does not fill vectors, there they run over positions.
fn native_layout(batch: usize, layout: Layout) -> Layout {
    if layout == Layout::Nchw && batch < SMALL_BATCH { Layout::Nchw } else { Layout::Chwn }
}

fn geometry(op: &'static str, x: &[usize], weight: &[usize], params: &Conv2dParams) -> Result<Geometry> {
    let Conv2dParams { stride, padding, dilation, groups, layout } = *params;
    let (batch, in_channels, h, w) = match layout {
        Layout::Nchw => (x[0], x[1], x[2], x[3]),
        Layout::Chwn => (x[3], x[0], x[1], x[2]),
    };
    let (out_channels, per_group, kh, kw) = (weight[0], weight[1], weight[2], weight[3]);
    for (parameter, value) in [
        ("stride", stride.0.min(stride.1)),
        ("dilation", dilation.0.min(dilation.1)),
        ("groups", groups),
        ("kernel", kh.min(kw)),
    ] {
        if value == 0 {
            return Err(Error::Zero { op, parameter }.into());
        }
    }
    if out_channels % groups != 0 {
        return Err(Error::Groups { op, tensor: "weight", groups, got: weight.to_vec() }.into());
    }
    if in_channels != per_group * groups {
        let expected = layout.shape(batch, per_group * groups, h, w).to_vec();
        return Err(Error::Shape { op, tensor: "x", expected, got: x.to_vec() }.into());
    }
    let extent = |dilation: usize, taps: usize| dilation.checked_mul(taps - 1)?.checked_add(1);
    let kernel = expect_lengths(op, "dilation", dilation, [extent(dilation.0, kh), extent(dilation.1, kw)])?;
    let input = expect_lengths(op, "padding", padding, [padded(h, padding.0), padded(w, padding.1)])?;
    if h == 0 || w == 0 || kernel.0 > input.0 || kernel.1 > input.1 {
        return Err(Error::KernelTooLarge { op, kernel, input }.into());
    }
    // A stride that leaves the picture has the one output that any such stride has.
    let stride = [stride.0.min(input.0), stride.1.min(input.1)];
    let output = [(input.0 - kernel.0) / stride[0] + 1, (input.1 - kernel.1) / stride[1] + 1];
    let len = [batch, out_channels, output[1]].into_iter().try_fold(output[0], usize::checked_mul);
    if len.is_none_or(|len| len > MAX_LEN) {
        return Err(Error::TooLarge { op, parameter: "padding", got: padding }.into());
    }
    Ok(Geometry {
        batch,
        in_channels,
        out_channels,
        groups,
        input: [h, w],
        kernel: [kh, kw],
        output,
        stride,
        padding: padding.into(),
        dilation: dilation.into(),
    })
}

#[cfg(test)]
mod tests;
