//! From scores to masks.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::error::{Error, Named, Result};
use crate::granularity::{Granularity, Layer};
use crate::group::Reduction;
use crate::mask::Mask;
use crate::pattern::{self, matches_any, most_specific};
use crate::rule::ThresholdRule;
use crate::scope::Scope;
use crate::set::MaskSet;

use job::{Job, Source};

mod job;
mod per_output;

/// How scores become masks: what is pruned as one, over what the budget is shared, and how it is cut.
///
/// The default prunes single weights, each layer by itself, to the exact count, and empties no layer.
///
/// Layers are named by their parameter's name or by a pattern (see [`matches`](crate::matches)); a pattern that fits none
/// of the scores is an error. So is a field of another name, where a selection is read from a file.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// What is pruned as one.
    pub granularity: Granularity,
    /// What is pruned as one in the layers named here, by the most specific pattern that fits: filters of convolutions
    /// with rows of linear layers, say. Layers that share a budget share it in groups, whatever their size; N:M shares
    /// none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub granularities: BTreeMap<String, Granularity>,
    /// How the scores of a group become one.
    pub reduction: Reduction,
    /// Over what the budget is shared.
    pub scope: Scope,
    /// How a sparsity becomes a cut.
    pub rule: ThresholdRule,
    /// Layers that are not pruned: they get no mask and do not count.
    pub keep_dense: Vec<String>,
    /// Groups that every layer keeps whatever the budget says; a layer with fewer keeps them all. A scope that shares its
    /// budget takes them from the other layers where it can.
    pub minimum_kept: usize,
    /// The number of groups kept in each layer is a multiple of this, or all of them. The budget is held where
    /// `minimum_kept` allows: a layer that has its own keeps the multiple below; of layers that share one, those that miss
    /// most by that keep a multiple more while there is budget for it.
    pub round_to: usize,
    /// Which weights have their inputs before their outputs: transposed convolutions, `[I, O, H, W]`, linear weights
    /// `[I, O]` (GPT-2's `Conv1D`), fused experts `[E, I, O]`.
    pub transposed: Vec<String>,
    /// Which weights of rank 3 are those of fused experts, `[E, O, I]`; others are one-dimensional convolutions'.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub experts: Vec<String>,
    /// Weights that share one decision per group, such as the filters that write to one residual stream: each list's
    /// group scores are averaged, and its masks keep the same groups. A shared group counts once.
    pub tied: Vec<Vec<String>>,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            granularity: Granularity::Weight,
            granularities: BTreeMap::new(),
            reduction: Reduction::Mean,
            scope: Scope::Local,
            rule: ThresholdRule::ExactCount,
            keep_dense: Vec::new(),
            minimum_kept: 1,
            round_to: 1,
            transposed: Vec::new(),
            experts: Vec::new(),
            tied: Vec::new(),
        }
    }
}

impl Selection {
    /// What fasterai did at the time of the 2021 notebook: single weights, each layer by itself, the quantile rule.
    #[must_use]
    pub fn fasterai_2021() -> Self {
        Self { rule: ThresholdRule::Quantile, ..Self::default() }
    }

    pub(crate) fn granularity_of(&self, name: &str) -> &Granularity {
        let pattern = most_specific(self.granularities.keys().map(String::as_str), name);
        pattern.and_then(|pattern| self.granularities.get(pattern)).unwrap_or(&self.granularity)
    }

    /// # Errors
    /// If it is named as experts and has not three dimensions.
    pub(crate) fn layer_of(&self, name: &str, shape: &[usize]) -> Result<Layer> {
        let transposed = matches_any(&self.transposed, name);
        if matches_any(&self.experts, name) {
            return Layer::experts(shape, transposed).named(name);
        }
        Ok(Layer::of(shape, transposed))
    }

    /// Checks that every pattern fits one of these names, as selecting does.
    ///
    /// # Errors
    /// If a pattern fits none.
    pub fn check_patterns<'n>(&self, names: impl Iterator<Item = &'n str> + Clone) -> Result<()> {
        pattern::check("keep_dense", &self.keep_dense, names.clone())?;
        pattern::check("transposed", &self.transposed, names.clone())?;
        pattern::check("experts", &self.experts, names.clone())?;
        pattern::check("granularities", self.granularities.keys(), names.clone())?;
        match &self.scope {
            Scope::PerLayer(map) => pattern::check("scope per layer", map.keys(), names),
            _ => Ok(()),
        }
    }
}

/// Masks that keep the weights with the highest scores, at the sparsity asked for.
///
/// `scores`: a map (`BTreeMap` or `HashMap`) by parameter name, finite, of any rank; f32 (f16 and bf16 are widened, f64
/// rounded).
/// `sparsity`: the fraction pruned of what may be pruned. The masks do not depend on the number of threads, nor on the
/// order of the map.
///
/// # Errors
/// If a score is NaN or infinite, the sparsity is no fraction, a tensor does not have the granularity, or a pattern of the
/// selection fits no name.
pub fn select<'t>(
    scores: impl IntoIterator<Item = (&'t String, &'t Tensor)>,
    sparsity: f64,
    selection: &Selection,
) -> Result<MaskSet> {
    Job::held(&by_name(scores)?, selection, None)?.select(sparsity)
}

/// As [`select`], but keeps only what `previous` keeps: masks of one round of iterative pruning after another are nested.
///
/// `sparsity` is still the fraction of all weights; a layer whose previous mask keeps fewer stays as it is. A group of
/// which the previous mask keeps nothing cannot be chosen; of a group that is chosen, what it kept stays. A previous mask
/// that prunes something of a tensor which is not selected now (it is kept dense, or has no score) is among the masks as
/// it was, and does not count.
///
/// # Errors
/// As [`select`], and if a score has no previous mask or one of another shape.
pub fn select_within<'t>(
    scores: impl IntoIterator<Item = (&'t String, &'t Tensor)>,
    sparsity: f64,
    selection: &Selection,
    previous: &MaskSet,
) -> Result<MaskSet> {
    let mut masks = Job::held(&by_name(scores)?, selection, Some(previous))?.select(sparsity)?;
    for (name, mask) in previous.iter().filter(|(_, mask)| mask.zeros() > 0) {
        if masks.get(name).is_none() {
            masks.insert(name, mask.clone());
        }
    }
    Ok(masks)
}

/// One tensor of [`select_streamed`].
#[derive(Clone, Debug)]
pub struct Streamed {
    /// Its scores, as [`select`] takes them.
    pub scores: Tensor,
    /// What it is selected within, as by [`select_within`]; `None` where all may be kept.
    pub previous: Option<Mask>,
}

/// As [`select`] and [`select_within`], for scores that are not in memory all at once: `load` makes those of one tensor,
/// which are gone before the next is asked for. The masks are the same, to the bit.
///
/// `shapes`: of every tensor by name. `load` is asked once for each tensor that is selected by itself (scopes
/// [`Local`](Scope::Local), [`PerLayer`](Scope::PerLayer), [`PerOutput`](Scope::PerOutput)), twice under Erdős–Rényi
/// scopes, and for a shared threshold ([`Global`](Scope::Global), [`Lamp`](Scope::Lamp)) six times, or more where layers
/// are helped to their least; it must give the same each time. LAMP sorts each time.
///
/// Beside the masks, a bit per weight, there is in memory what `load` returns for one tensor; of tied tensors a number per
/// group besides.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use candle_core::{Device, Error, Tensor};
/// use lth_mask::{Selection, Streamed, select_streamed};
/// # fn main() -> lth_mask::Result<()> {
/// let shapes = BTreeMap::from([("fc1.weight".to_owned(), vec![2, 3]), ("fc2.weight".to_owned(), vec![1, 2])]);
/// let masks = select_streamed(
///     &shapes,
///     |name| {
///         let scores = Tensor::arange(0f32, 6., &Device::Cpu)?; // from a file, say
///         let scores = scores.narrow(0, 0, shapes[name].iter().product())?.reshape(shapes[name].as_slice())?;
///         Ok::<_, Error>(Streamed { scores, previous: None })
///     },
///     0.5,
///     &Selection::default(),
/// )?;
/// assert_eq!((masks.zeros(), masks.weights()), (4, 8));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As those two; [`Error::Scores`] if `load` fails; if what it gives has another shape; and [`Error::Changed`] where it is seen
/// that it gave something else before.
pub fn select_streamed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    shapes: &BTreeMap<String, Vec<usize>>,
    load: impl Fn(&str) -> Result<Streamed, E> + Sync,
    sparsity: f64,
    selection: &Selection,
) -> Result<MaskSet> {
    let load = |name: &str| load(name).map_err(|error| Error::Scores(error.into()));
    let names = shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
    Job::new(names, selection, Source::Streamed(&load))?.select(sparsity)
}

/// # Errors
/// If a name is there twice, which it is in no map.
fn by_name<'t>(scores: impl IntoIterator<Item = (&'t String, &'t Tensor)>) -> Result<BTreeMap<&'t str, &'t Tensor>> {
    let mut sorted = BTreeMap::new();
    for (name, tensor) in scores {
        if sorted.insert(name.as_str(), tensor).is_some() {
            return Err(Error::Name("there twice")).named(name);
        }
    }
    Ok(sorted)
}
