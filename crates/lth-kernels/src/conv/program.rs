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
use super::kernel::table::{InstructionSet, Number, ProgramKind};
use super::kernel::tile::{PATTERNS, QUAD};
use super::lattice::classes;
use super::scratch::Shared;
use super::tiling::{Reads, Tiling};
use crate::bits::WORD;
use crate::dispatch::multiversion;
use crate::kept::KeptPlaces;
use crate::parallel::for_each;

/// Rows whose entries one task lists.
const ROW_BLOCK: usize = 16;

/// Weights below which lists are made where they are asked for: tens of microseconds.
const ALONE: usize = 1 << 14;

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
        let block_len = ROW_BLOCK * (tiling.depth_chunk * reads.n_taps).div_ceil(WORD).max(1);
        // Counted first, and then written where it belongs: in blocks of rows, each by one task.
        let blocks = Blocks { tiling: &tiling, map, ranked, reads: &reads, n_blocks, block_len };
        let n_blocks_in_all = g.groups * tiling.n_chunks * n_blocks;
        let work = if g.weights_per_group() * g.groups < ALONE { 0 } else { map.rows * map.depth * g.n_taps() };
        let n_lists = g.groups * tiling.n_chunks * map.rows / tiling.rows_at_once;
        let mut segments = vec![0; n_lists * tiling.n_segments + 1];
        let mut used_channels = Vec::new();
        used_channels.resize_with(g.groups * map.depth, AtomicBool::default);
        let lengths = Shared::new(&mut segments[1..]);
        let mut lines = vec![0; n_blocks_in_all * block_len];
        let all_lines = Shared::new(&mut lines);
        for_each(n_blocks_in_all, work, |at| count_block(&blocks, at, lengths, all_lines, &used_channels));
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
        for_each(n_blocks_in_all, work, |at| write_block(&blocks, at, &lines, &segments, &first_values, to));
        // SAFETY: all that was counted was written.
        unsafe {
            offsets.set_len(end as usize);
            ranks.set_len(first_value + n_values as usize);
        }
        let used_channels = used_channels.into_iter().map(AtomicBool::into_inner).collect();
        Self { tiling, segments, offsets, first_value, first_values, used_channels }
    }
}

/// The work on a program, in blocks of at most [`ROW_BLOCK`] rows of a chunk of channels.
struct Blocks<'a> {
    tiling: &'a Tiling,
    map: &'a Map,
    ranked: &'a Ranks<'a>,
    reads: &'a Reads,
    /// Of a chunk.
    n_blocks: usize,
    /// Words of a block's lines.
    block_len: usize,
}

multiversion! {
    fn count_block[][](
        of: &Blocks<'_>, at: usize, lengths: Shared<u32>, lines: Shared<u64>, used_channels: &[AtomicBool],
    ) {
        of.count(at, lengths, lines, used_channels);
    }
}

multiversion! {
    fn write_block[][](
        of: &Blocks<'_>, at: usize, lines: &[u64], segments: &[u32], first_values: &[u32], to: (Shared<u32>, Shared<u32>),
    ) {
        of.write(at, lines, segments, first_values, to);
    }
}

// All inlined, to be compiled with the instructions that count and find bits: without them either takes a dozen.
impl Blocks<'_> {
    /// The weights of a block, its rows, and its first segment.
    #[inline(always)]
    fn block(&self, at: usize) -> (Places<'_>, Range<usize>, usize) {
        let &Self { tiling, map, ranked, reads, n_blocks, .. } = self;
        let (rows, rest) = (at % n_blocks, at / n_blocks);
        let (chunk, group) = (rest % tiling.n_chunks, rest / tiling.n_chunks);
        let depth = chunk * tiling.depth_chunk..((chunk + 1) * tiling.depth_chunk).min(map.depth);
        let rows = rows * ROW_BLOCK..((rows + 1) * ROW_BLOCK).min(map.rows);
        let first_segment = tiling.segment_index(map, group, chunk, rows.start);
        (Places { map, group, depth, reads, ranked }, rows, first_segment)
    }

    /// Writes a block's lines, adds up the `lengths` of its segments, which are 0, and marks the channels it reads.
    #[inline(always)]
    fn count(&self, at: usize, lengths: Shared<u32>, lines: Shared<u64>, used_channels: &[AtomicBool]) {
        let tiling = self.tiling;
        let (places, rows, first) = self.block(at);
        let n = rows.len() / tiling.rows_at_once * tiling.n_segments;
        // SAFETY: the segments of a block's rows, which no other task writes.
        let lengths = unsafe { std::slice::from_raw_parts_mut(lengths.at(first), n) };
        let line_len = places.line_len();
        // SAFETY: the lines of this block, which no other task writes.
        let lines = unsafe { std::slice::from_raw_parts_mut(lines.at(at * self.block_len), rows.len() * line_len) };
        places.line_up(&rows, lines);
        for (lines, lengths) in
            lines.chunks_exact(tiling.rows_at_once * line_len).zip(lengths.chunks_exact_mut(tiling.n_segments.max(1)))
        {
            places.count(&lines.chunks_exact(line_len).collect::<Vec<_>>(), lengths);
        }
        let mut any = vec![0; line_len];
        for line in lines.chunks_exact(line_len) {
            any.iter_mut().zip(line).for_each(|(any, word)| *any |= word);
        }
        let all_used = &used_channels[places.group * self.map.depth + places.depth.start..];
        for (all, _) in all_used.iter().zip(places.used(&any)).filter(|(_, is_used)| *is_used) {
            all.store(true, Ordering::Relaxed);
        }
    }

    /// Writes a block's offsets and ranks `to` where its segments begin.
    #[inline(always)]
    fn write(&self, at: usize, lines: &[u64], segments: &[u32], first_values: &[u32], to: (Shared<u32>, Shared<u32>)) {
        let tiling = self.tiling;
        let is_quads = tiling.rows_at_once == QUAD;
        let (places, rows, first) = self.block(at);
        let line_len = places.line_len();
        let of_list =
            lines[at * self.block_len..][..rows.len() * line_len].chunks_exact(tiling.rows_at_once * line_len);
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
    #[inline(always)]
    fn kept(&self, position: usize, n: usize) -> u64 {
        let (word, bit) = (position / WORD, position % WORD);
        let here = self.words[word];
        let next = if bit + n > WORD { self.words[word + 1] << (WORD - bit) } else { 0 };
        let all = if n < WORD { (1 << n) - 1 } else { u64::MAX };
        (here >> bit | next) & all
    }

    /// How many kept weights lie before `position`.
    #[inline(always)]
    fn before(&self, position: usize) -> u32 {
        let (word, bit) = (position / WORD, position % WORD);
        self.before[word] + (self.words[word] & ((1 << bit) - 1)).count_ones()
    }
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
    #[inline(always)]
    fn begin(&self, row: usize) -> usize {
        let Map { geometry: g, weight_row, weight_step, .. } = self.map;
        self.group * g.weights_per_group() + row * weight_row + self.depth.start * weight_step
    }

    /// Words of a row's line: a bit for each of its weights, channel by channel and tap by tap.
    #[inline(always)]
    fn line_len(&self) -> usize {
        (self.depth.len() * self.reads.n_taps).div_ceil(WORD).max(1)
    }

    /// Makes the lines of at most [`ROW_BLOCK`] rows, one behind the other.
    #[inline(always)]
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
    #[inline(always)]
    fn used<'b>(&'b self, line: &'b [u64]) -> impl Iterator<Item = bool> + 'b {
        (0..self.depth.len()).map(move |channel| {
            let mut taps = channel * self.reads.n_taps..(channel + 1) * self.reads.n_taps;
            taps.any(|at| line[at / WORD] >> (at % WORD) & 1 == 1)
        })
    }

    /// Adds up how many entries each segment has.
    #[inline(always)]
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
