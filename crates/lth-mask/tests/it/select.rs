//! What a selection promises.

use std::collections::BTreeMap;

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
    assert!(error(&["a", "c"], &[]).contains("`c`: tied, with 5 groups, expected 4"));
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
