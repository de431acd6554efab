//! What can be wrong with the arguments of an operator.

use candle_core::{DType, Tensor};

/// A refused argument. Operators return it inside [`candle_core::Error::Wrapped`].
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another rank than the operator takes.
    #[error("{op}: `{tensor}` has shape {got:?}, expected rank {expected}")]
    Rank {
        /// The operator.
        op: &'static str,
        /// The argument's name.
        tensor: &'static str,
        /// The rank wanted.
        expected: usize,
        /// The shape found.
        got: Vec<usize>,
    },
    /// A tensor has another shape than the rest of the arguments ask for.
    #[error("{op}: `{tensor}` has shape {got:?}, expected {expected:?}")]
    Shape {
        /// The operator.
        op: &'static str,
        /// The argument's name.
        tensor: &'static str,
        /// The shape wanted.
        expected: Vec<usize>,
        /// The shape found.
        got: Vec<usize>,
    },
    /// A tensor has another element type than the operator takes.
    #[error("{op}: `{tensor}` has type {got:?}, expected {expected}")]
    DType {
        /// The operator.
        op: &'static str,
        /// The argument's name.
        tensor: &'static str,
        /// The types wanted.
        expected: &'static str,
        /// The type found.
        got: DType,
    },
    /// A share of the targets that is no fraction.
    #[error("cross_entropy: label smoothing is {got}, expected a number in [0, 1]")]
    Smoothing {
        /// The value.
        got: f64,
    },
    /// A stride, kernel size, dilation or number of groups is zero.
    #[error("{op}: {parameter} is 0, expected at least 1")]
    Zero {
        /// The operator.
        op: &'static str,
        /// The parameter's name.
        parameter: &'static str,
    },
    /// A parameter makes an axis longer than any tensor's, or the result larger than any memory.
    #[error("{op}: {parameter} {got:?} is too large: an axis holds at most 2147483647 values, a result at most 2^40")]
    TooLarge {
        /// The operator.
        op: &'static str,
        /// The parameter's name.
        parameter: &'static str,
        /// Its value.
        got: (usize, usize),
    },
    /// More than half of a pooling window would be padding, so that a window could hold no value.
    #[error("{op}: padding {padding:?} is more than half of the kernel {kernel:?}")]
    Padding {
        /// The operator.
        op: &'static str,
        /// The padding.
        padding: (usize, usize),
        /// The kernel.
        kernel: (usize, usize),
    },
    /// The kernel does not fit into the padded input.
    #[error("{op}: kernel extent {kernel:?} is larger than the padded input {input:?}")]
    KernelTooLarge {
        /// The operator.
        op: &'static str,
        /// Height and width of the kernel, dilation included.
        kernel: (usize, usize),
        /// Height and width of the input, padding included.
        input: (usize, usize),
    },
    /// Channels do not divide into the groups.
    #[error("{op}: {groups} groups do not divide `{tensor}` of shape {got:?}")]
    Groups {
        /// The operator.
        op: &'static str,
        /// The argument's name.
        tensor: &'static str,
        /// The number of groups.
        groups: usize,
        /// The shape found.
        got: Vec<usize>,
    },
    /// Batch statistics of one value have no variance.
    #[error("{op}: input of shape {got:?} has {values} value(s) per channel, expected at least 2")]
    TooFewValues {
        /// The operator.
        op: &'static str,
        /// Values per channel.
        values: usize,
        /// The input's shape.
        got: Vec<usize>,
    },
    /// An input has no elements where the result would be undefined.
    #[error("{op}: `{tensor}` of shape {got:?} is empty")]
    Empty {
        /// The operator.
        op: &'static str,
        /// The argument's name.
        tensor: &'static str,
        /// The shape found.
        got: Vec<usize>,
    },
    /// A target is no class of the logits.
    #[error("{op}: target {index} is {got}, expected 0 to {classes} (exclusive)")]
    Target {
        /// The operator.
        op: &'static str,
        /// The sample.
        index: usize,
        /// The target found.
        got: i64,
        /// The number of classes.
        classes: usize,
    },
    /// The gradient of an operator is to be differentiated again.
    #[error(
        "{op}: its gradient cannot be differentiated again: unset CANDLE_GRAD_DO_NOT_DETACH, take candle's own operators \
         for second derivatives, or finite differences of first ones"
    )]
    SecondDerivative {
        /// The operator.
        op: &'static str,
    },
    /// The optimiser counts its steps from 1.
    #[error("{op}: step is 0, expected at least 1")]
    Step {
        /// The operator.
        op: &'static str,
    },
    /// Two arguments that are written to are one tensor.
    #[error("{op}: `{first}` and `{second}` are the same variable")]
    Aliased {
        /// The operator.
        op: &'static str,
        /// One argument.
        first: &'static str,
        /// The other argument.
        second: &'static str,
    },
    /// The arguments of an operator that works in place must lie contiguous in memory.
    #[error("{op}: `{tensor}` is not contiguous")]
    NotContiguous {
        /// The operator.
        op: &'static str,
        /// The argument's name.
        tensor: &'static str,
    },
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        candle_core::Error::wrap(error)
    }
}

/// A length along each axis, unless it is more than an axis may have: then kernels could rely on no sum of lengths.
pub(crate) fn expect_lengths(
    op: &'static str,
    parameter: &'static str,
    got: (usize, usize),
    lengths: [Option<usize>; 2],
) -> Result<(usize, usize), Error> {
    match lengths.map(|length| length.filter(|&length| length <= i32::MAX as usize)) {
        [Some(height), Some(width)] => Ok((height, width)),
        _ => Err(Error::TooLarge { op, parameter, got }),
    }
}

/// `length` with `padding` on both sides.
pub(crate) fn padded(length: usize, padding: usize) -> Option<usize> {
    padding.checked_mul(2)?.checked_add(length)
}

/// Fails unless `tensor` has exactly the rank `expected`.
pub(crate) fn expect_rank(op: &'static str, name: &'static str, tensor: &Tensor, expected: usize) -> Result<(), Error> {
    if tensor.rank() == expected {
        return Ok(());
    }
    Err(Error::Rank { op, tensor: name, expected, got: tensor.dims().to_vec() })
}

/// Fails unless `tensor` has exactly the shape `expected`.
pub(crate) fn expect_shape(
    op: &'static str,
    name: &'static str,
    tensor: &Tensor,
    expected: &[usize],
) -> Result<(), Error> {
    if tensor.dims() == expected {
        return Ok(());
    }
    let (expected, got) = (expected.to_vec(), tensor.dims().to_vec());
    Err(Error::Shape { op, tensor: name, expected, got })
}

/// Fails unless `tensor` has the element type `expected`, named `expected_name`.
pub(crate) fn expect_dtype(
    op: &'static str,
    name: &'static str,
    tensor: &Tensor,
    expected: DType,
) -> Result<(), Error> {
    if tensor.dtype() == expected {
        return Ok(());
    }
    Err(Error::DType { op, tensor: name, expected: expected.as_str(), got: tensor.dtype() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_tensor_expected_and_got() {
        let error = Error::Shape { op: "relu", tensor: "x", expected: vec![1], got: vec![2, 3] };
        assert_eq!(error.to_string(), "relu: `x` has shape [2, 3], expected [1]");
        let inside: candle_core::Error = error.into();
        assert!(inside.to_string().contains("expected [1]"), "{inside}");
    }
}
