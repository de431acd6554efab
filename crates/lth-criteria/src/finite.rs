use candle_core::{CpuStorage, DType, Storage, Tensor};

use crate::Error;

/// An error that names the first NaN or infinite value, if there is one.
pub(crate) fn check_finite(tensor: &Tensor, weight: &str, what: impl FnOnce() -> String) -> Result<(), Error> {
    let Some((index, value)) = first_not_finite(tensor)? else { return Ok(()) };
    Err(Error::NotFinite { weight: weight.to_owned(), what: what(), index, value })
}

/// Row-major index and value of the first element that is not finite. f32 and f64 in order on the CPU are read in place.
fn first_not_finite(tensor: &Tensor) -> Result<Option<(usize, f64)>, Error> {
    {
        let (storage, layout) = tensor.storage_and_layout();
        if let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) {
            match storage {
                CpuStorage::F32(values) => return Ok(first(values[start..end].iter().map(|x| f64::from(*x)))),
                CpuStorage::F64(values) => return Ok(first(values[start..end].iter().copied())),
                _ => {}
            }
        }
    }
    let values = tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(first(values.into_iter()))
}

fn first(mut values: impl Iterator<Item = f64>) -> Option<(usize, f64)> {
    let mut index = 0;
    values.find_map(|value| {
        index += 1;
        (!value.is_finite()).then_some((index - 1, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_index_is_row_major_whatever_the_layout() {
        let tensor = Tensor::new(&[[1f32, 2., 3.], [4., f32::NAN, 6.]], &Device::Cpu).unwrap();
        assert_eq!(first_not_finite(&tensor).unwrap().unwrap().0, 4);
        assert_eq!(first_not_finite(&tensor.t().unwrap()).unwrap().unwrap().0, 3);
        let tail = tensor.narrow(0, 1, 1).unwrap();
        assert_eq!(first_not_finite(&tail).unwrap().unwrap().0, 1);
        let half = tensor.to_dtype(DType::BF16).unwrap();
        assert_eq!(first_not_finite(&half).unwrap().unwrap().0, 4);
        assert!(first_not_finite(&tensor.narrow(0, 0, 1).unwrap()).unwrap().is_none());
    }
}
