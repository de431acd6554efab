//! Small data sets made on the spot.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use image::{ImageFormat, RgbImage};
use lth_data::{CachedPictures, DamagedPolicy, OpenOptions, Result, Source, Summary, open_pets};
use tempfile::TempDir;

/// A folder for a test's files, gone afterwards.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A picture file of noise around a colour; `number` decides colour and noise.
pub(crate) fn picture(width: u32, height: u32, number: u32, format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_fn(width, height, |x, y| {
        let noise = (x * 31 + y * 17 + number * 101).wrapping_mul(2_654_435_761) >> 28;
        image::Rgb([(number * 40) as u8, (x * 5) as u8, (y * 5) as u8].map(|byte: u8| byte.wrapping_add(noise as u8)))
    });
    let mut bytes = Vec::new();
    image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

/// Twelve pictures of cats and dogs in three shapes, by file name.
pub(crate) fn pets() -> Vec<(String, Vec<u8>)> {
    let names = ["Abyssinian", "Bombay", "beagle", "pug"];
    let mut files = Vec::new();
    for (breed_idx, breed) in names.iter().enumerate() {
        for (idx, (width, height)) in [(24, 24), (31, 20), (20, 33)].into_iter().enumerate() {
            let number = (breed_idx * 3 + idx) as u32;
            files.push((format!("{breed}_{}.jpg", idx + 1), picture(width, height, number, ImageFormat::Jpeg)));
        }
    }
    files
}

/// The same under a folder, as entries of an archive.
pub(crate) fn under(folder: &str, files: &[(String, Vec<u8>)]) -> Vec<(String, Vec<u8>)> {
    files.iter().map(|(name, bytes)| (format!("{folder}{name}"), bytes.clone())).collect()
}

/// A tar archive of regular files.
pub(crate) fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

/// Options with the cache in `folder`.
pub(crate) fn options(folder: &Path) -> OpenOptions {
    OpenOptions { cache_dir: folder.join("cache"), damaged: DamagedPolicy::Fail }
}

/// PETS from one archive file's bytes, with the cache in `folder`.
pub(crate) fn open_archive(folder: &Path, bytes: &[u8]) -> Result<(CachedPictures, Summary)> {
    let path = write(folder, "pets.tgz", bytes);
    open_pets(&Source::Archives(vec![path]), &options(folder), &mut |_| {})
}
