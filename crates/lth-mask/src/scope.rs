//! Over what the budget is shared.

use std::collections::BTreeMap;

use crate::error::{Error, Named, Result};
use crate::pattern::matches;
use crate::rule::check_sparsity;

/// Over what a sparsity is shared.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scope {
    /// Every layer has the sparsity asked for.
    #[default]
    Local,
    /// All layers together have it: one threshold for the scores of all. Counted in groups, so that with filters of
    /// different sizes the share of weights differs.
    Global,
    /// Each layer has the sparsity of its name here, or of the first pattern in order that fits (see
    /// [`matches`](crate::matches)); the others have the one asked for.
    PerLayer(BTreeMap<String, f64>),
    /// All layers together have it, with layer densities proportional to (inputs + outputs) / (inputs · outputs), at
    /// most 1. Source: Mocanu et al. 2018, SET.
    ErdosRenyi,
    /// The same with the kernel's sides: (inputs + outputs + height + width) / (inputs · outputs · height · width).
    /// Source: Evci et al. 2020, RigL ("ERK").
    ErdosRenyiKernel,
    /// All layers together have it, shared by LAMP scores: a score's square over the sum of the squares that are at least
    /// as high in its layer. The scores should be magnitudes. Source: Lee et al. 2021.
    Lamp,
}

impl Scope {
    /// A layer's own sparsity, where the budget is not shared.
    pub(crate) fn own_sparsity(&self, name: &str, asked: f64) -> Result<f64> {
        let Self::PerLayer(map) = self else {
            return Ok(asked);
        };
        let exact = map.get(name);
        let own = exact.or_else(|| map.iter().find(|(pattern, _)| matches(pattern, name)).map(|(_, s)| s));
        let sparsity = own.copied().unwrap_or(asked);
        check_sparsity(sparsity).named(name)?;
        Ok(sparsity)
    }
}

/// What a layer's density is proportional to under Erdős–Rényi scopes: the sum of its sides over their product.
pub(crate) fn erdos_renyi_weight(shape: &[usize], kernel: bool) -> f64 {
    let sides = if kernel { shape } else { &shape[..shape.len().min(2)] };
    let product: f64 = sides.iter().map(|&d| d as f64).product();
    if product == 0.0 { 0.0 } else { sides.iter().sum::<usize>() as f64 / product }
}

/// Densities proportional to `weights` of which `total` of all groups are kept; what would be above 1 is 1 and the others
/// share the rest. Source: RigL, `sparse_utils.get_mask_random_fn`… `get_sparsities_erdos_renyi`.
pub(crate) fn proportional_densities(weights: &[f64], sizes: &[usize], total: usize) -> Vec<f64> {
    let mut dense = vec![false; sizes.len()];
    loop {
        let open = || (0..sizes.len()).filter(|&i| !dense[i]);
        let taken: usize = (0..sizes.len()).filter(|&i| dense[i]).map(|i| sizes[i]).sum();
        let share: f64 = open().map(|i| weights[i] * sizes[i] as f64).sum();
        let scale = if share > 0.0 { total.saturating_sub(taken) as f64 / share } else { 0.0 };
        let full: Vec<usize> = open().filter(|&i| weights[i] * scale > 1.0).collect();
        if full.is_empty() {
            let density = |i: usize| if dense[i] { 1.0 } else { weights[i] * scale };
            return (0..sizes.len()).map(density).collect();
        }
        full.into_iter().for_each(|i| dense[i] = true);
    }
}

/// Whole numbers near `wanted`, within the bounds, whose sum is as near to `total` as the bounds allow: rounded down, then
/// one more (or less) where the most is missing (or over), the first of equals.
pub(crate) fn apportion(wanted: &[f64], bounds: &[(usize, usize)], total: usize) -> Vec<usize> {
    let floor = wanted.iter().zip(bounds).map(|(&w, &(low, high))| (w.floor() as usize).clamp(low, high));
    let mut counts: Vec<usize> = floor.collect();
    loop {
        let sum: usize = counts.iter().sum();
        let missing = |i: usize| wanted[i] - counts[i] as f64;
        let best = if sum < total {
            let open = (0..counts.len()).filter(|&i| counts[i] < bounds[i].1);
            open.fold(None, |best: Option<usize>, i| best.filter(|&b| missing(b) >= missing(i)).or(Some(i)))
        } else if sum > total {
            let open = (0..counts.len()).filter(|&i| counts[i] > bounds[i].0);
            open.fold(None, |best: Option<usize>, i| best.filter(|&b| missing(b) <= missing(i)).or(Some(i)))
        } else {
            None
        };
        let Some(i) = best else {
            return counts;
        };
        if sum < total {
            counts[i] += 1;
        } else {
            counts[i] -= 1;
        }
    }
}

/// LAMP scores of one layer.
///
/// # Errors
/// If a score is negative.
pub(crate) fn lamp(scores: &[f32]) -> Result<Vec<f32>> {
    if let Some(index) = scores.iter().position(|&s| s < 0.0) {
        return Err(Error::NegativeScore { index, value: scores[index] });
    }
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b)));
    let mut out = vec![0.0; scores.len()];
    let mut sum = 0.0;
    for i in order {
        let square = f64::from(scores[i as usize]).powi(2);
        sum += square;
        // A layer of zeros has no largest weight: all are 0, and the ties are broken by position.
        out[i as usize] = if sum > 0.0 { (square / sum) as f32 } else { 0.0 };
    }
    Ok(out)
}
