//! The transforms of Winograd's F(4×4, 3×3), generic over the vector type: every lane is a convolution of its own.
//!
//! Four by four outputs are `Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A` for a filter w of 3×3 and a patch x of 6×6 (Lavin and Gray, "Fast
//! Algorithms for Convolutional Neural Networks", CVPR 2016, section 4); the gradients are the same products read from their
//! other ends. The matrices are those of the points 0, 1, -1, ½, -2 and ∞, with which rounding errors are smallest
//! (Barabasz, Anderson, Soodhalter and Gregg, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
//! Neural Networks", ACM TOMS 46, 2020). A *plane* holds one of the thirty-six products of all rows.

#![allow(clippy::needless_range_loop, reason = "the indices are those of the registers and of memory alike")]

use std::mem::MaybeUninit;

use super::simd::{Float, MAX_LANES, Vector};

/// Outputs of a tile along an axis, and inputs of its patch.
pub(crate) const TILE: usize = 4;
pub(crate) const PATCH: usize = 6;
/// Outputs and products of a tile, and weights of a filter.
pub(crate) const OUTPUTS: usize = TILE * TILE;
pub(crate) const PRODUCTS: usize = PATCH * PATCH;
pub(crate) const TAPS: usize = SIDE * SIDE;

/// Rows of a filter.
const SIDE: usize = 3;

/// `N` numbers of each of `n_rows` rows (channels, or pictures of a panel), which become a row in each plane.
pub(crate) struct Spread<T, const N: usize> {
    /// Where the first row's numbers are, and how far apart those of the next row.
    pub(crate) from: [*const T; N],
    pub(crate) from_step: [usize; N],
    pub(crate) n_rows: usize,
    /// Convolutions beside each other; rows of planes are whole vectors of them and end with zeros.
    pub(crate) len: usize,
    pub(crate) to: *mut T,
    pub(crate) to_step: usize,
    pub(crate) plane: usize,
}

/// The way back: rows of all planes become four by four outputs each.
pub(crate) struct Gather<T> {
    pub(crate) from: *const T,
    pub(crate) from_step: usize,
    pub(crate) plane: usize,
    pub(crate) n_rows: usize,
    pub(crate) len: usize,
    pub(crate) to: [*mut T; OUTPUTS],
    pub(crate) to_step: [usize; OUTPUTS],
    pub(crate) ending: Option<Ending<T>>,
}

/// What becomes of the outputs before they are written: `v + bias + residual`, rectified if asked.
pub(crate) struct Ending<T> {
    /// A number for each row; null if there is none.
    pub(crate) bias: *const T,
    /// As far apart as the outputs themselves.
    pub(crate) residual: Option<[*const T; OUTPUTS]>,
    pub(crate) relu: bool,
}

/// A matrix of the algorithm.
trait Matrix<const FROM: usize, const TO: usize> {
    /// Its product with a vector of vectors.
    ///
    /// # Safety
    /// The vector type's instruction set is there.
    unsafe fn times<V: Vector>(of: [V; FROM]) -> [V; TO];
}

struct Bt;
struct G;
struct At;
struct A;
struct Gt;

// SAFETY (all of them): the trait's contract gives the instruction set.
impl Matrix<PATCH, PATCH> for Bt {
    /// ```text
    /// 1  -3/2   -2   3/2    1   0
    /// 0    -1  1/2   5/2    1   0
    /// 0     1 -5/2   1/2    1   0
    /// 0    -2   -1     2    1   0
    /// 0   1/2   -1  -1/2    1   0
    /// 0     1 -3/2    -2  3/2   1
    /// ```
    #[inline(always)]
    unsafe fn times<V: Vector>([x0, x1, x2, x3, x4, x5]: [V; PATCH]) -> [V; PATCH] {
        // SAFETY: see above.
        unsafe {
            let three_halves = V::splat(V::Elem::of(1.5));
            let (odd, even) = (x3.sub(x1), x4.sub(x2));
            [
                x0.sub(x2).add(three_halves.fma(odd, even)),
                three_halves.fma(x2.add(x3), even.add(odd)),
                three_halves.fma(x3.sub(x2), even.sub(odd)),
                V::splat(V::Elem::of(2.0)).fma(odd, even),
                V::splat(V::Elem::of(-0.5)).fma(odd, even),
                three_halves.fma(even, x5.sub(x3).sub(odd)),
            ]
        }
    }
}

impl Matrix<SIDE, PATCH> for G {
    /// ```text
    ///      1      0      0
    ///    1/3    1/3    1/3
    ///   -1/3    1/3   -1/3
    /// -16/15  -8/15  -4/15
    ///   1/15  -2/15   4/15
    ///      0      0      1
    /// ```
    #[inline(always)]
    unsafe fn times<V: Vector>([a, b, c]: [V; SIDE]) -> [V; PATCH] {
        // SAFETY: see above.
        unsafe {
            let third = V::splat(V::Elem::of(1.0 / 3.0));
            let (half, minus_two) = (V::splat(V::Elem::of(0.5)), V::splat(V::Elem::of(-2.0)));
            let outer = a.add(c);
            let (at_half, at_minus_two) = (half.fma(half.fma(c, b), a), minus_two.fma(minus_two.fma(c, b), a));
            [
                a,
                third.times(outer.add(b)),
                third.times(b.sub(outer)),
                V::splat(V::Elem::of(-16.0 / 15.0)).times(at_half),
                V::splat(V::Elem::of(1.0 / 15.0)).times(at_minus_two),
                c,
            ]
        }
    }
}

impl Matrix<PATCH, TILE> for At {
    /// ```text
    /// 1  1   1    1   1  0
    /// 0  1  -1  1/2  -2  0
    /// 0  1   1  1/4   4  0
    /// 0  1  -1  1/8  -8  1
    /// ```
    #[inline(always)]
    unsafe fn times<V: Vector>([m0, m1, m2, m3, m4, m5]: [V; PATCH]) -> [V; TILE] {
        // SAFETY: see above.
        unsafe {
            let (sum, difference) = (m1.add(m2), m1.sub(m2));
            let [half, quarter, eighth] = [0.5, 0.25, 0.125].map(V::Elem::of);
            let [minus_two, four, minus_eight] = [-2.0, 4.0, -8.0].map(V::Elem::of);
            [
                m0.add(sum).add(m3.add(m4)),
                V::splat(minus_two).fma(m4, V::splat(half).fma(m3, difference)),
                V::splat(four).fma(m4, V::splat(quarter).fma(m3, sum)),
                V::splat(minus_eight).fma(m4, V::splat(eighth).fma(m3, difference)).add(m5),
            ]
        }
    }
}

impl Matrix<TILE, PATCH> for A {
    #[inline(always)]
    unsafe fn times<V: Vector>([y0, y1, y2, y3]: [V; TILE]) -> [V; PATCH] {
        // SAFETY: see above.
        unsafe {
            let (even, odd) = (y0.add(y2), y1.add(y3));
            let (half, minus_two) = (V::splat(V::Elem::of(0.5)), V::splat(V::Elem::of(-2.0)));
            [
                y0,
                even.add(odd),
                even.sub(odd),
                half.fma(half.fma(half.fma(y3, y2), y1), y0),
                minus_two.fma(minus_two.fma(minus_two.fma(y3, y2), y1), y0),
                y3,
            ]
        }
    }
}

impl Matrix<PATCH, SIDE> for Gt {
    #[inline(always)]
    unsafe fn times<V: Vector>([u0, u1, u2, u3, u4, u5]: [V; PATCH]) -> [V; SIDE] {
        // SAFETY: see above.
        unsafe {
            let (third, half) = (V::splat(V::Elem::of(1.0 / 3.0)), V::splat(V::Elem::of(0.5)));
            let (sum, difference) = (third.times(u1.add(u2)), third.times(u1.sub(u2)));
            let of_half = V::splat(V::Elem::of(-16.0 / 15.0)).times(u3);
            let of_two = V::splat(V::Elem::of(1.0 / 15.0)).times(u4);
            let quarter = V::splat(V::Elem::of(0.25));
            [
                u0.add(difference).add(of_half.add(of_two)),
                V::splat(V::Elem::of(-2.0)).fma(of_two, half.fma(of_half, sum)),
                V::splat(V::Elem::of(4.0)).fma(of_two, quarter.fma(of_half, difference)).add(u5),
            ]
        }
    }
}

/// `M x Mᵀ` for a square `x`: its columns are put in, then the product's lines come out.
struct Half<V, const FROM: usize, const TO: usize>([[MaybeUninit<V>; FROM]; TO]);

impl<V: Vector, const FROM: usize, const TO: usize> Half<V, FROM, TO> {
    #[inline(always)]
    fn new() -> Self {
        Self([[const { MaybeUninit::uninit() }; FROM]; TO])
    }

    /// # Safety
    /// As [`Matrix::times`].
    #[inline(always)]
    unsafe fn put<M: Matrix<FROM, TO>>(&mut self, column: usize, values: [V; FROM]) {
        // SAFETY: the caller's promise.
        let values = unsafe { M::times(values) };
        for line in 0..TO {
            self.0[line][column].write(values[line]);
        }
    }

    /// # Safety
    /// As [`Matrix::times`]; every column has been put in.
    #[inline(always)]
    unsafe fn line<M: Matrix<FROM, TO>>(&self, line: usize) -> [V; TO] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut values = [V::zero(); FROM];
            for column in 0..FROM {
                values[column] = self.0[line][column].assume_init();
            }
            M::times(values)
        }
    }
}

/// `Bᵀ x B` of patches.
///
/// # Safety
/// The vector type's instruction set is there, and so is all memory that the description of [`Spread`] names.
#[inline(always)]
pub(crate) unsafe fn patches<V: Vector>(of: &Spread<V::Elem, PRODUCTS>) {
    // SAFETY: the caller's promise.
    unsafe { spread::<Bt, V, PRODUCTS, PATCH>(of) }
}

/// `A y Aᵀ` of the gradients of outputs.
///
/// # Safety
/// As [`patches`].
#[inline(always)]
pub(crate) unsafe fn output_gradients<V: Vector>(of: &Spread<V::Elem, OUTPUTS>) {
    // SAFETY: the caller's promise.
    unsafe { spread::<A, V, OUTPUTS, TILE>(of) }
}

/// # Safety
/// As [`patches`].
#[inline(always)]
unsafe fn spread<M: Matrix<SIDE, PATCH>, V: Vector, const N: usize, const SIDE: usize>(of: &Spread<V::Elem, N>) {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        for row in 0..of.n_rows {
            for at in (0..of.len).step_by(V::LANES) {
                let here = of.len - at;
                let mut half = Half::<V, SIDE, PATCH>::new();
                for column in 0..SIDE {
                    let mut x = [V::zero(); SIDE];
                    for line in 0..SIDE {
                        let i = line * SIDE + column;
                        let from = of.from[i].wrapping_add(row * of.from_step[i] + at);
                        x[line] = V::load_up_to(from, here);
                    }
                    half.put::<M>(column, x);
                }
                let to = of.to.add(row * of.to_step + at);
                for line in 0..PATCH {
                    let products = half.line::<M>(line);
                    for column in 0..PATCH {
                        products[column].store(to.add((line * PATCH + column) * of.plane));
                    }
                }
            }
        }
    }
}

/// `Aᵀ m A`, and what follows. Whether all of it was finite before that comes back.
///
/// # Safety
/// As [`patches`], for [`Gather`].
#[inline(always)]
pub(crate) unsafe fn outputs<V: Vector>(of: &Gather<V::Elem>) -> bool {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        let mut probes = [V::zero(); TILE];
        for row in 0..of.n_rows {
            for at in (0..of.len).step_by(V::LANES) {
                let here = of.len - at;
                let from = of.from.add(row * of.from_step + at);
                let mut half = Half::<V, PATCH, TILE>::new();
                for column in 0..PATCH {
                    let mut m = [V::zero(); PATCH];
                    for line in 0..PATCH {
                        m[line] = V::load(from.add((line * PATCH + column) * of.plane));
                    }
                    half.put::<At>(column, m);
                }
                for line in 0..TILE {
                    let outputs = half.line::<At>(line);
                    for column in 0..TILE {
                        let i = line * TILE + column;
                        let to = of.to[i].wrapping_add(row * of.to_step[i] + at);
                        // 0 times a number is 0, or NaN where it is not finite.
                        probes[column] = outputs[column].fma(V::zero(), probes[column]);
                        let Some(ending) = &of.ending else {
                            outputs[column].store_up_to(to, here);
                            continue;
                        };
                        let bias = if ending.bias.is_null() { V::Elem::default() } else { *ending.bias.add(row) };
                        let mut ended = outputs[column].add(V::splat(bias));
                        if let Some(residual) = ending.residual {
                            ended = ended.add(V::load_up_to(residual[i].wrapping_add(row * of.to_step[i] + at), here));
                        }
                        if ending.relu {
                            ended = ended.rectified();
                        }
                        ended.store_up_to(to, here);
                    }
                }
            }
        }
        V::sums(probes).into_iter().all(|sum| sum == V::Elem::default())
    }
}

/// `G w Gᵀ` of `n` filters that lie one behind the other, flipped along both axes or not.
///
/// # Safety
/// As [`patches`]; there are `n` filters, and `n` numbers in each plane.
#[inline(always)]
pub(crate) unsafe fn filters<V: Vector>(
    from: *const V::Elem,
    n: usize,
    is_flipped: bool,
    to: *mut V::Elem,
    plane: usize,
) {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        let mut lanes = [[V::Elem::default(); MAX_LANES]; TAPS];
        for first in (0..n).step_by(V::LANES) {
            let here = V::LANES.min(n - first);
            for lane in 0..here {
                for tap in 0..TAPS {
                    let at = if is_flipped { TAPS - 1 - tap } else { tap };
                    lanes[tap][lane] = *from.add((first + lane) * TAPS + at);
                }
            }
            let mut half = Half::<V, SIDE, PATCH>::new();
            for column in 0..SIDE {
                let mut w = [V::zero(); SIDE];
                for line in 0..SIDE {
                    w[line] = V::load(lanes[line * SIDE + column].as_ptr());
                }
                half.put::<G>(column, w);
            }
            for line in 0..PATCH {
                let products = half.line::<G>(line);
                for column in 0..PATCH {
                    let to = to.add((line * PATCH + column) * plane + first);
                    products[column].store_up_to(to, here);
                }
            }
        }
    }
}

/// `Gᵀ u G` of the sums of `n_parts` parts, which lie `part` apart: the gradients of `n` filters, one behind the other.
///
/// # Safety
/// As [`filters`]; each plane of each part has `n` numbers, rounded up to whole vectors.
#[inline(always)]
pub(crate) unsafe fn filter_gradients<V: Vector>(
    from: *const V::Elem,
    plane: usize,
    (n_parts, part): (usize, usize),
    n: usize,
    to: *mut V::Elem,
) {
    // SAFETY: the caller's promise covers each address computed here.
    unsafe {
        let mut lanes = [[V::Elem::default(); MAX_LANES]; TAPS];
        for first in (0..n).step_by(V::LANES) {
            let mut half = Half::<V, PATCH, SIDE>::new();
            for column in 0..PATCH {
                let mut u = [V::zero(); PATCH];
                for line in 0..PATCH {
                    let from = from.add((line * PATCH + column) * plane + first);
                    u[line] = V::load(from);
                    for one in 1..n_parts {
                        u[line] = u[line].add(V::load(from.add(one * part)));
                    }
                }
                half.put::<Gt>(column, u);
            }
            for line in 0..SIDE {
                let gradients = half.line::<Gt>(line);
                for column in 0..SIDE {
                    gradients[column].store(lanes[line * SIDE + column].as_mut_ptr());
                }
            }
            for lane in 0..V::LANES.min(n - first) {
                for tap in 0..TAPS {
                    *to.add((first + lane) * TAPS + tap) = lanes[tap][lane];
                }
            }
        }
    }
}
