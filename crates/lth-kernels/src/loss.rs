//! Cross entropy.

use crate::composed;
use crate::error::{Error, expect_rank, expect_shape};
use crate::parallel::{Shared, for_each};
use crate::real::{Real, has_kernels, is_half, slice, tensor, widened, with_real, with_values};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

/// The mean over the batch of `-log softmax(logits)[target]`, a scalar. `logits`: `[N, K]`;
/// `targets`: `[N]`, u32 or i64. Stable at any finite logit.
///
/// # Errors
/// If a shape or type does not fit, the batch is empty, or a target is no class.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    smoothed_cross_entropy(logits, targets, 0.0)
}

/// [`cross_entropy`] with targets of which `smoothing` is spread evenly over all classes, a scalar: (1 − ε) · CE + ε times
/// the mean over the classes of `-log softmax(logits)`. With `smoothing` 0 it is `cross_entropy` to the last bit.
///
/// # Errors
/// As `cross_entropy`, and if `smoothing` is outside [0, 1].
///
/// Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", §7; PyTorch's `CrossEntropyLoss(label_smoothing)`.
pub fn smoothed_cross_entropy(logits: &Tensor, targets: &Tensor, smoothing: f64) -> Result<Tensor> {
    let op = "cross_entropy";
    if !(0.0..=1.0).contains(&smoothing) {
        return Err(Error::Smoothing { got: smoothing }.into());
    }
    expect_rank(op, "logits", logits, 2)?;
    let (n, classes) = logits.dims2()?;
    expect_shape(op, "targets", targets, &[n])?;
    if is_half(logits) {
        return smoothed_cross_entropy(&widened(logits)?, targets, smoothing)?.to_dtype(logits.dtype());
    }
    if n * classes == 0 {
        let got = logits.dims().to_vec();
        return Err(Error::Empty { op, tensor: "logits", got }.into());
    }
    if !matches!(targets.dtype(), DType::U32 | DType::I64) {
        let (expected, got) = ("u32 or i64", targets.dtype());
        return Err(Error::DType { op, tensor: "targets", expected, got }.into());
    }
    let values = targets.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    for (index, &got) in values.iter().enumerate() {
        if got < 0 || got >= classes as i64 {
            return Err(Error::Target { op, index, got, classes }.into());
        }
    }
    if has_kernels(logits) {
        let targets = values.into_iter().map(|t| t as usize).collect();
        return crate::tape::apply1(&logits.contiguous()?, CrossEntropy { targets, classes, smoothing });
    }
    composed::cross_entropy(logits, targets, smoothing)
}

/// Sums are f64 throughout: a batch's loss is a few thousand values, and exact to the last bit.
struct CrossEntropy {
    targets: Vec<usize>,
    classes: usize,
    smoothing: f64,
}

/// The largest logit and the logarithm of the sum of exponentials of the differences from it.
fn log_sum<T: Real>(row: &[T]) -> (f64, f64) {
    let top = row.iter().map(|v| v.wide()).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|v| (v.wide() - top).exp()).sum();
    (top, sum.ln())
}

impl CrossEntropy {
    fn forward<T: Real>(&self, logits: &[T]) -> T {
        let n = self.targets.len();
        let mut losses = vec![0.0; n];
        let out = Shared::new(&mut losses);
        // An exponential is some thirty times an addition.
        for_each(n, 32 * logits.len(), |i| {
            let row = &logits[i * self.classes..(i + 1) * self.classes];
            let (top, log_sum) = log_sum(row);
            let mut chosen = row[self.targets[i]].wide() - top;
            // Without smoothing an infinite logit of another class would make 0 · ∞ of it.
            if self.smoothing > 0.0 {
                let mean = row.iter().map(|v| v.wide() - top).sum::<f64>() / self.classes as f64;
                chosen = (1.0 - self.smoothing) * chosen + self.smoothing * mean;
            }
            // SAFETY: each sample is handled by one call.
            unsafe { out.set(i, log_sum - chosen) };
        });
        T::of(losses.iter().sum::<f64>() / n as f64)
    }

    fn backward<T: Real>(&self, logits: &[T], gradient: T) -> Vec<T> {
        let n = self.targets.len();
        let factor = gradient.wide() / n as f64;
        let (own, spread) = (1.0 - self.smoothing, self.smoothing / self.classes as f64);
        let mut dx = vec![T::ZERO; logits.len()];
        let out = Shared::new(&mut dx);
        for_each(n, 32 * logits.len(), |i| {
            let at = i * self.classes..(i + 1) * self.classes;
            let row = &logits[at.clone()];
            let (top, log_sum) = log_sum(row);
            // SAFETY: rows are disjoint.
            let dx = unsafe { out.part(at) };
            for (class, (dx, v)) in dx.iter_mut().zip(row).enumerate() {
                let probability = (v.wide() - top - log_sum).exp();
                let hit = own * f64::from(u8::from(class == self.targets[i])) + spread;
                *dx = T::of((probability - hit) * factor);
            }
        });
        dx
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let loss = with_real!(logits.dtype(), T => {
            let loss = self.forward(slice::<T>("cross_entropy", logits, layout)?);
            <T as candle_core::WithDType>::to_cpu_storage_owned(vec![loss])
        });
        Ok((loss, ().into()))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        if !logits.track_op() {
            return Ok(None);
        }
        let dx = with_real!(logits.dtype(), T => {
            let gradient = gradient.to_scalar::<T>()?;
            let dx = with_values(logits, |logits: &[T]| Ok(self.backward(logits, gradient)))?;
            tensor(dx, logits.dims())
        })?;
        Ok(Some(dx))
    }
}
