//! CIFAR's binary version, in an archive and unpacked.

use lth_data::{
    CIFAR_10_CLASSES, CIFAR_100_CLASSES, Checked, CifarSet, Error, Pictures, Progress, Source, UniformPictures,
    open_cifar,
};

use crate::support::{folder, gzip, tar, under, write};

const PLANE: usize = 1_024;

/// A record: labels, then planes of red, green and blue that count their pixels from `first`.
fn record(labels: &[u8], first: u8) -> Vec<u8> {
    let plane = |start: u8| (0..PLANE).map(move |pixel| start.wrapping_add(pixel as u8));
    labels.iter().copied().chain(plane(first)).chain(plane(first + 50)).chain(plane(first + 100)).collect()
}

/// The files of CIFAR-10 in the order in which the real archive has them; two records in each.
pub(crate) fn cifar_10() -> Vec<(String, Vec<u8>)> {
    let two = |number: u8| [record(&[number], number), record(&[9], 100 + number)].concat();
    let mut files: Vec<(String, Vec<u8>)> =
        [1, 4, 3, 5, 2].iter().map(|&number| (format!("data_batch_{number}.bin"), two(number))).collect();
    files.push(("batches.meta.txt".into(), b"airplane\n".to_vec()));
    files.push(("readme.html".into(), b"<html>".to_vec()));
    files.push(("test_batch.bin".into(), two(0)));
    files
}

fn cifar_100() -> Vec<(String, Vec<u8>)> {
    let files = [
        ("coarse_label_names.txt", b"aquatic_mammals\n".to_vec()),
        ("test.bin", record(&[0, 1], 3)),
        ("train.bin", [record(&[19, 99], 1), record(&[4, 0], 2)].concat()),
    ];
    files.map(|(name, bytes)| (name.to_owned(), bytes)).to_vec()
}

fn open(set: CifarSet, files: &[(String, Vec<u8>)]) -> lth_data::Result<UniformPictures> {
    let place = folder();
    let path = write(place.path(), "cifar.tar.gz", &gzip(&tar(&under("cifar-10-batches-bin/", files))));
    open_cifar(set, &Source::Archives(vec![path]), &mut |_| {}).map(|(pictures, _)| pictures)
}

#[test]
fn records_become_pictures_in_the_order_of_the_files() {
    let set = open(CifarSet::Cifar10, &cifar_10()).unwrap();
    assert_eq!((set.len(), set.n_channels(), set.published_test()), (12, 3, vec![10, 11]));
    let labels: Vec<u32> = (0..12).map(|idx| set.info(idx).label).collect();
    assert_eq!(labels, [1, 9, 2, 9, 3, 9, 4, 9, 5, 9, 0, 9]);
    assert_eq!(set.classes(), CIFAR_10_CLASSES);
    // The channels come innermost; picture 2 is the first of batch 2.
    let bytes = set.bytes(2).unwrap();
    assert_eq!((bytes.len(), &bytes[..6]), (3_072, &[2, 52, 102, 3, 53, 103][..]));
    let last = 2_u8.wrapping_add(255);
    assert_eq!(bytes[3_069..], [last, last.wrapping_add(50), last.wrapping_add(100)]);
    assert_eq!((set.info(2).width, set.info(2).height, set.info(10).name), (32, 32, "test/00000"));
}

#[test]
fn the_fine_label_of_cifar_100_counts() {
    let set = open(CifarSet::Cifar100, &cifar_100()).unwrap();
    let labels: Vec<u32> = (0..3).map(|idx| set.info(idx).label).collect();
    assert_eq!((labels, set.published_test()), (vec![99, 0, 1], vec![2]));
    assert_eq!(set.classes(), CIFAR_100_CLASSES);
    assert_eq!(set.bytes(1).unwrap()[..3], [2, 52, 102]);
}

#[test]
fn folder_plain_archive_and_gzip_hold_the_same_set() {
    let place = folder();
    let files = under("cifar-10-batches-bin/", &cifar_10());
    for (name, bytes) in &files {
        write(&place.path().join("unpacked"), name, bytes);
    }
    let sources = [
        Source::Folder(place.path().join("unpacked")),
        Source::Folder(place.path().join("unpacked/cifar-10-batches-bin")),
        Source::Archives(vec![write(place.path(), "plain.tar.gz", &tar(&files))]),
        Source::Archives(vec![write(place.path(), "packed.tar", &gzip(&tar(&files)))]),
    ];
    let mut hashes = Vec::new();
    for source in sources {
        let mut seen = Vec::new();
        let (set, opened) = open_cifar(CifarSet::Cifar10, &source, &mut |progress| seen.push(progress)).unwrap();
        hashes.push(set.content_sha256().unwrap());
        let n_files = if matches!(source, Source::Folder(_)) { 6 } else { 1 };
        assert_eq!(opened.iter().map(|file| file.checked).collect::<Vec<_>>(), vec![Checked::Differs; n_files]);
        assert_eq!(seen.len(), 6);
        assert!(
            matches!(seen[5], Progress::Decoding { n_pictures: 12, n_bytes, n_bytes_total } if n_bytes <= n_bytes_total)
        );
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
}

/// The message of an error after `change`.
#[track_caller]
fn message(set: CifarSet, change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> String {
    let mut files = if set == CifarSet::Cifar10 { cifar_10() } else { cifar_100() };
    change(&mut files);
    open(set, &files).unwrap_err().to_string()
}

#[test]
fn files_that_are_none_are_errors() {
    use CifarSet::{Cifar10, Cifar100};
    let error = message(Cifar10, |files| files[3].1[3_073] = 10);
    assert!(error.ends_with("data_batch_5.bin`: label is 10 in record 1, expected below 10"), "{error}");
    let error = message(Cifar100, |files| files[2].1[0] = 20);
    assert!(error.ends_with("train.bin`: coarse label is 20 in record 0, expected below 20"), "{error}");
    let error = message(Cifar100, |files| files[2].1[1] = 100);
    assert!(error.ends_with("fine label is 100 in record 0, expected below 100"), "{error}");
    for length in [0, 1, 3_072, 3_074, 6_145] {
        let error = message(Cifar10, |files| files[0].1.truncate(length));
        let expected = format!(
            "data_batch_1.bin`: length is {length} bytes, expected a whole number of records of 3073, at least one"
        );
        assert!(error.ends_with(&expected), "{error}");
    }
    let error = message(Cifar10, |files| drop(files.remove(1)));
    assert!(error.contains("expected `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`"), "{error}");
    let error = message(Cifar10, |files| files.push(files[0].clone()));
    assert!(error.starts_with("picture `data_batch_1.bin` is there twice"), "{error}");
    // The other set, or the version for Python.
    assert!(message(Cifar100, |files| *files = cifar_10()).starts_with("no pictures in"));
}

#[test]
fn an_archive_cut_short_anywhere_is_an_error() {
    let place = folder();
    let whole = gzip(&tar(&under("cifar-100-binary/", &cifar_100())));
    for length in 0..whole.len() {
        let path = write(place.path(), "cut.tar.gz", &whole[..length]);
        open_cifar(CifarSet::Cifar100, &Source::Archives(vec![path]), &mut |_| {}).unwrap_err();
    }
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    let place = folder();
    let mut bytes = tar(&[("xx/test.bin".to_owned(), record(&[0, 1], 3))]);
    bytes[..2].copy_from_slice(b"..");
    // The header's checksum, as tar has it.
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|&byte| u32::from(byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let path = write(place.path(), "hostile.tar", &bytes);
    let error = open_cifar(CifarSet::Cifar100, &Source::Archives(vec![path]), &mut |_| {}).unwrap_err();
    assert!(matches!(&error, Error::HostileArchive { entry, .. } if entry == "../test.bin"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_link_is_no_file_of_the_set() {
    let place = folder();
    for (name, bytes) in cifar_100() {
        write(place.path(), &name, &bytes);
    }
    std::fs::remove_file(place.path().join("test.bin")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path().join("test.bin")).unwrap();
    let error = open_cifar(CifarSet::Cifar100, &Source::Folder(place.path().into()), &mut |_| {}).unwrap_err();
    assert!(error.to_string().ends_with("content is a link that leads nowhere, expected a file"), "{error}");
}
