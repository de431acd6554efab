//! Labelled pictures for candle: from an archive or a folder on disk to batches of tensors.
//!
//! Training a network on photographs takes the same road every time: find the pictures and their labels, decode them
//! once, cut a fresh square out of each in every epoch, scale it, normalise it, and have the next batch ready when the
//! training step asks. This crate walks that road the way the Python libraries do (its resize is Pillow's, byte for
//! byte), and so that a run can be repeated: order, split and crops are functions of seed, epoch and picture, whatever
//! the number of threads.
//!
//! A data set is anything that implements [`Pictures`]: [`CachedPictures`], which [`open_pets`] and [`open_folder`] make
//! from archives or folders, [`UniformPictures`], which [`open_idx`] and [`open_cifar`] make of MNIST and CIFAR, or
//! [`MemoryPictures`]. A [`Split`] says which of them train, and a [`Loader`] makes batches. A [`DatasetSpec`] says all of
//! that as plain data, and opens it.
//!
//! ```
//! use std::sync::Arc;
//! use lth_data::{Loader, LoaderConfig, MemoryPictures, Picture, Split};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let picture = |idx: u32| Picture {
//!     name: format!("{idx:02}"),
//!     label: idx % 2,
//!     width: 40,
//!     height: 30,
//!     bytes: vec![(idx * 10) as u8; 40 * 30 * 3],
//! };
//! let classes = vec!["dark".to_string(), "bright".to_string()];
//! let pictures = MemoryPictures::new(3, classes, (0..20).map(picture).collect())?;
//!
//! let split = Split::random(20, 0.2, 42)?; // 16 train, 4 validate
//! let loader = Loader::new(Arc::new(pictures), split, LoaderConfig::new(16, 8, 42))?;
//! for batch in loader.train_epoch(0) {
//!     let (x, y) = batch?;
//!     assert_eq!((x.dims(), y.dims()), (&[8, 3, 16, 16][..], &[8][..]));
//! }
//! assert_eq!(loader.valid().count(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Against Pillow
//!
//! Crop and resize are equal byte for byte, and so are decoded PNG, GIF, BMP and lossless WebP. JPEG is decoded by
//! zune-jpeg here and by libjpeg-turbo there, both within the standard's tolerance: measured on pictures with full
//! colour resolution, bytes differ by at most 2 levels of 255 and 0.012 on average; with halved colour resolution, which
//! the two smooth differently, by at most 3 and 0.21.

mod archive;
mod augment;
mod cache;
mod cache_entry;
mod checked;
mod cifar;
mod crop;
mod dataset;
mod decode;
#[cfg(feature = "digits")]
pub mod digits;
#[cfg(feature = "download")]
pub mod download;
mod error;
#[cfg(test)]
#[path = "../../lth-files/tests/it/faults.rs"]
mod faults;
mod file;
mod idx;
mod jpeg;
mod layout;
mod loader;
mod mnist;
mod normalise;
mod open;
mod parted;
mod pets;
mod pictures;
mod png;
mod random;
mod resize;
mod source;
mod split;
mod text;
pub mod toy_pets;
mod uniform;
#[cfg(test)]
#[path = "../../lth-files/tests/it/writers.rs"]
mod writers;

pub use augment::{Augmentation, Change, Fill};
pub use bytesize::ByteSize;
pub use cache::{cache_dir, cache_limit};
pub use cache_entry::{CacheEntry, CacheKind, cache_entries};
pub use checked::{Checked, OpenedFile};
pub use cifar::{CIFAR_10_CLASSES, CIFAR_100_CLASSES, CifarSet, open_cifar};
pub use crop::{Square, training_draw};
pub use dataset::{DataSource, Dataset, DatasetName, DatasetSpec, Opening, Provenance};
pub use decode::{Decoded, Format, MAX_PIXELS, decode};
pub use error::{Damaged, Error, Result};
pub use loader::{Batches, Loader, LoaderConfig};
pub use mnist::{FASHION_CLASSES, IdxFiles, IdxSet, open_idx};
pub use normalise::Normalisation;
pub use open::{
    CachedPictures, DamagedPolicy, Misnamed, OpenOptions, Progress, Summary, open_folder, open_pets, open_pets_breeds,
};
pub use parted::{PartedPictures, open_parted_folders};
pub use pets::{ListCheck, PETS_CLASSES, pets_breed, pets_label};
pub use pictures::{MemoryPictures, Picture, PictureInfo, Pictures};
pub use png::encode_png;
pub use resize::Resizer;
pub use source::Source;
pub use split::{Part, Split, SplitRule};
pub use uniform::UniformPictures;
