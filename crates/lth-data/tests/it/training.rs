//! What the loader gives to training besides plain batches: parts, starts inside an epoch, seeds apart, augmentation.

use std::sync::Arc;

use candle_core::Tensor;
use lth_data::{
    Augmentation, Batches, Fill, Loader, LoaderConfig, MemoryPictures, Normalisation, Part, Picture, Pictures, Result,
    Split, SplitRule, UniformPictures,
};

const SIDE: usize = 6;

/// Grey square pictures, every one other than the rest, in memory.
fn uniform(n: usize) -> UniformPictures {
    let bytes = (0..n * SIDE * SIDE).map(|at| (at / SIDE / SIDE * 7 + at % (SIDE * SIDE) * 3 + 1) as u8).collect();
    let labels = (0..n).map(|idx| (idx % 4) as u8).collect();
    UniformPictures::new((SIDE, SIDE, 1), ["a", "b", "c", "d"].map(String::from).to_vec(), labels, bytes, n).unwrap()
}

fn config() -> LoaderConfig {
    LoaderConfig { normalisation: Normalisation::unit(1), ..LoaderConfig::new(SIDE, 8, 5) }
}

fn loader(config: LoaderConfig) -> Loader {
    let rule = SplitRule { valid: Part::Count(10), test: Part::Count(15) };
    Loader::new(Arc::new(uniform(75)), Split::by_rule(&rule, 75, &[], 1).unwrap(), config).unwrap()
}

/// Values of each picture and its label, batch by batch.
fn content(batches: Batches) -> Vec<(Vec<Vec<f32>>, Vec<u32>)> {
    let content = |batch: Result<(Tensor, Tensor)>| {
        let (x, y) = batch.unwrap();
        (x.flatten_from(1).unwrap().to_vec2::<f32>().unwrap(), y.to_vec1::<u32>().unwrap())
    };
    batches.map(content).collect()
}

fn pictures(batches: Batches) -> Vec<Vec<f32>> {
    content(batches).into_iter().flat_map(|(x, _)| x).collect()
}

#[test]
fn test_batches_are_the_pictures_of_the_test_part_in_order() {
    let loader = loader(config());
    assert_eq!((loader.n_train_batches(), loader.n_valid_batches(), loader.n_test_batches()), (6, 2, 2));
    let set = uniform(75);
    for (part, batches) in [(&loader.split().valid, loader.valid()), (&loader.split().test, loader.test())] {
        let value = |byte: &u8| f32::from(*byte) / 255.0;
        let expected: Vec<Vec<f32>> =
            part.iter().map(|&idx| set.bytes(idx).unwrap().iter().map(value).collect()).collect();
        assert_eq!(pictures(batches), expected);
    }
    let no_test = Loader::new(Arc::new(uniform(20)), Split::random(20, 0.5, 1).unwrap(), config()).unwrap();
    assert_eq!((no_test.n_test_batches(), no_test.test().count()), (0, 0));
}

#[test]
fn an_epoch_from_the_middle_is_the_rest_of_the_whole_one() {
    let loader =
        loader(LoaderConfig { augmentation: Augmentation { padding: 2, ..Augmentation::cifar() }, ..config() });
    let whole = content(loader.train_epoch(3));
    assert_eq!(whole.len(), 6);
    for n_skipped in 0..=7 {
        let batches = loader.train_epoch_from(3, n_skipped);
        assert_eq!(batches.n_left(), 6_usize.saturating_sub(n_skipped));
        assert_eq!(content(batches), whole[n_skipped.min(6)..]);
    }
}

#[test]
fn order_and_augmentation_have_seeds_of_their_own() {
    let augmentation = Augmentation { padding: 2, ..Augmentation::cifar() };
    let with = |order_seed, augmentation_seed| {
        let loader = loader(LoaderConfig { augmentation, order_seed, augmentation_seed, ..config() });
        let batches = content(loader.train_epoch(0));
        let labels: Vec<u32> = batches.iter().flat_map(|(_, y)| y.clone()).collect();
        let mut values: Vec<Vec<u32>> =
            batches.iter().flat_map(|(x, _)| x.iter().map(|x| x.iter().map(|x| x.to_bits()).collect())).collect();
        values.sort();
        (labels, values)
    };
    let (labels, values) = with(None, None);
    assert_eq!(with(Some(5), Some(5)), (labels.clone(), values.clone()), "`seed` is 5");
    let (other_labels, same_values) = with(Some(6), None);
    assert_ne!(other_labels, labels);
    // Of 50 pictures 48 are shown, so two of them may differ.
    let n_new = same_values.iter().filter(|x| !values.contains(x)).count();
    assert!(n_new <= 2, "{n_new}");
    let (same_labels, other_values) = with(None, Some(6));
    assert_eq!(same_labels, labels);
    assert_ne!(other_values, values);
}

#[test]
fn training_shows_shifted_and_flipped_pictures_and_validation_does_not() {
    let augmentation = Augmentation { flip_probability: 0.5, padding: 1, fill: Fill::Black };
    let (plain, changed) = (loader(config()), loader(LoaderConfig { augmentation, ..config() }));
    assert_eq!(pictures(plain.valid()), pictures(changed.valid()));
    assert_eq!(pictures(plain.test()), pictures(changed.test()));
    let (plain, changed) = (pictures(plain.train_epoch(0)), pictures(changed.train_epoch(0)));
    // Each is one of the 18 changes of its picture, made here pixel by pixel.
    let change = |x: &[f32], left: usize, top: usize, flipped: bool| -> Vec<f32> {
        let pixel = |at: usize| {
            let (row, column) = (at / SIDE + top, if flipped { SIDE - 1 - at % SIDE } else { at % SIDE } + left);
            let inside = (1..=SIDE).contains(&row) && (1..=SIDE).contains(&column);
            if inside { x[(row - 1) * SIDE + column - 1] } else { 0.0 }
        };
        (0..SIDE * SIDE).map(pixel).collect()
    };
    let mut seen = std::collections::BTreeSet::new();
    for (plain, changed) in plain.iter().zip(&changed) {
        let all = (0..18).map(|n| (n % 3, n / 3 % 3, n >= 9));
        let which = all.into_iter().find(|&(left, top, flipped)| change(plain, left, top, flipped) == *changed);
        seen.insert(which.unwrap());
    }
    assert!(seen.len() > 9, "{seen:?}");
}

/// The same pictures without `bytes`, so that the loader has to read them.
struct Unknown(UniformPictures);

impl Pictures for Unknown {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn n_channels(&self) -> usize {
        self.0.n_channels()
    }
    fn classes(&self) -> &[String] {
        self.0.classes()
    }
    fn info(&self, idx: usize) -> lth_data::PictureInfo<'_> {
        self.0.info(idx)
    }
    fn read(&self, idx: usize, bytes: &mut Vec<u8>) -> Result<()> {
        self.0.read(idx, bytes)
    }
}

#[test]
fn pictures_in_memory_give_the_same_batches_as_pictures_that_are_read() {
    let split = Split::random(40, 0.25, 1).unwrap();
    for image_size in [SIDE, 4] {
        let config = LoaderConfig { image_size, ..config() };
        let fast = Loader::new(Arc::new(uniform(40)), split.clone(), config.clone()).unwrap();
        let slow = Loader::new(Arc::new(Unknown(uniform(40))), split.clone(), config).unwrap();
        for _ in 0..2 {
            assert_eq!(content(fast.train_epoch(1)), content(slow.train_epoch(1)));
            assert_eq!(content(fast.valid()), content(slow.valid()));
        }
    }
}

#[test]
fn the_content_hash_is_of_content_and_not_of_packing() {
    let hash = |set: &dyn Pictures| set.content_sha256().unwrap();
    let set = uniform(9);
    let base = hash(&set);
    assert_eq!(hash(&Unknown(uniform(9))), base);
    let picture = |idx: usize| {
        let info = set.info(idx);
        let (name, bytes) = (info.name.to_owned(), set.bytes(idx).unwrap().to_vec());
        Picture { name, label: info.label, width: SIDE, height: SIDE, bytes }
    };
    let memory = |change: &dyn Fn(&mut Vec<Picture>)| {
        let mut pictures: Vec<Picture> = (0..9).map(picture).collect();
        change(&mut pictures);
        hash(&MemoryPictures::new(1, set.classes().to_vec(), pictures).unwrap())
    };
    assert_eq!(memory(&|_| {}), base);
    for change in [
        (|pictures: &mut Vec<Picture>| pictures[3].bytes[0] ^= 1) as fn(&mut Vec<Picture>),
        |pictures| pictures[3].label -= 1,
        |pictures| pictures[3].name.push('x'),
        |pictures| (pictures[3].width, pictures[3].height) = (4, 9),
        |pictures| drop(pictures.pop()),
    ] {
        assert_ne!(memory(&change), base);
    }
}

#[test]
fn settings_outside_their_range_are_errors() {
    let message = |augmentation| {
        let split = Split::random(20, 0.5, 1).unwrap();
        Loader::new(Arc::new(uniform(20)), split, LoaderConfig { augmentation, ..config() }).err().unwrap().to_string()
    };
    let wide = Augmentation { padding: SIDE, ..Augmentation::default() };
    assert_eq!(message(wide), "padding is 6, expected below the image size, 6");
    let often = Augmentation { flip_probability: 2.0, ..Augmentation::default() };
    assert_eq!(message(often), "flip probability is 2, expected 0 to 1");
    let twice = Split { train: (0..10).collect(), valid: vec![9], test: vec![] };
    let error = Loader::new(Arc::new(uniform(20)), twice, config()).err().unwrap().to_string();
    assert_eq!(error, "picture index in the split is 9 twice, expected once");
}
