//! Toy pets are the same everywhere, look like PETS on disk and are worth learning from.

use std::fs;
use std::time::Instant;

use lth_data::toy_pets::{Error, Species, ToyPets, breeds};
use sha2::{Digest, Sha256};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Computed once on x86-64 Linux. Only `+ - * /` and square root make a picture, so every machine must agree.
#[test]
fn a_picture_has_the_same_bytes_on_every_machine() {
    let picture = ToyPets { seed: 42, ..ToyPets::default() }.picture(17);
    assert_eq!((picture.width, picture.height, picture.species), (95, 85, Species::Dog));
    assert_eq!(sha256(&picture.rgb), "a4f442af05896d47df7b33c23a68b353ebc0b2897685122852bcc1a27ffba6dd");
}

#[test]
fn pictures_depend_on_seed_and_index_and_not_on_how_many_there_are() {
    let pets = ToyPets { pictures: 10, ..ToyPets::default() };
    let more = ToyPets { pictures: 1_000, ..pets };
    assert_eq!(pets.picture(7), more.picture(7));
    assert_ne!(pets.picture(7).rgb, pets.picture(9).rgb);
    assert_ne!(pets.picture(7).rgb, ToyPets { seed: 1, ..pets }.picture(7).rgb);
}

#[test]
fn sizes_vary_and_are_never_square() {
    let pets = ToyPets::default();
    let sizes: Vec<_> = (0..60).map(|index| pets.picture(index)).map(|p| (p.width, p.height)).collect();
    assert!(sizes.iter().all(|(width, height)| width != height));
    assert!(sizes.iter().all(|(width, height)| (80..=131).contains(width) && (80..=131).contains(height)));
    let mut different = sizes.clone();
    different.sort_unstable();
    different.dedup();
    assert!(different.len() > 50, "{}", different.len());
}

#[test]
fn half_are_cats_and_every_breed_takes_its_turn() {
    let pets = ToyPets::default();
    let names: Vec<_> = (0..300).map(|index| pets.name(index)).collect();
    assert_eq!(names.iter().filter(|(_, species)| *species == Species::Cat).count(), 150);
    for (breed, species) in breeds() {
        let n = names.iter().filter(|(name, _)| name.rsplit_once('_').unwrap().0 == breed).count();
        assert!(n >= if species == Species::Cat { 12 } else { 6 }, "{breed}: {n}");
    }
    let mut unique: Vec<_> = names.iter().map(|(name, _)| name).collect();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 300);
}

#[test]
fn the_folder_has_the_layout_of_pets() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/toy-pets");
    let pets = ToyPets { pictures: 40, ..ToyPets::default() };
    let written = pets.write_to(&folder, &|_, _| {}).unwrap();
    assert_eq!((written.pictures, written.drawn), (40, 40));
    let list = fs::read_to_string(folder.join("annotations/list.txt")).unwrap();
    let rows: Vec<Vec<&str>> =
        list.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').collect()).collect();
    assert_eq!((list.lines().count(), rows.len()), (46, 40));
    assert_eq!(rows[0], ["Abyssinian_1", "1", "1", "1"]);
    assert_eq!(rows[2], ["american_bulldog_1", "2", "2", "1"]);
    for row in rows {
        let jpeg = fs::read(folder.join(format!("images/{}.jpg", row[0]))).unwrap();
        assert_eq!(jpeg[..3], [0xFF, 0xD8, 0xFF]);
        let decoded = image::load_from_memory(&jpeg).unwrap();
        assert!(decoded.width().min(decoded.height()) >= 80);
    }
}

#[test]
fn a_finished_folder_is_kept_and_gaps_are_filled() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("toy-pets");
    let pets = ToyPets { pictures: 6, ..ToyPets::default() };
    pets.write_to(&folder, &|_, _| {}).unwrap();
    let lost = folder.join("images/Bengal_1.jpg");
    let before = fs::read(&lost).unwrap();
    assert_eq!(pets.write_to(&folder, &|_, _| {}).unwrap().drawn, 0);
    fs::remove_file(&lost).unwrap();
    assert_eq!(pets.write_to(&folder, &|_, _| {}).unwrap().drawn, 1);
    assert_eq!(fs::read(&lost).unwrap(), before);
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let pets = ToyPets { pictures: 2, ..ToyPets::default() };
    fs::write(parent.path().join("thesis.txt"), "mine").unwrap();
    let error = pets.write_to(parent.path(), &|_, _| {}).unwrap_err();
    assert!(matches!(error, Error::Occupied { .. }), "{error}");
    assert_eq!(fs::read_to_string(parent.path().join("thesis.txt")).unwrap(), "mine");
    let folder = parent.path().join("toy-pets");
    pets.write_to(&folder, &|_, _| {}).unwrap();
    let other = ToyPets { seed: 5, ..pets }.write_to(&folder, &|_, _| {});
    assert!(matches!(other, Err(Error::Occupied { .. })));
    let names: Vec<_> = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "nothing temporary is left: {names:?}");
}

#[test]
fn values_out_of_range_are_named() {
    let parent = tempfile::tempdir().unwrap();
    let check = |change: &dyn Fn(&mut ToyPets), name: &str| {
        let mut pets = ToyPets::default();
        change(&mut pets);
        let text = pets.write_to(&parent.path().join("x"), &|_, _| {}).unwrap_err().to_string();
        assert!(text.contains(name), "{text}");
    };
    check(&|pets| pets.side = 7, "side is 7");
    check(&|pets| pets.side = u32::MAX, "side");
    check(&|pets| pets.pictures = 0, "pictures");
    check(&|pets| pets.difficulty.noise = f32::NAN, "difficulty.noise is NaN");
    check(&|pets| pets.difficulty.overlap = 1.5, "difficulty.overlap is 1.5");
}

#[test]
fn two_thousand_pictures_take_seconds() {
    // 2 ms each was measured; the limit leaves room for a slow and busy machine.
    let pets = ToyPets::default();
    let start = Instant::now();
    let bytes: usize = (0..50).map(|index| pets.picture(index).rgb.len()).sum();
    assert!(bytes > 50 * 3 * 80 * 80);
    assert!(start.elapsed().as_secs_f64() < 2.5, "{:?}", start.elapsed());
}
