//! What the program around an experiment gives it, and how its summary is kept up to date.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lth_data::{Checked as DataChecked, DamagedPolicy, Dataset, OpenOptions, Opening};
use lth_runs::experiment::{Conditions, ExperimentDir, ExperimentRecord, FitRecord, SCHEMA, Summary};
use lth_runs::{
    Checked, ClassRecord, DatasetRecord, MachineRecord, MirrorRecord, OptimizerState, SourceFile, WeightsRecord,
};

use crate::observer::{Notice, Observer};
use crate::{Error, Plan, plan};

/// The program around an experiment: where data are cached, who is told what, when to stop, and what the records say of
/// program and machine.
pub struct Host<'a> {
    /// Where decoded data are kept, and what is done with damaged ones.
    pub open: OpenOptions,
    /// Is told how far the opening of data is.
    pub watch: &'a mut dyn FnMut(Opening<'_>),
    /// Is told what the runner does.
    pub observer: &'a mut dyn Observer,
    /// Asked between two batches: whether to stop, and go on another time.
    pub is_interrupted: &'a dyn Fn() -> bool,
    /// Time between two checkpoints of a fit, about: a minute, unless somebody wants it otherwise.
    pub checkpoint_every: Duration,
    /// The process's peak resident memory in bytes, where somebody knows it.
    pub peak_memory: &'a dyn Fn() -> Option<u64>,
    /// The files made of a summary, by name: [`lth_runs::report::files`].
    pub reports: &'a dyn Fn(&Summary) -> Vec<(&'static str, String)>,
    /// The software, with its version.
    pub software: String,
    /// The command line.
    pub command: Vec<String>,
    /// What it runs on.
    pub machine: Option<MachineRecord>,
}

impl<'a> Host<'a> {
    /// A program that caches in `cache_dir`, tells what `observer` wants to hear, and is never interrupted.
    pub fn new(
        cache_dir: impl Into<PathBuf>,
        watch: &'a mut dyn FnMut(Opening<'_>),
        observer: &'a mut dyn Observer,
    ) -> Self {
        Self {
            open: OpenOptions { cache_dir: cache_dir.into(), damaged: DamagedPolicy::Fail },
            watch,
            observer,
            is_interrupted: &|| false,
            checkpoint_every: CHECKPOINT_EVERY,
            peak_memory: &|| None,
            reports: &lth_runs::report::files,
            software: concat!("lth ", env!("CARGO_PKG_VERSION")).to_owned(),
            command: Vec::new(),
            machine: None,
        }
    }
}

/// What is lost at most where a process is killed.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

/// Tells nobody.
pub struct Silent;

impl Observer for Silent {
    fn on(&mut self, _notice: &Notice<'_>) {}
}

/// Keeps an experiment's `summary.json` up to date: what earlier commands left, and what this one adds.
pub struct SummaryWriter {
    start: Instant,
    /// Seconds of earlier commands.
    seconds_before: f64,
    summary: RefCell<Summary>,
    /// When the files were last written, and how long that took.
    written: Cell<Option<(Instant, Duration)>>,
}

/// Of a training's time, the files made of it may take the hundredth part.
const SHARE: u32 = 100;

impl SummaryWriter {
    /// Begins with what is there.
    ///
    /// # Errors
    /// If the summary that is there cannot be read.
    pub fn new(
        plan: &Plan,
        experiment: ExperimentRecord,
        dir: &ExperimentDir,
        (software, command, machine): (&str, &[String], Option<&MachineRecord>),
    ) -> Result<Self, Error> {
        let before = dir.summary()?;
        let before = before.as_ref();
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map(|elapsed| elapsed.as_secs()).ok();
        let optimizer_state = match plan.optimizer_state {
            plan::OptimizerState::Fresh => OptimizerState::Fresh,
            plan::OptimizerState::Carried => OptimizerState::Carried,
        };
        let pruned_weights_are_frozen = before.is_some_and(|summary| summary.conditions.pruned_weights_are_frozen);
        let summary = Summary {
            schema: SCHEMA,
            software: software.to_owned(),
            command: command.to_vec(),
            experiment,
            arms: plan.arms.clone(),
            metric: plan.metric.clone(),
            margin: plan.margin,
            dataset: before.map_or_else(no_data, |summary| summary.dataset.clone()),
            weights: before.and_then(|summary| summary.weights.clone()),
            conditions: Conditions { pruned_weights_are_frozen, optimizer_state },
            machine: machine.cloned(),
            started: before.map_or(started, |summary| summary.started),
            wall_seconds: None,
            peak_memory_bytes: before.and_then(|summary| summary.peak_memory_bytes),
            fits: before.map(|summary| summary.fits.clone()).unwrap_or_default(),
            reference: plan.reference.clone(),
        };
        let seconds_before = before.and_then(|summary| summary.wall_seconds).unwrap_or(0.0);
        Ok(Self { start: Instant::now(), seconds_before, summary: RefCell::new(summary), written: Cell::new(None) })
    }

    /// Notes what data were opened.
    ///
    /// # Errors
    /// [`Error::OtherData`] if fits that are there had other data under the same name.
    pub fn opened(&self, dataset: &Dataset) -> Result<(), Error> {
        let mut summary = self.summary.borrow_mut();
        let record = dataset_record(dataset);
        if let (Some(before), Some(now)) = (&summary.dataset.checksum, &record.checksum)
            && before != now
            && !summary.fits.is_empty()
        {
            return Err(Error::OtherData { got: now.clone(), expected: before.clone() });
        }
        summary.dataset = record;
        Ok(())
    }

    /// Notes where the starting weights came from, and whether what is pruned is never trained.
    pub fn started_from(&self, weights: Option<WeightsRecord>, pruned_weights_are_frozen: bool) {
        let mut summary = self.summary.borrow_mut();
        summary.weights = weights;
        summary.conditions.pruned_weights_are_frozen = pruned_weights_are_frozen;
    }

    /// As [`SummaryWriter::write`] after a fit; where fits are so short that writing would take more than a hundredth of
    /// the time, not after every one. Their records are on the disk already.
    ///
    /// # Errors
    /// As [`SummaryWriter::write`].
    pub fn update(
        &self,
        dir: &mut ExperimentDir,
        records: &[FitRecord],
        reports: &dyn Fn(&Summary) -> Vec<(&'static str, String)>,
        peak_memory: Option<u64>,
    ) -> Result<(), Error> {
        if self.written.get().is_some_and(|(at, took)| at.elapsed() < took * SHARE) {
            return Ok(());
        }
        let begun = Instant::now();
        self.write(dir, records, reports, peak_memory)?;
        self.written.set(Some((Instant::now(), begun.elapsed())));
        Ok(())
    }

    /// Brings summary and reports up to date.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(
        &self,
        dir: &mut ExperimentDir,
        records: &[FitRecord],
        reports: &dyn Fn(&Summary) -> Vec<(&'static str, String)>,
        peak_memory: Option<u64>,
    ) -> Result<Summary, Error> {
        let mut summary = self.summary.borrow_mut();
        summary.fits = records.to_vec();
        summary.wall_seconds = Some(self.seconds_before + self.start.elapsed().as_secs_f64());
        summary.peak_memory_bytes = summary.peak_memory_bytes.max(peak_memory);
        let mut written = summary.clone();
        // An arm without a fit yet is no part of the summary.
        written.arms.retain(|arm| records.iter().any(|record| record.address.arm == arm.name));
        Ok(dir.finish(&written, reports)?)
    }

    /// The summary at the end: what is there if nothing was added, or else a new one.
    ///
    /// # Errors
    /// As [`SummaryWriter::write`].
    pub fn conclude(
        &self,
        dir: &mut ExperimentDir,
        outcome: &crate::Outcome,
        reports: &dyn Fn(&Summary) -> Vec<(&'static str, String)>,
        peak_memory: Option<u64>,
    ) -> Result<Summary, Error> {
        match dir.summary()? {
            Some(summary) if outcome.n_trained == 0 && summary.fits == outcome.records => Ok(summary),
            _ => self.write(dir, &outcome.records, reports, peak_memory),
        }
    }
}

fn no_data() -> DatasetRecord {
    DatasetRecord {
        name: String::new(),
        source: String::new(),
        checked: Checked::No,
        files: Vec::new(),
        mirror: None,
        checksum: None,
        n_train: 0,
        n_valid: 0,
        n_test: 0,
        skipped: Vec::new(),
        odd: Vec::new(),
        left_out: Vec::new(),
        contradicted: Vec::new(),
        classes: Vec::new(),
    }
}

/// What is on record of data that were opened.
fn dataset_record(dataset: &Dataset) -> DatasetRecord {
    let provenance = &dataset.provenance;
    let count = |indices: &[usize], label: usize| {
        indices.iter().filter(|&&idx| dataset.pictures.info(idx).label as usize == label).count() as u64
    };
    let class = |(label, (name, _)): (usize, &(String, usize))| ClassRecord {
        name: name.clone(),
        n_train: count(&dataset.split.train, label),
        n_valid: count(&dataset.split.valid, label),
    };
    DatasetRecord {
        name: provenance.name.to_string(),
        source: provenance.source.clone(),
        checked: match provenance.checked {
            DataChecked::Published => Checked::Published,
            DataChecked::PublishedPart => Checked::PublishedPart,
            DataChecked::Mirror => Checked::Mirror,
            DataChecked::Made => Checked::Made,
            DataChecked::Differs | DataChecked::No => Checked::No,
        },
        files: provenance
            .files
            .iter()
            .map(|file| SourceFile {
                name: file.name.clone(),
                bytes: file.n_bytes,
                sha256: Some(file.sha256.clone()),
                checked: words(file.checked),
            })
            .collect(),
        mirror: provenance.mirror.clone().map(|(url, _)| MirrorRecord { url, sha256sums: None }),
        checksum: Some(provenance.content_sha256.clone()),
        n_train: provenance.n_train as u64,
        n_valid: provenance.n_valid as u64,
        n_test: provenance.n_test as u64,
        skipped: provenance.damaged.iter().map(|damaged| damaged.name.clone()).collect(),
        odd: provenance.misnamed.iter().map(|misnamed| misnamed.name.clone()).collect(),
        left_out: provenance.left_out.clone(),
        contradicted: provenance.list.as_ref().map(|list| list.contradicted.clone()).unwrap_or_default(),
        classes: provenance.classes.iter().enumerate().map(class).collect(),
    }
}

/// How far a file was checked, in words; `None` if nothing is published to check it against.
fn words(checked: DataChecked) -> Option<String> {
    let words = match checked {
        DataChecked::No => return None,
        DataChecked::Differs => "differs from the published checksums",
        DataChecked::Mirror => "the mirror's checksum",
        DataChecked::PublishedPart => "published checksum of a part",
        DataChecked::Published => "published checksum",
        DataChecked::Made => "made here",
    };
    Some(words.to_owned())
}
