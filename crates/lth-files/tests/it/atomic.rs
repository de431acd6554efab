use std::path::Path;

use lth_files::{Error, remove_partial_files, write_atomic};

use crate::faults::{Fault, check_writer, with};

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    // More than a buffer, so that the system is asked before the end, too.
    for length in [6, 100_000] {
        let content = vec![b'x'; length];
        check_writer("a.txt", |path| write_atomic(path, |out| out.write_all(&content)).map_err(|e| e.to_string()));
    }
}

#[test]
fn the_faults_of_this_test_are_real() {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.txt");
    let kinds = Fault::ALL.map(|fault| {
        let result = with(fault, || write_atomic(&path, |out| out.write_all(b"new"))).expect("the system can filter");
        match result {
            Err(Error::Io { action: "write", path: named, source }) if named == path => {
                (source.kind(), source.raw_os_error())
            }
            other => panic!("{fault:?}: {other:?}"),
        }
    });
    assert_eq!(kinds.map(|(_, code)| code), [None, Some(28), Some(5), Some(5)], "(EACCES), ENOSPC, EIO, EIO");
    assert_eq!(kinds[0].0, std::io::ErrorKind::PermissionDenied);
}

#[test]
fn a_writer_that_gives_up_in_the_middle_leaves_the_old_file() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.txt");
    write_atomic(&path, |out| out.write_all(b"old"))?;
    let failed = write_atomic(&path, |out| {
        out.write_all(&vec![0; 1 << 20])?;
        Err(std::io::Error::other("out of words"))
    });
    let message = failed.expect_err("it gave up").to_string();
    assert_eq!(message, format!("cannot write {}: out of words", path.display()));
    assert_eq!(std::fs::read(&path).expect("still there"), b"old");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    Ok(())
}

#[test]
fn a_half_written_file_is_never_seen() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("a.bin");
    write_atomic(&path, |out| out.write_all(b"old"))?;
    write_atomic(&path, |out| {
        out.write_all(&[7; 100_000])?;
        out.flush()?;
        assert_eq!(std::fs::read(&path)?, b"old");
        out.write_all(b"end")
    })?;
    assert_eq!(std::fs::read(&path).expect("it is there").len(), 100_003);
    Ok(())
}

#[test]
fn a_message_names_the_file_that_was_asked_for_and_no_temporary_one() {
    let path = Path::new("/no/such/folder/a.txt");
    let message = write_atomic(path, |out| out.write_all(b"new")).expect_err("no folder").to_string();
    assert!(message.starts_with("cannot write /no/such/folder/a.txt: "), "{message}");
    assert!(!message.contains(".partial"), "{message}");
}

#[test]
fn leftovers_of_a_killed_process_go_and_nothing_else_does() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in [".lth-abc123.partial", "mine.partial", ".lth-notes"] {
        std::fs::write(folder.path().join(name), b"half").expect("a small file");
    }
    remove_partial_files(folder.path())?;
    let mut left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("a folder").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, [".lth-notes", "mine.partial"]);
    remove_partial_files(&folder.path().join("absent"))
}
