//! Sparse convolution of a small batch in `[N, C, H, W]`: vectors run over the positions of one picture.
//!
//! Each channel is copied once into a plane with its padding (one plane per remainder modulo the stride). Read as one
//! long row, a tap is then a fixed distance, so a kept weight multiplies whole vectors of neighbouring positions and
//! nothing is unfolded. The few sums that fall on the padding between two rows are thrown away.

use std::mem::MaybeUninit;

use super::geometry::{Direction, Geometry};
use super::kernel::table::{Kernels, Number, ProgramKind, TileShape};
use super::kernel::tile::{Pitch, SparseTile};
use super::lattice::{Class, classes};
use super::scratch::{Shared, for_each_task, with_buffers};

/// Output channels of one task.
const ROW_RANGE: usize = 16;

/// Vectors that the positions of one picture take, with the padding between its rows.
pub(crate) fn n_vectors(g: &Geometry, lanes: usize) -> usize {
    let reach = (g.dilation[1] * (g.kernel[1] - 1)).div_ceil(g.stride[1]);
    ((g.output[0] - 1) * (g.output[1] + reach) + g.output[1]).div_ceil(lanes)
}

/// A mask's lists for small batches. Lengths in elements.
#[derive(Debug)]
pub(crate) struct FlatProgram {
    geometry: Geometry,
    class: Class,
    first_shift: [isize; 2],
    /// Rows and columns of a padded plane.
    plane: [usize; 2],
    channel_pitch: usize,
    shape: TileShape,
    n_tiles: usize,
    tile_len: usize,
    /// Where the entries of an output channel begin, and the end.
    segments: Vec<u32>,
    offsets: Vec<u32>,
    positions: Vec<u32>,
    used_channels: Vec<bool>,
}

impl FlatProgram {
    /// `kept` has the weight's elements, 0 = pruned.
    pub(crate) fn new<T: Number>(g: &Geometry, kept: &[u8]) -> Self {
        let map = g.map(Direction::Forward);
        let Some(class) = classes(&map).pop() else {
            unreachable!("the forward direction has one class, and an output has positions");
        };
        let (shifts_y, shifts_x) = (class.shifts(0), class.shifts(1));
        let grid = class.target.size;
        let plane = [grid[0] + (shifts_y.1 - shifts_y.0) as usize, grid[1] + (shifts_x.1 - shifts_x.0) as usize];
        let kernels = T::kernels();
        let n_vectors = ((grid[0] - 1) * plane[1] + grid[1]).div_ceil(kernels.lanes);
        let shape = tile(n_vectors, kernels);
        let n_tiles = n_vectors.div_ceil(shape.vectors);
        let channel_pitch = class.planes.len() * plane[0] * plane[1];
        let (mut segments, mut offsets, mut positions) = (vec![0], Vec::new(), Vec::new());
        let mut used_channels = vec![false; g.in_channels];
        for o in 0..g.out_channels {
            for c in 0..g.in_per_group() {
                let channel = o / g.out_per_group() * g.in_per_group() + c;
                for tap in &class.taps {
                    let position = (o * g.in_per_group() + c) * g.n_taps() + tap.tap;
                    if kept[position] != 0 {
                        let shift = [0, 1].map(|axis| (tap.shift[axis] - [shifts_y.0, shifts_x.0][axis]) as usize);
                        let offset = channel * channel_pitch + (tap.plane * plane[0] + shift[0]) * plane[1] + shift[1];
                        offsets.push(offset as u32);
                        positions.push(position as u32);
                        used_channels[channel] = true;
                    }
                }
            }
            segments.push(offsets.len() as u32);
        }
        Self {
            geometry: *g,
            first_shift: [shifts_y.0, shifts_x.0],
            plane,
            channel_pitch,
            shape,
            n_tiles,
            tile_len: shape.vectors * kernels.lanes,
            class,
            segments,
            offsets,
            positions,
            used_channels,
        }
    }

    /// The kept weights in the order of the lists.
    pub(crate) fn pack<T: Number>(&self, weight: &[T], values: &mut [T]) {
        assert_eq!(weight.len(), self.geometry.weights_per_group() * self.geometry.groups);
        for (value, &position) in values.iter_mut().zip(&self.positions) {
            *value = weight[position as usize];
        }
    }

    pub(crate) fn n_entries(&self) -> usize {
        self.positions.len()
    }

    /// Writes all of `out` `[N, O, OH, OW]` from `x` `[N, I, H, W]` and [packed](Self::pack) values.
    pub(crate) fn apply<T: Number>(&self, values: &[T], x: &[T], out: &mut [MaybeUninit<T>]) {
        let g = &self.geometry;
        assert_eq!(x.len(), g.batch * g.in_channels * g.n_inputs());
        assert_eq!(out.len(), g.batch * g.out_channels * g.n_outputs());
        assert_eq!(values.len(), self.offsets.len());
        let kernels = T::kernels();
        let (Some(kernel), _) = kernels.sparse(ProgramKind::Rows, self.shape) else {
            unreachable!("the tile is one of the kernels' own");
        };
        // The last tile of the last tap reads past its plane.
        let picture = g.in_channels * self.channel_pitch + self.n_tiles * self.tile_len;
        let out = Shared::of_uninit(out);
        with_buffers::<T, _>(g.batch * picture, 0, |panel, _| {
            let shared = Shared::new(panel);
            for_each_task(g.batch * g.in_channels, panel.len(), |task| {
                let (n, c) = (task / g.in_channels, task % g.in_channels);
                if self.used_channels[c] {
                    let from = &x[task * g.n_inputs()..][..g.n_inputs()];
                    let at = shared.at(n * picture + c * self.channel_pitch);
                    // SAFETY: the planes of this task's channel, inside the panel.
                    self.copy_channel(from, unsafe { std::slice::from_raw_parts_mut(at, self.channel_pitch) });
                }
            });
            let panel = &*panel;
            let n_ranges = g.out_channels.div_ceil(ROW_RANGE);
            let work = self.offsets.len() * self.n_tiles * self.tile_len * g.batch;
            for_each_task(g.batch * n_ranges, work, |task| {
                let (n, range) = (task / n_ranges, task % n_ranges);
                let panel = &panel[n * picture..][..picture];
                with_buffers::<T, _>(self.n_tiles * self.tile_len, 0, |sums, _| {
                    for o in range * ROW_RANGE..((range + 1) * ROW_RANGE).min(g.out_channels) {
                        for tile in 0..self.n_tiles {
                            let args = SparseTile {
                                segments: self.segments[o..o + 2].as_ptr(),
                                offsets: self.offsets.as_ptr(),
                                panel: panel[tile * self.tile_len..].as_ptr(),
                                row_pitch: 0,
                                target: Pitch { row: 0, column: kernels.lanes, log_unit: 0 },
                                next_row: 0,
                            };
                            let sums = sums[tile * self.tile_len..][..self.tile_len].as_mut_ptr();
                            // SAFETY: the kernel is of this machine's instruction set; an offset plus a position is
                            // inside the picture's planes, a tile beyond inside the slack; `sums` has a tile.
                            unsafe { kernel(&args, values.as_ptr(), sums, true) };
                        }
                        for y in 0..g.output[0] {
                            let from = &sums[y * self.plane[1]..][..g.output[1]];
                            let to = ((n * g.out_channels + o) * g.output[0] + y) * g.output[1];
                            // SAFETY: a row of this task's own channels of `out`.
                            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), out.at(to), from.len()) };
                        }
                    }
                });
            });
        });
    }

    fn copy_channel<T: Number>(&self, from: &[T], to: &mut [T]) {
        let width = self.geometry.input[1];
        for (plane, grid) in to.chunks_exact_mut(self.plane[0] * self.plane[1]).zip(&self.class.planes) {
            for (r, row) in plane.chunks_exact_mut(self.plane[1]).enumerate() {
                let y = r as isize + self.first_shift[0];
                if y < 0 || y >= grid.size[0] as isize {
                    row.fill(T::default());
                    continue;
                }
                let y = grid.origin[0] + grid.step[0] * y as usize;
                let before = (-self.first_shift[1]).clamp(0, self.plane[1] as isize) as usize;
                let skipped = self.first_shift[1].max(0) as usize;
                let inside = grid.size[1].saturating_sub(skipped).min(self.plane[1] - before);
                row[..before].fill(T::default());
                row[before + inside..].fill(T::default());
                let row = &mut row[before..before + inside];
                let from = &from[y * width..][..width];
                if grid.step[1] == 1 {
                    row.copy_from_slice(&from[grid.origin[1] + skipped..][..inside]);
                } else {
                    let from = from.iter().skip(grid.origin[1]).step_by(grid.step[1]).skip(skipped);
                    row.iter_mut().zip(from).for_each(|(to, &from)| *to = from);
                }
            }
        }
    }
}

/// The tile of one row that covers `n_vectors` at the least cost: its own loads and a share of each weight's.
fn tile<T>(n_vectors: usize, kernels: &Kernels<T>) -> TileShape {
    let cost = |shape: &TileShape| (n_vectors.next_multiple_of(shape.vectors) * (shape.vectors + 2)) / shape.vectors;
    let rows = kernels.sparse.iter().map(|(shape, ..)| *shape).filter(|shape| shape.rows == 1 && shape.cut_unit == 0);
    rows.min_by_key(cost).unwrap_or(TileShape { rows: 1, vectors: 1, cut_unit: 0 })
}
