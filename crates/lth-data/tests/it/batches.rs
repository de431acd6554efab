//! Batches: content, order, and what happens when something goes wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};
use lth_data::{
    Batches, Error, Loader, LoaderConfig, MemoryPictures, Normalisation, Picture, PictureInfo, Pictures, Resizer,
    Result, Source, Split, Square, open_pets, training_draw,
};

use crate::support::{folder, gzip, options, pets, tar, under, write};

/// Pictures of which every other is square.
fn pictures(n: usize, n_channels: usize) -> MemoryPictures {
    let picture = |idx: usize| {
        let (width, height) = if idx.is_multiple_of(2) { (12, 12) } else { (9, 15) };
        let byte = |at: usize| (at * 7 + idx * 31) as u8;
        let bytes = (0..width * height * n_channels).map(byte).collect();
        Picture { name: format!("{idx:04}"), label: (idx % 3) as u32, width, height, bytes }
    };
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    MemoryPictures::new(n_channels, classes, (0..n).map(picture).collect()).unwrap()
}

fn config(batch_size: usize) -> LoaderConfig {
    LoaderConfig::new(8, batch_size, 5)
}

fn loader(n: usize, batch_size: usize) -> Loader {
    Loader::new(Arc::new(pictures(n, 3)), Split::random(n, 0.2, 1).unwrap(), config(batch_size)).unwrap()
}

/// All values and labels of the batches.
fn content(batches: Batches) -> (Vec<Vec<f32>>, Vec<Vec<u32>>) {
    let content = |batch: Result<(Tensor, Tensor)>| {
        let (x, y) = batch.unwrap();
        (x.flatten_all().unwrap().to_vec1::<f32>().unwrap(), y.to_vec1::<u32>().unwrap())
    };
    batches.map(content).unzip()
}

#[test]
fn training_drops_the_last_partial_batch_and_validation_keeps_it() {
    let loader = loader(103, 16); // 20 for validation, 83 for training
    let shapes = |batches: Batches| -> Vec<Vec<usize>> {
        let shape = |batch: Result<(Tensor, Tensor)>| {
            let (x, y) = batch.unwrap();
            assert_eq!((x.dtype(), y.dtype(), y.dims1().unwrap()), (DType::F32, DType::U32, x.dim(0).unwrap()));
            x.dims().to_vec()
        };
        batches.map(shape).collect()
    };
    assert_eq!(shapes(loader.train_epoch(0)), vec![vec![16, 3, 8, 8]; 5]);
    assert_eq!(shapes(loader.valid()), [vec![16, 3, 8, 8], vec![4, 3, 8, 8]]);
    assert_eq!((loader.n_train_batches(), loader.n_valid_batches()), (5, 2));
    assert_eq!(loader.train_epoch(0).n_left(), 5);
}

/// The value of a picture as the loader must give it, made step by step.
fn expected(set: &MemoryPictures, idx: usize, square: Square, normalisation: &Normalisation) -> Vec<f32> {
    let (mut bytes, mut out) = (Vec::new(), vec![0; 8 * 8 * set.n_channels()]);
    set.read(idx, &mut bytes).unwrap();
    Resizer::new(8).resize(&bytes, set.info(idx).width, set.n_channels(), square, &mut out);
    let value = |channel: usize, pixel: usize| {
        let byte = f32::from(out[pixel * set.n_channels() + channel]);
        (byte / 255.0 - normalisation.mean[channel]) / normalisation.std[channel]
    };
    (0..set.n_channels())
        .flat_map(|channel| (0..64).map(move |pixel| (channel, pixel)))
        .map(|(c, p)| value(c, p))
        .collect()
}

#[test]
fn values_are_cropped_resized_and_normalised() {
    for (n_channels, normalisation) in [
        (3, Normalisation::imagenet()),
        (1, Normalisation { mean: vec![0.3], std: vec![0.7] }),
        (2, Normalisation::unit(2)),
    ] {
        let set = pictures(20, n_channels);
        let split = Split { train: (0..10).collect(), valid: (10..20).collect(), test: vec![] };
        let config = LoaderConfig { normalisation: normalisation.clone(), ..config(10) };
        let loader = Loader::new(Arc::new(set.clone()), split, config).unwrap();
        let (x, y) = content(loader.valid());
        assert_eq!(y, [(10..20).map(|idx| idx % 3).collect::<Vec<u32>>()]);
        for (place, idx) in (10..20).enumerate() {
            let info = set.info(idx);
            let square = Square::centred(info.width, info.height);
            assert_eq!(x[0][place * 64 * n_channels..][..64 * n_channels], expected(&set, idx, square, &normalisation));
        }
        // In training each picture of the batch is one of the set, cut where its own draw says.
        for epoch in [0, 3] {
            let (x, y) = content(loader.train_epoch(epoch));
            let mut found = Vec::new();
            for (x, y) in x[0].chunks(64 * n_channels).zip(&y[0]) {
                let is_it = |idx: &usize| {
                    let info = set.info(*idx);
                    let square = Square::largest(info.width, info.height, training_draw(5, epoch, *idx));
                    info.label == *y && expected(&set, *idx, square, &normalisation) == x
                };
                found.extend((0..10).find(is_it));
            }
            assert_ne!(found, (0..10).collect::<Vec<_>>(), "shuffled");
            found.sort_unstable();
            assert_eq!(found, (0..10).collect::<Vec<_>>(), "every picture once");
        }
    }
}

#[test]
fn an_epoch_is_a_function_of_seed_and_number() {
    let loader = loader(60, 8);
    let first = content(loader.train_epoch(1));
    let other_loader = self::loader(60, 8);
    let _ = content(other_loader.train_epoch(0)); // what was done before does not matter
    let _ = content(other_loader.valid());
    assert_eq!(content(other_loader.train_epoch(1)), first);
    assert_ne!(content(loader.train_epoch(2)).1, first.1);
    let other_seed = LoaderConfig { seed: 6, ..config(8) };
    let other = Loader::new(Arc::new(pictures(60, 3)), loader.split().clone(), other_seed).unwrap();
    assert_ne!(content(other.train_epoch(1)).1, first.1);
    assert_eq!(content(loader.valid()), content(loader.valid()));
}

#[test]
fn threads_and_the_cache_change_no_value() {
    let run = |n_threads: usize| {
        let place = folder();
        let path = write(place.path(), "pets.tgz", &gzip(&tar(&under("images/", &pets()))));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        let open = || open_pets(&Source::Archives(vec![path.clone()]), &options(place.path()), &mut |_| {}).unwrap().0;
        let (first, again) = pool.install(|| (open(), open()));
        let run = |set| {
            let loader = Loader::new(Arc::new(set), Split::random(12, 0.3, 4).unwrap(), config(4)).unwrap();
            pool.install(|| (content(loader.train_epoch(0)), content(loader.train_epoch(1)), content(loader.valid())))
        };
        let first = run(first);
        assert_eq!(first, run(again));
        first
    };
    let one = run(1);
    assert_eq!(one, run(3));
}

/// Counts what is read, and fails or panics at one picture.
struct Treacherous {
    inner: MemoryPictures,
    n_read: Arc<AtomicUsize>,
    fails_at: usize,
    panics: bool,
}

impl Pictures for Treacherous {
    fn len(&self) -> usize {
        self.inner.len()
    }
    fn n_channels(&self) -> usize {
        self.inner.n_channels()
    }
    fn classes(&self) -> &[String] {
        self.inner.classes()
    }
    fn info(&self, idx: usize) -> PictureInfo<'_> {
        self.inner.info(idx)
    }
    fn read(&self, idx: usize, bytes: &mut Vec<u8>) -> Result<()> {
        self.n_read.fetch_add(1, Ordering::SeqCst);
        assert!(!(self.panics && idx == self.fails_at), "picture {idx} is cursed");
        if idx == self.fails_at {
            return Err(Error::BadCache { path: "cache".into(), name: idx.to_string(), reason: "test".into() });
        }
        self.inner.read(idx, bytes)
    }
}

fn treacherous(fails_at: usize, panics: bool) -> (Loader, Arc<AtomicUsize>) {
    let n_read = Arc::new(AtomicUsize::new(0));
    let set = Treacherous { inner: pictures(100, 3), n_read: Arc::clone(&n_read), fails_at, panics };
    let split = Split { train: (0..50).collect(), valid: (50..100).collect(), test: vec![] };
    (Loader::new(Arc::new(set), split, config(10)).unwrap(), n_read)
}

#[test]
fn an_error_is_delivered_in_its_place_and_is_the_last_item() {
    let (loader, _) = treacherous(75, false);
    let batches: Vec<_> = loader.valid().collect();
    assert_eq!(batches.len(), 3);
    assert!(batches[..2].iter().all(Result::is_ok));
    assert!(matches!(&batches[2], Err(Error::BadCache { name, .. }) if name == "75"));
}

#[test]
fn a_panic_of_the_preparing_thread_is_an_error_with_its_message() {
    // In the second batch; and in the third, which is prepared together with the second.
    for (fails_at, n_whole) in [(60, 1), (70, 2)] {
        let (loader, _) = treacherous(fails_at, true);
        let batches: Vec<_> = loader.valid().collect();
        assert_eq!(batches.len(), n_whole + 1);
        assert!(batches[..n_whole].iter().all(Result::is_ok));
        let is_right = |reason: &str| reason == format!("picture {fails_at} is cursed");
        assert!(matches!(&batches[n_whole], Err(Error::LoaderStopped { reason }) if is_right(reason)));
    }
}

#[test]
fn dropping_the_batches_stops_the_reading() {
    let read_ahead = |image_size: usize, expected: usize| {
        let n_read = Arc::new(AtomicUsize::new(0));
        let inner = pictures(301, 3);
        let set = Treacherous { inner, n_read: Arc::clone(&n_read), fails_at: 1_000, panics: false };
        let split = Split { train: (0..300).collect(), valid: vec![300], test: vec![] };
        let loader = Loader::new(Arc::new(set), split, LoaderConfig { image_size, ..config(10) }).unwrap();
        let mut batches = loader.train_epoch(0);
        batches.next().unwrap().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while n_read.load(Ordering::SeqCst) < expected && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(batches);
        let n = n_read.load(Ordering::SeqCst);
        assert_eq!(n, expected, "pictures of {image_size} read ahead of the training step");
    };
    // One batch of more than 256 KiB in hand, two in the queue, one being made.
    read_ahead(96, 40);
    // Of small ones one in hand, bundles of two and of four in the queue, and one of eight being made.
    read_ahead(4, 150);
}

#[test]
fn square_and_validation_pictures_are_read_once() {
    let (loader, n_read) = treacherous(1_000, false);
    let count = |batches: &dyn Fn() -> Batches| {
        let before = n_read.load(Ordering::SeqCst);
        assert_eq!(batches().map(Result::unwrap).count(), 5);
        n_read.load(Ordering::SeqCst) - before
    };
    assert_eq!(count(&|| loader.train_epoch(0)), 50);
    assert_eq!(count(&|| loader.train_epoch(1)), 25, "half of them are square");
    assert_eq!(count(&|| loader.valid()), 50);
    assert_eq!(count(&|| loader.valid()), 0);
}

#[test]
fn settings_outside_their_range_are_errors() {
    let set: Arc<dyn Pictures> = Arc::new(pictures(10, 3));
    let message = |split: Split, config: LoaderConfig| {
        Loader::new(Arc::clone(&set), split, config).err().map(|error| error.to_string()).unwrap()
    };
    let split = || Split::random(10, 0.2, 0).unwrap();
    assert_eq!(message(split(), config(0)), "batch size is 0, expected at least 1");
    assert_eq!(message(split(), config(9)), "batch size is 9, expected at most the number of training pictures, 8");
    assert_eq!(message(Split::all_train(11), config(2)), "picture index in the split is 10, expected below 10");
    let grey = LoaderConfig { normalisation: Normalisation::unit(1), ..config(2) };
    assert_eq!(message(split(), grey), "normalisation mean is [0.0], expected 3 finite numbers");
    let flat = LoaderConfig { image_size: 0, ..config(2) };
    assert_eq!(message(split(), flat), "image size is 0, expected at least 1");
}
