//! Every kernel of every instruction set against sums in f64, on shapes that exercise each path.

use std::mem::MaybeUninit;

use super::geometry::{Direction, Geometry};
use super::kernel::table::{InstructionSet, Number, ProgramKind};
use super::kernel::tile::QUAD;
use super::program::Program;
use super::scratch::with_buffers;
use super::{dense, dense_weight, sparse, unfold, winograd};
use crate::kept::KeptPlaces;

/// Numbers in [-0.5, 0.5) that depend on the seed alone.
fn noise(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f64 / (1u64 << 24) as f64 - 0.5
    };
    (0..n).map(next).collect()
}

fn square(batch: usize, channels: [usize; 2], kernel: usize, stride: usize, padding: usize, side: usize) -> Geometry {
    let output = (side + 2 * padding - kernel) / stride + 1;
    Geometry {
        batch,
        in_channels: channels[0],
        out_channels: channels[1],
        groups: 1,
        input: [side, side],
        kernel: [kernel, kernel],
        output: [output, output],
        stride: [stride, stride],
        padding: [padding, padding],
        dilation: [1, 1],
    }
}

fn shapes() -> Vec<Geometry> {
    let ragged = Geometry {
        batch: 20,
        in_channels: 6,
        out_channels: 9,
        groups: 3,
        input: [7, 8],
        kernel: [3, 2],
        output: [3, 5],
        stride: [2, 1],
        padding: [1, 0],
        dilation: [2, 3],
    };
    let depthwise = Geometry {
        groups: 6,
        out_channels: 6,
        kernel: [3, 3],
        output: [7, 8],
        stride: [1, 1],
        padding: [1, 1],
        dilation: [1, 1],
        ..ragged
    };
    let shapes = vec![
        square(64, [8, 16], 3, 1, 1, 4),
        square(64, [8, 20], 3, 1, 1, 2),
        square(16, [7, 5], 3, 1, 1, 2),
        square(32, [9, 5], 3, 1, 1, 2),
        square(64, [3, 13], 7, 2, 3, 14),
        square(16, [32, 7], 3, 2, 1, 8),
        square(64, [12, 8], 3, 2, 1, 4),
        square(6, [5, 7], 3, 1, 1, 5),
        square(1, [5, 7], 1, 2, 0, 5),
        square(33, [40, 11], 5, 3, 2, 9),
        square(70, [17, 19], 3, 1, 1, 8),
        square(64, [40, 50], 3, 1, 1, 4),
        square(300, [4, 3], 1, 1, 0, 1),
        // For blocks of four outputs: ragged batches and tiles, several chunks of channels, groups, a panel that is the source;
        // one for an interpreter.
        square(33, [40, 12], 5, 3, 2, 9),
        square(20, [700, 8], 1, 1, 0, 3),
        square(8, [700, 8], 1, 1, 0, 1),
        Geometry { groups: 2, ..square(24, [10, 16], 3, 1, 1, 5) },
        square(3, [2, 4], 3, 1, 1, 3),
        square(5, [2, 3], 3, 1, 4, 1),
        ragged,
        depthwise,
    ];
    // An interpreter gets what it is done with within minutes.
    let n_products = |g: &Geometry| g.weights_per_group() * g.groups * g.n_outputs() * g.batch;
    shapes.into_iter().filter(|g| !cfg!(miri) || n_products(g) < 6_000).collect()
}

/// An interpreter runs none but the portable kernels.
fn sets() -> Vec<InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|&set| !cfg!(miri) || set == InstructionSet::Portable).collect()
}

struct Reference {
    output: Vec<f64>,
    input_gradient: Vec<f64>,
    weight_gradient: Vec<f64>,
}

/// The definition, one multiplication after the other.
fn reference(g: &Geometry, x: &[f64], weight: &[f64], grad: &[f64]) -> Reference {
    let mut r = Reference {
        output: vec![0.0; grad.len()],
        input_gradient: vec![0.0; x.len()],
        weight_gradient: vec![0.0; weight.len()],
    };
    for (at, w) in weight.iter().enumerate() {
        let (tap, channels) = (at % g.n_taps(), at / g.n_taps());
        let (o, c) = (channels / g.in_per_group(), channels % g.in_per_group());
        let channel = o / g.out_per_group() * g.in_per_group() + c;
        let k = [tap / g.kernel[1], tap % g.kernel[1]];
        for output in 0..g.n_outputs() {
            let p = [output / g.output[1], output % g.output[1]];
            let source = [0, 1].map(|a| (p[a] * g.stride[a] + k[a] * g.dilation[a]).checked_sub(g.padding[a]));
            let [Some(y), Some(xx)] = source else { continue };
            if y >= g.input[0] || xx >= g.input[1] {
                continue;
            }
            let from = (channel * g.n_inputs() + y * g.input[1] + xx) * g.batch;
            let to = (o * g.n_outputs() + output) * g.batch;
            for n in 0..g.batch {
                r.output[to + n] += w * x[from + n];
                r.input_gradient[from + n] += w * grad[to + n];
                r.weight_gradient[at] += grad[to + n] * x[from + n];
            }
        }
    }
    r
}

/// Elements behind a buffer that nobody may touch: more than a tile has.
const GUARD: usize = 512;

/// Fills the buffers of every thread with NaN: nothing may be read that was not written.
fn poison() {
    const LEN: usize = if cfg!(miri) { 1 << 6 } else { 1 << 18 };
    fn nested(depth: usize) {
        with_buffers::<f32, _>(LEN, LEN, |a, b| {
            a.fill(f32::NAN);
            b.fill(f32::NAN);
            if depth > 0 {
                nested(depth - 1);
            }
        });
    }
    rayon::broadcast(|_| nested(3));
    nested(3);
}

/// The elements that `compute` writes into a buffer that held NaN.
fn written<T: Number + From<f32> + Into<f64>>(len: usize, compute: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    poison();
    let mut out = vec![MaybeUninit::new(T::from(f32::NAN)); len + GUARD];
    compute(&mut out[..len]);
    // SAFETY: every element was initialised with NaN.
    let mut out: Vec<T> = out.into_iter().map(|value| unsafe { value.assume_init() }).collect();
    assert!(out.drain(len..).all(|guard| guard.into().is_nan()), "written past the end");
    out
}

#[track_caller]
fn assert_close<T: Number + Into<f64>>(what: &str, g: &Geometry, got: &[T], expected: &[f64], tolerance: f64) {
    let scale = expected.iter().fold(1e-30f64, |scale, v| scale.max(v.abs()));
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let got: f64 = got.into();
        // Not `>`: a NaN must fail.
        assert!((got - expected).abs() <= tolerance * scale, "{what} of {g:?} at {i}: got {got}, expected {expected}");
    }
}

/// Whether the mask keeps the same in every four outputs.
#[derive(Clone, Copy, PartialEq)]
enum Spread {
    Irregular,
    Blocks,
}

fn check<T: Number + From<f32> + Into<f64>>(
    g: &Geometry,
    density: Option<f64>,
    number: impl Fn(f64) -> T + Copy,
    tolerance: f64,
) {
    for (spread, kind) in [
        (Spread::Irregular, ProgramKind::Rows),
        (Spread::Irregular, ProgramKind::Quads),
        (Spread::Blocks, ProgramKind::Quads),
    ] {
        let is_of_fours = g.out_per_group().is_multiple_of(QUAD);
        if spread == Spread::Irregular || is_of_fours {
            check_mask(g, density, (spread, kind), number, tolerance);
        }
        if density.is_none() {
            return;
        }
    }
}

/// `kind`: what multiplies, where channels are a multiple of four.
fn check_mask<T: Number + From<f32> + Into<f64>>(
    g: &Geometry,
    density: Option<f64>,
    (spread, kind): (Spread, ProgramKind),
    number: impl Fn(f64) -> T,
    tolerance: f64,
) {
    let convert = |v: &[f64]| v.iter().map(|&v| number(v)).collect::<Vec<T>>();
    let x = noise(g.in_channels * g.n_inputs() * g.batch, 1);
    let weight = noise(g.weights_per_group() * g.groups, 2);
    let grad = noise(g.out_channels * g.n_outputs() * g.batch, 3);
    let mut kept: Vec<u8> = noise(weight.len(), 4).iter().map(|v| u8::from(v + 0.5 < density.unwrap_or(1.0))).collect();
    if spread == Spread::Blocks {
        let per_output = g.in_per_group() * g.n_taps();
        for block in kept.chunks_exact_mut(QUAD * per_output) {
            let (first, others) = block.split_at_mut(per_output);
            others.chunks_exact_mut(per_output).for_each(|other| other.copy_from_slice(first));
        }
    }
    let masked: Vec<f64> = weight.iter().zip(&kept).map(|(w, &k)| w * f64::from(k)).collect();
    let mut expected = reference(g, &x, &masked, &grad);
    expected.weight_gradient.iter_mut().zip(&kept).for_each(|(g, &k)| *g *= f64::from(k));
    let (x, weight, grad) = (convert(&x), convert(&weight), convert(&grad));
    let places = KeptPlaces::of_bytes(vec![kept.len()], &kept);
    let kept_weights = places.gathered(&weight);
    let program = |direction, kind| density.map(|density| Program::new::<T>(g, direction, kind, &places, density));
    let products = |direction| {
        let is_of_fours = g.map(direction).rows.is_multiple_of(QUAD);
        program(direction, if is_of_fours { kind } else { ProgramKind::Rows })
    };
    let (forward, backward) = (products(Direction::Forward), products(Direction::InputGradient));
    let dots = program(Direction::Forward, ProgramKind::Rows);
    let shared = program(Direction::InputGradient, ProgramKind::Rows);
    let output = written(grad.len(), |out| {
        let is_finite = match &forward {
            Some(program) => sparse::apply(program, &kept_weights, &x, out),
            None => dense::apply(g, Direction::Forward, &weight, &x, out),
        };
        assert!(is_finite);
    });
    let input_gradient = written(x.len(), |out| {
        let is_finite = match &backward {
            Some(program) => sparse::apply(program, &kept_weights, &grad, out),
            None => dense::apply(g, Direction::InputGradient, &weight, &grad, out),
        };
        assert!(is_finite);
    });
    let weight_gradient = match &dots {
        Some(program) => places.scattered(&sparse::weight_gradient(program, &places, &x, &grad)),
        None => written(weight.len(), |out| dense_weight::weight_gradient(g, &x, &grad, None, out)),
    };
    let mut both = None;
    if let Some(program) = &shared {
        let mut of_weight = Vec::new();
        let of_input = written(x.len(), |of_input| {
            (of_weight, _) = sparse::gradients(program, &places, &kept_weights, (&x, &grad), of_input);
        });
        both = Some((of_input, places.scattered(&of_weight)));
    }
    let name = format!("density {density:?}, {:?}:", InstructionSet::active());
    assert_close(&format!("{name} output"), g, &output, &expected.output, tolerance);
    assert_close(&format!("{name} input gradient"), g, &input_gradient, &expected.input_gradient, tolerance);
    assert_close(&format!("{name} weight gradient"), g, &weight_gradient, &expected.weight_gradient, tolerance);
    for (gradient, &kept) in weight_gradient.iter().zip(&kept) {
        assert!(kept == 1 || *gradient == T::default(), "a pruned weight has a gradient");
    }
    if let Some((of_input, of_weight)) = both {
        assert_close(&format!("{name} both gradients, input"), g, &of_input, &expected.input_gradient, tolerance);
        assert_close(&format!("{name} both gradients, weight"), g, &of_weight, &expected.weight_gradient, tolerance);
        for (gradient, &kept) in of_weight.iter().zip(&kept) {
            assert!(kept == 1 || *gradient == T::default(), "a pruned weight has a gradient");
        }
    }
}

#[test]
fn dense_kernels_of_every_instruction_set_are_the_definition() {
    for set in sets() {
        set.run(|| shapes().iter().for_each(|g| check(g, None, |v| v as f32, 5e-6)));
    }
    shapes().iter().for_each(|g| check(g, None, |v| v, 1e-13));
}

#[test]
fn sparse_kernels_of_every_instruction_set_are_the_definition() {
    let densities: &[f64] = if cfg!(miri) { &[0.5] } else { &[0.0, 0.02, 0.1, 0.5, 1.0] };
    for &density in densities {
        for set in sets() {
            set.run(|| shapes().iter().for_each(|g| check(g, Some(density), |v| v as f32, 5e-6)));
        }
        shapes().iter().for_each(|g| check(g, Some(density), |v| v, 1e-13));
    }
}

/// Shapes beside those of [`shapes`]: ragged batches, tiles over both edges, wide padding, several chunks and ranges of channels.
fn winograd_shapes() -> Vec<Geometry> {
    let wide = Geometry { input: [4, 9], output: [10, 15], padding: [4, 4], ..square(18, [5, 7], 3, 1, 0, 3) };
    let mut all = shapes();
    all.extend([
        square(64, [64, 64], 3, 1, 1, 4),
        square(64, [130, 20], 3, 1, 1, 3),
        square(32, [20, 140], 3, 1, 1, 4),
        square(150, [6, 4], 3, 1, 0, 6),
        square(17, [3, 2], 3, 1, 2, 5),
        wide,
    ]);
    all.retain(|g| winograd::applies_to(g) && (!cfg!(miri) || g.batch * g.in_channels < 20));
    all
}

fn check_winograd<T: Number + From<f32> + Into<f64>>(g: &Geometry, number: impl Fn(f64) -> T, tolerance: f64) {
    let convert = |v: &[f64]| v.iter().map(|&v| number(v)).collect::<Vec<T>>();
    let x = noise(g.in_channels * g.n_inputs() * g.batch, 1);
    let weight = noise(g.weights_per_group() * g.groups, 2);
    let grad = noise(g.out_channels * g.n_outputs() * g.batch, 3);
    let expected = reference(g, &x, &weight, &grad);
    let (x, weight, grad) = (convert(&x), convert(&weight), convert(&grad));
    let output =
        written(grad.len(), |out| assert!(winograd::apply(g, Direction::Forward, &weight, &x, None, out), "{g:?}"));
    let input_gradient = written(x.len(), |out| {
        assert!(winograd::apply(g, Direction::InputGradient, &weight, &grad, None, out), "{g:?}");
    });
    let weight_gradient = written(weight.len(), |out| winograd::weight_gradient(g, &x, &grad, None, out));
    let name = format!("Winograd, {:?}:", InstructionSet::active());
    assert_close(&format!("{name} output"), g, &output, &expected.output, tolerance);
    assert_close(&format!("{name} input gradient"), g, &input_gradient, &expected.input_gradient, tolerance);
    assert_close(&format!("{name} weight gradient"), g, &weight_gradient, &expected.weight_gradient, tolerance);
}

#[test]
fn winograd_s_kernels_of_every_instruction_set_are_the_definition() {
    for set in sets() {
        set.run(|| winograd_shapes().iter().for_each(|g| check_winograd(g, |v| v as f32, 5e-6)));
    }
    winograd_shapes().iter().for_each(|g| check_winograd(g, |v| v, 1e-13));
}

#[test]
fn winograd_s_rounding_errors_are_a_few_times_those_of_the_definition_s_order() {
    if cfg!(miri) {
        return;
    }
    let g = square(64, [64, 64], 3, 1, 1, 8);
    let [x, weight, grad] = [1, 2, 3].map(|seed| {
        let len = if seed == 2 { g.weights_per_group() } else { 64 * 64 * 64 };
        noise(len, seed).into_iter().map(|v| v as f32).collect::<Vec<f32>>()
    });
    let wide = |of: &[f32]| of.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let expected = reference(&g, &wide(&x), &wide(&weight), &wide(&grad));
    // The root of the mean square error, as a part of the root of the mean square.
    let error = |got: &[f32], expected: &[f64]| {
        let errors: f64 = got.iter().zip(expected).map(|(&got, expected)| (f64::from(got) - expected).powi(2)).sum();
        (errors / expected.iter().map(|v| v * v).sum::<f64>()).sqrt()
    };
    for set in sets() {
        set.run(|| {
            let [dense, tiles] = [false, true].map(|by_tiles| {
                let map = |direction, source: &[f32]| {
                    written(source.len(), |out| {
                        assert!(match by_tiles {
                            true => winograd::apply(&g, direction, &weight, source, None, out),
                            false => dense::apply(&g, direction, &weight, source, out),
                        });
                    })
                };
                let of_weight = written(weight.len(), |out| match by_tiles {
                    true => winograd::weight_gradient(&g, &x, &grad, None, out),
                    false => dense_weight::weight_gradient(&g, &x, &grad, None, out),
                });
                [
                    error(&map(Direction::Forward, &x), &expected.output),
                    error(&map(Direction::InputGradient, &grad), &expected.input_gradient),
                    error(&of_weight, &expected.weight_gradient),
                ]
            });
            for (dense, tiles) in dense.into_iter().zip(tiles) {
                assert!(tiles < 4e-6 && tiles < 5.0 * dense, "{set:?}: {dense:e}, {tiles:e}");
            }
        });
    }
}

#[test]
fn unfolding_is_a_convolution_of_one_tap() {
    for g in shapes() {
        let chwn = noise(g.in_channels * g.n_inputs() * g.batch, 1);
        let weight = noise(g.weights_per_group() * g.groups, 2);
        let expected = reference(&g, &chwn, &weight, &vec![0.0; g.out_channels * g.n_outputs() * g.batch]).output;
        let per_picture = g.in_channels * g.n_inputs();
        let nchw: Vec<f64> = (0..chwn.len()).map(|i| chwn[i % per_picture * g.batch + i / per_picture]).collect();
        let inner = unfold::unfolded(&g);
        let mut columns = vec![f64::NAN; inner.in_channels * inner.batch];
        unfold::unfold(&g, &nchw, inner.batch, &mut columns);
        let got =
            written(expected.len(), |out| assert!(dense::apply(&inner, Direction::Forward, &weight, &columns, out)));
        // `[channel, picture, position]` against `[channel, position, picture]`
        let positions = g.n_outputs();
        let got: Vec<f64> = (0..got.len())
            .map(|i| {
                let (n, position, channel) = (i % g.batch, i / g.batch % positions, i / g.batch / positions);
                got[(channel * g.batch + n) * positions + position]
            })
            .collect();
        assert_close("unfolded output", &g, &got, &expected, 1e-13);
    }
}

#[test]
fn the_instruction_set_of_a_thread_comes_back() {
    let before = InstructionSet::active();
    InstructionSet::Portable.run(|| assert_eq!(InstructionSet::active(), InstructionSet::Portable));
    assert_eq!(InstructionSet::active(), before);
}
