//! Dense 3×3 convolution without stride by Winograd's F(4×4, 3×3), in `[channels, height, width, batch]` layout.
//!
//! Four by four outputs of a channel pair take 36 multiplications instead of 144: patches of 6×6 inputs and
//! filters are transformed (`kernel::winograd` has the matrices), multiplied number by number, and the sums over channels
//! transformed back. The products are matrix products over channels, which the dense tiles compute. Sums of
//! neighbours come between, so results differ from the dense kernel's by rounding; what is not finite spreads to neighbours,
//! and callers compute it again.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::dense::{BatchTile, batch_tiles};
use super::dense_weight::{ColumnBlock, column_blocks, transpose_rows};
use super::epilogue::Epilogue;
use super::geometry::{Direction, Geometry, Map};
use super::scratch::{Shared, for_each_task, with_buffers};
use crate::conv::kernel::table::{Kernels, MAX_ROWS, Number};
use crate::conv::kernel::tile::{DenseTile, Run};
use crate::conv::kernel::winograd::{Ending, Gather, OUTPUTS, PATCH, PRODUCTS, Spread, TAPS, TILE};
use crate::pattern::clear_pruned;

/// Channels that are summed at a time, and bytes of the patches of as many: they and some sums stay in the L2 cache.
const DEPTH_CHUNK: usize = 128;
const PATCH_BYTES: usize = 1200 << 10;
/// Rows that one task computes, and how many of them at a time.
const ROW_RANGE: usize = 128;
const ROW_BLOCK: usize = 64;
/// Rows for which it is not worth while to transform patches again.
const MIN_ROWS: usize = 32;
/// Pictures whose patches are transposed at a time.
const BATCH_CHUNK: usize = 64;
/// Planes lie a power of two apart otherwise, and would evict each other.
const GAP: usize = 16;

/// Whether the algorithm computes this convolution.
pub(crate) fn applies_to(g: &Geometry) -> bool {
    g.kernel == [3, 3] && g.stride == [1, 1] && g.dilation == [1, 1]
}

/// The products that a picture's outputs of one channel are made of, for each channel that they are sums over.
pub(crate) fn n_products(target: [usize; 2]) -> usize {
    n_tiles(target).into_iter().product::<usize>() * PRODUCTS
}

/// The tiles that cover the target along both axes.
fn n_tiles(target: [usize; 2]) -> [usize; 2] {
    target.map(|side| side.div_ceil(TILE))
}

/// Transformed filters: a plane `[groups, O, I]` for each of the products.
struct Filters<'a, T> {
    planes: &'a [T],
    plane: usize,
}

/// Transforms `weight` and gives it to `work`.
fn with_filters<T: Number, R>(
    g: &Geometry,
    direction: Direction,
    weight: &[T],
    work: impl FnOnce(&Filters<'_, T>) -> R,
) -> R {
    let plane = weight.len() / TAPS + GAP;
    with_buffers::<T, _>(plane * PRODUCTS, 0, |planes, _| {
        let shared = Shared::new(planes);
        let is_flipped = direction == Direction::InputGradient;
        let per_row = g.in_per_group();
        for_each_task(g.out_channels, weight.len() * PRODUCTS, |row| {
            let from = weight[row * per_row * TAPS..][..per_row * TAPS].as_ptr();
            // SAFETY: the kernel is of this machine's instruction set; a row of filters, and its places in each plane, which no
            // other task writes.
            unsafe { (T::kernels().winograd.filters)(from, per_row, is_flipped, shared.at(row * per_row), plane) };
        });
        work(&Filters { planes, plane })
    })
}

/// The forward pass or the input gradient: `target` gets all of its elements written, behind the `epilogue`. Whether all of
/// them were finite before it comes back; what is not finite in `source` has spread.
pub(crate) fn apply<T: Number>(
    geometry: &Geometry,
    direction: Direction,
    weight: &[T],
    source: &[T],
    epilogue: Option<&Epilogue<'_, T>>,
    target: &mut [MaybeUninit<T>],
) -> bool {
    assert!(applies_to(geometry));
    let map = geometry.map(direction);
    map.assert_lengths(weight.len(), source.len(), target.len());
    let fits = |epilogue: &Epilogue<'_, T>| {
        epilogue.bias.is_none_or(|bias| bias.len() == map.rows * geometry.groups)
            && epilogue.residual.is_none_or(|residual| residual.len() == target.len())
    };
    assert!(epilogue.is_none_or(fits));
    let kernels = T::kernels();
    let plan = Plan::new(&map, kernels);
    let out = Shared::of_uninit(target);
    with_filters(geometry, direction, weight, |filters| {
        let is_finite = AtomicBool::new(true);
        let n_tiles = plan.tiles[0] * plan.tiles[1];
        let n_tasks = geometry.groups * plan.batch_tiles.len() * n_tiles * plan.n_row_ranges;
        for_each_task(n_tasks, geometry.dense_work(), |task| {
            let (range, rest) = (task % plan.n_row_ranges, task / plan.n_row_ranges);
            let (at, rest) = (rest % n_tiles, rest / n_tiles);
            let (batch, group) = (plan.batch_tiles[rest % plan.batch_tiles.len()], rest / plan.batch_tiles.len());
            let width = batch.vectors * kernels.lanes;
            let tile = Tile { batch, width, group, line: at / plan.tiles[1], column: at % plan.tiles[1] };
            if !plan.run(&map, kernels, tile, range, filters, source, epilogue, out) {
                is_finite.store(false, Ordering::Relaxed);
            }
        });
        is_finite.into_inner()
    })
}

struct Plan {
    batch_tiles: Vec<BatchTile>,
    /// Along the two axes of the target.
    tiles: [usize; 2],
    depth_chunk: usize,
    row_range: usize,
    n_row_ranges: usize,
    /// Rows whose sums are held at a time: all of a task where channels are summed in several chunks.
    row_block: usize,
    /// Where the patch of the first tile begins, above and left of the source.
    before: [usize; 2],
}

/// `n` in equal pieces of at most `most`.
fn pieces(n: usize, most: usize) -> usize {
    n.div_ceil(n.div_ceil(most.max(1)).max(1)).max(1)
}

impl Plan {
    fn new<T: Number>(map: &Map, kernels: &Kernels<T>) -> Self {
        let g = &map.geometry;
        let depth_chunk = pieces(map.depth, DEPTH_CHUNK);
        let mut widest = kernels.max_vectors();
        while widest > 1 && PRODUCTS * depth_chunk * widest * kernels.lanes * size_of::<T>() > PATCH_BYTES {
            widest /= 2;
        }
        let batch_tiles = batch_tiles(g.batch, kernels.lanes, widest);
        let tiles = n_tiles(map.target);
        // At least eight tasks where there are as many rows.
        let others = (batch_tiles.len() * g.groups * tiles[0] * tiles[1]).max(1);
        let wanted = map.rows.div_ceil(8usize.div_ceil(others)).clamp(MIN_ROWS, ROW_RANGE);
        let row_range = pieces(map.rows, wanted).next_multiple_of(MAX_ROWS).min(map.rows).max(1);
        let row_block = if depth_chunk < map.depth { row_range } else { pieces(row_range, ROW_BLOCK) };
        // A filter's middle is over the output; flipped, it is as far from the other end.
        let before = match map.direction {
            Direction::Forward => g.padding,
            Direction::InputGradient => g.padding.map(|padding| 2usize.wrapping_sub(padding)),
        };
        Self {
            batch_tiles,
            tiles,
            depth_chunk,
            row_range,
            n_row_ranges: map.rows.div_ceil(row_range),
            row_block: row_block.next_multiple_of(MAX_ROWS),
            before,
        }
    }

    /// The places in the source of a tile's patch along an axis.
    fn patch(&self, map: &Map, axis: usize, tile: usize) -> [Option<usize>; PATCH] {
        std::array::from_fn(|i| {
            let at = (tile * TILE + i).wrapping_sub(self.before[axis]);
            (at < map.source[axis]).then_some(at)
        })
    }

    /// The outputs of a tile of a range of rows. Whether all of them are finite comes back.
    #[expect(clippy::too_many_arguments, reason = "one task's coordinates, spelled out once")]
    fn run<T: Number>(
        &self,
        map: &Map,
        kernels: &Kernels<T>,
        tile: Tile,
        range: usize,
        filters: &Filters<'_, T>,
        source: &[T],
        epilogue: Option<&Epilogue<'_, T>>,
        target: Shared<T>,
    ) -> bool {
        let width = tile.width;
        let rows = range * self.row_range..((range + 1) * self.row_range).min(map.rows);
        let patch_plane = self.depth_chunk * width + GAP;
        let sum_plane = self.row_block * width + GAP;
        let sums_len = PRODUCTS * sum_plane;
        // Beside the sums: a row of zeros, and one for outputs outside the picture.
        with_buffers::<T, _>(PRODUCTS * patch_plane, sums_len + 2 * width, |patches, sums| {
            let (sums, extra) = sums.split_at_mut(sums_len);
            let (zeros, unwanted) = extra.split_at_mut(width);
            zeros.fill(T::default());
            let mut is_finite = true;
            for block in rows.clone().step_by(self.row_block) {
                let block = block..(block + self.row_block).min(rows.end);
                for depth in (0..map.depth).step_by(self.depth_chunk) {
                    let depth = depth..(depth + self.depth_chunk).min(map.depth);
                    if block.start == rows.start {
                        self.transform_input(map, kernels, tile, &depth, source, (patches, patch_plane), zeros);
                    }
                    multiply(map, kernels, tile, (&block, &depth), filters, (patches, patch_plane), (sums, sum_plane));
                }
                is_finite &=
                    transform_output(map, kernels, tile, &block, (sums, sum_plane), unwanted, epilogue, target);
            }
            is_finite
        })
    }

    /// Makes the products' side of a tile's patches of the channels `depth`.
    #[expect(clippy::too_many_arguments, reason = "one tile's coordinates, spelled out once")]
    fn transform_input<T: Number>(
        &self,
        map: &Map,
        kernels: &Kernels<T>,
        tile: Tile,
        depth: &Range<usize>,
        source: &[T],
        (patches, plane): (&mut [T], usize),
        zeros: &[T],
    ) {
        let (batch, width) = (map.geometry.batch, tile.width);
        let channel = map.source[0] * map.source[1] * batch;
        let (lines, columns) = (self.patch(map, 0, tile.line), self.patch(map, 1, tile.column));
        let from: [Option<&[T]>; PRODUCTS] = std::array::from_fn(|i| {
            let (y, x) = (lines[i / PATCH]?, columns[i % PATCH]?);
            let at = ((tile.group * map.depth + depth.start) * map.source[0] + y) * map.source[1] + x;
            Some(&source[at * batch + tile.batch.start..])
        });
        let len = width.min(batch - tile.batch.start);
        spread(kernels.winograd.patches, from, (depth.len(), channel, len), (patches, width, plane), zeros);
    }
}

/// Transforms `n_rows` rows, `step` apart, of `len` numbers each; what is not there counts as zeros.
fn spread<T: Number, const N: usize>(
    kernel: unsafe fn(&Spread<T, N>),
    from: [Option<&[T]>; N],
    (n_rows, step, len): (usize, usize, usize),
    (to, to_step, plane): (&mut [T], usize, usize),
    zeros: &[T],
) {
    let last = (n_rows.max(1) - 1) * step + len;
    assert!(from.iter().flatten().all(|from| from.len() >= last) && zeros.len() >= len);
    assert!(to.len() >= (PRODUCTS - 1) * plane + n_rows * to_step);
    let spread = Spread {
        from: from.map(|from| from.map_or(zeros.as_ptr(), <[T]>::as_ptr)),
        from_step: from.map(|from| from.map_or(0, |_| step)),
        n_rows,
        len,
        to: to.as_mut_ptr(),
        to_step,
        plane,
    };
    // SAFETY: the kernel is of this machine's instruction set; the rows are there, as just checked, and `to_step` is whole vectors.
    unsafe { kernel(&spread) };
}

/// Where a tile is.
#[derive(Clone, Copy)]
struct Tile {
    batch: BatchTile,
    /// Numbers of a row of the batch's tile, which may reach past its end.
    width: usize,
    group: usize,
    line: usize,
    column: usize,
}

/// The sums over the channels `depth` of all products of the channels `rows` of the target.
fn multiply<T: Number>(
    map: &Map,
    kernels: &Kernels<T>,
    tile: Tile,
    (rows, depth): (&Range<usize>, &Range<usize>),
    filters: &Filters<'_, T>,
    (patches, patch_plane): (&[T], usize),
    (sums, sum_plane): (&mut [T], usize),
) {
    let g = &map.geometry;
    let (w_row, w_step) = match map.direction {
        Direction::Forward => (map.depth, 1),
        Direction::InputGradient => (1, map.rows),
    };
    for product in 0..PRODUCTS {
        let weight = &filters.planes[product * filters.plane + tile.group * (g.weights_per_group() / TAPS)..];
        for row in rows.clone().step_by(MAX_ROWS) {
            let n = (rows.end - row).min(MAX_ROWS);
            let dense = DenseTile {
                runs: &[Run { weight: 0, panel: 0 }],
                run_len: depth.len(),
                weight: weight[row * w_row + depth.start * w_step..].as_ptr(),
                w_row,
                w_step,
                panel: patches[product * patch_plane..].as_ptr(),
                x_step: tile.width,
                out: sums[product * sum_plane + (row - rows.start) * tile.width..].as_mut_ptr(),
                out_row: tile.width,
                first: depth.start == 0,
                checks: false,
            };
            // SAFETY: the kernel is of this machine's instruction set; `n` rows and as many channels of a plane of filters; a row of
            // patches for each channel; `n` rows of sums.
            unsafe { kernels.dense[tile.batch.vectors.ilog2() as usize][n - 1](&dense) };
        }
    }
}

/// Writes a tile's outputs of the channels `rows`, behind the `epilogue`. Whether all of them were finite before it comes
/// back.
#[expect(clippy::too_many_arguments, reason = "one tile's coordinates, spelled out once")]
fn transform_output<T: Number>(
    map: &Map,
    kernels: &Kernels<T>,
    tile: Tile,
    rows: &Range<usize>,
    (sums, plane): (&[T], usize),
    unwanted: &mut [T],
    epilogue: Option<&Epilogue<'_, T>>,
    target: Shared<T>,
) -> bool {
    let (batch, width) = (map.geometry.batch, tile.width);
    let channel = map.target[0] * map.target[1] * batch;
    let to: [Option<usize>; OUTPUTS] = std::array::from_fn(|i| {
        let (y, x) = (tile.line * TILE + i / TILE, tile.column * TILE + i % TILE);
        let at = ((tile.group * map.rows + rows.start) * map.target[0] + y) * map.target[1] + x;
        (y < map.target[0] && x < map.target[1]).then_some(at * batch + tile.batch.start)
    });
    let unwanted = unwanted.as_mut_ptr();
    let ending = epilogue.map(|epilogue| {
        let bias = epilogue.bias.map_or(std::ptr::null(), |bias| bias[tile.group * map.rows + rows.start..].as_ptr());
        let of_output = |residual: &[T]| to.map(|to| to.map_or(unwanted.cast_const(), |to| residual[to..].as_ptr()));
        Ending { bias, residual: epilogue.residual.map(of_output), relu: epilogue.relu }
    });
    let gather = Gather {
        from: sums.as_ptr(),
        from_step: width,
        plane,
        n_rows: rows.len(),
        len: width.min(batch - tile.batch.start),
        to: to.map(|to| to.map_or(unwanted, |to| target.at(to))),
        to_step: to.map(|to| to.map_or(0, |_| channel)),
        ending,
    };
    // SAFETY: the kernel is of this machine's instruction set; whole vectors of sums of each row in each plane; rows of each
    // channel that no other task writes, or one that nobody reads; a bias for each row, and a residual as long as the target.
    unsafe { (kernels.winograd.outputs)(&gather) }
}

/// Writes the gradient of every weight, exact zeros where `kept` is 0; what is not finite in `input` or `output_grad` has
/// spread.
pub(crate) fn weight_gradient<T: Number>(
    geometry: &Geometry,
    input: &[T],
    output_grad: &[T],
    kept: Option<&[u8]>,
    grad: &mut [MaybeUninit<T>],
) {
    assert!(applies_to(geometry));
    geometry.assert_lengths(grad.len(), input.len(), output_grad.len());
    assert!(kept.is_none_or(|kept| kept.len() == grad.len()));
    let kernels = T::kernels();
    let plan = WeightPlan::new(geometry, kernels);
    with_buffers::<T, _>(plan.n_parts * plan.part, 0, |sums, _| {
        let shared = Shared::new(sums);
        let n_tasks = geometry.groups * plan.column_blocks.len() * plan.n_row_ranges * plan.n_parts;
        for_each_task(n_tasks, geometry.dense_work(), |task| {
            let (range, rest) = (task % plan.n_row_ranges, task / plan.n_row_ranges);
            let (block, rest) = (rest % plan.column_blocks.len(), rest / plan.column_blocks.len());
            let (part, group) = (rest % plan.n_parts, rest / plan.n_parts);
            plan.run(geometry, kernels, group, plan.column_blocks[block], range, part, input, output_grad, shared);
        });
        let out = Shared::of_uninit(grad);
        let per_row = geometry.in_per_group();
        for_each_task(geometry.out_channels, plan.n_parts * plan.part, |row| {
            let from = sums[row * plan.row_len..].as_ptr();
            let (parts, weights) = ((plan.n_parts, plan.part), row * per_row * TAPS..(row + 1) * per_row * TAPS);
            // SAFETY: the kernel is of this machine's instruction set; a row of each plane of each part, which have whole
            // vectors; a row of the gradient, which no other task writes, and which is written then.
            let row = unsafe {
                (kernels.winograd.filter_gradients)(from, plan.plane, parts, per_row, out.at(weights.start));
                std::slice::from_raw_parts_mut(out.at(weights.start), weights.len())
            };
            if let Some(kept) = kept {
                clear_pruned(row, &kept[weights]);
            }
        });
    });
}

struct WeightPlan {
    column_blocks: Vec<ColumnBlock>,
    row_range: usize,
    n_row_ranges: usize,
    batch_chunk: usize,
    tiles: [usize; 2],
    /// Tiles of a part of the picture: parts are summed apart, so that a small weight still makes several tasks.
    part_tiles: usize,
    n_parts: usize,
    /// Numbers of a row of sums, of all rows of a product, and of all of a part.
    row_len: usize,
    plane: usize,
    part: usize,
}

impl WeightPlan {
    fn new<T: Number>(g: &Geometry, kernels: &Kernels<T>) -> Self {
        let (rows, columns) = (g.out_per_group(), g.in_per_group());
        let column_blocks = column_blocks(columns, kernels);
        let row_range = pieces(rows, ROW_RANGE).next_multiple_of(MAX_ROWS).min(rows).max(1);
        let n_row_ranges = rows.div_ceil(row_range);
        let tiles = n_tiles(g.output);
        // At least eight tasks where the picture has two tiles for each.
        let n_tiles = tiles[0] * tiles[1];
        let wanted = 8usize.div_ceil((column_blocks.len() * n_row_ranges * g.groups).max(1));
        let part_tiles = n_tiles.div_ceil(wanted.min(n_tiles.div_ceil(2)).max(1)).max(1);
        let row_len = columns.next_multiple_of(kernels.lanes);
        let plane = g.out_channels * row_len + GAP;
        Self {
            column_blocks,
            row_range,
            n_row_ranges,
            batch_chunk: pieces(g.batch, BATCH_CHUNK),
            tiles,
            part_tiles,
            n_parts: n_tiles.div_ceil(part_tiles).max(1),
            row_len,
            plane,
            part: PRODUCTS * plane,
        }
    }

    /// The sums of a part of the picture for a block of the input's channels and a range of the output's.
    #[expect(clippy::too_many_arguments, reason = "one task's coordinates, spelled out once")]
    fn run<T: Number>(
        &self,
        g: &Geometry,
        kernels: &Kernels<T>,
        group: usize,
        block: ColumnBlock,
        range: usize,
        part: usize,
        input: &[T],
        output_grad: &[T],
        sums: Shared<T>,
    ) {
        let (lanes, batch) = (kernels.lanes, g.batch);
        let width = block.vectors * lanes;
        let chunk = self.batch_chunk.next_multiple_of(lanes);
        let rows = range * self.row_range..((range + 1) * self.row_range).min(g.out_per_group());
        let patch_plane = self.batch_chunk * width + GAP;
        let grad_plane = rows.len() * chunk + GAP;
        let (panel_len, grads_len) = (PRODUCTS * self.batch_chunk * width, PRODUCTS * grad_plane);
        with_buffers::<T, _>(panel_len + PRODUCTS * patch_plane, grads_len + width.max(chunk), |patches, grads| {
            let (panel, patches) = patches.split_at_mut(panel_len);
            let (grads, zeros) = grads.split_at_mut(grads_len);
            zeros.fill(T::default());
            let tiles = part * self.part_tiles..((part + 1) * self.part_tiles).min(self.tiles[0] * self.tiles[1]);
            let mut is_first = true;
            for start in (0..batch).step_by(self.batch_chunk) {
                let pictures = start..(start + self.batch_chunk).min(batch);
                for at in tiles.clone() {
                    // What the tile on the left has read as well is there.
                    let n_there = if at > tiles.start && at % self.tiles[1] > 0 { PATCH - TILE } else { 0 };
                    let [line, column] = [at / self.tiles[1] * TILE, at % self.tiles[1] * TILE];
                    let at = (group, [line, column], n_there, &pictures);
                    self.transform_input(g, kernels, at, block, input, panel, (patches, patch_plane), zeros);
                    let channel = g.n_outputs() * batch;
                    let from = std::array::from_fn(|i| {
                        let (y, x) = (line + i / TILE, column + i % TILE);
                        let at = ((group * g.out_per_group() + rows.start) * g.output[0] + y) * g.output[1] + x;
                        (y < g.output[0] && x < g.output[1]).then(|| &output_grad[at * batch + start..])
                    });
                    let to = (&mut *grads, chunk, grad_plane);
                    spread(kernels.winograd.output_gradients, from, (rows.len(), channel, pictures.len()), to, zeros);
                    for product in 0..PRODUCTS {
                        for row in (0..rows.len()).step_by(MAX_ROWS) {
                            let n = (rows.len() - row).min(MAX_ROWS);
                            let to = (group * g.out_per_group() + rows.start + row) * self.row_len + block.start;
                            let dense = DenseTile {
                                runs: &[Run { weight: 0, panel: 0 }],
                                run_len: pictures.len(),
                                weight: grads[product * grad_plane + row * chunk..].as_ptr(),
                                w_row: chunk,
                                w_step: 1,
                                panel: patches[product * patch_plane..].as_ptr(),
                                x_step: width,
                                out: sums.at(part * self.part + product * self.plane + to),
                                out_row: self.row_len,
                                first: is_first,
                                checks: false,
                            };
                            // SAFETY: the kernel is of this machine's instruction set; as many pictures in the rows of gradients
                            // and in the patches; `n` rows of sums that no other task writes.
                            unsafe { kernels.dense[block.vectors.ilog2() as usize][n - 1](&dense) };
                        }
                    }
                    is_first = false;
                }
            }
        });
    }

    /// Makes the products' side of a tile's patches, the channels of `block` innermost, a row for each picture. `panel` has the
    /// first `n_there` columns of the patches from the tile on the left.
    #[expect(clippy::too_many_arguments, reason = "one tile's coordinates, spelled out once")]
    fn transform_input<T: Number>(
        &self,
        g: &Geometry,
        kernels: &Kernels<T>,
        (group, [line, column], n_there, pictures): (usize, [usize; 2], usize, &Range<usize>),
        block: ColumnBlock,
        input: &[T],
        panel: &mut [T],
        (patches, plane): (&mut [T], usize),
        zeros: &[T],
    ) {
        let width = block.vectors * kernels.lanes;
        let channels = block.start..(block.start + width).min(g.in_per_group());
        let mut spread = Spread {
            from: [zeros.as_ptr(); PRODUCTS],
            from_step: [0; PRODUCTS],
            n_rows: pictures.len(),
            len: width,
            to: patches.as_mut_ptr(),
            to_step: width,
            plane,
        };
        for i in 0..PRODUCTS {
            let y = (line + i / PATCH).wrapping_sub(g.padding[0]);
            let x = (column + i % PATCH).wrapping_sub(g.padding[1]);
            if y < g.input[0] && x < g.input[1] {
                // Wherever a tile is, a column of the picture has the same place in the panel.
                let place = i / PATCH * PATCH + (column + i % PATCH) % PATCH;
                let panel = &mut panel[place * self.batch_chunk * width..][..pictures.len() * width];
                if i % PATCH >= n_there {
                    let rows = channels.clone().map(|channel| {
                        let at = ((group * g.in_per_group() + channel) * g.input[0] + y) * g.input[1] + x;
                        Some(&input[at * g.batch..][pictures.clone()])
                    });
                    transpose_rows(kernels, rows, panel, pictures.len(), width);
                }
                (spread.from[i], spread.from_step[i]) = (panel.as_ptr(), width);
            }
        }
        // SAFETY: the kernel is of this machine's instruction set; a panel row for each picture, or zeros, of each place; a row of
        // each plane for each picture.
        unsafe { (kernels.winograd.patches)(&spread) };
    }
}
