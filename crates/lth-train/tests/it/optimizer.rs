//! Trajectories of fastai 2.8.12 and torch 2.15 (`tests/golden/README.md` says how they were made).

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var, safetensors};
use lth_kernels::optim::{AdamStep, Decay, SgdStep, adam_step, sgd_step};
use lth_kernels::{Kernel, Pattern, backward, backward_kept, cross_entropy, linear};
use lth_train::{Decays, Optimizer, OptimizerConfig, Parameter, Parameters, Role};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn golden() -> candle_core::Result<std::collections::HashMap<String, Tensor>> {
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let mut golden = safetensors::load(format!("{FOLDER}/optimizers.safetensors"), &Device::Cpu)?;
    golden.extend(safetensors::load(format!("{FOLDER}/torch.safetensors"), &Device::Cpu)?);
    Ok(golden)
}

/// Runs five steps with the golden gradients and compares every value after every step.
fn check(name: &str, config: OptimizerConfig, role: Role) -> Outcome {
    check_with(name, config, role, |_| None)
}

fn check_with(name: &str, config: OptimizerConfig, role: Role, momentum: impl Fn(usize) -> Option<f64>) -> Outcome {
    let golden = golden()?;
    for learning_rate in [0.001, 0.05] {
        let var = Var::from_tensor(&golden["start"])?;
        let mut parameters = Parameters::new();
        parameters.insert("p", Parameter::new(var.clone(), role));
        let mut optimizer = Optimizer::new(config);
        for i in 0..5 {
            // A loss whose gradient is the golden one.
            let gradients = (var.as_tensor() * golden["grads"].get(i)?)?.sum_all()?.backward()?;
            optimizer.step_with_momentum(learning_rate, momentum(i), &parameters, &gradients, &BTreeMap::new())?;
            let expected = golden[&format!("{name}_lr{learning_rate}")].get(i)?;
            let error = (var.as_tensor() - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(error <= 1e-6, "{name}, rate {learning_rate}, step {i}: off by {error}");
        }
    }
    Ok(())
}

#[test]
fn adam_follows_fastai() -> Outcome {
    check("fastai_adam", OptimizerConfig::adam(), Role::Weight)
}

#[test]
fn norms_and_biases_are_not_decayed() -> Outcome {
    check("fastai_adam_nowd", OptimizerConfig::adam(), Role::Norm)?;
    check("fastai_adam_nowd", OptimizerConfig::adam(), Role::Bias)
}

#[test]
fn sgd_follows_torch_and_fastai() -> Outcome {
    let (momentum, weight_decay, nesterov, decays) = (0.9, 0.01, false, Decays::Weights);
    let sgd = |decoupled| OptimizerConfig::Sgd { momentum, weight_decay, decoupled, nesterov, decays };
    check("torch_sgd", sgd(false), Role::Weight)?;
    check("fastai_sgd", sgd(true), Role::Weight)
}

#[test]
fn adam_adamw_and_nesterov_follow_torch() -> Outcome {
    check("adam", OptimizerConfig::torch_adam(), Role::Weight)?;
    check("adam_coupled", OptimizerConfig::torch_adam().with_weight_decay(0.01), Role::Weight)?;
    check("adamw", OptimizerConfig::torch_adamw(), Role::Weight)?;
    check("sgd_nesterov", OptimizerConfig::nesterov().with_weight_decay(0.01), Role::Weight)
}

#[test]
fn pytorchs_rules_decay_norms_and_biases_too() -> Outcome {
    for role in [Role::Norm, Role::Bias] {
        check("adam_coupled", OptimizerConfig::torch_adam().with_weight_decay(0.01), role)?;
        check("sgd_nesterov", OptimizerConfig::nesterov().with_weight_decay(0.01), role)?;
    }
    Ok(())
}

#[test]
fn a_momentum_that_changes_follows_torch() -> Outcome {
    check_with("sgd_changing_momentum", OptimizerConfig::sgd(), Role::Weight, |i| Some(0.95 - 0.02 * i as f64))
}

#[test]
fn a_configuration_written_before_there_were_more_rules_is_read_as_what_it_was() -> Outcome {
    let old = r#"{"name":"adam","beta1":0.9,"beta2":0.99,"eps":1e-5,"weight_decay":0.01}"#;
    assert_eq!(serde_json::from_str::<OptimizerConfig>(old)?, OptimizerConfig::adam());
    Ok(())
}

#[test]
fn pruned_weights_stay_zero_under_momentum_and_decay() -> Outcome {
    let mask = Tensor::new(&[1u8, 0, 1, 0], &Device::Cpu)?;
    let torch = OptimizerConfig::torch_adam().with_weight_decay(0.1);
    for config in [OptimizerConfig::adam(), OptimizerConfig::sgd(), OptimizerConfig::nesterov(), torch] {
        let var = Var::new(&[1f32, -2., 3., 4.], &Device::Cpu)?;
        let mut parameters = Parameters::new();
        parameters.insert("p", Parameter::new(var.clone(), Role::Weight));
        let mut optimizer = Optimizer::new(config);
        // Two dense steps fill the averages; from the third on the mask holds.
        for i in 0..6 {
            let masks = if i < 2 { BTreeMap::new() } else { BTreeMap::from([("p".to_owned(), mask.clone())]) };
            let gradients = var.sqr()?.sum_all()?.backward()?;
            optimizer.step(0.05, &parameters, &gradients, &masks)?;
            if i >= 2 {
                let values = var.to_vec1::<f32>()?;
                assert_eq!([values[1].to_bits(), values[3].to_bits()], [0, 0], "{config:?}, step {i}");
                assert!(values[0] != 0. && values[2] != 0.);
                for (name, average) in optimizer.tensors()?.into_iter().filter(|(name, _)| !name.ends_with("/steps")) {
                    let average = average.to_vec1::<f32>()?;
                    assert_eq!([average[1], average[3]], [0., 0.], "{name} after step {i}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn averages_survive_saving() -> Outcome {
    let run = |interrupt: bool| -> Result<Vec<f32>, Box<dyn std::error::Error>> {
        let var = Var::new(&[1f32, -2., 3.], &Device::Cpu)?;
        let mut parameters = Parameters::new();
        parameters.insert("p", Parameter::new(var.clone(), Role::Weight));
        let mut optimizer = Optimizer::new(OptimizerConfig::adam());
        for i in 0..6 {
            if interrupt && i == 3 {
                let (n_steps, tensors) = (optimizer.n_steps(), optimizer.tensors()?);
                optimizer = Optimizer::new(OptimizerConfig::adam());
                optimizer.restore(n_steps, &tensors, &parameters)?;
            }
            let gradients = var.sqr()?.sum_all()?.backward()?;
            optimizer.step(0.05, &parameters, &gradients, &BTreeMap::new())?;
        }
        Ok(var.to_vec1()?)
    };
    assert_eq!(run(false)?, run(true)?);
    Ok(())
}

/// PyTorch's Adam counts the steps of each parameter: whatever the gradient's size, the first step of a constant gradient
/// is one learning rate long (m̂ / √v̂ = 1), however many steps other parameters have taken before.
#[test]
fn a_weight_thawed_late_takes_a_first_step_of_one_learning_rate() -> Outcome {
    let (early, late) = (Var::new(&[0f64], &Device::Cpu)?, Var::new(&[0f64], &Device::Cpu)?);
    let mut parameters = Parameters::new();
    parameters.insert("early", Parameter::new(early.clone(), Role::Bias));
    parameters.insert("late", Parameter::new(late.clone(), Role::Bias));
    parameters.require("late")?.set_trainable(false);
    let config = OptimizerConfig::Adam {
        beta1: 0.9,
        beta2: 0.999,
        eps: 0.0,
        weight_decay: 0.0,
        decoupled: true,
        decays: Decays::Weights,
    };
    let mut optimizer = Optimizer::new(config);
    let step = |optimizer: &mut Optimizer| -> Outcome {
        let gradients = ((early.as_tensor() * 3.0)? + (late.as_tensor() * 3.0)?)?.sum_all()?.backward()?;
        Ok(optimizer.step(0.5, &parameters, &gradients, &BTreeMap::new())?)
    };
    for _ in 0..92 {
        step(&mut optimizer)?;
    }
    parameters.require("late")?.set_trainable(true);
    for n in 1..=30 {
        // What a state holds is enough to go on.
        let mut restored = Optimizer::new(config);
        restored.restore(optimizer.n_steps(), &optimizer.tensors()?, &parameters)?;
        optimizer = restored;
        step(&mut optimizer)?;
        let moved = late.to_vec1::<f64>()?[0];
        assert!((moved + 0.5 * f64::from(n)).abs() < 1e-9, "after {n} steps of 0.5 it is {moved}");
    }
    Ok(())
}

/// Averages of kept values alone, under masks that come, go, fall and grow again, in a state and out of it: to the bit what
/// averages of all values give, which are 0 where nothing is kept.
#[test]
fn averages_follow_the_mask() -> Outcome {
    const N: usize = 20_000;
    let wave = |k: f64| -> candle_core::Result<Tensor> {
        Tensor::from_iter((0..N).map(|i| (i as f64 * k).sin() as f32), &Device::Cpu)?.reshape((100, 200))
    };
    // Of every ten weights those from the first number on, as many as the second says.
    let mask = |first: usize, n_kept: usize| {
        let bits = (0..N).map(|i| u8::from((i + 10 - first) % 10 < n_kept));
        Tensor::from_iter(bits, &Device::Cpu)?.reshape((100, 200))
    };
    let masks =
        [None, Some(mask(0, 3)?), Some(mask(0, 3)?), Some(mask(2, 3)?), Some(mask(1, 8)?), Some(mask(9, 1)?), None];
    for config in [OptimizerConfig::torch_adam().with_weight_decay(0.01), OptimizerConfig::nesterov()] {
        let var = Var::from_tensor(&wave(0.1)?)?;
        let mut parameters = Parameters::new();
        parameters.insert("p", Parameter::new(var.clone(), Role::Weight));
        let mut optimizer = Optimizer::new(config);
        let zeros = || Var::from_tensor(&var.zeros_like()?);
        let (all, first, second) = (Var::from_tensor(&wave(0.1)?)?, zeros()?, zeros()?);
        for (mask, number) in masks.iter().zip(1u8..) {
            let gradient = wave(f64::from(number))?;
            let gradients = (var.as_tensor() * &gradient)?.sum_all()?.backward()?;
            let by_name = mask.iter().map(|mask| ("p".to_owned(), mask.clone())).collect();
            optimizer.step(0.01, &parameters, &gradients, &by_name)?;
            match config {
                OptimizerConfig::Adam { beta1, beta2, eps, weight_decay, .. } => {
                    let (decay, step) = (Decay::Coupled, u64::from(number));
                    let step = AdamStep { lr: 0.01, beta1, beta2, eps, weight_decay, decay, step };
                    adam_step(&all, &gradient, &first, &second, mask.as_ref(), &step)?;
                }
                OptimizerConfig::Sgd { momentum, weight_decay, nesterov, .. } => {
                    let step = SgdStep { lr: 0.01, momentum, weight_decay, decay: Decay::Coupled, nesterov };
                    sgd_step(&all, &gradient, &first, mask.as_ref(), &step)?;
                }
                _ => unreachable!("the two above"),
            }
            let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
            let check = |what: &str, got: &Tensor, expected: &Tensor| -> Outcome {
                let (got, expected) = (values(got)?, values(expected)?);
                let other = got.iter().zip(&expected).position(|(got, expected)| got.to_bits() != expected.to_bits());
                assert!(other.is_none(), "step {number}, {what}: another value at {other:?}");
                Ok(())
            };
            check("value", &var, &all)?;
            let tensors = optimizer.tensors()?;
            check("first average", &tensors["p/first"], &first)?;
            if let Some(found) = tensors.get("p/second") {
                check("second average", found, &second)?;
            }
            // Now and then it goes on from its state.
            if number % 4 == 1 {
                let mut next = Optimizer::new(config);
                next.restore(u64::from(number), &tensors, &parameters)?;
                optimizer = next;
            }
        }
    }
    Ok(())
}

/// Gradients of kept values alone, whatever the optimiser's own mask keeps: to the bit what whole gradients give.
#[test]
fn gradients_of_kept_values_alone_move_a_weight_to_the_same_bits() -> Outcome {
    let wave = |k: f64, shape: (usize, usize)| -> candle_core::Result<Tensor> {
        Tensor::from_iter((0..shape.0 * shape.1).map(|i| (i as f64 * k).sin() as f32), &Device::Cpu)?.reshape(shape)
    };
    let mask = |every: usize| -> candle_core::Result<Tensor> {
        Tensor::from_iter((0..40 * 50).map(|i| u8::from(i % every == 1)), &Device::Cpu)?.reshape((40, 50))
    };
    let (x, labels) = (wave(0.3, (16, 50))?, Tensor::from_iter((0..16u32).map(|i| i * 2), &Device::Cpu)?);
    let pattern = Pattern::new(&mask(3)?)?;
    // The layer's own, another, one that keeps so much that averages are of all weights, and none.
    for own in [Some(mask(3)?), Some(mask(4)?), Some(mask(3)?.eq(0u8)?), None] {
        for config in [OptimizerConfig::torch_adam().with_weight_decay(0.01), OptimizerConfig::nesterov()] {
            let masks: BTreeMap<_, _> = own.iter().map(|mask| ("p".to_owned(), mask.clone())).collect();
            let moved = |is_kept: bool| -> Result<Vec<u32>, Box<dyn std::error::Error>> {
                let var = Var::from_tensor(&wave(0.1, (40, 50))?)?;
                let mut parameters = Parameters::new();
                parameters.insert("p", Parameter::new(var.clone(), Role::Weight));
                let mut optimizer = Optimizer::new(config);
                for _ in 0..3 {
                    let loss = || cross_entropy(&linear(&x, &var, None, Some(&pattern))?, &labels);
                    Kernel::Sparse.run(|| -> Outcome {
                        if is_kept {
                            let gradients = backward_kept(&loss()?)?;
                            assert!(gradients.kept(&var).is_some());
                            return Ok(optimizer.step_kept(0.01, None, &parameters, &gradients, &masks)?);
                        }
                        Ok(optimizer.step(0.01, &parameters, &backward(&loss()?)?, &masks)?)
                    })?;
                }
                Ok(var.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f32::to_bits).collect())
            };
            assert_eq!(moved(true)?, moved(false)?);
        }
    }
    Ok(())
}
