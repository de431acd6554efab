//! Memory of feature maps, gradients and weights: kept in the process, and lying as vectors want it.

use std::alloc::{GlobalAlloc, Layout, System};

/// Asks the C library to keep freed memory for the next allocation; returns whether it will.
///
/// A training step allocates and frees every feature map. By default glibc returns large blocks to
/// the operating system at once and gets them back page by page, each zeroed: on feature maps of
/// 16 MiB that costs several times what the layers do. A program calls this once, first thing in
/// `main`: a thread that has allocated before keeps a heap of its own, and glibc's have no room for
/// blocks above 32 MiB; libraries leave the choice to the program. The process then keeps the most memory it
/// ever used. Does nothing (and returns false) where the C library is not glibc.
pub fn keep_freed_memory() -> bool {
    imp::keep()
}

/// The system's allocator, with blocks of 4 KiB and more where vectors find them best: each begins with a line of the cache,
/// and what the process gets after [`keep_freed_memory`] is asked for in huge pages.
///
/// A program that trains chooses it:
/// ```
/// #[global_allocator]
/// static ALLOCATOR: lth_kernels::Allocator = lth_kernels::Allocator;
/// ```
/// Results do not depend on it. Without it a vector of 64 bytes, read from where glibc puts a tensor, lies in two lines,
/// and a large weight read here and there takes a page's address with nearly every number. `cargo xtask bench` and `lth`
/// use it. The memory that a process takes at most is that of the system's allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// How many numbers ahead of those that are read [`prefetch`] is of use: a page of f32, since processors on their own look no
/// further than the page.
pub(crate) const AHEAD: usize = 1024;

/// Asks for the lines of `len` numbers from `from` on, wherever that is, without waiting for them.
#[inline(always)]
pub(crate) fn prefetch<T>(from: *const T, len: usize) {
    // Miri has no caches.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for byte in (0..len * size_of::<T>()).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every processor of this architecture has SSE, and addresses that are not there are left alone.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast::<i8>().wrapping_add(byte)) };
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (from, len);
}

/// Bytes from which on a block is aligned: what it takes more is then little.
const LARGE: usize = 4096;

/// What the system is asked for: `None` of a block that is handed on as it is.
fn with_room(layout: Layout) -> Option<Layout> {
    if layout.size() < LARGE || layout.align() >= LINE {
        return None;
    }
    // Room for the distance between the two beginnings, too.
    Layout::from_size_align(layout.size().checked_add(LINE)?, layout.align().max(align_of::<usize>())).ok()
}

/// The line in the system's block `origin`, which has room, that the program's block begins with; before it is noted how
/// far it is from the beginning.
///
/// # Safety
/// `origin` is null, or a block of [`with_room`]'s layout.
unsafe fn aligned(origin: *mut u8) -> *mut u8 {
    if origin.is_null() {
        return origin;
    }
    // A multiple of a `usize`'s alignment, and not 0: the number has room.
    let distance = LINE - origin.addr() % LINE;
    // SAFETY: the block is a line longer than what the program asked for.
    unsafe {
        let block = origin.add(distance);
        block.cast::<usize>().sub(1).write(distance);
        block
    }
}

/// How far a block is from the beginning of the system's.
///
/// # Safety
/// `block` is from [`aligned`] and not null.
unsafe fn distance(block: *mut u8) -> usize {
    // SAFETY: it was noted there.
    unsafe { block.cast::<usize>().sub(1).read() }
}

// SAFETY: every block is the system's or lies inside one that has room for it; a layout alone says which, and that one is
// given back with the layout it was asked for with. Nothing here panics.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(roomy) = with_room(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: a layout whose size is not 0; its block is asked for with room.
        let block = unsafe { aligned(System.alloc(roomy)) };
        imp::advise();
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(roomy) = with_room(layout) else {
            // SAFETY: the caller's promise.
            return unsafe { System.alloc_zeroed(layout) };
        };
        // SAFETY: as in `alloc`; what is noted lies before the block.
        let block = unsafe { aligned(System.alloc_zeroed(roomy)) };
        imp::advise();
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: the block is of this layout.
        unsafe {
            match with_room(layout) {
                None => System.dealloc(block, layout),
                Some(roomy) => System.dealloc(block.sub(distance(block)), roomy),
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is right for this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (with_room(layout), with_room(new_layout)) {
            // SAFETY: the caller's promise.
            (None, None) => unsafe { System.realloc(block, layout, new_size) },
            (Some(roomy), Some(new_roomy)) => {
                // SAFETY: the block is in one with room, and so is the new one, which holds what the old one did as far behind
                // its beginning as it was there.
                let block = unsafe {
                    let before = distance(block);
                    let origin = System.realloc(block.sub(before), roomy, new_roomy.size());
                    moved(origin, before, layout.size().min(new_size))
                };
                imp::advise();
                block
            }
            _ => {
                // SAFETY: a new block that is as long as what is copied, or null; then the old one stays.
                unsafe {
                    let new = self.alloc(new_layout);
                    if !new.is_null() {
                        std::ptr::copy_nonoverlapping(block, new, layout.size().min(new_size));
                        self.dealloc(block, layout);
                    }
                    new
                }
            }
        }
    }
}

/// [`aligned`] for a program's block of which `len` bytes are there already, `before` bytes behind `origin`.
///
/// # Safety
/// As `aligned`, and `before + len` bytes are in the system's block.
unsafe fn moved(origin: *mut u8, before: usize, len: usize) -> *mut u8 {
    if origin.is_null() {
        return origin;
    }
    let after = LINE - origin.addr() % LINE;
    // SAFETY: both stretches are in the block. They are moved before the distance is noted, which may lie in the old one.
    unsafe {
        if after != before {
            std::ptr::copy(origin.add(before), origin.add(after), len);
        }
        aligned(origin)
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod imp {
    use std::ffi::{c_int, c_long, c_void};
    use std::sync::atomic::{AtomicUsize, Ordering};

    // malloc.h
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_TOP_PAD: c_int = -2;
    const M_MMAP_MAX: c_int = -4;
    const M_ARENA_MAX: c_int = -8;
    // sys/mman.h
    const MADV_HUGEPAGE: c_int = 14;

    unsafe extern "C" {
        /// mallopt(3): 1 on success.
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
        /// sbrk(2): of 0 bytes the end of the heap.
        fn sbrk(increment: c_long) -> *mut c_void;
        /// madvise(2).
        fn madvise(start: *mut c_void, len: usize, advice: c_int) -> c_int;
    }

    /// How far the heap goes that huge pages were asked for; 0: nobody wants that.
    static ADVISED_TO: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn keep() -> bool {
        // SAFETY: mallopt takes two numbers, may be called at any time, and locks for itself.
        let set = |parameter, value| unsafe { mallopt(parameter, value) } == 1;
        // Never return the end of the heap (the largest number would still return it from 2 GiB on, -1 does not), grow it
        // by 64 MiB at least, no block outside it, and one heap for all threads:
        // what one has freed another uses.
        let is_kept = set(M_TRIM_THRESHOLD, -1) & set(M_TOP_PAD, 64 << 20) & set(M_MMAP_MAX, 0) & set(M_ARENA_MAX, 1);
        if is_kept {
            // What is in use already stays as it is.
            let _ = ADVISED_TO.compare_exchange(0, end_of_heap(), Ordering::Relaxed, Ordering::Relaxed);
        }
        is_kept
    }

    fn end_of_heap() -> usize {
        // SAFETY: nothing is moved by 0 bytes.
        unsafe { sbrk(0) }.addr()
    }

    /// Asks for huge pages where the heap has grown: before it is written to, since a small page that is there stays one.
    pub(super) fn advise() {
        let before = ADVISED_TO.load(Ordering::Relaxed);
        if before == 0 {
            return;
        }
        let end = end_of_heap();
        // The heap grows by whole pages.
        if end > before && ADVISED_TO.compare_exchange(before, end, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // SAFETY: advice changes nothing of what is in memory, and a range that is no heap any more is refused.
            let _ = unsafe { madvise(std::ptr::without_provenance_mut(before), end - before, MADV_HUGEPAGE) };
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod imp {
    pub(super) fn keep() -> bool {
        false
    }

    pub(super) fn advise() {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes that the test has written to a block, by its number and its place.
    fn byte(block: usize, at: usize) -> u8 {
        (block.wrapping_mul(31) ^ at.wrapping_mul(7) ^ at >> 8) as u8
    }

    fn sizes() -> impl Strategy<Value = usize> {
        // Small, around the size from which on blocks are aligned, and large.
        prop_oneof![1..200usize, LARGE - 70..LARGE + 70, LARGE..100_000]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 200 }))]

        #[test]
        fn blocks_hold_what_was_written_and_the_large_ones_begin_with_a_line(
            orders in prop::collection::vec((sizes(), sizes(), 0..4u32, any::<bool>()), 1..20)
        ) {
            let mut blocks = Vec::new();
            for (number, (size, new_size, log_align, is_zeroed)) in orders.into_iter().enumerate() {
                let layout = Layout::from_size_align(size, 1 << (2 * log_align)).expect("a size");
                let is_right = |block: *mut u8, layout: Layout| {
                    block.addr().is_multiple_of(layout.align()) && (layout.size() < LARGE || block.addr().is_multiple_of(LINE))
                };
                // SAFETY: sizes are not 0; every block is read and written inside its size, and given back once with its layout.
                unsafe {
                    let block = if is_zeroed { Allocator.alloc_zeroed(layout) } else { Allocator.alloc(layout) };
                    prop_assert!(!block.is_null() && is_right(block, layout));
                    if is_zeroed {
                        prop_assert!((0..size).all(|at| *block.add(at) == 0));
                    }
                    (0..size).for_each(|at| *block.add(at) = byte(number, at));
                    let block = Allocator.realloc(block, layout, new_size);
                    let layout = Layout::from_size_align(new_size, layout.align()).expect("a size");
                    prop_assert!(!block.is_null() && is_right(block, layout));
                    prop_assert!((0..size.min(new_size)).all(|at| *block.add(at) == byte(number, at)));
                    (0..new_size).for_each(|at| *block.add(at) = byte(number, at));
                    blocks.push((block, layout));
                }
            }
            for (number, (block, layout)) in blocks.into_iter().enumerate() {
                // SAFETY: as above.
                unsafe {
                    prop_assert!((0..layout.size()).all(|at| *block.add(at) == byte(number, at)));
                    Allocator.dealloc(block, layout);
                }
            }
        }
    }

    #[test]
    fn what_no_memory_has_room_for_is_refused() {
        let layout = Layout::from_size_align(isize::MAX as usize - 100, 1).expect("just so");
        // SAFETY: nothing is there to be used.
        assert!(unsafe { Allocator.alloc(layout) }.is_null());
        let layout = Layout::from_size_align(5000, 8).expect("a size");
        // SAFETY: the old block stays where there is no room for a new one, and is given back.
        unsafe {
            let block = Allocator.alloc(layout);
            assert!(Allocator.realloc(block, layout, isize::MAX as usize - 100).is_null());
            *block.add(4999) = 1;
            Allocator.dealloc(block, layout);
        }
    }
}
