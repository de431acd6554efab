//! Which weights of a layer are kept.

use crate::composed;
use crate::error::Error;
use candle_core::{DType, Result, Tensor};
use std::sync::Arc;

/// The kept positions of a masked weight. Cheap to clone; built once per mask.
#[derive(Clone, Debug)]
pub struct Pattern {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    mask: Tensor,
    density: f64,
}

impl Pattern {
    /// The pattern of a u8 mask of the weight's shape, 1 = keep.
    ///
    /// # Errors
    /// If the mask is not u8.
    pub fn new(mask: &Tensor) -> Result<Pattern> {
        if mask.dtype() != DType::U8 {
            let (expected, got) = ("u8", mask.dtype());
            return Err(Error::DType { op: "Pattern::new", tensor: "mask", expected, got }.into());
        }
        let bits = mask.flatten_all()?.to_vec1::<u8>()?;
        let kept = bits.iter().filter(|&&bit| bit != 0).count();
        let density = if bits.is_empty() { 1.0 } else { kept as f64 / bits.len() as f64 };
        let mask = mask.contiguous()?.copy()?.detach();
        Ok(Pattern { inner: Arc::new(Inner { mask, density }) })
    }

    /// The kept fraction, in [0, 1]; 1 for an empty mask.
    pub fn density(&self) -> f64 {
        self.inner.density
    }

    /// `weight` with exact zeros at the pruned positions.
    pub(crate) fn apply(&self, op: &'static str, weight: &Tensor) -> Result<Tensor> {
        crate::error::expect_shape(op, "weight", weight, self.inner.mask.dims())?;
        composed::keep(weight, &self.inner.mask.to_device(weight.device())?)
    }
}
