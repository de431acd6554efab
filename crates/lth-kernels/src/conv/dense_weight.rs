//! The dense weight gradient: a matrix product whose reduction runs over positions and batch.
//!
//! `grad[o, c, tap] = Σ_position Σ_n output_grad[o, position, n] · input[c, position shifted by tap, n]`. A few
//! positions of the input are transposed into a panel with the channels innermost; the output gradient is read as it
//! lies, one broadcast number at a time. With few channels (a network's stem) a panel column is a channel *and* a tap.

use std::mem::MaybeUninit;

use super::geometry::{Direction, Geometry, Map};
use super::mend;
use super::scratch::{Shared, for_each_task, with_buffers};
use crate::conv::kernel::table::{Kernels, MAX_ROWS, Number};
use crate::conv::kernel::tile::{DenseTile, Run};
use crate::layout::Layout;
use crate::parallel::all_written;
use crate::pattern::clear_pruned;

/// Rows (positions × batch) of one panel: 64 KB are read in order from the L2 cache; 128 rows would stay in L1, but
/// sums would be loaded and stored twice as often.
const PANEL_ROWS: usize = 256;
/// Output channels whose sums one task holds.
const MAX_ROW_RANGE: usize = 72;

/// Writes the gradient of every weight; exact zeros where `kept` is 0.
pub(crate) fn weight_gradient<T: Number>(
    geometry: &Geometry,
    input: &[T],
    output_grad: &[T],
    kept: Option<&[u8]>,
    grad: &mut [MaybeUninit<T>],
) {
    let kernels = T::kernels();
    let map = geometry.map(Direction::Forward);
    geometry.assert_lengths(grad.len(), input.len(), output_grad.len());
    assert!(kept.is_none_or(|kept| kept.len() == grad.len()));
    let plan = Plan::new(&map, kernels);
    compute(&plan, &map, kernels, (input, output_grad), kept, grad);
    // Where taps are columns, those outside the picture are columns of zeros.
    if plan.unfolded && mend::has_padding(geometry) {
        // SAFETY: every element was written just now.
        let grad = unsafe { all_written(grad) };
        if !mend::are_finite(grad) {
            mend::weight_gradient(geometry, (input, output_grad), grad, Layout::Chwn);
        }
    }
}

fn compute<T: Number>(
    plan: &Plan,
    map: &Map,
    kernels: &Kernels<T>,
    (input, output_grad): (&[T], &[T]),
    kept: Option<&[u8]>,
    grad: &mut [MaybeUninit<T>],
) {
    let geometry = &map.geometry;
    let n_tasks = geometry.groups * plan.column_blocks.len() * plan.n_row_ranges * plan.n_parts;
    let n_weights = grad.len();
    let run = |out: Shared<T>| {
        for_each_task(n_tasks, geometry.dense_work(), |task| {
            let (range, rest) = (task % plan.n_row_ranges, task / plan.n_row_ranges);
            let (block, rest) = (rest % plan.column_blocks.len(), rest / plan.column_blocks.len());
            let (part, group) = (rest % plan.n_parts, rest / plan.n_parts);
            let out = Shared::from_pointer(out.at(part * n_weights));
            plan.run(map, kernels, group, plan.column_blocks[block], range, part, input, output_grad, kept, out);
        });
    };
    if plan.n_parts == 1 {
        return run(Shared::of_uninit(grad));
    }
    with_buffers::<T, _>(n_weights * plan.n_parts, 0, |parts, _| {
        run(Shared::new(parts));
        for (at, to) in grad.iter_mut().enumerate() {
            let mut sum = parts[at];
            for part in 1..plan.n_parts {
                sum += parts[part * n_weights + at];
            }
            to.write(if kept.is_some_and(|kept| kept[at] == 0) { T::default() } else { sum });
        }
    });
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ColumnBlock {
    pub(super) start: usize,
    pub(super) vectors: usize,
}

/// Cuts channels into blocks of as many vectors as a tile has, then of fewer; the last may reach past their end.
pub(super) fn column_blocks<T>(n_columns: usize, kernels: &Kernels<T>) -> Vec<ColumnBlock> {
    let mut blocks = Vec::new();
    let (mut start, mut left) = (0, n_columns.div_ceil(kernels.lanes));
    while left > 0 {
        let mut vectors = kernels.max_vectors();
        while vectors > left {
            vectors /= 2;
        }
        blocks.push(ColumnBlock { start, vectors });
        start += vectors * kernels.lanes;
        left -= vectors;
    }
    blocks
}

/// Whether a column is a (channel, tap) pair rather than a channel: where channels do not fill a vector.
pub(super) fn is_unfolded(map: &Map, lanes: usize) -> bool {
    map.depth < lanes && map.geometry.n_taps() > 1
}

struct Plan {
    /// Whether a column is a (channel, tap) pair rather than a channel.
    unfolded: bool,
    n_columns: usize,
    column_blocks: Vec<ColumnBlock>,
    row_range: usize,
    n_row_ranges: usize,
    batch_chunk: usize,
    positions_chunk: usize,
    /// Parts of the picture that are summed apart, so that a small weight still makes several tasks.
    n_parts: usize,
    part_len: usize,
    /// The positions that a panel walks: outputs if the taps are columns, else inputs that reach some output. Inputs
    /// of one remainder modulo the stride follow each other: the same taps reach them.
    walk: Vec<[usize; 2]>,
}

impl Plan {
    fn new<T: Number>(map: &Map, kernels: &Kernels<T>) -> Self {
        let g = &map.geometry;
        let unfolded = is_unfolded(map, kernels.lanes);
        let n_columns = if unfolded { map.depth * g.n_taps() } else { map.depth };
        let column_blocks = column_blocks(n_columns, kernels);
        // Sums that fit in the L2 cache.
        let row_range = map.rows.div_ceil(map.rows.div_ceil(MAX_ROW_RANGE)).next_multiple_of(MAX_ROWS).min(map.rows);
        let n_row_ranges = map.rows.div_ceil(row_range);
        let batch_chunk = g.batch.div_ceil(g.batch.div_ceil(PANEL_ROWS).max(1)).max(1);
        let positions_chunk = (PANEL_ROWS / batch_chunk).max(1);
        // At least eight tasks where the picture has eight panels for each.
        let walk = walk(g, unfolded);
        let n_panels = walk.len().div_ceil(positions_chunk);
        let wanted = 8usize.div_ceil(column_blocks.len() * n_row_ranges * g.groups);
        let part_panels = n_panels.div_ceil(wanted.min(n_panels.div_ceil(8)).max(1)).max(1);
        Self {
            unfolded,
            n_columns,
            column_blocks,
            row_range,
            n_row_ranges,
            batch_chunk,
            positions_chunk,
            n_parts: n_panels.div_ceil(part_panels).max(1),
            part_len: part_panels * positions_chunk,
            walk,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one task's coordinates, spelled out once")]
    fn run<T: Number>(
        &self,
        map: &Map,
        kernels: &Kernels<T>,
        group: usize,
        block: ColumnBlock,
        range: usize,
        part: usize,
        input: &[T],
        output_grad: &[T],
        kept: Option<&[u8]>,
        grad: Shared<T>,
    ) {
        let g = &map.geometry;
        let width = block.vectors * kernels.lanes;
        let columns = block.start..(block.start + width).min(self.n_columns);
        let rows = range * self.row_range..((range + 1) * self.row_range).min(map.rows);
        let n_taps = if self.unfolded { 1 } else { g.n_taps() };
        let batch = g.batch;
        let [in_width, out_width] = [g.input[1], g.output[1]];
        let output_channel = g.n_outputs() * batch;
        let first_grad = &output_grad[(group * map.rows + rows.start) * output_channel..];
        let panel_len = self.positions_chunk * self.batch_chunk * width;
        with_buffers::<T, _>(panel_len, rows.len() * n_taps * width, |panel, sums| {
            sums.fill(T::default());
            let mut runs = Vec::with_capacity(self.positions_chunk);
            let end = ((part + 1) * self.part_len).min(self.walk.len());
            for walked in (part * self.part_len..end).step_by(self.positions_chunk) {
                let positions = &self.walk[walked..(walked + self.positions_chunk).min(end)];
                for from in (0..batch).step_by(self.batch_chunk) {
                    let n_batch = self.batch_chunk.min(batch - from);
                    for (i, &[y, x]) in positions.iter().enumerate() {
                        let panel = &mut panel[i * n_batch * width..][..n_batch * width];
                        let row_of = |column: usize| {
                            let (channel, y, x) = if self.unfolded {
                                let (channel, tap) = (column / g.n_taps(), column % g.n_taps());
                                let (ky, kx) = (tap / g.kernel[1], tap % g.kernel[1]);
                                (channel, map.source_of(0, y, ky)?, map.source_of(1, x, kx)?)
                            } else {
                                (column, y, x)
                            };
                            let at = ((group * map.depth + channel) * g.input[0] + y) * in_width + x;
                            Some(&input[at * batch + from..][..n_batch])
                        };
                        transpose_rows(kernels, columns.clone().map(row_of), panel, n_batch, width);
                    }
                    for tap in 0..n_taps {
                        runs.clear();
                        for (i, &[y, x]) in positions.iter().enumerate() {
                            let output = if self.unfolded {
                                Some((y, x))
                            } else {
                                let (ky, kx) = (tap / g.kernel[1], tap % g.kernel[1]);
                                output_of(g, 0, y, ky).zip(output_of(g, 1, x, kx))
                            };
                            if let Some((y, x)) = output {
                                runs.push(Run {
                                    weight: ((y * out_width + x) * batch + from) as u32,
                                    panel: (i * n_batch * width) as u32,
                                });
                            }
                        }
                        if runs.is_empty() {
                            continue;
                        }
                        let mut row = 0;
                        while row < rows.len() {
                            let n = (rows.len() - row).min(MAX_ROWS);
                            let tile = DenseTile {
                                runs: &runs,
                                run_len: n_batch,
                                weight: first_grad[row * output_channel..].as_ptr(),
                                w_row: output_channel,
                                w_step: 1,
                                panel: panel.as_ptr(),
                                x_step: width,
                                out: sums[(row * n_taps + tap) * width..].as_mut_ptr(),
                                out_row: n_taps * width,
                                first: false,
                                checks: false,
                            };
                            // SAFETY: the kernel is of this machine's instruction set; runs stay inside the packed
                            // part of the panel and inside one output channel; `sums` has `n` rows from `row` on.
                            unsafe { kernels.dense[block.vectors.ilog2() as usize][n - 1](&tile) };
                            row += n;
                        }
                    }
                }
            }
            for row in 0..rows.len() {
                let to = (group * map.rows + rows.start + row) * map.depth * g.n_taps() + block.start * n_taps;
                let sums = &sums[row * n_taps * width..][..n_taps * width];
                // SAFETY: inside this task's rows and columns of the gradient, which no other task writes, and inside
                // the row of `sums`.
                unsafe { interleave(sums.as_ptr(), width, grad.at(to), columns.len(), n_taps) };
                if let Some(kept) = kept {
                    let len = columns.len() * n_taps;
                    // SAFETY: what was written just now.
                    let grad = unsafe { std::slice::from_raw_parts_mut(grad.at(to), len) };
                    clear_pruned(grad, &kept[to..to + len]);
                }
            }
        });
    }
}

/// `to[column * n_taps + tap] = from[tap * width + column]`.
///
/// # Safety
/// `from` has `n_taps` rows of `width`, `to` has `n_columns * n_taps` elements.
unsafe fn interleave<T: Copy>(from: *const T, width: usize, to: *mut T, n_columns: usize, n_taps: usize) {
    for column in 0..n_columns {
        // SAFETY: the caller's promise; the nine taps of a 3×3 kernel are unrolled.
        unsafe {
            if n_taps == 9 {
                let nine: [T; 9] = std::array::from_fn(|tap| *from.add(tap * width + column));
                to.add(column * 9).cast::<[T; 9]>().write(nine);
            } else {
                for tap in 0..n_taps {
                    *to.add(column * n_taps + tap) = *from.add(tap * width + column);
                }
            }
        }
    }
}

fn walk(g: &Geometry, unfolded: bool) -> Vec<[usize; 2]> {
    let area = if unfolded { g.output } else { g.input };
    let reaches = |axis: usize, at: usize| (0..g.kernel[axis]).any(|k| output_of(g, axis, at, k).is_some());
    let [phases_y, phases_x] = if unfolded { [1, 1] } else { g.stride };
    // A stride may be longer than the picture.
    let (n_phases_y, n_phases_x) = (phases_y.min(area[0]), phases_x.min(area[1]));
    let mut walk = Vec::new();
    for (phase_y, phase_x) in (0..n_phases_y).flat_map(|y| (0..n_phases_x).map(move |x| (y, x))) {
        for y in (phase_y..area[0]).step_by(phases_y).filter(|&y| unfolded || reaches(0, y)) {
            let row = (phase_x..area[1]).step_by(phases_x).filter(|&x| unfolded || reaches(1, x));
            walk.extend(row.map(|x| [y, x]));
        }
    }
    walk
}

/// The output coordinate to which tap `k` brings input coordinate `at`.
fn output_of(g: &Geometry, axis: usize, at: usize, k: usize) -> Option<usize> {
    let distance = (at + g.padding[axis]).checked_sub(k * g.dilation[axis])?;
    let output = distance / g.stride[axis];
    (distance.is_multiple_of(g.stride[axis]) && output < g.output[axis]).then_some(output)
}

/// Makes the rows into columns: `to[n * width + column]`; missing rows and columns are zero.
pub(super) fn transpose_rows<'a, T: Number>(
    kernels: &Kernels<T>,
    rows: impl Iterator<Item = Option<&'a [T]>>,
    to: &mut [T],
    n_batch: usize,
    width: usize,
) {
    let mut column = 0;
    let mut four: [Option<&[T]>; 4] = [None; 4];
    let mut rows = rows.fuse();
    while column < width {
        for slot in &mut four {
            *slot = rows.next().flatten();
        }
        if let [Some(a), Some(b), Some(c), Some(d)] = four {
            let rows = [a, b, c, d].map(|row| row[..n_batch].as_ptr());
            let to = &mut to[column..];
            assert!(to.len() + column >= n_batch * width, "the panel has a row for each number");
            // SAFETY: rows of `n_batch` numbers; four columns of `n_batch` panel rows, just checked.
            unsafe { (kernels.transpose)(rows, n_batch, to.as_mut_ptr(), width) };
        } else {
            for n in 0..n_batch {
                for (k, row) in four.iter().enumerate() {
                    to[n * width + column + k] = row.map_or(T::default(), |row| row[n]);
                }
            }
        }
        column += 4;
    }
}
