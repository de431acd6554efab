//! Dense convolution in `[channels, height, width, batch]` layout without im2col.
//!
//! A (channel, position) is a row of `batch` contiguous numbers, so a vector is a piece of the batch and a tap is a
//! broadcast weight times such a row. Taps outside the picture are left out, which at 2×2 saves 5 of 9
//! multiplications. Rows of the channels in one chunk are copied into a panel first: channel strides are powers of
//! two in real networks and would fall on the same cache lines.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use super::geometry::{Direction, Geometry, Map};
use super::scratch::{Shared, copy, for_each_task, with_buffers};
use crate::conv::kernel::table::{Kernels, MAX_ROWS, Number};
use crate::conv::kernel::tile::{DenseTile, Run};

/// Elements of the reduction that one panel row set should hold: 160 rows of 256 bytes stay in a 48 KB L1 cache.
const REDUCTION_CHUNK: usize = 160;
/// Bytes of packed panel, and of output under work, that one task may hold in its L2 cache.
const PANEL_BYTES: usize = 320 << 10;
const TARGET_BYTES: usize = 640 << 10;

/// The forward pass or the input gradient: `target` gets all of its elements written. Whether all of them are finite
/// comes back (tiles that reach past the batch hold zeros there).
pub(crate) fn apply<T: Number>(
    geometry: &Geometry,
    direction: Direction,
    weight: &[T],
    source: &[T],
    target: &mut [MaybeUninit<T>],
) -> bool {
    let map = geometry.map(direction);
    let kernels = T::kernels();
    let plan = Plan::new(&map, kernels);
    map.assert_lengths(weight.len(), source.len(), target.len());
    let out = Shared::of_uninit(target);
    let is_finite = AtomicBool::new(true);
    let n_tasks = geometry.groups * plan.batch_tiles.len() * plan.n_bands * plan.n_row_ranges;
    for_each_task(n_tasks, geometry.dense_work(), |task| {
        let (range, rest) = (task % plan.n_row_ranges, task / plan.n_row_ranges);
        let (band, rest) = (rest % plan.n_bands, rest / plan.n_bands);
        let (batch_tile, group) = (rest % plan.batch_tiles.len(), rest / plan.batch_tiles.len());
        if !plan.run(&map, kernels, group, plan.batch_tiles[batch_tile], band, range, weight, source, out) {
            is_finite.store(false, Ordering::Relaxed);
        }
    });
    is_finite.into_inner()
}

/// A piece of the batch: its first element and the vectors that cover it.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchTile {
    pub(super) start: usize,
    pub(super) vectors: usize,
}

/// Cuts a batch into tiles of `widest`, then smaller powers of two, vectors; the last may reach past its end.
pub(super) fn batch_tiles(batch: usize, lanes: usize, widest: usize) -> Vec<BatchTile> {
    let mut tiles = Vec::new();
    let (mut start, mut left) = (0, batch.div_ceil(lanes));
    while left > 0 {
        // Three vectors left cost less as one tile of four than as two tiles.
        let mut vectors = widest;
        while vectors > left && vectors / 2 >= left {
            vectors /= 2;
        }
        tiles.push(BatchTile { start, vectors });
        start += vectors * lanes;
        left = left.saturating_sub(vectors);
    }
    tiles
}

struct Plan {
    batch_tiles: Vec<BatchTile>,
    band_height: usize,
    n_bands: usize,
    row_range: usize,
    n_row_ranges: usize,
    depth_chunk: usize,
    /// Whether a run goes along the taps of a kernel row (few channels) or along the channels.
    along_taps: bool,
}

impl Plan {
    fn new<T: Number>(map: &Map, kernels: &Kernels<T>) -> Self {
        let g = &map.geometry;
        let batch_tiles = batch_tiles(g.batch, kernels.lanes, kernels.max_vectors());
        let row_bytes = batch_tiles.first().map_or(1, |tile| tile.vectors) * kernels.lanes * size_of::<T>();
        let inside: usize = (0..2)
            .map(|axis| (0..map.target[axis]).map(|at| map.inside(axis, at).count()).max().unwrap_or(1).max(1))
            .product();
        let depth_chunk = (REDUCTION_CHUNK / inside).clamp(1, map.depth.max(1));
        // Even chunks: 64 channels as 4 of 16 rather than 3 of 18 and one of 10.
        let depth_chunk = map.depth.max(1).div_ceil(map.depth.max(1).div_ceil(depth_chunk));
        let row_range = if map.rows > 96 {
            map.rows.div_ceil(map.rows.div_ceil(96)).next_multiple_of(MAX_ROWS)
        } else {
            map.rows.max(1)
        };
        let mut band_height = 1;
        while band_height < map.target[0] {
            let (low, high) = map.reach(0, 0, (band_height + 1).min(map.target[0]));
            let panel = depth_chunk * high.saturating_sub(low) * map.source[1] * row_bytes;
            let target = row_range * (band_height + 1) * map.target[1] * row_bytes;
            if panel > PANEL_BYTES || target > TARGET_BYTES {
                break;
            }
            band_height += 1;
        }
        // Bands of equal height, and at least eight tasks where the picture allows.
        let other_tasks = batch_tiles.len() * map.rows.div_ceil(row_range) * g.groups;
        let wanted = 8usize.div_ceil(other_tasks.max(1)).min(map.target[0]);
        let n_bands = map.target[0].div_ceil(band_height).max(wanted).max(1);
        let band_height = map.target[0].div_ceil(n_bands).max(1);
        Self {
            batch_tiles,
            band_height,
            n_bands: map.target[0].div_ceil(band_height),
            row_range,
            n_row_ranges: map.rows.div_ceil(row_range),
            depth_chunk,
            along_taps: map.direction == Direction::Forward && map.depth < g.kernel[1],
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one task's coordinates, spelled out once")]
    fn run<T: Number>(
        &self,
        map: &Map,
        kernels: &Kernels<T>,
        group: usize,
        tile: BatchTile,
        band: usize,
        range: usize,
        weight: &[T],
        source: &[T],
        target: Shared<T>,
    ) -> bool {
        let g = &map.geometry;
        let width = tile.vectors * kernels.lanes;
        let here = width.min(g.batch - tile.start);
        let rows = range * self.row_range..((range + 1) * self.row_range).min(map.rows);
        let lines = band * self.band_height..((band + 1) * self.band_height).min(map.target[0]);
        let (low, high) = map.reach(0, lines.start, lines.end);
        let height = high.saturating_sub(low);
        let plane = height * map.source[1];
        // An odd number of rows between channels spreads them over the cache's sets.
        let pitch = (plane | 1) * width;
        // Sums that are taken up again for the next channels stay in a compact buffer: bands of a picture lie a power
        // of two apart and would evict each other from the L2 cache. So do tiles that reach past the batch.
        let whole = lines.len() == map.target[0] && width == g.batch;
        let direct = here == width && (whole || map.depth <= self.depth_chunk);
        let target_plane = lines.len() * map.target[1];
        let buffer_row = (target_plane | 1) * width;
        let buffer_len = if direct { 0 } else { rows.len() * buffer_row };
        let weight = &weight[group * g.weights_per_group()..][..g.weights_per_group()];
        let batch = g.batch;
        let target_channel = map.target[0] * map.target[1] * batch;
        with_buffers::<T, _>(self.depth_chunk * pitch, buffer_len, |panel, buffer| {
            let (out, out_row, out_position) = if direct {
                let first =
                    (group * map.rows + rows.start) * target_channel + lines.start * map.target[1] * batch + tile.start;
                (target.at(first), target_channel, batch)
            } else {
                (buffer.as_mut_ptr(), buffer_row, width)
            };
            let mut runs = Vec::with_capacity(g.n_taps());
            let mut is_finite = true;
            for depth in (0..map.depth).step_by(self.depth_chunk) {
                let depth_end = (depth + self.depth_chunk).min(map.depth);
                for c in depth..depth_end {
                    let from = ((group * map.depth + c) * map.source[0] + low) * map.source[1] * batch + tile.start;
                    pack_rows(&source[from..], &mut panel[(c - depth) * pitch..], plane, batch, width, here);
                }
                for line in lines.clone() {
                    for column in 0..map.target[1] {
                        runs.clear();
                        let mut run_len = depth_end - depth;
                        let (mut w_step, mut x_step) = (map.weight_step, pitch);
                        let at = |y: usize, x: usize| (((y - low) * map.source[1] + x) * width) as u32;
                        if self.along_taps {
                            let mut inside = map.inside(1, column);
                            let first = inside.next();
                            run_len = first.map_or(0, |_| 1 + inside.count());
                            (w_step, x_step) = (1, g.dilation[1] * width);
                            if let Some((kx, x)) = first {
                                for c in depth..depth_end {
                                    runs.extend(map.inside(0, line).map(|(ky, y)| Run {
                                        weight: (c * map.weight_step + ky * g.kernel[1] + kx) as u32,
                                        panel: ((c - depth) * pitch) as u32 + at(y, x),
                                    }));
                                }
                            }
                        } else {
                            for (ky, y) in map.inside(0, line) {
                                runs.extend(map.inside(1, column).map(|(kx, x)| Run {
                                    weight: (depth * map.weight_step + ky * g.kernel[1] + kx) as u32,
                                    panel: at(y, x),
                                }));
                            }
                        }
                        let position = (line - lines.start) * map.target[1] + column;
                        let mut row = rows.start;
                        while row < rows.end {
                            let n = (rows.end - row).min(MAX_ROWS);
                            let tile_args = DenseTile {
                                runs: &runs,
                                run_len,
                                weight: weight[row * map.weight_row..].as_ptr(),
                                w_row: map.weight_row,
                                w_step,
                                panel: panel.as_ptr(),
                                x_step,
                                out: out.wrapping_add((row - rows.start) * out_row + position * out_position),
                                out_row,
                                first: depth == 0,
                                // What is not finite once stays so.
                                checks: depth_end == map.depth,
                            };
                            // SAFETY: the kernel is of this machine's instruction set; runs point at source rows
                            // inside the panel (`reach` covers `inside`) and at weights of rows `row..row + n` of
                            // this chunk; `out` has `n` rows of `width` elements that no other task writes.
                            is_finite &= unsafe { kernels.dense[tile.vectors.ilog2() as usize][n - 1](&tile_args) };
                            row += n;
                        }
                    }
                }
            }
            if !direct {
                for row in 0..rows.len() {
                    for position in 0..target_plane {
                        let from = &buffer[row * buffer_row + position * width..][..here];
                        let to = (group * map.rows + rows.start + row) * target_channel
                            + (lines.start * map.target[1] + position) * batch
                            + tile.start;
                        // SAFETY: `here` elements of this task's own part of the target.
                        unsafe { copy(from.as_ptr(), target.at(to), here) };
                    }
                }
            }
            is_finite
        })
    }
}

/// Copies `n_rows` rows of `here` elements that lie `batch` apart into rows of `width`, the rest zero.
fn pack_rows<T: Number>(from: &[T], to: &mut [T], n_rows: usize, batch: usize, width: usize, here: usize) {
    if batch == width {
        to[..n_rows * width].copy_from_slice(&from[..n_rows * width]);
        return;
    }
    for row in 0..n_rows {
        let to = &mut to[row * width..][..width];
        let from = &from[row * batch..][..here];
        // SAFETY: `here` elements in both, of which there are at most `width`.
        unsafe { copy(from.as_ptr(), to[..here].as_mut_ptr(), here) };
        to[here..].fill(T::default());
    }
}
