//! Kernels against candle's own operators (where those are right) and against the other layout,
//! over random shapes.

use crate::common::{assert_close, noise32};
use candle_core::{DType, Result, Tensor, Var};
use lth_kernels::{BatchNormParams, Layout, Pool2dParams, avg_pool2d, batch_norm_train, max_pool2d, to_layout};
use proptest::prelude::*;

/// Output and input gradient of `f`, in NCHW, computed in `layout`.
fn run(x: &Tensor, layout: Layout, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<(Tensor, Tensor)> {
    let x = Var::from_tensor(x)?;
    let y = to_layout(&f(&to_layout(&x, Layout::Nchw, layout)?)?, layout, Layout::Nchw)?;
    let cotangent = noise32(77, y.dims()).to_dtype(y.dtype())?;
    let gradients = (&y * cotangent)?.sum_all()?.backward()?;
    Ok((y, gradients.get(&x).expect("tracked").clone()))
}

fn shape() -> impl Strategy<Value = [usize; 4]> {
    (1usize..40, 1usize..5, 1usize..9, 1usize..9).prop_map(|(n, c, h, w)| [n, c, h, w])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pools_agree_between_layouts_and_types(
        shape in shape(),
        kernel in (1usize..4, 1usize..4),
        stride in (1usize..4, 1usize..4),
        pad in (0usize..2, 0usize..2),
        seed in 0u64..1000,
    ) {
        let padding = (pad.0.min(kernel.0 / 2), pad.1.min(kernel.1 / 2));
        prop_assume!(shape[2] + 2 * padding.0 >= kernel.0 && shape[3] + 2 * padding.1 >= kernel.1);
        // Quarters make ties and sum exactly.
        let x = ((noise32(seed, &shape) * 4.0).unwrap().round().unwrap() / 4.0).unwrap();
        let of = |layout, dtype, max: bool| {
            let p = Pool2dParams { kernel, stride, padding, layout };
            run(&x.to_dtype(dtype).unwrap(), layout, |x| {
                if max { max_pool2d(x, &p) } else { avg_pool2d(x, &p) }
            })
            .unwrap()
        };
        for max in [true, false] {
            let (y, dx) = of(Layout::Nchw, DType::F64, max);
            for (layout, dtype) in [
                (Layout::Nchw, DType::F32),
                (Layout::Chwn, DType::F32),
                (Layout::Chwn, DType::F64),
            ] {
                let (other_y, other_dx) = of(layout, dtype, max);
                assert_close(&other_y, &y, 1e-6);
                assert_close(&other_dx, &dx, 1e-5);
            }
            // bf16 holds quarters exactly and runs on candle's operators.
            if max {
                assert_close(&of(Layout::Nchw, DType::BF16, max).0, &y, 0.0);
            }
        }
    }

    #[test]
    fn batch_norm_agrees_between_layouts_types_and_candles_operators(
        shape in shape(),
        relu in any::<bool>(),
        seed in 0u64..1000,
    ) {
        prop_assume!(shape[0] * shape[2] * shape[3] > 4);
        let x = noise32(seed, &shape);
        let c = shape[1];
        let of = |layout, dtype| {
            let vector = |s| noise32(s, &[c]).to_dtype(dtype).unwrap();
            let params = BatchNormParams { layout, relu, eps: 0.1 };
            run(&x.to_dtype(dtype).unwrap(), layout, |x| {
                Ok(batch_norm_train(x, &vector(seed + 1), &vector(seed + 2), None, &params)?.0)
            })
            .unwrap()
        };
        let (y, dx) = of(Layout::Nchw, DType::F64);
        let axis = [0usize, 2, 3];
        let wide = x.to_dtype(DType::F64).unwrap();
        let mean = wide.mean_keepdim(axis.as_slice()).unwrap();
        let centred = wide.broadcast_sub(&mean).unwrap();
        let var = centred.sqr().unwrap().mean_keepdim(axis.as_slice()).unwrap();
        let vector = |s| noise32(s, &[1, c, 1, 1]).to_dtype(DType::F64).unwrap();
        let plain = centred
            .broadcast_div(&(var + 0.1).unwrap().sqrt().unwrap()).unwrap()
            .broadcast_mul(&vector(seed + 1)).unwrap()
            .broadcast_add(&vector(seed + 2)).unwrap();
        assert_close(&y, &if relu { plain.relu().unwrap() } else { plain }, 1e-12);
        for (layout, dtype) in [
            (Layout::Nchw, DType::F32),
            (Layout::Chwn, DType::F32),
            (Layout::Chwn, DType::F64),
        ] {
            let (other_y, other_dx) = of(layout, dtype);
            assert_close(&other_y, &y, 1e-5);
            // Next to 0 rounding may open or close the rectifier: compare where it is clear.
            let clear = y.abs().unwrap().gt(1e-5).unwrap().to_dtype(DType::F64).unwrap();
            let clear = if relu { clear } else { clear.ones_like().unwrap() };
            let other_dx = other_dx.to_dtype(DType::F64).unwrap();
            assert_close(&(other_dx * &clear).unwrap(), &(&dx * &clear).unwrap(), 1e-4);
        }
    }
}
