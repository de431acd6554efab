//! The kernels that were compiled for each instruction set, and the choice among them at run time.

#[cfg(target_arch = "aarch64")]
use super::simd::arm::Neon;
#[cfg(target_arch = "x86_64")]
use super::simd::x86::{Ymm, Zmm};
use super::simd::{Float, Lanes, Vector};
use super::tile::{self, DOT_FILTERS, DOT_POSITIONS, DenseTile, QUAD, SparseTile};
use super::winograd::{self, Gather, OUTPUTS, PRODUCTS, Spread};
#[cfg(all(target_arch = "x86_64", not(miri)))]
use crate::dispatch::{self, Isa};
use crate::forced::Forced;
use candle_core::WithDType;

/// A set of vector instructions that the kernels were compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InstructionSet {
    /// Plain Rust: every machine, and every f64 computation.
    Portable,
    /// 256-bit vectors with fused multiply-add (x86-64 since 2013).
    Avx2,
    /// 512-bit vectors (x86-64 servers, Zen 4 and later).
    Avx512,
    /// 128-bit vectors of 64-bit Arm.
    Neon,
}

impl InstructionSet {
    /// All of them; see [`InstructionSet::is_available`].
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Neon];

    /// What the kernels use for f32 when called from this thread.
    pub fn active() -> Self {
        Forced::get().set.unwrap_or_else(Self::detect)
    }

    /// The best set that this machine has.
    pub fn detect() -> Self {
        [Self::Avx512, Self::Avx2, Self::Neon].into_iter().find(|set| set.is_available()).unwrap_or(Self::Portable)
    }

    /// Whether this machine can run it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Self::Avx2 => dispatch::detect() >= Isa::Avx2,
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Self::Avx512 => dispatch::detect() >= Isa::Avx512,
            #[cfg(all(target_arch = "aarch64", not(miri)))]
            Self::Neon => true,
            #[allow(unreachable_patterns, reason = "each target has its own sets")]
            _ => false,
        }
    }

    /// Runs `work` with convolutions called from this thread on `self`, to test and time the paths of other machines;
    /// `None` without running it if this machine does not have the instructions.
    pub fn run<R>(self, work: impl FnOnce() -> R) -> Option<R> {
        self.is_available().then(|| Forced { set: Some(self), ..Forced::get() }.run(work))
    }
}

/// A tile of the sparse kernels: `rows` of `vectors` contiguous vectors; in a cut tile `unit` vectors make a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TileShape {
    pub(crate) rows: usize,
    pub(crate) vectors: usize,
    /// Vectors of one column if the tile is a whole plane whose borders are cut, else 0.
    pub(crate) cut_unit: usize,
}

pub(crate) type DenseFn<T> = unsafe fn(&DenseTile<'_, T>) -> bool;
pub(crate) type TransposeFn<T> = unsafe fn([*const T; 4], usize, *mut T, usize);
pub(crate) type SparseFn<T> = unsafe fn(&SparseTile<T>, *const T, *mut T, bool);
pub(crate) type SparseDotFn<T> = unsafe fn(&SparseTile<T>, *const T, *mut T);
pub(crate) type DotsFn<T> =
    unsafe fn([*const T; DOT_FILTERS], [*const T; DOT_POSITIONS], usize, &mut [[T; DOT_FILTERS]]);

/// The transforms of Winograd's algorithm.
pub(crate) struct Winograd<T> {
    pub(crate) filters: unsafe fn(*const T, usize, bool, *mut T, usize),
    pub(crate) patches: unsafe fn(&Spread<T, PRODUCTS>),
    pub(crate) outputs: unsafe fn(&Gather<T>) -> bool,
    pub(crate) output_gradients: unsafe fn(&Spread<T, OUTPUTS>),
    pub(crate) filter_gradients: unsafe fn(*const T, usize, (usize, usize), usize, *mut T),
}

/// Rows of a dense tile, at most.
pub(crate) const MAX_ROWS: usize = 6;

/// The kernels of one instruction set for one number type.
pub(crate) struct Kernels<T: 'static> {
    pub(crate) set: InstructionSet,
    /// Numbers in one vector.
    pub(crate) lanes: usize,
    /// `[log2(vectors)][rows - 1]`.
    pub(crate) dense: &'static [[DenseFn<T>; MAX_ROWS]],
    pub(crate) transpose: TransposeFn<T>,
    /// By the positions that a kernel goes through together, fewest first.
    pub(crate) dots: &'static [(usize, DotsFn<T>)],
    pub(crate) sparse: &'static [(TileShape, SparseFn<T>, SparseDotFn<T>)],
    /// Of four output channels at once.
    pub(crate) quads: &'static [(TileShape, SparseFn<T>)],
    pub(crate) winograd: Winograd<T>,
}

impl<T> Kernels<T> {
    /// Vectors in the widest dense tile.
    pub(crate) fn max_vectors(&self) -> usize {
        1 << (self.dense.len() - 1)
    }

    /// The tiles of a kind of lists.
    pub(crate) fn shapes(&self, kind: ProgramKind) -> Vec<TileShape> {
        match kind {
            ProgramKind::Rows => self.sparse.iter().map(|(shape, ..)| *shape).collect(),
            ProgramKind::Quads => self.quads.iter().map(|(shape, _)| *shape).collect(),
        }
    }

    /// The kernel of dot products for so many positions that are left, or for the most that it has; how many that are.
    pub(crate) fn dots(&self, n_positions: usize) -> (usize, DotsFn<T>) {
        let fits = self.dots.iter().position(|(width, _)| *width >= n_positions);
        self.dots[fits.unwrap_or(self.dots.len() - 1)]
    }

    /// What multiplies and what sums, of a kind of lists; quads have no sum of their own.
    pub(crate) fn sparse(&self, kind: ProgramKind, shape: TileShape) -> (Option<SparseFn<T>>, Option<SparseDotFn<T>>) {
        match kind {
            ProgramKind::Rows => {
                self.sparse.iter().find(|(one, ..)| *one == shape).map(|&(_, map, dot)| (map, dot)).unzip()
            }
            ProgramKind::Quads => (self.quads.iter().find(|(one, _)| *one == shape).map(|&(_, map)| map), None),
        }
    }
}

/// For which kernels the lists of a mask are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgramKind {
    /// Channel by channel, for both kinds of kernels.
    Rows,
    /// Four channels of the target at once, for kernels that multiply.
    Quads,
}

impl ProgramKind {
    /// Channels of the target that a kernel goes through together.
    pub(crate) fn rows(self) -> usize {
        if self == Self::Rows { 1 } else { QUAD }
    }
}

/// A number type that has kernels.
pub(crate) trait Number: Float + WithDType {
    fn kernels() -> &'static Kernels<Self>;
}

impl Number for f64 {
    fn kernels() -> &'static Kernels<Self> {
        &portable_f64::KERNELS
    }
}

impl Number for f32 {
    fn kernels() -> &'static Kernels<Self> {
        match InstructionSet::active() {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => &avx512::KERNELS,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => &avx2::KERNELS,
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => &neon::KERNELS,
            _ => &portable_f32::KERNELS,
        }
    }
}

macro_rules! kernels {
    ($name:ident, $set:ident, $vector:ty, $t:ty, [$($feature:literal),*], dense [$($nv:literal),*],
     positions [$($np:literal),*], chains $dot_chains:literal,
     sparse [$(($r:literal, $l:literal, $chains:literal)),*], cut [$(($cr:literal, $cl:literal, $cu:literal)),*],
     quads [$(($br:literal, $bl:literal)),*]) => {
        mod $name {
            use super::*;

            // SAFETY (all wrappers): the features are those of the vector type, and the rest of the contract
            // is passed on unchanged.
            $(#[target_feature(enable = $feature)])*
            unsafe fn dense<const MR: usize, const NV: usize>(tile: &DenseTile<'_, $t>) -> bool {
                // SAFETY: see above.
                unsafe { tile::dense::<$vector, MR, NV>(tile) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn transpose(rows: [*const $t; 4], len: usize, to: *mut $t, width: usize) {
                // SAFETY: see above.
                unsafe { tile::transpose::<$vector>(rows, len, to, width) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn dots<const NP: usize>(
                filters: [*const $t; DOT_FILTERS], columns: [*const $t; DOT_POSITIONS], len: usize,
                sums: &mut [[$t; DOT_FILTERS]],
            ) {
                // SAFETY: see above.
                unsafe { tile::dots::<$vector, NP>(filters, columns, len, sums) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn sparse<const R: usize, const L: usize, const C: usize>(
                tile: &SparseTile<$t>, values: *const $t, out: *mut $t, first: bool,
            ) {
                // SAFETY: see above.
                unsafe { tile::sparse::<$vector, R, L, C>(tile, values, out, first) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn dot<const R: usize, const L: usize>(tile: &SparseTile<$t>, grad: *const $t, sums: *mut $t) {
                // SAFETY: see above.
                unsafe { tile::sparse_dot::<$vector, R, L, $dot_chains>(tile, grad, sums) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn sparse_cut<const R: usize, const L: usize, const U: usize>(
                tile: &SparseTile<$t>, values: *const $t, out: *mut $t, first: bool,
            ) {
                // SAFETY: see above.
                unsafe { tile::sparse_cut::<$vector, R, L, U>(tile, values, out, first) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn dot_cut<const R: usize, const L: usize, const U: usize>(
                tile: &SparseTile<$t>, grad: *const $t, sums: *mut $t,
            ) {
                // SAFETY: see above.
                unsafe { tile::sparse_dot_cut::<$vector, R, L, U, $dot_chains>(tile, grad, sums) }
            }

            $(#[target_feature(enable = $feature)])*
            unsafe fn quad<const R: usize, const L: usize>(
                tile: &SparseTile<$t>, values: *const $t, out: *mut $t, first: bool,
            ) {
                // SAFETY: see above.
                unsafe { tile::sparse_quad::<$vector, R, L>(tile, values, out, first) }
            }

            $(#[target_feature(enable = $feature)])*
            unsafe fn filters(from: *const $t, n: usize, is_flipped: bool, to: *mut $t, plane: usize) {
                // SAFETY: see above.
                unsafe { winograd::filters::<$vector>(from, n, is_flipped, to, plane) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn patches(of: &Spread<$t, PRODUCTS>) {
                // SAFETY: see above.
                unsafe { winograd::patches::<$vector>(of) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn outputs(of: &Gather<$t>) -> bool {
                // SAFETY: see above.
                unsafe { winograd::outputs::<$vector>(of) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn output_gradients(of: &Spread<$t, OUTPUTS>) {
                // SAFETY: see above.
                unsafe { winograd::output_gradients::<$vector>(of) }
            }
            $(#[target_feature(enable = $feature)])*
            unsafe fn filter_gradients(from: *const $t, plane: usize, parts: (usize, usize), n: usize, to: *mut $t) {
                // SAFETY: see above.
                unsafe { winograd::filter_gradients::<$vector>(from, plane, parts, n, to) }
            }

            pub(super) static KERNELS: Kernels<$t> = Kernels {
                set: InstructionSet::$set,
                lanes: <$vector as Vector>::LANES,
                dense: &[$([dense::<1, $nv>, dense::<2, $nv>, dense::<3, $nv>, dense::<4, $nv>, dense::<5, $nv>, dense::<6, $nv>]),*],
                transpose,
                dots: &[$(($np, dots::<$np>)),*],
                sparse: &[
                    $((TileShape { rows: $r, vectors: $l, cut_unit: 0 }, sparse::<$r, $l, $chains>, dot::<$r, $l>),)*
                    $((TileShape { rows: $cr, vectors: $cl, cut_unit: $cu }, sparse_cut::<$cr, $cl, $cu>, dot_cut::<$cr, $cl, $cu>),)*
                ],
                quads: &[$((TileShape { rows: $br, vectors: $bl, cut_unit: 0 }, quad::<$br, $bl>),)*],
                winograd: Winograd { filters, patches, outputs, output_gradients, filter_gradients },
            };
        }
    };
}

kernels!(portable_f32, Portable, Lanes<f32, 8>, f32, [], dense [1], positions [1, 2], chains 4,
    sparse [(2, 2, 1), (1, 4, 1), (1, 2, 1), (1, 1, 2)], cut [(2, 2, 1)],
    quads [(1, 2), (1, 1)]);
kernels!(portable_f64, Portable, Lanes<f64, 4>, f64, [], dense [1], positions [1, 2], chains 4,
    sparse [(2, 2, 1), (1, 4, 1), (1, 2, 1), (1, 1, 2)], cut [(2, 2, 1)],
    quads [(1, 2), (1, 1)]);
#[cfg(target_arch = "x86_64")]
kernels!(avx2, Avx2, Ymm, f32, ["avx2", "fma"], dense [1, 2], positions [1, 2], chains 4,
    sparse [(2, 4, 1), (1, 8, 1), (1, 4, 2), (1, 2, 4), (1, 1, 8)], cut [(2, 4, 2), (2, 2, 1)],
    quads [(1, 2), (2, 1), (1, 1)]);
#[cfg(target_arch = "x86_64")]
kernels!(avx512, Avx512, Zmm, f32, ["avx512f", "avx512dq", "avx2", "fma"], dense [1, 2, 4], positions [1, 2, 4, 6], chains 4,
    sparse [(4, 4, 1), (2, 8, 1), (1, 16, 1), (1, 9, 1), (1, 8, 1), (1, 5, 1), (1, 4, 2), (1, 2, 4), (1, 1, 8)],
    cut [(4, 4, 1), (2, 8, 4), (2, 4, 2), (2, 2, 1)],
    quads [(2, 2), (1, 4), (1, 2), (1, 1)]);
#[cfg(target_arch = "aarch64")]
kernels!(neon, Neon, Neon, f32, ["neon"], dense [1, 2, 4], positions [1, 2, 4, 6], chains 4,
    sparse [(4, 4, 1), (2, 8, 1), (1, 16, 1), (1, 9, 1), (1, 8, 1), (1, 5, 1), (1, 4, 2), (1, 2, 4), (1, 1, 8)],
    cut [(4, 4, 1), (2, 8, 4), (2, 4, 2), (2, 2, 1)],
    quads [(2, 2), (1, 4), (1, 2), (1, 1)]);
