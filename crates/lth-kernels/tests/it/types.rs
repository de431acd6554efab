//! Every public operator in every type against f64: outputs, gradients, and optimiser steps.

use crate::common::{noise, values};
use candle_core::{DType, Device, Result, Tensor, Var};
use lth_kernels::optim::{AdamStep, Decay, SgdStep, adam_step, sgd_step};
use lth_kernels::{
    BatchNormParams, Conv2dParams, Layout, Pattern, Pool2dParams, add_bias, add_bias_relu, avg_pool2d, batch_norm_eval,
    batch_norm_train, batch_norm_train_max_pool, concat, conv2d, cross_entropy, global_avg_pool, global_max_pool,
    linear, max_pool2d, multiply_by, relu, reshape, to_layout,
};
use proptest::prelude::*;
use std::slice::from_ref;

/// Each type and what one rounding to it, and f32 inside, leave of the largest value.
const TYPES: [(DType, f64); 4] =
    [(DType::F64, 1e-12), (DType::F32, 1e-5), (DType::F16, 0.6 / 1024.0), (DType::BF16, 0.6 / 128.0)];

/// Noise that every type holds exactly: multiples of 1/32 in [-1, 1].
fn exact(seed: u64, shape: &[usize]) -> Tensor {
    let round = |t: Tensor| (t * 32.0)?.round()? / 32.0;
    round(noise(seed, shape)).expect("f64 rounds")
}

fn assert_within(what: &str, dtype: DType, got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.dims(), expected.dims(), "{what} in {dtype:?}");
    let (got, expected) = (values(got), values(expected));
    let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        assert!((g - e).abs() <= tolerance * scale, "{what} in {dtype:?}, value {i}: got {g}, expected {e}");
    }
}

/// Output and gradients of `sum(f(inputs) · noise)`, computed in `dtype`.
fn run(inputs: &[Tensor], dtype: DType, f: &dyn Fn(&[Tensor]) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(&t.to_dtype(dtype)?)).collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors)?;
    assert_eq!(y.dtype(), dtype);
    let loss = (&y * exact(99, y.dims()).to_dtype(dtype)?)?.sum_all()?;
    let (ours, candles) = (lth_kernels::backward(&loss)?, loss.backward()?);
    let mut all = vec![y.detach()];
    for var in &vars {
        let gradient = candles.get(var).expect("every input has a gradient");
        assert_eq!(gradient.dtype(), dtype);
        assert_eq!(values(ours.get(var).expect("likewise")), values(gradient));
        all.push(gradient.clone());
    }
    Ok(all)
}

fn check(what: &str, inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Result<Tensor>) {
    let expected = run(inputs, DType::F64, f).expect("f64 runs");
    for (dtype, tolerance) in TYPES {
        let got = run(inputs, dtype, f).unwrap_or_else(|error| panic!("{what} in {dtype:?}: {error}"));
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let part = if i == 0 { "output".to_owned() } else { format!("gradient {}", i - 1) };
            assert_within(&format!("{what}, {part}"), dtype, got, expected, tolerance);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_operator_in_every_type_is_f64s(
        n in 1usize..40,
        c in 1usize..5,
        size in (2usize..9, 2usize..9),
        seed in 0u64..1000,
        chwn in any::<bool>(),
        sparse in any::<bool>(),
    ) {
        let layout = if chwn { Layout::Chwn } else { Layout::Nchw };
        let dims = if chwn { [c, size.0, size.1, n] } else { [n, c, size.0, size.1] };
        let x = exact(seed, &dims);
        let y = exact(seed + 1, &dims);
        let flat = exact(seed + 2, &[n, 7]);
        let vector = |s: u64, n: usize| exact(seed + s, &[n]);

        check("relu", from_ref(&x), &|t| relu(&t[0]));
        check("to_layout", from_ref(&x), &|t| to_layout(&t[0], layout, Layout::Chwn));
        check("multiply_by", from_ref(&x), &|t| multiply_by(&t[0], &y.to_dtype(t[0].dtype())?));
        check("concat", &[x.clone(), y.clone()], &|t| concat(&t[0], &t[1], 1));
        check("add_bias", &[flat.clone(), vector(3, 7)], &|t| add_bias(&t[0], &t[1], 1));
        let axis = layout.channel_axis();
        check("add_bias of maps", &[x.clone(), vector(3, c)], &|t| add_bias(&t[0], &t[1], axis));
        check("add_bias_relu", &[x.clone(), vector(3, c)], &|t| add_bias_relu(&t[0], &t[1], axis));
        check("reshape", from_ref(&x), &|t| reshape(&t[0], t[0].elem_count()));

        let pattern = |shape: &[usize]| -> Result<Option<Pattern>> {
            let mask = noise(seed + 4, shape).gt(0.0)?;
            sparse.then(|| Pattern::new(&mask)).transpose()
        };
        check("linear", &[flat.clone(), exact(seed + 5, &[6, 7]), vector(6, 6)], &|t| {
            linear(&t[0], &t[1], Some(&t[2]), pattern(&[6, 7])?.as_ref())
        });
        let conv = Conv2dParams { stride: (2, 1), padding: (1, 1), layout, ..Conv2dParams::default() };
        check("conv2d", &[x.clone(), exact(seed + 7, &[5, c, 3, 2])], &|t| {
            conv2d(&t[0], &t[1], pattern(&[5, c, 3, 2])?.as_ref(), &conv)
        });

        let pool = Pool2dParams { kernel: (2, 2), stride: (1, 2), padding: (1, 0), layout };
        check("max_pool2d", from_ref(&x), &|t| max_pool2d(&t[0], &pool));
        check("avg_pool2d", from_ref(&x), &|t| avg_pool2d(&t[0], &pool));
        check("global_max_pool", from_ref(&x), &|t| global_max_pool(&t[0], layout));
        check("global_avg_pool", from_ref(&x), &|t| global_avg_pool(&t[0], layout));

        // Rounding opens and closes a rectifier next to 0, and a small variance makes it large: neither here.
        let norm = BatchNormParams { eps: 0.1, layout, relu: false };
        check("batch_norm_train", &[x.clone(), vector(8, c), vector(9, c), y.clone()], &|t| {
            Ok(batch_norm_train(&t[0], &t[1], &t[2], Some(&t[3]), &norm)?.0)
        });
        for (dtype, tolerance) in TYPES {
            let one = Tensor::ones(c, dtype, &Device::Cpu).unwrap();
            let found = |dtype: DType, one: &Tensor| {
                batch_norm_train(&x.to_dtype(dtype).unwrap(), one, one, None, &norm).unwrap().1
            };
            let (got, expected) = (found(dtype, &one), found(DType::F64, &one.to_dtype(DType::F64).unwrap()));
            assert_within("mean", dtype, &got.mean, &expected.mean, tolerance);
            assert_within("variance", dtype, &got.var, &expected.var, tolerance);
        }
        check("batch_norm_train_max_pool", &[x.clone(), vector(8, c), vector(9, c)], &|t| {
            Ok(batch_norm_train_max_pool(&t[0], &t[1], &t[2], &norm, &pool)?.0)
        });
        let var = (vector(10, c).abs().unwrap() + 0.5).unwrap();
        check("batch_norm_eval", &[x.clone(), vector(8, c), vector(9, c), y.clone()], &|t| {
            let given = |v: &Tensor| v.to_dtype(t[0].dtype());
            batch_norm_eval(&t[0], &t[1], &t[2], &given(&vector(11, c))?, &given(&var)?, Some(&t[3]), &norm)
        });

        let targets = Tensor::from_iter((0..n as u32).map(|i| i % 7), &Device::Cpu).unwrap();
        check("cross_entropy", from_ref(&flat), &|t| cross_entropy(&t[0], &targets));
    }

    #[test]
    fn optimiser_steps_in_every_type_are_f64s(n in 1usize..50, seed in 0u64..1000, masked in any::<bool>(), nesterov in any::<bool>()) {
        let mask = masked.then(|| noise(seed + 4, &[n]).gt(0.0).unwrap());
        let squares = exact(seed + 3, &[n]).abs().unwrap();
        let stepped = |dtype: DType, adam: bool| -> Result<[Tensor; 3]> {
            let var = |s, t: Option<&Tensor>| {
                Var::from_tensor(&t.cloned().unwrap_or_else(|| exact(seed + s, &[n])).to_dtype(dtype)?)
            };
            let (p, m, v) = (var(0, None)?, var(1, None)?, var(2, Some(&squares))?);
            let grad = exact(seed + 5, &[n]).to_dtype(dtype)?;
            if adam {
                let decay = Decay::Coupled;
                let step = AdamStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-3, weight_decay: 0.1, decay, step: 3 };
                adam_step(&p, &grad, &m, &v, mask.as_ref(), &step)?;
            } else {
                let step = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.1, decay: Decay::Coupled, nesterov };
                sgd_step(&p, &grad, &m, mask.as_ref(), &step)?;
            }
            Ok([p, m, v].map(|var| var.as_tensor().clone()))
        };
        for adam in [true, false] {
            let expected = stepped(DType::F64, adam).unwrap();
            for (dtype, tolerance) in TYPES {
                for (got, expected) in stepped(dtype, adam).unwrap().iter().zip(&expected) {
                    assert_eq!(got.dtype(), dtype);
                    assert_within("a step", dtype, got, expected, tolerance);
                }
            }
        }
    }
}

#[test]
fn long_sums_of_half_types_are_right() -> Result<()> {
    for dtype in [DType::F16, DType::BF16] {
        let ones = |shape: &[usize]| Tensor::ones(shape, dtype, &Device::Cpu);
        let norm = |shape: &[usize], layout| -> Result<_> {
            let params = BatchNormParams { layout, ..BatchNormParams::default() };
            batch_norm_train(&ones(shape)?, &ones(&[1])?, &ones(&[1])?, None, &params)
        };
        for (shape, layout) in [([8, 1, 16, 16], Layout::Nchw), ([1, 16, 16, 8], Layout::Chwn)] {
            let (y, found) = norm(&shape, layout)?;
            assert!(values(&y).iter().all(|&v| v == 1.0), "{dtype:?}");
            assert_eq!((values(&found.mean), values(&found.var)), (vec![1.0], vec![0.0]), "{dtype:?}");
        }
        let logits = Tensor::zeros((512, 2), dtype, &Device::Cpu)?;
        let loss = cross_entropy(&logits, &Tensor::zeros(512, DType::U32, &Device::Cpu)?)?;
        assert!((values(&loss)[0] - std::f64::consts::LN_2).abs() < 2e-3, "{dtype:?}: {loss}");
        let window = Pool2dParams { kernel: (64, 64), stride: (1, 1), padding: (0, 0), layout: Layout::Nchw };
        assert_eq!(values(&avg_pool2d(&ones(&[1, 1, 64, 64])?, &window)?), [1.0], "{dtype:?}");
        assert_eq!(values(&global_avg_pool(&ones(&[1, 1, 64, 64])?, Layout::Nchw)?), [1.0], "{dtype:?}");
        // 1,024 times 1 is summed up for each gradient.
        let bias = Var::zeros(1, dtype, &Device::Cpu)?;
        let sum = add_bias(&ones(&[1024, 1])?, &bias, 1)?.sum_all()?;
        assert_eq!(values(sum.backward()?.get(&bias).expect("tracked")), [1024.0], "{dtype:?}");
        let weight = Var::zeros((1, 1, 1, 1), dtype, &Device::Cpu)?;
        let sum = conv2d(&ones(&[4, 1, 16, 16])?, &weight, None, &Conv2dParams::default())?.sum_all()?;
        assert_eq!(values(sum.backward()?.get(&weight).expect("tracked")), [1024.0], "{dtype:?}");
    }
    Ok(())
}

#[test]
fn nan_is_the_largest_in_every_type() -> Result<()> {
    for (dtype, _) in TYPES {
        for at in 0..3 {
            let mut v = [1f64, 3.0, 2.0];
            v[at] = f64::NAN;
            let x = Tensor::new(&v, &Device::Cpu)?.to_dtype(dtype)?;
            for layout in [Layout::Nchw, Layout::Chwn] {
                let x = match layout {
                    Layout::Nchw => x.reshape((1, 1, 1, 3))?,
                    Layout::Chwn => x.reshape((1, 1, 3, 1))?,
                };
                let window = Pool2dParams { kernel: (1, 3), stride: (1, 1), padding: (0, 0), layout };
                assert!(values(&max_pool2d(&x, &window)?)[0].is_nan(), "{dtype:?} {at} {layout:?}");
                assert!(values(&global_max_pool(&x, layout)?)[0].is_nan(), "{dtype:?} {at} {layout:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn types_that_differ_are_refused() -> Result<()> {
    let of = |shape: &[usize], dtype| Tensor::ones(shape, dtype, &Device::Cpu);
    let message = |r: Result<Tensor>| r.expect_err("refused").to_string();
    let (x, weight) = (of(&[1, 1, 2, 2], DType::BF16)?, of(&[1, 1, 1, 1], DType::F32)?);
    let conv = message(conv2d(&x, &weight, None, &Conv2dParams::default()));
    assert!(conv.contains("`weight` has type F32, expected bf16"), "{conv}");
    let product = message(linear(&of(&[1, 2], DType::F64)?, &of(&[3, 2], DType::F32)?, None, None));
    assert!(product.contains("`weight` has type F32, expected f64"), "{product}");
    Ok(())
}
