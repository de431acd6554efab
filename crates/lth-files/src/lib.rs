//! The ground that everything on disk stands on.
//!
//! A run of hours must not be lost to a full disk, a kill at the wrong moment or two processes in one folder. What this
//! project writes goes through here: a file appears whole or not at all ([`write_atomic`]), content that is there already
//! takes no more room ([`link_or_copy`]), a folder is held by one process ([`FolderLock`]), safetensors are written in one
//! order, so that equal content is equal bytes ([`save_safetensors`]), and read without trust, at once
//! ([`open_safetensors`]) or tensor by tensor ([`SafetensorsReader`]), and content is named by its SHA-256 ([`sha256`]). It knows nothing of networks, and candle is not in its tree.
//!
//! ```
//! use std::io::Write;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let held = lth_files::FolderLock::acquire(folder.path())?;
//! let path = folder.path().join("note.txt");
//! lth_files::write_atomic(&path, |out| out.write_all(b"hello\n"))?;
//! // A writer that fails leaves the old file.
//! assert!(lth_files::write_atomic(&path, |_| Err(std::io::Error::other("no more"))).is_err());
//! assert_eq!(lth_files::sha256_file(&path)?.0, lth_files::sha256(b"hello\n"));
//! # drop(held);
//! # Ok(())
//! # }
//! ```

mod atomic;
mod error;
mod lock;
mod safetensors_file;
mod safetensors_reader;
mod sha256;
mod text;

pub use atomic::{link_or_copy, remove_partial_files, sync_folder, write_atomic};
pub use error::Error;
pub use lock::FolderLock;
pub use safetensors_file::{
    MAX_HEADER_BYTES, RawTensor, TensorBytes, open_safetensors, save_safetensors, save_safetensors_hashed,
    write_safetensors,
};
pub use safetensors_reader::SafetensorsReader;
pub use sha256::{Hashing, Sha256, sha256, sha256_file};
pub use text::{on_its_lines, on_one_line};
// Part of this crate's interface.
pub use safetensors::tensor::TensorView;
pub use safetensors::{Dtype, SafeTensorError, SafeTensors};
