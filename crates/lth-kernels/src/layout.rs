//! The order of the axes of feature maps.

use crate::conv::Number;
use crate::error::{Error, expect_rank};
use crate::real::{has_kernels, slice, tensor, with_real, with_values};
use crate::transpose;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Device, Result, Shape, Tensor, WithDType};

/// The order of the axes of a feature map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// Shape `[N, C, H, W]`, as PyTorch's default.
    #[default]
    Nchw,
    /// Shape `[C, H, W, N]`: the batch is innermost, so vector instructions run over the batch and a
    /// sparse weight needs no gathering.
    Chwn,
}

impl Layout {
    /// The layout in which a network runs fastest for a batch of `n`: [`Layout::Chwn`] on the CPU
    /// from 16 samples on, which fill a vector register, else [`Layout::Nchw`]. A pure function of
    /// its arguments.
    pub fn for_batch(n: usize, device: &Device) -> Layout {
        if device.is_cpu() && n >= 16 { Layout::Chwn } else { Layout::Nchw }
    }

    /// Position of the channel axis in a tensor of rank 4.
    pub fn channel_axis(self) -> usize {
        match self {
            Layout::Nchw => 1,
            Layout::Chwn => 0,
        }
    }

    /// (N, C, H, W) of a rank-4 tensor in this layout.
    pub(crate) fn sizes(
        self,
        op: &'static str,
        name: &'static str,
        x: &Tensor,
    ) -> std::result::Result<(usize, usize, usize, usize), Error> {
        expect_rank(op, name, x, 4)?;
        let d = x.dims();
        Ok(match self {
            Layout::Nchw => (d[0], d[1], d[2], d[3]),
            Layout::Chwn => (d[3], d[0], d[1], d[2]),
        })
    }

    /// The shape of a feature map in this layout.
    pub(crate) fn shape(self, n: usize, c: usize, h: usize, w: usize) -> [usize; 4] {
        match self {
            Layout::Nchw => [n, c, h, w],
            Layout::Chwn => [c, h, w, n],
        }
    }
}

/// `x` (rank 4) with its axes moved from one layout to the other, contiguous; `x` itself where
/// both are the same. With backward.
///
/// # Errors
/// If `x` is not of rank 4.
pub fn to_layout(x: &Tensor, from: Layout, to: Layout) -> Result<Tensor> {
    expect_rank("to_layout", "x", x, 4)?;
    if from != to && has_kernels(x) {
        let (n, c, h, w) = from.sizes("to_layout", "x", x)?;
        let rows = match from {
            Layout::Nchw => n,
            Layout::Chwn => c * h * w,
        };
        return transposed(x, rows, &to.shape(n, c, h, w));
    }
    match (from, to) {
        (Layout::Nchw, Layout::Chwn) => x.permute((1, 2, 3, 0))?.contiguous(),
        (Layout::Chwn, Layout::Nchw) => x.permute((3, 0, 1, 2))?.contiguous(),
        (Layout::Nchw, Layout::Nchw) | (Layout::Chwn, Layout::Chwn) => Ok(x.clone()),
    }
}

/// `x` (f32 or f64 on the CPU) as a matrix of `rows`, transposed, in the shape `output`. With
/// backward, and without interrupting [`crate::backward`] as candle's own views do.
pub(crate) fn transposed(x: &Tensor, rows: usize, output: &[usize]) -> Result<Tensor> {
    let columns = x.elem_count().checked_div(rows).unwrap_or(0);
    crate::tape::apply1(&x.contiguous()?, Transpose { rows, columns, output: output.to_vec() })
}

/// The first `columns` columns of `x` `[rows, any]` (f32 or f64 on the CPU) as rows, each with zeros behind it up to `pitch` numbers:
/// `[columns, pitch]`. Without backward.
pub(crate) fn transposed_rows(x: &Tensor, columns: usize, pitch: usize) -> Result<Tensor> {
    let (rows, x_pitch) = x.dims2()?;
    with_real!(x.dtype(), T => {
        let out = with_values(x, |x: &[T]| Ok(transpose_pitched(x, [rows, columns], [x_pitch, pitch])))?;
        tensor(out, &[columns, pitch])
    })
}

/// Both directions of a layout's change are the transposition of a matrix, `[N, C · H · W]` or `[C · H · W, N]`.
struct Transpose {
    rows: usize,
    columns: usize,
    output: Vec<usize>,
}

/// `x` `[rows, columns]` as `[columns, rows]`.
fn transpose<T: Number>(x: &[T], rows: usize, columns: usize) -> Vec<T> {
    transpose_pitched(x, [rows, columns], [columns, rows])
}

/// As [`transpose::transpose_pitched`].
fn transpose_pitched<T: Number>(x: &[T], [rows, columns]: [usize; 2], [x_pitch, pitch]: [usize; 2]) -> Vec<T> {
    let len = columns * pitch;
    let mut out = Vec::with_capacity(len);
    let all = &mut out.spare_capacity_mut()[..len];
    transpose::transpose_pitched(x, [rows, columns], [x_pitch, pitch], all);
    // SAFETY: all of it was written.
    unsafe { out.set_len(len) };
    out
}

impl CustomOp1 for Transpose {
    fn name(&self) -> &'static str {
        "to_layout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &candle_core::Layout) -> Result<(CpuStorage, Shape)> {
        let y = with_real!(x.dtype(), T => {
            let x = slice::<T>("to_layout", x, layout)?;
            T::to_cpu_storage_owned(transpose(x, self.rows, self.columns))
        });
        Ok((y, self.output.as_slice().into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let dx = with_real!(x.dtype(), T => {
            let dx = with_values(dy, |dy: &[T]| Ok(transpose(dy, self.columns, self.rows)))?;
            tensor(dx, x.dims())
        })?;
        Ok(Some(dx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    #[test]
    fn to_layout_moves_the_batch_and_backward_moves_it_back() -> Result<()> {
        for (n, c, h, w) in [(1, 1, 1, 1), (3, 2, 5, 7), (64, 3, 9, 11), (33, 40, 1, 1)] {
            let x = Tensor::arange(0f32, (n * c * h * w) as f32, &Device::Cpu)?;
            let x = candle_core::Var::from_tensor(&x.reshape((n, c, h, w))?)?;
            let y = to_layout(&x, Layout::Nchw, Layout::Chwn)?;
            assert_eq!(y.dims(), [c, h, w, n]);
            let expected = x.permute((1, 2, 3, 0))?.contiguous()?;
            let same = |a: &Tensor, b: &Tensor| -> Result<bool> {
                Ok(a.flatten_all()?.to_vec1::<f32>()? == b.flatten_all()?.to_vec1::<f32>()?)
            };
            assert!(same(&y, &expected)?);
            assert!(same(&to_layout(&y, Layout::Chwn, Layout::Nchw)?, &x)?);
            let gradients = (&y * &y.detach())?.sum_all()?.backward()?;
            assert!(same(gradients.get(&x).expect("tracked"), &x)?);
        }
        let empty = Tensor::zeros((0, 3, 2, 2), DType::F32, &Device::Cpu)?;
        assert_eq!(to_layout(&empty, Layout::Nchw, Layout::Chwn)?.dims(), [3, 2, 2, 0]);
        Ok(())
    }

    #[test]
    fn sixteen_samples_fill_a_register() {
        assert_eq!(Layout::for_batch(15, &Device::Cpu), Layout::Nchw);
        assert_eq!(Layout::for_batch(16, &Device::Cpu), Layout::Chwn);
    }
}
