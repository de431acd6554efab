//! A whole experiment as a file holds it: network, data, and what is done with them.

use std::cell::RefCell;
use std::path::PathBuf;

use candle_core::DType;
use lth_data::{Augmentation, Dataset, DatasetSpec, Loader, LoaderConfig};
use lth_nn::NetworkSpec;
use lth_runs::experiment::{ExperimentDir, ExperimentRecord, Summary};
use lth_runs::{ContactSheet, Existing};
use lth_train::BoxError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::subject::{AnyInput, Subject};
use crate::{Error, Host, ImpConfig, Outcome, Plan, SummaryWriter, contact_sheet};

/// Iterative magnitude pruning of a network of `lth-nn` on a data set of `lth-data`.
///
/// It is written as JSON or TOML; what is left out has its default, and what has its default is left out when it is
/// written. [`preset`](crate::preset) has the papers' own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The network.
    pub network: NetworkSpec,
    /// The data.
    pub data: DatasetSpec,
    /// Examples of a training batch.
    pub batch_size: usize,
    /// What training does to the pictures.
    #[serde(default, skip_serializing_if = "Augmentation::is_none")]
    pub augmentation: Augmentation,
    /// Seeds that all replicates share, instead of each having its own.
    #[serde(default, skip_serializing_if = "FixedSeeds::is_none")]
    pub fixed: FixedSeeds,
    /// What is done.
    pub imp: ImpConfig,
}

/// Seeds that all replicates share. What is left out follows the replicate's seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedSeeds {
    /// Of the split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<u64>,
    /// Of the initial weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<u64>,
    /// Of the order of the training examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<u64>,
    /// Of crops and augmentation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<u64>,
}

impl FixedSeeds {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Experiment {
    /// What every fit's result depends on besides its plan: the network, and what it sees of which data. Where the data
    /// lie is no part of it.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn subject(&self) -> Result<Value, Error> {
        let DatasetSpec { name, split, normalisation, image_size, .. } = &self.data;
        Ok(serde_json::json!({
            "network": self.network,
            "data": { "name": name, "split": split, "normalisation": normalisation, "image_size": image_size },
            "batch_size": self.batch_size,
            "augmentation": self.augmentation,
            "fixed": self.fixed,
        }))
    }

    /// The fits.
    ///
    /// # Errors
    /// As [`ImpConfig::plan`]; [`Error::Network`] and [`Error::Dataset`] if network or data cannot be had, or the network
    /// does not take the data.
    pub fn plan(&self) -> Result<Plan, Error> {
        self.network.check()?;
        self.data.check()?;
        let seen = [self.data.n_channels(), self.data.image_size, self.data.image_size];
        let n_values: usize = self.network.input.iter().product();
        if self.network.input != seen && (self.network.input.len() != 1 || n_values != seen.iter().product::<usize>()) {
            return Err(Error::Plan {
                field: format!("input of network `{}`", self.network.name),
                got: format!("{:?}", self.network.input),
                expected: format!("{seen:?}, which the data set `{}` gives", self.data.name),
            });
        }
        let plan = self.imp.plan(self.subject()?)?;
        Ok(Plan { config: self.config()?, ..plan })
    }

    /// SHA-256 of all but seeds, levels and arms: to those can be added later.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn identity(&self) -> Result<String, Error> {
        self.imp.identity(&self.subject()?)
    }

    /// The seed of a replicate's split.
    pub fn split_seed(&self, seed: u64) -> u64 {
        self.fixed.split.unwrap_or(seed)
    }

    /// The seed of a replicate's initial weights.
    pub fn init_seed(&self, seed: u64) -> u64 {
        self.fixed.init.unwrap_or(seed)
    }

    /// A replicate's batches of data that were opened with [`Experiment::split_seed`].
    ///
    /// # Errors
    /// If there are fewer training examples than a batch has, or nothing to validate on; if the data have another number of
    /// classes than the network has outputs.
    pub fn loader(&self, dataset: &Dataset, seed: u64) -> Result<Loader, Error> {
        let n_classes = dataset.pictures.classes().len();
        if n_classes != self.network.n_outputs {
            return Err(Error::Plan {
                field: format!("number of outputs of network `{}`", self.network.name),
                got: self.network.n_outputs.to_string(),
                expected: format!("{n_classes}, the classes of the data set `{}`", self.data.name),
            });
        }
        if dataset.split.valid.is_empty() {
            return Err(Error::Plan {
                field: format!("split of the data set `{}`", self.data.name),
                got: "no validation examples".into(),
                expected: "at least one".into(),
            });
        }
        let config = LoaderConfig {
            valid_batch_size: self.batch_size.max(256),
            order_seed: self.fixed.order,
            augmentation_seed: self.fixed.augmentation,
            augmentation: self.augmentation,
            ..self.data.loader_config(self.batch_size, seed)
        };
        Ok(Loader::new(std::sync::Arc::clone(&dataset.pictures), dataset.split.clone(), config)?)
    }

    /// The folder of the experiment at `path`, to go on in.
    ///
    /// # Errors
    /// As [`ExperimentDir::open`].
    pub fn open_dir(&self, path: impl Into<PathBuf>, existing: Existing) -> Result<ExperimentDir, Error> {
        Ok(ExperimentDir::open(path, self.record()?, existing)?)
    }

    pub(crate) fn record(&self) -> Result<ExperimentRecord, Error> {
        Ok(ExperimentRecord { name: "imp".into(), identity: self.identity()?, config: self.config()? })
    }

    /// For the records: without the place that the data come from, which may have a password in it. What was read is on
    /// record with the data.
    pub(crate) fn config(&self) -> Result<Value, Error> {
        let mut config = serde_json::to_value(self)?;
        if let Some(Value::Object(data)) = config.get_mut("data") {
            data.remove("source");
        }
        Ok(config)
    }

    /// Trains what is not there yet, and keeps summary and reports up to date.
    ///
    /// ```no_run
    /// use lth_experiment::{Host, Silent, preset};
    /// use lth_runs::Existing;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let experiment = preset("lenet-digits")?;
    /// let mut dir = experiment.open_dir("runs/digits", Existing::Refuse)?;
    /// let (summary, _) = experiment.run(&mut dir, Host::new("cache", &mut |_| {}, &mut Silent))?;
    /// println!("{}", lth_runs::report::overview(&summary));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Experiment::plan`] and [`Runner::run`](crate::Runner::run).
    pub fn run(&self, dir: &mut ExperimentDir, host: Host<'_>) -> Result<(Summary, Outcome), Error> {
        let Host {
            open,
            watch,
            observer,
            is_interrupted,
            shard,
            checkpoint_every,
            peak_memory,
            reports,
            build,
            command,
            machine,
        } = host;
        let whole = self.plan()?;
        let plan = shard.map_or_else(|| whole.clone(), |shard| shard.plan(&whole));
        let wider = self.imp.wider_plan(&dir.addresses(), &self.subject()?)?;
        let about = (&build, command.as_slice(), machine.as_ref());
        let writer = SummaryWriter::new((&plan, &wider), self.record()?, dir, about)?;
        let on_opened =
            |dataset: &Dataset, split_seed: u64| -> Result<(), BoxError> { Ok(writer.opened(dataset, split_seed)?) };
        let subject = Subject {
            experiment: self,
            options: open,
            watch: RefCell::new(watch),
            on_opened: &on_opened,
            opened: RefCell::default(),
        };
        let outcome = subject.with_runner(&plan, is_interrupted, checkpoint_every, peak_memory, |runner| {
            runner.run(dir, observer, &mut |dir, outcome| Ok(writer.update(dir, outcome, reports, peak_memory())?))
        })?;
        let sheet = match &*subject.opened.borrow() {
            Some((split_seed, dataset)) if outcome.n_trained > 0 => {
                self.contact_sheet(dir, &writer.summary(&outcome), (*split_seed, dataset), &|seed, dtype| {
                    subject.network(seed, dtype)
                })
            }
            _ => Ok(None),
        };
        if let Ok(Some(sheet)) = &sheet {
            dir.write_contact_sheet(sheet)?;
        }
        let summary = writer.conclude(dir, &outcome, reports, peak_memory())?;
        // Said only when everything is written.
        sheet.map(|_| (summary, outcome))
    }

    /// Of the first seed that has these data.
    fn contact_sheet(
        &self,
        dir: &ExperimentDir,
        summary: &Summary,
        (split_seed, dataset): (u64, &Dataset),
        network: &dyn Fn(u64, DType) -> Result<AnyInput, BoxError>,
    ) -> Result<Option<ContactSheet>, Error> {
        match summary.seeds().into_iter().find(|seed| self.split_seed(*seed) == split_seed) {
            Some(seed) => contact_sheet(dir.path(), summary, &self.loader(dataset, seed)?, seed, network),
            None => Ok(None),
        }
    }
}
