//! What the program around an experiment gives it, and how its summary is kept up to date.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lth_data::{Checked as DataChecked, DamagedPolicy, Dataset, OpenOptions, Opening};
use lth_runs::experiment::{Conditions, ExperimentDir, ExperimentRecord, PathRecord, SCHEMA, Summary};
use lth_runs::{
    Address, BuildRecord, Checked, ClassRecord, DatasetRecord, MachineRecord, MirrorRecord, OptimizerState, SourceFile,
    WeightsRecord,
};

use lth_runs::report::Extras;

use crate::earlier::Earlier;
use crate::observer::{Notice, Observer};
use crate::{Error, Outcome, Plan, Shard, extras, plan};

/// The files made of a summary and of what is measured besides, by name.
pub type Reports<'a> = dyn Fn(&Summary, &Extras) -> Vec<(&'static str, String)> + 'a;

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
    /// The share of the experiment's replicates that is trained; absent: all of them.
    pub shard: Option<Shard>,
    /// Time between two checkpoints of a fit, about: a minute, unless somebody wants it otherwise.
    pub checkpoint_every: Duration,
    /// The process's peak resident memory in bytes, where somebody knows it.
    pub peak_memory: &'a dyn Fn() -> Option<u64>,
    /// The files made of a summary: [`lth_runs::report::files_with`].
    pub reports: &'a Reports<'a>,
    /// The software, with its version, and what it was built from.
    pub build: BuildRecord,
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
            shard: None,
            checkpoint_every: CHECKPOINT_EVERY,
            peak_memory: &|| None,
            reports: &lth_runs::report::files_with,
            build: BuildRecord::of(concat!("lth ", env!("CARGO_PKG_VERSION"))),
            command: Vec::new(),
            machine: None,
        }
    }
}

/// Between two checkpoints, unless writing one takes so long that a hundredth of the time is more.
pub const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);

/// Tells nobody.
pub struct Silent;

impl Observer for Silent {
    fn on(&mut self, _notice: &Notice<'_>) {}
}

/// Keeps an experiment's `summary.json` up to date: what earlier commands left (other seeds, levels and arms too), and what
/// this one adds.
pub struct SummaryWriter {
    start: Instant,
    /// Seconds of earlier commands.
    seconds_before: f64,
    summary: RefCell<Summary>,
    build: BuildRecord,
    /// What earlier commands left besides: fits, and paths between networks.
    earlier: Earlier,
    paths_before: Vec<PathRecord>,
    /// When the files were last written, and how long that took.
    written: Cell<Option<(Instant, Duration)>>,
}

/// Of a training's time, the files made of it may take the hundredth part.
const SHARE: u32 = 100;

impl SummaryWriter {
    /// Begins with what is there. `wider`: the plan of the same experiment with all seeds, levels and arms that have a record
    /// in `dir`; what `plan` has not of it stays in the summary, named among [`Summary::earlier`].
    ///
    /// # Errors
    /// If a record or the summary that is there cannot be read.
    pub fn new(
        plans: (&Plan, &Plan),
        experiment: ExperimentRecord,
        dir: &ExperimentDir,
        about: (&BuildRecord, &[String], Option<&MachineRecord>),
    ) -> Result<Self, Error> {
        Self::going_on(dir.summary()?.as_ref(), plans, experiment, dir, about)
    }

    /// [`SummaryWriter::new`] with the summary that it begins with.
    pub(crate) fn going_on(
        before: Option<&Summary>,
        (plan, wider): (&Plan, &Plan),
        experiment: ExperimentRecord,
        dir: &ExperimentDir,
        (build, command, machine): (&BuildRecord, &[String], Option<&MachineRecord>),
    ) -> Result<Self, Error> {
        let earlier = Earlier::of(dir, plan, wider, before)?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map(|elapsed| elapsed.as_secs()).ok();
        let optimizer_state = match plan.optimizer_state {
            plan::OptimizerState::Fresh => OptimizerState::Fresh,
            plan::OptimizerState::Carried => OptimizerState::Carried,
        };
        let is_planned = |path: &PathRecord| plan.paths.iter().any(|other| other.ends[1] == path.ends[1]);
        let is_other = |path: &&PathRecord| !is_planned(path);
        let paths = before.into_iter().flat_map(|summary| &summary.paths);
        let paths_before = paths.filter(is_other).cloned().collect();
        let pruned_weights_are_frozen = before.is_some_and(|summary| summary.conditions.pruned_weights_are_frozen);
        let summary = Summary {
            schema: SCHEMA,
            software: build.software.clone(),
            builds: before.map(|summary| summary.builds.clone()).unwrap_or_default(),
            command: command.to_vec(),
            experiment,
            arms: earlier.arms.clone(),
            metric: plan.metric.clone(),
            margin: plan.margin,
            is_race: plan.is_race,
            dataset: before.map_or_else(no_data, |summary| summary.dataset.clone()),
            weights: before.and_then(|summary| summary.weights.clone()),
            conditions: Conditions { pruned_weights_are_frozen, optimizer_state },
            machine: machine.cloned(),
            started: before.map_or(started, |summary| summary.started),
            wall_seconds: None,
            peak_memory_bytes: before.and_then(|summary| summary.peak_memory_bytes),
            fits: before.map(|summary| summary.fits.clone()).unwrap_or_default(),
            is_unfinished: false,
            earlier: Vec::new(),
            paths: before.map(|summary| summary.paths.clone()).unwrap_or_default(),
            reference: plan.reference.clone(),
        };
        let seconds_before = before.and_then(|summary| summary.wall_seconds).unwrap_or(0.0);
        Ok(Self {
            start: Instant::now(),
            seconds_before,
            summary: RefCell::new(summary),
            build: build.clone(),
            earlier,
            paths_before,
            written: Cell::new(None),
        })
    }

    /// Notes what data were opened, split by that seed.
    ///
    /// # Errors
    /// [`Error::OtherData`] if fits that are there had other data under the same name.
    pub fn opened(&self, dataset: &Dataset, split_seed: u64) -> Result<(), Error> {
        let mut summary = self.summary.borrow_mut();
        let mut record = dataset_record(dataset);
        record.splits = std::mem::take(&mut summary.dataset.splits);
        record.splits.insert(split_seed, dataset.split.sha256());
        if let (Some(before), Some(now)) = (&summary.dataset.checksum, &record.checksum)
            && before != now
            && !summary.fits.is_empty()
        {
            return Err(Error::OtherData { what: "data", got: now.clone(), expected: before.clone() });
        }
        summary.dataset = record;
        Ok(())
    }

    /// Notes where the starting weights came from, and whether what is pruned is never trained.
    ///
    /// # Errors
    /// [`Error::OtherData`] if fits that are there started from other weights under the same name.
    pub fn started_from(&self, weights: Option<WeightsRecord>, pruned_weights_are_frozen: bool) -> Result<(), Error> {
        let mut summary = self.summary.borrow_mut();
        let sha256 = |weights: &Option<WeightsRecord>| weights.as_ref().and_then(|weights| weights.sha256.clone());
        if let (Some(expected), Some(got)) = (sha256(&summary.weights), sha256(&weights))
            && expected != got
            && !summary.fits.is_empty()
        {
            return Err(Error::OtherData { what: "starting weights", got, expected });
        }
        summary.weights = weights;
        summary.conditions.pruned_weights_are_frozen = pruned_weights_are_frozen;
        Ok(())
    }

    /// Brings summary and reports up to date after a fit; where fits are so short that writing would take more than a
    /// hundredth of the time, not after every one. Their records are on the disk already.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn update(
        &self,
        dir: &mut ExperimentDir,
        outcome: &Outcome,
        reports: &Reports<'_>,
        peak_memory: Option<u64>,
    ) -> Result<(), Error> {
        self.trained();
        if self.written.get().is_some_and(|(at, took)| at.elapsed() < took * SHARE) {
            return Ok(());
        }
        let begun = Instant::now();
        self.write(dir, outcome, reports, peak_memory, true, |_| Extras::default())?;
        self.written.set(Some((Instant::now(), begun.elapsed())));
        Ok(())
    }

    /// The summary with these fits and paths of the plan, and what earlier commands left, as far as it rests on what is
    /// there.
    pub fn summary(&self, outcome: &Outcome) -> Summary {
        let mut summary = self.summary.borrow().clone();
        (summary.fits, summary.earlier) = self.earlier.with(&outcome.records);
        let has = |address: &Address| summary.fits.iter().any(|fit| fit.address == *address);
        let paths = outcome.paths.iter().chain(self.paths_before.iter().filter(|path| path.ends.iter().all(has)));
        summary.paths = paths.cloned().collect();
        // An arm without a fit yet is no part of the summary.
        summary.arms.retain(|arm| summary.fits.iter().any(|fit| fit.address.arm == arm.name));
        summary
    }

    /// The summary at the end: what is there if nothing was added, or else a new one, whose reports show the networks' masks
    /// and weights and the contact sheet as well.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn conclude(
        &self,
        dir: &mut ExperimentDir,
        outcome: &Outcome,
        reports: &Reports<'_>,
        peak_memory: Option<u64>,
    ) -> Result<Summary, Error> {
        if outcome.n_trained > 0 {
            self.trained();
        }
        let now = self.summary(outcome);
        let asked = |summary: &Summary| (summary.metric.clone(), summary.margin, summary.is_race);
        let is_same = |there: &Summary| {
            (&there.fits, &there.earlier, &there.paths) == (&now.fits, &now.earlier, &now.paths)
                && asked(there) == asked(&now)
        };
        match dir.summary()? {
            // What a killed process left has not all that the last files have.
            Some(there) if outcome.n_trained == 0 && !there.is_unfinished && is_same(&there) => Ok(there),
            _ => {
                let root = dir.path().to_path_buf();
                self.write(dir, outcome, reports, peak_memory, !outcome.is_done, |summary| extras(&root, summary))
            }
        }
    }

    fn write(
        &self,
        dir: &mut ExperimentDir,
        outcome: &Outcome,
        reports: &Reports<'_>,
        peak_memory: Option<u64>,
        is_unfinished: bool,
        extras: impl FnOnce(&Summary) -> Extras,
    ) -> Result<Summary, Error> {
        {
            let mut summary = self.summary.borrow_mut();
            summary.wall_seconds = Some(self.seconds_before + self.start.elapsed().as_secs_f64());
            summary.peak_memory_bytes = summary.peak_memory_bytes.max(peak_memory);
            summary.is_unfinished = is_unfinished;
        }
        Ok(dir.finish(&self.summary(outcome), |summary| reports(summary, &extras(summary)))?)
    }

    /// Notes that this program trained a fit.
    fn trained(&self) {
        let builds = &mut self.summary.borrow_mut().builds;
        if builds.last() != Some(&self.build) {
            builds.push(self.build.clone());
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
        splits: BTreeMap::new(),
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
        splits: BTreeMap::new(),
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
