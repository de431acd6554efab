//! Figures for TensorBoard as they come.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use lth_runs::experiment::{FitRecord, Measurement};
use lth_runs::tensorboard::EventFile;
use lth_runs::{Address, Error};

use crate::observer::{Notice, Observer};

/// Writes what a runner measures as event files, one in each fit's folder, and tells another observer everything.
///
/// `tensorboard --logdir EXPERIMENT/fits` then shows a run for each fit, by its address, with `loss/train`,
/// `loss/validation`, each metric, `sparsity` and `learning_rate` over the training's steps. A fit that was there already
/// and has no such file gets one from its record, which has no learning rates.
pub struct TensorBoard<'a> {
    root: PathBuf,
    next: &'a mut dyn Observer,
    /// Of the fit that is trained.
    now: Option<(Address, EventFile)>,
    failed: Option<Error>,
}

impl<'a> TensorBoard<'a> {
    /// Event files in the experiment's folder `root`.
    pub fn new(root: impl Into<PathBuf>, next: &'a mut dyn Observer) -> Self {
        Self { root: root.into(), next, now: None, failed: None }
    }

    /// The first thing that went wrong, after which nothing more was written: an observer stops no training.
    ///
    /// # Errors
    /// If an event file could not be written.
    pub fn finish(self) -> Result<(), Error> {
        self.failed.map_or(Ok(()), Err)
    }

    fn write(&mut self, notice: &Notice<'_>) -> Result<(), Error> {
        match notice {
            // The file is made with the first figures: before them the folder may yet be another experiment's.
            Notice::Measured { fit, at, learning_rate } => {
                if self.now.as_ref().is_none_or(|(address, _)| address != *fit) {
                    self.now = Some(((*fit).clone(), self.create(fit)?));
                }
                if let Some((_, events)) = &mut self.now {
                    add(events, at, *learning_rate)?;
                }
            }
            Notice::Remembered { fit, history } if !history.is_empty() => {
                // The file that the process before left may end behind the state that is gone on from.
                let mut events = self.create(fit)?;
                history.iter().try_for_each(|at| add(&mut events, at, None))?;
                self.now = Some(((*fit).clone(), events));
            }
            Notice::Ended { .. } => self.now = None,
            Notice::Skipped { record } => self.add_record(record)?,
            _ => {}
        }
        Ok(())
    }

    fn create(&self, fit: &Address) -> Result<EventFile, Error> {
        let folder = self.folder(fit);
        std::fs::create_dir_all(&folder)
            .map_err(|error| Error::from(lth_files::Error::io("create", &folder)(error)))?;
        EventFile::create(&folder, now())
    }

    fn add_record(&self, record: &FitRecord) -> Result<(), Error> {
        if EventFile::is_in(&self.folder(&record.address)) || record.history.is_empty() {
            return Ok(());
        }
        let mut events = self.create(&record.address)?;
        record.history.iter().try_for_each(|at| add(&mut events, at, None))
    }

    fn folder(&self, fit: &Address) -> PathBuf {
        self.root.join(Path::new(&fit.folder()))
    }
}

impl Observer for TensorBoard<'_> {
    fn on(&mut self, notice: &Notice<'_>) {
        if self.failed.is_none() {
            self.failed = self.write(notice).err();
        }
        self.next.on(notice);
    }
}

fn add(events: &mut EventFile, at: &Measurement, learning_rate: Option<f64>) -> Result<(), Error> {
    let mut scalars: BTreeMap<String, f64> =
        at.metrics.iter().map(|(name, value)| (format!("{name}/validation"), *value)).collect();
    scalars.insert("loss/train".to_owned(), at.train_loss);
    scalars.insert("sparsity".to_owned(), at.sparsity);
    scalars.extend(at.valid_loss.map(|loss| ("loss/validation".to_owned(), loss)));
    scalars.extend(learning_rate.map(|rate| ("learning_rate".to_owned(), rate)));
    let scalars: Vec<(&str, f64)> = scalars.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    events.add(now(), at.step, &scalars)
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
