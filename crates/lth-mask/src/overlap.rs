//! How alike two masks are.

use std::collections::BTreeMap;

use crate::error::{Named, Result};
use crate::mask::Mask;
use crate::set::MaskSet;

/// How much two masks have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Overlap {
    /// Weights in all.
    pub weights: u64,
    /// Weights that both keep.
    pub kept_by_both: u64,
    /// Weights that at least one keeps.
    pub kept_by_either: u64,
}

impl Overlap {
    /// Kept by both / kept by either, in [0, 1]; 1 where neither keeps anything.
    #[must_use]
    pub fn jaccard(&self) -> f64 {
        if self.kept_by_either == 0 { 1.0 } else { self.kept_by_both as f64 / self.kept_by_either as f64 }
    }

    /// Weights that one keeps and the other prunes.
    #[must_use]
    pub fn differing(&self) -> u64 {
        self.kept_by_either - self.kept_by_both
    }

    /// Differing / all, the normalised Hamming distance, in [0, 1]; 0 of no weights.
    #[must_use]
    pub fn hamming(&self) -> f64 {
        if self.weights == 0 { 0.0 } else { self.differing() as f64 / self.weights as f64 }
    }

    fn add(self, other: Self) -> Self {
        Self {
            weights: self.weights + other.weights,
            kept_by_both: self.kept_by_both + other.kept_by_both,
            kept_by_either: self.kept_by_either + other.kept_by_either,
        }
    }
}

impl Mask {
    /// How much this mask has in common with another.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn overlap(&self, other: &Self) -> Result<Overlap> {
        self.check_shape(other.shape())?;
        let pairs = || self.words().iter().zip(other.words());
        Ok(Overlap {
            weights: self.len() as u64,
            kept_by_both: pairs().map(|(a, b)| u64::from((a & b).count_ones())).sum(),
            kept_by_either: pairs().map(|(a, b)| u64::from((a | b).count_ones())).sum(),
        })
    }
}

/// How much two mask sets have in common, layer by layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Overlaps {
    /// By parameter name.
    pub layers: BTreeMap<String, Overlap>,
}

impl Overlaps {
    /// All layers as one.
    #[must_use]
    pub fn overall(&self) -> Overlap {
        self.layers.values().copied().fold(Overlap::default(), Overlap::add)
    }
}

impl MaskSet {
    /// How much this set has in common with another.
    ///
    /// # Errors
    /// If the sets' names or shapes differ.
    pub fn overlap(&self, other: &Self) -> Result<Overlaps> {
        let layers = self.zip(other)?.map(|(name, a, b)| Ok((name.to_owned(), a.overlap(b).named(name)?)));
        Ok(Overlaps { layers: layers.collect::<Result<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jaccard_and_hamming_count_kept_and_differing() -> Result<()> {
        let a = Mask::from_fn([100], |i| i < 60)?;
        let b = Mask::from_fn([100], |i| i >= 30)?;
        let overlap = a.overlap(&b)?;
        assert_eq!((overlap.jaccard(), overlap.hamming(), overlap.differing()), (0.3, 0.7, 70));
        let none = Mask::all_pruned([3])?;
        assert_eq!(none.overlap(&none)?.jaccard(), 1.0);
        let set = |mask: &Mask| -> MaskSet {
            [("x".to_owned(), mask.clone()), ("y".to_owned(), none.clone())].into_iter().collect()
        };
        let overlaps = set(&a).overlap(&set(&b))?;
        assert_eq!(overlaps.layers["x"], overlap);
        assert_eq!(overlaps.overall(), Overlap { weights: 103, kept_by_both: 30, kept_by_either: 100 });
        Ok(())
    }
}
