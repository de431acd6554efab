//! Where each layer's scores are cut, from the scope, the rule and the budget.

use crate::apportion::{apportion, down, proportional, up};
use crate::error::{Error, Result};
use crate::layerwise::Layerwise;
use crate::rank::{Cut, Key, above_and_equal, nth_largest, nth_largest_of, nth_smallest, nth_smallest_of};
use crate::rule::ThresholdRule;
use crate::scope::Scope;

/// Layers' group scores and what limits each.
pub(crate) struct Layers<'a, L: ?Sized> {
    /// The scores that are compared: LAMP's under its scope, else each layer's own.
    pub(crate) scores: &'a L,
    /// The groups of each.
    pub(crate) sizes: Vec<usize>,
    /// The least and the most groups that each keeps.
    pub(crate) bounds: Vec<(usize, usize)>,
    /// Each layer's own sparsity, for scopes that share nothing.
    pub(crate) own: Vec<f64>,
    /// What its density is proportional to under Erdős–Rényi scopes.
    pub(crate) erdos_renyi: Vec<f64>,
    /// The count kept is a multiple of this, or all.
    pub(crate) round_to: usize,
}

impl<L: Layerwise + ?Sized> Layers<'_, L> {
    /// The groups that each keeps under an Erdős–Rényi scope, as fractions.
    fn erdos_renyi(&self, total: usize) -> Vec<f64> {
        let weights: Vec<f64> = self.erdos_renyi.iter().zip(&self.sizes).map(|(w, &n)| w * n as f64).collect();
        proportional(&weights, &self.bounds, total)
    }

    /// A layer's own count, within its bounds and a multiple of `round_to`: not more than it was, but for the bounds.
    fn own(&self, layer: usize, count: usize) -> usize {
        let (low, high) = self.bounds[layer];
        down(count, high, self.round_to).max(up(low, high, self.round_to))
    }
}

/// One cut per layer.
pub(crate) fn cuts<L: Layerwise + ?Sized>(
    layers: &Layers<'_, L>,
    scope: &Scope,
    rule: ThresholdRule,
    sparsity: f64,
) -> Result<Vec<Cut>> {
    let sizes = &layers.sizes;
    let n: usize = sizes.iter().sum();
    if rule != ThresholdRule::ExactCount {
        return thresholds(layers, scope, rule, sparsity);
    }
    let counts: Vec<usize> = match scope {
        Scope::Local | Scope::PerLayer(_) | Scope::PerOutput => {
            sizes.iter().zip(&layers.own).map(|(&n, &own)| rule.kept(own, n)).collect::<Result<_>>()?
        }
        Scope::Global | Scope::Lamp => {
            let total = rule.kept(sparsity, n)?;
            let shares = shares(layers, total)?;
            if layers.round_to > 1 {
                let counts: Vec<f64> = shares.iter().map(|share| share.count as f64).collect();
                let counts = apportion(&counts, &layers.bounds, total, layers.round_to);
                return Ok(counts.into_iter().map(Cut::Count).collect());
            }
            // The threshold that all share is each one's own, unless it was helped, or LAMP only shares out.
            let cut = |share: Share| match share.above {
                Some(above) if *scope == Scope::Global => above,
                _ => Cut::Count(share.count),
            };
            return Ok(shares.into_iter().map(cut).collect());
        }
        Scope::ErdosRenyi | Scope::ErdosRenyiKernel => {
            let total = rule.kept(sparsity, n)?;
            let counts = apportion(&layers.erdos_renyi(total), &layers.bounds, total, layers.round_to);
            return Ok(counts.into_iter().map(Cut::Count).collect());
        }
    };
    Ok(counts.into_iter().enumerate().map(|(i, count)| Cut::Count(layers.own(i, count))).collect())
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
fn shares<L: Layerwise + ?Sized>(layers: &Layers<'_, L>, total: usize) -> Result<Vec<Share>> {
    let bounds = &layers.bounds;
    let mut shares: Vec<Option<Share>> = vec![None; bounds.len()];
    loop {
        let open: Vec<usize> = (0..bounds.len()).filter(|&i| shares[i].is_none()).collect();
        let most = open.iter().map(|&i| bounds[i].1).sum();
        let left = total.saturating_sub(shares.iter().flatten().map(|s| s.count).sum()).min(most);
        let found = highest(layers, &open, left)?;
        let short = |(i, share): &(&usize, &Share)| share.count < bounds[**i].0;
        let helped: Vec<usize> = open.iter().zip(&found).filter(short).map(|(&i, _)| i).collect();
        if helped.is_empty() {
            open.into_iter().zip(found).for_each(|(i, share)| shares[i] = Some(share));
            return Ok(shares.into_iter().flatten().collect());
        }
        helped.into_iter().for_each(|i| shares[i] = Some(Share { count: bounds[i].0, above: None }));
    }
}

/// What of each of these layers is among the highest `count` of all; of equal ones those of the earlier layer.
fn highest<L: Layerwise + ?Sized>(layers: &Layers<'_, L>, which: &[usize], count: usize) -> Result<Vec<Share>> {
    let n = which.iter().map(|&i| layers.sizes[i]).sum();
    let threshold = match count.checked_sub(1) {
        Some(rank) => nth_largest_of(layers.scores, which, n, rank)?,
        None => None,
    };
    let Some(threshold) = threshold else {
        return Ok(vec![Share { count: 0, above: None }; which.len()]);
    };
    let found = layers.scores.look(which, |_, scores| Ok(above_and_equal(scores.groups, threshold)))?;
    let above = found.iter().map(|(above, _)| above).sum::<usize>();
    let mut left = count.checked_sub(above).ok_or(Error::Changed)?;
    let share = |(above, equal): (usize, usize)| {
        let ties = equal.min(left);
        left -= ties;
        let cut = if ties == equal { Cut::AtLeast(threshold) } else { Cut::Above(threshold, ties) };
        Share { count: above + ties, above: Some(cut) }
    };
    Ok(found.into_iter().map(share).collect())
}

fn thresholds<L: Layerwise + ?Sized>(
    layers: &Layers<'_, L>,
    scope: &Scope,
    rule: ThresholdRule,
    sparsity: f64,
) -> Result<Vec<Cut>> {
    let sizes = &layers.sizes;
    let n: usize = sizes.iter().sum();
    let own = match scope {
        Scope::Local | Scope::PerLayer(_) | Scope::PerOutput => layers.own.clone(),
        Scope::Global | Scope::Lamp => vec![sparsity; sizes.len()],
        Scope::ErdosRenyi | Scope::ErdosRenyiKernel => {
            let total = ThresholdRule::ExactCount.kept(sparsity, n)?;
            let kept = layers.erdos_renyi(total).into_iter().zip(sizes);
            kept.map(|(kept, &n)| (1.0 - kept / n.max(1) as f64).clamp(0.0, 1.0)).collect()
        }
    };
    let all: Vec<usize> = (0..sizes.len()).collect();
    let shared: Option<Key> = match scope {
        Scope::Global | Scope::Lamp if n > 0 => {
            nth_smallest_of(layers.scores, &all, n, rule.threshold_rank(sparsity, n))?
        }
        _ => None,
    };
    // Each layer's cut, and how many groups it keeps.
    let cut = |i: usize, scores: &[f32]| -> (Cut, usize) {
        let (low, high) = layers.bounds[i];
        let threshold = shared.or_else(|| nth_smallest(scores, rule.threshold_rank(own[i], scores.len().max(1))));
        let Some(mut threshold) = threshold else {
            return (Cut::Count(0), 0); // a layer without weights
        };
        // What a layer needs at least; its highest score is above no threshold of its own.
        if low > 1 || (low == 1 && shared.is_some()) {
            let (above, equal) = above_and_equal(scores, threshold);
            if low > above + equal
                && let Some(lower) = nth_largest(scores, low - 1)
            {
                threshold = lower;
            }
        }
        let kept = if layers.round_to == 1 { 0 } else { kept(scores, threshold).min(high) };
        (Cut::AtLeast(threshold), kept)
    };
    let (cuts, counts): (Vec<Cut>, Vec<usize>) =
        layers.scores.look(&all, |i, scores| Ok(cut(i, scores.groups)))?.into_iter().unzip();
    if layers.round_to == 1 {
        return Ok(cuts);
    }
    // A multiple leaves no choice in ties: counted by the rule, then cut by count.
    let counts = match scope {
        Scope::Local | Scope::PerLayer(_) | Scope::PerOutput => {
            (0..counts.len()).map(|i| layers.own(i, counts[i])).collect()
        }
        _ => {
            let wanted: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
            apportion(&wanted, &layers.bounds, counts.iter().sum(), layers.round_to)
        }
    };
    Ok(counts.into_iter().map(Cut::Count).collect())
}

/// How many scores are at least the threshold.
fn kept(scores: &[f32], threshold: Key) -> usize {
    let (above, equal) = above_and_equal(scores, threshold);
    above + equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_budget_is_exact_and_leaves_each_its_least() -> Result<()> {
        let (a, b, c) = ([9.0, 8.0, 7.0, 6.0], [1.0, 1.0, 1.0], [5.0, 0.5]);
        let parts: [&[f32]; 3] = [&a, &b, &c];
        let counts = |parts: &[&[f32]], bounds: &[_], total| -> Result<Vec<usize>> {
            let layers = Layers {
                scores: parts,
                sizes: parts.iter().map(|part| part.len()).collect(),
                bounds: bounds.to_vec(),
                own: Vec::new(),
                erdos_renyi: Vec::new(),
                round_to: 1,
            };
            Ok(shares(&layers, total)?.into_iter().map(|share| share.count).collect())
        };
        let least = |least: usize| [(least, 4), (least, 3), (least.min(2), 2)];
        assert_eq!(counts(&parts, &least(0), 4)?, [4, 0, 0]);
        assert_eq!(counts(&parts, &least(0), 7)?, [4, 2, 1]);
        assert_eq!(counts(&parts, &least(1), 4)?, [2, 1, 1]);
        assert_eq!(counts(&parts, &least(2), 6)?, [2, 2, 2]);
        assert_eq!(counts(&parts, &least(2), 1)?, [2, 2, 2]);
        assert_eq!(counts(&parts, &least(0), 0)?, [0, 0, 0]);
        assert_eq!(counts(&parts, &[(1, 4), (0, 0), (1, 1)], 9)?, [4, 0, 1]);
        Ok(())
    }
}
