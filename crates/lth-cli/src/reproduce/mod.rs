//! `lth reproduce`: the notebook's comparison, run and written down.

mod options;
mod weights;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use candle_core::DType;
use lth_data::{Dataset, Loader};
use lth_experiment::{Plan, Runner, Shard, SummaryWriter, contact_sheet};
use lth_nn::{Freeze, Part, ResNet, ResNetConfig, Setup};
use lth_runs::experiment::{ExperimentDir, ExperimentRecord};
use lth_ticket::{DatasetInfo, NetworkInfo};
use lth_train::{BoxError, Classification};
use serde_json::json;

pub(crate) use options::Options;

use crate::build::build;
use crate::console::Console;
use crate::experiment::{Progress, conclude, interrupted, machine, out_failure};
use crate::failure::{Blame, Failure, Kind, Result};
use crate::work::{self, Planned};
use crate::{data, system};
use options::{Settings, WeightsName};

pub(crate) fn planned(options: &Options) -> Result<Planned> {
    planned_by(options, &options.settings()?)
}

fn planned_by(options: &Options, settings: &Settings) -> Result<Planned> {
    let mut plan = settings.notebook.plan(subject(settings, options)).usage()?;
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
    // Feature maps are freed and wanted again at every step.
    lth_kernels::keep_freed_memory();
    system::set_threads(options.threads)?;

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
    let opened: RefCell<Option<(u64, Dataset)>> = RefCell::new(None);
    let open = |seed: u64| -> Result<()> {
        if opened.borrow().as_ref().is_none_or(|(other, _)| *other != seed) {
            let dataset = data::open(&settings.data, seed, options.source.skip_damaged, console)?;
            if dataset.split.valid.is_empty() {
                let n = dataset.pictures.len();
                return Err(Failure::new(
                    Kind::Data,
                    anyhow::anyhow!("{n} pictures are too few: a fifth of them must validate"),
                ));
            }
            writer.opened(&dataset, seed)?;
            opened.replace(Some((seed, dataset)));
        }
        Ok(())
    };
    // Nothing is opened if nothing is to be trained.
    let weights = RefCell::new(None);
    if !plan.is_done(dir)? {
        open(plan.fits[0].address.seed)?;
        let (read, record) = weights::open(options, settings, console)?.unzip();
        weights.replace(read);
        writer.started_from(record, settings.freeze == Freeze::Body);
    }
    let classes = || opened.borrow().as_ref().map_or_else(Vec::new, |(_, dataset)| dataset.pictures.classes().to_vec());
    let network_info = NetworkInfo {
        name: "resnet-18".to_owned(),
        head: Some(options.head.name().to_owned()),
        n_outputs: classes().len(),
        input: vec![3, settings.data.image_size, settings.data.image_size],
        preprocessing: Some(data::preprocessing(&settings.data.normalisation)),
        class_names: classes(),
    };

    let network = |seed: u64, dtype: DType| -> std::result::Result<ResNet, BoxError> {
        let setup = Setup { dtype, ..Setup::new(seed) };
        let config = ResNetConfig { width: settings.width, ..ResNetConfig::resnet18(classes().len(), options.head) };
        let network = ResNet::new(&config, &setup)?;
        if let Some(weights) = &*weights.borrow() {
            let weights: &lth_nn::Weights = weights;
            if let Some(prefix) = weights.load_into(lth_train::Network::parameters(&network), Part::Body)?.stripped {
                console.note(format!("`{prefix}` before every name of the starting weights is taken off"));
            }
        }
        network.freeze(settings.freeze);
        Ok(network)
    };
    let examples = |seed: u64| -> std::result::Result<Loader, BoxError> {
        open(seed)?;
        let opened = opened.borrow();
        let (_, dataset) = opened.as_ref().ok_or("no data set was opened")?;
        let config = settings.data.loader_config(settings.batch_size, seed);
        Ok(Loader::new(Arc::clone(&dataset.pictures), dataset.split.clone(), config)?)
    };
    let runner = Runner {
        plan,
        network: &network,
        examples: &examples,
        task: &Classification::default(),
        network_info,
        dataset_info: &|| DatasetInfo {
            name: settings.data.name.to_string(),
            sha256: opened.borrow().as_ref().map(|(_, dataset)| dataset.provenance.content_sha256.clone()),
        },
        score_batches: 1,
        is_interrupted: &interrupted,
        checkpoint_every: Duration::from_secs(options.checkpoint_every),
        peak_memory: &system::peak_memory,
    };
    console.note(format!("writing to {}", dir.path().display()));
    let mut progress = Progress::new(console);
    let reports = &lth_runs::report::files_with;
    let folder = dir.path().to_path_buf();
    let outcome = options.events.watch(&folder, &mut progress, |observer| {
        Ok(runner.run(dir, observer, &mut |dir, outcome| {
            Ok(writer.update(dir, outcome, reports, system::peak_memory())?)
        })?)
    })?;
    progress.finish();
    let seed = opened.borrow().as_ref().map(|(seed, _)| *seed).filter(|_| outcome.n_trained > 0);
    if let Some(seed) = seed {
        let loader = examples(seed).map_err(|error| Failure::new(Kind::Data, anyhow::anyhow!(error)))?;
        let so_far = writer.summary(&outcome);
        if let Some(sheet) = contact_sheet(dir.path(), &so_far, &loader, seed, &network)? {
            dir.write_contact_sheet(&sheet).data()?;
        }
    }
    let summary = writer.conclude(dir, &outcome, reports, system::peak_memory())?;
    conclude(&summary, &outcome, dir.path(), lth_runs::report::overview, console)
}

/// What every fit's result depends on besides the plan.
fn subject(settings: &Settings, options: &Options) -> serde_json::Value {
    let data = &settings.data;
    let weights = match &settings.weights {
        WeightsName::Imagenet => "imagenet".to_owned(),
        WeightsName::None => "none".to_owned(),
        WeightsName::File(path) => path.display().to_string(),
    };
    let mut network =
        json!({ "name": "resnet-18", "head": options.head.name(), "freeze": settings.freeze, "weights": weights });
    if settings.width != ResNetConfig::resnet18(1, options.head).width {
        network["width"] = settings.width.into();
    }
    json!({
        "network": network,
        "data": { "name": data.name, "split": data.split, "normalisation": data.normalisation, "image_size": data.image_size },
        "batch_size": settings.batch_size,
    })
}
