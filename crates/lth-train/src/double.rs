//! Figures in f64, on whatever device a tensor is.

use candle_core::{DType, Device, Result, Tensor};

/// The tensor in f64: on its own device, or on the CPU where that has no f64, as Metal.
pub(crate) fn in_f64(tensor: &Tensor) -> Result<Tensor> {
    if tensor.device().is_metal() {
        return tensor.to_device(&Device::Cpu)?.to_dtype(DType::F64);
    }
    tensor.to_dtype(DType::F64)
}

/// The one value of a tensor without dimensions.
pub(crate) fn scalar(value: &Tensor) -> Result<f64> {
    in_f64(value)?.to_scalar()
}

/// All values, in order.
pub(crate) fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    in_f64(tensor)?.flatten_all()?.to_vec1()
}
