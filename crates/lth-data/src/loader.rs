//! Batches of tensors, prepared ahead of the training step on another thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use candle_core::{Device, Tensor};

use crate::augment::Augmentation;
use crate::crop::{Square, training_draw};
use crate::error::{Error, Result};
use crate::normalise::{Normalisation, normalise};
use crate::pictures::{PictureInfo, Pictures};
use crate::random::{Purpose, permutation, stream};
use crate::resize::Resizer;
use crate::split::Split;

/// How batches are made.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// Side of the square pictures the network sees.
    pub image_size: usize,
    /// Pictures in a training batch.
    pub batch_size: usize,
    /// Pictures in a batch of validation or test; it changes no result.
    pub valid_batch_size: usize,
    /// Seed of the order, the crops and the augmentation of training, where they have none of their own.
    pub seed: u64,
    /// Seed of the order of training; `None`: `seed`.
    pub order_seed: Option<u64>,
    /// Seed of the crops and the augmentation of training; `None`: `seed`.
    pub augmentation_seed: Option<u64>,
    /// What training does to the pictures besides the crop.
    pub augmentation: Augmentation,
    /// Mean and deviation per channel.
    pub normalisation: Normalisation,
    /// Where the tensors go.
    pub device: Device,
    /// Batches prepared ahead of the one in use; small ones, of less than 256 KiB, in bundles that count as one.
    pub n_ahead: usize,
}

impl LoaderConfig {
    /// ImageNet's normalisation, one seed for everything, no augmentation, tensors on the CPU, validation batches as
    /// large as training batches, two batches ahead.
    pub fn new(image_size: usize, batch_size: usize, seed: u64) -> Self {
        Self {
            image_size,
            batch_size,
            valid_batch_size: batch_size,
            seed,
            order_seed: None,
            augmentation_seed: None,
            augmentation: Augmentation::default(),
            normalisation: Normalisation::imagenet(),
            device: Device::Cpu,
            n_ahead: 2,
        }
    }
}

/// Makes batches from a data set and a split.
///
/// A batch is `(x, y)`: `x` f32 `[n, channels, size, size]`, normalised, and `y` u32 `[n]`, the labels. Training takes
/// a fresh square of each picture every epoch; what it is depends on seed, epoch and picture alone, so a resumed run
/// sees the same pictures in the same order.
///
/// Square pictures of the right size that the data set has in memory ([`Pictures::bytes`]) become values without a copy
/// in between. Others are kept in memory once they are scaled, as many as fit into 256 MiB.
pub struct Loader {
    shared: Arc<Shared>,
    split: Split,
}

/// What the preparing thread needs.
struct Shared {
    pictures: Arc<dyn Pictures>,
    config: LoaderConfig,
    tables: Vec<[f32; 256]>,
    kept: Kept,
}

/// One batch to prepare: pictures by index.
type Plan = Vec<Vec<usize>>;

impl Loader {
    /// A loader of `pictures`.
    ///
    /// # Errors
    /// If a size is 0, the normalisation does not have the pictures' channels, the augmentation is out of its range, the
    /// split names a picture that does not exist or one twice, or there are fewer training pictures than a batch.
    pub fn new(pictures: Arc<dyn Pictures>, split: Split, config: LoaderConfig) -> Result<Loader> {
        for (what, got) in [
            ("image size", config.image_size),
            ("batch size", config.batch_size),
            ("validation batch size", config.valid_batch_size),
        ] {
            if got == 0 {
                return Err(Error::BadSetting { what, got: "0".into(), expected: "at least 1".into() });
            }
        }
        config.normalisation.check(pictures.n_channels())?;
        config.augmentation.check(config.image_size)?;
        split.check(pictures.len())?;
        if config.batch_size > split.train.len() {
            return Err(Error::BadSetting {
                what: "batch size",
                got: config.batch_size.to_string(),
                expected: format!("at most the number of training pictures, {}", split.train.len()),
            });
        }
        let tables = config.normalisation.tables();
        let kept = Kept::new(pictures.len());
        Ok(Loader { shared: Arc::new(Shared { pictures, config, tables, kept }), split })
    }

    /// The batches of a training epoch: shuffled by (seed, epoch), the last partial batch dropped.
    pub fn train_epoch(&self, epoch: usize) -> Batches {
        self.train_epoch_from(epoch, 0)
    }

    /// The batches of a training epoch but the first `n_skipped`, which are not prepared; none if there are no more.
    /// For a fit that begins inside an epoch.
    pub fn train_epoch_from(&self, epoch: usize, n_skipped: usize) -> Batches {
        let config = self.config();
        let train = &self.split.train;
        let seed = config.order_seed.unwrap_or(config.seed);
        let order = permutation(train.len(), &mut stream(seed, Purpose::Shuffle, epoch as u64, 0));
        let batches = order.chunks_exact(config.batch_size).skip(n_skipped);
        self.start(batches.map(|batch| batch.iter().map(|&place| train[place]).collect()).collect(), Some(epoch))
    }

    /// The batches of the validation pictures: all of them, in the split's order, the middle square of each.
    pub fn valid(&self) -> Batches {
        self.start(self.in_order(&self.split.valid), None)
    }

    /// The batches of the test pictures, as [`valid`](Self::valid) gives those for validation; none if there are none.
    pub fn test(&self) -> Batches {
        self.start(self.in_order(&self.split.test), None)
    }

    fn in_order(&self, part: &[usize]) -> Plan {
        part.chunks(self.config().valid_batch_size).map(<[usize]>::to_vec).collect()
    }

    /// Batches in a training epoch.
    pub fn n_train_batches(&self) -> usize {
        self.split.train.len() / self.shared.config.batch_size
    }

    /// Batches in a validation pass.
    pub fn n_valid_batches(&self) -> usize {
        self.split.valid.len().div_ceil(self.shared.config.valid_batch_size)
    }

    /// Batches in a pass over the test pictures.
    pub fn n_test_batches(&self) -> usize {
        self.split.test.len().div_ceil(self.shared.config.valid_batch_size)
    }

    /// The pictures.
    pub fn pictures(&self) -> &Arc<dyn Pictures> {
        &self.shared.pictures
    }

    /// Which pictures train, validate and test.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// How batches are made.
    pub fn config(&self) -> &LoaderConfig {
        &self.shared.config
    }

    /// Prepares the batches of `plan` on a thread; `epoch`: None for validation and test.
    fn start(&self, plan: Plan, epoch: Option<usize>) -> Batches {
        let n_left = plan.len();
        let (sender, receiver) = sync_channel(self.shared.config.n_ahead.max(1));
        let shared = Arc::clone(&self.shared);
        let prepare = move || {
            let mut workbench = shared.workbench();
            let mut bundle = Bundle { sender, batches: Vec::new(), n_bytes: 0, most: 1 };
            for batch in plan {
                let prepared = shared.prepare(&batch, epoch, &mut workbench);
                let failed = prepared.is_err();
                // The other end is gone when the iterator was dropped: nobody waits for more.
                if !bundle.push(prepared) || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("lth-data batches".into()).spawn(prepare);
        let (thread, start_error) = match thread {
            Ok(thread) => (Some(thread), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let bundle = Vec::new().into_iter();
        Batches { receiver: Some(receiver), bundle, thread, start_error, n_left, shared: Arc::clone(&self.shared) }
    }
}

/// The buffers of one preparing thread.
struct Workbench {
    resizer: Resizer,
    bytes: Vec<u8>,
    resized: Vec<u8>,
}

/// A batch before it becomes tensors.
struct Prepared {
    x: Vec<f32>,
    y: Vec<u32>,
}

impl Prepared {
    fn n_bytes(&self) -> usize {
        size_of_val(&self.x[..]) + size_of_val(&self.y[..])
    }
}

/// Bytes from which on batches go to who waits for them.
const BUNDLE_BYTES: usize = 256 << 10;

/// Batches that go together at most.
const MOST_IN_BUNDLE: usize = 16;

/// Batches that go together, since waking a thread for each small one takes longer than preparing it. The first goes alone:
/// it is wanted at once.
struct Bundle {
    sender: SyncSender<Vec<Result<Prepared>>>,
    batches: Vec<Result<Prepared>>,
    n_bytes: usize,
    most: usize,
}

impl Bundle {
    /// `false` if nobody waits for more.
    fn push(&mut self, prepared: Result<Prepared>) -> bool {
        self.n_bytes += prepared.as_ref().map_or(0, Prepared::n_bytes);
        self.batches.push(prepared);
        if self.batches.len() < self.most && self.n_bytes < BUNDLE_BYTES {
            return true;
        }
        (self.n_bytes, self.most) = (0, MOST_IN_BUNDLE.min(2 * self.most));
        self.sender.send(std::mem::take(&mut self.batches)).is_ok()
    }
}

impl Drop for Bundle {
    /// What is prepared arrives, also before a panic.
    fn drop(&mut self) {
        if !self.batches.is_empty() {
            let _ = self.sender.send(std::mem::take(&mut self.batches));
        }
    }
}

impl Shared {
    fn workbench(&self) -> Workbench {
        let resizer = Resizer::new(self.config.image_size);
        Workbench { resizer, bytes: Vec::new(), resized: vec![0; self.picture_len()] }
    }

    fn prepare(&self, batch: &[usize], epoch: Option<usize>, workbench: &mut Workbench) -> Result<Prepared> {
        let n_values = self.picture_len();
        let mut x = vec![0.0; batch.len() * n_values];
        let mut y = Vec::with_capacity(batch.len());
        for (&idx, x) in batch.iter().zip(x.chunks_exact_mut(n_values)) {
            let info = self.pictures.info(idx);
            y.push(info.label);
            let bytes = self.resized(idx, info, epoch, workbench)?;
            self.values(idx, epoch, bytes, x);
        }
        Ok(Prepared { x, y })
    }

    /// The square of picture `idx` that is shown in `epoch`, scaled: from memory where it is there.
    fn resized<'a>(
        &'a self,
        idx: usize,
        info: PictureInfo<'_>,
        epoch: Option<usize>,
        workbench: &'a mut Workbench,
    ) -> Result<&'a [u8]> {
        let size = self.config.image_size;
        if info.width == size
            && info.height == size
            && let Some(bytes) = self.pictures.bytes(idx)
        {
            return Ok(bytes);
        }
        let same_every_time = epoch.is_none() || info.width == info.height;
        if same_every_time && let Some(kept) = self.kept.find(idx) {
            return Ok(kept);
        }
        let Workbench { resizer, bytes, resized } = workbench;
        let bytes = match self.pictures.bytes(idx) {
            Some(bytes) => bytes,
            None => {
                self.pictures.read(idx, bytes)?;
                bytes
            }
        };
        let u = epoch.map_or((0.5, 0.5), |epoch| training_draw(self.augmentation_seed(), epoch, idx));
        let square = Square::largest(info.width, info.height, u);
        resizer.resize(bytes, info.width, self.pictures.n_channels(), square, resized);
        if same_every_time {
            self.kept.keep(idx, resized);
        }
        Ok(resized)
    }

    /// The values of a scaled picture; in training changed as its draw says.
    fn values(&self, idx: usize, epoch: Option<usize>, bytes: &[u8], x: &mut [f32]) {
        let augmentation = &self.config.augmentation;
        match epoch.filter(|_| !augmentation.is_none()) {
            None => normalise(&self.tables, bytes, x),
            Some(epoch) => {
                let change = augmentation.draw(self.augmentation_seed(), epoch, idx);
                augmentation.normalise(change, &self.tables, bytes, self.config.image_size, x);
            }
        }
    }

    fn augmentation_seed(&self) -> u64 {
        self.config.augmentation_seed.unwrap_or(self.config.seed)
    }

    /// Bytes of a resized picture, which is also its number of values.
    fn picture_len(&self) -> usize {
        self.pictures.n_channels() * self.config.image_size * self.config.image_size
    }

    fn tensors(&self, prepared: Prepared) -> Result<(Tensor, Tensor)> {
        let Prepared { x, y } = prepared;
        let size = self.config.image_size;
        let x = Tensor::from_vec(x, (y.len(), self.pictures.n_channels(), size, size), &self.config.device)?;
        let n = y.len();
        Ok((x, Tensor::from_vec(y, n, &self.config.device)?))
    }
}

/// Batches in order; dropping it stops the thread that prepares them.
pub struct Batches {
    receiver: Option<Receiver<Vec<Result<Prepared>>>>,
    /// What is here already.
    bundle: std::vec::IntoIter<Result<Prepared>>,
    thread: Option<JoinHandle<()>>,
    start_error: Option<String>,
    n_left: usize,
    shared: Arc<Shared>,
}

impl Iterator for Batches {
    type Item = Result<(Tensor, Tensor)>;

    /// The next batch. After an error there are no more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.n_left == 0 {
            return None;
        }
        self.n_left -= 1;
        if self.bundle.len() == 0
            && let Some(Ok(bundle)) = self.receiver.as_ref().map(Receiver::recv)
        {
            self.bundle = bundle.into_iter();
        }
        let prepared = self.bundle.next().unwrap_or_else(|| Err(Error::LoaderStopped { reason: self.reason() }));
        let batch = prepared.and_then(|prepared| self.shared.tensors(prepared));
        if batch.is_err() {
            self.n_left = 0;
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.n_left))
    }
}

impl Batches {
    /// Batches still to come, if nothing goes wrong.
    pub fn n_left(&self) -> usize {
        self.n_left
    }

    /// Why the thread is gone before its last batch.
    fn reason(&mut self) -> String {
        if let Some(reason) = self.start_error.take() {
            return reason;
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => crate::decode::panic_message(&*panic),
            Some(Ok(())) | None => "it ended early".into(),
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, so it ends after the batch it is at.
        drop(self.receiver.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it can no longer reach anyone: the batches it would have spoiled are not wanted.
            let _ = thread.join();
        }
    }
}

/// Resized middle squares, which validation asks for every time, and training too where a picture is square.
struct Kept {
    slots: Vec<OnceLock<Box<[u8]>>>,
    n_bytes: AtomicUsize,
}

/// All of PETS at 64 by 64 is 91 MB, its validation pictures at 224 by 224 are 222 MB. Beyond this pictures are resized
/// anew each time: the result is the same.
const MAX_KEPT_BYTES: usize = 256 << 20;

impl Kept {
    fn new(n_pictures: usize) -> Kept {
        Kept { slots: (0..n_pictures).map(|_| OnceLock::new()).collect(), n_bytes: AtomicUsize::new(0) }
    }

    fn find(&self, idx: usize) -> Option<&[u8]> {
        self.slots[idx].get().map(|bytes| &**bytes)
    }

    fn keep(&self, idx: usize, bytes: &[u8]) {
        if self.n_bytes.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len() <= MAX_KEPT_BYTES {
            // A second thread may have been faster; it kept the same bytes.
            let _ = self.slots[idx].set(bytes.into());
        } else {
            self.n_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
    }
}
