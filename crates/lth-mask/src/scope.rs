//! Over what the budget is shared.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::error::{Error, Named, Result};
use crate::pattern::matches;
use crate::rank::key;
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
    /// The sparsity of the layer `name` where `asked` is asked for: its own under [`Scope::PerLayer`], `asked` for others.
    ///
    /// # Errors
    /// If its own is no fraction.
    pub fn own_sparsity(&self, name: &str, asked: f64) -> Result<f64> {
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
/// share the rest. Source: RigL, `sparse_utils.get_sparsities_erdos_renyi`.
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

/// LAMP scores of one layer; what has gone before (−∞) stays so.
///
/// # Errors
/// If a score is negative.
pub(crate) fn lamp(scores: &[f32]) -> Result<Vec<f32>> {
    let negative = |&s: &f32| s < 0.0 && s != f32::NEG_INFINITY;
    if let Some(index) = scores.iter().position(negative) {
        return Err(Error::NegativeScore { index, value: scores[index] });
    }
    let Ok(len) = u32::try_from(scores.len()) else {
        return Err(Error::TooManyElements(vec![scores.len()]));
    };
    // Highest first, of equal ones the first: sorted as plain numbers, with the place in the lower half.
    let place = |(i, &score): (u32, &f32)| u64::from(!key(score)) << 32 | u64::from(i);
    let mut order: Vec<u64> = (0..len).zip(scores).map(place).collect();
    order.par_sort_unstable();
    let mut out = vec![f32::NEG_INFINITY; scores.len()];
    let mut sum = 0.0;
    for i in order
        .into_iter()
        .map(|place| (place & u64::from(u32::MAX)) as usize)
        .take_while(|&i| scores[i] != f32::NEG_INFINITY)
    {
        let square = f64::from(scores[i]).powi(2);
        sum += square;
        // A layer of zeros has no largest weight: all are 0, and position breaks the ties.
        out[i] = if sum > 0.0 { (square / sum) as f32 } else { 0.0 };
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erdos_renyi_densities_are_those_of_rigl() {
        let shapes: [&[usize]; 3] = [&[16, 3, 3, 3], &[32, 16, 3, 3], &[10, 32]];
        let sizes: Vec<usize> = shapes.iter().map(|s| s.iter().product()).collect();
        let total = 1_000;
        let kernel: Vec<f64> = shapes.iter().map(|s| erdos_renyi_weight(s, true)).collect();
        // 25/432, 54/4608, 42/320; one epsilon would make the first and last denser than dense: 432·25/432 = 25 and 42
        // of the shares, 54 of the middle one; 1000/121 · 42/320 > 1.
        let densities = proportional_densities(&kernel, &sizes, total);
        assert_eq!(densities[2], 1.0);
        let scale = (1_000.0 - 320.0) / (25.0 + 54.0);
        assert!((densities[0] - scale * 25.0 / 432.0).abs() < 1e-12);
        assert!((densities[1] - scale * 54.0 / 4_608.0).abs() < 1e-12);
        let kept: f64 = densities.iter().zip(&sizes).map(|(d, &n)| d * n as f64).sum();
        assert!((kept - 1_000.0).abs() < 1e-9);
        assert_eq!(erdos_renyi_weight(&[16, 3, 3, 3], false), 19.0 / 48.0);
    }

    #[test]
    fn densities_reach_both_ends() {
        assert_eq!(proportional_densities(&[0.5, 0.1], &[4, 20], 24), [1.0, 1.0]);
        assert_eq!(proportional_densities(&[0.5, 0.1], &[4, 20], 0), [0.0, 0.0]);
        assert!(proportional_densities(&[], &[], 0).is_empty());
    }

    #[test]
    fn apportioned_counts_add_up() {
        assert_eq!(apportion(&[1.5, 2.5, 3.0], &[(0, 9); 3], 7), [2, 2, 3]);
        assert_eq!(apportion(&[0.2, 9.8], &[(1, 5), (0, 10)], 10), [1, 9]);
        assert_eq!(apportion(&[0.2, 0.8], &[(1, 5), (1, 5)], 1), [1, 1]);
        assert_eq!(apportion(&[3.0, 3.0], &[(0, 2), (0, 2)], 6), [2, 2]);
    }

    #[test]
    fn lamp_is_a_square_over_the_squares_above_it() -> Result<()> {
        let scores = lamp(&[3.0, 1.0, 0.0, 2.0])?;
        assert_eq!(scores, [1.0, 1.0 / 14.0, 0.0, 4.0 / 13.0].map(|s: f64| s as f32));
        assert_eq!(lamp(&[0.0, 0.0])?, [0.0, 0.0]);
        assert_eq!(lamp(&[f32::NEG_INFINITY, 2.0])?, [f32::NEG_INFINITY, 1.0]);
        assert!(matches!(lamp(&[1.0, -1.0]), Err(Error::NegativeScore { index: 1, value: -1.0 })));
        Ok(())
    }

    #[test]
    fn an_exact_name_goes_before_a_pattern() -> Result<()> {
        let map = BTreeMap::from([("*".to_owned(), 0.1), ("fc.weight".to_owned(), 0.9), ("conv*".to_owned(), 0.5)]);
        let scope = Scope::PerLayer(map);
        assert_eq!(scope.own_sparsity("fc.weight", 0.3)?, 0.9);
        assert_eq!(scope.own_sparsity("conv1.weight", 0.3)?, 0.1);
        assert_eq!(Scope::PerLayer(BTreeMap::new()).own_sparsity("conv1.weight", 0.3)?, 0.3);
        let odd = Scope::PerLayer(BTreeMap::from([("a".to_owned(), 1.5)])).own_sparsity("a", 0.3);
        assert!(matches!(odd, Err(Error::Named { .. })));
        Ok(())
    }
}
