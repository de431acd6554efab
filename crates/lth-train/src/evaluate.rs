//! Loss and metrics over a data set.

use std::collections::BTreeMap;

use crate::task::ACCURACY;
use crate::{BoxError, Error, Task};

/// Figures of a network on a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean loss over examples (not over batches).
    pub loss: f64,
    /// Means of the task's metrics over examples, by name.
    pub metrics: BTreeMap<String, f64>,
    /// Number of examples.
    pub n_examples: usize,
    /// Which examples were right, in the order of the data, where the task knows of right and wrong.
    pub right: Option<Vec<bool>>,
}

impl Evaluation {
    /// The share of right answers, in [0, 1]; `None` if the task has no such metric.
    pub fn accuracy(&self) -> Option<f64> {
        self.metrics.get(ACCURACY).copied()
    }
}

/// Runs the network in evaluation mode over batches, by the task that they are for:
/// `evaluate(&network, &Classification::default(), batches)`.
/// # Errors
/// [`Error::NoBatches`] without any example, [`Error::Data`] if a batch cannot be read, or the task's.
pub fn evaluate<N: ?Sized, B, E: Into<BoxError>>(
    network: &N,
    task: &(impl Task<N, B> + ?Sized),
    batches: impl Iterator<Item = Result<B, E>>,
) -> Result<Evaluation, Error> {
    let (mut loss, mut n_examples, mut metrics) = (0.0, 0, BTreeMap::<String, f64>::new());
    let mut right = Some(Vec::new());
    for batch in batches {
        let of_batch = task.evaluate(network, &batch.map_err(|error| Error::Data(error.into()))?)?;
        loss += of_batch.loss;
        n_examples += of_batch.n_examples;
        for (name, sum) in of_batch.metrics {
            *metrics.entry(name).or_default() += sum;
        }
        match (&mut right, of_batch.right) {
            (Some(all), Some(these)) => all.extend(these),
            _ => right = None,
        }
    }
    if n_examples == 0 {
        return Err(Error::NoBatches { what: "the evaluation", hint: "give it at least one example" });
    }
    let n = n_examples as f64;
    metrics.values_mut().for_each(|sum| *sum /= n);
    Ok(Evaluation { loss: loss / n, metrics, n_examples, right })
}
