//! Sparse products of few samples, `[N, I]`: a masked linear layer.
//!
//! Each kept weight is read once. Threads that shared transposed samples, or sums that are yet to be transposed, would wait for
//! each other's caches longer than they multiply: here each transposes all samples for itself, and brings its own rows' sums
//! where they belong. Nothing is multiplied but kept weights and samples, so that there is nothing to mend.

use std::mem::MaybeUninit;

use super::geometry::Direction;
use super::kernel::table::{Number, SparseDotFn, SparseFn};
use super::kernel::tile::{Pitch, SparseTile};
use super::program::{ClassProgram, Program};
use super::scratch::{ALONE, Shared, with_buffers};
use super::sparse::with_packed;
use crate::parallel::on_all_threads;
use crate::transpose::transpose_here;

/// Rows of one task at least: one more task transposes all samples once more.
const MIN_ROWS: usize = 16;

/// A program that a product can run by: all of its lists read one panel, once.
pub(crate) struct SparseProduct<'a, T: 'static> {
    program: &'a Program,
    class: &'a ClassProgram,
    kernel: SparseFn<T>,
    /// Of single rows.
    dot_kernel: Option<SparseDotFn<T>>,
}

impl<'a, T: Number> SparseProduct<'a, T> {
    /// `None` if the lists are cut or the samples are too many.
    pub(crate) fn new(program: &'a Program) -> Option<Self> {
        let [class] = &program.classes[..] else { return None };
        let is_one = program.map.geometry.groups == 1 && class.tiling.is_read_once(&program.map, T::kernels().lanes);
        let (kernel, dot_kernel) = T::kernels().sparse(program.kind, class.tiling.shape);
        is_one.then_some(Self { program, class, kernel: kernel?, dot_kernel })
    }

    /// Writes all of `target` `[N, rows]` from `source` `[N, depth]` and the kept weights in row-major order.
    pub(crate) fn apply(&self, kept: &[T], source: &[T], target: &mut [MaybeUninit<T>]) {
        let map = &self.program.map;
        let (batch, width) = (map.geometry.batch, self.class.tiling.row_pitch);
        assert_eq!((source.len(), target.len()), (batch * map.depth, batch * map.rows));
        let target = Shared::of_uninit(target);
        with_packed(self.program, kept, |values| {
            assert_eq!(values.len(), self.program.ranks.len());
            self.for_rows(|rows| {
                with_buffers::<T, _>(map.depth * width, rows.len() * width, |panel, sums| {
                    // SAFETY: `panel` has `depth` rows of `width`.
                    unsafe { transpose_here(source, [batch, map.depth], map.depth, panel.as_mut_ptr(), width) };
                    let at_once = self.program.kind.rows();
                    for (row, sums) in rows.clone().step_by(at_once).zip(sums.chunks_exact_mut(at_once * width)) {
                        let values = values[self.class.first_value_of(map, 0, 0, row)..].as_ptr();
                        let tile = self.tile(row, panel.as_ptr());
                        // SAFETY: the kernel is of this machine's instruction set; the segments end with one more entry;
                        // offsets stay inside the panel; `sums` has a tile for each of the rows that go together.
                        unsafe { (self.kernel)(&tile, values, sums.as_mut_ptr(), true) };
                    }
                    // SAFETY: of every sample the numbers of these rows, which no other task writes.
                    unsafe {
                        transpose_here(sums, [rows.len(), batch], width, target.at(rows.start), map.rows);
                    }
                });
            });
        });
    }

    /// The gradient of the kept weights, in row-major order, from `input` `[N, depth]` and `output_grad` `[N, rows]`, with a program of
    /// the forward direction; `None` if it is not of single rows.
    pub(crate) fn weight_gradient(&self, input: &[T], output_grad: &[T]) -> Option<Vec<T>> {
        let (map, kernel) = (&self.program.map, self.dot_kernel?);
        // Entries are numbered as the kept weights are.
        assert!(map.direction == Direction::Forward && self.program.is_in_order);
        let (batch, width) = (map.geometry.batch, self.class.tiling.row_pitch);
        assert_eq!((input.len(), output_grad.len()), (batch * map.depth, batch * map.rows));
        let mut grad = vec![T::default(); self.program.n_kept];
        let sums = Shared::new(&mut grad);
        self.for_rows(|rows| {
            with_buffers::<T, _>(map.depth * width, rows.len() * width, |panel, factors| {
                // SAFETY: `panel` has `depth` rows of `width`, `factors` one for each of these rows.
                unsafe {
                    transpose_here(input, [batch, map.depth], map.depth, panel.as_mut_ptr(), width);
                    transpose_here(
                        &output_grad[rows.start..],
                        [batch, rows.len()],
                        map.rows,
                        factors.as_mut_ptr(),
                        width,
                    );
                }
                // Behind the last sample nothing is added.
                for row in panel.chunks_exact_mut(width).chain(factors.chunks_exact_mut(width)) {
                    row[batch..].fill(T::default());
                }
                for (row, factors) in rows.zip(factors.chunks_exact(width)) {
                    // SAFETY: as above; these sums are of this row's entries, which no other task writes.
                    unsafe { kernel(&self.tile(row, panel.as_ptr()), factors.as_ptr(), sums.at(0)) };
                }
            });
        });
        Some(grad)
    }

    fn tile(&self, row: usize, panel: *const T) -> SparseTile<T> {
        let (tiling, lanes) = (&self.class.tiling, T::kernels().lanes);
        let segments = &self.class.segments[tiling.segment_index(&self.program.map, 0, 0, row)..];
        assert!(segments.len() > tiling.n_segments);
        SparseTile {
            segments: segments.as_ptr(),
            offsets: self.class.offsets.as_ptr(),
            panel,
            row_pitch: tiling.row_pitch,
            target: Pitch { row: tiling.row_pitch, column: lanes, log_unit: 0 },
            next_row: tiling.row_pitch,
        }
    }

    /// Runs `task` for ranges of rows, one for each thread.
    fn for_rows(&self, task: impl Fn(std::ops::Range<usize>) + Send + Sync) {
        let (map, n_entries) = (&self.program.map, self.class.offsets.len());
        let n_threads = match n_entries * map.geometry.batch {
            ..ALONE => 1,
            _ => rayon::current_num_threads(),
        };
        let range = map.rows.div_ceil(n_threads).max(MIN_ROWS).next_multiple_of(self.program.kind.rows());
        on_all_threads(map.rows.div_ceil(range), |at| task(at * range..((at + 1) * range).min(map.rows)));
    }
}
