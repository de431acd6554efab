//! Batch norm as a candle operator.
//!
//! Saved between the passes: mean and inverse deviation of each channel. Everything else is
//! recomputed from the input, which candle keeps anyway.

use super::kernel::{Affine, After, Gate, Gradients, Incoming, Place, Wanted, backward, forward};
use super::{BatchNormParams, BatchStatistics};
use crate::pool::Geometry;
use crate::real::{Real, slice, tensor, with_real, with_values};
use crate::tape::{apply2, apply3};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor};
use std::sync::{Arc, OnceLock};

const NAME: &str = "batch_norm";

/// Of each channel: mean, biased variance, and one over the deviation.
#[derive(Debug, Default)]
struct Statistics {
    mean: Vec<f64>,
    var: Vec<f64>,
    inv_std: Vec<f64>,
}

impl Statistics {
    fn new(mean: Vec<f64>, var: Vec<f64>, eps: f64) -> Statistics {
        let inv_std = var.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
        Statistics { mean, var, inv_std }
    }
}

#[derive(Clone)]
struct BatchNorm {
    place: Place,
    eps: f64,
    relu: bool,
    train: bool,
    /// A max pool that follows, without a residual, and its output's shape.
    pool: Option<(Geometry, [usize; 4])>,
    /// Given in evaluation, set by the forward pass in training.
    statistics: Arc<OnceLock<Statistics>>,
}

impl BatchNorm {
    /// The output and its storage. `affine`: weights, then biases.
    fn forward<T: Real>(&self, x: &[T], affine: &[T], residual: Option<&[T]>) -> CpuStorage {
        let (weight, bias) = affine.split_at(self.place.channels);
        let n = self.place.values() as f64;
        let given = self.statistics.get();
        let after = After { residual, relu: self.relu, pool: self.pool.as_ref().map(|(pool, _)| pool) };
        let (y, moments) = forward(&self.place, x, after, given.is_none(), |c, m| {
            let (mean, inv_std) = match given {
                Some(s) => (s.mean[c], s.inv_std[c]),
                None => (m.mean, 1.0 / (m.squares / n + self.eps).sqrt()),
            };
            let scale = T::of(weight[c].wide() * inv_std);
            Affine { mean: T::of(mean), scale, bias: bias[c] }
        });
        if given.is_none() {
            let mean = moments.iter().map(|m| m.mean).collect();
            let var = moments.iter().map(|m| m.squares / n).collect();
            // Already set only if two threads ran this operator, which then found the same.
            let _ = self.statistics.set(Statistics::new(mean, var, self.eps));
        }
        T::to_cpu_storage_owned(y)
    }

    fn backward<T: Real>(
        &self,
        [x, affine, y, dy]: [&Tensor; 4],
        residual: Option<&Tensor>,
    ) -> Result<[Option<Tensor>; 3]> {
        let statistics =
            self.statistics.get().ok_or_else(|| candle_core::Error::msg("batch_norm: backward before forward").bt())?;
        let wanted =
            Wanted { input: x.track_op(), affine: affine.track_op(), residual: residual.is_some_and(Tensor::track_op) };
        let dims = x.dims();
        let gradients: Gradients<T> = with_values(dy, |dy: &[T]| {
            with_values(x, |x| {
                with_values(affine, |affine: &[T]| {
                    let run = |gate: Gate<'_, T>, largest: Option<&[T]>| {
                        let pool = self.pool.as_ref().map(|(pool, _)| pool).zip(largest);
                        backward(&self.place, Incoming { dy, pool }, x, gate, self.train, wanted, |c| {
                            let inv_std = statistics.inv_std[c];
                            let scale = T::of(affine[c].wide() * inv_std);
                            let bias = affine[self.place.channels + c];
                            (Affine { mean: T::of(statistics.mean[c]), scale, bias }, inv_std)
                        })
                    };
                    match (self.relu, residual) {
                        (true, Some(_)) => with_values(y, |y| Ok(run(Gate::Output(y), None))),
                        (relu, _) => with_values(y, |y| Ok(run(if relu { Gate::Input } else { Gate::Open }, Some(y)))),
                    }
                })
            })
        })?;
        let when = |wanted: bool, values: Vec<T>, dims: &[usize]| wanted.then(|| tensor(values, dims)).transpose();
        Ok([
            when(wanted.input, gradients.input, dims)?,
            when(wanted.affine, gradients.affine, affine.dims())?,
            when(wanted.residual, gradients.residual, dims)?,
        ])
    }
}

impl CustomOp2 for BatchNorm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = with_real!(x.dtype(), T => {
            let x = slice::<T>(NAME, x, x_layout)?;
            self.forward(x, slice::<T>(NAME, affine, affine_layout)?, None)
        });
        let shape = self.pool.as_ref().map_or_else(|| x_layout.shape().clone(), |(_, shape)| shape.into());
        Ok((y, shape))
    }

    fn bwd(&self, x: &Tensor, affine: &Tensor, y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, d_affine, _] = with_real!(x.dtype(), T => self.backward::<T>([x, affine, y, dy], None))?;
        Ok((dx, d_affine))
    }
}

impl CustomOp3 for BatchNorm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        affine: &CpuStorage,
        affine_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = with_real!(x.dtype(), T => {
            let x = slice::<T>(NAME, x, x_layout)?;
            let residual = slice::<T>(NAME, residual, residual_layout)?;
            self.forward(x, slice::<T>(NAME, affine, affine_layout)?, Some(residual))
        });
        Ok((y, x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        affine: &Tensor,
        residual: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, d_affine, d_residual] = with_real!(x.dtype(), T => {
            self.backward::<T>([x, affine, y, dy], Some(residual))
        })?;
        Ok((dx, d_affine, d_residual))
    }
}

fn run(op: BatchNorm, x: &Tensor, weight: &Tensor, bias: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    // An operator has at most three arguments: weight and bias travel as one.
    let affine = crate::concat(weight, bias, 0)?;
    let x = x.contiguous()?;
    match residual {
        Some(residual) => apply3(&x, &affine, &residual.contiguous()?, op),
        None => apply2(&x, &affine, op),
    }
}

/// Batch norm with the batch's own statistics, and a max pool of it.
pub(super) fn train(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    axis: usize,
    params: &BatchNormParams,
    pool: Option<(Geometry, [usize; 4])>,
) -> Result<(Tensor, BatchStatistics)> {
    let place = Place::new(x.dims(), axis);
    let statistics = Arc::new(OnceLock::new());
    let (eps, relu) = (params.eps, params.relu);
    let op = BatchNorm { place, eps, relu, train: true, pool, statistics: Arc::clone(&statistics) };
    let y = run(op, x, weight, bias, residual)?;
    let found =
        statistics.get().ok_or_else(|| candle_core::Error::msg("batch_norm: no statistics after forward").bt())?;
    let n = place.values() as f64;
    let unbiased = found.var.iter().map(|v| v * (n / (n - 1.0))).collect();
    let vector = |values: Vec<f64>| tensor(values, &[place.channels])?.to_dtype(x.dtype());
    Ok((y, BatchStatistics { mean: vector(found.mean.clone())?, var: vector(unbiased)? }))
}

/// Batch norm with the statistics (mean, variance) given.
pub(super) fn eval(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    statistics: (&Tensor, &Tensor),
    residual: Option<&Tensor>,
    axis: usize,
    params: &BatchNormParams,
) -> Result<Tensor> {
    let place = Place::new(x.dims(), axis);
    let vector = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
    let given = Statistics::new(vector(statistics.0)?, vector(statistics.1)?, params.eps);
    let statistics = Arc::new(OnceLock::from(given));
    let op = BatchNorm { place, eps: params.eps, relu: params.relu, train: false, pool: None, statistics };
    run(op, x, weight, bias, residual)
}
