//! Small batches in `[N, C, H, W]` layout: vectors run over positions instead of the batch.
//!
//! The input is unfolded into one row per (channel, tap) with the positions of all pictures as columns. What is left
//! is a 1×1 convolution whose "batch" are the columns, so the same dense and sparse kernels run it, and the weight
//! needs no rearranging.

use std::mem::MaybeUninit;

use super::geometry::Geometry;
use super::kernel::table::Number;
use super::scratch::{Shared, as_uninit, for_each_task, with_buffers};
use crate::transpose::transpose_pitched;

/// Into how many tasks unfolding is cut, at most.
const MAX_TASKS: usize = 32;

/// The 1×1 convolution that is left after unfolding.
pub(crate) fn unfolded(g: &Geometry) -> Geometry {
    Geometry {
        batch: g.batch * g.n_outputs(),
        in_channels: g.in_channels * g.n_taps(),
        input: [1, 1],
        kernel: [1, 1],
        output: [1, 1],
        stride: [1, 1],
        padding: [0, 0],
        dilation: [1, 1],
        ..*g
    }
}

/// Writes all of `columns`: `[channel, tap, picture, position]`, zero where a tap lies outside. Rows begin `pitch` apart and end with
/// zeros.
pub(crate) fn unfold<T: Number>(g: &Geometry, x: &[T], pitch: usize, columns: &mut [T]) {
    let per_row = g.batch * g.n_outputs();
    assert_eq!(x.len(), g.batch * g.in_channels * g.n_inputs());
    assert_eq!(columns.len(), g.in_channels * g.n_taps() * pitch);
    assert!(pitch >= per_row, "rows of {per_row} are {pitch} apart");
    if g.is_pixel() {
        // SAFETY: numbers are written, and nothing else.
        let columns = unsafe { as_uninit(columns) };
        return transpose_pitched(x, [g.batch, g.in_channels], [g.in_channels, pitch], columns);
    }
    // A number takes as long as some multiplications.
    let work = 8 * columns.len();
    let n_rows = g.in_channels * g.n_taps();
    let rows_per_task = n_rows.div_ceil(MAX_TASKS).max(1);
    let out = Shared::new(columns);
    for_each_task(n_rows.div_ceil(rows_per_task), work, |task| {
        for row in task * rows_per_task..((task + 1) * rows_per_task).min(n_rows) {
            // SAFETY: rows are inside `columns`, and each is one task's.
            let to = unsafe { std::slice::from_raw_parts_mut(out.at(row * pitch), pitch) };
            let (to, behind) = to.split_at_mut(per_row);
            unfold_row(g, x, (row / g.n_taps(), row % g.n_taps()), to);
            behind.fill(T::default());
        }
    });
}

/// What one tap of a channel reads at every position of every picture.
fn unfold_row<T: Number>(g: &Geometry, x: &[T], (c, tap): (usize, usize), to: &mut [T]) {
    let (ky, kx) = (tap / g.kernel[1], tap % g.kernel[1]);
    // The outputs whose tap is inside: from the first with a coordinate of at least 0 to the last within.
    let offset = kx * g.dilation[1];
    let from = g.padding[1].saturating_sub(offset).div_ceil(g.stride[1]).min(g.output[1]);
    let end = (g.input[1] + g.padding[1]).saturating_sub(offset).div_ceil(g.stride[1]).clamp(from, g.output[1]);
    for (at, line) in to.chunks_exact_mut(g.output[1]).enumerate() {
        let (n, y) = (at / g.output[0], at % g.output[0]);
        let picture = &x[(n * g.in_channels + c) * g.n_inputs()..][..g.n_inputs()];
        let row = (y * g.stride[0] + ky * g.dilation[0]).checked_sub(g.padding[0]);
        let Some(row) = row.filter(|&row| row < g.input[0]) else {
            line.fill(T::default());
            continue;
        };
        let row = &picture[row * g.input[1]..][..g.input[1]];
        line[..from].fill(T::default());
        line[end..].fill(T::default());
        if from < end {
            let row = &row[from * g.stride[1] + offset - g.padding[1]..];
            match g.stride[1] {
                1 => line[from..end].copy_from_slice(&row[..end - from]),
                stride => line[from..end].iter_mut().zip(row.iter().step_by(stride)).for_each(|(to, &v)| *to = v),
            }
        }
    }
}

/// Runs `compute`, which writes `[channel, picture, position]` whose rows begin `pitch` apart, and brings that into
/// `[picture, channel, position]`.
pub(crate) fn by_picture<T: Number>(
    g: &Geometry,
    pitch: usize,
    out: &mut [MaybeUninit<T>],
    compute: impl FnOnce(&mut [MaybeUninit<T>]),
) {
    let positions = g.n_outputs();
    if g.batch == 1 && pitch == positions {
        return compute(out);
    }
    with_buffers::<T, _>(g.out_channels * pitch, 0, |by_channel, _| {
        // SAFETY: kernels write numbers and nothing else.
        compute(unsafe { as_uninit(by_channel) });
        if positions == 1 {
            let pitches = [pitch, g.out_channels];
            return transpose_pitched(by_channel, [g.out_channels, g.batch], pitches, out);
        }
        for (n, picture) in out.chunks_exact_mut(g.out_channels * positions).enumerate() {
            for (o, to) in picture.chunks_exact_mut(positions).enumerate() {
                let from = &by_channel[o * pitch + n * positions..][..positions];
                to.iter_mut().zip(from).for_each(|(to, &from)| _ = to.write(from));
            }
        }
    });
}
