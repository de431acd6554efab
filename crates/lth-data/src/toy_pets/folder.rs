//! Writes toy pets as JPEG files in the layout of PETS.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;

use super::{Picture, Species, ToyPets, breeds};
use crate::file::write_atomic;

/// Raised whenever a picture's bytes change, so that an older folder is not taken for a newer one.
const FORMAT: u32 = 2;
const MARKER: &str = "toy-pets.json";
const QUALITY: u8 = 92;
const LARGEST_SIDE: u32 = 2_048;

/// What went wrong while writing toy pets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder holds something else.
    #[error("folder {} already holds other files; choose another folder or empty it", path.display())]
    Occupied {
        /// The folder asked for.
        path: PathBuf,
    },
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        r#source: io::Error,
    },
    /// A parameter is out of range.
    #[error("toy pets: {name} is {got}, expected {expected}")]
    Parameter {
        /// The field of [`ToyPets`].
        name: &'static str,
        /// Its value.
        got: String,
        /// The values allowed.
        expected: String,
    },
    /// A picture could not be made into a JPEG.
    #[error("cannot encode {name} as JPEG: {source}")]
    Encode {
        /// The picture.
        name: String,
        /// Why it failed.
        r#source: image::ImageError,
    },
}

/// What [`ToyPets::write_to`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Pictures in the folder.
    pub pictures: usize,
    /// Pictures drawn by this call; 0 when the folder was complete already.
    pub drawn: usize,
}

/// Stands in a finished folder and says what was drawn.
#[derive(PartialEq, serde::Serialize, serde::Deserialize)]
struct Marker {
    format: u32,
    pets: ToyPets,
}

/// What was drawn into the folder, if that is finished and of this program.
pub(crate) fn drawn_in(dir: &Path) -> Option<ToyPets> {
    let marker: Marker = serde_json::from_slice(&fs::read(dir.join(MARKER)).ok()?).ok()?;
    marker.pets.check().is_ok().then_some(marker.pets)
}

impl ToyPets {
    /// The files that are written, relative to their folder; last the one that says it is finished.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let images = (0..self.pictures).map(|index| Path::new("images").join(format!("{}.jpg", self.name(index).0)));
        images.chain([Path::new("annotations").join("list.txt"), PathBuf::from(MARKER)]).collect()
    }

    /// Writes `images/*.jpg` and `annotations/list.txt` to `dir`, which appears only when it is complete.
    ///
    /// A folder written before with the same values is kept; only pictures missing from it are drawn again.
    /// `progress` is called with (pictures done, pictures in all), from several threads.
    ///
    /// # Errors
    /// If `dir` holds anything else (it is left as it is), a value is out of range, or a file cannot be written.
    pub fn write_to(&self, dir: &Path, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Written, Error> {
        self.check()?;
        let dir = std::path::absolute(dir).map_err(io_error("resolve", dir))?;
        if is_occupied(&dir)? {
            return self.complete(&dir, progress);
        }
        let parent = dir.parent().unwrap_or(&dir);
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
        let temporary = tempfile::Builder::new()
            .prefix(".toy-pets-")
            .tempdir_in(parent)
            .map_err(io_error("create a folder in", parent))?;
        let images = temporary.path().join("images");
        let annotations = temporary.path().join("annotations");
        for folder in [&images, &annotations] {
            fs::create_dir(folder).map_err(io_error("create", folder))?;
        }
        let all: Vec<usize> = (0..self.pictures).collect();
        self.draw_into(&images, &all, progress)?;
        write_file(&annotations.join("list.txt"), self.list().as_bytes())?;
        let marker = Marker { format: FORMAT, pets: *self };
        let json = serde_json::to_string_pretty(&marker).map_err(io::Error::from);
        let marker_path = temporary.path().join(MARKER);
        let json = json.map_err(io_error("describe", &marker_path))?;
        write_file(&marker_path, json.as_bytes())?;
        make_readable(temporary.path())?;
        if dir.exists() {
            // It is empty; not every system renames onto an empty folder.
            fs::remove_dir(&dir).map_err(io_error("replace the empty folder", &dir))?;
        }
        match fs::rename(temporary.path(), &dir) {
            Ok(()) => Ok(Written { pictures: self.pictures, drawn: self.pictures }),
            // Another process was faster: what it wrote counts.
            Err(_) if dir.join(MARKER).exists() => self.complete(&dir, progress),
            Err(source) => Err(io_error("finish", &dir)(source)),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let out_of_range = |name, got: &dyn ToString, expected: &dyn ToString| {
            Err(Error::Parameter { name, got: got.to_string(), expected: expected.to_string() })
        };
        if !(8..=LARGEST_SIDE).contains(&self.side) {
            return out_of_range("side", &self.side, &format!("8 to {LARGEST_SIDE}"));
        }
        if self.pictures == 0 {
            return out_of_range("pictures", &self.pictures, &"at least 1");
        }
        let difficulty = &self.difficulty;
        for (name, value, most) in [
            ("difficulty.overlap", difficulty.overlap, 1.0),
            ("difficulty.clutter", difficulty.clutter, 1_000.0),
            ("difficulty.noise", difficulty.noise, 1.0),
        ] {
            if !(0.0..=most).contains(&value) {
                return out_of_range(name, &value, &format!("0 to {most}"));
            }
        }
        Ok(())
    }

    /// Draws what is missing from a folder written before.
    fn complete(&self, dir: &Path, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Written, Error> {
        let occupied = || Error::Occupied { path: dir.to_path_buf() };
        let marker = fs::read(dir.join(MARKER)).map_err(|_| occupied())?;
        let marker: Marker = serde_json::from_slice(&marker).map_err(|_| occupied())?;
        if marker.format != FORMAT || marker.pets != *self {
            return Err(occupied());
        }
        let images = dir.join("images");
        let annotations = dir.join("annotations");
        for folder in [&images, &annotations] {
            fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        }
        let missing: Vec<usize> = (0..self.pictures)
            .filter(|index| !has_content(&images.join(format!("{}.jpg", self.name(*index).0))))
            .collect();
        self.draw_into(&images, &missing, progress)?;
        let list = annotations.join("list.txt");
        if !has_content(&list) {
            write_file(&list, self.list().as_bytes())?;
        }
        Ok(Written { pictures: self.pictures, drawn: missing.len() })
    }

    fn draw_into(
        &self,
        images: &Path,
        indices: &[usize],
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(), Error> {
        let done = AtomicUsize::new(0);
        indices.par_iter().try_for_each(|index| {
            let picture = self.picture(*index);
            write_file(&images.join(format!("{}.jpg", picture.name)), &picture.jpeg()?)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, indices.len());
            Ok(())
        })
    }

    /// The text of `annotations/list.txt`: image, class, species (1 cat, 2 dog), breed within the species.
    fn list(&self) -> String {
        let order = breeds();
        let mut rows: Vec<(usize, usize, String)> = (0..self.pictures)
            .map(|index| {
                let (species, breed, number) = super::identity(index);
                let name = species.breeds()[breed].name;
                let class = 1 + order.iter().position(|(other, _)| *other == name).unwrap_or_default();
                let species_id = match species {
                    Species::Cat => 1,
                    Species::Dog => 2,
                };
                (class, number, format!("{name}_{number} {class} {species_id} {}\n", breed + 1))
            })
            .collect();
        rows.sort();
        let head = "#Image CLASS-ID SPECIES BREED ID\n\
                    #ID: 1:37 Class ids\n\
                    #SPECIES: 1:Cat 2:Dog\n\
                    #BREED ID: 1-12:Cat 1-25:Dog\n\
                    #All images with 1st letter as capital are cat images\n\
                    #Images with small first letter are dog images\n";
        rows.into_iter().fold(head.to_owned(), |text, (_, _, row)| text + &row)
    }
}

impl Picture {
    /// The picture as a JPEG file.
    ///
    /// # Errors
    /// If the encoder refuses it.
    pub fn jpeg(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, QUALITY)
            .encode(&self.rgb, self.width, self.height, image::ExtendedColorType::Rgb8)
            .map_err(|source| Error::Encode { name: self.name.clone(), source })?;
        Ok(bytes)
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { action, path, source }
}

/// Whether there is something at `dir` that must not be replaced.
fn is_occupied(dir: &Path) -> Result<bool, Error> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(io_error("read the folder", dir)(source)),
    }
}

fn has_content(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_atomic(path, bytes).map_err(io_error("write", path))
}

/// Temporary folders are private to the user; a data set is not.
fn make_readable(dir: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The folder inside was made with the user's own mask: take its rights.
        let inside = dir.join("images");
        let mode = fs::metadata(&inside).map_err(io_error("read", &inside))?.permissions().mode();
        fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(io_error("share", dir))?;
    }
    #[cfg(not(unix))]
    let _ = dir;
    Ok(())
}
