//! MNIST and Fashion-MNIST from their four IDX files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checked::{Checked, OpenedFile};
use crate::error::{Error, Result};
use crate::idx::{self, Idx, Kind};
use crate::uniform::UniformPictures;

/// A set in the form of MNIST: 60,000 grey training pictures of 28×28 pixels and 10,000 for the test, in ten classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdxSet {
    /// Handwritten digits.
    ///
    /// Source: LeCun, Bottou, Bengio & Haffner 1998, *Gradient-based learning applied to document recognition*.
    Mnist,
    /// Articles of clothing.
    ///
    /// Source: Xiao, Rasul & Vollgraf 2017, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
    /// Algorithms*.
    FashionMnist,
}

/// Class names of Fashion-MNIST; the index is the label.
pub const FASHION_CLASSES: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// Side of the pictures.
pub(crate) const SIDE: usize = 28;

/// The four files of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdxFiles {
    /// `train-images-idx3-ubyte`.
    pub train_images: PathBuf,
    /// `train-labels-idx1-ubyte`.
    pub train_labels: PathBuf,
    /// `t10k-images-idx3-ubyte`.
    pub test_images: PathBuf,
    /// `t10k-labels-idx1-ubyte`.
    pub test_labels: PathBuf,
}

impl IdxFiles {
    /// The four files in a folder, by their names: `train-images-idx3-ubyte`, with or without `.gz`, and so on. Of a file
    /// that is there in both forms the one without `.gz` is taken.
    ///
    /// # Errors
    /// If the folder cannot be read, a file is missing, or two could be it.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::io("read folder", folder))? {
            let path = entry.map_err(Error::io("read folder", folder))?.path();
            if path.is_file() && name(&path).contains("idx") && !name(&path).starts_with('.') {
                paths.push(path);
            }
        }
        paths.sort();
        Self::by_name(&paths, &format!("`{}`", folder.display()))
    }

    /// The four files among `paths`, in any order, by their names.
    ///
    /// # Errors
    /// If a file is missing, or two could be it.
    pub fn of(paths: &[PathBuf]) -> Result<Self> {
        let place: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
        Self::by_name(paths, &place.join(", "))
    }

    fn by_name(paths: &[PathBuf], place: &str) -> Result<Self> {
        let find = |is_train: bool, kind: &str, expected: &'static str| -> Result<PathBuf> {
            let is_it = |path: &&PathBuf| {
                let name = name(path);
                let (train, test) = (name.contains("train"), name.contains("t10k") || name.contains("test"));
                (train, test) == (is_train, !is_train) && name.contains(kind)
            };
            let (packed, plain): (Vec<&PathBuf>, Vec<_>) =
                paths.iter().filter(is_it).partition(|path| name(path).ends_with(".gz"));
            match (&plain[..], &packed[..]) {
                ([path], _) | ([], [path]) => Ok((*path).clone()),
                ([], []) => Err(Error::NoPictures { place: place.into(), expected }),
                _ => Err(Error::DuplicatePicture { name: expected.into(), place: place.into() }),
            }
        };
        Ok(Self {
            train_images: find(true, "images", "the four files of the set, `train-images-idx3-ubyte` among them")?,
            train_labels: find(true, "labels", "the four files of the set, `train-labels-idx1-ubyte` among them")?,
            test_images: find(false, "images", "the four files of the set, `t10k-images-idx3-ubyte` among them")?,
            test_labels: find(false, "labels", "the four files of the set, `t10k-labels-idx1-ubyte` among them")?,
        })
    }
}

/// The name in small letters.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().to_lowercase())
}

/// The pictures of `set` in the order of their files, grey, and how far each file was checked: against the published
/// checksums of what is in it (MNIST), or of the `.gz` file (Fashion-MNIST). Files are unpacked in memory if they are
/// gzipped, whatever their names are.
///
/// # Errors
/// If a file cannot be read, is not what its place demands, is shorter or longer than it says, or its pictures are not of
/// 28×28 pixels; if there are not as many labels as pictures, or a label is no class.
pub fn open_idx(set: IdxSet, files: &IdxFiles) -> Result<(UniformPictures, Vec<OpenedFile>)> {
    let mut opened = Vec::new();
    let (mut bytes, mut labels) = part(set, &files.train_images, &files.train_labels, &mut opened)?;
    let n_train = labels.len();
    let (test_bytes, test_labels) = part(set, &files.test_images, &files.test_labels, &mut opened)?;
    bytes.reserve_exact(test_bytes.len());
    bytes.extend_from_slice(&test_bytes);
    labels.extend_from_slice(&test_labels);
    let pictures = UniformPictures::new((SIDE, SIDE, 1), set.classes(), labels, bytes, n_train)?;
    Ok((pictures, opened))
}

/// Pixels and labels of one part.
fn part(set: IdxSet, images: &Path, labels: &Path, opened: &mut Vec<OpenedFile>) -> Result<(Vec<u8>, Vec<u8>)> {
    let bad =
        |path: &Path, what, got: String, expected: String| Error::BadFile { path: path.into(), what, got, expected };
    let pixels = idx::read(images, Kind::Images)?;
    if pixels.size != (SIDE, SIDE) {
        let (rows, columns) = pixels.size;
        return Err(bad(images, "size of the pictures", format!("{rows} x {columns}"), format!("{SIDE} x {SIDE}")));
    }
    opened.push(set.opened(images, &pixels));
    let classes = idx::read(labels, Kind::Labels)?;
    if classes.n != pixels.n {
        let expected = format!("{}, that of the pictures in `{}`", pixels.n, images.display());
        return Err(bad(labels, "number of labels", classes.n.to_string(), expected));
    }
    if let Some(idx) = classes.bytes.iter().position(|&label| usize::from(label) >= N_CLASSES) {
        let got = format!("{} at place {idx}", classes.bytes[idx]);
        return Err(bad(labels, "label", got, format!("below {N_CLASSES}")));
    }
    opened.push(set.opened(labels, &classes));
    Ok((pixels.bytes, classes.bytes))
}

const N_CLASSES: usize = 10;

impl IdxSet {
    fn classes(self) -> Vec<String> {
        match self {
            Self::Mnist => (0..N_CLASSES).map(|digit| digit.to_string()).collect(),
            Self::FashionMnist => FASHION_CLASSES.map(String::from).to_vec(),
        }
    }

    /// The record of a file. Another compressor makes another `.gz` of the same content, so only where the content's own
    /// checksums are published can a file be said to differ.
    fn opened(self, path: &Path, idx: &Idx) -> OpenedFile {
        let content = idx.content.as_ref().unwrap_or(&idx.file);
        let checked = match self {
            Self::Mnist if MNIST_SHA256.contains(&content.sha256.as_str()) => Checked::Published,
            Self::Mnist => Checked::Differs,
            Self::FashionMnist if FASHION_GZIP_MD5.contains(&idx.file.md5.as_str()) => Checked::Published,
            Self::FashionMnist => Checked::No,
        };
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        OpenedFile { name, n_bytes: idx.file.n_bytes, sha256: idx.file.sha256.clone(), checked }
    }
}

/// Of the unpacked files: training pictures and labels, then those for the test.
const MNIST_SHA256: [&str; 4] = [
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
];

/// Of the `.gz` files, in the same order.
pub(crate) const FASHION_GZIP_MD5: [&str; 4] = [
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
];
