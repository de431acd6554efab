//! Masks by parameter name.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use rayon::prelude::*;

use crate::error::{Error, Named, Result};
use crate::mask::Mask;

/// Masks by parameter name: what travels between pruning, training and files.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use lth_mask::{Mask, MaskSet};
/// # fn main() -> lth_mask::Result<()> {
/// let mask = Mask::from_tensor(&Tensor::new(&[[1u8, 0], [0, 1]], &Device::Cpu)?)?;
/// let masks: MaskSet = [("fc.weight".to_owned(), mask)].into_iter().collect();
/// let weight = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu)?;
/// let masked = masks.apply_to("fc.weight", &weight)?;
/// assert_eq!(masked.to_vec2::<f32>()?, [[1., 0.], [0., 4.]]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaskSet {
    masks: BTreeMap<String, Mask>,
}

impl MaskSet {
    /// A set of no masks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Masks that keep everything, of the tensors' names and shapes: where iterative pruning starts.
    ///
    /// # Errors
    /// If a shape has more elements than `usize` counts.
    pub fn all_kept<'t>(tensors: impl IntoIterator<Item = (&'t String, &'t Tensor)>) -> Result<Self> {
        tensors.into_iter().map(|(name, t)| Ok((name.clone(), Mask::all_kept(t.dims()).named(name)?))).collect()
    }

    /// The masks that tensors of zeros and ones stand for.
    ///
    /// # Errors
    /// If a value is neither 0 nor 1.
    pub fn from_tensors<'t>(tensors: impl IntoIterator<Item = (&'t String, &'t Tensor)>) -> Result<Self> {
        tensors.into_iter().map(|(name, t)| Ok((name.clone(), Mask::from_tensor(t).named(name)?))).collect()
    }

    /// The masks that keep what is not 0 in the weights.
    ///
    /// # Errors
    /// If a weight is not f32, f64, f16 or bf16.
    pub fn from_nonzero<'t>(weights: impl IntoIterator<Item = (&'t String, &'t Tensor)>) -> Result<Self> {
        weights.into_iter().map(|(name, t)| Ok((name.clone(), Mask::from_nonzero(t).named(name)?))).collect()
    }

    /// The masks as tensors, u8, 1 = keep: how they travel between crates.
    ///
    /// # Errors
    /// If the device refuses.
    pub fn to_tensors(&self, device: &Device) -> Result<BTreeMap<String, Tensor>> {
        self.iter().map(|(name, mask)| Ok((name.to_owned(), mask.to_tensor(device).named(name)?))).collect()
    }

    /// The mask of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Mask> {
        self.masks.get(name)
    }

    /// Adds a mask; returns the one it replaces.
    pub fn insert(&mut self, name: impl Into<String>, mask: Mask) -> Option<Mask> {
        self.masks.insert(name.into(), mask)
    }

    /// Takes a mask out.
    pub fn remove(&mut self, name: &str) -> Option<Mask> {
        self.masks.remove(name)
    }

    /// The masks in order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Mask)> {
        self.masks.iter().map(|(name, mask)| (name.as_str(), mask))
    }

    /// The number of masks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.masks.len()
    }

    /// Whether there is no mask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }

    /// Weights in all.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.masks.values().map(Mask::len).sum()
    }

    /// Weights pruned in all.
    #[must_use]
    pub fn zeros(&self) -> usize {
        self.masks.values().map(Mask::zeros).sum()
    }

    /// Pruned / all, over the whole set, in [0, 1]; 0 of no weights.
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        let weights = self.weights();
        if weights == 0 { 0.0 } else { self.zeros() as f64 / weights as f64 }
    }

    /// Masks the tensors that have masks, in a `BTreeMap` or a `HashMap`; the others stay as they are.
    ///
    /// # Errors
    /// If a mask's tensor is missing or has another shape; the map is then as it was.
    pub fn apply<M>(&self, tensors: &mut M) -> Result<()>
    where
        for<'m> &'m M: IntoIterator<Item = (&'m String, &'m Tensor)>,
        M: Extend<(String, Tensor)>,
    {
        let mut masked = Vec::with_capacity(self.len());
        for (name, tensor) in &*tensors {
            if let Some(mask) = self.get(name) {
                masked.push((name.clone(), mask.apply(tensor).named(name)?));
            }
        }
        let found: BTreeSet<&str> = masked.iter().map(|(name, _)| name.as_str()).collect();
        if let Some((name, _)) = self.iter().find(|(name, _)| !found.contains(name)) {
            return Err(Error::Missing { what: "tensor" }).named(name);
        }
        tensors.extend(masked);
        Ok(())
    }

    /// The tensor of this name, masked; a copy if it has no mask. What comes back shares no storage with `tensor`: it does
    /// not change where that is a variable that is set.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn apply_to(&self, name: &str, tensor: &Tensor) -> Result<Tensor> {
        match self.get(name) {
            Some(mask) => mask.apply(tensor).named(name),
            None => Ok(tensor.copy().named(name)?),
        }
    }

    /// Masks the storage of the tensors (or variables: they deref to tensors) that have masks, optimiser state under its
    /// parameters' names too; what has no mask stays as it is. See [`Mask::apply_in_place`].
    ///
    /// # Errors
    /// If a shape differs. The tensors before it are then masked already.
    pub fn apply_in_place<'t>(&self, tensors: impl IntoIterator<Item = (&'t str, &'t Tensor)>) -> Result<()> {
        let with_masks = tensors.into_iter().filter_map(|(name, tensor)| Some((name, tensor, self.get(name)?)));
        with_masks.into_iter().try_for_each(|(name, tensor, mask)| mask.apply_in_place(tensor).named(name))
    }

    /// Masks the gradients of the variables that have masks and gradients.
    ///
    /// # Errors
    /// If a shape differs.
    pub fn apply_to_gradients<'t>(
        &self,
        variables: impl IntoIterator<Item = (&'t str, &'t Var)>,
        gradients: &mut GradStore,
    ) -> Result<()> {
        for (name, variable) in variables {
            if let (Some(mask), Some(gradient)) = (self.get(name), gradients.get(variable)) {
                let masked = mask.apply(gradient).named(name)?;
                gradients.insert(variable, masked);
            }
        }
        Ok(())
    }

    /// Keeps what either set keeps.
    ///
    /// # Errors
    /// If the sets' names or shapes differ.
    pub fn union(&self, other: &Self) -> Result<Self> {
        self.zip(other)?.map(|(name, a, b)| Ok((name.to_owned(), a.union(b).named(name)?))).collect()
    }

    /// Keeps what both sets keep.
    ///
    /// # Errors
    /// If the sets' names or shapes differ.
    pub fn intersection(&self, other: &Self) -> Result<Self> {
        self.zip(other)?.map(|(name, a, b)| Ok((name.to_owned(), a.intersection(b).named(name)?))).collect()
    }

    /// Keeps what this set prunes.
    #[must_use]
    pub fn invert(&self) -> Self {
        self.iter().map(|(name, mask)| (name.to_owned(), mask.invert())).collect()
    }

    /// The first weight that this set keeps and `other` does not, by name and flat index; `None` if it is nested in
    /// `other`.
    ///
    /// # Errors
    /// If the sets' names or shapes differ.
    pub fn first_outside<'a>(&'a self, other: &'a Self) -> Result<Option<(&'a str, usize)>> {
        for (name, a, b) in self.zip(other)? {
            if let Some(index) = a.first_outside(b).named(name)? {
                return Ok(Some((name, index)));
            }
        }
        Ok(None)
    }

    /// Whether `other` keeps all that this set keeps.
    ///
    /// # Errors
    /// If the sets' names or shapes differ.
    pub fn is_nested_in(&self, other: &Self) -> Result<bool> {
        Ok(self.first_outside(other)?.is_none())
    }

    /// The masks of both sets side by side.
    pub(crate) fn zip<'a>(&'a self, other: &'a Self) -> Result<impl Iterator<Item = (&'a str, &'a Mask, &'a Mask)>> {
        let unknown = |a: &Self, b: &Self| a.masks.keys().find(|name| !b.masks.contains_key(*name)).cloned();
        if let Some(name) = unknown(self, other).or_else(|| unknown(other, self)) {
            return Err(Error::Missing { what: "mask in one of the sets" }).named(&name);
        }
        Ok(self.masks.iter().zip(other.masks.values()).map(|((name, a), b)| (name.as_str(), a, b)))
    }

    /// A set made of each mask by itself, in parallel.
    pub(crate) fn map(&self, f: impl Fn(&str, &Mask) -> Mask + Sync) -> Self {
        let masks: Vec<_> = self.masks.par_iter().map(|(name, mask)| (name.clone(), f(name, mask))).collect();
        masks.into_iter().collect()
    }
}

/// Of masks of the same name the last one stays.
impl FromIterator<(String, Mask)> for MaskSet {
    fn from_iter<I: IntoIterator<Item = (String, Mask)>>(masks: I) -> Self {
        Self { masks: masks.into_iter().collect() }
    }
}

impl IntoIterator for MaskSet {
    type Item = (String, Mask);
    type IntoIter = std::collections::btree_map::IntoIter<String, Mask>;

    fn into_iter(self) -> Self::IntoIter {
        self.masks.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    fn set(masks: &[(&str, &[u8])]) -> Result<MaskSet> {
        let mask = |bits: &[u8]| Mask::from_fn([bits.len()], |i| bits[i] == 1);
        masks.iter().map(|(name, bits)| Ok((name.to_string(), mask(bits)?))).collect()
    }

    #[test]
    fn a_missing_tensor_leaves_the_others_as_they_were() -> Result<()> {
        let masks = set(&[("a", &[1, 0]), ("b", &[0, 1])])?;
        let ones = Tensor::ones(2, DType::F32, &Device::Cpu)?;
        let mut tensors: BTreeMap<_, _> = [("a".to_owned(), ones.clone())].into();
        let error = masks.apply(&mut tensors).unwrap_err();
        assert_eq!(error.to_string(), "`b`: no tensor of this name, expected one");
        assert_eq!(tensors["a"].to_vec1::<f32>()?, [1., 1.]);
        tensors.insert("b".to_owned(), ones.clone());
        tensors.insert("c".to_owned(), ones);
        masks.apply(&mut tensors)?;
        let values: Vec<_> = tensors.values().map(Tensor::to_vec1::<f32>).collect::<Result<_, _>>()?;
        assert_eq!(values, [[1., 0.], [0., 1.], [1., 1.]]);
        Ok(())
    }

    #[test]
    fn a_wrong_shape_is_named() -> Result<()> {
        let masks = set(&[("conv1.weight", &[1, 0])])?;
        let ones = Tensor::ones((2, 1), DType::F32, &Device::Cpu)?;
        let error = masks.apply_to("conv1.weight", &ones).unwrap_err();
        assert_eq!(error.to_string(), "`conv1.weight`: mask has shape [2], expected [2, 1]");
        Ok(())
    }

    #[test]
    fn gradients_of_pruned_weights_are_zero() -> Result<()> {
        let masks = set(&[("w", &[1, 0, 1])])?;
        let w = Var::from_tensor(&Tensor::ones(3, DType::F32, &Device::Cpu)?)?;
        let free = Var::from_tensor(&Tensor::ones(3, DType::F32, &Device::Cpu)?)?;
        let mut gradients = (w.as_tensor() * free.as_tensor())?.sum_all()?.backward()?;
        masks.apply_to_gradients([("w", &w), ("free", &free)], &mut gradients)?;
        let gradient = |v: &Var| gradients.get(v).map(Tensor::to_vec1::<f32>).transpose();
        assert_eq!(gradient(&w)?, Some(vec![1., 0., 1.]));
        assert_eq!(gradient(&free)?, Some(vec![1., 1., 1.]));
        Ok(())
    }

    #[test]
    fn sets_combine_by_name() -> Result<()> {
        let a = set(&[("x", &[1, 1, 0, 0]), ("y", &[1])])?;
        let b = set(&[("x", &[1, 0, 1, 0]), ("y", &[0])])?;
        assert_eq!(a.union(&b)?, set(&[("x", &[1, 1, 1, 0]), ("y", &[1])])?);
        assert_eq!(a.intersection(&b)?, set(&[("x", &[1, 0, 0, 0]), ("y", &[0])])?);
        assert_eq!(a.invert(), set(&[("x", &[0, 0, 1, 1]), ("y", &[0])])?);
        assert_eq!(a.first_outside(&b)?, Some(("x", 1)));
        assert!(a.intersection(&b)?.is_nested_in(&a)?);
        assert!(a.union(&set(&[("x", &[1, 1, 1, 1])])?).is_err());
        assert!(set(&[("x", &[1, 1, 1, 1])])?.union(&a).is_err());
        Ok(())
    }
}
