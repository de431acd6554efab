use std::collections::BTreeMap;

use candle_core::Tensor;
use rayon::prelude::*;

use crate::{Error, Inputs, NamedInputs, Requirements};

/// A rule that gives every element of a weight a saliency score; the higher, the more it should be kept.
///
/// A score is a pure function of the tensors in [`Inputs`]: no state, no order, no clock. Your own criterion is one
/// implementation; [`Checked`](crate::Checked) does the checking:
///
/// ```
/// use candle_core::{Device, Tensor};
/// use lth_criteria::{Checked, Criterion, Error, Input, Inputs, Requirements};
///
/// /// |w| in units of how far it has moved since initialisation.
/// struct Stubborn;
///
/// impl Criterion for Stubborn {
///     fn name(&self) -> &str {
///         "stubborn"
///     }
///
///     fn requires(&self) -> Requirements {
///         Requirements::of(&[Input::Initial])
///     }
///
///     fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error> {
///         let checked = Checked::new(self.name(), weight_name, inputs);
///         let (weight, initial) = (checked.weight()?, checked.like_weight(Input::Initial)?);
///         let moved = ((&weight - initial)?.abs()? + 1e-8)?;
///         checked.finish(&(weight.abs()? / moved)?)
///     }
/// }
///
/// let (now, then) = (Tensor::new(&[2f32, -3.0], &Device::Cpu)?, Tensor::new(&[1f32, -2.9], &Device::Cpu)?);
/// let scores = Stubborn.score("fc.weight", &Inputs { initial: Some(&then), ..Inputs::of(&now) })?.to_vec1::<f32>()?;
/// assert!(scores[1] > scores[0]);
/// # Ok::<(), Error>(())
/// ```
pub trait Criterion: Send + Sync {
    /// The name, as in records and on command lines.
    fn name(&self) -> &str;

    /// What it needs beside the weight.
    fn requires(&self) -> Requirements;

    /// One score per element: the weight's shape, f32, on the CPU, finite, higher = keep.
    ///
    /// # Errors
    /// if a required input is missing or has the wrong shape, or an input or a score is not finite.
    fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error>;
}

impl<C: Criterion + ?Sized> Criterion for &C {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn requires(&self) -> Requirements {
        (**self).requires()
    }

    fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error> {
        (**self).score(weight_name, inputs)
    }
}

impl<C: Criterion + ?Sized> Criterion for Box<C> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn requires(&self) -> Requirements {
        (**self).requires()
    }

    fn score(&self, weight_name: &str, inputs: &Inputs<'_>) -> Result<Tensor, Error> {
        (**self).score(weight_name, inputs)
    }
}

/// The scores of every weight in `inputs`, by name. Weights are scored in parallel; the result is the same bits for any
/// number of threads.
///
/// # Errors
/// as [`Criterion::score`]; of several the one of the first weight in name order.
pub fn score_all(criterion: &dyn Criterion, inputs: &NamedInputs<'_>) -> Result<BTreeMap<String, Tensor>, Error> {
    let names: Vec<&String> = inputs.weight.keys().collect();
    let scores: Vec<Result<Tensor, Error>> = names
        .par_iter()
        .map(|name| match inputs.find(name) {
            Some(inputs) => criterion.score(name, &inputs),
            None => Err(Error::UnknownWeight { what: "weights", weight: (*name).clone() }),
        })
        .collect();
    names.into_iter().zip(scores).map(|(name, score)| Ok((name.clone(), score?))).collect()
}
