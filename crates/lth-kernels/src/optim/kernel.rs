//! Optimiser steps over slices: one pass over memory.

use super::{AdamStep, Decay, KeptPlaces, SgdStep};
use crate::bits::WORD;
use crate::compress::{compress, expand};
use crate::dispatch::multiversion;
use crate::kept::{BLOCK, n_kept};
use crate::parallel::{Shared, for_ranges};
use crate::real::Real;

/// `v` where the mask is not 0, else exactly 0, whatever `v` is.
#[inline(always)]
fn keep<T: Real, const MASKED: bool>(v: T, mask: u8) -> T {
    if MASKED && mask == 0 { T::ZERO } else { v }
}

/// `v`, or 0 if it is denormal: where a gradient stays 0, averages fall there after some hundred steps and would make
/// each further step take several times as long.
#[inline(always)]
fn flushed<T: Real>(v: T) -> T {
    let neg_min = T::ZERO - T::MIN_POSITIVE;
    if v < T::MIN_POSITIVE && v > neg_min { T::ZERO } else { v }
}

/// What the parameter is multiplied with, and its share in the gradient.
fn shrink_and_pull(lr: f64, weight_decay: f64, decay: Decay) -> (f64, f64) {
    match decay {
        Decay::Decoupled => (1.0 - lr * weight_decay, 0.0),
        Decay::Coupled => (1.0, weight_decay),
    }
}

/// The constants of a step of Adam.
#[derive(Clone, Copy)]
struct Adam<T> {
    shrink: T,
    /// Share of the parameter in the gradient.
    pull: T,
    beta1: T,
    rest1: T,
    beta2: T,
    rest2: T,
    /// One over the bias correction of `v`.
    correct2: T,
    eps: T,
    /// Learning rate over the bias correction of `m`.
    rate: T,
}

multiversion! {
    fn adam_range[T: Real, const MASKED: bool][T, MASKED](
        p: &mut [T], m: &mut [T], v: &mut [T], grad: &[T], mask: &[u8], k: Adam<T>,
    ) {
        let n = p.len();
        let (m, v, grad, mask) = (&mut m[..n], &mut v[..n], &grad[..n], &mask[..if MASKED { n } else { 0 }]);
        for i in 0..n {
            let bit = if MASKED { mask[i] } else { 1 };
            let g = grad[i] + k.pull * p[i];
            let average = flushed(k.beta1 * m[i] + k.rest1 * g);
            let square = flushed(k.beta2 * v[i] + k.rest2 * (g * g));
            let root = (square * k.correct2).root() + k.eps;
            m[i] = keep::<T, MASKED>(average, bit);
            v[i] = keep::<T, MASKED>(square, bit);
            p[i] = keep::<T, MASKED>(p[i] * k.shrink - k.rate * average / root, bit);
        }
    }
}

impl<T: Real> Adam<T> {
    fn new(step: &AdamStep) -> Self {
        let AdamStep { lr, beta1, beta2, eps, weight_decay, decay, step } = *step;
        let (shrink, pull) = shrink_and_pull(lr, weight_decay, decay);
        let power = i32::try_from(step).unwrap_or(i32::MAX);
        Self {
            shrink: T::of(shrink),
            pull: T::of(pull),
            beta1: T::of(beta1),
            rest1: T::of(1.0 - beta1),
            beta2: T::of(beta2),
            rest2: T::of(1.0 - beta2),
            correct2: T::of(1.0 / (1.0 - beta2.powi(power))),
            eps: T::of(eps),
            rate: T::of(lr / (1.0 - beta1.powi(power))),
        }
    }
}

/// One step of Adam over `[p, m, v]`.
pub(super) fn adam<T: Real>([p, m, v]: [&mut [T]; 3], grad: &[T], mask: Option<&[u8]>, step: &AdamStep) {
    let k = Adam::new(step);
    let len = p.len();
    let (p, m, v) = (Shared::new(p), Shared::new(m), Shared::new(v));
    for_ranges(len, |at| {
        // SAFETY: the ranges are disjoint.
        let (p, m, v) = unsafe { (p.part(at.clone()), m.part(at.clone()), v.part(at.clone())) };
        match mask {
            Some(mask) => adam_range::<T, true>(p, m, v, &grad[at.clone()], &mask[at], k),
            None => adam_range::<T, false>(p, m, v, &grad[at], &[], k),
        }
    });
}

/// The same with averages of the kept values alone.
pub(super) fn adam_kept<T: Real>([p, m, v]: [&mut [T]; 3], grad: &[T], places: &KeptPlaces, step: &AdamStep) {
    let k = Adam::new(step);
    for_kept(p, [m, v], grad, places, |p, [m, v], grad| adam_range::<T, false>(p, m, v, grad, &[], k));
}

/// Runs `step` over the kept values of `p`, with their averages and their gradients; all others become exactly 0. `grad` is of all
/// values, or of the kept ones.
fn for_kept<T: Real, const N: usize>(
    p: &mut [T],
    averages: [&mut [T]; N],
    grad: &[T],
    places: &KeptPlaces,
    step: impl Fn(&mut [T], [&mut [T]; N], &[T]) + Sync + Send,
) {
    let (len, is_kept) = (p.len(), grad.len() == places.n_kept());
    let (p, averages) = (Shared::new(p), averages.map(Shared::new));
    for_ranges(len, |at| {
        // SAFETY: the ranges are disjoint.
        let p = unsafe { p.part(at.clone()) };
        let mut first = places.range(at.start).start;
        let (mut values, mut gradients) = ([T::ZERO; BLOCK], [T::ZERO; BLOCK]);
        let words = places.words_of(at.start).chunks(BLOCK / WORD);
        for (start, (words, p)) in (at.start..).step_by(BLOCK).zip(words.zip(p.chunks_mut(BLOCK))) {
            let n_kept = n_kept(words);
            let values = &mut values[..n_kept];
            compress(words, p, values);
            let gradients = if is_kept {
                &grad[first..first + n_kept]
            } else {
                compress(words, &grad[start..start + p.len()], &mut gradients[..n_kept]);
                &gradients[..n_kept]
            };
            // SAFETY: the averages of the kept values of disjoint ranges.
            let of_block = averages.each_ref().map(|average| unsafe { average.part(first..first + n_kept) });
            step(values, of_block, gradients);
            expand(words, values, p);
            first += n_kept;
        }
    });
}

/// The constants of a step of SGD.
#[derive(Clone, Copy)]
struct Sgd<T> {
    shrink: T,
    /// Share of the parameter in the gradient.
    pull: T,
    momentum: T,
    lr: T,
    nesterov: bool,
}

multiversion! {
    fn sgd_range[T: Real, const MASKED: bool][T, MASKED](
        p: &mut [T], buf: &mut [T], grad: &[T], mask: &[u8], k: Sgd<T>,
    ) {
        let n = p.len();
        let (buf, grad, mask) = (&mut buf[..n], &grad[..n], &mask[..if MASKED { n } else { 0 }]);
        for i in 0..n {
            let bit = if MASKED { mask[i] } else { 1 };
            let g = grad[i] + k.pull * p[i];
            let b = flushed(k.momentum * buf[i] + g);
            let direction = if k.nesterov { g + k.momentum * b } else { b };
            buf[i] = keep::<T, MASKED>(b, bit);
            p[i] = keep::<T, MASKED>(p[i] * k.shrink - k.lr * direction, bit);
        }
    }
}

impl<T: Real> Sgd<T> {
    fn new(step: &SgdStep) -> Self {
        let SgdStep { lr, momentum, weight_decay, decay, nesterov } = *step;
        let (shrink, pull) = shrink_and_pull(lr, weight_decay, decay);
        Self { shrink: T::of(shrink), pull: T::of(pull), momentum: T::of(momentum), lr: T::of(lr), nesterov }
    }
}

/// One step of SGD over `[p, buf]`.
pub(super) fn sgd<T: Real>([p, buf]: [&mut [T]; 2], grad: &[T], mask: Option<&[u8]>, step: &SgdStep) {
    let k = Sgd::new(step);
    let len = p.len();
    let (p, buf) = (Shared::new(p), Shared::new(buf));
    for_ranges(len, |at| {
        // SAFETY: the ranges are disjoint.
        let (p, buf) = unsafe { (p.part(at.clone()), buf.part(at.clone())) };
        match mask {
            Some(mask) => sgd_range::<T, true>(p, buf, &grad[at.clone()], &mask[at], k),
            None => sgd_range::<T, false>(p, buf, &grad[at], &[], k),
        }
    });
}

/// The same with a buffer of the kept values alone.
pub(super) fn sgd_kept<T: Real>([p, buf]: [&mut [T]; 2], grad: &[T], places: &KeptPlaces, step: &SgdStep) {
    let k = Sgd::new(step);
    for_kept(p, [buf], grad, places, |p, [buf], grad| sgd_range::<T, false>(p, buf, grad, &[], k));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::tests::for_each_isa;

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let wave = |k: f32| -> Vec<f32> { (0..1003).map(|i| (i as f32 * k).sin()).collect() };
        let mask: Vec<u8> = (0..1003).map(|i| u8::from(i % 7 != 0)).collect();
        let decay = Decay::Coupled;
        let adam_step = AdamStep { lr: 1e-3, beta1: 0.9, beta2: 0.99, eps: 1e-5, weight_decay: 0.01, decay, step: 3 };
        let sgd_step = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 0.01, decay, nesterov: true };
        let mut seen: Vec<Vec<u32>> = Vec::new();
        for_each_isa(|_| {
            let (mut p, mut m) = (wave(0.3), wave(0.7));
            let mut v: Vec<f32> = wave(0.9).iter().map(|v| v * v).collect();
            adam([&mut p, &mut m, &mut v], &wave(1.1), Some(&mask), &adam_step);
            sgd([&mut p, &mut m], &wave(1.3), None, &sgd_step);
            seen.push([p, m, v].concat().iter().map(|v| v.to_bits()).collect());
        });
        assert!(seen.iter().all(|bits| *bits == seen[0]));
    }
}
