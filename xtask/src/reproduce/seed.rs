//! All fits for one seed.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use indicatif::ProgressBar;
use lth_data::Loader;
use lth_mask::MaskSet;
use lth_nn::{Freeze, Head, Part, ResNet, ResNetConfig, Setup, Weights};
use lth_runs::{EpochRecord, FileRecord, LayerRecord, MetricRecord, RunDir, RunRecord, lines};
use lth_ticket::{
    DatasetInfo, NetworkInfo, Notice, Preprocessing, Pruning, PruningInfo, Stage, Ticket, TicketHeader, layer_records,
};
use lth_train::{BoxError, Data, Event, Fit, FitConfig, Hook, Network, Optimizer, Parameters, State, Trainer};

use super::fits::{Plan, Start, plans};
use super::options::{FreezeName, OptimizerStateName, Settings};
use crate::console::Console;
use crate::failure::{Blame, Failure, Kind, Result};
use crate::system;

/// Ranks of the weights that the comparison prunes: the convolutions'.
const PRUNED_RANKS: [usize; 1] = [4];

/// What the fits of a seed share.
pub(crate) struct SeedRun<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) seed: u64,
    pub(crate) loader: &'a Loader,
    pub(crate) weights: Option<&'a Weights>,
    pub(crate) dataset: DatasetInfo,
    pub(crate) device: &'a Device,
    pub(crate) console: &'a Console,
    pub(crate) run_dir: &'a mut RunDir,
}

impl SeedRun<'_> {
    /// Runs every fit; `on_run` hears of each as it ends.
    pub(crate) fn run(&mut self, mut on_run: impl FnMut(RunRecord)) -> Result {
        let network = self.network()?;
        let initial = network.parameters().snapshot(|_, _| true).training()?;
        let mut trainer = Trainer::new(network, Optimizer::new(self.settings.optimizer), self.seed);
        let plans = plans(self.settings);
        let mut left = Left::default();
        for (index, plan) in plans.iter().enumerate() {
            self.console.line(format!(
                "\n{} ({} of {}, seed {})",
                self.describe(plan),
                index + 1,
                plans.len(),
                self.seed
            ));
            let first_epoch = self.prepare(&mut trainer, plan, &initial, &left)?;
            let record = self.fit(&mut trainer, plan, first_epoch, &mut left)?;
            left.last.clone_from(&plan.name);
            left.n_epochs.insert(plan.name.clone(), first_epoch + plan.n_epochs as u64);
            // Only what a later fit goes on from is worth its memory.
            if plans[index + 1..].iter().any(|later| later.after.as_ref() == Some(&plan.name)) {
                left.states.insert(plan.name.clone(), trainer.state().training()?);
            }
            left.states.retain(|name, _| plans[index + 1..].iter().any(|later| later.after.as_ref() == Some(name)));
            on_run(record);
        }
        Ok(())
    }

    fn describe(&self, plan: &Plan) -> String {
        let what = match &plan.pruning {
            None => "dense".to_owned(),
            Some(pruning) => {
                let by = if pruning.is_random { "at random" } else { "by magnitude" };
                match pruning.rewind_epoch {
                    Some(epoch) => format!("pruned {by} to {:.0} %, rewound to epoch {epoch}", 100. * pruning.sparsity),
                    None => format!("the ticket of {:.0} %, cut {by}", 100. * pruning.sparsity),
                }
            }
        };
        let from = match (plan.start, &plan.after) {
            (Start::Initial, _) | (_, None) => "from the initial weights".to_owned(),
            (Start::Left, Some(before)) => format!("from where {before} ended"),
            (Start::Continued, Some(before)) => format!("{before} continued"),
        };
        format!("{}: {what}, {from}, {} epochs", plan.name, plan.n_epochs)
    }

    fn network(&self) -> Result<ResNet> {
        let classes = self.loader.pictures().classes().len();
        let head = self.settings.head.into();
        let setup = Setup { device: self.device.clone(), ..Setup::new(self.seed) };
        let network = ResNet::new(&ResNetConfig::resnet18(classes, head), &setup).training()?;
        if let Some(weights) = self.weights {
            let report = weights.load_into(network.parameters(), Part::Body).data()?;
            if let Some(prefix) = report.stripped {
                self.console.note(format!("`{prefix}` before every name of the starting weights is taken off"));
            }
        }
        network.freeze(match self.settings.freeze {
            FreezeName::Body => Freeze::Body,
            FreezeName::None => Freeze::None,
        });
        Ok(network)
    }

    /// Brings the trainer to where the fit starts; returns the number of its first epoch.
    fn prepare(
        &self,
        trainer: &mut Trainer<ResNet>,
        plan: &Plan,
        initial: &BTreeMap<String, Tensor>,
        left: &Left,
    ) -> Result<u64> {
        let Some(after) = &plan.after else { return Ok(0) };
        if left.last != *after
            && let Some(state) = left.states.get(after)
        {
            trainer.restore(state).training()?;
        }
        if plan.start == Start::Initial {
            trainer.set_masks(BTreeMap::new()).training()?;
            trainer.network().parameters().restore(initial).training()?;
        }
        if plan.start != Start::Continued && self.settings.optimizer_state == OptimizerStateName::Fresh {
            trainer.optimizer_mut().reset();
        }
        Ok(left.n_epochs.get(after).copied().unwrap_or(0))
    }

    fn fit(
        &mut self,
        trainer: &mut Trainer<ResNet>,
        plan: &Plan,
        first_epoch: u64,
        left: &mut Left,
    ) -> Result<RunRecord> {
        let is_search = plan.pruning.as_ref().is_some_and(|pruning| pruning.rewind_epoch.is_some());
        let keeps_files = !plan.control;
        let console = self.console;
        let n_batches = self.loader.n_train_batches();

        let mut pruning = match &plan.pruning {
            Some(pruning) => {
                let config = pruning.config(self.seed).training()?;
                let tell = |notice: &Notice| {
                    if !matches!(notice, Notice::Pruned { .. }) {
                        console.line(notice.to_string());
                    }
                };
                Some(Pruning::new(config).with_notices(tell))
            }
            None => None,
        };
        // A ticket is what its training starts from: take it before.
        let mut files = Files::default();
        if let Some(plan_pruning) = &plan.pruning
            && !is_search
            && keeps_files
        {
            let parameters = trainer.network().parameters().snapshot(|_, _| true).training()?;
            let info = self.pruning_info(plan_pruning, trainer.masks())?;
            let parent = left.contents.get(plan.after.as_deref().unwrap_or_default()).cloned();
            files.ticket =
                Some(self.write(&plan.name, Stage::Ticket, parameters, trainer.masks(), Some(info), parent)?);
        }

        let bar = console.bar(&plan.name, (plan.n_epochs * n_batches) as u64);
        let mut kept = Kept { is_wanted: is_search && keeps_files, parameters: BTreeMap::new() };
        let mut recorder = Recorder {
            plan,
            seed: self.seed,
            run_dir: &mut *self.run_dir,
            console,
            bar: bar.clone(),
            records: Vec::new(),
        };
        console.line(lines::epoch_header());
        let mut hooks: Vec<&mut dyn Hook> = vec![&mut kept];
        if let Some(pruning) = &mut pruning {
            hooks.push(pruning);
        }
        hooks.push(&mut recorder);
        let rate = self.settings.learning_rate;
        let config = FitConfig { first_epoch, learning_rate: &|_| rate, ..FitConfig::new(plan.n_epochs) };
        let data = Data {
            train: |epoch| self.loader.train_epoch(epoch as usize),
            n_train_batches: n_batches,
            valid: || self.loader.valid(),
        };
        let fitted = trainer.fit(&config, &data, &mut hooks);
        bar.finish_and_clear();
        let history = fitted.map_err(blame)?.history;
        let epochs = recorder.records;

        let layers = layer_records(trainer.network().parameters(), &PRUNED_RANKS).training()?;
        if keeps_files {
            let now = trainer.network().parameters().snapshot(|_, _| true).training()?;
            let info = plan.pruning.as_ref().map(|pruning| self.pruning_info(pruning, trainer.masks())).transpose()?;
            let trained = if is_search { kept.parameters } else { now.clone() };
            let parent = files.ticket.as_ref().map(|written| written.content.clone());
            let trained = self.write(&plan.name, Stage::Trained, trained, trainer.masks(), info.clone(), parent)?;
            if is_search {
                let parent = Some(trained.content.clone());
                let ticket = self.write(&plan.name, Stage::Ticket, now, trainer.masks(), info, parent)?;
                left.contents.insert(plan.name.clone(), ticket.content.clone());
                files.ticket = Some(ticket);
            } else {
                left.contents.insert(plan.name.clone(), trained.content.clone());
            }
            files.trained = Some(trained);
        }
        if plan.pruning.is_some() {
            self.console.line(format!("\n{}", lines::layer_table(&layers).plain().trim_end()));
        }
        Ok(self.record(plan, epochs, layers, files, history.iter().map(|epoch| epoch.data_time.as_secs_f64()).sum()))
    }

    fn record(
        &self,
        plan: &Plan,
        epochs: Vec<EpochRecord>,
        layers: Vec<LayerRecord>,
        files: Files,
        wait_seconds: f64,
    ) -> RunRecord {
        let pruning = plan.pruning.as_ref();
        RunRecord {
            name: plan.name.clone(),
            role: plan.role,
            control: plan.control,
            dataset: self.settings.dataset.name().to_owned(),
            seed: self.seed,
            sparsity: pruning.map_or(0., |pruning| pruning.sparsity),
            criterion: pruning.map(|pruning| pruning.criterion(self.seed).name().to_owned()),
            schedule: pruning.and_then(|pruning| Some(pruning.config(self.seed).ok()?.schedule.schedule.to_string())),
            starts_from: plan.after.clone().filter(|_| plan.start != Start::Initial),
            epochs,
            layers,
            ticket: files.ticket.map(|written| written.record),
            trained: files.trained.map(|written| written.record),
            wait_seconds: Some(wait_seconds),
            peak_memory_bytes: system::peak_memory(),
        }
    }

    fn pruning_info(&self, plan: &super::fits::PruningPlan, masks: &BTreeMap<String, Tensor>) -> Result<PruningInfo> {
        let config = plan.config(self.seed).training()?;
        Ok(PruningInfo {
            criterion: config.criterion.name().to_owned(),
            selection: config.selection,
            schedule: config.schedule,
            sparsity: MaskSet::from_tensors(masks).training()?.sparsity(),
            rewind: config.rewind,
        })
    }

    /// Writes one network of a run to `tickets/`.
    fn write(
        &mut self,
        run: &str,
        stage: Stage,
        tensors: BTreeMap<String, Tensor>,
        masks: &BTreeMap<String, Tensor>,
        pruning: Option<PruningInfo>,
        parent: Option<String>,
    ) -> Result<Written> {
        let many = self.settings.seeds.len() > 1;
        let seed = if many { format!("-seed{}", self.seed) } else { String::new() };
        let stage_name = match stage {
            Stage::Ticket => "ticket",
            Stage::Trained => "trained",
        };
        let name = format!("tickets/{run}{seed}.{stage_name}.safetensors");
        let path = self.run_dir.prepare_file(&name).data()?;
        let config = self.loader.config();
        let class_names = self.loader.pictures().classes().to_vec();
        let masks = if pruning.is_some() { MaskSet::from_tensors(masks).training()? } else { MaskSet::new() };
        let mut ticket = Ticket {
            header: TicketHeader {
                stage,
                network: NetworkInfo {
                    name: "resnet18".to_owned(),
                    head: Some(Head::from(self.settings.head).name().to_owned()),
                    n_outputs: class_names.len(),
                    input: vec![config.normalisation.mean.len(), config.image_size, config.image_size],
                    preprocessing: Some(Preprocessing {
                        mean: config.normalisation.mean.clone(),
                        std: config.normalisation.std.clone(),
                    }),
                    class_names,
                },
                pruning,
                seed: self.seed,
                dataset: self.dataset.clone(),
                parent: None,
                other: BTreeMap::new(),
            },
            tensors,
            masks,
        };
        // The ticket that a search leaves is the one that the next fit trains: nothing is its own parent.
        let content = ticket.content_sha256().training()?;
        ticket.header.parent = parent.filter(|parent| *parent != content);
        ticket.write(&path).data()?;
        Ok(Written { record: file_record(name, &path)?, content })
    }
}

/// What earlier fits left for later ones.
#[derive(Default)]
struct Left {
    last: String,
    /// Whole states, by fit.
    states: BTreeMap<String, State>,
    /// Epochs of the data that were used up, by fit.
    n_epochs: BTreeMap<String, u64>,
    /// Content of the network that a fit left, as its file says.
    contents: BTreeMap<String, String>,
}

#[derive(Default)]
struct Files {
    ticket: Option<Written>,
    trained: Option<Written>,
}

struct Written {
    record: FileRecord,
    content: String,
}

fn file_record(name: String, path: &Path) -> Result<FileRecord> {
    let (sha256, bytes) = lth_files::sha256_file(path).data()?;
    Ok(FileRecord { path: name, sha256, bytes, content: None })
}

fn blame(error: lth_train::Error) -> Failure {
    let kind = match &error {
        lth_train::Error::Data(_) | lth_train::Error::Checkpoint(_) => Kind::Data,
        lth_train::Error::Hook { hook, .. } if hook == RECORDING => Kind::Data,
        _ => Kind::Training,
    };
    Failure::new(kind, error)
}

/// Keeps the trained weights of a search before they are reset; comes before the pruning hook.
struct Kept {
    is_wanted: bool,
    parameters: BTreeMap<String, Tensor>,
}

impl Hook for Kept {
    fn name(&self) -> &str {
        "keeping the trained weights"
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> std::result::Result<(), BoxError> {
        if event == Event::FitEnd && self.is_wanted {
            self.parameters = fit.parameters().snapshot(|_, _| true)?;
        }
        Ok(())
    }
}

const RECORDING: &str = "recording";

/// Shows and writes down what every epoch gave; comes after the pruning hook.
struct Recorder<'a> {
    plan: &'a Plan,
    seed: u64,
    run_dir: &'a mut RunDir,
    console: &'a Console,
    bar: ProgressBar,
    records: Vec<EpochRecord>,
}

impl Hook for Recorder<'_> {
    fn name(&self) -> &str {
        RECORDING
    }

    fn on(&mut self, event: Event, fit: &mut Fit<'_>) -> std::result::Result<(), BoxError> {
        match event {
            Event::AfterStep => {
                if let Some(loss) = fit.smoothed_loss() {
                    self.bar.set_message(format!("loss {loss:.4}"));
                }
                self.bar.inc(1);
            }
            Event::EpochEnd => {
                let Some(epoch) = fit.history().last() else { return Ok(()) };
                const UNVALIDATED: &str = "an epoch has no figures of a validation, expected loss and accuracy";
                let record = EpochRecord {
                    epoch: epoch.epoch,
                    train_loss: epoch.train_loss,
                    valid_loss: epoch.valid_loss.ok_or(UNVALIDATED)?,
                    accuracy: epoch.accuracy().ok_or(UNVALIDATED)?,
                    seconds: epoch.train_time.as_secs_f64(),
                    valid_seconds: epoch.valid_time.as_secs_f64(),
                    sparsity: measured_sparsity(fit.parameters())?,
                };
                self.console.line(lines::epoch_line(&record));
                self.run_dir.append(&MetricRecord { run: self.plan.name.clone(), seed: self.seed, epoch: record })?;
                self.records.push(record);
            }
            _ => {}
        }
        Ok(())
    }
}

fn measured_sparsity(parameters: &Parameters) -> std::result::Result<f64, lth_ticket::Error> {
    Ok(LayerRecord::total("all", &layer_records(parameters, &PRUNED_RANKS)?).sparsity())
}
