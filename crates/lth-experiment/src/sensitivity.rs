//! How much a network minds the pruning of each part alone.

use std::collections::BTreeMap;

use candle_core::Tensor;
use lth_criteria::{Criterion, NamedInputs, score_all};
use lth_mask::{Selection, select};
use lth_schedule::{LayerType, PruningRate};
use lth_train::{BoxError, Evaluation, Network, Parameters, Task, evaluate};

use crate::Error;
use crate::plan::Levels;
use crate::targets::kind;

/// A part of a network pruned alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity {
    /// The part.
    pub part: String,
    /// Its weights by name.
    pub layers: Vec<String>,
    /// How many numbers those are.
    pub n_weights: usize,
    /// At every sparsity that was asked for, what the network gives with this part pruned and all else whole.
    pub at: Vec<(f64, Evaluation)>,
}

/// What is pruned together, by name, and the weights that it is made of.
pub type Parts = BTreeMap<String, Vec<String>>;

/// Every prunable weight by itself.
pub fn layers_alone(parameters: &Parameters, ranks: &[usize]) -> Parts {
    parameters.prunable(ranks).map(|(name, _)| (name.to_owned(), vec![name.to_owned()])).collect()
}

/// The kinds of layers that there are: "convolution", "linear", and "output", which is the weight named so.
///
/// Source: Frankle & Carbin 2019, figure 2, which has a pruning rate for each.
pub fn kinds(parameters: &Parameters, ranks: &[usize], output: &str) -> Parts {
    let mut kinds = Parts::new();
    for (name, parameter) in parameters.prunable(ranks) {
        let kind = match kind(name, parameter.var().rank(), output) {
            LayerType::Convolution => CONVOLUTION,
            LayerType::Linear => LINEAR,
            LayerType::Output => OUTPUT,
        };
        kinds.entry(kind.to_owned()).or_default().push(name.to_owned());
    }
    kinds
}

const CONVOLUTION: &str = "convolution";
const LINEAR: &str = "linear";
const OUTPUT: &str = "output";

/// Every part pruned alone to each of `sparsities`, without training. `criterion` sees the weights alone. The network has
/// its own values again afterwards.
///
/// Source: Han et al. 2015, "Learning both Weights and Connections", figure 6; Li et al. 2017, "Pruning Filters for
/// Efficient ConvNets", §3.2.
///
/// # Errors
/// [`Error::Scores`] if the criterion needs more than the weights; if a part names no weight, a sparsity is no fraction, or
/// a batch cannot be read.
pub fn sensitivity<N: Network, B, T: Task<N, B>, I>(
    network: &N,
    task: &T,
    (criterion, selection): (&dyn Criterion, &Selection),
    parts: &Parts,
    sparsities: &[f64],
    batches: impl Fn() -> I,
) -> Result<Vec<Sensitivity>, Error>
where
    I: Iterator<Item = Result<B, BoxError>>,
{
    if let Some(input) = criterion.requires().iter().find(|input| *input != lth_criteria::Input::Weight) {
        let hint = "which one layer alone does not have: take a criterion of the weights";
        return Err(Error::Scores { criterion: criterion.name().to_owned(), needs: input.to_string(), hint });
    }
    let mut found = Vec::new();
    for (part, layers) in parts {
        let own = |name: &String| -> Result<(String, Tensor), Error> {
            Ok((name.clone(), network.parameters().require(name)?.var().as_detached_tensor().copy()?))
        };
        let alone: BTreeMap<String, Tensor> = layers.iter().map(own).collect::<Result<_, Error>>()?;
        let scores = score_all(criterion, &NamedInputs::of(&alone))?;
        let mut at = Vec::new();
        for &sparsity in sparsities {
            let mut pruned = alone.clone();
            select(&scores, sparsity, selection)?.apply(&mut pruned)?;
            network.parameters().restore(&pruned)?;
            let evaluated = evaluate(network, task, batches());
            network.parameters().restore(&alone)?;
            at.push((sparsity, evaluated?));
        }
        let n_weights = alone.values().map(Tensor::elem_count).sum();
        found.push(Sensitivity { part: part.clone(), layers: layers.clone(), n_weights, at });
    }
    Ok(found)
}

/// For each part the highest of the sparsities up to which pruning it alone loses no more of `metric` than `tolerance`. A
/// part that minds the least of them gets 0.
///
/// `whole`: the metric of the unpruned network.
pub fn suggested_sparsities(
    sensitivities: &[Sensitivity],
    metric: &str,
    whole: f64,
    tolerance: f64,
) -> BTreeMap<String, f64> {
    let bearable = |part: &Sensitivity| {
        let mut rising: Vec<_> = part.at.iter().collect();
        rising.sort_by(|one, other| one.0.total_cmp(&other.0));
        let is_borne =
            |evaluation: &Evaluation| evaluation.metrics.get(metric).is_some_and(|value| whole - value <= tolerance);
        rising.iter().take_while(|(_, evaluation)| is_borne(evaluation)).last().map_or(0.0, |(sparsity, _)| *sparsity)
    };
    sensitivities.iter().map(|part| (part.part.clone(), bearable(part))).collect()
}

/// The levels of a plan that come to these sparsities after `n_levels` of them, where `suggested` has [`layers_alone`].
///
/// # Errors
/// If a sparsity is 1, which no number of levels reaches, or no fraction.
pub fn levels_by_layer(suggested: &BTreeMap<String, f64>, n_levels: u32) -> Result<Levels, Error> {
    let rates = suggested.iter().map(|(name, sparsity)| Ok((name.clone(), rate(*sparsity, n_levels)?)));
    Ok(Levels::ByLayer { rates: rates.collect::<Result<_, Error>>()? })
}

/// The same where `suggested` has [`kinds`]; of a kind that is not there nothing is pruned.
///
/// # Errors
/// As [`levels_by_layer`].
pub fn levels_by_kind(suggested: &BTreeMap<String, f64>, n_levels: u32, output: &str) -> Result<Levels, Error> {
    let of = |kind: &str| suggested.get(kind).map_or(Ok(PruningRate::NONE), |sparsity| rate(*sparsity, n_levels));
    let rates = lth_schedule::PruningRates { convolution: of(CONVOLUTION)?, linear: of(LINEAR)?, output: of(OUTPUT)? };
    Ok(Levels::ByKind { rates, output: output.to_owned() })
}

/// The part of what remains that each of `n_levels` takes away: 1 − (1 − sparsity)^(1 / n_levels).
fn rate(sparsity: f64, n_levels: u32) -> Result<PruningRate, Error> {
    Ok(PruningRate::new(1.0 - (1.0 - sparsity).powf(1.0 / f64::from(n_levels.max(1))))?)
}
