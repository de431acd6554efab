//! Work in pieces that depend on sizes only, and buffers that several pieces write to.

use crate::forced::Forced;
use rayon::prelude::*;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Elements below which waking a thread costs more than it saves: 64 Ki elements are some 20 µs.
const ALONE: usize = 1 << 16;

/// Elements of one piece of an element-wise loop: large against a hand-off, small against a cache.
pub(crate) const PIECE: usize = 1 << 14;

/// Runs `work`, a series of operators, on one of rayon's threads.
///
/// Called from outside, every operator would wake rayon's threads and put its own to sleep until they are done; here that
/// happens once. Results do not depend on it. [`backward`](crate::backward) and the networks of `lth-nn` do so
/// themselves.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let forced = Forced::get();
    rayon::scope(|_| forced.run(work))
}

/// Runs `task` for 0 to `n`, on rayon's threads if the `work` (elements touched) is worth it.
pub(crate) fn for_each(n: usize, work: usize, task: impl Fn(usize) + Sync + Send) {
    if n <= 1 || work < ALONE || rayon::current_num_threads() == 1 {
        (0..n).for_each(task);
    } else {
        (0..n).into_par_iter().for_each(task);
    }
}

/// Runs `task` for ranges that cover 0 to `len`, each of [`PIECE`] elements but the last.
pub(crate) fn for_ranges(len: usize, task: impl Fn(Range<usize>) + Sync + Send) {
    for_each(len.div_ceil(PIECE), len, |i| task(i * PIECE..len.min((i + 1) * PIECE)));
}

/// A buffer that several threads write to, each its own part.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are only handed out by `part`, whose caller promises that no two overlap, so
// sharing this is as good as sending disjoint `&mut [T]`.
unsafe impl<T: Send> Sync for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(buffer: &'a mut [T]) -> Self {
        Shared { start: buffer.as_mut_ptr(), len: buffer.len(), lifetime: PhantomData }
    }

    /// The elements `range`.
    ///
    /// # Safety
    /// No other part that overlaps `range` may be alive.
    #[allow(clippy::mut_from_ref)] // that is the point; the caller promises disjoint ranges
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part of a buffer");
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// Writes one element.
    ///
    /// # Safety
    /// As for [`Shared::part`].
    pub(crate) unsafe fn set(&self, index: usize, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.part(index..index + 1)[0] = value };
    }
}

/// Values not yet written, for [`filled`].
pub(crate) type Blank<'a, T> = Shared<'a, MaybeUninit<T>>;

/// Zeroes `part` and returns it as written.
pub(crate) fn zeroed<T: Copy>(part: &mut [MaybeUninit<T>], zero: T) -> &mut [T] {
    for slot in &mut *part {
        slot.write(zero);
    }
    // SAFETY: all of it was written just now.
    unsafe { all_written(part) }
}

/// The same memory as values.
///
/// # Safety
/// Every element must have been written.
pub(crate) unsafe fn all_written<T>(part: &mut [MaybeUninit<T>]) -> &mut [T] {
    // SAFETY: the caller's promise.
    unsafe { &mut *(std::ptr::from_mut(part) as *mut [T]) }
}

/// A vector of `n` elements that `fill` has written, without zeroing them first.
///
/// # Safety
/// `fill` must write every element.
pub(crate) unsafe fn filled<T: Copy + Send>(n: usize, fill: impl FnOnce(&Blank<'_, T>)) -> Vec<T> {
    let mut buffer = Vec::with_capacity(n);
    fill(&Shared::new(&mut buffer.spare_capacity_mut()[..n]));
    // SAFETY: the capacity is there and the caller promises that `fill` wrote all of it.
    unsafe { buffer.set_len(n) };
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[test]
    fn ranges_cover_every_element_once() {
        for len in [0, 1, PIECE, PIECE + 1, 5 * PIECE - 1, ALONE + PIECE / 2] {
            let seen: Vec<AtomicUsize> = (0..len).map(|_| AtomicUsize::new(0)).collect();
            for_ranges(len, |range| {
                for i in range {
                    seen[i].fetch_add(1, Relaxed);
                }
            });
            assert!(seen.iter().all(|n| n.load(Relaxed) == 1), "length {len}");
        }
    }

    #[test]
    fn a_filled_vector_holds_what_was_written() {
        let fill = |out: &Blank<'_, usize>| {
            for_ranges(3 * PIECE, |range| {
                // SAFETY: ranges are disjoint.
                let part = unsafe { out.part(range.clone()) };
                for (slot, i) in part.iter_mut().zip(range) {
                    slot.write(i);
                }
            });
        };
        // SAFETY: the ranges cover every element.
        let v = unsafe { filled(3 * PIECE, fill) };
        assert!(v.iter().enumerate().all(|(i, &x)| i == x));
    }
}
