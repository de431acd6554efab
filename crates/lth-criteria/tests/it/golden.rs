//! Scores printed by fasterai 0.3.3 (commit 868348e) itself, with torch 2.15.0: every criterion it has but `random`, at
//! every granularity that is a mean over dimensions, for a convolution [8, 4, 3, 3] and a linear layer [6, 10].
//!
//! Tolerances, relative to the largest score of a tensor: 1e-6, and 1e-5 for Taylor and Wanda, whose f32 products and
//! sums are taken in another order.

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use lth_criteria::fasterai::{EPS, FasteraiRule, rescale};
use lth_criteria::{ActivationNorms, Criterion, Inputs, LargeFinal, by_name};

use crate::{assert_close, values};

const CONV: [(&str, &[usize]); 16] = [
    ("weight", &[]),
    ("shared_weight", &[0]),
    ("channel", &[1]),
    ("column", &[2]),
    ("row", &[3]),
    ("kernel", &[2, 3]),
    ("filter", &[1, 2, 3]),
    ("shared_channel", &[0, 1]),
    ("shared_column", &[0, 2]),
    ("shared_row", &[0, 3]),
    ("vertical_slice", &[1, 2]),
    ("horizontal_slice", &[1, 3]),
    ("shared_vertical_slice", &[0, 1, 2]),
    ("shared_horizontal_slice", &[0, 1, 3]),
    ("shared_kernel", &[0, 2, 3]),
    ("layer", &[0, 1, 2, 3]),
];
const LINEAR: [(&str, &[usize]); 4] = [("weight", &[]), ("column", &[0]), ("row", &[1]), ("layer", &[0, 1])];

fn load(bytes: &[u8]) -> HashMap<String, Tensor> {
    candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap()
}

fn golden_inputs() -> HashMap<String, Tensor> {
    load(include_bytes!("../golden/criteria_inputs.safetensors"))
}

fn golden_scores() -> HashMap<String, Tensor> {
    load(include_bytes!("../golden/criteria_scores.safetensors"))
}

fn layer<'a>(tensors: &'a HashMap<String, Tensor>, layer: &str) -> Inputs<'a> {
    let find = |name: &str| &tensors[&format!("{layer}.{name}")];
    Inputs {
        initial: Some(find("init")),
        previous: Some(find("previous")),
        gradient: Some(find("grad")),
        activation_norm: Some(find("wanda_scale")),
        ..Inputs::of(find("weight"))
    }
}

#[test]
fn every_score_of_fasterai_is_ours_under_its_rule() {
    let (inputs, mut expected) = (golden_inputs(), golden_scores());
    expected.retain(|name, _| !name.contains(".two_pass."));
    let mut n_compared = 0;
    for (name, expected) in &expected {
        let parts: Vec<&str> = name.split('.').collect();
        let (layer_name, criterion, granularity) = (parts[0], parts[1], parts[2]);
        let inputs = layer(&inputs, layer_name);
        // fasterai leaves shift and EPS out of its `grad_crit`, our `taylor`.
        let scores = match criterion {
            "grad_crit" => {
                let squared = inputs.gradient.unwrap().sqr().unwrap();
                let inputs = Inputs { squared_gradient: Some(&squared), ..inputs };
                by_name("taylor", 0).unwrap().score(name, &inputs).unwrap()
            }
            other => FasteraiRule::new(by_name(other, 0).unwrap()).score(name, &inputs).unwrap(),
        };
        assert_eq!(scores.dims(), inputs.weight.dims());
        let table: &[(&str, &[usize])] = if layer_name == "conv" { &CONV } else { &LINEAR };
        let (_, dims) = table.iter().find(|(other, _)| *other == granularity).unwrap();
        let mut means = scores.to_dtype(candle_core::DType::F64).unwrap();
        for dim in *dims {
            means = means.mean_keepdim(*dim).unwrap();
        }
        assert_eq!(means.dims(), expected.dims(), "{name}");
        let tolerance = if matches!(criterion, "grad_crit" | "wanda") { 1e-5 } else { 1e-6 };
        assert_close(&values(&means), &values(expected), tolerance, name);
        n_compared += 1;
    }
    // 14 criteria at 16 and at 4 granularities.
    assert_eq!(n_compared, 14 * 20);
}

#[test]
fn plain_scores_are_the_ruled_ones_without_shift_and_eps() {
    let inputs = golden_inputs();
    let inputs = layer(&inputs, "conv");
    let plain = values(&by_name("magnitude_increase", 0).unwrap().score("w", &inputs).unwrap());
    let (w, init) = (values(inputs.weight), values(inputs.initial.unwrap()));
    let expected: Vec<f64> = w.iter().zip(&init).map(|(w, init)| w.abs() - init.abs()).collect();
    assert_close(&plain, &expected, 1e-6, "magnitude_increase");
    assert!(plain.iter().any(|score| *score < 0.0));
}

#[test]
fn the_second_pass_keeps_to_the_first_mask() {
    // fasterai's whole sparsifier, 30 % and then 50 %: the mask in force multiplies the scores, and what is at least the
    // k-th smallest stays, k = int(0.5 · n).
    let (inputs, scores) = (golden_inputs(), golden_scores());
    for layer in ["conv", "linear"] {
        let find = |s: u32| &scores[&format!("{layer}.two_pass.weight.weight{s}")];
        let (first, second) = (find(30), find(50));
        let mask = first.ne(0.0).unwrap();
        let with_mask = Inputs { mask: Some(&mask), ..Inputs::of(&inputs[&format!("{layer}.weight")]) };
        let ours = values(&FasteraiRule::new(LargeFinal).score(layer, &with_mask).unwrap());
        for (score, kept) in ours.iter().zip(values(&mask)) {
            assert_eq!(*score == 0.0, kept == 0.0);
        }
        let mut sorted = ours.clone();
        sorted.sort_by(f64::total_cmp);
        let threshold = sorted[ours.len() / 2 - 1];
        let kept: Vec<f64> = ours.iter().map(|score| f64::from(*score >= threshold)).collect();
        assert_eq!(kept, values(&second.ne(0.0).unwrap()), "{layer}");
    }
}

#[test]
fn the_norms_of_the_calibration_batch_are_fasterais() {
    let inputs = golden_inputs();
    for layer in ["conv", "linear"] {
        let mut norms = ActivationNorms::new();
        // In two parts: the split into batches must not matter.
        let calibration = &inputs[&format!("{layer}.calibration")];
        norms.observe(layer, &calibration.narrow(0, 0, 2).unwrap()).unwrap();
        norms.observe(layer, &calibration.narrow(0, 2, 3).unwrap()).unwrap();
        let expected = values(&inputs[&format!("{layer}.wanda_scale")]);
        assert_close(&values(&norms.norms().unwrap()[layer]), &expected, 1e-6, layer);
    }
}

#[test]
fn the_rule_shifts_only_negative_scores() {
    let scores = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
    let ruled = |values: &[f32]| rescale(&scores(values), None).unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(ruled(&[0.5, 0.25]), [0.5 + EPS, 0.25 + EPS]);
    assert_eq!(ruled(&[0.5, -0.25]), [0.75 + EPS, EPS]);
    assert!(ruled(&[]).is_empty());
    let mask = Tensor::new(&[1u8], &Device::Cpu).unwrap();
    assert!(rescale(&scores(&[1.0, 2.0]), Some(&mask)).is_err());
}
