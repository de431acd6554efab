//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Writes `path` through a file of a temporary name in the same folder, which is flushed to the disk and then renamed: a
/// reader sees the old file or the new one, and a failure leaves nothing behind.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lth-").suffix(".partial");
    // tempfile's default is for its owner alone; the user's mask still applies.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut temporary = builder.tempfile_in(folder)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    sync_folder(path);
    Ok(())
}

/// Asks that the name `path` outlive a power cut. Not every file system can be asked; the content is safe by now.
pub(crate) fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writers::check_writer;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        // The error has no path: its callers' errors have.
        check_writer("a.jpg", |path| write_atomic(path, b"content").map_err(|e| format!("{}: {e}", path.display())));
    }
}
