//! Pooling over windows and over whole feature maps.

mod global;
mod kernel;
mod op;

use crate::composed;
use crate::error::{Error, expect_lengths, padded};
use crate::layout::{Layout, to_layout};
use crate::real::{has_kernels, is_half, is_half_on_cpu, widened};
use crate::tape::apply1;
use candle_core::{Result, Tensor};
use kernel::Reduce;
pub(crate) use kernel::{Geometry, max_plane, max_plane_gradient};

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

impl Pool2dParams {
    /// The input as planes and the output's shape.
    pub(crate) fn check(&self, op: &'static str, x: &Tensor) -> std::result::Result<(Geometry, [usize; 4]), Error> {
        let (n, c, h, w) = self.layout.sizes(op, "x", x)?;
        let Pool2dParams { kernel, stride, padding, layout } = *self;
        if kernel.0 == 0 || kernel.1 == 0 {
            return Err(Error::Zero { op, parameter: "kernel" });
        }
        if stride.0 == 0 || stride.1 == 0 {
            return Err(Error::Zero { op, parameter: "stride" });
        }
        if padding.0 > kernel.0 / 2 || padding.1 > kernel.1 / 2 {
            return Err(Error::Padding { op, padding, kernel });
        }
        let input = expect_lengths(op, "padding", padding, [padded(h, padding.0), padded(w, padding.1)])?;
        if h == 0 || w == 0 || kernel.0 > input.0 || kernel.1 > input.1 {
            return Err(Error::KernelTooLarge { op, kernel, input });
        }
        let oh = (input.0 - kernel.0) / stride.0 + 1;
        let ow = (input.1 - kernel.1) / stride.1 + 1;
        let (planes, inner) = match layout {
            Layout::Nchw => (n * c, 1),
            Layout::Chwn => (c, n),
        };
        let (input, output) = ((h, w), (oh, ow));
        let geometry = Geometry { planes, inner, input, output, kernel, stride, padding };
        Ok((geometry, layout.shape(n, c, oh, ow)))
    }

    fn pool(&self, op: &'static str, x: &Tensor, reduce: Reduce) -> Result<Tensor> {
        let (geometry, output) = self.check(op, x)?;
        if has_kernels(x) {
            return apply1(&x.contiguous()?, op::Pool { geometry, reduce, output });
        }
        if is_widened(x, reduce) {
            return self.pool(op, &widened(x)?, reduce)?.to_dtype(x.dtype());
        }
        if x.elem_count() == 0 {
            return composed::nothing(&output, &[x]);
        }
        let x = to_layout(x, self.layout, Layout::Nchw)?;
        let y = match reduce {
            Reduce::Max => composed::max_pool2d(&x, self.kernel, self.stride, self.padding)?,
            Reduce::Mean => composed::avg_pool2d(&x, self.kernel, self.stride, self.padding)?,
        };
        to_layout(&y, Layout::Nchw, self.layout)
    }
}

/// The largest value under each window: `[N, C, OH, OW]`, in the input's layout. Padding counts as
/// minus infinity; the gradient goes to the first largest of a window in row order; NaN is larger
/// than everything.
///
/// # Errors
/// If `x` is not of rank 4, a kernel size or stride is 0, the padding is more than half of the
/// kernel, or the kernel is larger than the padded input.
pub fn max_pool2d(x: &Tensor, params: &Pool2dParams) -> Result<Tensor> {
    params.pool("max_pool2d", x, Reduce::Max)
}

/// The mean under each window: `[N, C, OH, OW]`, in the input's layout. Padding counts as values of
/// 0 and in the divisor, as PyTorch's default.
///
/// # Errors
/// As [`max_pool2d`].
pub fn avg_pool2d(x: &Tensor, params: &Pool2dParams) -> Result<Tensor> {
    params.pool("avg_pool2d", x, Reduce::Mean)
}

/// The largest value of each channel of each sample: `[N, C]` whatever the layout. The gradient
/// goes to the first largest in row order; NaN is larger than everything.
///
/// # Errors
/// If `x` is not of rank 4 or a channel has no values.
pub fn global_max_pool(x: &Tensor, layout: Layout) -> Result<Tensor> {
    global_pool("global_max_pool", x, layout, Reduce::Max)
}

/// The mean of each channel of each sample: `[N, C]` whatever the layout.
///
/// # Errors
/// If `x` is not of rank 4 or a channel has no values.
pub fn global_avg_pool(x: &Tensor, layout: Layout) -> Result<Tensor> {
    global_pool("global_avg_pool", x, layout, Reduce::Mean)
}

/// Whether `x` is pooled in f32: sums of half types everywhere, and everything of them on the CPU.
fn is_widened(x: &Tensor, reduce: Reduce) -> bool {
    is_half_on_cpu(x) || (is_half(x) && reduce == Reduce::Mean)
}

fn global_pool(op: &'static str, x: &Tensor, layout: Layout, reduce: Reduce) -> Result<Tensor> {
    let (n, c, h, w) = layout.sizes(op, "x", x)?;
    if h * w == 0 {
        return Err(Error::Empty { op, tensor: "x", got: x.dims().to_vec() }.into());
    }
    if n * c == 0 {
        return composed::nothing(&[n, c], &[x]);
    }
    if has_kernels(x) {
        let op = global::Global { n, c, area: h * w, layout, reduce };
        return apply1(&x.contiguous()?, op);
    }
    if is_widened(x, reduce) {
        return global_pool(op, &widened(x)?, layout, reduce)?.to_dtype(x.dtype());
    }
    let x = to_layout(x, layout, Layout::Nchw)?;
    match reduce {
        Reduce::Max => composed::global_max_pool(&x),
        Reduce::Mean => composed::global_avg_pool(&x),
    }
}
