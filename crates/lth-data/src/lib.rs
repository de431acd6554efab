//! Placeholder docs.

mod archive;
mod cache;
mod crop;
mod decode;
mod error;
mod jpeg;
mod layout;
mod loader;
mod normalise;
mod open;
mod pets;
mod pictures;
mod random;
mod resize;
mod source;
mod split;
pub mod toy_pets;

pub use cache::cache_dir;
pub use crop::{Square, training_draw};
pub use decode::{Decoded, Format, MAX_PIXELS, decode};
pub use error::{Damaged, Error, Result};
pub use loader::{Batches, Loader, LoaderConfig};
pub use normalise::Normalisation;
pub use open::{CachedPictures, DamagedPolicy, Misnamed, OpenOptions, Progress, Summary, open_folder, open_pets};
pub use pets::{ListCheck, PETS_CLASSES, pets_breed, pets_label};
pub use pictures::{MemoryPictures, Picture, PictureInfo, Pictures};
pub use resize::Resizer;
pub use source::Source;
pub use split::Split;
