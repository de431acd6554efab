//! Pooling over slices. A feature map is `planes` of H × W × `inner` values: (C, H, W, N) with
//! the batch innermost, or (N · C, H, W, 1).

use crate::dispatch::multiversion;
use crate::parallel::{Blank, filled, for_each, zeroed};
use crate::real::Real;
use std::mem::MaybeUninit;

/// A checked pooling.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) planes: usize,
    pub(crate) inner: usize,
    pub(crate) input: (usize, usize),
    pub(crate) output: (usize, usize),
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: (usize, usize),
    pub(crate) padding: (usize, usize),
}

impl Geometry {
    pub(crate) fn plane_in(&self) -> usize {
        self.input.0 * self.input.1 * self.inner
    }

    pub(crate) fn plane_out(&self) -> usize {
        self.output.0 * self.output.1 * self.inner
    }

    /// Input rows (or columns) under output `o`, padding left out: first and one past the last.
    #[inline(always)]
    fn span(o: usize, kernel: usize, stride: usize, padding: usize, len: usize) -> (usize, usize) {
        let start = o * stride;
        (start.saturating_sub(padding), (start + kernel).saturating_sub(padding).min(len))
    }

    #[inline(always)]
    fn rows(&self, o: usize) -> (usize, usize) {
        Self::span(o, self.kernel.0, self.stride.0, self.padding.0, self.input.0)
    }

    #[inline(always)]
    fn columns(&self, o: usize) -> (usize, usize) {
        Self::span(o, self.kernel.1, self.stride.1, self.padding.1, self.input.1)
    }
}

/// What a window is reduced to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reduce {
    Max,
    /// The sum divided by the kernel's size, padding counted.
    Mean,
}

/// The larger; a NaN is larger than everything.
#[inline(always)]
pub(super) fn larger<T: Real>(best: T, v: T) -> T {
    if v > best || v.not_a_number() { v } else { best }
}

multiversion! {
    /// One plane, batch innermost: every output is a vector of `inner` values.
    fn plane_forward[T: Real, const MAX: bool][T, MAX](
        g: &Geometry, x: &[T], y: &mut [MaybeUninit<T>],
    ) {
        /// Values kept in registers at a time: eight samples' vectors or fewer.
        const LANES: usize = 64;
        let factor = T::of(1.0 / (g.kernel.0 * g.kernel.1) as f64);
        let inner = g.inner;
        for oh in 0..g.output.0 {
            let (top, bottom) = g.rows(oh);
            for ow in 0..g.output.1 {
                let (left, right) = g.columns(ow);
                let out = &mut y[(oh * g.output.1 + ow) * inner..][..inner];
                for (part, out) in out.chunks_mut(LANES).enumerate() {
                    let mut acc = [if MAX { T::NEG_INFINITY } else { T::ZERO }; LANES];
                    for r in top..bottom {
                        for s in left..right {
                            let at = (r * g.input.1 + s) * inner + part * LANES;
                            if out.len() == LANES {
                                if let Some(values) = x[at..].first_chunk::<LANES>() {
                                    for (a, &v) in acc.iter_mut().zip(values) {
                                        *a = if MAX { larger(*a, v) } else { *a + v };
                                    }
                                }
                            } else {
                                for (a, &v) in acc.iter_mut().zip(&x[at..at + out.len()]) {
                                    *a = if MAX { larger(*a, v) } else { *a + v };
                                }
                            }
                        }
                    }
                    for (out, &a) in out.iter_mut().zip(&acc) {
                        out.write(if MAX { a } else { a * factor });
                    }
                }
            }
        }
    }
}

multiversion! {
    /// One plane of single values: rows of a window are reduced first, along the width.
    fn single_plane_forward[T: Real, const MAX: bool][T, MAX](
        g: &Geometry, x: &[T], row: &mut [T], y: &mut [MaybeUninit<T>],
    ) {
        let factor = T::of(1.0 / (g.kernel.0 * g.kernel.1) as f64);
        let w = g.input.1;
        for oh in 0..g.output.0 {
            let (top, bottom) = g.rows(oh);
            row.copy_from_slice(&x[top * w..(top + 1) * w]);
            for r in top + 1..bottom {
                for (a, &v) in row.iter_mut().zip(&x[r * w..(r + 1) * w]) {
                    *a = if MAX { larger(*a, v) } else { *a + v };
                }
            }
            for (ow, out) in y[oh * g.output.1..(oh + 1) * g.output.1].iter_mut().enumerate() {
                let (left, right) = g.columns(ow);
                let mut acc = row[left];
                for &v in &row[left + 1..right] {
                    acc = if MAX { larger(acc, v) } else { acc + v };
                }
                out.write(if MAX { acc } else { acc * factor });
            }
        }
    }
}

/// Values of a window above which their sum in the element type would lose digits.
const LARGE_WINDOW: usize = 1 << 10;

/// One plane of means over large windows, summed in f64.
fn wide_plane_forward<T: Real>(g: &Geometry, x: &[T], y: &mut [MaybeUninit<T>]) {
    let mut sums = vec![0.0; g.inner];
    let values = (g.kernel.0 * g.kernel.1) as f64;
    for (at, out) in y.chunks_exact_mut(g.inner).enumerate() {
        let ((top, bottom), (left, right)) = (g.rows(at / g.output.1), g.columns(at % g.output.1));
        sums.fill(0.0);
        for r in top..bottom {
            let row = &x[(r * g.input.1 + left) * g.inner..(r * g.input.1 + right) * g.inner];
            for pixel in row.chunks_exact(g.inner) {
                sums.iter_mut().zip(pixel).for_each(|(sum, v)| *sum += v.wide());
            }
        }
        for (out, sum) in out.iter_mut().zip(&sums) {
            out.write(T::of(sum / values));
        }
    }
}

fn any_plane_forward<T: Real, const MAX: bool>(g: &Geometry, x: &[T], y: &mut [MaybeUninit<T>]) {
    if !MAX && g.kernel.0 * g.kernel.1 > LARGE_WINDOW {
        return wide_plane_forward(g, x, y);
    }
    if g.inner == 1 {
        single_plane_forward::<T, MAX>(g, x, &mut vec![T::ZERO; g.input.1], y);
    } else {
        plane_forward::<T, MAX>(g, x, y);
    }
}

/// The largest values of one plane; writes all of `y`.
pub(crate) fn max_plane<T: Real>(g: &Geometry, x: &[T], y: &mut [MaybeUninit<T>]) {
    any_plane_forward::<T, true>(g, x, y);
}

/// Adds the gradient of [`max_plane`] to `dx`.
pub(crate) fn max_plane_gradient<T: Real>(g: &Geometry, x: &[T], y: &[T], dy: &[T], dx: &mut [T]) {
    plane_backward::<T, true>(g, x, y, dy, dx);
}

/// The pooled maps.
pub(super) fn forward<T: Real>(g: &Geometry, reduce: Reduce, x: &[T]) -> Vec<T> {
    let (len_in, len_out) = (g.plane_in(), g.plane_out());
    let fill = |out: &Blank<'_, T>| {
        for_each(g.planes, g.planes * len_in, |p| {
            let x = &x[p * len_in..(p + 1) * len_in];
            // SAFETY: planes are disjoint.
            let y = unsafe { out.part(p * len_out..(p + 1) * len_out) };
            match reduce {
                Reduce::Max => any_plane_forward::<T, true>(g, x, y),
                Reduce::Mean => any_plane_forward::<T, false>(g, x, y),
            }
        });
    };
    // SAFETY: the planes cover the output and both plane kernels write all of a plane.
    unsafe { filled(g.planes * len_out, fill) }
}

multiversion! {
    /// Adds one plane's gradient to `dx`. The largest of a window is found again by comparing with
    /// the output: the gradient is handed to the first position that equals it.
    fn plane_backward[T: Real, const MAX: bool][T, MAX](
        g: &Geometry, x: &[T], y: &[T], dy: &[T], dx: &mut [T],
    ) {
        /// Values kept in registers at a time; the batch's rest one by one.
        const LANES: usize = 32;
        let factor = T::of(1.0 / (g.kernel.0 * g.kernel.1) as f64);
        let inner = g.inner;
        let whole = inner - inner % LANES;
        for oh in 0..g.output.0 {
            let (top, bottom) = g.rows(oh);
            for ow in 0..g.output.1 {
                let (left, right) = g.columns(ow);
                let out = (oh * g.output.1 + ow) * inner;
                let window = || (top..bottom).flat_map(|r| (left..right).map(move |s| (r * g.input.1 + s) * inner));
                for part in (0..whole).step_by(LANES) {
                    let at = out + part;
                    let chunk = |values: &[T]| values[at..].first_chunk::<LANES>().copied();
                    let (Some(mut left), Some(y)) = (chunk(dy), chunk(y)) else { continue };
                    for at in window().map(|at| at + part) {
                        let Some(dx) = dx[at..].first_chunk_mut::<LANES>() else { continue };
                        if MAX {
                            let Some(x) = x[at..].first_chunk::<LANES>() else { continue };
                            for l in 0..LANES {
                                (dx[l], left[l]) = handed(dx[l], left[l], x[l], y[l]);
                            }
                        } else {
                            for l in 0..LANES {
                                dx[l] += left[l] * factor;
                            }
                        }
                    }
                }
                for l in whole..inner {
                    let mut left = dy[out + l];
                    for at in window().map(|at| at + l) {
                        if MAX {
                            (dx[at], left) = handed(dx[at], left, x[at], y[out + l]);
                        } else {
                            dx[at] += left * factor;
                        }
                    }
                }
            }
        }
    }
}

/// What a position of a window takes of the gradient that is left, and what stays for the others.
#[inline(always)]
fn handed<T: Real>(dx: T, left: T, x: T, largest: T) -> (T, T) {
    let hit = x == largest || x.not_a_number();
    (dx + if hit { left } else { T::ZERO }, if hit { T::ZERO } else { left })
}

/// The input's gradient. `y` is the output; it and `x` are read for [`Reduce::Max`] only.
pub(super) fn backward<T: Real>(g: &Geometry, reduce: Reduce, x: &[T], y: &[T], dy: &[T]) -> Vec<T> {
    let (len_in, len_out) = (g.plane_in(), g.plane_out());
    let fill = |out: &Blank<'_, T>| {
        for_each(g.planes, g.planes * len_in, |p| {
            let (here, there) = (p * len_in..(p + 1) * len_in, p * len_out..(p + 1) * len_out);
            // SAFETY: planes are disjoint.
            let dx = zeroed(unsafe { out.part(here.clone()) }, T::ZERO);
            match reduce {
                Reduce::Max => {
                    let (x, y) = (&x[here], &y[there.clone()]);
                    plane_backward::<T, true>(g, x, y, &dy[there], dx);
                }
                Reduce::Mean => plane_backward::<T, false>(g, &[], &dy[there.clone()], &dy[there], dx),
            }
        });
    };
    // SAFETY: the planes cover the gradient and each is zeroed.
    unsafe { filled(g.planes * len_in, fill) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests::for_each_isa;

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        for inner in [1, 5, 67, 128] {
            let g = Geometry {
                planes: 2,
                inner,
                input: (7, 6),
                output: (4, 3),
                kernel: (3, 3),
                stride: (2, 2),
                padding: (1, 1),
            };
            let wave = |n: usize, k: f32| -> Vec<f32> { (0..n).map(|i| (i as f32 * k).sin()).collect() };
            let (x, dy) = (wave(84 * inner, 0.37), wave(24 * inner, 0.71));
            for reduce in [Reduce::Max, Reduce::Mean] {
                let mut seen: Vec<Vec<u32>> = Vec::new();
                for_each_isa(|_| {
                    let y = forward(&g, reduce, &x);
                    let dx = backward(&g, reduce, &x, &y, &dy);
                    seen.push(y.iter().chain(&dx).map(|v| v.to_bits()).collect());
                });
                assert!(seen.iter().all(|bits| *bits == seen[0]), "{reduce:?} {inner}");
            }
        }
    }
}
