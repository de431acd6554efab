//! Convolution through candle: values, gradients, sparse against dense, threads.

use crate::common::{assert_close, assert_gradients, assert_same_bits_on_threads, mask, noise, noise32, values};
use candle_core::{DType, Device, Result, Tensor, Var};
use lth_kernels::{
    Conv2dParams, InstructionSet, Kernel, Layout, PackedConv2d, PackedLinear, Pattern, conv2d, conv2d_kernels,
    to_layout,
};
use proptest::prelude::*;

const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::Chwn];
const KERNELS: [Kernel; 4] = [Kernel::Dense, Kernel::Sparse, Kernel::Compact, Kernel::Winograd];

fn params(stride: (usize, usize), padding: (usize, usize), dilation: (usize, usize), groups: usize) -> Conv2dParams {
    Conv2dParams { stride, padding, dilation, groups, layout: Layout::Nchw }
}

/// The definition, in f64 and NCHW.
fn naive(x: &Tensor, weight: &Tensor, p: &Conv2dParams) -> Result<Tensor> {
    let ((n, c, h, w), (o, per_group, kh, kw)) = (x.dims4()?, weight.dims4()?);
    let (oh, ow) = (
        (h + 2 * p.padding.0 - p.dilation.0 * (kh - 1) - 1) / p.stride.0 + 1,
        (w + 2 * p.padding.1 - p.dilation.1 * (kw - 1) - 1) / p.stride.1 + 1,
    );
    let (xs, ws) = (values(x), values(weight));
    let mut y = vec![0.0; n * o * oh * ow];
    for (at, y) in y.iter_mut().enumerate() {
        let (ox, oy, channel, picture) = (at % ow, at / ow % oh, at / ow / oh % o, at / ow / oh / o);
        for k in 0..per_group * kh * kw {
            let (kx, ky, depth) = (k % kw, k / kw % kh, k / kw / kh);
            let row = (oy * p.stride.0 + ky * p.dilation.0).checked_sub(p.padding.0).filter(|&row| row < h);
            let column = (ox * p.stride.1 + kx * p.dilation.1).checked_sub(p.padding.1).filter(|&column| column < w);
            if let (Some(row), Some(column)) = (row, column) {
                let from = channel / (o / p.groups) * per_group + depth;
                *y += ws[channel * per_group * kh * kw + k] * xs[((picture * c + from) * h + row) * w + column];
            }
        }
    }
    Tensor::from_vec(y, (n, o, oh, ow), &Device::Cpu)
}

/// Output, input gradient and weight gradient in NCHW, computed in `layout`.
fn run(
    x: &Tensor,
    weight: &Tensor,
    pattern: Option<&Pattern>,
    p: &Conv2dParams,
    layout: Layout,
) -> Result<[Tensor; 3]> {
    run_against(x, weight, pattern, p, layout, &|shape| Ok(noise32(77, shape)))
}

/// The same, for a gradient of the output of one's own.
fn run_against(
    x: &Tensor,
    weight: &Tensor,
    pattern: Option<&Pattern>,
    p: &Conv2dParams,
    layout: Layout,
    cotangent: &dyn Fn(&[usize]) -> Result<Tensor>,
) -> Result<[Tensor; 3]> {
    let (x, weight) = (Var::from_tensor(x)?, Var::from_tensor(weight)?);
    let inside = to_layout(&x, Layout::Nchw, layout)?;
    let y = conv2d(&inside, &weight, pattern, &Conv2dParams { layout, ..*p })?;
    let y = to_layout(&y, layout, Layout::Nchw)?;
    let cotangent = cotangent(y.dims())?.to_dtype(y.dtype())?;
    let gradients = (&y * cotangent)?.sum_all()?.backward()?;
    let of = |var: &Var| gradients.get(var).expect("tracked").clone();
    Ok([y, of(&x), of(&weight)])
}

#[test]
fn gradients_are_the_differences() {
    for (x, weight, p) in [
        ([1, 2, 7, 8], [3, 2, 3, 3], params((2, 2), (1, 1), (1, 1), 1)),
        ([6, 2, 4, 3], [4, 1, 3, 3], params((1, 1), (1, 1), (1, 1), 2)),
        ([1, 1, 9, 6], [2, 1, 3, 2], params((3, 3), (2, 0), (2, 2), 1)),
        ([17, 1, 2, 2], [2, 1, 3, 3], params((1, 1), (1, 1), (1, 1), 1)),
        // Few pictures of many positions.
        ([1, 2, 9, 10], [3, 2, 3, 2], params((1, 1), (1, 0), (1, 1), 1)),
        ([3, 1, 10, 12], [2, 1, 3, 3], params((1, 1), (1, 2), (1, 2), 1)),
        ([2, 2, 8, 8], [3, 2, 1, 1], params((1, 1), (0, 0), (1, 1), 1)),
    ] {
        for layout in LAYOUTS {
            for density in [None, Some(0.4), Some(0.0), Some(1.0)] {
                let mask = density.map(|density| mask(5, &weight, density));
                let pattern = mask.as_ref().map(|mask| Pattern::new(mask).expect("a mask"));
                // Away from the mask the function does not depend on the weight, and the gradient is 0.
                assert_gradients(&[noise(1, &x), noise(2, &weight)], |t| {
                    let x = to_layout(&t[0], Layout::Nchw, layout)?;
                    conv2d(&x, &t[1], pattern.as_ref(), &Conv2dParams { layout, ..p })
                });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn few_positions_that_read_much_are_the_definition(
        batch in 1usize..6,
        (groups, per_group, out_per_group) in (1usize..3, 16usize..70, 1usize..20),
        size in (1usize..4, 1usize..4),
        kernel in (1usize..4, 1usize..4),
        stride in (1usize..3, 1usize..3),
        padding in (0usize..2, 0usize..2),
        density in prop_oneof![Just(None), Just(Some(0.05)), Just(Some(0.6))],
        set in prop_oneof![Just(InstructionSet::Portable), Just(InstructionSet::Avx2), Just(InstructionSet::Avx512)],
        seed in 0u64..1000,
    ) {
        prop_assume!(size.0 + 2 * padding.0 >= kernel.0 && size.1 + 2 * padding.1 >= kernel.1);
        let p = params(stride, padding, (1, 1), groups);
        let x = noise32(seed, &[batch, groups * per_group, size.0, size.1]);
        let shape = [groups * out_per_group, per_group, kernel.0, kernel.1];
        let weight = noise32(seed + 1, &shape);
        let mask = mask(seed + 2, &shape, density.unwrap_or(1.0));
        let pattern = density.map(|_| Pattern::new(&mask).unwrap());
        let expected = naive(&x, &(&weight * mask.to_dtype(DType::F32).unwrap()).unwrap(), &p).unwrap();
        let work = || -> Result<()> {
            assert_close(&conv2d(&x, &weight, pattern.as_ref(), &p)?, &expected, 1e-5);
            for kernel in [Kernel::Dense, Kernel::Sparse, Kernel::Winograd] {
                let y = kernel.run(|| conv2d(&x, &weight, pattern.as_ref(), &p))?;
                assert_close(&y, &expected, 1e-5);
            }
            let wide = |t: &Tensor| t.to_dtype(DType::F64);
            assert_close(&conv2d(&wide(&x)?, &wide(&weight)?, pattern.as_ref(), &p)?, &expected, 1e-5);
            for layout in LAYOUTS {
                let packed = PackedConv2d::new(&weight, None, pattern.as_ref(), false, &Conv2dParams { layout, ..p })?;
                let y = packed.forward(&to_layout(&x, Layout::Nchw, layout)?, None)?;
                assert_close(&to_layout(&y, layout, Layout::Nchw)?, &expected, 1e-5);
            }
            Ok(())
        };
        if let Some(result) = set.run(work) {
            result.unwrap();
        }
    }

    #[test]
    fn random_shapes_are_the_definition(
        batch in prop_oneof![1usize..8, 15usize..40],
        (groups, per_group, out_per_group) in (1usize..4, 1usize..7, 1usize..9),
        size in (1usize..16, 1usize..16),
        kernel in (1usize..5, 1usize..5),
        stride in prop_oneof![Just((1, 1)), (1usize..4, 1usize..4)],
        padding in (0usize..3, 0usize..3),
        dilation in (1usize..3, 1usize..3),
        density in prop_oneof![Just(0.0), Just(0.1), Just(0.5), Just(1.0)],
        set in prop_oneof![Just(InstructionSet::Portable), Just(InstructionSet::Avx2), Just(InstructionSet::Avx512)],
        forced in prop_oneof![
            Just(None), Just(Some(Kernel::Dense)), Just(Some(Kernel::Sparse)), Just(Some(Kernel::Compact)),
            Just(Some(Kernel::Winograd)),
        ],
        (outputs, inputs) in (1usize..4, 1usize..4),
        seed in 0u64..1000,
    ) {
        prop_assume!(size.0 + 2 * padding.0 > dilation.0 * (kernel.0 - 1));
        prop_assume!(size.1 + 2 * padding.1 > dilation.1 * (kernel.1 - 1));
        let p = params(stride, padding, dilation, groups);
        let x = noise32(seed, &[batch, groups * per_group, size.0, size.1]);
        let shape = [groups * out_per_group, per_group, kernel.0, kernel.1];
        let weight = noise32(seed + 1, &shape);
        // Of every few outputs and inputs one is kept, and of these a part.
        let taps = kernel.0 * kernel.1;
        let whole = (0..shape.iter().product())
            .map(|i| u8::from((i / (per_group * taps)).is_multiple_of(outputs) && (i / taps % per_group).is_multiple_of(inputs)));
        let whole = Tensor::from_iter(whole, &Device::Cpu).unwrap().reshape(&shape).unwrap();
        let mask = (mask(seed + 2, &shape, density) * whole).unwrap();
        let pattern = Pattern::new(&mask).unwrap();
        let masked = (&weight * mask.to_dtype(DType::F32).unwrap()).unwrap();
        let expected = naive(&x, &masked, &p).unwrap();
        let work = || -> Result<()> {
            for layout in LAYOUTS {
                let sparse = || run(&x, &weight, Some(&pattern), &p, layout);
                let [y, dx, dw] = forced.map_or_else(sparse, |kernel| kernel.run(sparse))?;
                assert_close(&y, &expected, 1e-5);
                let [dense_y, dense_dx, dense_dw] = run(&x, &masked, None, &p, layout)?;
                assert_close(&dense_y, &expected, 1e-5);
                assert_close(&dx, &dense_dx, 1e-5);
                assert_close(&dw, &(dense_dw * mask.to_dtype(DType::F32)?)?, 1e-5);
                let wide = |t: &Tensor| t.to_dtype(DType::F64);
                let [_, wide_dx, wide_dw] = run(&wide(&x)?, &wide(&weight)?, Some(&pattern), &p, layout)?;
                assert_close(&dx, &wide_dx, 1e-5);
                assert_close(&dw, &wide_dw, 1e-5);
            }
            Ok(())
        };
        if let Some(result) = set.run(work) {
            result.unwrap();
        }
    }
}

#[test]
fn sparse_equals_dense_in_the_layers_of_a_resnet() -> Result<()> {
    for (channels, out, kernel, stride, padding, side) in [
        (3, 8, 7, 2, 3, 20),
        (64, 32, 3, 1, 1, 8),
        (40, 72, 3, 2, 1, 8),
        (64, 64, 3, 1, 1, 4),
        (96, 64, 3, 1, 1, 2),
        (32, 64, 1, 2, 0, 8),
    ] {
        let p = params((stride, stride), (padding, padding), (1, 1), 1);
        let shape = [out, channels, kernel, kernel];
        let (x, weight) = (noise32(1, &[64, channels, side, side]), noise32(2, &shape));
        for density in [0.02, 0.1, 0.3] {
            let mask = mask(3, &shape, density);
            let keep = mask.to_dtype(DType::F32)?;
            let pattern = Pattern::new(&mask)?;
            let [y, dx, dw] = run(&x, &(&weight * &keep)?, None, &p, Layout::Chwn)?;
            let expected = [y, dx, (dw * keep)?];
            for kernel in [Kernel::Dense, Kernel::Sparse, Kernel::Winograd] {
                let masked = kernel.run(|| run(&x, &weight, Some(&pattern), &p, Layout::Chwn))?;
                for (masked, expected) in masked.iter().zip(&expected) {
                    assert_close(masked, expected, 1e-5);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn pruned_positions_have_a_gradient_of_exactly_zero() -> Result<()> {
    let shape = [16, 16, 3, 3];
    for density in [0.05, 0.9] {
        let mask = mask(3, &shape, density);
        let p = params((1, 1), (1, 1), (1, 1), 1);
        let [.., dw] =
            run(&noise32(1, &[64, 16, 4, 4]), &noise32(2, &shape), Some(&Pattern::new(&mask)?), &p, Layout::Chwn)?;
        for (gradient, keep) in values(&dw).into_iter().zip(values(&mask)) {
            assert_eq!(gradient != 0.0, keep != 0.0);
        }
    }
    Ok(())
}

#[test]
fn empty_filters_and_channels_give_zeros() -> Result<()> {
    // Filters 0 and 3 and input channel 1 are pruned away.
    let keep = |o: usize, c: usize| u8::from(!o.is_multiple_of(3) && c != 1);
    let bits: Vec<u8> = (0..6 * 4 * 9).map(|i| keep(i / 36, i / 9 % 4)).collect();
    let pattern = Pattern::new(&Tensor::from_vec(bits, (6, 4, 3, 3), &Device::Cpu)?)?;
    let p = params((1, 1), (1, 1), (1, 1), 1);
    let (x, weight) = (noise32(1, &[32, 4, 5, 5]), noise32(2, &[6, 4, 3, 3]));
    for kernel in KERNELS {
        let [y, dx, _] = kernel.run(|| run(&x, &weight, Some(&pattern), &p, Layout::Chwn))?;
        for filter in [0, 3] {
            assert!(values(&y.narrow(1, filter, 1)?).iter().all(|&v| v == 0.0));
        }
        assert!(values(&dx.narrow(1, 1, 1)?).iter().all(|&v| v == 0.0));
        assert!(values(&dx.narrow(1, 2, 1)?).iter().any(|&v| v != 0.0));
    }
    let packed = PackedConv2d::new(&weight, None, Some(&pattern), false, &p)?;
    for n in [2, 32] {
        let x = x.narrow(0, 0, n)?;
        let expected = conv2d(&x, &weight, Some(&pattern), &p)?;
        for kernel in KERNELS {
            assert_close(&kernel.run(|| packed.forward(&x, None))?, &expected, 5e-6);
        }
    }
    Ok(())
}

/// Which numbers are finite.
fn finite(tensor: &Tensor) -> Vec<bool> {
    values(tensor).into_iter().map(f64::is_finite).collect()
}

#[test]
fn what_is_not_finite_reaches_what_a_kept_weight_carries_it_to_and_nothing_else() -> Result<()> {
    for (p, filters, side) in [
        (params((1, 2), (1, 1), (1, 1), 1), [8, 6, 3, 3], [5, 7]),
        (params((1, 1), (1, 1), (1, 1), 1), [8, 16, 3, 3], [4, 4]),
        (params((2, 2), (3, 3), (1, 1), 1), [4, 3, 7, 7], [9, 8]),
        (params((1, 1), (2, 0), (2, 1), 2), [4, 3, 3, 1], [6, 5]),
        (params((1, 1), (0, 0), (1, 1), 1), [8, 6, 3, 3], [7, 6]),
        // Few pictures of many positions.
        (params((1, 1), (1, 1), (1, 1), 1), [8, 6, 3, 3], [9, 8]),
        (params((2, 2), (0, 0), (1, 1), 1), [4, 5, 2, 3], [5, 9]),
        // Few positions, which read much.
        (params((1, 1), (1, 1), (1, 1), 1), [7, 9, 3, 3], [2, 3]),
        (params((2, 2), (1, 1), (1, 1), 2), [6, 8, 3, 3], [3, 4]),
    ] {
        let inputs = filters[1] * p.groups;
        // A filter and an input are pruned whole, or else nothing would run compact.
        let [_, per_group, height, width] = filters;
        let mut kept = values(&mask(4, &filters, 0.3));
        for (at, kept) in kept.iter_mut().enumerate() {
            let (output, input) = (at / (per_group * height * width), at / (height * width) % per_group);
            if output == 1 || (p.groups == 1 && input == per_group - 1) {
                *kept = 0.0;
            }
        }
        let mask = Tensor::from_vec(kept, &filters, &Device::Cpu)?.to_dtype(DType::U8)?;
        let pattern = Pattern::new(&mask)?;
        for batch in [2, 17, 64] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let shape = [batch, inputs, side[0], side[1]];
                let with = |tensor: &Tensor, places: &[usize]| -> Result<Tensor> {
                    let mut values: Vec<f32> = values(tensor).into_iter().map(|v| v as f32).collect();
                    places.iter().for_each(|&at| values[at] = bad);
                    Tensor::from_vec(values, tensor.shape(), &Device::Cpu)
                };
                let (x, weight) = (noise32(1, &shape), noise32(2, &filters));
                // Corners, whose outputs read padding as well, and one from the middle of the last picture.
                let middle = x.elem_count() - side[0] * side[1] / 2;
                let spoilt_x = with(&x, &[0, side[1] - 1, middle, x.elem_count() - 1])?;
                // Weights of every tap, kept and pruned.
                let spoilt_weight = with(&weight, &[0, 5, 10, weight.elem_count() - 1])?;
                let fine = |shape: &[usize]| Ok(noise32(77, shape));
                // Corners of the first picture's last filter and of the last picture, and one inside.
                let spoilt = |shape: &[usize]| {
                    let (all, plane) = (noise32(77, shape), shape[2] * shape[3]);
                    with(&all, &[(shape[1] - 1) * plane, plane / 2, all.elem_count() - 1])
                };
                for (x, weight, cotangent) in [
                    (&spoilt_x, &weight, &fine as &dyn Fn(&[usize]) -> Result<Tensor>),
                    (&x, &spoilt_weight, &fine),
                    (&x, &weight, &spoilt),
                ] {
                    let expected = by_hand(x, weight, &mask, &p, cotangent)?.map(|tensor| finite(&tensor));
                    for kernel in KERNELS {
                        for set in InstructionSet::ALL {
                            for layout in LAYOUTS {
                                let y = || kernel.run(|| run_against(x, weight, Some(&pattern), &p, layout, cotangent));
                                let Some(result) = set.run(y).transpose()? else { continue };
                                for (what, ours, expected) in
                                    [("y", 0), ("dx", 1), ("dw", 2)].map(|(what, i)| (what, i, &expected[i]))
                                {
                                    let ours = finite(&result[ours]);
                                    let differs =
                                        ours.iter().zip(expected).position(|(ours, expected)| ours != expected);
                                    assert_eq!(
                                        differs, None,
                                        "{what} of {filters:?}, {bad}: {kernel}, {set:?}, {layout:?}, batch {batch}"
                                    );
                                }
                                let packed = kernel.run(|| {
                                    let p = Conv2dParams { layout, ..p };
                                    let packed = PackedConv2d::new(weight, None, Some(&pattern), false, &p)?;
                                    let y = set.run(|| packed.forward(&to_layout(x, Layout::Nchw, layout)?, None));
                                    y.transpose()?.map(|y| to_layout(&y, layout, Layout::Nchw)).transpose()
                                });
                                if let Some(y) = packed? {
                                    assert_eq!(
                                        finite(&y),
                                        expected[0],
                                        "packed {kernel}, {set:?}, {layout:?}, {batch}"
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

/// Output, input gradient and weight gradient as [`run_against`] gives them, by the definition: what is pruned or outside is not
/// read.
fn by_hand(
    x: &Tensor,
    weight: &Tensor,
    mask: &Tensor,
    p: &Conv2dParams,
    cotangent: &dyn Fn(&[usize]) -> Result<Tensor>,
) -> Result<[Tensor; 3]> {
    let ((n, c, h, w), (o, per_group, kh, kw)) = (x.dims4()?, weight.dims4()?);
    let y_shape = naive(&x.zeros_like()?, weight, p)?;
    let (_, _, oh, ow) = y_shape.dims4()?;
    let cotangent = values(&cotangent(y_shape.dims())?);
    let (xs, ws, kept) = (values(x), values(weight), values(mask));
    let (mut y, mut dx, mut dw) = (vec![0.0; n * o * oh * ow], vec![0.0; xs.len()], vec![0.0; ws.len()]);
    for at in 0..y.len() {
        let (ox, oy, channel, picture) = (at % ow, at / ow % oh, at / ow / oh % o, at / ow / oh / o);
        for k in 0..per_group * kh * kw {
            let (kx, ky, depth) = (k % kw, k / kw % kh, k / kw / kh);
            let position = channel * per_group * kh * kw + k;
            let row = (oy * p.stride.0 + ky * p.dilation.0).checked_sub(p.padding.0).filter(|&row| row < h);
            let column = (ox * p.stride.1 + kx * p.dilation.1).checked_sub(p.padding.1).filter(|&column| column < w);
            let (Some(row), Some(column), true) = (row, column, kept[position] != 0.0) else { continue };
            let from = ((picture * c + channel / (o / p.groups) * per_group + depth) * h + row) * w + column;
            y[at] += ws[position] * xs[from];
            dx[from] += ws[position] * cotangent[at];
            dw[position] += xs[from] * cotangent[at];
        }
    }
    let tensor = |values: Vec<f64>, like: &Tensor| Tensor::from_vec(values, like.shape(), &Device::Cpu);
    Ok([tensor(y, &y_shape)?, tensor(dx, x)?, tensor(dw, weight)?])
}

#[test]
fn denormals_are_computed_with() -> Result<()> {
    let x = Tensor::full(f32::MIN_POSITIVE / 8.0, (16, 1, 2, 2), &Device::Cpu)?;
    let weight = Tensor::full(2f32, (1, 1, 1, 1), &Device::Cpu)?;
    let pattern = Pattern::new(&Tensor::ones((1, 1, 1, 1), DType::U8, &Device::Cpu)?)?;
    for pattern in [None, Some(&pattern)] {
        let y = conv2d(&x, &weight, pattern, &Conv2dParams::default())?;
        assert!(values(&y).iter().all(|&v| v == f64::from(f32::MIN_POSITIVE / 4.0)));
    }
    Ok(())
}

#[test]
fn views_are_read_as_they_are() -> Result<()> {
    let p = params((1, 1), (1, 1), (1, 1), 1);
    let x = noise32(1, &[20, 6, 8, 5]).transpose(2, 3)?.narrow(1, 1, 4)?;
    let weight = noise32(2, &[3, 3, 4, 7]).permute((3, 2, 0, 1))?;
    let pattern = Pattern::new(&mask(3, &[3, 3, 4, 7], 0.5).permute((3, 2, 0, 1))?)?;
    for layout in LAYOUTS {
        let view = run(&x, &weight, Some(&pattern), &p, layout)?;
        let copy = run(&x.contiguous()?, &weight.contiguous()?, Some(&pattern), &p, layout)?;
        for (view, copy) in view.iter().zip(copy) {
            assert_close(view, &copy, 0.0);
        }
    }
    Ok(())
}

#[test]
fn only_the_gradients_asked_for_are_there() -> Result<()> {
    let (x, weight) = (Var::from_tensor(&noise32(1, &[16, 4, 5, 5]))?, Var::from_tensor(&noise32(2, &[3, 4, 3, 3]))?);
    let p = Conv2dParams::default();
    let frozen = conv2d(&x, &weight.detach(), None, &p)?.sum_all()?.backward()?;
    assert!(frozen.get(&x).is_some() && frozen.get(&weight).is_none());
    let first = conv2d(&x.detach(), &weight, None, &p)?.sum_all()?.backward()?;
    assert!(first.get(&x).is_none() && first.get(&weight).is_some());
    Ok(())
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() -> Result<()> {
    let bits = || -> Result<Vec<u64>> {
        let mut all = Vec::new();
        for (channels, out, kernel, stride, padding, side, batch) in [
            (3, 24, 7, 2, 3, 16, 33),
            (48, 40, 3, 1, 1, 8, 64),
            (64, 64, 3, 1, 1, 2, 64),
            (24, 24, 3, 2, 1, 9, 3),
            (200, 40, 3, 1, 1, 2, 3),
        ] {
            let p = params((stride, stride), (padding, padding), (1, 1), 1);
            let shape = [out, channels, kernel, kernel];
            let (x, weight) = (noise32(1, &[batch, channels, side, side]), noise32(2, &shape));
            let pattern = Pattern::new(&mask(3, &shape, 0.1))?;
            // Every four outputs keep the same places.
            let quarter = mask(3, &[out / 4, channels, kernel, kernel], 0.1);
            let blocks = quarter.unsqueeze(1)?.repeat((1, 4, 1, 1, 1))?.reshape(shape.as_slice())?;
            let blocks = Pattern::new(&blocks)?;
            for layout in LAYOUTS {
                for pattern in [None, Some(&pattern), Some(&blocks)] {
                    all.extend(run(&x, &weight, pattern, &p, layout)?);
                }
            }
        }
        Ok(all.iter().flat_map(values).map(f64::to_bits).collect())
    };
    assert_same_bits_on_threads(bits)
}

#[test]
fn a_batch_is_computed_as_its_parts() -> Result<()> {
    let p = params((1, 1), (1, 1), (1, 1), 1);
    let (x, weight) = (noise32(1, &[50, 6, 7, 7]), noise32(2, &[9, 6, 3, 3]));
    let pattern = Pattern::new(&mask(3, &[9, 6, 3, 3], 0.2))?;
    for pattern in [None, Some(&pattern)] {
        let whole = conv2d(&x, &weight, pattern, &p)?;
        for (from, len) in [(0, 1), (1, 6), (7, 43)] {
            let part = conv2d(&x.narrow(0, from, len)?, &weight, pattern, &p)?;
            assert_close(&part, &whole.narrow(0, from, len)?, 1e-6);
        }
    }
    Ok(())
}

#[test]
fn the_choice_of_kernels_is_visible() -> Result<()> {
    let p = Conv2dParams { padding: (1, 1), layout: Layout::Chwn, ..Default::default() };
    let at = |density| conv2d_kernels(&[64, 16, 16, 64], &[64, 64, 3, 3], density, &p);
    assert_eq!([at(1.0)?.forward, at(1.0)?.weight_gradient], [Kernel::Winograd, Kernel::Winograd]);
    assert_eq!([at(0.1)?.forward, at(0.1)?.input_gradient], [Kernel::Sparse, Kernel::Sparse]);
    // 46 of 48 rows and columns of taps are inside the picture.
    assert_eq!(at(0.1)?.dense_multiplications, 46 * 46 * 64 * 64 * 64);
    let error = conv2d_kernels(&[1, 2, 3], &[1, 1, 1, 1], 0.5, &p).expect_err("rank 3").to_string();
    assert!(error.contains("expected rank 4"), "{error}");
    Ok(())
}

#[test]
fn packed_convolution_is_convolution_bias_residual_and_relu() -> Result<()> {
    let p = params((2, 1), (1, 1), (1, 1), 2);
    let shape = [10, 4, 3, 3];
    let (weight, bias) = (noise32(2, &shape), noise32(3, &[10]));
    for (batch, density) in [(1, 0.1), (6, 0.3), (33, 0.1), (1, 1.0), (20, 0.0)] {
        let pattern = Pattern::new(&mask(4, &shape, density))?;
        for layout in LAYOUTS {
            let p = Conv2dParams { layout, ..p };
            let x = to_layout(&noise32(1, &[batch, 8, 7, 6]), Layout::Nchw, layout)?;
            for pattern in [None, Some(&pattern)] {
                let plain = conv2d(&x, &weight, pattern, &p)?;
                let residual = noise32(5, plain.dims());
                let axis = if layout == Layout::Nchw { (1, 10, 1, 1) } else { (10, 1, 1, 1) };
                let biased = plain.broadcast_add(&bias.reshape(axis)?)?;
                for relu in [false, true] {
                    let packed = PackedConv2d::new(&weight, Some(&bias), pattern, relu, &p)?;
                    // Twice: packing happens at the first call of a shape.
                    for _ in 0..2 {
                        for residual in [None, Some(&residual)] {
                            let sum = residual.map_or_else(|| Ok(biased.clone()), |residual| &biased + residual)?;
                            let expected = if relu { sum.maximum(0.0)? } else { sum };
                            assert_close(&packed.forward(&x, residual)?, &expected, 1e-6);
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn layouts_that_share_what_is_packed_give_the_same_numbers() -> Result<()> {
    for (shape, density, x) in [([8, 4, 3, 3], 0.3, [7, 4, 6, 5]), ([64, 64, 3, 3], 0.05, [2, 64, 8, 8])] {
        let p = params((1, 1), (1, 1), (1, 1), 1);
        let (weight, x) = (noise32(2, &shape), noise32(1, &x));
        let pattern = Pattern::new(&mask(4, &shape, density))?;
        let expected = conv2d(&x, &weight, Some(&pattern), &p)?;
        for order in [LAYOUTS, [Layout::Chwn, Layout::Nchw]] {
            let packed = PackedConv2d::new(&weight, None, Some(&pattern), false, &p)?;
            for layout in order {
                let y = packed.with_layout(layout).forward(&to_layout(&x, Layout::Nchw, layout)?, None)?;
                assert_close(&to_layout(&y, layout, Layout::Nchw)?, &expected, 1e-5);
            }
        }
    }
    Ok(())
}

/// Packing is parallel work. A worker that waits for a part of it may begin another call of the same layer, which must not
/// wait for a lock that its own thread holds.
#[test]
fn one_layer_called_from_many_workers_at_once_does_not_stand_still() -> Result<()> {
    use rayon::prelude::*;
    let (shape, p) = ([512, 512, 3, 3], Conv2dParams { layout: Layout::Chwn, ..params((1, 1), (1, 1), (1, 1), 1) });
    let (weight, x) = (noise32(2, &shape), noise32(1, &[512, 2, 2, 16]));
    let mask = mask(4, &shape, 0.05);
    let (done, finished) = std::sync::mpsc::channel();
    // Left behind if it stands still, since it cannot be stopped.
    std::thread::spawn(move || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().expect("threads start");
        let all = pool.install(|| {
            (0..20).try_for_each(|_| {
                let pattern = Pattern::new(&mask)?;
                let packed = PackedConv2d::new(&weight, None, Some(&pattern), false, &p)?;
                (0..16).into_par_iter().try_for_each(|_| packed.forward(&x, None).map(|_| ()))
            })
        });
        done.send(all)
    });
    finished.recv_timeout(std::time::Duration::from_mins(2)).expect("the layer stood still")
}

#[test]
fn packed_layers_take_empty_batches_and_no_channels() -> Result<()> {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    let p = Conv2dParams::default();
    let conv = PackedConv2d::new(&noise32(1, &[4, 3, 3, 3]), None, None, true, &p)?;
    assert_eq!(conv.forward(&zeros(&[0, 3, 5, 6])?, None)?.dims(), [0, 4, 3, 4]);
    let linear = PackedLinear::new(&noise32(1, &[4, 3]), None, None, true)?;
    assert_eq!(linear.forward(&zeros(&[0, 3])?)?.dims(), [0, 4]);
    let (weight, bias) = (zeros(&[2, 0, 1, 1])?, Tensor::new(&[1f32, -1.], &Device::Cpu)?);
    for n in [1, 20] {
        let y = PackedConv2d::new(&weight, Some(&bias), None, true, &p)?.forward(&zeros(&[n, 0, 1, 1])?, None)?;
        assert_eq!(y.get(n - 1)?.flatten_all()?.to_vec1::<f32>()?, [1., 0.]);
    }
    Ok(())
}

#[test]
fn packed_convolution_names_what_does_not_fit() -> Result<()> {
    let weight = noise32(1, &[4, 2, 3, 3]);
    let p = Conv2dParams::default();
    let error = |result: Result<PackedConv2d>| result.map(|_| ()).expect_err("refused").to_string();
    let wide = weight.to_dtype(DType::F64)?;
    assert!(error(PackedConv2d::new(&wide, None, None, false, &p)).contains("`weight` has type F64"));
    let bias = noise32(2, &[3]);
    assert!(error(PackedConv2d::new(&weight, Some(&bias), None, false, &p)).contains("expected [4]"));
    let conv = PackedConv2d::new(&weight, None, None, false, &p)?;
    let x = noise32(3, &[1, 2, 5, 5]);
    let refused = conv.forward(&x, Some(&x)).expect_err("a residual of another shape").to_string();
    assert!(refused.contains("`residual` has shape [1, 2, 5, 5], expected [1, 4, 3, 3]"), "{refused}");
    Ok(())
}
