//! Pooling as candle operators.

use super::global::Global;
use super::kernel::{Geometry, Reduce, backward, forward};
use crate::real::{Real, slice, tensor, with_real, with_values};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// Pooling over windows.
pub(super) struct Pool {
    pub(super) geometry: Geometry,
    pub(super) reduce: Reduce,
    pub(super) output: [usize; 4],
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        match self.reduce {
            Reduce::Max => "max_pool2d",
            Reduce::Mean => "avg_pool2d",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = with_real!(x.dtype(), T => {
            let x = slice::<T>(self.name(), x, layout)?;
            <T as candle_core::WithDType>::to_cpu_storage_owned(forward(&self.geometry, self.reduce, x))
        });
        Ok((y, (&self.output).into()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        let run = |x: &Tensor, y: &Tensor, dy: &Tensor| {
            with_real!(x.dtype(), T => three::<T>(x, y, dy, |x, y, dy| {
                backward(&self.geometry, self.reduce, x, y, dy)
            }))
        };
        run(x, y, dy).map(Some)
    }
}

/// A tensor of `x`'s shape from the values of three.
fn three<T: Real>(x: &Tensor, y: &Tensor, dy: &Tensor, f: impl FnOnce(&[T], &[T], &[T]) -> Vec<T>) -> Result<Tensor> {
    let values = with_values(x, |x| with_values(y, |y| with_values(dy, |dy: &[T]| Ok(f(x, y, dy)))))?;
    tensor(values, x.dims())
}

impl CustomOp1 for Global {
    fn name(&self) -> &'static str {
        match self.reduce {
            Reduce::Max => "global_max_pool",
            Reduce::Mean => "global_avg_pool",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = with_real!(x.dtype(), T => {
            let y = self.forward(slice::<T>(self.name(), x, layout)?);
            <T as candle_core::WithDType>::to_cpu_storage_owned(y)
        });
        Ok((y, (self.n, self.c).into()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if !x.track_op() {
            return Ok(None);
        }
        with_real!(x.dtype(), T => three::<T>(x, y, dy, |x, y, dy| self.backward(x, y, dy))).map(Some)
    }
}
