//! Collectors of what gradient criteria need: gradients over batches, and Hessian-gradient products.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor, Var};

use crate::Error;
use crate::error::Names;

/// The gradient of `loss` for every variable, by name, detached. A variable with two names has its gradient under both.
///
/// Variables of integer types have no gradient and are left out.
///
/// # Errors
/// If the backward pass fails or gives a variable no gradient, as where it is frozen, or an operator without a backward
/// pass cuts it off: by zeros in its place it would be pruned first. Leave out what is frozen.
pub fn gradients(loss: &Tensor, variables: &BTreeMap<String, Var>) -> Result<BTreeMap<String, Tensor>, Error> {
    let gradients = reached(loss, variables)?;
    let is_missing = |(name, var): &(&String, &Var)| !var.dtype().is_int() && !gradients.contains_key(*name);
    let missing: Vec<String> = variables.iter().filter(is_missing).map(|(name, _)| name.clone()).collect();
    if missing.is_empty() { Ok(gradients) } else { Err(Error::NoGradient { weights: Names(missing) }) }
}

/// The gradients of the variables that the backward pass reaches.
pub(crate) fn reached(loss: &Tensor, variables: &BTreeMap<String, Var>) -> Result<BTreeMap<String, Tensor>, Error> {
    let store = loss.backward()?;
    let floats = variables.iter().filter(|(_, var)| !var.dtype().is_int());
    Ok(floats.filter_map(|(name, var)| Some((name.clone(), store.get(var)?.detach()))).collect())
}

/// Sums of gradients and of squared gradients over batches; every batch counts the same, whatever its size.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use candle_core::{Device, Tensor, Var};
/// use lth_criteria::{GradientStatistics, NamedInputs, Snip, gradients, score_all};
///
/// let weight = Var::new(&[1f32, -2.0, 0.5], &Device::Cpu)?;
/// let variables = BTreeMap::from([("w".to_owned(), weight.clone())]);
/// let mut statistics = GradientStatistics::new();
/// for batch in [[1f32, 0.0, 2.0], [3.0, 1.0, 0.0]] {
///     let loss = (weight.as_tensor() * Tensor::new(&batch, &Device::Cpu)?)?.sum_all()?;
///     statistics.observe(&gradients(&loss, &variables)?)?;
/// }
/// let (weights, mean) = (BTreeMap::from([("w".to_owned(), weight.as_detached_tensor())]), statistics.mean()?);
/// let scores = score_all(&Snip, &NamedInputs { gradient: Some(&mean), ..NamedInputs::of(&weights) })?;
/// assert_eq!(scores["w"].to_vec1::<f32>()?, [2.0, 1.0, 0.5]);
/// # Ok::<(), lth_criteria::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct GradientStatistics {
    sums: BTreeMap<String, Sums>,
    n_batches: u64,
}

#[derive(Clone, Debug)]
struct Sums {
    gradient: Tensor,
    squared: Tensor,
}

impl GradientStatistics {
    /// No batches yet.
    pub fn new() -> GradientStatistics {
        GradientStatistics::default()
    }

    /// Adds the gradients of one batch, by name; every batch must bring the same names. Half precision is summed in f32.
    ///
    /// # Errors
    /// if a name is new or missing, or a shape differs from the batch before; the sums are then as before.
    pub fn observe(&mut self, gradients: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        if self.n_batches > 0 {
            let missing = self.sums.keys().find(|name| !gradients.contains_key(*name));
            if let Some(name) = missing {
                return Err(Error::UnknownWeight { what: "this batch of gradients", weight: name.clone() });
            }
        }
        let mut sums = BTreeMap::new();
        for (name, gradient) in gradients {
            let gradient = widened(&gradient.detach())?;
            let squared = gradient.sqr()?;
            let sum = match self.sums.get(name) {
                None if self.n_batches > 0 => {
                    return Err(Error::UnknownWeight { what: "the batch before", weight: name.clone() });
                }
                // A copy: the gradient may share storage with something that the caller changes in place.
                None => Sums { gradient: gradient.copy()?, squared },
                Some(before) if before.gradient.dims() != gradient.dims() => {
                    return Err(Error::Shape {
                        weight: name.clone(),
                        input: crate::Input::Gradient,
                        got: gradient.dims().to_vec(),
                        expected: format!("{:?}", before.gradient.dims()),
                    });
                }
                Some(before) => {
                    Sums { gradient: (&before.gradient + gradient)?, squared: (&before.squared + squared)? }
                }
            };
            sums.insert(name.clone(), sum);
        }
        self.sums = sums;
        self.n_batches += 1;
        Ok(())
    }

    /// Number of batches so far.
    pub fn n_batches(&self) -> u64 {
        self.n_batches
    }

    /// Σ g over batches, by name: [`Input::Gradient`](crate::Input::Gradient).
    pub fn sum(&self) -> BTreeMap<String, Tensor> {
        self.sums.iter().map(|(name, sums)| (name.clone(), sums.gradient.clone())).collect()
    }

    /// Σ g / n, by name: [`Input::Gradient`](crate::Input::Gradient). Empty before the first batch.
    ///
    /// # Errors
    /// if candle fails.
    pub fn mean(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        self.divided(|sums| &sums.gradient)
    }

    /// Σ g² / n, by name: [`Input::SquaredGradient`](crate::Input::SquaredGradient). Empty before the first batch.
    ///
    /// # Errors
    /// if candle fails.
    pub fn mean_of_squares(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        self.divided(|sums| &sums.squared)
    }

    fn divided(&self, which: impl Fn(&Sums) -> &Tensor) -> Result<BTreeMap<String, Tensor>, Error> {
        let n = self.n_batches as f64;
        self.sums.iter().map(|(name, sums)| Ok((name.clone(), (which(sums) / n)?))).collect()
    }
}

fn widened(tensor: &Tensor) -> Result<Tensor, Error> {
    Ok(match tensor.dtype() {
        DType::F32 | DType::F64 => tensor.clone(),
        _ => tensor.to_dtype(DType::F32)?,
    })
}

/// Deep copies of variables, put back by [`Restore::finish`], or when it is dropped on the way out of an error.
pub(crate) struct Restore<'a> {
    variables: &'a BTreeMap<String, Var>,
    values: BTreeMap<&'a str, Tensor>,
}

impl<'a> Restore<'a> {
    pub(crate) fn new(variables: &'a BTreeMap<String, Var>) -> Result<Restore<'a>, Error> {
        // `copy`: a clone would share storage and see what `set` writes.
        let copy = |(name, var): (&'a String, &Var)| Ok((name.as_str(), var.as_detached_tensor().copy()?));
        Ok(Restore { variables, values: variables.iter().map(copy).collect::<Result<_, Error>>()? })
    }

    pub(crate) fn value(&self, name: &str) -> Result<&Tensor, Error> {
        self.values.get(name).ok_or_else(|| Error::UnknownWeight { what: "the network", weight: name.to_owned() })
    }

    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.put_back()
    }

    fn put_back(&mut self) -> Result<(), Error> {
        for (name, value) in std::mem::take(&mut self.values) {
            self.variables[name].set(&value)?;
        }
        Ok(())
    }
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        // On the way out of an error: that error is the one to report.
        let _ = self.put_back();
    }
}
