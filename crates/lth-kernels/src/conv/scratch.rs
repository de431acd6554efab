//! Buffers that are kept: a panel of half a megabyte is not asked of the system again for every task. Each thread keeps
//! its small ones; large ones are shared, so that there are as many as are used at a time and not one for each thread.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::conv::kernel::simd::Float;
use crate::parallel::on_all_threads;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Lines above which a buffer is shared: 2 MiB, more than a task's panels.
const LARGE: usize = (2 << 20) / size_of::<Line>();

/// Lines of shared buffers that are kept beside the one used last: 256 MiB.
const KEPT: usize = (256 << 20) / size_of::<Line>();

static SHARED: Mutex<Vec<Vec<Line>>> = Mutex::new(Vec::new());

/// The shared buffers that nobody uses. Locked for one search or insertion, never while anything is computed.
fn shared() -> MutexGuard<'static, Vec<Vec<Line>>> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer to hold so many lines, which it may have yet to grow to.
fn take(lines: usize) -> Vec<Line> {
    if lines <= LARGE {
        return BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    }
    let mut all = shared();
    let fits = |buffer: &Vec<Line>| (buffer.len() < lines, buffer.len());
    let best = all.iter().enumerate().min_by_key(|(_, buffer)| fits(buffer)).map(|(at, _)| at);
    best.map(|at| all.swap_remove(at)).unwrap_or_default()
}

fn give_back(buffer: Vec<Line>) {
    if buffer.len() <= LARGE {
        return BUFFERS.with_borrow_mut(|all| all.push(buffer));
    }
    let mut all = shared();
    // Of the others, those that are too much leave.
    let mut left = KEPT;
    let (kept, dropped): (Vec<_>, Vec<_>) = std::mem::take(&mut *all).into_iter().partition(|other| {
        let fits = other.len() <= left;
        left -= if fits { other.len() } else { 0 };
        fits
    });
    *all = kept;
    all.push(buffer);
    drop(all);
    drop(dropped);
}

/// Runs `work` with two buffers of at least the given numbers of elements, aligned to 64 bytes, contents unspecified.
pub(crate) fn with_buffers<T: Float, R>(first: usize, second: usize, work: impl FnOnce(&mut [T], &mut [T]) -> R) -> R {
    let (mut a, mut b) = (take(n_lines::<T>(first)), take(n_lines::<T>(second)));
    let result = work(as_numbers(&mut a, first), as_numbers(&mut b, second));
    give_back(b);
    give_back(a);
    result
}

/// The lines that hold `len` numbers.
fn n_lines<T>(len: usize) -> usize {
    (len * size_of::<T>()).div_ceil(size_of::<Line>())
}

fn as_numbers<T: Float>(lines: &mut Vec<Line>, len: usize) -> &mut [T] {
    let needed = n_lines::<T>(len);
    if lines.len() < needed {
        // What was in the smaller one is nobody's: it goes first, and is not copied.
        drop(std::mem::take(lines));
        *lines = vec![Line([0; 64]); needed];
    }
    // SAFETY: the lines are initialised, hold at least `len` numbers, are aligned to 64 bytes, and every bit pattern
    // is a valid float (`Float` is implemented for f32 and f64 alone).
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<T>(), len) }
}

/// The same memory for writers that take memory without contents.
///
/// # Safety
/// Nothing but numbers may be written to it: it must not be left without contents.
pub(crate) unsafe fn as_uninit<T: Float>(slice: &mut [T]) -> &mut [MaybeUninit<T>] {
    let (pointer, len) = (slice.as_mut_ptr().cast(), slice.len());
    // SAFETY: `MaybeUninit<T>` has the layout of T; the rest is the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(pointer, len) }
}

/// A pointer that tasks share; each writes its own part.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T);

// SAFETY: the users of `Shared` write disjoint elements from different tasks and read none that another writes.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// Of memory that the tasks write before anyone reads it.
    pub(crate) fn of_uninit(slice: &mut [MaybeUninit<T>]) -> Self {
        Self(slice.as_mut_ptr().cast())
    }

    /// Of memory that outlives the tasks.
    pub(crate) fn from_pointer(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// The pointer to element `at`, which must be inside the slice that this was made of.
    pub(crate) fn at(self, at: usize) -> *mut T {
        self.0.wrapping_add(at)
    }
}

/// Copies `len` elements; the lengths of whole vectors without a call.
///
/// # Safety
/// Both pointers have `len` elements, and they do not overlap.
#[inline(always)]
pub(crate) unsafe fn copy<T: Float>(from: *const T, to: *mut T, len: usize) {
    // SAFETY: the caller's promise; arrays of T need only T's alignment.
    unsafe {
        match len {
            16 => to.cast::<[T; 16]>().write(from.cast::<[T; 16]>().read()),
            32 => to.cast::<[T; 32]>().write(from.cast::<[T; 32]>().read()),
            8 => to.cast::<[T; 8]>().write(from.cast::<[T; 8]>().read()),
            64 => to.cast::<[T; 64]>().write(from.cast::<[T; 64]>().read()),
            _ => std::ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

/// Multiplications below which handing some of them to other threads is not worth it.
pub(crate) const ALONE: usize = 1 << 18;

/// Runs `task` for 0..n: in parallel if the multiplications in all are worth the hand-off to other threads.
pub(crate) fn for_each_task(n: usize, work: usize, task: impl Fn(usize) + Send + Sync) {
    if n < 2 || work < ALONE {
        (0..n).for_each(task);
    } else {
        on_all_threads(n, task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_take_turns_share_a_large_buffer() {
        let len = (LARGE + 1) * size_of::<Line>() / size_of::<f32>();
        let turn = || with_buffers::<f32, _>(len, 3, |large, small| large[len - 1] = small.len() as f32);
        let before = shared().len();
        for _ in 0..5 {
            std::thread::scope(|scope| scope.spawn(turn).join().map_err(drop)).expect("no panic");
        }
        // Other tests may share one meanwhile.
        assert!(shared().len() <= before + 2, "{} after {before}", shared().len());
        assert!(shared().iter().any(|buffer| buffer.len() > LARGE));
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let lines = KEPT / 2 + 1;
        // Lines without a page in memory: `vec!` of zeros asks the system for them.
        for _ in 0..4 {
            give_back(vec![Line([0; 64]); lines]);
        }
        let all: usize = shared().iter().map(Vec::len).sum();
        assert!(all <= KEPT + lines, "{all}");
        shared().retain(|buffer| buffer.len() != lines);
    }
}
