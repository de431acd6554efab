//! A mask made into the lists that the sparse kernels walk.
//!
//! For one class of target positions the picture is cut into tiles of registers (`rows` × columns × a piece of the
//! batch) and the source channels into chunks whose part of the picture stays in L1. A program holds, chunk by chunk
//! and row by row, where in the packed panel each kept weight reads; such an entry has a number, and the program's
//! ranks say which of the kept weights is whose. For kernels of four rows an entry is a place that any of them keeps, and
//! has a value for each that does.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::geometry::{Direction, Geometry, Map};
use super::kernel::table::{InstructionSet, Kernels, Number, ProgramKind, TileShape};
use super::kernel::tile::{PATTERNS, QUAD};
use super::lattice::{Class, Grid, classes};
use super::scratch::Shared;
use crate::bits::WORD;
use crate::kept::KeptPlaces;
use crate::parallel::for_each;

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

/// Rows whose entries one task lists.
const ROW_BLOCK: usize = 16;

/// Weights below which lists are made where they are asked for: tens of microseconds.
const ALONE: usize = 1 << 14;

/// Sums of the weight gradient over different parts of the pictures and of the batch, about; they are added at the end.
const MAX_SUMS: usize = 8;

/// Rows of all sums, about. Every sum of an entry is cleared, gone through beside its panel, and added at the end: of a layer
/// with 512 channels of 2×2 that took more than a third of its gradients, with one sum for each eighth of the batch.
const SUM_ROWS: usize = 512;

/// Kept weights that a row should have in a chunk: below it, loading and storing the sums costs more than the work.
const WANTED_ENTRIES: usize = 64;

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
    fn new<T: Number>(class: Class, map: &Map, kernels: &Kernels<T>, density: f64, kind: ProgramKind) -> Self {
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
        let wanted = (WANTED_ENTRIES as f64 / per_channel.max(1e-3)).ceil() as usize;
        let channels = |bytes: usize| bytes / touched.max(1);
        let bytes = l1_bytes(kernels.set, kind, density);
        let most = match reads_once(map, lanes) {
            true => map.depth,
            false => channels(bytes).max(wanted.min(channels(8 * bytes))),
        };
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

    fn list_index(&self, map: &Map, group: usize, chunk: usize, row: usize) -> usize {
        ((group * self.n_chunks + chunk) * map.rows + row) / self.rows_at_once
    }

    fn is_cut(&self) -> bool {
        self.shape.cut_unit > 0
    }

    /// Where the weights of a row's list read: all one behind the other, or in cut tiles shift by shift.
    fn reads(&self, map: &Map) -> Reads {
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

/// The lists of one class.
#[derive(Debug)]
pub(crate) struct ClassProgram {
    pub(crate) tiling: Tiling,
    /// Where entries begin: `[group][chunk][row][segment]`, of rows that are listed together once, and the end.
    pub(crate) segments: Vec<u32>,
    /// Where in its chunk's panel an entry reads.
    pub(crate) offsets: Vec<u32>,
    /// The number of its first value among all classes'.
    pub(crate) first_value: usize,
    /// For each four rows, chunk by chunk, the number of their first value among this class's; empty where each entry has one.
    first_values: Vec<u32>,
    /// Whether any kept weight reads a source channel.
    pub(crate) used_channels: Vec<bool>,
}

impl ClassProgram {
    /// Sums of the weight gradient that each of its entries has.
    pub(crate) fn n_sums(&self, map: &Map, lanes: usize) -> usize {
        let n_panels = self.tiling.n_panels() * self.tiling.n_batch_parts(map, lanes);
        n_panels.div_ceil(self.tiling.panels_per_sum(map, lanes))
    }

    /// The entries of some rows in one chunk, which are numbered one after the other.
    pub(crate) fn entries(&self, map: &Map, group: usize, chunk: usize, rows: &Range<usize>) -> Range<usize> {
        let begin = |row| self.segments[self.tiling.segment_index(map, group, chunk, row)] as usize;
        begin(rows.start)..begin(rows.end)
    }

    /// The number among all values that the kernel of a row, or of the rows that are listed with it, counts from.
    pub(crate) fn first_value_of(&self, map: &Map, group: usize, chunk: usize, row: usize) -> usize {
        let list = self.tiling.list_index(map, group, chunk, row);
        self.first_value + self.first_values.get(list).map_or(0, |&first| first as usize)
    }
}

/// What a program depends on besides the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProgramKey {
    pub(crate) geometry: Geometry,
    pub(crate) direction: Direction,
    pub(crate) set: InstructionSet,
    pub(crate) lanes: usize,
    pub(crate) kind: ProgramKind,
}

impl ProgramKey {
    pub(crate) fn new<T: Number>(geometry: &Geometry, direction: Direction, kind: ProgramKind) -> Self {
        let kernels = T::kernels();
        Self { geometry: *geometry, direction, set: kernels.set, lanes: kernels.lanes, kind }
    }
}

/// A mask's lists for one direction of a convolution.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) map: Map,
    pub(crate) kind: ProgramKind,
    pub(crate) classes: Vec<ClassProgram>,
    /// Of each value, class by class, which of the kept weights it is, counted in row-major order: those that are multiplied with
    /// anything.
    pub(crate) ranks: Vec<u32>,
    /// Whether the values are the kept weights one after the other.
    pub(crate) is_in_order: bool,
    pub(crate) n_kept: usize,
}

impl Program {
    /// The weights at `places` are kept. For quads the target's channels are a multiple of four.
    pub(crate) fn new<T: Number>(
        geometry: &Geometry,
        direction: Direction,
        kind: ProgramKind,
        places: &KeptPlaces,
        density: f64,
    ) -> Self {
        let map = geometry.map(direction);
        assert!(map.rows.is_multiple_of(kind.rows()));
        let kernels = T::kernels();
        let ranked = Ranks::new(places);
        let mut ranks = Vec::new();
        let classes: Vec<ClassProgram> = classes(&map)
            .into_iter()
            .map(|class| ClassProgram::new(Tiling::new(class, &map, kernels, density, kind), &map, &ranked, &mut ranks))
            .collect();
        let n_kept = places.n_kept();
        let is_in_order = ranks.len() == n_kept && ranks.iter().zip(0..).all(|(rank, at)| *rank == at);
        Self { map, kind, classes, ranks, is_in_order, n_kept }
    }
}

impl ClassProgram {
    /// `ranks`: of each value of all classes so far.
    fn new(tiling: Tiling, map: &Map, ranked: &Ranks<'_>, ranks: &mut Vec<u32>) -> Self {
        let g = &map.geometry;
        let reads = tiling.reads(map);
        let n_blocks = map.rows.div_ceil(ROW_BLOCK);
        // Counted first, and then written where it belongs: in blocks of rows, each by one task.
        let n_blocks_in_all = g.groups * tiling.n_chunks * n_blocks;
        let work = if g.weights_per_group() * g.groups < ALONE { 0 } else { map.rows * map.depth * g.n_taps() };
        let block = |at: usize| {
            let (rows, rest) = (at % n_blocks, at / n_blocks);
            let (chunk, group) = (rest % tiling.n_chunks, rest / tiling.n_chunks);
            let depth = chunk * tiling.depth_chunk..((chunk + 1) * tiling.depth_chunk).min(map.depth);
            let rows = rows * ROW_BLOCK..((rows + 1) * ROW_BLOCK).min(map.rows);
            let first_segment = tiling.segment_index(map, group, chunk, rows.start);
            (Places { map, group, depth, reads: &reads, ranked }, rows, first_segment)
        };
        let n_lists = g.groups * tiling.n_chunks * map.rows / tiling.rows_at_once;
        let mut segments = vec![0; n_lists * tiling.n_segments + 1];
        let mut used_channels = Vec::new();
        used_channels.resize_with(g.groups * map.depth, AtomicBool::default);
        let lengths = Shared::new(&mut segments[1..]);
        let block_len = ROW_BLOCK * (tiling.depth_chunk * reads.n_taps).div_ceil(WORD).max(1);
        let mut lines = vec![0; n_blocks_in_all * block_len];
        let all_lines = Shared::new(&mut lines);
        for_each(n_blocks_in_all, work, |at| {
            let (places, rows, first) = block(at);
            let n = rows.len() / tiling.rows_at_once * tiling.n_segments;
            // SAFETY: the segments of a block's rows, which no other task writes.
            let lengths = unsafe { std::slice::from_raw_parts_mut(lengths.at(first), n) };
            let line_len = places.line_len();
            // SAFETY: the lines of this block, which no other task writes.
            let lines = unsafe { std::slice::from_raw_parts_mut(all_lines.at(at * block_len), rows.len() * line_len) };
            places.line_up(&rows, lines);
            for (lines, lengths) in lines
                .chunks_exact(tiling.rows_at_once * line_len)
                .zip(lengths.chunks_exact_mut(tiling.n_segments.max(1)))
            {
                places.count(&lines.chunks_exact(line_len).collect::<Vec<_>>(), lengths);
            }
            let mut any = vec![0; line_len];
            for line in lines.chunks_exact(line_len) {
                any.iter_mut().zip(line).for_each(|(any, word)| *any |= word);
            }
            let all_used = &used_channels[places.group * map.depth + places.depth.start..];
            for (all, _) in all_used.iter().zip(places.used(&any)).filter(|(_, is_used)| *is_used) {
                all.store(true, Ordering::Relaxed);
            }
        });
        let is_quads = tiling.rows_at_once == QUAD;
        let (mut end, mut n_values, mut first_values) = (0, 0, Vec::new());
        for list in segments[1..].chunks_exact_mut(tiling.n_segments.max(1)) {
            if is_quads {
                first_values.push(n_values);
                let values = list.iter().enumerate().map(|(segment, n)| n * (segment as u32 + 1).count_ones());
                n_values += values.sum::<u32>();
            }
            for length in list {
                end += *length;
                *length = end;
            }
        }
        if !is_quads {
            n_values = end;
        }
        let first_value = ranks.len();
        let mut offsets: Vec<u32> = Vec::with_capacity(end as usize);
        ranks.reserve_exact(n_values as usize);
        let to = (Shared::of_uninit(offsets.spare_capacity_mut()), Shared::of_uninit(ranks.spare_capacity_mut()));
        for_each(n_blocks_in_all, work, |at| {
            let (places, rows, first) = block(at);
            let line_len = places.line_len();
            let of_list = lines[at * block_len..][..rows.len() * line_len].chunks_exact(tiling.rows_at_once * line_len);
            for ((i, row), lines) in rows.step_by(tiling.rows_at_once).enumerate().zip(of_list) {
                let lines: Vec<&[u64]> = lines.chunks_exact(line_len).collect();
                let first = first + i * tiling.n_segments;
                // Where the next entry of each segment goes, and its first value.
                let mut next = [(0, 0); PATTERNS];
                let mut value = first_values.get(first / tiling.n_segments).map_or(0, |&value| value as usize);
                for (segment, next) in next[..tiling.n_segments].iter_mut().enumerate() {
                    let begin = segments[first + segment] as usize;
                    *next = (begin, if is_quads { value } else { begin });
                    value += (segments[first + segment + 1] as usize - begin) * (segment + 1).count_ones() as usize;
                }
                places.visit(row, &lines, |segment, offset, ranks| {
                    let (entry, value) = &mut next[segment];
                    // SAFETY: so many entries of this segment, and values of them, were counted, and nobody else writes there.
                    unsafe {
                        to.0.at(*entry).write(offset);
                        *entry += 1;
                        for (k, rank) in ranks.iter().enumerate() {
                            if ranks.len() == 1 || (segment + 1) >> k & 1 == 1 {
                                to.1.at(*value).write(*rank);
                                *value += 1;
                            }
                        }
                    }
                });
            }
        });
        // SAFETY: all that was counted was written.
        unsafe {
            offsets.set_len(end as usize);
            ranks.set_len(first_value + n_values as usize);
        }
        let used_channels = used_channels.into_iter().map(AtomicBool::into_inner).collect();
        Self { tiling, segments, offsets, first_value, first_values, used_channels }
    }
}

/// How many kept weights lie before each.
struct Ranks<'a> {
    /// A bit for each weight.
    words: &'a [u64],
    /// Kept weights before each word.
    before: Vec<u32>,
}

impl<'a> Ranks<'a> {
    fn new(places: &'a KeptPlaces) -> Self {
        let words = places.words();
        let mut n_kept = 0;
        let count = |word: &u64| {
            let before = n_kept;
            n_kept += word.count_ones();
            before
        };
        let before = words.iter().map(count).collect();
        Self { words, before }
    }

    /// Which of the `n` weights from `position` on are kept, at most a word of them.
    fn kept(&self, position: usize, n: usize) -> u64 {
        let (word, bit) = (position / WORD, position % WORD);
        let here = self.words[word];
        let next = if bit + n > WORD { self.words[word + 1] << (WORD - bit) } else { 0 };
        let all = if n < WORD { (1 << n) - 1 } else { u64::MAX };
        (here >> bit | next) & all
    }

    /// How many kept weights lie before `position`.
    fn before(&self, position: usize) -> u32 {
        let (word, bit) = (position / WORD, position % WORD);
        self.before[word] + (self.words[word] & ((1 << bit) - 1)).count_ones()
    }
}

/// Shifts of a cut tile: by -1, 0 or 1 along both axes.
const CUT_SEGMENTS: usize = 9;

/// Where a weight reads.
struct Read {
    segment: u32,
    /// In the chunk's panel.
    offset: u32,
    /// Where it lies behind the first weight of its row in the chunk.
    place: u32,
}

/// Where the weights of a row read.
struct Reads {
    /// Channel by channel and tap by tap.
    places: Vec<Read>,
    /// A bit for each tap that reads anything.
    masks: Vec<u64>,
    /// Whether all taps do.
    is_whole: bool,
    n_taps: usize,
}

/// The weights of a chunk of channels.
struct Places<'a> {
    map: &'a Map,
    group: usize,
    depth: Range<usize>,
    reads: &'a Reads,
    ranked: &'a Ranks<'a>,
}

impl Places<'_> {
    /// Where the weights of a row begin.
    fn begin(&self, row: usize) -> usize {
        let Map { geometry: g, weight_row, weight_step, .. } = self.map;
        self.group * g.weights_per_group() + row * weight_row + self.depth.start * weight_step
    }

    /// Words of a row's line: a bit for each of its weights, channel by channel and tap by tap.
    fn line_len(&self) -> usize {
        (self.depth.len() * self.reads.n_taps).div_ceil(WORD).max(1)
    }

    /// Makes the lines of at most [`ROW_BLOCK`] rows, one behind the other.
    fn line_up(&self, rows: &Range<usize>, lines: &mut [u64]) {
        let (n_taps, line_len) = (self.reads.n_taps, self.line_len());
        let n_bits = self.depth.len() * n_taps;
        let Map { weight_row, weight_step, .. } = *self.map;
        let begin = self.begin(rows.start);
        if self.reads.is_whole && weight_step == n_taps {
            for (k, line) in lines.chunks_exact_mut(line_len).enumerate() {
                for (word, to) in line.iter_mut().enumerate() {
                    let at = word * WORD;
                    *to = self.ranked.kept(begin + k * weight_row + at, (n_bits - at).min(WORD));
                }
            }
            return;
        }
        // Words are filled up group by group, side by side.
        let mut words = [0; ROW_BLOCK];
        let (mut bit, mut to) = (0, 0);
        for channel in 0..self.depth.len() {
            for (piece, &mask) in self.reads.masks.iter().enumerate() {
                let first = piece * WORD;
                let n = (n_taps - first).min(WORD);
                let at = begin + channel * weight_step + first;
                let is_full = bit + n >= WORD;
                for (k, word) in words[..rows.len()].iter_mut().enumerate() {
                    let kept = self.ranked.kept(at + k * weight_row, n) & mask;
                    *word |= kept << bit;
                    if is_full {
                        lines[k * line_len + to] = *word;
                        *word = if bit + n > WORD { kept >> (WORD - bit) } else { 0 };
                    }
                }
                to += usize::from(is_full);
                bit = (bit + n) % WORD;
            }
        }
        if bit > 0 {
            words[..rows.len()].iter().enumerate().for_each(|(k, word)| lines[k * line_len + to] = *word);
        }
    }

    /// Of each channel, whether a line has any of its bits.
    fn used<'b>(&'b self, line: &'b [u64]) -> impl Iterator<Item = bool> + 'b {
        (0..self.depth.len()).map(move |channel| {
            let mut taps = channel * self.reads.n_taps..(channel + 1) * self.reads.n_taps;
            taps.any(|at| line[at / WORD] >> (at % WORD) & 1 == 1)
        })
    }

    /// Adds up how many entries each segment has.
    fn count(&self, lines: &[&[u64]], lengths: &mut [u32]) {
        match (lines, lengths) {
            ([line], [all]) => *all += line.iter().map(|word| word.count_ones()).sum::<u32>(),
            ([line], lengths) => {
                bits(line.iter().copied(), |at| lengths[self.reads.places[at].segment as usize] += 1);
            }
            // By who keeps a place and who does not.
            (lines, lengths) => {
                for word in 0..lines[0].len() {
                    for (segment, length) in lengths.iter_mut().enumerate() {
                        let of = |k: usize| if (segment + 1) >> k & 1 == 1 { lines[k][word] } else { !lines[k][word] };
                        *length += (0..lines.len()).fold(u64::MAX, |all, k| all & of(k)).count_ones();
                    }
                }
            }
        }
    }

    /// The entries of rows that were lined up: the segment, where it reads, and the ranks of its values, of four rows those of
    /// all (by the segment some of them are not kept).
    #[inline(always)]
    fn visit(&self, row: usize, lines: &[&[u64]], mut visit: impl FnMut(usize, u32, &[u32])) {
        let begin = self.begin(row);
        if let [a, b, c, d] = lines {
            let any = a.iter().zip(*b).zip(*c).zip(*d).map(|(((a, b), c), d)| a | b | c | d);
            return bits(any, |at| {
                let read = &self.reads.places[at];
                let by = [a, b, c, d].map(|line| (line[at / WORD] >> (at % WORD) & 1) as usize);
                let ranks: [u32; QUAD] =
                    std::array::from_fn(|k| self.ranked.before(begin + k * self.map.weight_row + read.place as usize));
                visit((by[0] | by[1] << 1 | by[2] << 2 | by[3] << 3) - 1, read.offset, &ranks);
            });
        }
        bits(lines[0].iter().copied(), |at| {
            let read = &self.reads.places[at];
            visit(read.segment as usize, read.offset, &[self.ranked.before(begin + read.place as usize)]);
        });
    }
}

/// Calls `visit` for the places of bits that are 1.
#[inline(always)]
fn bits(words: impl Iterator<Item = u64>, mut visit: impl FnMut(usize)) {
    for (word, mut left) in words.enumerate() {
        while left != 0 {
            visit(word * WORD + left.trailing_zeros() as usize);
            left &= left - 1;
        }
    }
}
