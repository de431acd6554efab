//! What follows a convolution, in its own pass: against the same in passes of its own, to the bit.

use crate::common::{mask, noise, noise32, values};
use candle_core::{DType, Device, Result, Tensor, Var};
use lth_kernels::{
    Conv2dParams, InstructionSet, Kernel, Layout, PackedConv2d, Pattern, add_bias_relu, backward_kept, conv2d,
    conv2d_bias_relu, cross_entropy, global_avg_pool, to_layout,
};

const KERNELS: [Kernel; 4] = [Kernel::Dense, Kernel::Sparse, Kernel::Compact, Kernel::Winograd];
const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::Chwn];

/// Bits, and one pattern for what is no number.
fn bits(tensor: &Tensor) -> Vec<u64> {
    values(tensor).into_iter().map(|v| if v.is_nan() { f64::NAN } else { v }.to_bits()).collect()
}

/// The bits of the output and of the gradients of input, weight and bias, of the sum of the outputs times noise.
fn all_bits(of: &[Tensor; 3], convolve: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>) -> Result<Vec<Vec<u64>>> {
    let [x, weight, bias] = [Var::from_tensor(&of[0])?, Var::from_tensor(&of[1])?, Var::from_tensor(&of[2])?];
    let y = convolve(&x, &weight, &bias)?;
    let gradients = (&y * noise(9, y.dims()).to_dtype(y.dtype())?)?.sum_all()?.backward()?;
    let gradient = |var: &Var| bits(gradients.get(var).expect("tracked"));
    Ok(vec![bits(&y), gradient(&x), gradient(&weight), gradient(&bias)])
}

/// [`noise`] with `bad` in two places.
fn spoilt(tensor: &Tensor, bad: f64) -> Result<Tensor> {
    let mut all = values(tensor);
    let len = all.len();
    (all[len / 3], all[len - 1]) = (bad, bad);
    Tensor::from_vec(all, tensor.dims(), &Device::Cpu)?.to_dtype(tensor.dtype())
}

/// A mask of `[O, I, 3, 3]` without the first filter.
fn without_a_filter(shape: [usize; 4]) -> Result<Tensor> {
    let mask = mask(3, &shape, 0.4);
    Tensor::cat(&[mask.narrow(0, 0, 1)?.zeros_like()?, mask.narrow(0, 1, shape[0] - 1)?], 0)
}

#[test]
fn bias_and_rectifier_give_the_bits_of_passes_of_their_own() -> Result<()> {
    for (shape, groups) in [([16, 6, 3, 3], 1), ([18, 3, 3, 3], 2)] {
        let mask = without_a_filter(shape)?;
        for batch in [3, 37] {
            for dtype in [DType::F32, DType::F64] {
                let x = noise(1, &[batch, shape[1] * groups, 7, 9]).to_dtype(dtype)?;
                let weight = noise(2, &shape).to_dtype(dtype)?;
                let bias = noise(4, &shape[..1]).to_dtype(dtype)?;
                let inputs = [
                    [x.clone(), weight.clone(), bias.clone()],
                    [spoilt(&x, f64::INFINITY)?, weight.clone(), bias.clone()],
                    [x.clone(), spoilt(&weight, f64::NAN)?, bias.clone()],
                    [x.clone(), weight.clone(), spoilt(&bias, f64::NEG_INFINITY)?],
                    // Negative zeros.
                    [x.zeros_like()?, weight.clone(), bias.zeros_like()?.neg()?],
                ];
                for pattern in [None, Some(Pattern::new(&mask)?)] {
                    for layout in LAYOUTS {
                        let params = Conv2dParams { padding: (1, 1), groups, layout, ..Conv2dParams::default() };
                        let fused = |x: &Tensor, weight: &Tensor, bias: &Tensor| {
                            let x = to_layout(x, Layout::Nchw, layout)?;
                            conv2d_bias_relu(&x, weight, bias, pattern.as_ref(), &params)
                        };
                        let apart = |x: &Tensor, weight: &Tensor, bias: &Tensor| {
                            let x = to_layout(x, Layout::Nchw, layout)?;
                            let y = conv2d(&x, weight, pattern.as_ref(), &params)?;
                            add_bias_relu(&y, bias, layout.channel_axis())
                        };
                        for (which, inputs) in inputs.iter().enumerate() {
                            for kernel in KERNELS {
                                for set in InstructionSet::ALL {
                                    let run = || {
                                        kernel.run(|| {
                                            Ok::<_, candle_core::Error>((
                                                all_bits(inputs, fused)?,
                                                all_bits(inputs, apart)?,
                                            ))
                                        })
                                    };
                                    let Some((fused, apart)) = set.run(run).transpose()? else { continue };
                                    assert!(
                                        fused == apart,
                                        "{kernel}, {set:?}, {layout:?}, batch {batch}, inputs {which}, masked {}",
                                        pattern.is_some()
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn inference_adds_bias_and_residual_to_the_bits_of_the_convolution() -> Result<()> {
    let params = Conv2dParams { padding: (1, 1), layout: Layout::Chwn, ..Conv2dParams::default() };
    let (shape, maps) = ([20, 8, 3, 3], [8, 7, 9, 33]);
    let (weight, bias, residual) = (noise32(2, &shape), noise32(4, &[20]), noise32(5, &[20, 7, 9, 33]));
    let mask = without_a_filter(shape)?;
    for x in [noise32(1, &maps), spoilt(&noise32(1, &maps), f64::INFINITY)?] {
        for pattern in [None, Some(Pattern::new(&mask)?)] {
            for (bias, residual) in [(None, Some(&residual)), (Some(&bias), None), (Some(&bias), Some(&residual))] {
                for kernel in [Kernel::Dense, Kernel::Winograd] {
                    for set in InstructionSet::ALL {
                        let run = || {
                            kernel.run(|| {
                                let packed = PackedConv2d::new(&weight, bias, pattern.as_ref(), true, &params)?;
                                let apart = conv2d(&x, &weight, pattern.as_ref(), &params)?;
                                Ok::<_, candle_core::Error>((packed.forward(&x, residual)?, apart))
                            })
                        };
                        let Some((fused, y)) = set.run(run).transpose()? else { continue };
                        let y = match bias {
                            Some(bias) => y.broadcast_add(&bias.reshape((20, 1, 1, 1))?)?,
                            None => y,
                        };
                        let y = residual.map_or(Ok(y.clone()), |residual| &y + residual)?;
                        // NaN stays.
                        let expected: Vec<f64> =
                            values(&y).into_iter().map(|v| if v <= 0.0 { 0.0 } else { v }).collect();
                        let expected = Tensor::from_vec(expected, y.dims(), &Device::Cpu)?;
                        assert!(bits(&fused) == bits(&expected), "{kernel}, {set:?}");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_of_kept_weights_alone_are_those_of_passes_of_their_own() -> Result<()> {
    let params = Conv2dParams { padding: (1, 1), ..Conv2dParams::default() };
    let pattern = Pattern::new(&mask(3, &[16, 16, 3, 3], 0.1))?;
    let (x, labels) = (noise32(1, &[32, 16, 8, 8]), Tensor::new(&[3u32; 32], &Device::Cpu)?);
    let kept = |is_fused: bool| {
        let weight = Var::from_tensor(&noise32(2, &[16, 16, 3, 3]))?;
        let bias = Var::from_tensor(&noise32(4, &[16]))?;
        let y = match is_fused {
            true => conv2d_bias_relu(&x, &weight, &bias, Some(&pattern), &params)?,
            false => add_bias_relu(&conv2d(&x, &weight, Some(&pattern), &params)?, &bias, 1)?,
        };
        let gradients = backward_kept(&cross_entropy(&global_avg_pool(&y, Layout::Nchw)?, &labels)?)?;
        let (_, of_kept) = gradients.kept(&weight).expect("the sparse kernels have it so");
        Ok::<_, candle_core::Error>((bits(of_kept), bits(gradients.get(&bias).expect("tracked"))))
    };
    assert!(kept(true)? == kept(false)?);
    Ok(())
}

#[test]
fn a_bias_that_does_not_fit_is_refused() -> Result<()> {
    let (x, weight) = (noise32(1, &[16, 2, 4, 4]), noise32(2, &[5, 2, 3, 3]));
    let refused = |bias: &Tensor| {
        conv2d_bias_relu(&x, &weight, bias, None, &Conv2dParams::default()).expect_err("refused").to_string()
    };
    let shape = refused(&noise32(3, &[4]));
    assert!(shape.contains("`bias` has shape [4], expected [5]"), "{shape}");
    let dtype = refused(&noise(3, &[5]));
    assert!(dtype.contains("bias") && dtype.contains("F64"), "{dtype}");
    Ok(())
}
