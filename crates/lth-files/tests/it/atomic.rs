use std::path::Path;

use lth_files::{Error, link_or_copy, remove_partial_files, write_atomic};

use crate::faults::{Fault, with};
use crate::syncs::count_syncs;
use crate::writers::check_writer;

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
fn the_file_and_its_name_outlive_a_power_cut() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [first, second] = ["a.txt", "b.txt"].map(|name| folder.path().join(name));
    let n_syncs = [
        count_syncs(|| write_atomic(&first, |out| out.write_all(b"new"))),
        count_syncs(|| link_or_copy(&first, &second)),
    ]
    .map(|counted| counted.map(|(n, done)| done.map(|()| n).expect("nothing fails")));
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        assert_eq!(n_syncs, [Some(2), Some(1)], "the content and the folder; the folder");
    }
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

#[test]
fn what_is_there_gets_a_second_name_or_is_copied_where_it_cannot() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [first, second] = ["a.bin", "b.bin"].map(|name| folder.path().join(name));
    write_atomic(&first, |out| out.write_all(b"weights"))?;
    write_atomic(&second, |out| out.write_all(b"old"))?;
    let names = || std::fs::read_dir(folder.path()).expect("a folder").count();
    let content = || [&first, &second].map(|path| std::fs::read(path).expect("it is there"));
    // Twice: the second time both are one file already.
    for _ in 0..2 {
        link_or_copy(&first, &second)?;
        assert_eq!((content(), names()), ([b"weights".to_vec(), b"weights".to_vec()], 2));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = |path: &Path| std::fs::metadata(path).expect("it is there").ino();
        assert_eq!(inode(&first), inode(&second), "the bytes are on the disk once");
        write_atomic(&second, |out| out.write_all(b"new"))?;
        assert_eq!(content()[0], b"weights", "a file that is replaced leaves the other");
        if let Some(copied) = with(Fault::Link, || link_or_copy(&first, &second)) {
            copied?;
            assert_eq!((content()[1].as_slice(), names()), (&b"weights"[..], 2));
            assert_ne!(inode(&first), inode(&second));
        }
    }
    write_atomic(&second, |out| out.write_all(b"old"))?;
    if let Some(failed) = with(Fault::Rename, || link_or_copy(&first, &second)) {
        assert!(failed.expect_err("nothing could be renamed").to_string().contains("b.bin"));
        assert_eq!((content()[1].as_slice(), names()), (&b"old"[..], 2));
    }
    let absent = link_or_copy(&folder.path().join("absent"), &second).expect_err("there is nothing to link");
    assert!(absent.to_string().contains("absent"), "{absent}");
    assert_eq!((content()[1].as_slice(), names()), (&b"old"[..], 2));
    Ok(())
}
