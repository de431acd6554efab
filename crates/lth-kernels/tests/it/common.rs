//! Tensors from a formula, comparisons, and gradients by finite differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use std::collections::HashMap;

/// Values in [-1, 1) that depend on `seed` and the position only.
pub(crate) fn noise(seed: u64, shape: &[usize]) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product::<usize>() as u64)
        .map(|i| {
            let mut z = (seed << 32).wrapping_add(i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 40) as f64 / (1u64 << 23) as f64 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("the shape has as many values")
}

/// [`noise`] as f32.
pub(crate) fn noise32(seed: u64, shape: &[usize]) -> Tensor {
    noise(seed, shape).to_dtype(DType::F32).expect("f64 converts to f32")
}

/// A mask of `shape` that keeps about the fraction `density`.
pub(crate) fn mask(seed: u64, shape: &[usize], density: f64) -> Tensor {
    let bits = values(&noise(seed, shape)).into_iter().map(|v| u8::from((v + 1.0) / 2.0 < density)).collect();
    Tensor::from_vec::<_, u8>(bits, shape, &Device::Cpu).expect("the shape has as many values")
}

/// Fails unless `bits` gives the same on one thread, two, four and five.
pub(crate) fn assert_same_bits_on_threads(bits: impl Fn() -> Result<Vec<u64>> + Sync) -> Result<()> {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads start").install(&bits)
    };
    let one = on(1)?;
    for threads in [2, 4, 5] {
        assert!(one == on(threads)?, "{threads} threads");
    }
    Ok(())
}

/// A file of `tests/golden`.
pub(crate) fn golden(name: &str) -> Result<HashMap<String, Tensor>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    candle_core::safetensors::load(format!("{path}/{name}.safetensors"), &Device::Cpu)
}

/// All values in row-major order.
pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.flatten_all().and_then(|t| t.to_dtype(DType::F64)?.to_vec1()).expect("a float tensor converts to f64")
}

/// Fails unless shapes are equal and values differ by at most `tolerance` times the larger of 1
/// and the largest value expected.
#[track_caller]
pub(crate) fn assert_close(got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.dims(), expected.dims(), "shapes");
    let (got, expected) = (values(got), values(expected));
    let scale = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        let same = g == e || (g - e).abs() <= tolerance * scale || (g.is_nan() && e.is_nan());
        assert!(same, "value {i}: got {g}, expected {e} (scale {scale})");
    }
}

/// Fails unless every gradient of `sum(f(inputs) · noise)` is the one of central differences.
/// Inputs are f64; 1e-5 is the step, 1e-7 relative what its error and rounding leave.
#[track_caller]
pub(crate) fn assert_gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).expect("a tensor becomes a variable")).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&tensors).expect("the function runs");
    let cotangent = noise(99, y.dims());
    let loss = |y: &Tensor| (y * &cotangent).and_then(|t| t.sum_all());
    let gradients = loss(&y).and_then(|l| l.backward()).expect("backward runs");
    for (which, input) in inputs.iter().enumerate() {
        let got = gradients.get(&vars[which]).expect("every input has a gradient");
        let base = values(input);
        let expected: Vec<f64> = (0..base.len())
            .map(|i| {
                let at = |delta: f64| {
                    let mut moved = base.clone();
                    moved[i] += delta;
                    let mut all: Vec<Tensor> = inputs.to_vec();
                    all[which] =
                        Tensor::from_vec(moved, input.dims(), &Device::Cpu).expect("the same number of values");
                    let l = f(&all).and_then(|y| loss(&y)).expect("the function runs");
                    l.to_scalar::<f64>().expect("a scalar")
                };
                (at(1e-5) - at(-1e-5)) / 2e-5
            })
            .collect();
        let expected = Tensor::from_vec(expected, input.dims(), &Device::Cpu).expect("same shape");
        assert_close(got, &expected, 1e-7);
    }
}
