//! Folders of pictures.

use std::fs;

use image::ImageFormat;
use lth_data::{DamagedPolicy, Error, OpenOptions, Pictures, Source, open_folder, open_pets};

use crate::support::{folder, options, picture, write};

#[test]
fn classes_are_folders_and_every_format_is_read() {
    let place = folder();
    let formats = [
        ("cats/1.png", ImageFormat::Png),
        ("cats/2.JPEG", ImageFormat::Jpeg),
        ("dogs/old/3.gif", ImageFormat::Gif),
        ("dogs/4.bmp", ImageFormat::Bmp),
        ("birds/5.webp", ImageFormat::WebP),
    ];
    for (number, (name, format)) in formats.into_iter().enumerate() {
        write(place.path(), &format!("set/{name}"), &picture(10, 12, number as u32, format));
    }
    write(place.path(), "set/cats/notes.txt", b"not a picture");
    write(place.path(), "set/.hidden/6.png", b"not looked at");
    for root in ["set", "."] {
        let place = options(place.path());
        let root = place.cache_dir.parent().unwrap().join(root);
        if root.ends_with(".") {
            fs::remove_dir_all(&place.cache_dir).unwrap();
        }
        let (pictures, summary) = open_folder(&Source::Folder(root), &place, &mut |_| {}).unwrap();
        let names: Vec<&str> = (0..pictures.len()).map(|idx| pictures.info(idx).name).collect();
        assert_eq!(names, ["birds/5.webp", "cats/1.png", "cats/2.JPEG", "dogs/4.bmp", "dogs/old/3.gif"]);
        assert_eq!(summary.classes, [("birds", 1), ("cats", 2), ("dogs", 2)].map(|(name, n)| (name.to_string(), n)));
        assert_eq!(summary.misnamed, []);
        assert!(summary.left_out.iter().any(|name| name.ends_with("cats/notes.txt")), "{:?}", summary.left_out);
    }
}

#[test]
fn folders_without_classes_say_what_was_expected() {
    let place = folder();
    let image = picture(4, 4, 0, ImageFormat::Png);
    let message = |source: &Source| open_folder(source, &options(place.path()), &mut |_| {}).unwrap_err().to_string();
    let source = |name: &str| Source::Folder(place.path().join(name));
    write(place.path(), "one/cats/1.png", &image);
    assert!(message(&source("one")).contains("at least two folders"), "{}", message(&source("one")));
    write(place.path(), "parts/train/cats/1.png", &image);
    write(place.path(), "parts/valid/cats/1.png", &image);
    assert!(message(&source("parts")).contains("give one of them"));
    fs::create_dir(place.path().join("empty")).unwrap();
    assert!(message(&source("empty")).contains("expected one folder of pictures per class"));
    assert!(message(&source("absent")).starts_with("cannot read folder"));
}

#[test]
fn pets_of_one_species_are_an_error() {
    let place = folder();
    for number in 0..3 {
        let image = picture(4, 4, number, ImageFormat::Jpeg);
        write(place.path(), &format!("images/IMG_{number}.jpg"), &image);
    }
    let error = open_pets(&Source::Folder(place.path().into()), &options(place.path()), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::OneClass { n_pictures: 3, .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_a_damaged_picture_and_no_more() {
    let place = folder();
    for (number, name) in ["set/cats/1.png", "set/cats/2.png", "set/dogs/3.png"].into_iter().enumerate() {
        write(place.path(), name, &picture(6, 6, number as u32, ImageFormat::Png));
    }
    let link = |name: &str| std::os::unix::fs::symlink("nowhere.png", place.path().join("set").join(name)).unwrap();
    link("dogs/4.png");
    link("dogs/notes.txt");
    let source = Source::Folder(place.path().join("set"));
    let error = open_folder(&source, &options(place.path()), &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "1 damaged picture: `dogs/4.png` (a link that leads nowhere)");
    let skip = OpenOptions { damaged: DamagedPolicy::Skip, ..options(place.path()) };
    let (pictures, summary) = open_folder(&source, &skip, &mut |_| {}).unwrap();
    assert_eq!(pictures.len(), 3);
    assert_eq!(summary.damaged.iter().map(|damaged| &*damaged.name).collect::<Vec<_>>(), ["dogs/4.png"]);
    assert_eq!(summary.left_out, ["dogs/notes.txt (a link that leads nowhere)"]);
    // Once it leads somewhere, it is a picture.
    write(place.path(), "set/dogs/nowhere.png", &picture(6, 6, 7, ImageFormat::Png));
    let (pictures, summary) = open_folder(&source, &options(place.path()), &mut |_| {}).unwrap();
    assert_eq!((pictures.len(), summary.damaged), (5, vec![]));
}

#[test]
fn a_cause_is_said_once() {
    let source = || std::io::Error::other("disk full");
    let path = std::path::PathBuf::from("a.jpg");
    let error = lth_data::Error::Io { action: "read", path: path.clone(), source: source() };
    assert_eq!(error.to_string(), "cannot read `a.jpg`: disk full");
    assert!(std::error::Error::source(&error).is_none());
    let error = lth_data::toy_pets::Error::Io { action: "write", path, source: source() };
    assert_eq!(error.to_string(), "cannot write a.jpg: disk full");
    assert!(std::error::Error::source(&error).is_none());
}
