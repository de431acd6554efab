//! Buffers that each thread keeps: a panel of half a megabyte is not asked of the system again for every task.

use std::cell::RefCell;
use std::mem::MaybeUninit;

use crate::conv::kernel::simd::Float;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with two buffers of at least the given numbers of elements, aligned to 64 bytes, contents unspecified.
pub(crate) fn with_buffers<T: Float, R>(first: usize, second: usize, work: impl FnOnce(&mut [T], &mut [T]) -> R) -> R {
    let (mut a, mut b) = BUFFERS.with_borrow_mut(|all| (all.pop().unwrap_or_default(), all.pop().unwrap_or_default()));
    let result = work(as_numbers(&mut a, first), as_numbers(&mut b, second));
    BUFFERS.with_borrow_mut(|all| {
        all.push(b);
        all.push(a);
    });
    result
}

fn as_numbers<T: Float>(lines: &mut Vec<Line>, len: usize) -> &mut [T] {
    let needed = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    if lines.len() < needed {
        lines.resize(needed, Line([0; 64]));
    }
    // SAFETY: the lines are initialised, hold at least `len` numbers, are aligned to 64 bytes, and every bit pattern
    // is a valid float (`Float` is implemented for f32 and f64 alone).
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<T>(), len) }
}

/// The same memory for writers that take memory without contents.
pub(crate) fn as_uninit<T: Float>(slice: &mut [T]) -> &mut [MaybeUninit<T>] {
    let (pointer, len) = (slice.as_mut_ptr().cast(), slice.len());
    // SAFETY: `MaybeUninit<T>` has the layout of T, and the kernels write whole numbers into it and nothing else.
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

/// Runs `task` for 0..n: in parallel if the multiplications in all are worth the hand-off to other threads.
pub(crate) fn for_each_task(n: usize, work: usize, task: impl Fn(usize) + Send + Sync) {
    use rayon::prelude::*;
    if n < 2 || work < 1 << 18 {
        (0..n).for_each(task);
    } else {
        (0..n).into_par_iter().with_max_len(1).for_each(task);
    }
}
