//! What else is pruned where whole outputs are: biases, and norms' scales and shifts.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_mask::{CompactionPlan, Connections, Granularity, Mask, MaskSet, Selection, matches};
use lth_train::{Parameters, Role};

use crate::Error;

/// Masks of what must be 0 so that a pruned output is: all of `masks` that no weight carries.
///
/// Source: fasterai 0.3.3, which zeroes a pruned filter's bias and the BatchNorm after it.
pub(crate) fn silenced(
    parameters: &Parameters,
    masks: &MaskSet,
    selection: &Selection,
    connections: Option<&Connections>,
) -> Result<MaskSet, Error> {
    let Some(connections) = connections else { return biases(parameters, masks, selection) };
    let tensors: BTreeMap<String, Tensor> =
        parameters.iter().map(|(name, parameter)| (name.to_owned(), parameter.var().as_detached_tensor())).collect();
    let plan = CompactionPlan::new(connections, masks, &tensors)?;
    let more = plan.masks().iter().filter(|(name, mask)| masks.get(name) != Some(*mask));
    Ok(more.map(|(name, mask)| (name.to_owned(), mask.clone())).collect())
}

/// Of every layer whose outputs are pruned as a whole, its own bias.
fn biases(parameters: &Parameters, masks: &MaskSet, selection: &Selection) -> Result<MaskSet, Error> {
    use Granularity::{Filter, Head, Layer, Row, RowBlock};
    let mut biases = MaskSet::new();
    if !matches!(selection.granularity, Filter | Head { .. } | Layer | Row | RowBlock { .. }) {
        return Ok(biases);
    }
    for (name, mask) in masks.iter() {
        let Some(layer) = name.strip_suffix(".weight") else { continue };
        let bias = format!("{layer}.bias");
        let is_transposed = selection.transposed.iter().any(|pattern| matches(pattern, name));
        let axis = usize::from(is_transposed && mask.shape().len() == 4);
        let n_outputs = mask.shape().get(axis).copied().unwrap_or(0);
        let fits = |bias: &lth_train::Parameter| bias.role() == Role::Bias && bias.var().dims() == [n_outputs];
        if !parameters.get(&bias).is_some_and(fits) {
            continue;
        }
        let inner: usize = mask.shape()[axis + 1..].iter().product();
        let mut alive = vec![false; n_outputs];
        mask.kept_indices().for_each(|index| alive[index / inner % n_outputs] = true);
        if alive.contains(&false) {
            biases.insert(bias, Mask::from_fn([n_outputs], |output| alive[output])?);
        }
    }
    Ok(biases)
}
