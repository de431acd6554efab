//! Sparse convolution: only kept weights are multiplied.
//!
//! A task packs a panel of the source, then goes through the tiles above it, and for each tile through the target's
//! channels. With a channel's kept weights it adds to the tile (the forward pass, the input gradient), or multiplies
//! the tile with what the weights would have read (the weight gradient), or both: the gradients of a convolution share
//! the panels of the output's gradient.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::geometry::{Direction, Map};
use super::kernel::table::{Number, ProgramKind, SparseDotFn, SparseFn};
use super::kernel::tile::{Pitch, SparseTile};
use super::mend;
use super::program::{ClassProgram, Program};
use super::scratch::{Shared, copy, for_each_task, with_buffers};
use super::tiling::{HIGH_DENSITY, PANEL_BYTES};
use crate::kept::KeptPlaces;
use crate::layout::Layout;
use crate::memory::{AHEAD, prefetch};
use crate::parallel::{Shared as Parts, for_each};

/// Bytes of sums or of factors that one task may go through before it comes to the next tile.
const SUMS_BYTES: usize = 512 << 10;
/// Rows whose weights' gradients one task adds up.
const ROW_BLOCK: usize = 16;
/// Bytes of a line of the cache.
const LINE: usize = 64;
/// How often a number is read, on average, for a copy of it that begins with a line to pay.
const READS: usize = 16;
/// Numbers that one task copies.
const COPIED: usize = 1 << 15;
/// Weights whose values one task fetches.
const FETCH: usize = 1 << 14;
/// Entries whose sums are added side by side.
const ADDED: usize = 256;
/// Multiplications that take as long as it does to add up an entry's sums and to write what comes out.
const ENTRY_WORK: usize = 64;

/// The forward pass or the input gradient (whichever the program is of): writes all of `target`. `kept` are the weights that the mask
/// keeps, in row-major order. Whether all of them are finite comes back: one that is not makes NaN of the zeros of padding.
pub(crate) fn apply<T: Number>(program: &Program, kept: &[T], source: &[T], target: &mut [MaybeUninit<T>]) -> bool {
    with_packed(program, kept, |values| {
        apply_packed(program, values, source, target);
        mend::are_finite(values)
    })
}

/// The `kept` weights in the order of the program's values.
pub(crate) fn packed<T: Number>(program: &Program, kept: &[T]) -> Vec<T> {
    let mut values = vec![T::default(); program.ranks.len()];
    fetch(program, kept, &mut values);
    values
}

/// [`apply`] for a weight that was [`packed`] before.
pub(crate) fn apply_packed<T: Number>(program: &Program, values: &[T], source: &[T], target: &mut [MaybeUninit<T>]) {
    let target = Shared::of_uninit(check(program, values, source, target));
    run(program, source, Some(Products { values, target }), None);
}

/// The gradient of the kept weights, in row-major order. `program` is of the forward direction.
pub(crate) fn weight_gradient<T: Number>(
    program: &Program,
    places: &KeptPlaces,
    input: &[T],
    output_grad: &[T],
) -> Vec<T> {
    assert_eq!(program.map.direction, Direction::Forward);
    let (grad, is_finite) =
        with_dots(program, |sums| run(program, input, None, Some(Dots { factors: output_grad, sums })));
    mended_weight_gradient(program, places, is_finite, (input, output_grad), grad)
}

/// Anew where factors that are not finite have met the zeros of padding.
fn mended_weight_gradient<T: Number>(
    program: &Program,
    places: &KeptPlaces,
    is_finite: bool,
    factors: (&[T], &[T]),
    mut grad: Vec<T>,
) -> Vec<T> {
    if !is_finite {
        let mut whole = places.scattered(&grad);
        mend::weight_gradient(&program.map.geometry, factors, &mut whole, Layout::Chwn);
        places.gather_to(&whole, &mut grad);
    }
    grad
}

/// Both gradients: of all of the input, and of the kept weights, in row-major order. `program` is of the input gradient. The latter
/// comes back, and whether all kept weights are finite, as from [`apply`].
pub(crate) fn gradients<T: Number>(
    program: &Program,
    places: &KeptPlaces,
    kept: &[T],
    (input, output_grad): (&[T], &[T]),
    input_grad: &mut [MaybeUninit<T>],
) -> (Vec<T>, bool) {
    assert_eq!(program.map.direction, Direction::InputGradient);
    with_packed(program, kept, |values| {
        let target = Shared::of_uninit(check(program, values, output_grad, input_grad));
        let (grad, is_finite) = with_dots(program, |sums| {
            run(program, output_grad, Some(Products { values, target }), Some(Dots { factors: input, sums }));
        });
        let grad = mended_weight_gradient(program, places, is_finite, (input, output_grad), grad);
        (grad, mend::are_finite(values))
    })
}

/// Checks every length and hands `target` on.
fn check<'a, T>(
    program: &Program,
    values: &[T],
    source: &[T],
    target: &'a mut [MaybeUninit<T>],
) -> &'a mut [MaybeUninit<T>] {
    let [source_len, target_len] = lengths(&program.map);
    assert_eq!(values.len(), program.ranks.len());
    assert_eq!(source.len(), source_len);
    assert_eq!(target.len(), target_len);
    target
}

/// Elements of the source and of the target.
fn lengths(map: &Map) -> [usize; 2] {
    let g = &map.geometry;
    [
        map.depth * g.groups * map.source[0] * map.source[1] * g.batch,
        map.rows * g.groups * map.target[0] * map.target[1] * g.batch,
    ]
}

/// Runs `work` with the kept weights in the order of the program's values: as they are, where that is theirs.
pub(crate) fn with_packed<T: Number, R>(program: &Program, kept: &[T], work: impl FnOnce(&[T]) -> R) -> R {
    if program.is_in_order {
        return work(kept);
    }
    with_buffers::<T, _>(program.ranks.len(), 0, |values, _| {
        fetch(program, kept, values);
        work(values)
    })
}

/// The kept weights in the order of the program's values, fetched here and there from little memory, not from all of the weight's.
fn fetch<T: Number>(program: &Program, kept: &[T], values: &mut [T]) {
    assert_eq!((values.len(), kept.len()), (program.ranks.len(), program.n_kept));
    let len = values.len();
    let values = Parts::new(values);
    for_each_task(len.div_ceil(FETCH), ENTRY_WORK * len, |task| {
        let at = task * FETCH..len.min((task + 1) * FETCH);
        // SAFETY: the ranges are disjoint.
        let values = unsafe { values.part(at.clone()) };
        values.iter_mut().zip(&program.ranks[at]).for_each(|(value, &rank)| *value = kept[rank as usize]);
    });
}

/// Runs `dot`, which sums for each entry over some parts of the work. The gradient of the kept weights comes back, in row-major order:
/// the sums of an entry are added in order; and whether all are finite.
fn with_dots<T: Number>(program: &Program, dot: impl FnOnce(Shared<T>)) -> (Vec<T>, bool) {
    let (map, lanes) = (&program.map, T::kernels().lanes);
    // What is multiplied with nothing stays 0.
    let mut all = vec![T::default(); program.n_kept];
    let grad = Shared::new(&mut all);
    let n_entries = program.ranks.len();
    let n_sums: usize = program.classes.iter().map(|class| class.offsets.len() * class.n_sums(map, lanes)).sum();
    if program.is_in_order && n_sums == n_entries {
        dot(grad);
        let is_finite = mend::are_finite(&all);
        return (all, is_finite);
    }
    let is_finite = AtomicBool::new(true);
    with_buffers::<T, _>(n_sums, 0, |sums, _| {
        dot(Shared::new(sums));
        let sums = &*sums;
        let n_blocks = map.rows.div_ceil(ROW_BLOCK);
        for_each_task(n_blocks * map.geometry.groups, ENTRY_WORK * n_entries, |task| {
            let (group, block) = (task / n_blocks, task % n_blocks);
            let rows = block * ROW_BLOCK..((block + 1) * ROW_BLOCK).min(map.rows);
            let mut added = [T::default(); ADDED];
            let mut rest = sums;
            for class in &program.classes {
                let (n_entries, n_sums) = (class.offsets.len(), class.n_sums(map, lanes));
                let of_class;
                (of_class, rest) = rest.split_at(n_entries * n_sums);
                let ranks = &program.ranks[class.first_value..][..n_entries];
                for chunk in 0..class.tiling.n_chunks {
                    let entries = class.entries(map, group, chunk, &rows);
                    for first in entries.clone().step_by(ADDED) {
                        let here = first..entries.end.min(first + ADDED);
                        let added = &mut added[..here.len()];
                        added.fill(T::default());
                        for part in of_class.chunks_exact(n_entries.max(1)) {
                            added.iter_mut().zip(&part[here.clone()]).for_each(|(sum, part)| *sum += *part);
                        }
                        if !mend::are_finite_here(added) {
                            is_finite.store(false, Ordering::Relaxed);
                        }
                        for (sum, rank) in added.iter().zip(&ranks[here]) {
                            // SAFETY: a place of this entry's weight alone, inside the gradient.
                            unsafe { *grad.at(*rank as usize) = *sum };
                        }
                    }
                }
            }
        });
    });
    (all, is_finite.into_inner())
}

/// Sums of kept weights times what they read.
#[derive(Clone, Copy)]
struct Products<'a, T> {
    /// Of every entry.
    values: &'a [T],
    /// Like the program's target.
    target: Shared<T>,
}

/// Sums, over some positions and a piece of the batch, of what a kept weight reads times what lies where it adds to.
#[derive(Clone, Copy)]
struct Dots<'a, T> {
    /// Like the program's target.
    factors: &'a [T],
    /// Class by class, for each of its sums one of every entry.
    sums: Shared<T>,
}

fn run<T: Number>(program: &Program, source: &[T], products: Option<Products<'_, T>>, dots: Option<Dots<'_, T>>) {
    let (map, lanes) = (&program.map, T::kernels().lanes);
    assert_eq!(source.len(), lengths(map)[0]);
    let n_reads = program.ranks.len() / (map.depth * map.geometry.groups).max(1);
    let is_read_as_it_lies = || program.classes.iter().any(|class| class.tiling.is_source(map, lanes));
    // Allocators begin where a line of the cache does not, and then every vector of 64 bytes lies in two.
    if source.as_ptr().align_offset(LINE) == 0 || n_reads < READS || !is_read_as_it_lies() {
        return run_classes(program, source, products, dots);
    }
    with_buffers::<T, _>(source.len(), 0, |aligned, _| {
        let parts = Parts::new(aligned);
        for_each(source.len().div_ceil(COPIED), source.len(), |piece| {
            let at = piece * COPIED..source.len().min((piece + 1) * COPIED);
            // SAFETY: the ranges are disjoint.
            unsafe { parts.part(at.clone()) }.copy_from_slice(&source[at]);
        });
        run_classes(program, aligned, products, dots);
    });
}

fn run_classes<T: Number>(
    program: &Program,
    source: &[T],
    products: Option<Products<'_, T>>,
    dots: Option<Dots<'_, T>>,
) {
    let [_, target_len] = lengths(&program.map);
    assert!(dots.is_none_or(|dots| dots.factors.len() == target_len));
    let mut dots = dots;
    for class in &program.classes {
        let pass = Pass::new(program, class, source, products, dots);
        let positions = class.tiling.class.target.size.iter().product::<usize>();
        let work = class.offsets.len() * positions * program.map.geometry.batch + target_len;
        for_each_task(pass.n_tasks(), work, |task| pass.task(task));
        // Behind this class's.
        if let Some(dots) = &mut dots {
            let n_sums = class.offsets.len() * class.n_sums(&program.map, T::kernels().lanes);
            dots.sums = Shared::from_pointer(dots.sums.at(n_sums));
        }
    }
}

/// The work of one class, cut into tasks.
struct Pass<'a, T: 'static> {
    program: &'a Program,
    class: &'a ClassProgram,
    kernel: Option<SparseFn<T>>,
    dot_kernel: Option<SparseDotFn<T>>,
    /// Channels of the target that a kernel goes through together.
    rows_at_once: usize,
    source: &'a [T],
    products: Option<Products<'a, T>>,
    dots: Option<Dots<'a, T>>,
    /// Numbers in one tile.
    tile_len: usize,
    /// How a copied tile lies.
    own_pitch: Pitch,
    /// Numbers of the batch in one tile.
    width: usize,
    n_batch_parts: usize,
    /// Panels, of all pieces of the batch, and how many of them a task goes through.
    n_panels: usize,
    panels_at_once: usize,
    row_range: usize,
    n_row_ranges: usize,
    /// Chunks that are packed at a time.
    chunks_at_once: usize,
    /// Whether a panel would be a copy of the source.
    is_source: bool,
}

impl<'a, T: Number> Pass<'a, T> {
    fn new(
        program: &'a Program,
        class: &'a ClassProgram,
        source: &'a [T],
        products: Option<Products<'a, T>>,
        dots: Option<Dots<'a, T>>,
    ) -> Self {
        let (map, tiling, kernels) = (&program.map, &class.tiling, T::kernels());
        let (kernel, dot_kernel) = kernels.sparse(program.kind, tiling.shape);
        // Without its kernel a pass would leave what it is for unwritten.
        assert!((products.is_none() || kernel.is_some()) && (dots.is_none() || dot_kernel.is_some()));
        let rows_at_once = program.kind.rows();
        let tile_len = tiling.shape.rows * tiling.shape.vectors * kernels.lanes;
        let width = tiling.batch_vectors * kernels.lanes;
        let n_batch_parts = tiling.n_batch_parts(map, kernels.lanes);
        let n_panels = tiling.n_panels() * n_batch_parts;
        let panels_at_once = if dots.is_some() { tiling.panels_per_sum(map, kernels.lanes) } else { 1 };
        let band_bytes = tiling.n_tiles[1] * tile_len * size_of::<T>();
        let fitting = (SUMS_BYTES / band_bytes).max(16);
        let is_source = tiling.is_source(map, kernels.lanes);
        // Some tasks for each thread, but no fewer than 16 rows each: a panel is packed for every range of rows. What is
        // computed does not depend on it.
        let wanted_tasks = match rayon::current_num_threads() {
            1 => 1,
            threads if is_source => 4 * threads,
            threads => 2 * threads,
        };
        let tasks = map.geometry.groups * n_panels.div_ceil(panels_at_once);
        let wanted = map.rows.div_ceil(wanted_tasks.div_ceil(tasks)).max(16);
        let row_range = map.rows.div_ceil(map.rows.div_ceil(fitting.min(wanted)).max(1)).max(1);
        let row_range = row_range.next_multiple_of(rows_at_once);
        let chunk_bytes = tiling.depth_chunk * tiling.channel_pitch * size_of::<T>();
        Self {
            program,
            class,
            kernel,
            dot_kernel,
            rows_at_once,
            source,
            products,
            dots,
            tile_len,
            own_pitch: Pitch { row: tiling.shape.vectors * kernels.lanes, column: kernels.lanes, log_unit: 0 },
            width,
            n_batch_parts,
            n_panels,
            panels_at_once,
            row_range,
            n_row_ranges: map.rows.div_ceil(row_range),
            chunks_at_once: if is_source || tiling.bands > 1 {
                tiling.n_chunks
            } else {
                (PANEL_BYTES / chunk_bytes.max(1)).clamp(1, tiling.n_chunks)
            },
            is_source,
        }
    }

    fn n_tasks(&self) -> usize {
        self.n_row_ranges * self.n_panels.div_ceil(self.panels_at_once) * self.program.map.geometry.groups
    }

    fn task(&self, task: usize) {
        let (map, tiling) = (&self.program.map, &self.class.tiling);
        // All of a range one after the other: a thread reads the lists and the values of its own.
        let per_range = self.n_tasks() / self.n_row_ranges;
        let (range, rest) = (task / per_range, task % per_range);
        let n_sums = self.n_panels.div_ceil(self.panels_at_once);
        // Which sum of each entry is this task's.
        let (sum, group) = (rest % n_sums, rest / n_sums);
        let panels = sum * self.panels_at_once..((sum + 1) * self.panels_at_once).min(self.n_panels);
        let rows = range * self.row_range..((range + 1) * self.row_range).min(map.rows);
        if let Some(dots) = self.dots {
            self.clear(dots.sums, group, &rows, sum);
        }
        let copied = rows.len() * tiling.n_tiles[1] * self.tile_len;
        let sums_len = if self.products.is_some() { copied } else { 0 };
        let factors_len = if self.dots.is_some() { copied } else { 0 };
        let panel_len = self.chunks_at_once * tiling.depth_chunk * tiling.channel_pitch;
        let panel_len = if self.is_source { 0 } else { panel_len };
        with_buffers::<T, _>(panel_len, sums_len + factors_len, |buffer, tiles| {
            let (sums, factors) = tiles.split_at_mut(sums_len);
            for panel in panels {
                // Pieces of the batch one after the other: they share the cache lines that prefetching brings.
                let (at, part) = (panel / self.n_batch_parts, panel % self.n_batch_parts);
                let bands = at * tiling.bands..((at + 1) * tiling.bands).min(tiling.n_tiles[0]);
                // Several bands share a panel only if it holds all chunks.
                for first_chunk in (0..tiling.n_chunks).step_by(self.chunks_at_once) {
                    let chunks = first_chunk..(first_chunk + self.chunks_at_once).min(tiling.n_chunks);
                    let panel = self.panel((group, part), bands.start, &chunks, buffer);
                    for band in bands.clone() {
                        let places = &self.places(part, band);
                        let piece = Piece { group, sum, rows: &rows, chunks: &chunks, places };
                        let below = (band - bands.start) * tiling.tile[0] * tiling.row_pitch;
                        self.band(&piece, panel.as_ptr().wrapping_add(below), sums, factors);
                    }
                }
            }
        });
    }

    /// Zeroes the sums that a task is for.
    fn clear(&self, sums: Shared<T>, group: usize, rows: &Range<usize>, sum: usize) {
        for chunk in 0..self.class.tiling.n_chunks {
            let entries = self.class.entries(&self.program.map, group, chunk, rows);
            // SAFETY: these sums of these rows' entries are this task's alone; zero bytes are the number zero.
            unsafe { sums.at(sum * self.class.offsets.len() + entries.start).write_bytes(0, entries.len()) };
        }
    }

    /// The tiles of one band; `panel` is where its rows begin in the panel.
    fn band(&self, piece: &Piece<'_>, panel: *const T, sums: &mut [T], factors: &mut [T]) {
        let (map, class, tiling) = (&self.program.map, self.class, &self.class.tiling);
        let &Piece { group, sum, rows, chunks, places } = piece;
        let n_tiles = tiling.n_tiles[1];
        let channel_len = map.target[0] * map.target[1] * map.geometry.batch;
        let channel = |row| (group * map.rows + row) * channel_len;
        // Of a tile's rows one after the other, as they are gone through.
        let copied = |row: usize, tile: usize| (tile * rows.len() + row - rows.start) * self.tile_len;
        let tiles_len = self.rows_at_once * self.tile_len;
        if let Some(dots) = self.dots
            && chunks.start == 0
            && !places.others.is_empty()
        {
            factors.fill(T::default());
            for row in rows.clone() {
                for &Place { tile, in_tile, in_channel } in &places.others {
                    let from = &dots.factors[channel(row) + in_channel..][..places.len];
                    let to = &mut factors[copied(row, tile) + in_tile..][..places.len];
                    // SAFETY: both slices have that many elements.
                    unsafe { copy(from.as_ptr(), to.as_mut_ptr(), places.len) };
                }
            }
        }
        for tile in 0..n_tiles {
            for chunk in chunks.clone() {
                let at = (chunk - chunks.start) * tiling.depth_chunk * tiling.channel_pitch;
                let panel = panel.wrapping_add(at + tile * tiling.tile[1] * self.width);
                for row in rows.clone().step_by(self.rows_at_once) {
                    let segments = &class.segments[tiling.segment_index(map, group, chunk, row)..];
                    let is_empty = segments[0] == segments[tiling.n_segments];
                    let (direct, copied) = (places.direct[tile], copied(row, tile));
                    let args = SparseTile {
                        segments: segments.as_ptr(),
                        offsets: self.class.offsets.as_ptr(),
                        panel,
                        row_pitch: tiling.row_pitch,
                        target: if direct.is_some() { places.pitch } else { self.own_pitch },
                        next_row: if direct.is_some() { channel_len } else { self.tile_len },
                    };
                    if let (Some(products), Some(kernel)) = (self.products, self.kernel)
                        && (chunk == 0 || !is_empty)
                    {
                        let values = products.values[class.first_value_of(map, group, chunk, row)..].as_ptr();
                        let out = match direct {
                            Some(in_channel) => products.target.at(channel(row) + in_channel),
                            None => sums[copied..][..tiles_len].as_mut_ptr(),
                        };
                        // SAFETY: the kernel is of this machine's instruction set; the segments end with one more
                        // entry; offsets stay inside the chunk's panel, shifted by a tile of the band; `out` has a
                        // tile's numbers, in the buffer or in this task's own part of the target, and so have the rows that
                        // are gone through together, which keep the same.
                        unsafe { kernel(&args, values, out, chunk == 0) };
                    }
                    if let (Some(dots), Some(dot_kernel)) = (self.dots, self.dot_kernel)
                        && !is_empty
                    {
                        let factors = match direct {
                            Some(in_channel) => dots.factors[channel(row) + in_channel..].as_ptr(),
                            None => factors[copied..][..tiles_len].as_ptr(),
                        };
                        let sums = dots.sums.at(sum * self.class.offsets.len());
                        // SAFETY: as above; these sums of these rows' entries are this task's alone.
                        unsafe { dot_kernel(&args, factors, sums) };
                    }
                }
            }
        }
        if let Some(products) = self.products
            && chunks.end == tiling.n_chunks
        {
            for row in rows.clone() {
                for &Place { tile, in_tile, in_channel } in &places.others {
                    let from = &sums[copied(row, tile) + in_tile..][..places.len];
                    // SAFETY: a position of this task's own part of the target.
                    unsafe { copy(from.as_ptr(), products.target.at(channel(row) + in_channel), places.len) };
                }
            }
        }
    }

    /// Where the tiles of one band and piece of the batch lie in a channel of the target.
    fn places(&self, part: usize, band: usize) -> Places {
        let (map, tiling) = (&self.program.map, &self.class.tiling);
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
        // Sums of a few vectors that are taken up again lie better one after the other than a channel apart.
        let n_weights = map.geometry.weights_per_group() * map.geometry.groups;
        let is_dense = self.program.ranks.len() as f64 >= HIGH_DENSITY * n_weights as f64;
        let is_scattered = (self.program.kind == ProgramKind::Quads || is_dense) && tiling.n_chunks > 1;
        let is_whole_row = len == self.width && n_rows == tiling.tile[0] && !is_scattered;
        let is_whole = |tile: usize| is_whole_row && (tile + 1) * tiling.tile[1] <= grid.size[1];
        let direct = |tile| is_whole(tile).then(|| in_channel(0, tile * tiling.tile[1]));
        let mut others = Vec::new();
        for tile in (0..tiling.n_tiles[1]).filter(|&tile| !is_whole(tile)) {
            let columns = tile * tiling.tile[1]..((tile + 1) * tiling.tile[1]).min(grid.size[1]);
            for r in 0..n_rows {
                for (l, column) in columns.clone().enumerate() {
                    others.push(Place {
                        tile,
                        in_tile: (r * tiling.tile[1] + l) * self.width,
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

    /// What the chunks' channels have under the panel that begins with `band`, with zeros outside the picture: in
    /// `buffer`, or as it lies in the source.
    fn panel<'b>(
        &self,
        (group, part): (usize, usize),
        band: usize,
        chunks: &Range<usize>,
        buffer: &'b mut [T],
    ) -> &'b [T]
    where
        'a: 'b,
    {
        let (map, tiling) = (&self.program.map, &self.class.tiling);
        let batch = map.geometry.batch;
        let plane_len = map.source[0] * map.source[1] * batch;
        let depth = chunks.start * tiling.depth_chunk..(chunks.end * tiling.depth_chunk).min(map.depth);
        if self.is_source {
            return &self.source[(group * map.depth + depth.start) * plane_len..];
        }
        let n0 = part * self.width;
        let here = self.width.min(batch - n0);
        for c in depth.clone() {
            if !self.class.used_channels[group * map.depth + c] {
                continue;
            }
            let channel = &self.source[(group * map.depth + c) * plane_len..][..plane_len];
            for (plane, grid) in tiling.class.planes.iter().enumerate() {
                for r in 0..tiling.panel[0] {
                    let at =
                        (c - depth.start) * tiling.channel_pitch + plane * tiling.plane_pitch + r * tiling.row_pitch;
                    let to = &mut buffer[at..][..tiling.row_pitch];
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
                        let from = &channel[(y * map.source[1] + x) * batch + n0..][..here];
                        let to = &mut to[(before + i) * self.width..][..self.width];
                        prefetch(from.as_ptr().wrapping_add(AHEAD), here);
                        // SAFETY: `here` elements in both.
                        unsafe { copy(from.as_ptr(), to.as_mut_ptr(), here) };
                        to[here..].fill(T::default());
                    }
                }
            }
        }
        buffer
    }
}

/// What a task comes to between packing two panels.
struct Piece<'a> {
    group: usize,
    /// Which sum of each entry is added to.
    sum: usize,
    /// Channels of the target, in the group.
    rows: &'a Range<usize>,
    chunks: &'a Range<usize>,
    places: &'a Places,
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

/// Where a position's numbers lie: in a copied tile, and in the channel.
struct Place {
    tile: usize,
    in_tile: usize,
    in_channel: usize,
}
