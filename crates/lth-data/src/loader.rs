//! Batches of tensors, prepared ahead of the training step on another thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use candle_core::{Device, Tensor};

use crate::crop::{Square, training_draw};
use crate::error::{Error, Result};
use crate::normalise::{Normalisation, normalise};
use crate::pictures::Pictures;
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
    /// Pictures in a validation batch; it changes no result.
    pub valid_batch_size: usize,
    /// Seed of the order and the crops of training.
    pub seed: u64,
    /// Mean and deviation per channel.
    pub normalisation: Normalisation,
    /// Where the tensors go.
    pub device: Device,
    /// Batches prepared ahead of the one in use.
    pub n_ahead: usize,
}

impl LoaderConfig {
    /// ImageNet's normalisation, tensors on the CPU, validation batches as large as training batches, two batches ahead.
    pub fn new(image_size: usize, batch_size: usize, seed: u64) -> LoaderConfig {
        LoaderConfig {
            image_size,
            batch_size,
            valid_batch_size: batch_size,
            seed,
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
    /// If a size is 0, the normalisation does not have the pictures' channels, the split names a picture that does not
    /// exist, or there are fewer training pictures than a batch.
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
        if let Some(idx) = split.train.iter().chain(&split.valid).find(|&&idx| idx >= pictures.len()) {
            return Err(Error::BadSetting {
                what: "picture index in the split",
                got: idx.to_string(),
                expected: format!("below {}", pictures.len()),
            });
        }
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
        let Shared { config, .. } = &*self.shared;
        let train = &self.split.train;
        let order = permutation(train.len(), &mut stream(config.seed, Purpose::Shuffle, epoch as u64, 0));
        let batches = order.chunks_exact(config.batch_size);
        self.start(batches.map(|batch| batch.iter().map(|&place| train[place]).collect()).collect(), Some(epoch))
    }

    /// The batches of the validation pictures: all of them, in the split's order, the middle square of each.
    pub fn valid(&self) -> Batches {
        let batches = self.split.valid.chunks(self.shared.config.valid_batch_size);
        self.start(batches.map(<[usize]>::to_vec).collect(), None)
    }

    /// Batches in a training epoch.
    pub fn n_train_batches(&self) -> usize {
        self.split.train.len() / self.shared.config.batch_size
    }

    /// Batches in a validation pass.
    pub fn n_valid_batches(&self) -> usize {
        self.split.valid.len().div_ceil(self.shared.config.valid_batch_size)
    }

    /// The pictures.
    pub fn pictures(&self) -> &Arc<dyn Pictures> {
        &self.shared.pictures
    }

    /// Which pictures train and which validate.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// How batches are made.
    pub fn config(&self) -> &LoaderConfig {
        &self.shared.config
    }

    /// Prepares the batches of `plan` on a thread; `epoch`: None for validation.
    fn start(&self, plan: Plan, epoch: Option<usize>) -> Batches {
        let n_left = plan.len();
        let (sender, receiver) = sync_channel(self.shared.config.n_ahead.max(1));
        let shared = Arc::clone(&self.shared);
        let prepare = move || {
            let mut workbench = Workbench { resizer: Resizer::new(shared.config.image_size), bytes: Vec::new() };
            for batch in plan {
                let prepared = shared.prepare(&batch, epoch, &mut workbench);
                let failed = prepared.is_err();
                // The other end is gone when the iterator was dropped: nobody waits for more.
                if sender.send(prepared).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("lth-data batches".into()).spawn(prepare);
        let (thread, start_error) = match thread {
            Ok(thread) => (Some(thread), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Batches { receiver: Some(receiver), thread, start_error, n_left, shared: Arc::clone(&self.shared) }
    }
}

/// The buffers of one preparing thread.
struct Workbench {
    resizer: Resizer,
    bytes: Vec<u8>,
}

/// A batch before it becomes tensors.
struct Prepared {
    x: Vec<f32>,
    y: Vec<u32>,
}

impl Shared {
    fn prepare(&self, batch: &[usize], epoch: Option<usize>, workbench: &mut Workbench) -> Result<Prepared> {
        let n_bytes = self.picture_len();
        let mut x = vec![0.0; batch.len() * n_bytes];
        let mut y = Vec::with_capacity(batch.len());
        let mut resized = vec![0; n_bytes];
        for (&idx, x) in batch.iter().zip(x.chunks_exact_mut(n_bytes)) {
            let info = self.pictures.info(idx);
            y.push(info.label);
            let u = epoch.map_or((0.5, 0.5), |epoch| training_draw(self.config.seed, epoch, idx));
            let square = Square::largest(info.width, info.height, u);
            let same_every_time = epoch.is_none() || info.width == info.height;
            if let Some(kept) = self.kept.find(idx).filter(|_| same_every_time) {
                normalise(&self.tables, kept, x);
                continue;
            }
            self.pictures.read(idx, &mut workbench.bytes)?;
            let Workbench { resizer, bytes } = workbench;
            resizer.resize(bytes, info.width, self.pictures.n_channels(), square, &mut resized);
            normalise(&self.tables, &resized, x);
            if same_every_time {
                self.kept.keep(idx, &resized);
            }
        }
        Ok(Prepared { x, y })
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
    receiver: Option<Receiver<Result<Prepared>>>,
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
        let prepared = match self.receiver.as_ref().map(Receiver::recv) {
            Some(Ok(prepared)) => prepared,
            Some(Err(_)) | None => Err(Error::LoaderStopped { reason: self.reason() }),
        };
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
