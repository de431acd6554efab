//! The inner loops, generic over the vector type: dense tiles, sparse tiles of one output channel or of four, sparse dot products.
//!
//! None of them knows about convolutions: they see weights, panels of packed input rows, and offsets into both.

#![allow(clippy::needless_range_loop, reason = "the indices are those of the registers and of memory alike")]

use super::simd::Vector;

/// One run of the reduction: `weight` and `panel` are where it starts (in elements).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) weight: u32,
    pub(crate) panel: u32,
}

/// A dense tile: `out[m][..] (+)= Σ_run Σ_i weight[m·w_row + run.weight + i·w_step] · panel[run.panel + i·x_step ..]`.
#[derive(Clone, Copy)]
pub(crate) struct DenseTile<'a, T> {
    pub(crate) runs: &'a [Run],
    pub(crate) run_len: usize,
    pub(crate) weight: *const T,
    pub(crate) w_row: usize,
    pub(crate) w_step: usize,
    pub(crate) panel: *const T,
    pub(crate) x_step: usize,
    pub(crate) out: *mut T,
    pub(crate) out_row: usize,
    /// Overwrite `out` rather than add to it.
    pub(crate) first: bool,
    /// Whether the sums are to be looked at.
    pub(crate) checks: bool,
}

/// Whether all sums are finite comes back, or yes if they are not looked at.
///
/// # Safety
/// The vector type's instruction set is there; every address that the description of [`DenseTile`] names, for
/// `MR` rows and `NV` vectors, is inside one allocation.
#[inline(always)]
pub(crate) unsafe fn dense<V: Vector, const MR: usize, const NV: usize>(tile: &DenseTile<'_, V::Elem>) -> bool {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        let mut acc = [[V::zero(); NV]; MR];
        if !tile.first {
            for m in 0..MR {
                for v in 0..NV {
                    acc[m][v] = V::load(tile.out.add(m * tile.out_row + v * V::LANES));
                }
            }
        }
        for run in tile.runs {
            let mut weight = tile.weight.add(run.weight as usize);
            let mut panel = tile.panel.add(run.panel as usize);
            for _ in 0..tile.run_len {
                let mut x = [V::zero(); NV];
                for v in 0..NV {
                    x[v] = V::load(panel.add(v * V::LANES));
                }
                for m in 0..MR {
                    let w = V::splat(*weight.add(m * tile.w_row));
                    for v in 0..NV {
                        acc[m][v] = w.fma(x[v], acc[m][v]);
                    }
                }
                weight = weight.wrapping_add(tile.w_step);
                panel = panel.wrapping_add(tile.x_step);
            }
        }
        for m in 0..MR {
            for v in 0..NV {
                acc[m][v].store(tile.out.add(m * tile.out_row + v * V::LANES));
            }
        }
        if !tile.checks {
            return true;
        }
        // 0 times a sum is 0, or NaN where the sum is not finite: two sums, so that none waits for the one before.
        let mut probes = [V::zero(); 4];
        for m in 0..MR {
            for v in 0..NV {
                probes[m % 2] = acc[m][v].fma(V::zero(), probes[m % 2]);
            }
        }
        let [even, odd, ..] = V::sums(probes);
        even + odd == V::Elem::default()
    }
}

/// Filters of [`dots`], and positions at most.
pub(crate) const DOT_FILTERS: usize = 4;
pub(crate) const DOT_POSITIONS: usize = 6;

/// `sums[p][f] += Σ_k filters[f][k] · columns[p][k]` over `len` numbers, for the first `NP` columns.
///
/// # Safety
/// As [`dense`]; filters and the first `NP` columns have `len` numbers.
#[inline(always)]
pub(crate) unsafe fn dots<V: Vector, const NP: usize>(
    filters: [*const V::Elem; DOT_FILTERS],
    columns: [*const V::Elem; DOT_POSITIONS],
    len: usize,
    sums: &mut [[V::Elem; DOT_FILTERS]],
) {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        let mut acc = [[V::zero(); DOT_FILTERS]; NP];
        let mut k = 0;
        while k + V::LANES <= len {
            let w = filters.map(|filter| V::load(filter.add(k)));
            for p in 0..NP {
                let x = V::load(columns[p].add(k));
                for f in 0..DOT_FILTERS {
                    acc[p][f] = w[f].fma(x, acc[p][f]);
                }
            }
            k += V::LANES;
        }
        for p in 0..NP {
            for (sum, more) in sums[p].iter_mut().zip(V::sums(acc[p])) {
                *sum += more;
            }
        }
        while k < len {
            for p in 0..NP {
                for f in 0..DOT_FILTERS {
                    sums[p][f] += *filters[f].add(k) * *columns[p].add(k);
                }
            }
            k += 1;
        }
    }
}

/// `to[n * width + k] = rows[k][n]` for `len` numbers of four rows.
///
/// # Safety
/// As [`dense`]: `rows` have `len` numbers each, `to` has `len` rows of `width` that begin with four.
#[inline(always)]
pub(crate) unsafe fn transpose<V: Vector>(rows: [*const V::Elem; 4], len: usize, to: *mut V::Elem, width: usize) {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        let mut n = 0;
        while n + V::LANES <= len {
            V::store_transposed(rows.map(|row| V::load(row.add(n))), to.add(n * width), width);
            n += V::LANES;
        }
        while n < len {
            for (k, row) in rows.iter().enumerate() {
                *to.add(n * width + k) = *row.add(n);
            }
            n += 1;
        }
    }
}

/// The kept weights of one output channel, or of a quad of them, against one panel.
#[derive(Clone, Copy)]
pub(crate) struct SparseTile<T> {
    /// Where each class of taps begins in `offsets`; one more entry ends the last.
    pub(crate) segments: *const u32,
    pub(crate) offsets: *const u32,
    pub(crate) panel: *const T,
    pub(crate) row_pitch: usize,
    pub(crate) target: Pitch,
    /// For kernels of [`QUAD`] output channels: how far the next channel's tile of the target lies.
    pub(crate) next_row: usize,
}

/// Output channels whose kept weights may be listed together.
pub(crate) const QUAD: usize = 4;

/// Which of a quad's channels keep a place: all choices but none.
pub(crate) const PATTERNS: usize = (1 << QUAD) - 1;

/// Where the vectors of a tile of sums or gradients lie: rows `row` elements apart, columns `column`, and the
/// `1 << log_unit` vectors of a column one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pitch {
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) log_unit: u32,
}

impl Pitch {
    /// Where vector `l` of row `r` begins.
    #[inline(always)]
    fn at<V: Vector>(self, r: usize, l: usize) -> usize {
        let column = l >> self.log_unit;
        r * self.row + column * self.column + (l - (column << self.log_unit)) * V::LANES
    }
}

/// `out[r][l] (+)= Σ_entry value · panel[offset + r·row_pitch + l]` over `R` rows of `L` vectors.
///
/// # Safety
/// As [`dense`]; `out` has `R·L` vectors, placed as `tile.target` says.
#[inline(always)]
pub(crate) unsafe fn sparse<V: Vector, const R: usize, const L: usize, const CHAINS: usize>(
    tile: &SparseTile<V::Elem>,
    values: *const V::Elem,
    out: *mut V::Elem,
    first: bool,
) {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        let (begin, end) = (*tile.segments as usize, *tile.segments.add(1) as usize);
        let mut acc = [[[V::zero(); L]; R]; CHAINS];
        if !first {
            for r in 0..R {
                for l in 0..L {
                    acc[0][r][l] = V::load(out.add(tile.target.at::<V>(r, l)));
                }
            }
        }
        let mut i = begin;
        while i + CHAINS <= end {
            for chain in 0..CHAINS {
                let w = V::splat(*values.add(i + chain));
                let from = tile.panel.add(*tile.offsets.add(i + chain) as usize);
                for r in 0..R {
                    for l in 0..L {
                        let x = V::load(from.add(r * tile.row_pitch + l * V::LANES));
                        acc[chain][r][l] = w.fma(x, acc[chain][r][l]);
                    }
                }
            }
            i += CHAINS;
        }
        if CHAINS > 1 {
            while i < end {
                let w = V::splat(*values.add(i));
                let from = tile.panel.add(*tile.offsets.add(i) as usize);
                for r in 0..R {
                    for l in 0..L {
                        let x = V::load(from.add(r * tile.row_pitch + l * V::LANES));
                        acc[0][r][l] = w.fma(x, acc[0][r][l]);
                    }
                }
                i += 1;
            }
        }
        for r in 0..R {
            for l in 0..L {
                let mut sum = acc[0][r][l];
                for chain in 1..CHAINS {
                    sum = sum.add(acc[chain][r][l]);
                }
                sum.store(out.add(tile.target.at::<V>(r, l)));
            }
        }
    }
}

/// For every entry: `sums[entry] += Σ_{r,l} grad[r][l] · panel[offset + r·row_pitch + l]`.
///
/// # Safety
/// As [`sparse`]; `sums` is as long as `offsets`.
#[inline(always)]
pub(crate) unsafe fn sparse_dot<V: Vector, const R: usize, const L: usize, const CHAINS: usize>(
    tile: &SparseTile<V::Elem>,
    grad: *const V::Elem,
    sums: *mut V::Elem,
) {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        let (begin, end) = (*tile.segments as usize, *tile.segments.add(1) as usize);
        let mut g = [[V::zero(); L]; R];
        for r in 0..R {
            for l in 0..L {
                g[r][l] = V::load(grad.add(tile.target.at::<V>(r, l)));
            }
        }
        let mut i = begin;
        while i < end {
            let from: [*const V::Elem; CHAINS] =
                std::array::from_fn(|k| tile.panel.add(*tile.offsets.add((i + k).min(end - 1)) as usize));
            let mut acc = [V::zero(); CHAINS];
            for r in 0..R {
                for l in 0..L {
                    for k in 0..CHAINS {
                        acc[k] = g[r][l].fma(V::load(from[k].add(r * tile.row_pitch + l * V::LANES)), acc[k]);
                    }
                }
            }
            add_sums::<V, CHAINS>(&acc, sums, i, end);
            i += CHAINS;
        }
    }
}

/// [`sparse`] for [`QUAD`] output channels at once. Entries are places that any of them keeps, listed by which ones do
/// (segment `p - 1` has those that channel `k` keeps if bit `k` of `p` is set), so that a number comes from the cache once for all
/// of them; each has a value for every channel that keeps it, and `values` is where those of the first begin. `out` is the first
/// channel's.
///
/// # Safety
/// As [`sparse`], for tiles that lie `tile.next_row` apart; `segments` has one entry more than [`PATTERNS`].
#[inline(always)]
pub(crate) unsafe fn sparse_quad<V: Vector, const R: usize, const L: usize>(
    tile: &SparseTile<V::Elem>,
    values: *const V::Elem,
    out: *mut V::Elem,
    first: bool,
) {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        let mut values = values;
        let mut acc = [[[V::zero(); L]; R]; QUAD];
        if !first {
            for k in 0..QUAD {
                for r in 0..R {
                    for l in 0..L {
                        acc[k][r][l] = V::load(out.add(k * tile.next_row + tile.target.at::<V>(r, l)));
                    }
                }
            }
        }
        macro_rules! pattern {
            ($($pattern:literal)*) => {
                $(for i in *tile.segments.add($pattern - 1) as usize..*tile.segments.add($pattern) as usize {
                    let from = tile.panel.add(*tile.offsets.add(i) as usize);
                    let mut x = [[V::zero(); L]; R];
                    for r in 0..R {
                        for l in 0..L {
                            x[r][l] = V::load(from.add(r * tile.row_pitch + l * V::LANES));
                        }
                    }
                    for k in 0..QUAD {
                        if $pattern >> k & 1 == 1 {
                            let w = V::splat(*values);
                            values = values.add(1);
                            for r in 0..R {
                                for l in 0..L {
                                    acc[k][r][l] = w.fma(x[r][l], acc[k][r][l]);
                                }
                            }
                        }
                    }
                })*
            };
        }
        pattern!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for k in 0..QUAD {
            for r in 0..R {
                for l in 0..L {
                    acc[k][r][l].store(out.add(k * tile.next_row + tile.target.at::<V>(r, l)));
                }
            }
        }
    }
}

/// Adds the lanes of each vector to its entry's sum. `CHAINS` is a multiple of 4.
#[inline(always)]
unsafe fn add_sums<V: Vector, const CHAINS: usize>(acc: &[V; CHAINS], sums: *mut V::Elem, i: usize, end: usize) {
    // SAFETY: `i < end`, and the caller owns `sums[..end]`.
    unsafe {
        for quad in 0..CHAINS / 4 {
            let four = V::sums([acc[quad * 4], acc[quad * 4 + 1], acc[quad * 4 + 2], acc[quad * 4 + 3]]);
            let first = i + quad * 4;
            if first + 4 <= end {
                // Side by side.
                let to = sums.add(first).cast::<[V::Elem; 4]>();
                let [a, b, c, d] = to.read();
                to.write([a + four[0], b + four[1], c + four[2], d + four[3]]);
                continue;
            }
            for (k, sum) in four.into_iter().enumerate() {
                if first + k < end {
                    *sums.add(first + k) += sum;
                }
            }
        }
    }
}

/// [`sparse`] where the tile is the whole plane: each of the nine classes of taps (`dy`, `dx` in -1..=1) touches
/// only the rows and columns that fall inside, so nothing is multiplied by padding. `U` vectors make one column.
///
/// # Safety
/// As [`sparse`]; `segments` has ten entries and planes in the panel have `R` rows of `L` vectors.
#[inline(always)]
pub(crate) unsafe fn sparse_cut<V: Vector, const R: usize, const L: usize, const U: usize>(
    tile: &SparseTile<V::Elem>,
    values: *const V::Elem,
    out: *mut V::Elem,
    first: bool,
) {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        let mut acc = [[V::zero(); L]; R];
        if !first {
            for r in 0..R {
                for l in 0..L {
                    acc[r][l] = V::load(out.add(tile.target.at::<V>(r, l)));
                }
            }
        }
        macro_rules! class {
            ($class:literal, $dy:literal, $dx:literal) => {
                for i in *tile.segments.add($class) as usize..*tile.segments.add($class + 1) as usize {
                    let w = V::splat(*values.add(i));
                    let from = tile.panel.add(*tile.offsets.add(i) as usize);
                    for r in 0..R {
                        for l in 0..L {
                            if let Some(at) = inside::<R, L, U>(r, l, $dy, $dx) {
                                acc[r][l] = w.fma(V::load(from.add(at * V::LANES)), acc[r][l]);
                            }
                        }
                    }
                }
            };
        }
        class!(0, -1, -1);
        class!(1, -1, 0);
        class!(2, -1, 1);
        class!(3, 0, -1);
        class!(4, 0, 0);
        class!(5, 0, 1);
        class!(6, 1, -1);
        class!(7, 1, 0);
        class!(8, 1, 1);
        for r in 0..R {
            for l in 0..L {
                acc[r][l].store(out.add(tile.target.at::<V>(r, l)));
            }
        }
    }
}

/// [`sparse_dot`] with the cut planes of [`sparse_cut`].
///
/// # Safety
/// As [`sparse_cut`]; `sums` is as long as `offsets`.
#[inline(always)]
pub(crate) unsafe fn sparse_dot_cut<V: Vector, const R: usize, const L: usize, const U: usize, const CHAINS: usize>(
    tile: &SparseTile<V::Elem>,
    grad: *const V::Elem,
    sums: *mut V::Elem,
) {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        let mut g = [[V::zero(); L]; R];
        for r in 0..R {
            for l in 0..L {
                g[r][l] = V::load(grad.add(tile.target.at::<V>(r, l)));
            }
        }
        macro_rules! class {
            ($class:literal, $dy:literal, $dx:literal) => {
                let end = *tile.segments.add($class + 1) as usize;
                let mut i = *tile.segments.add($class) as usize;
                while i < end {
                    let from: [*const V::Elem; CHAINS] =
                        std::array::from_fn(|k| tile.panel.add(*tile.offsets.add((i + k).min(end - 1)) as usize));
                    let mut acc = [V::zero(); CHAINS];
                    for r in 0..R {
                        for l in 0..L {
                            if let Some(at) = inside::<R, L, U>(r, l, $dy, $dx) {
                                for k in 0..CHAINS {
                                    acc[k] = g[r][l].fma(V::load(from[k].add(at * V::LANES)), acc[k]);
                                }
                            }
                        }
                    }
                    add_sums::<V, CHAINS>(&acc, sums, i, end);
                    i += CHAINS;
                }
            };
        }
        class!(0, -1, -1);
        class!(1, -1, 0);
        class!(2, -1, 1);
        class!(3, 0, -1);
        class!(4, 0, 0);
        class!(5, 0, 1);
        class!(6, 1, -1);
        class!(7, 1, 0);
        class!(8, 1, 1);
    }
}

/// Which vector of an `R`×`L` plane lies under output vector (`r`, `l`) when shifted by `dy` rows and `dx` columns.
#[inline(always)]
const fn inside<const R: usize, const L: usize, const U: usize>(
    r: usize,
    l: usize,
    dy: isize,
    dx: isize,
) -> Option<usize> {
    let row = r as isize + dy;
    let column = l as isize + dx * U as isize;
    if row < 0 || row >= R as isize || column < 0 || column >= L as isize {
        None
    } else {
        Some(row as usize * L + column as usize)
    }
}
