//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

use crate::Error;

const PREFIX: &str = ".lth-";
const SUFFIX: &str = ".partial";

/// Writes `path` through a file of a temporary name in the same folder, which is flushed to the disk and then renamed.
///
/// A reader sees the old file or the new one, never a part, and after a power cut there is one of the two. If anything
/// fails, the old file stays and the temporary one is removed; only a process that is killed leaves one behind, see
/// [`remove_partial_files`]. The file gets the rights of any new file.
///
/// # Errors
/// [`Error::Io`], also for an error that `write` returns.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let all = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).suffix(SUFFIX);
        // tempfile's default is for its owner alone; the user's mask still applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut temporary = builder.tempfile_in(folder).map_err(without_temporary_name)?;
        let mut buffered = BufWriter::new(temporary.as_file_mut());
        write(&mut buffered)?;
        buffered.flush()?;
        // Its own attempt to flush would come to nothing.
        drop(buffered);
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    all().map_err(Error::io("write", path))?;
    sync_folder(folder);
    Ok(())
}

/// Gives the content of the file `from` the name `to` as well: as a second name of the same bytes on the disk (a hard link)
/// where the file system can, or else as a copy. What was at `to` is replaced, whole or not at all, as [`write_atomic`] does.
///
/// For files that are replaced and never written into, as all of [`write_atomic`]'s are: a change through one name would
/// show under the other.
///
/// # Errors
/// [`Error::Io`] if neither can be done.
pub fn link_or_copy(from: &Path, to: &Path) -> Result<(), Error> {
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A link cannot take the place of a file: it is made under a temporary name, which tempfile finds, and renamed.
    let linked = tempfile::Builder::new()
        .prefix(PREFIX)
        .suffix(SUFFIX)
        .make_in(folder, |temporary| std::fs::hard_link(from, temporary))
        .and_then(|linked| {
            let temporary = linked.into_temp_path();
            let name = temporary.to_path_buf();
            temporary.persist(to).map_err(|error| error.error)?;
            // Where both are names of one file already, the system renames nothing and says that it has.
            let _ = std::fs::remove_file(name);
            Ok(())
        });
    if linked.is_ok() {
        sync_folder(folder);
        return Ok(());
    }
    let mut source = File::open(from).map_err(Error::io("read", from))?;
    write_atomic(to, |out| io::copy(&mut source, out).map(|_| ()))
}

/// Asks that what was renamed or removed in `folder` outlive a power cut. Not every file system can be asked, so that
/// nothing is said of a failure; the files themselves are safe by then.
pub fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Removes what killed processes left of files that they were writing into `folder`. Only who holds the folder
/// ([`FolderLock`](crate::FolderLock)) knows that nobody is writing there now.
///
/// # Errors
/// [`Error::Io`] if one cannot be removed. A folder that is not there has none.
pub fn remove_partial_files(folder: &Path) -> Result<(), Error> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            match std::fs::remove_file(entry.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("remove", entry.path())(error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// tempfile's errors name a file that is not there any more; ours name the one that was asked for.
fn without_temporary_name(error: io::Error) -> io::Error {
    use ErrorKind::{NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        kind @ (NotADirectory | NotFound | PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull) => {
            kind.into()
        }
        _ => error,
    }
}
