//! System calls that fail; other crates' tests include this file by path.
//!
//! On Linux the system itself is made to fail: a filter on the calling thread answers a kind of system call with an error
//! (seccomp(2)), whatever library makes the call. Threads started by that thread inherit it; no other is touched, and it
//! ends with the thread.
#![allow(unsafe_code)] // two calls of prctl, in tests alone

/// A kind of system call that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A file cannot be created: no permission.
    Create,
    /// Nothing can be written: the disk is full.
    Write,
    /// What was written does not reach the disk.
    Sync,
    /// A name cannot be changed.
    Rename,
    /// A file cannot have a second name: another file system.
    Link,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [Self::Create, Self::Write, Self::Sync, Self::Rename];
}

/// What `run` gives on a thread whose system calls of this kind fail; `None` where they cannot be made to.
pub(crate) fn with<T: Send>(fault: Fault, run: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| scope.spawn(|| filter::install(fault).then(run)).join().expect("it does not panic"))
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) mod filter {
    use libc::{c_long, sock_filter, sock_fprog};

    use super::Fault;

    /// Places in `seccomp_data`: the call's number, and the lower half of its third argument.
    const NUMBER: u32 = 0;
    const THIRD: u32 = 32;
    pub(crate) const SYNCS: [c_long; 2] = [libc::SYS_fsync, libc::SYS_fdatasync];

    pub(super) fn install(fault: Fault) -> bool {
        #[cfg(target_arch = "x86_64")]
        const OLD_NAMES: [c_long; 2] = [libc::SYS_rename, libc::SYS_renameat];
        #[cfg(target_arch = "aarch64")]
        const OLD_NAMES: [c_long; 1] = [libc::SYS_renameat];
        #[cfg(target_arch = "x86_64")]
        const LINKS: [c_long; 2] = [libc::SYS_link, libc::SYS_linkat];
        #[cfg(target_arch = "aarch64")]
        const LINKS: [c_long; 1] = [libc::SYS_linkat];
        let (calls, answer): (Vec<c_long>, i32) = match fault {
            Fault::Create => (vec![libc::SYS_openat], libc::EACCES),
            Fault::Write => (vec![libc::SYS_write, libc::SYS_writev, libc::SYS_pwrite64], libc::ENOSPC),
            Fault::Sync => (SYNCS.to_vec(), libc::EIO),
            Fault::Rename => ([&OLD_NAMES[..], &[libc::SYS_renameat2]].concat(), libc::EIO),
            Fault::Link => (LINKS.to_vec(), libc::EXDEV),
        };
        answer_calls(&calls, fault == Fault::Create, libc::SECCOMP_RET_ERRNO | answer as u32)
    }

    /// Answers these calls of this thread without making them; `to_create`: only those that would make a file.
    pub(crate) fn answer_calls(calls: &[c_long], to_create: bool, answer: u32) -> bool {
        let load = |place| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, place);
        let answer = instruction(libc::BPF_RET, 0, 0, answer);
        let allow = instruction(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW);
        let mut program = Vec::new();
        for &call in calls {
            program.push(load(NUMBER));
            if to_create {
                program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ, 0, 3, call as u32));
                program.push(load(THIRD));
                program.push(instruction(libc::BPF_JMP | libc::BPF_JSET, 0, 1, libc::O_CREAT as u32));
            } else {
                program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ, 0, 1, call as u32));
            }
            program.push(answer);
        }
        program.push(allow);
        let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: prctl copies the program, which lives until after the call; both settings touch this thread alone.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
        }
    }

    fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
        sock_filter { code: code as u16, jt, jf, k }
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod filter {
    pub(super) fn install(_: super::Fault) -> bool {
        false
    }
}
