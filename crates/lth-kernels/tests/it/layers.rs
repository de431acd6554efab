//! Batch norm, rectifier, loss and linear layer against direct formulas and finite differences.

use crate::common::{assert_close, assert_gradients, noise, noise32, values};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use lth_kernels::{
    BatchNormParams, Conv2dParams, Layout, Pattern, Pool2dParams, add_bias, add_bias_relu, batch_norm_eval,
    batch_norm_train, batch_norm_train_max_pool, concat, conv2d, cross_entropy, linear, max_pool2d, multiply_by, relu,
    reshape, smoothed_cross_entropy, to_layout,
};

const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::Chwn];

/// Batch norm of an [N, C, ...] input by loops in f64: output, mean, unbiased variance.
fn naive_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    params: &BatchNormParams,
) -> Result<(Tensor, Vec<f64>, Vec<f64>)> {
    let (n, c) = (x.dim(0)?, x.dim(1)?);
    let area = x.elem_count() / (n * c);
    let (v, weight, bias) = (values(x), values(weight), values(bias));
    let residual = residual.map(values);
    let mut out = vec![0.0; v.len()];
    let (mut means, mut vars) = (Vec::new(), Vec::new());
    for ch in 0..c {
        let at: Vec<usize> = (0..n).flat_map(|i| (0..area).map(move |a| (i * c + ch) * area + a)).collect();
        let count = at.len() as f64;
        let mean = at.iter().map(|&i| v[i]).sum::<f64>() / count;
        let squares = at.iter().map(|&i| (v[i] - mean).powi(2)).sum::<f64>();
        for &i in &at {
            let y = (v[i] - mean) / (squares / count + params.eps).sqrt() * weight[ch] + bias[ch];
            let y = y + residual.as_ref().map_or(0.0, |r| r[i]);
            out[i] = if params.relu { y.max(0.0) } else { y };
        }
        means.push(mean);
        vars.push(squares / (count - 1.0));
    }
    Ok((Tensor::from_vec(out, x.dims(), &Device::Cpu)?, means, vars))
}

const SHAPES: [[usize; 4]; 6] = [[2, 3, 4, 5], [1, 2, 3, 1], [17, 4, 1, 1], [64, 2, 9, 9], [2, 1, 1, 1], [3, 40, 7, 5]];

#[test]
fn batch_norm_is_the_formula() -> Result<()> {
    for shape in SHAPES {
        for (layout, dtype) in LAYOUTS.into_iter().flat_map(|l| [(l, DType::F32), (l, DType::F64)]) {
            for (with_relu, with_residual) in [(false, false), (true, false), (false, true), (true, true)] {
                let params = BatchNormParams { layout, relu: with_relu, ..Default::default() };
                let x = ((noise32(1, &shape) * 3.0)? + 10.0)?.to_dtype(dtype)?;
                let weight = noise32(2, &[shape[1]]).to_dtype(dtype)?;
                let bias = noise32(3, &[shape[1]]).to_dtype(dtype)?;
                let residual = noise32(4, &shape).to_dtype(dtype)?;
                let moved = |t: &Tensor| to_layout(t, Layout::Nchw, layout);
                let r = with_residual.then_some(&residual);
                let (expected, mean, var) = naive_norm(&x, &weight, &bias, r, &params)?;
                let r = r.map(moved).transpose()?;
                let (y, stats) = batch_norm_train(&moved(&x)?, &weight, &bias, r.as_ref(), &params)?;
                // f32 inputs around 10 carry 1e-6 of rounding, which a small variance magnifies.
                assert_close(&to_layout(&y, layout, Layout::Nchw)?, &expected, 1e-4);
                for (got, expected) in [(&stats.mean, mean), (&stats.var, var)] {
                    let expected = Tensor::from_vec(expected, shape[1], &Device::Cpu)?;
                    assert_close(got, &expected, 1e-6);
                    assert!(!got.track_op());
                }
                // The same statistics (biased) in evaluation give the same output.
                let count = (x.elem_count() / shape[1]) as f64;
                let var = (&stats.var * ((count - 1.0) / count))?;
                let eval = batch_norm_eval(&moved(&x)?, &weight, &bias, &stats.mean, &var, r.as_ref(), &params)?;
                assert_close(&eval, &y, 1e-5);
            }
        }
    }
    Ok(())
}

#[test]
fn batch_norm_with_a_max_pool_is_one_after_the_other() -> Result<()> {
    for shape in [[2, 3, 4, 5], [64, 2, 9, 9], [3, 40, 7, 5], [33, 5, 16, 16]] {
        for (layout, dtype) in LAYOUTS.into_iter().flat_map(|l| [(l, DType::F32), (l, DType::F64)]) {
            for with_relu in [false, true] {
                let params = BatchNormParams { layout, relu: with_relu, ..Default::default() };
                let pool = Pool2dParams { kernel: (3, 2), stride: (2, 1), padding: (1, 0), layout };
                let var = |t: Tensor| Var::from_tensor(&t.to_dtype(dtype)?);
                let x = var(to_layout(&noise32(1, &shape), Layout::Nchw, layout)?)?;
                let (weight, bias) = (var(noise32(2, &[shape[1]]))?, var(noise32(3, &[shape[1]]))?);
                let (expected, expected_stats) = batch_norm_train(&x, &weight, &bias, None, &params)?;
                let expected = max_pool2d(&expected, &pool)?;
                let (got, stats) = batch_norm_train_max_pool(&x, &weight, &bias, &params, &pool)?;
                assert_close(&got, &expected, 1e-6);
                assert_close(&stats.mean, &expected_stats.mean, 1e-6);
                assert_close(&stats.var, &expected_stats.var, 1e-6);
                let factors = noise32(4, got.dims()).to_dtype(dtype)?;
                let gradients = |y: &Tensor| (y * &factors)?.sum_all()?.backward();
                let (expected, got) = (gradients(&expected)?, gradients(&got)?);
                for var in [&x, &weight, &bias] {
                    let of = |store: &GradStore| store.get(var).cloned().expect("a gradient");
                    assert_close(&of(&got), &of(&expected), 1e-5);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn variance_survives_a_large_mean() -> Result<()> {
    // One-pass sums of squares in f32 lose everything here: the mean is 1000 deviations off.
    let x = (noise32(5, &[64, 3, 16, 16]) + 1000.0)?;
    let ones = Tensor::ones(3, DType::F32, &Device::Cpu)?;
    for layout in LAYOUTS {
        let params = BatchNormParams { layout, ..Default::default() };
        let (_, mean, var) = naive_norm(&x, &ones, &ones, None, &params)?;
        let moved = to_layout(&x, Layout::Nchw, layout)?;
        let (_, stats) = batch_norm_train(&moved, &ones, &ones, None, &params)?;
        for (got, expected) in values(&stats.mean).iter().zip(mean) {
            assert!((got / expected - 1.0).abs() < 1e-6, "mean {got}, expected {expected}");
        }
        for (got, expected) in values(&stats.var).iter().zip(var) {
            assert!((got / expected - 1.0).abs() < 1e-4, "variance {got}, expected {expected}");
        }
    }
    Ok(())
}

#[test]
fn batch_norm_gradients_are_the_differences() {
    for shape in [[2, 3, 2, 2], [3, 2, 1, 1], [1, 2, 3, 1], [17, 1, 2, 1]] {
        for layout in LAYOUTS {
            for with_relu in [false, true] {
                let params = BatchNormParams { layout, relu: with_relu, ..Default::default() };
                let c = shape[1];
                let moved = |t: &Tensor| to_layout(t, Layout::Nchw, layout);
                let vectors = [noise(2, &[c]), noise(3, &[c])];
                let (mean, var) = (noise(4, &[c]), (noise(5, &[c]) + 1.5).expect("adds"));
                let mut inputs = vec![noise(1, &shape)];
                inputs.extend(vectors);
                assert_gradients(&inputs, |t| Ok(batch_norm_train(&moved(&t[0])?, &t[1], &t[2], None, &params)?.0));
                assert_gradients(&inputs, |t| {
                    batch_norm_eval(&moved(&t[0])?, &t[1], &t[2], &mean, &var, None, &params)
                });
                inputs.push(noise(6, &shape));
                assert_gradients(&inputs, |t| {
                    let r = moved(&t[3])?;
                    Ok(batch_norm_train(&moved(&t[0])?, &t[1], &t[2], Some(&r), &params)?.0)
                });
                assert_gradients(&inputs, |t| {
                    let (x, r) = (moved(&t[0])?, moved(&t[3])?);
                    batch_norm_eval(&x, &t[1], &t[2], &mean, &var, Some(&r), &params)
                });
            }
        }
    }
}

#[test]
fn batch_norm_takes_samples_by_features() -> Result<()> {
    let x = noise(1, &[6, 5]);
    let (weight, bias) = (noise(2, &[5]), noise(3, &[5]));
    let params = BatchNormParams::default();
    let (expected, ..) = naive_norm(&x, &weight, &bias, None, &params)?;
    assert_close(&batch_norm_train(&x, &weight, &bias, None, &params)?.0, &expected, 1e-12);
    assert_gradients(&[x, weight, bias], |t| Ok(batch_norm_train(&t[0], &t[1], &t[2], None, &params)?.0));
    Ok(())
}

#[test]
fn only_the_gradients_asked_for_are_computed() -> Result<()> {
    let shape = [4, 3, 2, 2];
    let tensors = [noise32(1, &shape), noise32(2, &[3]), noise32(3, &[3]), noise32(4, &shape)];
    for asked in 1..16usize {
        let vars: Vec<Var> = tensors.iter().map(Var::from_tensor).collect::<Result<_>>()?;
        let t: Vec<Tensor> = (0..4)
            .map(|i| if asked & (1 << i) != 0 { vars[i].as_tensor().clone() } else { vars[i].detach() })
            .collect();
        let params = BatchNormParams { relu: true, ..Default::default() };
        let (y, _) = batch_norm_train(&t[0], &t[1], &t[2], Some(&t[3]), &params)?;
        let gradients = y.sqr()?.sum_all()?.backward()?;
        for (i, var) in vars.iter().enumerate() {
            assert_eq!(gradients.get(var).is_some(), asked & (1 << i) != 0, "input {i} of {asked}");
        }
    }
    Ok(())
}

#[test]
fn one_value_per_channel_is_refused() -> Result<()> {
    let c = noise32(1, &[3]);
    for shape in [vec![1, 3, 1, 1], vec![1, 3], vec![0, 3, 2, 2]] {
        let result = batch_norm_train(&noise32(1, &shape), &c, &c, None, &Default::default());
        let message = result.expect_err("refused").to_string();
        assert!(message.contains("value(s) per channel"), "{message}");
    }
    let wrong = batch_norm_train(&noise32(1, &[2, 4]), &c, &c, None, &Default::default());
    let message = wrong.expect_err("refused").to_string();
    assert!(message.contains("`weight` has shape [3], expected [4]"), "{message}");
    Ok(())
}

#[test]
fn relu_has_gradient_zero_at_zero_and_keeps_nan() -> Result<()> {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let x = [-1.0f32, -0.0, 0.0, 2.0, f32::INFINITY, f32::NEG_INFINITY, 1e-40];
        let x = Var::from_tensor(&Tensor::new(&x, &Device::Cpu)?.to_dtype(dtype)?)?;
        let y = relu(&x)?;
        assert_eq!(values(&y)[..6], [0.0, 0.0, 0.0, 2.0, f64::INFINITY, 0.0]);
        let gradients = (y * 3.0)?.sum_all()?.backward()?;
        let dx = values(gradients.get(&x).expect("tracked"));
        assert_eq!(dx[..6], [0.0, 0.0, 0.0, 3.0, 3.0, 0.0]);
    }
    let nan = relu(&Tensor::new(&[f32::NAN], &Device::Cpu)?)?;
    assert!(nan.to_vec1::<f32>()?[0].is_nan());
    assert_eq!(relu(&Tensor::zeros((0, 3), DType::F32, &Device::Cpu)?)?.dims(), [0, 3]);
    Ok(())
}

#[test]
fn cross_entropy_is_the_formula_and_stable() -> Result<()> {
    let targets = Tensor::new(&[2u32, 0, 1], &Device::Cpu)?;
    let logits = noise(1, &[3, 4]);
    let expected = candle_nn::loss::cross_entropy(&logits, &targets)?;
    assert_close(&cross_entropy(&logits, &targets)?, &expected, 1e-12);
    let signed = targets.to_dtype(DType::I64)?;
    assert_close(&cross_entropy(&logits, &signed)?, &expected, 1e-12);
    assert_gradients(&[logits], |t| cross_entropy(&t[0], &targets));
    let huge = Var::new(&[[1e30f32, 0.0], [-1e4, 1e4]], &Device::Cpu)?;
    let loss = cross_entropy(&huge, &Tensor::new(&[0u32, 0], &Device::Cpu)?)?;
    assert_eq!(loss.to_scalar::<f32>()?, 1e4);
    let gradients = loss.backward()?;
    let dx = gradients.get(&huge).expect("tracked").to_vec2::<f32>()?;
    assert_eq!(dx, [[0.0, 0.0], [-0.5, 0.5]]);
    Ok(())
}

#[test]
fn label_smoothing_is_pytorchs_formula() -> Result<()> {
    // PyTorch: the mean over the batch of −Σ q·log p with q = (1 − ε)·[class is the target] + ε / K.
    let (targets, logits) = (Tensor::new(&[2u32, 0, 1], &Device::Cpu)?, noise(1, &[3, 4]));
    let (rows, classes) = (logits.to_vec2::<f64>()?, targets.to_vec1::<u32>()?);
    for smoothing in [0.0, 0.1, 1.0] {
        let mut expected = 0.0;
        for (row, target) in rows.iter().zip(&classes) {
            let log_sum = row.iter().map(|v| v.exp()).sum::<f64>().ln();
            for (class, logit) in row.iter().enumerate() {
                let hit = f64::from(u8::from(class == *target as usize));
                expected -= ((1.0 - smoothing) * hit + smoothing / 4.0) * (logit - log_sum) / 3.0;
            }
        }
        let got = smoothed_cross_entropy(&logits, &targets, smoothing)?;
        assert_close(&got, &Tensor::new(expected, &Device::Cpu)?, 1e-12);
        assert_gradients(std::slice::from_ref(&logits), |t| smoothed_cross_entropy(&t[0], &targets, smoothing));
    }
    let plain = cross_entropy(&logits, &targets)?.to_scalar::<f64>()?;
    assert_eq!(smoothed_cross_entropy(&logits, &targets, 0.0)?.to_scalar::<f64>()?.to_bits(), plain.to_bits());
    let message = smoothed_cross_entropy(&logits, &targets, 1.5).expect_err("no fraction").to_string();
    assert!(message.contains("label smoothing is 1.5, expected a number in [0, 1]"), "{message}");
    Ok(())
}

#[test]
fn cross_entropy_names_a_wrong_target() -> Result<()> {
    let logits = noise32(1, &[2, 3]);
    let message = |r: Result<Tensor>| r.expect_err("refused").to_string();
    let large = message(cross_entropy(&logits, &Tensor::new(&[0u32, 3], &Device::Cpu)?));
    assert!(large.contains("target 1 is 3"), "{large}");
    let negative = message(cross_entropy(&logits, &Tensor::new(&[0i64, -1], &Device::Cpu)?));
    assert!(negative.contains("target 1 is -1"), "{negative}");
    let none = message(cross_entropy(&noise32(1, &[0, 3]), &Tensor::zeros(0, DType::U32, &Device::Cpu)?));
    assert!(none.contains("is empty"), "{none}");
    Ok(())
}

#[test]
fn linear_and_convolution_ignore_pruned_weights() -> Result<()> {
    let mask = Tensor::new(&[[1u8, 0, 1], [0, 0, 1]], &Device::Cpu)?;
    let pattern = Pattern::new(&mask)?;
    assert_eq!(pattern.density(), 0.5);
    let keep = mask.to_dtype(DType::F64)?;
    let (x, weight, bias) = (noise(1, &[4, 3]), noise(2, &[2, 3]), noise(3, &[2]));
    let expected = x.matmul(&(&weight * &keep)?.t()?)?.broadcast_add(&bias)?;
    assert_close(&linear(&x, &weight, Some(&bias), Some(&pattern))?, &expected, 1e-12);
    assert_gradients(&[x, weight.clone(), bias], |t| linear(&t[0], &t[1], Some(&t[2]), Some(&pattern)));
    let pattern = Pattern::new(&mask.reshape((2, 3, 1, 1))?)?;
    let weight = Var::from_tensor(&weight.reshape((2, 3, 1, 1))?)?;
    let x = noise(4, &[2, 3, 4, 4]);
    let y = conv2d(&x, &weight, Some(&pattern), &Conv2dParams::default())?;
    let dense = (weight.as_tensor() * keep.reshape((2, 3, 1, 1))?)?;
    assert_close(&y, &x.conv2d(&dense, 0, 1, 1, 1)?, 1e-12);
    let gradients = y.sqr()?.sum_all()?.backward()?;
    let dw = values(gradients.get(&weight).expect("tracked"));
    for (gradient, bit) in dw.iter().zip(values(&keep)) {
        assert_eq!(*gradient != 0.0, bit != 0.0);
    }
    Ok(())
}

#[test]
fn convolution_gradients_are_the_differences_where_candles_fail() {
    let params = |stride, padding, dilation, groups, layout| Conv2dParams { stride, padding, dilation, groups, layout };
    for layout in LAYOUTS {
        for (shape, weight, p) in [
            ([1, 2, 7, 8], [3, 2, 3, 3], params((2, 2), (1, 1), (1, 1), 1, layout)),
            ([2, 2, 5, 4], [2, 1, 2, 3], params((2, 1), (0, 1), (1, 1), 2, layout)),
            ([1, 1, 9, 6], [2, 1, 3, 2], params((3, 3), (2, 0), (2, 2), 1, layout)),
        ] {
            assert_gradients(&[noise(1, &shape), noise(2, &weight)], |t| {
                let x = to_layout(&t[0], Layout::Nchw, layout)?;
                conv2d(&x, &t[1], None, &p)
            });
        }
    }
}

#[test]
fn concatenation_product_and_bias_are_candles_with_the_gradients_of_differences() -> Result<()> {
    let (a, b) = (noise(1, &[3, 2, 4]), noise(2, &[3, 5, 4]));
    assert_close(&concat(&a, &b, 1)?, &Tensor::cat(&[&a, &b], 1)?, 0.0);
    assert_gradients(&[a.clone(), b.clone()], |t| concat(&t[0], &t[1], 1));
    assert_gradients(&[a.clone(), noise(3, &[1, 2, 4])], |t| concat(&t[0], &t[1], 0));
    let factor = noise(4, &[3, 2, 4]);
    assert_close(&multiply_by(&a, &factor)?, &(&a * &factor)?, 0.0);
    assert_gradients(std::slice::from_ref(&a), |t| multiply_by(&t[0], &factor));
    let (rows, bias) = (noise(5, &[6, 3]), noise(6, &[3]));
    assert_close(&add_bias(&rows, &bias, 1)?, &rows.broadcast_add(&bias)?, 0.0);
    assert_close(&add_bias_relu(&rows, &bias, 1)?, &relu(&add_bias(&rows, &bias, 1)?)?, 0.0);
    assert_gradients(&[rows.clone(), bias.clone()], |t| add_bias_relu(&t[0], &t[1], 1));
    assert_gradients(&[rows, bias.clone()], |t| add_bias(&t[0], &t[1], 1));
    // Short rows and long ones, channels first and in between.
    for (shape, axis) in [([2, 3, 2, 2], 1), ([2, 3, 9, 8], 1), ([3, 2, 2, 3], 0), ([3, 5, 4, 7], 0), ([2, 2, 2, 3], 3)]
    {
        let maps = noise(7, &shape);
        let mut broadcast = [1; 4];
        broadcast[axis] = 3;
        let expected = maps.broadcast_add(&bias.reshape(&broadcast)?)?;
        assert_close(&add_bias(&maps, &bias, axis)?, &expected, 0.0);
        assert_close(&add_bias_relu(&maps, &bias, axis)?, &relu(&expected)?, 0.0);
        assert_gradients(&[maps.clone(), bias.clone()], |t| add_bias_relu(&t[0], &t[1], axis));
        assert_gradients(&[maps, bias.clone()], |t| add_bias(&t[0], &t[1], axis));
    }
    // In one pass and in two, rows of several pieces: the same bits.
    let (maps, bias) = (noise32(8, &[3, 5, 70, 67]), noise32(9, &[5]));
    let of = |f: &dyn Fn(&Tensor, &Tensor) -> Result<Tensor>| -> Result<Vec<Vec<f64>>> {
        let [maps, bias] = [Var::from_tensor(&maps)?, Var::from_tensor(&bias)?];
        let y = f(&maps, &bias)?;
        let gradients = (&y * noise32(10, y.dims()))?.sum_all()?.backward()?;
        let gradient = |of: &Tensor| values(gradients.get(of).expect("tracked"));
        Ok(vec![values(&y), gradient(&maps), gradient(&bias)])
    };
    assert_eq!(of(&|x, b| add_bias_relu(x, b, 1))?, of(&|x, b| relu(&add_bias(x, b, 1)?))?);
    assert_gradients(std::slice::from_ref(&a), |t| reshape(&t[0], (4, 6)));
    assert_gradients(std::slice::from_ref(&a), |t| reshape(&t[0].transpose(0, 1)?, (6, 4)));
    let message = |r: Result<Tensor>| r.expect_err("refused").to_string();
    let wrong = message(concat(&a, &b, 0));
    assert!(wrong.contains("`b` has shape [3, 5, 4], expected [3, 2, 4]"), "{wrong}");
    let axis = message(concat(&a, &b, 3));
    assert!(axis.contains("expected rank"), "{axis}");
    Ok(())
}

#[test]
fn squares_beyond_f32_do_not_overflow() -> Result<()> {
    // PyTorch: torch.batch_norm of ±2e19 in float32 gives ±1 and no infinity.
    for size in [2e19f32, 3e37] {
        for (shape, layout) in [([4, 1, 8, 9], Layout::Nchw), ([1, 8, 9, 4], Layout::Chwn)] {
            let signs: Vec<f32> = (0..4 * 8 * 9).map(|i| if i % 2 == 0 { size } else { -size }).collect();
            let x = Var::from_vec(signs, shape.as_slice(), &Device::Cpu)?;
            let (weight, bias) = (Var::ones(1, DType::F32, &Device::Cpu)?, Var::zeros(1, DType::F32, &Device::Cpu)?);
            let params = BatchNormParams { layout, ..BatchNormParams::default() };
            let (y, found) = batch_norm_train(&x, &weight, &bias, None, &params)?;
            assert_eq!(values(&found.mean), [0.0]);
            let expected = (x.as_tensor() / f64::from(size))?;
            assert_close(&y, &expected, 1e-6);
            let gradients = (&y * &expected)?.sum_all()?.backward()?;
            assert_close(gradients.get(&weight).expect("tracked"), &Tensor::new(&[288f32], &Device::Cpu)?, 1e-6);
            assert!(values(gradients.get(&x).expect("tracked")).iter().all(|v| v.is_finite()));
        }
    }
    // No number stays none.
    let x = Tensor::new(&[[1f32], [f32::NAN], [3.0]], &Device::Cpu)?;
    let one = Tensor::ones(1, DType::F32, &Device::Cpu)?;
    let (y, found) = batch_norm_train(&x, &one, &one, None, &BatchNormParams::default())?;
    assert!(values(&y).iter().chain(&values(&found.var)).all(|v| v.is_nan()));
    Ok(())
}
