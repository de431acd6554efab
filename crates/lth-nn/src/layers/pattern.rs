//! Masks on their way to the layers that compute with them.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use lth_kernels::Pattern;
use lth_train::{Parameters, Role};

use crate::Error;

/// Masks checked against a network's weights and packed for the sparse operators, by weight name.
#[derive(Debug, Default)]
pub struct Patterns(BTreeMap<String, Pattern>);

impl Patterns {
    /// Packs `masks` (u8, 1 = keep). Those of biases and norms are left out: they are zeros that no operator makes use of.
    /// # Errors  if a mask names no parameter of `parameters`, or differs from it in shape, or is not u8.
    pub fn new(parameters: &Parameters, masks: &BTreeMap<String, Tensor>) -> Result<Self, Error> {
        let pack = |(name, mask): (&String, &Tensor)| {
            let parameter = parameters.get(name).ok_or_else(|| Error::UnknownMask { name: name.clone() })?;
            let weight = parameter.var();
            if mask.dims() != weight.dims() {
                let (got, expected) = (mask.dims().to_vec(), weight.dims().to_vec());
                return Err(Error::Shape { what: "mask", name: name.clone(), got, expected });
            }
            if mask.dtype() != DType::U8 {
                return Err(Error::DType { what: "mask", name: name.clone(), got: mask.dtype(), expected: "U8" });
            }
            let has_kernel = parameter.role() == Role::Weight;
            has_kernel.then(|| Ok((name.clone(), Pattern::new(mask)?))).transpose()
        };
        Ok(Self(masks.iter().filter_map(|mask| pack(mask).transpose()).collect::<Result<_, Error>>()?))
    }

    /// The pattern of one weight; none if it is dense.
    pub fn get(&self, weight: &str) -> Option<&Pattern> {
        self.0.get(weight)
    }

    /// Makes `pattern` that of one weight. Of the same mask, it stays, and with it the lists that its kernels have made.
    pub(crate) fn update(&self, weight: &str, pattern: &mut Option<Pattern>) {
        if self.get(weight) != pattern.as_ref() {
            *pattern = self.get(weight).cloned();
        }
    }
}

/// A layer, or something made of layers, whose weights can be sparse.
pub trait Sparse {
    /// Takes over the patterns of its weights; a weight without one becomes dense.
    fn set_patterns(&mut self, patterns: &Patterns);
}

impl<L: Sparse> Sparse for Vec<L> {
    fn set_patterns(&mut self, patterns: &Patterns) {
        self.iter_mut().for_each(|layer| layer.set_patterns(patterns));
    }
}

impl<L: Sparse> Sparse for Option<L> {
    fn set_patterns(&mut self, patterns: &Patterns) {
        self.iter_mut().for_each(|layer| layer.set_patterns(patterns));
    }
}
