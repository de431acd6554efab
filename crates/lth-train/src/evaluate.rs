//! Loss and accuracy over a data set.

use candle_core::{D, DType, Tensor};

use crate::{BoxError, Error, Network, Pass};

/// Figures of a network on a data set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Cross entropy in nats, mean over examples (not over batches).
    pub loss: f64,
    /// Share of examples whose largest logit is the target's, in [0, 1].
    pub accuracy: f64,
    /// Number of examples.
    pub n_examples: usize,
}

/// Runs the network in evaluation mode over `(x, target)` batches; targets are class indices `[N]`.
/// # Errors  [`Error::NoBatches`] without any example, [`Error::Data`] if a batch cannot be read, or candle's.
pub fn evaluate<E: Into<BoxError>>(
    network: &(impl Network + ?Sized),
    batches: impl Iterator<Item = Result<(Tensor, Tensor), E>>,
) -> Result<Evaluation, Error> {
    let (mut loss, mut n_correct, mut n_examples) = (0f64, 0u64, 0usize);
    for batch in batches {
        let (x, target) = batch.map_err(|error| Error::Data(error.into()))?;
        let logits = network.forward(&x, &Pass::eval())?;
        check_classes(&logits, &target)?;
        let n = target.dim(0)?;
        loss += f64::from(lth_kernels::cross_entropy(&logits, &target)?.to_dtype(DType::F32)?.to_scalar::<f32>()?)
            * n as f64;
        let correct = logits.argmax(D::Minus1)?.to_dtype(DType::U32)?.eq(&target.to_dtype(DType::U32)?)?;
        n_correct += u64::from(correct.to_dtype(DType::U32)?.sum_all()?.to_scalar::<u32>()?);
        n_examples += n;
    }
    if n_examples == 0 {
        return Err(Error::NoBatches { what: "the evaluation", hint: "give it at least one example" });
    }
    let n = n_examples as f64;
    Ok(Evaluation { loss: loss / n, accuracy: n_correct as f64 / n, n_examples })
}

/// # Errors
/// [`Error::Task`] if these are no logits and classes.
pub(crate) fn check_classes(logits: &Tensor, targets: &Tensor) -> Result<(), Error> {
    let hint = match (targets.dtype(), logits.rank()) {
        (DType::U32 | DType::I64, 2) if targets.rank() == 1 && logits.dims()[0] == targets.dims()[0] => return Ok(()),
        (DType::U32 | DType::I64, 3) if targets.rank() == 2 => {
            "Let the module return `logits.flatten(0, 1)` and give the targets flattened: every token is an example"
        }
        (DType::F16 | DType::BF16 | DType::F32 | DType::F64, _) => {
            "For a regression call `backward` and `Optimizer::step` in a loop of your own"
        }
        _ => "Give each example one class index",
    };
    let (logits, dtype) = (logits.dims().to_vec(), targets.dtype());
    Err(Error::Task { logits, targets: targets.dims().to_vec(), dtype, hint })
}
