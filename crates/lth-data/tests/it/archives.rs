//! Archives, honest and not.

use image::ImageFormat;
use lth_data::{DamagedPolicy, Error, Format, Misnamed, OpenOptions, Pictures, Source, open_folder, open_pets};

use crate::support::{folder, gzip, open_archive, options, pets, picture, tar, under, write};

#[test]
fn one_archive_two_archives_plain_tar_and_every_folder_give_the_same_pictures() {
    let place = folder();
    let place = place.path();
    let list = "#Image CLASS-ID SPECIES BREED ID\nAbyssinian_1 1 1 1\nbeagle_1 5 2 4\nbeagle_9 5 2 4\n";
    let list = vec![("list.txt".to_string(), list.as_bytes().to_vec())];
    let images = pets();
    let single = [under("oxford-iiit-pet/images/", &images), under("oxford-iiit-pet/annotations/", &list)].concat();
    let single = write(place, "single.tgz", &gzip(&tar(&single)));
    let plain = write(place, "images.tar.gz", &tar(&under("./images/", &images)));
    let gzipped = write(place, "annotations.tar.gz", &gzip(&tar(&under("annotations/", &list))));
    for (name, bytes) in &images {
        write(place, &format!("unpacked/oxford-iiit-pet/images/{name}"), bytes);
    }
    write(place, "unpacked/oxford-iiit-pet/annotations/list.txt", &list[0].1);

    let mut all = Vec::new();
    for source in [
        Source::Archives(vec![single]),
        Source::Archives(vec![plain, gzipped]),
        Source::Folder(place.join("unpacked")),
        Source::Folder(place.join("unpacked/oxford-iiit-pet")),
        Source::Folder(place.join("unpacked/oxford-iiit-pet/images")),
    ] {
        let (pictures, summary) = open_pets(&source, &options(place), &mut |_| {}).unwrap();
        assert_eq!(summary.n_pictures, 12);
        assert_eq!(summary.classes, [("dog".to_string(), 6), ("cat".to_string(), 6)]);
        let check = summary.list.unwrap_or_else(|| panic!("no list in {source:?}"));
        assert_eq!((check.n_listed, check.unlisted.len(), check.missing), (3, 10, vec!["beagle_9".to_string()]));
        let mut content = Vec::new();
        for idx in 0..pictures.len() {
            let mut bytes = Vec::new();
            pictures.read(idx, &mut bytes).unwrap();
            let info = pictures.info(idx);
            content.push((info.name.to_string(), info.label, info.width, info.height, bytes));
        }
        assert!(content.is_sorted());
        all.push(content);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn odd_files_are_used_or_left_out_and_named() {
    let place = folder();
    let mut images = pets();
    images.push(("Egyptian_Mau_145.jpg".into(), picture(9, 9, 1, ImageFormat::Gif)));
    images.push(("Egyptian_Mau_139.jpg".into(), picture(9, 9, 2, ImageFormat::Png)));
    images.push(("Abyssinian_100.mat".into(), b"MATLAB 5.0 MAT-file".to_vec()));
    images.push(("._pug_1.jpg".into(), b"left behind by macOS".to_vec()));
    images.push((".DS_Store".into(), b"left behind by macOS".to_vec()));
    let (pictures, summary) = open_archive(place.path(), &gzip(&tar(&under("images/", &images)))).unwrap();
    assert_eq!(pictures.len(), 14);
    assert_eq!(
        summary.misnamed,
        [("Egyptian_Mau_139.jpg", Format::Png), ("Egyptian_Mau_145.jpg", Format::Gif)]
            .map(|(name, format)| Misnamed { name: name.into(), format })
    );
    assert_eq!(summary.left_out, ["Abyssinian_100.mat"]);
    assert_eq!(summary.list, None);
}

#[test]
fn damaged_pictures_fail_by_name_or_are_left_out_by_name() {
    let place = folder();
    let mut images = pets();
    let whole = images[4].1.clone();
    images[4].1 = whole[..whole.len() / 2].to_vec();
    images[9].1 = b"no picture".to_vec();
    let path = write(place.path(), "pets.tar", &tar(&under("images/", &images)));
    let source = Source::Archives(vec![path]);

    let error = open_pets(&source, &options(place.path()), &mut |_| {}).unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 damaged pictures: `Bombay_2.jpg` (cut short: no end-of-image marker), `pug_1.jpg` (the content is no picture)"
    );

    let skip = OpenOptions { damaged: DamagedPolicy::Skip, ..options(place.path()) };
    let mut n_reports = 0;
    let (pictures, summary) = open_pets(&source, &skip, &mut |_| n_reports += 1).unwrap();
    assert_eq!((pictures.len(), n_reports, summary.from_cache), (10, 0, true), "what was decoded is not decoded again");
    assert_eq!(
        summary.damaged.iter().map(|damaged| damaged.name.as_str()).collect::<Vec<_>>(),
        ["Bombay_2.jpg", "pug_1.jpg"]
    );
}

#[test]
fn an_archive_cut_short_anywhere_is_an_error() {
    let place = folder();
    let plain = tar(&under("images/", &pets()));
    let gzipped = gzip(&plain);
    for whole in [&plain[..], &gzipped[..]] {
        // A tar's end is two blocks of zeros; one of them is enough to know that nothing is missing.
        let end = if whole.len() == plain.len() { plain.len() - 1024 } else { gzipped.len() };
        for length in (0..end).step_by(97).chain([1, 2, 511, 512, 513, end - 1]) {
            let error = open_archive(place.path(), &whole[..length]).unwrap_err();
            assert!(matches!(error, Error::BadArchive { .. }), "{length}: {error}");
        }
    }
}

#[test]
fn an_archive_with_a_flipped_byte_is_an_error_or_names_the_pictures() {
    let place = folder();
    let gzipped = gzip(&tar(&under("images/", &pets())));
    for at in (12..gzipped.len()).step_by(211) {
        let mut damaged = gzipped.clone();
        damaged[at] ^= 0x10;
        let error = open_archive(place.path(), &damaged).unwrap_err();
        assert!(matches!(error, Error::BadArchive { .. } | Error::HostileArchive { .. }), "byte {at}: {error}");
    }
}

#[test]
fn garbage_and_other_files_are_no_archives() {
    let place = folder();
    let text = b"a page of text\n".repeat(100);
    for bytes in
        [&b"<html>404 Not Found</html>"[..], &text, &[0; 100], &[7; 5_000], &gzip(b"no tar"), &[0x1F, 0x8B, 1, 2, 3]]
    {
        let error = open_archive(place.path(), bytes).unwrap_err();
        assert!(matches!(error, Error::BadArchive { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("pets.tgz") && !message.contains("page of"), "{message}");
    }
    let missing = Source::Archives(vec![place.path().join("absent.tgz")]);
    let error = open_pets(&missing, &options(place.path()), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("absent.tgz"), "{error}");
}

#[test]
fn an_archive_of_something_else_says_what_was_expected() {
    let place = folder();
    let other = tar(&[("README.md".to_string(), b"hello".to_vec())]);
    let message = open_archive(place.path(), &other).unwrap_err().to_string();
    assert!(message.ends_with("pets.tgz`: expected `images/<breed>_<number>.jpg`"), "{message}");
    let message = open_archive(place.path(), &[0; 1024]).unwrap_err().to_string();
    assert!(message.starts_with("no pictures in"), "an empty archive: {message}");
    let error = open_pets(&Source::Archives(vec![]), &options(place.path()), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::NoPictures { .. }), "{error}");
}

#[test]
fn the_same_picture_twice_is_an_error() {
    let place = folder();
    let twice = tar(&[under("images/", &pets()), under("oxford-iiit-pet/images/", &pets())].concat());
    let error = open_archive(place.path(), &twice).unwrap_err();
    assert!(error.to_string().starts_with("picture `Abyssinian_1.jpg` is there twice"), "{error}");
}

/// An archive with one entry of a raw name and kind before the pictures.
fn with_entry(name: &[u8], kind: tar::EntryType, content: &[u8], link: Option<&str>) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    if let Some(link) = link {
        header.set_link_name(link).unwrap();
    }
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
    archive.extend(tar(&under("images/", &pets())));
    archive
}

#[test]
fn paths_that_lead_out_refuse_the_archive() {
    let place = folder();
    for name in ["../evil.jpg", "images/../../evil.jpg", "/etc/evil.jpg", "C:/evil.jpg", "..\\evil.jpg", "images/.."] {
        for kind in [tar::EntryType::Regular, tar::EntryType::Directory, tar::EntryType::Symlink] {
            let archive = with_entry(name.as_bytes(), kind, b"", Some("x"));
            let error = open_archive(place.path(), &archive).unwrap_err();
            assert!(matches!(error, Error::HostileArchive { .. }), "{name}: {error}");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

#[test]
fn links_devices_and_sparse_files_are_left_out_and_named() {
    let place = folder();
    use tar::EntryType as Kind;
    for (kind, left_out) in [
        (Kind::Symlink, Some("Evil_1.jpg (a link)")),
        (Kind::Link, Some("Evil_1.jpg (a link)")),
        (Kind::Char, Some("Evil_1.jpg (a device)")),
        (Kind::Block, Some("Evil_1.jpg (a device)")),
        (Kind::Fifo, Some("Evil_1.jpg (a device)")),
        (Kind::GNUSparse, Some("Evil_1.jpg (a sparse file)")),
        (Kind::Directory, None),
    ] {
        let archive = with_entry(b"images/Evil_1.jpg", kind, b"", Some("/etc/passwd"));
        let (pictures, summary) = open_archive(place.path(), &archive).unwrap();
        assert_eq!(pictures.len(), 12, "{kind:?}");
        assert_eq!(summary.left_out, left_out.into_iter().collect::<Vec<_>>(), "{kind:?}");
    }
}

#[test]
fn long_names_are_read_and_endless_ones_refused() {
    let place = folder();
    let long = format!("images/Abyssinian_{}.jpg", "9".repeat(180));
    let mut files = under("images/", &pets());
    files.push((long.clone(), files[0].1.clone())); // longer than a header holds: a GNU long name
    let (pictures, _) = open_archive(place.path(), &tar(&files)).unwrap();
    assert!((0..pictures.len()).any(|idx| long.ends_with(pictures.info(idx).name)));

    let hostile = with_entry(b"././@LongLink", tar::EntryType::GNULongName, &[b'a'; 10_000], None);
    let error = open_archive(place.path(), &hostile).unwrap_err();
    assert!(matches!(error, Error::HostileArchive { .. }), "{error}");

    let pax = with_entry(b"PaxHeader", tar::EntryType::XHeader, b"23 path=../../evil.jpg\n", None);
    let error = open_archive(place.path(), &pax).unwrap_err();
    assert!(matches!(error, Error::HostileArchive { .. }), "a PAX path counts: {error}");
}

#[test]
fn an_entry_that_claims_more_than_there_is_is_an_error() {
    let place = folder();
    let mut header = tar::Header::new_gnu();
    header.set_path("images/pug_1.jpg").unwrap();
    for size in [10_000, 1 << 33, u64::MAX - 600] {
        header.set_size(size);
        header.set_cksum();
        let error = open_archive(place.path(), header.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::BadArchive { .. }), "{size}: {error}");
    }
}

#[test]
fn class_folders_are_read_from_an_archive_too() {
    let place = folder();
    let image = |number| picture(8, 8, number, ImageFormat::Png);
    let files =
        [("set/b/1.png", 1), ("set/a/1.png", 2), ("set/a/x/2.png", 3)].map(|(path, n)| (path.to_string(), image(n)));
    let path = write(place.path(), "set.tar.gz", &gzip(&tar(&files)));
    let (pictures, summary) = open_folder(&Source::Archives(vec![path]), &options(place.path()), &mut |_| {}).unwrap();
    assert_eq!(summary.classes, [("a".to_string(), 2), ("b".to_string(), 1)]);
    assert_eq!(pictures.info(2).name, "b/1.png");
}
