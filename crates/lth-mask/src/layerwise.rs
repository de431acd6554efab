//! Layers that are looked at one by one: in memory, or made anew at every look.

use rayon::prelude::*;

use crate::error::Result;
use crate::mask::Mask;

/// One layer's scores.
#[derive(Clone, Copy)]
pub(crate) struct Scores<'s> {
    /// Of its groups, finite; −∞ where a group may not be kept.
    pub(crate) groups: &'s [f32],
    /// What each of its tensors is selected within.
    pub(crate) previous: &'s [Option<&'s Mask>],
}

/// Layers whose scores can be looked at.
pub(crate) trait Layerwise: Sync {
    /// What `find` finds in each of these layers, in their order. What is found does not depend on whether layers are
    /// looked at side by side or one after the other.
    fn look<R: Send>(&self, layers: &[usize], find: impl Fn(usize, Scores<'_>) -> Result<R> + Sync) -> Result<Vec<R>>;
}

impl Layerwise for [&[f32]] {
    fn look<R: Send>(&self, layers: &[usize], find: impl Fn(usize, Scores<'_>) -> Result<R> + Sync) -> Result<Vec<R>> {
        layers.par_iter().map(|&i| find(i, Scores { groups: self[i], previous: &[] })).collect()
    }
}
