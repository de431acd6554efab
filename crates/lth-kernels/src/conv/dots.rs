//! The dense forward pass at few positions in all: a linear layer for a few rows, the last layers for one picture.
//!
//! Vectors over positions, or over the batch, would be all but empty. Here they run along the reduction: a filter lies in
//! memory as it is multiplied, and so does what a position reads, once it is gathered. Filters are read once, at the pace of
//! memory, which is what such a layer's time is made of.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cost::Pass;
use super::flat;
use super::geometry::Geometry;
use super::kernel::table::Number;
use super::kernel::tile::{DOT_FILTERS, DOT_POSITIONS};
use super::scratch::{Shared, for_each_task, with_buffers};

/// Filters of one task: a multiple of those that a kernel goes through together.
const ROW_RANGE: usize = 4 * DOT_FILTERS;

/// Numbers of a filter that all positions read before the next ones: those of a few filters stay in L1.
const DEPTH_CHUNK: usize = 1024;

/// Positions of all pictures that are few. Measured with AVX2 and AVX-512 against vectors over positions: a linear layer of 4096
/// inputs and outputs takes 0.2 to 0.3 of the time at one position, 0.4 to 0.6 at 8 and 0.5 to 0.9 at 64, a convolution of 256
/// channels on 4×4 takes 0.6 at 64. A convolution of 64 channels on 16×16 (256 positions) takes 1.5.
const POSITIONS: usize = 64;

/// Numbers that a position reads: below, sums over the lanes cost more than the products.
const DEPTH: usize = 64;

/// Whether the forward pass of `g` in `[N, C, H, W]` is computed here where every weight is multiplied; what the choice between
/// that and the sparse kernels depends on.
pub(crate) fn pass(g: &Geometry, lanes: usize) -> Option<Pass> {
    let is_few = (1..=POSITIONS).contains(&(g.batch * g.n_outputs())) && g.in_per_group() * g.n_taps() >= DEPTH;
    let vectors = match g.n_outputs() {
        1 => g.batch.div_ceil(lanes),
        _ => g.batch * flat::n_vectors(g, lanes),
    };
    is_few.then_some(Pass::Few { vectors })
}

/// Writes all of `out` `[N, O, OH, OW]` from `x` `[N, I, H, W]`. Whether all of it is finite comes back: taps outside the
/// picture are multiplied with zeros.
pub(crate) fn apply<T: Number>(g: &Geometry, weight: &[T], x: &[T], out: &mut [MaybeUninit<T>]) -> bool {
    assert_eq!(weight.len(), g.weights_per_group() * g.groups);
    assert_eq!(x.len(), g.batch * g.in_channels * g.n_inputs());
    assert_eq!(out.len(), g.batch * g.out_channels * g.n_outputs());
    if g.is_pixel() {
        return products(g, weight, x, out);
    }
    with_buffers::<T, _>(g.batch * g.n_outputs() * g.in_channels * g.n_taps(), 0, |gathered, _| {
        gather(g, x, gathered);
        products(g, weight, gathered, out)
    })
}

/// Writes all of `gathered` `[picture, position, channel, tap]`, zero where a tap lies outside.
fn gather<T: Number>(g: &Geometry, x: &[T], gathered: &mut [T]) {
    let per_position = g.in_channels * g.n_taps();
    // A number takes as long as some multiplications.
    let work = 8 * gathered.len();
    let gathered = Shared::new(gathered);
    for_each_task(g.batch * g.n_outputs(), work, |at| {
        let (n, position) = (at / g.n_outputs(), at % g.n_outputs());
        // SAFETY: what this task's position reads, inside `gathered`.
        let to = unsafe { std::slice::from_raw_parts_mut(gathered.at(at * per_position), per_position) };
        let along = |axis: usize, from: usize, tap: usize| {
            let at = (from * g.stride[axis] + tap * g.dilation[axis]).checked_sub(g.padding[axis]);
            at.filter(|&at| at < g.input[axis])
        };
        // Which tap reads where in a channel's plane.
        let mut reads = Vec::with_capacity(g.n_taps());
        for tap in 0..g.n_taps() {
            let y = along(0, position / g.output[1], tap / g.kernel[1]);
            let x = along(1, position % g.output[1], tap % g.kernel[1]);
            reads.extend(y.zip(x).map(|(y, x)| (tap, y * g.input[1] + x)));
        }
        if reads.len() < g.n_taps() {
            to.fill(T::default());
        }
        let picture = &x[n * g.in_channels * g.n_inputs()..][..g.in_channels * g.n_inputs()];
        for (to, plane) in to.chunks_exact_mut(g.n_taps()).zip(picture.chunks_exact(g.n_inputs())) {
            for &(tap, from) in &reads {
                to[tap] = plane[from];
            }
        }
    });
}

/// Every filter with every position of `gathered` `[picture, position, channel, tap]`.
fn products<T: Number>(g: &Geometry, weight: &[T], gathered: &[T], out: &mut [MaybeUninit<T>]) -> bool {
    let kernels = T::kernels();
    let depth = g.in_per_group() * g.n_taps();
    let n_positions = g.batch * g.n_outputs();
    let out = Shared::of_uninit(out);
    let n_ranges = g.out_per_group().div_ceil(ROW_RANGE);
    let is_finite = AtomicBool::new(true);
    for_each_task(g.groups * n_ranges, weight.len() * n_positions, |task| {
        let (group, range) = (task / n_ranges, task % n_ranges);
        let rows = range * ROW_RANGE..((range + 1) * ROW_RANGE).min(g.out_per_group());
        // Stay 0 while the sums are finite.
        let mut probes = [T::default(); DOT_FILTERS];
        for row in rows.clone().step_by(DOT_FILTERS) {
            // Past the last filter or position the last one is taken once more.
            let filter =
                |k: usize| &weight[(group * g.out_per_group() + (row + k).min(rows.end - 1)) * depth..][..depth];
            let filters: [&[T]; DOT_FILTERS] = std::array::from_fn(filter);
            let mut sums = [[T::default(); DOT_FILTERS]; POSITIONS + DOT_POSITIONS - 1];
            for from in (0..depth).step_by(DEPTH_CHUNK) {
                let len = DEPTH_CHUNK.min(depth - from);
                let mut first = 0;
                while first < n_positions {
                    let (width, kernel) = kernels.dots(n_positions - first);
                    let column = |k: usize| {
                        let position = (first + k).min(n_positions - 1);
                        gathered[(position * g.groups + group) * depth + from..][..len].as_ptr()
                    };
                    let columns = std::array::from_fn(column);
                    let filters = filters.map(|filter| filter[from..].as_ptr());
                    // SAFETY: the kernel is of this machine's instruction set; filters and columns have `len` numbers.
                    unsafe { kernel(filters, columns, len, &mut sums[first..first + width]) };
                    first += width;
                }
            }
            let (n_rows, n_outputs) = (rows.end - row, g.n_outputs());
            for (position, sums) in sums[..n_positions].iter().enumerate() {
                let (n, position) =
                    if n_outputs == 1 { (position, 0) } else { (position / n_outputs, position % n_outputs) };
                let first = ((n * g.groups + group) * g.out_per_group() + row) * n_outputs + position;
                for (k, &sum) in sums.iter().enumerate().take(n_rows) {
                    // SAFETY: an output of this task's own filters.
                    unsafe { *out.at(first + k * n_outputs) = sum };
                }
                // Past the last filter the last one's once more.
                probes.iter_mut().zip(sums).for_each(|(probe, &sum)| *probe += sum * T::default());
            }
        }
        if probes.iter().any(|probe| *probe != T::default()) {
            is_finite.store(false, Ordering::Relaxed);
        }
    });
    is_finite.into_inner()
}
