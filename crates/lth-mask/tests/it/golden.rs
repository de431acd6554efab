//! Masks equal those of fasterai, bit for bit.

use candle_core::{DType, Tensor};
use lth_mask::{Granularity, Mask, Result, Selection, ThresholdRule};

use crate::{golden, select_one};

const EPS: f64 = 1.192_092_895_507_812_5e-7;

fn kth_value(granularity: Granularity) -> Selection {
    Selection { granularity, rule: ThresholdRule::KthValue, ..Selection::default() }
}

/// The mask of one layer as a tensor.
fn mask(scores: &Tensor, sparsity: f64, selection: &Selection) -> Result<Vec<u8>> {
    let masks = select_one(scores, sparsity, selection)?;
    let mask = masks.get("layer").map(|m| m.to_tensor(scores.device())).transpose()?;
    Ok(mask.map(|m| m.flatten_all()?.to_vec1()).transpose()?.unwrap_or_default())
}

fn flat(mask: &Tensor) -> Result<Vec<u8>> {
    Ok(mask.flatten_all()?.to_vec1()?)
}

#[test]
fn the_quantile_rule_is_that_of_2021() -> Result<()> {
    let tensors = golden("quantile_rule")?;
    let mut compared = 0;
    for (name, expected) in &tensors {
        let Some((tensor, q)) = name.split_once(".mask.") else { continue };
        // The names have four digits of what was asked for.
        let sparsity = match q {
            "0.1667" => 1.0 / 6.0,
            "0.3333" => 1.0 / 3.0,
            q => q.parse().expect("a number in a golden name"),
        };
        let scores = tensors[&format!("{tensor}.weight")].abs()?;
        assert_eq!(mask(&scores, sparsity, &Selection::fasterai_2021())?, flat(expected)?, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 21);
    Ok(())
}

#[test]
fn the_kth_value_rule_is_that_of_fasterai_for_every_criterion_and_granularity() -> Result<()> {
    let (scores, masks) = (golden("criteria_scores")?, golden("criteria_masks")?);
    let mut compared = 0;
    for (name, expected) in masks.iter().filter(|(name, _)| !name.contains("two_pass")) {
        let (key, percent) = name.rsplit_once(".mask").expect("a golden name");
        let sparsity = if percent == "30" { 0.3 } else { 0.5 };
        let mask = mask(&scores[key], sparsity, &kth_value(Granularity::Weight))?;
        assert_eq!(mask, flat(expected)?, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 560);
    Ok(())
}

/// From scores of single weights: the mean over each granularity's dimensions, and the mask spread over them again.
#[test]
fn groups_are_those_of_fasterai() -> Result<()> {
    let (scores, masks) = (golden("criteria_scores")?, golden("criteria_masks")?);
    let mut compared = 0;
    for (name, expected) in masks.iter().filter(|(name, _)| !name.contains("two_pass")) {
        let (key, percent) = name.rsplit_once(".mask").expect("a golden name");
        let (layer_criterion, granularity) = key.rsplit_once('.').expect("a golden name");
        let single = &scores[&format!("{layer_criterion}.weight")];
        let sparsity = if percent == "30" { 0.3 } else { 0.5 };
        let mask = mask(single, sparsity, &kth_value(granularity.parse()?))?;
        let spread = expected.to_dtype(DType::F32)?.broadcast_as(single.shape())?.to_dtype(DType::U8)?;
        assert_eq!(mask, flat(&spread)?, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 560);
    Ok(())
}

#[test]
fn two_passes_of_the_sparsifier_leave_its_weights() -> Result<()> {
    let (inputs, scores, masks) = (golden("criteria_inputs")?, golden("criteria_scores")?, golden("criteria_masks")?);
    for layer in ["conv", "linear"] {
        for granularity in ["weight", "column"] {
            let mut weight = inputs[&format!("{layer}.weight")].clone();
            let mut old: Option<Mask> = None;
            for (percent, sparsity) in [("30", 0.3), ("50", 0.5)] {
                let mut score = (weight.abs()? + EPS)?;
                if let Some(old) = &old {
                    score = old.apply(&score)?;
                }
                let found = select_one(&score, sparsity, &kth_value(granularity.parse()?))?;
                let found = found.get("layer").cloned().expect("one layer");
                let expected = masks[&format!("{layer}.two_pass.{granularity}.mask{percent}")].to_dtype(DType::F32)?;
                let expected = Mask::from_tensor(&expected.broadcast_as(weight.shape())?)?;
                assert_eq!(found, expected, "{layer} {granularity} {percent}");
                weight = found.apply(&weight)?;
                let left = &scores[&format!("{layer}.two_pass.{granularity}.weight{percent}")];
                assert_eq!(weight.flatten_all()?.to_vec1::<f32>()?, left.flatten_all()?.to_vec1::<f32>()?);
                old = Some(found);
            }
        }
    }
    Ok(())
}
