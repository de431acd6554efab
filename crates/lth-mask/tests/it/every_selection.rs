//! What holds for every scope, granularity and rule, with a previous mask and without.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use lth_mask::{
    Error, Granularity, Mask, MaskSet, Result, Scope, Selection, Streamed, ThresholdRule, select, select_streamed,
    select_within,
};
use proptest::collection::vec;
use proptest::prelude::*;

pub(crate) const RULES: [ThresholdRule; 3] =
    [ThresholdRule::ExactCount, ThresholdRule::KthValue, ThresholdRule::Quantile];

pub(crate) fn run<T>(result: Result<T>) -> Result<T, TestCaseError> {
    result.map_err(|e| TestCaseError::fail(e.to_string()))
}

pub(crate) fn scopes() -> [Scope; 6] {
    [
        Scope::Local,
        Scope::PerLayer(BTreeMap::from([("*".to_owned(), 0.25), ("conv1*".to_owned(), 0.75)])),
        Scope::Global,
        Scope::Lamp,
        Scope::ErdosRenyi,
        Scope::ErdosRenyiKernel,
    ]
}

/// The axes over which a group runs, written out once more: of `[O, I, H, W]`, and of `[O, I]`.
pub(crate) fn axes(granularity: &Granularity, rank: usize) -> Option<&'static [usize]> {
    Some(match (rank, granularity) {
        (_, Granularity::Weight) => &[],
        (2, Granularity::Column) => &[0],
        (2, Granularity::Row) => &[1],
        (2, Granularity::Layer) => &[0, 1],
        (2, _) => return None,
        (_, Granularity::SharedWeight) => &[0],
        (_, Granularity::Channel) => &[1],
        (_, Granularity::Column) => &[2],
        (_, Granularity::Row) => &[3],
        (_, Granularity::Kernel) => &[2, 3],
        (_, Granularity::Filter) => &[1, 2, 3],
        (_, Granularity::SharedChannel) => &[0, 1],
        (_, Granularity::SharedColumn) => &[0, 2],
        (_, Granularity::SharedRow) => &[0, 3],
        (_, Granularity::VerticalSlice) => &[1, 2],
        (_, Granularity::HorizontalSlice) => &[1, 3],
        (_, Granularity::SharedVerticalSlice) => &[0, 1, 2],
        (_, Granularity::SharedHorizontalSlice) => &[0, 1, 3],
        (_, Granularity::SharedKernel) => &[0, 2, 3],
        _ => &[0, 1, 2, 3],
    })
}

/// The flat indices of each group, in order of the groups.
pub(crate) fn groups(shape: &[usize], axes: &[usize]) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
    for flat in 0..shape.iter().product() {
        let mut rest = flat;
        let mut place = vec![0; shape.len()];
        for axis in (0..shape.len()).rev() {
            place[axis] = rest % shape[axis];
            rest /= shape[axis];
        }
        axes.iter().for_each(|&axis| place[axis] = 0);
        groups.entry(place).or_default().push(flat);
    }
    groups.into_values().collect()
}

fn mean(values: &[f32], group: &[usize]) -> f32 {
    (group.iter().map(|&i| f64::from(values[i])).sum::<f64>() / group.len() as f64) as f32
}

/// Two convolutions and a linear layer, of whole numbers with many ties.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    shapes: [(&'static str, Vec<usize>); 3],
    values: Vec<Vec<f32>>,
}

impl Network {
    pub(crate) fn scores(&self) -> Result<BTreeMap<String, Tensor>> {
        let tensors = self.shapes.iter().zip(&self.values).map(|((name, shape), values)| {
            Ok((name.to_string(), Tensor::from_vec(values.clone(), shape.as_slice(), &Device::Cpu)?))
        });
        tensors.collect()
    }

    /// The groups of each layer, by the granularity of convolutions and that of the linear layer.
    fn groups(&self, conv: &Granularity, linear: &Granularity) -> Vec<Vec<Vec<usize>>> {
        let of = |shape: &[usize]| {
            let granularity = if shape.len() == 2 { linear } else { conv };
            groups(shape, axes(granularity, shape.len()).unwrap_or_default())
        };
        self.shapes.iter().map(|(_, shape)| of(shape)).collect()
    }
}

pub(crate) fn network(rounds: usize) -> impl Strategy<Value = Vec<Network>> {
    let conv = || vec(1usize..4, 4);
    (conv(), conv(), vec(1usize..8, 2)).prop_flat_map(move |(a, b, c)| {
        let shapes = [("conv1.weight", a), ("conv2.weight", b), ("fc.weight", c)];
        let values: Vec<_> = shapes
            .iter()
            .map(|(_, shape)| vec((0u8..20).prop_map(f32::from), shape.iter().product::<usize>()))
            .collect();
        vec(values, rounds).prop_map(move |rounds| {
            rounds.into_iter().map(|values| Network { shapes: shapes.clone(), values }).collect()
        })
    })
}

/// The masks of scores that come one tensor at a time.
pub(crate) fn streamed(
    scores: &BTreeMap<String, Tensor>,
    sparsity: f64,
    selection: &Selection,
    previous: Option<&MaskSet>,
) -> Result<MaskSet> {
    let shapes = scores.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect();
    let load = |name: &str| -> Result<Streamed> {
        let previous = previous.and_then(|set| set.get(name).cloned());
        Ok(Streamed { scores: scores[name].copy()?, previous })
    };
    select_streamed(&shapes, load, sparsity, selection)
}

/// Checks one selection: counts, nesting, and that no kept group has a lower score than a pruned one of its layer.
fn check(
    network: &Network,
    groups: &[Vec<Vec<usize>>],
    selection: &Selection,
    sparsity: f64,
    previous: Option<&MaskSet>,
) -> Result<MaskSet, TestCaseError> {
    let scores = run(network.scores())?;
    let masks = run(match previous {
        None => select(&scores, sparsity, selection),
        Some(previous) => select_within(&scores, sparsity, selection, previous),
    })?;
    prop_assert_eq!(&run(streamed(&scores, sparsity, selection, previous))?, &masks);
    let Selection { scope, rule, minimum_kept, .. } = selection;
    let (mut total, mut least, mut most, mut n) = (0, 0, 0, 0);
    for (((name, shape), values), groups) in network.shapes.iter().zip(&network.values).zip(groups) {
        let mask: Vec<bool> = masks.get(name).map(|mask| mask.iter().collect()).unwrap_or_default();
        prop_assert_eq!(mask.len(), shape.iter().product::<usize>());
        let before: Vec<bool> = match previous.and_then(|p| p.get(name)) {
            Some(mask) => mask.iter().collect(),
            None => vec![true; mask.len()],
        };
        prop_assert!(mask.iter().zip(&before).all(|(now, before)| *before || !now), "{} is not nested", name);
        let alive: Vec<&Vec<usize>> = groups.iter().filter(|group| group.iter().any(|&i| before[i])).collect();
        let is_kept = |group: &Vec<usize>| mask[group[0]];
        prop_assert!(groups.iter().all(|group| group.iter().all(|&i| mask[i] == mask[group[0]])), "{} is split", name);
        let (kept, pruned): (Vec<_>, Vec<_>) = alive.iter().partition(|group| is_kept(group));
        let score = |group: &&&Vec<usize>| mean(values, group);
        let lowest_kept = kept.iter().map(score).fold(f32::INFINITY, f32::min);
        let highest_pruned = pruned.iter().map(score).fold(f32::NEG_INFINITY, f32::max);
        prop_assert!(lowest_kept >= highest_pruned, "{} keeps {} and not {}", name, lowest_kept, highest_pruned);
        let low = alive.len().min(*minimum_kept);
        let own = match scope {
            Scope::Local => Some(sparsity),
            Scope::PerLayer(_) => Some(if name.starts_with("conv1") { 0.75 } else { 0.25 }),
            _ => None,
        };
        if let Some(own) = own {
            let asked = run(rule.kept(own, groups.len()))?.clamp(low, alive.len());
            match rule {
                ThresholdRule::ExactCount => prop_assert_eq!(kept.len(), asked, "{}", name),
                _ => prop_assert!(kept.len() >= asked, "{}: {} of {}", name, kept.len(), asked),
            }
        }
        prop_assert!(kept.len() >= low);
        total += kept.len();
        least += low;
        most += alive.len();
        n += groups.len();
    }
    if *rule == ThresholdRule::ExactCount && !matches!(scope, Scope::Local | Scope::PerLayer(_)) {
        prop_assert_eq!(total, run(rule.kept(sparsity, n))?.clamp(least, most));
    }
    Ok(masks)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn counts_are_exact_masks_nested_and_the_highest_kept(
        rounds in network(3), mut sparsities in vec(0f64..=1.0, 3), minimum_kept in 0usize..3,
    ) {
        sparsities.sort_by(f64::total_cmp);
        for granularity in Granularity::NAMED {
            let linear = if axes(&granularity, 2).is_some() { granularity.clone() } else { Granularity::Row };
            let groups = rounds[0].groups(&granularity, &linear);
            for (scope, rule) in scopes().into_iter().flat_map(|scope| RULES.map(|rule| (scope.clone(), rule))) {
                let granularities = BTreeMap::from([("fc.*".to_owned(), linear.clone())]);
                let granularity = granularity.clone();
                let selection =
                    Selection { granularity, granularities, scope, rule, minimum_kept, ..Selection::default() };
                let mut previous = None;
                for (network, &sparsity) in rounds.iter().zip(&sparsities) {
                    previous = Some(check(network, &groups, &selection, sparsity, previous.as_ref())?);
                }
            }
        }
    }

    #[test]
    fn multiples_are_kept_and_hold_the_budget(network in network(1), sparsity in 0f64..=1.0, round_to in 2usize..5) {
        let network = &network[0];
        let groups = network.groups(&Granularity::Filter, &Granularity::Row);
        let scores = run(network.scores())?;
        for (scope, rule) in scopes().into_iter().flat_map(|scope| RULES.map(|rule| (scope.clone(), rule))) {
            let granularities = BTreeMap::from([("fc.*".to_owned(), Granularity::Row)]);
            let loose = Selection { granularity: Granularity::Filter, granularities, scope, rule, ..Selection::default() };
            let rounded = Selection { round_to, ..loose.clone() };
            let count = |selection: &Selection| -> Result<Vec<usize>, TestCaseError> {
                let masks = run(select(&scores, sparsity, selection))?;
                let kept = masks.iter().zip(&groups).map(|((_, mask), groups)| mask.kept() * groups.len() / mask.len());
                Ok(kept.collect())
            };
            let (loose, counts) = (count(&loose)?, count(&rounded)?);
            let own = matches!(rounded.scope, Scope::Local | Scope::PerLayer(_));
            let least: Vec<usize> = groups.iter().map(|groups| groups.len().min(round_to)).collect();
            for (i, &kept) in counts.iter().enumerate() {
                prop_assert!(kept % round_to == 0 || kept == groups[i].len(), "{} of {}", kept, groups[i].len());
                if own {
                    prop_assert!(kept <= loose[i].max(least[i]));
                }
            }
            let budget = loose.iter().sum::<usize>().max(least.iter().sum());
            prop_assert!(own || counts.iter().sum::<usize>() <= budget, "{:?} of {:?}", counts, loose);
        }
    }

    #[test]
    fn blocks_keep_n_of_m_within_any_mask(
        values in vec(0u8..20, 48), before in vec(any::<bool>(), 48), (n, m) in proptest::sample::select(vec![(1, 2), (2, 4), (1, 3), (3, 4)]),
    ) {
        let values: Vec<f32> = values.into_iter().map(f32::from).collect();
        let scores = run(Tensor::from_vec(values, (4, 12), &Device::Cpu).map_err(Error::from))?;
        let scores = BTreeMap::from([("fc.weight".to_owned(), scores)]);
        let selection = Selection { granularity: Granularity::NM { n, m }, ..Selection::default() };
        let previous: MaskSet = [("fc.weight".to_owned(), run(Mask::from_fn([4, 12], |i| before[i]))?)].into_iter().collect();
        let sparsity = 1.0 - n as f64 / m as f64;
        let free = run(select(&scores, sparsity, &selection))?;
        let within = run(select_within(&scores, sparsity, &selection, &previous))?;
        prop_assert!(run(within.is_nested_in(&previous))?);
        for (masks, alive) in [(&free, None), (&within, Some(&before))] {
            let bits: Vec<bool> = masks.iter().flat_map(|(_, mask)| mask.iter()).collect();
            for (block, bits) in bits.chunks(m).enumerate() {
                let alive = alive.map_or(m, |alive| alive[block * m..][..m].iter().filter(|&&keep| keep).count());
                let kept = bits.iter().filter(|&&keep| keep).count();
                prop_assert_eq!(kept, n.min(alive), "of {}", m);
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_type(network in network(1), sparsity in 0f64..=1.0, scope_idx in 0usize..6, rule_idx in 0usize..3) {
        let network = &network[0];
        let scores = run(network.scores())?;
        let base = Selection { scope: scopes()[scope_idx].clone(), rule: RULES[rule_idx], ..Selection::default() };
        let refused = |sparsity: f64, selection: &Selection| select(&scores, sparsity, selection).err();
        for odd in [-0.1, 1.1, f64::NAN] {
            prop_assert!(matches!(refused(odd, &base), Some(Error::Sparsity(_))));
        }
        let inner = |error: Option<Error>| match error {
            Some(Error::Named { source, .. }) => Some(*source),
            other => other,
        };
        for granularity in Granularity::NAMED.into_iter().filter(|g| axes(g, 2).is_none()) {
            let error = inner(refused(sparsity, &Selection { granularity: granularity.clone(), ..base.clone() }));
            prop_assert!(matches!(error, Some(Error::Granularity { .. })), "{}: {:?}", granularity, error);
        }
        let nothing = "encoder.*".to_owned();
        for odd in [
            Selection { keep_dense: vec![nothing.clone()], ..base.clone() },
            Selection { transposed: vec![nothing.clone()], ..base.clone() },
            Selection { experts: vec![nothing.clone()], ..base.clone() },
            Selection { granularities: BTreeMap::from([(nothing.clone(), Granularity::Row)]), ..base.clone() },
            Selection { scope: Scope::PerLayer(BTreeMap::from([(nothing.clone(), 0.5)])), ..base.clone() },
        ] {
            let error = refused(sparsity, &odd);
            prop_assert!(matches!(&error, Some(Error::Pattern { pattern, .. }) if *pattern == nothing), "{:?}", error);
        }
        let pattern = Selection { granularity: Granularity::NM { n: 1, m: 1 }, ..base };
        let shared = !matches!(pattern.scope, Scope::Local | Scope::PerLayer(_));
        if shared || pattern.rule != ThresholdRule::ExactCount {
            let error = refused(0.0, &pattern);
            prop_assert!(matches!(error, Some(Error::Selection(_))), "{:?}", error);
        }
    }
}
