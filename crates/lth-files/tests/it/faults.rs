//! What every writer of this project is held to, also in crates that use no other: their tests include this file by path.
//!
//! On Linux the system itself is made to fail: a filter on the calling thread answers a kind of system call with an error
//! (seccomp(2)), whatever library makes the call. Threads started by that thread inherit it; no other is touched, and it
//! ends with the thread.
#![allow(unsafe_code)] // two calls of prctl, in tests alone

use std::collections::BTreeMap;
use std::path::Path;

/// Checks a writer of single files: `write` is given the path.
///
/// Wherever a write fails (no right to create, a full disk, the flush, the rename), it says so with the file's name, the
/// old file is as it was, and nothing is left beside it. The folder's permissions are not used for it, since they do not
/// bind an administrator: the answer of the system that they would give is.
pub(crate) fn check_writer(name: &str, write: impl Fn(&Path) -> Result<(), String> + Sync) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    write(&path).expect("nothing is in the way");
    let before = content(folder.path());
    assert_eq!(before.keys().collect::<Vec<_>>(), [name], "one file");
    assert!(!before[name].is_empty(), "nothing was written");
    assert_readable(&path);

    for fault in Fault::ALL {
        let Some(result) = with(fault, || write(&path)) else { continue };
        let message = result.expect_err(&format!("{fault:?} went unnoticed"));
        assert!(message.contains(name), "{fault:?}: `{message}` does not name the file");
        assert!(content(folder.path()) == before, "{fault:?}: the folder is not as it was");
    }

    // Many file systems cannot give a second name; no writer needs one.
    if let Some(result) = with(Fault::Link, || write(&path)) {
        result.expect("a file needs no second name");
        assert!(content(folder.path()) == before, "the same content again");
    }

    let occupied = folder.path().join("occupied");
    std::fs::create_dir(&occupied).expect("a folder");
    std::fs::write(occupied.join("mine"), b"mine").expect("a small file");
    let before = content(folder.path());
    write(&occupied).expect_err("a folder was replaced");
    assert!(content(folder.path()) == before && occupied.join("mine").exists(), "a failed rename left something");
    let message = write(&folder.path().join("absent").join(name)).expect_err("there is no folder");
    assert!(message.contains(name), "`{message}` does not name the file");
    assert!(content(folder.path()) == before);
}

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

/// The files of a folder by name, folders as nothing.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("it is there").flatten();
    entries
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap_or_default())
        })
        .collect()
}

/// Not for its owner alone, as temporary files are.
fn assert_readable(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let plain = path.with_file_name("plain");
        std::fs::write(&plain, b"").expect("a small file");
        let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode();
        assert_eq!(mode(path), mode(&plain), "rights of a new file");
        std::fs::remove_file(&plain).expect("it is there");
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod filter {
    use libc::{c_long, sock_filter, sock_fprog};

    use super::Fault;

    /// Places in `seccomp_data`: the call's number, and the lower half of its third argument.
    const NUMBER: u32 = 0;
    const THIRD: u32 = 32;

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
            Fault::Sync => (vec![libc::SYS_fsync, libc::SYS_fdatasync], libc::EIO),
            Fault::Rename => ([&OLD_NAMES[..], &[libc::SYS_renameat2]].concat(), libc::EIO),
            Fault::Link => (LINKS.to_vec(), libc::EXDEV),
        };
        let load = |place| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, place);
        let answer = instruction(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ERRNO | answer as u32);
        let allow = instruction(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW);
        let mut program = Vec::new();
        for call in calls {
            program.push(load(NUMBER));
            if fault == Fault::Create {
                // Only where a file would be made: others may be opened.
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
