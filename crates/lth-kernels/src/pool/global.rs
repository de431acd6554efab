//! Pooling of whole feature maps to `[N, C]`, over slices.

use super::kernel::{Reduce, larger};
use crate::dispatch::multiversion;
use crate::layout::Layout;
use crate::parallel::{Blank, Shared, filled, for_each, zeroed};
use crate::real::Real;

/// Sizes of a global pooling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Global {
    pub(super) n: usize,
    pub(super) c: usize,
    /// H · W.
    pub(super) area: usize,
    pub(super) layout: Layout,
    pub(super) reduce: Reduce,
}

/// Rows added up in the element type; sums of them are added in f64.
const ROWS: usize = 64;

multiversion! {
    /// Reduces rows of `out.len()` values to one.
    fn reduce_rows[T: Real, const MAX: bool][T, MAX](x: &[T], out: &mut [T]) {
        let n = out.len();
        out.copy_from_slice(&x[..n]);
        for row in x[n..].chunks_exact(n) {
            for (a, &v) in out.iter_mut().zip(row) {
                *a = if MAX { larger(*a, v) } else { *a + v };
            }
        }
    }
}

/// The mean of `area` rows, to `row`.
fn mean_rows<T: Real>(x: &[T], area: usize, row: &mut [T]) {
    let mut sums = vec![0.0; row.len()];
    for rows in x.chunks(ROWS * row.len()) {
        reduce_rows::<T, false>(rows, row);
        sums.iter_mut().zip(&*row).for_each(|(sum, v)| *sum += v.wide());
    }
    row.iter_mut().zip(sums).for_each(|(v, sum)| *v = T::of(sum / area as f64));
}

/// Largest or mean of one contiguous map.
fn reduce_map<T: Real>(x: &[T], reduce: Reduce) -> T {
    match reduce {
        Reduce::Max => x.iter().fold(T::NEG_INFINITY, |a, &v| larger(a, v)),
        Reduce::Mean => T::of(x.iter().map(|v| v.wide()).sum::<f64>() / x.len() as f64),
    }
}

multiversion! {
    /// Spreads each column's gradient over `area` rows: over all, or to the first that is `best`.
    fn spread_rows[T: Real, const MAX: bool][T, MAX](
        x: &[T], best: &[T], rest: &mut [T], dx: &mut [T],
    ) {
        let n = rest.len();
        for (row, dx) in x.chunks_exact(n).zip(dx.chunks_exact_mut(n)) {
            for l in 0..n {
                if MAX {
                    let hit = row[l] == best[l] || row[l].not_a_number();
                    dx[l] = if hit { rest[l] } else { T::ZERO };
                    rest[l] = if hit { T::ZERO } else { rest[l] };
                } else {
                    dx[l] = rest[l];
                }
            }
        }
    }
}

impl Global {
    /// `[N, C]`.
    pub(super) fn forward<T: Real>(&self, x: &[T]) -> Vec<T> {
        let Global { n, c, area, layout, reduce } = *self;
        let mut y = vec![T::ZERO; n * c];
        let out = Shared::new(&mut y);
        match layout {
            Layout::Nchw => for_each(n, x.len(), |i| {
                // SAFETY: samples are disjoint.
                let y = unsafe { out.part(i * c..(i + 1) * c) };
                for (ch, y) in y.iter_mut().enumerate() {
                    *y = reduce_map(&x[(i * c + ch) * area..][..area], reduce);
                }
            }),
            Layout::Chwn => for_each(c, x.len(), |ch| {
                let mut row = vec![T::ZERO; n];
                let x = &x[ch * area * n..(ch + 1) * area * n];
                match reduce {
                    Reduce::Max => reduce_rows::<T, true>(x, &mut row),
                    Reduce::Mean => mean_rows(x, area, &mut row),
                }
                for (i, v) in row.into_iter().enumerate() {
                    // SAFETY: column `ch` belongs to this call.
                    unsafe { out.set(i * c + ch, v) };
                }
            }),
        }
        y
    }

    /// The input's gradient from the output `y` and its gradient.
    pub(super) fn backward<T: Real>(&self, x: &[T], y: &[T], dy: &[T]) -> Vec<T> {
        let Global { n, c, area, layout, reduce } = *self;
        let share = T::of(if reduce == Reduce::Mean { 1.0 / area as f64 } else { 1.0 });
        // Planes in the input's order, each of `area` rows with `width` values.
        let (planes, width) = match layout {
            Layout::Nchw => (n * c, 1),
            Layout::Chwn => (c, n),
        };
        let fill = |out: &Blank<'_, T>| {
            for_each(planes, x.len(), |p| {
                let at = |i: usize| match layout {
                    Layout::Nchw => p,
                    Layout::Chwn => i * c + p,
                };
                let mut rest: Vec<T> = (0..width).map(|i| dy[at(i)] * share).collect();
                let best: Vec<T> = (0..width).map(|i| y[at(i)]).collect();
                let range = p * area * width..(p + 1) * area * width;
                // SAFETY: planes are disjoint.
                let dx = zeroed(unsafe { out.part(range.clone()) }, T::ZERO);
                match reduce {
                    Reduce::Max => spread_rows::<T, true>(&x[range], &best, &mut rest, dx),
                    Reduce::Mean => spread_rows::<T, false>(&x[range], &best, &mut rest, dx),
                }
            });
        };
        // SAFETY: planes cover the gradient and each is zeroed.
        unsafe { filled(x.len(), fill) }
    }
}
