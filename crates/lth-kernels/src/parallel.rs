//! Work in pieces that depend on sizes only, and buffers that several pieces write to.

use crate::forced::Forced;
use rayon::Yield;
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Elements below which waking a thread costs more than it saves: 64 Ki elements are some 20 µs.
const ALONE: usize = 1 << 16;

/// Elements of one piece of an element-wise loop: large against a hand-off, small against a cache.
pub(crate) const PIECE: usize = 1 << 14;

/// How long a thread looks for more work before it goes to sleep. Waking it takes some 50 µs, as long as many an operator,
/// and a pass has a hundred of them; between two there is less than this.
const AWAKE: Duration = Duration::from_micros(200);

/// Looks that a thread takes before it lets others have the core, if any want it.
const LOOKS: u32 = 64;

/// Runs `work`, a series of operators, on one of rayon's threads; where there is but one, on the caller's.
///
/// Called from outside, every operator would wake rayon's threads and put its own to sleep until they are done; here that
/// happens once, and not at all where the caller's thread is one of rayon's
/// (`ThreadPoolBuilder::new().use_current_thread().build_global()`). Results do not depend on it.
/// [`backward`](crate::backward) and the networks of `lth-nn` do so themselves.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let forced = Forced::get();
    if rayon::current_thread_index().is_some() || rayon::current_num_threads() == 1 {
        return forced.run(work);
    }
    let is_done = AtomicBool::new(false);
    let mut result = None;
    rayon::in_place_scope(|scope| {
        scope.spawn(|_| {
            result = Some(forced.run(work));
            is_done.store(true, Ordering::Release);
            stay_awake();
        });
        look_for_work(|| is_done.load(Ordering::Acquire));
    });
    match result {
        Some(result) => result,
        None => unreachable!("a scope ends when its work has, or panics as that did"),
    }
}

/// Runs `task` for 0 to `n`, on rayon's threads if the `work` (elements touched) is worth it.
pub(crate) fn for_each(n: usize, work: usize, task: impl Fn(usize) + Sync + Send) {
    if n <= 1 || work < ALONE {
        (0..n).for_each(task);
    } else {
        on_all_threads(n, task);
    }
}

/// Runs `task` for 0 to `n` on rayon's threads. Each begins with a share of its own, the same in every loop, and then helps with
/// the others': what one operator leaves in a core's cache the next one finds there.
pub(crate) fn on_all_threads(n: usize, task: impl Fn(usize) + Sync + Send) {
    let n_others = rayon::current_num_threads().min(n).saturating_sub(1);
    if n_others == 0 {
        return (0..n).for_each(task);
    }
    let n_busy = AtomicUsize::new(n_others);
    let n_shares = n_others + 1;
    let start_of = |share: usize| share * n / n_shares;
    let next: Vec<AtomicUsize> = (0..n_shares).map(|share| AtomicUsize::new(start_of(share))).collect();
    let take = || {
        let own = rayon::current_thread_index().unwrap_or(0);
        for share in (own..own + n_shares).map(|share| share % n_shares) {
            let in_share = || Some(next[share].fetch_add(1, Ordering::Relaxed)).filter(|&at| at < start_of(share + 1));
            std::iter::from_fn(in_share).for_each(&task);
        }
    };
    rayon::scope(|scope| {
        for _ in 0..n_others {
            scope.spawn(|_| {
                take();
                n_busy.fetch_sub(1, Ordering::Release);
                stay_awake();
            });
        }
        take();
        // The others are about to end: rayon would soon put this thread to sleep.
        look_for_work(|| n_busy.load(Ordering::Acquire) == 0);
    });
}

/// Has this thread of rayon's look for work for a while before it sleeps.
fn stay_awake() {
    thread_local! {
        static IS_AWAKE: Cell<bool> = const { Cell::new(false) };
    }
    let Some(this) = rayon::current_thread_index().filter(|_| !IS_AWAKE.get()) else { return };
    rayon::spawn(move || {
        // Another thread, which waits for something, has taken it: that one has work.
        if rayon::current_thread_index() == Some(this) && !IS_AWAKE.replace(true) {
            look_for_work(|| false);
            IS_AWAKE.set(false);
        }
    });
}

/// Does what rayon's other threads have to give, if this is one of them, until `is_enough` or there has been nothing for as
/// long as [`AWAKE`].
fn look_for_work(is_enough: impl Fn() -> bool) {
    let mut idle_since = Instant::now();
    let mut n_looks = 0u32;
    while !is_enough() && idle_since.elapsed() < AWAKE {
        match rayon::yield_now() {
            Some(Yield::Executed) => idle_since = Instant::now(),
            _ => {
                n_looks = n_looks.wrapping_add(1);
                if n_looks.is_multiple_of(LOOKS) {
                    std::thread::yield_now();
                } else {
                    std::hint::spin_loop();
                }
            }
        }
    }
}

/// Runs `task` for ranges that cover 0 to `len`, each of [`PIECE`] elements but the last.
pub(crate) fn for_ranges(len: usize, task: impl Fn(Range<usize>) + Sync + Send) {
    for_each(len.div_ceil(PIECE), len, |i| task(i * PIECE..len.min((i + 1) * PIECE)));
}

/// Whether `is_so` for all ranges of [`for_ranges`]; once one is not, the others may be left out.
pub(crate) fn all_ranges(len: usize, is_so: impl Fn(Range<usize>) -> bool + Sync + Send) -> bool {
    let are_so = AtomicBool::new(true);
    for_ranges(len, |at| {
        if are_so.load(Ordering::Relaxed) && !is_so(at) {
            are_so.store(false, Ordering::Relaxed);
        }
    });
    are_so.into_inner()
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

    fn pool(n_threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads")
    }

    /// From outside, from one of its threads, from two at once, and inside itself.
    #[test]
    fn every_task_is_done_once_on_any_number_of_threads() {
        let counts = |n: usize| -> Vec<AtomicUsize> { (0..n).map(|_| AtomicUsize::new(0)).collect() };
        let all_once = |seen: &[AtomicUsize]| seen.iter().all(|n| n.load(Relaxed) == 1);
        for n_threads in [1, 2, 3, 8] {
            let pool = pool(n_threads);
            for n in [1, 2, 7, 100] {
                let seen = counts(n * n);
                let rows =
                    || on_all_threads(n, |row| on_all_threads(n, |at| _ = seen[row * n + at].fetch_add(1, Relaxed)));
                pool.install(rows);
                assert!(all_once(&seen), "{n} on {n_threads}");
                let (one, other) = (counts(n), counts(n));
                let run = |seen: &[AtomicUsize]| on_all_threads(n, |at| _ = seen[at].fetch_add(1, Relaxed));
                pool.install(|| rayon::join(|| run(&one), || run(&other)));
                assert!(all_once(&one) && all_once(&other), "{n} on {n_threads}");
            }
        }
        let seen = counts(100);
        on_all_threads(100, |at| _ = seen[at].fetch_add(1, Relaxed));
        assert!(all_once(&seen));
    }

    #[test]
    fn a_panic_comes_to_who_asked_and_the_threads_go_on() {
        let pool = pool(3);
        let broken = || pool.install(|| on_all_threads(50, |at| assert!(at != 17, "seventeen")));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(broken)).is_err());
        let n = AtomicUsize::new(0);
        pool.install(|| on_all_threads(50, |_| _ = n.fetch_add(1, Relaxed)));
        assert_eq!(n.into_inner(), 50);
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
