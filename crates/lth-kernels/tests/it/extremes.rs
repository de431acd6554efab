//! Empty batches and absurd parameters: a graph that holds, a result in no time, or an error that names the parameter.

use crate::common::{assert_close, noise, noise32, values};
use candle_core::{DType, Device, Result, Tensor, Var};
use lth_kernels::{
    BatchNormParams, Conv2dParams, Layout, PackedConv2d, Pattern, Pool2dParams, add_bias, add_bias_relu, avg_pool2d,
    batch_norm_eval, concat, conv2d, global_avg_pool, global_max_pool, linear, max_pool2d, multiply_by, relu, reshape,
    to_layout,
};

const HUGE: usize = 1 << 63;

fn message(result: Result<Tensor>) -> String {
    result.expect_err("refused").to_string()
}

#[test]
fn lengths_that_would_overflow_are_refused_by_name() -> Result<()> {
    let (x, weight) = (noise32(1, &[1, 2, 5, 5]), noise32(2, &[3, 2, 3, 3]));
    let all = [HUGE, HUGE - 1, usize::MAX, 1 << 62, 1 << 32, i32::MAX as usize];
    for got in all {
        let conv = |params: Conv2dParams| {
            let packed = PackedConv2d::new(&weight, None, None, false, &params).and_then(|c| c.forward(&x, None));
            [message(conv2d(&x, &weight, None, &params)), message(packed)]
        };
        for dilation in [(got, 1), (1, got)] {
            for said in conv(Conv2dParams { dilation, ..Conv2dParams::default() }) {
                assert!(said.contains(&format!("dilation {dilation:?} is too large")), "{said}");
            }
        }
        for padding in [(got, 1), (1, got), (got, got)] {
            for said in conv(Conv2dParams { padding, ..Conv2dParams::default() }) {
                assert!(said.contains(&format!("padding {padding:?} is too large")), "{said}");
            }
        }
        // Half of the kernel, so that nothing else is wrong with it.
        let pool = Pool2dParams { kernel: (got, 2), stride: (1, 1), padding: (got / 2, 0), layout: Layout::Nchw };
        for said in [message(max_pool2d(&x, &pool)), message(avg_pool2d(&x, &pool))] {
            assert!(said.contains("is too large") || said.contains("larger than the padded input"), "{said}");
        }
    }
    // Each axis is one of a tensor, both together are not.
    let said = message(conv2d(&x, &weight, None, &Conv2dParams { padding: (1 << 29, 1 << 29), ..Default::default() }));
    assert!(said.contains("padding") && said.contains("too large"), "{said}");
    Ok(())
}

#[test]
fn a_stride_beyond_the_picture_is_as_good_as_any_other() -> Result<()> {
    // Few channels are unfolded, many are not.
    for (batch, channels) in [(3, 2), (17, 2), (3, 16), (17, 16)] {
        for layout in [Layout::Nchw, Layout::Chwn] {
            for sparse in [false, true] {
                let weight = noise(2, &[3, channels, 3, 2]);
                let pattern = sparse.then(|| Pattern::new(&noise(5, weight.dims()).gt(0.6)?)).transpose()?;
                let of = |stride| -> Result<Vec<Tensor>> {
                    let params = Conv2dParams { stride, padding: (1, 1), layout, ..Conv2dParams::default() };
                    let x = Var::from_tensor(&to_layout(&noise(1, &[batch, channels, 6, 5]), Layout::Nchw, layout)?)?;
                    let weight = Var::from_tensor(&weight)?;
                    let y = conv2d(&x, &weight, pattern.as_ref(), &params)?;
                    let gradients = (&y * noise(3, y.dims()))?.sum_all()?.backward()?;
                    let of = |var: &Var| gradients.get(var).expect("tracked").clone();
                    Ok(vec![y, of(&x), of(&weight)])
                };
                // 8 and 7 are the padded sides.
                for (got, expected) in [
                    (of((50_000, 50_000))?, of((8, 7))?),
                    (of((1 << 40, 1))?, of((8, 1))?),
                    (of((2, usize::MAX))?, of((2, 7))?),
                ] {
                    for (got, expected) in got.iter().zip(&expected) {
                        assert_close(got, expected, 1e-12);
                    }
                }
            }
        }
    }
    let x = noise32(4, &[2, 3, 6, 6]);
    let pool = |stride| Pool2dParams { kernel: (2, 2), stride, padding: (0, 0), layout: Layout::Nchw };
    assert_close(&max_pool2d(&x, &pool((usize::MAX, HUGE)))?, &max_pool2d(&x, &pool((6, 6)))?, 0.0);
    Ok(())
}

#[test]
fn an_empty_batch_keeps_its_graph() -> Result<()> {
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let var = |shape: &[usize]| Var::from_tensor(&noise(7, shape).to_dtype(dtype)?);
        let (flat, bias, product) = (var(&[0, 4])?, var(&[4])?, var(&[5, 4])?);
        for layout in [Layout::Nchw, Layout::Chwn] {
            let shape: &[usize] = if layout == Layout::Nchw { &[0, 4, 6, 6] } else { &[4, 6, 6, 0] };
            let (x, weight) = (var(shape)?, var(&[3, 4, 3, 3])?);
            let pool = Pool2dParams { kernel: (2, 2), stride: (2, 2), padding: (0, 0), layout };
            let conv = Conv2dParams { layout, ..Conv2dParams::default() };
            let norm = BatchNormParams { layout, ..BatchNormParams::default() };
            let all: [(&str, Result<Tensor>, Vec<&Var>); 13] = [
                ("conv2d", conv2d(&x, &weight, None, &conv), vec![&x, &weight]),
                ("max_pool2d", max_pool2d(&x, &pool), vec![&x]),
                ("avg_pool2d", avg_pool2d(&x, &pool), vec![&x]),
                ("global_max_pool", global_max_pool(&x, layout), vec![&x]),
                ("global_avg_pool", global_avg_pool(&x, layout), vec![&x]),
                (
                    "batch_norm_eval",
                    batch_norm_eval(&x, &bias, &bias, &bias, &bias.ones_like()?, None, &norm),
                    vec![&x, &bias],
                ),
                ("relu", relu(&x), vec![&x]),
                ("to_layout", to_layout(&x, layout, Layout::Chwn), vec![&x]),
                ("linear", linear(&flat, &product, None, None), vec![&flat, &product]),
                ("add_bias", add_bias(&flat, &bias, 1), vec![&flat, &bias]),
                ("add_bias_relu", add_bias_relu(&flat, &bias, 1), vec![&flat, &bias]),
                ("reshape", reshape(&flat, (4, 0)), vec![&flat]),
                ("concat", concat(&flat, &multiply_by(&flat, &flat.ones_like()?)?, 0), vec![&flat]),
            ];
            for (what, y, arguments) in all {
                let y = y?;
                assert_eq!(y.elem_count(), 0, "{what}");
                for gradients in [y.sum_all()?.backward()?, lth_kernels::backward(&y.sum_all()?)?] {
                    for argument in &arguments {
                        let gradient =
                            gradients.get(argument).unwrap_or_else(|| panic!("{what} in {dtype:?} has no graph"));
                        assert_eq!(gradient.dims(), argument.dims(), "{what}");
                        assert!(values(gradient).iter().all(|&v| v == 0.0), "{what}");
                    }
                }
            }
        }
    }
    // No channels in: sums of nothing.
    let y = conv2d(&noise(1, &[2, 0, 3, 3]), &noise(1, &[4, 0, 1, 1]), None, &Conv2dParams::default())?;
    assert_eq!((y.dims(), values(&y)), (&[2, 4, 3, 3][..], vec![0.0; 72]));
    let infinite = Tensor::full(f32::INFINITY, (2, 3, 4, 4), &Device::Cpu)?;
    let none = Tensor::zeros((0, 3, 1, 1), DType::F32, &Device::Cpu)?;
    assert_eq!(conv2d(&infinite, &none, None, &Conv2dParams::default())?.dims(), [2, 0, 4, 4]);
    Ok(())
}

#[test]
fn a_deep_graph_does_not_overflow_a_stack() {
    let deep = || -> Result<f32> {
        let x = Var::new(1f32, &Device::Cpu)?;
        let mut y = x.as_tensor().clone();
        for _ in 0..10_000 {
            y = (y + x.as_tensor())?;
        }
        lth_kernels::backward(&y)?.get(&x).expect("a gradient").to_scalar()
    };
    // The main thread's stack, which candle's own backward pass is content with.
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(deep).expect("a thread");
    assert_eq!(thread.join().expect("no panic").expect("gradients"), 10_001.0);
}
