//! Optimiser steps against torch's and fastai's.

use crate::common::{golden, noise32, values};
use candle_core::{DType, Device, Result, Tensor, Var};
use lth_kernels::optim::{
    AdamStep, Decay, KeptPlaces, SgdStep, adam_step, adam_step_kept, apply_mask, sgd_step, sgd_step_kept,
};

/// Runs five golden steps and compares the parameter after each, in f32 and f64.
fn check(name: &str, step: impl Fn(&Var, &Tensor, &Var, &Var, u64) -> Result<()>) -> Result<()> {
    let golden = golden("optimizers")?;
    for dtype in [DType::F32, DType::F64] {
        let p = Var::from_tensor(&golden["start"].to_dtype(dtype)?)?;
        let m = Var::from_tensor(&p.zeros_like()?)?;
        let v = Var::from_tensor(&p.zeros_like()?)?;
        for t in 0..5 {
            let grad = golden["grads"].get(t)?.to_dtype(dtype)?;
            step(&p, &grad, &m, &v, t as u64 + 1)?;
            let (got, expected) = (values(&p), values(&golden[name].get(t)?));
            for (g, e) in got.iter().zip(&expected) {
                assert!((g - e).abs() <= 1e-6, "{name} step {t}: got {g}, expected {e}");
            }
        }
    }
    Ok(())
}

const LRS: [(&str, f64); 2] = [("lr0.001", 0.001), ("lr0.05", 0.05)];

fn adam(lr: f64, weight_decay: f64, step: u64) -> AdamStep {
    AdamStep { lr, beta1: 0.9, beta2: 0.99, eps: 1e-5, weight_decay, decay: Decay::Decoupled, step }
}

#[test]
fn adam_is_fastais() -> Result<()> {
    for (suffix, lr) in LRS {
        check(&format!("fastai_adam_{suffix}"), |p, g, m, v, t| adam_step(p, g, m, v, None, &adam(lr, 0.01, t)))?;
        check(&format!("fastai_adam_nowd_{suffix}"), |p, g, m, v, t| adam_step(p, g, m, v, None, &adam(lr, 0.0, t)))?;
    }
    Ok(())
}

#[test]
fn sgd_is_torchs_with_coupled_decay_and_fastais_with_decoupled() -> Result<()> {
    for (name, decay) in [("torch_sgd", Decay::Coupled), ("fastai_sgd", Decay::Decoupled)] {
        for (suffix, lr) in LRS {
            let rule = SgdStep { lr, momentum: 0.9, weight_decay: 0.01, decay, nesterov: false };
            check(&format!("{name}_{suffix}"), |p, g, buf, _, _| sgd_step(p, g, buf, None, &rule))?;
        }
    }
    Ok(())
}

#[test]
fn masked_positions_become_exactly_zero_even_from_nan() -> Result<()> {
    for n in [5, 1000, 200_000] {
        let bits: Vec<u8> = (0..n).map(|i| u8::from(i % 3 != 0)).collect();
        let mask = Tensor::from_vec(bits.clone(), n, &Device::Cpu)?;
        let mut grad = noise32(1, &[n]).to_vec1::<f32>()?;
        grad[0] = f32::NAN;
        grad[3] = f32::NEG_INFINITY;
        let grad = Tensor::from_vec(grad, n, &Device::Cpu)?;
        let vars: Vec<Var> = (2..5).map(|s| Var::from_tensor(&noise32(s, &[n]).abs()?)).collect::<Result<_>>()?;
        let step = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.01, decay: Decay::Coupled, nesterov: true };
        adam_step(&vars[0], &grad, &vars[1], &vars[2], Some(&mask), &adam(0.1, 0.01, 3))?;
        sgd_step(&vars[0], &grad, &vars[1], Some(&mask), &step)?;
        for var in &vars {
            for (i, (value, bit)) in var.to_vec1::<f32>()?.iter().zip(&bits).enumerate() {
                if *bit == 0 {
                    assert_eq!(value.to_bits(), 0, "position {i} of {n}");
                } else {
                    assert!(value.is_finite() && *value != 0.0, "position {i} of {n}: {value}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_mask_leaves_what_it_keeps_and_zeros_even_of_nan() -> Result<()> {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        for (rows, columns) in [(0, 3), (1, 5), (37, 31), (300, 500)] {
            let n = rows * columns;
            // Every seventh is not a number, every fifth a negative zero: kept, they stay.
            let values: Vec<f32> = (0..n)
                .map(|i| match i {
                    i if i % 7 == 3 => f32::NAN,
                    i if i % 5 == 2 => -0.0,
                    i => i as f32 % 50.0 - 25.0,
                })
                .collect();
            let bits: Vec<u8> = (0..n).map(|i| (i * i % 3) as u8 * 255).collect();
            let p = Var::from_tensor(&Tensor::from_slice(&values, (rows, columns), &Device::Cpu)?.to_dtype(dtype)?)?;
            let before = p.copy()?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            // Not as it lies in memory.
            let mask = Tensor::from_slice(&bits, (rows, columns), &Device::Cpu)?.t()?.contiguous()?.t()?;
            apply_mask(&p, &mask)?;
            let after = p.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            for i in 0..n {
                let expected = if bits[i] == 0 { 0.0 } else { before[i] };
                assert_eq!(after[i].to_bits(), expected.to_bits(), "{dtype:?}, {i} of {n}");
            }
        }
    }
    let p = Var::zeros(3, DType::F32, &Device::Cpu)?;
    let error = |mask: Tensor| apply_mask(&p, &mask).unwrap_err().to_string();
    assert!(error(Tensor::zeros(4, DType::U8, &Device::Cpu)?).contains("`mask`"));
    assert!(error(Tensor::zeros(3, DType::F32, &Device::Cpu)?).contains("`mask`"));
    Ok(())
}

#[test]
fn nesterov_looks_ahead_as_in_torch() -> Result<()> {
    // p = 1, g = 2, momentum 0.5, lr 0.1: buf = 2, direction = 2 + 0.5 · 2 = 3.
    let p = Var::new(&[1f32], &Device::Cpu)?;
    let buf = Var::new(&[0f32], &Device::Cpu)?;
    let grad = Tensor::new(&[2f32], &Device::Cpu)?;
    let (decay, weight_decay) = (Decay::Coupled, 0.0);
    let step = SgdStep { lr: 0.1, momentum: 0.5, weight_decay, decay, nesterov: true };
    sgd_step(&p, &grad, &buf, None, &step)?;
    assert!((p.to_vec1::<f32>()?[0] - 0.7).abs() < 1e-7);
    assert_eq!(buf.to_vec1::<f32>()?[0], 2.0);
    Ok(())
}

#[test]
fn wrong_arguments_are_named() -> Result<()> {
    let var = |n: usize| Var::zeros(n, DType::F32, &Device::Cpu);
    let (p, m, v) = (var(3)?, var(3)?, var(3)?);
    let grad = Tensor::zeros(3, DType::F32, &Device::Cpu)?;
    let message = |r: Result<()>| r.expect_err("refused").to_string();
    let zero = message(adam_step(&p, &grad, &m, &v, None, &adam(0.1, 0.0, 0)));
    assert!(zero.contains("step is 0"), "{zero}");
    let twice = message(adam_step(&p, &grad, &m, &m, None, &adam(0.1, 0.0, 1)));
    assert!(twice.contains("`m` and `v` are the same"), "{twice}");
    let short = message(adam_step(&p, &grad, &var(2)?, &v, None, &adam(0.1, 0.0, 1)));
    assert!(short.contains("`m` has shape [2], expected [3]"), "{short}");
    let mask = message(adam_step(&p, &grad, &m, &v, Some(&grad), &adam(0.1, 0.0, 1)));
    assert!(mask.contains("`mask` has type F32, expected u8"), "{mask}");
    Ok(())
}

#[test]
fn averages_without_a_gradient_end_at_zero_and_not_in_denormals() -> Result<()> {
    for (dtype, smallest, steps) in
        [(DType::F32, f64::from(f32::MIN_POSITIVE), 9000), (DType::F64, f64::MIN_POSITIVE, 9000)]
    {
        let var = |value: f64| Var::from_tensor(&Tensor::full(value as f32, 37, &Device::Cpu)?.to_dtype(dtype)?);
        let (p, m, v, buf) = (var(1.0)?, var(0.5)?, var(0.25)?, var(-0.5)?);
        let grad = Tensor::zeros(37, dtype, &Device::Cpu)?;
        let rule = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.0, decay: Decay::Coupled, nesterov: false };
        for step in 1..=steps {
            adam_step(&p, &grad, &m, &v, None, &adam(0.01, 0.0, step))?;
            sgd_step(&p, &grad, &buf, None, &rule)?;
            if step % 50 == 0 {
                for average in [&m, &v, &buf] {
                    assert!(values(average).iter().all(|&x| x == 0.0 || x.abs() >= smallest), "{dtype:?}, step {step}");
                }
            }
        }
        // 0.5 · 0.9^n leaves f32 after some 820 steps and f64 after some 6,700.
        assert!(values(&m).iter().chain(&values(&buf)).all(|&x| x == 0.0), "{dtype:?}");
    }
    Ok(())
}

/// Averages of the kept values alone against averages of all: the same bits, over the ends of words, blocks and pieces.
#[test]
fn averages_of_kept_values_alone_give_the_same_bits() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        for (n, every) in [(1, 1), (63, 2), (64, 3), (1025, 5), (16_384, 7), (200_001, 10), (200_001, 40_000)] {
            let bits: Vec<u8> =
                (0..n).map(|i| if (i * i + i / 3) % every == 0 { 1 + (i % 255) as u8 } else { 0 }).collect();
            let mask = Tensor::from_vec(bits.clone(), n, &Device::Cpu)?;
            let places = KeptPlaces::new(&mask, n)?.expect("all may be kept");
            assert_eq!(places.n_kept(), bits.iter().filter(|bit| **bit != 0).count());
            assert!(places.are_of(&mask)?);
            let grads = [noise32(1, &[n]).to_dtype(dtype)?, noise32(2, &[n]).to_dtype(dtype)?];
            let start = noise32(3, &[n]).to_dtype(dtype)?;
            let zeros = |n: usize| Var::zeros(n, dtype, &Device::Cpu);

            let (p, m, v) = (Var::from_tensor(&start)?, zeros(n)?, zeros(n)?);
            let (q, m_kept, v_kept) = (Var::from_tensor(&start)?, zeros(places.n_kept())?, zeros(places.n_kept())?);
            // The second gradient of the kept values alone, too.
            let kept_grads = [grads[0].clone(), places.gather(&grads[1])?];
            for ((grad, kept_grad), step) in grads.iter().zip(&kept_grads).zip(1..) {
                adam_step(&p, grad, &m, &v, Some(&mask), &adam(0.05, 0.01, step))?;
                adam_step_kept(&q, kept_grad, &m_kept, &v_kept, &places, &adam(0.05, 0.01, step))?;
            }
            assert_eq!(values(&p), values(&q), "{n} {every}");
            assert_eq!(values(&m), values(&places.scatter(&m_kept)?), "{n} {every}");
            assert_eq!(values(&places.gather(&v)?), values(&v_kept), "{n} {every}");

            let rule = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.01, decay: Decay::Coupled, nesterov: true };
            for (grad, kept_grad) in grads.iter().zip(&kept_grads) {
                sgd_step(&p, grad, &m, Some(&mask), &rule)?;
                sgd_step_kept(&q, kept_grad, &m_kept, &places, &rule)?;
            }
            assert_eq!(values(&p), values(&q), "{n} {every}");
        }
    }
    Ok(())
}

#[test]
fn places_are_those_of_one_mask() -> Result<()> {
    let n = 100_000;
    let mask = |changed: usize| {
        Tensor::from_vec((0..n).map(|i| u8::from(i % 3 == 0 || i == changed)).collect::<Vec<_>>(), n, &Device::Cpu)
    };
    let places = KeptPlaces::new(&mask(n)?, n / 2)?.expect("a third is kept");
    assert!(places.are_of(&mask(0)?)?);
    for changed in [1, 63 * 64 + 1, n - 2, n - 3] {
        assert!(!places.are_of(&mask(changed)?)?, "{changed}");
    }
    assert!(!places.are_of(&mask(n)?.reshape((n / 2, 2))?)?);
    assert_eq!(KeptPlaces::new(&mask(n)?, n / 3)?, None);
    assert!(KeptPlaces::new(&mask(n)?.to_dtype(DType::F32)?, n).is_err());
    let other = KeptPlaces::new(
        &Tensor::from_vec((0..n).map(|i| u8::from(i % 7 < 3)).collect::<Vec<_>>(), n, &Device::Cpu)?,
        n,
    )?;
    let other = other.expect("all may be kept");
    let kept = noise32(5, &[places.n_kept()]);
    let moved = places.moved(&kept, &other)?;
    assert_eq!(values(&moved), values(&other.gather(&places.scatter(&kept)?)?));
    assert!(values(&moved).iter().any(|value| *value != 0.0));
    assert!(places.moved(&moved, &other).is_err());
    let (p, other) = (Var::zeros(n, DType::F32, &Device::Cpu)?, Var::zeros(n, DType::F32, &Device::Cpu)?);
    let error = adam_step_kept(&p, &p, &other, &other, &places, &adam(0.1, 0.0, 1)).unwrap_err().to_string();
    assert!(error.contains("`m`") && error.contains("33334"), "{error}");
    Ok(())
}
