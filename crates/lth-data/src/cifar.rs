//! CIFAR-10 and CIFAR-100 in their binary version.
//!
//! A record is a label (of CIFAR-100 two: coarse, then fine) and 3,072 bytes: 32×32 of red, then of green, then of blue,
//! rows from the top. Source: A. Krizhevsky 2009, *Learning Multiple Layers of Features from Tiny Images*, and
//! <https://www.cs.toronto.edu/~kriz/cifar.html>, "Binary version".

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::checked::{Checked, Hashing, OpenedFile};
use crate::error::{Error, Result};
use crate::open::Progress;
use crate::source::{Content, Source, hex, walk};
use crate::uniform::UniformPictures;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CifarSet {
    /// Ten classes.
    Cifar10,
    /// A hundred classes, which the set calls fine labels.
    Cifar100,
}

/// Class names of CIFAR-10; the index is the label.
pub const CIFAR_10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Names of the fine classes of CIFAR-100; the index is the label.
#[rustfmt::skip]
pub const CIFAR_100_CLASSES: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

/// Side of the pictures.
pub(crate) const SIDE: usize = 32;
const N_PIXELS: usize = SIDE * SIDE;
const N_CHANNELS: usize = 3;
const PICTURE: usize = N_PIXELS * N_CHANNELS;
/// CIFAR-100's training file has 153,700,000 bytes.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Folders in folders that are searched.
const MAX_DEPTH: usize = 4;

/// A file of a set: its name, whether it is for the test, and its SHA-256. The makers publish the checksums of the
/// archives; these are the sums of what is in them.
type SetFile = (&'static str, bool, &'static str);

const CIFAR_10_FILES: [SetFile; 6] = [
    ("data_batch_1.bin", false, "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
    ("data_batch_2.bin", false, "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
    ("data_batch_3.bin", false, "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
    ("data_batch_4.bin", false, "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
    ("data_batch_5.bin", false, "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
    ("test_batch.bin", true, "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
];
const CIFAR_100_FILES: [SetFile; 2] = [
    ("train.bin", false, "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"),
    ("test.bin", true, "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"),
];

impl CifarSet {
    fn files(self) -> &'static [SetFile] {
        match self {
            Self::Cifar10 => &CIFAR_10_FILES,
            Self::Cifar100 => &CIFAR_100_FILES,
        }
    }

    fn classes(self) -> Vec<String> {
        match self {
            Self::Cifar10 => CIFAR_10_CLASSES.map(String::from).to_vec(),
            Self::Cifar100 => CIFAR_100_CLASSES.map(String::from).to_vec(),
        }
    }

    /// Labels before a picture, each with the number of its classes; the last one counts.
    fn labels(self) -> &'static [(&'static str, usize)] {
        match self {
            Self::Cifar10 => &[("label", 10)],
            Self::Cifar100 => &[("coarse label", 20), ("fine label", 100)],
        }
    }

    /// What is looked for, for messages.
    fn expected(self) -> &'static str {
        match self {
            Self::Cifar10 => "`data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin` of the binary version",
            Self::Cifar100 => "`train.bin` and `test.bin` of the binary version",
        }
    }
}

/// The pictures of `set` in the order of its files, RGB, and the files: of an archive the archive, of a folder those in
/// it. A file is [`Checked::Published`] if everything that was taken from it has the known checksum. `progress` is called
/// from this thread.
///
/// # Errors
/// If the source cannot be read or is damaged, a file is missing, twice there or no whole number of records, or a label is
/// no class.
pub fn open_cifar(
    set: CifarSet,
    source: &Source,
    progress: &mut dyn FnMut(Progress),
) -> Result<(UniformPictures, Vec<OpenedFile>)> {
    let mut parts = read_files(set, source, progress)?;
    let mut opened = record(set, source, &parts)?;
    opened.sort_by(|a, b| a.name.cmp(&b.name));

    let n_bytes: usize = parts.values().map(|part| part.pixels.len()).sum();
    let (mut pixels, mut labels, mut n_train) = (Vec::new(), Vec::new(), 0);
    pixels.reserve_exact(n_bytes);
    for (name, is_test, _) in set.files() {
        let part = parts.remove(name).ok_or_else(|| missing(set, source))?;
        pixels.extend_from_slice(&part.pixels);
        labels.extend_from_slice(&part.labels);
        n_train += if *is_test { 0 } else { part.labels.len() };
    }
    let pictures = UniformPictures::new((SIDE, SIDE, N_CHANNELS), set.classes(), labels, pixels, n_train)?;
    Ok((pictures, opened))
}

fn missing(set: CifarSet, source: &Source) -> Error {
    Error::NoPictures { place: source.in_words(), expected: set.expected() }
}

/// What is in one of the set's files.
struct Part {
    labels: Vec<u8>,
    /// Channels innermost.
    pixels: Vec<u8>,
    n_bytes: u64,
    sha256: String,
}

/// All files of the set by their names.
fn read_files(
    set: CifarSet,
    source: &Source,
    progress: &mut dyn FnMut(Progress),
) -> Result<BTreeMap<&'static str, Part>> {
    let found = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        set.files().iter().map(|(name, ..)| *name).find(|wanted| *wanted == name)
    };
    let files = match source {
        Source::Folder(folder) => walk(folder, "", MAX_DEPTH)?,
        Source::Archives(_) => Vec::new(),
    };
    let n_bytes_total = match source {
        Source::Folder(_) => files.iter().filter(|file| found(&file.path).is_some()).map(|file| file.n_bytes).sum(),
        Source::Archives(paths) => {
            let length = |path: &PathBuf| Ok(std::fs::metadata(path).map_err(Error::io("read", path))?.len());
            paths.iter().map(length).sum::<Result<u64>>()?
        }
    };
    let n_bytes = Cell::new(0);
    let mut parts = BTreeMap::new();
    let mut n_pictures = 0;
    let wanted = |path: &str| found(path).map(|_| MAX_FILE_BYTES);
    source.read(&files, &wanted, &|n| n_bytes.set(n_bytes.get() + n), &mut |files| {
        for file in files {
            let file = file?;
            let Some(name) = found(&file.path) else { continue };
            let bad = |what, got: String, expected: String| Error::BadFile {
                path: place(source, &file.path),
                what,
                got,
                expected,
            };
            let bytes = match file.content {
                Content::Bytes(bytes) => bytes,
                Content::Missing(why) | Content::NoFile(why) => {
                    return Err(bad("content", why.to_owned(), "a file".into()));
                }
                Content::TooLarge | Content::NotWanted => {
                    let expected = format!("at most {MAX_FILE_BYTES} bytes");
                    return Err(bad("length", "more".into(), expected));
                }
            };
            let part = Part::of(set, bytes, &bad)?;
            n_pictures += part.labels.len();
            if parts.insert(name, part).is_some() {
                return Err(Error::DuplicatePicture { name: name.into(), place: source.in_words() });
            }
            let n_bytes = n_bytes.get().min(n_bytes_total);
            progress(Progress::Decoding { n_pictures, n_bytes, n_bytes_total });
        }
        Ok(())
    })?;
    if parts.len() < set.files().len() {
        return Err(missing(set, source));
    }
    Ok(parts)
}

/// A file of a source, for messages.
fn place(source: &Source, path: &str) -> PathBuf {
    match source {
        Source::Folder(folder) => folder.join(path),
        Source::Archives(archives) => match &archives[..] {
            [archive] => archive.join(path),
            _ => path.into(),
        },
    }
}

impl Part {
    /// Takes the records of a file apart, in the memory that they are in.
    fn of(set: CifarSet, mut bytes: Vec<u8>, bad: &dyn Fn(&'static str, String, String) -> Error) -> Result<Self> {
        let (n_bytes, sha256) = (bytes.len() as u64, hex(Sha256::new_with_prefix(&bytes)));
        let n_labels = set.labels().len();
        let record = n_labels + PICTURE;
        let n = bytes.len() / record;
        if n == 0 || !bytes.len().is_multiple_of(record) {
            let expected = format!("a whole number of records of {record}, at least one");
            return Err(bad("length", format!("{} bytes", bytes.len()), expected));
        }
        let mut labels = Vec::with_capacity(n);
        let mut picture = [0; PICTURE];
        for idx in 0..n {
            let start = idx * record;
            for ((what, n_classes), &label) in set.labels().iter().zip(&bytes[start..]) {
                if usize::from(label) >= *n_classes {
                    return Err(bad(what, format!("{label} in record {idx}"), format!("below {n_classes}")));
                }
            }
            labels.push(bytes[start + n_labels - 1]);
            let planes = &bytes[start + n_labels..][..PICTURE];
            for (pixel, place) in picture.as_chunks_mut::<N_CHANNELS>().0.iter_mut().zip(0..) {
                *pixel = [planes[place], planes[N_PIXELS + place], planes[2 * N_PIXELS + place]];
            }
            // Without the labels a picture lies before where its record began: no other is overwritten.
            bytes[idx * PICTURE..][..PICTURE].copy_from_slice(&picture);
        }
        bytes.truncate(n * PICTURE);
        Ok(Self { labels, pixels: bytes, n_bytes, sha256 })
    }
}

/// The records of the files: archives as they lie there, or the files of a folder.
fn record(set: CifarSet, source: &Source, parts: &BTreeMap<&'static str, Part>) -> Result<Vec<OpenedFile>> {
    let checked = |name: &str, part: &Part| {
        let is_known = set.files().iter().any(|(known, _, sha256)| *known == name && *sha256 == part.sha256);
        if is_known { Checked::Published } else { Checked::Differs }
    };
    match source {
        Source::Folder(_) => Ok(parts
            .iter()
            .map(|(name, part)| OpenedFile {
                name: (*name).to_owned(),
                n_bytes: part.n_bytes,
                sha256: part.sha256.clone(),
                checked: checked(name, part),
            })
            .collect()),
        Source::Archives(archives) => {
            let all = parts.iter().all(|(name, part)| checked(name, part) == Checked::Published);
            let checked = if all { Checked::Published } else { Checked::Differs };
            archives.iter().map(|path| opened_file(path, checked)).collect()
        }
    }
}

/// The record of a file, for which it is read to its end.
pub(crate) fn opened_file(path: &Path, checked: Checked) -> Result<OpenedFile> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut file = Hashing::new(io::BufReader::with_capacity(1 << 20, file));
    copy(&mut file).map_err(Error::io("read", path))?;
    let digests = file.finish().1;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(OpenedFile { name, n_bytes: digests.n_bytes, sha256: digests.sha256, checked })
}

/// Reads to the end in large pieces.
fn copy(file: &mut dyn Read) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names_are_as_many_as_classes_and_in_order() {
        for names in [&CIFAR_10_CLASSES[..], &CIFAR_100_CLASSES[..]] {
            assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        }
    }
}
