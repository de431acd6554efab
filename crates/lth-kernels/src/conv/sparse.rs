//! Sparse convolution: only kept weights are multiplied.

use std::mem::MaybeUninit;

use super::geometry::Map;
use super::kernel::table::{Kernels, Number};
use super::kernel::tile::{Pitch, SparseTile};
use super::program::{ClassProgram, Program, Tiling};
use super::scratch::{Shared, for_each_task, with_buffers};

/// Bytes of panel, and of sums or gradients, that one task may hold in its L2 cache.
const PANEL_BYTES: usize = 896 << 10;
const SUMS_BYTES: usize = 512 << 10;
/// Rows of the weight whose gradients one task writes.
const ROW_BLOCK: usize = 8;
/// Entries whose values one task fetches.
const FETCH: usize = 1 << 14;

/// The forward pass or the input gradient (whichever the program is of): writes all of `target`.
pub(crate) fn apply<T: Number>(program: &Program, weight: &[T], source: &[T], target: &mut [MaybeUninit<T>]) {
    check(program, weight.len(), source.len(), target.len());
    let out = Shared::of_uninit(target);
    for class in &program.classes {
        with_buffers::<T, _>(class.positions.len(), 0, |values, _| {
            fetch(&class.positions, weight, values);
            apply_class(program, class, values, source, out);
        });
    }
}

/// The kept weights in the order of the program's lists.
pub(crate) fn packed<T: Number>(program: &Program, weight: &[T]) -> Vec<Vec<T>> {
    let of = |positions: &[u32]| positions.iter().map(|&position| weight[position as usize]).collect();
    program.classes.iter().map(|class| of(&class.positions)).collect()
}

/// [`apply`] for a weight that was [`packed`] before.
pub(crate) fn apply_packed<T: Number>(
    program: &Program,
    values: &[Vec<T>],
    source: &[T],
    target: &mut [MaybeUninit<T>],
) {
    let g = &program.map.geometry;
    check(program, g.weights_per_group() * g.groups, source.len(), target.len());
    let out = Shared::of_uninit(target);
    for (class, values) in program.classes.iter().zip(values) {
        assert_eq!(values.len(), class.positions.len());
        apply_class(program, class, values, source, out);
    }
}

fn check(program: &Program, weight: usize, source: usize, target: usize) {
    let map = &program.map;
    let g = &map.geometry;
    assert_eq!(source, map.depth * g.groups * map.source[0] * map.source[1] * g.batch);
    assert_eq!(target, map.rows * g.groups * map.target[0] * map.target[1] * g.batch);
    assert_eq!(weight, g.weights_per_group() * g.groups);
}

fn apply_class<T: Number>(program: &Program, class: &ClassProgram, values: &[T], source: &[T], out: Shared<T>) {
    let (map, kernels) = (&program.map, T::kernels());
    let g = &map.geometry;
    let plan = Plan::new(class, map, kernels);
    let n_tasks = plan.n_row_ranges * class.tiling.n_tiles[0] * plan.n_batch_parts * g.groups;
    let work = class.positions.len() * class.tiling.class.target.size.iter().product::<usize>() * g.batch;
    for_each_task(n_tasks, work + out_work(map), |task| {
        plan.forward(task, map, class, kernels, values, source, out);
    });
}

/// The gradient of the kept weights; all others become exactly zero. `program` is of the forward direction.
pub(crate) fn weight_gradient<T: Number>(
    program: &Program,
    input: &[T],
    output_grad: &[T],
    grad: &mut [MaybeUninit<T>],
) {
    check(program, grad.len(), input.len(), output_grad.len());
    let map = &program.map;
    let g = &map.geometry;
    let kernels = T::kernels();
    let n_weights = grad.len();
    let grad = Shared::of_uninit(grad);
    // Forward, a convolution has one class, and a row of its weight lies together.
    for class in &program.classes {
        let plan = Plan::new(class, map, kernels);
        let n_entries = class.positions.len();
        // Every piece of the batch sums for itself; the pieces are added in order at the end.
        with_buffers::<T, _>(n_entries * plan.n_batch_parts, 0, |sums, _| {
            let shared = Shared::new(sums);
            let n_tasks = plan.n_row_ranges * plan.n_batch_parts * g.groups;
            let work = n_entries * class.tiling.class.target.size.iter().product::<usize>() * g.batch;
            for_each_task(n_tasks, work + out_work(map), |task| {
                plan.dots(task, map, class, kernels, input, output_grad, shared);
            });
            let sums = &*sums;
            let n_rows = map.rows * g.groups;
            let n_blocks = n_rows.div_ceil(ROW_BLOCK);
            for_each_task(n_blocks, n_weights, |block| {
                for row in block * ROW_BLOCK..n_rows.min((block + 1) * ROW_BLOCK) {
                    // SAFETY: a row of the weight, which no other task writes.
                    let grad = unsafe { std::slice::from_raw_parts_mut(grad.at(row * map.weight_row), map.weight_row) };
                    grad.fill(T::default());
                    let (group, row_in_group) = (row / map.rows, row % map.rows);
                    for chunk in 0..class.tiling.n_chunks {
                        let segments = &class.segments[class.segment_index(map, group, chunk, row_in_group)..];
                        for entry in segments[0] as usize..segments[class.tiling.n_segments] as usize {
                            let parts = (0..plan.n_batch_parts).map(|part| sums[part * n_entries + entry]);
                            let at = class.positions[entry] as usize - row * map.weight_row;
                            grad[at] = parts.fold(T::default(), |sum, part| sum + part);
                        }
                    }
                }
            });
        });
    }
}

fn out_work(map: &Map) -> usize {
    map.rows * map.geometry.groups * map.target[0] * map.target[1] * map.geometry.batch
}

fn fetch<T: Number>(positions: &[u32], weight: &[T], values: &mut [T]) {
    use rayon::prelude::*;
    let fetch = |(values, positions): (&mut [T], &[u32])| {
        for (value, &position) in values.iter_mut().zip(positions) {
            *value = weight[position as usize];
        }
    };
    if positions.len() <= FETCH {
        fetch((values, positions));
    } else {
        values.par_chunks_mut(FETCH).zip(positions.par_chunks(FETCH)).for_each(fetch);
    }
}

/// How the work of one class is cut into tasks.
struct Plan<'a> {
    tiling: &'a Tiling,
    /// Numbers in one tile.
    tile_len: usize,
    /// How a copied tile lies.
    own_pitch: Pitch,
    /// Numbers of the batch in one tile.
    width: usize,
    n_batch_parts: usize,
    row_range: usize,
    n_row_ranges: usize,
    /// Chunks that are packed at a time.
    chunks_at_once: usize,
}

impl<'a> Plan<'a> {
    fn new<T: Number>(class: &'a ClassProgram, map: &Map, kernels: &Kernels<T>) -> Self {
        let tiling = &class.tiling;
        let tile_len = tiling.shape.rows * tiling.shape.vectors * kernels.lanes;
        let width = tiling.batch_vectors * kernels.lanes;
        let n_batch_parts = map.geometry.batch.div_ceil(width);
        let band_bytes = tiling.n_tiles[1] * tile_len * size_of::<T>();
        let fitting = (SUMS_BYTES / band_bytes).max(16);
        // At least eight tasks, but no fewer than 16 rows each: a panel is packed for every range of rows.
        let tasks = n_batch_parts * map.geometry.groups * tiling.n_tiles[0];
        let wanted = map.rows.div_ceil(8usize.div_ceil(tasks)).max(16);
        let row_range = map.rows.div_ceil(map.rows.div_ceil(fitting.min(wanted)).max(1)).max(1);
        let chunk_bytes = tiling.depth_chunk * tiling.channel_pitch * size_of::<T>();
        Self {
            tiling,
            tile_len,
            own_pitch: Pitch { row: tiling.shape.vectors * kernels.lanes, column: kernels.lanes, log_unit: 0 },
            width,
            n_batch_parts,
            row_range,
            n_row_ranges: map.rows.div_ceil(row_range),
            chunks_at_once: (PANEL_BYTES / chunk_bytes.max(1)).clamp(1, tiling.n_chunks),
        }
    }

    fn panel_len(&self) -> usize {
        self.chunks_at_once * self.tiling.depth_chunk * self.tiling.channel_pitch
    }

    fn rows(&self, range: usize, map: &Map) -> std::ops::Range<usize> {
        range * self.row_range..((range + 1) * self.row_range).min(map.rows)
    }

    #[expect(clippy::too_many_arguments, reason = "one task's inputs, spelled out once")]
    fn forward<T: Number>(
        &self,
        task: usize,
        map: &Map,
        class: &ClassProgram,
        kernels: &Kernels<T>,
        values: &[T],
        source: &[T],
        target: Shared<T>,
    ) {
        let tiling = self.tiling;
        let (range, rest) = (task % self.n_row_ranges, task / self.n_row_ranges);
        // Pieces of the batch one after the other: they share the cache lines that prefetching brings.
        let (part, rest) = (rest % self.n_batch_parts, rest / self.n_batch_parts);
        let (band, group) = (rest % tiling.n_tiles[0], rest / tiling.n_tiles[0]);
        let rows = self.rows(range, map);
        let Some((kernel, _)) = kernels.sparse(tiling.shape) else {
            unreachable!("tilings are made of the kernels' own shapes");
        };
        let n_tiles = tiling.n_tiles[1];
        let channel = |row| (group * map.rows + row) * map.target[0] * map.target[1] * map.geometry.batch;
        let places = self.places(map, part, band);
        with_buffers::<T, _>(self.panel_len(), rows.len() * n_tiles * self.tile_len, |panel, sums| {
            for first_chunk in (0..tiling.n_chunks).step_by(self.chunks_at_once) {
                let chunks = first_chunk..(first_chunk + self.chunks_at_once).min(tiling.n_chunks);
                self.pack_panel(map, class, group, part, band, chunks.clone(), source, panel);
                for tile in 0..n_tiles {
                    for chunk in chunks.clone() {
                        let at = (chunk - first_chunk) * tiling.depth_chunk * tiling.channel_pitch
                            + tile * tiling.tile[1] * self.width;
                        for row in rows.clone() {
                            let segments = &class.segments[class.segment_index(map, group, chunk, row)..];
                            if chunk > 0 && segments[0] == segments[tiling.n_segments] {
                                continue;
                            }
                            let (out, pitch) = match places.direct[tile] {
                                Some(in_channel) => (target.at(channel(row) + in_channel), places.pitch),
                                None => {
                                    let at = ((row - rows.start) * n_tiles + tile) * self.tile_len;
                                    (sums[at..][..self.tile_len].as_mut_ptr(), self.own_pitch)
                                }
                            };
                            let args = SparseTile {
                                segments: segments.as_ptr(),
                                offsets: class.offsets.as_ptr(),
                                panel: panel.as_ptr().wrapping_add(at),
                                row_pitch: tiling.row_pitch,
                                target: pitch,
                            };
                            // SAFETY: the kernel is of this machine's instruction set; the segments end with one
                            // more entry; offsets stay inside the chunk's panel, shifted by a tile of the band;
                            // `out` has a tile's numbers, in the buffer or in this task's own part of the target.
                            unsafe { kernel(&args, values.as_ptr(), out, chunk == 0) };
                        }
                    }
                }
            }
            for row in rows.clone() {
                let sums = &sums[(row - rows.start) * n_tiles * self.tile_len..][..n_tiles * self.tile_len];
                for &Place { in_tiles, in_channel } in &places.others {
                    let from = &sums[in_tiles..][..places.len];
                    // SAFETY: a position of this task's own part of the target.
                    unsafe { copy(from.as_ptr(), target.at(channel(row) + in_channel), places.len) };
                }
            }
        });
    }

    #[expect(clippy::too_many_arguments, reason = "one task's inputs, spelled out once")]
    fn dots<T: Number>(
        &self,
        task: usize,
        map: &Map,
        class: &ClassProgram,
        kernels: &Kernels<T>,
        input: &[T],
        output_grad: &[T],
        sums: Shared<T>,
    ) {
        let tiling = self.tiling;
        let (range, rest) = (task % self.n_row_ranges, task / self.n_row_ranges);
        let (part, group) = (rest % self.n_batch_parts, rest / self.n_batch_parts);
        let rows = self.rows(range, map);
        let Some((_, kernel)) = kernels.sparse(tiling.shape) else {
            unreachable!("tilings are made of the kernels' own shapes");
        };
        let n_tiles = tiling.n_tiles[1];
        let channel = |row| (group * map.rows + row) * map.target[0] * map.target[1] * map.geometry.batch;
        let sums = Shared::from_pointer(sums.at(part * class.positions.len()));
        for chunk in 0..tiling.n_chunks {
            let end = class.segment_index(map, group, chunk, rows.end - 1) + tiling.n_segments;
            let from = class.segments[class.segment_index(map, group, chunk, rows.start)] as usize;
            // SAFETY: entries of these rows and this piece of the batch are summed by this task alone; zero bytes are the
            // number zero.
            unsafe { std::ptr::write_bytes(sums.at(from), 0, class.segments[end] as usize - from) };
        }
        let sums = sums.at(0);
        with_buffers::<T, _>(self.panel_len(), rows.len() * n_tiles * self.tile_len, |panel, grads| {
            for band in 0..tiling.n_tiles[0] {
                let places = self.places(map, part, band);
                if !places.others.is_empty() {
                    grads.fill(T::default());
                }
                for row in rows.clone() {
                    let grads = &mut grads[(row - rows.start) * n_tiles * self.tile_len..][..n_tiles * self.tile_len];
                    for &Place { in_tiles, in_channel } in &places.others {
                        let from = &output_grad[channel(row) + in_channel..][..places.len];
                        let to = &mut grads[in_tiles..][..places.len];
                        // SAFETY: both slices have that many elements.
                        unsafe { copy(from.as_ptr(), to.as_mut_ptr(), places.len) };
                    }
                }
                for first_chunk in (0..tiling.n_chunks).step_by(self.chunks_at_once) {
                    let chunks = first_chunk..(first_chunk + self.chunks_at_once).min(tiling.n_chunks);
                    self.pack_panel(map, class, group, part, band, chunks.clone(), input, panel);
                    for tile in 0..n_tiles {
                        for chunk in chunks.clone() {
                            let at = (chunk - first_chunk) * tiling.depth_chunk * tiling.channel_pitch
                                + tile * tiling.tile[1] * self.width;
                            for row in rows.clone() {
                                let segments = &class.segments[class.segment_index(map, group, chunk, row)..];
                                if segments[0] == segments[tiling.n_segments] {
                                    continue;
                                }
                                let (grad, pitch) = match places.direct[tile] {
                                    Some(in_channel) => {
                                        (output_grad[channel(row) + in_channel..].as_ptr(), places.pitch)
                                    }
                                    None => {
                                        let at = ((row - rows.start) * n_tiles + tile) * self.tile_len;
                                        (grads[at..][..self.tile_len].as_ptr(), self.own_pitch)
                                    }
                                };
                                let args = SparseTile {
                                    segments: segments.as_ptr(),
                                    offsets: class.offsets.as_ptr(),
                                    panel: panel.as_ptr().wrapping_add(at),
                                    row_pitch: tiling.row_pitch,
                                    target: pitch,
                                };
                                // SAFETY: as in `forward`; entries of these rows and this piece of the batch are
                                // summed by this task alone.
                                unsafe { kernel(&args, grad, sums) };
                            }
                        }
                    }
                }
            }
        });
    }

    /// Where the tiles of one band and piece of the batch lie in a channel of the target.
    fn places(&self, map: &Map, part: usize, band: usize) -> Places {
        let tiling = self.tiling;
        let grid = &tiling.class.target;
        let batch = map.geometry.batch;
        let n0 = part * self.width;
        let len = self.width.min(batch - n0);
        let n_rows = tiling.tile[0].min(grid.size[0] - band * tiling.tile[0]);
        let in_channel = |r: usize, column: usize| {
            let y = grid.origin[0] + grid.step[0] * (band * tiling.tile[0] + r);
            let x = grid.origin[1] + grid.step[1] * column;
            (y * map.target[1] + x) * batch + n0
        };
        // Some shapes have a vector more than their columns need.
        let is_exact = tiling.shape.vectors == tiling.tile[1] * tiling.batch_vectors;
        let is_whole_row = is_exact && len == self.width && n_rows == tiling.tile[0];
        let is_whole = |tile: usize| is_whole_row && (tile + 1) * tiling.tile[1] <= grid.size[1];
        let direct = |tile| is_whole(tile).then(|| in_channel(0, tile * tiling.tile[1]));
        let mut others = Vec::new();
        for tile in (0..tiling.n_tiles[1]).filter(|&tile| !is_whole(tile)) {
            let columns = tile * tiling.tile[1]..((tile + 1) * tiling.tile[1]).min(grid.size[1]);
            for r in 0..n_rows {
                for (l, column) in columns.clone().enumerate() {
                    others.push(Place {
                        in_tiles: tile * self.tile_len + (r * tiling.tile[1] + l) * self.width,
                        in_channel: in_channel(r, column),
                    });
                }
            }
        }
        Places {
            direct: (0..tiling.n_tiles[1]).map(direct).collect(),
            pitch: Pitch {
                row: grid.step[0] * map.target[1] * batch,
                column: grid.step[1] * batch,
                log_unit: tiling.batch_vectors.ilog2(),
            },
            others,
            len,
        }
    }

    /// Copies what the chunks' channels have under one band of tiles, with zeros outside the picture.
    #[expect(clippy::too_many_arguments, reason = "one panel's coordinates, spelled out once")]
    fn pack_panel<T: Number>(
        &self,
        map: &Map,
        class: &ClassProgram,
        group: usize,
        part: usize,
        band: usize,
        chunks: std::ops::Range<usize>,
        source: &[T],
        panel: &mut [T],
    ) {
        let tiling = self.tiling;
        let batch = map.geometry.batch;
        let n0 = part * self.width;
        let here = self.width.min(batch - n0);
        let depth = chunks.start * tiling.depth_chunk..(chunks.end * tiling.depth_chunk).min(map.depth);
        for c in depth.clone() {
            if !class.used_channels[group * map.depth + c] {
                continue;
            }
            let channel = (group * map.depth + c) * map.source[0] * map.source[1];
            for (plane, grid) in tiling.class.planes.iter().enumerate() {
                for r in 0..tiling.panel[0] {
                    let at =
                        (c - depth.start) * tiling.channel_pitch + plane * tiling.plane_pitch + r * tiling.row_pitch;
                    let to = &mut panel[at..][..tiling.row_pitch];
                    let y = (band * tiling.tile[0] + r) as isize + tiling.first_shift[0];
                    if y < 0 || y >= grid.size[0] as isize {
                        to.fill(T::default());
                        continue;
                    }
                    let y = grid.origin[0] + grid.step[0] * y as usize;
                    let before = (-tiling.first_shift[1]).clamp(0, tiling.panel[1] as isize) as usize;
                    let skipped = tiling.first_shift[1].max(0) as usize;
                    let inside = grid.size[1].saturating_sub(skipped).min(tiling.panel[1] - before);
                    to[..before * self.width].fill(T::default());
                    to[(before + inside) * self.width..].fill(T::default());
                    for i in 0..inside {
                        let x = grid.origin[1] + grid.step[1] * (skipped + i);
                        let from = &source[(channel + y * map.source[1] + x) * batch + n0..][..here];
                        let to = &mut to[(before + i) * self.width..][..self.width];
                        // SAFETY: `here` elements in both.
                        unsafe { copy(from.as_ptr(), to.as_mut_ptr(), here) };
                        to[here..].fill(T::default());
                    }
                }
            }
        }
    }
}

/// Where the tiles of one band and piece of the batch lie in a channel of the target.
struct Places {
    /// Where a tile begins if all of its vectors exist: the kernels read and write it there.
    direct: Vec<Option<usize>>,
    pitch: Pitch,
    /// The positions of all other tiles, which are copied.
    others: Vec<Place>,
    /// Numbers at each place: a piece of the batch.
    len: usize,
}

/// Where a position's numbers lie in the copied tiles of a row of channels, and in the channel.
struct Place {
    in_tiles: usize,
    in_channel: usize,
}

/// Copies `len` elements; the lengths of whole vectors without a call.
///
/// # Safety
/// Both pointers have `len` elements, and they do not overlap.
#[inline(always)]
unsafe fn copy<T: Number>(from: *const T, to: *mut T, len: usize) {
    // SAFETY: the caller's promise; arrays of T need only T's alignment.
    unsafe {
        match len {
            16 => to.cast::<[T; 16]>().write(from.cast::<[T; 16]>().read()),
            32 => to.cast::<[T; 32]>().write(from.cast::<[T; 32]>().read()),
            8 => to.cast::<[T; 8]>().write(from.cast::<[T; 8]>().read()),
            64 => to.cast::<[T; 64]>().write(from.cast::<[T; 64]>().read()),
            _ => std::ptr::copy_nonoverlapping(from, to, len),
        }
    }
}
