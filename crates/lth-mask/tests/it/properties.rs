//! What holds for any scores.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use lth_mask::{
    Error, Granularity, Mask, MaskSet, Reduction, Result, Scope, Selection, ThresholdRule, select, select_within,
};
use proptest::collection::vec;
use proptest::prelude::*;

type Layer = (Vec<usize>, Vec<f32>);

fn run<T>(result: Result<T>) -> Result<T, TestCaseError> {
    result.map_err(|e| TestCaseError::fail(e.to_string()))
}

fn tensors(layers: &[Layer]) -> Result<BTreeMap<String, Tensor>> {
    let named = layers.iter().enumerate().map(|(i, (shape, values))| {
        let tensor = Tensor::from_vec(values.clone(), shape.as_slice(), &Device::Cpu)?;
        Ok((format!("layer{i}.weight"), tensor))
    });
    named.collect()
}

/// Scores with ties, zeros of both signs and subnormal numbers among them.
fn score() -> impl Strategy<Value = f32> {
    prop_oneof![4 => 0f32..1e3, 2 => (0u8..4).prop_map(f32::from), 1 => Just(-0.0f32), 1 => 0f32..1e-38]
}

fn layer(shape: impl Strategy<Value = Vec<usize>>) -> impl Strategy<Value = Layer> {
    shape.prop_flat_map(|shape| {
        let n = shape.iter().product::<usize>();
        (Just(shape), vec(score(), n))
    })
}

fn conv() -> impl Strategy<Value = Layer> {
    layer((1usize..7, 1usize..6, 1usize..4, 1usize..4).prop_map(|(o, i, h, w)| vec![o, i, h, w]))
}

fn convs() -> impl Strategy<Value = Vec<Layer>> {
    vec(conv(), 1..4)
}

fn sparsity() -> impl Strategy<Value = f64> {
    prop_oneof![6 => 0f64..=1.0, 1 => Just(0.0), 1 => Just(1.0), 1 => Just(0.5)]
}

fn granularity() -> impl Strategy<Value = Granularity> {
    proptest::sample::select(Granularity::NAMED.to_vec())
}

fn reduction() -> impl Strategy<Value = Reduction> {
    proptest::sample::select(vec![Reduction::Mean, Reduction::Sum, Reduction::L2, Reduction::Max])
}

fn scope() -> impl Strategy<Value = Scope> {
    proptest::sample::select(vec![
        Scope::Local,
        Scope::Global,
        Scope::Lamp,
        Scope::ErdosRenyi,
        Scope::ErdosRenyiKernel,
        Scope::PerLayer(BTreeMap::from([("layer0.*".to_owned(), 0.25)])),
    ])
}

/// How many groups a convolution has; see the table at [`Granularity`].
fn n_groups(granularity: &Granularity, shape: &[usize]) -> usize {
    let over = |axes: &[usize]| (0..4).filter(|a| !axes.contains(a)).map(|a| shape[a]).product();
    match granularity {
        Granularity::Weight => over(&[]),
        Granularity::SharedWeight => over(&[0]),
        Granularity::Channel => over(&[1]),
        Granularity::Column => over(&[2]),
        Granularity::Row => over(&[3]),
        Granularity::Kernel => over(&[2, 3]),
        Granularity::Filter => over(&[1, 2, 3]),
        Granularity::SharedChannel => over(&[0, 1]),
        Granularity::SharedColumn => over(&[0, 2]),
        Granularity::SharedRow => over(&[0, 3]),
        Granularity::VerticalSlice => over(&[1, 2]),
        Granularity::HorizontalSlice => over(&[1, 3]),
        Granularity::SharedVerticalSlice => over(&[0, 1, 2]),
        Granularity::SharedHorizontalSlice => over(&[0, 1, 3]),
        Granularity::SharedKernel => over(&[0, 2, 3]),
        _ => 1,
    }
}

/// The mask of one layer of single weights, from a sort.
fn by_sorting(scores: &[f32], sparsity: f64, rule: ThresholdRule) -> Vec<bool> {
    let n = scores.len();
    let mut order: Vec<usize> = (0..n).collect();
    // Lowest first; of equal ones the higher index first, since that goes first.
    order.sort_by(|&a, &b| scores[a].partial_cmp(&scores[b]).expect("finite").then(b.cmp(&a)));
    let threshold = |rank: usize| f64::from(scores[order[rank]]);
    match rule {
        ThresholdRule::ExactCount => {
            let mut keep = vec![true; n];
            let pruned = ((sparsity * n as f64).round() as usize).min(n - 1); // one is always kept
            order[..pruned].iter().for_each(|&i| keep[i] = false);
            keep
        }
        ThresholdRule::KthValue => {
            let threshold = threshold(((sparsity * n as f64) as usize).max(1) - 1);
            scores.iter().map(|&s| f64::from(s) >= threshold).collect()
        }
        ThresholdRule::Quantile => {
            let rank = sparsity * (n - 1) as f64;
            let (low, high) = (threshold(rank.floor() as usize), threshold(rank.ceil() as usize));
            let quantile = low + (high - low) * rank.fract();
            // Interpolated in f64 it is above the lower score wherever the two differ and the fraction is not lost.
            let quantile = if rank.fract() > 0.0 && high > low && quantile <= low { high } else { quantile };
            scores.iter().map(|&s| f64::from(s) >= quantile).collect()
        }
    }
}

proptest! {
    #[test]
    fn the_count_of_groups_kept_is_exact(
        layers in convs(), sparsity in sparsity(), granularity in granularity(), reduction in reduction(),
        scope in scope(), minimum_kept in 0usize..3,
    ) {
        let scores = run(tensors(&layers))?;
        let selection = Selection { granularity: granularity.clone(), reduction, scope: scope.clone(), minimum_kept, ..Selection::default() };
        let masks = run(select(&scores, sparsity, &selection))?;
        let mut total = 0;
        let mut groups = 0;
        let mut least = 0;
        for ((name, mask), (shape, _)) in masks.iter().zip(&layers) {
            let n = n_groups(&granularity, shape);
            let size = mask.len() / n;
            prop_assert_eq!(mask.kept() % size, 0);
            let kept = mask.kept() / size;
            prop_assert!(kept >= minimum_kept.min(n));
            let own = match &scope {
                Scope::Local => Some(sparsity),
                Scope::PerLayer(_) => Some(if name.starts_with("layer0") { 0.25 } else { sparsity }),
                _ => None,
            };
            if let Some(own) = own {
                prop_assert_eq!(kept, (n - (own * n as f64).round() as usize).max(minimum_kept.min(n)));
            }
            total += kept;
            groups += n;
            least += minimum_kept.min(n);
        }
        if !matches!(scope, Scope::Local | Scope::PerLayer(_)) {
            prop_assert_eq!(total, (groups - (sparsity * groups as f64).round() as usize).max(least));
        }
    }

    #[test]
    fn selection_agrees_with_a_sort((_, values) in layer((1usize..300).prop_map(|n| vec![n])), sparsity in sparsity()) {
        for rule in [ThresholdRule::ExactCount, ThresholdRule::KthValue, ThresholdRule::Quantile] {
            let scores = run(tensors(&[(vec![values.len()], values.clone())]))?;
            let masks = run(select(&scores, sparsity, &Selection { rule, ..Selection::default() }))?;
            let found: Vec<bool> = masks.iter().flat_map(|(_, mask)| mask.iter()).collect();
            prop_assert_eq!(found, by_sorting(&values, sparsity, rule), "{:?}", rule);
        }
    }

    /// Where no layer needs help, a global selection is that of all weights laid end to end.
    #[test]
    fn global_selection_is_that_of_one_long_layer(layers in convs(), sparsity in sparsity()) {
        for rule in [ThresholdRule::ExactCount, ThresholdRule::KthValue, ThresholdRule::Quantile] {
            let selection = Selection { scope: Scope::Global, rule, minimum_kept: 0, ..Selection::default() };
            let masks = run(select(&run(tensors(&layers))?, sparsity, &selection))?;
            let all: Vec<f32> = layers.iter().flat_map(|(_, values)| values.clone()).collect();
            let one = run(tensors(&[(vec![all.len()], all)]))?;
            let one = run(select(&one, sparsity, &Selection { scope: Scope::Local, ..selection }))?;
            let flat = |masks: &MaskSet| masks.iter().flat_map(|(_, mask)| mask.iter()).collect::<Vec<_>>();
            prop_assert_eq!(flat(&masks), flat(&one), "{:?}", rule);
        }
    }

    #[test]
    fn local_exact_masks_are_nested_along_rising_sparsity(
        layers in convs(), granularity in granularity(), mut sparsities in vec(sparsity(), 2..6),
    ) {
        sparsities.sort_by(f64::total_cmp);
        let scores = run(tensors(&layers))?;
        let selection = Selection { granularity: granularity.clone(), ..Selection::default() };
        let mut previous = run(MaskSet::all_kept(&scores))?;
        for sparsity in sparsities {
            let masks = run(select(&scores, sparsity, &selection))?;
            prop_assert_eq!(run(masks.first_outside(&previous))?, None);
            previous = masks;
        }
    }

    /// Iterative pruning by scores that have nothing to do with each other.
    #[test]
    fn selection_within_a_mask_is_nested_and_exact(
        rounds in (conv(), 2usize..5).prop_flat_map(|((shape, values), n)| {
            let len = values.len();
            (Just(shape), vec(vec(score(), len), n))
        }),
        granularity in granularity(), scope in scope(), rule_idx in 0usize..3,
    ) {
        let rule = [ThresholdRule::ExactCount, ThresholdRule::KthValue, ThresholdRule::Quantile][rule_idx];
        let (shape, rounds) = rounds;
        let selection = Selection { granularity: granularity.clone(), scope, rule, ..Selection::default() };
        let n = n_groups(&granularity, &shape);
        let mut previous: Option<MaskSet> = None;
        for (round, values) in rounds.into_iter().enumerate() {
            let scores = run(tensors(&[(shape.clone(), values)]))?;
            let last = match previous {
                Some(masks) => masks,
                None => run(MaskSet::all_kept(&scores))?,
            };
            let sparsity = 1.0 - 0.8f64.powi(round as i32 + 1);
            let masks = run(select_within(&scores, sparsity, &selection, &last))?;
            prop_assert!(run(masks.is_nested_in(&last))?);
            if rule == ThresholdRule::ExactCount && !matches!(selection.scope, Scope::PerLayer(_)) {
                let kept = (n - (sparsity * n as f64).round() as usize).max(1);
                prop_assert_eq!(masks.weights() - masks.zeros(), kept * (masks.weights() / n));
            }
            previous = Some(masks);
        }
    }

    #[test]
    fn threads_and_order_of_arrival_change_nothing(
        layers in convs(), sparsity in sparsity(), granularity in granularity(), scope in scope(), rule_idx in 0usize..3,
    ) {
        let rule = [ThresholdRule::ExactCount, ThresholdRule::KthValue, ThresholdRule::Quantile][rule_idx];
        let selection = Selection { granularity: granularity.clone(), scope, rule, ..Selection::default() };
        let scores = run(tensors(&layers))?;
        let reversed: BTreeMap<_, _> = scores.clone().into_iter().rev().collect();
        let expected = run(select(&scores, sparsity, &selection))?;
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let pool = pool.map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(&run(pool.install(|| select(&reversed, sparsity, &selection)))?, &expected);
        }
    }

    #[test]
    fn every_block_of_m_inputs_keeps_n(
        (outputs, blocks, side) in (1usize..4, 1usize..4, 1usize..3), (n, m) in (1usize..5, 0usize..4), seed in 0u32..1000,
    ) {
        let m = n + m;
        let shape = [outputs, blocks * m, side, side];
        let values = (0..shape.iter().product::<usize>() as u32).map(|i| (i.wrapping_mul(2_654_435_761) ^ seed) as f32);
        let scores = run(tensors(&[(shape.to_vec(), values.collect())]))?;
        let selection = Selection { granularity: Granularity::NM { n, m }, ..Selection::default() };
        let masks = run(select(&scores, 1.0 - n as f64 / m as f64, &selection))?;
        let mask = run(masks.to_tensors(&Device::Cpu))?;
        let blocks = mask["layer0.weight"].reshape((outputs, blocks, m, side * side)).and_then(|t| t.sum(2)?.flatten_all());
        let counts = run(blocks.and_then(|t| t.to_vec1::<u8>()).map_err(Error::from))?;
        prop_assert!(counts.into_iter().all(|count| usize::from(count) == n));
    }

    #[test]
    fn packed_bits_and_tensors_come_back(shape in vec(0usize..6, 0..4), seed in any::<u64>()) {
        let mask = run(Mask::from_fn(shape.clone(), |i| (seed >> (i % 64)) & 1 == 1))?;
        prop_assert_eq!(&run(Mask::from_bytes(shape, &mask.to_bytes()))?, &mask);
        let tensor = run(mask.to_tensor(&Device::Cpu))?;
        prop_assert_eq!(&run(Mask::from_tensor(&tensor))?, &mask);
        prop_assert_eq!(mask.iter().filter(|&keep| keep).count(), mask.kept());
        let masks: MaskSet = [("w".to_owned(), mask)].into_iter().collect();
        prop_assert_eq!(run(MaskSet::from_bytes(&run(masks.to_bytes())?))?, masks);
    }

    #[test]
    fn hostile_bytes_are_errors(bytes in vec(any::<u8>(), 0..200), header in "\\PC{0,80}") {
        prop_assert!(MaskSet::from_bytes(&bytes).is_err());
        let with_length = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes].concat();
        prop_assert!(MaskSet::from_bytes(&with_length).is_err());
    }

    #[test]
    fn damaged_files_never_panic(at in any::<proptest::sample::Index>(), with in any::<[u8; 3]>(), len in 0usize..40) {
        let mask = run(Mask::from_fn([len, 3], |i| i % 2 == 0))?;
        let masks: MaskSet = [("a".to_owned(), mask.clone()), ("b".to_owned(), mask)].into_iter().collect();
        let mut bytes = run(masks.to_bytes())?;
        let at = at.index(bytes.len() - 2);
        bytes[at..at + 3].copy_from_slice(&with);
        if let Ok(read) = MaskSet::from_bytes(&bytes) {
            prop_assert_eq!(read, masks); // blanks in the header were exchanged for blanks
        }
    }
}
