//! The gradients of small batches in `[N, C, H, W]`: picture by picture, with vectors over positions, where a few pictures
//! would leave vectors over the batch all but empty.
//!
//! With a stride of 1 the input gradient is itself a convolution: of the output's gradient with the weight's taps in reverse
//! and its channels exchanged. The weight gradient is the product of the unfolded picture and the output's gradient.

use std::mem::MaybeUninit;

use super::geometry::{Direction, Geometry};
use super::kernel::table::Number;
use super::scratch::{as_uninit, with_buffers};
use super::{dense, mend, unfold};
use crate::layout::Layout;
use crate::parallel::all_written;
use crate::pattern::Pattern;
use crate::transpose::transpose;

/// Positions from which vectors over them are full enough.
const POSITIONS: usize = 64;
/// Pictures that leave vectors over them emptier than unfolding costs.
const PICTURES: usize = 3;
/// Numbers of an unfolded picture beyond which it takes more memory than it is worth: 16 MB of f32.
const UNFOLDED: usize = 1 << 22;

/// Whether the gradients are computed here.
pub(super) fn takes(g: &Geometry) -> bool {
    let reaches = |axis: usize| g.padding[axis] <= g.dilation[axis] * (g.kernel[axis] - 1);
    (1..=PICTURES).contains(&g.batch)
        && g.groups == 1
        && g.stride == [1, 1]
        && g.n_outputs() >= POSITIONS
        && g.n_inputs() >= POSITIONS
        && g.n_taps() > 0
        && g.n_taps() * (g.in_channels * g.n_outputs()).max(g.out_channels * g.n_inputs()) <= UNFOLDED
        && reaches(0)
        && reaches(1)
}

/// The convolution of one picture's output gradient that its input gradient is.
pub(super) fn adjoint(g: &Geometry) -> Geometry {
    let padding = |axis: usize| g.dilation[axis] * (g.kernel[axis] - 1) - g.padding[axis];
    Geometry {
        batch: 1,
        in_channels: g.out_channels,
        out_channels: g.in_channels,
        input: g.output,
        output: g.input,
        padding: [padding(0), padding(1)],
        ..*g
    }
}

/// That convolution's weight, `[I, O, H, W]`, or its mask.
pub(crate) fn adjoint_weight<T: Copy + Send + Sync>(dims: [usize; 3], weight: &[T]) -> Vec<T> {
    let [outputs, inputs, taps] = dims;
    let place = |i: usize, o: usize| &weight[(o * inputs + i) * taps..][..taps];
    (0..inputs).flat_map(|i| (0..outputs).flat_map(move |o| place(i, o).iter().rev())).copied().collect()
}

/// The gradient of every weight, over all pictures; exact zeros where nothing is kept. `x` and `grad` in `[N, C, H, W]`.
pub(super) fn weight_gradient<T: Number>(
    g: &Geometry,
    (x, grad): (&[T], &[T]),
    pattern: Option<&Pattern>,
    out: &mut [MaybeUninit<T>],
) {
    let one = Geometry { batch: 1, ..*g };
    let (places, positions, outputs) = (g.in_channels * g.n_taps(), g.n_outputs(), g.out_channels);
    // A convolution of one pixel: positions are its channels, outputs its batch, unfolded rows its weights.
    let product = Geometry { batch: outputs, in_channels: positions, out_channels: places, ..unfold::unfolded(&one) };
    let (x_len, grad_len) = (g.in_channels * g.n_inputs(), outputs * positions);
    with_buffers::<T, _>(places * positions, grad_len + places * outputs, |columns, rest| {
        let (by_position, sums) = rest.split_at_mut(grad_len);
        let mut of_picture = vec![T::default(); if g.batch > 1 { sums.len() } else { 0 }];
        for n in 0..g.batch {
            unfold::unfold(&one, &x[n * x_len..][..x_len], positions, columns);
            // SAFETY: numbers are written, here and below, and nothing else.
            transpose(&grad[n * grad_len..][..grad_len], outputs, positions, unsafe { as_uninit(by_position) });
            let to = if n == 0 { &mut *sums } else { &mut of_picture };
            // SAFETY: as above.
            dense::apply(&product, Direction::Forward, columns, by_position, unsafe { as_uninit(to) });
            if n > 0 {
                sums.iter_mut().zip(&of_picture).for_each(|(sum, more)| *sum += *more);
            }
        }
        transpose(sums, places, outputs, out);
    });
    // SAFETY: every element was written just now.
    let out = unsafe { all_written(out) };
    if let Some(pattern) = pattern {
        pattern.clear_pruned(out);
    }
    // Taps outside the picture have become columns of zeros.
    if mend::has_padding(g) && !mend::are_finite(out) {
        mend::weight_gradient(g, (x, grad), out, Layout::Nchw);
    }
}
