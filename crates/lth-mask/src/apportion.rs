//! Whole numbers of groups from a budget that layers share.

/// Numbers proportional to `weights` whose sum is `total`; what would be outside its bounds is at them, and the others
/// share the rest in proportion. Where the bounds do not allow the total, all are at the bound that is nearest to it.
///
/// The factor that all open ones share is found by fixing those that are outside on the side that the sum errs to: the
/// sum grows with the factor, so that these are at their bound under the right factor too. At most one round per number.
/// Source: RigL, `sparse_utils.get_sparsities_erdos_renyi`, which has the upper bound alone (a density of 1).
pub(crate) fn proportional(weights: &[f64], bounds: &[(usize, usize)], total: usize) -> Vec<f64> {
    let mut fixed: Vec<Option<f64>> = vec![None; weights.len()];
    loop {
        let open: Vec<usize> = (0..weights.len()).filter(|&i| fixed[i].is_none()).collect();
        let left = total as f64 - fixed.iter().flatten().sum::<f64>();
        let share: f64 = open.iter().map(|&i| weights[i]).sum();
        let factor = if share > 0.0 { left.max(0.0) / share } else { 0.0 };
        let within = |i: usize| (weights[i] * factor).clamp(bounds[i].0 as f64, bounds[i].1 as f64);
        let error: f64 = open.iter().map(|&i| within(i) - weights[i] * factor).sum();
        let outside = |&i: &usize| {
            let wanted = weights[i] * factor;
            (error >= 0.0 && wanted < bounds[i].0 as f64) || (error <= 0.0 && wanted > bounds[i].1 as f64)
        };
        let found: Vec<usize> = open.into_iter().filter(outside).collect();
        if found.is_empty() {
            return (0..weights.len()).map(|i| fixed[i].unwrap_or_else(|| within(i))).collect();
        }
        for i in found {
            fixed[i] = Some(within(i));
        }
    }
}

/// Whole numbers near `wanted`, each within its bounds and a multiple of `round_to` (or at its upper bound), whose sum
/// is as near to `total` as it can be from below: rounded down, then a step more where the most is missing, the first of
/// equals (largest remainder). The sum is above the total only where the lower bounds are.
pub(crate) fn apportion(wanted: &[f64], bounds: &[(usize, usize)], total: usize, round_to: usize) -> Vec<usize> {
    let least: Vec<usize> = bounds.iter().map(|&(low, high)| up(low, high, round_to)).collect();
    let mut counts: Vec<usize> =
        (0..wanted.len()).map(|i| down(wanted[i].floor() as usize, bounds[i].1, round_to).max(least[i])).collect();
    let missing = |count: usize, i: usize| wanted[i] - count as f64;
    // What the lower bounds took beyond the budget is given back where the least is missing then.
    let mut sum: usize = counts.iter().sum();
    while sum > total {
        let lower = |i: usize| (counts[i] - 1) / round_to * round_to;
        let open = (0..counts.len()).filter(|&i| counts[i] > least[i]);
        let cheapest = open.min_by(|&a, &b| missing(lower(a), a).total_cmp(&missing(lower(b), b)));
        let Some(i) = cheapest else { return counts };
        let count = lower(i).max(least[i]);
        sum -= counts[i] - count;
        counts[i] = count;
    }
    loop {
        let mut open: Vec<usize> = (0..counts.len()).filter(|&i| counts[i] < bounds[i].1).collect();
        open.sort_by(|&a, &b| missing(counts[b], b).total_cmp(&missing(counts[a], a)));
        let before = sum;
        for i in open {
            let step = up(counts[i] + 1, bounds[i].1, round_to) - counts[i];
            if sum + step <= total {
                counts[i] += step;
                sum += step;
            }
        }
        if sum == before {
            return counts;
        }
    }
}

/// The next multiple, or the bound.
pub(crate) fn up(count: usize, high: usize, round_to: usize) -> usize {
    count.checked_next_multiple_of(round_to).map_or(high, |rounded| rounded.min(high))
}

/// The multiple below, or the bound where that is reached.
pub(crate) fn down(count: usize, high: usize, round_to: usize) -> usize {
    if count >= high { high } else { count / round_to * round_to }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bound_takes_the_others_share_in_proportion() {
        // Squares of side 300, 150 and 50 under Erdős–Rényi: 2/side of side² each, and 1,000 to keep.
        let weights = [600.0, 300.0, 100.0];
        let free = [(1, 90_000), (1, 22_500), (1, 2_500)];
        assert_eq!(proportional(&weights, &free, 1_000), [600.0, 300.0, 100.0]);
        let bounded = [(1, 100), (1, 22_500), (1, 2_500)];
        let wanted = proportional(&weights, &bounded, 1_000);
        assert_eq!(apportion(&wanted, &bounded, 1_000, 1), [100, 675, 225]);
        // From below: the last keeps 400 at least, the others share 600 as 2 to 1.
        let bounded = [(1, 90_000), (1, 22_500), (400, 2_500)];
        assert_eq!(proportional(&weights, &bounded, 1_000), [400.0, 200.0, 400.0]);
        // From both sides at once: 300 and 400 are fixed, 300 is left.
        let bounded = [(1, 300), (1, 22_500), (400, 2_500)];
        assert_eq!(proportional(&weights, &bounded, 1_000), [300.0, 300.0, 400.0]);
    }

    #[test]
    fn proportions_reach_both_ends() {
        assert_eq!(proportional(&[2.0, 2.0], &[(0, 4), (0, 20)], 24), [4.0, 20.0]);
        assert_eq!(proportional(&[2.0, 2.0], &[(0, 4), (0, 20)], 0), [0.0, 0.0]);
        assert_eq!(proportional(&[2.0, 2.0], &[(1, 4), (1, 20)], 0), [1.0, 1.0]);
        assert_eq!(proportional(&[0.0, 2.0], &[(0, 1), (1, 20)], 3), [0.0, 3.0]);
        assert!(proportional(&[], &[], 0).is_empty());
    }

    #[test]
    fn apportioned_counts_add_up() {
        let ones = |wanted: &[f64], bounds: &[_], total| apportion(wanted, bounds, total, 1);
        assert_eq!(ones(&[1.5, 2.5, 3.0], &[(0, 9); 3], 7), [2, 2, 3]);
        assert_eq!(ones(&[0.2, 9.8], &[(1, 5), (0, 10)], 10), [1, 9]);
        assert_eq!(ones(&[0.2, 0.8], &[(1, 5), (1, 5)], 1), [1, 1]);
        assert_eq!(ones(&[3.0, 3.0], &[(0, 2), (0, 2)], 6), [2, 2]);
        assert_eq!(ones(&[0.5, 3.4, 3.1], &[(2, 5), (0, 5), (0, 5)], 7), [2, 3, 2]);
    }

    #[test]
    fn multiples_hold_the_budget() {
        // 53 layers of 65: 1,722 of 3,445; 53 times 32 and three times 8 more.
        let wanted = [32.5; 53];
        let counts = apportion(&wanted, &[(1, 65); 53], 1_722, 8);
        assert_eq!(counts.iter().sum::<usize>(), 1_720);
        assert_eq!(counts[..4], [40, 40, 40, 32]);
        // What the least takes is given back by those that have more.
        assert_eq!(apportion(&[1.0, 20.0, 19.0], &[(1, 65); 3], 40, 8), [8, 16, 16]);
        assert_eq!(apportion(&[1.0, 1.0, 17.0], &[(1, 65); 3], 19, 8), [8, 8, 8]);
        // All of a layer is a multiple enough.
        assert_eq!(apportion(&[5.0, 7.0], &[(1, 5), (1, 65)], 12, 4), [5, 4]);
        assert_eq!(apportion(&[4.6, 7.4], &[(1, 5), (1, 65)], 12, 4), [4, 8]);
    }
}
