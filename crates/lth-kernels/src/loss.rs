//! Cross entropy.

use crate::composed;
use crate::error::{Error, expect_rank, expect_shape};
use candle_core::{DType, Result, Tensor};

/// The mean over the batch of `-log softmax(logits)[target]`, a scalar. `logits`: [N, K];
/// `targets`: [N], u32 or i64. Stable at any finite logit.
///
/// # Errors
/// If a shape or type does not fit, the batch is empty, or a target is no class.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let op = "cross_entropy";
    expect_rank(op, "logits", logits, 2)?;
    let (n, classes) = logits.dims2()?;
    expect_shape(op, "targets", targets, &[n])?;
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
    composed::cross_entropy(logits, targets)
}
