//! A mask made into the lists that the sparse kernels walk.
//!
//! For one class of target positions the picture is cut into tiles of registers (`rows` × columns × a piece of the
//! batch) and the source channels into chunks whose part of the picture stays in L1. A program holds, chunk by chunk
//! and row by row, where in the packed panel each kept weight reads, and where in the weight its value lies.

use super::geometry::{Direction, Geometry, Map};
use super::kernel::table::{InstructionSet, Kernels, Number, TileShape};
use super::lattice::{Class, classes};

/// Bytes of panel that a chunk's tile may touch: about the L1 cache. Measured with AVX-512 (48 KB): 40, 64 and 96 KB
/// differ by less than 5 % at density 0.1; below it, fewer and longer chunks win.
const fn l1_bytes(set: InstructionSet) -> usize {
    match set {
        InstructionSet::Avx512 => 64 << 10,
        _ => 24 << 10,
    }
}

/// Kept weights that a row should have in a chunk: below it, loading and storing the sums costs more than the work.
const WANTED_ENTRIES: usize = 16;

/// What a piece of the batch that is narrower than a position costs in a tile, in multiplications of a vector, by the
/// target's bytes: pieces touch memory in single cache lines, which shows where the target is larger than the caches.
fn scattered(unit: usize, target_bytes: usize) -> f64 {
    match (unit, target_bytes >> 20) {
        (_, 8..) => 12.0,
        (1, 4..) => 12.0,
        (_, 4..) => 1.5,
        _ => 2.0,
    }
}

/// How one class is tiled. All lengths in elements.
#[derive(Clone, Debug)]
pub(crate) struct Tiling {
    pub(crate) class: Class,
    pub(crate) shape: TileShape,
    /// Vectors of the batch in one tile.
    pub(crate) batch_vectors: usize,
    /// Positions of one tile.
    pub(crate) tile: [usize; 2],
    pub(crate) n_tiles: [usize; 2],
    /// The panel of one band of tiles: rows and columns of each plane, where they start relative to the tile.
    pub(crate) panel: [usize; 2],
    pub(crate) first_shift: [isize; 2],
    pub(crate) row_pitch: usize,
    pub(crate) plane_pitch: usize,
    pub(crate) channel_pitch: usize,
    pub(crate) depth_chunk: usize,
    pub(crate) n_chunks: usize,
    /// Segments per row and chunk: nine in cut tiles, else one.
    pub(crate) n_segments: usize,
}

impl Tiling {
    fn new<T: Number>(class: Class, map: &Map, kernels: &Kernels<T>, density: f64) -> Self {
        let lanes = kernels.lanes;
        let batch_vectors = map.geometry.batch.div_ceil(lanes).max(1);
        let entries = density * (map.depth * class.taps.len()) as f64;
        let g = &map.geometry;
        let target_len = map.rows * g.groups * map.target[0] * map.target[1] * g.batch;
        let target_bytes = target_len * size_of::<T>();
        let reuse = (map.rows as f64 / map.depth.max(1) as f64).max(1e-3);
        let (shape, unit) = choose_tile(&class, batch_vectors, kernels, entries, reuse, target_bytes);
        let grid = class.target.size;
        let tile = [shape.rows, shape.vectors / unit];
        let n_tiles = [grid[0].div_ceil(tile[0]), grid[1].div_ceil(tile[1])];
        let (shifts_y, shifts_x) = (class.shifts(0), class.shifts(1));
        let cut = shape.cut_unit > 0;
        let span = |(low, high): (isize, isize)| if cut { 0 } else { (high - low) as usize };
        let panel = [tile[0] + span(shifts_y), n_tiles[1] * tile[1] + span(shifts_x)];
        let column = unit * lanes;
        let row_pitch = panel[1] * column;
        let plane_pitch = panel[0] * row_pitch;
        let lines = class.planes.len() * plane_pitch;
        // Wide bands would lie a power of two apart; an odd number of columns spreads them.
        let channel_pitch = if n_tiles[1] > 1 && (lines / column).is_multiple_of(2) { lines + column } else { lines };
        let touched = class.planes.len() * panel[0] * (tile[1] + span(shifts_x)) * column * size_of::<T>();
        let per_channel = density * class.taps.len() as f64;
        let wanted = (WANTED_ENTRIES as f64 / per_channel.max(1e-3)).ceil() as usize;
        let most = (l1_bytes(kernels.set) / touched.max(1)).max(wanted.min(2 * l1_bytes(kernels.set) / touched.max(1)));
        let n_chunks = map.depth.div_ceil(most.clamp(1, map.depth.max(1))).max(1);
        let depth_chunk = map.depth.div_ceil(n_chunks).max(1);
        Self {
            first_shift: if cut { [0, 0] } else { [shifts_y.0, shifts_x.0] },
            n_segments: if cut { 9 } else { 1 },
            n_chunks: map.depth.div_ceil(depth_chunk).max(1),
            class,
            shape,
            batch_vectors: unit,
            tile,
            n_tiles,
            panel,
            row_pitch,
            plane_pitch,
            channel_pitch,
            depth_chunk,
        }
    }

    /// Which segment a shift belongs to.
    fn segment(&self, shift: [isize; 2]) -> usize {
        if self.n_segments == 1 { 0 } else { ((shift[0] + 1) * 3 + shift[1] + 1) as usize }
    }
}

/// Copying a vector into the panel, in multiplications of a vector.
const PACK: f64 = 6.0;

/// The tile that costs least for rows of `entries` kept weights, and the vectors of the batch in it. `reuse`: target
/// channels for each source channel, which is packed once for all of them.
fn choose_tile<T>(
    class: &Class,
    batch_vectors: usize,
    kernels: &Kernels<T>,
    entries: f64,
    reuse: f64,
    target_bytes: usize,
) -> (TileShape, usize) {
    let grid = class.target.size;
    let small = |axis: usize| {
        let (low, high) = class.shifts(axis);
        low >= -1 && high <= 1
    };
    let whole = class.planes.iter().all(|plane| plane.size == grid) && small(0) && small(1);
    let mut best: Option<(f64, TileShape, usize)> = None;
    for &(shape, ..) in kernels.sparse {
        let units: Vec<usize> = match shape.cut_unit {
            0 => (0..=shape.vectors.ilog2()).map(|log| 1 << log).collect(),
            unit => vec![unit],
        };
        for unit in units {
            let tile = [shape.rows, shape.vectors / unit];
            let registers = (shape.rows * shape.vectors) as f64;
            if shape.cut_unit > 0 && (!whole || tile != grid) {
                continue;
            }
            let covered = grid[0].next_multiple_of(tile[0])
                * grid[1].next_multiple_of(tile[1])
                * batch_vectors.next_multiple_of(unit);
            let waste = covered as f64 / (grid[0] * grid[1] * batch_vectors) as f64;
            // Per multiplication: its own load, a share of the weight and its offset, and of what the panel is
            // larger than the tile (packing, and fewer channels in L1).
            let span = |axis: usize| {
                let (low, high) = class.shifts(axis);
                (high - low) as f64
            };
            let cost = if shape.cut_unit > 0 {
                // Corner taps touch part of the registers: the weight's share is larger, the work smaller.
                let kept: f64 = (0..2).map(|axis| 1.0 - 2.0 / (3.0 * grid[axis] as f64)).product();
                waste * (kept + 2.0 / registers)
            } else {
                let halo = ((tile[0] as f64 + span(0)) * (tile[1] as f64 + span(1))) / (tile[0] * tile[1]) as f64;
                waste * (1.0 + 2.0 / registers + 0.1 * (halo - 1.0))
            };
            let scattered = if unit < batch_vectors.min(4) { scattered(unit, target_bytes) } else { 0.0 };
            // A panel spans whole rows of the picture; rows above and below a tile are packed for the next one, too.
            let halo = if shape.cut_unit > 0 { 1.0 } else { (tile[0] as f64 + span(0)) / tile[0] as f64 };
            let packed = PACK * halo * class.planes.len() as f64 / reuse;
            let cost = cost * entries + scattered + packed;
            if best.is_none_or(|(least, ..)| cost < least) {
                best = Some((cost, shape, unit));
            }
        }
    }
    best.map_or((TileShape { rows: 1, vectors: 1, cut_unit: 0 }, 1), |(_, shape, unit)| (shape, unit))
}

/// The lists of one class.
#[derive(Debug)]
pub(crate) struct ClassProgram {
    pub(crate) tiling: Tiling,
    /// Where entries begin: `[group][chunk][row][segment]`, and the end.
    pub(crate) segments: Vec<u32>,
    /// Where in its chunk's panel an entry reads.
    pub(crate) offsets: Vec<u32>,
    /// Where in the weight its value lies.
    pub(crate) positions: Vec<u32>,
    /// Whether any kept weight reads a source channel.
    pub(crate) used_channels: Vec<bool>,
}

impl ClassProgram {
    pub(crate) fn segment_index(&self, map: &Map, group: usize, chunk: usize, row: usize) -> usize {
        ((group * self.tiling.n_chunks + chunk) * map.rows + row) * self.tiling.n_segments
    }
}

/// What a program depends on besides the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProgramKey {
    pub(crate) geometry: Geometry,
    pub(crate) direction: Direction,
    pub(crate) set: InstructionSet,
    pub(crate) lanes: usize,
}

impl ProgramKey {
    pub(crate) fn new<T: Number>(geometry: &Geometry, direction: Direction) -> Self {
        let kernels = T::kernels();
        Self { geometry: *geometry, direction, set: kernels.set, lanes: kernels.lanes }
    }
}

/// A mask's lists for one direction of a convolution.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) map: Map,
    pub(crate) classes: Vec<ClassProgram>,
}

impl Program {
    /// `kept` has the weight's elements, 0 = pruned.
    pub(crate) fn new<T: Number>(geometry: &Geometry, direction: Direction, kept: &[u8], density: f64) -> Self {
        let map = geometry.map(direction);
        let kernels = T::kernels();
        let classes = classes(&map)
            .into_iter()
            .map(|class| ClassProgram::new(Tiling::new(class, &map, kernels, density), &map, kept))
            .collect();
        Self { map, classes }
    }
}

impl ClassProgram {
    fn new(tiling: Tiling, map: &Map, kept: &[u8]) -> Self {
        let g = &map.geometry;
        let mut by_segment: Vec<Vec<(u32, usize)>> = vec![Vec::new(); tiling.n_segments];
        for tap in &tiling.class.taps {
            let mut offset = tap.plane * tiling.plane_pitch;
            if tiling.n_segments == 1 {
                offset += (tap.shift[0] - tiling.first_shift[0]) as usize * tiling.row_pitch;
                offset += (tap.shift[1] - tiling.first_shift[1]) as usize * (tiling.row_pitch / tiling.panel[1]);
            }
            by_segment[tiling.segment(tap.shift)].push((offset as u32, tap.tap));
        }
        let (mut segments, mut offsets, mut positions) = (vec![0], Vec::new(), Vec::new());
        let mut used_channels = vec![false; g.groups * map.depth];
        for group in 0..g.groups {
            for chunk in 0..tiling.n_chunks {
                let depth = chunk * tiling.depth_chunk..((chunk + 1) * tiling.depth_chunk).min(map.depth);
                for row in 0..map.rows {
                    for taps in &by_segment {
                        for c in depth.clone() {
                            let at = group * g.weights_per_group() + row * map.weight_row + c * map.weight_step;
                            for &(offset, tap) in taps {
                                if kept[at + tap] != 0 {
                                    offsets.push(((c - depth.start) * tiling.channel_pitch) as u32 + offset);
                                    positions.push((at + tap) as u32);
                                    used_channels[group * map.depth + c] = true;
                                }
                            }
                        }
                        segments.push(offsets.len() as u32);
                    }
                }
            }
        }
        Self { tiling, segments, offsets, positions, used_channels }
    }
}
