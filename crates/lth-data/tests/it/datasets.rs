//! Data sets opened from their specification.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::ImageFormat;
use lth_data::toy_pets::{ToyPets, breeds};
use lth_data::{
    Checked, DataSource, Dataset, DatasetName, DatasetSpec, Loader, Opening, Part, Pictures, Result, Source, Split,
    SplitRule, open_pets, open_pets_breeds,
};

use crate::cifar::cifar_10;
use crate::mnist::write_files;
use crate::support::{folder, gzip, options, pets, picture, tar, under, write};

fn open(spec: &DatasetSpec, place: &Path) -> Result<Dataset> {
    spec.open(42, &options(place), &mut |_| {})
}

fn local(name: DatasetName, paths: Vec<PathBuf>, valid: usize) -> DatasetSpec {
    let mut spec = DatasetSpec { source: DataSource::local(paths), ..DatasetSpec::new(name) };
    spec.split.valid = Part::Count(valid);
    spec
}

#[test]
fn mnist_from_a_folder_and_from_its_four_files_is_the_same() {
    let place = folder();
    write_files(place.path());
    let names =
        ["t10k-labels-idx1-ubyte", "train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "train-labels-idx1-ubyte"];
    let files = names.map(|name| place.path().join(name)).to_vec();
    let from_folder = open(&local(DatasetName::Mnist, vec![place.path().into()], 1), place.path()).unwrap();
    let from_files = open(&local(DatasetName::Mnist, files, 1), place.path()).unwrap();
    assert_eq!(from_folder.split, from_files.split);
    assert_eq!((from_folder.split.train.len(), from_folder.split.valid.len()), (2, 1));
    assert_eq!(from_folder.split.test, [3, 4]);
    let provenance = from_folder.provenance;
    assert_eq!(provenance.content_sha256, from_files.provenance.content_sha256);
    assert_eq!(provenance.content_sha256, from_folder.pictures.content_sha256().unwrap());
    assert_eq!(provenance.split_sha256, from_files.split.sha256());
    assert_eq!((provenance.n_pictures, provenance.n_train, provenance.n_valid, provenance.n_test), (5, 2, 1, 2));
    assert_eq!((provenance.name, provenance.checked, provenance.n_channels), (DatasetName::Mnist, Checked::Differs, 1));
    let mut sorted = names;
    sorted.sort_unstable();
    assert_eq!(provenance.files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), sorted);
    assert_eq!(provenance.classes[9], ("9".to_owned(), 1));
    // It is plain data.
    let text = serde_json::to_string(&provenance).unwrap();
    assert_eq!(serde_json::from_str::<lth_data::Provenance>(&text).unwrap(), provenance);
}

#[test]
fn cifar_is_read_into_batches_of_its_own_size() {
    let place = folder();
    let archive = write(place.path(), "cifar.tgz", &gzip(&tar(&under("cifar-10-batches-bin/", &cifar_10()))));
    let spec = local(DatasetName::Cifar10, vec![archive], 2);
    let dataset = open(&spec, place.path()).unwrap();
    assert_eq!(dataset.provenance.files.len(), 1);
    assert_eq!(dataset.provenance.checked, Checked::Differs);
    let loader = Loader::new(dataset.pictures, dataset.split, spec.loader_config(4, 1)).unwrap();
    let (x, y) = loader.test().next().unwrap().unwrap();
    assert_eq!((x.dims(), y.to_vec1::<u32>().unwrap()), (&[2, 3, 32, 32][..], vec![0, 9]));
    // The first green pixel of the first test picture is 50.
    let green = x.get(0).unwrap().get(1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
    assert_eq!(green, (50.0 / 255.0 - 0.4822) / 0.2435);
}

/// `<part>/<class>/<n>.png`, `n` pictures in each class.
fn class_folders(part: &str, classes: &[&str], n: usize) -> Vec<(String, Vec<u8>)> {
    let file = |(idx, class): (usize, &&str)| {
        (0..n)
            .map(|number| {
                let bytes = picture(8, 8, (idx * n + number) as u32, ImageFormat::Png);
                (format!("{part}/{class}/{number:04}.png"), bytes)
            })
            .collect::<Vec<_>>()
    };
    classes.iter().enumerate().flat_map(file).collect()
}

#[test]
fn two_archives_or_folders_are_a_training_and_a_test_part() {
    let place = folder();
    let (train, test) = (class_folders("train", &["ant", "bee", "cow"], 4), class_folders("test", &["bee", "cow"], 2));
    for (name, bytes) in train.iter().chain(&test) {
        write(place.path(), name, bytes);
    }
    let archives = [("train.tar.gz", &train), ("test.tar.gz", &test)]
        .map(|(name, files)| vec![write(place.path(), name, &gzip(&tar(files)))]);
    let [train_archive, test_archive] = archives;
    let in_folder = |part: &str| vec![place.path().join(part)];
    let packed = open(&DatasetSpec::folder(train_archive, test_archive), place.path()).unwrap();
    let unpacked = open(&DatasetSpec::folder(in_folder("train"), in_folder("test")), place.path()).unwrap();
    for dataset in [&packed, &unpacked] {
        assert_eq!(dataset.split.test, [12, 13, 14, 15]);
        assert_eq!((dataset.split.train.len(), dataset.split.valid.len()), (10, 2));
        assert_eq!(dataset.pictures.classes(), ["ant", "bee", "cow"]);
        let names = [0, 12].map(|idx| dataset.pictures.info(idx).name.to_owned());
        assert_eq!(names, ["train/ant/0000.png", "test/bee/0000.png"]);
        // The test part lacks a class: its labels are still those of the training part.
        let labels: Vec<u32> = (12..16).map(|idx| dataset.pictures.info(idx).label).collect();
        assert_eq!(labels, [1, 1, 2, 2]);
    }
    assert_eq!(packed.provenance.content_sha256, unpacked.provenance.content_sha256);
    assert_eq!((packed.provenance.files.len(), unpacked.provenance.files.len()), (2, 0));
    let mut bytes = [Vec::new(), Vec::new()];
    for (set, bytes) in [&packed, &unpacked].into_iter().zip(&mut bytes) {
        set.pictures.read(13, bytes).unwrap();
    }
    assert_eq!(bytes[0], bytes[1]);
    // Turned round, the test part has a class that training has not.
    let error = open(&DatasetSpec::folder(in_folder("test"), in_folder("train")), place.path()).err().unwrap();
    assert!(error.to_string().starts_with("class of the test part is `ant` in"), "{error}");
}

#[test]
fn pets_by_breed_and_by_species_share_a_cache_file() {
    let place = folder();
    let archive = write(place.path(), "pets.tgz", &gzip(&tar(&under("images/", &pets()))));
    let source = Source::Archives(vec![archive]);
    let (species, first) = open_pets(&source, &options(place.path()), &mut |_| {}).unwrap();
    let (by_breed, second) = open_pets_breeds(&source, &options(place.path()), &mut |_| {}).unwrap();
    assert_eq!((first.from_cache, second.from_cache, &first.cache_file), (false, true, &second.cache_file));
    assert_eq!(species.classes(), ["dog", "cat"]);
    assert_eq!(by_breed.classes(), ["Abyssinian", "beagle", "Bombay", "pug"]);
    for idx in 0..12 {
        let breed = &by_breed.classes()[by_breed.info(idx).label as usize];
        assert!(by_breed.info(idx).name.starts_with(breed.as_str()));
        assert_eq!(by_breed.crc32(idx).unwrap(), species.crc32(idx).unwrap());
    }
    assert_ne!(by_breed.content_sha256().unwrap(), species.content_sha256().unwrap());
    // Made anew, it is the same.
    let (_, again) = open_pets(&source, &options(place.path()), &mut |_| {}).unwrap();
    assert_eq!(again.classes, first.classes);
}

#[test]
fn cats_alone_have_breeds() {
    let place = folder();
    for (name, bytes) in pets().into_iter().filter(|(name, _)| name.starts_with(char::is_uppercase)) {
        write(place.path(), &format!("images/{name}"), &bytes);
    }
    let spec = local(DatasetName::PetsBreeds, vec![place.path().into()], 1);
    assert_eq!(open(&spec, place.path()).unwrap().provenance.classes.len(), 2);
    let error = open(&DatasetSpec { name: DatasetName::Pets, ..spec }, place.path()).err().unwrap();
    assert!(error.to_string().contains("are of class `cat`"), "{error}");
}

#[test]
fn all_breeds_of_pets_are_37_classes_in_the_lists_order() {
    let place = folder();
    let toys = ToyPets { pictures: 50, side: 8, ..ToyPets::default() };
    let source = place.path().join("toys");
    toys.write_to(&source, &|_, _| {}).unwrap();
    let dataset = open(&local(DatasetName::PetsBreeds, vec![source.clone()], 5), place.path()).unwrap();
    assert_eq!(dataset.pictures.classes().len(), 37);
    let mut names: Vec<String> = breeds().iter().map(|(name, _)| name.to_lowercase()).collect();
    names.sort();
    let classes: Vec<String> = dataset.pictures.classes().iter().map(|class| class.to_lowercase()).collect();
    assert_eq!(classes, names);
    // The list numbers them from 1.
    let list = std::fs::read_to_string(source.join("annotations/list.txt")).unwrap();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split(' ');
        let (name, class) = (fields.next().unwrap(), fields.next().unwrap().parse::<u32>().unwrap());
        let idx = (0..50).find(|&idx| dataset.pictures.info(idx).name == format!("{name}.jpg")).unwrap();
        assert_eq!(dataset.pictures.info(idx).label + 1, class, "{line}");
    }
}

#[test]
fn toy_pets_are_drawn_once() {
    let place = folder();
    let toys = ToyPets { pictures: 20, side: 16, ..ToyPets::default() };
    let spec = DatasetSpec { source: DataSource::Drawn(toys), ..DatasetSpec::new(DatasetName::ToyPets) };
    let mut folders = Vec::new();
    let mut drawn = |spec: &DatasetSpec| {
        let mut n = 0;
        let dataset = spec.open(42, &options(place.path()), &mut |opening| {
            if let Opening::Drawing { folder, n_total, .. } = opening {
                assert_eq!(n_total, 20);
                folders.push(folder.to_path_buf());
                n += 1;
            }
        });
        (dataset.unwrap(), n)
    };
    let ((first, n_first), (second, n_second)) = (drawn(&spec), drawn(&spec));
    assert_eq!((n_first, n_second), (20, 0));
    assert_eq!(first.provenance.content_sha256, second.provenance.content_sha256);
    assert_eq!((first.provenance.checked, second.provenance.from_cache), (Checked::Made, true));
    assert_eq!(first.split, Split::random(20, 0.2, 42).unwrap());
    // Other settings are other pictures, in a folder of their own.
    let other = DatasetSpec { source: DataSource::Drawn(ToyPets { side: 20, ..toys }), ..spec };
    assert_ne!(drawn(&other).0.provenance.content_sha256, first.provenance.content_sha256);
    assert_ne!(folders[0], folders[20]);
}

#[test]
fn what_cannot_be_opened_is_refused_before_anything_is_read() {
    let place = folder();
    let split = SplitRule { valid: Part::Count(1), test: Part::Published };
    let spec = DatasetSpec { split, ..local(DatasetName::Pets, vec!["/nowhere".into()], 1) };
    let message = |spec: &DatasetSpec| open(spec, place.path()).err().unwrap().to_string();
    assert_eq!(message(&spec), "split is valid 1, test published, expected no published part: the data set has none");
    let absent = local(DatasetName::Pets, vec!["/nowhere".into()], 1);
    assert!(message(&absent).starts_with("cannot find `/nowhere`"), "{}", message(&absent));
    let file = write(place.path(), "a.tar", b"");
    let mixed = local(DatasetName::Pets, vec![place.path().into(), file], 1);
    assert!(message(&mixed).ends_with("among them, expected one folder, or files"), "{}", message(&mixed));
    // A split that leaves nothing to train on.
    write_files(place.path());
    let greedy = local(DatasetName::Mnist, vec![place.path().into()], 3);
    assert!(message(&greedy).contains("at least one of 3 pictures left for training"), "{}", message(&greedy));
}

#[cfg(feature = "digits")]
#[test]
fn digits_are_pictures_in_one_call() {
    let place = folder();
    let dataset = open(&DatasetSpec::new(DatasetName::Digits), place.path()).unwrap();
    let provenance = &dataset.provenance;
    assert_eq!((provenance.n_train, provenance.n_valid, provenance.n_test), (1_079, 359, 359));
    assert_eq!(provenance.checked, Checked::Made);
    let digits = lth_data::digits::Digits::load().unwrap();
    let pictures = digits.pictures().unwrap();
    assert_eq!(pictures.content_sha256().unwrap(), provenance.content_sha256);
    for idx in [0, 1, 1_796] {
        assert_eq!(pictures.info(idx).label, digits.labels[idx]);
        let expected: Vec<u8> = digits.picture(idx).unwrap().iter().map(|pixel| pixel * 15).collect();
        assert_eq!(pictures.bytes(idx).unwrap(), expected);
    }
    let _shared: Arc<dyn Pictures> = dataset.pictures;
}
