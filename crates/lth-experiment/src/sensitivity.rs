//! How much a network minds the pruning of each layer alone.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_criteria::{Criterion, NamedInputs, score_all};
use lth_mask::{Selection, select};
use lth_train::{BoxError, Evaluation, Network, Task, evaluate};

use crate::Error;

/// A layer pruned alone.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSensitivity {
    /// The weight's name.
    pub layer: String,
    /// Its weights.
    pub n_weights: usize,
    /// At every sparsity that was asked for, what the network gives with this layer pruned and all others whole.
    pub at: Vec<(f64, Evaluation)>,
}

/// Every prunable layer pruned alone at each of `sparsities`, without training. `criterion` sees the weights alone. The
/// network has its own values again afterwards.
///
/// Source: Han et al. 2015, "Learning both Weights and Connections", figure 6; Li et al. 2017, "Pruning Filters for
/// Efficient ConvNets", §3.2.
///
/// # Errors
/// [`Error::Scores`] if the criterion needs more than the weights; if a sparsity is no fraction, or a batch cannot be read.
pub fn sensitivity<N: Network, B, T: Task<N, B>, I>(
    network: &N,
    task: &T,
    (criterion, selection): (&dyn Criterion, &Selection),
    ranks: &[usize],
    sparsities: &[f64],
    batches: impl Fn() -> I,
) -> Result<Vec<LayerSensitivity>, Error>
where
    I: Iterator<Item = Result<B, BoxError>>,
{
    if let Some(input) = criterion.requires().iter().find(|input| *input != lth_criteria::Input::Weight) {
        let hint = "which one layer alone does not have: take a criterion of the weights";
        return Err(Error::Scores { criterion: criterion.name().to_owned(), needs: input.to_string(), hint });
    }
    let layers: Vec<(String, Tensor)> = network
        .parameters()
        .prunable(ranks)
        .map(|(name, parameter)| Ok((name.to_owned(), parameter.var().as_detached_tensor().copy()?)))
        .collect::<candle_core::Result<_>>()?;
    let mut found = Vec::new();
    for (layer, weight) in layers {
        let alone = BTreeMap::from([(layer.clone(), weight.clone())]);
        let scores = score_all(criterion, &NamedInputs::of(&alone))?;
        let mut at = Vec::new();
        for &sparsity in sparsities {
            let masks = select(&scores, sparsity, selection)?;
            let pruned = masks.apply_to(&layer, &weight)?;
            network.parameters().restore(&BTreeMap::from([(layer.clone(), pruned)]))?;
            let evaluated = evaluate(network, task, batches());
            network.parameters().restore(&alone)?;
            at.push((sparsity, evaluated?));
        }
        found.push(LayerSensitivity { layer, n_weights: weight.elem_count(), at });
    }
    Ok(found)
}

/// The highest sparsity of each layer, of those measured, at which pruning it alone loses no more of `metric` than
/// `tolerance`: targets for [`Scope::PerLayer`](lth_mask::Scope::PerLayer). A layer that minds every one gets 0.
///
/// `whole`: the metric of the unpruned network.
pub fn suggested_sparsities(
    sensitivities: &[LayerSensitivity],
    metric: &str,
    whole: f64,
    tolerance: f64,
) -> BTreeMap<String, f64> {
    let bearable = |layer: &LayerSensitivity| {
        let fits = layer
            .at
            .iter()
            .filter(|(_, evaluation)| evaluation.metrics.get(metric).is_some_and(|value| whole - value <= tolerance));
        fits.map(|(sparsity, _)| *sparsity).fold(0.0, f64::max)
    };
    sensitivities.iter().map(|layer| (layer.layer.clone(), bearable(layer))).collect()
}
