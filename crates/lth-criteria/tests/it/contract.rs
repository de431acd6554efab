//! What holds for every criterion of the crate.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use lth_criteria::{Criterion, Error, Input, Inputs, NamedInputs, Requirements, all, by_name, score_all};
use proptest::prelude::*;

use crate::{Everything, values};

/// The inputs that a criterion reads: what it requires, and the weight where its values count.
fn reads(criterion: &dyn Criterion) -> Vec<Input> {
    let weight = !matches!(criterion.name(), "random" | "large_init" | "small_init");
    weight.then_some(Input::Weight).into_iter().chain(criterion.requires().iter()).collect()
}

fn key(input: Input) -> &'static str {
    match input {
        Input::Weight => "weight",
        Input::Initial => "initial",
        Input::Previous => "previous",
        Input::Gradient => "gradient",
        Input::SquaredGradient => "squared_gradient",
        Input::HessianGradient => "hessian_gradient",
        Input::FlowGradient => "flow_gradient",
        Input::ActivationNorm => "activation_norm",
        Input::BatchNormScale => "batch_norm_scale",
        Input::SquaredGateGradient => "squared_gate_gradient",
        Input::Mask => "mask",
        other => panic!("no test tensor for the {other}"),
    }
}

#[test]
fn scores_are_f32_of_the_weights_shape_and_repeat_bit_for_bit() {
    let everything = Everything::new();
    for criterion in all(3) {
        let scores = criterion.score("w", &everything.inputs()).unwrap();
        assert_eq!((scores.dims(), scores.dtype()), ([4, 2, 3, 3].as_slice(), DType::F32), "{}", criterion.name());
        assert!(scores.is_contiguous(), "{}", criterion.name());
        let again = criterion.score("w", &everything.inputs()).unwrap();
        assert_eq!(values(&scores), values(&again), "{}", criterion.name());
    }
}

#[test]
fn a_missing_input_is_named_with_its_weight() {
    let everything = Everything::new();
    for criterion in all(3) {
        for input in criterion.requires().iter() {
            let mut lacking = Everything { tensors: everything.tensors.clone() };
            lacking.tensors.remove(key(input)).unwrap();
            let error = criterion.score("conv1.weight", &lacking.inputs()).unwrap_err();
            let expected =
                format!("criterion `{}` needs the {input} of `conv1.weight`, which was not given", criterion.name());
            assert_eq!(error.to_string(), expected);
        }
        // And nothing else is needed.
        let mut bare = Everything { tensors: everything.tensors.clone() };
        bare.tensors.retain(|name, _| *name == "weight" || criterion.requires().iter().any(|i| key(i) == *name));
        assert!(criterion.score("conv1.weight", &bare.inputs()).is_ok(), "{}", criterion.name());
    }
}

#[test]
fn an_input_of_another_shape_is_named_with_its_weight() {
    let everything = Everything::new();
    for criterion in all(3) {
        for input in criterion.requires().iter() {
            let mut other = Everything { tensors: everything.tensors.clone() };
            other.tensors.insert(key(input), Tensor::ones((4, 2, 9), DType::F32, &Device::Cpu).unwrap());
            let error = criterion.score("conv1.weight", &other.inputs()).unwrap_err();
            assert!(matches!(&error, Error::Shape { input: i, .. } if *i == input), "{error}");
            let start = format!("{input} of `conv1.weight` has shape [4, 2, 9], expected ");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }
}

#[test]
fn a_score_that_overflows_is_an_error() {
    let weight = Tensor::new(&[1f32, 1e30], &Device::Cpu).unwrap();
    let error = by_name("squared_final", 0).unwrap().score("w", &Inputs::of(&weight)).unwrap_err();
    assert_eq!(error.to_string(), "score `squared_final` of `w` is inf at flat index 1, expected a finite number");
}

#[test]
fn names_are_distinct_and_find_their_criterion() {
    let names: Vec<String> = all(0).iter().map(|criterion| criterion.name().to_owned()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    assert_eq!(names.len(), 23);
    for name in &names {
        assert_eq!(by_name(name, 0).unwrap().name(), name);
    }
    let message = by_name("l1", 0).err().unwrap().to_string();
    assert!(message.starts_with("`l1` is no criterion, expected one of random, large_final, "), "{message}");
}

#[test]
fn data_free_criteria_need_neither_gradients_nor_activations() {
    let data_free = |name| by_name(name, 0).unwrap().requires().is_data_free();
    for name in ["random", "large_final", "movement", "updating_movmag", "lamp", "batch_norm_scale"] {
        assert!(data_free(name), "{name}");
    }
    for name in ["taylor", "snip", "grasp", "empirical_fisher", "synflow", "wanda", "taylor_gate"] {
        assert!(!data_free(name), "{name}");
    }
    assert!(Requirements::NONE.is_data_free());
}

#[test]
fn half_precision_weights_are_scored_in_f32() {
    let weight = Tensor::new(&[0.5f32, -2.0], &Device::Cpu).unwrap();
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let weight = weight.to_dtype(dtype).unwrap();
        let scores = by_name("large_final", 0).unwrap().score("w", &Inputs::of(&weight)).unwrap();
        assert_eq!(scores.to_vec1::<f32>().unwrap(), [0.5, 2.0]);
    }
}

#[test]
fn a_small_movement_of_a_double_weight_is_not_lost() {
    let now = Tensor::new(&[1.0f64 + 1e-10, 1.0], &Device::Cpu).unwrap();
    let then = Tensor::new(&[1.0f64, 1.0], &Device::Cpu).unwrap();
    let inputs = Inputs { initial: Some(&then), ..Inputs::of(&now) };
    let scores = by_name("movement", 0).unwrap().score("w", &inputs).unwrap().to_vec1::<f32>().unwrap();
    assert!((scores[0] - 1e-10).abs() < 1e-15 && scores[1] == 0.0, "{scores:?}");
}

#[test]
fn scores_share_nothing_with_the_variable() {
    let weight = candle_core::Var::new(&[1f32, -2.0], &Device::Cpu).unwrap();
    let scores = by_name("large_final", 0).unwrap().score("w", &Inputs::of(&weight)).unwrap();
    weight.set(&Tensor::new(&[0f32, 0.0], &Device::Cpu).unwrap()).unwrap();
    assert_eq!(scores.to_vec1::<f32>().unwrap(), [1.0, 2.0]);
    assert!(!scores.track_op());
}

fn many_weights(sizes: &[usize]) -> BTreeMap<String, Tensor> {
    let weight = |(idx, n): (usize, &usize)| {
        let values: Vec<f32> = (0..*n).map(|i| ((i * 37 + idx * 11) % 101) as f32 - 50.0).collect();
        (format!("layer{idx}.weight"), Tensor::from_vec(values, *n, &Device::Cpu).unwrap())
    };
    sizes.iter().enumerate().map(weight).collect()
}

proptest! {
    #[test]
    fn nan_or_infinity_in_any_input_is_named_with_its_index(
        criterion_idx in 0usize..23,
        which in any::<prop::sample::Index>(),
        position in any::<prop::sample::Index>(),
        bad in prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
    ) {
        let criterion = &all(3)[criterion_idx];
        let reads = reads(criterion.as_ref());
        prop_assume!(!reads.is_empty());
        let input = *which.get(&reads);
        let mut everything = Everything::new();
        let tensor = &everything.tensors[key(input)];
        let mut values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        let at = position.index(values.len());
        values[at] = bad;
        let tensor = Tensor::from_vec(values, tensor.shape(), &Device::Cpu).unwrap();
        everything.tensors.insert(key(input), tensor);
        let error = criterion.score("w", &everything.inputs()).unwrap_err();
        let expected = format!("{input} of `w` is {bad} at flat index {at}, expected a finite number");
        prop_assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_weights_score_depends_on_neither_the_others_nor_the_threads(
        sizes in proptest::collection::vec(1usize..300, 1..12),
        seed: u64,
    ) {
        let weights = many_weights(&sizes);
        for criterion in [by_name("random", seed).unwrap(), by_name("lamp", 0).unwrap()] {
            let mut by_threads = Vec::new();
            for n_threads in [1, 2, 4] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
                by_threads.push(pool.install(|| score_all(criterion.as_ref(), &NamedInputs::of(&weights)).unwrap()));
            }
            for (name, weight) in weights.iter().rev() {
                let alone = values(&criterion.score(name, &Inputs::of(weight)).unwrap());
                for scores in &by_threads {
                    prop_assert_eq!(&values(&scores[name]), &alone);
                }
            }
        }
    }

    #[test]
    fn lamp_is_its_definition(values in proptest::collection::vec(-4i8..4, 1..60)) {
        // Small integers: many ties, and every sum exact.
        let weights: Vec<f32> = values.iter().map(|v| f32::from(*v)).collect();
        let weight = Tensor::new(weights.clone(), &Device::Cpu).unwrap();
        let scores = by_name("lamp", 0).unwrap().score("w", &Inputs::of(&weight)).unwrap().to_vec1::<f32>().unwrap();
        for (at, score) in scores.into_iter().enumerate() {
            let w = weights[at];
            // Of equal ones the first counts as larger.
            let from_here = |(idx, v): &(usize, &f32)| v.abs() > w.abs() || (v.abs() == w.abs() && *idx <= at);
            let sum: f64 = weights.iter().enumerate().filter(from_here).map(|(_, v)| f64::from(v * v)).sum();
            let expected = if w == 0.0 { 0.0 } else { f64::from(w * w) / sum };
            prop_assert!((f64::from(score) - expected).abs() <= 1e-6 * expected, "{w}: {score}, expected {expected}");
        }
    }

    #[test]
    fn random_scores_are_a_permutation_spread_over_zero_to_one(n in 1usize..2000, seed: u64) {
        let weight = Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
        let mut scores = values(&by_name("random", seed).unwrap().score("w", &Inputs::of(&weight)).unwrap());
        scores.sort_by(f64::total_cmp);
        for (k, score) in scores.iter().enumerate() {
            prop_assert!((score - (k as f64 + 0.5) / n as f64).abs() < 1e-7);
        }
    }
}
