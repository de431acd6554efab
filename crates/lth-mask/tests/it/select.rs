//! What a selection promises.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use lth_mask::{
    Error, Granularity, Mask, MaskSet, Result, Scope, Selection, ThresholdRule, random_like, select, select_within,
};

use crate::select_one;

/// Distinct magnitudes, the same for the same name.
fn scores(layers: &[(&str, &[usize])]) -> Result<BTreeMap<String, Tensor>> {
    let layer = |&(name, shape): &(&str, &[usize])| {
        let seed = name.bytes().fold(17u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        let n = shape.iter().product::<usize>() as u64;
        let value = |i: u64| ((seed + i).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 + 1.0;
        let values: Vec<f32> = (0..n).map(value).collect();
        Ok((name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu)?))
    };
    layers.iter().map(layer).collect()
}

fn resnet_like() -> Result<BTreeMap<String, Tensor>> {
    scores(&[("conv1.weight", &[16, 3, 7, 7]), ("layer1.conv1.weight", &[16, 16, 3, 3]), ("fc.weight", &[10, 16])])
}

#[test]
fn a_nan_or_infinite_score_is_named_with_its_place() -> Result<()> {
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut scores = resnet_like()?;
        scores.insert("fc.weight".to_owned(), Tensor::new(&[[1f32, 2.], [odd, 0.]], &Device::Cpu)?);
        match select(&scores, 0.5, &Selection::default()) {
            Err(Error::Named { name, source }) => {
                assert_eq!(name, "fc.weight");
                assert!(matches!(*source, Error::NotFinite { index: 2, .. }));
            }
            other => panic!("expected an error about `fc.weight`, got {other:?}"),
        }
    }
    Ok(())
}

#[test]
fn wrong_arguments_are_errors() -> Result<()> {
    let scores = resnet_like()?;
    for sparsity in [-0.5, 1.01, f64::NAN] {
        assert!(matches!(select(&scores, sparsity, &Selection::default()), Err(Error::Sparsity(_))));
    }
    let zero = Selection { round_to: 0, ..Selection::default() };
    assert!(matches!(select(&scores, 0.5, &zero), Err(Error::Selection(_))));
    let whole: BTreeMap<_, _> = [("w".to_owned(), Tensor::ones((2, 2), DType::I64, &Device::Cpu)?)].into();
    assert!(matches!(select(&whole, 0.5, &Selection::default()), Err(Error::Named { .. })));
    Ok(())
}

#[test]
fn no_layer_is_emptied_unless_asked() -> Result<()> {
    let scores = resnet_like()?;
    for scope in [Scope::Local, Scope::Global] {
        for rule in [ThresholdRule::ExactCount, ThresholdRule::Quantile, ThresholdRule::KthValue] {
            let kept = |minimum_kept| -> Result<Vec<usize>> {
                let selection = Selection { scope: scope.clone(), rule, minimum_kept, ..Selection::default() };
                Ok(select(&scores, 1.0, &selection)?.iter().map(|(_, mask)| mask.kept()).collect())
            };
            assert_eq!(kept(1)?, [1, 1, 1], "{scope:?} {rule:?}");
            assert_eq!(kept(5)?, [5, 5, 5], "{scope:?} {rule:?}");
        }
        let empty = Selection { scope: scope.clone(), minimum_kept: 0, ..Selection::default() };
        assert_eq!(select(&scores, 1.0, &empty)?.sparsity(), 1.0);
    }
    Ok(())
}

#[test]
fn dense_layers_get_no_mask_and_do_not_count() -> Result<()> {
    let selection = Selection {
        scope: Scope::Global,
        keep_dense: vec!["conv1.*".to_owned(), "fc.weight".to_owned()],
        ..Selection::default()
    };
    let masks = select(&resnet_like()?, 0.25, &selection)?;
    let names: Vec<_> = masks.iter().map(|(name, mask)| (name, mask.zeros())).collect();
    assert_eq!(names, [("layer1.conv1.weight", 16 * 16 * 9 / 4)]);
    Ok(())
}

#[test]
fn equal_scores_keep_the_lower_index_and_the_earlier_name() -> Result<()> {
    let ones = Tensor::ones((2, 4), DType::F32, &Device::Cpu)?;
    let local = select_one(&ones, 0.5, &Selection::default())?;
    assert_eq!(local.get("layer").map(Mask::to_bytes), Some(vec![0b1111]));
    let pair: BTreeMap<_, _> = [("a".to_owned(), ones.clone()), ("b".to_owned(), ones)].into();
    let global = Selection { scope: Scope::Global, ..Selection::default() };
    let masks = select(&pair, 0.25, &global)?;
    assert_eq!(masks.get("a").map(Mask::zeros), Some(0));
    assert_eq!(masks.get("b").map(Mask::to_bytes), Some(vec![0b1111]));
    Ok(())
}

#[test]
fn empty_and_scalar_tensors_are_taken() -> Result<()> {
    for shape in [&[] as &[usize], &[0], &[3, 0], &[1 << 40, 0], &[1]] {
        for rule in [ThresholdRule::ExactCount, ThresholdRule::Quantile, ThresholdRule::KthValue] {
            for scope in [Scope::Local, Scope::Global] {
                let scores: BTreeMap<_, _> = [("w".to_owned(), Tensor::zeros(shape, DType::F32, &Device::Cpu)?)].into();
                let masks = select(&scores, 0.5, &Selection { rule, scope, ..Selection::default() })?;
                assert_eq!(masks.weights(), shape.iter().product::<usize>());
                assert_eq!(masks.zeros(), 0);
            }
        }
    }
    assert!(select(&BTreeMap::new(), 0.5, &Selection::default())?.is_empty());
    Ok(())
}

#[test]
fn random_masks_have_the_ticket_s_counts() -> Result<()> {
    let masks = select(&resnet_like()?, 0.8, &Selection { scope: Scope::Global, ..Selection::default() })?;
    let random = random_like(&masks, 7);
    assert_eq!(random.stats(), masks.stats());
    assert_ne!(random, masks);
    Ok(())
}

#[test]
fn lamp_shares_the_budget_and_the_scores_choose() -> Result<()> {
    let layer = |values: &[f32]| Tensor::new(values, &Device::Cpu);
    // LAMP: 1, 9/25, 4/29 and 1, 1/2, 1/3; the four highest are 1, 1, 1/2 and 9/25.
    let scores: BTreeMap<_, _> =
        [("a".to_owned(), layer(&[4., 3., 2.])?), ("b".to_owned(), layer(&[0.1, 0.1, 0.1])?)].into();
    let masks = select(&scores, 1.0 / 3.0, &Selection { scope: Scope::Lamp, ..Selection::default() })?;
    assert_eq!(masks.get("a").map(Mask::to_bytes), Some(vec![0b011]));
    assert_eq!(masks.get("b").map(Mask::to_bytes), Some(vec![0b011]));
    let half = select(&scores, 0.5, &Selection { scope: Scope::Lamp, ..Selection::default() })?;
    let kept: Vec<_> = half.iter().map(|(_, mask)| mask.kept()).collect();
    assert_eq!(kept, [1, 2], "of equal weights the first is a layer's largest: they share no score");
    let negative: BTreeMap<_, _> = [("a".to_owned(), layer(&[1., -1.])?)].into();
    assert!(select(&negative, 0.5, &Selection { scope: Scope::Lamp, ..Selection::default() }).is_err());
    Ok(())
}

#[test]
fn ties_between_layers_must_fit() -> Result<()> {
    let scores = scores(&[("a", &[4, 2]), ("b", &[4, 3]), ("c", &[5, 2])])?;
    let tied = |names: &[&str], more: &[&str]| {
        let list = |names: &[&str]| names.iter().copied().map(String::from).collect::<Vec<_>>();
        let tied = vec![list(names), list(more)];
        let result = select(&scores, 0.5, &Selection { granularity: Granularity::Row, tied, ..Selection::default() });
        result.map_err(|e| e.to_string())
    };
    let masks = tied(&["a", "b"], &[]).map_err(Error::Selection)?;
    let rows = |name: &str, width: usize| -> Vec<bool> {
        masks.get(name).map(|m| m.iter().step_by(width).collect()).unwrap_or_default()
    };
    assert_eq!(rows("a", 2), rows("b", 3));
    assert_eq!(rows("a", 2).into_iter().filter(|&keep| keep).count(), 2);
    let error = |names: &[&str], more: &[&str]| tied(names, more).err().unwrap_or_default();
    assert!(error(&["a", "c"], &[]).contains("`c`: tied, with 5 groups, expected 4 as in `a`"));
    assert!(error(&["c", "a"], &[]).contains("`c`: tied, with 5 groups, expected 4 as in `a`"));
    assert!(error(&["a", "b"], &["b", "c"]).contains("`b`: name is tied twice"));
    assert!(error(&["a", "d"], &[]).contains("`d`: no score"));
    Ok(())
}

#[test]
fn n_of_m_takes_no_shared_budget() -> Result<()> {
    let scores = scores(&[("a", &[4, 8])])?;
    let pattern = Selection { granularity: Granularity::NM { n: 2, m: 4 }, ..Selection::default() };
    assert_eq!(select(&scores, 0.5, &pattern)?.zeros(), 16);
    for odd in [
        Selection { scope: Scope::Global, ..pattern.clone() },
        Selection { rule: ThresholdRule::Quantile, ..pattern.clone() },
        Selection { round_to: 2, ..pattern.clone() },
    ] {
        assert!(matches!(select(&scores, 0.5, &odd), Err(Error::Selection(_))));
    }
    Ok(())
}

#[test]
fn a_previous_mask_must_be_there_and_fit() -> Result<()> {
    let scores = scores(&[("a", &[4, 8])])?;
    let within = |previous: &MaskSet| select_within(&scores, 0.5, &Selection::default(), previous);
    assert!(within(&MaskSet::new()).is_err_and(|e| e.to_string().starts_with("`a`: no previous mask")));
    let other: MaskSet = [("a".to_owned(), Mask::all_kept([8, 4])?)].into_iter().collect();
    assert!(within(&other).is_err_and(|e| e.to_string() == "`a`: mask has shape [8, 4], expected [4, 8]"));
    Ok(())
}

#[test]
fn half_precision_scores_are_taken_as_they_are() -> Result<()> {
    let single = scores(&[("a", &[16, 16])])?;
    for dtype in [DType::F16, DType::BF16] {
        let half = (single["a"].clone() / 16_777_216.0)?.to_dtype(dtype)?;
        let wide = half.to_dtype(DType::F32)?;
        let mask = |scores: &Tensor| select_one(scores, 0.7, &Selection::default());
        assert_eq!(mask(&half)?, mask(&wide)?);
    }
    Ok(())
}

fn counts(masks: &MaskSet) -> Vec<(&str, usize)> {
    masks.iter().map(|(name, mask)| (name, mask.kept())).collect()
}

#[test]
fn what_a_previous_mask_bounds_the_others_share_in_proportion() -> Result<()> {
    // Erdős–Rényi gives squares counts as their sides: 600, 300, 100 of 1,000; 900 are 675 and 225.
    let scores = scores(&[("a", &[300, 300]), ("b", &[150, 150]), ("c", &[50, 50])])?;
    let sparsity = 1.0 - 1_000.0 / 115_000.0;
    for scope in [Scope::ErdosRenyi, Scope::ErdosRenyiKernel] {
        let selection = Selection { scope, ..Selection::default() };
        assert_eq!(counts(&select(&scores, sparsity, &selection)?), [("a", 600), ("b", 300), ("c", 100)]);
        let mut previous = MaskSet::all_kept(&scores)?;
        previous.insert("a", Mask::from_fn([300, 300], |i| i < 100)?);
        let masks = select_within(&scores, sparsity, &selection, &previous)?;
        assert_eq!(counts(&masks), [("a", 100), ("b", 675), ("c", 225)]);
    }
    Ok(())
}

#[test]
fn the_most_specific_pattern_gives_a_layer_its_sparsity() -> Result<()> {
    let map = [("*", 0.1), ("conv*", 0.5), ("fc.weight", 0.9)].map(|(pattern, s)| (pattern.to_owned(), s));
    let selection = Selection { scope: Scope::PerLayer(map.into()), ..Selection::default() };
    let scores = scores(&[("conv.weight", &[10, 10]), ("fc.weight", &[10, 10]), ("head.weight", &[10, 10])])?;
    let masks = select(&scores, 0.3, &selection)?;
    assert_eq!(counts(&masks), [("conv.weight", 50), ("fc.weight", 10), ("head.weight", 90)]);
    Ok(())
}

#[test]
fn a_pattern_that_fits_nothing_is_named_with_what_there_is() -> Result<()> {
    let selection = Selection { keep_dense: vec!["conv1.*".to_owned(), "fc".to_owned()], ..Selection::default() };
    let error = select(&resnet_like()?, 0.5, &selection).err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(
        error,
        "keep_dense has `fc`, which fits no tensor of `conv1.weight`, `fc.weight`, `layer1.conv1.weight`; near it: `fc.weight`"
    );
    Ok(())
}

#[test]
fn a_misspelt_field_of_a_selection_is_an_error() {
    let read = |json: &str| serde_json::from_str::<Selection>(json).map_err(|e| e.to_string());
    assert!(read(r#"{"keep_dense": ["fc.weight"]}"#).is_ok_and(|s| s.keep_dense == ["fc.weight"]));
    assert!(read(r#"{"keep_dens": ["fc.weight"]}"#).is_err_and(|e| e.contains("keep_dens")));
}

#[test]
fn multiples_of_eight_hold_the_budget_of_a_network() -> Result<()> {
    // 53 layers of 65 filters, half of 3,445: 215 times 8 are 1,720.
    let names: Vec<String> = (0..53).map(|i| format!("layer{i}.weight")).collect();
    let layers: Vec<(&str, &[usize])> = names.iter().map(|name| (name.as_str(), &[65, 4, 3, 3][..])).collect();
    let scores = scores(&layers)?;
    for (scope, expected) in [(Scope::Global, 1_720), (Scope::ErdosRenyiKernel, 1_720), (Scope::Local, 53 * 32)] {
        let selection = Selection { granularity: Granularity::Filter, scope, round_to: 8, ..Selection::default() };
        let masks = select(&scores, 0.5, &selection)?;
        assert!(masks.iter().all(|(_, mask)| mask.kept() % (8 * 36) == 0 || mask.zeros() == 0));
        assert_eq!(masks.iter().map(|(_, mask)| mask.kept() / 36).sum::<usize>(), expected, "{:?}", selection.scope);
    }
    Ok(())
}

#[test]
fn three_decimals_name_a_pattern_s_sparsity() -> Result<()> {
    let scores = scores(&[("a", &[300, 300])])?;
    let thirds = Selection { granularity: Granularity::NM { n: 1, m: 3 }, ..Selection::default() };
    for sparsity in [2.0 / 3.0, 0.667, 0.6667] {
        assert_eq!(select(&scores, sparsity, &thirds)?.zeros(), 60_000, "{sparsity}");
    }
    let error = select(&scores, 0.67, &thirds).err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(error, "`a`: 1:3 prunes at most 60000 of 90000 weights, asked for 60300");
    Ok(())
}

#[test]
fn no_mask_of_before_is_lost() -> Result<()> {
    let both = scores(&[("a", &[4, 4]), ("b", &[4, 4])])?;
    let previous = select(&both, 0.5, &Selection::default())?;
    let only_a = scores(&[("a", &[4, 4])])?;
    let dense_b = Selection { keep_dense: vec!["b".to_owned()], ..Selection::default() };
    let cases = [
        select_within(&only_a, 0.75, &Selection::default(), &previous)?,
        select_within(&both, 0.75, &dense_b, &previous)?,
    ];
    for masks in cases {
        assert_eq!(masks.get("b"), previous.get("b"));
        assert_eq!(masks.get("a").map(Mask::zeros), Some(12));
        assert!(masks.is_nested_in(&previous)?);
    }
    Ok(())
}

#[test]
fn masked_tensors_do_not_follow_their_variable() -> Result<()> {
    let var = candle_core::Var::from_tensor(&Tensor::ones((2, 2), DType::F32, &Device::Cpu)?)?;
    let mut tensors = HashMap::from([("w".to_owned(), var.as_tensor().clone())]);
    let masks = MaskSet::all_kept(&tensors)?;
    masks.apply(&mut tensors)?;
    let snapshots = [
        tensors.remove("w"),
        Some(masks.apply_to("w", &var)?),
        Some(MaskSet::new().apply_to("w", &var)?),
        masks.get("w").map(|mask| mask.apply(&var)).transpose()?,
    ];
    var.set(&Tensor::zeros((2, 2), DType::F32, &Device::Cpu)?)?;
    for snapshot in snapshots.into_iter().flatten() {
        assert_eq!(snapshot.to_vec2::<f32>()?, [[1.0, 1.0], [1.0, 1.0]]);
    }
    Ok(())
}

#[test]
fn hash_maps_are_taken_as_sorted_ones() -> Result<()> {
    let sorted = resnet_like()?;
    let hashed: HashMap<String, Tensor> = sorted.clone().into_iter().collect();
    let selection = Selection { scope: Scope::Global, ..Selection::default() };
    let masks = select(&sorted, 0.7, &selection)?;
    assert_eq!(select(&hashed, 0.7, &selection)?, masks);
    let mut weights = hashed.clone();
    masks.apply(&mut weights)?;
    assert_eq!(MaskSet::from_nonzero(&weights)?, masks);
    assert_eq!(select_within(&hashed, 0.7, &selection, &MaskSet::all_kept(&hashed)?)?, masks);
    let name = "a".to_owned();
    let twice = [(&name, &sorted["fc.weight"]); 2];
    assert!(select(twice, 0.5, &selection).is_err_and(|e| e.to_string() == "`a`: name is there twice"));
    Ok(())
}

#[test]
fn filters_and_rows_share_one_budget() -> Result<()> {
    let scores = scores(&[("conv.weight", &[16, 3, 3, 3]), ("fc.weight", &[10, 16])])?;
    let selection = Selection {
        granularity: Granularity::Filter,
        granularities: BTreeMap::from([("fc.*".to_owned(), Granularity::Row)]),
        scope: Scope::Global,
        ..Selection::default()
    };
    let masks = select(&scores, 0.5, &selection)?;
    let kept: usize = masks.iter().map(|(_, mask)| mask.kept() * mask.shape()[0] / mask.len()).sum();
    assert_eq!(kept, 13);
    // N:M in one layer and filters in another, each by itself.
    let mixed = Selection {
        granularities: BTreeMap::from([("fc.*".to_owned(), Granularity::NM { n: 2, m: 4 })]),
        scope: Scope::Local,
        ..selection.clone()
    };
    assert_eq!(counts(&select(&scores, 0.5, &mixed)?), [("conv.weight", 8 * 27), ("fc.weight", 80)]);
    assert!(matches!(select(&scores, 0.5, &Selection { scope: Scope::Global, ..mixed }), Err(Error::Selection(_))));
    Ok(())
}

#[test]
fn groups_follow_how_a_weight_lies() -> Result<()> {
    // [I, O] = [2, 3]: output 1 has 9 + 1, output 0 has 4 + 4, output 2 has 0 + 2; inputs have 13 and 7.
    let flat = Tensor::new(&[[4f32, 9., 0.], [4., 1., 2.]], &Device::Cpu)?;
    let conv1d = |granularity| Selection { granularity, transposed: vec!["layer".to_owned()], ..Selection::default() };
    let bits = |scores: &Tensor, sparsity, selection: &Selection| -> Result<Vec<u8>> {
        let masks = select_one(scores, sparsity, selection)?;
        Ok(masks.iter().flat_map(|(_, mask)| mask.iter()).map(u8::from).collect())
    };
    assert_eq!(bits(&flat, 2.0 / 3.0, &conv1d(Granularity::Row))?, [0, 1, 0, 0, 1, 0]);
    assert_eq!(bits(&flat, 0.5, &conv1d(Granularity::Column))?, [1, 1, 1, 0, 0, 0]);
    assert_eq!(bits(&flat, 0.5, &conv1d(Granularity::NM { n: 1, m: 2 }))?, [1, 1, 0, 0, 0, 1]);
    assert_eq!(bits(&flat, 2.0 / 3.0, &conv1d(Granularity::RowBlock { rows: 1 }))?, [0, 1, 0, 0, 1, 0]);
    assert_eq!(bits(&flat, 2.0 / 3.0, &conv1d(Granularity::Head { heads: 3, parts: 1 }))?, [0, 1, 0, 0, 1, 0]);
    // [E, O, I] = [2, 2, 2]: the rows are 3, 7, 11 and 15, the columns 1 + 3, 2 + 4, 5 + 7, 6 + 8.
    let fused = Tensor::arange(1f32, 9., &Device::Cpu)?.reshape((2, 2, 2))?;
    let experts = |granularity, transposed: &[&str]| Selection {
        granularity,
        experts: vec!["layer".to_owned()],
        transposed: transposed.iter().copied().map(String::from).collect(),
        ..Selection::default()
    };
    assert_eq!(bits(&fused, 0.5, &experts(Granularity::Row, &[]))?, [0, 0, 0, 0, 1, 1, 1, 1]);
    assert_eq!(bits(&fused, 0.75, &experts(Granularity::Row, &[]))?, [0, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(bits(&fused, 0.75, &experts(Granularity::Column, &[]))?, [0, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(bits(&fused, 0.75, &experts(Granularity::Row, &["layer"]))?, [0, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(bits(&fused, 0.5, &experts(Granularity::NM { n: 1, m: 2 }, &[]))?, [0, 1, 0, 1, 0, 1, 0, 1]);
    assert_eq!(bits(&fused, 0.5, &experts(Granularity::NM { n: 1, m: 2 }, &["layer"]))?, [0, 0, 1, 1, 0, 0, 1, 1]);
    let error =
        select_one(&flat, 0.5, &experts(Granularity::Row, &[])).err().map(|e| e.to_string()).unwrap_or_default();
    assert_eq!(error, "`layer`: it is among the experts and has shape [2, 3], expected rank 3");
    Ok(())
}

#[test]
fn a_chain_of_causes_says_nothing_twice_and_no_backtrace() {
    let chain = |error: &dyn std::error::Error| {
        let mut said = vec![error.to_string()];
        let mut next = error.source();
        while let Some(cause) = next {
            said.push(cause.to_string());
            next = cause.source();
        }
        said
    };
    let misfit = Error::Shape { got: vec![2], expected: vec![3] };
    let named = Error::Named { name: "fc.weight".to_owned(), source: Box::new(misfit) };
    assert_eq!(chain(&named), ["`fc.weight`: mask has shape [2], expected [3]"]);
    let missing = MaskSet::load("none/masks.safetensors").err().map(|error| chain(&error)).unwrap_or_default();
    assert!(missing.len() == 1 && missing[0].starts_with("none/masks.safetensors: "), "{missing:?}");
    let inner = Box::new(candle_core::Error::Msg("no such kernel".to_owned()));
    let backtrace = Box::new(std::backtrace::Backtrace::force_capture());
    let traced = Error::from(candle_core::Error::WithBacktrace { inner, backtrace });
    assert_eq!(chain(&traced), ["no such kernel"]);
}
