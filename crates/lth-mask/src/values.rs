//! A tensor's values as a slice of f32, copied only where they must be.

use std::ops::Range;

use candle_core::{CpuStorage, DType, Device, Storage, StorageRef, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};

/// f32 values in row-major order: borrowed from a contiguous f32 tensor on the CPU, copied from any other.
pub(crate) enum Values<'a> {
    Borrowed(StorageRef<'a>, Range<usize>),
    Owned(Vec<f32>),
}

impl<'a> Values<'a> {
    /// The values of a floating-point tensor. f16 and bf16 are held exactly; f64 is rounded, so that scores nearer to each
    /// other than f32 tells apart are equal.
    ///
    /// # Errors
    /// If the type is another, or f64 values are out of f32's range: one of them above it, or all below it.
    pub(crate) fn of(tensor: &'a Tensor) -> Result<Self> {
        match tensor.dtype() {
            DType::F32 => {}
            DType::F16 | DType::BF16 => return Ok(Self::Owned(widened(tensor)?)),
            DType::F64 => {
                let values: Vec<f64> = tensor.flatten_all()?.to_vec1()?;
                if let Some((index, &value)) = out_of_range(&values) {
                    return Err(Error::Range { index, value });
                }
                return Ok(Self::Owned(values.into_iter().map(|value| value as f32).collect()));
            }
            got => {
                let expected = "f32 (or f16, bf16, f64)";
                return Err(Error::Dtype { got, expected });
            }
        }
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(CpuStorage::F32(_)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            return Ok(Self::Borrowed(storage, start..end));
        }
        drop(storage);
        Ok(Self::Owned(tensor.flatten_all()?.to_vec1()?))
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        match self {
            Self::Borrowed(storage, range) => match &**storage {
                Storage::Cpu(CpuStorage::F32(values)) => &values[range.clone()],
                _ => &[], // `of` borrows nothing else
            },
            Self::Owned(values) => values,
        }
    }
}

/// The values of a tensor of f16 or bf16, in one copy.
fn widened(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let range = layout.contiguous_offsets().unwrap_or_default();
    Ok(match &*storage {
        Storage::Cpu(CpuStorage::F16(values)) => values[range.0..range.1].par_iter().map(|v| v.to_f32()).collect(),
        Storage::Cpu(CpuStorage::BF16(values)) => values[range.0..range.1].par_iter().map(|v| v.to_f32()).collect(),
        _ => tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?,
    })
}

/// The value of largest magnitude, if f32 would make it infinite or, with all others, 0 or nearly. What is not finite
/// already is not looked at.
fn out_of_range(values: &[f64]) -> Option<(usize, &f64)> {
    let finite = values.iter().enumerate().filter(|(_, value)| value.is_finite());
    let largest = finite.max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()))?;
    let narrow = (largest.1.abs()) as f32;
    (narrow.is_infinite() || (*largest.1 != 0.0 && narrow < f32::MIN_POSITIVE)).then_some(largest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn views_are_read_in_row_major_order() -> Result<()> {
        let tensor = Tensor::arange(0f32, 12., &Device::Cpu)?.reshape((3, 4))?;
        let rows = tensor.narrow(0, 1, 2)?;
        assert!(matches!(Values::of(&rows)?, Values::Borrowed(..)));
        assert_eq!(Values::of(&rows)?.as_slice(), [4., 5., 6., 7., 8., 9., 10., 11.]);
        assert_eq!(Values::of(&tensor.t()?)?.as_slice(), [0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]);
        assert_eq!(Values::of(&rows.to_dtype(DType::BF16)?)?.as_slice(), Values::of(&rows)?.as_slice());
        assert_eq!(Values::of(&rows.to_dtype(DType::F64)?)?.as_slice(), Values::of(&rows)?.as_slice());
        assert!(matches!(Values::of(&rows.to_dtype(DType::I64)?), Err(Error::Dtype { got: DType::I64, .. })));
        Ok(())
    }

    #[test]
    fn double_scores_that_f32_cannot_order_are_refused() -> Result<()> {
        let of = |values: &[f64]| Ok::<_, Error>(Values::of(&Tensor::new(values, &Device::Cpu)?)?.as_slice().to_vec());
        assert!(matches!(of(&[1.0, -1e40, 2.0]), Err(Error::Range { index: 1, value }) if value == -1e40));
        assert!(matches!(of(&[1e-50, 2e-50]), Err(Error::Range { index: 1, value }) if value == 2e-50));
        assert_eq!(of(&[1.0, 1e-50])?, [1.0, 0.0]);
        assert_eq!(of(&[0.0, 0.0])?, [0.0, 0.0]);
        assert!(of(&[])?.is_empty());
        Ok(())
    }
}
