use candle_core::{CpuStorage, DType, Device, Storage, Tensor};

use crate::Error;

/// The tensor's values where every type exists: in one copy from another device, and none on a CPU.
pub(crate) fn on_cpu(tensor: &Tensor) -> Result<Tensor, Error> {
    Ok(tensor.detach().to_device(&Device::Cpu)?)
}

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
                CpuStorage::F32(values) => return Ok(first(&values[start..end], f32::is_finite, f64::from)),
                CpuStorage::F64(values) => return Ok(first(&values[start..end], f64::is_finite, |x| x)),
                _ => {}
            }
        }
    }
    let values = on_cpu(tensor)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(first(&values, f64::is_finite, |x| x))
}

/// By blocks without a branch inside, which the compiler turns into vector code: ten million weights in milliseconds.
fn first<T: Copy>(values: &[T], is_finite: impl Fn(T) -> bool, widen: impl Fn(T) -> f64) -> Option<(usize, f64)> {
    const BLOCK: usize = 1024;
    let block = values.chunks(BLOCK).position(|block| !block.iter().fold(true, |all, x| all & is_finite(*x)))?;
    let index = (block * BLOCK..values.len()).find(|idx| !is_finite(values[*idx]))?;
    Some((index, widen(values[index])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_position_among_blocks_is_found() {
        for at in [0, 1, 1023, 1024, 1025, 2047, 2048, 2499] {
            let mut values = vec![1f32; 2500];
            (values[at], values[2499]) = (f32::INFINITY, f32::NAN);
            let found = first_not_finite(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap().unwrap();
            assert_eq!(found.0, at);
        }
    }

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
