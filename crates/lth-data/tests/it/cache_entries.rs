//! What the cache holds is told, and removed; nobody else's files are.

use std::fs;
use std::path::{Path, PathBuf};

use lth_data::toy_pets::ToyPets;
use lth_data::{CacheKind, DatasetName, Error, Source, cache_entries, open_pets};

use crate::support::{folder, options, pets, tar, under, write};

fn names(cache: &Path) -> Vec<(String, CacheKind)> {
    cache_entries(cache).unwrap().into_iter().map(|entry| (entry.name, entry.kind)).collect()
}

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn decoded_and_drawn_pictures_are_known_and_removed() {
    let place = folder();
    let cache = options(place.path()).cache_dir;
    assert_eq!(names(&cache), [], "no folder is an empty cache");
    let toys = ToyPets { pictures: 24, ..ToyPets::default() };
    let drawn = cache.join("toy-pets-24-seed42");
    toys.write_to(&drawn, &|_, _| {}).unwrap();
    let archive = write(place.path(), "mine.tar", &tar(&under("images/", &pets())));
    for source in [Source::Folder(drawn.clone()), Source::Archives(vec![archive.clone()])] {
        open_pets(&source, &options(place.path()), &mut |_| {}).unwrap();
    }
    let entries = cache_entries(&cache).unwrap();
    let (of_toys, others): (Vec<_>, Vec<_>) =
        entries.iter().partition(|entry| entry.datasets == [DatasetName::ToyPets]);
    assert_eq!(of_toys.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [CacheKind::Pictures, CacheKind::Drawn]);
    assert_eq!(
        others.iter().map(|entry| (entry.kind, &entry.datasets[..])).collect::<Vec<_>>(),
        [(CacheKind::Pictures, &[][..])]
    );
    for entry in &entries {
        assert!(entry.n_bytes > 0 && entry.last_used.is_some(), "{entry:?}");
    }
    // What somebody put there stays, and so does its folder.
    let mine = write(&drawn, "images/mine.jpg", b"mine");
    let whole: u64 = files(&cache).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert_eq!(entries.iter().map(|entry| entry.n_bytes).sum::<u64>() + 4, whole);
    for entry in entries {
        entry.remove().unwrap();
    }
    assert_eq!(names(&cache), []);
    let left = files(&cache);
    assert!(left.contains(&mine) && archive.exists(), "{left:?}");
    assert!(left.iter().all(|file| *file == mine || fs::metadata(file).unwrap().len() == 0), "{left:?}");
}

#[test]
fn pictures_that_are_read_or_made_are_not_removed() {
    let place = folder();
    let cache = options(place.path()).cache_dir;
    let archive = write(place.path(), "mine.tar", &tar(&under("images/", &pets())));
    let (pictures, _) = open_pets(&Source::Archives(vec![archive]), &options(place.path()), &mut |_| {}).unwrap();
    let entry = cache_entries(&cache).unwrap().remove(0);
    let in_use = |entry: &lth_data::CacheEntry| {
        let error = entry.remove().unwrap_err();
        assert!(matches!(&error, Error::CacheInUse { name } if *name == entry.name), "{error}");
        assert_eq!(names(&cache).len(), 1);
    };
    in_use(&entry);
    drop(pictures);
    let lock = fs::File::open(cache.join(entry.name.replace(".pictures", ".lock"))).unwrap();
    lock.lock().unwrap();
    in_use(&entry);
    drop(lock);
    entry.remove().unwrap();
    assert_eq!(names(&cache), []);
    entry.remove().expect("it is gone already");
}

#[test]
fn what_only_looks_like_the_caches_own_is_left_alone() {
    let place = folder();
    let cache = options(place.path()).cache_dir;
    for file in [
        "notes.txt",
        "pictures/pets-0123456789abcdef.pictures", // without the format's first bytes
        "pictures/pets-0123456789abcdef.lock",
        "pictures/holiday.pictures",
        "pictures/pets-0123.partial",
        "downloads/images.tar.gz",
        "downloads/sha256-0123456789abcdef/images.tar.gz", // without a note
        "downloads/sha256-0123456789abcdef/images.tar.gz.unexpected-1",
        "downloads/sha256-0123456789abcdef/other.part", // without a note
        "downloads/mine/images.tar.gz",
        "toy-pets-3-seed1/images/pug_1.jpg", // without a marker
    ] {
        write(&cache, file, b"mine");
    }
    write(&cache, "toy-pets-9-seed1/toy-pets.json", b"{\"format\": 2");
    let noted = write(&cache, "downloads/sha256-0123456789abcdef/noted.tar.gz", b"mine");
    let note = r#"{"size": 4, "modified_nanoseconds": 1, "sha256": "00", "url": null}"#;
    fs::write(noted.with_file_name("noted.tar.gz.verified.json"), note).unwrap(); // of another time
    assert_eq!(names(&cache), []);
    #[cfg(unix)]
    {
        // A link leads out of the cache.
        let elsewhere = folder();
        ToyPets { pictures: 3, ..ToyPets::default() }.write_to(&elsewhere.path().join("toys"), &|_, _| {}).unwrap();
        std::os::unix::fs::symlink(elsewhere.path().join("toys"), cache.join("toys")).unwrap();
        assert_eq!(names(&cache), []);
    }
}

#[cfg(feature = "download")]
#[test]
fn downloads_are_known_by_their_notes() {
    use lth_data::download::{Check, Downloader, Options, Resource};
    use sha2::{Digest, Sha256};

    use crate::http::{Server, file};

    let place = folder();
    let cache = place.path().join("cache");
    let content = b"content".to_vec();
    let sum: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let server = Server::start(move |_, request, stream| {
        file(stream, request, &content, "\"a\"", if request.path == "/cut" { 3 } else { usize::MAX });
    });
    let options = Options { attempts: 1, spare: 0, proxies: lth_data::download::Proxies::Direct, ..Options::default() };
    let downloader = Downloader::new(cache.join("downloads"), options);
    let wanted = |name: &str, path: &str| Resource {
        name: name.to_owned(),
        urls: vec![server.url(path)],
        size: Some(7),
        most: 7,
        check: Check::Sha256(sum.clone()),
    };
    downloader.fetch(&wanted("train-labels-idx1-ubyte.gz", "/whole"), &|_| {}).unwrap();
    downloader.fetch(&wanted("images.tar.gz", "/cut"), &|_| {}).unwrap_err();
    let entries = cache_entries(&cache).unwrap();
    let below = format!("downloads/sha256-{}", &sum[..16]);
    assert_eq!(
        names(&cache),
        [
            (format!("{below}/images.tar.gz.part"), CacheKind::PartialDownload),
            (format!("{below}/train-labels-idx1-ubyte.gz"), CacheKind::Download),
        ]
    );
    assert_eq!(entries[0].datasets, [DatasetName::Pets, DatasetName::PetsBreeds]);
    assert_eq!(entries[1].datasets, [DatasetName::Mnist]);
    for entry in entries {
        entry.remove().unwrap();
    }
    assert!(files(&cache).iter().all(|file| file.extension().is_some_and(|end| end == "lock")), "{:?}", files(&cache));
}
