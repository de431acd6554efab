//! Gradients over the batches before a cut.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};

use crate::Error;

/// Sums over batches, so that a state inside of a collection can be saved.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collected {
    pub(crate) gradients: BTreeMap<String, Tensor>,
    pub(crate) squares: BTreeMap<String, Tensor>,
    pub(crate) n_batches: u32,
}

impl Collected {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds a batch's gradients and their squares. Half precision is summed in f32.
    pub(crate) fn observe(&mut self, gradients: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        for (name, gradient) in gradients {
            // A copy: the optimiser may use the gradient's memory again.
            let gradient = match gradient.dtype() {
                DType::F32 | DType::F64 => gradient.detach().copy()?,
                _ => gradient.detach().to_dtype(DType::F32)?,
            };
            add(&mut self.squares, name, gradient.sqr()?)?;
            add(&mut self.gradients, name, gradient)?;
        }
        self.n_batches += 1;
        Ok(())
    }

    pub(crate) fn mean(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        self.divided(&self.gradients)
    }

    pub(crate) fn mean_of_squares(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        self.divided(&self.squares)
    }

    fn divided(&self, sums: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>, Error> {
        let n = f64::from(self.n_batches.max(1));
        sums.iter().map(|(name, sum)| Ok((name.clone(), (sum / n)?))).collect()
    }
}

fn add(sums: &mut BTreeMap<String, Tensor>, name: &str, value: Tensor) -> Result<(), Error> {
    let sum = match sums.get(name) {
        Some(sum) => (sum + value)?,
        None => value,
    };
    sums.insert(name.to_owned(), sum);
    Ok(())
}
