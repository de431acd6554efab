//! Convolution.

use crate::composed;
use crate::error::{Error, expect_rank};
use crate::layout::{Layout, to_layout};
use crate::pattern::Pattern;
use candle_core::{Result, Tensor};

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

/// The convolution of `x` (`[N, I, H, W]` or `[I, H, W, N]`) with `weight` `[O, I / groups, KH, KW]`, in
/// `x`'s layout. Where `pattern` has zeros the weight counts as 0 and its gradient is 0.
///
/// # Errors
/// If a shape does not fit, a parameter is 0, or the kernel is larger than the padded input.
pub fn conv2d(x: &Tensor, weight: &Tensor, pattern: Option<&Pattern>, params: &Conv2dParams) -> Result<Tensor> {
    let op = "conv2d";
    let (n, c, h, w) = params.layout.sizes(op, "x", x)?;
    expect_rank(op, "weight", weight, 4)?;
    let (o, per_group, kh, kw) = weight.dims4()?;
    let Conv2dParams { stride, padding, dilation, groups, layout } = *params;
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
    if o % groups != 0 {
        let got = weight.dims().to_vec();
        return Err(Error::Groups { op, tensor: "weight", groups, got }.into());
    }
    if c != per_group * groups {
        let expected = layout.shape(n, per_group * groups, h, w).to_vec();
        return Err(Error::Shape { op, tensor: "x", expected, got: x.dims().to_vec() }.into());
    }
    let kernel = (dilation.0 * (kh - 1) + 1, dilation.1 * (kw - 1) + 1);
    let input = (h + 2 * padding.0, w + 2 * padding.1);
    if h == 0 || w == 0 || kernel.0 > input.0 || kernel.1 > input.1 {
        return Err(Error::KernelTooLarge { op, kernel, input }.into());
    }
    let masked = match pattern {
        Some(pattern) => Some(pattern.apply(op, weight)?),
        None => None,
    };
    if n * c * o == 0 {
        let (oh, ow) = ((input.0 - kernel.0) / stride.0 + 1, (input.1 - kernel.1) / stride.1 + 1);
        return Tensor::zeros(&layout.shape(n, o, oh, ow), x.dtype(), x.device());
    }
    let x = to_layout(x, layout, Layout::Nchw)?;
    let y = composed::conv2d(&x, masked.as_ref().unwrap_or(weight), params)?;
    to_layout(&y, Layout::Nchw, layout)
}
