//! The linear layer through candle: values, gradients, sparse against dense, threads.

use crate::common::{assert_close, assert_same_bits_on_threads, mask, noise, noise32, values};
use candle_core::{DType, Device, Result, Tensor, Var};
use lth_kernels::{InstructionSet, Kernel, PackedLinear, Pattern, linear};

#[test]
fn linear_layers_of_every_batch_are_the_product() -> Result<()> {
    // Few inputs; and so many that vectors run along them while the batch is small.
    for inputs in [37, 1200] {
        let mask = mask(3, &[10, inputs], 0.2);
        let keep = mask.to_dtype(DType::F32)?;
        let pattern = Pattern::new(&mask)?;
        let (weight, bias) = (noise32(2, &[10, inputs]), noise32(4, &[10]));
        let masked = (&weight * &keep)?;
        for batch in [1, 6, 32, 64] {
            let x = noise32(1, &[batch, inputs]);
            let expected = x.matmul(&masked.t()?)?.broadcast_add(&bias)?;
            assert_close(&linear(&x, &weight, Some(&bias), Some(&pattern))?, &expected, 2e-6);
            assert_close(&linear(&x, &masked, Some(&bias), None)?, &expected, 2e-6);
            let packed = PackedLinear::new(&weight, Some(&bias), Some(&pattern), false)?;
            assert_close(&packed.forward(&x)?, &expected, 2e-6);
        }
    }
    Ok(())
}

/// The output of a masked linear layer and both gradients, of the sum of its outputs times noise.
fn run_linear(x: &Tensor, weight: &Tensor, pattern: &Pattern) -> Result<[Tensor; 3]> {
    let (x, weight) = (Var::from_tensor(x)?, Var::from_tensor(weight)?);
    let y = linear(&x, &weight, None, Some(pattern))?;
    let cotangent = noise(77, y.dims()).to_dtype(y.dtype())?;
    let gradients = (&y * cotangent)?.sum_all()?.backward()?;
    let of = |var: &Var| gradients.get(var).expect("tracked").clone();
    Ok([y, of(&x), of(&weight)])
}

#[test]
fn masked_linear_layers_and_their_gradients_are_products_on_every_kernel() -> Result<()> {
    // Of `block` outputs beside each other all keep the same places.
    for (inputs, outputs, block, density) in
        [(37, 10, 1, 0.3), (300, 52, 1, 0.05), (90, 52, 4, 0.2), (70, 101, 1, 0.6), (1300, 20, 1, 0.1), (5, 3, 1, 0.0)]
    {
        let mask = mask(3, &[outputs / block, inputs], density);
        let mask = mask.unsqueeze(1)?.repeat((1, block, 1))?.reshape((outputs, inputs))?;
        let (pattern, keep) = (Pattern::new(&mask)?, mask.to_dtype(DType::F64)?);
        let weight = noise(2, &[outputs, inputs]);
        let masked = (&weight * &keep)?;
        for batch in [1, 2, 15, 16, 17, 60, 65, 130] {
            let (x, cotangent) = (noise(1, &[batch, inputs]), noise(77, &[batch, outputs]));
            let of_w = (cotangent.t()?.matmul(&x)? * &keep)?;
            let expected = [x.matmul(&masked.t()?)?, cotangent.matmul(&masked)?, of_w];
            for kernel in [Kernel::Dense, Kernel::Sparse] {
                for set in InstructionSet::ALL {
                    let run = |dtype, tolerance| -> Result<()> {
                        // What was pruned counts as 0, whatever is there.
                        let got = run_linear(&x.to_dtype(dtype)?, &weight.to_dtype(dtype)?, &pattern)?;
                        for (got, expected) in got.iter().zip(&expected) {
                            assert_close(got, expected, tolerance);
                        }
                        Ok(())
                    };
                    let all = || kernel.run(|| run(DType::F32, 2e-6).and_then(|()| run(DType::F64, 1e-13)));
                    set.run(all).transpose()?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn bits_of_linear_layers_do_not_depend_on_the_number_of_threads() -> Result<()> {
    let bits = || -> Result<Vec<u64>> {
        let (x, weight) = (noise32(1, &[60, 784]), noise32(2, &[100, 784]));
        let mut all = Vec::new();
        for density in [0.02, 0.1, 0.5] {
            let pattern = Pattern::new(&mask(3, &[100, 784], density))?;
            for kernel in [Kernel::Dense, Kernel::Sparse] {
                all.extend(kernel.run(|| run_linear(&x, &weight, &pattern))?);
            }
        }
        Ok(all.iter().flat_map(values).map(f64::to_bits).collect())
    };
    assert_same_bits_on_threads(bits)
}

#[test]
fn what_is_not_finite_reaches_the_samples_and_weights_of_a_linear_layer_that_meet_it() -> Result<()> {
    let (inputs, outputs, batch) = (90, 24, 21);
    let mask = mask(3, &[outputs, inputs], 0.2);
    let (pattern, keep) = (Pattern::new(&mask)?, values(&mask));
    let mut x = values(&noise32(1, &[batch, inputs]));
    let (sample, input) = (20, 7);
    x[sample * inputs + input] = f64::INFINITY;
    let x = Tensor::from_vec(x, (batch, inputs), &Device::Cpu)?.to_dtype(DType::F32)?;
    let weight = noise32(2, &[outputs, inputs]);
    for kernel in [Kernel::Dense, Kernel::Sparse] {
        for set in InstructionSet::ALL {
            let Some(got) = set.run(|| kernel.run(|| run_linear(&x, &weight, &pattern))) else { continue };
            let [y, of_x, of_w] = got?;
            for (at, value) in values(&y).into_iter().enumerate() {
                let meets = at / outputs == sample && keep[at % outputs * inputs + input] == 1.0;
                assert_eq!(value.is_finite(), !meets, "output {at}, {kernel}, {set:?}");
            }
            assert!(values(&of_x).iter().all(|value| value.is_finite()), "{kernel}, {set:?}");
            for (at, value) in values(&of_w).into_iter().enumerate() {
                let meets = at % inputs == input && keep[at] == 1.0;
                assert_eq!(value.is_finite(), !meets, "gradient {at}, {kernel}, {set:?}");
            }
        }
    }
    Ok(())
}
