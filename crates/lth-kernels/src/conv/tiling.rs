//! How the target of a sparse pass is cut into tiles of registers, and its source into panels and chunks that stay in the caches.

use super::geometry::Map;
use super::kernel::table::{InstructionSet, Kernels, Number, ProgramKind, TileShape};
use super::kernel::tile::PATTERNS;
use super::lattice::{Class, Grid};
use crate::bits::WORD;

/// Density from which a chunk is read so often that all of it has to stay in the L1 cache.
pub(crate) const HIGH_DENSITY: f64 = 0.25;

/// Bytes of panel that a chunk's tile may touch: about the L1 cache. Measured with AVX-512 (48 KB): 40, 64 and 96 KB
/// differ by less than 5 % at density 0.1; below it, fewer and longer chunks win. From a quarter on 40 KB take 0.8 to 1.0 of the
/// time of 64.
fn l1_bytes(set: InstructionSet, kind: ProgramKind, density: f64) -> usize {
    match set {
        InstructionSet::Avx512 if density < HIGH_DENSITY && kind == ProgramKind::Rows => 64 << 10,
        InstructionSet::Avx512 => 40 << 10,
        _ => 24 << 10,
    }
}

/// Bytes of panel that one task may hold in its L2 cache.
pub(crate) const PANEL_BYTES: usize = 896 << 10;

/// Numbers of a panel that each list reads once, and in one piece: short lists cost more than L1 saves, and the values of rows that
/// are read in one piece are the kept weights as they lie. 784 channels of 60 samples: at a density of 0.3 with AVX-512 and two threads
/// 142 µs instead of 170. In a larger panel L1 saves more: 4096 to 4096 channels of 64 samples take 3.5 ms instead of 2.9 at 0.2.
const ONCE: usize = 1 << 16;

/// Whether a mask's lists read one small panel once: those of a linear layer for a few samples.
pub(crate) fn reads_once(map: &Map, lanes: usize) -> bool {
    let g = &map.geometry;
    g.n_taps() == 1
        && (map.source, map.target) == ([1, 1], [1, 1])
        && map.depth * g.batch.next_multiple_of(lanes) <= ONCE
}

/// Sums of the weight gradient over different parts of the pictures and of the batch, about; they are added at the end.
const MAX_SUMS: usize = 8;

/// Rows of all sums, about. Every sum of an entry is cleared, gone through beside its panel, and added at the end: of a layer
/// with 512 channels of 2×2 that took more than a third of its gradients, with one sum for each eighth of the batch.
const SUM_ROWS: usize = 512;

/// Kept weights that a row should have in a chunk: below it, loading and storing the sums, and guessing where a list ends, costs more
/// than L1 saves. Cut tiles have nine lists. Measured with AVX-512 (AMD, 48 KB): ResNet-18's step of 64 pictures of 64×64 takes 0.97 of
/// the time with 32 instead of 64 at a density of 0.1, 0.98 at 0.2, the same at 0.05.
fn wanted_entries(set: InstructionSet, is_cut: bool) -> f64 {
    if set == InstructionSet::Avx512 && !is_cut { 32.0 } else { 64.0 }
}

/// What a tile costs for lying in the target in runs of so many vectors, in multiplications of a vector, by the target's
/// bytes: short runs show where the target is larger than the caches.
fn scattered(run: usize, target_bytes: usize) -> f64 {
    match (run, target_bytes >> 20) {
        (16.., _) => 0.0,
        (8.., 8..) => 4.0,
        (1, 2..) | (_, 8..) => 12.0,
        (8.., _) => 1.0,
        (_, 2..) => 8.0,
        (4.., _) => 0.0,
        _ => 2.0,
    }
}

/// Copying a vector into the panel, in multiplications of a vector, by the vectors that lie side by side.
fn pack(unit: usize) -> f64 {
    match unit {
        1 => 6.0,
        2 | 3 => 5.0,
        _ => 3.0,
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
    /// Rows of tiles that one panel holds.
    pub(crate) bands: usize,
    /// The panel: rows and columns of each plane, where they start relative to its first tile.
    pub(crate) panel: [usize; 2],
    pub(crate) first_shift: [isize; 2],
    pub(crate) row_pitch: usize,
    pub(crate) plane_pitch: usize,
    pub(crate) channel_pitch: usize,
    pub(crate) depth_chunk: usize,
    pub(crate) n_chunks: usize,
    /// Rows that are listed together.
    pub(crate) rows_at_once: usize,
    /// Segments per chunk and rows that are listed together: nine in cut tiles, one for each pattern in quads, else one.
    pub(crate) n_segments: usize,
}

impl Tiling {
    pub(super) fn new<T: Number>(
        class: Class,
        map: &Map,
        kernels: &Kernels<T>,
        density: f64,
        kind: ProgramKind,
    ) -> Self {
        let lanes = kernels.lanes;
        let batch_vectors = map.geometry.batch.div_ceil(lanes).max(1);
        let entries = density * (map.depth * class.taps.len()) as f64;
        let g = &map.geometry;
        let target_len = map.rows * g.groups * map.target[0] * map.target[1] * g.batch;
        let target_bytes = target_len * size_of::<T>();
        let reuse = (map.rows as f64 / map.depth.max(1) as f64).max(1e-3);
        let (shape, unit) = choose_tile(&class, map.depth, batch_vectors, kernels, kind, entries, reuse, target_bytes);
        let grid = class.target.size;
        let tile = [shape.rows, shape.vectors / unit];
        let n_tiles = [grid[0].div_ceil(tile[0]), grid[1].div_ceil(tile[1])];
        let (shifts_y, shifts_x) = (class.shifts(0), class.shifts(1));
        let cut = shape.cut_unit > 0;
        let span = |(low, high): (isize, isize)| if cut { 0 } else { (high - low) as usize };
        let column = unit * lanes;
        let columns = n_tiles[1] * tile[1] + span(shifts_x);
        let row_pitch = columns * column;
        let row_bytes = map.depth * class.planes.len() * row_pitch * size_of::<T>();
        let bands = if cut { 1 } else { bands(n_tiles[0], tile[0], span(shifts_y), row_bytes) };
        let panel = [bands * tile[0] + span(shifts_y), columns];
        let plane_pitch = panel[0] * row_pitch;
        let lines = class.planes.len() * plane_pitch;
        // Wide bands would lie a power of two apart; an odd number of columns spreads them.
        let channel_pitch = if n_tiles[1] > 1 && (lines / column).is_multiple_of(2) { lines + column } else { lines };
        let touched =
            class.planes.len() * (tile[0] + span(shifts_y)) * (tile[1] + span(shifts_x)) * column * size_of::<T>();
        let per_channel = density * class.taps.len() as f64;
        let wanted = (wanted_entries(kernels.set, cut) / per_channel.max(1e-3)).ceil() as usize;
        let channels = |bytes: usize| bytes / touched.max(1);
        let bytes = l1_bytes(kernels.set, kind, density);
        let most =
            if reads_once(map, lanes) { map.depth } else { channels(bytes).max(wanted.min(channels(8 * bytes))) };
        let n_chunks = map.depth.div_ceil(most.clamp(1, map.depth.max(1))).max(1);
        let depth_chunk = map.depth.div_ceil(n_chunks).max(1);
        Self {
            first_shift: if cut { [0, 0] } else { [shifts_y.0, shifts_x.0] },
            rows_at_once: kind.rows(),
            n_segments: match kind {
                ProgramKind::Rows if cut => CUT_SEGMENTS,
                ProgramKind::Rows => 1,
                ProgramKind::Quads => PATTERNS,
            },
            n_chunks: map.depth.div_ceil(depth_chunk).max(1),
            class,
            shape,
            batch_vectors: unit,
            tile,
            n_tiles,
            bands,
            panel,
            row_pitch,
            plane_pitch,
            channel_pitch,
            depth_chunk,
        }
    }

    /// Whether all lists read one panel of the whole batch, and each of them once.
    pub(crate) fn is_read_once(&self, map: &Map, lanes: usize) -> bool {
        reads_once(map, lanes) && self.tile == [1, 1] && self.n_batch_parts(map, lanes) == 1
    }

    /// Panels of a picture, one below the other.
    pub(crate) fn n_panels(&self) -> usize {
        self.n_tiles[0].div_ceil(self.bands)
    }

    /// Into how many pieces the batch is cut.
    pub(crate) fn n_batch_parts(&self, map: &Map, lanes: usize) -> usize {
        map.geometry.batch.div_ceil(self.batch_vectors * lanes)
    }

    /// Panels, of all pieces of the batch, whose products go into one sum of the weight gradient. Different sums can run on
    /// different threads, but so can different rows: as many sums as make some tasks of them, whatever the number of threads.
    pub(crate) fn panels_per_sum(&self, map: &Map, lanes: usize) -> usize {
        let wanted = (SUM_ROWS / (map.rows * map.geometry.groups).max(1)).clamp(1, MAX_SUMS);
        (self.n_panels() * self.n_batch_parts(map, lanes)).div_ceil(wanted).max(1)
    }

    /// Whether a panel would be what lies in the source already: whole planes of the whole batch.
    pub(crate) fn is_source(&self, map: &Map, lanes: usize) -> bool {
        let plane = Grid { origin: [0, 0], step: [1, 1], size: map.source };
        let plane_len = map.source[0] * map.source[1] * map.geometry.batch;
        self.batch_vectors * lanes == map.geometry.batch
            && self.class.planes == [plane]
            && (self.first_shift, self.panel, self.channel_pitch) == ([0, 0], map.source, plane_len)
    }

    /// The segments of a row, or of the rows that are listed with it, in one chunk: where they begin among all.
    pub(crate) fn segment_index(&self, map: &Map, group: usize, chunk: usize, row: usize) -> usize {
        self.list_index(map, group, chunk, row) * self.n_segments
    }

    pub(super) fn list_index(&self, map: &Map, group: usize, chunk: usize, row: usize) -> usize {
        ((group * self.n_chunks + chunk) * map.rows + row) / self.rows_at_once
    }

    fn is_cut(&self) -> bool {
        self.shape.cut_unit > 0
    }

    /// Where the weights of a row's list read: all one behind the other, or in cut tiles shift by shift.
    pub(super) fn reads(&self, map: &Map) -> Reads {
        let n_taps = map.geometry.n_taps();
        let mut of_tap = vec![(0, 0); n_taps];
        let mut masks = vec![0; n_taps.div_ceil(WORD)];
        for tap in &self.class.taps {
            let mut offset = tap.plane * self.plane_pitch;
            let mut segment = 0;
            if self.is_cut() {
                segment = ((tap.shift[0] + 1) * 3 + tap.shift[1] + 1) as u32;
            } else {
                offset += (tap.shift[0] - self.first_shift[0]) as usize * self.row_pitch;
                offset += (tap.shift[1] - self.first_shift[1]) as usize * (self.row_pitch / self.panel[1]);
            }
            of_tap[tap.tap] = (segment, offset);
            masks[tap.tap / WORD] |= 1 << (tap.tap % WORD);
        }
        let of_channel = |channel: usize| {
            let read = move |(tap, &(segment, offset)): (usize, &(u32, usize))| Read {
                segment,
                offset: (channel * self.channel_pitch + offset) as u32,
                place: (channel * map.weight_step + tap) as u32,
            };
            of_tap.iter().enumerate().map(read)
        };
        let is_whole = self.class.taps.len() == n_taps;
        Reads { places: (0..self.depth_chunk).flat_map(of_channel).collect(), masks, is_whole, n_taps }
    }
}

/// How many rows of tiles share a panel: what lies between two panels is packed for both, so as many as the cache
/// takes, in panels of about the same size.
fn bands(n_bands: usize, tile_rows: usize, span: usize, row_bytes: usize) -> usize {
    let rows = PANEL_BYTES / row_bytes.max(1);
    let most = (rows.saturating_sub(span) / tile_rows).clamp(1, n_bands.max(1));
    n_bands.div_ceil(n_bands.div_ceil(most)).max(1)
}

/// The tile that costs least for rows of `entries` kept weights, and the vectors of the batch in it. `reuse`: target
/// channels for each source channel, which is packed once for all of them.
#[expect(clippy::too_many_arguments, reason = "what the choice depends on, spelled out once")]
fn choose_tile<T>(
    class: &Class,
    depth: usize,
    batch_vectors: usize,
    kernels: &Kernels<T>,
    kind: ProgramKind,
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
    let are_lines = kernels.set == InstructionSet::Avx512;
    let mut best: Option<(f64, TileShape, usize)> = None;
    for shape in kernels.shapes(kind) {
        // A tile is whole columns, and no wider than the batch needs.
        let units: Vec<usize> = match shape.cut_unit {
            0 => (0..=shape.vectors.ilog2()).map(|log| 1 << log).filter(|unit| shape.vectors % unit == 0).collect(),
            unit => vec![unit],
        };
        for unit in units {
            let tile = [shape.rows, shape.vectors / unit];
            let registers = (shape.rows * shape.vectors) as f64;
            if (shape.cut_unit > 0 && (!whole || tile != grid)) || unit >= 2 * batch_vectors {
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
                // Of a quad, one load and a share of four weights and an offset for four multiplications; vectors that are
                // lines of the cache come in pairs.
                let (own, share) = match kind {
                    ProgramKind::Quads if are_lines && unit == 1 && batch_vectors > 1 => (0.6, 0.6),
                    ProgramKind::Quads => (0.5, 0.6),
                    ProgramKind::Rows => (1.0, 2.0),
                };
                waste * (own + share / registers + 0.02 * (halo - 1.0))
            };
            // Columns of the whole batch lie side by side.
            let run = if unit < batch_vectors || class.target.step[1] > 1 { unit } else { unit * tile[1] };
            // Of a quad, tiles are a quarter as large: what they cost for that showed no difference.
            let scattered = if kind == ProgramKind::Quads && are_lines { 0.0 } else { scattered(run, target_bytes) };
            // A panel spans whole rows of the picture; rows between two panels are packed for both.
            let columns = grid[1].next_multiple_of(tile[1]) + span(1) as usize;
            let row_bytes = depth * class.planes.len() * columns * unit * kernels.lanes * size_of::<T>();
            let rows = tile[0] * bands(grid[0].div_ceil(tile[0]), tile[0], span(0) as usize, row_bytes);
            let halo = if shape.cut_unit > 0 { 1.0 } else { (rows as f64 + span(0)) / rows as f64 };
            let packed = waste * pack(unit) * halo * class.planes.len() as f64 / reuse;
            let cost = cost * entries + scattered + packed;
            if best.is_none_or(|(least, ..)| cost < least) {
                best = Some((cost, shape, unit));
            }
        }
    }
    best.map_or((TileShape { rows: 1, vectors: 1, cut_unit: 0 }, 1), |(_, shape, unit)| (shape, unit))
}
/// Shifts of a cut tile: by -1, 0 or 1 along both axes.
const CUT_SEGMENTS: usize = 9;

/// Where a weight reads.
pub(super) struct Read {
    pub(super) segment: u32,
    /// In the chunk's panel.
    pub(super) offset: u32,
    /// Where it lies behind the first weight of its row in the chunk.
    pub(super) place: u32,
}

/// Where the weights of a row read.
pub(super) struct Reads {
    /// Channel by channel and tap by tap.
    pub(super) places: Vec<Read>,
    /// A bit for each tap that reads anything.
    pub(super) masks: Vec<u64>,
    /// Whether all taps do.
    pub(super) is_whole: bool,
    pub(super) n_taps: usize,
}
