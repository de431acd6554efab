//! SynFlow on a linear network of two layers, where everything has a closed form: the flow is 1ᵀ|W₂||W₁|1.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use lth_criteria::{NamedInputs, SynFlow, SynFlowRounds, flow_gradients, score_all, synflow};

use crate::{assert_close, values};

const W1: [[f64; 2]; 3] = [[0.5, -1.0], [2.0, 0.25], [-0.125, 4.0]];
const W2: [[f64; 3]; 2] = [[-0.75, 0.5, 1.0], [0.3, -0.1, -0.2]];

fn network() -> BTreeMap<String, Var> {
    BTreeMap::from([
        ("w1".to_owned(), Var::new(&W1, &Device::Cpu).unwrap()),
        ("w2".to_owned(), Var::new(&W2, &Device::Cpu).unwrap()),
    ])
}

fn outputs(network: &BTreeMap<String, Var>) -> candle_core::Result<Tensor> {
    let ones = Tensor::ones((2, 1), candle_core::DType::F64, &Device::Cpu)?;
    network["w2"].matmul(&network["w1"].matmul(&ones)?)
}

/// |w|·∂R/∂|w| of both layers, row by row, by hand.
fn scores_by_hand(w1: &[[f64; 2]; 3], w2: &[[f64; 3]; 2]) -> (Vec<f64>, Vec<f64>) {
    let out_of = |hidden: usize| w2.iter().map(|row| row[hidden].abs()).sum::<f64>();
    let into = |hidden: usize| w1[hidden].iter().map(|w| w.abs()).sum::<f64>();
    let first = w1.iter().enumerate().flat_map(|(j, row)| row.map(|w| w.abs() * out_of(j))).collect();
    let second = w2.iter().flat_map(|row| [0, 1, 2].map(|j| row[j].abs() * into(j))).collect();
    (first, second)
}

/// Keeps the largest scores over all tensors, as many as the density asks for.
fn select_global(scores: &BTreeMap<String, Tensor>, sparsity: f64) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let mut all: Vec<f64> = scores.values().flat_map(values).collect();
    all.sort_by(f64::total_cmp);
    let n_pruned = (sparsity * all.len() as f64).round() as usize;
    let threshold = all.get(n_pruned).copied().unwrap_or(f64::INFINITY);
    scores.iter().map(|(name, scores)| Ok((name.clone(), scores.ge(threshold as f32)?))).collect()
}

#[test]
fn one_round_has_the_closed_form_and_conserves_the_flow() {
    let network = network();
    let flow = flow_gradients(&network, || outputs(&network)).unwrap();
    let weights = network.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect();
    let scores = score_all(&SynFlow, &NamedInputs { flow_gradient: Some(&flow), ..NamedInputs::of(&weights) }).unwrap();
    let (first, second) = scores_by_hand(&W1, &W2);
    assert_close(&values(&scores["w1"]), &first, 1e-6, "w1");
    assert_close(&values(&scores["w2"]), &second, 1e-6, "w2");
    // The paper's theorem: every layer carries the whole flow.
    assert!((first.iter().sum::<f64>() - second.iter().sum::<f64>()).abs() < 1e-12);
    assert_eq!(values(&network["w1"]), W1.concat(), "the signs were not put back");
}

#[test]
fn the_rounds_are_those_of_a_naive_implementation() {
    let network = network();
    let rounds = SynFlowRounds { n_rounds: 7, sparsity: 0.5 };
    let masks = synflow(&network, ["w1", "w2"], rounds, || outputs(&network), select_global).unwrap();
    let (mut w1, mut w2) = (W1, W2);
    for round in 1..=7 {
        let (first, second) = scores_by_hand(&w1, &w2);
        let mut all = [first.clone(), second.clone()].concat();
        all.sort_by(f64::total_cmp);
        let sparsity = 1.0 - 0.5f64.powf(f64::from(round) / 7.0);
        let threshold = all[(sparsity * 12.0).round() as usize];
        for (idx, score) in first.iter().enumerate() {
            w1[idx / 2][idx % 2] = if *score >= threshold { W1[idx / 2][idx % 2] } else { 0.0 };
        }
        for (idx, score) in second.iter().enumerate() {
            w2[idx / 3][idx % 3] = if *score >= threshold { W2[idx / 3][idx % 3] } else { 0.0 };
        }
    }
    let kept = |w: &[f64]| w.iter().map(|w| f64::from(*w != 0.0)).collect::<Vec<_>>();
    assert_eq!(values(&masks["w1"]), kept(&w1.concat()));
    assert_eq!(values(&masks["w2"]), kept(&w2.concat()));
    assert_eq!((values(&network["w1"]), values(&network["w2"])), (W1.concat(), W2.concat()), "the weights moved");
}

#[test]
fn many_rounds_leave_a_path_where_magnitude_cuts_a_layer() {
    // A wide layer of large weights and a narrow one of small ones: at 95 % magnitude empties the narrow one.
    let wide: Vec<f64> = (0..64).map(|i| 1.0 + i as f64 / 64.0).collect();
    let narrow: Vec<f64> = (0..8).map(|i| 0.01 + i as f64 / 1000.0).collect();
    let network = BTreeMap::from([
        ("wide".to_owned(), Var::from_vec(wide, (8, 8), &Device::Cpu).unwrap()),
        ("narrow".to_owned(), Var::from_vec(narrow, (1, 8), &Device::Cpu).unwrap()),
    ]);
    let outputs = || {
        let ones = Tensor::ones((8, 1), candle_core::DType::F64, &Device::Cpu)?;
        network["narrow"].matmul(&network["wide"].matmul(&ones)?)
    };
    let kept = |masks: &BTreeMap<String, Tensor>, name: &str| values(&masks[name]).iter().sum::<f64>();
    let magnitudes = network.iter().map(|(name, var)| (name.clone(), var.abs().unwrap())).collect();
    assert_eq!(kept(&select_global(&magnitudes, 0.95).unwrap(), "narrow"), 0.0);
    let masks = synflow(&network, ["wide", "narrow"], SynFlowRounds::to(0.95), outputs, select_global).unwrap();
    assert!(kept(&masks, "narrow") >= 1.0 && kept(&masks, "wide") >= 1.0);
    assert_eq!(kept(&masks, "narrow") + kept(&masks, "wide"), 4.0);
}

#[test]
fn bad_input_is_an_error_and_the_weights_are_put_back() {
    let network = network();
    let run = |prunable: &[&str], n_rounds, sparsity| {
        synflow(&network, prunable, SynFlowRounds { n_rounds, sparsity }, || outputs(&network), select_global)
    };
    assert_eq!(run(&["w1"], 0, 0.5).unwrap_err().to_string(), "SynFlow rounds is 0, expected at least 1");
    for sparsity in [1.0, -0.1, f64::NAN] {
        assert!(run(&["w1"], 3, sparsity).is_err(), "{sparsity}");
    }
    assert_eq!(run(&["w3"], 3, 0.5).unwrap_err().to_string(), "the network has no tensor named `w3`");

    let rounds = SynFlowRounds { n_rounds: 3, sparsity: 0.5 };
    let nothing = |_: &BTreeMap<String, Tensor>, _| Ok(BTreeMap::new());
    let error = synflow(&network, ["w1"], rounds, || outputs(&network), nothing).unwrap_err();
    assert_eq!(error.to_string(), "the selection has no tensor named `w1`");
    let failing = || -> candle_core::Result<Tensor> { candle_core::bail!("no network") };
    assert!(flow_gradients(&network, failing).is_err());
    let infinite = || outputs(&network)? * f64::INFINITY;
    let error = flow_gradients(&network, infinite).unwrap_err().to_string();
    assert!(error.starts_with("synaptic flow is inf, expected a finite sum"), "{error}");
    assert_eq!((values(&network["w1"]), values(&network["w2"])), (W1.concat(), W2.concat()));
}

#[test]
fn a_flow_beyond_f32_is_scored_in_the_order_of_a_smaller_one() {
    // Twelve layers of 4 × 4 in f64; factors of 10^±15 per layer put the flow at 10^±180.
    let layers = |factor: f64| -> BTreeMap<String, Var> {
        let weight =
            |layer: usize| (0..16).map(|i| factor * (1.3 * (i + 16 * layer) as f64 + 0.5).sin()).collect::<Vec<_>>();
        let var = |layer| Var::from_vec(weight(layer), (4, 4), &Device::Cpu).unwrap();
        (0..12).map(|layer| (format!("w{layer:02}"), var(layer))).collect()
    };
    let scores = |network: &BTreeMap<String, Var>| -> Vec<f64> {
        let outputs = || {
            let ones = Tensor::ones((4, 1), candle_core::DType::F64, &Device::Cpu)?;
            network.values().try_fold(ones, |x, w| w.matmul(&x))
        };
        let flow = flow_gradients(network, outputs).unwrap();
        let weights = network.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect();
        let inputs = NamedInputs { flow_gradient: Some(&flow), ..NamedInputs::of(&weights) };
        score_all(&SynFlow, &inputs).unwrap().values().flat_map(values).collect()
    };
    let plain = scores(&layers(1.0));
    for factor in [1e15, 1e-15] {
        let scaled = scores(&layers(factor));
        let ratio = scaled[0] / plain[0];
        let expected: Vec<f64> = plain.iter().map(|score| score * ratio).collect();
        assert_close(&scaled, &expected, 1e-6, "scores");
    }
}

#[test]
fn a_weight_that_the_flow_does_not_reach_is_an_error() {
    let network = network();
    let outputs = || {
        let ones = Tensor::ones((2, 1), candle_core::DType::F64, &Device::Cpu)?;
        network["w2"].matmul(&network["w1"].detach().matmul(&ones)?)
    };
    let flow = flow_gradients(&network, outputs).unwrap();
    assert_eq!(flow.keys().collect::<Vec<_>>(), ["w2"]);
    let rounds = SynFlowRounds { n_rounds: 3, sparsity: 0.5 };
    let error = synflow(&network, ["w1", "w2"], rounds, outputs, select_global).unwrap_err().to_string();
    assert!(error.starts_with("the loss gives no gradient to `w1`"), "{error}");
    assert_eq!(values(&network["w1"]), W1.concat());
    // All scores would be 0, and any weight as good as any other.
    let error = flow_gradients(&network, || outputs()? * 0.0).unwrap_err().to_string();
    assert!(error.starts_with("synaptic flow is 0, expected a finite sum of outputs that is not 0"), "{error}");
}
