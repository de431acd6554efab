//! The element types that have kernels, and the values of a candle tensor as a slice.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, WithDType};

/// `f32` or `f64`.
pub(crate) trait Real: WithDType + Default {
    const ZERO: Self;
    const NEG_INFINITY: Self;
    /// The smallest number above 0 that is not denormal.
    const MIN_POSITIVE: Self;
    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
    fn root(self) -> Self;
    fn not_a_number(self) -> bool;
    /// All values of a storage of this type.
    fn values_mut(storage: &mut CpuStorage) -> Result<&mut [Self]>;
}

macro_rules! real {
    ($t:ty, $variant:ident) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const NEG_INFINITY: Self = <$t>::NEG_INFINITY;
            const MIN_POSITIVE: Self = <$t>::MIN_POSITIVE;
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn wide(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn root(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn not_a_number(self) -> bool {
                self.is_nan()
            }
            fn values_mut(storage: &mut CpuStorage) -> Result<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(values) => Ok(values),
                    _ => candle_core::bail!("values_mut: storage is not {:?}", Self::DTYPE),
                }
            }
        }
    };
}
real!(f32, F32);
real!(f64, F64);

/// Whether `x` runs on this crate's kernels: `f32` or `f64` on the CPU.
pub(crate) fn has_kernels(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64)
}

/// Whether `x` is f16 or bf16, whose sums need a wider type: 256 + 1 is 256 in bf16.
pub(crate) fn is_half(x: &Tensor) -> bool {
    matches!(x.dtype(), DType::F16 | DType::BF16)
}

/// Whether `x` is of half type where nothing but f32 computes it well: on the CPU.
pub(crate) fn is_half_on_cpu(x: &Tensor) -> bool {
    is_half(x) && x.device().is_cpu()
}

/// `x` as f32; with backward.
pub(crate) fn widened(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(DType::F32)
}

/// Runs `$body` with `$t` being `f32` or `f64`, whichever `$dtype` is.
macro_rules! with_real {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F64 => {
                type $t = f64;
                $body
            }
            _ => {
                type $t = f32;
                $body
            }
        }
    };
}
pub(crate) use with_real;

/// The values of a contiguous operand.
pub(crate) fn slice<'a, T: WithDType>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let (start, end) = layout.contiguous_offsets().ok_or(crate::Error::NotContiguous { op, tensor: "operand" })?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// Runs `f` on the values of a CPU tensor in row-major order, copied only if they do not lie so.
pub(crate) fn with_values<T: WithDType, R>(x: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(slice("with_values", storage, layout)?),
        _ => candle_core::bail!("with_values: tensor is not on the CPU"),
    }
}

/// `values` as a CPU tensor of shape `dims`, without a copy.
pub(crate) fn tensor<T: WithDType>(values: Vec<T>, dims: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, dims, &candle_core::Device::Cpu)
}
