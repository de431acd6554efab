//! Pooling against golden values, naive loops and finite differences.

use crate::common::{assert_close, assert_gradients, golden, noise, noise32, values};
use candle_core::{DType, Device, Result, Tensor, Var};
use lth_kernels::{Layout, Pool2dParams, avg_pool2d, global_avg_pool, global_max_pool, max_pool2d, to_layout};

const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::Chwn];
const STEM: Pool2dParams = Pool2dParams { kernel: (3, 3), stride: (2, 2), padding: (1, 1), layout: Layout::Nchw };

#[test]
fn max_pool_is_torchs_and_ties_go_to_the_first() -> Result<()> {
    let golden = golden("maxpool")?;
    for (case, dtype) in
        [("distinct", DType::F32), ("distinct", DType::F64), ("ties", DType::F32), ("ties", DType::F64)]
    {
        for layout in LAYOUTS {
            let of = |name: &str| golden[&format!("{case}.{name}")].to_dtype(dtype);
            let x = Var::from_tensor(&of("input")?)?;
            let y = max_pool2d(&to_layout(&x, Layout::Nchw, layout)?, &Pool2dParams { layout, ..STEM })?;
            let y = to_layout(&y, layout, Layout::Nchw)?;
            assert_eq!(values(&y), values(&of("output")?));
            let gradients = (y * of("grad_output")?)?.sum_all()?.backward()?;
            assert_close(gradients.get(&x).expect("tracked"), &of("grad_input")?, 1e-6);
        }
    }
    Ok(())
}

/// Every window by loops over an [N, C, H, W] input.
fn naive(x: &Tensor, p: &Pool2dParams, max: bool) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let v = values(x);
    let oh = (h + 2 * p.padding.0 - p.kernel.0) / p.stride.0 + 1;
    let ow = (w + 2 * p.padding.1 - p.kernel.1) / p.stride.1 + 1;
    let mut out = Vec::new();
    for plane in 0..n * c {
        for (i, j) in (0..oh).flat_map(|i| (0..ow).map(move |j| (i, j))) {
            let (mut best, mut sum) = (f64::NEG_INFINITY, 0.0);
            for (a, b) in (0..p.kernel.0).flat_map(|a| (0..p.kernel.1).map(move |b| (a, b))) {
                let (r, s) = (i * p.stride.0 + a, j * p.stride.1 + b);
                if r < p.padding.0 || s < p.padding.1 || r - p.padding.0 >= h || s - p.padding.1 >= w {
                    continue;
                }
                let value = v[(plane * h + r - p.padding.0) * w + s - p.padding.1];
                sum += value;
                if value > best || value.is_nan() {
                    best = value;
                }
            }
            out.push(if max { best } else { sum / (p.kernel.0 * p.kernel.1) as f64 });
        }
    }
    Tensor::from_vec(out, (n, c, oh, ow), &Device::Cpu)
}

fn cases() -> Vec<(Vec<usize>, Pool2dParams)> {
    let params = |kernel, stride, padding| Pool2dParams { kernel, stride, padding, ..STEM };
    vec![
        (vec![2, 3, 7, 8], params((3, 3), (2, 2), (1, 1))),
        (vec![1, 2, 1, 1], params((1, 1), (1, 1), (0, 0))),
        (vec![3, 1, 5, 4], params((2, 2), (2, 2), (0, 0))),
        (vec![2, 2, 6, 9], params((3, 2), (1, 3), (1, 0))),
        (vec![1, 1, 9, 5], params((2, 3), (3, 2), (0, 1))),
        (vec![17, 2, 4, 4], params((3, 3), (3, 3), (1, 1))),
        (vec![2, 1, 2, 2], params((3, 3), (2, 2), (1, 1))),
    ]
}

#[test]
fn pooling_equals_loops_over_windows() -> Result<()> {
    for (shape, params) in cases() {
        for layout in LAYOUTS {
            for dtype in [DType::F32, DType::F64] {
                let x = noise32(7, &shape).to_dtype(dtype)?;
                let p = Pool2dParams { layout, ..params };
                let moved = to_layout(&x, Layout::Nchw, layout)?;
                let back = |y: Tensor| to_layout(&y, layout, Layout::Nchw);
                assert_close(&back(max_pool2d(&moved, &p)?)?, &naive(&x, &p, true)?, 0.0);
                assert_close(&back(avg_pool2d(&moved, &p)?)?, &naive(&x, &p, false)?, 1e-6);
            }
        }
    }
    Ok(())
}

#[test]
fn gradients_are_the_differences() {
    for (shape, params) in cases() {
        for layout in LAYOUTS {
            let p = Pool2dParams { layout, ..params };
            let x = [noise(8, &shape)];
            let moved = |x: &Tensor| to_layout(x, Layout::Nchw, layout);
            assert_gradients(&x, |x| max_pool2d(&moved(&x[0])?, &p));
            assert_gradients(&x, |x| avg_pool2d(&moved(&x[0])?, &p));
            assert_gradients(&x, |x| global_max_pool(&moved(&x[0])?, layout));
            assert_gradients(&x, |x| global_avg_pool(&moved(&x[0])?, layout));
        }
    }
}

#[test]
fn global_pools_give_samples_by_channels_in_both_layouts() -> Result<()> {
    let x = noise32(3, &[5, 3, 4, 2]);
    for layout in LAYOUTS {
        let moved = to_layout(&x, Layout::Nchw, layout)?;
        let flat = x.flatten_from(2)?;
        assert_close(&global_max_pool(&moved, layout)?, &flat.max(2)?, 0.0);
        assert_close(&global_avg_pool(&moved, layout)?, &flat.mean(2)?, 1e-6);
    }
    Ok(())
}

#[test]
fn nan_is_larger_than_everything() -> Result<()> {
    let mut v = vec![1f32; 16];
    v[5] = f32::NAN;
    let x = Tensor::from_vec(v, (1, 1, 4, 4), &Device::Cpu)?;
    for layout in LAYOUTS {
        let moved = to_layout(&x, Layout::Nchw, layout)?;
        let p = Pool2dParams { kernel: (2, 2), padding: (0, 0), layout, ..STEM };
        let y = to_layout(&max_pool2d(&moved, &p)?, layout, Layout::Nchw)?;
        let y = y.flatten_all()?.to_vec1::<f32>()?;
        assert!(y[0].is_nan() && y[1..].iter().all(|&v| v == 1.0), "{y:?}");
        assert!(global_max_pool(&moved, layout)?.to_vec2::<f32>()?[0][0].is_nan());
    }
    Ok(())
}

#[test]
fn inputs_need_not_be_contiguous() -> Result<()> {
    let x = noise32(4, &[3, 6, 5, 2]);
    let view = x.transpose(1, 2)?.narrow(3, 1, 1)?;
    let whole = view.contiguous()?;
    let p = Pool2dParams { kernel: (2, 1), padding: (1, 0), ..STEM };
    assert_close(&max_pool2d(&view, &p)?, &max_pool2d(&whole, &p)?, 0.0);
    assert_close(&avg_pool2d(&view, &p)?, &avg_pool2d(&whole, &p)?, 0.0);
    let p = Pool2dParams { layout: Layout::Chwn, ..p };
    assert_close(&max_pool2d(&view, &p)?, &max_pool2d(&whole, &p)?, 0.0);
    assert_close(&global_max_pool(&view, Layout::Chwn)?, &global_max_pool(&whole, Layout::Chwn)?, 0.0);
    Ok(())
}

#[test]
fn empty_and_impossible_inputs() -> Result<()> {
    let x = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    assert_eq!(max_pool2d(&x(&[0, 3, 8, 8])?, &STEM)?.dims(), [0, 3, 4, 4]);
    assert_eq!(avg_pool2d(&x(&[2, 0, 8, 8])?, &STEM)?.dims(), [2, 0, 4, 4]);
    assert_eq!(global_avg_pool(&x(&[0, 3, 8, 8])?, Layout::Nchw)?.dims(), [0, 3]);
    let message = |r: Result<Tensor>| r.expect_err("refused").to_string();
    let rank = message(max_pool2d(&x(&[3, 8, 8])?, &STEM));
    assert!(rank.contains("expected rank 4"), "{rank}");
    let none = message(max_pool2d(&x(&[1, 1, 0, 8])?, &STEM));
    assert!(none.contains("larger than the padded input"), "{none}");
    let zero = message(avg_pool2d(&x(&[1, 1, 8, 8])?, &Pool2dParams { stride: (0, 1), ..STEM }));
    assert!(zero.contains("stride is 0"), "{zero}");
    let pad = message(max_pool2d(&x(&[1, 1, 8, 8])?, &Pool2dParams { padding: (2, 0), ..STEM }));
    assert!(pad.contains("more than half"), "{pad}");
    let none = message(global_max_pool(&x(&[2, 3, 0, 8])?, Layout::Nchw));
    assert!(none.contains("is empty"), "{none}");
    Ok(())
}

#[test]
fn the_mean_of_a_large_map_has_all_its_digits() -> Result<()> {
    // Sums of a tenth in f32, one after the other, are a quarter of a percent low.
    for n in [1, 3] {
        let x = Tensor::full(0.1f32, (n, 1, 512, 512), &Device::Cpu)?;
        for layout in LAYOUTS {
            let moved = to_layout(&x, Layout::Nchw, layout)?;
            let tenth = Tensor::full(0.1f32, (n, 1), &Device::Cpu)?;
            // Up to 64 values are added up in f32.
            assert_close(&global_avg_pool(&moved, layout)?, &tenth, 1e-6);
            let window = Pool2dParams { kernel: (511, 512), stride: (1, 1), padding: (0, 0), layout };
            let y = to_layout(&avg_pool2d(&moved, &window)?, layout, Layout::Nchw)?;
            assert_close(&y, &Tensor::full(0.1f32, (n, 1, 2, 1), &Device::Cpu)?, 1e-8);
        }
    }
    // Padding counts in windows of this size, too.
    let x = noise32(5, &[2, 2, 40, 37]);
    let p = Pool2dParams { kernel: (36, 33), stride: (3, 2), padding: (4, 5), layout: Layout::Nchw };
    assert_close(&avg_pool2d(&x, &p)?, &naive(&x, &p, false)?, 1e-8);
    Ok(())
}
