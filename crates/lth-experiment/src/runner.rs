//! Does what a plan says, and what of it is not there yet.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use lth_criteria::by_name;
use lth_mask::{MaskSet, select};
use lth_runs::Address;
use lth_runs::experiment::{Ending, Evaluated, ExperimentDir, FitRecord, Part, PathRecord};
use lth_schedule::{Step, TrainingLength};
use lth_ticket::{
    DatasetInfo, Dynamic, EarlyBird, NetworkInfo, Notice as PruningNotice, Pruning, PruningConfig, layer_records,
};
use lth_train::{
    BoxError, Checkpoint, Clip, Data, End, FitConfig, Hook, Network, Optimizer, Task, Trainer, Validate, evaluate,
    tensor_bytes,
};

use crate::branch::branched;
use crate::done::done;
use crate::files::{Files, file_record};
use crate::masks::initial_seed;
use crate::observer::{Notice, Observer};
use crate::plan::{FitPlan, Gradual, MaskFrom, Plan, Start};
use crate::recorder::{Keeper, Recorder};
use crate::signs::transfer_signs;
use crate::states::{Kept, States, carries_optimizer, save_optimizer, wanted};
use crate::{Error, Examples, checkpoints, identity};

/// Is given what there is after every fit and every path.
pub type OnFit<'a> = dyn FnMut(&mut ExperimentDir, &Outcome) -> Result<(), BoxError> + 'a;

/// What a plan is run with.
pub struct Runner<'a, N, E, T> {
    /// What is done.
    pub plan: &'a Plan,
    /// A network with the initial values of a seed, in a type: f32 for training; f64 is asked for where a criterion
    /// differentiates twice, and may be refused. It takes the batches as they are.
    pub network: &'a dyn Fn(u64, DType) -> Result<N, BoxError>,
    /// The data of a seed: its split and the order of its batches.
    pub examples: &'a dyn Fn(u64) -> Result<E, BoxError>,
    /// What the network is trained for.
    pub task: &'a T,
    /// SHA-256 of the file that the initial values are from, where there is one: a fit does not go on with others.
    pub weights_sha256: Option<String>,
    /// What files say of the network.
    pub network_info: NetworkInfo,
    /// What files say of the data; asked once they are there.
    pub dataset_info: &'a dyn Fn() -> DatasetInfo,
    /// Batches that a criterion's gradients are averaged over.
    pub score_batches: usize,
    /// Asked between two batches: whether to stop, and go on another time.
    pub is_interrupted: &'a dyn Fn() -> bool,
    /// Time between two checkpoints of a fit, about; writing them takes no more than a hundredth of the training time. A
    /// fit that is interrupted writes one, too, and the next run goes on from it.
    pub checkpoint_every: Duration,
    /// The process's peak resident memory in bytes, where somebody knows it.
    pub peak_memory: &'a dyn Fn() -> Option<u64>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The records of all fits that are whole, in the plan's order.
    pub records: Vec<FitRecord>,
    /// Those of all paths between them that are measured.
    pub paths: Vec<PathRecord>,
    /// Fits that were trained now; the others were there.
    pub n_trained: usize,
    /// Whether all fits are done; `false` after an interruption.
    pub is_done: bool,
}

impl<N: Network, E: Examples, T: Task<N, E::Batch>> Runner<'_, N, E, T> {
    /// Trains and measures what has no record in `dir` yet. `on_fit` is given the records after every fit and path, to write
    /// a summary.
    ///
    /// A fit whose loss is not finite is recorded as failed; what rests on it is left out, and everything else goes on.
    ///
    /// # Errors
    /// As [`Plan::check`], before anything is trained; what factories, data, training and files say.
    pub fn run(
        &self,
        dir: &mut ExperimentDir,
        observer: &mut dyn Observer,
        on_fit: &mut OnFit<'_>,
    ) -> Result<Outcome, Error> {
        let mut outcome = Outcome { records: Vec::new(), paths: Vec::new(), n_trained: 0, is_done: true };
        let mut examples: Option<(u64, E)> = None;
        let mut is_checked = false;
        for (index, fit) in self.plan.fits.iter().enumerate() {
            let address = &fit.address;
            let identity = identity::of_fit(self.plan, fit)?;
            if let Some(record) = done(self.plan, dir, fit, &identity)? {
                dir.remove_checkpoint(address)?;
                observer.on(&Notice::Skipped { record: &record });
                outcome.records.push(record);
                if !self.paths_to(address, dir, &mut examples, &mut outcome, observer, on_fit)? {
                    return Ok(outcome);
                }
                continue;
            }
            let missing = fit
                .rests_on()
                .into_iter()
                .find(|needed| outcome.records.iter().all(|record| record.address != **needed || !record.is_whole()));
            if let Some(needed) = missing {
                observer.on(&Notice::LeftOut { fit, needed });
                continue;
            }
            if (self.is_interrupted)() {
                outcome.is_done = false;
                return Ok(outcome);
            }
            let data = self.data(&mut examples, address.seed)?;
            if !is_checked {
                self.check(data)?;
                is_checked = true;
            }
            let n_batches = data.n_train_batches() as u64;
            let count = |step: Step| u64::from(step.epoch) * n_batches + u64::from(step.iteration);
            let n_steps = count(fit.to).saturating_sub(count(fit.from));
            observer.on(&Notice::Started { fit, index, n_fits: self.plan.fits.len(), n_steps });
            let root = dir.path().to_path_buf();
            let trained = self.fit(dir, &root, fit, &identity, data, &outcome.records, observer);
            match trained.map_err(Error::of(address))? {
                Some(record) => {
                    dir.write_record(&record)?;
                    dir.remove_checkpoint(address)?;
                    observer.on(&Notice::Ended { record: &record });
                    outcome.records.push(record);
                    outcome.n_trained += 1;
                    on_fit(dir, &outcome).map_err(Error::Data)?;
                }
                None => {
                    outcome.is_done = false;
                    return Ok(outcome);
                }
            }
            if !self.paths_to(address, dir, &mut examples, &mut outcome, observer, on_fit)? {
                return Ok(outcome);
            }
        }
        Ok(outcome)
    }

    /// The data of a seed. Made only when something is to be done with them: a run that has nothing to do opens none.
    fn data<'e>(&self, examples: &'e mut Option<(u64, E)>, seed: u64) -> Result<&'e E, Error> {
        let made = match examples.take() {
            Some((of, there)) if of == seed => there,
            _ => (self.examples)(seed).map_err(|source| Error::Subject { what: "the data", seed, source })?,
        };
        let (_, made) = examples.insert((seed, made));
        Ok(made)
    }

    /// Measures the paths that a fit which is there is the second of two ends to be done of; `false` after an interruption.
    fn paths_to(
        &self,
        address: &Address,
        dir: &mut ExperimentDir,
        examples: &mut Option<(u64, E)>,
        outcome: &mut Outcome,
        observer: &mut dyn Observer,
        on_fit: &mut OnFit<'_>,
    ) -> Result<bool, Error> {
        for path in self.plan.paths.iter().filter(|path| path.ends.contains(address)) {
            let is_whole =
                |end: &Address| outcome.records.iter().any(|record| record.address == *end && record.is_whole());
            if !path.ends.iter().all(is_whole) {
                continue;
            }
            let [_, last] = &path.ends;
            let identity = identity::of_path(self.plan, path)?;
            if let Some(record) = dir.path_record(last)?.filter(|record| record.plan == identity) {
                outcome.paths.push(record);
                continue;
            }
            if (self.is_interrupted)() {
                outcome.is_done = false;
                return Ok(false);
            }
            let data = self.data(examples, last.seed)?;
            let measured = self.measure_path(dir, path, identity, data, &outcome.records);
            let record = measured.map_err(Error::of(last))?;
            dir.write_path(&record)?;
            observer.on(&Notice::PathMeasured { record: &record });
            outcome.paths.push(record);
            on_fit(dir, outcome).map_err(Error::Data)?;
        }
        Ok(true)
    }

    /// What can be found wrong before any training.
    fn check(&self, examples: &E) -> Result<(), Error> {
        let n_batches = u32::try_from(examples.n_train_batches()).unwrap_or(u32::MAX);
        self.plan.check(n_batches)?;
        if let Some(fit) = self.plan.fits.iter().find(|fit| fit.branch.is_some()) {
            branched(fit, examples, n_batches)?;
        }
        let Some(first) = self.plan.fits.first() else { return Ok(()) };
        let network = self.network(first.address.seed, DType::F32)?;
        for fit in &self.plan.fits {
            let target = match (&fit.mask, &fit.gradual) {
                (MaskFrom::Cut(cut), _) => {
                    Some((cut.target, cut.selection.as_ref().unwrap_or(&self.plan.pruning.selection)))
                }
                (_, Some(gradual)) => Some((gradual.target, &gradual.selection)),
                _ => fit.early_bird.as_ref().map(|search| (search.target, &search.selection)),
            };
            let Some((target, selection)) = target else { continue };
            let (sparsity, selection) = self.plan.pruning.target(target, selection, network.parameters())?;
            // By equal scores: what cannot be selected is found now.
            let equal: BTreeMap<String, Tensor> = network
                .parameters()
                .prunable(&self.plan.pruning.ranks)
                .map(|(name, parameter)| {
                    Ok((name.to_owned(), Tensor::ones(parameter.var().dims(), DType::F32, &Device::Cpu)?))
                })
                .collect::<candle_core::Result<_>>()?;
            select(&equal, sparsity.fraction(), &selection).map_err(|error| Error::of(&fit.address)(error.into()))?;
            let criterion = match (&fit.mask, &fit.gradual) {
                (MaskFrom::Cut(cut), _) => cut.criterion.as_ref(),
                (_, Some(gradual)) => Some(&gradual.criterion),
                _ => None,
            };
            by_name(criterion.unwrap_or(&self.plan.pruning.criterion), 0)?;
        }
        Ok(())
    }

    /// Gives a network, which has the initial weights of [`initial_seed`], those of a start.
    pub(crate) fn begin(
        &self,
        network: &N,
        start: &Start,
        seed: u64,
        dtype: DType,
        states: &States<'_>,
    ) -> Result<(), Error> {
        if let Start::SignTransfer { signs, .. } = start {
            let other = self.network(initial_seed(signs, seed), dtype)?;
            self.begin(&other, signs, seed, dtype, states)?;
            return transfer_signs(other.parameters(), network.parameters());
        }
        if let Some(weights) = states.weights(start)? {
            network.parameters().restore(&weights)?;
        }
        Ok(())
    }

    pub(crate) fn network(&self, seed: u64, dtype: DType) -> Result<N, Error> {
        (self.network)(seed, dtype).map_err(|source| Error::Subject { what: "the network", seed, source })
    }

    /// One fit from its start to its record; `None` if it was interrupted. `root`: the folder with the files of `records`.
    // What a fit is of, in a folder of which, told to whom: each of another origin.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn fit(
        &self,
        dir: &mut ExperimentDir,
        root: &Path,
        fit: &FitPlan,
        identity: &str,
        examples: &E,
        records: &[FitRecord],
        observer: &mut dyn Observer,
    ) -> Result<Option<FitRecord>, Error> {
        let begun = Instant::now();
        let states = States::new(self.plan, root, records);
        let network = self.network(initial_seed(&fit.start, fit.address.seed), DType::F32)?;
        let masks = self.masks(fit, &network, examples, &states)?;
        self.begin(&network, &fit.start, fit.address.seed, DType::F32, &states)?;
        let mut trainer = Trainer::new(network, Optimizer::new(self.plan.training.optimizer), fit.address.seed);
        trainer.set_masks(masks.to_tensors(&Device::Cpu)?)?;
        if let Some(after) = carries_optimizer(self.plan, fit) {
            states.load_optimizer(after, &mut trainer)?;
        }
        // What it read last is not held while there is training.
        drop(states);
        let wanted = wanted(self.plan, fit);
        let n_iterations = self.length(fit).iterations(n_batches(examples));
        let mut files = Files { runner: self, fit, n_iterations, records, written: BTreeMap::new() };
        if wanted.contains(&Kept::Start) {
            // A ticket is what its training starts from: written before.
            let start = trainer.network().parameters().snapshot(|_, _| true)?;
            files.write(dir, Kept::Start, start, &masks)?;
        }
        let checkpoint =
            checkpoints::of(self.plan, fit, ((self.dataset_info)().sha256, self.weights_sha256.clone()), dir)?;
        let state = checkpoints::read(&checkpoint, fit, observer)?;
        let position = state.as_ref().and_then(|state| state.counters.position.as_ref());
        let recorded = position.and_then(|at| at.history.last()).map_or(0, |record| record.iteration);
        // Of a fit that goes on: records that are there, and training since the last of them.
        let (n_recorded, carried) = position.map_or((0, Duration::ZERO), |at| (at.history.len(), at.train_time));
        dir.drop_lines_after(&fit.address, recorded as u64)?;
        if dir.record(&fit.address)?.is_some() {
            // Of another plan, or without its files, which are written anew: it says nothing of them any more.
            dir.forget(&fit.address)?;
        }
        if let Some(state) = state {
            trainer.restore(&state)?;
        }
        let mut keeper = Keeper::new(&fit.keep, n_batches(examples), examples.test().is_some());
        let mut overhead = begun.elapsed();
        let called = Instant::now();
        let Trained { ending, history, data_seconds, measuring } =
            self.train(&mut trainer, dir, fit, examples, (&checkpoint, &mut keeper), observer)?;
        let took = called.elapsed() + carried;
        let Some(mut ending) = ending else { return Ok(None) };
        if !matches!(ending, Ending::Failed { .. }) {
            // What is neither training nor validation nor its record: what other hooks do between them, checkpoints.
            let timed: f64 = history.iter().skip(n_recorded).map(|at| at.seconds + at.valid_seconds).sum();
            overhead += took.saturating_sub(measuring).saturating_sub(Duration::from_secs_f64(timed));
        }

        let begun = Instant::now();
        let masks = MaskSet::from_tensors(trainer.masks())?;
        let (mut at_end, mut at_best, mut testing) = (None, None, None);
        if !matches!(ending, Ending::Failed { .. }) {
            let now = trainer.network().parameters().snapshot(|_, _| true)?;
            let tested = Instant::now();
            at_end = Some(self.evaluated(trainer.network(), examples)?);
            at_best = match keeper.best.take() {
                // Of the same weights the same figures.
                Some((_, best)) if are_equal(&best, &now)? => at_end.clone(),
                Some((_, best)) => {
                    trainer.network().parameters().restore(&best)?;
                    let tested = self.evaluated(trainer.network(), examples)?;
                    trainer.network().parameters().restore(&now)?;
                    Some(tested)
                }
                None => None,
            };
            testing = Some(tested.elapsed().as_secs_f64());
            let problem = at_end.iter().chain(&at_best).find_map(not_finite);
            if let Some(reason) = problem {
                (at_end, at_best, ending) = (None, None, Ending::Failed { reason });
            }
            let is_whole = !matches!(ending, Ending::Failed { .. });
            let wanted = if is_whole { wanted } else { Vec::new() };
            if wanted.contains(&Kept::Learnt) {
                files.write(dir, Kept::Learnt, std::mem::take(&mut keeper.learnt), &masks)?;
            }
            for (step, weights) in std::mem::take(&mut keeper.at).into_iter().filter(|_| is_whole) {
                files.write(dir, Kept::At(step), weights, &MaskSet::new())?;
            }
            if wanted.contains(&Kept::End) {
                files.write(dir, Kept::End, now, &masks)?;
            }
            if wanted.contains(&Kept::Optimizer) {
                let (path, name) = dir.prepare_file(&fit.address, "optimizer.safetensors")?;
                save_optimizer(&path, &trainer)?;
                files.written.insert(Kept::Optimizer.name(fit), file_record(&path, name)?);
            }
        }
        let layers = layer_records(trainer.network().parameters(), &self.plan.pruning.ranks)?;
        overhead += begun.elapsed();
        let n_batches = n_batches(examples);
        Ok(Some(FitRecord {
            address: fit.address.clone(),
            plan: identity.to_owned(),
            starts_from: fit.start.fit().cloned(),
            mask_from: fit.mask.fits().into_iter().filter(|needed| fit.start.fit() != Some(needed)).cloned().collect(),
            description: fit.description.clone(),
            sparsity: if masks.is_empty() { 0.0 } else { masks.sparsity() },
            span: (fit.from.iterations(n_batches), fit.to.iterations(n_batches)),
            ending,
            history,
            at_end,
            at_best,
            layers,
            files: files.written,
            overhead_seconds: overhead.as_secs_f64(),
            test_seconds: testing,
            wait_seconds: Some(data_seconds),
            peak_memory_bytes: (self.peak_memory)(),
        }))
    }

    fn train(
        &self,
        trainer: &mut Trainer<N>,
        dir: &mut ExperimentDir,
        fit: &FitPlan,
        examples: &E,
        (checkpoint, keeper): (&Checkpoint, &mut Keeper),
        observer: &mut dyn Observer,
    ) -> Result<Trained, Error> {
        let training = &self.plan.training;
        let n_batches = n_batches(examples);
        let length = self.length(fit);
        if fit.from == fit.to {
            // Nothing to train: what the mask alone does.
            return Ok(Trained {
                ending: Some(Ending::Done),
                history: Vec::new(),
                data_seconds: 0.0,
                measuring: Duration::ZERO,
            });
        }
        let rate = fit.learning_rate.as_ref().unwrap_or(&training.learning_rate);
        let rate = rate.plan(TrainingLength::until(length, n_batches)?)?;
        let config = FitConfig {
            length: Some(length),
            first_epoch: epochs_before(self.plan, fit),
            learning_rate: &|progress| rate.rate(progress),
            momentum: rate.momentum_curve(),
            validate: training.validate_every.map_or(Validate::EachEpoch, Validate::Every),
            clip: training.clip_norm.map(Clip::Norm),
            interrupted: Some(self.is_interrupted),
            checkpoint: Some(&|state| Ok(checkpoint.write(state)?)),
            checkpoint_every: Some(self.checkpoint_every),
            ..FitConfig::span(fit.from, fit.to)
        };
        let branch = branched(fit, examples, n_batches)?;
        let data = Data {
            train: |epoch| match &branch {
                Some(branch) => branch.train(examples, epoch - config.first_epoch, epoch),
                None => examples.train(epoch),
            },
            n_train_batches: n_batches as usize,
            valid: || examples.valid(),
        };
        // Told after the fit's own figures, since both want the observer.
        let notices = std::cell::RefCell::new(Vec::new());
        let mut pruning = match &fit.gradual {
            Some(gradual) => {
                let config =
                    self.pruning_config(gradual, trainer.network(), fit.address.seed, length.iterations(n_batches))?;
                let told = |notice: &PruningNotice| notices.borrow_mut().push(*notice);
                Some(Pruning::new(config).with_notices(told))
            }
            None => None,
        };
        let mut dynamic = fit.dynamic.map(Dynamic::new);
        let mut early_bird = match &fit.early_bird {
            Some(search) => {
                let rule = &self.plan.pruning;
                let parameters = trainer.network().parameters();
                let (sparsity, selection) = rule.target(search.target, &search.selection, parameters)?;
                Some(EarlyBird::new(search.settled, sparsity, selection, rule.ranks.clone()))
            }
            None => None,
        };
        let mut recorder = Recorder::new(fit, dir, observer, &self.plan.pruning.ranks, &notices);
        let fitted = {
            let mut hooks: Vec<&mut dyn Hook> = vec![&mut *keeper];
            if let Some(pruning) = &mut pruning {
                hooks.push(pruning);
            }
            if let Some(dynamic) = &mut dynamic {
                hooks.push(dynamic);
            }
            if let Some(early_bird) = &mut early_bird {
                hooks.push(early_bird);
            }
            hooks.push(&mut recorder);
            trainer.fit_task(self.task, &config, &data, &mut hooks)
        };
        let ending = match fitted {
            Ok(fitted) => match fitted.end {
                End::Done => Some(Ending::Done),
                End::Stopped { reason, .. } => Some(Ending::Stopped { reason }),
                End::TimeLimit | End::Interrupted => None,
            },
            // The experiment goes on without this fit.
            Err(
                error @ (lth_train::Error::LossNotFinite { .. }
                | lth_train::Error::NotFinite { .. }
                | lth_train::Error::GradientNotFinite { .. }),
            ) => Some(Ending::Failed { reason: error.to_string() }),
            Err(error) => return Err(error.into()),
        };
        let measuring = recorder.measuring + keeper.measuring;
        Ok(Trained { ending, history: recorder.history, data_seconds: recorder.data_seconds, measuring })
    }

    /// The length of the training that the fit is, or is a part of.
    fn length(&self, fit: &FitPlan) -> Step {
        fit.length.unwrap_or(self.plan.training.length)
    }

    fn pruning_config(
        &self,
        gradual: &Gradual,
        network: &N,
        seed: u64,
        n_iterations: u64,
    ) -> Result<PruningConfig, Error> {
        let (end, selection) = self.plan.pruning.target(gradual.target, &gradual.selection, network.parameters())?;
        Ok(PruningConfig {
            criterion: by_name(&gradual.criterion, seed)?,
            selection,
            rewind: gradual.rewind,
            ranks: self.plan.pruning.ranks.clone(),
            ..PruningConfig::new(gradual.schedule(end, n_iterations))
        })
    }

    /// On the test set, or where there is none on the validation set.
    fn evaluated(&self, network: &N, examples: &E) -> Result<Evaluated, Error> {
        let (on, batches) = match examples.test() {
            Some(batches) => (Part::Test, batches),
            None => (Part::Validation, examples.valid()),
        };
        let evaluation = evaluate(network, self.task, batches)?;
        Ok(Evaluated {
            on,
            loss: evaluation.loss,
            metrics: evaluation.metrics,
            n_examples: evaluation.n_examples as u64,
            right: evaluation.right.map(|right| right.into_iter().collect()),
        })
    }
}

/// Whether two snapshots of a network have the same bits.
fn are_equal(one: &BTreeMap<String, Tensor>, other: &BTreeMap<String, Tensor>) -> Result<bool, Error> {
    for (name, tensor) in one {
        let Some(other) = other.get(name) else { return Ok(false) };
        let bytes = |tensor: &Tensor| tensor_bytes(tensor).map_err(candle_core::Error::from);
        if bytes(tensor)? != bytes(other)? {
            return Ok(false);
        }
    }
    Ok(one.len() == other.len())
}

/// What of these figures is infinite or NaN.
fn not_finite(at: &Evaluated) -> Option<String> {
    let mut figures =
        std::iter::once(("loss", at.loss)).chain(at.metrics.iter().map(|(name, value)| (name.as_str(), *value)));
    let (name, value) = figures.find(|(_, value)| !value.is_finite())?;
    Some(format!("at the end its {name} is {value}: lower the learning rate, or clip gradients"))
}

/// What a training gave.
struct Trained {
    /// `None` if it was interrupted.
    ending: Option<Ending>,
    history: Vec<lth_runs::experiment::Measurement>,
    data_seconds: f64,
    /// What its records took, and weights that were kept to be tested.
    measuring: Duration,
}

fn n_batches<E: Examples>(examples: &E) -> u32 {
    u32::try_from(examples.n_train_batches()).unwrap_or(u32::MAX)
}

/// Epochs of the fits that come before in the data's order.
fn epochs_before(plan: &Plan, fit: &FitPlan) -> u64 {
    let before = fit.after.as_ref().and_then(|after| plan.fit(after));
    before.map_or(0, |before| epochs_before(plan, before) + u64::from(before.to.epoch))
}
