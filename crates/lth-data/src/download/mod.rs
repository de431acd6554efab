//! Files from the network that are there in the end, whole and the right ones.
//!
//! [`Downloader::fetch`] gets a [`Resource`] into a folder: addresses in turn, attempts with growing pauses, what an
//! interrupted attempt left is continued (HTTP Range, bound to the same version of the file by its ETag or date), the
//! checksum is computed over the whole file, and only then it gets its name. Two processes that want the same file
//! download it once. Proxies are those of the environment.
//!
//! A [`Mirror`] stands for all addresses: the file is `URL/<file name>`, and if the mirror has a `SHA256SUMS` its
//! checksums replace the ones built in.
//!
//! What a server can do wrong ends in a typed [`Error`]: it may send too much, too little, something else, nothing, a
//! byte a minute, or a circle of redirects. Nothing complete that was in the folder before is lost, and what was there of a
//! file gives way only to more of it.
//!
//! ```no_run
//! use lth_data::download::{Downloader, Event, Options, pets};
//!
//! # fn main() -> Result<(), lth_data::download::Error> {
//! let downloader = Downloader::new("cache/downloads", Options::default());
//! let archives = downloader.fetch_any(&pets(), &|event| {
//!     if let Event::Received { name, received } = event {
//!         eprintln!("{name}: {received} bytes");
//!     }
//! })?;
//! for archive in archives {
//!     println!("{} {}", archive.sha256, archive.path.display());
//! }
//! # Ok(())
//! # }
//! ```

mod downloader;
mod error;
mod hub;
mod mirror;
mod options;
mod published;
mod resource;
mod transfer;

pub(crate) use downloader::is_noted;
pub use downloader::{Downloader, Fetched};
pub use error::{Attempt, Cause, Error, Result};
pub use hub::Hub;
pub use mirror::{Mirror, Sums, public};
pub use options::{Event, Options, Proxies};
pub use published::{cifar_10, cifar_100, fashion_mnist, mnist};
pub use resource::{Check, Resource, pets, resnet18_weights};
