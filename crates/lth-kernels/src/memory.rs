//! Keeping freed memory in the process.

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

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod imp {
    use std::ffi::c_int;

    // malloc.h
    const M_TRIM_THRESHOLD: c_int = -1;
    const M_TOP_PAD: c_int = -2;
    const M_MMAP_MAX: c_int = -4;
    const M_ARENA_MAX: c_int = -8;

    unsafe extern "C" {
        /// mallopt(3): 1 on success.
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }

    pub(super) fn keep() -> bool {
        // SAFETY: mallopt takes two numbers, may be called at any time, and locks for itself.
        let set = |parameter, value| unsafe { mallopt(parameter, value) } == 1;
        // Never return the end of the heap (the largest number would still return it from 2 GiB on, -1 does not), grow it
        // by 64 MiB at least, no block outside it, and one heap for all threads:
        // what one has freed another uses.
        set(M_TRIM_THRESHOLD, -1) & set(M_TOP_PAD, 64 << 20) & set(M_MMAP_MAX, 0) & set(M_ARENA_MAX, 1)
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod imp {
    pub(super) fn keep() -> bool {
        false
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    #[test]
    fn glibc_agrees() {
        assert!(super::keep_freed_memory());
    }
}
