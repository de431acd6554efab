//! A tensor's values as a slice of f32, copied only where they must be.

use std::ops::Range;

use candle_core::{CpuStorage, DType, Storage, StorageRef, Tensor};

use crate::error::{Error, Result};

/// f32 values in row-major order: borrowed from a contiguous f32 tensor on the CPU, copied from any other.
pub(crate) enum Values<'a> {
    Borrowed(StorageRef<'a>, Range<usize>),
    Owned(Vec<f32>),
}

impl<'a> Values<'a> {
    /// The values of an f32, f16 or bf16 tensor: the types that f32 holds exactly.
    pub(crate) fn of(tensor: &'a Tensor) -> Result<Self> {
        match tensor.dtype() {
            DType::F32 => {}
            DType::F16 | DType::BF16 => {
                let wide = tensor.to_dtype(DType::F32)?;
                return Ok(Self::Owned(wide.flatten_all()?.to_vec1()?));
            }
            got => {
                let expected = "f32 (or f16, bf16)";
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
        assert!(matches!(Values::of(&rows.to_dtype(DType::F64)?), Err(Error::Dtype { got: DType::F64, .. })));
        Ok(())
    }
}
