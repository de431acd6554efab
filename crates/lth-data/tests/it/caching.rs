//! The cache file: used when it fits, made anew when it does not, never trusted.

use std::fs::{self, OpenOptions as File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use lth_data::{CachedPictures, Error, Pictures, Progress, Source, Summary, open_pets};

use crate::support::{folder, gzip, options, pets, tar, under, write};

fn archive(place: &Path) -> Source {
    Source::Archives(vec![write(place, "pets.tgz", &gzip(&tar(&under("images/", &pets()))))])
}

fn open(source: &Source, place: &Path) -> (CachedPictures, Summary) {
    open_pets(source, &options(place), &mut |_| {}).unwrap()
}

fn content(pictures: &CachedPictures) -> Vec<Vec<u8>> {
    let read = |idx| {
        let mut bytes = Vec::new();
        pictures.read(idx, &mut bytes).unwrap();
        bytes
    };
    (0..pictures.len()).map(read).collect()
}

#[test]
fn the_second_opening_reads_what_the_first_made() {
    let place = folder();
    let source = archive(place.path());
    let mut last = None;
    let (first, summary) = open_pets(&source, &options(place.path()), &mut |progress| last = Some(progress)).unwrap();
    assert!(!summary.from_cache);
    let n = fs::metadata(place.path().join("pets.tgz")).unwrap().len();
    assert_eq!(last, Some(Progress::Decoding { n_pictures: 12, n_bytes: n, n_bytes_total: n }));
    let (second, again) = open_pets(&source, &options(place.path()), &mut |_| panic!("decoded twice")).unwrap();
    assert!(again.from_cache);
    assert_eq!(again, Summary { from_cache: true, ..summary });
    assert_eq!(content(&first), content(&second));
}

#[test]
fn the_file_is_the_same_whatever_the_number_of_threads() {
    let file = |n_threads| {
        let place = folder();
        // The state of the source is in the file, and an archive's time of change in that.
        let images = under("images/", &pets());
        let path = write(place.path(), "pets.tar", &tar(&images));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let (pictures, summary) = pool.install(|| open(&Source::Archives(vec![path]), place.path()));
        let bytes = fs::read(summary.cache_file).unwrap();
        let n_picture_bytes: usize = content(&pictures).iter().map(Vec::len).sum();
        bytes[64..64 + n_picture_bytes].to_vec()
    };
    let one = file(1);
    assert_eq!(one, file(2));
    assert_eq!(one, file(4));
}

#[test]
fn a_changed_source_is_decoded_again() {
    let place = folder();
    let mut images = pets();
    let unpack = |images: &[(String, Vec<u8>)]| {
        for (name, bytes) in images {
            write(place.path(), &format!("pets/images/{name}"), bytes);
        }
    };
    unpack(&images);
    let source = Source::Folder(place.path().join("pets"));
    let (before, summary) = open(&source, place.path());
    // The same number of bytes, so that only the time of change tells.
    images[0].1.extend_from_slice(&[1, 2, 3]);
    images[1].1.extend_from_slice(&[1, 2, 3]);
    let removed = images.pop().unwrap().0;
    unpack(&images);
    fs::remove_file(place.path().join("pets/images").join(removed)).unwrap();
    let (after, again) = open(&source, place.path());
    assert!(!again.from_cache);
    assert_eq!((before.len(), after.len()), (12, 11));
    assert_eq!(summary.cache_file, again.cache_file, "the old file is replaced, not kept beside the new one");
    // The old one is open still, and complete.
    assert_eq!(content(&before)[..11], content(&after)[..]);
}

/// Writes `bytes` into the cache file at `at`.
fn spoil(path: &Path, at: SeekFrom, bytes: &[u8]) {
    let mut file = File::new().write(true).open(path).unwrap();
    file.seek(at).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_damaged_or_cut_file_is_made_anew_when_it_is_opened() {
    let place = folder();
    let source = archive(place.path());
    let (pictures, summary) = open(&source, place.path());
    let (expected, path) = (content(&pictures), summary.cache_file);
    let whole = fs::read(&path).unwrap();
    let damages: [(&str, &dyn Fn()); 6] = [
        ("header", &|| spoil(&path, SeekFrom::Start(20), &[0xEE])),
        ("index", &|| spoil(&path, SeekFrom::End(-30), b"xxxx")),
        ("cut in the index", &|| fs::write(&path, &whole[..whole.len() - 1]).unwrap()),
        ("cut in the pictures", &|| fs::write(&path, &whole[..1_000]).unwrap()),
        ("empty", &|| fs::write(&path, b"").unwrap()),
        ("longer", &|| fs::write(&path, [&whole[..], b"x"].concat()).unwrap()),
    ];
    for (damage, spoil) in damages {
        spoil();
        let (pictures, summary) = open(&source, place.path());
        assert!(!summary.from_cache, "{damage}");
        assert_eq!(content(&pictures), expected, "{damage}");
        assert_eq!(fs::read(&path).unwrap(), whole, "{damage}");
    }
}

#[test]
fn a_picture_damaged_in_the_file_is_made_anew_when_it_is_read() {
    let place = folder();
    let source = archive(place.path());
    let (pictures, summary) = open(&source, place.path());
    let expected = content(&pictures);
    spoil(&summary.cache_file, SeekFrom::Start(64 + 5_000), &[1, 2, 3, 4, 5]);
    let (pictures, summary) = open(&source, place.path());
    assert!(summary.from_cache, "the pictures are not looked at when it is opened");
    assert_eq!(content(&pictures), expected);
    let (pictures, summary) = open(&source, place.path());
    assert!(summary.from_cache);
    assert_eq!(content(&pictures), expected);
}

#[test]
fn a_file_cut_while_it_is_open_is_made_anew() {
    let place = folder();
    let source = archive(place.path());
    let (pictures, summary) = open(&source, place.path());
    let expected = content(&pictures);
    File::new().write(true).open(&summary.cache_file).unwrap().set_len(100).unwrap();
    assert_eq!(content(&pictures), expected);
}

#[test]
fn a_damaged_picture_whose_source_is_gone_is_an_error() {
    let place = folder();
    let source = archive(place.path());
    let (pictures, summary) = open(&source, place.path());
    spoil(&summary.cache_file, SeekFrom::Start(64), &[1, 2, 3, 4, 5]);
    fs::remove_file(place.path().join("pets.tgz")).unwrap();
    let mut bytes = Vec::new();
    let error = pictures.read(0, &mut bytes).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("pets.tgz"), "{error}");
}

#[test]
fn a_failed_or_interrupted_run_leaves_nothing_behind_that_counts() {
    let place = folder();
    let good = gzip(&tar(&under("images/", &pets())));
    let path = write(place.path(), "pets.tgz", &good[..good.len() / 2]);
    let source = Source::Archives(vec![path]);
    open_pets(&source, &options(place.path()), &mut |_| {}).unwrap_err();
    let cache = place.path().join("cache/pictures");
    let left = || fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left().all(|name| name.ends_with(".lock")), "{:?}", left().collect::<Vec<_>>());
    // What a killed run leaves has another name and is overwritten.
    let name = left().next().unwrap().replace(".lock", ".partial");
    write(&cache, &name, b"half a file");
    archive(place.path());
    let (pictures, summary) = open(&source, place.path());
    assert_eq!((pictures.len(), summary.from_cache), (12, false));
    assert!(!cache.join(name).exists());
}

#[test]
fn two_at_once_decode_once() {
    let place = folder();
    let source = archive(place.path());
    let results: Vec<bool> = std::thread::scope(|scope| {
        let open = || open(&source, place.path()).1.from_cache;
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|from_cache| !**from_cache).count(), 1, "{results:?}");
}

#[test]
fn a_cache_folder_that_cannot_be_made_is_named() {
    let place = folder();
    let source = archive(place.path());
    write(place.path(), "cache", b"a file where the folder should be");
    let error = open_pets(&source, &options(place.path()), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Io { action: "create folder", .. }), "{error}");
    assert_eq!(fs::read(place.path().join("cache")).unwrap(), b"a file where the folder should be");
}
