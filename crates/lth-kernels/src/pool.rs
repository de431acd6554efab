//! Pooling over windows and over whole feature maps.

use crate::composed;
use crate::error::Error;
use crate::layout::{Layout, to_layout};
use candle_core::{Result, Tensor};

/// How a window moves over a feature map. No value is a natural default for `kernel`, so there is
/// no `Default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pool2dParams {
    /// Height and width of the window.
    pub kernel: (usize, usize),
    /// Steps down and right.
    pub stride: (usize, usize),
    /// Rows above and below, columns left and right; at most half of the kernel.
    pub padding: (usize, usize),
    /// The order of the axes.
    pub layout: Layout,
}

/// Sizes of a checked pooling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolShape {
    pub(crate) n: usize,
    pub(crate) c: usize,
    pub(crate) oh: usize,
    pub(crate) ow: usize,
}

impl Pool2dParams {
    fn check(&self, op: &'static str, x: &Tensor) -> std::result::Result<PoolShape, Error> {
        let (n, c, h, w) = self.layout.sizes(op, "x", x)?;
        let Pool2dParams { kernel, stride, padding, .. } = *self;
        if kernel.0 == 0 || kernel.1 == 0 {
            return Err(Error::Zero { op, parameter: "kernel" });
        }
        if stride.0 == 0 || stride.1 == 0 {
            return Err(Error::Zero { op, parameter: "stride" });
        }
        if padding.0 > kernel.0 / 2 || padding.1 > kernel.1 / 2 {
            return Err(Error::Padding { op, padding, kernel });
        }
        let input = (h + 2 * padding.0, w + 2 * padding.1);
        if h == 0 || w == 0 || kernel.0 > input.0 || kernel.1 > input.1 {
            return Err(Error::KernelTooLarge { op, kernel, input });
        }
        let oh = (input.0 - kernel.0) / stride.0 + 1;
        let ow = (input.1 - kernel.1) / stride.1 + 1;
        Ok(PoolShape { n, c, oh, ow })
    }
}

/// The largest value under each window: [N, C, OH, OW], in the input's layout. Padding counts as
/// minus infinity; the gradient goes to the first largest of a window in row order; NaN is larger
/// than everything.
///
/// # Errors
/// If `x` is not of rank 4, a kernel size or stride is 0, the padding is more than half of the
/// kernel, or the kernel is larger than the padded input.
pub fn max_pool2d(x: &Tensor, params: &Pool2dParams) -> Result<Tensor> {
    let shape = params.check("max_pool2d", x)?;
    if shape.n * shape.c == 0 {
        return empty(x, params.layout, &shape);
    }
    let x = to_layout(x, params.layout, Layout::Nchw)?;
    let y = composed::max_pool2d(&x, params.kernel, params.stride, params.padding)?;
    to_layout(&y, Layout::Nchw, params.layout)
}

/// The mean under each window: [N, C, OH, OW], in the input's layout. Padding counts as values of
/// 0 and in the divisor, as PyTorch's default.
///
/// # Errors
/// As [`max_pool2d`].
pub fn avg_pool2d(x: &Tensor, params: &Pool2dParams) -> Result<Tensor> {
    let shape = params.check("avg_pool2d", x)?;
    if shape.n * shape.c == 0 {
        return empty(x, params.layout, &shape);
    }
    let x = to_layout(x, params.layout, Layout::Nchw)?;
    let y = composed::avg_pool2d(&x, params.kernel, params.stride, params.padding)?;
    to_layout(&y, Layout::Nchw, params.layout)
}

fn empty(x: &Tensor, layout: Layout, s: &PoolShape) -> Result<Tensor> {
    Tensor::zeros(&layout.shape(s.n, s.c, s.oh, s.ow), x.dtype(), x.device())
}

/// The largest value of each channel of each sample: [N, C] whatever the layout. The gradient
/// goes to the first largest in row order; NaN is larger than everything.
///
/// # Errors
/// If `x` is not of rank 4 or a channel has no values.
pub fn global_max_pool(x: &Tensor, layout: Layout) -> Result<Tensor> {
    check_global("global_max_pool", x, layout)?;
    composed::global_max_pool(&to_layout(x, layout, Layout::Nchw)?)
}

/// The mean of each channel of each sample: [N, C] whatever the layout.
///
/// # Errors
/// If `x` is not of rank 4 or a channel has no values.
pub fn global_avg_pool(x: &Tensor, layout: Layout) -> Result<Tensor> {
    check_global("global_avg_pool", x, layout)?;
    composed::global_avg_pool(&to_layout(x, layout, Layout::Nchw)?)
}

fn check_global(op: &'static str, x: &Tensor, layout: Layout) -> std::result::Result<(), Error> {
    let (_, _, h, w) = layout.sizes(op, "x", x)?;
    if h * w == 0 {
        return Err(Error::Empty { op, tensor: "x", got: x.dims().to_vec() });
    }
    Ok(())
}
