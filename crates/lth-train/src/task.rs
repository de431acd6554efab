//! What a network is trained for: from a batch to a loss and to figures.

use std::collections::BTreeMap;

use candle_core::{D, DType, Tensor};

use crate::double::scalar;
use crate::{Error, Network, Pass};

/// From a batch of type `B` to a loss, and to the figures of a validation.
///
/// [`Classification`] and [`Regression`] are the ready ones, for batches `(x, target)`. A task of one's own takes any batch:
/// it calls the network itself, through [`Network::forward`] or a method of the network's own.
///
/// ```
/// use std::collections::BTreeMap;
/// use candle_core::Tensor;
/// use lth_train::{BatchEvaluation, Error, Network, Pass, Task};
///
/// /// The output must be the input again.
/// struct Reconstruction;
///
/// impl<N: Network> Task<N, Tensor> for Reconstruction {
///     fn loss(&self, network: &N, x: &Tensor, pass: &Pass) -> Result<Tensor, Error> {
///         Ok((network.forward(x, pass)? - x)?.sqr()?.mean_all()?)
///     }
///
///     fn evaluate(&self, network: &N, x: &Tensor) -> Result<BatchEvaluation, Error> {
///         let n_examples = x.dim(0)?;
///         let loss = f64::from(self.loss(network, x, &Pass::eval())?.to_scalar::<f32>()?) * n_examples as f64;
///         Ok(BatchEvaluation { n_examples, loss, metrics: BTreeMap::new(), right: None })
///     }
/// }
/// ```
pub trait Task<N: ?Sized, B> {
    /// The mean loss over the batch's examples, a scalar with its graph. A function of the network, the batch and the pass
    /// alone: a fit calls it twice for its first batch and wants the same bits.
    /// # Errors
    /// If network and batch do not fit the task ([`Error::Task`]), or candle fails. What else a task has to say goes into
    /// candle's error (`candle_core::Error::wrap`).
    fn loss(&self, network: &N, batch: &B, pass: &Pass) -> Result<Tensor, Error>;

    /// Figures of the network in evaluation mode.
    /// # Errors
    /// As [`Task::loss`].
    fn evaluate(&self, network: &N, batch: &B) -> Result<BatchEvaluation, Error>;
}

/// Sums over a batch's examples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchEvaluation {
    /// Number of examples.
    pub n_examples: usize,
    /// Sum of the losses.
    pub loss: f64,
    /// Sums of the metrics, by name; their means over all examples are what is reported.
    pub metrics: BTreeMap<String, f64>,
    /// Which examples were right, in order, where the task knows of right and wrong.
    pub right: Option<Vec<bool>>,
}

/// The name of the share of right answers among the metrics.
pub const ACCURACY: &str = "accuracy";
/// The name of the mean distance from the target among the metrics.
pub const MEAN_ABSOLUTE_ERROR: &str = "mean_absolute_error";

/// One class for each example: logits `[N, classes]` and targets `[N]` of u32 or i64; or for each token, `[N, T, classes]`
/// and `[N, T]`, where every token is an example.
///
/// The loss is cross entropy in nats. Its one metric is [`ACCURACY`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Classification {
    /// The part of a training target that is spread evenly over all classes, in [0, 1]; PyTorch's `label_smoothing`.
    ///
    /// DIFFERENCE: PyTorch's loss smooths wherever it is called. Here validation does not, so that validation losses of
    /// fits with and without smoothing compare.
    pub label_smoothing: f64,
}

impl<N: Network + ?Sized> Task<N, (Tensor, Tensor)> for Classification {
    fn loss(&self, network: &N, (x, targets): &(Tensor, Tensor), pass: &Pass) -> Result<Tensor, Error> {
        let (logits, targets) = examples(network.forward(x, pass)?, targets)?;
        Ok(lth_kernels::smoothed_cross_entropy(&logits, &targets, self.label_smoothing)?)
    }

    fn evaluate(&self, network: &N, (x, targets): &(Tensor, Tensor)) -> Result<BatchEvaluation, Error> {
        let (logits, targets) = examples(network.forward(x, &Pass::eval())?, targets)?;
        let n_examples = targets.dim(0)?;
        let loss = scalar(&lth_kernels::cross_entropy(&logits, &targets)?)? * n_examples as f64;
        let right = logits.argmax(D::Minus1)?.to_dtype(DType::U32)?.eq(&targets.to_dtype(DType::U32)?)?;
        let right: Vec<bool> = right.to_vec1::<u8>()?.into_iter().map(|bit| bit != 0).collect();
        let n_right = right.iter().filter(|right| **right).count() as f64;
        let metrics = BTreeMap::from([(ACCURACY.to_owned(), n_right)]);
        Ok(BatchEvaluation { n_examples, loss, metrics, right: Some(right) })
    }
}

/// Logits and targets with an example a row.
fn examples(logits: Tensor, targets: &Tensor) -> Result<(Tensor, Tensor), Error> {
    let (outputs, wanted) = (logits.dims().to_vec(), targets.dims().to_vec());
    let is_class = matches!(targets.dtype(), DType::U32 | DType::I64);
    if is_class && wanted.len() + 1 == outputs.len() && outputs.starts_with(&wanted) {
        match outputs.len() {
            2 => return Ok((logits, targets.clone())),
            3 => return Ok((logits.flatten(0, 1)?, targets.flatten_all()?)),
            _ => {}
        }
    }
    let hint = match targets.dtype() {
        DType::F16 | DType::BF16 | DType::F32 | DType::F64 => {
            "For a regression call `Trainer::fit_task` with `Regression`"
        }
        _ => "Give each example, or each token, one class index",
    };
    let expected = "logits [N, classes] and targets [N], or [N, T, classes] and [N, T], targets of u32 or i64";
    Err(Error::Task { task: "classification", outputs, targets: wanted, dtype: targets.dtype(), expected, hint })
}

/// One or several numbers for each example: outputs and targets of one shape `[N, …]`, targets of a float type.
///
/// The loss is the mean squared error over all values, as PyTorch's `MSELoss`. Its one metric is
/// [`MEAN_ABSOLUTE_ERROR`], over all values, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regression;

impl<N: Network + ?Sized> Task<N, (Tensor, Tensor)> for Regression {
    fn loss(&self, network: &N, (x, targets): &(Tensor, Tensor), pass: &Pass) -> Result<Tensor, Error> {
        Ok(difference(&network.forward(x, pass)?, targets)?.sqr()?.mean_all()?)
    }

    fn evaluate(&self, network: &N, (x, targets): &(Tensor, Tensor)) -> Result<BatchEvaluation, Error> {
        let n_examples = targets.dim(0)?;
        let difference = difference(&network.forward(x, &Pass::eval())?, targets)?;
        let sum = |mean: Tensor| Ok::<_, Error>(scalar(&mean)? * n_examples as f64);
        let loss = sum(difference.sqr()?.mean_all()?)?;
        let metrics = BTreeMap::from([(MEAN_ABSOLUTE_ERROR.to_owned(), sum(difference.abs()?.mean_all()?)?)]);
        Ok(BatchEvaluation { n_examples, loss, metrics, right: None })
    }
}

fn difference(outputs: &Tensor, targets: &Tensor) -> Result<Tensor, Error> {
    let is_float = matches!(targets.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64);
    if is_float && outputs.dims() == targets.dims() && outputs.rank() > 0 && outputs.elem_count() > 0 {
        return Ok((outputs - targets.to_dtype(outputs.dtype())?)?);
    }
    let hint = if !is_float {
        "For classes call `Trainer::fit`, or give the targets as floats"
    } else if outputs.elem_count() == targets.elem_count() {
        "Reshape one of the two"
    } else {
        "Give each output its target"
    };
    Err(Error::Task {
        task: "regression",
        outputs: outputs.dims().to_vec(),
        targets: targets.dims().to_vec(),
        dtype: targets.dtype(),
        expected: "outputs and targets of one shape [N, …], targets of a float type",
        hint,
    })
}
