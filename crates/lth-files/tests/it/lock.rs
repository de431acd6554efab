use lth_files::{Error, FolderLock};

#[test]
#[cfg(unix)]
fn a_folder_has_one_holder_until_it_lets_go() -> Result<(), Error> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let held = FolderLock::acquire(folder.path())?;
    assert!(held.is_effective());
    let refused = FolderLock::acquire(folder.path()).expect_err("it is held");
    assert!(matches!(&refused, Error::Busy { path } if path == folder.path()), "{refused}");
    drop(held);
    drop(FolderLock::acquire(folder.path())?);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "a lock leaves nothing behind");
    Ok(())
}

#[test]
fn what_cannot_be_locked_is_held_without() -> Result<(), Error> {
    assert!(!FolderLock::acquire(std::path::Path::new("/no/such/folder"))?.is_effective());
    Ok(())
}
