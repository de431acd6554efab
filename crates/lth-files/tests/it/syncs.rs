//! How often something is made to reach the disk.
#![allow(unsafe_code)] // a call of signal, in tests alone

/// How often `run` asks for it, and what `run` gives; `None` where that cannot be counted.
pub(crate) fn count_syncs<T: Send>(run: impl FnOnce() -> T + Send) -> Option<(usize, T)> {
    let counted = || {
        let count = counting()?;
        let value = run();
        Some((count(), value))
    };
    std::thread::scope(|scope| scope.spawn(counted).join().expect("it does not panic"))
}

/// From now on every such call of this thread does nothing but count; gives what tells how many there were.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn counting() -> Option<impl FnOnce() -> usize> {
    use std::cell::Cell;

    use libc::{SECCOMP_RET_TRAP, SIG_ERR, SIGSYS, c_int, sighandler_t};

    use crate::faults::filter::{SYNCS, answer_calls};

    thread_local!(static COUNT: Cell<usize> = const { Cell::new(0) });
    extern "C" fn count(_: c_int) {
        COUNT.set(COUNT.get() + 1);
    }
    // The system raises the signal in place of the call, on the thread that makes it; to that thread the call has then
    // given a number that is no error.
    // SAFETY: the handler touches a number of its own thread and nothing else.
    let is_handled = unsafe { libc::signal(SIGSYS, count as *const () as sighandler_t) } != SIG_ERR;
    (is_handled && answer_calls(&SYNCS, false, SECCOMP_RET_TRAP)).then_some(|| COUNT.get())
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn counting() -> Option<fn() -> usize> {
    None
}
