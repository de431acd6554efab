//! What every writer of this project is held to, also in crates that use no other: their tests include this file by path.

use std::collections::BTreeMap;
use std::path::Path;

use crate::faults::{Fault, with};

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
