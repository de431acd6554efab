//! What the targets share: a file for readers that want one.

use std::path::Path;

/// What `read` makes of a file of these bytes; a message of several lines is a fault.
pub fn with_file<E: std::fmt::Display>(bytes: &[u8], read: impl FnOnce(&Path) -> Result<(), E>) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = folder.path().join("file");
    std::fs::write(&path, bytes).expect("a small file");
    if let Err(error) = read(&path) {
        let message = error.to_string();
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}
