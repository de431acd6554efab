//! The rectifier.

use crate::composed;
use crate::dispatch::multiversion;
use crate::parallel::{Blank, filled, for_ranges};
use crate::real::{Real, has_kernels, slice, tensor, with_real, with_values};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use std::mem::MaybeUninit;

/// `max(x, 0)`, any shape. The gradient at 0 is 0 (as in PyTorch; candle's is 1); NaN stays NaN.
///
/// # Errors
/// If candle fails to allocate or run.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if has_kernels(x) { crate::tape::apply1(&x.contiguous()?, Relu) } else { composed::relu(x) }
}

/// `max(x, 0)`; NaN stays NaN.
#[inline(always)]
pub(crate) fn rectified<T: Real>(x: T) -> T {
    if x <= T::ZERO { T::ZERO } else { x }
}

multiversion! {
    fn rectify[T: Real][T](x: &[T], y: &mut [MaybeUninit<T>]) {
        for (&x, y) in x.iter().zip(y) {
            y.write(rectified(x));
        }
    }
}

multiversion! {
    /// `dy` where `y` is positive, else 0.
    pub(crate) fn gate[T: Real][T](y: &[T], dy: &[T], dx: &mut [MaybeUninit<T>]) {
        for ((&y, &dy), dx) in y.iter().zip(dy).zip(dx) {
            dx.write(if y > T::ZERO { dy } else { T::ZERO });
        }
    }
}

struct Relu;

impl Relu {
    fn forward<T: Real>(x: &[T]) -> CpuStorage {
        let fill = |out: &Blank<'_, T>| {
            // SAFETY: the ranges are disjoint.
            for_ranges(x.len(), |at| rectify(&x[at.clone()], unsafe { out.part(at) }));
        };
        // SAFETY: the ranges cover the tensor.
        T::to_cpu_storage_owned(unsafe { filled(x.len(), fill) })
    }

    fn backward<T: Real>(y: &[T], dy: &[T], dims: &[usize]) -> Result<Tensor> {
        let fill = |out: &Blank<'_, T>| {
            for_ranges(y.len(), |at| {
                // SAFETY: the ranges are disjoint.
                gate(&y[at.clone()], &dy[at.clone()], unsafe { out.part(at) });
            });
        };
        // SAFETY: the ranges cover the tensor.
        tensor(unsafe { filled(y.len(), fill) }, dims)
    }
}

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = with_real!(x.dtype(), T => Relu::forward(slice::<T>("relu", x, layout)?));
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let dx = with_real!(x.dtype(), T => {
            with_values(y, |y: &[T]| with_values(dy, |dy| Relu::backward(y, dy, x.dims())))
        })?;
        Ok(Some(dx))
    }
}
