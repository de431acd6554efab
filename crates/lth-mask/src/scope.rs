//! Over what the budget is shared.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::error::{Error, Named, Result};
use crate::pattern::most_specific;
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
    /// Every output of every layer has it: the weights that make one output (a row of a linear weight or of an expert, a
    /// filter) are compared with each other alone. Least kept and rounding count per output, and ties are refused. The
    /// granularity must be a part of an output, as single weights and kernels are. Source: Sun et al. 2024, "A Simple and
    /// Effective Pruning Approach for Large Language Models" (Wanda), §3.
    PerOutput,
    /// All layers together have it: one threshold for the scores of all. Counted in groups, so that with filters of
    /// different sizes the share of weights differs.
    Global,
    /// Each layer has the sparsity of its name here, or of the [most specific](crate::matches) pattern that fits; the
    /// others have the one asked for. A pattern that fits no layer is an error.
    PerLayer(BTreeMap<String, f64>),
    /// All layers together have it, with layer densities proportional to (inputs + outputs) / (inputs · outputs), at
    /// most 1. Source: Mocanu et al. 2018, SET.
    ErdosRenyi,
    /// The same with the kernel's sides: (inputs + outputs + height + width) / (inputs · outputs · height · width).
    /// Source: Evci et al. 2020, RigL ("ERK").
    ErdosRenyiKernel,
    /// All layers together have it, shared by LAMP scores: a score's square over the sum of the squares that are at least
    /// as high in its layer, of equal ones the first counting as higher (the same rule as `lth-criteria`'s criterion of
    /// this name). The scores should be magnitudes. Source: Lee et al. 2021.
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
        let own = most_specific(map.keys().map(String::as_str), name).and_then(|pattern| map.get(pattern));
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
        let weights: Vec<f64> =
            shapes.iter().zip(&sizes).map(|(s, &n)| erdos_renyi_weight(s, true) * n as f64).collect();
        // 25/432, 54/4608, 42/320; one epsilon would make the last denser than dense: 25, 54 and 42 of 1000, 320 at most.
        let bounds: Vec<(usize, usize)> = sizes.iter().map(|&n| (0, n)).collect();
        let kept = crate::apportion::proportional(&weights, &bounds, 1_000);
        let scale = (1_000.0 - 320.0) / (25.0 + 54.0);
        assert_eq!(kept[2], 320.0);
        assert!((kept[0] - scale * 25.0).abs() < 1e-9);
        assert!((kept[1] - scale * 54.0).abs() < 1e-9);
        assert_eq!(erdos_renyi_weight(&[16, 3, 3, 3], false), 19.0 / 48.0);
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
    fn the_most_specific_pattern_wins() -> Result<()> {
        let map = BTreeMap::from([("*".to_owned(), 0.1), ("fc.weight".to_owned(), 0.9), ("conv*".to_owned(), 0.5)]);
        let scope = Scope::PerLayer(map);
        assert_eq!(scope.own_sparsity("fc.weight", 0.3)?, 0.9);
        assert_eq!(scope.own_sparsity("conv1.weight", 0.3)?, 0.5);
        assert_eq!(scope.own_sparsity("bn.weight", 0.3)?, 0.1);
        assert_eq!(Scope::PerLayer(BTreeMap::new()).own_sparsity("conv1.weight", 0.3)?, 0.3);
        let odd = Scope::PerLayer(BTreeMap::from([("a".to_owned(), 1.5)])).own_sparsity("a", 0.3);
        assert!(matches!(odd, Err(Error::Named { .. })));
        Ok(())
    }
}
