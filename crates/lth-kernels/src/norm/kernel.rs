//! Batch norm over slices: one channel at a time, so that a channel is read from memory once and
//! found in the cache by every later pass over it.

use crate::dispatch::multiversion;
use crate::memory::{AHEAD, prefetch};
use crate::parallel::{Blank, Shared, filled, for_each, zeroed};
use crate::pool::{Geometry, max_plane, max_plane_gradient};
use crate::real::Real;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Independent sums: two AVX-512 registers of f32, enough to hide an addition's latency, and the
/// same on every instruction set, so that sums are the same bits.
const LANES: usize = 32;

/// Elements summed in one go in the element type; sums of blocks are added in f64. Fits into L1.
const BLOCK: usize = 4096;

/// Where the values of a channel lie: `slabs` runs of `run` values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) channels: usize,
    pub(super) slabs: usize,
    pub(super) run: usize,
    /// From a slab to the next.
    pub(super) slab_step: usize,
    /// From a channel to the next.
    pub(super) channel_step: usize,
}

impl Place {
    /// For a tensor of shape `dims` with channels at `axis`.
    pub(super) fn new(dims: &[usize], axis: usize) -> Place {
        let run = dims[axis + 1..].iter().product();
        let slabs = dims[..axis].iter().product();
        let channels = dims[axis];
        Place { channels, slabs, run, slab_step: channels * run, channel_step: run }
    }

    pub(super) fn len(&self) -> usize {
        self.channels * self.slabs * self.run
    }

    /// Values per channel.
    pub(super) fn values(&self) -> usize {
        self.slabs * self.run
    }

    /// Whether a channel's values lie in runs so short that the sums of a run cost more than its values: as in [N, C].
    fn is_scattered(&self) -> bool {
        self.slabs > 1 && self.run < LANES
    }

    /// A channel's values side by side.
    fn gather<T: Copy>(&self, x: &[T], channel: usize) -> Vec<T> {
        (0..self.slabs).flat_map(|slab| x[self.slab(channel, slab)].iter().copied()).collect()
    }

    /// The way back.
    ///
    /// # Safety
    /// The channel's slabs of `to` are nobody else's.
    unsafe fn scatter<T: Copy>(&self, values: &[MaybeUninit<T>], channel: usize, to: &Blank<'_, T>) {
        for (slab, values) in values.chunks_exact(self.run.max(1)).enumerate() {
            // SAFETY: the caller's promise; slabs are disjoint.
            unsafe { to.part(self.slab(channel, slab)) }.copy_from_slice(values);
        }
    }

    /// Of `values` values for each slab of each channel, those of one slab.
    fn plane(&self, channel: usize, slab: usize, values: usize) -> Range<usize> {
        let plane = slab * self.channels + channel;
        plane * values..(plane + 1) * values
    }

    fn slab(&self, channel: usize, slab: usize) -> Range<usize> {
        let start = channel * self.channel_step + slab * self.slab_step;
        start..start + self.run
    }
}

/// Mean and sum of squared differences from it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moments {
    n: f64,
    pub(super) mean: f64,
    pub(super) squares: f64,
}

impl Moments {
    /// Those of both sets of values together (Chan, Golub and LeVeque 1979).
    #[inline(always)]
    fn join(self, other: Moments) -> Moments {
        if self.n == 0.0 {
            return other;
        }
        let n = self.n + other.n;
        let delta = other.mean - self.mean;
        Moments {
            n,
            mean: self.mean + delta * other.n / n,
            squares: self.squares + other.squares + delta * delta * self.n * other.n / n,
        }
    }
}

#[inline(always)]
fn total<T: Real>(lanes: [T; LANES]) -> f64 {
    let mut sum = 0.0;
    for lane in lanes {
        sum += lane.wide();
    }
    sum
}

multiversion! {
    /// Moments of a run. Each block is shifted by (about) its own mean first, so that nothing
    /// cancels, whatever the mean.
    fn moments[T: Real][T](x: &[T]) -> Moments {
        let mut all = Moments::default();
        for block in x.chunks(BLOCK) {
            let n = block.len() as f64;
            let (chunks, rest) = block.as_chunks::<LANES>();
            let mut sums = [T::ZERO; LANES];
            for chunk in chunks {
                for (sum, &v) in sums.iter_mut().zip(chunk) {
                    *sum += v;
                }
            }
            for (sum, &v) in sums.iter_mut().zip(rest) {
                *sum += v;
            }
            let shift = T::of(total(sums) / n);
            let (mut sums, mut squares) = ([T::ZERO; LANES], [T::ZERO; LANES]);
            for chunk in chunks {
                // This block is in L1; the next one would be waited for.
                prefetch(chunk.as_ptr().wrapping_add(BLOCK), LANES);
                for ((sum, square), &v) in sums.iter_mut().zip(&mut squares).zip(chunk) {
                    let d = v - shift;
                    *sum += d;
                    *square += d * d;
                }
            }
            for ((sum, square), &v) in sums.iter_mut().zip(&mut squares).zip(rest) {
                let d = v - shift;
                *sum += d;
                *square += d * d;
            }
            let (sum, square) = (total(sums), total(squares));
            if !(shift.wide().is_finite() && sum.is_finite() && square.is_finite()) {
                all = all.join(wide_moments(block));
                continue;
            }
            let squares = (square - sum * sum / n).max(0.0);
            all = all.join(Moments { n, mean: shift.wide() + sum / n, squares });
        }
        all
    }
}

/// Moments of a block whose squares leave the element type, as those of 2e19 leave f32; NaN where a value is no number.
#[cold]
#[inline(never)]
fn wide_moments<T: Real>(block: &[T]) -> Moments {
    let n = block.len() as f64;
    let mean = block.iter().map(|v| v.wide()).sum::<f64>() / n;
    let squares = block.iter().map(|v| (v.wide() - mean) * (v.wide() - mean)).sum();
    Moments { n, mean, squares }
}

/// What is done to a channel: `y = (x - mean) * scale + bias`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affine<T> {
    pub(super) mean: T,
    pub(super) scale: T,
    pub(super) bias: T,
}

impl<T: Real> Affine<T> {
    #[inline(always)]
    fn at(self, x: T) -> T {
        (x - self.mean) * self.scale + self.bias
    }
}

/// `max(v, 0)`; NaN stays.
#[inline(always)]
fn rectify<T: Real, const RELU: bool>(v: T) -> T {
    if RELU && v < T::ZERO { T::ZERO } else { v }
}

multiversion! {
    fn apply[T: Real, const RELU: bool][T, RELU](
        x: &[T], a: Affine<T>, y: &mut [MaybeUninit<T>],
    ) {
        for (&x, y) in x.iter().zip(y) {
            y.write(rectify::<T, RELU>(a.at(x)));
        }
    }
}

multiversion! {
    fn apply_add[T: Real, const RELU: bool][T, RELU](
        x: &[T], residual: &[T], a: Affine<T>, y: &mut [MaybeUninit<T>],
    ) {
        for ((&x, &r), y) in x.iter().zip(residual).zip(y) {
            y.write(rectify::<T, RELU>(a.at(x) + r));
        }
    }
}

fn apply_any<T: Real>(x: &[T], residual: Option<&[T]>, relu: bool, a: Affine<T>, y: &mut [MaybeUninit<T>]) {
    match (residual, relu) {
        (None, false) => apply::<T, false>(x, a, y),
        (None, true) => apply::<T, true>(x, a, y),
        (Some(r), false) => apply_add::<T, false>(x, r, a, y),
        (Some(r), true) => apply_add::<T, true>(x, r, a, y),
    }
}

/// [`apply_any`] into memory of its own.
fn normalised<T: Real>(x: &[T], residual: Option<&[T]>, relu: bool, a: Affine<T>) -> Vec<T> {
    // SAFETY: all of it is written.
    unsafe { filled(x.len(), |y| apply_any(x, residual, relu, a, y.part(0..x.len()))) }
}

/// What follows the normalisation, in this order.
#[derive(Clone, Copy)]
pub(super) struct After<'a, T> {
    pub(super) residual: Option<&'a [T]>,
    pub(super) relu: bool,
    /// A max pool over each slab: what it reads stays in the cache.
    pub(super) pool: Option<&'a Geometry>,
}

/// The forward pass: the output and each channel's moments. `affine` turns a channel and its
/// moments into what is done to it; `measure` says whether moments are wanted (else zeros).
pub(super) fn forward<T: Real>(
    place: &Place,
    x: &[T],
    After { residual, relu, pool }: After<'_, T>,
    measure: bool,
    affine: impl Fn(usize, Moments) -> Affine<T> + Sync,
) -> (Vec<T>, Vec<Moments>) {
    let len = pool.map_or(place.len(), |pool| pool.planes * pool.plane_out());
    let mut found = vec![Moments::default(); place.channels];
    let moments_out = Shared::new(&mut found);
    let fill = |out: &Blank<'_, T>| {
        for_each(place.channels, place.len(), |c| {
            if place.is_scattered() && pool.is_none() {
                let (x, residual) = (place.gather(x, c), residual.map(|residual| place.gather(residual, c)));
                let m = if measure { moments(&x) } else { Moments::default() };
                // SAFETY: each channel is handled by one call.
                unsafe { moments_out.set(c, m) };
                let mut y = vec![MaybeUninit::uninit(); x.len()];
                apply_any(&x, residual.as_deref(), relu, affine(c, m), &mut y);
                // SAFETY: as above.
                unsafe { place.scatter(&y, c, out) };
                return;
            }
            let mut m = Moments::default();
            if measure {
                for s in 0..place.slabs {
                    m = m.join(moments(&x[place.slab(c, s)]));
                }
            }
            // SAFETY: each channel is handled by one call.
            unsafe { moments_out.set(c, m) };
            let a = affine(c, m);
            for s in 0..place.slabs {
                let at = place.slab(c, s);
                let (x, residual) = (&x[at.clone()], residual.map(|residual| &residual[at.clone()]));
                match pool {
                    // SAFETY: slabs are disjoint.
                    None => apply_any(x, residual, relu, a, unsafe { out.part(at) }),
                    Some(pool) => {
                        let y = normalised(x, residual, relu, a);
                        // SAFETY: planes are disjoint.
                        max_plane(pool, &y, unsafe { out.part(place.plane(c, s, pool.plane_out())) });
                    }
                }
            }
        });
    };
    // SAFETY: slabs of all channels cover the tensor, and so do their planes.
    let y = unsafe { filled(len, fill) };
    (y, found)
}

/// How backward knows where the rectifier was open.
#[derive(Clone, Copy)]
pub(super) enum Gate<'a, T> {
    /// No rectifier.
    Open,
    /// From the input: without a residual the forward pass is cheaper to repeat than its output
    /// is to read.
    Input,
    /// From the output's sign.
    Output(&'a [T]),
}

const OPEN: u8 = 0;
const INPUT: u8 = 1;

/// The output's gradient behind the rectifier. `y` is read with `OUTPUT` gates only.
#[inline(always)]
fn gated<T: Real, const GATE: u8>(dy: T, x: T, y: T, a: Affine<T>) -> T {
    let open = match GATE {
        OPEN => true,
        INPUT => a.at(x) > T::ZERO,
        _ => y > T::ZERO,
    };
    if open { dy } else { T::ZERO }
}

multiversion! {
    /// Sums of the gated gradient and of its product with `x - mean`.
    fn sums[T: Real, const GATE: u8][T, GATE](
        dy: &[T], x: &[T], y: &[T], a: Affine<T>,
    ) -> (f64, f64) {
        let mut all = (0.0, 0.0);
        for ((dy, x), y) in dy.chunks(BLOCK).zip(x.chunks(BLOCK)).zip(y.chunks(BLOCK)) {
            let (mut plain, mut product) = ([T::ZERO; LANES], [T::ZERO; LANES]);
            let (dys, dy) = dy.as_chunks::<LANES>();
            let (xs, x) = x.as_chunks::<LANES>();
            let (ys, y) = y.as_chunks::<LANES>();
            for ((dy, x), y) in dys.iter().zip(xs).zip(ys) {
                prefetch(dy.as_ptr().wrapping_add(AHEAD), LANES);
                prefetch(x.as_ptr().wrapping_add(AHEAD), LANES);
                for l in 0..LANES {
                    let g = gated::<T, GATE>(dy[l], x[l], y[l], a);
                    plain[l] += g;
                    product[l] += g * (x[l] - a.mean);
                }
            }
            for l in 0..dy.len() {
                let g = gated::<T, GATE>(dy[l], x[l], y[l], a);
                plain[l] += g;
                product[l] += g * (x[l] - a.mean);
            }
            all.0 += total(plain);
            all.1 += total(product);
        }
        all
    }
}

/// `dx = gated * scale - (x - mean) * slope - offset`.
#[derive(Clone, Copy)]
struct Pull<T> {
    slope: T,
    offset: T,
}

multiversion! {
    fn pull_input[T: Real, const GATE: u8][T, GATE](
        dy: &[T], x: &[T], y: &[T], a: Affine<T>, p: Pull<T>, dx: &mut [MaybeUninit<T>],
    ) {
        for (((&dy, &x), &y), dx) in dy.iter().zip(x).zip(y).zip(dx) {
            let g = gated::<T, GATE>(dy, x, y, a);
            dx.write(g * a.scale - ((x - a.mean) * p.slope + p.offset));
        }
    }
}

multiversion! {
    fn pull_residual[T: Real, const GATE: u8][T, GATE](
        dy: &[T], x: &[T], y: &[T], a: Affine<T>, dr: &mut [MaybeUninit<T>],
    ) {
        for (((&dy, &x), &y), dr) in dy.iter().zip(x).zip(y).zip(dr) {
            dr.write(gated::<T, GATE>(dy, x, y, a));
        }
    }
}

multiversion! {
    fn pull_both[T: Real, const GATE: u8][T, GATE](
        dy: &[T], x: &[T], y: &[T], a: Affine<T>, p: Pull<T>,
        dx: &mut [MaybeUninit<T>], dr: &mut [MaybeUninit<T>],
    ) {
        for ((((&dy, &x), &y), dx), dr) in dy.iter().zip(x).zip(y).zip(dx).zip(dr) {
            let g = gated::<T, GATE>(dy, x, y, a);
            dr.write(g);
            dx.write(g * a.scale - ((x - a.mean) * p.slope + p.offset));
        }
    }
}

/// The gradients that are wanted, of the output's gradient, the input and the output.
fn pull_any<T: Real, const GATE: u8>(
    (dy, x, y): (&[T], &[T], &[T]),
    a: Affine<T>,
    pull: Pull<T>,
    wanted: Wanted,
    dx: &mut [MaybeUninit<T>],
    dr: &mut [MaybeUninit<T>],
) {
    match (wanted.input, wanted.residual) {
        (true, true) => pull_both::<T, GATE>(dy, x, y, a, pull, dx, dr),
        (true, false) => pull_input::<T, GATE>(dy, x, y, a, pull, dx),
        (false, true) => pull_residual::<T, GATE>(dy, x, y, a, dr),
        (false, false) => {}
    }
}

/// Which gradients are wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) input: bool,
    pub(super) affine: bool,
    pub(super) residual: bool,
}

/// The gradients; empty where not wanted.
pub(super) struct Gradients<T> {
    pub(super) input: Vec<T>,
    pub(super) residual: Vec<T>,
    /// Weights' gradients, then biases'.
    pub(super) affine: Vec<T>,
}

/// The backward pass. `affine(c)` is what forward did and the inverse deviation; `train` says
/// whether mean and variance were the batch's own, so that `x` also acts through them.
pub(super) fn backward<T: Real>(
    place: &Place,
    dy: Incoming<'_, T>,
    x: &[T],
    gate: Gate<'_, T>,
    train: bool,
    wanted: Wanted,
    affine: impl Fn(usize) -> (Affine<T>, f64) + Sync,
) -> Gradients<T> {
    match gate {
        Gate::Open => gated_backward::<T, OPEN>(place, dy, x, x, train, wanted, affine),
        Gate::Input => gated_backward::<T, INPUT>(place, dy, x, x, train, wanted, affine),
        Gate::Output(y) => gated_backward::<T, 2>(place, dy, x, y, train, wanted, affine),
    }
}

/// The gradient that comes back.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a, T> {
    pub(super) dy: &'a [T],
    /// Of a max pool, which is given with its output, or else of what it would read.
    pub(super) pool: Option<(&'a Geometry, &'a [T])>,
}

impl<T: Real> Incoming<'_, T> {
    /// Of what the max pool read in one channel, slab after slab; empty without a pool.
    fn unpooled(&self, place: &Place, c: usize, x: &[T], relu: bool, a: Affine<T>) -> Vec<T> {
        let Some((pool, largest)) = self.pool else {
            return Vec::new();
        };
        let fill = |out: &Blank<'_, T>| {
            for s in 0..place.slabs {
                let y = normalised(&x[place.slab(c, s)], None, relu, a);
                // SAFETY: the slabs are disjoint.
                let gradient = zeroed(unsafe { out.part(s * place.run..(s + 1) * place.run) }, T::ZERO);
                let at = place.plane(c, s, pool.plane_out());
                max_plane_gradient(pool, &y, &largest[at.clone()], &self.dy[at], gradient);
            }
        };
        // SAFETY: all slabs are written.
        unsafe { filled(place.values(), fill) }
    }
}

fn gated_backward<T: Real, const GATE: u8>(
    place: &Place,
    incoming: Incoming<'_, T>,
    x: &[T],
    y: &[T],
    train: bool,
    wanted: Wanted,
    affine: impl Fn(usize) -> (Affine<T>, f64) + Sync,
) -> Gradients<T> {
    let n = place.values() as f64;
    let channels = place.channels;
    let dy = incoming.dy;
    let is_pooled = incoming.pool.is_some();
    let mut of_affine = vec![T::ZERO; 2 * channels];
    let affine_out = Shared::new(&mut of_affine);
    let channel = |c: usize, dx_out: &Blank<'_, T>, dr_out: &Blank<'_, T>| {
        let (a, inv_std) = affine(c);
        let unpooled = incoming.unpooled(place, c, x, GATE != OPEN, a);
        let is_scattered = place.is_scattered() && !is_pooled;
        let scattered = is_scattered.then(|| [dy, x, y].map(|values| place.gather(values, c)));
        // What is summed and written at once: the gathered channel, or each slab of it.
        let n_pieces = if scattered.is_some() { 1 } else { place.slabs };
        let piece = |s: usize| match &scattered {
            Some([dy, x, y]) => (&dy[..], &x[..], &y[..]),
            None => {
                let dy = if is_pooled { &unpooled[s * place.run..][..place.run] } else { &dy[place.slab(c, s)] };
                (dy, &x[place.slab(c, s)], &y[place.slab(c, s)])
            }
        };
        let (mut plain, mut product) = (0.0, 0.0);
        if wanted.affine || (wanted.input && train) {
            for s in 0..n_pieces {
                let (dy, x, y) = piece(s);
                let part = sums::<T, GATE>(dy, x, y, a);
                plain += part.0;
                product += part.1;
            }
            // SAFETY: each channel is handled by one call.
            unsafe {
                affine_out.set(c, T::of(product * inv_std));
                affine_out.set(channels + c, T::of(plain));
            }
        }
        if !wanted.input && !wanted.residual {
            return;
        }
        let scale = a.scale.wide();
        let pull = if train {
            Pull { slope: T::of(scale * inv_std * inv_std * product / n), offset: T::of(scale * plain / n) }
        } else {
            Pull { slope: T::ZERO, offset: T::ZERO }
        };
        if scattered.is_some() {
            let (dy, x, y) = piece(0);
            let blank = |wanted: bool| vec![MaybeUninit::uninit(); if wanted { x.len() } else { 0 }];
            let (mut dx, mut dr) = (blank(wanted.input), blank(wanted.residual));
            pull_any::<T, GATE>((dy, x, y), a, pull, wanted, &mut dx, &mut dr);
            // SAFETY: each channel is handled by one call; what is not wanted is empty.
            unsafe {
                place.scatter(&dx, c, dx_out);
                place.scatter(&dr, c, dr_out);
            }
            return;
        }
        for s in 0..place.slabs {
            let of = |wanted: bool| if wanted { place.slab(c, s) } else { 0..0 };
            // SAFETY: slabs are disjoint.
            let (dx, dr) = unsafe { (dx_out.part(of(wanted.input)), dr_out.part(of(wanted.residual))) };
            pull_any::<T, GATE>(piece(s), a, pull, wanted, dx, dr);
        }
    };
    let mut residual = Vec::new();
    let fill = |dx_out: &Blank<'_, T>| {
        let fill = |dr_out: &Blank<'_, T>| {
            for_each(channels, place.len(), |c| channel(c, dx_out, dr_out));
        };
        // SAFETY: slabs of all channels cover the residual, if its gradient is wanted.
        residual = unsafe { filled(if wanted.residual { place.len() } else { 0 }, fill) };
    };
    // SAFETY: slabs of all channels cover the input, if its gradient is wanted.
    let input = unsafe { filled(if wanted.input { place.len() } else { 0 }, fill) };
    Gradients { input, residual, affine: of_affine }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests::for_each_isa;

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let place = Place { channels: 2, slabs: 3, run: 37, slab_step: 74, channel_step: 37 };
        let wave = |k: f32| -> Vec<f32> { (0..222).map(|i| (i as f32 * k).sin()).collect() };
        let (x, dy, r) = (wave(0.37), wave(0.71), wave(1.3));
        let mut seen: Vec<Vec<u32>> = Vec::new();
        for_each_isa(|_| {
            let a = |_, m: Moments| Affine { mean: m.mean as f32, scale: 1.5, bias: 0.1 };
            let (y, m) = forward(&place, &x, After { residual: Some(&r), relu: true, pool: None }, true, a);
            let a = |c: usize| (Affine { mean: m[c].mean as f32, scale: 1.5, bias: 0.1 }, 1.2);
            let wanted = Wanted { input: true, affine: true, residual: true };
            let g = backward(&place, Incoming { dy: &dy, pool: None }, &x, Gate::Output(&y), true, wanted, a);
            let all = [y, g.input, g.residual, g.affine].concat();
            seen.push(all.iter().map(|v| v.to_bits()).collect());
        });
        assert!(seen.iter().all(|bits| *bits == seen[0]));
    }

    #[test]
    fn moments_of_parts_join_to_those_of_the_whole() {
        let x: Vec<f64> = (0..9999).map(|i| (i as f64).sin() + 1e6).collect();
        let m = moments(&x);
        let mean = x.iter().sum::<f64>() / 9999.0;
        let squares: f64 = x.iter().map(|v| (v - mean).powi(2)).sum();
        assert!((m.mean / mean - 1.0).abs() < 1e-14);
        assert!((m.squares / squares - 1.0).abs() < 1e-9);
    }
}
