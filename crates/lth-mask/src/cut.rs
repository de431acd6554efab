//! Where each layer's scores are cut, from the scope, the rule and the budget.

use rayon::prelude::*;

use crate::error::Result;
use crate::rank::{Cut, Key, above_and_equal, nth_largest, nth_smallest};
use crate::rule::ThresholdRule;
use crate::scope::{Scope, apportion, proportional_densities};

/// Layers' group scores and what limits each.
pub(crate) struct Layers<'a> {
    /// Each layer's own scores.
    pub(crate) scores: Vec<&'a [f32]>,
    /// The scores by which a budget is shared: LAMP's under its scope, else the same.
    pub(crate) shared: Vec<&'a [f32]>,
    /// The least and the most groups that each keeps.
    pub(crate) bounds: Vec<(usize, usize)>,
    /// Each layer's own sparsity, for scopes that share nothing.
    pub(crate) own: Vec<f64>,
    /// What its density is proportional to under Erdős–Rényi scopes.
    pub(crate) erdos_renyi: Vec<f64>,
    /// The count kept is rounded up to a multiple of this.
    pub(crate) round_to: usize,
}

impl Layers<'_> {
    fn sizes(&self) -> Vec<usize> {
        self.scores.iter().map(|s| s.len()).collect()
    }

    fn rounded(&self, layer: usize, count: usize) -> usize {
        let (low, high) = self.bounds[layer];
        count.max(low).checked_next_multiple_of(self.round_to).map_or(high, |rounded| rounded.min(high))
    }
}

/// One cut per layer.
pub(crate) fn cuts(layers: &Layers<'_>, scope: &Scope, rule: ThresholdRule, sparsity: f64) -> Result<Vec<Cut>> {
    let sizes = layers.sizes();
    let n: usize = sizes.iter().sum();
    if rule != ThresholdRule::ExactCount {
        return thresholds(layers, scope, rule, sparsity);
    }
    let counts = match scope {
        Scope::Local | Scope::PerLayer(_) => {
            sizes.iter().zip(&layers.own).map(|(&n, &own)| rule.kept(own, n)).collect::<Result<_>>()?
        }
        Scope::Global | Scope::Lamp => {
            let shares = shares(&layers.shared, &layers.bounds, rule.kept(sparsity, n)?);
            // The threshold that all share is each one's own, unless its count changes yet, or LAMP only shares out.
            let cut = |(i, share): (usize, Share)| match (layers.rounded(i, share.count), share.above) {
                (count, Some(above)) if count == share.count && *scope == Scope::Global => above,
                (count, _) => Cut::Count(count),
            };
            return Ok(shares.into_iter().enumerate().map(cut).collect());
        }
        Scope::ErdosRenyi | Scope::ErdosRenyiKernel => {
            let total = rule.kept(sparsity, n)?;
            let densities = proportional_densities(&layers.erdos_renyi, &sizes, total);
            let wanted: Vec<f64> = densities.iter().zip(&sizes).map(|(d, &n)| d * n as f64).collect();
            apportion(&wanted, &layers.bounds, total)
        }
    };
    Ok(counts.into_iter().enumerate().map(|(i, count): (_, usize)| Cut::Count(layers.rounded(i, count))).collect())
}

/// What a layer keeps of a shared budget.
#[derive(Clone, Copy)]
struct Share {
    count: usize,
    /// The cut that keeps just that many, if it is known.
    above: Option<Cut>,
}

/// How many of each layer are among the highest `total` of all, every layer keeping its least.
///
/// A layer with fewer than its least among them gets just that; the others then share what is left, until all have
/// theirs.
fn shares(scores: &[&[f32]], bounds: &[(usize, usize)], total: usize) -> Vec<Share> {
    let mut shares: Vec<Option<Share>> = vec![None; scores.len()];
    loop {
        let open: Vec<usize> = (0..scores.len()).filter(|&i| shares[i].is_none()).collect();
        let parts: Vec<&[f32]> = open.iter().map(|&i| scores[i]).collect();
        let most = open.iter().map(|&i| bounds[i].1).sum();
        let left = total.saturating_sub(shares.iter().flatten().map(|s| s.count).sum()).min(most);
        let found = highest(&parts, left);
        let short = |(i, share): &(&usize, &Share)| share.count < bounds[**i].0;
        let helped: Vec<usize> = open.iter().zip(&found).filter(short).map(|(&i, _)| i).collect();
        if helped.is_empty() {
            open.into_iter().zip(found).for_each(|(i, share)| shares[i] = Some(share));
            return shares.into_iter().flatten().collect();
        }
        helped.into_iter().for_each(|i| shares[i] = Some(Share { count: bounds[i].0, above: None }));
    }
}

/// What of each part is among the highest `count` of all; of equal ones those of the earlier part.
fn highest(parts: &[&[f32]], count: usize) -> Vec<Share> {
    let Some(threshold) = count.checked_sub(1).and_then(|rank| nth_largest(parts, rank)) else {
        return vec![Share { count: 0, above: None }; parts.len()];
    };
    let found: Vec<_> = parts.iter().map(|part| above_and_equal(part, threshold)).collect();
    let mut left = count - found.iter().map(|(above, _)| above).sum::<usize>();
    let share = |(above, equal): (usize, usize)| {
        let ties = equal.min(left);
        left -= ties;
        let cut = if ties == equal { Cut::AtLeast(threshold) } else { Cut::Above(threshold, ties) };
        Share { count: above + ties, above: Some(cut) }
    };
    found.into_iter().map(share).collect()
}

fn thresholds(layers: &Layers<'_>, scope: &Scope, rule: ThresholdRule, sparsity: f64) -> Result<Vec<Cut>> {
    let sizes = layers.sizes();
    let n: usize = sizes.iter().sum();
    let own = match scope {
        Scope::Local | Scope::PerLayer(_) => layers.own.clone(),
        Scope::Global | Scope::Lamp => vec![sparsity; sizes.len()],
        Scope::ErdosRenyi | Scope::ErdosRenyiKernel => {
            let total = ThresholdRule::ExactCount.kept(sparsity, n)?;
            let densities = proportional_densities(&layers.erdos_renyi, &sizes, total);
            densities.into_iter().map(|density| (1.0 - density).clamp(0.0, 1.0)).collect()
        }
    };
    let shared: Option<Key> = match scope {
        Scope::Global | Scope::Lamp if n > 0 => nth_smallest(&layers.shared, rule.threshold_rank(sparsity, n)),
        _ => None,
    };
    let threshold = |i: usize| -> Cut {
        let scores = layers.shared[i];
        let (low, _) = layers.bounds[i];
        let threshold = shared.or_else(|| nth_smallest(&[scores], rule.threshold_rank(own[i], scores.len().max(1))));
        let Some(mut threshold) = threshold else {
            return Cut::Count(0); // a layer without weights
        };
        // What a layer needs at least, and a multiple of `round_to`; its highest score is above no threshold of its own.
        if layers.round_to > 1 || low > 1 || (low == 1 && shared.is_some()) {
            let (above, equal) = above_and_equal(scores, threshold);
            let count = layers.rounded(i, above + equal);
            if count > above + equal
                && let Some(lower) = nth_largest(&[scores], count - 1)
            {
                threshold = lower;
            }
        }
        Cut::AtLeast(threshold)
    };
    Ok((0..sizes.len()).into_par_iter().map(threshold).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_budget_is_exact_and_leaves_each_its_least() {
        let (a, b, c) = ([9.0, 8.0, 7.0, 6.0], [1.0, 1.0, 1.0], [5.0, 0.5]);
        let parts: [&[f32]; 3] = [&a, &b, &c];
        let counts = |parts: &[&[f32]], bounds: &[_], total| -> Vec<usize> {
            shares(parts, bounds, total).into_iter().map(|share| share.count).collect()
        };
        let least = |least: usize| [(least, 4), (least, 3), (least.min(2), 2)];
        assert_eq!(counts(&parts, &least(0), 4), [4, 0, 0]);
        assert_eq!(counts(&parts, &least(0), 7), [4, 2, 1]);
        assert_eq!(counts(&parts, &least(1), 4), [2, 1, 1]);
        assert_eq!(counts(&parts, &least(2), 6), [2, 2, 2]);
        assert_eq!(counts(&parts, &least(2), 1), [2, 2, 2]);
        assert_eq!(counts(&parts, &least(0), 0), [0, 0, 0]);
        assert_eq!(counts(&parts, &[(1, 4), (0, 0), (1, 1)], 9), [4, 0, 1]);
    }
}
