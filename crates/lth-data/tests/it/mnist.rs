//! MNIST's format: whole files, and all the ways in which they are not.

use std::fs;
use std::path::Path;

use lth_data::{Checked, IdxFiles, IdxSet, Pictures, open_idx};

use crate::support::{folder, gzip, write};

const PIXELS: usize = 28 * 28;

/// A file of pictures; picture i has the byte i + first everywhere but in its first two pixels.
pub(crate) fn images(n: usize, first: u8) -> Vec<u8> {
    let mut file = [0x0803, n as u32, 28, 28].map(u32::to_be_bytes).concat();
    for idx in 0..n {
        file.extend([1, 2]);
        file.extend(vec![first + idx as u8; PIXELS - 2]);
    }
    file
}

pub(crate) fn labels(labels: &[u8]) -> Vec<u8> {
    [&[0x0801, labels.len() as u32].map(u32::to_be_bytes).concat(), labels].concat()
}

/// Three pictures to train on and two for the test.
fn files() -> [(&'static str, Vec<u8>); 4] {
    [
        ("train-images-idx3-ubyte", images(3, 10)),
        ("train-labels-idx1-ubyte", labels(&[5, 0, 9])),
        ("t10k-images-idx3-ubyte", images(2, 20)),
        ("t10k-labels-idx1-ubyte", labels(&[7, 2])),
    ]
}

pub(crate) fn write_files(place: &Path) {
    for (name, bytes) in files() {
        write(place, name, &bytes);
    }
}

fn open(place: &Path) -> lth_data::Result<lth_data::UniformPictures> {
    open_idx(IdxSet::Mnist, &IdxFiles::in_folder(place)?).map(|(pictures, _)| pictures)
}

/// The message of an error after the file `name` got other bytes.
#[track_caller]
fn message(name: &str, bytes: &[u8]) -> String {
    let place = folder();
    write_files(place.path());
    write(place.path(), name, bytes);
    open(place.path()).unwrap_err().to_string()
}

#[test]
fn pictures_and_labels_are_those_of_the_files_in_their_order() {
    let place = folder();
    write_files(place.path());
    let set = open(place.path()).unwrap();
    assert_eq!((set.len(), set.n_channels(), set.published_test()), (5, 1, vec![3, 4]));
    let labels: Vec<u32> = (0..5).map(|idx| set.info(idx).label).collect();
    assert_eq!(labels, [5, 0, 9, 7, 2]);
    assert_eq!(set.info(0).name, "train/00000");
    assert_eq!(set.info(4).name, "test/00001");
    for (idx, byte) in [10, 11, 12, 20, 21].into_iter().enumerate() {
        let bytes = set.bytes(idx).unwrap();
        assert_eq!((bytes.len(), &bytes[..3], bytes[PIXELS - 1]), (PIXELS, &[1, 2, byte][..], byte));
    }
    assert_eq!(set.classes()[3], "3");
}

#[test]
fn gzip_is_recognised_by_content_and_changes_nothing() {
    let (plain, packed) = (folder(), folder());
    write_files(plain.path());
    for (idx, (name, bytes)) in files().into_iter().enumerate() {
        // Two of them under the wrong name: plain with `.gz`, packed without.
        let gz = if idx < 2 { ".gz" } else { "" };
        let bytes = if idx == 1 { bytes } else { gzip(&bytes) };
        write(packed.path(), &format!("{name}{gz}"), &bytes);
    }
    let (plain, packed) = (open(plain.path()).unwrap(), open(packed.path()).unwrap());
    assert_eq!(plain.content_sha256().unwrap(), packed.content_sha256().unwrap());
}

#[test]
fn several_gzip_members_are_one_file() {
    let place = folder();
    write_files(place.path());
    let bytes = images(3, 10);
    write(place.path(), "train-images-idx3-ubyte", &[gzip(&bytes[..1_000]), gzip(&bytes[1_000..])].concat());
    assert_eq!(open(place.path()).unwrap().bytes(2).unwrap()[5], 12);
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    let place = folder();
    write_files(place.path());
    for (name, whole) in [("train-labels-idx1-ubyte", labels(&[5, 0, 9])), ("t10k-images-idx3-ubyte", images(2, 20))] {
        for (whole, step) in [(whole.clone(), 1), (gzip(&whole), 1)] {
            for length in (0..whole.len()).step_by(step) {
                write(place.path(), name, &whole[..length]);
                let error = open(place.path()).unwrap_err().to_string();
                assert!(error.contains(name), "{length} bytes: {error}");
            }
            write(place.path(), name, &whole);
            open(place.path()).unwrap();
        }
    }
}

#[test]
fn a_file_that_is_too_long_is_an_error() {
    let long = [images(3, 10), vec![0]].concat();
    assert!(message("train-images-idx3-ubyte", &long).ends_with("length is 2369 bytes, expected 2368: 3 of 28 x 28"));
    let packed = message("train-images-idx3-ubyte", &gzip(&long));
    assert!(packed.ends_with("number of bytes after the header is more, expected 2352: 3 of 28 x 28"), "{packed}");
}

#[test]
fn a_bomb_is_unpacked_no_further_than_its_header_says() {
    // 256 MiB of zeros after a header that announces three pictures, and an end that is damaged: who unpacks as far as
    // that says so.
    let header = [0x0803, 3, 28, 28].map(u32::to_be_bytes).concat();
    let mut bomb = gzip(&[header, vec![0; 256 << 20]].concat());
    assert!(bomb.len() < 4 << 20, "{}", bomb.len());
    let end = bomb.len() - 8;
    bomb[end] ^= 1;
    let error = message("train-images-idx3-ubyte", &bomb);
    assert!(error.contains("number of bytes after the header is more, expected 2352"), "{error}");
}

#[test]
fn sizes_that_wrap_or_are_nothing_are_errors() {
    for (n, rows, columns) in [
        (u32::MAX, u32::MAX, u32::MAX),
        (1 << 16, 1 << 16, 1 << 16),
        (1 << 31, 2, 1),
        (0, 28, 28),
        (3, 0, 28),
        (1 << 30, 28, 28),
    ] {
        let header = [0x0803, n, rows, columns].map(u32::to_be_bytes).concat();
        for bytes in [header.clone(), gzip(&header)] {
            let error = message("train-images-idx3-ubyte", &bytes);
            let expected = format!("number of bytes is {n} of {rows} x {columns}, expected 1 to 1073741824");
            assert!(error.ends_with(&expected), "{error}");
        }
    }
    // What fits the limit, but not the file, reserves nothing of note.
    let header = [0x0803, 1_000_000, 28, 28].map(u32::to_be_bytes).concat();
    assert!(message("train-images-idx3-ubyte", &gzip(&header)).contains("number of bytes after the header is 0"));
}

#[test]
fn what_does_not_belong_together_is_an_error() {
    let error = message("train-images-idx3-ubyte", &labels(&[1; 20]));
    assert!(error.ends_with("magic number is 0x00000801, expected 0x00000803, that of pictures"), "{error}");
    assert!(message("t10k-labels-idx1-ubyte", &images(1, 0)).contains("magic number is 0x00000803"));
    assert!(message("t10k-labels-idx1-ubyte", b"\x89PNG\r\n\x1a\n").contains("magic number is 0x89504e47"));
    let error = message("train-labels-idx1-ubyte", &labels(&[1, 2]));
    assert!(error.contains("number of labels is 2, expected 3, that of the pictures in"), "{error}");
    let error = message("t10k-labels-idx1-ubyte", &labels(&[9, 10]));
    assert!(error.ends_with("label is 10 at place 1, expected below 10"), "{error}");
    let small = [&[0x0803, 3, 2, 2].map(u32::to_be_bytes).concat()[..], &[0; 12]].concat();
    assert!(message("train-images-idx3-ubyte", &small).ends_with("size of the pictures is 2 x 2, expected 28 x 28"));
}

#[test]
fn a_damaged_gzip_file_is_an_error() {
    let packed = gzip(&images(3, 10));
    let mut wrong_crc = packed.clone();
    let place = wrong_crc.len() - 8;
    wrong_crc[place] ^= 1;
    let error = message("train-images-idx3-ubyte", &wrong_crc);
    assert!(error.contains("expected an undamaged gzip member"), "{error}");
    // No byte of it can be changed unnoticed but those of the header that say nothing of the content.
    let place = folder();
    write_files(place.path());
    let whole = open(place.path()).unwrap().content_sha256().unwrap();
    for idx in 10..packed.len() {
        let mut changed = packed.clone();
        changed[idx] ^= 0x10;
        write(place.path(), "train-images-idx3-ubyte", &changed);
        if let Ok(set) = open(place.path()) {
            assert_eq!(set.content_sha256().unwrap(), whole, "byte {idx}");
        }
    }
}

#[test]
fn files_are_found_by_their_names() {
    let place = folder();
    write_files(place.path());
    // As torchvision leaves them: packed and unpacked.
    write(place.path(), "train-images-idx3-ubyte.gz", b"not looked at");
    write(place.path(), "._t10k-images-idx3-ubyte", b"nor this");
    open(place.path()).unwrap();
    fs::rename(place.path().join("t10k-labels-idx1-ubyte"), place.path().join("test-labels.idx1-ubyte")).unwrap();
    open(place.path()).unwrap();
    write(place.path(), "t10k-labels-idx1-ubyte", b"which?");
    let error = open(place.path()).unwrap_err().to_string();
    assert!(error.contains("t10k-labels-idx1-ubyte` among them` is there twice"), "{error}");
    fs::remove_file(place.path().join("t10k-labels-idx1-ubyte")).unwrap();
    fs::remove_file(place.path().join("test-labels.idx1-ubyte")).unwrap();
    let error = open(place.path()).unwrap_err().to_string();
    assert!(error.contains("expected the four files of the set, `t10k-labels-idx1-ubyte` among them"), "{error}");
}

#[test]
fn what_was_checked_is_said_of_every_file() {
    let place = folder();
    write_files(place.path());
    let files = IdxFiles::in_folder(place.path()).unwrap();
    let (_, opened) = open_idx(IdxSet::Mnist, &files).unwrap();
    assert_eq!(opened.iter().map(|file| file.checked).collect::<Vec<_>>(), [Checked::Differs; 4]);
    assert_eq!(opened[1].name, "train-labels-idx1-ubyte");
    assert_eq!(opened[1].n_bytes, 11);
    // printf '\0\0\10\1\0\0\0\3\5\0\11' | sha256sum
    assert_eq!(opened[1].sha256, "426dc2e9e7eea081ebaf345cde82a628112f5fc54a1e6b128e8b394a879f3a18");
    let (_, opened) = open_idx(IdxSet::FashionMnist, &files).unwrap();
    assert_eq!(opened.iter().map(|file| file.checked).collect::<Vec<_>>(), [Checked::No; 4]);
    assert_eq!(Checked::weakest(&opened), Checked::No);
}
