//! `lth reproduce`: the notebook's comparison, run and written down.

mod options;
mod subject;
mod weights;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use lth_experiment::{Again, CHECKPOINT_EVERY, Plan, Shard, SummaryWriter, contact_sheet};
use lth_nn::Freeze;
use lth_runs::experiment::{ExperimentDir, ExperimentReader, ExperimentRecord};
use lth_runs::{Address, WeightsRecord};
use serde_json::{Value, json};

pub(crate) use options::Options;
pub(crate) use subject::OnOpened;

use crate::build::build;
use crate::console::Console;
use crate::data::SourceOptions;
use crate::experiment::{Progress, conclude, interrupted, machine, out_failure};
use crate::failure::{Blame, Failure, Kind, Result};
use crate::system;
use crate::work::{self, Planned};
use options::{Settings, WeightsName};
use subject::{Opened, Subject};

pub(crate) fn planned(options: &Options) -> Result<Planned> {
    planned_by(options, &options.settings()?)
}

fn planned_by(options: &Options, settings: &Settings) -> Result<Planned> {
    let mut plan = settings.notebook.plan(serde_json::to_value(&settings.subject).usage()?).usage()?;
    plan.config = json!({ "notebook": plan.config, "subject": plan.subject });
    let identity = settings.notebook.identity(&plan.subject).usage()?;
    let name = format!("{}-{}", settings.data.name, &identity[..8]);
    let out = options.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(name));
    Ok(Planned { plan, identity, out, json: options.json })
}

pub(crate) fn run(options: &Options, shard: Option<Shard>) -> Result {
    // From here on a signal is listened to.
    interrupted();
    let settings = options.settings()?;
    let Planned { plan, identity, out, .. } = planned_by(options, &settings)?;
    let plan = shard.map_or_else(|| plan.clone(), |shard| shard.plan(&plan));
    let out = work::folder(out, shard)?;
    let console = Console::new(options.json);
    system::prepare(options.threads)?;

    let record = ExperimentRecord { name: plan.name.clone(), identity, config: plan.config.clone() };
    let existing = if options.force { lth_runs::Existing::Replace } else { lth_runs::Existing::Refuse };
    // Before any long work: the folder may be refused.
    let mut dir =
        ExperimentDir::open(&out, record.clone(), existing).map_err(|error| out_failure(error, options.force))?;
    let command = system::command_line();
    let wider = settings.notebook.wider_plan(&dir.addresses(), plan.subject.clone())?;
    let writer = SummaryWriter::new((&plan, &wider), record, &dir, (&build(), &command, Some(&machine())))?;
    train(options, &settings, &plan, &mut dir, &writer, &console)
}

fn train(
    options: &Options,
    settings: &Settings,
    plan: &Plan,
    dir: &mut ExperimentDir,
    writer: &SummaryWriter,
    console: &Console,
) -> Result {
    let on_opened: &OnOpened<'_> = &|dataset, seed| Ok(writer.opened(dataset, seed)?);
    let place = (&settings.data, options.source.skip_damaged);
    let mut opened = Opened::new(&settings.subject, place, on_opened, console);
    // Nothing is opened if nothing is to be trained.
    if !plan.is_done(dir)? {
        opened.open(plan.fits[0].address.seed)?;
        let network = &settings.subject.network;
        opened.weights = weights::open(&network.weights, options.source.mirror.as_deref(), console)?;
        let record = opened.weights.as_ref().map(|(_, record)| record.clone());
        writer.started_from(record, network.freeze == Freeze::Body)?;
    }
    console.note(format!("writing to {}", dir.path().display()));
    let mut progress = Progress::new(console);
    let reports = &lth_runs::report::files_with;
    let folder = dir.path().to_path_buf();
    let outcome = options.events.watch(&folder, &mut progress, |observer| {
        opened.with_runner(plan, Duration::from_secs(options.checkpoint_every), |runner| {
            Ok(runner.run(dir, observer, &mut |dir, outcome| {
                Ok(writer.update(dir, outcome, reports, system::peak_memory())?)
            })?)
        })
    })?;
    progress.finish();
    if let Some(seed) = opened.seed().filter(|_| outcome.n_trained > 0) {
        let loader = opened.examples(seed).map_err(|error| Failure::new(Kind::Data, anyhow!(error)))?;
        let so_far = writer.summary(&outcome);
        let network = &|seed, dtype| opened.network(seed, dtype);
        if let Some(sheet) = contact_sheet(dir.path(), &so_far, &loader, seed, network)? {
            dir.write_contact_sheet(&sheet).data()?;
        }
    }
    let summary = writer.conclude(dir, &outcome, reports, system::peak_memory())?;
    conclude(&summary, &outcome, dir.path(), lth_runs::report::overview, console)
}

/// A fit of a comparison that is on record, and what it is done again with.
pub(crate) struct OfRecord<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) address: &'a Address,
    /// The comparison's folder.
    pub(crate) folder: &'a ExperimentReader,
    /// What its fits depend on besides the plan.
    pub(crate) subject: &'a Value,
    /// The starting weights of the comparison, and the file that they are in, if not where they were.
    pub(crate) weights: (Option<&'a WeightsRecord>, Option<&'a Path>),
    pub(crate) source: &'a SourceOptions,
}

impl OfRecord<'_> {
    /// Does the fit again into `dir`; `None` if it was interrupted.
    pub(crate) fn again(
        &self,
        dir: &mut ExperimentDir,
        on_opened: &OnOpened<'_>,
        console: &Console,
    ) -> Result<Option<Again>> {
        let subject: Subject = serde_json::from_value(self.subject.clone()).data()?;
        let mut data = subject.dataset();
        if let Some(source) = self.source.source() {
            data.source = source;
        }
        let mut opened = Opened::new(&subject, (&data, self.source.skip_damaged), on_opened, console);
        opened.open(self.address.seed)?;
        let (recorded, file) = self.weights;
        let name = file.map_or_else(|| subject.network.weights.clone(), |file| WeightsName::File(file.to_owned()));
        opened.weights = weights::open(&name, self.source.mirror.as_deref(), console)?;
        let sha256 = |record: Option<&WeightsRecord>| record.and_then(|record| record.sha256.clone());
        let (got, expected) = (sha256(opened.weights.as_ref().map(|(_, record)| record)), sha256(recorded));
        if got != expected {
            let word = |sha256: Option<String>| sha256.unwrap_or_else(|| "none".into());
            let reason = anyhow!(
                "the starting weights have SHA-256 {}, the experiment's {}: `--weights FILE` gives them",
                word(got),
                word(expected)
            );
            return Err(Failure::new(Kind::Data, reason));
        }
        let mut progress = Progress::new(console);
        let again = opened.with_runner(self.plan, CHECKPOINT_EVERY, |runner| {
            Ok::<_, Failure>(runner.again(self.address, self.folder, dir, &mut progress)?)
        })?;
        progress.finish();
        Ok(again)
    }
}
