//! A mask made into the lists that the sparse kernels walk.
//!
//! For one class of target positions the picture is cut into tiles of registers (`rows` × columns × a piece of the
//! batch) and the source channels into chunks whose part of the picture stays in L1. A program holds, chunk by chunk
//! and row by row, where in the packed panel each kept weight reads; such an entry has a number, and the program's
//! ranks say which of the kept weights is whose. For kernels of four rows an entry is a place that any of them keeps, and
//! has a value for each that does.

use std::ops::Range;

use rayon::prelude::*;

use super::geometry::{Direction, Geometry, Map};
use super::kernel::table::{InstructionSet, Kernels, Number, ProgramKind, TileShape};
use super::kernel::tile::{PATTERNS, QUAD};
use super::lattice::{Class, Grid, classes};
use crate::kept::KeptPlaces;

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
        let most = channels(bytes).max(wanted.min(channels(8 * bytes)));
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

    /// The taps that stand together in a row's list: all, or in cut tiles those of one shift.
    fn taps(&self, map: &Map) -> Vec<Taps> {
        let mut all: Vec<Vec<(u32, usize)>> = vec![Vec::new(); if self.is_cut() { CUT_SEGMENTS } else { 1 }];
        for tap in &self.class.taps {
            let mut offset = tap.plane * self.plane_pitch;
            let mut of = 0;
            if self.is_cut() {
                of = ((tap.shift[0] + 1) * 3 + tap.shift[1] + 1) as usize;
            } else {
                offset += (tap.shift[0] - self.first_shift[0]) as usize * self.row_pitch;
                offset += (tap.shift[1] - self.first_shift[1]) as usize * (self.row_pitch / self.panel[1]);
            }
            all[of].push((offset as u32, tap.tap));
        }
        all.iter().map(|taps| Taps::new(self, map.weight_step, taps)).collect()
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
    pub(crate) n_kept: usize,
}

impl Program {
    /// `kept` has the weight's elements, 0 = pruned: those at `places` are kept. For quads the target's channels are a multiple of four.
    pub(crate) fn new<T: Number>(
        geometry: &Geometry,
        direction: Direction,
        kind: ProgramKind,
        (kept, places): (&[u8], &KeptPlaces),
        density: f64,
    ) -> Self {
        let map = geometry.map(direction);
        assert!(map.rows.is_multiple_of(kind.rows()));
        let kernels = T::kernels();
        let ranked = Ranks::new(places);
        let mut ranks = Vec::new();
        let classes: Vec<ClassProgram> = classes(&map)
            .into_iter()
            .map(|class| {
                ClassProgram::new(Tiling::new(class, &map, kernels, density, kind), &map, (kept, &ranked), &mut ranks)
            })
            .collect();
        Self { map, kind, classes, ranks, n_kept: places.n_kept() }
    }
}

impl ClassProgram {
    /// `ranks`: of each value of all classes so far.
    fn new(tiling: Tiling, map: &Map, (kept, ranked): (&[u8], &Ranks<'_>), ranks: &mut Vec<u32>) -> Self {
        let g = &map.geometry;
        let taps = tiling.taps(map);
        let n_blocks = map.rows.div_ceil(ROW_BLOCK);
        let list = |block: usize| {
            let (rows, rest) = (block % n_blocks, block / n_blocks);
            let (chunk, group) = (rest % tiling.n_chunks, rest / tiling.n_chunks);
            let depth = chunk * tiling.depth_chunk..((chunk + 1) * tiling.depth_chunk).min(map.depth);
            let rows = rows * ROW_BLOCK..((rows + 1) * ROW_BLOCK).min(map.rows);
            match &taps[..] {
                [all] if tiling.rows_at_once == QUAD => List::of_quads(map, group, &depth, &rows, all, (kept, ranked)),
                _ => List::of_rows(map, group, &depth, &rows, &taps, (kept, ranked)),
            }
        };
        let n_blocks_in_all = g.groups * tiling.n_chunks * n_blocks;
        let lists: Vec<List> = if kept.len() < ALONE {
            (0..n_blocks_in_all).map(list).collect()
        } else {
            (0..n_blocks_in_all).into_par_iter().map(list).collect()
        };
        let first_value = ranks.len();
        ranks.reserve_exact(lists.iter().map(|list| list.ranks.len()).sum());
        let mut segments = vec![0];
        let mut offsets = Vec::with_capacity(lists.iter().map(|list| list.offsets.len()).sum());
        let mut first_values = Vec::new();
        let mut used_channels = vec![false; g.groups * map.depth];
        let mut end = 0;
        for list in lists {
            segments.extend(list.lengths.into_iter().map(|length| {
                end += length;
                end
            }));
            let before = (ranks.len() - first_value) as u32;
            first_values.extend(list.first_values.into_iter().map(|first| before + first));
            offsets.extend(list.offsets);
            ranks.extend(list.ranks);
            for (used, is_used) in used_channels[list.first_channel..].iter_mut().zip(list.is_used) {
                *used |= is_used;
            }
        }
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

    fn of(&self, position: u32) -> u32 {
        let (word, bit) = (position as usize / u64::BITS as usize, position % u64::BITS);
        self.before[word] + (self.words[word] & ((1 << bit) - 1)).count_ones()
    }
}

/// The entries of some rows in one chunk.
struct List {
    /// How many are in each segment, row by row.
    lengths: Vec<u32>,
    /// Where each reads in the chunk's panel.
    offsets: Vec<u32>,
    /// Of each value.
    ranks: Vec<u32>,
    /// For each four rows, the number of their first value; empty where each entry has one.
    first_values: Vec<u32>,
    /// The chunk's first channel, of all groups'.
    first_channel: usize,
    /// Whether anything reads a channel of the chunk.
    is_used: Vec<bool>,
}

/// Taps whose entries stand together.
struct Taps {
    taps: Vec<usize>,
    /// For a chunk's channels, and in a channel for the taps: where in the panel each reads, and where its weight lies behind
    /// the row's first.
    reads: Vec<(u32, u32)>,
}

impl Taps {
    /// `taps`: where each reads in a channel's part of the panel, and its number.
    fn new(tiling: &Tiling, weight_step: usize, taps: &[(u32, usize)]) -> Self {
        let read = |i: usize| {
            let of_tap = move |&(offset, tap): &(u32, usize)| {
                ((i * tiling.channel_pitch) as u32 + offset, (i * weight_step + tap) as u32)
            };
            taps.iter().map(of_tap)
        };
        Self {
            reads: (0..tiling.depth_chunk).flat_map(read).collect(),
            taps: taps.iter().map(|&(_, tap)| tap).collect(),
        }
    }
}

/// Shifts of a cut tile: by -1, 0 or 1 along both axes.
const CUT_SEGMENTS: usize = 9;

/// Places that are looked at together.
const WORD: usize = size_of::<u64>();

impl List {
    /// Row by row.
    fn of_rows(
        map: &Map,
        group: usize,
        depth: &Range<usize>,
        rows: &Range<usize>,
        by_segment: &[Taps],
        (kept, ranked): (&[u8], &Ranks<'_>),
    ) -> Self {
        let g = &map.geometry;
        let first = group * g.weights_per_group();
        let at = |row: usize, c: usize| first + row * map.weight_row + c * map.weight_step;
        // Of each row and segment a line in the order of its entries, channel by channel and in a channel tap by tap: a byte
        // of 0 or 1 each, so that a look at a word finds eight. An odd number of words keeps lines that are written side by
        // side apart in the cache.
        let words = |segment: &Taps| (depth.len() * segment.taps.len()).div_ceil(WORD) | 1;
        let row_words: usize = by_segment.iter().map(words).sum();
        // Of each weight that a channel has in these rows: where it lies, seen from the first row; where its byte is, for the
        // first channel, and how far from one channel to the next.
        let mut places: Vec<(u32, u32, u32)> = Vec::new();
        for r in 0..rows.len() {
            let mut line = r * row_words;
            for segment in by_segment {
                let taps = &segment.taps;
                places.extend(
                    taps.iter().enumerate().map(|(k, &tap)| {
                        ((r * map.weight_row + tap) as u32, (line * WORD + k) as u32, taps.len() as u32)
                    }),
                );
                line += words(segment);
            }
        }
        let mut bits = vec![0u8; rows.len() * row_words * WORD];
        let mut is_used = vec![false; depth.len()];
        for (i, (c, is_used)) in depth.clone().zip(&mut is_used).enumerate() {
            let of_channel = &kept[at(rows.start, c)..];
            let mut any = false;
            for &(from, to, step) in &places {
                let is_kept = of_channel[from as usize] != 0;
                bits[to as usize + i * step as usize] = u8::from(is_kept);
                any |= is_kept;
            }
            *is_used = any;
        }
        let n_entries = bits.iter().map(|&bit| usize::from(bit)).sum();
        let (mut offsets, mut ranks) = (Vec::with_capacity(n_entries), Vec::with_capacity(n_entries));
        let mut lengths = Vec::with_capacity(rows.len() * by_segment.len());
        let (of_words, _) = bits.as_chunks::<WORD>();
        for (row, mut of_row) in rows.clone().zip(of_words.chunks_exact(row_words)) {
            let begin = at(row, depth.start) as u32;
            for segment in by_segment {
                let before = offsets.len();
                let line;
                (line, of_row) = of_row.split_at(words(segment));
                for (word, &bytes) in line.iter().enumerate() {
                    let mut left = u64::from_le_bytes(bytes);
                    while left != 0 {
                        let (offset, place) = segment.reads[word * WORD + left.trailing_zeros() as usize / 8];
                        left &= left - 1;
                        offsets.push(offset);
                        ranks.push(ranked.of(begin + place));
                    }
                }
                lengths.push((offsets.len() - before) as u32);
            }
        }
        let first_channel = group * map.depth + depth.start;
        Self { lengths, offsets, ranks, first_values: Vec::new(), first_channel, is_used }
    }

    /// Four rows at a time, by which of them keep a place.
    fn of_quads(
        map: &Map,
        group: usize,
        depth: &Range<usize>,
        rows: &Range<usize>,
        taps: &Taps,
        (kept, ranked): (&[u8], &Ranks<'_>),
    ) -> Self {
        let first = group * map.geometry.weights_per_group();
        let n_taps = taps.taps.len();
        let mut list = Self {
            lengths: Vec::with_capacity(rows.len() / QUAD * PATTERNS),
            offsets: Vec::new(),
            ranks: Vec::new(),
            first_values: Vec::with_capacity(rows.len() / QUAD),
            first_channel: group * map.depth + depth.start,
            is_used: vec![false; depth.len()],
        };
        let mut patterns = vec![0u8; depth.len() * n_taps];
        for row in rows.clone().step_by(QUAD) {
            let begin = first + row * map.weight_row + depth.start * map.weight_step;
            let mut counts = [0; PATTERNS + 1];
            for (i, (patterns, is_used)) in patterns.chunks_exact_mut(n_taps.max(1)).zip(&mut list.is_used).enumerate()
            {
                let of_channel = &kept[begin + i * map.weight_step..];
                for (pattern, &tap) in patterns.iter_mut().zip(&taps.taps) {
                    let bit = |k: usize| u8::from(of_channel[k * map.weight_row + tap] != 0) << k;
                    *pattern = (0..QUAD).fold(0, |pattern, k| pattern | bit(k));
                    counts[usize::from(*pattern)] += 1;
                    *is_used |= *pattern != 0;
                }
            }
            // Where the next entry of each pattern goes, and its first value.
            let (mut entry, mut value) = (list.offsets.len(), list.ranks.len());
            list.first_values.push(value as u32);
            let mut next = [(0, 0); PATTERNS + 1];
            for pattern in 1..=PATTERNS {
                next[pattern] = (entry, value);
                list.lengths.push(counts[pattern] as u32);
                entry += counts[pattern];
                value += counts[pattern] * pattern.count_ones() as usize;
            }
            list.offsets.resize(entry, 0);
            list.ranks.resize(value, 0);
            for (&pattern, &(offset, place)) in patterns.iter().zip(&taps.reads) {
                if pattern == 0 {
                    continue;
                }
                let (entry, value) = &mut next[usize::from(pattern)];
                list.offsets[*entry] = offset;
                *entry += 1;
                for k in (0..QUAD).filter(|k| pattern >> k & 1 == 1) {
                    list.ranks[*value] = ranked.of((begin + k * map.weight_row) as u32 + place);
                    *value += 1;
                }
            }
        }
        list
    }
}
